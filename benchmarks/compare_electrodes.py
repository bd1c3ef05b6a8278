"""Eight synthetic electrodes of two rates, compared: `python -m benchmarks.compare_electrodes [OUT] [SIZE]`.

Each is a volume of its own (SIZE voxels a side, 96 by default, about 280 particles of 2.8 um). Its carbon/binder covers
less at 5C than at C/10, by 0.12, and a little more or less from electrode to electrode (standard deviation 0.03).
Labels and phases are given from the truth, densities are measured on the grey volume. Then `cbdetach compare` draws
every figure. Runs that are there already are not made again.

`python -m benchmarks.docs_figures` writes the pictures of docs/ from it: those of the comparison, and those of
the first run's report.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import cbdetach
from benchmarks.pictures import save_small
from cbdetach import compare
from cbdetach.phantom import Phantom, PhantomSettings

RATES = ("C/10",) * 4 + ("5C",) * 4
COVERED = {"C/10": 0.42, "5C": 0.30}


def electrode(k: int, size: int) -> Phantom:
    """Synthetic electrode number k."""
    effect = np.random.default_rng(k).normal(0, 0.03)
    return Phantom(
        PhantomSettings(
            shape=(size, size, size),
            seed=k,
            diameter_median_um=2.8,
            diameter_sigma=0.25,
            coating_thickness_um=0.8,
            covered_fraction=COVERED[RATES[k]] + effect,
            covered_fraction_sd=0.12,
            crack_width_um=0.3,
        )
    )


PICTURES = {
    "comparison": (
        "detachment_groups",
        "detachment_size_groups",
        "spread_size",
        "density_correlations",
        "peak_widths",
        "cycling",
    ),
    "C10_1": (
        "detachment_volume",
        "detachment_spread",
        "density_detachment",
        "density_erosion",
        "peaks",
        "features",
        "slices_detachment",
    ),
}
"""Pictures of docs/, by the folder under OUT that they come from."""


def write_pictures(out: Path, folder: Path) -> None:
    """Small copies, 900 pixels wide, of the pictures of docs/."""
    folder.mkdir(parents=True, exist_ok=True)
    for source, names in PICTURES.items():
        for name in names:
            save_small(out / source / "figures" / f"{name}.png", folder, width=900)


def main(out: Path, size: int) -> None:
    """Make, measure, compare."""
    paths = []
    for k, rate in enumerate(RATES):
        path = out / f"{rate.replace('/', '')}_{k % 4 + 1}"
        paths.append(path)
        if (path / "report.html").exists():
            continue
        slab = electrode(k, size).volume()
        cbdetach.run(
            slab.grey,
            path,
            labels=slab.labels,
            phases=slab.phases,
            phase_values={"void": 0, "cbd": 1, "active": 2},
            voxel_size=0.2,
            config={
                "metadata": {"rate": rate, "cycles": 50},
                "density": {"erosion_um": 0.4},  # the default, 0.8 um, leaves nothing of most of these small particles
                "features": {"neighbourhood_um": 8.0},
            },
            resume=path.exists(),
        ).close()
    cycle = np.arange(0, 51, 5)
    rows = [f"{rate},{n},{200 - fade * n:.1f}" for rate, fade in (("C/10", 0.3), ("5C", 1.4)) for n in cycle]
    (out / "capacity.csv").write_text("rate,cycle,capacity\n" + "\n".join(rows) + "\n")
    found, warnings = compare.compare(paths, out / "comparison", cycling=out / "capacity.csv", overwrite=True)
    print("\n".join([str(found), *warnings, f"{out / 'comparison' / 'compare.html'}"]))  # noqa: T201


if __name__ == "__main__":
    main(
        Path(sys.argv[1] if len(sys.argv) > 1 else "cbdetach_electrodes"), int(sys.argv[2]) if len(sys.argv) > 2 else 96
    )
