"""Cracks and pores told apart, their volume, surface and local concentration, against closed forms and known scenes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import voxkernels as vk
from cbdetach import damage, phantom
from cbdetach.codes import VOID
from cbdetach.damage import (
    CRACK,
    PORE,
    SOUND,
    DamageShare,
    classify_damage,
    crack_surface,
    damage_columns,
    depth_profile,
    measure_damage,
    merge_damage,
)
from cbdetach.damage_map import crack_density, damage_map, default_window_um, halo
from cbdetach.detachment import is_active

Array = np.ndarray
Make = Callable[..., Any]


def grid(shape: tuple[int, int, int], spacing: tuple[float, float, float] = (1, 1, 1)) -> Array:
    """Positions (3, Z, Y, X) from the middle of the volume."""
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def ball(x: Array, radius: float, centre: tuple[float, ...] = (0, 0, 0)) -> Array:
    return np.asarray(((x - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(0) <= radius**2)


def slit(x: Array, normal: tuple[float, ...], width: float, radius: float) -> Array:
    """A disc-shaped slit through the middle."""
    n = np.reshape(normal, (3, 1, 1, 1)) / np.linalg.norm(normal)
    off = (x * n).sum(0)
    return np.asarray((abs(off) < width / 2) & ((x**2).sum(0) - off**2 < radius**2))


def classified(particle: Array, dark: Array, **options: Any) -> Array:
    return classify_damage(particle.astype(np.int32), particle & ~dark, **{"spacing": (1, 1, 1), **options})


# --- cracks and pores ------------------------------------------------------------------------------


def test_notches_of_the_outline_are_no_damage() -> None:
    """A groove 2 voxels deep is a notch, one that is 6 deep a crack, both all of it; a hidden spot stays what it is."""
    particle = np.ones((40, 40, 40), bool)
    particle[[0, -1]] = particle[:, [0, -1]] = particle[:, :, [0, -1]] = False
    dark = np.zeros_like(particle)
    dark[1:3, 5:35, 10:12] = True
    dark[1:7, 5:35, 25:27] = True
    dark[20, 15:25, 15:25] = True
    plain = classified(particle, dark)
    assert np.array_equal(plain > 0, dark)
    found = classified(particle, dark, skin_um=2.0)
    assert not found[:, :, 10:12][1:3].any()
    assert np.array_equal(found[..., 13:], plain[..., 13:])
    assert np.array_equal(classified(particle, dark, skin_um=1.0), plain)
    half = classify_damage(particle.astype(np.int32), particle & ~dark, spacing=(0.5, 0.5, 0.5), skin_um=1.0)
    assert np.array_equal(half, classified(particle, dark, skin_um=2.0))
    assert not classified(particle, dark, skin_um=6.0)[..., 13:][1:7].any()


def test_the_volumes_border_has_no_skin() -> None:
    """A particle that the volume cuts: what lies at the cut may go on beyond."""
    particle, dark = np.ones((20, 20, 20), bool), np.zeros((20, 20, 20), bool)
    dark[:2, 5:15, 9:11] = True
    assert np.array_equal(classified(particle, dark, skin_um=4.0) > 0, dark)


def test_nothing_dark() -> None:
    x = grid((9, 9, 9))
    assert not classified(ball(x, 4), ~ball(x, 4)).any()


def test_a_slit_is_a_crack_and_a_ball_is_a_pore() -> None:
    x = grid((41, 41, 41))
    particle = ball(x, 18)
    for width in (1.5, 2.5, 3.5):
        dark = slit(x, (1, 2, 3), width, 14)
        assert (classified(particle, dark, max_crack_width_um=4)[dark] == CRACK).all()
    for radius in (1.2, 3, 6):
        dark = ball(x, radius, (2, 1, 0))
        assert (classified(particle, dark)[dark] == PORE).all()


def test_every_dark_voxel_of_a_particle_is_coded_and_no_other() -> None:
    x = grid((41, 41, 41))
    particle = ball(x, 18)
    dark = slit(x, (1, 2, 3), 2.5, 30) | ball(x, 5)
    codes = classified(particle, dark)
    np.testing.assert_array_equal(codes > 0, particle & dark)
    assert codes.dtype == np.uint8


def test_a_pore_that_cracks_radiate_from_is_split() -> None:
    x = grid((61, 61, 61))
    particle, pore = ball(x, 28), ball(x, 7)
    cracks = slit(x, (1, 0, 0.2), 2.5, 24) & (x[2] > 0) | slit(x, (0.1, 1, 0), 2.5, 24) & (x[2] < -3)
    codes = classified(particle, pore | cracks)
    assert (codes[pore] == PORE).mean() > 0.99
    beyond_the_rim = cracks & ~ball(x, 9.5)
    assert (codes[beyond_the_rim] == CRACK).all()
    assert (codes[cracks & ~pore] == CRACK).mean() > 0.95


def test_cracks_of_other_shapes() -> None:
    x = grid((61, 61, 61))
    particle, r = ball(x, 28), np.sqrt((x**2).sum(0))
    shell = abs(r - 15) < 1.2  # as isotropic as a ball, but hollow
    branched = slit(x, (1, 0, 0), 2.5, 20) | slit(x, (0, 1, 0), 2.5, 20) | slit(x, (0, 0, 1), 2.5, 20)
    canal = (x[0] ** 2 + x[1] ** 2 < 2) & (abs(x[2]) < 20)
    for dark in (shell, branched, canal):
        assert (classified(particle, dark)[dark] == CRACK).all()


def test_a_wide_gaping_crack_is_no_pore() -> None:
    x = grid((61, 61, 61))
    dark = slit(x, (1, 1, 0), 6, 24)
    assert (classified(ball(x, 28), dark)[dark] == CRACK).mean() > 0.99


def test_a_short_gap_is_a_crack_where_it_opens_to_the_surface() -> None:
    """5 wide and 14 long, compact by its inertia: a crack at the surface, a pore where it is closed in, and where it is
    wider than twice the widest crack. A ball at the surface stays a pore."""
    x = grid((51, 51, 51))
    particle, gap = ball(x, 20), (abs(x[0]) < 2.6) & (abs(x[1]) < 6.6)
    opening, closed = (gap & (x[2] > low) & (x[2] < low + 14) & particle for low in (6.5, -6.5))
    assert (classified(particle, opening, max_crack_width_um=3)[opening] == CRACK).all()
    assert (classified(particle, closed, max_crack_width_um=3)[closed] == PORE).mean() > 0.85  # but edges
    assert (classified(particle, opening, max_crack_width_um=2)[opening] == PORE).mean() > 0.85
    hole = ball(x, 3, (0, 0, 15.5)) & particle
    assert (classified(particle, hole, max_crack_width_um=3)[hole] == PORE).all()


def test_the_widest_crack_is_an_option() -> None:
    """A pore with a stub as wide as long: with thin cracks it is one pore, else the stub's plane goes to the crack."""
    x = grid((61, 61, 61))
    dark = ball(x, 5) | slit(x, (1, 0, 0), 5, 22)
    particle = ball(x, 28)
    pore = {w: int((classified(particle, dark, max_crack_width_um=w) == PORE).sum()) for w in (5, 12)}
    assert pore[5] > 300
    assert pore[12] == 0
    with_default = classified(particle, dark)
    np.testing.assert_array_equal(with_default, classified(particle, dark, max_crack_width_um=3))


