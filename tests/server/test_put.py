"""How the server puts a place to its model: the prompt of a case, and the same place in other files."""

from dataclasses import replace

import pytest

from star_lsp import prompt
from star_lsp.prompt import Limits
from star_lsp.put import Put
from tests import tiny

LONG = "import csv\n\n\ndef read(path):\n    rows = []\n    for row in csv.reader(path):\n        rows."
BELOW = "\n    return rows\n\n\ndef other():\n    pass\n"


@pytest.fixture(scope="module")
def put() -> Put:
    model = tiny.model("qwen2")
    return Put(model.encode, model.encode_next, (), prompt.layout_of(model.token_id), Limits(), 64)


def _ids(put: Put, prefix: str, suffix: str) -> tuple[int, ...]:
    return prompt.build(put.encode, put.layout, prefix, suffix, put.limits).ids


def test_a_place_with_much_above_it_is_learnt_with_less_above_it_too(put: Put) -> None:
    case = put("a", LONG, BELOW, "append(row)")
    assert case.prompt == _ids(put, LONG, BELOW)
    (other,) = case.elsewhere
    last = "\n".join(LONG.split("\n")[-4:])
    assert other == _ids(put, last, BELOW)
    assert len(other) < len(case.prompt)
    assert case.healed == prompt.build(put.encode, put.layout, last, BELOW, put.limits).healed == "."


def test_a_place_with_little_above_it_is_learnt_with_more_above_it_too(put: Put) -> None:
    case = put("a", "# the sum of a list\n", "\n", "sum(values)")
    assert len(set(case.elsewhere)) == 2
    for other in case.elsewhere:
        assert len(other) > len(case.prompt)
        assert other[-3:] == case.prompt[-3:]


@pytest.mark.parametrize(
    ("prefix", "expected"), [("", "import joblib"), ("from flask", " import Markup"), ("#include", " <map>")]
)
def test_no_function_stands_above_an_import(put: Put, prefix: str, expected: str) -> None:
    (other,) = put("a", f"# imports\n{prefix}", "\n", expected).elsewhere
    assert len(other) > len(put("a", f"# imports\n{prefix}", "\n", expected).prompt)


def test_a_place_whose_prompt_has_no_room_for_another_file_is_learnt_where_it_stands(put: Put) -> None:
    narrow = replace(put, layout=None, limits=Limits(4, 4))
    assert narrow("a", "x = y\n", "", "z").elsewhere == ()


def test_every_prompt_of_a_place_begins_as_all_texts_do(put: Put) -> None:
    plain = put("a", "# the sum of a list\n", "\n", "sum(values)")
    begun = replace(put, start_ids=(256,))("a", "# the sum of a list\n", "\n", "sum(values)")
    assert begun.prompt == (256, *plain.prompt)
    assert begun.elsewhere == tuple((256, *other) for other in plain.elsewhere)
