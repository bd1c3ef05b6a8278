"""Diffusion lengths: closed forms on boxes and balls, what cracks and contacts change, and each particle on its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cbdetach.codes import ACTIVE, ACTIVE_HIGH, CBD, COLLECTOR, VOID
from cbdetach.diffusion import (
    STATUS,
    Lengths,
    contact_sources,
    default_min_contact_um2,
    default_min_piece_um3,
    diffusion_lengths,
    halo,
    longest_paths,
)
from cbdetach.outline import REACH

Array = npt.NDArray[Any]
Spacing = tuple[float, float, float]
UNIT: Spacing = (1.0, 1.0, 1.0)
UNEVEN: Spacing = (0.5, 0.25, 0.4)
REACHED, PARTLY_REACHED, NO_CONTACT = range(3)


def solve(labels: Array, phases: Array, spacing: Spacing = UNIT, **options: Any) -> Lengths:
    """Everything whole, everything owned."""
    ids = np.unique(labels[labels > 0])
    return diffusion_lengths(labels, phases, ids, ids, spacing=spacing, **options)


def empty(*shape: int) -> tuple[Array, Array]:
    return np.zeros(shape, np.int32), np.full(shape, VOID, np.uint8)


def put(labels: Array, phases: Array, where: Any, label: int) -> None:
    labels[where], phases[where] = label, ACTIVE


def slab_on_a_plane(n: int = 20, m: int = 9) -> tuple[Array, Array]:
    """A box of n slices on a plane of carbon/binder, one voxel thick and as wide as the box."""
    labels, phases = empty(n + 4, m + 4, m + 4)
    put(labels, phases, np.s_[2 : n + 2, 2:-2, 2:-2], 1)
    phases[1, 2:-2, 2:-2] = CBD
    return labels, phases


def ball(radius: float, margin: int = 4, spacing: Spacing = UNIT) -> tuple[Array, Array, Array]:
    """Labels of a ball, the distance of every voxel from its centre, and its direction (3, Z, Y, X)."""
    half = [int(np.ceil(radius / s)) + margin for s in spacing]
    axes = [np.arange(-h, h + 1) * s for h, s in zip(half, spacing, strict=True)]
    offset = np.stack(np.meshgrid(*axes, indexing="ij"))
    r = np.sqrt((offset**2).sum(axis=0))
    return (r <= radius).astype(np.int32), r, offset / np.maximum(r, 1e-9)


def coated(labels: Array, coat: Array) -> Array:
    return np.where(labels > 0, ACTIVE, np.where(coat, CBD, VOID)).astype(np.uint8)


# ---- closed forms ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", [UNIT, UNEVEN])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_box_on_a_plane(spacing: Spacing, axis: int) -> None:
    n, d = 20, spacing[axis]
    labels, phases = (np.moveaxis(a, 0, axis) for a in slab_on_a_plane(n))
    found = solve(labels, phases, spacing)
    depth = (np.arange(n) + 0.5) * d
    inside = np.moveaxis(found.lengths, axis, 0)[2:-2, 2:-2, 2:-2]
    np.testing.assert_allclose(inside, np.broadcast_to(depth[:, None, None], inside.shape), rtol=1e-5)
    assert np.isnan(found.lengths[labels == 0]).all()
    expected = {
        "diffusion_length_mean_um": n * d / 2,
        "diffusion_length_median_um": n * d / 2,
        "diffusion_length_p95_um": np.quantile(depth.repeat(81), 0.95),
        "diffusion_length_max_um": (n - 0.5) * d,
        "crack_ratio": 1.0,
        "unreached_fraction": 0.0,
        "status": REACHED,
    }
    for name, value in expected.items():
        assert found.columns[name][0] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("spacing", [UNIT, UNEVEN])
def test_the_contact_ratio_of_a_box_on_a_plane(spacing: Spacing) -> None:
    """Attached all round, the length of a voxel of a box is its distance to the nearest face."""
    shape = (20, 9, 9)
    found = solve(*slab_on_a_plane(*shape[:2]), spacing, start="faces")
    sides = zip(np.indices(shape), shape, spacing, strict=True)
    nearest = np.min([(np.minimum(i, n - 1 - i) + 0.5) * s for i, n, s in sides], axis=0)
    # Where the fronts of two faces meet, upwind differences arrive up to half a voxel early.
    assert found.columns["contact_ratio"][0] == pytest.approx(10 * spacing[0] / nearest.mean(), rel=0.05)


@pytest.mark.parametrize(("radius", "spacing"), [(14.0, UNIT), (6.0, UNEVEN)])
def test_a_ball_attached_all_round(radius: float, spacing: Spacing) -> None:
    """L = R - r, so that the mean is R / 4, and the share q of the volume lies below R (1 - (1 - q)^(1/3))."""
    labels, r, _ = ball(radius, spacing=spacing)
    found = solve(labels, coated(labels, r <= radius + 3 * max(spacing)), spacing)
    for name, expected, tolerance in (
        ("mean", radius / 4, 0.2),
        ("median", radius * (1 - 0.5 ** (1 / 3)), 0.25),
        ("p95", radius * (1 - 0.05 ** (1 / 3)), 0.3),
        ("max", radius, 0.75),
    ):
        got = found.columns[f"diffusion_length_{name}_um"][0]
        assert got == pytest.approx(expected, abs=tolerance * max(spacing)), name
    assert found.columns["contact_ratio"][0] == pytest.approx(1, abs=1e-5)
    assert found.columns["crack_ratio"][0] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("covered", [0.02, 0.1, 0.5])
def test_a_ball_with_a_cap(covered: float) -> None:
    """A ball is convex: straight to the surface below the cap, to the cap's rim from elsewhere."""
    radius = 14.0
    labels, r, direction = ball(radius)
    height = np.tensordot(np.array([1, 2, 3]) / np.sqrt(14), direction, axes=1)
    found = solve(labels, coated(labels, (r <= radius + 3) & (height >= 1 - 2 * covered)))
    rim, inside = np.arccos(1 - 2 * covered), labels > 0
    off_axis, along_axis = r * np.sqrt(np.maximum(1 - height**2, 0)), r * height
    to_rim = np.hypot(off_axis - radius * np.sin(rim), along_axis - radius * np.cos(rim))
    exact = np.where(height >= np.cos(rim), radius - r, to_rim)[inside]
    assert found.columns["diffusion_length_mean_um"][0] == pytest.approx(exact.mean(), abs=0.25)
    assert found.columns["diffusion_length_max_um"][0] == pytest.approx(exact.max(), abs=1)
    assert np.sqrt(np.mean((found.lengths[inside] - exact) ** 2)) < 0.4


