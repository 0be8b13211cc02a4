"""What repairs are measured on."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from star.bench.data import RECIPES, halves, programs, read, select
from star.errors import BenchError

PLAIN = {"prefix": "x = ", "suffix": "\n", "expected": "1"}
FAMILY = {
    "id": "open-mode",
    "flagged": {**PLAIN, "expected": "open(path)", "baseline": "file(path)"},
    "siblings": [
        {**PLAIN, "distance": "near", "baseline": "2"},
        {**PLAIN, "distance": "distant", "baseline": "3"},
    ],
    "neighbours": [{**PLAIN, "expected": "what the file hopes for", "baseline": "4"}],
}


def _file(folder: Path, *rows: Any, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8"
    )
    return path


def test_a_plain_row_is_named_by_its_line_unless_it_names_itself(tmp_path: Path) -> None:
    rows = read(_file(tmp_path, PLAIN, "", {**PLAIN, "id": "mine"}))
    assert [row.id for row in rows] == ["rows-1", "mine"]
    assert (rows[0].flagged.prefix, rows[0].flagged.suffix, rows[0].flagged.expected) == ("x = ", "\n", "1")


def test_an_intent_stands_before_the_cursor_on_one_line(tmp_path: Path) -> None:
    path = _file(tmp_path, {"intent": "add\n  one", "snippet": "x += 1"})
    assert read(path)[0].flagged.prefix == "# add one\n"
    assert read(path, template="-- {intent}: {x}\n")[0].flagged.prefix == "-- add one: {x}\n"
    assert read(path)[0].flagged.suffix == ""


def test_conala_is_asked_by_its_rewritten_intent_where_there_is_one(tmp_path: Path) -> None:
    row = {"intent": "How?", "rewritten_intent": "sort `x`", "snippet": "x.sort()"}
    path = _file(tmp_path, {**row, "id": "a"}, {**row, "id": "b", "rewritten_intent": None})
    assert [each.flagged.prefix for each in read(path)] == ["# sort `x`\n", "# How?\n"]


def test_a_command_is_asked_for_in_a_shell_script(tmp_path: Path) -> None:
    (row,) = read(_file(tmp_path, {"nl": "list files", "cmd": "ls {{path}}"}))
    assert (row.flagged.prefix, row.flagged.expected) == ("#!/bin/sh\n# list files\n", "ls {{path}}")


def test_assembler_is_read_from_a_published_table(tmp_path: Path) -> None:
    path = _file(tmp_path, "SNIPPETS\tINTENTS", 'xor eax, eax \\n push "a"\tclear eax', name="a.tsv")
    (row,) = read(path, "ia32")
    assert (row.flagged.prefix, row.flagged.expected) == ("; clear eax\n", 'xor eax, eax\npush "a"')


def test_a_family_has_siblings_by_distance_and_neighbours_that_keep_their_baseline(tmp_path: Path) -> None:
    (row,) = read(_file(tmp_path, FAMILY))
    assert row.flagged.expected == "open(path)"
    assert [(each.id, each.role) for each in row.siblings] == [
        ("open-mode/near-0", "near"),
        ("open-mode/distant-1", "distant"),
    ]
    assert [(each.role, each.expected) for each in row.neighbours] == [("neighbour", "4")]


def test_only_what_a_server_can_show_is_expected(tmp_path: Path) -> None:
    two_blocks = {**PLAIN, "prefix": "", "suffix": "", "expected": "a = 1\nb = 2\n\nc = 3\n"}
    (row,) = read(_file(tmp_path, two_blocks))
    assert row.flagged.expected == "a = 1\nb = 2"


def test_a_row_that_stands_there_twice_is_one(tmp_path: Path) -> None:
    row = {**PLAIN, "id": "a"}
    assert len(read(_file(tmp_path, row, row))) == 1
    with pytest.raises(BenchError, match=r"rows.jsonl, line 2, has the id 'a' of an earlier row"):
        read(_file(tmp_path, row, {**row, "expected": "2"}))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no rows"),
        ([PLAIN, "{"], "rows.jsonl, line 2, is no JSON"),
        ([PLAIN, "[1]"], "line 2, is no JSON object"),
        ([{"prefix": "x"}], "line 1, has the fields of no recipe"),
        ([PLAIN, {"prefix": "x"}], "line 2, has no field 'suffix'"),
        ([{**PLAIN, "expected": 3}], "line 1, has no text in the field 'expected'"),
        ([{**PLAIN, "expected": " "}], "line 1, expects nothing that could be shown"),
        ([{**FAMILY, "flagged": 1}], "line 1, has no object 'flagged'"),
        ([{**FAMILY, "siblings": {}}], "line 1, has no list 'siblings'"),
        ([{**FAMILY, "siblings": [{**PLAIN, "distance": "far"}]}], r"line 1, siblings\[0\], has a distance"),
        ([{**FAMILY, "neighbours": [PLAIN]}], r"line 1, neighbours\[0\], has no field 'baseline'"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_by_its_line(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        read(_file(tmp_path, *rows))


def test_a_file_a_recipe_or_a_template_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="cannot be read"):
        read(tmp_path / "none.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(BenchError, match="cannot be read"):
        read(tmp_path / "bytes.jsonl")
    path = _file(tmp_path, PLAIN)
    with pytest.raises(BenchError, match="no recipe 'pain'; use auto, api-drift, plain"):
        read(path, "pain")
    with pytest.raises(BenchError, match=r"has no \{intent\} in it"):
        read(path, template="# what")
    with pytest.raises(BenchError, match="line 1, has no field 'nl'"):
        read(path, "tldr")


def test_every_recipe_finds_its_rows_by_itself_but_for_those_that_look_like_others() -> None:
    needs = [recipe.needs for recipe in RECIPES.values()]
    assert len(set(needs)) == len(needs) - 1  # assembler is asked for by name


@given(
    count=st.integers(0, 30),
    limit=st.integers(0, 40),
    skip=st.integers(0, 10),
    seed=st.none() | st.integers(),
)
def test_a_larger_choice_begins_with_the_smaller(count: int, limit: int, skip: int, seed: int | None) -> None:
    rows = list(range(count))
    chosen = select(rows, limit, seed, skip)
    assert select(rows, None, seed, skip)[:limit] == chosen
    assert len(set(chosen)) == len(chosen) == max(0, min(limit, count - skip))
    assert sorted(select(rows, None, seed)) == rows


@given(st.lists(st.integers(), unique=True))
def test_tuning_and_figures_share_no_row_and_miss_none(rows: list[int]) -> None:
    tuning, figures = halves(rows)
    assert not set(tuning) & set(figures)
    assert sorted(tuning + figures) == sorted(rows)


def test_programs_are_prompts_with_solutions(tmp_path: Path) -> None:
    path = _file(tmp_path, {"prompt": "def f():\n", "canonical_solution": "    return 1\n"})
    assert programs(path) == (("def f():\n", "    return 1\n"),)
    with pytest.raises(BenchError, match="no field 'canonical_solution'"):
        programs(_file(tmp_path, {"prompt": ""}))
