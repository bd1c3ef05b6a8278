"""One measurement in a process of its own: `python -m benchmarks.measure WHAT OPERATION CASE EDGE FOLDER [...]`.

WHAT is `check` (every answer against every peer's), `time` (paired runs), `stream` (call after call), `peak` (memory of
one call) or `first` (the first call of a new process). The arrays lie in FOLDER as `.npy`; the result is one line of
JSON.
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import mmap
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np

from benchmarks import harness
from benchmarks.harness import Arrays, Case
from cbdetach.estimate import available_memory

LEAST, MOST = 3, 15
"""How often a call is timed."""
ENOUGH_S, SLOW_S = 6.0, 6.0
"""How long the runs of one case may take beyond the least number of repeats; how long a peer, to be run again."""

STREAM = 2**25
"""How many voxels at least are measured at a time for the cost of growth."""

ENOUGH = 2**20
"""Voxels that stand for a whole volume."""

BYTES = 32
"""How much memory, for each voxel, is used once before each call."""


def load(folder: Path) -> Arrays:
    """The arrays of a case, in memory."""
    return tuple(np.load(path) for path in sorted(folder.glob("*.npy")))


def save(folder: Path, arrays: Arrays) -> None:
    """Lay the arrays of a case down in an empty folder."""
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.npy"):
        path.unlink()
    for k, array in enumerate(arrays):
        np.save(folder / f"{k}.npy", array)


def beginning(arrays: Arrays) -> Arrays:
    """Slices enough to compile, load and import everything that a call needs: kernels treat small volumes otherwise."""
    n = max(8, -(-ENOUGH * len(arrays[0]) // arrays[0].size))
    return tuple(array[:n].copy() for array in arrays)


def touch_memory(voxels: int) -> None:
    """Use as much memory as a call may need, once.

    A virtual machine gets a page from its host when it is first used, and gives it back after a while in which nobody
    does; that takes ten times as long as to use it again, and would be counted against whoever comes next.
    """
    free = available_memory() or math.inf
    np.empty(int(min(BYTES * voxels, free / 2)), np.uint8)[:: mmap.PAGESIZE] = 1


def time_pairs(case: Case, arrays: Arrays, edge: int, threads: list[int]) -> dict[str, Any]:
    """Ours and each peer's call one after the other, the first one another each time, on fresh arrays each time.

    Once each has run as often as it must, only the fastest peer goes on beside ours: where calls ask the system for
    much memory, a few runs tell more about the system than about the library.

    Returns the seconds of every run, by solver: `ours 1`, `ours 2` (with so many threads) and the peers.
    """
    peers = case.peers_at(edge)
    small = beginning(arrays)
    case.ours(*small)
    for peer in peers.values():
        peer.call(*peer.prepare(*small))

    def ours(n: int) -> Callable[[Arrays], float]:
        def run(fresh: Arrays) -> float:
            numba.set_num_threads(n)
            touch_memory(fresh[0].size)
            start = time.perf_counter()
            case.ours(*fresh)
            return time.perf_counter() - start

        return run

    def theirs(name: str) -> Callable[[Arrays], float]:
        def run(fresh: Arrays) -> float:
            prepared = peers[name].prepare(*fresh)
            touch_memory(fresh[0].size)
            start = time.perf_counter()
            peers[name].call(*prepared)
            return time.perf_counter() - start

        return run

    solvers = {f"ours {n}": ours(n) for n in threads} | {name: theirs(name) for name in peers}
    seconds: dict[str, list[float]] = {name: [] for name in solvers}
    done: set[str] = set()
    spent = 0.0
    for repeat in range(MOST):
        if repeat == LEAST:
            typical = {name: statistics.median(runs) for name, runs in seconds.items()}
            rivals = [name for name in peers if name not in done and not peers[name].baseline]
            done |= peers.keys() - {min(rivals, key=lambda name: typical[name], default="")}
            spent = sum(typical[name] for name in solvers if name not in done)
        if spent > ENOUGH_S:
            break
        fresh = case.fresh(arrays, repeat)
        names = list(solvers)
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            if name in done:
                continue
            seconds[name].append(solvers[name](fresh))
            if name in peers and seconds[name][-1] > SLOW_S:
                done.add(name)  # once is enough
            spent += seconds[name][-1] if repeat >= LEAST else 0.0
    return {"seconds": seconds, "units": case.units(*arrays), "shape": list(arrays[0].shape)}


def stream(case: Case, arrays: Arrays, threads: list[int]) -> dict[str, list[float]]:
    """Seconds of a call on such arrays, by number of threads: small ones come one after the other, each of them fresh.

    So a small volume is measured as it is met where there are many of them. A single call of 0.1 ms after a pause
    would tell how long it takes to fetch Python and the code once more.
    """

    def run(fresh: list[Arrays]) -> float:
        start = time.perf_counter()
        for one in fresh:
            case.ours(*one)
        return (time.perf_counter() - start) / len(fresh)

    n_calls = max(1, -(-STREAM // arrays[0].size))
    case.ours(*arrays)
    seconds: dict[str, list[float]] = {str(n): [] for n in threads}
    spent = 0.0
    for repeat in range(MOST):
        if repeat >= LEAST and spent > ENOUGH_S * len(threads):
            break
        for n, runs in seconds.items():
            fresh = [case.fresh(arrays, repeat + k) for k in range(n_calls)]
            touch_memory(arrays[0].size * n_calls)
            numba.set_num_threads(int(n))
            runs.append(run(fresh))
            spent += runs[-1] * n_calls
            del fresh  # here: the system takes long to have so much memory back
    return seconds


def memory_kb(field: str) -> int:
    """VmRSS (now) or VmHWM (the peak) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise KeyError(field)


def peak(call: Callable[..., Any], arrays: Arrays, prepare: Callable[..., Arrays]) -> float:
    """The most memory, in MB, that a call takes beyond what is there before it; its result is part of it."""
    call(*prepare(*beginning(arrays)))
    prepared = prepare(*arrays)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = memory_kb("VmRSS")
    kept = call(*prepared)
    high = memory_kb("VmHWM")
    del kept
    return (high - before) * 1024 / 1e6


def main(what: str, operation: str, name: str, edge: int, folder: Path, *more: str) -> Any:
    """Do one measurement."""
    (case,) = (case for case in harness.cases_of(operation) if case.name == name)
    arrays = load(folder)
    if what == "check":
        harness.check(case, arrays, edge)
        return {"checked": [*case.peers_at(edge)]}
    if what == "time":
        return time_pairs(case, arrays, edge, [int(n) for n in more])
    if what == "stream":
        return stream(case, arrays, [int(n) for n in more])
    if what == "peak":
        peer = case.peers.get(more[0])
        return peak(peer.call, arrays, peer.prepare) if peer else peak(case.ours, arrays, harness.given)
    start = time.perf_counter()
    case.ours(*arrays)
    return time.perf_counter() - start


if __name__ == "__main__":
    what, operation, name, edge, folder, *more = sys.argv[1:]
    sys.stdout.write(json.dumps(main(what, operation, name, int(edge), Path(folder), *more)) + "\n")
