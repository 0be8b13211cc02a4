"""What the developer says of a completion: wrong (with the fix), or right. A flag becomes a case."""

import asyncio
import re
from collections import Counter

from star_lsp.documents import after_breaks, breaks_in, valid
from star_lsp.errors import FlagError
from star_lsp.installed import folder_name
from star_lsp.mask import mask, taught
from star_lsp.patience import patiently
from star_lsp.prompt import as_read
from star_lsp.shown import Shown
from star_lsp.store import Accepted, Case, Store

__all__ = ["accept", "derive", "flag"]

#: Lines of the text around a completion by which its place is found again after other edits.
_ANCHOR_LINES = (8, 3, 2, 1)
#: Lines above a place that are compared when its anchor stands several times.
_CONTEXT_LINES = 30
#: How far from its line a place is looked for.
_NEAR_CHARACTERS = 1 << 19


async def flag(
    store: Store, shown: Shown, document: str | None, expected: str | None, note: str | None
) -> tuple[Case, tuple[str, ...]]:
    """The case that says a completion is wrong, on disk when this returns, and the kinds of secrets masked.

    ``document`` is the text that now stands in the editor (None when it is closed); the fix is derived
    from it when ``expected`` is not given.

    Raises:
        FlagError: there is no fix, it is what was shown, or it holds a secret.
    """
    if expected is None:
        if document is None:
            raise FlagError(
                "The file of this completion is not open any more; open it, or give the right code as "
                "`expected`."
            )
        if not (expected := derive(shown, document)).strip():
            raise FlagError(
                "Nothing stands there yet; write the right code first, or give it as `expected` (which may "
                "be empty, if nothing should be suggested)."
            )
    expected = as_read(expected).rstrip()
    if expected == shown.text:
        raise FlagError(
            "What stands there is what was suggested; write the right code first, or give it as `expected`."
        )
    before, masked = await asyncio.gather(
        _as_accepted(shown),
        asyncio.to_thread(
            taught,
            shown.prefix,
            shown.suffix,
            expected,
            shown.text,
            (note or "", shown.uri),
            shown.language,
        ),
    )
    await patiently(store.forget_accepted, before.prefix, before.suffix)
    said, uri = masked.others
    case = await patiently(
        store.add_case,
        prefix=masked.prefix,
        suffix=masked.suffix,
        expected=expected,
        rejected=masked.middles[1],
        language=valid(shown.language),
        uri=valid(uri),
        line=shown.line,
        character=shown.character,
        note=valid(f"{said}\n{masked.told}".strip()),
        model=folder_name(shown.model),
        revision=shown.revision,
    )
    return case, masked.kinds


async def accept(store: Store, shown: Shown, keep: int) -> None:
    """Remember that the developer took a completion; one that is itself a secret is not kept."""
    if keep:
        masked = await _as_accepted(shown)
        if masked.text == shown.text:
            await patiently(store.accept, masked, keep)


async def _as_accepted(shown: Shown) -> Accepted:
    """A completion as it is kept when it was taken; off the event loop, which the detectors would hold up."""
    masked = await asyncio.to_thread(mask, shown.prefix, shown.suffix, (shown.text,), language=shown.language)
    return Accepted(masked.prefix, masked.suffix, masked.middles[0], valid(shown.language))


def derive(shown: Shown, document: str) -> str:
    """What now stands where a completion was shown: the text between its prefix and its suffix.

    Edits elsewhere do no harm: the place is found again by the lines around it. In a document of megabytes
    it is looked for only near the line where it was.

    Raises:
        FlagError: the place cannot be found again.
    """
    document, first = _near(document, shown.line)
    document = as_read(document)
    start = _end_of_prefix(document, shown.prefix, shown.line - first)
    if start is not None:
        end = _start_of_suffix(document, shown.suffix, start)
        if end is not None:
            return document[start:end]
    raise FlagError(
        "The place of this completion cannot be found again in the file; give the right code as `expected`."
    )


def _near(document: str, line: int) -> tuple[str, int]:
    """What of a document is near a line, and the line that this begins on; all of it, unless it is large."""
    if len(document) <= 2 * _NEAR_CHARACTERS:
        return document, 0
    at = after_breaks(document, line)
    start = max(0, at - _NEAR_CHARACTERS)
    return document[start : at + _NEAR_CHARACTERS], max(0, line - breaks_in(document[start:at]))


def _end_of_prefix(document: str, prefix: str, line: int) -> int | None:
    """Where the text after a prefix begins: by all of it, or else by ever fewer of its last lines.

    Where these stand several times, the surroundings tell, and then the line on which it was.
    """
    if not prefix.strip():
        return len(prefix) if document.startswith(prefix) else None
    for anchor in _anchors(_lines(prefix), from_end=True):
        if places := _places(document, anchor):
            around = Counter(_lines(prefix)[-_CONTEXT_LINES:])

            def likeness(end: int, around: Counter[str] = around) -> tuple[int, int]:
                here = Counter(_lines(document[max(0, end - 4000) : end])[-_CONTEXT_LINES:])
                return (here & around).total(), -abs(document.count("\n", 0, end) - line)

            return max(places, key=likeness)
    return None


def _start_of_suffix(document: str, suffix: str, start: int) -> int | None:
    """Where the text from ``start`` ends: where the suffix, or the first lines of it, go on."""
    if not suffix.strip():
        return start + len(document[start:].rstrip())
    if document.endswith(suffix) and len(document) - len(suffix) >= start:
        return len(document) - len(suffix)
    for anchor in _anchors(_lines(suffix), from_end=False):
        found = document.find(anchor, start)
        if found >= 0:
            return found
    return None


def _anchors(lines: list[str], *, from_end: bool) -> list[str]:
    """A text, and ever shorter parts of it next to the place; those that are blank would fit anywhere."""
    counts = [len(lines), *(count for count in _ANCHOR_LINES if count < len(lines))]
    anchors = ["".join(lines[-count:] if from_end else lines[:count]) for count in counts]
    return [anchor for anchor in anchors if anchor.strip()]


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)  # splitlines would also break at form feeds


def _places(document: str, anchor: str) -> list[int]:
    """The ends of all occurrences of a text, at most the first hundred."""
    found: list[int] = []
    at = document.find(anchor)
    while at >= 0 and len(found) < 100:
        found.append(at + len(anchor))
        at = document.find(anchor, at + 1)
    return found
