"""Methods by name, and how tuning chooses among their settings."""

from collections.abc import Mapping

import pytest

from star.bench.methods import DEFAULT, Kit, Trial, Variant, grid, named, names, tune
from star.errors import BenchError
from star.model import CodeModel
from star.repair import PUBLISHED
from star.result import Budget
from tests import tiny


def test_every_default_is_a_method_and_every_method_has_a_grid() -> None:
    assert set(DEFAULT) <= set(names())
    for name in names():
        variants = grid(name)
        assert variants
        assert {each.name for each in variants} == {name}
        told = [tuple(each.settings.items()) for each in variants]
        assert len(set(told)) == len(told), "settings tell variants apart"


def test_star_is_there_as_published_in_every_mode_on_all_layers_and_sparse() -> None:
    wanted = {
        f"star-{mode}-{layers}{pattern}"
        for mode in ("iterative", "batch")
        for layers in ("all", "1/4", "one")
        for pattern in ("", "-layerly-1/4", "-layerly-1/16", "-layerly-1/64")
    }
    assert set(named(["star-iterative-*", "star-batch-*"])) == wanted
    assert dict(grid("star-published")[0].settings) == {"rate": 1e-2, "stop": "ten steps"}


def test_names_and_patterns_mean_methods_each_once() -> None:
    assert named(["ours", "our?", "mint"]) == ("ours", "mint")
    with pytest.raises(BenchError, match="no method sdg"):
        named(["sdg"])


@pytest.mark.parametrize(
    "name", ["ours", "star-published", "star-batch-1/4-layerly-1/16", "mint", "sgd", "adamw", "closed-form"]
)
def test_a_method_takes_a_case_within_its_budget_and_leaves_the_model(one: CodeModel, name: str) -> None:
    before = [one.projection(layer).weight.detach().clone() for layer in range(one.depth)]
    kit = Kit(one, [one.encode("def f(x):\n    return x + 1\n"), one.encode("for y in range(3):\n    y\n")])
    variant = grid(name)[0]
    result = variant.make(kit)(one, [tiny.case(one)], Budget(2))
    assert [each.case for each in result.outcomes] == ["a"]
    assert result.failures_before
    assert result.patch.base == one.fingerprint
    assert all(bool((one.projection(layer).weight == weight).all()) for layer, weight in enumerate(before))


def test_what_methods_share_is_made_once(one: CodeModel) -> None:
    kit = Kit(one)
    assert kit.basis is kit.basis
    assert kit.guards == {}, "nothing is weighed where nothing ordinary is known"
    assert Kit(one, [one.encode("x = 1\n")]).guards


# -- tuning ----------------------------------------------------------------------------------------------


def _variants(*rates: float) -> tuple[Variant, ...]:
    return tuple(Variant("m", {"rate": rate}, lambda kit: _no_method) for rate in rates)


def _no_method(*_arguments: object, **_named: object) -> None:
    raise AssertionError("tuning does not repair by itself")


def _tuned(by_rate: Mapping[float, tuple[Trial, ...]]) -> float:
    best, _ = tune(
        _variants(*by_rate), ["0", "1"], lambda variant, row: by_rate[variant.settings["rate"]][int(row)]
    )
    return float(best.settings["rate"])


def test_most_solved_wins_whatever_it_moved() -> None:
    assert _tuned({1: (Trial(True, 0.1), Trial(False, 0.1)), 2: (Trial(True, 9.0), Trial(True, 9.0))}) == 2


def test_of_as_many_solved_the_least_moved_wins() -> None:
    assert _tuned({1: (Trial(True, 0.2), Trial(True, 0.2)), 2: (Trial(True, 0.1), Trial(True, 0.1))}) == 2


def test_neighbours_decide_where_nothing_unrelated_was_looked_at() -> None:
    kept = {
        1: (Trial(True, kept=0.5), Trial(True)),
        2: (Trial(True, kept=0.9), Trial(True)),
    }
    assert _tuned(kept) == 2


def test_a_wrecked_model_is_never_the_least_moved() -> None:
    nan, inf = float("nan"), float("inf")
    assert _tuned({1: (Trial(True, nan), Trial(True, 0.0)), 2: (Trial(True, 5.0), Trial(True, 5.0))}) == 2
    assert _tuned({1: (Trial(True, inf), Trial(True, 0.0)), 2: (Trial(True, 5.0), Trial(True, 5.0))}) == 2


def test_the_first_of_equals_is_the_published_one() -> None:
    same = (Trial(True, 0.1), Trial(True, 0.1))
    assert _tuned({1: same, 2: same}) == 1
    assert grid("sgd")[0].settings["rate"] == 1e-2
    assert grid("star-batch-1/4")[0].settings["rate"] == PUBLISHED.rate


def test_with_one_variant_or_no_row_nothing_is_tried() -> None:
    def never(*_: object) -> Trial:
        raise AssertionError

    assert tune(_variants(1), ["0"], never)[0].settings == {"rate": 1}
    best, seen = tune(_variants(1, 2), [], never)
    assert (best.settings, seen) == ({"rate": 1}, {})


def test_what_tuning_saw_is_told() -> None:
    _, seen = tune(_variants(1, 2), ["0"], lambda variant, row: Trial(variant.settings["rate"] == 2, 0.1))
    assert [(each["settings"]["rate"], each["solved"], each["of"]) for each in seen["seen"]] == [
        (1, 0, 1),
        (2, 1, 1),
    ]
    assert seen["by"] == ["solved", "kl"]
