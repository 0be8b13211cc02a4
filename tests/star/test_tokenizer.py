"""What begins every text for a model, and what ends a completion, as its tokenizer has it."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing

from star.case import Case
from star.fisher import fisher, known_by
from star.model import CodeModel
from star.repair import repair
from star.result import Budget
from star.stop import StopRule
from star.tokenizer import marks, start_ids, stop_ids, tokenizer_in
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
