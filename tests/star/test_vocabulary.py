"""A cursor within a token: what stands there is written anew, and what follows is as if it had been."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from star.case import Case
from star.decode import decode, write
from star.model import CodeModel
from star.patch import installed
from star.repair import repair
from star.result import Budget
from star.stop import StopRule
from star.trace import prepare, trace
from star.vocabulary import Vocabulary

CODE = "def first(x):\n    return x + 1\n\n\nfor item in range(10):\n    print(item, first(item))\n"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """One that has learnt words of code, a blank before each."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator([CODE] * 8, trainer)
    made.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    return made


@given(begun=st.integers(1, 6), at=st.integers(0, len(CODE) - 7))
def test_whatever_can_stand_there_is_allowed_and_nothing_else(
    tokenizer: Tokenizer, begun: int, at: int
) -> None:
    vocabulary = Vocabulary(tokenizer)
    text = CODE[at : at + begun]
    allowed = {vocabulary.text(int(token)) for token in vocabulary.beginning(text)}
    assert all(spelt.startswith(text) or text.startswith(spelt) for spelt in allowed)
    ids = tokenizer.encode("\n" + CODE[at:]).ids
    first = next(
        vocabulary.text(token) for token in tokenizer.encode(CODE[at:]).ids if vocabulary.text(token)
    )
    assert first in allowed
    assert ids


def test_markup_and_parts_of_characters_are_never_allowed(tokenizer: Tokenizer) -> None:
    vocabulary = Vocabulary(tokenizer)
    end = tokenizer.token_to_id("<|endoftext|>")
    assert end not in vocabulary.beginning("<")
    assert all(vocabulary.text(int(token)) for token in vocabulary.beginning("é"))


def test_what_is_kept_of_the_texts_that_cursors_have_stood_behind_has_an_end(tokenizer: Tokenizer) -> None:
    vocabulary = Vocabulary(tokenizer)
    for number in range(2000):
        vocabulary.beginning(f"x{number}")
        assert vocabulary.beginning(" ").tolist()
    assert len(vocabulary._found) <= 256
    assert vocabulary.beginning(" ").tolist() == Vocabulary(tokenizer).beginning(" ").tolist()


def test_along_a_text_each_token_is_held_to_what_is_left(tokenizer: Tokenizer) -> None:
    vocabulary = Vocabulary(tokenizer)
    ids = tokenizer.encode("xy z").ids
    steps = list(vocabulary.along("xy", ids))
    assert len(steps) == len(tokenizer.encode("xy").ids)
    assert all(token in allowed for token, allowed in zip(ids, steps, strict=False))
    assert list(vocabulary.along("", ids)) == []


def _healed(model: CodeModel, prefix: str, healed: str, expected: str) -> Case:
    return Case("a", model.encode(prefix), expected, StopRule.at(prefix + healed, "\n"), healed)


@pytest.mark.parametrize("healed", [" ", "= ", "x"])
def test_what_is_written_begins_with_what_stands_there_and_does_not_show_it(
    model: CodeModel, healed: str
) -> None:
    prompt = model.encode("def f(x):\n    y ")
    stop = StopRule.at(f"def f(x):\n    y {healed}", "\n")
    written = decode(model, prompt, stop, 12, healed=healed)
    assert model.decode_next(prompt, written.ids).startswith(healed)
    whole = decode(model, prompt + model.encode_next(healed), stop, 12 - len(healed))
    assert written.text == whole.text  # of single bytes: nothing could be spelt otherwise


@pytest.mark.parametrize("right", [0, 1, 3])
def test_a_guess_changes_nothing_where_something_is_healed(one: CodeModel, right: int) -> None:
    prompt = one.encode("def f(x):\n    y ")
    stop = StopRule.at("def f(x):\n    y = ", "\n")
    alone = decode(one, prompt, stop, 8, healed="= ")
    guess = [*alone.ids[:right], *((token + 1) % 250 for token in alone.ids[right:])]
    assert decode(one, prompt, stop, 8, guess=guess, healed="= ") == alone


@pytest.mark.process
def test_a_repair_of_a_healed_case_makes_the_server_write_it(one: CodeModel) -> None:
    case = _healed(one, "def f(x):\n    return", " ", "x+1")
    assert write(one, case) != "x+1"
    result = repair(one, [case], Budget(steps=40))
    assert result.outcomes[0].solved
    with installed(one, [result.patch]):
        assert write(one, case) == "x+1"
        assert trace(one, prepare(one, [case])).failures == ()


def test_what_is_healed_is_no_failure_however_unlikely(one: CodeModel) -> None:
    case = _healed(one, "def f(x):\n    return", "\t\t\t", "")
    failures = trace(one, prepare(one, [case])).failures
    assert all(failure.position >= 3 for failure in failures)
