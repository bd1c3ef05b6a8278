"""Travel time on the CPU: one component in a padded box of its own, copied in and copied back."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._compile import jit
from .cpu_components import NUMBERED

PAD = 4  # rim of a box: how far fits and straight lines reach, and one more
INSIDE = 64  # mark: a source inside the domain; bits 0 to 5: a contact face towards -z, +z, -y, +y, -x, +x
OUTSIDE = 128  # mark: a source outside the domain; bits 0 to 5: neighbours neither in the component nor sources

NOWHERE = 0x7FC00000  # the bits of nan, outside the domain
PLAIN, SOURCE, WITHIN = np.uint8(0), np.uint8(1), np.uint8(2)  # kinds: neither; a source outside; in the component


@jit
def fill_box(
    ids: Any, source: Any, speed: Any, volume: Any, interfaces: bool, me: int, low: Any, shape: Any, T: Any, pace: Any
) -> None:
    """Copy one component: T = inf inside, nan outside, -1 and -2 at the sources outside and inside; speeds.

    `ids` (the bits of the times), `source` and `speed` are flat. With `interfaces`, the voxels of other components are
    sources outside, too.
    """
    mine = np.int32(NUMBERED + me)
    for i in range(shape[0]):
        for j in range(shape[1]):
            z, y = low[0] + i, low[1] + j
            row = T[(i * shape[1] + j) * shape[2] : (i * shape[1] + j + 1) * shape[2]]
            if not (0 <= z < volume[0] and 0 <= y < volume[1]):
                row[:] = np.nan
                continue
            left, right = max(-low[2], 0), min(volume[2] - low[2], shape[2])
            row[:left] = np.nan
            row[right:] = np.nan
            row = row[left:right]
            begin = (z * volume[1] + y) * volume[2] + low[2] + left
            numbers, from_here = ids[begin : begin + row.size], source[begin : begin + row.size]
            for k in range(row.size):
                lit = from_here[k] != 0
                inside = np.float32(-2.0) if lit else np.float32(np.inf)
                other = lit if numbers[k] == NOWHERE else interfaces
                outside = np.float32(-1.0) if other else np.float32(np.nan)
                row[k] = inside if numbers[k] == mine else outside
            if pace.size > 1:
                first = (i * shape[1] + j) * shape[2] + left
                pace[first : first + row.size] = speed[begin : begin + row.size]


@jit
def mark_box(shape: Any, T: Any, kind: Any, mark: Any) -> bool:
    """Set the marks of a box from what `fill_box` wrote, and T = nan or inf. False if no source is there."""
    for v in range(T.size):
        t = T[v]
        kind[v] = (PLAIN if t != t else WITHIN) if not t < 0.0 else (SOURCE if t == -1.0 else WITHIN | INSIDE)
        mark[v] = 0
    for v in range(T.size):
        T[v] = np.float32(np.inf) if kind[v] & WITHIN else np.float32(np.nan)
    sz, sy = shape[1] * shape[2], shape[2]
    started = 0
    for i in range(1, shape[0] - 1):
        for j in range(1, shape[1] - 1):
            a = i * sz + j * sy + 1
            n = shape[2] - 2
            here, marks = kind[a : a + n], mark[a : a + n]
            z0, z1 = kind[a - sz : a - sz + n], kind[a + sz : a + sz + n]
            y0, y1 = kind[a - sy : a - sy + n], kind[a + sy : a + sy + n]
            x0, x1 = kind[a - 1 : a - 1 + n], kind[a + 1 : a + 1 + n]
            for k in range(n):
                sought = SOURCE if here[k] & WITHIN else PLAIN
                faces = np.uint8(0)
                faces |= np.uint8(1) if z0[k] == sought else np.uint8(0)
                faces |= np.uint8(2) if z1[k] == sought else np.uint8(0)
                faces |= np.uint8(4) if y0[k] == sought else np.uint8(0)
                faces |= np.uint8(8) if y1[k] == sought else np.uint8(0)
                faces |= np.uint8(16) if x0[k] == sought else np.uint8(0)
                faces |= np.uint8(32) if x1[k] == sought else np.uint8(0)
                own = np.uint8(OUTSIDE) if here[k] == SOURCE else here[k] & np.uint8(INSIDE)
                found = own | faces if here[k] != PLAIN else np.uint8(0)
                marks[k] = found
                started += 1 if np.uint8(0) < found < np.uint8(OUTSIDE) else 0
    return started > 0


@jit
def write_times(T: Any, volume: Any, low: Any, shape: Any, max_time: float, times: Any) -> None:
    """Copy the times of one component to the flat volume: all but the rim, where the box lies in the volume."""
    left, right = max(PAD, -low[2]), min(shape[2] - PAD, volume[2] - low[2])
    for i in range(max(PAD, -low[0]), min(shape[0] - PAD, volume[0] - low[0])):
        for j in range(max(PAD, -low[1]), min(shape[1] - PAD, volume[1] - low[1])):
            first, n = (i * shape[1] + j) * shape[2] + left, right - left
            row = ((low[0] + i) * volume[1] + low[1] + j) * volume[2] + low[2] + left
            arrival, there = T[first : first + n], times[row : row + n]
            for k in range(n):
                t = arrival[k]
                if t == t:
                    there[k] = t if t <= max_time else np.float32(np.inf)
