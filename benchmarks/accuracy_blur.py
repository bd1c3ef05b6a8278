"""How exact the measured blur is, by what covers the particles.

    python -m benchmarks.accuracy_blur [SIZE [SEED ...]]        (96, seeds 180 and 181: a minute on one core)

The electrodes are those of `accuracy_columns`. True is what the same fit gives for a flat bare edge in closed form: a
step blurred by the Gaussian and by the extent of a voxel, and steepened by the fringe (an unsharp mask). Printed:
measured over true - 1, mean and largest in size over the seeds.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import ndtr

from benchmarks.accuracy_columns import settings
from cbdetach.edge_width import FWHM_PER_SIGMA, fitted_width
from cbdetach.phantom import Phantom, PhantomSettings
from cbdetach.survey import SurveyAccumulator

CASES: dict[str, dict[str, Any]] = {
    "bare": {"covered_fraction": 0.0, "covered_fraction_sd": 0.0, "network_share": 0.0},
    "1 width thick": {"coating_thickness_um": 0.4},
    "1, over most of the surface": {
        "coating_thickness_um": 0.4, "covered_fraction": 0.7, "covered_fraction_sd": 0.2,
    },
    "1, noise twice as strong": {"coating_thickness_um": 0.4, "noise": 0.08},
    "1, blur 1.5 times as wide": {"coating_thickness_um": 0.6, "blur_fwhm_um": 0.6},
    "2 widths thick": {"coating_thickness_um": 0.8},
    "3 widths thick": {"coating_thickness_um": 1.2},
    "3, noise twice as strong": {"coating_thickness_um": 1.2, "noise": 0.08},
}  # fmt: skip
"""Settings that differ from those of `accuracy_columns`, by what is said of the carbon/binder."""


def true_width(wanted: PhantomSettings) -> float:
    """Full width at half maximum, um, that a flat edge between active material and void is fitted with."""
    distance = np.linspace(-6, 6, 193) * wanted.voxel_size_um[0]
    box = wanted.voxel_size_um[0] ** 2 / 12
    variance = (wanted.blur_fwhm_um / FWHM_PER_SIGMA) ** 2
    sharp, wide = (ndtr(-distance / np.sqrt(v + box)) for v in (variance, 5 * variance))
    return fitted_width(distance, (1 + wanted.fringe) * sharp - wanted.fringe * wide)


def measured_width(wanted: PhantomSettings) -> float:
    """As a run measures it, um."""
    survey = SurveyAccumulator(wanted.voxel_size_um)
    survey.add(Phantom(wanted).volume().grey)
    return survey.finish().edge_width_um


def main() -> None:
    """Print the table; arguments as above."""
    size, *seeds = [int(a) for a in sys.argv[1:]] or [96]
    sys.stdout.write("| carbon/binder | true, um | error | largest |\n|---|---|---|---|\n")
    for name, change in CASES.items():
        cases = [replace(settings(size, seed), **change) for seed in seeds or [180, 181]]
        error = np.array([measured_width(case) / true_width(case) - 1 for case in cases])
        largest = error[np.argmax(np.abs(error))]
        sys.stdout.write(f"| {name} | {true_width(cases[0]):.3f} | {error.mean():+.1%} | {largest:+.1%} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
