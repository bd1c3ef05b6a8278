"""Travel time through a masked or labelled volume, and the shortest paths through it.

Legend: Z,Y,X volume shape; N starts; n points of one path.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from .._arrays import UNIT, device_of
from .._compile import Cuda
from . import cpu, cpu_components, cpu_large, cpu_paths, cuda
from .arguments import Floats, Paths, Times, TravelTime, check_trace_paths, check_travel_time, too_long
from .batches import Batches
from .lines import BAND, line_lanes, straight_lines
from .spare import Spare

Ints = npt.NDArray[np.int64]

INDEX_LIMIT = 2**31 - 1  # runs of the domain that are numbered in 32 bits
PLACE_LIMIT = 2**16 - 1  # voxels along x that are numbered in 16 bits

SMALL = 32**3  # voxels of a volume that is not worth a second thread; to look for its runs,
SLAB = 2**18  # voxels of a slab that is


def travel_time(
    domain: npt.NDArray[Any],
    sources: npt.NDArray[Any],
    *,
    spacing: Sequence[float] = UNIT,
    order: int = 2,
    start: str = "surface",
    interfaces: bool = False,
    speed: float | npt.NDArray[Any] | None = None,
    max_time: float = math.inf,
    out: Times | None = None,
) -> Times:
    """Compute when a front that leaves the sources at time 0 arrives: |grad T| = 1/speed inside the domain.

    Parameters
    ----------
    domain : (Z, Y, X) bool or integer. 0 is an obstacle; a front never passes between two different positive labels.
    sources : (Z, Y, X) bool. A source voxel inside the domain: T = 0 at its centre. Outside the domain: T = 0 on the
        surface that it shares with the domain.
    spacing : (dz, dy, dx), any unit of length.
    order : 1 or 2, the order of the upwind differences.
    start : how the front leaves. "surface": from the smooth surface behind the voxel faces; "faces": from the voxel
        faces as they are; both with straight-line times close to the sources, inside ones too. "centres": half a
        voxel at every voxel that touches, and nothing else but the difference equation. All three give exactly half a
        voxel before a flat face, at its rim too, and for a source one voxel thick.
    interfaces : whether the surface that two different positive labels share is a source of both, as if the other label
        were a source outside the domain.
    speed : None for 1, a positive number, or a positive (Z, Y, X) array (read as float32).
    max_time : later arrivals become inf, and are not computed.
    out : (Z, Y, X) float32, C order, writable: filled and returned.

    Returns
    -------
    (Z, Y, X) float32: the arrival time, a length where speed is 1; inf where nothing arrives by `max_time`; nan outside
    the domain. The same bits for any number of threads. No voxel is later than one of its label beside it by more than
    the spacing over the speed (by order 2 in a varying speed: the lowest speed).

    Raises
    ------
    TypeError, ValueError : wrong type, shape, or value of any argument.
    """
    field = speed if getattr(speed, "ndim", 0) else None
    device = device_of(domain=domain, sources=sources, speed=field, out=out)
    checked = check_travel_time(domain, sources, spacing, order, start, speed, max_time, out, device)
    times = checked.times
    if not times.size:
        return times
    if device is not None:
        band = 0.0 if start == "centres" else BAND * min(checked.steps)
        volumes, lines = (checked.labels, checked.source, checked.speed), straight_lines(checked.steps, band)
        options = {"order": order, "start": start, "interfaces": interfaces, "max_time": checked.max_time}
        cuda.travel_time(device, *volumes, checked.steps, lines, band, times, **options)
        return times
    workers = numba.get_num_threads() if times.size > SMALL else 1
    with ThreadPoolExecutor(workers) as threads:  # kernels release the GIL; prange would double their compilation
        solve(checked, order, start, bool(interfaces), functools.partial(in_threads, threads, workers), workers)
    return times


def in_threads(
    threads: ThreadPoolExecutor, workers: int, function: Callable[..., Any], *items: Iterable[Any]
) -> list[Any]:
    """Map a function over items as `map` does; this thread takes part, so that one worker needs no other."""
    calls = list(zip(*items, strict=True))
    results: list[Any] = [None] * len(calls)
    turn = itertools.count()

    def work() -> None:
        while (n := next(turn)) < len(calls):
            results[n] = function(*calls[n])

    others = [threads.submit(work) for _ in range(min(workers, len(calls)) - 1)]
    work()
    for other in others:
        other.result()
    return results


def solve(task: TravelTime, order: int, start: str, interfaces: bool, run: cpu_large.Run, workers: int) -> None:
    """Travel times on the CPU. run : maps a function over items in threads."""
    count, runs, slabs = split(task.labels, run, workers)
    shortest = min(task.steps)
    band = 0.0 if start == "centres" else BAND * shortest
    fastest = float(task.speed[task.labels != 0].max(initial=0.0) or 1.0) if task.speed.size else 1.0
    scale = 2.0 ** -math.floor(math.log2(shortest / fastest))
    settings = (interfaces, start == "surface", band, order, task.max_time, scale)
    arrays = (task.source.reshape(-1).view(np.uint8), task.speed.reshape(-1), np.array(task.steps))
    grids = (np.array(task.times.shape), runs, task.times.reshape(-1))
    lines, given = straight_lines(task.steps, band) + line_lanes(task.steps, band), arrays + settings + grids
    batches = Batches(task.labels.shape, runs, count)
    spare = Spare(task.times)  # while no times are in it
    for number, box in batches.large():
        low, shape = cpu.window_of(box)
        cpu_large.solve_large(run, number, low, shape, lines, given, spare.take)
        spare = Spare(task.times[:0])
    outside = functools.partial(cpu_components.write_outside, task.times.reshape(-1), grids[0], runs)
    run(outside, slabs[:-1], slabs[1:])
    for before, boxes, work, large in batches:
        small = np.flatnonzero(~large)
        small = small[np.argsort(-work[small], kind="stable")]  # the dearest first
        shares = queue_of(work[small], workers)
        run(functools.partial(cpu.solve, before, boxes, small, lines, given), shares[:-1], shares[1:])


def split(labels: npt.NDArray[Any], run: cpu_large.Run, workers: int) -> tuple[int, Any, list[int]]:
    """Find the components of the domain: see `cpu_components`.

    Returns how many there are; the runs: the first of each row, their first voxels, the ones behind their last, and
    their components' numbers from 1; and the slices that cut the volume into slabs.
    """
    shape = np.array(labels.shape)
    flat = labels.reshape(-1)
    n_slabs = min(8 * workers, len(labels), -(-labels.size // SLAB))
    slabs = np.linspace(0, len(labels), n_slabs + 1).astype(np.int64)
    first = np.zeros(1 + int(shape[:2].prod()), np.int64)
    run(lambda begin, end: cpu_components.count_runs(flat, shape, begin, end, first), slabs[:-1], slabs[1:])
    np.cumsum(first, out=first)
    n = int(first[-1])
    place = np.uint16 if shape[2] <= PLACE_LIMIT else np.int32
    left, right = np.empty(n, place), np.empty(n, place)
    parent = np.empty(n, np.int32 if n <= INDEX_LIMIT else np.int64)
    runs = (first, left, right, parent)
    run(lambda begin, end: cpu_components.find_runs(flat, shape, begin, end, *runs), slabs[:-1], slabs[1:])
    count = cpu_components.number_components(flat, shape, slabs[1:-1], *runs)  # parents become numbers
    return count, (first, left, right, parent.astype(np.int32, copy=False)), slabs.tolist()


def queue_of(work: Ints, workers: int) -> list[int]:
    """Where to cut a list of components, the dearest first, into shares that idle workers take one after the other.

    Shares become smaller towards the end, so that no worker waits long for the last.
    """
    done = np.append(0, np.cumsum(work))
    cuts, least = [0], done[-1] // (64 * workers)
    while cuts[-1] < len(work):
        share = max((done[-1] - done[cuts[-1]]) // (4 * workers), least, 1)
        end = int(np.searchsorted(done, done[cuts[-1]] + share))
        cuts.append(min(end, len(work)))
    return cuts


def trace_paths(
    T: npt.NDArray[Any],
    starts: npt.NDArray[Any] | Sequence[Sequence[float]],
    *,
    spacing: Sequence[float] = UNIT,
    domain: npt.NDArray[Any] | None = None,
    step: float = 0.5,
    max_steps: int = 100_000,
) -> list[Floats]:
    """Follow the fastest way from each start back to where the front came from: steepest descent on T.

    Parameters
    ----------
    T : (Z, Y, X) arrival times, as from `travel_time`: nan outside the domain, inf where nothing arrived.
    starts : (N, 3) index coordinates (z, y, x), each in a voxel with a finite time: an array as T is, or a sequence.
    spacing : (dz, dy, dx), as for T.
    domain : the labels that T was computed with, where different labels touch: a path stays in the label of its start.
    step : length of a step in the smallest spacing, up to 1.
    max_steps : a path longer than that raises ValueError.

    Returns
    -------
    A list of N arrays (n, 3) float64, index coordinates, the start first and the contact last; CuPy arrays if T is one,
    with the same bits. With speed 1 a path is as long as T at its start: 19 of 20 within 3 % and half a voxel. No point
    leaves the domain.

    Raises
    ------
    TypeError, ValueError : wrong argument, or a start outside the volume, outside the domain, or where nothing arrived.
    """
    device = device_of(T=T, starts=starts if hasattr(starts, "dtype") else None, domain=domain)
    task = check_trace_paths(T, starts, spacing, domain, step, max_steps, device)
    if not len(task.starts):
        return []
    if device is not None:
        return _trace_on(device, task)
    first = np.zeros(len(task.starts) + 1, np.int64)
    count = np.zeros(len(task.starts), np.int64)
    room = np.empty((0, 3))
    for _ in range(2):  # count, then write
        cpu_paths.trace_all(
            task.times, task.labels, task.starts, np.array(task.h), task.stride, task.max_steps, first, room, count
        )
        if (count < 0).any():
            raise ValueError(too_long(task.max_steps, task.starts[np.argmin(count)]))
        np.cumsum(count, out=first[1:])
        room = room if len(room) else np.empty((int(first[-1]), 3))
    return np.split(room, first[1:-1])


def _trace_on(device: Cuda, task: Paths) -> list[Floats]:
    labels = task.labels if task.labels.size else None
    points, count = cuda.trace_paths(device, task.times, labels, task.starts, task.h, task.stride, task.max_steps)
    if (count < 0).any():
        raise ValueError(too_long(task.max_steps, task.starts[np.argmin(count)]))
    ends = np.cumsum(count)
    return [points[end - n : end] for end, n in zip(ends.tolist(), count.tolist(), strict=True)]


def _warmup() -> None:
    """Compile what the pipeline uses."""
    for kind in (np.bool_, np.int32):
        domain = np.ones((2, 2, 2), kind)
        T = travel_time(domain, domain == 1)
        trace_paths(T, [(1, 1, 1)])
