"""TIFF: a stack (ImageJ, OME, BigTIFF, plain multi-page), or a folder of slices."""

from __future__ import annotations

import itertools
import logging
import math
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach.errors import InputError
from cbdetach.volume.parse import Box
from cbdetach.volume.stored import Stored, one_line
from cbdetach.volume.units import VoxelSize, voxel_size_um

Array = npt.NDArray[Any]


def open_tiff(path: Path) -> Stored:
    """The first series of a TIFF file: memory-mapped where it is contiguous and uncompressed, else page by page."""
    import tifffile

    tiff = None
    try:
        with _quiet():
            tiff = tifffile.TiffFile(path)
            return _tiff_series(tiff, path)
    except BaseException as error:
        if tiff is not None:
            tiff.close()
        if isinstance(error, tifffile.TiffFileError | struct.error | OSError):
            raise InputError(f"volume: must be a whole TIFF file; got {path} ({one_line(error)}).") from error
        raise


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence tifffile, which logs what it also raises, and what is checked here in other words."""
    log = logging.getLogger("tifffile")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)


def _tiff_series(tiff: Any, path: Path) -> Stored:
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
        return Stored(shape, dtype, mapped.__getitem__, voxel_size, axes=series.axes)

    pages, planes = series.pages, math.prod(shape[:-2])
    if len(pages) != planes and len(shape) > 2:
        raise InputError(f"volume: must have one page per slice; got {len(pages)} pages for shape {shape} in {path}.")

    def read(index: tuple[Any, ...]) -> Array:
        chosen = np.arange(planes).reshape(shape[:-2])[index[:-2]]
        blocks = [_tiff_page(pages[int(p)], path)[index[-2:]] for p in chosen.ravel()]
        empty = np.empty((0, *(part.stop - part.start for part in index[-2:])), dtype)
        return (np.stack(blocks) if blocks else empty).reshape(*chosen.shape, *empty.shape[1:])

    return Stored(shape, dtype, read, voxel_size, tiff.close, axes=series.axes)


def _tiff_page(page: Any, path: Path) -> Array:
    if page is None:
        raise InputError(f"volume: a slice of {path} lies in another file, which is missing. Put all files together.")
    try:
        return np.asarray(page.asarray())
    except (ValueError, RuntimeError, OSError, zlib.error) as error:
        hint = " Install it with pip install imagecodecs." if "imagecodecs" in str(error) else ""
        raise InputError(f"volume: page {page.index} of {path} is unreadable ({one_line(error)}).{hint}") from error


def _tiff_is_whole(tiff: Any) -> bool:
    """Whether the chain of pages ends where it should, and the last page's data lie inside the file."""
    handle, size = tiff.filehandle, tiff.filehandle.size
    last = tiff.pages[len(tiff.pages) - 1]
    if any(offset + count > size for offset, count in zip(last.dataoffsets, last.databytecounts, strict=False)):
        return False
    handle.seek(tiff.pages.next_page_offset)
    following = handle.read(tiff.tiff.offsetsize)
    return len(following) == tiff.tiff.offsetsize and not any(following)


def open_tiff_folder(path: Path) -> Stored:
    """One slice per TIFF file, in natural order of the names."""
    import tifffile

    suffixes = {".tif", ".tiff"}
    files = sorted(
        (f for f in path.iterdir() if f.suffix.lower() in suffixes and not f.name.startswith(".")), key=_natural
    )
    if not files:
        raise InputError(f"volume: must be a folder with TIFF slices, or a Zarr store; got {path}, which has neither.")
    _require_no_gap(files)
    first: tuple[tuple[int, ...], np.dtype[Any]] | None = None
    voxel_size = None
    for file in files:
        try:
            with _quiet(), tifffile.TiffFile(file) as tiff:
                series, pages = tiff.series[0], len(tiff.pages)
                found = (tuple(series.shape), np.dtype(series.dtype))
                if first is None:
                    first, voxel_size = found, _tiff_voxel_size(tiff)
        except (tifffile.TiffFileError, struct.error, OSError, IndexError) as error:
            raise InputError(f"volume: all slices must be whole TIFF files; got {file} ({one_line(error)}).") from error
        if len(found[0]) != 2:
            what = f"{pages} pages" if pages > 1 else f"shape {found[0]}"
            raise InputError(f"volume: every file of a folder must be one grey slice; got {file} with {what}.")
        if found != first:
            raise InputError(
                f"volume: all slices must have the shape and type of the first ({files[0].name}), {first[0]} "
                f"{first[1]}; got {found[0]} {found[1]} in {file}."
            )

    assert first is not None
    shape, dtype = first

    def read(box: Box) -> Array:
        planes = []
        for file in files[box[0]]:
            with tifffile.TiffFile(file) as tiff:
                planes.append(_tiff_page(tiff.pages[0], file)[box[1:]])
        return np.stack(planes) if planes else np.empty((0, *(p.stop - p.start for p in box[1:])), dtype)

    return Stored((len(files), *shape), dtype, read, voxel_size, axes="ZYX")


def _require_no_gap(files: Sequence[Path]) -> None:
    """Refuse slices whose one running number does not go up by one and the same step: a slice is missing then."""
    keys = [_natural(file) for file in files]
    if len({tuple(text for _, text in key) for key in keys}) > 1:  # names of several kinds
        return
    numbers = [
        column for column in zip(*([number for number, _ in key] for key in keys), strict=True) if len(set(column)) > 1
    ]
    if len(numbers) != 1:
        return
    steps = [b - a for a, b in itertools.pairwise(numbers[0])]
    usual = sorted(steps)[len(steps) // 2]
    wrong = [i for i, step in enumerate(steps) if step != usual]
    if wrong:
        raise InputError(
            f"volume: the slices' numbers must go up by one step, here {usual}; got {files[wrong[0] + 1]} after "
            f"{files[wrong[0]].name}. Add the slices that are missing, or renumber the files if none is."
        )


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key by which slice_2 comes before slice_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


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
    return voxel_size_um([spacing, *per_pixel], [notes.get("zunit", unit), notes.get("yunit", unit), unit])


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
    return voxel_size_um(sizes, [pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "ZYX"])
