"""Fields of random numbers: white, correlated, waves, streaks, rings; and the Gaussian blur that correlates them."""

from __future__ import annotations

from math import ceil, log, pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbdetach.phantom.settings import PhantomSettings
from cbdetach.phantom.vectors import directions, waves

Array = NDArray[Any]

_WAVES = 12


def kernel_reach(sigma: float) -> int:
    """Voxels on each side of a Gaussian's centre that `blur` sums: three standard deviations."""
    return ceil(3 * sigma)


def _kernel(sigma: float) -> Array:
    """Normalised Gaussian; [1] for no blur."""
    reach = kernel_reach(sigma)
    if reach == 0:
        return np.ones(1)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    result: Array = weights / weights.sum()
    return result


def blur(image: Array, sigma: Array, halo: int) -> Array:
    """Gaussian blur of float32 slices, `halo` of them dropped at both ends in z; the edge is repeated in y and x."""
    from scipy.ndimage import correlate1d

    for axis in (2, 1, 0):
        weights = _kernel(float(sigma[axis]))
        if weights.size > 1:
            image = correlate1d(image, weights, axis=axis, mode="nearest", output=np.float32)
    return image[halo : len(image) - halo]


def remaining(first: Array, second: Array) -> float:
    """Root of the covariance of two blurs of one white noise; of one blur: the standard deviation that it leaves."""
    total = 1.0
    for a, b in zip(first, second, strict=True):
        total *= float(np.convolve(_kernel(a), _kernel(b)).max())
    return sqrt(total)


def white(settings: PhantomSettings, purpose: str, z0: int, z1: int) -> Array:
    """Independent standard normal numbers, seeded slice by slice (slices before 0 exist too)."""
    plane = settings.shape[1:]
    offset = 1 << 20
    return np.stack([settings.rng(purpose, offset + z).standard_normal(plane, np.float32) for z in range(z0, z1)])


def correlated(settings: PhantomSettings, z0: int, z1: int) -> Array:
    """Noise of unit variance: one white field seen through a fine and a three times wider Gaussian."""
    fine, wide = np.full(3, settings.noise_correlation), np.full(3, 3 * settings.noise_correlation)
    inner, reach = kernel_reach(fine[0]), kernel_reach(wide[0])
    field = white(settings, "noise", z0 - reach, z1 + reach)
    share = np.float32(0.4 * remaining(fine, fine) / remaining(wide, wide))
    total = remaining(fine, fine) ** 2 + (share * remaining(wide, wide)) ** 2 + 2 * share * remaining(fine, wide) ** 2
    spare = reach - inner
    result = blur(field[spare : len(field) - spare], fine, inner) + share * blur(field, wide, reach)
    result /= np.float32(sqrt(total))
    return result


def slow_waves(
    rng: np.random.Generator, lengths: tuple[float, float], strength: float, share: Array, points: Array
) -> Array:
    """Waves of lengths in the given range (um) at the points (3, N), float32, of standard deviation `strength` times
    the `share` (N,) at each.
    """
    length = lengths[0] * np.exp(rng.uniform(0, log(lengths[1] / lengths[0]), _WAVES))
    wave = (directions(rng, (_WAVES,)) * 2 * pi / length[:, None]).astype(np.float32)
    phase = rng.uniform(0, 2 * pi, _WAVES).astype(np.float32)
    gain = np.float32(strength * sqrt(2 / _WAVES))
    result: Array = gain * share * waves(wave, phase, points)
    return result


def rings(settings: PhantomSettings, z: int) -> Array:
    """Circles around the axis of rotation in slice z: a few strong ones, on weak ones of every radius."""
    _, ny, nx = settings.shape
    y, x = np.ogrid[:ny, :nx]
    radius = np.hypot(y - (ny - 1) / 2, x - (nx - 1) / 2)
    rng = settings.rng("rings", z)
    profile = 0.3 * rng.standard_normal(int(radius.max()) + 3)
    profile += np.where(rng.random(len(profile)) < 0.04, 2.0 * rng.standard_normal(len(profile)), 0.0)
    result: Array = np.interp(radius, np.arange(len(profile)), profile).astype(np.float32)
    return result


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
