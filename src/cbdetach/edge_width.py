"""The width of a volume's edges, which is the blur, from rays across the surface of the active phase.

Where a block's smoothed grey crosses half-way between void and active, a ray is laid along its gradient and sampled
with cubic splines. Each ray is shifted to where it crosses that level itself. Only rays that are void on the far side
and active on the near side are kept. A thin film of carbon/binder widens an edge, so the widths of these rays are a
mixture of kinds: bare surface, the narrowest, and films; noise scatters all of them alike. Each ray counts by the
chance that it is of the narrowest kind. An error function is fitted to the mean: its full width at half maximum is the
blur, noise averaged out.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

RAYS = 36_000  # that are looked along, shared by the blocks
FEWEST = 30  # that a width is told by
KINDS = 4  # of edges that are told apart at most: bare surface, and films of several thicknesses
SMALLEST_KIND = 0.05  # share of the rays from which a kind counts
ROUNDS, BINS = 200, 256  # of the mixture that tells them apart
FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))


def measure_edge(
    blocks: list[Array], levels: tuple[float, float], spacing: tuple[float, float, float]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64], int]:
    """Full width at half maximum of the blur, the mean edge profile (distance, grey 0..1), and its number of rays.

    blocks: grey blocks (z, y, x) of any size; levels: grey of void and active; spacing (dz, dy, dx) um.
    Where fewer than `FEWEST` rays cross from active to void, the width is one voxel and the profile empty.
    """
    side = math.prod(spacing) ** (1 / 3)
    most = RAYS // max(1, len(blocks))
    width, distance, profile, count = side, np.empty(0), np.empty(0), 0
    for reach in (6.0 * side, 10.0 * side):  # longer rays leave fewer places in a block: only for wider edges
        along = np.linspace(-reach, reach, round(16 * reach / side) + 1)
        rays = np.concatenate([np.empty((0, along.size))] + [_rays(b, levels, spacing, along, most) for b in blocks])
        found, mean, n = _fit_edge(along, rays, side if not count else width / FWHM_PER_SIGMA)
        if n:
            width, distance, profile, count = found, along, mean, n
        if n and found < 0.45 * reach:
            break
    return width, distance, profile, count


def _rays(
    block: Array, levels: tuple[float, float], spacing: tuple[float, float, float], distance: Array, most: int
) -> Array:
    """Grey (0 void .. 1 active) along about `most` outward normals of a block's active surface, (rays, samples)."""
    from scipy.ndimage import gaussian_filter, map_coordinates, spline_filter

    none = np.empty((0, distance.size))
    h = np.array(spacing)
    if min(block.shape) < 5:
        return none
    grey = ((block.astype(np.float32) - levels[0]) / (levels[1] - levels[0])).astype(np.float32)
    smooth = gaussian_filter(grey, 1.0 * h.min() / h * 1.5)
    slope = np.stack([np.gradient(smooth, step, axis=axis) for axis, step in enumerate(spacing)])
    steep = np.sqrt((slope**2).sum(0))
    with np.errstate(divide="ignore", invalid="ignore"):
        off = (smooth - 0.5) / steep  # distance to the surface along the normal
    at = np.argwhere((np.abs(off) < 0.5 * h.min()) & (steep > 0.05 / h.min()))
    margin = np.abs(distance[[0, -1]]).max() / h
    inside = ((at >= margin) & (at <= np.array(block.shape) - 1 - margin)).all(1)
    at = at[inside][:: max(1, int(inside.sum() // most))]
    if not len(at):
        return none
    index = tuple(at.T)
    normal = -(slope[(slice(None), *index)] / steep[index]).T
    start = at * h + off[index][:, None] * normal
    points = start[:, None, :] + distance[:, None] * normal[:, None, :]
    coefficients = spline_filter(grey, order=3, mode="mirror", output=np.float32)
    return np.asarray(
        map_coordinates(coefficients, np.moveaxis(points / h, -1, 0), order=3, mode="mirror", prefilter=False),
        np.float64,
    )


def _fit_edge(distance: Array, rays: Array, sigma: float) -> tuple[float, Array, int]:
    """Align the rays, keep clean steps from active to void, fit an error function to their mean over bare surface."""
    for _ in range(4):
        steps, stretch = _clean_steps(distance, rays, sigma)
        if len(steps) < FEWEST:
            return 0.0, np.empty(0), 0
        chance = _narrowest(stretch)
        n = chance.sum()
        if n < FEWEST:
            return 0.0, np.empty(0), 0
        profile = chance @ steps / n
        width = fitted_width(distance, profile)
        sigma = width / FWHM_PER_SIGMA
    return width, profile, round(n)


def _clean_steps(distance: Array, rays: Array, sigma: float) -> tuple[Array, Array]:
    """The rays that are one step from active to void, shifted to their own half-way crossing; how much wider than
    sigma each is."""
    from scipy.special import ndtr

    step = distance[1] - distance[0]
    model = ndtr(-distance / sigma)
    near = np.abs(distance) <= 2.5 * sigma
    # linear fit of shift and width about the model: residual = shift * d/dx + stretch * d/dsigma
    bell = np.exp(-((distance / sigma) ** 2) / 2) / (math.sqrt(2 * math.pi) * sigma)
    design = np.stack([bell, distance * bell / sigma], 1)[near]
    shift, stretch = np.linalg.lstsq(design, (rays - model)[:, near].T, rcond=None)[0]
    kept = np.abs(shift) < 1.5 * sigma
    rays, shift, stretch = rays[kept], shift[kept], stretch[kept]
    far = 2.5 * sigma + step
    outside = (distance > far) & (distance < far + 1.5 * sigma)
    inside = (distance < -far) & (distance > -far - 1.5 * sigma)
    if not (outside.any() and inside.any()) or not len(rays):
        return rays[:0], stretch[:0]
    out, into = rays[:, outside], rays[:, inside]
    clean = (np.abs(out.mean(1)) < 0.12) & (np.abs(into.mean(1) - 1) < 0.12)
    rays, shift, stretch = rays[clean], shift[clean], stretch[clean]
    where = np.clip((distance[None, :] + shift[:, None] - distance[0]) / step, 0, distance.size - 1)
    low = np.minimum(where.astype(np.intp), distance.size - 2)
    part = where - low
    rows = np.arange(len(rays))[:, None]
    return np.asarray(rays[rows, low] * (1 - part) + rays[rows, low + 1] * part), stretch


def _narrowest(stretch: Array) -> Array:
    """The chance that each ray is of the narrowest kind of edge.

    A mixture of Gaussians of one common spread, by expectation maximisation on a histogram; their number is that
    of the least Bayesian information criterion (Schwarz, Ann. Stat. 6, 461, 1978). Kinds no further apart than the
    spread are one.
    """
    low, first, last, high = np.quantile(stretch, (0.001, 0.15, 0.95, 0.999))
    if not last > first:
        return np.ones(len(stretch))
    counts, edges = np.histogram(stretch, BINS, (low, high))
    tried = [_mixture(counts, edges, np.linspace(first, last, n), (last - first) / n) for n in range(1, KINDS + 1)]
    (mean, spread, share), _ = min(tried, key=lambda found: found[1])
    order = np.argsort(mean)
    narrowest = order[np.argmax(np.cumsum(share[order]) >= SMALLEST_KIND)]
    density = _density(stretch, mean, spread, share)
    return np.asarray(density[:, mean <= mean[narrowest] + spread].sum(1) / density.sum(1))


def _mixture(counts: Array, edges: Array, mean: Array, spread: float) -> tuple[tuple[Array, float, Array], float]:
    """Means, common spread and shares of the kinds of edge, from a start; and the information criterion."""
    x, share, n = (edges[:-1] + edges[1:]) / 2, np.full(len(mean), 1 / len(mean)), counts.sum()
    for _ in range(ROUNDS):
        density = _density(x, mean, spread, share)
        member = (counts / density.sum(1))[:, None] * density
        weight = member.sum(0) + 1e-9
        share = weight / weight.sum()
        mean = x @ member / weight
        spread = max(math.sqrt((member * (x[:, None] - mean) ** 2).sum() / n), edges[1] - edges[0])
    likelihood = float(counts @ np.log(_density(x, mean, spread, share).sum(1)))
    return (mean, spread, share), 2 * len(mean) * math.log(n) - 2 * likelihood


def _density(x: Array, mean: Array, spread: float, share: Array) -> Array:
    """(N, kinds): density of each kind at each x; nowhere 0."""
    return np.asarray(share / spread * np.exp(-(((x[:, None] - mean) / spread) ** 2) / 2) + 1e-300)


def fitted_width(distance: Array, profile: Array) -> float:
    """Full width of the error function that fits a profile from 8 to 92 percent: a line through its normal scores.

    distance (N,), ascending from inside; profile (N,) grey, 1 inside and 0 outside.

    Only the step itself counts, not what the profile does after it has left that range.
    """
    from scipy.special import ndtri

    level = (profile > 0.08) & (profile < 0.92)
    middle = int(np.argmin(np.abs(distance)))
    left = np.flatnonzero(~level[:middle])
    right = np.flatnonzero(~level[middle:])
    level[: left[-1] + 1 if left.size else 0] = False
    level[middle + right[0] if right.size else level.size :] = False
    if level.sum() < 3:
        return float(distance[1] - distance[0]) * FWHM_PER_SIGMA
    slope = np.polyfit(distance[level], ndtri(profile[level]), 1)[0]
    sigma = np.clip(-1 / min(slope, -1e-9), (distance[1] - distance[0]) / 2, distance[-1] / 2)
    return float(sigma) * FWHM_PER_SIGMA
