"""A flag becomes a case, and the fix is found in the document whatever else was edited."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from star_lsp import feedback
from star_lsp.errors import FlagError
from star_lsp.prompt import Limits, window
from star_lsp.shown import Shown
from star_lsp.store import Case, Store

ABOVE = "import os\n\n\ndef first(x):\n    return x\n\n\ndef second(y):\n    total = "
BELOW = "\n    return total\n\n\nprint(second(2))\n"


def shown(prefix: str, suffix: str, text: str = "wrong()", limits: Limits | None = None) -> Shown:
    """A completion as it is remembered: with what its prompt was made of."""
    line = prefix.count("\n")
    near = window(prefix, suffix, limits) if limits else (prefix, suffix)
    return Shown("s1", "file:///a.py", line, 4, "python", *near, text, "m", "r1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    yield opened
    opened.close()


def flag(
    store: Store, shown: Shown, document: str | None, expected: str | None, note: str | None = None
) -> Case:
    return asyncio.run(feedback.flag(store, shown, document, expected, note))[0]


def accept(store: Store, shown: Shown, keep: int) -> None:
    asyncio.run(feedback.accept(store, shown, keep))


# -- the fix, from the document


@pytest.mark.parametrize(
    "fix",
    [
        "sum(y)",
        "sum(y)\n    total += 1",
        "max(\n        y,\n        1,\n    )",
        "'ü 😀 ' + y",
        "",
        "  # \f odd",
    ],
)
def test_the_fix_is_what_stands_between_the_text_above_and_below(fix: str) -> None:
    assert feedback.derive(shown(ABOVE, BELOW), ABOVE + fix + BELOW) == fix


def test_edits_above_and_below_do_no_harm() -> None:
    above = ABOVE.replace("import os\n", "import os\nimport sys\n# more\n").replace(
        "return x", "return x + 1"
    )
    below = BELOW.replace("print(second(2))", "for i in range(3):\n    print(second(i))")
    assert feedback.derive(shown(ABOVE, BELOW), above + "sum(y)" + below) == "sum(y)"


def test_edits_on_the_very_next_lines_do_no_harm_as_long_as_one_stands() -> None:
    document = ABOVE.replace("    return x\n", "    return -x\n") + "sum(y)\n    return total\n"
    assert feedback.derive(shown(ABOVE, BELOW), document) == "sum(y)"


def test_among_equal_lines_the_one_at_the_old_place_is_meant() -> None:
    block = "    x = \n    y = 1\n"
    prefix, suffix = block * 5 + "    x = ", "\n    y = 1\n" + block * 5
    document = prefix + "f(2)" + suffix
    assert feedback.derive(shown(prefix, suffix), document) == "f(2)"


def test_among_equal_lines_the_most_similar_surroundings_win_over_the_line_number() -> None:
    def method(name: str, value: str) -> str:
        return f"def {name}():\n    here = '{name}'\n    value = {value}\n    return value\n\n\n"

    before = method("one", "1") + "def two():\n    here = 'two'\n    value = "
    after = "\n    return value\n\n\n" + method("three", "3")
    moved = "# a note\n" * 4 + method("one", "1") + method("two", "2 + 2") + method("three", "3")
    gone = moved.replace("here = 'two'", "here = 'two!'")
    assert feedback.derive(shown(before, after), moved) == "2 + 2"
    assert feedback.derive(shown(before, after), gone) == "2 + 2"


def test_a_fix_that_holds_what_follows_it_is_taken_whole() -> None:
    assert feedback.derive(shown("f(", ")"), "f(g(1), h(2))") == "g(1), h(2)"
    assert feedback.derive(shown("f(", ")\n"), "f(\n    g(1)\n)\n") == "\n    g(1)\n"


def test_line_breaks_of_another_system_are_no_edits() -> None:
    document = (ABOVE + "sum(\n        y)" + BELOW).replace("\n", "\r\n")
    assert feedback.derive(shown(ABOVE, BELOW), document) == "sum(\n        y)"


@pytest.mark.parametrize("end", ["", "\n", "\n\n   \n"])
def test_at_the_end_of_a_file_the_fix_reaches_to_the_last_character(end: str) -> None:
    assert feedback.derive(shown(ABOVE, "\n"), ABOVE + "sum(y)" + end) == "sum(y)"


def test_at_the_start_of_a_file_the_fix_begins_with_the_first_character() -> None:
    assert feedback.derive(shown("", "\nprint(os)\n"), "import os\nprint(os)\n") == "import os"


@pytest.mark.parametrize("document", ["", "\n", "something else\n", ABOVE, ABOVE.replace("total = ", "")])
def test_a_place_that_is_gone_is_said_with_the_remedy(document: str) -> None:
    with pytest.raises(FlagError, match="cannot be found again in the file; give the right code as `expec"):
        feedback.derive(shown(ABOVE, BELOW), document)


LINES = st.lists(st.text("ab =(),😀é", max_size=12), max_size=12).map("\n".join)


@given(prefix=LINES, middle=LINES, suffix=LINES)
@example(prefix="a", middle="", suffix="a")
@example(prefix="", middle="b", suffix="b")
@example(prefix="aa", middle="a", suffix="b")
def test_without_other_edits_the_fix_is_always_found(prefix: str, middle: str, suffix: str) -> None:
    derived = feedback.derive(shown(prefix, suffix), prefix + middle + suffix)
    if suffix.strip():
        assert derived == middle
    else:  # blank lines at the end of a file are nobody's
        assert derived == (middle + suffix).rstrip()


@given(
    middle=LINES, before=st.integers(0, 60), after=st.integers(1, 60), indent=st.sampled_from(["", "    "])
)
def test_the_fix_is_found_with_the_truncated_text_of_a_long_document(
    middle: str, before: int, after: int, indent: str
) -> None:
    prefix = "".join(f"{indent}before_{number}()\n" for number in range(before)) + f"{indent}x = "
    suffix = "\n" + "".join(f"{indent}after_{number}()\n" for number in range(after))
    kept = shown(prefix, suffix, limits=Limits(16, 16))
    assert len(kept.prefix) <= 128
    assert feedback.derive(kept, prefix + middle + suffix) == middle


# -- a flag, and what is accepted


def test_a_flag_is_a_pending_case_with_all_that_is_known(store: Store) -> None:
    case = flag(store, shown(ABOVE, BELOW), ABOVE + "sum(y)\r\n" + BELOW, None, "see the docs")
    assert case == store.case(case.id)
    assert (case.status, case.expected, case.rejected, case.note) == (
        "pending",
        "sum(y)",
        "wrong()",
        "see the docs",
    )
    assert (case.prefix, case.suffix, case.line, case.character) == (ABOVE, BELOW, 8, 4)
    assert (case.uri, case.language, case.model, case.revision) == ("file:///a.py", "python", "m", "r1")


def test_what_is_expected_may_be_given_instead_with_the_file_closed(store: Store) -> None:
    assert flag(store, shown(ABOVE, BELOW), None, "a\r\nb  \n").expected == "a\nb"
    assert flag(store, shown(ABOVE, BELOW), None, "").expected == ""


def test_a_flag_without_a_fix_is_refused_and_nothing_is_kept(store: Store) -> None:
    mine = shown(ABOVE, BELOW)
    for document, expected, reason in (
        (None, None, "not open any more; open it, or give"),
        (ABOVE + "wrong()" + BELOW, None, "what was suggested; write the right code first"),
        (ABOVE + BELOW, None, "Nothing stands there yet; write the right code first"),
        (None, "wrong()\n", "what was suggested"),
    ):
        with pytest.raises(FlagError, match=reason):
            flag(store, mine, document, expected)
    assert store.cases() == []


def test_an_accepted_completion_is_kept_until_its_place_is_flagged(store: Store) -> None:
    mine = shown(ABOVE, BELOW)
    accept(store, mine, keep=0)
    assert store.accepted(9) == []
    accept(store, mine, keep=5)
    assert [(each.prefix, each.text) for each in store.accepted(9)] == [(ABOVE, "wrong()")]
    flag(store, mine, None, "right()")
    assert store.accepted(9) == []


# -- secrets

#: In two parts: no line here shall look like a credential.
SECRET = "ghp_" + "aB3" * 12
HIDDEN = "xxx_" + "xX0" * 12


def test_a_secret_near_a_flagged_completion_is_masked_in_all_that_is_kept_and_it_is_told(
    store: Store,
) -> None:
    mine = shown(f'login("{SECRET}")\n{ABOVE}', f'{BELOW}again("{SECRET}")\n', f'wrong("{SECRET}")')
    case, kinds = asyncio.run(feedback.flag(store, mine, None, "sum(y)", f"not {SECRET}"))
    assert kinds == ("GitHub Token",)
    assert case == store.case(case.id)
    assert case.prefix == f'login("{HIDDEN}")\n{ABOVE}'
    assert case.suffix == f'{BELOW}again("{HIDDEN}")\n'
    assert (case.expected, case.rejected) == ("sum(y)", f'wrong("{HIDDEN}")')
    assert case.note == (f"not {HIDDEN}\nMasked before it was kept, as it looks like a secret: GitHub Token.")
    raw = b"".join(path.read_bytes() for path in store.path.parent.rglob("*") if path.is_file())
    assert SECRET.encode() not in raw


def test_a_fix_that_holds_a_secret_is_refused_and_nothing_is_kept(store: Store) -> None:
    with pytest.raises(FlagError, match="Read it from the environment") as told:
        flag(store, shown(ABOVE, BELOW), None, f'login("{SECRET}")')
    assert SECRET not in str(told.value)
    assert store.cases() == []


def test_an_accepted_completion_is_kept_masked_and_not_at_all_when_it_is_a_secret(store: Store) -> None:
    mine = shown(f'login("{SECRET}")\n{ABOVE}', BELOW)
    accept(store, mine, keep=5)
    accept(store, shown(ABOVE, BELOW, f'login("{SECRET}")'), keep=5)
    assert [each.prefix for each in store.accepted(9)] == [f'login("{HIDDEN}")\n{ABOVE}']
    flag(store, mine, None, "right()")
    assert store.accepted(9) == [], "the place is known again"


def test_a_place_that_is_flagged_again_is_known_again_though_it_is_masked(store: Store) -> None:
    mine = shown(f'login("{SECRET}")\n{ABOVE}', BELOW)
    first, second = (flag(store, mine, None, fix) for fix in ("one()", "two()"))
    assert [case.status for case in store.cases()] == ["reverted", "pending"]
    assert first.prefix == second.prefix
