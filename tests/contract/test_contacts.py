"""Contract of `contact_areas` and `merge_contacts`, the same for every backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from types import ModuleType

import cc3d
import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial import SphericalVoronoi
from tests.contract.backends import backend_fixture

import voxkernels as vk
from voxkernels import contacts
from voxkernels.contacts import reference

ops = backend_fixture("contacts")


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    """Volumes as small as these are counted by several threads, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contacts, "BLOCK_VOXELS", 8)
        yield


ESTIMATORS = ("faces", "crofton", "weighted")
COUNTED = ("labels", "pairs", "faces", "pair_faces")
MEASURED = ("area", "pair_area", "border", "mouth")
LABEL_TYPES = (np.bool_, np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64)


def scene(seed: int = 0, shape: tuple[int, int, int] = (8, 9, 10), edge: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Random labels 0..3 in blocks of `edge` voxels, random phases 0..2."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 4, [-(-n // edge) for n in shape]).astype(np.int32)
    labels = coarse.repeat(edge, 0).repeat(edge, 1).repeat(edge, 2)[: shape[0], : shape[1], : shape[2]]
    return np.ascontiguousarray(labels), rng.integers(0, 3, shape).astype(np.uint8)


def positions(reach: float, spacing: tuple[float, float, float] = (1, 1, 1), seed: int = 0) -> np.ndarray:
    """(3, Z, Y, X) positions about a random sub-voxel origin."""
    rng = np.random.default_rng(seed)
    axes = []
    for size in spacing:
        half = int(np.ceil(reach / size)) + 3
        axes.append((np.arange(-half, half + 1) + rng.uniform(-0.5, 0.5)) * size)
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def ball(radius: float, spacing: tuple[float, float, float] = (1, 1, 1), seed: int = 0) -> np.ndarray:
    return ((positions(radius, spacing, seed) ** 2).sum(axis=0) < radius**2).astype(np.int32)


def voids(labels: np.ndarray) -> np.ndarray:
    return np.zeros(labels.shape, np.uint8)


def assert_same(one, other, rtol: float = 1e-7, atol: float = 1e-9) -> None:
    for field in COUNTED:
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field), err_msg=field)
    for field in MEASURED:
        np.testing.assert_allclose(getattr(one, field), getattr(other, field), rtol=rtol, atol=atol, err_msg=field)


def assert_identical(one, other) -> None:
    assert_same(one, other, rtol=0, atol=0)


# Closed forms


@pytest.mark.parametrize("estimator", ["faces", "weighted"])
def test_one_enclosed_voxel_has_six_faces(ops: ModuleType, estimator: str) -> None:
    labels = np.zeros((3, 3, 3), np.int32)
    labels[1, 1, 1] = 7
    c = ops.contact_areas(labels, np.full(labels.shape, 2, np.uint8), spacing=(2, 3, 5), estimator=estimator)
    assert c.labels.tolist() == [7]
    assert c.faces[:, 0, 2].tolist() == [2, 2, 2]
    assert c.area.tolist() == [[0, 0, 2 * (15 + 10 + 6)]]
    assert c.spacing == (2, 3, 5)
    assert not c.border.any()
    assert not c.mouth.any()
    assert c.pairs.shape == (0, 2)


def test_two_cubes(ops: ModuleType) -> None:
    labels = np.zeros((6, 6, 10), np.int32)
    labels[1:5, 1:5, 1:5] = 9
    labels[1:5, 1:5, 5:9] = 4
    c = ops.contact_areas(labels, voids(labels), spacing=(1, 2, 3))
    assert c.labels.tolist() == [4, 9]
    assert c.pairs.tolist() == [[4, 9]]
    assert c.pair_faces.tolist() == [[0], [0], [16]]
    assert c.pair_area.tolist() == pytest.approx([16 * 2])
    assert c.area[:, 0].tolist() == pytest.approx([2 * 16 * 6 + 2 * 16 * 3 + 16 * 2] * 2)


@pytest.mark.parametrize("edge", [4, 9])
def test_cube_along_the_axes_keeps_its_facets(ops: ModuleType, edge: int) -> None:
    labels = np.pad(np.ones((edge,) * 3, np.int32), 3)
    area = {e: ops.contact_areas(labels, voids(labels), estimator=e).area.sum() for e in ESTIMATORS}
    assert area["faces"] == 6 * edge**2
    assert area["weighted"] == pytest.approx(6 * edge**2)
    assert area["crofton"] < 0.95 * area["faces"]  # rays round the edges off


