"""Electron density of every particle: mean and spread of the grey value over its eroded solid (DEFINITIONS).

Blur and phase-contrast fringes change the grey value near every surface, so only voxels deeper than both count: the
*eroded solid*. Surfaces are those of the particle, of its cracks and pores, and of contacts with other particles; the
volume's border is none. Without erosion, blur alone correlates density with detachment.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

import voxkernels as vk
from cbdetach.arrays import along, capped_distance

Array = npt.NDArray[Any]
Spacing = tuple[float, float, float]

MIN_VOXELS = 27
"""Least size of an eroded solid whose grey value is reported."""

ALUMINIUM = 0.783
"""Electrons per cubic angstrom of aluminium, the second point of the calibration (void is 0)."""


def default_erosion_um(spacing: Spacing, edge_width_um: float = 0.0) -> float:
    """Depth from which the grey value counts, where none is set: twice the blur's full width, at least two voxels.

    A Gaussian edge has ended at one full width; the second is for the fringe beside it.
    """
    return max(2 * max(spacing), 2 * edge_width_um)


def halo(spacing: Spacing, erosion_um: float) -> int:
    """Slices that a window needs beyond the slices that are measured, on each side."""
    return math.ceil(erosion_um / spacing[0]) + 1


def solid_depth(
    labels: Array, active: Array, *, spacing: Spacing, reach_um: float = math.inf
) -> npt.NDArray[np.float32]:
    """Depth of every voxel of the solid under the nearest surface of any kind, micrometres; 0 elsewhere.

    Parameters
    ----------
    labels : (Z, Y, X) integer, filled particles; 0 is outside.
    active : (Z, Y, X) bool, voxels of active material.
    spacing : voxel size (dz, dy, dx), micrometres.
    reach_um : depths beyond it are inf, which saves memory: give the erosion.

    The first voxel under a flat surface lies half a voxel deep (with unequal voxels half of the shortest edge). Inf
    where no surface is in the window. Right up to the depth of the slices that the window has beyond those it is for.
    """
    owner = np.where(active, labels, 0)
    solid = owner > 0
    inner = solid.copy()
    for axis in range(3):
        lower, upper = along(axis, None, -1), along(axis, 1, None)
        same = owner[lower] == owner[upper]
        inner[lower] &= same
        inner[upper] &= same
    depth = capped_distance(inner, spacing=spacing, reach=reach_um)
    depth[solid] += np.float32(min(spacing) / 2)
    return depth


def grey_of_solid(
    labels: Array,
    grey: Array,
    depth: Array,
    *,
    spacing: Spacing,
    erosion_um: float,
    core: tuple[int, int] | None = None,
    z0: int = 0,
) -> vk.RegionProperties:
    """Grey statistics of every particle over its solid deeper than `erosion_um`, for the slices of `core`.

    Parameters
    ----------
    labels, grey, depth : (Z, Y, X): filled particles, grey values, and what `solid_depth` gives.
    core : slices that count; None: all.
    z0 : number of the window's first slice in the volume.

    Returns
    -------
    RegionProperties of the eroded solids; `vk.merge_regions` joins those of disjoint cores.
    """
    lo, hi = (0, len(labels)) if core is None else core
    eroded = np.where(depth[lo:hi] > erosion_um, labels[lo:hi], 0)
    return vk.region_properties(eroded, grey[lo:hi], spacing=spacing, origin=(z0 + lo, 0, 0))


def density_columns(
    eroded: vk.RegionProperties, labels: Array, *, calibration: tuple[float, float] | None = None
) -> dict[str, npt.NDArray[np.float64]]:
    """Columns `density_mean`, `density_std`, aligned with `labels` (N,); nan for particles that have no eroded solid.

    calibration : grey values of void and of aluminium in this volume; then the columns are electrons per cubic angstrom
        (two points: void 0, aluminium 0.783), which compare between volumes. None: grey values, which do not.
    """
    mean, std = np.full(labels.size, np.nan), np.full(labels.size, np.nan)
    assert eroded.mean is not None
    assert eroded.std is not None
    enough = eroded.count >= MIN_VOXELS
    row = np.searchsorted(labels, eroded.labels[enough])
    mean[row], std[row] = eroded.mean[enough], eroded.std[enough]
    if calibration is not None:
        void, aluminium = calibration
        scale = ALUMINIUM / (aluminium - void)
        mean, std = (mean - void) * scale, std * abs(scale)
    return {"density_mean": mean, "density_std": std}
