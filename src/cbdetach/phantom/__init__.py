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
blur, phase contrast, noise, rings and shading. The *truth* never sees a voxel. Both meet only in the tests.

Read top-down: `settings`; the formulas `bodies`, `packing`, `coats`, `damage`, `debris`, together an `electrode`; then
`truth` on one side, `voxels` and `imaging` (with `noise`) on the other.

Cost: about 1 microsecond and, per slab, 40 bytes per voxel. A generator, not a kernel: it loops over particles.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cbdetach.errors import InputError
from cbdetach.phantom.damage import CRACK, NO_DAMAGE, PORE
from cbdetach.phantom.electrode import draw_electrode, phase_at
from cbdetach.phantom.imaging import FWHM, Blur, ideal, image
from cbdetach.phantom.noise import frequencies, noise_field, streaks
from cbdetach.phantom.settings import PhantomSettings, changed, check_edge
from cbdetach.phantom.truth import truth_table
from cbdetach.phantom.voxels import Voxels, codes, render, shares

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "CRACK",
    "FWHM",
    "NO_DAMAGE",
    "PORE",
    "Phantom",
    "PhantomSettings",
    "Section",
    "Slab",
    "check_edge",
    "frequencies",
    "noise_field",
    "streaks",
]

Array = NDArray[Any]

_SAMPLES = 2000  # points per particle surface: fractions are good to about 0.002


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
        settings = changed(settings, changes)
        if not isinstance(samples, int) or samples < 50:
            raise InputError(f"samples: must be an integer of at least 50; got {samples}.")
        self.electrode = draw_electrode(settings, centres_um, diameters_um, samples)

    @property
    def settings(self) -> PhantomSettings:
        """The resolved settings."""
        return self.electrode.settings

    @cached_property
    def truth(self) -> pd.DataFrame:
        """What is to be found, one row per particle; the columns are above."""
        return truth_table(self.electrode)

    def phase_at(self, points_um: Array) -> tuple[Array, Array]:
        """Phase (uint8) and label (int32) at any points (N, 3) in micrometres: the electrode before it is imaged."""
        return phase_at(self.electrode, np.asarray(points_um, np.float64))

    def finer(self, factor: int) -> Phantom:
        """The same electrode in voxels of 1 / `factor` the edge, for a truth that needs voxels.

        Each voxel is cut into `factor`^3; an odd factor leaves one at its centre, with its label, phase and damage.
        Labels are the same. Positions count from the first of the finer voxels. Grain and noise are drawn anew.
        InputError for a factor that is no integer of at least 1.
        """
        if not isinstance(factor, int) or factor < 1:
            raise InputError(f"factor: must be an integer of at least 1; got {factor}.")
        other = copy(self)
        vars(other).pop("truth", None)
        other.electrode = self.electrode.finer(factor)
        return other

    def _check_slices(self, z0: int, z1: int) -> None:
        n = self.settings.shape[0]
        if not 0 <= z0 < z1 <= n:
            raise InputError(f"z0, z1: must satisfy 0 <= z0 < z1 <= {n}; got {z0}, {z1}.")

    def codes(self, z0: int, z1: int) -> tuple[Array, Array, Array]:
        """Labels, phases and damage of slices z0..z1-1 as in `slab`, without the cost of imaging them."""
        self._check_slices(z0, z1)
        _, ny, nx = self.settings.shape
        return codes(self.electrode, render(self.electrode, (z0, 0, 0), (z1, ny, nx)))

    def slab(self, z0: int, z1: int) -> Slab:
        """Slices z0..z1-1. Equal, byte for byte, to the same slices of the whole volume. InputError outside 0..Z."""
        self._check_slices(z0, z1)
        _, ny, nx = self.settings.shape
        halo = Blur.of(self.settings).halo
        voxels = render(self.electrode, (z0 - halo, 0, 0), (z1 + halo, ny, nx))
        grey, solid = ideal(self.electrode, voxels)
        tomogram = image(self.settings, grey, solid, z0, z1)
        return Slab(z0, z1, tomogram, *codes(self.electrode, voxels.without_halo(halo)))

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
        first, end = (start[0], start[1], start[2]), (stop[0], stop[1], stop[2])
        sigma = through_um / FWHM
        voxels = render(self.electrode, first, end, 2 * sigma)
        share = shares(self.electrode, voxels, self._softness(voxels, axis, sigma))
        debris = np.zeros_like(share.particle) if share.debris is None else share.debris
        level = self.electrode.levels_of(voxels.owner)
        if voxels.crumb_level is not None:
            level = np.where((share.particle > 0) | (debris == 0), level, voxels.crumb_level)
        blurred = (share.particle, voxels.dark, share.cbd, share.collector, share.separator, debris, level)
        return Section(*(part.take(0, axis) for part in (*codes(self.electrode, voxels), *blurred)))

    def _softness(self, voxels: Voxels, axis: int, sigma: float) -> Array:
        """Width of the particles' edges in a plane that is seen through a blur across it (`sigma`, um), float32: wide
        where the surface is inclined to it.
        """
        size, centre = self.electrode.frame.size, self.electrode.particles.centre
        places = [(np.arange(n) + f) * d for n, f, d in zip(voxels.gap.shape, voxels.start, size, strict=True)]
        near = voxels.owner >= 0
        away = np.stack([place[near] for place in np.meshgrid(*places, indexing="ij")], axis=1)
        away -= centre[voxels.owner[near]]
        slope = np.zeros(near.shape)
        slope[near] = np.abs(away[:, axis]) / np.maximum(np.linalg.norm(away, axis=1), 1e-9)
        soft: Array = np.sqrt(np.float32(size.mean()) ** 2 + 12 * (sigma * slope) ** 2).astype(np.float32)
        return soft