# ---- how much contact, and in which pattern --------------------------------------------------------------------------


def patches(radius: float, n: int, covered: float) -> float:
    """`contact_ratio` of a ball whose contact is `n` equal caps, evenly spread, over a share of its surface."""
    labels, r, direction = ball(radius)
    k = np.arange(n) + 0.5
    polar, turn = np.arccos(1 - 2 * k / n), np.pi * (1 + np.sqrt(5)) * k
    centres = np.stack([np.cos(polar), np.sin(polar) * np.sin(turn), np.sin(polar) * np.cos(turn)], axis=1)
    if n == 1:
        centres = np.array([[1, 2, 3]]) / np.sqrt(14)
    height = np.max([np.tensordot(c, direction, axes=1) for c in centres], axis=0)
    coat = (r <= radius + 3) & (height >= 1 - 2 * covered / n)
    return float(solve(labels, coated(labels, coat)).columns["contact_ratio"][0])


def test_the_pattern_of_the_contact_counts_and_not_its_amount_alone() -> None:
    """0.10 of the surface in 1, 10 and 100 patches: 3.36, 1.47, 1.08. One of a hundred is 2.5 voxels here."""
    one, ten, hundred = (patches(14.0, n, 0.10) for n in (1, 10, 100))
    assert one == pytest.approx(3.36, rel=0.05)
    assert ten == pytest.approx(1.47, rel=0.05)
    assert hundred == pytest.approx(1.08, rel=0.10)


def test_a_point_contact_is_the_longest_way_out() -> None:
    """The mean distance from a point of the surface is 6 R / 5, and 6 / 5 : 1 / 4 is 4.8."""
    assert 4.3 < patches(14.0, 1, 0.002) < 5.0


def test_contact_ratio_falls_with_coverage() -> None:
    found = [patches(10.0, 1, covered) for covered in (0.05, 0.2, 0.5, 0.9, 1.0)]
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(1, abs=1e-5)


# ---- which contact counts --------------------------------------------------------------------------------------------


