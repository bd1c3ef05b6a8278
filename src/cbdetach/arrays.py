"""Helpers on arrays that several stages share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach import device

BLOCK = 24
"""Slices that distances are found on at a time."""


def along(axis: int, lo: int | None, hi: int | None) -> tuple[slice, slice, slice]:
    """Index of lo..hi along one axis, everything along the others."""
    index = [slice(None)] * 3
    index[axis] = slice(lo, hi)
    return index[0], index[1], index[2]


def capped_distance(
    mask: npt.NDArray[Any], *, spacing: tuple[float, float, float], reach: float = math.inf
) -> npt.NDArray[np.float32]:
    """Distance of every voxel of a mask to the nearest voxel centre outside it; 0 outside the mask.

    Parameters
    ----------
    mask : (Z, Y, X) bool. The ends of the array are not outside.
    spacing : voxel size (dz, dy, dx).
    reach : distances beyond it are inf. The smaller it is, the less memory is needed: scipy's distance transform takes
        about 80 bytes per voxel, here of `BLOCK` slices and `reach` on either side.
    """
    from scipy.ndimage import distance_transform_edt

    result = np.zeros(mask.shape, dtype=np.float32)
    for window, core, here in blocks(len(mask), spacing[0], reach):
        block = mask[window]
        if not block[core].any():
            continue
        if block.all():
            result[here] = np.inf
            continue
        distance = distance_transform_edt(block, sampling=spacing)[core]
        result[here] = np.where(distance > reach, np.inf, distance)
    return result


def blocks(n: int, dz: float, reach: float) -> Iterator[tuple[slice, slice, slice]]:
    """Blocks of `BLOCK` of n slices, or of `reach` where that is more, each with `reach` on either side.

    Yields the slices of the block with what is on either side, the block's own among these, and its own in the whole.
    """
    halo = n if math.isinf(reach) else math.ceil(reach / dz)
    step = max(BLOCK, halo)
    for z in range(0, n, step):
        lo, hi = max(0, z - halo), min(n, z + step + halo)
        yield slice(lo, hi), slice(z - lo, min(n, z + step) - lo), slice(z, min(n, z + step))


def expanded(labels: npt.NDArray[Any], *, spacing: tuple[float, float, float], reach: float) -> npt.NDArray[Any]:
    """Labels (Z, Y, X), and in the voxels of 0 within `reach` of one the label of the nearest; block by block."""
    from skimage.segmentation import expand_labels

    result = labels.copy()
    for window, core, here in blocks(len(labels), spacing[0], reach):
        if labels[window].any():
            grown = expand_labels(labels[window], distance=reach, spacing=spacing)  # type: ignore[no-untyped-call]
            result[here] = grown[core]
    return result


def surface_depth(
    labels: npt.NDArray[Any], *, spacing: tuple[float, float, float], reach: float
) -> npt.NDArray[np.float32]:
    """Depth of every voxel under the nearest surface between two labels, or a label and the outside; inf past `reach`.

    A voxel at a surface is half a voxel deep. The volume's border is no surface: what lies at a cut may go on beyond.
    """
    surface = np.zeros(labels.shape, dtype=np.bool_)
    for axis in range(3):
        lower, upper = along(axis, None, -1), along(axis, 1, None)
        apart = labels[lower] != labels[upper]
        surface[lower] |= apart
        surface[upper] |= apart
    depth = capped_distance(~surface, spacing=spacing, reach=reach)
    depth += np.float32(min(spacing) / 2)
    return depth


def reaching_deeper(
    labels: npt.NDArray[Any], dark: npt.NDArray[Any], depth: npt.NDArray[Any], depth_um: float
) -> npt.NDArray[np.bool_]:
    """The dark pieces of each particle of which some voxel lies deeper than `depth_um`.

    What is left out are *notches*: hollows of the surface that the outline of a filled particle bridges.

    labels (Z, Y, X) integer, filled particles; dark (Z, Y, X) bool, voxels of particles; depth: of `surface_depth`,
    whose reach is at least `depth_um`.
    """
    pieces, n = device.label(np.where(dark, labels, 0), connectivity=26)
    kept = np.zeros(n + 1, dtype=np.bool_)
    kept[pieces[dark & (depth > depth_um * (1 + 1e-6))]] = True
    return np.asarray(kept[pieces] & dark)
