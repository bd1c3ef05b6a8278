"""The inputs that the benchmarks share: electrodes, noise, one label everywhere, and measured volumes.

`CBDETACH_BENCH_SIZE` sets the edge of the volumes in voxels for pytest; the default is a toy size that only shows that
a benchmark still runs and that its answer is right. Arrays are read-only.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

SIZE = int(os.environ.get("CBDETACH_BENCH_SIZE", "40"))
PERIOD = 64

Array = npt.NDArray[Any]
Labels = npt.NDArray[np.int32]


class Electrode(NamedTuple):
    """Particles and what lies between them, all (Z, Y, X).

    labels : int32, 0 outside, particles from 1, filled.
    solid  : bool, the particles without their cracks.
    phases : uint8, 0 void, 1 carbon/binder, 2 active.
    """

    labels: Labels
    solid: npt.NDArray[np.bool_]
    phases: npt.NDArray[np.uint8]


def frozen(*arrays: Array) -> tuple[Array, ...]:
    for array in arrays:
        array.flags.writeable = False
    return arrays


@lru_cache(maxsize=2)
def electrode(size: int, percent: int = 28, seed: int = 0) -> Electrode:
    """Balls that do not touch, with partial planar cracks, and carbon/binder in 45 % of the space between.

    Radii are 10 to 28 voxels (less below an edge of 160, so that toys hold several), `percent` of the volume is balls.
    """
    rng = np.random.default_rng(seed)
    labels, solid = np.zeros((size,) * 3, np.int32), np.zeros((size,) * 3, bool)
    centres, radii = np.empty((0, 3)), np.empty(0)
    scale = min(1.0, size / 160)
    filled = 0
    for _ in range(100_000):
        if filled >= percent / 100 * labels.size:
            break
        r, c = max(2.0, scale * rng.uniform(10, 28)), rng.uniform(0, size, 3)
        if np.any(np.linalg.norm(centres - c, axis=1) < radii + r + 1):
            continue
        centres, radii = np.vstack([centres, c]), np.append(radii, r)
        low, high = np.maximum((c - r).astype(int), 0), np.minimum((c + r).astype(int) + 2, size)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        x = np.stack(np.mgrid[box], axis=-1) - c
        ball = (x**2).sum(axis=-1) <= r * r
        labels[box][ball] = len(radii)
        filled += int(ball.sum())
        for _ in range(rng.integers(1, 4)):
            across, along = rng.normal(size=(2, 3))
            across /= np.linalg.norm(across)
            along -= along @ across * across
            ball &= (np.abs(x @ across) > 1) | (x @ along < 0)
        solid[box] |= ball
    noise = ndimage.gaussian_filter(rng.standard_normal(labels.shape, np.float32), 3)
    outside = labels == 0
    phases = (
        outside & (noise > np.quantile(noise[:: max(1, size // 128)][outside[:: max(1, size // 128)]], 0.55))
    ).astype(np.uint8)
    phases[solid] = 2
    return Electrode(*frozen(labels, solid, phases))


@lru_cache(maxsize=1)
def lattice(size: int) -> Electrode:
    """One block of 64^3 again and again: every voxel of a large electrode has as much to do as one of a small one.

    Each block is mirrored along axes drawn at random. In an exact repetition a processor foresees every branch, which
    no large electrode lets it do.
    """
    rng = np.random.default_rng(0)
    z, y, x = np.indices((PERIOD,) * 3)
    block = np.zeros((PERIOD,) * 3, np.int32)
    for n, (a, b, c) in enumerate(np.ndindex(2, 2, 2), 1):
        radius = rng.uniform(11, 15.5)
        block[(z - 32 * a - 16) ** 2 + (y - 32 * b - 16) ** 2 + (x - 32 * c - 16) ** 2 < radius**2] = n
    noise = ndimage.gaussian_filter(rng.standard_normal(block.shape, np.float32), 3, mode="wrap")
    outside = block == 0
    phases = (outside & (noise > np.quantile(noise[outside], 0.55))).astype(np.uint8)
    solid = (block > 0) & ((z % 32 != 16) | (y % 32 < 16))
    phases[solid] = 2
    parts = (block, solid, phases)
    labels, solids, classes = whole = tuple(np.empty((size // PERIOD * PERIOD,) * 3, part.dtype) for part in parts)
    for tile, corner in enumerate(np.ndindex((size // PERIOD,) * 3)):
        place = tuple(slice(PERIOD * k, PERIOD * (k + 1)) for k in corner)
        axes = tuple(np.flatnonzero(rng.integers(0, 2, 3))) if tile else ()
        for filled, part in zip(whole, parts, strict=True):
            filled[place] = np.flip(part, axes)
        np.add(labels[place], 8 * tile, out=labels[place], where=labels[place] > 0)
    return Electrode(*frozen(labels, solids, classes))


@lru_cache(maxsize=1)
def noise(size: int) -> Labels:
    """Every voxel one of 300 labels or background, at random: no runs, nothing to skip."""
    (labels,) = frozen(np.random.default_rng(0).integers(0, 301, (size, size, size), np.int32))
    return labels


@lru_cache(maxsize=1)
def constant(size: int) -> Labels:
    """One label everywhere."""
    (labels,) = frozen(np.ones((size, size, size), np.int32))
    return labels


def network(size: int) -> npt.NDArray[np.bool_]:
    """Smoothed noise above its mean: a percolating network with many short runs."""
    rng = np.random.default_rng(0)
    return np.asarray(ndimage.gaussian_filter(rng.standard_normal((size,) * 3, np.float32), 3) > 0)


def grey(shape: tuple[int, ...]) -> npt.NDArray[np.uint16]:
    """Noise of uint16 grey values about 30000."""
    values = np.random.default_rng(1).standard_normal(shape, np.float32)
    return (30000 + 500 * values).astype(np.uint16)


def slice_pair(labels: Labels) -> tuple[Labels, Labels]:
    """Two large label slices of one object each a little moved, tiled from a volume's middle slices."""
    middle = len(labels) // 2
    tiles = (max(1, 2048 // labels.shape[1]),) * 2 if labels.shape[1] >= 128 else (2, 2)
    step = int(labels.max())
    pair = []
    for z in (middle, middle + 1):
        tiled = np.tile(labels[z], tiles)
        rows = np.arange(tiled.shape[0]) // labels.shape[1]
        columns = np.arange(tiled.shape[1]) // labels.shape[2]
        tile = rows[:, None] * tiles[1] + columns
        pair.append(np.where(tiled > 0, tiled + step * tile, 0).astype(np.int32))
    return pair[0], pair[1]


def noise_pair(size: int) -> tuple[Labels, Labels]:
    """Two slices as large as those of `slice_pair`, every pixel one of 300 labels or background, at random."""
    edge = 2048 if size >= 128 else 2 * size
    a, b = np.random.default_rng(0).integers(0, 301, (2, edge, edge), np.int32)
    return a, b


def real_folder() -> Path | None:
    """The folder of measured volumes: variable CBDETACH_REAL_DATA, else ../shared/data beside the project."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CBDETACH_REAL_DATA", beside))
    return folder if (folder / "nmc_cathode_3phase.tif").exists() else None


def measured(name: str) -> Array:
    """A measured volume, as its file has it."""
    import tifffile

    folder = real_folder()
    if folder is None:
        raise FileNotFoundError("the measured volumes are not here; set CBDETACH_REAL_DATA to their folder")
    return np.asarray(tifffile.imread(folder / name))


@lru_cache(maxsize=2)
def measured_electrode(name: str) -> Electrode:
    """A measured volume cut into particles: what lies deeper than 5 voxels, grown back to the nearest.

    The carbon/binder of `grains_binary.tif`, which has none, is smoothed noise as in the synthetic electrode.
    """
    volume = measured(name)
    active = volume == 1 if name.startswith("nmc") else volume > 0
    depth = ndimage.distance_transform_edt(active)
    cores, _ = ndimage.label(depth > 5)
    nearest = ndimage.distance_transform_edt(cores == 0, return_distances=False, return_indices=True)
    labels = np.where(active, cores[tuple(nearest)], 0).astype(np.int32)
    if name.startswith("nmc"):
        phases = np.choose(np.minimum(volume, 2), np.array([0, 2, 1], np.uint8))
    else:
        noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(volume.shape, np.float32), 3)
        phases = np.where(active, 2, noise > 0).astype(np.uint8)
    return Electrode(*frozen(labels, np.ascontiguousarray(active), phases))
