"""One volume: spatial blocks, intervals, the variogram, effective n, correlations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BLOCKS = 27
"""Boxes that a cube is cut into, where there are enough particles,"""

PER_BLOCK = 8
"""and the fewest particles that a box should hold on average."""

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate, its limits at `LEVEL`, and the boxes they rest on; limits are nan where there are fewer than two."""

    value: float
    low: float
    high: float
    blocks: int


def spatial_blocks(positions: Floats, *, blocks: int = BLOCKS, per_block: int = PER_BLOCK) -> Ints:
    """Number of the box that each particle lies in, (N,) from 0: nearly cubes, along z, y and x.

    Parameters
    ----------
    positions : (N, 3) centroids z, y, x, micrometres. The boxes divide their bounding box.
    blocks : boxes wanted; fewer where a box would hold fewer than `per_block` particles. An axis much shorter than the
        others is not divided.
    """
    n = len(positions)
    if n == 0:
        return np.zeros(0, np.int64)
    low = positions.min(axis=0)
    extent = np.maximum(positions.max(axis=0) - low, 1e-9)
    wanted = max(1, min(blocks, n // per_block))
    edge = (extent.prod() / wanted) ** (1 / 3)
    while True:
        shape = np.maximum(1, np.round(extent / edge).astype(np.int64))
        if shape.prod() <= max(wanted, 1):
            break
        edge *= 1.03
    cell = np.minimum((positions - low) / extent * shape, shape - 1).astype(np.int64)
    number = (cell[:, 0] * shape[1] + cell[:, 1]) * shape[2] + cell[:, 2]
    return np.asarray(np.unique(number, return_inverse=True)[1], dtype=np.int64)


def quantile_interval(
    values: Floats, blocks: Ints, q: float = 0.5, *, effective_n: float | None = None, level: float = LEVEL
) -> Interval:
    """A quantile with its interval from spatial blocks.

    Woodruff, JASA 47, 635 (1952): the share of values below the quantile has the standard error that the blocks' sums
    give, and no less than that of `effective_n` independent values; the share's limits are read back through the
    values. No density is estimated.
    """
    n = values.size
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    value = float(np.quantile(values, q))
    error, count = _block_error(np.where(values < value, 1.0, np.where(values == value, 0.5, 0.0)) - q, blocks)
    if count < 2:
        return Interval(value, np.nan, np.nan, count)
    if effective_n is not None:
        error = max(error, float(np.sqrt(q * (1 - q) / effective_n)))
    reach = _student(level, count) * error
    low, high = np.quantile(values, np.clip([q - reach, q + reach], 0, 1))
    return Interval(value, float(low), float(high), count)


def _block_error(residuals: Floats, blocks: Ints) -> tuple[float, int]:
    """Standard error of the mean of residuals that sum to about 0, and the number of blocks."""
    sums = np.bincount(blocks, weights=residuals)
    count = int(np.count_nonzero(np.bincount(blocks)))
    if count < 2:
        return np.nan, count
    return float(np.sqrt(count / (count - 1) * np.square(sums).sum()) / residuals.size), count


def _student(level: float, count: int) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, count - 1))


PAIRED = 1500
"""Particles whose every pair enters the variogram."""


@dataclass(frozen=True)
class Correlogram:
    """Correlation of two particles at the distance d: `nugget * exp(-d / length_um)`, fitted to the variogram."""

    nugget: float  # 0..1: the correlation that is left at distance 0
    length_um: float  # nan where the nugget is 0
    neighbours: float  # correlation of particles that touch or nearly do, as counted; nan without any
    effective_n: float


