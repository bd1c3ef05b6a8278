"""A run in napari: layers that read what is drawn and no more, the values of the table, and what is wrong.

What napari itself makes of the layers is tested where it is installed (`pip install '.[napari]'`), skipped elsewhere.
"""

from __future__ import annotations

import logging
import re
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from cbdetach import viewer
from cbdetach.config import validate
from cbdetach.errors import InputError
from cbdetach.report import style
from cbdetach.report.drawing import colour_map
from cbdetach.results import Run, open_run
from cbdetach.store import RunFolder, partition
from cbdetach.table import COLUMNS
from cbdetach.viewer import Bands, Layer, Lazy, layers, scales
from cbdetach.volume import open_volume

Array = npt.NDArray[Any]

PROJECT = Path(__file__).resolve().parents[2]
SHAPE, VOXEL = (20, 12, 14), (0.5, 0.25, 0.4)
VOLUMES = {
    "particles": ("link", "particles"),
    "phases": ("phases", "phases"),
    "diffusion_length": ("diffusion", "diffusion_length"),
    "damage": ("damage", "damage"),
}
CONNECTED = {"cbd_connected": ("connected", "connected"), "cbd_connected26": ("connected", "connected26")}
CROP, BIN = "1:41,2:26,0:28", 2
DETACHMENT = "detachment (0 light, 1 dark)"
NAMES = ["grey values", "phases", "damage (1/um)", "diffusion length (um)", "particles", DETACHMENT, "longest paths"]


def made() -> dict[str, Array]:
    """Volumes of a run with the particles 3 and 7."""
    particles = np.zeros(SHAPE, np.int32)
    particles[1:9, 2:6, 3:9] = 3
    particles[8:20, 6:11, 2:7] = 7
    phases = np.where(particles > 0, 2, np.indices(SHAPE).sum(axis=0) % 2).astype(np.uint8)
    length = np.where(particles > 0, np.indices(SHAPE)[1], np.nan).astype(np.float32)
    connected = np.where(phases == 1, 1 + np.indices(SHAPE)[0] % 3, 0).astype(np.uint8)
    damage = np.where(particles > 0, 0, np.nan).astype(np.float32)
    named = {"particles": particles, "phases": phases, "diffusion_length": length, "damage": damage}
    return named | {"connected": connected, "connected26": connected}


def make_run(path: Path, *, is_known: bool = True, is_connected: bool = False, **record: Any) -> Path:
    """The folder of a run, as the driver leaves it, without its figures; beside it the grey volume, if not there."""
    folder, volumes = RunFolder(path, partition(SHAPE[0], 8)), made()
    paths_of = {3: np.array([[2, y, 4] for y in (3, 3.5, 4, 4.5, 5)]), 7: np.full((3, 3), [[9], [9.5], [10]])}
    for index, (z0, z1) in enumerate(folder.slabs):
        points = list(paths_of.values()) if index == 0 else []
        paths = {
            "path_points": np.concatenate([np.zeros((0, 3)), *points]),
            "path_count": np.array([len(p) for p in points], dtype=np.int64),
            "path_labels": np.array([*paths_of][: len(points)], dtype=np.int64),
        }
        for stage, name in (VOLUMES | CONNECTED).values():
            tables = {f"table/{k}": v for k, v in paths.items()} if stage == "diffusion" else {}
            if not (stage == "connected" and name == "connected26"):
                both = {"connected26": volumes["connected26"][z0:z1]} if stage == "connected" else {}
                folder.write_slab(stage, index, {name: volumes[name][z0:z1], **both, **tables})
    named = VOLUMES | (CONNECTED if is_connected else {})
    folder.write_volumes(named, SHAPE, VOXEL)
    table = pd.DataFrame({name: np.full(2, np.nan) for name in COLUMNS})
    table["label"], table["touches_border"], table["diffusion_status"] = [3, 7], [False, True], "reached"
    if is_known:
        table["detachment_fraction"] = [0.25, np.nan]
    table["crack_fraction"] = [0.125, 0.5]
    table.to_parquet(path / "particles.parquet", index=False)
    grey = path.parent / "grey.npy"
    if not grey.exists():
        np.save(grey, np.random.default_rng(0).integers(0, 60000, (43, 27, 30)).astype(np.uint16))
    inputs = {"volume": str(grey), "crop": CROP, "bin": BIN}
    known = {"source": "grey.npy", "shape": SHAPE, "dtype": "uint16", "bytes": grey.stat().st_size}
    folder.write_record(
        {
            "finished": True,
            "counts": {"found": 2},
            "settings": validate({"input": inputs}).to_dict(),
            "input": {"volume": known},
            "slabs": folder.slabs,
            "shape": SHAPE,
            "voxel_size_um": VOXEL,
            "volumes": named,
        }
        | record
    )
    return path


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with open_run(make_run(tmp_path / "run")) as found:
        yield found


