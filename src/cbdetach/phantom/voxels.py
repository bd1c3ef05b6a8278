"""From formulas to voxels: what lies at their centres, which codes that gives, and which share of each is what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbdetach.codes import ACTIVE, CBD, COLLECTOR, VOID
from cbdetach.phantom.damage import NO_DAMAGE
from cbdetach.phantom.electrode import Electrode

Array = NDArray[Any]
Corner = tuple[int, int, int]


@dataclass(frozen=True)
class Voxels:
    """What the formulas give at the centres of a box of voxels. The arrays are (Z, Y, X) of that box."""

    start: Corner
    """The first voxel, counted from the volume's."""
    gap: Array
    """float32: gap to the nearest particle, negative inside."""
    owner: Array
    """int32: index of that particle; -1: none near."""
    coat: Array
    """float32: signed distance to the carbon/binder."""
    dark: Array
    """float32: share of damage, where there is a particle."""
    damage: Array
    """uint8: its code."""
    crumb_gap: Array | None
    """float32: gap to the nearest fragment; None of an electrode without debris, as the next."""
    crumb_level: Array | None
    """float32: its grey level."""

    def heights(self, electrode: Electrode) -> Array:
        """Heights of the slices in micrometres, (Z, 1, 1)."""
        z = np.arange(self.start[0], self.start[0] + len(self.gap))
        result: Array = (z * electrode.frame.size[0])[:, None, None]
        return result

    def without_halo(self, halo: int) -> Voxels:
        """The same without `halo` slices at both ends of z."""
        inner = {
            name: part[halo : len(part) - halo] for name, part in vars(self).items() if isinstance(part, np.ndarray)
        }
        return replace(self, start=(self.start[0] + halo, *self.start[1:]), **inner)


def render(electrode: Electrode, start: Corner, stop: Corner, spare: float = 0.0) -> Voxels:
    """The voxels from `start` up to `stop`, which may lie outside the volume.

    A particle is looked for within the coating's thickness, or within `spare` micrometres where that is more.
    """
    s, particles, size = electrode.settings, electrode.particles, electrode.frame.size
    bodies = particles.bodies.as_float32()
    shape = tuple(b - a for a, b in zip(start, stop, strict=True))
    gap = np.full(shape, inf, np.float32)
    owner = np.full(shape, -1, np.int32)
    coat = np.full(shape, inf, np.float32)
    dark = np.zeros(shape, np.float32)
    damage = np.zeros(shape, np.uint8)
    width = float(size.mean())
    for i, centre in enumerate(particles.centre):
        reach = particles.outer[i] + max(s.coating_thickness_um, spare) + float(size.max())
        box, (z, y, x) = _around(centre, reach, size, start, shape)
        if not gap[box].size:
            continue
        near = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 < reach**2
        iz, iy, ix = near.nonzero()
        points = np.stack([z[iz], y[iy], x[ix]]).astype(np.float32)
        own_gap, radius, u, rho = bodies.gap(i, points)

        around = own_gap > -width
        own_coat = np.full(len(own_gap), inf, np.float32)
        own_coat[around] = electrode.coats[i].distance(own_gap[around], u[:, around], rho[around])
        coat_box = coat[box]
        coat_box[near] = np.minimum(coat_box[near], own_coat)

        mine = own_gap < gap[box][near]
        code, share = np.zeros(len(own_gap), np.uint8), np.zeros(len(own_gap), np.float32)
        if electrode.damage_of(i):
            inner = mine & (own_gap < width)
            code[inner], share[inner] = electrode.damage_of(i).at(
                points[:, inner], (rho / radius)[inner], radius[inner], width
            )
        near[near] = mine
        gap[box][near] = own_gap[mine]
        owner[box][near] = i
        dark[box][near] = share[mine]
        damage[box][near] = code[mine]
    crumbs = _render_debris(electrode, start, shape) if len(electrode.debris) else (None, None)
    return Voxels(start, gap, owner, coat, dark, damage, *crumbs)


def _render_debris(electrode: Electrode, start: Corner, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Gap to the nearest fragment, and its grey level."""
    debris, size = electrode.debris, electrode.frame.size
    gap, level = np.full(shape, inf, np.float32), np.zeros(shape, np.float32)
    for i, centre in enumerate(debris.centre):
        box, axes = _around(centre, debris.reach[i] + float(size.max()), size, start, shape)
        if not gap[box].size:
            continue
        points = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)
        own = debris.bodies.gap(i, points)[0].reshape(gap[box].shape)
        nearer = own < gap[box]
        gap[box][nearer] = own[nearer]
        level[box][nearer] = debris.level[i]
    return gap, level


def _around(
    centre: Array, reach: float, size: Array, start: Corner, shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], list[Array]]:
    """The part of a box of voxels within `reach` of a centre along each axis (empty if there is none), and the places
    of its voxels along each axis, relative to the centre.
    """
    first = np.array(start)
    low = np.clip(np.ceil((centre - reach) / size).astype(int) - first, 0, shape)
    high = np.clip(np.floor((centre + reach) / size).astype(int) + 1 - first, low, shape)
    places = [(np.arange(a, b) + f) * d - c for a, b, f, d, c in zip(low, high, first, size, centre, strict=True)]
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True)), places


def codes(electrode: Electrode, voxels: Voxels) -> tuple[Array, Array, Array]:
    """Labels (int32), phases and damage (uint8)."""
    s, z_um = electrode.settings, voxels.heights(electrode)
    inside = voxels.gap < 0
    labels = np.where(inside, electrode.labels_of(voxels.owner), 0).astype(np.int32)
    damage = np.where(inside, voxels.damage, NO_DAMAGE).astype(np.uint8)
    phases = np.where(voxels.coat < 0, CBD, VOID).astype(np.uint8)
    if s.collector_um > 0:
        phases[np.broadcast_to(z_um < electrode.frame.foil, phases.shape)] = COLLECTOR
    if s.separator_um > 0:
        phases[np.broadcast_to(z_um > electrode.frame.top, phases.shape)] = VOID
    if voxels.crumb_gap is not None:
        phases[voxels.crumb_gap < 0] = ACTIVE
    phases[inside] = ACTIVE
    phases[damage != NO_DAMAGE] = VOID
    return labels, phases, damage


@dataclass(frozen=True)
class Shares:
    """Which part of each voxel is what, float32: partial volume from the distance to each interface."""

    particle: Array
    """Filled: cracks and pores included."""
    cbd: Array
    collector: Array
    separator: Array
    debris: Array | None
    """What it covers is counted in the others too."""


def shares(electrode: Electrode, voxels: Voxels, soft: Array | np.float32 | None = None) -> Shares:
    """Shares of the voxels. soft: width of the particles' edge, where it is not a voxel's."""
    s, frame = electrode.settings, electrode.frame
    width, half = np.float32(frame.size.mean()), np.float32(0.5)
    z_um, step = voxels.heights(electrode), frame.size[0]
    particle = np.clip(half - voxels.gap / (width if soft is None else soft), 0, 1)
    rest = 1 - particle
    foil = np.clip(0.5 - (z_um - frame.foil) / step, 0, 1).astype(np.float32) * (s.collector_um > 0)
    separator = np.clip(0.5 + (z_um - frame.top) / step, 0, 1).astype(np.float32) * (s.separator_um > 0)
    cbd = np.clip(half - voxels.coat / width, 0, 1) * (1 - foil) * (1 - separator) * rest
    debris = None
    if voxels.crumb_gap is not None:
        debris = np.clip(half - voxels.crumb_gap / width, 0, 1) * rest
    return Shares(particle, cbd, foil * rest, separator * rest, debris)
