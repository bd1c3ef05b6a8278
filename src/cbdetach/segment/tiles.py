"""Large slices in overlapping tiles, and what is found on the tiles stitched together again.

A tile sees only part of a slice, so what it finds at its inner borders (those behind which the slice goes on) may be a
piece of a particle. Neighbouring tiles overlap by at least the largest expected particle: every particle lies whole in
one of them. The *core* of a tile ends in the middle of the overlaps; the cores of all tiles cover the slice once.

1. A detection that touches an inner border is a piece. It is kept, and counted, only if its centre lies in the tile's
   own core: no tile sees such a particle whole.
2. The others are taken in this order: those with their centre in their own tile's core, those without, pieces; the best
   score first. One that is the same as a detection already taken from *another* tile is dropped: the masks have an IoU
   of at least `SAME`, or, if its centre lies outside the core or it is a piece, `SAME` of its mask is covered.

So, of what the network finds alike on both tiles, each particle comes once, from the tile that sees most of its
surroundings, and tiles give the same as no tiles. Nothing else is dropped: overlaps within a tile are settled later.

All lengths are pixels of the network, pixel edges at integers. Cost: pairs of detections in the overlaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

STRIDE = 32
"""Tiles are padded to multiples of this."""
TOUCHING = 2.0
"""Pixels: a box that ends so near to an inner border touches it."""
SAME = 0.5
SAMPLES = 48
"""Points along each axis at which two masks are compared."""

Floats = npt.NDArray[np.floating[Any]]


class Raw(NamedTuple):
    """Detections: boxes (N, 4) x0, y0, x1, y1; scores (N,); masks (N, H, W), probabilities stretched over the boxes."""

    boxes: Floats
    scores: Floats
    masks: Floats

    def take(self, which: npt.NDArray[Any]) -> Raw:
        """Some of them."""
        return Raw(self.boxes[which], self.scores[which], self.masks[which])


@dataclass(frozen=True)
class Tile:
    """Part of a slice. Pairs are along y and x.

    start : its first pixel; size : pixels, padding included; first, last : whether nothing of the slice lies before
    and behind it; core : from where to where detections are its own.
    """

    start: tuple[int, int]
    size: tuple[int, int]
    first: tuple[bool, bool]
    last: tuple[bool, bool]
    core: tuple[tuple[float, float], tuple[float, float]]


def tiles_of(shape: tuple[int, int], *, tile: int, overlap: int) -> list[Tile]:
    """Tiles of at most `tile` pixels, a multiple of `STRIDE`, that overlap by at least `overlap`; all of one size."""
    rows, columns = (_along(n, tile, overlap) for n in shape)
    return [
        Tile(
            start=(y.start, x.start),
            size=(y.size, x.size),
            first=(y.first, x.first),
            last=(y.last, x.last),
            core=(y.core, x.core),
        )
        for y in rows
        for x in columns
    ]


class _Part(NamedTuple):
    start: int
    size: int
    first: bool
    last: bool
    core: tuple[float, float]


def _along(length: int, tile: int, overlap: int) -> list[_Part]:
    """Tiles along one axis, spread evenly and no larger than needed."""
    if length <= tile:
        return [_Part(0, _padded(length), True, True, (-np.inf, np.inf))]
    least = overlap + 1  # starts are rounded
    n = -(-(length - least) // (tile - least))
    size = _padded(-(-(length + (n - 1) * least) // n))
    starts = [i * (length - size) // (n - 1) for i in range(n)]
    ends = [-np.inf, *((a + size + b) / 2 for a, b in pairwise(starts)), np.inf]
    return [_Part(s, size, i == 0, i == n - 1, (ends[i], ends[i + 1])) for i, s in enumerate(starts)]


def _padded(length: int) -> int:
    return -(-length // STRIDE) * STRIDE


def pixels_of(image: npt.NDArray[np.float32], tile: Tile) -> npt.NDArray[np.float32]:
    """The tile's pixels; beyond the slice its edge is continued."""
    (y, x), (height, width) = tile.start, tile.size
    part = image[y : y + height, x : x + width]
    return np.pad(part, ((0, height - part.shape[0]), (0, width - part.shape[1])), mode="edge")


