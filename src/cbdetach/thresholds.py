"""Thresholds between void, carbon/binder (CBD) and active material, from the histogram of the whole volume.

Two ways, and a choice between them (`method="auto"`):

*Mixture.* Three Gaussians and, for voxels cut by a boundary, uniform bridges between each two of them, fitted by
expectation maximisation (the partial volume in the histogram: Santago and Gage, IEEE TMI 12, 566, 1993). A threshold is
the middle between two means, where a blurred boundary is neither shrunk nor grown.

*Multi-Otsu* (Otsu, IEEE SMC 9, 62, 1979): the cuts that maximise the variance between classes, whatever their shapes.
Where active material comes in two densities, or dim beside bright, the three classes of the whole histogram are
everything dark, dim active and bright active; then the dark class is cut once more, into void and CBD.

*Choice.* The mixture, if its CBD and active levels stand clear: Ashman's D (distance of the means over their root mean
square spread; AJ 108, 2348, 1994) of at least 6. Otherwise two thresholds compete for the surface of the active phase,
the mixture's upper one and the lower cut of multi-Otsu (which then says: active material of two densities), and the one
whose voxels lie on the steeper edges wins. A surface is where the grey value changes most; inside a phase it is flat.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cbdetach.errors import InputError

Array = NDArray[Any]

STEP = np.array([(1 + math.erf(z / math.sqrt(2))) / 2 for z in np.linspace(-2.5, 2.5, 31)])  # a blurred step, sampled
CBD_PLACE, CBD_PLACE_SD = 0.35, 0.1  # where electron density puts CBD between void and active
CBD_PRIOR_WEIGHT = 2e-4  # of that prior, against the log likelihood per voxel
CLEAR = 6.0  # Ashman's D from which two levels do not overlap at all


@dataclass(frozen=True)
class Thresholds:
    """Two grey values that separate void, CBD and active, and what they were derived from (all in grey units)."""

    void_cbd: float
    cbd_active: float
    means: tuple[float, float, float]
    sds: tuple[float, float, float]
    weights: tuple[float, float, float]
    void_cbd_band: tuple[float, float]
    cbd_active_band: tuple[float, float]
    method: str
    active_high: float | None = None
    """Grey value from which active material is of high density; None: one density."""
    others: dict[str, list[float]] = field(default_factory=dict)
    """The thresholds that were not taken, by method."""
    why: str = ""
    """How the method was chosen, in one sentence."""

    def variants(self) -> dict[str, Thresholds]:
        """The thresholds moved to the ends of their bands, one at a time."""
        moved = {}
        for name, band in (("void_cbd", self.void_cbd_band), ("cbd_active", self.cbd_active_band)):
            for end, value in zip(("low", "high"), band, strict=True):
                change: dict[str, Any] = {name: value}
                moved[f"{name}_{end}"] = replace(self, **change)
        return moved

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Thresholds:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return Thresholds(**fields)


def find_thresholds(
    counts: ArrayLike,
    edges: ArrayLike,
    *,
    method: str = "auto",
    active_levels: int | None = None,
    strength: tuple[ArrayLike, ArrayLike] | None = None,
    void_cbd: float | None = None,
    cbd_active: float | None = None,
    active_high: float | None = None,
) -> Thresholds:
    """Thresholds between void, CBD and active from the histogram of the whole volume.

    counts (N,), edges (N + 1,) : the global histogram
    method : "auto", "gmm" (the mixture) or "otsu": see above.
    active_levels : 1 or 2 densities of active material; None: 2 where the choice says so or `active_high` is given,
        else 1. With "gmm", the two are what Otsu's cut makes of everything above `cbd_active`.
    strength : grey values and the mean gradient there (`survey.Survey`); without it "auto" takes the mixture.
    void_cbd, cbd_active, active_high : a threshold in grey units that is taken as it is.

    The band of a threshold is the range in which the posterior of the brighter class is 0.25 to 0.75; a cut voxel
    belongs to the brighter class by its share. Raises InputError if the histogram does not hold three grey levels, or
    a given threshold lies out of order.
    """
    x, n = _compact(np.asarray(counts, np.float64), np.asarray(edges, np.float64))
    if method not in ("auto", "gmm", "otsu"):
        raise InputError(f"method: must be 'auto', 'gmm' or 'otsu'; got {method!r}.")
    if active_levels not in (None, 1, 2):
        raise InputError(f"active_levels: must be 1 or 2; got {active_levels!r}.")
    cuts = _otsu(x, n)
    dark = (_split(x, n, x < cuts[0]), cuts[0])
    fit = _Mixture.from_cuts(x, n, *cuts) if method == "otsu" else _fit_mixture(x, n, cuts)
    levels = 2 if active_levels is None and active_high is not None else active_levels
    why, chosen = "", method
    if method == "auto":
        chosen, why = _choose(fit, cuts[0], strength, levels)
        levels = 2 if chosen == "otsu" else levels
    v, c, a = fit.means
    middle = ((v + c) / 2, (c + a) / 2)
    found = {"gmm": middle, "otsu": dark if levels == 2 else cuts}
    if chosen == "otsu":
        fit = _Mixture.from_cuts(x, n, *found["otsu"])
    low, high = found[chosen]
    low = low if void_cbd is None else float(void_cbd)
    high = high if cbd_active is None else float(cbd_active)
    v, c, a = fit.means
    if not v < low < high < a:
        raise InputError(
            f"void_cbd, cbd_active: must rise between the grey of void and active, {v:g} and {a:g}; "
            f"got {low:g}, {high:g}."
        )
    bright = None
    if levels == 2:
        bright = cuts[1] if chosen == "otsu" else _split(x, n, x > high)
        bright = bright if active_high is None else float(active_high)
        if not bright > high:
            raise InputError(f"active_high: must be above the CBD/active threshold, {high:g}; got {bright:g}.")
    name = chosen
    if (void_cbd, cbd_active) != (None, None):
        name = "given" if None not in (void_cbd, cbd_active) else f"{name}, one given"
    others = {} if method == "otsu" else {k: list(pair) for k, pair in found.items() if k != chosen}
    return replace(fit.thresholds(low, high, name), active_high=bright, others=others, why=why)


def _choose(
    fit: _Mixture, lower_cut: float, strength: tuple[ArrayLike, ArrayLike] | None, levels: int | None
) -> tuple[str, str]:
    """The method, and the reason in words."""
    distance = math.sqrt(2) * (fit.means[2] - fit.means[1]) / math.hypot(fit.sds[1], fit.sds[2])
    if distance >= CLEAR:
        return "gmm", f"the mixture's CBD and active levels stand clear (D = {distance:.1f})"
    overlap = f"the mixture's levels overlap (D = {distance:.1f})"
    if levels == 1:
        return "gmm", f"{overlap}, but one density of active material is asked for"
    if strength is None or not np.asarray(strength[0]).size:
        return "gmm", f"{overlap}, but no edges were measured"
    grey, slope = (np.asarray(s, np.float64) for s in strength)
    upper = float(np.interp((fit.means[1] + fit.means[2]) / 2, grey, slope))
    lower = float(np.interp(lower_cut, grey, slope))
    taken, other = ("gmm", "multi-Otsu's") if upper >= lower else ("otsu", "the mixture's")
    ratio = max(upper, lower) / max(min(upper, lower), 1e-300)
    steep = f"edges are {ratio:.2f} times as steep at this CBD/active threshold as at {other}"
    return taken, f"{overlap}, and {steep}"


def _split(x: Array, n: Array, part: Array) -> float:
    """Otsu's cut of a part of the histogram into two classes."""
    x, n = x[part], n[part]
    if x.size < 2:
        raise InputError(
            "volume: must hold at least four grey levels to tell two densities of active material apart; "
            "set [phases] active_levels to 1."
        )
    below = np.cumsum(n)[:-1]
    mass = np.cumsum(n * x)
    above = n.sum() - below
    difference = mass[:-1] / np.maximum(below, 1e-300) - (mass[-1] - mass[:-1]) / np.maximum(above, 1e-300)
    best = int(np.argmax(below * above * difference**2))
    return float(x[best] + x[best + 1]) / 2


