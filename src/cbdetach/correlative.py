"""Correlative imaging: a particle's tomogram beside a map from spectro-microscopy (DEFINITIONS; Suppl. Figs. 6 and 7).

The particle is projected along a direction: thickness, and density divided by thickness. The projection is turned,
scaled and shifted until it agrees best with the map, and the two are correlated pixel by pixel in their common mask.
Neighbouring pixels are no independent samples: the interval of the correlation comes from blocks of pixels.

Images are (rows, columns), nan outside the particle; lengths are micrometres, angles degrees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Spacing = tuple[float, float, float]

BAND_SAMPLES = 2_000_000
COARSE = 36
"""Pixels across the particle in the first search, which tries every angle;"""

KEPT = 6
"""from which so many starting points are followed."""


@dataclass(frozen=True)
class Projection:
    """A particle seen along a direction. `axes` rows: along the view, down and right, as unit vectors (z, y, x)."""

    thickness_um: Floats  # (H, W), 0 beside the particle
    density: Floats  # (H, W): mean along the ray inside the particle; nan where it is thinner than asked for
    pixel_um: float
    axes: Floats


@dataclass(frozen=True)
class Registration:
    """Where the projection lies on the map: point p (um, from the middle of the projection) comes to
    middle of the map + shift + scale R(rotation) p; a positive rotation turns rows towards columns."""

    rotation_deg: float
    scale: float
    shift_um: tuple[float, float]  # down, right
    score: float  # correlation times overlap
    overlap: float  # common mask / union of both


@dataclass(frozen=True)
class Correlation:
    """Pearson's r inside the common mask, with an interval from blocks of pixels."""

    r: float
    low: float
    high: float
    level: float
    pixels: int
    effective: float  # independent pixels that would be as uncertain
    block_px: int


# ---- projection ------------------------------------------------------------------------------------------------------


def view_axes(direction: Array) -> Floats:
    """Unit vectors (z, y, x): along the view, down and right in the picture. Down is as near to +z as it can be, for
    views along z it is +y; so a view along (1, 0, 0) is a slice as it lies in memory."""
    along = np.asarray(direction, dtype=np.float64) / np.linalg.norm(direction)
    down = np.array([1.0, 0.0, 0.0]) - along[0] * along
    if np.linalg.norm(down) < 1e-6:
        down = np.array([0.0, 1.0, 0.0])
    down = down / np.linalg.norm(down)
    return np.stack([along, down, np.cross(down[::-1], along[::-1])[::-1]])


