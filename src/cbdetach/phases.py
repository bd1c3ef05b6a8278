"""From grey values to phases: the partial-volume rim around every particle, resolved. Thresholds: `thresholds.py`.

At a boundary between active material and void the instrument's blur passes through the grey value of carbon/binder
(CBD), so plain thresholds wrap every particle in a thin false CBD rim, and every detachment becomes 0. Here the
surface of the active phase and what lies outside it are estimated together (`resolve_phases`):

The grey value of a voxel is modelled as ``A + (1 - A) e`` on a scale where void is 0 and active is 1. ``A`` is the
share of active material in the voxel after blur, ``e`` the grey value of what else the voxel sees. Four rounds:

1. The surface of the active phase lies half-way between active and what lies beyond it, ``E``. The blurred step is an
   error function, so a voxel's grey value gives its signed distance from that surface.
2. The distance makes a sub-voxel mask of the active phase; blurring it by the measured edge width gives ``A``. Where
   the surface is curved the blurred mask crosses one half elsewhere than the data: the difference moves the surface.
3. Unmixing: ``e = (grey - A) / (1 - A)``, averaged over less than the blur with weights that fall steeply towards the
   active phase, is what lies beyond a rim voxel: 0 for void, the CBD level for CBD. It becomes the next ``E``.

At the end a voxel is active inside the surface. Outside, ``e`` is looked at once more, closer to the surface, and the
voxel is CBD where ``e`` exceeds a share of the highest ``e`` around it, within limits. Beside thick CBD that is the
void/CBD threshold. A film as thin as the blur never reaches the CBD level and its rounds end with void beyond it; what
the blur left of it is judged by its own height. In a gap between two particles ``A`` holds the tails of both, so a void
gap, or a crack, is not taken for CBD while the gap is wide enough to see.

Linear mixing is that of Santago and Gage (IEEE TMI 12, 566, 1993), who model the partial volume in the histogram, as
`find_thresholds` does too; the unmixing in space is ours. Cost: 23 separable Gaussian filters of the window, 24 bytes
per voxel. Not modelled: particles of other density than the mean; collector foil (`collector.py` finds that).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cbdetach.codes import ACTIVE, ACTIVE_HIGH, CBD, VOID
from cbdetach.thresholds import Thresholds

Array = NDArray[Any]
Float32 = NDArray[np.float32]

FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))
ROUNDS = 4
SMOOTHING = 0.5  # sigma of the noise filter, in sigmas of the blur: widens the blur by 12 %
BEYOND = 0.8  # sigma of the window over which "what lies beyond" is averaged, in sigmas of the blur
CLOSE = 0.65  # the same for the last look
STEEP, GENTLE = 8, 2  # powers of (1 - A) that weight it: far from the surface, and close to it
# How far the highest value around is looked for, in sigmas of the blur, on either side along each axis. A film ends at
# SHARE of that height, in units of the relative void/CBD threshold. 1 is half-way, but carries CBD over its edge, most
# of all into cusps and slits of void that are narrower than the blur. Chosen on the
# phantom (seeds 0, 1, 3, 5; with a reach of 1.4: it is 1.3 by a run of 72 voxels, tests/cbdetach/test_pipeline.py).
PLATEAU, SHARE = 1.3, 1.2
FLOOR, CEILING = 0.4, 1.4  # least and greatest grey at which a film ends, as a part of the void/CBD threshold
SOFTNESS = 0.9  # half width, in thresholds, of the range of e in which E is neither void nor CBD
TRUNCATE = 3.0  # where Gaussian windows end, in their sigmas
CHUNK = 1 << 19  # rim voxels looked up at a time
MARGIN = 1.25  # "beyond delta" is looked up at this many delta


@dataclass(frozen=True)
class _Blur:
    """The widths that one run uses: sigmas in voxels per axis, lengths in micrometres."""

    sigma: float  # of data and noise filter together
    smooth: tuple[float, ...]
    mask: tuple[float, ...]  # of the sub-voxel mask, which has the extent of a voxel in it already
    beyond: tuple[float, ...]
    close: tuple[float, ...]
    plateau: tuple[float, ...]  # not rounded: a blur little wider must not look a voxel further
    step: float  # the side of a voxel
    delta: float  # the rim

    @staticmethod
    def of(spacing: tuple[float, float, float], edge_width_um: float) -> _Blur:
        side = math.prod(spacing) ** (1 / 3)
        blur = max(edge_width_um / FWHM_PER_SIGMA, side / math.sqrt(12))
        sigma = blur * math.sqrt(1 + SMOOTHING**2)
        return _Blur(
            sigma,
            tuple(SMOOTHING * blur / h for h in spacing),
            tuple(math.sqrt(max(sigma**2 - h**2 / 12, 0.0)) / h for h in spacing),
            tuple(BEYOND * blur / h for h in spacing),
            tuple(CLOSE * blur / h for h in spacing),
            tuple(PLATEAU * sigma / h for h in spacing),
            side,
            FWHM_PER_SIGMA * blur,
        )


def halo(spacing: tuple[float, float, float], edge_width_um: float) -> int:
    """Slices needed on both sides of a slab so that `resolve_phases` gives what it gives on the whole volume."""
    blur = _Blur.of(_spacing(spacing), _width(edge_width_um))
    smooth, mask, beyond, close = (
        int(TRUNCATE * s[0] + 0.5) for s in (blur.smooth, blur.mask, blur.beyond, blur.close)
    )
    look_up = math.ceil(MARGIN * blur.delta / spacing[0]) + 2
    return smooth + ROUNDS * (mask + beyond) + close + math.ceil(blur.plateau[0]) + look_up


def resolve_phases(
    grey: ArrayLike,
    thresholds: Thresholds,
    *,
    spacing: tuple[float, float, float],
    edge_width_um: float,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Phases void, CBD, active of a grey window, with the partial-volume rim of the particles resolved.

    What `resolve` finds, without anything moved: `phases` and `unresolved`.
    """
    found = resolve(grey, thresholds, spacing=spacing, edge_width_um=edge_width_um)
    return found.phases, found.unresolved


