"""Synthetic electrodes with ground truth: tomogram, labels, phases, cracks, pores, and every particle's detachment.

The electrode is a set of formulas, and everything else is read off them. Particle `i` is a star-shaped body: from its
centre the surface lies at the radius `r_i(u)` in the direction `u` (an ellipsoid times a few smooth waves), so that
`gap_i(x) = |x - c_i| - r_i(u)` is negative inside. Where bodies overlap, the one with the smallest gap owns the point:
touching particles are flattened against each other. Carbon/binder (CBD) lies outside every particle, where
`0 < gap_i < thickness` and the direction is in a covered part of surface `i`: wavy caps around a few axes, plus narrow
bands that join neighbouring coatings into a network down to the collector. A coating may touch the particle next door,
which is then covered there too. Cracks are slit-shaped half planes that leave the centre region or enter from the
surface and may branch; pores are clusters of balls at the centre.

The *volumes* are these formulas at the voxel centres, with partial volume from the distance to each interface; then
blur, phase contrast, noise, rings and shading. The *truth* never sees a voxel: points spread evenly over directions on
each surface, weighted by the exact area element, are classified by what the formulas give just outside. Both meet only
in the tests.

Packing: bodies dropped at random into a box larger than the volume and pushed apart until they just touch, so that
particles are cut by the volume's border as in a measurement. Random numbers: one stream per purpose and, for noise, per
slice, so that a slab has the same bytes however the volume is divided, and changing the blur leaves the geometry alone.

Cost: about 1 microsecond and, per slab, 40 bytes per voxel. A generator, not a kernel: it loops over particles.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import pairwise
from math import ceil, exp, inf, isfinite, log, pi, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cbdetach.codes import ACTIVE, CBD, COLLECTOR, VOID
from cbdetach.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[Any]

NO_DAMAGE, CRACK, PORE = 0, 1, 2
"""Codes of the damage volume."""

FWHM = 2 * sqrt(2 * log(2))
"""Full width at half maximum of a Gaussian of standard deviation 1."""

_SAMPLES = 2000  # points per particle surface: fractions are good to about 0.002
_SHAPE_WAVES, _PATCH_WAVES, _PORE_WAVES, _MOTTLE_WAVES, _LUMP_WAVES = 6, 5, 6, 12, 8
_STREAMS = [
    "packing",
    "shape",
    "patches",
    "damage",
    "density",
    "network",
    "texture",
    "noise",
    "rings",
    "samples",
    "mottle",
    "lumps",
    "sizes",
    "shards",
    "debris",
    "cloud",
    "streaks",
]


@dataclass(frozen=True)
class PhantomSettings:
    """What the electrode is made of and how it is imaged. Lengths in micrometres, grey levels on the scale 0..65535."""

    shape: tuple[int, int, int] = (192, 192, 192)
    """Voxels (z, y, x)."""
    voxel_size_um: tuple[float, float, float] = (0.2, 0.2, 0.2)
    seed: int = 0

    diameter_median_um: float = 5.2
    diameter_sigma: float = 0.2
    """Standard deviation of the logarithm of the diameter; drawn within 2.5 of it."""
    small_share: float = 0.0
    """Share of the particles' volume in a second, smaller kind."""
    small_size: float = 0.5
    """Median diameter of the smaller kind, as a part of `diameter_median_um`."""
    active_fraction: float = 0.47
    """Share of the space given to particles before overlaps are cut."""
    overlap: float = 0.04
    """Depth by which touching particles are pressed into each other, as a part of their mean radius."""
    elongation: float = 0.08
    """Standard deviation of the logarithm of each half axis (drawn within 2 of it)."""
    roughness: float = 0.025
    """Standard deviation of the radius around the ellipsoid, as a part of the radius."""
    lumps: float = 0.0
    """The same on the scale of the primary particles, on top of `roughness`: 12 to 40 radians of wave to one of arc."""

    coating_thickness_um: float = 1.2
    covered_fraction: float = 0.38
    """Mean share of a surface under the particle's own patches; the neighbours' coatings add to it."""
    covered_fraction_sd: float = 0.25
    patches: int = 2
    """Patches per particle."""
    patch_waviness: float = 0.15
    """Amplitude (radians) of the random outline of a patch."""
    network_share: float = 0.5
    """Share of the particles that the carbon/binder joins, coating to coating, down to the side z = 0."""
    collector_um: float = 0.0
    """Thickness of the aluminium foil at z = 0."""
    separator_um: float = 0.0
    """Thickness of the separator at the other end of z: void among the phases, grey of its own, no particle in it."""

    crack_share: float = 0.3
    crack_width_um: float = 0.4
    crack_width_sd: float = 0.0
    """Standard deviation of the logarithm of the crack width between particles: some gape, some are hairlines."""
    star_share: float = 0.0
    """Share of the cracked particles with five to nine jagged cracks that radiate from the centre."""
    shattered_share: float = 0.0
    """Share of the particles broken into displaced shards, cracks between them; they keep their outline as a label."""
    shards: int = 12
    """Shards of a shattered particle; a few are lost."""
    pore_share: float = 0.4
    pore_size: float = 0.3
    """Radius of the central pore cluster, as a part of the particle's radius."""
    pore_size_sd: float = 0.0
    """Standard deviation of the logarithm of the pore size between particles."""
    pore_raggedness: float = 0.25
    """Standard deviation of the pores' surface, as a part of the pore cluster's radius."""
    debris: float = 0.0
    """Share of the space given to fragments between the particles, a tenth to a third of their size and in clusters:
    active material without a label. The truth does not know of them."""

    grey_void: float = 10000.0
    grey_cbd: float = 21000.0
    grey_active: float = 44000.0
    grey_collector: float = 31000.0
    grey_separator: float = 15000.0
    density_sd: float = 0.02
    """Standard deviation of the particles' mean grey, as a part of the active material's contrast to void."""
    blur_fwhm_um: float = 0.4
    blur_z_fwhm_um: float = 0.0
    """Blur along z where it differs: particles cut near their poles become dim. 0: as in the plane."""
    fringe: float = 0.1
    """Strength of the bright and dark lines at edges (unsharp mask twice as wide as the blur)."""
    texture: float = 0.03
    """Standard deviation of the grain inside solids, after blur, as a part of the contrast."""
    mottle: float = 0.04
    """Standard deviation of the slow variation of density inside the carbon/binder, as a part of the contrast."""
    cloud: float = 0.0
    """The same in everything between the particles, on wavelengths of a third to two of their diameters."""
    noise: float = 0.04
    """Standard deviation of the noise, as a part of the contrast."""
    noise_correlation: float = 0.7
    """Standard deviation (voxels) of the Gaussian that the noise went through; a part went through a wider one."""
    streaks: float = 0.0
    """Standard deviation of noise drawn out along one direction of the plane, as a part of the contrast."""
    streak_length: float = 8.0
    """Standard deviation (voxels) of the streaks along that direction."""
    rings: float = 0.02
    shading: float = 0.0
    """Largest slow change of the grey value over the volume, as a part of the contrast."""
    dtype: str = "uint16"

    def __post_init__(self) -> None:
        for name in ("shape", "voxel_size_um"):
            object.__setattr__(self, name, tuple(np.atleast_1d(getattr(self, name)).tolist()))
        if len(self.shape) != 3 or any(not isinstance(n, int) or n < 1 for n in self.shape):
            raise InputError(f"shape: must be three positive integers (z, y, x); got {self.shape}.")
        if len(self.voxel_size_um) != 3 or any(not (isfinite(s) and s > 0) for s in self.voxel_size_um):
            raise InputError(f"voxel_size_um: must be three positive lengths (dz, dy, dx); got {self.voxel_size_um}.")
        if self.dtype not in ("uint8", "uint16", "float32"):
            raise InputError(f"dtype: must be uint8, uint16 or float32; got {self.dtype}.")
        for name, least in (("seed", 0), ("patches", 1), ("shards", 2)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise InputError(f"{name}: must be an integer of at least {least}; got {value}.")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name}: must be between {low:g} and {high:g}; got {value:g}.")
        mean, sd = self.covered_fraction, self.covered_fraction_sd
        if sd > 0 and sd * sd >= mean * (1 - mean):
            limit = sqrt(mean * (1 - mean))
            raise InputError(
                f"covered_fraction_sd: must be below {limit:.3g} for a covered_fraction of {mean:g}; got {sd:g}."
            )
        if self.collector_um + self.separator_um >= self.shape[0] * self.voxel_size_um[0] and self.separator_um > 0:
            raise InputError(
                f"separator_um: must leave room for particles in {self.shape[0] * self.voxel_size_um[0]:g} um; "
                f"got {self.separator_um:g} beside a collector of {self.collector_um:g}."
            )
        if self.diameter_median_um < 3 * max(self.voxel_size_um):
            raise InputError(
                f"diameter_median_um: must be at least 3 voxels ({3 * max(self.voxel_size_um):g} um); "
                f"got {self.diameter_median_um:g}."
            )


