"""Particles of slices by the trained Mask R-CNN, which `runtime.py` runs.

Every slice is brought to the one grey scale and the one size of particle that the network knows (`scaling.py`), cut
into overlapping tiles if it is large (`tiles.py`), and what the network finds is moved back to the slice's own pixels
and pasted into a label image (`instances.py`). While the network works, a thread reads and prepares the next slices.

*Coordinates.* Pixel edges are at integers: pixel k reaches from k to k + 1, and an image keeps its outer edges when it
is zoomed. Boxes of the network follow that, and its masks fill their boxes (`cbdetach.train` teaches them so).
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach.errors import InputError
from voxkernels._arrays import as_image

from .ahead import ahead
from .instances import Detections, Found, to_labels
from .runtime import load_model, shipped_model
from .scaling import Image, grey_levels, normalise, section_diameter, zoomed
from .tiles import STRIDE, Raw, Tile, pixels_of, stitch, tiles_of
from .watershed import Labels

TILE = 320
OVERLAP = 96
"""Pixels of the network. Tiles as large as what it has learnt from: it finds a limited number of particles on each, and
on tiles of 512 a dense slice of small particles lost a tenth of them. The overlap is three nominal diameters."""
BATCH = {"cpu": 1, "cuda": 8, "tensorrt": 8}
AHEAD = 2
"""Slices that are prepared while the network works."""
MAX_ZOOM = 3.0
"""More does not show more."""
COARSE = 768
"""Pixels along the longer side at which the typical diameter is looked for first."""
FINE_ENOUGH = 12.0
"""Pixels: below this diameter it is looked for once more without shrinking."""


@dataclass(frozen=True, eq=False)
class _Slice:
    """A slice as the network sees it; `shape` is that of the slice itself."""

    shape: tuple[int, int]
    image: Image
    tiles: list[Tile]


class Segmenter:
    """One loaded model.

    Parameters
    ----------
    model, provider, threads : see `load_model`.
    batch : tiles that the network works on at a time, also of different slices; default 1 on the processor, 8 on a GPU.
    tile, overlap : pixels of the network; the tile a multiple of 32 and larger than the overlap.

    Raises
    ------
    InputError : the model or the provider cannot be used, or a number is out of range.
    """

    def __init__(
        self,
        model: Path | str | None = None,
        *,
        provider: str | None = None,
        threads: int | None = None,
        batch: int | None = None,
        tile: int = TILE,
        overlap: int = OVERLAP,
    ) -> None:
        for name, value in (("threads", threads), ("batch", batch)):
            if value is not None and value < 1:
                raise InputError(f"{name}: must be at least 1; got {value}.")
        if tile < STRIDE or tile % STRIDE:
            raise InputError(f"tile: must be a positive multiple of {STRIDE}; got {tile}.")
        if not 0 <= overlap < tile - 1:
            raise InputError(f"overlap: must be at least 0 and less than the tile, {tile}; got {overlap}.")
        self.model = load_model(model, provider=provider, threads=threads)
        self.batch = BATCH[self.model.provider] if batch is None else batch
        self.tile, self.overlap = tile, overlap

    @property
    def threshold(self) -> float:
        """The score from which detections count, unless another is given."""
        return self.model.threshold

    def detect(
        self,
        images: Iterable[npt.NDArray[Any]],
        *,
        levels: tuple[float, float] | None = None,
        diameter_px: float | tuple[float, float] | None = None,
    ) -> Generator[Detections]:
        """What the network finds on each slice, in their order.

        Parameters
        ----------
        images : (Y, X) each, any real type, finite; taken from the iterator in a thread, some slices ahead.
        levels : grey values of matrix and particles, the same for all slices of a volume. Default: each slice's own.
        diameter_px : typical diameter of the particles' sections (area-weighted median), pixels, or pixels along y and
            x. Default: `estimated_diameter` of each slice.

        Yields
        ------
        Detections of any score that the model gives. They do not depend on `batch`.

        Raises
        ------
        InputError, TypeError, ValueError : wrong options; no slice, nan or inf; a constant slice without `levels`.
        """
        if levels is not None and not (np.isfinite(levels).all() and levels[0] != levels[1]):
            raise InputError(f"levels: must be two finite, different grey values; got {levels}.")
        diameters = None if diameter_px is None else np.broadcast_to(np.asarray(diameter_px, float), 2)
        if diameters is not None and not (np.isfinite(diameters).all() and diameters.min() > 0):
            raise InputError(f"diameter_px: must be positive, in pixels; got {diameter_px}.")
        return self._detect(images, levels, diameters)

    def _detect(
        self, images: Iterable[npt.NDArray[Any]], levels: tuple[float, float] | None, diameters: Any
    ) -> Generator[Detections]:
        parts: list[Raw] = []
        ready = ahead((self._prepare(image, levels, diameters) for image in images), AHEAD)
        with contextlib.closing(ready):
            for owner, part in self._found(ready):
                parts.append(part)
                if len(parts) == len(owner.tiles):
                    yield _on_the_slice(owner, parts)
                    parts = []

    def _prepare(self, image: npt.NDArray[Any], levels: tuple[float, float] | None, diameters: Any) -> _Slice:
        grey = _finite(image)
        scaled = normalise(grey, grey_levels(grey) if levels is None else levels)
        if diameters is None:
            diameters = np.full(2, estimated_diameter(grey))
        zoom = np.minimum(self.model.nominal / diameters, MAX_ZOOM)
        small = zoomed(scaled, _scaled(grey.shape, zoom.tolist()))
        return _Slice(grey.shape, small, tiles_of(small.shape, tile=self.tile, overlap=self.overlap))

    def _found(self, slices: Iterable[_Slice]) -> Iterator[tuple[_Slice, Raw]]:
        """Detections on each tile of each slice; tiles of one size go through the network together."""
        batch: list[npt.NDArray[np.float32]] = []
        owners: list[_Slice] = []

        def run() -> Iterator[tuple[_Slice, Raw]]:
            if batch:
                yield from zip(owners, self.model(np.stack(batch)[:, None]), strict=True)
            batch.clear()
            owners.clear()

        for one in slices:
            for tile in one.tiles:
                if batch and batch[0].shape != tile.size:
                    yield from run()
                batch.append(pixels_of(one.image, tile))
                owners.append(one)
                if len(batch) == self.batch:
                    yield from run()
        yield from run()

    def label(
        self,
        image: npt.NDArray[Any],
        *,
        levels: tuple[float, float] | None = None,
        diameter_px: float | tuple[float, float] | None = None,
        threshold: float | None = None,
        min_pixels: float = 1.0,
    ) -> tuple[Labels, Found]:
        """Particles of one slice; see `label_slices`."""
        slices = self.label_slices(
            [image], levels=levels, diameter_px=diameter_px, threshold=threshold, min_pixels=min_pixels
        )
        with contextlib.closing(slices):
            return next(slices)

    def label_slices(
        self,
        images: Iterable[npt.NDArray[Any]],
        *,
        levels: tuple[float, float] | None = None,
        diameter_px: float | tuple[float, float] | None = None,
        threshold: float | None = None,
        min_pixels: float = 1.0,
    ) -> Generator[tuple[Labels, Found]]:
        """Particles of each slice, in their order.

        Parameters
        ----------
        images, levels, diameter_px : see `detect`.
        threshold : detections count from this score on. Default: the model's own.
        min_pixels : smallest particle; one that the slice's edge cuts may be smaller.

        Yields
        ------
        labels (Y, X) int32: 0 and the particles 1..n, each one connected, filled region, in the order of their first
        pixel; and their scores and what became of the detections (`Found`).
        """
        least = self.threshold if threshold is None else threshold
        if not 0 <= least <= 1:
            raise InputError(f"threshold: must be between 0 and 1; got {least}. It is a score.")
        return _labelled(self.detect(images, levels=levels, diameter_px=diameter_px), least, min_pixels)


def loaded(model: Path | str | None = None) -> Segmenter:
    """A segmenter with the default options, the same one as long as the file is."""
    path = shipped_model() if model is None else Path(model)
    return _loaded(model, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=1)
def _loaded(model: Path | str | None, time: int) -> Segmenter:
    return Segmenter(model)


def _labelled(slices: Generator[Detections], score: float, min_pixels: float) -> Generator[tuple[Labels, Found]]:
    with contextlib.closing(slices):
        for detections in slices:
            yield to_labels(detections.above(score), min_pixels=min_pixels)


def estimated_diameter(image: npt.NDArray[Any]) -> float:
    """Area-weighted median diameter (pixels) of the sections on a grey slice, by a quick watershed.

    It may be wrong by a third, which the network tolerates. Without any section: a tenth of the shorter side.
    """
    from . import segment_slice  # which offers the network in turn

    grey = _finite(image)
    longest = max(grey.shape)
    for side in (COARSE, longest):
        shrink: float = min(1.0, side / longest)
        small = zoomed(grey.astype(np.float32), _scaled(grey.shape, (shrink, shrink)))
        found = section_diameter(segment_slice(small, min_diameter_um=5.0))
        if found >= FINE_ENOUGH or shrink == 1:
            break
    return found / shrink if found else max(1.0, min(grey.shape) / 10.0)


def _scaled(shape: tuple[int, ...], zoom: Sequence[float]) -> tuple[int, int]:
    y, x = (max(1, round(n * z)) for n, z in zip(shape, zoom, strict=True))
    return y, x


def _finite(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    grey = as_image("image", image, 2)
    if grey.size == 0:
        raise ValueError("image: must hold at least one pixel; got none.")
    if not np.isfinite(grey).all():
        raise ValueError("image: must be finite; got NaN or inf. Replace them, for example by numpy.nan_to_num.")
    return grey


def _on_the_slice(one: _Slice, parts: list[Raw]) -> Detections:
    """The tiles' detections in pixels of the slice."""
    found, pieces = stitch(parts, one.tiles, one.image.shape)
    y, x = (n / small for n, small in zip(one.shape, one.image.shape, strict=True))
    return Detections(
        boxes=found.boxes * np.array([x, y, x, y]),
        scores=found.scores,
        masks=found.masks,
        shape=one.shape,
        pieces=pieces,
    )
