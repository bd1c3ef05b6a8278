"""HDF5: NeXus, Data Exchange, or any file with one three-dimensional dataset."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np

from cbdetach.errors import InputError
from cbdetach.volume.stored import Stored, one_line
from cbdetach.volume.units import VoxelSize, voxel_size_um


def open_hdf5(path: Path, dataset: str) -> Stored:
    """A dataset of an HDF5 file, through the filters that beamlines compress with."""
    import h5py
    import hdf5plugin  # noqa: F401  (registers the filters that beamlines compress with)

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"volume: must be a whole HDF5 file; got {path} ({one_line(error)}).") from error
    try:
        data = _find_dataset(file, path, dataset)
        voxel_size = _nexus_voxel_size(data)
    except BaseException:
        file.close()
        raise
    return Stored(data.shape, data.dtype, data.__getitem__, voxel_size, file.close, dataset=str(data.name))


def _find_dataset(file: Any, path: Path, name: str) -> Any:
    """The named dataset, or NeXus's default in the named group; without a name NeXus's, then Data Exchange's, then the
    only three-dimensional one.
    """
    import h5py

    named = file.get(name) if name else file
    chosen = _nexus_default(named) if isinstance(named, h5py.Group) else named
    for candidate in [chosen] if name else [chosen, file.get("exchange/data")]:
        if isinstance(candidate, h5py.Dataset) and (name or candidate.ndim >= 3):
            return candidate
    volumes: dict[str, tuple[int, ...]] = {}

    def note(where: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "biuf" and sum(n > 1 for n in item.shape or ()) == 3:
            volumes["/" + where] = item.shape

    file.visititems(note)
    if len(volumes) == 1 and not name:
        return file[next(iter(volumes))]
    listed = ", ".join(f"{where} {shape}" for where, shape in itertools.islice(volumes.items(), 20))
    raise InputError(
        f"volume: must name one dataset of {path}, as {path.name}:/path; got {repr(name) if name else 'no path'}. "
        f"Three-dimensional datasets there: {listed or 'none'}."
    )


def _nexus_default(group: Any) -> Any:
    """Follow @default from a group to an NXdata group, and its @signal to the dataset; None where the chain breaks."""
    import h5py

    for _ in range(8):
        following = group.get(_text(group.attrs.get("default", ""))) if "default" in group.attrs else None
        if not isinstance(following, h5py.Group):
            break
        group = following
    if "signal" in group.attrs:
        return group.get(_text(group.attrs["signal"]))
    return None


def _nexus_voxel_size(data: Any) -> VoxelSize | None:
    """From the regular axes of the NXdata group (`@axes`, or datasets z, y, x), else from its pixel sizes, by `@units`.

    Also `element_size_um`, which ilastik and Fiji's HDF5 plugin write on the dataset.
    """
    if "element_size_um" in data.attrs:
        sizes = np.ravel(data.attrs["element_size_um"]).tolist()
        return voxel_size_um(sizes, ["um"] * len(sizes)) if len(sizes) == 3 else None
    group, spatial = data.parent, [n for n in range(data.ndim) if data.shape[n] > 1 or data.ndim == 3]
    if len(spatial) != 3:
        return None
    names = [_text(name) for name in np.ravel(group.attrs["axes"])] if "axes" in group.attrs else []
    names = [names[n] for n in spatial] if len(names) == data.ndim else ["z", "y", "x"]
    steps = [_axis_step(group.get(name), data.shape[n]) for name, n in zip(names, spatial, strict=True)]
    from_axes = voxel_size_um([step for step, _ in steps], [unit for _, unit in steps])
    pixel = [group.get(f"{axis}_pixel_size", group.get("pixel_size", group.get("voxel_size"))) for axis in "zyx"]
    if from_axes is None and all(item is not None and item.size == 1 for item in pixel):
        return voxel_size_um([item[()] for item in pixel], [item.attrs.get("units", "") for item in pixel])
    return from_axes


def _axis_step(axis: Any, n: int) -> tuple[float, Any]:
    """Step and unit of a coordinate axis; NaN unless it is regular and as long as the data."""
    if axis is None or getattr(axis, "shape", None) != (n,) or n < 2 or axis.dtype.kind not in "iuf":
        return math.nan, ""
    positions = np.asarray(axis[()], dtype=np.float64)
    step = abs(float(positions[-1] - positions[0])) / (n - 1)
    regular = np.allclose(np.abs(np.diff(positions)), step, rtol=1e-3, atol=0)
    return (step if regular else math.nan), axis.attrs.get("units", "")


def _text(value: Any) -> str:
    value = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