def table_with_patches() -> tuple[Array, Array]:
    """A plate with a 6 x 6 patch of carbon/binder, and a 2 x 2 patch far from it."""
    labels, phases = empty(8, 24, 24)
    put(labels, phases, np.s_[2:6, 2:22, 2:22], 1)
    phases[6, 4:10, 4:10] = CBD
    phases[6, 16:18, 16:18] = CBD
    return labels, phases


def test_all_carbon_binder_outside_is_a_source() -> None:
    labels, phases = table_with_patches()
    labels[3, 5, 5], phases[3, 5, 5] = 1, CBD  # a crack with the grey value of carbon/binder
    np.testing.assert_array_equal(
        contact_sources(labels, phases, spacing=UNIT), (phases == CBD) & (np.arange(8) == 6)[:, None, None]
    )


@pytest.mark.parametrize("spacing", [UNIT, UNEVEN])
def test_contacts_that_are_too_small_are_no_sources(spacing: Spacing) -> None:
    labels, phases = table_with_patches()
    area = spacing[1] * spacing[2] / 1.5  # of one voxel's face, on a smooth surface
    for smallest, kept in ((0.99 * 4 * area, 40), (1.01 * 4 * area, 36), (0.99 * 36 * area, 36), (1.01 * 36 * area, 0)):
        found = contact_sources(labels, phases, spacing=spacing, min_contact_um2=smallest)
        assert found.sum() == kept, smallest
        assert not found[:, 16:18].any() or kept == 40


def test_faces_count_by_their_own_area_along_every_axis() -> None:
    for axis in range(3):
        labels, phases = (np.moveaxis(a, 0, axis) for a in table_with_patches())
        area = 4 * np.prod(np.delete(UNEVEN, axis)) / 1.5
        for factor, kept in ((0.99, 40), (1.01, 36)):
            assert contact_sources(labels, phases, spacing=UNEVEN, min_contact_um2=factor * area).sum() == kept


def test_a_patch_may_lie_around_an_edge_and_touch_diagonally() -> None:
    labels, phases = empty(9, 9, 9)
    put(labels, phases, np.s_[2:7, 2:7, 2:7], 1)
    phases[7, 4, 6] = phases[6, 4, 7] = CBD  # above and beside one edge voxel
    phases[7, 5, 5] = CBD  # above the next voxel but one, diagonally
    assert contact_sources(labels, phases, spacing=UNIT, min_contact_um2=2.99 / 1.5).sum() == 3
    assert contact_sources(labels, phases, spacing=UNIT, min_contact_um2=3.01 / 1.5).sum() == 0


def test_two_particles_are_two_contacts() -> None:
    """One drop of carbon/binder between two particles: 4 faces on one, 12 on the other."""
    labels, phases = empty(9, 8, 8)
    put(labels, phases, np.s_[1:4, 2:4, 2:4], 5)
    put(labels, phases, np.s_[5:8, 1:7, 1:7], 6)
    phases[4, 2:4, 1:7] = CBD
    found = solve(labels, phases, min_contact_um2=5 / 1.5)
    assert found.columns["status"].tolist() == [REACHED, REACHED]  # one voxel thick: what is real for one serves both
    labels, phases = np.insert(labels, 4, 0, axis=0), np.insert(phases, 4, phases[4], axis=0)
    found = solve(labels, phases, min_contact_um2=5 / 1.5)
    assert found.columns["status"].tolist() == [NO_CONTACT, REACHED]


def test_a_crack_s_mouth_is_no_contact_area() -> None:
    labels, phases = table_with_patches()
    phases[2:6, 16:18, 16:18] = VOID  # below the small patch the particle is open
    found = contact_sources(labels, phases, spacing=UNIT, min_contact_um2=1e-6)
    assert found.sum() == 36


def test_the_smallest_contact_changes_the_lengths() -> None:
    labels, phases = table_with_patches()
    all_of_them, large, none = (
        solve(labels, phases, min_contact_um2=smallest).columns for smallest in (0.0, 10.0, 100.0)
    )
    assert large["diffusion_length_mean_um"][0] > 1.1 * all_of_them["diffusion_length_mean_um"][0]
    assert none["status"][0] == NO_CONTACT


def test_the_least_contact_where_none_is_set() -> None:
    assert default_min_contact_um2(0.5) == 0.25
    assert default_min_piece_um3(0.5, phases_given=False) == 0.5
    assert default_min_piece_um3(0.5, phases_given=True) == 0.0
    assert halo(0.5, 0.0) == REACH
    assert halo(0.5, 64.0) == 16


