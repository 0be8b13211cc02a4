"""Another name for something local, everywhere in a context: it means the same and is completed alike."""

import ast
import builtins
import keyword
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from star.context import Context
from star.syntax import syntax

__all__ = ["renamed"]

#: Names of our own choosing, plain enough for anything.
_NAMES = ("entry", "current", "source", "bundle", "piece", "given", "holder", "subject", "thing", "unit")

#: ``const rows = …``, ``rows := …``, ``int rows = …``: a name that a line begins with declaring.
_SET = re.compile(
    r"^[ \t]*(?P<kind>(?:let|const|var|final|auto|local|val|[A-Za-z_][\w<>\[\]*]*)[ \t]+)?"
    r"(?P<name>[a-z_]\w*)[ \t]*(?P<sign>:?=)(?![=>])",
    re.MULTILINE,
)
_SHELL_SET = re.compile(r"^[ \t]*(?:local[ \t]+)?(?P<name>[a-z_]\w*)=", re.MULTILINE)
_IMPORT = re.compile(
    r"^(?:[ \t]*(?:import|from|use|using|package|#include)\b.*|.*\brequire\(.*)$", re.MULTILINE
)

#: Where a name begins and ends, in characters of the document.
Span = tuple[int, int]


def renamed(context: Context, seed: int = 0) -> Context | None:
    """The context with one local name replaced everywhere, also in what is expected; None: there is none.

    The name stands in the prefix, so that its new spelling can be known, and is preferred if it is expected.
    """
    document = context.prefix + context.expected + context.suffix
    cuts = (len(context.prefix), len(context.prefix) + len(context.expected))
    tree = syntax(document)
    found = _in_python(tree, document) if tree else _in_text(document)
    names = {
        name: spans
        for name, spans in found.items()
        if min(spans)[0] < cuts[0] and not any(a < cut < b for a, b in spans for cut in cuts)
    }
    used = set(re.findall(r"\w+", document.lower()))
    fresh = [name for name in _NAMES if name not in used]
    if not names or not fresh:
        return None
    drawn = random.Random(f"{seed} {context.id}")
    expected = {name for name, spans in names.items() if any(cuts[0] <= a < cuts[1] for a, _ in spans)}
    name, new = drawn.choice(sorted(expected or names)), drawn.choice(fresh)
    new = new.upper() if name.isupper() else new
    parts = (context.prefix, context.expected, context.suffix)
    starts = (0, *cuts)
    prefix, wanted, suffix = (
        _replaced(
            part, [(a - start, b - start) for a, b in names[name] if start <= a < start + len(part)], new
        )
        for part, start in zip(parts, starts, strict=True)
    )
    made = replace(context, prefix=prefix, suffix=suffix, expected=wanted)
    return made if tree is None or syntax(prefix + wanted + suffix) else None


def _replaced(text: str, spans: Iterable[Span], new: str) -> str:
    for start, end in sorted(spans, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _in_python(tree: ast.Module, document: str) -> dict[str, list[Span]]:
    """The names that are parameters or set, and nothing else, with every place where they stand."""
    barred = {name for node in ast.walk(tree) for name in _barred(node)} | set(dir(builtins))
    starts = [0, *(match.end() for match in re.finditer("\n", document))]
    lines = document.split("\n")
    spans: dict[str, list[Span]] = {}
    bound: set[str] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Name | ast.arg):
            continue
        name = node.id if isinstance(node, ast.Name) else node.arg
        if name in barred:
            continue
        at = starts[node.lineno - 1] + len(lines[node.lineno - 1].encode()[: node.col_offset].decode())
        spans.setdefault(name, []).append((at, at + len(name)))
        if isinstance(node, ast.arg) or isinstance(node.ctx, ast.Store):
            bound.add(name)
    return {
        name: spans[name]
        for name in bound
        if not name.startswith("_")
        and all(document[a:b] == name for a, b in spans[name])
        and not re.search(rf"[@{{]{name}\b", document)  # a query or a template may ask for it by name
    }


def _barred(node: ast.AST) -> Iterator[str]:
    """Names that mean something to others, or stand where no node tells the place."""
    match node:
        case ast.arg(arg="self" | "cls" as name):
            yield name
        case ast.alias():
            yield (node.asname or node.name).split(".")[0]
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
            if isinstance(node, ast.ClassDef):  # fields: others reach them as attributes
                yield from (each.id for part in node.body for each in _targets(part))
        case ast.keyword(arg=str(name)):
            yield name
        case ast.Global() | ast.Nonlocal():
            yield from node.names
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name
        case ast.MatchMapping(rest=str(name)):
            yield name
        case ast.JoinedStr():  # before Python 3.12 places in it are wrong
            yield from (each.id for each in ast.walk(node) if isinstance(each, ast.Name))


def _targets(statement: ast.stmt) -> Iterator[ast.Name]:
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign | ast.AugAssign):
        targets = [statement.target]
    for target in targets:
        yield from (each for each in ast.walk(target) if isinstance(each, ast.Name))


def _in_text(document: str) -> dict[str, list[Span]]:
    """The same where no parser helps: names that are set on a line of their own and used again."""
    set_ = {match["name"] for match in _SET.finditer(document) if match["kind"] or match["sign"] == ":="}
    set_ |= {
        match["name"]
        for match in _SHELL_SET.finditer(document)
        if re.search(rf"\${{?{match['name']}\b", document)
    }
    imports = "\n".join(match[0] for match in _IMPORT.finditer(document))
    found = {}
    for name in set_:
        spans = [match.span() for match in re.finditer(rf"\b{name}\b", document)]
        if len(spans) < 2 or keyword.iskeyword(name) or re.search(rf"\b{name}\b", imports):
            continue
        if all(_is_plain(document, span) for span in spans):
            found[name] = spans
    return found


def _is_plain(document: str, span: Span) -> bool:
    """Whether a name stands here for itself: no member, no key, no word in a text or a comment."""
    line = document[document.rfind("\n", 0, span[0]) + 1 :].split("\n", 1)[0]
    at = span[0] - (document.rfind("\n", 0, span[0]) + 1)
    before, after = line[:at], line[at + span[1] - span[0] :]
    if before.endswith(("$", "${")):
        return True
    quoted = any(before.count(quote) % 2 for quote in "\"'`")
    comment = (
        before.lstrip().startswith(("#", "//", "*", "/*", ";", "--")) or " //" in before or " #" in before
    )
    member = before.endswith((".", "->", "::", "-", "/", "@", "<"))
    key = re.match(r"\s*:(?!=)", after) is not None or after.startswith(("-", "/"))
    return not (quoted or comment or member or key)
