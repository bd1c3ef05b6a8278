"""Travel time through a masked or labelled volume, and the shortest paths through it.

Legend: Z,Y,X volume shape; N starts; n points of one path.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from .._arrays import (
    UNIT,
    Spacing,
    as_array,
    as_image,
    as_labels,
    as_mask,
    as_spacing,
    choice,
    describe,
    device_of,
    narrow_labels,
    same_shape,
    where,
)
from .._compile import Cuda
from . import cpu, cpu_components, cpu_large, cpu_paths, cuda

BAND = 2.0
"""How far from a source straight lines replace the difference equation, in the smallest voxel spacing."""

TUBE = 0.9
"""How far beside a straight line, in voxels, the ways along it may run: a line may graze a wall, not pass it."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Times = npt.NDArray[np.float32]


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
    the domain. The same bits for any number of threads.

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
    workers = numba.get_num_threads()
    with ThreadPoolExecutor(workers) as threads:  # kernels release the GIL; prange would double their compilation
        solve(checked, order, start, bool(interfaces), threads, workers)
    return times


def solve(
    task: TravelTime, order: int, start: str, interfaces: bool, threads: ThreadPoolExecutor, workers: int
) -> None:
    """Travel times on the CPU."""
    boxes = split(task.labels, task.times, threads, workers)
    largest_first = np.argsort(-boxes[:, 6], kind="stable")
    shortest = min(task.steps)
    band = 0.0 if start == "centres" else BAND * shortest
    fastest = float(task.speed[task.labels != 0].max(initial=0.0) or 1.0) if task.speed.size else 1.0
    scale = 2.0 ** -math.floor(math.log2(shortest / fastest))
    flat = task.times.reshape(-1)
    settings = (interfaces, start == "surface", band, order, task.max_time, scale)
    arrays = (task.source.reshape(-1).view(np.uint8), task.speed.reshape(-1), np.array(task.steps))
    grids = (np.array(task.times.shape), flat, flat.view(np.int32))
    lines, given = straight_lines(task.steps, band), arrays + settings + grids
    large = (boxes[:, 1:6:2] - boxes[:, 0:6:2]).prod(axis=1) > cpu.LARGE
    for c in np.flatnonzero(large):
        low, shape = cpu.window_of(boxes[c])
        cpu_large.solve_large(lambda *one: list(threads.map(*one)), int(c) + 1, low, shape, lines, given)
    small = largest_first[~large[largest_first]]
    shares = queue_of(boxes[small, 6], workers)
    work = functools.partial(cpu.solve, boxes, small, lines, given)
    list(threads.map(work, shares[:-1], shares[1:]))


def split(labels: npt.NDArray[Any], times: Times, threads: ThreadPoolExecutor, workers: int) -> Ints:
    """Number the components of the domain in `times`, and return their boxes: see `cpu_components`."""
    shape = np.array(labels.shape)
    flat = labels.reshape(-1)
    slabs = np.linspace(0, len(labels), min(4 * workers, len(labels)) + 1).astype(np.int64)
    parts = list(threads.map(functools.partial(cpu_components.find_runs, flat, shape), slabs[:-1], slabs[1:]))
    begins = np.cumsum([0] + [len(left) for _, left, _, _ in parts])
    first = np.concatenate([part[0][:-1] + n for part, n in zip(parts, begins[:-1], strict=True)] + [begins[-1:]])
    left, right = (np.concatenate([part[n] for part in parts]) for n in (1, 2))
    number = np.concatenate([part[3] + n for part, n in zip(parts, begins[:-1], strict=True)])
    boxes: Ints = cpu_components.number_components(flat, shape, slabs[1:-1], first, left, right, number)
    runs = (first, left, right, number)
    write = functools.partial(cpu_components.write_numbers, times.reshape(-1), times.reshape(-1).view(np.int32))
    list(threads.map(functools.partial(write, shape, runs), slabs[:-1], slabs[1:]))
    return boxes


