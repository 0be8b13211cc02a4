"""What is wrong with an installation is found, each with its remedy; permissions are closed at the start."""

import json
import logging
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from star.fingerprint import fingerprint
from star.patch import Patch, Rows
from star_lsp import checks, disk
from star_lsp.checks import CHECKS, Asked
from star_lsp.cli.state import default_model
from star_lsp.places import places
from star_lsp.store import Store
from tests.server.shell import Run
from tests.tiny import folder as model_folder

posix = pytest.mark.skipif(sys.platform == "win32", reason="a mode says nothing there")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with its true fingerprint."""
    made = model_folder(tmp_path_factory.mktemp("made") / "model")
    about = json.loads((made / "star-model.json").read_text())
    (made / "star-model.json").write_text(json.dumps(about | {"fingerprint": fingerprint(made)}))
    return made


@pytest.fixture
def data(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound home, with a model and a patch of it."""
    import shutil

    monkeypatch.setenv("STAR_LSP_HOME", str(tmp_path))
    shutil.copytree(model, tmp_path / "models" / default_model())
    store = Store(tmp_path / "data")
    case = store.add_case(prefix="a", suffix="b", expected="c", rejected="d")
    patch = Patch(fingerprint(model), (Rows(0, torch.tensor([1, 4]), torch.ones(2, 8)),))
    patch.save(store.patch_path("p1"))
    store.activate(
        "p1", base=patch.base, digest=patch.digest, revision="r", solved=[case.id], failed={}, verdict={}
    )
    store.close()
    return tmp_path / "data"


def wrong(run: Run, *options: str) -> list[dict[str, Any]]:
    """What is found that is not fine, and not mended; processes are whatever else is tested just now."""
    ran = run("doctor", "--json", *options)
    found = [each for each in ran.json["findings"] if each["level"] != "fine" and not each["fixed"]]
    assert ran.status == (1 if any(each["level"] == "wrong" for each in found) else 0), ran.err
    assert ran.json["wrong"] == sum(each["level"] == "wrong" for each in found)
    return [each for each in found if each["check"] != "processes"]


def test_a_sound_installation_is_said_to_be_so(run: Run, data: Path) -> None:
    assert wrong(run) == wrong(run, "--deep") == []
    told = run("doctor").out
    assert "✓ The store is sound" in told
    assert "✓ 1 active patch, each as it went live" in told
    assert {each["check"] for each in run("doctor", "--json").json["findings"]} >= {
        check.__name__ for check in CHECKS if check is not checks.server
    }


def test_nothing_is_changed_by_looking(run: Run, data: Path) -> None:
    def all_there() -> list[tuple[str, int, int]]:
        paths = [path for path in data.rglob("*") if path.suffix not in (".sqlite3-shm", ".sqlite3-wal")]
        return sorted((path.name, path.stat().st_mode, path.stat().st_size) for path in paths)

    for path in (data, data / "store.sqlite3", data / "patches" / "p1.safetensors"):
        path.chmod(0o755)
    (data / "patches" / ".half.part").write_text("x")
    with sqlite3.connect(data / "store.sqlite3") as db:
        db.execute("PRAGMA user_version = 1")
    before = all_there()
    wrong(run)
    assert all_there() == before
    assert data.stat().st_mode & 0o777 == 0o755


def test_a_model_that_is_absent_cut_off_or_altered_is_found(run: Run, data: Path) -> None:
    folder = data.parent / "models" / default_model()
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    (found,) = wrong(run)
    assert "is damaged" in found["text"]
    assert "star-lsp model remove" in found["remedy"]
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert wrong(run) == [], "a quick look reads no weights"
    (found,) = wrong(run, "--deep")
    assert "was altered" in found["text"]
    (folder / "star-model.json").rename(folder / "x")
    assert {(each["check"], each["level"]) for each in wrong(run)} == {
        ("models", "wrong"),
        ("patches", "word"),
        ("strays", "wrong"),
    }
    assert "star-lsp model pull" in wrong(run)[0]["remedy"]


def test_a_patch_that_is_gone_altered_or_cut_off_is_found(run: Run, data: Path) -> None:
    path = data / "patches" / "p1.safetensors"
    whole = path.read_bytes()
    for broken, word in (
        (whole[:-1] + bytes([whole[-1] ^ 1]), "is not what went live"),
        (whole[:-5], "cannot be read"),
        (b"", "cannot be read"),
        (None, "is gone"),
    ):
        path.unlink() if broken is None else path.write_bytes(broken)
        (found,) = wrong(run)
        assert word in found["text"]
        assert "star-lsp revert p1" in found["remedy"]


def test_a_damaged_store_is_said_and_left_as_it_is(run: Run, data: Path) -> None:
    path = data / "store.sqlite3"
    (data / "store.version-1.sqlite3").write_bytes(b"x")
    (data / "store.version-1.sqlite3").chmod(0o600)
    for broken in (b"no database at all" * 300, path.read_bytes()[:5000]):
        path.write_bytes(broken)
        found = [each for each in wrong(run) if each["check"] == "store"]
        assert "The store is damaged" in found[0]["text"]
        assert "store.version-1.sqlite3" in found[0]["remedy"]
        assert not [each for each in wrong(run) if each["check"] == "strays"], "no patch is called a stray"
        assert path.read_bytes() == broken


