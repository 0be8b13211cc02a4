"""What is worth showing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from star.stop import StopRule
from star_lsp.postprocess import worthwhile

TEXT = st.text(alphabet="ab() ;\n", max_size=60)


@pytest.mark.parametrize(
    ("prefix", "suffix", "text", "reason"),
    [
        ("x = ", "\n", "", "it is blank"),
        ("x = ", "\n", " \n\t", "it is blank"),
        ("f(a", ")\n", ")", "it only closes what is closed already"),
        ("f(a", " );\n", ");", "it only closes what is closed already"),
        ("total = 1\nto", "\n", "tal = 1", "it repeats the line above"),
        ("    ", "\n\n    return x\n", "return x", "it repeats the line below"),
        ("    ", "\n", "a = 1\n    a = 1\n    a = 1", "it goes round in circles"),
        ("x = ", "\n", "foo.bar" + ".baz.bar" * 6, "it goes round in circles"),
    ],
)
def test_an_idle_suggestion_is_not_shown_for_a_reason(
    prefix: str, suffix: str, text: str, reason: str
) -> None:
    above = prefix.rpartition("\n")[0]
    assert worthwhile(text, StopRule.at(prefix, suffix), above) == reason


@pytest.mark.parametrize(
    ("prefix", "suffix", "text"),
    [
        ("x = ", "\n", "foo(a)"),
        ("f(a", "\n", ")"),
        ("f(g(a", ")\n", "))"),
        ("    }\n    ", "\n", "}"),
        ("0, 0, 0,\n", "\n", "0, 0, 0,"),
        ("    if a:\n        ", "\n", "a = 1\n    b = 2\n    a = 1"),
        ("x = ", "\n", "[" + "0, " * 20 + "0]"),
        ("# ", "\n", "-" * 60),
        ("    return ", "(x)\n    return foo\n", "foo"),
    ],
)
def test_a_suggestion_that_adds_something_is_shown(prefix: str, suffix: str, text: str) -> None:
    above = prefix.rpartition("\n")[0]
    assert worthwhile(text, StopRule.at(prefix, suffix), above) is None


@given(TEXT, TEXT, TEXT)
def test_every_text_gets_an_answer(prefix: str, suffix: str, text: str) -> None:
    reason = worthwhile(text, StopRule.at(prefix, suffix), prefix)
    assert reason is None or reason.startswith("it ")
