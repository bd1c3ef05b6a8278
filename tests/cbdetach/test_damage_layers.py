"""Damage by depth under the surface, and crack volume by missing grey, against closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from cbdetach.damage import CRACK, PORE
from cbdetach.damage_layers import (
    ENOUGH,
    LAYERS,
    _sides,
    deficit_ratio,
    grey_deficit,
    outer_depth,
    radial_profile,
    radial_sums,
    ratio_interval,
)

Array = np.ndarray[Any, Any]
UNIT = (1.0, 1.0, 1.0)


def ball(size: int, radius: float) -> tuple[Array, Array]:
    """A ball in a cube, and the distance from its centre."""
    axes = np.indices((size,) * 3) - (size - 1) / 2
    r = np.sqrt((axes**2).sum(axis=0))
    return (r <= radius).astype(np.int32), r


def test_depth_of_a_ball_and_of_touching_bodies() -> None:
    labels, r = ball(41, 18.0)
    depth = outer_depth(labels == 1, UNIT)
    assert np.abs(depth - (18 - r))[labels == 1].max() < 0.8
    block = np.zeros((9, 9, 20), bool)
    block[..., 5:] = True
    np.testing.assert_allclose(outer_depth(block, (1.0, 1.0, 0.5))[4, 4], np.r_[[0] * 5, 0.25 + 0.5 * np.arange(15)])


def test_a_shell_crack_lies_in_its_layer() -> None:
    """A spherical crack at a known depth, and a pore in the middle: both are in their layers and in no other."""
    labels, r = ball(61, 28.0)
    codes = np.where(abs(r - 18) < 1.0, CRACK, np.where(r < 3, PORE, 0)).astype(np.uint8) * (labels > 0)
    box = np.array([[2, 2, 2, 59, 59, 59]])
    sums = radial_sums(labels, codes, np.array([1]), box, spacing=UNIT, layer_um=4.0)
    assert sums[0, :, 0].sum() == (labels == 1).sum()
    crack, pore = sums[0, :, 1], sums[0, :, 2]
    assert crack[2] == crack.sum() == (codes == CRACK).sum()
    assert pore[6] == pore.sum() == (codes == PORE).sum()
    assert sums[0, 2, 3] == pytest.approx(4 * np.pi * (17**2 + 19**2), rel=0.05)
    profile = radial_profile(sums, spacing=UNIT, layer_um=4.0)
    assert profile["depth_from_um"].tolist() == [0, 4, 8, 12, 16, 20, 24]
    shell = 4 / 3 * np.pi * (20**3 - 16**3)
    assert profile["crack_fraction"][2] == pytest.approx(4 / 3 * np.pi * (19**3 - 17**3) / shell, rel=0.05)
    assert np.isnan(profile["crack_fraction_low"]).all()


def test_layers_scale_with_the_length_unit_and_end() -> None:
    labels, r = ball(31, 14.0)
    codes = np.where(r < 3, PORE, 0).astype(np.uint8)
    box = np.array([[0, 0, 0, 31, 31, 31]])
    one = radial_sums(labels, codes, np.array([1]), box, spacing=UNIT, layer_um=2.0)
    np.testing.assert_allclose(
        radial_sums(labels, codes, np.array([1]), box, spacing=(0.1,) * 3, layer_um=0.2)[..., :3], one[..., :3]
    )
    deep = radial_sums(labels, codes, np.array([1]), box, spacing=UNIT, layer_um=0.1)
    assert deep[0, -1, 0] > 0
    assert np.isinf(radial_profile(deep, spacing=UNIT, layer_um=0.1)["depth_to_um"][-1])
    assert radial_profile(np.zeros((0, LAYERS, 4)), spacing=UNIT, layer_um=1.0) == {}


def test_interval_of_a_ratio() -> None:
    """Covers the true ratio in about 95 % of samples; one particle has none."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        whole = rng.lognormal(0, 0.7, 60)
        _, low, high = ratio_interval(whole * rng.beta(2, 8, 60), whole)
        hits += low <= 0.2 <= high
    assert 0.90 <= hits / 400 <= 0.98
    assert np.isnan(ratio_interval(np.ones(1), np.ones(1))[1])
    assert np.isnan(ratio_interval(np.zeros(3), np.zeros(3))[0])


@pytest.mark.parametrize("width", [1.5, 2.0, 3.0, 5.0])
def test_missing_grey_is_the_crack_whatever_its_width(width: float) -> None:
    """A planar slit, blurred by 3 voxels and noisy: counting is up to twice too much, the deficit is within 5 %."""
    fine = 4
    z = (np.arange(60 * fine) + 0.5) / fine - 30.3
    grey = ndimage.gaussian_filter1d(np.where(abs(z) < width / 2, 0.0, 1.0), 3.0 / 2.3548 * fine)
    grey = grey.reshape(60, fine).mean(1)[:, None, None] * np.ones((60, 40, 40))
    grey = 5000 + 30000 * (grey + 0.04 * np.random.default_rng(1).standard_normal(grey.shape))
    labels = np.zeros(grey.shape, np.int32)
    labels[2:-2, 2:-2, 2:-2] = 7
    codes = ((ndimage.gaussian_filter(grey, 0.8) < 24000) & (labels > 0)).astype(np.uint8) * CRACK
    held, sums = grey_deficit(labels, codes, grey, void=5000.0, spacing=UNIT, edge_width_um=3.0)
    assert held.tolist() == [7]
    columns = (36 - 2 * 8) ** 2  # of the slit, more than two reaches from the border
    assert sums[0, 0] / columns == pytest.approx(width, rel=0.02)
    ratio = deficit_ratio(np.array([3, 7]), held, sums)
    assert ratio[0] == ratio[1] == sums[0, 0] / sums[0, 1]
    by_counting = sums[0, 1] / columns
    assert abs(by_counting - width) > 0.03 * width  # the count is not that good


def test_ratio_needs_enough_voxels() -> None:
    held, sums = np.array([2, 5]), np.array([[0.5 * ENOUGH, ENOUGH], [1.0, 4.0]])
    pooled = (0.5 * ENOUGH + 1) / (ENOUGH + 4)
    np.testing.assert_allclose(deficit_ratio(np.array([2, 5, 9]), held, sums), [0.5, pooled, pooled])
    np.testing.assert_array_equal(deficit_ratio(np.array([1]), np.zeros(0, int), np.zeros((0, 2))), [1.0])
    nothing = grey_deficit(*(np.zeros((5, 5, 5), int),) * 3, void=0.0, spacing=UNIT, edge_width_um=1.0)
    assert nothing[0].size == 0


@pytest.mark.parametrize("reach", [1.0, 2.5, 30.0])
def test_the_sides_of_cracks_found_in_blocks_are_those_of_the_whole(reach: float) -> None:
    """One distance transform of the whole volume is the oracle."""
    rng, size = np.random.default_rng(3), (0.5, 1.0, 1.0)
    labels = rng.integers(0, 3, (18, 3, 3)).repeat(4, 0).repeat(3, 1).repeat(3, 2)
    crack = (rng.random(labels.shape) < 0.01) & (labels > 0)
    crack[20:50] = False
    alone = crack & (rng.random(labels.shape) < 0.7)
    near, clear = _sides(labels, crack, alone, spacing=size, reach=reach)
    away, nearest = ndimage.distance_transform_edt(~crack, sampling=size, return_indices=True)
    to = tuple(nearest)
    np.testing.assert_array_equal(near, away <= reach)
    np.testing.assert_array_equal(clear, (away <= reach) & (labels > 0) & alone[to] & (labels[to] == labels))
    assert clear.any()
