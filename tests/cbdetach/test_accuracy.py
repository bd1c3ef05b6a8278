"""The measurements behind docs/accuracy.md: what they call true, on bodies that can be counted, and a small phantom."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from benchmarks import (
    accuracy_bands,
    accuracy_blur,
    accuracy_causes,
    accuracy_damage,
    accuracy_diffusion,
    accuracy_pipeline,
)
from benchmarks.accuracy_bands import thin_share
from benchmarks.accuracy_columns import grain, line, number

import cbdetach
from cbdetach import detachment, films, phases
from cbdetach.codes import ACTIVE, CBD, VOID
from cbdetach.demo import match
from cbdetach.phantom import Phantom, PhantomSettings
from cbdetach.segment import segment_volume
from cbdetach.survey import SurveyAccumulator
from cbdetach.thresholds import find_thresholds


@pytest.mark.parametrize(("thick", "expected"), [(1, 1 / 6), (2, 1 / 6), (6, 0.0)])
def test_a_film_on_one_face_of_a_cube_is_a_sixth(thick: int, expected: float) -> None:
    labels = np.zeros((64, 64, 64), np.int32)
    labels[16:48, 16:48, 16:48] = 3
    codes = np.where(labels > 0, ACTIVE, VOID).astype(np.uint8)
    codes[48 : 48 + thick, 16:48, 16:48] = CBD
    share = thin_share(labels, codes, spacing=(0.5, 0.5, 0.5), delta_um=2.0)
    assert np.isnan(share[:3]).all()
    assert share[3] == pytest.approx(expected, abs=0.04)  # at edges the normal looks past the film


def test_grain_is_what_the_settings_add() -> None:
    """Texture and noise are independent; either alone has its own strength."""
    plain = PhantomSettings(texture=0.0, noise=0.0, rings=0.0, fringe=0.0)
    contrast = plain.grey_active - plain.grey_void
    assert grain(plain, 60) == pytest.approx(0, abs=1)
    noise = grain(PhantomSettings(texture=0.0, noise=0.04, rings=0.0, fringe=0.0), 60)
    assert noise == pytest.approx(0.04 * contrast, rel=0.03)
    both = grain(PhantomSettings(texture=0.03, noise=0.04, rings=0.0, fringe=0.0), 60)
    assert both == pytest.approx(0.05 * contrast, rel=0.05)


def test_a_row_of_the_table() -> None:
    true, found = np.array([1.0, 2.0, 3.0, np.nan]), np.array([1.5, 2.5, 3.2, 1.0])
    assert line("`x`", true, found, true) == "| `x` | 3 | 2.00 ± 0.816 | +0.400 | 0.400 | 0.995 | +0 | 0 | 1.000 |"
    assert line("`x`", true, np.full(4, np.nan), true) == "| `x` | 0 |"
    assert [number(v) for v in (0.0, 12345.6, 1.234, 0.01234, 0.00001)] == ["0", "12346", "1.23", "0.0123", "0.0000"]


def test_surface_of_particles_that_are_split_is_as_stated() -> None:
    """True phases, the watershed's particles: known share of the surface, contact with particles, on the mean."""
    phantom = Phantom(shape=(100, 100, 100), seed=6)
    labels, codes, _ = phantom.codes(0, 100)
    found = segment_volume(codes == ACTIVE, spacing=(0.2, 0.2, 0.2))
    ids, own = match(found, labels)
    truth = phantom.truth.set_index("label").loc[own]
    whole = ~truth["touches_border"].to_numpy()
    contacts = detachment.surface_classes(found, codes, spacing=(0.2, 0.2, 0.2))
    columns = detachment.detachment_columns(contacts, ids)
    outer = truth[[f"area_{n}_um2" for n in ("void", "cbd", "particle", "other", "crack_mouth")]].sum(axis=1)
    known = ((truth["area_void_um2"] + truth["area_cbd_um2"]) / outer).to_numpy()
    assert whole.sum() >= 10
    assert np.mean((columns["contact_known_fraction"] - known)[whole]) == pytest.approx(0, abs=0.03)
    assert np.mean((columns["surface_area_um2"] / outer.to_numpy())[whole]) == pytest.approx(1, abs=0.03)
    assert np.mean((columns["area_particle_um2"] - truth["area_particle_um2"].to_numpy())[whole]) < 1.0


@pytest.mark.parametrize(("widths", "thin"), [(0.5, True), (1.0, False), (2.0, False), (3.0, False)])
def test_films_too_thin_for_the_blur_are_told(widths: float, thin: bool) -> None:
    """The sign that `run` warns by, from grey values alone; chosen on seeds 0 to 2, 5, 8 and 9, not on this one."""
    blur = PhantomSettings().blur_fwhm_um
    phantom = Phantom(shape=(72, 72, 72), seed=12, coating_thickness_um=widths * blur, samples=200)
    grey, size = phantom.volume().grey, phantom.settings.voxel_size_um
    accumulator = SurveyAccumulator(size)
    accumulator.add(grey)
    survey = accumulator.finish()
    found = find_thresholds(survey.counts, survey.edges, strength=(survey.strength_grey, survey.strength))
    blurred: dict[str, Any] = {"spacing": size, "edge_width_um": survey.edge_width_um}
    resolved = phases.resolve(grey, found, **blurred)
    codes = resolved.phases
    labels = segment_volume(detachment.is_active(codes), spacing=size)
    low = films.low_height(films.film_heights(labels, films.height_classes(resolved.height, codes), (0, 72)))
    assert low is not None
    assert (low < films.THIN) == thin


