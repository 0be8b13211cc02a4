"""What is compiled computes what numpy computes, whatever the shape and the threads."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from star import kernel
from star.lean import Lean
from star.model import CodeModel
from star.patch import Factors, Patch, Rows, installed
from star.product import Beside, Int8Linear, way
from star.team import team
from tests import tiny

compiled_only = pytest.mark.skipif(
    team() is None, reason="torch's threads are not those of GNU's OpenMP here"
)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _layer(inputs: int, outputs: int, seed: int, more: bool) -> Int8Linear:
    drawn = torch.Generator().manual_seed(seed)
    numbers = torch.randint(-127, 128, (outputs, inputs), generator=drawn, dtype=torch.int8)
    scale = torch.rand(outputs, generator=drawn) + 0.1
    if not more:
        return Int8Linear(numbers, scale)
    some = torch.arange(0, inputs, 3)
    beside = Beside(some, torch.randn(len(some), outputs, generator=drawn))
    if seed % 2:
        keys = torch.randn(3, inputs, generator=drawn)
        beside = replace(beside, factors=(keys, torch.randn(3, outputs, generator=drawn)))
    return Int8Linear(
        numbers,
        scale,
        torch.randn(outputs, generator=drawn),
        beside,
        torch.rand(inputs, generator=drawn) + 0.5,
    )


def _by_numpy(layer: Int8Linear, rows: torch.Tensor) -> np.ndarray:
    """The definition, in float64 and whole numbers."""
    x = rows.numpy()
    lifted = x if layer.lift is None else x * layer.lift.numpy()
    reach = np.abs(lifted).max(1, keepdims=True)
    rounded = np.rint(lifted * (np.float32(kernel.LARGEST) / reach)).astype(np.int64)
    made = (rounded @ layer.numbers.numpy().astype(np.int64).T) * layer.scale.numpy().astype(float)
    made = made * (reach.astype(float) / kernel.LARGEST)
    if layer.beside is not None:
        made += x[:, layer.beside.neurons.numpy()].astype(float) @ layer.beside.rows.numpy()
        if layer.beside.factors:
            keys, values = layer.beside.factors
            made += (x.astype(float) @ keys.numpy().T) @ values.numpy()
    return made if layer.bias is None else made + layer.bias.numpy()


def _back_by_numpy(layer: Int8Linear, grads: torch.Tensor) -> np.ndarray:
    """What the inputs have of gradients, in float64: each part of a row is rounded by its own largest."""
    weighed = grads.numpy() * layer.scale.numpy()
    made = np.zeros((len(grads), layer.numbers.shape[1]))
    for start in range(0, weighed.shape[1], 256):
        part, numbers = weighed[:, start : start + 256], layer.numbers.numpy()[start : start + 256]
        reach = np.abs(part).max(1, keepdims=True).clip(min=1e-30)
        rounded = np.rint(part * (np.float32(kernel.STEEPEST) / reach)).astype(np.int64)
        made += (rounded @ numbers.astype(np.int64)) * (reach.astype(float) / kernel.STEEPEST)
    if layer.lift is not None:
        made *= layer.lift.numpy()
    if layer.beside is not None:
        given = grads.numpy().astype(float)
        np.add.at(made.T, layer.beside.neurons.numpy(), layer.beside.rows.numpy() @ given.T)
        if layer.beside.factors:
            keys, values = layer.beside.factors
            made += (given @ values.numpy().T) @ keys.numpy()
    return made


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 23),
    inputs=st.integers(2, 100) | st.sampled_from([64, 128, 192]),
    outputs=st.integers(1, 41),
    seed=st.integers(0, 2**20),
    more=st.booleans(),
    threads=st.integers(1, 3),
)
def test_a_product_is_that_of_the_whole_numbers(
    rows: int, inputs: int, outputs: int, seed: int, more: bool, threads: int
) -> None:
    layer = _layer(inputs, outputs, seed, more)
    x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(seed + 1))
    wanted = _by_numpy(layer, x)
    with _threads(threads):
        seen = layer.rows(x).numpy()
    np.testing.assert_allclose(seen, wanted, rtol=2e-5, atol=2e-5 * float(np.abs(wanted).max() + 1))


@compiled_only
@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 23),
    inputs=st.integers(2, 150) | st.sampled_from([64, 128, 192]),
    outputs=st.integers(1, 41) | st.sampled_from([256, 257, 700]),
    seed=st.integers(0, 2**20),
    more=st.booleans(),
    threads=st.integers(1, 3),
)
def test_a_gradient_is_that_of_the_whole_numbers(
    rows: int, inputs: int, outputs: int, seed: int, more: bool, threads: int
) -> None:
    layer = _layer(inputs, outputs, seed, more)
    grads = torch.randn(rows, outputs, generator=torch.Generator().manual_seed(seed + 1))
    wanted = _back_by_numpy(layer, grads)
    with _threads(threads):
        seen = layer.back(grads, layer.beside).numpy()
    np.testing.assert_allclose(seen, wanted, rtol=2e-5, atol=2e-5 * float(np.abs(wanted).max() + 1))


@compiled_only
def test_a_gradient_that_is_small_nearly_everywhere_keeps_what_is_small() -> None:
    layer = _layer(32, 4096, 1, more=False)
    grads = torch.full((1, 4096), 1e-6)
    grads[0, 7] = -1.0
    wanted = grads.double() @ (layer.scale.double()[:, None] * layer.numbers.double())
    sharp = torch.zeros(1, 4096, dtype=torch.float64).index_fill(1, torch.tensor([7]), -1.0)
    flat = wanted - sharp @ (layer.scale.double()[:, None] * layer.numbers.double())
    # But for what stands beside the large one: a sixteenth, which of random signs is a quarter of the norm.
    assert (layer.back(grads).double() - wanted).norm() < 0.3 * flat.norm()


@compiled_only
@settings(deadline=None, max_examples=30)
@given(rows=st.integers(2, 40), inputs=st.integers(2, 70), outputs=st.integers(1, 600))
def test_a_row_of_a_gradient_gives_the_same_bits_alone_and_among_others(
    rows: int, inputs: int, outputs: int
) -> None:
    layer = _layer(inputs, outputs, rows, more=False)
    grads = torch.randn(rows, outputs, generator=torch.Generator().manual_seed(inputs))
    assert torch.equal(layer.back(grads)[rows // 2], layer.back(grads[rows // 2 : rows // 2 + 1])[0])


@compiled_only
def test_the_largest_sums_of_a_gradient_do_not_overflow() -> None:
    outputs = 1000
    layer = Int8Linear(torch.full((outputs, 80), 127, dtype=torch.int8), torch.ones(outputs))
    wanted = 127.0 * outputs
    assert layer.back(torch.ones(1, outputs))[0].tolist() == pytest.approx([wanted] * 80, rel=1e-6)


@given(
    rows=st.integers(2, 40),
    inputs=st.integers(2, 70) | st.sampled_from([64, 128, 192]),
    outputs=st.integers(1, 30),
)
@settings(deadline=None, max_examples=30)
def test_a_row_gives_the_same_bits_alone_and_among_others(rows: int, inputs: int, outputs: int) -> None:
    layer = _layer(inputs, outputs, rows, more=False)
    x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(inputs))
    assert torch.equal(layer.rows(x)[rows // 2], layer.rows(x[rows // 2 : rows // 2 + 1])[0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_makes_its_row_nan_and_no_other(bad: float) -> None:
    layer = _layer(20, 7, 0, more=True)
    x = torch.ones(3, 20)
    x[1, 5] = bad
    seen = layer.rows(x)
    assert seen[1].isnan().all()
    assert seen[[0, 2]].isfinite().all()
    grads = torch.ones(3, 7)
    grads[1, 5] = bad
    sent = layer.back(grads)
    assert sent[1].isnan().any()
    assert sent[[0, 2]].isfinite().all()


def test_zeros_give_the_bias() -> None:
    layer = _layer(20, 7, 0, more=True)
    assert layer.bias is not None
    assert torch.equal(layer.rows(torch.zeros(2, 20))[1], layer.bias)


def test_the_largest_sums_do_not_overflow() -> None:
    inputs = 16_000
    layer = Int8Linear(torch.full((4, inputs), 127, dtype=torch.int8), torch.ones(4))
    wanted = 127.0 * inputs
    assert layer.rows(torch.ones(1, inputs))[0].tolist() == pytest.approx([wanted] * 4, rel=1e-6)


@compiled_only
def test_the_ways_of_torch_give_the_same_but_for_the_last_bits() -> None:
    assert way() == "compiled"
    layer = _layer(64, 24, 2, more=True)
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    made = layer._of_digits(x)
    assert layer.beside is not None
    made.addmm_(x.index_select(1, layer.beside.neurons), layer.beside.rows)
    torch.testing.assert_close(made, layer.rows(x), rtol=1e-5, atol=1e-4)


@pytest.mark.process
@compiled_only
def test_fewer_threads_than_were_asked_for_make_all_of_it() -> None:
    """A limit of the user's, which torch does not know of."""
    told = {**os.environ, "OMP_THREAD_LIMIT": "1", "OMP_NUM_THREADS": "2"}
    code = (
        "import torch; from star.product import Int8Linear; torch.set_num_threads(2);"
        "made = Int8Linear(torch.ones(40, 64, dtype=torch.int8), torch.ones(40)).rows(torch.ones(9, 64));"
        "assert made.sub(64).abs().max() < 1e-3, made"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=told)


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def model(request: pytest.FixtureRequest) -> CodeModel:
    return CodeModel(tiny.network(request.param), tiny.tokenizer(), f"kernel-{request.param}", weights="int8")


