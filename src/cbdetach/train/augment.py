"""Augmentation: a labelled slice becomes one training sample of fixed size; what is drawn decides it, nothing else.

Geometry first. A square is cut from the slice, scaled so that the slice's typical section (area-weighted median
diameter) has the drawn diameter in pixels, turned and flipped. Image and labels are resampled once each; the masks are
cut from the resampled labels afterwards, so their number costs next to nothing. A turned square needs up to 1.41 of its
side: the cut is that much larger, and only its centre is kept, so the corners are always measured pixels. The angle is
limited to what the slice can fill, and only a slice that is smaller than the unturned square is continued, by its edge
values, as inference does.

Then the grey levels, in units of the contrast between matrix and particles (0 and 1, `segment.scaling`): gain and
offset as of misjudged levels, gamma, blur or sharpening (phase-contrast fringes), white and correlated noise, slow
shading, rings or stripes and single streaks. Contrast is never inverted.

Every change draws from a generator of its own, so switching one off leaves the others as they were.

Source: Jiang et al. (2020), Suppl. Note 1: random crop, flip, rotation, scaling; the grey-level changes are ours.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, field_validator
from scipy.ndimage import find_objects, gaussian_filter
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from cbdetach.annotations import LabelledSlice
from cbdetach.config import Section
from cbdetach.segment.scaling import grey_levels, normalise, section_diameter

Image = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
Box = tuple[slice, slice]

CHANGES = ("gain", "gamma", "sharpness", "shading", "stripes", "streaks", "noise", "correlated")
"""Grey-level changes, each with its own random numbers, in the order of their application."""


class AugmentSettings(Section):
    """What is varied, and by how much. Grey levels are in units of the contrast between matrix and particles."""

    size: int = Field(default=320, ge=32, multiple_of=32)
    """Edge of a sample, pixels."""
    diameter_px: tuple[float, float] = (20.0, 52.0)
    """Typical section diameter after scaling: log-uniform between these. Equal ends: always that."""
    rotate: bool = True
    """Turn by any angle that the slice can fill; else not at all."""
    flip: bool = True
    """Mirror each axis in half of the samples."""
    probability: float = Field(default=0.5, ge=0, le=1)
    """With which each of the grey-level changes below happens to a sample."""
    gain: float = Field(default=0.2, ge=0, lt=1)
    """Contrast is multiplied by up to 1 +- this."""
    offset: float = Field(default=0.12, ge=0)
    """Up to +- this is added to all pixels, together with the gain."""
    gamma: float = Field(default=0.4, ge=0)
    """Mid-tones are bent by exponents up to exp(+- this); matrix and particle levels stay."""
    blur_px: float = Field(default=1.2, ge=0)
    """Largest standard deviation of the Gaussian blur, pixels. A sample is blurred or sharpened, never both."""
    sharpen: float = Field(default=1.0, ge=0)
    """Largest share of the detail finer than 1 to 2 pixels that is added once more."""
    shading: float = Field(default=0.15, ge=0)
    """Largest amplitude of the slow brightness variation across the sample."""
    stripes: float = Field(default=0.05, ge=0)
    """Largest standard deviation of rings about a point, stripes where the point is far away."""
    streaks: float = Field(default=0.25, ge=0)
    """Largest height of up to three straight bright or dark lines."""
    noise: float = Field(default=0.12, ge=0)
    """Largest standard deviation of white noise."""
    correlated: float = Field(default=0.1, ge=0)
    """Largest standard deviation of correlated noise."""
    correlation_px: tuple[float, float] = (0.6, 2.5)
    """Standard deviation of the Gaussian that correlated noise is smoothed with: log-uniform between these."""
    min_fraction: float = Field(default=0.15, ge=0, le=1)
    """A piece at the sample's border with less than this of its section's area is no target."""
    min_area_px: int = Field(default=12, ge=1)
    """Nor is anything smaller than this."""

    @field_validator("diameter_px", "correlation_px")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] < math.inf:
            raise ValueError(f"must be two positive numbers, the smaller first; got {value[0]:g} and {value[1]:g}")
        return value


class Known(NamedTuple):
    """What is found on a slice once: grey levels, typical diameter (0 without sections), and areas of the sections."""

    levels: tuple[float, float]
    diameter: float
    area: npt.NDArray[np.int64]
    ignored: Mask


class Augment:
    """`augment(slice, rng)`: a random sample of a labelled slice. About 10 ms on one core for 320 x 320 pixels.

    Grey levels, diameter and areas of a slice are kept for as long as the slice lives.
    """

    def __init__(self, settings: AugmentSettings | None = None) -> None:
        self.settings = settings or AugmentSettings()
        self._known: WeakKeyDictionary[LabelledSlice, Known] = WeakKeyDictionary()

    def __reduce__(self) -> tuple[type[Augment], tuple[AugmentSettings]]:
        return type(self), (self.settings,)

    def __call__(self, labelled: LabelledSlice, rng: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """One sample.

        Parameters
        ----------
        labelled : the slice; its image must hold more than one grey value.
        rng : decides everything that is random; the same state gives the same sample.

        Returns
        -------
        image : (1, S, S) float32, normalised: matrix about 0, particles about 1, limited to -1..2.
        target : `boxes` (n, 4) float32, x0 y0 x1 y1 with x1 = last pixel + 1; `labels` (n,) int64, all 1; `masks`
            (n, S, S) uint8; `ignore` (S, S) bool: the slice's own, sections that lie mostly in it, and pieces that are
            too small for a target. n may be 0.

        Raises
        ------
        ValueError : a constant image.
        """
        known = self._known.get(labelled)
        if known is None:
            known = self._known[labelled] = _look_at(labelled)
        seeds = rng.integers(2**63, size=1 + len(CHANGES))
        image, labels, ignore, zoom = _cut(labelled, known, self.settings, np.random.default_rng(seeds[0]))
        image = normalise(image, known.levels)
        for change, seed in zip(CHANGES, seeds[1:], strict=True):
            own = np.random.default_rng(seed)
            if own.random() < self.settings.probability:
                image = _GREY[change](image, own, self.settings)
        image = np.clip(image, -1, 2).astype(np.float32, copy=False)
        return torch.from_numpy(image[None]), _targets(labels, ignore, zoom, known, self.settings)


def _look_at(labelled: LabelledSlice) -> Known:
    labels = labelled.labels
    area = np.bincount(labels.ravel())
    ignored = np.zeros(len(area), np.bool_)
    if labelled.ignore is not None:
        ignored = 2 * np.bincount(labels[labelled.ignore], minlength=len(area)) > area
    ignored[0] = False
    return Known(grey_levels(labelled.image), section_diameter(labels), area, ignored)


def _cut(
    labelled: LabelledSlice, known: Known, settings: AugmentSettings, rng: np.random.Generator
) -> tuple[Image, Labels, Mask, float]:
    """Image, labels and ignore area of the sample's square, and pixels of the sample per pixel of the slice."""
    size, shape = settings.size, labelled.labels.shape
    low, high = settings.diameter_px
    diameter = low * (high / low) ** rng.random()
    zoom = diameter / known.diameter if known.diameter else 1.0
    turn, where, flips = rng.random(2), rng.random(2), rng.random(2) < 0.5
    quarters = int(4 * turn[0]) if settings.rotate else 0
    # The square turned by an angle has cos + sin = sqrt(2) sin(angle + 45 degrees) times its side.
    room = min(shape) * zoom / (size + 3)
    most = math.asin(min(1.0, max(room, 1.0) / math.sqrt(2))) - math.pi / 4 if settings.rotate else 0.0
    angle = most * (2 * turn[1] - 1)
    side = size if angle == 0 else math.ceil(size * (math.cos(angle) + math.sin(abs(angle)))) + 2

    edge = max(1, round(side / zoom))
    start = [round(min(0, n - edge) + w * abs(n - edge)) for n, w in zip(shape, where, strict=True)]
    inside = tuple(slice(max(a, 0), min(a + edge, n)) for a, n in zip(start, shape, strict=True))
    margins = [
        (round((cut.start - a) * side / edge), round((a + edge - cut.stop) * side / edge))
        for cut, a in zip(inside, start, strict=True)
    ]
    new = [max(1, side - before - after) for before, after in margins]
    margins = [(before, side - n - before) for (before, _), n in zip(margins, new, strict=True)]

    coded = 2 * labelled.labels[inside]  # with the ignore area as the last bit: exact in float32 up to 2**23 sections
    if labelled.ignore is not None:
        coded = coded | labelled.ignore[inside]
    image = _resize(labelled.image[inside], new, InterpolationMode.BILINEAR)
    codes = _resize(coded, new, InterpolationMode.NEAREST_EXACT)
    if np.any(margins):
        image = torch.from_numpy(np.pad(image.numpy()[0], margins, mode="edge"))[None]
        codes = torch.from_numpy(np.pad(codes.numpy()[0], margins))[None]
    if angle:
        degrees = math.degrees(angle)
        image = tv.rotate(image, degrees, InterpolationMode.BILINEAR)
        codes = tv.rotate(codes, degrees, InterpolationMode.NEAREST)
        image, codes = tv.center_crop(image, [size]), tv.center_crop(codes, [size])
    if settings.flip and flips[0]:
        image, codes = tv.horizontal_flip(image), tv.horizontal_flip(codes)
    if settings.flip and flips[1]:
        image, codes = tv.vertical_flip(image), tv.vertical_flip(codes)
    grey = np.ascontiguousarray(np.rot90(image.numpy()[0], quarters))
    code = np.ascontiguousarray(np.rot90(codes.numpy()[0], quarters)).astype(np.int32)
    return grey, code >> 1, (code & 1).astype(np.bool_), side / edge


