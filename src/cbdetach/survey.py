"""One pass over the grey volume, slab by slab: histogram, grey scale, hash, and the width of its edges (the blur).

The histogram is exact for integers of up to 16 bits. Other types use bins of width 2^k on multiples of 2^k, where k is
the smallest that spans the range met so far with 65,536 bins: merging neighbours when the range grows gives the very
counts that the final bins would have given. Hash and mean go slice by slice. So nothing depends on how the volume is
cut into slabs.

Edge width: the pass keeps a bounded sample of blocks (48 voxels a side, at most 9 of a layer and 8 layers, spread
evenly). Where a block's smoothed grey crosses half-way between void and active, a ray is laid along its gradient and
sampled with cubic splines. Each ray is shifted to where it crosses that level itself. Only rays that are void on the
far side and active on the near side are kept, and of those the ones about the most frequent steepness, symmetrically:
a thin film of carbon/binder widens an edge, so films lie in one tail. An error function is fitted to the mean of these
rays: its full width at half maximum is the blur, noise averaged out.

Two more things come from the same pass. *Edge strength*: the mean gradient in the plane, on every fourth slice, of the
voxels of each grey value: it peaks at the grey of a phase's surface, and tells a threshold that lies on surfaces from
one that lies inside a phase. *Regional histograms*: of quarters of the plane in up to 8 layers, to see whether one grey
scale holds for the whole volume.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cbdetach.errors import InputError
from cbdetach.histograms import Histogram, Regions, add_strength, inner_range, mean_strength

Array = NDArray[Any]

BLOCK = 48
PER_LAYER = 3  # blocks along y and along x
LAYERS = 8
RAYS = 36_000  # that are looked along, shared by the blocks
FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))
EDGE_EVERY = 4  # slices


@dataclass(frozen=True, eq=False)
class Survey:
    """What one pass over the grey volume tells. Grey values in the volume's units, lengths in micrometres."""

    shape: tuple[int, int, int]
    dtype: str
    counts: NDArray[np.int64]
    """(N,) voxels per bin, from the darkest to the brightest that occurs."""
    edges: NDArray[np.float64]
    """(N + 1,) limits of the bins."""
    minimum: float
    maximum: float
    mean: float
    sha256: str
    """Of the voxels, in C order, little-endian."""
    edge_width_um: float
    """Full width at half maximum of the blur; one voxel where no edge could be measured (then `edge_rays` is 0)."""
    edge_distance_um: NDArray[np.float64]
    """(M,) distance from the surface of the active phase, positive outside."""
    edge_profile: NDArray[np.float64]
    """(M,) mean grey there, from 0 (void) to 1 (active)."""
    edge_rays: int
    """Rays that the profile is the mean of."""
    strength_grey: NDArray[np.float64]
    """(K,) grey values,"""
    strength: NDArray[np.float64]
    """(K,) and the mean gradient (grey units per pixel) of the voxels of that grey; 0 where there are too few."""
    region_slices: NDArray[np.int64]
    """(R, 2) first and last (exclusive) slice of each layer of regions."""
    region_edges: NDArray[np.float64]
    """(B + 1,) limits of the bins of the regional histograms; the outer bins hold everything beyond."""
    region_counts: NDArray[np.int64]
    """(R, 4, B) voxels by layer and quarter of the plane (low y low x, low y high x, high y low x, high y high x)."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, for JSON."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(self).items()}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Survey:
        fields: dict[str, Any] = dict(values)
        fields["shape"] = tuple(values["shape"])
        for name in ("counts", "region_slices", "region_counts"):
            fields[name] = np.array(values[name], np.int64)
        for name in ("edges", "edge_distance_um", "edge_profile", "strength_grey", "strength", "region_edges"):
            fields[name] = np.array(values[name], np.float64)
        return Survey(**fields)


class SurveyAccumulator:
    """Add the slabs of a volume in order of z, then `finish`.

    voxel_size (dz, dy, dx) in micrometres. Memory: the histograms (26 MB), and at most 72 blocks (32 MB for 32 bits).
    """

    def __init__(self, voxel_size: tuple[float, float, float]) -> None:
        self.voxel_size = voxel_size
        self._dtype: np.dtype[Any] | None = None
        self._shape = (0, 0)
        self._depth = 0
        self._hash = hashlib.sha256()
        self._sums: list[float] = []
        self._low, self._high = math.inf, -math.inf
        self._histogram: Histogram | None = None
        self._sample: _Sample | None = None
        self._strength: Histogram | None = None
        self._regions: Regions | None = None

    def add(self, slab: ArrayLike) -> None:
        """The next slices (n, Y, X). InputError for NaN, infinity and types that are not real numbers."""
        slab = np.asarray(slab)
        if slab.ndim != 3:
            raise ValueError(f"slab: must be a 3D array; got {slab.ndim} dimensions. Give (Z, Y, X).")
        if slab.dtype.kind not in "uif":
            raise InputError(f"volume: must hold grey values (integers or floats); got {slab.dtype}.")
        if self._histogram is None or self._sample is None or self._strength is None or self._regions is None:
            self._dtype, self._shape = slab.dtype, slab.shape[1:]
            self._histogram = Histogram(slab.dtype)
            self._sample = _Sample(slab.shape[1], slab.shape[2])
            self._strength = Histogram(np.dtype(np.float32), rows=2)
            self._regions = Regions(slab.dtype)
        if slab.shape[1:] != self._shape or slab.dtype != self._dtype:
            raise ValueError(
                f"slab: must be {self._dtype} of {self._shape} pixels as the first; got {slab.dtype} {slab.shape[1:]}."
            )
        for z, image in enumerate(slab, self._depth):
            if slab.dtype.kind == "f" and not np.isfinite(image).all():
                bad = tuple(int(i) for i in np.argwhere(~np.isfinite(image))[0])
                raise InputError(
                    f"volume: must hold finite grey values; got {image[bad]} at voxel ({z}, {bad[0]}, {bad[1]}). "
                    "Replace NaN and infinity, or crop them away (--crop)."
                )
            image = np.ascontiguousarray(image, image.dtype.newbyteorder("<"))
            self._hash.update(image.data)
            self._sums.append(float(image.sum(dtype=np.float64)))
            low, high = image.min(), image.max()
            self._low, self._high = min(self._low, float(low)), max(self._high, float(high))
            self._histogram.add(image, low, high)
            self._sample.add(z, image)
            self._regions.add(z, image, low, high)
            if z % EDGE_EVERY == 0 and min(self._shape) > 1 and low < high:
                add_strength(self._strength, image)
        self._depth += len(slab)

    def finish(self) -> Survey:
        """The survey. InputError for a volume without voxels or of one grey value."""
        histogram, sample, strength, regions = self._histogram, self._sample, self._strength, self._regions
        if histogram is None or sample is None or not self._depth or 0 in self._shape:
            raise InputError("volume: must hold voxels; got none.")
        if self._low == self._high:
            raise InputError(
                f"volume: must hold more than one grey value; every voxel is {self._low:g}. Is this the right dataset?"
            )
        shape = (self._depth, self._shape[0], self._shape[1])
        assert strength is not None
        assert regions is not None
        counts, edges = histogram.result()
        width, distance, profile, rays = measure_edge(sample.blocks(), _levels(counts, edges), self.voxel_size)
        mean = math.fsum(self._sums) / math.prod(shape)
        strength_grey, mean_slope = mean_strength(strength)
        region_slices, region_edges, region_counts = regions.result(self._depth, inner_range(counts, edges))
        return Survey(
            shape,
            str(self._dtype),
            counts,
            edges,
            self._low,
            self._high,
            mean,
            self._hash.hexdigest(),
            width,
            distance,
            profile,
            rays,
            strength_grey,
            mean_slope,
            region_slices,
            region_edges,
            region_counts,
        )


class _Sample:
    """Blocks spread evenly over a volume of unknown depth: every `stride`-th layer of BLOCK slices."""

    def __init__(self, height: int, width: int) -> None:
        self._tops = [(y, x) for y in _places(height) for x in _places(width)]
        self._stride = 1
        self._layers: dict[int, list[Array]] = {}

    def add(self, z: int, image: Array) -> None:
        layer = z // BLOCK
        if layer % self._stride:
            return
        self._layers.setdefault(layer, []).append(
            np.stack([image[y : y + BLOCK, x : x + BLOCK] for y, x in self._tops])
        )
        if len(self._layers) > LAYERS:
            self._stride *= 2
            self._layers = {n: slices for n, slices in self._layers.items() if n % self._stride == 0}

    def blocks(self) -> list[Array]:
        found = []
        for slices in self._layers.values():
            layer = np.stack(slices, axis=1)
            found += list(layer)
        return found


def _places(size: int) -> list[int]:
    """Starts of at most PER_LAYER blocks that do not overlap, spread evenly over an axis."""
    n = max(1, min(PER_LAYER, size // BLOCK))
    return [max(0, (2 * i + 1) * size // (2 * n) - BLOCK // 2) for i in range(n)]


def _levels(counts: Array, edges: Array) -> tuple[float, float]:
    """Grey of void and of active: the modes below and above the cut that maximises the variance between two classes."""
    from scipy.ndimage import gaussian_filter1d

    centres = (edges[:-1] + edges[1:]) / 2
    n = counts.astype(np.float64)
    below = np.cumsum(n)
    mass = np.cumsum(n * centres)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (mass / below - (mass[-1] - mass) / above) ** 2
    cut = int(np.nanargmax(between[:-1]))
    share = below / below[-1]
    inner = max(1, int(np.searchsorted(share, 0.999) - np.searchsorted(share, 0.001)))
    smooth = gaussian_filter1d(n, max(0.5, inner / 100))
    return float(centres[np.argmax(smooth[: cut + 1])]), float(centres[cut + 1 + np.argmax(smooth[cut + 1 :])])


def measure_edge(
    blocks: list[Array], levels: tuple[float, float], spacing: tuple[float, float, float]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64], int]:
    """Full width at half maximum of the blur, the mean edge profile (distance, grey 0..1), and its number of rays.

    blocks: grey blocks (z, y, x) of any size; levels: grey of void and active; spacing (dz, dy, dx) um.
    Where fewer than 30 rays cross from active to void, the width is one voxel and the profile empty.
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
    """Align the rays, keep clean steps from active to void, fit an error function to their mean."""
    for _ in range(3):
        chosen = _choose(distance, rays, sigma)
        if len(chosen) < 30:
            return 0.0, np.empty(0), 0
        profile = chosen.mean(0)
        sigma = _erf_width(distance, profile)
    return sigma * FWHM_PER_SIGMA, profile, len(chosen)


