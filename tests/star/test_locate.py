"""Which layers and neurons a repair may change."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from star.errors import Cancelled
from star.locate import Layers, Pattern, layer_count, layers_by_depth, layers_by_loss, neurons
from star.model import CodeModel
from star.trace import prepare, trace
from tests import tiny

RATIOS = st.sampled_from([1.0, 1 / 4, 1 / 16, 1 / 64, 1 / 256])


@pytest.mark.parametrize(("option", "count"), [("all", 24), ("3/4", 18), ("2/4", 12), ("1/4", 6), ("one", 1)])
def test_an_option_names_so_many_of_the_layers(option: Layers, count: int) -> None:
    assert layer_count(24, option) == count
    assert layers_by_depth(24, option) == tuple(range(24 - count, 24))
    assert layer_count(1, option) == 1


def test_the_layers_located_by_loss_are_those_whose_removal_hurts_most(model: CodeModel) -> None:
    lessons = prepare(model, [tiny.case(model)])
    loss = {}
    for layer in range(model.depth):
        with model.without_mlp(layer):
            loss[layer] = trace(model, lessons).loss
    ranked = sorted(loss, key=lambda layer: -loss[layer])
    for option, count in (("one", 1), ("2/4", 2), ("3/4", 3)):
        assert layers_by_loss(model, lessons, option) == tuple(sorted(ranked[:count]))


def test_a_layer_that_alone_writes_the_answer_is_the_one_located(one: CodeModel) -> None:
    """What is expected hangs on layer 1 only: its rows are made large, its removal is felt most."""
    network = tiny.network("qwen2", seed=5)
    with torch.no_grad():
        network.model.layers[1].mlp.down_proj.weight.mul_(30)
    model = CodeModel(network, tiny.tokenizer(), "tiny")
    case = tiny.case(model)
    best = int(model.logits(case.prompt)[-1].argmax())
    lessons = prepare(model, [tiny.case(model, model.decode_next(case.prompt, [best]))])
    assert layers_by_loss(model, lessons, "one") == (1,)


def test_locating_by_loss_stops_when_it_is_cancelled(one: CodeModel) -> None:
    with pytest.raises(Cancelled):
        layers_by_loss(one, prepare(one, [tiny.case(one)]), "one", lambda: True)


def _scores(depth: int, inner: int, seed: int) -> dict[int, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {layer: torch.rand(inner, generator=random) * (layer + 1) for layer in range(2, 2 + depth)}


@given(depth=st.integers(1, 5), inner=st.integers(1, 80), ratio=RATIOS, seed=st.integers(0, 99),
       pattern=st.sampled_from(["layerly", "autoly", "evenly"]))  # fmt: skip
def test_a_pattern_keeps_its_share_and_the_best_scores(
    depth: int, inner: int, ratio: float, seed: int, pattern: Pattern
) -> None:
    scores = _scores(depth, inner, seed)
    found = neurons(scores, pattern, ratio)
    budget = max(1, int(ratio * inner))
    each = max(1, budget // depth)
    kept = {layer: scores[layer][index] for layer, index in found.items()}
    assert all((index.diff() > 0).all() for index in found.values())
    if pattern == "evenly":
        assert {layer: len(index) for layer, index in found.items()} == dict.fromkeys(scores, each)
        assert all(kept[layer].min() >= scores[layer].sort().values[-each] for layer in kept)
    elif pattern == "layerly":
        (layer,) = found
        assert scores[layer].norm() == max(score.norm() for score in scores.values())
        assert torch.equal(kept[layer].sort().values, scores[layer].sort().values[-budget:])
    else:
        everything = torch.cat(list(scores.values())).sort().values[-budget:]
        assert torch.equal(torch.cat(list(kept.values())).sort().values, everything)


@given(depth=st.integers(1, 5), inner=st.integers(1, 80), ratio=RATIOS)
def test_no_pattern_keeps_whole_layers(depth: int, inner: int, ratio: float) -> None:
    scores = _scores(depth, inner, 0)
    found = neurons(scores, "none", ratio)
    assert sorted(found) == sorted(scores)
    assert all(torch.equal(index, torch.arange(inner)) for index in found.values())
