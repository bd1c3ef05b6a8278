"""Accuracy of detachment by connected carbon/binder, and what bridging gaping cracks does to it.

    python -m benchmarks.accuracy_connected [SIZE [SEED ...]] [--width W] [--bridge-um B ...]   (128, seed 0, 3 widths)

The electrodes are those of `accuracy_columns`, with carbon/binder `--width` widths of the blur thick. A run on the grey
values finds particles and phases; each `--bridge-um` (`[segment] bridge_um`) bridges what it found. The truth is the
same measurement on true labels and phases in the same voxels, the side `z0` the anchor. Whole particles that are found
one to one count. Printed: mean error (found - true) and mean absolute error of `detachment_fraction`, and of
`detachment_fraction_connected` with 6- and 26-connected voxels.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.accuracy_columns import run_on_grey, settings
from cbdetach import Run, connected, detachment, segment
from cbdetach.codes import VOID
from cbdetach.demo import match
from cbdetach.phantom import Phantom

Array = npt.NDArray[Any]

BRIDGES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
"""Values of `bridge_um` that are compared, um."""


def fractions(labels: Array, phases: Array, ids: Array, spacing: tuple[float, float, float]) -> Array:
    """(3, N): detachment, and detachment by connected carbon/binder (6, 26) of particles of a whole volume."""
    cbd = connected.free_cbd(labels, phases)
    anchor = connected.on_side(cbd, "z0", first=True, last=True)
    classes = [next(connected.classify([cbd], [anchor], connectivity=n)) for n in connected.CONNECTIVITIES]
    kinds = connected.surface_kinds(phases, *classes)
    plain, by_class = (detachment.surface_classes(labels, codes, spacing=spacing) for codes in (phases, kinds))
    areas = [connected.areas_by_class(by_class, ids, n) for n in connected.CONNECTIVITIES]
    known = detachment.detachment_columns(plain, ids)["detachment_fraction"]
    return np.stack([known, *(connected.connected_fraction(area) for area in areas)])


def whole_pairs(grey: Run, labels: Array, phantom: Phantom) -> tuple[Array, Array]:
    """Labels of a run and true ones of the particles that are found one to one and that no border cuts."""
    ids, own = match(grey.volumes["particles"], labels)
    cut = grey.table.set_index("label")["touches_border"].reindex(ids)
    border = phantom.truth.set_index("label")["touches_border"].reindex(own, fill_value=True)
    whole = ~cut.to_numpy(bool) & ~border.to_numpy(bool)
    return ids[whole], own[whole]


def measure(size: int, seed: int, width: float, bridges: Sequence[float], folder: Path) -> Array:
    """(len(bridges), 3, N) errors on one electrode."""
    wanted = settings(size, seed)
    phantom = Phantom(replace(wanted, coating_thickness_um=width * wanted.blur_fwhm_um))
    with run_on_grey(phantom, folder) as (grey, labels, phases, _):
        found, read, spacing = grey.volumes["particles"][:], grey.volumes["phases"][:], grey.voxel_size
        ids, own = whole_pairs(grey, labels, phantom)
    true = fractions(labels, phases, own, spacing)
    errors = []
    for width_um in bridges:
        particles = found.copy()
        segment.bridge_cracks(particles, read == VOID, spacing=spacing, width_um=width_um)
        errors.append(fractions(particles, read, ids, spacing) - true)
    return np.array(errors)


def main() -> None:
    """Print the table; arguments as above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", type=int, nargs="?", default=128)
    parser.add_argument("seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--width", type=float, default=3.0)
    parser.add_argument("--bridge-um", type=float, nargs="+", default=BRIDGES)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        cases = [measure(wanted.size, seed, wanted.width, wanted.bridge_um, Path(name)) for seed in wanted.seeds or [0]]
    errors = np.concatenate(cases, axis=2)
    sys.stdout.write(
        f"{errors.shape[2]} particles\n\n| `bridge_um` | all carbon/binder | connected, 6 | 26 |\n|---|---|---|---|\n"
    )
    for width_um, rows in zip(wanted.bridge_um, errors, strict=True):
        cells = [f"{np.nanmean(row):+.4f}, {np.nanmean(np.abs(row)):.4f}" for row in rows]
        sys.stdout.write(f"| {width_um:g} | {' | '.join(cells)} |\n")


if __name__ == "__main__":
    main()
