"""Whether the carbon/binder (CBD) is thick enough for the blur: how much of its own grey value it reaches at contacts.

A film of thickness t between two voids keeps erf(0.83 t / width) of its height in the blur: 0.44 at half a width. Films
much thinner than the blur read as void; what is left of them is dim, and tells (docs/accuracy.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbdetach.codes import CBD

HEIGHTS = np.linspace(0.0, 1.5, 61)
"""Limits of the bins in which heights are counted."""

FEWEST = 100
"""Voxels that are needed to speak of them."""

THIN = 0.45
"""Lower quartile of the heights below which the CBD is too thin for the blur."""


def height_classes(height: NDArray[np.float32], phases: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The bin of each CBD voxel's height between `HEIGHTS`, from 0; 255 elsewhere: all that is stored of heights."""
    number = np.searchsorted(HEIGHTS, np.clip(height, HEIGHTS[0], HEIGHTS[-1]), side="right") - 1
    return np.where(phases == CBD, np.minimum(number, len(HEIGHTS) - 2), 255).astype(np.uint8)


def film_heights(labels: NDArray[Any], classes: NDArray[np.uint8], core: tuple[int, int]) -> NDArray[np.int64]:
    """Histogram, between `HEIGHTS`, of the height of the CBD that particles touch, in slices of `core`.

    labels (Z, Y, X) integer particles; classes (Z, Y, X) as from `height_classes`.
    """
    from scipy.ndimage import binary_dilation

    n = len(HEIGHTS) - 1
    contact = (binary_dilation(labels > 0) & (labels == 0) & (classes < n))[core[0] : core[1]]
    return np.bincount(classes[core[0] : core[1]][contact], minlength=n).astype(np.int64)


def low_height(counts: NDArray[np.int64]) -> float | None:
    """The lower quartile of such a histogram, interpolated; None if it holds too few voxels to say.

    Not the median: where films have gone, half of what is left may be lumps, and cusps that films fill together.
    """
    if counts.sum() < FEWEST:
        return None
    below = np.append(0, np.cumsum(counts)) / counts.sum()
    return float(np.interp(0.25, below, HEIGHTS))
