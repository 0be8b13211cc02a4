"""Intervals, against what is known of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from star.bench.stats import difference, mean, ratio

few = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30)
FAST = settings(max_examples=40, deadline=None)


def test_equal_values_leave_no_doubt() -> None:
    found = mean([3.0] * 7)
    assert (found.value, found.low, found.high, found.count) == (3.0, 3.0, 3.0, 7)


def test_the_interval_of_a_mean_is_that_of_the_normal_law_when_rows_are_many() -> None:
    values = np.random.default_rng(5).normal(10.0, 2.0, 400)
    found = mean(values.tolist())
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_intervals_hold_the_truth_about_95_times_in_100() -> None:
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        found = mean(generator.exponential(1.0, 60).tolist())
        held += found.low <= 1.0 <= found.high
    assert 0.88 <= held / 200 <= 0.99


def test_a_ratio_is_of_the_sums_and_not_a_mean_of_ratios() -> None:
    assert ratio([1, 8], [2, 8]).value == pytest.approx(0.9)
    alike = ratio([1, 2, 3], [2, 4, 6])
    assert (alike.low, alike.high) == (0.5, 0.5)


def test_rows_that_had_nothing_to_win_say_nothing() -> None:
    found = ratio([0, 0, 1], [0, 0, 2])
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_a_paired_difference_is_surer_than_two_means() -> None:
    generator = np.random.default_rng(2)
    hardness = generator.normal(0, 10, 50)
    left, right = (hardness + 1).tolist(), hardness.tolist()
    found = difference(left, right)
    assert found.value == pytest.approx(1.0)
    assert found.high - found.low < 1e-9 < mean(left).high - mean(left).low


def test_the_same_rows_and_seed_give_the_same_interval_and_another_seed_another() -> None:
    values = [1.0, 2.0, 5.0, 9.0, 4.0, 8.0, 2.5]
    assert mean(values) == mean(values)
    assert mean(values, seed=1) != mean(values)


def test_nothing_and_what_cannot_be_paired_are_refused() -> None:
    with pytest.raises(ValueError, match="no row"):
        mean([])
    with pytest.raises(ValueError, match="add up to nothing"):
        ratio([0.0], [0.0])
    with pytest.raises(ValueError, match="denominators"):
        ratio([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="paired"):
        difference([1.0], [1.0, 2.0])


@FAST
@given(few)
def test_the_interval_lies_within_what_was_seen(values: list[float]) -> None:
    found = mean(values)
    slack = 1e-9 * max(1.0, *map(abs, values))
    assert min(values) - slack <= found.low <= found.high <= max(values) + slack
    assert found.value == pytest.approx(float(np.mean(values)))


@FAST
@given(few, st.floats(-100, 100))
def test_moving_every_row_moves_the_interval_by_as_much(values: list[float], by: float) -> None:
    here, there = mean(values), mean([value + by for value in values])
    assert there.low - here.low == pytest.approx(by, abs=1e-6)
    assert there.high - here.high == pytest.approx(by, abs=1e-6)


@FAST
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_a_share_lies_between_none_and_all(rows: list[tuple[int, int]]) -> None:
    won = [min(some, of) for some, of in rows]
    of = [each for _, each in rows]
    if sum(of):
        found = ratio(won, of)
        assert 0.0 <= found.low <= found.value <= found.high <= 1.0 or 0.0 <= found.low <= found.high <= 1.0
