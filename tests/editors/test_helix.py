"""A session in Helix, with the configuration that the README gives."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.editors.session import Lsp, absent, cache, snippet, until
from tests.editors.terminal import Terminal

pytestmark = [pytest.mark.editor, pytest.mark.process]


def _command() -> list[str | Path]:
    """Helix of this system, or Debian 13's unpacked beside it, with the C library that it was built for."""
    if found := shutil.which("hx"):
        return [found]
    folder = cache() / "helix"
    with FileLock(cache() / "helix.lock"):
        if not (folder / "complete").exists():
            _unpack(folder)
    loader, libraries = folder / "usr/lib64/ld-linux-x86-64.so.2", folder / "usr/lib/x86_64-linux-gnu"
    return [loader, "--library-path", libraries, folder / "usr/lib/hx/hx"]


def _unpack(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "lists" / "partial").mkdir(parents=True)
    if not shutil.which("apt-get"):
        absent("Helix", "install hx; there is no apt to fetch it with")
    where = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Component: main"],
        capture_output=True, text=True, check=False,
    ).stdout.split()  # fmt: skip
    mirrors = [uri for uri in where if uri.rstrip("/").endswith("/debian")]
    if not mirrors:
        absent("Helix", "install hx; no mirror of Debian is known to apt")
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (folder / "sources.list").write_text(f"deb [signed-by={keys}] {mirrors[0]} trixie main\n", "utf-8")
    apt = ["apt-get", "-qq", "-o", f"Dir::Etc::SourceList={folder}/sources.list"]
    apt += [
        "-o",
        "Dir::Etc::SourceParts=-",
        "-o",
        f"Dir::State::Lists={folder}/lists",
        "-o",
        f"Dir::Cache={folder}",
    ]
    for command in (["update"], ["download", "hx", "libc6", "libgcc-s1"]):
        done = subprocess.run([*apt, *command], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            absent("Helix", f"it cannot be fetched: {done.stderr}")
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    (folder / "complete").touch()


@pytest.fixture
def helix(tmp_path: Path, lsp: Lsp) -> Iterator[Terminal]:
    """Helix with the README's configuration, on a file."""
    command = _command()
    settings = tmp_path / "config" / "helix"
    settings.mkdir(parents=True)
    (settings / "languages.toml").write_text(snippet("toml", "language-server"), "utf-8")
    (settings / "config.toml").write_text(snippet("toml", "auto-completion"), "utf-8")
    (tmp_path / "pairs.py").write_text("# pairs\n", "utf-8")
    environ = lsp.environ | {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HELIX_RUNTIME": str(cache() / "helix" / "usr/lib/hx/runtime"),
    }
    with Terminal([*command, "pairs.py"], environ, tmp_path) as made:
        until(lambda: "# pairs" in made.screen(), "Helix", 30, made.screen)
        yield made


def again(helix: Terminal, file: Path, tried: Callable[[], object], what: str, seconds: float) -> None:
    """Try until it does not fail, each time in the file opened anew.

    Under load Helix 25 sends changes out of their order even at a person's pace (5 of 40 times beside four
    busy processes), and the server then has another text than is seen. It may go on having that however often
    the line is written anew, as only what is seen is replaced.
    """

    def done() -> bool:
        try:
            tried()
            return True
        except AssertionError:
            helix.type("", "Escape", "Escape")
            helix.type(":buffer-close!", "Enter")
            helix.type(f":open {file.name}", "Enter")
            return False

    until(done, what, seconds, helix.screen)


def completed(helix: Terminal, file: Path, text: str) -> None:
    """Write the file anew up to the blank, and take the completion, until the server has one."""

    def tried() -> None:
        helix.type("", "Escape", "Escape")
        helix.type("%cab = ", "C-x")
        until(lambda: text in helix.screen(), "menu", 5)
        helix.type("", "C-n", "Enter", "Escape")
        helix.type(":w", "Enter")
        until(lambda: file.read_text("utf-8").strip() == f"ab = {text}", "file", 5)

    again(helix, file, tried, f"completion {text!r}", 90)


def offered(helix: Terminal, file: Path, wrong: str, right: str) -> None:
    """Take a wrong completion, correct it and ask what can be done, until its flag is offered."""
    action = f"`{wrong}` was wrong, `{right}` is right"

    def tried() -> None:
        completed(helix, file, wrong)
        helix.type("", "Escape", "Escape")
        helix.type(f"%cab = {right}", "Escape")
        helix.type("%", "Space", "a")
        until(lambda: action in helix.screen(), "menu", 5)

    again(helix, file, tried, f"code action {action!r}", 180)


def test_a_wrong_completion_is_flagged_by_code_action_repaired_and_reverted(
    helix: Terminal, lsp: Lsp, tmp_path: Path
) -> None:
    file = tmp_path / "pairs.py"
    offered(helix, file, "one", "two")
    helix.type("", "Enter")
    (case,) = lsp.settled()
    assert (case["rejected"], case["expected"], case["status"]) == ("one", "two", "solved")
    completed(helix, file, "two")
    lsp.revert_last()
    completed(helix, file, "one")
