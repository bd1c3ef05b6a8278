"""The carbon/binder: on each surface, wavy caps and narrow bands, some of them joined into a network to the collector.

A coat covers a set of directions; the carbon/binder is what lies over them, nearer to the surface than its thickness.
Bands run along arcs of great circles from a particle's first cap to where the coats of its neighbours touch it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbdetach.phantom.frame import Frame
from cbdetach.phantom.packing import Particles
from cbdetach.phantom.settings import PhantomSettings
from cbdetach.phantom.vectors import cross, directions, dot, even_directions, unit, waves

Array = NDArray[Any]

_WAVES = 5


class _Arc:
    """The shorter arc of great circle between two directions (one point if they are equal)."""

    def __init__(self, start: Array, end: Array) -> None:
        pole = cross(start, end)
        self.start, self.end = start, end
        self.pole = pole / max(float(np.linalg.norm(pole)), 1e-6)
        self.after_start, self.before_end = cross(self.pole, start), cross(end, self.pole)

    def angle(self, u: Array) -> Array:
        """Angle from the directions u (3, N) to the arc."""
        to_ends = np.arccos(np.clip(np.maximum(dot(self.start, u), dot(self.end, u)), -1, 1))
        beside = (dot(self.after_start, u) > 0) & (dot(self.before_end, u) > 0)
        beyond: Array = np.where(beside, np.abs(np.arcsin(np.clip(dot(self.pole, u), -1, 1))), to_ends)
        return beyond


@dataclass
class Coat:
    """The covered part of one surface: caps around axes, with a wavy outline, and bands along arcs of great circles."""

    thickness: float
    covered: float  # share of the surface that the caps are to cover
    axes: Array  # (m, 3)
    wave: Array  # (K, 3)
    phase: Array  # (K,)
    waviness: float
    limit: float = 0.0  # a direction is covered where `outline` is below this angle
    arcs: list[_Arc] = field(default_factory=list)
    half_band: float = 0.0

    @property
    def networked(self) -> bool:
        """Whether it belongs to the network."""
        return bool(self.arcs)

    def outline(self, u: Array) -> Array:
        """Angle from the directions u (3, N) to the nearest axis, give or take the waves."""
        nearest = np.clip((self.axes.astype(u.dtype)[:, :, None] * u).sum(axis=1).max(axis=0), -1, 1)
        wavy = u.dtype.type(self.waviness) * waves(self.wave.astype(u.dtype), self.phase.astype(u.dtype), u)
        result: Array = np.arccos(nearest) + wavy
        return result

    def angle(self, u: Array) -> Array:
        """Angle to the edge of the covered part, negative inside (exact for one smooth cap)."""
        angle: Array = self.outline(u) - u.dtype.type(self.limit)
        for arc in self.arcs:
            np.minimum(angle, arc.angle(u) - u.dtype.type(self.half_band), out=angle)
        return angle

    def distance(self, gap: Array, u: Array, rho: Array) -> Array:
        """Signed distance to the carbon/binder (negative inside), at points of this gap to the surface, in these
        directions from the centre and at these distances.
        """
        if self.thickness == 0:
            return np.full_like(gap, inf)
        result: Array = np.maximum(gap - gap.dtype.type(self.thickness), self.angle(u) * rho)
        return result


def draw_coats(settings: PhantomSettings, frame: Frame, particles: Particles, samples: int) -> list[Coat]:
    """One coat for each particle. samples: points on each surface that its covered share is set by."""
    s, rng, n = settings, settings.rng("patches"), len(particles)
    covered = np.full(n, s.covered_fraction)
    if s.covered_fraction_sd > 0:
        concentration = s.covered_fraction * (1 - s.covered_fraction) / s.covered_fraction_sd**2 - 1
        covered = rng.beta(s.covered_fraction * concentration, (1 - s.covered_fraction) * concentration, n)
    coats = [
        Coat(
            s.coating_thickness_um,
            covered[i],
            axes=directions(rng, (s.patches,)),
            wave=directions(rng, (_WAVES,)) * rng.uniform(3, 10, (_WAVES, 1)),
            phase=rng.uniform(0, 2 * np.pi, _WAVES),
            waviness=s.patch_waviness * sqrt(2 / _WAVES),
        )
        for i in range(n)
    ]
    if s.network_share > 0 and s.coating_thickness_um > 0 and s.covered_fraction > 0:
        _join(coats, settings, frame, particles)
    u = even_directions(samples)
    for i, coat in enumerate(coats):
        area = particles.bodies.at(i, u) ** 2 * np.sqrt(1 + (particles.bodies.slope(i, u) ** 2).sum(axis=0))
        coat.limit = _weighted_quantile(coat.outline(u), area, coat.covered)
    return coats


def _join(coats: list[Coat], settings: PhantomSettings, frame: Frame, particles: Particles) -> None:
    """A tree of coats: each networked particle's first cap faces its parent; bands lead on to its children."""
    centre, bodies = particles.centre, particles.bodies
    distance, parent = _ways_down(settings, frame, particles)
    n = len(particles)
    wanted = (settings.rng("network", 1).random(n) < settings.network_share) & np.isfinite(distance)
    # a wanted particle brings its whole way down with it
    for i in np.argsort(-distance, kind="stable"):
        if wanted[i] and parent[i] < n:
            wanted[parent[i]] = True
    half_um = max(0.6 * settings.coating_thickness_um, 0.75 * float(frame.size.max()))
    for i in np.flatnonzero(wanted):
        hub = _DOWN if parent[i] == n else unit(centre[parent[i]] - centre[i])
        coats[i].axes[0] = hub
        coats[i].half_band = half_um / float(bodies.radius[i])
        coats[i].arcs.append(_Arc(hub, hub))
    for i in np.flatnonzero(wanted):
        if parent[i] < n:
            coat = coats[parent[i]]
            coat.arcs.append(_Arc(coat.axes[0], unit(centre[i] - centre[parent[i]])))


