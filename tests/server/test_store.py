"""What is in the store cannot be lost, and only its owner can read it."""

import multiprocessing
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from star_lsp import store as store_module
from star_lsp.errors import NotFound, StoreError, StoreHeld
from star_lsp.perform import carry_over, resume
from star_lsp.store import Accepted, Case, Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "data")
    yield opened
    opened.close()


def add(store: Store, name: str = "x", **fields: Any) -> Case:
    about = {"prefix": f"{name} = ", "suffix": "\n", "expected": "1", "rejected": "2"}
    return store.add_case(**(about | fields))


def activate(store: Store, *cases: Case, base: str = "b", **fields: Any) -> str:
    """A patch that solves some cases, with its file."""
    id_ = store.new_patch_id()
    store.patch_path(id_).write_bytes(b"rows")
    about: dict[str, Any] = {
        "base": base,
        "digest": f"d-{id_}",
        "revision": f"r-{id_}",
        "solved": [case.id for case in cases],
        "failed": {},
        "verdict": {"steps": 3},
    }
    assert store.activate(id_, **(about | fields))
    return id_


def test_a_case_is_there_as_it_was_added_when_the_store_is_opened_again(store: Store) -> None:
    case = add(
        store,
        language="python",
        uri="file:///ü 😀.py",
        line=3,
        character=7,
        note="n",
        model="m",
        revision="r",
    )
    assert (case.status, case.patch, case.reason) == ("pending", None, None)
    again = Store(store.path.parent)
    assert again.case(case.id) == case
    assert again.cases() == again.cases("pending") == [case]
    assert again.cases("solved") == []
    again.close()


def test_cases_are_listed_in_the_order_in_which_they_came_whatever_the_clock_says(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(20, 0, -1))  # the clock is set back, again and again
    monkeypatch.setattr(store_module.time, "time", lambda: float(next(times)))
    added = [add(store, f"x{number}").id for number in range(20)]
    assert [case.id for case in store.cases()] == added


def test_what_is_not_there_is_said_with_where_to_look(store: Store) -> None:
    with pytest.raises(NotFound, match="no case c1; `star-lsp cases`"):
        store.case("c1")
    with pytest.raises(NotFound, match="no patch p1; `star-lsp patches`"):
        store.patch("p1")
    with pytest.raises(NotFound, match="no case c1"):
        store.delete_case("c1")


def test_a_place_that_is_flagged_again_has_one_pending_case_the_newest(store: Store) -> None:
    first, other = add(store), add(store, "y")
    second = add(store, expected="3")
    assert store.case(first.id).status == "reverted"
    assert "flagged again" in (store.case(first.id).reason or "")
    assert [case.id for case in store.cases("pending")] == [other.id, second.id]


def test_all_is_for_the_user_alone(store: Store) -> None:
    add(store)
    folder = store.path.parent
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {"store.sqlite3", "store.sqlite3-wal", "patches"} <= {path.name for path in folder.iterdir()}


def _add_many(folder: Path, name: str) -> None:
    store = Store(folder)
    for number in range(30):
        add(store, f"{name}{number}")


def test_two_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_add_many, args=(tmp_path / "data", name)) for name in "ab"]
    for process in processes:  # both make the store, too
        process.start()
    for process in processes:
        process.join(30)
    store = Store(tmp_path / "data")
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(store.cases()) == 60
    store.close()


def test_a_change_by_another_connection_is_seen_and_our_own_is_none(store: Store) -> None:
    before = store.version()
    add(store)
    assert store.version() == before
    other = Store(store.path.parent)
    add(other, "y")
    assert store.version() != before
    other.close()