_RANGES: dict[str, tuple[float, float]] = {
    "diameter_median_um": (1e-6, 1e6),
    "diameter_sigma": (0.0, 1.0),
    "small_share": (0.0, 1.0),
    "small_size": (0.1, 1.0),
    "active_fraction": (0.01, 0.6),
    "overlap": (0.0, 0.2),
    "elongation": (0.0, 0.3),
    "roughness": (0.0, 0.1),
    "lumps": (0.0, 0.05),
    "coating_thickness_um": (0.0, 1e6),
    "covered_fraction": (0.0, 1.0),
    "covered_fraction_sd": (0.0, 0.5),
    "patch_waviness": (0.0, 1.0),
    "network_share": (0.0, 1.0),
    "collector_um": (0.0, 1e6),
    "separator_um": (0.0, 1e6),
    "crack_share": (0.0, 1.0),
    "crack_width_um": (0.0, 1e6),
    "crack_width_sd": (0.0, 1.0),
    "star_share": (0.0, 1.0),
    "shattered_share": (0.0, 1.0),
    "pore_share": (0.0, 1.0),
    "pore_size": (0.01, 0.7),
    "pore_size_sd": (0.0, 1.0),
    "pore_raggedness": (0.0, 1.0),
    "debris": (0.0, 0.2),
    "grey_void": (0.0, 65535.0),
    "grey_cbd": (0.0, 65535.0),
    "grey_active": (0.0, 65535.0),
    "grey_collector": (0.0, 65535.0),
    "grey_separator": (0.0, 65535.0),
    "density_sd": (0.0, 0.5),
    "blur_fwhm_um": (0.0, 1e6),
    "blur_z_fwhm_um": (0.0, 1e6),
    "fringe": (0.0, 2.0),
    "texture": (0.0, 1.0),
    "mottle": (0.0, 1.0),
    "cloud": (0.0, 1.0),
    "noise": (0.0, 1.0),
    "noise_correlation": (0.0, 10.0),
    "streaks": (0.0, 1.0),
    "streak_length": (0.0, 100.0),
    "rings": (0.0, 1.0),
    "shading": (0.0, 1.0),
}


@dataclass(frozen=True)
class Slab:
    """Slices `z0` to `z1 - 1` of a phantom. All arrays are (z1 - z0, Y, X)."""

    z0: int
    z1: int
    grey: Array
    """The tomogram, of the dtype in the settings."""
    labels: Array
    """int32: 1..n, the filled particle (cracks and pores included); 0 elsewhere."""
    phases: Array
    """uint8: `VOID`, `CBD`, `ACTIVE`, `COLLECTOR` of `cbdetach.codes`; cracks and pores are void."""
    damage: Array
    """uint8: `NO_DAMAGE`, `CRACK`, `PORE`."""


@dataclass(frozen=True)
class Section:
    """One plane of voxels across the electrode, before it is imaged. All arrays are (Y, X) of that plane."""

    labels: Array
    """int32: 1..n, the filled particle; 0 elsewhere."""
    phases: Array
    """uint8, as in `Slab`."""
    damage: Array
    """uint8, as in `Slab`."""
    particle: Array
    """float32: share of the voxel inside a filled particle, seen through the blur across the plane."""
    dark: Array
    """float32: share of that which cracks and pores take."""
    cbd: Array
    """float32: share of carbon/binder."""
    collector: Array
    """float32: share of the collector's foil."""
    separator: Array
    """float32: share of the separator."""
    debris: Array
    """float32: share of fragments; what they cover is counted in `cbd`, `collector` and `separator` too."""
    level: Array
    """float32: grey level of the particle's or the fragment's solid, `grey_active` where there is none."""


@dataclass(frozen=True)
class _Shapes:
    """n bodies by their radius at direction u: radius / sqrt(u' Q u) * (1 + amplitude * sum sin(wave . u + phase)), and
    a second such sum for the lumps (no waves in it where there are none).
    """

    radius: Array  # (n,)
    quadric: Array  # (n, 6): zz, yy, xx, 2zy, 2zx, 2yx of Q
    wave: Array  # (n, K, 3)
    phase: Array  # (n, K)
    amplitude: Array  # (n,)
    lump_wave: Array  # (n, L, 3)
    lump_phase: Array  # (n, L)
    lump_amplitude: Array  # (n,)

    def take(self, keep: Array) -> _Shapes:
        return _Shapes(**{f.name: getattr(self, f.name)[keep] for f in fields(self)})

    def as_float32(self) -> _Shapes:
        return _Shapes(**{f.name: getattr(self, f.name).astype(np.float32) for f in fields(self)})

    def at(self, i: int | Array, u: Array) -> Array:
        """Radius in the directions u (3, N) of the particle i, or of particle i[k] in direction k."""
        stretch = np.sqrt(_quadratic(self.quadric[i].T, u))
        bump = self.amplitude[i] * _waves(self.wave[i], self.phase[i], u)
        if self.lump_phase.shape[1]:
            bump += self.lump_amplitude[i] * _waves(self.lump_wave[i], self.lump_phase[i], u)
        result: Array = self.radius[i] / stretch * (1 + bump)
        return result

    def log_gradient(self, i: int, u: Array) -> Array:
        """Tangential gradient of log(radius) on the unit sphere, (3, N)."""
        q = self.quadric[i]
        matrix = np.array([[q[0], q[3] / 2, q[4] / 2], [q[3] / 2, q[1], q[5] / 2], [q[4] / 2, q[5] / 2, q[2]]])
        gradient = -(matrix @ u) / _quadratic(q, u)
        total = 1 + self.amplitude[i] * _waves(self.wave[i], self.phase[i], u)
        if self.lump_phase.shape[1]:
            total += self.lump_amplitude[i] * _waves(self.lump_wave[i], self.lump_phase[i], u)
        for amplitude, waves, phases in (
            (self.amplitude[i], self.wave[i], self.phase[i]),
            (self.lump_amplitude[i], self.lump_wave[i], self.lump_phase[i]),
        ):
            for wave, phase in zip(waves, phases, strict=True):
                gradient += amplitude * wave[:, None] * np.cos(wave @ u + phase) / total
        result: Array = gradient - u * (gradient * u).sum(axis=0)
        return result


class _Arc:
    """The shorter arc of great circle between two directions (one point if they are equal)."""

    def __init__(self, start: Array, end: Array) -> None:
        pole = _cross(start, end)
        self.start, self.end = start, end
        self.pole = pole / max(float(np.linalg.norm(pole)), 1e-6)
        self.after_start, self.before_end = _cross(self.pole, start), _cross(end, self.pole)

    def angle(self, u: Array) -> Array:
        """Angle from the directions u (3, N) to the arc."""
        to_ends = np.arccos(np.clip(np.maximum(_dot(self.start, u), _dot(self.end, u)), -1, 1))
        beside = (_dot(self.after_start, u) > 0) & (_dot(self.before_end, u) > 0)
        beyond: Array = np.where(beside, np.abs(np.arcsin(np.clip(_dot(self.pole, u), -1, 1))), to_ends)
        return beyond


@dataclass
class _Coat:
    """The covered part of one surface: caps around axes, with a wavy outline, and bands along arcs of great circles."""

    axes: Array  # (m, 3)
    wave: Array  # (K, 3)
    phase: Array  # (K,)
    waviness: float
    limit: float = 0.0  # a direction is covered where `outline` is below this angle
    arcs: list[_Arc] = field(default_factory=list)
    half_band: float = 0.0

    def outline(self, u: Array) -> Array:
        nearest = np.clip((self.axes.astype(u.dtype)[:, :, None] * u).sum(axis=1).max(axis=0), -1, 1)
        wavy = u.dtype.type(self.waviness) * _waves(self.wave.astype(u.dtype), self.phase.astype(u.dtype), u)
        result: Array = np.arccos(nearest) + wavy
        return result

    def angle(self, u: Array) -> Array:
        """Angle to the edge of the covered part, negative inside (exact for one smooth cap)."""
        angle: Array = self.outline(u) - u.dtype.type(self.limit)
        for arc in self.arcs:
            np.minimum(angle, arc.angle(u) - u.dtype.type(self.half_band), out=angle)
        return angle