@pytest.mark.parametrize("radius", [10, 11.5, 16])
def test_balls_within_one_percent(radius: float) -> None:
    truth = 4 * np.pi * radius**2
    for seed in range(6):
        labels = ball(radius, seed=seed)
        area = {e: vk.contact_areas(labels, voids(labels), estimator=e).area.sum() for e in ESTIMATORS}
        assert area["weighted"] == pytest.approx(truth, rel=0.01)
        assert area["crofton"] == pytest.approx(truth, rel=0.01)
        assert area["faces"] == pytest.approx(1.5 * truth, rel=0.02)


@pytest.mark.parametrize("spacing", [(2, 1, 1), (1, 2, 2), (1, 0.5, 2), (3, 1, 1)])
def test_balls_of_anisotropic_voxels(spacing: tuple[float, float, float]) -> None:
    radius = 14 * float(np.prod(spacing)) ** (1 / 3)
    for estimator in ("crofton", "weighted"):
        areas = []
        for seed in range(6):
            labels = ball(radius, spacing, seed)
            areas.append(vk.contact_areas(labels, voids(labels), spacing=spacing, estimator=estimator).area.sum())
        assert np.mean(areas) == pytest.approx(4 * np.pi * radius**2, rel=0.015), estimator


@pytest.mark.parametrize("slope", [0.0, 0.2, 0.5, 0.77, 1.0])
def test_plane_between_the_ends_of_the_volume(slope: float) -> None:
    """The surface goes on beyond the ends: a sheet cut from a plane, two voxels high, has the area of the plane."""
    y, x = np.ogrid[:90, :60]
    labels = np.broadcast_to(y < 10.3 + slope * x, (2, 90, 60)).astype(np.int32)
    area = vk.contact_areas(labels, voids(labels)).area.sum()
    assert area == pytest.approx(2 * 60 * np.hypot(1, slope), rel=0.01)


def test_planes_in_all_directions() -> None:
    """Faces of a plane towards a column of another phase, away from the ends of the volume."""
    rng = np.random.default_rng(0)
    ratio: dict[str, list[float]] = {estimator: [] for estimator in ESTIMATORS}
    for seed in range(40):
        n = rng.normal(size=3)
        n /= np.linalg.norm(n)
        axis = abs(n).argmax()
        x = positions(30, seed=seed)
        labels = (np.tensordot(n, x, 1) < 0).astype(np.int32)
        column = (abs(np.delete(x, axis, axis=0)) < 15).all(axis=0).astype(np.uint8)
        for estimator in ESTIMATORS:
            area = vk.contact_areas(labels, column, estimator=estimator).area[0, 1]
            ratio[estimator].append(area / (30**2 / abs(n[axis])))
    assert np.mean(ratio["weighted"]) == pytest.approx(1, abs=0.003)
    assert np.std(ratio["weighted"]) < 0.01
    assert np.mean(ratio["crofton"]) == pytest.approx(1, abs=0.01)
    assert 1.3 < np.mean(ratio["faces"]) < 1.7


@pytest.mark.parametrize("shell", [1, 2, 3])
def test_attached_fraction_of_capped_balls(shell: int) -> None:
    """The class of a face is that of the voxel behind it: a film of one voxel counts like a thick shell."""
    errors: dict[str, list[float]] = {estimator: [] for estimator in ESTIMATORS}
    rng = np.random.default_rng(shell)
    for seed in range(12):
        n = rng.normal(size=3)
        n /= np.linalg.norm(n)
        x = positions(12 + shell, seed=seed)
        distance = np.linalg.norm(x, axis=0)
        cosine = rng.uniform(-0.7, 0.7)
        labels = (distance < 12).astype(np.int32)
        cbd = (distance >= 12) & (distance < 12 + shell) & (np.tensordot(n, x, 1) > cosine * distance)
        for estimator in ESTIMATORS:
            area = vk.contact_areas(labels, cbd.astype(np.uint8), estimator=estimator).area[0]
            errors[estimator].append(100 * (area[1] / area.sum() - (1 - cosine) / 2))
    assert abs(np.mean(errors["weighted"])) < 0.2
    assert np.abs(errors["weighted"]).max() < 1.0
    assert abs(np.mean(errors["faces"])) < 0.5
    assert (np.mean(errors["crofton"]) < -3) == (shell == 1)


