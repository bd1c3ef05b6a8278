"""Instances get the outlines of the active phase: no shell left out, nothing reaching over, cracks and pores filled."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.cbdetach.pretend import instances

from cbdetach.demo import match
from cbdetach.link import link_slices
from cbdetach.segment import fit_to_phase

Array = npt.NDArray[Any]
SIDE = 80


def disc(centre: tuple[float, float], radius: float, side: int = SIDE) -> Array:
    y, x = np.indices((side, side))
    return np.asarray((y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2)


def iou(a: Array, b: Array) -> float:
    return float(np.count_nonzero(a & b) / np.count_nonzero(a | b))


def fit(labels: Array, active: Array, **options: Any) -> Array:
    return fit_to_phase(labels.astype(np.int32), active, **({"min_diameter_um": 10.0, "close_um": 4.0} | options))


BODY = disc((40, 40), 25)


@pytest.mark.parametrize("radius", [22, 25, 29])
def test_the_surface_is_that_of_the_phase(radius: int) -> None:
    """A mask that is too small leaves no shell, one that is too large reaches over nothing."""
    np.testing.assert_array_equal(fit(disc((40, 40), radius) * 3, BODY), BODY * 3)


def test_reach_limits_how_far_an_instance_is_extended() -> None:
    small = disc((40, 40), 17)
    assert iou(fit(small, BODY, reach=0.5) == 1, BODY) == 1
    short = fit(small, BODY, reach=0.05, add=False)
    assert short.max() == 1
    assert np.count_nonzero(short) < 0.65 * np.count_nonzero(BODY)


def test_a_particle_that_a_crack_cuts_in_two_stays_one() -> None:
    active = BODY.copy()
    active[:, 39:42] = False
    assert iou(fit(BODY, active) == 1, BODY) > 0.99  # but for a pixel of the crack's mouth
    apart = fit(BODY, active, close_um=0.0)
    assert set(np.unique(apart)) == {0, 1}  # still one, though the crack is outside
    np.testing.assert_array_equal(apart == 1, active)


def test_a_gap_wider_than_a_crack_is_outside() -> None:
    active = BODY.copy()
    active[:40, 36:45] = False  # nine pixels wide, open at the top
    assert not fit(BODY, active)[20:36, 40].any()
    assert (fit(BODY, active, close_um=12.0)[25:36, 40] == 1).all()


def test_pores_with_a_narrow_mouth_are_filled() -> None:
    active = BODY & ~disc((40, 40), 9)
    active[10:40, 39:41] = False
    assert iou(fit(BODY, active) == 1, BODY) > 0.999


def test_what_lies_between_two_particles_is_neither_s() -> None:
    one, two = disc((40, 22), 17), disc((40, 58), 17)  # one pixel and cusps between them
    sloppy = np.where(disc((40, 22), 18), 1, 0)
    sloppy[disc((40, 58), 18.5) & (sloppy == 0)] = 2
    fitted = fit(sloppy, one | two)
    assert iou(fitted == 1, one) > 0.98
    assert iou(fitted == 2, two) > 0.98
    assert not fitted[:30, 40].any()


def test_the_network_s_cut_between_touching_particles_is_kept() -> None:
    active = np.zeros((SIDE, SIDE), bool)
    active[20:60, 10:70] = True
    labels = np.zeros((SIDE, SIDE), int)
    labels[22:58, 12:33], labels[22:58, 33:68] = 1, 2  # no neck shows where
    fitted = fit(labels, active)
    assert (fitted[20:60, 10:32] == 1).all()
    assert (fitted[20:60, 34:70] == 2).all()


def test_a_scrap_on_another_particle_does_not_split_it() -> None:
    labels = disc((40, 22), 17) * 1 + disc((40, 60), 17) * 2
    labels[38:42, 43:47] = 1  # across the gap
    active = disc((40, 22), 17) | disc((40, 60), 17)
    np.testing.assert_array_equal(fit(labels, active), disc((40, 22), 17) * 1 + disc((40, 60), 17) * 2)


def test_particles_that_were_missed_are_added() -> None:
    missed, crumb = disc((40, 60), 15), disc((10, 10), 2)
    found = disc((40, 22), 17)
    fitted = fit(found * 5, found | missed | crumb)
    np.testing.assert_array_equal(fitted, found * 5 + missed * 6)
    np.testing.assert_array_equal(fit(found * 5, found | missed | crumb, add=False), found * 5)
    assert fit(found * 5, found | missed | crumb, min_diameter_um=5.0).max() == 7
    two = disc((40, 54), 12) | disc((58, 66), 12)
    assert set(np.unique(fit(found * 5, found | two))) == {0, 5, 6, 7}
    assert set(np.unique(fit(found * 5, found | two, marker_depth=1.0))) == {0, 5, 6}


def test_a_thin_shell_is_no_particle() -> None:
    fitted = fit(disc((40, 40), 21), BODY, reach=0.0, min_diameter_um=16.0)
    assert fitted.max() == 1
    assert not fitted[40, 64]


def test_instances_without_active_material_and_small_ones_are_gone() -> None:
    labels = BODY * 1 + disc((8, 8), 6) * 2 + disc((72, 72), 2) * 3
    active = BODY | disc((72, 72), 2)
    np.testing.assert_array_equal(np.unique(fit(labels, active)), [0, 1])
    at_the_edge = disc((79, 79), 2)
    assert (fit(at_the_edge * 7, at_the_edge, add=False) == 7).any()


def test_pixels_need_not_be_square() -> None:
    y, x = np.indices((SIDE, SIDE))
    body = (y - 40) ** 2 + (2 * (x - 40)) ** 2 <= 30**2
    network = (y - 40) ** 2 + (2 * (x - 40)) ** 2 <= 26**2
    np.testing.assert_array_equal(fit(network, body, spacing=(1.0, 2.0)) == 1, body)


def test_nothing_gives_nothing() -> None:
    none = np.zeros((SIDE, SIDE), bool)
    assert not fit(none, none).any()
    assert not fit(BODY, none).any()
    assert fit(none, BODY).max() == 1


def test_a_phantom_s_slices() -> None:
    """Fitted, a mask's errors are a tenth; linked, every particle is found though the network misses one in twenty."""
    from cbdetach.phantom import Phantom

    phantom = Phantom(shape=(72, 72, 72), seed=1)
    volume = phantom.volume()
    truth = volume.labels.astype(np.int32)
    rng = np.random.default_rng(0)
    network = np.stack([instances(image, rng, miss=0.05) for image in truth])
    fitted = np.stack(
        [
            fit_to_phase(labels, active, spacing=(0.2, 0.2))
            for labels, active in zip(network, volume.phases == 2, strict=True)
        ]
    )
    raw, good = (np.count_nonzero((labels > 0) ^ (truth > 0)) / np.count_nonzero(truth) for labels in (network, fitted))
    assert good < 0.015
    assert good < raw / 5
    uncut = phantom.truth.label[~phantom.truth.touches_border].to_numpy()
    _, own = match(link_slices(fitted)[0], truth)
    assert np.isin(uncut, own).mean() >= 0.95
    cracked = (volume.damage > 0) & (truth > 0)
    assert (fitted[cracked] > 0).mean() > 0.85


@pytest.mark.parametrize(
    ("labels", "options", "error", "message"),
    [
        (BODY * 1.0, {}, TypeError, "labels: must be of an integer type; got float64"),
        (BODY[1:] * 1, {}, ValueError, r"labels: must have the shape of active, \(80, 80\); got \(79, 80\)"),
        (BODY * -1, {}, ValueError, "labels: must not be negative; got -1"),
        (BODY * 1, {"reach": 1.5}, ValueError, "reach: must be between 0 and 1; got 1.5"),
        (BODY * 1, {"marker_depth": -1}, ValueError, "marker_depth: must be between 0 and 1; got -1"),
        (BODY * 1, {"close_um": -1.0}, ValueError, "close_um: must be a finite length of at least 0; got -1"),
        (BODY * 1, {"min_diameter_um": np.nan}, ValueError, "min_diameter_um: must be a finite number"),
    ],
)
def test_bad_input(labels: Array, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fit_to_phase(labels, BODY, **options)
