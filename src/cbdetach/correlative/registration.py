"""Where a projection lies on a map: rotation, scale and shift by mutual information."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach.correlative.correlation import pearson

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

COARSE = 36
"""Pixels across the particle in the first search, which tries every angle;"""

KEPT = 6
"""from which so many starting points are followed."""


@dataclass(frozen=True)
class Registration:
    """Where the projection lies on the map: point p (um, from the middle of the projection) comes to
    middle of the map + shift + scale R(rotation) p; a positive rotation turns rows towards columns."""

    rotation_deg: float
    scale: float
    shift_um: tuple[float, float]  # down, right
    score: float  # mutual information, nats a pixel (see `agreement`)
    overlap: float  # common outline / union of both


@dataclass(frozen=True)
class _Picture:
    """An image at some pixel size: its values, nan where there is none, and the body that it is of."""

    values: Floats
    inside: Floats  # 0 to 1, as soft as the values are blurred


def resample(
    image: Floats,
    pixel_um: float,
    shape: tuple[int, int],
    map_pixel_um: float,
    where: tuple[float, float, float, float],
) -> Floats:
    """The image on the map's pixels. `where`: rotation (degrees), scale, shift down and right (um); nan outside."""
    known = np.isfinite(image)
    value = _resampled(np.where(known, image, 0.0), pixel_um, shape, map_pixel_um, where)
    share = _resampled(known.astype(np.float64), pixel_um, shape, map_pixel_um, where)
    return np.asarray(np.divide(value, share, out=np.full(shape, np.nan), where=share > 0.5), dtype=np.float64)


def _resampled(
    image: Floats,
    pixel_um: float,
    shape: tuple[int, int],
    map_pixel_um: float,
    where: tuple[float, float, float, float],
) -> Floats:
    """The image on the map's pixels, linear between its own, 0 outside."""
    from scipy.ndimage import affine_transform

    rotation, scale, down, right = where
    c, s = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    turn = np.array([[c, s], [-s, c]]) / scale * (map_pixel_um / pixel_um)  # inverse of scale R
    middle_map = (np.array(shape) - 1) / 2 + np.array([down, right]) / map_pixel_um
    offset = (np.array(image.shape) - 1) / 2 - turn @ middle_map
    return np.asarray(affine_transform(image, turn, offset, output_shape=shape, order=1), dtype=np.float64)


def agreement(r: Any, valued: Any, common: Any, first: Any, second: Any) -> Any:
    """How much one image tells about the other: mutual information in nats a pixel of a field of both areas.

    Parameters
    ----------
    r, valued : Pearson's r, and the pixels that it is over.
    common, first, second : pixels in both outlines, and in each.

    The first part is that of the outlines: whether a pixel lies in the one tells whether it lies in the other. The
    second is that of the values of a pixel that has two, as Gaussian variables: -log(1 - r^2) / 2, negative for r < 0.
    Numbers or arrays.
    """
    field = first + second
    both = np.minimum(common, np.minimum(first, second)) / field
    a, b = first / field, second / field

    def share(p: Any, expected: Any) -> Any:
        p = np.maximum(p, 1e-12)
        return p * np.log(p / expected)

    outlines = share(both, a * b) + share(a - both, a * (1 - b)) + share(b - both, (1 - a) * b)
    outlines = outlines + share(1 - a - b + both, (1 - a) * (1 - b))
    return outlines - np.sign(r) * valued / field * 0.5 * np.log1p(-np.minimum(np.square(r), 1 - 1e-9))


