"""How sure a figure is: bootstrap intervals of means, of ratios of sums, and of paired differences."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

__all__ = ["Interval", "difference", "mean", "ratio"]

#: Resamples; a percentile at 2.5 % is then settled to about a tenth of the interval's width.
_DRAWS = 2_000
#: As many numbers are drawn at once; a long run's rows would not fit otherwise.
_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure, and where it would lie in 95 of 100 runs on other rows of the same kind."""

    value: float
    low: float
    high: float
    #: Rows it was made of.
    count: int


def mean(values: Sequence[float], seed: int = 0) -> Interval:
    """The mean of ``values`` (at least one)."""
    given = _array(values)
    return _interval(len(given), seed, given.mean(), lambda rows: given[rows].mean(-1))


def ratio(numerators: Sequence[float], denominators: Sequence[float], seed: int = 0) -> Interval:
    """The sum of ``numerators`` by the sum of ``denominators``, a row of both drawn together.

    The right mean where rows count differently: siblings won of siblings that were wrong, seconds of one
    method by seconds of another. The denominators are not negative and not all zero; draws that have none
    but zeros say nothing and are left out.
    """
    over, under = _array(numerators), _array(denominators)
    if len(over) != len(under):
        raise ValueError(f"{len(over)} numerators have {len(under)} denominators")
    if not under.sum() > 0:
        raise ValueError("the denominators add up to nothing")

    def of(rows: Int[ndarray, "m n"]) -> Float[ndarray, " k"]:
        sums = under[rows].sum(-1)
        told = sums > 0
        quotients: Float[ndarray, " k"] = over[rows].sum(-1)[told] / sums[told]
        return quotients

    return _interval(len(over), seed, over.sum() / under.sum(), of)


def difference(left: Sequence[float], right: Sequence[float], seed: int = 0) -> Interval:
    """The mean of ``left − right``, where both were seen on the same rows in the same order."""
    if len(left) != len(right):
        raise ValueError(f"{len(left)} rows cannot be paired with {len(right)}")
    return mean((_array(left) - _array(right)).tolist(), seed)


def _array(values: Sequence[float]) -> Float[ndarray, " n"]:
    if not len(values):
        raise ValueError("there is no row to make a figure of")
    return np.asarray(values, dtype=np.float64)


def _interval(
    count: int,
    seed: int,
    value: float,
    statistic: Callable[[Int[ndarray, "m n"]], Float[ndarray, " k"]],
) -> Interval:
    """Percentile bootstrap: the statistic of rows drawn with replacement, over and over."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _AT_ONCE // count)
    parts = []
    for begin in range(0, _DRAWS, at_once):
        draws = min(at_once, _DRAWS - begin)
        parts.append(statistic(generator.integers(0, count, (draws, count))))
    low, high = np.percentile(np.concatenate(parts), [2.5, 97.5])
    return Interval(float(value), float(low), float(high), count)