@dataclass(frozen=True, eq=False)
class Resolved:
    """The phases of a window, and what they would be with other thresholds; (Z, Y, X) each."""

    phases: NDArray[np.uint8]
    """codes.VOID, CBD, ACTIVE, and ACTIVE_HIGH where `active_high` is set."""
    unresolved: NDArray[np.bool_]
    """Voxels of the rim (within one edge width of active material) behind which something else lies: CBD films, gaps
    and cracks thinner than the edge."""
    moved: list[NDArray[np.uint8]]
    """Phases with each of the moved thresholds."""
    height: Float32
    """The highest grey nearby of what is not active, 0 void, 1 thick CBD: the height of films."""


def resolve(
    grey: ArrayLike,
    thresholds: Thresholds,
    moved: Sequence[Thresholds] = (),
    *,
    spacing: tuple[float, float, float],
    edge_width_um: float,
) -> Resolved:
    """The rim of a grey window resolved once, and decided for the thresholds and for each that is moved.

    grey (Z, Y, X) any real dtype : the window, with `halo` slices more than wanted at inner ends
    spacing (dz, dy, dx) um; edge_width_um : full width at half maximum of the blur

    `moved` are thresholds with the means of `thresholds`. The model of the blurred boundary stays that of `thresholds`;
    `void_cbd` moves the decision between void and CBD, `cbd_active` moves every surface of the active phase by about
    the distance that the blurred step puts between the two values: those that face void by the same share of their
    step.
    """
    found = _solve(grey, thresholds, spacing=spacing, edge_width_um=edge_width_um)
    phases = found.decide(thresholds)
    unresolved = _unresolved(phases, found.active, found.blur, spacing)
    ways = [found.decide(to) for to in moved]
    height = found.height
    height /= _scaled(thresholds)[1]
    return Resolved(phases, unresolved, ways, height)


