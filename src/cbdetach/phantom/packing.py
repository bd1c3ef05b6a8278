"""Where the particles are: random bodies in a box larger than the volume, pushed apart until they just touch.

The box is periodic (along z not, if there is a collector or a separator) and larger than the volume by a particle's
radius on each side, so that particles are cut by the volume's border as in a measurement, and none enters it twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import ceil, pi
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbdetach.errors import InputError
from cbdetach.phantom.bodies import Bodies, draw_bodies
from cbdetach.phantom.frame import Frame
from cbdetach.phantom.settings import PhantomSettings
from cbdetach.phantom.vectors import even_directions

Array = NDArray[Any]


@dataclass(frozen=True)
class Particles:
    """The bodies that are in the volume or near enough to coat one that is."""

    centre: Array
    """(n, 3) micrometres."""
    bodies: Bodies
    outer: Array
    """(n,): no point of the surface is further from the centre."""
    label: Array
    """(n,): 1.. for those with at least 10 voxels in the volume, in the order of their centres; 0 for the others."""

    def __len__(self) -> int:
        return len(self.label)


def pack(settings: PhantomSettings, frame: Frame) -> Particles:
    """Particles at random, as many and as large as the settings say."""
    s = settings
    largest = 0.5 * s.diameter_median_um * np.exp(2.5 * s.diameter_sigma) * (1 + 2 * s.elongation + 2 * s.roughness)
    low, high = frame.low - largest, frame.high + largest
    if s.collector_um > 0:
        low[0] = frame.foil
    if s.separator_um > 0:
        high[0] = frame.top
    box, rng = high - low, s.rng("packing")
    bodies = draw_bodies(s, _draw_radii(s, rng, s.active_fraction * float(np.prod(box))))
    n = len(bodies.radius)
    closed = s.collector_um > 0 or s.separator_um > 0
    centre = low + _relax(rng.random((n, 3)) * box, box, bodies, overlap=s.overlap, closed=closed)
    shifts = np.array([(z, y, x) for z in ((0,) if closed else (0, -1, 1)) for y in (0, -1, 1) for x in (0, -1, 1)])
    images = (centre + (shifts * box)[:, None]).reshape(-1, 3)
    near = np.flatnonzero(frame.distance(images) < 2 * largest)
    return _in_sight(images[near], bodies.take(near % n), frame)


def place(settings: PhantomSettings, frame: Frame, centres: Array, diameters: Array) -> Particles:
    """Particles at given centres (n, 3), of given diameters (n,); InputError for other shapes or impossible values."""
    if centres.ndim != 2 or centres.shape[1] != 3 or diameters.shape != centres.shape[:1] or not len(centres):
        raise InputError(
            f"centres_um, diameters_um: must be (n, 3) and (n,) with n >= 1; got {centres.shape}, {diameters.shape}."
        )
    if not (np.isfinite(centres).all() and np.isfinite(diameters).all() and (diameters > 0).all()):
        raise InputError("centres_um, diameters_um: must be finite, and diameters positive; got other values.")
    return _in_sight(centres, draw_bodies(settings, diameters / 2), frame)


def _draw_radii(settings: PhantomSettings, rng: np.random.Generator, space: float) -> Array:
    """Radii of balls that fill `space` (um3), of one kind or two."""
    s = settings
    least = s.small_size if s.small_share > 0 else 1.0
    smallest = pi / 6 * (s.diameter_median_um * least * np.exp(-2.5 * s.diameter_sigma)) ** 3
    normal = np.clip(rng.standard_normal(ceil(space / smallest) + 1), -2.5, 2.5)
    radius = 0.5 * s.diameter_median_um * np.exp(s.diameter_sigma * normal)
    if s.small_share > 0:
        number = s.small_share / s.small_size**3  # of the small for each of the large
        small = s.rng("sizes").random(len(radius)) < number / (number + 1 - s.small_share)
        radius = np.where(small, s.small_size * radius, radius)
    filled = np.cumsum(4 / 3 * pi * radius**3)
    result: Array = radius[: max(1, int(np.searchsorted(filled, space)))]
    return result


def _in_sight(centre: Array, bodies: Bodies, frame: Frame) -> Particles:
    """Drop particles out of sight and slivers below 10 voxels; number the others 1..n by their centres."""
    order = np.lexsort(centre.T[::-1])
    centre, bodies = centre[order], bodies.take(order)
    distance = frame.distance(centre)
    n = len(order)
    u = even_directions(800)
    bounds = [bodies.at(i, u) for i in range(n)]
    outer = np.array([b.max() for b in bounds]) * 1.02
    reach = outer.max(initial=0)
    least = 10 * float(np.prod(frame.size))
    keep, seen = np.zeros(n, bool), np.zeros(n, bool)
    for i in range(n):
        start, stop = frame.cut(centre[i], u)
        part = (np.minimum(bounds[i], stop) ** 3 - np.minimum(bounds[i], start) ** 3).mean() * 4 / 3 * pi
        seen[i] = part >= least
        clear = distance[i] - outer[i]
        keep[i] = seen[i] or (part == 0 and 0 < clear < reach)
    seen = seen[keep]
    return Particles(centre[keep], bodies.take(keep), outer[keep], np.where(seen, np.cumsum(seen), 0))


def _relax(centre: Array, box: Array, bodies: Bodies, *, overlap: float, closed: bool) -> Array:
    """Push overlapping bodies apart, draw near ones together, in a periodic box (closed in z if asked).

    First they are swollen to 60 % of the box, which spreads them evenly; then, at their size, near ones are drawn
    together; last, only what still overlaps is pushed apart.
    """
    n, typical = len(centre), float(np.median(bodies.radius))
    bodies = bodies.without_lumps()  # too fine to matter
    swelling = max(0.0, np.cbrt(0.6 * np.prod(box) / (4 / 3 * pi * (bodies.radius**3).sum())) - 1)
    reach = 2.5 * float(bodies.radius.max())
    torus = np.maximum(box, 2 * reach)
    if closed:
        torus[0] = box[0] + 2 * reach  # nothing reaches round along z
        every = np.arange(n)
        below, above = (bodies.at(every, np.repeat([[side], [0.0], [0.0]], n, axis=1)) for side in (-1.0, 1.0))
    for step in range(300):
        if step % 5 == 0:
            pairs = _near_pairs(centre % torus, torus, bodies.radius, reach)
        gap, u = bodies.pair_gaps(centre, pairs, torus)
        contact = 0.5 * (bodies.radius[pairs[:, 0]] + bodies.radius[pairs[:, 1]])
        gap += overlap * contact
        if step < 80:
            gap -= 2 * min(swelling, 0.15) * contact
        draw = 0.5 * np.clip(1 - gap / (0.4 * typical), 0, 1) if 80 <= step < 200 else 0.0  # the nearest win
        push = -0.7 * gap * np.where(gap < 0, 0.5, draw) * u
        for axis in range(3):
            centre[:, axis] += np.bincount(pairs[:, 1], push[axis], n) - np.bincount(pairs[:, 0], push[axis], n)
        if closed:
            if 80 <= step < 200:  # the lowest settle on the collector
                hover = centre[:, 0] - below
                centre[:, 0] -= 0.2 * hover * np.clip(1 - hover / typical, 0, 1)
            centre[:, 0] = np.clip(centre[:, 0], below, np.maximum(box[0] - above, below))
        if step > 200 and gap.min(initial=0) > -0.02 * typical:
            break
    first = 1 if closed else 0
    centre[:, first:] %= box[first:]
    return centre


def _near_pairs(centre: Array, torus: Array, radius: Array, reach: float) -> Array:
    """Pairs (K, 2) of bodies that may touch: all within `reach`. Where sizes differ widely and most of those are far
    apart: those nearer than 1.25 of their radii's sum plus half a median radius, size by size.
    """
    from scipy.spatial import cKDTree

    typical = float(np.median(radius))
    if reach <= 5.5 * typical:
        every: Array = cKDTree(centre, boxsize=torus).query_pairs(reach, output_type="ndarray")
        return every
    slack, found = 0.5 * typical, []
    order = np.argsort(radius, kind="stable")
    bounds = [0, *(int(len(order) * share) for share in (0.7, 0.9, 0.97)), len(order)]
    groups = [order[a:b] for a, b in pairwise(bounds) if b > a]
    trees = [cKDTree(centre[group], boxsize=torus) for group in groups]
    for k, (group, tree) in enumerate(zip(groups, trees, strict=True)):
        for other, other_tree in zip(groups[: k + 1], trees[: k + 1], strict=True):
            limit = 1.25 * float(radius[group].max() + radius[other].max()) + slack
            hit = tree.sparse_distance_matrix(other_tree, limit, output_type="ndarray")
            i, j, v = group[hit["i"]], other[hit["j"]], hit["v"]
            keep = v < 1.25 * (radius[i] + radius[j]) + slack
            if other is group:
                keep &= i < j
            found.append(np.stack([i[keep], j[keep]], axis=1))
    pairs = np.concatenate(found)
    result: Array = pairs[np.lexsort(pairs.T)]
    return result
