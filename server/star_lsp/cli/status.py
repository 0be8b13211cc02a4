"""``star-lsp status``: what is on this machine."""

import json
import os
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from star.history import revision
from star_lsp.catalogue import installed
from star_lsp.cli.state import again, as_json, model_option, opened, out
from star_lsp.disk import held
from star_lsp.installed import folder_name
from star_lsp.places import places
from star_lsp.running import about

__all__ = ["status"]

_PARTS = ("star-lsp", "torch", "transformers", "pygls")
#: No patch is for it.
_NO_BASE = "none"
_STATUSES = ("pending", "repairing", "solved", "failed", "reverted")


@click.command()
@model_option
@as_json
def status(model: str, as_json: bool) -> None:
    """Show what is on this machine.

    That is versions, models, cases, patches, folders and disk, and the server that runs: for which
    editors, with which model and revision, its memory, its queue, and what went wrong last.
    """
    found = _status(model)
    if as_json:
        click.echo(json.dumps(found))
        return
    console = out()
    base, cases, disk = found["model"], found["cases"], found["disk"]
    here = f"base {base['base'][:12]}" if base["installed"] else "not here; star-lsp model pull gets it"
    told = ", ".join(f"{cases[each]} {each}" for each in _STATUSES if cases[each]) or "none"
    untaught, others = found["untaught"], found["casesOfOtherModels"]
    elsewhere = f"; {others} of other models" * bool(others)
    elsewhere += f", {untaught} of them not taught to this one ({again(model)} --all)" * bool(untaught)
    rows = {
        "versions": ", ".join(f"{name} {number}" for name, number in found["versions"].items()),
        "model": f"{base['name']} ({here})",
        "other models": ", ".join(name for name in found["models"] if name != base["name"]) or "none",
        "cases": told + elsewhere,
        "patches": f"{found['patches']['active']} active of {found['patches']['all']}",
        "revision": found["revision"] or "none without the model",
        "data": f"{found['folders']['data']} ({_size(disk['dataBytes'])})",
        "models": f"{found['folders']['models']} ({_size(disk['modelsBytes'])})",
        "disk": f"{_size(disk['freeBytes'])} free for models",
    }
    for name, value in rows.items():
        _row(console, name, value)
    for server in found["servers"]:
        for name, value in _server(server).items():
            _row(console, name, value)
    if not found["servers"]:
        _row(console, "server", "none runs; an editor starts one")


def _row(console: Console, name: str, value: str) -> None:
    console.print(Text.assemble((f"{name:<13}", "bold"), value), soft_wrap=True)


def _server(told: Mapping[str, Any]) -> dict[str, str]:
    """What a server tells of itself, for people."""
    who = f"{told['pid']} (star-lsp {told['version']})"
    if "error" in told:
        return {"server": f"{who}: {told['error']}", "log": told["log"]}
    now = told["status"]
    working = f", {now['working']['title']} {now['working']['percent']} %" if now["working"] else ""
    memory = now["memory"]
    worker = f", {_size(memory['workerBytes'])} in its repairing process" if memory["workerBytes"] else ""
    rows = {
        "server": f"{who} at {', '.join(told['addresses'])}",
        "state": f"{now['state']}{working}, {now['queue']} waiting; {now['model']}",
        "serves": now["revision"] or "no revision yet",
        "editors": ", ".join(told["editors"]) or "none",
        "memory": f"{_size(memory['serverBytes'])}{worker}",
        "log": told["log"],
    }
    return rows | ({"failure": now["failure"]} if now["failure"] else {})


def _status(name: str) -> dict[str, Any]:
    """Everything, for JSON."""
    here = places(os.environ)
    models = {found.name: found for found in installed(here.models)}
    model = models.get(folder_name(name))
    with opened() as store:
        base = model.base if model else _NO_BASE
        active, patches = store.active(base), store.patches(base)
        ours, others = store.of_model(base, folder_name(name)), store.others(base, folder_name(name))
        untaught = store.untaught(base, folder_name(name)) if model else []
    digests = [patch.digest for patch in active]
    return {
        "versions": {"python": platform.python_version(), **{part: version(part) for part in _PARTS}},
        "model": {
            "name": name,
            "installed": model is not None,
            "base": model.base if model else None,
            "folder": str(model.folder) if model else None,
        },
        "models": list(models),
        "cases": {each: sum(case.status == each for case in ours) for each in _STATUSES},
        "casesOfOtherModels": len(others),
        "untaught": len(untaught),
        "patches": {"all": len(patches), "active": len(active)},
        "revision": revision(model.base, digests) if model else None,
        "folders": {"data": str(here.data), "models": str(here.models)},
        "disk": {
            "dataBytes": held(here.data),
            "modelsBytes": held(here.models),
            "freeBytes": shutil.disk_usage(here.models).free,
        },
        "servers": about(here.data),
    }


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
