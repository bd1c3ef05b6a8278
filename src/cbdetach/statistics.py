"""Statistics of particles that are not independent, and of electrodes, which are the unit of every test.

Neighbouring particles resemble each other, so that n particles tell less than n independent ones would. Intervals of
one volume therefore come from spatial blocks: the volume is cut into a few large boxes, every box counts as one
observation, and the quantiles are Student's with one degree of freedom less than there are boxes (Bester, Conley and
Hansen, J. Econometrics 165, 137 (2011)). Boxes resemble each other, too, where the correlation reaches far; so the
standard error is never less than that of the effective n, which a variogram gives. Between electrodes the electrode is
the unit: its particles give one number, and the labels of electrodes are permuted. Every function works on plain
arrays; N particles, E electrodes, K classes. Measured coverage: docs/statistics.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb, factorial, prod
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BLOCKS = 27
"""Boxes that a cube is cut into, where there are enough particles,"""

PER_BLOCK = 8
"""and the fewest particles that a box should hold on average."""

MAX_PERMUTATIONS = 20_000
"""More ways to share out the electrodes than this are drawn at random, and not all gone through."""

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate, its limits at `LEVEL`, and the boxes they rest on; limits are nan where there are fewer than two."""

    value: float
    low: float
    high: float
    blocks: int


@dataclass(frozen=True)
class Permuted:
    """A test by permutation: the difference found, its p, the smallest p that so many electrodes can give."""

    difference: float  # of the groups' means, second minus first; nan for more than two groups
    p: float  # nan where any group has one electrode alone
    smallest_p: float
    permutations: int


# ---- one volume -----------------------------------------------------------------------------------------------------


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


# ---- electrodes -----------------------------------------------------------------------------------------------------


def permutation_test(values: Floats, groups: Sequence[Any], *, seed: int = 0) -> Permuted:
    """Whether groups of electrodes differ, by sharing the electrodes out anew in every way.

    Parameters
    ----------
    values : (E,) one number for each electrode.
    groups : (E,) what the electrode belongs to. The two groups are taken in the order of their names (numbers by size).

    Two groups: the difference of their means, two-sided. More: the sum of squares between groups. All ways are gone
    through up to `MAX_PERMUTATIONS`; beyond, so many are drawn at random, the observed one among them. p is nan where
    any group holds one electrode alone: then nothing can be said about the group.
    """
    names = sorted(set(groups))
    if len(names) < 2:
        raise ValueError(f"groups: must be at least two; got {len(names)}. Give electrodes of another group.")
    if len(values) != len(groups):
        raise ValueError(f"values: must be one for each electrode, {len(groups)}; got {len(values)}.")
    member = np.array([[g == name for g in groups] for name in names], dtype=np.float64)
    sizes = member.sum(axis=1).astype(np.int64)
    centred = values - values.mean()
    observed = _between(member[None], centred, sizes)[0]
    total = factorial(len(groups)) // prod(factorial(int(s)) for s in sizes)
    ways = _all_ways(len(groups), tuple(sizes.tolist())) if total <= MAX_PERMUTATIONS else _some_ways(member, seed)
    found = _between(ways, centred, sizes)
    p = float(np.mean(found >= observed - 1e-9 * max(observed, 1e-300)))
    # A way and the one with equally large groups exchanged are equally extreme.
    smallest = max(prod(factorial(int(np.sum(sizes == s))) for s in set(sizes.tolist())) / total, 1 / len(ways))
    difference = float(values @ member[1] / sizes[1] - values @ member[0] / sizes[0]) if len(names) == 2 else np.nan
    return Permuted(difference, np.nan if sizes.min() < 2 else p, float(smallest), len(ways))


def _between(ways: Floats, centred: Floats, sizes: Ints) -> Floats:
    """Sum of squares between groups for (P, G, E) memberships; for two groups it grows with the mean difference."""
    return np.asarray((np.square(ways @ centred) / sizes).sum(axis=1))


