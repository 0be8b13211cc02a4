"""Tiny models made once, and given back as they were taken."""

from collections.abc import Iterator
from functools import cache

import pytest
import torch
from torch import Tensor

from star.model import CodeModel
from star.patch import install
from tests import tiny


@cache
def _made(model_type: str, dtype: torch.dtype) -> tuple[CodeModel, dict[str, Tensor]]:
    model = tiny.model(model_type, dtype=dtype)
    return model, {name: value.clone() for name, value in model.network.state_dict().items()}


def _lent(model_type: str, dtype: torch.dtype = torch.float32) -> Iterator[CodeModel]:
    """A tiny model, of which every weight must be what it was when all patches are taken off again."""
    model, before = _made(model_type, dtype)
    yield model
    install(model, [])
    after = model.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any("forward" in vars(layer) for layer in model._layers)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.network.modules())


@pytest.fixture(params=tiny.EACH)
def model(request: pytest.FixtureRequest) -> Iterator[CodeModel]:
    """A tiny model of every architecture."""
    yield from _lent(request.param)


@pytest.fixture
def one() -> Iterator[CodeModel]:
    """A tiny model, for what no architecture makes different."""
    yield from _lent("qwen2")


@pytest.fixture(params=["qwen2", "gpt2"])
def half(request: pytest.FixtureRequest) -> Iterator[CodeModel]:
    """A tiny model whose weights are bf16, stored either way round."""
    yield from _lent(request.param, torch.bfloat16)
