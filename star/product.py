"""A linear layer in int8: a quarter of the bytes for each token, and a product of whole numbers.

Weights are whole numbers -127 to 127 with one scale for each output. Activations, row by row, are those of
-7938 to 7938, as fewer lose what stands beside the few huge coordinates that every model has (numbers in
README.md). A product of whole numbers is exact: a row gives the same alone and among others. Gradients go
back through the same numbers, rounded to 16 bits. Where ``kernel.py`` cannot run, torch makes products of two
digits of 7 bits, with which no processor's product saturates, and gradients in fp32.

Beside the numbers stand rows in fp32, by neuron: those that are worth it in the base, and those that patches
change; and what patches add as few directions, keys and their values.
"""

import contextlib
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Int8, Int32
from torch import Tensor, nn

from star import kernel, tables
from star.team import team

__all__ = ["Beside", "Int8Linear", "Share", "Together", "round_rows", "way"]

#: The largest whole number of a weight, and of a digit of an activation.
_LARGEST, _DIGIT = 127, 63
_FINER = kernel.LARGEST // _DIGIT  # a remainder of a rounding is at most half of one
#: The same as tensors: a number of Python's is made one in each call, which takes longer than to multiply.
_ALL, _DIGITS = torch.tensor(float(kernel.LARGEST)), torch.tensor(float(_DIGIT))
_CHUNK_ROWS = 8192
#: So many numbers in fp32 stay in a core's cache.
_IN_CACHE = 1 << 18
_LEAST = torch.finfo(torch.float32).tiny * kernel.LARGEST
_PART = 2**24 // (_LARGEST * _DIGIT)


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """What is added, in fp32, to what the numbers say: rows, by neuron, and ``keysᵀ · values``."""

    neurons: Int[Tensor, " k"]
    rows: Float[Tensor, "k o"]
    factors: tuple[Float[Tensor, "r i"], Float[Tensor, "r o"]] | None = None


