"""The loss of a case by plain autograd on a network of its own, which no code of ours runs."""

from typing import Any

import torch
from torch import Tensor

from star.case import Case
from star.family import tensor_at
from star.model import CodeModel
from tests import tiny

__all__ = ["loss", "network", "projection"]


def network(model: CodeModel) -> Any:
    """Another network just like the pristine one of a tiny model."""
    return tiny.network(model.network.config.model_type).eval().requires_grad_(False)


def projection(model: CodeModel, other: Any, layer: int) -> Any:
    """The output projection of a layer in another network."""
    return tensor_at(tensor_at(other, model.family.layers)[layer], model.family.projection)


def loss(model: CodeModel, other: Any, case: Case) -> Tensor:
    """The mean cross-entropy of the expected tokens and the likeliest end."""
    expected = model.encode_next(case.expected)
    rows = other(torch.tensor([[*case.prompt, *expected]])).logits[0, len(case.prompt) - 1 :].log_softmax(-1)
    end = max(model.stop_ids, key=lambda token: float(rows[-1, token].detach()))
    mean: Tensor = -rows[range(len(rows)), [*expected, end]].mean()
    return mean
