"""The driver: a whole run on a small phantom, kills at every write, bad input, and what must balance."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import tifffile
from scipy.ndimage import distance_transform_edt
from tests.cbdetach.pretend import Pretender

import cbdetach
from cbdetach import files, films, job, phases, pipeline, prepare, store, table
from cbdetach.codes import ACTIVE, CBD, VOID
from cbdetach.demo import agreement, match, write_phantom
from cbdetach.errors import InputError
from cbdetach.estimate import REPORT_BYTES
from cbdetach.phantom import Phantom, PhantomSettings
from cbdetach.results import Run
from cbdetach.segment import maskrcnn, runtime
from cbdetach.thresholds import Thresholds

SIZE = 72
SLAB = 12
SLICES = 36


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    return Phantom(PhantomSettings(shape=(SIZE, SIZE, SIZE), seed=3))


@pytest.fixture(scope="session")
def volume(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("phantom") / "phantom.h5"
    write_phantom(phantom, path)
    return path


@pytest.fixture(scope="session")
def finished(volume: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with cbdetach.run(volume, tmp_path_factory.mktemp("run") / "out", slab=SLAB) as run:
        yield run


@pytest.fixture(scope="session")
def small() -> tuple[npt.NDArray[Any], dict[str, Any]]:
    """Phases of four balls, two of them coated: the quickest input there is."""
    grid = np.indices((40, 48, 48))
    phases = np.zeros((40, 48, 48), np.uint8)
    for centre, coated in (((20, 12, 12), True), ((20, 12, 36), False), ((20, 36, 12), True), ((20, 36, 36), False)):
        r = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)))
        phases[(r <= 11) & (grid[0] < 20) & coated] = CBD
        phases[r <= 9] = ACTIVE
    options = {"phase_values": {"void": 0, "cbd": 1, "active": 2}, "voxel_size": 0.5, "slab": 10}
    return phases, options


def contents(folder: Path) -> dict[str, str]:
    """Hash of every slab, table and figure."""
    wanted = [
        *folder.glob("*/slab_*.h5"),
        *folder.glob("figures/*"),
        *folder.glob("particles.*"),
        *folder.glob("*.csv"),
    ]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(wanted)}


# ---- a whole run -----------------------------------------------------------------------------------------------------


def test_everything_that_was_promised_is_there(finished: Run) -> None:
    names = {p.name for p in finished.path.iterdir()}
    assert {
        "run.json",
        "run.log",
        "volumes.h5",
        "particles.csv",
        "particles.parquet",
        "columns.json",
        "profiles.csv",
    } <= names
    assert {"figures", "report.html"} <= names
    frame = pd.read_csv(finished.path / "particles.csv")
    assert list(frame.columns) == list(table.COLUMNS)
    assert list(finished.volumes) == ["particles", "phases", "diffusion_length", "damage"]
    assert all(v.shape == (SIZE, SIZE, SIZE) for v in finished.volumes.values())
    for figure in finished.path.glob("figures/*.png"):
        assert figure.with_suffix(".svg").exists()
        assert figure.with_suffix(".csv").exists()
    assert not list(finished.path.rglob("*.part*"))


def test_what_was_found_is_near_what_is_true(finished: Run, phantom: Phantom, volume: Path) -> None:
    with h5py.File(volume, "r") as file:
        found = agreement(finished, phantom.truth, file["truth/labels"])
    assert found.n_matched >= 0.9 * found.n_true
    assert abs(found.diameter_bias) < 0.03
    assert found.detachment_mae < 0.05


def test_the_table_belongs_to_the_volumes(finished: Run) -> None:
    labels = finished.volumes["particles"][()]
    ids, count = np.unique(labels[labels > 0], return_counts=True)
    np.testing.assert_array_equal(finished.table["label"], ids)
    np.testing.assert_allclose(finished.table["volume_um3"], count * np.prod(finished.voxel_size))
    length = finished.volumes["diffusion_length"][()]
    reached = np.isfinite(length)
    mean = np.bincount(labels[reached], weights=length[reached], minlength=ids.max() + 1)[ids] / np.maximum(
        np.bincount(labels[reached], minlength=ids.max() + 1)[ids], 1
    )
    known = finished.table["diffusion_length_mean_um"].notna().to_numpy()
    np.testing.assert_allclose(finished.table["diffusion_length_mean_um"][known], mean[known], rtol=1e-5)


def test_profiles_hold_the_cracks_of_the_table(finished: Run) -> None:
    """Crack volume, corrected by missing grey, is the same summed over particles, windows, and layers of the whole."""
    frame = finished.table
    profile, radial = (pd.read_csv(finished.path / name) for name in ("profiles.csv", "figures/radial_profile.csv"))
    volume = frame["crack_fraction"] * frame["volume_um3"]
    assert volume.sum() > 0
    assert (profile["crack_fraction"] * profile["particle_volume_um3"]).sum() == pytest.approx(volume.sum())
    whole = volume[~frame["touches_border"].astype(bool)].sum()
    assert (radial["crack_fraction"] * radial["volume_um3"]).sum() == pytest.approx(whole, rel=1e-3)


def test_the_skin_is_an_option(tmp_path: Path) -> None:
    """A groove two voxels deep in a block is a crack, or a notch of its outline, as the settings say."""
    labels, phases = np.zeros((24, 24, 24), np.int32), np.zeros((24, 24, 24), np.uint8)
    labels[4:20, 4:20, 4:20] = 1
    phases[labels > 0] = ACTIVE
    phases[4:6, 6:18, 11] = VOID
    found = {}
    for skin in (None, 1.0):
        options: dict[str, Any] = {"phase_values": {"void": 0, "active": ACTIVE}, "voxel_size": 0.5}
        config = {"damage": {"skin_um": skin}} if skin else None
        with cbdetach.run(out=tmp_path / str(skin), phases=phases, labels=labels, config=config, **options) as run:
            found[skin] = float(run.table["crack_fraction"].iloc[0])
    assert found == {None: pytest.approx(24 / 16**3), 1.0: 0.0}


def test_balances_hold_and_are_in_the_record(finished: Run) -> None:
    assert {b["name"] for b in finished.record["balances"]} >= {
        "volume_um3",
        "faces_void",
        "faces_cbd",
        "area_void_um2",
        "area_cbd_um2",
    }
    assert all(b["holds"] for b in finished.record["balances"])


def test_the_record_says_what_was_done(finished: Run) -> None:
    record = finished.record
    assert record["finished"]
    assert set(record["stages"].values()) == {"done"}
    assert set(record["timings"]) == set(pipeline.STAGES)
    assert record["counts"]["found"] == len(finished.table)
    assert record["sha256"]["volume"]
    assert record["settings"]["slab"] == SLAB
    assert finished.settings.slab == SLAB
    empty = json.loads((finished.path / "columns.json").read_text())
    for name in table.COLUMNS:
        assert finished.table[name].notna().any() or "empty_because" in empty[name], name


def test_slabs_do_not_show(finished: Run, volume: Path, tmp_path: Path) -> None:
    """Phases, which are decided locally, do not depend on the slabs at all; the table hardly does."""
    with cbdetach.run(volume, tmp_path / "other", slab=2 * SLAB) as other:
        np.testing.assert_array_equal(other.volumes["phases"][()], finished.volumes["phases"][()])
        assert abs(len(other.table) - len(finished.table)) <= 0.05 * len(finished.table)


def test_moved_thresholds_are_decided_with_the_phases(finished: Run, phantom: Phantom) -> None:
    """What lies in the slabs is what one look at the whole volume gives."""
    now = Thresholds.from_dict(finished.record["thresholds"])
    size, width = finished.voxel_size, finished.record["edge_width_um"]
    found = phases.resolve(phantom.volume().grey, now, list(now.variants().values()), spacing=size, edge_width_um=width)
    folder = store.RunFolder(finished.path, [(z0, z1) for z0, z1 in finished.record["slabs"]])

    def stored(name: str) -> npt.NDArray[Any]:
        return folder.read_volume("phases", name, 0, SIZE)

    np.testing.assert_array_equal(stored("phases"), found.phases)
    np.testing.assert_array_equal(stored("unresolved"), found.unresolved)
    np.testing.assert_array_equal(stored("film_class"), films.height_classes(found.height, found.phases))
    assert len(now.variants()) == 4
    for name, way in zip(now.variants(), found.moved, strict=True):
        np.testing.assert_array_equal(stored(f"moved/{name}"), way)
        assert (way != found.phases).any()


def test_threads_do_not_show(small: Any, tmp_path: Path) -> None:
    phases, options = small
    for threads in (1, 2):
        cbdetach.run(out=tmp_path / str(threads), phases=phases, threads=threads, **options)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_labels_open_in_fiji_with_their_scale(finished: Run, tmp_path: Path) -> None:
    with tifffile.TiffFile(finished.export_labels(tmp_path / "labels.tif")) as file:
        assert file.is_imagej
        assert file.imagej_metadata is not None
        assert file.imagej_metadata["spacing"] == pytest.approx(finished.voxel_size[0])
        assert file.imagej_metadata["unit"] in ("um", "micron")
        np.testing.assert_array_equal(file.asarray(), finished.volumes["particles"][()])


# ---- other inputs ----------------------------------------------------------------------------------------------------


def test_phases_alone(small: Any, tmp_path: Path) -> None:
    phases, options = small
    with cbdetach.run(out=tmp_path / "out", phases=phases, **options) as run:
        assert len(run.table) == 4
        detached = run.table.sort_values(["y_um", "x_um"])["detachment_fraction"].to_numpy()
        bare = 9.5 / 18  # the coat ends between slices 19 and 20: of a diameter of 18, 9.5 are bare
        np.testing.assert_allclose(detached, [bare, 1.0, bare, 1.0], atol=0.02)
        assert run.table["diffusion_status"].tolist().count("no_contact") == 2
        assert run.record["counts"] == {"found": 4, "cut": 0, "no_contact": 2, "used": 4}
        assert run.record["empty_columns"]["density_mean"] == "no grey volume was given"
        np.testing.assert_array_equal(run.volumes["phases"][()], phases)
    assert (tmp_path / "out" / "report.html").exists()


def test_given_labels_are_kept(small: Any, tmp_path: Path) -> None:
    phases, options = small
    labels = np.where(phases == ACTIVE, 7, 0).astype(np.uint16)
    labels[:, 24:] *= 3
    with cbdetach.run(out=tmp_path / "out", phases=phases, labels=labels, **options) as run:
        assert run.table["label"].tolist() == [7, 21]
        np.testing.assert_array_equal(run.volumes["particles"][()], labels)


def test_given_labels_may_be_large_in_one_slab_only(small: Any, tmp_path: Path) -> None:
    phases, options = small
    labels = np.zeros(phases.shape, np.uint32)
    labels[:18] = np.where(phases[:18] == ACTIVE, 5, 0)
    labels[20:] = np.where(phases[20:] == ACTIVE, 2**32 - 1, 0)
    with cbdetach.run(out=tmp_path / "out", phases=phases, labels=labels, **options) as run:
        assert run.table["label"].tolist() == [5, 2**32 - 1]
        np.testing.assert_array_equal(run.volumes["particles"][()], labels)


def test_slices_are_segmented_and_linked(small: Any, tmp_path: Path) -> None:
    phases, options = small
    with cbdetach.run(out=tmp_path / "out", phases=phases, segmenter="watershed2d", **options) as run:
        assert len(run.table) == 4
        assert run.record["links"]["particles"] >= 4
        options = options | {"segmenter": "watershed2d", "slab": 40}
        with cbdetach.run(out=tmp_path / "one", phases=phases, **options) as one:
            np.testing.assert_array_equal(run.volumes["particles"][()], one.volumes["particles"][()])


@pytest.mark.parametrize(("close_um", "particles"), [(0.0, 2), (1.5, 1)])
def test_close_um_bridges_a_crack(close_um: float, particles: int, tmp_path: Path) -> None:
    z, y, x = np.indices((28, 28, 28)) - 13.5
    phases = np.where((z**2 + y**2 + x**2 <= 10**2) & (np.abs(x) > 1), ACTIVE, VOID).astype(np.uint8)
    values = {"void": VOID, "active": ACTIVE}
    config = {"segment": {"close_um": close_um}, "report": {"gallery": 0}}
    with cbdetach.run(out=tmp_path / "out", phases=phases, phase_values=values, voxel_size=0.5, config=config) as run:
        assert len(run.table) == particles
        assert run.record["settings"]["segment"]["close_um"] == close_um


def test_the_least_contact_is_told_by_the_blur(finished: Run, small: Any, tmp_path: Path) -> None:
    blur = finished.record["edge_width_um"]
    assert finished.record["min_contact_um2"] == pytest.approx(blur**2)
    assert finished.record["min_piece_um3"] == pytest.approx(4 * blur**3)
    features = json.loads((finished.path / "features.json").read_text("utf-8"))
    assert features["settings"]["min_contact_um2"] == pytest.approx(blur**2)
    phases, options = small
    for config, least in (
        ({}, (0.0, 0.0)),
        ({"phases": {"edge_width_um": 1.5}}, (2.25, 0.0)),
        ({"phases": {"edge_width_um": 1.5}, "diffusion": {"min_contact_um2": 0.5, "min_piece_um3": 0.7}}, (0.5, 0.7)),
    ):
        wanted = {"report": {"gallery": 0}, **config}
        with cbdetach.run(out=tmp_path / f"{least}", phases=phases, config=wanted, **options) as run:
            assert (run.record["min_contact_um2"], run.record["min_piece_um3"]) == pytest.approx(least)


def test_films_too_thin_for_the_blur_are_warned_of(finished: Run, tmp_path: Path) -> None:
    assert 0.9 < finished.record["film_height"] < 1.2
    assert not [w for w in finished.record["warnings"] if "too thin" in w]
    thin = Phantom(PhantomSettings(shape=(64, 64, 64), seed=3, coating_thickness_um=0.2), samples=200)
    wanted = {"report": {"gallery": 0}}
    with cbdetach.run(thin.volume().grey, tmp_path / "out", voxel_size=0.2, slab=32, config=wanted) as run:
        assert run.record["film_height"] < 0.45
        (said,) = [w for w in run.record["warnings"] if "too thin" in w]
        assert said.startswith("The carbon/binder is too thin for this resolution: a quarter of what particles touch ")
        assert "too thin for this resolution" in (run.path / "report.html").read_text("utf-8")


def test_no_cbd_is_one_warning_and_empty_columns(small: Any, tmp_path: Path) -> None:
    phases, options = small
    bare = np.where(phases == CBD, 0, phases)
    with cbdetach.run(out=tmp_path / "out", phases=bare, **options) as run:
        assert run.record["warnings"] == ["No carbon/binder was found: detachment and diffusion lengths are empty."]
        assert run.table["detachment_fraction"].isna().all()
        assert run.table["diffusion_length_mean_um"].isna().all()
        assert run.table["area_void_um2"].gt(0).all()


def test_crop_and_bin(volume: Path, tmp_path: Path) -> None:
    need = pipeline.plan(volume=volume, crop="0:40,:,:", bin=2)
    assert need.volume.startswith("20 x ")
    assert need.volume.endswith(" voxels of 0.4 x 0.4 x 0.4 um")
    assert need.disk - REPORT_BYTES < (pipeline.plan(volume=volume).disk - REPORT_BYTES) / 8
    with cbdetach.run(volume, tmp_path / "out", crop="0:48,8:56,8:56", bin=2) as run:
        assert run.record["shape"] == [24, 24, 24]
        assert run.voxel_size == pytest.approx((0.4, 0.4, 0.4))


# ---- the network ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def pretender(phantom: Phantom) -> Pretender:
    made = phantom.volume()
    return Pretender(made.grey, made.labels.astype(np.int32), miss=0.05, jitter=0.03)


@pytest.fixture
def network(pretender: Pretender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pretender:
    """A network that comes with cbdetach, and needs no ONNX Runtime."""
    model = tmp_path / "particles.onnx"
    model.write_bytes(b"weights")
    monkeypatch.setattr(runtime, "shipped_model", lambda: model)
    monkeypatch.setattr(maskrcnn, "Segmenter", lambda path, provider: pretender)
    monkeypatch.setattr(job, "find_spec", lambda name: name)
    pretender.asked.clear()
    return pretender


def test_the_network_is_the_default_where_it_can_be(
    network: Pretender, phantom: Phantom, volume: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with cbdetach.run(volume, out, slab=SLAB) as run, h5py.File(volume, "r") as file:
        assert run.settings.segment.segmenter == "maskrcnn"
        found = agreement(run, phantom.truth, file["truth/labels"])
        assert found.n_matched >= 0.95 * found.n_true
        assert found.detachment_mae < 0.03
        scores = run.table["score"]
        assert scores.notna().mean() > 0.9
        assert scores.dropna().between(0.9, 1).all()
        assert "score" not in run.record["empty_columns"]
        said = run.record["segment"]
        assert (said["segmenter"], said["views"], said["score"]) == ("maskrcnn", "z", 0.5)
        assert said["counts"]["detections"] > said["counts"]["added"] > 0
        assert {"contested_pixels", "duplicates"} <= set(said["counts"])
        digest = hashlib.sha256(b"weights").hexdigest()
        assert run.record["input"]["model"] == {"name": "particles.onnx", "sha256": digest}
        true = run.table["equivalent_diameter_um"].median()
        assert 0.7 * true < said["diameter_um"] < 1.2 * true
        for asked in network.asked:
            np.testing.assert_allclose(asked["diameter_px"], [said["diameter_um"] / 0.2] * 2)
            assert asked["levels"] == tuple(said["grey_levels"])
        assert len({tuple(asked["levels"]) for asked in network.asked}) == 1  # one scale for the whole volume
        assert len(network.asked) == SIZE // SLAB
    before = contents(out)
    shutil.rmtree(out / "report")
    (out / "segment" / "slab_00002.h5").write_bytes(b"")
    (out / "link" / "slab_00001.h5").unlink()
    network.asked.clear()
    cbdetach.run(volume, out, slab=SLAB, resume=True)
    assert contents(out) == before
    assert len(network.asked) == 1
    tmp_path.joinpath("particles.onnx").write_bytes(b"other weights")
    with pytest.raises(InputError, match=r"--resume: .* holds a run with other input \(model.sha256\)"):
        cbdetach.run(volume, out, slab=SLAB, resume=True)


def segmented(volume: Path | npt.NDArray[Any], out: Path, **options: Any) -> tuple[dict[str, Any], npt.NDArray[Any]]:
    """Result and labels of the stages up to `link`."""
    config = options.pop("config", {})
    settings = job.resolved_settings({"volume": volume}, {"segment": config}, slab=SLICES, **options)
    with job.open_job(settings, out, {"volume": volume}, progress=False) as opened:
        for name in ("survey", "phases", "segment", "link"):
            opened.folder.write_result(name, pipeline.STAGES[name](opened))
        return opened.result("segment"), opened.particles(0, opened.shape[0])


def test_three_views_are_fused(network: Pretender, phantom: Phantom, volume: Path, tmp_path: Path) -> None:
    said, labels = segmented(volume, tmp_path / "zyx", views="zyx", config={"halo": 12})
    truth = phantom.volume().labels
    assert said["views"] == "zyx"
    assert len(network.asked) == 3 * SIZE // SLICES
    uncut = phantom.truth.label[~phantom.truth.touches_border].to_numpy()
    assert np.isin(uncut, match(labels, truth)[1]).mean() >= 0.95
    _, single = segmented(volume, tmp_path / "z", views="z")
    wrong, wrong_single = (np.count_nonzero((found > 0) != (truth > 0)) for found in (labels, single))
    assert wrong < wrong_single
    with h5py.File(tmp_path / "zyx" / "segment" / "slab_00001.h5") as file:
        assert file["labels"].shape[0] == SLICES + 8  # and what it shares with its neighbour
        assert np.nanmin(file["table/score"]) >= 0.9


def test_the_watershed_can_be_fused_too(volume: Path, tmp_path: Path) -> None:
    said, labels = segmented(volume, tmp_path / "out", segmenter="watershed2d", views="zyx", config={"halo": 12})
    assert said == {"segmenter": "watershed2d", "views": "zyx", "counts": {}, "warnings": []}
    assert labels.max() > 10


def test_settings_of_the_network_reach_it(network: Pretender, volume: Path, tmp_path: Path) -> None:
    said, labels = segmented(volume, tmp_path / "1", config={"diameter_um": 6.4, "score": 0.95, "add_missed": False})
    assert (said["diameter_um"], said["score"], said["counts"]["added"]) == (6.4, 0.95, 0)
    assert network.asked[0]["diameter_px"] == pytest.approx((32, 32))
    assert network.asked[0]["threshold"] == 0.95
    more, all_labels = segmented(volume, tmp_path / "2", config={"diameter_um": 6.4, "score": 0.95})
    assert more["counts"]["added"] > 100
    assert np.count_nonzero(all_labels) > 1.2 * np.count_nonzero(labels)
    assert said["counts"]["detections"] == more["counts"]["detections"]
    own = tmp_path / "own.onnx"
    own.write_bytes(b"own")
    settings = job.resolved_settings({"volume": volume}, None, model=own)
    with job.open_job(settings, tmp_path / "3", {"volume": volume}, progress=False) as opened:
        assert opened.model == own
        assert opened.settings.segment.segmenter == "maskrcnn"


def test_pixels_of_the_slices_need_not_be_square(pretender: Pretender, network: Pretender, tmp_path: Path) -> None:
    segmented(pretender.grey[:30], tmp_path / "out", voxel_size=(0.4, 0.2, 0.2), views="zyx", config={"diameter_um": 4})
    assert [asked["diameter_px"] for asked in network.asked[:3]] == [
        pytest.approx((20, 20)),
        pytest.approx((10, 20)),
        pytest.approx((10, 20)),
    ]


def test_without_a_model_it_is_the_watershed(
    network: Pretender, small: Any, volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(**given: Any) -> str | None:
        settings = job.resolved_settings(given, None, phase_values=given.get("phase_values"), voxel_size=0.2)
        with job.open_job(settings, tmp_path / "none", given, progress=False) as opened:
            return opened.settings.segment.segmenter

    phases, options = small
    assert chosen(volume=volume) == "maskrcnn"
    assert chosen(phases=phases, phase_values=options["phase_values"]) == "watershed"
    monkeypatch.setattr(job, "find_spec", lambda name: None)
    assert chosen(volume=volume) == "watershed"
    monkeypatch.setattr(job, "find_spec", lambda name: name)
    (tmp_path / "particles.onnx").unlink()
    assert chosen(volume=volume) == "watershed"


def test_what_the_network_needs_is_said(network: Pretender, small: Any, volume: Path, tmp_path: Path) -> None:
    phases, options = small
    for given, message in (
        (
            {"volume": volume, "segmenter": "watershed", "model": "m.onnx"},
            r"--model: only goes with --segmenter maskrcnn",
        ),
        (
            {"volume": volume, "segmenter": "watershed", "views": "zyx"},
            r"--views: zyx only goes with a segmenter that wor",
        ),
        (
            {"volume": volume, "model": tmp_path / "no.onnx"},
            r"--model: there is no file .*no.onnx; give an ONNX file, or",
        ),
        ({"phases": phases, "segmenter": "maskrcnn"} | options, "--segmenter: maskrcnn needs the grey VOLUME; give it"),
        ({"volume": volume, "views": "xy"}, "--views: must be 'z' or 'zyx'; got 'xy'"),
    ):
        with pytest.raises(InputError, match=message):
            cbdetach.run(out=tmp_path / "out", **given)
    (tmp_path / "particles.onnx").unlink()
    with pytest.raises(
        InputError, match=r"--model: there is no file .*; this copy of cbdetach came without one; give one"
    ):
        cbdetach.run(volume, tmp_path / "out", segmenter="maskrcnn")
    assert not (tmp_path / "out").exists()


# ---- resume ----------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here."""


