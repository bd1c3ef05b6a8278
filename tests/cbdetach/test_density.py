"""Grey value of the eroded solid, against closed forms and slabs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import voxkernels as vk
from cbdetach import density, phantom
from cbdetach.density import density_columns, grey_of_solid, solid_depth
from cbdetach.detachment import is_active


def ball(shape: tuple[int, int, int], radius: float) -> np.ndarray:
    x = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij"))
    return np.asarray((x**2).sum(0) <= radius**2)


def test_depth_of_a_slab_is_exact() -> None:
    labels = np.zeros((20, 5, 5), np.int32)
    labels[3:15] = 4
    depth = solid_depth(labels, labels > 0, spacing=(0.5, 1.0, 1.0))
    expected = np.zeros(20)
    expected[3:15] = (np.minimum(np.arange(12), np.arange(12)[::-1]) + 0.5) * 0.5
    np.testing.assert_allclose(depth[:, 2, 2], expected)
    assert depth.dtype == np.float32


def test_depth_of_a_ball() -> None:
    labels = ball((41, 41, 41), 18).astype(np.int32)
    depth = solid_depth(labels, labels > 0, spacing=(1, 1, 1))
    x = np.stack(np.meshgrid(*[np.arange(41) - 20.0] * 3, indexing="ij"))
    true = 18 - np.sqrt((x**2).sum(0))
    assert abs(depth - true)[labels > 0].max() < 1.0
    assert (depth[labels == 0] == 0).all()


def test_cracks_and_touching_particles_are_surfaces_and_the_border_is_none() -> None:
    labels = np.ones((11, 11, 24), np.int32)
    labels[..., 12:] = 2
    active = np.ones(labels.shape, bool)
    active[..., 4] = False  # a crack in particle 1
    depth = solid_depth(labels, active, spacing=(1, 1, 1))[5, 5]
    np.testing.assert_allclose(depth[:5], [3.5, 2.5, 1.5, 0.5, 0])
    np.testing.assert_allclose(depth[5:12], [0.5, 1.5, 2.5, 3.5, 2.5, 1.5, 0.5])
    np.testing.assert_allclose(depth[12:], np.arange(12) + 0.5)


def test_no_surface_at_all() -> None:
    labels = np.ones((3, 4, 5), np.int32)
    assert np.isinf(solid_depth(labels, labels > 0, spacing=(1, 1, 1))).all()


def test_erosion_leaves_the_edge_out() -> None:
    """Bright core, dark skin of two voxels: the mean is the core's from a depth of two voxels on."""
    labels = ball((31, 31, 31), 12).astype(np.int32) * 5
    depth = solid_depth(labels, labels > 0, spacing=(1, 1, 1))
    rng = np.random.default_rng(0)
    grey = np.where(depth > 2, 100 + rng.normal(0, 3, labels.shape), 20).astype(np.float32)
    means = {}
    for erosion in (0.0, 2.0, 4.0):
        regions = grey_of_solid(labels, grey, depth, spacing=(1, 1, 1), erosion_um=erosion)
        inside = grey[depth > erosion].astype(np.float64)
        assert regions.labels.tolist() == [5]
        means[erosion] = density_columns(regions, np.array([5]))["density_mean"][0]
        assert means[erosion] == pytest.approx(inside.mean(), rel=1e-6)
        assert density_columns(regions, np.array([5]))["density_std"][0] == pytest.approx(inside.std(), rel=1e-5)
    assert means[0.0] < 90
    assert means[2.0] == pytest.approx(100, abs=0.3)
    assert means[4.0] == pytest.approx(100, abs=0.3)


def test_small_particles_are_empty() -> None:
    labels = np.zeros((20, 20, 20), np.int32)
    labels[2:5, 2:5, 2:5] = 3
    labels[8:18, 8:18, 8:18] = 9
    depth = solid_depth(labels, labels > 0, spacing=(1, 1, 1))
    regions = grey_of_solid(labels, np.full(labels.shape, 7, np.uint16), depth, spacing=(1, 1, 1), erosion_um=1.0)
    columns = density_columns(regions, np.array([3, 6, 9]))
    np.testing.assert_array_equal(columns["density_mean"], [np.nan, np.nan, 7])
    np.testing.assert_array_equal(columns["density_std"], [np.nan, np.nan, 0])


