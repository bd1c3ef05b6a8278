"""The machine that is measured: its name, its versions, and how fast it copies memory."""

from __future__ import annotations

import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from cbdetach.device import Gpu

COPY_BYTES = 2**28
"""Bytes that are copied to measure the bandwidth: more than caches hold."""

LIBRARIES = ("numpy", "numba", "scipy", "scikit-image", "onnxruntime", "onnxruntime-gpu")


def copy_bandwidth(n_threads: int, n_bytes: int = COPY_BYTES) -> float:
    """Bytes read and written in a second by `numpy.copyto`, on so many threads at once; the best of five."""
    source, target = np.zeros(n_bytes, np.uint8), np.ones(n_bytes, np.uint8)
    parts = [slice(n_bytes * i // n_threads, n_bytes * (i + 1) // n_threads) for i in range(n_threads)]

    def copy(part: slice) -> None:
        np.copyto(target[part], source[part])

    def seconds() -> float:
        began = time.perf_counter()
        list(pool.map(copy, parts))
        return time.perf_counter() - began

    with ThreadPoolExecutor(n_threads) as pool:
        return 2 * n_bytes / min(seconds() for _ in range(5))


def copy_bandwidth_of(gpu: Gpu, n_bytes: int = COPY_BYTES) -> float:
    """Bytes read and written in a second by a copy within the device's memory; the best of five.

    By the driver's own copy: CuPy's `array.copy` moves bytes one by one, at a tenth of the speed (H200).
    """
    source, target = (gpu.send(np.zeros(n_bytes, np.uint8)) for _ in range(2))
    with gpu.stream():
        return 2 * n_bytes / min(gpu.seconds(lambda: gpu.copy(source, target)) for _ in range(5))


def about(gpu: Gpu | None) -> dict[str, Any]:
    """The machine and the versions of what computes."""
    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "threads": n_threads(),
        "gpu": None if gpu is None else gpu.about,
        "platform": platform.platform(),
        "versions": {"python": platform.python_version()} | {n: v for n in LIBRARIES if (v := _version(n))},
    }


def n_threads() -> int:
    """Threads that the kernels use now."""
    import numba

    return int(numba.get_num_threads())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
