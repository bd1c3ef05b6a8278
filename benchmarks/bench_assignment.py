"""Matching 2000 objects of one slice with 2000 of the next, as linking does it, beside dense and sparse solvers."""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import voxkernels as vk
from benchmarks import harness
from benchmarks.cases import Array
from benchmarks.harness import Arrays, Case, Peer
from cbdetach.assignment import assign

N = 2000
REJECTED = 1.0


def candidates(n: int) -> Arrays:
    """Rows, columns and IoU of all pairs that overlap: n cells that fill a slice, and n moved a little in the next."""
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(0)
    side = 1024
    seeds = rng.uniform(0, side, (n, 2))
    pixels = np.argwhere(np.ones((side, side), bool))
    slices = []
    for moved in (seeds, seeds + rng.normal(0, 5, seeds.shape)):
        slices.append(cKDTree(moved).query(pixels)[1].reshape(side, side).astype(np.int32) + 1)
    overlap = vk.overlap_counts(*slices)
    row, column = np.searchsorted(overlap.labels_a, overlap.ids_a), np.searchsorted(overlap.labels_b, overlap.ids_b)
    return row, column, overlap.count / (overlap.size_a[row] + overlap.size_b[column] - overlap.count)


def only_good(row: Array, column: Array, iou: Array) -> Arrays:
    """What linking looks at: pairs with an IoU of 0.25 or more."""
    good = iou >= 0.25
    return row[good], column[good], iou[good]


def dense(row: Array, column: Array, iou: Array) -> Arrays:
    cost = np.full((N, N), REJECTED)
    cost[row, column] = 1 - iou
    return (cost,)


def sparse(row: Array, column: Array, iou: Array) -> Arrays:
    """Every object may stay alone: a column of its own at the cost of rejection."""
    alone = np.arange(N)
    return np.append(row, alone), np.append(column, N + alone), np.append(1 - iou, np.full(N, REJECTED))


def with_scipy(cost: Array) -> float:
    from scipy.optimize import linear_sum_assignment

    return N - float(cost[linear_sum_assignment(cost)].sum())


def with_lapx(cost: Array) -> float:
    import lap

    return N - float(lap.lapjv(cost, return_cost=True)[0])


def with_sparse(row: Array, column: Array, cost: Array) -> float:
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    graph = csr_array((cost, (row, column)), shape=(N, 2 * N))
    return N - float(graph[min_weight_full_bipartite_matching(graph)].sum())


def same_optimum(arrays: Arrays, ours: Array, theirs: float) -> None:
    row, column, iou = arrays
    assert np.unique(row[ours]).size == np.unique(column[ours]).size == ours.size
    assert iou[ours].sum() == pytest.approx(theirs, abs=1e-9)


def shuffled(arrays: Arrays, repeat: int) -> Arrays:
    """The same objects with other numbers."""
    rng = np.random.default_rng(repeat)
    order, rows, columns = rng.permutation(arrays[0].size), rng.permutation(N), rng.permutation(N)
    return rows[arrays[0]][order], columns[arrays[1]][order], arrays[2][order]


PEERS = {
    "scipy, sparse": Peer("scipy", with_sparse, same_optimum, prepare=sparse),
    "scipy, dense": Peer("scipy", with_scipy, same_optimum, prepare=dense),
    "lapx": Peer("lap", with_lapx, same_optimum, prepare=dense),
}
CASES = [
    Case(
        "2000 x 2000, IoU >= 0.25",
        lambda _: only_good(*candidates(N)),
        assign,
        PEERS,
        units=lambda row, *_: int(np.unique(row).size),
        fresh=shuffled,
    ),
    Case(
        "2000 x 2000, all that overlap",
        lambda _: candidates(N),
        assign,
        PEERS,
        units=lambda *_: N,
        fresh=shuffled,
    ),
]


@pytest.mark.parametrize("case", harness.toys(CASES), ids=str)
def test_assign(benchmark: BenchmarkFixture, case: Case) -> None:
    harness.run(benchmark, case)


@pytest.mark.parametrize(("case", "peer"), harness.toy_peers(CASES), ids=str)
def test_peer(benchmark: BenchmarkFixture, case: Case, peer: str) -> None:
    harness.run_peer(benchmark, case, peer)


def test_the_same_optimum_from_images() -> None:
    """From pixels to pairs: the cost matrix of the kernel leads to the same matches as the sparse table."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, (2, 40, 40)).astype(np.int32)
    overlap = vk.overlap_counts(a, b)
    cost = vk.overlap_cost(overlap)
    row, column = np.searchsorted(overlap.labels_a, overlap.ids_a), np.searchsorted(overlap.labels_b, overlap.ids_b)
    iou = 1 - cost[row, column]
    from scipy.optimize import linear_sum_assignment

    assert iou[assign(row, column, iou)].sum() == pytest.approx((1 - cost[linear_sum_assignment(cost)]).sum())