def test_the_branch_of_a_crack_is_crack() -> None:
    x = grid((41, 41, 41))
    dark = slit(x, (1, 0, 0), 6, 16) | ((x[0] > 0) & (x[0] < 5.5) & (abs(x[1]) < 1.5) & (abs(x[2]) < 1.5))
    codes = classified(ball(x, 20), dark, max_crack_width_um=3)
    assert (codes[dark] == CRACK).all()


def test_particles_are_decided_apart() -> None:
    """A crack that goes on in the neighbour is two cracks; a pore beside the other's crack stays a pore."""
    x = grid((21, 21, 60))
    labels = np.where(x[2] < 0, 1, 2).astype(np.int32)
    dark = ((abs(x[0]) < 1) & (x[2] < 0)) | ball(x, 4, (0, 0, 4.5))
    codes = classify_damage(labels, ~dark, spacing=(1, 1, 1))
    assert (codes[dark & (labels == 1)] == CRACK).all()
    assert (codes[dark & (labels == 2)] == PORE).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_window_that_holds_a_particle_whole_decides_about_it(seed: int) -> None:
    """Touching particles full of dark voxels: what the neighbours hold beyond one voxel does not matter."""
    rng = np.random.default_rng(seed)
    x = grid((60, 24, 24))
    centres = np.sort(rng.uniform(-26, 26, 8))
    nearest = np.abs(x[0] + 3 * np.sin(x[1] / 4) - np.reshape(centres, (8, 1, 1, 1))).argmin(0)
    labels = (nearest + 1).astype(np.int32)
    dark = np.zeros(labels.shape, bool)
    for _ in range(25):
        centre = (rng.uniform(-30, 30), rng.uniform(-10, 10), rng.uniform(-10, 10))
        shifted = x - np.reshape(centre, (3, 1, 1, 1))
        dark |= slit(shifted, tuple(rng.normal(size=3)), rng.uniform(1, 3), 6) | ball(shifted, rng.uniform(0, 4))
    codes = classify_damage(labels, ~dark, spacing=(1, 1, 1))
    assert {CRACK, PORE} <= set(np.unique(codes))
    regions = vk.region_properties(labels)
    for label, box in zip(regions.labels, regions.bbox, strict=True):
        window = slice(max(0, box[0] - 1), box[3] + 1)
        part = classify_damage(labels[window], ~dark[window], spacing=(1, 1, 1))
        np.testing.assert_array_equal(part[labels[window] == label], codes[labels == label])