def stitch(parts: Sequence[Raw], tiles: Sequence[Tile], shape: tuple[int, int]) -> tuple[Raw, npt.NDArray[np.bool_]]:
    """What was found on each tile (in the tile's pixels) as detections of the slice, each particle once.

    Returns
    -------
    detections : in pixels of the slice, best score first; equal scores by y0, then x0 of the box.
    pieces : (N,) bool, which of them are cut by a tile's border: their particles are larger than the overlap.
    """
    found = Raw(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    owner = np.repeat(np.arange(len(tiles)), [len(part.scores) for part in parts])
    start, first, last, core = (np.array([getattr(t, name) for t in tiles])[owner] for name in _PER_TILE)
    size = np.array(tiles[0].size)
    low, high = found.boxes[:, 1::-1], found.boxes[:, :1:-1]  # y, x
    cut = ((low <= TOUCHING) & ~first).any(1) | ((high >= size - TOUCHING) & ~last).any(1)
    found = found._replace(boxes=found.boxes + start[:, [1, 0, 1, 0]].astype(found.boxes.dtype))
    centre = (low + high) / 2 + start
    own = ((core[:, :, 0] <= centre) & (centre < core[:, :, 1])).all(1)
    candidate = (own | ~cut) & (centre < shape).all(1)  # not in the padding

    rank = np.where(cut, 2, np.where(own, 0, 1))[candidate]
    found, owner = found.take(candidate), owner[candidate]
    order = np.lexsort((found.boxes[:, 0], found.boxes[:, 1], -found.scores, rank))
    found, owner, rank = found.take(order), owner[order], rank[order]
    if len(tiles) > 1:
        taken = _once(found, owner, rank)
        found, rank = found.take(taken), rank[taken]
    best = np.lexsort((found.boxes[:, 0], found.boxes[:, 1], -found.scores))
    return found.take(best), rank[best] == 2


_PER_TILE = ("start", "first", "last", "core")


def _once(found: Raw, owner: npt.NDArray[Any], rank: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which detections to take, in the order in which they come."""
    taken = np.ones(len(owner), bool)
    later, earlier = _overlapping(found.boxes, owner)
    for i, j in zip(later.tolist(), earlier.tolist(), strict=True):  # by i, so that `taken[j]` is settled
        if taken[i] and taken[j]:
            iou, covered = _overlap(found, i, j)
            if iou >= SAME or (rank[i] > 0 and covered >= SAME):
                taken[i] = False
    return taken


def _overlapping(boxes: Floats, owner: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Pairs (later, earlier) of different tiles whose boxes overlap, ascending."""
    later: list[npt.NDArray[Any]] = [np.zeros(0, np.int64)]
    earlier: list[npt.NDArray[Any]] = [np.zeros(0, np.int64)]
    x0, y0, x1, y1 = boxes.T
    for i in range(1, len(boxes)):
        meets = (x0[:i] < x1[i]) & (x1[:i] > x0[i]) & (y0[:i] < y1[i]) & (y1[:i] > y0[i]) & (owner[:i] != owner[i])
        (js,) = np.nonzero(meets)
        later.append(np.full(len(js), i))
        earlier.append(js)
    return np.concatenate(later), np.concatenate(earlier)


def _overlap(found: Raw, i: int, j: int) -> tuple[float, float]:
    """IoU of two masks, and the share of the first that the second covers; sampled where their boxes overlap."""
    boxes = found.boxes[[i, j]].astype(np.float64)
    low, high = boxes[:, :2].max(0), boxes[:, 2:].min(0)
    points = low + (high - low) * (np.arange(SAMPLES)[:, None] + 0.5) / SAMPLES
    one, other = (_inside(box, found.masks[k], points) for box, k in zip(boxes, (i, j), strict=True))
    common = np.count_nonzero(one & other) / SAMPLES**2 * float(np.prod(high - low))
    first, second = (found.masks[[i, j]] >= 0.5).mean((1, 2)) * np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    both = first + second - common
    return (common / both if both > 0 else 0.0), (common / first if first > 0 else 1.0)


def _inside(box: Floats, mask: Floats, points: Floats) -> npt.NDArray[np.bool_]:
    """Whether the mask covers the grid of points (S, 2) along x and y: (S, S)."""
    cells = np.array(mask.shape[::-1])
    x, y = np.clip((points - box[:2]) / (box[2:] - box[:2]) * cells, 0, cells - 1).astype(int).T
    covered: npt.NDArray[np.bool_] = mask[np.ix_(y, x)] >= 0.5
    return covered
