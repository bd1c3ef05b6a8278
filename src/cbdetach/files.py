"""Files that are whole or absent: written under a temporary name, flushed to the disk, then renamed.

And what is said where a result cannot be written: before the work as far as that can be known, in one sentence always.
"""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cbdetach.errors import InputError, ResumableError

if TYPE_CHECKING:
    import pandas as pd

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your share of the disk is full",
    errno.EFBIG: "no file may be that large here (ulimit -f)",
}
"""What the system says where nothing more can be written."""

IMAGE_BLOCK = 1 << 22
"""Bytes by which an HDF5 file in memory grows."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name to write to; flushed and renamed to `path` on success, removed on failure.

    The name is like no other: several threads, processes and machines may write the same file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part{uuid.uuid4().hex}")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in FULL:
            raise ResumableError(
                f"{path.parent}: {FULL[error.errno]}; what was whole before still is. Free some space and give the "
                "command again, a run or a training with --resume."
            ) from error
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def whole_hdf5(path: Path, **options: Any) -> Iterator[Any]:
    """An HDF5 file to write to, made in memory and put to `path` on success; `options` are those of `h5py.File`.

    HDF5 writes much of a file when it closes it, and what fails then is no error to h5py: a full disk leaves a file
    that opens, and reads as zeros. Memory: twice the file's size, which is that of its compressed volumes.
    """
    import h5py

    with h5py.File(path.name, "w", driver="core", backing_store=False, block_size=IMAGE_BLOCK, **options) as file:
        yield file
        file.flush()
        image = file.id.get_file_image()
    with whole_file(path) as temporary:
        temporary.write_bytes(image)


def to_json(content: Any) -> str:
    """JSON text, keys in their order; NumPy values as plain numbers and lists, non-finite numbers as null."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(k): plain(v) for k, v in value.items()}
        if isinstance(value, np.ndarray):
            return plain(value.tolist())
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        if isinstance(value, np.generic):
            return plain(value.item())
        if isinstance(value, float) and not np.isfinite(value):
            return None
        return str(value) if isinstance(value, Path) else value

    return json.dumps(plain(content), indent=1, ensure_ascii=False) + "\n"


def write_json(path: Path, content: Any) -> None:
    """A JSON file, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(to_json(content), encoding="utf-8")


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """A table, whole or not at all, as the name ends: `.csv` (nine digits) or `.parquet`."""
    with whole_file(path) as temporary:
        if path.suffix == ".parquet":
            frame.to_parquet(temporary, index=False)
        else:
            frame.to_csv(temporary, index=False, float_format="%.9g", lineterminator="\n")


def read_csv(path: str | Path, option: str, *, as_text: bool = False) -> pd.DataFrame:
    """A table that a person has written, `#` begins a comment; InputError, in one line, where it is none."""
    import pandas as pd

    try:
        return pd.read_csv(path, dtype="str" if as_text else None, comment="#", skipinitialspace=True)
    except FileNotFoundError:
        raise InputError(f"{option}: there is no file {path}; give a CSV file.") from None
    except (OSError, ValueError) as error:
        why = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(f"{option}: {path} cannot be read as CSV ({why}); give a CSV file with a header.") from None


@contextmanager
def told(path: Path, option: str = "-o/--out", *, what: str = "folder") -> Iterator[None]:
    """What the system says while `path`, a folder or a file, is written becomes one sentence that names the option."""
    try:
        yield
    except OSError as error:
        raise _unwritable(path, option, what, error.strerror or str(error)) from None


def require_writable(path: Path, option: str = "-o/--out", *, what: str = "folder") -> None:
    """InputError where the folder, or the file, `path` cannot be written, as far as is known before; tries nothing."""
    if path.exists() and path.is_dir() != (what == "folder"):
        raise _unwritable(path, option, what, "it is a folder" if path.is_dir() else "it is a file")
    parents = [path, *path.absolute().parents] if what == "folder" else path.absolute().parents
    there = next(p for p in parents if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "it may not be written" if there.is_dir() else "it is a file"
        raise _unwritable(path, option, what, f"{there}: {why}")


def only_one(*, resume: bool, overwrite: bool) -> None:
    """InputError where what a folder holds is to be continued and replaced at once."""
    if resume and overwrite:
        raise InputError("--resume, --overwrite: only one of them can be meant; leave one out.")


def require_new(path: Path, option: str = "-o/--out", *, overwrite: bool) -> None:
    """InputError where a file would be replaced that nobody has asked to replace."""
    if path.exists() and not overwrite:
        raise InputError(f"{option}: {path} exists; choose another file, or replace it with --overwrite.")


def _unwritable(path: Path, option: str, what: str, why: str) -> InputError:
    return InputError(f"{option}: {path} cannot be written ({why}); choose another {what}.")
