"""Travel time on the CPU: the connected components of the domain, by runs.

Every row (a line along x) is cut into runs of equal positive labels. Runs that touch in the rows before it, in y and in
z, are united in a forest whose roots are the runs that come first. Slabs of slices are independent until their seams
are united, so that threads share the work; numbers follow the order of the first runs, whatever the slabs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from .._compile import jit
from .cpu_blocks import lowest_bit
from .cpu_lanes import Emit, emitted, intrinsic, ir, tuple_of

ZERO, ONE, ALL = np.uint64(0), np.uint64(1), np.uint64(0xFFFFFFFFFFFFFFFF)
MOST = np.int64(2**31 - 1)


@intrinsic
def run_ends(context: Any, array: Any, start: Any) -> Any:
    """Where runs begin and end in a flat array: bit k of two words for elements start + k and start + k + 1, k < 64.

    They differ, and the second one (of the first word), or the first one (of the second word), is not 0.
    """

    def write(e: Emit) -> Any:
        values, at = e.data
        lane = values.type.pointee
        vector, word = ir.VectorType(lane, 64), ir.IntType(64)

        def load(index: Any) -> Any:
            return e.b.load(e.b.bitcast(e.b.gep(values, [index]), vector.as_pointer()), align=lane.width // 8)

        def as_word(bits: Any) -> Any:
            return e.b.bitcast(bits, word)

        here, then, none = load(at), load(e.b.add(at, word(1))), ir.Constant(vector, None)
        differ = as_word(e.b.icmp_signed("!=", here, then))
        begins, ends = (as_word(e.b.icmp_signed("!=", each, none)) for each in (then, here))
        return [e.b.and_(differ, begins), e.b.and_(differ, ends)]

    return tuple_of(types.uint64, 2)(array, types.uint64), emitted(write)


@intrinsic
def count_bits(context: Any, word: Any) -> Any:
    """How many bits of a word are set."""
    return types.int64(types.uint64), emitted(lambda e: e.b.ctpop(e.data[0]))


@jit
def with_room(array: Any, needed: int) -> Any:
    """A list, or a copy of it with room for more."""
    if needed <= array.size:
        return array
    bigger = np.empty(needed + needed // 2, array.dtype)
    bigger[: array.size] = array
    return bigger


@jit
def root_of(parent: Any, i: int) -> int:
    """The first run of a component, as far as it is known."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@jit(inline=True)
def unite_rows(domain: Any, row: int, other: int, width: int, first: Any, left: Any, right: Any, parent: Any) -> None:
    """Unite the runs of a row with those of one before it that they touch."""
    i, j, last, other_last = first[row], first[other], first[row + 1], first[other + 1]
    while i < last and j < other_last:
        end, other_end = right[i], right[j]
        touch = (left[i] < other_end) & (left[j] < end)
        if touch and domain[row * width + left[i]] == domain[other * width + left[j]]:
            older = parent[parent[j]]
            if parent[i] == i:
                parent[i] = older
            elif parent[i] != older:
                one, two = root_of(parent, i), root_of(parent, j)
                parent[max(one, two)] = parent[i] = parent[j] = min(one, two)
        i += end <= other_end
        j += other_end <= end


@jit(inline=True)
def row_ends(domain: Any, base: int, width: int, x: int) -> Any:
    """As `run_ends` for the pairs of a row's voxels from x on."""
    pairs = min(width - 1 - x, 64)
    if base + x + 65 <= domain.size:
        begins, ends = run_ends(domain, np.uint64(base + x))
        own = (ONE << np.uint64(pairs)) - ONE if pairs < 64 else ALL
        return begins & own, ends & own
    begins = ends = ZERO
    for k in range(pairs):
        here, then = domain[base + x + k], domain[base + x + k + 1]
        begins |= np.uint64((here != then) & (then != 0)) << np.uint64(k)
        ends |= np.uint64((here != then) & (here != 0)) << np.uint64(k)
    return begins, ends


@jit
def count_runs(domain: Any, shape: Any, begin: int, end: int, count: Any) -> None:
    """Set count[1 + row] to a row's number of runs, for the slices from `begin` to `end` - 1 of a flat volume."""
    width = shape[2]
    for row in range(begin * shape[1], end * shape[1]):
        base = row * width
        n = np.int64(domain[base] != 0)
        for x in range(0, width - 1, 64):
            n += count_bits(row_ends(domain, base, width, x)[0])
        count[1 + row] = n


