"""Travel time through a masked or labelled volume, and the shortest paths through it.

Legend: Z,Y,X volume shape; N starts; n points of one path.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from voxkernels._arrays import UNIT, Spacing, as_array, as_labels, as_mask, as_spacing, choice, describe, narrow_labels, same_shape
from voxkernels.eikonal import cpu

BAND = 2.5
"""How far from a source straight lines replace the difference equation, in the smallest voxel spacing."""

TUBE = 0.9
"""How far beside a straight line, in voxels, the voxels may lie that count as in its way: it may graze a wall, not pass it."""

Ints = npt.NDArray[np.int64]
Times = npt.NDArray[np.float32]


def travel_time(
    domain: npt.NDArray[Any],
    sources: npt.NDArray[Any],
    *,
    spacing: Sequence[float] = UNIT,
    order: int = 2,
    start: str = "surface",
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
    start : how the front leaves. "surface": from the smooth surface behind the voxel faces; "faces": from the voxel faces
        as they are; both with exact straight-line times close to the sources, inside ones too. "centres": half a voxel
        at every voxel that touches, and nothing else but the difference equation. All three give exactly half a voxel
        before a flat face, at its rim too, and for a source one voxel thick.
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
    labels = as_labels("domain", domain)
    if labels.dtype != np.uint8:
        labels = narrow_labels(labels)
    source = as_mask("sources", sources)
    same_shape("sources", source, "domain", labels)
    h = as_spacing(spacing)
    choice("order", order, (1, 2))
    choice("start", start, ("surface", "faces", "centres"))
    pace, field = as_speed(speed, labels)
    latest = as_max_time(max_time)
    times = as_out(out, labels.shape)
    if not labels.size:
        return times
    if field.size and np.shares_memory(field, times):
        field = field.copy()

    ids = times.view(np.int32)
    boxes = cpu.split_components(labels, times, ids)
    workers = numba.get_num_threads()
    largest_first = np.argsort(-boxes[:, 6], kind="stable")
    owner = np.empty(len(boxes), np.int64)
    cpu.deal(boxes, largest_first, workers, owner)
    steps = np.array(h) / pace
    band = 0.0 if start == "centres" else BAND * steps.min()
    width = cpu.BUCKET * steps.min() / (field.max() if field.size else 1.0)
    cpu.solve(
        boxes, largest_first, owner, workers, source.reshape(-1).view(np.uint8), field.reshape(-1), steps, start == "surface", band,
        straight_lines((steps[0], steps[1], steps[2]), band), order, latest, width,
        np.array(times.shape), times.reshape(-1), ids.reshape(-1),
    )
    return times


def as_speed(speed: Any, domain: npt.NDArray[Any]) -> tuple[float, Times]:
    """Check `speed`: one number, and the array (empty where the speed is one number)."""
    nowhere = np.empty((0, 0, 0), np.float32)
    if speed is None:
        return 1.0, nowhere
    if isinstance(speed, np.ndarray) and speed.ndim:
        array = as_array("speed", speed, 3)
        same_shape("speed", array, "domain", domain)
        if array.dtype.kind not in "iuf":
            raise TypeError(f"speed: must be real numbers; got {describe(speed)}.")
        with np.errstate(over="ignore"):
            field = np.ascontiguousarray(array, np.float32)
        inside = field[domain != 0]
        if not (np.isfinite(inside) & (inside > 0)).all():
            raise ValueError(
                "speed: must be positive and finite inside the domain; got other values. Set the domain to 0 where nothing passes."
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


def as_out(out: Any, shape: tuple[int, ...]) -> Times:
    """Check `out`, or make it."""
    if out is None:
        return np.empty(shape, np.float32)
    if not isinstance(out, np.ndarray) or out.dtype != np.float32 or not out.dtype.isnative:
        raise TypeError(f"out: must be a float32 array; got {describe(out)}.")
    if out.shape != shape:
        raise ValueError(f"out: must have the shape of domain, {shape}; got {describe(out)}.")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ValueError("out: must be writable and in C order; got another layout. Make it with numpy.empty.")
    return out


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
    """Every shortest 6-connected way from voxel (0, 0, 0) to `end` whose voxels lie within TUBE of the line, the straightest first."""
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
        travel_time(domain, domain > 0)
