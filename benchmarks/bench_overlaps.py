"""Overlaps of label slices beside numpy.bincount, numpy.unique, scipy.sparse and a compiled loop."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numba
import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import voxkernels as vk
from benchmarks import cases, harness
from benchmarks.cases import Array
from benchmarks.harness import Arrays, Case, Peer

Table = tuple[Array, Array, Array]


def with_bincount(a: Array, b: Array) -> Array:
    """Shared pixels as a dense table."""
    n_a, n_b = int(a.max()) + 1, int(b.max()) + 1
    return np.bincount((a.astype(np.int64) * n_b + b).ravel(), minlength=n_a * n_b).reshape(n_a, n_b)


def with_unique(a: Array, b: Array) -> Array:
    n_b = int(b.max()) + 1
    pairs, count = np.unique(a.astype(np.int64) * n_b + b, return_counts=True)
    table = np.zeros((int(a.max()) + 1, n_b), np.int64)
    table[pairs // n_b, pairs % n_b] = count
    return table


def with_sparse(a: Array, b: Array) -> Array:
    """The contingency table of scikit-image."""
    from scipy.sparse import coo_array

    table = coo_array((np.ones(a.size, np.int64), (a.ravel(), b.ravel())), shape=(int(a.max()) + 1, int(b.max()) + 1))
    return np.asarray(table.tocsr().toarray())


@numba.njit  # type: ignore[untyped-decorator]
def dense_loop(a: Array, b: Array, table: Array) -> None:
    """One pixel after the other into a dense table."""
    for y in range(a.shape[0]):
        for x in range(a.shape[1]):
            table[a[y, x], b[y, x]] += 1


def with_loop(a: Array, b: Array) -> Array:
    table = np.zeros((int(a.max()) + 1, int(b.max()) + 1), np.int64)
    dense_loop(a, b, table)
    return table


def renumbered(a: Array, b: Array) -> Arrays:
    """Labels without gaps, as dense tables need them; the background stays 0."""
    return tuple(np.searchsorted(np.union1d(0, labels), labels).astype(np.int32) for labels in (a, b))


def same_table(arrays: Arrays, ours: vk.OverlapCounts, theirs: Array) -> None:
    a, b = np.searchsorted(ours.labels_a, ours.ids_a) + 1, np.searchsorted(ours.labels_b, ours.ids_b) + 1
    np.testing.assert_array_equal(theirs[a, b], ours.count)
    assert theirs[1:, 1:].sum() == ours.count.sum()
    np.testing.assert_array_equal(theirs[1:].sum(axis=1), ours.size_a)


def whole_stack(stack: Array) -> list[Array]:
    return [with_loop(a, b) for a, b in itertools.pairwise(stack)]


def same_tables(arrays: Arrays, ours: vk.OverlapStack, theirs: list[Array]) -> None:
    for overlap, table in zip(ours, theirs, strict=True):
        assert overlap.count.sum() == table[1:, 1:].sum()
        np.testing.assert_array_equal(table[overlap.ids_a, overlap.ids_b], overlap.count)


def compact(stack: Array) -> Arrays:
    """The stack, each slice with numbers of its own without gaps, as a segmenter gives them."""
    (result,) = cases.frozen(np.stack([np.unique(s, return_inverse=True)[1] for s in stack]).astype(np.int32))
    return (result,)


PEERS = {
    "compiled loop": Peer("numba", with_loop, same_table, prepare=renumbered),
    "numpy.bincount": Peer("numpy", with_bincount, same_table, prepare=renumbered),
    "scipy.sparse": Peer("scipy", with_sparse, same_table, prepare=renumbered),
    "numpy.unique": Peer("numpy", with_unique, same_table, prepare=renumbered),
}
INPUTS: dict[str, Callable[[int], Array]] = {
    "electrode 28 %": lambda size: cases.electrode(size).labels,
    "electrode 12 %": lambda size: cases.electrode(size, 12).labels,
    "300 labels at random": cases.noise,
    "constant": cases.constant,
}
MEASURED: dict[str, Callable[[int], Array]] = {
    "nmc": lambda _: cases.measured_electrode("nmc_cathode_3phase.tif").labels,
    "grains": lambda _: cases.measured_electrode("grains_binary.tif").labels,
}


def pair_case(name: str, make: Callable[[int], Array], size: int | None = None) -> Case:
    def inputs(edge: int) -> Arrays:
        return cases.noise_pair(edge) if make is cases.noise else cases.slice_pair(make(edge))

    return Case(f"two slices, {name}", inputs, vk.overlap_counts, PEERS, size=size)


def stack_case(name: str, make: Callable[[int], Array], size: int | None = None) -> Case:
    return Case(
        f"stack, {name}",
        lambda edge: compact(make(edge)),
        vk.overlap_counts_stack,
        {"compiled loop": Peer("numba", whole_stack, same_tables)},
        size=size,
        shown=name not in ("electrode 12 %", "constant"),
        edges=(256, 512) if name == "electrode 28 %" else (256,),
        growth=(lambda edge: compact(cases.lattice(edge).labels)) if name == "electrode 28 %" else None,
    )


CASES = [pair_case(*item) for item in INPUTS.items()] + [pair_case(*item, 0) for item in MEASURED.items()]
CASES += [stack_case(*item) for item in INPUTS.items()] + [stack_case(*item, 0) for item in MEASURED.items()]


@pytest.mark.parametrize("case", harness.toys(CASES), ids=str)
def test_overlap_counts(benchmark: BenchmarkFixture, case: Case) -> None:
    harness.run(benchmark, case)


@pytest.mark.parametrize(("case", "peer"), harness.toy_peers(CASES), ids=str)
def test_peer(benchmark: BenchmarkFixture, case: Case, peer: str) -> None:
    harness.run_peer(benchmark, case, peer)


def test_overlap_cost(benchmark: BenchmarkFixture) -> None:
    overlap = vk.overlap_counts(*cases.slice_pair(cases.electrode(cases.SIZE).labels))
    cost = vk.overlap_cost(overlap)
    assert cost.shape == (overlap.labels_a.size, overlap.labels_b.size)
    assert (cost < 1).sum() == overlap.count.size
    benchmark(vk.overlap_cost, overlap)
