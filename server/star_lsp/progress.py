"""How far a pull is: bytes, rate and time left, as values that any front end can draw."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from star_lsp.errors import CatalogueError

__all__ = ["Cancelled", "Meter", "OnProgress", "Phase", "Progress"]

Phase = Literal["downloading", "assembling", "converting", "fingerprinting"]
WINDOW_SECONDS = 10.0  # the rate is of late, so that it tells when a network has become slow


class Cancelled(CatalogueError):
    """The caller asked to stop."""

    def __init__(self) -> None:
        super().__init__("The model was not installed, as asked; pull it again to go on from there.")


@dataclass(frozen=True, slots=True)
class Progress:
    """One moment of a pull; ``done`` and ``total`` are bytes."""

    phase: Phase
    done: int
    total: int
    rate_bytes_per_second: float
    seconds_left: float | None
    note: str = ""


OnProgress = Callable[[Progress], None]


@dataclass(slots=True)
class Meter:
    """Turns byte counts into progress and tells it on, at most a few times a second."""

    tell: OnProgress
    seconds: Callable[[], float] = time.monotonic
    pause_seconds: float = 0.1
    phase: Phase = "downloading"
    _done: int = 0
    _total: int = 0
    _samples: deque[tuple[float, int]] = field(default_factory=deque)
    _told: float = float("-inf")

    def at(self, phase: Phase, done: int, total: int) -> None:
        """Tells that a phase has come this far."""
        now = self.seconds()
        changed = (phase, total) != (self.phase, self._total)
        if changed or not self._samples:
            self.phase, self._samples = phase, deque()
        self._done, self._total = min(done, total), total
        self._samples.append((now, self._done))
        while len(self._samples) > 2 and now - self._samples[0][0] > WINDOW_SECONDS:
            self._samples.popleft()
        if changed or done >= total or now - self._told >= self.pause_seconds:
            self._told = now
            self.tell(self._moment(""))

    def note(self, text: str) -> None:
        """Tells a word about what is going on, such as why a source was skipped."""
        self.tell(self._moment(text))

    def _moment(self, note: str) -> Progress:
        """The progress as of the last sample."""
        rate = 0.0
        if len(self._samples) > 1:
            (then, before), (now, done) = self._samples[0], self._samples[-1]
            rate = max(0, done - before) / (now - then) if now > then else 0.0
        left = (self._total - self._done) / rate if rate > 0 else None
        return Progress(self.phase, self._done, self._total, rate, left, note)
