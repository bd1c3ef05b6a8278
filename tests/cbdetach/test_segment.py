"""Particles from the active phase: drawn scenes with known answers, the phantom, measured slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import voxkernels as vk
from cbdetach.errors import InputError
from cbdetach.link import link_slices
from cbdetach.segment import (
    FINISH,
    MARKER_DEPTH_LINKED,
    check_labels,
    finish,
    notch_depth_um,
    segment_slice,
    segment_volume,
    smallest_voxels,
)

Array = npt.NDArray[Any]
ONE = (1.0, 1.0, 1.0)


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float, spacing: tuple[float, ...] = ONE) -> Array:
    grid = np.indices(shape, sparse=True)
    return sum(((g - c) * s) ** 2 for g, c, s in zip(grid, centre, spacing, strict=False)) <= radius**2


def found(labels: Array, truth: Array, iou: float = 0.5) -> Array:
    """True labels that one label matches with more than this IoU (one-to-one from 0.5 on)."""
    o = vk.overlap_counts(truth, labels)
    size_a, size_b = (o.size_a[np.searchsorted(o.labels_a, o.ids_a)], o.size_b[np.searchsorted(o.labels_b, o.ids_b)])
    return o.ids_a[o.count / (size_a + size_b - o.count) > iou]


# ---- drawn scenes ---------------------------------------------------------------------------------------------------


def test_touching_balls_are_split_where_they_touch() -> None:
    one, two = ball((40, 40, 70), (20, 20, 20), 14.0), ball((40, 40, 70), (20, 20, 45), 14.0)
    labels = segment_volume(one | two, spacing=ONE, min_diameter_um=5.0)
    assert labels.dtype == np.int32
    assert labels.max() == 2
    assert ((labels > 0) == (one | two)).all()  # nothing in the cusp between them
    assert (labels[:, :, :32][labels[:, :, :32] > 0] == 1).all()
    assert (labels[:, :, 34:][labels[:, :, 34:] > 0] == 2).all()


def test_closing_adds_nothing_between_convex_bodies() -> None:
    balls = [ball((48, 48, 48), c, 11.0) for c in ((14, 14, 14), (14, 34, 14), (31, 24, 14), (24, 24, 33))]
    active = np.logical_or.reduce(balls)
    for close_um in (0.0, 1.0, 3.0):
        labels = segment_volume(active, spacing=ONE, min_diameter_um=5.0, close_um=close_um)
        assert labels.max() == 4
        added = np.count_nonzero((labels > 0) & ~active)
        assert added <= 0.002 * np.count_nonzero(active)


def test_notches_are_given_back_and_cracks_kept() -> None:
    """What the closing adds further out in the cusp of two balls belongs to none; a crack from the surface inwards is
    kept to its mouth, a hollow no deeper than the closing reaches is not."""
    one, two = ball((48, 48, 80), (24, 24, 22), 14.0), ball((48, 48, 80), (27, 29, 47), 14.0)
    z, y, x = np.indices(one.shape, sparse=True)
    crack, hollow = (abs(y - 24) < 1) & (z < 20) & (x < 24) & one, one & (z < 12) & (abs(x - 22) < 1) & (y < 22)
    active = (one | two) & ~crack & ~hollow
    labels = segment_volume(active, spacing=ONE, min_diameter_um=5.0, close_um=2.5)
    assert labels.max() == 2
    assert not labels[~(one | two)].any()
    assert (labels[crack] == 1).mean() > 0.95
    assert hollow.any()
    assert not labels[hollow].any()
    assert (labels[active] > 0).all()


def test_surfaces_between_particles_are_straight() -> None:
    """Rough balls that overlap meet over the disc that they would, to 6 %; the flood alone leaves a fifth more."""
    from scipy.ndimage import gaussian_filter

    rng, ratio = np.random.default_rng(0), []
    for _ in range(5):
        apart, centre = rng.uniform(22, 25), np.array([32.0, 32.0, 32.0])
        step = rng.normal(size=3)
        step *= apart / 2 / np.linalg.norm(step)
        x = np.indices((64, 64, 64)).astype(float)
        gaps = [np.linalg.norm(x - (centre + s * step)[:, None, None, None], axis=0) - 14 for s in (-1, 1)]
        rough = gaussian_filter(rng.normal(size=x.shape[1:]), 1.5)
        labels = segment_volume(np.minimum(*gaps) + 0.6 * rough / rough.std() < 0, spacing=ONE, close_um=2.5)
        area = vk.contact_areas(labels, np.zeros(labels.shape, np.uint8)).pair_area
        ratio.append(area.sum() / (np.pi * (14**2 - apart**2 / 4)))
    assert np.mean(ratio) == pytest.approx(1, abs=0.06)


def test_finishing_slab_by_slab_is_finishing_the_whole() -> None:
    """With `FINISH` slices around; and it does what its settings say."""
    rng = np.random.default_rng(1)
    x = np.indices((70, 40, 40)).astype(float)
    centres = rng.uniform((0, 0, 0), (70, 40, 40), (25, 3))
    distance = np.stack([np.linalg.norm(x - c[:, None, None, None], axis=0) for c in centres])
    labels = np.where(distance.min(0) < 9, distance.argmin(0) + 1, 0).astype(np.int32)
    swap = (rng.random(labels.shape) < 0.3) & (np.partition(distance, 1, axis=0)[1] - distance.min(0) < 2)
    labels[swap & (labels > 0)] = distance.argsort(0)[1][swap & (labels > 0)] + 1
    active = (labels > 0) & (rng.random(labels.shape) < 0.97)
    whole = labels.copy()
    finish(whole, active, spacing=ONE, depth_um=1.0)
    for z0 in range(0, 70, 14):
        w0, w1 = max(0, z0 - FINISH), min(70, z0 + 14 + FINISH)
        part = labels[w0:w1].copy()
        finish(part, active[w0:w1], spacing=ONE, depth_um=1.0)
        np.testing.assert_array_equal(part[z0 - w0 : z0 - w0 + 14], whole[z0 : z0 + 14])
    assert ((whole > 0) <= (labels > 0)).all()
    assert (whole[active] > 0).all()
    pairs = [vk.contact_areas(v, np.zeros(v.shape, np.uint8)).pair_area.sum() for v in (labels, whole)]
    assert pairs[1] < 0.5 * pairs[0]
    kept = labels.copy()
    finish(kept, active, spacing=ONE, depth_um=0.0)
    assert ((kept > 0) == (labels > 0)).all()
    assert (whole[labels > 0] == 0).any()
    assert notch_depth_um("maskrcnn", (0.2, 0.1, 0.1)) == pytest.approx(0.45)
    assert notch_depth_um("watershed2d", (0.2, 0.1, 0.1)) == pytest.approx(0.2)
    assert notch_depth_um("maskrcnn", ONE, 0.0) == 0


def test_a_ball_cut_in_two_by_a_crack_is_one_filled_particle() -> None:
    body = ball((40, 40, 40), (20, 20, 20), 15.0)
    active = body.copy()
    active[:, :, 20:22] = False
    labels = segment_volume(active, spacing=ONE, min_diameter_um=5.0, close_um=2.0)
    assert labels.max() == 1
    assert np.count_nonzero((labels > 0) ^ body) < 0.02 * np.count_nonzero(body)
    assert segment_volume(active, spacing=ONE, min_diameter_um=5.0, close_um=0.0).max() == 2


def test_pores_and_radial_cracks_belong_to_the_particle() -> None:
    body = ball((40, 40, 40), (20, 20, 20), 16.0)
    active = body & ~ball((40, 40, 40), (20, 21, 19), 6.0)
    active[19:21, 20:, 20] = False  # a crack from the pore to the surface
    labels = segment_volume(active, spacing=ONE, min_diameter_um=5.0, close_um=2.0)
    assert labels.max() == 1
    assert np.count_nonzero((labels > 0) ^ body) < 0.01 * np.count_nonzero(body)


def test_a_void_between_three_discs_is_filled_for_none_and_a_pore_for_its_own() -> None:
    centres = ((24.0, 24.0), (24.0, 63.0), (57.8, 43.5))
    discs = [ball((85, 90), c, 20.0) for c in centres]
    pore = ball((85, 90), (24.0, 24.0), 7.0)
    active = np.logical_or.reduce(discs) & ~pore
    labels = segment_slice(active, spacing=(1.0, 1.0), min_diameter_um=10.0, close_um=0.0)
    assert labels.max() == 3
    assert (labels[pore] == labels[24, 10]).all()
    gap = ~np.logical_or.reduce(discs)
    assert (labels[gap] == 0).all()


def test_particles_cut_by_the_window_are_kept() -> None:
    labels = segment_volume(ball((20, 30, 30), (0, 15, 15), 10.0), spacing=ONE, min_diameter_um=5.0)
    assert labels.max() == 1
    assert labels[0].any()


def test_anisotropic_voxels_give_the_same_particles() -> None:
    spacing = (2.0, 1.0, 0.5)
    shape = (24, 48, 140)
    one, two = (ball(shape, c, 15.0, spacing) for c in ((12, 24, 34), (12, 24, 90)))
    labels = segment_volume(one | two, spacing=spacing, min_diameter_um=5.0)
    assert labels.max() == 2
    assert set(found(labels, one + 2 * (two & ~one).astype(np.int32), 0.95)) == {1, 2}


def test_lengths_scale_with_the_spacing() -> None:
    active = random_balls(7, 40)
    a = segment_volume(active, spacing=ONE, min_diameter_um=4.0, close_um=1.5)
    b = segment_volume(active, spacing=(0.25, 0.25, 0.25), min_diameter_um=1.0, close_um=0.375)
    assert (a == b).all()


def random_balls(seed: int, n: int) -> Array:
    rng = np.random.default_rng(seed)
    active = np.zeros((n, n, n), bool)
    for _ in range(12):
        active |= ball(active.shape, tuple(rng.uniform(0, n, 3)), rng.uniform(4, 9))
    return active


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_every_voxel_of_a_particle_is_reported_once_and_numbers_follow_the_first_voxel(seed: int) -> None:
    active = random_balls(seed, 32)
    labels = segment_volume(active, spacing=ONE, min_diameter_um=4.0, close_um=1.0)
    values, first = np.unique(labels, return_index=True)
    assert (values == np.arange(len(values))).all() or (values == np.arange(1, len(values) + 1)).all()
    assert (np.diff(first[values > 0]) > 0).all()
    sizes = np.bincount(labels[active], minlength=labels.max() + 1)[1:]
    assert (sizes >= smallest_voxels(ONE, 4.0)).all()
    assert (labels == segment_volume(active, spacing=ONE, min_diameter_um=4.0, close_um=1.0)).all()  # deterministic
    lost = vk.label(active & (labels == 0), connectivity=6)[0]
    assert (np.bincount(lost.ravel())[1:] < smallest_voxels(ONE, 4.0)).all()  # only pieces that are too small


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flips_change_little(axis: int) -> None:
    active = random_balls(3, 48)
    a = segment_volume(active, spacing=ONE, min_diameter_um=4.0)
    b = np.flip(segment_volume(np.flip(active, axis), spacing=ONE, min_diameter_um=4.0), axis)
    assert a.max() == b.max()
    assert len(found(np.ascontiguousarray(b), a, 0.9)) == a.max()


def test_empty_full_and_thin_windows() -> None:
    assert not segment_volume(np.zeros((4, 5, 6), bool), spacing=ONE).any()
    assert (segment_volume(np.ones((6, 9, 9), bool), spacing=ONE) == 1).all()
    assert (segment_volume(np.ones((1, 20, 20), bool), spacing=ONE) == 1).all()
    assert not segment_slice(np.zeros((5, 5), bool)).any()


# ---- options --------------------------------------------------------------------------------------------------------


def test_min_diameter_drops_what_is_small_and_joins_it_where_it_touches() -> None:
    alone, big = ball((40, 40, 40), (33, 33, 33), 3.0), ball((40, 40, 40), (16, 16, 16), 12.0)
    bump = ball((40, 40, 40), (16, 16, 32), 4.5)
    kept = segment_volume(alone | big | bump, spacing=ONE, min_diameter_um=3.0)
    dropped = segment_volume(alone | big | bump, spacing=ONE, min_diameter_um=10.0)
    assert kept.max() == 3
    assert dropped.max() == 1
    assert (dropped[bump] == 1).all()
    assert (dropped[alone] == 0).all()


def test_marker_depth_decides_how_deep_a_neck_splits() -> None:
    pair = ball((40, 40, 60), (20, 20, 20), 14.0) | ball((40, 40, 60), (20, 20, 38), 14.0)  # neck 0.77 of the radius
    assert segment_volume(pair, spacing=ONE, marker_depth=0.15).max() == 2
    assert segment_volume(pair, spacing=ONE, marker_depth=0.3).max() == 1


def test_smallest_voxels_is_the_ball_of_the_diameter() -> None:
    assert smallest_voxels((0.5, 0.5, 0.5), 2.0) == np.ceil(np.pi / 6 * 8 / 0.125)
    assert smallest_voxels((10.0, 10.0, 10.0)) == np.ceil(np.pi / 6 * 125)  # at least 5 voxels wide
    assert smallest_voxels((0.2, 0.2, 0.2)) == np.ceil(np.pi / 6 * 8 / 0.008)


def test_grey_slice_is_thresholded() -> None:
    mask = ball((60, 100), (30, 30), 16.0) | ball((60, 100), (30, 70), 16.0)
    noise = np.random.default_rng(0).normal(0, 8, mask.shape)
    grey = (np.where(mask, 160.0, 60.0) + noise).astype(np.float32)
    labels = segment_slice(grey, min_diameter_um=10.0)
    assert labels.max() == 2
    assert np.count_nonzero((labels > 0) ^ mask) < 0.03 * np.count_nonzero(mask)
    assert not segment_slice(grey, min_diameter_um=10.0, threshold=250.0).any()


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_bad_masks_and_options_are_refused() -> None:
    active = np.ones((5, 5, 5), bool)
    with pytest.raises(ValueError, match="active: must be"):
        segment_volume(active[0], spacing=ONE)
    with pytest.raises(TypeError, match="active: must be bool"):
        segment_volume(active.astype(float), spacing=ONE)
    with pytest.raises(ValueError, match="spacing: must be three positive"):
        segment_volume(active, spacing=(1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="marker_depth: must be between 0 and 1; got 2"):
        segment_volume(active, spacing=ONE, marker_depth=2)
    with pytest.raises(ValueError, match="min_diameter_um: must be a finite number"):
        segment_volume(active, spacing=ONE, min_diameter_um=-1)
    with pytest.raises(ValueError, match="close_um: must be a finite length"):
        segment_volume(active, spacing=ONE, close_um=float("nan"))


def test_bad_slices_are_refused() -> None:
    image = np.zeros((6, 6), np.float32)
    with pytest.raises(ValueError, match="segmenter: must be one of 'watershed2d', 'maskrcnn'"):
        segment_slice(image, segmenter="magic")
    with pytest.raises(ValueError, match="image: must be"):
        segment_slice(image[None])
    with pytest.raises(ValueError, match="image: must hold more than one grey value"):
        segment_slice(image)
    image[2, 2] = np.nan
    with pytest.raises(ValueError, match="image: must be finite; got NaN"):
        segment_slice(image)


def test_given_labels_are_checked() -> None:
    labels = np.zeros((3, 4, 5), np.int16)
    check_labels(labels)
    labels[1, 2, 3] = 7
    before = labels.copy()
    check_labels(labels)
    assert (labels == before).all()
    with pytest.raises(InputError, match="--labels: must be of an integer type; got float32"):
        check_labels(labels.astype(np.float32))
    with pytest.raises(InputError, match="--labels: must not hold negative values; got a minimum of -7"):
        check_labels(-labels)


# ---- whole electrodes -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def electrode() -> tuple[Array, Array, Array]:
    """Active phase, true labels and the labels of the uncut particles of a small phantom."""
    from cbdetach.phantom import Phantom

    phantom = Phantom(shape=(128, 128, 128), seed=4)
    volume = phantom.volume()
    uncut = phantom.truth.label[~phantom.truth.touches_border].to_numpy()
    return volume.phases == 2, volume.labels.astype(np.int32), uncut


def test_phantom_3d(electrode: tuple[Array, Array, Array]) -> None:
    active, truth, uncut = electrode
    labels = segment_volume(active, spacing=(0.2, 0.2, 0.2))
    assert np.isin(uncut, found(labels, truth)).mean() >= 0.95
    both = (labels > 0) & (truth > 0)
    assert np.count_nonzero(both) / np.count_nonzero((labels > 0) | (truth > 0)) > 0.97  # filled, and nothing else


def test_phantom_surface_is_active(electrode: tuple[Array, Array, Array]) -> None:
    """Voxels of particles that face the outside are active, but for the mouths of cracks."""
    active, _, _ = electrode
    labels = segment_volume(active, spacing=(0.2, 0.2, 0.2))
    outer = np.zeros(labels.shape, bool)
    for axis in range(3):
        for step in (-1, 1):
            outer |= (labels > 0) & (np.roll(labels, step, axis) == 0)
    assert (~active)[outer].mean() < 0.03


def test_phantom_slice_by_slice(electrode: tuple[Array, Array, Array]) -> None:
    active, truth, uncut = electrode
    slices = np.stack([segment_slice(i, spacing=(0.2, 0.2), marker_depth=MARKER_DEPTH_LINKED) for i in active])
    labels, _ = link_slices(slices)
    assert np.isin(uncut, found(labels, truth)).mean() >= 0.9


def test_phantom_in_windows_equals_the_whole(electrode: tuple[Array, Array, Array]) -> None:
    from cbdetach.link import link

    active, _, _ = electrode
    whole = segment_volume(active, spacing=(0.2, 0.2, 0.2))
    halo, shared, cut = 32, 8, 64
    upper = segment_volume(active[: cut + halo], spacing=(0.2, 0.2, 0.2))[: cut + shared]
    lower = segment_volume(active[cut - halo :], spacing=(0.2, 0.2, 0.2))[halo - shared :]
    sizes = [
        np.bincount(u.ravel(), minlength=w.max() + 1)[1:] for u, w in ((upper[:cut], upper), (lower[shared:], lower))
    ]
    links = link(
        sizes, [vk.overlap_counts(upper[cut - shared :], lower[: 2 * shared])], max_gap=0, fragments="contained"
    )
    ids = [np.concatenate([[0], g]).astype(np.int32) for g in links.global_id]
    joined = np.concatenate([ids[0][upper[:cut]], ids[1][lower[shared:]]])
    assert len(found(joined, whole, 0.9)) >= 0.97 * whole.max()


@pytest.mark.real_data
def test_hand_labelled_slice(real_data: Path) -> None:
    """The anchor is F1 0.91 at IoU 0.5 for a watershed tuned on this slice; ours is not tuned on it alone."""
    import tifffile

    image, truth, ignore = (
        tifffile.imread(real_data / f"nmc_slice_labelled{part}.tif") for part in ("", "_labels", "_ignore")
    )
    labels = segment_slice(image, spacing=(0.1, 0.1), close_um=0.5)
    hits = len(found(labels, truth.astype(np.int32)))
    size = np.bincount(labels.ravel())[1:]
    undecided = np.bincount(labels.ravel(), weights=ignore.ravel() > 0)[1:] >= 0.3 * size
    matched = np.isin(np.arange(1, labels.max() + 1), found(truth.astype(np.int32), labels))
    false = np.count_nonzero(~matched & ~undecided)
    assert 2 * hits / (hits + false + truth.max()) >= 0.88


@pytest.mark.real_data
def test_measured_cathode(real_data: Path) -> None:
    import tifffile

    active = tifffile.imread(real_data / "nmc_cathode_3phase.tif")[:80] == 1
    labels = segment_volume(active, spacing=(0.398, 0.398, 0.398))
    assert 300 <= labels.max() <= 800
    diameter = np.cbrt(6 / np.pi * np.bincount(labels.ravel())[1:]) * 0.398
    assert 6.5 <= np.median(diameter) <= 11
    assert np.count_nonzero(active & (labels == 0)) < 1e-3 * np.count_nonzero(active)


def test_a_sliver_at_the_edge_does_not_join_its_neighbour() -> None:
    """Most of the second ball is outside the window; what is inside is too small to be one, but not part of another."""
    grid = np.indices((40, 40, 40))
    first = ((grid - np.array([20, 20, 14])[:, None, None, None]) ** 2).sum(axis=0) <= 10.5**2
    second = ((grid - np.array([20, 31, 44])[:, None, None, None]) ** 2).sum(axis=0) <= 8**2
    bridge = np.zeros_like(first)
    bridge[20, 20:32, 24:38] = True
    labels = segment_volume(first | second | bridge, spacing=(1.0, 1.0, 1.0), min_diameter_um=12.0, close_um=0.0)
    body = labels[20, 20, 14]
    assert body > 0
    assert (labels[second] != body).mean() > 0.9


def test_a_gap_between_a_particle_and_the_edge_is_not_closed() -> None:
    grid = np.indices((30, 30, 30))
    ball = ((grid - np.array([10, 15, 15])[:, None, None, None]) ** 2).sum(axis=0) <= 9**2  # one voxel from the edge
    labels = segment_volume(ball, spacing=(1.0, 1.0, 1.0), close_um=4.0)
    assert not labels[0].any()
    np.testing.assert_array_equal(labels > 0, ball)