def test_a_store_that_another_program_holds_is_refused_with_the_remedy(store: Store) -> None:
    waiting = Store(store.path.parent, wait_seconds=0.05)
    holder = sqlite3.connect(store.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreHeld, match=r"locked.*nothing was changed.*end that one, then try again"):
        add(waiting)
    holder.execute("ROLLBACK")
    holder.close()
    add(waiting)
    assert len(waiting.cases()) == 1
    waiting.close()


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be looked at" * 20, b"SQLite"])
def test_what_is_no_store_is_set_aside_with_a_word(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "store.sqlite3").write_bytes(content)
    with closing(Store(tmp_path)) as now:
        assert now.cases() == []
        assert now.word is not None
        assert "The store was damaged" in now.word
    (kept,) = tmp_path.glob("aside/damaged-*")
    assert str(kept) in now.word
    assert (kept / "store.sqlite3").read_bytes() == content


def test_a_store_of_a_newer_version_is_left_as_it_is(store: Store) -> None:
    case = add(store)
    raw = sqlite3.connect(store.path)
    raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(StoreError, match=r"newer star-lsp \(format 99, this one knows 3\); update"):
        Store(store.path.parent)
    assert store.case(case.id) == case


def make_old(db: sqlite3.Connection, version: int = 1) -> None:
    """Make of a store what it was in an earlier version."""
    for added, table in ((2, "comparisons"), (3, "unchecked")):
        if added > version:
            db.execute(f"DROP TABLE {table}")
    db.execute(f"PRAGMA user_version = {version}")


def old(store: Store, version: int = 1) -> None:
    """The same, of one that is closed by this."""
    make_old(store._db, version)
    store.close()


@pytest.mark.parametrize("version", [1, 2])
def test_a_store_of_an_older_version_is_taken_over_with_a_copy_of_it_kept(
    tmp_path: Path, version: int
) -> None:
    store = Store(tmp_path)
    case, newer = add(store), add(store, "y")
    patch, _ = activate(store, case), activate(store, newer)
    store.keep_comparison(patch, [{"kind": "neighbour"}])
    old(store, version)
    with closing(Store(tmp_path)) as now:
        assert [each.id for each in now.cases()] == [case.id, newer.id]
        assert now.comparison(patch) == (None if version == 1 else [{"kind": "neighbour"}])
        now.keep_comparison(patch, [{"kind": "flagged"}])
        assert now.comparison(patch) == [{"kind": "flagged"}]
        assert now.unchecked("b") == []
        assert now.deactivate([patch], [case.id])
        assert now.unchecked("b") == [patch]
    copy = tmp_path / f"store.version-{version}.sqlite3"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy)) as kept:
        assert kept.execute("PRAGMA user_version").fetchone() == (version,)
        assert kept.execute("SELECT status FROM cases").fetchall() == [("solved",), ("solved",)]
    copy.unlink()
    Store(tmp_path).close()
    assert not copy.exists(), "it is taken over once"


def test_a_store_is_taken_over_once_when_two_processes_open_it_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    case = add(store)
    old(store)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_add_many, args=(tmp_path, name)) for name in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with closing(Store(tmp_path)) as now:
        assert now.cases()[0].id == case.id
        assert len(now.cases()) == 91


def test_a_server_of_the_version_before_goes_on_while_the_store_is_taken_over(tmp_path: Path) -> None:
    store = Store(tmp_path)
    make_old(store._db)
    Store(tmp_path).close()
    activate(store, add(store))
    assert len(store.patches()) == 1


def test_a_copy_that_cannot_be_made_leaves_the_old_store_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    add(store)
    old(store)
    (tmp_path / "store.version-1.sqlite3").mkdir()  # in its way
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(tmp_path)
    with closing(sqlite3.connect(tmp_path / "store.sqlite3")) as left:
        assert left.execute("PRAGMA user_version").fetchone() == (1,)


def test_a_comparison_is_kept_until_there_is_a_newer_one(store: Store) -> None:
    assert store.comparison("p1") is None
    for places in ([{"before": "a"}], [{"before": "b"}, {"before": "c"}]):
        store.keep_comparison("p1", places)
        assert store.comparison("p1") == places


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="check its permissions, and that the disk"):
        Store(tmp_path / "file" / "data")