@dataclass(frozen=True)
class _Slit:
    """A crack: the part of the half plane origin + s * along + t * across near the particle's mid-depth."""

    origin: Array
    along: Array
    across: Array
    normal: Array
    half_width: float  # at its widest
    start: float  # depths as a part of the particle's radius
    stop: float
    opens_outwards: bool
    half_length: float
    meander: tuple[float, float, float, float, float]  # amplitude, two wave numbers, two phases

    def distance(self, x: Array, depth: Array, radius: Array) -> tuple[Array, Array]:
        """Signed distance (negative inside) and the local half width, at the points x (3, N) relative to the centre."""
        t = x.dtype.type
        y = x - self.origin.astype(x.dtype)[:, None]
        s = _dot(self.along, y)
        w = _dot(self.across, y)
        amplitude, k1, k2, p1, p2 = (t(v) for v in self.meander)
        off = _dot(self.normal, y) - amplitude * (np.sin(k1 * s + p1) + np.sin(k2 * w + p2))
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

    seeds: Array  # (k, 3), relative to the particle's centre
    half_width: Array  # (k,): half the gap on a shard's own side
    sunken: Array  # (k,): depth of its surface below the particle's
    lost: Array  # (k,) bool
    ragged: tuple[float, Array, Array]  # waves of the gaps, as of the pores

    def distance(self, x: Array, depth: Array, radius: Array) -> Array:
        """Signed distance (negative in the gaps) at the points x (3, N) relative to the centre."""
        t = x.dtype.type
        amplitude, wave, phase = self.ragged
        bend = t(amplitude) * _waves(wave.astype(x.dtype), phase.astype(x.dtype), x)
        square = np.stack([((x - seed.astype(x.dtype)[:, None]) ** 2).sum(axis=0) for seed in self.seeds])
        mine = square.argmin(axis=0)
        apart = np.linalg.norm(self.seeds[:, None] - self.seeds, axis=2)
        np.fill_diagonal(apart, inf)
        to_face = square - square.min(axis=0)
        to_face /= 2 * apart.astype(x.dtype)[:, mine]
        to_face[mine, np.arange(len(mine))] = inf
        gap = to_face.min(axis=0) + bend - self.half_width.astype(x.dtype)[mine]
        sunken = np.where(self.sunken[mine] > 0, (1 - depth) * radius - self.sunken.astype(x.dtype)[mine], t(inf))
        result: Array = np.where(self.lost[mine], -t(1) * radius, np.minimum(gap, sunken)).astype(x.dtype)
        return result


@dataclass(frozen=True)
class _Damage:
    slits: list[_Slit]
    pores: list[tuple[Array, float]]  # balls: centre relative to the particle's, radius
    ragged: tuple[float, Array, Array]  # waves of the pores' surface: amplitude, (K, 3) per length, (K,)
    shards: _Shards | None = None

    @property
    def any(self) -> bool:
        return bool(self.slits or self.pores or self.shards)

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
            distance = np.full(x.shape[1], inf, x.dtype)
            for centre, size in self.pores:
                y = x - centre.astype(x.dtype)[:, None]
                np.minimum(distance, np.sqrt((y * y).sum(axis=0)) - x.dtype.type(size), out=distance)
            amplitude, wave, phase = self.ragged
            distance += x.dtype.type(amplitude) * _waves(wave.astype(x.dtype), phase.astype(x.dtype), x)
            code[distance < 0] = PORE
            np.maximum(dark, np.clip(0.5 - distance / width, 0, 1), out=dark)
        return code, dark


