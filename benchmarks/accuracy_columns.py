"""Accuracy of every column of particles.csv, of features.csv and of the damage map in whole runs on phantoms.

    python -m benchmarks.accuracy_columns [SIZE [SEED ...]]        (128, seeds 0 1 2: about six minutes on two cores)

The truth is the phantom's own where its formulas give it (`Phantom.truth`: places, volumes, areas, cracks, pores, grey
levels). What needs voxels is measured on the true labels and phases in voxels of half the edge (`Phantom.finer`); what
that leaves open is small, see `--finer` below. Against it stand two runs: *from grey* (nothing given but the grey
values, the watershed), and *from true phases* in voxels of the full edge, which shows what of the error is the voxels'
and what is the blur's, the noise's and the thresholds'. Whole particles that are found one to one count.

For each column: the mean and the standard deviation of the truth, the mean error (found - true) and the mean absolute
error, and Pearson's r between particles. `--finer 3` takes voxels of a third of the edge for the truth instead.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

import cbdetach
from cbdetach import damage, damage_map, table
from cbdetach.codes import PHASE_CODES
from cbdetach.demo import match, write_phantom
from cbdetach.phantom import Phantom, PhantomSettings

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]

PHASE_VALUES = {name: PHASE_CODES[name] for name in ("void", "cbd", "active")}
OWN = (
    "z_um", "y_um", "x_um", "volume_um3", "equivalent_diameter_um", "area_cbd_um2", "area_void_um2",
    "area_particle_um2", "detachment_fraction", "crack_fraction", "pore_fraction",
)  # fmt: skip
"""Columns that the phantom's formulas give."""

NOT_COMPARED = ("label", "touches_border", "diffusion_status", "score", "detachment_fraction_low",
                "detachment_fraction_high", "unresolved_fraction")  # fmt: skip
"""No numbers, or none with a truth of their own: `accuracy_bands` measures the last three."""


@dataclass(frozen=True)
class Case:
    """Tables of one phantom, row by row the same whole particles, and its damage maps inside them."""

    true: pd.DataFrame
    grey: pd.DataFrame
    given: pd.DataFrame
    map_true: Array
    map_grey: Array
    map_given: Array


def settings(size: int, seed: int) -> PhantomSettings:
    """The default electrode, with half of the particles cracked."""
    return PhantomSettings(shape=(size, size, size), seed=seed, crack_share=0.5)


@contextmanager
def run_on_grey(phantom: Phantom, folder: Path) -> Iterator[tuple[cbdetach.Run, Array, Array, dict[str, Any]]]:
    """A run on a phantom's grey values; its true labels and phases; the settings for runs on labels and phases."""
    seed = phantom.settings.seed
    path = folder / f"phantom_{seed}.h5"
    write_phantom(phantom, path)
    config: dict[str, Any] = {"report": {"gallery": 0}}
    with (
        cbdetach.run(path, folder / f"grey_{seed}", segmenter="watershed", anchor="z0", config=config) as grey,
        h5py.File(path, "r") as file,
    ):
        config |= {
            "diffusion": {"min_contact_um2": grey.record["min_contact_um2"]},
            "features": {"min_contact_um2": grey.record["edge_width_um"] ** 2},
            "damage": {"window_um": damage_map.default_window_um(grey.voxel_size)},
        }
        yield grey, file["truth/labels"][:], file["truth/phases"][:], config


def run_on_given(
    labels: Array, phases: Array, size: tuple[float, float, float], out: Path, config: dict[str, Any]
) -> cbdetach.Run:
    """A run on labels and phases that are given, in voxels of a size."""
    return cbdetach.run(
        labels=labels, phases=phases, phase_values=PHASE_VALUES, voxel_size=size, out=out, anchor="z0", config=config
    )


def measure(size: int, seed: int, folder: Path, finer: int = 2) -> Case:
    """Both runs on one phantom, and its truth."""
    phantom = Phantom(settings(size, seed))
    with run_on_grey(phantom, folder) as (grey, labels, phases, config):
        truth = fine_truth(phantom, finer, folder / f"fine_{seed}", config)
        with run_on_given(labels, phases, grey.voxel_size, folder / f"given_{seed}", config) as given:
            ids, own = match(grey.volumes["particles"], labels)
            found = joined(grey).loc[ids]
            whole = ~found["touches_border"].to_numpy(bool) & ~truth.table.loc[own, "touches_border"].to_numpy(bool)
            ids, own = ids[whole], own[whole]
            inside = np.isin(labels, own) & np.isin(grey.volumes["particles"][:], ids)
            map_grey, map_given = (run.volumes["damage"][:][inside] for run in (grey, given))
            return Case(
                truth.table.loc[own],
                joined(grey).loc[ids],
                joined(given).loc[own],
                truth.degree[inside],
                map_grey,
                map_given,
            )


@dataclass(frozen=True)
class Truth:
    """The true table by label, and the true damage map in the voxels of the grey volume."""

    table: pd.DataFrame
    degree: Array


def joined(run: cbdetach.Run) -> pd.DataFrame:
    """Table and features of a run by label, columns of both once."""
    features = run.features.drop(columns=[c for c in run.features if c in run.table and c != "label"])
    return run.table.merge(features, on="label").set_index("label")


