"""A session in Vim with ALE, with the configuration that the README gives."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.editors.session import Lsp, absent, need, snippet, until
from tests.editors.terminal import Terminal

pytestmark = [pytest.mark.editor, pytest.mark.process]


@pytest.fixture
def vim(tmp_path: Path, lsp: Lsp) -> Iterator[Terminal]:
    """Vim with ALE and the README's snippet, on a file."""
    program = need("vim", "vim vim-ale")
    if not Path("/usr/share/vim-ale").exists():
        absent("ALE", "apt-get install vim-ale")
    vimrc = tmp_path / "vimrc"
    # The first lines are what every user of Vim has; ALE is where Debian's package puts it.
    vimrc.write_text(
        "set nocompatible noswapfile viminfo= nomore\nset runtimepath^=/usr/share/vim-ale\n"
        "filetype plugin on\n" + snippet("vim"),
        "utf-8",
    )
    file = tmp_path / "pairs.py"
    file.write_text("# pairs\n\n", "utf-8")
    with Terminal([program, "-u", vimrc, file], lsp.environ | {"HOME": str(tmp_path)}, tmp_path) as made:
        until(lambda: "# pairs" in made.screen(), "Vim", 20, made.screen)
        yield made


def completed(vim: Terminal, file: Path, text: str) -> None:
    """Write the line up to its blank, complete and save it, until the server has something to say."""

    def tried() -> bool:
        vim.type("", "Escape")
        vim.type("GSab = ", "C-x", "C-o")
        # Where the server says nothing, ALE searches until a key is pressed.
        with contextlib.suppress(AssertionError):
            until(lambda: "Searching" not in vim.screen(), "answer", 5)
        vim.type("", "C-y", "Escape")
        vim.type(":w", "Enter")
        until(lambda: "written" in vim.screen(), "written file", 10, vim.screen)
        return lines(file) == [text]

    until(tried, f"completion {text!r}", 60, vim.screen)


def lines(file: Path) -> list[str]:
    return file.read_text("utf-8").split("\n")[1:-1]


def test_a_wrong_completion_is_flagged_by_code_action_repaired_and_reverted(
    vim: Terminal, lsp: Lsp, tmp_path: Path
) -> None:
    file = tmp_path / "pairs.py"
    completed(vim, file, "ab = one")
    vim.type("GSab = two", "Escape")
    vim.type(":ALECodeAction", "Enter")
    until(lambda: "`one` was wrong, `two` is right" in vim.screen(), "code action", 30, vim.screen)
    vim.type("1", "Enter")
    (case,) = lsp.settled()
    assert (case["rejected"], case["expected"], case["status"]) == ("one", "two", "solved")
    completed(vim, file, "ab = two")
    lsp.revert_last()
    completed(vim, file, "ab = one")
