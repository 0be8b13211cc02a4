"""The name of a base: one hash over what a model folder computes with, and nothing else.

Two folders with the same weights and the same configuration have the same fingerprint, wherever they
came from; a patch carries the fingerprint of the base that it is for. Only safetensors are read: a
pickle could run code. Nothing here needs torch, and no tensor is ever copied: the bytes are hashed
where they are mapped.
"""

import hashlib
import json
import math
import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from star.errors import ModelError

__all__ = ["INDEX", "Span", "fingerprint", "read_config", "spans"]

# What a library writes about itself or about where it found the model; the same model has many of them.
VOLATILE = frozenset(
    {
        "_name_or_path",
        "_model_name_or_path",
        "name_or_path",
        "_commit_hash",
        "transformers_version",
        "auto_map",
    }
)
ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
INDEX = "model.safetensors.index.json"
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt"})
LONGEST_HEADER = 1 << 24  # bytes; the format allows 100 MB, which as JSON could become gigabytes
LONGEST_JSON = 1 << 24  # bytes of a configuration or an index
MOST_ENTRIES = 500_000  # objects and lists in one of these
CHUNK = 64 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Span:
    """Where one tensor's bytes lie in a safetensors file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    stop: int


def fingerprint(folder: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """The base's name: SHA-256 in hex over its canonical configuration and every tensor, in name order.

    Args:
        folder: holds ``config.json`` and one or more ``*.safetensors``.
        on_bytes: told how many more bytes were hashed, from several threads.

    Raises:
        ModelError: the folder is no model folder, or a file in it is damaged.
    """
    config = {key: value for key, value in read_config(folder).items() if key not in VOLATILE}
    digest = hashlib.sha256(b"star base 1\n" + _canonical(config))
    found = spans(folder)
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as threads:
        for span, content in zip(found, threads.map(lambda span: _hash(span, on_bytes), found), strict=True):
            digest.update(_canonical([span.name, span.dtype, span.shape, content]))
    return digest.hexdigest()


def read_config(folder: Path) -> dict[str, object]:
    """The folder's ``config.json``.

    Raises:
        ModelError: it is not there, or is not a JSON object.
    """
    path = folder / "config.json"
    try:
        config = _read_json(path)
    except OSError as error:
        raise ModelError(
            f"{folder} has no readable config.json, so it is no model folder; "
            "name the folder that holds config.json and *.safetensors."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON ({_said(error)}); fetch the model again.") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not a JSON object; fetch the model again.")
    return config


def _read_json(path: Path) -> object:
    """What a file holds, which may be made by an enemy: it is looked at before it takes memory.

    Raises:
        OSError: it cannot be read, or is no file but a pipe or device, of which reading has no end.
        ValueError, RecursionError: it is no JSON of a size that any model's has.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    with path.open("rb") as stream:
        return _json(stream.read(LONGEST_JSON + 1))


def _json(content: bytes) -> object:
    if len(content) > LONGEST_JSON or content.count(b"{") + content.count(b"[") > MOST_ENTRIES:
        raise ValueError("too large")
    return json.loads(content)


def spans(folder: Path) -> tuple[Span, ...]:
    """Every tensor of the model, in name order; only the headers are read.

    The model is ``model.safetensors``, or the files that its index names; whatever else lies in the
    folder, such as what was computed from the model, is not part of it.

    Raises:
        ModelError: there are no safetensors, a header is damaged, or a tensor is missing or there twice.
    """
    index = folder / INDEX
    named = _index(index) if index.exists() else {}
    files = [folder / name for name in sorted(set(named.values()))] or [folder / "model.safetensors"]
    for file in files:
        if not file.is_file():
            raise _absent(folder, file)
    found: dict[str, Span] = {}
    for file in files:
        for span in _header(file):
            if span.name in found:
                raise ModelError(
                    f"{folder} has the tensor {span.name} in both {found[span.name].file.name} and "
                    f"{file.name}; keep only one set of weights there."
                )
            found[span.name] = span
    if absent := named.keys() - found.keys():
        raise ModelError(
            f"{folder} lacks the weight {min(absent)}, which its index names; fetch the model again."
        )
    return tuple(found[name] for name in sorted(found))


