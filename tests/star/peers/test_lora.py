"""LoRA is PEFT's, though its adapters stand beside the network."""

import sys

import pytest
import torch

from star.errors import StarError
from star.model import CodeModel
from star.patch import install
from star.peers import Lora, layers_at
from star.peers.lora import adapters
from star.result import Budget
from tests import tiny
from tests.star.peers import reference


def test_the_patch_is_the_adapter_that_peft_trains_in_a_network_and_merges(model: CodeModel) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    method = Lora(rank=4, alpha=8, rate=1e-2, layers="2/4")
    case, layers = tiny.case(model), layers_at(model.depth, "2/4", "last")
    path = f"{model.family.layers}.{{}}.{model.family.projection}"
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=[path.format(layer) for layer in layers],
        fan_in_fan_out=model.family.stored_by_neuron,
    )
    wrapped = inject_adapter_in_model(config, reference.network(model))
    ours = adapters(model, layers, 4, 8, method.seed)
    with torch.no_grad():  # the random factors alone are taken over; the others start at zero in both
        for layer in layers:
            theirs = reference.projection(model, wrapped, layer)
            theirs.lora_A["default"].weight.copy_(ours[layer].lora_A["default"].weight)
    factors = [each for each in wrapped.parameters() if each.requires_grad]
    assert len(factors) == 2 * len(layers)
    optimizer = torch.optim.AdamW(factors, lr=1e-2, weight_decay=0.0)
    for _ in range(3):
        optimizer.zero_grad()
        torch.autograd.backward(reference.loss(model, wrapped, case))
        optimizer.step()

    result = method(model, [case], Budget(3))
    install(model, [result.patch])
    assert result.steps == 3
    for layer in layers:
        merged = reference.projection(model, wrapped, layer)
        merged.merge()
        weight = merged.base_layer.weight
        moved = float((weight.detach() - model.base_weight(layer)).abs().max())
        assert moved > 1e-4
        assert torch.allclose(model.projection(layer).weight, weight, rtol=0, atol=0.01 * moved)


def test_a_patch_has_the_rank_of_its_adapter(one: CodeModel) -> None:
    result = Lora(rank=3, rate=1e-2, layers="2/4")(one, [tiny.case(one)], Budget(4))
    assert [int(torch.linalg.matrix_rank(rows.delta, rtol=1e-5)) for rows in result.patch.rows] == [3, 3]


def test_adapters_leave_network_and_dice_alone(model: CodeModel) -> None:
    modules, state = dict(model.network.named_modules()), torch.random.get_rng_state()
    needs = [each.requires_grad for each in model.network.parameters()]
    adapters(model, [2, 3], 8, 16, 0)
    assert dict(model.network.named_modules()) == modules
    assert [each.requires_grad for each in model.network.parameters()] == needs
    assert torch.equal(torch.random.get_rng_state(), state)


def test_another_seed_is_another_patch(one: CodeModel) -> None:
    first, again, other = (Lora(seed=seed)(one, [tiny.case(one)], Budget(2)).patch for seed in (0, 0, 1))
    assert first.digest == again.digest != other.digest


def test_without_peft_one_is_told_what_to_install(one: CodeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(StarError, match=r"star-lsp\[bench\]"):
        Lora()(one, [tiny.case(one)], Budget(1))
