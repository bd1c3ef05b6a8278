"""Overlaps of two label slices beside numpy.bincount and a compiled loop; the answer is checked before the clock."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import voxkernels as vk
from benchmarks import cases


def bincount_table(a: cases.Labels, b: cases.Labels) -> np.ndarray:
    """Shared pixels as a dense table."""
    n_a, n_b = int(a.max()) + 1, int(b.max()) + 1
    return np.bincount((a.astype(np.int64) * n_b + b).ravel(), minlength=n_a * n_b).reshape(n_a, n_b)


@numba.njit
def dense_loop(a: cases.Labels, b: cases.Labels, n_a: int, n_b: int) -> np.ndarray:
    """The same, one pixel after the other."""
    table = np.zeros((n_a, n_b), np.int64)
    for y in range(a.shape[0]):
        for x in range(a.shape[1]):
            table[a[y, x], b[y, x]] += 1
    return table


def renumbered(labels: cases.Labels) -> cases.Labels:
    """Labels without gaps, as dense tables need them; the background stays 0."""
    return np.searchsorted(np.union1d(0, labels), labels).astype(np.int32)


@pytest.mark.parametrize("volume", cases.VOLUMES)
def test_overlap_counts(benchmark: BenchmarkFixture, volume: str) -> None:
    a, b = cases.slice_pair(cases.VOLUMES[volume]())
    overlap = vk.overlap_counts(a, b)
    dense = bincount_table(a, b)
    dense[0] = dense[:, 0] = 0
    assert overlap.count.sum() == dense.sum()
    np.testing.assert_array_equal(dense[overlap.ids_a, overlap.ids_b], overlap.count)
    benchmark.extra_info["voxels"] = a.size
    benchmark(vk.overlap_counts, a, b)


@pytest.mark.parametrize("volume", cases.VOLUMES)
def test_overlap_counts_stack(benchmark: BenchmarkFixture, volume: str) -> None:
    stack = cases.VOLUMES[volume]()
    found = vk.overlap_counts_stack(stack)
    assert len(found) == len(stack) - 1
    for overlap, a, b in zip(found, stack[:-1], stack[1:], strict=True):
        dense = bincount_table(a, b)
        assert overlap.count.sum() == dense[1:, 1:].sum()
        np.testing.assert_array_equal(dense[overlap.ids_a, overlap.ids_b], overlap.count)
    benchmark.extra_info["voxels"] = stack.size
    benchmark(vk.overlap_counts_stack, stack)


def test_overlap_cost(benchmark: BenchmarkFixture) -> None:
    overlap = vk.overlap_counts(*cases.slice_pair(cases.electrode()))
    cost = vk.overlap_cost(overlap)
    assert cost.shape == (overlap.labels_a.size, overlap.labels_b.size)
    assert (cost < 1).sum() == overlap.count.size
    benchmark(vk.overlap_cost, overlap)


def test_peer_bincount(benchmark: BenchmarkFixture) -> None:
    a, b = cases.slice_pair(cases.electrode())
    benchmark.extra_info["voxels"] = a.size
    benchmark(bincount_table, a, b)


def test_peer_dense_loop(benchmark: BenchmarkFixture) -> None:
    a, b = (renumbered(labels) for labels in cases.slice_pair(cases.electrode()))
    n_a, n_b = int(a.max()) + 1, int(b.max()) + 1
    np.testing.assert_array_equal(dense_loop(a, b, n_a, n_b), bincount_table(a, b))
    benchmark.extra_info["voxels"] = a.size
    benchmark(dense_loop, a, b, n_a, n_b)