class Phantom:
    """A synthetic electrode, made from `settings`: `truth`, and its volumes slab by slab.

    settings: `PhantomSettings`, or give its fields as keywords.
    centres_um (n, 3), diameters_um (n,): place these particles instead of packing at random.
    samples: points per particle surface. The default is good to 0.002 in every share of a surface; 200, good to 0.02,
    makes the electrode itself several times sooner where no truth is asked for.

    `truth` is a pandas table, measured when first asked for (about 15 ms a particle), one row per particle with at
    least 10 voxels in the volume: label, z_um, y_um, x_um (centroid of the part in the volume), volume_um3,
    equivalent_diameter_um, crack_fraction, pore_fraction, touches_border, area_void_um2, area_cbd_um2,
    area_particle_um2, area_other_um2 (collector), area_border_um2 (surface outside the volume),
    area_crack_mouth_um2, detachment_fraction (void / (void + cbd), nan
    where both are 0), covered_fraction (as drawn, by its own patches), networked (its coating belongs to the network),
    grey (level of its solid, before imaging).
    Surface nearer than half a voxel to another particle counts as contact with it: no volume could tell.
    """

    def __init__(
        self,
        settings: PhantomSettings | None = None,
        *,
        centres_um: Array | None = None,
        diameters_um: Array | None = None,
        samples: int = _SAMPLES,
        **changes: Any,
    ) -> None:
        self.settings = s = _settings(settings, changes)
        if not isinstance(samples, int) or samples < 50:
            raise InputError(f"samples: must be an integer of at least 50; got {samples}.")
        self._samples = samples
        self._set_grid()

        if (centres_um is None) != (diameters_um is None):
            raise InputError("centres_um, diameters_um: must be given together; got only one of them.")
        if centres_um is None or diameters_um is None:
            self._pack()
        else:
            self._place(np.array(centres_um, np.float64), np.array(diameters_um, np.float64))
        self._keep_visible()
        self._draw_coats()
        self._damage: dict[int, _Damage] = {}
        self._draw_debris()
        contrast = s.grey_active - s.grey_void
        self._level = s.grey_active + contrast * s.density_sd * self._rng("density").standard_normal(self._total)
        self._shapes32 = self._shapes.as_float32()
        if not self._label.any():
            raise InputError(
                f"shape: must hold at least 10 voxels of one particle; got {s.shape}. "
                "Make the volume larger or the particles denser."
            )

    def _set_grid(self) -> None:
        """What follows from the voxels: the volume's sides, the blur in voxels, how near is contact."""
        s = self.settings
        self._size = np.array(s.voxel_size_um)
        self._low = -0.5 * self._size
        self._high = (np.array(s.shape) - 0.5) * self._size
        self._foil = self._low[0] + s.collector_um
        self._top = self._high[0] - s.separator_um
        self._sigma = s.blur_fwhm_um / FWHM / self._size
        if s.blur_z_fwhm_um > 0:
            self._sigma[0] = s.blur_z_fwhm_um / FWHM / self._size[0]
        self._reach = int(max(_kernel(v).size // 2 for v in self._sigma))
        self._halo = self._reach + int(max(_kernel(2 * v).size // 2 for v in self._sigma) if s.fringe else 0)
        self._contact_gap = 0.5 * float(self._size.max())

    def finer(self, factor: int) -> Phantom:
        """The same electrode in voxels of 1 / `factor` the edge, for a truth that needs voxels.

        Each voxel is cut into `factor`^3; an odd factor leaves one at its centre, with its label, phase and damage.
        Labels are the same. Positions count from the first of the finer voxels. Grain and noise are drawn anew.
        InputError for a factor that is no integer of at least 1.
        """
        if not isinstance(factor, int) or factor < 1:
            raise InputError(f"factor: must be an integer of at least 1; got {factor}.")
        other = copy(self)
        (z, y, x), (dz, dy, dx) = self.settings.shape, self.settings.voxel_size_um
        other.settings = replace(
            self.settings,
            shape=(z * factor, y * factor, x * factor),
            voxel_size_um=(dz / factor, dy / factor, dx / factor),
        )
        vars(other).pop("truth", None)
        other._set_grid()
        shift = other._low - self._low
        other._centre, other._crumb_centre = self._centre + shift, self._crumb_centre + shift
        return other

    # Volumes

    def _checked(self, z0: int, z1: int) -> PhantomSettings:
        """The settings; InputError unless z0..z1-1 are slices of the volume."""
        n = self.settings.shape[0]
        if not 0 <= z0 < z1 <= n:
            raise InputError(f"z0, z1: must satisfy 0 <= z0 < z1 <= {n}; got {z0}, {z1}.")
        return self.settings

    def codes(self, z0: int, z1: int) -> tuple[Array, Array, Array]:
        """Labels, phases and damage of slices z0..z1-1 as in `slab`, without the cost of imaging them."""
        s = self._checked(z0, z1)
        start, stop = (z0, 0, 0), (z1, *s.shape[1:])
        gap, owner, coat, _, damage = self._render(start, stop)
        crumbs = self._render_debris(start, stop)[0] if s.debris > 0 else None
        return self._codes(gap, owner, coat, damage, crumbs, (np.arange(z0, z1) * self._size[0])[:, None, None])

    def slab(self, z0: int, z1: int) -> Slab:
        """Slices z0..z1-1. Equal, byte for byte, to the same slices of the whole volume. InputError outside 0..Z."""
        s = self._checked(z0, z1)
        first = z0 - self._halo
        gap, owner, coat, dark, damage = self._render((first, 0, 0), (z1 + self._halo, *s.shape[1:]))
        inner = slice(self._halo, self._halo + z1 - z0)

        z_um = (np.arange(first, z1 + self._halo) * self._size[0])[:, None, None]
        width = np.float32(self._size.mean())
        active = np.clip(np.float32(0.5) - gap / width, 0, 1)
        foil, separator = self._ends(z_um)
        cbd = np.clip(np.float32(0.5) - coat / width, 0, 1) * (1 - foil) * (1 - separator) * (1 - active)
        foil, separator = foil * (1 - active), separator * (1 - active)
        between = 1 - active
        active *= 1 - dark
        level = np.append(self._level, s.grey_active).astype(np.float32)[owner]
        grey = np.float32(s.grey_void) + active * (level - np.float32(s.grey_void))
        grey += cbd * np.float32(s.grey_cbd - s.grey_void)
        if s.mottle > 0:
            self._add_mottle(grey, cbd, first)
        grey += foil * np.float32(s.grey_collector - s.grey_void)
        solid = active + cbd + foil
        if s.separator_um > 0:
            grey += separator * np.float32(s.grey_separator - s.grey_void)
        crumbs = None
        if s.debris > 0:
            crumbs, bright = self._render_debris((first, 0, 0), (z1 + self._halo, *s.shape[1:]))
            share = np.clip(np.float32(0.5) - crumbs / width, 0, 1) * between
            grey += share * (bright - grey)
            solid += share * (1 - solid)
            crumbs = crumbs[inner]
        if s.cloud > 0:
            self._add_cloud(grey, between, first)

        codes = self._codes(gap[inner], owner[inner], coat[inner], damage[inner], crumbs, z_um[inner])
        return Slab(z0, z1, self._image(grey, solid, z0, z1), *codes)

    def _ends(self, z_um: Array) -> tuple[Array, Array]:
        """Share of collector and of separator in voxels at the given heights."""
        s, step = self.settings, self._size[0]
        foil = np.clip(0.5 - (z_um - self._foil) / step, 0, 1).astype(np.float32) * (s.collector_um > 0)
        separator = np.clip(0.5 + (z_um - self._top) / step, 0, 1).astype(np.float32) * (s.separator_um > 0)
        return foil, separator

    def section(self, axis: int, index: int, *, through_um: float = 0.0) -> Section:
        """One plane of voxels: slice `index` along `axis` (0 z, 1 y, 2 x), ideal and noise-free, for the cost of one.

        through_um: full width at half maximum of the blur across the plane: particles cut near a pole become dim, and
        those just missed shine through. The blur within the plane is left to the caller.
        InputError for an axis or an index outside the volume.
        """
        s = self.settings
        if axis not in (0, 1, 2) or not 0 <= index < s.shape[axis]:
            raise InputError(f"axis, index: must lie in the volume {s.shape}; got {axis}, {index}.")
        if not 0 <= through_um < inf:
            raise InputError(f"through_um: must be at least 0; got {through_um}.")
        start, stop = [0, 0, 0], list(s.shape)
        start[axis], stop[axis] = index, index + 1
        sigma = through_um / FWHM
        parts = self._render(tuple(start), tuple(stop), 2 * sigma)
        gap, owner, coat, dark, damage = (part.take(0, axis) for part in parts)

        width = np.float32(self._size.mean())
        axes = [np.arange(a, b) * d for a, b, d in zip(start, stop, self._size, strict=True)]
        centre = np.append(self._centre, [[0.0] * 3], axis=0)[owner]
        away = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).take(0, axis) - centre
        slope = np.zeros(gap.shape)
        near = owner >= 0
        slope[near] = np.abs(away[near][:, axis]) / np.maximum(np.linalg.norm(away[near], axis=1), 1e-9)
        soft = np.sqrt(width**2 + 12 * (sigma * slope) ** 2).astype(np.float32)
        particle = np.clip(np.float32(0.5) - gap / soft, 0, 1)
        z_um = axes[0].reshape(-1, 1) if axis != 0 else axes[0]
        foil, separator = (np.broadcast_to(part, gap.shape) for part in self._ends(z_um))
        cbd = np.clip(np.float32(0.5) - coat / width, 0, 1) * (1 - foil) * (1 - separator) * (1 - particle)
        level = np.append(self._level, s.grey_active).astype(np.float32)[owner]
        debris, crumbs = np.zeros_like(particle), None
        if s.debris > 0:
            crumbs, bright = (part.take(0, axis) for part in self._render_debris(tuple(start), tuple(stop)))
            debris = np.clip(np.float32(0.5) - crumbs / width, 0, 1) * (1 - particle)
            level = np.where(particle > 0, level, np.where(debris > 0, bright, level))
        labels, phases, damage = self._codes(gap, owner, coat, damage, crumbs, z_um)
        rest = 1 - particle
        return Section(labels, phases, damage, particle, dark, cbd, foil * rest, separator * rest, debris, level)

    def _codes(
        self, gap: Array, owner: Array, coat: Array, damage: Array, crumbs: Array | None, z_um: Array
    ) -> tuple[Array, Array, Array]:
        """Labels, phases and damage of voxels at the heights `z_um` (broadcast), from what `_render` found there."""
        inside = gap < 0
        labels = np.where(inside, np.append(self._label, 0)[owner], 0).astype(np.int32)
        damage = np.where(inside, damage, NO_DAMAGE).astype(np.uint8)
        phases = np.where(coat < 0, CBD, VOID).astype(np.uint8)
        if self.settings.collector_um > 0:
            phases[np.broadcast_to(z_um < self._foil, phases.shape)] = COLLECTOR
        if self.settings.separator_um > 0:
            phases[np.broadcast_to(z_um > self._top, phases.shape)] = VOID
        if crumbs is not None:
            phases[crumbs < 0] = ACTIVE
        phases[inside] = ACTIVE
        phases[damage != NO_DAMAGE] = VOID
        return labels, phases, damage

    def slabs(self, thickness: int = 64) -> Iterator[Slab]:
        """The whole volume in order, `thickness` slices at a time."""
        depth = self.settings.shape[0]
        for z0 in range(0, depth, thickness):
            yield self.slab(z0, min(z0 + thickness, depth))

    def volume(self) -> Slab:
        """The whole volume in memory: 8 bytes per voxel (16-bit grey), plus what one slab needs while it is made."""
        shape = self.settings.shape
        whole = Slab(
            0,
            shape[0],
            np.empty(shape, self.settings.dtype),
            np.empty(shape, np.int32),
            np.empty(shape, np.uint8),
            np.empty(shape, np.uint8),
        )
        for part in self.slabs():
            for name in ("grey", "labels", "phases", "damage"):
                getattr(whole, name)[part.z0 : part.z1] = getattr(part, name)
        return whole

    def phase_at(self, points_um: Array) -> tuple[Array, Array]:
        """Phase (uint8) and label (int32) at any points (N, 3) in micrometres: the electrode before it is imaged."""
        from scipy.spatial import cKDTree

        points = np.asarray(points_um, np.float64)
        gap = np.full(len(points), inf)
        owner = np.full(len(points), -1)
        coat = np.full(len(points), inf)
        damage = np.zeros(len(points), np.uint8)
        tree = cKDTree(points)
        for i in range(self._total):
            near = np.array(tree.query_ball_point(self._centre[i], self._outer[i] + self.settings.coating_thickness_um))
            if not len(near):
                continue
            x = (points[near] - self._centre[i]).T
            own_gap, radius, u, rho = _gap(self._shapes, i, x)
            coat[near] = np.minimum(coat[near], self._coat_distance(i, own_gap, u, rho))
            mine = own_gap < gap[near]
            gap[near[mine]], owner[near[mine]] = own_gap[mine], i
            damage[near[mine]] = self._damage_of(i).at(x[:, mine], (rho / radius)[mine], radius[mine], 1.0)[0]
        inside = gap < 0
        phase = np.where(coat < 0, CBD, VOID).astype(np.uint8)
        phase[(points[:, 0] < self._foil) & (self.settings.collector_um > 0)] = COLLECTOR
        phase[(points[:, 0] > self._top) & (self.settings.separator_um > 0)] = VOID
        for i, centre in enumerate(self._crumb_centre):
            close = np.array(tree.query_ball_point(centre, 1.8 * self._crumbs.radius[i]), int)
            phase[close[_gap(self._crumbs, i, (points[close] - centre).T)[0] < 0]] = ACTIVE
        phase[inside] = np.where(damage[inside] == NO_DAMAGE, ACTIVE, VOID)
        return phase, np.where(inside, np.append(self._label, 0)[owner], 0).astype(np.int32)

    # Making the electrode

    def _rng(self, stream: str, *more: int) -> np.random.Generator:
        return np.random.default_rng([self.settings.seed, _STREAMS.index(stream), *more])

    def _pack(self) -> None:
        """Random particles in a box larger than the volume, pushed apart along their centre lines until they touch.

        The box is periodic (along z not, if there is a collector or a separator) and larger than the volume by a
        particle's radius on each side, so that no particle enters the volume twice.
        """
        s = self.settings
        spread = 2.5 * s.diameter_sigma
        largest = 0.5 * s.diameter_median_um * np.exp(spread) * (1 + 2 * s.elongation + 2 * s.roughness)
        low, high = self._low - largest, self._high + largest
        if s.collector_um > 0:
            low[0] = self._foil
        if s.separator_um > 0:
            high[0] = self._high[0] - s.separator_um
        rng = self._rng("packing")
        box = high - low
        space = s.active_fraction * float(np.prod(box))
        least = s.small_size if s.small_share > 0 else 1.0
        smallest = pi / 6 * (s.diameter_median_um * least * np.exp(-spread)) ** 3
        normal = np.clip(rng.standard_normal(ceil(space / smallest) + 1), -2.5, 2.5)
        radius = 0.5 * s.diameter_median_um * np.exp(s.diameter_sigma * normal)
        if s.small_share > 0:
            number = s.small_share / s.small_size**3  # of the small for each of the large
            small = self._rng("sizes").random(len(radius)) < number / (number + 1 - s.small_share)
            radius = np.where(small, s.small_size * radius, radius)
        filled = np.cumsum(4 / 3 * pi * radius**3)
        radius = radius[: max(1, int(np.searchsorted(filled, space)))]
        shapes = self._draw_shapes(radius)
        place = rng.random((len(radius), 3)) * box
        closed = s.collector_um > 0 or s.separator_um > 0
        centre = low + _relax(place, box, shapes, overlap=s.overlap, closed=closed)
        shifts = np.array([(z, y, x) for z in ((0,) if closed else (0, -1, 1)) for y in (0, -1, 1) for x in (0, -1, 1)])
        images = (centre + (shifts * box)[:, None]).reshape(-1, 3)
        near = np.flatnonzero(self._beyond(images) < 2 * largest)
        self._centre, self._shapes = images[near], shapes.take(near % len(radius))

    def _place(self, centres: Array, diameters: Array) -> None:
        if centres.ndim != 2 or centres.shape[1] != 3 or diameters.shape != centres.shape[:1] or not len(centres):
            raise InputError(
                f"centres_um, diameters_um: must be (n, 3) and (n,) with n >= 1; "
                f"got {centres.shape}, {diameters.shape}."
            )
        if not (np.isfinite(centres).all() and np.isfinite(diameters).all() and (diameters > 0).all()):
            raise InputError("centres_um, diameters_um: must be finite, and diameters positive; got other values.")
        self._shapes, self._centre = self._draw_shapes(diameters / 2), centres

    def _draw_shapes(self, radius: Array) -> _Shapes:
        """Ellipsoids with waves, scaled so that each has the volume of a ball of the given radius."""
        s, n = self.settings, len(radius)
        rng = self._rng("shape")
        axes, _ = np.linalg.qr(rng.standard_normal((n, 3, 3)))
        stretch = np.exp(-2 * s.elongation * np.clip(rng.standard_normal((n, 3)), -2, 2))
        q = np.einsum("nij,nj,nkj->nik", axes, stretch, axes)
        quadric = np.stack([q[:, 0, 0], q[:, 1, 1], q[:, 2, 2], 2 * q[:, 0, 1], 2 * q[:, 0, 2], 2 * q[:, 1, 2]], axis=1)
        wave = _directions(rng, (n, _SHAPE_WAVES)) * rng.uniform(3, 10, (n, _SHAPE_WAVES, 1))
        phase = rng.uniform(0, 2 * pi, (n, _SHAPE_WAVES))
        amplitude = np.full(n, s.roughness * sqrt(2 / _SHAPE_WAVES))
        shapes = _Shapes(radius.copy(), quadric, wave, phase, amplitude, *_draw_lumps(self._rng("lumps"), n, s.lumps))
        u = _even_directions(400)
        for i in range(n):
            shapes.radius[i] *= radius[i] / np.cbrt((shapes.at(i, u) ** 3).mean())
        return shapes

    def _beyond(self, points: Array) -> Array:
        """Distance of the points (N, 3) to the volume, 0 inside."""
        result: Array = np.sqrt(((points - np.clip(points, self._low, self._high)) ** 2).sum(axis=1))
        return result

    def _keep_visible(self) -> None:
        """Drop particles out of sight and slivers below 10 voxels; number the others 1..n by their centres."""
        order = np.lexsort(self._centre.T[::-1])
        self._centre, self._shapes = self._centre[order], self._shapes.take(order)
        distance = self._beyond(self._centre)
        n = len(order)
        u = _even_directions(800)
        bounds = [self._shapes.at(i, u) for i in range(n)]
        self._outer = np.array([b.max() for b in bounds]) * 1.02
        reach = self._outer.max(initial=0)
        voxel = float(np.prod(self._size))
        keep, seen = np.zeros(n, bool), np.zeros(n, bool)
        for i in range(n):
            start, stop = _ray_through_box(self._centre[i], u, self._low, self._high)
            part = (np.minimum(bounds[i], stop) ** 3 - np.minimum(bounds[i], start) ** 3).mean() * 4 / 3 * pi
            seen[i] = part >= 10 * voxel
            clear = distance[i] - self._outer[i]
            keep[i] = seen[i] or (part == 0 and 0 < clear < reach)
        self._centre, self._shapes, self._outer = self._centre[keep], self._shapes.take(keep), self._outer[keep]
        seen = seen[keep]
        self._total = len(seen)
        self._label = np.where(seen, np.cumsum(seen), 0)

    def _draw_coats(self) -> None:
        s = self.settings
        rng = self._rng("patches")
        u = _even_directions(self._samples)
        covered = np.full(self._total, s.covered_fraction)
        if s.covered_fraction_sd > 0:
            concentration = s.covered_fraction * (1 - s.covered_fraction) / s.covered_fraction_sd**2 - 1
            a, b = s.covered_fraction * concentration, (1 - s.covered_fraction) * concentration
            covered = rng.beta(a, b, self._total)
        self._covered = covered
        self._coats = [
            _Coat(
                axes=_directions(rng, (s.patches,)),
                wave=_directions(rng, (_PATCH_WAVES,)) * rng.uniform(3, 10, (_PATCH_WAVES, 1)),
                phase=rng.uniform(0, 2 * pi, _PATCH_WAVES),
                waviness=s.patch_waviness * sqrt(2 / _PATCH_WAVES),
            )
            for _ in range(self._total)
        ]
        self._join_coats()
        for i, coat in enumerate(self._coats):
            radius = self._shapes.at(i, u)
            area = radius**2 * np.sqrt(1 + (self._shapes.log_gradient(i, u) ** 2).sum(axis=0))
            coat.limit = _weighted_quantile(coat.outline(u), area, covered[i])

    def _join_coats(self) -> None:
        """A tree of coatings: each networked particle's first patch faces its parent; bands lead on to its children."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import dijkstra
        from scipy.spatial import cKDTree

        s, n = self.settings, self._total
        self._networked = np.zeros(n, bool)
        thickness = s.coating_thickness_um
        if s.network_share == 0 or thickness == 0 or s.covered_fraction == 0:
            return
        pairs = cKDTree(self._centre).query_pairs(2 * self._outer.max(initial=0) + thickness, output_type="ndarray")
        gap, _ = _pair_gaps(self._shapes, self._centre, pairs)
        pairs = pairs[gap < thickness]
        down = np.array([-1.0, 0.0, 0.0])
        every = np.arange(n)
        bottom = self._centre[:, 0] - self._shapes.at(every, np.repeat(down[:, None], n, axis=1))
        roots = np.flatnonzero(bottom - self._foil < thickness)
        # node n is the collector; distances along the tree grow with the step and a random detour
        length = np.sqrt(((self._centre[pairs[:, 0]] - self._centre[pairs[:, 1]]) ** 2).sum(axis=1))
        length = length * self._rng("network").uniform(1, 2, len(length))
        rows = np.concatenate([pairs[:, 0], roots])
        columns = np.concatenate([pairs[:, 1], np.full(len(roots), n)])
        weights = np.concatenate([length, np.full(len(roots), 1e-3)])
        graph = coo_array((weights, (rows, columns)), shape=(n + 1, n + 1))
        distance, parent = dijkstra(graph, directed=False, indices=np.array([n]), return_predecessors=True)
        distance, parent = distance[0], parent[0]
        wanted = (self._rng("network", 1).random(n) < s.network_share) & np.isfinite(distance[:n])
        # a wanted particle brings its whole way down with it
        for i in np.argsort(-distance[:n], kind="stable"):
            if wanted[i] and parent[i] < n:
                wanted[parent[i]] = True
        self._networked = wanted
        half_um = max(0.6 * thickness, 0.75 * float(self._size.max()))
        for i in np.flatnonzero(wanted):
            hub = down if parent[i] == n else _unit(self._centre[parent[i]] - self._centre[i])
            coat = self._coats[i]
            coat.axes[0] = hub
            coat.half_band = half_um / float(self._shapes.radius[i])
            coat.arcs.append(_Arc(hub, hub))
        for i in np.flatnonzero(wanted):
            if parent[i] < n:
                coat = self._coats[parent[i]]
                coat.arcs.append(_Arc(coat.axes[0], _unit(self._centre[i] - self._centre[parent[i]])))

    def _damage_of(self, i: int) -> _Damage:
        """Cracks and pores of particle i, drawn when first asked for."""
        if i in self._damage:
            return self._damage[i]
        s = self.settings
        rng = self._rng("damage", i)
        cracked, porous = rng.random() < s.crack_share, rng.random() < s.pore_share
        radius = float(self._shapes.radius[i])
        more = self._rng("shards", i)
        broken, star = more.random() < s.shattered_share, more.random() < s.star_share
        width, size = (
            value * exp(sd * min(max(more.standard_normal(), -2), 2))
            for value, sd in ((s.crack_width_um, s.crack_width_sd), (s.pore_size, s.pore_size_sd))
        )
        size = min(size, 0.7)
        pores = _draw_pores(self._rng("damage", i, 1), radius, size) if porous else []
        slits = _draw_slits(self._rng("damage", i, 2), radius, width, star=star) if cracked else []
        shards = _draw_shards(more, radius, s.shards, width) if broken else None
        wave = _directions(rng, (_PORE_WAVES,)) * rng.uniform(5, 15, (_PORE_WAVES, 1)) / radius
        amplitude = s.pore_raggedness * size * radius * sqrt(2 / _PORE_WAVES)
        ragged = amplitude, wave, rng.uniform(0, 2 * pi, _PORE_WAVES)
        self._damage[i] = _Damage(slits if s.crack_width_um > 0 else [], pores, ragged, shards)
        return self._damage[i]

    def _draw_debris(self) -> None:
        """Fragments in clusters, anywhere in and just around the volume; where a particle lies, the particle wins."""
        s, rng = self.settings, self._rng("debris")
        low, high = self._low.copy(), self._high.copy()
        low[0], high[0] = max(low[0], self._foil), high[0] - s.separator_um
        typical = 0.5 * s.diameter_median_um
        space = s.debris * float(np.prod(high - low))
        radius = typical * np.exp(rng.uniform(log(0.1), log(0.33), ceil(space / (4 / 3 * pi * (0.1 * typical) ** 3))))
        radius = radius[: int(np.searchsorted(np.cumsum(4 / 3 * pi * radius**3), space))]
        n = len(radius)
        cluster = rng.integers(0, max(1, n // 5), n)
        centre = (low + rng.random((n, 3)) * (high - low))[cluster] if n else np.zeros((0, 3))
        self._crumb_centre = centre + typical * 0.35 * rng.standard_normal((n, 3))
        self._crumb_level = s.grey_active - 0.25 * (s.grey_active - s.grey_void) * rng.random(n)
        axes, _ = np.linalg.qr(rng.standard_normal((n, 3, 3)))
        q = np.einsum("nij,nj,nkj->nik", axes, np.exp(0.7 * rng.uniform(-1, 1, (n, 3))), axes)
        quadric = np.stack([q[:, 0, 0], q[:, 1, 1], q[:, 2, 2], 2 * q[:, 0, 1], 2 * q[:, 0, 2], 2 * q[:, 1, 2]], axis=1)
        wave = _directions(rng, (n, 3)) * rng.uniform(2, 5, (n, 3, 1))
        phase = rng.uniform(0, 2 * pi, (n, 3))
        self._crumbs = _Shapes(radius, quadric, wave, phase, np.full(n, 0.12), *_draw_lumps(rng, n, 0))

    def _render_debris(self, start: tuple[int, ...], stop: tuple[int, ...]) -> tuple[Array, Array]:
        """At the voxel centres from `start` up to `stop`: gap to the nearest fragment, its grey level."""
        shape = tuple(b - a for a, b in zip(start, stop, strict=True))
        gap, level = np.full(shape, inf, np.float32), np.zeros(shape, np.float32)
        first = np.array(start)
        for i in range(len(self._crumb_centre)):
            reach = 1.8 * self._crumbs.radius[i] + float(self._size.max())
            low = np.maximum(np.ceil((self._crumb_centre[i] - reach) / self._size).astype(int) - first, 0)
            high = np.minimum(np.floor((self._crumb_centre[i] + reach) / self._size).astype(int) + 1 - first, shape)
            if (low >= high).any():
                continue
            box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            axes = (
                (np.arange(a, b) + f) * d - c
                for a, b, f, d, c in zip(low, high, first, self._size, self._crumb_centre[i], strict=True)
            )
            points = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)
            own = _gap(self._crumbs, i, points)[0].reshape(gap[box].shape)
            nearer = own < gap[box]
            gap[box][nearer] = own[nearer]
            level[box][nearer] = self._crumb_level[i]
        return gap, level

    # The truth

    def _coat_distance(self, i: int, gap: Array, u: Array, rho: Array) -> Array:
        """Signed distance to the coating of particle i, at points of the given gap, direction and distance."""
        thickness = self.settings.coating_thickness_um
        if thickness == 0:
            return np.full_like(gap, inf)
        result: Array = np.maximum(gap - gap.dtype.type(thickness), self._coats[i].angle(u) * rho)
        return result

    @cached_property
    def truth(self) -> pd.DataFrame:
        import pandas as pd
        from scipy.spatial import cKDTree

        s = self.settings
        tree = cKDTree(self._centre)
        even = _even_directions(self._samples)
        furthest = float(self._outer.max(initial=0))
        rows = []
        for i in np.flatnonzero(self._label):
            rng = self._rng("samples", int(i))
            turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
            u = turn @ even
            near = tree.query_ball_point(
                self._centre[i], self._outer[i] + furthest + max(s.coating_thickness_um, self._contact_gap)
            )
            near = sorted(j for j in near if j != i)
            row = {"label": int(self._label[i])}
            surface, swallowed = self._measure_surface(int(i), u, near)
            row |= self._measure_body(int(i), u, swallowed, rng) | surface
            row |= {
                "covered_fraction": self._covered[i],
                "networked": bool(self._networked[i]),
                "grey": self._level[i],
            }
            rows.append(row)
        return pd.DataFrame(rows)

    def _measure_surface(self, i: int, u: Array, near: list[int]) -> tuple[dict[str, Any], dict[int, Array]]:
        """Area of each class, from points on the surface in the directions u (3, N), each with its area element; and
        for each neighbour the points that lie inside it.
        """
        s = self.settings
        radius = self._shapes.at(i, u)
        slope = self._shapes.log_gradient(i, u)
        stretch = np.sqrt(1 + (slope**2).sum(axis=0))
        area = 4 * pi / u.shape[1] * radius**2 * stretch
        step = 1e-4 * float(self._size.min())
        surface = radius * u
        outside = surface + step * (u - slope) / stretch
        place = self._centre[i][:, None] + outside

        gap, _, direction, rho = _gap(self._shapes, i, outside)
        coat = self._coat_distance(i, gap, direction, rho)
        other = np.full(len(radius), inf)
        swallowed = {}
        for j in near:
            x = place - self._centre[j][:, None]
            reach = self._outer[j] + max(s.coating_thickness_um, self._contact_gap)
            close = (x * x).sum(axis=0) < reach**2
            gap, _, direction, rho = _gap(self._shapes, j, x[:, close])
            other[close] = np.minimum(other[close], gap)
            if (gap < 0).any():
                swallowed[j] = np.flatnonzero(close)[gap < 0]
            coat[close] = np.minimum(coat[close], self._coat_distance(j, gap, direction, rho))

        depth = 1 - 1e-4
        mouth = self._damage_of(i).at(depth * surface, np.full_like(radius, depth), radius, 1.0)[0] != NO_DAMAGE
        border = ((place < self._low[:, None]) | (place > self._high[:, None])).any(axis=0)
        particle = other < self._contact_gap
        foil = (place[0] < self._foil) & (s.collector_um > 0)
        cbd = (coat < 0) & ((place[0] <= self._top) | (s.separator_um == 0))
        classes = np.select([border, particle, mouth, foil, cbd], [0, 1, 2, 3, 4], 5)
        border_area, particle_area, mouth_area, foil_area, cbd_area, void_area = np.bincount(
            classes, weights=area, minlength=6
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

    def _measure_body(self, i: int, u: Array, swallowed: dict[int, Array], rng: np.random.Generator) -> dict[str, Any]:
        """Volume and centroid by rays from the centre to surface, neighbour or border; damage by points on them."""
        radius = self._shapes.at(i, u)
        reach = radius.copy()
        for j, rays in swallowed.items():
            # the surface lies in particle j: halve the ray down to the point where j takes over
            between = (self._centre[i] - self._centre[j])[:, None]
            low, high = np.zeros(len(rays)), radius[rays]
            for _ in range(11):
                middle = 0.5 * (low + high)
                taken = middle - radius[rays] > _gap(self._shapes, j, between + middle * u[:, rays])[0]
                low, high = np.where(taken, low, middle), np.where(taken, middle, high)
            reach[rays] = np.minimum(reach[rays], middle)
        start, stop = _ray_through_box(self._centre[i], u, self._low, self._high)
        start, stop = np.minimum(start, reach), np.minimum(stop, reach)
        solid_angle = 4 * pi / u.shape[1]
        volume = solid_angle * (stop**3 - start**3).sum() / 3
        centroid = self._centre[i] + solid_angle * (u * (stop**4 - start**4)).sum(axis=1) / 4 / volume

        fractions = {CRACK: 0.0, PORE: 0.0}
        if self._damage_of(i).any:
            layers = 12
            place = (np.arange(layers)[:, None] + rng.random((layers, u.shape[1]))) / layers
            rho = np.cbrt(start**3 + place * (stop**3 - start**3))
            weight = np.broadcast_to((stop**3 - start**3) / 3 * solid_angle / layers, rho.shape)
            x = (rho * u[:, None, :]).reshape(3, -1)
            code, _ = self._damage_of(i).at(x, (rho / radius).ravel(), np.broadcast_to(radius, rho.shape).ravel(), 1.0)
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

    # Imaging

    def _render(
        self, start: tuple[int, ...], stop: tuple[int, ...], spare: float = 0.0
    ) -> tuple[Array, Array, Array, Array, Array]:
        """At the centres of the voxels from `start` up to `stop`: gap to the nearest particle, its index (-1: none
        within the coating's thickness or `spare` micrometres), signed distance to the coatings, share of damage, code.
        """
        s = self.settings
        shape = tuple(b - a for a, b in zip(start, stop, strict=True))
        gap = np.full(shape, inf, np.float32)
        owner = np.full(shape, -1, np.int32)
        coat = np.full(shape, inf, np.float32)
        dark = np.zeros(shape, np.float32)
        damage = np.zeros(shape, np.uint8)
        first = np.array(start)
        width = float(self._size.mean())
        for i in range(self._total):
            reach = self._outer[i] + max(s.coating_thickness_um, spare) + float(self._size.max())
            low = np.maximum(np.ceil((self._centre[i] - reach) / self._size).astype(int) - first, 0)
            high = np.minimum(np.floor((self._centre[i] + reach) / self._size).astype(int) + 1 - first, shape)
            if (low >= high).any():
                continue
            box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            z, y, x = (
                (np.arange(a, b) + f) * d - c
                for a, b, f, d, c in zip(low, high, first, self._size, self._centre[i], strict=True)
            )
            near = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 < reach**2
            iz, iy, ix = near.nonzero()
            points = np.stack([z[iz], y[iy], x[ix]]).astype(np.float32)
            own_gap, radius, u, rho = _gap(self._shapes32, i, points)

            around = own_gap > -width
            own_coat = np.full(len(own_gap), inf, np.float32)
            own_coat[around] = self._coat_distance(i, own_gap[around], u[:, around], rho[around])
            coat_box = coat[box]
            coat_box[near] = np.minimum(coat_box[near], own_coat)

            mine = own_gap < gap[box][near]
            code, share = np.zeros(len(own_gap), np.uint8), np.zeros(len(own_gap), np.float32)
            if self._damage_of(i).any:
                inner = mine & (own_gap < width)
                code[inner], share[inner] = self._damage_of(i).at(
                    points[:, inner], (rho / radius)[inner], radius[inner], width
                )
            near[near] = mine
            gap[box][near] = own_gap[mine]
            owner[box][near] = i
            dark[box][near] = share[mine]
            damage[box][near] = code[mine]
        return gap, owner, coat, dark, damage

    def _image(self, grey: Array, solid: Array, z0: int, z1: int) -> Array:
        """The tomogram of slices z0..z1-1; the ideal grey and the solid share have `_halo` more slices at both ends."""
        s = self.settings
        contrast = s.grey_active - s.grey_void
        if s.texture > 0:
            gain = s.texture * contrast / _remaining(self._sigma, self._sigma)
            grey += np.float32(gain) * solid * self._white("texture", z0 - self._halo, z1 + self._halo)
        image = _blur(grey, self._sigma, self._reach)
        spare = self._halo - self._reach
        if s.fringe > 0:
            wide = _blur(image, 2 * self._sigma, spare)
            image = image[spare : len(image) - spare] if spare else image
            image = image + np.float32(s.fringe) * (image - wide)
        if s.noise > 0:
            image += np.float32(s.noise * contrast) * self._noise(z0, z1)
        if s.streaks > 0:
            angle = self._rng("streaks").uniform(0, pi)
            for z, plane in zip(range(z0, z1), image, strict=True):
                field = streaks(self._rng("streaks", 1, z), plane.shape, s.streak_length, angle)
                plane += np.float32(s.streaks * contrast) * field
        if s.rings > 0:
            image += np.float32(s.rings * contrast) * np.stack([self._rings(z) for z in range(z0, z1)])
        if s.shading > 0:
            axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in s.shape]
            slow = axes[0][z0:z1, None, None] * 0.3 + axes[1][:, None] * 0.5 + (axes[2] ** 2 - 0.5)
            image += np.float32(s.shading * contrast) * slow
        np.clip(image, 0, 65535, out=image)
        if s.dtype == "float32":
            return image.astype(np.float32)
        scale = 1.0 if s.dtype == "uint16" else 255 / 65535
        return np.rint(image * np.float32(scale)).astype(s.dtype)

    def _add_mottle(self, grey: Array, cbd: Array, first: int) -> None:
        """Slow waves of density in the carbon/binder: wavelengths of half to three times the coating's thickness."""
        typical = max(self.settings.coating_thickness_um, 2 * float(self._size.max()))
        self._add_waves("mottle", self.settings.mottle, (0.5 * typical, 3 * typical), grey, cbd, first)

    def _add_cloud(self, grey: Array, between: Array, first: int) -> None:
        typical = max(self.settings.diameter_median_um, 6 * float(self._size.max()))
        self._add_waves("cloud", self.settings.cloud, (typical / 3, 2 * typical), grey, between, first)

    def _add_waves(
        self, stream: str, strength: float, lengths: tuple[float, float], grey: Array, share: Array, first: int
    ) -> None:
        """Waves of the given range of lengths (um) and standard deviation, where there is a share of their material."""
        s, rng = self.settings, self._rng(stream)
        place = share.nonzero()
        points = np.stack(place).astype(np.float32)
        points[0] += np.float32(first)
        points *= self._size.astype(np.float32)[:, None]
        length = lengths[0] * np.exp(rng.uniform(0, log(lengths[1] / lengths[0]), _MOTTLE_WAVES))
        wave = (_directions(rng, (_MOTTLE_WAVES,)) * 2 * pi / length[:, None]).astype(np.float32)
        phase = rng.uniform(0, 2 * pi, _MOTTLE_WAVES).astype(np.float32)
        gain = np.float32(strength * (s.grey_active - s.grey_void) * sqrt(2 / _MOTTLE_WAVES))
        grey[place] += gain * share[place] * _waves(wave, phase, points)

    def _noise(self, z0: int, z1: int) -> Array:
        """Correlated noise of unit variance: one white field seen through a fine and a three times wider Gaussian."""
        fine, wide = np.full(3, self.settings.noise_correlation), np.full(3, 3 * self.settings.noise_correlation)
        reach, inner = (_kernel(float(sigma[0])).size // 2 for sigma in (wide, fine))
        white = self._white("noise", z0 - reach, z1 + reach)
        share = np.float32(0.4 * _remaining(fine, fine) / _remaining(wide, wide))
        total = (
            _remaining(fine, fine) ** 2
            + (share * _remaining(wide, wide)) ** 2
            + 2 * share * _remaining(fine, wide) ** 2
        )
        spare = reach - inner
        result = _blur(white[spare : len(white) - spare], fine, inner) + share * _blur(white, wide, reach)
        result /= np.float32(sqrt(total))
        return result

    def _white(self, stream: str, z0: int, z1: int) -> Array:
        """Independent standard normal numbers, seeded slice by slice (slices before 0 exist too)."""
        plane = self.settings.shape[1:]
        offset = 1 << 20
        return np.stack([self._rng(stream, offset + z).standard_normal(plane, np.float32) for z in range(z0, z1)])

    def _rings(self, z: int) -> Array:
        """Circles around the axis of rotation: a few strong ones, on weak ones of every radius."""
        _, ny, nx = self.settings.shape
        y, x = np.ogrid[:ny, :nx]
        radius = np.hypot(y - (ny - 1) / 2, x - (nx - 1) / 2)
        rng = self._rng("rings", z)
        profile = 0.3 * rng.standard_normal(int(radius.max()) + 3)
        profile += np.where(rng.random(len(profile)) < 0.04, 2.0 * rng.standard_normal(len(profile)), 0.0)
        result: Array = np.interp(radius, np.arange(len(profile)), profile).astype(np.float32)
        return result


def _settings(settings: PhantomSettings | None, changes: dict[str, Any]) -> PhantomSettings:
    unknown = sorted(set(changes) - {f.name for f in fields(PhantomSettings)})
    if unknown:
        raise InputError(f"{unknown[0]}: must be a setting of the phantom; got an unknown name. See PhantomSettings.")
    return replace(settings or PhantomSettings(), **changes)


# Geometry


def _dot(vector: Array, x: Array) -> Array:
    """Scalar product of one vector (3,) with the columns of x (3, N), in x's precision, without a matrix product
    (whose rounding depends on N)."""
    a, b, c = vector.astype(x.dtype)
    result: Array = a * x[0] + b * x[1] + c * x[2]
    return result


def _cross(a: Array, b: Array) -> Array:
    """Vector product of two vectors (3,); numpy's takes ten times as long for so few numbers."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def _unit(vector: Array) -> Array:
    result: Array = vector / np.linalg.norm(vector)
    return result


def _quadratic(q: Array, u: Array) -> Array:
    z, y, x = u
    result: Array = q[0] * z * z + q[1] * y * y + q[2] * x * x + q[3] * z * y + q[4] * z * x + q[5] * y * x
    return result


def _waves(wave: Array, phase: Array, u: Array) -> Array:
    """Sum of sin(wave . u + phase) at u (3, N): wave (K, 3), phase (K,), or one set per direction, (N, K, ...)."""
    total = np.zeros(u.shape[1], u.dtype)
    for k in range(phase.shape[-1]):
        w = wave[..., k, :].T
        total += np.sin(w[0] * u[0] + w[1] * u[1] + w[2] * u[2] + phase[..., k])
    return total


def _gap(shapes: _Shapes, i: int, x: Array) -> tuple[Array, Array, Array, Array]:
    """At x (3, N), relative to the centre of particle i: gap to its surface, its radius there, direction, distance."""
    rho = np.sqrt(x[0] * x[0] + x[1] * x[1] + x[2] * x[2])
    u = x / np.maximum(rho, x.dtype.type(1e-9))
    u[0, rho < 1e-9] = 1  # any direction will do at the centre
    radius = shapes.at(i, u)
    return rho - radius, radius, u, rho


def _even_directions(n: int) -> Array:
    """n directions (3, n), each with the same solid angle around it (Fibonacci lattice)."""
    k = np.arange(n) + 0.5
    z = 1 - 2 * k / n
    angle = pi * (1 + sqrt(5)) * k
    side = np.sqrt(1 - z * z)
    return np.stack([z, side * np.sin(angle), side * np.cos(angle)])


def _directions(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    vector = rng.standard_normal((*shape, 3))
    result: Array = vector / np.linalg.norm(vector, axis=-1, keepdims=True)
    return result


def _ray_through_box(origin: Array, u: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Distances at which the rays from `origin` enter and leave the box; both 0 where they miss it."""
    with np.errstate(divide="ignore"):
        a = (low - origin)[:, None] / u
        b = (high - origin)[:, None] / u
    enter = np.maximum(np.minimum(a, b).max(axis=0), 0)
    leave = np.maximum(a, b).min(axis=0)
    hit = leave > enter
    return np.where(hit, enter, 0), np.where(hit, leave, 0)


def _weighted_quantile(values: Array, weights: Array, share: float) -> float:
    order = np.argsort(values)
    below = np.cumsum(weights[order]) - 0.5 * weights[order]
    if share <= 0:
        return -inf
    if share >= 1:
        return inf
    return float(np.interp(share * weights.sum(), below, values[order]))


def _pair_gaps(shapes: _Shapes, centre: Array, pairs: Array, box: Array | None = None) -> tuple[Array, Array]:
    """Gap along the line of centres for each pair (K, 2), and the direction (3, K) from the first to the second."""
    line = (centre[pairs[:, 1]] - centre[pairs[:, 0]]).T
    if box is not None:
        line -= box[:, None] * np.rint(line / box[:, None])
    length = np.maximum(np.sqrt((line**2).sum(axis=0)), 1e-9)
    u = line / length
    return length - shapes.at(pairs[:, 0], u) - shapes.at(pairs[:, 1], -u), u


def _near_pairs(centre: Array, torus: Array, radius: Array) -> Array:
    """Pairs (K, 2) that are nearer than 1.25 of their radii's sum plus half a median radius; size by size."""
    from scipy.spatial import cKDTree

    slack, found = 0.5 * float(np.median(radius)), []
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


def _relax(centre: Array, box: Array, shapes: _Shapes, *, overlap: float, closed: bool) -> Array:
    """Push overlapping bodies apart, draw near ones together, in a periodic box (closed in z if asked).

    First they are swollen to 60 % of the box, which spreads them evenly; then, at their size, near ones are drawn
    together; last, only what still overlaps is pushed apart.
    """
    from scipy.spatial import cKDTree

    n, typical = len(centre), float(np.median(shapes.radius))
    shapes = replace(
        shapes, lump_wave=shapes.lump_wave[:, :0], lump_phase=shapes.lump_phase[:, :0]
    )  # too fine to matter
    swelling = max(0.0, np.cbrt(0.6 * np.prod(box) / (4 / 3 * pi * (shapes.radius**3).sum())) - 1)
    reach = 2.5 * float(shapes.radius.max())
    torus = np.maximum(box, 2 * reach)
    if closed:
        torus[0] = box[0] + 2 * reach  # nothing reaches round along z
        every = np.arange(n)
        below, above = (shapes.at(every, np.repeat([[side], [0.0], [0.0]], n, axis=1)) for side in (-1.0, 1.0))
    for step in range(300):
        if step % 5 == 0:
            if reach > 5.5 * typical:  # of widely different sizes, most pairs within the largest's reach are far apart
                pairs = _near_pairs(centre % torus, torus, shapes.radius)
            else:
                pairs = cKDTree(centre % torus, boxsize=torus).query_pairs(reach, output_type="ndarray")
        gap, u = _pair_gaps(shapes, centre, pairs, torus)
        contact = 0.5 * (shapes.radius[pairs[:, 0]] + shapes.radius[pairs[:, 1]])
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


def _draw_lumps(rng: np.random.Generator, n: int, lumps: float) -> tuple[Array, Array, Array]:
    """Waves, phases and amplitudes of n bodies' lumps: none of them where `lumps` is 0."""
    count = _LUMP_WAVES if lumps > 0 else 0
    wave = _directions(rng, (n, count)) * np.exp(rng.uniform(log(12), log(40), (n, count, 1)))
    return wave, rng.uniform(0, 2 * pi, (n, count)), np.full(n, lumps * sqrt(2 / _LUMP_WAVES))


def _draw_shards(rng: np.random.Generator, radius: float, count: int, width: float) -> _Shards:
    """Cells around points spread over the body; narrow to wide gaps, sunken and lost shards."""
    seeds = _directions(rng, (count,)) * radius * np.cbrt(rng.uniform(0.03, 1, (count, 1)))
    wave = _directions(rng, (_PORE_WAVES,)) * rng.uniform(4, 14, (_PORE_WAVES, 1)) / radius
    return _Shards(
        seeds,
        half_width=0.5 * width * rng.uniform(0.2, 1.8, count),
        sunken=radius * np.where(rng.random(count) < 0.5, rng.uniform(0, 0.12, count), 0),
        lost=rng.random(count) < 0.1,
        ragged=(0.03 * radius * sqrt(2 / _PORE_WAVES), wave, rng.uniform(0, 2 * pi, _PORE_WAVES)),
    )


def _draw_pores(rng: np.random.Generator, radius: float, size: float) -> list[tuple[Array, float]]:
    """A cluster of balls, drawn out along one axis: a large one at the centre, smaller ones around it."""
    main = radius * size * rng.uniform(0.5, 0.9)
    stretch = _directions(rng, ())
    pores = [(radius * 0.05 * rng.standard_normal(3), main)]
    for _ in range(int(rng.integers(5, 11))):
        away = _directions(rng, ()) + rng.uniform(-1, 1) * stretch
        pores.append((away * radius * size * rng.uniform(0.3, 1.0), main * rng.uniform(0.25, 0.7)))
    return pores


def _draw_slits(rng: np.random.Generator, radius: float, width: float, *, star: bool = False) -> list[_Slit]:
    """Two to four cracks around one axis: from the centre outwards, sometimes forked, or from the surface inwards; of a
    star, five to nine jagged ones, all from the centre.
    """
    across = _directions(rng, ())
    first = _unit(_cross(across, _directions(rng, ())))
    second = _cross(across, first)
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
                    normal=_cross(across, along),
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


# Imaging


def noise_field(rng: np.random.Generator, transfer: Array, width: int) -> Array:
    """White noise through a transfer function (Y, width // 2 + 1) of the real Fourier transform.

    (Y, width) float32 of mean 0 and standard deviation 1; opposite edges join.
    """
    from scipy.fft import irfft2, rfft2

    shape = (len(transfer), width)
    result: Array = irfft2(rfft2(rng.standard_normal(shape, np.float32)) * transfer, shape)
    result -= result.mean()
    return result / np.float32(max(float(result.std()), 1e-6))


def frequencies(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Radians per pixel of the real Fourier transform of a (Y, X) image: (Y, 1) and (1, X // 2 + 1), float32."""
    along = 2 * pi * np.fft.rfftfreq(shape[1])[None]
    return (2 * pi * np.fft.fftfreq(shape[0])[:, None]).astype(np.float32), along.astype(np.float32)


def streaks(rng: np.random.Generator, shape: tuple[int, ...], length: float, angle: float) -> Array:
    """Noise drawn out along the direction (sin angle, cos angle) by `length` pixels; as `noise_field`."""
    y, x = frequencies(shape)
    sine, cosine = np.float32(np.sin(angle)), np.float32(np.cos(angle))
    along, across = y * sine + x * cosine, x * sine - y * cosine
    square = np.float32(length**2) * along**2 + np.float32(0.7**2) * across**2
    return noise_field(rng, np.exp(np.float32(-0.5) * square), shape[1])


def _kernel(sigma: float) -> Array:
    """Normalised Gaussian over three standard deviations on each side; [1] for no blur."""
    reach = ceil(3 * sigma)
    if reach == 0:
        return np.ones(1)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    result: Array = weights / weights.sum()
    return result


def _remaining(first: Array, second: Array) -> float:
    """Root of the covariance of two blurs of one white noise; of one blur: the standard deviation that it leaves."""
    total = 1.0
    for a, b in zip(first, second, strict=True):
        total *= float(np.convolve(_kernel(a), _kernel(b)).max())
    return sqrt(total)


def _blur(image: Array, sigma: Array, halo: int) -> Array:
    """Gaussian blur of float32 slices, `halo` of them dropped at both ends in z; the edge is repeated in y and x."""
    from scipy.ndimage import correlate1d

    for axis in (2, 1, 0):
        weights = _kernel(float(sigma[axis]))
        if weights.size > 1:
            image = correlate1d(image, weights, axis=axis, mode="nearest", output=np.float32)
    return image[halo : len(image) - halo]