def test_anisotropic_voxels() -> None:
    spacing = (2.0, 1.0, 1.0)
    x = grid((31, 61, 61), spacing)
    particle = ball(x, 28)
    for normal in ((1, 0, 0), (0, 1, 0), (1, 1, 1)):
        dark = slit(x, normal, 4.2, 22)
        assert (classified(particle, dark, spacing=spacing)[dark] == CRACK).all()
    dark = ball(x, 7)
    assert (classified(particle, dark, spacing=spacing)[dark] == PORE).all()


def test_units_do_not_matter() -> None:
    x = grid((41, 41, 41))
    particle, dark = ball(x, 18), slit(x, (1, 2, 3), 2.5, 30) | ball(x, 5)
    np.testing.assert_array_equal(
        classified(particle, dark), classified(particle, dark, spacing=(0.1, 0.1, 0.1), max_crack_width_um=0.3)
    )


def test_mirror_images() -> None:
    x = grid((31, 31, 31))
    particle, dark = ball(x, 14), slit(x, (1, 2, 3), 2.5, 30) | ball(x, 4)
    codes = classified(particle, dark)
    for axis in range(3):
        np.testing.assert_array_equal(classified(np.flip(particle, axis), np.flip(dark, axis)), np.flip(codes, axis))
    np.testing.assert_array_equal(classified(particle.T, dark.T), codes.T)


