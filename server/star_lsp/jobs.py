"""What the server and its repairing process say to each other: one JSON object a line."""

from dataclasses import dataclass, field
from typing import Any, TypeVar

import cattrs
from cattrs.preconf.json import make_converter

from star_lsp.errors import WorkerError

__all__ = [
    "Alive",
    "Compared",
    "Failed",
    "Job",
    "Progress",
    "Report",
    "Taught",
    "Teach",
    "Tied",
    "message",
    "read",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Teach:
    """A case as far as a repair needs it."""

    id: str
    prefix: str
    suffix: str
    expected: str


@dataclass(frozen=True, slots=True)
class Job:
    """One repair: what to teach on top of which history, what must hold, and what it may cost."""

    id: str
    history: tuple[str, ...]
    teach: tuple[Teach, ...]
    #: Of the history's patches, where they must be those that went live.
    digests: tuple[str, ...] = ()
    #: Cases solved by the history: the gate asks for each of them.
    hold: tuple[Teach, ...] = ()
    #: Accepted completions, ``expected`` being the accepted text.
    accepted: tuple[Teach, ...] = ()
    strength: str = "normal"
    max_steps: int = 16
    #: For each case.
    max_seconds: float = 120.0
    prefix_tokens: int = 1024
    suffix_tokens: int = 256
    max_tokens: int = 64
    min_unchanged: float = 0.95
    max_kl: float = 0.05
    #: Where the patch is written once the gate lets it through; none for a dry run.
    out: str | None = None
    #: Find out what the model writes before the repair (a decoding for each case).
    ask_before: bool = False
    #: Teach nothing: say which of ``hold`` the history no longer solves (``verdict["gate"]["broken"]``).
    check: bool = False
    #: ``ours``, or ``star`` as published.
    method: str = "ours"
    #: Teach nothing: say what the model writes at the places of ``teach`` and around them, under ``history``
    #: and under this other one (``Report.compared``).
    compare: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Tied:
    """The worker's first word: from now on it dies with its parent, even while it is suspended."""


@dataclass(frozen=True, slots=True)
class Alive:
    """The worker is at work, though there is no progress to tell."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a job is; ``percent`` never falls."""

    job: str
    phase: str
    percent: int


@dataclass(frozen=True, slots=True)
class Taught:
    """What became of one case."""

    id: str
    solved: bool
    after: str
    before: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """A place, and what the model writes there before a change and after it; as ``protocol.Compared``."""

    kind: str
    case: str
    where: str
    prefix: str
    suffix: str
    expected: str | None
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a job came to. ``digest`` is set when a patch may go live (and is written, if asked for)."""

    job: str
    cases: tuple[Taught, ...]
    steps: int
    seconds: float
    base: str
    digest: str | None = None
    revision: str | None = None
    verdict: dict[str, Any] = field(default_factory=dict)
    compared: tuple[Compared, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """A job that could not be tried, or was cancelled."""

    job: str
    reason: str
    cancelled: bool = False


_KINDS = {"tied": Tied, "alive": Alive, "job": Job, "progress": Progress, "report": Report, "failed": Failed}
_CONVERTER = make_converter()


def message(value: Tied | Alive | Job | Progress | Report | Failed) -> bytes:
    """A value as one line."""
    kind = type(value).__name__.lower()
    return (_CONVERTER.dumps({"kind": kind, **_CONVERTER.unstructure(value)}) + "\n").encode()


def read(line: bytes) -> Tied | Alive | Job | Progress | Report | Failed:
    """The value in one line.

    Raises:
        WorkerError: the line is none of ours.
    """
    try:
        raw = _CONVERTER.loads(line, dict[str, Any])
        value: Tied | Alive | Job | Progress | Report | Failed = _CONVERTER.structure(
            raw, _KINDS[raw.pop("kind")]
        )
        return value
    except (ValueError, KeyError, TypeError, cattrs.BaseValidationError) as error:
        raise WorkerError("The repairing process said something that cannot be read.") from error