@jit
def find_runs(domain: Any, shape: Any, begin: int, end: int, first: Any, left: Any, right: Any, parent: Any) -> None:
    """List the runs of the slices from `begin` to `end` - 1 of a flat volume, and unite those that touch.

    first (rows + 1,): the first run of each row. Sets their first voxels, the ones behind their last, their parents.
    """
    width = shape[2]
    for row in range(begin * shape[1], end * shape[1]):
        base = row * width
        n = m = np.uint64(first[row])
        if domain[base] != 0:
            left[n] = 0
            n += ONE
        for x in range(0, width - 1, 64):
            begins, ends = row_ends(domain, base, width, x)
            while begins != ZERO:
                left[n] = x + 1 + int(lowest_bit(begins))
                begins &= begins - ONE
                n += ONE
            while ends != ZERO:
                right[m] = x + 1 + int(lowest_bit(ends))
                ends &= ends - ONE
                m += ONE
        if m != n:
            right[m] = width
        for i in range(first[row], first[row + 1]):
            parent[i] = i
        if row % shape[1]:
            unite_rows(domain, row, row - 1, width, first, left, right, parent)
        if row >= (begin + 1) * shape[1]:
            unite_rows(domain, row, row - shape[1], width, first, left, right, parent)


@jit
def number_components(domain: Any, shape: Any, seams: Any, first: Any, left: Any, right: Any, parent: Any) -> int:
    """Unite the runs at the seams, number the components from 1, and put each run's number where its parent was.

    Returns how many there are.
    """
    for z in seams:
        for row in range(z * shape[1], (z + 1) * shape[1]):
            unite_rows(domain, row, row - shape[1], shape[2], first, left, right, parent)
    number, count = parent, 0
    for i in range(first[first.size - 1]):
        if parent[i] == i:
            count += 1
            number[i] = count
        else:
            number[i] = number[parent[i]]  # parents come first
    return count


@jit
def find_boxes(shape: Any, runs: Any, before: int, count: int, row: int) -> tuple[Any, int]:
    """The boxes of some components, those numbered from before + 1, whose runs begin at `row` at the earliest.

    Returns boxes (count, 7) int32: z0, z1, y0, y1, x0, x1 (half-open), count of voxels (MOST if there are more); and
    the row where the runs of components with higher numbers begin.
    """
    first, left, right, number = runs
    boxes = np.empty((count, 7), np.int32)
    boxes[:, 0::2] = MOST
    boxes[:, 1::2] = 0
    boxes[:, 6] = 0
    behind = first.size - 1
    for r in range(row, first.size - 1):
        z, y = r // shape[1], r % shape[1]
        for i in range(first[r], first[r + 1]):
            n = np.int64(number[i]) - 1 - before
            if n >= count:
                behind = min(behind, r)
            elif n >= 0:
                box = boxes[n]
                box[0], box[1] = min(box[0], z), z + 1
                box[2], box[3] = min(box[2], y), max(box[3], y + 1)
                box[4], box[5] = min(box[4], left[i]), max(box[5], right[i])
                box[6] += min(np.int64(right[i]) - left[i], MOST - box[6])
    return boxes, behind


@jit
def weigh(boxes: Any, rim: int, most: int) -> Any:
    """The work on each component, in voxels marched (all else is done for whole boxes); whether its box is large."""
    work, large = np.empty(len(boxes), np.int64), np.empty(len(boxes), np.bool_)
    for n in range(len(boxes)):
        box = boxes[n].astype(np.int64)
        z, y, x = box[1] - box[0], box[3] - box[2], box[5] - box[4]
        work[n] = box[6] + (z + 2 * rim) * (y + 2 * rim) * (x + 2 * rim) // 16
        large[n] = z * y * x > most
    return work, large


@jit
def write_outside(times: Any, shape: Any, runs: Any, begin: int, end: int) -> None:
    """Set the times (flat) of the slices from `begin` to `end` - 1 to nan outside the domain."""
    first, left, right, _ = runs
    for row in range(begin * shape[1], end * shape[1]):
        base = row * shape[2]
        x = 0
        for i in range(first[row], first[row + 1]):
            times[base + x : base + left[i]] = np.nan
            x = right[i]
        times[base + x : base + shape[2]] = np.nan


@jit
def runs_from(right: Any, begin: int, end: int, x: int) -> int:
    """The first of a row's runs, from `begin` to `end` - 1, that does not end before x; `end` if all do."""
    while begin < end:
        middle = (begin + end) // 2
        if right[middle] > x:
            end = middle
        else:
            begin = middle + 1
    return begin
