"""Travel time on the CPU: the straight-line times of the voxels close to a source."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._compile import jit
from .cpu_blocks import closer, lowest_bit, touching, walls
from .cpu_boxes import INSIDE
from .cpu_components import with_room
from .cpu_discs import disc_distances, end_discs, make_discs, square_distances
from .cpu_lots import DISCS, END, KNOWN, LANES, MIDDLE, ONE, RADIUS, TWO, ZERO
from .cpu_rims import find_rims, mark_ends
from .cpu_sight import in_sight, lanes_in_box, ways_in_box
from .cpu_surface import find_windows, fit_planes, mark_columns, mark_surface


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
    T: Any,
    kind: Any,
    mark: Any,
    pace: Any,
    shape: Any,
    h: Any,
    scale: float,
    fit: bool,
    band: float,
    lines: Any,
    rim: int,
) -> None:
    """Give the voxels within `band` of a source, and every voxel that touches one, their straight-line time.

    Sources less than `rim` voxels from the sides of the box are left out. scale : a power of 2 that makes steps about
    1, for arithmetic in 32 bits.
    """
    offsets, first_line, first_way, via, rows, offset, length, over, _ = lines
    sz, sy, steps = shape[1] * shape[2], shape[2], h * scale
    step, way = lanes_in_box(rows, shape), ways_in_box(via, shape)
    small, squared, beside = (
        steps.astype(np.float32),
        np.empty(step.size, np.float32),
        np.empty((3, step.size), np.float32),
    )
    for axis in range(3):
        for o in range(step.size):
            beside[axis, o] = offsets[offset[o], axis] * steps[axis] if length[o] < np.inf else np.inf
    surface, columns = np.empty(T.size if fit else 0, np.uint8), np.empty(3 * T.size if fit else 0, np.uint8)
    if fit:
        mark_surface(kind, shape, surface)
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
            T, kind, pace, voxel, side, count, fit, small, discs, beside.reshape(-1), squared, length, step,
            offset, way, first_way, first_line, over, np.float32(scale), np.float32(band * scale),
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
    kind: Any,
    pace: Any,
    voxel: Any,
    side: Any,
    count: int,
    fit: bool,
    h: Any,
    discs: Any,
    beside: Any,
    squared: Any,
    length: Any,
    step: Any,
    offset: Any,
    way: Any,
    first_way: Any,
    first_line: Any,
    over: Any,
    scale: Any,
    band: Any,
) -> None:
    """Give some voxels, and those in sight of each, their times from its discs or squares, or from its centre."""
    size, paced, slowness, own = squared.size, pace.size > 1, np.float32(1.0), np.argmin(length)
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
            for o in range(size):
                x, far = v + step[o], math.sqrt(squared[o])
                if far <= band and far / (scale * pace[x]) < T[x]:
                    first, last = first_line[offset[o]], first_line[offset[o] + 1]
                    if in_sight(kind, pace, v, x, way, first_way, first, last):
                        T[x] = far / (scale * pace[x])
            continue
        # as `in_sight`, with what is in the way, and each way, as bits of lanes
        walls0 = walls1 = ZERO
        for o in range(0, size, 16):
            one, two, three = np.uint64(v + step[o]), np.uint64(v + step[o + 5]), np.uint64(v + step[o + 10])
            bits = walls(kind, one, two, three) << np.uint64(o % 64)
            walls0 |= bits if o < 64 else ZERO
            walls1 |= bits if o >= 64 else ZERO
        for group in range(0, size, 64):
            bits = ZERO
            for o in range(group, min(group + 64, size), 16):
                one, two, three = np.uint64(v + step[o]), np.uint64(v + step[o + 5]), np.uint64(v + step[o + 10])
                bits |= closer(T, one, two, three, squared, np.uint64(o), scale, band) << np.uint64(o - group)
            while bits != ZERO:
                lane = np.uint64(group) + lowest_bit(bits)
                bits &= bits - ONE
                line = np.uint64(offset[lane])
                for n in range(np.uint64(first_line[line]), np.uint64(first_line[line + ONE])):
                    if (over[TWO * n] & walls0 | over[TWO * n + ONE] & walls1) == ZERO:
                        T[np.uint64(v + step[lane])] = math.sqrt(squared[lane]) / scale
                        break