def _resize(pixels: npt.NDArray[Any], shape: list[int], mode: InterpolationMode) -> Tensor:
    """(1, *shape) float32; shrinking averages where the mode does."""
    tensor = torch.from_numpy(np.ascontiguousarray(pixels, np.float32))[None]
    return tensor if list(pixels.shape) == shape else tv.resize(tensor, shape, mode, antialias=True)


def _targets(labels: Labels, ignore: Mask, zoom: float, known: Known, settings: AugmentSettings) -> dict[str, Tensor]:
    """Boxes and masks of the sections that are worth finding; the others join the ignore area."""
    area = np.bincount(labels.ravel(), minlength=len(known.area))
    border = np.zeros(len(area), np.bool_)
    for line in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        border[line] = True
    sliver = border & (area < settings.min_fraction * zoom**2 * known.area)
    dropped = (area > 0) & ((area < settings.min_area_px) | sliver | known.ignored)
    dropped[0] = False
    if dropped.any():
        ignore = ignore | dropped[labels]
    kept = 1 + np.flatnonzero((area > 0)[1:] & ~dropped[1:])
    boxes = np.zeros((len(kept), 4), np.float32)
    masks = np.zeros((len(kept), *labels.shape), np.uint8)
    found = find_objects(labels)
    for i, k in enumerate(kept):
        y, x = box = found[k - 1]
        boxes[i] = x.start, y.start, x.stop, y.stop
        masks[i][box] = labels[box] == k
    return {
        "boxes": torch.from_numpy(boxes),
        "labels": torch.ones(len(kept), dtype=torch.int64),
        "masks": torch.from_numpy(masks),
        "ignore": torch.from_numpy(ignore),
    }


