"""The active patches in order, and the name of what they make of a base."""

import hashlib
from collections.abc import Sequence

__all__ = ["revision"]


def revision(base: str, digests: Sequence[str]) -> str:
    """The revision of base ⊕ patches, from the base's fingerprint and the patches' digests in order."""
    digest = hashlib.sha256(base.encode())
    for each in digests:
        digest.update(each.encode())
    return digest.hexdigest()[:16]