def killed_after(monkeypatch: pytest.MonkeyPatch, writes: int, *, before_rename: bool) -> None:
    """End the process at the n-th file that is written, just before or just after it is renamed."""
    real = files.whole_file
    count = [0]

    from contextlib import contextmanager

    @contextmanager
    def whole_file(path: Path) -> Iterator[Path]:
        with real(path) as temporary:
            yield temporary
            count[0] += 1
            if before_rename and count[0] == writes:
                shutil.copy(temporary, temporary.with_name(temporary.name + "9"))  # what a kill leaves behind
                raise Killed
        if count[0] == writes:
            raise Killed

    monkeypatch.setattr(files, "whole_file", whole_file)


@pytest.fixture(scope="session")
def undisturbed(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    phases, options = small
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    cbdetach.run(out=out, phases=phases, **options)
    return out


@pytest.mark.parametrize("before_rename", [True, False])
@pytest.mark.parametrize("writes", [1, 2, 4, 7, 12, 17, 23, 29, 36, 43])
def test_killed_and_resumed_is_undisturbed(
    writes: int, before_rename: bool, small: Any, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases, options = small
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        killed_after(patch, writes, before_rename=before_rename)
        with pytest.raises(Killed):
            cbdetach.run(out=out, phases=phases, **options)
    cbdetach.run(out=out, phases=phases, resume=True, **options)
    assert contents(out) == contents(undisturbed)
    mine, its = (json.loads((p / "run.json").read_text()) for p in (out, undisturbed))
    assert {k: v for k, v in mine.items() if k != "timings"} == {k: v for k, v in its.items() if k != "timings"}
    assert not list(out.rglob("*.part*"))


def test_a_truncated_slab_is_computed_again(small: Any, undisturbed: Path, tmp_path: Path) -> None:
    phases, options = small
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    slab = out / "detachment" / "slab_00001.h5"
    slab.write_bytes(slab.read_bytes()[:500])
    cbdetach.run(out=out, phases=phases, resume=True, **options)
    assert contents(out) == contents(undisturbed)


def test_resume_on_nothing_starts_and_on_a_finished_run_changes_nothing(small: Any, tmp_path: Path) -> None:
    phases, options = small
    out = tmp_path / "out"
    cbdetach.run(out=out, phases=phases, resume=True, **options)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.name not in ("run.log", "run.lock")}
    cbdetach.run(out=out, phases=phases, resume=True, **options)
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_resume_refuses_other_settings_and_other_input(small: Any, undisturbed: Path) -> None:
    phases, options = small
    with pytest.raises(InputError, match=r"--resume: .* holds a run with other settings \(link.max_gap\)"):
        cbdetach.run(out=undisturbed, phases=phases, resume=True, config={"link": {"max_gap": 0}}, **options)
    with pytest.raises(InputError, match=r"--resume: .* other input \(phases.sha256\)"):
        cbdetach.run(out=undisturbed, phases=phases[::-1].copy(), resume=True, **options)


def test_overwrite_starts_again(small: Any, undisturbed: Path, tmp_path: Path) -> None:
    phases, options = small
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds a finished run; choose another folder, or replace it with --overwrite"):
        cbdetach.run(out=out, phases=phases, **options)
    cbdetach.run(out=out, phases=phases, overwrite=True, config={"report": {"seed": 5}}, **options)
    assert cbdetach.open_run(out).settings.report.seed == 5
    assert (out / "notes.txt").read_text() == "mine"


# ---- bad input -------------------------------------------------------------------------------------------------------


def ball_volume() -> npt.NDArray[Any]:
    grid = np.indices((24, 24, 24)) - 12
    return np.where((grid**2).sum(axis=0) < 64, 200, 20).astype(np.uint8)


BAD: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "missing file": (lambda d: {"volume": d / "none.tif"}, "none.tif"),
    "empty file": (lambda d: {"volume": _touch(d / "empty.tif")}, "empty"),
    "missing labels": (
        lambda d: {"volume": _npy(d, ball_volume()), "labels": d / "none.tif"},
        r"^--labels: must be an existing file or folder; got '.*none\.tif'",
    ),
    "missing phases": (lambda d: {"phases": d / "none.tif"}, r"^--phases: must be an existing file or folder"),
    "phases as the volume": (
        lambda d: (
            dict.fromkeys(("volume", "phases"), _npy(d, ball_volume())) | {"phase_values": {"void": 20, "active": 200}}
        ),
        r"^VOLUME: must hold grey values; got .*\.npy, the file of --phases\. Leave it out or give the grey one",
    ),
    "two of three ways to begin": (
        lambda d: {"volume": _npy(d, ball_volume()), "resume": True, "overwrite": True},
        r"^--resume, --overwrite: only one of them can be meant; leave one out",
    ),
    "two axes": (lambda d: {"volume": _npy(d, np.zeros((5, 5)))}, r"three|3"),
    "four axes": (lambda d: {"volume": _npy(d, np.zeros((5, 5, 5, 5)))}, r"three|3"),
    "nan": (lambda d: {"volume": _npy(d, _with(np.nan))}, r"finite.*\(z, y, x\) = \(3, 2, 1\)"),
    "inf": (lambda d: {"volume": _npy(d, _with(np.inf))}, "finite"),
    "constant": (lambda d: {"volume": _npy(d, np.full((20, 20, 20), 7, np.uint8))}, "more than one grey value"),
    "no active phase": (
        lambda d: {"phases": _npy(d, np.zeros((9, 9, 9), np.uint8)), "phase_values": {"void": 0, "active": 1}},
        "no particle found",
    ),
    "nothing as large as a particle": (
        lambda d: {"phases": _npy(d, _one_voxel()), "phase_values": {"void": 0, "active": 1}},
        r"^no particle found: nothing is as large as \[segment\] min_diameter_um, 2\.5 um; check --voxel-size "
        r"\(0\.5, 0\.5, 0\.5 um\), or choose a smaller diameter\.$",
    ),
    "labels of another shape": (
        lambda d: {"volume": _npy(d, ball_volume()), "labels": np.ones((3, 4, 5), np.int32)},
        r"--labels: must have the shape of the volume, \(24, 24, 24\); got \(3, 4, 5\)",
    ),
    "float labels": (
        lambda d: {"volume": _npy(d, ball_volume()), "labels": np.ones((24, 24, 24), np.float32)},
        "labels: must be of an integer type; got float32",
    ),
    "empty labels": (
        lambda d: {"volume": _npy(d, ball_volume()), "labels": np.zeros((24, 24, 24), np.int32)},
        "no particle",
    ),
    "negative voxel size": (lambda d: {"volume": _npy(d, ball_volume()), "voxel_size": -1.0}, "--voxel-size"),
    "zero voxel size": (lambda d: {"volume": _npy(d, ball_volume()), "voxel_size": 0.0}, "--voxel-size"),
    "voxel size in nanometres": (
        lambda d: {"volume": _npy(d, ball_volume()), "voxel_size": (2000.0, 398.0, 50.0)},
        r"^--voxel-size: must be 0\.001 to 100 micrometres along each axis; got 2000, 398, 50\. Give it in",
    ),
    "voxel size in metres": (
        lambda d: {"volume": _npy(d, ball_volume()), "voxel_size": 4e-7, "bin": 2},
        r"^--voxel-size: must be 0\.001 to 100 micrometres along each axis; got 4e-07, 4e-07, 4e-07\. Give",
    ),
    "voxel size of the file": (
        lambda d: {"volume": _tiff(d, ball_volume(), 900.0), "voxel_size": None},
        r"^--voxel-size: must be 0\.001 to 100 micrometres along each axis; got 900, 900, 900 from .*v\.tif\. Give",
    ),
    "bin that leaves one voxel": (
        lambda d: {"volume": _npy(d, ball_volume()), "bin": 13},
        r"^--bin: must leave at least two voxels along each axis; 13 leaves \(1, 1, 1\)\. Give a smaller one\.$",
    ),
    "no voxel size": (lambda d: {"volume": _npy(d, ball_volume()), "voxel_size": None}, "--voxel-size"),
    "nothing given": (lambda d: {}, "VOLUME: give a grey volume, or phases with --phases and --phase-values"),
    "phases without values": (lambda d: {"phases": _npy(d, ball_volume())}, "--phase-values: must name the value"),
    "values without phases": (
        lambda d: {"volume": _npy(d, ball_volume()), "phase_values": {"void": 0}},
        "--phase-values: only goes with --phases FILE",
    ),
    "unknown phase": (
        lambda d: {"phases": _npy(d, ball_volume()), "phase_values": {"vod": 20, "active": 200}},
        "vod",
    ),
    "value without a phase": (
        lambda d: {"phases": _npy(d, ball_volume()), "phase_values": {"void": 0, "active": 200}},
        "20",
    ),
    "thresholds out of order": (
        lambda d: {"volume": _npy(d, ball_volume()), "config": {"phases": {"void_cbd": 200, "cbd_active": 100}}},
        r"^phases: void_cbd, cbd_active and active_high must go up; got 200, 100\.$",
    ),
    "unknown setting": (lambda d: {"volume": _npy(d, ball_volume()), "config": {"sgment": {}}}, "sgment: unknown"),
    "device": (lambda d: {"volume": _npy(d, ball_volume()), "device": "tpu"}, "--device: must be cpu or cuda"),
    "threads": (lambda d: {"volume": _npy(d, ball_volume()), "threads": 1000}, "--threads: must be 1 to"),
    "crop": (lambda d: {"volume": _npy(d, ball_volume()), "crop": "0:99"}, "crop"),
    "bin": (lambda d: {"volume": _npy(d, ball_volume()), "bin": 0}, "bin"),
}