def test_a_patch_that_goes_live_solves_its_cases_and_names_why_others_failed(store: Store) -> None:
    right, wrong = add(store, "x"), add(store, "y")
    id_ = activate(store, right, failed={wrong.id: "too hard"})
    patch = store.patch(id_)
    assert (patch.active, patch.cases, patch.verdict, patch.position) == (True, (right.id,), {"steps": 3}, 1)
    solved, failed = store.case(right.id), store.case(wrong.id)
    assert (solved.status, solved.patch, solved.reason) == ("solved", id_, None)
    assert (failed.status, failed.patch, failed.reason) == ("failed", None, "too hard")


def test_the_history_is_the_active_patches_of_one_base_in_order(store: Store) -> None:
    first, second = activate(store, add(store)), activate(store, add(store, "y"))
    other = activate(store, add(store, "z"), base="other")
    assert [patch.id for patch in store.active("b")] == [first, second]
    assert [patch.id for patch in store.patches()] == [first, second, other]
    assert [patch.id for patch in store.patches("other")] == [other]
    assert [patch.position for patch in store.patches()] == [1, 2, 3]
    store.deactivate([first], [])
    assert [patch.id for patch in store.active("b")] == [second]
    third = activate(store)
    assert [patch.id for patch in store.active("b")] == [second, third]


def test_a_batch_patch_replaces_those_it_covers(store: Store) -> None:
    one, two, gone = add(store, "x"), add(store, "y"), add(store, "z")
    old = [activate(store, one), activate(store, gone)]
    new = activate(store, one, two, replaces=old)
    assert [patch.id for patch in store.active("b")] == [new]
    assert [store.case(case.id).patch for case in (one, two)] == [new, new]
    assert (store.case(gone.id).status, store.case(gone.id).patch) == ("reverted", None)


def test_a_patch_for_a_history_that_is_no_more_does_not_go_live(store: Store) -> None:
    earlier = activate(store, add(store))
    case = add(store, "y")
    store.deactivate([earlier], [])
    late = store.new_patch_id()
    about: dict[str, Any] = {"base": "b", "digest": "d", "revision": "r", "failed": {}, "verdict": {}}
    assert not store.activate(late, solved=[case.id], leans_on=[earlier], **about)
    assert store.active("b") == []
    assert store.case(case.id).status == "pending"
    assert store.activate(late, solved=[case.id], leans_on=[], **about)


def test_going_live_happens_as_a_whole_or_not_at_all(store: Store) -> None:
    case = add(store)
    old = activate(store, case)
    with pytest.raises(StoreError, match="nothing was changed"):
        activate(store, case, replaces=[old], digest=None)  # the table wants one
    assert [patch.id for patch in store.active("b")] == [old]
    assert store.case(case.id).patch == old


def test_a_reverted_patch_leaves_one_case_reverted_and_the_others_pending(store: Store) -> None:
    one, two = add(store, "x"), add(store, "y")
    id_ = activate(store, one, two)
    store.deactivate([id_], [one.id], [two.id])
    assert not store.patch(id_).active
    assert [(store.case(case.id).status, store.case(case.id).patch) for case in (one, two)] == [
        ("reverted", None),
        ("pending", None),
    ]


def test_a_patch_that_others_leaned_on_is_unchecked_until_the_history_that_is_left_is(store: Store) -> None:
    one, two, three = add(store, "x"), add(store, "y"), add(store, "z")
    first, second, third = (activate(store, case) for case in (one, two, three))
    other = activate(store, add(store, "o"), base="other")
    assert not store.deactivate([third], [three.id]), "nothing is newer, for this base"
    assert store.unchecked("b") == []
    fourth = activate(store, three)
    assert store.deactivate([second], [two.id])
    with closing(Store(store.path.parent)) as again:  # whoever was to check it is gone
        assert again.unchecked("b") == [second]
    assert store.deactivate([first], [], [one.id])
    assert (store.unchecked("b"), store.unchecked("other")) == ([second, first], [])
    assert store.checked("b", [three.id], "why", [first, fourth]) is None, "another history was checked"
    assert store.unchecked("b") == [second, first]
    assert store.checked("b", [three.id, two.id], "why", [fourth]) == [three.id]
    assert (store.case(three.id).status, store.case(three.id).reason) == ("pending", "why")
    assert store.case(two.id).status == "reverted"
    assert store.unchecked("b") == []
    assert [patch.id for patch in store.active("other")] == [other]


