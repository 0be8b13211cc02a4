"""The forward pass of our own computes what the network computes, whatever was read before."""

from collections.abc import Sequence
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from star.lean import Lean, lean_of
from star.locate import layers_by_depth
from star.model import CodeModel
from star.patch import Patch, Rows, installed
from star.repair import Star
from tests import tiny

KNOWN = ("llama", "qwen2")
#: A difference in the last bits of what is rounded to digits may make it another digit.
NEAR = {"rtol": 1e-2, "atol": 1e-3}
IDS = st.lists(st.integers(1, 250), min_size=1, max_size=40)


@cache
def _model(model_type: str) -> CodeModel:
    return CodeModel(tiny.network(model_type), tiny.tokenizer(), f"lean-{model_type}", weights="int8")


def _lean(model: CodeModel) -> Lean:
    assert model.lean is not None
    return model.lean


@pytest.mark.process
@settings(deadline=None, max_examples=40)
@given(model_type=st.sampled_from(KNOWN), texts=st.lists(IDS, min_size=1, max_size=4), keep=st.integers(1, 5))
def test_whatever_the_pieces_the_logits_are_those_of_the_network(
    model_type: str, texts: Sequence[list[int]], keep: int
) -> None:
    model, whole = _model(model_type), [id_ for text in texts for id_ in text]
    past = _lean(model).past()
    for number, text in enumerate(texts):
        length = sum(map(len, texts[: number + 1]))
        kept = min(keep, len(text))
        read = _lean(model).read(past, text, kept)
        wanted = model.logits(whole[:length])[-kept:]
        torch.testing.assert_close(read, wanted, **NEAR)
        assert past.length == length


@given(model_type=st.sampled_from(KNOWN), text=IDS, other=IDS, cut=st.integers(0, 40))
@settings(deadline=None, max_examples=20)
def test_what_is_forgotten_leaves_no_trace(
    model_type: str, text: list[int], other: list[int], cut: int
) -> None:
    lean = _lean(_model(model_type))
    past, fresh = lean.past(), lean.past()
    lean.read(past, text, 1)
    past.crop(cut)
    left = text[: past.length]
    if left:
        lean.read(fresh, left, 1)
    torch.testing.assert_close(lean.read(past, other, 1), lean.read(fresh, other, 1), **NEAR)


@pytest.mark.parametrize("model_type", KNOWN)
def test_a_patch_that_is_put_in_counts_and_one_that_is_taken_out_does_not(model_type: str) -> None:
    model, ids = _model(model_type), [5, 9, 12]
    base = _lean(model).read(_lean(model).past(), ids, 1)
    rows = Rows(1, torch.tensor([2, 5]), torch.randn(2, model.width))
    with installed(model, [Patch(model.fingerprint, (rows,))]):
        patched = _lean(model).read(_lean(model).past(), ids, 1)
        torch.testing.assert_close(patched, model.logits(ids)[-1:], **NEAR)
    assert not torch.allclose(patched, base)
    assert torch.equal(_lean(model).read(_lean(model).past(), ids, 1), base)


@pytest.mark.parametrize("depth", range(1, 33))
def test_the_mark_is_where_default_repairs_begin(depth: int) -> None:
    model = _model("qwen2")
    layers = _lean(model)._layers[:1] * depth
    assert Lean(model.network, layers).mark == layers_by_depth(depth, Star().layers)[0]


def test_room_grows_and_what_was_read_stays() -> None:
    lean = _lean(_model("qwen2"))
    past, fresh = lean.past(), lean.past()
    text = [1 + number % 200 for number in range(300)]
    lean.read(past, text[:250], 1)
    torch.testing.assert_close(lean.read(past, text[250:], 1), lean.read(fresh, text, 1), **NEAR)


@pytest.mark.process
@pytest.mark.parametrize("model_type", sorted(set(tiny.SHAPES) - set(KNOWN)))
def test_what_is_not_known_is_left_to_the_network(model_type: str) -> None:
    assert _model(model_type).lean is None


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
        {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 0},
    ],
)
def test_a_known_name_with_other_arithmetic_is_left_to_the_network(change: dict[str, object]) -> None:
    network = tiny.network("qwen2")
    config = type(network.config)(**network.config.to_dict() | change)
    assert lean_of(type(network)(config)) is None


def test_other_layers_are_left_to_the_network() -> None:
    assert lean_of(tiny.network("qwen2")) is None  # as stored


@pytest.mark.parametrize("model_type", KNOWN)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_is_stored_in_half_precision_is_read_in_fewer_calls_too(
    model_type: str, dtype: torch.dtype
) -> None:
    model = CodeModel(tiny.network(model_type, dtype=dtype), tiny.tokenizer(), "half", weights="int8")
    ids = model.encode("def f(x):\n    return x")
    past = _lean(model).past()
    read = [_lean(model).read(past, part, len(part)) for part in (ids[:9], ids[9:10], ids[10:])]
    torch.testing.assert_close(torch.cat(read), model.logits(ids), **NEAR)


def test_an_error_in_the_middle_leaves_the_past_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    lean = _lean(_model("llama"))
    past = lean.past()
    wanted = lean.read(past, [3, 4, 5], 1)
    with pytest.raises(IndexError):
        lean.read(past, [3, 10**6], 1)
    past.crop(2)
    torch.testing.assert_close(lean.read(past, [5], 1), wanted, **NEAR)
