"""Contract of `overlap_counts`, `overlap_counts_stack` and `overlap_cost`, the same for every backend."""

from __future__ import annotations

import copy
import itertools
import pickle
from dataclasses import fields
from types import ModuleType

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse
from skimage.metrics import contingency_table
from tests.contract.backends import backend_fixture

import voxkernels as vk

ops = backend_fixture("overlaps")

LABEL_TYPES = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64)


def two_images(shape: tuple[int, ...] = (21, 34), n: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Label images of rectangular patches, a third background, the second one a shifted version of the first."""
    generator = np.random.default_rng(seed)
    coarse = np.kron(generator.integers(0, n + n // 2, [-(-s // 4) for s in shape]), np.ones([4] * len(shape), int))
    first = np.where(coarse > n, 0, coarse)[tuple(slice(s) for s in shape)]
    return first.astype(np.int32), np.roll(first, 2, axis=-1).astype(np.int32)


def as_table(overlap) -> dict[tuple[int, int], int]:
    pairs = zip(overlap.ids_a.tolist(), overlap.ids_b.tolist(), overlap.count.tolist(), strict=True)
    return {(a, b): n for a, b, n in pairs}


def assert_identical(one, other) -> None:
    for field in fields(one):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), err_msg=field.name)
        assert getattr(one, field.name).dtype == np.int64


# Drawn scenes


def test_drawn_scene(ops: ModuleType) -> None:
    a = np.array([[1, 1, 0, 2], [1, 0, 0, 2], [3, 3, 3, 0]])
    b = np.array([[7, 7, 7, 0], [7, 7, 0, 9], [9, 9, 0, 0]])
    ov = ops.overlap_counts(a, b)
    assert as_table(ov) == {(1, 7): 3, (2, 9): 1, (3, 9): 2}
    assert ov.labels_a.tolist() == [1, 2, 3]
    assert ov.size_a.tolist() == [3, 2, 3]
    assert ov.labels_b.tolist() == [7, 9]
    assert ov.size_b.tolist() == [5, 3]
    iou = ops.overlap_cost(a, b)
    np.testing.assert_allclose(iou, 1 - np.array([[3 / 5, 0], [0, 1 / 4], [0, 2 / 4]]), rtol=1e-15)
    containment = ops.overlap_cost(a, b, measure="containment")
    np.testing.assert_allclose(containment, 1 - np.array([[3 / 3, 0], [0, 1 / 2], [0, 2 / 3]]), rtol=1e-15)


def test_cost_of_counts_is_the_cost_of_the_images(ops: ModuleType) -> None:
    a, b = two_images()
    for measure in ("iou", "containment"):
        by_counts = ops.overlap_cost(ops.overlap_counts(a, b), measure=measure)
        np.testing.assert_array_equal(by_counts, ops.overlap_cost(a, b, measure=measure))


def test_image_with_itself(ops: ModuleType) -> None:
    a, _ = two_images()
    ov = ops.overlap_counts(a, a)
    np.testing.assert_array_equal(ov.ids_a, ov.ids_b)
    np.testing.assert_array_equal(ov.count, ov.size_a)
    np.testing.assert_array_equal(ops.overlap_cost(a, a), 1 - np.eye(ov.labels_a.size))


# Other libraries


@pytest.mark.parametrize("shape", [(50, 60), (9, 10, 11)])
def test_against_numpy_scipy_and_skimage(ops: ModuleType, shape: tuple[int, ...]) -> None:
    a, b = two_images(shape, n=12)
    ov = ops.overlap_counts(a, b)
    dense = np.zeros((13, 13), int)
    np.add.at(dense, (a, b), 1)
    peer = sparse.coo_array((np.ones(a.size), (a.ravel(), b.ravel())), shape=(13, 13)).toarray()
    table = contingency_table(a, b).toarray()
    ours = np.zeros((13, 13), int)
    ours[ov.ids_a, ov.ids_b] = ov.count
    for other in (dense, peer, table):
        np.testing.assert_array_equal(ours[1:, 1:], np.asarray(other)[1:, 1:])
    np.testing.assert_array_equal(ov.size_a, np.bincount(a.ravel())[ov.labels_a])
    np.testing.assert_array_equal(ov.size_b, np.bincount(b.ravel())[ov.labels_b])


@given(
    pair=hnp.array_shapes(min_dims=2, max_dims=3, max_side=7).flatmap(
        lambda shape: st.tuples(
            *[hnp.arrays(st.sampled_from(LABEL_TYPES), shape, elements=st.integers(0, 5)) for _ in range(2)]
        )
    )
)
def test_backends_agree(ops: ModuleType, pair) -> None:
    from voxkernels.overlaps import reference

    one, other = ops.overlap_counts(*pair), reference.overlap_counts(*pair)
    assert_identical(one, other)
    for measure in ("iou", "containment"):
        np.testing.assert_array_equal(
            ops.overlap_cost(one, measure=measure), reference.overlap_cost(other, measure=measure)
        )


# Stacks


def label_stack(shape: tuple[int, int, int] = (7, 21, 34), seed: int = 0) -> np.ndarray:
    """Slices with numbers of their own, one of them empty."""
    stack = np.stack([two_images(shape[1:], 4 + z, seed + z)[0] for z in range(shape[0])])
    stack[shape[0] // 2] = 0
    return stack


@pytest.mark.parametrize("step", [1, 2, 6])
def test_stack_is_its_pairs_of_slices(ops: ModuleType, step: int) -> None:
    stack = label_stack()
    found = ops.overlap_counts_stack(stack, step=step)
    assert len(found) == len(stack) - step
    for z, overlap in enumerate(found):
        assert_identical(overlap, ops.overlap_counts(stack[z], stack[z + step]))


@pytest.mark.parametrize("shape", [(0, 3, 4), (1, 3, 4), (2, 3, 4), (3, 0, 4), (3, 4, 0), (3, 1, 1)])
def test_thin_and_empty_stacks(ops: ModuleType, shape: tuple[int, int, int]) -> None:
    found = ops.overlap_counts_stack(np.ones(shape, np.uint8))
    size = shape[1] * shape[2]
    assert [as_table(overlap) for overlap in found] == [{(1, 1): size} if size else {}] * max(0, shape[0] - 1)
    assert list(ops.overlap_counts_stack(np.ones(shape, np.uint8), step=np.int64(9))) == []


def test_stacks_of_any_type_and_layout(ops: ModuleType) -> None:
    stack = label_stack()
    expected = ops.overlap_counts_stack(stack)
    for other in (stack.astype(">u2"), stack.astype(np.int64), np.asfortranarray(stack), stack[::-1].copy()[::-1]):
        for one, two in zip(ops.overlap_counts_stack(other), expected, strict=True):
            assert_identical(one, two)


@pytest.mark.parametrize("largest", [900, 70_000, 2**40])
@pytest.mark.usefixtures("threads")
def test_stacks_of_many_labels(largest: int) -> None:
    """More pairs, and larger labels, than are joined at once; some slices with none of them."""
    rng = np.random.default_rng(largest)
    patches = rng.integers(0, 900, (12, 40, 40))
    patches[3:5] %= 5
    patches[7] = 0
    names = np.concatenate([[0], np.sort(rng.choice(largest, 900, replace=False) + 1)])
    stack = np.repeat(np.repeat(names[patches], 3, axis=1), 5, axis=2)
    stack[1::2] = np.roll(stack[1::2], (1, 2), axis=(1, 2))
    found = vk.overlap_counts_stack(stack)
    numba.set_num_threads(1)
    alone = vk.overlap_counts_stack(stack)
    assert alone.starts == found.starts
    assert_identical(alone.rows, found.rows)
    for z, overlap in enumerate(found):
        a, b = stack[z].ravel(), stack[z + 1].ravel()
        pairs, counts = np.unique(np.stack([a, b])[:, (a > 0) & (b > 0)], axis=1, return_counts=True)
        np.testing.assert_array_equal(np.stack([overlap.ids_a, overlap.ids_b]), pairs)
        np.testing.assert_array_equal(overlap.count, counts)
        for image, labels, sizes in ((a, overlap.labels_a, overlap.size_a), (b, overlap.labels_b, overlap.size_b)):
            np.testing.assert_array_equal(np.stack([labels, sizes]), np.unique(image[image > 0], return_counts=True))


def test_a_stack_is_a_sequence(ops: ModuleType) -> None:
    found = ops.overlap_counts_stack(label_stack())
    assert isinstance(found, vk.OverlapStack)
    assert (len(found), len(found.rows.ids_a)) == (6, found.starts[0][-1])
    every = list(found)
    assert all(isinstance(overlap, vk.OverlapCounts) for overlap in every)
    for k in range(-6, 6):
        assert_identical(found[k], every[k])
        assert_identical(found[np.int64(k)], every[k])
    for part in (slice(None), slice(1, 4), slice(-2, None), slice(None, None, -2), slice(7, 9), slice(0)):
        assert isinstance(found[part], list)
        for one, other in zip(found[part], every[part], strict=True):
            assert_identical(one, other)
    for one, other in zip(reversed(found), every[::-1], strict=True):
        assert_identical(one, other)
    assert_identical([*found, *found[:2]][-1], every[1])


def test_the_rows_of_a_stack(ops: ModuleType) -> None:
    """All pairs of slices one after another, with offsets as those of a sparse matrix."""
    stack = label_stack()
    found = ops.overlap_counts_stack(stack)
    z = np.repeat(np.arange(6), np.diff(found.starts[0]))
    dense = np.zeros((6, 12, 12), int)
    dense[z, found.rows.ids_a, found.rows.ids_b] = found.rows.count
    for k in range(6):
        both = (stack[k] > 0) & (stack[k + 1] > 0)
        expected = np.zeros((12, 12), int)
        np.add.at(expected, (stack[k][both], stack[k + 1][both]), 1)
        np.testing.assert_array_equal(dense[k], expected)
    for labels, sizes, starts, images in (
        (found.rows.labels_a, found.rows.size_a, found.starts[1], stack[:-1]),
        (found.rows.labels_b, found.rows.size_b, found.starts[2], stack[1:]),
    ):
        present = [np.unique(image[image > 0], return_counts=True) for image in images]
        assert starts == [0, *np.cumsum([len(names) for names, _ in present]).tolist()]
        np.testing.assert_array_equal(labels, np.concatenate([names for names, _ in present]))
        np.testing.assert_array_equal(sizes, np.concatenate([counts for _, counts in present]))


def test_stacks_are_joined_copied_and_kept() -> None:
    stack = label_stack()
    whole = vk.overlap_counts_stack(stack)
    upper, lower, single = vk.overlap_counts_stack(stack[:3]), vk.overlap_counts_stack(stack[3:]), whole[2]
    assert vk.OverlapStack.of(whole).rows is vk.OverlapStack.of([whole]).rows is whole.rows
    assert whole.rows is whole.rows
    assert vk.OverlapStack.of([]).starts == ([0], [0], [0])
    assert len(vk.OverlapStack.of([])) == len(vk.OverlapStack.of([])[:]) == 0
    joined = vk.OverlapStack.of([upper, single, lower, vk.OverlapStack.of([])])
    for one, two in zip(joined, whole, strict=True):
        assert_identical(one, two)
    assert_identical(joined[4], whole[4])
    assert len(joined.parts) == 3
    for other in (joined, pickle.loads(pickle.dumps(whole)), copy.deepcopy(whole), vk.OverlapStack.of(list(whole))):
        assert other.starts == whole.starts
        for one, two in zip(other, whole, strict=True):
            assert_identical(one, two)
    assert np.shares_memory(whole[0].count, whole.rows.count)


@pytest.mark.parametrize("index", [6, -7, 2**70])
def test_an_index_beyond_a_stack(index: int) -> None:
    found = vk.overlap_counts_stack(label_stack())
    with pytest.raises(IndexError, match=rf"index: must be at least -6 and below 6; got {index}\."):
        found[index]
    with pytest.raises(IndexError, match=r"index: must be at least 0 and below 0; got 0\."):
        vk.OverlapStack.of([])[0]


@pytest.mark.parametrize("index", [1.0, None, "1", (0, 1)])
def test_an_index_that_is_none(index: object) -> None:
    with pytest.raises(TypeError, match=r"index: must be an integer or a slice; got "):
        vk.overlap_counts_stack(label_stack())[index]  # type: ignore[call-overload]


def test_batches_tables_and_threads_do_not_change_a_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    from voxkernels import overlaps

    stack = label_stack((9, 30, 30))
    expected = overlaps.overlap_counts_stack(stack)
    for name, value in (("BATCH", 2), ("CHUNKS", 3), ("FIRST_SLOTS", 2)):
        monkeypatch.setattr(overlaps.tables, name, value)
        for one, two in zip(overlaps.overlap_counts_stack(stack), expected, strict=True):
            assert_identical(one, two)


# What must not matter


def test_swapping_the_images_transposes(ops: ModuleType) -> None:
    a, b = two_images()
    ab, ba = ops.overlap_counts(a, b), ops.overlap_counts(b, a)
    assert {(j, i): n for (i, j), n in as_table(ab).items()} == as_table(ba)
    np.testing.assert_array_equal(ops.overlap_cost(ab), ops.overlap_cost(ba).T)


def test_flips_and_layouts(ops: ModuleType) -> None:
    a, b = two_images((5, 6, 7))
    expected = ops.overlap_counts(a, b)
    assert_identical(ops.overlap_counts(a[::-1, :, ::-1], b[::-1, :, ::-1]), expected)
    assert_identical(ops.overlap_counts(a.T, b.T), expected)
    assert_identical(ops.overlap_counts(np.asfortranarray(a), b.astype(">i4")), expected)


def test_relabelling(ops: ModuleType) -> None:
    a, b = two_images()
    names = np.array([0, 2**40, 5, 2**33, 17, 2, 1])
    expected = {(int(names[i]), j): n for (i, j), n in as_table(ops.overlap_counts(a, b)).items()}
    assert as_table(ops.overlap_counts(names[a], b)) == expected


@pytest.mark.parametrize("dtype", LABEL_TYPES)
def test_label_types(ops: ModuleType, dtype: type) -> None:
    a, b = two_images()
    assert_identical(ops.overlap_counts(a.astype(dtype), b), ops.overlap_counts(a, b))


def test_largest_labels(ops: ModuleType) -> None:
    a = np.array([[2**32 - 1, 0, 2**32 - 1]], np.uint32)
    b = np.array([[2**63 - 1, 2**63 - 1, 2**63 - 1]], np.uint64)
    assert as_table(ops.overlap_counts(a, b)) == {(2**32 - 1, 2**63 - 1): 2}


# Extremes


def test_every_pixel_its_own_pair(ops: ModuleType) -> None:
    generator = np.random.default_rng(0)
    a, b = (generator.permutation(90 * 95).reshape(90, 95) + 1 for _ in range(2))
    ov = ops.overlap_counts(a, b)
    assert ov.count.tolist() == [1] * a.size
    np.testing.assert_array_equal(ov.ids_a, np.arange(1, a.size + 1))
    np.testing.assert_array_equal(ov.ids_b, b.ravel()[np.argsort(a, axis=None)])


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (1, 999), (999, 1), (2, 0, 3), (1, 1, 999)])
def test_thin_and_empty_shapes(ops: ModuleType, shape: tuple[int, ...]) -> None:
    ones = np.ones(shape, np.int32)
    size = int(np.prod(shape))
    assert as_table(ops.overlap_counts(ones, ones)) == ({(1, 1): size} if size else {})


def test_few_labels_at_random(ops: ModuleType) -> None:
    """Nearly every pair occurs: a dense table, where the sparse one overflows."""
    generator = np.random.default_rng(1)
    a, b = generator.integers(0, 60, (2, 150, 170))
    ov = ops.overlap_counts(a, b)
    dense = np.zeros((60, 60), int)
    np.add.at(dense, (a, b), 1)
    np.testing.assert_array_equal(dense[ov.ids_a, ov.ids_b], ov.count)
    assert ov.count.sum() == dense[1:, 1:].sum()
    np.testing.assert_array_equal(ov.size_a, dense.sum(axis=1)[1:])
    np.testing.assert_array_equal(ov.size_b, dense.sum(axis=0)[1:])
    assert_identical(ops.overlap_counts(a.astype(np.uint8), b.astype(np.uint8)), ov)


@pytest.mark.parametrize("size", [6, 7, 65])
def test_checkerboards(ops: ModuleType, size: int) -> None:
    """A run for each pixel."""
    a = np.indices((size, size)).sum(axis=0) % 2 + 1
    b = np.repeat(np.arange(1, size + 1)[:, None], size, axis=1)
    overlap = ops.overlap_counts(a.astype(np.int32), b.astype(np.int32))
    assert overlap.size_a.tolist() == [(size**2 + 1) // 2, size**2 // 2]
    expected = {(label, row + 1): int((a[row] == label).sum()) for label in (1, 2) for row in range(size)}
    assert as_table(overlap) == expected


def test_nothing_shared(ops: ModuleType) -> None:
    a = np.array([[1, 0, 2]])
    b = np.array([[0, 3, 0]])
    ov = ops.overlap_counts(a, b)
    assert ov.count.shape == (0,)
    assert ov.size_a.tolist() == [1, 1]
    assert ov.size_b.tolist() == [1]
    np.testing.assert_array_equal(ops.overlap_cost(a, b), [[1], [1]])


def test_only_background(ops: ModuleType) -> None:
    nothing = np.zeros((4, 5), np.uint8)
    assert ops.overlap_cost(nothing, nothing).shape == (0, 0)


def test_inputs_are_not_written(ops: ModuleType) -> None:
    a, b = two_images()
    a.flags.writeable = b.flags.writeable = False
    ops.overlap_counts(a, b)


@pytest.mark.usefixtures("threads")
def test_threads_and_table_size_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from voxkernels import overlaps

    a, b = two_images((64, 64), n=200)
    expected = overlaps.overlap_counts(a, b)
    monkeypatch.setattr(overlaps.tables, "FIRST_SLOTS", 2)
    assert_identical(overlaps.overlap_counts(a, b), expected)
    numba.set_num_threads(1)
    assert_identical(overlaps.overlap_counts(a, b), expected)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_noise_with_runs_and_rare_labels(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels of noise go to a dense table; what lies beyond it, and long runs, are counted all the same."""
    from voxkernels import overlaps

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 30, (2, 300, 401)).astype(dtype)
    a[200, 5:300], b[250:260], b[7, 9] = 7, 3, 2**31 - 1
    a[13, 17] = 40
    table = {(int(i), int(j)): 0 for i, j in zip(a.flat, b.flat, strict=True) if i and j}
    for i, j in zip(a.flat, b.flat, strict=True):
        if i and j:
            table[int(i), int(j)] += 1
    used = []
    monkeypatch.setattr(
        overlaps.tables.cpu_lists,
        "sum_cells",
        lambda cells, real=overlaps.tables.cpu_lists.sum_cells: used.append(cells.shape) or real(cells),
    )
    found = overlaps.overlap_counts(a, b)
    assert as_table(found) == table
    assert used[0][1:] == (30, 30)
    assert found.labels_b.tolist() == [*range(1, 30), 2**31 - 1]
    np.testing.assert_array_equal(found.size_a, [(a == label).sum() for label in found.labels_a])
    np.testing.assert_array_equal(found.size_b, [(b == label).sum() for label in found.labels_b])
    b[299, 400] = -1
    with pytest.raises(ValueError, match=r"b: must not hold negative values; got a minimum of -1"):
        overlaps.overlap_counts(a, b)