def test_a_case_that_no_patch_solves_may_have_leaned_on_any(store: Store) -> None:
    alone, lucky = add(store, "x"), add(store, "y")
    patch = activate(store, alone)
    store.set_status([lucky.id], "solved")
    assert store.deactivate([patch], [alone.id])
    assert store.unchecked("b") == [patch]


def test_a_revert_and_that_it_is_to_be_checked_are_one_transaction(store: Store) -> None:
    one, two = add(store, "x"), add(store, "y")
    first, _ = activate(store, one), activate(store, two)
    store._db.execute(
        "CREATE TRIGGER no BEFORE INSERT ON unchecked BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
    )
    with pytest.raises(StoreError, match="nothing was changed"):
        store.deactivate([first], [one.id])
    assert store.patch(first).active
    assert store.case(one.id).status == "solved"


def test_nothing_is_to_be_checked_when_all_is_forgotten_or_nobody_wants_it(store: Store) -> None:
    one, two = add(store, "x"), add(store, "y")
    first, second = activate(store, one), activate(store, two)
    third = activate(store, add(store, "z"))
    assert not store.deactivate([first], [one.id], check=False)
    assert store.unchecked("b") == []
    assert store.deactivate([second], [two.id])
    store.purge(cases=True, accepted=True, dry=True)
    store.purge(cases=False, accepted=True)
    store.purge(cases=True, accepted=False, before=time.time() + 1)  # the row of the patch is old enough
    assert [patch.id for patch in store.patches()] == [third]
    assert store.unchecked("b") == [second]
    store.purge(cases=True, accepted=False)
    assert store.unchecked("b") == []


def test_a_case_is_deleted_unless_it_is_being_repaired_or_a_patch_stands_for_it(store: Store) -> None:
    case = add(store)
    store.begin([case.id])
    with pytest.raises(StoreError, match="being repaired; cancel the repair"):
        store.delete_case(case.id)
    id_ = activate(store, case)
    with pytest.raises(StoreError, match="solved by an active patch; revert it"):
        store.delete_case(case.id)
    store.deactivate([id_], [case.id])
    store.delete_case(case.id)
    assert store.cases() == []


def test_a_repair_begins_with_the_cases_that_are_still_there(store: Store) -> None:
    case, gone = add(store, "x"), add(store, "y")
    store.delete_case(gone.id)
    assert [each.id for each in store.begin([case.id, gone.id])] == [case.id]
    assert store.case(case.id).status == "repairing"


def test_a_case_of_another_model_is_taken_as_a_copy_and_only_once(store: Store) -> None:
    theirs, by_itself, failed, ours = (add(store, name, model="old", note="n") for name in "wxyz")
    patch = activate(store, theirs, base="old base")
    store.set_status([by_itself.id], "solved")
    store.set_status([failed.id], "failed", "why")
    activate(store, ours, base="new base")  # whatever it was flagged in
    assert store.others("old base", "old") == {ours.id}
    assert store.others("new base", "new") == {theirs.id, by_itself.id, failed.id}
    assert store.untaught("old base", "old") == [ours.id]
    assert store.untaught("new base", "new") == [theirs.id, by_itself.id, failed.id]
    ids = [theirs.id, ours.id, by_itself.id, failed.id, theirs.id]
    copies = store.taken(ids, "new base", "new")
    assert copies[1] == ours.id
    assert len({*copies, *ids}) == 7
    for case, id_ in zip((theirs, by_itself, failed), (copies[0], *copies[2:]), strict=True):
        copy = store.case(id_)
        assert (copy.status, copy.patch, copy.reason) == ("pending", None, None)
        assert (copy.model, copy.note) == ("new", "n")
        assert (copy.prefix, copy.suffix, copy.expected) == (case.prefix, case.suffix, case.expected)
    assert store.untaught("new base", "new") == []
    assert store.taken(ids, "new base", "new") == copies
    before = store.cases()
    store.set_status(copies, "failed")
    assert store.taken(ids, "new base", "new") == copies, "it is tried again as the same case"
    assert len(store.cases()) == len(before)
    # What becomes of the copy is nothing to the other model.
    taught = activate(store, store.case(copies[0]), base="new base")
    store.deactivate([taught], [copies[0]])
    assert (store.case(theirs.id).status, store.case(theirs.id).patch) == ("solved", patch)
    assert store.solved_by(store.active("old base")) == [store.case(theirs.id)]
    assert store.untaught("new base", "new") == [], "what was reverted here is not wanted here"


