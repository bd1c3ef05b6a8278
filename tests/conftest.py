"""Fixtures for all tests: where the measured volumes lie, and small, repeatable property tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numba
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "default", max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: one thread each
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    numba.set_num_threads(1)

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of measured volumes: variable CBDETACH_REAL_DATA, else ../shared/data beside the project."""
    folder = Path(os.environ.get("CBDETACH_REAL_DATA", PROJECT.parent / "shared" / "data"))
    if not (folder / "nmc_cathode_3phase.tif").exists():
        pytest.skip(f"the measured volumes are not at {folder}; set CBDETACH_REAL_DATA to their folder")
    return folder


@pytest.fixture
def threads() -> Iterator[int]:
    """How many threads Numba has here, all of them in use during the test."""
    before, most = numba.get_num_threads(), int(numba.config.NUMBA_NUM_THREADS)
    numba.set_num_threads(most)
    yield most
    numba.set_num_threads(before)
