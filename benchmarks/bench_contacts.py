"""Contact areas at toy size: balls in a mixture of two phases, and noise; the answer is checked before the clock."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from scipy import ndimage

import voxkernels as vk

SIZE = 64
Arrays = tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]


def balls() -> Arrays:
    """27 balls of radius 7.5 to 9.5 on a grid, half of the rest CBD."""
    rng = np.random.default_rng(0)
    z, y, x = np.indices((SIZE,) * 3)
    pitch = SIZE / 3
    labels = np.zeros((SIZE,) * 3, np.int32)
    for label in range(1, 28):
        cz, cy, cx = (np.array(np.unravel_index(label - 1, (3, 3, 3))) + 0.5) * pitch - 0.5
        labels[(z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < rng.uniform(7.5, 9.5) ** 2] = label
    return labels, (ndimage.gaussian_filter(rng.normal(size=labels.shape), 2) > 0).astype(np.uint8)


def noise() -> Arrays:
    """Every voxel its own class and one of three labels: nothing to skip."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 4, (SIZE,) * 3).astype(np.int32), rng.integers(0, 2, (SIZE,) * 3).astype(np.uint8)


CASES = {"balls": balls, "noise": noise}


@pytest.mark.parametrize("estimator", ["faces", "crofton", "weighted"])
@pytest.mark.parametrize("case", CASES)
def test_contact_areas(benchmark: BenchmarkFixture, case: str, estimator: str) -> None:
    labels, phases = CASES[case]()
    c = vk.contact_areas(labels, phases, estimator=estimator)
    for axis in range(3):
        a, b = np.moveaxis(labels, axis, 0)[:-1], np.moveaxis(labels, axis, 0)[1:]
        assert c.faces[axis].sum() == ((a == 0) != (b == 0)).sum()
        assert c.pair_faces[axis].sum() == ((a != b) & (a > 0) & (b > 0)).sum()
    if case == "balls" and estimator != "faces":
        volume = np.bincount(labels.ravel())[c.labels]
        sphere = np.pi ** (1 / 3) * (6 * volume) ** (2 / 3)
        assert abs(c.area.sum() / sphere.sum() - 1) < 0.01
    benchmark.extra_info["voxels"] = labels.size
    benchmark(vk.contact_areas, labels, phases, estimator=estimator)