def by_name(shown: list[Layer]) -> dict[str, Layer]:
    return {options["name"]: (data, options, kind) for data, options, kind in shown}


class Noted:
    """A volume that notes what is read of it."""

    def __init__(self, values: Array) -> None:
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        self.windows: list[tuple[int, ...]] = []

    def __getitem__(self, window: Any) -> Array:
        block = self.values[window]
        self.windows.append(block.shape)
        return block


# ---- volumes that are read where they are drawn ----------------------------------------------------------------------

KEYS: list[Any] = [
    (),
    3,
    -1,
    slice(2, 9),
    (slice(None), 4),
    (5, slice(1, 7), slice(None)),
    (slice(None), slice(None), 6),
    (slice(18, 2, -3), slice(None, None, 5), slice(9, 3, -1)),
    (1, 2, 3),
    (..., 2),
    (2, ...),
    (slice(1, 3), ..., 0),
    ...,
    (0, 1, 2, ...),
    (slice(4, 4),),
    (slice(None), slice(3, 3)),
]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_a_lazy_array_is_what_numpy_slices(key: Any) -> None:
    values = np.arange(20 * 12 * 14).reshape(20, 12, 14)
    source = Noted(values)
    part = Lazy(source, [np.arange(n) for n in values.shape])[key]
    assert source.windows == []
    assert (part.shape, part.ndim, part.size, part.dtype) == (
        values[key].shape,
        values[key].ndim,
        values[key].size,
        values.dtype,
    )
    np.testing.assert_array_equal(np.asarray(part), values[key])
    assert all(window[0] <= viewer.BAND for window in source.windows)


def test_a_lazy_array_slices_again() -> None:
    values = np.arange(20 * 12 * 14).reshape(20, 12, 14)
    part = Lazy(values, [np.arange(n) for n in values.shape])[:, 2:9, 1:13][4]
    assert len(part) == 7
    np.testing.assert_array_equal(part[1:, -3], values[4, 3:9, 10])
    assert np.asarray(part, dtype=np.float32).dtype == np.float32
    with pytest.raises(IndexError, match="there are 2 axes; got 3 indices"):
        part[0, 0, 0]


def test_a_large_volume_has_a_coarse_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of voxels at the middle of their share: napari takes the quotient of the shapes for the coarse voxel's size."""
    values = np.arange(20 * 12 * 14).reshape(20, 12, 14)
    assert isinstance(scales(values), Lazy)
    monkeypatch.setattr(viewer, "WHOLE", 500)
    exact, coarse = scales(source := Noted(values))
    np.testing.assert_array_equal(np.asarray(exact), values)
    assert coarse.shape == (10, 6, 7)
    np.testing.assert_array_equal(np.asarray(coarse), values[1::2, 1::2, 1::2])
    assert max(window[0] for window in source.windows) <= viewer.BAND
    monkeypatch.setattr(viewer, "WHOLE", 100)
    _, coarser = scales(values)
    assert coarser.shape == (5, 3, 3)
    np.testing.assert_array_equal(np.asarray(coarser), values[2::4][:, 2::4][:, :, [2, 7, 11]])
    monkeypatch.setattr(viewer, "WHOLE", 1)
    assert scales(np.zeros((2, 30, 30)))[1].shape == (1, 2, 2)


