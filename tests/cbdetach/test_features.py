"""Features of particles: closed forms, and one test for every defect of the research code that first had them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import voxkernels as vk
from cbdetach import density, features, metrics, segment, table
from cbdetach.annotations import LabelledSlice
from cbdetach.features import (
    FEATURES,
    coordination_number,
    neighbour_features,
    orientation,
    principal_axes,
    smoothed_area_ratio,
    surface_features,
)
from cbdetach.metrics import Prediction
from cbdetach.packing import count_cells, join_cells, packing, packing_cell

LI_2022 = (
    "X Y Z Yaw Pitch Roll EDensity Homogeneity SurfaceInner SurfaceOuter Volume Damage Elongation Sphericity VSratio "
    "RoughInner RoughOuter Contact PDensity DistNearest ElongStd VolumeStd SphericityStd OrienIso"
)


def ellipsoid(
    half_axes: tuple[float, float, float], turn: np.ndarray | None = None, spacing: Any = (1, 1, 1)
) -> np.ndarray:
    """A digitised ellipsoid; rows of `turn` are its axes in (z, y, x), half axes in the unit of spacing."""
    reach = [int(np.ceil(max(half_axes) / s)) + 2 for s in spacing]
    grid = np.stack(
        np.meshgrid(*[np.arange(-r, r + 1) * s for r, s in zip(reach, spacing, strict=True)], indexing="ij"), -1
    )
    along = grid @ (np.eye(3) if turn is None else turn).T
    return np.asarray((np.square(along / half_axes)).sum(-1) <= 1)


def measured(labels: np.ndarray, spacing: Any = (1, 1, 1)) -> tuple[vk.RegionProperties, dict[str, np.ndarray]]:
    regions = vk.region_properties(labels, spacing=spacing)
    return regions, table.geometry_columns(regions, labels.shape, spacing)


def test_all_24_features_are_there() -> None:
    named = {theirs for _, _, theirs in FEATURES.values() if theirs}
    assert named == set(LI_2022.split())
    assert len(named) == 24
    for name, (unit, meaning, _) in FEATURES.items():
        assert meaning
        ending = {"um": "_um", "um^2": "_um2", "um^3": "_um3", "degree": "_deg"}.get(unit)
        assert ending is None or name.endswith(ending), name


# ---- shape and orientation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.5, 1.0, 0.8)])
@pytest.mark.parametrize(("yaw", "pitch", "roll"), [(30, 20, 50), (150, -40, 120), (90, 0, 10), (10, 70, 170)])
def test_angles_of_turned_ellipsoids(
    yaw: float, pitch: float, roll: float, spacing: tuple[float, float, float]
) -> None:
    """Built from the angles in (x, y, z) with scipy, measured from voxels: the same within half a degree.

    Half axes are 8, 11 and 16 voxels; where voxels are coarser along z (5 to 11 of them), within 1.2 degrees.
    """
    a, b = np.radians(yaw), np.radians(pitch)
    longest = np.array([np.cos(b) * np.cos(a), np.cos(b) * np.sin(a), np.sin(b)])
    beside = np.cross([0, 0, 1], longest)
    beside /= np.linalg.norm(beside)
    middle = Rotation.from_rotvec(np.radians(roll) * longest).apply(beside)
    turn = np.stack([np.cross(longest, middle), middle, longest])[:, ::-1]  # rows short, middle, long; (z, y, x)
    mask = ellipsoid((8.0, 11.0, 16.0), turn, spacing)
    regions = vk.region_properties(mask.astype(np.int32), spacing=spacing)
    half_axes, directions = principal_axes(regions.inertia, spacing)
    found = orientation(half_axes, directions)
    for name, true in (("yaw", yaw), ("pitch", pitch), ("roll", roll)):
        away = (found[f"{name}_deg"][0] - true + 90) % 180 - 90
        assert abs(away) < (0.5 if spacing[0] == 1 else 1.2), (name, found)
    np.testing.assert_allclose(half_axes[0] / half_axes[0, 0], [1, 11 / 8, 2], rtol=0.01 if spacing[0] == 1 else 0.025)


def test_open_angles_are_empty() -> None:
    both = np.stack([np.eye(3), np.eye(3)[:, [2, 1, 0]]])
    found = orientation(np.array([[1, 1, 1.0], [1, 1.5, 2]]), both)
    assert np.isnan([found[f"{n}_deg"][0] for n in ("yaw", "pitch", "roll")]).all()  # a ball
    assert np.isnan(found["yaw_deg"][1])  # upright
    assert found["pitch_deg"][1] == pytest.approx(90)
    disc = orientation(np.array([[1, 1, 2.0]]), np.eye(3)[None])
    assert np.isnan(disc["roll_deg"][0])
    assert disc["pitch_deg"][0] == pytest.approx(0)
    assert principal_axes(np.zeros((0, 3, 3)), (1, 1, 1))[0].shape == (0, 3)


def test_roughness_is_told_and_a_ball_has_none() -> None:
    ball = ellipsoid((14.0, 14.0, 14.0))
    assert smoothed_area_ratio(ball, spacing=(1, 1, 1), smoothing_um=2.0) == pytest.approx(1, abs=0.01)
    rng = np.random.default_rng(0)
    z, y, x = np.indices(ball.shape) - 16
    r = np.sqrt(z**2 + y**2 + x**2)
    bumps = 1.5 * np.sin(z * 1.3 + rng.uniform()) * np.sin(y * 1.3) * np.sin(x * 1.3)
    rough = r <= 14 + bumps
    mild = smoothed_area_ratio(rough, spacing=(1, 1, 1), smoothing_um=1.0)
    strong = smoothed_area_ratio(rough, spacing=(1, 1, 1), smoothing_um=2.0)
    assert strong < mild < 1
    assert strong < 0.95
    same = smoothed_area_ratio(rough, spacing=(0.1, 0.1, 0.1), smoothing_um=0.2)
    assert same == pytest.approx(strong, abs=1e-9)  # lengths are micrometres
    assert np.isnan(smoothed_area_ratio(np.zeros((3, 3, 3), bool), spacing=(1, 1, 1), smoothing_um=1.0))


def test_the_inner_surface_is_that_of_the_holes() -> None:
    ball = ellipsoid((16.0, 16.0, 16.0))
    z, y, x = np.indices(ball.shape) - 18
    pore = z**2 + y**2 + x**2 <= 7**2
    labels = np.where(ball, 5, 0).astype(np.int32)
    labels = np.concatenate([labels, np.where(ball, 9, 0).astype(np.int32)], axis=2)
    dark = np.concatenate([pore, np.zeros_like(pore)], axis=2)
    regions = vk.region_properties(labels)
    found = surface_features(labels, dark, regions.labels, regions.bbox, spacing=(0.5, 0.5, 0.5), smoothing_um=1.0)
    assert found["surface_inner_um2"][0] == pytest.approx(4 * np.pi * 3.5**2, rel=0.02)
    assert found["surface_inner_um2"][1] == 0
    assert found["smoothed_area_ratio_inner"][0] == pytest.approx(1, abs=0.02)
    assert np.isnan(found["smoothed_area_ratio_inner"][1])


# ---- neighbours ------------------------------------------------------------------------------------------------------


def lattice(n: int = 5, pitch: float = 10.0) -> np.ndarray:
    return (np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1).reshape(-1, 3) + 0.5) * pitch


def neighbours(centroids: np.ndarray, size: float = 50.0, **columns: np.ndarray) -> dict[str, np.ndarray]:
    n = len(centroids)
    plain = {name: np.ones(n) for name in ("volume_um3", "elongation", "sphericity")}
    axes = columns.pop("axes", np.tile([0.0, 0, 1], (n, 1)))
    given = plain | {"touches_border": np.zeros(n, bool)} | columns
    return neighbour_features(centroids, given, axes, shape=(int(size),) * 3, spacing=(1.0, 1.0, 1.0))


def test_distances_on_a_lattice() -> None:
    found = neighbours(lattice())
    middle = 2 * 25 + 2 * 5 + 2
    assert found["nearest_distance_um"][middle] == pytest.approx(10)
    assert found["nearest6_distance_um"][middle] == pytest.approx(10)
    assert found["nearest6_distance_um"][0] > 10  # a corner has three
    assert found["nearest6_inside"][middle]
    assert not found["nearest6_inside"][0]


def test_few_particles_have_few_neighbours() -> None:
    assert np.isnan(neighbours(np.zeros((1, 3)))["nearest_distance_um"]).all()
    found = neighbours(np.array([[0, 0, 0], [0, 3, 4.0]]))
    np.testing.assert_allclose(found["nearest_distance_um"], 5)
    assert np.isnan(found["nearest6_distance_um"]).all()
    assert not found["nearest6_inside"].any()


def test_orientation_isotropy_knows_no_sign() -> None:
    """Aligned axes, pointing either way, have isotropy 0; axes along x, y, z in equal parts have 1."""
    at = lattice()
    middle = 2 * 25 + 2 * 5 + 2
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (125, 1))
    aligned = neighbours(at, axes=signs * [0, 0.6, 0.8])
    np.testing.assert_allclose(aligned["nearest6_orientation_isotropy"], 0, atol=1e-12)
    by_row = np.eye(3)[np.argmax(np.abs(at - at[middle]) > 5, axis=1)]
    assert neighbours(at, axes=by_row)["nearest6_orientation_isotropy"][middle] == pytest.approx(1)


def test_coordination_counts_pairs_above_an_area() -> None:
    labels = np.zeros((12, 12, 36), np.int32)
    labels[2:10, 2:10, 0:12], labels[2:10, 2:10, 12:24], labels[2:3, 2:3, 24:30] = 3, 8, 9
    contacts = vk.contact_areas(labels, np.zeros(labels.shape, np.uint8))
    ids = np.array([3, 8, 9])
    assert coordination_number(ids, contacts.pairs, contacts.pair_area, min_contact_um2=0.0).tolist() == [1, 2, 1]
    assert coordination_number(ids, contacts.pairs, contacts.pair_area, min_contact_um2=5.0).tolist() == [1, 1, 0]
    assert coordination_number(ids, contacts.pairs[:0], contacts.pair_area[:0], min_contact_um2=0.0).tolist() == [0] * 3


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 0.5)])
def test_packing_of_a_half_space(spacing: tuple[float, float, float]) -> None:
    """Particles fill y < 20 um: closed form for cubes at any place, slab by slab as in one piece."""
    shape = (int(40 / spacing[0]), int(40 / spacing[1]), int(40 / spacing[2]))
    inside = np.zeros(shape, bool)
    inside[:, : int(20 / spacing[1])] = True
    side = 12.0
    cell = packing_cell(side, spacing)
    parts = [count_cells(inside[z : z + 7], cell, z) for z in range(0, shape[0], 7)]
    cells = join_cells(parts, -(-shape[0] // cell[0]))
    assert cells.sum() == inside.sum()
    y = np.array([3.0, 12.0, 17.5, 20.0, 26.0, 39.0])
    centroids = np.stack([np.full(6, 20.0), y, np.full(6, 20.0)], axis=1)
    found = packing(cells, cell, centroids, side_um=side, shape=shape, spacing=spacing)
    low, high = np.maximum(y - 6, -spacing[1] / 2), np.minimum(y + 6, 40 - spacing[1] / 2)
    true = np.clip(20 - spacing[1] / 2 - low, 0, high - low) / (high - low)
    np.testing.assert_allclose(found["packing_fraction"], true, atol=0.03)
    np.testing.assert_allclose(found["packing_known_fraction"], (high - low) / side, rtol=1e-9)
    larger = packing(cells, cell, centroids, side_um=24.0, shape=shape, spacing=spacing)
    assert (larger["packing_fraction"] != found["packing_fraction"]).any()


# ---- the defects of the released research code -----------------------------------------------------------------------


def test_defect_1_recall_is_matched_particles_over_true_ones() -> None:
    """Released: the share of curve points below 0.8. Two of four particles found, and one false: 1/2 and 2/3."""
    true = np.zeros((20, 80), np.int32)
    for k in range(4):
        true[5:15, 20 * k + 5 : 20 * k + 15] = k + 1
    found = np.where(true <= 2, true, 0)
    found[0:4, 60:70] = 3
    counts, _, iou = metrics.compare(Prediction(found), LabelledSlice("a", "a", true, true)).objects(0.5)
    assert (counts.tp, counts.fp, counts.fn) == (2, 1, 2)
    assert counts.metrics()["sensitivity"] == pytest.approx(1 / 2)
    assert counts.metrics()["precision"] == pytest.approx(2 / 3)
    np.testing.assert_allclose(iou, 1)  # of the matched pairs, not the largest of the image


def test_defect_2_overlapping_instances_make_no_third_label() -> None:
    masks = np.ones((2, 28, 28), np.float32)
    boxes = np.array([[2, 2, 22, 22], [12, 12, 32, 32]], np.float32)
    image = vk.paste_masks(masks, boxes, np.array([0.9, 0.8], np.float32), (40, 40))
    assert np.unique(image).tolist() == [0, 1, 2]  # summed, the overlap would be a label of its own: 3


def test_defect_3_density_is_read_on_one_scale() -> None:
    """Slices of another brightness stay so: no contrast is adjusted slice by slice, no value is rounded to 8 bits."""
    labels = np.ones((12, 12, 12), np.int32)
    grey = np.full(labels.shape, 30_000, np.uint16)
    grey[6:] = 30_017
    depth = density.solid_depth(labels, labels > 0, spacing=(1, 1, 1))
    shells = density.grey_of_shells(labels, grey, depth, np.zeros(1), spacing=(1, 1, 1))
    found = density.density_columns(density.eroded_grey(shells, np.array([1]), 1), 0)
    assert found["density_mean"][0] == pytest.approx(30_008.5)
    assert found["density_std"][0] == pytest.approx(8.5)


def test_defect_4_there_is_no_cap_of_100_particles() -> None:
    k = np.arange(150)
    corner = np.stack([(k % 15) * 10, (k // 15) * 10], axis=1).astype(np.float32)
    boxes = np.concatenate([corner + 1, corner + 9], axis=1)
    image = vk.paste_masks(
        np.ones((150, 28, 28), np.float32), boxes, np.linspace(0.9, 0.6, 150).astype(np.float32), (100, 150)
    )
    assert np.unique(image[image > 0]).size == 150


@pytest.mark.parametrize("voxel", [0.07, 0.1])
def test_defect_5_areas_do_not_depend_on_the_voxel(voxel: float) -> None:
    """A ball of 2 um at 70 and 100 nm: one area, sphericity 1 (released: about 1.8), VSratio 0.455."""
    mask = ellipsoid((2.0, 2.0, 2.0), spacing=(voxel,) * 3)
    contacts = vk.contact_areas(mask.astype(np.int32), np.zeros(mask.shape, np.uint8), spacing=(voxel,) * 3)
    area = contacts.area.sum()
    volume = mask.sum() * voxel**3
    assert area == pytest.approx(4 * np.pi * 4, rel=0.01)
    assert table.sphericity(np.array([volume]), np.array([area]), np.array([False]))[0] == pytest.approx(1, abs=0.015)
    assert volume ** (1 / 3) / area**0.5 == pytest.approx(0.455, abs=0.004)


def test_defect_6_the_spread_of_density_is_called_a_spread() -> None:
    assert "homogeneity" not in FEATURES
    assert FEATURES["density_std"][2] == "Homogeneity"
    assert "standard deviation" in FEATURES["density_std"][1]


def test_defect_7_spreads_are_over_six_others() -> None:
    """Released: the first neighbour alone, so always 0. Here: six others, aligned with their values."""
    at = lattice()
    middle = 2 * 25 + 2 * 5 + 2
    volume = np.random.default_rng(0).uniform(1, 9, 125)
    six = np.flatnonzero(np.linalg.norm(at - at[middle], axis=1).round(6) == 10)
    assert six.size == 6
    found = neighbours(at, volume_um3=volume, elongation=volume + 1, sphericity=volume / 10)
    assert found["nearest6_volume_std_um3"][middle] == pytest.approx(volume[six].std(ddof=1))
    assert found["nearest6_elongation_std"][middle] == pytest.approx(volume[six].std(ddof=1))
    assert found["nearest6_sphericity_std"][middle] == pytest.approx(volume[six].std(ddof=1) / 10)
    own = volume.copy()
    own[middle] = 1e6
    assert neighbours(at, volume_um3=own)["nearest6_volume_std_um3"][middle] == pytest.approx(volume[six].std(ddof=1))
    twice = np.concatenate([at, at[middle][None]])  # another particle with the very same centroid is a neighbour
    assert neighbours(twice)["nearest_distance_um"][[middle, 125]].tolist() == [0, 0]


def test_defect_8_cracks_do_not_dim_the_density() -> None:
    """Two balls of one material, one cracked: one density, though the filled particles' means differ."""
    ball = ellipsoid((12.0, 12.0, 12.0))
    labels = np.concatenate([np.where(ball, 1, 0), np.where(ball, 2, 0)], axis=2).astype(np.int32)
    active = labels > 0
    active[12:15, :, : ball.shape[2]] = False
    grey = np.where(active, 40_000, 10_000).astype(np.uint16)
    depth = density.solid_depth(labels, active, spacing=(1, 1, 1))
    shells = density.grey_of_shells(labels, grey, depth, np.array([2.0]), spacing=(1, 1, 1))
    found = density.density_columns(density.eroded_grey(shells, np.array([1, 2]), 1), 0)
    np.testing.assert_allclose(found["density_mean"], 40_000)
    filled = vk.region_properties(labels, grey)
    assert filled.mean is not None
    assert filled.mean[0] < 0.95 * filled.mean[1]


