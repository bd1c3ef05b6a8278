"""Travel time on the CPU: the piece of surface behind a contact face, and the distances from there.

It is a disc of the plane through the surface, cut off where the source ends.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._compile import jit
from .cpu_boxes import OUTSIDE
from .cpu_lots import (
    AHEAD,
    AHEAD_1,
    AHEAD_2,
    CENTRE,
    CENTRE_1,
    CENTRE_2,
    END,
    HEIGHT,
    NORMAL,
    NORMAL_1,
    NORMAL_2,
    ONE_H,
    RADIUS,
    RIM,
    RIM_1,
    RIM_2,
    RIM_END,
    RIM_SUM,
    SIDE,
    SLOPE_1,
    SLOPE_2,
    TWO_H,
    UP_H,
    ZERO,
    steps_of,
)

DISC = 0.4  # radius of a disc, in voxels along the face
SHIFT, WIDEN = 0.2, 0.15  # how far a disc moves towards a rim that its source does not touch, and how much it grows
STEEP = 2.0  # squared slope above which another axis sees the surface better
EVEN = 1e-6  # by which part one has to be more than another: between equals rounding does not choose
FILM = 1e-9  # a rim as flat on the disc as this is no rim: the source is a film


@jit
def make_discs(known: Any, count: int, disc: Any) -> None:
    """The discs behind some faces, as lengths from the voxels' centres, and along the face's own axes.

    Of a disc the part counts where AHEAD . (x - centre) <= END, AHEAD a unit vector along it (0, and END = inf, if all
    of it does). END = -inf if another face represents this piece of surface better.
    """
    for i in range(count):
        h, h1, h2, side = known[UP_H + i], known[ONE_H + i], known[TWO_H + i], known[SIDE + i]
        a, b = known[SLOPE_1 + i], known[SLOPE_2 + i]
        g, g1, g2 = side / h, -a / h1, -b / h2  # the plane: side x - a x1 - b x2 = 1/2 + height, in voxels
        steep = math.sqrt(g * g + g1 * g1 + g2 * g2)
        n, n1, n2 = g / steep, g1 / steep, g2 / steep
        off = (0.5 - known[HEIGHT + i]) / steep  # the disc is where the source voxel's centre projects to
        c, c1, c2 = side * h - off * n, -off * n1, -off * n2
        rim, rim1, rim2, limit = known[RIM + i], known[RIM_1 + i], known[RIM_2 + i], known[RIM_END + i]
        r, r1, r2 = rim / h, rim1 / h1, rim2 / h2
        out = r * n + r1 * n1 + r2 * n2
        a0, a1, a2 = r - out * n, r1 - out * n1, r2 - out * n2
        slope = math.sqrt(a0 * a0 + a1 * a1 + a2 * a2)
        cut = slope > FILM * abs(out)  # not where there is no rim: nan
        slope = slope if cut else 1.0
        end = (limit - r * c - r1 * c1 - r2 * c2) / slope if cut else np.inf
        disc[CENTRE + i], disc[CENTRE_1 + i], disc[CENTRE_2 + i] = c, c1, c2
        disc[NORMAL + i], disc[NORMAL_1 + i], disc[NORMAL_2 + i] = n, n1, n2
        disc[AHEAD + i] = a0 / slope if cut else 0.0
        disc[AHEAD_1 + i] = a1 / slope if cut else 0.0
        disc[AHEAD_2 + i] = a2 / slope if cut else 0.0
        disc[END + i] = end if a * a + b * b <= STEEP else -np.inf
        disc[RADIUS + i] = DISC * math.sqrt(h1 * h2)


@jit
def end_discs(
    columns: Any, mark: Any, sz: int, sy: int, voxel: Any, side: Any, count: int, known: Any, disc: Any
) -> None:
    """Move discs whose source does not reach up to its rim; do not cut those that end with their last voxel."""
    for i in range(count):
        if not -np.inf < disc[END + i] < np.inf:
            continue
        axis, high = side[i] // 2, side[i] % 2
        sign = 2 * high - 1
        up, along, across = steps_of(axis, sz, sy)
        first = abs(disc[AHEAD_1 + i]) >= abs(disc[AHEAD_2 + i]) - EVEN
        p = np.int64(math.copysign(1.0, disc[AHEAD_1 + i])) if first else 0
        q = 0 if first else np.int64(math.copysign(1.0, disc[AHEAD_2 + i]))
        beside = voxel[i] + p * along + q * across
        code = np.int64(columns[np.uint64(axis * (columns.size // 3) + beside)]) >> (3 * high) & 7
        past = known[RIM + i] * sign * (code - 3) + known[RIM_1 + i] * p + known[RIM_2 + i] * q - known[RIM_END + i]
        least = EVEN * (abs(known[RIM + i]) + abs(known[RIM_1 + i]) + abs(known[RIM_2 + i]))
        if code and past > least and mark[np.uint64(beside + (code - 3) * sign * up)] < OUTSIDE:
            size = disc[RADIUS + i] / DISC  # no source voxel fits between the rim and the surface
            disc[CENTRE + i] += SHIFT * size * disc[AHEAD + i]
            disc[CENTRE_1 + i] += SHIFT * size * disc[AHEAD_1 + i]
            disc[CENTRE_2 + i] += SHIFT * size * disc[AHEAD_2 + i]
            disc[END + i] -= SHIFT * size
            disc[RADIUS + i] += WIDEN * size
        elif known[SLOPE_1 + i] == 0.0 and known[SLOPE_2 + i] == 0.0 and known[RIM_SUM + i] * sign >= 0.0:
            disc[END + i] = np.inf  # a flat face ends with its last voxel, unless overhung


@jit(inline=True)
def disc_distances(disc: Any, i: int, axis: int, beside: Any, squared: Any) -> None:
    """Lower the squared distances to the voxels beside one, (3 K,) lengths, by those from the disc of a face of it."""
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
            off: Any = math.sqrt(flat if flat > zero else zero) - radius
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
        far = flat if flat > whole else whole
        beyond = ahead * abs(ahead) * whole > steep * far  # so is the nearest point of the whole disc
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
