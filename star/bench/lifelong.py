"""Repairs one after another on one model, each on top of those before, and what they leave standing."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from star.bench.methods import Method
from star.bench.results import Results
from star.case import Case
from star.errors import BenchError, Cancelled
from star.gate import Limits, Sample, judge, read
from star.mend import Guarded, mend
from star.model import CodeModel
from star.patch import Patch, install, installed, load
from star.repair import Star, lowest_layer
from star.result import Budget, outcome
from star.solve import Basis
from star.trace import Lesson, prepare

__all__ = ["CHECKPOINTS", "LifelongRun", "NextRepair", "Repaired", "mended", "on_top"]

#: The model is looked at after so many repairs, and after the last.
CHECKPOINTS = (1, 10, 50, 100, 200)
#: A repair as the server does it ends after so many seconds for each of its cases (`repair.maxSeconds`).
_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Repaired:
    """What one repair of a lifelong run came to."""

    #: All patches that are active now, in order; what was there before when nothing went live.
    history: tuple[Patch, ...]
    live: bool
    steps: int = 0
    #: Why it did not go live.
    reasons: tuple[str, ...] = ()
    #: How many of the cases are solved, when it went live.
    solved: int = 1


#: Repairs some cases on top of a history, whose cases should stay solved. The history is installed when it
#: is called; what is installed when it returns does not matter.
NextRepair = Callable[[tuple[Patch, ...], Sequence[Case], Sequence[Case]], Repaired]

#: What is found when one looks at the model after so many of the cases.
Look = Callable[[int], Mapping[str, Any]]


def on_top(
    model: CodeModel,
    method: Method,
    budget: Budget,
    samples: Sequence[Sample],
    limits: Limits | None,
    cancelled: Callable[[], bool] = lambda: False,
) -> NextRepair:
    """The plain way: one repair on top of all, and then the gate; ``limits=None`` leaves the gate out."""

    def repaired(history: tuple[Patch, ...], earlier: Sequence[Case], cases: Sequence[Case]) -> Repaired:
        before = read(model, samples, cancelled=cancelled) if limits else []
        result = method(model, cases, budget, cancelled=cancelled)
        after = (*history, result.patch) if result.patch.rows else history
        if limits is None:
            return Repaired(after, True, result.steps)
        if not result.solved:
            return Repaired(history, False, result.steps, ("not solved within the budget",))
        install(model, after)
        verdict = judge(model, prepare(model, earlier) if earlier else [], samples, before, limits, cancelled)
        if not verdict.passed:
            return Repaired(history, False, result.steps, verdict.reasons)
        return Repaired(after, True, result.steps)

    return repaired


def mended(
    model: CodeModel,
    budget: Budget,
    samples: Sequence[Sample],
    limits: Limits,
    *,
    method: Star = Star(),
    basis: Basis | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> NextRepair:
    """As the server does it: one attempt after another until the gate lets one through.

    The samples are read on the base, so that many small changes do not add up unseen; what lies below
    the repaired layers is run once for each sample and each case.
    """
    lowest = lowest_layer(model, method)
    with installed(model, ()):
        before = read(model, samples, lowest, cancelled)
    lessons: dict[Case, Lesson] = {}

    def repaired(history: tuple[Patch, ...], earlier: Sequence[Case], cases: Sequence[Case]) -> Repaired:
        for each in earlier:
            if each not in lessons:
                (lessons[each],) = prepare(model, [each], lowest)
        guarded = Guarded([lessons[each] for each in earlier], samples, before, limits)
        shared = replace(budget, seconds=min(budget.seconds, _SECONDS * len(cases)))
        attempts = mend(model, cases, guarded, shared, method=method, basis=basis, cancelled=cancelled)
        best, steps = attempts[-1], sum(each.result.steps for each in attempts)
        solved = best.solved({case.id for case in cases})
        if not best.verdict.passed or not solved:
            return Repaired(history, False, steps, best.verdict.reasons or ("not solved within the budget",))
        patch = best.result.patch
        return Repaired((*history, patch) if patch.rows else history, True, steps, solved=solved)

    return repaired


@dataclass(slots=True)
class LifelongRun:
    """A method's repairs of some cases in turn; every one is on disk before the next begins."""

    model: CodeModel
    results: Results
    #: What the method is called, and its settings, in every line.
    method: str
    settings: Mapping[str, Any]
    cases: Sequence[Case]
    repair: NextRepair
    look: Look
    #: What surrounds each repair, by its number from 1.
    doing: Callable[[int], AbstractContextManager[Any]] = lambda _: nullcontext()
    cancelled: Callable[[], bool] = lambda: False
    _history: tuple[Patch, ...] = field(default=(), init=False)
    #: The files of the patches that are active, by digest.
    _names: dict[str, str] = field(default_factory=dict, init=False)

    @property
    def folder(self) -> Path:
        """Where the patches are kept."""
        return self.results.folder / "lifelong" / self.method.replace("/", "of")

    def go(self) -> None:
        """Repair all cases, from where an earlier try was cut off. No patch is installed when it ends.

        Raises:
            Cancelled: between two passes; what was finished is kept.
            BenchError: patches cannot be kept, or those that were kept are gone.
        """
        done = list(self.results.find(kind="lifelong-step", method=self.method))
        self._history = tuple(self._load(str(name)) for name in done[-1]["history"]) if done else ()
        live = [case for case, line in zip(self.cases, done, strict=False) if line["live"]]
        stops = {*(count for count in CHECKPOINTS if count < len(self.cases)), len(self.cases)}
        try:
            install(self.model, self._history)
            for number, case in enumerate(self.cases, 1):
                if number > len(done):
                    Cancelled.check(self.cancelled)
                    with self.doing(number):
                        if self._one(number, case, live):
                            live.append(case)
                looked = self.results.first(kind="lifelong", method=self.method, repairs=number)
                # A checkpoint is looked at before the next repair is begun, so only the last can be missing.
                if number in stops and looked is None and number >= len(done):
                    self._checkpoint(number)
        finally:
            install(self.model, ())

    def _one(self, number: int, case: Case, live: Sequence[Case]) -> bool:
        """Repair one case; whether it went live."""
        started = time.monotonic()
        now = self.repair(self._history, live, [case])
        seconds = time.monotonic() - started
        self._keep(number, now.history)
        install(self.model, now.history)
        self.results.add(
            {
                "kind": "lifelong-step", "method": self.method, "settings": dict(self.settings),
                "number": number, "case": case.id, "live": now.live, "steps": now.steps, "seconds": seconds,
                "reasons": list(now.reasons), "history": [self._names[each.digest] for each in now.history],
            }
        )  # fmt: skip
        self._history = now.history
        self._sweep()
        return now.live

    def _checkpoint(self, number: int) -> None:
        """Look at the model after so many repairs."""
        solved = 0
        for case in self.cases[:number]:
            Cancelled.check(self.cancelled)
            solved += outcome(self.model, case).solved
        found = self.look(number)
        steps = list(self.results.find(kind="lifelong-step", method=self.method))
        self.results.add(
            {
                "kind": "lifelong", "method": self.method, "settings": dict(self.settings),
                "repairs": number, "solved": [solved, number], "live": sum(line["live"] for line in steps),
                **found, "seconds": sum(line["seconds"] for line in steps),
                "patchBytes": sum(patch.size_bytes for patch in self._history),
            }
        )  # fmt: skip

    # -- patches on disk ---------------------------------------------------------------------------------

    def _load(self, name: str) -> Patch:
        path = self.folder / name
        if not path.exists():
            raise BenchError(f"{path} is gone, without which this run cannot go on; begin anew with --fresh.")
        patch = load(path, self.model)
        self._names[patch.digest] = name
        return patch

    def _keep(self, number: int, history: Sequence[Patch]) -> None:
        """Put the patches of a history that are new on disk."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for index, patch in enumerate(history):
                if patch.digest not in self._names:
                    name = f"{number:03}-{index:03}.safetensors"
                    patch.save(self.folder / name)
                    self._names[patch.digest] = name
        except OSError as error:
            raise BenchError(
                f"{self.folder} cannot be written ({error.strerror}); make room there."
            ) from error

    def _sweep(self) -> None:
        """Take patches off disk that are in the history no more."""
        active = {patch.digest for patch in self._history}
        for digest in [each for each in self._names if each not in active]:
            (self.folder / self._names.pop(digest)).unlink(missing_ok=True)
