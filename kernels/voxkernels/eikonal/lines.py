"""The straight lines along which a front is timed: close to sources, and at walls."""

from __future__ import annotations

import functools
import math
from itertools import pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import Spacing

BAND = 2.0
"""How far from a source straight lines replace the difference equation, in the smallest voxel spacing."""

TUBE = 0.9
"""How far beside a straight line, in voxels, the ways along it may run: a line may graze a wall, not pass it."""

Ints = npt.NDArray[np.int64]


@functools.lru_cache(maxsize=16)
def straight_lines(h: Spacing, band: float) -> tuple[Ints, Ints, Ints, Ints]:
    """The voxels in reach of a voxel, and the ways to each that stay close to the straight line.

    Returns offsets (K, 3), the nearest first; first_line (K + 1,), which ways lead to which; first_way (W + 1,), which
    voxels are on which way; via (V, 3), those voxels, without both ends.
    """
    radius = band + 0.5 * min(h) if band else 0.0
    reach = [range(-int(radius // d), int(radius // d) + 1) for d in h]
    length = {o: sum((i * d) ** 2 for i, d in zip(o, h, strict=True)) for o in product(*reach)}
    offsets = sorted((o for o in length if length[o] <= radius**2), key=length.__getitem__)
    ways = [close_ways(np.array(o)) for o in offsets]
    first_line = np.cumsum([0] + [len(each) for each in ways])
    first_way = np.cumsum([0] + [len(way) for each in ways for way in each])
    via = [voxel for each in ways for way in each for voxel in way]
    as_int = [np.array(a, np.int64) for a in (offsets, first_line, first_way, via)]
    return as_int[0], as_int[1], as_int[2], as_int[3].reshape(-1, 3)


@functools.lru_cache(maxsize=16)
def line_lanes(
    h: Spacing, band: float
) -> tuple[Ints, Ints, npt.NDArray[np.float32], npt.NDArray[np.uint64], npt.NDArray[np.uint16]]:
    """The lines of `straight_lines` by rows of five voxels along x, one row behind the other, three in 16 lanes.

    Returns rows (R, 3), R a multiple of 3: the offset of the first voxel; offset (16 R / 3,): which line leads to the
    voxel of a lane; length (16 R / 3,): of that line, inf where there is none; over (2 W,): the lanes that a way
    passes, two words of 64 for each (within 2.5 of the smallest spacing are 21 rows at most); and far_end (64 * 128,):
    where the line of a lane ends that begins at a voxel of a block of 4 x 4 x 4, at 128 times the voxel plus the lane:
    64 times the number of the block among the 27 around, plus the voxel in it.
    """
    offsets, _, first_way, via = straight_lines(h, band)
    left = int(offsets[:, 2].min())
    rows = sorted({(z, y) for z, y, _ in offsets.tolist()})
    rows += rows[:1] * (-len(rows) % 3)
    size = 16 * len(rows) // 3
    offset, length = np.zeros(size, np.int64), np.full(size, np.inf, np.float32)
    lane_of: dict[Any, int] = {}
    for number, (z, y, x) in enumerate(offsets.tolist()):
        row = rows.index((z, y))
        lane = lane_of[z, y, x] = 16 * (row // 3) + 5 * (row % 3) + x - left
        offset[lane], length[lane] = number, math.sqrt((z * h[0]) ** 2 + (y * h[1]) ** 2 + (x * h[2]) ** 2)
    over = np.zeros(2 * (len(first_way) - 1), np.uint64)
    for way, (begin, end) in enumerate(pairwise(first_way)):
        for voxel in via[begin:end].tolist():
            over[2 * way + lane_of[tuple(voxel)] // 64] |= np.uint64(1 << lane_of[tuple(voxel)] % 64)
    steps = np.zeros((3, 128), np.int64)
    steps[:, :size] = offsets[offset].T
    ends = np.indices((4, 4, 4)).reshape(3, 64, 1) + steps[:, None]
    blocks = np.ravel_multi_index(tuple(ends // 4 + 1), (3, 3, 3))
    voxels = np.ravel_multi_index(tuple(ends % 4), (4, 4, 4))
    as_rows = np.array([(z, y, left) for z, y in rows], np.int64)
    return as_rows, offset, length, over, (64 * blocks + voxels).astype(np.uint16).reshape(-1)


def close_ways(end: Ints) -> list[list[Ints]]:
    """Every shortest 6-connected way from (0, 0, 0) to `end` within TUBE of the line, the straightest first."""
    found: list[tuple[float, list[Ints]]] = []

    def extend(way: list[Ints], widest: float) -> None:
        here = way[-1] if way else np.zeros(3, np.int64)
        for axis in np.flatnonzero(here != end):
            voxel = here.copy()
            voxel[axis] += np.sign(end[axis])
            if (voxel == end).all():
                found.append((widest, way))
                continue
            off = math.sqrt(np.sum(np.cross(voxel, end) ** 2) / np.sum(end**2))
            if off <= TUBE:
                extend([*way, voxel], max(widest, off))

    extend([], 0.0)
    return [way for _, way in sorted(found, key=lambda each: each[0])] or [[]]
