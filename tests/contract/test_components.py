"""Contract of `label`, the same for every backend."""

from __future__ import annotations

from collections.abc import Iterator
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

import voxkernels as vk
from voxkernels import components
from voxkernels.components import reference

ops = backend_fixture("components")


@pytest.fixture(autouse=True, scope="module")
def small_parts() -> Iterator[None]:
    """Volumes as small as these are labelled by several threads, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components, "PART_VOXELS", 1)
        yield


CONNECTIVITIES = (6, 18, 26)
THIN = ((1, 1, 999), (1, 999, 1), (999, 1, 1), (1, 13, 17), (13, 1, 17), (13, 17, 1), (2, 1, 50), (1, 1, 1))


volumes = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6), elements=st.integers(0, 3)
)


def structure(connectivity: int) -> np.ndarray:
    """The neighbourhood as SciPy takes it."""
    return ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])


def random_mask(shape: tuple[int, int, int], share: float = 0.4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < share


def in_order_of_first_voxel(labels: np.ndarray) -> np.ndarray:
    """The same components, numbered by their first voxel in C order."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(np.where(labels.ravel()[first] == 0, -1, first)))
    return rank[inverse].reshape(labels.shape) + (0 if (labels == 0).any() else 1)


# Small scenes with known answers


def test_numbers_follow_c_order(ops: ModuleType) -> None:
    volume = np.zeros((2, 3, 4), bool)
    volume[0, 2, 0] = volume[0, 0, 3] = volume[1, 0, 0] = True
    labels, n = ops.label(volume, connectivity=6)
    assert n == 3
    assert labels.dtype == np.int32
    assert [labels[0, 0, 3], labels[0, 2, 0], labels[1, 0, 0]] == [1, 2, 3]
    assert labels.sum() == 6


@pytest.mark.parametrize("offset", [s for s in np.ndindex(3, 3, 3) if s > (1, 1, 1)])
def test_two_voxels(ops: ModuleType, offset: tuple[int, int, int]) -> None:
    """Neighbours by a face, an edge, a corner: connected from 6, 18, 26 on."""
    volume = np.zeros((3, 3, 3), bool)
    volume[1, 1, 1] = volume[offset] = True
    shared = sum(i != 1 for i in offset)
    found = [ops.label(volume, connectivity=c)[1] for c in CONNECTIVITIES]
    assert found == [1 if shared <= axes else 2 for axes in (1, 2, 3)]


def test_a_component_that_closes_late(ops: ModuleType) -> None:
    """Two arms that meet in the last slice are one component, with the number of the arm that starts first."""
    volume = np.zeros((4, 3, 7), bool)
    volume[:, 1, [1, 5]] = True
    volume[0, 1, 3] = True
    volume[3, 1, 1:6] = True
    labels, n = ops.label(volume)
    assert n == 2
    assert labels[0, 1].tolist() == [0, 1, 0, 2, 0, 1, 0]


@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_all_corner_cubes(ops: ModuleType, connectivity: int) -> None:
    """Every set of voxels of a 2 x 2 x 2 cube, one above the other with a gap, against SciPy."""
    bits = np.arange(256)[:, None] >> np.arange(8) & 1
    cubes = np.pad(bits.reshape(256, 2, 2, 2), ((0, 0), (0, 1), (0, 0), (0, 0))).reshape(-1, 2, 2) > 0
    labels, n = ops.label(cubes, connectivity=connectivity)
    expected, m = ndimage.label(cubes, structure(connectivity))
    assert n == m
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("size", [5, 6])
@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_densest_lattices_of_single_voxels(ops: ModuleType, connectivity: int, size: int) -> None:
    """As many components as there can be; all one in the next neighbourhood."""
    z, y, x = np.indices((size,) * 3)
    volume = {
        6: (z + y + x) % 2 == 0,
        18: (z % 2 == y % 2) & (y % 2 == x % 2),
        26: (z % 2 == 0) & (y % 2 == 0) & (x % 2 == 0),
    }[connectivity]
    labels, n = ops.label(volume, connectivity=connectivity)
    assert n == volume.sum()
    np.testing.assert_array_equal(labels[volume], np.arange(1, n + 1))
    assert not labels[~volume].any()
    if connectivity < 26:
        assert ops.label(volume, connectivity={6: 18, 18: 26}[connectivity])[1] == 1


