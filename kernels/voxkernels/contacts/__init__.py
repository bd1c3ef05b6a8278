"""Contact areas: how much of every label's surface faces which phase, which other label, or the end of the volume.

Legend: Z,Y,X volume shape; N labels; P phase values; K pairs of labels that share a face.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from operator import index
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from .._arrays import (
    UNIT,
    Spacing,
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
from . import cpu, cuda

CONTACT_HALO = 2
"""How many slices around a core the area of its faces depends on."""

_ESTIMATORS = {"faces": cpu.FACES, "crofton": cpu.CROFTON, "weighted": cpu.WEIGHTED}
_TABLE_ROWS = (1 << 10, 1 << 18)
"""The fewest and the most rows of a block's table at first: one for 1024 voxels, as long as that is enough."""

BLOCK_VOXELS = 1 << 16
"""A thread gets about so many voxels or more."""

_NOT_GIVEN = np.zeros((0, 0, 0), np.bool_)
_LARGEST_PHASE = (1 << 16) - 1


@dataclass(frozen=True)
class ContactAreas:
    """Areas in the square of the unit of `spacing`; every row of N is the label in `labels`.

    labels (N,) int64, ascending, without 0; area (N, P), column p is phase value p; pairs (K, 2) int64, ascending, the
    lower label first; pair_area (K,); border (N,) at the ends of the volume; mouth (N,) of voxels that are not solid;
    faces (3, N, P) and pair_faces (3, K) int64, the voxel faces per axis behind `area` and `pair_area`.
    """

    labels: npt.NDArray[np.int64]
    area: npt.NDArray[np.float64]
    pairs: npt.NDArray[np.int64]
    pair_area: npt.NDArray[np.float64]
    border: npt.NDArray[np.float64]
    mouth: npt.NDArray[np.float64]
    faces: npt.NDArray[np.int64]
    pair_faces: npt.NDArray[np.int64]
    spacing: Spacing


def contact_areas(
    labels: npt.NDArray[Any],
    phases: npt.NDArray[Any],
    *,
    spacing: Sequence[float] = UNIT,
    estimator: str = "weighted",
    solid: npt.NDArray[Any] | None = None,
    core: tuple[int, int] | None = None,
) -> ContactAreas:
    """Measure the surface of every label, split by what it faces.

    Parameters
    ----------
    labels    : (Z, Y, X) any integer type, any strides and byte order. 0 is background. Read as int32 if the values
                fit, else as int64 (a copy unless it is so already).
    phases    : (Z, Y, X) bool or integer, at most 65535: the class of each voxel. Only the classes of voxels with
                label 0 are read; the phase beneath a label never matters.
    spacing   : (dz, dy, dx), the voxel size.
    estimator : how the area of a face is counted. "weighted": its own area divided by |n|_1 of the unit normal of its
                label, unbiased and the same for films of any thickness; "crofton": crossings of rays in 13 directions
                with Voronoi weights, unbiased for smooth bodies, but diagonal rays step over films one voxel thick;
                "faces": its own area (a ball gets 1.5 times its surface).
    solid     : (Z, Y, X) bool or None. Faces towards label 0 whose own voxel is not solid (a crack that opens outwards)
                count in `mouth` alone.
    core      : (lo, hi) or None. Count only voxels in slices lo..hi-1; the others are halo. With CONTACT_HALO slices of
                halo or more (fewer only at the volume's ends), slabs with disjoint cores sum to the whole volume:
                `merge_contacts`. A face between two labels belongs to the slice of its lower voxel; its weight, half to
                either side. `labels` then lists the labels that have a face there.

    Returns
    -------
    ContactAreas, of CuPy arrays if `labels` is one (phases and solid must be, too), with the same bits. A face counts
    once, in one of `area` (neighbour has label 0), `mouth`, `pair_area` (neighbour has another label; either side's
    area, averaged) or `border` (no neighbour: whole faces, whatever the estimator). Touching by an edge or a corner is
    no contact. At the ends of the array a label is taken to go on as it is.

    Raises TypeError or ValueError for arrays of another type, shape or sign, and for options out of range.

    Source: see `voxkernels.contacts.cpu`. Results do not depend on the number of threads.
    """
    device = device_of(labels=labels, phases=phases, solid=solid)
    # the kernel looks for negative labels in the core as it reads them, but on the CPU not for the rays of "crofton"
    look = core is not None or (device is None and estimator not in ("faces", "weighted"))
    labels, phases, solid, core, n_phases = check_arguments(labels, phases, solid, core, look=look, device=device)
    size = as_spacing(spacing)
    mode = _ESTIMATORS[choice("estimator", estimator, tuple(_ESTIMATORS))]
    factors = _factors(mode, size)
    if device is not None:
        made = cuda.measure_contacts(device, labels, phases, n_phases, solid, core, size, factors, _face_areas(size))
        if made is not None:
            return ContactAreas(**made, spacing=size)
    else:
        found = _count(labels, phases, n_phases, solid, core, mode, size, factors.size)
        if found is not None:
            rows, n_phases = found
            order, others = _order(rows, fits=labels.itemsize == 4), np.sort(rows[:, 1])
            names, area, pairs, pair_area, border, mouth, faces, pair_faces = cpu.sum_areas(
                rows, order, others, n_phases, factors, _face_areas(size)
            )
            return ContactAreas(names, area, pairs, pair_area, border, mouth, faces, pair_faces, size)
    as_labels("labels", labels, device=device)
    raise AssertionError("a negative label was met, then none found")