class Int8Linear(nn.Module):
    """``y = x Wᵀ + b`` with ``W = numbers * scale * lift`` and rows beside, backward as well as forward."""

    numbers: Int8[Tensor, "o i"]
    scale: Float[Tensor, " o"]
    bias: Tensor | None
    #: What each input is multiplied by before it is rounded; None for ones.
    lift: Tensor | None

    def __init__(
        self,
        numbers: Int8[Tensor, "o i"],
        scale: Float[Tensor, " o"],
        bias: Tensor | None = None,
        beside: Beside | None = None,
        lift: Float[Tensor, " i"] | None = None,
    ) -> None:
        """Take over what ``round_rows`` made of a weight."""
        super().__init__()
        self.register_buffer("numbers", numbers)
        self.register_buffer("scale", scale)
        # What is compiled reads fp32.
        self.register_buffer("bias", None if bias is None else bias.float().contiguous())
        self.register_buffer("lift", lift)
        #: What stands beside in the base, and now; ``patch.py`` sets the latter.
        self.base: Beside | None = beside
        self.beside: Beside | None = beside
        #: Numbers and scale in the order in which fbgemm reads them.
        self._packed: Any = None
        if way() == "packed":
            self._packed = _pack(numbers, scale)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs ``(..., o)`` for inputs ``(..., i)``, in their type."""
        rows = x.reshape(-1, x.shape[-1]).float()
        if torch.is_grad_enabled() and x.requires_grad:
            made: Tensor = _Product.apply(rows, self)  # type: ignore[no-untyped-call]
        else:
            made = self.rows(rows)
        return made.view(*x.shape[:-1], -1).to(x.dtype)

    def rows(self, given: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        """The outputs for rows of inputs, without a gradient."""
        made = self._compiled(given) if way() == "compiled" else self._of_digits(given)
        if self.beside is not None:
            made.addmm_(given.index_select(1, self.beside.neurons), self.beside.rows)
            if self.beside.factors:
                keys, values = self.beside.factors
                made.addmm_(given @ keys.T, values)
        return made

    def told(self) -> Any:
        """Where everything is, as ``tables`` says, for what is compiled."""
        row = np.zeros(tables.LINEAR, np.int64)
        row[tables.WEIGHTS], row[tables.SCALE] = self.numbers.data_ptr(), self.scale.data_ptr()
        row[tables.BIAS] = 0 if self.bias is None else self.bias.data_ptr()
        row[tables.LIFT] = 0 if self.lift is None else self.lift.data_ptr()
        row[tables.OUTPUTS], row[tables.INPUTS] = self.numbers.shape
        if self.beside is not None:
            row[tables.COUNT], row[tables.NEURONS] = len(self.beside.neurons), self.beside.neurons.data_ptr()
            row[tables.ROWS] = self.beside.rows.data_ptr()
            if self.beside.factors:
                keys, values = self.beside.factors
                row[tables.RANK] = len(keys)
                row[tables.OF_KEYS], row[tables.OF_VALUES] = keys.data_ptr(), values.data_ptr()
        return row

    def _compiled(self, given: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        outputs, inputs = self.numbers.shape
        made = torch.empty(len(given), outputs)
        return self._run(kernel.product, given, made, kernel.WIDTH * kernel.filled(inputs) * 2 + inputs * 4)

    def back(self, grads: Float[Tensor, "n o"], beside: Beside | None = None) -> Float[Tensor, "n i"]:
        """What the inputs have of a gradient at the outputs; ``beside`` is what stood beside the numbers.

        Rounding counts as the identity.
        """
        inputs = self.numbers.shape[1]
        made = torch.zeros(len(grads), inputs)
        if way() == "compiled":
            self._run(kernel.gradient, grads, made, kernel.ROOM)
        else:
            weighed = grads * self.scale
            # In parts that stay in a core's cache: all of a layer in fp32 would go through memory twice.
            some = torch.empty(max(1, _IN_CACHE // inputs), inputs)
            for start in range(0, len(self.numbers), len(some)):
                numbers = self.numbers[start : start + len(some)]
                part = weighed[:, start : start + len(some)]
                made.addmm_(part, some[: len(numbers)].copy_(numbers))
        if self.lift is not None:
            made *= self.lift
        if beside is not None:
            made[:, beside.neurons] += grads @ beside.rows.T
            if beside.factors:
                keys, values = beside.factors
                made.addmm_(grads @ values.T, keys)
        return made

    def _run(self, entry: Any, given: Tensor, made: Tensor, each: int) -> Tensor:
        """Have a compiled function write what it makes of rows; each thread writes to so many bytes too."""
        threads, given = team(), given.contiguous()
        assert threads is not None
        count, length = len(given), kernel.filled(given.shape[1])
        rounded = torch.empty(count, length, dtype=torch.int16)
        factors = torch.empty(count, kernel.parts(given.shape[1]))
        own = torch.empty(threads.size, each, dtype=torch.uint8)
        table = np.empty(tables.ALONE + tables.LINEAR, np.int64)
        threads.describe(table)
        table[tables.COUNTED], table[tables.GIVEN], table[tables.TO] = (
            count,
            given.data_ptr(),
            made.data_ptr(),
        )
        table[tables.ROUNDED], table[tables.FACTORS] = rounded.data_ptr(), factors.data_ptr()
        table[tables.EACH] = own.data_ptr()
        table[tables.ALONE :] = self.told()
        threads.run(entry.address, table.ctypes.data)
        return made

    def _of_digits(self, given: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        rows = given if self.lift is None else given * self.lift
        # What is not finite has no digits; its reach makes the whole row NaN in the end.
        reach = torch.linalg.vector_norm(rows, torch.inf, -1, True).clamp_(min=_LEAST)
        # One product for both digits: the weights are read once.
        digits = rows.new_empty(2, *rows.shape)
        coarse, fine = digits.unbind()
        torch.mul(rows, _ALL / reach, out=fine).nan_to_num_(0.0).round_()
        torch.div(fine, _FINER, out=coarse).round_()
        fine.sub_(coarse, alpha=_FINER)
        products = self._product(digits.view(-1, rows.shape[1])).view(2, len(rows), -1)
        made = torch.add(products[0], products[1], alpha=1 / _FINER)
        made.mul_(reach.div_(_DIGITS))
        return made if self.bias is None else made.add_(self.bias)

    def _product(self, digits: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        if self._packed is not None:
            return _packed(digits, self._packed)
        if way() == "plain":
            whole = torch._int_mm(digits.to(torch.int8), self.numbers.T)
        else:
            whole = _in_parts(digits, self.numbers)
        return whole.float().mul_(self.scale)

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
        if self.lift is not None:
            weight *= self.lift
        if beside is not None:
            weight[:, beside.neurons] += beside.rows.T
            if beside.factors:
                keys, values = beside.factors
                # In fp64 the sum is exact (patch.py), whatever its order.
                weight += (values.T.double() @ keys.double()).float()
        return weight

    def extra_repr(self) -> str:
        """Shape, as ``nn.Linear`` shows it."""
        outputs, inputs = self.numbers.shape
        return f"in_features={inputs}, out_features={outputs}, bias={self.bias is not None}"


class Together(nn.Module):
    """Several layers that read the same tensor as one product; each of them is a ``Share``."""

    def __init__(self, whole: Int8Linear, count: int) -> None:
        super().__init__()
        self.whole = whole
        self.count = count
        self._read: Tensor | None = None
        self._made: Tensor | None = None
        self._left = 0

    def made(self, x: Tensor) -> Tensor:
        """What all of them make of ``x``; kept until each of them has asked for it."""
        made = self._made
        if made is None or self._read is not x:
            made = self.whole(x)
            self._read, self._made, self._left = x, made, self.count
        self._left -= 1
        if not self._left:
            self._read = self._made = None
        return made


class Share(nn.Module):
    """The outputs ``start`` to ``stop`` of what several layers make together."""

    def __init__(self, together: Together, start: int, stop: int, first: bool) -> None:
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
        shared: Together = self.__dict__["_shared"]
        return shared.whole.weight[self.start : self.stop]


class _Product(torch.autograd.Function):
    """``x Wᵀ``, for gradients with respect to ``x`` alone; rounding counts as the identity."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, linear: Int8Linear) -> Tensor:
        ctx.linear, ctx.beside = linear, linear.beside
        return linear.rows(rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (rows,) = grads
        return ctx.linear.back(rows, ctx.beside), None


def _packed(digits: Float[Tensor, "n i"], packed: Any) -> Float[Tensor, "n o"]:
    """Digits times packed numbers, exactly, and that times the scale; fbgemm adds 64 to make them 7 bits."""
    product: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
        digits, 1.0, _DIGIT + 1, packed
    )
    return product


