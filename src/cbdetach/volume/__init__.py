"""Volumes: open any common format lazily, with its voxel size; write label images that Fiji opens with their scale.

`open_volume` finds out what lies at a path by its content, not by its suffix, and returns a `Volume`: a shape, a dtype,
a voxel size in micrometres (or None where the file does not say), and slicing that reads from disk only what is asked
for. Cropping and binning are `views`: they are applied to each slab as it is read. Every opener (`tiff`, `hdf5`,
`ome_zarr`, chosen in `formats`) returns a `Stored`, which is all that the rest of the package knows about a format.

Axes are (z, y, x) throughout. Axes of length 1 that are neither (channel, time) are dropped.
"""

from __future__ import annotations

import math
import os
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from cbdetach.errors import InputError, called
from cbdetach.volume.formats import open_path, split_dataset
from cbdetach.volume.parse import Box, parse_crop, parse_direction, parse_range
from cbdetach.volume.stored import Stored, as_zyx, one_line
from cbdetach.volume.units import UNIT_UM, VoxelSize, parse_voxel_size
from cbdetach.volume.views import bin_grey, bin_labels, check_bin, resolve_crop, window_of
from cbdetach.volume.write import label_dtype, write_label_tiff

__all__ = [
    "UNIT_UM",
    "Volume",
    "VoxelSize",
    "check_finite",
    "label_dtype",
    "open_volume",
    "parse_crop",
    "parse_direction",
    "parse_range",
    "parse_voxel_size",
    "read_map",
    "require_voxel_size",
    "write_label_tiff",
]


Array = npt.NDArray[Any]

Kind = Literal["grey", "labels"]


