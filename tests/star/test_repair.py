"""The whole loop, from a failing case to a patch."""

import math
import string
import time
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from star.case import Case
from star.decode import write
from star.errors import Cancelled, CaseError
from star.model import CodeModel
from star.patch import Draft, Factors, install
from star.repair import PUBLISHED, STRENGTHS, Star, _how_far, _in_few_bits, repair
from star.result import Budget, Result, Step
from star.solve import Basis
from star.trace import prepare, trace
from tests import tiny

BATCH = Star(layers="2/4", pattern="none", margin=0.1)
#: One step on the whole last layer, its promise kept to the letter.
FIRST = Star(
    layers="one", pattern="none", ridge=0.0, early_stop=False, back_off=False, rate=3e-2, paced=False
)
ITERATIVE = Star(mode="iterative", layers="all", pattern="none", margin=0.05)


def _weights(model: CodeModel) -> list[Tensor]:
    return [model.projection(layer).weight.detach().clone() for layer in range(model.depth)]


def _same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(left, right, strict=True))


def _writes(model: CodeModel, result: Result) -> str:
    """What the model writes with a result's patch on top of what is installed."""
    install(model, [*model.patches, result.patch])
    return write(model, tiny.case(model))


def _endless(model: CodeModel) -> Case:
    """A place where nothing should be written, and the model writes something."""
    cases = (tiny.case(model, "", prefix) for prefix in ("x = ", "import os; ", "def f(", "y(", "a", "#"))
    return next(case for case in cases if write(model, case))


@cache
def _batch(model: CodeModel) -> Result:
    return repair(model, [tiny.case(model)], Budget(60), method=BATCH)


def test_a_case_is_solved_in_every_architecture(model: CodeModel) -> None:
    before, result = _weights(model), _batch(model)
    assert result.failures_before
    assert result.exact_before < result.exact_after == 100.0
    assert result.solved
    assert result.outcomes[0].after == "x+1"
    assert not result.failures_after
    assert _same(_weights(model), before)  # the model is left as it was found
    assert _writes(model, result) == "x+1"


def test_a_case_is_solved_one_token_after_another_in_every_architecture(model: CodeModel) -> None:
    before, case = _weights(model), tiny.case(model, "x")
    result = repair(model, [case], Budget(60), method=ITERATIVE)
    assert len(result.failures_before) == 2
    assert result.solved
    assert _same(_weights(model), before)
    assert _writes(model, result) == "x"


@pytest.mark.process
def test_a_token_that_another_ones_repair_broke_is_repaired_again(one: CodeModel) -> None:
    seen: list[Step] = []
    method = replace(
        ITERATIVE, weigh=False, natural=False
    )  # weighed, the repairs of this case's tokens break no other
    result = repair(one, [tiny.case(one)], Budget(60), seen.append, method=method)
    assert result.solved
    # Every system ends with a look at which its token is right: there were more systems than tokens.
    assert sum(not step.failures for step in seen) > len(result.failures_before)


def test_a_case_is_solved_at_its_other_prompts_too_by_as_many_directions(model: CodeModel) -> None:
    alone = tiny.case(model)
    other = tiny.case(model, prefix="import os\n\ndef f(x):\n    return ")
    case = replace(alone, elsewhere=(other.prompt,))
    both = repair(model, [case], Budget(60), method=BATCH)
    assert [each.case for each in both.outcomes] == [case.id]
    assert both.solved
    assert both.failures_before == _batch(model).failures_before
    install(model, [both.patch])
    assert (write(model, alone), write(model, other)) == ("x+1", "x+1")
    targets = len(model.encode_next("x+1")) + 1
    for part in both.patch.rows:
        assert isinstance(part, Factors)
        assert len(part.keys) <= targets  # twice as many places in two prompts
    install(model, [])


@pytest.mark.parametrize(
    "method", [PUBLISHED, *map(tiny.later, (ITERATIVE, replace(BATCH, elsewhere=False)))]
)
def test_other_prompts_change_nothing_where_they_are_not_asked_for(one: CodeModel, method: Star) -> None:
    case = tiny.case(one, "x")
    other = replace(case, elsewhere=(one.encode("import os\nx = "),))
    first, second = (repair(one, [each], Budget(2), method=method).patch for each in (case, other))
    assert first.digest == second.digest