def _compact(counts: Array, edges: Array) -> tuple[Array, Array]:
    """At most about 512 bins between the grey values that hold all but 1e-4 of the voxels at each end."""
    centres = (edges[:-1] + edges[1:]) / 2
    total = counts.sum()
    cumulated = np.cumsum(counts)
    low = int(np.searchsorted(cumulated, 1e-4 * total))
    high = int(np.searchsorted(cumulated, (1 - 1e-4) * total))
    counts, centres = counts[low : high + 1], centres[low : high + 1]
    if np.count_nonzero(counts) < 3:
        raise InputError(
            "volume: must hold at least three grey levels to tell void, CBD and active apart; "
            f"got {np.count_nonzero(counts)}. Give the phases (--phases) instead."
        )
    group = max(1, math.ceil(counts.size / 512))
    starts = np.arange(0, counts.size, group)
    merged = np.add.reduceat(counts, starts)
    weight = np.maximum(np.add.reduceat(np.ones_like(counts), starts), 1)
    return np.add.reduceat(centres, starts) / weight, merged


def _otsu(x: Array, n: Array) -> tuple[float, float]:
    """The two cuts that maximise the variance between three classes: all pairs of bins."""
    w = np.concatenate([[0.0], np.cumsum(n)])
    m = np.concatenate([[0.0], np.cumsum(n * x)])

    def between(i: Array | int, j: Array | int) -> Array:
        weight = w[j] - w[i]
        return np.asarray(np.divide((m[j] - m[i]) ** 2, weight, out=np.zeros_like(weight), where=weight > 0))

    k = x.size
    i, j = np.triu_indices(k - 1, 1)
    i, j = i + 1, j + 1
    zero, end = np.zeros_like(i), np.full_like(i, k)
    best = int(np.argmax(between(zero, i) + between(i, j) + between(j, end)))
    cut = (x[:-1] + x[1:]) / 2
    return float(cut[i[best] - 1]), float(cut[j[best] - 1])


