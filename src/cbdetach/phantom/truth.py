"""The truth, which never sees a voxel: points spread evenly over directions on each surface, each with its exact area,
are classified by what the formulas give just outside; volumes are sums over rays from the centre.
"""

from __future__ import annotations

from math import pi
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cbdetach.phantom.damage import CRACK, NO_DAMAGE, PORE
from cbdetach.phantom.electrode import Electrode
from cbdetach.phantom.vectors import even_directions, rotations

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[Any]


def truth_table(electrode: Electrode) -> pd.DataFrame:
    """One row for each labelled particle; the columns are those of `Phantom.truth`."""
    import pandas as pd
    from scipy.spatial import cKDTree

    particles = electrode.particles
    tree = cKDTree(particles.centre)
    even = even_directions(electrode.samples)
    further = float(particles.outer.max()) + _touch(electrode)
    rows = []
    for i in np.flatnonzero(particles.label).tolist():
        rng = electrode.settings.rng("samples", i)
        u = rotations(rng, 1)[0] @ even
        near = sorted(j for j in tree.query_ball_point(particles.centre[i], particles.outer[i] + further) if j != i)
        surface, swallowed = _measure_surface(electrode, i, u, near)
        rows.append(
            {"label": int(particles.label[i])}
            | _measure_body(electrode, i, u, swallowed, rng)
            | surface
            | {
                "covered_fraction": electrode.coats[i].covered,
                "networked": electrode.coats[i].networked,
                "grey": electrode.level[i],
            }
        )
    return pd.DataFrame(rows)


def _touch(electrode: Electrode) -> float:
    """How far beyond its surface a particle matters to another's."""
    return max(electrode.settings.coating_thickness_um, electrode.frame.contact_gap)


def _measure_surface(
    electrode: Electrode, i: int, u: Array, near: list[int]
) -> tuple[dict[str, Any], dict[int, Array]]:
    """Area of each class, from points on the surface in the directions u (3, N), each with its area element; and for
    each neighbour the points that lie inside it.
    """
    s, frame, particles = electrode.settings, electrode.frame, electrode.particles
    radius = particles.bodies.at(i, u)
    slope = particles.bodies.slope(i, u)
    stretch = np.sqrt(1 + (slope**2).sum(axis=0))
    area = 4 * pi / u.shape[1] * radius**2 * stretch
    surface = radius * u
    outside = surface + 1e-4 * float(frame.size.min()) * (u - slope) / stretch
    place = particles.centre[i][:, None] + outside

    gap, _, direction, rho = particles.bodies.gap(i, outside)
    coat = electrode.coats[i].distance(gap, direction, rho)
    other = np.full(len(radius), np.inf)
    swallowed = {}
    for j in near:
        x = place - particles.centre[j][:, None]
        close = (x * x).sum(axis=0) < (particles.outer[j] + _touch(electrode)) ** 2
        gap, _, direction, rho = particles.bodies.gap(j, x[:, close])
        other[close] = np.minimum(other[close], gap)
        if (gap < 0).any():
            swallowed[j] = np.flatnonzero(close)[gap < 0]
        coat[close] = np.minimum(coat[close], electrode.coats[j].distance(gap, direction, rho))

    depth = 1 - 1e-4
    damage, _ = electrode.damage_of(i).at(depth * surface, np.full_like(radius, depth), radius, 1.0)
    border = ((place < frame.low[:, None]) | (place > frame.high[:, None])).any(axis=0)
    foil = (place[0] < frame.foil) & (s.collector_um > 0)
    cbd = (coat < 0) & ((place[0] <= frame.top) | (s.separator_um == 0))
    kinds = np.select([border, other < frame.contact_gap, damage != NO_DAMAGE, foil, cbd], [0, 1, 2, 3, 4], 5)
    border_area, particle_area, mouth_area, foil_area, cbd_area, void_area = np.bincount(
        kinds, weights=area, minlength=6
    )
    contact = cbd_area + void_area
    areas = {
        "touches_border": bool(border.any()),
        "area_void_um2": void_area,
        "area_cbd_um2": cbd_area,
        "area_particle_um2": particle_area,
        "area_other_um2": foil_area,
        "area_border_um2": border_area,
        "area_crack_mouth_um2": mouth_area,
        "detachment_fraction": void_area / contact if contact > 0 else np.nan,
    }
    return areas, swallowed


def _measure_body(
    electrode: Electrode, i: int, u: Array, swallowed: dict[int, Array], rng: np.random.Generator
) -> dict[str, Any]:
    """Volume and centroid by rays from the centre to surface, neighbour or border; damage by points on them."""
    centre, bodies = electrode.particles.centre, electrode.particles.bodies
    radius = bodies.at(i, u)
    reach = radius.copy()
    for j, rays in swallowed.items():
        # the surface lies in particle j: halve the ray down to the point where j takes over
        between = (centre[i] - centre[j])[:, None]
        low, high = np.zeros(len(rays)), radius[rays]
        for _ in range(11):
            middle = 0.5 * (low + high)
            taken = middle - radius[rays] > bodies.gap(j, between + middle * u[:, rays])[0]
            low, high = np.where(taken, low, middle), np.where(taken, middle, high)
        reach[rays] = np.minimum(reach[rays], middle)
    start, stop = electrode.frame.cut(centre[i], u)
    start, stop = np.minimum(start, reach), np.minimum(stop, reach)
    solid_angle = 4 * pi / u.shape[1]
    volume = solid_angle * (stop**3 - start**3).sum() / 3
    centroid = centre[i] + solid_angle * (u * (stop**4 - start**4)).sum(axis=1) / 4 / volume

    fractions = {CRACK: 0.0, PORE: 0.0}
    if electrode.damage_of(i):
        layers = 12
        place = (np.arange(layers)[:, None] + rng.random((layers, u.shape[1]))) / layers
        rho = np.cbrt(start**3 + place * (stop**3 - start**3))
        weight = np.broadcast_to((stop**3 - start**3) / 3 * solid_angle / layers, rho.shape)
        x = (rho * u[:, None, :]).reshape(3, -1)
        depth, around = (rho / radius).ravel(), np.broadcast_to(radius, rho.shape).ravel()
        code, _ = electrode.damage_of(i).at(x, depth, around, 1.0)
        for kind in fractions:
            fractions[kind] = float(weight.ravel()[code == kind].sum() / volume)
    return {
        "z_um": centroid[0],
        "y_um": centroid[1],
        "x_um": centroid[2],
        "volume_um3": volume,
        "equivalent_diameter_um": np.cbrt(6 * volume / pi),
        "crack_fraction": fractions[CRACK],
        "pore_fraction": fractions[PORE],
    }
