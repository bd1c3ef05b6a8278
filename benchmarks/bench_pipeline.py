"""A whole run: its speed, and its peak of memory, which slabs bound and the height of the volume does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import cbdetach
from cbdetach.codes import ACTIVE, CBD

PLANE = 96
PERIOD = 24
OPTIONS: dict[str, Any] = {"phase_values": {"void": 0, "cbd": 1, "active": 2}, "voxel_size": 0.5, "slab": PERIOD}

CHILD = """
import resource, sys, cbdetach
options = dict(phase_values=dict(void=0, cbd=1, active=2), voxel_size=0.5, slab=24)
run = cbdetach.run(out=sys.argv[2], phases=sys.argv[1], config={"segment": {"halo": 12}}, **options)
print(len(run.table), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def balls(height: int) -> np.ndarray[Any, Any]:
    """Phases of a lattice of balls, each coated below its middle."""
    z, y, x = np.meshgrid(*(np.arange(n) % PERIOD - PERIOD // 2 for n in (height, PLANE, PLANE)), indexing="ij")
    r = np.sqrt(z * z + y * y + x * x)
    phases = np.where((r <= 11) & (z < 0), CBD, 0).astype(np.uint8)
    phases[r <= 9] = ACTIVE
    return phases


def test_run(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    phases = balls(2 * PERIOD)
    count = iter(range(100))
    run = benchmark.pedantic(
        lambda: cbdetach.run(out=tmp_path / str(next(count)), phases=phases, **OPTIONS), rounds=1, warmup_rounds=1
    )
    assert len(run.table) == 2 * (PLANE // PERIOD) ** 2
    assert run.table["detachment_fraction"].median() == pytest.approx(0.53, abs=0.03)


def test_memory_does_not_grow_with_height(tmp_path: Path) -> None:
    peaks = {}
    for periods in (5, 10):
        volume = tmp_path / f"{periods}.npy"
        np.save(volume, balls(periods * PERIOD))
        child = [sys.executable, "-c", CHILD, str(volume), str(tmp_path / str(periods))]
        found, peak = subprocess.run(child, check=True, capture_output=True, text=True).stdout.split()
        assert int(found) == periods * (PLANE // PERIOD) ** 2
        peaks[periods] = int(peak)
    assert abs(peaks[10] / peaks[5] - 1) < 0.2