@lru_cache(maxsize=8)
def _all_ways(n: int, sizes: tuple[int, ...]) -> Floats:
    """Every way to share `n` electrodes out to groups of these sizes: (P, G, E) of 0 and 1."""
    ways: list[tuple[tuple[int, ...], ...]] = [()]
    for size in sizes:
        ways = [
            (*way, chosen)
            for way in ways
            for chosen in combinations(sorted(set(range(n)) - {e for part in way for e in part}), size)
        ]
    member = np.zeros((len(ways), len(sizes), n))
    for k, way in enumerate(ways):
        for g, part in enumerate(way):
            member[k, g, list(part)] = 1
    return member


def _some_ways(member: Floats, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(member.shape[1]), (MAX_PERMUTATIONS - 1, 1)), axis=1)
    return np.concatenate([member[None], member[:, order].transpose(1, 0, 2)])


def smallest_p(n_first: int, n_second: int) -> float:
    """The smallest two-sided p that two groups of so many electrodes can give."""
    return (2 if n_first == n_second else 1) / comb(n_first + n_second, n_first)


def holm(p: Sequence[float]) -> Floats:
    """p values adjusted for their number (Holm, Scand. J. Statist. 6, 65 (1979)); nan stays nan and is not counted."""
    values = np.asarray(p, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(values[known], kind="stable")]
    steps = values[order] * np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if order.size else steps
    return adjusted


# ---- spread against size --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PatchNull:
    """Spread of a fraction by size class, beside what patches of one area put down at random would give. (K,) each."""

    patch_um2: float  # the one number that is fitted
    mean: float  # share of the surface, all particles together
    n: Ints
    observed: Floats  # standard deviation around the class's mean
    expected: Floats
    low: Floats  # limits at LEVEL of the standard deviation under the null
    high: Floats
    p: Floats  # of a spread as far from the null, two-sided, adjusted for the classes (Holm)


def patch_null(
    fraction: Floats,
    area_um2: Floats,
    classes: Ints,
    n_classes: int,
    *,
    least: int = 10,
    shared: float = 0.0,
    draws: int = 999,
    seed: int = 0,
) -> PatchNull:
    """Spread against size, and the random-patch null: patches of one area, shuffled over all surfaces.

    A surface of S square micrometres that is made of patches of area a, each detached with probability p, has a
    detachment with variance p (1 - p) a / S: smaller particles scatter more (sd ~ 1/d), and no physics is in that. The
    area a is what makes this true on average over all particles. Under the null a fraction follows the beta
    distribution with that mean and variance; classes are drawn anew `draws` times, and a fitted anew each time.

    Parameters
    ----------
    fraction, area_um2 : (N,) detachment, and the surface that it is a share of.
    classes : (N,) size class of each particle, 0 to n_classes - 1; others are left out.
    least : a class with fewer particles has n alone.
    shared : mean correlation of two particles: of each class only its effective n is drawn.

    Not checked: that patches have one area. Where they have not, a is their mean weighted with their area.
    """
    kept = (classes >= 0) & (classes < n_classes) & np.isfinite(fraction) & (area_um2 > 0)
    x, s, k = fraction[kept], area_um2[kept], classes[kept]
    count = np.bincount(k, minlength=n_classes).astype(np.int64)
    nothing = np.full(n_classes, np.nan)
    p = float((x * s).sum() / s.sum()) if x.size else np.nan
    if x.size < least or not 0 < p < 1:
        return PatchNull(np.nan, p, count, nothing, nothing, nothing, nothing, nothing)
    rng = np.random.default_rng(seed)
    patch = float((s * np.square(x - p)).mean() / (p * (1 - p)))
    shown = np.flatnonzero(count >= least)
    observed, expected = nothing.copy(), nothing.copy()
    drawn = np.zeros((draws, shown.size))
    shape = np.zeros((draws, shown.size))  # what the null expects of each draw, for a patch of area 1
    fitted = np.zeros(draws)
    for column, c in enumerate(shown):
        inside = s[k == c]
        observed[c] = x[k == c].std(ddof=1)
        expected[c] = _null_sd(inside, p, patch)
        m = max(3, round(float(effective_part(inside.size, shared))))
        surface = inside[rng.integers(0, inside.size, (draws, m))]
        values = _beta(rng, p, np.minimum(patch / surface, 1.0))
        drawn[:, column] = values.std(axis=1, ddof=1)
        shape[:, column] = np.sqrt(np.mean(1 / surface, axis=1) * p * (1 - p))
        fitted += inside.size * (surface * np.square(values - p)).mean(axis=1) / (p * (1 - p))
    fitted /= count[shown].sum()
    ratio = drawn / np.maximum(shape * np.sqrt(fitted)[:, None], 1e-300)
    found = observed[shown] / expected[shown]
    low, high, tail = nothing.copy(), nothing.copy(), nothing.copy()
    low[shown], high[shown] = np.quantile(ratio, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0) * expected[shown]
    above = (np.sum(ratio >= found, axis=0) + 1) / (draws + 1)
    below = (np.sum(ratio <= found, axis=0) + 1) / (draws + 1)
    tail[shown] = np.minimum(2 * np.minimum(above, below), 1)
    return PatchNull(patch, p, count, observed, expected, low, high, holm(tail.tolist()))


