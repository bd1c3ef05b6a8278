"""Travel time on the CPU: the difference equation, of order 1 and 2, solved in one box."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._compile import jit
from .cpu_start import in_sight, lines_in_box

LISTED, WAITING, DONE = 4, 8, 16  # state, beside the kind: about to be solved; in a later bucket; in this one or before
BINS = 512  # parts of a bucket for order 2: each less than EARLIER wide
EARLIER = 1e-3  # by which part of a step a neighbour has to be earlier to be upwind in order 2
KEEP = 0.07  # straight-line times stay unless order 1 finds a way that is shorter by this part of a step


# ---- the difference equation ----------------------------------------------------------------------------------------


@jit
def upwind_root(a1: float, b1: float, a2: float, b2: float, a3: float, b3: float, rhs: float) -> float:
    """The t with a1 (t-b1)+^2 + a2 (t-b2)+^2 + a3 (t-b3)+^2 = rhs, (.)+ the positive part; inf if all b are inf.

    Without a branch: what is not used may be nan on the way.
    """
    swap = b2 < b1
    a1, b1, a2, b2 = (a2 if swap else a1), (b2 if swap else b1), (a1 if swap else a2), (b1 if swap else b2)
    swap = b3 < b2
    a2, b2, a3, b3 = (a3 if swap else a2), (b3 if swap else b2), (a2 if swap else a3), (b2 if swap else b3)
    swap = b2 < b1
    a1, b1, a2, b2 = (a2 if swap else a1), (b2 if swap else b1), (a1 if swap else a2), (b1 if swap else b2)
    d2, d3 = b2 - b1, b3 - b1
    two = a1 * d2 * d2 < rhs
    s, m, r = (a1 + a2 if two else a1), (a2 * d2 if two else 0.0), (a2 * d2 * d2 - rhs if two else -rhs)
    three = two & (s * d3 * d3 - 2.0 * m * d3 + r < 0.0)
    s, m, r = (s + a3 if three else s), (m + a3 * d3 if three else m), (r + a3 * d3 * d3 if three else r)
    rest = m * m - s * r
    return b1 + (m + math.sqrt(rest if rest > 0.0 else 0.0)) / s


@jit
def earlier(T: Any, v: Any, step: Any) -> Any:
    """The earlier of two opposite neighbours; inf where neither is in the component (nan)."""
    first, below, above = np.float32(np.inf), T[v - step], T[v + step]
    first = below if below < first else first
    return above if above < first else first


@jit
def solve_all(around: Any, rhs: Any, weights: Any, n: int, found: Any) -> None:
    """Solve the difference equation for n voxels, whose earlier neighbours along each axis are given."""
    az, ay, ax = weights[0], weights[1], weights[2]
    z, y, x = around[0, :n], around[1, :n], around[2, :n]
    for e in range(n):
        found[e] = upwind_root(az, np.float64(z[e]), ay, np.float64(y[e]), ax, np.float64(x[e]), rhs[e])


@jit
def with_room(array: Any, needed: int) -> Any:
    """A list, or a copy of it with room for more."""
    size = np.int64(needed)
    if size <= array.size:
        return array
    bigger = np.empty(size + size // 2, array.dtype)
    bigger[: array.size] = array
    return bigger


@jit
def list_slower(T: Any, state: Any, arrival: Any, v: Any, candidates: Any, n: Any) -> Any:
    """Put a voxel in the list of candidates if its time may still fall by a neighbour's."""
    fresh = (T[v] > arrival) & (state[v] & LISTED == 0)
    candidates[n] = v
    state[v] |= np.uint8(LISTED) if fresh else np.uint8(0)
    return n + (np.uint64(1) if fresh else np.uint64(0))


# ---- second order ---------------------------------------------------------------------------------------------------


@jit
def by_arrival(T: Any, entries: Any, base: float, scale: float, count: Any, ordered: Any) -> None:
    """Sort the voxels of one bucket by their time, as finely as one depends on another."""
    count[:] = 0
    for e in range(entries.size):
        count[np.uint64(min(max(int((T[np.uint64(entries[e])] - base) * scale), 0), BINS - 1))] += 1
    total = 0
    for b in range(BINS):
        total, count[b] = total + count[b], total
    for e in range(entries.size):
        part = np.uint64(min(max(int((T[np.uint64(entries[e])] - base) * scale), 0), BINS - 1))
        ordered[np.uint64(count[part])] = entries[e]
        count[part] += 1