@compiled_only
@settings(deadline=None, max_examples=30)
@given(
    before=st.integers(0, 300),
    count=st.integers(1, kernel.MOST),
    keep=st.integers(1, kernel.MOST),
    seed=st.integers(0, 99),
)
def test_few_tokens_read_by_the_compiled_pass_are_read_as_by_torch(
    model: CodeModel, before: int, count: int, keep: int, seed: int
) -> None:
    lean = model.lean
    assert lean is not None
    drawn = torch.randint(1, 250, (before + count,), generator=torch.Generator().manual_seed(seed)).tolist()
    pasts, logits = [], []
    for few in (lean._few, None):
        past = lean.past()
        with torch.inference_mode():
            if before:
                lean.read(past, drawn[:before], 1)
            logits.append(_read(lean, few, past, drawn[before:], min(keep, count)))
        pasts.append(past)
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-2, atol=1e-3)
    length = before + count
    torch.testing.assert_close(
        pasts[0].both[..., :length, :], pasts[1].both[..., :length, :], rtol=1e-2, atol=1e-3
    )
    torch.testing.assert_close(pasts[0].output[:length], pasts[1].output[:length], rtol=1e-2, atol=1e-3)


def _read(lean: Lean, few: object, past: object, ids: list[int], keep: int) -> torch.Tensor:
    own = lean._few
    lean._few = few  # type: ignore[assignment]
    try:
        return lean.read(past, ids, keep)  # type: ignore[arg-type]
    finally:
        lean._few = own


@compiled_only
def test_a_patch_counts_in_the_compiled_pass_and_is_gone_with_it(model: CodeModel) -> None:
    lean = model.lean
    assert lean is not None
    ids = [3, 5, 8]
    with torch.inference_mode():
        plain = lean.read(lean.past(), ids, 1)
        rows = Rows(model.depth - 1, torch.tensor([1, 4]), torch.full((2, model.width), 0.5))
        keys = torch.full((1, model.neurons), 2**13, dtype=torch.int16)
        factors = Factors(
            model.depth - 2, torch.arange(model.neurons), keys, torch.full((1, model.width), 0.5)
        )
        with installed(model, [Patch(model.fingerprint, (factors, rows))]):
            patched = lean.read(lean.past(), ids, 1)
            assert _read(lean, None, lean.past(), ids, 1) == pytest.approx(patched, rel=1e-2, abs=1e-3)
        assert not torch.allclose(patched, plain)
        assert torch.equal(lean.read(lean.past(), ids, 1), plain)
