"""SGD and AdamW take the very steps that torch takes."""

from typing import Literal

import pytest
import torch

from star.model import CodeModel
from star.patch import install
from star.peers import Gradient, Where, layers_at
from star.result import Budget
from tests import tiny
from tests.star.peers import reference


def test_so_many_layers_lie_at_the_end_or_in_the_middle() -> None:
    assert layers_at(24, "1/4", "last") == tuple(range(18, 24))
    assert layers_at(24, "1/4", "middle") == tuple(range(9, 15))
    assert layers_at(24, "one", "last") == (23,)
    assert layers_at(4, "all", "middle") == (0, 1, 2, 3)


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.1), ("adamw", 1e-3)])
@pytest.mark.parametrize("at", ["last", "middle"])
def test_steps_equal_those_of_torch_on_the_same_loss(
    model: CodeModel, optimizer: Literal["sgd", "adamw"], rate: float, at: Where
) -> None:
    case, layers = tiny.case(model), layers_at(model.depth, "2/4", at)
    other = reference.network(model)
    weights = [reference.projection(model, other, layer).weight.requires_grad_() for layer in layers]
    known = (
        torch.optim.SGD(weights, lr=rate)
        if optimizer == "sgd"
        else torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    )
    losses = []
    for _ in range(3):
        known.zero_grad()
        loss = reference.loss(model, other, case)
        losses.append(float(loss.detach()))
        torch.autograd.backward(loss)
        known.step()

    seen: list[float] = []
    method = Gradient(optimizer, rate, "2/4", at)
    result = method(model, [case], Budget(3), lambda step: seen.append(step.loss))
    install(model, [result.patch])
    assert seen[:3] == pytest.approx(losses, rel=1e-4)
    assert result.layers == layers
    for layer, weight in zip(layers, weights, strict=True):
        moved = weight.detach() - model.base_weight(layer)
        # Adam divides by tiny gradients: where one is next to nothing, rounding decides.
        near = torch.isclose(model.projection(layer).weight, weight, rtol=0, atol=1e-5)
        assert float(moved.abs().max()) > 1e-4
        assert float(near.float().mean()) > 0.995
