"""The arguments of `travel_time` and `trace_paths`, checked: the same for every backend."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import (
    Spacing,
    as_array,
    as_image,
    as_labels,
    as_mask,
    as_spacing,
    choice,
    describe,
    narrow_labels,
    same_shape,
    where,
)
from .._compile import Cuda
from . import cuda

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.float32]


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
        labels = narrow_labels(labels, "domain")
    source = as_mask("sources", sources, device=device)
    same_shape("sources", source, "domain", labels)
    dz, dy, dx = as_spacing(spacing)
    choice("order", order, (1, 2))
    choice("start", start, ("surface", "faces", "centres"))
    pace, field = as_speed(speed, labels, device)
    latest = as_max_time(max_time)
    times = as_out(out, labels.shape, device)
    for name, given in (("domain", labels), ("sources", source), ("speed", field)):
        if given.size and np.may_share_memory(times, given):  # without a speed, what stands for it is NumPy's
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
        labels = narrow_labels(as_labels("domain", domain, device=device), "domain")
        same_shape("domain", labels, "T", times)
    points = as_starts(starts, times, device)
    if isinstance(step, bool) or not (isinstance(step, (int, float, np.floating)) and 0 < step <= 1):
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
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"starts: must be (N, 3) numbers; got {describe(starts)}. Each row is z, y, x in voxels.")
    finite = np.isfinite(points).all(axis=1)
    if not finite.all():
        raise ValueError(f"starts: must be finite; got {points[~finite][0].tolist()}. Take voxels with a finite T.")
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
