"""One particle of a finished run, looked at closely: its streamlines, and what happens while it loses contact.

Each function reads the particle's box from the run's folder, calls a stage on plain arrays, and writes one figure with
its table.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import voxkernels as vk
from cbdetach import diffusion, sweep
from cbdetach.detachment import is_active
from cbdetach.errors import InputError
from cbdetach.files import read_csv, require_writable, told
from cbdetach.formula import evaluate
from cbdetach.report import plain_style
from cbdetach.report.drawing import Drawing, save
from cbdetach.report.streamlines import streamlines as draw_streamlines
from cbdetach.report.sweep import sweep_drawing
from cbdetach.results import Run
from cbdetach.store import RunFolder, unpack

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]

ELECTRONIC, IONIC = "1 / r", "d"
"""Accessibilities where none are given: how much shorter the ways were at the start; the free share of the surface."""


@dataclass(frozen=True)
class Particle:
    """One particle of a run: its label, its row of the table, its box (z0, y0, x0, z1, y1, x1, half-open)."""

    label: int
    row: dict[str, Any]
    box: npt.NDArray[np.int64]

    def window(self, shape: tuple[int, ...], margin: int) -> tuple[tuple[slice, slice, slice], list[tuple[int, int]]]:
        """The box widened by `margin` as far as the volume goes, and the padding that is missing to it."""
        low, high = self.box[:3] - margin, self.box[3:] + margin
        a, b = np.maximum(low, 0), np.minimum(high, shape)
        z, y, x = (slice(int(i), int(j)) for i, j in zip(a, b, strict=True))
        return (z, y, x), [(int(i), int(j)) for i, j in zip(a - low, high - b, strict=True)]


def find_particle(run: Run, label: int | None = None) -> Particle:
    """The particle with a label; None: the one with the longest way to its contact, whole if any is.

    Raises
    ------
    InputError
        The run has no such particle, or none with a diffusion length.
    """
    table = run.table
    if label is None:
        longest = table["diffusion_length_max_um"].astype(float)
        whole = longest.where(~table["touches_border"].astype(bool))
        length = (whole if whole.notna().any() else longest).to_numpy()
        if not np.isfinite(length).any():
            raise InputError("--particle: no particle of this run has a diffusion length; give the label of one.")
        label = int(table["label"].iloc[int(np.nanargmax(length))])
    rows = np.flatnonzero(table["label"].to_numpy() == label)
    if not rows.size:
        raise InputError(
            f"--particle: must be a label of this run, {table['label'].min()} to {table['label'].max()}; got {label}. "
            "They are in particles.csv."
        )
    folder = RunFolder(run.path, [tuple(s) for s in run.record["slabs"]])
    shares = [folder.read_table("link", i, "table/regions") for i in range(len(folder.slabs))]
    regions = vk.merge_regions([unpack(vk.RegionProperties, share) for share in shares])
    box = regions.bbox[np.searchsorted(regions.labels, label)]
    row = {str(name): value for name, value in table.iloc[int(rows[0])].items()}
    return Particle(label, row, box.astype(np.int64))


def streamlines(path: str | Path, out: str | Path, *, particle: int | None = None, seed: int = 0) -> list[Path]:
    """Draw the shortest ways of one particle, on a slice and on its surface; the files that were written."""
    require_writable(Path(out))
    with Run(path) as run:
        found = find_particle(run, particle)
        labels, phases, lengths = (run.volumes[name] for name in ("particles", "phases", "diffusion_length"))
        with plain_style():
            drawing = draw_streamlines(labels, phases, lengths, found.label, found.box, run.voxel_size, seed=seed)
            if isinstance(drawing, str):
                raise InputError(f"--particle: {drawing[0].lower()}{drawing[1:]} Choose another one.")
            return written(drawing, Path(out))


def detachment_sweep(
    path: str | Path,
    out: str | Path,
    *,
    particle: int | None = None,
    steps: int = 20,
    seed: int = 0,
    measured: bool = False,
    direction: tuple[float, float, float] = (1.0, 0.0, 0.0),
    electronic: str | None = None,
    ionic: str | None = None,
    curves: str | Path | None = None,
) -> list[Path]:
    """Take the contact of one particle step by step, and draw its lengths and a schematic model; the files written.

    Parameters
    ----------
    path, out : the run's folder, and the folder for the figure.
    particle : label; None: the particle with the longest way.
    steps : of equal area; seed : of the patches; direction : (z, y, x), the side that is lost first in "side".
    measured : start from the particle's own contact; False: attached all round.
    electronic, ionic : accessibility as a formula of d, the detachment, and r, the mean length over that at the start.
    curves : CSV with the columns detachment, electronic, ionic instead of the formulas.

    Raises
    ------
    InputError
        An argument does not fit, or the particle has no contact to lose.
    """
    if not 2 <= steps <= 1000:
        raise InputError(f"--steps: must be 2 to 1000; got {steps}.")
    if not np.isfinite(direction).all() or not np.any(direction):
        raise InputError(f"--direction: must be three finite numbers z,y,x, not all 0; got {direction}.")
    if curves is not None and (electronic or ionic):
        raise InputError("--curves: goes without --electronic and --ionic; give the table or the formulas.")
    given = {"electronic": electronic or ELECTRONIC, "ionic": ionic or IONIC}
    table = None if curves is None else read_curves(curves)
    require_writable(Path(out))
    with Run(path) as run:
        found = find_particle(run, particle)
        window, pad = found.window(run.volumes["particles"].shape, sweep.MARGIN)
        labels, phases = (np.pad(run.volumes[name][window], pad) for name in ("particles", "phases"))
        mine = labels == found.label
        contact = None
        if measured:
            least = {name: run.record.get(name, 0.0) for name in ("min_contact_um2", "min_piece_um3")}
            contact = diffusion.contact_sources(labels, phases, spacing=run.voxel_size, **least)
        try:
            sweeps = [
                sweep.detachment_sweep(
                    mine,
                    mine & is_active(phases),
                    contact,
                    order=order,
                    spacing=run.voxel_size,
                    steps=steps,
                    seed=seed,
                    direction=np.asarray(direction),
                )
                for order in sweep.ORDERS
            ]
        except ValueError:
            raise InputError(
                f"--particle: {found.label} has no contact to lose; leave --measured out, or choose another one."
            ) from None
    values: dict[str, list[npt.NDArray[np.float64]]] = {"electronic": [], "ionic": []}
    for one in sweeps:
        ratio = np.where(np.isfinite(one.mean_um), one.mean_um / one.mean_um[0], np.inf)
        for name, held in values.items():
            held.append(
                evaluate(given[name], {"d": one.detachment, "r": ratio}, f"--{name}")
                if table is None
                else np.interp(one.detachment, table["detachment"], table[name])
            )
    own = (float(found.row["detachment_fraction"]), float(found.row["diffusion_length_mean_um"]))
    named = given if table is None else dict.fromkeys(given, "as given")
    with plain_style():
        drawing = sweep_drawing(sweeps, values, named, label=found.label, own=own, measured_start=measured)
        return written(drawing, Path(out))


def read_curves(path: str | Path) -> pd.DataFrame:
    """A table of curves: columns detachment (rising, from 0 to 1), electronic, ionic."""
    import pandas as pd

    table = read_csv(path, "--curves")
    wanted = ["detachment", "electronic", "ionic"]
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        raise InputError(
            f"--curves: {path} must have the columns {', '.join(wanted)}; got {', '.join(map(str, table.columns))}. "
            f"Name them in its first line."
        )
    values = pd.DataFrame({name: pd.to_numeric(table[name], errors="coerce") for name in wanted})
    at = values["detachment"].to_numpy()
    if values.isna().any(axis=None) or len(values) < 2 or (np.diff(at) <= 0).any() or at[0] < 0 or at[-1] > 1:
        raise InputError(
            f"--curves: {path} must hold numbers in two rows or more, with detachment rising, between 0 and 1; "
            f"got {_fault(values)}. Sort the rows by detachment, and leave no cell empty."
        )
    return values


def _fault(curves: pd.DataFrame) -> str:
    """What is wrong with the first of the rows that are."""
    if len(curves) < 2:
        return f"{len(curves)} row{'s' * (len(curves) != 1)}"
    empty = curves.isna()
    if empty.any(axis=None):
        row = int(np.argmax(empty.any(axis=1)))
        return f"no number for {curves.columns[int(np.argmax(empty.iloc[row]))]} in row {row + 1}"
    at = curves["detachment"].to_numpy()
    row = int(np.argmax((at < 0) | (at > 1) | (np.diff(at, prepend=-np.inf) <= 0)))
    return f"a detachment of {at[row]:g} in row {row + 1}"


def written(drawing: Drawing, out: Path) -> list[Path]:
    """Save a figure in the folder `out`; its files. A folder that cannot be written is bad input."""
    with told(out):
        save(out, drawing)
    return [out / f"{drawing.name}.{kind}" for kind in ("png", "svg", "csv")]
