"""A patch file, read with no model and no torch: for who must not wait for either."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["deltas", "identity"]

#: Keys are whole numbers of this.
_KEY = 2.0**-15


def identity(path: Path) -> tuple[str, str]:
    """The base and the digest of a patch, as ``star.patch`` makes it.

    Raises:
        OSError, SafetensorError, ValueError, KeyError: it cannot be read, or is no patch.
    """
    import numpy  # a handler must not wait for it
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        base = str((file.metadata() or {}).get("base"))
        digest = hashlib.sha256(base.encode())
        for layer, (neurons, *others) in _parts(file):
            digest.update(f"{layer} {' '.join(str(each.shape) for each in others)}".encode())
            for each in (neurons.astype(numpy.int64), *others):
                digest.update(numpy.ascontiguousarray(each).tobytes())
    return base, digest.hexdigest()


def deltas(path: Path) -> Iterator[tuple[int, Any, Any]]:
    """The layers of a patch, ascending: each with its neurons, and what is added to their rows, in fp64.

    Raises:
        OSError, SafetensorError, ValueError, KeyError: it cannot be read, or is no patch.
    """
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        for layer, (neurons, *others) in _parts(file):
            first, *values = (each.astype("float64") for each in others)
            yield layer, neurons, (first.T * _KEY) @ values[0] if values else first


def _parts(file: Any) -> Iterator[tuple[int, list[Any]]]:
    """The layers of an open file, ascending: each with its neurons, and their rows, or keys and values.

    Keys that name no neurons are of all of them.
    """
    import numpy

    from star.packed import neurons_of, unpack

    names = set(file.keys())
    for layer in sorted(int(name.split(".")[0]) for name in names if name.endswith(".neurons")):
        factors = (("keys", "values"), ("packed", "mantissas", "exponents"))
        kind = next((each for each in factors if f"{layer}.{each[0]}" in names), ("delta",))
        neurons, first, *more = (file.get_tensor(f"{layer}.{name}") for name in ("neurons", *kind))
        is_packed = len(more) > 1
        if more and not neurons.size and first.ndim == 2:
            neurons = numpy.arange(neurons_of(first.shape[1]) if is_packed else first.shape[1])
        yield layer, [neurons, *(unpack(len(neurons), first, *more) if is_packed else (first, *more))]
