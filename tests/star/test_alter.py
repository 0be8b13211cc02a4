"""The same place in another file."""

import ast
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from star.alter import alterations
from star.context import Context

PREFIX = '''"""Loads exports."""
import json
import os
import pandas as pd

LIMIT = 3
NAME = "x"


def first(rows):
    """The first.

    rows: all of them
    """
    return rows[0]


def second(rows):
    return rows[1]


def load(paths, sep):
    """Collect all."""
    merged = pd.DataFrame()
    for path in paths:
        batch = pd.read_csv(path, sep=sep)
        merged = '''
CONTEXT = Context("a", PREFIX, "\n    return merged\n", "pd.concat([merged, batch])")


def _altered(context: Context, seed: int = 0) -> dict[str, Context]:
    return {each.id.rpartition("~")[2]: each for each in alterations(context, seed)}


def _document(context: Context) -> str:
    return context.prefix + context.expected + context.suffix


def _is_part(part: list[str], whole: list[str]) -> bool:
    rest = iter(whole)
    return all(line in rest for line in part)


def test_all_alterations_are_had_of_an_ordinary_file() -> None:
    assert [each.id for each in alterations(CONTEXT)] == ["a~removed", "a~added", "a~reordered", "a~renamed"]


def test_what_is_removed_is_not_needed_above_the_cursor() -> None:
    removed = _altered(CONTEXT)["removed"].prefix
    assert "import json" not in removed
    assert "def first" not in removed
    assert "rows: all of them" not in removed
    assert "import pandas as pd" in removed
    assert removed.endswith("\n".join(PREFIX.split("\n")[-4:]))


def test_a_file_that_needs_all_it_has_begins_later() -> None:
    prefix = "import numpy as np\n\n\ndef draw(seed):\n    a = np\n    b = a\n    rng = np.random."
    removed = _altered(Context("a", prefix, "\n", "default_rng(seed)"))["removed"].prefix
    assert removed.startswith("def draw(seed):")


def test_a_file_of_data_gets_no_code() -> None:
    for prefix, expected in (("kind: ", "Pod"), ('{"a": ', "1}")):
        made = _altered(Context("a", prefix, "\n", expected))
        assert list(made) == ["added"]
        assert made["added"].prefix.startswith("# ")


def test_what_is_expected_keeps_its_names() -> None:
    prefix = "import numpy as np\nimport os\n\n\ndef f():\n    a = 1\n    b = 2\n    c = "
    removed = _altered(Context("a", prefix, "\n", "np.array([1])"))["removed"].prefix
    assert "import numpy as np" in removed
    assert "import os" not in removed


def test_what_is_meant_is_never_removed() -> None:
    prefix = (
        'def f(x):\n    """Add one.\n\n    Then stop.\n    """\n    # carefully\n\n    a = 1\n    return '
    )
    assert "removed" not in _altered(Context("a", prefix, "\n", "x + 1"))


def test_python_gets_code_at_its_top_level_and_other_languages_a_comment() -> None:
    assert _altered(CONTEXT)["added"].prefix.index("import pandas") < len(PREFIX)
    for seed in range(5):
        ast.parse(_document(_altered(CONTEXT, seed)["added"]))
    script = Context("a", "#!/bin/sh\n# list files\n", "", "ls")
    assert re.fullmatch(r"#!/bin/sh\n# .+\n\n# list files\n", _altered(script)["added"].prefix)
    javascript = Context("a", "const a = 1;\nfoo(", ");\n", "a")
    assert re.fullmatch(r"// .+\n\nconst a = 1;\nfoo\(", _altered(javascript)["added"].prefix)
    assembler = Context("a", "; clear eax\n", "", "xor eax, eax")
    assert _altered(assembler)["added"].prefix.startswith("; ")


def test_an_intent_stays_right_above_what_it_asks_for() -> None:
    added = _altered(Context("a", "# sort x\n", "", "x.sort()"))["added"]
    assert added.prefix.endswith("\n# sort x\n")
    assert added.prefix != "# sort x\n"


@pytest.mark.parametrize(
    ("prefix", "reordered"),
    [
        ("import a\nimport b\nx = ", "import b\nimport a\nx = "),
        ("from __future__ import annotations\nimport b\nx = ", None),
        ("A = 1\nB = 'x'\nx = ", "B = 'x'\nA = 1\nx = "),
        ("A = 1\nA = 2\nx = ", None),
        ("import a\nx = ", None),
        ("def f():\n    y\n\n\ndef g():\n    z\n\n\nx = ", "def g():\n    z\n\n\ndef f():\n    y\n\n\nx = "),
        ("def f():\n    y\n\n\ndef g():\n    f()\n\n\nx = ", None),
        (
            "import a from 'a';\nimport b from 'b';\nlet x = ",
            "import b from 'b';\nimport a from 'a';\nlet x = ",
        ),
    ],
)
def test_only_what_is_independent_changes_places(prefix: str, reordered: str | None) -> None:
    made = _altered(Context("a", prefix, "\n", "3")).get("reordered")
    assert (made and made.prefix) == reordered


