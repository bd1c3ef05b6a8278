"""How exact registration and intervals are: pairs of images with a known transform and a known correlation.

    python -m benchmarks.accuracy_correlative [TRIALS]

Registration: a textured body of 90 pixels across beside a map of it, turned by any angle, scaled by 0.95 to 1.05 and
shifted by up to 6 pixels; white noise on both (SNR 3). The same for the largest particles of a synthetic electrode and
maps made of their projections, with white noise, and with texture to a correlation of 0.54. Intervals: two images of
Gaussian noise with known correlation, over a disc of 54 pixels across, smooth over several pixels; how many 95 %
intervals hold the truth, and how many would if pixels were independent.
"""

from __future__ import annotations

import sys

import numpy as np
from scipy.ndimage import gaussian_filter
from tests.cbdetach.test_correlative import pair, smooth_pair

import voxkernels as vk
from cbdetach import correlative
from cbdetach.phantom import Phantom, PhantomSettings

CASES: tuple[tuple[str, dict[str, float]], ...] = (
    ("lumpy", {}),
    ("round", {"lumps": 0.0}),
    ("nearly round, dark rim", {"lumps": 0.01, "rim": 3.0}),
    ("lumpy, correlation 0.54", {"rho": 0.54}),
)
"""Outlines and what is different from a pair of correlation 1."""


def say(text: str) -> None:
    """One line to the terminal."""
    sys.stdout.write(text + "\n")


Place = tuple[float, float, float, float]
"""Rotation, scale, shift down and right."""


def place(seed: int, reach: float) -> Place:
    """A random place, shifted by up to `reach` each way."""
    rng = np.random.default_rng([seed, 7])
    turn, size = rng.uniform(-180, 180), rng.uniform(0.95, 1.05)
    down, right = rng.uniform(-reach, reach, 2).tolist()
    return float(turn), float(size), down, right


def say_errors(name: str, pairs: list[tuple[correlative.Registration, Place]], pixel: float) -> None:
    """Median and worst error of registrations."""
    errors = []
    for found, (turn, size, down, right) in pairs:
        off = (found.rotation_deg - turn + 180) % 360 - 180
        shift = np.hypot(found.shift_um[0] - down, found.shift_um[1] - right) / pixel
        errors.append((abs(off), abs(found.scale - size), shift))
    worst, middle = np.max(errors, axis=0), np.median(errors, axis=0)
    say(
        f"{name}, {len(pairs)} pairs: median and worst {middle[0]:.2f} and {worst[0]:.2f} degrees, "
        f"scale {middle[1]:.4f} and {worst[1]:.4f}, shift {middle[2]:.2f} and {worst[2]:.2f} pixels"
    )


def phantom_pairs(particles: int) -> None:
    """The largest whole particles of a synthetic electrode, seen along z, beside maps made of their projections."""
    slab = Phantom(PhantomSettings(shape=(96, 128, 128), seed=0)).volume()
    spacing = PhantomSettings().voxel_size_um
    regions = vk.region_properties(slab.labels)
    whole = (regions.bbox[:, :3] > 0).all(axis=1) & (regions.bbox[:, 3:] < slab.labels.shape).all(axis=1)
    largest = np.argsort(-regions.count * whole)[:particles]
    pixel = min(spacing)
    pairs: dict[str, list[tuple[correlative.Registration, Place]]] = {"SNR 3": [], "correlation 0.54": []}
    for k, row in enumerate(largest):
        z, y, x = (slice(a - 1, b + 1) for a, b in zip(regions.bbox[row, :3], regions.bbox[row, 3:], strict=True))
        mine = slab.labels[z, y, x] == regions.labels[row]
        seen, thick = (
            correlative.project(
                mine, slab.grey[z, y, x], direction=np.array([1.0, 0, 0]), spacing=spacing, min_thickness_um=thinnest
            )
            for thinnest in (0.0, 2 * pixel)
        )
        side, where = int(1.6 * max(seen.density.shape)), place(k, 5 * pixel)
        shown = correlative.resample(seen.density, pixel, (side, side), pixel, where)
        known = np.isfinite(shown)
        rng = np.random.default_rng(k)
        white, smooth = rng.standard_normal((2, side, side))
        shown, smooth = ((v - v[known].mean()) / v[known].std() for v in (shown, gaussian_filter(smooth, 1.5)))
        for name, target in (
            ("SNR 3", shown + white / 3),
            ("correlation 0.54", 0.54 * shown + np.sqrt(1 - 0.54**2) * smooth),
        ):
            found = correlative.register(thick.density, pixel, target, pixel, outline=seen.outline)
            pairs[name].append((found, where))
    for name, found_pairs in pairs.items():
        say_errors(f"synthetic electrode, {name}", found_pairs, pixel)


def main(trials: int) -> None:
    """Print all tables."""
    for name, options in CASES:
        pairs = []
        for seed in range(trials):
            where = place(seed, 6.0)
            density, target = pair(seed, rotation=where[0], scale=where[1], shift=where[2:], **options)
            pairs.append((correlative.register(density, 1.0, target, 1.0), where))
        say_errors(name, pairs, 1.0)
    phantom_pairs(trials)
    for sigma, rho in ((1.0, 0.0), (2.5, 0.0), (2.5, 0.54), (4.0, 0.8)):
        hits, naive = 0, 0
        for seed in range(100 * trials):
            x, y = smooth_pair(np.random.default_rng([seed, 9]), 60, sigma, rho)
            one = correlative.correlate(x, y, resamples=300, seed=seed)
            hits += one.low <= rho <= one.high
            naive += abs(np.arctanh(one.r) - np.arctanh(rho)) < 1.96 / np.sqrt(one.pixels - 3)
        n = 100 * trials
        say(
            f"noise of sigma {sigma:g} pixels, r {rho:g}, {n} pairs: {hits / n:.3f} hold the truth, "
            f"as independent {naive / n:.3f}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