def test_tables_of_the_band_benchmark(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Two particles in each of two runs: one truth in its band, one 0.1 outside; one run of two tells of thin films."""

    def measure(size: int, width: float, seed: int, folder: Path) -> pd.DataFrame:
        found = pd.Series([0.5, 0.6]) + 0.1 * seed
        table = {"true": [0.5, 0.9], "found": found, "low": 0.4, "high": 0.8, "unresolved": 0.2, "thin": 0.3}
        return pd.DataFrame(table | {"height": width / 2 - 0.1 * seed})

    monkeypatch.setattr(accuracy_bands, "measure", measure)
    monkeypatch.setattr(accuracy_bands, "WIDTHS", (1.0,))
    monkeypatch.setattr(sys, "argv", ["accuracy_bands", "64", "0", "1"])
    accuracy_bands.main()
    first, second = capsys.readouterr().out.split("\n\n")
    assert first.splitlines()[2:] == ["| 1 | 4 | 0.150 | 0.400 | 0.50 | 0.100 | 0.270 | 0.200 | 0.300 | 0.100 |"]
    assert second.splitlines()[2:] == ["| 1 | 0.40 to 0.50 | 1 of 2 | -0.150 to -0.050 |"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], [(256, *case) for case in accuracy_pipeline.CASES]),
        (["64"], [(64, *case) for case in accuracy_pipeline.CASES]),
        (["64", "watershed2d", "maskrcnn:zyx"], [(64, 3.0, "watershed2d"), (64, 3.0, "maskrcnn:zyx")]),
        (["64", "--widths", "0.5", "2"], [(64, 0.5, "watershed"), (64, 2.0, "watershed")]),
        (["64", "maskrcnn", "--widths", "1"], [(64, 1.0, "maskrcnn")]),
    ],
)
def test_cases_of_the_pipeline_benchmark(
    arguments: list[str], expected: list[tuple[int, float, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is run for which arguments; the runs themselves are replaced."""
    seen = []

    def measure(size: int, widths: float, how: str, folder: Path) -> tuple[SimpleNamespace, dict[str, float]]:
        seen.append((size, widths, how))
        numbers = ("n_true", "n_matched", "diameter_bias", "detachment_mae", "detachment_bias", "detachment_r")
        return SimpleNamespace(**dict.fromkeys(numbers, 1)), {"areas": 1.0}

    monkeypatch.setattr(accuracy_pipeline, "measure", measure)
    monkeypatch.setattr(sys, "argv", ["accuracy_pipeline", *arguments])
    accuracy_pipeline.main()
    assert seen == expected


def _damage_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """What the benchmark prints, its runs replaced: cracks of `width`, found 1 + the sum of settings times as large."""

    def measure(size: int, width: float, folder: Path, seed: int, segment: dict[str, float]) -> pd.DataFrame:
        found = 0.01 * width * (1 + sum(segment.values()))
        shares = {"crack": 0.01 * width, "counted": found, "corrected": found, "pore": 0.02, "pore_found": 0.02}
        return pd.DataFrame([shares | {"volume_um3": size}] * (seed + 1))

    monkeypatch.setattr(accuracy_damage, "measure", measure)
    monkeypatch.setattr(sys, "argv", ["accuracy_damage", *arguments])
    accuracy_damage.main()
    return capsys.readouterr().out.splitlines()[2:]


def test_widths_and_settings_of_the_damage_benchmark(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = _damage_table(monkeypatch, capsys)
    assert [float(row.split("|")[1]) for row in lines] == list(accuracy_damage.WIDTHS)
    lines = _damage_table(monkeypatch, capsys, "64", "1", "2", "--widths", "0.7", "3")
    assert [row.split("|")[1:4] for row in lines] == [[" 0.7 ", " 5 ", " 0.0070 "], [" 3 ", " 5 ", " 0.0300 "]]
    for option in ("--close-um", "--bridge-um"):
        (row,) = _damage_table(monkeypatch, capsys, "64", "--widths", "1", option, "0.5")
        assert row.split("|")[4] == " 1.50 "


def test_table_of_mistaken_pores(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Pores of a size and seed, their measurement replaced: two particles without cracks, one with."""

    def mistaken(size: int, pore_size: float, seed: int) -> pd.DataFrame:
        assert size == 64
        return pd.DataFrame({"pore": [100, 300, 50], "crack": [0, 0, 9], "mistaken": [100 * pore_size, 250, 40 * seed]})

    monkeypatch.setattr(accuracy_damage, "mistaken_pores", mistaken)
    assert _damage_table(monkeypatch, capsys, "64", "0", "1", "--pore-sizes", "0.3", "0.6") == [
        "| 0.3 | 4 | 0.70 | 2 | 2 | 0.40 | 1 |",
        "| 0.6 | 4 | 0.78 | 4 | 2 | 0.40 | 1 |",
    ]


def test_pores_that_are_taken_for_cracks() -> None:
    """On one small phantom: whole porous particles with and without cracks; what is mistaken is a part of the pores."""
    table = accuracy_damage.mistaken_pores(72, 0.3, seed=1)
    assert len(table) >= 4
    assert (table["crack"] > 0).any()
    assert (table["crack"] == 0).any()
    assert table["mistaken"].between(0, table["pore"]).all()
    assert table["mistaken"].sum() < 0.5 * table["pore"].sum()


@pytest.mark.parametrize("segment", [{}, {"close_um": 1.25}, {"bridge_um": 1.0}])
def test_settings_of_the_damage_benchmark_reach_the_run(
    segment: dict[str, float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Told(Exception):
        pass

    def run(*_: Any, config: dict[str, Any], **__: Any) -> None:
        raise Told(config["segment"])

    monkeypatch.setattr(cbdetach, "run", run)
    with pytest.raises(Told) as told:
        accuracy_damage.measure(24, 1.0, tmp_path, segment=segment)
    assert told.value.args == (segment,)


def test_what_lies_around_particles_is_the_nearest_that_is_known() -> None:
    """One particle found where the truth has another: inside its own phases, around it the other's surroundings."""
    labels, others = np.zeros((1, 1, 8), np.int32), np.zeros((1, 1, 8), np.int32)
    labels[..., 2:5], others[..., 3:7] = 1, 9
    inside, around = np.full((1, 1, 8), ACTIVE), np.array([[[CBD, CBD, CBD, 2, 2, 2, 2, VOID]]])
    expected = [CBD, CBD, ACTIVE, ACTIVE, ACTIVE, VOID, VOID, VOID]
    assert accuracy_causes.mixed(labels, inside, others, around)[0, 0].tolist() == expected


def test_confused_area_near_another_particle_and_far_from_it() -> None:
    """A plate that faces void above; below, carbon/binder reads as void; another plate is near one side only."""
    labels = np.zeros((12, 6, 6), np.int32)
    labels[5:7] = 3
    others = labels.copy()
    others[10:] = 4
    true = np.full(labels.shape, VOID, np.uint8)
    true[:5] = CBD
    found = np.where(labels > 0, ACTIVE, VOID).astype(np.uint8)
    found[7] = CBD
    area = accuracy_causes.confused(labels, found, true, others, size=0.5)
    face = 36 * 0.25 / 1.5
    np.testing.assert_allclose(area, [[0, 0], [face, face]])  # the other plate's first voxels are 1.5 um away
    others[9] = 4
    np.testing.assert_allclose(accuracy_causes.confused(labels, found, true, others, 0.5), [[face, 0], [0, face]])


@pytest.mark.parametrize("blur", [0.3, 0.4, 0.8])
def test_true_blur_is_that_of_gaussian_and_voxel(blur: float) -> None:
    """Variances add, that of a voxel is a twelfth of its square; a fringe makes edges steeper."""
    plain = PhantomSettings(blur_fwhm_um=blur, fringe=0.0)
    assert accuracy_blur.true_width(plain) == pytest.approx(np.sqrt(blur**2 + np.log(256) * 0.2**2 / 12), rel=2e-3)
    assert accuracy_blur.true_width(PhantomSettings(blur_fwhm_um=blur, fringe=0.1)) < accuracy_blur.true_width(plain)


def test_rules_for_contact() -> None:
    """A ball with a cap, a thin patch of three squared widths and a speck: each rule counts what it should."""
    z, y, x = np.indices((41, 41, 41)) - 20
    r = np.sqrt(z**2 + y**2 + x**2)
    labels = (r <= 12).astype(np.int32)
    shell = (r > 12) & (r <= 16)
    patch = (np.abs(z) <= 1) & (np.abs(y) <= 1) & (x < 0)
    codes = np.where(labels > 0, ACTIVE, np.where(shell & (z > 9), CBD, VOID)).astype(np.uint8)
    bare = accuracy_diffusion.lengths(labels, codes, np.array([1]), (1, 0), 2.0, (1.0, 1.0, 1.0))
    codes[shell & patch & (r <= 13.5)] = CBD
    rules = accuracy_diffusion.RULES.values()
    every, large, pieces = (
        accuracy_diffusion.lengths(labels, codes, np.array([1]), rule, 2.0, (1.0, 1.0, 1.0)) for rule in rules
    )
    assert every[0, 0] < 0.95 * bare[0, 0]
    np.testing.assert_array_equal(large, bare)
    np.testing.assert_array_equal(pieces, bare)
    np.testing.assert_allclose(bare[1], 1)
