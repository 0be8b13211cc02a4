"""What a run was made on, so that its seconds can be judged."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

__all__ = ["commit", "machine", "versions"]

_PARTS = ("star-lsp", "torch", "transformers", "tokenizers", "peft", "numpy")


def machine() -> dict[str, Any]:
    """Processor, cores, memory and threads."""
    return {
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memoryBytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "threads": torch.get_num_threads(),
    }


def versions() -> dict[str, str]:
    """Python, and the libraries that a figure may depend on."""
    found = {"python": platform.python_version()}
    for part in _PARTS:
        try:
            found[part] = version(part)
        except PackageNotFoundError:
            continue
    return found


def commit(folder: Path) -> str | None:
    """The commit of the code in ``folder``, with ``+`` when files were changed since; None without git."""
    asked = [["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]]
    said = []
    for question in asked:
        try:
            ran = subprocess.run(
                ["git", "-C", str(folder), *question], capture_output=True, text=True, timeout=20, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        said.append(ran.stdout.strip())
    return said[0] + ("+" if said[1] else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
