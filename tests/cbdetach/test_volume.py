"""Volumes of every format: the same voxels, the same voxel size in micrometres, one sentence for what is wrong."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st

from cbdetach.errors import InputError
from cbdetach.volume import Volume, check_finite, open_volume, parse_crop, parse_voxel_size, require_voxel_size

SHAPE = (7, 9, 11)
SIZE = (0.5, 0.4, 0.3)
GREY = np.random.default_rng(0).integers(0, 60000, SHAPE).astype(np.uint16)


def tiff(path: Path, data: np.ndarray = GREY, **options: Any) -> Path:
    tifffile.imwrite(path, data, **{"photometric": "minisblack", **options})
    return path


def imagej(
    path: Path, data: np.ndarray = GREY, *, spacing: float | None = 0.5, unit: str | None = "um", **rest: Any
) -> Path:
    metadata = {"axes": "ZYX"} | ({"spacing": spacing} if spacing else {}) | ({"unit": unit} if unit else {})
    return tiff(path, data, imagej=True, resolution=(1 / 0.3, 1 / 0.4), metadata=metadata, **rest)


def folder(path: Path) -> Path:
    path.mkdir()
    for z in range(len(GREY)):  # 8.tif ... 10.tif: the order of the names as text is another
        tiff(path / f"slice_{z + 8}.tif", GREY[z])
    (path / "notes.txt").write_text("not a slice")
    return path


def npy(path: Path, data: np.ndarray = GREY) -> Path:
    np.save(path, data)
    return path


def hdf5(path: Path, name: str = "/entry/tomo", data: np.ndarray = GREY, **options: Any) -> Path:
    with h5py.File(path, "a") as file:
        file.create_dataset(name, data=data, **options)
    return path


def nexus(path: Path, *, unit: str = "um", signal: str = "volume", axes: bool = True) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs["default"] = "result"
        group = entry.create_group("result")
        group.attrs.update({"NX_class": "NXdata", "signal": signal, "axes": ["z", "y", "x"]})
        group["volume"] = GREY
        group["confidence"] = np.zeros(SHAPE, np.float32)
        for name, n, step in zip("zyx", SHAPE, SIZE, strict=True) if axes else []:
            group[name] = np.arange(n) * step + 3
            group[name].attrs["units"] = unit
    return path


def ome_zarr(path: Path, version: str, *, unit: str | None = "micrometer", scale: tuple[float, ...] = SIZE) -> Path:
    """An OME-Zarr image with channel and time axes, two resolutions, and a labels group."""
    zarr_format = 2 if version == "0.4" else 3
    space = {"type": "space"} | ({"unit": unit} if unit else {})
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}, *({"name": n} | space for n in "zyx")]

    def image(group: Any, data: np.ndarray) -> None:
        datasets = []
        for level, step in enumerate((1, 2)):
            group.create_array(str(level), data=data[None, None, ::step, ::step, ::step], chunks=(1, 1, 2, 4, 4))
            transform = {"type": "scale", "scale": [1.0, 1.0, *(s * step for s in scale)]}
            datasets.append({"path": str(level), "coordinateTransformations": [transform]})
        put(group, multiscales=[{"version": version, "axes": axes, "datasets": datasets}])

    def put(group: Any, **attributes: Any) -> None:
        group.attrs.update(attributes if zarr_format == 2 else {"ome": {"version": version, **attributes}})

    root = zarr.open_group(str(path), mode="w", zarr_format=zarr_format)  # type: ignore[arg-type]
    image(root, GREY)
    labels = root.create_group("labels")
    put(labels, labels=["particles"])
    image(labels.create_group("particles"), GREY // 1000)
    return path


def plain_zarr(path: Path, zarr_format: int) -> Path:
    array = zarr.create_array(str(path), shape=SHAPE, chunks=(2, 4, 4), dtype="u2", zarr_format=zarr_format)  # type: ignore[arg-type]
    array[:] = GREY
    return path


FORMATS: dict[str, tuple[Callable[[Path], str | Path], tuple[float, float, float] | None]] = {
    "tiff": (lambda d: tiff(d / "a.tif"), None),
    "tiff big endian": (lambda d: tiff(d / "a.tif", byteorder=">"), None),
    "tiff compressed": (lambda d: tiff(d / "a.tif", compression="zlib"), None),
    "tiff tiled": (lambda d: tiff(d / "a.tif", tile=(16, 16)), None),
    "tiff without metadata": (lambda d: tiff(d / "a.tif", metadata=None), None),
    "tiff with another suffix": (lambda d: tiff(d / "a.dat"), None),
    "bigtiff": (lambda d: tiff(d / "a.tif", bigtiff=True), None),
    "imagej": (lambda d: imagej(d / "a.tif"), SIZE),
    "imagej compressed": (lambda d: imagej(d / "a.tif", compression="zlib"), SIZE),
    "imagej channel": (lambda d: imagej_axes(d / "a.tif", "ZCYX", GREY[:, None]), SIZE),
    "imagej stack of frames": (lambda d: imagej_axes(d / "a.tif", "TYX", GREY), SIZE),
    "ome-tiff": (lambda d: ome_tiff(d / "a.ome.tif"), SIZE),
    "ome-tiff compressed": (lambda d: ome_tiff(d / "a.ome.tif", compression="zlib"), SIZE),
    "folder": (lambda d: folder(d / "slices"), None),
    "npy": (lambda d: npy(d / "a.npy"), None),
    "npy fortran": (lambda d: npy(d / "a.npy", np.asfortranarray(GREY)), None),
    "npy 4d": (lambda d: npy(d / "a.npy", GREY[None]), None),
    "hdf5 path": (lambda d: f"{hdf5(d / 'a.h5')}:/entry/tomo", None),
    "hdf5 only dataset": (lambda d: hdf5(d / "a.nx"), None),
    "hdf5 chunked": (lambda d: hdf5(d / "a.hdf5", chunks=(3, 4, 4), compression="gzip"), None),
    "hdf5 bitshuffle": (lambda d: hdf5(d / "a.h5", **hdf5plugin.Bitshuffle()), None),
    "hdf5 blosc": (lambda d: hdf5(d / "a.h5", **hdf5plugin.Blosc()), None),
    "hdf5 behind a user block": (lambda d: user_block(d / "a.dat"), None),
    "data exchange": (lambda d: hdf5(hdf5(d / "a.h5", "/exchange/data"), "/exchange/data_dark"), None),
    "nexus": (lambda d: nexus(d / "a.nxs"), SIZE),
    "ome-zarr 0.4": (lambda d: ome_zarr(d / "a.zarr", "0.4"), SIZE),
    "ome-zarr 0.5": (lambda d: ome_zarr(d / "a.zarr", "0.5"), SIZE),
    "zarr 2": (lambda d: plain_zarr(d / "a.zarr", 2), None),
    "zarr 3": (lambda d: plain_zarr(d / "a.zarr", 3), None),
}


def imagej_axes(path: Path, axes: str, data: np.ndarray) -> Path:
    metadata = {"axes": axes, "spacing": 0.5, "unit": "um"}
    return tiff(path, data, imagej=True, resolution=(1 / 0.3, 1 / 0.4), metadata=metadata)


def ome_tiff(path: Path, **options: Any) -> Path:
    metadata = {"axes": "ZYX", "PhysicalSizeZ": 0.0005, "PhysicalSizeZUnit": "mm", "PhysicalSizeY": 0.4}
    metadata |= {"PhysicalSizeX": 300, "PhysicalSizeXUnit": "nm"}
    return tiff(path, metadata=metadata, ome=True, **options)


def user_block(path: Path) -> Path:
    with h5py.File(path, "w", userblock_size=512) as file:
        file["tomo"] = GREY
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_reads_the_same(name: str, tmp_path: Path) -> None:
    make, size = FORMATS[name]
    source = make(tmp_path)
    with open_volume(source) as whole:
        assert whole.shape == SHAPE
        assert whole.dtype == np.dtype("=u2")
        assert whole.voxel_size is None if size is None else whole.voxel_size == pytest.approx(size, rel=1e-4)
        np.testing.assert_array_equal(whole[:], GREY)
        assert whole[2:5].dtype == np.dtype("=u2")
        np.testing.assert_array_equal(whole[2:5], GREY[2:5])
        np.testing.assert_array_equal(whole[-1], GREY[-1])
        np.testing.assert_array_equal(whole[2:5, 3, 1:-1], GREY[2:5, 3, 1:-1])
        assert whole[4:4].shape == (0, 9, 11)
    with open_volume(source, crop="1:-1,2:,:10", voxel_size=2) as crop:
        assert crop.shape == (5, 7, 10)
        assert crop.voxel_size == (2.0, 2.0, 2.0)
        np.testing.assert_array_equal(crop[1:3], GREY[2:4, 2:, :10])
        np.testing.assert_array_equal(np.asarray(crop), GREY[1:-1, 2:, :10])
    with open_volume(source, bin=2) as binned:
        blocks = GREY[:6, :8, :10].reshape(3, 2, 4, 2, 5, 2).mean(axis=(1, 3, 5))
        np.testing.assert_array_equal(binned[1:], np.rint(blocks).astype(np.uint16)[1:])
        assert binned.voxel_size is None if size is None else binned.voxel_size == pytest.approx(np.multiply(size, 2))


def test_arrays_and_volumes_open_too() -> None:
    array = open_volume(GREY, voxel_size=(3, 2, 1))
    assert (array.path, array.name, array.ndim, len(array), array.nbytes) == (None, "array", 3, 7, GREY.nbytes)
    again = open_volume(array, crop="1:3,:,:")
    assert again.voxel_size == (3.0, 2.0, 1.0)
    np.testing.assert_array_equal(again[:], GREY[1:3])
    assert open_volume(GREY > 9).dtype == np.uint8
    np.testing.assert_array_equal(open_volume(GREY > 9)[:], GREY > 9)


def test_names(tmp_path: Path) -> None:
    with open_volume(f"{hdf5(tmp_path / 'cell.h5')}:/entry/tomo") as volume:
        assert (volume.path, volume.name, volume.dataset) == (tmp_path / "cell.h5", "cell", "/entry/tomo")
        assert str(volume) == f"{tmp_path / 'cell.h5'}:/entry/tomo"
        assert "(7, 9, 11) uint16" in repr(volume)


def test_a_crop_reads_only_the_crop(tmp_path: Path) -> None:
    source = folder(tmp_path / "slices")
    with open_volume(source, crop="2:4,:,:") as volume:
        (source / "slice_8.tif").unlink()  # slice 0 is no longer there, and not missed
        np.testing.assert_array_equal(volume[:], GREY[2:4])


def test_indices(tmp_path: Path) -> None:
    volume = open_volume(GREY)
    with pytest.raises(IndexError, match="without steps"):
        volume[::2]
    with pytest.raises(IndexError, match="out of range"):
        volume[7]
    with pytest.raises(IndexError, match="3 axes"):
        volume[0, 0, 0, 0]
    assert volume[-7, 0, 10].shape == ()
    assert volume[5:3].shape == (0, 9, 11)


# --- voxel size ------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["um", "µm", "μm", "micron", "micrometer", r"\u00B5m", "Micrometers"])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_imagej_units(unit: str, encoding: str, tmp_path: Path) -> None:
    if (unit, encoding) == ("μm", "latin-1"):
        pytest.skip("the Greek letter is not in Latin-1")
    lines = f"ImageJ=1.53t\nimages=7\nslices=7\nunit={unit}\nspacing=0.5\n".encode(encoding)
    source = tiff(tmp_path / "a.tif", metadata=None, resolution=(1 / 0.3, 1 / 0.4), description=lines)
    with open_volume(source) as volume:
        assert volume.voxel_size == pytest.approx(SIZE, rel=1e-5)


@pytest.mark.parametrize(
    ("unit", "factor"), [("nm", 1e-3), ("mm", 1e3), ("cm", 1e4), ("pixel", None), (None, None), ("parsec", None)]
)
def test_imagej_other_units(unit: str | None, factor: float | None, tmp_path: Path) -> None:
    size = open_volume(imagej(tmp_path / "a.tif", unit=unit)).voxel_size
    assert size is None if factor is None else size == pytest.approx(np.multiply(SIZE, factor), rel=1e-5)


def test_imagej_without_spacing_is_not_guessed(tmp_path: Path) -> None:
    assert open_volume(imagej(tmp_path / "a.tif", spacing=None)).voxel_size is None
    isotropic = tiff(tmp_path / "b.tif", imagej=True, resolution=(1, 1), metadata={"axes": "ZYX", "unit": "um"})
    assert open_volume(isotropic).voxel_size == (1.0, 1.0, 1.0)


def test_imagej_units_per_axis(tmp_path: Path) -> None:
    lines = "ImageJ=1.53t\nimages=7\nslices=7\nunit=nm\nyunit=um\nzunit=mm\nspacing=2\n"
    source = tiff(tmp_path / "a.tif", metadata=None, resolution=(0.5, 0.25), description=lines)
    assert open_volume(source).voxel_size == pytest.approx((2000.0, 4.0, 0.002))


def test_ome_tiff_without_z_size(tmp_path: Path) -> None:
    source = tiff(tmp_path / "a.ome.tif", ome=True, metadata={"axes": "ZYX", "PhysicalSizeY": 1, "PhysicalSizeX": 1})
    assert open_volume(source).voxel_size is None


@pytest.mark.parametrize(
    ("unit", "factor"), [("nm", 1e-3), ("m", 1e6), ("micrometre", 1.0), ("", None), ("pixels", None)]
)
def test_nexus_units(unit: str, factor: float | None, tmp_path: Path) -> None:
    with open_volume(nexus(tmp_path / "a.nxs", unit=unit)) as volume:
        assert (
            volume.voxel_size is None
            if factor is None
            else volume.voxel_size == pytest.approx(np.multiply(SIZE, factor))
        )


def test_nexus_irregular_axis_and_pixel_sizes(tmp_path: Path) -> None:
    source = nexus(tmp_path / "a.nxs")
    with h5py.File(source, "a") as file:
        group = file["entry/result"]
        group["x"][3] += 0.1
    with open_volume(source) as volume:
        assert volume.voxel_size is None
    with h5py.File(source, "a") as file:
        group = file["entry/result"]
        for axis, size in zip("zyx", (700.0, 600.0, 500.0), strict=True):
            group[f"{axis}_pixel_size"] = size
            group[f"{axis}_pixel_size"].attrs["units"] = "nm"
    with open_volume(source) as volume:
        assert volume.voxel_size == pytest.approx((0.7, 0.6, 0.5))


def test_nexus_signal_decides(tmp_path: Path) -> None:
    with open_volume(nexus(tmp_path / "a.nxs", signal="confidence")) as volume:
        assert volume.dataset == "/entry/result/confidence"
        assert volume.dtype == np.float32


@pytest.mark.parametrize("group", ["/entry", "/entry/result"])
def test_the_default_of_a_nexus_group_that_is_named(group: str, tmp_path: Path) -> None:
    with open_volume(f"{nexus(tmp_path / 'a.nxs')}:{group}") as volume:
        assert volume.dataset == "/entry/result/volume"


def test_element_size_um(tmp_path: Path) -> None:
    source = hdf5(tmp_path / "a.h5")
    with h5py.File(source, "a") as file:
        file["entry/tomo"].attrs["element_size_um"] = np.float32(SIZE)
    with open_volume(source) as volume:
        assert volume.voxel_size == pytest.approx(SIZE)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_units_and_labels(version: str, tmp_path: Path) -> None:
    source = ome_zarr(tmp_path / "a.zarr", version, unit="nanometer", scale=(500, 400, 300))
    assert open_volume(source).voxel_size == pytest.approx(SIZE)
    for name in ("labels", "/labels/particles", "labels/particles/0"):
        labels = open_volume(f"{source}:{name}", kind="labels")
        np.testing.assert_array_equal(labels[:], GREY // 1000)
    np.testing.assert_array_equal(open_volume(source / "labels" / "particles")[:], GREY // 1000)
    assert open_volume(ome_zarr(tmp_path / "b.zarr", version, unit=None)).voxel_size is None
    assert open_volume(ome_zarr(tmp_path / "c.zarr", version, scale=(0.5, 0.4, 0))).voxel_size is None


def test_zarr_group_with_one_array(tmp_path: Path) -> None:
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    root.create_array("tomo", data=GREY)
    np.testing.assert_array_equal(open_volume(tmp_path / "a.zarr")[:], GREY)


def test_bioformats2raw_layout(tmp_path: Path) -> None:
    ome_zarr(tmp_path / "a.zarr" / "0", "0.4")
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="a", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    assert open_volume(tmp_path / "a.zarr").voxel_size == pytest.approx(SIZE)


def test_voxel_size_argument() -> None:
    assert parse_voxel_size(0.4) == (0.4, 0.4, 0.4)
    assert parse_voxel_size("0.4") == (0.4, 0.4, 0.4)
    assert parse_voxel_size(" 0.5, 0.4 ,0.3") == SIZE
    assert parse_voxel_size(np.array(SIZE)) == SIZE
    assert open_volume(GREY, voxel_size=SIZE, bin=3).voxel_size == pytest.approx((1.5, 1.2, 0.9))


@pytest.mark.parametrize(
    "bad", [0, -1.0, math.nan, math.inf, "x", "", "1,2", "1,2,3,4", "1;2;3", (1, 2), (1, 1, 0), None]
)
def test_bad_voxel_size(bad: Any) -> None:
    with pytest.raises(
        InputError, match=r"--voxel-size: must be one positive number or three \(z,y,x\), in micrometres; got"
    ):
        parse_voxel_size(bad)


def test_voxel_size_is_required() -> None:
    with pytest.raises(
        InputError, match=r"--voxel-size: the array does not state one.*; give it in micrometres, N or Z,Y,X"
    ):
        require_voxel_size(open_volume(GREY))
    assert require_voxel_size(open_volume(GREY, voxel_size=2)) == (2.0, 2.0, 2.0)


# --- crop and bin ----------------------------------------------------------------------------------


def test_parse_crop() -> None:
    assert parse_crop("1:2,:,3:") == (slice(1, 2), slice(None, None), slice(3, None))
    assert parse_crop(" 0 : 5 , -4:-1,:7") == (slice(0, 5), slice(-4, -1), slice(None, 7))


@pytest.mark.parametrize(
    "bad", ["", "1:2", "1:2,3:4", "1:2:3,:,:", "a:b,:,:", "1,2,3", "-:5,:,:", "1.5:2,:,:", ":,:,:,:"]
)
def test_malformed_crop(bad: str) -> None:
    with pytest.raises(InputError, match="crop: must be z0:z1,y0:y1,x0:x1 in voxels"):
        open_volume(GREY, crop=bad)


@pytest.mark.parametrize(
    ("crop", "named"),
    [
        ("0:8,:,:", "z = 0:8 of 0:7"),
        (":,9:,:", "y = 9: of 0:9"),
        (":,:,-12:", "x = -12: of 0:11"),
        ("5:2,:,:", "z = 5:2 of 0:7"),
    ],
)
def test_crop_outside(crop: str, named: str) -> None:
    with pytest.raises(InputError, match=f"crop: must lie inside the volume of shape .*{named}"):
        open_volume(GREY, crop=crop)


def test_crop_as_slices() -> None:
    np.testing.assert_array_equal(
        open_volume(GREY, crop=(slice(1, 3), slice(None), slice(-2, None)))[:], GREY[1:3, :, -2:]
    )
    with pytest.raises(InputError, match="crop: must be three slices"):
        open_volume(GREY, crop=(slice(0, 4, 2), slice(None), slice(None)))


@pytest.mark.parametrize("bad", [0, -1, 8, 1.5, True, "2"])
def test_bad_bin(bad: Any) -> None:
    with pytest.raises(InputError, match="bin: must be a whole number from 1 to 7, for the shape"):
        open_volume(GREY, bin=bad)


def test_bad_kind() -> None:
    with pytest.raises(InputError, match="kind: must be 'grey' or 'labels'; got 'colour'"):
        open_volume(GREY, kind="colour")  # type: ignore[arg-type]


def test_binned_floats_are_not_rounded() -> None:
    grey = GREY.astype(np.float32) / 7
    expected = grey[:6, :8, :10].reshape(3, 2, 4, 2, 5, 2).astype(np.float64).mean(axis=(1, 3, 5))
    binned = open_volume(grey, bin=2)[:]
    assert binned.dtype == np.float32
    np.testing.assert_allclose(binned, expected, rtol=1e-6)


@given(st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_binned_labels_are_the_most_frequent(n: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 4, (6, 7, 8)).astype(np.int32)
    binned = open_volume(labels, bin=n, kind="labels")[:]
    for z, y, x in np.ndindex(binned.shape):
        counts = Counter(labels[z * n : (z + 1) * n, y * n : (y + 1) * n, x * n : (x + 1) * n].ravel().tolist())
        most = max(counts.values())
        assert binned[z, y, x] == min(label for label, count in counts.items() if count == most)


@given(st.integers(1, 3), st.integers(1, 7), st.sampled_from(["grey", "labels"]))
def test_slab_by_slab_equals_whole(bin: int, thickness: int, kind: Any) -> None:
    volume = open_volume(GREY, crop="1:,:,2:10", bin=bin, kind=kind)
    slabs = [volume[z : z + thickness] for z in range(0, len(volume), thickness)]
    np.testing.assert_array_equal(np.concatenate(slabs), volume[:])


# --- what is wrong with a file ---------------------------------------------------------------------


def refused(source: Any, match: str, **options: Any) -> None:
    with pytest.raises(InputError, match=match) as caught:
        open_volume(source, **options)
    assert "\n" not in str(caught.value)


def test_missing_and_empty(tmp_path: Path) -> None:
    refused(tmp_path / "no.tif", r"must be an existing file or folder; got '.*no\.tif', which does not exist")
    refused(f"{tmp_path}/no.h5:/entry/data", r"got '.*no\.h5', which does not exist")
    (tmp_path / "empty.tif").touch()
    refused(tmp_path / "empty.tif", r"must be an image file; got .*empty\.tif, which is empty")
    refused(3, "must be a path or a NumPy array; got int")


def test_unknown_format(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"\x89PNG\r\n\x1a\n and more")
    refused(tmp_path / "a.tif", r"must be TIFF, HDF5, OME-Zarr, Zarr or NumPy \.npy; got .*a\.tif, which is none")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(tmp_path: Path) -> None:
    source = tiff(tmp_path / "a.tif")
    source.chmod(0)
    refused(source, "must be a readable file; got .*Permission denied")


def test_wrong_dataset(tmp_path: Path) -> None:
    source = hdf5(hdf5(tmp_path / "a.h5", "/entry/one"), "/entry/two")
    hdf5(hdf5(source, "/entry/mask", GREY[0]), "/entry/text", np.full((2, 2, 2), b"no"))
    named = r"Three-dimensional datasets there: /entry/one \(7, 9, 11\), /entry/two \(7, 9, 11\)\."
    refused(source, r"must name one dataset of .*a\.h5, as a\.h5:/path; got no path\. " + named)
    refused(f"{source}:/entry/three", "got '/entry/three'. " + named)
    refused(f"{source}:/entry", "got '/entry'. " + named)
    refused(hdf5(tmp_path / "b.h5", "/mask", GREY[0]), "Three-dimensional datasets there: none")
    refused(f"{tiff(tmp_path / 'a.tif')}:/entry", "a path after ':' is for HDF5 and Zarr only; got '/entry'")


def test_broken_nexus_chain_falls_back(tmp_path: Path) -> None:
    source = hdf5(tmp_path / "a.nxs")
    with h5py.File(source, "a") as file:
        file.attrs["default"] = "gone"
    np.testing.assert_array_equal(open_volume(source)[:], GREY)


def test_wrong_zarr(tmp_path: Path) -> None:
    source = ome_zarr(tmp_path / "a.zarr", "0.5")
    refused(f"{source}:/labels/cracks", "must name a Zarr array or an OME-Zarr image; got '/labels/cracks' in")
    root = zarr.open_group(str(tmp_path / "b.zarr"), mode="w")
    refused(tmp_path / "b.zarr", "must name one array as b.zarr:/path; got .* Arrays there: none")
    root.create_array("one", data=GREY)
    root.create_array("two", data=GREY)
    refused(tmp_path / "b.zarr", "Arrays there: one, two")
    (tmp_path / "c.zarr").mkdir()
    (tmp_path / "c.zarr" / "zarr.json").write_text("{")
    refused(tmp_path / "c.zarr", "must name a Zarr array or an OME-Zarr image; got .*c.zarr")


@pytest.mark.parametrize("data", [GREY[0], np.zeros((2, 3, 4, 5)), np.zeros(4), np.zeros((2, 7, 9, 11), np.uint8)])
def test_wrong_number_of_axes(data: np.ndarray, tmp_path: Path) -> None:
    refused(data, r"must have three axes \(z, y, x\); got shape \(.*\) in the array")
    refused(npy(tmp_path / "a.npy", data), r"must have three axes \(z, y, x\); got shape \(.*\) in .*a\.npy")
    refused(f"{hdf5(tmp_path / 'a.h5', '/data', data)}:/data", r"must have three axes \(z, y, x\); got shape")


def test_a_single_slice_is_taken_only_when_told(tmp_path: Path) -> None:
    source = tiff(tmp_path / "a.tif", GREY[0])
    refused(source, r"got shape \(9, 11\) in .*a\.tif\. Give the whole stack of slices\.")
    for one in (source, GREY[0]):
        with open_volume(one, allow_2d=True, crop=":,2:,:") as volume:
            assert volume.shape == (1, 7, 11)
            np.testing.assert_array_equal(volume[:], GREY[:1, 2:])
            assert volume[1:].shape == (0, 7, 11)


def test_colour_is_refused(tmp_path: Path) -> None:
    refused(tiff(tmp_path / "a.tif", np.zeros((9, 11, 3), np.uint8), photometric="rgb"), "Extract one channel")
    refused(tiff(tmp_path / "b.tif", np.zeros((7, 9, 11, 3), np.uint8), photometric="rgb"), "Extract one channel")


@pytest.mark.parametrize("dtype", ["c8", "S3", "U3", "M8[s]", "f16"])
def test_wrong_type(dtype: str, tmp_path: Path) -> None:
    refused(np.zeros(SHAPE, dtype), "must hold real numbers of up to 64 bits; got dtype")


def test_empty_axes() -> None:
    refused(np.zeros((0, 3, 3)), r"must hold at least one voxel; got shape \(0, 3, 3\)")


def test_npy_defects(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[[object()]]]), allow_pickle=True)
    refused(tmp_path / "a.npy", r"must be a whole \.npy file of numbers")
    whole = npy(tmp_path / "b.npy").read_bytes()
    (tmp_path / "b.npy").write_bytes(whole[:-100])
    refused(tmp_path / "b.npy", r"must be a whole \.npy file of numbers")


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"bigtiff": True}, {"imagej": True}, {"metadata": None}]
)
def test_truncated_tiff(options: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = tiff(tmp_path / "a.tif", **options).read_bytes()
    with open_volume(tmp_path / "a.tif") as volume:
        np.testing.assert_array_equal(volume[:], GREY)
    for size in (20, 60, 200, len(whole) // 3, len(whole) // 2, len(whole) * 4 // 5):
        (tmp_path / "cut.tif").write_bytes(whole[:size])
        if size < GREY.nbytes:
            refused(tmp_path / "cut.tif", r"must be a whole TIFF file; got .*cut\.tif")
        else:  # all voxels are there: an ImageJ stack needs no more than the first page's description
            with suppress(InputError), open_volume(tmp_path / "cut.tif") as volume:
                np.testing.assert_array_equal(volume[:], GREY)
    assert not caplog.records


def test_truncated_hdf5(tmp_path: Path) -> None:
    whole = hdf5(tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "a.h5", r"must be a whole HDF5 file; got .*a\.h5")


def test_damage_found_while_reading(tmp_path: Path) -> None:
    source = hdf5(tmp_path / "a.h5", chunks=(1, 9, 11), compression="gzip")
    with h5py.File(source) as file:
        where = file["entry/tomo"].id.get_chunk_info(3).byte_offset
    with source.open("r+b") as raw:
        raw.seek(where)
        raw.write(b"\xff" * 40)
    with open_volume(source) as volume:
        np.testing.assert_array_equal(volume[:3], GREY[:3])
        with pytest.raises(InputError, match=r"slices 3:4 of .*a\.h5:/entry/tomo could not be read .*damaged"):
            volume[3]


def test_damaged_tiff_page(tmp_path: Path) -> None:
    source = tiff(tmp_path / "a.tif", compression="zlib")
    with tifffile.TiffFile(source) as file:
        where = file.pages[3].dataoffsets[0]
    with source.open("r+b") as raw:
        raw.seek(where)
        raw.write(b"\xff" * 40)
    with open_volume(source) as volume, pytest.raises(InputError, match=r"page 3 of .*a\.tif is unreadable"):
        volume[3]


def test_ome_tiff_over_several_files_of_which_one_is_missing(tmp_path: Path) -> None:
    ome_tiff(tmp_path / "a.ome.tif", compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        xml = file.ome_metadata
    assert xml is not None
    uuid = "urn:uuid:00000000-0000-0000-0000-000000000000"
    elsewhere = f'<TiffData IFD="0" FirstZ="6" PlaneCount="1"><UUID FileName="b.ome.tif">{uuid}</UUID></TiffData>'
    split = xml.replace('<TiffData IFD="0" PlaneCount="7"/>', f'<TiffData IFD="0" PlaneCount="6"/>{elsewhere}')
    assert split != xml
    source = tiff(tmp_path / "c.ome.tif", GREY[:6], compression="zlib", metadata=None, description=split.encode())
    with open_volume(source) as volume:
        assert volume.shape == SHAPE
        np.testing.assert_array_equal(volume[:6], GREY[:6])
        with pytest.raises(InputError, match=r"a slice of .*c\.ome\.tif lies in another file, which is missing"):
            volume[6]


@pytest.mark.skipif(find_spec("imagecodecs") is not None, reason="imagecodecs is installed")
def test_lzw_needs_imagecodecs(tmp_path: Path) -> None:
    source = tiff(tmp_path / "a.tif", metadata=None)
    with tifffile.TiffFile(source, mode="r+b") as file:
        for page in file.pages:
            page.tags["Compression"].overwrite(5)
    with open_volume(source) as volume, pytest.raises(InputError, match=r"is unreadable .*pip install imagecodecs"):
        volume[0]


def test_closed_volume(tmp_path: Path) -> None:
    volume = open_volume(hdf5(tmp_path / "a.h5"))
    volume.close()
    with pytest.raises(InputError, match="could not be read"):
        volume[0]


def test_tiff_with_unequal_pages(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for n in (9, 9, 8):
            writer.write(GREY[0, :n], metadata=None, photometric="minisblack")
    refused(tmp_path / "a.tif", r"must have slices of one shape and type; got \(2, 9, 11\) and \(8, 11\) in .*a\.tif")


def test_bad_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "must be a folder with TIFF slices, or a Zarr store; got .*empty, which has neither")
    source = folder(tmp_path / "slices")
    tiff(source / "slice_11.tif", GREY[0, :-1])
    first = r"shape and type of the first \(slice_\d+\.tif\), \(9, 11\) uint16"
    refused(source, first + r"; got \(8, 11\) uint16 in .*slice_11\.tif")
    tiff(source / "slice_11.tif", GREY[0].astype(np.uint8))
    refused(source, r"got \(9, 11\) uint8 in .*slice_11\.tif")
    tiff(source / "slice_11.tif")
    refused(source, r"every file of a folder must be one grey slice; got .*slice_11\.tif with 7 pages")
    (source / "slice_11.tif").write_bytes(b"II*\0")
    refused(source, r"all slices must be whole TIFF files; got .*slice_11\.tif")


def test_a_folder_with_a_slice_missing(tmp_path: Path) -> None:
    """A stack with a hole would be measured as if there were none."""
    source = folder(tmp_path / "slices")
    (source / "slice_10.tif").unlink()
    refused(source, r"slices' numbers must go up by one step, here 1; got .*slice_11\.tif after slice_9\.tif\. Add the")
    (source / "slice_11.tif").rename(source / "rest.tif")  # names of another kind are nobody's business
    assert open_volume(source).shape[0] == len(GREY) - 1


def test_a_folder_of_every_tenth_slice(tmp_path: Path) -> None:
    (tmp_path / "slices").mkdir()
    for z in range(3):
        tiff(tmp_path / "slices" / f"2026_{10 * z:04d}.tif", GREY[z])
    assert open_volume(tmp_path / "slices").shape[0] == 3


def test_check_finite() -> None:
    slab = np.zeros((3, 4, 5), np.float32)
    check_finite(slab)
    check_finite(np.zeros((1, 2, 3), np.uint8))
    slab[2, 1, 3] = np.nan
    with pytest.raises(InputError, match=r"must hold finite values only; got nan at voxel \(z, y, x\) = \(12, 1, 3\)"):
        check_finite(slab, z0=10)
    slab[0, 0, 1] = -np.inf
    with pytest.raises(InputError, match=r"got -inf at voxel \(z, y, x\) = \(0, 0, 1\)"):
        check_finite(slab)


# --- measured volumes ------------------------------------------------------------------------------


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("nmc_cathode_3phase.tif", (251, 301, 301)),
        ("grains_binary.tif", (501, 501, 300)),
        ("sand_grey.tif", (100, 200, 200)),
    ],
)
def test_measured_volumes(name: str, shape: tuple[int, int, int], real_data: Path) -> None:
    with open_volume(real_data / name) as volume:
        assert volume.shape == shape
        assert volume.dtype == np.uint8
        np.testing.assert_array_equal(volume[40:42], tifffile.imread(real_data / name)[40:42])
        assert isinstance(volume, Volume)


@pytest.mark.real_data
def test_measured_slices_need_to_be_meant(real_data: Path) -> None:
    refused(real_data / "nmc_slice_grey_b.tif", r"must have three axes \(z, y, x\); got shape \(655, 2048\)")
    with open_volume(real_data / "nmc_slice_grey_b.tif", allow_2d=True) as volume:
        assert volume.shape == (1, 655, 2048)