def _touch(path: Path) -> Path:
    path.touch()
    return path


def _npy(folder: Path, array: npt.NDArray[Any]) -> Path:
    np.save(folder / "v.npy", array)
    return folder / "v.npy"


def _tiff(folder: Path, array: npt.NDArray[Any], size: float) -> Path:
    about = {"axes": "ZYX", "spacing": size, "unit": "um"}
    tifffile.imwrite(folder / "v.tif", array, imagej=True, resolution=(1 / size, 1 / size), metadata=about)
    return folder / "v.tif"


def _with(bad: float) -> npt.NDArray[Any]:
    volume = ball_volume().astype(np.float32)
    volume[3, 2, 1] = bad
    return volume


def _one_voxel() -> npt.NDArray[Any]:
    phases = np.zeros((9, 9, 9), np.uint8)
    phases[4, 4, 4] = 1
    return phases


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    make, message = BAD[case]
    arguments = {"voxel_size": 0.5} | make(tmp_path)
    out = tmp_path / "out"
    with pytest.raises(InputError, match=message) as caught:
        cbdetach.run(out=out, **arguments)
    assert "\n" not in str(caught.value)
    assert not out.exists()


@pytest.mark.parametrize("voxel_size", [10.0, 70.0])
@pytest.mark.parametrize("more", [{}, {"volume": ball_volume()}], ids=["phases", "grey values"])
def test_long_voxels_are_warned_of(
    more: dict[str, Any], voxel_size: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"phases": ball_volume(), "phase_values": {"void": 20, "active": 200}, "voxel_size": voxel_size}
    huge = {"segment": {"segmenter": "watershed", "min_diameter_um": 5000.0}}  # so that it ends early
    with pytest.raises(InputError, match=r"nothing is as large as .* 5000 um; check --voxel-size"):
        cbdetach.run(out=tmp_path / "out", config=huge, **given, **more)
    said = [record.getMessage() for record in caplog.records if "The voxels measure" in record.getMessage()]
    wanted = "The voxels measure 70, 70, 70 um: check that their size was given in micrometres."
    assert said == [wanted] * (voxel_size > 10)


