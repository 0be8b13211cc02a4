"""What was stored is removed when that is asked for: all of it, for good, and nothing else."""

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from star_lsp.errors import StoreError
from star_lsp.holdings import holdings
from star_lsp.purge import Wanted, purge
from star_lsp.store import Accepted, Case, Store
from tests.server import actor
from tests.server.fake_engine import Session
from tests.server.shell import Run

MARK = "a-text-that-nobody-shall-find-again"
TEXT = "def second(y):\n    total = \n    return total\n"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STAR_LSP_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "data"


@pytest.fixture
def store(data: Path) -> Iterator[Store]:
    opened = Store(data)
    yield opened
    opened.close()


def add(store: Store, name: str) -> Case:
    return store.add_case(prefix=f"{MARK} {name}", suffix=MARK, expected=MARK, rejected=MARK, note=MARK)


def activate(store: Store, case: Case) -> str:
    id_ = store.new_patch_id()
    store.patch_path(id_).write_text(MARK)
    verdict = {"cases": [{"after": MARK}]}
    solved = [case.id]
    store.activate(id_, base="b", digest=id_, revision=id_, solved=solved, failed={}, verdict=verdict)
    store.keep_comparison(id_, [{"after": MARK}])
    return id_


def filled(store: Store) -> str:
    """Everything that is ever kept, with a mark in it; the id of the patch."""
    patch = activate(store, add(store, "solved"))
    for number in range(60):
        add(store, f"{number} " + "x" * 500)
    for number in range(60):
        store.accept(Accepted(f"{MARK} {number} " + "y" * 500, MARK, MARK, "python"), keep=50)
    data = store.path.parent
    (data / "logs").mkdir(mode=0o700)
    for name in (
        "logs/server.log",
        "logs/server.log.1",
        "store.version-1.sqlite3",
        "store.set-aside.sqlite3",
    ):
        (data / name).write_text(MARK)
        (data / name).chmod(0o600)
    return patch


def found(folder: Path) -> list[str]:
    """The files that hold the mark, as bytes."""
    return [path.name for path in folder.rglob("*") if path.is_file() and MARK.encode() in path.read_bytes()]


def test_nothing_that_was_stored_is_left_in_any_file_and_what_went_is_said(
    run: Run, store: Store, data: Path
) -> None:
    filled(store)
    assert len(found(data)) >= 6
    ran = run("purge", "--yes", "--json")
    assert ran.status == 0, ran.err
    told = {kind: each["count"] for kind, each in ran.json["removed"].items()}
    assert told == {
        "cases": 61,
        "accepted completions": 50,
        "comparisons": 1,
        "patches": 1,
        "backups": 1,
        "set aside": 1,
        "logs": 2,
    }
    assert ran.json["clean"] is True
    assert found(data) == []
    assert (store.cases(), store.patches(), store.accepted(9)) == ([], [], [])
    assert run("purge", "--yes").out.strip() == "There is nothing to remove."
    add(store, "new")
    assert len(store.cases()) == 1, "it is used on as it was"


def test_what_is_deleted_by_itself_is_overwritten_too(store: Store, data: Path) -> None:
    case = add(store, "one")
    store.accept(Accepted(MARK, MARK, MARK, "python"), keep=5)
    store.delete_case(case.id)
    store.forget_accepted(MARK, MARK)
    store.close()
    assert found(data) == []


