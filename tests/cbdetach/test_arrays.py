"""Shared helpers: the distance in blocks is the distance of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from skimage.segmentation import expand_labels

from cbdetach import arrays


@given(
    st.sampled_from([0.4, 1.0, 3.3, 9.0, 40.0, np.inf]), st.sampled_from([(1, 1, 1), (0.5, 1.5, 1)]), st.integers(0, 99)
)
def test_capped_distance(reach: float, spacing: tuple[float, float, float], seed: int) -> None:
    mask = np.random.default_rng(seed).random((70, 8, 9)) > 0.01
    whole = distance_transform_edt(mask, sampling=spacing)
    found = arrays.capped_distance(mask, spacing=spacing, reach=reach)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[whole <= reach], whole[whole <= reach], rtol=1e-6)
    assert np.isinf(found[whole > reach]).all()


@pytest.mark.parametrize("reach", [2.0, np.inf])
def test_nothing_and_everything(reach: float) -> None:
    mask = np.zeros((50, 3, 3), bool)
    assert not arrays.capped_distance(mask, spacing=(1, 1, 1), reach=reach).any()
    assert np.isinf(arrays.capped_distance(~mask, spacing=(1, 1, 1), reach=reach)).all()


@pytest.mark.parametrize("reach", [0.0, 1.0, 2.3, 40.0])
def test_labels_expanded_in_blocks_are_those_of_the_whole(reach: float) -> None:
    """Ties, too: scikit-image on the whole volume is the oracle."""
    rng = np.random.default_rng(5)
    labels = np.where(rng.random((70, 9, 8)) < 0.02, rng.integers(1, 9, (70, 9, 8)), 0).astype(np.int32)
    labels[20:60] = 0
    before, size = labels.copy(), (0.5, 1.0, 1.0)
    found = arrays.expanded(labels, reach=reach, spacing=size)
    assert found.dtype == labels.dtype
    np.testing.assert_array_equal(found, expand_labels(labels, distance=reach, spacing=size))
    np.testing.assert_array_equal(labels, before)


def test_along() -> None:
    assert arrays.along(1, 2, None) == (slice(None), slice(2, None), slice(None))
