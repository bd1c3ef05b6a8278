"""Travel time on the CPU: the straight-line times of the voxels close to a source."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._compile import jit
from .cpu_blocks import blocked, closer, lowest_bit, touching
from .cpu_boxes import INSIDE, OUTSIDE
from .cpu_components import with_room
from .cpu_surface import (
    AHEAD,
    AHEAD_1,
    AHEAD_2,
    CENTRE,
    CENTRE_1,
    CENTRE_2,
    DISCS,
    END,
    KNOWN,
    LANES,
    MIDDLE,
    NORMAL,
    NORMAL_1,
    NORMAL_2,
    RADIUS,
    ZERO,
    end_discs,
    find_rims,
    find_windows,
    fit_planes,
    make_discs,
    mark_columns,
    mark_ends,
    mark_surface,
)

ONE, TWO = np.uint64(1), np.uint64(2)


@jit
def disc_distances(disc: Any, i: int, axis: int, beside: Any, squared: Any) -> None:
    """Lower the squared distances to the voxels beside one, (3 K,) lengths, by those from the disc of one of its faces."""
    c, c1, c2 = np.float32(disc[CENTRE + i]), np.float32(disc[CENTRE_1 + i]), np.float32(disc[CENTRE_2 + i])
    n, n1, n2 = np.float32(disc[NORMAL + i]), np.float32(disc[NORMAL_1 + i]), np.float32(disc[NORMAL_2 + i])
    g, g1, g2 = np.float32(disc[AHEAD + i]), np.float32(disc[AHEAD_1 + i]), np.float32(disc[AHEAD_2 + i])
    end, radius, zero = np.float32(disc[END + i]), np.float32(disc[RADIUS + i]), np.float32(0.0)
    size = np.uint64(squared.size)  # unsigned: an index that may be negative is not a vector load
    up, along, across = np.uint64(axis) * size, ZERO if axis else size, size if axis == 2 else size + size
    if end >= radius:
        for o in range(size):
            d, d1, d2 = beside[up + o] - c, beside[along + o] - c1, beside[across + o] - c2
            e = n * d + n1 * d1 + n2 * d2
            flat = d * d + d1 * d1 + d2 * d2 - e * e
            off = math.sqrt(flat if flat > zero else zero) - radius
            off = off if off > zero else zero
            distance = e * e + off * off
            squared[o] = distance if distance < squared[o] else squared[o]
        return
    chord, whole = math.sqrt(radius * radius - end * end), radius * radius
    steep = end * abs(end)
    for o in range(size):
        d, d1, d2 = beside[up + o] - c, beside[along + o] - c1, beside[across + o] - c2
        e = n * d + n1 * d1 + n2 * d2
        flat = d * d + d1 * d1 + d2 * d2 - e * e
        flat = flat if flat > zero else zero
        ahead = g * d + g1 * d1 + g2 * d2
        beyond = ahead * abs(ahead) * whole > steep * (flat if flat > whole else whole)  # so is the whole disc's nearest
        side = flat - ahead * ahead
        side = side if side > zero else zero
        off = math.sqrt(side if beyond else flat) - (chord if beyond else radius)
        off = off if off > zero else zero
        past = ahead - end if beyond else zero
        distance = e * e + off * off + past * past
        squared[o] = distance if distance < squared[o] else squared[o]


@jit
def square_distances(face: int, h: Any, beside: Any, squared: Any) -> None:
    """Lower the squared distances to the voxels beside one, (3 K,) lengths, by those from one of its faces."""
    size, axis = np.uint64(squared.size), face // 2
    up, along, across = np.uint64(axis) * size, ZERO if axis else size, size if axis == 2 else size + size
    sign, half, zero = np.float32(2 * (face % 2) - 1), np.float32(0.5), np.float32(0.0)
    to, half1, half2 = half * sign * h[axis], half * h[0 if axis else 1], half * h[1 if axis == 2 else 2]
    for o in range(size):
        e = beside[up + o] - to
        off1, off2 = abs(beside[along + o]) - half1, abs(beside[across + o]) - half2
        off1, off2 = off1 if off1 > zero else zero, off2 if off2 > zero else zero
        distance = e * e + off1 * off1 + off2 * off2
        squared[o] = distance if distance < squared[o] else squared[o]


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


@jit
def lanes_of(rows: Any, which: Any, lengths: Any, offsets: Any, h: Any) -> tuple[Any, Any, Any, int]:
    """The rows of `rows_of` one behind the other, two in 16 lanes: K lanes.

    Returns where the voxels are, (3 K,) lengths, inf where no line leads; their index steps; their offsets' numbers; the
    lane of the voxel itself.
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
def contact_voxels(mark: Any, shape: Any, rim: int) -> Any:
    """The voxels that touch a source, and the sources inside: those at least `rim` voxels from the sides of a box."""
    found, n = np.empty(0, np.int64), 0
    for i in range(rim, shape[0] - rim):
        for j in range(rim, shape[1] - rim):
            row = (i * shape[1] + j) * shape[2]
            for k in range(rim, shape[2] - rim, 64):
                bits = touching(mark, np.uint64(row + k))
                if shape[2] - rim - k < 64:
                    bits &= (ONE << np.uint64(shape[2] - rim - k)) - ONE
                if bits != ZERO:
                    found = with_room(found, n + 64)
                while bits != ZERO:
                    found[n] = row + k + int(lowest_bit(bits))
                    bits &= bits - ONE
                    n += 1
    return found[:n]