def test_against_the_synthetic_electrode() -> None:
    """Forked and bent slits, clusters of balls: the codes that the formulas gave, from the true phases."""
    right, error = [], []
    for seed in (1, 2, 3):
        made = phantom.Phantom(shape=(90, 90, 90), seed=seed, crack_share=0.7, pore_share=0.7)
        slab = made.volume()
        codes = classify_damage(slab.labels, is_active(slab.phases), spacing=made.settings.voxel_size_um)
        dark = slab.damage > 0
        np.testing.assert_array_equal(codes > 0, dark)
        right.append(codes[dark] == slab.damage[dark])
        n = np.bincount(slab.labels.ravel())
        there = np.flatnonzero(n > 500)[1:]
        found, true = (np.bincount(slab.labels[c == CRACK], minlength=n.size) / n for c in (codes, slab.damage))
        error.append(abs(found - true)[there])
    assert np.concatenate(right).mean() > 0.88
    assert np.concatenate(error).mean() < 0.006


def test_stated_widths() -> None:
    assert damage.default_max_crack_width_um((0.2, 0.1, 0.1)) == pytest.approx(0.6)
    assert damage.default_max_crack_width_um((0.1, 0.1, 0.1), 0.4) == pytest.approx(0.6)
    assert damage.smallest_crack_um((0.2, 0.1, 0.1)) == 0.1
    assert damage.smallest_crack_um((0.1, 0.1, 0.1), 0.4) == pytest.approx(0.229, abs=0.001)


def test_smallest_crack_is_half_as_dark_as_void() -> None:
    from scipy.ndimage import gaussian_filter1d

    fwhm, fine = 2.0, 1000
    width = damage.smallest_crack_um((0.001, 0.001, 0.001), fwhm)
    profile = np.ones(12 * fine)
    profile[6 * fine - round(width * fine / 2) : 6 * fine + round(width * fine / 2)] = 0
    blurred = gaussian_filter1d(profile, fwhm / 2.3548 * fine)
    assert blurred.min() == pytest.approx(0.5, abs=0.002)


# --- surface, sums, profile ------------------------------------------------------------------------


@pytest.mark.parametrize("normal", [(1, 0, 0), (0, 1, 1), (1, 1, 1), (1, 2, 3), (3, -1, 0.5)])
@pytest.mark.parametrize("width", [1.6, 3.0])
def test_crack_area_of_a_slit(normal: tuple[float, ...], width: float) -> None:
    """A disc-shaped slit through a ball has two walls and a rim."""
    x = grid((51, 51, 51)) + 0.23
    particle, dark = ball(x, 24), slit(x, normal, width, 19)
    labels, codes = particle.astype(np.int32), dark.astype(np.uint8)
    true = 2 * np.pi * 19**2 + 2 * np.pi * 19 * width
    surface = crack_surface(labels, codes, spacing=(1, 1, 1))
    assert surface.area[0, 1] == pytest.approx(true, rel=0.08)
    assert crack_density(labels, codes, spacing=(1, 1, 1)).sum() == pytest.approx(true, rel=0.10)


def test_crack_density_of_a_plane_in_unequal_voxels() -> None:
    spacing = (2.0, 1.0, 0.5)
    labels, codes = np.ones((20, 20, 20), np.int32), np.zeros((20, 20, 20), np.uint8)
    codes[10] = CRACK
    density = crack_density(labels, codes, spacing=spacing)
    np.testing.assert_allclose(density[10], 2 / spacing[0])  # two walls, over the thickness of one voxel
    assert density.sum() * np.prod(spacing) == pytest.approx(2 * 20 * 20 * 1.0 * 0.5)


def test_only_walls_to_its_own_solid_count() -> None:
    labels = np.zeros((9, 9, 9), np.int32)
    labels[:, 1:-1] = 1
    labels[:, 5:-1] = 2
    codes = np.zeros((9, 9, 9), np.uint8)
    codes[4, 1:5] = CRACK  # from the outside (mouth) through particle 1 to particle 2
    codes[4, 5:, :][labels[4, 5:, :] > 0] = PORE
    surface = crack_surface(labels, codes, spacing=(1, 1, 1))
    assert surface.labels.tolist() == [1]
    assert surface.faces[:, 0, 1].tolist() == [2 * 4 * 9, 0, 0]
    density = crack_density(labels, codes, spacing=(1, 1, 1))
    assert (density > 0).sum() == 4 * 9


