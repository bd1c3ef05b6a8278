"""Label images as TIFF stacks that Fiji opens with their scale."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cbdetach.volume import label_dtype, open_volume, write, write_label_tiff

SHAPE = (7, 9, 11)
SIZE = (0.5, 0.4, 0.3)
GREY = np.random.default_rng(0).integers(0, 60000, SHAPE).astype(np.uint16)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_label_tiff(dtype: Any, tmp_path: Path) -> None:
    labels = (GREY % np.iinfo(np.uint8).max).astype(np.int64)
    labels[-1] = np.iinfo(dtype).max
    write_label_tiff(tmp_path / "a.tif", (labels[z : z + 2] for z in range(0, 7, 2)), SHAPE, dtype, SIZE)
    with open_volume(tmp_path / "a.tif", kind="labels") as volume:
        assert volume.dtype == dtype
        assert volume.voxel_size == pytest.approx(SIZE)
        np.testing.assert_array_equal(volume[:], labels)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        # What ImageJ needs: its description, and all slices in one piece behind the first (it ignores the other pages).
        assert file.is_imagej
        assert file.series[0].dataoffset is not None
        assert file.series[0].axes == "ZYX"
        assert file.imagej_metadata | {"unit": "um", "spacing": 0.5, "slices": 7} == file.imagej_metadata
    assert os.listdir(tmp_path) == ["a.tif"]


def test_label_tiff_is_reproducible(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif"):
        write_label_tiff(tmp_path / name, [GREY], SHAPE, np.uint16, SIZE)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_large_label_tiff_is_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "BIGTIFF_BYTES", GREY.nbytes - 1)
    write_label_tiff(tmp_path / "a.tif", [GREY], SHAPE, np.uint16, SIZE)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_bigtiff
        assert file.is_ome
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.voxel_size == pytest.approx(SIZE)
        np.testing.assert_array_equal(volume[:], GREY)


def test_label_dtype() -> None:
    assert label_dtype(65535) == np.uint16
    assert label_dtype(65536) == np.uint32


@pytest.mark.parametrize(
    ("slabs", "match"),
    [
        ([GREY[:, 1:]], r"must make up a volume \(7, 9, 11\); got a slab \(7, 8, 11\)"),
        ([GREY, GREY[:1]], r"got a slab \(1, 9, 11\) at slice 7"),
        ([GREY[:5]], r"must make up a volume \(7, 9, 11\); got 5 slices"),
        ([GREY.astype(np.int32) - 60000], "must hold values of 0 to 65535 for uint16"),
        ([GREY.astype(np.int32) + 60000], "must hold values of 0 to 65535 for uint16"),
    ],
)
def test_bad_slabs_leave_nothing(slabs: list[np.ndarray], match: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=match):
        write_label_tiff(tmp_path / "a.tif", slabs, SHAPE, np.uint16, SIZE)
    assert os.listdir(tmp_path) == []


def test_bad_export_type(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dtype: must be uint8, uint16 or uint32; got int64"):
        write_label_tiff(tmp_path / "a.tif", [GREY], SHAPE, np.int64, SIZE)