@jit
def start_box(
    T: Any, mark: Any, pace: Any, shape: Any, h: Any, scale: float, fit: bool, band: float, lines: Any, rim: int
) -> None:
    """Give the voxels within `band` of a source, and every voxel that touches one, their straight-line time.

    Sources less than `rim` voxels from the sides of the box are left out. scale : a power of 2 that makes steps about
    1, for arithmetic in 32 bits.
    """
    offsets, first_line, first_way, via = lines
    _, length, way = lines_in_box(offsets, via, shape, h)
    sz, sy, steps = shape[1] * shape[2], shape[2], h * scale
    rows, lengths, which = rows_of(offsets, length, sz, sy)
    beside, step, offset, own = lanes_of(rows, which, lengths, offsets, steps)
    over = lanes_on_ways(step, beside, way, first_way)
    small, squared = steps.astype(np.float32), np.empty(step.size, np.float32)
    surface, columns = np.empty(T.size if fit else 0, np.uint8), np.empty(3 * T.size if fit else 0, np.uint8)
    if fit:
        mark_surface(T, shape, surface)
        mark_columns(surface, shape, columns)
        mark_ends(mark, surface)
    voxel, side, count = np.empty(LANES, np.int64), np.empty(LANES, np.int64), 0
    words, known, discs = np.zeros(5 * LANES, np.uint64), np.ones(KNOWN), np.empty(DISCS)
    contacts = contact_voxels(mark, shape, rim)
    for n in range(contacts.size if band > 0.0 else 0):
        left = np.uint64(mark[contacts[n]])
        while left != ZERO:
            voxel[count], side[count] = contacts[n], int(lowest_bit(left))
            left &= left - ONE
            count += 1
        if count <= LANES - 7 and n + 1 < contacts.size:
            continue
        if fit:
            find_windows(columns, sz, sy, voxel, side, count, words)
            find_rims(surface, sz, sy, voxel, side, count, steps, known)
            fit_planes(words, count, known)
            make_discs(known, count, discs)
            end_discs(columns, mark, sz, sy, voxel, side, count, known, discs)
        reach(
            T, mark, pace, voxel, side, count, fit, small, discs, beside, squared, rows, step, offset, own, way,
            first_way, first_line, over, np.float32(scale), np.float32(band * scale),
        )  # fmt: skip
        count = 0
    for v in contacts:
        if mark[v] & INSIDE:
            T[v] = 0.0
        elif T[v] == np.inf:  # it touches, but no disc is in sight, or none is asked for
            for face in range(6):
                if mark[v] & (1 << face):
                    T[v] = min(T[v], np.float32(0.5 * h[face // 2] / (pace[v] if pace.size > 1 else 1.0)))


@jit
def reach(
    T: Any,
    mark: Any,
    pace: Any,
    voxel: Any,
    side: Any,
    count: int,
    fit: bool,
    h: Any,
    discs: Any,
    beside: Any,
    squared: Any,
    rows: Any,
    step: Any,
    offset: Any,
    own: int,
    way: Any,
    first_way: Any,
    first_line: Any,
    over: Any,
    scale: Any,
    band: Any,
) -> None:
    """Give some voxels, and those in sight of each, their times from its faces' discs or squares, or from its centre."""
    size, paced, slowness = squared.size, pace.size > 1, np.float32(1.0)
    for i in range(count):
        v, face = voxel[i], side[i]
        if i == 0 or v != voxel[i - 1]:
            squared[:] = np.float32(np.inf)
        if face == MIDDLE:
            for o in range(size):
                distance = beside[o] ** 2 + beside[size + o] ** 2 + beside[2 * size + o] ** 2
                squared[o] = distance if distance < squared[o] else squared[o]
        elif not fit:
            square_distances(face, h, beside, squared)
        elif discs[END + i] > -discs[RADIUS + i]:
            disc_distances(discs, i, face // 2, beside, squared)
        if i + 1 < count and v == voxel[i + 1]:
            continue
        t = math.sqrt(squared[own]) / (scale * (pace[v] if paced else slowness))
        if t < T[v]:
            T[v] = t
        if paced:
            for lane in range(size):
                x, far = v + step[lane], math.sqrt(squared[lane])
                if far <= band and far / (scale * pace[x]) < T[x]:
                    first, last = first_line[offset[lane]], first_line[offset[lane] + 1]
                    if in_sight(T, mark, pace, v, x, way, first_way, first, last):
                        T[x] = far / (scale * pace[x])
            continue
        walls0 = walls1 = walls2 = ZERO
        for r in range(0, rows.size, 2):
            w, other = np.uint64(v + rows[r]), np.uint64(v + rows[min(r + 1, rows.size - 1)])
            bits = blocked(T, mark, w, other) << np.uint64(8 * (r % 8))
            walls0 |= bits if r < 8 else ZERO
            walls1 |= bits if 8 <= r < 16 else ZERO
            walls2 |= bits if r >= 16 else ZERO
        for group in range(0, size, 64):
            bits = ZERO
            for r in range(group // 8, min(group // 8 + 8, rows.size), 2):
                w, other = np.uint64(v + rows[r]), np.uint64(v + rows[min(r + 1, rows.size - 1)])
                bits |= closer(T, w, other, squared, np.uint64(8 * r), scale, band) << np.uint64(8 * (r % 8))
            while bits != ZERO:
                lane = np.uint64(group) + lowest_bit(bits)
                bits &= bits - ONE
                o = np.uint64(offset[lane])
                for n in range(np.uint64(first_line[o]), np.uint64(first_line[o + ONE])):
                    at = np.uint64(3) * n
                    if (over[at] & walls0 | over[at + ONE] & walls1 | over[at + TWO] & walls2) == ZERO:
                        T[np.uint64(v + step[lane])] = math.sqrt(squared[lane]) / scale
                        break
