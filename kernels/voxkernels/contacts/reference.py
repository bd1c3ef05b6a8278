"""The oracle of `contact_areas`: every voxel, every neighbour, sums in dictionaries, windows of a padded array."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import UNIT, Spacing, as_spacing, choice
from . import CONTACT_HALO, ContactAreas, check_arguments, crofton_factors, merge_contacts

__all__ = ["CONTACT_HALO", "ContactAreas", "contact_areas", "merge_contacts"]

Voxel = tuple[int, int, int]


def contact_areas(
    labels: npt.NDArray[Any],
    phases: npt.NDArray[Any],
    *,
    spacing: Sequence[float] = UNIT,
    estimator: str = "weighted",
    solid: npt.NDArray[Any] | None = None,
    core: tuple[int, int] | None = None,
) -> ContactAreas:
    """Measure the surface of every label, split by what it faces; see `voxkernels.contact_areas`."""
    labels, phases, solid, (lo, hi), n_phases = check_arguments(labels, phases, solid, core)
    size = as_spacing(spacing)
    choice("estimator", estimator, ("faces", "crofton", "weighted"))
    face_area = [math.prod(size) / length for length in size]
    padded = np.pad(labels, 2, mode="edge") if labels.size else labels
    present: set[int] = set()
    area: dict[tuple[int, int], float] = defaultdict(float)
    faces: dict[tuple[int, int], npt.NDArray[np.int64]] = defaultdict(lambda: np.zeros(3, np.int64))
    pair_area: dict[tuple[int, int], float] = defaultdict(float)
    pair_faces: dict[tuple[int, int], npt.NDArray[np.int64]] = defaultdict(lambda: np.zeros(3, np.int64))
    border: dict[int, float] = defaultdict(float)
    mouth: dict[int, float] = defaultdict(float)

    def count(voxel: Voxel, step: Voxel, amount: float) -> None:
        """Add the contact of a voxel with the one a step further; `amount` is the area behind it."""
        own = int(labels[voxel])
        near = tuple(v + s for v, s in zip(voxel, step, strict=True))
        axis = [abs(s) for s in step].index(1) if sum(map(abs, step)) == 1 else None
        if any(not 0 <= i < n for i, n in zip(near, labels.shape, strict=True)):
            if axis is not None:
                present.add(own)
                border[own] += face_area[axis]
                return
            near = tuple(min(max(i, 0), n - 1) for i, n in zip(near, labels.shape, strict=True))
        facing = int(labels[near])
        if facing == own:
            return
        present.add(own)
        if facing > 0:
            present.add(facing)
            pair = (min(own, facing), max(own, facing))
            whole = estimator == "faces" or (estimator == "crofton" and axis is not None)
            if axis is not None:
                pair_faces[pair][axis] += sum(step) > 0
            pair_area[pair] += amount * ((sum(step) > 0) if whole else 0.5)
        elif solid.size == 0 or solid[voxel]:
            key = (own, int(phases[near]))
            area[key] += amount
            if axis is not None:
                faces[key][axis] += 1
        else:
            mouth[own] += amount

    rays: list[Voxel] = [(dz, dy, dx) for dz, dy, dx in product((-1, 0, 1), repeat=3) if (dz, dy, dx) != (0, 0, 0)]
    crofton = crofton_factors(size)
    for voxel in product(range(lo, hi), range(labels.shape[1]), range(labels.shape[2])):
        if labels[voxel] == 0:
            continue
        for step in rays:
            if estimator == "crofton":
                count(voxel, step, float(crofton[1 + step[0], 1 + step[1], 1 + step[2]]))
            elif sum(map(abs, step)) == 1:
                axis = [abs(s) for s in step].index(1)
                weight = _weight(padded, voxel, axis, step[axis], size) if estimator == "weighted" else 1.0
                count(voxel, step, weight * face_area[axis])

    rows = sorted(present)
    pairs = sorted(pair_area)
    return ContactAreas(
        labels=np.array(rows, np.int64),
        area=np.array([[area[row, p] for p in range(n_phases)] for row in rows], np.float64).reshape(-1, n_phases),
        pairs=np.array(pairs, np.int64).reshape(-1, 2),
        pair_area=np.array([pair_area[pair] for pair in pairs], np.float64),
        border=np.array([border[row] for row in rows], np.float64),
        mouth=np.array([mouth[row] for row in rows], np.float64),
        faces=np.array(
            [[[faces[row, p][axis] for p in range(n_phases)] for row in rows] for axis in range(3)], np.int64
        ).reshape(3, -1, n_phases),
        pair_faces=np.array([[pair_faces[pair][axis] for pair in pairs] for axis in range(3)], np.int64).reshape(3, -1),
        spacing=size,
    )


def _weight(padded: npt.NDArray[Any], voxel: Voxel, axis: int, sign: int, size: Spacing) -> float:
    """1 / |n|_1 of the normal at the face of a voxel, in a window of the array padded by two voxels."""
    z, y, x = (i + 2 for i in voxel)
    window = padded[z - 2 : z + 3, y - 2 : y + 3, x - 2 : x + 3] == padded[z, y, x]
    window = np.moveaxis(window, axis, 0)[::sign]  # from the inside out
    inside = window[1:].astype(np.int64)  # four layers: deep, inner | outer, far
    across, along, slope, depth = (
        np.array(taps) for taps in ((2, 2, -2, -2), (1, 2, 3, 2, 1), (3, 1, 0, -1, -3), (1, 2, 2, 1))
    )
    normal = np.array(
        [
            np.einsum("ijk,i,j,k", inside, across, along, along),
            np.einsum("ijk,i,j,k", inside, depth, slope, along),
            np.einsum("ijk,i,j,k", inside, depth, along, slope),
        ]
    )
    deep, inner, outer, far = inside.sum(axis=(1, 2))
    convex = outer == far == 0 and (deep == inner or deep <= 16)
    concave = deep == inner == 25 and (far == outer or far >= 9)
    if convex or concave:
        return 1.0
    others = [a for a in range(3) if a != axis]
    n = abs(normal) / np.array([size[axis], *(size[a] for a in others)])
    return float(np.linalg.norm(n) / n.sum()) if n.any() else 1.0
