"""LoRA on the output projections, by the PEFT library: what a practitioner would do."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from star.case import Case
from star.errors import StarError
from star.locate import Layers
from star.model import CodeModel
from star.patch import Draft
from star.peers.course import Course, Where, layers_at, whole
from star.product import Int8Linear
from star.result import Budget, Result, Step

__all__ = ["Lora", "adapters"]


@dataclass(frozen=True, slots=True)
class Lora:
    """The settings of LoRA (arXiv 2106.09685), trained with AdamW without decay."""

    rank: int = 8
    #: The product of the factors is multiplied by ``alpha / rank``.
    alpha: int = 16
    rate: float = 1e-3
    layers: Layers = "1/4"
    at: Where = "last"
    #: Of the random factors; the others start at zero.
    seed: int = 0

    def __call__(
        self,
        model: CodeModel,
        cases: Sequence[Case],
        budget: Budget = Budget(),
        on_step: Callable[[Step], None] | None = None,
        *,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Result:
        """A patch, the product of the factors, that makes the model write what the cases expect.

        The adapters are PEFT's own, but stand beside the network, not in it: what passes the model
        is the draft with their product, and the factors' gradients follow from the draft's.

        Raises:
            CaseError: a case cannot be put to this model.
            StarError: PEFT is not installed.
            Cancelled: ``cancelled`` said so, between two passes.
        """
        layers = layers_at(model.depth, self.layers, self.at)
        made = adapters(model, layers, self.rank, self.alpha, self.seed)
        course = Course(model, cases, layers, budget, on_step, cancelled)
        factors = [each for adapter in made.values() for each in adapter.parameters() if each.requires_grad]
        optimizer = torch.optim.AdamW(factors, lr=self.rate, weight_decay=0.0)
        with Draft(model, whole(model, layers)) as draft:
            for seen in course.steps(self.rate, draft.neurons):
                optimizer.zero_grad()
                for layer, adapter in made.items():
                    torch.autograd.backward(_delta(model, adapter), seen.gradients[layer])
                optimizer.step()
                with torch.no_grad():
                    draft.restore({layer: _delta(model, adapter) for layer, adapter in made.items()})
            manifest = {"method": asdict(self), "cases": [case.id for case in cases]}
            return course.result(draft.patch(manifest))


def adapters(model: CodeModel, layers: Sequence[int], rank: int, alpha: int, seed: int) -> dict[int, Any]:
    """PEFT's adapter for the output projection of each layer, in fp32; the network is not touched.

    Raises:
        StarError: PEFT is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model  # optional, and costs seconds
    except ImportError:
        raise StarError("LoRA needs the library peft; install star-lsp[bench].") from None
    # PEFT replaces children of what it is given: of this shelf, and not of the network.
    shelf = nn.ModuleDict({f"layer{layer}": _plain(model.projection(layer)) for layer in layers})
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=list(shelf),
        fan_in_fan_out=model.family.stored_by_neuron,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, shelf)
    for factor in shelf.parameters():
        if factor.requires_grad:
            factor.data = factor.data.float()
    return {layer: shelf[f"layer{layer}"] for layer in layers}


def _plain(projection: nn.Module) -> nn.Module:
    """A projection as PEFT knows it: one in int8 as the linear layer that it computes."""
    if not isinstance(projection, Int8Linear):
        return projection
    weight = projection.weight
    plain = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    plain.weight.data = weight
    return plain


def _delta(model: CodeModel, adapter: Any) -> torch.Tensor:
    """What an adapter adds to its projection, one neuron a row, ``(f, d)``."""
    stored: torch.Tensor = adapter.get_delta_weight("default")
    return model.by_neuron(stored)
