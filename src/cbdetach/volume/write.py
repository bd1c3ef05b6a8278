"""Label images as TIFF stacks that Fiji opens with their scale."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach.files import whole_file
from cbdetach.volume.units import VoxelSize, parse_voxel_size

Array = npt.NDArray[Any]

BIGTIFF_BYTES = 4 * 10**9
"""Above this many bytes `write_label_tiff` writes BigTIFF: the offsets of classic TIFF have 32 bits."""


def label_dtype(maximum: int) -> np.dtype[Any]:
    """The type in which labels up to `maximum` are exported: uint16 if they fit, else uint32."""
    return np.dtype(np.uint16 if maximum < 2**16 else np.uint32)


def write_label_tiff(
    path: str | os.PathLike[str],
    slabs: Iterable[Array],
    shape: tuple[int, int, int],
    dtype: npt.DTypeLike,
    voxel_size: VoxelSize,
) -> None:
    """Write a label image slab by slab as a TIFF stack that Fiji opens with its scale.

    Up to 4 GB it is an ImageJ stack (uncompressed and contiguous, resolution, spacing, unit um), beyond that a BigTIFF
    with OME-XML, which Fiji opens through Bio-Formats. uint8 and uint16 open as they are; uint32 opens as 32-bit grey
    values, which are exact up to 16 777 216. Other types are refused: Fiji does not open them.

    Parameters:
        path: the file; it appears under this name only when it is whole.
        slabs: arrays (n, Y, X) in order along z, whose values fit `dtype`.
        shape: (Z, Y, X) of the whole.
        dtype: uint8, uint16 or uint32 (see `label_dtype`).
        voxel_size: (dz, dy, dx) in micrometres.
    """
    import tifffile

    target, kept = Path(path), np.dtype(dtype)
    if kept not in (np.uint8, np.uint16, np.uint32):
        raise ValueError(f"dtype: must be uint8, uint16 or uint32; got {kept}. Fiji opens no other label type.")
    dz, dy, dx = parse_voxel_size(voxel_size)
    big = math.prod(shape) * kept.itemsize > BIGTIFF_BYTES
    scale: dict[str, Any]
    if big:
        sizes = {"PhysicalSizeZ": dz, "PhysicalSizeY": dy, "PhysicalSizeX": dx}
        units = {f"{size}Unit": "µm" for size in sizes}
        scale = {"metadata": {"axes": "ZYX", **sizes, **units}}
    else:
        # tifffile's own ImageJ writer refuses uint32, which ImageJ reads: hence the description in our words.
        lines = ["ImageJ=1.53t", f"images={shape[0]}", f"slices={shape[0]}", "unit=um", f"spacing={dz!r}", "loop=false"]
        scale = {"description": "\n".join(lines) + "\n", "metadata": None, "software": "cbdetach"}
    with whole_file(target) as temporary, tifffile.TiffWriter(temporary, bigtiff=big, ome=big) as tiff:
        tiff.write(
            _planes(slabs, shape, kept),
            shape=shape,
            dtype=kept,
            photometric="minisblack",
            resolution=(1 / dx, 1 / dy),
            resolutionunit="NONE",
            **scale,
        )


def _planes(slabs: Iterable[Array], shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Iterator[Array]:
    """The slices of all slabs, checked and converted."""
    count, limit = 0, np.iinfo(dtype).max
    for slab in slabs:
        if slab.ndim != 3 or slab.shape[1:] != shape[1:] or count + len(slab) > shape[0]:
            raise ValueError(f"slabs: must make up a volume {shape}; got a slab {slab.shape} at slice {count}.")
        if slab.size and (slab.min() < 0 or slab.max() > limit):
            raise ValueError(f"slabs: must hold values of 0 to {limit} for {dtype}; got {slab.min()} to {slab.max()}.")
        count += len(slab)
        yield from slab.astype(dtype)
    if count != shape[0]:
        raise ValueError(f"slabs: must make up a volume {shape}; got {count} slices.")
