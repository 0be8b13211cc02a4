"""A patch file, read with no model and no torch: for who must not wait for either."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["deltas", "identity"]


def identity(path: Path) -> tuple[str, str]:
    """The base and the digest of a patch, as ``star.patch`` makes it.

    Raises:
        OSError, SafetensorError, ValueError, KeyError: it cannot be read, or is no patch.
    """
    from safetensors import safe_open  # a handler must not wait for it

    from star.parts import layers, read

    with safe_open(path, "np") as file:
        base = str((file.metadata() or {}).get("base"))
        digest = hashlib.sha256(base.encode())
        for layer in layers(file):
            neurons, *others = read(file, layer)
            digest.update(f"{layer} {' '.join(str(each.shape) for each in others)}".encode())
            for each in (neurons, *others):
                digest.update(each.tobytes())
    return base, digest.hexdigest()


def deltas(path: Path) -> Iterator[tuple[int, Any, Any]]:
    """The layers of a patch, ascending: each with its neurons, and what is added to their rows, in fp64.

    Raises:
        OSError, SafetensorError, ValueError, KeyError: it cannot be read, or is no patch.
    """
    from safetensors import safe_open

    from star.parts import KEY, layers, read

    with safe_open(path, "np") as file:
        for layer in layers(file):
            neurons, *others = read(file, layer)
            first, *values = (each.astype("float64") for each in others)
            yield layer, neurons, (first.T * KEY) @ values[0] if values else first
