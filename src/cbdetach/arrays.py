"""Two helpers on arrays that several stages share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK = 24
"""Slices that `capped_distance` works on at a time."""


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

    n = len(mask)
    halo = n if math.isinf(reach) else math.ceil(reach / spacing[0])
    step = max(BLOCK, halo)
    result = np.zeros(mask.shape, dtype=np.float32)
    for z in range(0, n, step):
        lo, hi = max(0, z - halo), min(n, z + step + halo)
        block, core = mask[lo:hi], slice(z - lo, z - lo + step)
        if not block[core].any():
            continue
        if block.all():
            result[z : z + step] = np.inf
            continue
        distance = distance_transform_edt(block, sampling=spacing)[core]
        result[z : z + step] = np.where(distance > reach, np.inf, distance)
    return result
