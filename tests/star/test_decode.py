"""Greedy decoding with stop rules."""

import dataclasses
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from star.case import Case
from star.decode import decode, write
from star.errors import CaseError
from star.model import CodeModel
from star.stop import StopRule
from tests import tiny

BLOCK = StopRule.at("", "")


class Script:
    """A network that writes given tokens after any prompt, and counts its runs."""

    def __init__(self, config: Any, prompt: int, tokens: Sequence[int]) -> None:
        self.config, self.prompt, self.tokens = config, prompt, tokens
        self.runs: list[int] = []
        self.seen = 0

    def __call__(self, ids: torch.Tensor, cache: object, logits_to_keep: int, **_: object) -> Any:
        if cache is None:
            self.seen = 0
        self.runs.append(ids.shape[1])
        self.seen += ids.shape[1]
        logits = torch.zeros(1, logits_to_keep, 264)
        for row in range(logits_to_keep):
            written = self.seen - self.prompt - logits_to_keep + 1 + row
            if 0 <= written < len(self.tokens):
                logits[0, row, self.tokens[written]] = 1.0
        return SimpleNamespace(logits=logits, cache=self)

    def crop(self, count: int) -> None:
        self.seen += count


def _script(model: CodeModel, monkeypatch: pytest.MonkeyPatch, prompt: int, tokens: Sequence[int]) -> Script:
    script = Script(model.network.config, prompt, tokens)
    monkeypatch.setattr(model, "network", script)
    return script


def test_greedy_decoding_writes_the_argmax_of_whole_runs(model: CodeModel) -> None:
    prompt = model.encode("def f(x):\n    return ")
    written = decode(model, prompt, BLOCK, 6)
    ids: list[int] = []
    while len(ids) < len(written.ids):
        ids.append(int(model.logits([*prompt, *ids])[-1].argmax()))
    assert written.ids == tuple(ids)


