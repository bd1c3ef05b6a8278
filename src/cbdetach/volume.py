"""Volumes: open any common format lazily, with its voxel size; write label images that Fiji opens with their scale.

`open_volume` finds out what lies at a path by its content, not by its suffix, and returns a `Volume`: a shape, a dtype,
a voxel size in micrometres (or None where the file does not say), and slicing that reads from disk only what is asked
for. Cropping and binning are views: they are applied to each slab as it is read. Every opener below returns a
`_Stored`, which is all that the rest of the module knows about a format.

Axes are (z, y, x) throughout. Axes of length 1 that are neither (channel, time) are dropped.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import operator
import os
import re
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from cbdetach.errors import InputError

Array = npt.NDArray[Any]
VoxelSize = tuple[float, float, float]
Box = tuple[slice, slice, slice]
Kind = Literal["grey", "labels"]

UNIT_UM: dict[str, float] = {
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1e6),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 1e4),
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1e3),
    **dict.fromkeys(("um", "micron", "microns", "micrometer", "micrometers", "micrometre", "micrometres"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres"), 1e-3),
    **dict.fromkeys(("a", "å", "angstrom", "angstroms", "ångström"), 1e-4),
    **dict.fromkeys(("pm", "picometer", "picometers", "picometre", "picometres"), 1e-6),
    **dict.fromkeys(("in", "inch", "inches"), 25400.0),
}
"""Micrometres per unit of length, by the names that files use. Anything else, such as `pixel`, is no length."""

NEW_AXIS = -1

BIGTIFF_BYTES = 4 * 10**9
"""Above this many bytes `write_label_tiff` writes BigTIFF: the offsets of classic TIFF have 32 bits."""


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
        self, stored: _Stored, box: Box, bin: int, kind: Kind, voxel_size: VoxelSize | None, path: Path | None
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
        window, dropped = _window(key, self.shape)
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
                f"volume: slices {stored[0].start}:{stored[0].stop} of {self} could not be read ({_one_line(error)}); "
                "the file may be damaged or still being written."
            ) from error
        block = np.asarray(block)
        block = block.view(np.uint8) if block.dtype == np.bool_ else block.astype(self.dtype, copy=False)
        if self._bin > 1:
            block = _bin_grey(block, self._bin) if self._kind == "grey" else _bin_labels(block, self._bin)
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
        stored = _Stored(source.shape, source.dtype, source.__getitem__, source.voxel_size, dataset=source.dataset)
        path = source.path
    elif isinstance(source, str | os.PathLike):
        path, dataset = _split_dataset(os.fspath(source))
        stored = _open_path(path, dataset)
    elif isinstance(source, np.ndarray):
        stored = _Stored(source.shape, source.dtype, source.__getitem__)
    else:
        raise InputError(f"volume: must be a path or a NumPy array; got {type(source).__name__}.")
    try:
        stored = _as_zyx(stored, str(source) if path else "the array", allow_2d)
        box = _resolve_crop(crop, stored.shape)
        _check_bin(bin, box)
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
    with open_volume(source, voxel_size=pixel_um, allow_2d=True) as volume:
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
            f"voxel size: {volume} does not state one for all three axes; "
            "give it in micrometres with --voxel-size N or --voxel-size Z,Y,X."
        )
    return volume.voxel_size


def parse_voxel_size(value: float | str | Sequence[float]) -> VoxelSize:
    """Read a voxel size in micrometres: one number, or three (z, y, x), also as text `0.4` or `0.5,0.4,0.4`."""
    try:
        parts: list[Any] = value.split(",") if isinstance(value, str) else list(np.atleast_1d(np.asarray(value)))
        numbers = [float(part) for part in parts]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) not in (1, 3) or not all(math.isfinite(n) and n > 0 for n in numbers):
        raise InputError(
            "voxel size: must be one positive number or three (z,y,x), in micrometres; "
            f"got {value!r}. Write for example 0.4 or 0.5,0.4,0.4."
        )
    dz, dy, dx = numbers if len(numbers) == 3 else numbers * 3
    return dz, dy, dx


def parse_direction(text: str) -> tuple[float, float, float]:
    """Read a direction: `z`, `y` or `x`, or three numbers `z,y,x`, finite and not all 0."""
    known = {"z": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "x": (0.0, 0.0, 1.0)}
    if text in known:
        return known[text]
    try:
        z, y, x = (float(part) for part in text.split(","))
    except ValueError:
        z = y = x = 0.0
    if not (math.isfinite(z + y + x) and (z, y, x) != (0, 0, 0)):
        raise InputError(f"--direction: must be z, y, x or three numbers z,y,x, not all 0; got {text!r}.")
    return z, y, x


def parse_range(text: str, option: str) -> tuple[float, float]:
    """Read `LOW,HIGH`: two finite numbers, the first not above the second."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low, high = 1.0, 0.0
    if not (math.isfinite(low + high) and low <= high):
        raise InputError(f"{option}: must be LOW,HIGH, two numbers, LOW not above HIGH; got {text!r}.")
    return low, high


