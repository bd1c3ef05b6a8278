"""Travel time on the CPU: one component in a padded box of its own, copied in and copied back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from .._compile import jit
from .cpu_components import NUMBERED
from .cpu_lanes import Emit, emitted, intrinsic

PAD = 4  # rim of a box: how far fits and straight lines reach, and one more
INSIDE = 64  # mark: a source inside the domain; bits 0 to 5: a contact face towards -z, +z, -y, +y, -x, +x
OUTSIDE = 128  # mark: a source outside the domain; bits 0 to 5: neighbours neither in the component nor sources

NOWHERE = 0x7FC00000  # the bits of nan, outside the domain
AT_ONCE = 16  # voxels that are copied together

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
            to = (i * shape[1] + j) * shape[2]
            if not (0 <= z < volume[0] and 0 <= y < volume[1]):
                T[to : to + shape[2]] = np.nan
                continue
            left = min(max(-low[2], 0), shape[2])
            n = max(min(volume[2] - low[2], shape[2]) - left, 0)
            begin, to = (z * volume[1] + y) * volume[2] + low[2] + left, to + left
            whole = (n + AT_ONCE - 1) // AT_ONCE * AT_ONCE  # what is written too far is overwritten by the next row
            if to + whole > T.size or begin + whole > ids.size:
                whole = n // AT_ONCE * AT_ONCE
            for k in range(0, whole, AT_ONCE):
                fill_sixteen(ids, source, np.uint64(begin + k), interfaces, mine, T, np.uint64(to + k))
            for k in range(whole, n):
                T[to + k] = first_time(ids[begin + k], source[begin + k] != 0, interfaces, mine)
            for k in range(to - left, to):
                T[k] = np.nan
            for k in range(to + n, to - left + shape[2]):
                T[k] = np.nan
            if pace.size > 1:
                pace[to : to + n] = speed[begin : begin + n]


@intrinsic
def fill_sixteen(context: Any, ids: Any, source: Any, at: Any, interfaces: Any, mine: Any, T: Any, to: Any) -> Any:
    """What `fill_box` writes, for 16 voxels from ids[at] on, to T[to:]."""

    def write(e: Emit) -> None:
        ids, source, at, interfaces, mine, T, to = e.data
        numbers = e.load_integers(ids, at, 32)
        lit = e.b.icmp_unsigned("!=", e.load_integers(source, at, 8), e.integers(0, 8))
        inside = e.where(lit, e.const(-2.0), e.const(float("inf")))
        nowhere = e.b.icmp_unsigned("==", numbers, e.integers(NOWHERE, 32))
        is_source = e.where(nowhere, lit, e.spread_integer(interfaces, 1))
        outside = e.where(is_source, e.const(-1.0), e.const(float("nan")))
        e.store(e.where(e.b.icmp_unsigned("==", numbers, e.spread_integer(mine, 32)), inside, outside), T, to)

    word = types.uint64
    return types.void(ids, source, word, types.boolean, types.int32, T, word), emitted(write)


@jit
def first_time(number: Any, lit: Any, interfaces: bool, mine: Any) -> Any:
    """What `fill_box` writes for a voxel."""
    inside = np.float32(-2.0) if lit else np.float32(np.inf)
    source = lit if number == NOWHERE else interfaces
    outside = np.float32(-1.0) if source else np.float32(np.nan)
    return inside if number == mine else outside


@jit
def mark_box(shape: Any, T: Any, kind: Any, mark: Any) -> bool:
    """Set the marks of a box from what `fill_box` wrote, and T = nan or inf. False if no source is there."""
    for v in range(T.size):
        t = T[v]
        kind[v] = (PLAIN if t != t else WITHIN) if not t < 0.0 else (SOURCE if t == -1.0 else WITHIN | INSIDE)
    for v in range(T.size):
        T[v] = np.float32(np.inf) if kind[v] & WITHIN else np.float32(np.nan)
    sz, sy, n = shape[1] * shape[2], shape[2], T.size - 2 * shape[1] * shape[2]
    mark[:sz] = 0
    mark[sz + n :] = 0
    here, marks = kind[sz : sz + n], mark[sz : sz + n]
    z0, z1, y0, y1 = kind[:n], kind[2 * sz : 2 * sz + n], kind[sz - sy : sz - sy + n], kind[sz + sy : sz + sy + n]
    x0, x1 = kind[sz - 1 : sz - 1 + n], kind[sz + 1 : sz + 1 + n]
    started = np.uint8(0)
    for k in range(n):  # across the ends of rows, too: the rim of a box is not looked at
        sought = SOURCE if here[k] & WITHIN else PLAIN
        faces = np.uint8(1) if z0[k] == sought else np.uint8(0)
        faces |= np.uint8(2) if z1[k] == sought else np.uint8(0)
        faces |= np.uint8(4) if y0[k] == sought else np.uint8(0)
        faces |= np.uint8(8) if y1[k] == sought else np.uint8(0)
        faces |= np.uint8(16) if x0[k] == sought else np.uint8(0)
        faces |= np.uint8(32) if x1[k] == sought else np.uint8(0)
        own = np.uint8(OUTSIDE) if here[k] == SOURCE else here[k] & np.uint8(INSIDE)
        found = own | faces if here[k] != PLAIN else np.uint8(0)
        marks[k] = found
        started |= found if found < np.uint8(OUTSIDE) else np.uint8(0)
    return bool(started)


@jit
def has_source(ids: Any, source: Any, volume: Any, interfaces: bool, me: int, box: Any) -> bool:
    """Whether a voxel of a component is a source, or touches one outside."""
    mine, sz, sy = np.int32(NUMBERED + me), volume[1] * volume[2], volume[2]
    for z in range(box[0], box[1]):
        for y in range(box[2], box[3]):
            for x in range(box[4], box[5]):
                v = z * sz + y * sy + x
                if ids[v] != mine:
                    continue
                if source[v]:
                    return True
                for face in range(6):
                    axis, way = face // 2, 2 * (face % 2) - 1
                    at = (z if axis == 0 else y if axis == 1 else x) + way
                    w = v + way * (sz if axis == 0 else sy if axis == 1 else 1)
                    if 0 <= at < volume[axis] and first_time(ids[w], source[w] != 0, interfaces, mine) == -1.0:
                        return True
    return False


@jit
def write_nothing(times: Any, ids: Any, volume: Any, me: int, box: Any) -> None:
    """Set the times of a component that no front reaches."""
    mine = np.int32(NUMBERED + me)
    for z in range(box[0], box[1]):
        for y in range(box[2], box[3]):
            row = (z * volume[1] + y) * volume[2]
            for v in range(row + box[4], row + box[5]):
                if ids[v] == mine:
                    times[v] = np.inf


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
