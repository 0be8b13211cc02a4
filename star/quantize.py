"""Linear layers in int8: a quarter of the bytes for each token, and a product of whole numbers.

Weights are whole numbers -127 to 127 with one scale for each output. Activations, row by row, are two
digits -63 to 63, a coarse one and 1/126 of it: 14 bits in all, as a single digit loses what stands beside
the few huge coordinates that every model has (numbers in README.md). A product of whole numbers is
exact, so a row gives the same result alone and among others; with such digits it is so on processors
without VNNI too, which add two products in 16 bits.

Where the numbers of a folder come from is known here too: they are made once and kept beside the model,
to be mapped by every process that serves it.
"""

import contextlib
import ctypes
import os
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int8, Int32
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

__all__ = ["Int8Linear", "kept", "map_anew", "quantize", "round_rows", "way"]

_LARGEST = 127
_DIGIT = 63
_FINER = 126  # a remainder of a rounding is at most half of one
_CHUNK_ROWS = 8192
_PART = 2**24 // (_DIGIT * _LARGEST)
_FORMAT = "1"
_FILE = "int8.safetensors"


class Int8Linear(nn.Module):
    """``y = x Wᵀ + b`` with ``W = numbers * scale``; its backward pass is that of these very weights."""

    numbers: Int8[Tensor, "o i"]
    scale: Float[Tensor, " o"]
    bias: Tensor | None

    def __init__(
        self, numbers: Int8[Tensor, "o i"], scale: Float[Tensor, " o"], bias: Tensor | None = None
    ) -> None:
        """Take over what ``round_rows`` made of a weight."""
        super().__init__()
        self.register_buffer("numbers", numbers)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
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

    def product(self, x: Tensor) -> Tensor:
        """``x Wᵀ``, without a gradient."""
        rows = x.reshape(-1, x.shape[-1]).float()
        reach = rows.abs().amax(-1, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny * _DIGIT)
        # What is not finite has no digits; its reach makes the whole row NaN in the end.
        wide = (rows * (_DIGIT / reach)).nan_to_num_(0.0)
        coarse = wide.round()
        fine = wide.sub_(coarse).mul_(_FINER).round_()
        # One product for both digits: the weights are read once.
        if self._packed is not None:
            products = self._packed.product([coarse, fine], self.numbers)
        elif _way() == "plain":
            products = torch._int_mm(torch.cat([coarse, fine]).to(torch.int8), self.numbers.T)
        else:
            products = _in_parts(torch.cat([coarse, fine]), self.numbers)
        count = len(rows)
        result = (products[count : 2 * count] * (1 / _FINER)).add_(products[:count])
        result = result.mul_(reach / _DIGIT).mul_(self.scale)
        return result.reshape(*x.shape[:-1], -1).to(x.dtype)

    def dequantized(self) -> Float[Tensor, "o i"]:
        """The weight in fp32."""
        return self.numbers.float() * self.scale[:, None]

    def extra_repr(self) -> str:
        """Shape, as ``nn.Linear`` shows it."""
        outputs, inputs = self.numbers.shape
        return f"in_features={inputs}, out_features={outputs}, bias={self.bias is not None}"