@jit
def second_difference(
    T: Any, times: Any, v: Any, g: Any, step: Any, stride: Any, weight: float, margin: float
) -> tuple[float, float]:
    """Weight and base of the upwind difference along one axis; base inf if no neighbour is upwind."""
    below, above = T[v - step], T[v + step]
    has_below, has_above = below < T[v] - margin, above < T[v] - margin
    low, high = times[g - stride if has_below else g], times[g + stride if has_above else g]
    low, high = low if has_below else np.float32(np.inf), high if has_above else np.float32(np.inf)
    up = high < low
    near, first = np.float64(high if up else low), above if up else below
    far = T[v + step + step if up else v - step - step]
    reaches = far < first - margin
    beyond = g + stride + stride if up else g - stride - stride
    before = times[beyond if reaches & (near < np.inf) else g]
    second = reaches & (before < near)
    return (2.25 * weight if second else weight), (near + (near - before) / 3.0 if second else near)


@jit
def second_order(
    T: Any,
    mark: Any,
    pace: Any,
    shape: Any,
    low: Any,
    h: Any,
    max_time: float,
    lines: Any,
    table: Any,
    ordered: Any,
    times: Any,
    strides: Any,
) -> None:
    """Set `times`, which hold the straight-line times or inf, at the voxels of one bucket, in the order of arrival.

    `times` are those of the box, or of the whole volume: `strides` are its index steps.
    """
    offsets, first_line, first_way, _ = lines
    step, length, way = table
    sz, sy, one = np.uint64(shape[1] * shape[2]), np.uint64(shape[2]), np.uint64(1)
    gz, gy = np.uint64(strides[0]), np.uint64(strides[1])
    local = sz == gz and sy == gy and low[0] == 0 and low[1] == 0 and low[2] == 0
    wz, wy, wx = h[0] ** -2, h[1] ** -2, h[2] ** -2
    keep = KEEP * min(h[0], h[1], h[2])
    slowness = 1.0
    for e in range(ordered.size):
        v = np.uint64(ordered[e])
        g = v
        if not local:
            i, j, k = np.int64(v // sz), np.int64(v % sz // sy), np.int64(v % sy)
            g = np.uint64((low[0] + i) * strides[0] + (low[1] + j) * strides[1] + low[2] + k)
        if pace.size > 1:
            slowness = 1.0 / pace[v]
        arrival = T[v]
        if arrival >= times[g] - keep * slowness:
            if times[g] > max_time:
                times[g] = np.inf
            continue
        margin = EARLIER * slowness
        az, bz = second_difference(T, times, v, g, sz, gz, wz, margin * h[0])
        ay, by = second_difference(T, times, v, g, sy, gy, wy, margin * h[1])
        ax, bx = second_difference(T, times, v, g, one, one, wx, margin * h[2])
        t = np.float64(arrival)  # where rounding hides who is earlier
        if min(bz, by, bx) < np.inf:
            t = upwind_root(az, bz, ay, by, ax, bx, slowness * slowness)
        if math.isnan(T[v - sz] + T[v + sz] + T[v - sy] + T[v + sy] + T[v - one] + T[v + one]):
            here, there = np.int64(v), np.int64(g)
            latest = arrival - EARLIER * min(h[0], h[1], h[2]) * slowness
            for o in range(1, offsets.shape[0]):
                w, line = here + step[o], length[o] * slowness
                if T[np.uint64(w)] + line < latest:
                    x = there + offsets[o, 0] * strides[0] + offsets[o, 1] * strides[1] + offsets[o, 2]
                    straight = times[np.uint64(x)] + line
                    if straight < t and in_sight(
                        T, mark, pace, here, w, way, first_way, first_line[o], first_line[o + 1]
                    ):
                        t = straight
        times[g] = t if t <= max_time else np.inf


# ---- marching -------------------------------------------------------------------------------------------------------


@jit
def march(
    T: Any,
    state: Any,
    mark: Any,
    pace: Any,
    shape: Any,
    low: Any,
    h: Any,
    order: int,
    limit: float,
    max_time: float,
    width: float,
    lines: Any,
    times: Any,
    strides: Any,
) -> None:
    """Solve one box from its starting times: order 1 in T and, if asked for, order 2 in `times`."""
    table = lines_in_box(lines[0], lines[3], shape, h)
    sz, sy, one = np.uint64(shape[1] * shape[2]), np.uint64(shape[2]), np.uint64(1)
    weights = h**-2.0
    front, later, done = np.empty(4096, np.uint32), np.empty(4096, np.uint32), np.empty(4096, np.uint32)
    candidates, ordered = np.empty(8192, np.uint32), np.empty(4096, np.uint32)
    around, rhs, found = np.empty((3, 8192), np.float32), np.ones(8192), np.empty(8192, np.float32)
    count = np.empty(BINS, np.int64)
    none = np.uint64(0)
    n_later = none
    first, worked_off = np.float32(np.inf), np.float32(-1.0)
    for begin in range(0, T.size, 64):
        block = T[begin : begin + 64]
        started = 0
        for t in block:
            started += 1 if t < np.float32(np.inf) else 0
        if started:
            later = with_room(later, n_later + np.uint64(64))
            for k in range(block.size):
                t = block[k]
                if t < np.inf and t <= limit:
                    later[n_later] = begin + k
                    n_later += one
                    state[begin + k] = WAITING
                    first = min(first, t)
    while n_later:
        threshold = np.float32(max(first + width, first * (1.0 + 1e-6)))
        base, first = np.float64(first), np.float32(np.inf)
        front, done = with_room(front, n_later), with_room(done, n_later)
        n_front = n_done = kept = none
        for e in range(n_later):
            w = np.uint64(later[e])
            t = T[w]
            keep, now = t >= threshold, (t >= worked_off) & (t < threshold)
            later[kept] = w
            kept += one if keep else none
            first = t if keep & (t < first) else first
            front[n_front] = w
            done[n_front] = w
            n_front += one if now else none
            state[w] = np.uint8(WAITING) if keep else np.uint8(DONE)
        n_later, n_done = kept, n_front
        worked_off = threshold
        while n_front:
            candidates = with_room(candidates, np.uint64(6) * n_front + one)
            n = none
            for e in range(n_front):
                v = np.uint64(front[e])
                t = T[v]
                n = list_slower(T, state, t, v - sz, candidates, n)
                n = list_slower(T, state, t, v + sz, candidates, n)
                n = list_slower(T, state, t, v - sy, candidates, n)
                n = list_slower(T, state, t, v + sy, candidates, n)
                n = list_slower(T, state, t, v - one, candidates, n)
                n = list_slower(T, state, t, v + one, candidates, n)
            if np.int64(n) > found.size:
                size = 2 * np.int64(n)
                around, rhs, found = np.empty((3, size), np.float32), np.ones(size), np.empty(size, np.float32)
            front, later = with_room(front, n + one), with_room(later, n_later + n + one)
            done = with_room(done, n_done + n + one)
            for e in range(n):
                w = np.uint64(candidates[e])
                around[0, e], around[1, e], around[2, e] = earlier(T, w, sz), earlier(T, w, sy), earlier(T, w, one)
            if pace.size > 1:
                for e in range(n):
                    rhs[e] = 1.0 / (np.float64(pace[candidates[e]]) * pace[candidates[e]])
            solve_all(around, rhs, weights, np.int64(n), found)
            n_front = none
            for e in range(n):
                w = np.uint64(candidates[e])
                t, old, mine = found[e], T[w], state[w]
                better = t < old
                soon, late = better & (t < threshold), better & (t >= threshold) & (t <= limit)
                T[w] = t if better else old
                front[n_front] = w
                n_front += one if soon else none
                done[n_done] = w
                n_done += one if soon & (mine & DONE == 0) else none
                later[n_later] = w
                n_later += one if late & (mine & WAITING == 0) else none
                first = t if late & (t < first) else first
                mine &= np.uint8(DONE | WAITING)
                mine |= np.uint8(DONE) if soon else np.uint8(0)
                mine |= np.uint8(WAITING) if late else np.uint8(0)
                state[w] = mine
        if order == 2:
            ordered = with_room(ordered, n_done)
            size = np.int64(n_done)
            by_arrival(T, done[:size], base, BINS / (threshold - base), count, ordered)
            second_order(T, mark, pace, shape, low, h, max_time, lines, table, ordered[:size], times, strides)