def project(
    particle: Array,
    grey: Array,
    *,
    direction: Array,
    spacing: Spacing,
    pixel_um: float | None = None,
    min_thickness_um: float = 0.0,
) -> Projection:
    """Project a particle along a direction.

    Parameters
    ----------
    particle, grey : (Z, Y, X) bool and number: the filled particle and the grey values or densities.
    direction : (z, y, x), of the view. pixel_um : None: the smallest voxel size.
    min_thickness_um : thinner rays have no density, as few voxels and their blur decide it.

    Rays are sums of samples that are linear between voxel centres, half a pixel apart. Cost: one sample for each voxel
    of the box, times two. Memory: bands of `BAND_SAMPLES` samples.
    """
    from scipy.ndimage import affine_transform

    axes = view_axes(direction)
    pixel = min(spacing) if pixel_um is None else pixel_um
    at = np.argwhere(particle) * np.asarray(spacing)
    seen = at @ axes.T
    reach = max(spacing) + pixel
    low, high = seen.min(axis=0) - reach, seen.max(axis=0) + reach
    pace = min(spacing) / 2
    depth = int(np.ceil((high[0] - low[0]) / pace)) + 1
    height, width = (int(np.ceil((b - a) / pixel)) + 1 for a, b in zip(low[1:], high[1:], strict=True))
    middle = (low + high) / 2
    mask = particle.astype(np.float32)
    weighted = np.where(particle, grey, 0).astype(np.float32)
    thickness, total = np.zeros((height, width)), np.zeros((height, width))
    rows = max(1, BAND_SAMPLES // (depth * width))
    columns = axes * np.array([pace, pixel, pixel])[:, None] / np.asarray(spacing)
    for row in range(0, height, rows):
        n = min(rows, height - row)
        first = np.array([-(depth - 1) / 2 * pace, (row - (height - 1) / 2) * pixel, -(width - 1) / 2 * pixel])
        corner = (middle + first) @ axes / np.asarray(spacing)
        for volume, result in ((mask, thickness), (weighted, total)):
            samples = affine_transform(
                volume, columns.T, corner, output_shape=(depth, n, width), order=1, output=np.float32
            )
            result[row : row + n] = samples.sum(axis=0, dtype=np.float64) * pace
    thick = (thickness > 0.25 * min(spacing)) & (thickness >= min_thickness_um)
    density = np.divide(total, thickness, out=np.full(total.shape, np.nan), where=thick)
    return Projection(thickness, density, float(pixel), axes)


# ---- registration ----------------------------------------------------------------------------------------------------


def resample(
    image: Floats,
    pixel_um: float,
    shape: tuple[int, int],
    map_pixel_um: float,
    where: tuple[float, float, float, float],
) -> Floats:
    """The image on the map's pixels. `where`: rotation (degrees), scale, shift down and right (um); nan outside."""
    from scipy.ndimage import affine_transform

    rotation, scale, down, right = where
    c, s = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    turn = np.array([[c, s], [-s, c]]) / scale * (map_pixel_um / pixel_um)  # inverse of scale R
    middle_map = (np.array(shape) - 1) / 2 + np.array([down, right]) / map_pixel_um
    offset = (np.array(image.shape) - 1) / 2 - turn @ middle_map
    known = np.isfinite(image)
    value = affine_transform(np.where(known, image, 0.0), turn, offset, output_shape=shape, order=1)
    share = affine_transform(known.astype(np.float64), turn, offset, output_shape=shape, order=1)
    return np.asarray(np.divide(value, share, out=np.full(shape, np.nan), where=share > 0.5), dtype=np.float64)


def register(
    density: Floats,
    pixel_um: float,
    target: Floats,
    map_pixel_um: float,
    *,
    rotation_deg: tuple[float, float] = (-180.0, 180.0),
    scale: tuple[float, float] = (0.9, 1.1),
    sign: int = 1,
) -> Registration:
    """Rotation, scale and shift of the projection that agree best with the map.

    Parameters
    ----------
    density, target : images, nan outside the particle; pixel_um, map_pixel_um : their pixel sizes.
    rotation_deg, scale : range that is searched. sign : -1 where high density goes with low values.

    What is maximised is Pearson's r inside the common mask times the overlap of the masks (common / union): r alone
    grows as the common mask shrinks. First every angle and scale on a coarse grid, with the best shift of each by
    masked Fourier correlation (Padfield, IEEE Trans. Image Process. 21, 2706, 2012); then the best few by Nelder-Mead
    on finer and finer images, blurred by one pixel.
    """
    from scipy.optimize import minimize

    across = np.sqrt(np.isfinite(target).sum()) * map_pixel_um * 1.13
    coarse = max(across / COARSE, map_pixel_um, pixel_um)
    a, b = _at_pixel(density, pixel_um, coarse), sign * _at_pixel(target, map_pixel_um, coarse)
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
        smooth = _at_pixel(density, pixel_um, pixel, 1.0), sign * _at_pixel(target, map_pixel_um, pixel, 1.0)

        def loss(x: Floats, smooth: tuple[Floats, Floats] = smooth, pixel: float = pixel) -> float:
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


def _at_pixel(image: Floats, pixel_um: float, wanted_um: float, sigma: float = 0.5) -> Floats:
    """The image at a coarser pixel (never finer than its own), blurred by `sigma` of these, inside its mask alone."""
    from scipy.ndimage import gaussian_filter

    known = np.isfinite(image)
    width = sigma * wanted_um / pixel_um
    share = gaussian_filter(known.astype(np.float64), width)
    value = gaussian_filter(np.where(known, image, 0.0), width)
    smooth: Floats = np.divide(value, share, out=np.full(image.shape, np.nan), where=known)
    shape = tuple(max(1, int(np.ceil((n - 1) * pixel_um / wanted_um)) + 1) for n in image.shape)
    if shape == image.shape and wanted_um == pixel_um:
        return smooth
    return resample(smooth, pixel_um, (shape[0], shape[1]), wanted_um, (0.0, 1.0, 0.0, 0.0))


def _score(
    image: Floats, target: Floats, pixel: float, where: tuple[float, float, float, float]
) -> tuple[float, float]:
    """Correlation times overlap, and the overlap; 0 where fewer than 9 pixels are common."""
    moved = resample(image, pixel, (target.shape[0], target.shape[1]), pixel, where)
    a, b = np.isfinite(moved), np.isfinite(target)
    common = a & b
    n = int(common.sum())
    if n < 9:
        return 0.0, 0.0
    # all of the moved image counts in the union, also what lies beside the map
    whole = np.isfinite(image).sum() * where[1] ** 2
    overlap = n / max(float(whole + b.sum() - n), float(n))
    return pearson(moved[common], target[common]) * overlap, overlap


def _best_shift(
    image: Floats, target: Floats, pixel: float, angle: float, scale: float
) -> tuple[float, tuple[float, float, float, float]]:
    """The best whole-pixel shift of the turned and scaled image, by Fourier transforms of values and masks."""
    from scipy.fft import irfft2, next_fast_len, rfft2

    side = int(np.ceil(np.hypot(*image.shape) * scale)) | 1
    moved = resample(image, pixel, (side, side), pixel, (angle, scale, 0.0, 0.0))
    size = [next_fast_len(side + n - 1, real=True) for n in target.shape]
    shape = (size[0], size[1])

    def spectra(values: Floats) -> list[Array]:
        known = np.isfinite(values)
        centred = np.where(known, values - values[known].mean() if known.any() else 0.0, 0.0)
        return [rfft2(v, shape) for v in (known.astype(np.float64), centred, centred**2)]

    m1, f1, s1 = spectra(target)
    m2, f2, s2 = (np.conj(v) for v in spectra(moved))
    n = np.rint(irfft2(m1 * m2, shape))
    enough = n > 0.3 * min(np.isfinite(target).sum(), np.isfinite(moved).sum())
    n = np.where(enough, n, 1.0)
    sum1, sum2 = irfft2(f1 * m2, shape), irfft2(m1 * f2, shape)
    cross = irfft2(f1 * f2, shape) - sum1 * sum2 / n
    spread = (irfft2(s1 * m2, shape) - sum1**2 / n) * (irfft2(m1 * s2, shape) - sum2**2 / n)
    r = np.divide(cross, np.sqrt(np.maximum(spread, 0)), out=np.zeros(shape), where=enough & (spread > 1e-12))
    union = np.isfinite(target).sum() + np.isfinite(moved).sum() - n
    score = np.where(enough, np.clip(r, -1, 1) * n / union, -1.0)
    row, column = np.unravel_index(int(np.argmax(score)), shape)
    lag = [i - m if i >= n_t else i for i, m, n_t in zip((int(row), int(column)), shape, target.shape, strict=True)]
    down, right = ((k + (side - 1) / 2 - (n_t - 1) / 2) * pixel for k, n_t in zip(lag, target.shape, strict=True))
    return float(score[row, column]), (angle, scale, down, right)


# ---- correlation -----------------------------------------------------------------------------------------------------


def pearson(x: Floats, y: Floats) -> float:
    """Pearson's r of two samples; 0 where one does not vary."""
    x, y = x - x.mean(), y - y.mean()
    spread = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / spread if spread > 0 else 0.0


def common_pairs(x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """How much pairs of pixels tell the same: sum over pairs of rho_x rho_y, by their lag.

    x, y : images, nan outside the mask. The autocorrelations are measured in the mask by Fourier transforms, and used
    to the distance at which their product falls to 0.02.

    Returns the sums at every lag that counts, and the lags down and right, in pixels.
    """
    from scipy.fft import irfft2, rfft2

    mask = np.isfinite(x) & np.isfinite(y)
    n = int(mask.sum())
    shape = (2 * x.shape[0], 2 * x.shape[1])
    count = np.rint(irfft2(np.abs(rfft2(mask.astype(np.float64), shape)) ** 2, shape))
    product = count.copy()
    for image in (x, y):
        centred = np.where(mask, image - image[mask].mean(), 0.0)
        covariance = irfft2(np.abs(rfft2(centred, shape)) ** 2, shape)
        product *= covariance / np.maximum(count, 1) / max(float((centred**2).sum()) / n, 1e-300)
    rows, columns = np.meshgrid(*(np.minimum(np.arange(m), m - np.arange(m)) for m in shape), indexing="ij")
    lag = np.hypot(rows, columns)
    ring = np.rint(lag).astype(int).ravel()
    mean = np.bincount(ring, product.ravel()) / np.maximum(np.bincount(ring, count.ravel()), 1)
    near = lag < max(int(np.argmax(np.append(mean, 0.0) <= 0.02)), 1)
    return product[near], rows[near].astype(np.float64), columns[near].astype(np.float64)


def correlate(
    x: Floats, y: Floats, *, level: float = 0.95, resamples: int = 2000, block_px: int | None = None, seed: int = 0
) -> Correlation:
    """Pearson's r of two images inside their common mask (nan outside), with a block-bootstrap interval.

    block_px : edge of the square blocks that are drawn with replacement; None: twice the edge of an independent patch.
        A block may hang over the mask's edge; it brings the pixels that it has.

    The effective number of pixels is n^2 / sum over pairs of rho_x rho_y (Clifford, Richardson, Hemon, Biometrics 45,
    123, 1989). The interval is symmetric in Fisher's z, its half width a quantile of Student's t (of as many degrees of
    freedom as there are blocks, less one) times the standard deviation of z over the resamples. Blocks part pairs of
    pixels that tell the same, which makes that deviation too small; it is corrected by the share of `common_pairs` that
    blocks of this size keep together.

    Raises ValueError where fewer than 9 pixels are common, or one image does not vary there.
    """
    from scipy.stats import t as student

    mask = np.isfinite(x) & np.isfinite(y)
    n = int(mask.sum())
    if n < 9 or np.ptp(x[mask]) == 0 or np.ptp(y[mask]) == 0:
        raise ValueError(f"x, y: must have 9 common pixels that vary; got {n}. Do the images overlap?")
    r = pearson(x[mask], y[mask])
    pairs, down, right = common_pairs(x, y)
    effective = float(np.clip(n * n / max(float(pairs.sum()), float(n)), 3.0, n))
    edge = block_px or int(np.clip(np.ceil(2 * np.sqrt(n / effective)), 1, max(1, int(np.sqrt(n / 4)))))
    a, b = (np.where(mask, v - v[mask].mean(), 0.0) for v in (x, y))
    sums = np.stack([_block_sums(v, edge) for v in (mask.astype(np.float64), a, b, a * a, b * b, a * b)])
    sums = sums[:, sums[0] > 0]
    blocks = max(2, round(n / float(sums[0].mean())))
    rng = np.random.default_rng(seed)
    m, sa, sb, saa, sbb, sab = sums[:, rng.integers(0, sums.shape[1], (resamples, blocks))].sum(axis=2)
    spread = np.sqrt(np.maximum(saa - sa * sa / m, 0) * np.maximum(sbb - sb * sb / m, 0))
    drawn = np.divide(sab - sa * sb / m, spread, out=np.zeros_like(m), where=spread > 0)
    z = np.arctanh(np.clip(drawn, -0.999999, 0.999999))
    together = (pairs * np.maximum(1 - down / edge, 0) * np.maximum(1 - right / edge, 0)).sum() / pairs.sum()
    deviation = float(z.std(ddof=1)) / np.sqrt(float(np.clip(together, 0.25, 1.0)))
    half = float(student.ppf(0.5 + level / 2, max(min(blocks, effective) - 1, 1.0))) * deviation
    middle = np.arctanh(np.clip(r, -0.999999, 0.999999))
    return Correlation(r, float(np.tanh(middle - half)), float(np.tanh(middle + half)), level, n, effective, edge)


def _block_sums(values: Floats, edge: int) -> Floats:
    """Sum of every square of `edge` pixels that overlaps the image, also those that hang over its border."""
    padded = np.pad(values, edge)
    table = np.pad(padded.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    return np.asarray(
        table[edge:, edge:] - table[:-edge, edge:] - table[edge:, :-edge] + table[:-edge, :-edge], dtype=np.float64
    )
