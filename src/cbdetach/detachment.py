"""Degree of detachment: each particle's outer surface, split by what it faces (DEFINITIONS: Surface and contact).

A window (a slab with its halo) goes in, the core's share of every particle's areas comes out; shares of disjoint cores
add up to the whole volume's. The class of a surface element is that of its 6-neighbour outside the filled particle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import voxkernels as vk
from cbdetach import device
from cbdetach.arrays import capped_distance
from cbdetach.codes import ACTIVE, ACTIVE_HIGH, CBD, COLLECTOR, N_PHASES, VOID

Array = npt.NDArray[Any]
HALO = vk.CONTACT_HALO
"""Slices that a window needs beyond its core, on each side."""


def is_active(phases: Array) -> npt.NDArray[np.bool_]:
    """Voxels of active material, of low or high density. Shape as `phases`."""
    return np.asarray((phases == ACTIVE) | (phases == ACTIVE_HIGH))


def cbd_distance(
    phases: Array, *, spacing: tuple[float, float, float], reach_um: float
) -> npt.NDArray[np.float32] | None:
    """Distance of every voxel to carbon/binder, inf past `reach_um`; None where there is none, or no reach."""
    away = phases != CBD
    if reach_um <= 0 or away.all():
        return None
    return capped_distance(away, spacing=spacing, reach=reach_um * (1 + 1e-6))


def attach_within(labels: Array, phases: Array, tolerance_um: float, distance: Array | None) -> npt.NDArray[np.uint8]:
    """Phases with void within `tolerance_um` of carbon/binder counted as carbon/binder (the contact tolerance).

    distance : of `cbd_distance` there, with a reach of the tolerance or more.
    """
    if tolerance_um <= 0 or distance is None:
        return phases
    near = distance <= tolerance_um * (1 + 1e-6)
    return np.where(near & (phases == VOID) & (labels == 0), np.uint8(CBD), phases)


def moved_particles(labels: Array, phases: Array, moved: Array, near: Array) -> Array:
    """The particles, after the thresholds have moved their surfaces from those of `phases` to those of `moved`.

    A voxel that has ceased to be active leaves its particle; one that has become active joins the nearest particle, as
    `near` (Z, Y, X) says: `labels` expanded as far as surfaces may move. Cracks and pores stay what they were.
    """
    before, after = is_active(phases), is_active(moved)
    result = np.where(before & ~after, 0, labels)
    np.copyto(result, near, where=after & (labels == 0) & ~before)
    return result.astype(labels.dtype, copy=False)


def surface_classes(
    labels: Array,
    phases: Array,
    unresolved: Array | None = None,
    *,
    spacing: tuple[float, float, float],
    estimator: str = "weighted",
    core: tuple[int, int] | None = None,
) -> vk.ContactAreas:
    """Area of every particle's surface by the class that it faces, for the slices of `core`.

    Parameters
    ----------
    labels : (Z, Y, X) integer, filled particles; 0 is outside.
    phases : (Z, Y, X) uint8 phase codes.
    unresolved : (Z, Y, X) bool or None: carbon/binder or void too thin for the instrument; counted in columns of its
        own, `N_PHASES` further on.
    spacing : voxel size (dz, dy, dx), micrometres.
    core : slices whose surface is counted; the rest is halo of at least `HALO` slices. None: all.

    Returns
    -------
    ContactAreas, areas in square micrometres; crack mouths (own voxel is not active) in `mouth`.
    """
    kinds = phases if unresolved is None else phases + np.uint8(N_PHASES) * unresolved.astype(np.uint8)
    return device.contact_areas(
        labels, kinds, spacing=spacing, estimator=estimator, solid=(labels > 0) & is_active(phases), core=core
    )


def fraction(part: Array, whole: Array) -> npt.NDArray[np.float64]:
    """`part / whole`, nan where `whole` is 0."""
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0))


def detachment_columns(
    contacts: vk.ContactAreas, labels: Array, *, particle_contact: str = "ignored"
) -> dict[str, npt.NDArray[np.float64]]:
    """Per-particle areas and fractions, aligned with `labels` (N,); a particle without any surface gets zeros.

    `detachment_fraction` = area_void / (area_void + area_cbd); with `particle_contact="attached"` contact with another
    particle counts as attached too. `contact_known_fraction` = (area_void + area_cbd) / outer area.
    """
    n, n_columns = labels.size, 2 * N_PHASES
    area = np.zeros((n, n_columns))
    border, mouth, particle = np.zeros(n), np.zeros(n), np.zeros(n)
    if n and contacts.labels.size:
        row = np.minimum(np.searchsorted(contacts.labels, labels), contacts.labels.size - 1)
        there = contacts.labels[row] == labels
        area[:, : contacts.area.shape[1]] = np.where(there[:, None], contacts.area[row], 0.0)
        border, mouth = np.where(there, contacts.border[row], 0.0), np.where(there, contacts.mouth[row], 0.0)
        for side in (0, 1):
            at = np.searchsorted(labels, contacts.pairs[:, side])
            particle += np.bincount(at, weights=contacts.pair_area, minlength=n)[:n]
    unresolved_area = area[:, N_PHASES:].sum(axis=1)
    by_phase = area[:, :N_PHASES] + area[:, N_PHASES:]
    void, cbd, other = by_phase[:, VOID], by_phase[:, CBD], by_phase[:, COLLECTOR]
    particle = particle + by_phase[:, ACTIVE] + by_phase[:, ACTIVE_HIGH]
    outer = void + cbd + particle + other + mouth
    attached = cbd + (particle if particle_contact == "attached" else 0.0)
    return {
        "surface_area_um2": outer,
        "area_cbd_um2": cbd,
        "area_void_um2": void,
        "area_particle_um2": particle,
        "area_other_um2": other,
        "area_border_um2": border,
        "area_crack_mouth_um2": mouth,
        "contact_known_fraction": fraction(void + cbd, outer),
        "unresolved_fraction": fraction(unresolved_area, void + cbd),
        "detachment_fraction": fraction(void, void + attached),
    }


def cbd_thickness(
    phases: Array, *, spacing: tuple[float, float, float], edges_um: Array, core: tuple[int, int]
) -> npt.NDArray[np.int64]:
    """Histogram of the local thickness of carbon/binder in the slices of `core`.

    The thickness at a voxel of the medial ridge (its distance to the outside is a maximum among its 26 neighbours) is
    twice its distance to the nearest surface, which lies half a voxel before the nearest voxel outside.
    """
    from scipy.ndimage import distance_transform_edt, maximum_filter

    is_cbd = phases == CBD
    if not is_cbd.any() or is_cbd.all():
        return np.zeros(len(edges_um) - 1, dtype=np.int64)
    distance = distance_transform_edt(is_cbd, sampling=spacing)
    ridge = is_cbd & (distance >= maximum_filter(distance, size=3))
    thickness = 2 * distance[core[0] : core[1]][ridge[core[0] : core[1]]] - min(spacing)
    return np.histogram(np.clip(thickness, edges_um[0], edges_um[-1]), bins=edges_um)[0].astype(np.int64)


def electrode_faces(labels: Array, phases: Array, *, core: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Voxel faces between the solid of any particle and what lies outside all of them, per phase: (N_PHASES,).

    Counted on shifted arrays, without the contact kernel, so that the two can be balanced against each other. A face
    belongs to the slice of its particle's voxel; slices of `core` count.
    """
    solid = (labels > 0) & is_active(phases)
    total = np.zeros(N_PHASES, dtype=np.int64)
    for axis in range(3):
        for step in (1, -1):
            own = [slice(None)] * 3
            other = [slice(None)] * 3
            own[axis], other[axis] = (
                (slice(None, -1), slice(1, None)) if step == 1 else (slice(1, None), slice(None, -1))
            )
            z = np.arange(labels.shape[0])[own[0]]
            counted = solid[tuple(own)] & (labels[tuple(other)] == 0) & ((z >= core[0]) & (z < core[1]))[:, None, None]
            total += np.bincount(phases[tuple(other)][counted], minlength=N_PHASES)
    return total
