"""The worker's life, and what a repair comes to, with a program in its place that acts as it is told."""

import asyncio
import gc
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from star_lsp import jobs, store
from star_lsp.errors import WorkerError
from star_lsp.perform import summary
from star_lsp.process import Process
from star_lsp.reverts import take_back
from star_lsp.settings import read
from star_lsp.sound import unsound
from tests.server.stage import Stage, played

pytestmark = pytest.mark.process


def teach(*names: str) -> jobs.Job:
    return jobs.Job("r1", (), tuple(jobs.Teach(name, "p", "s", "x") for name in names))


# -- the process


def test_one_worker_is_kept_from_job_to_job(stage: Stage) -> None:
    async def play() -> None:
        assert stage.process.pid is None
        seen: list[jobs.Progress] = []
        first = await stage.process.run(teach("a"), seen.append)
        pid = stage.process.pid
        second = await stage.process.run(teach("b"), seen.append)
        assert isinstance(first, jobs.Report)
        assert isinstance(second, jobs.Report)
        assert [case.id for case in (*first.cases, *second.cases)] == ["a", "b"]
        assert [each.phase for each in seen] == ["at work", "at work"]
        assert stage.process.pid == pid

    stage.script("solve")
    played(stage, play)


def test_a_worker_is_let_go_after_some_idle_time(stage: Stage) -> None:
    async def play() -> None:
        stage.process = Process(stage.model, idle_seconds=0.05)
        await stage.process.run(teach("a"), lambda _: None)
        assert stage.process.pid
        for _ in range(200):
            await asyncio.sleep(0.01)
            if not stage.process.pid:
                break
        assert not stage.process.pid
        assert isinstance(await stage.process.run(teach("b"), lambda _: None), jobs.Report)

    stage.script("solve")
    played(stage, play)


@pytest.mark.parametrize("act", ["die", "babble"])
def test_a_worker_that_dies_or_babbles_is_ended_and_said_with_the_remedy(stage: Stage, act: str) -> None:
    async def play() -> None:
        with pytest.raises(WorkerError, match=r"ended with status .*the cases are kept\. Retry"):
            await stage.process.run(teach("a"), lambda _: None)
        assert stage.process.pid is None
        assert isinstance(await stage.process.run(teach("a"), lambda _: None), jobs.Report)

    stage.script(act, "solve")
    played(stage, play)


def test_a_worker_that_hangs_is_ended_and_said_with_the_remedy(stage: Stage) -> None:
    async def play() -> None:
        stage.process = Process(stage.model, silent_seconds=0.5)
        with pytest.raises(
            WorkerError, match=r"said nothing for 0 s and was ended; the cases are kept\. Retry"
        ):
            await asyncio.wait_for(stage.process.run(teach("a"), lambda _: None), 20)
        assert stage.process.pid is None
        assert isinstance(await stage.process.run(teach("a"), lambda _: None), jobs.Report)

    stage.script("hang", "solve")
    played(stage, play)


def test_a_case_whose_repair_hangs_twice_has_failed_with_the_reason(stage: Stage) -> None:
    async def play() -> None:
        stage.process = Process(stage.model, silent_seconds=0.5)
        case = stage.case("x")
        await asyncio.wait_for(stage.perform(case), 20)
        ((status, reason),) = stage.status(case)
        assert status == "failed"
        assert "was ended" in str(reason)
        assert stage.store.active("b") == []

    stage.script("hang")
    played(stage, play)


def test_a_worker_that_is_slow_but_alive_or_stands_still_for_a_completion_is_no_hung_one(
    stage: Stage,
) -> None:
    async def play() -> None:
        stage.process = Process(stage.model, silent_seconds=0.5)
        assert isinstance(await stage.process.run(teach("a"), lambda _: None), jobs.Report)
        job = asyncio.create_task(stage.process.run(teach("b"), lambda _: None))
        await asyncio.sleep(0.1)
        with stage.process.suspended():
            await asyncio.sleep(1.5)
        assert isinstance(await job, jobs.Report)

    stage.script("slow and alive", "slow")


def test_a_repair_ends_though_somebody_always_waits_for_the_model(stage: Stage) -> None:
    async def play() -> None:
        stage.process = Process(stage.model, still_seconds=0.3)
        await stage.process.run(teach("a"), lambda _: None)
        over = asyncio.Event()

        async def editor() -> None:
            while not over.is_set():
                with stage.process.suspended():
                    await asyncio.sleep(0.05)

        editors = [asyncio.create_task(editor()) for _ in range(3)]
        try:
            async with asyncio.timeout(20):
                report = await stage.process.run(teach("b"), lambda _: None)
        finally:
            over.set()
            await asyncio.gather(*editors)
        assert isinstance(report, jobs.Report)

    stage.script("solve", "slow")
    played(stage, play)


