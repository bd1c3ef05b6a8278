"""One pass over the grey volume, slab by slab: histogram, grey scale, hash, and the width of its edges (the blur).

The histogram is exact for integers of up to 16 bits. Other types use bins of width 2^k on multiples of 2^k, where k is
the smallest that spans the range met so far with 65,536 bins: merging neighbours when the range grows gives the very
counts that the final bins would have given. Hash and mean go slice by slice. So nothing depends on how the volume is
cut into slabs.

Edge width: the pass keeps a bounded sample of blocks (48 voxels a side, at most 9 of a layer and 8 layers, spread
evenly), on which `edge_width.measure_edge` looks across surfaces.

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

from cbdetach.edge_width import measure_edge
from cbdetach.errors import InputError
from cbdetach.histograms import Histogram, Regions, add_strength, inner_range, mean_strength

Array = NDArray[Any]

BLOCK = 48
PER_LAYER = 3  # blocks along y and along x
LAYERS = 8
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
                    f"volume: must hold finite grey values; got {image[bad]} at voxel (z, y, x) = "
                    f"({z}, {bad[0]}, {bad[1]}). "
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
