"""A repair is tried one way after another, and what it must leave standing is held."""

import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from star import mend as module
from star.case import Case
from star.errors import Cancelled
from star.gate import Limits, Sample, read
from star.mend import Guarded, mend, pairs
from star.model import CodeModel
from star.patch import install
from star.repair import Star, lowest_layer
from star.result import Budget, Result
from star.trace import prepare
from tests import tiny

STRONG = Star(layers="2/4", pattern="none", margin=0.1)
SAMPLES = [Sample(tuple(range(40, 60)), 1)]
ALL = Limits(0.0, 1e9)
NONE = Limits(1.0, 0.0)


@pytest.fixture(scope="module")
def one() -> CodeModel:
    return tiny.model("qwen2")


def _guarded(model: CodeModel, limits: Limits, hold: list[Case] | None = None) -> Guarded:
    lowest = lowest_layer(model, STRONG)
    lessons = prepare(model, hold, lowest) if hold else ()
    return Guarded(lessons, SAMPLES, read(model, SAMPLES, lowest), limits)


def test_the_first_way_that_solves_and_passes_is_the_last_that_is_tried(one: CodeModel) -> None:
    (attempt,) = mend(one, [tiny.case(one)], _guarded(one, ALL), Budget(60), method=STRONG)
    assert attempt.verdict.passed
    assert attempt.result.solved
    assert attempt.method == STRONG


@pytest.mark.process
def test_what_the_gate_takes_is_not_taken_from_the_next_attempt(
    one: CodeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    now = 0.0
    real = module.repair

    def repair(model: CodeModel, cases: Sequence[Case], budget: Budget, *args: Any, **named: Any) -> Result:
        nonlocal now
        given.append(budget.seconds)
        now += 10
        return real(model, cases, replace(budget, seconds=math.inf), *args, **named)

    def gate() -> None:
        nonlocal now
        now += 1000

    monkeypatch.setattr(module, "repair", repair)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    cases = [tiny.case(one)]
    mend(one, cases, _guarded(one, NONE), Budget(60, 100), method=STRONG, on_judge=gate)
    assert given == [100 - 10 * number for number in range(len(given))]
    assert len(given) > 1


@pytest.mark.process
def test_a_refused_repair_is_made_more_gently_and_every_attempt_is_told(one: CodeModel) -> None:
    attempts = mend(one, [tiny.case(one)], _guarded(one, NONE), Budget(60), method=STRONG)
    assert not any(attempt.verdict.passed for attempt in attempts)
    rates = sorted({attempt.method.rate for attempt in attempts}, reverse=True)
    assert rates == [STRONG.rate, STRONG.rate / 2, STRONG.rate / 4]
    # What is asked of a place elsewhere is given up before the fix itself is.
    assert all(each.method.elsewhere == (each.method.rate == STRONG.rate) for each in attempts)


@pytest.mark.process
@pytest.mark.parametrize("seed", [0, *map(tiny.later, (1, 2))])
def test_what_contradicts_another_case_elsewhere_is_learnt_where_it_was_flagged_alone(seed: int) -> None:
    one = tiny.model("qwen2", seed)
    other = tiny.case(one, "x-1", prefix="import os\ny = ", id="b")
    case = replace(tiny.case(one), elsewhere=(other.prompt,))
    other = replace(other, elsewhere=(case.prompt,))
    attempts = mend(one, [case, other], _guarded(one, ALL), Budget(8), method=STRONG)
    assert [attempt.method.elsewhere for attempt in attempts] == [True, False]
    assert not attempts[0].result.solved
    assert attempts[-1].result.solved


def test_the_model_is_left_as_it_was_found(one: CodeModel) -> None:
    before = [one.projection(layer).weight.data.clone() for layer in range(one.depth)]
    mend(one, [tiny.case(one)], _guarded(one, ALL), Budget(60), method=STRONG)
    with pytest.raises(Cancelled):
        mend(
            one,
            [tiny.case(one)],
            _guarded(one, ALL),
            Budget(60),
            method=STRONG,
            cancelled=lambda: True,
        )
    assert all(torch.equal(one.projection(layer).weight.data, weight) for layer, weight in enumerate(before))


def test_a_repair_that_breaks_an_earlier_case_is_made_together_with_it(one: CodeModel) -> None:
    earlier, later = tiny.case(one), tiny.case(one, "x-1", id="b")
    later = replace(later, prompt=(*later.prompt[:-1], later.prompt[-1] + 1))
    first = mend(one, [earlier], _guarded(one, ALL), Budget(60), method=STRONG)[-1]
    install(one, [first.result.patch])
    try:
        guarded = _guarded(one, ALL, [earlier])
        attempts = mend(one, [later], guarded, Budget(120), method=STRONG)
        assert attempts[0].verdict.broken == ("a",)
        best = attempts[-1]
        assert best.verdict.passed
        assert {outcome.case for outcome in best.result.outcomes if outcome.solved} == {"a", "b"}
    finally:
        install(one, [])


def test_two_cases_that_expect_different_texts_at_one_place_are_named_as_a_pair(one: CodeModel) -> None:
    case = tiny.case(one)
    other, same = replace(case, id="b", expected="y"), replace(case, id="c")
    assert pairs([case, other]) == {"a": "b", "b": "a"}
    assert pairs([case, same]) == {}
    assert pairs([case, replace(other, prompt=(1, *case.prompt))]) == {}
