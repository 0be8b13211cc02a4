"""The last completions are remembered, and found by id or place."""

from star_lsp.shown import Shown, ShownCompletions


def shown(id_: str, line: int = 0, character: int = 0, text: str = "x", uri: str = "file:///a.py") -> Shown:
    return Shown(id_, uri, line, character, "python", "p", "s", text, "m", "r")


def test_the_last_64_are_remembered() -> None:
    kept = ShownCompletions()
    for number in range(65):
        kept.add(shown(f"s{number}"))
    assert kept.get("s0") is None
    assert [kept.get(f"s{number}") is not None for number in (1, 64)] == [True, True]


def test_ids_differ() -> None:
    assert len({ShownCompletions.new_id() for _ in range(100)}) == 100


def test_the_newest_one_at_exactly_that_place_comes_first() -> None:
    kept = ShownCompletions()
    for id_, place in (("old", (2, 4)), ("new", (2, 4)), ("later", (2, 9)), ("elsewhere", (3, 0))):
        kept.add(shown(id_, *place))
    found = kept.at("file:///a.py", 2, 4)
    assert found is not None
    assert found.id == "new"


def test_else_the_newest_on_that_line_or_whose_block_reaches_down_to_it() -> None:
    kept = ShownCompletions()
    kept.add(shown("block", 5, 8, "if x:\n    return\n"))
    kept.add(shown("line", 2, 4))
    names = {line: found.id if (found := kept.at("file:///a.py", line, 0)) else None for line in range(10)}
    assert names == {
        **dict.fromkeys(range(10)),
        2: "line",
        3: "line",
        5: "block",
        6: "block",
        7: "block",
        8: "block",
    }


def test_completions_of_another_document_are_not_meant() -> None:
    kept = ShownCompletions()
    kept.add(shown("s"))
    assert kept.at("file:///b.py", 0, 0) is None
