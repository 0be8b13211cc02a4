"""What the repairing process does with a job: one way to repair after another, until one passes the gate."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, replace
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from star.case import Case
from star.decode import write
from star.errors import Cancelled, StarError
from star.gate import Limits, Reading, Sample, Verdict, judge, read
from star.history import revision
from star.locate import layers_by_depth
from star.model import CodeModel
from star.patch import Patch, install, load
from star.repair import Budget, Result, Star, Step, repair
from star.solve import Basis
from star.stop import StopRule
from star_lsp import jobs, prompt
from star_lsp.regression import TEXTS

__all__ = ["METHODS", "Worker"]

log = logging.getLogger(__name__)

#: Readings are kept under so many histories: a repair and its revert go back and forth between two.
_HISTORIES = 4
#: What a repair strength means: how far ahead the expected tokens must be.
METHODS: Mapping[str, Star] = {
    "gentle": Star(margin=0.5),
    "normal": Star(),
    "strong": Star(margin=2.0, layers="2/4", ratio=1 / 8),
}


#: One way of repairing, as it came out, and what the gate said.
Attempt = tuple[Result, Verdict]


class Worker:
    """A model that is repaired, and what is known of it from job to job."""

    def __init__(self, folder: Path, out: BinaryIO) -> None:
        """Load the model in a folder; everything said goes to ``out``."""
        self._model = CodeModel.load(folder)
        self._layout = prompt.layout_of(self._model.token_id)
        self._basis = _basis(self._model, folder)
        self._out = out
        #: By the lowest layer that may change and the history that they were taken under, newest last.
        self._readings: dict[tuple[object, ...], dict[Sample, Reading]] = {}
        self._cancelled: set[str] = set()

    def cancel(self, job: str) -> None:
        """Have a job end at its next step, now or when its turn comes."""
        self._cancelled.add(job)

    def say(self, value: jobs.Progress | jobs.Report | jobs.Failed) -> None:
        """Send one message."""
        self._out.write(jobs.message(value))
        self._out.flush()

    def do(self, job: jobs.Job) -> None:
        """Try a job, and say what it came to, whatever happens."""
        try:
            self.say(self._report(job))
        except Cancelled as error:
            self.say(jobs.Failed(job.id, str(error), cancelled=True))
        except StarError as error:
            self.say(jobs.Failed(job.id, str(error)))
        except Exception as error:  # a full disk, no memory, a fault of ours: the next job may still do
            log.exception("job %s", job.id)
            self.say(jobs.Failed(job.id, f"The repair could not be finished ({error}); see the log."))

    # -- one job -----------------------------------------------------------------------------------

    def _report(self, job: jobs.Job) -> jobs.Report:
        started = time.monotonic()

        def cancelled() -> bool:
            return job.id in self._cancelled

        model = self._model
        history = [load(Path(path), model) for path in job.history]
        install(model, history)
        self._progress(job, "reading the cases", 2)
        refused: dict[str, str] = {}
        cases = [case for teach in job.teach if (case := self._case(job, teach, refused))]
        hold = [case for teach in job.hold if (case := self._case(job, teach, {}))]
        before = {case.id: write(model, case) for case in cases} if job.ask_before else {}
        if job.teach and not cases:
            return self._nothing(job, refused, started)
        samples = self._samples(job)
        lowest = min(layers_by_depth(model.depth, METHODS[job.strength].layers))
        old = self._read(history, samples, lowest, cancelled)
        if not cases:  # a job to be ready for the next one
            return self._nothing(job, refused, started)
        asked = {case.id for case in cases}
        attempts: list[Attempt] = []
        steps = 0
        until = time.monotonic() + job.max_seconds * len(cases)
        for method, together in _ways(METHODS[job.strength], cases, hold, attempts):
            result = repair(
                model,
                together,
                Budget(job.max_steps, max(until - time.monotonic(), 1.0)),
                lambda step: self._on_step(job, step),
                method=method,
                basis=self._basis,
                cancelled=cancelled,
            )
            steps += result.steps
            self._progress(job, "checking that nothing else moved", 80)
            install(model, [*history, result.patch])
            try:
                verdict = judge(model, hold, samples, old, Limits(job.min_unchanged, job.max_kl), cancelled)
            finally:
                install(model, history)
            attempts.append((result, verdict))
            if verdict.passed and _solved(result, asked):
                break

        def worth(attempt: Attempt) -> tuple[bool, int]:
            """Through the gate before anything else, then as many solved as can be."""
            solved = _solved(attempt[0], asked)
            return attempt[1].passed and solved > 0, solved

        best = max(attempts, key=worth)
        return self._finish(job, history, refused, before, best, steps, started)

    def _finish(
        self,
        job: jobs.Job,
        history: Sequence[Patch],
        refused: Mapping[str, str],
        before: Mapping[str, str],
        attempt: Attempt,
        steps: int,
        started: float,
    ) -> jobs.Report:
        result, verdict = attempt
        patch = result.patch
        outcomes = {outcome.case: outcome for outcome in result.outcomes}
        taught = []
        for teach in job.teach:
            outcome = outcomes.get(teach.id)
            if outcome is None:
                taught.append(jobs.Taught(teach.id, False, "", None, refused[teach.id]))
                continue
            reason = None
            if not outcome.solved:
                reason = (
                    f"After {steps} steps the model still writes {outcome.after[:80]!r}; "
                    "allow more steps, or a stronger repair."
                )
            elif not verdict.passed:
                reason = f"The gate refused the patch: {'; '.join(verdict.reasons)}."
            live = outcome.solved and verdict.passed
            taught.append(jobs.Taught(teach.id, live, outcome.after, before.get(teach.id), reason))
        live = verdict.passed and any(case.solved for case in taught) and bool(patch.rows)
        seconds = time.monotonic() - started
        about = _about(result, verdict, taught, steps, seconds)
        digest = None
        if live:
            digest = patch.digest
            if job.out:
                self._progress(job, "writing the patch", 98)
                Patch(patch.base, patch.rows, {**patch.manifest, "verdict": about}).save(Path(job.out))
        digests = [each.digest for each in history] + ([digest] if digest else [])
        return jobs.Report(
            job.id, tuple(taught), steps, seconds, self._model.fingerprint, digest,
            revision(self._model.fingerprint, digests), about,
        )  # fmt: skip

    def _nothing(self, job: jobs.Job, refused: Mapping[str, str], started: float) -> jobs.Report:
        taught = tuple(jobs.Taught(id_, False, "", None, reason) for id_, reason in refused.items())
        return jobs.Report(job.id, taught, 0, time.monotonic() - started, self._model.fingerprint)

    def _case(self, job: jobs.Job, teach: jobs.Teach, refused: dict[str, str]) -> Case | None:
        """A case as the server would put it to the model; why not goes to ``refused``."""
        limits = prompt.Limits(job.prefix_tokens, job.suffix_tokens)
        built = prompt.build(self._model.encode, self._layout, teach.prefix, teach.suffix, limits)
        stop = StopRule.at(built.prefix, built.suffix)
        shown = stop.trim(teach.expected.replace("\r\n", "\n"))
        tokens = len(self._model.encode_next(shown))
        if not built.ids:
            refused[teach.id] = "Nothing stands before this place; the model has nothing to go on."
        elif teach.expected.strip() and not shown:
            refused[teach.id] = (
                "Nothing of the expected text would be shown at this place; "
                "leave out what already stands after it."
            )
        elif tokens > job.max_tokens:
            refused[teach.id] = (
                f"The expected text has {tokens} tokens and a completion at most {job.max_tokens}; "
                "shorten it, or raise completion.maxTokens."
            )
        else:
            return Case(teach.id, built.ids, shown, stop)
        return None

    # -- the regression sample ----------------------------------------------------------------------

    def _samples(self, job: jobs.Job) -> list[Sample]:
        """The built-in texts and the accepted completions, each once."""
        model = self._model
        samples = [Sample(ids, 1) for text in TEXTS if len(ids := model.encode(text)) > 1]
        for accepted in job.accepted:
            case = self._case(job, accepted, {})
            if case and (text := model.encode_next(case.expected)):
                samples.append(Sample(case.prompt + text, len(case.prompt), accepted=True))
        return list(dict.fromkeys(samples))

    def _read(
        self,
        history: Sequence[Patch],
        samples: Sequence[Sample],
        lowest: int,
        cancelled: Callable[[], bool],
    ) -> list[Reading]:
        """Readings under the history that is installed, each remembered for the next job."""
        under = (lowest, *(patch.digest for patch in history))
        known = self._readings[under] = self._readings.pop(under, {})
        for sample in samples:
            if sample not in known:
                (known[sample],) = read(self._model, [sample], lowest, cancelled)
        self._readings[under] = {sample: known[sample] for sample in samples}
        while len(self._readings) > _HISTORIES:
            del self._readings[next(iter(self._readings))]
        return list(self._readings[under].values())

    # -- progress ------------------------------------------------------------------------------------

    def _on_step(self, job: jobs.Job, step: Step) -> None:
        percent = 10 + round(65 * min(1.0, step.number / max(job.max_steps, 1)))
        phase = f"step {step.number + 1}: {step.failures} of {step.targets} tokens to go"
        self._progress(job, phase, percent)

    def _progress(self, job: jobs.Job, phase: str, percent: int) -> None:
        Cancelled.check(lambda: job.id in self._cancelled)
        self.say(jobs.Progress(job.id, phase, percent))


def _ways(
    method: Star, cases: Sequence[Case], hold: Sequence[Case], attempts: Sequence[Attempt]
) -> Iterator[tuple[Star, Sequence[Case]]]:
    """The ways to try, one after another, by what stood against the last one.

    As asked; then with more neurons where the steps were not enough, together with the cases that
    broke, and more gently where too much else moved.
    """
    yield method, cases
    verdict = attempts[-1][1]
    if verdict.passed:
        yield replace(method, ratio=min(1.0, 4 * method.ratio)), cases
        return
    broken = set(verdict.broken) - {case.id for case in cases}
    if broken:
        yield method, [*cases, *(case for case in hold if case.id in broken)]
    yield replace(method, margin=method.margin / 4, rate=method.rate / 2), cases
    yield replace(method, margin=0.0, rate=method.rate / 4, ratio=method.ratio / 4), cases


def _solved(result: Result, asked: Set[str]) -> int:
    """How many of the cases that were asked for are solved."""
    return sum(outcome.solved for outcome in result.outcomes if outcome.case in asked)


def _about(
    result: Result,
    verdict: Verdict,
    taught: Sequence[jobs.Taught],
    steps: int,
    seconds: float,
) -> dict[str, object]:
    """The verdict as it is stored with the patch."""
    return {
        "cases": [asdict(case) for case in taught],
        "steps": steps,
        "seconds": round(seconds, 2),
        "exactBefore": result.exact_before,
        "exactAfter": result.exact_after,
        "sizeBytes": result.patch.size_bytes,
        "layers": [
            {
                "layer": rows.layer,
                "neurons": len(rows.neurons),
                "norm": float(rows.delta.norm()),
                "largest": float(rows.delta.abs().max()),
            }
            for rows in result.patch.rows
        ],
        "gate": {**asdict(verdict), "passed": verdict.passed},
    }


def _basis(model: CodeModel, folder: Path) -> Basis:
    """The semantic basis, its factor kept beside the model (seconds to compute, the same for ever)."""
    path = folder / "basis.safetensors"
    with contextlib.suppress(OSError, SafetensorError), safe_open(path, "pt") as file:
        if (file.metadata() or {}).get("fingerprint") == model.fingerprint:
            return Basis(model, file.get_tensor("factor"))
    basis = Basis(model)
    with contextlib.suppress(OSError):  # a read-only models folder only costs the seconds again
        part = path.with_name(f".{path.name}.{os.getpid()}")
        save_file({"factor": basis.factor.contiguous()}, part, {"fingerprint": model.fingerprint})
        part.replace(path)
    return basis
