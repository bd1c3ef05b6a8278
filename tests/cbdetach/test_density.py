"""Grey value of the eroded solid, against closed forms and slabs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import voxkernels as vk
from cbdetach import density, phantom
from cbdetach.codes import ACTIVE, CBD, COLLECTOR
from cbdetach.density import density_columns, eroded_grey, erosion_depths, grey_of_shells, solid_depth
from cbdetach.detachment import is_active
from cbdetach.statistics import peak_of


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
    depths = np.array([0.0, 2.0, 4.0])
    shells = grey_of_shells(labels, grey, depth, depths, spacing=(1, 1, 1))
    eroded = eroded_grey(shells, np.array([5]), 3)
    for k, erosion in enumerate(depths.tolist()):
        inside = grey[depth > erosion].astype(np.float64)
        found = density_columns(eroded, k)
        means[erosion] = found["density_mean"][0]
        assert eroded.count[0, k] == inside.size
        assert means[erosion] == pytest.approx(inside.mean(), rel=1e-6)
        assert found["density_std"][0] == pytest.approx(inside.std(), rel=1e-5)
    assert means[0.0] < 90
    assert means[2.0] == pytest.approx(100, abs=0.3)
    assert means[4.0] == pytest.approx(100, abs=0.3)


def test_small_particles_are_empty() -> None:
    labels = np.zeros((20, 20, 20), np.int32)
    labels[2:5, 2:5, 2:5] = 3
    labels[8:18, 8:18, 8:18] = 9
    depth = solid_depth(labels, labels > 0, spacing=(1, 1, 1))
    shells = grey_of_shells(labels, np.full(labels.shape, 7, np.uint16), depth, np.array([1.0]), spacing=(1, 1, 1))
    columns = density_columns(eroded_grey(shells, np.array([3, 6, 9]), 1), 0)
    np.testing.assert_array_equal(columns["density_mean"], [np.nan, np.nan, 7])
    np.testing.assert_array_equal(columns["density_std"], [np.nan, np.nan, 0])


def test_calibration() -> None:
    labels = np.ones((9, 9, 9), np.int32)
    grey = np.tile(np.array([300, 500], np.uint16), (9, 9, 5))[..., :9]
    depth = solid_depth(labels, labels > 0, spacing=(1, 1, 1))
    eroded = eroded_grey(grey_of_shells(labels, grey, depth, np.array([0.0]), spacing=(1, 1, 1)), np.array([1]), 1)
    raw = density_columns(eroded, 0)
    scaled = density_columns(eroded, 0, calibration=(100.0, 883.0))
    assert scaled["density_mean"][0] == pytest.approx((raw["density_mean"][0] - 100) * 0.001)
    assert scaled["density_std"][0] == pytest.approx(raw["density_std"][0] * 0.001)


@given(st.integers(1, 20), st.sampled_from([0.0, 1.0, 2.4]), st.sampled_from([(1.0, 1.0, 1.0), (0.7, 1.2, 1.0)]))
def test_slab_by_slab_equals_whole(thickness: int, erosion: float, spacing: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(thickness)
    labels = np.repeat(np.repeat(rng.integers(0, 3, (2, 2, 2)), 12, 0), 9, 1).repeat(9, 2).astype(np.int32)
    active = rng.random(labels.shape) > 0.002
    grey = rng.integers(0, 60000, labels.shape).astype(np.uint16)
    depth = solid_depth(labels, active, spacing=spacing)
    depths = erosion_depths(erosion, spacing)
    whole = grey_of_shells(labels, grey, depth, depths, spacing=spacing)
    halo, parts = density.halo(spacing, depths[-1]), []
    for z0 in range(0, 24, thickness):
        z1 = min(24, z0 + thickness)
        w = slice(max(0, z0 - halo), min(24, z1 + halo))
        depth = solid_depth(labels[w], active[w], spacing=spacing, reach_um=depths[-1])
        core = (z0 - w.start, z1 - w.start)
        parts.append(grey_of_shells(labels[w], grey[w], depth, depths, spacing=spacing, core=core, z0=w.start))
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
    depths = np.array([0.0, density.default_erosion_um(spacing, made.settings.blur_fwhm_um)])
    eroded = eroded_grey(grey_of_shells(slab.labels, slab.grey, depth, depths, spacing=spacing), ids, 2)
    for k, erosion in enumerate(depths.tolist()):
        large = ids[eroded.count[:, k] > 200]
        mean = density_columns(eroded, k)["density_mean"][np.isin(ids, large)]
        contrast = made.settings.grey_active - made.settings.grey_void
        error[erosion] = (mean - truth[large].to_numpy()) / contrast
    plain, eroded = error.values()
    assert eroded.size >= 5
    assert abs(plain).mean() > 0.02
    assert abs(eroded).mean() < 0.002
    assert abs(eroded).max() < 0.01


def test_depths_hold_the_one_that_is_used() -> None:
    np.testing.assert_allclose(erosion_depths(0.8, (0.2, 0.2, 0.2)), [0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2])
    found = erosion_depths(0.0, (0.2, 0.1, 0.1))
    assert found[0] == 0
    assert found[-1] == pytest.approx(0.6)
    assert 0.7 in erosion_depths(0.7, (0.2, 0.2, 0.2)).tolist()


def test_no_label_runs_into_another_ones_shell() -> None:
    """Labels that are neighbours in number and in space, a gap in the labels, one too thin for any depth."""
    labels = np.zeros((9, 9, 30), np.int32)
    labels[..., :10], labels[..., 10:20], labels[4, 4, 25] = 7, 8, 300_000_000
    grey = np.where(labels == 7, 100, 200).astype(np.uint16)
    depth = solid_depth(labels, labels > 0, spacing=(1, 1, 1))
    eroded = eroded_grey(
        grey_of_shells(labels, grey, depth, np.array([0.0, 1.0, 3.0]), spacing=(1, 1, 1)),
        np.array([7, 8, 300_000_000]),
        3,
    )
    np.testing.assert_array_equal(eroded.count[:, 0], np.unique(labels, return_counts=True)[1][1:])
    np.testing.assert_allclose(eroded.mean[:2], [[100] * 3, [200] * 3])
    assert np.isnan(eroded.mean[2, 1:]).all()


# ---- peaks -----------------------------------------------------------------------------------------------------------


def test_regions_by_geometry_do_not_cut_tails() -> None:
    """A phase whose threshold cuts its noise: by threshold the peak's tail is lost, by geometry it is not."""
    rng = np.random.default_rng(0)
    true = np.zeros((40, 40, 40), np.uint8)
    true[:, :, 12:28] = CBD
    grey = np.array([100.0, 200.0])[true] + rng.normal(0, 25, true.shape)
    cut = (grey > 150).astype(np.uint8)
    regions = density.deep_regions(
        np.zeros(true.shape, np.int32), cut, {"cbd": (CBD,)}, spacing=(1, 1, 1), depths_um={"cbd": 2.0}
    )
    edges = np.arange(0, 401.0)
    counts = density.grey_histograms(grey, regions, edges, core=(0, 40))["cbd"]
    inside = np.flatnonzero(regions["cbd"].any(axis=(0, 1)))
    assert inside.min() >= 13
    assert inside.max() <= 26
    assert counts[:150].sum() > 0.01 * counts.sum()  # the tail below the threshold: 2.3 %
    peak = peak_of(edges[:-1] + 0.5, counts)
    assert peak is not None
    assert peak.width == pytest.approx(2.3548 * 25, rel=0.05)
    nothing = density.deep_regions(
        np.ones(true.shape, np.int32), cut, {"cbd": (CBD,)}, spacing=(1, 1, 1), depths_um={"cbd": 2.0}
    )
    assert not nothing["cbd"].any()  # inside a particle nothing is carbon/binder


