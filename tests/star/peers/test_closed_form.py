"""The closed form gives what is wanted, and disturbs ordinary activations least."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from star.case import Case
from star.errors import CaseError
from star.family import tensor_at
from star.model import CodeModel
from star.patch import install
from star.peers import ClosedForm, inverse, layers_at, null_space, second_moment
from star.result import Budget
from star.solve import minimum_norm
from tests import tiny


def _drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _ordinary(seed: int, tokens: int, f: int) -> Tensor:
    """Activations of ordinary tokens: some directions far stronger than others."""
    return _drawn(seed, tokens, f) * torch.logspace(-1, 1, f)


systems = given(seed=st.integers(0, 10_000), n=st.integers(1, 5), f=st.integers(8, 40))


@systems
@settings(deadline=None, max_examples=60)
def test_without_damping_every_wanted_movement_is_brought_about(seed: int, n: int, f: int) -> None:
    ordinary = _ordinary(seed, 4 * f, f)
    moment = ordinary.T @ ordinary / len(ordinary)
    z, r = _drawn(seed + 1, n, f), _drawn(seed + 2, n, 6)
    for guard in (None, inverse(moment, 1e-6)):
        assert torch.allclose(z @ minimum_norm(z, r, guard, 0.0), r, rtol=1e-3, atol=1e-3)


@systems
@settings(deadline=None, max_examples=60)
def test_ordinary_activations_are_disturbed_less_than_by_the_least_norm(seed: int, n: int, f: int) -> None:
    ordinary = _ordinary(seed, 4 * f, f)
    moment = ordinary.T @ ordinary / len(ordinary)
    z, r = _drawn(seed + 1, n, f), _drawn(seed + 2, n, 6)
    plain = ordinary @ minimum_norm(z, r, None, 0.0)
    spared = ordinary @ minimum_norm(z, r, inverse(moment, 1e-6), 0.0)
    assert float(spared.norm()) <= float(plain.norm()) * 1.001


@systems
@settings(deadline=None, max_examples=60)
def test_the_delta_is_that_of_memits_normal_equations(seed: int, n: int, f: int) -> None:
    """(λC + ZᵀZ) X = ZᵀR, MEMIT's equation 14, whichever way it is solved."""
    ordinary = _ordinary(seed, 4 * f, f)
    moment = ordinary.T @ ordinary / len(ordinary)
    z, r = _drawn(seed + 1, n, f), _drawn(seed + 2, n, 6)
    c = moment.double().numpy() + 1e-2 * float(moment.diagonal().mean()) * np.eye(f)
    wide = z.double().numpy()
    weight = 0.5 * np.mean(np.diag(wide @ np.linalg.solve(c, wide.T)))
    known = np.linalg.solve(weight * c + wide.T @ wide, wide.T @ r.double().numpy())
    assert np.allclose(minimum_norm(z, r, inverse(moment), 0.5), known, rtol=1e-3, atol=1e-3)


