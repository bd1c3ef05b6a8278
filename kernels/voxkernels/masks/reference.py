"""Pasting masks, slowly and obviously: one full image for each detection, painted in order of score."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import as_array, describe

FARTHEST = 2**31


def paste_masks(
    masks: npt.NDArray[Any],
    boxes: npt.NDArray[Any],
    scores: npt.NDArray[Any],
    shape: tuple[int, int],
    *,
    threshold: float = 0.5,
) -> npt.NDArray[np.int32]:
    """As `voxkernels.paste_masks`."""
    grids = as_array("masks", masks, 3, "(N, H, W)")
    corners = as_array("boxes", boxes, 2, "(N, 4)")
    ranks = as_array("scores", scores, 1)
    for name, array in (("masks", grids), ("boxes", corners), ("scores", ranks)):
        if array.dtype.kind != "f":
            raise TypeError(f"{name}: must be of a floating-point type; got {describe(array)}.")
    n = len(grids)
    if grids.shape[1] == 0 or grids.shape[2] == 0:
        raise ValueError(f"masks: must have at least one pixel; got {describe(grids)}.")
    if corners.shape != (n, 4):
        raise ValueError(f"boxes: must be ({n}, 4), one row for each mask; got {describe(corners)}.")
    if not np.all(np.abs(corners) < FARTHEST):
        raise ValueError("boxes: must be finite and below 2**31 pixels; got other values. Drop those detections.")
    if ranks.shape != (n,):
        raise ValueError(f"scores: must be ({n},), one for each mask; got {describe(ranks)}.")
    if not np.all(np.isfinite(ranks)):
        raise ValueError("scores: must be finite; got nan or inf. Drop those detections.")
    sides = np.asarray(shape)
    if sides.shape != (2,) or sides.dtype.kind not in "iu" or sides.min() < 1 or math.prod(map(int, sides)) >= 2**62:
        raise ValueError(f"shape: must be two positive integers (Y, X); got {describe(shape)}.")
    number = isinstance(threshold, int | float | np.integer | np.floating) and not isinstance(threshold, bool)
    if not (number and 0 < threshold <= 1):
        raise ValueError(f"threshold: must be a number above 0 and at most 1; got {describe(threshold)}.")

    n_y, n_x = int(sides[0]), int(sides[1])
    labels = np.zeros((n_y, n_x), np.int32)
    best = np.full((n_y, n_x), -np.inf)
    for detection in range(n):
        painted = _paste(grids[detection], corners[detection], n_y, n_x) >= threshold
        better = painted & (ranks[detection] > best)
        labels[better] = detection + 1
        best[better] = ranks[detection]
    return labels


def _paste(mask: npt.NDArray[Any], box: npt.NDArray[Any], n_y: int, n_x: int) -> npt.NDArray[np.float64]:
    """One detection's mask on the whole image, 0 outside its box."""
    framed = np.pad(mask.astype(np.float64), 1)
    image = np.zeros((n_y, n_x))
    first_x, count_x = _side(box[0], box[2], mask.shape[1])
    first_y, count_y = _side(box[1], box[3], mask.shape[0])
    for y in range(max(first_y, 0), min(first_y + count_y, n_y)):
        near_y, far_y, part_y = _sample(y - first_y, count_y, framed.shape[0])
        for x in range(max(first_x, 0), min(first_x + count_x, n_x)):
            near_x, far_x, part_x = _sample(x - first_x, count_x, framed.shape[1])
            near = (1 - part_y) * framed[near_y, near_x] + part_y * framed[far_y, near_x]
            far = (1 - part_y) * framed[near_y, far_x] + part_y * framed[far_y, far_x]
            image[y, x] = (1 - part_x) * near + part_x * far
    return image


def _side(low: Any, high: Any, n_mask: int) -> tuple[int, int]:
    """First pixel of a box side grown with its mask's frame, and how many; in the precision of the box."""
    number = low.dtype.type
    half = (high - low) * number(0.5) * number((n_mask + 2) / n_mask)
    middle = (high + low) * number(0.5)
    first = int(middle - half)
    return first, max(int(middle + half) - first + 1, 1)


def _sample(pixel: int, count: int, n: int) -> tuple[int, int, float]:
    """Which two of `n` framed mask pixels a pixel of a box lies between, and the weight of the second."""
    position = max((pixel + 0.5) * (n / count) - 0.5, 0.0)
    near = min(int(position), n - 1)
    return near, min(near + 1, n - 1), position - near
