"""The run folder: slabs are whole or absent, equal content is equal bytes, volumes are read across slabs."""

from __future__ import annotations

import errno
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from cbdetach.errors import InputError
from cbdetach.files import to_json, whole_file, whole_hdf5
from cbdetach.store import RunFolder, pack, partition, unpack

SHAPE = (10, 40, 30)


@pytest.fixture
def volume() -> npt.NDArray[np.int32]:
    return np.arange(np.prod(SHAPE), dtype=np.int32).reshape(SHAPE)


@pytest.fixture
def folder(tmp_path: Path, volume: npt.NDArray[np.int32]) -> RunFolder:
    made = RunFolder(tmp_path / "run", partition(SHAPE[0], 4))
    for index, (z0, z1) in enumerate(made.slabs):
        made.write_slab("link", index, {"particles": volume[z0:z1], "table/count": np.array([z1 - z0])})
    return made


def test_partition_covers_every_slice_once() -> None:
    assert partition(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert partition(3, 64) == [(0, 3)]


@pytest.mark.parametrize("window", [(0, 10), (3, 5), (4, 8), (7, 10), (0, 1)])
def test_a_window_is_gathered_from_the_slabs_that_hold_it(
    folder: RunFolder, volume: npt.NDArray[np.int32], window: tuple[int, int]
) -> None:
    np.testing.assert_array_equal(folder.read_volume("link", "particles", *window), volume[slice(*window)])


def test_equal_content_is_equal_bytes(folder: RunFolder, volume: npt.NDArray[np.int32]) -> None:
    before = folder.slab_path("link", 1).read_bytes()
    folder.write_slab("link", 1, {"particles": volume[4:8], "table/count": np.array([4])})
    assert folder.slab_path("link", 1).read_bytes() == before


def test_bytes_do_not_depend_on_who_still_holds_a_dataset(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profiler that looks at threads, as dask's workers have one, holds the frames that it sees for a while."""
    rng, held, create = np.random.default_rng(0), [], h5py.Group.create_dataset
    arrays = {f"moved/{n}": rng.integers(0, 3, (2, 60, 60)).astype(np.uint8) for n in "abcdef"}
    arrays |= {f"table/{n}": rng.normal(size=90) for n in "abcdef"}
    folder.write_slab("phases", 1, arrays)
    before = folder.slab_path("phases", 1).read_bytes()

    def holding(*given: Any, **options: Any) -> Any:
        held.append(create(*given, **options))
        return held[-1]

    monkeypatch.setattr(h5py.Group, "create_dataset", holding)
    folder.write_slab("phases", 1, arrays)
    assert len(held) == 12
    assert folder.slab_path("phases", 1).read_bytes() == before


def test_tables_come_back_by_name(folder: RunFolder) -> None:
    assert folder.read_table("link", 2)["count"].tolist() == [2]


def test_a_truncated_slab_counts_as_absent(folder: RunFolder) -> None:
    path = folder.slab_path("link", 1)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert folder.has_slab("link", 0)
    assert not folder.has_slab("link", 1)
    with pytest.raises(InputError, match=r"slab_00001\.h5: this slab is missing or damaged; continue .* --resume"):
        folder.read_volume("link", "particles", 0, 10)


def test_a_missing_slab_is_an_error_and_not_zeros(folder: RunFolder) -> None:
    folder.slab_path("link", 2).unlink()
    with pytest.raises(InputError, match="slab_00002"):
        folder.write_volumes({"particles": ("link", "particles")}, SHAPE, (1.0, 1.0, 1.0))
    assert not (folder.path / "volumes.h5").exists()


def test_virtual_volumes_move_with_their_folder(
    folder: RunFolder, volume: npt.NDArray[np.int32], tmp_path: Path
) -> None:
    folder.write_volumes({"particles": ("link", "particles")}, SHAPE, (0.5, 0.25, 0.2))
    moved = folder.path.rename(tmp_path / "elsewhere")
    with h5py.File(moved / "volumes.h5", "r") as file:
        np.testing.assert_array_equal(file["particles"][()], volume)
        assert file["particles"].attrs["element_size_um"].tolist() == [0.5, 0.25, 0.2]
        data = file[f"entry/{file['entry'].attrs['default']}"]
        assert data.attrs["NX_class"] == "NXdata"
        np.testing.assert_array_equal(data[data.attrs["signal"]][()], volume)
        np.testing.assert_allclose(data["y"][()], np.arange(40) * 0.25)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with whole_file(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    def fail() -> None:
        with whole_file(tmp_path / "a"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match="the disk is full; what was whole before still is"):
        fail()


def test_sweep_removes_what_a_killed_run_has_left(folder: RunFolder) -> None:
    leftover = folder.path / "link" / ".slab_00000.h5.part123"
    leftover.write_bytes(b"half")
    folder.sweep()
    assert not leftover.exists()
    assert folder.has_slab("link", 0)


def test_clear_deletes_only_what_a_run_writes(folder: RunFolder) -> None:
    own = folder.path / "my_notes.txt"
    own.write_text("keep")
    folder.write_record({"finished": True})
    folder.clear()
    assert [p.name for p in folder.path.iterdir()] == ["my_notes.txt"]


def test_records_and_results(folder: RunFolder) -> None:
    assert folder.read_record() is None
    assert folder.read_result("survey") is None
    folder.write_result("survey", {"edge": np.float64(0.5), "none": float("nan"), "list": np.arange(3)})
    assert folder.read_result("survey") == {"edge": 0.5, "none": None, "list": [0, 1, 2]}


def test_json_keeps_the_order_and_is_plain() -> None:
    assert to_json({"b": 1, "a": Path("x")}) == '{\n "b": 1,\n "a": "x"\n}\n'


@dataclass(frozen=True)
class Share:
    labels: npt.NDArray[np.int64]
    spacing: tuple[float, ...]
    mean: npt.NDArray[np.float64] | None = None


def test_a_record_of_arrays_comes_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, [(0, 1)])
    share = Share(np.array([3, 5]), (1.0, 2.0, 3.0))
    folder.write_slab("link", 0, pack("table/share", share))
    back = unpack(Share, folder.read_table("link", 0, "table/share"))
    assert back.labels.tolist() == [3, 5]
    assert back.spacing == (1.0, 2.0, 3.0)
    assert back.mean is None


# ---- a disk that is really full --------------------------------------------------------------------------------------

LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from cbdetach.errors import ResumableError
from cbdetach.store import RunFolder

out, limit = Path(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
folder = RunFolder(out, [(0, 32)])
try:
    folder.write_slab("stage", 0, {"volume": np.random.default_rng(0).random((32, 64, 64), np.float32)})
except ResumableError as error:
    print(error)
print(folder.has_slab("stage", 0), [path.name for path in (out / "stage").iterdir()])
"""


@pytest.mark.parametrize("limit", [0, 3_000, 100_000, 400_000])
def test_a_slab_that_the_disk_has_no_room_for_is_absent(limit: int, tmp_path: Path) -> None:
    """The system's own limit, in a process of its own: HDF5 fails while it closes a file, which must not pass."""
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), str(limit)], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    said, there = ended.stdout.splitlines()
    assert said.startswith(
        f"{tmp_path / 'stage'}: no file may be that large here (ulimit -f); what was whole before still is. "
    )
    assert there == "False []"


def test_a_file_made_in_memory_has_the_bytes_of_one_made_on_the_disk(tmp_path: Path) -> None:
    values = np.random.default_rng(1).random((40, 50, 60))
    with h5py.File(tmp_path / "disk.h5", "w", libver=("earliest", "v110")) as file:
        file.create_dataset("volume", data=values, chunks=(8, 50, 60), compression="gzip", track_times=False)
    with whole_hdf5(tmp_path / "memory.h5", libver=("earliest", "v110")) as file:
        file.create_dataset("volume", data=values, chunks=(8, 50, 60), compression="gzip", track_times=False)
    assert (tmp_path / "memory.h5").read_bytes() == (tmp_path / "disk.h5").read_bytes()