def test_of_other_models_only_what_is_wanted_there_and_not_otherwise_here_is_untaught(store: Store) -> None:
    old = add(store, "x", model="old", expected="1")
    reverted = add(store, "y", model="old")
    store.set_status([reverted.id], "reverted")
    activate(store, old, base="old base")
    assert store.untaught("new base", "new") == [old.id]
    newer = add(store, "x", model="third", expected="2")
    assert store.untaught("new base", "new") == [newer.id], "the last fix of a place"
    activate(store, add(store, "x", model="new", expected="3"), base="new base")
    assert store.untaught("new base", "new") == [], "it has a fix of its own there"


def test_of_several_cases_of_another_model_for_one_place_one_is_taken_that_worked_if_any(
    store: Store,
) -> None:
    solved, newer, failed = (add(store, "x", model="old", expected=each) for each in "123")
    activate(store, solved, base="old base")
    store.set_status([newer.id, failed.id], "failed")
    assert store.untaught("new base", "new") == [solved.id]
    (copy,) = store.taken([failed.id, solved.id, newer.id], "new base", "new")
    assert store.case(copy).expected == "1"
    store.set_status([newer.id], "pending")
    (copy,) = store.taken([failed.id, solved.id, newer.id], "new base", "new")
    assert store.case(copy).expected == "2", "the developer's last word, as far as is known"


def test_a_case_that_is_repaired_is_of_the_model_that_it_is_repaired_in(store: Store) -> None:
    case = add(store, "x", model="its other name")
    store.begin([case.id], "name")
    activate(store, case)
    store.deactivate([store.case(case.id).patch or ""], [case.id])
    assert store.others("b", "name") == set()


def test_a_place_flagged_again_in_one_model_is_still_pending_in_another(store: Store) -> None:
    old, new = add(store, "x", model="old"), add(store, "x", model="new", expected="2")
    assert [store.case(case.id).status for case in (old, new)] == ["pending", "pending"]


def test_the_end_of_a_repair_touches_no_case_that_was_not_being_repaired(store: Store) -> None:
    ours, other = add(store, "x"), add(store, "y")
    store.begin([ours.id])
    assert store.put_back([ours.id, other.id], "failed", "why") == [ours.id]
    assert (store.case(ours.id).status, store.case(ours.id).reason) == ("failed", "why")
    assert store.case(other.id).status == "pending"
    store.set_status([ours.id], "pending")
    assert store.case(ours.id).reason is None


def test_what_was_cut_off_is_as_before_pending_or_solved_by_the_patch_it_had(store: Store) -> None:
    new, covered = add(store, "x"), add(store, "y")
    activate(store, covered)
    store.begin([new.id, covered.id])
    assert store.resume() == [new.id, covered.id]
    assert [store.case(case.id).status for case in (new, covered)] == ["pending", "solved"]
    assert store.resume() == []


def test_what_was_cut_off_is_pending_for_the_reason_that_it_was_before(store: Store) -> None:
    case = add(store)
    store.set_status([case.id], "pending", "No longer solved without patch p1.")
    store.begin([case.id])
    assert store.resume() == [case.id]
    assert store.case(case.id).reason == "No longer solved without patch p1."


