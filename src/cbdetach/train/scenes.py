"""Labelled slices of synthetic electrodes, without end: every scene is another electrode under another microscope.

A scene is a thin, wide phantom with its settings drawn at random, widely around those of real nano-tomograms (domain
randomisation): a network that has seen them all takes a real slice for one more. One voxel is one pixel, and particles
are near the network's nominal diameter; other voxel sizes are the caller's to scale.

The geometry of each slice is `Phantom.section`, which knows the blur across the plane. Blur, fringes, texture, noise,
streaks, rings and shading are then put on in two dimensions, by Fourier synthesis, which looks the same in a slice and
costs a hundredth. The labels are the filled particles, cracks and pores included; what nobody could outline is marked
to be ignored: slivers, poles too dim to see, debris.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, pi
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach.annotations import LabelledSlice
from cbdetach.codes import ACTIVE
from cbdetach.errors import InputError
from cbdetach.phantom import FWHM, Phantom, Section, frequencies, noise_field, streaks

Array = npt.NDArray[Any]

SMALLEST_DIAMETER = 5.0
"""Pixels: sections of a smaller equivalent diameter are ignored."""
LEAST_SHARE = 0.45
"""Sections that keep less than this part of their contrast, being cut near a pole, are ignored."""
LEAST_CONTRAST = 0.3
"""Nor does a section count that stands out from its surroundings, without noise, by less than this part of the contrast
between active material and void: in carbon/binder nearly as bright, or between brighter neighbours' blur."""
RING = 4
"""Pixels around a section that are its surroundings."""
GHOST_SHARE = 0.3
"""What shines through from beside the plane with more than this part of its contrast is ignored."""
DIAMETERS = (20.0, 52.0)
"""Pixels: range of the area-weighted median diameter of a scene's sections."""
NEAR_SHARE = 0.5
"""Share of the scenes near measured nano-tomograms of NMC (`benchmarks/realism.py`); the others are drawn widely."""


def slices_of_scene(seed: int, *, count: int = 8, side: int = 448) -> list[LabelledSlice]:
    """`count` labelled slices of one random electrode, `side` pixels wide and high; the same for the same arguments.

    Each is (side, side), uint16, with int32 labels 1..n (the filled particles) and a bool mask of what to ignore.
    `volume` names the scene. About 1 s a slice at the default size.
    Raises InputError for a negative seed, count below 1 or side below 64.
    """
    for name, value, least in (("seed", seed, 0), ("count", count, 1), ("side", side, 64)):
        if not isinstance(value, int) or value < least:
            raise InputError(f"{name}: must be an integer of at least {least}; got {value}.")
    rng = np.random.default_rng([seed, 0])
    near = rng.random() < NEAR_SHARE
    axis, step, settings = _electrode(rng, near, count, side)
    phantom = Phantom(samples=200, seed=seed, **settings)
    look = _look(rng, near, phantom)
    slices = []
    for k in range(count):
        own = np.random.default_rng([seed, 1, k])
        section = phantom.section(axis, int((k + own.random()) * step), through_um=look.through)
        image, plain, clear, off = _imaged(section, phantom, look, own)
        labels, ignore = _outlined(section, plain, clear, off)
        slices.append(LabelledSlice(f"scene-{seed}-{k}", f"scene-{seed}", image, labels, ignore))
    return slices


# The electrode


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """Log-uniform."""
    return exp(rng.uniform(log(low), log(high)))


def _some(rng: np.random.Generator, share: float, low: float, high: float) -> float:
    """Uniform in a share of the scenes, 0 in the others."""
    value = rng.uniform(low, high)
    return value if rng.random() < share else 0.0


def _uniform(rng: np.random.Generator, near: bool, wide: tuple[float, float], narrow: tuple[float, float]) -> float:
    return rng.uniform(*(narrow if near else wide))


