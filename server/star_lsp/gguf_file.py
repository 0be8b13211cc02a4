"""GGUF files: what one holds, checked before any library is given it, and a copy without its vocabulary.

The format is a header (version, counts, typed key-value pairs, a table of tensors) and then aligned
tensor data. Everything that is counted there is checked against the file's size before it is believed.
"""

import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from star_lsp.errors import CatalogueError

__all__ = ["Header", "read_header", "without_vocabulary"]

FIXED_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY, UINT32, BOOL = 8, 9, 4, 7
MOST_PAIRS, MOST_TENSORS, MOST_DIMENSIONS = 100_000, 100_000, 8
MOST_ITEMS = 20_000_000  # of all arrays: each is walked over
# Of each type of weight, how many make a block, and the bytes of one.
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
}  # fmt: skip
LONGEST_KEY = 65_535  # bytes, by the specification
PLAIN_NAMES = frozenset(
    {"general.architecture", "general.name", "general.license", "tokenizer.ggml.model", "tokenizer.ggml.pre"}
)
# Tokenizers of bytes that put a token before every text where the file does not say whether they do.
BEGINNING = frozenset(
    {
        "llama-bpe",
        "llama3",
        "llama-v3",
        "falcon3",
        "falcon-h1",
        "pixtral",
        "midm-2.0",
        "lfm2",
        "tekken",
        "chameleon",
    }
)
ADDS_BOS = "tokenizer.ggml.add_bos_token"
# One string or number per token: what makes reading the header slow, and only a tokenizer needs it.
VOCABULARY = frozenset(f"tokenizer.ggml.{part}" for part in ("tokens", "merges", "scores", "token_type"))


@dataclass(frozen=True, slots=True)
class Pair:
    """Where one key-value pair lies, and how many items its value has when it is an array."""

    key: str
    start: int
    stop: int
    items: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF file says it holds."""

    version: int
    architecture: str
    strings: dict[str, str]
    pairs: tuple[Pair, ...]
    table_start: int  # where the table of tensors begins
    table_stop: int
    data_start: int
    alignment: int
    tensors: int
    elements: int  # of all tensors together
    flags: dict[str, bool]

    @property
    def tokens(self) -> int:
        """How many tokens the file's own vocabulary has; 0 when it has none."""
        return sum(pair.items for pair in self.pairs if pair.key == "tokenizer.ggml.tokens")

    @property
    def adds_bos(self) -> bool:
        """Whether a token that begins a text stands before each; unsaid, as llama.cpp has it."""
        by_itself = (
            self.strings.get("tokenizer.ggml.model") == "llama"
            or self.strings.get("tokenizer.ggml.pre") in BEGINNING
        )
        return self.flags.get(ADDS_BOS, by_itself)


def read_header(path: Path) -> Header:
    """The file's header, with every count, length and offset checked against the file's size.

    Raises:
        CatalogueError: the file cannot be read, is no GGUF file, or is cut short or damaged.
    """
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as blob:
            return _parse(blob, len(blob))
    except OSError as error:
        raise CatalogueError(f"{path} cannot be read ({error.strerror}); name a GGUF file.") from error
    except (_Damage, ValueError, OverflowError, struct.error) as error:
        raise CatalogueError(f"{path} is no sound GGUF file ({error}); fetch it again.") from error


def without_vocabulary(path: Path, header: Header, copy: Path) -> None:
    """Writes a copy of the file that lacks the arrays of its vocabulary, all else byte for byte.

    Libraries walk those arrays item by item on every look at the file, which takes longer than
    unpacking the weights; for the weights nobody needs them.
    """
    kept = [pair for pair in header.pairs if pair.key not in VOCABULARY]
    with path.open("rb") as source, copy.open("wb") as target:
        target.write(b"GGUF" + struct.pack("<IQQ", header.version, header.tensors, len(kept)))
        for start, stop in [
            *((pair.start, pair.stop) for pair in kept),
            (header.table_start, header.table_stop),
        ]:
            source.seek(start)
            target.write(source.read(stop - start))
        target.write(bytes(-target.tell() % header.alignment))
        source.seek(header.data_start)
        while piece := source.read(1 << 24):
            target.write(piece)


class _Damage(Exception):
    """Something in the header does not fit the file."""


