"""A run read back from its folder: its table, its lazy volumes, its settings, and the labels as TIFF."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import tifffile

import cbdetach
from cbdetach.config import validate
from cbdetach.errors import InputError
from cbdetach.results import Run, open_run
from cbdetach.store import RunFolder, partition

SHAPE = (10, 12, 14)
VOXEL = (0.5, 0.25, 0.4)
VOLUMES = {"particles": ("link", "particles"), "diffusion_length": ("diffusion", "diffusion_length")}
SETTINGS = {"slab": 4, "input": {"phases": "p.tif", "phase_values": {"void": 0, "active": 7}, "voxel_size": VOXEL}}


def labels() -> npt.NDArray[np.int32]:
    made = np.zeros(SHAPE, np.int32)
    made[1:4, 2:5, 3:9] = 1
    made[3:10, 6:11, 2:7] = 2
    return made


def make_run(path: Path, volume: npt.NDArray[Any], **record: Any) -> Path:
    """The folder of a run, as the driver leaves it, without its figures."""
    folder = RunFolder(path, partition(SHAPE[0], 4))
    for index, (z0, z1) in enumerate(folder.slabs):
        folder.write_slab("link", index, {"particles": volume[z0:z1]})
        folder.write_slab("diffusion", index, {"diffusion_length": volume[z0:z1].astype(np.float32) / 2})
    folder.write_volumes(VOLUMES, SHAPE, VOXEL)
    ids = np.unique(volume[volume > 0])
    pd.DataFrame({"label": ids}).to_parquet(path / "particles.parquet", index=False)
    folder.write_record(
        {
            "finished": True,
            "counts": {"found": ids.size},
            "settings": validate(SETTINGS).to_dict(),
            "slabs": folder.slabs,
            "shape": SHAPE,
            "voxel_size_um": VOXEL,
            "volumes": VOLUMES,
        }
        | record
    )
    return path


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with open_run(make_run(tmp_path / "run", labels())) as found:
        yield found


def test_what_a_run_says_of_itself(run: Run) -> None:
    assert repr(run) == f"Run('{run.path}', 2 particles)"
    assert run.voxel_size == VOXEL
    assert run.table["label"].tolist() == [1, 2]
    assert isinstance(cbdetach.open_run(run.path), cbdetach.Run)


def test_volumes_are_read_where_they_are_sliced(run: Run) -> None:
    assert set(run.volumes) == set(VOLUMES)
    particles = run.volumes["particles"]
    assert not isinstance(particles, np.ndarray)
    assert (particles.shape, particles.dtype) == (SHAPE, np.int32)
    np.testing.assert_array_equal(particles[3:9, 2], labels()[3:9, 2])
    np.testing.assert_array_equal(run.volumes["diffusion_length"][()], labels() / 2)
    np.testing.assert_array_equal(particles.attrs["voxel_size_um"], VOXEL)


def test_volumes_close_and_open_again(run: Run) -> None:
    before = run.volumes["particles"]
    run.close()
    assert not before
    run.close()
    np.testing.assert_array_equal(run.volumes["particles"][()], labels())
    with run as same:
        again = same.volumes["particles"]
    assert not again


def test_a_missing_slab_is_not_read_as_zeros(run: Run) -> None:
    (run.path / "diffusion" / "slab_00001.h5").unlink()
    with pytest.raises(InputError, match=r"slab_00001\.h5: this slab is missing or damaged; continue the run with"):
        _ = run.volumes


def test_a_truncated_slab_is_not_read(run: Run) -> None:
    slab = run.path / "link" / "slab_00002.h5"
    slab.write_bytes(slab.read_bytes()[:700])
    with pytest.raises(InputError, match=r"slab_00002\.h5: this slab is missing or damaged"):
        _ = run.volumes


def test_settings_survive_the_record(run: Run, tmp_path: Path) -> None:
    assert run.settings == validate(SETTINGS)
    assert run.settings.input.voxel_size == VOXEL
    assert run.settings.input.phase_values == {"void": 0, "active": 7}
    default = make_run(tmp_path / "default", labels(), settings=validate({}).to_dict())
    assert open_run(default).settings == validate({})


# ---- labels as TIFF --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "dtype"), [(1, np.uint16), (40_000, np.uint32)])
def test_labels_as_tiff(tmp_path: Path, factor: int, dtype: type) -> None:
    with open_run(make_run(tmp_path / "run", labels() * np.int32(factor))) as run:
        written = run.export_labels(tmp_path / "labels.tif")
    with tifffile.TiffFile(written) as file:
        assert file.is_imagej
        assert file.imagej_metadata is not None
        assert file.imagej_metadata["spacing"] == VOXEL[0]
        assert file.imagej_metadata["unit"] == "um"
        across, unit = file.pages.first.tags["XResolution"].value
        assert across / unit == pytest.approx(1 / VOXEL[2])
        assert file.series[0].dtype == dtype
        np.testing.assert_array_equal(file.asarray(), labels() * factor)


def test_labels_into_a_folder_that_does_not_exist(run: Run, tmp_path: Path) -> None:
    assert run.export_labels(tmp_path / "none" / "labels.tif").exists()


def test_labels_into_what_cannot_be_written(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"TIFF: .* cannot be written \(it is a folder\); choose another file"):
        run.export_labels(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"TIFF: .*labels\.tif cannot be written \(.*it is a file\); choose another"):
        run.export_labels(tmp_path / "file" / "labels.tif")
    assert (tmp_path / "file").read_bytes() == b""


# ---- not a run -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, "", "{", "[1]"])
def test_a_folder_that_is_no_run(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"not the folder of a run \(it has no run\.json\); give a run's folder"):
        open_run(tmp_path)


def test_no_folder_at_all_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("none", "file"):
        with pytest.raises(InputError, match=f"{name}: this is not the folder of a run"):
            open_run(tmp_path / name)


def test_a_run_that_has_not_ended(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", labels(), finished=False)
    with pytest.raises(InputError, match="this run has not ended; continue it with --resume first"):
        open_run(path)
