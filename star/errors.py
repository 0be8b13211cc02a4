"""Everything that can go wrong with a request to repair, as one tree.

    StarError                 the request could not be tried
    ├── ModelError            a model folder, architecture, head or tokenizer does not fit
    │   └── UnsupportedFamily no entry for this architecture in ``family.py``
    ├── CaseError             a case cannot be turned into token ids, or is too long for its model
    ├── PatchError            a patch file is damaged, or not for this base
    ├── BenchError            data for the benchmark cannot be read, or does not fit what is measured
    └── Cancelled             the caller asked to stop

A repair that was tried and did not succeed is a result, not an error.
Each message says what happened, to what, and what to do now.
"""

from collections.abc import Callable

__all__ = [
    "BenchError",
    "Cancelled",
    "CaseError",
    "ModelError",
    "PatchError",
    "StarError",
    "UnsupportedFamily",
]


class StarError(Exception):
    """The request could not be tried."""


class ModelError(StarError):
    """A model folder, architecture, head or tokenizer does not fit."""


class UnsupportedFamily(ModelError):
    """No entry for this architecture in ``family.py``."""


class CaseError(StarError):
    """A case cannot be turned into token ids, or is too long for its model."""


class PatchError(StarError):
    """A patch file is damaged, or not for this base."""


class BenchError(StarError):
    """Data for the benchmark cannot be read, or does not fit what is measured."""


class Cancelled(StarError):
    """The caller asked to stop."""

    def __init__(self, message: str = "The repair was cancelled; the cases stay pending.") -> None:
        """Say so in the caller's words, or in these."""
        super().__init__(message)

    @classmethod
    def check(cls, cancelled: Callable[[], bool]) -> None:
        """Ask whether to stop.

        Raises:
            Cancelled: yes.
        """
        if cancelled():
            raise cls
