"""What each token of a vocabulary spells, and which can be written where a text is to stand."""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property

import torch
from jaxtyping import Int
from tokenizers import Tokenizer
from torch import Tensor

__all__ = ["Vocabulary"]

#: Texts of which the tokens are kept: a short one has ten thousand of them, and there are many texts.
_KEPT = 256


class Vocabulary:
    """The tokens of one tokenizer by their text, for token healing.

    A cursor often stands within a token: after ``x = `` a model has hardly ever seen a token begin without
    its blank. So the last token before the cursor is taken back, and written anew by the model, which is
    held to what stands there.
    """

    def __init__(self, tokenizer: Tokenizer, markup: Collection[int] = ()) -> None:
        """Nothing is read before it is needed; of ``markup`` no text is made."""
        self._tokenizer = tokenizer
        self._markup = markup
        self._found: dict[str, Int[Tensor, " n"]] = {}

    def text(self, token: int) -> str:
        """What a token spells behind others; empty when it is markup or a part of a character."""
        return self._texts[token] if token < len(self._texts) else ""

    def beginning(self, text: str) -> Int[Tensor, " n"]:
        """The tokens that can be written where ``text`` is to stand, which begin with it, or it with them."""
        found = self._found.pop(text, None)
        if found is None:
            spelt, ids = self._sorted
            longer = ids[bisect_left(spelt, text) : bisect_left(spelt, text + chr(0x10FFFF))]
            shorter = [
                id_
                for end in range(1, len(text))
                for id_ in ids[bisect_left(spelt, text[:end]) : bisect_left(spelt, text[:end] + "\0")]
            ]
            found = torch.tensor(sorted({*longer, *shorter}), dtype=torch.long)
        self._found[text] = found  # the last one last
        while len(self._found) > _KEPT:
            del self._found[next(iter(self._found))]
        return found

    def along(self, text: str, ids: Sequence[int]) -> Iterator[Int[Tensor, " n"]]:
        """For each of the first ``ids``, what could stand there, while ``text`` is not all written."""
        for token in ids:
            if not text or token not in (allowed := self.beginning(text)):
                return
            yield allowed
            text = text[len(self.text(token)) :]

    @cached_property
    def _texts(self) -> list[str]:
        # Behind another token, as some tokenizers drop a blank at the very beginning.
        mark = self._tokenizer.encode("\n", add_special_tokens=False).ids
        before = len(self._tokenizer.decode(mark))
        size = self._tokenizer.get_vocab_size()
        texts = self._tokenizer.decode_batch([[*mark, id_] for id_ in range(size)])
        return ["" if "�" in text or id_ in self._markup else text[before:] for id_, text in enumerate(texts)]

    @cached_property
    def _sorted(self) -> tuple[list[str], list[int]]:
        pairs = sorted((text, id_) for id_, text in enumerate(self._texts) if text)
        return [text for text, _ in pairs], [id_ for _, id_ in pairs]
