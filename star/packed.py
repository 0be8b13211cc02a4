"""Keys and values of a patch in few bits, as its file keeps them; with numpy alone.

A key is whole numbers of six bits, one for each neuron. What it comes to is a sum over thousands of these, so
what each is rounded by hardly shows (``star/README.md``, "Patches in few bits").
"""

import numpy as np
from jaxtyping import Float, Float32, Int, Int8, Int16, UInt8

__all__ = ["NOISE", "coarse_keys", "coarse_values", "neurons_of", "pack", "packed_bytes", "unpack"]

_BITS = 6
_MOST = 2 ** (_BITS - 1) - 1
#: Whole numbers of 2⁻¹⁵, as keys are in memory, in one step of six bits.
_STEP = 2 ** (16 - _BITS)
#: The variance of what a number of a key is rounded by; a key's largest is 31/32.
NOISE = (_STEP / 2**15) ** 2 / 12
#: The largest that a value is of its row's power of two, and the least power: values are multiples of 2⁻³⁰.
_LARGEST, _LEAST = 127, -30


def coarse_keys(keys: Float[np.ndarray, "n k"]) -> Int16[np.ndarray, "n k"]:
    """Keys as whole numbers of 2⁻¹⁵ that can be packed, each over its largest."""
    reach = np.abs(keys).max(axis=1, initial=0.0, keepdims=True)
    whole = np.rint(keys / np.where(reach > 0, reach, 1.0) * _MOST)
    coarse: np.ndarray = whole.astype(np.int16) * _STEP
    return coarse


def coarse_values(values: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    """Values that can be packed."""
    powers = _powers(values)
    powers += np.rint(np.ldexp(np.abs(values).max(axis=1, initial=0.0), -powers)) > _LARGEST
    whole = np.rint(np.ldexp(values, -powers[:, None])) + 0.0  # whole numbers have one zero
    coarse: np.ndarray = np.ldexp(whole, powers[:, None]).astype(np.float32)
    return coarse


def pack(
    keys: Int16[np.ndarray, "n k"], values: Float32[np.ndarray, "n d"]
) -> tuple[UInt8[np.ndarray, "n b"], Int8[np.ndarray, "n d"], Int8[np.ndarray, " n"]] | None:
    """Keys, six bits each, and values: whole numbers and each row's power of two. None: finer than that."""
    powers = _powers(values)
    whole = np.ldexp(values.astype(np.float64), -powers[:, None])
    is_whole = (whole == np.rint(whole)) & (np.abs(whole) <= _LARGEST) & ~(np.signbit(whole) & (whole == 0))
    if (keys % _STEP).any() or not is_whole.all():
        return None
    codes = (keys // _STEP + _MOST + 1).astype(np.uint8)
    bits = np.unpackbits(codes[..., None], axis=-1)[..., -_BITS:]
    bits = bits.reshape(len(keys), keys.shape[1] * _BITS)
    return np.packbits(bits, axis=1), whole.astype(np.int8), powers.astype(np.int8)


def unpack(
    neurons: int,
    packed: UInt8[np.ndarray, "n b"],
    mantissas: Int8[np.ndarray, "n d"],
    exponents: Int8[np.ndarray, " n"],
) -> tuple[Int16[np.ndarray, "n k"], Float32[np.ndarray, "n d"]]:
    """Keys over so many neurons, and values, as ``pack`` was given them."""
    bits = np.unpackbits(packed.astype(np.uint8, copy=False), axis=1, count=neurons * _BITS).reshape(
        len(packed), neurons, _BITS
    )
    codes = np.packbits(bits, axis=-1)[..., 0] >> (8 - _BITS)
    keys = (codes.astype(np.int16) - (_MOST + 1)) * _STEP
    with np.errstate(over="ignore"):  # of a file that is no patch
        values = np.ldexp(mantissas.astype(np.float32), exponents.astype(np.int32)[:, None])
    return keys, values


def neurons_of(packed_bytes: int) -> int:
    """Of how many neurons a key of so many bytes is, where these are as many as fill the bytes."""
    return packed_bytes * 8 // _BITS


def packed_bytes(neurons: int) -> int:
    """How many bytes a key over so many neurons takes."""
    return (neurons * _BITS + 7) // 8


def _powers(values: Float[np.ndarray, "n d"]) -> Int[np.ndarray, " n"]:
    """Of each row, the power of two of which its largest is 64 to 128; not below the least."""
    _, powers = np.frexp(np.abs(values).max(axis=1, initial=0.0))
    lowest: np.ndarray = np.maximum(powers - 7, _LEAST)
    return lowest