def test_calibration() -> None:
    labels = np.ones((9, 9, 9), np.int32)
    grey = np.tile(np.array([300, 500], np.uint16), (9, 9, 5))[..., :9]
    depth = solid_depth(labels, labels > 0, spacing=(1, 1, 1))
    regions = grey_of_solid(labels, grey, depth, spacing=(1, 1, 1), erosion_um=0)
    raw = density_columns(regions, np.array([1]))
    scaled = density_columns(regions, np.array([1]), calibration=(100.0, 883.0))
    assert scaled["density_mean"][0] == pytest.approx((raw["density_mean"][0] - 100) * 0.001)
    assert scaled["density_std"][0] == pytest.approx(raw["density_std"][0] * 0.001)


@given(st.integers(1, 20), st.sampled_from([0.0, 1.0, 2.4]), st.sampled_from([(1.0, 1.0, 1.0), (0.7, 1.2, 1.0)]))
def test_slab_by_slab_equals_whole(thickness: int, erosion: float, spacing: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(thickness)
    labels = np.repeat(np.repeat(rng.integers(0, 3, (2, 2, 2)), 12, 0), 9, 1).repeat(9, 2).astype(np.int32)
    active = rng.random(labels.shape) > 0.002
    grey = rng.integers(0, 60000, labels.shape).astype(np.uint16)
    depth = solid_depth(labels, active, spacing=spacing)
    whole = grey_of_solid(labels, grey, depth, spacing=spacing, erosion_um=erosion)
    halo, parts = density.halo(spacing, erosion), []
    for z0 in range(0, 24, thickness):
        z1 = min(24, z0 + thickness)
        w = slice(max(0, z0 - halo), min(24, z1 + halo))
        depth = solid_depth(labels[w], active[w], spacing=spacing, reach_um=erosion)
        core = (z0 - w.start, z1 - w.start)
        parts.append(
            grey_of_solid(labels[w], grey[w], depth, spacing=spacing, erosion_um=erosion, core=core, z0=w.start)
        )
    merged = vk.merge_regions(parts)
    np.testing.assert_array_equal(merged.labels, whole.labels)
    np.testing.assert_array_equal(merged.count, whole.count)
    np.testing.assert_array_equal(merged.bbox, whole.bbox)
    assert merged.mean is not None and whole.mean is not None and merged.std is not None and whole.std is not None  # noqa: PT018
    np.testing.assert_allclose(merged.mean, whole.mean)
    np.testing.assert_allclose(merged.std, whole.std)


def test_default_erosion() -> None:
    assert density.default_erosion_um((0.2, 0.1, 0.1)) == pytest.approx(0.4)
    assert density.default_erosion_um((0.1, 0.1, 0.1), 0.4) == pytest.approx(0.8)


def test_against_the_synthetic_electrode() -> None:
    """Blur and fringe bias the mean near surfaces; the default erosion takes the bias out."""
    made = phantom.Phantom(shape=(80, 80, 80), seed=1, diameter_median_um=7.0, rings=0.0, texture=0.0, noise=0.0)
    slab, spacing = made.volume(), made.settings.voxel_size_um
    truth = made.truth.set_index("label")["grey"]
    depth = solid_depth(slab.labels, is_active(slab.phases), spacing=spacing)
    ids = np.unique(slab.labels)[1:]
    error = {}
    for erosion in (0.0, density.default_erosion_um(spacing, made.settings.blur_fwhm_um)):
        regions = grey_of_solid(slab.labels, slab.grey, depth, spacing=spacing, erosion_um=erosion)
        large = regions.labels[regions.count > 200]
        mean = density_columns(regions, ids)["density_mean"][np.isin(ids, large)]
        contrast = made.settings.grey_active - made.settings.grey_void
        error[erosion] = (mean - truth[large].to_numpy()) / contrast
    plain, eroded = error.values()
    assert eroded.size >= 5
    assert abs(plain).mean() > 0.02
    assert abs(eroded).mean() < 0.002
    assert abs(eroded).max() < 0.01
