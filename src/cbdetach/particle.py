"""One particle of a finished run, looked at closely: its streamlines, and what happens while it loses contact.

Each function reads the particle's box from the run's folder, calls a stage on plain arrays, and writes one figure with
its table.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import voxkernels as vk
from cbdetach import correlative, density, diffusion, sweep
from cbdetach.detachment import is_active
from cbdetach.errors import InputError
from cbdetach.formula import evaluate
from cbdetach.report import plain_style
from cbdetach.report.correlative import correlative_drawing
from cbdetach.report.drawing import Drawing, save
from cbdetach.report.streamlines import streamlines as draw_streamlines
from cbdetach.report.sweep import sweep_drawing
from cbdetach.results import Run
from cbdetach.store import RunFolder, to_json, unpack, whole_file
from cbdetach.volume import open_volume, read_map

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]

ELECTRONIC, IONIC = "1 / r", "d"
"""Accessibilities where none are given: how much shorter the ways were at the start; the free share of the surface."""

THINNEST = (2, 4)
"""Voxels that a ray must have passed to count in the registration, which needs the rim, and in the correlation."""


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
    with Run(path) as run:
        found = find_particle(run, particle)
        labels, phases, lengths = (run.volumes[name] for name in ("particles", "phases", "diffusion_length"))
        with plain_style():
            drawing = draw_streamlines(labels, phases, lengths, found.label, found.box, run.voxel_size, seed=seed)
            if isinstance(drawing, str):
                raise InputError(f"--particle: {drawing[0].lower()}{drawing[1:]} Choose another one.")
            return _written(drawing, Path(out))


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
    with Run(path) as run:
        found = find_particle(run, particle)
        window, pad = found.window(run.volumes["particles"].shape, sweep.MARGIN)
        labels, phases = (np.pad(run.volumes[name][window], pad) for name in ("particles", "phases"))
        mine = labels == found.label
        contact = None
        if measured:
            contact = diffusion.contact_sources(
                labels, phases, spacing=run.voxel_size, min_contact_um2=run.record["min_contact_um2"]
            )
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
        return _written(drawing, Path(out))


def correlate(
    path: str | Path,
    map: str | Path | Array,
    out: str | Path,
    *,
    particle: int | None = None,
    pixel_um: float | None = None,
    map_range: tuple[float, float] | None = None,
    map_name: str = "map",
    direction: tuple[float, float, float] = (1.0, 0.0, 0.0),
    min_thickness_um: float | None = None,
    erosion_um: float | None = None,
    rotation_deg: tuple[float, float] = (-180.0, 180.0),
    scale: tuple[float, float] = (0.9, 1.1),
    negative: bool = False,
    seed: int = 0,
) -> tuple[correlative.Registration, correlative.Correlation]:
    """Register one particle's projected density to a map of it, correlate the two, and draw them.

    Parameters
    ----------
    path, out : the run's folder, and the folder for `correlate.png`, `.svg`, `.csv` (the common pixels) and `.json`.
    map : TIFF, HDF5 (`file.h5:/dataset`) or .npy with one image, or an array; nan, infinite or 0 beside the particle.
    pixel_um : its pixel size; None: as the file says. map_range : only values in it are the particle.
    direction : (z, y, x), of the view. min_thickness_um : of a ray that counts; None: `THINNEST`.
    erosion_um : how deep below its surface the particle is correlated, out of the blur; None: as for the run's
        densities. The registration uses the whole particle.
    rotation_deg, scale, negative : what the registration looks for; negative: high density goes with low values.
    seed : of the bootstrap.

    Raises
    ------
    InputError
        An argument does not fit, the run's grey volume is not there, or projection and map have too little in common.
    """
    if not np.isfinite(direction).all() or not np.any(direction):
        raise InputError(f"--direction: must be three finite numbers z,y,x, not all 0; got {direction}.")
    for name, (low, high) in (("--rotation", rotation_deg), ("--scale", scale)):
        if not (np.isfinite([low, high]).all() and low <= high and (name == "--rotation" or low > 0)):
            raise InputError(f"{name}: must be LOW,HIGH with LOW not above HIGH; got {low:g},{high:g}.")
    if erosion_um is not None and not 0 <= erosion_um < np.inf:
        raise InputError(f"--erosion: must be 0 or more, in micrometres; got {erosion_um:g}.")
    image, pixel = read_map(map, pixel_um)
    known = np.isfinite(image) & (image != 0)
    if map_range is not None:
        known &= (image >= map_range[0]) & (image <= map_range[1])
    if known.sum() < 9:
        raise InputError("--map: must hold at least 9 pixels of the particle; got fewer. See --map-range.")
    image = np.where(known, image, np.nan)
    with Run(path) as run:
        found = find_particle(run, particle)
        window, _ = found.window(run.volumes["particles"].shape, 1)
        mine = run.volumes["particles"][window] == found.label
        grey, name = _density(run, window)
        size = run.voxel_size
        depth = erosion_um
        if depth is None:
            depth = run.settings.density.erosion_um
        if depth is None:
            depth = density.default_erosion_um(size, run.record["edge_width_um"] or 0.0)
    view: dict[str, Any] = {"direction": np.asarray(direction), "spacing": size}
    thin, thinnest = (n * min(size) if min_thickness_um is None else min_thickness_um for n in THINNEST)
    seen = correlative.project(mine, grey, min_thickness_um=thin, **view)
    core = correlative.project(mine, grey, min_thickness_um=thinnest, erosion_um=depth, **view)
    for option, picture, given in (("--min-thickness", seen, thin), ("--erosion", core, depth)):
        if np.isfinite(picture.density).sum() < 9:
            raise InputError(f"{option}: leaves fewer than 9 pixels of particle {found.label}; got {given:g} um.")
    where = correlative.register(
        seen.density,
        seen.pixel_um,
        image,
        pixel,
        outline=seen.outline,
        rotation_deg=rotation_deg,
        scale=scale,
        sign=-1 if negative else 1,
    )
    place = (where.rotation_deg, where.scale, *where.shift_um)
    moved, thickness, outline = (
        correlative.resample(picture, seen.pixel_um, image.shape, pixel, place)
        for picture in (core.density, seen.thickness_um, np.where(seen.outline, 1.0, np.nan))
    )
    try:
        result = correlative.correlate(moved, image, seed=seed)
    except ValueError as error:
        raise InputError(f"--map: {error} Check --direction, --pixel-size, --scale and --erosion.") from None
    with plain_style():
        drawing = correlative_drawing(
            core,
            image,
            pixel,
            moved,
            thickness,
            np.isfinite(outline),
            where,
            result,
            label=found.label,
            density_name=name,
            map_name=map_name,
        )
        _written(drawing, Path(out))
    record = {
        "particle": found.label,
        "direction": direction,
        "min_thickness_um": thinnest,
        "erosion_um": depth,
        "map_pixel_um": pixel,
        "registration": asdict(where),
        "correlation": asdict(result),
    }
    with whole_file(Path(out) / "correlate.json") as temporary:
        temporary.write_text(to_json(record), encoding="utf-8")
    return where, result


def _density(run: Run, window: tuple[slice, slice, slice]) -> tuple[Array, str]:
    """Grey values of a window, or electrons per cubic angstrom where the run was calibrated; and what they are."""
    wanted = run.settings.input
    if wanted.volume is None or wanted.volume == "array":
        raise InputError(f"{run.path}: this run has no grey volume on the disk; measure one, then correlate.")
    with open_volume(wanted.volume, crop=wanted.crop, bin=wanted.bin) as volume:
        grey = np.asarray(volume[window], dtype=np.float64)
    calibration = run.settings.density.calibration
    if calibration is None:
        return grey, "mean grey value"
    void, aluminium = calibration
    return (grey - void) * density.ALUMINIUM / (aluminium - void), "electron density (1/Å³)"


def read_curves(path: str | Path) -> pd.DataFrame:
    """A table of curves: columns detachment (rising, from 0 to 1), electronic, ionic."""
    import pandas as pd

    try:
        table: pd.DataFrame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"--curves: {path} cannot be read as CSV ({error}).") from None
    wanted = ["detachment", "electronic", "ionic"]
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        raise InputError(f"--curves: must have the columns {', '.join(wanted)}; {path} has no {missing[0]}.")
    values = pd.DataFrame({name: pd.to_numeric(table[name], errors="coerce") for name in wanted})
    at = values["detachment"].to_numpy()
    if values.isna().any(axis=None) or len(values) < 2 or (np.diff(at) <= 0).any() or at[0] < 0 or at[-1] > 1:
        raise InputError(f"--curves: must hold numbers, with detachment rising from 0 to 1; {path} does not.")
    return values


def _written(drawing: Drawing, out: Path) -> list[Path]:
    try:
        save(out, drawing)
    except OSError as error:
        raise InputError(f"-o/--out: {out} cannot be written ({error.strerror or error}); choose another.") from None
    return [out / f"{drawing.name}.{kind}" for kind in ("png", "svg", "csv")]
