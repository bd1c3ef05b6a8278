"""The choice between mixture and multi-Otsu, and active material of two densities."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from cbdetach.codes import ACTIVE, ACTIVE_HIGH, CBD, VOID
from cbdetach.errors import InputError
from cbdetach.phases import halo, resolve_phases
from cbdetach.survey import Survey, SurveyAccumulator
from cbdetach.thresholds import Thresholds, find_thresholds

Array = np.ndarray[Any, Any]
GREY = {VOID: 8000, CBD: 17000, ACTIVE: 34000, ACTIVE_HIGH: 52000}


@cache
def scene(spread: float, bright: float = 0.3) -> tuple[Array, Array]:
    """Dim and bright blobs between void and CBD: codes, and grey values that vary by `spread` on the scale of blobs."""
    rng = np.random.default_rng(7)
    texture, side, kind, slow = (ndimage.gaussian_filter(rng.standard_normal((24, 96, 96)), s) for s in (4, 4, 6, 3))
    codes = np.where(side > np.quantile(side, 0.5), CBD, VOID)
    active = texture > np.quantile(texture, 0.45)
    codes[active] = np.where(kind > np.quantile(kind[active], 1 - bright), ACTIVE_HIGH, ACTIVE)[active]
    grey = np.vectorize(GREY.__getitem__)(codes) + spread * slow / slow.std()
    grey = ndimage.gaussian_filter(grey, 0.8) + 500 * rng.standard_normal(grey.shape)
    return codes.astype(np.uint8), grey.clip(0, 65535).astype(np.uint16)


def survey(grey: Array) -> Survey:
    accumulator = SurveyAccumulator((1.0, 1.0, 1.0))
    accumulator.add(grey)
    return accumulator.finish()


def found(grey: Array, **options: Any) -> Thresholds:
    s = survey(grey)
    return find_thresholds(s.counts, s.edges, strength=(s.strength_grey, s.strength), **options)


def test_dim_and_bright_material_are_told_from_the_dark() -> None:
    """The mixture takes its three classes for void, dim and bright; the edges say where the surfaces are."""
    codes, grey = scene(4000.0)
    auto, mixture = found(grey), found(grey, method="gmm")
    assert auto.method == "otsu"
    assert "edges are" in auto.why
    assert auto.active_high is not None
    assert (
        GREY[VOID] < auto.void_cbd < GREY[CBD] < auto.cbd_active < GREY[ACTIVE] < auto.active_high < GREY[ACTIVE_HIGH]
    )
    assert auto.others == {"gmm": [mixture.void_cbd, mixture.cbd_active]}

    def agreement(t: Thresholds) -> float:
        return float(((grey >= t.cbd_active) == (codes >= ACTIVE)).mean())

    assert agreement(auto) > 0.93
    assert agreement(mixture) < agreement(auto) - 0.05


def test_one_density_with_clear_levels_is_the_mixtures() -> None:
    codes, _ = scene(0.0)
    rng = np.random.default_rng(1)
    grey = np.vectorize(GREY.__getitem__)(np.minimum(codes, ACTIVE)) + 300.0 * rng.standard_normal(codes.shape)
    auto = found(ndimage.gaussian_filter(grey, 0.5).astype(np.uint16))
    assert (auto.method, auto.active_high) == ("gmm", None)
    assert "stand clear" in auto.why


def test_the_choice_needs_edges_and_may_be_forbidden() -> None:
    _, grey = scene(4000.0)
    s = survey(grey)
    blind = find_thresholds(s.counts, s.edges)
    assert (blind.method, blind.active_high) == ("gmm", None)
    assert "no edges were measured" in blind.why
    one = found(grey, active_levels=1)
    assert (one.method, one.active_high) == ("gmm", None)
    assert "one density" in one.why


def test_two_densities_on_demand() -> None:
    _, grey = scene(4000.0)
    plain, two = (found(grey, method="otsu", active_levels=n) for n in (1, 2))
    assert plain.active_high is None
    assert two.active_high == pytest.approx(plain.cbd_active)
    assert two.cbd_active == pytest.approx(plain.void_cbd)
    assert two.void_cbd < plain.void_cbd
    mixture = found(grey, method="gmm", active_levels=2)
    assert mixture.cbd_active == found(grey, method="gmm").cbd_active
    assert mixture.active_high is not None
    assert mixture.active_high > mixture.cbd_active
    assert found(grey, method="gmm", active_high=60000.0).active_high == 60000.0


def test_high_density_is_a_phase_of_its_own() -> None:
    """Rim voxels of a dense particle belong to it; a slab with its halo gives what the whole volume gives."""
    codes, grey = scene(0.0)
    thresholds = found(grey, method="otsu", active_levels=2)
    options: dict[str, Any] = {"spacing": (1.0, 1.0, 1.0), "edge_width_um": 2.0}
    phases, unresolved = resolve_phases(grey, thresholds, **options)
    deep = ndimage.distance_transform_edt(codes == ACTIVE_HIGH) > 1.5
    assert (phases[deep] == ACTIVE_HIGH).mean() > 0.97
    dim = ndimage.distance_transform_edt(codes == ACTIVE) > 1.5
    assert (phases[dim] == ACTIVE).mean() > 0.97
    low, _ = resolve_phases(grey, found(grey, method="otsu", active_levels=2, active_high=65000.0), **options)
    assert not (low == ACTIVE_HIGH).any()
    np.testing.assert_array_equal(low, np.minimum(phases, ACTIVE))
    assert not unresolved[phases >= ACTIVE].any()
    n = halo((1.0, 1.0, 1.0), 2.0)
    part, _ = resolve_phases(grey[: 6 + n], thresholds, **options)
    np.testing.assert_array_equal(part[:6], phases[:6])


def test_bad_arguments() -> None:
    _, grey = scene(4000.0)
    s = survey(grey)
    with pytest.raises(InputError, match="active_levels: must be 1 or 2; got 3"):
        find_thresholds(s.counts, s.edges, active_levels=3)
    with pytest.raises(InputError, match="active_high: must be above the CBD/active threshold"):
        find_thresholds(s.counts, s.edges, active_high=100.0)
    with pytest.raises(InputError, match="must hold at least four grey levels"):
        find_thresholds([5, 5, 5], [0, 1, 2, 3], method="otsu", active_levels=2)
