"""The demonstration: matching found to true particles, the figures of their agreement, and the electrode on disk."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from cbdetach import demo
from cbdetach.errors import InputError
from cbdetach.phantom import Phantom, PhantomSettings
from cbdetach.store import RunFolder
from cbdetach.volume import open_volume

Array = npt.NDArray[Any]
SHAPE = (80, 30, 30)


def bar(volume: Array, label: int, x: int, z0: int, z1: int) -> None:
    """A bar along z, 5 x 5 voxels across: its overlaps can be counted by hand, and it lies in several blocks."""
    volume[z0:z1, 5:10, x : x + 5] = label


def volumes() -> tuple[Array, Array]:
    return np.zeros(SHAPE, np.int32), np.zeros(SHAPE, np.int32)


# ---- matching --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shift", "same"), [(0, True), (15, True), (19, True), (20, False), (21, False), (60, False)])
def test_above_half_of_the_union_is_the_same(shift: int, same: bool) -> None:
    """Bars of 60 slices, moved by 20: they share 40 of 80, which is not more than half."""
    found, true = np.zeros((140, 30, 30), np.int32), np.zeros((140, 30, 30), np.int32)
    bar(found, 1, 5, shift, shift + 60)
    bar(true, 4, 5, 0, 60)
    a, b = demo.match(found, true)
    assert (a.tolist(), b.tolist()) == (([1], [4]) if same else ([], []))


def test_labels_need_not_agree() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 40, (SHAPE[0] // 5, 6, 6)).repeat(5, 0).repeat(5, 1).repeat(5, 2).astype(np.int32)
    names = np.concatenate(([0], 100 + rng.permutation(39)))
    a, b = demo.match(names[true], true)
    np.testing.assert_array_equal(b[np.argsort(b)], np.arange(1, 40))
    np.testing.assert_array_equal(a, names[b])


def test_a_split_a_merged_a_missed_and_an_invented_particle() -> None:
    found, true = volumes()
    bar(true, 1, 0, 0, 80)  # split into halves: neither is more than half
    bar(found, 11, 0, 0, 40)
    bar(found, 12, 0, 40, 80)
    bar(true, 2, 8, 0, 30)  # merged with the next, which is larger
    bar(true, 3, 8, 30, 80)
    bar(found, 13, 8, 0, 80)
    bar(true, 4, 16, 0, 80)  # missed
    bar(found, 14, 24, 0, 80)  # invented
    a, b = demo.match(found, true)
    assert (a.tolist(), b.tolist()) == ([13], [3])


def test_nothing_overlaps_and_nothing_is_there() -> None:
    found, true = volumes()
    bar(found, 1, 0, 0, 80)
    for other in (true, found):
        a, b = demo.match(true, other)
        assert a.size == b.size == 0
        assert a.dtype.kind == "i"


def test_matching_is_one_to_one() -> None:
    rng = np.random.default_rng(2)
    found, true = (rng.integers(0, 5, (40, 4, 4)).astype(np.int32).repeat(2, 0) for _ in range(2))
    a, b = demo.match(found, true)
    assert len(set(a.tolist())) == a.size
    assert len(set(b.tolist())) == b.size


# ---- agreement -------------------------------------------------------------------------------------------------------

TRUTH = pd.DataFrame(
    {
        "label": [1, 2, 3, 4],
        "touches_border": [True, False, False, False],
        "equivalent_diameter_um": [4.0, 5.0, 6.0, 8.0],
        "detachment_fraction": [0.1, 0.2, 0.4, 0.6],
        "crack_fraction": [0.0, 0.01, 0.02, 0.03],
        "pore_fraction": [0.0, 0.0, 0.1, 0.2],
    }
)


def true_labels() -> Array:
    _, true = volumes()
    for label, (x, z0) in enumerate([(0, 0), (8, 1), (16, 2), (24, 3)], start=1):
        bar(true, label, x, z0, z0 + 70)
    return true


def agreement(found: pd.DataFrame, labels: Array, truth: pd.DataFrame = TRUTH) -> demo.Agreement:
    run: Any = SimpleNamespace(table=found, volumes={"particles": labels})
    return demo.agreement(run, truth, true_labels())


def test_perfect_truth_has_no_error() -> None:
    found = agreement(TRUTH, true_labels())
    assert (found.n_found, found.n_true, found.n_matched) == (3, 3, 3)
    assert found.diameter_bias == found.detachment_mae == found.detachment_bias == 0
    assert found.detachment_r == pytest.approx(1)
    assert found.diameter_found == found.diameter_true == 6
    assert found.detachment_found == found.detachment_true == pytest.approx(0.4)
    assert found.crack_found == found.crack_true == pytest.approx(0.02)
    assert found.pore_found == found.pore_true == pytest.approx(0.1)


def test_errors_are_found_minus_true_whatever_the_labels() -> None:
    names = np.array([0, 9, 7, 8, 5])
    measured = TRUTH.assign(
        label=names[1:],
        equivalent_diameter_um=TRUTH["equivalent_diameter_um"] * 1.02,
        detachment_fraction=TRUTH["detachment_fraction"] + [0.9, 0.03, -0.01, 0.04],
        crack_fraction=TRUTH["crack_fraction"] + 0.5,
        pore_fraction=0.0,
    ).sort_values("label")
    found = agreement(measured, names[true_labels()])
    assert found.n_matched == 3
    assert found.diameter_bias == pytest.approx(0.02)
    assert found.detachment_bias == pytest.approx(0.02)
    assert found.detachment_mae == pytest.approx(0.08 / 3)
    a, b = [0.23, 0.39, 0.64], [0.2, 0.4, 0.6]
    assert found.detachment_r == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert found.crack_found - found.crack_true == pytest.approx(0.5)
    assert (found.pore_found, found.pore_true) == pytest.approx((0, 0.1))


def test_a_missed_particle_is_counted_as_missed() -> None:
    labels = np.where(true_labels() == 3, 0, true_labels())
    found = agreement(TRUTH[TRUTH["label"] != 3], labels)
    assert (found.n_found, found.n_true, found.n_matched) == (2, 3, 2)
    assert found.detachment_mae == 0


def test_particles_cut_on_either_side_are_left_out_of_the_errors() -> None:
    """Found cut (4): found all the same. Truly cut (1): not asked for."""
    measured = TRUTH.assign(touches_border=[False, False, False, True], detachment_fraction=[0.9, 0.2, 0.4, 0.9])
    found = agreement(measured, true_labels())
    assert (found.n_found, found.n_true, found.n_matched, found.n_compared) == (3, 3, 3, 2)
    assert "3 of 3 found one to one, 1 of them as cut by the border; below: 2" in str(found)
    assert found.diameter_found == 5.5
    assert found.detachment_mae == 0


def test_unknown_detachment_is_left_out_of_its_errors_alone() -> None:
    found = agreement(TRUTH.assign(detachment_fraction=[0.1, np.nan, 0.5, 0.7]), true_labels())
    assert found.n_matched == 3
    assert found.detachment_mae == pytest.approx(0.1)
    assert found.detachment_true == pytest.approx(0.5)


def test_without_spread_there_is_no_correlation() -> None:
    found = agreement(TRUTH.assign(detachment_fraction=0.5), true_labels())
    assert np.isnan(found.detachment_r)
    assert found.detachment_found == 0.5


def test_nothing_found() -> None:
    found = agreement(TRUTH.iloc[:0], np.zeros_like(true_labels()))
    assert (found.n_found, found.n_true, found.n_matched) == (0, 3, 0)
    assert np.isnan([found.detachment_mae, found.diameter_bias, found.diameter_found]).all()


def test_the_text_holds_both_sides() -> None:
    text = str(agreement(TRUTH.assign(detachment_fraction=[0.1, 0.3, 0.5, 0.7]), true_labels()))
    assert text.splitlines()[0].split() == ["found", "true"]
    assert "uncut particles" in text
    assert "3 of 3 found one to one\n" in text
    assert "mean absolute error 0.100, r 1.000" in text
    assert not any(line.endswith(" ") for line in text.splitlines())


# ---- the electrode on disk -------------------------------------------------------------------------------------------


def test_the_phantom_is_written_as_it_is_made(tmp_path: Path) -> None:
    phantom = Phantom(PhantomSettings(shape=(40, 24, 28), voxel_size_um=(0.3, 0.2, 0.25), seed=5))
    path = tmp_path / "new" / "phantom.h5"
    demo.write_phantom(phantom, path)
    whole = phantom.slab(0, 40)
    with open_volume(path) as volume:
        assert volume.shape == (40, 24, 28)
        assert volume.voxel_size == pytest.approx((0.3, 0.2, 0.25))
        assert volume.dataset.strip("/") == "entry/data/data"
        np.testing.assert_array_equal(volume[:], whole.grey)
    with h5py.File(path) as file:
        for name in ("labels", "phases", "damage"):
            np.testing.assert_array_equal(file[f"truth/{name}"][()], getattr(whole, name))
    assert [p.name for p in path.parent.iterdir()] == ["phantom.h5"]


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_a_demo_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").write_record({"finished": True})
    with pytest.raises(InputError, match=r"-o/--out: .* holds a demo already; .* replace it with --overwrite"):
        demo.demo(tmp_path)
    assert not (tmp_path / "phantom.h5").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"-o/--out: .*demo cannot be written \(.*file: it is a file\); choose"):
        demo.demo(tmp_path / "file" / "demo")


@pytest.mark.parametrize("size", [-1, 0, 63, 1025])
def test_a_size_that_makes_no_electrode(size: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"--size: must be 64 to 1024 voxels; got {size}\."):
        demo.demo(tmp_path / "out", size=size)
    assert not (tmp_path / "out").exists()


def test_the_smallest_electrode_has_whole_particles() -> None:
    for seed in range(4):
        cut = Phantom(PhantomSettings(shape=(demo.SMALLEST,) * 3, seed=seed)).truth["touches_border"]
        assert (~cut.astype(bool)).any()


def test_an_electrode_that_cannot_be_measured_here_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cbdetach.estimate.available_memory", lambda: 1e8)
    with pytest.raises(InputError, match=r"memory: this run needs about .* GB, 0\.1 GB are free"):
        demo.demo(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"threads": 999}, "--threads: must be 1 to "),
        ({"device": "tpu"}, "--device: must be cpu or cuda"),
        ({"segmenter": "magic"}, "--segmenter: "),
        ({"segmenter": "watershed", "views": "zyx"}, "--views: zyx only goes with"),
        ({"model": "none.onnx"}, "--model: there is no file none.onnx"),
    ],
)
def test_what_is_wrong_is_said_before_the_electrode_is_made(how: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        demo.demo(tmp_path / "out", size=400, **how)
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "out").exists()