def _moved(areas: ContactAreas, move: Callable[[Any], Any]) -> ContactAreas:
    """The same with every array on the other side: a few numbers for each label and pair."""
    kept = {field.name: getattr(areas, field.name) for field in fields(areas)}
    return ContactAreas(**{name: value if name == "spacing" else move(value) for name, value in kept.items()})


def merge_contacts(parts: Iterable[ContactAreas]) -> ContactAreas:
    """Sum the results of slabs with disjoint cores. CuPy arrays are summed on the host.

    The slabs may hold different labels and phases; they must have one spacing. Areas agree with those of the whole
    volume up to the rounding of sums. Raises ValueError for no parts or unequal spacings.
    """
    listed = list(parts)
    if not listed:
        raise ValueError("parts: must hold at least one result of contact_areas; got none.")
    wrong = [part for part in listed if not isinstance(part, ContactAreas)]
    if wrong:
        raise TypeError(f"parts: must hold results of contact_areas; got {describe(wrong[0])} among them.")
    device = device_of(**{f"parts[{k}]": part.labels for k, part in enumerate(listed)})
    if device is not None:
        return _moved(_merge([_moved(part, device.fetch) for part in listed]), device.send)
    return _merge(listed)


def _merge(parts: Sequence[ContactAreas]) -> ContactAreas:
    size = parts[0].spacing
    for part in parts:
        if part.spacing != size:
            raise ValueError(
                f"parts: must all have one spacing; got {size} and {part.spacing}. Measure every slab with the same."
            )
    n_phases = max(part.area.shape[1] for part in parts)
    labels = np.unique(np.concatenate([part.labels for part in parts]))
    area = np.zeros((labels.size, n_phases))
    faces = np.zeros((3, labels.size, n_phases), np.int64)
    border, mouth = np.zeros(labels.size), np.zeros(labels.size)
    for part in parts:
        row = np.searchsorted(labels, part.labels)
        area[row, : part.area.shape[1]] += part.area
        faces[:, row, : part.area.shape[1]] += part.faces
        border[row] += part.border
        mouth[row] += part.mouth
    pairs, pair_area, pair_faces = _summed(
        np.concatenate([part.pairs for part in parts]),
        np.concatenate([part.pair_area for part in parts]),
        np.concatenate([part.pair_faces.T for part in parts]),
        kind="stable",
    )
    pair_faces = pair_faces.T.copy()
    return ContactAreas(labels, area, pairs, pair_area, border, mouth, faces, pair_faces, size)


