"""From shares to a tomogram: grey levels of the materials, then blur, fringes, noise, rings and shading."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbdetach.phantom import noise
from cbdetach.phantom.electrode import Electrode
from cbdetach.phantom.settings import PhantomSettings
from cbdetach.phantom.voxels import Voxels, shares

Array = NDArray[Any]

FWHM = 2 * sqrt(2 * log(2))
"""Full width at half maximum of a Gaussian of standard deviation 1."""


@dataclass(frozen=True)
class Blur:
    """The blur in voxels, and how far it reaches."""

    sigma: Array
    """(3,): standard deviations in voxels; the fringes' are twice as wide."""
    reach: int
    """Slices on each side that the blur sums."""
    halo: int
    """Slices on each side that a slab needs for blur and fringes."""

    @classmethod
    def of(cls, settings: PhantomSettings) -> Blur:
        """The blur of these settings."""
        s = settings
        fwhm_um = np.array([s.blur_z_fwhm_um or s.blur_fwhm_um, s.blur_fwhm_um, s.blur_fwhm_um])
        sigma = fwhm_um / FWHM / np.array(s.voxel_size_um)
        reach, wide = (max(noise.kernel_reach(v) for v in scale * sigma) for scale in (1, 2))
        return cls(sigma, reach, reach + (wide if s.fringe else 0))


def ideal(electrode: Electrode, voxels: Voxels) -> tuple[Array, Array]:
    """Grey levels before imaging, and the share of solid, which has grain; float32."""
    s, void = electrode.settings, np.float32(electrode.settings.grey_void)
    share = shares(electrode, voxels)
    between = 1 - share.particle
    active = share.particle * (1 - voxels.dark)
    grey = void + active * (electrode.levels_of(voxels.owner) - void)
    grey += share.cbd * np.float32(s.grey_cbd - s.grey_void)
    if s.mottle > 0:
        thickness = max(s.coating_thickness_um, 2 * max(s.voxel_size_um))
        _add_waves(grey, share.cbd, voxels, s, "mottle", (0.5 * thickness, 3 * thickness))
    grey += share.collector * np.float32(s.grey_collector - s.grey_void)
    solid = active + share.cbd + share.collector
    if s.separator_um > 0:
        grey += share.separator * np.float32(s.grey_separator - s.grey_void)
    if share.debris is not None:
        grey += share.debris * (voxels.crumb_level - grey)
        solid += share.debris * (1 - solid)
    if s.cloud > 0:
        diameter = max(s.diameter_median_um, 6 * max(s.voxel_size_um))
        _add_waves(grey, between, voxels, s, "cloud", (diameter / 3, 2 * diameter))
    return grey, solid


def _add_waves(
    grey: Array, share: Array, voxels: Voxels, settings: PhantomSettings, name: str, lengths: tuple[float, float]
) -> None:
    """Slow waves of density where there is a share of their material. name: the setting that is their strength."""
    place = share.nonzero()
    points = np.stack(place).astype(np.float32)
    points[0] += np.float32(voxels.start[0])
    points *= np.array(settings.voxel_size_um, np.float32)[:, None]
    strength = getattr(settings, name) * settings.contrast
    grey[place] += noise.slow_waves(settings.rng(name), lengths, strength, share[place], points)


def image(settings: PhantomSettings, grey: Array, solid: Array, z0: int, z1: int) -> Array:
    """The tomogram of slices z0..z1-1 from `ideal`, given with `Blur.halo` more slices at both ends."""
    s, blur = settings, Blur.of(settings)
    if s.texture > 0:
        gain = s.texture * s.contrast / noise.remaining(blur.sigma, blur.sigma)
        grey = grey + np.float32(gain) * solid * noise.white(s, "texture", z0 - blur.halo, z1 + blur.halo)
    result = noise.blur(grey, blur.sigma, blur.reach)
    if s.fringe > 0:
        spare = blur.halo - blur.reach
        wide = noise.blur(result, 2 * blur.sigma, spare)
        result = result[spare : len(result) - spare]
        result = result + np.float32(s.fringe) * (result - wide)
    if s.noise > 0:
        result += np.float32(s.noise * s.contrast) * noise.correlated(s, z0, z1)
    if s.streaks > 0:
        angle = s.rng("streaks").uniform(0, pi)
        for z, plane in zip(range(z0, z1), result, strict=True):
            field = noise.streaks(s.rng("streaks", 1, z), plane.shape, s.streak_length, angle)
            plane += np.float32(s.streaks * s.contrast) * field
    if s.rings > 0:
        result += np.float32(s.rings * s.contrast) * np.stack([noise.rings(s, z) for z in range(z0, z1)])
    if s.shading > 0:
        axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in s.shape]
        slow = axes[0][z0:z1, None, None] * 0.3 + axes[1][:, None] * 0.5 + (axes[2] ** 2 - 0.5)
        result += np.float32(s.shading * s.contrast) * slow
    np.clip(result, 0, 65535, out=result)
    if s.dtype == "float32":
        return result.astype(np.float32)
    scale = 1.0 if s.dtype == "uint16" else 255 / 65535
    return np.rint(result * np.float32(scale)).astype(s.dtype)
