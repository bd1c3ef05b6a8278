"""Three labellings fused: two of three decide, slivers have no say, numbers do not matter."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.cbdetach.pretend import instances

from cbdetach.demo import match
from cbdetach.link import link_slices
from cbdetach.segment import fit_to_phase, fuse_views, fused_scores, mean_scores

Array = npt.NDArray[Any]
SHAPE = (20, 20, 40)


def boxes(*ends: int) -> Array:
    """Neighbours along x, each up to one of the ends, that touch."""
    labels = np.zeros(SHAPE, np.int32)
    start = 2
    for number, end in enumerate(ends, 1):
        labels[3:17, 3:17, start:end] = number
        start = end
    return labels


TWO, ONE, THREE = boxes(18, 36), boxes(36), boxes(18, 27, 36)


def partition(labels: Array) -> set[frozenset[int]]:
    """The same voxels together, whatever their numbers."""
    return {frozenset(np.flatnonzero(labels == n).tolist()) for n in np.unique(labels[labels > 0])}


def test_what_agrees_stays() -> None:
    np.testing.assert_array_equal(fuse_views(TWO, TWO, TWO), TWO)
    names = np.array([0, 70, 3])
    np.testing.assert_array_equal(fuse_views(names[TWO], TWO.astype(np.uint8), names[::-1].copy()[2 - TWO]), TWO)
    assert not fuse_views(TWO * 0, TWO * 0, TWO * 0).any()


@pytest.mark.parametrize("wrong", [ONE, THREE, boxes(22, 36)])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_two_of_three_decide(wrong: Array, place: int) -> None:
    """One view that merges two particles, cuts one, or has the border elsewhere changes nothing."""
    views = [TWO, TWO, TWO]
    views[place] = wrong
    np.testing.assert_array_equal(fuse_views(*views), TWO)


def test_two_wrong_views_win() -> None:
    np.testing.assert_array_equal(fuse_views(ONE, ONE, TWO), ONE)
    np.testing.assert_array_equal(fuse_views(THREE, TWO, THREE), THREE)


def test_a_voxel_needs_two_views() -> None:
    only = np.zeros_like(TWO)
    only[:2, :2, :2] = 1
    np.testing.assert_array_equal(fuse_views(TWO + only * 3, TWO, TWO), TWO)
    np.testing.assert_array_equal(fuse_views(TWO + only * 3, TWO + only * 5, TWO), fuse_views(*[TWO + only * 3] * 3))
    np.testing.assert_array_equal(fuse_views(TWO * 0, TWO, TWO), TWO)
    assert not fuse_views(TWO * 0, TWO * 0, TWO).any()


def test_a_sliver_does_not_join_what_it_touches() -> None:
    """One view merges; the borders of the others lie two voxels apart. What is between would be both particles' ."""
    fused = fuse_views(ONE, boxes(17, 36), boxes(19, 36))
    assert fused.max() == 2
    assert set(np.unique(fused[3:17, 3:17, 17:19])) <= {1, 2}
    np.testing.assert_array_equal(fused[..., :17], TWO[..., :17])
    np.testing.assert_array_equal(fused[..., 19:], TWO[..., 19:])


def test_cuts_far_apart_are_two_errors_and_cuts_near_each_other_are_one_border() -> None:
    assert fuse_views(boxes(9, 36), boxes(27, 36), ONE).max() == 1
    fused = fuse_views(boxes(16, 36), boxes(20, 36), ONE)
    assert fused.max() == 2
    np.testing.assert_array_equal(fused[..., :16], TWO[..., :16])
    np.testing.assert_array_equal(fused[..., 20:], TWO[..., 20:])


def test_the_order_of_the_views_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    cells = [rng.uniform(0, 1, (12, 3)) * SHAPE for _ in range(3)]
    places = np.indices(SHAPE).reshape(3, -1).T
    views = [np.square(places[:, None] - c).sum(axis=2).argmin(axis=1).reshape(SHAPE) for c in cells]
    one = fuse_views(*views)
    assert one.max() > 3
    assert partition(one) == partition(fuse_views(views[1], views[2], views[0]))
    first = [np.flatnonzero(one == n)[0] for n in range(1, one.max() + 1)]
    assert first == sorted(first)


def test_scores_are_those_of_the_objects_that_were_fused() -> None:
    fused = fuse_views(TWO, ONE, TWO)
    given = [np.array([np.nan, 0.8, 0.6]), np.array([np.nan, 1.0]), np.array([np.nan, np.nan, 0.9])]
    np.testing.assert_allclose(fused_scores(fused, [TWO, ONE, TWO], given), [0.9, (0.6 + 1 + 0.9) / 3])
    unknown = [np.full(3, np.nan), np.full(2, np.nan), np.full(3, np.nan)]
    assert np.isnan(fused_scores(fused, [TWO, ONE, TWO], unknown)).all()


def test_mean_scores_of_particles() -> None:
    particles = [np.array([1, 2]), np.array([2, 0, 3])]
    scores = [np.array([0.5, 0.7]), np.array([0.9, 0.1, np.nan])]
    np.testing.assert_allclose(mean_scores(particles, scores)[1:], [0.5, 0.8, np.nan])


def test_a_phantom_s_three_views_beat_each() -> None:
    from cbdetach.phantom import Phantom

    phantom = Phantom(shape=(64, 64, 64), seed=1)
    volume = phantom.volume()
    truth = volume.labels.astype(np.int32)
    rng = np.random.default_rng(0)
    views = []
    for axis in range(3):
        turned = [np.ascontiguousarray(np.moveaxis(v, axis, 0)) for v in (truth, volume.phases == 2)]
        fitted = [
            fit_to_phase(instances(labels, rng, miss=0.1, jitter=0.03), active, spacing=(0.2, 0.2))
            for labels, active in zip(*turned, strict=True)
        ]
        views.append(np.moveaxis(link_slices(np.stack(fitted))[0], 0, axis))
    fused = fuse_views(*views)
    uncut = phantom.truth.label[~phantom.truth.touches_border].to_numpy()
    assert np.isin(uncut, match(fused, truth)[1]).all()

    def wrong(labels: Array) -> int:
        """Voxels that are not in the particle that matches theirs."""
        ids, own = match(labels, truth)
        names = np.zeros(int(labels.max()) + 1, np.int32)
        names[ids] = own
        return int(np.count_nonzero(names[labels] != truth))

    assert wrong(fused) < 0.8 * min(wrong(view) for view in views)


def test_bad_input() -> None:
    with pytest.raises(TypeError, match="labels_y: must be of an integer type; got"):
        fuse_views(TWO, TWO * 1.0, TWO)
    with pytest.raises(ValueError, match="labels_x: must not"):
        fuse_views(TWO, TWO, -TWO)
    with pytest.raises(ValueError, match="labels_x: must have the shape of labels_z"):
        fuse_views(TWO, TWO, TWO[1:])
    with pytest.raises(ValueError, match="labels_z: must be numbered without such large gaps"):
        fuse_views(*[TWO.astype(np.int64) * 2**40] * 3)
