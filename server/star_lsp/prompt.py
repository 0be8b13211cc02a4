"""From the text around a cursor to the token ids that a model completes.

Knows how each tokenizer spells fill-in-the-middle, and how much text fits. Knows no documents, no positions
and no model: tokenizing is handed in.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from star_lsp.documents import valid

__all__ = ["Layout", "Limits", "Marks", "Prompt", "as_read", "build", "layout_of", "window"]

IdOf = Callable[[str], int | None]
Encode = Callable[[str], Sequence[int]]

# No model here averages more characters a token on code; what is cut by it is far from the cursor.
CHARACTERS_PER_TOKEN = 8

#: So many lines at most stand with the cursor's behind the middle mark.
_TYPED_LINES = 4
#: The longest token that is healed; blanks and rules in comments have longer ones.
_HEALED_CHARACTERS = 24

# More than one CR, so that a second reading finds nothing left to turn; from the first one on, so that a
# text of nothing else is not read from each of them anew.
_CRLF = re.compile("(?<!\r)\r+\n")


@dataclass(frozen=True, slots=True)
class Marks:
    """How the tokenizers of some models spell fill-in-the-middle.

    Attributes:
        name: Who spells it so.
        prefix: Token before the text left of the cursor.
        suffix: Token before the text right of it.
        middle: Token after which the model writes; empty where writing follows the prefix directly.
        suffix_first: Whether the suffix comes before the prefix.
        stops: Tokens at which a completion ends; those the tokenizer lacks are left out.
        told_by: A token that tells this spelling from another with the same three names.
        typed_last: Whether the cursor's line and a few before it stand at the very end, behind the middle
            mark: typing then adds to the prompt's end, and nothing before it has to be read again. For
            models on which that was measured to be as good.
    """

    name: str
    prefix: str
    suffix: str
    middle: str
    stops: tuple[str, ...]
    suffix_first: bool = False
    told_by: str = ""
    typed_last: bool = False

    @property
    def order(self) -> tuple[str, ...]:
        """The marks in the order in which a prompt has them."""
        if self.suffix_first:
            return (self.suffix, self.prefix, *([self.middle] if self.middle else []))
        return (self.prefix, self.suffix, self.middle)


# The first whose marks a tokenizer has is used.
MARKS = (
    Marks(
        "CodeGemma",
        "<|fim_prefix|>",
        "<|fim_suffix|>",
        "<|fim_middle|>",
        ("<|file_separator|>", "<eos>", "<end_of_turn>"),
        told_by="<|file_separator|>",
    ),
    Marks(
        "Qwen",
        "<|fim_prefix|>",
        "<|fim_suffix|>",
        "<|fim_middle|>",
        ("<|endoftext|>", "<|im_end|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|end_of_text|>"),
        typed_last=True,
    ),
    Marks(
        "StarCoder",  # StarCoder2, Granite, StableCode as well
        "<fim_prefix>",
        "<fim_suffix>",
        "<fim_middle>",
        ("<|endoftext|>", "<fim_pad>", "<file_sep>", "<repo_name>", "<filename>", "<reponame>"),
    ),
    Marks("SantaCoder", "<fim-prefix>", "<fim-suffix>", "<fim-middle>", ("<|endoftext|>", "<fim-pad>")),
    Marks("CodeLlama", "▁<PRE>", "▁<SUF>", "▁<MID>", ("▁<EOT>", "</s>")),
    Marks(
        "DeepSeek-Coder",
        "<｜fim▁begin｜>",
        "<｜fim▁hole｜>",
        "<｜fim▁end｜>",
        ("<｜end▁of▁sentence｜>", "<|EOT|>"),
    ),
    Marks("Codestral", "[PREFIX]", "[SUFFIX]", "", ("</s>", "[MIDDLE]"), suffix_first=True),
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Fill-in-the-middle of one tokenizer: its marks, and their ids there."""

    marks: Marks
    prefix_id: int
    suffix_id: int
    middle_id: int | None
    stop_ids: frozenset[int]

    @property
    def name(self) -> str:
        """Who spells it so."""
        return self.marks.name


