"""What the repairing process does with a job: one way to repair after another, until one passes the gate."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from star.case import Case
from star.decode import write
from star.errors import Cancelled, CaseError, PatchError, StarError
from star.fisher import Fisher
from star.gate import Limits, Reading, Sample, Verdict, judge, read, whole
from star.history import revision
from star.locate import layers_by_depth
from star.mend import Attempt, Guarded, mend, pairs
from star.model import CodeModel
from star.patch import Patch, install, installed, load
from star.repair import PUBLISHED, STRENGTHS, Star, lowest_layer
from star.result import Budget, Step
from star.solve import Basis, ordinary_code
from star.trace import Lesson, prepare
from star_lsp import jobs, prompt
from star_lsp.around import around
from star_lsp.comparing import compare
from star_lsp.put import Put
from star_lsp.regression import TEXTS

__all__ = ["Worker"]

log = logging.getLogger(__name__)

#: Readings are kept under so many histories: a repair and its revert go back and forth between two.
_HISTORIES = 5
#: What is read around siblings and neighbours when two histories are compared: it is many places.
_NEAR = prompt.Limits(384, 96)
#: That it is at work is said no more often.
_ALIVE_SECONDS = 1.0
#: What was computed of the semantic basis, beside the model's own files.
_BASIS = "basis.safetensors"


class Worker:
    """A model that is repaired, and what is known of it from job to job."""

    def __init__(self, folder: Path, out: BinaryIO) -> None:
        """Load the model in a folder; everything said goes to ``out``."""
        self._model = CodeModel.load(folder)
        self._layout = prompt.layout_of(self._model.token_id)
        self._folder = folder
        self._basis = _basis(self._model, folder)
        self._out = out
        #: By the lowest layer that may change and the history that they were taken under, newest last.
        self._readings: dict[tuple[object, ...], dict[Sample, Reading]] = {}
        #: The solved cases of the last job.
        self._lessons: dict[tuple[Case, int], Lesson] = {}
        self._cancelled: set[str] = set()
        self._said = 0.0

    def cancel(self, job: str) -> None:
        """Have a job end at its next step, now or when its turn comes."""
        self._cancelled.add(job)

    def say(self, value: jobs.Alive | jobs.Progress | jobs.Report | jobs.Failed) -> None:
        """Send one message."""
        self._said = time.monotonic()
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
            self.say(jobs.Failed(job.id, f"The repair could not be finished ({_told(error)}."))
        finally:
            self._cancelled.discard(job.id)

    # -- one job -----------------------------------------------------------------------------------

    def _report(self, job: jobs.Job) -> jobs.Report:
        started = time.monotonic()

        def cancelled() -> bool:
            if time.monotonic() - self._said > _ALIVE_SECONDS:  # whoever asks this is not hung
                self.say(jobs.Alive())
            return job.id in self._cancelled

        model, method = self._model, _method(job)
        history = [load(Path(path), model) for path in job.history]
        _refuse_altered(job, history)
        install(model, history)
        if job.compare is not None:
            return self._compared(job, job.compare, started, cancelled)
        self._progress(job, "reading the cases", 2)
        refused: dict[str, str] = {}
        cases = [case for teach in job.teach if (case := self._case(job, teach, refused))]
        held = [case for teach in job.hold if (case := self._case(job, teach, {}))]
        cases, held = _without_pairs(cases, held, refused)
        before = {case.id: write(model, case) for case in cases} if job.ask_before else {}
        if job.teach and not cases:
            return self._nothing(job, refused, started)
        lowest = min(
            lowest_layer(model, method), *(rows.layer for each in history for rows in each.rows), model.depth
        )
        hold = self._held(held, lowest, cancelled)
        if job.check:
            return self._checked(job, hold, started, cancelled)
        self._learn(job, method, cancelled)
        samples = self._samples(job)
        old = self._read(history, samples, lowest, cancelled)
        if not cases:  # a job to be ready for the next one
            return self._nothing(job, refused, started)
        attempts = mend(
            model,
            cases,
            Guarded(hold, samples, old, Limits(job.min_unchanged, job.max_kl)),
            Budget(job.max_steps, job.max_seconds * len(cases)),
            method=method,
            basis=self._basis,
            on_step=lambda step: self._on_step(job, step),
            on_judge=lambda: self._progress(job, "checking that nothing else moved", 80),
            cancelled=cancelled,
        )
        return self._finish(job, history, refused, before, attempts, started)

    def _learn(self, job: jobs.Job, method: Star, cancelled: Callable[[], bool]) -> None:
        """Have what the method needs to know of ordinary code: once for a model, beside which it is kept."""
        layers = layers_by_depth(self._model.depth, method.layers)
        if method.natural and not self._basis.ordinary.keys() >= set(layers):
            self._progress(job, "reading ordinary code, once for this model", 3)
            self._basis.learn(layers, cancelled)
            _keep(self._basis, self._model, self._folder)

    def _checked(
        self, job: jobs.Job, hold: Sequence[Lesson], started: float, cancelled: Callable[[], bool]
    ) -> jobs.Report:
        """Which of the cases to hold are no longer solved."""
        self._progress(job, "checking that earlier cases are still solved", 10)
        verdict = judge(self._model, hold, [], [], Limits(job.min_unchanged, job.max_kl), cancelled)
        return replace(self._nothing(job, {}, started), verdict={"gate": _gate(verdict)})

    def _compared(
        self, job: jobs.Job, with_: Sequence[str], started: float, cancelled: Callable[[], bool]
    ) -> jobs.Report:
        """What is written around the cases under the history and under another one."""
        self._progress(job, "looking for places", 1)
        model = self._model

        def nearer(prefix: str, suffix: str) -> tuple[str, str]:
            built = prompt.build(model.encode, self._layout, prefix, suffix, _NEAR)
            return built.prefix, built.suffix

        def on_spot(phase: str, share: float) -> None:
            self._progress(job, phase, 2 + round(97 * share))

        compared = compare(
            model,
            around(job.teach, self._put(job), nearer),
            model.patches,
            [load(Path(path), model) for path in with_],
            job.max_seconds * len(job.teach),
            on_spot,
            cancelled,
        )
        return replace(self._nothing(job, {}, started), compared=compared)

    def _finish(
        self,
        job: jobs.Job,
        history: Sequence[Patch],
        refused: Mapping[str, str],
        before: Mapping[str, str],
        attempts: Sequence[Attempt],
        started: float,
    ) -> jobs.Report:
        """The report on the last attempt, which is the best."""
        result, verdict = attempts[-1].result, attempts[-1].verdict
        steps = sum(attempt.result.steps for attempt in attempts)
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
                    f"After {steps} step{'s' * (steps != 1)} the model still writes {outcome.after[:80]!r}; "
                    "allow more steps, or a stronger repair."
                )
            elif not verdict.passed:
                reason = f"The gate refused the patch: {'; '.join(verdict.reasons)}."
            live = outcome.solved and verdict.passed
            taught.append(jobs.Taught(teach.id, live, outcome.after, before.get(teach.id), reason))
        live = verdict.passed and any(case.solved for case in taught) and bool(patch.rows)
        seconds = time.monotonic() - started
        about = _about(attempts, taught, steps, seconds)
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

    def _put(self, job: jobs.Job) -> Put:
        model, limits = self._model, prompt.Limits(job.prefix_tokens, job.suffix_tokens)
        return Put(model.encode, model.encode_next, model.start_ids, self._layout, limits, job.max_tokens)

    def _case(self, job: jobs.Job, teach: jobs.Teach, refused: dict[str, str]) -> Case | None:
        """A case as the server would put it to the model; why not goes to ``refused``."""
        try:
            return self._put(job)(teach.id, teach.prefix, teach.suffix, teach.expected)
        except CaseError as error:
            refused[teach.id] = str(error)
            return None

    def _held(self, cases: Sequence[Case], lowest: int, cancelled: Callable[[], bool]) -> list[Lesson]:
        """Solved cases as lessons, each prepared once: what lies below the repairs never changes."""
        known, self._lessons = self._lessons, {}
        for case in cases:
            Cancelled.check(cancelled)
            key = (case, lowest)
            self._lessons[key] = known[key] if key in known else prepare(self._model, [case], lowest)[0]
        return list(self._lessons.values())

    # -- the regression sample ----------------------------------------------------------------------

    def _samples(self, job: jobs.Job) -> list[Sample]:
        """The built-in texts and the accepted completions, each once."""
        model = self._model
        samples = whole(model, TEXTS)
        for accepted in job.accepted:
            case = self._case(job, accepted, {})
            if case and (text := model.encode_next(case.written)):
                samples.append(
                    Sample(case.prompt + text, len(case.prompt), accepted=True, healed=case.healed)
                )
        return list(dict.fromkeys(samples))

    def _read(
        self,
        history: Sequence[Patch],
        samples: Sequence[Sample],
        lowest: int,
        cancelled: Callable[[], bool],
    ) -> list[Reading]:
        """Readings of the samples, each remembered for the next job.

        What the developer accepted is read under the history that is installed, for it was accepted under
        that; the built-in texts under the base, so that many small changes do not add up unseen.
        """
        base = self._readings_under([], [each for each in samples if not each.accepted], lowest, cancelled)
        here = self._readings_under(history, [each for each in samples if each.accepted], lowest, cancelled)
        return [(here if each.accepted else base)[each] for each in samples]

    def _readings_under(
        self,
        history: Sequence[Patch],
        samples: Sequence[Sample],
        lowest: int,
        cancelled: Callable[[], bool],
    ) -> dict[Sample, Reading]:
        if not samples:
            return {}
        under = (lowest, samples[0].accepted, *(patch.digest for patch in history))
        known = self._readings[under] = self._readings.pop(under, {})
        if missing := [sample for sample in samples if sample not in known]:
            with installed(self._model, history):
                for sample in missing:
                    (known[sample],) = read(self._model, [sample], lowest, cancelled)
        self._readings[under] = {sample: known[sample] for sample in samples}
        while len(self._readings) > _HISTORIES:
            del self._readings[next(iter(self._readings))]
        return self._readings[under]

    # -- progress ------------------------------------------------------------------------------------

    def _on_step(self, job: jobs.Job, step: Step) -> None:
        percent = 10 + round(65 * min(1.0, step.number / max(job.max_steps, 1)))
        phase = f"step {step.number + 1}: {step.failures} of {step.targets} tokens to go"
        self._progress(job, phase, percent)

    def _progress(self, job: jobs.Job, phase: str, percent: int) -> None:
        Cancelled.check(lambda: job.id in self._cancelled)
        self.say(jobs.Progress(job.id, phase, percent))


def _refuse_altered(job: jobs.Job, history: Sequence[Patch]) -> None:
    """Go on only with the very patches that went live.

    Raises:
        PatchError: a file has another one.
    """
    for path, digest, patch in zip(job.history, job.digests, history, strict=False):
        if patch.digest != digest:
            raise PatchError(
                f"The patch {Path(path).name} is not the one that went live; restart star-lsp, which takes "
                "it out of the history, then repair again."
            )


def _told(error: Exception) -> str:
    """What went wrong and what to do, up to the full stop."""
    what = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    if isinstance(error, OSError):
        return f"{error.strerror or what}); make room on the disk or mend its permissions, then repair again"
    if isinstance(error, MemoryError) or "allocate memory" in what or "alloc" in type(error).__name__:
        return f"{what or 'no memory'}); there is too little memory, free some, then repair again"
    return f"{what}); see the log"


def _method(job: jobs.Job) -> Star:
    """How a job is to be done."""
    return PUBLISHED if job.method == "star" else STRENGTHS[job.strength]


def _without_pairs(
    cases: Sequence[Case], held: Sequence[Case], refused: dict[str, str]
) -> tuple[list[Case], list[Case]]:
    """The cases to teach and to hold that contradict no other; why cases are left out goes to ``refused``."""
    asked = {case.id for case in cases}
    for id_, other in pairs([*cases, *(case for case in held if case.id not in asked)]).items():
        if id_ in asked:
            refused[id_] = (
                f"It contradicts case {other}: another text is expected at the same place; "
                "delete or revert one of the two."
            )
    return [case for case in cases if case.id not in refused], [
        case for case in held if case.id not in refused
    ]


def _gate(verdict: Verdict) -> dict[str, object]:
    return {**asdict(verdict), "passed": verdict.passed}


def _about(
    attempts: Sequence[Attempt],
    taught: Sequence[jobs.Taught],
    steps: int,
    seconds: float,
) -> dict[str, object]:
    """The verdict as it is stored with the patch; what was tried in vain before is named too."""
    result = attempts[-1].result
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
                "norm": float(delta.norm()),
                "largest": float(delta.abs().max()),
            }
            for rows in result.patch.rows
            for delta in (rows.delta,)  # of factors it is made anew each time
        ],
        "gate": _gate(attempts[-1].verdict),
        "method": asdict(attempts[-1].method),
        "attempts": [
            {
                "method": asdict(each.method),
                "steps": each.result.steps,
                "solved": sum(outcome.solved for outcome in each.result.outcomes),
                "cases": len(each.result.outcomes),
                "passed": each.verdict.passed,
                "reasons": list(each.verdict.reasons),
            }
            for each in attempts[:-1]
        ],
    }


def _basis(model: CodeModel, folder: Path) -> Basis:
    """The semantic basis, what was computed of it before read from beside the model."""
    with contextlib.suppress(OSError, SafetensorError), safe_open(folder / _BASIS, "pt") as file:
        about = file.metadata() or {}
        if about.get("fingerprint") == model.fingerprint:
            names = sorted(file.keys()) if about.get("ordinary") == ordinary_code(model) else ()
            layers = [name.removesuffix(".inputs") for name in names if name.endswith(".inputs")]
            ordinary = {
                int(layer): Fisher(file.get_tensor(f"{layer}.inputs"), file.get_tensor(f"{layer}.outputs"))
                for layer in layers
                if layer.isdigit()
            }
            return Basis(model, file.get_tensor("factor"), ordinary)
    basis = Basis(model)
    _keep(basis, model, folder)
    return basis


def _keep(basis: Basis, model: CodeModel, folder: Path) -> None:
    """Write a basis beside its model: it takes seconds to compute, and is the same for the same texts."""
    path = folder / _BASIS
    part = path.with_name(f".{path.name}.{os.getpid()}")
    ordinary = {
        f"{layer}.{name}": side
        for layer, each in basis.ordinary.items()
        for name, side in (("inputs", each.inputs), ("outputs", each.outputs))
    }
    # A models folder that is read-only or full only costs the seconds again.
    with contextlib.suppress(OSError, SafetensorError):
        about = {"fingerprint": model.fingerprint, "ordinary": ordinary_code(model)}
        save_file({"factor": basis.factor.contiguous(), **ordinary}, part, about)
        part.replace(path)
    with contextlib.suppress(OSError):
        part.unlink(missing_ok=True)