def _null_sd(area: Floats, p: float, patch: float) -> float:
    return float(np.sqrt(np.mean(np.minimum(patch / area, 1.0)) * p * (1 - p)))


def _beta(rng: np.random.Generator, p: float, share: Floats) -> Floats:
    """Beta variates of mean p and variance p (1 - p) share; one patch alone (share 1) is all or nothing."""
    size = np.maximum(1 / share - 1, 1e-9)
    values = rng.beta(p * size, (1 - p) * size)
    alone = share > 1 - 1e-6
    values[alone] = (rng.random(int(alone.sum())) < p).astype(np.float64)
    return np.asarray(values)


# ---- peaks ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Peak:
    """The highest peak of a histogram: where it is, and where it has half its height on either side."""

    position: float
    height: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """Full width at half maximum."""
        return self.high - self.low


def peak_of(grey: Floats, counts: Floats, *, least: int = 1000) -> Peak | None:
    """The highest peak of a histogram, or None where fewer than `least` voxels were counted.

    Parameters
    ----------
    grey, counts : (K,) middles of bins of one width, ascending, and the voxels in each.

    The histogram is smoothed by a Gaussian a third as wide as the peak (twice, with the width found the first time),
    which widens a Gaussian peak by 5.4 %; that is taken back.
    """
    from scipy.ndimage import gaussian_filter1d

    total = counts.sum()
    if total < least or np.count_nonzero(counts) < 3:
        return None
    share = np.cumsum(counts) / total
    quarter, three = np.interp((0.25, 0.75), share, np.arange(counts.size))
    width = max(1.75 * (three - quarter), 1.0)  # bins; a Gaussian's FWHM is 1.75 of its interquartile range
    found = (0, 0.0, 0.0, 0.0)
    for _ in range(2):
        sigma = width / 3 / FWHM
        smooth = gaussian_filter1d(counts.astype(np.float64), sigma, mode="constant")
        top = int(np.argmax(smooth))
        height = float(smooth[top])
        left = _crossing(smooth, top, -1, height / 2)
        right = _crossing(smooth, top, 1, height / 2)
        narrowed = np.sqrt(max(1 - (FWHM * sigma / (right - left)) ** 2, 0.0))
        middle = (left + right) / 2
        left, right = middle + (left - middle) * narrowed, middle + (right - middle) * narrowed
        width, found = max(right - left, 1.0), (top, height, left, right)
    top, height, left, right = found
    places = np.arange(grey.size)
    at = np.interp((top, left, right), places, grey)
    return Peak(float(at[0]), height, float(at[1]), float(at[2]))


FWHM = float(2 * np.sqrt(2 * np.log(2)))
"""Full width at half maximum of a Gaussian of standard deviation 1."""


def _crossing(curve: Floats, top: int, step: int, level: float) -> float:
    """The place (in bins) where a curve falls below a level, on one side of its top."""
    at = top
    while 0 <= at + step < curve.size and curve[at + step] >= level:
        at += step
    beyond = at + step
    if not 0 <= beyond < curve.size:
        return float(at)
    return float(at + step * (curve[at] - level) / max(curve[at] - curve[beyond], 1e-300))
