"""Keys and values of what a model has read last: what begins alike is read only from where it differs."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from star.model import CodeModel

__all__ = ["KVCache"]


class KVCache:
    """One sequence of token ids, and the keys and values that one model made of it.

    Under another history these would be wrong: when that of the model has changed, all is forgotten.
    """

    def __init__(self, model: CodeModel) -> None:
        """Nothing read yet."""
        self._model = model
        self._patches = model.patches
        self._ids: list[int] = []
        self._past: Any = None

    @property
    def ids(self) -> tuple[int, ...]:
        """What has been read, and still holds."""
        self._check()
        return tuple(self._ids)

    @property
    def size(self) -> int:
        """How many tokens it holds, be they of use still or not."""
        return len(self._ids)

    def rewind(self, ids: Sequence[int]) -> int:
        """Forget what does not begin ``ids``; how many of them have been read.

        All is forgotten where the cache of this architecture cannot forget a part (sliding attention).
        """
        self._check()
        same = next((i for i, (a, b) in enumerate(zip(self._ids, ids, strict=False)) if a != b), None)
        length = min(len(self._ids), len(ids)) if same is None else same
        if length < len(self._ids):
            try:
                self._past.crop(length - len(self._ids))
            except RuntimeError:
                length, self._past = 0, None
            if not length:
                self._past = None
            del self._ids[length:]
        return length

    def read(self, ids: Sequence[int], keep: int) -> Float[Tensor, "keep v"]:
        """Read on; the logits after the last ``keep`` of ``ids``."""
        self._check()
        try:
            with torch.inference_mode():
                out = self._model.network(
                    torch.tensor([list(ids)]), cache=self._past, use_cache=True, logits_to_keep=keep
                )
        except BaseException:  # some layers may have read it, and others not
            self._ids, self._past = [], None
            raise
        self._past = out.cache
        self._ids += ids
        logits: Tensor = out.logits[0, -keep:]
        return logits

    def _check(self) -> None:
        if self._patches is not self._model.patches:
            self._patches, self._ids, self._past = self._model.patches, [], None