def test_a_name_is_another_everywhere_and_only_where_it_is_that_name() -> None:
    prefix = 'def f(frame, path):\n    """The frame."""\n    g(frame.frame, path=1)\n    return '
    made = _altered(Context("a", prefix, "\n", "h(frame)"))["renamed"]
    (new,) = re.findall(r"def f\((\w+), path\)", made.prefix)
    assert new != "frame"
    assert made.prefix.endswith(f'"""The frame."""\n    g({new}.frame, path=1)\n    return ')
    assert made.expected == f"h({new})"


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("import pandas\nfrom os import path\npandas.", "foo(path)"),
        ("class A:\n    field = 1\n    def f(self):\n        return ", "self.field"),
        ("x_ray = ", "f'{x_ray}'"),
        ("# sort x\n", "x = sorted(x)"),
        ("def f(**given):\n    global state\n    state = ", "g(given=1)"),
        ("import os\nsep = 1\nfoo(sep=", "2)"),
        ("apiVersion: policy/", "v1"),
        ('  name="x"\n  other=', '"y"'),
        ("mer", "ged = merged"),
    ],
)
def test_what_others_know_by_its_name_keeps_it(prefix: str, expected: str) -> None:
    assert "renamed" not in _altered(Context("a", prefix, "\n", expected))


@pytest.mark.parametrize(
    ("prefix", "expected", "name"),
    [
        ("function f() {\n  const rows = g();\n  return ", "rows.length;", "rows"),
        ('target=/tmp\ncp a "$target"\ncp b ', "$target", "target"),
        ("total := 0\nfor i := range xs {\n", "total += i", "total"),
        ('const fs = require("fs");\nlet left = 1;\nfoo(', "left, fs);", "left"),
    ],
)
def test_names_are_told_in_other_languages_by_where_they_are_set(
    prefix: str, expected: str, name: str
) -> None:
    made = _altered(Context("a", prefix, "\n", expected))["renamed"]
    assert not re.search(rf"\b{name}\b", made.prefix + made.expected)


def test_a_constant_stays_one() -> None:
    made = _altered(Context("a", "LIMIT = g()\nx = ", "\n", "f(LIMIT)"))["renamed"]
    assert re.fullmatch(r"[A-Z]+ = g\(\)\nx = ", made.prefix)


NAMES = st.sampled_from(["rows", "total", "path", "item", "self", "x", "os"])
STATEMENTS = st.one_of(
    st.builds("import {}".format, st.sampled_from(["os", "re", "json"])),
    st.builds("from {} import {}".format, st.just("os"), NAMES),
    st.builds("{} = {}".format, NAMES, st.sampled_from(["1", "'a'", "rows", "f(x)", "[i for i in rows]"])),
    st.builds("def {}({}, *, k=1):\n    {} = 2\n    return {}\n\n".format, NAMES, NAMES, NAMES, NAMES),
    st.builds("class A:\n    '''Text\n\nof lines'''\n    {} = 1\n\n".format, NAMES),
    st.builds("for {} in rows:\n    print({})".format, NAMES, NAMES),
    st.builds("try:\n    {} = 1\nexcept E as {}:\n    pass\nelse:\n    pass".format, NAMES, NAMES),
    st.builds("match x:\n    case [{}, *_]:\n        pass".format, NAMES),
    st.builds("{} = lambda {}: f'{{{}}}'".format, NAMES, NAMES, NAMES),
    st.sampled_from(["# a comment", "", "'''doc'''", "@f\ndef g(): pass", "x = (\n 1,\n)", "s = 'ä'; x = s"]),
)  # fmt: skip


@settings(max_examples=3 * settings.default.max_examples, deadline=None)
@given(
    before=st.lists(STATEMENTS, max_size=8), after=st.lists(STATEMENTS, max_size=2), line=STATEMENTS,
    at=st.integers(0, 40), end=st.integers(0, 40), seed=st.integers(0, 9),
)  # fmt: skip
def test_alterations_of_python_keep_what_they_promise(
    before: list[str], after: list[str], line: str, at: int, end: int, seed: int
) -> None:
    start = "".join(each + "\n" for each in before)
    at, end = sorted((min(at, len(line)), min(end, len(line))))
    rest = "\n" + "\n".join(after) + "\n"
    _check(Context("a", start + line[:at], line[end:] + rest, line[at:end]), seed)


@settings(max_examples=3 * settings.default.max_examples, deadline=None)
@given(
    prefix=st.text("ab=:.,;#\"'/\n\t (){}$@", max_size=80),
    expected=st.text("ab=.\n (", max_size=9),
    suffix=st.text("ab=\n )}", max_size=20),
)
def test_alterations_of_anything_keep_what_they_promise(prefix: str, expected: str, suffix: str) -> None:
    _check(Context("a", prefix, suffix, expected), 0)


def _check(context: Context, seed: int) -> None:
    old = context.prefix.split("\n")
    altered = _altered(context, seed)
    for how, each in altered.items():
        new = each.prefix.split("\n")
        assert _document(each) != _document(context)
        assert each.role == context.role
        if _parses(_document(context)):
            assert _parses(_document(each))
        if how != "renamed":
            assert (each.expected, each.suffix, new[-1]) == (context.expected, context.suffix, old[-1])
    if made := altered.get("removed"):
        assert _is_part(made.prefix.split("\n"), old)
        assert made.prefix.split("\n")[-4:] == old[-4:]
    if made := altered.get("added"):
        assert _is_part(old, made.prefix.split("\n"))
    if made := altered.get("reordered"):
        assert Counter(made.prefix.split("\n")) == Counter(old)
    if made := altered.get("renamed"):
        words = [re.findall(r"\w+|\W", _document(each)) for each in (context, made)]
        assert len({pair for pair in zip(*words, strict=True) if pair[0] != pair[1]}) == 1
        assert alterations(context, seed) == alterations(context, seed)


def _parses(document: str) -> bool:
    try:
        ast.parse(document)
    except (SyntaxError, ValueError):
        return False
    return True
