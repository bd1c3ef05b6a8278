"""`travel_time` and `trace_paths` beside scikit-fmm and, for comparison, graph and obstacle-free distances."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from scipy import ndimage

import voxkernels as vk
from benchmarks import cases, harness
from benchmarks.cases import Array
from benchmarks.harness import Arrays, Case, Peer

CROSS = ndimage.generate_binary_structure(3, 1)
CHECKED = 256
"""The largest edge at which scikit-fmm, the slowest peer, is run."""


def cracked_balls(size: int, percent: int = 28) -> Arrays:
    """The solid of an electrode, and its carbon/binder."""
    electrode = cases.electrode(size, percent)
    return electrode.solid, electrode.phases == 1


def scikit_fmm(domain: Array, sources: Array, order: int) -> Array:
    """Its usual set-up: half a voxel at every voxel that touches a source."""
    return with_skfmm(*level_set(domain, sources), order=order)


def level_set(domain: Array, sources: Array) -> Arrays:
    """0 at the voxels that touch a source, 1 elsewhere, nothing outside the domain; and the speed."""
    touching = domain & ndimage.binary_dilation(sources, CROSS)
    return np.ma.MaskedArray(np.where(touching, 0.0, 1.0), ~domain), np.ones(domain.shape)


def with_skfmm(phi: Array, speed: Array, order: int) -> Array:
    import skfmm

    return np.ma.filled(skfmm.travel_time(phi, speed, order=order), np.nan) + 0.5


def same_first_order(arrays: Arrays, ours: Array, theirs: Array) -> None:
    """The first order has one fixed point, which both find; ours starts here as scikit-fmm is told to."""
    T = vk.travel_time(*arrays, order=1, start="centres")
    reached = np.isfinite(T)
    np.testing.assert_array_equal(np.isfinite(ours), reached)
    np.testing.assert_allclose(theirs[reached], T[reached], atol=1e-3)


def near_second_order(arrays: Arrays, ours: Array, theirs: Array) -> None:
    """The second order depends on which neighbours count as earlier: equal to 5 percent, in the mean."""
    T = vk.travel_time(*arrays, order=2, start="centres")
    reached = np.isfinite(T)
    np.testing.assert_array_equal(np.isfinite(ours), reached)
    assert np.abs(theirs[reached] - T[reached]).mean() < 0.05 * T[reached].mean()


def touching(domain: Array, sources: Array) -> Arrays:
    """The domain as dijkstra3d takes it, and the voxels (n, 3) that touch a source."""
    return domain, np.argwhere(domain & ndimage.binary_dilation(sources, CROSS))


def with_dijkstra(domain: Array, starts: Array) -> Array:
    import dijkstra3d

    return np.asarray(dijkstra3d.euclidean_distance_field(domain, starts))


def longer_paths(arrays: Arrays, ours: Array, theirs: Array) -> None:
    """Paths along 26 directions are up to 13 % longer than straight ones; they cut corners that a front goes round."""
    first_order = vk.travel_time(*arrays, order=1, start="centres")
    reached = np.isfinite(first_order)
    assert np.isfinite(theirs[reached]).all()
    ratio = (theirs[reached] + 0.5).sum() / first_order[reached].sum()
    assert 0.8 < ratio < 1.13


def outside_sources(domain: Array, sources: Array) -> Arrays:
    return (~sources,)


def with_edt(free: Array) -> Array:
    import edt

    return np.asarray(edt.edt(free, parallel=2))


def no_longer(arrays: Arrays, ours: Array, theirs: Array) -> None:
    """Without obstacles nothing is farther away, up to half a voxel beside the corners of sources.

    Where fronts meet, upwind differences of order 1 arrive early: by two thirds of a voxel at 9 of 4.3 million voxels.
    """
    reached = np.isfinite(ours)
    first_order = vk.travel_time(*arrays, order=1, start="centres")
    early = theirs[reached] - 0.5 - first_order[reached]
    assert early.max() <= 1.0
    assert (early > 0.5).mean() <= 1e-4


LESSER = {
    "dijkstra3d": Peer("dijkstra3d", with_dijkstra, longer_paths, prepare=touching, largest=CHECKED, baseline=True),
    "edt": Peer("edt", with_edt, no_longer, prepare=outside_sources, threads=2, baseline=True),
}
PEERS = {
    1: {
        "scikit-fmm": Peer("skfmm", partial(with_skfmm, order=1), same_first_order, prepare=level_set, largest=CHECKED)
    },
    2: {
        "scikit-fmm": Peer("skfmm", partial(with_skfmm, order=2), near_second_order, prepare=level_set, largest=CHECKED)
    },
}


def random(size: int) -> Arrays:
    """Every voxel in the domain by chance (70 %), one in a thousand of the rest a source."""
    value = np.random.default_rng(0).random((size,) * 3, np.float32)
    return value < 0.7, value > 0.9997


def constant(size: int) -> Arrays:
    """A full block under one face of sources: one component, nothing in the way."""
    domain = np.ones((size,) * 3, bool)
    domain[0] = False
    return domain, ~domain


def measured(name: str) -> Arrays:
    electrode = cases.measured_electrode(name)
    return electrode.solid, electrode.phases == 1


def measured_particles(name: str) -> Arrays:
    """Labels as the domain: no front passes from one particle to another."""
    electrode = cases.measured_electrode(name)
    return electrode.labels * electrode.solid, electrode.phases == 1


INPUTS: dict[str, Callable[[int], Arrays]] = {
    "electrode 28 %": cracked_balls,
    "electrode 12 %": partial(cracked_balls, percent=12),
    "random 70 %": random,
    "constant": constant,
}
MEASURED: dict[str, Callable[[int], Arrays]] = {
    "nmc": lambda _: measured("nmc_cathode_3phase.tif"),
    "nmc, particles": lambda _: measured_particles("nmc_cathode_3phase.tif"),
    "grains": lambda _: measured("grains_binary.tif"),
}


def case(name: str, make: Callable[[int], Arrays], order: int, size: int | None = None) -> Case:
    """Voxels count as voxels of the domain."""
    labelled = name.endswith("particles")
    lesser = LESSER if order == 1 and not labelled else {}
    grown = name == "electrode 28 %"
    return Case(
        f"{name}, order {order}",
        make,
        partial(vk.travel_time, order=order, start="surface" if order == 2 else "centres"),
        {} if labelled else PEERS[order] | lesser,
        size=size,
        units=lambda domain, _: int(np.count_nonzero(domain)),
        growth=lattice if grown else None,
    )


def lattice(size: int) -> Arrays:
    electrode = cases.lattice(size)
    return electrode.solid, electrode.phases == 1


CASES = [case(name, make, order) for name, make in INPUTS.items() for order in (1, 2)]
CASES += [case(name, make, order, 0) for name, make in MEASURED.items() for order in (1, 2)]


@pytest.mark.parametrize("case", harness.toys(CASES), ids=str)
def test_travel_time(benchmark: BenchmarkFixture, case: Case) -> None:
    harness.run(benchmark, case)


@pytest.mark.parametrize(("case", "peer"), harness.toy_peers(CASES), ids=str)
def test_peer(benchmark: BenchmarkFixture, case: Case, peer: str) -> None:
    harness.run_peer(benchmark, case, peer)


def test_trace_paths(benchmark: BenchmarkFixture) -> None:
    T = vk.travel_time(*cracked_balls(cases.SIZE))
    starts = np.argwhere(np.isfinite(T))[::97]
    paths = benchmark(vk.trace_paths, T, starts)
    lengths = np.array([np.linalg.norm(np.diff(p, axis=0), axis=1).sum() for p in paths])
    assert abs(np.mean(lengths - T[tuple(starts.T)])) < 0.5
