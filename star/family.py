"""Where each architecture keeps its layers, neurons and unembedding.

The only file that knows a family's name. A *neuron* is one row of the output projection of a
layer's feed-forward block seen as ``(f, d)``, whatever way round the weight is stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from star.errors import UnsupportedFamily

__all__ = ["FAMILIES", "Family", "family_of", "supported", "tensor_at"]


@dataclass(frozen=True, slots=True)
class Family:
    """The attribute paths of one architecture.

    ``layers`` and ``norm`` start at the network, ``mlp`` and ``projection`` at one layer.
    """

    layers: str
    mlp: str
    projection: str
    norm: str
    #: The weight is stored ``(f, d)`` (GPT-2's Conv1D) and not ``(d, f)`` (nn.Linear).
    stored_by_neuron: bool = False
    #: Gemma-style norms multiply by ``1 + weight``.
    gain_offset: float = 0.0
    #: Within one layer, linear layers that are given the very same tensor.
    together: tuple[tuple[str, ...], ...] = ()


_LLAMA = Family(
    layers="model.layers",
    mlp="mlp",
    projection="mlp.down_proj",
    norm="model.norm",
    together=(
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        ("mlp.gate_proj", "mlp.up_proj"),
    ),
)
_GEMMA = replace(_LLAMA, gain_offset=1.0)
_CODEGEN = Family(layers="transformer.h", mlp="mlp", projection="mlp.fc_out", norm="transformer.ln_f")
_BIGCODE = replace(_CODEGEN, projection="mlp.c_proj")

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "llama": _LLAMA,
        "mistral": _LLAMA,
        "qwen2": _LLAMA,
        "qwen3": _LLAMA,
        "gemma": _GEMMA,
        "gemma2": _GEMMA,
        "gemma3_text": _GEMMA,
        "gpt2": replace(_BIGCODE, stored_by_neuron=True),
        "gpt_bigcode": _BIGCODE,
        "codegen": _CODEGEN,
        "gptj": _CODEGEN,
        "gpt_neox": Family(
            layers="gpt_neox.layers",
            mlp="mlp",
            projection="mlp.dense_4h_to_h",
            norm="gpt_neox.final_layer_norm",
        ),
        "starcoder2": replace(_LLAMA, projection="mlp.c_proj"),
        "phi": replace(_LLAMA, projection="mlp.fc2", norm="model.final_layernorm"),
    }
)


def supported() -> tuple[str, ...]:
    """The ``model_type`` of every architecture that can be repaired, sorted."""
    return tuple(sorted(FAMILIES))


def family_of(model_type: str) -> Family:
    """The family of a Hugging Face ``config.model_type``.

    Raises:
        UnsupportedFamily: no entry for it.
    """
    try:
        return FAMILIES[model_type]
    except KeyError:
        raise UnsupportedFamily(
            f"The architecture {model_type!r} cannot be repaired; choose a model of one of: "
            f"{', '.join(supported())}."
        ) from None


def tensor_at(root: Any, path: str) -> Any:
    """What stands at a dotted attribute path."""
    for name in path.split("."):
        root = getattr(root, name)
    return root
