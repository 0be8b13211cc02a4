"""Keys and values in few bits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from star.packed import coarse_keys, coarse_values, neurons_of, pack, packed_bytes, unpack

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


def test_bytes_tell_of_how_many_neurons_a_key_is_where_all_are_filled() -> None:
    told = {neurons for neurons in range(200) if neurons_of(packed_bytes(neurons)) == neurons}
    assert told == {neurons for neurons in range(200) if neurons % 4 != 3}
