"""The figures of docs/connected.md, docs/diffusion.md and docs/correlative.md, on a synthetic electrode.

    python -m benchmarks.science_figures docs/figures

makes the electrode (96 x 128 x 128 voxels, seed 0), measures it with `--anchor z0`, and draws what the commands
`cbdetach run`, `streamlines`, `sweep` and `correlate` draw, at 64 pixels an inch. The map of `correlate` is made: the
particle's own projection, turned by 25 degrees, mixed with independent texture to a correlation of 0.54. Prints the
shares of carbon/binder by class beside the truth, and what `correlate` found. About two minutes on two cores.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

import cbdetach
from cbdetach import connected, correlative, particle
from cbdetach.demo import write_phantom
from cbdetach.phantom import Phantom, PhantomSettings
from cbdetach.report import drawing

SHAPE, SEED, RHO, TURN = (96, 128, 128), 0, 0.54, 25.0
COLOURS = 128
THICK = 0.6


def small(source: Path, out: Path) -> None:
    """The picture with `COLOURS` colours, which are enough for a page."""
    picture = Image.open(source).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    picture.save(out / source.name, optimize=True)


def made_map(run: cbdetach.Run, volume: Path, label: int, seed: int = 1) -> tuple[np.ndarray, float]:
    """A map of the particle: its projection along z, turned, mixed with texture; eV around 8350, nan outside and where
    it is thinner than `THICK` of its thickest, where blur decides the density; and that thickness."""
    found = particle.find_particle(run, label)
    window, _ = found.window(run.volumes["particles"].shape, 1)
    with cbdetach.volume.open_volume(volume) as grey:
        values = grey[window]
    size = run.voxel_size
    mine, view = run.volumes["particles"][window] == label, np.array([1.0, 0, 0])
    thinnest = THICK * float(correlative.project(mine, values, direction=view, spacing=size).thickness_um.max())
    seen = correlative.project(mine, values, direction=view, spacing=size, min_thickness_um=thinnest)
    side = int(1.5 * max(seen.density.shape))
    turned = correlative.resample(seen.density, seen.pixel_um, (side, side), seen.pixel_um, (TURN, 1.0, 0.3, -0.4))
    known = np.isfinite(turned)
    other = gaussian_filter(np.random.default_rng(seed).standard_normal(turned.shape), 1.5)
    a, b = ((v - v[known].mean()) / v[known].std() for v in (turned, other))
    b = b - a * (a[known] * b[known]).mean()  # so that the correlation is RHO to the digit
    mixed = RHO * a + np.sqrt(1 - RHO**2) * b / b[known].std()
    return np.where(known, 8350 + mixed, np.nan), thinnest


def say(text: str) -> None:
    """One line to the terminal."""
    sys.stdout.write(text + "\n")


def main(out: Path) -> None:
    """Draw everything into `out`."""
    drawing.DPI = 64
    with tempfile.TemporaryDirectory() as folder:
        volume = Path(folder) / "phantom.h5"
        phantom = Phantom(PhantomSettings(shape=SHAPE, seed=SEED))
        write_phantom(phantom, volume)
        with cbdetach.run(volume, Path(folder) / "run", segmenter="watershed", anchor="z0") as run:
            truth = phantom.volume()
            cbd = connected.free_cbd(truth.labels, truth.phases)
            anchor = connected.on_side(cbd, "z0", first=True, last=True)
            for connectivity in connected.CONNECTIVITIES:
                (true,) = connected.classify([cbd], [anchor], connectivity=connectivity)
                counts = np.bincount(true.ravel(), minlength=4)[1:]
                found = run.record["connected"]["volume_shares"][str(connectivity)]
                for (name, share), exact in zip(found.items(), counts / counts.sum(), strict=True):
                    say(f"{connectivity:>2} {name:<13} measured {share:.4f}, in the drawn phases {exact:.4f}")
            for name in ("connected_slices", "connected_detachment"):
                small(run.path / "figures" / f"{name}.png", out)
            label = particle.find_particle(run).label
            (image, thinnest), pixel = made_map(run, volume, label), min(run.voxel_size)
            work = Path(folder) / "one"
            particle.streamlines(run.path, work, particle=label)
            particle.detachment_sweep(run.path, work, particle=label)
            where, result = particle.correlate(
                run.path,
                image,
                work,
                particle=label,
                pixel_um=pixel,
                min_thickness_um=thinnest,
                map_name="energy (eV)",
            )
            say(f"particle {label}: {where}\n{result}")
            for name in ("streamlines", "sweep", "correlate"):
                small(work / f"{name}.png", out)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/figures"))
