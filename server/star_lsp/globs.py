"""What a glob means of paths, in time that grows with them and not beyond: both may be made by an enemy.

``**`` is any number of folders, ``*`` and ``?`` stay within one name, ``{a,b}`` is either. A glob that
does not begin at the root may begin at any folder, and what it means is meant with all below it. Case
makes no difference: rather mean too much.
"""

import posixpath
import re
from collections.abc import Iterator, Sequence
from itertools import islice

__all__ = ["choices", "matches"]

#: So many globs at most are made of one with ``{a,b}`` in it; the rest of them is left out.
_MOST_CHOICES = 64
#: Of what is longer than any path of an operating system, only the end is looked at.
_LONGEST = 4096


def matches(glob: str, path: str) -> bool:
    """Whether ``path``, or a folder above it, is what ``glob`` means; slashes may be of either kind."""
    path = path.replace("\\", "/")[-_LONGEST:].lower()
    ways = [each.split("/") for each in dict.fromkeys((path, posixpath.normpath(path)))]
    return any(_leads(each, names) for each in choices(glob) for names in ways)


def choices(glob: str) -> list[str]:
    """The globs without ``{a,b}`` that one with it stands for, 64 of them at most."""
    return list(islice(_choices(glob.replace("\\", "/")[:_LONGEST].lower()), _MOST_CHOICES))


def _choices(glob: str) -> Iterator[str]:
    found = re.search(r"\{([^{}]*)\}", glob)
    if found is None:
        yield glob
        return
    for choice in dict.fromkeys(found[1].split(",")):
        yield from _choices(glob[: found.start()] + choice + glob[found.end() :])


def _leads(glob: str, names: Sequence[str]) -> bool:
    """Whether the names of a path begin with what a glob without choices means."""
    parts = glob.rstrip("/").split("/")
    rooted = glob.startswith("/") or re.match("[a-z]:/", glob) is not None
    runs: list[list[re.Pattern[str]]] = [[]]
    for part in parts if rooted else ["**", *parts]:
        if part == "**":
            runs.append([])
        else:
            runs[-1].append(re.compile(_pattern(part), re.DOTALL))
    at = 0
    for number, run in enumerate(runs):
        # What stands between two ``**`` is best found as early as it can be: the next one takes up the rest.
        last = len(names) - len(run) if number else at
        for start in range(at, last + 1):
            if all(
                part.fullmatch(name) for part, name in zip(run, names[start : start + len(run)], strict=False)
            ):
                at = start + len(run)
                break
        else:
            return False
    return at <= len(names)


def _pattern(part: str) -> str:
    """What a name must be that is meant by a part with ``*`` and ``?``."""
    first, *rest = (re.escape(piece).replace(r"\?", ".") for piece in re.split(r"\*+", part))
    if not rest:
        return first
    *between, last = rest
    # Atomic, as what comes next can do without another place of what came before.
    return first + "".join(f"(?>.*?{piece})" for piece in between) + f".*{last}"