def test_it_asks_first_and_no_is_no(run: Run, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(store)
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    ran = run("purge")
    assert ran.status == 130
    assert "set aside" in ran.out
    assert len(store.cases()) == 61
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run("purge").status == 130
    assert len(store.cases()) == 61
    assert run("purge", "--json").status == 2
    assert len(store.cases()) == 61
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert run("purge").status == 0
    assert store.cases() == []


def test_what_would_go_is_said_before_as_it_is_after(store: Store) -> None:
    filled(store)
    would, _ = purge(store, Wanted(), dry=True)
    assert len(store.cases()) == 61
    assert purge(store, Wanted()) == (would, True)


def test_a_part_can_be_removed_alone(run: Run, store: Store, data: Path) -> None:
    patch = filled(store)
    assert run("purge", "--accepted", "--yes").status == 0
    assert (len(store.cases()), store.accepted(9)) == (61, [])
    assert store.patch_path(patch).exists()
    assert (data / "logs" / "server.log").read_text() == MARK
    store.accept(Accepted("a", "b", "c", "python"), keep=5)
    assert run("purge", "--cases", "--yes").status == 0
    assert (store.cases(), store.patches(), len(store.accepted(9))) == ([], [], 1)
    assert not store.patch_path(patch).exists()
    assert not list(data.glob("store.version*"))


def test_before_a_day_only_what_is_older_goes_and_nothing_that_the_history_stands_on(
    run: Run, store: Store, data: Path
) -> None:
    patch = filled(store)
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE cases SET created = created - 900000")
        db.execute("UPDATE patches SET created = created - 900000")
        db.execute("UPDATE accepted SET created = created - 900000 WHERE prefix LIKE '% 59 %'")
    newer = add(store, "newer")
    os.utime(data / "logs" / "server.log.1", (1, 1))
    day = time.strftime("%Y-%m-%d", time.localtime(time.time() - 400_000))
    ran = run("purge", "--before", day, "--yes")
    assert ran.status == 0, ran.err
    assert "Kept: 1 active patches" in ran.out
    assert {case.status for case in store.cases()} == {"solved", "pending"}
    assert [case.id for case in store.cases("pending")] == [newer.id]
    assert [each.id for each in store.patches()] == [patch]
    assert store.comparison(patch)
    assert len(store.accepted(99)) == 49
    assert [path.name for path in (data / "logs").iterdir()] == ["server.log"]
    store.deactivate([patch], [store.cases("solved")[0].id])
    assert run("purge", "--before", day, "--yes").status == 0
    assert store.patches() == []
    assert not store.patch_path(patch).exists()


def test_nothing_is_removed_while_a_repair_is_under_way(run: Run, store: Store, data: Path) -> None:
    filled(store)
    before = sorted(data.rglob("*"))
    with FileLock(data / "repair.lock"):
        ran = run("purge", "--yes")
    assert ran.status == 2
    assert "A repair is under way; cancel it" in ran.err
    assert len(store.cases()) == 61
    assert {*before} <= {*data.rglob("*")}


def test_a_log_that_a_reader_holds_open_is_told_of(store: Store) -> None:
    filled(store)
    reader = sqlite3.connect(store.path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM cases").fetchone()
    hasty = Store(store.path.parent, wait_seconds=0.1)
    _, clean = purge(hasty, Wanted())
    assert not clean
    reader.close()
    _, clean = purge(hasty, Wanted())
    hasty.close()
    assert clean
    assert found(store.path.parent) == []


def test_what_is_not_ours_in_the_folder_is_left_alone(run: Run, store: Store, data: Path) -> None:
    for name in ("notes.txt", "project/main.py", ".git"):
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).write_text(MARK)
        (data / name).chmod(0o644)
    assert run("purge", "--yes").status == 0
    Store(data).close()
    assert sorted(found(data)) == [".git", "main.py", "notes.txt"]
    assert (data / "notes.txt").stat().st_mode & 0o777 == 0o644
    assert len(holdings(data)["not ours"]) == 2


def test_a_link_is_removed_and_not_what_it_leads_to(store: Store, data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (data / "logs").mkdir()
    for name in ("store.old", "logs/server.log", "patches/x.safetensors"):
        (data / name).symlink_to(tmp_path / "mine.txt")
    purge(store, Wanted())
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert not any(path.is_symlink() for path in data.rglob("*"))


def test_models_go_only_when_asked_for_with_their_size(run: Run, store: Store, data: Path) -> None:
    models = data.parent / "models"
    (models / "tiny").mkdir(parents=True)
    (models / "tiny" / "star-model.json").write_text('{"format": 1, "fingerprint": "x"}')
    (models / "tiny" / "model.safetensors").write_bytes(b"x" * 20_000)
    (models / ".partial-other").mkdir()
    (models / ".partial-other" / "model.gguf").write_bytes(b"x" * 1000)
    assert run("purge", "--yes").status == 0
    assert (models / "tiny").exists()
    told = run("purge", "--models", "--yes", "--json").json["removed"]["models"]
    assert told["count"] == 2
    assert told["bytes"] > 10_000
    assert [path.name for path in models.iterdir() if path.is_dir()] == []


@pytest.mark.process
def test_a_running_server_follows_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    actor.hire(tmp_path, monkeypatch)
    with Session(tmp_path) as session:
        actor.script(session.model, "solve")
        client = session.ready({"repair": {"schedule": "at once"}})
        client.open("file:///work/a.py", TEXT)
        item = client.inline("file:///work/a.py", 1, 12)
        assert item is not None
        client.until_case(client.flag(item, "max(y)"), "solved")
        client.until(lambda: session.engine.histories[-1] != [], "the patch is served")
        client.until_state("ready")
        with_patch = client.command("status")["revision"]
        store = Store(next(path.parent for path in tmp_path.rglob("store.sqlite3")))
        gone, clean = purge(store, Wanted())
        store.close()
        assert clean, "an idle server holds nothing open"
        assert {"cases", "patches"} <= {each.kind for each in gone}
        client.until(lambda: session.engine.histories[-1] == [], "the base is served again")
        client.until(lambda: client.command("status")["revision"] != with_patch, "and said so")
        assert client.command("listCases") == client.command("listPatches") == []
        item = client.inline("file:///work/a.py", 1, 10)
        assert item is not None
        client.until_case(client.flag(item, "min(y)"), "solved")
        client.until_state("ready")


def test_the_rows_of_a_purge_that_fails_are_all_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(store)
    store._db.execute("CREATE TRIGGER no BEFORE DELETE ON patches BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(StoreError):
        purge(store, Wanted())
    assert (len(store.cases()), len(store.accepted(99)), len(store.patches())) == (61, 50, 1)
    assert json.dumps(store.comparison(store.patches()[0].id))
