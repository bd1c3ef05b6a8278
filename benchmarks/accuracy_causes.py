"""Where errors of whole runs come from: what is found, and what is true, put together.

    python -m benchmarks.accuracy_causes [SIZE [SEED ...]] [--width 3]   (128, seeds 0 1 2: ten minutes on two cores)

The electrodes, their truth and the particles that count are those of `accuracy_columns`; `--width` is the thickness of
the carbon/binder in widths of the blur. Each row is a run on labels and phases that are given: particles found or true
(with what is inside them), and what lies around them found or true. A voxel that is a particle in one and not in the
other takes the phase of the nearest voxel that lies outside particles in both. Columns: mean error (found - true) and
mean absolute error.

The second table: surface of a particle (um^2, faces by the class that the run or the truth gives to the voxel outside)
that is void and reads as carbon/binder, and the other way round, within 1 um of another particle and further out.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import distance_transform_edt

from benchmarks import accuracy_columns
from benchmarks.accuracy_columns import fine_truth, joined, run_on_given, run_on_grey
from cbdetach.arrays import along
from cbdetach.codes import ACTIVE, CBD, VOID
from cbdetach.demo import match
from cbdetach.phantom import Phantom

Array = npt.NDArray[Any]

COLUMNS = ("detachment_fraction", "detachment_fraction_connected", "diffusion_length_mean_um", "contact_ratio",
           "crack_ratio", "surface_area_um2")  # fmt: skip
NEAR_UM = 1.0


def mixed(labels: Array, inside: Array, others: Array, around: Array) -> Array:
    """Phases: those of `inside` where `labels` are particles, those of `around` where neither has any, nearest ones
    where only `others` has one."""
    known = (labels == 0) & (others == 0)
    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    return np.where(labels > 0, inside, around[tuple(nearest)]).astype(np.uint8)


def confused(labels: Array, found: Array, true: Array, others: Array, size: float) -> Array:
    """Area per class: (near, far) x (void that reads as carbon/binder, carbon/binder that reads as void).

    labels : particles of a run, 0 where none of them is to count; found, true : phases of the run and of the truth
    around them; others : true particles; size : edge of a voxel.
    """
    total = np.zeros((2, 2))
    near = second_nearest(others, NEAR_UM / size)
    for axis in range(3):
        lower, upper = along(axis, None, -1), along(axis, 1, None)
        for own, outside in ((lower, upper), (upper, lower)):
            faces = (labels[own] > 0) & (labels[outside] == 0)
            a, b, close = found[outside][faces], true[outside][faces], near[outside][faces]
            for place, here in enumerate((close, ~close)):
                total[place] += (here & (b == VOID) & (a == CBD)).sum(), (here & (b == CBD) & (a == VOID)).sum()
    return total * size**2 / 1.5  # of a smooth surface


def second_nearest(labels: Array, reach: float) -> npt.NDArray[np.bool_]:
    """Voxels that have a second particle within `reach` voxels."""
    from scipy.ndimage import find_objects

    count = np.zeros(labels.shape, np.uint8)
    margin = int(np.ceil(reach)) + 1
    for label, part in enumerate(find_objects(labels), 1):
        if part is not None:
            box = tuple(slice(max(0, s.start - margin), s.stop + margin) for s in part)
            count[box] += distance_transform_edt(labels[box] != label) <= reach
    return count > 1


def measure(size: int, seed: int, width: float, folder: Path) -> tuple[dict[str, pd.DataFrame], Array, int]:
    """Errors by what was put together, area that was confused, and the number of particles that count."""
    wanted = accuracy_columns.settings(size, seed)
    phantom = Phantom(replace(wanted, coating_thickness_um=width * wanted.blur_fwhm_um))
    with run_on_grey(phantom, folder) as (grey, labels, phases, config):
        truth = fine_truth(phantom, 2, folder / f"fine_{seed}", config).table
        found, read = grey.volumes["particles"][:], grey.volumes["phases"][:]
        ids, own = match(found, labels)
        table = joined(grey)
        whole = ~table.loc[ids, "touches_border"].to_numpy(bool) & ~truth.loc[own, "touches_border"].to_numpy(bool)
        ids, own = ids[whole], own[whole]
        cases = {"the run": table.loc[ids]}
        for name, particles, codes in combinations(found, read, labels, phases):
            out = folder / f"{name}_{seed}".replace(" ", "_").replace(",", "")
            with run_on_given(particles, codes, grey.voxel_size, out, config) as given:
                cases[name] = joined(given).loc[ids if particles is found else own]
        errors = {
            name: pd.DataFrame({c: case[c].to_numpy(float) - truth.loc[own, c].to_numpy(float) for c in COLUMNS})
            for name, case in cases.items()
        }
        counted = np.where(np.isin(found, ids), found, 0)
        around = mixed(found, read, labels, phases)
        area = confused(counted, read, around, labels, grey.voxel_size[0])
        return errors, area, len(ids)


def combinations(found: Array, read: Array, labels: Array, phases: Array) -> Iterator[tuple[str, Array, Array]]:
    """Name, particles and phases of each case: found and read are the run's, labels and phases true."""
    yield "found particles, true around", found, mixed(found, read, labels, phases)
    around = mixed(labels, phases, found, np.where(read >= ACTIVE, VOID, read))
    yield "true particles, found around", labels, around
    yield "true particles, true around", labels, phases


def main() -> None:
    """Print both tables; arguments as above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", type=int, nargs="?", default=128)
    parser.add_argument("seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--width", type=float, default=3.0)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        cases = [measure(wanted.size, seed, wanted.width, Path(name)) for seed in wanted.seeds or [0, 1, 2]]
    n = sum(case[2] for case in cases)
    lines = [f"{n} particles", "", f"| | {' | '.join(f'`{c}`' for c in COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name in cases[0][0]:
        error = pd.concat([case[0][name] for case in cases])
        lines.append(
            f"| {name} | " + " | ".join(f"{e.mean():+.4f}, {e.abs().mean():.4f}" for _, e in error.items()) + " |"
        )
    area = sum((case[1] for case in cases), np.zeros((2, 2))) / n
    lines += ["", "| | void as carbon/binder | carbon/binder as void |", "|---|---|---|"]
    lines += [f"| {place} | {a:.2f} | {b:.2f} |" for place, (a, b) in zip(("within 1 um", "beyond"), area, strict=True)]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