def parse_crop(text: str) -> Box:
    """Read `z0:z1,y0:y1,x0:x1`; an empty end means the volume's end."""
    parts = [re.fullmatch(r"\s*(-?\d*)\s*:\s*(-?\d*)\s*", part) for part in text.split(",")]
    ends = [[int(end) if end else None for end in part.groups()] for part in parts if part and "-" not in part.groups()]
    if len(parts) != 3 or len(ends) != 3:
        raise InputError(
            f"crop: must be z0:z1,y0:y1,x0:x1 in voxels, where any end may be empty; got {text!r}. "
            "Write for example 0:100,:,50:-50."
        )
    return slice(*ends[0]), slice(*ends[1]), slice(*ends[2])


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
                "Crop such voxels away with --crop, or replace them first."
            )


# --- writing --------------------------------------------------------------------------------------


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
    with _renamed_when_whole(target) as temporary, tifffile.TiffWriter(temporary, bigtiff=big, ome=big) as tiff:
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


@contextmanager
def _renamed_when_whole(target: Path) -> Iterator[Path]:
    """A temporary name beside `target`, renamed to it on success and removed on failure."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


# --- one stored image, whatever its format --------------------------------------------------------


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class _Stored:
    """An image in its file: what a format must tell. `read` takes one slice per axis and returns that block."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[Any], Any]
    voxel_size: VoxelSize | None = None
    close: Callable[[], None] = _nothing
    dataset: str = ""
    axes: str = ""  # one letter per axis where the format names them (Z, Y, X, C, T, S ...)


def _as_zyx(stored: _Stored, where: str, allow_2d: bool) -> _Stored:
    """The same image with exactly the axes z, y, x, in a type that the pipeline can use; or an `InputError`."""
    shape, dtype = stored.shape, stored.dtype
    axes = stored.axes or "ZYX"[-len(shape) :].rjust(len(shape), "?")
    # Drop axes of length 1, first those that are not spatial, until three are left.
    kept = list(range(len(shape)))
    for droppable in ("Z", ""):
        for axis in [a for a in kept if shape[a] == 1 and axes[a] not in "YX" + droppable]:
            if len(kept) > 3:
                kept.remove(axis)
    letters = "".join(axes[a] for a in kept)
    if len(kept) == 2 and allow_2d:
        kept.insert(0, NEW_AXIS)
    elif len(kept) != 3 or letters.startswith("YX"):
        hint = "Give the whole stack of slices." if len(kept) == 2 else "Extract one channel or time step first."
        raise InputError(f"volume: must have three axes (z, y, x); got shape {shape} in {where}. {hint}")
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise InputError(f"volume: must hold real numbers of up to 64 bits; got dtype {dtype} in {where}.")
    zyx = tuple(1 if a == NEW_AXIS else shape[a] for a in kept)
    if 0 in zyx:
        raise InputError(f"volume: must hold at least one voxel; got shape {shape} in {where}.")
    native = np.dtype(np.uint8) if dtype == np.bool_ else dtype.newbyteorder("=")
    read_all = stored.read

    def read_zyx(box: Box) -> Any:
        index: list[Any] = [0] * len(shape)
        for axis, part in zip(kept, box, strict=True):
            if axis != NEW_AXIS:
                index[axis] = part
        block = read_all(tuple(index))
        return np.asarray(block)[None][box[0]] if NEW_AXIS in kept else block

    return _Stored(zyx, native, read_zyx, stored.voxel_size, stored.close, stored.dataset)


