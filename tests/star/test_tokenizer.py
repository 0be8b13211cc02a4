"""What begins every text for a model, and what ends a completion, as its tokenizer has it."""

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

from star.case import Case
from star.fisher import fisher, known_by
from star.model import CodeModel
from star.repair import repair
from star.result import Budget
from star.stop import StopRule
from star.tokenizer import Plain, marks, start_ids, stop_ids, tokenizer_in
from tests import tiny

BOS = "<|endoftext|>"


def with_bos() -> Tokenizer:
    """The tiny tokenizer, which puts a token before every text when it is asked to."""
    made = Tokenizer.from_str(tiny.tokenizer().to_str())
    made.post_processor = TemplateProcessing(
        single=[BOS, "$A"], special_tokens=[(BOS, made.token_to_id(BOS))]
    )
    return made


def with_tags() -> Tokenizer:
    """A tokenizer with tokens as Gemma's has them: markup, reserves by the thousand, tags of HTML."""
    made = Tokenizer.from_str(tiny.tokenizer().to_str())
    made.add_special_tokens([AddedToken("<end_of_turn>", special=True)])
    made.add_tokens([AddedToken(f"<unused{i}>", normalized=False) for i in range(1000)])
    made.add_tokens(
        [AddedToken(tag, normalized=False) for tag in ("<div>", "</div>", "<h1>", "<mask>", "\n\n")]
    )
    return made


@pytest.fixture(scope="module")
def model() -> CodeModel:
    """A tiny model whose texts begin with a token."""
    return CodeModel(tiny.network("qwen2"), with_bos(), "tiny-with-bos")


def test_what_begins_every_text_is_what_the_tokenizer_puts_there(model: CodeModel) -> None:
    assert start_ids(tiny.tokenizer()) == ()
    assert tiny.model().encode_first("ab") == tiny.model().encode("ab")
    (bos,) = model.start_ids
    assert bos == model.token_id(BOS)
    assert model.encode_first("ab") == (bos, *model.encode("ab"))
    assert model.encode_next("ab") == model.encode("ab") == tiny.model().encode("ab")


@pytest.mark.parametrize("name", [BOS, {"__type": "AddedToken", "content": BOS}])
def test_a_token_that_begins_texts_may_be_told_beside_the_tokenizer(tmp_path: Path, name: object) -> None:
    tiny.tokenizer().save(str(tmp_path / "tokenizer.json"))
    assert start_ids(tokenizer_in(tmp_path)) == ()
    beside = tmp_path / "tokenizer_config.json"
    for says, starts in ((True, (256,)), (False, ()), (None, ())):
        beside.write_text(json.dumps({"bos_token": name, "add_bos_token": says}), "utf-8")
        assert start_ids(tokenizer_in(tmp_path)) == starts
    beside.write_text(json.dumps({"bos_token": "<none>", "add_bos_token": True}), "utf-8")
    assert start_ids(tokenizer_in(tmp_path)) == ()


def test_a_loaded_model_begins_texts_as_its_folder_says(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "model")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": BOS, "add_bos_token": True}), "utf-8"
    )
    assert CodeModel.load(folder).start_ids == (256,)


def test_ordinary_code_is_read_behind_what_begins_it_and_known_by_that(model: CodeModel) -> None:
    plain = CodeModel(tiny.network("qwen2"), tiny.tokenizer(), "tiny-without")
    # The first position is left out: of one token alone nothing is read, unless another begins the text.
    assert not fisher(plain, ["a"], [1])[1].outputs.any()
    assert fisher(model, ["a"], [1])[1].outputs.any()
    assert known_by(plain, ["a"]) != known_by(model, ["a"])


def test_tags_are_text_and_markup_ends_a_completion() -> None:
    tokenizer = with_tags()
    ends = stop_ids(SimpleNamespace(eos_token_id=[256]), tokenizer)
    told = {tokenizer.id_to_token(id_) for id_ in ends}
    assert {"<end_of_turn>", "<mask>", "<|fim_prefix|>", "<unused7>"} <= told
    assert told.isdisjoint({"<div>", "</div>", "<h1>", "\n\n"})


