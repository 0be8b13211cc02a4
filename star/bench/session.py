"""What a run measures with: the model, what is known of it, and where the results go."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from star.bench.data import Put
from star.bench.measure import Bystanders
from star.bench.methods import Kit, Method, Variant, grid
from star.bench.plan import OnProgress, Pace, Plan
from star.bench.results import Results
from star.gate import Limits, Sample
from star.model import CodeModel
from star.repair import Star, lowest_layer
from star.solve import Basis

__all__ = ["Bench", "Session", "about"]


@dataclass(frozen=True, slots=True)
class Bench:
    """The model, and what it is measured against."""

    model: CodeModel
    put: Put
    #: Unrelated code, on which nothing should move.
    unrelated: Sequence[Sample] = ()
    #: Token ids of everyday code that is neither taught nor measured, for methods that weigh by it.
    ordinary: Sequence[tuple[int, ...]] = ()
    #: What the gate of a lifelong run looks at; without limits there is no gate.
    gate: Sequence[Sample] = ()
    limits: Limits | None = None
    #: How many of how many programs run once the model, as it is now, has filled in a line.
    infilling: Callable[[CodeModel], tuple[int, int]] | None = None
    #: The variants of a method, by its name.
    grids: Callable[[str], Sequence[Variant]] = grid


class Session:
    """A bench, a plan and results, and what was made or found on the way."""

    def __init__(
        self,
        bench: Bench,
        plan: Plan,
        results: Results,
        on_progress: OnProgress,
        cancelled: Callable[[], bool],
    ) -> None:
        """Be ready to measure; nothing runs yet. The model must have no patch installed."""
        self.bench = bench
        self.model = bench.model
        self.plan = plan
        self.results = results
        self.cancelled = cancelled
        self.pace = Pace(on_progress)
        self.known = _Known(results)
        #: What lies below the default method's layers is kept; others are judged by whole passes.
        self.lowest = lowest_layer(bench.model, Star())
        self._kit = Kit(bench.model, bench.ordinary)
        self._made: dict[tuple[str, str], Method] = {}
        self._bystanders: Bystanders | None = None

    def method(self, variant: Variant) -> Method:
        """A variant ready to be called; what it needs is made once, and outside of any measurement."""
        key = (variant.name, str(dict(variant.settings)))
        if key not in self._made:
            self._made[key] = variant.make(self._kit)
        return self._made[key]

    @property
    def basis(self) -> Basis:
        """The semantic basis of the model."""
        return self._kit.basis

    @property
    def looks_beside(self) -> bool:
        """Whether unrelated code is looked at."""
        return bool(self.bench.unrelated) and "specificity" in self.plan.measures

    def read_unrelated(self) -> None:
        """Read unrelated code on the base; to be called while no patch is installed."""
        if self.looks_beside:
            self._bystanders = Bystanders(self.model, self.bench.unrelated, self.lowest, self.cancelled)

    def moved(self) -> dict[str, Any]:
        """How far the model, as it is now, is from the base on unrelated code."""
        if self._bystanders is None:
            return {"unchanged": None, "kl": None}
        seen = self._bystanders.moved(self.model, self.cancelled)
        return {"unchanged": seen.unchanged, "kl": seen.kl}


def about(variant: Variant) -> Mapping[str, Any]:
    """What every line of a variant says."""
    return {"method": variant.name, "settings": dict(variant.settings)}


class _Known(MutableMapping[str, Any]):
    """What the base writes where, kept with the results: a run that goes on need not find it again."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._found = {line["key"]: line["value"] for line in results.find(kind="known")}

    def __getitem__(self, key: str) -> Any:
        return self._found[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._found[key] = self._results.add({"kind": "known", "key": key, "value": value})["value"]

    def __delitem__(self, key: str) -> None:
        raise TypeError("what was found is not forgotten")

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)
