"""What can be told of code that may be Python, and may be in pieces."""

import ast
import re
import warnings

__all__ = ["Definition", "bindings", "lines_of", "syntax", "texts", "words"]

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def syntax(document: str) -> ast.Module | None:
    """A document read as Python; None: it is none, or one whose lines cannot be told."""
    if "\r" in document or "\f" in document or document.startswith("#!/bin/"):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that are none
            tree = ast.parse(document)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return None if tree.body and all(_is_data(node) for node in tree.body) else tree


def _is_data(node: ast.stmt) -> bool:
    """Whether a statement looks like YAML (``kind: Pod``) or JSON."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Dict | ast.List)
    return isinstance(node, ast.AnnAssign) and node.value is None


def bindings(tree: ast.AST) -> set[str]:
    """The names that some code brings along for other code: imported, defined, set, also as an attribute."""
    names: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
                names |= {
                    each.attr
                    for each in ast.walk(node)
                    if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store)
                }
                continue  # what it calls its own is known to nobody else
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                names.add(name)
            case ast.ClassDef(name=name) | ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                names.add(name)
            case ast.alias(name=name, asname=other):
                names.add((other or name).split(".")[0])
        names |= bindings(node)
    return names


def lines_of(node: ast.stmt) -> tuple[int, int]:
    """The lines of a statement, its decorators with it."""
    starts = [node.lineno]
    if isinstance(node, Definition):
        starts += [each.lineno for each in node.decorator_list]
    return min(starts) - 1, node.end_lineno or node.lineno


def texts(document: str) -> set[int]:
    """The lines inside texts of several lines, which say what is meant."""
    tree = syntax(document)
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Constant)) if tree else ()
    return {i for node in nodes for i in range(node.lineno, node.end_lineno or 0)}


def words(text: str) -> set[str]:
    return set(re.findall(r"[^\W\d]\w*", text))
