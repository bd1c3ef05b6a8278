"""Before the first stage: the run's folder, its lock, its log and its record; and what must be the same to resume."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from cbdetach import __version__
from cbdetach.config import differences
from cbdetach.errors import InputError, ResumableError
from cbdetach.files import only_one, require_writable, to_json, told
from cbdetach.job import Job
from cbdetach.segment.model_file import model_digest
from cbdetach.store import RunFolder
from cbdetach.volume import Volume

log = logging.getLogger("cbdetach")

LIBRARIES = ("numpy", "numba", "scipy", "scikit-image", "h5py", "pandas", "matplotlib", "tifffile", "zarr")
"""Whose versions the record names, and which must be the same to resume."""


@dataclass(frozen=True)
class Start:
    """How a run begins: the record of a new one, that of the one to continue or None, and whether that is deleted."""

    fresh: dict[str, Any]
    existing: dict[str, Any] | None
    overwrite: bool

    @property
    def finished(self) -> bool:
        """Whether the run to continue has ended already."""
        return bool((self.existing or {}).get("finished"))


def look_up(job: Job, *, resume: bool, overwrite: bool) -> Start:
    """How the run begins, by what its folder holds. Writes nothing; InputError where it may not begin."""
    only_one(resume=resume, overwrite=overwrite)
    fresh = fresh_record(job)
    existing = _take_up(job.folder, fresh, resume=resume, overwrite=overwrite)
    require_writable(job.folder.path)
    _require_free(job.folder.path)
    return Start(fresh, existing, overwrite)


@contextmanager
def prepared(job: Job, start: Start) -> Iterator[dict[str, Any]]:
    """Make or take up the run's folder, hold its lock and its log, and yield the run record.

    Bad input that is found only while working takes the new folder away again; anything else leaves a run that resumes.
    """
    folder, existing = job.folder, start.existing
    made = not folder.path.exists()
    with told(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
        lock = (folder.path / "run.lock").open("a")
    with lock, _logged(folder.path / "run.log"):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise _busy(folder.path) from None
        if not start.overwrite and folder.read_record() != existing:
            raise InputError(
                f"-o/--out: another process has worked in {folder.path} meanwhile; give the command again."
            )
        if start.overwrite:
            folder.clear(keep=("run.lock", "run.log"))
            existing = None
        folder.sweep()
        record = existing or start.fresh
        if existing is None:
            folder.write_record(record)
        try:
            yield record
        except InputError as error:
            if existing is None and not isinstance(error, ResumableError):
                folder.clear()
                if made:
                    folder.path.rmdir()
            raise


def _take_up(folder: RunFolder, fresh: dict[str, Any], *, resume: bool, overwrite: bool) -> dict[str, Any] | None:
    """The record of the run to continue, None for a new one; an `InputError` where the folder is not ours to write."""
    path = folder.path
    if path.exists() and not path.is_dir():
        raise InputError(f"-o/--out: {path} is a file; give a folder.")
    if folder.is_empty():
        return None
    existing = folder.read_record()
    if existing is None:
        if all(p.name in ("run.lock", "run.log") or ".part" in p.name for p in path.iterdir()):
            return None  # killed before its record was written
        raise InputError(f"-o/--out: {path} is not empty and holds no run; choose a new or empty folder.")
    if overwrite:
        return None
    if not resume:
        raise InputError(
            f"-o/--out: {path} holds a finished run; choose another folder, or replace it with --overwrite."
            if existing.get("finished")
            else f"-o/--out: {path} holds a run that was interrupted; continue it with --resume, or start again with "
            "--overwrite."
        )
    compared = {"settings": "with other", "input": "with other", "device": "on another", "versions": "with other"}
    for part, what in compared.items():
        changed = differences(existing.get(part, {}), fresh[part])
        if changed and not (part == "versions" and existing.get("finished")):
            raise InputError(
                f"--resume: {path} holds a run {what} {part} ({', '.join(changed)}); "
                "give the same ones, choose another folder, or start again with --overwrite."
            )
    return existing


def _require_free(path: Path) -> None:
    """Refuse a folder in which another process works."""
    with suppress(FileNotFoundError, PermissionError), (path / "run.lock").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            raise _busy(path) from None


def _busy(path: Path) -> InputError:
    return InputError(f"-o/--out: another process is working in {path}; wait for it to end.")


def versions() -> dict[str, str]:
    """Of cbdetach, of Python and of the libraries: what results may depend on."""
    return {"cbdetach": __version__, "python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def fresh_record(job: Job) -> dict[str, Any]:
    """The record of a run that begins: everything that is known before the first voxel is read."""
    given = {"volume": job.grey, "labels": job.labels, "phases": job.phases}
    inputs = {name: fingerprint(volume) for name, volume in given.items() if volume is not None}
    if job.model is not None:
        inputs["model"] = {"name": job.model.name, "sha256": model_digest(job.model)}
    if job.classifier is not None:
        inputs["classifier"] = {
            "name": Path(job.settings.phases.classifier or "").name,
            "sha256": job.classifier.digest,
            "trained_on": list(job.classifier.trained_on),
        }
    libraries = versions()
    record = {
        "cbdetach": libraries.pop("cbdetach"),
        "settings": job.settings.to_dict(),
        "input": inputs,
        "shape": job.shape,
        "voxel_size_um": job.voxel_size,
        "slabs": job.folder.slabs,
        "versions": libraries,
        "device": {"kind": "cpu" if job.gpu is None else "cuda", "machine": platform.machine()}
        | ({} if job.gpu is None else job.gpu.about),
        "seeds": {"report": job.settings.report.seed},
        "stages": {},
        "warnings": [],
        "timings": {},
        "finished": False,
    }
    plain: dict[str, Any] = json.loads(to_json(record))
    return plain


def fingerprint(volume: Volume) -> dict[str, Any]:
    """What an input looks like without reading it: enough to refuse to resume on another one."""
    known: dict[str, Any] = {
        "name": volume.name,
        "source": str(volume),
        "shape": volume.shape,
        "dtype": str(volume.dtype),
    }
    if volume.path is None:
        return known | {"sha256": hashlib.sha256(np.ascontiguousarray(volume[:]).data).hexdigest()}
    files = [p for p in volume.path.rglob("*") if p.is_file()] if volume.path.is_dir() else [volume.path]
    stats = [p.stat() for p in files]
    return known | {"bytes": sum(s.st_size for s in stats), "changed": max(s.st_mtime_ns for s in stats)}


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Write the driver's messages to the run's log as well."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.close()
