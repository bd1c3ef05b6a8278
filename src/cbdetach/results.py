"""What a run has found, read back: the table, the volumes as lazy arrays, the settings."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cbdetach.config import Settings, validate
from cbdetach.errors import InputError
from cbdetach.files import require_new, require_writable, told
from cbdetach.store import RunFolder

if TYPE_CHECKING:
    import pandas as pd


class Run:
    """A finished run on disk. Volumes are opened when asked for and read only where they are sliced."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        record = RunFolder(self.path).read_record()
        if record is None:
            raise InputError(f"{self.path}: this is not the folder of a run (it has no run.json); give a run's folder.")
        if not record.get("finished"):
            raise InputError(f"{self.path}: this run has not ended; continue it with --resume first.")
        self.record: dict[str, Any] = record
        self._file: Any = None

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.record['counts']['found']} particles)"

    @cached_property
    def settings(self) -> Settings:
        """The resolved settings."""
        return validate(self.record["settings"])

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per particle; the columns and their units are in `columns.json`."""
        import pandas as pd

        return pd.read_parquet(self.path / "particles.parquet")

    @cached_property
    def features(self) -> pd.DataFrame:
        """One row per particle: shape, orientation, surfaces, neighbourhood; units are in `features.json`."""
        import pandas as pd

        return pd.read_parquet(self.path / "features.parquet")

    @cached_property
    def volumes(self) -> Mapping[str, Any]:
        """The result volumes, (Z, Y, X) each, as h5py datasets: slice them to read."""
        import h5py

        folder = RunFolder(self.path, [tuple(s) for s in self.record["slabs"]])
        for stage in self.record["volumes"].values():
            for index in range(len(folder.slabs)):
                folder.require_slab(stage[0], index)
        self._file = h5py.File(self.path / "volumes.h5", "r")
        return {name: self._file[name] for name in self.record["volumes"]}

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Voxel size (dz, dy, dx) in micrometres."""
        z, y, x = self.record["voxel_size_um"]
        return z, y, x

    def export_labels(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the particle labels as a TIFF that Fiji opens with its scale.

        path : ends in .tif or .tiff, or in nothing.
        overwrite : whether `path` may be a file that exists.
        """
        from cbdetach.volume import label_dtype, write_label_tiff

        target = Path(path)
        if target.suffix.lower() not in ("", ".tif", ".tiff"):
            raise InputError(f"TIFF: must end in .tif or .tiff; got {target}. Give the file another name.")
        require_writable(target, "TIFF", what="file")
        require_new(target, "TIFF", overwrite=overwrite)
        labels = self.volumes["particles"]
        step = 16
        slabs = (np.asarray(labels[z : z + step]) for z in range(0, labels.shape[0], step))
        kind = label_dtype(int(self.table["label"].max()))
        with told(target, "TIFF", what="file"):
            write_label_tiff(target, slabs, labels.shape, kind, self.voxel_size)
        return target

    def close(self) -> None:
        """Close the volumes' file."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self.__dict__.pop("volumes", None)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_run(path: str | Path) -> Run:
    """Open a finished run's folder.

    Raises
    ------
    InputError
        The folder is not a run's, or the run has not ended.
    """
    return Run(path)
