"""Linear layers in int8: a quarter of the bytes for each token, and a product of whole numbers.

Weights are whole numbers -127 to 127 with one scale for each output. Activations, row by row, are two
digits of -63 to 63, a coarse one and 1/126 of it, as a single digit loses what stands beside the few huge
coordinates that every model has (numbers in README.md). With 7 bits no processor's product saturates, and
one of whole numbers is exact: a row gives the same result alone and among others, and on every machine.

Beside the numbers an output projection has some neurons in fp32: those whose weights would make the scales
of all others coarse, those whose activations are so large that their rounding would count, and those that
patches change.

Where the numbers of a folder come from is known here too: they are made once and kept beside the model,
to be mapped by every process that serves it.
"""

import contextlib
import ctypes
import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int, Int8, Int32
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

__all__ = ["SAMPLE", "Beside", "Int8Linear", "Plan", "kept", "made", "map_anew", "quantize", "round_rows"]

#: The largest whole number of a weight, and of a digit of an activation.
_LARGEST, _DIGIT = 127, 63
_FINER = 2 * _DIGIT  # a remainder of a rounding is at most half of one
_CHUNK_ROWS = 8192
_PART = 2**24 // (_LARGEST * _DIGIT)
_FORMAT = "2"
_FILE = "int8.safetensors"
#: Neurons of a projection that stay in fp32 for their weights, and as many for their activations: 64 of the
#: default model's 4,864.
_SPARED = 1 / 76
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
class Beside:
    """Rows in fp32, by neuron, that are added to what the numbers say."""

    neurons: Int[Tensor, " k"]
    rows: Float[Tensor, "k o"]