def scene(seed: int = 0, shape: tuple[int, int, int] = (23, 20, 21)) -> tuple[Array, Array]:
    """Four touching particles in a void, with cracks and pores at random."""
    rng = np.random.default_rng(seed)
    x = grid(shape)
    labels = (1 + (x[1] > 0) + 2 * (x[2] > 0)).astype(np.int32) * ball(x * np.reshape((0.8, 1, 1), (3, 1, 1, 1)), 9)
    labels[labels == 2] = 7
    codes = rng.choice(np.array([SOUND, CRACK, PORE], np.uint8), shape, p=[0.7, 0.2, 0.1]) * (labels > 0)
    return labels, codes.astype(np.uint8)


def test_counts() -> None:
    labels, codes = scene()
    share = measure_damage(labels, codes, spacing=(1, 1, 1), profile_window_um=7)
    assert share.labels.tolist() == [1, 3, 4, 7]
    for i, label in enumerate(share.labels):
        assert share.crack[i] == ((labels == label) & (codes == CRACK)).sum()
        assert share.pore[i] == ((labels == label) & (codes == PORE)).sum()
    assert share.windows.tolist() == [0, 1, 2, 3]
    for i, z in enumerate(range(0, 23, 7)):
        inside, here = labels[z : z + 7] > 0, codes[z : z + 7]
        assert share.window_voxels[i] == inside.sum()
        assert share.window_crack[i] == (here == CRACK).sum()
        assert share.window_pore[i] == (here == PORE).sum()
    assert share.window_area_um2.sum() == pytest.approx(share.crack_area_um2.sum())
    surface = crack_surface(labels, codes, spacing=(1, 1, 1))
    np.testing.assert_allclose(share.crack_area_um2, surface.area[:, 1])


@given(st.integers(1, 23), st.integers(0, 1000), st.sampled_from([1.0, 4.4, 7.0, 100.0]))
def test_slabs_add_up_to_the_whole(thickness: int, seed: int, window: float) -> None:
    labels, codes = scene(seed)
    options: dict[str, Any] = {"spacing": (1.1, 0.9, 1.0), "profile_window_um": window}
    whole = measure_damage(labels, codes, **options)
    shares = []
    for z0 in range(0, len(labels), thickness):
        z1 = min(len(labels), z0 + thickness)
        w0, w1 = max(0, z0 - damage.HALO), min(len(labels), z1 + damage.HALO)
        shares.append(measure_damage(labels[w0:w1], codes[w0:w1], core=(z0 - w0, z1 - w0), z0=w0, **options))
    merged = merge_damage(shares)
    for name in DamageShare.__dataclass_fields__:
        ours, theirs = getattr(merged, name), getattr(whole, name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-12 if name.endswith("um2") else 0)


