"""What a repair costs."""

import pytest
import torch

from star.bench.cost import counted, tokens_of
from star.model import CodeModel
from star.repair import Star, repair
from star.result import Budget
from star.trace import begun, prepare, trace
from tests import tiny


def test_one_run_over_a_case_is_one_pass(model: CodeModel) -> None:
    case = tiny.case(model)
    with counted(model, [case]) as cost:
        model.logits(case.prompt + model.encode_next(case.expected))
    assert cost.passes == 1
    assert cost.tokens == tokens_of(model, [case]) == len(case.prompt) + 3


def test_layers_that_do_not_run_are_not_counted(model: CodeModel) -> None:
    case = tiny.case(model)
    with counted(model, [case]) as below:
        (lesson,) = prepare(model, [case], 3)
    assert below.passes == 3 / 4
    with counted(model, [case]) as above:
        trace(model, [lesson])
    assert above.passes == 1 / 4


def test_a_backward_pass_counts_as_far_down_as_it_goes(model: CodeModel) -> None:
    case = tiny.case(model)
    lessons = prepare(model, [case], 2)
    with counted(model, [case]) as cost:
        trace(model, lessons, scored=[2, 3])
    assert cost.passes == 2 / 4 + 1 / 4  # the lowest layer's own gradients end at its projection's outputs


def test_what_stands_before_the_targets_is_read_once_for_many_looks(model: CodeModel) -> None:
    case = tiny.case(model)
    with counted(model, [case]) as read:
        lessons = begun(model, prepare(model, [case], 1))
    assert read.layer_tokens == read.tokens + 3 * (len(case.prompt) - 1)  # below; the three layers above
    with counted(model, [case]) as cost:
        seen = trace(model, lessons, {layer: torch.arange(5) for layer in (1, 2, 3)})
    assert seen.targets == 4  # the three that are expected, and the end
    assert cost.layer_tokens == (3 + 2) * 4


def test_what_is_seen_is_not_changed_by_counting(model: CodeModel) -> None:
    lessons = prepare(model, [tiny.case(model)], 2)
    neurons = {2: torch.arange(5), 3: torch.arange(7)}
    plain = trace(model, lessons, neurons, scored=[2, 3])
    with counted(model, [tiny.case(model)]):
        seen = trace(model, lessons, neurons, scored=[2, 3])
    assert seen.loss == plain.loss
    assert all(torch.equal(seen.gradients[layer], plain.gradients[layer]) for layer in neurons)


def test_several_cases_are_one_unit(one: CodeModel) -> None:
    cases = [tiny.case(one), tiny.case(one, "y*2", id="b")]
    with counted(one, cases) as cost:
        prepare(one, cases)
        trace(one, prepare(one, cases))
    assert cost.passes == 1


def test_a_repair_costs_time_and_passes(one: CodeModel) -> None:
    case = tiny.case(one)
    with counted(one, [case]) as cost:
        result = repair(one, [case], Budget(4), method=Star(layers="2/4", pattern="none"))
    assert cost.passes > result.steps * 0.5
    assert cost.seconds >= result.seconds > 0


def test_memory_that_was_given_back_counts(one: CodeModel) -> None:
    with counted(one, []) as cost:
        torch.ones(32_000_000).sum()
        for _ in range(20):
            torch.ones(16_000_000).sum()
    assert 50 < cost.peak_mb - cost.start_mb < 400


def test_nothing_is_left_hooked_when_a_repair_fails(one: CodeModel) -> None:
    with pytest.raises(ZeroDivisionError), counted(one, []) as cost:
        1 / 0  # noqa: B018
    assert cost.seconds > 0
    assert not any(one.projection(layer)._forward_pre_hooks for layer in range(one.depth))
