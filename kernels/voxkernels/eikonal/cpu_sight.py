"""Travel time on the CPU: straight lines, and what is in sight along them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._compile import jit
from .cpu_boxes import PLAIN, WITHIN


@jit
def ways_in_box(via: Any, shape: Any) -> Any:
    """The index steps of the voxels on the ways of `straight_lines` for one box."""
    return (via[:, 0] * shape[1] + via[:, 1]) * shape[2] + via[:, 2]


@jit
def lanes_in_box(rows: Any, shape: Any) -> Any:
    """The index steps of `line_lanes` for one box."""
    step = np.empty(16 * (rows.shape[0] // 3), np.int64)
    for lane in range(step.size):
        row = lane // 16 * 3 + min(lane % 16 // 5, 2)
        step[lane] = (rows[row, 0] * shape[1] + rows[row, 1]) * shape[2] + rows[row, 2] + lane % 16 - 5 * (row % 3)
    return step


@jit
def in_sight(kind: Any, pace: Any, v: int, w: int, way: Any, first_way: Any, first_line: int, last_line: int) -> bool:
    """Whether one of the ways from v to w is free: all in the component, or in a source, and of one speed."""
    paced = pace.size > 1
    if paced and pace[v] != pace[w]:
        return False
    for n in range(first_line, last_line):
        free = True
        for m in range(first_way[n], first_way[n + 1]):
            x = np.uint64(v + way[m])
            if kind[x] == PLAIN or (paced and kind[x] & WITHIN and pace[x] != pace[w]):
                free = False
                break
        if free:
            return True
    return False