@dataclass(frozen=True, slots=True)
class Limits:
    """How many tokens of the text around the cursor a prompt holds."""

    prefix_tokens: int = 1024
    suffix_tokens: int = 256


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids, and the text they were made of.

    Building a prompt from ``prefix`` and ``suffix`` under the same layout and limits gives the same ids: so
    they are all that a case has to keep.

    ``healed`` ends the prefix and has no ids: the cursor may stand within a token, so the model writes the
    last one anew, and is held to begin with this text.
    """

    ids: tuple[int, ...]
    prefix: str
    suffix: str
    healed: str = ""


def layout_of(special_token_to_id: IdOf) -> Layout | None:
    """The layout of a tokenizer, None when it has no fill-in-the-middle tokens that we know.

    Args:
        special_token_to_id: The id of an added token by its exact name; None, and not the id of an unknown
            token, when there is none of that name.
    """
    for marks in MARKS:
        found = [special_token_to_id(name) for name in marks.order]
        ids = [number for number in found if number is not None]
        if len(ids) < len(found) or (marks.told_by and special_token_to_id(marks.told_by) is None):
            continue
        by_name = dict(zip(marks.order, ids, strict=True))
        stops = {special_token_to_id(name) for name in (*marks.order, *marks.stops)}
        return Layout(
            marks,
            prefix_id=by_name[marks.prefix],
            suffix_id=by_name[marks.suffix],
            middle_id=by_name.get(marks.middle),
            stop_ids=frozenset(stop for stop in stops if stop is not None),
        )
    return None


def window(prefix: str, suffix: str, limits: Limits) -> tuple[str, str]:
    """The text near the cursor that can matter, found by slicing alone: cheap in a document of megabytes.

    The prefix begins at the start of a line and the suffix ends at the end of one, unless a single line is
    longer than all that fits. Where the prefix begins changes only now and then as it grows, so that what
    was read of it stays read. Line breaks become LF and what is not valid Unicode is replaced, as the model
    is to see it.
    """
    before = max(0, limits.prefix_tokens) * CHARACTERS_PER_TOKEN
    after = max(0, limits.suffix_tokens) * CHARACTERS_PER_TOKEN
    if len(prefix) > before:
        cut = min(_rounded_up(len(prefix) - before, before), len(prefix))
        line = prefix.find("\n", cut - 1)  # a line may start right at the cut
        prefix = prefix[cut if line in (-1, len(prefix) - 1) else line + 1 :]
    if len(suffix) > after:
        line = suffix.rfind("\n", 0, after)
        suffix = suffix[:after].removesuffix("\r") if line < 0 else suffix[: line + 1]
    return as_read(prefix), as_read(suffix)


def build(
    encode: Encode,
    layout: Layout | None,
    prefix: str,
    suffix: str,
    limits: Limits,
    start_ids: Sequence[int] = (),
) -> Prompt:
    """The prompt for the place between ``prefix`` and ``suffix``, which may be a whole document.

    Without a layout the model reads from left to right: the prefix alone.

    Args:
        encode: Token ids of plain text. It must neither add tokens of its own nor read a special token, or
            a mark, that the text happens to spell.
        layout: From ``layout_of``.
        prefix: Text left of the cursor.
        suffix: Text right of the cursor.
        limits: How much of it to keep.
        start_ids: What the tokenizer puts before every text; it is not counted.
    """
    prefix, suffix = window(prefix, suffix, limits)

    def plain(text: str) -> list[int]:
        return list(encode(text)) if text else []

    def split(text: str) -> list[int]:
        above, typed = _typed(text)
        return [*plain(above), *plain(typed)]

    typed_last = layout is not None and layout.marks.typed_last
    prefix, prefix_ids = _fit(split if typed_last else plain, prefix, limits.prefix_tokens, from_end=True)
    suffix, suffix_ids = _fit(plain, suffix, limits.suffix_tokens, from_end=False)
    if layout is None:
        ids, healed = _healed(plain, prefix, prefix_ids)
        if not ids:  # some text has to stand before what is written
            ids, healed = prefix_ids, ""
        return Prompt((*start_ids, *ids) if ids else (), prefix, suffix, healed)
    typed_ids: list[int] = []
    healed = ""
    if typed_last:
        _, typed = _typed(prefix)
        typed_ids = plain(typed)
        prefix_ids = prefix_ids[: len(prefix_ids) - len(typed_ids)]
        typed_ids, healed = _healed(plain, typed, typed_ids)
    middle = [] if layout.middle_id is None else [layout.middle_id]
    left, right = [layout.prefix_id, *prefix_ids], [layout.suffix_id, *suffix_ids]
    around = [*right, *left] if layout.marks.suffix_first else [*left, *right]
    return Prompt((*start_ids, *around, *middle, *typed_ids), prefix, suffix, healed)


def as_read(text: str) -> str:
    """``text`` as the model is to see it: line breaks are LF, and what is not valid Unicode is replaced."""
    return valid(_CRLF.sub("\n", text))


def _typed(prefix: str) -> tuple[str, str]:
    """What stands above, and the cursor's line with one to four lines before it, where there are any.

    It is cut at every fourth line only, so that a new line, too, mostly adds to the end of the prompt.
    """
    starts = [0, *(match.end() for match in re.finditer("\n", prefix))]
    cut = starts[(len(starts) - 2) // _TYPED_LINES * _TYPED_LINES] if len(starts) > 1 else 0
    return prefix[:cut], prefix[cut:]


def _healed(encode: Callable[[str], list[int]], text: str, ids: list[int]) -> tuple[list[int], str]:
    """All but the last of the ids of a text, and the text of that; as it was, where that has no text."""
    for size in range(1, min(len(text), _HEALED_CHARACTERS) + 1):
        if encode(text[:-size]) == ids[:-1]:
            return ids[:-1], text[-size:]
    return ids, ""


def _rounded_up(number: int, limit: int) -> int:
    """The next multiple of an eighth of a limit."""
    step = max(1, limit // 8)
    return -(-number // step) * step


def _fit(
    encode: Callable[[str], list[int]], text: str, tokens: int, *, from_end: bool
) -> tuple[str, list[int]]:
    """As many whole lines of ``text`` as fit into ``tokens``, and their ids.

    What fits is left as it is, which is why fitting twice changes nothing.
    """
    ids = encode(text)
    if len(ids) <= tokens:
        return text, ids
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)  # splitlines would also break at form feeds
    counts = [len(encode(line)) for line in lines]
    room = tokens
    if from_end:
        # Counted from the start, which stays while the end grows: so the cut stays too.
        room = sum(counts) - _rounded_up(sum(counts) - tokens, tokens)
        lines.reverse()
        counts.reverse()
    kept, total = 0, 0
    for count in counts:
        total += count
        if total > room:
            break
        kept += 1
    # Tokens may reach over line ends, so that the sum is only nearly the length of the whole.
    while kept:
        text = "".join(reversed(lines[:kept]) if from_end else lines[:kept])
        ids = encode(text)
        if len(ids) <= tokens:
            return text, ids
        kept -= 1
    return _fit_line(encode, lines[0], tokens, from_end=from_end)


def _fit_line(
    encode: Callable[[str], list[int]], line: str, tokens: int, *, from_end: bool
) -> tuple[str, list[int]]:
    size = len(line)
    while size > 0 and tokens > 0:
        text = line[len(line) - size :] if from_end else line[:size]
        ids = encode(text)
        if len(ids) <= tokens:
            return text, ids
        size = min(size - 1, size * tokens // len(ids))
    return "", []
