"""The charts of one run that need many particles: what they draw, what they say, and when they are not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.cbdetach.fake_electrodes import fake_table, field
from tests.cbdetach.fake_run import fake_run

from cbdetach.features import FEATURES
from cbdetach.report import ReportInput, feature_figures, relation_figures
from cbdetach.report.drawing import Drawing

N = 216


@pytest.fixture(scope="module")
def run() -> ReportInput:
    """216 particles, whose density seems to fall with detachment where it is measured near the surface."""
    rng = np.random.default_rng(0)
    detachment = np.clip(0.4 + 0.1 * field(rng, N)[:, 0], 0, 1)
    density = 1 + 0.02 * rng.normal(size=N)
    table = fake_table(detachment, density=density)
    false = [
        pd.DataFrame({"label": np.arange(1, N + 1), "erosion_um": d, "density_mean": density - strength * detachment})
        for d, strength in ((0.0, 0.4), (0.4, 0.1), (0.8, 0.0), (1.2, 0.0))
    ]
    return replace(
        fake_run(Path("unused"), n=3, shape=(16, 20, 20)), table=table, densities=pd.concat(false), erosion_um=0.8
    )


def drawn(found: Drawing | str) -> Drawing:
    assert isinstance(found, Drawing), found
    return found


def test_volume(run: ReportInput) -> None:
    found = drawn(relation_figures.detachment_volume(run))
    assert "n = 216, worth" in found.caption
    assert {"from_um", "n", "n_effective", "median_low", "median_high"} <= set(found.table)
    assert found.table["n"].sum() == N


def test_spread(run: ReportInput) -> None:
    found = drawn(relation_figures.detachment_spread(run))
    shown = found.table.dropna()
    assert (shown["null_low"] < shown["sd_null"]).all()
    assert (shown["sd_null"] < shown["null_high"]).all()
    other = drawn(relation_figures.detachment_spread(replace(run, seed=run.seed + 1)))
    assert (other.table.dropna()["null_low"] != shown["null_low"]).any()


def test_density(run: ReportInput) -> None:
    found = drawn(relation_figures.density_detachment(run))
    assert "spearman, same size" in found.caption
    assert len(found.table) == N


def test_erosion(run: ReportInput) -> None:
    found = drawn(relation_figures.density_erosion(run))
    r = found.table.set_index("erosion_um")["r"]
    assert r[0.0] < -0.7
    assert abs(r[0.8]) < 0.25
    assert r[0.8] == r[1.2]


def test_peaks(run: ReportInput) -> None:
    found = drawn(relation_figures.peaks(run))
    assert "carbon/binder" in found.caption
    assert set(found.table["phase"]) == {"cbd", "active"}
    assert run.peaks is not None
    few = replace(run, peaks=run.peaks.assign(voxels=0))
    assert (
        relation_figures.peaks(few)
        == "No phase has a region thicker than the blur, so no peak can be told from the edges."
    )


def test_what_is_not_there_is_said(run: ReportInput) -> None:
    bare = replace(run, densities=None, peaks=None, grey=None, table=fake_table(np.full(N, 0.3)))
    assert relation_figures.density_erosion(bare) == relation_figures.NO_GREY
    assert relation_figures.density_detachment(bare) == relation_figures.NO_GREY
    assert relation_figures.peaks(bare) == relation_figures.NO_GREY
    none = replace(run, table=run.table.assign(detachment_fraction=np.nan))
    assert relation_figures.detachment_volume(none) == relation_figures.NO_CBD
    assert relation_figures.detachment_spread(none) == relation_figures.NO_CBD
    thin = replace(run, table=fake_table(np.full(N, 0.3)))
    assert "thick enough" in str(relation_figures.density_detachment(thin))


def test_features(run: ReportInput) -> None:
    """A feature made of detachment is found, noise is not; what does not vary or is hardly known has none."""
    rng = np.random.default_rng(1)
    n = len(run.table)
    frame = pd.DataFrame({name: rng.normal(size=n) for name in FEATURES})
    frame["crack_fraction"] = run.table["detachment_fraction"] ** 3
    frame["coordination_number"] = 4
    frame["smoothed_area_ratio_inner"] = np.where(np.arange(n) < 5, 1.0, np.nan)
    found = drawn(feature_figures.features(replace(run, features=frame))).table.set_index("feature")
    assert found["r"]["crack_fraction"] == pytest.approx(1)
    assert np.isnan(found["r"]["coordination_number"])
    assert found["n"]["smoothed_area_ratio_inner"] == 5
    noise = found.drop(["crack_fraction", "coordination_number", "smoothed_area_ratio_inner"])
    assert (noise["r"].abs() < 0.25).all()
    assert ((noise["r_low"] < 0) & (noise["r_high"] > 0)).sum() >= len(noise) - 3
    assert feature_figures.features(run) == "The run has no features."
    few = replace(run, features=frame.iloc[:5], table=run.table.iloc[:5])
    assert "Fewer than 10 particles" in str(feature_figures.features(few))
    assert {name for names in feature_figures.GROUPS.values() for name in names} < set(FEATURES)
