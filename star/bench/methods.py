"""The methods that are compared, by name, each with the few settings among which tuning chooses."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property, partial
from statistics import fmean
from typing import Any, Literal, Protocol, runtime_checkable

from star.case import Case
from star.errors import BenchError
from star.locate import Layers, layers_by_depth
from star.model import CodeModel
from star.peers import ClosedForm, Gradient, Lora, Mint, Where, inverse, layers_at, second_moment
from star.repair import PUBLISHED, STRENGTHS, Star, repair
from star.result import Budget, Result, Step
from star.solve import Basis, Guard

__all__ = ["DEFAULT", "Kit", "Method", "Trial", "Variant", "grid", "named", "names", "star_variant", "tune"]


@runtime_checkable
class Method(Protocol):
    """One way to repair: a patch that makes the model write what the cases expect."""

    def __call__(
        self,
        model: CodeModel,
        cases: Sequence[Case],
        budget: Budget,
        on_step: Callable[[Step], None] | None = ...,
        *,
        cancelled: Callable[[], bool] = ...,
    ) -> Result:
        """What the repair came to; the model is left as it was found."""


class Kit:
    """What methods need of one model, made once and when it is first asked for."""

    def __init__(self, model: CodeModel, ordinary: Sequence[tuple[int, ...]] = ()) -> None:
        """Make things for ``model``; ``ordinary`` are token ids that are neither taught nor measured."""
        self.model = model
        self._ordinary = tuple(ordinary)

    @cached_property
    def basis(self) -> Basis:
        """The semantic basis (seconds)."""
        return Basis(self.model)

    @cached_property
    def guards(self) -> Mapping[int, Guard]:
        """What weighs the closed form by ordinary activations, where there are any (seconds, and memory)."""
        if not self._ordinary:
            return {}
        layers = layers_at(self.model.depth, ClosedForm().layers, ClosedForm().at)
        moments = second_moment(self.model, self._ordinary, layers)
        return {layer: inverse(moments.pop(layer)) for layer in layers}


@dataclass(frozen=True, slots=True)
class Variant:
    """A method with all its settings made."""

    #: What the method is called in tables.
    name: str
    #: What tells this variant from others of the same name; plain JSON.
    settings: Mapping[str, Any]
    make: Callable[[Kit], Method] = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Trial:
    """How a variant did on one tuning row."""

    solved: bool
    #: Mean KL divergence on unrelated code; None: not looked at.
    kl: float | None = None
    #: Share of the neighbours kept; None: there were none.
    kept: float | None = None


#: What is compared unless methods are named.
DEFAULT = ("ours", "star-published", "star-batch-1/4", "mint", "sgd", "adamw", "lora", "closed-form")

#: The published or usual rate comes first in each grid: untuned, it is the one that is used.
_RATES = (1e-2, 3e-3, 3e-2)
_PLACES: tuple[Where, ...] = ("last", "middle")
_LAYERS: tuple[Layers, ...] = ("all", "1/4", "one")
_RATIOS = {"1/4": 1 / 4, "1/16": 1 / 16, "1/64": 1 / 64}


def names() -> tuple[str, ...]:
    """Every method there is, ours first."""
    return tuple(_GRIDS)


def named(patterns: Iterable[str]) -> tuple[str, ...]:
    """The methods that some names or patterns (``star-batch-*``) mean, each once.

    Raises:
        BenchError: one means none.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        mine = [name for name in _GRIDS if fnmatchcase(name, pattern)]
        if not mine:
            known = ", ".join(name for name in _GRIDS if name in DEFAULT)
            raise BenchError(
                f"There is no method {pattern}; name one of {known}, or a pattern such as star-batch-*."
            )
        found |= dict.fromkeys(mine)
    return tuple(found)


def grid(name: str) -> tuple[Variant, ...]:
    """The variants of a method among which tuning chooses; one where there is nothing to choose.

    Raises:
        BenchError: no method has that name.
    """
    (name,) = named([name])
    return tuple(_GRIDS[name](name))


