"""What a patch's file is made of: rows, or keys and values, in few bits where these say all.

A coarse key is whole numbers of six bits, one for each neuron. What it comes to is a sum over thousands of
these, so what each is rounded by hardly shows (``star/README.md``, "Patches in few bits"). Needs no torch.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int, Int8, Int16, UInt8

__all__ = ["KEY", "NOISE", "VALUE", "coarse_keys", "coarse_values", "factors", "layers", "read"]

#: The least power of two that values are of.
_LEAST = -30
#: Keys are whole numbers of the first, values of the second.
KEY, VALUE = 2.0**-15, 2.0**_LEAST

_BITS = 6
_MOST = 2 ** (_BITS - 1) - 1
#: So many of a key's whole numbers are one step of six bits.
_STEP = 2 ** (16 - _BITS)
#: The variance of what a number of a coarse key is rounded by; the largest is 31/32.
NOISE = (_STEP * KEY) ** 2 / 12
#: The largest whole number of a packed value.
_LARGEST = 127

#: The names and types of what each kind of part has. Neurons that are all from the first on go unnamed, where
#: the shape of keys tells how many these are.
_KINDS = {
    "rows": {"neurons": "I64", "delta": "F32"},
    "factors": {"neurons": "I32", "keys": "I16", "values": "F32"},
    "packed": {"neurons": "I32", "packed": "U8", "mantissas": "I8", "exponents": "I8"},
}

#: Keys in six bits; values over a power of two; that power, for each row.
Packed = tuple[UInt8[np.ndarray, "n b"], Int8[np.ndarray, "n d"], Int8[np.ndarray, " n"]]


def coarse_keys(keys: Float[np.ndarray, "n k"]) -> Int16[np.ndarray, "n k"]:
    """Keys that can be packed, as whole numbers, each over its largest."""
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


def factors(
    neurons: Int[np.ndarray, " k"], keys: Int16[np.ndarray, "n k"], values: Float32[np.ndarray, "n d"]
) -> dict[str, np.ndarray]:
    """What a file keeps of keys and values, by the end of its name: packed where they are coarse."""
    packed, count = pack(keys, values), len(neurons)
    kind, numbers = ("packed", packed) if packed else ("factors", (keys, values))
    is_all = _told(kind, numbers[0].shape[1]) == count and np.array_equal(neurons, np.arange(count))
    kept = (neurons[:0] if is_all else neurons).astype(np.int32), *numbers
    return dict(zip(_KINDS[kind], map(np.ascontiguousarray, kept), strict=True))


def layers(file: Any) -> list[int]:
    """The layers that an open file has parts of, ascending.

    Raises:
        ValueError: something in it is no part.
    """
    names = set(file.keys())
    found = sorted(int(name.split(".")[0]) for name in names if name.endswith(".neurons"))
    if names != {f"{layer}.{name}" for layer in found for name in _KINDS[_kind(names, layer)]}:
        raise ValueError("it has parts that no patch has")
    return found


def read(
    file: Any, layer: int, neurons: int | None = None, width: int | None = None
) -> tuple[np.ndarray, ...]:
    """Neurons of a layer, and their rows' deltas ``(k, d)``, or keys ``(n, k)`` and values ``(n, d)``.

    ``neurons`` is how many the layer has, ``width`` is d, where these are known.

    Raises:
        ValueError: types or shapes are not such a part's. They are looked at before anything is read.
    """
    kind = _kind(set(file.keys()), layer)
    slices = [file.get_slice(f"{layer}.{name}") for name in _KINDS[kind]]
    if [each.get_dtype() for each in slices] != list(_KINDS[kind].values()):
        raise ValueError(f"layer {layer} has numbers of the wrong type")
    named, *shapes = (each.get_shape() for each in slices)
    if len(named) != 1 or any(len(each) != 2 for each in shapes[:2]):
        raise ValueError(f"layer {layer} has numbers of the wrong shape")
    is_all = kind != "rows" and named == [0]
    rank, count = shapes[0][0], _told(kind, shapes[0][1]) if is_all else named[0]
    broad = shapes[0 if kind == "rows" else 1][1] if width is None else width
    wanted = {
        "rows": [[count, broad]],
        "factors": [[rank, count], [rank, broad]],
        "packed": [[rank, packed_bytes(count)], [rank, broad], [rank]],
    }[kind]
    if shapes != wanted or (neurons is not None and count > neurons):
        raise ValueError(f"layer {layer} has numbers of the wrong shape")
    index, *kept = (file.get_tensor(f"{layer}.{name}") for name in _KINDS[kind])
    numbers = unpack(count, *kept) if kind == "packed" else kept
    return (np.arange(count) if is_all else index.astype(np.int64), *numbers)


def _kind(names: set[str], layer: int) -> str:
    """What kind of part a layer has, of a file with these names."""
    return next((kind for kind, (_, first, *_) in _KINDS.items() if f"{layer}.{first}" in names), "rows")


def _told(kind: str, across: int) -> int:
    """Of how many neurons keys are, by their shape."""
    return across * 8 // _BITS if kind == "packed" else across


# -- few bits --------------------------------------------------------------------------------------


def packed_bytes(neurons: int) -> int:
    """How many bytes a key over so many neurons takes."""
    return (neurons * _BITS + 7) // 8


def pack(keys: Int16[np.ndarray, "n k"], values: Float32[np.ndarray, "n d"]) -> Packed | None:
    """Keys and values in few bits; None where these do not say all."""
    powers = _powers(values)
    whole = np.ldexp(values.astype(np.float64), -powers[:, None])
    is_whole = (whole == np.rint(whole)) & (np.abs(whole) <= _LARGEST) & ~(np.signbit(whole) & (whole == 0))
    if (keys % _STEP).any() or not is_whole.all():
        return None
    count, neurons = keys.shape
    codes = np.zeros((count, -(-neurons // 4), 4), np.uint8)
    codes.reshape(count, codes.shape[1] * 4)[:, :neurons] = keys // _STEP + _MOST + 1
    a, b, c, d = np.moveaxis(codes, 2, 0)
    three = np.stack([a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d], axis=2)
    packed = three.reshape(count, codes.shape[1] * 3)[:, : packed_bytes(neurons)]
    return packed, whole.astype(np.int8), powers.astype(np.int8)


def unpack(
    neurons: int,
    packed: UInt8[np.ndarray, "n b"],
    mantissas: Int8[np.ndarray, "n d"],
    exponents: Int8[np.ndarray, " n"],
) -> tuple[Int16[np.ndarray, "n k"], Float32[np.ndarray, "n d"]]:
    """Keys over so many neurons, and values, as ``pack`` was given them.

    Raises:
        ValueError: bits that only fill a byte are not zero.
    """
    count, across = len(packed), -(-neurons // 4)
    three = np.zeros((count, across, 3), np.uint8)
    three.reshape(count, across * 3)[:, : packed.shape[1]] = packed
    a, b, c = np.moveaxis(three, 2, 0)
    four = np.stack([a >> 2, (a & 3) << 4 | b >> 4, (b & 15) << 2 | c >> 6, c & 63], axis=2)
    codes = four.reshape(count, across * 4)
    if codes[:, neurons:].any():
        raise ValueError("bits that only fill a byte are not zero")
    keys = (codes[:, :neurons].astype(np.int16) - (_MOST + 1)) * _STEP
    with np.errstate(over="ignore"):  # of a file that is no patch
        values = np.ldexp(mantissas.astype(np.float32), exponents.astype(np.int32)[:, None])
    return keys, values


def _powers(values: Float[np.ndarray, "n d"]) -> Int[np.ndarray, " n"]:
    """Of each row, the power of two of which its largest is 64 to 128; not below the least."""
    _, powers = np.frexp(np.abs(values).max(axis=1, initial=0.0))
    lowest: np.ndarray = np.maximum(powers - 7, _LEAST)
    return lowest
