"""Which layers of a network become int8 products, and from which numbers.

Every linear layer does, output projections and head too. Two things make rounding cheap in all but the head:
inputs that are large on ordinary code are made smaller, and their weights larger, before it; and a few
neurons stay in fp32, those whose weights would make the scales of all others coarse and those whose rounding
would cost most. The numbers are made once and kept beside the model, to be mapped by every process that
serves it.
"""

import contextlib
import ctypes
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from star.product import Beside, Int8Linear, Share, Together, round_rows, way

__all__ = ["SAMPLE", "Plan", "kept", "made", "map_anew", "quantize"]

_FORMAT = "2"
_FILE = "int8.safetensors"
#: One in so many neurons stays in fp32 for its weights, and one for what rounding it costs.
_SPARED = 112
#: Inputs are divided by this power of their size.
_LIFT = 0.25
#: Which activations are large is seen on this. The largest are those at the first token of a text, and marks
#: such as that of fill-in-the-middle have some that no other token has.
SAMPLE = '''"""Reads settings."""

import json
from pathlib import Path


class Settings:
    """What a user has chosen."""

    def __init__(self, path: Path, retries: int = 3) -> None:
        self.path = path
        self.values: dict[str, str] = {}

    def load(self) -> bool:
        if not self.path.exists():
            return False
        with self.path.open(encoding="utf-8") as file:
            for key, value in json.load(file).items():
                self.values[key.strip().lower()] = str(value)
        return len(self.values) > 0  # nothing is not an error


def main() -> None:
    print("{} of {}".format(1.5e-3, [x * 2 for x in range(10) if x % 3]))
'''


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Which linear layers of a network become one product.

    Attributes:
        units: Names of layers that read the same tensor, and are one product, by the name of it.
        finer: Names of products that are worth more than numbers and scales.
    """

    units: Mapping[str, tuple[str, ...]]
    finer: frozenset[str]

    @classmethod
    def of(cls, network: nn.Module, layers: str, together: Sequence[Sequence[str]]) -> "Plan":
        """Every ``nn.Linear`` but those of one input (torch 2.13's int8 product reads past such a matrix).

        A subclass may compute something else, so only the very class counts; what is none (GPT-2's Conv1D,
        embeddings) stays. Of ``together``, groups whose layers are not all there count as none.

        Args:
            network: with its layers as they are stored.
            layers: where it has the layers that are worth more.
            together: names of layers that are given the very same tensor.
        """
        linears = [
            name
            for name, module in network.named_modules()
            if type(module) is nn.Linear and module.in_features > 1
        ]
        groups = {group[0]: tuple(group) for group in together if set(group) <= set(linears)}
        others = {name for group in groups.values() for name in group[1:]}
        members = [groups.get(name, (name,)) for name in linears if name not in others]
        units = {"+".join(each): each for each in members}
        return cls(units, frozenset(name for name in units if name.startswith(f"{layers}.")))

    def parts(self, name: str) -> list[str]:
        """What a file has of a product."""
        more = ("lift", "neurons", "rows") if name in self.finer else ()
        return [f"{name}.{part}" for part in ("numbers", "scale", *more)]


def quantize(network: nn.Module, plan: Plan, numbers: Mapping[str, Tensor]) -> None:
    """Put int8 products in the place of the linear layers of a plan, from what ``made`` or ``kept`` gives.

    What the network computes between them it computes in fp32 from then on, however it is stored.
    """
    for name, members in plan.units.items():
        linears: list[Any] = [network.get_submodule(member) for member in members]
        beside, lift = None, None
        if name in plan.finer:
            beside = Beside(numbers[f"{name}.neurons"], numbers[f"{name}.rows"])
            lift = numbers[f"{name}.lift"]
        weights = _weights(network, members)
        bias = _bias([linear.bias for linear in linears], [len(weight) for weight in weights])
        whole = Int8Linear(numbers[f"{name}.numbers"], numbers[f"{name}.scale"], bias, beside, lift)
        if len(members) == 1:
            _put(network, name, whole)
            continue
        together, start = Together(whole, len(members)), 0
        for member, weight in zip(members, weights, strict=True):
            stop = start + len(weight)
            _put(network, member, Share(together, start, stop, member == members[0]))
            start = stop
    _compute_in_fp32(network)


def _compute_in_fp32(network: nn.Module) -> None:
    """Beside the products it is little, and rounding it to 16 bits costs more than theirs does.

    A table of embeddings, which is large, stays as it is stored; what is read from it is made fp32.
    """
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.dtype in (torch.bfloat16, torch.float16):
                if isinstance(module, nn.Embedding):
                    module.register_forward_hook(lambda _module, _args, read: read.float())
                else:
                    parameter.data = parameter.data.float()


def _bias(each: Sequence[Tensor | None], sizes: Sequence[int]) -> Tensor | None:
    """The biases of several layers as one, where any has one."""
    if all(bias is None for bias in each):
        return None
    parts = zip(each, sizes, strict=True)
    return torch.cat([torch.zeros(size) if bias is None else bias.data for bias, size in parts])


def _weights(network: nn.Module, names: Sequence[str]) -> list[Tensor]:
    found = [network.get_submodule(name).weight for name in names]
    return [each.data for each in found if isinstance(each, Tensor)]


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, module)


def made(network: nn.Module, plan: Plan, samples: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """The numbers and scales of every product of a plan, and what stands beside.

    Args:
        network: with its layers as they are stored.
        plan: of this network.
        samples: token ids of ordinary prompts, the first one a long one.
    """
    found: dict[str, Tensor] = {}
    seen = _seen(network, {name: plan.units[name][0] for name in plan.finer}, samples)
    for name, members in plan.units.items():
        weight, neurons = torch.cat([each.float() for each in _weights(network, members)]), None
        if name in plan.finer:
            usual, largest = seen[name]
            # Inputs that are hardly there are not made much of.
            size = usual.clamp(min=float(usual.mean()) * 1e-3 + torch.finfo(torch.float32).tiny)
            lift = (size.mean() / size) ** _LIFT
            neurons = _spared(weight / lift, largest * lift)
            found[f"{name}.lift"], found[f"{name}.neurons"] = lift, neurons
            found[f"{name}.rows"] = weight[:, neurons].T.contiguous()
            weight = weight / lift
        found[f"{name}.numbers"], found[f"{name}.scale"] = round_rows(weight, neurons)
    return found


def _seen(
    network: nn.Module, names: Mapping[str, str], samples: Sequence[Sequence[int]]
) -> dict[str, tuple[Tensor, Tensor]]:
    """What is read: the size of each input on the first sample, and the largest one on all, by product."""
    usual: dict[str, Tensor] = {}
    largest: dict[str, Tensor] = {}

    def see(name: str, args: tuple[Tensor]) -> None:
        inputs = args[0].reshape(-1, args[0].shape[-1]).float()
        most = inputs.abs().amax(0)
        largest[name] = torch.maximum(largest[name], most) if name in largest else most
        if name not in usual:
            usual[name] = inputs.square().mean(0).sqrt()

    handles = [
        network.get_submodule(member).register_forward_pre_hook(
            lambda _module, args, name=name: see(name, args)
        )
        for name, member in names.items()
    ]
    try:
        with torch.no_grad():
            for sample in samples if names else ():
                network(torch.tensor([list(sample)]), use_cache=False, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    return {name: (usual[name], largest[name]) for name in names}


def _spared(weight: Float[Tensor, "o i"], largest: Float[Tensor, " i"]) -> Int[Tensor, " k"]:
    """The neurons that stay in fp32, ascending: their weights stand out, or rounding costs much."""
    numbers, scale = round_rows(weight)
    cost = (numbers.float() * scale[:, None]).sub_(weight).norm(dim=0) * largest
    share = weight.abs() / weight.abs().amax(1, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny)
    for _ in range(3):  # its eighth power
        share.square_()
    count = max(1, weight.shape[1] // _SPARED)
    neurons: Tensor = torch.unique(torch.cat([each.topk(count).indices for each in (share.sum(0), cost)]))
    return neurons


def kept(
    folder: Path, network: nn.Module, plan: Plan, samples: Sequence[Sequence[int]], base: str
) -> tuple[dict[str, Tensor], bool]:
    """What ``made`` gives, mapped from a folder, and whether it was written there just now.

    Written whole or not at all; looked at before use: the base and the format it was made for, every
    shape, and two rows of every layer. A folder that cannot be written to costs the seconds again.
    """
    path = folder / _FILE
    if (found := _mapped(path, network, plan, base)) is not None:
        return found, False
    fresh = made(network, plan, samples)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(fresh, part, {"base": base, "format": _FORMAT})
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, SafetensorError):
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        return fresh, False
    found = _mapped(path, network, plan, base)
    return (fresh, False) if found is None else (found, True)


def map_anew(network: nn.Module, folder: Path, plan: Plan, base: str) -> None:
    """Give back the memory of numbers that were only read to be packed: they are mapped once more, unread.

    Only a backward pass reads them from then on. A file that is not what ``kept`` has left is not mapped.
    """
    if way() != "packed":
        return
    layers: dict[str, Int8Linear] = {}
    for name, members in plan.units.items():
        module = network.get_submodule(members[0])
        whole = module.together.whole if isinstance(module, Share) else module
        assert isinstance(whole, Int8Linear)
        layers[name] = whole
    with contextlib.suppress(OSError, SafetensorError), safe_open(folder / _FILE, "pt") as file:
        if not _is_for(file, plan, base):
            return
        # Both, as each holds the whole mapping; all are there before any is set.
        anew = {name: [file.get_tensor(f"{name}.{part}") for part in ("numbers", "scale")] for name in layers}
        for name, layer in layers.items():
            layer.numbers, layer.scale = anew[name]
            if layer.lift is not None:
                layer.lift = layer.lift.clone()
            if layer.base is not None:
                layer.base = layer.beside = Beside(layer.base.neurons.clone(), layer.base.rows.clone())
    # What packing left between the packed matrices (400 MB for the default model); glibc alone has this.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _mapped(path: Path, network: nn.Module, plan: Plan, base: str) -> dict[str, Tensor] | None:
    """What a file holds, if it is what ``kept`` would make."""
    try:
        with safe_open(path, "pt") as file:
            if not _is_for(file, plan, base):
                return None
            found: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    return found if all(_fits(network, plan, name, found) for name in plan.units) else None


def _is_for(file: Any, plan: Plan, base: str) -> bool:
    """Whether an open file tells that it is of this base and format, and of these layers."""
    about = file.metadata() or {}
    parts = {part for name in plan.units for part in plan.parts(name)}
    return (about.get("base"), about.get("format")) == (base, _FORMAT) and set(file.keys()) == parts


def _fits(network: nn.Module, plan: Plan, name: str, found: Mapping[str, Tensor]) -> bool:
    """Whether the types, the shapes, and the ends of one product are those of its weights."""
    numbers, scale = found[f"{name}.numbers"], found[f"{name}.scale"]
    weights = _weights(network, plan.units[name])
    if (numbers.dtype, scale.dtype) != (torch.int8, torch.float32):
        return False
    shape = (sum(map(len, weights)), weights[0].shape[1])
    if numbers.shape != shape or scale.shape != shape[:1]:
        return False
    neurons, lift = None, None
    if name in plan.finer:
        neurons, rows, lift = (found[f"{name}.{part}"] for part in ("neurons", "rows", "lift"))
        if (neurons.dtype, rows.dtype, lift.dtype) != (torch.int64, torch.float32, torch.float32):
            return False
        if neurons.ndim != 1 or rows.shape != (len(neurons), shape[0]) or lift.shape != shape[1:]:
            return False
        if not ((neurons >= 0) & (neurons < shape[1])).all():
            return False
    for at, end in ((0, weights[0][:1].float()), (-1, weights[-1][-1:].float())):
        if neurons is not None and not torch.equal(rows[:, at], end[0, neurons]):
            return False
        rounded, scales = round_rows(end if lift is None else end / lift, neurons)
        if not (torch.equal(numbers[at], rounded[0]) and torch.equal(scale[at], scales[0])):
            return False
    return True