class Volume:
    """A three-dimensional image on disk or in memory, read on demand.

    Attributes:
        shape: (Z, Y, X) after crop and bin.
        dtype: of what slicing returns; native byte order; bool is stored as uint8.
        voxel_size: (dz, dy, dx) in micrometres after bin, or None where it is not known.
        path: the file or folder, or None for an array in memory.
        dataset: the path inside the file, "" where there is none.
        name: a short name for people.

    `v[z0:z1]`, `v[z0:z1, y0:y1, x0:x1]` and single indices return arrays; what comes from an array in memory or from a
    mapped file may be a view of it: do not write to it. Steps are not supported. Threads that read at once take turns.
    """

    def __init__(
        self, stored: Stored, box: Box, bin: int, kind: Kind, voxel_size: VoxelSize | None, path: Path | None
    ) -> None:
        self._stored, self._box, self._bin, self._kind = stored, box, bin, kind
        self.shape: tuple[int, int, int] = tuple((s.stop - s.start) // bin for s in box)
        self.dtype: np.dtype[Any] = stored.dtype
        self.voxel_size = voxel_size and (voxel_size[0] * bin, voxel_size[1] * bin, voxel_size[2] * bin)
        self.path = path
        self.dataset = stored.dataset
        self.name = path.stem if path else "array"
        self._turn = threading.Lock()  # files have one position

    def __getitem__(self, key: Any) -> Array:
        window, dropped = window_of(key, self.shape)
        stored = tuple(
            slice(b.start + w.start * self._bin, b.start + w.stop * self._bin)
            for b, w in zip(self._box, window, strict=True)
        )
        try:
            with self._turn:
                block = self._stored.read((stored[0], stored[1], stored[2]))
        except (OSError, ValueError, RuntimeError, zlib.error) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"volume: slices {stored[0].start}:{stored[0].stop} of {self} could not be read ({one_line(error)}); "
                "the file may be damaged or still being written."
            ) from error
        block = np.asarray(block)
        block = block.view(np.uint8) if block.dtype == np.bool_ else block.astype(self.dtype, copy=False)
        if self._bin > 1:
            block = bin_grey(block, self._bin) if self._kind == "grey" else bin_labels(block, self._bin)
        whole: Array = block[tuple(0 if drop else slice(None) for drop in dropped)]
        return whole

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """The whole volume in memory: `numpy.asarray(volume)`."""
        return np.array(self[:], dtype=dtype, copy=copy)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return 3

    @property
    def nbytes(self) -> int:
        """Size of the whole volume in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def close(self) -> None:
        """Close the file; reading afterwards is an error."""
        self._stored.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __str__(self) -> str:
        return f"{self.path or 'the array'}{':' + self.dataset if self.dataset else ''}"

    def __repr__(self) -> str:
        return f"<Volume {self} {self.shape} {self.dtype} voxel_size={self.voxel_size}>"


def open_volume(
    source: str | os.PathLike[str] | Array | Volume,
    *,
    voxel_size: float | str | Sequence[float] | None = None,
    crop: str | Sequence[slice] | None = None,
    bin: int = 1,
    kind: Kind = "grey",
    allow_2d: bool = False,
) -> Volume:
    """Open a volume lazily.

    Parameters:
        source: a TIFF stack (ImageJ, OME, BigTIFF, plain multi-page), a folder of TIFF slices (in natural order of
            their names), an HDF5 file (`file.h5:/path`; without a path the NeXus default, then `/exchange/data`, then
            the only three-dimensional dataset), an OME-Zarr image (0.4, 0.5; its highest resolution;
            `store.zarr:/labels/name`), a Zarr array, a `.npy` file, or an array.
        voxel_size: micrometres, one number or (dz, dy, dx) of the *stored* voxels; wins over the file's metadata.
        crop: `z0:z1,y0:y1,x0:x1` or three slices, in stored voxels; empty and negative ends as in Python.
        bin: edge of the blocks of voxels that become one, after the crop; incomplete blocks at the ends are dropped.
        kind: "grey" takes a block's mean (integers rounded, halves to even), "labels" its most frequent value (the
            smallest of those that are equally frequent).
        allow_2d: take a single slice for a volume of one slice.

    Raises:
        InputError: what is there cannot be read as one three-dimensional image, or an argument does not fit it.
    """
    given = None if voxel_size is None else parse_voxel_size(voxel_size)
    if kind not in ("grey", "labels"):
        raise InputError(f"kind: must be 'grey' or 'labels'; got {kind!r}.")
    path: Path | None = None
    if isinstance(source, Volume):
        stored = Stored(source.shape, source.dtype, source.__getitem__, source.voxel_size, dataset=source.dataset)
        path = source.path
    elif isinstance(source, str | os.PathLike):
        path, dataset = split_dataset(os.fspath(source))
        stored = open_path(path, dataset)
    elif isinstance(source, np.ndarray):
        stored = Stored(source.shape, source.dtype, source.__getitem__)
    else:
        raise InputError(f"volume: must be a path or a NumPy array; got {type(source).__name__}.")
    try:
        stored = as_zyx(stored, str(source) if path else "the array", allow_2d)
        box = resolve_crop(crop, stored.shape)
        check_bin(bin, box)
    except InputError:
        stored.close()
        raise
    return Volume(stored, box, bin, kind, given or stored.voxel_size, path)


def read_map(source: str | os.PathLike[str] | Array, pixel_um: float | None = None) -> tuple[Array, float]:
    """A two-dimensional map and its pixel size in micrometres, from anything that `open_volume` reads.

    pixel_um : wins over the file's metadata.

    Raises:
        InputError: what is there cannot be read as one image with square pixels of a known size.
    """
    if pixel_um is not None and not (math.isfinite(pixel_um) and pixel_um > 0):
        raise InputError(f"--pixel-size: must be a positive number, in micrometres; got {pixel_um:g}.")
    with called("--map"), open_volume(source, voxel_size=pixel_um, allow_2d=True) as volume:
        if volume.shape[0] != 1:
            raise InputError(f"--map: must be one image; {volume} has {volume.shape[0]} slices. Give one of them.")
        size = volume.voxel_size
        image = np.asarray(volume[0:1])[0].astype(np.float64)
    if size is None:
        raise InputError(f"--pixel-size: {volume} does not state one; give it in micrometres.")
    if abs(size[1] - size[2]) > 1e-6 * size[1]:
        raise InputError(f"--map: must have square pixels; got {size[1]:g} x {size[2]:g} um. Resample it first.")
    return image, size[2]


def require_voxel_size(volume: Volume) -> VoxelSize:
    """The voxel size, or an `InputError` that says how to give it."""
    if volume.voxel_size is None:
        raise InputError(
            f"--voxel-size: {volume} does not state one for all three axes; give it in micrometres, N or Z,Y,X."
        )
    return volume.voxel_size


def check_finite(slab: Array, z0: int = 0) -> None:
    """Raise `InputError` naming the first voxel that is NaN or infinite; `z0` is the slab's first slice."""
    if slab.dtype.kind != "f":
        return
    for z, plane in enumerate(slab):
        finite = np.isfinite(plane)
        if not finite.all():
            y, x = (int(i) for i in np.unravel_index(int(np.argmin(finite)), plane.shape))
            raise InputError(
                f"volume: must hold finite values only; got {plane[y, x]} at voxel (z, y, x) = ({z0 + z}, {y}, {x}). "
                "Replace them first."
            )
