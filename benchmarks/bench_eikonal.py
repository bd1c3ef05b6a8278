"""`travel_time` and `trace_paths` at toy size, beside scikit-fmm, each answer checked before it is timed.

Run as a script, `python -m benchmarks.bench_eikonal [size]`, it writes the accuracy on capped balls and the speed
beside scikit-fmm in one process to benchmarks/results/eikonal.json.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import skfmm
from scipy import ndimage
from tests.contract.test_eikonal import capped_balls

import voxkernels as vk

CROSS = ndimage.generate_binary_structure(3, 1)


def cracked_balls(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Balls of radius 10 to 28 that do not touch, with partial planar cracks, and CBD in 45 % of the space between."""
    rng = np.random.default_rng(seed)
    domain = np.zeros((size,) * 3, bool)
    balls: list[tuple[np.ndarray, float]] = []
    for _ in range(5000):
        r, c = rng.uniform(10, 28), rng.uniform(0, size, 3)
        if any(np.linalg.norm(c - other) < r + s + 1 for other, s in balls):
            continue
        balls.append((c, r))
        low, high = np.maximum((c - r).astype(int), 0), np.minimum((c + r).astype(int) + 2, size)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        x = np.stack(np.mgrid[box], axis=-1) - c
        ball = (x**2).sum(axis=-1) <= r * r
        for _ in range(rng.integers(1, 4)):
            across, along = rng.normal(size=(2, 3))
            across /= np.linalg.norm(across)
            along -= along @ across * across
            ball &= (np.abs(x @ across) > 1) | (x @ along < 0)
        domain[box] |= ball
        if len(balls) >= 150 * (size / 256) ** 3:
            break
    noise = ndimage.gaussian_filter(rng.normal(size=domain.shape), 3)
    return domain, ~domain & (noise > np.quantile(noise[~domain], 0.55))


def scikit_fmm(domain: np.ndarray, sources: np.ndarray, order: int) -> np.ndarray:
    """Its usual set-up: half a voxel at every voxel that touches a source."""
    touching = domain & ndimage.binary_dilation(sources, CROSS)
    phi = np.ma.MaskedArray(np.where(touching, 0.0, 1.0), ~domain)
    return np.ma.filled(skfmm.travel_time(phi, np.ones(domain.shape), order=order), np.nan) + 0.5


@pytest.fixture(scope="module")
def case() -> tuple[np.ndarray, np.ndarray]:
    return cracked_balls(48)


@pytest.mark.parametrize("start", ["surface", "centres"])
@pytest.mark.parametrize("order", [1, 2])
def test_travel_time(benchmark: Any, case: tuple[np.ndarray, np.ndarray], order: int, start: str) -> None:
    domain, sources = case
    peer = scikit_fmm(domain, sources, 1)
    T = vk.travel_time(domain, sources, order=1, start="centres")
    reached = np.isfinite(T)
    np.testing.assert_allclose(T[reached], peer[reached], atol=1e-3)
    out = np.empty_like(T)
    result = benchmark(vk.travel_time, domain, sources, order=order, start=start, out=out)
    np.testing.assert_array_equal(np.isfinite(result), reached)


@pytest.mark.parametrize("order", [1, 2])
def test_scikit_fmm(benchmark: Any, case: tuple[np.ndarray, np.ndarray], order: int) -> None:
    benchmark.pedantic(scikit_fmm, args=(*case, order), rounds=1)


def test_trace_paths(benchmark: Any, case: tuple[np.ndarray, np.ndarray]) -> None:
    T = vk.travel_time(*case)
    starts = np.argwhere(np.isfinite(T))[::97]
    paths = benchmark(vk.trace_paths, T, starts)
    lengths = np.array([np.linalg.norm(np.diff(p, axis=0), axis=1).sum() for p in paths])
    assert abs(np.mean(lengths - T[tuple(starts.T)])) < 0.5


def accuracy(solver: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> dict[str, float]:
    """Error against the smooth geometry of capped balls, in voxels."""
    errors = [(solver(domain, sources)[domain] - truth) for domain, sources, truth in capped_balls()]
    worst = np.array([np.abs(e).max() for e in errors])
    return {
        "rms": round(float(np.sqrt(np.mean([np.mean(e**2) for e in errors]))), 3),
        "bias": round(float(np.mean([e.mean() for e in errors])), 3),
        "worst": round(float(worst.max()), 2),
        "balls_with_an_error_above_1": round(float((worst > 1).mean()), 3),
    }


def seconds(call: Callable[[], Any], repeats: int = 3) -> dict[str, float]:
    """Median wall and processor time."""
    wall, cpu = [], []
    for _ in range(repeats):
        w, c = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - w)
        cpu.append(time.process_time() - c)
    return {"wall_s": round(float(np.median(wall)), 3), "cpu_s": round(float(np.median(cpu)), 3)}


def main(size: int = 192) -> dict[str, Any]:
    """Accuracy and speed, written to results/eikonal.json."""
    begin = time.perf_counter()
    vk.travel_time(np.ones((1, 1, 1), bool), np.ones((1, 1, 1), bool))
    report: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "threads": numba.get_num_threads(),
        "versions": {m.__name__: m.__version__ for m in (np, numba, skfmm)},
        "first_call_s": round(time.perf_counter() - begin, 2),
        "accuracy": {f"scikit-fmm order {o}": accuracy(lambda d, s, o=o: scikit_fmm(d, s, o)) for o in (1, 2)},
        "speed": {},
    }
    domain, sources = cracked_balls(size)
    calls = {f"scikit-fmm order {o}": (lambda o=o: scikit_fmm(domain, sources, o), 1) for o in (1, 2)}
    for start in ("surface", "faces", "centres"):
        for o in (1, 2):
            options = {"order": o, "start": start}
            name = f"order {o}, {start}"
            report["accuracy"][name] = accuracy(lambda d, s, options=options: vk.travel_time(d, s, **options))
            calls[name] = (lambda options=options: vk.travel_time(domain, sources, **options), 3)
    report["case"] = {"size": size, "domain": int(domain.sum()), "sources": int(sources.sum())}
    for name, (call, repeats) in calls.items():
        times = seconds(call, repeats)
        rate = domain.sum() / 1e6
        report["speed"][name] = {**times, "domain_mvox_per_s": round(float(rate / times["wall_s"]), 2)}
    (Path(__file__).parent / "results").mkdir(exist_ok=True)
    (Path(__file__).parent / "results" / "eikonal.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*(int(a) for a in sys.argv[1:])), indent=1) + "\n")
