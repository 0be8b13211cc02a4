"""What one teacher-forced pass sees, against autograd and hooks of its own."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from star.case import Case
from star.errors import CaseError
from star.history import Weights
from star.model import CodeModel
from star.patch import Draft
from star.stop import StopRule
from star.trace import Trace, begun, elsewhere, join, prepare, trace
from tests import tiny

EVERY = torch.arange(48)


def _targets(model: CodeModel, case: Case) -> tuple[list[int], list[int]]:
    """The positions that predict the expected tokens and the end, and what they should predict."""
    expected = model.encode_next(case.expected)
    at = list(range(len(case.prompt) - 1, len(case.prompt) + len(expected)))
    with torch.no_grad():
        end = model.network(torch.tensor([case.prompt + expected])).logits[0, -1]
    ends = sorted(model.stop_ids)
    return at, [*expected, ends[int(end[ends].argmax())]]


def _loss(model: CodeModel, cases: list[Case]) -> Tensor:
    losses = []
    for case in cases:
        at, targets = _targets(model, case)
        ids = torch.tensor([case.prompt + model.encode_next(case.expected)])
        logits = model.network(ids).logits[0, at]
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(targets), reduction="none"))
    return torch.cat(losses).mean()


def _cases(model: CodeModel) -> list[Case]:
    return [tiny.case(model), tiny.case(model, "self", "class A:\n    x = ", id="b")]


@pytest.mark.parametrize("lowest", [0, 2])
def test_gradients_are_autograds_gradient_of_the_weight_seen_by_neuron(model: CodeModel, lowest: int) -> None:
    cases, layers = _cases(model), range(lowest, model.depth)
    chosen = torch.tensor([0, 3, 4, 47])
    lessons = prepare(model, cases, lowest)
    seen = trace(model, lessons, {layer: chosen if layer % 2 else EVERY for layer in layers})

    weights = [model.projection(layer).weight for layer in layers]
    for weight in weights:
        weight.requires_grad_(True)
    try:
        loss = _loss(model, cases)
        wanted = torch.autograd.grad(loss, weights)
    finally:
        for weight in weights:
            weight.requires_grad_(False)

    assert seen.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    for layer, gradient in zip(layers, wanted, strict=True):
        by_neuron = gradient if model.family.stored_by_neuron else gradient.T
        rows = by_neuron[chosen] if layer % 2 else by_neuron
        assert torch.allclose(seen.gradients[layer], rows, rtol=1e-3, atol=1e-7)


def test_activations_are_what_enters_the_projection_where_a_failing_token_is_predicted(
    model: CodeModel,
) -> None:
    case = tiny.case(model)
    entered: dict[int, Tensor] = {}
    handles = [
        model.projection(layer).register_forward_pre_hook(
            lambda _module, args, layer=layer: entered.update({layer: args[0].reshape(-1, 48)})
        )
        for layer in range(model.depth)
    ]
    with torch.no_grad():
        model.network(torch.tensor([case.prompt + model.encode_next(case.expected)]))
    for handle in handles:
        handle.remove()

    chosen = torch.tensor([1, 5, 40])
    seen = trace(model, prepare(model, [case]), dict.fromkeys(range(model.depth), chosen))
    assert seen.failures
    assert seen.system == tuple((failure.case, failure.position) for failure in seen.failures)
    at = [len(case.prompt) - 1 + failure.position for failure in seen.failures]
    for layer in range(model.depth):
        assert torch.allclose(seen.activations[layer], entered[layer][at][:, chosen], atol=1e-6)


@pytest.mark.parametrize("layers", [[0, 1, 2, 3], [2, 3]])
def test_a_look_that_goes_on_from_what_was_read_before_is_the_same_look(
    model: CodeModel, layers: list[int]
) -> None:
    lessons = prepare(model, _cases(model), min(layers))
    neurons = dict.fromkeys(layers, EVERY)
    whole = trace(model, lessons, neurons, scored=layers, system="targets")
    rest = trace(model, begun(model, lessons), neurons, scored=layers, system="targets")
    assert (rest.failures, rest.targets, rest.system) == (whole.failures, whole.targets, whole.system)
    assert rest.loss == pytest.approx(whole.loss, rel=1e-6)
    for layer in layers:
        assert whole.pulls[layer].abs().max() > 0
        torch.testing.assert_close(rest.pulls[layer], whole.pulls[layer], rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(rest.activations[layer], whole.activations[layer], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(rest.scores[layer], whole.scores[layer], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("weights", ["stored", "int8"])
def test_what_was_read_before_is_as_the_weights_were_then(weights: Weights) -> None:
    model = CodeModel(tiny.network("qwen2"), tiny.tokenizer(), "stem", weights=weights)
    lessons = prepare(model, _cases(model), 2)
    read = begun(model, lessons)
    was = trace(model, read).loss
    with Draft(model, {2: EVERY}) as draft:
        draft.add(2, torch.full((48, model.width), 0.05))
        stale, anew, whole = (trace(model, each).loss for each in (read, begun(model, read), lessons))
    assert anew == pytest.approx(whole, rel=1e-5)
    assert abs(stale - whole) > 1e-4
    assert trace(model, read).loss == was


def test_activations_before_the_targets_are_those_of_the_prompt_but_for_its_first_token(
    model: CodeModel,
) -> None:
    case = tiny.case(model)
    with torch.no_grad(), model.tapped([1, 3]) as taps:
        model.logits(case.prompt)
    (lesson,) = prepare(model, [case], 1)
    assert lesson.ordinary == {}
    (read,) = begun(model, [lesson])
    assert sorted(read.ordinary) == [1, 2, 3]
    for layer in (1, 3):
        torch.testing.assert_close(read.ordinary[layer], taps[layer].inputs[1:-1], rtol=1e-4, atol=1e-6)


def test_a_prompt_of_one_token_is_looked_at_whole(one: CodeModel) -> None:
    lessons = prepare(one, [dataclasses.replace(tiny.case(one), prompt=one.encode("x")[:1])], 2)
    assert begun(one, lessons) == lessons


@pytest.mark.parametrize("system", ["failing", "targets"])
def test_losses_and_leads_are_those_of_the_places_of_the_system(one: CodeModel, system: str) -> None:
    cases = _cases(one)
    seen = trace(one, prepare(one, cases), {3: EVERY}, system=system)
    wanted = {}
    for case in cases:
        at, targets = _targets(one, case)
        log_p = one.logits(case.prompt + one.encode_next(case.expected)).double().log_softmax(-1).numpy()[at]
        for position, (row, target) in enumerate(zip(log_p, targets, strict=True)):
            wanted[case.id, position] = -row[target], row[target] - np.delete(row, target).max()
    assert set(seen.system) <= set(wanted)
    for place, loss, lead in zip(seen.system, seen.losses.tolist(), seen.leads.tolist(), strict=True):
        np.testing.assert_allclose([loss, lead], wanted[place], rtol=1e-4, atol=1e-5)


def test_scores_are_the_norm_over_the_targets_of_gradient_times_activation(model: CodeModel) -> None:
    case, layer = tiny.case(model), 2
    leaves: list[Tensor] = []

    def hook(_module: object, args: tuple[Tensor]) -> tuple[Tensor]:
        leaves.append(args[0].detach().requires_grad_())
        return (leaves[-1],)

    at, _ = _targets(model, case)
    handle = model.projection(layer).register_forward_pre_hook(hook)
    _loss(model, [case]).backward()
    handle.remove()
    leaf = leaves[-1].reshape(-1, 48)
    assert leaves[-1].grad is not None
    product = leaf * leaves[-1].grad.reshape(-1, 48)

    scores = trace(model, prepare(model, [case]), scored=[1, 2, 3]).scores
    assert sorted(scores) == [1, 2, 3]
    assert torch.allclose(scores[2], product[at].norm(dim=0), rtol=1e-3, atol=1e-8)


def test_bf16_weights_give_gradients_in_full_precision(half: CodeModel) -> None:
    seen = trace(half, prepare(half, _cases(half)), {3: EVERY}, scored=[2])
    assert seen.gradients[3].dtype == seen.activations[3].dtype == seen.scores[2].dtype == torch.float32
    assert seen.gradients[3].any()


def test_a_position_fails_when_the_argmax_is_not_the_expected_token(one: CodeModel) -> None:
    case = tiny.case(one)
    seen = trace(one, prepare(one, [case]))
    at, targets = _targets(one, case)
    with torch.no_grad():
        best = one.network(torch.tensor([case.prompt + one.encode_next("x+1")])).logits[0, at].argmax(-1)
    wanted = [
        (position, target, int(wrote))
        for position, (target, wrote) in enumerate(zip(targets, best, strict=True))
        if target != wrote
    ]
    assert [(f.position, f.expected, f.predicted) for f in seen.failures] == wanted
    assert seen.targets == len(targets) == 4
    assert seen.exact == pytest.approx(100 * (1 - len(wanted) / 4))


def test_one_place_alone_can_be_looked_at(one: CodeModel) -> None:
    lessons = prepare(one, _cases(one))
    whole = trace(one, lessons, {3: EVERY})
    failure = next(failure for failure in whole.failures if failure.case == "b")
    alone = trace(one, lessons, {3: EVERY}, only=("b", failure.position))
    assert alone.failures == (failure,)
    assert alone.targets == 1
    assert len(alone.activations[3]) == 1


def test_the_system_may_name_places_that_do_not_fail(one: CodeModel) -> None:
    lessons = prepare(one, _cases(one))
    fixed = trace(one, lessons, {3: EVERY}, system=[("b", 0), ("b", 1)])
    assert fixed.system == (("b", 0), ("b", 1))
    assert fixed.activations[3].shape == (2, 48)


def _written(model: CodeModel, tokens: int = 2) -> Case:
    """A case of what the model writes anyway, where the text ends at the first line break."""
    case = tiny.case(model)
    ids: list[int] = []
    for _ in range(tokens):
        ids.append(int(model.logits([*case.prompt, *ids])[-1].argmax()))
    return dataclasses.replace(case, expected=model.decode_next(case.prompt, ids))


def test_a_position_within_the_margin_fails_though_it_is_right(one: CodeModel) -> None:
    case = _written(one)
    strict, lax = (trace(one, prepare(one, [case]), margin=margin) for margin in (50.0, 0.0))
    assert [failure.position for failure in lax.failures] == [2]
    assert [failure.position for failure in strict.failures] == [0, 1, 2]
    for failure in strict.failures[:2]:
        assert failure.predicted != failure.expected


class _Ends:
    """Logits that write one token after another, whatever is asked."""

    def __init__(self, model: CodeModel, written: list[int]) -> None:
        self.model, self.written = model, written

    def __call__(self, ids: list[int], positions: range, _stem: None) -> Tensor:
        logits = torch.zeros(len(positions), 264)
        for row, token in enumerate(self.written[: len(positions)]):
            logits[row, token] = 9.0
        return logits


def _trace_of(
    model: CodeModel, monkeypatch: pytest.MonkeyPatch, expected: str, written: list[int], margin: float = 0
) -> Trace:
    case = tiny.case(model, expected)
    lessons = prepare(model, [case])
    monkeypatch.setattr(model, "logits", _Ends(model, written))
    return trace(model, lessons, margin=margin)


def test_any_token_that_ends_the_suggestion_is_an_end(
    one: CodeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, line_end = one.encode("x\n")
    for end in (line_end, *one.stop_ids):
        seen = _trace_of(one, monkeypatch, "x", [x, end])
        assert not seen.failures
        assert seen.targets == 2  # the end counts in the loss whether it is right or not
        assert seen.loss < 0.1


def test_an_end_that_comes_too_early_or_not_at_all_fails(
    one: CodeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, line_end = one.encode("x\n")
    assert [f.position for f in _trace_of(one, monkeypatch, "xx", [x, line_end, line_end]).failures] == [1]
    (late,) = _trace_of(one, monkeypatch, "x", [x, x]).failures
    assert late.position == 1
    assert late.expected in one.stop_ids
    assert late.predicted == x


def test_an_end_needs_no_margin(one: CodeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    x, line_end = one.encode("x\n")
    seen = _trace_of(one, monkeypatch, "x", [x, line_end], margin=100.0)
    assert [failure.position for failure in seen.failures] == [0]


def test_an_empty_text_is_taught_as_an_end(one: CodeModel) -> None:
    (failure,) = trace(one, prepare(one, [tiny.case(one, "")])).failures
    assert failure.position == 0
    assert failure.expected in one.stop_ids


def test_cases_that_cannot_be_put_to_the_model_are_refused(one: CodeModel) -> None:
    stop = StopRule.at("", "")
    for cases, why in [
        ([], "no case"),
        ([Case("a", (), "x", stop)], "Case a has an empty prompt"),
        ([tiny.case(one), tiny.case(one)], "Case a was named twice"),
        ([tiny.case(one, "x" * 600)], "context of 512"),
    ]:
        with pytest.raises(CaseError, match=why):
            prepare(one, cases)


def test_a_place_that_is_seen_at_several_prompts_has_one_row_the_mean_of_them(one: CodeModel) -> None:
    case = dataclasses.replace(tiny.case(one), elsewhere=(one.encode("import os\nx = "),))
    lessons = [*prepare(one, [case, tiny.case(one, "self", id="b")]), *elsewhere(one, [case])]
    assert [lesson.case.id for lesson in lessons] == [case.id, "b", case.id]
    assert lessons[2].case.prompt == case.elsewhere[0]
    looks = [trace(one, [lesson], {3: EVERY}, system="targets", rows=False) for lesson in lessons]
    seen = join(looks)
    pooled = seen.pooled()
    assert pooled.system == (*looks[0].system, *looks[1].system)
    assert len(set(pooled.system)) == len(pooled.system) < len(seen.system)
    for of in ("activations", "pulls"):
        rows = getattr(seen, of)[3].numpy()
        for place, row in zip(pooled.system, getattr(pooled, of)[3].numpy(), strict=True):
            mine = [i for i, each in enumerate(seen.system) if each == place]
            np.testing.assert_allclose(row, rows[mine].mean(0), rtol=1e-5, atol=1e-7)
            worst = float(seen.losses[mine].max()), float(seen.leads[mine].min())
            at = pooled.system.index(place)
            assert (float(pooled.losses[at]), float(pooled.leads[at])) == worst
    assert pooled.failures == seen.failures
    assert join(looks[:2]).pooled().system == (*looks[0].system, *looks[1].system)


def test_another_prompt_that_is_too_long_is_left_out(one: CodeModel) -> None:
    case = tiny.case(one)
    assert one.context
    most = one.context - len(one.encode_next(case.written))
    case = dataclasses.replace(case, elsewhere=((1,) * most, (1,) * (most + 1)))
    assert [len(lesson.case.prompt) for lesson in elsewhere(one, [case])] == [most]