# Other libraries


@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("shape", [(31, 32, 33), (7, 64, 65), (2, 5, 300)])
def test_binary_against_scipy(shape: tuple[int, int, int], share: float, connectivity: int) -> None:
    volume = random_mask(shape, share)
    labels, n = vk.label(volume, connectivity=connectivity)
    expected, m = ndimage.label(volume, structure(connectivity))
    assert n == m
    np.testing.assert_array_equal(labels, in_order_of_first_voxel(expected))


@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
@pytest.mark.parametrize("values", [2, 3, 7])
def test_several_values_against_cc3d(connectivity: int, values: int) -> None:
    volume = np.random.default_rng(values).integers(0, values, (21, 22, 23)).astype(np.uint16)
    labels, n = vk.label(volume, connectivity=connectivity)
    expected = cc3d.connected_components(volume, connectivity=connectivity)
    assert n == expected.max()
    np.testing.assert_array_equal(labels, in_order_of_first_voxel(expected))


@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_blobs_against_scipy(connectivity: int) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(60, 70, 80)), 2)
    for level in (-0.02, 0.03):
        labels, n = vk.label(noise > level, connectivity=connectivity)
        expected, m = ndimage.label(noise > level, structure(connectivity))
        assert n == m
        np.testing.assert_array_equal(labels, in_order_of_first_voxel(expected))


@pytest.mark.parametrize("shape", THIN)
@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_thin_shapes(ops: ModuleType, shape: tuple[int, int, int], connectivity: int) -> None:
    volume = random_mask(shape, 0.5)
    labels, n = ops.label(volume, connectivity=connectivity)
    expected, m = ndimage.label(volume, structure(connectivity))
    assert n == m
    np.testing.assert_array_equal(labels, in_order_of_first_voxel(expected))


@pytest.mark.parametrize("length", [63, 64, 65, 127, 129, 200])
@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_rows_about_a_word_long(connectivity: int, length: int) -> None:
    """Runs that end, go on or meet at the last bit of a word of 64 voxels; short runs and long ones."""
    for share in (0.2, 0.5, 0.9):
        volume = random_mask((6, 7, length), share)
        labels, n = vk.label(volume, connectivity=connectivity)
        expected, m = ndimage.label(volume, structure(connectivity))
        assert n == m
        np.testing.assert_array_equal(labels, in_order_of_first_voxel(expected))
        values = np.where(np.roll(volume, 1, 0), np.uint8(2), np.uint8(1)) * volume
        labels, n = vk.label(values, connectivity=connectivity)
        expected = cc3d.connected_components(values, connectivity=connectivity)
        assert n == expected.max()
        np.testing.assert_array_equal(labels, in_order_of_first_voxel(expected))


