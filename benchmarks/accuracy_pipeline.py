"""Accuracy of a whole run against phantoms: particles found, diameters, detachment, by thickness of the carbon/binder.

    python -m benchmarks.accuracy_pipeline [SIZE [SEGMENTER ...]] [--widths W ...]

prints the table (256: about ten minutes on two cores for the watershed). The phantoms differ in nothing but the
thickness of the coating, in widths (FWHM) of the blur. A segmenter is ``watershed``, ``watershed2d`` or ``maskrcnn``,
the latter two also as ``maskrcnn:zyx`` for three views; ``maskrcnn=model.onnx`` takes another model. Where segmenters
or widths are named, only they are run: of segmenters alone the thickest coating, of widths alone the watershed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import h5py

import cbdetach
from cbdetach.demo import Agreement, agreement, write_phantom
from cbdetach.phantom import Phantom, PhantomSettings

CASES = ((3.0, "watershed"), (2.0, "watershed"), (1.0, "watershed"), (0.5, "watershed"), (3.0, "watershed2d"))
"""Coating thickness in widths of the blur, and segmenter."""


def measure(size: int, widths: float, how: str, folder: Path, seed: int = 0) -> tuple[Agreement, dict[str, float]]:
    """Run the driver on one phantom; the agreement with its truth, and the seconds of each stage.

    `how` : ``segmenter[=model][:views]``.
    """
    named, _, views = how.partition(":")
    segmenter, _, model = named.partition("=")
    blur = PhantomSettings().blur_fwhm_um
    phantom = Phantom(PhantomSettings(shape=(size, size, size), coating_thickness_um=widths * blur, seed=seed))
    volume = folder / f"phantom_{size}_{widths:g}_{seed}.h5"
    if not volume.exists():
        write_phantom(phantom, volume)
    with (
        cbdetach.run(
            volume,
            folder / f"run_{size}_{widths:g}_{seed}_{segmenter}_{views or 'z'}",
            segmenter=segmenter,
            model=model or None,
            views=views or None,
        ) as run,
        h5py.File(volume, "r") as file,
    ):
        return agreement(run, phantom.truth, file["truth/labels"]), run.record["timings"]


def main() -> None:
    """Print the table; arguments as above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", type=int, nargs="?", default=256)
    parser.add_argument("segmenters", nargs="*")
    parser.add_argument("--widths", type=float, nargs="+")
    wanted = parser.parse_args()
    cases = (
        [(widths, how) for widths in wanted.widths or [CASES[0][0]] for how in wanted.segmenters or [CASES[0][1]]]
        if wanted.widths or wanted.segmenters
        else CASES
    )
    sys.stdout.write(
        "| carbon/binder, blur widths | segmenter | true uncut | found one to one | diameter | MAE | bias | r | run |\n"
        "|---|---|---|---|---|---|---|---|---|\n"
    )
    with tempfile.TemporaryDirectory() as name:
        for widths, segmenter in cases:
            found, seconds = measure(wanted.size, widths, segmenter, Path(name))
            sys.stdout.write(
                f"| {widths:g} | {segmenter} | {found.n_true} | {100 * found.n_matched / found.n_true:.1f} % "
                f"| {100 * found.diameter_bias:+.1f} % | {found.detachment_mae:.3f} | {found.detachment_bias:+.3f} "
                f"| {found.detachment_r:.3f} | {sum(seconds.values()):.0f} s |\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
