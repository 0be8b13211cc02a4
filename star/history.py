"""The active patches in order, and the name of what they make of a base."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

__all__ = ["Weights", "base_of", "earlier_bases", "revision", "weights_of"]

#: What the layers compute with: the weights as they are stored, or these in int8 where that is safe.
Weights = Literal["stored", "int8"]

#: Counts what int8 has meant: 1 without the output projections, 2 with them.
_INT8 = 2


def weights_of(about: Mapping[str, Any]) -> Weights:
    """What a model's folder says that it computes with; before there was a choice, it said nothing."""
    return "int8" if about.get("weights") == "int8" else "stored"


def base_of(fingerprint: str, weights: Weights) -> str:
    """The name of the base that a model is when it computes with ``weights``: its own for the stored ones.

    A repair is judged on the very numbers that serve, so what was judged on others is for another base.
    """
    return fingerprint if weights == "stored" else _named(fingerprint, weights, _INT8)


def earlier_bases(fingerprint: str, weights: Weights) -> list[str]:
    """The names that the same model had when ``weights`` meant other numbers."""
    return [] if weights == "stored" else [_named(fingerprint, weights, each) for each in range(1, _INT8)]


def _named(fingerprint: str, weights: Weights, meaning: int) -> str:
    return hashlib.sha256(f"star weights {meaning}\n{fingerprint} {weights}\n".encode()).hexdigest()


def revision(base: str, digests: Sequence[str]) -> str:
    """The revision of base ⊕ patches, from the base's fingerprint and the patches' digests in order."""
    digest = hashlib.sha256(base.encode())
    for each in digests:
        digest.update(each.encode())
    return digest.hexdigest()[:16]
