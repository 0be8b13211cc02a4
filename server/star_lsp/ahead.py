"""What was written ahead of the cursor: while it is typed as suggested, the rest needs no model."""

from collections.abc import Hashable
from dataclasses import dataclass, replace

from star.stop import StopRule
from star_lsp.recent import Recent

__all__ = ["Ahead", "Known"]

_KEPT = 64
#: What editors write by themselves right of the cursor when its partner is typed, and how much of it.
_CLOSERS = frozenset(")]}>\"'`")
_MOST_CLOSERS = 4


@dataclass(frozen=True, slots=True)
class Known:
    """What a model wrote at a place, the texts that its prompt was made of, and under which revision."""

    text: str
    prefix: str
    suffix: str
    revision: str
    #: Whether more belongs to it, which has not been written yet.
    cut: bool = False


class Ahead:
    """The last 64 answers, by the text that they were given for.

    Each is kept under a key of all else that it depends on: the document, the history of the model, the
    limits. One of another key is never given.
    """

    def __init__(self) -> None:
        """None yet."""
        self._known: Recent[tuple[Hashable, str, str], Known] = Recent(_KEPT)

    def keep(self, key: Hashable, prefix: str, suffix: str, known: Known) -> None:
        """Remember what was written between ``prefix`` and ``suffix``, and forget the oldest beyond 64."""
        self._known.put((key, prefix, suffix), known)

    def rest(self, key: Hashable, prefix: str, suffix: str) -> Known | None:
        """What is left of an answer at a place that typing as suggested has led to; None: ask the model.

        An answer for the very place comes first, then the newest one that has some text left.
        """
        if exact := self._known.get((key, prefix, suffix)):
            return exact
        for (other, before, after), known in reversed(self._known.items()):
            if other != key or not prefix.startswith(before):
                continue
            typed = prefix[len(before) :]
            rest = known.text.removeprefix(typed)
            if rest and len(rest) + len(typed) == len(known.text):
                if suffix != after:
                    rest = _without_closers(rest, prefix, suffix, after)
                if rest:
                    return replace(
                        known,
                        text=rest,
                        prefix=known.prefix + typed,
                        suffix=suffix.removesuffix(after) + known.suffix,
                    )
        return None


def _without_closers(rest: str, prefix: str, suffix: str, after: str) -> str:
    """What is left where the editor closed by itself what was typed; empty where it did something else."""
    closers = suffix.removesuffix(after)
    if not closers or len(closers) > _MOST_CLOSERS or not _CLOSERS.issuperset(closers):
        return ""
    if len(closers) + len(after) != len(suffix):
        return ""
    return StopRule.at(prefix, suffix).trim(rest)
