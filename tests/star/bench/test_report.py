"""Reports that can be read by everyone, everywhere, with nothing from outside."""

import builtins
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from star.bench.plots import figures
from star.bench.report import html, markdown, tables, write
from star.bench.results import Line, Results
from star.bench.tables import summaries, told
from star.bench.targets import Judged, judged
from star.errors import BenchError
from tests.star.bench.lines import HEAD, batch, checkpoint, repair, whole


def _judged(lines: Sequence[Line]) -> dict[str, Judged]:
    return {row.measure: row for row in judged([HEAD, *lines])}


# -- figures -----------------------------------------------------------------------------------------------


def test_there_is_one_row_a_method_with_its_intervals() -> None:
    rows = [repair(row=str(n), solved=n != 0, near=[n % 2, 2]) for n in range(20)]
    (found,) = summaries([HEAD, *rows])
    solved, near = found.cells["solved"], found.cells["near"]
    assert solved
    assert near
    assert (solved.value, near.value, found.rows) == (95.0, 25.0, 20)
    assert solved.low < 95.0 < solved.high <= 100.0
    assert re.fullmatch(r"95\.0 \(\d+\.\d to 100\.0\)", told(solved))
    assert told(None) == "–"


def test_rows_without_siblings_count_nowhere_among_them() -> None:
    (found,) = summaries([repair(near=[1, 1]), repair(row="b", near=None), repair(row="c", near=[0, 0])])
    assert found.value("near") == 100.0
    (nothing,) = summaries([repair(near=None)])
    assert nothing.value("near") is None


def test_a_wrecked_model_has_no_finite_mean_kl() -> None:
    (found,) = summaries([repair(), repair(row="b", kl=None)])
    assert told(found.cells["kl"], None) == "∞"
    (unlooked,) = summaries([repair(unchanged=None, kl=None)])
    assert unlooked.cells["kl"] is None


# -- what must hold ----------------------------------------------------------------------------------------


def test_a_run_that_met_everything_says_yes_throughout() -> None:
    rows = judged(whole())
    assert [(row.measure, row.seen) for row in rows if row.met != "yes"] == []
    assert len(rows) == 16


def test_what_was_not_measured_is_neither_met_nor_failed() -> None:
    assert {row.met for row in judged([HEAD])} == {"not measured"}


@pytest.mark.parametrize(
    ("measure", "lines"),
    [
        ("solved, flagged contexts of each data set", [repair(), repair(row="b", solved=False)]),
        ("solved, against MINT and SGD", [repair(), repair("mint")]),
        ("robustness of a solved case", [repair(robust=[8, 10])]),
        ("near siblings that were wrong and become right", [repair(near=[1, 2])]),
        ("near siblings that were wrong and become right", [repair(neighbours=[3, 4])]),
        ("near siblings, against peers", [repair(near=[1, 2]), repair("sgd")]),
        ("neighbours' completions unchanged", [repair(neighbours=[3, 4])]),
        ("HumanEval solutions, argmax unchanged", [repair(unchanged=0.99)]),
        ("HumanEval solutions, mean KL", [repair(kl=3e-4)]),
        ("HumanEval solutions, mean KL", [repair(kl=None)]),
        (
            "mean KL, against the best of SGD and AdamW at equal solved rate",
            [repair(), repair("sgd", kl=7e-4), repair("adamw", kl=9e-1)],
        ),
        (
            "infilling pass rate after 100 repairs",
            [{"kind": "infilling", "infilling": [90, 100]}, checkpoint(repairs=100)],
        ),
        ("lifelong, 200 repairs", [checkpoint(solved=[189, 200])]),
        ("lifelong, 200 repairs", [checkpoint(neighbours=[100, 128])]),
        ("lifelong, 200 repairs", [checkpoint(repairs=100)]),
        ("cost of one repair, without the gate", [repair(passes=13.0)]),
        ("cost of one repair, without the gate", [repair(), repair("mint", seconds=2.0)]),
        ("batch of 20 from the base", [batch(seconds=20.0)]),
        ("batch of 20 from the base", [batch(solved=[18, 20])]),
        ("batch of 20 from the base", [batch(solved=[10, 10])]),
        ("patch of one repair", [repair(patchBytes=3e6)]),
    ],
)
def test_a_target_that_was_missed_says_no(measure: str, lines: list[Any]) -> None:
    assert _judged(lines)[measure].met == "no"