def _gain(image: Image, rng: np.random.Generator, settings: AugmentSettings) -> Image:
    factor, added = rng.uniform(-1, 1, 2) * (settings.gain, settings.offset)
    return image * np.float32(1 + factor) + np.float32(added)


def _gamma(image: Image, rng: np.random.Generator, settings: AugmentSettings) -> Image:
    """On (image + 1) / 3, the range of normalised images; then stretched so that 0 and 1 are where they were."""
    exponent = math.exp(settings.gamma * rng.uniform(-1, 1))
    bent: Image = tv.adjust_gamma(torch.from_numpy(np.clip((image + 1) / 3, 0, 1))[None], exponent)[0].numpy()
    dark, bright = (1 / 3) ** exponent, (2 / 3) ** exponent
    return (bent - np.float32(dark)) / np.float32(bright - dark)


def _sharpness(image: Image, rng: np.random.Generator, settings: AugmentSettings) -> Image:
    if rng.random() < 0.5:
        sigma = settings.blur_px * rng.random()
        return gaussian_filter(image, sigma, truncate=3) if sigma > 0.2 else image
    amount, sigma = settings.sharpen * rng.random(), rng.uniform(1, 2)
    return image + np.float32(amount) * (image - gaussian_filter(image, sigma, truncate=3)) if amount else image


