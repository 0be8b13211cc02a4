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


@pytest.fixture(scope="module")
def lean() -> CodeModel:
    """A model whose forward pass is our own."""
    model = CodeModel(tiny.network("qwen2"), tiny.tokenizer(), "lean", weights="int8")
    assert model.lean is not None
    assert 0 < model.lean.mark < model.depth
    return model


def _patch(model: CodeModel, layer: int, neuron: int) -> Patch:
    torch.manual_seed(neuron)
    return Patch(model.fingerprint, (Rows(layer, torch.tensor([neuron]), torch.randn(1, model.width)),))


STEPS = st.lists(
    st.one_of(IDS, st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3)), max_size=2)), max_size=8
)


@pytest.mark.process
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=STEPS, keep=st.integers(1, 4))
def test_whatever_is_repaired_and_reverted_between_the_text_is_as_without_a_cache(
    lean: CodeModel, steps: Sequence[Any], keep: int
) -> None:
    """A step is a text to be read, or a history of patches, below the mark or above, to be put in."""
    cache, top = KVCache(lean), lean.depth - 1
    try:
        for step in steps:
            if not step or isinstance(step[0], tuple):
                install(lean, [_patch(lean, top if above else 0, neuron) for above, neuron in step])
                continue
            read = cache.rewind(step[:-1])
            kept = min(keep, len(step) - read)
            logits = cache.read(step[read:], kept)
            torch.testing.assert_close(logits, lean.logits(step)[-kept:], rtol=1e-2, atol=1e-3)
            assert cache.ids == tuple(step)
    finally:
        install(lean, [])


def test_after_a_repair_of_higher_layers_the_lower_ones_do_not_read_again(
    lean: CodeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lean.lean, "_few", None)  # whose products nobody sees
    cache, text = KVCache(lean), [7, 8, 9, 10, 11]
    cache.read(text, 1)
    lowest, rows = lean.network.model.layers[0].self_attn.o_proj, []
    real = lowest.rows
    monkeypatch.setattr(lowest, "rows", lambda given: (rows.append(len(given)), real(given))[1])
    try:
        for history, layer in (([], lean.depth - 1), ([], 0)):
            install(lean, [*history, _patch(lean, layer, 1)])
            assert cache.ids == ()
            cache.read([*text[:4], 12], 1)
            text = [*text[:4], 12]
    finally:
        install(lean, [])
    # Only the new token; then, as the change is below, and was above, all.
    assert rows == [1, 5]


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