@systems
@settings(deadline=None, max_examples=60)
def test_the_null_space_leaves_ordinary_activations_as_they_are(seed: int, n: int, f: int) -> None:
    ordinary = _drawn(seed, 50, f // 2) @ _drawn(seed + 3, f // 2, f)  # of half the rank
    moment = ordinary.T @ ordinary / len(ordinary)
    n = min(n, f - f // 2)
    z, r = _drawn(seed + 1, n, f), _drawn(seed + 2, n, 6)
    delta = minimum_norm(z, r, null_space(moment, 1e-5), 0.0).double()
    # Nothing is left of it but where C is next to nothing; a delta that is huge there feels fp32's zeros.
    felt = (1e-5 * float(moment.diagonal().mean()) * len(ordinary)) ** 0.5
    assert float((ordinary.double() @ delta).norm()) <= felt * float(delta.norm())
    plain = minimum_norm(z, r, None, 0.0).double()
    assume(
        float(delta.norm()) <= 100 * float(plain.norm())
    )  # one in a thousand has next to no solution there
    assert float((ordinary.double() @ delta).norm()) <= 0.05 * float((ordinary.double() @ plain).norm())


def test_two_equal_rows_are_safe() -> None:
    z = _drawn(0, 1, 20).repeat(2, 1)
    r = _drawn(1, 1, 6).repeat(2, 1)
    delta = minimum_norm(z, r, None, 0.0)
    assert torch.allclose(z @ delta, r, atol=1e-4)


def _samples(model: CodeModel) -> list[tuple[int, ...]]:
    return [model.encode(text) for text in ("import os\n", "for i in range(9):\n    print(i)\n", "a = {}\n")]


def test_the_second_moment_is_that_of_what_enters_the_projections(model: CodeModel) -> None:
    samples, kept = _samples(model), list[Tensor]()
    handle = model.projection(2).register_forward_pre_hook(lambda _m, args: kept.append(args[0]))
    with torch.no_grad():
        for ids in samples:
            model.logits(ids)
    handle.remove()
    rows = torch.cat([each.reshape(-1, model.neurons) for each in kept]).double().numpy()
    moments = second_moment(model, samples, [2, 3])
    assert set(moments) == {2, 3}
    assert np.allclose(moments[2], rows.T @ rows / len(rows), rtol=1e-3, atol=1e-5)


def test_a_sample_that_is_too_long_is_refused(one: CodeModel) -> None:
    with pytest.raises(CaseError, match="context"):
        second_moment(one, [(1,) * 600], [2])


def test_a_guarded_repair_disturbs_ordinary_text_less(model: CodeModel) -> None:
    samples = [ids[:12] for ids in _samples(model)]
    layers = layers_at(model.depth, "one", "middle")
    moments = second_moment(model, samples, layers)
    method = ClosedForm(layers="one", damping=1e-9)
    moved = []
    for guards in ({}, {layer: inverse(moments[layer], 1e-3) for layer in layers}):
        delta = method(model, [tiny.case(model, "x")], Budget(1), guards=guards).patch.rows[0].delta
        moved.append(float((delta * (moments[layers[0]] @ delta)).sum()))
    assert moved[1] < 0.9 * moved[0]


def _states(model: CodeModel, case: Case, layer: int) -> Tensor:
    """The hidden states behind a layer, at the places that predict the expected tokens and the end."""
    kept: list[Tensor] = []

    def keep(_module: object, _args: object, output: Tensor | tuple[Tensor, ...]) -> None:
        kept.append(output[0] if isinstance(output, tuple) else output)

    handle = tensor_at(model.network, model.family.layers)[layer].register_forward_hook(keep)
    with torch.no_grad():
        model.logits(case.prompt + model.encode_next(case.expected))
    handle.remove()
    return kept[0][0, len(case.prompt) - 1 :]


def test_one_round_brings_the_hidden_states_to_where_all_is_right(one: CodeModel) -> None:
    """One layer, no damping: what the search found is what the layer then gives out."""
    method = ClosedForm(layers="one", at="last", damping=0.0, tries=100, rate=0.3, reach=9.0)
    result = method(one, [tiny.case(one)], Budget(1))
    assert len(result.failures_before) == 4
    assert (result.steps, result.solved) == (1, True)


@pytest.mark.parametrize("reach", [0.1, 0.5])
def test_no_hidden_state_is_moved_further_than_allowed(one: CodeModel, reach: float) -> None:
    method, case = ClosedForm(layers="one", at="middle", damping=0.0, reach=reach), tiny.case(one)
    layer = layers_at(one.depth, "one", "middle")[0]
    before = _states(one, case, layer)
    install(one, [method(one, [case], Budget(1)).patch])
    moved = (_states(one, case, layer) - before).norm(dim=-1) / before.norm(dim=-1)
    assert float(moved.max()) == pytest.approx(reach, rel=1e-2)
