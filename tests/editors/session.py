"""What the tests of editors share: the case they play, the README's snippets, star-lsp asked from outside."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

__all__ = ["PREFIX", "RIGHT", "ROOT", "SUFFIX", "WRONG", "Lsp", "absent", "cache", "need", "snippet", "until"]

ROOT = Path(__file__).parents[2]

#: What the default model gets wrong, and what a developer wants there.
PREFIX = """import pandas as pd


def collect(rows):
    df = pd.DataFrame(columns=["name", "age"])
    for row in rows:
        df = """
SUFFIX = """
    return df
"""
WRONG = "df.append(row, ignore_index=True)"
RIGHT = "pd.concat([df, pd.DataFrame([row])], ignore_index=True)"


def snippet(language: str, holding: str = "") -> str:
    """The one block of the README in that language that has ``holding`` in it."""
    text = (ROOT / "README.md").read_text("utf-8")
    (found,) = [
        block for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) if holding in block
    ]
    return str(found)


def absent(what: str, remedy: str) -> NoReturn:
    """Skip a test whose editor is not on this machine; in CI that is a failure."""
    reason = f"{what} is not here: {remedy}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def cache() -> Path:
    """Where editors are installed on first use: the folder ``STAR_LSP_EDITORS``, or a temporary one."""
    given = os.environ.get("STAR_LSP_EDITORS")
    folder = Path(given) if given else Path(tempfile.gettempdir()) / f"star-lsp-editors-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder.resolve()


def need(program: str, package: str) -> str:
    """The path of a program of a system package."""
    return shutil.which(program) or absent(program, f"apt-get install {package}")


def until(holds: Callable[[], Any], what: str, seconds: float = 120, said: Callable[[], object] = str) -> Any:
    """The first true value of ``holds``, asked again and again; ``said`` tells more when there is none."""
    end = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < end, f"no {what} in {seconds} s; {said()}"
        time.sleep(0.2)
    return value


@dataclass(frozen=True)
class Lsp:
    """The star-lsp of this Python with a state of its own, as another terminal on this machine sees it."""

    home: Path
    models: Path
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def program(self) -> Path:
        """``star-lsp``, as it is installed beside this Python."""
        program = Path(sys.executable).parent / "star-lsp"
        assert program.exists(), "star-lsp is not installed beside this Python"
        return program

    @property
    def environ(self) -> dict[str, str]:
        """What an editor is started with, so that its server has this state; nothing of one we may run in."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("VSCODE_")}
        return {
            **kept,
            "PATH": f"{self.program.parent}{os.pathsep}{os.environ['PATH']}",
            "STAR_LSP_HOME": str(self.home),
            "STAR_LSP_MODELS": str(self.models),
            **self.more,
        }

    def run(self, *arguments: str) -> Any:
        """What a command of ``star-lsp`` says, as JSON."""
        said = subprocess.run(
            [self.program, *arguments, "--json"],
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert said.returncode == 0, said.stderr
        return json.loads(said.stdout)

    def server(self) -> int:
        """The process that serves, shared by all editors; 0 where none runs."""
        return next((int(each["pid"]) for each in self.run("status")["servers"]), 0)

    def stop(self) -> None:
        """End the server, which stays when its editors leave."""
        self.run("stop", "--force")

    def cases(self) -> list[dict[str, Any]]:
        """All cases of the store."""
        return list(self.run("cases"))

    def patches(self) -> list[dict[str, Any]]:
        """All patches of the store, in order."""
        return list(self.run("patches"))

    def settled(self, count: int = 1, seconds: float = 300) -> list[dict[str, Any]]:
        """The cases, once there are ``count`` and none waits or is being repaired any more."""

        def all_done() -> list[dict[str, Any]] | None:
            cases = self.cases()
            done = [case for case in cases if case["status"] not in ("pending", "repairing")]
            return cases if len(cases) == len(done) >= count else None

        return list(until(all_done, f"end of the repair of {count} cases", seconds, self.cases))

    def revert_last(self) -> None:
        """Take the last active patch back, as one does in a terminal."""
        (*_, last) = [patch for patch in self.patches() if patch["active"]]
        self.run("revert", last["id"])
