"""The runs of every row of a volume as bits, 64 voxels to a word: the first step of `cpu`.

64 voxels are compared with 0, with those before them, in the row before and in the slice before, in vector
instructions whose result is the word. The voxels of the first slice, and the last few of the volume, are compared one
by one. Not checked here: shapes.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import core, extending, types

from .._compile import jit

ir = core.cgutils.ir  # type: ignore[attr-defined]  # LLVM, as Numba itself writes it

ZERO = np.uint64(0)
ONE = np.uint64(1)
EACH = np.uint64(0x0101010101010101)
HIGH_BYTE = np.uint64(56)
ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
LAST = np.uint64(63)


@jit
def count_bits(word):
    """How many bits of a word are set."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * EACH) >> HIGH_BYTE)


@jit
def behind(words, row, w):
    """Word w of a row moved on by one: every voxel has the bit of the voxel before it."""
    return (words[row, w] << ONE) | (words[row, w - ONE] >> LAST)


def load(context, builder, kind, array, start):
    """LLVM for 64 elements of a flat array as a vector."""
    lane = ir.IntType(kind.dtype.bitwidth)
    first = builder.gep(context.make_array(kind)(context, builder, array).data, [start])
    return builder.load(builder.bitcast(first, ir.VectorType(lane, 64).as_pointer()), align=lane.width // 8)


@extending.intrinsic
def some_bits(context, array, start):
    """Bit k of the result: whether element start + k of a flat array is not 0, for k < 64. Unchecked."""

    def generate(context, builder, signature, arguments):
        one = load(context, builder, signature.args[0], *arguments)
        return builder.bitcast(builder.icmp_signed("!=", one, ir.Constant(one.type, None)), ir.IntType(64))

    return types.uint64(array, types.uint64), generate


@extending.intrinsic
def negative_bits(context, array, start):
    """Bit k of the result: whether element start + k of a flat array is negative, for k < 64. Unchecked."""

    def generate(context, builder, signature, arguments):
        one = load(context, builder, signature.args[0], *arguments)
        if not signature.args[0].dtype.signed:
            return ir.Constant(ir.IntType(64), 0)
        return builder.bitcast(builder.icmp_signed("<", one, ir.Constant(one.type, None)), ir.IntType(64))

    return types.uint64(array, types.uint64), generate


@extending.intrinsic
def same_bits(context, array, start, other):
    """Bit k of the result: whether elements start + k and other + k of a flat array are equal, k < 64. Unchecked."""

    def generate(context, builder, signature, arguments):
        one, two = (load(context, builder, signature.args[0], arguments[0], arguments[k]) for k in (1, 2))
        return builder.bitcast(builder.icmp_signed("==", one, two), ir.IntType(64))

    return types.uint64(array, types.uint64, types.uint64), generate


@jit
def compare(flat, start, n, back):
    """Bits k < n of voxel start + k and the one `back` before it, voxel by voxel: some, negative, equal if there is."""
    some, negative, same = ZERO, ZERO, ZERO
    for k in range(n):
        value = flat[start + k]
        some |= np.uint64(value != 0) << np.uint64(k)
        negative |= np.uint64(value < 0) << np.uint64(k)
        if start + k >= back:
            same |= np.uint64(value == flat[start + k - back]) << np.uint64(k)
    return some, negative, same


@jit(parallel=True)
def mark_runs(flat, n_y, n_x, binary, some, starts, left, up, before, first, bounds):
    """Write the bits of all rows of `flat` (R * X,), W words each; return how many runs, -1 if a value is negative.

    some, starts, left, up : (R + 1, W + 2) uint64, zero; words 1..W of rows 0..R-1 are written.
    before : (R + 1, W) int32, written: runs of the row that start before the word.
    first  : (R + 1,) int64, written: runs that start before the row.
    bounds : (parts + 1,) int64, rows of each part.
    """
    negative = np.empty(bounds.size - 1, np.uint64)
    n_words = some.shape[1] - 2
    slice_size = n_y * n_x
    compared = 0 if binary else max(slice_size, 1)  # from where on there are voxels before
    for p in numba.prange(bounds.size - 1):
        wrong = ZERO
        for r in range(bounds[p], bounds[p + 1]):
            runs = 0
            last = ZERO
            for w in range(n_words):
                start = r * n_x + 64 * w
                length = min(64, n_x - 64 * w)
                kept = ALL >> np.uint64(64 - length)
                if start >= compared and start + 64 <= flat.size:
                    at = np.uint64(start)
                    here = some_bits(flat, at) & kept
                    wrong |= negative_bits(flat, at) & kept
                    if not binary:
                        same = same_bits(flat, at, np.uint64(start - 1))
                        left[r, w + 1] = here & same_bits(flat, at, np.uint64(start - n_x))
                        up[r, w + 1] = here & same_bits(flat, at, np.uint64(start - slice_size))
                else:
                    here, minus, same = compare(flat, start, length, 1)
                    wrong |= minus
                    if not binary:
                        left[r, w + 1] = here & compare(flat, start, length, n_x)[2]
                        up[r, w + 1] = here & compare(flat, start, length, slice_size)[2]
                if binary:
                    begin = here & ~(here << ONE | last)
                else:
                    begin = here & ~(same & (ALL << ONE if w == 0 else ALL))
                some[r, w + 1], starts[r, w + 1] = here, begin
                last = here >> LAST
                before[r, w] = runs
                runs += count_bits(begin)
            first[r + 1] = runs
        negative[p] = wrong
    if binary:
        for p in numba.prange(bounds.size - 1):
            for r in range(max(bounds[p], 1), bounds[p + 1]):
                for w in range(1, n_words + 1):
                    left[r, w] = some[r, w] & some[r - 1, w]
                if r >= n_y:
                    for w in range(1, n_words + 1):
                        up[r, w] = some[r, w] & some[r - n_y, w]
    first[0] = 0
    for r in range(1, first.size):
        first[r] += first[r - 1]
    return first[-1] if negative.max() == ZERO else np.int64(-1)