def _electrode(rng: np.random.Generator, near: bool, count: int, side: int) -> tuple[int, float, dict[str, Any]]:
    """Axis of the slices, distance between them, settings of the phantom."""
    typical = _between(rng, *DIAMETERS)
    mixed = rng.random() < 0.2
    sigma = rng.uniform(0.1, 0.2) if mixed else _uniform(rng, near, (0.05, 0.4), (0.05, 0.25))
    small_share, small_size = (rng.uniform(0.15, 0.5), rng.uniform(0.4, 0.65)) if mixed else (0.0, 0.5)
    # the median of section diameters, weighted by area, of balls: 0.938 of the diameter, and large ones weigh more
    median = max(typical / (0.938 * exp(3 * sigma**2)), 9.0) * (1 + 0.6 * small_share)
    crossed = rng.random() < 0.25
    covered = rng.uniform(0.1, 0.95)
    step = 0.4 * typical
    depth = max(8, round(count * step))
    height = side * rng.uniform(0.5, 0.9)  # of the electrode, where it is seen with its ends
    bottom = rng.uniform(0.2, 0.8)
    settings: dict[str, Any] = {
        "shape": (side, depth, side) if crossed else (depth, side, side),
        "voxel_size_um": (1.0, 1.0, 1.0),
        "diameter_median_um": median,
        "diameter_sigma": sigma,
        "small_share": small_share,
        "small_size": small_size,
        "active_fraction": _uniform(rng, near, (0.25, 0.6), (0.38, 0.58)),
        "overlap": rng.uniform(0.0, 0.08),
        "elongation": _uniform(rng, near, (0.02, 0.22), (0.09, 0.18)),
        "roughness": _uniform(rng, near, (0.0, 0.05), (0.01, 0.04)),
        "lumps": _some(rng, 0.6, 0.0, 0.018),
        "coating_thickness_um": typical * rng.uniform(0.05, 0.5),
        "covered_fraction": covered,
        "covered_fraction_sd": 0.8 * (covered * (1 - covered)) ** 0.5 * rng.uniform(0.1, 0.9),
        "patches": int(rng.integers(1, 6)),
        "network_share": 0.0,
        "collector_um": (side - height) * bottom if crossed else 0.0,
        "separator_um": (side - height) * (1 - bottom) if crossed else 0.0,
        "crack_share": _some(rng, 1.0 if near else 0.85, 0.3 if near else 0.1, 0.9),
        "crack_width_um": typical * _between(rng, 0.02, 0.06),
        "crack_width_sd": rng.uniform(0.0, 0.7),
        "star_share": rng.uniform(0.2, 1.0),
        "shattered_share": _some(rng, 0.7, 0.02, 0.12 if near else 0.3),
        "shards": int(rng.integers(6, 22)),
        "pore_share": _some(rng, 1.0 if near else 0.8, 0.8 if near else 0.1, 1.0),
        "pore_size": _uniform(rng, near, (0.12, 0.45), (0.22, 0.42)),
        "pore_size_sd": rng.uniform(0.1, 0.5),
        "pore_raggedness": _uniform(rng, near, (0.2, 1.0), (0.4, 1.0)),
        "debris": _some(rng, 0.6, 0.002, 0.02),
        "grey_void": 0.0,
        "grey_cbd": 65535 * _uniform(rng, near, (0.0, 0.4), (0.03, 0.22)),
        "grey_active": 65535.0,
        "grey_collector": 65535 * rng.uniform(0.0, 0.6),
        "grey_separator": 65535 * rng.uniform(0.0, 0.4),
        "density_sd": rng.uniform(0.0, 0.1),
    }
    return (1 if crossed else 0), depth / count, settings


# The microscope


@dataclass(frozen=True)
class _Look:
    """How a scene is imaged. Lengths in pixels, strengths as a part of the contrast of active material to void."""

    through: float
    blur: float
    fringe: float
    fringe_width: float
    texture: float
    texture_length: float
    mottle: float
    mottle_length: float
    noise: float
    noise_length: float
    noise_wide: float
    streaks: float
    streak_length: float
    streak_angle: float
    rings: float
    shading: float
    hole: float
    hole_blur: float
    field: float
    low: float
    contrast: float
    levels: int


