"""Tokens a second of our own model, on the path that serves."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from star.stop import StopRule

__all__ = ["DECODE_TOKENS", "PREFILL_TOKENS", "Rates", "Speed", "median"]

#: A long prompt, and a long completion.
PREFILL_TOKENS, DECODE_TOKENS = 1000, 32
#: One neuron in so many: 1,080 in the last half of the default model's layers.
_EACH = 54


@dataclass(frozen=True, slots=True)
class Rates:
    """Tokens a second: read from a prompt, and written."""

    prefill: float
    decode: float


def median(found: Sequence[Rates]) -> Rates:
    """The median of each."""
    return Rates(
        statistics.median(each.prefill for each in found), statistics.median(each.decode for each in found)
    )


class _Endless(StopRule):
    """Ends nowhere, so that every run writes as much."""

    def end(self, text: str) -> int | None:
        """Nowhere."""
        return None


class Speed:
    """A model in this process, to be measured."""

    def __init__(self, folder: Path) -> None:
        """Load it.

        Raises:
            ModelError: it cannot be used.
        """
        from star.model import CodeModel

        self._model = CodeModel.load(folder)

    def prompt(self, text: str) -> list[int]:
        """A prompt of about 1000 tokens, less where the text or the model's context is short."""
        most = min(PREFILL_TOKENS, (self._model.context or PREFILL_TOKENS + DECODE_TOKENS) - DECODE_TOKENS)
        return list(self._model.encode(text))[:most]

    def swap_milliseconds(self) -> float:
        """What it takes to have a patch served, as large as one of the default repairs, from its file."""
        import torch

        from star.locate import layers_by_depth
        from star.patch import Patch, Rows, install, load
        from star.repair import Star

        model, rows = self._model, []
        for layer in layers_by_depth(model.depth, Star().layers):
            neurons = torch.arange(0, model.neurons, _EACH)
            rows.append(Rows(layer, neurons, torch.full((len(neurons), model.width), 1e-6)))
        with tempfile.TemporaryDirectory(prefix="star-lsp-bench-") as folder:
            path = Path(folder) / "patch.safetensors"
            Patch(model.fingerprint, tuple(rows)).save(path)
            started = time.perf_counter()
            install(model, [load(path, model)])
            ended = time.perf_counter()
        install(model, [])
        return (ended - started) * 1000

    def rates(self, prompt: Sequence[int], tokens: int = DECODE_TOKENS) -> Rates:
        """Tokens a second of a prompt that was never read before, and of what is written after it."""
        from star.cache import KVCache
        from star.decode import decode

        stop, cache = _Endless("", True, ""), KVCache(self._model)
        started = time.perf_counter()
        decode(self._model, prompt, stop, 1, cache=cache)
        read = time.perf_counter()
        decoded = decode(self._model, prompt, stop, tokens, cache=cache)
        written = time.perf_counter()
        # A stop token that ends it is written too; the last one of a whole run is the limit's.
        wrote = len(decoded.ids) + (decoded.ended == "token")
        return Rates(len(prompt) / (read - started), wrote / (written - read))
