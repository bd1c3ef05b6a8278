"""The overlap of two label images of one grid: shared pixels of every pair of labels, and the cost of matching them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import as_labels, choice, describe, narrow_labels, same_shape
from . import cpu

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CHUNKS = 16
FIRST_SLOTS = 1 << 12


@dataclass(frozen=True)
class OverlapCounts:
    """Shared pixels of two label images. K overlapping pairs, A and B labels; background 0 is in none of them.

    ids_a, ids_b, count : (K,) int64, every pair that shares a pixel, ascending by (ids_a, ids_b).
    labels_a, size_a    : (A,) int64, every label of the first image, ascending, and its pixels.
    labels_b, size_b    : (B,) int64, the same for the second.
    """

    ids_a: Ints
    ids_b: Ints
    count: Ints
    labels_a: Ints
    size_a: Ints
    labels_b: Ints
    size_b: Ints


def overlap_counts(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> OverlapCounts:
    """Count the pixels that each label of one image shares with each label of another.

    Parameters
    ----------
    a, b : (Y, X) or (Z, Y, X), of one shape, any integer type, not negative. 0 is background.

    Returns
    -------
    OverlapCounts: sparse, the pairs that occur. Independent of the number of threads.

    Raises
    ------
    TypeError, ValueError : not integer, negative, not two- or three-dimensional, or of different shapes.
    """
    grid_a, grid_b = _as_label_image("a", a), _as_label_image("b", b)
    same_shape("b", grid_b, "a", grid_a)
    if grid_a.dtype != grid_b.dtype:
        grid_a, grid_b = grid_a.astype(np.int64, copy=False), grid_b.astype(np.int64, copy=False)
    lines = math.prod(grid_a.shape[:-1]), grid_a.shape[-1]
    lines_a, lines_b = grid_a.reshape(lines), grid_b.reshape(lines)

    stops = np.empty((CHUNKS, lines[1] + 1), np.int64)
    slots = FIRST_SLOTS
    while True:
        tables = np.zeros((CHUNKS, slots, 3), np.int64)
        found = np.zeros(CHUNKS, np.int64)
        cpu.count_pairs(lines_a, lines_b, stops, tables, found)
        if found.min() >= 0:
            break
        slots *= 4
    ids_a, ids_b, count = _add_equal_pairs(tables[tables[:, :, 2] > 0])
    labels_a, size_a = _add_equal(ids_a, count)
    labels_b, size_b = _add_equal(ids_b, count)
    both = (ids_a > 0) & (ids_b > 0)
    return OverlapCounts(ids_a[both], ids_b[both], count[both], labels_a, size_a, labels_b, size_b)


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
    image in ascending order (`OverlapCounts.labels_a`), column j of the second. 1 where nothing is shared.

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
    row = np.searchsorted(overlap.labels_a, overlap.ids_a)
    column = np.searchsorted(overlap.labels_b, overlap.ids_b)
    size_a, size_b = overlap.size_a[row], overlap.size_b[column]
    whole = size_a + size_b - overlap.count if measure == "iou" else np.minimum(size_a, size_b)
    cost = np.ones((overlap.labels_a.size, overlap.labels_b.size))
    cost[row, column] = 1 - overlap.count / whole
    return cost


def _as_label_image(name: str, value: Any) -> npt.NDArray[np.int32] | npt.NDArray[np.int64]:
    return narrow_labels(as_labels(name, value, 2 if getattr(value, "ndim", 3) == 2 else 3))


def _add_equal_pairs(rows: Ints) -> tuple[Ints, Ints, Ints]:
    """Sort rows (a, b, count) by pair and add the counts of equal pairs."""
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    starts = np.flatnonzero(np.any(np.diff(rows[:, :2], axis=0, prepend=-1), axis=1))
    count = np.add.reduceat(rows[:, 2], starts) if starts.size else rows[:, 2]
    return rows[starts, 0], rows[starts, 1], count


def _add_equal(ids: Ints, count: Ints) -> tuple[Ints, Ints]:
    """The ids that occur, ascending without 0, and the sum of their counts."""
    labels, row = np.unique(ids, return_inverse=True)
    size = np.zeros(labels.size, np.int64)
    np.add.at(size, row, count)
    return labels[labels > 0], size[labels > 0]


def _warmup() -> None:
    labels = np.ones((2, 2), np.int32)
    overlap_counts(labels, labels)
