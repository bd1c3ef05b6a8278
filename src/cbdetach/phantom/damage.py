"""Cracks and pores inside a particle: slits that leave the centre or enter from the surface, shards, clusters of balls.

All places are relative to the particle's centre; depth is the distance from it as a part of the radius there.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbdetach.phantom.settings import PhantomSettings
from cbdetach.phantom.vectors import cross, directions, dot, unit, waves

Array = NDArray[Any]

NO_DAMAGE, CRACK, PORE = 0, 1, 2
"""Codes of the damage volume."""

_WAVES = 6


@dataclass(frozen=True)
class _Ragged:
    """Waves through space that make a surface uneven."""

    amplitude: float
    wave: Array  # (K, 3) per micrometre
    phase: Array  # (K,)

    def at(self, x: Array) -> Array:
        result: Array = x.dtype.type(self.amplitude) * waves(self.wave.astype(x.dtype), self.phase.astype(x.dtype), x)
        return result


@dataclass(frozen=True)
class _Slit:
    """A crack: the part of the half plane origin + s * along + t * across near the particle's mid-depth."""

    origin: Array
    along: Array
    across: Array
    normal: Array
    half_width: float  # at its widest
    start: float  # depths
    stop: float
    opens_outwards: bool
    half_length: float
    meander: tuple[float, float, float, float, float]  # amplitude, two wave numbers, two phases

    def distance(self, x: Array, depth: Array, radius: Array) -> tuple[Array, Array]:
        """Signed distance (negative inside) and the local half width, at the points x (3, N)."""
        t = x.dtype.type
        y = x - self.origin.astype(x.dtype)[:, None]
        s = dot(self.along, y)
        w = dot(self.across, y)
        amplitude, k1, k2, p1, p2 = (t(v) for v in self.meander)
        off = dot(self.normal, y) - amplitude * (np.sin(k1 * s + p1) + np.sin(k2 * w + p2))
        ramp = np.clip((depth - t(self.start)) / t(self.stop - self.start), 0, 1)
        taper = ramp if self.opens_outwards else 1 - ramp
        half = t(self.half_width) * (t(0.35) + t(0.65) * taper)
        distance = np.maximum(np.abs(off) - half, -s)
        distance = np.maximum(distance, np.abs(w) - t(self.half_length))
        outside = np.maximum(t(self.start) - depth, depth - t(self.stop)) * radius
        return np.maximum(distance, outside), half


@dataclass(frozen=True)
class _Shards:
    """A broken body: cells around seed points, apart by gaps, some sunken below the surface, some lost."""

    seeds: Array  # (k, 3)
    half_width: Array  # (k,): half the gap on a shard's own side
    sunken: Array  # (k,): depth of its surface below the particle's, micrometres
    lost: Array  # (k,) bool
    ragged: _Ragged

    def distance(self, x: Array, depth: Array, radius: Array) -> Array:
        """Signed distance (negative in the gaps) at the points x (3, N)."""
        t = x.dtype.type
        square = np.stack([((x - seed.astype(x.dtype)[:, None]) ** 2).sum(axis=0) for seed in self.seeds])
        mine = square.argmin(axis=0)
        apart = np.linalg.norm(self.seeds[:, None] - self.seeds, axis=2)
        np.fill_diagonal(apart, inf)
        to_face = square - square.min(axis=0)
        to_face /= 2 * apart.astype(x.dtype)[:, mine]
        to_face[mine, np.arange(len(mine))] = inf
        gap = to_face.min(axis=0) + self.ragged.at(x) - self.half_width.astype(x.dtype)[mine]
        sunken = np.where(self.sunken[mine] > 0, (1 - depth) * radius - self.sunken.astype(x.dtype)[mine], t(inf))
        result: Array = np.where(self.lost[mine], -t(1) * radius, np.minimum(gap, sunken)).astype(x.dtype)
        return result


@dataclass(frozen=True)
class _Pores:
    """A cluster of balls under one uneven surface."""

    balls: list[tuple[Array, float]]  # centre, radius
    ragged: _Ragged

    def distance(self, x: Array) -> Array:
        """Signed distance (negative inside) at the points x (3, N)."""
        distance = np.full(x.shape[1], inf, x.dtype)
        for centre, size in self.balls:
            y = x - centre.astype(x.dtype)[:, None]
            np.minimum(distance, np.sqrt((y * y).sum(axis=0)) - x.dtype.type(size), out=distance)
        distance += self.ragged.at(x)
        return distance


@dataclass(frozen=True)
class Damage:
    """What is wrong with one particle."""

    slits: list[_Slit]
    shards: _Shards | None
    pores: _Pores | None

    def __bool__(self) -> bool:
        return bool(self.slits or self.shards or self.pores)

    def at(self, x: Array, depth: Array, radius: Array, width: float) -> tuple[Array, Array]:
        """Code at the points x (3, N), and the share of dark in a voxel of `width` around each."""
        code = np.zeros(x.shape[1], np.uint8)
        dark = np.zeros(x.shape[1], x.dtype)
        for slit in self.slits:
            distance, half = slit.distance(x, depth, radius)
            code[distance < 0] = CRACK
            # a slit narrower than a voxel darkens it by its width, not by half
            share = np.clip(0.5 - distance / width, 0, 1) - np.clip(0.5 - (distance + 2 * half) / width, 0, 1)
            np.maximum(dark, share, out=dark)
        if self.shards:
            distance = self.shards.distance(x, depth, radius)
            code[distance < 0] = CRACK
            np.maximum(dark, np.clip(0.5 - distance / width, 0, 1), out=dark)
        if self.pores:
            distance = self.pores.distance(x)
            code[distance < 0] = PORE
            np.maximum(dark, np.clip(0.5 - distance / width, 0, 1), out=dark)
        return code, dark