@pytest.mark.process
@pytest.mark.parametrize("pattern", ["layerly", "autoly", "evenly"])
def test_a_sparse_patch_touches_no_more_neurons_than_allowed(one: CodeModel, pattern: str) -> None:
    method = replace(BATCH, layers="all", pattern=pattern, ratio=1 / 4)
    result = repair(one, [tiny.case(one)], Budget(3), method=method)
    assert 1 <= sum(len(rows.neurons) for rows in result.patch.rows) <= 12
    assert tuple(rows.layer for rows in result.patch.rows) == result.layers


def test_one_position_in_the_last_layer_moves_by_rate_times_steer_against_the_gradient(
    model: CodeModel,
) -> None:
    """The closed form: the projection's output moves by −lr·|σ|·sign(g), however long z is."""
    case = _endless(model)
    (failure,) = trace(model, prepare(model, [case])).failures
    projection, outputs = model.projection(model.depth - 1), []

    def hook(_module: object, _args: object, output: Tensor) -> Tensor:
        outputs.append(output.detach().requires_grad_())
        return outputs[-1]

    handle = projection.register_forward_hook(hook)
    logits = model.network(torch.tensor([case.prompt])).logits[0, -1:]
    torch.nn.functional.cross_entropy(logits, torch.tensor([failure.expected])).backward()
    rate = 0.05
    method = replace(FIRST, rate=rate, natural=False)
    handle.remove()
    patch = repair(model, [case], Budget(1), method=method).patch

    handle = projection.register_forward_hook(hook)
    install(model, [patch])
    model.logits(case.prompt)
    handle.remove()
    before, after = outputs[0].reshape(-1, 32)[-1], outputs[1].reshape(-1, 32)[-1]
    assert outputs[0].grad is not None
    gradient = outputs[0].grad.reshape(-1, 32)[-1]

    head = model.head.double().numpy() * model.final_gain.double().numpy()
    basis = np.linalg.pinv(head.T)
    difference = basis[failure.expected] - basis[failure.predicted]
    sigma = difference / np.subtract(*np.percentile(difference, [75, 25]))
    wanted = -rate * np.abs(sigma) * gradient.sign().numpy()
    assert np.allclose((after - before).detach().numpy(), wanted, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("natural", [True, False])
def test_a_paced_step_goes_the_share_that_was_asked_for_of_what_the_lead_lacks(
    model: CodeModel, natural: bool
) -> None:
    """By first order: ``Δ log p/(1-p) = rate · (margin + 1 - lead)``, whatever the model and its steers."""
    case = _endless(model)
    (lesson,) = prepare(model, [case])

    def seen() -> tuple[float, float]:
        log_p = model.logits(lesson.ids, lesson.positions)[0].double().log_softmax(-1)
        ends = log_p[sorted(model.stop_ids)].max()
        return float(ends), float(ends - log_p.max())

    before, lead = seen()
    method = replace(FIRST, rate=1e-2, paced=True, margin=2.0, natural=natural)
    install(model, [repair(model, [case], Budget(1), method=method).patch])
    grown = (seen()[0] - before) / -math.expm1(before)
    assert grown == pytest.approx(1e-2 * (2.0 + 1.0 - lead), rel=0.1)


def test_each_case_of_a_batch_goes_as_far_as_by_itself(model: CodeModel) -> None:
    cases = [tiny.case(model), tiny.case(model, "y*2", "for y in", id="b")]
    every = {layer: torch.arange(model.neurons) for layer in range(model.depth)}

    def way(of: list[Case]) -> Tensor:
        seen = trace(model, prepare(model, of), every, margin=2.0, system="targets")
        return _how_far(seen, {layer: pulls.sign() for layer, pulls in seen.pulls.items()}, 2.0)

    torch.testing.assert_close(way(cases), torch.cat([way([case]) for case in cases]))


def test_for_one_failing_position_signs_given_to_outputs_or_to_weights_are_the_same_step(
    one: CodeModel,
) -> None:
    case = tiny.case(one, "")
    ways = [replace(FIRST, step=step, weigh=False, natural=False) for step in ("outputs", "weights")]
    first, second = (repair(one, [case], Budget(1), method=way).patch.rows[0] for way in ways)
    assert torch.allclose(first.delta, second.delta, rtol=1e-3, atol=1e-6)  # keys have 15 bits


def test_a_place_that_is_right_already_stays_still_while_others_move(one: CodeModel) -> None:
    """What the least squares promise: a row with a zero steer moves by nothing in the layer repaired."""
    layer = one.depth - 1
    case = next(case for before in string.ascii_letters if (case := _half_right(one, before)))
    lessons = prepare(one, [case])
    seen = trace(one, lessons, {layer: torch.arange(one.neurons)}, system="targets")
    failing = {(failure.case, failure.position) for failure in seen.failures}
    patch = repair(one, [case], Budget(1), method=replace(FIRST, margin=0.0)).patch
    moved = (seen.activations[layer] @ patch.rows[0].delta).norm(dim=1)
    still = torch.tensor([place not in failing for place in seen.system])
    assert bool(still.any())
    assert float(moved[still].max()) < 1e-3 * float(moved[~still].min())


def _half_right(model: CodeModel, before: str) -> Case | None:
    """A case whose first token the model writes by itself; None where that is no letter."""
    guess = tiny.case(model, "x", before)
    first = trace(model, prepare(model, [guess])).failures[0]
    written = model.decode_next(guess.prompt, [first.predicted])
    return tiny.case(model, written + "xyz", before) if written.isalnum() and written.isascii() else None


@pytest.mark.process
def test_more_cases_may_move_more_neurons(one: CodeModel) -> None:
    cases = [tiny.case(one), tiny.case(one, "os", "import ", id="b")]
    for widen, times in ((True, 2), (False, 1)):
        method = Star(pattern="evenly", ratio=0.25, widen=widen)
        alone = repair(one, cases[:1], Budget(1), method=method).patch
        both = repair(one, cases, Budget(1), method=method).patch
        assert len(both.rows[0].neurons) == times * len(alone.rows[0].neurons)


@pytest.mark.process
def test_the_closed_form_holds_for_activations_of_any_length(one: CodeModel) -> None:
    """Doubling every activation (and halving every row) leaves the movement as it is."""
    case = tiny.case(one, "")
    method = FIRST
    rows = repair(one, [case], Budget(1), method=method).patch.rows[0]
    network = tiny.network("qwen2")
    with torch.no_grad():
        network.model.layers[3].mlp.up_proj.weight.mul_(4)
        network.model.layers[3].mlp.down_proj.weight.div_(4)
    scaled = CodeModel(network, tiny.tokenizer(), "scaled")
    other = repair(scaled, [case], Budget(1), method=method).patch.rows[0]
    assert torch.allclose(other.delta * 4, rows.delta, rtol=1e-3, atol=1e-7)


@pytest.mark.process
def test_repeated_repairs_of_one_model_are_bit_for_bit_the_same(one: CodeModel) -> None:
    first, second = (repair(one, [tiny.case(one)], Budget(5), method=BATCH).patch for _ in range(2))
    assert first.digest == second.digest


@pytest.mark.process
@pytest.mark.parametrize("margin", [0.1, 0.6])
def test_what_a_repair_says_is_written_is_what_decoding_writes(one: CodeModel, margin: float) -> None:
    """With a margin it is told from the last look, without a decoding."""
    cases = [tiny.case(one), tiny.case(one, "os", "import ", id="b")]
    result = repair(one, cases, Budget(80), method=replace(BATCH, margin=margin))
    install(one, [result.patch])
    written = [write(one, case) for case in cases]
    install(one, [])
    assert result.solved
    assert [outcome.after for outcome in result.outcomes] == written == ["x+1", "os"]
    assert (result.failures_after, result.exact_after) == ((), 100.0)


@pytest.mark.process
def test_a_patch_takes_few_bits_once_all_is_learnt_by_a_lead(one: CodeModel) -> None:
    case = tiny.case(one)

    def packed(margin: float, budget: Budget) -> tuple[bool, set[bool]]:
        result = repair(one, [case], budget, method=replace(BATCH, margin=margin))
        return result.solved, {"packed" in part.tensors for part in result.patch.rows}

    assert packed(0.6, Budget(80)) == (True, {True})
    assert packed(0.1, Budget(80)) == (True, {False}), "a lead that rounding may overturn"
    assert packed(0.6, Budget(1)) == (True, {False}), "right, and not yet by the margin"


@pytest.mark.process
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_patch_is_rounded_only_if_the_same_is_written_then(
    one: CodeModel, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    lessons = prepare(one, [tiny.case(one)])
    result = repair(one, [tiny.case(one)], Budget(80), method=BATCH)
    patch = result.patch
    monkeypatch.setattr("star.patch.coarse_values", lambda values: (share * values).astype(np.float32))
    every = dict.fromkeys((part.layer for part in patch.rows), torch.arange(one.neurons))
    with Draft(one, every, factored=True) as draft:
        assert _in_few_bits(one, draft, patch, lessons) is patch


@pytest.mark.process
@pytest.mark.parametrize("kind", ["qwen2", "gpt2", "gptj", "starcoder2", "gpt_neox"])
def test_what_a_gentle_repair_says_is_written_is_what_its_patch_in_few_bits_writes(kind: str) -> None:
    """An end may lead by next to nothing, which rounding could overturn."""
    packed = 0
    for seed in range(12):
        model = tiny.model(kind, seed=seed)
        case = tiny.case(model, f"t{seed}")
        result = repair(model, [case], Budget(60), method=STRENGTHS["gentle"])
        packed += all("packed" in part.tensors for part in result.patch.rows)
        install(model, [result.patch])
        written = write(model, case)
        install(model, [])
        (told,) = result.outcomes
        assert (told.solved, told.after) == (written == case.expected, written)
    assert packed > 6


def test_two_cases_are_solved_in_one_system(model: CodeModel) -> None:
    cases = [tiny.case(model), tiny.case(model, "os", "import ", id="b")]
    result = repair(model, cases, Budget(80), method=BATCH)
    assert {failure.case for failure in result.failures_before} == {"a", "b"}
    assert [(outcome.case, outcome.after) for outcome in result.outcomes] == [("a", "x+1"), ("b", "os")]


def test_a_model_can_be_taught_to_stop(model: CodeModel) -> None:
    case = _endless(model)
    assert write(model, case) != ""
    result = repair(model, [case], Budget(60), method=BATCH)
    assert result.solved
    install(model, [result.patch])
    assert write(model, case) == ""


def test_a_repair_stands_on_what_is_installed(one: CodeModel) -> None:
    first = _batch(one)
    install(one, [first.patch])
    both = [tiny.case(one), tiny.case(one, "os", "import ", id="b")]
    second = repair(one, both, Budget(80), method=BATCH)
    assert one.patches == (first.patch,)
    assert second.solved
    install(one, [first.patch, second.patch])
    assert [write(one, case) for case in both] == ["x+1", "os"]


@pytest.mark.process
@pytest.mark.parametrize("model", tiny.ONE, indirect=True)
def test_a_repair_moves_the_places_of_earlier_ones_less_when_it_spares_them(model: CodeModel) -> None:
    first, basis, shorter = tiny.case(model), Basis(model), replace(BATCH, rate=0.7)
    earlier = repair(model, [first], Budget(60), method=shorter, basis=basis).patch
    others = [("y*2", "for y in"), ("a,b", "z = f("), ("is", "if k ")]

    def moved(spares: bool) -> float:
        total = 0.0
        for expected, prefix in others:
            install(model, [earlier])
            lessons = prepare(model, [first])
            before, case = trace(model, lessons).loss, tiny.case(model, expected, prefix, id="b")
            method = replace(shorter, earlier=spares)
            install(model, [earlier, repair(model, [case], Budget(60), method=method, basis=basis).patch])
            total += abs(trace(model, lessons).loss - before)
        return total

    assert moved(True) < moved(False)


@pytest.mark.process
def test_what_was_taught_once_can_be_taught_otherwise(one: CodeModel) -> None:
    """The place of an earlier repair is spared, but not from the very repair that is at it."""
    install(one, [repair(one, [tiny.case(one)], Budget(60), method=BATCH).patch])
    again = repair(one, [tiny.case(one, "x-1", id="b")], Budget(60), method=BATCH)
    assert again.solved
    assert _writes(one, again) == "x-1"


@pytest.mark.process
def test_only_so_many_earlier_places_are_spared(one: CodeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    basis, first, second = Basis(one), tiny.case(one), tiny.case(one, "y*2", "for y in", id="b")
    earlier = repair(one, [first], Budget(60), method=BATCH, basis=basis).patch
    install(one, [earlier])
    every = repair(one, [second], Budget(60), method=BATCH, basis=basis).patch
    monkeypatch.setattr("star.repair._EARLIER", 1)
    some = repair(one, [second], Budget(60), method=BATCH, basis=basis).patch
    monkeypatch.setattr("star.repair._EARLIER", 99)
    assert repair(one, [second], Budget(60), method=BATCH, basis=basis).patch.digest == every.digest
    assert some.digest != every.digest


@pytest.mark.process
def test_the_places_of_a_case_are_not_held_against_its_own_next_repair(one: CodeModel) -> None:
    basis = Basis(one)
    install(one, [repair(one, [tiny.case(one)], Budget(60), method=BATCH, basis=basis).patch])

    def digest(spares: bool, id: str) -> str:
        method = replace(BATCH, earlier=spares)
        case = tiny.case(one, "x-1", id=id)
        return repair(one, [case], Budget(60), method=method, basis=basis).patch.digest

    assert digest(True, "a") == digest(False, "a")
    assert digest(True, "b") != digest(False, "b")


def test_what_is_already_right_needs_no_rows(model: CodeModel) -> None:
    install(model, [_batch(model).patch])
    again = repair(model, [tiny.case(model)], Budget(10), method=replace(BATCH, margin=9.0))
    assert again.solved
    assert not again.patch.rows
    assert again.steps == 0


def test_for_what_is_already_right_no_ordinary_code_is_read(
    one: CodeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(one, [_batch(one).patch])
    monkeypatch.setattr("star.solve.fisher", lambda *_: pytest.fail("it was read"))
    assert repair(one, [tiny.case(one)], Budget(10), method=BATCH).solved


@pytest.mark.parametrize("method", [ITERATIVE, PUBLISHED], ids=["iterative", "published"])
def test_what_is_already_right_needs_no_rows_by_any_method(one: CodeModel, method: Star) -> None:
    install(one, [_batch(one).patch])
    again = repair(one, [tiny.case(one)], Budget(10), method=method)
    assert again.solved
    assert not again.patch.rows


@pytest.mark.process
def test_a_bf16_model_is_repaired(half: CodeModel) -> None:
    result = repair(half, [tiny.case(half)], Budget(60), method=BATCH)
    assert result.solved
    assert result.patch.rows[0].delta.dtype == torch.float32
    assert _writes(half, result) == "x+1"


# -- steps -----------------------------------------------------------------------------------------


def _steps(model: CodeModel, method: Star, budget: Budget) -> tuple[Result, list[Step]]:
    seen: list[Step] = []
    return repair(model, [tiny.case(model)], budget, seen.append, method=method), seen


def test_a_repair_stops_as_soon_as_nothing_fails(model: CodeModel) -> None:
    result, seen = _steps(model, BATCH, Budget(60))
    assert result.steps == seen[-1].number < 60
    assert seen[-1].failures == 0
    assert all(step.failures for step in seen[:-1])
    assert [step.number for step in seen] == list(range(result.steps + 1))


def test_the_published_method_takes_all_its_steps_whatever_happens(one: CodeModel) -> None:
    result, seen = _steps(one, PUBLISHED, Budget(16))
    assert result.steps == 10
    assert {step.rate for step in seen} == {1e-2}


def test_the_published_method_goes_on_when_nothing_fails_any_more(one: CodeModel) -> None:
    method = replace(PUBLISHED, layers="2/4", rank="depth", rate=0.1)
    stopped, _ = _steps(one, replace(method, early_stop=True), Budget(10))
    whole, seen = _steps(one, method, Budget(10))
    assert stopped.steps < 10 == whole.steps
    assert seen[stopped.steps].failures == 0
    assert whole.patch.digest != stopped.patch.digest


@pytest.mark.process
def test_a_step_that_made_it_worse_is_taken_back_at_half_the_rate(one: CodeModel) -> None:
    method, case = replace(BATCH, rate=40.0, grow=1.0), tiny.case(one, "x + 1")
    seen: list[Step] = []
    repair(one, [case], Budget(12), seen.append, method=replace(method, back_off=False))
    worse = next(later.number for earlier, later in pairwise(seen) if later.loss > earlier.loss * 1.001)

    seen.clear()
    taken_back = repair(one, [case], Budget(worse), seen.append, method=method)
    kept = repair(one, [case], Budget(worse - 1), method=method)
    assert taken_back.patch.digest == kept.patch.digest  # bit for bit, though it was the last step
    assert taken_back.steps == worse == kept.steps + 1  # a step that is taken back counts
    assert [step.rate for step in seen[-2:]] == [40.0, 20.0]
    assert seen[-1].loss == seen[-2].loss


@pytest.mark.process
def test_a_rate_that_is_too_timid_grows_until_a_step_is_taken_back(one: CodeModel) -> None:
    timid = replace(BATCH, rate=BATCH.rate / 64)
    result, seen = _steps(one, timid, Budget(60))
    slow, _ = _steps(one, replace(timid, grow=1.0), Budget(60))
    assert result.solved
    assert result.steps < slow.steps
    rates = [step.rate for step in seen]
    highest = rates.index(max(rates))
    assert all(later >= earlier for earlier, later in pairwise(rates[: highest + 1]))


@pytest.mark.process
def test_each_failing_token_has_steps_of_its_own_in_iterative_mode(one: CodeModel) -> None:
    method = replace(ITERATIVE, rate=1e-6, back_off=False)
    result, seen = _steps(one, method, Budget(2))
    assert result.steps == 2 * len(result.failures_before)
    assert {step.targets for step in seen} == {1}


@pytest.mark.process
def test_seconds_are_a_budget_too(one: CodeModel) -> None:
    result, seen = _steps(one, BATCH, Budget(10_000, seconds=0.0))
    assert (result.steps, len(seen)) == (0, 1)
    assert not result.solved
    started = time.monotonic()
    endless = replace(BATCH, early_stop=False, rate=1e-9, grow=1.0)
    result, _ = _steps(one, endless, Budget(10**9, seconds=0.2))
    assert 0.2 <= time.monotonic() - started < 5
    assert math.isfinite(result.seconds)


@pytest.mark.parametrize("method", [BATCH, ITERATIVE, PUBLISHED], ids=["batch", "iterative", "published"])
@pytest.mark.parametrize("after", [0, 1, 6])
def test_a_cancelled_repair_leaves_the_model_as_it_was_found(
    one: CodeModel, method: Star, after: int
) -> None:
    before, asked = _weights(one), iter(range(1000))
    method = replace(method, rate=1e-6)
    with pytest.raises(Cancelled):
        repair(one, [tiny.case(one)], Budget(50), method=method, cancelled=lambda: next(asked) >= after)
    assert _same(_weights(one), before)
    assert one.patches == ()


def test_an_exception_on_the_way_leaves_the_model_as_it_was_found(model: CodeModel) -> None:
    before = _weights(model)

    def fail(step: Step) -> None:
        if step.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repair(model, [tiny.case(model)], Budget(9), fail, method=replace(BATCH, rate=1e-4))
    assert _same(_weights(model), before)


def test_nothing_to_repair_and_nothing_before_it_are_refused(one: CodeModel) -> None:
    with pytest.raises(CaseError, match="no case"):
        repair(one, [])
    with pytest.raises(CaseError, match="empty prompt"):
        repair(one, [replace(tiny.case(one), prompt=())])


@pytest.mark.process
def test_a_basis_that_is_known_gives_the_same_patch(one: CodeModel) -> None:
    known = repair(one, [tiny.case(one)], Budget(3), method=BATCH, basis=Basis(one, Basis(one).factor))
    assert known.patch.digest == repair(one, [tiny.case(one)], Budget(3), method=BATCH).patch.digest
    assert known.patch.manifest["cases"] == ["a"]
    assert known.patch.manifest["method"]["margin"] == 0.1