def _shading(image: Image, rng: np.random.Generator, settings: AugmentSettings) -> Image:
    """A few random values, smoothly joined, scaled to the drawn amplitude."""
    coarse = rng.standard_normal((4, 4)).astype(np.float32)
    amplitude = settings.shading * rng.random() / np.abs(coarse).max()
    field = tv.resize(torch.from_numpy(coarse)[None], list(image.shape), InterpolationMode.BICUBIC, antialias=False)
    slow: Image = field[0].numpy()
    return image + np.float32(amplitude) * slow


def _stripes(image: Image, rng: np.random.Generator, settings: AugmentSettings) -> Image:
    """One random value for each pixel of distance from a point that is inside or far outside."""
    size = image.shape[0]
    centre = size / 2 + size * rng.uniform(0.2, 5) * np.array(_direction(rng))
    y, x = (np.arange(size, dtype=np.float32) - np.float32(c) for c in centre)
    distance = np.sqrt(y[:, None] ** 2 + x[None] ** 2)
    nearest = int(distance.min())
    profile = rng.standard_normal(int(distance.max()) - nearest + 1)
    profile = gaussian_filter(profile, width) if (width := rng.uniform(0, 2)) > 0.3 else profile
    profile *= settings.stripes * rng.random() / profile.std()
    return image + profile.astype(np.float32)[distance.astype(np.int32) - nearest]


def _streaks(image: Image, rng: np.random.Generator, settings: AugmentSettings) -> Image:
    size = image.shape[0]
    along = np.arange(size, dtype=np.float32)
    total = np.zeros_like(image)
    for _ in range(rng.integers(1, 4)):
        (dy, dx), (y, x), width = _direction(rng), size * rng.random(2), rng.uniform(0.7, 2.5)
        distance = np.float32(dy / width) * (along - np.float32(y))[:, None]
        distance = distance + np.float32(dx / width) * (along - np.float32(x))
        total += np.float32(settings.streaks * rng.uniform(-1, 1)) * np.exp(-(distance**2) / 2)
    return image + total


def _noise(image: Image, rng: np.random.Generator, settings: AugmentSettings) -> Image:
    return image + np.float32(settings.noise * rng.random()) * rng.standard_normal(image.shape, np.float32)


def _correlated(image: Image, rng: np.random.Generator, settings: AugmentSettings) -> Image:
    low, high = settings.correlation_px
    noise = gaussian_filter(
        rng.standard_normal(image.shape, np.float32), low * (high / low) ** rng.random(), truncate=3, mode="wrap"
    )
    return image + np.float32(settings.correlated * rng.random() / noise.std()) * noise


def _direction(rng: np.random.Generator) -> tuple[float, float]:
    angle = rng.uniform(0, 2 * math.pi)
    return math.sin(angle), math.cos(angle)


_GREY = dict(zip(CHANGES, (_gain, _gamma, _sharpness, _shading, _stripes, _streaks, _noise, _correlated), strict=True))
