"""A place in some code, as text: where a model is asked to write, and what it should."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Context", "Role"]

Role = Literal["flagged", "near", "distant", "neighbour"]


@dataclass(frozen=True, slots=True)
class Context:
    """One place where a model is asked to write ``expected`` between ``prefix`` and ``suffix``."""

    id: str
    prefix: str
    suffix: str
    expected: str
    role: Role = "flagged"