def test_a_store_of_another_version_is_said(run: Run, data: Path) -> None:
    for version, level, word in ((1, "word", "the next start"), (99, "wrong", "Update star-lsp")):
        with sqlite3.connect(data / "store.sqlite3") as db:
            db.execute(f"PRAGMA user_version = {version}")
        found = [each for each in wrong(run) if each["check"] == "store"]
        assert [each["level"] for each in found] == [level]
        assert word in f"{found[0]['text']} {found[0]['remedy']}"


@posix
def test_what_others_may_use_is_found_and_closed_on_request(run: Run, data: Path) -> None:
    (data / "logs").mkdir(mode=0o755)
    (data / "logs" / "server.log").write_text("x")
    open_ = [data, data / "patches", data / "store.sqlite3", data / "patches" / "p1.safetensors"]
    for path in (*open_, data / "logs", data / "logs" / "server.log"):
        path.chmod(0o755)
    found = wrong(run)
    assert len(found) == 6
    assert {each["remedy"] for each in found} == {"Run star-lsp doctor --fix."}
    assert wrong(run, "--fix") == wrong(run) == []
    assert [path.stat().st_mode & 0o777 for path in open_] == [0o700] * 4


@posix
def test_what_others_may_use_is_closed_when_the_store_is_opened_with_a_word(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        Store(data).close()
        assert caplog.messages == []
        for path in (data, data / "store.sqlite3", data / "patches" / "p1.safetensors"):
            path.chmod(0o755)
        Store(data).close()
    assert [path.stat().st_mode & 0o777 for path in (data, data / "store.sqlite3")] == [0o700, 0o700]
    assert (data / "patches" / "p1.safetensors").stat().st_mode & 0o077 == 0
    assert len(caplog.messages) == 3
    assert all("now only you can" in message for message in caplog.messages)


@posix
def test_all_that_we_make_is_for_the_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    code = (
        "import os; os.umask(0)\n"
        "from pathlib import Path\n"
        "from star_lsp.perform import resume\n"
        "from star_lsp.places import places\n"
        "from star_lsp.store import Store\n"
        "store = Store(places(os.environ).data)\n"
        "resume(store)\n"
        "store.add_case(prefix='a', suffix='', expected='b', rejected='c')\n"
        "for path in [store.path.parent, *store.path.parent.rglob('*')]:\n"
        "    print(path.name, path.stat().st_mode & 0o077)\n"
    )
    environ = os.environ | {"STAR_LSP_HOME": str(tmp_path / "home")}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert len(ran.stdout.splitlines()) >= 5
    assert [line for line in ran.stdout.splitlines() if not line.endswith(" 0")] == []


def test_stray_files_are_found_and_removed_on_request_but_not_during_a_repair(run: Run, data: Path) -> None:
    stray = [data / "patches" / name for name in ("p2.safetensors", ".p3.safetensors.part", "x.txt")]
    stray.append(data / "store.version-1.part")
    for path in stray:
        path.write_text("x")
        path.chmod(0o600)
    gone = data.parent / "models" / ".removed-x"
    gone.mkdir()
    found = wrong(run)
    assert len(found) == 5
    with FileLock(data / "repair.lock"):
        assert [each["text"] for each in wrong(run, "--fix")] == [
            "A repair is under way, so stray files are not looked for"
        ]
    assert wrong(run, "--fix") == []
    assert not [path for path in (*stray, gone) if path.exists()]
    assert (data / "patches" / "p1.safetensors").exists()


def test_a_pull_that_is_not_finished_is_told(run: Run, data: Path) -> None:
    (data.parent / "models" / ".partial-other").mkdir()
    (found,) = wrong(run)
    assert "star-lsp model pull other goes on with it" in found["remedy"]


def test_a_full_disk_is_found(run: Run, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MARGIN", 1 << 60)
    assert disk.MARGIN < 1 << 60
    assert [each["check"] for each in wrong(run)] == ["disk", "disk"]


def test_a_dependency_that_is_absent_or_too_old_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked.of(places(os.environ), default_model(), deep=False)
    monkeypatch.setattr(
        checks.metadata, "requires", lambda _: ["click>=999", "no-such-thing", "torch>1; extra == 'x'"]
    )
    texts = [each.text for each in checks.versions(asked) if each.level == "wrong"]
    assert [text.split()[0] for text in texts] == ["click", "no-such-thing"]


@posix
@pytest.mark.process
def test_a_process_that_lost_its_server_is_found(tmp_path: Path) -> None:
    """It cannot happen by itself (they are tethered): so one is made that looks like it."""
    import psutil

    child = (
        "import subprocess as s, sys\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(60)', 'star_lsp.worker']\n"
        "print(s.Popen(sleep, stdout=s.DEVNULL, stderr=s.DEVNULL).pid)\n"
    )
    ran = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True)
    pid = int(ran.stdout)
    try:
        asked = Asked(places({"STAR_LSP_HOME": str(tmp_path)}), "x", False, None)
        found = [each for each in checks.processes(asked) if str(pid) in each.text]
        assert [each.remedy for each in found] == [f"End it: kill {pid}."]
    finally:
        psutil.Process(pid).kill()
