"""Star-shaped bodies: from a centre, the surface lies at a radius that is a formula of the direction.

The radius is an ellipsoid's times 1 plus a few smooth waves, so that the gap between a point and the surface along the
ray from the centre, and the slope of the surface, are closed forms. Directions are unit vectors u (3, N), one a column.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import log, pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbdetach.phantom.settings import PhantomSettings
from cbdetach.phantom.vectors import directions, even_directions, rotations, waves

Array = NDArray[Any]

_WAVES, _LUMP_WAVES = 6, 8


@dataclass(frozen=True)
class Bodies:
    """n bodies: radius / sqrt(u' Q u) * (1 + amplitude * sum sin(wave . u + phase)), and a second such sum for lumps,
    with no waves in it where there are none.
    """

    radius: Array  # (n,)
    quadric: Array  # (n, 6): zz, yy, xx, 2zy, 2zx, 2yx of Q
    wave: Array  # (n, K, 3)
    phase: Array  # (n, K)
    amplitude: Array  # (n,)
    lump_wave: Array  # (n, L, 3)
    lump_phase: Array  # (n, L)
    lump_amplitude: Array  # (n,)

    def take(self, keep: Array) -> Bodies:
        """Those of an index or a mask."""
        return Bodies(**{f.name: getattr(self, f.name)[keep] for f in fields(self)})

    def as_float32(self) -> Bodies:
        """The same in single precision: enough for voxels."""
        return Bodies(**{f.name: getattr(self, f.name).astype(np.float32) for f in fields(self)})

    def without_lumps(self) -> Bodies:
        """The same, smooth on the scale of the lumps."""
        return replace(self, lump_wave=self.lump_wave[:, :0], lump_phase=self.lump_phase[:, :0])

    def at(self, i: int | Array, u: Array) -> Array:
        """Radius in the directions u (3, N) of body i, or of body i[k] in direction k."""
        stretch = np.sqrt(_quadratic(self.quadric[i].T, u))
        bump = self.amplitude[i] * waves(self.wave[i], self.phase[i], u)
        if self.lump_phase.shape[1]:
            bump += self.lump_amplitude[i] * waves(self.lump_wave[i], self.lump_phase[i], u)
        result: Array = self.radius[i] / stretch * (1 + bump)
        return result

    def slope(self, i: int, u: Array) -> Array:
        """Tangential gradient of log(radius) on the unit sphere, (3, N)."""
        q = self.quadric[i]
        matrix = np.array([[q[0], q[3] / 2, q[4] / 2], [q[3] / 2, q[1], q[5] / 2], [q[4] / 2, q[5] / 2, q[2]]])
        gradient = -(matrix @ u) / _quadratic(q, u)
        sums = (
            (self.amplitude[i], self.wave[i], self.phase[i]),
            (self.lump_amplitude[i], self.lump_wave[i], self.lump_phase[i]),
        )
        total = np.ones(u.shape[1])
        for amplitude, wave, phase in sums:
            total += amplitude * waves(wave, phase, u)
        for amplitude, wave, phase in sums:
            for w, p in zip(wave, phase, strict=True):
                gradient += amplitude * w[:, None] * np.cos(w @ u + p) / total
        result: Array = gradient - u * (gradient * u).sum(axis=0)
        return result

    def gap(self, i: int, x: Array) -> tuple[Array, Array, Array, Array]:
        """At x (3, N), relative to the centre of body i: gap to its surface (negative inside), its radius in that
        direction, the direction, the distance from the centre.
        """
        rho = np.sqrt(x[0] * x[0] + x[1] * x[1] + x[2] * x[2])
        u = x / np.maximum(rho, x.dtype.type(1e-9))
        u[0, rho < 1e-9] = 1  # any direction will do at the centre
        radius = self.at(i, u)
        return rho - radius, radius, u, rho

    def pair_gaps(self, centre: Array, pairs: Array, box: Array | None = None) -> tuple[Array, Array]:
        """Gap along the line of centres for each pair (K, 2), and the direction (3, K) from the first to the second.

        centre: (n, 3). box: edges of a periodic box.
        """
        line = (centre[pairs[:, 1]] - centre[pairs[:, 0]]).T
        if box is not None:
            line -= box[:, None] * np.rint(line / box[:, None])
        length = np.maximum(np.sqrt((line**2).sum(axis=0)), 1e-9)
        u = line / length
        return length - self.at(pairs[:, 0], u) - self.at(pairs[:, 1], -u), u


def draw_bodies(settings: PhantomSettings, radius: Array) -> Bodies:
    """Particles, scaled so that each has the volume of a ball of the given radius (n,)."""
    s, n, rng = settings, len(radius), settings.rng("shape")
    axes = rotations(rng, n)
    squeeze = np.exp(-2 * s.elongation * np.clip(rng.standard_normal((n, 3)), -2, 2))
    wave = directions(rng, (n, _WAVES)) * rng.uniform(3, 10, (n, _WAVES, 1))
    phase = rng.uniform(0, 2 * pi, (n, _WAVES))
    amplitude = np.full(n, s.roughness * sqrt(2 / _WAVES))
    lumps = _draw_lumps(s.rng("lumps"), n, s.lumps)
    bodies = Bodies(radius.copy(), ellipsoids(axes, squeeze), wave, phase, amplitude, *lumps)
    u = even_directions(400)
    for i in range(n):
        bodies.radius[i] *= radius[i] / np.cbrt((bodies.at(i, u) ** 3).mean())
    return bodies


def _draw_lumps(rng: np.random.Generator, n: int, lumps: float) -> tuple[Array, Array, Array]:
    """Waves, phases and amplitudes of n bodies' lumps: none of them where `lumps` is 0."""
    count = _LUMP_WAVES if lumps > 0 else 0
    wave = directions(rng, (n, count)) * np.exp(rng.uniform(log(12), log(40), (n, count, 1)))
    return wave, rng.uniform(0, 2 * pi, (n, count)), np.full(n, lumps * sqrt(2 / _LUMP_WAVES))


def ellipsoids(axes: Array, squeeze: Array) -> Array:
    """`Bodies.quadric` (n, 6) of ellipsoids with these axes (n, 3, 3) and squared inverse half axes (n, 3)."""
    q = np.einsum("nij,nj,nkj->nik", axes, squeeze, axes)
    return np.stack([q[:, 0, 0], q[:, 1, 1], q[:, 2, 2], 2 * q[:, 0, 1], 2 * q[:, 0, 2], 2 * q[:, 1, 2]], axis=1)


def _quadratic(q: Array, u: Array) -> Array:
    z, y, x = u
    result: Array = q[0] * z * z + q[1] * y * y + q[2] * x * x + q[3] * z * y + q[4] * z * x + q[5] * y * x
    return result