def test_slices_of_a_band_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Noted(np.arange(20 * 12 * 14).reshape(20, 12, 14))
    volume = Lazy(Bands(source), [np.arange(n) for n in source.shape])
    for z in (*range(20), 9, 18):
        np.testing.assert_array_equal(np.asarray(volume[z]), source.values[z])
    assert source.windows == [(8, 12, 14), (8, 12, 14), (4, 12, 14)]
    np.testing.assert_array_equal(np.asarray(volume[10, 2:5, 3:7]), source.values[10, 2:5, 3:7])
    assert len(source.windows) == 3
    np.testing.assert_array_equal(np.asarray(volume[0]), source.values[0])
    np.testing.assert_array_equal(np.asarray(volume[17, 1:, 1:]), source.values[17, 1:, 1:])
    assert source.windows[3:] == [(8, 12, 14)]
    np.testing.assert_array_equal(np.asarray(volume[9]), source.values[9])
    assert source.windows[4:] == [(8, 12, 14)]
    source.windows.clear()
    np.testing.assert_array_equal(np.asarray(volume[1:10, 4]), source.values[1:10, 4])
    assert source.windows == [(7, 1, 14), (2, 1, 14)]
    monkeypatch.setattr(viewer, "KEPT", 8 * 12 * 14 - 1)
    large = Lazy(Bands(source), [np.arange(n) for n in source.shape])
    np.testing.assert_array_equal(np.asarray(large[1:3]), source.values[1:3])
    assert source.windows[2:] == [(2, 12, 14)]


# ---- layers ----------------------------------------------------------------------------------------------------------


def test_layers_of_a_run(run: Run) -> None:
    shown = layers(run)
    assert [options["name"] for _, options, _ in shown] == NAMES
    assert [options["name"] for _, options, _ in shown if options["visible"]] == ["grey values", DETACHMENT]
    volumes = made()
    for (data, options, kind), name in zip(shown[1:6], [*VOLUMES, "particles"], strict=True):
        wanted = {"phases": "phases", "damage (1/um)": "damage", "diffusion length (um)": "diffusion_length"}
        values = volumes[wanted.get(options["name"], "particles")]
        np.testing.assert_array_equal(np.asarray(data), values, err_msg=name)
        assert kind == ("image" if values.dtype == np.float32 else "labels")
    for _, options, _ in shown:
        assert options["scale"] == VOXEL
        assert options["units"] == ("um", "um", "um")
        assert options["axis_labels"] == ("z", "y", "x")
        assert options["metadata"]["run"] == str(run.path)
    length, damage = (by_name(shown)[name][1] for name in ("diffusion length (um)", "damage (1/um)"))
    assert length["contrast_limits"] == (0, 10)
    assert damage["contrast_limits"] == (0, 1)
    assert (length["colormap"], damage["colormap"]) == (style.LENGTH_MAP, style.DAMAGE_MAP)
    assert (length["metadata"]["unit"], damage["metadata"]["unit"]) == ("um", "1/um")