def correlogram(values: Floats, positions: Floats, diameters: Floats, *, seed: int = 0) -> Correlogram:
    """Spatial correlation of a quantity, and the number of independent particles that the mean is worth.

    The variogram needs no mean, so it is not biased by removing one: half the mean squared difference of pairs, in
    classes of distance, is fitted with `variance * (1 - nugget * exp(-d / length))` by least squares weighted with the
    pairs, over lengths from half a typical diameter to half the typical distance. A correlation of neighbours within
    its own noise, 2 / sqrt(pairs), counts as none. The effective n is n divided by 1 + (n - 1) times the mean
    correlation of two particles. At most `PAIRED` particles, drawn at random, are paired with one another.
    """
    n = values.size
    none = Correlogram(0.0, np.nan, np.nan, float(n))
    if n < 4 or np.ptp(values) == 0:
        return none
    neighbours, pairs = neighbour_correlation(values, positions, diameters)
    if not neighbours > 2 / np.sqrt(max(pairs, 1)):
        return Correlogram(0.0, np.nan, neighbours, float(n))
    chosen = _paired(n, seed)
    x, distance = values[chosen], _distances(positions[chosen])
    i, j = np.triu_indices(x.size, 1)
    spacing = float(np.median(diameters))
    reach = max(float(np.median(distance)), 3 * spacing)
    edges = np.arange(0, reach + spacing / 2, spacing / 2)
    lag = np.digitize(distance, edges) - 1
    count, total, half = (
        np.bincount(lag, weights=w, minlength=edges.size)[: edges.size - 1]
        for w in (np.ones_like(distance), distance, 0.5 * np.square(x[i] - x[j]))
    )
    used = count >= 5
    if used.sum() < 3:
        return Correlogram(0.0, np.nan, neighbours, float(n))
    nugget, length = _fit_variogram(
        total[used] / count[used],
        half[used] / count[used],
        np.asarray(count[used], dtype=np.float64),
        spacing / 2,
        max(reach / 2, spacing),
    )
    if nugget == 0:
        return Correlogram(0.0, np.nan, neighbours, float(n))
    shared = nugget * float(np.exp(-distance / length).mean())
    return Correlogram(nugget, length, neighbours, float(n / (1 + (n - 1) * shared)))


def mean_correlation(n: int, effective_n: float) -> float:
    """Mean correlation of two of `n` particles that are worth `effective_n`."""
    return max((n / effective_n - 1) / (n - 1), 0.0) if n > 1 and effective_n > 0 else 0.0


def effective_part(n: int | Floats, shared: float) -> Floats:
    """Effective n of `n` particles of which two have the mean correlation `shared`, wherever they lie."""
    return np.asarray(n / (1 + np.maximum(np.asarray(n) - 1, 0) * shared), dtype=np.float64)


def effective_pairs(x: Correlogram, y: Correlogram, positions: Floats, *, seed: int = 0) -> float:
    """Independent pairs of values that a correlation of two quantities is worth.

    n / (1 + (n - 1) * mean product of the two correlations) (Clifford, Richardson and Hemon, Biometrics 45, 123
    (1989)): one quantity without spatial correlation is enough for n.
    """
    n = len(positions)
    if x.nugget * y.nugget == 0 or n < 2:
        return float(n)
    distance = _distances(positions[_paired(n, seed)])
    shared = x.nugget * y.nugget * float(np.exp(-distance / x.length_um - distance / y.length_um).mean())
    return float(n / (1 + (n - 1) * shared))


def _paired(n: int, seed: int) -> Ints:
    if n <= PAIRED:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, PAIRED, replace=False))


def _distances(positions: Floats) -> Floats:
    from scipy.spatial.distance import pdist

    return np.asarray(pdist(positions))


def _fit_variogram(lag: Floats, gamma: Floats, pairs: Floats, shortest: float, longest: float) -> tuple[float, float]:
    """Nugget and length of the exponential variogram with the least weighted squares."""
    best = (np.inf, 0.0, np.nan)
    weight = np.sqrt(pairs)
    for length in np.geomspace(shortest, longest, 24):
        shape = np.exp(-lag / length)
        design = np.stack([np.ones_like(lag), -shape], axis=1) * weight[:, None]
        (sill, drop), *_ = np.linalg.lstsq(design, gamma * weight, rcond=None)
        nugget = float(np.clip(drop / sill, 0, 1)) if sill > 0 else 0.0
        model = 1 - nugget * shape  # the sill again, now that the nugget may have been cut to 0..1
        sill = (pairs * gamma * model).sum() / (pairs * model**2).sum()
        rest = float((pairs * (gamma - sill * model) ** 2).sum())
        if rest < best[0] * (1 - 1e-12):
            best = (rest, nugget, float(length))
    return best[1], best[2]


