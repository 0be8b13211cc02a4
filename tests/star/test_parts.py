"""Keys and values in few bits."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from star.parts import coarse_keys, coarse_values, factors, layers, pack, packed_bytes, read, unpack

COUNTS = st.integers(0, 9)


def _made(count: int, neurons: int, width: int, seed: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    keys, values = rng.standard_t(2, (count, neurons)), rng.standard_t(2, (count, width)) * scale
    if count > 1:
        keys[0], values[1] = 0, 0
    return keys, values


@given(
    count=COUNTS,
    neurons=COUNTS,
    width=COUNTS,
    seed=st.integers(0, 999),
    scale=st.sampled_from([1e-9, 1e-7, 1e-3, 1.0, 127.0, 128.0, 200.0]),
)
def test_what_is_coarse_comes_back_from_few_bits_as_it_was_and_is_near_what_was_given(
    count: int, neurons: int, width: int, seed: int, scale: float
) -> None:
    keys, values = _made(count, neurons, width, seed, scale)
    whole, coarse = coarse_keys(keys), coarse_values(values)
    packed = pack(whole, coarse)
    assert packed
    assert packed[0].shape == (count, packed_bytes(neurons))
    back = unpack(neurons, *packed)
    assert np.array_equal(back[0], whole)
    assert np.array_equal(back[1], coarse)
    assert [each.dtype for each in back] == [np.int16, np.float32]

    largest = np.abs(keys).max(axis=1, initial=0, keepdims=True)
    near = whole / 2**15 * 32 / 31 * largest
    assert (np.abs(near - keys) <= largest / 61.9).all()
    largest = np.abs(values).max(axis=1, initial=0, keepdims=True)
    assert (np.abs(coarse - values) <= np.maximum(largest / 127, 2.0**-31)).all()
    assert np.array_equal(coarse.astype(np.float64) % 2.0**-30, np.zeros_like(coarse))


@pytest.mark.parametrize("what", ["keys", "values", "a large value", "a zero with a sign"])
def test_what_is_finer_is_not_packed(what: str) -> None:
    keys, values = _made(4, 8, 6, 0, 1.0)
    whole, coarse = coarse_keys(keys), coarse_values(values)
    if what == "keys":
        whole[2, 3] += 1
    elif what == "values":
        coarse[2, 3] += np.float32(2.0**-20)
    elif what == "a large value":
        coarse[2, 3] = coarse[2].max() * 1000
    else:
        coarse[1, 3] = -0.0
    assert pack(whole, coarse) is None


@pytest.mark.parametrize("neurons", [[], [0], [0, 1], [0, 1, 2], [1, 2], [*range(48)], [*range(47)]])
@pytest.mark.parametrize("finer", [0, 1])
def test_a_file_names_the_neurons_that_the_shape_of_keys_does_not_tell(
    neurons: list[int], finer: int, tmp_path: Path
) -> None:
    keys, values = _made(3, len(neurons), 6, 0, 1.0)
    whole, coarse = coarse_keys(keys) + np.int16(finer), coarse_values(values)
    kept = factors(np.array(neurons, np.int64), whole, coarse)
    save_file({f"7.{name}": each for name, each in kept.items()}, tmp_path / "a")
    with safe_open(tmp_path / "a", "np") as file:
        assert layers(file) == [7]
        for back, wanted in zip(read(file, 7), (np.array(neurons), whole, coarse), strict=True):
            assert np.array_equal(back, wanted)
        read(file, 7, len(neurons), 6)
        for most, width in ((len(neurons) - 1, 6), (len(neurons), 5)):
            with pytest.raises(ValueError, match="wrong shape"):
                read(file, 7, most, width)
    is_first = neurons == [*range(len(neurons))]
    is_told = is_first and (finer or len(neurons) % 4 != 3)
    assert len(kept["neurons"]) == (0 if is_told else len(neurons))


def test_values_in_columns_are_kept_as_those_in_rows() -> None:
    keys, values = _made(3, 8, 6, 0, 1.0)
    whole, coarse = coarse_keys(keys), coarse_values(values)
    for kept in (whole, whole + np.int16(1)):
        columns = factors(np.arange(8), np.asfortranarray(kept), np.asfortranarray(coarse))
        for name, each in factors(np.arange(8), kept, coarse).items():
            assert np.array_equal(columns[name], each)
            assert columns[name].flags["C_CONTIGUOUS"]


def test_bits_that_only_fill_a_byte_must_be_zero() -> None:
    keys, values = _made(2, 5, 6, 0, 1.0)
    packed = pack(coarse_keys(keys), coarse_values(values))
    assert packed
    packed[0][1, -1] |= 1
    with pytest.raises(ValueError, match="only fill a byte"):
        unpack(5, *packed)