def test_peak_widths_of_the_synthetic_electrode() -> None:
    """Noise, texture and mottle are known, as standard deviations: the widths are those of their sums."""
    made = phantom.Phantom(
        shape=(64, 80, 80),
        seed=2,
        diameter_median_um=7.0,
        coating_thickness_um=3.0,
        rings=0.0,
        fringe=0.0,
        collector_um=4.0,
    )
    slab, s = made.volume(), made.settings
    below = {"cbd": s.blur_fwhm_um, "active": 0.8, "collector": 0.8}
    wanted = {"cbd": (CBD,), "active": (ACTIVE,), "collector": (COLLECTOR,)}
    regions = density.deep_regions(slab.labels, slab.phases, wanted, spacing=s.voxel_size_um, depths_um=below)
    edges = np.linspace(0, 65536, 1025)
    contrast = s.grey_active - s.grey_void
    spread = {
        "cbd": (s.noise, s.texture, s.mottle),
        "active": (s.noise, s.texture, s.density_sd),
        "collector": (s.noise, s.texture),
    }
    for name, counts in density.grey_histograms(slab.grey, regions, edges, core=(0, 64)).items():
        peak = peak_of((edges[:-1] + edges[1:]) / 2, counts)
        assert peak is not None
        true = 2.3548 * contrast * np.sqrt(np.square(spread[name]).sum())
        assert peak.width == pytest.approx(true, rel=0.12), name
