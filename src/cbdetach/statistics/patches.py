"""Spread against size, beside contact patches put down at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cbdetach.statistics.groups import holm
from cbdetach.statistics.space import LEVEL, effective_part

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


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
    if patch == 0 or (count < least).all():  # all alike, or too few in every class: no spread to compare
        return PatchNull(patch, p, count, nothing, nothing, nothing, nothing, nothing)
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