@dataclass(frozen=True)
class _Mixture:
    """Three Gaussians and three bridges (void-CBD, CBD-active, void-active)."""

    x: Array
    means: tuple[float, float, float]
    sds: tuple[float, float, float]
    pure: tuple[float, float, float]
    bridges: tuple[float, float, float]

    @staticmethod
    def from_cuts(x: Array, n: Array, low: float, high: float) -> _Mixture:
        means, sds, pure = [], [], []
        for part in (x < low, (x >= low) & (x < high), x >= high):
            weight = n[part].sum()
            mean = float((n[part] * x[part]).sum() / weight) if weight else (low + high) / 2
            var = float((n[part] * (x[part] - mean) ** 2).sum() / weight) if weight else 0.0
            means.append(mean)
            sds.append(max(math.sqrt(var), float(x[1] - x[0]) / 2))
            pure.append(float(weight / n.sum()))
        return _Mixture(x, _three(means), _three(sds), _three(pure), (0.0, 0.0, 0.0))

    def densities(self) -> tuple[Array, Array, Array]:
        """Weighted densities (3, N) of Gaussians and of bridges, and the share of the brighter class in a bridge."""
        means, sds, pure = (np.array(t)[:, None] for t in (self.means, self.sds, self.pure))
        gauss = pure / sds * np.exp(-(((self.x - means) / sds) ** 2) / 2) / math.sqrt(2 * math.pi)
        bridge, share = [], []
        for w, (i, j) in zip(self.bridges, ((0, 1), (1, 2), (0, 2)), strict=True):
            centre = self.means[i] + (self.means[j] - self.means[i]) * STEP
            sd = np.maximum(self.sds[i] + (self.sds[j] - self.sds[i]) * STEP, 0.04 * (self.means[j] - self.means[i]))
            parts = np.exp(-(((self.x - centre[:, None]) / sd[:, None]) ** 2) / 2) / sd[:, None]
            total = parts.sum(0)
            bridge.append(w * total / (STEP.size * math.sqrt(2 * math.pi)))
            share.append((STEP @ parts) / np.maximum(total, 1e-300))
        return gauss, np.stack(bridge), np.stack(share)

    def thresholds(self, low: float, high: float, method: str) -> Thresholds:
        # voxels cut by a void/active boundary are the rim's, whatever these thresholds are: they take no part
        gauss, bridge, share = self.densities()
        _, middle, bright = gauss
        between = bridge * share
        total = np.maximum(gauss.sum(0) + bridge[:2].sum(0), 1e-300)
        over_low = (middle + bright + between[0] + bridge[1]) / total
        over_high = (bright + between[1]) / total
        v, c, a = self.means
        return Thresholds(
            low,
            high,
            self.means,
            self.sds,
            self.pure,
            _band(self.x, over_low, v, c, low),
            _band(self.x, over_high, c, a, high),
            method,
        )


