"""Travel time on the CPU: the connected components of the domain."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._compile import jit

NUMBERED = -(1 << 31)  # the sign bit: marks the number of a component among times


@jit
def grown(array: Any) -> Any:
    """A copy of a list with twice the room."""
    bigger = np.empty(2 * array.size, array.dtype)
    bigger[: array.size] = array
    return bigger


@jit
def root_of(parent: Any, i: int) -> int:
    """The first provisional number of a component."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@jit
def joined(parent: Any, mine: int, other: int) -> int:
    """Join two provisional numbers; 0 is none yet."""
    if mine == 0 or mine == other:
        return other
    mine, other = root_of(parent, mine), root_of(parent, other)
    mine, other = min(mine, other), max(mine, other)
    parent[other] = mine
    return mine


@jit
def split_components(domain: Any, out: Any, ids: Any) -> Any:
    """Number the components: `out` becomes nan outside, and its bits `ids` NUMBERED + the number inside.

    Returns boxes (n, 7): z0, z1, y0, y1, x0, x1 (half-open) and the count of voxels.
    """
    parent = np.zeros(1024, np.int32)
    n = 0
    for z in range(domain.shape[0]):
        for y in range(domain.shape[1]):
            out[z, y] = np.nan
            row, numbers = domain[z, y], ids[z, y]
            behind, behind_numbers = domain[max(z - 1, 0), y], ids[max(z - 1, 0), y]
            above, above_numbers = domain[z, max(y - 1, 0)], ids[z, max(y - 1, 0)]
            run = row[0]
            mine = seen_behind = seen_above = 0
            for x in range(row.size):
                value = row[x]
                if value != run:
                    run = value
                    mine = seen_behind = seen_above = 0
                if value == 0:
                    continue
                if z > 0 and behind[x] == value and behind_numbers[x] != seen_behind:
                    seen_behind = behind_numbers[x]
                    mine = joined(parent, mine, seen_behind - NUMBERED)
                if y > 0 and above[x] == value and above_numbers[x] != seen_above:
                    seen_above = above_numbers[x]
                    mine = joined(parent, mine, seen_above - NUMBERED)
                if mine == 0:
                    n += 1
                    if n == parent.size:
                        parent = grown(parent)
                    parent[n] = n
                    mine = n
                numbers[x] = NUMBERED + mine
    count = 0
    for i in range(1, n + 1):
        if parent[i] == i:
            count += 1
            parent[i] = count
        else:
            parent[i] = parent[parent[i]]  # parents come first, and hold their final number by now
    boxes = np.empty((count, 7), np.int64)
    boxes[:, 0::2] = 1 << 62
    boxes[:, 1::2] = 0
    boxes[:, 6] = 0
    for z in range(domain.shape[0]):
        for y in range(domain.shape[1]):
            numbers = ids[z, y]
            x = 0
            while x < numbers.size:
                provisional = numbers[x]
                if provisional >= 0:
                    x += 1
                    continue
                begin = x
                mine = parent[provisional - NUMBERED]
                while x < numbers.size and numbers[x] == provisional:
                    numbers[x] = NUMBERED + mine
                    x += 1
                box = boxes[mine - 1]
                box[0], box[1] = min(box[0], z), max(box[1], z + 1)
                box[2], box[3] = min(box[2], y), max(box[3], y + 1)
                box[4], box[5] = min(box[4], begin), max(box[5], x)
                box[6] += x - begin
    return boxes
