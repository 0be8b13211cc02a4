"""A real server, and what becomes of its machine: files altered, disks full, no memory, a hub that goes."""

import hashlib
import http.server
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

import star
import star_lsp
from star.history import revision
from star_lsp.catalogue import import_, installed
from star_lsp.errors import CatalogueError
from star_lsp.installed import altered
from star_lsp.progress import Meter
from star_lsp.sources import Content, HubFile, Unavailable, fetch
from tests.faults.conftest import filled
from tests.faults.killing import SETTINGS, Machine, holds_in_memory, rows_of, weights_of
from tests.mendable import VALUES
from tests.server.client import Refused
from tests.server.test_catalogue import write_folder

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="uses what Linux has")]


def messages(machine: Machine) -> str:
    return "\n".join(each["message"] for each in machine.client.of("window/showMessage"))


def damage(path: Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    if kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "altered":
        content[-5] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()


# -- patches


@pytest.mark.parametrize(
    ("kind", "why"),
    [("truncated", "cannot be read"), ("altered", "has been altered"), ("gone", "is not there any more")],
)
def test_a_patch_that_is_not_what_went_live_is_out_by_name_and_the_rest_is_served(
    machine: Machine, kind: str, why: str
) -> None:
    machine.ready()
    cases = [machine.repaired(name) for name in ("hg", "ba", "dh")]  # none of which teaches another
    first, *rest = machine.ledger.history
    lost = next(id_ for id_ in cases if machine.client.case(id_)["patchId"] == first)
    machine.kill("server")
    damage(machine.data / "patches" / f"{first}.safetensors", kind)
    client = machine.ready()
    paths = [machine.data / "patches" / f"{id_}.safetensors" for id_ in rest]
    assert client.command("status")["revision"] == revision(
        machine.base, [rows_of(path)[2] for path in paths]
    )
    assert machine.server is not None
    assert holds_in_memory(machine.server, weights_of(machine.model, paths)) == []
    assert f"Patch {first} is out of the history: its file {why}" in messages(machine)
    assert lost in messages(machine)
    client.until_state("ready")
    case = client.case(lost)
    assert (case["status"], case["patchId"]) == ("pending", None)
    assert why in case["reason"]
    client.command("repairAll", cases=[lost], fromBase=False)
    assert client.until_case(lost, "solved", seconds=60)["patchId"] not in (None, first)


def test_a_patch_that_is_damaged_while_the_server_runs_is_out_with_the_next_change(machine: Machine) -> None:
    client = machine.ready()
    for name in ("hb", "bc"):
        machine.repaired(name)
    first, second = machine.ledger.history
    damage(machine.data / "patches" / f"{first}.safetensors", "truncated")
    assert client.command("revert", 30, patchId=second) == {"revision": revision(machine.base, [])}
    assert f"Patch {first} is out of the history" in messages(machine)
    assert not any(patch["active"] for patch in client.command("listPatches"))


def test_a_repair_on_a_patch_that_was_altered_meanwhile_is_refused_by_name(machine: Machine) -> None:
    client = machine.ready()
    machine.repaired("hb")
    (first,) = machine.ledger.history
    damage(machine.data / "patches" / f"{first}.safetensors", "altered")
    case = machine.flag("bc")
    machine.ledger.repairing.add(case)
    client.command("repairAll", cases=[case], fromBase=False)
    reason = client.until_case(case, "failed", seconds=60)["reason"]
    assert f"The patch {first}.safetensors is not the one that went live; restart star-lsp" in reason


# -- reverts


def checks(machine: Machine) -> list[str]:
    """What the checks of the server that runs have come to."""
    told = machine.client.of("$/progress")
    tokens = [each["token"] for each in told if "Checking" in each["value"].get("title", "")]
    ends = [each for each in told if each["token"] in tokens and each["value"]["kind"] == "end"]
    return [each["value"]["message"] for each in ends]


def leaning(machine: Machine) -> tuple[str, str, str]:
    """A case that may lean on a patch which now leaves, that patch, and what the case expects."""
    client = machine.ready()
    item = machine.item_at("hc")  # shown before the first repair, by which the model comes to write it, too
    first = machine.repaired("hb")
    patch, expected = client.case(first)["patchId"], client.case(first)["expected"]
    second = client.flag(item, expected)
    machine.ledger.cases[second] = ("hc = ", expected)
    machine.ledger.repairing.add(second)
    client.command("repairAll", cases=[second], fromBase=False)
    client.until_case(second, "solved", seconds=60)
    client.until_state("ready", seconds=60)
    machine.check_disk()
    machine.ledger.leaving = {patch}
    return second, patch, expected


def test_a_server_that_is_killed_between_a_revert_and_its_check_makes_it_after_the_next_start(
    machine: Machine,
) -> None:
    second, patch, expected = leaning(machine)
    with FileLock(machine.data / "repair.lock"):  # whoever wants to check waits
        machine.client.command("revert", patchId=patch)
        machine.kill("server")
    assert machine.unchecked() == [patch]
    case, _ = machine.rows()[0][second], machine.check_disk()
    assert case["status"] == "solved", "so it seems"
    client = machine.ready()
    (said,) = client.until(lambda: checks(machine), "the check", 60)
    assert said in (
        f"1 of 1 cases no longer solved: {second}",
        "all other cases that were solved are so still: 1",
    )
    client.until_case(second, "solved", seconds=60)
    client.until_state("ready", seconds=60)
    assert machine.unchecked() == []
    assert machine.text_at("hc") == expected
    machine.check_served(look=True)
    machine.kill("server")
    client = machine.ready()
    assert checks(machine) == [], "it is made once"


def test_what_a_command_killed_between_a_revert_and_its_check_leaves_the_server_that_runs_checks(
    machine: Machine,
) -> None:
    second, patch, expected = leaning(machine)
    environ = os.environ | {"STAR_LSP_HOME": str(machine.home), "OMP_NUM_THREADS": "1"}
    with (
        FileLock(machine.data / "repair.lock"),
        (machine.home / "log").open("ab") as log,
        Path(os.devnull).open("rb") as nothing,
    ):
        command = machine.nursery.start(["star_lsp", "revert", patch], environ, [nothing, log, log])
        machine.client.until(machine.unchecked, "the revert")
        command.kill()
        command.wait(10)
    machine.until_checked()
    assert len(checks(machine)) == 1
    machine.client.until_case(second, "solved", seconds=60)
    assert machine.text_at("hc") == expected
    machine.check_served(look=True)


# -- models


@pytest.mark.parametrize(
    ("kind", "why"), [("truncated", "is damaged"), ("altered", "altered since"), ("gone", "has neither")]
)
def test_a_model_that_is_not_what_was_installed_is_refused_by_name_with_the_remedy(
    machine: Machine, tmp_path: Path, kind: str, why: str
) -> None:
    found = import_(write_folder(tmp_path / "theirs"), machine.models, "theirs")
    altered(found)
    weights = found.folder / "model.safetensors"
    os.utime(weights, (1, 1))
    altered(found)  # it only looks otherwise: all is well, and is known to be
    damage(weights, kind)
    with pytest.raises(CatalogueError, match=why):
        altered(found)
    machine.launch()
    machine.client.initialize(SETTINGS | {"model": "theirs"})
    machine.client.until_state("failed")
    said = messages(machine)
    assert "The model theirs" in said
    assert why in said
    assert "star-lsp model remove theirs, then star-lsp model pull theirs" in said


def test_a_model_whose_header_is_cut_is_said_though_nothing_is_known_of_its_files(machine: Machine) -> None:
    damage(machine.model / "model.safetensors", "truncated")
    machine.launch()
    machine.client.initialize(SETTINGS)
    machine.client.until_state("failed")
    assert f"The model in {machine.model} cannot be read" in messages(machine)
    assert "remove it and pull or import it again" in messages(machine)


def test_what_a_killed_process_had_begun_to_write_beside_a_model_is_deleted(machine: Machine) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    for name in ("int8", "basis"):
        (machine.model / f".{name}.safetensors.{gone.pid}").write_bytes(b"half")
    alive = machine.model / f".basis.safetensors.{os.getpid()}"
    alive.write_bytes(b"half")
    machine.ready()
    assert [path.name for path in machine.model.glob(".*")] == [alive.name]


# -- disks


def test_a_repair_on_a_full_disk_fails_with_the_remedy_and_is_done_when_there_is_room(
    machine: Machine, disk: Path
) -> None:
    shutil.rmtree(machine.data, ignore_errors=True)
    (disk / "data").mkdir(mode=0o700)
    machine.data.symlink_to(disk / "data")
    client = machine.ready()
    machine.repaired("hb")
    before = machine.ledger.history
    case = machine.flag("bc")
    filler = filled(disk, 12_000)
    client.command("repairAll", cases=[case], fromBase=False)
    machine.ledger.repairing.add(case)
    client.until(lambda: client.command("status")["queue"] == 0, "it ends", 60)
    filler.unlink()
    # What could not be written down is put right as soon as that can be.
    found = client.until_case(case, "pending", "failed", seconds=60)
    if found["status"] == "failed":
        assert "make room on the disk" in found["reason"]
    machine.check_served(look=True)
    assert machine.ledger.history == before
    client.command("repairAll", cases=[case], fromBase=False)
    assert client.until_case(case, "solved", seconds=60)
    machine.check_disk()


def test_a_server_with_a_read_only_home_says_so_and_one_with_read_only_models_serves(
    machine: Machine, disk: Path
) -> None:
    shutil.copytree(machine.models, disk / "models")
    (disk / "data").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    machine.environ = {"STAR_LSP_HOME": str(disk)}
    machine.launch()
    machine.client.initialize(SETTINGS)
    machine.client.until_state("failed")
    assert "cannot be opened" in messages(machine)
    assert "Read-only file system" in messages(machine)
    machine.kill("server")
    machine.environ = {"STAR_LSP_MODELS": str(disk / "models")}
    machine.ready()
    found = machine.client.case(machine.repaired("hb"))
    assert (found["status"], found["reason"]) == ("solved", None)


def test_a_flag_while_another_program_holds_the_store_is_refused_and_done_later(machine: Machine) -> None:
    client = machine.ready()
    holder = sqlite3.connect(machine.data / "store.sqlite3", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    item = machine.item_at("hb")
    (named,) = item["command"]["arguments"]
    with pytest.raises(Refused, match=r"locked.*nothing was changed.*end that one, then try again"):
        client.command("flag", 30, **{**named, "expected": "ink"})
    holder.execute("ROLLBACK")
    holder.close()
    assert client.case(machine.flag("hb"))["status"] == "pending"


@pytest.mark.parametrize("used", [False, True], ids=["new", "used before"])
def test_an_editor_whose_home_is_read_only_is_told_what_to_set(disk: Path, used: bool) -> None:
    place = disk / "data" / "server" / version("star-lsp")
    (place if used else disk / "data").mkdir(parents=True)
    (disk / "models").mkdir()
    if used:
        (place / "lock").touch()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    done = said("--stdio", STAR_LSP_HOME=str(disk))
    assert done.returncode == 2
    assert f"The folder {disk / 'data'} cannot be written to (Read-only file system)" in done.stderr
    assert "Set STAR_LSP_HOME to a folder of yours" in done.stderr
    assert "STAR_LSP_MODELS to the folder where the models are" in done.stderr
    assert "Traceback" not in done.stderr


def test_where_neither_code_nor_home_can_be_written_products_are_compiled_all_the_same(
    machine: Machine, disk: Path
) -> None:
    code = Path(star.__file__).parent, Path(star_lsp.__file__).parent
    for each in code:
        shutil.copytree(each, disk / each.name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    file = machine.home / "a.py"
    file.write_text("hb = \n")
    fixed = {"HOME": str(disk), "PYTHONPATH": str(disk), "STAR_LSP_HOME": str(machine.home)}
    done = said("complete", f"{file}:1:6", "--model", "m", **fixed)
    assert done.stdout.strip() in VALUES["h"], done.stderr
    assert not [*disk.rglob("__pycache__")]


def said(*words: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """What a command says, with no folder named for what numba compiles."""
    kept = {
        name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
    }
    return subprocess.run(
        [sys.executable, "-P", "-m", "star_lsp", *words],
        input="", capture_output=True, text=True, timeout=300, env=kept | {"OMP_NUM_THREADS": "1"} | environ,
    )  # fmt: skip


#: A program that has the store to itself until it is told that it is enough.
HOLD = """
import sqlite3, sys
holder = sqlite3.connect(sys.argv[1], isolation_level=None)
holder.execute(f"PRAGMA locking_mode = {sys.argv[2]}")
holder.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
holder.close()
"""


@contextmanager
def held(machine: Machine, mode: str = "NORMAL") -> Iterator[Callable[[], None]]:
    """The store is held by another program until what this gives is called."""
    words = [sys.executable, "-c", HOLD, str(machine.data / "store.sqlite3"), mode]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"held\n"
        yield holder.stdin.close


def test_while_another_program_holds_the_store_typing_goes_on_and_what_is_said_is_kept_after_it(
    machine: Machine,
) -> None:
    client = machine.ready()
    machine.repaired("bc")
    (patch,) = machine.ledger.history
    items = {name: machine.item_at(name) for name in ("hb", "fa", "ea")}
    cases = [client.flag(items["ea"], "low")]
    with held(machine) as release:
        until = time.monotonic() + 3
        client.command("repairAll", cases=cases, fromBase=False)
        said = [
            client.ask("workspace/executeCommand", {"command": f"star.{name}", "arguments": [about]})
            for name, about in (
                ("flag", {**items["hb"]["command"]["arguments"][0], "expected": "ink"}),
                ("accept", items["fa"]["command"]["arguments"][0]),
                ("revert", {"patchId": patch}),
            )
        ]
        waits = []
        while (began := time.monotonic()) < until:
            name = "abcdefgh"[len(waits) % 8] + "abcdefgh"[len(waits) // 8 % 8]
            assert machine.text_at(name)
            client.command("listCases")
            waits.append(time.monotonic() - began)
        assert not said[0].there
        assert not said[2].there
        release()
    assert max(waits) < 2  # who waited for the store would have waited 3; a busy machine takes some of it
    cases.append(said[0].get(5)["caseId"])
    assert said[2].get(5) == {"revision": client.command("status")["revision"]}
    assert client.until_case(cases[0], "solved", seconds=60)
    assert client.case(cases[1])["status"] == "pending"
    assert not next(each for each in client.command("listPatches") if each["id"] == patch)["active"]


def test_a_server_that_starts_while_another_program_has_the_store_answers_and_is_ready_after_it(
    machine: Machine,
) -> None:
    machine.ready()
    case = machine.flag("hb")
    machine.kill("server")
    with held(machine, "EXCLUSIVE") as release:
        machine.launch()
        machine.client.initialize(SETTINGS)
        for _ in range(10):
            assert machine.client.command("status")["state"] == "loading"
            time.sleep(0.1)
        release()
    machine.client.until_state("ready")
    assert machine.client.case(case)["status"] == "pending"


# -- the worker


def warm_worker(machine: Machine) -> psutil.Process:
    machine.repaired("hb")
    machine.client.until(machine.worker, "the worker is there")
    found = machine.worker()
    assert found is not None
    return found


def test_a_worker_without_memory_fails_the_case_with_the_remedy_and_the_next_repair_is_done(
    machine: Machine,
) -> None:
    client = machine.ready()
    worker = warm_worker(machine)
    time.sleep(0.5)  # it has got ready for the next one
    worker.rlimit(resource.RLIMIT_AS, (worker.memory_info().vms + 100_000, resource.RLIM_INFINITY))
    case = machine.flag("bc")
    machine.ledger.repairing.add(case)
    client.command("repairAll", cases=[case], fromBase=False)
    found = client.until_case(case, "failed", "solved", seconds=60)
    if found["status"] == "failed":
        assert "memory" in found["reason"]
    client.until_state("ready")
    machine.check_served(look=True)
    if worker.is_running():
        worker.rlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    client.command("repairAll", cases=[case], fromBase=False)
    client.until_case(case, "solved", seconds=60)


def test_a_worker_that_is_killed_for_its_memory_twice_fails_the_case_and_nothing_else(
    machine: Machine,
) -> None:
    client = machine.ready()
    warm_worker(machine)
    case = machine.flag("bc")
    machine.ledger.repairing.add(case)
    client.command("repairAll", cases=[case], fromBase=False)
    killed: set[int] = set()
    end = time.monotonic() + 60
    while client.case(case)["status"] in ("pending", "repairing") and time.monotonic() < end:
        worker = machine.worker()
        if worker and len(killed) < 2 and worker.pid not in killed:
            killed.add(worker.pid)
            worker.kill()
    found = client.case(case)
    assert (len(killed), found["status"]) == (2, "failed")
    assert "ended with status -9; the cases are kept" in found["reason"]
    machine.check_served(look=True)


# -- pulls


class Hub(http.server.BaseHTTPRequestHandler):
    """Gives one file, by ranges too; it goes in the middle of it, and stays away until it is back."""

    content = b""
    asked: list[int]
    there = "at first"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        kind = type(self)
        if kind.there == "gone":
            self.close_connection = True
            return
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").partition("-")[0] or 0)
        content = self.content[start:] if "/resolve/" in self.path else b""
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        self.send_header("ETag", f'"{"e" * 40}"')
        self.send_header("X-Repo-Commit", "c" * 40)
        self.end_headers()
        if self.command == "GET" and content:
            self.asked.append(start)
            if kind.there == "at first":
                kind.there = "gone"
                content = content[: len(content) // 2]
            self.wfile.write(content)
            self.close_connection = True


def test_a_pull_whose_hub_goes_in_the_middle_is_told_and_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(1 << 20) * 32  # its client writes ten megabytes at a time
    hub: Any = type("ThisHub", (Hub,), {"content": content, "asked": []})
    wanted = Content(len(content), hashlib.sha256(content).hexdigest())
    source = HubFile("some/repo", "c" * 40, "tiny.gguf")
    meter = Meter(lambda progress: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        with pytest.raises(Unavailable):
            fetch(source, wanted, tmp_path, meter, lambda: False)
        assert hub.asked == [0]
        hub.there = "back"
        assert fetch(source, wanted, tmp_path, meter, lambda: False).read_bytes() == content
        server.shutdown()
    assert hub.asked[1] >= 10 << 20, "it began anew"


def limited(what: str, about: Path, models: Path, most: int) -> "subprocess.CompletedProcess[str]":
    """A pull in which no file can become larger, as where a quota or a disk is full."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    return subprocess.run(
        [sys.executable, "-P", "-m", "tests.faults.pulling", what, str(about), str(models)],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("what", ["pull", "import"])
def test_a_pull_that_finds_no_room_half_way_says_so_and_leaves_no_half_of_a_model(
    tmp_path: Path, shop: tuple[Path, Path, str], what: str
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    done = limited(what, shop[0] if what == "pull" else shop[1], models, 20_000)
    assert done.returncode
    assert "CatalogueError" in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].endswith(("PATH.", "disk.", "model.", "killed.", "again."))
    assert installed(models) == ()
    assert not (models / "tiny").exists()