def fine_truth(phantom: Phantom, finer: int, folder: Path, config: dict[str, Any]) -> Truth:
    """Measured on the true labels and phases in finer voxels; the phantom's own figures wherever it has them."""
    small = phantom.finer(finer)
    shape, size = small.settings.shape, small.settings.voxel_size_um
    labels, phases = np.empty(shape, np.int32), np.empty(shape, np.uint8)
    codes = np.empty(shape, np.uint8)
    for z0 in range(0, shape[0], 32):
        part = slice(z0, min(z0 + 32, shape[0]))
        labels[part], phases[part], codes[part] = small.codes(part.start, part.stop)
    with run_on_given(labels, phases, size, folder, config) as run:
        found = joined(run)
    exact = phantom.truth.set_index("label")
    exact = exact.loc[found.index.intersection(exact.index)]
    found = found.loc[exact.index]
    for name in OWN:
        found[name] = exact[name]
    outer = exact[[f"area_{n}_um2" for n in ("void", "cbd", "particle", "other", "crack_mouth")]].sum(axis=1)
    found["surface_area_um2"] = found["surface_outer_um2"] = outer
    found["sphericity"] = table.sphericity(exact["volume_um3"], outer, exact["touches_border"].to_numpy(bool))
    found["volume_surface_ratio"] = np.cbrt(exact["volume_um3"]) / np.sqrt(outer)
    found["contact_known_fraction"] = (exact["area_void_um2"] + exact["area_cbd_um2"]) / outer
    found["particle_contact_fraction"] = exact["area_particle_um2"] / outer
    found["cbd_contact_fraction"] = exact["area_cbd_um2"] / outer
    surface = damage.crack_surface(labels, codes, spacing=size)
    area = dict(zip(surface.labels.tolist(), surface.area[:, -1], strict=True)) if surface.area.shape[1] > 1 else {}
    found["crack_area_um2"] = [area.get(label, 0.0) for label in found.index]
    found["slices"] = found["slices"] / finer
    found["density_mean"], found["density_std"] = exact["grey"], grain(phantom.settings)
    for axis in "zyx":  # the fine voxels begin at their own first centre; the phantom's own positions do not
        assert (found[f"{axis}_um"] == exact[f"{axis}_um"]).all()
    degree = damage_map.damage_map(labels, codes, spacing=size, window_um=config["damage"]["window_um"])
    blocks = degree.reshape(shape[0] // finer, finer, shape[1] // finer, finer, shape[2] // finer, finer)
    with np.errstate(invalid="ignore"):
        inside = np.isfinite(blocks).sum(axis=(1, 3, 5))
        coarse = np.divide(np.nansum(blocks, axis=(1, 3, 5)), inside, out=np.zeros(inside.shape), where=inside > 0)
    return Truth(found, coarse)


def grain(wanted: PhantomSettings, size: int = 80) -> float:
    """Standard deviation of the grey values inside a solid without end: one particle larger than its volume.

    Not near the sides, where the filters that make noise and grain repeat the last voxel.
    """
    from dataclasses import replace

    edge = size * wanted.voxel_size_um[0]
    alone = replace(wanted, shape=(size, size, size), crack_share=0.0, pore_share=0.0, roughness=0.0, elongation=0.0)
    one = Phantom(alone, centres_um=np.full((1, 3), edge / 2), diameters_um=np.array([4 * edge]), samples=200)
    margin = slice(size // 5, -(size // 5))
    return float(one.volume().grey[margin, margin, margin].std())


def rows(cases: list[Case]) -> list[str]:
    """One line of the table for each column that has numbers, and one for the damage map."""

    def together(kind: str, name: str) -> Array:
        return np.concatenate([getattr(case, kind)[name].to_numpy(float) for case in cases])

    names = [n for n in cases[0].true if n not in NOT_COMPARED and n in cases[0].grey]
    lines = [line(f"`{name}`", *(together(kind, name) for kind in ("true", "grey", "given"))) for name in names]
    maps = (np.concatenate([getattr(case, f"map_{kind}") for case in cases]) for kind in ("true", "grey", "given"))
    return [*lines, line("`/damage`, by voxels", *maps)]


def line(name: str, true: Array, grey: Array, given: Array) -> str:
    """Truth and errors of one column."""
    cells = [name]
    known = np.isfinite(true) & np.isfinite(grey)
    cells.append(str(int(known.sum())))
    if not known.any():
        return "| " + " | ".join(cells) + " |"
    cells.append(f"{number(true[known].mean())} ± {number(true[known].std())}")
    for found in (grey, given):
        both = known & np.isfinite(found)
        if not both.any():
            cells += ["", "", ""]
            continue
        error = found[both] - true[both]
        varied = np.ptp(true[both]) > 0 and np.ptp(found[both]) > 0
        r = f"{np.corrcoef(true[both], found[both])[0, 1]:.3f}" if varied else ""
        cells += [f"{'+' if error.mean() >= 0 else '-'}{number(abs(error.mean()))}", number(np.abs(error).mean()), r]
    return "| " + " | ".join(cells) + " |"


def number(value: float) -> str:
    """Three significant digits without an exponent, four decimals at most."""
    if value == 0:
        return "0"
    digits = int(np.clip(2 - np.floor(np.log10(abs(value))), 0, 4))
    return f"{value:.{digits}f}"


def main() -> None:
    """Print the table; arguments as above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", type=int, nargs="?", default=128)
    parser.add_argument("seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--finer", type=int, default=2)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        cases = [measure(wanted.size, seed, Path(name), wanted.finer) for seed in wanted.seeds or [0, 1, 2]]
    sys.stdout.write(
        "| | n | true | from grey: error | absolute | r | from true phases: error | absolute | r |\n"
        "|---|---|---|---|---|---|---|---|---|\n" + "\n".join(rows(cases)) + "\n"
    )


if __name__ == "__main__":
    main()