def test_defect_9_the_neighbourhood_is_a_cube_of_the_stated_side() -> None:
    """Not the particle's box grown by a margin: a large and a small particle at one place see the same packing."""
    rng = np.random.default_rng(0)
    inside = rng.random((40, 40, 40)) < 0.6
    cell = packing_cell(20.0, (1.0, 1.0, 1.0))
    cells = join_cells([count_cells(inside, cell, 0)], 40)
    at = np.full((1, 3), 19.5)
    found = packing(cells, cell, at, side_um=20.0, shape=(40, 40, 40), spacing=(1.0, 1.0, 1.0))
    assert found["packing_fraction"][0] == pytest.approx(inside[10:30, 10:30, 10:30].mean(), abs=1e-6)
    assert found["packing_known_fraction"][0] == pytest.approx(1)


def test_defect_10_cut_particles_have_no_shape() -> None:
    labels = np.zeros((30, 30, 60), np.int32)
    labels[:29, :29, :29][ellipsoid((12.0, 9.0, 7.0))] = 1
    labels[4:26, 4:26, 40:] = 2
    labels[2, 2, 33] = 0
    regions, columns = measured(labels)
    contacts = vk.contact_areas(labels, np.zeros(labels.shape, np.uint8))
    columns["surface_area_um2"] = contacts.area.sum(axis=1)
    n = len(regions.labels)
    columns |= {name: np.zeros(n) for name in ("area_particle_um2", "area_cbd_um2", "crack_fraction")}
    columns["sphericity"] = table.sphericity(
        columns["volume_um3"], columns["surface_area_um2"], columns["touches_border"]
    )
    surfaces = surface_features(labels, labels < 0, regions.labels, regions.bbox, spacing=(1, 1, 1), smoothing_um=1.5)
    found = features.feature_columns(
        regions, columns, contacts, surfaces, {}, shape=labels.shape, spacing=(1, 1, 1), min_contact_um2=0.0
    )
    assert list(found) == list(FEATURES)
    cut = found["touches_border"]
    assert cut[-1]
    for name in features.NEED_ALL:
        assert np.isnan(found[name][cut]).all(), name
    assert np.isfinite(found["volume_um3"]).all()
    words = features.feature_dictionary(found, {"density_mean": "no grey volume was given"})
    assert words["density_mean"]["empty_because"] == "no grey volume was given"
    assert words["packing_fraction"]["empty_because"] == "no particle has what it needs"
    assert "empty_because" not in words["volume_um3"]


def test_defect_11_fused_views_do_not_change_from_run_to_run() -> None:
    """Released: an unseeded k-means whose cluster order decides which is background."""
    rng = np.random.default_rng(0)
    labels = np.zeros((24, 24, 24), np.int32)
    labels[3:11, 3:20, 3:20], labels[13:21, 3:20, 3:20] = 1, 2
    views = [labels, np.where(rng.random(labels.shape) < 0.03, 0, labels), labels * 3]
    first = segment.fuse_views(*views)
    np.testing.assert_array_equal(first, segment.fuse_views(*views))
    assert (first[labels == 0] == 0).all()
    assert np.unique(first).size == 3
