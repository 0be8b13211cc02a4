"""MINT moves the neuron that helps most, a little at a time, and takes back what did not help."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from star.case import Failure
from star.model import CodeModel
from star.patch import Draft, install
from star.peers import Mint
from star.peers.grown import grown, moved_only
from star.peers.mint import edited, patch_vector
from star.result import Budget, Result, Step
from tests import tiny
from tests.star.peers import reference

#: Neurons of tiny random models are small against a patch vector's range, and there are few of them.
BOLD = Mint(step=1.0, edits=20)


def _weights(model: CodeModel) -> list[Tensor]:
    return [model.projection(layer).weight.detach().clone() for layer in range(model.depth)]


def _by_hand(model: CodeModel, failure: Failure) -> np.ndarray:
    """The patch vector of a failure, by the pseudo-inverse of the whole unembedding."""
    head = model.head.double().numpy() * model.final_gain.double().numpy()
    basis = np.linalg.pinv(head.T)
    difference = basis[failure.expected] - basis[failure.predicted]
    return np.asarray(difference / (difference.max() - difference.min()))


def test_the_patch_vector_has_a_range_of_one_and_the_edit_is_a_weighted_mean() -> None:
    rng = np.random.default_rng(0)
    difference, row = rng.normal(size=(2, 32))
    patch = patch_vector(torch.tensor(difference, dtype=torch.float32))
    assert np.allclose(patch, difference / np.ptp(difference), atol=1e-6)
    after = edited(torch.tensor(row, dtype=torch.float32), patch, 0.01)
    assert np.allclose(after, (row + 0.01 * difference / np.ptp(difference)) / 1.01, atol=1e-6)


def test_one_edit_is_that_of_the_best_of_the_ten_candidates(model: CodeModel) -> None:
    case = tiny.case(model, "x")
    result = Mint(edits=1, step=0.05)(model, [case], Budget(1))
    failure = result.failures_before[0]
    assert failure.position == 0

    # Gradient x activation by autograd, at the failing position, of all neurons of the last half.
    other = reference.network(model)
    kept: dict[int, Tensor] = {}
    handles = []
    for layer in (2, 3):

        def keep(_module: object, args: tuple[Tensor], layer: int = layer) -> tuple[Tensor]:
            kept[layer] = args[0].detach().requires_grad_() if layer == 2 else args[0]
            kept[layer].retain_grad()
            return (kept[layer],)

        handles.append(reference.projection(model, other, layer).register_forward_pre_hook(keep))
    log_p = other(torch.tensor([case.prompt])).logits[0, -1].log_softmax(-1)
    log_p[failure.expected].backward()
    for handle in handles:
        handle.remove()
    grads = {layer: tensor.grad for layer, tensor in kept.items()}
    scores = []
    for layer in (2, 3):
        gradient = grads[layer]
        assert gradient is not None
        product = (kept[layer] * gradient).detach().reshape(-1, model.neurons)[-1].abs()
        scores += [(float(score), layer, neuron) for neuron, score in enumerate(product)]
    pool = [(layer, neuron) for _, layer, neuron in sorted(scores, reverse=True)[:10]]

    # Each of them edited alone, in a network of its own.
    vector = _by_hand(model, failure)
    gaps = {}
    for layer, neuron in pool:
        stored = reference.projection(model, other, layer).weight.data
        row, before = model.by_neuron(stored)[neuron], stored.clone()
        row.copy_(torch.tensor((row.numpy() + 0.05 * vector) / 1.05, dtype=torch.float32))
        with torch.no_grad():
            p = other(torch.tensor([case.prompt])).logits[0, -1].softmax(-1)
        gaps[layer, neuron] = (float(p[failure.predicted] - p[failure.expected]), row.clone())
        stored.copy_(before)
    best = min(gaps, key=lambda each: gaps[each][0])

    # The edit was not enough, so it was taken back: look at it through a budget that keeps it.
    rows = _first_edit(model, replace(BOLD, step=0.05, edits=1))
    (layer, neuron, after) = rows
    assert (layer, neuron) == best
    assert torch.allclose(after, gaps[best][1], rtol=1e-3, atol=1e-5)


def _first_edit(model: CodeModel, method: Mint) -> tuple[int, int, Tensor]:
    """Where and what the first edit of a repair was, seen from before the second one."""
    found: list[tuple[int, int, Tensor]] = []
    before = _weights(model)

    def look(step: Step) -> None:
        if step.number == 1 and not found:
            for layer, weight in enumerate(_weights(model)):
                changed = model.by_neuron(weight - before[layer]).any(1).nonzero().flatten()
                found.extend((layer, int(i), model.by_neuron(weight)[i].clone()) for i in changed)

    replace(method, edits=2)(model, [tiny.case(model, "x")], Budget(2), look)
    assert len(found) == 1
    return found[0]


def test_a_skipped_token_leaves_the_weights_bit_for_bit(model: CodeModel) -> None:
    before, case = _weights(model), tiny.case(model, "x")
    timid = Mint(step=1e-5)
    result = timid(model, [case], Budget(16))
    assert not result.solved
    assert result.steps == 10 * len(result.failures_before)
    assert result.patch.manifest["skipped"] == len(result.failures_before)
    assert result.patch.rows == ()
    assert result.failures_after == result.failures_before
    assert all(map(torch.equal, _weights(model), before))


def _mixed(model: CodeModel) -> tuple[Result, Result]:
    """A repair in which one of two cases is skipped, and one of the other case alone."""
    first, second = tiny.case(model, "x", id="a"), tiny.case(model, "yq*z(", "import ", id="b")
    method = replace(BOLD, edits=3)
    return method(model, [first, second], Budget(20)), method(model, [first], Budget(20))


def test_edits_of_a_skipped_token_are_undone_and_those_of_others_are_kept(one: CodeModel) -> None:
    both, alone = _mixed(one)
    skipped = both.patch.manifest["skipped"]
    assert 0 < skipped < len(both.failures_before)
    assert both.patch.rows
    assert alone.patch.rows
    install(one, [both.patch])
    again = Mint(edits=0)(one, [tiny.case(one, "x", id="a"), tiny.case(one, "yq*z(", "import ", id="b")])
    assert again.failures_before == both.failures_after  # what was reported is what the patch does


def test_only_neurons_that_moved_are_in_the_patch(one: CodeModel) -> None:
    result = BOLD(one, [tiny.case(one, "x")], Budget(20))
    assert result.patch.rows
    assert all(rows.delta.any(1).all() for rows in result.patch.rows)
    assert sum(len(rows.neurons) for rows in result.patch.rows) <= result.steps
    assert all(rows.layer in (2, 3) for rows in result.patch.rows)


def test_a_budget_of_steps_is_for_each_failing_token(one: CodeModel) -> None:
    result = Mint(step=1e-5)(one, [tiny.case(one)], Budget(2))
    assert result.steps == 2 * len(result.failures_before)


def test_an_edit_costs_one_pass_for_each_candidate(one: CodeModel) -> None:
    case, runs = tiny.case(one, "x"), 0

    def count(*_args: object) -> None:
        nonlocal runs
        runs += 1

    handle = one.network.register_forward_pre_hook(count)
    one_edit = Mint(step=1e-5, edits=1)(one, [case], Budget(1))
    first, runs = runs, 0
    Mint(step=1e-5, edits=2)(one, [case], Budget(2))
    handle.remove()
    assert runs - first == 10 * len(one_edit.failures_before)


def test_a_draft_that_takes_in_more_neurons_keeps_the_weights_bit_for_bit(model: CodeModel) -> None:
    draft = Draft(model, {2: torch.tensor([3, 9])})
    draft.add(2, torch.stack([torch.randn(32), torch.zeros(32)]))
    before, patch = _weights(model), draft.patch({})
    draft = grown(model, draft, {2: torch.tensor([1, 3]), 3: torch.tensor([0])})
    assert {layer: index.tolist() for layer, index in draft.neurons.items()} == {2: [1, 3], 3: [0]}
    assert all(map(torch.equal, _weights(model), before))
    assert moved_only(draft.patch({})).digest == moved_only(patch).digest
    draft.close()


def test_what_was_tried_is_what_is_kept_in_bf16_too(half: CodeModel) -> None:
    result = BOLD(half, [tiny.case(half, "x")], Budget(20))
    install(half, [result.patch])
    again = Mint(edits=0)(half, [tiny.case(half, "x")])
    assert again.failures_before == result.failures_after