def _in_parts(rows: Float[Tensor, "n i"], numbers: Int8[Tensor, "o i"]) -> Int32[Tensor, "n o"]:
    """Whole numbers times others, exactly: of so many terms every sum is one that fp32 has."""
    total = torch.zeros(len(rows), len(numbers), dtype=torch.int32)
    for left, right in zip(torch.split(rows, _PART, 1), torch.split(numbers, _PART, 1), strict=True):
        total += (left @ right.float().T).to(torch.int32)
    return total


def _pack(numbers: Int8[Tensor, "o i"], scale: Float[Tensor, " o"]) -> Any:
    """Numbers and scale as fbgemm reads them.

    Quantized tensors are deprecated, with a warning; where they are gone, other ways give the same bits.
    """
    zeros = torch.zeros(len(numbers), dtype=torch.int64)
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"  # what is called x86 packs for oneDNN on some processors
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            weight = torch._make_per_channel_quantized_tensor(numbers, scale.double(), zeros, 0)
        return torch.ops.quantized.linear_prepack(weight, None)
    finally:
        torch.backends.quantized.engine = before


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


@cache
def way() -> Literal["compiled", "packed", "plain", "parts"]:
    """The fastest exact product here: by ``kernel``, packed by fbgemm, plain (oneDNN), in parts, slowly."""
    if team():
        return "compiled"
    left = torch.full((2, 256), float(_DIGIT))
    left[1, ::3] = 5
    right = torch.full((64, 256), _LARGEST, dtype=torch.int8)
    right[::2] = -_LARGEST
    wanted = left.long() @ right.T.long()
    with contextlib.suppress(AttributeError, RuntimeError):
        if torch.equal(_packed(left, _pack(right, torch.ones(64))).long(), wanted):
            return "packed"
    narrow = left.to(torch.int8)
    return "plain" if torch.equal(torch._int_mm(narrow, right.T).long(), wanted) else "parts"
