"""How exact diffusion lengths, contact ratios and sweeps are: digitised balls beside closed forms, and whole runs.

    python -m benchmarks.accuracy_diffusion [RADIUS ...]
    python -m benchmarks.accuracy_diffusion --seeds SEED ... [--size 128] [--width 3]   (40 s for a seed on one core)

In a ball every way to a cap of contact is straight: to the surface below it, or to the cap's rim. So the mean length
over the voxels has a closed form for any cap, and a sweep that takes contact from one side is a row of such caps.

With `--seeds`, whole runs on grey values, carbon/binder `--width` widths of the blur thick, as in `accuracy_columns`:
what the rules do that tell contact from specks. Truth: the same measurement on true labels and phases in the same
voxels, all contacts from one squared blur width on. Whole particles that are found one to one count.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.accuracy_columns import run_on_grey, settings
from benchmarks.accuracy_connected import whole_pairs
from cbdetach import sweep
from cbdetach.codes import ACTIVE, CBD, VOID
from cbdetach.diffusion import LEAST_PIECE, diffusion_lengths
from cbdetach.phantom import Phantom

Array = npt.NDArray[np.float64]
UNIT = (1.0, 1.0, 1.0)
KNOWN = {1: 3.36, 10: 1.47, 100: 1.08}
"""`contact_ratio` of a ball with a tenth of its surface covered, in so many equal caps (DEFINITIONS)."""


RULES = {
    "all from one squared width": (1, 0),
    "from four squared widths": (4, 0),
    "from one, and pieces from four cubed": (1, LEAST_PIECE),
}
"""Least patch in squared widths of the blur, and least piece of carbon/binder in cubed ones."""


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


def by_rule(size: int, seed: int, width: float, folder: Path) -> Array:
    """(1 + rules, 2, N): mean length (um) and `crack_ratio` of the particles of one electrode, the truth first."""
    wanted = settings(size, seed)
    phantom = Phantom(replace(wanted, coating_thickness_um=width * wanted.blur_fwhm_um))
    with run_on_grey(phantom, folder) as (grey, labels, phases, _):
        found, read, edge = grey.volumes["particles"][:], grey.volumes["phases"][:], grey.record["edge_width_um"]
        ids, own = whole_pairs(grey, labels, phantom)
        spacing = grey.voxel_size
    true = lengths(labels, phases, own, RULES["all from one squared width"], edge, spacing)
    return np.array([true, *(lengths(found, read, ids, rule, edge, spacing) for rule in RULES.values())])


def lengths(
    labels: Array,
    phases: Array,
    ids: Array,
    rule: tuple[float, float],
    edge: float,
    spacing: tuple[float, float, float],
) -> Array:
    """(2, N): mean length and `crack_ratio` of particles, by one of the `RULES` for a blur of `edge` um."""
    order = np.sort(ids)
    least: dict[str, Any] = {"min_contact_um2": rule[0] * edge**2, "min_piece_um3": rule[1] * edge**3}
    columns = diffusion_lengths(labels, phases, order, order, spacing=spacing, **least).columns
    at = np.searchsorted(order, ids)
    return np.stack([columns["diffusion_length_mean_um"][at], columns["crack_ratio"][at]])


def say_rules(size: int, seeds: list[int], width: float) -> None:
    """Print errors by rule."""
    with tempfile.TemporaryDirectory() as name:
        found = np.concatenate([by_rule(size, seed, width, Path(name)) for seed in seeds], axis=2)
    found = found[:, :, np.isfinite(found).all(axis=(0, 1))]
    true, *others = found
    say(f"{found.shape[2]} particles: error, absolute error, r\n")
    say("| contact | mean length | `crack_ratio` |\n|---|---|---|")
    for name, (length, crack) in zip(RULES, others, strict=True):
        r = [float(np.corrcoef(a, b)[0, 1]) for a, b in zip(true, (length, crack), strict=True)]
        relative, error = length / true[0] - 1, crack - true[1]
        say(
            f"| {name} | {relative.mean():+.1%}, {np.abs(relative).mean():.1%}, {r[0]:.3f} "
            f"| {error.mean():+.4f}, {np.abs(error).mean():.4f}, {r[1]:.3f} |"
        )


def main() -> None:
    """Print the tables; arguments as above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("radii", type=float, nargs="*", metavar="RADIUS")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--width", type=float, default=3.0)
    wanted = parser.parse_args()
    if wanted.seeds:
        say_rules(wanted.size, wanted.seeds, wanted.width)
        return
    for radius in wanted.radii or [14.0, 20.0]:
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
    main()