def test_patch_files_that_no_patch_names_are_swept_and_no_others(store: Store) -> None:
    kept = activate(store, add(store))
    reverted = activate(store)
    store.deactivate([reverted], [])
    orphan = store.patch_path(store.new_patch_id())
    orphan.write_bytes(b"rows")
    half = orphan.with_name(f".{orphan.name}.part")
    half.write_bytes(b"ro")
    store.sweep()
    left = {path.name for path in store.patches_folder.iterdir()}
    assert left == {f"{kept}.safetensors", f"{reverted}.safetensors"}


def test_cases_are_found_by_id_and_by_place_oldest_first(store: Store) -> None:
    first, second = add(store), add(store)
    found = store.known([second.id, "c0", first.id])
    assert list(found.items()) == [(first.id, store.case(first.id)), (second.id, second)]
    assert store.known([]) == {}
    assert store.flagged_at(first.prefix, first.suffix) == [first.id, second.id]
    assert store.flagged_at(first.prefix + " ", first.suffix) == []


def test_files_that_cannot_be_swept_stop_nobody(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    patch = activate(store)
    store.patches_folder.rename(store.patches_folder.with_name("elsewhere"))
    store.patches_folder.write_bytes(b"no folder")
    store.sweep()
    assert "could not be deleted" in caplog.text
    assert [each.id for each in store.patches()] == [patch]


def test_of_patches_that_left_the_history_the_newest_are_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_LEFT_KEPT", 2)
    first, *left, last = [activate(store) for _ in range(6)]
    store.deactivate(left, [])
    for patch in (first, left[0], left[-1]):
        store.keep_comparison(patch, [])
    store.sweep()
    kept = {path.name.removesuffix(".safetensors") for path in store.patches_folder.iterdir()}
    assert kept == {first, *left[-2:], last}
    assert {patch.id for patch in store.patches()} == kept
    assert [store.comparison(patch) for patch in (first, left[0], left[-1])] == [[], None, []]


def test_nothing_is_taken_up_or_swept_while_another_process_repairs(store: Store) -> None:
    from filelock import FileLock

    case = add(store)
    store.begin([case.id])
    being_written = store.patch_path(store.new_patch_id())
    being_written.write_bytes(b"rows")
    with FileLock(store.path.with_name("repair.lock")):
        assert resume(store) == []
    assert store.case(case.id).status == "repairing"
    assert being_written.exists()
    assert resume(store) == [case.id]
    assert not being_written.exists()


def test_the_newest_accepted_completions_are_kept_whatever_the_clock_says(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([9.0, 9.0, 9.0, 5.0, 9.0])  # it stands still, and goes back
    monkeypatch.setattr(store_module.time, "time", lambda: next(times))
    for name in "abcd":
        store.accept(Accepted(name, "", "1", "python"), keep=3)
    assert [each.prefix for each in store.accepted(9)] == ["d", "c", "b"]
    store.accept(Accepted("b", "", "1", "python"), keep=3)
    assert [each.prefix for each in store.accepted(9)] == ["b", "d", "c"]
    assert [each.prefix for each in store.accepted(1)] == ["b"]
    store.forget_accepted("d", "")
    assert [each.prefix for each in store.accepted(9)] == ["b", "c"]


def test_what_was_repaired_for_an_earlier_base_of_a_model_is_to_be_repaired_anew(store: Store) -> None:
    old, new, other = (add(store, name) for name in "abc")
    patch = activate(store, old, base="earlier")
    activate(store, new, base="now")
    activate(store, other, base="another model")
    assert carry_over(store, ["earlier"]) == [old.id]
    assert [store.case(case.id).status for case in (old, new, other)] == ["pending", "solved", "solved"]
    assert store.active("earlier") == []
    assert store.patch_path(patch).exists()
    assert carry_over(store, ["earlier"]) == []


def test_nothing_is_checked_for_a_base_that_nothing_computes_with_any_more(store: Store) -> None:
    first, second = activate(store, add(store, "a"), base="earlier"), add(store, "b")
    activate(store, second, base="earlier")
    assert store.deactivate([first], [])
    carry_over(store, ["earlier"])
    assert store.unchecked("earlier") == []
    assert store.case(second.id).status == "pending"