def test_a_crack_that_meets_another_particle_s_at_the_core_s_end() -> None:
    labels = np.ones((6, 5, 5), np.int32)
    labels[3:] = 2
    codes = np.zeros(labels.shape, np.uint8)
    codes[2:4, 2, 2] = CRACK
    parts = [measure_damage(labels, codes, spacing=(1, 1, 1), core=core) for core in ((0, 3), (3, 6))]
    found, whole = merge_damage(parts), measure_damage(labels, codes, spacing=(1, 1, 1))
    for name in ("labels", "crack", "pore"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    np.testing.assert_allclose(found.crack_area_um2, whole.crack_area_um2)


def test_merging_nothing() -> None:
    assert merge_damage([]).labels.size == 0
    empty = measure_damage(np.zeros((4, 5, 6), np.int32), np.zeros((4, 5, 6), np.uint8), spacing=(1, 1, 1))
    assert (empty.labels.size, empty.windows.tolist(), empty.window_voxels.tolist()) == (0, [0], [0])


def test_columns() -> None:
    labels, codes = scene()
    share = measure_damage(labels, codes, spacing=(1, 1, 1))
    ids = np.array([1, 3, 4, 5, 7])  # 5 has no dark voxel
    voxels = np.array([np.count_nonzero(labels == i) for i in ids])
    voxels[3] = 9
    columns = damage_columns(share, ids, voxels)
    assert set(columns) == {"crack_fraction", "pore_fraction", "crack_area_um2"}
    assert columns["crack_fraction"][0] == ((labels == 1) & (codes == CRACK)).sum() / voxels[0]
    assert columns["pore_fraction"][4] == ((labels == 7) & (codes == PORE)).sum() / voxels[4]
    assert [column[3] for column in columns.values()] == [0, 0, 0]


def test_depth_profile() -> None:
    labels, codes = scene()
    spacing = (0.5, 0.4, 0.3)
    regions = vk.region_properties(labels, spacing=spacing)
    share = measure_damage(labels, codes, spacing=spacing, profile_window_um=3)
    profile = depth_profile(share, regions.bbox[:, 0], regions.bbox[:, 3], spacing=spacing, profile_window_um=3)
    low, high = (0, 6, 12, 18), (6, 12, 18, int(regions.bbox[:, 3].max()))
    assert profile["z_from_um"].tolist() == [0, 3, 6, 9]
    np.testing.assert_allclose(profile["z_to_um"], [(z - 1) * 0.5 for z in high])
    for i, (a, b) in enumerate(zip(low, high, strict=True)):
        inside, here = labels[a:b], codes[a:b]
        assert profile["particles"][i] == np.unique(inside[inside > 0]).size
        assert profile["particle_volume_um3"][i] == pytest.approx((inside > 0).sum() * 0.06)
        assert profile["crack_fraction"][i] == pytest.approx((here == CRACK).sum() / (inside > 0).sum())
        assert profile["pore_fraction"][i] == pytest.approx((here == PORE).sum() / (inside > 0).sum())
    area = profile["crack_area_per_volume_1_um"] * profile["particle_volume_um3"]
    assert area.sum() == pytest.approx(share.crack_area_um2.sum())


def test_depth_profile_with_corrected_crack_volumes() -> None:
    """Each particle's crack voxels count by its own factor, in the window that they lie in, whatever the slabs."""
    labels, codes = scene()
    regions = vk.region_properties(labels)
    cuts = ((0, 5), (5, 16), (16, len(labels)))
    share = merge_damage([measure_damage(labels, codes, spacing=(1, 1, 1), core=c, profile_window_um=7) for c in cuts])
    factors = np.linspace(0.4, 1.9, regions.labels.size)
    of_voxel = np.zeros(int(labels.max()) + 1)
    of_voxel[regions.labels] = factors
    ends = regions.bbox[:, 0], regions.bbox[:, 3]
    known: dict[str, Any] = {"spacing": (1, 1, 1), "profile_window_um": 7}
    found = depth_profile(share, *ends, **known, correction=(regions.labels, factors))
    plain = depth_profile(share, *ends, **known)
    for k, z in enumerate(range(0, len(labels), 7)):
        inside, here = labels[z : z + 7], codes[z : z + 7] == CRACK
        if (inside > 0).any():
            assert found["crack_fraction"][k] == pytest.approx(of_voxel[inside[here]].sum() / (inside > 0).sum())
    assert {name for name in plain if not np.array_equal(plain[name], found[name])} == {"crack_fraction"}


def test_depth_profile_of_an_empty_stretch() -> None:
    labels = np.zeros((30, 5, 5), np.int32)
    labels[:5] = 1
    labels[25:] = 2
    share = measure_damage(labels, np.zeros(labels.shape, np.uint8), spacing=(1, 1, 1))
    profile = depth_profile(share, np.array([0, 25]), np.array([5, 30]), spacing=(1, 1, 1))
    assert profile["particles"].tolist() == [1, 0, 1]
    assert profile["crack_fraction"].tolist()[::2] == [0, 0]
    assert np.isnan(profile["crack_fraction"][1])


# --- map -------------------------------------------------------------------------------------------


def test_map_of_parallel_cracks() -> None:
    """Planes one voxel thick, every 5: two walls per 5 um in any window of a multiple of 5."""
    labels, codes = np.ones((45, 20, 20), np.int32), np.zeros((45, 20, 20), np.uint8)
    codes[::5] = CRACK
    found = damage_map(labels, codes, spacing=(1, 1, 1), window_um=15)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[8:-8], 2 / 5, rtol=1e-5)


