"""A tokenizer as its model is used to it: what begins every text, what ends a completion."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

__all__ = ["Plain", "marks", "start_ids", "stop_ids", "tokenizer_in"]

#: Added tokens that are markup, not text: `<|fim_prefix|>`, `<EOT>`, `[SUFFIX]`; not runs of blanks.
_MARKUP = re.compile(r"\s*(<.+>|\[[A-Z_]+\]|▁<[A-Z]+>)\s*")
#: Tags of HTML, of which code is full: Gemma's tokenizers have added tokens for some.
_TAG = re.compile(
    "</?(a|abbr|address|article|aside|audio|b|blockquote|body|br|button|canvas|caption|cite|code|col|dd|del"
    "|details|div|dl|dt|em|embed|fieldset|figcaption|figure|footer|form|h[1-6]|head|header|hr|html|i|iframe|img"
    "|input|ins|kbd|label|legend|li|link|main|map|mark|meta|nav|object|ol|optgroup|option|p|picture|pre|q|s|samp"
    "|script|section|select|small|source|span|strong|style|sub|summary|sup|svg|table|tbody|td|template|textarea"
    "|tfoot|th|thead|time|title|tr|track|u|ul|var|video)>"
)
#: What may spell markup in a text.
_SPELT = re.compile(r"<[^<>]+>|\[[A-Z_]+\]")
#: Held in reserve for further training, and in no text: `<unused7>`, `<|reserved_special_token_0|>`.
_RESERVED = re.compile(r"\D*\d.*", re.DOTALL)


class Plain:
    """Token ids of texts, without what belongs before them; what spells special tokens or markup is text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.encode_special_tokens = True  # of those that it calls special
        self._tokenizer = tokenizer
        self._markup = {
            token.content.strip().removeprefix("▁")
            for token in tokenizer.get_added_tokens_decoder().values()
            if _is_markup(token.content)
        }

    def __call__(self, text: str) -> list[int]:
        """The ids of one text."""
        cuts = [match.start() + 1 for match in _SPELT.finditer(text) if match.group() in self._markup]
        pieces = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        return [
            id_ for piece in pieces for id_ in self._tokenizer.encode(piece, add_special_tokens=False).ids
        ]


def tokenizer_in(folder: Path) -> Tokenizer:
    """The tokenizer in a model's folder, which knows what it is to put before a text.

    Some models say that beside ``tokenizer.json`` alone (``add_bos_token``).
    """
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()  # as it was used last by those who trained the model
    tokenizer.no_padding()
    beside = folder / "tokenizer_config.json"
    about = json.loads(beside.read_text("utf-8")) if beside.exists() else {}
    name = about.get("bos_token")
    name = name.get("content") if isinstance(name, Mapping) else name
    if about.get("add_bos_token") is True and isinstance(name, str) and not start_ids(tokenizer):
        id_ = tokenizer.token_to_id(name)
        if id_ is not None:
            tokenizer.post_processor = TemplateProcessing(single=[name, "$A"], special_tokens=[(name, id_)])
    return tokenizer


def start_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """What a tokenizer puts before every text; models that are used to it write nonsense without."""
    found = tokenizer.encode("x")
    return tuple(found.ids[: found.special_tokens_mask.index(0)])


def stop_ids(config: Any, tokenizer: Tokenizer) -> frozenset[int]:
    """Tokens that end a completion: the end of sequence, and every added token that is markup."""
    declared = getattr(config, "eos_token_id", None)
    ends = {declared} if isinstance(declared, int) else set(declared or ())
    added = tokenizer.get_added_tokens_decoder()
    return frozenset(
        ends | {id_ for id_, token in added.items() if token.special or _is_markup(token.content)}
    )


def _is_markup(content: str) -> bool:
    return bool(_MARKUP.fullmatch(content) and not _TAG.fullmatch(content))


def marks(ids: Iterable[int], tokenizer: Tokenizer) -> list[int]:
    """Those of some tokens that texts have: not what is held in reserve, of which there may be thousands."""
    return sorted(id_ for id_ in ids if not _RESERVED.fullmatch(tokenizer.id_to_token(id_) or ""))
