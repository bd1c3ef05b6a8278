"""Grey scale and pixel scale of a slice, as the network wants them.

The network sees one grey scale and one size of particle, whatever was measured: grey values in units of the contrast
between matrix and particles, and particles about `NOMINAL_DIAMETER` pixels across. Both are found on the image by
simple means and may be wrong by a third: training varies them by more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]

NOMINAL_DIAMETER = 38.0
"""Pixels: the area-weighted median diameter that slices are scaled to. Training varies it from 20 to 52; of 32, 38 and
46, this gave the largest object F measure on synthetic validation slices."""
BINS = 512


def grey_levels(image: npt.NDArray[Any]) -> tuple[float, float]:
    """Mean grey of matrix and of particles: the two classes of Otsu's threshold on the slightly smoothed image.

    Parameters
    ----------
    image : (Y, X) or (Z, Y, X), finite, any real type.

    Raises
    ------
    ValueError : a constant image.
    """
    from scipy.ndimage import uniform_filter

    smooth = uniform_filter(np.asarray(image, np.float32), 3 if image.ndim == 2 else (0, 3, 3))
    counts, edges = np.histogram(smooth, BINS)
    return histogram_levels(counts, edges)


def histogram_levels(counts: npt.NDArray[Any], edges: npt.NDArray[Any]) -> tuple[float, float]:
    """The same from a histogram: counts (N,) and edges (N + 1,)."""
    from skimage.filters import threshold_otsu

    centres = (0.5 * (edges[:-1] + edges[1:])).astype(np.float64)
    if np.count_nonzero(counts) < 2:
        raise ValueError("image: must hold more than one grey value; got a constant image. Give another slice.")
    threshold = threshold_otsu(hist=(counts, centres))  # type: ignore[no-untyped-call]
    dark, bright = centres <= threshold, centres > threshold
    return float(np.average(centres[dark], weights=counts[dark])), float(
        np.average(centres[bright], weights=counts[bright])
    )


def normalise(image: npt.NDArray[Any], levels: tuple[float, float]) -> Image:
    """float32 image in which `levels` become 0 and 1, limited to -1..2."""
    dark, bright = levels
    scaled = (np.asarray(image, np.float32) - np.float32(dark)) / np.float32(bright - dark)
    return np.clip(scaled, -1, 2, out=scaled)


def section_diameter(labels: npt.NDArray[Any]) -> float:
    """Area-weighted median of the equivalent diameters, in pixels, of the sections in a label image; 0 without any."""
    area = np.sort(np.bincount(labels.ravel())[1:])
    area = area[area > 0]
    if area.size == 0:
        return 0.0
    share = np.cumsum(area) / area.sum()
    return float(np.sqrt(4 / np.pi * area[np.searchsorted(share, 0.5)]))


def zoomed(image: Image, shape: tuple[int, int]) -> Image:
    """The image on another grid over the same area; shrinking averages, which no detail below the new grid survives."""
    from skimage.transform import resize

    if shape == image.shape:
        return image
    shrinks = shape[0] < image.shape[0] or shape[1] < image.shape[1]
    result: Image = resize(image, shape, order=1, mode="edge", anti_aliasing=shrinks, preserve_range=True)  # type: ignore[no-untyped-call]
    return result.astype(np.float32, copy=False)
