"""Greedy decoding with the server's stop rules: the one path that serves and judges."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from star.cache import KVCache
from star.case import Case
from star.model import CodeModel
from star.stop import StopRule

__all__ = ["Decoded", "Ending", "decode", "write"]

#: Why a completion ended: the stop rule, a stop token, the limit, its caller, or a line that was enough.
Ending = Literal["stop", "token", "length", "cancelled", "line"]

#: Prompt tokens run at once; a newer request waits no longer than one such chunk.
_CHUNK_TOKENS = 128
#: Tokens that stand alike are counted up to so many, and at most so many are tried after them. Every one that
#: is tried takes a tenth to a fifth of a run; numbers in README.md.
_ALIKE, _AHEAD = 6, 3


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the model wrote, cut and trimmed, and why it ended."""

    text: str
    ids: tuple[int, ...]
    ended: Ending


def decode(
    model: CodeModel,
    prompt: Sequence[int],
    stop: StopRule,
    max_tokens: int,
    cancelled: Callable[[], bool] = lambda: False,
    *,
    enough: Callable[[], bool] = lambda: False,
    guess: Sequence[int] = (),
    cache: KVCache | None = None,
    healed: str = "",
) -> Decoded:
    """What the model writes after a prompt, greedily, until the stop rule, a stop token or the limit.

    A full context ends it like the limit. ``cancelled`` is asked before every chunk of the prompt and
    every token; ``enough``, with every token once there are whole lines to be shown, which are all then.
    A good ``guess`` of what will be written costs one run in place of one for each token; a bad one
    changes nothing but the time. What a ``cache`` of this model has read is not read again; afterwards it
    has read this. What is written is held to begin with ``healed``, which is not in the text.

    Raises:
        CaseError: the prompt is longer than the model's context.
    """
    model.check_length(len(prompt))
    if model.context is not None:
        max_tokens = min(max_tokens, model.context - len(prompt) + 1)  # the last one is only written
    ids: list[int] = []
    ended: Ending = "length"
    text = ""
    if max_tokens < 1:
        return Decoded("", (), ended)
    cache = KVCache(model) if cache is None else cache
    for token in _greedy(
        model, prompt, guess[: max(0, max_tokens - 1)], cancelled, cache, healed, max_tokens
    ):
        if token is None:
            ended = "cancelled"
            break
        if token in model.stop_ids:
            ended = "token"
            break
        ids.append(token)
        text = model.decode_next(prompt, ids, healed)
        # A character of several tokens is not judged before it is whole.
        if not text.endswith("�") and stop.end(text) is not None:
            ended = "stop"
            break
        whole, more, _ = text.rpartition("\n")
        if more and enough() and stop.trim(whole).strip():
            text, ended = whole, "line"
            break
        if len(ids) >= max_tokens:
            break
    return Decoded(stop.trim(text.rstrip("�")), tuple(ids), ended)


def write(model: CodeModel, case: Case, slack_tokens: int = 16) -> str:
    """What the server would show at a case's place; up to ``slack_tokens`` more than expected."""
    expected = model.encode_next(case.written)
    most = len(expected) + slack_tokens
    return decode(model, case.prompt, case.stop, most, guess=expected, healed=case.healed).text


def _greedy(
    model: CodeModel,
    prompt: Sequence[int],
    guess: Sequence[int],
    cancelled: Callable[[], bool],
    cache: KVCache,
    healed: str,
    most: int,
) -> Iterator[int | None]:
    """The tokens that a model writes, one after another; None, and the end, once cancelled.

    The guess is run behind the prompt: each of its tokens that is the argmax has been written, and the
    first that is not ends what is taken from it (speculative decoding, exact for greedy decoding).
    """
    text, tried = list(prompt), list(guess)
    # The last token is always read: what comes after it is what is asked.
    pending = text[cache.rewind(text[:-1]) :]
    while True:
        if cancelled():
            yield None
            return
        chunk, pending = pending[:_CHUNK_TOKENS], pending[_CHUNK_TOKENS:]
        if pending:
            cache.read(chunk, 1)
            continue
        logits = cache.read(chunk + tried, 1 + len(tried))
        best = logits.argmax(-1).tolist()
        written: list[int] = []
        for row, likely in enumerate(best):
            token = likely
            if healed and len(allowed := model.vocabulary.beginning(healed)):
                token = int(allowed[logits[row, allowed].argmax()])
                healed = healed[len(model.vocabulary.text(token)) :]
            written.append(token)
            if row < len(tried) and token != tried[row]:
                break
        text += written
        yield from written
        tried = [] if healed else _looked_up(text, most - (len(text) - len(prompt)) - 1)
        pending = text[cache.rewind(text[:-1]) :]


def _looked_up(text: Sequence[int], most: int) -> list[int]:
    """What followed when the last tokens stood somewhere before (prompt lookup).

    Code repeats itself. The place where most of the last tokens stand alike counts, of several the last one;
    the more do, the more of what follows is tried.
    """
    last, longest, place = text[-1], 0, 0
    for at in range(len(text) - 2, -1, -1):
        if text[at] != last:
            continue
        alike = 1
        while alike < min(_ALIKE, at + 1) and text[at - alike] == text[-1 - alike]:
            alike += 1
        if alike > longest:
            longest, place = alike, at + 1
        if longest == _ALIKE:
            break
    ahead = min(most, _AHEAD, max(1, longest - 1)) if longest else 0
    return list(text[place : place + max(0, ahead)])
