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
from .cpu_lanes import Emit, emitted, intrinsic, ir

ZERO, ONE, ALL = np.uint64(0), np.uint64(1), np.uint64(0xFFFFFFFFFFFFFFFF)


@intrinsic
def unequal_bits(context: Any, array: Any, start: Any) -> Any:
    """Bit k of the result: whether elements start + k and start + k + 1 of a flat array differ, for k < 64."""

    def write(e: Emit) -> Any:
        values, at = e.data
        lane = values.type.pointee
        vector, word = ir.VectorType(lane, 64), ir.IntType(64)

        def load(index: Any) -> Any:
            return e.b.load(e.b.bitcast(e.b.gep(values, [index]), vector.as_pointer()), align=lane.width // 8)

        return e.b.bitcast(e.b.icmp_signed("!=", load(at), load(e.b.add(at, word(1)))), word)

    return types.uint64(array, types.uint64), emitted(write)


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


@jit
def unite_rows(domain: Any, row: int, other: int, width: int, first: Any, left: Any, right: Any, parent: Any) -> None:
    """Unite the runs of two rows that touch."""
    i, j = first[row], first[other]
    while i < first[row + 1] and j < first[other + 1]:
        if (
            left[i] < right[j]
            and left[j] < right[i]
            and domain[row * width + left[i]] == domain[other * width + left[j]]
        ):
            one, two = root_of(parent, i), root_of(parent, j)
            parent[max(one, two)] = min(one, two)
        if right[i] < right[j]:
            i += 1
        else:
            j += 1


@jit
def find_runs(domain: Any, shape: Any, begin: int, end: int) -> Any:
    """List the runs of the slices from `begin` to `end` - 1 of a flat volume, and unite those that touch.

    Returns first (rows + 1,): the first run of each row; their first voxels, the ones behind their last, their parents.
    """
    rows, width = (end - begin) * shape[1], shape[2]
    domain = domain[begin * shape[1] * width : end * shape[1] * width]
    first = np.zeros(rows + 1, np.int64)
    left, right = np.empty(1024 + width, np.int32), np.empty(1024 + width, np.int32)
    parent = np.empty(1024 + width, np.int64)
    n = 0
    for row in range(rows):
        left, right = with_room(left, n + width), with_room(right, n + width)
        parent = with_room(parent, n + width)
        base = row * width
        start, x = 0, 0
        while width > 64 and x + 1 < width:
            at = min(x, width - 65)
            bits = unequal_bits(domain, np.uint64(base + at)) & (ALL << np.uint64(x - at))
            while bits != ZERO:
                stop = at + int(lowest_bit(bits)) + 1
                bits &= bits - ONE
                left[n], right[n], parent[n] = start, stop, n
                n += 1 if domain[base + start] != 0 else 0
                start = stop
            x = at + 64
        while x < width:
            if x + 1 == width or domain[base + x + 1] != domain[base + x]:
                left[n], right[n], parent[n] = start, x + 1, n
                n += 1 if domain[base + start] != 0 else 0
                start = x + 1
            x += 1
        first[row + 1] = n
        if row % shape[1]:
            unite_rows(domain, row, row - 1, width, first, left, right, parent)
        if row >= shape[1]:
            unite_rows(domain, row, row - shape[1], width, first, left, right, parent)
    return first, left[:n], right[:n], parent[:n]


@jit
def number_components(domain: Any, shape: Any, seams: Any, first: Any, left: Any, right: Any, parent: Any) -> Any:
    """Unite the runs at the seams, and number the components from 1.

    Returns the number of each run's component, and boxes (n, 7): z0, z1, y0, y1, x0, x1 (half-open), count of voxels.
    """
    for z in seams:
        for row in range(z * shape[1], (z + 1) * shape[1]):
            unite_rows(domain, row, row - shape[1], shape[2], first, left, right, parent)
    number, count = np.empty(parent.size, np.int32), 0
    for i in range(parent.size):
        if parent[i] == i:
            count += 1
            number[i] = count
        else:
            number[i] = number[parent[i]]  # parents come first
    boxes = np.empty((count, 7), np.int64)
    boxes[:, 0::2] = 1 << 62
    boxes[:, 1::2] = 0
    boxes[:, 6] = 0
    for row in range(first.size - 1):
        z, y = row // shape[1], row % shape[1]
        for i in range(first[row], first[row + 1]):
            box = boxes[number[i] - 1]
            box[0], box[1] = min(box[0], z), z + 1
            box[2], box[3] = min(box[2], y), max(box[3], y + 1)
            box[4], box[5] = min(box[4], left[i]), max(box[5], right[i])
            box[6] += right[i] - left[i]
    return number, boxes


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
