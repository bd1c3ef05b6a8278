"""From overlapping detections to one label image in which every particle is one connected, filled region.

1. *Paste* (`voxkernels.paste_masks`): where masks overlap the higher score has the pixel.
2. *Judge* the largest connected part (face neighbours) of what is left of each mask. Below `MIN_SHARE` of the mask it
   is a duplicate of better detections, below `min_pixels` it is too small. Both are dropped, and what they covered is
   pasted again. This is the greedy choice by score: a mask is judged beside the better ones that stay.
3. *Scraps*, the other parts of a mask, become background.
4. *Fill*: what a particle encloses is the particle's, other particles included; the largest first.

A mask is a grid of probabilities over its box. `paste_masks`, like torchvision, cuts boxes to whole pixels towards
zero, which moves outlines by up to a pixel, and by half a pixel on average; so masks are first resampled to a grid that
whole pixels fit. Pixel edges are at integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach import device

from .watershed import Ints, Labels, Mask, at_the_edge, number_by_first_voxel

MIN_SHARE = 0.5
"""Of its mask, that the largest visible part of a particle must be."""
GRID = 56
"""Cells along each side of a resampled mask."""

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Detections:
    """What the network finds on a slice of shape (Y, X), best score first.

    boxes : (N, 4) float64, x0, y0, x1, y1 in pixels of the slice, pixel edges at integers; may reach out of it.
    scores : (N,) float32, 0..1.
    masks : (N, 28, 28) float32 probabilities, stretched over the boxes; nothing of a mask lies outside its box.
    shape : (Y, X).
    pieces : (N,) bool, those that are cut by a tile's border: part of a particle larger than the overlap. None: none.
    """

    boxes: Floats
    scores: Floats
    masks: Floats
    shape: tuple[int, int]
    pieces: Mask | None = None

    def above(self, score: float) -> Detections:
        """Those that score at least so much."""
        kept = self.scores >= score
        pieces = None if self.pieces is None else self.pieces[kept]
        return Detections(self.boxes[kept], self.scores[kept], self.masks[kept], self.shape, pieces)


@dataclass(frozen=True, eq=False)
class Found:
    """What became of the detections.

    scores : (n,) float32 of the particles 1..n.
    counts : for the run record. `detections`; of these `pieces` (at a tile's border), `duplicates`, `small` and
        `enclosed` (by another particle; all three dropped) and `particles`, the rest; `contested_pixels`, which two or
        more masks of particles cover; `scrap_pixels`, taken away, and `filled_pixels`, added.
    """

    scores: Floats
    counts: dict[str, int]


def to_labels(detections: Detections, *, min_pixels: float = 1.0, min_share: float = MIN_SHARE) -> tuple[Labels, Found]:
    """The label image of a slice.

    Parameters
    ----------
    detections : all of them are used; see `Detections.above`.
    min_pixels : smallest particle. One that the slice's edge cuts may be smaller.
    min_share : 0 to 1, of its mask that must be visible.

    Returns
    -------
    labels : (Y, X) int32: 0, and the particles 1..n in the order of their first pixel.
    found : scores and counts.
    """
    order = np.argsort(-detections.scores, kind="stable")
    masks, boxes = on_whole_pixels(detections)
    masks, boxes, scores = masks[order], boxes[order], detections.scores[order]
    area = _areas(masks, boxes, detections.shape)
    kept = np.arange(len(scores))
    pieces = 0 if detections.pieces is None else int(np.count_nonzero(detections.pieces))
    counts = {"detections": len(scores), "pieces": pieces, "duplicates": 0, "small": 0}
    while True:
        labels = device.paste_masks(masks[kept], boxes[kept], scores[kept], detections.shape)
        scraps, size = _scraps(labels, len(kept))
        cut = at_the_edge(labels, len(kept) + 1)[1:]
        hidden = size < min_share * area[kept]
        failing = hidden | (size == 0) | ((size < min_pixels) & ~cut)
        if not failing.any():
            break
        dropped = failing & ~_beside_better(failing, boxes[kept])
        counts["duplicates"] += int(np.count_nonzero(dropped & hidden))
        counts["small"] += int(np.count_nonzero(dropped & ~hidden))
        kept = kept[~dropped]

    back = kept[::-1]
    lowest = device.paste_masks(masks[back], boxes[back], -scores[back], detections.shape)
    contested = np.count_nonzero(labels + lowest != np.where(labels > 0, len(kept) + 1, 0))
    labels[scraps] = 0
    filled = _fill(labels)
    numbered = number_by_first_voxel(labels)
    n = int(numbered.max(initial=0))
    before = np.zeros(n + 1, np.int64)
    before[numbered.ravel()] = labels.ravel()
    counts |= {
        "enclosed": len(kept) - n,
        "particles": n,
        "contested_pixels": int(contested),
        "scrap_pixels": int(np.count_nonzero(scraps)),
        "filled_pixels": filled,
    }
    return numbered, Found(scores[kept[before[1:] - 1]], counts)


def on_whole_pixels(detections: Detections) -> tuple[Floats, Floats]:
    """Masks (N, GRID, GRID) and boxes (N, 4) that `voxkernels.paste_masks` pastes where the detections lie.

    It grows a box by the frame of its mask and cuts it to whole pixels. So each mask is resampled to the grid of whole
    pixels around its box, and the box chosen so that nothing is cut.
    """
    cells = detections.masks.shape[1]
    boxes = detections.boxes.astype(np.float64)
    low, high = boxes[:, :2, None], boxes[:, 2:, None]
    size = np.maximum(high - low, 1e-6)
    first, stop = np.floor(low - size / cells - 0.5), np.ceil(high + size / cells + 0.5)
    step = (stop - first) / (GRID + 2)
    centre = first + step * (np.arange(GRID) + 1.5)  # of the new cells, (N, 2, GRID)
    position = (centre - low) / size * cells - 0.5
    nearness = np.maximum(1 - np.abs(np.clip(position, 0, cells - 1)[..., None] - np.arange(cells)), 0)
    x, y = np.moveaxis(nearness, 1, 0)
    masks = y @ detections.masks.astype(np.float64) @ x.transpose(0, 2, 1)
    inside_x, inside_y = np.moveaxis(
        0.5 + np.minimum(centre - low, high - centre) / step, 1, 0
    )  # 0.5 on the box's edge
    masks = np.minimum(masks, np.minimum(inside_y[:, :, None], inside_x[:, None, :]))

    first, last = first[:, :, 0], stop[:, :, 0] - 1
    low, high = first + np.where(first < 0, -0.5, 0.5), last + np.where(last < 0, -0.5, 0.5)  # cut towards 0
    middle, half = (low + high) / 2, (high - low) / 2 * GRID / (GRID + 2)
    return masks.astype(np.float32), np.concatenate([middle - half, middle + half], axis=1)


def _areas(masks: Floats, boxes: Floats, shape: tuple[int, int]) -> Floats:
    """Pixels of each mask within the slice."""
    n = masks.shape[1]
    inside = []
    for axis, length in ((0, shape[1]), (1, shape[0])):
        low, high = boxes[:, axis, None], boxes[:, axis + 2, None]
        centre = low + (high - low) * (np.arange(n) + 0.5) / n
        inside.append((centre > 0) & (centre < length))
    x, y = inside
    covered = np.count_nonzero((masks >= 0.5) & y[:, :, None] & x[:, None, :], axis=(1, 2))
    area: Floats = covered * np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) / n**2
    return area


def _scraps(labels: Labels, n: int) -> tuple[Mask, Ints]:
    """Pixels outside the largest part of their label, and the pixels (n,) in the largest part of labels 1..n."""
    parts, m = device.label(labels[None], connectivity=6)
    size = np.bincount(parts.ravel(), minlength=m + 1)
    owner = np.zeros(m + 1, np.int64)
    owner[parts.ravel()] = labels.ravel()
    order = 1 + np.lexsort((-size[1:], owner[1:]))
    main = order[np.flatnonzero(np.diff(owner[order], prepend=0))]
    scrap = np.ones(m + 1, bool)
    scrap[main] = scrap[0] = False
    largest = np.zeros(n, np.int64)
    largest[owner[main] - 1] = size[main]
    return scrap[parts[0]], largest


def _beside_better(failing: Mask, boxes: Floats) -> Mask:
    """Which boxes overlap that of a better (earlier) failing one: without it, more of them may be visible."""
    waits = np.zeros(len(failing), bool)
    (which,) = np.nonzero(failing)
    x0, y0, x1, y1 = boxes[which].T
    for k in range(1, len(which)):
        waits[which[k]] = bool(((x0[:k] < x1[k]) & (x1[:k] > x0[k]) & (y0[:k] < y1[k]) & (y1[:k] > y0[k])).any())
    return waits


def _fill(labels: Labels) -> int:
    """Give each particle what it encloses, in place; how many pixels were background before."""
    from scipy.ndimage import binary_fill_holes, find_objects

    boxes = find_objects(labels)
    size = np.bincount(labels.ravel(), minlength=len(boxes) + 1)
    filled = 0
    for k in np.argsort(-size[1:], kind="stable") + 1:
        if boxes[k - 1] is None:
            continue
        window = labels[boxes[k - 1]]
        own = window == k
        enclosed = binary_fill_holes(own) & ~own
        filled += int(np.count_nonzero(enclosed & (window == 0)))
        window[enclosed] = k
    return filled
