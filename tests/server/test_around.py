"""The places by which two histories are compared, and what is written there."""

from pathlib import Path

import pytest

from star.case import Case
from star.decode import write
from star.errors import Cancelled, CaseError
from star.model import CodeModel
from star.patch import Draft, Patch
from star.stop import StopRule
from star_lsp import jobs
from star_lsp.around import Spot, around
from star_lsp.comparing import compare
from tests import tiny

PREFIX = '''import json
import os

LIMIT = 3
NAME = "x"


def load(paths, separator):
    """Collect all."""
    merged = []
    for path in paths:
        batch = read(path, separator)
        # into one
        merged = '''
SUFFIX = """
    return merged


print(load([], LIMIT))
"""
TEACH = jobs.Teach("c1", PREFIX, SUFFIX, "join(merged, batch)")


def put(id_: str, prefix: str, suffix: str, expected: str) -> Case:
    if expected.startswith("import"):
        raise CaseError("not here")
    return Case(id_, (1, 2), expected, StopRule.at(prefix, suffix))


def whole(prefix: str, suffix: str) -> tuple[str, str]:
    return prefix, suffix


def of(kind: str, spots: tuple[Spot, ...]) -> list[Spot]:
    return [spot for spot in spots if spot.kind == kind]


def test_flagged_places_come_first_and_then_siblings_and_neighbours_in_turn() -> None:
    other = jobs.Teach("c2", "a = 1\nb = ", "\n", "two")
    spots = around([TEACH, other], put, whole)
    assert [spot.kind for spot in spots[:4]] == ["flagged", "flagged", "sibling", "sibling"]
    assert [(spot.kind, spot.flagged) for spot in spots[4:6]] == [("neighbour", "c1"), ("neighbour", "c2")]
    assert spots[0].context.expected == "join(merged, batch)"
    assert spots[0].where == "the flagged place"


def test_siblings_are_the_flagged_place_in_another_file_with_what_is_right_there() -> None:
    siblings = {spot.where: spot.context for spot in of("sibling", around([TEACH], put, whole))}
    assert set(siblings) == {
        "lines above left out",
        "something more above",
        "lines above in another order",
        "another name",
    }
    for where, context in siblings.items():
        assert (context.prefix, context.suffix) != (PREFIX, SUFFIX)
        assert (context.expected == TEACH.expected) == (where != "another name")
    assert "LIMIT = 3" not in siblings["lines above left out"].prefix


def test_neighbours_are_the_nearest_lines_of_code_each_taken_out() -> None:
    neighbours = of("neighbour", around([TEACH], put, whole))
    assert [(spot.where, spot.context.expected) for spot in neighbours] == [
        ("1 line below", "return merged"),
        ("2 lines above", "batch = read(path, separator)"),
        ("3 lines above", "for path in paths:"),
        ("4 lines above", "merged = []"),
    ], "and no comment"
    first = neighbours[1].context
    assert first.prefix.endswith("    for path in paths:\n        ")
    assert first.suffix.startswith("\n        # into one\n        merged = join(merged, batch)\n")
    below = neighbours[0].context
    assert below.prefix.endswith("merged = join(merged, batch)\n    ")
    assert below.suffix == "\n\n\nprint(load([], LIMIT))\n"


def test_what_can_never_be_shown_is_left_out() -> None:
    few = jobs.Teach("c1", "import os\nimport sys\nx = ", "\n}\n)\nx = 1\n", "1")
    assert of("neighbour", around([few], put, whole)) == [], (
        "nor are brackets and what is as the flagged line"
    )
    assert around([jobs.Teach("c1", "", "\n", "import x")], put, whole) == ()


def test_siblings_and_neighbours_are_made_of_what_is_near() -> None:
    def nearer(prefix: str, suffix: str) -> tuple[str, str]:
        return "".join(prefix.splitlines(keepends=True)[-2:]), "\n"

    spots = around([TEACH], put, nearer)
    assert spots[0].context.prefix == PREFIX
    assert all("batch = read" not in spot.context.prefix for spot in spots[1:])


# -- what is written there


@pytest.fixture(scope="module")
def model() -> CodeModel:
    return tiny.model()


def moving(model: CodeModel, by: float = 20.0) -> Patch:
    """A patch that has the model write something else."""
    import torch

    layer = model.depth - 1
    with Draft(model, {layer: torch.arange(4)}) as draft:
        draft.add(layer, by * torch.ones(4, model.width).cumsum(1))
        return draft.patch({})


def spot(model: CodeModel, kind: str = "flagged", name: str = "a", expected: str = "x+1") -> Spot:
    teach = jobs.Teach(name, "def f(x):\n    return ", "\n", expected)

    def put(id_: str, prefix: str, suffix: str, expected: str) -> Case:
        return tiny.case(model, expected, prefix, id_)

    (found, *_) = around([teach], put, whole)
    return Spot(kind, name, "there", found.context, found.case)  # type: ignore[arg-type]


def test_what_is_written_is_what_the_server_would_show_under_either_history(model: CodeModel) -> None:
    patch, here = moving(model), spot(model)
    before = write(model, here.case)
    (found,) = compare(model, [here], [], [patch], 60.0)
    from star.patch import installed

    with installed(model, [patch]):
        after = write(model, here.case)
    assert (found.before, found.after) == (before, after)
    assert before != after
    assert (found.kind, found.case, found.where, found.expected) == ("flagged", "a", "there", "x+1")
    assert (found.prefix, found.suffix) == ("def f(x):\n    return ", "\n")
    assert model.patches == (), "the model is as it was"
    (back,) = compare(model, [here], [patch], [], 60.0)
    assert (back.before, back.after) == (after, before)


def test_what_stands_at_a_neighbour_is_not_expected(model: CodeModel) -> None:
    (found,) = compare(model, [spot(model, "neighbour")], [], [], 60.0)
    assert found.expected is None
    assert found.before == found.after


def test_when_time_runs_short_the_last_places_are_left_out_and_the_flagged_ones_never(
    model: CodeModel,
) -> None:
    spots = [spot(model, "flagged", name) for name in "ab"]
    spots += [spot(model, "neighbour", name) for name in "abab"]
    told: list[tuple[str, float]] = []
    found = compare(model, spots, [], [], 0.0, lambda phase, share: told.append((phase, share)))
    assert [(each.case, each.kind) for each in found] == [
        ("a", "flagged"),
        ("a", "neighbour"),
        ("b", "flagged"),
        ("b", "neighbour"),
    ]
    assert [phase for phase, _ in told][:2] == ["without it: place 1 of 6", "without it: place 2 of 6"]
    assert told[-1] == ("with it: place 4 of 4", 0.875)
    shares = [share for _, share in told]
    assert shares == sorted(shares)


def test_a_comparison_stops_within_a_place_and_leaves_the_model_as_it_was(model: CodeModel) -> None:
    with pytest.raises(Cancelled):
        compare(model, [spot(model)], [moving(model)], [], 60.0, cancelled=lambda: True)
    assert model.patches == ()


def test_no_place_is_no_comparison(model: CodeModel, tmp_path: Path) -> None:
    assert compare(model, [], [], [], 60.0) == ()
