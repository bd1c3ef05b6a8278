"""Histograms that grow with what they meet, slice by slice: of the volume, of its regions, and of the gradient by grey.

The bins are exact for integers of up to 16 bits. For other types they have a width of 2^k and lie on multiples of 2^k,
where k is the smallest that spans the range met so far with 65,536 bins: merging neighbours when the range grows gives
the very counts that the final bins would have given.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BINS = 65536
EDGE_SIGMA = 1.5  # pixels, of the derivative of a Gaussian
EDGE_BINS = 256
REGION_BINS = 128
REGION_SLICES = 16  # of the layers of regional histograms, doubled while there are more than
REGION_LAYERS = 8


class Histogram:
    """Counts in bins of width 2^k that start at multiples of 2^k; with two rows, also the sums of a weight."""

    def __init__(self, dtype: np.dtype[Any], rows: int = 1) -> None:
        self._exact = dtype.kind in "ui" and dtype.itemsize <= 2
        self._k: int | None = 0 if self._exact else None
        self._first = int(np.iinfo(dtype).min) if self._exact else 0
        self._counts = np.zeros((rows, BINS), np.int64 if rows == 1 else np.float64)
        self._integer = dtype.kind in "ui"

    def add(self, image: Array, low: Any, high: Any, weight: Array | None = None) -> None:
        if not self._exact:
            self._widen(float(low), float(high))
        assert self._k is not None
        if self._exact:
            index = image.astype(np.int64) - self._first
        else:
            index = np.floor(np.ldexp(image.astype(np.float64), -self._k)).astype(np.int64) - self._first
        self._counts[0] += np.bincount(index.ravel(), minlength=BINS)
        if weight is not None:
            self._counts[1] += np.bincount(index.ravel(), weights=weight.ravel(), minlength=BINS)

    def _widen(self, low: float, high: float) -> None:
        """The smallest bins that hold everything so far; the counts move into them."""
        occupied = np.flatnonzero(self._counts[0])
        k = self._k
        if k is None:
            k = 0 if self._integer else math.frexp(max(high - low, abs(high), abs(low), 1e-300))[1] - 40
        first = math.floor(math.ldexp(low, -k))
        last = math.floor(math.ldexp(high, -k))
        if occupied.size and self._k is not None:
            first = min(first, self._first + int(occupied[0]))
            last = max(last, self._first + int(occupied[-1]))
        up = 0
        while (last >> up) - (first >> up) >= BINS:
            up += 1
        start = first >> up
        moved = np.zeros_like(self._counts)
        for to, row in zip(moved, self._counts, strict=True):
            np.add.at(to, ((occupied + self._first) >> up) - start, row[occupied])
        self._k, self._first, self._counts = k + up, start, moved

    def result(self) -> tuple[Array, NDArray[np.float64]]:
        """Counts of the occupied range, and the limits of its bins. Bins of integers are centred on them."""
        rows, edges = self.rows()
        return rows[0], edges

    def rows(self) -> tuple[Array, NDArray[np.float64]]:
        """Every row of the occupied range, and the limits of its bins."""
        if self._k is None:
            return self._counts[:, :0], np.zeros(1)
        occupied = np.flatnonzero(self._counts[0])
        a, b = int(occupied[0]), int(occupied[-1]) + 1
        edges = np.ldexp(np.arange(a, b + 1, dtype=np.float64) + self._first, self._k)
        return self._counts[:, a:b].copy(), edges - 0.5 if self._integer else edges

    def merge(self, other: Histogram) -> None:
        """Add another's counts; both must be of one type."""
        rows, edges = other.rows()
        shift = 0.5 if self._integer else 0.0
        first, last = edges[0] + shift, edges[-1] + shift
        assert other._k is not None
        if not self._exact:
            self._widen(first, float(np.nextafter(last, -np.inf)))
        assert self._k is not None
        at = np.floor(np.ldexp(edges[:-1] + shift, -self._k)).astype(np.int64) - self._first
        np.add.at(self._counts[0], at, rows[0])


def add_strength(histogram: Histogram, image: Array) -> None:
    """The gradient of one slice, added to the sums of its smoothed grey values."""
    from scipy.ndimage import gaussian_filter

    grey = image.astype(np.float32)
    smooth = gaussian_filter(grey, EDGE_SIGMA, mode="nearest")
    slope = np.hypot(*(gaussian_filter(grey, EDGE_SIGMA, order=o, mode="nearest") for o in ((1, 0), (0, 1))))
    histogram.add(smooth, smooth.min(), smooth.max(), slope)


def mean_strength(histogram: Histogram) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Grey values and the mean gradient there, in EDGE_BINS classes, smoothed over a few."""
    from scipy.ndimage import gaussian_filter1d

    rows, edges = histogram.rows()
    if rows.shape[1] < 2:
        return np.empty(0), np.empty(0)
    limits = np.linspace(edges[0], edges[-1], EDGE_BINS + 1)
    at = np.clip(np.searchsorted(limits, (edges[:-1] + edges[1:]) / 2, side="right") - 1, 0, EDGE_BINS - 1)
    number, total = (gaussian_filter1d(np.bincount(at, row, EDGE_BINS), 4.0, mode="constant") for row in rows)
    strength = np.divide(total, number, out=np.zeros(EDGE_BINS), where=number > 1e-5 * number.sum())
    return (limits[:-1] + limits[1:]) / 2, strength


def inner_range(counts: Array, edges: Array) -> tuple[float, float]:
    """The grey values between which all but 1e-4 of the voxels at each end lie."""
    share = np.cumsum(counts) / counts.sum()
    low, high = np.searchsorted(share, 1e-4), np.searchsorted(share, 1 - 1e-4)
    return float(edges[low]), float(edges[high + 1])


class Regions:
    """Histograms of the plane's quarters in layers; where there are too many layers, each two become one."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._thickness = REGION_SLICES
        self._layers: list[list[Histogram]] = []

    def add(self, z: int, image: Array, low: Any, high: Any) -> None:
        while z // self._thickness >= REGION_LAYERS:
            for layer in range(0, len(self._layers) - 1, 2):
                for one, two in zip(self._layers[layer], self._layers[layer + 1], strict=True):
                    one.merge(two)
            self._layers = self._layers[::2]
            self._thickness *= 2
        while z // self._thickness >= len(self._layers):
            self._layers.append([Histogram(self._dtype) for _ in range(4)])
        y, x = (n // 2 for n in image.shape)
        quarters = (image[:y, :x], image[:y, x:], image[y:, :x], image[y:, x:])
        for histogram, part in zip(self._layers[-1], quarters, strict=True):
            if part.size:
                histogram.add(part, part.min(), part.max())

    def result(
        self, depth: int, limits: tuple[float, float]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
        """First and last slice of each layer, limits of the bins, counts (layers, 4, bins)."""
        edges = np.linspace(*limits, REGION_BINS + 1)
        counts = np.zeros((len(self._layers), 4, REGION_BINS), np.int64)
        for layer, histograms in zip(counts, self._layers, strict=True):
            for row, histogram in zip(layer, histograms, strict=True):
                rows, own = histogram.rows()
                at = np.searchsorted(edges, (own[:-1] + own[1:]) / 2, side="right") - 1
                np.add.at(row, np.clip(at, 0, REGION_BINS - 1), rows[0])
        first = np.arange(len(self._layers)) * self._thickness
        return np.stack([first, np.minimum(first + self._thickness, depth)], axis=1), edges, counts