@pytest.mark.parametrize("spacing", [UNIT, UNEVEN])
def test_pieces_that_are_too_small_are_no_sources(spacing: Spacing) -> None:
    labels, phases = table_with_patches()
    voxel = float(np.prod(spacing))
    for smallest, kept in ((0.0, 40), (4 * voxel, 40), (4.1 * voxel, 36), (36 * voxel, 36), (36.1 * voxel, 0)):
        assert contact_sources(labels, phases, spacing=spacing, min_piece_um3=smallest).sum() == kept, smallest


def test_a_piece_that_leaves_the_array_counts() -> None:
    labels, phases = (a[:7] for a in table_with_patches())  # the patches are its last slice
    found = contact_sources(labels, phases, spacing=UNIT, min_piece_um3=1000.0)
    assert found.sum() == 40


def test_pieces_are_connected_by_corners_too() -> None:
    labels, phases = empty(9, 9, 9)
    put(labels, phases, np.s_[2:4, 2:7, 2:7], 1)
    phases[4, 3, 3] = phases[5, 4, 4] = phases[6, 5, 5] = CBD
    assert contact_sources(labels, phases, spacing=UNIT, min_piece_um3=3.0).sum() == 3
    assert contact_sources(labels, phases, spacing=UNIT, min_piece_um3=3.1).sum() == 0
    assert solve(labels, phases, min_piece_um3=3.0).columns["status"][0] == REACHED
    assert solve(labels, phases, min_piece_um3=3.1).columns["status"][0] == NO_CONTACT


def test_the_collector_and_void_are_no_contact() -> None:
    labels, phases = table_with_patches()
    phases[phases == CBD] = COLLECTOR
    assert solve(labels, phases).columns["status"][0] == NO_CONTACT


# ---- what is reached -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three() -> Lengths:
    """Boxes with labels 2, 5 and 9: on a plane; cut by a crack from side to side; without contact."""
    labels, phases = empty(14, 8, 32)
    for label, x in ((2, 2), (5, 12), (9, 22)):
        put(labels, phases, np.s_[2:12, 1:7, x : x + 8], label)
        phases[1, 1:7, x : x + 8] = CBD if label < 9 else VOID
    phases[8, :, 12:20][labels[8, :, 12:20] > 0] = VOID  # slices 2 to 7 below it, 9 to 11 above it
    return solve(labels, phases)


def test_status_and_unreached_fraction(three: Lengths) -> None:
    assert STATUS == ("reached", "partly_reached", "no_contact")
    assert three.labels.tolist() == [2, 5, 9]
    assert three.columns["status"].tolist() == [REACHED, PARTLY_REACHED, NO_CONTACT]
    np.testing.assert_allclose(three.columns["unreached_fraction"], [0, 3 / 9, 1])
    assert np.isinf(three.lengths[9:12, 1:7, 12:20]).all()
    assert np.isnan(three.lengths[8, 1:7, 12:20]).all()
    assert np.isinf(three.lengths[2:12, 1:7, 22:30]).all()


def test_lengths_are_of_what_is_reached_and_empty_without_contact(three: Lengths) -> None:
    np.testing.assert_allclose(three.columns["diffusion_length_mean_um"], [5, 3, np.nan], rtol=1e-5)
    np.testing.assert_allclose(three.columns["diffusion_length_max_um"], [9.5, 5.5, np.nan], rtol=1e-5)
    for name in ("diffusion_length_median_um", "diffusion_length_p95_um", "contact_ratio", "crack_ratio"):
        np.testing.assert_array_equal(np.isnan(three.columns[name]), [False, False, True])
    assert three.farthest[2].tolist() == [-1, -1, -1]
    assert three.lengths[tuple(three.farthest[0])] == three.columns["diffusion_length_max_um"][0]


def test_a_particle_without_solid_has_no_share_of_it() -> None:
    labels, phases = slab_on_a_plane()
    phases[labels > 0] = VOID
    found = solve(labels, phases)
    assert np.isnan(found.columns["unreached_fraction"][0])
    assert found.columns["status"][0] == NO_CONTACT
    assert np.isnan(found.columns["crack_ratio"][0])


