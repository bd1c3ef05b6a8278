"""One particle of a finished run beside its map from spectro-microscopy: projected, registered, correlated, drawn."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach import correlative, density
from cbdetach.errors import InputError
from cbdetach.files import write_json
from cbdetach.particle import find_particle, written
from cbdetach.report import plain_style
from cbdetach.report.correlative import correlative_drawing
from cbdetach.results import Run
from cbdetach.volume import open_volume, read_map

Array = npt.NDArray[Any]

THINNEST = (2, 4)
"""Voxels that a ray must have passed to count in the registration, which needs the rim, and in the correlation."""

LEAST_PIXELS = 9
"""Of the map, and of each projection."""


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
    _check(direction, rotation_deg, scale, erosion_um, min_thickness_um)
    image, pixel = _read_map(map, pixel_um, map_range)
    with Run(path) as run:
        found = find_particle(run, particle)
        window, _ = found.window(run.volumes["particles"].shape, 1)
        mine = run.volumes["particles"][window] == found.label
        grey, name = _density(run, window)
        depth = _erosion(run) if erosion_um is None else erosion_um
        size = run.voxel_size
    view: dict[str, Any] = {"direction": np.asarray(direction), "spacing": size}
    thin, thinnest = (n * min(size) if min_thickness_um is None else min_thickness_um for n in THINNEST)
    seen = correlative.project(mine, grey, min_thickness_um=thin, **view)
    core = correlative.project(mine, grey, min_thickness_um=thinnest, erosion_um=depth, **view)
    for option, picture, given in (("--min-thickness", seen, thin), ("--erosion", core, depth)):
        if np.isfinite(picture.density).sum() < LEAST_PIXELS:
            raise InputError(
                f"{option}: leaves fewer than {LEAST_PIXELS} pixels of particle {found.label}; got {given:g} um."
            )
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
    moved, thickness, outline = (
        correlative.resample(
            picture, seen.pixel_um, image.shape, pixel, (where.rotation_deg, where.scale, *where.shift_um)
        )
        for picture in (core.density, seen.thickness_um, np.where(seen.outline, 1.0, np.nan))
    )
    try:
        result = correlative.correlate(moved, image, seed=seed)
    except ValueError as error:
        raise InputError(f"--map: {error} Check --direction, --pixel-size, --scale and --erosion.") from None
    with plain_style():
        drawing = correlative_drawing(
            *(core, image, pixel, moved, thickness, np.isfinite(outline), where, result),
            label=found.label,
            density_name=name,
            map_name=map_name,
        )
        written(drawing, Path(out))
    record = {
        "particle": found.label,
        "direction": direction,
        "min_thickness_um": thinnest,
        "erosion_um": depth,
        "map_pixel_um": pixel,
        "registration": asdict(where),
        "correlation": asdict(result),
    }
    write_json(Path(out) / "correlate.json", record)
    return where, result


def _check(
    direction: tuple[float, float, float],
    rotation_deg: tuple[float, float],
    scale: tuple[float, float],
    erosion_um: float | None,
    min_thickness_um: float | None,
) -> None:
    """InputError for an option that is out of range whatever the run and the map are."""
    if not np.isfinite(direction).all() or not np.any(direction):
        raise InputError(f"--direction: must be three finite numbers z,y,x, not all 0; got {direction}.")
    for name, (low, high) in (("--rotation", rotation_deg), ("--scale", scale)):
        above = "" if name == "--rotation" else ", both above 0"
        if not (np.isfinite([low, high]).all() and low <= high and (name == "--rotation" or low > 0)):
            raise InputError(f"{name}: must be LOW,HIGH with LOW not above HIGH{above}; got {low:g},{high:g}.")
    for name, length in (("--erosion", erosion_um), ("--min-thickness", min_thickness_um)):
        if length is not None and not 0 <= length < np.inf:
            raise InputError(f"{name}: must be 0 or more, in micrometres; got {length:g}.")


def _read_map(
    source: str | Path | Array, pixel_um: float | None, values: tuple[float, float] | None
) -> tuple[Array, float]:
    """The map, nan beside the particle, and its pixel size in micrometres."""
    image, pixel = read_map(source, pixel_um)
    known = np.isfinite(image) & (image != 0)
    if values is not None:
        known &= (image >= values[0]) & (image <= values[1])
    if known.sum() < LEAST_PIXELS:
        raise InputError(
            f"--map: must hold at least {LEAST_PIXELS} pixels of the particle; got fewer. See --map-range."
        )
    return np.where(known, image, np.nan), pixel


def _erosion(run: Run) -> float:
    """How deep below the surface the run's densities were measured, micrometres."""
    wanted = run.settings.density.erosion_um
    if wanted is not None:
        return wanted
    return density.default_erosion_um(run.voxel_size, run.record["edge_width_um"] or 0.0)


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
