"""The run folder: slab files that are whole or absent, virtual volumes over them, and the run record.

One mechanism gives bounded memory, resume after a kill at any instant and files that every HDF5 reader opens: each
stage writes one HDF5 file per z-slab, under a temporary name, flushed to the disk, then renamed. What is renamed
is done.

::

    OUT/run.json                 the run record
    OUT/<stage>/slab_00012.h5    arrays of one slab, and the slab's share of every table
    OUT/<stage>/result.json      what a stage found for the whole volume
    OUT/volumes.h5               one virtual dataset per volume, over its slabs

Files are written without time stamps, so that equal content is equal bytes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from cbdetach.errors import ResumableError
from cbdetach.files import whole_hdf5, write_json

Array = npt.NDArray[Any]
Record = TypeVar("Record")
Slab = tuple[int, int]
"""Half-open range of slices, z0 to z1."""

RUN_RECORD = "run.json"
OWN_NAMES = (
    "survey",
    "phases",
    "segment",
    "link",
    "connected",
    "detachment",
    "diffusion",
    "damage",
    "density",
    "features",
    "report",
    "figures",
    "run.json",
    "run.log",
    "run.lock",
    "volumes.h5",
    "particles.csv",
    "particles.parquet",
    "columns.json",
    "profiles.csv",
    "densities.csv",
    "features.csv",
    "features.parquet",
    "features.json",
    "report.html",
)
"""Everything that a run writes, at the top of its folder: what `--overwrite` may delete, and nothing else."""


def partition(n_slices: int, thickness: int) -> list[Slab]:
    """Cut `n_slices` into slabs of `thickness` slices; the last one may be thinner."""
    return [(z, min(z + thickness, n_slices)) for z in range(0, n_slices, thickness)]


class RunFolder:
    """One run on disk: its slabs, its stage results and its record. Holds no volume in memory."""

    def __init__(self, path: str | Path, slabs: list[Slab] | None = None) -> None:
        self.path = Path(path)
        self.slabs: list[Slab] = slabs or []

    # ---- the record -------------------------------------------------------------------------------------------------

    def read_record(self) -> dict[str, Any] | None:
        """The run record, or None where there is no run."""
        return self._read_json(self.path / RUN_RECORD)

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Replace the run record, in one step."""
        write_json(self.path / RUN_RECORD, record)

    def read_result(self, stage: str) -> dict[str, Any] | None:
        """What a stage found for the whole volume, or None where it has not ended."""
        return self._read_json(self.path / stage / "result.json")

    def write_result(self, stage: str, result: Mapping[str, Any]) -> None:
        """Write what a stage found for the whole volume: this ends the stage."""
        write_json(self.path / stage / "result.json", result)

    @staticmethod
    def _read_json(path: Path) -> dict[str, Any] | None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
            return None
        return content if isinstance(content, dict) else None

    # ---- slabs ------------------------------------------------------------------------------------------------------

    def slab_path(self, stage: str, index: int) -> Path:
        """The file of slab `index` of a stage."""
        return self.path / stage / f"slab_{index:05d}.h5"

    def write_slab(self, stage: str, index: int, arrays: Mapping[str, Array]) -> None:
        """Write one slab's arrays; names may hold slashes (groups). Volumes (3-D) are chunked and compressed.

        Each is flushed: else it takes its place in the file when the last reference to it goes, which may be a
        profiler's.
        """
        path = self.slab_path(stage, index)
        with whole_hdf5(path, libver=("earliest", "v110"), track_order=False) as file:
            file.attrs["slab"] = np.array(self.slabs[index], dtype=np.int64)
            for name, array in arrays.items():
                if array.ndim == 3 and array.size > 4096 and not name.startswith("table/"):
                    chunks = tuple(min(n, c) for n, c in zip(array.shape, (8, 128, 128), strict=True))
                    file.create_dataset(
                        name, data=array, chunks=chunks, compression="gzip", compression_opts=1, shuffle=True,
                        track_times=False,
                    ).flush()  # fmt: skip
                else:
                    file.create_dataset(name, data=array, track_times=False).flush()

    def has_slab(self, stage: str, index: int) -> bool:
        """Whether a slab is there and whole; a truncated file counts as absent."""
        import h5py

        path = self.slab_path(stage, index)
        if not path.exists():
            return False
        try:
            with h5py.File(path, "r") as file:
                return tuple(file.attrs["slab"]) == self.slabs[index]
        except (OSError, KeyError):
            return False

    def require_slab(self, stage: str, index: int) -> Path:
        """The path of a slab that must be there (HDF5 itself would read a missing one as zeros)."""
        if not self.has_slab(stage, index):
            raise ResumableError(
                f"{self.slab_path(stage, index)}: this slab is missing or damaged; continue the run with --resume to "
                "compute it again."
            )
        return self.slab_path(stage, index)

    def read_table(self, stage: str, index: int, group: str = "table") -> dict[str, Array]:
        """The small arrays of one slab below `group`, by name."""
        import h5py

        with h5py.File(self.require_slab(stage, index), "r") as file:
            found: dict[str, Array] = {}
            if group in file:
                file[group].visititems(
                    lambda name, node: found.__setitem__(name, node[()]) if isinstance(node, h5py.Dataset) else None
                )
        return found

    def read_volume(self, stage: str, name: str, z0: int, z1: int) -> Array:
        """Slices z0 to z1 of a volume, gathered from the slabs that hold them."""
        import h5py

        parts = []
        for index, (lo, hi) in enumerate(self.slabs):
            if lo < z1 and z0 < hi:
                with h5py.File(self.require_slab(stage, index), "r") as file:
                    parts.append(file[name][max(z0, lo) - lo : min(z1, hi) - lo])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    # ---- volumes ----------------------------------------------------------------------------------------------------

    def write_volumes(
        self, volumes: Mapping[str, tuple[str, str]], shape: tuple[int, int, int], voxel_size: tuple[float, ...]
    ) -> None:
        """Write `volumes.h5`: for each name, (stage, dataset) as one virtual dataset over the slabs, and as NXdata."""
        import h5py

        with whole_hdf5(self.path / "volumes.h5", libver=("v110", "v110")) as file:
            file.attrs["NX_class"] = "NXroot"
            file.attrs["default"] = "entry"
            entry = file.create_group("entry")
            entry.attrs["NX_class"] = "NXentry"
            for name, (stage, dataset) in volumes.items():
                with h5py.File(self.require_slab(stage, 0), "r") as first:
                    dtype = first[dataset].dtype
                layout = h5py.VirtualLayout(shape=shape, dtype=dtype)
                for index, (lo, hi) in enumerate(self.slabs):
                    self.require_slab(stage, index)
                    relative = f"{stage}/slab_{index:05d}.h5"
                    layout[lo:hi] = h5py.VirtualSource(relative, dataset, shape=(hi - lo, *shape[1:]))
                virtual = file.create_virtual_dataset(name, layout)
                virtual.attrs["element_size_um"] = np.array(voxel_size, dtype=np.float64)
                virtual.attrs["voxel_size_um"] = np.array(voxel_size, dtype=np.float64)
                group = entry.create_group(name)
                group.attrs["NX_class"] = "NXdata"
                group.attrs["signal"] = "data"
                group.attrs["axes"] = ["z", "y", "x"]
                group["data"] = h5py.SoftLink(f"/{name}")
                for axis, n, size in zip("zyx", shape, voxel_size, strict=True):
                    positions = group.create_dataset(axis, data=np.arange(n) * size, track_times=False)
                    positions.attrs["units"] = "um"
            entry.attrs["default"] = next(iter(volumes))

    # ---- the folder itself ------------------------------------------------------------------------------------------

    def is_empty(self) -> bool:
        """Whether there is nothing in the folder, or no folder."""
        return not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir()))

    def clear(self, keep: Iterable[str] = ()) -> None:
        """Delete what a run writes, except `keep`, and nothing else."""
        for name in sorted(set(OWN_NAMES) - set(keep)):
            target = self.path / name
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove temporary files that a killed run has left."""
        for leftover in [*self.path.glob(".*.part*"), *self.path.glob("*/.*.part*")]:
            leftover.unlink(missing_ok=True)


def pack(prefix: str, record: Any) -> dict[str, Array]:
    """A dataclass of arrays as named arrays for a slab; fields that are None are left out."""
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    return {f"{prefix}/{name}": np.asarray(value) for name, value in values.items() if value is not None}


def unpack(kind: type[Record], arrays: Mapping[str, Array]) -> Record:
    """The dataclass that `pack` has taken apart."""
    values: dict[str, Any] = {f.name: arrays.get(f.name) for f in fields(kind)}  # type: ignore[arg-type]
    if values.get("spacing") is not None:
        values["spacing"] = tuple(float(s) for s in values["spacing"])
    return kind(**values)
