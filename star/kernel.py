"""Int8 products, and the pass over a few tokens, compiled for the processor at hand; no compiler is needed.

``product`` and ``read`` are what ``product.py`` and ``few.py`` run on the threads of torch (``team.py``); the
rest are parts of them: no Python, addresses in place of arrays.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from star import tables

__all__ = [
    "LANES",
    "LARGEST",
    "MOST",
    "ROOM",
    "STEEPEST",
    "WIDTH",
    "filled",
    "gradient",
    "parts",
    "product",
    "read",
]

#: The largest whole number of an activation: two digits of -63 to 63, the second 1/126 of the first.
LARGEST = 63 * 126
#: The largest whole number of a gradient.
STEEPEST = 2**15 - 1
#: Numbers that are multiplied at once; every row is filled up to a multiple of it.
LANES = 16
_FEATURES = binding.get_host_cpu_features()
_WIDE_REGISTERS = bool(_FEATURES.get("avx512f", False))
#: x86's own instruction, asked for by name: what LLVM makes of widened bytes otherwise is twice as slow.
_PAIRED = bool(_FEATURES.get("avx2", False))
#: So few rows of activations are multiplied with weights of 8 bits as they come.
_NO_PANEL = 4 if _PAIRED else 0
#: Rows of activations and rows of weights whose sums are kept in registers meanwhile: 32 of these, or 16.
HEIGHT, WIDTH = (5, 4) if _WIDE_REGISTERS else (2, 4)
#: A gradient goes back from so many outputs at once, whose sums 32 bits have room for, to so many inputs: a
#: cache's line of weights.
_DEEP, _BROAD = 256, 64
#: Bytes that each thread writes to meanwhile.
ROOM = _DEEP * _BROAD * 2 + _DEEP * 4
#: Bytes of activations that stay in a second-level cache beside the weights that pass by.
_NEAR = 1 << 18
_TINY = np.float32(np.finfo(np.float32).tiny * STEEPEST)
_INFINITE = np.int32(0x7F800000)
_MAGNITUDE = np.int32(0x7FFFFFFF)
#: Added to a number of up to 22 bits and taken away again, it rounds, halves to even.
_ROUND = np.float32(3 << 22)

#: Tokens at once; for more, torch's attention and a product of its own for each layer are as fast.
MOST = 8

_i8, _i16, _i32, _i64, _f32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_FEW = ir.VectorType(_i16, LANES)
_PAIRS = ir.VectorType(_i32, LANES // 2)

#: Sums may be made in any order, and products added at once; nothing is assumed of what is not finite.
compiled = njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
_exact = njit(nogil=True, error_model="numpy")


def entry(function: Callable[[int], None]) -> Any:
    """A function that is called with the address of a table; compiled once and kept, where there is room.

    numba keeps by the date of one file: all that is compiled with it must stand in this one.
    """
    compile_ = partial(cfunc, types.void(types.intp), nopython=True, error_model="numpy")
    try:
        return compile_(cache=True)(function)
    except (OSError, RuntimeError):  # no folder that may be written to; no room
        return compile_()(function)


def _at(builder: ir.IRBuilder, address: ir.Value, kind: ir.Type) -> ir.Value:
    return builder.inttoptr(address, kind.as_pointer())


def _load(builder: ir.IRBuilder, address: ir.Value, kind: ir.Type) -> ir.Value:
    loaded = builder.load(_at(builder, address, kind))
    loaded.align = 1
    return loaded


def _word(number: int) -> ir.Constant:
    return ir.Constant(_i64, number)


@intrinsic
def _pointer(typing: Any, address: Any) -> Any:
    """An address as a pointer."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> ir.Value:
        return builder.inttoptr(given[0], cgutils.voidptr_t)

    return types.voidptr(types.intp), code


@intrinsic
def float_of(typing: Any, bits: Any) -> Any:
    """The number that 32 bits spell."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> ir.Value:
        return builder.bitcast(given[0], _f32)

    return types.float32(types.int32), code


@intrinsic
def call(typing: Any, address: Any) -> Any:
    """Call a C function without arguments; what one without a result returns means nothing."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> ir.Value:
        return builder.call(_at(builder, given[0], ir.FunctionType(_i32, [])), [])

    return types.int32(types.intp), code


