"""Electron density of every particle: mean and spread of the grey value over its eroded solid (DEFINITIONS).

Blur and phase-contrast fringes change the grey value near every surface, so only voxels deeper than both count: the
*eroded solid*. Surfaces are those of the particle, of its cracks and pores, and of contacts with other particles; the
volume's border is none. Without erosion, blur alone correlates density with detachment; so the mean is measured at
several depths in one pass. The widths of the phases' peaks come from regions chosen by geometry.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import voxkernels as vk
from cbdetach import device
from cbdetach.arrays import along, capped_distance

Array = npt.NDArray[Any]
Spacing = tuple[float, float, float]

MIN_VOXELS = 27
"""Least size of an eroded solid whose grey value is reported."""

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
"""Depths at which densities are measured beside the erosion used, as parts of it: they show what erosion does."""

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


def erosion_depths(erosion_um: float, spacing: Spacing) -> npt.NDArray[np.float64]:
    """The depths at which densities are measured: 0 to 1.5 times the erosion used, which is one of them; (K,) um."""
    scale = erosion_um if erosion_um > 0 else 2 * max(spacing)
    return np.unique(np.append(np.array(DEPTHS) * scale, erosion_um))


def grey_of_shells(
    labels: Array,
    grey: Array,
    depth: Array,
    depths_um: Array,
    *,
    spacing: Spacing,
    core: tuple[int, int] | None = None,
    z0: int = 0,
) -> vk.RegionProperties:
    """Grey statistics of every particle's solid between two depths and the next, for the slices of `core`.

    Parameters
    ----------
    labels, grey, depth : (Z, Y, X): filled particles, grey values, and what `solid_depth` gives, right up to the
        largest of the depths.
    depths_um : (K,) ascending. Shell k is deeper than depths_um[k] and not deeper than depths_um[k + 1].
    core : slices that count; None: all.
    z0 : number of the window's first slice in the volume.

    Returns
    -------
    RegionProperties with the labels `label * K + k`, for `eroded_grey`; `vk.merge_regions` joins those of disjoint
    cores. One pass serves all depths.
    """
    lo, hi = (0, len(labels)) if core is None else core
    shell = np.searchsorted(depths_um, depth[lo:hi], side="left").astype(np.int64)  # depths that lie above the voxel
    names = np.where(shell > 0, labels[lo:hi].astype(np.int64) * len(depths_um) + shell - 1, 0)
    names[labels[lo:hi] == 0] = 0
    return device.region_properties(names, grey[lo:hi], spacing=spacing, origin=(z0 + lo, 0, 0))


@dataclass(frozen=True)
class ErodedGrey:
    """Grey statistics of the solid deeper than each depth: (N, K) each, nan where there is none."""

    count: npt.NDArray[np.int64]
    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]


def eroded_grey(shells: vk.RegionProperties, labels: Array, n_depths: int) -> ErodedGrey:
    """Shells added up from the deepest outwards (Chan, Golub and LeVeque 1983), aligned with `labels` (N,)."""
    assert shells.mean is not None
    assert shells.std is not None
    count = np.zeros((labels.size, n_depths), dtype=np.int64)
    mean, square = np.zeros(count.shape), np.zeros(count.shape)
    row, k = np.searchsorted(labels, shells.labels // n_depths), shells.labels % n_depths
    count[row, k], mean[row, k] = shells.count, shells.mean
    square[row, k] = np.square(shells.std) * shells.count
    for shallow in range(n_depths - 2, -1, -1):
        deep = shallow + 1
        total = count[:, shallow] + count[:, deep]
        share = count[:, deep] / np.maximum(total, 1)
        step = mean[:, deep] - mean[:, shallow]
        square[:, shallow] += square[:, deep] + np.square(step) * share * count[:, shallow]
        mean[:, shallow] += step * share
        count[:, shallow] = total
    known = count > 0
    std = np.sqrt(square / np.maximum(count, 1))
    return ErodedGrey(count, np.where(known, mean, np.nan), np.where(known, std, np.nan))


def to_density(
    mean: Array, std: Array, calibration: tuple[float, float] | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Grey values as electrons per cubic angstrom, where the grey values of void and of aluminium are known."""
    if calibration is None:
        return np.asarray(mean, np.float64), np.asarray(std, np.float64)
    void, aluminium = calibration
    scale = ALUMINIUM / (aluminium - void)
    return np.asarray((mean - void) * scale), np.asarray(std * abs(scale))


def density_columns(
    eroded: ErodedGrey, at: int, *, calibration: tuple[float, float] | None = None
) -> dict[str, npt.NDArray[np.float64]]:
    """Columns `density_mean`, `density_std` at depth number `at`; nan for particles that have no eroded solid.

    calibration : grey values of void and of aluminium in this volume; then the columns are electrons per cubic angstrom
        (two points: void 0, aluminium 0.783), which compare between volumes. None: grey values, which do not.
    """
    enough = eroded.count[:, at] >= MIN_VOXELS
    mean, std = (np.where(enough, values[:, at], np.nan) for values in (eroded.mean, eroded.std))
    mean, std = to_density(mean, std, calibration)
    return {"density_mean": mean, "density_std": std}


# ---- peaks ----------------------------------------------------------------------------------------------------------


def deep_regions(
    labels: Array,
    phases: Array,
    wanted: Mapping[str, Sequence[int]],
    *,
    spacing: Spacing,
    depths_um: Mapping[str, float],
) -> dict[str, npt.NDArray[np.bool_]]:
    """Regions of single phases, chosen by geometry and not by grey value.

    Parameters
    ----------
    labels : (Z, Y, X) filled particles.
    phases : (Z, Y, X) uint8 phase codes.
    wanted : name of each region, and the codes that belong to it; the region `active` lies inside particles.
    depths_um : for each region how deep under its surface it begins.

    A phase is first smoothed by the majority of each voxel's 3 x 3 x 3 neighbours. Otherwise a voxel whose own grey
    value strays over a threshold would be left out, and the tails of the peak be cut off.
    """
    from scipy.ndimage import uniform_filter

    regions = {}
    for name, codes in wanted.items():
        own = np.isin(phases, codes) & (labels > 0 if name == "active" else labels == 0)
        if not own.any():
            regions[name] = own
            continue
        smooth = uniform_filter(own.astype(np.float32), size=3, mode="nearest") > 0.5
        depth = capped_distance(smooth, spacing=spacing, reach=depths_um[name] + min(spacing))
        regions[name] = smooth & (depth - min(spacing) / 2 > depths_um[name])
    return regions


def grey_histograms(
    grey: Array, regions: Mapping[str, Array], edges: Array, *, core: tuple[int, int]
) -> dict[str, npt.NDArray[np.int64]]:
    """Histogram of the grey values of each region, for the slices of `core`."""
    part = slice(*core)
    return {name: np.histogram(grey[part][inside[part]], edges)[0].astype(np.int64) for name, inside in regions.items()}
