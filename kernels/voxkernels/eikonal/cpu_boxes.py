"""Travel time on the CPU: one component in a padded box of its own, copied in and copied back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from .._compile import jit
from .cpu_components import ALL, ONE, runs_from
from .cpu_lanes import Emit, emitted, intrinsic, ir

EDGE = 4  # voxels along an edge of a block
PAD = 4  # rim of a box: how far fits and straight lines reach, and one more
INSIDE = 64  # mark: a source inside the domain; bits 0 to 5: a contact face towards -z, +z, -y, +y, -x, +x
OUTSIDE = 128  # mark: a source outside the domain; bits 0 to 5: neighbours neither in the component nor sources

LANES = 64  # voxels whose kinds are set together
PLAIN, SOURCE, WITHIN = np.uint8(0), np.uint8(1), np.uint8(2)  # kinds: neither; a source outside; in the component


@jit
def fill_box(
    runs: Any,
    source: Any,
    speed: Any,
    volume: Any,
    interfaces: bool,
    me: int,
    low: Any,
    shape: Any,
    kind: Any,
    pace: Any,
    cells: Any,
) -> None:
    """Set the kinds and speeds of a component's box, and 1 for the cells (of EDGE^3 voxels) that hold any of it.

    runs : those of all components, as from `find_runs`, and their numbers. `source` and `speed` are flat. With
    `interfaces`, the voxels of other components are sources outside, too.
    """
    first, left, right, number = runs
    kind[:] = PLAIN
    cells[:] = 0
    other = SOURCE if interfaces else PLAIN
    begin, end = max(low[2], 0), min(low[2] + shape[2], volume[2])
    for i in range(shape[0]):
        for j in range(shape[1]):
            z, y = low[0] + i, low[1] + j
            if not (0 <= z < volume[0] and 0 <= y < volume[1]):
                continue
            row = z * volume[1] + y
            to, at = (i * shape[1] + j) * shape[2] - low[2], row * volume[2]
            copy_sources(source, at + begin, kind, to + begin, end - begin)
            if pace.size > 1:
                pace[to + begin : to + end] = speed[at + begin : at + end]
            cell = (i // EDGE * (shape[1] // EDGE) + j // EDGE) * (shape[2] // EDGE)
            for n in range(runs_from(right, first[row], first[row + 1], begin), first[row + 1]):
                a, b = np.int64(max(left[n], begin)), np.int64(min(right[n], end))
                if a >= b:
                    break
                mine = number[n] == me
                enter_run(kind, to + a, to + b, WITHIN if mine else other, INSIDE if mine else other)
                if mine:
                    for k in range((a - low[2]) // EDGE, (b - 1 - low[2]) // EDGE + 1):
                        cells[cell + k] = 1


@jit
def copy_sources(source: Any, at: int, kind: Any, to: int, n: int) -> None:
    """Set n kinds from `to` on to SOURCE where there is a source, which the flat array holds from `at` on."""
    if at + n + LANES > source.size or to + n + LANES > kind.size:
        for k in range(n):
            kind[to + k] = SOURCE if source[at + k] else PLAIN
        return
    for k in range(0, n, LANES):
        sixty_four_sources(source, np.uint64(at + k), kind, np.uint64(to + k), first_bits(n - k))


@jit(inline=True)
def enter_run(kind: Any, begin: int, end: int, plain: Any, lit: Any) -> None:
    """Set the kinds from `begin` to `end` - 1 to `plain`, and where there is a source to plain | lit."""
    for v in range(begin, end, LANES):
        back = max(v + LANES - kind.size, 0)
        sixty_four_inside(kind, np.uint64(v - back), first_bits(end - v) << np.uint64(back), plain, lit)


@jit
def first_bits(n: int) -> Any:
    """A word with its first n bits set, all of them if n is more than 63."""
    return (ONE << np.uint64(n)) - ONE if n < LANES else ALL


@intrinsic
def sixty_four_sources(context: Any, source: Any, at: Any, kind: Any, to: Any, bits: Any) -> Any:
    """Set 64 kinds from kind[to] on, where `bits` says so, to SOURCE or PLAIN by source[at:]."""

    def write(e: Emit) -> None:
        source, at, kind, to, bits = e.data
        lit = e.b.icmp_unsigned("!=", e.load_integers(source, at, 8, LANES), e.integers(0, 8, LANES))
        new = e.b.zext(lit, lanes_of(8))
        e.store_integers(e.where(e.b.bitcast(bits, lanes_of(1)), new, e.load_integers(kind, to, 8, LANES)), kind, to)

    word = types.uint64
    return types.void(source, word, kind, word, word), emitted(write)


@intrinsic
def sixty_four_inside(context: Any, kind: Any, at: Any, bits: Any, plain: Any, lit: Any) -> Any:
    """Set 64 kinds from kind[at] on, where `bits` says so, to `plain`, and where they are SOURCE to plain | lit."""

    def write(e: Emit) -> None:
        kind, at, bits, plain, lit = e.data
        old = e.load_integers(kind, at, 8, LANES)
        plain, lit = e.spread_integer(plain, 8, LANES), e.spread_integer(e.b.or_(plain, lit), 8, LANES)
        new = e.where(e.b.icmp_unsigned("==", old, e.integers(int(SOURCE), 8, LANES)), lit, plain)
        e.store_integers(e.where(e.b.bitcast(bits, lanes_of(1)), new, old), kind, at)

    word, byte = types.uint64, types.uint8
    return types.void(kind, word, word, byte, byte), emitted(write)


def lanes_of(width: int) -> Any:
    """LLVM's vector of LANES integers so wide."""
    return ir.VectorType(ir.IntType(width), LANES)