def _choose(distance: Array, rays: Array, sigma: float) -> Array:
    """The rays, shifted to their own half-way crossing, that are one clean step of the most frequent steepness."""
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
        return rays[:0]
    out, into = rays[:, outside], rays[:, inside]
    clean = (np.abs(out.mean(1)) < 0.12) & (np.abs(into.mean(1) - 1) < 0.12)
    rays, shift, stretch = rays[clean], shift[clean], stretch[clean]
    if not len(rays):
        return rays
    mode = _mode(stretch)
    steep = np.abs(stretch - mode) <= mode - np.quantile(stretch, 0.02)
    where = np.clip((distance[None, :] + shift[steep][:, None] - distance[0]) / step, 0, distance.size - 1)
    low = np.minimum(where.astype(np.intp), distance.size - 2)
    part = where - low
    chosen = rays[steep]
    rows = np.arange(len(chosen))[:, None]
    return np.asarray(chosen[rows, low] * (1 - part) + chosen[rows, low + 1] * part)


def _mode(values: Array) -> float:
    """The middle of the shortest interval that holds 40 percent of the values."""
    ordered = np.sort(values)
    half = max(1, int(0.4 * ordered.size))
    start = int(np.argmin(ordered[half:] - ordered[: ordered.size - half]))
    return float(ordered[start] + ordered[start + half]) / 2 if ordered.size > 1 else float(ordered[0])


def _erf_width(distance: Array, profile: Array) -> float:
    """Sigma of the error function that fits the profile from 8 to 92 percent: a line through its normal scores.

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
        return float(distance[1] - distance[0])
    slope = np.polyfit(distance[level], ndtri(profile[level]), 1)[0]
    return float(np.clip(-1 / min(slope, -1e-9), (distance[1] - distance[0]) / 2, distance[-1] / 2))