def test_both_densities_of_active_material_are_solid() -> None:
    labels, phases = slab_on_a_plane()
    both = phases.copy()
    both[8:12][labels[8:12] > 0] = ACTIVE_HIGH
    np.testing.assert_array_equal(solve(labels, both).lengths, solve(labels, phases).lengths)


# ---- cracks ----------------------------------------------------------------------------------------------------------


def slit(filling: int) -> tuple[Array, Array]:
    """A slit one voxel wide, parallel to the contact, from one side to a quarter before the other."""
    labels, phases = slab_on_a_plane(20, 20)
    phases[10, 2:-2, 2:17] = filling
    return labels, phases


def test_a_slit_lengthens_the_ways_in_the_solid_alone() -> None:
    whole, cracked = solve(*slab_on_a_plane(20, 20)), solve(*slit(VOID))
    assert whole.columns["crack_ratio"][0] == pytest.approx(1, abs=1e-6)
    assert cracked.columns["crack_ratio"][0] > 1.1
    assert cracked.columns["contact_ratio"][0] == pytest.approx(whole.columns["contact_ratio"][0], rel=1e-6)
    assert cracked.columns["unreached_fraction"][0] == 0
    # Behind the slit: straight to its end (edge of the last void voxel, x = 16.5), and down to the contact.
    for z, x in ((11, 2), (15, 4), (20, 8)):
        beyond, above = 16.5 - x, z - 10.5
        expected = np.hypot(beyond, above) + (10.5 - 1.5)
        assert cracked.lengths[z, 12, x] == pytest.approx(expected, abs=1.1)  # a sharp bend costs up to a voxel


def test_a_crack_with_the_grey_value_of_carbon_binder_is_no_contact() -> None:
    np.testing.assert_array_equal(solve(*slit(CBD)).lengths, solve(*slit(VOID)).lengths)


# ---- each particle on its own ----------------------------------------------------------------------------------------


def touching() -> tuple[Array, Array]:
    """Two balls that touch over a broad neck; only the first has contact, on the side away from the other."""
    z, y, x = np.indices((24, 24, 40))
    first = (z - 11.5) ** 2 + (y - 11.5) ** 2 + (x - 12) ** 2 <= 81
    second = ((z - 11.5) ** 2 + (y - 11.5) ** 2 + (x - 26) ** 2 <= 81) & (x >= 19)
    labels = np.where(second, 7, np.where(first & (x < 19), 3, 0)).astype(np.int32)
    near = (z - 11.5) ** 2 + (y - 11.5) ** 2 + (x - 12) ** 2 <= 121
    return labels, coated(labels, near & (x < 8))


def test_no_electron_passes_into_the_neighbour() -> None:
    labels, phases = touching()
    assert ((labels[:, :, 18] == 3) & (labels[:, :, 19] == 7)).sum() > 50
    both = solve(labels, phases)
    assert both.columns["status"].tolist() == [REACHED, NO_CONTACT]
    assert both.columns["unreached_fraction"].tolist() == [0, 1]
    alone = solve(np.where(labels == 3, 3, 0), np.where(labels == 7, VOID, phases))
    np.testing.assert_array_equal(both.lengths[labels == 3], alone.lengths[labels == 3])
    assert both.columns["crack_ratio"][0] == alone.columns["crack_ratio"][0]


def test_more_room_around_changes_nothing() -> None:
    labels, phases = touching()
    found, padded = solve(labels, phases), solve(np.pad(labels, 3), np.pad(phases, 3))
    np.testing.assert_array_equal(padded.lengths[3:-3, 3:-3, 3:-3], found.lengths)
    for name, column in found.columns.items():
        np.testing.assert_array_equal(padded.columns[name], column, err_msg=name)
    np.testing.assert_array_equal(padded.farthest[0], found.farthest[0] + 3)


def many(seed: int = 0) -> tuple[Array, Array]:
    """27 blocks side by side, some merged, with random cracks, in a matrix with random carbon/binder."""
    rng = np.random.default_rng(seed)
    names = rng.integers(1, 20, (3, 3, 3)) * 5
    labels = np.pad(np.kron(names, np.ones((7, 7, 7), int)), 2).astype(np.int32)
    solid = (labels > 0) & (rng.random(labels.shape) > 0.5)
    coat = (labels == 0) & (rng.random(labels.shape) < 0.03)
    return labels, np.where(solid, ACTIVE, np.where(coat, CBD, VOID)).astype(np.uint8)