def test_a_peer_that_solves_less_sets_no_bound_for_kl_while_another_solves_as_much() -> None:
    lines = [repair(), repair("sgd", kl=1e-5, solved=False), repair("adamw", kl=1e-2)]
    found = _judged(lines)["mean KL, against the best of SGD and AdamW at equal solved rate"]
    assert found.met == "yes"
    assert "adamw" in found.seen


# -- Markdown ----------------------------------------------------------------------------------------------


def test_every_table_is_whole_in_markdown() -> None:
    text = markdown(whole())
    for caption, header, rows in tables(whole()):
        assert f"## {caption}" in text
        assert all(len(row) == len(header) for row in rows), caption
    widths = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("| ours")}
    assert 0 not in widths
    assert "A <CPU>, 2 cores" in text
    assert "Paired differences" in text


# -- the page ----------------------------------------------------------------------------------------------


class _Page(HTMLParser):
    """What a page has: elements with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def page() -> str:
    return html(whole())


def test_the_page_needs_nothing_from_outside(page: str) -> None:
    parsed = _Page(page)
    (policy,) = (each for each in parsed.all("meta") if each.get("http-equiv"))
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert not {name for name, _ in parsed.found} & {"script", "link", "img", "iframe", "object", "image"}
    for _, attributes in parsed.found:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href"):
                assert value
                assert value.startswith("#")
    outside = re.findall(r"https?://[^\s\"<]+", page)
    assert {each for each in outside if not each.startswith("http://www.w3.org/")} == set()
    assert "@import" not in page


def test_the_page_is_readable_in_light_and_in_dark(page: str) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert drawn.count("<svg") == 4
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b(?=[;\"])", drawn), "a colour of its own"
    assert not re.search(r"white|black|rgb\(", drawn)
    assert "currentColor" in drawn
    assert "var(--series-1)" in drawn
    assert "prefers-color-scheme: dark" in page
    assert "color-scheme: light dark" in page
    for light in re.findall(r"<text[^>]*>", drawn):
        assert "fill" in light, "text without a colour is black, whatever it stands on"


def test_every_figure_says_what_it_shows_to_those_who_do_not_see_it(page: str) -> None:
    drawn = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    for figure in drawn:
        root = ElementTree.fromstring(figure)
        assert root.get("role") == "img"
        names = root.get("aria-labelledby", "").split()
        told = {each.get("id"): each.text for each in root.iter() if each.get("id") in names}
        assert [bool(told.get(name)) for name in names] == [True, True]
    identities = re.findall(r"\bid=\"([^\"]+)\"", page)
    assert len(set(identities)) == len(identities)
    for used in re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", page):
        assert "".join(used) in identities
    assert page.count("<figcaption>") == len(drawn)


def test_every_table_has_a_caption_and_headers_with_a_scope(page: str) -> None:
    parsed = _Page(page)
    assert len(parsed.all("caption")) == len(parsed.all("table")) == len(tables(whole()))
    assert {each.get("scope") for each in parsed.all("th")} == {"col", "row"}
    assert '<html lang="en">' in page


def test_names_are_text_and_never_markup(page: str) -> None:
    assert "conala &lt;test&gt;" in page
    assert "<test>" not in page
    assert "A &lt;CPU&gt;" in page


def test_the_same_results_make_the_same_page(page: str) -> None:
    assert html(whole()) == page


def test_no_library_for_plots_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    really = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return really(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BenchError, match=r"star-lsp\[bench\]"):
        figures(whole(), summaries(whole()))


def test_a_run_that_has_only_begun_has_a_report(tmp_path: Path) -> None:
    Results(tmp_path, {name: value for name, value in HEAD.items() if name != "kind"})
    table, page = write(tmp_path)
    assert "not measured" in table.read_text("utf-8")
    assert "<svg" not in page.read_text("utf-8")