@pytest.mark.parametrize(
    ("noisy", "batch", "groups"), [(6, 256, [5]), (3, 256, [5]), (6, 2, [5]), (-3, 2, [3]), (6, 3, None), (2, 256, [])]
)
def test_stacks_with_noise_are_their_pairs_of_slices(
    noisy: int, batch: int, groups: list[int] | None, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """Where most pairs of slices are noise they are counted in dense tables, all that are left at once."""
    from voxkernels import overlaps

    numba.set_num_threads(min(2, threads))
    monkeypatch.setattr(overlaps.tables, "BATCH", batch)
    if groups is None:
        monkeypatch.setattr(overlaps.tables, "CELLS", 0)
    rng = np.random.default_rng(1)
    stack = np.repeat(np.repeat(rng.integers(0, 9, (6, 7, 12), np.int32), 16, axis=1), 10, axis=2)
    part = stack[:noisy] if noisy > 0 else stack[noisy:]
    part[...] = rng.integers(0, 200, part.shape)
    stack[2, 3, 4] = 70_000
    expected = [
        {tuple(pair): int(n) for pair, n in zip(pairs.tolist(), counts, strict=True) if min(pair)}
        for pairs, counts in (
            np.unique(np.stack([a.ravel(), b.ravel()], axis=1), axis=0, return_counts=True)
            for a, b in itertools.pairwise(stack)
        )
    ]
    at_once, singly, tables = [], [], overlaps.tables
    for module, name, seen in ((tables.cpu, "count_images", at_once), (tables.cpu_lists, "sum_cells", singly)):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, real=real, seen=seen: seen.append(len(a[0])) or real(*a))
    found = overlaps.overlap_counts_stack(stack)
    assert at_once == (groups or [])
    assert len(singly) == (0 if not groups else 2 if noisy > 0 else 1)  # a label beyond the tables lies in two pairs
    for z, (one, table) in enumerate(zip(found, expected, strict=True)):
        pairs = zip(one.ids_a.tolist(), one.ids_b.tolist(), strict=True)
        assert dict(zip(pairs, one.count.tolist(), strict=True)) == table
        assert one.size_a.tolist() == [int((stack[z] == label).sum()) for label in one.labels_a]
        assert one.size_b.tolist() == [int((stack[z + 1] == label).sum()) for label in one.labels_b]
    if noisy == 6:
        stack[4, 5, 6] = -3
        with pytest.raises(ValueError, match=r"labels: must not hold negative values; got a minimum of -3"):
            overlaps.overlap_counts_stack(stack)


