"""Zarr: an array, or an OME-Zarr image (0.4, 0.5)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cbdetach.errors import InputError
from cbdetach.volume.stored import Stored, one_line
from cbdetach.volume.units import VoxelSize, voxel_size_um


def open_zarr(path: Path, dataset: str) -> Stored:
    """A Zarr array, or the highest resolution of an OME-Zarr image (0.4: metadata at the top; 0.5: under `ome`)."""
    import zarr

    try:
        root: Any = zarr.open(str(path), mode="r")
        node = root[dataset.strip("/")] if dataset.strip("/") else root
    except (KeyError, FileNotFoundError, ValueError, TypeError, json.JSONDecodeError) as error:
        what = f"{dataset!r} in {path}" if dataset else f"{path} ({one_line(error)})"
        raise InputError(f"volume: must name a Zarr array or an OME-Zarr image; got {what}.") from error
    found = _zarr_image(node)
    if found is None:
        names = ", ".join(sorted(name for name, _ in _zarr_arrays(node)))[:200]
        raise InputError(
            f"volume: must name one array as {path.name}:/path; got {path}{':' + dataset if dataset else ''}, "
            f"a group without one OME-Zarr image. Arrays there: {names or 'none'}."
        )
    array, voxel_size, axes = found
    return Stored(array.shape, array.dtype, array.__getitem__, voxel_size, dataset=str(array.path), axes=axes)


def _zarr_image(node: Any) -> tuple[Any, VoxelSize | None, str] | None:
    """The array, its voxel size and its axes' letters; None where a group does not say which array is meant."""
    if hasattr(node, "shape"):
        return node, None, ""
    attributes: Mapping[str, Any] = dict(node.attrs)
    attributes = attributes.get("ome", attributes)
    if attributes.get("multiscales"):
        return _ome_zarr_image(node, attributes["multiscales"][0])
    inside = attributes.get("labels", [])
    if "bioformats2raw.layout" in attributes:
        inside = [name for name in ("0",) if name in node]
    if not inside:
        inside = [name for name, array in _zarr_arrays(node) if len(array.shape) >= 3]
    return _zarr_image(node[inside[0]]) if len(inside) == 1 else None


def _zarr_arrays(node: Any) -> list[tuple[str, Any]]:
    return list(node.arrays()) if hasattr(node, "arrays") else []


def _ome_zarr_image(node: Any, image: Mapping[str, Any]) -> tuple[Any, VoxelSize | None, str] | None:
    level = image["datasets"][0]  # the specification orders them from the highest resolution
    array = node[level["path"]]
    axes = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in image.get("axes", [])]
    if len(axes) != len(array.shape):
        return array, None, ""
    scale = np.ones(len(axes))
    for transform in [*level.get("coordinateTransformations", []), *image.get("coordinateTransformations", [])]:
        if transform.get("type") == "scale":
            scale = scale * np.asarray(transform["scale"], dtype=np.float64)
    letters = "".join(str(axis["name"])[:1].upper() for axis in axes)
    known = {letter: (scale[i], axes[i].get("unit", "")) for i, letter in enumerate(letters)}
    sizes = [known.get(letter, (math.nan, "")) for letter in "ZYX"]
    return array, voxel_size_um([size for size, _ in sizes], [unit for _, unit in sizes]), letters