def register(
    density: Floats,
    pixel_um: float,
    target: Floats,
    map_pixel_um: float,
    *,
    outline: Array | None = None,
    rotation_deg: tuple[float, float] = (-180.0, 180.0),
    scale: tuple[float, float] = (0.9, 1.1),
    sign: int = 1,
) -> Registration:
    """Rotation, scale and shift of the projection that tell most about the map.

    Parameters
    ----------
    density, target : images, nan where there are no values; pixel_um, map_pixel_um : their pixel sizes.
    outline : (H, W) bool, of the projection, which may be wider than its values; None: where there are values. That of
        the map is where it has values.
    rotation_deg, scale : range that is searched. sign : -1 where high density goes with low values.

    What is maximised is the mutual information (`agreement`; Viola and Wells, Int. J. Comput. Vision 24, 137, 1997):
    Pearson's r alone grows as the common mask shrinks, and the outlines alone say little about a round particle. First
    every angle and scale on a coarse grid, with the best shift of each by masked Fourier correlation (Padfield, IEEE
    Trans. Image Process. 21, 2706, 2012); then the best few by Nelder-Mead on finer and finer images, blurred by one
    pixel.
    """
    from scipy.optimize import minimize

    across = np.sqrt(np.isfinite(target).sum()) * map_pixel_um * 1.13
    coarse = max(across / COARSE, map_pixel_um, pixel_um)
    body = np.isfinite(density) if outline is None else outline

    def pair(wanted_um: float, sigma: float) -> tuple[_Picture, _Picture]:
        return (
            _at_pixel(density, body, pixel_um, wanted_um, sigma),
            _at_pixel(sign * target, np.isfinite(target), map_pixel_um, wanted_um, sigma),
        )

    a, b = pair(coarse, 0.5)
    step = np.degrees(2.0 / COARSE)
    n_angles = max(1, int(np.ceil((rotation_deg[1] - rotation_deg[0]) / step)))
    angles = np.linspace(*rotation_deg, n_angles + 1)
    if rotation_deg[1] - rotation_deg[0] >= 360:
        angles = angles[:-1]
    scales = np.geomspace(*scale, max(1, int(np.ceil(np.log(scale[1] / scale[0]) / 0.04))) + 1)
    found = sorted(
        (_best_shift(a, b, coarse, float(angle), float(size)) for angle in angles for size in np.unique(scales)),
        key=lambda one: -one[0],
    )
    starts = [where for _, where in found[:KEPT]]
    fine = max(map_pixel_um, pixel_um)
    for pixel in (coarse, fine):
        smooth = pair(pixel, 1.0)

        def loss(x: Floats, smooth: tuple[_Picture, _Picture] = smooth, pixel: float = pixel) -> float:
            """Minus the score, and a slope back into the ranges."""
            outside = max(0.0, x[0] - rotation_deg[1], rotation_deg[0] - x[0]) / 10.0
            outside += 10 * max(0.0, x[1] - scale[1], scale[0] - x[1])
            where = (float(x[0]), max(float(x[1]), 0.1), float(x[2]), float(x[3]))
            return float(outside - _score(smooth[0], smooth[1], pixel, where)[0])

        polished = []
        for start in starts:
            x = np.array(start)
            simplex = np.vstack([x, x + np.diag([step / 2, 0.02, pixel, pixel])])
            options: Any = {"initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-6, "maxiter": 250}
            polished.append(minimize(loss, x, method="Nelder-Mead", options=options))
        polished.sort(key=lambda one: float(one.fun))
        starts = [(float(p), float(q), float(u), float(v)) for p, q, u, v in (one.x for one in polished[:2])]
    rotation, size, down, right = starts[0]
    score, overlap = _score(*smooth, fine, (rotation, size, down, right))
    turned = (rotation + 180.0) % 360.0 - 180.0
    return Registration(float(turned), float(size), (float(down), float(right)), score, overlap)


def _at_pixel(image: Floats, body: Array, pixel_um: float, wanted_um: float, sigma: float) -> _Picture:
    """The image and its body at a coarser pixel (never finer than its own), blurred by `sigma` of these; the values
    inside their own mask alone."""
    from scipy.ndimage import gaussian_filter

    known = np.isfinite(image)
    width = sigma * wanted_um / pixel_um
    share = gaussian_filter(known.astype(np.float64), width)
    value = gaussian_filter(np.where(known, image, 0.0), width)
    smooth: Floats = np.divide(value, share, out=np.full(image.shape, np.nan), where=known)
    soft: Floats = gaussian_filter(body.astype(np.float64), width)
    size = tuple(max(1, int(np.ceil((n - 1) * pixel_um / wanted_um)) + 1) for n in image.shape)
    shape = (size[0], size[1])
    if shape == image.shape and wanted_um == pixel_um:
        return _Picture(smooth, soft)
    here = (0.0, 1.0, 0.0, 0.0)
    return _Picture(
        resample(smooth, pixel_um, shape, wanted_um, here), _resampled(soft, pixel_um, shape, wanted_um, here)
    )


def _moved(image: _Picture, shape: tuple[int, int], pixel: float, where: tuple[float, float, float, float]) -> _Picture:
    """The image and its body on the pixels of the map."""
    return _Picture(
        resample(image.values, pixel, shape, pixel, where), _resampled(image.inside, pixel, shape, pixel, where)
    )


def _score(
    image: _Picture, target: _Picture, pixel: float, where: tuple[float, float, float, float]
) -> tuple[float, float]:
    """`agreement` there, and the overlap of the bodies; 0 where fewer than 9 pixels have two values.

    The common area is the cosine of the two soft bodies times their mean area: like r, it falls with the square of a
    small displacement, and the search does not stop at edges of pixels.
    """
    moved = _moved(image, (target.values.shape[0], target.values.shape[1]), pixel, where)
    valued = np.isfinite(moved.values) & np.isfinite(target.values)
    if valued.sum() < 9:
        return 0.0, 0.0
    # all of the moved image counts, also what lies beside the map
    grown = where[1] ** 2
    first, second = float(image.inside.sum()) * grown, float(target.inside.sum())
    size = np.sqrt(grown * np.square(image.inside).sum() * np.square(target.inside).sum())
    common = float((moved.inside * target.inside).sum()) / size * np.sqrt(first * second)
    both = float(np.minimum(moved.inside, target.inside).sum())
    r = pearson(moved.values[valued], target.values[valued])
    return float(agreement(r, valued.sum(), common, first, second)), both / max(first + second - both, both)


def _best_shift(
    image: _Picture, target: _Picture, pixel: float, angle: float, scale: float
) -> tuple[float, tuple[float, float, float, float]]:
    """The best whole-pixel shift of the turned and scaled image, by Fourier transforms of values and masks."""
    from scipy.fft import irfft2, next_fast_len, rfft2

    side = int(np.ceil(np.hypot(*image.values.shape) * scale)) | 1
    moved = _moved(image, (side, side), pixel, (angle, scale, 0.0, 0.0))
    size = [next_fast_len(side + n - 1, real=True) for n in target.values.shape]
    shape = (size[0], size[1])

    def spectra(one: _Picture) -> list[Array]:
        known = np.isfinite(one.values)
        centred = np.where(known, one.values - one.values[known].mean() if known.any() else 0.0, 0.0)
        images = (known.astype(np.float64), centred, centred**2, (one.inside > 0.5).astype(np.float64))
        return [rfft2(image, shape) for image in images]

    m1, f1, s1, o1 = spectra(target)
    m2, f2, s2, o2 = (np.conj(v) for v in spectra(moved))
    n, common = np.rint(irfft2(m1 * m2, shape)), np.rint(irfft2(o1 * o2, shape))
    enough = n > 0.3 * min(np.isfinite(target.values).sum(), np.isfinite(moved.values).sum())
    n = np.where(enough, n, 1.0)
    sum1, sum2 = irfft2(f1 * m2, shape), irfft2(m1 * f2, shape)
    cross = irfft2(f1 * f2, shape) - sum1 * sum2 / n
    spread = (irfft2(s1 * m2, shape) - sum1**2 / n) * (irfft2(m1 * s2, shape) - sum2**2 / n)
    r = np.divide(cross, np.sqrt(np.maximum(spread, 0)), out=np.zeros(shape), where=enough & (spread > 1e-12))
    first, second = ((one.inside > 0.5).sum() for one in (moved, target))
    score = np.where(enough, agreement(np.clip(r, -0.999, 0.999), n, common, first, second), -np.inf)
    row, column = np.unravel_index(int(np.argmax(score)), shape)
    lag = [
        i - m if i >= n_t else i for i, m, n_t in zip((int(row), int(column)), shape, target.values.shape, strict=True)
    ]
    down, right = (
        (k + (side - 1) / 2 - (n_t - 1) / 2) * pixel for k, n_t in zip(lag, target.values.shape, strict=True)
    )
    return float(score[row, column]), (angle, scale, down, right)