def test_a_prompt_run_in_chunks_gives_the_same_text(
    model: CodeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = model.encode("def f(x):\n    return " * 5)
    whole = decode(model, prompt, BLOCK, 12)
    monkeypatch.setattr("star.decode._CHUNK_TOKENS", 7)
    assert decode(model, prompt, BLOCK, 12) == whole


@pytest.mark.parametrize("allowed", [0, 1, 5, 7])
def test_a_cancel_stops_before_the_next_chunk_or_token(
    one: CodeModel, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    script = _script(one, monkeypatch, 600, one.encode("abcdefgh"))
    asked: list[None] = []

    def cancelled() -> bool:
        asked.append(None)
        return len(asked) > allowed

    one_network = one.network.config
    assert one_network is script.config
    monkeypatch.setattr(one.network.config, "max_position_embeddings", 4096)
    decoded = decode(one, [1] * 600, StopRule.at("x = ", "\n"), 8, cancelled)
    assert decoded.ended == "cancelled"
    assert script.runs == [128, 128, 128, 128, 88, 1, 1][:allowed]
    assert decoded.text == "abc"[: max(0, allowed - 4)]


def test_a_stop_token_ends_the_text_and_is_not_in_it(one: CodeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    for stop in one.stop_ids:
        _script(one, monkeypatch, 3, [*one.encode("ab"), stop, *one.encode("c")])
        decoded = decode(one, [1, 2, 3], StopRule.at("x = ", "\n"), 8)
        assert (decoded.text, decoded.ended) == ("ab", "token")
        assert decoded.ids == one.encode("ab")


def test_the_stop_rule_ends_the_text(one: CodeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    script = _script(one, monkeypatch, 3, one.encode("ab\ncd\nef"))
    decoded = decode(one, [1, 2, 3], StopRule.at("x = ", "\n"), 8)
    assert (decoded.text, decoded.ended) == ("ab", "stop")
    assert script.runs == [3, 1, 1]


def test_whole_lines_are_enough_for_whoever_has_waited_long(
    one: CodeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = one.encode("\nab\ncd\nef")
    script = _script(one, monkeypatch, 3, tokens)
    # Not yet at the first line end, before which nothing stands.
    decoded = decode(one, [1, 2, 3], BLOCK, 12, enough=lambda: True)
    assert (decoded.text, decoded.ended) == ("\nab", "line")
    assert script.runs == [3, 1, 1, 1]
    _script(one, monkeypatch, 3, tokens)
    assert decode(one, [1, 2, 3], BLOCK, len(tokens), enough=lambda: False).text == "\nab\ncd\nef"


def test_no_more_tokens_are_written_than_allowed(one: CodeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in (0, 1, 4):
        _script(one, monkeypatch, 3, one.encode("abcdefgh"))
        decoded = decode(one, [1, 2, 3], StopRule.at("x = ", "\n"), limit)
        assert (decoded.text, decoded.ended, len(decoded.ids)) == ("abcd"[:limit], "length", limit)


@pytest.mark.parametrize("limit", range(1, 9))
def test_a_character_of_several_tokens_is_never_half_shown(
    one: CodeModel, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    tokens = one.encode("a😀b😀")
    assert len(tokens) == 10
    _script(one, monkeypatch, 3, tokens)
    decoded = decode(one, [1, 2, 3], StopRule.at("x = ", "\n"), limit)
    assert decoded.text == {5: "a😀"}.get(limit, "a" if limit < 5 else "a😀b")


def test_a_full_context_ends_the_text_like_the_limit(model: CodeModel) -> None:
    decoded = decode(model, [40] * 510, BLOCK, 50)
    assert len(decoded.ids) <= 3
    with pytest.raises(CaseError, match="context of 512"):
        decode(model, [40] * 513, BLOCK, 1)


def test_a_case_is_judged_with_some_tokens_to_spare(one: CodeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    case = tiny.case(one, "ab")
    _script(one, monkeypatch, len(case.prompt), one.encode("ab" * 30))
    assert write(one, case, slack_tokens=3) == "ababa"
    assert isinstance(case, Case)
    assert dataclasses.is_dataclass(case)


@pytest.mark.parametrize("right", [0, 1, 4, 8])
def test_a_guess_changes_nothing_but_the_time(model: CodeModel, right: int) -> None:
    prompt = model.encode("def f(x):\n    return ")
    alone = decode(model, prompt, BLOCK, 8)
    guess = [*alone.ids[:right], *((token + 1) % 250 for token in alone.ids[right:])]
    assert decode(model, prompt, BLOCK, 8, guess=guess) == alone


def test_a_right_guess_is_read_in_the_run_of_the_prompt(
    one: CodeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = _script(one, monkeypatch, 3, [*one.encode("abcdef"), min(one.stop_ids)])
    decoded = decode(one, [1, 2, 3], BLOCK, 20, guess=one.encode("abcdef"))
    assert (decoded.text, decoded.ended, script.runs) == ("abcdef", "token", [9])


def test_what_stood_there_before_is_tried_at_once(one: CodeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = [*one.encode("abcdefgh"), 40, *one.encode("ab")]
    script = _script(one, monkeypatch, len(prompt), [*one.encode("cdefgh"), min(one.stop_ids)])
    decoded = decode(one, prompt, BLOCK, 20)
    assert (decoded.text, decoded.ended) == ("cdefgh", "token")
    # `c`; three tokens stand alike then, so it is read with the two behind the first one; and so on.
    assert script.runs == [len(prompt), 3, 4]


@pytest.mark.parametrize("limit", range(1, 8))
def test_no_more_is_tried_than_may_be_written(
    one: CodeModel, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    prompt = one.encode("abcdefghabcdefghab")
    _script(one, monkeypatch, len(prompt), one.encode("cdefghabcdefgh"))
    decoded = decode(one, prompt, BLOCK, limit)
    assert (decoded.text, decoded.ended) == ("cdefghab"[:limit], "length")


def test_what_repeats_itself_is_written_as_the_argmax_of_whole_runs(model: CodeModel) -> None:
    prompt = model.encode("x = f(x)\n" * 6)
    written = decode(model, prompt, BLOCK, 12, healed="")
    ids: list[int] = []
    while len(ids) < len(written.ids):
        ids.append(int(model.logits([*prompt, *ids])[-1].argmax()))
    assert written.ids == tuple(ids)
