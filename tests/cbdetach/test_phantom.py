"""The phantom's truth against closed forms, and its volumes against its truth."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from math import cos, pi, sqrt
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from cbdetach.codes import ACTIVE, CBD, COLLECTOR, VOID
from cbdetach.errors import InputError
from cbdetach.phantom import CRACK, PORE, Phantom, PhantomSettings, Slab

PARTS = ("grey", "labels", "phases", "damage")
BALLS: dict[str, Any] = {
    "elongation": 0.0,
    "roughness": 0.0,
    "patch_waviness": 0.0,
    "covered_fraction_sd": 0.0,
    "network_share": 0.0,
    "crack_share": 0.0,
    "pore_share": 0.0,
    "patches": 1,
}
SMALL: dict[str, Any] = {"shape": (30, 36, 40), "diameter_median_um": 3.4, "coating_thickness_um": 0.6}


def one_ball(radius: float = 2.4, centre: tuple[float, float, float] = (4.1, 4.0, 3.9), **settings: Any) -> Phantom:
    settings = {"shape": (40, 40, 40), **BALLS, **settings}
    return Phantom(centres_um=np.array([centre]), diameters_um=np.array([2 * radius]), **settings)


def face_counts(volume: Slab, phase: int, n: int) -> np.ndarray:
    """Faces of each label 1..n towards unlabelled voxels of one phase."""
    count = np.zeros(n + 1, np.int64)
    for axis in range(3):
        a = [np.moveaxis(v, axis, 0) for v in (volume.labels, volume.phases)]
        for here, there in ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))):
            face = (a[0][here] > 0) & (a[0][there] == 0) & (a[1][there] == phase)
            count += np.bincount(a[0][here][face], minlength=n + 1)
    return count[1:]


# Truth against closed forms


@pytest.mark.parametrize("covered", [0.0, 0.1, 0.5, 0.83, 1.0])
def test_ball_under_one_cap(covered: float) -> None:
    radius = 2.4
    row = one_ball(radius, covered_fraction=covered).truth.iloc[0]
    assert row.detachment_fraction == pytest.approx(1 - covered, abs=0.002)
    assert row.area_void_um2 + row.area_cbd_um2 == pytest.approx(4 * pi * radius**2, rel=1e-9)
    assert row.volume_um3 == pytest.approx(4 / 3 * pi * radius**3, rel=1e-9)
    assert row.equivalent_diameter_um == pytest.approx(2 * radius, rel=1e-9)
    assert (row.z_um, row.y_um, row.x_um) == pytest.approx((4.1, 4.0, 3.9), abs=1e-3)
    assert not row.touches_border
    assert row.area_border_um2 == row.area_particle_um2 == 0


def test_cap_of_a_ball_has_the_angle_of_its_share() -> None:
    phantom = one_ball(2.4, covered_fraction=0.3)
    coat = phantom.electrode.coats[0]
    axis = coat.axes[0]
    assert cos(coat.limit) == pytest.approx(1 - 2 * 0.3, abs=0.002)
    for angle, phase in ((0.0, CBD), (0.99 * coat.limit, CBD), (1.01 * coat.limit, VOID)):
        side = np.cross(axis, [1.0, 0, 0])
        point = cos(angle) * axis + sqrt(1 - cos(angle) ** 2) * side / np.linalg.norm(side)
        assert phantom.phase_at(phantom.electrode.particles.centre[:1] + 2.5 * point)[0] == phase


def test_no_coating_is_all_detached() -> None:
    bare = Phantom(**{**SMALL, "coating_thickness_um": 0.0})
    assert (bare.truth.detachment_fraction.dropna() == 1).all()
    assert not (bare.slab(10, 14).phases == CBD).any()


def test_one_networked_ball_stands_on_the_side_of_the_collector() -> None:
    low = one_ball(centre=(2.6, 4.0, 4.0), network_share=1.0, covered_fraction=0.1)
    assert low.truth.networked[0]
    assert low.phase_at(np.array([[0.05, 4.0, 4.0]]))[0] == CBD
    assert not one_ball(network_share=1.0, centre=(4.1, 4.0, 4.0)).truth.networked[0]


def test_coating_has_the_thickness_asked_for() -> None:
    phantom = one_ball(2.0, covered_fraction=1.0, coating_thickness_um=0.7)
    line = np.array([[4.1 + r, 4.0, 3.9] for r in (1.999, 2.001, 2.699, 2.701)])
    phases, labels = phantom.phase_at(line)
    assert phases.tolist() == [ACTIVE, CBD, CBD, VOID]
    assert labels.tolist() == [1, 0, 0, 0]


def test_ball_cut_by_the_border() -> None:
    radius, depth = 2.4, 1.0  # the volume's face, at -0.1, lies 1.0 below the centre
    row = one_ball(radius, centre=(0.9, 4.0, 4.0), covered_fraction=0.5).truth.iloc[0]
    height = radius - depth
    lost = pi * height**2 * (3 * radius - height) / 3
    assert row.touches_border
    assert row.volume_um3 == pytest.approx(4 / 3 * pi * radius**3 - lost, rel=2e-3)
    assert row.area_border_um2 == pytest.approx(2 * pi * radius * height, rel=5e-3)


def test_two_balls_pressed_together() -> None:
    radius, distance, near = 2.4, 4.6, 0.1  # near: half a voxel
    phantom = Phantom(
        centres_um=np.array([[4.07, 3.96, 3.03], [4.07, 3.96, 3.03 + distance]]),
        diameters_um=np.full(2, 2 * radius),
        shape=(40, 40, 54),
        covered_fraction=0.0,
        **{**BALLS, "seed": 3},
    )
    cosine = (radius**2 + distance**2 - (radius + near) ** 2) / (2 * radius * distance)
    height = radius - distance / 2
    cap = pi * height**2 * (3 * radius - height) / 3
    for row in phantom.truth.itertuples():
        assert row.area_particle_um2 == pytest.approx(2 * pi * radius**2 * (1 - cosine), abs=0.002 * 4 * pi * radius**2)
        assert row.volume_um3 == pytest.approx(4 / 3 * pi * radius**3 - cap, rel=1e-3)
        assert row.detachment_fraction == 1
    volume = phantom.volume()
    assert np.count_nonzero(volume.labels == 1) * 0.008 == pytest.approx(phantom.truth.volume_um3[0], rel=0.01)


def test_rough_body_has_the_area_of_its_surface() -> None:
    phantom = one_ball(2.4, elongation=0.15, roughness=0.04, covered_fraction=0.0)
    polar, azimuth = np.meshgrid(np.linspace(0, pi, 801), np.linspace(0, 2 * pi, 1601), indexing="ij")
    u = np.stack([np.cos(polar), np.sin(polar) * np.sin(azimuth), np.sin(polar) * np.cos(azimuth)])
    surface = phantom.electrode.particles.bodies.at(0, u.reshape(3, -1)).reshape(polar.shape) * u
    along, across = np.diff(surface, axis=1)[:, :, :-1], np.diff(surface, axis=2)[:, :-1]
    area = np.linalg.norm(np.cross(along, across, axis=0), axis=0).sum()
    row = phantom.truth.iloc[0]
    assert row.area_void_um2 == pytest.approx(area, rel=2e-3)
    assert row.area_void_um2 > 1.01 * 4 * pi * 2.4**2
    assert row.volume_um3 == pytest.approx(4 / 3 * pi * 2.4**3, rel=1e-3)


# Volumes against the truth


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return Phantom(shape=(96, 100, 92), seed=4)


@pytest.fixture(scope="module")
def volume(phantom: Phantom) -> Slab:
    return phantom.volume()


def test_labelled_voxels_fill_the_true_volumes(phantom: Phantom, volume: Slab) -> None:
    truth = phantom.truth
    count = np.bincount(volume.labels.ravel(), minlength=len(truth) + 1)[1:] * 0.2**3
    whole = ~truth.touches_border.to_numpy()
    assert whole.sum() > 10
    assert truth.label.tolist() == list(range(1, len(truth) + 1))
    np.testing.assert_allclose(count[whole], truth.volume_um3[whole], rtol=0.01)
    assert count.sum() == pytest.approx(truth.volume_um3.sum(), rel=0.002)
    centres = np.array(ndimage.center_of_mass(np.ones(volume.labels.shape), volume.labels, truth.label)) * 0.2
    np.testing.assert_allclose(centres[whole], truth[["z_um", "y_um", "x_um"]][whole], atol=0.03)


def test_faces_agree_with_the_true_detachment(phantom: Phantom, volume: Slab) -> None:
    truth, n = phantom.truth, len(phantom.truth)
    void, cbd = face_counts(volume, VOID, n), face_counts(volume, CBD, n)
    whole = ~truth.touches_border.to_numpy() & (void + cbd > 200)
    measured = (void / np.maximum(void + cbd, 1))[whole]
    error = measured - truth.detachment_fraction[whole]
    assert np.abs(error).mean() < 0.015
    assert np.abs(error).max() < 0.06
    assert np.corrcoef(measured, truth.detachment_fraction[whole])[0, 1] > 0.995


def test_true_detachment_is_spread(phantom: Phantom) -> None:
    detachment = phantom.truth.detachment_fraction
    assert 0.3 < detachment.mean() < 0.55
    assert detachment.std() > 0.15


def test_damage_voxels_agree_with_the_truth(phantom: Phantom, volume: Slab) -> None:
    truth = phantom.truth
    for code, column in ((CRACK, "crack_fraction"), (PORE, "pore_fraction")):
        true = (truth[column] * truth.volume_um3).sum()
        assert np.count_nonzero(volume.damage == code) * 0.2**3 == pytest.approx(true, rel=0.05)
        assert 0 < (truth[column] > 0).mean() < 1
    assert (volume.labels[volume.damage > 0] > 0).all()
    assert (volume.phases[volume.damage > 0] == VOID).all()
    assert ((volume.phases == ACTIVE) <= (volume.labels > 0)).all()


def test_formulas_and_voxels_agree(phantom: Phantom, volume: Slab) -> None:
    index = np.random.default_rng(0).integers(0, volume.labels.shape, (20000, 3))
    phases, labels = phantom.phase_at(index * 0.2)
    assert np.count_nonzero(phases != volume.phases[tuple(index.T)]) <= 2  # single against double precision
    assert np.count_nonzero(labels != volume.labels[tuple(index.T)]) <= 2


def test_grey_levels_of_the_phases(phantom: Phantom, volume: Slab) -> None:
    settings = phantom.settings
    for phase, level in ((VOID, settings.grey_void), (CBD, settings.grey_cbd), (ACTIVE, settings.grey_active)):
        core = ndimage.binary_erosion(volume.phases == phase, iterations=3)
        assert volume.grey[core].mean() == pytest.approx(level, abs=600)


def test_anisotropic_voxels_show_the_same_electrode() -> None:
    place: dict[str, Any] = {
        "centres_um": np.array([[4.0, 4.0, 3.0], [4.0, 4.4, 7.6]]),
        "diameters_um": np.array([4.0, 5.2]),
        "crack_share": 1.0,
        "seed": 1,
    }
    fine = Phantom(shape=(40, 40, 54), voxel_size_um=(0.2, 0.2, 0.2), **place)
    flat = Phantom(shape=(20, 40, 54), voxel_size_um=(0.4, 0.2, 0.2), **place)
    a, b = fine.volume(), flat.volume()
    for label in (1, 2):
        count = np.count_nonzero(a.labels == label) * 0.008, np.count_nonzero(b.labels == label) * 0.016
        assert count[0] == pytest.approx(count[1], rel=0.01)
    assert np.count_nonzero(a.phases == CBD) == pytest.approx(2 * np.count_nonzero(b.phases == CBD), rel=0.03)


def test_network_reaches_the_collector() -> None:
    phantom = Phantom(
        shape=(90, 80, 80), collector_um=1.0, network_share=1.0, covered_fraction=0.2, crack_share=0, pore_share=0
    )
    volume = phantom.volume()
    assert (volume.phases[:4] == COLLECTOR).all()
    assert not (volume.phases[8:] == COLLECTOR).any()
    assert phantom.truth.networked.mean() > 0.9
    assert phantom.truth.area_other_um2.sum() == pytest.approx(0, abs=5)  # particles stand on the foil
    conducting, _ = ndimage.label(np.isin(volume.phases, (CBD, COLLECTOR)), np.ones((3, 3, 3)))
    near = ndimage.grey_dilation(np.where(conducting == conducting[0, 0, 0], 1, 0), (3, 3, 3)) > 0
    connected = np.isin(phantom.truth.label, np.unique(volume.labels[near]))
    inner = phantom.truth.networked & ~phantom.truth.touches_border
    assert connected[inner].mean() > 0.95
    none = Phantom(shape=(90, 80, 80), collector_um=1.0, network_share=0.0, covered_fraction=0.2)
    assert not none.truth.networked.any()


# Bytes


@pytest.mark.parametrize("cuts", [(0, 1, 30), (0, 7, 8, 19, 30), (0, 29, 30)])
def test_slabs_are_the_whole_volume(cuts: tuple[int, ...]) -> None:
    phantom = Phantom(**SMALL, shading=0.1, collector_um=1.0)
    whole = phantom.volume()
    for z0, z1 in pairwise(cuts):
        part = phantom.slab(z0, z1)
        for name in PARTS:
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[z0:z1])


def test_slabs_come_in_order() -> None:
    phantom = Phantom(**SMALL)
    parts = list(phantom.slabs(8))
    assert [(p.z0, p.z1) for p in parts] == [(0, 8), (8, 16), (16, 24), (24, 30)]
    np.testing.assert_array_equal(np.concatenate([p.grey for p in parts]), phantom.volume().grey)


def test_finer_voxels_show_the_same_electrode() -> None:
    """The middle of 3 x 3 x 3 finer voxels is the voxel itself; volumes of 2 x 2 x 2 come closer to the true ones."""
    settings = {**SMALL, "crack_share": 1.0, "pore_share": 1.0, "collector_um": 0.5, "separator_um": 0.5}
    phantom = Phantom(seed=4, debris=0.02, **settings)
    whole = phantom.volume()
    fine = phantom.finer(3)
    assert fine.settings.shape == (90, 108, 120)
    for name, codes in zip(PARTS[1:], fine.codes(0, 90), strict=True):
        assert (codes[1::3, 1::3, 1::3] != getattr(whole, name)).mean() < 1e-4
    truth, finer = phantom.truth, fine.truth
    np.testing.assert_allclose(finer["volume_um3"], truth["volume_um3"], rtol=2e-3)
    np.testing.assert_allclose(finer["z_um"] - truth["z_um"], 0.5 * (0.2 - 0.2 / 3), atol=2e-3)
    true = truth["volume_um3"].to_numpy()
    error = [
        np.abs(np.bincount(labels.ravel(), minlength=len(true) + 1)[1:] * size**3 - true).mean()
        for labels, size in ((whole.labels, 0.2), (phantom.finer(2).codes(0, 60)[0], 0.1))
    ]
    assert error[1] < 0.7 * error[0]
    with pytest.raises(InputError, match="factor: must be an integer of at least 1; got 0"):
        phantom.finer(0)


def test_codes_are_those_of_the_slab() -> None:
    phantom = Phantom(seed=1, debris=0.02, collector_um=0.5, **SMALL)
    slab = phantom.slab(3, 11)
    for name, codes in zip(PARTS[1:], phantom.codes(3, 11), strict=True):
        np.testing.assert_array_equal(codes, getattr(slab, name))
    with pytest.raises(InputError, match="z0, z1: must satisfy"):
        phantom.codes(5, 5)


def test_same_seed_same_bytes() -> None:
    a, b, c = (Phantom(**SMALL, seed=seed) for seed in (5, 5, 6))
    assert a.truth.equals(b.truth)
    assert not a.truth.equals(c.truth)
    for name in PARTS:
        first, second, third = (getattr(p.volume(), name) for p in (a, b, c))
        np.testing.assert_array_equal(first, second)
        assert (first != third).any()


def test_settings_object_and_keywords_are_the_same() -> None:
    settings = PhantomSettings(**SMALL, noise=0.1)
    first = Phantom(settings).slab(3, 5).grey
    np.testing.assert_array_equal(first, Phantom(**SMALL, noise=0.1).slab(3, 5).grey)
    assert (Phantom(settings, noise=0.0).slab(3, 5).grey != first).any()


CHANGES: dict[str, Any] = {
    "shape": (30, 36, 41),
    "voxel_size_um": (0.2, 0.2, 0.25),
    "seed": 1,
    "diameter_median_um": 3.0,
    "diameter_sigma": 0.1,
    "small_share": 0.5,
    "small_size": 0.7,
    "active_fraction": 0.4,
    "overlap": 0.1,
    "elongation": 0.0,
    "roughness": 0.0,
    "lumps": 0.02,
    "coating_thickness_um": 0.4,
    "covered_fraction": 0.5,
    "covered_fraction_sd": 0.1,
    "patches": 6,
    "patch_waviness": 0.0,
    "network_share": 0.0,
    "collector_um": 0.8,
    "separator_um": 4.2,
    "crack_share": 0.8,
    "crack_width_um": 0.2,
    "crack_width_sd": 0.5,
    "star_share": 0.9,
    "shattered_share": 0.7,
    "shards": 20,
    "pore_share": 0.9,
    "pore_size": 0.4,
    "pore_size_sd": 0.4,
    "pore_raggedness": 0.6,
    "debris": 0.02,
    "grey_void": 9000.0,
    "grey_cbd": 20000.0,
    "grey_active": 45000.0,
    "grey_collector": 25000.0,
    "grey_separator": 20000.0,
    "density_sd": 0.0,
    "blur_fwhm_um": 0.0,
    "blur_z_fwhm_um": 0.8,
    "fringe": 0.0,
    "texture": 0.0,
    "mottle": 0.0,
    "cloud": 0.1,
    "noise": 0.0,
    "noise_correlation": 0.0,
    "streaks": 0.1,
    "streak_length": 20.0,
    "rings": 0.0,
    "shading": 0.1,
    "dtype": "uint8",
}
ONLY_WITH: dict[str, dict[str, Any]] = {
    "small_size": {"small_share": 0.5},
    "shards": {"shattered_share": 1.0},
    "grey_separator": {"separator_um": 4.0},
    "streak_length": {"streaks": 0.1},
}
ONLY_IMAGING = tuple(list(CHANGES)[list(CHANGES).index("grey_void") :])


@pytest.fixture(scope="module")
def base() -> tuple[Phantom, Slab]:
    phantom = Phantom(**SMALL, collector_um=1.0)
    return phantom, phantom.slab(0, 12)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(PhantomSettings)])
def test_every_setting_changes_the_output(name: str, base: tuple[Phantom, Slab]) -> None:
    also = ONLY_WITH.get(name, {})
    if also:
        other = Phantom(**SMALL, collector_um=1.0, **also)
        base = other, other.slab(0, 12)
    changed = Phantom(**{**SMALL, "collector_um": 1.0, **also, name: CHANGES[name]})
    slab = changed.slab(0, 12)
    assert slab.grey.shape != base[1].grey.shape or (slab.grey != base[1].grey).any()
    if name in ONLY_IMAGING:
        np.testing.assert_array_equal(slab.labels, base[1].labels)
        np.testing.assert_array_equal(slab.phases, base[1].phases)
        assert changed.truth.drop(columns="grey").equals(base[0].truth.drop(columns="grey"))


def test_dtypes_share_one_scale() -> None:
    fine, medium, coarse = (Phantom(**SMALL, dtype=dtype).slab(10, 12).grey for dtype in ("float32", "uint16", "uint8"))
    assert [v.dtype.name for v in (fine, medium, coarse)] == ["float32", "uint16", "uint8"]
    np.testing.assert_allclose(medium, fine, atol=0.51)
    np.testing.assert_allclose(coarse * 257.0, fine, atol=0.51 * 257)


def test_blur_has_the_width_asked_for() -> None:
    """The edge of a large ball, along a radius: its slope is the Gaussian of the given width."""
    quiet = {"noise": 0.0, "rings": 0.0, "texture": 0.0, "fringe": 0.0, "density_sd": 0.0, "covered_fraction": 0.0}
    phantom = one_ball(3.2, centre=(4.0, 4.0, 4.0), blur_fwhm_um=0.8, dtype="float32", **quiet)
    z, y, x = np.indices((40, 40, 40)) * 0.2
    distance = np.sqrt((z - 4) ** 2 + (y - 4) ** 2 + (x - 4) ** 2)
    share = (phantom.volume().grey - 10000) / 34000
    low, high = (np.median(distance[np.abs(share - level) < 0.01]) for level in (0.8413, 0.1587))
    assert high - low == pytest.approx(2 * 0.8 / 2.355, rel=0.06)


# What breaks, lies about and closes the electrode


def test_shattered_particle_keeps_its_outline() -> None:
    whole, broken = (one_ball(shattered_share=share, crack_width_um=0.3).volume() for share in (0.0, 1.0))
    np.testing.assert_array_equal(broken.labels, whole.labels)
    dark = np.count_nonzero(broken.damage == CRACK) / np.count_nonzero(broken.labels)
    assert 0.1 < dark < 0.6
    shards, n = ndimage.label(broken.phases == ACTIVE)
    assert np.count_nonzero(np.bincount(shards.ravel())[1:] > 20) >= 4, n
    row = one_ball(shattered_share=1.0, crack_width_um=0.3).truth.iloc[0]
    assert row.crack_fraction == pytest.approx(dark, rel=0.05)


def test_debris_is_bright_and_has_no_label() -> None:
    clean, strewn = (Phantom(**SMALL, debris=share) for share in (0.0, 0.02))
    a, b = clean.volume(), strewn.volume()
    np.testing.assert_array_equal(a.labels, b.labels)
    fragment = (b.phases == ACTIVE) & (b.labels == 0)
    assert not ((a.phases == ACTIVE) & (a.labels == 0)).any()
    assert 0.004 < fragment.mean() < 0.03
    assert b.grey[fragment].mean() > a.grey[fragment].mean() + 10000
    assert strewn.truth.equals(clean.truth)
    index = np.random.default_rng(0).integers(0, b.labels.shape, (5000, 3))
    phases, _ = strewn.phase_at(index * 0.2)
    assert np.count_nonzero(phases != b.phases[tuple(index.T)]) <= 2


def test_no_particle_in_the_separator() -> None:
    phantom = Phantom(shape=(60, 50, 50), separator_um=2.0, collector_um=1.0, seed=2)
    volume = phantom.volume()
    assert (volume.phases[51:] == VOID).all()
    assert (volume.phases[:4] == COLLECTOR).all()
    assert (volume.labels[40:49] > 0).any()
    assert volume.grey[54:].mean() == pytest.approx(phantom.settings.grey_separator, rel=0.02)
    index = np.random.default_rng(0).integers(0, volume.labels.shape, (5000, 3))
    assert np.count_nonzero(phantom.phase_at(index * 0.2)[0] != volume.phases[tuple(index.T)]) <= 2


def test_two_kinds_of_particles() -> None:
    phantom = Phantom(shape=(60, 60, 60), diameter_median_um=4.0, diameter_sigma=0.0, small_share=0.4, small_size=0.5)
    radius = phantom.electrode.particles.bodies.radius
    small = radius < 1.5
    assert 0 < small.sum() < len(radius)
    assert np.ptp(radius[small]) < 0.3
    assert (radius[small] ** 3).sum() / (radius**3).sum() == pytest.approx(0.4, abs=0.12)


@pytest.mark.parametrize(("axis", "index"), [(0, 7), (1, 12), (2, 9)])
def test_section_is_a_plane_of_the_volume(axis: int, index: int) -> None:
    phantom = Phantom(**SMALL, collector_um=1.0, separator_um=1.0, debris=0.02, shattered_share=0.5, lumps=0.02)
    volume, section = phantom.volume(), phantom.section(axis, index)
    for name in ("labels", "phases", "damage"):
        np.testing.assert_array_equal(getattr(section, name), getattr(volume, name).take(index, axis))
    blurred = phantom.section(axis, index, through_um=1.0)
    np.testing.assert_array_equal(blurred.labels, section.labels)
    assert (section.particle[section.labels > 0] >= 0.5).all()
    assert blurred.particle[section.labels == 0].sum() > section.particle[section.labels == 0].sum()
    with pytest.raises(InputError, match=r"axis, index: must lie in the volume \(30, 36, 40\); got 3, 0"):
        phantom.section(3, 0)
    with pytest.raises(InputError, match="through_um: must be at least 0; got -1"):
        phantom.section(0, 0, through_um=-1)


def test_slabs_are_the_whole_volume_with_everything_on() -> None:
    phantom = Phantom(
        **SMALL,
        separator_um=1.0,
        debris=0.02,
        shattered_share=0.5,
        lumps=0.02,
        streaks=0.1,
        cloud=0.1,
        blur_z_fwhm_um=0.9,
    )
    whole = phantom.volume()
    for z0, z1 in pairwise((0, 7, 8, 30)):
        for name in PARTS:
            np.testing.assert_array_equal(getattr(phantom.slab(z0, z1), name), getattr(whole, name)[z0:z1])


# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": (10, 10)}, r"shape: must be three positive integers \(z, y, x\); got \(10, 10\)"),
        ({"shape": (10, 10, 0)}, "shape: must be three positive integers"),
        ({"voxel_size_um": (0.1, 0.1, -1)}, "voxel_size_um: must be three positive lengths"),
        ({"dtype": "int64"}, "dtype: must be uint8, uint16 or float32; got int64"),
        ({"seed": -1}, "seed: must be an integer of at least 0; got -1"),
        ({"patches": 1.5}, r"patches: must be an integer of at least 1; got 1\.5"),
        ({"voxel_size_um": 0.2}, r"voxel_size_um: must be three positive lengths \(dz, dy, dx\); got \(0\.2,\)"),
        ({"noise": -0.1}, r"noise: must be between 0 and 1; got -0\.1"),
        ({"active_fraction": 0.9}, r"active_fraction: must be between 0\.01 and 0\.6; got 0\.9"),
        ({"blur_fwhm_um": float("nan")}, "blur_fwhm_um: must be between 0 and"),
        ({"covered_fraction": 0.05}, r"covered_fraction_sd: must be below 0\.218 for a covered_fraction of 0\.05"),
        ({"diameter_median_um": 0.5}, r"diameter_median_um: must be at least 3 voxels \(0\.6 um\); got 0\.5"),
        ({"shards": 1}, "shards: must be an integer of at least 2; got 1"),
        ({"lumps": 0.2}, r"lumps: must be between 0 and 0\.05; got 0\.2"),
        ({"debris": 0.5}, r"debris: must be between 0 and 0\.2; got 0\.5"),
        ({"separator_um": 4.0}, "separator_um: must leave room for particles in 4 um; got 4 beside a collector of 0"),
        ({"samples": 10}, "samples: must be an integer of at least 50; got 10"),
        ({"colour": 1}, "colour: must be a setting of the phantom"),
        ({"centres_um": np.zeros((1, 3))}, "centres_um, diameters_um: must be given together"),
        ({"centres_um": np.zeros((2, 3)), "diameters_um": np.ones(1)}, r"must be \(n, 3\) and \(n,\)"),
        ({"centres_um": np.zeros((1, 3)), "diameters_um": np.zeros(1)}, "must be finite, and diameters positive"),
        ({"centres_um": np.full((1, 3), 99.0), "diameters_um": np.ones(1)}, "shape: must hold at least 10 voxels"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Phantom(**{"shape": (20, 20, 20), **settings})


@pytest.mark.parametrize("bounds", [(-1, 3), (3, 3), (0, 31)])
def test_bad_slab(bounds: tuple[int, int], base: tuple[Phantom, Slab]) -> None:
    with pytest.raises(InputError, match="z0, z1: must satisfy 0 <= z0 < z1 <= 30"):
        base[0].slab(*bounds)