def test_statistics_are_numpy_s() -> None:
    labels, phases = many()
    found = solve(labels, phases, UNEVEN)
    statuses = set()
    for row, label in enumerate(found.labels):
        length = found.lengths[(labels == label) & (phases == ACTIVE)].astype(np.float64)
        reached = length[np.isfinite(length)]
        statuses.add(found.columns["status"][row])
        assert found.columns["unreached_fraction"][row] == pytest.approx(1 - reached.size / length.size)
        if reached.size:
            expected = [reached.mean(), *np.quantile(reached, [0.5, 0.95]), reached.max()]
            names = ("mean", "median", "p95", "max")
            got = [found.columns[f"diffusion_length_{name}_um"][row] for name in names]
            np.testing.assert_allclose(got, expected, rtol=1e-9)
            assert labels[tuple(found.farthest[row])] == label
            assert found.lengths[tuple(found.farthest[row])] == reached.max()
    assert PARTLY_REACHED in statuses


def test_labels_are_names() -> None:
    labels, phases = many(1)
    found = solve(labels, phases)
    renamed = solve(1000 - labels * (labels > 0) - 1000 * (labels == 0), phases)
    assert renamed.labels.tolist() == (1000 - found.labels[::-1]).tolist()
    np.testing.assert_array_equal(renamed.lengths, found.lengths)
    for name in ("diffusion_length_mean_um", "diffusion_length_median_um", "diffusion_length_max_um"):
        np.testing.assert_allclose(renamed.columns[name], found.columns[name][::-1], rtol=1e-9)


def test_whole_particles_are_solved_and_owned_ones_are_rows() -> None:
    labels, phases = many(2)
    everything = solve(labels, phases)
    whole, owned = everything.labels[2:9], everything.labels[4:6]
    found = diffusion_lengths(labels, phases, whole, owned, spacing=UNIT)
    solved = np.isin(labels, whole)
    np.testing.assert_array_equal(found.lengths[solved], everything.lengths[solved])
    assert np.isnan(found.lengths[~solved]).all()
    np.testing.assert_array_equal(found.labels, owned)
    np.testing.assert_array_equal(found.farthest, everything.farthest[4:6])
    for name in set(found.columns) - {"contact_ratio"}:
        np.testing.assert_array_equal(found.columns[name], everything.columns[name][4:6], err_msg=name)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_any_integer_type_of_labels(dtype: type) -> None:
    labels, phases = many(3)
    found, other = solve(labels, phases), solve(labels.astype(dtype), phases)
    np.testing.assert_array_equal(other.lengths, found.lengths)
    assert other.labels.dtype == np.int64


def test_no_particle_at_all() -> None:
    labels, phases = empty(5, 6, 7)
    phases[2] = CBD
    found = solve(labels, phases)
    assert np.isnan(found.lengths).all()
    assert found.farthest.shape == (0, 3)
    assert all(column.shape == (0,) for column in found.columns.values())
    paths, of = longest_paths(found, spacing=UNIT)
    assert paths == []
    assert of.size == 0


def test_none_owned() -> None:
    labels, phases = slab_on_a_plane()
    found = diffusion_lengths(labels, phases, np.array([1]), np.zeros(0, np.int64), spacing=UNIT)
    np.testing.assert_array_equal(found.lengths, solve(labels, phases).lengths)
    assert found.columns["diffusion_length_mean_um"].shape == (0,)


# ---- options of the solver -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", [{"order": 1}, {"start": "centres"}, {"start": "faces"}])
def test_order_and_start_reach_the_solver(option: dict[str, Any]) -> None:
    labels, r, direction = ball(8.0)
    phases = coated(labels, (r <= 11) & (direction[0] + direction[1] > 0.3))
    default, other = solve(labels, phases), solve(labels, phases, **option)
    assert other.columns["diffusion_length_mean_um"][0] != default.columns["diffusion_length_mean_um"][0]
    assert other.columns["diffusion_length_mean_um"][0] == pytest.approx(
        default.columns["diffusion_length_mean_um"][0], rel=0.15
    )


# ---- the longest paths -----------------------------------------------------------------------------------------------


def along_path(path: Array, spacing: Spacing) -> float:
    return float(np.sqrt(((np.diff(path, axis=0) * spacing) ** 2).sum(axis=1)).sum())


