"""Greedy decoding with the server's stop rules: the one path that serves and judges."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from star.case import Case
from star.model import CodeModel
from star.stop import StopRule

__all__ = ["Decoded", "decode", "write"]

#: Prompt tokens run at once; a newer request waits no longer than one such chunk.
_CHUNK_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the model wrote, cut and trimmed, and why it ended."""

    text: str
    ids: tuple[int, ...]
    ended: Literal["stop", "token", "length", "cancelled"]


def decode(
    model: CodeModel,
    prompt: Sequence[int],
    stop: StopRule,
    max_tokens: int,
    cancelled: Callable[[], bool] = lambda: False,
) -> Decoded:
    """What the model writes after a prompt, greedily, until the stop rule, a stop token or the limit.

    A full context ends it like the limit. ``cancelled`` is asked before every chunk of the prompt and
    every token.

    Raises:
        CaseError: the prompt is longer than the model's context.
    """
    model.check_length(len(prompt))
    if model.context is not None:
        max_tokens = min(max_tokens, model.context - len(prompt) + 1)  # the last one is only written
    ids: list[int] = []
    cache: Any = None
    ended: Literal["stop", "token", "length", "cancelled"] = "length"
    text = ""
    pending = list(prompt)
    with torch.inference_mode():
        while len(ids) < max_tokens:
            if cancelled():
                ended = "cancelled"
                break
            chunk, pending = pending[:_CHUNK_TOKENS], pending[_CHUNK_TOKENS:]
            out = model.network(
                torch.tensor([chunk]), past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            cache = out.past_key_values
            if pending:
                continue
            token = int(out.logits[0, -1].argmax())
            if token in model.stop_ids:
                ended = "token"
                break
            ids.append(token)
            pending = [token]
            text = model.decode_next(prompt, ids)
            # A character of several tokens is not judged before it is whole.
            if not text.endswith("�") and stop.end(text) is not None:
                ended = "stop"
                break
    return Decoded(stop.trim(text.rstrip("�")), tuple(ids), ended)


def write(model: CodeModel, case: Case, slack_tokens: int = 16) -> str:
    """What the server would show at a case's place; up to ``slack_tokens`` more than expected."""
    limit = len(model.encode_next(case.expected)) + slack_tokens
    return decode(model, case.prompt, case.stop, limit).text
