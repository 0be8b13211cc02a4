"""What has been read is not read again, and never served under another history."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from star.cache import KVCache
from star.decode import decode
from star.model import CodeModel
from star.patch import Patch, Rows, install
from star.stop import StopRule
from tests import tiny

IDS = st.lists(st.integers(1, 250), min_size=1, max_size=24)
BLOCK = StopRule.at("", "")


def _counted(model: CodeModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each run of the network was given from now on."""
    runs: list[int] = []
    network = model.network

    class Counting:
        config = network.config

        def __call__(self, ids: torch.Tensor, **more: Any) -> Any:
            runs.append(ids.shape[1])
            return network(ids, **more)

    monkeypatch.setattr(model, "network", Counting())
    return runs


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(texts=st.lists(IDS, min_size=1, max_size=5))
def test_whatever_was_read_before_the_text_is_as_without_a_cache(
    one: CodeModel, texts: Sequence[list[int]]
) -> None:
    cache = KVCache(one)
    for text in texts:
        read = cache.rewind(text[:-1])
        logits = cache.read(text[read:], 1)
        torch.testing.assert_close(logits[0], one.logits(text)[-1], rtol=1e-4, atol=1e-4)
        assert cache.ids == tuple(text)


def test_a_prompt_that_goes_on_is_read_only_where_it_is_new(
    one: CodeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = KVCache(one)
    prompt = one.encode("def f(x):\n    return x + 1\n\n\ndef g(x):\n    return ")
    decode(one, prompt, BLOCK, 4, cache=cache)
    runs = _counted(one, monkeypatch)
    cold = decode(one, [*prompt, 40], BLOCK, 4)
    assert runs[0] == len(prompt) + 1
    runs.clear()
    assert decode(one, [*prompt, 40], BLOCK, 4, cache=cache) == cold
    assert runs[0] == 1


def test_a_prompt_that_was_read_whole_costs_one_token(
    one: CodeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = KVCache(one)
    prompt = one.encode("def f(x):\n    return ")
    first = decode(one, prompt, BLOCK, 4, cache=cache)
    runs = _counted(one, monkeypatch)
    assert decode(one, prompt, BLOCK, 4, cache=cache) == first
    assert runs[0] == 1


def test_what_was_half_read_when_something_failed_is_forgotten(
    one: CodeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = KVCache(one)
    prompt = one.encode("def f(x):\n    return ")
    cold = decode(one, [*prompt, 40], BLOCK, 4)
    decode(one, prompt, BLOCK, 1, cache=cache)

    def fails(*_args: object) -> None:
        raise MemoryError

    handle = one.projection(one.depth - 1).register_forward_pre_hook(fails)
    with pytest.raises(MemoryError):
        cache.read([40], 1)
    handle.remove()
    assert cache.ids == ()
    assert decode(one, [*prompt, 40], BLOCK, 4, cache=cache) == cold


def test_nothing_that_was_read_under_another_history_is_used(one: CodeModel) -> None:
    cache = KVCache(one)
    prompt = one.encode("def f(x):\n    return ")
    decode(one, prompt, BLOCK, 4, cache=cache)
    rows = Rows(0, torch.arange(one.neurons), torch.randn(one.neurons, one.width))
    patch = Patch(one.fingerprint, (rows,))
    try:
        install(one, [patch])
        assert cache.ids == ()
        stale = decode(one, [*prompt, 40], BLOCK, 4, cache=cache)
        assert stale == decode(one, [*prompt, 40], BLOCK, 4)
        install(one, [])
        assert cache.ids == ()
    finally:
        install(one, [])


def test_every_architecture_writes_the_same_with_a_cache(model: CodeModel) -> None:
    cache = KVCache(model)
    for text in ("def f(x):\n    return ", "def f(x):\n    ret", "def g(", "def f(x):\n    return x"):
        prompt = model.encode(text * 3)
        assert decode(model, prompt, BLOCK, 6, cache=cache) == decode(model, prompt, BLOCK, 6)


def test_attention_that_slides_past_what_it_has_seen_is_read_anew() -> None:
    network = tiny.network("gemma3_text")
    window = network.config.sliding_window = 8
    sliding = CodeModel(type(network)(network.config), tiny.tokenizer(), "sliding")
    cache = KVCache(sliding)
    for length in (4, 20, 12, 30, 29):
        text = sliding.encode("def f(x):\n    return x + 1\n")[:length]
        read = cache.rewind(text[:-1])
        torch.testing.assert_close(cache.read(text[read:], 1)[0], sliding.logits(text)[-1])
    assert window == 8
