"""The overlap of two label images of one grid: shared pixels of every pair of labels, and the cost of matching them."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import as_labels, choice, describe, device_of, narrow_labels, same_shape, where
from .._compile import Cuda
from . import cuda, tables
from .results import OverlapCounts, OverlapStack

__all__ = ["OverlapCounts", "OverlapStack", "overlap_cost", "overlap_counts", "overlap_counts_stack"]

Floats = npt.NDArray[np.float64]


def overlap_counts(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> OverlapCounts:
    """Count the pixels that each label of one image shares with each label of another.

    Parameters
    ----------
    a, b : (Y, X) or (Z, Y, X), of one shape, any integer type, not negative. 0 is background. NumPy, or both CuPy.

    Returns
    -------
    OverlapCounts: sparse, the pairs that occur; arrays of the kind that came. Independent of the number of threads.

    Raises
    ------
    TypeError, ValueError : not integer, negative, not two- or three-dimensional, or of different shapes.
    """
    device = device_of(a=a, b=b)
    grid_a, grid_b = _as_label_image("a", a, device), _as_label_image("b", b, device)
    same_shape("b", grid_b, "a", grid_a)
    if grid_a.dtype != grid_b.dtype:
        with where(grid_a):
            grid_a, grid_b = grid_a.astype(np.int64, copy=False), grid_b.astype(np.int64, copy=False)
    if device is not None:
        lines = 1, math.prod(grid_a.shape[:-1]), grid_a.shape[-1]
        found = _on_device(device, grid_a.reshape(lines), grid_b.reshape(lines), "overlap_counts")
    else:
        found = tables.count_overlaps(grid_a.reshape(1, -1), grid_b.reshape(1, -1))
    if found is not None:
        return found.rows
    for name, grid in (("a", grid_a), ("b", grid_b)):
        as_labels(name, grid, grid.ndim, device=device)
    raise AssertionError("a negative label was met, then none found")


def overlap_counts_stack(labels: npt.NDArray[Any], *, step: int = 1) -> OverlapStack:
    """Count the pixels that each label of every slice of a stack shares with each label of the slice `step` further on.

    Parameters
    ----------
    labels : (Z, Y, X), any integer type, not negative. 0 is background. Every slice may have its own numbers. NumPy or
             CuPy.
    step   : distance in slices of the two that are compared, at least 1.

    Returns
    -------
    OverlapStack: a sequence of Z - step OverlapCounts (none, if there are fewer slices). Number z is that of slices z
    and z + step, the same as `overlap_counts` gives. Independent of the number of threads.

    Raises
    ------
    TypeError, ValueError : not integer, negative, not three-dimensional; a step below 1.
    """
    device = device_of(labels=labels)
    stack = narrow_labels(as_labels("labels", labels, look=False, device=device))
    if isinstance(step, bool) or not isinstance(step, int | np.integer) or step < 1:
        raise ValueError(f"step: must be an integer of at least 1; got {describe(step)}.")
    earlier, later = stack[: -int(step)], stack[int(step) :]
    if device is not None:
        found = _on_device(device, earlier, later, "overlap_counts_stack")
    else:
        pixels = len(earlier), math.prod(stack.shape[1:])
        found = tables.count_overlaps(earlier.reshape(pixels), later.reshape(pixels))
    if found is not None:
        return found
    as_labels("labels", stack, device=device)
    raise AssertionError("a negative label was met, then none found")


def overlap_cost(
    a: npt.NDArray[Any] | OverlapCounts, b: npt.NDArray[Any] | None = None, *, measure: str = "iou"
) -> Floats:
    """The cost of matching each label of one image to each label of another: 1 minus their overlap.

    Parameters
    ----------
    a, b    : two label images as for `overlap_counts`, or its result alone.
    measure : "iou", shared pixels over the pixels of either (intersection over union); or
              "containment", shared pixels over the pixels of the smaller one.

    Returns
    -------
    (A, B) float64 in 0..1, dense, for `scipy.optimize.linear_sum_assignment`: row i is the i-th label of the first
    image in ascending order (`OverlapCounts.labels_a`), column j of the second. 1 where nothing is shared. A CuPy array
    if the images are.

    Raises
    ------
    TypeError, ValueError : as `overlap_counts`; an unknown measure.
    """
    choice("measure", measure, ("iou", "containment"))
    if isinstance(a, OverlapCounts):
        if b is not None:
            raise TypeError(
                f"b: must be left out beside an OverlapCounts; got {describe(b)}. Give two images or counts."
            )
        overlap = a
    elif b is None:
        raise TypeError("b: must be a label image; got None. Give two images, or one OverlapCounts.")
    else:
        overlap = overlap_counts(a, b)
    device = device_of(ids_a=overlap.ids_a)
    if device is not None:  # a table without pixels
        overlap = OverlapCounts(*(device.fetch(getattr(overlap, field.name)) for field in fields(overlap)))
    row = np.searchsorted(overlap.labels_a, overlap.ids_a)
    column = np.searchsorted(overlap.labels_b, overlap.ids_b)
    size_a, size_b = overlap.size_a[row], overlap.size_b[column]
    whole = size_a + size_b - overlap.count if measure == "iou" else np.minimum(size_a, size_b)
    cost = np.ones((overlap.labels_a.size, overlap.labels_b.size))
    cost[row, column] = 1 - overlap.count / whole
    return cost if device is None else device.send(cost)


def _as_label_image(name: str, value: Any, device: Cuda | None) -> npt.NDArray[np.int32] | npt.NDArray[np.int64]:
    image = as_labels(name, value, 2 if getattr(value, "ndim", 3) == 2 else 3, look=False, device=device)
    return narrow_labels(image, name)


def _on_device(device: Cuda, images_a: Any, images_b: Any, what: str) -> OverlapStack | None:
    """The result of each pair of images (P, L, X) of a GPU; None where a label is negative."""
    parts = []
    for first in range(0, len(images_a), cuda.BATCH):
        last = first + cuda.BATCH
        made = cuda.count_overlaps(device, images_a[first:last], images_b[first:last], what)
        if made is None:
            return None
        rows, starts = made
        parts.append(OverlapStack([(OverlapCounts(**rows), starts)]))
    return OverlapStack.of(parts)


def _warmup() -> None:
    labels = np.ones((2, 2), np.int32)
    overlap_counts(labels, labels)
    noise = np.arange(3 * 200 * 200, dtype=np.int32).reshape(3, 200, 200) % 7
    overlap_counts(noise[0], noise[1])
    overlap_counts_stack(noise)