def check_arguments(
    labels: npt.NDArray[Any],
    phases: npt.NDArray[Any],
    solid: npt.NDArray[Any] | None,
    core: tuple[int, int] | None,
    *,
    look: bool = True,
    device: Cuda | None = None,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.bool_], tuple[int, int], int]:
    """The arguments as the kernels read them (without `solid`: an array of size 0), and the number of phase values.

    `look` for negative labels and the largest phase, or leave them to the kernel where it finds them as it reads.
    """
    labels = narrow_labels(as_labels("labels", labels, look=look, device=device))
    phases = as_labels("phases", phases, device=device)
    same_shape("phases", phases, "labels", labels)
    last = 0
    if look or phases.dtype != np.uint8:  # else the kernel looks
        with where(phases):
            last = int(phases.max()) if phases.size else 0
            if last <= _LARGEST_PHASE:
                phases = phases.astype(np.uint8 if last <= 255 else np.int32, copy=False)
    if last > _LARGEST_PHASE:
        raise ValueError(
            f"phases: must be at most {_LARGEST_PHASE}; got a maximum of {last}. Are labels and phases exchanged?"
        )
    if solid is None:
        solid = _NOT_GIVEN
    else:
        solid = as_mask("solid", solid, device=device)
        same_shape("solid", solid, "labels", labels)
    lo, hi = 0, len(labels)
    if core is not None:
        try:
            lo, hi = (index(i) for i in core)
        except (TypeError, ValueError):
            lo, hi = -1, -1
    if not 0 <= lo <= hi <= len(labels):
        raise ValueError(
            f"core: must be slices (lo, hi) with 0 <= lo <= hi <= {len(labels)}; got {describe(core)}. "
            "Count from the start of the slab."
        )
    return labels, phases, solid, (lo, hi), last + 1