def tune(
    variants: Sequence[Variant],
    rows: Sequence[str],
    trial: Callable[[Variant, str], Trial],
) -> tuple[Variant, Mapping[str, Any]]:
    """The variant that solved most of some rows, then moved least else; and what was seen of each.

    Least moved is least mean KL where all variants were looked at so, else most neighbours kept. The
    first of equals is taken. With one variant, or no row, nothing is tried.
    """
    if len(variants) == 1 or not rows:
        return variants[0], {}
    trials = {index: [trial(variant, row) for row in rows] for index, variant in enumerate(variants)}
    moved = "kl" if all(each.kl is not None for tried in trials.values() for each in tried) else "kept"

    def worth(index: int) -> tuple[int, float]:
        tried = trials[index]
        return sum(each.solved for each in tried), _spared(tried, moved)

    best = max(trials, key=worth)  # the first of equals
    seen = [
        {
            "settings": dict(variants[index].settings),
            "solved": sum(each.solved for each in tried),
            "of": len(tried),
            moved: abs(_spared(tried, moved)),
        }
        for index, tried in trials.items()
    ]
    return variants[best], {"by": ["solved", moved], "seen": seen}


def _spared(tried: Sequence[Trial], moved: str) -> float:
    """How little else moved, the more the better."""
    if moved == "kl":
        kl = fmean(math.inf if each.kl is None else each.kl for each in tried)
        return -math.inf if math.isnan(kl) else -kl
    return fmean([each.kept for each in tried if each.kept is not None] or [0.0])


# -- the grids -------------------------------------------------------------------------------------------


def star_variant(name: str, method: Star, settings: Mapping[str, Any]) -> Variant:
    """STAR with the settings of ``method``; what it needs of the model is made ready by ``make``."""

    def make(kit: Kit) -> Method:
        if method.natural:
            kit.basis.learn(layers_by_depth(kit.model.depth, method.layers))
        return partial(repair, method=method, basis=kit.basis)

    return Variant(name, settings, make)


def _ours(name: str) -> Iterator[Variant]:
    """Our default, or another strength of it: ``ours-gentle``, ``ours-strong``."""
    yield star_variant(name, STRENGTHS[name.partition("-")[2] or "normal"], {})


def _published(name: str) -> Iterator[Variant]:
    yield star_variant(name, PUBLISHED, {"rate": PUBLISHED.rate, "stop": "ten steps"})


def _paper(
    mode: Literal["iterative", "batch"], layers: Layers, ratio: str | None
) -> Callable[[str], Iterator[Variant]]:
    """STAR as published, but for one thing: it stops like every other method, when all is solved."""
    method = replace(PUBLISHED, mode=mode, layers=layers, early_stop=True, steps=None)
    if ratio:
        method = replace(method, pattern="layerly", ratio=_RATIOS[ratio])

    def variants(name: str) -> Iterator[Variant]:
        for rate in _RATES:
            yield star_variant(name, replace(method, rate=rate), {"rate": rate})

    return variants


def _mint(name: str) -> Iterator[Variant]:
    for step in _RATES:
        yield Variant(name, {"step": step}, partial(_with_basis, Mint(step=step)))


def _with_basis(method: Mint, kit: Kit) -> Method:
    return partial(method, basis=kit.basis)


def _sgd(name: str) -> Iterator[Variant]:
    for rate in (1e-2, 3e-3, 3e-2, 1e-1):
        for at in _PLACES:
            yield _plain(name, Gradient("sgd", rate, at=at), {"rate": rate, "layers": at})


def _adamw(name: str) -> Iterator[Variant]:
    for rate in (1e-4, 3e-5, 3e-4):
        for at in _PLACES:
            yield _plain(name, Gradient("adamw", rate, at=at), {"rate": rate, "layers": at})


def _lora(name: str) -> Iterator[Variant]:
    for rate in (1e-3, 3e-4, 3e-3, 1e-2):
        yield _plain(name, Lora(rate=rate), {"rate": rate})


def _closed_form(name: str) -> Iterator[Variant]:
    for damping in (1e-2, 1e-3, 1e-1):
        yield Variant(name, {"damping": damping}, partial(_with_guards, ClosedForm(damping=damping)))


def _with_guards(method: ClosedForm, kit: Kit) -> Method:
    return partial(method, guards=kit.guards)


def _plain(name: str, method: Method, settings: Mapping[str, Any]) -> Variant:
    """A variant that needs nothing made."""
    return Variant(name, settings, lambda _kit: method)


_GRIDS: dict[str, Callable[[str], Iterable[Variant]]] = {
    "ours": _ours,
    "ours-gentle": _ours,
    "ours-strong": _ours,
    "star-published": _published,
    **{
        f"star-{mode}-{layers}" + (f"-layerly-{ratio}" if ratio else ""): _paper(mode, layers, ratio)
        for mode in ("iterative", "batch")
        for layers in _LAYERS
        for ratio in (None, *_RATIOS)
    },
    "mint": _mint,
    "sgd": _sgd,
    "adamw": _adamw,
    "lora": _lora,
    "closed-form": _closed_form,
}
