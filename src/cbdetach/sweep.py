"""Detachment sweep: contact is taken from one particle step by step, and its diffusion length measured after each.

How far electrons travel depends on which contact is lost, not on how much alone (DEFINITIONS: Electron diffusion
length), so that contact is taken in several orders: from one side, in patches at random, or scattered in small pieces.
The particle is attached all round at first, or as it was measured. Lengths are those of `voxkernels.travel_time` in the
solid; the degree of detachment after each step is area_void / (area_void + area_cbd), as for the whole electrode.

With two accessibilities that the user gives as functions of the detachment, this is the model of main Fig. 4e of Jiang
et al. (2020): electrons need contact, ions need free surface. It is a schematic model of one particle: geometric
lengths and given curves, no conductivity and no electrochemistry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import voxkernels as vk
from cbdetach.arrays import along

Array = npt.NDArray[Any]
Spacing = tuple[float, float, float]

ORDERS = {"side": 1, "patches": 12, "scattered": 150}
"""How contact is taken, and in how many patches: from one side, in a few at random, in many."""

MARGIN = 4
"""Voxels around the particle that `detachment_sweep` needs: contact is thick enough for its surface to be smooth."""

THICK = 3.0
"""Thickness of the contact, in the largest voxel size."""


@dataclass(frozen=True)
class Sweep:
    """One order of removal. S + 1 rows, the first before anything is taken. Lengths in micrometres, nan without any."""

    order: str
    detachment: npt.NDArray[np.float64]  # (S + 1,)
    mean_um: npt.NDArray[np.float64]  # (S + 1,): over the reached solid
    max_um: npt.NDArray[np.float64]
    unreached: npt.NDArray[np.float64]  # (S + 1,): share of the solid that no contact reaches


def detachment_sweep(
    particle: Array,
    solid: Array,
    contact: Array | None = None,
    *,
    order: str,
    spacing: Spacing,
    steps: int = 20,
    seed: int = 0,
    direction: Array = (1.0, 0.0, 0.0),  # type: ignore[assignment]
) -> Sweep:
    """Take the contact of one particle in `steps` steps of equal area, and solve for the lengths after each.

    Parameters
    ----------
    particle : (Z, Y, X) bool, the filled particle, with `MARGIN` voxels around it.
    solid : (Z, Y, X) bool, the particle without its cracks and pores.
    contact : (Z, Y, X) bool, carbon/binder around it; None: all round.
    order : one of `ORDERS`. "side": what lies farthest against `direction` first; "patches", "scattered": patches
        around seeded random points of the surface, one after the other, each from its rim to its middle.
    seed : of the patches. direction : (z, y, x), of "side".

    Returns
    -------
    Sweep. The last row has no contact: detachment 1, no length, everything unreached.

    Raises ValueError for an order that is not known, and a particle without contact to take.
    """
    if order not in ORDERS:
        raise ValueError(f"order: must be one of {', '.join(ORDERS)}; got {order!r}.")
    shell = _shell(particle)
    taken = shell if contact is None else shell & contact
    if not taken.any():
        raise ValueError("contact: must touch the particle somewhere; got none. Start from one attached all round.")
    key = _removal_key(taken, order, spacing, np.random.default_rng([seed, list(ORDERS).index(order)]), direction)
    step = np.zeros(particle.shape, np.int32)  # 1..S: when the contact of this voxel is taken; 0: there is none
    step[taken] = _equal_steps(key, _faces(particle, spacing)[taken], steps)

    labels = particle.astype(np.int32)
    areas = vk.contact_areas(labels, step, spacing=spacing, solid=solid)
    area = np.pad(areas.area[0], (0, steps + 1 - areas.area.shape[1]))
    detachment = np.cumsum(area) / area.sum()

    nearest = _nearest(shell, particle, spacing)
    thick = np.where(particle, 0, step.ravel()[nearest])
    thick = np.where(_beyond(particle, spacing) <= THICK * max(spacing), thick, 0)
    mean, largest, unreached = (np.full(steps + 1, np.nan) for _ in range(3))
    inside = int(solid.sum())
    for k in range(steps + 1):
        sources = thick > k
        length = vk.travel_time(solid, sources, spacing=spacing)[solid]
        reached = length[np.isfinite(length)].astype(np.float64)
        unreached[k] = 1 - reached.size / inside
        if reached.size:
            mean[k], largest[k] = reached.mean(), reached.max()
    return Sweep(order, detachment, mean, largest, unreached)


def _shell(particle: Array) -> npt.NDArray[np.bool_]:
    """Voxels outside that share a face with the particle."""
    from scipy.ndimage import binary_dilation

    return np.asarray(binary_dilation(particle) & ~particle)


def _faces(particle: Array, spacing: Spacing) -> npt.NDArray[np.float64]:
    """Area of the voxel faces that every outer voxel shares with the particle."""
    dz, dy, dx = spacing
    area = np.zeros(particle.shape)
    for axis, face in enumerate((dy * dx, dz * dx, dz * dy)):
        lower, upper = along(axis, None, -1), along(axis, 1, None)
        area[lower] += face * (~particle[lower] & particle[upper])
        area[upper] += face * (~particle[upper] & particle[lower])
    return area


def _removal_key(
    taken: Array, order: str, spacing: Spacing, rng: np.random.Generator, direction: Array
) -> npt.NDArray[np.float64]:
    """A number for every contact voxel, in C order: the smallest leaves first."""
    from scipy.spatial import cKDTree

    points = np.argwhere(taken) * spacing
    if order == "side":
        return np.asarray(points @ (np.asarray(direction, dtype=np.float64) / np.linalg.norm(direction)))
    n = min(ORDERS[order], len(points))
    centres = points[rng.choice(len(points), n, replace=False)]
    distance, patch = cKDTree(centres).query(points)
    size = float(np.max(distance)) + 1.0
    return np.asarray(rng.permutation(n)[patch] + 1 - distance / size)


def _equal_steps(key: Array, area: Array, steps: int) -> npt.NDArray[np.int64]:
    """The step, 1..`steps`, at which each contact voxel leaves: equal areas, in the order of the keys."""
    order = np.argsort(key, kind="stable")
    before = np.cumsum(area[order]) - area[order] / 2
    step = np.empty(key.size, np.int64)
    step[order] = np.minimum((before / area.sum() * steps).astype(np.int64) + 1, steps)
    return step


def _nearest(shell: Array, particle: Array, spacing: Spacing) -> npt.NDArray[np.int64]:
    """Flat index of the nearest voxel of the shell, for every voxel."""
    from scipy.ndimage import distance_transform_edt

    indices = distance_transform_edt(~shell, sampling=spacing, return_distances=False, return_indices=True)
    return np.asarray(np.ravel_multi_index(tuple(np.asarray(indices)), particle.shape), dtype=np.int64)


def _beyond(particle: Array, spacing: Spacing) -> npt.NDArray[np.float64]:
    """Distance to the particle."""
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~particle, sampling=spacing))
