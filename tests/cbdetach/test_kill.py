"""SIGKILL at random instants: a run that was killed again and again ends with the same bytes as one that was not.

CBDETACH_KILLS sets how many kills there are (4; 20 for the full measurement).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cbdetach.codes import ACTIVE, CBD

KILLS = int(os.environ.get("CBDETACH_KILLS", "4"))


def electrode() -> np.ndarray:
    """Phases of nine balls, each coated below its middle."""
    grid = np.indices((36, 66, 66))
    phases = np.zeros((36, 66, 66), np.uint8)
    for y in (12, 33, 54):
        for x in (12, 33, 54):
            r = np.sqrt((grid[0] - 18) ** 2 + (grid[1] - y) ** 2 + (grid[2] - x) ** 2)
            phases[(r <= 11) & (grid[0] < 18)] = CBD
    for y in (12, 33, 54):
        for x in (12, 33, 54):
            r = np.sqrt((grid[0] - 18) ** 2 + (grid[1] - y) ** 2 + (grid[2] - x) ** 2)
            phases[r <= 9] = ACTIVE
    return phases


def contents(folder: Path) -> dict[str, str]:
    """Hash of every slab, table and figure, and the record without its timings."""
    wanted = [
        *folder.glob("*/slab_*.h5"),
        *folder.glob("figures/*"),
        *folder.glob("particles.*"),
        *folder.glob("*.csv"),
    ]
    found = {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(wanted)}
    record = json.loads((folder / "run.json").read_text())
    return found | {"run.json": json.dumps({k: v for k, v in record.items() if k != "timings"}, sort_keys=True)}


def start(volume: Path, out: Path) -> subprocess.Popen[bytes]:
    """The command line, as a person runs it."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "cbdetach",
            "run",
            "--phases",
            str(volume),
            "--phase-values",
            "void=0,cbd=1,active=2",
            "--voxel-size",
            "0.5",
            "--slab",
            "9",
            "--quiet",
            "--resume",
            "-o",
            str(out),
        ]
    )


@pytest.mark.slow
def test_killed_at_random_instants(tmp_path: Path) -> None:
    np.save(tmp_path / "phases.npy", electrode())
    began = time.perf_counter()
    assert start(tmp_path / "phases.npy", tmp_path / "undisturbed").wait() == 0
    took = time.perf_counter() - began
    expected = contents(tmp_path / "undisturbed")
    clock, killed, rounds = random.Random(7), 0, 0
    while killed < KILLS:
        rounds += 1
        assert rounds <= 5 * KILLS, "the run ends before it can be killed"
        out = tmp_path / f"killed_{rounds}"
        for _ in range(3):  # the same run, several times
            process = start(tmp_path / "phases.npy", out)
            time.sleep(clock.uniform(0.3, 1.0) * took)
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        assert start(tmp_path / "phases.npy", out).wait() == 0
        assert contents(out) == expected
