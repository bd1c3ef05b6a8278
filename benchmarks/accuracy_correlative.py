"""How exact registration and intervals are: pairs of images with a known transform and a known correlation.

    python -m benchmarks.accuracy_correlative [TRIALS]

Registration: a textured body of 90 pixels across beside a map of it, turned by any angle, scaled by 0.95 to 1.05 and
shifted by up to 6 pixels; white noise on both (SNR 3). Intervals: two images of Gaussian noise with known correlation,
over a disc of 54 pixels across, smooth over several pixels; how many 95 % intervals hold the truth, and how many would
if pixels were independent.
"""

from __future__ import annotations

import sys

import numpy as np
from tests.cbdetach.test_correlative import pair, smooth_pair

from cbdetach import correlative


def say(text: str) -> None:
    """One line to the terminal."""
    sys.stdout.write(text + "\n")


def main(trials: int) -> None:
    """Print both tables."""
    for name, options in (("lumpy", {}), ("round", {"round_": True}), ("lumpy, correlation 0.6", {"rho": 0.6})):
        errors = []
        for seed in range(trials):
            rng = np.random.default_rng([seed, 7])
            turn, size, shift = rng.uniform(-180, 180), rng.uniform(0.95, 1.05), tuple(rng.uniform(-6, 6, 2).tolist())
            density, target = pair(seed, rotation=turn, scale=size, shift=shift, **options)
            found = correlative.register(density, 1.0, target, 1.0)
            off = (found.rotation_deg - turn + 180) % 360 - 180
            errors.append((abs(off), abs(found.scale - size), np.hypot(*(np.array(found.shift_um) - shift))))
        worst, middle = np.max(errors, axis=0), np.median(errors, axis=0)
        say(
            f"{name}, {trials} pairs: median and worst {middle[0]:.2f} and {worst[0]:.2f} degrees, "
            f"scale {middle[1]:.4f} and {worst[1]:.4f}, shift {middle[2]:.2f} and {worst[2]:.2f} pixels"
        )
    for sigma, rho in ((1.0, 0.0), (2.5, 0.0), (2.5, 0.54), (4.0, 0.8)):
        hits, naive = 0, 0
        for seed in range(20 * trials):
            x, y = smooth_pair(np.random.default_rng([seed, 9]), 60, sigma, rho)
            one = correlative.correlate(x, y, resamples=300, seed=seed)
            hits += one.low <= rho <= one.high
            naive += abs(np.arctanh(one.r) - np.arctanh(rho)) < 1.96 / np.sqrt(one.pixels - 3)
        n = 20 * trials
        say(
            f"noise of sigma {sigma:g} pixels, r {rho:g}, {n} pairs: {hits / n:.3f} hold the truth, "
            f"as independent {naive / n:.3f}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