def test_a_folder_of_something_else_is_refused(small: Any, tmp_path: Path) -> None:
    phases, options = small
    (tmp_path / "thesis.tex").write_text("precious")
    for more in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(InputError, match="is not empty and holds no run; choose a new or empty folder"):
            cbdetach.run(out=tmp_path, phases=phases, **more, **options)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_file_in_the_place_of_the_folder(small: Any, tmp_path: Path) -> None:
    phases, options = small
    with pytest.raises(InputError, match="is a file; give a folder"):
        cbdetach.run(out=_touch(tmp_path / "out"), phases=phases, **options)


def test_an_unwritable_folder(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phases, options = small

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(
        InputError, match=r"-o/--out: .* cannot be written \(Permission denied\); choose another folder"
    ):
        cbdetach.run(out=tmp_path / "out", phases=phases, **options)


def test_an_interrupted_run_without_resume(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phases, options = small
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        killed_after(patch, 5, before_rename=False)
        with pytest.raises(Killed):
            cbdetach.run(out=out, phases=phases, **options)
    with pytest.raises(InputError, match="holds a run that was interrupted; continue it with --resume"):
        cbdetach.run(out=out, phases=phases, **options)
    with pytest.raises(InputError, match="this run has not ended"):
        cbdetach.open_run(out)


def test_two_processes_do_not_share_a_folder(small: Any, undisturbed: Path, tmp_path: Path) -> None:
    phases, options = small
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    given = {"volume": None, "labels": None, "phases": phases}
    from cbdetach.job import open_job, resolved_settings

    settings = resolved_settings(given, None, **options)
    with open_job(settings, out, given, progress=False) as job:
        start = prepare.look_up(job, resume=True, overwrite=False)
        with prepare.prepared(job, start), pytest.raises(InputError, match="another process is working in"):
            cbdetach.run(out=out, phases=phases, resume=True, **options)


def test_a_folder_that_another_process_has_taken_meanwhile(small: Any, tmp_path: Path) -> None:
    """It was empty when it was looked at, and holds the beginning of somebody else's run when it is locked."""
    phases, options = small
    given, out = {"volume": None, "labels": None, "phases": phases}, tmp_path / "out"
    settings = job.resolved_settings(given, None, **options)
    with job.open_job(settings, out, given, progress=False) as opened:
        start = prepare.look_up(opened, resume=False, overwrite=False)
        opened.folder.write_record(start.fresh | {"shape": [1, 2, 3]})
        with pytest.raises(InputError, match=r"another process has worked in .*out meanwhile; give the command again"):
            with prepare.prepared(opened, start):
                pass
    assert json.loads((out / "run.json").read_text())["shape"] == [1, 2, 3]


def test_open_run_wants_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"this is not the folder of a run \(it has no run.json\)"):
        cbdetach.open_run(tmp_path)


def test_the_diffusion_length_is_at_least_the_straight_line(finished: Run) -> None:
    """Along no path is the contact nearer than the nearest carbon/binder voxel."""
    length, phases, labels = (finished.volumes[n][()] for n in ("diffusion_length", "phases", "particles"))
    straight = distance_transform_edt(~((phases == CBD) & (labels == 0)), sampling=finished.voxel_size)
    reached = np.isfinite(length)
    assert (length[reached] > straight[reached] - 1.5 * max(finished.voxel_size)).all()
