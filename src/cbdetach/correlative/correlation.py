"""Pixel against pixel: Pearson's r in the common mask, with an interval that knows neighbours resemble each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


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
    blocks of this size keep together. Its variance and that of so many independent pixels, 1 / (effective - 3), are two
    estimates of one thing, each with an error of its own: their mean is used.

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
    deviation = float(np.sqrt((deviation**2 + 1 / max(effective - 3, 1.0)) / 2))
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
