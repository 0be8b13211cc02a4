"""Whether completions may be offered in a file: settings, a language and a path in, a reason out."""

import os
import re
from pathlib import Path

from star_lsp.settings import CompletionSettings

__all__ = ["completion_allowed"]


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
        if any(_matches(glob, each) for each in named):
            return f"The file is excluded by {glob}; take that out of completion.exclude to have completions."
    return None


def _names(path: str) -> set[str]:
    """Every name by which the system finds that file: the end of links, and Windows' plain names."""
    names = {path, re.sub(r"(?<=[^/\\])(?::[^/\\:]*:\$\w+|[ .])+$", "", path)} - {""}
    return names | {os.path.realpath(each) for each in names if Path(each).is_absolute()}


def _matches(glob: str, path: str) -> bool:
    """Whether ``path``, or a folder above it, is what ``glob`` means.

    ``**/`` is any number of folders, ``*`` and ``?`` stay within one name, ``{a,b}`` is either. A glob that
    does not begin at the root may begin at any folder. Case makes no difference: rather exclude too much.
    """
    glob, path = glob.replace("\\", "/"), path.replace("\\", "/")
    pattern = _pattern(glob)
    root = "" if glob.startswith("/") or re.match("[A-Za-z]:/", glob) else "(?:.*/)?"
    return re.fullmatch(f"{root}{pattern}(?:/.*)?", path, re.IGNORECASE | re.DOTALL) is not None


def _pattern(glob: str) -> str:
    return "".join(map(_glob_part, re.split(r"(\*\*/|/\*\*$|\*\*|\*|\?|\{[^{}]*\})", glob)))


def _glob_part(part: str) -> str:
    wild = {"**/": "(?:.*/)?", "/**": "/.*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    if part in wild:
        return wild[part]
    if part.startswith("{") and part.endswith("}"):
        return "(?:" + "|".join(map(_pattern, part[1:-1].split(","))) + ")"
    return re.escape(part)