class _Product(torch.autograd.Function):
    """``x Wᵀ``, for gradients with respect to ``x`` alone; rounding counts as the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: Int8Linear) -> Tensor:
        ctx.linear = linear
        return linear.product(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        numbers, scale = ctx.linear.numbers, ctx.linear.scale
        (grad,) = grads
        weighed = grad.reshape(-1, grad.shape[-1]).float() * scale
        total = torch.zeros(len(weighed), numbers.shape[1])
        # In parts: the head as a whole would be half a gigabyte of fp32.
        for part, rows in zip(weighed.split(_CHUNK_ROWS, 1), numbers.split(_CHUNK_ROWS), strict=True):
            total.addmm_(part, rows.float())
        return total.reshape(*grad.shape[:-1], -1).to(grad.dtype), None


@dataclass(frozen=True, slots=True)
class _Packed:
    """Numbers in the order in which fbgemm reads them, with what its oldest operators want beside."""

    matrix: Tensor
    sums: Int32[Tensor, " o"]
    nothing: Float[Tensor, " o"]
    #: -64 and 191: fbgemm scales a matrix by its extremes, and with these among them the scale is 1 and our
    #: digits become 1 to 127, of which two products with weights fit into 16 bits.
    extremes: Float[Tensor, "1 i"]

    def product(self, digits: Sequence[Tensor], numbers: Tensor) -> Tensor:
        """Whole numbers ``(n, i)`` times the packed ones, exactly; after them a row that means nothing."""
        rows = torch.cat([*digits, self.extremes])
        product: Tensor = torch.fbgemm_linear_int8_weight_fp32_activation(
            rows, numbers, self.matrix, self.sums, 1.0, 0, self.nothing
        )
        return product


def _in_parts(rows: Float[Tensor, "n i"], numbers: Int8[Tensor, "o i"]) -> Int32[Tensor, "n o"]:
    """Whole numbers times others, exactly: of so many terms every sum is one that fp32 has."""
    total = torch.zeros(len(rows), len(numbers), dtype=torch.int32)
    for left, right in zip(torch.split(rows, _PART, 1), torch.split(numbers, _PART, 1), strict=True):
        total += (left @ right.float().T).to(torch.int32)
    return total


def _pack(numbers: Int8[Tensor, "o i"]) -> _Packed:
    extremes = torch.zeros(1, numbers.shape[1])
    extremes[0, 0], extremes[0, 1] = -_DIGIT - 1, 255 - _DIGIT - 1
    # `sum` would widen all numbers first: seconds, and scraps between packed matrices.
    sums = torch._int_mm(torch.ones(1, numbers.shape[1], dtype=torch.int8), numbers.T)[0]
    return _Packed(torch.fbgemm_pack_quantized_matrix(numbers), sums, torch.zeros(len(numbers)), extremes)


def round_rows(weight: Float[Tensor, "o i"]) -> tuple[Int8[Tensor, "o i"], Float[Tensor, " o"]]:
    """A weight's rows as whole numbers, and the scale of each row."""
    numbers = torch.empty(weight.shape, dtype=torch.int8)
    scale = torch.empty(len(weight))
    for start in range(0, len(weight), _CHUNK_ROWS):
        rows = weight[start : start + _CHUNK_ROWS].float()
        reach = rows.abs().amax(1)
        scale[start : start + _CHUNK_ROWS] = torch.where(reach > 0, reach, 1.0) / _LARGEST
        part = rows / scale[start : start + _CHUNK_ROWS, None]
        numbers[start : start + _CHUNK_ROWS] = part.round_().to(torch.int8)
    return numbers, scale


def quantize(network: nn.Module, spared: Collection[nn.Module], known: Mapping[str, Tensor]) -> None:
    """Put an ``Int8Linear`` in the place of every ``nn.Linear`` but ``spared``.

    Args:
        network: is changed; what is no ``nn.Linear`` (GPT-2's Conv1D, embeddings) stays.
        spared: stay as they are.
        known: what ``kept`` found; what is missing is rounded now.
    """
    for name, linear in _linears(network, spared).items():
        if f"{name}.numbers" in known:
            numbers, scale = known[f"{name}.numbers"], known[f"{name}.scale"]
        else:
            numbers, scale = round_rows(linear.weight.data)
        bias = None if linear.bias is None else linear.bias.data
        parent, _, last = name.rpartition(".")
        setattr(network.get_submodule(parent), last, Int8Linear(numbers, scale, bias))


def kept(folder: Path, network: nn.Module, spared: Collection[nn.Module], base: str) -> dict[str, Tensor]:
    """The numbers and scales of a folder's linear layers, mapped; made and written when not there.

    Written whole or not at all; looked at before use: the base and the format it was made for, every
    shape, and two rows of every layer. A folder that cannot be written to costs the seconds again.
    """
    path, linears = folder / _FILE, _linears(network, spared)
    if (found := _mapped(path, linears, base)) is not None:
        return found
    made: dict[str, Tensor] = {}
    for name, linear in linears.items():
        made[f"{name}.numbers"], made[f"{name}.scale"] = round_rows(linear.weight.data)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(made, part, {"base": base, "format": _FORMAT})
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, SafetensorError):
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        return made
    found = _mapped(path, linears, base)
    return made if found is None else found


