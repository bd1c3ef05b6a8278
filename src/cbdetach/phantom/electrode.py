"""The electrode as a set of formulas: what was drawn at random, and what lies at any point of space.

Nothing here knows of voxels but for the frame they fill.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbdetach.codes import ACTIVE, CBD, COLLECTOR, VOID
from cbdetach.errors import InputError
from cbdetach.phantom.coats import Coat, draw_coats
from cbdetach.phantom.damage import NO_DAMAGE, Damage, draw_damage
from cbdetach.phantom.debris import Debris, draw_debris
from cbdetach.phantom.frame import Frame
from cbdetach.phantom.packing import Particles, pack, place
from cbdetach.phantom.settings import PhantomSettings

Array = NDArray[Any]


@dataclass(frozen=True)
class Electrode:
    """Particles, their coats and damage, and the fragments between them."""

    settings: PhantomSettings
    frame: Frame
    samples: int
    """Points on each particle's surface for what is measured on it."""
    particles: Particles
    coats: list[Coat]
    level: Array
    """(n,): grey level of each particle's solid."""
    debris: Debris
    _damage: dict[int, Damage] = field(default_factory=dict, repr=False)

    def damage_of(self, i: int) -> Damage:
        """Cracks and pores of particle i, drawn when first asked for."""
        if i not in self._damage:
            self._damage[i] = draw_damage(self.settings, i, float(self.particles.bodies.radius[i]))
        return self._damage[i]

    def labels_of(self, owner: Array) -> Array:
        """Label of each particle index; 0 of -1."""
        result: Array = np.append(self.particles.label, 0)[owner]
        return result

    def levels_of(self, owner: Array) -> Array:
        """Grey level of each particle index, float32; `grey_active` of -1."""
        result: Array = np.append(self.level, self.settings.grey_active).astype(np.float32)[owner]
        return result

    def finer(self, factor: int) -> Electrode:
        """The same formulas over voxels of 1 / `factor` the edge; positions count from the first of those."""
        s = self.settings
        z, y, x = (n * factor for n in s.shape)
        dz, dy, dx = (d / factor for d in s.voxel_size_um)
        settings = replace(s, shape=(z, y, x), voxel_size_um=(dz, dy, dx))
        frame = Frame.of(settings)
        shift = frame.low - self.frame.low
        return replace(
            self,
            settings=settings,
            frame=frame,
            particles=replace(self.particles, centre=self.particles.centre + shift),
            debris=replace(self.debris, centre=self.debris.centre + shift),
        )


def draw_electrode(
    settings: PhantomSettings, centres: Array | None, diameters: Array | None, samples: int
) -> Electrode:
    """An electrode with its particles at random, or (both arrays given) where and as large as they are said to be."""
    frame = Frame.of(settings)
    if (centres is None) != (diameters is None):
        raise InputError("centres_um, diameters_um: must be given together; got only one of them.")
    if centres is None or diameters is None:
        particles = pack(settings, frame)
    else:
        particles = place(settings, frame, np.array(centres, np.float64), np.array(diameters, np.float64))
    if not particles.label.any():
        raise InputError(
            f"shape: must hold at least 10 voxels of one particle; got {settings.shape}. "
            "Make the volume larger or the particles denser."
        )
    spread = settings.contrast * settings.density_sd
    level = settings.grey_active + spread * settings.rng("density").standard_normal(len(particles))
    coats = draw_coats(settings, frame, particles, samples)
    return Electrode(settings, frame, samples, particles, coats, level, draw_debris(settings, frame))


def phase_at(electrode: Electrode, points: Array) -> tuple[Array, Array]:
    """Phase (uint8) and label (int32) at any points (N, 3) in micrometres."""
    from scipy.spatial import cKDTree

    s, frame, particles, debris = electrode.settings, electrode.frame, electrode.particles, electrode.debris
    gap = np.full(len(points), inf)
    owner = np.full(len(points), -1)
    coat = np.full(len(points), inf)
    damage = np.zeros(len(points), np.uint8)
    tree = cKDTree(points)
    for i, centre in enumerate(particles.centre):
        near = np.array(tree.query_ball_point(centre, particles.outer[i] + s.coating_thickness_um), int)
        if not len(near):
            continue
        x = (points[near] - centre).T
        own_gap, radius, u, rho = particles.bodies.gap(i, x)
        coat[near] = np.minimum(coat[near], electrode.coats[i].distance(own_gap, u, rho))
        mine = own_gap < gap[near]
        gap[near[mine]], owner[near[mine]] = own_gap[mine], i
        damage[near[mine]] = electrode.damage_of(i).at(x[:, mine], (rho / radius)[mine], radius[mine], 1.0)[0]
    phase = np.where(coat < 0, CBD, VOID).astype(np.uint8)
    phase[(points[:, 0] < frame.foil) & (s.collector_um > 0)] = COLLECTOR
    phase[(points[:, 0] > frame.top) & (s.separator_um > 0)] = VOID
    for i, centre in enumerate(debris.centre):
        close = np.array(tree.query_ball_point(centre, debris.reach[i]), int)
        phase[close[debris.bodies.gap(i, (points[close] - centre).T)[0] < 0]] = ACTIVE
    inside = gap < 0
    phase[inside] = np.where(damage[inside] == NO_DAMAGE, ACTIVE, VOID)
    return phase, np.where(inside, electrode.labels_of(owner), 0).astype(np.int32)
