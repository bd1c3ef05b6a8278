"""Connected components beside cc3d: one value and several, in three regimes; answers are checked before the clock."""

from __future__ import annotations

import cc3d
import numpy as np
import numpy.typing as npt
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from scipy import ndimage

import voxkernels as vk
from benchmarks import cases

SIZE = cases.SIZE


def network() -> npt.NDArray[np.bool_]:
    """Smoothed noise above its mean: a percolating network with many short runs."""
    noise = np.random.default_rng(0).normal(size=(SIZE,) * 3)
    return np.asarray(ndimage.gaussian_filter(noise, 3) > 0)


CASES = {
    "electrode": lambda: cases.electrode() > 0,
    "network": network,
    "random": lambda: np.random.default_rng(0).random((SIZE,) * 3) < 0.3,
    "constant": lambda: cases.constant() > 0,
    "electrode-labels": cases.electrode,
    "phases": lambda: np.where(cases.electrode() > 0, np.uint8(2), network().astype(np.uint8)),
    "noise-labels": cases.noise,
    "constant-labels": cases.constant,
}


def peer(volume: npt.NDArray[np.generic], connectivity: int) -> npt.NDArray[np.generic]:
    found = cc3d.connected_components(volume, connectivity=connectivity, binary_image=volume.dtype == np.bool_)
    return np.asarray(found)


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("case", CASES)
def test_label(benchmark: BenchmarkFixture, case: str, connectivity: int) -> None:
    volume = CASES[case]()
    labels, n = vk.label(volume, connectivity=connectivity)
    expected = peer(volume, connectivity)
    assert n == expected.max()
    # one to one: as many distinct pairs as components
    assert len(np.unique(labels.astype(np.int64) * (n + 1) + expected)) == n + (not volume.all())
    benchmark.extra_info["voxels"] = volume.size
    benchmark(vk.label, volume, connectivity=connectivity)


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("case", CASES)
def test_peer_cc3d(benchmark: BenchmarkFixture, case: str, connectivity: int) -> None:
    volume = CASES[case]()
    benchmark.extra_info["voxels"] = volume.size
    benchmark(peer, volume, connectivity)


@pytest.mark.parametrize("case", ["electrode", "network"])
def test_label_slabs(benchmark: BenchmarkFixture, case: str) -> None:
    volume = CASES[case]()
    slabs = np.array_split(volume, 5)
    expected, n = vk.label(volume)

    def run() -> tuple[int, list[npt.NDArray[np.generic]]]:
        labels, found = vk.label_slabs(slabs)
        return found, list(labels)

    found, listed = run()
    assert found == n
    np.testing.assert_array_equal(np.concatenate(listed), expected)
    benchmark.extra_info["voxels"] = volume.size
    benchmark(run)