def _resolve_crop(crop: str | Sequence[slice] | None, shape: tuple[int, ...]) -> Box:
    """The crop as three slices with both ends, inside the shape."""
    parts = [slice(None)] * 3 if crop is None else list(parse_crop(crop) if isinstance(crop, str) else crop)
    if len(parts) != 3 or not all(isinstance(part, slice) and part.step in (None, 1) for part in parts):
        raise InputError(f"crop: must be three slices (z, y, x) without steps; got {crop!r}.")
    box = []
    for axis, part, n in zip("zyx", parts, shape, strict=True):
        start, stop = (
            (end + n if end < 0 else end)
            for end in (0 if part.start is None else part.start, n if part.stop is None else part.stop)
        )
        if not 0 <= start < stop <= n:
            asked = f"{'' if part.start is None else part.start}:{'' if part.stop is None else part.stop}"
            raise InputError(f"crop: must lie inside the volume of shape {shape}; got {axis} = {asked} of 0:{n}.")
        box.append(slice(start, stop))
    return box[0], box[1], box[2]


def _check_bin(bin: int, box: Box) -> None:
    extent = tuple(part.stop - part.start for part in box)
    if isinstance(bin, bool) or not isinstance(bin, int | np.integer) or not 1 <= bin <= min(extent):
        raise InputError(f"bin: must be a whole number from 1 to {min(extent)}, for the shape {extent}; got {bin!r}.")


def _window(key: Any, shape: tuple[int, int, int]) -> tuple[Box, list[bool]]:
    """A NumPy-like key as three slices with both ends, and which axes a single index drops."""
    keys = key if isinstance(key, tuple) else (key,)
    if len(keys) > 3:
        raise IndexError(f"a volume has 3 axes; got {len(keys)} indices")
    window, dropped = [], []
    for part, n in zip(keys + (slice(None),) * (3 - len(keys)), shape, strict=True):
        if isinstance(part, slice):
            start, stop, step = part.indices(n)
            if step != 1:
                raise IndexError("a volume is read without steps; read the block, then take every nth voxel")
            window.append(slice(start, max(start, stop)))
        else:
            index = operator.index(part)
            if not -n <= index < n:
                raise IndexError(f"index {index} is out of range for an axis of {n} voxels")
            window.append(slice(index % n, index % n + 1))
        dropped.append(not isinstance(part, slice))
    return (window[0], window[1], window[2]), dropped