@jit
def mark_box(shape: Any, kind: Any, T: Any, mark: Any) -> bool:
    """Set T = inf inside, nan outside, and marks, from the kinds of a box. False if no source is there."""
    for v in range(T.size):
        T[v] = np.float32(np.inf) if kind[v] & WITHIN else np.float32(np.nan)
    sz, sy, n = shape[1] * shape[2], shape[2], kind.size - 2 * shape[1] * shape[2]
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
def may_start(runs: Any, source: Any, volume: Any, me: int, box: Any) -> bool:
    """Whether a source is in a component or beside a voxel of it: inside, outside, or in another component."""
    first, left, right, number = runs
    sz, sy = volume[1] * volume[2], volume[2]
    for z in range(box[0], box[1]):
        for y in range(box[2], box[3]):
            row = z * volume[1] + y
            for n in range(runs_from(right, first[row], first[row + 1], box[4]), first[row + 1]):
                if left[n] >= box[5]:
                    break
                if number[n] != me:
                    continue
                begin, end = row * sy + left[n], row * sy + right[n]
                found = (left[n] > 0 and source[begin - 1] != 0) or (right[n] < volume[2] and source[end] != 0)
                for v in range(begin, end):
                    found |= source[v] != 0
                    found |= z > 0 and source[v - sz] != 0
                    found |= z + 1 < volume[0] and source[v + sz] != 0
                    found |= y > 0 and source[v - sy] != 0
                    found |= y + 1 < volume[1] and source[v + sy] != 0
                if found:
                    return True
    return False


@jit
def write_nothing(times: Any, runs: Any, volume: Any, me: int, box: Any) -> None:
    """Set the times of a component that no front reaches."""
    first, left, right, number = runs
    for z in range(box[0], box[1]):
        for y in range(box[2], box[3]):
            row = z * volume[1] + y
            for n in range(runs_from(right, first[row], first[row + 1], box[4]), first[row + 1]):
                if left[n] >= box[5]:
                    break
                if number[n] == me:
                    times[row * volume[2] + left[n] : row * volume[2] + right[n]] = np.inf


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