class Int8Linear(nn.Module):
    """``y = x Wᵀ + b`` with ``W = numbers * scale`` and rows beside; its backward pass is that of these."""

    numbers: Int8[Tensor, "o i"]
    scale: Float[Tensor, " o"]
    bias: Tensor | None

    def __init__(
        self,
        numbers: Int8[Tensor, "o i"],
        scale: Float[Tensor, " o"],
        bias: Tensor | None = None,
        beside: Beside | None = None,
    ) -> None:
        """Take over what ``round_rows`` made of a weight."""
        super().__init__()
        self.register_buffer("numbers", numbers)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        #: What stands beside in the base, and now; ``patch.py`` sets the latter.
        self.base: Beside | None = beside
        self.beside: Beside | None = beside
        self._packed: _Packed | None = None
        if _way() == "packed":
            self._packed = _pack(numbers)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs ``(..., o)`` for inputs ``(..., i)``, in their type."""
        if torch.is_grad_enabled() and x.requires_grad:
            product: Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
        else:
            product = self.product(x)
        return product if self.bias is None else product + self.bias

    @torch.no_grad()
    def product(self, x: Tensor) -> Tensor:
        """``x Wᵀ``, without a gradient."""
        rows = x.reshape(-1, x.shape[-1]).float()
        count = len(rows)
        reach = rows.abs().amax(-1, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny * _DIGIT)
        # One product for both digits: the weights are read once. After them comes what ``_Packed`` wants.
        digits = rows.new_empty(2 * count + 1, rows.shape[1])
        coarse, fine = digits[:count], digits[count : 2 * count]
        # What is not finite has no digits; its reach makes the whole row NaN in the end.
        torch.mul(rows, _DIGIT / reach, out=fine).nan_to_num_(0.0)
        torch.round(fine, out=coarse)
        fine.sub_(coarse).mul_(_FINER).round_()
        if self._packed is not None:
            products = self._packed.product(digits, self.numbers)
        elif _way() == "plain":
            products = torch._int_mm(digits[:-1].to(torch.int8), self.numbers.T)
        else:
            products = _in_parts(digits[:-1], self.numbers)
        result = (products[count : 2 * count] * (1 / _FINER)).add_(products[:count])
        result = result.mul_(reach.div_(_DIGIT)).mul_(self.scale)
        if self.beside is not None:
            result.addmm_(rows[:, self.beside.neurons], self.beside.rows)
        return result.view(*x.shape[:-1], -1).to(x.dtype)

    @property
    def weight(self) -> Float[Tensor, "o i"]:
        """What it computes with, in fp32: made anew each time, so writing to it changes nothing."""
        return self._with(self.beside)

    @property
    def base_weight(self) -> Float[Tensor, "o i"]:
        """The same, of the base."""
        return self._with(self.base)

    def _with(self, beside: Beside | None) -> Float[Tensor, "o i"]:
        weight = self.numbers.float().mul_(self.scale[:, None])
        if beside is not None:
            weight[:, beside.neurons] += beside.rows.T
        return weight

    def extra_repr(self) -> str:
        """Shape, as ``nn.Linear`` shows it."""
        outputs, inputs = self.numbers.shape
        return f"in_features={inputs}, out_features={outputs}, bias={self.bias is not None}"


class _Together(nn.Module):
    """Several layers that read the same tensor as one product; each of them is a ``_Share``."""

    def __init__(self, whole: Int8Linear, count: int) -> None:
        super().__init__()
        self.whole = whole
        self._count = count
        self._read: Tensor | None = None
        self._made: Tensor | None = None
        self._left = 0

    def made(self, x: Tensor) -> Tensor:
        """What all of them make of ``x``; kept until each of them has asked for it."""
        made = self._made
        if made is None or self._read is not x:
            made = self.whole(x)
            self._read, self._made, self._left = x, made, self._count
        self._left -= 1
        if not self._left:
            self._read = self._made = None
        return made


class _Share(nn.Module):
    """The outputs ``start`` to ``stop`` of what several layers make together."""

    def __init__(self, together: _Together, start: int, stop: int, first: bool) -> None:
        super().__init__()
        # The first one is where the network's own walk finds what they share.
        self.__dict__["_shared"] = together
        if first:
            self.together = together
        self.start, self.stop = start, stop

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.__dict__["_shared"].made(x)
        return made[..., self.start : self.stop]

    @property
    def weight(self) -> Float[Tensor, "o i"]:
        """What it computes with, in fp32."""
        shared: _Together = self.__dict__["_shared"]
        return shared.whole.weight[self.start : self.stop]


class _Product(torch.autograd.Function):
    """``x Wᵀ``, for gradients with respect to ``x`` alone; rounding counts as the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: Int8Linear) -> Tensor:
        ctx.linear, ctx.beside = linear, linear.beside
        return linear.product(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        numbers, scale, beside = ctx.linear.numbers, ctx.linear.scale, ctx.beside
        (grad,) = grads
        rows = grad.reshape(-1, grad.shape[-1]).float()
        weighed = rows * scale
        total = torch.zeros(len(weighed), numbers.shape[1])
        # In parts: the head as a whole would be half a gigabyte of fp32.
        for part, some in zip(weighed.split(_CHUNK_ROWS, 1), numbers.split(_CHUNK_ROWS), strict=True):
            total.addmm_(part, some.float())
        if beside is not None:
            total[:, beside.neurons] += rows @ beside.rows.T
        return total.reshape(*grad.shape[:-1], -1).to(grad.dtype), None


@dataclass(frozen=True, slots=True)
class _Packed:
    """Numbers in the order in which fbgemm reads them, with what its oldest operators want beside."""

    matrix: Tensor
    sums: Int32[Tensor, " o"]
    nothing: Float[Tensor, " o"]
    #: -64 and 191: fbgemm scales a matrix by its extremes to 0 to 255, and with these among them the scale is
    #: 1 and its zero 64. So a digit of 7 bits stays one, and no sum of two products exceeds 16 bits.
    extremes: Float[Tensor, " i"]

    def product(self, digits: Float[Tensor, "n i"], numbers: Tensor) -> Tensor:
        """Digits times the packed numbers, exactly, but for the last row, which is overwritten."""
        digits[-1] = self.extremes
        product: Tensor = torch.fbgemm_linear_int8_weight_fp32_activation(
            digits, numbers, self.matrix, self.sums, 1.0, 0, self.nothing
        )
        return product


def _in_parts(rows: Float[Tensor, "n i"], numbers: Int8[Tensor, "o i"]) -> Int32[Tensor, "n o"]:
    """Whole numbers times others, exactly: of so many terms every sum is one that fp32 has."""
    total = torch.zeros(len(rows), len(numbers), dtype=torch.int32)
    for left, right in zip(torch.split(rows, _PART, 1), torch.split(numbers, _PART, 1), strict=True):
        total += (left @ right.float().T).to(torch.int32)
    return total


def _pack(numbers: Int8[Tensor, "o i"]) -> _Packed:
    extremes = torch.zeros(numbers.shape[1])
    extremes[0], extremes[1] = -_DIGIT - 1, 254 - _DIGIT
    # `sum` would widen all numbers first: seconds, and scraps between packed matrices.
    sums = torch._int_mm(torch.ones(1, numbers.shape[1], dtype=torch.int8), numbers.T)[0]
    return _Packed(torch.fbgemm_pack_quantized_matrix(numbers), sums, torch.zeros(len(numbers)), extremes)


def round_rows(
    weight: Float[Tensor, "o i"], without: Int[Tensor, " k"] | None = None
) -> tuple[Int8[Tensor, "o i"], Float[Tensor, " o"]]:
    """A weight's rows as whole numbers, and the scale of each; ``without`` some inputs, which are zero."""
    numbers = torch.empty(weight.shape, dtype=torch.int8)
    scale = torch.empty(len(weight))
    for start in range(0, len(weight), _CHUNK_ROWS):
        rows = weight[start : start + _CHUNK_ROWS].float()
        if without is not None:
            rows = rows.index_fill(1, without, 0.0)
        reach = rows.abs().amax(1)
        scale[start : start + _CHUNK_ROWS] = torch.where(reach > 0, reach, 1.0) / _LARGEST
        part = rows / scale[start : start + _CHUNK_ROWS, None]
        numbers[start : start + _CHUNK_ROWS] = part.round_().to(torch.int8)
    return numbers, scale


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Which linear layers of a network become one product, and which have neurons beside it.

    Attributes:
        units: Names of layers that read the same tensor, and are one product, by the name of it.
        projections: Names among them with neurons beside.
    """

    units: Mapping[str, tuple[str, ...]]
    projections: frozenset[str]

    @classmethod
    def of(
        cls, network: nn.Module, projections: Collection[nn.Module], together: Sequence[Sequence[str]]
    ) -> "Plan":
        """Every ``nn.Linear`` but those of one input (torch 2.13's int8 product reads past such a matrix).

        A subclass may compute something else, so only the very class counts; what is none (GPT-2's Conv1D,
        embeddings) stays. Of ``together``, groups whose layers are not all there count as none.
        """
        linears = {
            name: module
            for name, module in network.named_modules()
            if type(module) is nn.Linear and module.in_features > 1
        }
        groups = {group[0]: tuple(group) for group in together if set(group) <= linears.keys()}
        others = {name for group in groups.values() for name in group[1:]}
        outputs = {id(module) for module in projections}
        return cls(
            {
                "+".join(groups.get(name, (name,))): groups.get(name, (name,))
                for name in linears
                if name not in others
            },
            frozenset(name for name, module in linears.items() if id(module) in outputs),
        )

    def parts(self, name: str) -> list[str]:
        """What a file has of a product."""
        return [
            f"{name}.{part}"
            for part in ("numbers", "scale", *(("neurons", "rows") if name in self.projections else ()))
        ]


def quantize(network: nn.Module, plan: Plan, numbers: Mapping[str, Tensor]) -> None:
    """Put int8 products in the place of the linear layers of a plan, from what ``made`` or ``kept`` gives."""
    for name, members in plan.units.items():
        linears: list[Any] = [network.get_submodule(member) for member in members]
        beside = None
        if name in plan.projections:
            beside = Beside(numbers[f"{name}.neurons"], numbers[f"{name}.rows"])
        weights = _weights(network, members)
        bias = _bias([linear.bias for linear in linears], [len(weight) for weight in weights])
        whole = Int8Linear(numbers[f"{name}.numbers"], numbers[f"{name}.scale"], bias, beside)
        if len(members) == 1:
            _put(network, name, whole)
            continue
        together, start = _Together(whole, len(members)), 0
        for member, weight in zip(members, weights, strict=True):
            stop = start + len(weight)
            _put(network, member, _Share(together, start, stop, member == members[0]))
            start = stop


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
        samples: token ids of ordinary prompts; not needed where the plan has no projections.
    """
    found: dict[str, Tensor] = {}
    largest = _largest(network, plan.projections, samples)
    for name, members in plan.units.items():
        weights = _weights(network, members)
        neurons = None
        if name in plan.projections:
            neurons = _spared(weights[0].float(), largest[name])
            found[f"{name}.neurons"] = neurons
            found[f"{name}.rows"] = weights[0][:, neurons].T.float().contiguous()
        rounded = [round_rows(weight, neurons) for weight in weights]
        found[f"{name}.numbers"] = torch.cat([each[0] for each in rounded])
        found[f"{name}.scale"] = torch.cat([each[1] for each in rounded])
    return found


def _largest(
    network: nn.Module, names: Collection[str], samples: Sequence[Sequence[int]]
) -> dict[str, Tensor]:
    """The largest activation of each neuron on some samples, by the name of the projection."""
    found: dict[str, Tensor] = {}

    def see(name: str, args: tuple[Tensor]) -> None:
        seen = args[0].reshape(-1, args[0].shape[-1]).float().abs().amax(0)
        found[name] = torch.maximum(found[name], seen) if name in found else seen

    handles = [
        network.get_submodule(name).register_forward_pre_hook(
            lambda _module, args, name=name: see(name, args)
        )
        for name in names
    ]
    try:
        if names:
            with torch.inference_mode():
                for sample in samples:
                    network(torch.tensor([list(sample)]), use_cache=False, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _spared(weight: Float[Tensor, "o i"], largest: Float[Tensor, " i"]) -> Int[Tensor, " k"]:
    """The neurons that stay in fp32, ascending: their weights stand out, or rounding costs much."""
    numbers, scale = round_rows(weight)
    cost = (numbers.float() * scale[:, None]).sub_(weight).norm(dim=0) * largest
    share = weight.abs() / weight.abs().amax(1, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny)
    for _ in range(3):  # its eighth power
        share.square_()
    count = max(1, int(weight.shape[1] * _SPARED))
    neurons: Tensor = torch.unique(torch.cat([each.topk(count).indices for each in (share.sum(0), cost)]))
    return neurons


def kept(
    folder: Path, network: nn.Module, plan: Plan, samples: Sequence[Sequence[int]], base: str
) -> dict[str, Tensor]:
    """What ``made`` gives, mapped from a folder; made and written when not there.

    Written whole or not at all; looked at before use: the base and the format it was made for, every
    shape, and two rows of every layer. A folder that cannot be written to costs the seconds again.
    """
    path = folder / _FILE
    if (found := _mapped(path, network, plan, base)) is not None:
        return found
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
        return fresh
    found = _mapped(path, network, plan, base)
    return fresh if found is None else found


def map_anew(network: nn.Module, folder: Path, plan: Plan, base: str) -> None:
    """Give back the memory of numbers that were only read to be packed: they are mapped once more, unread.

    Only a backward pass reads them from then on. A file that is not what ``kept`` has left is not mapped.
    """
    if _way() != "packed":
        return
    layers: dict[str, Int8Linear] = {}
    for name, members in plan.units.items():
        module = network.get_submodule(members[0])
        whole = module.together.whole if isinstance(module, _Share) else module
        assert isinstance(whole, Int8Linear)
        layers[name] = whole
    with contextlib.suppress(OSError, SafetensorError), safe_open(folder / _FILE, "pt") as file:
        if not _is_for(file, plan, base):
            return
        # Both, as each holds the whole mapping; all are there before any is set.
        anew = {name: [file.get_tensor(f"{name}.{part}") for part in ("numbers", "scale")] for name in layers}
        for name, layer in layers.items():
            layer.numbers, layer.scale = anew[name]
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
    neurons = None
    if name in plan.projections:
        neurons, rows = found[f"{name}.neurons"], found[f"{name}.rows"]
        if neurons.dtype != torch.int64 or rows.shape != (len(neurons), shape[0]):
            return False
        if not ((neurons >= 0) & (neurons < shape[1])).all() or not torch.equal(
            rows, weights[0][:, neurons].T.float()
        ):
            return False
    first = round_rows(weights[0][:1], neurons)
    last = round_rows(weights[-1][-1:], neurons)
    return all(
        torch.equal(numbers[at], row[0][0]) and torch.equal(scale[at], row[1][0])
        for at, row in ((0, first), (-1, last))
    )


@cache
def _way() -> Literal["packed", "plain", "parts"]:
    """The fastest exact product here: packed by fbgemm, or plain (oneDNN), or in parts, which is slow.

    fbgemm's operators that take a scale as it comes are deprecated, each warning once; where they are gone,
    the plain way gives the same bits.
    """
    left = torch.full((3, 256), float(_DIGIT))
    left[1, ::3] = 5
    right = torch.full((64, 256), _LARGEST, dtype=torch.int8)
    right[::2] = -_LARGEST
    wanted = left[:2].long() @ right.T.long()
    with warnings.catch_warnings(), contextlib.suppress(AttributeError, RuntimeError):
        warnings.simplefilter("ignore")
        if torch.equal(_pack(right).product(left, right)[:2].long(), wanted):
            return "packed"
    narrow = left[:2].to(torch.int8)
    return "plain" if torch.equal(torch._int_mm(narrow, right.T).long(), wanted) else "parts"
