"""A revert is exact: nothing of it is left, and nothing counts as solved that leaned on it."""

import asyncio

import pytest
from filelock import FileLock

from star_lsp import jobs
from star_lsp.reverts import Checked, Reverted
from star_lsp.settings import Settings
from star_lsp.sound import take_out
from star_lsp.store import Case
from tests.server.stage import Stage, played


async def solved(stage: Stage, *names: str) -> list[Case]:
    """Cases, each solved by a patch of its own."""
    cases = [stage.case(name) for name in names]
    for case in cases:
        await stage.perform(case)
    return [stage.store.case(case.id) for case in cases]


def reason(patch: Case) -> str:
    return f"No longer solved without patch {patch.patch}."


def test_what_leaned_on_a_reverted_patch_is_pending_again_and_says_why(stage: Stage) -> None:
    async def play() -> None:
        a, b, c = await solved(stage, *"abc")
        found = stage.take_back(case=b.id)
        assert (found.base, found.patches, found.rest, found.leaned_on) == ("b", (b.patch,), (), True)
        assert await stage.check(found) == Checked(2, (a.id, c.id))
        job = stage.heard[-1]
        assert job["check"]
        assert job["teach"] == job["accepted"] == []
        assert [each["id"] for each in job["hold"]] == [a.id, c.id]
        assert job["history"] == [str(stage.store.patch_path(str(each.patch))) for each in (a, c)]
        assert stage.status(a, b, c) == [("pending", reason(b)), ("reverted", None), ("pending", reason(b))]
        assert [patch.id for patch in stage.store.active("b")] == [a.patch, c.patch], (
            "they stay in the history"
        )

    stage.script("solve", "solve", "solve", "break")
    played(stage, play)


def test_what_is_still_solved_stays_so(stage: Stage) -> None:
    async def play() -> None:
        a, b = await solved(stage, *"ab")
        answer = await stage.check(stage.take_back(patch=a.patch))
        assert answer == Checked(1, ())
        assert str(answer) == "all other cases that were solved are so still: 1"
        assert stage.status(b) == [("solved", None)]

    stage.script("solve")
    played(stage, play)


def test_a_case_that_is_solved_again_counts_once_and_its_second_patch_stands_for_it(stage: Stage) -> None:
    async def play() -> None:
        a, b = await solved(stage, *"ab")
        await stage.check(stage.take_back(patch=a.patch))
        assert stage.store.solved_by(stage.store.active("b")) == []
        await stage.perform(b)
        assert [case.id for case in stage.store.solved_by(stage.store.active("b"))] == [b.id]
        await stage.perform(stage.case("c"))
        assert [each["id"] for each in stage.heard[-1]["hold"]] == [b.id]
        second = stage.store.case(b.id).patch
        assert second != b.patch

        # The old patch goes alone, as another one solves the case; the case itself takes both along.
        assert stage.take_back(patch=b.patch).patches == (b.patch,)
        assert stage.status(b) == [("solved", None)]
        assert stage.take_back(case=b.id).patches == (second,)
        assert stage.status(b) == [("reverted", None)]

    stage.script("solve", "solve", "break", "solve")
    played(stage, play)


def test_to_take_a_case_back_takes_every_patch_that_was_made_for_it(stage: Stage) -> None:
    async def play() -> None:
        a, b = await solved(stage, *"ab")
        await stage.check(stage.take_back(patch=a.patch))
        await stage.perform(b)
        second = stage.store.case(b.id).patch
        assert stage.take_back(case=b.id).patches == (b.patch, second)
        assert stage.store.active("b") == []
        assert stage.status(a, b) == [("reverted", None), ("reverted", None)]

    stage.script("solve", "solve", "break", "solve")
    played(stage, play)


def test_a_broken_case_that_cannot_be_solved_again_is_failed_and_can_be_deleted(stage: Stage) -> None:
    async def play() -> None:
        a, b = await solved(stage, *"ab")
        await stage.check(stage.take_back(patch=a.patch))
        await stage.perform(b)
        assert stage.status(b) == [("failed", "Too hard.")]
        stage.store.delete_case(b.id)
        assert stage.take_back(patch=b.patch).rest == ()

    stage.script("solve", "solve", "break", "unsolved")
    played(stage, play)


def test_nothing_leans_on_the_newest_patch_but_a_case_that_the_model_wrote_by_itself(stage: Stage) -> None:
    async def play() -> None:
        (a, b) = await solved(stage, *"ab")
        stage.script("already")
        lucky = stage.store.add_case(
            prefix="c = ", suffix="\n", expected="1", rejected="2", model=Settings().model
        )
        await stage.perform(lucky)
        stage.script("break")
        found = stage.take_back(patch=b.patch)
        assert found.leaned_on
        assert await stage.check(found) == Checked(2, (a.id, lucky.id))
        assert stage.status(lucky) == [("pending", reason(b))]
        assert not stage.take_back(patch=a.patch).leaned_on

    stage.script("solve")
    played(stage, play)


