"""Travel time on the CPU: straight lines, and what is in sight along them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._compile import jit
from .cpu_boxes import OUTSIDE
from .cpu_lots import ONE


@jit
def lines_in_box(offsets: Any, via: Any, shape: Any, h: Any) -> tuple[Any, Any, Any]:
    """The table of straight lines for one box: index offsets, lengths, index offsets of the voxels on the way."""
    sz, sy = shape[1] * shape[2], shape[2]
    step = offsets[:, 0] * sz + offsets[:, 1] * sy + offsets[:, 2]
    length = np.sqrt((offsets[:, 0] * h[0]) ** 2 + (offsets[:, 1] * h[1]) ** 2 + (offsets[:, 2] * h[2]) ** 2)
    return step, length, via[:, 0] * sz + via[:, 1] * sy + via[:, 2]


@jit
def rows_of(offsets: Any, length: Any, sz: int, sy: int) -> tuple[Any, Any, Any]:
    """The offsets of straight lines by rows of eight in x.

    Returns rows (R,): index steps to their first voxel; lengths (R, 8), inf where no line is; which (R, 8), the offset.
    """
    rows = np.empty(offsets.shape[0], np.int64)
    lengths = np.full((offsets.shape[0], 8), np.inf, np.float32)
    which = np.zeros((offsets.shape[0], 8), np.int64)
    n = 0
    left = 0
    for o in range(offsets.shape[0]):
        left = min(left, offsets[o, 2])
    for o in range(offsets.shape[0]):
        row = offsets[o, 0] * sz + offsets[o, 1] * sy + left
        r = 0
        while r < n and rows[r] != row:
            r += 1
        if r == n:
            rows[n] = row
            n += 1
        lengths[r, offsets[o, 2] - left] = length[o]
        which[r, offsets[o, 2] - left] = o
    return rows[:n], lengths[:n], which[:n]


@jit
def lanes_of(rows: Any, which: Any, lengths: Any, offsets: Any, h: Any) -> tuple[Any, Any, Any, int]:
    """The rows of `rows_of` one behind the other, two in 16 lanes: K lanes.

    Returns where the voxels are, (3 K,) lengths, inf where no line leads; their index steps; their offsets' numbers;
    the lane of the voxel itself.
    """
    size = (rows.size + 1) // 2 * 16
    beside, step, offset = np.full(3 * size, np.inf, np.float32), np.zeros(size, np.int64), np.zeros(size, np.int64)
    own = 0
    for lane in range(8 * rows.size):
        step[lane] = rows[lane // 8] + lane % 8
        if lengths[lane // 8, lane % 8] < np.inf:
            offset[lane] = which[lane // 8, lane % 8]
            own = lane if offset[lane] == 0 else own
            for axis in range(3):
                beside[axis * size + lane] = np.float32(offsets[offset[lane], axis] * h[axis])
    step[8 * rows.size :] = step[own]
    return beside, step, offset, own


@jit
def lanes_on_ways(step: Any, beside: Any, way: Any, first_way: Any) -> Any:
    """The lanes that each way passes, (3 W,) words, three of 64 lanes for each."""
    over = np.zeros(3 * (first_way.size - 1), np.uint64)
    for n in range(first_way.size - 1):
        for m in range(first_way[n], first_way[n + 1]):
            for lane in range(step.size):
                if step[lane] == way[m] and beside[lane] < np.inf:
                    over[3 * n + lane // 64] |= ONE << np.uint64(lane % 64)
    return over


@jit
def in_sight(
    T: Any, mark: Any, pace: Any, v: int, w: int, way: Any, first_way: Any, first_line: int, last_line: int
) -> bool:
    """Whether one of the ways from v to w is free: all in the component, or in a source, and of one speed."""
    if pace.size > 1 and pace[v] != pace[w]:
        return False
    for n in range(first_line, last_line):
        free = True
        for m in range(first_way[n], first_way[n + 1]):
            x = np.uint64(v + way[m])
            if not mark[x] & OUTSIDE and (math.isnan(T[x]) or (pace.size > 1 and pace[x] != pace[w])):
                free = False
                break
        if free:
            return True
    return False
