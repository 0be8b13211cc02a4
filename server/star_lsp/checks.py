"""What may be wrong with an installation, each with its remedy: one function a kind, in one list."""

import contextlib
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil
from filelock import FileLock, Timeout

from star.errors import StarError
from star.history import base_of
from star_lsp.catalogue import installed
from star_lsp.disk import MARGIN, held
from star_lsp.holdings import holdings, ours
from star_lsp.installed import folder_name, is_name, read
from star_lsp.patch_file import identity
from star_lsp.permissions import foreign, loose, mend
from star_lsp.places import Places
from star_lsp.running import about
from star_lsp.store import Health, Patch, examine

__all__ = ["CHECKS", "Asked", "Check", "Finding", "Level"]

Level = Literal["fine", "word", "wrong"]

_MODULES = ("star_lsp.worker", "star_lsp.tether")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found: how it is, and what to do when it is not as it should be."""

    level: Level
    text: str
    remedy: str = ""
    #: What puts it right, where that is safe.
    fix: Callable[[], object] | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What is checked."""

    places: Places
    #: The model that the server is to use.
    model: str
    #: Whether all bytes of the models are read.
    deep: bool
    #: What the store is like, None when there is none.
    health: Health | None

    @classmethod
    def of(cls, places: Places, model: str, deep: bool) -> "Asked":
        """With the store as it is now."""
        return cls(places, model, deep, examine(places.data))

    @property
    def patches(self) -> tuple[Patch, ...]:
        """The patches that the store names, none where it cannot be read."""
        return (self.health.patches if self.health else None) or ()


Check = Callable[[Asked], Iterator[Finding]]


def versions(_: Asked) -> Iterator[Finding]:
    """Python and what star-lsp depends on."""
    from packaging.requirements import Requirement

    found = [f"python {platform.python_version()}"]
    for text in metadata.requires("star-lsp") or ():
        needed = Requirement(text)
        if needed.marker and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            here = metadata.version(needed.name)
        except metadata.PackageNotFoundError:
            here = ""
        if not needed.specifier.contains(here or "0", prereleases=True) or not here:
            yield Finding(
                "wrong",
                f"{needed.name} is {here or 'not here'}, and {needed.specifier or 'any version'} is needed",
                f"Install star-lsp again into this environment ({sys.prefix}): pip install star-lsp.",
            )
        elif needed.name in ("torch", "transformers", "pygls", "click"):
            found.append(f"{needed.name} {here}")
    yield Finding("fine", f"star-lsp {metadata.version('star-lsp')} with {', '.join(found)}")


def arithmetic(_: Asked) -> Iterator[Finding]:
    """Whether torch computes, and the int8 product is exact."""
    try:
        import torch

        from star.product import Int8Linear, round_rows, way

        weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(1))
        layer, x = Int8Linear(*round_rows(weight)), torch.eye(128)
        wrong = (layer(x) - layer.weight.T).abs().max().item()
    except Exception as error:  # whatever a broken installation raises
        yield Finding(
            "wrong",
            f"torch cannot be used ({type(error).__name__}: {str(error)[:200]})",
            "Install the CPU build of torch 2.13 into this environment, then star-lsp again.",
        )
        return
    if wrong > 1e-3:
        yield Finding(
            "wrong",
            f"torch's product in int8 is wrong on this processor (by {wrong:.2g})",
            "Let the model compute with the stored weights: star-lsp model weights NAME stored.",
        )
    else:
        yield Finding("fine", f"torch computes, and its product in int8 is exact ({way()})")