def neighbour_correlation(
    values: Floats, positions: Floats, diameters: Floats, *, gap: float = 0.25
) -> tuple[float, int]:
    """Correlation of particles that touch or nearly do, and how many pairs there are; nan without any.

    Nearly: their centres are closer than (1 + gap) times their mean diameter.
    """
    from scipy.spatial import cKDTree

    pairs = cKDTree(positions).query_pairs((1 + gap) * float(diameters.max()), output_type="ndarray")
    i, j = pairs[:, 0], pairs[:, 1]
    near = np.linalg.norm(positions[i] - positions[j], axis=1) <= (1 + gap) * (diameters[i] + diameters[j]) / 2
    if not near.any() or np.ptp(values) == 0:
        return np.nan, 0
    rest = (values - values.mean()) / values.std()
    return float((rest[i] * rest[j])[near].mean()), int(near.sum())


# ---- correlation of two quantities ----------------------------------------------------------------------------------


def correlation(x: Floats, y: Floats, *, given: Floats | None = None, ranks: bool = False) -> float:
    """Pearson's r, Spearman's with `ranks`; with `given` the partial correlation, both being straightened on it.

    nan with fewer than four values, or where one of them does not vary.
    """
    if x.size < 4:
        return np.nan
    if ranks:
        from scipy.stats import rankdata

        x, y = rankdata(x), rankdata(y)
        given = None if given is None else rankdata(given)
    if given is not None:
        line = np.stack([np.ones_like(given), given - given.mean()], axis=1)
        x, y = (v - line @ np.linalg.lstsq(line, v, rcond=None)[0] for v in (x, y))
    x, y = x - x.mean(), y - y.mean()
    size = np.sqrt((x @ x) * (y @ y))
    return float(np.clip(x @ y / size, -1, 1)) if size > 1e-12 * max(1.0, np.abs(x).max() * np.abs(y).max()) else np.nan


def correlation_interval(
    x: Floats,
    y: Floats,
    blocks: Ints,
    *,
    given: Floats | None = None,
    ranks: bool = False,
    effective_n: float | None = None,
    level: float = LEVEL,
) -> Interval:
    """A correlation with its interval: Fisher's z with each spatial block left out in turn (jackknife), Student's t.

    The standard error is never less than 1 / sqrt(effective_n - 3), that of so many independent pairs.
    """
    value = correlation(x, y, given=given, ranks=ranks)
    names, block = np.unique(blocks, return_inverse=True)
    if not np.isfinite(value) or names.size < 2:
        return Interval(value, np.nan, np.nan, int(names.size))
    without = []
    for k in range(names.size):
        kept = block != k
        without.append(correlation(x[kept], y[kept], given=None if given is None else given[kept], ranks=ranks))
    # A block of w_k of the values, left out, moves the estimate by (1 - w_k) / w_k of what it holds.
    share = np.bincount(block) / x.size
    z = np.arctanh(np.clip(without, -1 + 1e-12, 1 - 1e-12))
    centre = np.arctanh(np.clip(value, -1 + 1e-12, 1 - 1e-12))
    moved = (1 - share) * (centre - z)
    count = names.size
    error = float(np.sqrt(count / (count - 1) * np.square(moved - moved.mean()).sum()))
    if effective_n is not None:
        error = max(error, 1 / np.sqrt(max(effective_n - 3, 1)))
    reach = _student(level, count) * error
    return Interval(value, float(np.tanh(centre - reach)), float(np.tanh(centre + reach)), int(count))
