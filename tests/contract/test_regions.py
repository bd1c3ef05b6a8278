"""Contract of `region_properties` and `merge_regions`, the same for every backend."""

from __future__ import annotations

import warnings
from itertools import pairwise
from types import ModuleType

import cc3d
import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from tests.contract.backends import backend_fixture

ops = backend_fixture("regions")

GEOMETRY = ("labels", "count", "bbox", "centroid", "inertia", "moments")
GREY = ("mean", "std", "min", "max")
LABEL_TYPES = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64)
IMAGE_TYPES = (np.uint8, np.int16, np.uint16, np.int32, np.float16, np.float32, np.float64)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Volumes as small as these are summed in parts, too."""
    from voxkernels import regions

    monkeypatch.setattr(regions, "CHUNK_VOXELS", 8)


def random_labels(seed: int = 0, shape: tuple[int, int, int] = (7, 9, 11), n: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, n + 1, shape).astype(np.int32)


def blob_labels(shape: tuple[int, int, int] = (12, 13, 14), edge: int = 4) -> np.ndarray:
    z, y, x = (np.arange(n) // edge for n in shape)
    return ((z[:, None, None] * 7 + y[:, None] * 3 + x) % 6).astype(np.int32)


def assert_same(one, other, *, fields=GEOMETRY + GREY, **tolerance) -> None:
    for field in fields:
        a, b = getattr(one, field), getattr(other, field)
        assert (a is None) == (b is None), field
        if a is not None:
            np.testing.assert_allclose(a, b, err_msg=field, **tolerance)


def assert_identical(one, other, fields=GEOMETRY + GREY) -> None:
    assert_same(one, other, fields=fields, rtol=0, atol=0)


# Closed forms


def test_one_voxel(ops: ModuleType) -> None:
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[1, 2, 3] = 9
    r = ops.region_properties(labels, np.full(labels.shape, 42.5), spacing=(2, 3, 5))
    assert r.labels.tolist() == [9]
    assert r.count.tolist() == [1]
    assert r.bbox.tolist() == [[1, 2, 3, 2, 3, 4]]
    assert r.centroid.tolist() == [[2, 6, 15]]
    assert not r.inertia.any()
    assert [float(getattr(r, f)[0]) for f in GREY] == [42.5, 0, 42.5, 42.5]
    assert r.spacing == (2, 3, 5)


def test_box_has_the_variance_of_a_row_of_points(ops: ModuleType) -> None:
    labels = np.zeros((9, 12, 14), np.int32)
    labels[2:6, 3:10, 1:13] = 1
    r = ops.region_properties(labels, spacing=(0.5, 1, 2))
    sides = np.array([4, 7, 12])
    np.testing.assert_allclose(r.inertia[0], np.diag((sides**2 - 1) / 12 * np.array([0.5, 1, 2]) ** 2), rtol=1e-15)
    np.testing.assert_allclose(r.centroid[0], [3.5 * 0.5, 6, 6.5 * 2], rtol=1e-15)


def test_diagonal_line_is_fully_correlated(ops: ModuleType) -> None:
    labels = np.zeros((6, 6, 6), np.int32)
    labels[range(6), range(6), range(6)] = 3
    r = ops.region_properties(labels)
    np.testing.assert_allclose(r.inertia[0], np.full((3, 3), 35 / 12), rtol=1e-15)


# Other libraries and brute force


@pytest.mark.parametrize("labels", [random_labels(), blob_labels()], ids=["noise", "blobs"])
def test_against_cc3d_and_scipy(ops: ModuleType, labels: np.ndarray) -> None:
    image = np.random.default_rng(1).normal(100, 5, labels.shape).astype(np.float32)
    r = ops.region_properties(labels, image)
    peer = cc3d.statistics(labels.astype(np.uint32))
    np.testing.assert_array_equal(r.count, peer["voxel_counts"][r.labels])
    np.testing.assert_allclose(r.centroid, peer["centroids"][r.labels], rtol=1e-6)
    for label, box in zip(r.labels, r.bbox, strict=True):
        slices = ndimage.find_objects(labels)[label - 1]
        assert box.tolist() == [s.start for s in slices] + [s.stop for s in slices]
    wide = image.astype(np.float64)
    np.testing.assert_allclose(r.mean, ndimage.mean(wide, labels, r.labels), rtol=1e-13)
    np.testing.assert_allclose(r.std, ndimage.standard_deviation(wide, labels, r.labels), rtol=1e-12)
    np.testing.assert_array_equal(r.min, ndimage.minimum(image, labels, r.labels))
    np.testing.assert_array_equal(r.max, ndimage.maximum(image, labels, r.labels))


def test_inertia_is_numpys_covariance(ops: ModuleType) -> None:
    labels = random_labels(3)
    r = ops.region_properties(labels, spacing=(0.3, 0.7, 1.9))
    for label, inertia in zip(r.labels, r.inertia, strict=True):
        positions = np.argwhere(labels == label) * (0.3, 0.7, 1.9)
        np.testing.assert_allclose(inertia, np.cov(positions.T, ddof=0), rtol=1e-12, atol=1e-13)


@given(
    labels=hnp.arrays(
        st.sampled_from(LABEL_TYPES), hnp.array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.integers(0, 4)
    ),
    image_type=st.sampled_from(IMAGE_TYPES),
    origin=st.tuples(*[st.integers(-1000, 1000)] * 3),
    spacing=st.tuples(*[st.floats(0.01, 100)] * 3),
    seed=st.integers(0, 99),
)
def test_backends_agree(ops: ModuleType, labels, image_type, origin, spacing, seed) -> None:
    from voxkernels.regions import reference

    image = np.random.default_rng(seed).integers(0, 100, labels.shape).astype(image_type)
    one = ops.region_properties(labels, image, spacing=spacing, origin=origin)
    other = reference.region_properties(labels, image, spacing=spacing, origin=origin)
    assert_identical(one, other, ("labels", "count", "bbox", "moments", "min", "max"))
    assert_same(one, other, fields=("centroid", "mean"), rtol=1e-12, atol=1e-9)
    assert_same(one, other, fields=("inertia", "std"), rtol=1e-11, atol=1e-9)
    if one.labels.size:
        assert_same(ops.merge_regions([one, one]), reference.merge_regions([other, other]), rtol=1e-11, atol=1e-9)


# What must not matter


def test_far_origin_changes_nothing_but_the_place(ops: ModuleType) -> None:
    labels = blob_labels()
    near = ops.region_properties(labels)
    far = ops.region_properties(labels, origin=(10**8, -(10**8), 10**8))
    assert_identical(near, far, ("labels", "count", "inertia", "moments"))
    np.testing.assert_array_equal(far.bbox - near.bbox, np.tile([10**8, -(10**8), 10**8], (near.labels.size, 2)))
    np.testing.assert_allclose(far.centroid - near.centroid, [[1e8, -1e8, 1e8]] * near.labels.size, rtol=1e-15)


def test_grey_offset_changes_nothing_but_mean_and_extremes(ops: ModuleType) -> None:
    labels = blob_labels()
    image = np.random.default_rng(2).integers(0, 64, labels.shape) / 64  # exact beside 1e8
    near = ops.region_properties(labels, image)
    far = ops.region_properties(labels, image + 1e8)
    np.testing.assert_allclose(far.std, near.std, rtol=1e-12)
    np.testing.assert_allclose(far.mean - 1e8, near.mean, atol=2e-8)
    np.testing.assert_array_equal(far.max - 1e8, near.max)


def test_constant_grey_has_no_deviation(ops: ModuleType) -> None:
    r = ops.region_properties(blob_labels(), np.full((12, 13, 14), 0.1))
    assert not r.std.any()
    np.testing.assert_array_equal(r.mean, 0.1)


def test_flips_and_transposes(ops: ModuleType) -> None:
    labels = random_labels(5)
    image = np.random.default_rng(6).random(labels.shape)
    plain = ops.region_properties(labels, image, spacing=(1, 2, 3))
    turned = ops.region_properties(labels.transpose(2, 0, 1), image.transpose(2, 0, 1), spacing=(3, 1, 2))
    np.testing.assert_array_equal(turned.count, plain.count)
    np.testing.assert_allclose(turned.centroid, plain.centroid[:, [2, 0, 1]], rtol=1e-14)
    np.testing.assert_allclose(turned.inertia, plain.inertia[:, [2, 0, 1]][:, :, [2, 0, 1]], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(turned.std, plain.std, rtol=1e-13)
    flipped = ops.region_properties(labels[:, ::-1], image[:, ::-1], spacing=(1, 2, 3))
    np.testing.assert_allclose(flipped.centroid[:, 1], (labels.shape[1] - 1) * 2 - plain.centroid[:, 1], rtol=1e-13)
    np.testing.assert_allclose(flipped.inertia[:, 0, 1], -plain.inertia[:, 0, 1], rtol=1e-12, atol=1e-13)


def test_double_spacing(ops: ModuleType) -> None:
    labels = blob_labels()
    one = ops.region_properties(labels, spacing=(0.1, 0.2, 0.3))
    two = ops.region_properties(labels, spacing=(0.2, 0.4, 0.6))
    np.testing.assert_array_equal(two.centroid, 2 * one.centroid)
    np.testing.assert_array_equal(two.inertia, 4 * one.inertia)


def test_relabelling_permutes_the_rows(ops: ModuleType) -> None:
    labels = blob_labels()
    names = np.array([0, 50, 3, 17, 2**31 + 5, 1], np.int64)
    plain, renamed = ops.region_properties(labels), ops.region_properties(names[labels])
    order = np.argsort(names[plain.labels])
    np.testing.assert_array_equal(renamed.labels, np.sort(names[1:]))
    for field in GEOMETRY[1:]:
        np.testing.assert_array_equal(getattr(renamed, field), getattr(plain, field)[order])


@pytest.mark.parametrize("dtype", LABEL_TYPES)
def test_label_types_and_layouts(ops: ModuleType, dtype: type) -> None:
    labels = blob_labels()
    expected = ops.region_properties(labels)
    assert_identical(ops.region_properties(labels.astype(dtype)), expected)
    assert_identical(ops.region_properties(np.asfortranarray(labels.astype(dtype))), expected)
    assert_identical(ops.region_properties(labels.astype(np.dtype(dtype).newbyteorder(">"))), expected)


@pytest.mark.parametrize("dtype", IMAGE_TYPES)
def test_image_types(ops: ModuleType, dtype: type) -> None:
    labels = blob_labels()
    image = np.random.default_rng(0).integers(0, 127, labels.shape)
    expected = ops.region_properties(labels, image.astype(np.float64))
    assert_same(ops.region_properties(labels, image.astype(dtype)), expected, rtol=1e-14)


def test_bool_labels_are_one_region(ops: ModuleType) -> None:
    assert ops.region_properties(np.ones((2, 3, 4), bool)).count.tolist() == [24]


def test_labels_up_to_2_to_the_32_take_little_memory(ops: ModuleType) -> None:
    labels = np.zeros((2, 3, 4), np.uint32)
    labels[0, 0, :2], labels[1, 2, 1:] = 2**32 - 1, 2**31
    r = ops.region_properties(labels)
    assert r.labels.tolist() == [2**31, 2**32 - 1]
    assert r.count.tolist() == [3, 2]


def test_every_voxel_its_own_sparse_label(ops: ModuleType) -> None:
    labels = np.random.default_rng(0).permutation(2**20)[: 18**3].reshape(18, 18, 18) * 1000 + 1
    r = ops.region_properties(labels)
    np.testing.assert_array_equal(r.labels, np.sort(labels, axis=None))
    assert (r.count == 1).all()
    assert not r.inertia.any()


@pytest.mark.parametrize("shape", [(0, 3, 3), (3, 3, 0), (1, 1, 1), (1, 1, 999), (1, 999, 1), (999, 1, 1)])
def test_thin_and_empty_shapes(ops: ModuleType, shape: tuple[int, int, int]) -> None:
    r = ops.region_properties(np.ones(shape, np.int32), np.ones(shape, np.uint8))
    assert r.count.tolist() == ([int(np.prod(shape))] if np.prod(shape) else [])
    assert r.inertia.shape == (r.labels.size, 3, 3)
    assert r.mean.tolist() == [1.0] * r.labels.size
    np.testing.assert_allclose(r.inertia.trace(axis1=1, axis2=2), [(max(shape) ** 2 - 1) / 12] * r.labels.size)


@pytest.mark.parametrize("n_x", [63, 64, 65, 130, 200])
def test_noise_beside_long_runs(ops: ModuleType, n_x: int) -> None:
    """Runs are found 64 voxels at a time, and noise is added voxel by voxel: neither may show."""
    labels = random_labels(3, (3, 4, n_x), 40)
    labels[0, :, : n_x // 2] = 5
    labels[1, :, n_x // 3 :] = 7
    labels[2, 1:3] = 0
    r = ops.region_properties(labels)
    z, y, x = np.indices(labels.shape)
    for row, label in enumerate(np.unique(labels[labels > 0])):
        here = labels == label
        place = np.stack([z[here], y[here], x[here]])
        assert r.labels[row] == label
        assert r.count[row] == place.shape[1]
        np.testing.assert_array_equal(r.bbox[row], [*place.min(axis=1), *(place.max(axis=1) + 1)])
        np.testing.assert_allclose(r.centroid[row], place.mean(axis=1))
        np.testing.assert_allclose(r.inertia[row], np.cov(place, bias=True), atol=1e-9)


@pytest.mark.parametrize("image_type", [np.uint8, np.uint16, np.float32, np.float64])
def test_grey_values_of_noise_beside_long_runs(ops: ModuleType, image_type: type) -> None:
    """Values of either sign, the first of a label the largest, the smallest or 0, added voxel by voxel or by runs."""
    labels = random_labels(3, (3, 4, 200), 40)
    labels[0, :, :70] = 5
    labels[1, :, 66:] = 7
    image = np.random.default_rng(1).integers(0, 200, labels.shape).astype(image_type)
    if np.dtype(image_type).kind == "f":
        image -= 100
    for label, first in ((1, image.max()), (2, image.min()), (3, 0)):
        image.ravel()[np.flatnonzero(labels == label)[0]] = first
    r = ops.region_properties(labels, image)
    for row, label in enumerate(r.labels):
        values = image[labels == label].astype(np.float64)
        assert (r.min[row], r.max[row]) == (values.min(), values.max())
        np.testing.assert_allclose((r.mean[row], r.std[row]), (values.mean(), values.std()), rtol=1e-12)


def test_nan_in_noise_marks_its_label_only(ops: ModuleType) -> None:
    labels = random_labels(4, (2, 3, 130), 40)
    image = np.random.default_rng(2).random(labels.shape)
    first, later = np.flatnonzero(labels == 3)[0], np.flatnonzero(labels == 8)[1]
    image.ravel()[[first, later]] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        r = ops.region_properties(labels, image)
    for field in (r.mean, r.std):
        np.testing.assert_array_equal(np.isnan(field), np.isin(r.labels, (3, 8)))


@pytest.mark.parametrize("size", [4, 5])
def test_checkerboard(ops: ModuleType, size: int) -> None:
    """A run for each voxel."""
    labels = np.indices((size,) * 3).sum(axis=0) % 2 + 1
    r = ops.region_properties(labels.astype(np.int32))
    assert r.count.tolist() == [(size**3 + 1) // 2, size**3 // 2]
    np.testing.assert_array_equal(r.bbox, [[0, 0, 0, size, size, size]] * 2)
    np.testing.assert_allclose(r.centroid, [[(size - 1) / 2] * 3] * 2)


def test_only_background(ops: ModuleType) -> None:
    r = ops.region_properties(np.zeros((3, 3, 3), np.int32))
    assert r.labels.shape == (0,)
    assert r.bbox.shape == (0, 6)
    assert r.centroid.shape == (0, 3)


def test_no_image_no_grey_values(ops: ModuleType) -> None:
    r = ops.region_properties(blob_labels())
    assert [getattr(r, field) for field in GREY] == [None] * 4


def test_nan_marks_its_label_only(ops: ModuleType) -> None:
    labels = blob_labels()
    image = np.ones(labels.shape)
    image[tuple(np.argwhere(labels == 2)[3])] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        r = ops.region_properties(labels, image)
    np.testing.assert_array_equal(np.isnan(r.mean), r.labels == 2)
    np.testing.assert_array_equal(np.isnan(r.std), r.labels == 2)


def test_inputs_are_not_written(ops: ModuleType) -> None:
    labels, image = blob_labels(), np.ones((12, 13, 14), np.float32)
    labels.flags.writeable = image.flags.writeable = False
    ops.region_properties(labels, image)


# Merging


@pytest.mark.parametrize("cuts", [(6,), (1, 2, 11), (3, 3, 9)])
def test_slabs_merge_to_the_whole(ops: ModuleType, cuts: tuple[int, ...]) -> None:
    labels = random_labels(8, (12, 7, 6), n=40)
    image = np.random.default_rng(9).normal(1e6, 1, labels.shape)
    whole = ops.region_properties(labels, image, spacing=(0.3, 0.1, 0.7), origin=(5, 6, 7))
    bounds = [0, *cuts, 12]
    parts = [
        ops.region_properties(labels[a:b], image[a:b], spacing=(0.3, 0.1, 0.7), origin=(5 + a, 6, 7))
        for a, b in pairwise(bounds)
    ]
    merged = ops.merge_regions(parts)
    assert_identical(merged, whole, (*GEOMETRY, "min", "max"))
    assert_same(merged, whole, fields=("mean", "std"), rtol=1e-9)
    assert_identical(ops.merge_regions(parts[::-1]), whole, GEOMETRY)
    assert_identical(ops.merge_regions([merged]), merged, GEOMETRY)


def test_merge_far_from_the_origin(ops: ModuleType) -> None:
    labels = blob_labels()
    parts = [ops.region_properties(labels[a : a + 6], origin=(10**8 + a, 0, 10**8)) for a in (0, 6)]
    assert_identical(ops.merge_regions(parts), ops.region_properties(labels, origin=(10**8, 0, 10**8)), GEOMETRY)


def test_merge_of_empty_parts(ops: ModuleType) -> None:
    empty = ops.region_properties(np.zeros((2, 2, 2), np.int32))
    assert ops.merge_regions([empty, empty]).labels.shape == (0,)


# Threads


def test_same_bits_on_any_number_of_threads(threads: int) -> None:
    import voxkernels as vk

    labels = np.kron(random_labels(1, (10, 16, 17), 30), np.ones((4, 4, 4), np.int32))
    labels[20:] = random_labels(1, (20, 64, 68), 300)
    image = np.random.default_rng(1).normal(0, 1, labels.shape).astype(np.float32)
    results = []
    for n in range(1, threads + 1):
        numba.set_num_threads(n)
        results.append(vk.region_properties(labels, image))
    for other in results[1:]:
        assert_identical(results[0], other)


def test_chunks_and_hash_table_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from voxkernels import regions

    labels = random_labels(2, (9, 9, 9), 50)
    image = labels.astype(np.float64) ** 2
    plain = regions.region_properties(labels, image)
    monkeypatch.setattr(regions, "CHUNKS", 1)
    assert_same(regions.region_properties(labels, image), plain, rtol=1e-14)
    monkeypatch.setattr(regions, "CHUNK_BYTES", 0)
    assert_same(regions.region_properties(labels, image), plain, rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("grey", [False, True])
def test_labels_beyond_the_sample_are_summed_again(monkeypatch: pytest.MonkeyPatch, dtype: type, grey: bool) -> None:
    """Noise, runs, and one label far above all others: the first rows are too few, those of the second time are not."""
    from voxkernels import regions

    labels = random_labels(4, (5, 6, 130), 300).astype(dtype)
    labels[:, 2:4], labels[2, 5, 77] = 9, 1000
    image = np.arange(labels.size, dtype=np.float32).reshape(labels.shape) if grey else None
    plain = regions.region_properties(labels, image)
    assert plain.labels[-1] == 1000
    rows = []
    real = regions.cpu.measure
    n_row, line = regions.cpu_tables.N_ROW, regions.cpu_tables.LINE
    monkeypatch.setattr(regions.cpu, "measure", lambda *a: rows.append((a[6].shape[1] - line) // n_row) or real(*a))
    monkeypatch.setattr(regions, "SAMPLE", 1)
    assert_identical(regions.region_properties(labels, image), plain)
    assert rows[0] < 1000
    assert rows[1:] == [1001]
    labels[3, 0, 100] = -5
    with pytest.raises(ValueError, match=r"labels: must not hold negative values; got a minimum of -5"):
        regions.region_properties(labels, image)


# Messages


@pytest.mark.parametrize("edge", [1, 8, 128, 301, 512])
def test_the_sample_is_in_step_with_no_row_and_no_slice(edge: int) -> None:
    """Volumes repeat themselves by their sides: a sample that does so too misses labels, and all is summed twice."""
    from voxkernels import regions

    n = min(regions.SAMPLE, -(-(edge**3) // regions.cpu_rows.SAMPLE_STEP))
    places = np.array([regions.cpu_rows.sample_place(k, edge**3) for k in range(n)])
    assert len(np.unique(places)) == n
    assert 0 <= places.min() <= places.max() < edge**3
    if edge > 100:
        assert [len(np.unique(axis)) for axis in np.unravel_index(places, (edge,) * 3)] == [edge] * 3


def test_messages(ops: ModuleType) -> None:
    labels = np.ones((2, 2, 2), np.int32)
    with pytest.raises(TypeError, match=r"labels: must be of an integer type; got .*float64"):
        ops.region_properties(labels * 1.0)
    with pytest.raises(ValueError, match=r"labels: must not hold negative values; got a minimum of -1"):
        ops.region_properties(-labels)
    with pytest.raises(ValueError, match=r"labels: must be \(Z, Y, X\); got .*array\[None\]"):
        ops.region_properties(labels[0])
    with pytest.raises(ValueError, match=r"labels: must be below 2\*\*63; got 9223372036854775808"):
        ops.region_properties(labels.astype(np.uint64) * np.uint64(2**63))
    with pytest.raises(ValueError, match=r"image: must have the shape of labels, \(2, 2, 2\); got .*\(2, 2, 1\)"):
        ops.region_properties(labels, labels[:, :, :1])
    with pytest.raises(TypeError, match=r"image: must be of an integer or floating-point type; got .*complex"):
        ops.region_properties(labels, labels * 1j)
    with pytest.raises(ValueError, match=r"spacing: must be three positive, finite numbers"):
        ops.region_properties(labels, spacing=(1, 0, 1))
    with pytest.raises(ValueError, match=r"origin: must be three integers \(z, y, x\); got \(0, 0\.5, 0\)"):
        ops.region_properties(labels, origin=(0, 0.5, 0))


def test_merge_messages(ops: ModuleType) -> None:
    labels = np.ones((2, 2, 2), np.int32)
    part = ops.region_properties(labels)
    with pytest.raises(ValueError, match=r"parts: must hold at least one result of region_properties; got none"):
        ops.merge_regions([])
    with pytest.raises(TypeError, match=r"parts: must hold results of region_properties; got 3 among them"):
        ops.merge_regions([part, 3])
    with pytest.raises(ValueError, match=r"parts: must have one spacing; got \(1\.0, 1\.0, 1\.0\) and \(2\.0, 2"):
        ops.merge_regions([part, ops.region_properties(labels, spacing=(2, 2, 2))])
    with pytest.raises(ValueError, match=r"parts: must all have grey statistics or none; got both"):
        ops.merge_regions([part, ops.region_properties(labels, labels)])