@intrinsic
def wide(typing: Any, source: Any, target: Any, count: Any) -> Any:
    """``count`` numbers of 8 bits as such of 16; ``count`` is a multiple of ``LANES``."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> ir.Value:
        source, target, count = given
        with cgutils.for_range_slice(builder, _word(0), count, _word(LANES)) as (i, _):
            numbers = _load(builder, builder.add(source, i), ir.VectorType(_i8, LANES))
            there = _at(builder, builder.add(target, builder.shl(i, _word(1))), _FEW)
            builder.store(builder.sext(numbers, _FEW), there).align = 1
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), code


@intrinsic
def _zipped(typing: Any, upper: Any, lower: Any, target: Any) -> Any:
    """``LANES`` numbers of 8 bits of two rows as pairs of 16 bits, one after another."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> ir.Value:
        upper, lower, target = given
        rows = [
            builder.sext(_load(builder, each, ir.VectorType(_i8, LANES)), _FEW) for each in (upper, lower)
        ]
        for part in range(2):
            order = [each for i in range(LANES // 2) for each in (i, i + LANES)]
            at = ir.Constant(
                ir.VectorType(_i32, LANES), [ir.Constant(_i32, each + part * LANES // 2) for each in order]
            )
            there = _at(builder, builder.add(target, _word(part * LANES * 2)), _FEW)
            builder.store(builder.shuffle_vector(*rows, at), there).align = 1
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), code


@intrinsic
def _ahead(typing: Any, address: Any) -> Any:
    """Have what is at an address come near the processor, if it can be read."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> ir.Value:
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, _i32, _i32, _i32])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", [cgutils.voidptr_t], kind)
        to_read, second_level, data = (ir.Constant(_i32, each) for each in (0, 2, 1))
        builder.call(fetch, [builder.inttoptr(given[0], cgutils.voidptr_t), to_read, second_level, data])
        return context.get_dummy_value()

    return types.void(types.intp), code


def _everywhere(builder: ir.IRBuilder, value: ir.Value, kind: ir.Type) -> ir.Value:
    """A vector of one value."""
    nothing = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(nothing, value, _word(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_i32, LANES // 2), None))


def _added(
    builder: ir.IRBuilder,
    cells: Sequence[Any],
    stop: ir.Value,
    step: int,
    terms: Callable[[ir.Value], Mapping[Any, ir.Value]],
) -> dict[Any, ir.Value]:
    """The sum for each cell of its ``terms(i)``, i from 0 in steps up to ``stop``; at least of the first."""
    start = builder.block
    loop, done = builder.append_basic_block("loop"), builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    i = builder.phi(_i64)
    sums = {cell: builder.phi(_PAIRS) for cell in cells}
    more = terms(i)
    new = {cell: builder.add(sums[cell], more[cell]) for cell in cells}
    following = builder.add(i, _word(step))
    builder.cbranch(builder.icmp_signed("<", following, stop), loop, done)
    i.add_incoming(_word(0), start)
    i.add_incoming(following, loop)
    for cell in cells:
        sums[cell].add_incoming(ir.Constant(_PAIRS, None), start)
        sums[cell].add_incoming(new[cell], loop)
    builder.position_at_end(done)
    return new


def _back(height: int) -> Any:
    """Code for ``height`` rows of gradients by pairs of rows of weights."""

    @intrinsic
    def back(
        typing: Any, left: Any, length: Any, pairs: Any, count: Any, factors: Any, out: Any, stride: Any
    ) -> Any:
        """Add their products, each row's times its factor, to ``LANES`` floats of each row at ``out``.

        ``left`` are rows of numbers of 16 bits, ``length`` of them apart; ``pairs`` are ``count`` times what
        ``_zipped`` makes.
        """

        def code(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> ir.Value:
            left, length, pairs, count, factors, out, stride = given

            def terms(i: ir.Value) -> dict[Any, ir.Value]:
                at = builder.add(pairs, builder.shl(i, _word(6)))
                weights = [
                    _load(builder, builder.add(at, _word(part * LANES * 2)), _FEW) for part in range(2)
                ]
                made = {}
                for m in range(height):
                    place = builder.add(builder.mul(length, _word(2 * m)), builder.shl(i, _word(2)))
                    two = _load(builder, builder.add(left, place), _i32)
                    row = builder.bitcast(_everywhere(builder, two, _PAIRS), _FEW)
                    for part in range(2):
                        made[m, part] = _pairs(builder, row, weights[part])
                return made

            cells = [(m, part) for m in range(height) for part in range(2)]
            sums = _added(builder, cells, count, 1, terms)
            kind = ir.VectorType(_f32, LANES // 2)
            for m, part in cells:
                factor = _load(builder, builder.add(factors, _word(4 * m)), _f32)
                number = builder.add(builder.mul(stride, _word(m)), _word(part * LANES // 2))
                there = builder.add(out, builder.shl(number, _word(2)))
                by = _everywhere(builder, factor, kind)
                made = builder.fmul(builder.sitofp(sums[m, part], kind), by)
                made = builder.fadd(_load(builder, there, kind), made)
                builder.store(made, _at(builder, there, kind)).align = 1
            return context.get_dummy_value()

        return types.void(*[types.intp] * 7), code

    return back


def _tile(height: int, width: int, chains: int = 1, bits: int = 16) -> Any:
    """Code for ``height`` rows of activations by ``width`` of weights, which have so many ``bits``.

    Each output has as many sums as there are ``chains``: an addition takes longer than the next may wait.
    """

    @intrinsic
    def tile(typing: Any, left: Any, right: Any, length: Any, out: Any, stride: Any) -> Any:
        """Their products, as floats at ``out``, whose rows are ``stride`` numbers apart.

        Both are rows of ``length`` numbers, a multiple of ``chains`` times ``LANES``. Every lane's sum stays
        within 32 bits for rows of up to 16 thousand; what lanes add up to has 64.
        """

        def code(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> ir.Value:
            left, right, length, out, stride = given

            def few(base: ir.Value, i: ir.Value, number: int, part: int, of: int) -> ir.Value:
                # Whole rows further, and so far in this one.
                place = builder.add(builder.mul(length, _word(number)), builder.add(i, _word(part * LANES)))
                place = builder.add(base, builder.mul(place, _word(of // 8)))
                return _load(builder, place, ir.VectorType(ir.IntType(of), LANES))

            def terms(i: ir.Value) -> dict[Any, ir.Value]:
                made = {}
                for part in range(chains):
                    weights = [few(right, i, n, part, bits) for n in range(width)]
                    if bits < 16:
                        weights = [builder.sext(each, _FEW) for each in weights]
                    for m in range(height):
                        row = few(left, i, m, part, 16)
                        for n in range(width):
                            made[part, m, n] = _pairs(builder, row, weights[n])
                return made

            cells = [(part, m, n) for part in range(chains) for m in range(height) for n in range(width)]
            sums = _added(builder, cells, length, LANES * chains, terms)
            for m in range(height):
                for n in range(width):
                    number = builder.add(builder.mul(stride, _word(m)), _word(n))
                    there = _at(builder, builder.add(out, builder.shl(number, _word(2))), _f32)
                    total = sums[0, m, n]
                    for part in range(1, chains):
                        total = builder.add(total, sums[part, m, n])
                    builder.store(builder.sitofp(_sum(builder, total), _f32), there)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 5), code

    return tile


def _pairs(builder: ir.IRBuilder, left: ir.Value, right: ir.Value) -> ir.Value:
    """Products of 16 bits each, added by twos: one or two instructions where a processor has them."""
    if _PAIRED:
        name = "llvm.x86.avx2.pmadd.wd"
        kind = ir.FunctionType(_PAIRS, [_FEW, _FEW])
        made = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        return builder.call(made, [left, right])
    wide = ir.VectorType(_i32, LANES)
    product = builder.mul(builder.sext(left, wide), builder.sext(right, wide))
    even, odd = (ir.Constant(_PAIRS, [ir.Constant(_i32, j) for j in range(k, LANES, 2)]) for k in (0, 1))
    nothing = ir.Constant(wide, ir.Undefined)
    return builder.add(
        builder.shuffle_vector(product, nothing, even), builder.shuffle_vector(product, nothing, odd)
    )


def _sum(builder: ir.IRBuilder, lanes: ir.Value) -> ir.Value:
    wide = ir.VectorType(_i64, LANES // 2)
    name = f"llvm.vector.reduce.add.v{LANES // 2}i64"
    reduce = builder.module.globals.get(name) or ir.Function(
        builder.module, ir.FunctionType(_i64, [wide]), name
    )
    return builder.call(reduce, [builder.sext(lanes, wide)])


_tile_1, _tile_2, _tile_3, _tile_4, _tile_5 = (_tile(height, WIDTH) for height in range(1, 6))
_back_1, _back_2, _back_3, _back_4, _back_5 = (_back(height) for height in range(1, 6))
_line_1 = _tile(1, 1, chains=4, bits=8)
_line_2, _line_3, _line_4 = (_tile(height, 1, chains=2, bits=8) for height in range(2, 5))


def _there(kind: Any) -> Any:
    """A function that gives so many numbers of a kind at an address."""

    @_exact
    def array(address: int, count: int) -> Any:
        return carray(_pointer(address), (count,), kind)

    return array


floats, words = _there(np.float32), _there(np.int64)
_bits, _counts, _bytes = _there(np.int32), _there(np.int16), _there(np.int8)


@_exact
def whole(count: int, parts: int, number: int) -> int:
    """Where the ``number``th of so many parts of ``count`` outputs begins, whole tiles each."""
    tiles = (count + WIDTH - 1) // WIDTH
    return min(count, tiles * number // parts * WIDTH)


@_exact
def round_row(row: int, lift: int, size: int, padded: int, lifted: int, target: int, most: int) -> float:
    """A row of ``size`` floats, lifted, as numbers of up to ``most``; what one of these stands for.

    NaN, and numbers of zero, when anything in it is not finite. ``lifted`` has room for ``size`` floats.
    """
    given, into = floats(row, size), floats(lifted, size)
    if lift:
        by = floats(lift, size)
        for i in range(size):
            into[i] = given[i] * by[i]
    else:
        for i in range(size):
            into[i] = given[i]
    bits = _bits(lifted, size)
    largest = np.int32(0)
    for i in range(size):
        largest = max(largest, bits[i] & _MAGNITUDE)  # as whole numbers, NaN is the largest of all
    numbers = _counts(target, padded)
    for i in range(size, padded):
        numbers[i] = 0
    if largest >= _INFINITE:
        for i in range(size):
            numbers[i] = 0
        return np.float32(np.nan)  # type: ignore[return-value]
    reach = max(float_of(largest), _TINY)
    factor = np.float32(most) / reach
    for i in range(size):
        numbers[i] = np.int16(np.int32((into[i] * factor + _ROUND) - _ROUND))
    return reach / np.float32(most)


@_exact
def products(
    left: int,
    rows: int,
    length: int,
    weights: int,
    size: int,
    first: int,
    last: int,
    panel: int,
    out: int,
    stride: int,
) -> None:
    """Products of ``rows`` rows of 16 bits with the rows ``first`` to ``last`` of weights, as floats.

    ``panel`` has room for ``WIDTH`` rows of ``length`` numbers of 16 bits, the multiple of ``LANES`` that a
    row of ``size`` weights is filled up to. ``out`` is where row 0 and output 0 go, rows ``stride`` apart.
    """
    full = size // LANES * LANES
    for output in range(first, last, WIDTH):
        here = min(WIDTH, last - output)
        if rows <= _NO_PANEL and size % (4 * LANES) == 0:
            for n in range(output, output + here):
                at, there = weights + n * size, out + n * 4
                if rows == 1:
                    _line_1(left, at, length, there, stride)
                elif rows == 2:
                    _line_2(left, at, length, there, stride)
                elif rows == 3:
                    _line_3(left, at, length, there, stride)
                else:
                    _line_4(left, at, length, there, stride)
            continue
        for n in range(here):
            source, target = weights + (output + n) * size, panel + n * length * 2
            wide(source, target, full)
            if full < size:
                rest = _bytes(source + full, size - full)
                padding = _counts(target + full * 2, length - full)
                for i in range(length - full):
                    padding[i] = rest[i] if i < size - full else 0
        if here < WIDTH:
            _rest(left, rows, length, panel, here, out + output * 4, stride)
            continue
        row = 0
        while row < rows:
            at, there = left + row * length * 2, out + (row * stride + output) * 4
            left_over = rows - row
            if HEIGHT >= 5 and left_over >= 5:
                _tile_5(at, panel, length, there, stride)
                row += 5
            elif HEIGHT >= 4 and left_over >= 4:
                _tile_4(at, panel, length, there, stride)
                row += 4
            elif HEIGHT >= 3 and left_over >= 3:
                _tile_3(at, panel, length, there, stride)
                row += 3
            elif left_over >= 2:
                _tile_2(at, panel, length, there, stride)
                row += 2
            else:
                _tile_1(at, panel, length, there, stride)
                row += 1


@_exact
def _rest(left: int, rows: int, length: int, panel: int, here: int, out: int, stride: int) -> None:
    """The same, for fewer outputs than a tile has."""
    for m in range(rows):
        some = _counts(left + m * length * 2, length)
        made = floats(out + m * stride * 4, here)
        for n in range(here):
            others = _counts(panel + n * length * 2, length)
            total = np.int64(0)
            for i in range(length):
                total += np.int64(some[i]) * np.int64(others[i])
            made[n] = np.float32(total)


@compiled
def exponential(x: float) -> float:
    """e^x of a float, within 2e-7 of it: 2^n times a polynomial on half a step around it (Taylor)."""
    bounded = min(max(x * np.float32(1.4426950408889634), np.float32(-126.0)), np.float32(126.0))
    n = np.int32(bounded + np.float32(0.5)) if bounded >= 0 else np.int32(bounded - np.float32(0.5))
    r = (bounded - np.float32(n)) * np.float32(0.6931471805599453)
    p = np.float32(1 / 5040)
    p = p * r + np.float32(1 / 720)
    p = p * r + np.float32(1 / 120)
    p = p * r + np.float32(1 / 24)
    p = p * r + np.float32(1 / 6)
    p = p * r + np.float32(1 / 2)
    p = p * r + np.float32(1)
    p = p * r + np.float32(1)
    return p * float_of(np.int32((n + np.int32(127)) << np.int32(23)))


@_exact
def finish(out: int, scale: int, bias: int, factor: float, first: int, last: int) -> None:
    """Scale the outputs ``first`` to ``last`` of a row, and add a bias if there is one."""
    made, by = floats(out, last), floats(scale, last)
    if bias:
        more = floats(bias, last)
        for i in range(first, last):
            made[i] = made[i] * (by[i] * factor) + more[i]
    else:
        for i in range(first, last):
            made[i] *= by[i] * factor


@compiled
def filled(size: int) -> int:
    """A row's length in numbers of 16 bits: a multiple of ``LANES``."""
    return (size + LANES - 1) // LANES * LANES


@_exact
def parts(outputs: int) -> int:
    """How many factors a row of rounded gradients has."""
    return (outputs - 1) // _DEEP + 1


@entry
def product(address: int) -> None:
    """A product of rows of floats with weights in int8, of which each thread makes a part.

    ``address`` is that of a table (``tables``) with one of its linear layer behind it.
    """
    told = words(address, tables.ALONE + tables.LINEAR)
    linear = told[tables.ALONE :]
    threads, rows = np.int64(call(told[tables.THREADS])), told[tables.COUNTED]
    size, outputs, out = linear[tables.INPUTS], linear[tables.OUTPUTS], told[tables.TO]
    length = filled(size)
    me = np.int64(call(told[tables.NUMBER]))
    numbers, factors = told[tables.ROUNDED], floats(told[tables.FACTORS], rows)
    mine = told[tables.EACH] + me * (WIDTH * length * 2 + size * 4)
    lifted = mine + WIDTH * length * 2
    for row in range(rows * me // threads, rows * (me + 1) // threads):
        given, target = told[tables.GIVEN] + row * size * 4, numbers + row * length * 2
        factors[row] = round_row(given, linear[tables.LIFT], size, length, lifted, target, LARGEST)
    call(told[tables.BARRIER])
    first, last = whole(outputs, threads, me), whole(outputs, threads, me + 1)
    # So many rows at once as stay near the processor while the weights pass by.
    block = max(HEIGHT, _NEAR // (2 * length) // HEIGHT * HEIGHT)
    for start in range(0, rows, block):
        count = min(block, rows - start)
        part, there = numbers + start * length * 2, out + start * outputs * 4
        products(part, count, length, linear[tables.WEIGHTS], size, first, last, mine, there, outputs)
        for row in range(start, start + count):
            to = out + row * outputs * 4
            finish(to, linear[tables.SCALE], linear[tables.BIAS], factors[row], first, last)


@_exact
def backward(
    left: int,
    rows: int,
    length: int,
    factors: int,
    weights: int,
    size: int,
    outputs: int,
    first: int,
    last: int,
    pairs: int,
    out: int,
) -> None:
    """Add to the inputs ``first`` to ``last`` of each row what its outputs send back through the weights.

    ``left`` are gradients of ``outputs``, rounded. Each ``_DEEP`` of them have a factor, all rows' first ones
    before all rows' second ones. ``pairs`` has room for what is made ready of weights.
    """
    for start in range(0, outputs, _DEEP):
        deep = min(_DEEP, outputs - start)
        half = (deep + 1) // 2
        for column in range(first, last, _BROAD):
            tiles = min(_BROAD, last - column) // LANES
            for i in range(half):
                upper = weights + (start + 2 * i) * size + column
                # What is behind the last row is multiplied with zeros.
                lower = upper + size if 2 * i + 1 < deep else upper
                _ahead(upper + _BROAD)
                _ahead(lower + _BROAD)
                for tile in range(tiles):
                    more, there = tile * LANES, pairs + (tile * half + i) * LANES * 4
                    _zipped(upper + more, lower + more, there)
            for tile in range(tiles):
                panel, row = pairs + tile * half * LANES * 4, 0
                while row < rows:
                    at, by = left + (row * length + start) * 2, factors + (start // _DEEP * rows + row) * 4
                    there = out + (row * size + column + tile * LANES) * 4
                    left_over = rows - row
                    if left_over >= 5:
                        _back_5(at, length, panel, half, by, there, size)
                        row += 5
                    elif left_over == 4:
                        _back_4(at, length, panel, half, by, there, size)
                        row += 4
                    elif left_over == 3:
                        _back_3(at, length, panel, half, by, there, size)
                        row += 3
                    elif left_over == 2:
                        _back_2(at, length, panel, half, by, there, size)
                        row += 2
                    else:
                        _back_1(at, length, panel, half, by, there, size)
                        row += 1
    rest = first + (last - first) // LANES * LANES
    if rest < last:
        for row in range(rows):
            given, made = _counts(left + row * length * 2, length), floats(out + row * size * 4, size)
            for start in range(0, outputs, _DEEP):
                factor = floats(factors + (start // _DEEP * rows + row) * 4, 1)[0]
                for column in range(rest, last):
                    total = np.int64(0)
                    for i in range(start, min(start + _DEEP, outputs)):
                        total += np.int64(given[i]) * np.int64(_bytes(weights + i * size, size)[column])
                    made[column] += factor * np.float32(total)


@entry
def gradient(address: int) -> None:
    """What the inputs of a product have of the gradient at its outputs, of which each thread makes a part.

    ``address`` is that of a table as ``product`` is told it; ``COUNTED`` are rows of gradients at ``GIVEN``,
    and to what is at ``TO`` it is added; of the layer neither bias nor lift is seen.
    """
    told = words(address, tables.ALONE + tables.LINEAR)
    linear = told[tables.ALONE :]
    threads, rows = np.int64(call(told[tables.THREADS])), told[tables.COUNTED]
    size, outputs, out = linear[tables.INPUTS], linear[tables.OUTPUTS], told[tables.TO]
    length = filled(outputs)
    me = np.int64(call(told[tables.NUMBER]))
    numbers, factors = told[tables.ROUNDED], floats(told[tables.FACTORS], rows * parts(outputs))
    mine = told[tables.EACH] + me * ROOM
    lifted = mine + _DEEP * _BROAD * 2
    for row in range(rows * me // threads, rows * (me + 1) // threads):
        for start in range(0, outputs, _DEEP):
            deep = min(_DEEP, outputs - start)
            given, target = told[tables.GIVEN] + row * outputs * 4, numbers + row * length * 2
            factors[start // _DEEP * rows + row] = round_row(
                given + start * 4, linear[tables.SCALE] + start * 4, deep, filled(deep), lifted,
                target + start * 2, STEEPEST,
            )  # fmt: skip
    call(told[tables.BARRIER])
    blocks = (size + _BROAD - 1) // _BROAD
    first, last = blocks * me // threads * _BROAD, min(size, blocks * (me + 1) // threads * _BROAD)
    backward(
        numbers, rows, length, told[tables.FACTORS], linear[tables.WEIGHTS], size, outputs, first, last,
        mine, out,
    )  # fmt: skip


@compiled
def _normed(hidden: int, gain: int, size: int, epsilon: float, out: int) -> None:
    given, by, made = floats(hidden, size), floats(gain, size), floats(out, size)
    total = np.float32(0)
    for i in range(size):
        total += given[i] * given[i]
    share = np.float32(1) / np.sqrt(total / np.float32(size) + epsilon)
    for i in range(size):
        made[i] = given[i] * share * by[i]


@compiled
def _linear(linear: Any, given: int, rows: int, mine: int, first: int, last: int, out: int) -> None:
    """The outputs ``first`` to ``last`` of a linear layer for some rows; the rounding is done by each thread.

    ``mine`` is where a thread has room for rounded rows, a panel and a lifted row.
    """
    size, outputs = linear[tables.INPUTS], linear[tables.OUTPUTS]
    length = filled(size)
    panel = mine + rows * length * 2
    lifted = panel + WIDTH * length * 2
    factors = np.empty(MOST, np.float32)
    for m in range(rows):
        factors[m] = round_row(
            given + m * size * 4, linear[tables.LIFT], size, length, lifted, mine + m * length * 2, LARGEST
        )
    products(mine, rows, length, linear[tables.WEIGHTS], size, first, last, panel, out, outputs)
    count = linear[tables.COUNT]
    neurons = words(linear[tables.NEURONS], count)
    for m in range(rows):
        at = out + m * outputs * 4
        finish(at, linear[tables.SCALE], linear[tables.BIAS], factors[m], first, last)
        made, row = floats(at, last), floats(given + m * size * 4, size)
        for k in range(count):
            by = row[neurons[k]]
            beside = floats(linear[tables.ROWS] + k * outputs * 4, last)
            for i in range(first, last):
                made[i] += by * beside[i]
        for k in range(linear[tables.RANK]):
            key = floats(linear[tables.OF_KEYS] + k * size * 4, size)
            answer = np.float32(0)  # by each thread: waiting for a part of it would take longer
            for i in range(size):
                answer += key[i] * row[i]
            value = floats(linear[tables.OF_VALUES] + k * outputs * 4, last)
            for i in range(first, last):
                made[i] += answer * value[i]


@compiled
def _turn(given: int, cosines: int, sines: int, size: int, out: int) -> None:
    """Rotate a head; ``out`` may be where it stands."""
    x, c, s, made = floats(given, size), floats(cosines, size), floats(sines, size), floats(out, size)
    half = size // 2
    for i in range(half):
        a, b = x[i], x[i + half]
        made[i] = a * c[i] + b * s[i]
        made[i + half] = b * c[i + half] + a * s[i + half]


@compiled
def _attend(query: int, keys: int, values: int, size: int, length: int, scores: int, out: int) -> None:
    """What one head makes of ``length`` values."""
    q, each = floats(query, size), floats(scores, length)
    k, v, made = floats(keys, length * size), floats(values, length * size), floats(out, size)
    by = np.float32(1) / np.sqrt(np.float32(size))
    largest = np.float32(-np.inf)
    for j in range(length):
        total = np.float32(0)
        for i in range(size):
            total += q[i] * k[j * size + i]
        each[j] = total * by
        largest = max(largest, each[j])
    total = np.float32(0)
    for j in range(length):
        each[j] = exponential(each[j] - largest)
        total += each[j]
    for i in range(size):
        made[i] = np.float32(0)
    for j in range(length):
        weight = each[j] / total
        for i in range(size):
            made[i] += weight * v[j * size + i]


@compiled
def _add(made: int, hidden: int, rows: int, broad: int, first: int, last: int) -> None:
    for m in range(rows):
        more, there = floats(made + m * broad * 4, broad), floats(hidden + m * broad * 4, broad)
        for i in range(first, last):
            there[i] += more[i]


@entry
def read(address: int) -> None:
    told = words(address, tables.TOLD)
    threads = np.int64(call(told[tables.THREADS]))
    me = np.int64(call(told[tables.NUMBER]))
    broad, heads, shared, size = (
        told[tables.BROAD],
        told[tables.HEADS],
        told[tables.SHARED],
        told[tables.SIZE],
    )
    rows, start, hidden = told[tables.TOKENS], told[tables.START], told[tables.HIDDEN]
    epsilon = float_of(np.int32(told[tables.EPSILON]))
    normed = told[tables.OWN] + me * told[tables.OWNED]
    mine = normed + rows * broad * 4
    scores = told[tables.SCORES] + me * told[tables.ROOM] * 4
    taken = (heads + 2 * shared) * size
    from_, to = whole(broad, threads, me), whole(broad, threads, me + 1)
    for number in range(told[tables.FIRST], told[tables.DEPTH]):
        layer = words(told[tables.LAYERS] + number * tables.LAYER * 8, tables.LAYER)
        if number == told[tables.MARK] and me == 0:
            kept = floats(told[tables.KEPT] + start * broad * 4, rows * broad)
            kept[:] = floats(hidden, rows * broad)
        for m in range(rows):
            _normed(hidden + m * broad * 4, layer[tables.BEFORE], broad, epsilon, normed + m * broad * 4)
        one, other = whole(taken, threads, me), whole(taken, threads, me + 1)
        _linear(
            layer[tables.QKV : tables.QKV + tables.LINEAR], normed, rows, mine, one, other, told[tables.READ]
        )
        call(told[tables.BARRIER])
        keys = told[tables.KEYS] + number * told[tables.OF_LAYER]
        values = told[tables.VALUES] + number * told[tables.OF_LAYER]
        for item in range(
            rows * (heads + shared) * me // threads, rows * (heads + shared) * (me + 1) // threads
        ):
            m, head = item // (heads + shared), item % (heads + shared)
            there = told[tables.READ] + (m * taken + head * size) * 4
            turned = there
            if head >= heads:
                turned = keys + (head - heads) * told[tables.OF_HEAD] + (start + m) * size * 4
                value = floats(values + (head - heads) * told[tables.OF_HEAD] + (start + m) * size * 4, size)
                value[:] = floats(there + shared * size * 4, size)
            turn = m * size * 4
            _turn(there, told[tables.COSINES] + turn, told[tables.SINES] + turn, size, turned)
        call(told[tables.BARRIER])
        for item in range(heads * rows * me // threads, heads * rows * (me + 1) // threads):
            head, m = item // rows, item % rows
            of = head // (heads // shared) * told[tables.OF_HEAD]
            query = told[tables.READ] + (m * taken + head * size) * 4
            seen = told[tables.SEEN] + (m * heads + head) * size * 4
            _attend(query, keys + of, values + of, size, start + m + 1, scores, seen)
        call(told[tables.BARRIER])
        _linear(
            layer[tables.OUT : tables.OUT + tables.LINEAR],
            told[tables.SEEN],
            rows,
            mine,
            from_,
            to,
            told[tables.MADE],
        )
        _add(told[tables.MADE], hidden, rows, broad, from_, to)
        call(told[tables.BARRIER])
        for m in range(rows):
            _normed(hidden + m * broad * 4, layer[tables.BETWEEN], broad, epsilon, normed + m * broad * 4)
        inner = layer[tables.DOWN + tables.INPUTS]
        one, other = whole(inner, threads, me), whole(inner, threads, me + 1)
        up = layer[tables.UP : tables.UP + tables.LINEAR]
        _linear(up, normed, rows, mine, one, other, told[tables.UPPED])
        _linear(up, normed, rows, mine, inner + one, inner + other, told[tables.UPPED])
        for m in range(rows):
            both, acted = (
                floats(told[tables.UPPED] + m * 2 * inner * 4, 2 * inner),
                floats(told[tables.ACTED] + m * inner * 4, inner),
            )
            for i in range(one, other):
                gate = both[i]
                acted[i] = gate / (np.float32(1) + exponential(-gate)) * both[inner + i]
        call(told[tables.BARRIER])
        _linear(
            layer[tables.DOWN : tables.DOWN + tables.LINEAR],
            told[tables.ACTED],
            rows,
            mine,
            from_,
            to,
            told[tables.MADE],
        )
        _add(told[tables.MADE], hidden, rows, broad, from_, to)
        call(told[tables.BARRIER])
    asked = told[tables.ASKED]
    for m in range(asked):
        _normed(
            hidden + (rows - asked + m) * broad * 4, told[tables.LAST], broad, epsilon, normed + m * broad * 4
        )
    head_ = words(told[tables.HEAD], tables.LINEAR)
    outputs = head_[tables.OUTPUTS]
    one, other = whole(outputs, threads, me), whole(outputs, threads, me + 1)
    _linear(head_, normed, asked, mine, one, other, told[tables.LOGITS])