def _count(
    labels: npt.NDArray[Any],
    phases: npt.NDArray[Any],
    n_phases: int,
    solid: npt.NDArray[np.bool_],
    core: tuple[int, int],
    mode: int,
    size: Spacing,
    n_counts: int,
) -> tuple[npt.NDArray[np.int64], int] | None:
    """Run the kernel, with larger tables until they suffice.

    Returns the rows of all blocks, and the number of phase values, at least n_phases. None where a label is negative.
    """
    lo, hi = core
    if labels.size == 0 or lo == hi:
        return np.empty((0, cpu.COUNTS + n_counts), np.int64), n_phases
    blocks = min(hi - lo, numba.get_num_threads(), labels.size // BLOCK_VOXELS + 1)
    wanted = min(max(labels.size // (1024 * blocks), _TABLE_ROWS[0]), _TABLE_ROWS[1])
    capacity = 1 << (wanted - 1).bit_length()
    scale = _scale(size) if mode == cpu.WEIGHTED else None
    while True:
        tables = np.empty((blocks, capacity, cpu.COUNTS + n_counts), np.int64)
        used = np.empty((blocks, 2), np.int64)
        cpu.count_contacts(labels, phases, solid, lo, hi, mode, scale, tables, used)
        ends = used.tolist()
        lowest, _ = min(ends)
        if lowest >= 0:
            break
        if lowest == -2:
            return None
        capacity *= 4
    parts = [table[:n] for table, (n, _) in zip(tables, ends, strict=True)]
    rows = parts[0] if blocks == 1 else np.concatenate(parts)
    return rows, max(n_phases, *(top + 1 for _, top in ends))


def _summed(keys: npt.NDArray[np.int64], *values: npt.NDArray[Any], kind: Any = None) -> tuple[npt.NDArray[Any], ...]:
    """The distinct rows of keys (n, 2), ascending, and the sums of the values of equal ones, in the order of `kind`."""
    if not len(keys):
        return keys, *values
    order = _order(keys, kind)
    keys = keys[order]
    first = np.flatnonzero(np.append(True, (keys[1:] != keys[:-1]).any(axis=1)))
    return keys[first], *(np.add.reduceat(value[order], first) for value in values)


def _order(rows: npt.NDArray[np.int64], kind: Any = None, fits: bool = False) -> npt.NDArray[np.int64]:
    """What puts rows (n, 2 or more) in ascending order of their first two columns. `fits`: both are below 2**31."""
    first, second = rows[:, 0], rows[:, 1]
    if fits or max(first.max(initial=0), second.max(initial=0)) < 2**31:
        return np.argsort((first << 32) + second, kind=kind)
    return np.lexsort((second, first))


@functools.lru_cache(maxsize=16)
def _scale(size: Spacing) -> npt.NDArray[np.float64]:
    return np.asarray(1 / np.array(size))


@functools.lru_cache(maxsize=16)
def _face_areas(size: Spacing) -> npt.NDArray[np.float64]:
    dz, dy, dx = size
    return np.array([dy * dx, dz * dx, dz * dy])


@functools.lru_cache(maxsize=16)
def _factors(mode: int, size: Spacing) -> npt.NDArray[np.float64]:
    """(M,) the area that one count of each column stands for."""
    if mode == cpu.FACES:
        return _face_areas(size)
    if mode == cpu.WEIGHTED:
        return np.concatenate([np.zeros(3), _face_areas(size) / cpu.WEIGHT])
    z, y, x = np.array(cpu.DIRECTIONS).T + 1
    return np.asarray(crofton_factors(size)[z, y, x])


@functools.lru_cache(maxsize=16)
def crofton_factors(size: Spacing) -> npt.NDArray[np.float64]:
    """(3, 3, 3) the area behind one crossing of the ray to each of the 26-neighbours; [1, 1, 1] is the voxel itself: 0.

    Cauchy and Crofton: the area is twice the mean, over directions, of the projected area. Lines along a direction
    through all voxel centres have a cross-section (voxel volume / length of the step) each; the mean over the sphere
    gives every direction the share of the sphere that lies nearest to it.
    """
    steps = np.delete(np.indices((3, 3, 3)).reshape(3, -1).T - 1, 13, axis=0) * np.array(size)
    lengths = np.linalg.norm(steps, axis=1)
    units = steps / lengths[:, None]
    # the 26 directions come in opposite pairs with equal shares
    shares = [_nearest_share(i, units) for i in range(13)]
    factors = 4 * np.array(shares + shares[::-1]) * math.prod(size) / lengths
    table: npt.NDArray[np.float64] = np.insert(factors, 13, 0.0).reshape(3, 3, 3)
    table.setflags(write=False)
    return table


def _nearest_share(i: int, units: npt.NDArray[np.float64]) -> float:
    """The share of the sphere that is nearer to units[i] than to any other of `units`.

    In the gnomonic projection about units[i] the cell is a polygon, cut by one straight line for each other direction.
    The three axes and their opposites bound every cell to the square of half-width 2.
    """
    pole = units[i]
    side = np.cross(pole, np.eye(3)[np.argmin(abs(pole))])
    side /= np.linalg.norm(side)
    frame = np.array([side, np.cross(pole, side)])
    corners = [pole + 2 * (u * frame[0] + v * frame[1]) for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    for j, other in enumerate(units):
        if j == i:
            continue
        heights = [float(corner @ (pole - other)) for corner in corners]
        kept = []
        for k, corner in enumerate(corners):
            if heights[k - 1] * heights[k] < 0:
                t = heights[k - 1] / (heights[k - 1] - heights[k])
                kept.append(corners[k - 1] + t * (corner - corners[k - 1]))
            if heights[k] >= 0:
                kept.append(corner)
        corners = kept
    solid_angle = 0.0
    for k in range(len(corners)):
        a, b = (corner / np.linalg.norm(corner) for corner in (corners[k - 1], corners[k]))
        solid_angle += 2 * math.atan2(float(pole @ np.cross(a, b)), 1 + float(a @ b + b @ pole + pole @ a))
    return abs(solid_angle) / (4 * math.pi)


def _warmup() -> None:
    """Compile what the pipeline calls, and what the estimators without weights need."""
    volume = np.zeros((3, 3, 3), np.int32)
    volume[1, 1, 1] = 1
    phases = np.zeros((3, 3, 3), np.uint8)
    contact_areas(volume, phases, core=(1, 2))
    contact_areas(volume, phases, estimator="faces")