def _look(rng: np.random.Generator, near: bool, phantom: Phantom) -> _Look:
    typical = phantom.settings.diameter_median_um
    blur = _between(rng, 0.5, 0.9 if near else 0.03 * typical + 0.8)
    contrast = rng.uniform(0.12, 0.75)
    return _Look(
        through=FWHM * blur * rng.uniform(0.7, 1.5),
        blur=blur,
        fringe=_some(rng, 0.7, 0.0, 0.6),
        fringe_width=rng.uniform(1.5, 4.0),
        texture=_uniform(rng, near, (0.0, 0.18), (0.06, 0.18)),
        texture_length=_between(rng, 0.7, 4.0),
        mottle=_uniform(rng, near, (0.0, 0.22), (0.08, 0.2)),
        mottle_length=_between(rng, 2.5 if near else 1.5, 12.0),
        noise=_between(rng, 0.07 if near else 0.01, 0.2 if near else 0.25),
        noise_length=rng.uniform(0.0, 1.3),
        noise_wide=rng.uniform(0.0, 0.6),
        streaks=_some(rng, 0.5, 0.0, 0.07),
        streak_length=_between(rng, 4.0, 20.0),
        streak_angle=rng.uniform(0, pi),
        rings=_some(rng, 0.4, 0.0, 0.06),
        shading=_some(rng, 0.6, 0.0, 0.25),
        hole=rng.uniform(0.55, 1.0),
        hole_blur=rng.uniform(0.0, 1.0) * typical / 32,
        field=_some(rng, 0.15, 0.3, 0.5),
        low=rng.uniform(0.02, 0.95 - contrast),
        contrast=contrast,
        levels=int(rng.choice([256, 65536])),
    )


def _imaged(section: Section, phantom: Phantom, look: _Look, rng: np.random.Generator) -> tuple[Array, ...]:
    """The grey slice, uint16; the same without noise, in units of the contrast between active material and void; the
    share of its contrast that each pixel keeps; what lies outside the field of view."""
    from scipy.ndimage import gaussian_filter

    s = phantom.settings
    scale = np.float32(1 / s.grey_active)
    shape = section.labels.shape
    solid = section.particle * (1 - look.hole * gaussian_filter(section.dark, look.hole_blur))
    outside = (1 - section.particle) * (1 - section.debris)
    texture = _field(rng, shape, look.texture_length) + 0.7 * _field(rng, shape, 3 * look.texture_length)
    mottle = _field(rng, shape, look.mottle_length) + 0.7 * _field(rng, shape, 4 * look.mottle_length)
    parts = section.cbd * s.grey_cbd + section.collector * s.grey_collector + section.separator * s.grey_separator
    solid += section.debris
    ideal = (section.level * solid + parts * (1 - section.debris)) * scale
    ideal += look.texture / 1.22 * texture * solid + look.mottle / 1.22 * mottle * (outside - section.collector)

    image = gaussian_filter(ideal, look.blur)
    if look.fringe > 0:
        image += look.fringe * (image - gaussian_filter(image, look.fringe_width * look.blur))
    clear = gaussian_filter(section.particle, look.blur)
    plain = image / (1 - s.grey_void * scale)

    fine, wide = _field(rng, shape, look.noise_length), _field(rng, shape, 3 * look.noise_length + 1)
    image += look.noise * (fine + look.noise_wide * wide) / np.sqrt(1 + look.noise_wide**2)
    if look.streaks > 0:
        image += look.streaks * streaks(rng, shape, look.streak_length, look.streak_angle)
    if look.rings > 0:
        image += look.rings * _rings(rng, shape)
    if look.shading > 0:
        image += look.shading * _slow(rng, shape)
    off = np.zeros(shape, bool)
    if look.field > 0:
        off = _off_field(rng, shape, look.field)
        image[off] = rng.uniform(0, 0.6)
    image = np.clip(look.low + look.contrast * image, 0, 1)
    steps = look.levels - 1
    grey: Array = np.rint(np.rint(image * steps) * (65535 / steps)).astype(np.uint16)
    return grey, plain, clear, off


