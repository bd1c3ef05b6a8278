"""What a run leaves beside `particles.csv`: features, and densities by depth, whatever the slabs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import cbdetach
from cbdetach import report
from cbdetach.features import FEATURES

SHAPE = (40, 48, 48)


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    """Eight balls, the upper four coated on one side, one with a pore, and their grey values."""
    grid = np.indices(SHAPE)
    phases, labels = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.int32)
    for k, (z, y, x) in enumerate(np.ndindex(2, 2, 2)):
        r = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, (10 + 20 * z, 12 + 24 * y, 12 + 24 * x), strict=True)))
        phases[(r <= 9) & (grid[1] < 12 + 24 * y) & (z == 0)] = 1
        phases[r <= 8] = 2
        labels[r <= 8] = k + 1
        phases[(r <= 4) & (k == 3)] = 0
    grey = np.array([100, 200, 400], np.uint16)[phases] + labels.astype(np.uint16)
    return {
        "volume": grey,
        "labels": labels,
        "phases": phases,
        "phase_values": {"void": 0, "cbd": 1, "active": 2},
        "voxel_size": 0.5,
    }


@pytest.fixture(scope="module", autouse=True)
def no_figures() -> Iterator[None]:
    """Tables alone: the figures take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "write_report", lambda run: run.out)
        yield


@pytest.fixture(scope="module")
def run(given: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> cbdetach.Run:
    return cbdetach.run(out=tmp_path_factory.mktemp("features") / "out", slab=40, **given)


def test_features_lie_beside_the_table(run: cbdetach.Run) -> None:
    frame = pd.read_csv(run.path / "features.csv")
    assert list(frame.columns) == list(run.features.columns) == list(FEATURES)
    assert frame["label"].tolist() == run.table["label"].tolist() == list(range(1, 9))
    for name in ("volume_um3", "elongation", "crack_fraction", "density_mean", "touches_border"):
        np.testing.assert_array_equal(run.features[name], run.table[name], err_msg=name)
    words = json.loads((run.path / "features.json").read_text())
    assert set(words["columns"]) == set(FEATURES)
    assert words["columns"]["packing_fraction"]["li_2022"] == "PDensity"
    assert words["settings"]["neighbourhood_um"] == 20
    assert words["settings"]["smoothing_um"] == 0.75


def test_features_are_right(run: cbdetach.Run, given: dict[str, Any]) -> None:
    found = run.features.set_index("label")
    assert found["nearest_distance_um"].tolist() == pytest.approx([10.0] * 8)  # 20 voxels along z
    assert (found["coordination_number"] == 0).all()
    assert found["surface_inner_um2"][4] == pytest.approx(4 * np.pi * 2.0**2, rel=0.1)
    assert (found["surface_inner_um2"].drop(4) == 0).all()
    assert (found["smoothed_area_ratio_outer"] > 0.98).all()
    assert found["volume_surface_ratio"].tolist() == pytest.approx([0.455] * 8, abs=0.01)
    assert (found["cbd_contact_fraction"].iloc[4:] == 0).all()
    assert (found["cbd_contact_fraction"].iloc[:4] > 0.4).all()
    cube = given["labels"][:31, :33, :33] > 0  # 40 voxels around (10, 12, 12), as far as there is a volume
    assert found["packing_fraction"][1] == pytest.approx(cube.mean(), abs=0.01)
    assert np.isnan(found["density_mean"][4])  # around the pore no solid is deep enough
    others = found["density_mean"].drop(4)
    assert others.tolist() == pytest.approx((400 + others.index).tolist())


def test_densities_by_depth(run: cbdetach.Run) -> None:
    frame = pd.read_csv(run.path / "densities.csv")
    depths = sorted(frame["erosion_um"].unique())
    assert len(frame) == 8 * len(depths)
    used = frame[frame["erosion_um"] == 1.0].set_index("label")
    np.testing.assert_allclose(used["density_mean"], run.table["density_mean"])
    voxels = frame.pivot_table(index="erosion_um", columns="label", values="voxels")
    assert (voxels.diff().dropna() <= 0).all().all()
    assert (voxels.iloc[-1] < 0.5 * voxels.iloc[0]).all()
    assert run.record["peaks"]["active"]["voxels"] > 1000
    assert run.record["peaks"]["active"]["position"] == pytest.approx(404.5, abs=4)


def test_slabs_and_settings(run: cbdetach.Run, given: dict[str, Any], tmp_path: Path) -> None:
    """Thin slabs give the same features; each setting changes its own."""
    config = {"features": {"neighbourhood_um": 8.0, "smoothing_um": 1.5, "min_contact_um2": 3.0}}
    with cbdetach.run(out=tmp_path / "out", slab=7, config=config, **given) as other:
        a, b = run.features, other.features
        changed = {
            "packing_fraction",
            "packing_known_fraction",
            "smoothed_area_ratio_outer",
        }
        for name in FEATURES:
            if name in changed:
                assert not np.allclose(a[name], b[name], equal_nan=True), name
            else:
                np.testing.assert_allclose(a[name].astype(float), b[name].astype(float), rtol=1e-6, err_msg=name)
        depths = (pd.read_csv(r.path / "densities.csv") for r in (run, other))
        pd.testing.assert_frame_equal(*depths, rtol=1e-9)
        assert other.record["peaks"] == run.record["peaks"]
        assert json.loads((other.path / "features.json").read_text())["settings"]["min_contact_um2"] == 3.0
