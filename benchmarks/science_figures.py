"""The figures of docs/phases.md, damage.md, connected.md, diffusion.md and correlative.md, on a synthetic electrode.

    python -m benchmarks.science_figures docs/figures

makes the electrode (96 x 128 x 128 voxels, seed 0), measures it with `--anchor z0` and a depth profile in windows of
2.4 um, and draws what the commands `cbdetach run`, `streamlines`, `sweep` and `correlate` draw, at 130 pixels an inch.
The map of `correlate` is made: the largest particle's own projection, turned by 25 degrees, mixed with independent
texture to a correlation of 0.54. Prints the shares of carbon/binder by class beside the truth, and what `correlate`
found. About two minutes on two cores.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

import cbdetach
from benchmarks.pictures import save_small
from cbdetach import connected, correlative, density, particle, particle_map
from cbdetach.demo import write_phantom
from cbdetach.phantom import Phantom, PhantomSettings
from cbdetach.report import drawing

SHAPE, SEED, RHO, TURN = (96, 128, 128), 0, 0.54, 25.0
DPI = 130
CONFIG = {"damage": {"profile_window_um": 2.4}}
OF_THE_RUN = (
    "histogram",
    "regional_histograms",
    "slices_phases",
    "damage_slices",
    "depth_profile",
    "radial_profile",
    "connected_slices",
    "connected_detachment",
)


def made_map(run: cbdetach.Run, volume: Path, label: int, seed: int = 1) -> np.ndarray:
    """A map of the particle at half its pixel size, eV around 8350, nan outside: its projection along z below the rim
    that blur reaches, turned, mixed with independent texture to the correlation `RHO`; the rim is texture alone."""
    found = particle.find_particle(run, label)
    window, _ = found.window(run.volumes["particles"].shape, 1)
    with cbdetach.volume.open_volume(volume) as grey:
        values = grey[window]
    size, pixel = run.voxel_size, min(run.voxel_size)
    seen = correlative.project(
        run.volumes["particles"][window] == label,
        values,
        direction=np.array([1.0, 0, 0]),
        spacing=size,
        min_thickness_um=4 * pixel,
        erosion_um=density.default_erosion_um(size, run.record["edge_width_um"]),
    )
    side = int(2.6 * max(seen.density.shape))
    core, outline = (
        correlative.resample(picture, pixel, (side, side), pixel / 2, (TURN, 1.0, 0.3, -0.4))
        for picture in (seen.density, np.where(seen.outline, 1.0, np.nan))
    )
    known = np.isfinite(core)
    other = gaussian_filter(np.random.default_rng(seed).standard_normal(core.shape), 3.0)
    a, b = ((v - v[known].mean()) / v[known].std() for v in (core, other))
    b = b - np.where(known, a, 0) * (a[known] * b[known]).mean()  # so that the correlation is RHO to the digit
    mixed = RHO * np.where(known, a, 0) + np.sqrt(1 - RHO**2) * b / b[known].std()
    return np.where(np.isfinite(outline), 8350 + mixed, np.nan)


def say(text: str) -> None:
    """One line to the terminal."""
    sys.stdout.write(text + "\n")


def main(out: Path) -> None:
    """Draw everything into `out`."""
    drawing.DPI = DPI
    with tempfile.TemporaryDirectory() as folder:
        volume = Path(folder) / "phantom.h5"
        phantom = Phantom(PhantomSettings(shape=SHAPE, seed=SEED))
        write_phantom(phantom, volume)
        with cbdetach.run(volume, Path(folder) / "run", segmenter="watershed", anchor="z0", config=CONFIG) as run:
            truth = phantom.volume()
            cbd = connected.free_cbd(truth.labels, truth.phases)
            anchor = connected.on_side(cbd, "z0", first=True, last=True)
            for connectivity in connected.CONNECTIVITIES:
                (true,) = connected.classify([cbd], [anchor], connectivity=connectivity)
                counts = np.bincount(true.ravel(), minlength=4)[1:]
                found = run.record["connected"]["volume_shares"][str(connectivity)]
                for (name, share), exact in zip(found.items(), counts / counts.sum(), strict=True):
                    say(f"{connectivity:>2} {name:<13} measured {share:.4f}, in the drawn phases {exact:.4f}")
            for name in OF_THE_RUN:
                save_small(run.path / "figures" / f"{name}.png", out)
            label = particle.find_particle(run).label
            whole = run.table[~run.table["touches_border"].astype(bool)]
            largest = int(whole.loc[whole["volume_um3"].idxmax(), "label"])
            work = Path(folder) / "one"
            particle.streamlines(run.path, work, particle=label)
            particle.detachment_sweep(run.path, work, particle=label)
            where, result = particle_map.correlate(
                run.path,
                made_map(run, volume, largest),
                work,
                particle=largest,
                pixel_um=min(run.voxel_size) / 2,
                map_name="energy (eV)",
            )
            say(f"particle {largest}: {where}\n{result}")
            for name in ("streamlines", "sweep", "correlate"):
                save_small(work / f"{name}.png", out)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/figures"))