@dataclass(frozen=True, eq=False)
class _Solution:
    """The two sides of every boundary, solved; all (Z, Y, X), grey values from 0 (void) to 1 (active)."""

    grey: Float32
    active: Float32  # share of active material after blur
    inside: Float32  # voxels inside the active surface, negative outside
    other: Float32  # grey of what is not active
    height: Float32  # the highest of it nearby
    blur: _Blur
    lift: np.float32  # of the surface in `inside`
    solid: Float32 | None  # grey of the active material alone, averaged over less than the blur; only for two densities

    def decide(self, thresholds: Thresholds) -> NDArray[np.uint8]:
        """The phase of every voxel."""
        cut, level, share = _scaled(thresholds)
        step = _Step(self.blur, share)
        film = np.clip(self.height * (np.float32(SHARE) * cut / level), FLOOR * cut, CEILING * cut)
        outer = np.where(self.active < 0.02, self.grey >= cut, self.other >= film)
        inside = self.inside >= (step.lift - self.lift) * step.scale
        phases = np.where(inside, np.uint8(ACTIVE), np.where(outer, np.uint8(CBD), np.uint8(VOID)))
        if self.solid is not None and thresholds.active_high is not None:
            v, _, a = thresholds.means
            phases[inside & (self.solid >= np.float32((thresholds.active_high - v) / (a - v)))] = ACTIVE_HIGH
        return phases


def _scaled(thresholds: Thresholds) -> tuple[np.float32, np.float32, float]:
    """The void/CBD threshold and the mean of CBD from void (0) to active (1); the CBD/active one from CBD to active."""
    v, c, a = thresholds.means
    if not v < thresholds.void_cbd < thresholds.cbd_active < a:
        raise ValueError(
            f"thresholds: must lie in order between the means of void and active, {v:g} and {a:g}; "
            f"got {thresholds.void_cbd:g}, {thresholds.cbd_active:g}."
        )
    cut, level = (thresholds.void_cbd - v) / (a - v), (c - v) / (a - v)
    return np.float32(cut), np.float32(level), (thresholds.cbd_active - c) / (a - c)


def _solve(
    grey: ArrayLike, thresholds: Thresholds, *, spacing: tuple[float, float, float], edge_width_um: float
) -> _Solution:
    image = np.asarray(grey)
    if image.ndim != 3:
        raise ValueError(f"grey: must be a 3D array; got {image.ndim} dimensions. Give (Z, Y, X).")
    blur = _Blur.of(_spacing(spacing), _width(edge_width_um))
    cut, level, share = _scaled(thresholds)
    step = _Step(blur, share)
    v, _, a = thresholds.means

    u = image.astype(np.float32)
    u -= np.float32(v)
    u /= np.float32(a - v)
    _smooth(u, blur.smooth)
    beyond = np.full_like(u, level)
    shift = np.zeros_like(u)
    active = np.empty_like(u)
    for _ in range(ROUNDS):
        depth = step.depth(u, beyond)
        del beyond
        np.add(depth, shift, out=active)
        active += np.float32(0.5)
        np.clip(active, 0, 1, out=active)
        _smooth(active, blur.mask)
        shift += step.curvature(depth, active, blur)
        np.clip(shift, -0.7, 0.7, out=shift)
        del depth
        beyond = _unmixed(u, active, level, STEEP, blur.beyond)
        # towards void or CBD, whichever is nearer: the surface has one of them beyond it
        beyond -= cut
        beyond *= level / (2 * np.float32(SOFTNESS) * cut)
        beyond += level / 2
        np.clip(beyond, 0, level, out=beyond)
    inside = step.depth(u, beyond)
    inside += shift
    del beyond, shift
    other = _unmixed(u, active, level, GENTLE, blur.close)
    height = _highest(np.where(active < 0.8, other, np.float32(-1)), blur.plateau)
    solid = None if thresholds.active_high is None else _mean_of_active(u, active, blur.close)
    return _Solution(u, active, inside, other, height, blur, step.lift, solid)


def _smooth(x: Float32, sigma: tuple[float, ...]) -> None:
    from scipy.ndimage import gaussian_filter

    gaussian_filter(x, sigma, output=x, mode="nearest", truncate=TRUNCATE)


class _Step:
    """A blurred step from active (1) to what lies beyond, and back from grey values to distances, in voxels."""

    def __init__(self, blur: _Blur, level: float) -> None:
        from scipy.special import ndtri

        self.scale = np.float32(blur.sigma / blur.step)
        self.lift = np.float32(ndtri(min(max(level, 0.02), 0.98)))  # the surface's own place on the step

    def depth(self, u: Float32, beyond: Float32) -> Float32:
        """Signed distance inside the active surface."""
        share = u - beyond
        share /= 1 - beyond
        return self._distance(share, self.lift)

    def curvature(self, depth: Float32, active: Float32, blur: _Blur) -> Float32:
        """How much deeper the data put the surface than the blurred mask does, carried along the normal."""
        weight = np.square(depth)
        weight *= -2 / self.scale**2
        np.exp(weight, out=weight)
        weight += np.float32(1e-6)
        lag = self._distance(active.copy(), np.float32(0))
        np.subtract(depth, lag, out=lag)
        lag *= weight
        _smooth(lag, blur.beyond)
        _smooth(weight, blur.beyond)
        lag /= weight
        return lag

    def _distance(self, share: Float32, lift: np.float32) -> Float32:
        from scipy.special import ndtri

        np.clip(share, 1e-3, 1 - 1e-3, out=share)
        ndtri(share, out=share)
        share -= lift
        share *= self.scale
        return share


