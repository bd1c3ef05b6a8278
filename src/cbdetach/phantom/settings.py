"""The settings of a phantom, the range of each, and its streams of random numbers: one for each purpose.

So the blur leaves the geometry alone; and noise has one for each slice, so that a slab has the same bytes however the
volume is divided.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import isfinite, sqrt
from typing import Any

import numpy as np

from cbdetach.errors import InputError


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

    @property
    def contrast(self) -> float:
        """Grey levels between void and active material; every strength of noise is a part of it."""
        return self.grey_active - self.grey_void

    def rng(self, purpose: str, *more: int) -> np.random.Generator:
        """Random numbers for one purpose (a name in `_STREAMS`) and, by the numbers that follow, one part of it."""
        return np.random.default_rng([self.seed, _STREAMS.index(purpose), *more])


def check_edge(size: int, least: int = 32) -> None:
    """InputError unless a cube of so many voxels along each edge is worth making."""
    if not least <= size <= LARGEST:
        raise InputError(f"--size: must be {least} to {LARGEST} voxels; got {size}.")


def changed(settings: PhantomSettings | None, changes: dict[str, Any]) -> PhantomSettings:
    """The settings (None: the defaults) with some of them changed; InputError for an unknown name."""
    unknown = sorted(set(changes) - {f.name for f in fields(PhantomSettings)})
    if unknown:
        raise InputError(f"{unknown[0]}: must be a setting of the phantom; got an unknown name. See PhantomSettings.")
    return replace(settings or PhantomSettings(), **changes)


LARGEST = 1024
"""Edge of a cube, voxels: no more than a person waits for."""

_STREAMS = (
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
)
"""The place in this list is part of the seed: add at the end."""

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
