"""How exact diffusion lengths, contact ratios and sweeps are: digitised balls beside closed forms.

    python -m benchmarks.accuracy_diffusion [RADIUS ...]

In a ball every way to a cap of contact is straight: to the surface below it, or to the cap's rim. So the mean length
over the voxels has a closed form for any cap, and a sweep that takes contact from one side is a row of such caps.
"""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt

from cbdetach import sweep
from cbdetach.codes import ACTIVE, CBD, VOID
from cbdetach.diffusion import diffusion_lengths

Array = npt.NDArray[np.float64]
UNIT = (1.0, 1.0, 1.0)
KNOWN = {1: 3.36, 10: 1.47, 100: 1.08}
"""`contact_ratio` of a ball with a tenth of its surface covered, in so many equal caps (DEFINITIONS)."""


def ball(radius: float, margin: int = 5) -> tuple[Array, Array]:
    """Distance of every voxel from the centre, and its direction (3, Z, Y, X)."""
    half = int(np.ceil(radius)) + margin
    offset = np.indices((2 * half + 1,) * 3) - float(half)
    r = np.sqrt((offset**2).sum(axis=0))
    return r, offset / np.maximum(r, 1e-9)


def contact_ratio(radius: float, n: int, covered: float) -> float:
    """Of a ball with `n` equal caps, evenly spread, over a share of its surface."""
    r, direction = ball(radius)
    k = np.arange(n) + 0.5
    polar, turn = np.arccos(1 - 2 * k / n), np.pi * (1 + np.sqrt(5)) * k
    centres = np.stack([np.cos(polar), np.sin(polar) * np.sin(turn), np.sin(polar) * np.cos(turn)], axis=1)
    if n == 1:
        centres = np.array([[1, 2, 3]]) / np.sqrt(14)
    height = np.max([np.tensordot(c, direction, axes=1) for c in centres], axis=0)
    labels = (r <= radius).astype(np.int32)
    coat = (r <= radius + 3) & (height >= 1 - 2 * covered / n)
    phases = np.where(labels > 0, ACTIVE, np.where(coat, CBD, VOID)).astype(np.uint8)
    ids = np.array([1])
    return float(diffusion_lengths(labels, phases, ids, ids, spacing=UNIT).columns["contact_ratio"][0])


def cap_length(radius: float, covered: float) -> float:
    """Mean way to a cap around +z, closed form at the voxel centres."""
    r, direction = ball(radius)
    inside = r <= radius
    r, z = r[inside], (r * direction[0])[inside]
    rim = np.arccos(1 - 2 * covered)
    to_rim = np.hypot(np.sqrt(np.maximum(r**2 - z**2, 0)) - radius * np.sin(rim), z - radius * np.cos(rim))
    return float(np.where(z >= r * np.cos(rim), radius - r, to_rim).mean())


def say(text: str) -> None:
    """One line to the terminal."""
    sys.stdout.write(text + "\n")


def main(radii: list[float]) -> None:
    """Print both tables."""
    for radius in radii:
        for n, known in KNOWN.items():
            found = contact_ratio(radius, n, 0.10)
            say(
                f"radius {radius:g}, 0.10 covered in {n:>3}: {found:.3f}, closed form {known}, {found / known - 1:+.1%}"
            )
        mine = ball(radius)[0] <= radius
        one = sweep.detachment_sweep(mine, mine, order="side", spacing=UNIT, steps=20)
        exact = np.array([cap_length(radius, 1 - d) for d in one.detachment[:-1]])
        error = one.mean_um[:-1] / exact - 1
        say(
            f"radius {radius:g}, sweep from one side: error {error.mean():+.2%} in the mean, "
            f"{np.abs(error).max():.2%} at most"
        )


if __name__ == "__main__":
    main([float(a) for a in sys.argv[1:]] or [14.0, 20.0])
