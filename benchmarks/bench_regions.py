"""Region properties beside cc3d.statistics and, with grey values, scipy.ndimage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import voxkernels as vk
from benchmarks import cases, harness
from benchmarks.cases import Array
from benchmarks.harness import Arrays, Case, Peer


def with_cc3d(labels: Array) -> Any:
    import cc3d

    return cc3d.statistics(labels, no_slice_conversion=True)


def same_shapes(arrays: Arrays, ours: vk.RegionProperties, theirs: Any) -> None:
    np.testing.assert_array_equal(theirs["voxel_counts"][ours.labels], ours.count)
    np.testing.assert_allclose(theirs["centroids"][ours.labels], ours.centroid, rtol=1e-6)
    boxes = np.asarray(theirs["bounding_boxes"], np.int64)[ours.labels]  # z0, z1, y0, y1, x0, x1, both ends included
    np.testing.assert_array_equal(np.concatenate([boxes[:, ::2], boxes[:, 1::2] + 1], axis=1), ours.bbox)


def with_scipy(labels: Array, image: Array) -> list[Array]:
    from scipy import ndimage

    index = np.arange(1, labels.max() + 1)
    measures = (ndimage.mean, ndimage.standard_deviation, ndimage.minimum, ndimage.maximum)
    with np.errstate(invalid="ignore"):  # it divides by the size of the background, which may be empty
        return [np.asarray(measure(image, labels, index)) for measure in measures]


def same_grey(arrays: Arrays, ours: vk.RegionProperties, theirs: list[Array]) -> None:
    for name, values in zip(("mean", "std", "min", "max"), theirs, strict=True):
        np.testing.assert_allclose(getattr(ours, name), values[ours.labels - 1], rtol=1e-6)


def unsigned(labels: Array, *_: Array) -> Arrays:
    """What cc3d takes without a copy; it has no grey values."""
    return (labels.view(np.uint32),)


CC3D = Peer("cc3d", with_cc3d, same_shapes, prepare=unsigned)
SCIPY = Peer("scipy", with_scipy, same_grey, largest=128)

VOLUMES = {
    "electrode 28 %": lambda size: cases.electrode(size).labels,
    "electrode 12 %": lambda size: cases.electrode(size, 12).labels,
    "300 labels at random": cases.noise,
    "constant": cases.constant,
}
MEASURED = {
    "nmc": lambda _: cases.measured_electrode("nmc_cathode_3phase.tif").labels,
    "grains": lambda _: cases.measured_electrode("grains_binary.tif").labels,
}


def both(name: str, make: Any, size: int | None = None) -> list[Case]:
    """A case of shapes alone, and one with grey values."""
    grown = name == "electrode 28 %"
    return [
        Case(
            name,
            lambda edge: (make(edge),),
            vk.region_properties,
            {"cc3d": CC3D},
            size=size,
            edges=(256, 512) if grown else (256,),
            growth=(lambda edge: (cases.lattice(edge).labels,)) if grown else None,
        ),
        Case(
            f"{name}, grey",
            lambda edge: (labels := make(edge), cases.grey(labels.shape)),
            vk.region_properties,
            {"cc3d": CC3D, "scipy": SCIPY},
            size=size,
            shown=name not in ("electrode 12 %", "constant"),
        ),
    ]


CASES = [case for name, make in VOLUMES.items() for case in both(name, make)]
CASES += [case for name, make in MEASURED.items() for case in both(name, make, 0)]


@pytest.mark.parametrize("case", harness.toys(CASES), ids=str)
def test_region_properties(benchmark: BenchmarkFixture, case: Case) -> None:
    harness.run(benchmark, case)


@pytest.mark.parametrize(("case", "peer"), harness.toy_peers(CASES), ids=str)
def test_peer(benchmark: BenchmarkFixture, case: Case, peer: str) -> None:
    harness.run_peer(benchmark, case, peer)
