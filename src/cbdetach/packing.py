"""How full of particles space is around each of them: counts in cells, slab by slab, then sums over cubes.

Particle voxels are counted in cells about a twentieth of the cube's side; a table of their running sums gives the count
in any cube from its eight corners. Cells that a cube cuts count by the share that is inside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Spacing = tuple[float, float, float]


def packing_cell(side_um: float, spacing: Spacing) -> tuple[int, int, int]:
    """Voxels (z, y, x) of the cells that particles are counted in: about a twentieth of the cube's side."""
    z, y, x = (max(1, round(side_um / 20 / size)) for size in spacing)
    return z, y, x


def count_cells(inside: Array, cell: tuple[int, int, int], z0: int) -> tuple[int, npt.NDArray[np.int64]]:
    """Particle voxels of each cell, for slices from z0 on: number of the first layer, and (layers, Y', X') counts.

    inside : (Z, Y, X) bool. Cells at the end of the volume are smaller. Slabs may end within a layer, and are added.
    """
    counts = np.add.reduceat(inside.astype(np.int32), np.arange(0, inside.shape[2], cell[2]), axis=2)
    counts = np.add.reduceat(counts, np.arange(0, inside.shape[1], cell[1]), axis=1)
    layer = (np.arange(z0, z0 + inside.shape[0])) // cell[0]
    starts = np.flatnonzero(np.diff(layer, prepend=layer[0] - 1))
    return int(layer[0]), np.add.reduceat(counts, starts, axis=0).astype(np.int64)


def join_cells(parts: Sequence[tuple[int, Array]], layers: int) -> npt.NDArray[np.int64]:
    """Cells of the whole volume from those of its slabs."""
    total = np.zeros((layers, *parts[0][1].shape[1:]), np.int64)
    for first, counts in parts:
        total[first : first + len(counts)] += counts
    return total


def packing(
    cells: Array,
    cell: tuple[int, int, int],
    centroids: Floats,
    *,
    side_um: float,
    shape: tuple[int, int, int],
    spacing: Spacing,
) -> dict[str, Floats]:
    """Share of particles in a cube of `side_um` around each centroid, over the part of it inside the volume.

    cells : counts of `count_cells` for the whole volume. Cells that the cube cuts count by the share that is inside it.
    """
    from scipy.ndimage import map_coordinates

    total = np.zeros(np.array(cells.shape) + 1)
    total[1:, 1:, 1:] = cells.cumsum(0).cumsum(1).cumsum(2) * math.prod(spacing)
    ends, places, room = [], [], np.ones(len(centroids))
    for axis in range(3):
        edge = np.append(np.arange(cells.shape[axis]) * cell[axis], shape[axis])
        borders = (edge - 0.5) * spacing[axis]
        low = np.clip(centroids[:, axis] - side_um / 2, borders[0], borders[-1])
        high = np.clip(centroids[:, axis] + side_um / 2, borders[0], borders[-1])
        room *= high - low
        places.append([np.interp(v, borders, np.arange(edge.size)) for v in (low, high)])
        ends.append((0, 1))
    inside = np.zeros(len(centroids))
    for i in ends[0]:
        for j in ends[1]:
            for k in ends[2]:
                sign = (-1) ** (3 - i - j - k)
                inside += sign * map_coordinates(total, [places[0][i], places[1][j], places[2][k]], order=1)
    return {
        "packing_fraction": np.divide(inside, room, out=np.full(len(room), np.nan), where=room > 0),
        "packing_known_fraction": room / side_um**3,
    }
