"""One server for all editors: real processes, a tiny model."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import mendable
from tests.server.client import Client, Refused, Server

pytestmark = pytest.mark.process

URI = "file:///work/a.py"
#: A place that the tiny model completes with ``one``, and can be taught to complete with ``two``.
TEXT, AT, RIGHT = "ab = \n", (0, 5), "two"


class Home:
    """A user's home, with all that runs for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.editors: list[Server] = []

    def editor(self, *, keep: int = 300, **options: Any) -> Server:
        """One more editor that has introduced itself."""
        made = self.started()
        made.client.initialize({"keepAliveSeconds": keep} | options)
        return made

    def started(self, **environ: str) -> Server:
        made = Server(self.folder, self.folder / "stderr", shared=True, **environ)
        self.editors.append(made)
        return made

    def run(self, *words: str, status: int = 0) -> str:
        """What a command says."""
        found = subprocess.run(
            [sys.executable, "-P", "-m", "star_lsp", *words],
            capture_output=True, text=True, timeout=60,
            env=os.environ | {"STAR_LSP_HOME": str(self.folder), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert found.returncode == status, found.stderr
        return found.stdout + found.stderr

    def servers(self) -> list[dict[str, Any]]:
        """What runs, as `star-lsp status` has it."""
        return list(json.loads(self.run("status", "--json"))["servers"])

    def pid(self) -> int:
        (found,) = self.servers()
        return int(found["pid"])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mendable.folder(tmp_path_factory.mktemp("models") / "mendable")


@pytest.fixture
def home(tmp_path: Path, tiny: Path) -> Iterator[Home]:
    for name in ("qwen2.5-coder-0.5b", "other"):
        shutil.copytree(tiny, tmp_path / "models" / name)
    made = Home(tmp_path)
    yield made
    for each in made.editors:
        each.kill()
    made.run("stop", "--force")


def until(holds: Any, seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return value


def shown(editor: Server, uri: str = URI) -> Any:
    """What is suggested at the tiny model's place."""
    editor.client.open(uri, TEXT)
    return editor.client.inline(uri, *AT)


def test_two_editors_share_one_process_and_its_model(home: Home) -> None:
    first, second = home.editor(), home.editor()
    first.client.until_state("ready")
    second.client.until_state("ready")
    (found,) = home.servers()
    assert len(found["editors"]) == 2
    assert found["status"]["state"] == "ready"
    assert first.process.pid != found["pid"] != second.process.pid


def test_the_process_of_a_second_editor_is_small(home: Home) -> None:
    home.editor().client.until_state("ready")
    before = psutil.Process(home.pid()).memory_full_info().uss
    second = home.editor()
    second.client.until_state("ready")
    more = psutil.Process(second.process.pid).memory_full_info().uss
    more += psutil.Process(home.pid()).memory_full_info().uss - before
    assert more < 100_000_000


#: Runs `star-lsp --stdio` in its own process, as both entries do, and says at its end what it has imported.
SPY = """
import os, sys
from star_lsp.cli import main
leave = os._exit
def told(status):
    sys.stderr.write("imported " + " ".join(sorted(sys.modules)) + "\\n")
    sys.stderr.flush()
    leave(status)
os._exit = told
sys.argv = ["star-lsp", "--stdio"]
main()
"""
#: What takes longer to import than all that a relay needs.
DEAR = {
    "torch", "numpy", "transformers", "pygls", "lsprotocol", "attrs", "cattrs", "click", "rich", "psutil",
    "sqlite3", "asyncio", "logging", "dataclasses", "inspect", "importlib.metadata", "subprocess", "tempfile",
    "hashlib", "ssl",
}  # fmt: skip


def test_joining_a_running_server_imports_nothing_that_takes_time(home: Home) -> None:
    home.editor()
    spied = subprocess.Popen(
        [sys.executable, "-P", "-c", SPY],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"STAR_LSP_HOME": str(home.folder)},
    )  # fmt: skip
    assert spied.stdin is not None
    assert spied.stdout is not None
    assert spied.stderr is not None
    client = Client(spied.stdout, spied.stdin)
    assert client.initialize()["serverInfo"]["name"] == "star-lsp"
    client.request("shutdown")
    client.notify("exit")
    said = spied.stderr.read().decode()
    assert spied.wait(10) == 0
    for pipe in (spied.stdin, spied.stdout, spied.stderr):
        pipe.close()
    (imported,) = [set(line.split()[1:]) for line in said.splitlines() if line.startswith("imported ")]
    ours = {name for name in imported if name.split(".")[0] in ("star", "star_lsp")}
    assert ours == {
        "star_lsp", "star_lsp.address", "star_lsp.cli", "star_lsp.errors", "star_lsp.join", "star_lsp.places",
    }  # fmt: skip
    assert imported & DEAR == set()


def test_a_repair_in_one_editor_is_seen_by_the_other_and_its_revert_too(home: Home) -> None:
    first, second = home.editor(), home.editor()
    first.client.until_state("ready")
    item = shown(first)
    case = first.client.flag(item, RIGHT)
    first.client.until_case(case, "solved", seconds=120)
    second.client.until(lambda: second.client.case(case)["status"] == "solved", "the other sees it")
    assert shown(second)["insertText"] == RIGHT
    second.client.command("revert", caseId=case)
    first.client.until_case(case, "reverted")
    assert "revision" in {what for told in first.client.of("star/didChange") for what in told["what"]}


def test_the_server_ends_when_nobody_has_been_connected_for_a_time(home: Home) -> None:
    editor = home.editor(keep=1)
    pid = home.pid()
    assert editor.leave() == 0
    until(lambda: not psutil.pid_exists(pid), 15)
    assert home.servers() == []
    assert not list((home.folder / "data" / "server").glob("*/socket"))


def test_it_stays_for_the_next_editor_in_that_time(home: Home) -> None:
    first = home.editor(keep=60)
    first.client.until_state("ready")
    pid = home.pid()
    assert first.leave() == 0
    began = time.monotonic()
    second = home.editor(keep=60)
    second.client.until_state("ready")
    assert home.pid() == pid
    assert time.monotonic() - began < 10


def test_editors_that_start_at_once_start_one_server(home: Home) -> None:
    started = [home.started() for _ in range(5)]
    threads = [threading.Thread(target=each.client.initialize) for each in started]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (found,) = until(lambda: [one for one in home.servers() if len(one["editors"]) == 5])
    mine = [
        each
        for each in psutil.process_iter(["cmdline", "environ"])
        if "--background" in (each.info["cmdline"] or ())
    ]
    ours = [
        each.pid for each in mine if (each.info["environ"] or {}).get("STAR_LSP_HOME") == str(home.folder)
    ]
    assert until(lambda: [pid for pid in ours if psutil.pid_exists(pid)] == [found["pid"]])


def test_an_editor_that_is_killed_takes_nobody_with_it(home: Home) -> None:
    first, second = home.editor(), home.editor()
    second.client.until_state("ready")
    first.kill()
    assert shown(second) is not None
    until(lambda: len(home.servers()[0]["editors"]) == 1)


def test_an_editor_that_stands_still_takes_nobody_with_it(home: Home) -> None:
    first, second = home.editor(), home.editor()
    second.client.until_state("ready")
    first.process.send_signal(signal.SIGSTOP)
    for number in range(5):
        assert shown(second, f"file:///work/{number}.py") is not None
    first.process.send_signal(signal.SIGCONT)
    first.client.until_state("ready")


def test_a_client_that_floods_is_slowed_alone(home: Home) -> None:
    quiet, loud = home.editor(), home.editor()
    quiet.client.until_state("ready")
    alone = []
    for number in range(10):
        began = time.monotonic()
        shown(quiet, f"file:///alone/{number}.py")
        alone.append(time.monotonic() - began)
    done = threading.Event()

    def flood() -> None:
        number = 0
        while not done.is_set():
            number += 1
            loud.client.ask_inline(URI, 0, number % 5)
            loud.client.notify("workspace/didChangeConfiguration", {"settings": None})

    loud.client.open(URI, TEXT)
    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    time.sleep(0.5)
    crowded = []
    for number in range(10):
        began = time.monotonic()
        shown(quiet, f"file:///crowded/{number}.py")
        crowded.append(time.monotonic() - began)
    done.set()
    thread.join(20)
    # Wanted 0.5, and mostly seen; 1.2 was seen too. Without turns one would wait behind all that was asked.
    assert sorted(crowded)[5] < max(10 * sorted(alone)[5], 2.0)


def test_when_the_server_is_killed_its_editors_are_told_and_the_next_start_is_clean(home: Home) -> None:
    editor = home.editor()
    editor.client.until_state("ready")
    case = editor.client.flag(shown(editor), RIGHT)
    psutil.Process(home.pid()).kill()
    assert editor.process.wait(10) == 1
    assert "the server has ended" in editor.log.read_text()
    (place,) = (home.folder / "data" / "server").iterdir()
    (place / ".server.1").touch()  # as it had begun to write it
    again = home.editor()
    again.client.until_case(case, "solved", seconds=120)
    assert not list(place.glob(".server.*"))


def test_a_sole_editor_that_wants_another_model_gets_it(home: Home) -> None:
    first = home.editor()
    first.client.until_state("ready")
    first.leave()
    second = home.editor(model="other")
    second.client.until_state("ready")
    assert second.client.command("status")["model"] == "other"
    third = home.editor()
    (message,) = third.client.until(lambda: third.client.of("window/showMessage"), "a message")
    assert "The model other stays in use" in message["message"]


def test_completion_settings_are_each_editors_own(home: Home) -> None:
    first = home.editor(completion={"enabled": False})
    second = home.editor()
    second.client.until_state("ready")
    assert shown(first) is None
    assert shown(second) is not None


def test_stop_ends_the_server_and_says_so(home: Home) -> None:
    assert home.run("stop") == "No server runs.\n"
    editor = home.editor()
    pid = home.pid()
    assert home.run("stop") == f"Ended {pid}.\n"
    assert editor.process.wait(10) == 1
    assert not psutil.pid_exists(pid)


def test_the_log_is_the_users_alone_and_has_no_code(home: Home) -> None:
    editor = home.editor()
    editor.client.until_state("ready")
    shown(editor)
    path = Path(home.run("logs", "--path").strip())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "listening at unix:" in home.run("logs")
    assert "ab = " not in path.read_text()


def test_socket_and_folder_are_the_users_alone(home: Home) -> None:
    home.editor()
    (told,) = home.servers()
    path = Path(told["addresses"][0].removeprefix("unix:"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_home_and_temporary_files_deep_down_keep_nobody_from_sharing(tmp_path: Path, tiny: Path) -> None:
    deep = tmp_path / ("deep" * 30)
    shutil.copytree(tiny, deep / "models" / "qwen2.5-coder-0.5b")
    home = Home(deep)
    made = home.started(TMPDIR=str(deep))
    try:
        made.client.initialize()
        (told,) = home.servers()
        path = Path(told["addresses"][0].removeprefix("unix:"))
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        made.kill()
        home.run("stop", "--force")
    assert not path.exists()
    path.parent.rmdir()


# -- headless


@pytest.fixture
def headless(home: Home) -> Iterator[tuple[Home, int, str]]:
    """A server that listens over TCP: its home, port, and token."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "star_lsp", "serve", "--listen", "127.0.0.1:0"],
        stderr=subprocess.PIPE, text=True,
        env=os.environ | {"STAR_LSP_HOME": str(home.folder), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    line = until(lambda: next((said for said in process.stderr or () if "Listening" in said), None))
    port = int(line.split("127.0.0.1:")[1].split(";")[0])
    token = Path(line.split("the token is in ")[1].strip()).read_text()
    yield home, port, token
    process.terminate()
    assert process.wait(10) == 0
    process.stderr.close()


def over_tcp(port: int) -> tuple[socket.socket, Client]:
    line = socket.create_connection(("127.0.0.1", port), 10)
    return line, Client(line.makefile("rb"), line.makefile("wb"))


def test_a_client_over_tcp_gives_the_token_in_its_options(headless: tuple[Home, int, str]) -> None:
    _, port, token = headless
    line, client = over_tcp(port)
    client.initialize({"token": token})
    client.until_state("ready")
    assert client.of("window/showMessage") == []  # the token is no unknown setting
    line.close()


@pytest.mark.parametrize("options", [None, {}, {"token": ""}, {"token": "wrong"}, {"token": 5}])
def test_a_client_over_tcp_without_the_token_gets_nothing(
    headless: tuple[Home, int, str], options: Any
) -> None:
    _, port, _ = headless
    line, client = over_tcp(port)
    with pytest.raises(Refused, match="asks for its token"):
        client.initialize(options)
    assert client.ended.wait(5)
    line.close()


def test_a_stranger_is_given_no_memory_and_nothing_is_done_for_it(headless: tuple[Home, int, str]) -> None:
    home, port, token = headless
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"Content-Length: 99999999\r\n\r\n", b"\x00" * 100_000):
        with socket.create_connection(("127.0.0.1", port), 10) as line:
            line.sendall(said)
            assert b"error" in line.recv(1000)
            assert line.recv(1000) == b""
    line, client = over_tcp(port)
    with pytest.raises(Refused):  # star/stop is for those who know the token, like all else
        client.request("star/stop")
    line.close()
    line, client = over_tcp(port)
    client.initialize({"token": token})
    line.close()
    assert home.pid()


def test_editors_on_the_machine_join_a_server_that_was_started_by_hand(
    headless: tuple[Home, int, str],
) -> None:
    home, _, _ = headless
    pid = home.pid()
    home.editor().client.until_state("ready")
    assert home.pid() == pid
    assert "runs already" in home.run("serve", status=2)


def test_other_machines_are_let_in_only_when_that_is_said(home: Home) -> None:
    assert "--allow-other-machines" in home.run("serve", "--listen", "0.0.0.0:0", status=2)


def test_an_address_that_is_taken_is_said(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "cannot be used" in home.run("serve", "--listen", f"127.0.0.1:{port}", status=2)