_DOWN = np.array([-1.0, 0.0, 0.0])


def _ways_down(settings: PhantomSettings, frame: Frame, particles: Particles) -> tuple[Array, Array]:
    """Each particle's length of the way to the collector, from neighbour to neighbour (inf: none), and the next one on
    it (n: the collector). A step is as long as the centres are apart, and up to as much again by chance.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import dijkstra
    from scipy.spatial import cKDTree

    centre, bodies, n = particles.centre, particles.bodies, len(particles)
    thickness = settings.coating_thickness_um
    pairs = cKDTree(centre).query_pairs(2 * particles.outer.max(initial=0) + thickness, output_type="ndarray")
    pairs = pairs[bodies.pair_gaps(centre, pairs)[0] < thickness]
    bottom = centre[:, 0] - bodies.at(np.arange(n), np.repeat(_DOWN[:, None], n, axis=1))
    roots = np.flatnonzero(bottom - frame.foil < thickness)
    length = np.sqrt(((centre[pairs[:, 0]] - centre[pairs[:, 1]]) ** 2).sum(axis=1))
    length = length * settings.rng("network").uniform(1, 2, len(length))
    rows = np.concatenate([pairs[:, 0], roots])
    columns = np.concatenate([pairs[:, 1], np.full(len(roots), n)])
    weights = np.concatenate([length, np.full(len(roots), 1e-3)])
    graph = coo_array((weights, (rows, columns)), shape=(n + 1, n + 1))
    distance, parent = dijkstra(graph, directed=False, indices=np.array([n]), return_predecessors=True)
    return distance[0][:n], parent[0][:n]


def _weighted_quantile(values: Array, weights: Array, share: float) -> float:
    if share <= 0:
        return -inf
    if share >= 1:
        return inf
    order = np.argsort(values)
    below = np.cumsum(weights[order]) - 0.5 * weights[order]
    return float(np.interp(share * weights.sum(), below, values[order]))
