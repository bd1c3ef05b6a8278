"""The Crofton estimator: rays to all 26-neighbours, voxel by voxel (Lang, Ohser and Hilfer, J. Microsc. 203, 2001)."""

import numpy as np

from .._compile import jit
from .cpu_table import COUNTS, slot_of

# One of each pair of opposite directions to the 26-neighbours; the first three are the axes
DIRECTIONS = (
    (1, 0, 0),
    (0, 1, 0),
    (0, 0, 1),
    (0, 1, 1),
    (0, 1, -1),
    (1, 0, 1),
    (1, 0, -1),
    (1, 1, 0),
    (1, -1, 0),
    (1, 1, 1),
    (1, 1, -1),
    (1, -1, 1),
    (1, -1, -1),
)


@jit
def clamp(i, n):
    """Index i of an axis of n voxels; beyond its ends, the last voxel continues."""
    return min(max(i, 0), n - 1)


@jit
def mark_surface(labels, z, y, mask):
    """Set mask[x] where voxel (z, y, x) is labelled and one of its 26 neighbours differs, or is missing."""
    n_z, n_y, n_x = labels.shape
    own = labels[z, y]
    mask[0] = mask[n_x - 1] = 1
    for x in range(1, n_x - 1):
        mask[x] = (own[x] != own[x - 1]) | (own[x] != own[x + 1])
    for dz in range(-1, 2):
        for dy in range(-1, 2):
            if dz == 0 and dy == 0:
                continue
            if z + dz < 0 or z + dz >= n_z or y + dy < 0 or y + dy >= n_y:
                for x in range(n_x):
                    mask[x] = 1
                continue
            other = labels[z + dz, y + dy]
            for x in range(n_x):
                mask[x] |= own[x] != other[x]
            for x in range(1, n_x - 1):
                mask[x] |= (own[x] != other[x - 1]) | (own[x] != other[x + 1])
    for x in range(n_x):
        mask[x] &= own[x] != 0


@jit
def count_rays(labels, phases, mouth, solid, start, stop, table, used):
    """Count the rays from the voxels in slices start..stop-1 to all 26-neighbours, but those along the axes that leave.

    used[0] = -1 if the table is too small.
    """
    n_z, n_y, n_x = labels.shape
    masked = solid.size > 0
    mask = np.empty(n_x, np.uint8)
    for z in range(start, stop):
        for y in range(n_y):
            mark_surface(labels, z, y, mask)
            for x in range(n_x):
                if mask[x] == 0:
                    continue
                own = np.int64(labels[z, y, x])
                for ray in range(13):
                    dz, dy, dx = DIRECTIONS[ray]
                    for sign in (-1, 1):
                        u, v, w = z + sign * dz, y + sign * dy, x + sign * dx
                        if u < 0 or u >= n_z or v < 0 or v >= n_y or w < 0 or w >= n_x:
                            if ray < 3:
                                continue
                            u, v, w = clamp(u, n_z), clamp(v, n_y), clamp(w, n_x)
                        facing = np.int64(labels[u, v, w])
                        if facing == own:
                            continue
                        label, target = own, np.int64(-1) - np.int64(phases[u, v, w])
                        if facing != 0:
                            label, target = min(own, facing), max(own, facing)
                        elif masked and not solid[z, y, x]:
                            target = np.int64(-1 - mouth)
                        slot = slot_of(table, used, label, target)
                        if slot < 0:
                            return
                        if facing == 0 or sign > 0 or ray >= 3:
                            table[slot, COUNTS + ray] += 1