def _unmixed(u: Float32, active: Float32, level: np.float32, power: int, sigma: tuple[float, ...]) -> Float32:
    """Grey of what is not active, averaged over a window with weights (1 - active)^power."""
    weight = 1 - active
    np.clip(weight, 1e-3, 1, out=weight)
    other = u - active
    other /= weight
    np.clip(other, -0.5 * level, 1.5 * level, out=other)
    weight **= power
    weight += np.float32(1e-6)
    other *= weight
    _smooth(other, sigma)
    _smooth(weight, sigma)
    other /= weight
    return other


def _highest(x: Float32, reach: tuple[float, ...]) -> Float32:
    """The highest value within `reach` voxels on either side along each axis, in place.

    Between two whole numbers of voxels the two maxima are interpolated, so that the result goes evenly with the reach.
    """
    from scipy.ndimage import maximum_filter1d

    for axis, wanted in enumerate(reach):
        n = math.floor(wanted)
        wider = maximum_filter1d(x, 2 * n + 3, axis, mode="nearest")
        maximum_filter1d(x, 2 * n + 1, axis, output=x, mode="nearest")
        wider -= x
        wider *= np.float32(wanted - n)
        x += wider
    return x


def _mean_of_active(u: Float32, active: Float32, sigma: tuple[float, ...]) -> Float32:
    """Grey of the active material nearby, with weights active^8: the rim of a particle takes that of its inside."""
    weight = active**STEEP
    weight += np.float32(1e-6)
    mean = u * weight
    _smooth(mean, sigma)
    _smooth(weight, sigma)
    mean /= weight
    return mean


def _unresolved(
    phases: NDArray[np.uint8], mask: Float32, blur: _Blur, spacing: tuple[float, float, float]
) -> NDArray[np.bool_]:
    """Rim voxels whose phase differs from that just beyond delta, looked up along the outward normal."""
    from scipy.special import ndtri

    result = np.zeros(phases.shape, bool)
    rim = np.flatnonzero((phases < ACTIVE) & (mask > 0.01))
    for start in range(0, rim.size, CHUNK):
        at = np.unravel_index(rim[start : start + CHUNK], phases.shape)
        slope = []
        for axis, h in enumerate(spacing):
            up, down = list(at), list(at)
            up[axis] = np.minimum(at[axis] + 1, phases.shape[axis] - 1)
            down[axis] = np.maximum(at[axis] - 1, 0)
            slope.append((mask[tuple(down)] - mask[tuple(up)]) / (2 * h))
        length = np.maximum(np.sqrt(sum(s * s for s in slope)), 1e-12)
        way = np.maximum(MARGIN * blur.delta + blur.sigma * ndtri(np.clip(mask[at], 0.01, 0.99)), 0)
        there = tuple(
            np.clip(np.rint(i + way * s / length / h).astype(np.intp), 0, size - 1)
            for i, s, h, size in zip(at, slope, spacing, phases.shape, strict=True)
        )
        result[at] = np.minimum(phases[there], ACTIVE) != phases[at]
    return result


def _spacing(spacing: tuple[float, float, float]) -> tuple[float, float, float]:
    dz, dy, dx = (float(h) for h in spacing)
    if not all(math.isfinite(h) and h > 0 for h in (dz, dy, dx)):
        raise ValueError(f"spacing: must be three positive lengths; got {spacing!r}.")
    return dz, dy, dx


def _width(edge_width_um: float) -> float:
    if not (math.isfinite(edge_width_um) and edge_width_um >= 0):
        raise ValueError(f"edge_width_um: must be a length of 0 or more; got {edge_width_um!r}.")
    return float(edge_width_um)
