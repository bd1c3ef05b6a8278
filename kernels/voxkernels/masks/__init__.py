"""From the boxes and small masks of an instance-segmentation network to one label image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import as_array, describe, device_of, where
from .._compile import Cuda
from . import cpu, cuda

BANDS = 64
FARTHEST = 2**31
"""Boxes lie within this many pixels of the origin."""


def paste_masks(
    masks: npt.NDArray[Any],
    boxes: npt.NDArray[Any],
    scores: npt.NDArray[Any],
    shape: tuple[int, int],
    *,
    threshold: float = 0.5,
) -> npt.NDArray[np.int32]:
    """Paste the masks of N detections into one label image. The same pixels as torchvision's `paste_masks_in_image`.

    The arrays are NumPy's or all CuPy's.

    Parameters
    ----------
    masks     : (N, H, W) floating point, 0..1; H = W = 28 for Mask R-CNN. Other types than float32 become float64.
    boxes     : (N, 4) floating point x0, y0, x1, y1 in pixels. They may reach out of the image.
    scores    : (N,) floating point.
    shape     : (Y, X) of the label image.
    threshold : a pixel belongs to a mask where its interpolated value is at least this, above 0 and at most 1.

    Returns
    -------
    (Y, X) int32, a CuPy array if the arguments are: i + 1 where detection i is. Where masks overlap the higher score
    wins, at equal scores the lower index. 0 elsewhere. Boxes are grown in their own precision, masks interpolated in
    float64. Independent of the number of threads, to the bit.

    Raises
    ------
    TypeError, ValueError : wrong type, shape or number of masks, boxes and scores; boxes or scores not finite; an
    empty shape; a threshold out of range.
    """
    device = device_of(masks=masks, boxes=boxes, scores=scores)
    grids = _as_floats("masks", masks, 3, "(N, H, W)", device)
    n, mask_y, mask_x = grids.shape
    if mask_y == 0 or mask_x == 0:
        raise ValueError(f"masks: must have at least one pixel; got {describe(grids)}.")
    corners = _as_floats("boxes", boxes, 2, "(N, 4)", device)
    if corners.shape != (n, 4):
        raise ValueError(f"boxes: must be ({n}, 4), one row for each mask; got {describe(corners)}.")
    if device is None:
        _check_boxes(bool(np.all(np.abs(corners) < FARTHEST)))
    ranks = _as_floats("scores", scores, 1, "(N,)", device)
    if ranks.shape != (n,):
        raise ValueError(f"scores: must be ({n},), one for each mask; got {describe(ranks)}.")
    if device is None:
        _check_scores(bool(np.all(np.isfinite(ranks))))
    size = _as_shape(shape)
    number = isinstance(threshold, int | float | np.integer | np.floating) and not isinstance(threshold, bool)
    if not (number and 0 < threshold <= 1):
        raise ValueError(f"threshold: must be a number above 0 and at most 1; got {describe(threshold)}.")

    if device is not None:
        image, trouble = cuda.paint_masks(device, grids, corners, ranks, float(threshold), size)
        _check_boxes(not trouble & cuda.BAD_BOX)
        _check_scores(not trouble & cuda.BAD_SCORE)
        return image  # type: ignore[no-any-return]
    best_first = np.argsort(-ranks, kind="stable")
    pixels = _pixel_boxes(corners, mask_y, mask_x)
    labels = np.zeros(size, np.int32)
    rows = np.zeros((min(BANDS, size[0]), mask_x + 2), np.float64)
    cells = np.empty((n, mask_x + 3), np.int64)
    cpu.paint_masks(grids, pixels, best_first[::-1].copy(), float(threshold), rows, cells, labels)
    return labels


def _check_boxes(good: bool) -> None:
    if not good:
        raise ValueError("boxes: must be finite and below 2**31 pixels; got other values. Drop those detections.")


def _check_scores(good: bool) -> None:
    if not good:
        raise ValueError("scores: must be finite; got nan or inf. Drop those detections.")


def _pixel_boxes(boxes: npt.NDArray[Any], mask_y: int, mask_x: int) -> npt.NDArray[np.int64]:
    """Boxes (N, 4) grown with the frame of the masks: first pixel x, y, and count of pixels along x, y (at least 1)."""
    low, high = boxes[:, :2], boxes[:, 2:]
    grown = np.array([(mask_x + 2) / mask_x, (mask_y + 2) / mask_y], boxes.dtype)
    half = (high - low) * boxes.dtype.type(0.5) * grown
    middle = (high + low) * boxes.dtype.type(0.5)
    first = (middle - half).astype(np.int64)
    last = (middle + half).astype(np.int64)
    return np.concatenate([first, np.maximum(last - first + 1, 1)], axis=1)


def _as_floats(name: str, value: Any, ndim: int, axes: str, device: Cuda | None) -> npt.NDArray[Any]:
    array = as_array(name, value, ndim, axes, device=device)
    if array.dtype.kind != "f":
        raise TypeError(f"{name}: must be of a floating-point type; got {describe(array)}.")
    with where(array):
        return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def _as_shape(shape: Any) -> tuple[int, int]:
    sides = np.asarray(shape)
    if sides.shape != (2,) or sides.dtype.kind not in "iu" or sides.min() < 1 or math.prod(map(int, sides)) >= 2**62:
        raise ValueError(f"shape: must be two positive integers (Y, X); got {describe(shape)}.")
    return int(sides[0]), int(sides[1])


def _warmup() -> None:
    boxes = np.array([[0.0, 0.0, 2.0, 2.0]])
    paste_masks(np.ones((1, 2, 2), np.float32), boxes, np.ones(1), (4, 4))