@pytest.mark.parametrize("axis", [0, 1, 2, None])
def test_flat_facets(axis: int | None) -> None:
    rng = np.random.default_rng(5)
    area_errors, fraction_errors = [], []
    for seed in range(20):
        n = rng.normal(size=3) if axis is None else np.eye(3)[axis]
        n /= np.linalg.norm(n)
        height = rng.uniform(0, 0.7)
        x = positions(20, seed=seed)
        above = np.tensordot(n, x, 1) >= 20 * height
        labels = ((np.linalg.norm(x, axis=0) < 20) & ~above).astype(np.int32)
        area = vk.contact_areas(labels, above.astype(np.uint8)).area[0]
        flat, rest = 1 - height**2, 2 * (1 + height)
        area_errors.append(area[1] / (np.pi * 400 * flat) - 1)
        fraction_errors.append(area[1] / area.sum() - flat / (flat + rest))
    assert abs(np.mean(area_errors)) < 0.03
    assert abs(np.mean(fraction_errors)) < 0.01


# Another library, and independent counts


@pytest.mark.parametrize("seed", range(3))
def test_pairs_against_cc3d(ops: ModuleType, seed: int) -> None:
    labels, phases = scene(seed)
    c = ops.contact_areas(labels, phases, spacing=(2, 3, 5), estimator="faces")
    # cc3d skips 0, so the background becomes a label; its anisotropy is (x, y, z) for arrays in Fortran order
    other = cc3d.contacts(
        np.asfortranarray((labels + 1).T), connectivity=6, surface_area=True, anisotropy=(5.0, 3.0, 2.0)
    )
    expected = {(a - 1, b - 1): area for (a, b), area in other.items()}
    for (a, b), area in zip(c.pairs.tolist(), c.pair_area, strict=True):
        assert area == pytest.approx(expected.pop((a, b)))
    assert c.area.sum(axis=1) == pytest.approx([expected.pop((0, label)) for label in c.labels.tolist()])
    assert not expected


def shifted_counts(labels: np.ndarray, phases: np.ndarray) -> dict[tuple[int, int, int], int]:
    """Directed faces (axis, label, phase) of labels towards 0, by comparing shifted arrays."""
    counts: dict[tuple[int, int, int], int] = {}
    for axis in range(3):
        for step in (-1, 1):
            a = np.moveaxis(labels, axis, 0)[::step]
            p = np.moveaxis(phases, axis, 0)[::step]
            hits = (a[:-1] > 0) & (a[1:] == 0)
            for label, phase in zip(a[:-1][hits].tolist(), p[1:][hits].tolist(), strict=True):
                counts[axis, label, phase] = counts.get((axis, label, phase), 0) + 1
    return counts


@pytest.mark.parametrize("size", [4, 5])
def test_checkerboards(ops: ModuleType, size: int) -> None:
    """The most faces that a volume can have: between a label and a phase, and between two labels."""
    odd = np.indices((size,) * 3).sum(axis=0) % 2
    inner, outer = size**2 * (size - 1), [(6 * size**2 + size % 2 * 6) // 2, (6 * size**2 - size % 2 * 6) // 2]
    c = ops.contact_areas((1 - odd).astype(np.int32), odd.astype(np.uint8), estimator="faces")
    assert c.faces[:, 0, 1].tolist() == [inner] * 3
    assert c.area.tolist() == [[0, 3 * inner]]
    assert c.border.tolist() == outer[:1]
    c = ops.contact_areas((odd + 1).astype(np.int32), odd.astype(np.uint8), estimator="faces")
    assert c.pairs.tolist() == [[1, 2]]
    assert c.pair_area.tolist() == [3 * inner]
    assert c.border.tolist() == outer


@pytest.mark.parametrize("estimator", ["faces", "weighted"])
def test_wide_slices_are_as_narrow_ones(estimator: str) -> None:
    """Rows of a slice of 90,000 voxels are counted in two parts: with slices and rows exchanged, in one."""
    rng = np.random.default_rng(3)
    labels = np.repeat(np.repeat(rng.integers(0, 4, (3, 100, 43), np.int32), 3, axis=1), 7, axis=2)
    phases, solid = (rng.integers(0, 3, labels.shape, np.uint8) for _ in range(2))
    one = vk.contact_areas(labels, phases, estimator=estimator, solid=solid > 0)
    labels, phases, solid = (np.swapaxes(array, 0, 1).copy() for array in (labels, phases, solid))
    other = vk.contact_areas(labels, phases, estimator=estimator, solid=solid > 0)
    for name in ("labels", "pairs"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("area", "pair_area", "border", "mouth"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-12)
    np.testing.assert_array_equal(one.faces[[1, 0, 2]], other.faces)
    np.testing.assert_array_equal(one.pair_faces[[1, 0, 2]], other.pair_faces)


SHAPES = [(6, 7, 8), (1, 9, 9), (9, 1, 5), (5, 9, 1), (1, 1, 12), (1, 1, 1), (1, 1, 300), (300, 1, 1), (3, 3, 63)]


@pytest.mark.parametrize("shape", [*SHAPES, (3, 3, 64), (3, 4, 65), (3, 3, 130)])
def test_faces_against_shifted_arrays(ops: ModuleType, shape: tuple[int, int, int]) -> None:
    labels, phases = scene(1, shape, edge=1)
    for estimator in ESTIMATORS:
        c = ops.contact_areas(labels, phases, estimator=estimator)
        found = {
            (axis, int(c.labels[row]), phase): int(c.faces[axis, row, phase])
            for axis, row, phase in np.argwhere(c.faces).tolist()
        }
        assert found == shifted_counts(labels, phases)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (1.0, 0.5, 2.0), (7.0, 1.0, 0.3)])
