"""Cracks that gape: once particles are told apart, each is closed on its own, over wider cracks than before.

A crack that opens to the outside wider than `[segment] close_um` is not bridged when particles are split, as a wider
closing would merge neighbours. Its void then lies outside its particle, and is no damage. Here every particle is closed
alone, and merges with none; a convex one stays as it is. Only void is taken: carbon/binder in a hollow is a contact.
What the closings of two particles share lies between them, and stays outside both.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach.arrays import reaching_deeper, surface_depth

Mask = npt.NDArray[np.bool_]
Spacing = tuple[float, float, float]


def bridge_halo(width_um: float, spacing: Spacing) -> int:
    """Slices around a slab that `bridge_cracks` needs, but for hollows that are cut by their end."""
    return 4 * (math.ceil(_radius(width_um, spacing) / spacing[0]) + 1) if width_um > 0 else 0


def bridge_cracks(labels: npt.NDArray[Any], void: Mask, *, spacing: Spacing, width_um: float) -> None:
    """Give the void of gaping cracks to the particle that they are in; in place.

    Parameters
    ----------
    labels : (Z, Y, X) integer, filled particles; 0 is outside.
    void : (Z, Y, X) bool, voxels of void.
    spacing : voxel size (dz, dy, dx), um.
    width_um : hollows that no ball of this diameter fits into, give or take a voxel, are bridged where they are deeper
        than half of it; 0 bridges none. What lies beyond the window counts as outside.
    """
    from scipy.ndimage import find_objects

    if width_um <= 0:
        return
    radius = _radius(width_um, spacing)
    rows = _ball(radius, spacing)
    margin = [2 * (int(radius / step) + 1) for step in spacing]
    free = void & (labels == 0)
    owner = np.zeros(labels.shape, labels.dtype)
    twice = np.zeros(labels.shape, np.bool_)
    for label, part in [(n, box) for n, box in enumerate(find_objects(labels), 1) if box is not None]:
        mine = np.pad(labels[part] == label, [(n, n) for n in margin])
        closed = ~_grown(~_grown(mine, rows), rows)[tuple(slice(n, -n) for n in margin)]  # adds nothing beyond the box
        added = closed & free[part]
        twice[part] |= added & (owner[part] > 0)
        owner[part][added] = label
    new = (owner > 0) & ~twice
    labels[new] = owner[new]
    depth = surface_depth(labels, spacing=spacing, reach=radius)
    labels[new & ~reaching_deeper(labels, void & (labels > 0), depth, radius)] = 0


def _radius(width_um: float, spacing: Spacing) -> float:
    return width_um / 2 + min(spacing) / 2


def _ball(radius: float, spacing: Spacing) -> list[tuple[int, int, int]]:
    """A ball as rows along x: (shift along z, along y, half length), the shortest rows first."""
    dz, dy, dx = spacing
    nz, ny = int(radius / dz), int(radius / dy)
    rows = [
        (k, j, int(math.sqrt(max(rest, 0.0)) / dx + 1e-9))
        for k in range(-nz, nz + 1)
        for j in range(-ny, ny + 1)
        if (rest := radius**2 - (k * dz) ** 2 - (j * dy) ** 2) >= -1e-9
    ]
    return sorted(rows, key=lambda row: row[2])


def _grown(mask: Mask, rows: list[tuple[int, int, int]]) -> Mask:
    """Dilation of a mask by a ball of `_ball`."""
    grown = np.zeros_like(mask)
    wide, width = mask.copy(), 0
    for k, j, length in rows:
        while width < length:
            width += 1
            wide[:, :, width:] |= mask[:, :, :-width]
            wide[:, :, :-width] |= mask[:, :, width:]
        here, there = zip(_shifted(k), _shifted(j), strict=True)
        grown[here] |= wide[there]
    return grown


def _shifted(n: int) -> tuple[slice, slice]:
    """Two views of an axis, the first `n` further on."""
    first, second = slice(max(n, 0), min(n, 0) or None), slice(max(-n, 0), min(-n, 0) or None)
    return first, second
