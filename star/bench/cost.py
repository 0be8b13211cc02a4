"""What a repair costs: passes over the case's own tokens, seconds, memory.

Counted at the output projections, which every layer that runs passes its tokens through: a layer that is
skipped because what lies below a repair was kept does not run it. A backward pass through a layer counts like
a forward one: it computes gradients of activations only, by as many multiplications. Not counted: the head
(``v x d`` for each expected token and each pass), and the gradients of the weights that move.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psutil
from torch import Tensor, nn

from star.case import Case
from star.model import CodeModel

__all__ = ["Cost", "counted", "tokens_of"]

_SAMPLE_SECONDS = 0.01


@dataclass(slots=True)
class Cost:
    """What was spent so far; ``seconds`` and memory are known at the end."""

    depth: int
    #: Tokens of the cases: what one pass would run.
    tokens: int
    #: Tokens that passed a layer, forward and backward, summed over the layers.
    layer_tokens: int = 0
    seconds: float = 0.0
    #: Private memory of this process at its highest (without files that are mapped), and at the beginning.
    peak_mb: float = 0.0
    start_mb: float = 0.0

    @property
    def passes(self) -> float:
        """Forward passes over the cases' tokens that the same work would have paid for."""
        return self.layer_tokens / (self.depth * max(self.tokens, 1))


def tokens_of(model: CodeModel, cases: Sequence[Case]) -> int:
    """Tokens of ``[prompt; expected]``, summed over cases."""
    return sum(len(case.prompt) + len(model.encode_next(case.written)) for case in cases)


@contextlib.contextmanager
def counted(model: CodeModel, cases: Sequence[Case]) -> Iterator[Cost]:
    """Count what ``model`` runs while inside, in passes over the tokens of ``cases``."""
    cost = Cost(model.depth, tokens_of(model, cases))

    def record(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs = args[0]
        tokens = inputs.numel() // inputs.shape[-1]
        cost.layer_tokens += tokens
        if inputs.requires_grad:  # so not in the lowest layer that moves: a backward pass ends there
            inputs.register_hook(lambda _gradient: back(tokens))  # type: ignore[no-untyped-call]

    def back(tokens: int) -> None:
        cost.layer_tokens += tokens

    handles = [model.projection(layer).register_forward_pre_hook(record) for layer in range(model.depth)]
    started = time.monotonic()
    try:
        with _watched(cost):
            yield cost
    finally:
        cost.seconds = time.monotonic() - started
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _watched(cost: Cost) -> Iterator[None]:
    """Look at the memory from another thread: what is taken and given back in between counts too."""
    done = threading.Event()
    process = psutil.Process()
    cost.start_mb = cost.peak_mb = _private_mb(process)

    def look() -> None:
        while not done.wait(_SAMPLE_SECONDS):
            cost.peak_mb = max(cost.peak_mb, _private_mb(process))

    thread = threading.Thread(target=look, name="memory", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        cost.peak_mb = max(cost.peak_mb, _private_mb(process))


def _private_mb(process: psutil.Process) -> float:
    """Memory of a process in megabytes, without what it shares where the system tells that."""
    info = process.memory_info()
    return float(info.rss - getattr(info, "shared", 0)) / 1e6
