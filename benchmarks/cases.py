"""The inputs that the benchmarks share: three regimes of one label volume, and what goes with it.

`CBDETACH_BENCH_SIZE` sets the edge of the volumes in voxels; the default is a toy size that only shows that a benchmark
still runs and that its answer is right.
"""

from __future__ import annotations

import os
from functools import cache

import numpy as np
import numpy.typing as npt

SIZE = int(os.environ.get("CBDETACH_BENCH_SIZE", "40"))

Labels = npt.NDArray[np.int32]


@cache
def electrode(size: int = SIZE) -> Labels:
    """Balls packed at random without overlap, radius 3 to 8 % of the edge or at least 2 voxels, labelled from 1."""
    generator = np.random.default_rng(0)
    labels = np.zeros((size, size, size), np.int32)
    n = 0
    for _ in range(1200):
        radius = max(2.0, size * generator.uniform(0.03, 0.08))
        centre = generator.uniform(0, size, 3)
        low = np.maximum(np.floor(centre - radius), 0).astype(int)
        high = np.minimum(np.ceil(centre + radius) + 1, size).astype(int)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        z, y, x = np.ogrid[box]
        ball = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= radius**2
        if ball.any() and not labels[box][ball].any():
            n += 1
            labels[box][ball] = n
    labels.flags.writeable = False
    return labels


@cache
def noise(size: int = SIZE) -> Labels:
    """Every voxel one of 300 labels or background, at random: no runs, nothing to skip."""
    labels = np.random.default_rng(0).integers(0, 301, (size, size, size)).astype(np.int32)
    labels.flags.writeable = False
    return labels


@cache
def constant(size: int = SIZE) -> Labels:
    """One label everywhere."""
    labels = np.ones((size, size, size), np.int32)
    labels.flags.writeable = False
    return labels


VOLUMES = {"electrode": electrode, "noise": noise, "constant": constant}


@cache
def grey(size: int = SIZE) -> npt.NDArray[np.uint16]:
    """Noise of uint16 grey values about 30000."""
    image = np.random.default_rng(1).normal(30000, 500, (size, size, size)).astype(np.uint16)
    image.flags.writeable = False
    return image


def slice_pair(labels: Labels) -> tuple[Labels, Labels]:
    """Two large label slices of one object each a little moved, tiled from a volume's middle slices."""
    middle = len(labels) // 2
    tiles = (max(1, 2048 // labels.shape[1]),) * 2 if labels.shape[1] >= 256 else (2, 2)
    step = int(labels.max())
    pair = []
    for z in (middle, middle + 1):
        tiled = np.tile(labels[z], tiles)
        rows = np.arange(tiled.shape[0]) // labels.shape[1]
        columns = np.arange(tiled.shape[1]) // labels.shape[2]
        tile = rows[:, None] * tiles[1] + columns
        pair.append(np.where(tiled > 0, tiled + step * tile, 0).astype(np.int32))
    return pair[0], pair[1]