def draw_damage(settings: PhantomSettings, i: int, radius: float) -> Damage:
    """Cracks and pores of particle i, of this radius."""
    s, rng, more = settings, settings.rng("damage", i), settings.rng("shards", i)
    cracked, porous = rng.random() < s.crack_share, rng.random() < s.pore_share
    broken, star = more.random() < s.shattered_share, more.random() < s.star_share
    width, size = (
        value * exp(sd * min(max(more.standard_normal(), -2), 2))
        for value, sd in ((s.crack_width_um, s.crack_width_sd), (s.pore_size, s.pore_size_sd))
    )
    size = min(size, 0.7)
    slits = _draw_slits(s.rng("damage", i, 2), radius, width, star=star) if cracked and width > 0 else []
    shards = _draw_shards(more, radius, s.shards, width) if broken else None
    pores = None
    if porous:
        wave = directions(rng, (_WAVES,)) * rng.uniform(5, 15, (_WAVES, 1)) / radius
        ragged = _Ragged(s.pore_raggedness * size * radius * sqrt(2 / _WAVES), wave, rng.uniform(0, 2 * pi, _WAVES))
        pores = _Pores(_draw_balls(s.rng("damage", i, 1), radius, size), ragged)
    return Damage(slits, shards, pores)


def _draw_slits(rng: np.random.Generator, radius: float, width: float, *, star: bool) -> list[_Slit]:
    """Two to four cracks around one axis: from the centre outwards, sometimes forked, or from the surface inwards; of a
    star, five to nine jagged ones, all from the centre.
    """
    across = directions(rng, ())
    first = unit(cross(across, directions(rng, ())))
    second = cross(across, first)
    slits = []
    turn = rng.uniform(0, 2 * pi)
    count = int(rng.integers(5, 10)) if star else int(rng.integers(2, 5))
    for k in range(count):
        angle = turn + 2 * pi * k / count + rng.uniform(-0.4, 0.4)
        from_surface = rng.random() < 0.35 and not star
        start, stop = (rng.uniform(0.35, 0.6), 1.05) if from_surface else (0.0, rng.choice([0.7, 0.85, 1.05]))
        half = 0.5 * width * rng.uniform(0.7, 1.3)
        branch = not from_surface and rng.random() < (0.2 if star else 0.5)
        for fork in (0.0, rng.choice([-0.6, 0.6])) if branch else (0.0,):
            along = np.cos(angle + fork) * first + np.sin(angle + fork) * second
            origin = np.zeros(3)
            if fork:
                origin = 0.45 * radius * (np.cos(angle) * first + np.sin(angle) * second)
            slits.append(
                _Slit(
                    origin=origin,
                    along=along,
                    across=across,
                    normal=cross(across, along),
                    half_width=half * (0.7 if fork else 1.0),
                    start=start,
                    stop=stop,
                    opens_outwards=from_surface,
                    half_length=radius * rng.uniform(0.4, 0.8),
                    meander=(
                        (0.05 if star else 0.025) * radius,
                        rng.uniform(5, 10) * (2 if star else 1) / radius,
                        rng.uniform(4, 8) / radius,
                        rng.uniform(0, 2 * pi),
                        rng.uniform(0, 2 * pi),
                    ),
                )
            )
    return slits


def _draw_shards(rng: np.random.Generator, radius: float, count: int, width: float) -> _Shards:
    """Cells around points spread over the body; narrow to wide gaps, sunken and lost shards."""
    seeds = directions(rng, (count,)) * radius * np.cbrt(rng.uniform(0.03, 1, (count, 1)))
    wave = directions(rng, (_WAVES,)) * rng.uniform(4, 14, (_WAVES, 1)) / radius
    return _Shards(
        seeds,
        half_width=0.5 * width * rng.uniform(0.2, 1.8, count),
        sunken=radius * np.where(rng.random(count) < 0.5, rng.uniform(0, 0.12, count), 0),
        lost=rng.random(count) < 0.1,
        ragged=_Ragged(0.03 * radius * sqrt(2 / _WAVES), wave, rng.uniform(0, 2 * pi, _WAVES)),
    )


def _draw_balls(rng: np.random.Generator, radius: float, size: float) -> list[tuple[Array, float]]:
    """A cluster, drawn out along one axis: a large ball at the centre, smaller ones around it."""
    main = radius * size * rng.uniform(0.5, 0.9)
    stretch = directions(rng, ())
    balls = [(radius * 0.05 * rng.standard_normal(3), main)]
    for _ in range(int(rng.integers(5, 11))):
        away = directions(rng, ()) + rng.uniform(-1, 1) * stretch
        balls.append((away * radius * size * rng.uniform(0.3, 1.0), main * rng.uniform(0.25, 0.7)))
    return balls