@pytest.mark.parametrize("shape", [(9, 17, 33), (8, 8, 64), (17, 9, 31), (3, 10, 100)])
@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_shapes_about_a_tile(ops: ModuleType, connectivity: int, shape: tuple[int, int, int]) -> None:
    """Components that cross faces, edges and corners of tiles of 8 x 8 x 32 voxels, on every backend."""
    for values, share in ((2, 0.15), (2, 0.6), (4, 0.4)):
        generator = np.random.default_rng(values)
        volume = (generator.integers(1, values, shape) * (generator.random(shape) < share)).astype(np.uint8)
        labels, n = ops.label(volume, connectivity=connectivity)
        expected = cc3d.connected_components(volume, connectivity=connectivity)
        assert n == expected.max()
        np.testing.assert_array_equal(labels, in_order_of_first_voxel(expected))
    z, y, x = np.indices(shape)
    spiral = ((z + y // 2 + x // 3) % 3 > 0) & ((2 * y + x) % 7 > 0)
    labels, n = ops.label(spiral, connectivity=connectivity)
    expected, m = ndimage.label(spiral, structure(connectivity))
    assert n == m
    np.testing.assert_array_equal(labels, in_order_of_first_voxel(expected))


@pytest.mark.parametrize("shape", [(8, 8, 64), (3, 10, 100)])
def test_wide_rows_of_64_bit_labels(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int]) -> None:
    """Words of few runs and of many, as past 2**31 voxels."""
    from voxkernels import components

    for share in (0.05, 0.6):
        volume = random_mask(shape, share)
        labels, n = components.label(volume)
        monkeypatch.setattr(components, "INT32_LIMIT", 0)
        wide, m = components.label(volume)
        monkeypatch.undo()
        assert (wide.dtype, m) == (np.int64, n)
        np.testing.assert_array_equal(wide, labels)


# Slabs


def cut(volume: np.ndarray, cuts: tuple[int, ...]) -> list[np.ndarray]:
    return [volume[a:b] for a, b in pairwise((0, *cuts, len(volume)))]


@pytest.mark.parametrize("cuts", [(), (4,), (1, 2, 3, 4, 5, 6, 7), (3, 3, 6)])
@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
@pytest.mark.parametrize("values", [1, 3])
def test_slabs_are_the_volume_in_one_piece(
    ops: ModuleType, connectivity: int, values: int, cuts: tuple[int, ...]
) -> None:
    volume = np.random.default_rng(7).integers(0, values + 1, (8, 9, 10)).astype(bool if values == 1 else np.uint16)
    expected, n = ops.label(volume, connectivity=connectivity)
    slabs, m = ops.label_slabs(cut(volume, cuts), connectivity=connectivity)
    listed = list(slabs)
    assert n == m
    assert [slab.shape for slab in listed] == [slab.shape for slab in cut(volume, cuts)]
    assert all(slab.dtype == np.int32 for slab in listed)
    np.testing.assert_array_equal(np.concatenate(listed), expected)


@given(volumes, st.sampled_from(CONNECTIVITIES), st.lists(st.integers(0, 6), max_size=4))
def test_any_slabs(ops: ModuleType, volume: np.ndarray, connectivity: int, cuts: list[int]) -> None:
    slabs = cut(volume, tuple(sorted(min(c, len(volume)) for c in cuts)))
    expected, n = vk.label(volume, connectivity=connectivity)
    labels, m = ops.label_slabs(slabs, connectivity=connectivity)
    assert n == m
    np.testing.assert_array_equal(np.concatenate(list(labels)), expected)


def test_slabs_that_join_late(ops: ModuleType) -> None:
    """Two arms, slab by slab, until the last one joins them; later components move up."""
    volume = np.zeros((4, 1, 5), bool)
    volume[:, 0, [0, 2]] = True
    volume[2, 0, 4] = True
    volume[3, 0, :3] = True
    labels, n = ops.label_slabs(cut(volume, (1, 2, 3)))
    assert n == 2
    assert np.concatenate(list(labels)).tolist() == [
        [[1, 0, 1, 0, 0]], [[1, 0, 1, 0, 0]], [[1, 0, 1, 0, 2]], [[1, 1, 1, 0, 0]]
    ]  # fmt: skip


def test_slabs_of_different_types_and_large_values(ops: ModuleType) -> None:
    slabs = [np.full((1, 1, 2), 2**32 - 1, np.uint32), np.array([[[2**32 - 1, 1]]], np.int64), np.ones((1, 1, 2), bool)]
    labels, n = ops.label_slabs(slabs, connectivity=6)
    assert n == 2
    assert np.concatenate(list(labels)).tolist() == [[[1, 1]], [[1, 2]], [[2, 2]]]


def test_no_slabs_and_empty_slabs(ops: ModuleType) -> None:
    labels, n = ops.label_slabs([])
    assert n == 0
    assert list(labels) == []
    full, none = np.ones((1, 2, 2), bool), np.ones((0, 2, 2), bool)
    labels, n = ops.label_slabs([none, full, none, full])
    assert n == 1
    assert np.concatenate(list(labels)).tolist() == [[[1, 1], [1, 1]]] * 2


def test_slabs_are_read_twice_and_one_at_a_time() -> None:
    class Volume:
        passes = 0

        def __iter__(self) -> Iterator[np.ndarray]:
            self.passes += 1
            return (np.ones((1, 2, 3), bool) for _ in range(4))

    volume = Volume()
    labels, n = vk.label_slabs(volume)
    assert (n, volume.passes) == (1, 1)
    assert next(labels).all()
    assert volume.passes == 2


def test_slabs_widen_past_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole volume decides, not the slab."""
    volume = random_mask((10, 10, 10))
    expected, n = vk.label(volume)
    monkeypatch.setattr(components, "INT32_LIMIT", 999)
    labels, m = vk.label_slabs(cut(volume, (3, 7)))
    listed = list(labels)
    assert n == m
    assert all(slab.dtype == np.int64 for slab in listed)
    np.testing.assert_array_equal(np.concatenate(listed), expected)


def test_slab_messages(ops: ModuleType) -> None:
    one = np.ones((1, 2, 2), bool)
    with pytest.raises(TypeError, match="slabs: must be readable twice; got a generator"):
        ops.label_slabs(slab for slab in [one])
    with pytest.raises(ValueError, match=r"slabs: must all have the \(Y, X\) of the first, \(2, 2\)"):
        ops.label_slabs([one, np.ones((1, 2, 3), bool)])
    with pytest.raises(ValueError, match="connectivity: must be one of 6, 18, 26; got 8"):
        ops.label_slabs([one], connectivity=8)
    with pytest.raises(ValueError, match=r"^slabs\[0\]: must be \(Z, Y, X\)"):
        ops.label_slabs([one[0]])
    with pytest.raises(ValueError, match=r"^slabs\[1\]: must not hold negative values; got a minimum of -1\."):
        ops.label_slabs([one, np.full((1, 2, 2), -1)])
    with pytest.raises(TypeError, match=r"^slabs: must be several arrays \(Z_k, Y, X\); got None"):
        ops.label_slabs(None)
    with pytest.raises(ValueError, match=r"slabs: must be several arrays \(Z_k, Y, X\); got .* of shape \(1, 2, 2\)"):
        ops.label_slabs(one)
    assert ops.label_slabs(np.ones((3, 1, 2, 2), bool))[1] == 1  # slabs of one size


def test_slabs_that_change_are_refused() -> None:
    slabs = [np.ones((1, 1, 3), bool)]
    labels, _ = vk.label_slabs(slabs)
    slabs[0] = np.array([[[True, False, True]]])
    with pytest.raises(ValueError, match="slabs: must be the same in both passes; got 2 components where there were 1"):
        next(labels)


# Flood fill


@given(volumes, st.sampled_from(CONNECTIVITIES))
def test_against_flood_fill(ops: ModuleType, volume: np.ndarray, connectivity: int) -> None:
    labels, n = ops.label(volume, connectivity=connectivity)
    expected, m = reference.label(volume, connectivity=connectivity)
    assert n == m
    np.testing.assert_array_equal(labels, expected)


@given(volumes, st.sampled_from(CONNECTIVITIES))
def test_values_do_not_matter_but_their_equality_does(volume: np.ndarray, connectivity: int) -> None:
    labels, n = vk.label(volume, connectivity=connectivity)
    names = np.array([0, 2**32 - 1, 7, 300], np.uint32)
    renamed, m = vk.label(names[volume], connectivity=connectivity)
    assert n == m
    np.testing.assert_array_equal(labels, renamed)
    # labelling labels again changes nothing
    again, m = vk.label(labels, connectivity=connectivity)
    assert n == m
    np.testing.assert_array_equal(again, labels)


@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_flips_and_background(ops: ModuleType, connectivity: int) -> None:
    volume = random_mask((9, 8, 7), 0.3)
    labels, n = ops.label(volume, connectivity=connectivity)
    for axes in ((0,), (1,), (2,), (0, 1, 2)):
        flipped, m = ops.label(np.flip(volume, axes), connectivity=connectivity)
        assert n == m
        np.testing.assert_array_equal(in_order_of_first_voxel(np.flip(flipped, axes)), labels)
    padded, m = ops.label(np.pad(volume, 1), connectivity=connectivity)
    assert n == m
    np.testing.assert_array_equal(padded[1:-1, 1:-1, 1:-1], labels)


# Types, layouts, threads, sizes


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int8, np.uint16, np.uint32, np.int32, np.uint64, np.int64])
def test_types_strides_and_byte_order(ops: ModuleType, dtype: type) -> None:
    values = np.random.default_rng(3).integers(0, 2 if dtype is np.bool_ else 4, (6, 7, 16)).astype(dtype)
    expected, n = ops.label(np.ascontiguousarray(values[:, :, ::2]).astype(np.int64))
    swapped = values.astype(values.dtype.newbyteorder(">"))
    for volume in (values, swapped, np.asfortranarray(values)):
        volume.setflags(write=False)
        labels, m = ops.label(volume[:, :, ::2])
        assert n == m
        np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("value", [2**31 - 1, 2**31, 2**32 - 1, 2**62])
def test_large_values_stay_apart(ops: ModuleType, value: int) -> None:
    volume = np.array([[[value, value, 0, value - 1, value]]], np.uint64)
    labels, n = ops.label(volume)
    assert n == 3
    assert labels.tolist() == [[[1, 1, 0, 2, 3]]]


@pytest.mark.parametrize("shape", [(0, 3, 3), (3, 0, 3), (3, 3, 0), (0, 0, 0)])
def test_empty_volume(ops: ModuleType, shape: tuple[int, int, int]) -> None:
    labels, n = ops.label(np.zeros(shape, bool))
    assert labels.shape == shape
    assert labels.dtype == np.int32
    assert n == 0


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 5, 6)])
def test_all_background_and_all_foreground(ops: ModuleType, shape: tuple[int, int, int]) -> None:
    labels, n = ops.label(np.zeros(shape, bool))
    assert n == 0
    assert not labels.any()
    labels, n = ops.label(np.ones(shape, bool))
    assert n == 1
    assert (labels == 1).all()


def test_default_is_26(ops: ModuleType) -> None:
    assert ops.label(np.eye(3, dtype=bool)[None])[1] == 1


@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
@pytest.mark.parametrize("shape", [(23, 24, 25), (1, 40, 25), (40, 1, 25), (3, 2, 25), (5, 9, 130)])
def test_parts_do_not_change_a_bit(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int], connectivity: int
) -> None:
    """Rows are dealt out in as many parts as there are threads."""
    volume = np.random.default_rng(5).integers(0, 3, shape).astype(np.uint8)
    monkeypatch.setattr(components.numba, "get_num_threads", lambda: 1)
    expected, n = vk.label(volume, connectivity=connectivity)
    for parts in (2, 3, 7, 64, 10_000):
        monkeypatch.setattr(components.numba, "get_num_threads", lambda parts=parts: parts)
        labels, m = vk.label(volume, connectivity=connectivity)
        assert n == m
        np.testing.assert_array_equal(labels, expected)


def test_threads_do_not_change_a_bit(threads: int) -> None:
    volume = random_mask((40, 40, 40), 0.3)
    labels, m = vk.label(volume)
    numba.set_num_threads(1)
    expected, n = vk.label(volume)
    assert n == m
    np.testing.assert_array_equal(labels, expected)


def test_indices_widen_past_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = random_mask((10, 10, 10))
    narrow, n = vk.label(volume)
    assert narrow.dtype == np.int32
    monkeypatch.setattr(components, "INT32_LIMIT", 1000)
    assert vk.label(volume)[0].dtype == np.int32
    monkeypatch.setattr(components, "INT32_LIMIT", 999)
    wide, m = vk.label(volume)
    assert wide.dtype == np.int64
    assert n == m
    np.testing.assert_array_equal(wide, narrow)


# Messages

ONE = np.ones((2, 2, 2), np.uint8)


@pytest.mark.parametrize(
    ("volume", "options", "error", "message"),
    [
        (ONE[0], {}, ValueError, r"volume: must be \(Z, Y, X\)"),
        (ONE.tolist(), {}, TypeError, "volume: must be a NumPy array"),
        (ONE * 0.5, {}, TypeError, "volume: must be of an integer type"),
        (-ONE.astype(int), {}, ValueError, "volume: must not hold negative values"),
        (np.full((1, 1, 1), 2**63, np.uint64), {}, ValueError, r"volume: must be below 2\*\*63"),
        (ONE, {"connectivity": 8}, ValueError, "connectivity: must be one of 6, 18, 26; got 8"),
    ],
)
def test_messages(ops: ModuleType, volume: np.ndarray, options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.label(volume, **options)
