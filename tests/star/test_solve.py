"""Semantic basis, steer and minimum-norm delta, against numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from star.family import tensor_at
from star.model import CodeModel
from star.parts import coarse_keys
from star.solve import Basis, damped, minimum_norm, natural, normalized, places, sparing

SIZES = st.integers(1, 12)


@settings(max_examples=settings.default.max_examples * 3 // 2, deadline=None)
@given(n=SIZES, f=SIZES, d=SIZES, distinct=SIZES, kept=SIZES, seed=st.integers(0, 2**32 - 1))
def test_the_delta_is_the_minimum_norm_solution_of_numpy(
    n: int, f: int, d: int, distinct: int, kept: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    rows = random.integers(0, min(distinct, n), n)  # rows that stand there twice make Z rank-deficient
    activations = random.standard_normal((n, f)).astype(np.float32)[rows]
    steers = random.standard_normal((n, d)).astype(np.float32)
    mask = np.sort(random.permutation(f)[:kept])

    delta = minimum_norm(torch.tensor(activations[:, mask]), torch.tensor(steers)).numpy()

    wanted = np.linalg.lstsq(activations[:, mask].astype(float), steers.astype(float), rcond=1e-6)[0]
    # The Gram matrix squares the condition number; this is what is left of double precision.
    assert np.abs(delta - wanted).max() <= 1e-4 * max(1.0, np.abs(wanted).max())


def test_no_activation_gives_no_delta() -> None:
    assert not minimum_norm(torch.zeros(3, 5), torch.ones(3, 4)).any()
    assert not minimum_norm(torch.zeros(3, 5), torch.ones(3, 4), sparing(torch.ones(2, 5))).any()


@pytest.mark.parametrize("ordinary", [torch.zeros(0, 5), torch.zeros(2, 5)])
def test_with_nothing_ordinary_the_norm_is_the_plain_one(ordinary: torch.Tensor) -> None:
    """A prompt of one token has nothing before its place."""
    activations, steers = torch.arange(10.0).reshape(2, 5), torch.ones(2, 3)
    weighed = minimum_norm(activations, steers, sparing(ordinary))
    assert torch.equal(weighed, minimum_norm(activations, steers))


def test_where_two_rows_that_are_nearly_one_ask_for_opposites_a_ridge_keeps_the_delta_small() -> None:
    activations = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1e-3]])
    steers = torch.tensor([[1.0], [-1.0]])
    assert float(minimum_norm(activations, steers).norm()) > 1e3
    assert float(minimum_norm(activations, steers, ridge=0.1).norm()) < 1.0


@pytest.mark.parametrize("ordinary_rows", [3, 40])
def test_the_weighed_delta_is_that_of_numpy_and_moves_the_ordinary_least(ordinary_rows: int) -> None:
    """M is written out here; the two ways through small Gram matrices must agree with it."""
    rng = np.random.default_rng(ordinary_rows)
    wide, goal = rng.normal(size=(4, 12)), rng.normal(size=(4, 5))
    ordinary = rng.normal(size=(ordinary_rows, 12)) * np.linspace(0.1, 3, 12)
    moment = ordinary.T @ ordinary / ordinary_rows
    inverse = np.linalg.inv(moment + 0.1 * np.trace(moment) / 12 * np.eye(12))
    wanted = inverse @ wide.T @ np.linalg.pinv(wide @ inverse @ wide.T) @ goal
    z, r, u = (torch.tensor(each, dtype=torch.float32) for each in (wide, goal, ordinary))
    delta = minimum_norm(z, r, sparing(u)).numpy()
    assert np.allclose(delta, wanted, rtol=1e-3, atol=1e-4)
    assert np.allclose(wide @ delta, goal, atol=1e-3)
    plain = minimum_norm(z, r).numpy()
    assert np.linalg.norm(ordinary @ delta) < np.linalg.norm(ordinary @ plain)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("own_rows", "rows"), [(3, 5), (0, 5), (3, 40)])
def test_the_prompt_and_ordinary_code_are_spared_together_as_numpy_says(
    own_rows: int, rows: int, known: bool
) -> None:
    rng = np.random.default_rng(rows)
    own, other = rng.normal(size=(own_rows, 12)), rng.normal(size=(rows, 12)) * np.linspace(0.1, 3, 12)
    moment = own.T @ own / max(own_rows, 1) + other.T @ other
    inverse = np.linalg.inv(moment + 0.1 * np.trace(moment) / 12 * np.eye(12))
    columns = rng.normal(size=(12, 4))
    gram = torch.tensor(other @ other.T) if known else None
    guard = sparing(torch.tensor(own), torch.tensor(other), gram)
    assert guard
    assert np.allclose(guard(torch.tensor(columns)).numpy(), inverse @ columns, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("earlier_rows", [1, 30])
@pytest.mark.parametrize("known", [True, False])
def test_each_place_of_an_earlier_repair_counts_like_all_of_the_prompt_as_numpy_says(
    earlier_rows: int, known: bool
) -> None:
    rng = np.random.default_rng(earlier_rows)
    own, other, earlier = (rng.normal(size=(rows, 12)) for rows in (3, 5, earlier_rows))
    usual = own.T @ own / 3 + other.T @ other
    inverse = np.linalg.inv(usual + earlier.T @ earlier + 0.1 * np.trace(usual) / 12 * np.eye(12))
    columns = rng.normal(size=(12, 4))
    gram = torch.tensor(other @ other.T) if known else None
    guard = sparing(torch.tensor(own), torch.tensor(other), gram, torch.tensor(earlier))
    assert guard
    assert np.allclose(guard(torch.tensor(columns)).numpy(), inverse @ columns, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("rows", [5, 30])
def test_a_key_tells_what_stood_where_it_was_made_as_numpy_says(rows: int, known: bool) -> None:
    rng = np.random.default_rng(rows)
    other, keys = rng.normal(size=(rows, 12)) * np.linspace(0.1, 3, 12), rng.normal(size=(2, 12))
    floor = 0.1 * np.square(other).sum() / 12
    most = floor * np.square(keys).mean() / ((1 / 32) ** 2 / 12)
    inverse = np.linalg.inv(other.T @ other + floor * np.eye(12))
    wanted = np.linalg.solve(inverse + np.eye(12) / most, keys.T).T
    gram = torch.tensor(other @ other.T) if known else None
    found = places(torch.tensor(keys), torch.tensor(other), gram).numpy()
    assert np.allclose(found, wanted / np.linalg.norm(wanted, axis=1, keepdims=True))


@pytest.mark.parametrize("seed", range(3))
def test_where_a_key_that_was_rounded_was_made_later_ones_hardly_answer(seed: int) -> None:
    """Taken at its word, it says less: most of what it says of what all code has there is rounding."""
    rng = np.random.default_rng(seed)
    usual = np.concatenate([np.full(8, 30.0), np.full(504, 1.0)])
    other, stood, new = (torch.tensor(rng.normal(size=(rows, 512)) * usual) for rows in (64, 6, 4))
    new += 0.5 * stood[:4]

    def answer(earlier: Tensor | None) -> float:
        guard = sparing(new[:0], other, None, None if earlier is None else earlier * new.norm(dim=1).mean())
        assert guard
        later = guard(new.T).T
        return float(((later @ stood.T) / (later * new).sum(1, keepdim=True)).square().mean())

    guard = sparing(new[:0], other)
    assert guard
    rounded = torch.from_numpy(coarse_keys(guard(stood.T).T.numpy())).double() / 2**15
    floor = 0.1 * other.square().sum() / 512
    at_its_word = torch.nn.functional.normalize((rounded @ other.T) @ other + floor * rounded)
    told = answer(places(rounded, other))
    assert told < 0.5 * answer(at_its_word)
    assert told < 0.05 * answer(None)


def test_no_key_tells_nothing() -> None:
    assert not places(torch.zeros(2, 12), torch.ones(3, 12)).any()


def test_the_basis_is_the_rows_of_the_pseudo_inverse_with_the_final_gain_folded_in(model: CodeModel) -> None:
    norm = tensor_at(model.network, model.family.norm).weight.double().numpy()
    gain = 1 + norm if model.network.config.model_type.startswith("gemma") else norm
    head = model.network.get_output_embeddings().weight.double().numpy() * gain
    wanted = np.linalg.pinv(head.T)
    tokens = list(range(0, len(head), 7))
    # The ridge of 1e-6 of the mean diagonal moves a well-conditioned basis by about as much.
    assert np.allclose(Basis(model).rows(tokens).numpy(), wanted[tokens], rtol=1e-4, atol=1e-5 * wanted.max())


def test_the_final_norm_multiplies_by_the_gain_that_is_folded_in(model: CodeModel) -> None:
    norm = tensor_at(model.network, model.family.norm)
    x = torch.randn(5, model.width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        centred = x - x.mean(-1, keepdim=True) if hasattr(norm, "bias") else x
        plain = centred / centred.square().mean(-1, keepdim=True).add(1e-6).sqrt()
        bias = norm.bias if hasattr(norm, "bias") else 0
        assert torch.allclose(norm(x), plain * model.final_gain + bias, atol=1e-4)


def test_a_known_factor_is_used_as_it_is(one: CodeModel) -> None:
    known = Basis(one)
    assert torch.equal(Basis(one, known.factor).rows([3, 5]), known.rows([3, 5]))


def test_a_steer_is_the_difference_of_basis_vectors_over_its_interquartile_range(model: CodeModel) -> None:
    basis = Basis(model)
    rows = basis.rows([7, 9]).double().numpy()
    difference = rows[0] - rows[1]
    low, high = np.percentile(difference, [25, 75])
    steer = basis.steer([7], [9])[0].numpy()
    assert np.allclose(steer, difference / (high - low + 1e-8), rtol=1e-4, atol=1e-5)


def test_a_steer_is_zero_where_the_model_is_already_right(one: CodeModel) -> None:
    steers = Basis(one).steer([7, 8], [7, 9])
    assert not steers[0].any()
    assert steers[1].any()


@given(scale=st.floats(1e-2, 1e2))
def test_a_steer_does_not_depend_on_the_scale_of_the_basis(scale: float) -> None:
    directions = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(normalized(directions * scale), normalized(directions), rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_the_basis_of_a_bf16_model_is_made_in_full_precision(half: CodeModel, dtype: torch.dtype) -> None:
    assert half.head.dtype == dtype
    head = half.head.double().numpy() * half.final_gain.double().numpy()
    assert np.allclose(Basis(half).rows([5]).numpy(), np.linalg.pinv(head.T)[[5]], rtol=1e-3, atol=1e-4)


@settings(deadline=None)
@given(n=SIZES, d=SIZES, rank=SIZES, seed=st.integers(0, 2**32 - 1))
def test_a_natural_direction_goes_as_far_and_costs_ordinary_predictions_least(
    n: int, d: int, rank: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    root, pulls = random.standard_normal((rank, d)), random.standard_normal((n, d))
    asked = np.abs(random.standard_normal((n, d))) * np.sign(pulls)
    heeded = root.T @ root
    given = [torch.tensor(each, dtype=torch.float32) for each in (asked, pulls, heeded)]
    found = natural(given[0], given[1], damped(given[2])).double().numpy()

    assert np.allclose((found * pulls).sum(1), (asked * pulls).sum(1), rtol=1e-3, atol=1e-4)
    cost = heeded + 0.1 * np.trace(heeded) / d * np.eye(d)
    least = (asked * pulls).sum(1) ** 2 / np.einsum("nd,nd->n", pulls, np.linalg.solve(cost, pulls.T).T)
    # No direction that goes as far costs less, by Cauchy and Schwarz.
    assert np.allclose(np.einsum("nd,de,ne->n", found, cost, found), least, rtol=1e-3)


def test_where_nothing_is_asked_or_nothing_pulls_nothing_moves() -> None:
    factor, ones = damped(torch.eye(3)), torch.ones(1, 3)
    assert not natural(torch.zeros(1, 3), ones, factor).any()
    assert not natural(ones, torch.zeros(1, 3), factor).any()


def test_where_nothing_is_heeded_a_direction_is_the_pull_itself() -> None:
    """Of a model so small that no ordinary code fits, or one that is sure of everything."""
    found = natural(torch.ones(1, 3), torch.tensor([[1.0, 2.0, 3.0]]), damped(torch.zeros(3, 3)))
    assert torch.allclose(found, torch.tensor([[1.0, 2.0, 3.0]]) * 6 / 14)
