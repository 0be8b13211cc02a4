"""The engine on a real, tiny model: what it has read serves the next request, and never another history."""

import asyncio
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from star.cache import KVCache
from star.patch import Patch, Rows
from star_lsp.engine import Engine, Request
from star_lsp.prompt import Limits
from tests import tiny

PREFIX, SUFFIX = "def first(x):\n    return x\n\n\ndef second(y):\n    ", "\n\n\nprint(second(1))\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.folder(tmp_path / "model")


@pytest.fixture
def patch(tmp_path: Path) -> Path:
    """One that changes every neuron of the lowest layer."""
    torch.manual_seed(1)
    model = tiny.model()
    rows = Rows(0, torch.arange(model.neurons), torch.randn(model.neurons, model.width))
    Patch("tiny-qwen2-0", (rows,)).save(tmp_path / "all.safetensors")
    return tmp_path / "all.safetensors"


async def _written(engine: Engine, typed: str, document: str = "a") -> str:
    request = Request(PREFIX + typed, SUFFIX, Limits(), 12, 60_000, document)
    return (await engine.complete(request, threading.Event())).text


def _alone(folder: Path, patches: Sequence[Path], typed: str) -> str:
    """What is written by an engine that has read nothing before."""

    async def run() -> str:
        engine = Engine()
        try:
            await engine.load(folder, patches)
            return await _written(engine, typed)
        finally:
            engine.close()
            engine.join()

    return asyncio.run(run())


def test_a_prompt_is_read_behind_what_begins_every_text(tmp_path: Path, read: list[int]) -> None:
    lengths = []
    for name, says in (("with", True), ("without", False)):
        folder = tiny.folder(tmp_path / name)
        about = {"bos_token": "<|endoftext|>", "add_bos_token": says}
        (folder / "tokenizer_config.json").write_text(json.dumps(about), "utf-8")
        _alone(folder, [], "x")
        lengths.append(read[0])
        read.clear()
    assert lengths[0] == lengths[1] + 1


@pytest.mark.process
def test_the_same_is_written_whatever_was_typed_and_asked_before(folder: Path) -> None:
    texts = ("", "r", "re", "return ", "x = y", "return y", "")

    async def run() -> list[str]:
        engine = Engine()
        try:
            await engine.load(folder, [])
            return [await _written(engine, typed) for typed in texts]
        finally:
            engine.close()
            engine.join()

    assert asyncio.run(run()) == [_alone(folder, [], typed) for typed in texts]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each run of a model has read, as it goes on."""
    counts: list[int] = []
    real = KVCache.read

    def counted(cache: KVCache, ids: Sequence[int], keep: int) -> torch.Tensor:
        counts.append(len(ids))
        return real(cache, ids, keep)

    monkeypatch.setattr(KVCache, "read", counted)
    return counts


def test_what_eight_editors_have_read_is_not_read_again(folder: Path, read: list[int]) -> None:
    async def run() -> tuple[int, int]:
        engine = Engine()
        try:
            await engine.load(folder, [])
            rounds = []
            for typed in ("r", "re"):
                before = sum(read)
                for editor in range(8):
                    await _written(engine, typed, f"file {editor}")
                rounds.append(sum(read) - before)
            return rounds[0], rounds[1]
        finally:
            engine.close()
            engine.join()

    first, second = asyncio.run(run())
    assert second < first / 2


@pytest.mark.process
def test_what_is_kept_of_many_long_documents_has_an_end(folder: Path) -> None:
    async def run() -> int:
        engine = Engine()
        try:
            await engine.load(folder, [])
            for number in range(40):
                long = f"x{number} = 1\n" * 25
                request = Request(long, SUFFIX, Limits(), 1, 60_000, f"file {number}")
                await engine.complete(request, threading.Event())
            return sum(each.room for each in engine._caches.values())
        finally:
            engine.close()
            engine.join()

    assert 2048 < asyncio.run(run()) <= 4096


@pytest.mark.process
def test_what_was_read_before_a_swap_is_not_served_after_it(folder: Path, patch: Path) -> None:
    async def run() -> list[str]:
        engine = Engine()
        try:
            await engine.load(folder, [])
            written = []
            for patches in ([], [patch], []):
                await engine.install(patches)
                await asyncio.sleep(0.05)  # time to read again what was read last
                written += [await _written(engine, "return "), await _written(engine, "return ", "b")]
            return written
        finally:
            engine.close()
            engine.join()

    base, patched = (_alone(folder, patches, "return ") for patches in ([], [patch]))
    assert base != patched
    assert asyncio.run(run()) == [base, base, patched, patched, base, base]


def test_what_is_installed_takes_no_more_memory_than_the_rows_that_it_changes(
    folder: Path, patch: Path
) -> None:
    async def run() -> list[int]:
        engine = Engine()
        try:
            await engine.load(folder, [])
            kept = []
            for count in (1, 20):
                await engine.install([patch] * count)
                model = engine._need_model()
                assert len(model.patches) == count
                kept.append(sum(each.size_bytes for each in model.patches))
            return kept
        finally:
            engine.close()
            engine.join()

    assert asyncio.run(run()) == [0, 0]


def test_more_documents_than_are_kept_are_served_all_the_same(folder: Path) -> None:
    async def run() -> set[str]:
        engine = Engine()
        try:
            await engine.load(folder, [])
            return {await _written(engine, "return ", str(number % 5)) for number in range(10)}
        finally:
            engine.close()
            engine.join()

    assert asyncio.run(run()) == {_alone(folder, [], "return ")}


def test_what_was_read_ahead_is_not_read_again_and_changes_nothing(folder: Path, read: list[int]) -> None:
    async def run() -> tuple[str, list[int]]:
        engine = Engine()
        try:
            await engine.load(folder, [])
            read.clear()
            ahead = Request(PREFIX, SUFFIX, Limits(), 0, 60_000, "a", ahead=True)
            assert not (await engine.complete(ahead, threading.Event())).text
            assert sum(read) > 20
            read.clear()
            return await _written(engine, ""), list(read)
        finally:
            engine.close()
            engine.join()

    text, after = asyncio.run(run())
    assert set(after) <= {1, 2, 3, 4}  # each token that is written, and those that are tried behind it
    assert text == _alone(folder, [], "")


def test_a_failure_while_nobody_waits_harms_no_later_request(
    folder: Path, patch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_args: object) -> None:
        raise MemoryError

    async def run() -> str:
        engine = Engine()
        try:
            await engine.load(folder, [])
            await _written(engine, "return ")
            monkeypatch.setattr(engine, "_warm", fails)
            await engine.install([patch])
            return await _written(engine, "return ")
        finally:
            engine.close()
            engine.join()

    assert asyncio.run(run()) == _alone(folder, [patch], "return ")


@pytest.mark.parametrize(
    ("environ", "spins"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_spin_little_unless_the_user_says_how_they_wait(
    environ: dict[str, str], spins: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    async def load() -> None:
        engine = Engine()
        await engine.load(folder, ())
        engine.close()
        engine.join()

    asyncio.run(load())
    assert os.environ.get("GOMP_SPINCOUNT") == spins
