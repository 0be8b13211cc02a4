"""Whether completions may be offered in a file: settings, a language and a path in, a reason out."""

import contextlib
import os
import re

from star_lsp.globs import matches
from star_lsp.settings import CompletionSettings

__all__ = ["completion_allowed"]

#: No file of any system has a longer path; to follow the links in one takes time.
_LONGEST = 4096


def completion_allowed(settings: CompletionSettings, language: str, path: str) -> str | None:
    """Why no completion is offered in a file, None when one is.

    Args:
        settings: What the user wants.
        language: The editor's id of the language; may be empty.
        path: The file's path, with either slash; empty for a document that is not a file. A link is what it
            leads to as well.
    """
    if not settings.enabled:
        return "Completions are switched off; set completion.enabled to true to have them."
    if not settings.languages.get(language, settings.languages.get("*", True)):
        name = language or "files of no language"
        return f"Completions are switched off for {name}; completion.languages says where they are offered."
    named = _names(path)
    for glob in settings.exclude:
        if any(matches(glob, each) for each in named):
            return f"The file is excluded by {glob}; take that out of completion.exclude to have completions."
    return None


def _names(path: str) -> set[str]:
    """Every name by which the system finds that file: the end of links, and Windows' plain names."""
    names = {path, re.sub(r"(?<=[^/\\])(?::[^/\\:]*:\$\w+|[ .])+$", "", path)} - {""}
    # No Path: it enters each part into Python's table of names, which grows by that, a step of 4 MB in a day.
    for each in [each for each in names if len(each) < _LONGEST and os.path.isabs(each)]:  # noqa: PTH117
        with contextlib.suppress(OSError, ValueError):  # a name that no file can have
            names.add(os.path.realpath(each))
    return names