@pytest.mark.parametrize("spacing", [UNIT, UNEVEN])
@pytest.mark.parametrize("covered", [0.02, 0.15])
def test_the_longest_path_is_as_long_as_its_start_is_deep(spacing: Spacing, covered: float) -> None:
    radius = 12 * max(spacing)
    labels, r, direction = ball(radius, spacing=spacing)
    height = np.tensordot(np.array([1, 2, 3]) / np.sqrt(14), direction, axes=1)
    found = solve(labels, coated(labels, (r <= radius + 3 * max(spacing)) & (height >= 1 - 2 * covered)), spacing)
    (path,), of = longest_paths(found, spacing=spacing)
    assert of.tolist() == [1]
    np.testing.assert_array_equal(path[0], found.farthest[0])
    assert along_path(path, spacing) == pytest.approx(found.columns["diffusion_length_max_um"][0], rel=0.03)
    deepest = np.linalg.norm((path[-1] - (np.array(labels.shape) - 1) / 2) * spacing)
    assert deepest == pytest.approx(radius, abs=1.2 * max(spacing))


def test_paths_go_round_a_slit_and_stay_in_the_solid() -> None:
    labels, phases = slit(VOID)
    found = solve(labels, phases)
    (path,), _ = longest_paths(found, spacing=UNIT)
    assert along_path(path, UNIT) == pytest.approx(found.columns["diffusion_length_max_um"][0], rel=0.03)
    nearest = np.rint(path[:-1]).astype(int)
    crossing = np.abs(path[:-1, 0] - 10) < 0.5
    assert crossing.any()
    assert (path[:-1][crossing, 2] > 16).all()
    assert np.isfinite(found.lengths[tuple(nearest.T)]).mean() > 0.95


def test_only_particles_with_contact_have_a_path(three: Lengths) -> None:
    paths, of = longest_paths(three, spacing=UNIT)
    assert of.tolist() == [2, 5]
    for path, start, length in zip(paths, three.farthest, (9.5, 5.5), strict=False):
        np.testing.assert_array_equal(path[0], start)
        assert along_path(path, UNIT) == pytest.approx(length, rel=0.03)


def test_a_path_stays_in_its_particle() -> None:
    """Where two particles touch, the neighbour's contact is nearer than the own one."""
    labels, phases = empty(12, 9, 24)
    put(labels, phases, np.s_[2:10, 1:8, 2:12], 3)
    put(labels, phases, np.s_[2:10, 1:8, 12:22], 8)
    phases[1, 1:8, 2:12] = CBD
    phases[2:10, 1:8, 22] = CBD
    found = solve(labels, phases)
    paths, of = longest_paths(found, spacing=UNIT)
    for path, label in zip(paths, of, strict=True):
        voxels = np.rint(path[:-1]).astype(int)
        assert set(labels[tuple(voxels.T)].tolist()) == {label}
        row = int(np.flatnonzero(found.labels == label)[0])
        assert along_path(path, UNIT) == pytest.approx(found.columns["diffusion_length_max_um"][row], rel=0.03)


# To be added to tests/cbdetach/test_diffusion.py once `travel_time(..., interfaces=True)` is used for L00.


def test_attached_all_round_includes_what_faces_other_particles() -> None:
    """The neighbour changes nothing in the yardstick, so that the contact ratio is that of the particle alone."""
    labels, phases = touching()
    both = solve(labels, phases).columns["contact_ratio"][0]
    alone = solve(np.where(labels == 3, 3, 0), np.where(labels == 7, VOID, phases)).columns["contact_ratio"][0]
    assert both == pytest.approx(alone, rel=1e-6)


def test_the_contact_ratio_does_not_depend_on_who_is_owned() -> None:
    labels, phases = many(2)
    everything = solve(labels, phases)
    owned = everything.labels[4:6]
    found = diffusion_lengths(labels, phases, everything.labels, owned, spacing=UNIT)
    np.testing.assert_array_equal(found.columns["contact_ratio"], everything.columns["contact_ratio"][4:6])


def test_a_path_leaves_the_axis_of_symmetry() -> None:
    labels, r, direction = ball(12.0)
    found = solve(labels, coated(labels, (r <= 15) & (direction[2] >= 0.7)))
    (path,), _ = longest_paths(found, spacing=UNIT)
    assert along_path(path, UNIT) == pytest.approx(found.columns["diffusion_length_max_um"][0], rel=0.03)