def test_the_sample_of_labels_is_in_step_with_no_row() -> None:
    """Every sixteenth column has one label: a sample of every sixteenth pixel would see no other."""
    from voxkernels import overlaps

    stack = np.random.default_rng(1).integers(0, 200, (16, 64, 64), np.int32)
    stack[:, :, ::16] = 1
    assert overlaps.tables._n_labels(stack.reshape(16, -1)) == stack.max() + 1


# Messages


def test_messages(ops: ModuleType) -> None:
    a = np.ones((2, 3), np.int32)
    with pytest.raises(TypeError, match=r"a: must be of an integer type; got .*float64"):
        ops.overlap_counts(a * 1.0, a)
    with pytest.raises(ValueError, match=r"b: must not hold negative values; got a minimum of -1"):
        ops.overlap_counts(a, -a)
    with pytest.raises(ValueError, match=r"a: must be \(Z, Y, X\); got an array of shape \(3,\)"):
        ops.overlap_counts(a[0], a[0])
    with pytest.raises(ValueError, match=r"b: must have the shape of a, \(2, 3\); got an array of shape \(3, 2\)"):
        ops.overlap_counts(a, a.T)
    with pytest.raises(ValueError, match=r"b: must be below 2\*\*63"):
        ops.overlap_counts(a, np.full((2, 3), 2**63, np.uint64))
    with pytest.raises(ValueError, match=r"labels: must not hold negative values; got a minimum of -1"):
        ops.overlap_counts_stack(-np.ones((2, 3, 4), np.int16))
    with pytest.raises(ValueError, match=r"labels: must be \(Z, Y, X\); got an array of shape \(2, 3\)"):
        ops.overlap_counts_stack(a)
    for step in (0, 1.5, True):
        with pytest.raises(ValueError, match=r"step: must be an integer of at least 1; got"):
            ops.overlap_counts_stack(a[None], step=step)
    with pytest.raises(ValueError, match=r"measure: must be one of 'iou', 'containment'; got 'dice'"):
        ops.overlap_cost(a, a, measure="dice")
    with pytest.raises(TypeError, match=r"b: must be a label image; got None"):
        ops.overlap_cost(a)
    with pytest.raises(TypeError, match=r"b: must be left out beside an OverlapCounts; got an array of shape \(2, 3\)"):
        ops.overlap_cost(ops.overlap_counts(a, a), a)
