"""Region properties beside cc3d.statistics; the answer is checked before the clock."""

from __future__ import annotations

import cc3d
import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import voxkernels as vk
from benchmarks import cases


@pytest.mark.parametrize("with_image", [False, True], ids=["shape", "grey"])
@pytest.mark.parametrize("volume", cases.VOLUMES)
def test_region_properties(benchmark: BenchmarkFixture, volume: str, with_image: bool) -> None:
    labels = cases.VOLUMES[volume]()
    image = cases.grey() if with_image else None
    r = vk.region_properties(labels, image)
    np.testing.assert_array_equal(r.count, np.bincount(labels.ravel())[r.labels])
    z = np.broadcast_to(np.arange(len(labels))[:, None, None], labels.shape)
    np.testing.assert_allclose(r.centroid[:, 0], np.bincount(labels.ravel(), z.ravel())[r.labels] / r.count)
    if r.mean is not None and image is not None:
        np.testing.assert_allclose(r.mean, np.bincount(labels.ravel(), image.ravel())[r.labels] / r.count)
    benchmark.extra_info["voxels"] = labels.size
    benchmark(vk.region_properties, labels, image)


@pytest.mark.parametrize("volume", cases.VOLUMES)
def test_peer_cc3d_statistics(benchmark: BenchmarkFixture, volume: str) -> None:
    labels = cases.VOLUMES[volume]().astype(np.uint32)
    benchmark.extra_info["voxels"] = labels.size
    benchmark(cc3d.statistics, labels)