def models(asked: Asked) -> Iterator[Finding]:
    """Whether the model is here, and every model that is here is whole."""
    from star.fingerprint import fingerprint, spans

    here = installed(asked.places.models)
    wanted = folder_name(asked.model)
    if not any(model.name == wanted for model in here):
        yield Finding(
            "wrong", f"The model {asked.model} is not here", f"Run star-lsp model pull {asked.model}."
        )
    for model in here:
        again = f"Run star-lsp model remove {model.name}, then star-lsp model pull {model.name}."
        try:
            spans(model.folder)  # reads the headers, and whether the files are as long as these say
            if not (model.folder / "tokenizer.json").is_file():
                yield Finding("wrong", f"The model {model.name} has no tokenizer.json", again)
            elif asked.deep and (now := fingerprint(model.folder)) != model.fingerprint:
                yield Finding(
                    "wrong",
                    f"The model {model.name} was altered: it is {now[:12]}, and was {model.fingerprint[:12]}",
                    again,
                )
            else:
                how = "its hash is right" if asked.deep else "its files are whole; --deep hashes them"
                yield Finding("fine", f"model {model.name} ({model.weights}): {how}")
        except (StarError, OSError) as error:
            yield Finding("wrong", f"The model {model.name} is damaged: {error}", again)


def store(asked: Asked) -> Iterator[Finding]:
    """Whether the store is sound, and of a format that is known."""
    health, folder = asked.health, asked.places.data
    if health is None:
        yield Finding("fine", "There is no store yet; the first case makes it")
        return
    if health.problems:
        kept = ", ".join(path.name for path in holdings(folder)["backups"]) or "there is none"
        yield Finding(
            "wrong",
            f"The store is damaged: {'; '.join(health.problems)[:300]}",
            f"Close all editors, and move store.sqlite3* in {folder} aside (keep them); then copy a backup "
            f"to store.sqlite3 ({kept}), or begin with an empty store.",
        )
    elif health.version > health.known:
        yield Finding(
            "wrong",
            f"The store is of format {health.version}, and this star-lsp knows {health.known}",
            "Update star-lsp.",
        )
    elif health.version < health.known:
        yield Finding(
            "word",
            f"The store is of format {health.version}; the next start brings it to {health.known}",
        )
    else:
        yield Finding("fine", f"The store is sound (format {health.version})")


def patches(asked: Asked) -> Iterator[Finding]:
    """Whether every active patch is there, is what went live, and has its base here."""
    bases = {
        base_of(model.fingerprint, weights)
        for model in installed(asked.places.models)
        for weights in ("stored", "int8")
    }
    active = [patch for patch in asked.patches if patch.active]
    sound = 0
    for patch in active:
        path = asked.places.data / "patches" / f"{patch.id}.safetensors"
        remedy = (
            f"Take a good copy of {path} from a backup, or run star-lsp revert {patch.id} and repair again."
        )
        if not path.is_file():
            yield Finding("wrong", f"The file of patch {patch.id} is gone", remedy)
        elif (found := _identity(path)) != (patch.base, patch.digest):
            what = "cannot be read" if found is None else "is not what went live"
            yield Finding("wrong", f"The file of patch {patch.id} {what}", remedy)
        elif patch.base not in bases:
            yield Finding(
                "word",
                f"Patch {patch.id} is for the base {patch.base[:12]}, which is not here",
                "Pull the model that it was made for; it counts for no other.",
            )
        else:
            sound += 1
    if sound or not active:
        yield Finding("fine", f"{sound} active patch{'es' * (sound != 1)}, each as it went live")


def _identity(path: Path) -> tuple[str, str] | None:
    """The base and digest of a patch file, by its rows; None when it cannot be read."""
    try:
        return identity(path)
    except Exception:  # however a damaged file fails to be read
        return None


def permissions(asked: Asked) -> Iterator[Finding]:
    """Whether all that is kept is for the user alone."""
    data = asked.places.data
    paths = [data, *ours(data), *holdings(data)["server"]]
    for path in foreign(paths):
        yield Finding("wrong", f"{path} belongs to another user", f"Make it yours: chown $USER {path}.")
    for path in loose(paths):
        yield Finding(
            "wrong",
            f"Others may use {path} (mode {path.stat().st_mode & 0o777:o})",
            "Run star-lsp doctor --fix.",
            lambda path=path: mend([path]),  # type: ignore[misc]
        )
    for folder in (data, asked.places.models):
        if not os.access(folder, os.W_OK | os.X_OK):
            yield Finding(
                "wrong",
                f"Nothing can be written to {folder}",
                f"Give yourself the right to (chmod u+rwx {folder}), or set STAR_LSP_HOME to another folder.",
            )
    if not loose(paths):
        known = "only you can use what is kept"
        yield Finding("fine", known if sys.platform != "win32" else "permissions are Windows' own")