def test_a_share_of_the_time_is_all_that_a_worker_gets_beside_completions(stage: Stage) -> None:
    async def play() -> None:
        stage.process = Process(stage.model, still_seconds=1.0)
        await stage.process.run(teach("a"), lambda _: None)
        worker, stopped = psutil.Process(stage.process.pid), 0
        with stage.process.suspended():
            for _ in range(60):
                await asyncio.sleep(0.05)
                stopped += worker.status() == psutil.STATUS_STOPPED
        assert 20 <= stopped <= 50  # of 3 s: still for one, running for one, and so on

    stage.script("solve")
    played(stage, play)


def test_a_worker_stands_still_as_long_as_anybody_wants_it_to(stage: Stage) -> None:
    async def play() -> None:
        def state() -> str:
            return str(psutil.Process(stage.process.pid).status())

        with stage.process.suspended():
            job = asyncio.create_task(stage.process.run(teach("a"), lambda _: None))
            await asyncio.sleep(0.2)
            assert state() == psutil.STATUS_STOPPED  # though it was started only now
            with stage.process.suspended():
                pass
            await asyncio.sleep(0.05)
            assert state() == psutil.STATUS_STOPPED
            assert not job.done()
        assert isinstance(await job, jobs.Report)
        assert state() != psutil.STATUS_STOPPED

    stage.script("slow")
    played(stage, play)


def test_a_worker_is_not_made_to_stand_still_before_it_is_sure_to_die_with_the_server(stage: Stage) -> None:
    async def play() -> None:
        with stage.process.suspended():
            job = asyncio.create_task(stage.process.run(teach("a"), lambda _: None))
            while not stage.process.pid:
                await asyncio.sleep(0)
            with stage.process.suspended():
                assert psutil.Process(stage.process.pid).status() != psutil.STATUS_STOPPED
        await job

    stage.script("solve")
    played(stage, play)


def test_a_caller_who_gives_up_leaves_no_answer_behind_for_the_next_one(stage: Stage) -> None:
    async def play() -> None:
        begun = asyncio.Event()
        job = asyncio.create_task(stage.process.run(teach("a"), lambda _: begun.set()))
        await begun.wait()
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        answer = await stage.process.run(teach("b"), lambda _: None)
        assert isinstance(answer, jobs.Report)
        assert [case.id for case in answer.cases] == ["b"]

    stage.script("sleep", "solve")
    played(stage, play)


def test_a_worker_that_is_still_being_started_when_all_ends_ends_too(stage: Stage) -> None:
    async def play() -> None:
        asked = asyncio.create_task(stage.process.run(teach("a"), lambda _: None))
        await asyncio.sleep(0)  # it is under way, and there is no process yet
        assert stage.process.pid is None
        stage.process.close()
        with pytest.raises(WorkerError, match="the cases are kept"):
            await asyncio.wait_for(asked, 20)
        assert stage.process.pid is None

    stage.script("sleep")
    played(stage, play)