def _parse(blob: mmap.mmap, size: int) -> Header:
    """The header, from the mapped file."""
    if blob[:4] != b"GGUF":
        raise _Damage("it does not begin with the letters GGUF")
    version, tensors, count = struct.unpack_from("<IQQ", blob, 4)
    if version not in (2, 3):
        raise _Damage(f"its version is {version}, known are 2 and 3")
    if count > MOST_PAIRS or not 0 < tensors <= MOST_TENSORS:
        raise _Damage(f"it claims {tensors} tensors and {count} settings")
    at, pairs, strings, flags, alignment, total = 24, [], {}, {}, 32, 0
    keys: set[str] = set()
    for _ in range(count):
        start = at
        key, at = _string(blob, at, size, LONGEST_KEY)
        if key in keys:  # of which two readers may see different ones
            raise _Damage(f"it says {key[:80]} twice")
        keys.add(key)
        (kind,) = struct.unpack_from("<I", blob, at)
        value, items, at = at + 4, *_skip(blob, at + 4, kind, size)
        if (total := total + items) > MOST_ITEMS:
            raise _Damage("its arrays have more items than any model's")
        pairs.append(Pair(key, start, at, items))
        if kind == STRING and key in PLAIN_NAMES:
            strings[key] = _string(blob, value, size, LONGEST_KEY)[0]
        if kind == BOOL and key == ADDS_BOS:
            flags[key] = bool(blob[value])
        if kind == UINT32 and key == "general.alignment":
            (alignment,) = struct.unpack_from("<I", blob, value)
    if not 8 <= alignment <= 65_536 or alignment % 8:
        raise _Damage(f"its alignment is {alignment}")
    if "general.architecture" not in strings:
        raise _Damage("it names no architecture")
    table_start, elements, lies = at, 0, []
    for shape, offset, length, end in _table(blob, at, tensors, size):
        elements += math.prod(shape)
        lies.append((offset, offset + length))
        at = end
    data_start = at + -at % alignment
    lies.sort()
    for (offset, stop), (following, _) in zip(lies, [*lies[1:], (size, size)], strict=True):
        if offset % alignment or stop > following:
            raise _Damage("its tensors lie over one another, or not where they should")
    # Each lies by itself within the file, so a header cannot ask for absurd memory.
    if data_start + max(stop for _, stop in lies) > size:
        raise _Damage("it is cut short: it describes more than it holds")
    architecture = strings["general.architecture"]
    return Header(
        version,
        architecture,
        strings,
        tuple(pairs),
        table_start,
        at,
        data_start,
        alignment,
        tensors,
        elements,
        flags,
    )


def _table(
    blob: mmap.mmap, at: int, tensors: int, size: int
) -> Iterator[tuple[tuple[int, ...], int, int, int]]:
    """Each tensor's shape, offset in the data, length there, and where its entry ends."""
    names: set[str] = set()
    for _ in range(tensors):
        name, at = _string(blob, at, size, LONGEST_KEY)
        if name in names:
            raise _Damage(f"it has the tensor {name[:80]} twice")
        names.add(name)
        (dimensions,) = struct.unpack_from("<I", blob, at)
        if dimensions > MOST_DIMENSIONS:
            raise _Damage(f"the tensor {name[:80]} claims {dimensions} dimensions")
        shape = struct.unpack_from(f"<{dimensions}Q", blob, at + 4)
        elements = math.prod(shape)
        if elements > 2**40 or not elements:
            raise _Damage(f"the tensor {name[:80]} has an absurd shape")
        at += 4 + 8 * dimensions
        kind, offset = struct.unpack_from("<IQ", blob, at)
        block, length = BLOCKS.get(kind, (0, 0))
        if not block or (shape[0] if shape else 1) % block:
            raise _Damage(f"the tensor {name[:80]} is of a type that is not known here, or no multiple of it")
        at += 12
        yield shape, offset, elements // block * length, at


def _skip(blob: mmap.mmap, at: int, kind: int, size: int) -> tuple[int, int]:
    """How many items a value has (0 unless it is an array), and where it ends."""
    items = 0
    if kind in FIXED_BYTES:
        at += FIXED_BYTES[kind]
    elif kind == STRING:
        (length,) = struct.unpack_from("<Q", blob, at)
        at += 8 + length
    elif kind == ARRAY:
        kind, items = struct.unpack_from("<IQ", blob, at)
        at += 12
        if items > min(size, MOST_ITEMS):
            raise _Damage("an array claims more items than the file has bytes, or any model's")
        if kind in FIXED_BYTES:
            at += items * FIXED_BYTES[kind]
        elif kind == STRING:
            for _ in range(items):
                (length,) = struct.unpack_from("<Q", blob, at)
                at += 8 + length
        else:
            raise _Damage(f"it holds an array of the unknown type {kind}")
    else:
        raise _Damage(f"it holds a value of the unknown type {kind}")
    if at > size:
        raise _Damage("a value reaches past its end")
    return items, at


def _string(blob: mmap.mmap, at: int, size: int, longest: int) -> tuple[str, int]:
    """The string that lies there, and where it ends."""
    (length,) = struct.unpack_from("<Q", blob, at)
    if length > longest or at + 8 + length > size:
        raise _Damage("a string is longer than the format or the file allows")
    return blob[at + 8 : at + 8 + length].decode("utf-8"), at + 8 + length
