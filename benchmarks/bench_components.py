"""Connected components beside cc3d, SciPy and scikit-image: one value and several, in three regimes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import voxkernels as vk
from benchmarks import cases, harness
from benchmarks.cases import Array
from benchmarks.harness import Arrays, Case, Peer


def same_partition(arrays: Arrays, ours: tuple[Array, int], theirs: Array) -> None:
    """One to one: each of our components is one of theirs, and no two are the same one."""
    labels, n = ours
    name = np.zeros(n + 1, np.int64)
    name[labels] = theirs
    assert n == theirs.max(initial=0)
    assert (name[labels] == theirs).all()
    assert np.unique(name[1:]).size == n


def with_cc3d(volume: Array, connectivity: int) -> Array:
    import cc3d

    binary = volume.dtype == np.bool_
    return np.asarray(cc3d.connected_components(volume, connectivity=connectivity, binary_image=binary))


def with_scipy(volume: Array, connectivity: int) -> Array:
    from scipy import ndimage

    structure = ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])
    return np.asarray(ndimage.label(volume, structure)[0])


def with_skimage(volume: Array, connectivity: int) -> Array:
    from skimage.measure import label

    return np.asarray(label(volume, background=0, connectivity={6: 1, 18: 2, 26: 3}[connectivity]))


def peers(connectivity: int, binary: bool) -> dict[str, Peer]:
    calls = {"cc3d": ("cc3d", with_cc3d), "scikit-image": ("skimage", with_skimage)}
    if binary:
        calls["scipy"] = ("scipy", with_scipy)
    return {
        name: Peer(
            module, partial(call, connectivity=connectivity), same_partition, largest=10_000 if name == "cc3d" else 256
        )
        for name, (module, call) in calls.items()
    }


def random(size: int) -> Array:
    return np.asarray(np.random.default_rng(0).random((size,) * 3, np.float32) < 0.3)


INPUTS: dict[str, Callable[[int], Array]] = {
    "electrode 28 %, particles": lambda size: cases.electrode(size).labels > 0,
    "electrode 28 %, CBD": lambda size: cases.electrode(size).phases == 1,
    "electrode 12 %, particles": lambda size: cases.electrode(size, 12).labels > 0,
    "network": cases.network,
    "random 30 %": random,
    "constant": lambda size: cases.constant(size) > 0,
    "electrode 28 %, labels": lambda size: cases.electrode(size).labels,
    "electrode 28 %, phases": lambda size: cases.electrode(size).phases,
    "300 labels at random": cases.noise,
    "constant, labels": cases.constant,
}
BINARY = (
    "electrode 28 %, particles",
    "electrode 28 %, CBD",
    "electrode 12 %, particles",
    "network",
    "random 30 %",
    "constant",
)
MEASURED: dict[str, Callable[[int], Array]] = {
    "nmc, active": lambda _: cases.measured("nmc_cathode_3phase.tif") == 1,
    "nmc, phases": lambda _: cases.measured("nmc_cathode_3phase.tif"),
    "grains": lambda _: cases.measured("grains_binary.tif") > 0,
}
GROWN = ("electrode 28 %, particles", 26)
SHOWN = {
    ("electrode 28 %, particles", 6),
    ("electrode 28 %, particles", 18),
    ("electrode 28 %, particles", 26),
    ("electrode 28 %, CBD", 26),
    ("electrode 12 %, particles", 26),
    ("random 30 %", 26),
    ("constant", 26),
    ("electrode 28 %, labels", 26),
    ("300 labels at random", 26),
    ("nmc, active", 26),
    ("grains", 26),
}


def case(name: str, make: Callable[[int], Array], connectivity: int, size: int | None = None) -> Case:
    binary = name in BINARY or name in ("nmc, active", "grains")
    return Case(
        f"{name}, {connectivity}",
        lambda edge: (make(edge),),
        partial(vk.label, connectivity=connectivity),
        peers(connectivity, binary),
        size=size,
        shown=(name, connectivity) in SHOWN,
        edges=(128, 256, 512) if (name, connectivity) == GROWN else (256,),
        growth=(lambda edge: (cases.lattice(edge).labels > 0,)) if (name, connectivity) == GROWN else None,
    )


CASES = [case(name, make, c) for name, make in INPUTS.items() for c in (6, 18, 26)]
CASES += [case(name, make, c, 0) for name, make in MEASURED.items() for c in (6, 26)]


@pytest.mark.parametrize("case", harness.toys(CASES), ids=str)
def test_label(benchmark: BenchmarkFixture, case: Case) -> None:
    harness.run(benchmark, case)


@pytest.mark.parametrize(("case", "peer"), harness.toy_peers(CASES), ids=str)
def test_peer(benchmark: BenchmarkFixture, case: Case, peer: str) -> None:
    harness.run_peer(benchmark, case, peer)


@pytest.mark.parametrize("name", ["electrode 28 %, particles", "network"])
def test_label_slabs(benchmark: BenchmarkFixture, name: str) -> None:
    volume = INPUTS[name](cases.SIZE)
    slabs = np.array_split(volume, 5)
    expected, n = vk.label(volume)

    def run() -> tuple[int, list[Any]]:
        labels, found = vk.label_slabs(slabs)
        return found, list(labels)

    found, listed = run()
    assert found == n
    np.testing.assert_array_equal(np.concatenate(listed), expected)
    benchmark.extra_info["voxels"] = volume.size
    benchmark(run)
