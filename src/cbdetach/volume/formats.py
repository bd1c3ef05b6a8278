"""Which format lies at a path: found by its content, not by its suffix."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from cbdetach.errors import InputError
from cbdetach.volume.hdf5 import open_hdf5
from cbdetach.volume.ome_zarr import open_zarr
from cbdetach.volume.stored import Stored, one_line
from cbdetach.volume.tiff import open_tiff, open_tiff_folder


def split_dataset(text: str) -> tuple[Path, str]:
    """Split `file.h5:/path/inside` at the first colon before which a file or folder exists."""
    if not os.path.exists(text):
        for at in (i for i, letter in enumerate(text) if letter == ":"):
            if os.path.exists(text[:at]):
                return Path(text[:at]), text[at + 1 :]
        path = text.partition(":/")[0]
        raise InputError(f"volume: must be an existing file or folder; got {path!r}, which does not exist.")
    return Path(text), ""


def open_path(path: Path, dataset: str) -> Stored:
    """Open by what is there: a folder, or the first bytes of a file."""
    if path.is_dir():
        if any((path / name).is_file() for name in ("zarr.json", ".zarray", ".zgroup", ".zattrs")):
            return open_zarr(path, dataset)
        opener = open_tiff_folder
    else:
        try:
            with path.open("rb") as file:
                head = file.read(8)
        except OSError as error:
            raise InputError(f"volume: must be a readable file; got {path} ({error.strerror}).") from error
        if not head:
            raise InputError(f"volume: must be an image file; got {path}, which is empty.")
        if _is_hdf5(path):
            return open_hdf5(path, dataset)
        if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            opener = open_tiff
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


def _open_npy(path: Path) -> Stored:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise InputError(f"volume: must be a whole .npy file of numbers; got {path} ({one_line(error)}).") from error
    return Stored(array.shape, array.dtype, array.__getitem__)