@pytest.mark.parametrize("act", ["die", "fail"])
def test_a_check_that_fails_says_why_and_changes_nothing(stage: Stage, act: str) -> None:
    async def play() -> None:
        a, b = await solved(stage, *"ab")
        found = stage.take_back(patch=a.patch)
        answer = await stage.check(found)
        assert isinstance(answer, jobs.Failed)
        assert not answer.cancelled
        assert stage.status(a, b) == [("reverted", None), ("solved", None)]
        assert stage.store.unchecked("b") == [a.patch], "it stays to be checked"
        stage.script("break")
        assert await stage.check(found) == Checked(1, (b.id,))
        assert stage.store.unchecked("b") == []

    stage.script("solve", "solve", act)
    played(stage, play)


def test_what_another_process_has_checked_meanwhile_is_not_checked_again(stage: Stage) -> None:
    async def play() -> None:
        a, _ = await solved(stage, *"ab")
        found = stage.take_back(patch=a.patch)
        assert await stage.check(found) == Checked(1, ())
        answer = await stage.check(found)
        assert (answer, str(answer)) == (Checked(0, ()), "no case was left to ask for")
        assert len(stage.heard) == 3

    stage.script("solve")
    played(stage, play)


def test_where_no_case_is_left_the_check_is_over_and_no_worker_is_asked(stage: Stage) -> None:
    async def play() -> None:
        a, b = await solved(stage, *"ab")
        found = stage.take_back(patch=a.patch)
        stage.take_back(patch=b.patch)
        assert stage.store.unchecked("b") == [a.patch]
        assert await stage.check(found) == Checked(0, ())
        assert stage.store.unchecked("b") == []
        assert len(stage.heard) == 2

    stage.script("solve")
    played(stage, play)


def test_a_patch_whose_file_is_damaged_is_checked_for_as_one_that_was_reverted(stage: Stage) -> None:
    async def play() -> None:
        a, b = await solved(stage, *"ab")
        stage.store.patch_path(str(a.patch)).unlink()
        (out,) = await take_out(stage.store, "b")
        assert (out.patch, out.cases) == (a.patch, (a.id,))
        assert stage.store.unchecked("b") == [a.patch]
        assert await stage.check(Reverted("b", (out.patch,), (), True)) == Checked(1, (b.id,))
        assert stage.status(b) == [("pending", reason(a))]

    stage.script("solve", "solve", "break")
    played(stage, play)


def test_a_cancelled_check_leaves_the_store_as_the_revert_left_it_and_the_lock_free(stage: Stage) -> None:
    async def play() -> None:
        a, b = await solved(stage, *"ab")
        asleep = asyncio.Event()
        found = stage.take_back(patch=a.patch)

        def on_progress(now: jobs.Progress) -> None:
            if now.percent == 5:
                asleep.set()

        checked = asyncio.create_task(stage.check(found, on_progress=on_progress))
        await asleep.wait()
        stage.process.cancel()
        answer = await checked
        assert isinstance(answer, jobs.Failed)
        assert answer.cancelled
        assert stage.status(a, b) == [("reverted", None), ("solved", None)]
        assert [patch.id for patch in stage.store.active("b")] == [b.patch]
        assert stage.store.unchecked("b") == [a.patch]

        again = asyncio.create_task(stage.check(found))
        while len(stage.heard) < 4:
            await asyncio.sleep(0.01)
        again.cancel()  # as Ctrl-C does
        with pytest.raises(asyncio.CancelledError):
            await again
        with FileLock(stage.store.path.with_name("repair.lock"), timeout=0):
            pass
        assert stage.status(a, b) == [("reverted", None), ("solved", None)]

    stage.script("solve", "solve", "sleep")
    played(stage, play)


def test_a_revert_during_a_check_has_it_done_again_for_what_is_left_then(stage: Stage) -> None:
    async def play() -> None:
        a, b, c = await solved(stage, *"abc")

        def on_progress(now: jobs.Progress) -> None:
            if now.percent == 50 and len(stage.heard) == 4:
                stage.take_back(patch=b.patch)

        answer = await stage.check(stage.take_back(patch=a.patch), on_progress=on_progress)
        assert answer == Checked(1, (c.id,))
        why = f"No longer solved without patch {a.patch}, {b.patch}."
        assert stage.status(a, b, c) == [("reverted", None), ("reverted", None), ("pending", why)]

    stage.script("solve", "solve", "solve", "break")
    played(stage, play)
