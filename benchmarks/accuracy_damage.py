"""Accuracy of the crack volume in whole runs on phantoms: voxels counted, and corrected by the missing grey.

``python -m benchmarks.accuracy_damage [size [seed]]`` prints the table (128: about two minutes on two cores). The
phantoms differ in nothing but the width of their cracks, in widths (FWHM) of the blur; two thirds of their particles
are cracked. Particles are those of the run, the watershed's, matched with the true ones; whole ones count.

`of true` is found crack volume over true, all particles together; `error` the mean absolute error of a particle's crack
fraction.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

import cbdetach
from cbdetach import damage, detachment
from cbdetach.demo import match, write_phantom
from cbdetach.phantom import Phantom, PhantomSettings

WIDTHS = (0.6, 0.8, 1.0, 1.5, 2.5)
"""Crack widths, in widths of the blur."""


@dataclass(frozen=True)
class Cracks:
    """What a run finds of the cracks of `particles` whole particles; fractions of their volume."""

    particles: int
    true: float
    counted: float
    corrected: float
    counted_error: float
    corrected_error: float


def measure(size: int, width: float, folder: Path, seed: int = 0) -> Cracks:
    """Run the driver on one phantom and compare its cracks with the true ones."""
    blur = PhantomSettings().blur_fwhm_um
    phantom = Phantom(
        PhantomSettings(
            shape=(size, size, size), crack_width_um=width * blur, crack_share=0.67, pore_share=0.3, seed=seed
        )
    )
    volume = folder / f"phantom_{size}_{width:g}_{seed}.h5"
    write_phantom(phantom, volume)
    with (
        cbdetach.run(volume, volume.with_suffix(""), segmenter="watershed", config={"report": {"gallery": 0}}) as run,
        h5py.File(volume, "r") as file,
    ):
        ids, own = match(run.volumes["particles"], file["truth/labels"])
        labels = run.volumes["particles"][:]
        codes = damage.classify_damage(
            labels,
            detachment.is_active(run.volumes["phases"][:]),
            spacing=phantom.settings.voxel_size_um,
            max_crack_width_um=damage.default_max_crack_width_um(run.voxel_size, run.record["edge_width_um"]),
            skin_um=run.record["edge_width_um"],
        )
        found, truth = run.table.set_index("label").loc[ids], phantom.truth.set_index("label").loc[own]
    whole = ~found["touches_border"].to_numpy(bool) & ~truth["touches_border"].to_numpy(bool)
    counts = np.bincount(labels[codes == damage.CRACK], minlength=int(labels.max()) + 1)[ids]
    counted = counts / np.bincount(labels.ravel())[ids]
    corrected, true = found["crack_fraction"].to_numpy(float), truth["crack_fraction"].to_numpy(float)
    volume_um3 = np.where(whole, found["volume_um3"], 0.0)
    sums = [float((fraction * volume_um3).sum() / volume_um3.sum()) for fraction in (true, counted, corrected)]
    errors = [float(np.abs(fraction - true)[whole].mean()) for fraction in (counted, corrected)]
    return Cracks(int(whole.sum()), *sums, *errors)


def main() -> None:
    """Print the table; arguments as above."""
    size, seed = (int(value) for value in (*sys.argv[1:], *("128", "0")[len(sys.argv) - 1 :]))
    sys.stdout.write(
        "| crack width, blur widths | particles | true | counted, of true | error | corrected, of true | error |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    with tempfile.TemporaryDirectory() as name:
        for width in WIDTHS:
            c = measure(size, width, Path(name), seed)
            sys.stdout.write(
                f"| {width:g} | {c.particles} | {c.true:.4f} | {c.counted / c.true:.2f} | {c.counted_error:.4f} "
                f"| {c.corrected / c.true:.2f} | {c.corrected_error:.4f} |\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