def disk(asked: Asked) -> Iterator[Finding]:
    """Whether there is room."""
    for name, folder in (("data", asked.places.data), ("models", asked.places.models)):
        free = shutil.disk_usage(folder).free
        if free < MARGIN:
            yield Finding(
                "wrong",
                f"{free / 1e6:.0f} MB are free for {name} at {folder}",
                "Make room there; star-lsp purge and star-lsp model remove help, or set STAR_LSP_HOME.",
            )
        else:
            yield Finding("fine", f"{free / 1e9:.1f} GB are free for {name} at {folder}")


def strays(asked: Asked) -> Iterator[Finding]:
    """What nothing names any more."""
    known = None if asked.health and asked.health.patches is None else {p.id for p in asked.patches}
    found = holdings(asked.places.data, known)
    with contextlib.ExitStack() as stack:
        try:  # a patch in the making is named by nothing yet
            if (asked.places.data / "repair.lock").exists():
                stack.enter_context(FileLock(asked.places.data / "repair.lock", timeout=0, mode=0o600))
        except Timeout:
            yield Finding("word", "A repair is under way, so stray files are not looked for")
            return
        for path in found["stray"]:
            yield Finding(
                "word",
                f"Nothing names {path}",
                "Run star-lsp doctor --fix.",
                lambda path=path: path.unlink(),  # type: ignore[misc]
            )
    if found["set aside"]:
        names = ", ".join(path.name for path in found["set aside"])
        yield Finding(
            "word", f"Set aside in {asked.places.data}: {names}", "When you need it no more: star-lsp purge."
        )
    for path in sorted(asked.places.models.iterdir()):
        name = path.name.removeprefix(".partial-")
        if path.name.startswith(".removed-"):
            yield Finding(
                "word",
                f"{path} is what is left of a model that was removed",
                "Run star-lsp doctor --fix.",
                lambda path=path: shutil.rmtree(path),  # type: ignore[misc]
            )
        elif name != path.name:
            yield Finding(
                "word",
                f"A pull of {name} is not finished ({held(path) / 1e6:.0f} MB)",
                f"star-lsp model pull {name} goes on with it, star-lsp model remove {name} gives it up.",
            )
        elif path.is_dir() and is_name(path.name) and read(path) is None:
            yield Finding(
                "wrong", f"{path} is no model that can be used", f"Move {path} elsewhere, or remove it."
            )
    if not found["stray"]:
        yield Finding("fine", "no stray files")


def processes(_: Asked) -> Iterator[Finding]:
    """Processes of ours whose parent is gone."""
    left = 0
    for process in psutil.process_iter(["cmdline", "uids" if sys.platform != "win32" else "username"]):
        try:
            words: Sequence[str] = process.info["cmdline"] or ()
            mine = sys.platform == "win32" or process.info["uids"].real == os.getuid()
            parent = process.parent()
            lost = parent is None or (
                parent.pid == 1 and not any("star" in word for word in parent.cmdline())
            )
            if mine and lost and any(word in _MODULES for word in words):
                left += 1
                yield Finding(
                    "wrong",
                    f"Process {process.pid} ({' '.join(words[1:5])}) has lost the server that started it",
                    f"End it: kill {process.pid}.",
                )
        except (psutil.Error, AttributeError):
            continue
    if not left:
        yield Finding("fine", "no process was left over")


def server(asked: Asked) -> Iterator[Finding]:
    """The server that editors share: whether it answers."""
    told = about(asked.places.data)
    for each in told:
        if "error" in each:
            yield Finding("wrong", each["error"], "Cases are kept.")
        else:
            count = len(each["editors"])
            yield Finding("fine", f"the server {each['pid']} answers; {count} editors are connected")
    if not told:
        yield Finding("fine", "no server runs; an editor starts one")


CHECKS: tuple[Check, ...] = (
    versions,
    arithmetic,
    models,
    store,
    patches,
    permissions,
    disk,
    strays,
    processes,
    server,
)