def test_layers_read_a_few_slices(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {name: Noted(volume[()]) for name, volume in run.volumes.items()}
    monkeypatch.setitem(run.__dict__, "volumes", sources)
    layers(run)
    assert {name: len(source.windows) for name, source in sources.items()} == {
        "particles": 0,
        "phases": 0,
        "diffusion_length": 3,
        "damage": 3,
    }
    assert all(window == SHAPE[1:] for source in sources.values() for window in source.windows)


def test_rows_of_the_table_go_with_the_particles(run: Run) -> None:
    shown = by_name(layers(run))
    for name in ("particles", DETACHMENT):
        rows = shown[name][1]["features"]
        assert rows["index"].tolist() == [0, 3, 7]
        assert list(rows.columns[1 : 1 + len(viewer.FIRST)]) == list(viewer.FIRST)
        assert {*rows.columns} == {"index", *COLUMNS} - {"label"}
        assert rows["crack_fraction"].tolist()[1:] == [0.125, 0.5]
        assert rows["touches_border"].tolist()[1:] == [False, True]
        assert rows.drop(columns="index").iloc[0].isna().all()
    assert "colormap" not in shown["particles"][1]


def test_colours_are_those_of_the_report(run: Run) -> None:
    shown = by_name(layers(run))
    colours = shown[DETACHMENT][1]["colormap"]
    assert set(colours) == {None, 0, 3, 7}
    assert (colours[None], colours[0]) == ("transparent", "transparent")
    np.testing.assert_allclose(style.rgb(colours[3]), colour_map(style.DETACHMENT_MAP)(0.25)[:3], atol=0.002)
    assert colours[7] == style.NO_VALUE
    phases = shown["phases"][1]
    assert {code: phases["colormap"][code] for code in style.PHASES} == {c: v for c, (_, v) in style.PHASES.items()}
    assert phases["features"] == {"index": [0, 1, 2, 3, 4], "phase": [name for name, _ in style.PHASES.values()]}


def test_without_detachment_particles_are_shown(tmp_path: Path) -> None:
    with open_run(make_run(tmp_path / "run", is_known=False)) as run:
        shown = by_name(layers(run))
    assert list(shown) == [name for name in NAMES if name != DETACHMENT]
    assert shown["particles"][1]["visible"]


def test_connected_carbon_binder(tmp_path: Path) -> None:
    with open_run(make_run(tmp_path / "run", is_connected=True)) as run:
        shown = by_name(layers(run))
        for name, kind in (("cbd_connected", "connected"), ("cbd_connected26", "connected26")):
            data, options, _ = shown[name]
            np.testing.assert_array_equal(np.asarray(data), made()[kind])
            assert options["features"]["carbon_binder"] == ["connected", "undetermined", "isolated"]
            assert options["colormap"][1] == style.CBD
            assert options["colormap"][0] == "transparent"
    assert list(shown)[2:4] == ["cbd_connected", "cbd_connected26"]


def test_longest_paths(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    segments, options, kind = by_name(layers(run))["longest paths"]
    assert kind == "vectors"
    first, last = [[[2, 3, 4], [0, 1, 0]], [[2, 4, 4], [0, 1, 0]]], [[[9] * 3, [0.5] * 3], [[9.5] * 3, [0.5] * 3]]
    np.testing.assert_array_equal(segments, [*first, *last])
    assert options["features"]["label"].tolist() == [3, 3, 7, 7]
    monkeypatch.setattr(viewer, "SEGMENTS", 1)
    np.testing.assert_array_equal(viewer.longest_paths(run)[0], [[[2, 3, 4], [0, 2, 0]], [[9] * 3, [1] * 3]])


def test_a_run_without_paths(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run")
    folder = RunFolder(path, partition(SHAPE[0], 8))
    for index, (z0, z1) in enumerate(folder.slabs):
        empty = {"path_points": np.zeros((0, 3)), "path_count": np.zeros(0, int), "path_labels": np.zeros(0, int)}
        tables = {f"table/{name}": values for name, values in empty.items()}
        folder.write_slab(
            "diffusion", index, {"diffusion_length": np.full((z1 - z0, *SHAPE[1:]), np.nan, "f4"), **tables}
        )
    with open_run(path) as run:
        shown = by_name(layers(run))
    assert list(shown) == NAMES[:-1]
    assert shown["diffusion length (um)"][1]["contrast_limits"] == (0, 1)


# ---- the grey volume -------------------------------------------------------------------------------------------------


def test_grey_values_are_cropped_and_binned_as_the_run_did(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    data, options, _ = layers(run)[0]
    with open_volume(run.path.parent / "grey.npy", crop=CROP, bin=BIN) as grey:
        np.testing.assert_array_equal(np.asarray(data), grey[:])
        low, high = np.quantile([grey[z] for z in (5, 10, 15)], (0.005, 0.995))
    assert options["contrast_limits"] == (low, high)
    assert caplog.records == []


@pytest.mark.parametrize("what", ["gone", "other", "array"])
def test_without_the_grey_volume_the_rest_is_shown(what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, grey = make_run(tmp_path / "run"), tmp_path / "grey.npy"
    if what == "gone":
        grey.unlink()
        said = f"must be an existing file or folder; got '{grey}', which does not exist."
    elif what == "other":
        np.save(grey, np.zeros((50, 40, 30), np.uint8))
        said = "grey.npy had the shape (20, 12, 14) of uint16 when it was measured."
    else:
        make_run(path, input={"volume": {"source": "the array", "shape": SHAPE, "sha256": "0"}})
        said = "it was given as an array."
    with open_run(path) as run:
        shown = by_name(layers(run))
    assert list(shown) == NAMES[1:]
    assert shown["phases"][1]["visible"]
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (logging.WARNING, f"The grey volume is not shown: {said}")
    ]


def test_a_grey_volume_that_has_changed_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = make_run(tmp_path / "run")
    with (tmp_path / "grey.npy").open("ab") as file:
        file.write(b"more")
    with open_run(path) as run:
        assert layers(run)[0][1]["name"] == "grey values"
    assert [r.getMessage() for r in caplog.records] == ["The grey volume has changed since it was measured: grey.npy."]


def test_a_run_of_phases_alone_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_run(make_run(tmp_path / "run", input={}, settings=validate({}).to_dict())) as run:
        assert [options["name"] for _, options, _ in layers(run)] == NAMES[1:]
    assert caplog.records == []


# ---- the plugin, and what is wrong -----------------------------------------------------------------------------------


def test_the_reader_takes_runs_alone(run: Run, tmp_path: Path) -> None:
    for other in (tmp_path, tmp_path / "grey.npy", tmp_path / "none", tmp_path / "none" / "run.json"):
        assert viewer.get_reader(str(other)) is None
    assert viewer.get_reader([str(run.path)]) is None
    for path in (str(run.path), str(run.path / "run.json")):
        reader = viewer.get_reader(path)
        assert reader is not None
        assert [options["name"] for _, options, _ in reader(path)] == NAMES


def test_the_reader_refuses_a_run_that_has_not_ended(tmp_path: Path) -> None:
    path = str(make_run(tmp_path / "run", finished=False))
    reader = viewer.get_reader(path)
    assert reader is not None
    with pytest.raises(InputError, match="this run has not ended; continue it with --resume first"):
        reader(path)


def test_the_manifest_names_what_is_there() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    package, _, name = project["entry-points"]["napari.manifest"]["cbdetach"].partition(":")
    text = (resources.files(package) / name).read_text()
    assert re.search(r"^name: (.*)$", text, flags=re.M)[1] == project["name"]  # type: ignore[index]
    module, _, function = re.search(r"python_name: (.*)$", text, flags=re.M)[1].partition(":")  # type: ignore[index]
    assert (module, function) == (viewer.__name__, viewer.get_reader.__name__)
    assert re.findall(r"(?:id|command): (.*)$", text, flags=re.M) == ["cbdetach.read_run"] * 2


@pytest.mark.parametrize(
    ("installed", "said"),
    [
        ((), "napari and Qt for Python missing"),
        (("PyQt6",), "napari missing"),
        (("napari",), "Qt for Python missing"),
    ],
)
def test_what_is_missing_is_named(
    installed: tuple[str, ...], said: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewer, "find_spec", lambda name: name if name in installed else None)
    with pytest.raises(InputError, match=rf"^{said}: pip install 'cbdetach\[napari\]'\.$"):
        viewer.view(run.path)


@pytest.mark.parametrize("variable", [None, "DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"])
def test_a_display_is_needed(variable: str | None, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer, "find_spec", lambda name: name)
    monkeypatch.setattr(viewer.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    if variable is not None:
        monkeypatch.setenv(variable, ":0")
        viewer.require_window()
        return
    with pytest.raises(InputError, match=r"^napari needs a display for its window, but DISPLAY and "):
        viewer.view(run.path)
    monkeypatch.setattr(viewer.sys, "platform", "darwin")
    viewer.require_window()


# ---- in napari -------------------------------------------------------------------------------------------------------


@pytest.fixture
def model() -> Any:
    """A viewer of napari without a window."""
    components = pytest.importorskip("napari.components", reason="napari is not installed: pip install '.[napari]'")
    return components.ViewerModel()


def filled(model: Any, run: Run) -> Any:
    viewer.fill(model, layers(run))
    assert not any(layer.editable for layer in model.layers)
    assert getattr(getattr(model, "canvas", None), "overlays", model).scale_bar.visible
    for layer in model.layers:
        layer.visible = True
    return model


@pytest.mark.filterwarnings("default")
def test_napari_takes_every_layer(model: Any, run: Run) -> None:
    filled(model, run)
    assert [layer.name for layer in model.layers] == NAMES
    assert model.layers.selection.active.name == DETACHMENT
    assert {str(unit) for layer in model.layers for unit in layer.units} == {"micrometer"}
    wanted = {"phases": "phases", "diffusion length (um)": "diffusion_length", "particles": "particles"}
    for z in (0, 4, 11, 19):
        model.dims.set_point(0, z * VOXEL[0])
        for name, volume in wanted.items():
            np.testing.assert_array_equal(model.layers[name]._slice.image.raw, made()[volume][z])


@pytest.mark.filterwarnings("default")
def test_napari_tells_the_table_of_the_particle_under_the_pointer(model: Any, run: Run) -> None:
    filled(model, run)
    for name in ("particles", DETACHMENT):
        for voxel, said in (((5, 3, 4), r"3; detachment_fraction: 0\.25, crack_fraction: 0\.125"), ((5, 0, 0), "0$")):
            place = np.multiply(voxel, VOXEL)
            model.dims.set_point(0, place[0])
            status = model.layers[name].get_status(place, dims_displayed=[1, 2], world=True)
            assert re.match(said, status["value"].rstrip("; ")), status


@pytest.mark.filterwarnings("default")
def test_napari_colours_particles_by_detachment(model: Any, run: Run) -> None:
    filled(model, run)
    np.testing.assert_allclose(
        model.layers[DETACHMENT].get_color(3), colour_map(style.DETACHMENT_MAP)(0.25), atol=0.002
    )
    np.testing.assert_allclose(model.layers["phases"].get_color(1)[:3], style.rgb(style.CBD), atol=1e-6)


@pytest.mark.filterwarnings("default")
def test_napari_turns_the_coarse_copy_around(model: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer, "WHOLE", 500)
    filled(model, run)
    layer = model.layers["particles"]
    assert layer.multiscale
    model.dims.ndisplay = 3
    np.testing.assert_array_equal(layer._slice.image.raw, made()["particles"][1::2, 1::2, 1::2])
    model.dims.ndisplay = 2
    layer.corner_pixels = np.array([[0, 0, 0], np.subtract(SHAPE, 1)])
    layer.data_level = 0  # as where the canvas has more pixels than the coarse copy
    model.dims.set_point(0, 5 * VOXEL[0])
    np.testing.assert_array_equal(layer._slice.image.raw, made()["particles"][5])


@pytest.mark.filterwarnings("default")
def test_the_manifest_is_valid() -> None:
    npe2 = pytest.importorskip("npe2", reason="napari is not installed: pip install '.[napari]'")
    manifest = npe2.PluginManifest.from_file(PROJECT / "src" / "cbdetach" / "napari.yaml")
    assert manifest.contributions.readers[0].accepts_directories
