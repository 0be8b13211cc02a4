"""STAR: repairs a causal language model of code. Knows nothing of editors, files of users, or LSP.

The walk: ``case`` → ``trace`` → ``locate`` → ``solve`` → ``patch`` → ``repair`` → ``gate``. Names are
loaded when they are asked for, so that whoever needs only ``star.stop`` does not import torch.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Budget": "result",
    "Case": "case",
    "CodeModel": "model",
    "Failure": "case",
    "Patch": "patch",
    "Result": "result",
    "Star": "repair",
    "StopRule": "stop",
    "install": "patch",
    "load": "patch",
    "revision": "history",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"star.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'star' has no attribute {name!r}")