def test_direction_weights_against_scipy(spacing: tuple[float, float, float]) -> None:
    steps = np.array([s for s in np.ndindex(3, 3, 3) if s != (1, 1, 1)]) - 1.0
    steps *= spacing
    lengths = np.linalg.norm(steps, axis=1)
    shares = SphericalVoronoi(steps / lengths[:, None], threshold=1e-9).calculate_areas() / (4 * np.pi)
    factors = contacts.crofton_factors(spacing).ravel()
    assert factors[13] == 0
    np.testing.assert_allclose(np.delete(factors, 13), 4 * shares * np.prod(spacing) / lengths, rtol=1e-9)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("seed", range(4))
def test_cpu_against_reference(estimator: str, seed: int) -> None:
    labels, phases = scene(seed, edge=1 + seed % 3)
    options = {"spacing": (1.0, 0.7, 2.1), "estimator": estimator}
    assert_same(
        vk.contact_areas(labels, phases, **options), reference.contact_areas(labels, phases, **options), rtol=1e-6
    )


@pytest.mark.parametrize("estimator", ["faces", "weighted"])
@pytest.mark.parametrize("n_phases", [2, 9])
@pytest.mark.parametrize("n_x", [60, 64, 121, 190])
def test_rows_of_several_words(n_x: int, n_phases: int, estimator: str) -> None:
    """Rows of 60 or 64 voxels and some, runs short and long, few phase values and many, with cracks and a core."""
    rng = np.random.default_rng(n_x)
    shape = (5, 6, n_x)
    labels = np.where(np.arange(n_x) % 50 < 25, scene(n_x, shape, 1)[0], scene(n_x, shape, 5)[0])
    phases, solid = rng.integers(0, n_phases, shape).astype(np.uint8), rng.random(shape) < 0.8
    options = {"spacing": (1.0, 0.7, 2.1), "estimator": estimator, "solid": solid, "core": (1, 4)}
    expected = reference.contact_areas(labels, phases, **options)
    assert_same(vk.contact_areas(labels, phases, **options), expected, rtol=1e-6)
    assert_same(vk.contact_areas(labels, phases.astype(np.int16), **options), expected, rtol=1e-6)
    spread = labels * np.int64(2**33)
    found = vk.contact_areas(spread, phases, **options)
    assert found.labels.tolist() == (expected.labels * 2**33).tolist()
    np.testing.assert_array_equal(found.faces, expected.faces)


def test_number_of_phases_is_that_of_the_whole_array(ops: ModuleType) -> None:
    """Whatever slice the largest is in, and wherever the kernel itself looks for it."""
    labels = np.ones((9, 3, 70), np.int32)
    for z in (0, 4, 8):
        phases = np.zeros(labels.shape, np.uint8)
        phases[z, 1, 68] = 11
        assert ops.contact_areas(labels, phases).area.shape == (1, 12)
        assert ops.contact_areas(labels, phases, core=(4, 5)).area.shape == (1, 12)


volumes = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.int32, shape, elements=st.integers(0, 3)),
        hnp.arrays(np.uint8, shape, elements=st.integers(0, 2)),
        hnp.arrays(np.bool_, shape),
    )
)


