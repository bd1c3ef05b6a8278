"""Accuracy of the crack volume in whole runs on phantoms: voxels counted, and corrected by the missing grey.

    python -m benchmarks.accuracy_damage [SIZE [SEED ...]] [--close-um L] [--bridge-um L] [--widths W ...]
    python -m benchmarks.accuracy_damage [SIZE [SEED ...]] --pore-sizes R ...

prints the table (128: about two minutes a seed on two cores; the volumes of several seeds count together). The phantoms
differ in nothing but the width of their cracks, in widths (FWHM) of the blur; two thirds of their particles are
cracked, three tenths porous. Particles are those of the run, the watershed's, matched with the true ones; whole ones
count. `--close-um` is `[segment] close_um`, the widest crack that does not cut a particle in two; `--bridge-um`
`[segment] bridge_um`, the widest that is bridged in each particle on its own.

`of true` is found volume over true, all particles together; `error` the mean absolute error of a particle's fraction.

With `--pore-sizes` true labels and phases are given, and asked is how much of the as-made pores is taken for cracks by
their shape: in particles with a ragged cluster of pores of R of their radius, without any crack, and with cracks one
blur width wide that meet it (1/4 minute for a size and seed on one core).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

import cbdetach
from cbdetach import damage, detachment
from cbdetach.arrays import along
from cbdetach.demo import match, write_phantom
from cbdetach.phantom import CRACK, PORE, Phantom, PhantomSettings

WIDTHS = (0.6, 0.8, 1.0, 1.5, 2.0, 2.5)
"""Crack widths, in widths of the blur."""


def measure(
    size: int, width: float, folder: Path, seed: int = 0, segment: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Run the driver on one phantom: its whole particles, with fractions of their volume, found and true.

    `segment` : settings of that section, as `close_um` and `bridge_um`.
    """
    blur = PhantomSettings().blur_fwhm_um
    phantom = Phantom(
        PhantomSettings(
            shape=(size, size, size), crack_width_um=width * blur, crack_share=0.67, pore_share=0.3, seed=seed
        )
    )
    volume = folder / f"phantom_{size}_{width:g}_{seed}.h5"
    write_phantom(phantom, volume)
    config = {"report": {"gallery": 0}, "segment": dict(segment or {})}
    with (
        cbdetach.run(volume, volume.with_suffix(""), segmenter="watershed", config=config) as run,
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
    return pd.DataFrame(
        {
            "volume_um3": found["volume_um3"].to_numpy(float),
            "crack": truth["crack_fraction"].to_numpy(float),
            "counted": counted,
            "corrected": found["crack_fraction"].to_numpy(float),
            "pore": truth["pore_fraction"].to_numpy(float),
            "pore_found": found["pore_fraction"].to_numpy(float),
        }
    )[whole]


def mistaken_pores(size: int, pore_size: float, seed: int = 0) -> pd.DataFrame:
    """Whole porous particles of one phantom: voxels of pores, of cracks, and of pores that are taken for cracks."""
    blur = PhantomSettings().blur_fwhm_um
    phantom = Phantom(
        PhantomSettings(
            shape=(size, size, size),
            crack_width_um=blur,
            crack_share=0.5,
            pore_share=1.0,
            pore_size=pore_size,
            seed=seed,
        )
    )
    labels, phases, true = phantom.codes(0, size)
    spacing = phantom.settings.voxel_size_um
    found = damage.classify_damage(
        labels,
        detachment.is_active(phases),
        spacing=spacing,
        max_crack_width_um=damage.default_max_crack_width_um(spacing, blur),
        skin_um=blur,
    )
    sides = [along(axis, end, end + 1 or None) for axis in range(3) for end in (0, -1)]
    whole = np.setdiff1d(labels, np.concatenate([labels[side].ravel() for side in sides]))
    masks = {"pore": true == PORE, "crack": true == CRACK, "mistaken": (true == PORE) & (found == damage.CRACK)}
    counts = {k: np.bincount(labels[mask], minlength=int(labels.max()) + 1)[whole] for k, mask in masks.items()}
    return pd.DataFrame(counts)[counts["pore"] > 0]


def pore_line(pore_size: float, table: pd.DataFrame) -> str:
    """One row of the table of pores: particles, share of their pores mistaken, and in how many it is most of them."""
    cells = [f"{pore_size:g}"]
    for part in (table[table["crack"] == 0], table[table["crack"] > 0]):
        share = part["mistaken"].sum() / max(part["pore"].sum(), 1)
        cells += [f"{len(part)}", f"{share:.2f}", f"{(part['mistaken'] > part['pore'] / 2).sum()}"]
    return "| " + " | ".join(cells) + " |\n"


def line(width: float, table: pd.DataFrame) -> str:
    """One row of the table."""
    weight = table["volume_um3"] / table["volume_um3"].sum()
    share = {name: float((table[name] * weight).sum()) for name in table}
    cells = [f"{width:g}", f"{len(table)}", f"{share['crack']:.4f}"]
    for found, true in (("counted", "crack"), ("corrected", "crack"), ("pore_found", "pore")):
        if found == "pore_found":
            cells.append(f"{share['pore']:.4f}")
        cells += [f"{share[found] / share[true]:.2f}", f"{(table[found] - table[true]).abs().mean():.4f}"]
    return "| " + " | ".join(cells) + " |\n"


def main() -> None:
    """Print the table; arguments as above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", type=int, nargs="?", default=128)
    parser.add_argument("seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--close-um", type=float)
    parser.add_argument("--bridge-um", type=float)
    parser.add_argument("--widths", type=float, nargs="+", default=WIDTHS)
    parser.add_argument("--pore-sizes", type=float, nargs="+")
    wanted = parser.parse_args()
    seeds = wanted.seeds or [0]
    if wanted.pore_sizes:
        sys.stdout.write(
            "| radius of the pores, of the particle's | particles without cracks | pores taken for cracks, by volume "
            "| in so many most of it | with cracks | by volume | most of it |\n|---|---|---|---|---|---|---|\n"
        )
        for pore_size in wanted.pore_sizes:
            tables = [mistaken_pores(wanted.size, pore_size, seed) for seed in seeds]
            sys.stdout.write(pore_line(pore_size, pd.concat(tables)))
            sys.stdout.flush()
        return
    sys.stdout.write(
        "| crack width, blur widths | particles | cracks, true | counted, of true | error | corrected, of true | error "
        "| pores, true | found, of true | error |\n|---|---|---|---|---|---|---|---|---|---|\n"
    )
    segment = {name: value for name in ("close_um", "bridge_um") if (value := getattr(wanted, name)) is not None}
    for width in wanted.widths:
        with tempfile.TemporaryDirectory() as name:
            tables = [measure(wanted.size, width, Path(name), seed, segment) for seed in seeds]
        sys.stdout.write(line(width, pd.concat(tables)))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