def test_map_outside_particles_and_without_cracks() -> None:
    labels, codes = scene()
    for chosen in (codes, np.zeros_like(codes)):
        found = damage_map(labels, chosen, spacing=(1, 1, 1), window_um=5)
        np.testing.assert_array_equal(np.isnan(found), labels == 0)
        assert (found[labels > 0] >= 0).all()
    assert not found[labels > 0].any()


def test_map_counts_particle_volume_only() -> None:
    """A crack in a thin particle surrounded by void is as concentrated as in a thick one."""
    labels, codes = np.zeros((15, 31, 31), np.int32), np.zeros((15, 31, 31), np.uint8)
    labels[5:10] = 1
    codes[7] = CRACK
    found = damage_map(labels, codes, spacing=(1, 1, 1), window_um=11)
    np.testing.assert_allclose(found[5:10, 8:-8, 8:-8], 2 / 5, rtol=1e-5)


def test_map_window_is_an_option() -> None:
    labels, codes = np.ones((41, 9, 9), np.int32), np.zeros((41, 9, 9), np.uint8)
    codes[20] = CRACK
    for window in (5, 11):
        found = damage_map(labels, codes, spacing=(1, 1, 1), window_um=window)
        assert found[20, 4, 4] == pytest.approx(2 / window, rel=1e-5)
        assert np.flatnonzero(found[:, 4, 4] > 1e-6).size == window
    default = damage_map(labels, codes, spacing=(1, 1, 1))
    np.testing.assert_array_equal(default, damage_map(labels, codes, spacing=(1, 1, 1), window_um=9))
    assert default_window_um((0.1, 0.1, 0.1)) == 2.0


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 1.0, 1.0)])
def test_map_slab_by_slab(spacing: tuple[float, float, float]) -> None:
    labels, codes = scene(4, (60, 20, 21))
    whole = damage_map(labels, codes, spacing=spacing, window_um=7)
    around = halo(spacing, 7)
    for z0 in range(0, 60, 13):
        z1 = min(60, z0 + 13)
        w0, w1 = max(0, z0 - around), min(60, z1 + around)
        part = damage_map(labels[w0:w1], codes[w0:w1], spacing=spacing, window_um=7)
        np.testing.assert_allclose(part[z0 - w0 : z1 - w0], whole[z0:z1], rtol=1e-4, atol=1e-6)


def test_map_total_is_the_crack_area() -> None:
    """Where all is particle, the mean of the map over a window's period keeps the total surface."""
    x = grid((41, 41, 41))
    labels, codes = np.ones(x.shape[1:], np.int32), slit(x, (1, 2, 3), 2.5, 10).astype(np.uint8)
    found = damage_map(labels, codes, spacing=(1, 1, 1), window_um=7)
    assert found.sum() == pytest.approx(crack_density(labels, codes, spacing=(1, 1, 1)).sum(), rel=1e-4)


def test_void_in_no_particle_is_nothing() -> None:
    labels = np.zeros((6, 6, 6), np.int32)
    codes = classify_damage(labels, np.full(labels.shape, VOID, bool), spacing=(1, 1, 1))
    assert not codes.any()
