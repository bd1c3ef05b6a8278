"""Overlap counts, slowly and obviously: a dictionary, one pixel at a time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import as_labels, choice, describe, same_shape
from .results import OverlapCounts, OverlapStack


def overlap_counts(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> OverlapCounts:
    """As `voxkernels.overlap_counts`."""
    grid_a = as_labels("a", a, 2 if getattr(a, "ndim", 3) == 2 else 3)
    grid_b = as_labels("b", b, 2 if getattr(b, "ndim", 3) == 2 else 3)
    same_shape("b", grid_b, "a", grid_a)
    for name, grid in (("a", grid_a), ("b", grid_b)):
        if grid.size and int(grid.max()) >= 2**63:
            raise ValueError(f"{name}: must be below 2**63; got {int(grid.max())}. Renumber them from 1.")
    pixels = list(zip(grid_a.ravel().tolist(), grid_b.ravel().tolist(), strict=True))
    shared = sorted(Counter(pair for pair in pixels if pair[0] and pair[1]).items())
    sizes_a = sorted(Counter(label for label, _ in pixels if label).items())
    sizes_b = sorted(Counter(label for _, label in pixels if label).items())
    return OverlapCounts(
        ids_a=_column([pair[0] for pair, _ in shared]),
        ids_b=_column([pair[1] for pair, _ in shared]),
        count=_column([count for _, count in shared]),
        labels_a=_column([label for label, _ in sizes_a]),
        size_a=_column([size for _, size in sizes_a]),
        labels_b=_column([label for label, _ in sizes_b]),
        size_b=_column([size for _, size in sizes_b]),
    )


def overlap_counts_stack(labels: npt.NDArray[Any], *, step: int = 1) -> OverlapStack:
    """As `voxkernels.overlap_counts_stack`."""
    stack = as_labels("labels", labels)
    if isinstance(step, bool) or not isinstance(step, int | np.integer) or step < 1:
        raise ValueError(f"step: must be an integer of at least 1; got {describe(step)}.")
    return OverlapStack.of(overlap_counts(a, b) for a, b in zip(stack[:-step], stack[step:], strict=True))


def overlap_cost(
    a: npt.NDArray[Any] | OverlapCounts, b: npt.NDArray[Any] | None = None, *, measure: str = "iou"
) -> npt.NDArray[np.float64]:
    """As `voxkernels.overlap_cost`."""
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
    shared = {(int(i), int(j)): int(n) for i, j, n in zip(overlap.ids_a, overlap.ids_b, overlap.count, strict=True)}
    cost = np.ones((overlap.labels_a.size, overlap.labels_b.size))
    for row, (label_a, size_a) in enumerate(zip(overlap.labels_a, overlap.size_a, strict=True)):
        for column, (label_b, size_b) in enumerate(zip(overlap.labels_b, overlap.size_b, strict=True)):
            n = shared.get((int(label_a), int(label_b)), 0)
            whole = int(size_a) + int(size_b) - n if measure == "iou" else min(int(size_a), int(size_b))
            cost[row, column] = 1 - n / whole
    return cost


def _column(values: list[int]) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)