def map_anew(network: nn.Module, folder: Path, base: str) -> None:
    """Give back the memory of numbers that were only read to be packed: they are mapped once more, unread.

    Only a backward pass reads them from then on. A file that is not what ``kept`` has left is not mapped.
    """
    if _way() != "packed":
        return
    layers = {name: each for name, each in network.named_modules() if isinstance(each, Int8Linear)}
    with contextlib.suppress(OSError, SafetensorError), safe_open(folder / _FILE, "pt") as file:
        if not _is_for(file, layers, base):
            return
        # Both, as each holds the whole mapping; all are there before any is set.
        anew = {name: [file.get_tensor(f"{name}.{part}") for part in ("numbers", "scale")] for name in layers}
        for name, layer in layers.items():
            layer.numbers, layer.scale = anew[name]
    # What packing left between the packed matrices (400 MB for the default model); glibc alone has this.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _linears(network: nn.Module, spared: Collection[nn.Module]) -> dict[str, nn.Linear]:
    """By name; a subclass may compute something else, so only the very class counts.

    A layer of one input is left alone: torch 2.13's int8 product reads past such a matrix.
    """
    left = {id(module) for module in spared}
    return {
        name: module
        for name, module in network.named_modules()
        if type(module) is nn.Linear and module.in_features > 1 and id(module) not in left
    }


def _mapped(path: Path, linears: Mapping[str, nn.Linear], base: str) -> dict[str, Tensor] | None:
    """What a file holds, if it is what ``kept`` would make."""
    try:
        with safe_open(path, "pt") as file:
            if not _is_for(file, linears, base):
                return None
            found: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    fits = all(
        _fits(found[f"{name}.numbers"], found[f"{name}.scale"], linear.weight.data)
        for name, linear in linears.items()
    )
    return found if fits else None


def _is_for(file: Any, names: Iterable[str], base: str) -> bool:
    """Whether an open file tells that it is of this base and format, and of these layers."""
    about = file.metadata() or {}
    parts = {f"{name}.{part}" for name in names for part in ("numbers", "scale")}
    return (about.get("base"), about.get("format")) == (base, _FORMAT) and set(file.keys()) == parts


def _fits(numbers: Tensor, scale: Tensor, weight: Tensor) -> bool:
    if (numbers.dtype, scale.dtype) != (torch.int8, torch.float32):
        return False
    if numbers.shape != weight.shape or scale.shape != weight.shape[:1]:
        return False
    ends = [0, len(weight) - 1]
    rounded, scales = round_rows(weight[ends])
    return torch.equal(numbers[ends], rounded) and torch.equal(scale[ends], scales)


def way() -> str:
    """How products are computed here, for people."""
    return _way()


@cache
def _way() -> Literal["packed", "plain", "parts"]:
    """The fastest exact product here: packed by fbgemm, or plain (oneDNN), or in parts, which is slow.

    Without VNNI, sums of two products may saturate at 16 bits in the second. fbgemm's operators that
    take a scale as it comes are deprecated, each warning once; where they are gone, the plain way gives the
    same bits.
    """
    left = torch.full((2, 256), _DIGIT, dtype=torch.int8)
    left[1, ::3] = 5
    right = torch.full((64, 256), _LARGEST, dtype=torch.int8)
    right[::2] = -_LARGEST
    wanted = left.long() @ right.T.long()
    with warnings.catch_warnings(), contextlib.suppress(AttributeError, RuntimeError):
        warnings.simplefilter("ignore")
        if torch.equal(_pack(right).product([left.float()], right)[:2].long(), wanted):
            return "packed"
    return "plain" if torch.equal(torch._int_mm(left, right.T).long(), wanted) else "parts"
