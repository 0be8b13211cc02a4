"""A session in Emacs with eglot, with the configuration that the README gives."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.editors.session import Lsp, absent, need, snippet, until

pytestmark = [pytest.mark.editor, pytest.mark.process]


@dataclass(frozen=True)
class Emacs:
    """A running Emacs without a window, driven by its own client."""

    client: str
    socket: str
    log: Path

    def eval(self, *forms: str) -> str:
        """What the last form says in the buffer of the file, as Emacs prints it."""
        form = f'(with-current-buffer "pairs.py" {" ".join(forms)})'
        done = subprocess.run(
            [self.client, "-s", self.socket, "--eval", form],
            capture_output=True, text=True, check=False, timeout=90,
        )  # fmt: skip
        assert done.returncode == 0, f"{form}: {done.stdout}{done.stderr}{self.said()}"
        return done.stdout.strip()

    def completed(self, text: str) -> None:
        """Write the line anew up to the blank, and complete until the server has something to say."""

        def tried() -> bool:
            self.write("ab = ")
            line = "(buffer-substring-no-properties (line-beginning-position) (line-end-position))"
            return self.eval("(ignore-errors (completion-at-point))", line) == f'"{text}"'

        until(tried, f"completion {text!r}", 60, self.said)

    def write(self, line: str) -> None:
        """Put a text in place of the second line, with point at its end."""
        self.eval(
            "(goto-char (point-min))", "(forward-line 1)",
            f'(delete-region (point) (line-end-position))(insert "{line}")',
        )  # fmt: skip

    def said(self) -> str:
        """What Emacs has written to its terminal, and its messages."""
        return self.log.read_text("utf-8", "replace")[-4000:]


@pytest.fixture
def emacs(tmp_path: Path, lsp: Lsp) -> Iterator[Emacs]:
    """Emacs with the README's snippet and a file."""
    program, client = need("emacs", "emacs-nox elpa-eglot"), need("emacsclient", "emacs-nox")
    init = tmp_path / "init.el"
    init.write_text(snippet("elisp", "eglot"), "utf-8")
    file = tmp_path / "pairs.py"
    file.write_text("# pairs\n\n\n", "utf-8")
    log = tmp_path / "emacs.log"
    socket = str(tmp_path / "socket")
    environ = lsp.environ | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    # -q: what Debian sets up for its packages (the path of eglot) stays, a person's own file does not.
    command = [program, "-q", f"--fg-daemon={socket}", "-l", str(init)]
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command, env=environ, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        ) as process,
    ):
        try:
            running = Emacs(client, socket, log)
            until(lambda: process.poll() is not None or Path(socket).exists(), "Emacs", 30, running.said)
            if process.poll() is not None and "eglot" in running.said():
                absent("eglot", "apt-get install elpa-eglot")
            assert process.poll() is None, running.said()
            # eglot waits for the first command before it connects.
            visit = f'(progn (find-file "{file}") (run-hooks (quote post-command-hook)) t)'
            subprocess.run(
                [client, "-s", socket, "--eval", visit],
                check=True, capture_output=True, timeout=60,
            )  # fmt: skip
            yield running
        finally:
            process.terminate()


def test_a_wrong_completion_is_flagged_by_code_action_repaired_and_reverted(emacs: Emacs, lsp: Lsp) -> None:
    emacs.completed("ab = one")
    emacs.write("ab = two")
    # Code actions are chosen by keys, as a person does it.
    emacs.eval(
        "(switch-to-buffer (current-buffer))", '(execute-kbd-macro (kbd "M-x eglot-code-actions RET RET"))'
    )
    (case,) = lsp.settled()
    assert (case["rejected"], case["expected"], case["status"]) == ("one", "two", "solved")
    emacs.completed("ab = two")
    emacs.eval("(star-revert)")
    assert not any(patch["active"] for patch in lsp.patches())
    emacs.completed("ab = one")