def _three(values: list[float]) -> tuple[float, float, float]:
    a, b, c = values
    return a, b, c


def _band(x: Array, posterior: Array, low: float, high: float, threshold: float) -> tuple[float, float]:
    """Where the posterior of the brighter class passes 0.25 and 0.75 between two class means; holds the threshold."""
    inside = (x >= low) & (x <= high)
    if inside.sum() < 2:
        return threshold, threshold
    p = np.maximum.accumulate(posterior[inside])
    first = float(np.interp(0.25, p, x[inside]))
    last = float(np.interp(0.75, p, x[inside]))
    return min(first, threshold), max(last, threshold)


def _fit_mixture(x: Array, n: Array, start: tuple[float, float]) -> _Mixture:
    """The mixture with the CBD level at the most likely place between void and active.

    Expectation maximisation with the place held, for each of a row of places. The prior decides only where the
    histogram does not: CBD in films as thin as the blur has no peak of its own.
    """
    n = n / n.sum()
    rough = _Mixture.from_cuts(x, n, *start)
    v, a = _mode(x, n, rough.means[0], rough.sds[0]), _mode(x, n, rough.means[2], rough.sds[2])
    sd = max(0.5 * min(rough.sds[0], rough.sds[2]), 0.005 * (a - v))

    def fitted(place: float) -> tuple[_Mixture, float]:
        c = v + place * (a - v)
        fit = _Mixture(x, (v, c, a), (sd, sd, sd), (0.4, 0.1, 0.4), (0.03, 0.03, 0.04))
        for _ in range(60):
            fit = _improve(fit, n, place)
        gauss, bridge, _ = fit.densities()
        likelihood = float((n * np.log(np.maximum(gauss.sum(0) + bridge.sum(0), 1e-300))).sum())
        return fit, likelihood - CBD_PRIOR_WEIGHT * ((place - CBD_PLACE) / CBD_PLACE_SD) ** 2 / 2

    places = np.arange(0.15, 0.86, 0.05)
    scores = [fitted(float(place))[1] for place in places]
    best = int(np.clip(np.argmax(scores), 1, places.size - 2))
    before, top, after = scores[best - 1 : best + 2]
    bend = before - 2 * top + after
    offset = float(np.clip(0.5 * (before - after) / bend, -1, 1)) if bend < 0 else 0.0
    return fitted(float(places[best]) + 0.05 * offset)[0]


def _improve(fit: _Mixture, n: Array, place: float) -> _Mixture:
    """One round of expectation maximisation. The CBD's spread is held near that of the other two classes."""
    gauss, bridge, _ = fit.densities()
    total = np.maximum(gauss.sum(0) + bridge.sum(0), 1e-300)
    member = n * gauss / total
    weight = np.maximum(member.sum(1), 1e-9)
    v, _, a = (float(m) for m in (member * fit.x).sum(1) / weight)
    if not a > v:
        v, _, a = fit.means
    means = (v, v + place * (a - v), a)
    spread = np.sqrt((member * (fit.x - np.array(means)[:, None]) ** 2).sum(1) / weight)
    spread = np.maximum(spread, 0.005 * (a - v))
    low, high = sorted((spread[0], spread[2]))
    sds = _three([float(s) for s in (spread[0], np.clip(spread[1], 0.7 * low, 1.3 * high), spread[2])])
    bridges = _three([float(w) for w in (n * bridge / total).sum(1)])
    return _Mixture(fit.x, means, sds, _three([float(w) for w in weight]), bridges)


def _mode(x: Array, n: Array, mean: float, sd: float) -> float:
    """The highest place of the smoothed histogram within two sd of a class mean."""
    from scipy.ndimage import gaussian_filter1d

    smooth = gaussian_filter1d(n, max(1.0, 0.1 * sd / float(x[1] - x[0])))
    near = np.abs(x - mean) <= 2 * sd
    return float(x[near][np.argmax(smooth[near])])