def _field(rng: np.random.Generator, shape: tuple[int, ...], length: float) -> Array:
    """Noise as wide as a Gaussian of standard deviation `length`."""
    y, x = frequencies(shape)
    return noise_field(rng, np.exp(np.float32(-0.5 * length**2) * (y * y + x * x)), shape[1])


def _rings(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Arcs around an axis of rotation that may lie outside the slice."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    middle = rng.uniform(-0.5, 1.5, 2) * shape
    radius = np.hypot(y - middle[0], x - middle[1])
    profile = 0.4 * rng.standard_normal(int(radius.max()) + 3)
    profile += np.where(rng.random(len(profile)) < 0.04, 2 * rng.standard_normal(len(profile)), 0)
    result: Array = np.interp(radius, np.arange(len(profile)), profile).astype(np.float32)
    return result


def _slow(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Uneven light over the slice: a slope, a bowl and a wave, about -1 to 1."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    a = rng.uniform(-1, 1, 6)
    wave = np.sin(a[4] * 4 * y[:, None] + a[5] * 4 * x + 3 * a[3])
    result: Array = (0.5 * (a[0] * y[:, None] + a[1] * x + wave) + a[2] * (x**2 + y[:, None] ** 2 - 0.7)).astype("f4")
    return result


def _off_field(rng: np.random.Generator, shape: tuple[int, ...], radius: float) -> Array:
    """Outside of a circle of `radius` (as a part of the diagonal) near the middle."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    middle = (0.5 + rng.uniform(-0.25, 0.25, 2)) * shape
    outside: Array = np.hypot(y - middle[0], x - middle[1]) > 1.4 * radius * float(np.hypot(shape[0], shape[1]))
    return outside


# The labels


def _outlined(section: Section, plain: Array, clear: Array, off: Array) -> tuple[Array, Array]:
    """Labels 1..n in the order of the phantom's, each in one piece, and what to ignore."""
    from scipy import ndimage

    labels, true = section.labels.copy(), section.labels
    ignore = (section.phases == ACTIVE) & (labels == 0)  # debris
    # particles just above or below the plane that shine through
    ignore |= (clear > GHOST_SHARE) & ~ndimage.binary_dilation(labels > 0, iterations=3)
    labels[off] = 0
    smallest = pi / 4 * SMALLEST_DIAMETER**2
    boxes: list[Any] = ndimage.find_objects(labels)
    for k, box in enumerate(boxes, 1):
        if box is None:
            continue
        mask = labels[box] == k
        pieces = ndimage.label(mask)[0]
        area = np.bincount(pieces.ravel())
        area[0] = 0
        whole = pieces == area.argmax()
        seen = area.max() >= smallest and clear[box][whole].mean() >= LEAST_SHARE and _stands_out(plain, true, k, box)
        drop = mask & ~whole if seen else mask
        ignore[box] |= drop
        labels[box][drop] = 0
    _, packed = np.unique(labels, return_inverse=True)
    numbers = packed.reshape(labels.shape).astype(np.int32)
    return (numbers if (labels == 0).any() else numbers + 1), ignore


def _stands_out(plain: Array, labels: Array, number: int, box: tuple[slice, slice]) -> bool:
    """Whether a section's brighter part rises above what surrounds it; one that touches others all round does."""
    from scipy.ndimage import binary_dilation

    y, x = (slice(max(part.start - RING, 0), part.stop + RING) for part in box)
    grey, around = plain[y, x], labels[y, x]
    ring = binary_dilation(around == number, iterations=RING) & (around == 0)
    if not ring.any():
        return True
    return bool(np.percentile(grey[around == number], 75) - np.median(grey[ring]) >= LEAST_CONTRAST)
