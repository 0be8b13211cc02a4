"""What the developer says of a completion: wrong (with the fix), or right. A flag becomes a case."""

import difflib

from star_lsp.errors import FlagError
from star_lsp.shown import Shown
from star_lsp.store import Accepted, Case, Store

__all__ = ["accept", "derive", "flag"]

#: Lines of the text around a completion by which its place is found again after other edits.
_ANCHOR_LINES = (8, 3, 1)


def flag(store: Store, shown: Shown, document: str | None, expected: str | None, note: str | None) -> Case:
    """The case that says a completion is wrong; it is on disk when this returns.

    ``document`` is the text that now stands in the editor (None when it is closed); the fix is derived
    from it when ``expected`` is not given.

    Raises:
        FlagError: there is no fix, or it is what was shown.
    """
    if expected is None:
        if document is None:
            raise FlagError(
                "The file of this completion is no longer open; open it, or give the right code as `expected`."
            )
        expected = derive(shown, document)
    expected = expected.replace("\r\n", "\n").rstrip()
    if expected == shown.text:
        raise FlagError(
            "What stands there is what was suggested; write the right code first, or give it as `expected`."
        )
    store.forget_accepted(shown.prefix, shown.suffix)
    return store.add_case(
        prefix=shown.prefix,
        suffix=shown.suffix,
        expected=expected,
        rejected=shown.text,
        language=shown.language,
        uri=shown.uri,
        line=shown.line,
        character=shown.character,
        note=note or "",
        model=shown.model,
        revision=shown.revision,
    )


def accept(store: Store, shown: Shown, keep: int) -> None:
    """Remember that the developer took a completion."""
    if keep:
        store.accept(Accepted(shown.prefix, shown.suffix, shown.text, shown.language), keep)


def derive(shown: Shown, document: str) -> str:
    """What now stands where a completion was shown: the text between its prefix and its suffix.

    Edits elsewhere do no harm: the place is found again by the lines around it.

    Raises:
        FlagError: the place cannot be found again.
    """
    document = document.replace("\r\n", "\n").replace("\r", "\n")
    start = _end_of_prefix(document, shown.prefix)
    if start is not None:
        end = _start_of_suffix(document, shown.suffix, start)
        if end is not None:
            return document[start:end]
    raise FlagError(
        "The place of this completion cannot be found again in the file; give the right code as `expected`."
    )


def _end_of_prefix(document: str, prefix: str) -> int | None:
    """Where the text after a prefix begins; by ever fewer of its last lines, if they stand once."""
    for anchor in _anchors(prefix.splitlines(keepends=True), from_end=True):
        if anchor and document.count(anchor) == 1:
            return document.index(anchor) + len(anchor)
    if document.startswith(prefix):
        return len(prefix)
    # The same lines stand several times: the place whose text before is most like the prefix.
    last = prefix.splitlines(keepends=True)[-1:] or [""]
    if not last[0].strip():
        last = prefix.splitlines(keepends=True)[-2:]
    anchor = "".join(last)
    places = _places(document, anchor) if anchor.strip() else []
    if not places:
        return None
    context = prefix[-2000:]
    return max(
        places,
        key=lambda end: difflib.SequenceMatcher(None, context, document[max(0, end - 2000) : end]).ratio(),
    )


def _start_of_suffix(document: str, suffix: str, start: int) -> int | None:
    """Where the text from ``start`` ends: at the first place where the suffix goes on."""
    if not suffix.strip():
        rest = document[start:]
        return start + len(rest.rstrip()) if document.endswith(rest) else None
    lines = suffix.splitlines(keepends=True)
    for anchor in _anchors(lines, from_end=False):
        found = document.find(anchor, start) if anchor.strip() else -1
        if found >= 0:
            return found
    return None


def _anchors(lines: list[str], *, from_end: bool) -> list[str]:
    """A text, and ever shorter parts of it next to the place."""
    counts = [len(lines), *(count for count in _ANCHOR_LINES if count < len(lines))]
    return ["".join(lines[-count:] if from_end else lines[:count]) for count in counts]


def _places(document: str, anchor: str) -> list[int]:
    """The ends of all occurrences of a text, at most the first hundred."""
    found, at = [], document.find(anchor)
    while at >= 0 and len(found) < 100:
        found.append(at + len(anchor))
        at = document.find(anchor, at + 1)
    return found
