"""What a pixel classifier sees of a voxel: grey values on a scale of the volume's own, at several scales of length.

**Grey scale.** Phases of unequal share move every percentile of a histogram; the contrast across surfaces they leave
alone. Around each pixel lie a lowest and a highest grey, `l` and `h`, within REACH_IN_PLANE pixels. Weighted by
`(h - l)^2`, the mean of `(h + l) / 2` is the grey half-way between active material and what surrounds it, and the mean
of `h - l` the contrast. The grey values that are 0 and 1 lie half a contrast below and above. Gain and offset of a scan
therefore cancel.

**Features**, slice by slice: the smoothed grey value, its gradient and the eigenvalues of its Hessian at SIGMAS
(`skimage.feature.multiscale_basic_features`), as in ilastik (Berg et al., Nature Methods 16, 1226, 2019); the lowest
and the highest grey within RADII, where between them the grey lies, and how far a closing lies above and an opening
below it, which marks what is narrower than the window (black and white top-hat: Meyer 1979; Serra, Image Analysis and
Mathematical Morphology, 1982). In three dimensions the same, besides, of the slice averaged with those on both sides,
`halo` of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SIGMAS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Scales of the features, in voxels,"""
RADII = (4, 8, 16, 32)
"""and half the sides, less half a pixel, of the square windows of lowest and highest grey."""
ACROSS, REACH = 2.0, 8  # sigma of the average over neighbouring slices, and where it ends, in slices
FLOOR = 0.1  # keeps noise from deciding where the grey lies between lowest and highest, of the contrast
REACH_IN_PLANE = 16
SLICES = 16
"""Slices, spread over a volume, that its grey scale is measured on."""


def halo(dimensions: int) -> int:
    """Slices on both sides of a slice that its features depend on."""
    return 0 if dimensions == 2 else REACH


def feature_count(dimensions: int) -> int:
    """Features of a voxel."""
    return (4 * len(SIGMAS) + 5 * len(RADII)) * (dimensions - 1)


def grey_scale(grey: Any) -> tuple[float, float]:
    """Grey values that are 0 and 1 to a classifier, for a volume (Z, Y, X) that is read slice by slice.

    A volume of one grey value v gives (v, v + 1).
    """
    from scipy.ndimage import gaussian_filter

    weight = middle = contrast = 0.0
    first = 0.0
    for z in np.unique(np.linspace(0, grey.shape[0] - 1, SLICES).round().astype(int)).tolist():
        image = np.asarray(grey[z : z + 1])[0].astype(np.float64)
        first = float(image.flat[0])
        low, high = (
            gaussian_filter(part, REACH_IN_PLANE / 3, mode="nearest")
            for part in _extremes(gaussian_filter(image, 1.0, mode="nearest"), REACH_IN_PLANE)
        )
        span = high - low
        weight += float((span**2).sum())
        middle += float((span**2 * (high + low) / 2).sum())
        contrast += float((span**3).sum())
    if not contrast > 0:
        return first, first + 1.0
    return (middle - contrast / 2) / weight, (middle + contrast / 2) / weight


def slice_features(grey: Array, z: int, scale: tuple[float, float], dimensions: int) -> NDArray[np.float32]:
    """Features (Y, X, F) of slice z of a window that has `halo` slices around, fewer only at the volume's ends."""
    from scipy.ndimage import gaussian_filter1d

    reach = halo(dimensions)
    first = max(0, z - reach)
    part = grey[first : z + reach + 1].astype(np.float32)
    part -= np.float32(scale[0])
    part /= np.float32(scale[1] - scale[0])
    images = [part[z - first]]
    if dimensions == 3:
        images.append(gaussian_filter1d(part, ACROSS, axis=0, mode="nearest", radius=REACH)[z - first])
    return np.concatenate([_image_features(image) for image in images], axis=-1, dtype=np.float32)


def _image_features(image: Array) -> Array:
    """Features (Y, X, 4 SIGMAS + 5 RADII) of one image."""
    from scipy.ndimage import gaussian_filter
    from skimage.feature import multiscale_basic_features

    compute: Any = multiscale_basic_features
    smooth = gaussian_filter(image, 1.0, mode="nearest")
    found = []
    for radius in RADII:
        low, high = _extremes(smooth, radius)
        closing, opening = _extremes(high, radius)[0], _extremes(low, radius)[1]
        low, high = (gaussian_filter(part, radius / 3, mode="nearest") for part in (low, high))
        found += [low, high, (smooth - low) / (high - low + FLOOR), closing - smooth, smooth - opening]
    basic = compute(image, sigma_min=SIGMAS[0], sigma_max=SIGMAS[-1], num_sigma=len(SIGMAS))
    return np.concatenate([basic, np.stack(found, axis=-1)], axis=-1)


def _extremes(image: Array, radius: int) -> tuple[Array, Array]:
    """Lowest and highest value within `radius` pixels along both axes."""
    from scipy.ndimage import maximum_filter, minimum_filter

    size = 2 * radius + 1
    return minimum_filter(image, size, mode="nearest"), maximum_filter(image, size, mode="nearest")
