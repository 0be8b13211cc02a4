"""How the server puts a place in a document to its model, as a case of a repair."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from star.case import Case
from star.errors import CaseError
from star.stop import StopRule
from star_lsp import prompt

__all__ = ["Put"]

#: So many lines, the cursor's last, are what a place rests on in any file.
_LINES = 4
#: Of our own writing, each above a place that has no more than these; above an import stand only imports.
_IMPORTS = "import os\nimport sys\n\n"
_FUNCTION = "def total(values):\n    return sum(values)\n\n\n"
_IMPORT = re.compile(r"\s*(?:import|from|use|using|#include)\b")


@dataclass(frozen=True, slots=True)
class Put:
    """One model's way to be asked: its tokenizer, its layout, and how much fits."""

    encode: prompt.Encode
    #: Token ids of text that follows other text.
    encode_next: Callable[[str], tuple[int, ...]]
    #: What its tokenizer puts before every text.
    start_ids: tuple[int, ...]
    layout: prompt.Layout | None
    limits: prompt.Limits
    max_tokens: int

    def __call__(self, id_: str, prefix: str, suffix: str, expected: str) -> Case:
        """The case that ``expected`` shall be written at the place between ``prefix`` and ``suffix``.

        Raises:
            CaseError: the server would not show that there, whatever the model writes.
        """
        built = self._built(prefix, suffix)
        stop = StopRule.at(built.prefix, built.suffix)
        shown = stop.trim(expected.replace("\r\n", "\n"))
        tokens = len(self.encode_next(shown))
        if not built.ids:
            raise CaseError("Nothing stands before this place; the model has nothing to go on.")
        if expected.strip() and not shown:
            raise CaseError(
                "Nothing of the expected text would be shown at this place; "
                "leave out what already stands after it."
            )
        if tokens > self.max_tokens:
            raise CaseError(
                f"The expected text has {tokens} tokens and a completion at most {self.max_tokens}; "
                "shorten it, or raise completion.maxTokens."
            )
        others = [self._built(left, built.suffix) for left in _elsewhere(built.prefix, shown)]
        elsewhere = tuple(
            each.ids for each in others if each.healed == built.healed and each.ids != built.ids
        )
        return Case(id_, built.ids, shown, stop, built.healed, elsewhere)

    def _built(self, prefix: str, suffix: str) -> prompt.Prompt:
        return prompt.build(self.encode, self.layout, prefix, suffix, self.limits, self.start_ids)


def _elsewhere(prefix: str, expected: str) -> list[str]:
    """What else could stand left of a place: less of it or, where there is not much, more above it."""
    lines = prefix.split("\n")
    if len(lines) > _LINES:
        return ["\n".join(lines[-_LINES:])]
    above = [_IMPORTS] if _IMPORT.match(lines[-1] + expected) else [_IMPORTS, _FUNCTION]
    return [each + prefix for each in above]
