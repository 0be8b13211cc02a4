"""A store that is damaged, on a full or read-only disk, locked or exchanged: nothing goes without a word."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from star_lsp import store as store_module
from star_lsp.errors import StoreError, StoreHeld
from star_lsp.store import Accepted, Case, Store
from tests.faults.conftest import filled
from tests.server.test_store import make_old

LONG = "def f(x):\n    return x  # a line as long as lines are\n" * 30
PAGE, FRAME = 4096, 4096 + 24


def add(store: Store, name: str, **fields: Any) -> Case:
    about = {"prefix": f"{LONG}{name} = ", "suffix": "\n", "expected": "1", "rejected": "2"}
    return store.add_case(**(about | fields))


def activate(store: Store, *cases: Case) -> str:
    id_ = store.new_patch_id()
    store.patch_path(id_).write_bytes(b"rows")
    solved = [case.id for case in cases]
    assert store.activate(
        id_, base="b", digest="d", revision="r", solved=solved, failed={}, verdict={"steps": 3, "told": LONG}
    )
    return id_


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], str]:
    """What a server that was killed has left: 60 cases, some of them in the log alone, and a patch."""
    folder = tmp_path_factory.mktemp("killed")
    store = Store(folder / "live")
    cases = [add(store, f"x{number}") for number in range(50)]
    patch = activate(store, cases[7], cases[30])
    store.accept(Accepted("p", "s", "t", "python"), 9)
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    cases += [add(store, f"y{number}") for number in range(10)]
    shutil.copytree(folder / "live", folder / "data")
    (folder / "data" / "store.sqlite3-shm").unlink()
    store.close()
    return folder / "data", [case.id for case in cases], patch


@pytest.fixture
def left(killed: tuple[Path, list[str], str], tmp_path: Path) -> tuple[Path, list[str], str]:
    """The same, to be damaged."""
    folder, cases, patch = killed
    return shutil.copytree(folder, tmp_path / "data"), cases, patch


def overwrite(name: str, at: Callable[[int], int], count: int) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        path = folder / name
        content = bytearray(path.read_bytes())
        start = at(len(content))
        content[start : start + count] = os.urandom(len(content[start : start + count]))
        path.write_bytes(content)

    return do


def cut(name: str, share: float) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        os.truncate(folder / name, int((folder / name).stat().st_size * share))

    return do


def alone(damage: Callable[[Path], None]) -> Callable[[Path], None]:
    """With nothing in the log, from which SQLite would take the first page."""

    def do(folder: Path) -> None:
        (folder / LOG).unlink()
        damage(folder)

    return do


STORE, LOG = "store.sqlite3", "store.sqlite3-wal"
DAMAGES = {
    "its magic is garbage": (alone(overwrite(STORE, lambda _: 0, 16)), 50),
    "its header is garbage": (alone(overwrite(STORE, lambda _: 0, 100)), 50),
    "its first page is garbage": (alone(overwrite(STORE, lambda _: 0, PAGE)), 50),
    "a page is garbage": (overwrite(STORE, lambda size: size // 2 // PAGE * PAGE, PAGE), 40),
    "some bytes are": (overwrite(STORE, lambda size: size // 3 // PAGE * PAGE, 8), 40),
    "it is cut short": (cut(STORE, 0.7), 25),
    "it is empty": (cut(STORE, 0), 1),
    "the header of its log is garbage": (overwrite(LOG, lambda _: 0, 32), 60),
    "a page in its log is garbage": (overwrite(LOG, lambda _: 32 + 5 * FRAME + 24, PAGE), 55),
    "a frame in its log is garbage": (overwrite(LOG, lambda _: 32 + 5 * FRAME, FRAME), 55),
}


#: In the quick part.
SOON = ("its first page is garbage", "a page in its log is garbage")


@pytest.mark.parametrize("name", [
    name if name in SOON else pytest.param(name, marks=pytest.mark.process) for name in DAMAGES
])  # fmt: skip
def test_what_can_be_read_of_a_damaged_store_is_in_use_and_the_rest_is_kept(
    left: tuple[Path, list[str], str], name: str
) -> None:
    folder, cases, patch = left
    damage, least = DAMAGES[name]
    damage(folder)
    before = {path.name: path.read_bytes() for path in folder.glob("store.sqlite3*")}
    with closing(Store(folder)) as store:
        assert store.word is not None
        assert "damaged" in store.word
        found = [case.id for case in store.cases()]
        assert len(found) >= least, f"{len(found)} of {len(cases)}"
        assert [id_ for id_ in cases if id_ in found] == found, "in their order"
        assert all(case.prefix.startswith(LONG) for case in store.cases())
        known = {each.id for each in store.patches()}
        for case in store.cases():
            assert case.patch in ({None} | known)
            assert case.status == ("solved" if case.patch else "pending")
        (kept,) = folder.glob("aside/damaged-*")
        assert str(kept) in store.word
        for path, content in before.items():
            assert (kept / path).read_bytes() == content
        assert store.patch_path(patch).exists() == (patch in known)
        assert (kept / f"{patch}.safetensors").exists() == (patch not in known)
        add(store, "z")
    assert not list(folder.glob("aside/recovering-*"))
    with closing(Store(folder)) as again:
        assert again.word is None
        assert len(again.cases()) == len(found) + 1


def test_what_is_left_without_a_patch_stays_to_be_checked_be_it_reverted_or_lost(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        reverted, lost, left = (activate(store, add(store, name)) for name in "xyz")
        assert store.deactivate([reverted], [])
        store._db.execute("DELETE FROM patches WHERE id = ?", [lost])  # as if its page could not be read
    overwrite(STORE, lambda _: 0, 16)(tmp_path)
    with closing(Store(tmp_path)) as store:
        assert [patch.id for patch in store.active("b")] == [left]
        assert store.unchecked("b") == [reverted, lost]


def test_a_log_that_ends_in_the_middle_of_a_transaction_is_no_damage(
    left: tuple[Path, list[str], str],
) -> None:
    folder, cases, _ = left
    os.truncate(folder / LOG, (folder / LOG).stat().st_size - 100)
    with closing(Store(folder)) as store:
        assert store.word is None
        assert [case.id for case in store.cases()] == cases[:-1]


def test_a_server_that_was_killed_leaves_no_damage(left: tuple[Path, list[str], str]) -> None:
    folder, cases, patch = left
    with closing(Store(folder)) as store:
        assert store.word is None
        assert [case.id for case in store.cases()] == cases
        assert [each.id for each in store.patches()] == [patch]


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.process)])
def test_an_end_of_the_recovery_at_any_step_loses_nothing(
    left: tuple[Path, list[str], str], monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """Each call that changes a file is the last one, in turn; every ninth, in the quick part."""
    folder, cases, _ = left
    DAMAGES["its first page is garbage"][0](folder)

    class Killed(BaseException):
        pass

    steps = 0
    for last in range(0, 100, every):
        steps, done = last, 0

        def dies(real: Any, last: int = last) -> Any:
            def step(*arguments: Any, **named: Any) -> Any:
                nonlocal done
                done += 1
                if done > last:
                    raise Killed
                return real(*arguments, **named)

            return step

        trial = folder.with_name(f"trial{last}")
        shutil.copytree(folder, trial)
        with monkeypatch.context() as patched:
            for owner, name in (
                (Path, "unlink"), (Path, "rename"), (Path, "replace"), (Path, "mkdir"), (Path, "write_text"),
                (shutil, "copyfile"), (shutil, "copy2"), (shutil, "rmtree"), (store_module, "_synced"),
            ):  # fmt: skip
                patched.setattr(owner, name, dies(getattr(owner, name)))
            try:
                Store(trial).close()
                over = True
            except Killed:
                over = False
        with closing(Store(trial)) as store:
            assert [case.id for case in store.cases()] == cases[:50]
        assert not list(trial.glob("aside/recovering-*"))
        assert len(list(trial.glob("aside/damaged-*"))) == 1
        shutil.rmtree(trial)
        if over:
            break
    assert steps > 10


def test_patches_without_their_store_are_kept(left: tuple[Path, list[str], str]) -> None:
    folder, _, patch = left
    for path in folder.glob("store.sqlite3*"):
        path.unlink()
    with closing(Store(folder)) as store:
        store.sweep()
        assert store.word is not None
        assert "though 1 patches were" in store.word
    (kept,) = folder.glob("aside/damaged-*")
    assert [path.name for path in kept.iterdir()] == [f"{patch}.safetensors"]


def test_a_store_that_is_exchanged_while_it_is_open_is_followed(tmp_path: Path) -> None:
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    other = add(there, "other")
    there.close()
    add(here, "x")
    before = here.version()
    for path in (tmp_path / "here").glob("store.sqlite3-*"):
        path.unlink()
    (tmp_path / "there" / STORE).replace(tmp_path / "here" / STORE)
    assert here.version() != before
    case = add(here, "y")
    here.close()
    with closing(Store(tmp_path / "here")) as now:
        assert [each.id for each in now.cases()] == [other.id, case.id]


def test_a_store_that_was_exchanged_and_is_held_is_opened_as_soon_as_it_is_free(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "other")) as other, closing(Store(tmp_path / "data", 0.1)) as store:
        case = add(other, "x")
        other.close()
        (tmp_path / "other" / STORE).replace(tmp_path / "data" / STORE)
        for end in ("-wal", "-shm"):
            (tmp_path / "data" / f"{STORE}{end}").unlink()
        holder = sqlite3.connect(tmp_path / "data" / STORE, isolation_level=None)
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        for _ in range(2):
            with pytest.raises(StoreHeld):
                store.cases()
        holder.close()
        assert [each.id for each in store.cases()] == [case.id]


def test_a_store_that_another_program_holds_altogether_is_said_and_left(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        add(store, "x")
    holder = sqlite3.connect(tmp_path / STORE, isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match=r"locked.*another program holds it; end that one"):
        Store(tmp_path, wait_seconds=0.1)
    holder.execute("ROLLBACK")
    holder.close()
    with closing(Store(tmp_path)) as store:
        assert len(store.cases()) == 1


# -- disks ----------------------------------------------------------------------------------------------


def test_on_a_full_disk_what_is_not_kept_is_said_and_what_was_kept_stays(disk: Path) -> None:
    with closing(Store(disk / "data")) as store:
        kept = [add(store, "x").id]
        filler = filled(disk, 20_000)
        with pytest.raises(StoreError, match=r"full.*nothing was changed\. Check the disk"):  # noqa: PT012
            for number in range(30):
                kept.append(add(store, f"y{number}").id)
        assert [case.id for case in store.cases()] == kept
        with pytest.raises(StoreError, match="full"):
            add(store, "z", note=LONG * 20)
        assert [case.id for case in store.cases()] == kept
        filler.unlink()
        kept.append(add(store, "z").id)
    with closing(Store(disk / "data")) as store:
        assert store.word is None
        assert [case.id for case in store.cases()] == kept


def test_a_store_on_a_disk_that_is_full_to_the_last_byte_is_said_to_need_room(disk: Path) -> None:
    with closing(Store(disk / "data")) as store:
        case = add(store, "x")
    filler = filled(disk)
    with pytest.raises(StoreError, match="has room"):
        Store(disk / "data")
    filler.unlink()
    with closing(Store(disk / "data")) as store:
        assert store.word is None
        assert [each.id for each in store.cases()] == [case.id]


def test_a_damaged_store_on_a_full_disk_is_left_as_it_is(disk: Path) -> None:
    with closing(Store(disk / "data")) as store:
        case = add(store, "x")
    path = disk / "data" / STORE
    content = path.read_bytes()
    path.write_bytes(b"\0" * 16 + content[16:])
    filler = filled(disk, PAGE)
    with pytest.raises(StoreError, match="has room"):
        Store(disk / "data")
    assert path.read_bytes()[16:] == content[16:]
    filler.unlink()
    with closing(Store(disk / "data")) as store:
        assert [each.id for each in store.cases()] == [case.id]


def test_a_read_only_home_is_said_and_left(disk: Path) -> None:
    with closing(Store(disk / "data")) as store:
        add(store, "x")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(StoreError, match=r"Read-only file system.*check its permissions.*Nothing in it was"):
        Store(disk / "data")
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    with closing(Store(disk / "data")) as store:
        assert len(store.cases()) == 1


def test_an_old_store_on_a_full_disk_stays_an_old_one(disk: Path) -> None:
    with closing(Store(disk / "data")) as store:
        cases = [add(store, f"x{number}").id for number in range(30)]
        make_old(store._db)
    filler = filled(disk, 3 * PAGE)
    with pytest.raises(StoreError, match="has room"):
        Store(disk / "data")
    filler.unlink()
    with closing(sqlite3.connect(disk / "data" / STORE)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
    with closing(Store(disk / "data")) as store:
        assert [case.id for case in store.cases()] == cases
    assert not list((disk / "data").glob("*.part*"))