def _index(path: Path) -> dict[str, str]:
    """Which file holds each tensor of a model in several files."""
    try:
        content: Any = _read_json(path)
        named = {str(name): str(file) for name, file in content["weight_map"].items()}
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is damaged; fetch the model again.") from error
    for file in named.values():
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise ModelError(
                f"{path} names {file}, which is no safetensors file beside it; fetch the model again."
            )
    return named


def _absent(folder: Path, file: Path) -> ModelError:
    """Why a model's weights are not there."""
    if (folder / INDEX).exists():
        return ModelError(f"{folder} lacks {file.name}, which its index names; fetch the model again.")
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        return ModelError(
            f"{folder} has its weights in {pickles[0]}, a pickle, which could run code and is "
            "never read; take the model's safetensors instead (save_pretrained writes them)."
        )
    return ModelError(
        f"{folder} has neither {file.name} nor {INDEX}; name a folder with the model's weights."
    )


def _header(file: Path) -> Iterator[Span]:
    """The tensors that one file's header tells of, each checked against the file's real size."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > LONGEST_HEADER or 8 + length > size:
            raise _damaged(file, "its header is longer than the file or any model's")
        try:
            header = _json(stream.read(length))
        except (ValueError, RecursionError) as error:
            raise _damaged(file, f"its header is not JSON: {_said(error)}") from error
    if not isinstance(header, dict):
        raise _damaged(file, "its header is not a JSON object")
    header.pop("__metadata__", None)
    end = 0  # tensors lie end to end; a gap or an overlap would let two readers see different models
    for span in sorted((_span(file, name, entry, 8 + length) for name, entry in header.items()), key=_place):
        if span.start - 8 - length != end or span.stop > size:
            raise _damaged(file, f"the tensor {span.name} does not lie where it should")
        end = span.stop - 8 - length
        yield span
    if 8 + length + end != size:
        raise _damaged(file, "there are bytes that belong to no tensor, or some are missing")


def _said(error: Exception) -> str:
    return str(error)[:100] or type(error).__name__


def _canonical(value: object) -> bytes:
    """One line of JSON, the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _hash(span: Span, on_bytes: Callable[[int], None] | None) -> str:
    """SHA-256 of one tensor's bytes, so that several tensors can be hashed at once."""
    digest = hashlib.sha256()
    for piece in _pieces(span):
        digest.update(piece)
        if on_bytes is not None:
            on_bytes(len(piece))
    return digest.hexdigest()


def _place(span: Span) -> tuple[int, int]:
    return span.start, span.stop


def _span(file: Path, name: str, entry: object, base: int) -> Span:
    """One header entry, with offsets from the file's start."""
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(start), int(stop)]}:
            pass
        case _:
            raise _damaged(file, f"the tensor {name} is not described as the format wants")
    if dtype not in ITEM_BYTES:
        known = ", ".join(sorted(ITEM_BYTES))
        raise ModelError(
            f"{file} holds {name} as {dtype}, which is not known here; save the model with one of: {known}."
        )
    if not all(type(side) is int and 0 <= side < 2**40 for side in shape):
        raise _damaged(file, f"the tensor {name} has an absurd shape")
    if start < 0 or stop - start != math.prod(shape) * ITEM_BYTES[dtype]:
        raise _damaged(file, f"the tensor {name} has more or fewer bytes than its shape tells")
    return Span(name, dtype, tuple(shape), file, base + start, base + stop)


def _damaged(file: Path, why: str) -> ModelError:
    return ModelError(f"{file} is damaged ({why}); fetch it again.")


def _pieces(span: Span) -> Iterator[memoryview]:
    """The tensor's bytes, mapped and not copied."""
    if span.start == span.stop:
        return
    aligned = span.start - span.start % mmap.ALLOCATIONGRANULARITY
    with (
        span.file.open("rb") as stream,
        mmap.mmap(stream.fileno(), span.stop - aligned, access=mmap.ACCESS_READ, offset=aligned) as mapped,
        memoryview(mapped) as view,
    ):
        for start in range(span.start - aligned, span.stop - aligned, CHUNK):
            with view[start : min(start + CHUNK, span.stop - aligned)] as piece:
                yield piece