def queue_of(sizes: Ints, workers: int) -> list[int]:
    """Where to cut a list of components, the largest first, into shares that idle workers take one after the other."""
    share = max(int(sizes.sum()) // (16 * workers), 1)
    before = (np.cumsum(sizes) - sizes) // share
    return [0, *(np.flatnonzero(np.diff(before)) + 1).tolist(), len(sizes)]


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


# ---- checks, shared by the backends --------------------------------------------------------------------------------


@dataclass(frozen=True)
class TravelTime:
    """A checked call of `travel_time`: `steps` is the spacing over a uniform speed (`speed` is empty then)."""

    labels: npt.NDArray[Any]
    source: npt.NDArray[np.bool_]
    steps: Spacing
    speed: Times
    max_time: float
    times: Times


def check_travel_time(
    domain: Any,
    sources: Any,
    spacing: Any,
    order: Any,
    start: Any,
    speed: Any,
    max_time: Any,
    out: Any,
    device: Cuda | None = None,
) -> TravelTime:
    """Check the arguments of `travel_time`, whose arrays are NumPy's or those of `device`."""
    labels = as_labels("domain", domain, device=device)
    if labels.dtype != np.uint8:
        labels = narrow_labels(labels)
    source = as_mask("sources", sources, device=device)
    same_shape("sources", source, "domain", labels)
    dz, dy, dx = as_spacing(spacing)
    choice("order", order, (1, 2))
    choice("start", start, ("surface", "faces", "centres"))
    pace, field = as_speed(speed, labels, device)
    latest = as_max_time(max_time)
    times = as_out(out, labels.shape, device)
    for name, given in (("domain", labels), ("sources", source), ("speed", field)):
        if np.may_share_memory(times, given):
            raise ValueError(f"out: must not share memory with {name}; got a view of it. No input is written to.")
    return TravelTime(labels, source, (dz / pace, dy / pace, dx / pace), field, latest, times)


@dataclass(frozen=True)
class Paths:
    """A checked call of `trace_paths`: `labels` is empty without a domain; `stride` is the step as a length.

    `starts` are on the host, `times` and `labels` where they came from.
    """

    times: Times
    starts: Floats
    labels: npt.NDArray[Any]
    h: Spacing
    stride: float
    max_steps: int


def check_trace_paths(
    T: Any, starts: Any, spacing: Any, domain: Any, step: Any, max_steps: Any, device: Cuda | None = None
) -> Paths:
    """Check the arguments of `trace_paths`."""
    times = as_image("T", T, device=device)
    with where(times):
        times = times.astype(np.float32, copy=False)
    h = as_spacing(spacing)
    labels: npt.NDArray[Any] = np.empty((0, 0, 0), np.int32)
    if domain is not None:
        labels = narrow_labels(as_labels("domain", domain, device=device))
        same_shape("domain", labels, "T", times)
    points = as_starts(starts, times, device)
    if not (isinstance(step, (int, float)) and 0 < step <= 1):
        raise ValueError(
            f"step: must be above 0 and at most 1; got {describe(step)}. Its unit is the smallest spacing."
        )
    if isinstance(max_steps, bool) or not (isinstance(max_steps, (int, np.integer)) and max_steps > 0):
        raise ValueError(f"max_steps: must be a positive whole number; got {describe(max_steps)}.")
    return Paths(times, points, labels, h, float(step) * min(h), int(max_steps))


def too_long(max_steps: int, start: Floats) -> str:
    """The message for a path that does not end."""
    return f"max_steps: must be enough for every path; got {max_steps}, too few from {start.tolist()}. Give more."


def as_starts(starts: Any, times: npt.NDArray[Any], device: Cuda | None = None) -> Floats:
    """Check `starts`: points in voxels that the front reached. They come back on the host."""
    if device is not None and isinstance(starts, device.array_type):
        starts = device.fetch(starts)
    try:
        points = np.array(starts, np.float64, order="C")
    except (TypeError, ValueError):
        points = np.array(math.nan)
    if points.size == 0:
        return np.empty((0, 3))
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise ValueError(f"starts: must be (N, 3) numbers; got {describe(starts)}. Each row is z, y, x in voxels.")
    voxel = np.floor(points + 0.5)
    outside = ~((voxel >= 0) & (voxel < times.shape)).all(axis=1)
    if outside.any():
        raise ValueError(
            f"starts: must lie inside the volume of shape {times.shape}; got {points[outside][0].tolist()}. "
            "Give index coordinates, not lengths."
        )
    voxel = np.ravel_multi_index(tuple(voxel.astype(np.int64).T), times.shape)
    arrival = times.reshape(-1)[voxel] if device is None else cuda.times_at(device, times, voxel)
    if np.isnan(arrival).any():
        raise ValueError(
            f"starts: must lie inside the domain; got {points[np.isnan(arrival)][0].tolist()}, where T is nan. "
            "Take voxels with a finite T."
        )
    if np.isinf(arrival).any():
        raise ValueError(
            f"starts: must be reached by the front; got {points[np.isinf(arrival)][0].tolist()}, where T is inf. "
            "Take voxels with a finite T."
        )
    return points


def as_speed(speed: Any, domain: npt.NDArray[Any], device: Cuda | None = None) -> tuple[float, Times]:
    """Check `speed`: one number, and the array (empty where the speed is one number)."""
    nowhere = np.empty((0, 0, 0), np.float32)
    if speed is None:
        return 1.0, nowhere
    wanted: Any = np.ndarray if device is None else device.array_type
    if isinstance(speed, wanted) and speed.ndim:
        array = as_array("speed", speed, 3, device=device)
        same_shape("speed", array, "domain", domain)
        if array.dtype.kind not in "iuf":
            raise TypeError(f"speed: must be real numbers; got {describe(speed)}.")
        with np.errstate(over="ignore"), where(array):
            field = array.astype(np.float32, copy=False)
            good = bool((((field > 0) & (field < math.inf)) | (domain == 0)).all())
        if not good:
            raise ValueError(
                "speed: must be positive and finite inside the domain; got other values. "
                "Set the domain to 0 where nothing passes."
            )
        return 1.0, field
    try:
        pace = float(speed)
    except (TypeError, ValueError):
        pace = math.nan
    if not (math.isfinite(pace) and pace > 0):
        raise ValueError(f"speed: must be a positive number or a positive (Z, Y, X) array; got {describe(speed)}.")
    return pace, nowhere


def as_max_time(max_time: Any) -> float:
    """Check `max_time`."""
    try:
        latest = float(max_time)
    except (TypeError, ValueError):
        latest = math.nan
    if not latest >= 0:
        raise ValueError(f"max_time: must be a number of 0 or more, or inf; got {describe(max_time)}.")
    return latest


def as_out(out: Any, shape: tuple[int, ...], device: Cuda | None = None) -> Times:
    """Check `out`, or make it."""
    if out is None and device is not None:
        device.reserve("travel_time", 4 * math.prod(shape))
        made: Times = device.empty(shape, np.float32)
        return made
    if out is None:
        return np.empty(shape, np.float32)
    wanted: Any = np.ndarray if device is None else device.array_type
    if not isinstance(out, wanted) or out.dtype != np.float32 or not out.dtype.isnative:
        raise TypeError(f"out: must be a float32 array; got {describe(out)}.")
    if out.shape != shape:
        raise ValueError(f"out: must have the shape of domain, {shape}; got {describe(out)}.")
    if not (out.flags.c_contiguous and getattr(out.flags, "writeable", True)):  # CuPy's are
        raise ValueError("out: must be writable and in C order; got another layout. Make it with numpy.empty.")
    given: Times = out
    return given


@functools.lru_cache(maxsize=16)
def straight_lines(h: Spacing, band: float) -> tuple[Ints, Ints, Ints, Ints]:
    """The voxels in reach of a voxel, and the ways to each that stay close to the straight line.

    Returns offsets (K, 3), the nearest first; first_line (K + 1,), which ways lead to which; first_way (W + 1,), which
    voxels are on which way; via (V, 3), those voxels, without both ends.
    """
    radius = band + 0.5 * min(h) if band else 0.0
    reach = [range(-int(radius // d), int(radius // d) + 1) for d in h]
    length = {o: sum((i * d) ** 2 for i, d in zip(o, h, strict=True)) for o in product(*reach)}
    offsets = sorted((o for o in length if length[o] <= radius**2), key=length.__getitem__)
    ways = [close_ways(np.array(o)) for o in offsets]
    first_line = np.cumsum([0] + [len(each) for each in ways])
    first_way = np.cumsum([0] + [len(way) for each in ways for way in each])
    via = [voxel for each in ways for way in each for voxel in way]
    as_int = [np.array(a, np.int64) for a in (offsets, first_line, first_way, via)]
    return as_int[0], as_int[1], as_int[2], as_int[3].reshape(-1, 3)


def close_ways(end: Ints) -> list[list[Ints]]:
    """Every shortest 6-connected way from (0, 0, 0) to `end` within TUBE of the line, the straightest first."""
    found: list[tuple[float, list[Ints]]] = []

    def extend(way: list[Ints], widest: float) -> None:
        here = way[-1] if way else np.zeros(3, np.int64)
        for axis in np.flatnonzero(here != end):
            voxel = here.copy()
            voxel[axis] += np.sign(end[axis])
            if (voxel == end).all():
                found.append((widest, way))
                continue
            off = math.sqrt(np.sum(np.cross(voxel, end) ** 2) / np.sum(end**2))
            if off <= TUBE:
                extend([*way, voxel], max(widest, off))

    extend([], 0.0)
    return [way for _, way in sorted(found, key=lambda each: each[0])] or [[]]


def _warmup() -> None:
    """Compile what the pipeline uses."""
    for kind in (np.bool_, np.int32):
        domain = np.ones((2, 2, 2), kind)
        T = travel_time(domain, domain == 1)
        trace_paths(T, [(1, 1, 1)])
