"""Connected components at toy size: random, blobs, full and several values; answers are checked before the clock."""

from __future__ import annotations

import cc3d
import numpy as np
import numpy.typing as npt
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from scipy import ndimage

import voxkernels as vk

SIZE = 64


def blobs() -> npt.NDArray[np.float64]:
    noise = np.random.default_rng(0).normal(size=(SIZE,) * 3)
    return np.asarray(ndimage.gaussian_filter(noise, 2))


CASES = {
    "random": lambda: np.random.default_rng(0).random((SIZE,) * 3) < 0.3,
    "blobs": lambda: blobs() > 0,
    "full": lambda: np.ones((SIZE,) * 3, bool),
    "values": lambda: np.digitize(blobs(), [-0.03, 0.0, 0.03]).astype(np.int32),
}


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("case", CASES)
def test_label(benchmark: BenchmarkFixture, case: str, connectivity: int) -> None:
    volume = CASES[case]()
    labels, n = vk.label(volume, connectivity=connectivity)
    expected = cc3d.connected_components(volume, connectivity=connectivity)
    assert n == expected.max()
    # one to one: as many distinct pairs as components
    assert len(np.unique(labels.astype(np.int64) * (n + 1) + expected)) == n + (not volume.all())
    benchmark.extra_info["voxels"] = volume.size
    benchmark(vk.label, volume, connectivity=connectivity)