def _bin_grey(block: Array, n: int) -> Array:
    """Means of n^3 blocks, in the block's own type."""
    total = np.zeros(tuple(s // n for s in block.shape), dtype=np.float64)
    for i, j, k in np.ndindex(n, n, n):
        total += block[i::n, j::n, k::n]
    total /= n**3
    return (np.rint(total) if block.dtype.kind in "iu" else total).astype(block.dtype)


def _bin_labels(block: Array, n: int) -> Array:
    """The most frequent value of each n^3 block, the smallest of equals: the longest run in the sorted block."""
    z, y, x = (s // n for s in block.shape)
    out = np.empty((z, y, x), dtype=block.dtype)
    for index in range(z):
        layer = block[index * n : (index + 1) * n].reshape(n, y, n, x, n)
        values = np.sort(layer.transpose(0, 2, 4, 1, 3).reshape(n**3, y, x), axis=0)
        best, longest, run = values[0], np.ones((y, x), dtype=np.int64), np.ones((y, x), dtype=np.int64)
        for previous, current in itertools.pairwise(values):
            run = np.where(current == previous, run + 1, 1)
            best = np.where(run > longest, current, best)
            longest = np.maximum(longest, run)
        out[index] = best
    return out


# --- finding the format ---------------------------------------------------------------------------


def _split_dataset(text: str) -> tuple[Path, str]:
    """Split `file.h5:/path/inside` at the first colon before which a file or folder exists."""
    if not os.path.exists(text):
        for at in (i for i, letter in enumerate(text) if letter == ":"):
            if os.path.exists(text[:at]):
                return Path(text[:at]), text[at + 1 :]
        path = text.partition(":/")[0]
        raise InputError(f"volume: must be an existing file or folder; got {path!r}, which does not exist.")
    return Path(text), ""


def _open_path(path: Path, dataset: str) -> _Stored:
    """Open by what is there: a folder, or the first bytes of a file."""
    if path.is_dir():
        if any((path / name).is_file() for name in ("zarr.json", ".zarray", ".zgroup", ".zattrs")):
            return _open_zarr(path, dataset)
        opener = _open_tiff_folder
    else:
        try:
            with path.open("rb") as file:
                head = file.read(8)
        except OSError as error:
            raise InputError(f"volume: must be a readable file; got {path} ({error.strerror}).") from error
        if not head:
            raise InputError(f"volume: must be an image file; got {path}, which is empty.")
        if _is_hdf5(path):
            return _open_hdf5(path, dataset)
        if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            opener = _open_tiff
        elif head[:6] == b"\x93NUMPY":
            opener = _open_npy
        else:
            raise InputError(
                f"volume: must be TIFF, HDF5, OME-Zarr, Zarr or NumPy .npy; got {path}, which is none of them. "
                "Convert it to TIFF first, for example with Fiji."
            )
    if dataset:
        raise InputError(f"volume: a path after ':' is for HDF5 and Zarr only; got {dataset!r} after {path}.")
    return opener(path)


def _is_hdf5(path: Path) -> bool:
    import h5py

    return bool(h5py.is_hdf5(path))


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Silence a library that logs what it also raises, or what is checked here in other words."""
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


# --- NumPy ----------------------------------------------------------------------------------------


def _open_npy(path: Path) -> _Stored:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise InputError(f"volume: must be a whole .npy file of numbers; got {path} ({_one_line(error)}).") from error
    return _Stored(array.shape, array.dtype, array.__getitem__)


# --- TIFF -----------------------------------------------------------------------------------------


def _open_tiff(path: Path) -> _Stored:
    """The first series of a TIFF file: memory-mapped where it is contiguous and uncompressed, else page by page."""
    import tifffile

    tiff = None
    try:
        with _quiet("tifffile"):
            tiff = tifffile.TiffFile(path)
            return _tiff_series(tiff, path)
    except BaseException as error:
        if tiff is not None:
            tiff.close()
        if isinstance(error, tifffile.TiffFileError | struct.error | OSError):
            raise InputError(f"volume: must be a whole TIFF file; got {path} ({_one_line(error)}).") from error
        raise


def _tiff_series(tiff: Any, path: Path) -> _Stored:
    if not len(tiff.pages) or not _tiff_is_whole(tiff):
        raise InputError(f"volume: must be a whole TIFF file; got {path}, which is cut off. Copy it again.")
    series = tiff.series[0]
    shape, dtype = tuple(series.shape), np.dtype(series.dtype)
    voxel_size = _tiff_voxel_size(tiff)
    if len(tiff.series) > 1 and not tiff.is_ome:
        other = tuple(tiff.series[1].shape)
        raise InputError(f"volume: must have slices of one shape and type; got {shape} and {other} in {path}.")
    if series.dataoffset is not None and series.keyframe.is_memmappable:
        stored_dtype = dtype.newbyteorder(tiff.byteorder)
        if series.dataoffset + math.prod(shape) * dtype.itemsize > tiff.filehandle.size:
            raise InputError(f"volume: must be a whole TIFF file; got {path}, which is cut off. Copy it again.")
        mapped = np.memmap(path, stored_dtype, "r", series.dataoffset, shape)
        tiff.close()
        return _Stored(shape, dtype, mapped.__getitem__, voxel_size, axes=series.axes)

    pages, planes = series.pages, math.prod(shape[:-2])
    if len(pages) != planes and len(shape) > 2:
        raise InputError(f"volume: must have one page per slice; got {len(pages)} pages for shape {shape} in {path}.")

    def read(index: tuple[Any, ...]) -> Array:
        chosen = np.arange(planes).reshape(shape[:-2])[index[:-2]]
        blocks = [_tiff_page(pages[int(p)], path)[index[-2:]] for p in chosen.ravel()]
        empty = np.empty((0, *(part.stop - part.start for part in index[-2:])), dtype)
        return (np.stack(blocks) if blocks else empty).reshape(*chosen.shape, *empty.shape[1:])

    return _Stored(shape, dtype, read, voxel_size, tiff.close, axes=series.axes)


def _tiff_page(page: Any, path: Path) -> Array:
    if page is None:
        raise InputError(f"volume: a slice of {path} lies in another file, which is missing. Put all files together.")
    try:
        return np.asarray(page.asarray())
    except (ValueError, RuntimeError, OSError, zlib.error) as error:
        hint = " Install it with pip install imagecodecs." if "imagecodecs" in str(error) else ""
        raise InputError(f"volume: page {page.index} of {path} is unreadable ({_one_line(error)}).{hint}") from error


def _tiff_is_whole(tiff: Any) -> bool:
    """Whether the chain of pages ends where it should, and the last page's data lie inside the file."""
    handle, size = tiff.filehandle, tiff.filehandle.size
    last = tiff.pages[len(tiff.pages) - 1]
    if any(offset + count > size for offset, count in zip(last.dataoffsets, last.databytecounts, strict=False)):
        return False
    handle.seek(tiff.pages.next_page_offset)
    following = handle.read(tiff.tiff.offsetsize)
    return len(following) == tiff.tiff.offsetsize and not any(following)


def _tiff_voxel_size(tiff: Any) -> VoxelSize | None:
    """From OME-XML, or from ImageJ's description and resolution tags; plain TIFF knows no z and is not trusted."""
    if tiff.ome_metadata:
        return _ome_xml_voxel_size(tiff.ome_metadata)
    if not tiff.is_imagej:
        return None
    notes, tags = tiff.imagej_metadata or {}, tiff.pages[0].tags
    per_pixel = [_inverse(tags[name].value) if name in tags else math.nan for name in ("YResolution", "XResolution")]
    # ImageJ leaves `spacing` out where it is 1, others where they forgot it: a missing one is 1 only beside 1 x 1.
    spacing = notes.get("spacing", 1.0 if per_pixel == [1.0, 1.0] else math.nan)
    unit = notes.get("unit", "")
    return _voxel_size_um([spacing, *per_pixel], [notes.get("zunit", unit), notes.get("yunit", unit), unit])


def _inverse(ratio: Sequence[int]) -> float:
    return ratio[1] / ratio[0] if ratio[0] else math.nan


def _ome_xml_voxel_size(xml: str) -> VoxelSize | None:
    from xml.etree import ElementTree

    try:
        pixels = ElementTree.fromstring(xml).find(".//{*}Pixels")
    except ElementTree.ParseError:
        return None
    if pixels is None:
        return None
    sizes = [pixels.get(f"PhysicalSize{axis}", "nan") for axis in "ZYX"]
    return _voxel_size_um(sizes, [pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "ZYX"])


def _voxel_size_um(sizes: Sequence[Any], units: Sequence[Any]) -> VoxelSize | None:
    """Three lengths with their units in micrometres; None unless all are positive lengths."""
    values = []
    for size, unit in zip(sizes, units, strict=True):
        try:
            values.append(float(size) * UNIT_UM[_plain_unit(unit)])
        except (KeyError, TypeError, ValueError):
            return None
    if len(values) != 3 or not all(math.isfinite(v) and v > 0 for v in values):
        return None
    return values[0], values[1], values[2]


def _plain_unit(unit: Any) -> str:
    """A unit's name in lower case, the micro sign (in any of the ways files spell it) as u."""
    text = unit.decode("utf-8", "replace") if isinstance(unit, bytes) else str(unit)
    for micro in ("\\u00b5", "\\u00B5", "\\u03bc", "Âµ", "µ", "μ"):
        text = text.replace(micro, "u")
    return text.strip().lower()


def _open_tiff_folder(path: Path) -> _Stored:
    """One slice per TIFF file, in natural order of the names."""
    import tifffile

    suffixes = {".tif", ".tiff"}
    files = sorted(
        (f for f in path.iterdir() if f.suffix.lower() in suffixes and not f.name.startswith(".")), key=_natural
    )
    if not files:
        raise InputError(f"volume: must be a folder with TIFF slices, or a Zarr store; got {path}, which has neither.")
    first: tuple[tuple[int, ...], np.dtype[Any]] | None = None
    voxel_size = None
    for file in files:
        try:
            with _quiet("tifffile"), tifffile.TiffFile(file) as tiff:
                series, pages = tiff.series[0], len(tiff.pages)
                found = (tuple(series.shape), np.dtype(series.dtype))
                if first is None:
                    first, voxel_size = found, _tiff_voxel_size(tiff)
        except (tifffile.TiffFileError, struct.error, OSError, IndexError) as error:
            raise InputError(
                f"volume: all slices must be whole TIFF files; got {file} ({_one_line(error)})."
            ) from error
        if len(found[0]) != 2:
            what = f"{pages} pages" if pages > 1 else f"shape {found[0]}"
            raise InputError(f"volume: every file of a folder must be one grey slice; got {file} with {what}.")
        if found != first:
            raise InputError(
                f"volume: all slices must have the shape and type of the first, {first[0]} {first[1]}; "
                f"got {found[0]} {found[1]} in {file}."
            )

    assert first is not None
    shape, dtype = first

    def read(box: Box) -> Array:
        planes = []
        for file in files[box[0]]:
            with tifffile.TiffFile(file) as tiff:
                planes.append(_tiff_page(tiff.pages[0], file)[box[1:]])
        return np.stack(planes) if planes else np.empty((0, *(p.stop - p.start for p in box[1:])), dtype)

    return _Stored((len(files), *shape), dtype, read, voxel_size, axes="ZYX")


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key by which slice_2 comes before slice_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


# --- HDF5 -----------------------------------------------------------------------------------------


def _open_hdf5(path: Path, dataset: str) -> _Stored:
    import h5py
    import hdf5plugin  # noqa: F401  (registers the filters that beamlines compress with)

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"volume: must be a whole HDF5 file; got {path} ({_one_line(error)}).") from error
    try:
        data = _find_dataset(file, path, dataset)
        voxel_size = _nexus_voxel_size(data)
    except BaseException:
        file.close()
        raise
    return _Stored(data.shape, data.dtype, data.__getitem__, voxel_size, file.close, dataset=str(data.name))


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
        return _voxel_size_um(sizes, ["um"] * len(sizes)) if len(sizes) == 3 else None
    group, spatial = data.parent, [n for n in range(data.ndim) if data.shape[n] > 1 or data.ndim == 3]
    if len(spatial) != 3:
        return None
    names = [_text(name) for name in np.ravel(group.attrs["axes"])] if "axes" in group.attrs else []
    names = [names[n] for n in spatial] if len(names) == data.ndim else ["z", "y", "x"]
    steps = [_axis_step(group.get(name), data.shape[n]) for name, n in zip(names, spatial, strict=True)]
    from_axes = _voxel_size_um([step for step, _ in steps], [unit for _, unit in steps])
    pixel = [group.get(f"{axis}_pixel_size", group.get("pixel_size", group.get("voxel_size"))) for axis in "zyx"]
    if from_axes is None and all(item is not None and item.size == 1 for item in pixel):
        return _voxel_size_um([item[()] for item in pixel], [item.attrs.get("units", "") for item in pixel])
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


# --- Zarr -----------------------------------------------------------------------------------------


def _open_zarr(path: Path, dataset: str) -> _Stored:
    """A Zarr array, or the highest resolution of an OME-Zarr image (0.4: metadata at the top; 0.5: under `ome`)."""
    import zarr

    try:
        root: Any = zarr.open(str(path), mode="r")
        node = root[dataset.strip("/")] if dataset.strip("/") else root
    except (KeyError, FileNotFoundError, ValueError, TypeError, json.JSONDecodeError) as error:
        what = f"{dataset!r} in {path}" if dataset else f"{path} ({_one_line(error)})"
        raise InputError(f"volume: must name a Zarr array or an OME-Zarr image; got {what}.") from error
    found = _zarr_image(node)
    if found is None:
        names = ", ".join(sorted(name for name, _ in _zarr_arrays(node)))[:200]
        raise InputError(
            f"volume: must name one array as {path.name}:/path; got {path}{':' + dataset if dataset else ''}, "
            f"a group without one OME-Zarr image. Arrays there: {names or 'none'}."
        )
    array, voxel_size, axes = found
    return _Stored(array.shape, array.dtype, array.__getitem__, voxel_size, dataset=str(array.path), axes=axes)


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
    return array, _voxel_size_um([size for size, _ in sizes], [unit for _, unit in sizes]), letters
