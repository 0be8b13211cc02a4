"""Where each architecture keeps its parts."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from star import family
from star.errors import UnsupportedFamily
from star.model import CodeModel
from tests import tiny


def test_every_architecture_with_an_entry_is_proven_on_a_tiny_model() -> None:
    assert set(tiny.SHAPES) == set(family.FAMILIES)


def test_an_architecture_without_an_entry_is_refused_by_name_with_those_supported() -> None:
    with pytest.raises(UnsupportedFamily) as refused:
        family.family_of("mamba")
    assert "'mamba'" in str(refused.value)
    assert all(name in str(refused.value) for name in tiny.SHAPES)


def test_the_projection_is_stored_the_way_round_that_its_family_says(model: CodeModel) -> None:
    for layer in range(model.depth):
        projection = model.projection(layer)
        assert isinstance(projection, Conv1D if model.family.stored_by_neuron else nn.Linear)
        assert tuple(model.base_rows(layer).shape) == (48, 32)


def test_an_activation_times_its_row_is_what_a_neuron_adds(model: CodeModel) -> None:
    projection, rows = model.projection(1), model.base_rows(1)
    z = torch.randn(3, model.neurons, generator=torch.Generator().manual_seed(2))
    bias = projection.bias if projection.bias is not None else 0
    with torch.no_grad():
        assert torch.allclose(projection(z), z @ rows + bias, atol=1e-5)
