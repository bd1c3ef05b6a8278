"""What a pixel classifier sees: its grey scale by closed form, its features by brute force and by their invariances."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from cbdetach.pixel_features import (
    FLOOR,
    RADII,
    SIGMAS,
    feature_count,
    grey_scale,
    halo,
    slice_features,
)

Array = np.ndarray[Any, Any]
BASIC = 4 * len(SIGMAS)


def scene(seed: int = 0, share: float = 0.5, shape: tuple[int, int, int] = (3, 90, 100)) -> Array:
    """Blobs of grey 3 that fill `share` of a ground of grey 1."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), (0, 5, 5))
    return np.where(noise > np.quantile(noise, 1 - share), 3.0, 1.0)


def test_scale_of_a_straight_edge() -> None:
    """Where every window that sees two greys sees both of them whole, 0 and 1 are those greys."""
    grey = np.ones((1, 60, 400))
    grey[..., 200:] = 3
    low, high = grey_scale(grey)
    assert (low + high) / 2 == pytest.approx(2, abs=0.01)
    assert high - low == pytest.approx(2, rel=0.12)  # windows that see a part of the edge see less of the contrast
    assert high - low < 2


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_scale_does_not_follow_the_shares_of_the_phases(share: float) -> None:
    grey = scene(1, share)
    low, high = grey_scale(grey)
    assert (low, high) == pytest.approx((1, 3), abs=0.2)
    assert high - low <= 2


def test_scale_without_contrast() -> None:
    assert grey_scale(np.full((2, 20, 20), 7, np.uint16)) == (7, 8)


def test_scale_reads_slices_evenly_and_no_more() -> None:
    read = []

    class Counted:
        shape = (100, 40, 40)

        def __getitem__(self, at: slice) -> Array:
            read.append((at.start, at.stop))
            return scene(at.start, shape=(1, 40, 40))

    grey_scale(Counted())
    assert len(read) == 16
    assert read[0] == (0, 1)
    assert read[-1] == (99, 100)
    assert set(np.diff([start for start, _ in read])) <= {6, 7}


def test_extremes_by_brute_force() -> None:
    """The features of the smallest window, from their definitions, pixel by pixel."""
    grey = np.random.default_rng(4).random((1, 24, 26)).astype(np.float32)
    found = slice_features(grey, 0, (0.0, 1.0), 2)
    r = RADII[0]
    smooth = ndimage.gaussian_filter(grey[0], 1.0, mode="nearest")

    def over(image: Array, f: Any) -> Array:
        padded = np.pad(image, r, mode="edge")
        return np.array([[f(padded[y : y + 2 * r + 1, x : x + 2 * r + 1]) for x in range(26)] for y in range(24)])

    low, high = over(smooth, np.min), over(smooth, np.max)
    low_smooth, high_smooth = (ndimage.gaussian_filter(part, r / 3, mode="nearest") for part in (low, high))
    expected = [
        low_smooth,
        high_smooth,
        (smooth - low_smooth) / (high_smooth - low_smooth + FLOOR),
        over(high, np.min) - smooth,
        smooth - over(low, np.max),
    ]
    np.testing.assert_allclose(found[..., BASIC : BASIC + 5], np.stack(expected, -1), atol=1e-5)


def test_top_hats_mark_what_is_narrow() -> None:
    """A gap of 5 pixels is closed by windows wider than it, not by one as narrow as RADII[0] where the gap has 25."""
    grey = np.ones((1, 120, 120), np.float32)
    grey[..., 40:45] = 0
    grey[..., 80:105] = 0
    found = slice_features(grey, 0, (0.0, 1.0), 2)[60]
    closed = found[:, BASIC + 3 :: 5]
    assert (closed[42] > 0.9).all()
    assert closed[92, 0] < 0.01
    assert (closed[92, 2:] > 0.9).all()
    assert np.abs(closed[20]).max() < 0.01


def test_features_follow_mirrors_and_axes() -> None:
    grey = scene(2).astype(np.float32)
    found = slice_features(grey, 1, (1.0, 3.0), 2)
    assert found.shape == (90, 100, feature_count(2))
    np.testing.assert_allclose(slice_features(grey[:, ::-1], 1, (1.0, 3.0), 2)[::-1], found, atol=2e-5)
    np.testing.assert_allclose(
        slice_features(grey.transpose(0, 2, 1), 1, (1.0, 3.0), 2).transpose(1, 0, 2), found, atol=2e-5
    )


def test_the_average_ends_at_the_halo() -> None:
    grey = np.random.default_rng(0).random((30, 20, 20)).astype(np.float32)
    z, reach = 14, halo(3)
    before = slice_features(grey, z, (0.0, 1.0), 3)
    changed = grey.copy()
    changed[z + reach + 1 :] += 5
    np.testing.assert_array_equal(slice_features(changed, z, (0.0, 1.0), 3), before)
    changed[z + reach] += 5
    assert np.abs(slice_features(changed, z, (0.0, 1.0), 3) - before).max() > 0