def test_a_server_ends_at_whatever_moment_of_the_birth_of_its_worker(tmp_path: Path) -> None:
    """asyncio waits for ever for a process whose start it has cancelled, unless it is told twice."""
    code = f"""
import asyncio, pathlib, psutil
from star_lsp import jobs
from star_lsp.process import Process
async def play(moments):
    process = Process(pathlib.Path({str(tmp_path)!r}))
    asked = asyncio.create_task(process.run(jobs.Job("r1", (), ()), lambda now: None))
    for _ in range(moments):
        await asyncio.sleep(0)
    assert not asked.done()
for moments in range(8):
    asyncio.run(play(moments))
_, alive = psutil.wait_procs(psutil.Process().children(), 5)
assert alive == [], alive
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert found.returncode == 0, found.stderr


def test_a_worker_that_is_ended_at_whatever_moment_of_its_birth_leaves_no_pipe_open(tmp_path: Path) -> None:
    """What a loop has not come to when it ends stays open; it was found in some test after this one."""

    async def play(moments: int) -> None:
        process = Process(tmp_path)
        asked = asyncio.create_task(process.run(jobs.Job("r1", (), ()), lambda now: None))
        asked.add_done_callback(lambda done: done.cancelled() or done.exception())
        for _ in range(moments):
            await asyncio.sleep(0)
        process.close()
        await process.end()

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for moments in range(14):
            asyncio.run(play(moments))
        gc.collect()
    assert [str(each.message) for each in found] == []


def test_a_closed_process_starts_no_worker(stage: Stage) -> None:
    async def play() -> None:
        stage.process.close()
        with pytest.raises(WorkerError, match="server is ending; the cases are kept"):
            await stage.process.run(teach("a"), lambda _: None)
        assert stage.process.pid is None

    played(stage, play)


# -- a repair, from the cases to the history


def test_a_solved_case_has_its_patch_in_the_history_when_the_repair_is_done(stage: Stage) -> None:
    async def play() -> None:
        case = stage.case("x")
        report = await stage.perform(case)
        assert isinstance(report, jobs.Report)
        (patch,) = stage.store.active("b")
        assert (patch.cases, patch.revision) == ((case.id,), "r")
        assert unsound(stage.store.patch_path(patch.id), patch.digest) is None
        assert stage.store.case(case.id).patch == patch.id
        assert [each.percent for each in stage.progress] == [0, 50]
        assert summary(report) == "solved in 3 steps, 1 s"

    stage.script("solve")
    played(stage, play)


def test_what_the_history_solves_must_hold(stage: Stage) -> None:
    async def play() -> None:
        first, second = stage.case("x"), stage.case("y")
        await stage.perform(first)
        (patch,) = stage.store.active("b")
        await stage.perform(second)
        job = stage.heard[-1]
        assert [each["id"] for each in job["teach"]] == [second.id]
        assert [each["id"] for each in job["hold"]] == [first.id]
        assert job["history"] == [str(stage.store.patch_path(patch.id))]

    stage.script("solve")
    played(stage, play)


def test_a_batch_repair_teaches_and_holds_all_from_the_base(stage: Stage) -> None:
    async def play() -> None:
        first, second, third = (stage.case(name) for name in "xyz")
        await stage.perform(first)
        await stage.perform(second)
        await stage.perform(second, third, from_base=True)
        job = stage.heard[-1]
        assert [each["id"] for each in job["teach"]] == [second.id, third.id, first.id]
        assert [each["id"] for each in job["hold"]] == [first.id, second.id]
        assert job["history"] == []
        (patch,) = stage.store.active("b")
        assert set(patch.cases) == {first.id, second.id, third.id}

    stage.script("solve")
    played(stage, play)


def test_a_new_fix_that_cannot_be_taught_leaves_the_old_one_of_its_place(stage: Stage) -> None:
    async def play() -> None:
        old, other = stage.case("x"), stage.case("y")
        await stage.perform(old, other)
        (before,) = stage.store.active("b")
        new, third = stage.case("x", "3"), stage.case("z")
        report = await stage.perform(new, third, from_base=True)
        assert isinstance(report, jobs.Report)
        taught = [[each["id"] for each in job["teach"]] for job in stage.heard[1:]]
        assert taught == [[new.id, third.id, other.id], [third.id, old.id, other.id]]
        assert stage.status(new, third) == [("failed", "Too hard."), ("solved", None)]
        assert stage.status(old, other) == [("solved", None), ("solved", None)]
        (patch,) = stage.store.active("b")
        assert set(patch.cases) == {old.id, other.id, third.id}
        # Alone, it changes nothing at all.
        newest = stage.case("x", "4")
        await stage.perform(newest, from_base=True)
        assert stage.status(newest, old) == [("failed", "Too hard."), ("solved", None)]
        assert stage.store.active("b") == [patch]
        assert patch.id != before.id
        assert [path.stem for path in stage.store.patches_folder.iterdir()].count(patch.id) == 1

    stage.script("solve", "all but the first", "solve", "all but the first")
    played(stage, play)


def test_each_new_fix_that_cannot_be_taught_leaves_the_old_one_of_its_place(stage: Stage) -> None:
    async def play() -> None:
        old = [stage.case(name) for name in "xy"]
        await stage.perform(*old)
        new = [stage.case(name, "3") for name in "xyz"]
        report = await stage.perform(*new, from_base=True)
        assert isinstance(report, jobs.Report)
        assert len(stage.heard) == 4, "one after the other was found to be in vain"
        assert [status for status, _ in stage.status(*new, *old)] == ["failed"] * 2 + ["solved"] * 3
        assert {case.id for case in report.cases} == {case.id for case in (*new, *old)}

    stage.script("solve", "all but the first", "all but the first", "solve")
    played(stage, play)


def test_of_two_fixes_for_one_place_only_the_newer_one_counts(stage: Stage) -> None:
    async def play() -> None:
        old, other = stage.case("x"), stage.case("y")
        await stage.perform(old)
        await stage.perform(other)
        new = stage.case("x", "3")
        await stage.perform(new)
        assert [each["id"] for each in stage.heard[-1]["hold"]] == [other.id]
        third = stage.case("z")
        await stage.perform(third)
        assert [each["id"] for each in stage.heard[-1]["hold"]] == [other.id, new.id]
        await stage.perform(third, from_base=True)
        assert {each["id"] for each in stage.heard[-1]["teach"]} == {third.id, other.id, new.id}
        assert stage.status(old, new) == [
            ("reverted", "Its place was flagged again, with another fix."),
            ("solved", None),
        ]

    stage.script("solve")
    played(stage, play)


def test_of_two_fixes_the_one_given_last_counts_though_the_clock_was_set_back_between(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        times = iter([2e9, 1e9, 1.5e9])
        monkeypatch.setattr(store.time, "time", lambda: next(times, 1.5e9))
        old = stage.case("x")
        await stage.perform(old)
        new = stage.case("x", "3")
        await stage.perform(new)
        await stage.perform(stage.case("z"))
        assert [each["id"] for each in stage.heard[-1]["hold"]] == [new.id]

    stage.script("solve")
    played(stage, play)


def test_what_a_repair_that_was_cut_off_has_left_is_put_right_by_the_next_one(stage: Stage) -> None:
    async def play() -> None:
        left, case = stage.case("x"), stage.case("y")
        stage.store.begin([left.id])
        await stage.perform(case)
        assert [status for status, _ in stage.status(left, case)] == ["pending", "solved"]

    stage.script("solve")
    played(stage, play)


def test_an_accepted_completion_is_watched_unless_its_place_is_flagged(stage: Stage) -> None:
    from star_lsp.store import Accepted

    async def play() -> None:
        stage.store.accept(Accepted("x = ", "\n", "1", ""), 9)
        stage.store.accept(Accepted("y = ", "\n", "1", ""), 9)
        await stage.perform(stage.case("x"))
        assert [each["prefix"] for each in stage.heard[-1]["accepted"]] == ["y = "]

    stage.script("solve")
    played(stage, play)


@pytest.mark.parametrize(
    ("acts", "expected"),
    [
        (["unsolved"], ("failed", "Too hard.")),
        (["fail"], ("failed", "No memory.")),
        (["already"], ("solved", "The model already wrote this; nothing had to change.")),
        (["die", "solve"], ("solved", None)),
        (["die", "die", "solve"], ("failed", None)),
    ],
)
def test_what_became_of_a_case_is_in_the_store(
    stage: Stage, acts: Sequence[str], expected: tuple[str, str | None]
) -> None:
    async def play() -> None:
        case = stage.case("x")
        await stage.perform(case)
        ((status, reason),) = stage.status(case)
        assert status == expected[0]
        if acts[:2] == ["die", "die"]:
            assert reason is not None
            assert reason.startswith("The repairing process ended with status 3")
        else:
            assert reason == expected[1]

    stage.script(*acts)
    played(stage, play)


@pytest.mark.parametrize("act", ["unsolved", "fail", "die"])
def test_a_case_that_a_patch_solves_stays_solved_when_repairing_it_again_fails(
    stage: Stage, act: str
) -> None:
    async def play() -> None:
        old, new = stage.case("x"), stage.case("y")
        await stage.perform(old)
        before = stage.store.active("b")
        await stage.perform(old, new, from_base=True)
        assert stage.store.active("b") == before
        ((first, _), (second, _)) = stage.status(old, new)
        assert (first, second) == ("solved", "failed")

    stage.script("solve", act)
    played(stage, play)


def test_a_revert_during_a_repair_has_it_done_again_without_what_was_reverted(stage: Stage) -> None:
    async def play() -> None:
        first, second = stage.case("x"), stage.case("y")
        await stage.perform(first)
        (patch,) = stage.store.active("b")

        def on_progress(now: jobs.Progress) -> None:
            if now.percent == 50 and len(stage.heard) == 2:
                take_back(stage.store, stage.store.active("b"), patch=patch.id)

        await stage.perform(second, on_progress=on_progress)
        assert [job["history"] for job in stage.heard[1:]] == [[str(stage.store.patch_path(patch.id))], []]
        (now,) = stage.store.active("b")
        assert now.cases == (second.id,)
        assert {path.stem for path in stage.store.patches_folder.iterdir()} == {patch.id, now.id}
        assert [status for status, _ in stage.status(first, second)] == ["reverted", "solved"]

    stage.script("solve")
    played(stage, play)


def test_a_model_that_was_exchanged_on_the_disk_is_said_and_its_patch_does_not_go_live(stage: Stage) -> None:
    async def play() -> None:
        case = stage.case("x")
        await stage.perform(case)
        ((status, reason),) = stage.status(case)
        assert status == "failed"
        assert reason is not None
        assert "exchanged on the disk" in reason
        assert stage.store.patches() == list(stage.store.patches_folder.iterdir()) == []

    stage.script("solve")
    (stage.model / "star-model.json").write_text('{"fingerprint": "another"}')
    played(stage, play)


def test_a_case_that_is_deleted_while_it_waits_is_left_out(stage: Stage) -> None:
    async def play() -> None:
        kept, gone = stage.case("x"), stage.case("y")
        stage.store.delete_case(gone.id)
        await stage.perform(gone, kept)
        assert [each["id"] for each in stage.heard[-1]["teach"]] == [kept.id]
        stage.store.put_back([kept.id], "pending")
        answer = await stage.perform(gone)
        assert isinstance(answer, jobs.Failed)
        assert answer.cancelled

    stage.script("solve")
    played(stage, play)


def test_a_repair_can_be_cancelled_while_another_process_repairs(stage: Stage) -> None:
    async def play() -> None:
        case = stage.case("x")
        stopping = False
        with FileLock(stage.store.path.with_name("repair.lock")):
            waiting = asyncio.create_task(stage.perform(case, cancelled=lambda: stopping))
            await asyncio.sleep(0.3)
            assert not waiting.done()
            stopping = True
            answer = await asyncio.wait_for(waiting, 2)
        assert isinstance(answer, jobs.Failed)
        assert answer.cancelled
        assert stage.status(case) == [("pending", None)]
        assert stage.heard == []

    stage.script("solve")
    played(stage, play)


def test_a_repair_waits_for_that_of_another_process(stage: Stage) -> None:
    async def play() -> None:
        case = stage.case("x")
        with FileLock(stage.store.path.with_name("repair.lock")):
            waiting = asyncio.create_task(stage.perform(case))
            await asyncio.sleep(0.3)
            assert stage.status(case) == [("pending", None)]
        assert isinstance(await asyncio.wait_for(waiting, 5), jobs.Report)

    stage.script("solve")
    played(stage, play)


def test_a_cancelled_repair_leaves_its_cases_as_they_were_and_the_lock_free(stage: Stage) -> None:
    async def play() -> None:
        old, new = stage.case("x"), stage.case("y")
        await stage.perform(old)
        asleep = asyncio.Event()
        both = asyncio.create_task(
            stage.perform(old, new, from_base=True, on_progress=lambda now: now.percent == 5 and asleep.set())
        )
        await asleep.wait()
        assert [status for status, _ in stage.status(old, new)] == ["repairing", "repairing"]
        stage.process.cancel()
        answer = await both
        assert isinstance(answer, jobs.Failed)
        assert answer.cancelled
        assert [status for status, _ in stage.status(old, new)] == ["solved", "pending"]
        task = asyncio.create_task(stage.perform(new))
        while stage.process.pid and len(stage.heard) < 3:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [status for status, _ in stage.status(old, new)] == ["solved", "pending"]
        with FileLock(stage.store.path.with_name("repair.lock"), timeout=0):
            pass

    stage.script("solve", "sleep", "sleep")
    played(stage, play)


def test_the_method_of_the_settings_is_that_of_the_job_and_named_with_the_patch(stage: Stage) -> None:
    async def play() -> None:
        settings, problems = read({"repair.method": "star"})
        assert problems == []
        await stage.perform(stage.case("x"), settings=settings)
        await stage.perform(stage.case("y"))
        assert [job["method"] for job in stage.heard] == ["star", "ours"]
        first, second = stage.store.active("b")
        assert first.verdict["asked"] == {"method": "star", "strength": "normal"}
        assert second.verdict["asked"]["method"] == "ours"

    stage.script("solve")
    played(stage, play)


def test_a_summary_gives_every_reason_once_with_its_cases_up_to_a_few() -> None:
    def report(*reasons: str | None) -> jobs.Report:
        cases = [
            jobs.Taught(f"c{number}", reason is None, "x", None, reason)
            for number, reason in enumerate(reasons)
        ]
        return jobs.Report("r", tuple(cases), 3, 1.0, "b")

    assert summary(report("Hard.")) == "0 of 1 solved. Hard."
    assert summary(report("Hard.", None, "Long.", "Hard.")) == "1 of 4 solved. c0, c3: Hard. c2: Long."
    assert summary(report(*"abcdef")).endswith("c3: d And 2 more; the cases name them.")