def test_what_is_held_in_reserve_is_no_mark_of_any_text() -> None:
    tokenizer = with_tags()
    ends = stop_ids(SimpleNamespace(eos_token_id=[256]), tokenizer)
    assert len(ends) > 1000
    named = [tokenizer.id_to_token(id_) for id_ in marks(ends, tokenizer)]
    assert named == [*tiny.SPECIALS, "<end_of_turn>", "<mask>"]


def test_what_spells_markup_is_text_and_a_tag_is_the_token_that_it_has() -> None:
    tokenizer = with_tags()
    plain = Plain(tokenizer)
    ends = stop_ids(SimpleNamespace(eos_token_id=[256]), tokenizer)
    for text in (
        "a <mask> b",
        "<unused7><unused8>",
        "<|fim_prefix|>",
        "<end_of_turn>",
        "<<mask>>",
        "<mask",
        "<",
    ):
        assert ends.isdisjoint(plain(text)), text
        assert tokenizer.decode(plain(text), skip_special_tokens=False) == text
    assert tokenizer.token_to_id("<div>") in plain("a <div> b")
    model = CodeModel(tiny.network("qwen2"), tiny.tokenizer(), "tiny")
    assert model.stop_ids.isdisjoint(model.encode_next("x<|fim_middle|>y"))


def test_how_a_tokenizer_was_used_in_training_cuts_and_fills_up_nothing(tmp_path: Path) -> None:
    tokenizer = with_bos()
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=32, direction="left")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    found = tokenizer_in(tmp_path)
    assert start_ids(found) == (256,)
    assert len(Plain(found)("x" * 40)) == 40


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def by_bytes() -> Tokenizer:
    """One as Llama 2 has: what it has no token for, line breaks too, is spelt in tokens of bytes."""
    made = Tokenizer(BPE({text: id_ for id_, text in enumerate([*BYTES, *"▁#abxy"])}, [], byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(parts)
    made.add_special_tokens([AddedToken(BOS, special=True)])
    return made


@given(st.text("ab #\n漢🦄é", min_size=1, max_size=12), st.text("ab \n\t漢🦄é", min_size=1, max_size=12))
def test_what_is_written_behind_a_character_of_bytes_is_read_as_it_is(before: str, written: str) -> None:
    model = _by_bytes()
    prompt, ids = model.encode(before), model.encode_next(written)
    assert model.decode_next(prompt, ids) == written


@cache
def _by_bytes() -> CodeModel:
    return CodeModel(tiny.network("llama"), by_bytes(), "tiny-by-bytes")


def test_numbers_fitted_to_texts_that_began_otherwise_are_made_anew(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "model", "llama")
    CodeModel.load(folder, "int8")
    made = (folder / "int8.safetensors").stat().st_mtime_ns
    CodeModel.load(folder, "int8")
    assert (folder / "int8.safetensors").stat().st_mtime_ns == made
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": BOS, "add_bos_token": True}), "utf-8"
    )
    CodeModel.load(folder, "int8")
    assert (folder / "int8.safetensors").stat().st_mtime_ns > made


@pytest.mark.process
def test_a_model_is_taught_a_tag_that_its_tokenizer_has_a_token_for() -> None:
    network = tiny.network("qwen2")
    network.resize_token_embeddings(with_tags().get_vocab_size(), mean_resizing=False)
    with torch.no_grad():  # those added would be too near to nothing ever to be the likeliest
        torch.manual_seed(0)
        for table in (network.get_input_embeddings(), network.get_output_embeddings()):
            table.weight.copy_(torch.randn_like(table.weight) * 0.1)
    model = CodeModel(network, with_tags(), "tiny-with-tags")
    case = Case("a", model.encode("page = "), "<div>", StopRule.at("page = ", "\n"))
    assert model.encode_next("<div>") == (model.token_id("<div>"),)
    result = repair(model, [case], Budget(steps=64))
    assert result.solved, (result.steps, result.outcomes)