@given(volumes, st.sampled_from(ESTIMATORS), st.data())
def test_cpu_against_reference_on_any_volume(arrays, estimator: str, data: st.DataObject) -> None:
    labels, phases, solid = arrays
    lo = data.draw(st.integers(0, len(labels)))
    hi = data.draw(st.integers(lo, len(labels)))
    options = {"estimator": estimator, "solid": solid, "core": (lo, hi), "spacing": (2, 1, 3)}
    assert_same(
        vk.contact_areas(labels, phases, **options), reference.contact_areas(labels, phases, **options), rtol=1e-6
    )


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_device_has_the_same_bits(ops: ModuleType, estimator: str) -> None:
    """Sides one voxel more and less than those of a tile of 8 x 8 x 32; bodies, noise, as many labels as voxels."""
    if ops is reference:
        pytest.skip("compared above")
    several = np.arange(1, 9 * 8 * 9 + 1).reshape(9, 8, 9)
    scenes = (scene(0, (9, 7, 33), 3), scene(1, (8, 17, 31), 1), scene(2, (1, 9, 70), 2), (several, several % 3))
    for labels, phases in scenes:
        solid = np.random.default_rng(0).random(labels.shape) < 0.7
        for core in ((0, len(labels)), (0, 1), (len(labels) // 2, len(labels))):
            options = {"estimator": estimator, "solid": solid, "core": core, "spacing": (1.0, 0.7, 2.1)}
            assert_identical(ops.contact_areas(labels, phases, **options), vk.contact_areas(labels, phases, **options))


@given(volumes, st.sampled_from(ESTIMATORS), st.data())
def test_every_device_has_the_same_bits_on_any_volume(
    ops: ModuleType, arrays, estimator: str, data: st.DataObject
) -> None:
    if ops in (reference, contacts):
        pytest.skip("compared above")
    labels, phases, solid = arrays
    lo = data.draw(st.integers(0, len(labels)))
    options = {"estimator": estimator, "solid": solid, "core": (lo, len(labels)), "spacing": (2, 1, 3)}
    assert_identical(ops.contact_areas(labels, phases, **options), vk.contact_areas(labels, phases, **options))


# Balances and symmetries


@pytest.mark.parametrize("seed", range(3))
def test_inclusion_and_exclusion(ops: ModuleType, seed: int) -> None:
    """S(A) + S(B) - S(A and B together) is twice the area between A and B; with three bodies for every pair."""
    labels, _ = scene(seed)

    def surface(*members: int) -> float:
        body = np.pad(np.isin(labels, members), 1).astype(np.int32)
        return float(ops.contact_areas(body, voids(body), spacing=(2, 3, 5), estimator="faces").area.sum())

    c = ops.contact_areas(labels, voids(labels), spacing=(2, 3, 5), estimator="faces")
    assert len(c.pairs) == 3
    for (a, b), area in zip(c.pairs.tolist(), c.pair_area, strict=True):
        assert surface(a) + surface(b) - surface(a, b) == pytest.approx(2 * area)
    for row, label in enumerate(c.labels.tolist()):
        partners = c.pair_area[(c.pairs == label).any(axis=1)].sum()
        assert c.area[row].sum() + c.border[row] + partners == pytest.approx(surface(label))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_flips_and_transpositions(ops: ModuleType, estimator: str) -> None:
    labels, phases = scene(2, (6, 7, 8))
    spacing = (2.0, 3.0, 5.0)
    c = ops.contact_areas(labels, phases, spacing=spacing, estimator=estimator)
    for axis in range(3):
        flipped = ops.contact_areas(np.flip(labels, axis), np.flip(phases, axis), spacing=spacing, estimator=estimator)
        assert_same(flipped, c, rtol=1e-8)
    for axes in ((2, 1, 0), (1, 2, 0)):
        turned = ops.contact_areas(
            labels.transpose(axes), phases.transpose(axes), spacing=[spacing[a] for a in axes], estimator=estimator
        )
        np.testing.assert_array_equal(turned.faces, c.faces[list(axes)])
        np.testing.assert_array_equal(turned.pair_faces, c.pair_faces[list(axes)])
        for field in MEASURED:
            np.testing.assert_allclose(getattr(turned, field), getattr(c, field), rtol=1e-7)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_relabelling_permutes_rows(ops: ModuleType, estimator: str) -> None:
    labels, phases = scene(3)
    names = np.array([0, 2**32 - 1, 5, 70_000], np.uint32)  # 1 -> the largest
    c = ops.contact_areas(labels, phases, estimator=estimator)
    renamed = ops.contact_areas(names[labels], phases, estimator=estimator)
    assert renamed.labels.tolist() == [5, 70_000, 2**32 - 1]
    np.testing.assert_allclose(renamed.area, c.area[[1, 2, 0]])
    assert renamed.pairs.tolist() == [[5, 70_000], [5, 2**32 - 1], [70_000, 2**32 - 1]]  # (2, 3), (1, 2), (1, 3)
    np.testing.assert_allclose(renamed.pair_area, c.pair_area[[2, 0, 1]])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_areas_scale_with_the_square_of_the_spacing(ops: ModuleType, estimator: str) -> None:
    labels, phases = scene(4)
    one = ops.contact_areas(labels, phases, spacing=(1, 2, 3), estimator=estimator)
    two = ops.contact_areas(labels, phases, spacing=(2, 4, 6), estimator=estimator)
    for field in MEASURED:
        np.testing.assert_allclose(getattr(two, field), 4 * getattr(one, field), rtol=1e-8)


def test_estimators_differ(ops: ModuleType) -> None:
    labels = ball(5)
    areas = [ops.contact_areas(labels, voids(labels), estimator=e).area.sum() for e in ESTIMATORS]
    assert len({round(a) for a in areas}) == 3
    assert ops.contact_areas(labels, voids(labels)).area.sum() == areas[2]


# Phases, solid, border, core


def test_columns_are_phase_values(ops: ModuleType) -> None:
    labels = np.zeros((3, 3, 3), np.int32)
    labels[1, 1, 1] = 1
    phases = np.arange(27).reshape(3, 3, 3)
    c = ops.contact_areas(labels, phases)
    assert c.area.shape == (1, 27)
    assert np.flatnonzero(c.area[0]).tolist() == [4, 10, 12, 14, 16, 22]
    phases[1, 1, 1] = 300  # beneath a label: read only for the number of columns
    assert ops.contact_areas(labels, phases).area.shape == (1, 301)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_faces_that_are_not_solid_are_the_mouth(ops: ModuleType, estimator: str) -> None:
    labels = np.zeros((8, 8, 8), np.int32)
    labels[2:6, 2:6, 2:6] = 1
    solid = np.ones(labels.shape, bool)
    solid[4, :, 3:] = False  # a crack one voxel wide, open on three sides
    whole = ops.contact_areas(labels, voids(labels), estimator=estimator)
    c = ops.contact_areas(labels, voids(labels), estimator=estimator, solid=solid)
    assert not whole.mouth.any()
    assert c.mouth[0] > 0
    assert c.mouth[0] + c.area[0, 0] == pytest.approx(whole.area[0, 0])
    if estimator != "crofton":
        assert c.mouth[0] == pytest.approx(10)
    assert c.faces.sum() == whole.faces.sum() - 10


def test_pairs_and_border_do_not_ask_for_solid(ops: ModuleType) -> None:
    labels = np.ones((2, 2, 2), np.int32)
    labels[:, :, 1] = 2
    c = ops.contact_areas(labels, voids(labels), solid=np.zeros(labels.shape, bool))
    assert c.pair_area.tolist() == [4]
    assert c.border.tolist() == [12, 12]
    assert not c.mouth.any()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_border_is_whole_faces(ops: ModuleType, estimator: str) -> None:
    labels = np.ones((2, 3, 4), np.int32)
    c = ops.contact_areas(labels, voids(labels), spacing=(2, 3, 5), estimator=estimator)
    assert c.labels.tolist() == [1]
    assert c.border.tolist() == [2 * (12 * 15 + 8 * 10 + 6 * 6)]
    assert c.area.tolist() == [[0]]


@pytest.mark.parametrize("shape", [(0, 3, 3), (3, 0, 3), (3, 3, 0), (0, 0, 0)])
def test_empty_volume(ops: ModuleType, shape: tuple[int, int, int]) -> None:
    c = ops.contact_areas(np.zeros(shape, np.int32), np.zeros(shape, np.uint8))
    assert c.labels.shape == (0,)
    assert c.area.shape == (0, 1)
    assert c.faces.shape == (3, 0, 1)
    assert c.pairs.shape == (0, 2)
    assert c.pair_faces.shape == (3, 0)


def test_no_labels(ops: ModuleType) -> None:
    c = ops.contact_areas(np.zeros((4, 4, 4), np.int32), np.full((4, 4, 4), 2))
    assert c.labels.size == c.border.size == c.mouth.size == c.pair_area.size == 0
    assert c.area.shape == (0, 3)


def slabs(
    contact_areas: Callable, labels: np.ndarray, phases: np.ndarray, cuts: list[int], halo: int, **options
) -> list[vk.ContactAreas]:
    solid = options.pop("solid", None)
    parts = []
    for lo, hi in pairwise(cuts):
        start, stop = max(lo - halo, 0), min(hi + halo, len(labels))
        parts.append(
            contact_areas(
                labels[start:stop],
                phases[start:stop],
                core=(lo - start, hi - start),
                solid=None if solid is None else solid[start:stop],
                **options,
            )
        )
    return parts


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("seed", range(3))
def test_slabs_sum_to_the_volume(ops: ModuleType, estimator: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, phases = scene(seed, (13, 7, 6), edge=2)
    labels[labels == 3] = np.where(np.indices(labels.shape)[0][labels == 3] < 6, 3, 11)  # not in every slab
    solid = rng.random(labels.shape) < 0.8
    options = {"estimator": estimator, "spacing": (2, 1, 1), "solid": solid}
    whole = ops.contact_areas(labels, phases, **options)
    cuts = [0, *sorted(rng.choice(np.arange(1, 13), 4, replace=False).tolist()), 13]
    parts = slabs(ops.contact_areas, labels, phases, cuts, vk.CONTACT_HALO, **options)
    assert_same(ops.merge_contacts(parts), whole, rtol=1e-12)
    assert_same(ops.merge_contacts(parts[::-1]), whole, rtol=1e-12)


def test_slabs_need_their_halo() -> None:
    labels = ball(8)
    whole = vk.contact_areas(labels, voids(labels))
    cuts = [0, 7, 12, len(labels)]
    short = slabs(vk.contact_areas, labels, voids(labels), cuts, vk.CONTACT_HALO - 1)
    assert vk.merge_contacts(short).area.sum() != pytest.approx(whole.area.sum(), rel=1e-6)


def test_core_counts_only_its_slices(ops: ModuleType) -> None:
    labels = np.ones((6, 2, 2), np.int32)
    labels[3:] = 2
    c = ops.contact_areas(labels, voids(labels), core=(0, 3))
    assert c.border.tolist() == [4 + 24, 0]  # the end at z = 0 and three slices; not the end at z = 6
    assert c.pair_faces.tolist() == [[4], [0], [0]]  # belongs to the lower voxel
    assert c.pair_area.tolist() == [2]  # half to either side
    assert ops.contact_areas(labels, voids(labels), core=(3, 6)).pair_faces.tolist() == [[0], [0], [0]]
    assert ops.contact_areas(labels, voids(labels), core=(2, 2)).labels.size == 0


def test_merge_pads_phases(ops: ModuleType) -> None:
    labels = np.zeros((3, 3, 3), np.int32)
    labels[1, 1, 1] = 1
    parts = [ops.contact_areas(labels, np.full(labels.shape, p)) for p in (0, 3)]
    c = ops.merge_contacts(part for part in parts)
    assert c.area.tolist() == [[6, 0, 0, 6]]
    assert c.faces.sum() == 12


# Types, layouts, threads, sizes


@pytest.mark.parametrize("dtype", LABEL_TYPES)
def test_label_types(ops: ModuleType, dtype: type) -> None:
    labels, phases = scene(0, (5, 5, 5))
    labels = (labels > 0).astype(dtype) if dtype is np.bool_ else labels.astype(dtype)
    expected = ops.contact_areas(labels.astype(np.int64), phases.astype(np.int64))
    assert_identical(ops.contact_areas(labels, phases), expected)
    assert_identical(ops.contact_areas(labels.astype(labels.dtype.newbyteorder(">")), phases.astype(">u2")), expected)


def test_any_strides_and_no_writes(ops: ModuleType) -> None:
    labels, phases = scene(1, (6, 6, 6))
    expected = ops.contact_areas(labels, phases, solid=phases < 2)
    wide_labels, wide_phases = np.zeros((6, 12, 6), np.int32), np.zeros((6, 12, 6), np.uint8)
    wide_labels[:, ::2], wide_phases[:, ::2] = labels, phases
    views = wide_labels[:, ::2], np.asfortranarray(wide_phases)[:, ::2]
    for array in (wide_labels, wide_phases, labels, phases):
        array.setflags(write=False)
    assert_identical(ops.contact_areas(*views, solid=views[1] < 2), expected)
    assert_identical(ops.contact_areas(labels, phases, solid=(phases < 2).astype(np.int8)), expected)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_threads_do_not_change_a_bit(estimator: str, threads: int) -> None:
    labels, phases = scene(7, (40, 20, 20), edge=3)
    results = []
    for n in range(1, threads + 1):
        numba.set_num_threads(n)
        results.append(vk.contact_areas(labels, phases, estimator=estimator, spacing=(1, 0.7, 2.1)))
    for other in results[1:]:
        assert_identical(other, results[0])


def test_blocks_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for threads, on a machine with a single core: the blocks are what threads share."""
    labels, phases = scene(7, (40, 20, 20), edge=3)
    expected = vk.contact_areas(labels, phases, spacing=(1, 0.7, 2.1))
    for n in (1, 3, 7):
        monkeypatch.setattr(contacts.numba, "get_num_threads", lambda n=n: n)
        assert_identical(vk.contact_areas(labels, phases, spacing=(1, 0.7, 2.1)), expected)


@pytest.mark.parametrize("estimator", ["faces", "weighted"])
def test_more_pairs_than_are_kept_beside_the_table(estimator: str) -> None:
    """Thousands of pairs that come and go, and then few: every face is counted once, beside the table or in it."""
    rng = np.random.default_rng(5)
    blocks = rng.integers(0, 120, (66, 3, 33))
    for axis in range(3):
        blocks = np.repeat(blocks, 4, axis)
    labels = np.concatenate([rng.integers(0, 120, (6, 11, 130)), blocks[:, :11, :130]]).astype(np.int32)
    found = vk.contact_areas(labels, voids(labels), estimator=estimator)
    for axis in range(3):
        one, two = np.delete(labels, -1, axis), np.delete(labels, 0, axis)
        low, high = np.minimum(one, two).ravel(), np.maximum(one, two).ravel()
        both = (low > 0) & (low != high)
        pairs, count = np.unique(np.stack([low[both], high[both]], axis=1), axis=0, return_counts=True)
        there = found.pair_faces[axis] > 0
        np.testing.assert_array_equal(found.pairs[there], pairs)
        np.testing.assert_array_equal(found.pair_faces[axis, there], count)
    assert len(found.pairs) > 4000


def test_tables_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.random.default_rng(0).permutation(np.arange(1, 1001)).reshape(10, 10, 10)
    expected = vk.contact_areas(labels, voids(labels))
    assert expected.labels.size == 1000
    assert len(expected.pairs) == 3 * 9 * 100
    monkeypatch.setattr(contacts, "_TABLE_ROWS", (2, 2))
    assert_identical(vk.contact_areas(labels, voids(labels)), expected)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_sparse_labels_are_cheap(ops: ModuleType, estimator: str) -> None:
    """Memory follows the labels present: a table over all values up to 2**62 could not be allocated."""
    labels = np.zeros((4, 4, 4), np.int64)
    labels[1, 1, 1], labels[1, 1, 2], labels[3, 3, 3] = 2**62, 2**32 - 1, 2**63 - 1
    c = ops.contact_areas(labels, voids(labels), estimator=estimator)
    assert c.labels.tolist() == [2**32 - 1, 2**62, 2**63 - 1]
    assert c.pairs.tolist() == [[2**32 - 1, 2**62]]


# Messages

ONE = np.ones((2, 2, 2), np.int32)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((ONE[0], ONE), {}, ValueError, r"labels: must be \(Z, Y, X\)"),
        ((ONE.astype(float), ONE), {}, TypeError, "labels: must be of an integer type"),
        ((-ONE, ONE), {}, ValueError, "labels: must not hold negative values"),
        ((np.full((1, 1, 1), 2**63, np.uint64), ONE[:1, :1, :1]), {}, ValueError, r"labels: must be below 2\*\*63"),
        ((ONE, ONE[:1]), {}, ValueError, "phases: must have the shape of labels"),
        ((ONE, ONE * 1.5), {}, TypeError, "phases: must be of an integer type"),
        ((ONE, ONE * 65536), {}, ValueError, "phases: must be at most 65535; got a maximum of 65536"),
        ((ONE, ONE), {"spacing": (1, 0, 1)}, ValueError, "spacing: must be three positive"),
        ((ONE, ONE), {"estimator": "mesh"}, ValueError, "estimator: must be one of 'faces', 'crofton', 'weighted'"),
        ((ONE, ONE), {"solid": ONE * 2}, TypeError, "solid: must be bool"),
        ((ONE, ONE), {"solid": ONE[:1] > 0}, ValueError, "solid: must have the shape of labels"),
        ((ONE, ONE), {"core": (0, 3)}, ValueError, r"core: must be slices \(lo, hi\) with 0 <= lo <= hi <= 2"),
        ((ONE, ONE), {"core": (-1, 2)}, ValueError, "core: must be slices"),
        ((ONE, ONE), {"core": (2, 1)}, ValueError, "core: must be slices"),
        ((ONE, ONE), {"core": (0, 1, 2)}, ValueError, r"core: must be slices .*; got \(0, 1, 2\)"),
        ((ONE, ONE), {"core": (0.5, 2)}, ValueError, r"core: must be slices .*; got \(0.5, 2\)"),
    ],
)
def test_messages(ops: ModuleType, arguments: tuple, options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.contact_areas(*arguments, **options)


def test_merge_messages(ops: ModuleType) -> None:
    with pytest.raises(ValueError, match="parts: must hold at least one result of contact_areas; got none"):
        ops.merge_contacts([])
    with pytest.raises(TypeError, match=r"parts: must hold results of contact_areas; got 3 among them"):
        ops.merge_contacts([3])
    parts = [ops.contact_areas(ONE, ONE, spacing=(1, 1, s)) for s in (1, 2)]
    with pytest.raises(ValueError, match="parts: must all have one spacing"):
        ops.merge_contacts(parts)
