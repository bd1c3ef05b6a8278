"""The overlap of two label images of one grid: shared pixels of every pair of labels, and the cost of matching them."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, fields
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from .._arrays import as_labels, choice, describe, device_of, narrow_labels, same_shape, where
from .._compile import Cuda
from . import cpu, cpu_lists, cuda

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CHUNKS = 16
"""Into how many chunks the images of a call are cut together, at least; each has a table of its own."""
BATCH = 64
SAMPLE = 4096
CELLS = 16
"""Up to how many cells for each pixel a table of all pairs of labels may have."""
FIRST_SLOTS, FEWEST_SLOTS = 1 << 12, 1 << 8
"""Slots for the pairs of a chunk at first: one for 16 pixels, but no more than the first number and no fewer than the
second."""
ROOM = 1 << 27
"""Bytes for the pairs of all images that are counted at once in tables of all pairs."""
SPARSE = 1 << 10
"""From how many numbers for each pair that was counted labels are renumbered."""


@dataclass(slots=True)  # frozen, it would take three times as long to make; a stack has one for each pair of slices
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
        made = cuda.count_overlaps(device, grid_a.reshape(lines), grid_b.reshape(lines), "overlap_counts")
        if made is not None:
            return OverlapCounts(**made[0])
    else:
        found = _count(grid_a.reshape(1, -1), grid_b.reshape(1, -1))
        if found is not None:
            return found[0]
    for name, grid in (("a", grid_a), ("b", grid_b)):
        as_labels(name, grid, grid.ndim, device=device)
    raise AssertionError("a negative label was met, then none found")


def overlap_counts_stack(labels: npt.NDArray[Any], *, step: int = 1) -> list[OverlapCounts]:
    """Count the pixels that each label of every slice of a stack shares with each label of the slice `step` further on.

    Parameters
    ----------
    labels : (Z, Y, X), any integer type, not negative. 0 is background. Every slice may have its own numbers. NumPy or
             CuPy.
    step   : distance in slices of the two that are compared, at least 1.

    Returns
    -------
    Z - step OverlapCounts (none, if there are fewer slices): number z is that of slices z and z + step, the same as
    `overlap_counts` gives. Independent of the number of threads.

    Raises
    ------
    TypeError, ValueError : not integer, negative, not three-dimensional; a step below 1.
    """
    device = device_of(labels=labels)
    stack = narrow_labels(as_labels("labels", labels, look=False, device=device))
    if isinstance(step, bool) or not isinstance(step, int | np.integer) or step < 1:
        raise ValueError(f"step: must be an integer of at least 1; got {describe(step)}.")
    found: list[OverlapCounts] = []
    batch = BATCH if device is None else cuda.BATCH
    for z in range(0, len(stack) - int(step), batch):
        first, last = z, min(z + batch, len(stack) - int(step))
        earlier, later = stack[first:last], stack[first + int(step) : last + int(step)]
        if device is None:
            pixels = len(earlier), math.prod(stack.shape[1:])
            parts = _count(earlier.reshape(pixels), later.reshape(pixels))
        else:
            made = cuda.count_overlaps(device, earlier, later, "overlap_counts_stack")
            parts = None if made is None else [OverlapCounts(**part) for part in made]
        if parts is None:
            as_labels("labels", stack, device=device)
            raise AssertionError("a negative label was met, then none found")
        found += parts
    return found


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


def _count(images_a: npt.NDArray[Any], images_b: npt.NDArray[Any], short: bool = False) -> list[OverlapCounts] | None:
    """The result of each pair of images (P, N pixels); None where a label is negative. `short`: all runs are short."""
    n_tables = len(images_a) * -(-CHUNKS // len(images_a))
    cells, may_give_up = np.empty((n_tables, 0, 0), np.uint32), images_a.shape[1] < 2**32
    if short:
        cells, may_give_up = _cells(images_a, images_b, cells), False
    pixels = images_a.shape[1] * len(images_a) // n_tables
    slots = min(FIRST_SLOTS, max(FEWEST_SLOTS, 1 << (pixels // 16).bit_length()))
    while True:
        n_tables = len(cells)
        n_chunks = n_tables // len(images_a)
        pairs, found = np.empty((n_tables, slots // 2, 3), np.int64), np.empty(n_tables, np.int64)
        cpu.count_pairs(images_a, images_b, n_chunks, pairs, cells, found, may_give_up)
        lowest = found.min(initial=0)
        if lowest >= 0:
            break
        if lowest == -2:
            return None
        if lowest == -1:
            slots *= 4
            continue
        may_give_up = False
        if len(images_a) == 1:
            cells = _cells(images_a, images_b, cells)
        elif 2 * np.count_nonzero(found == -3) > n_tables:
            return _count_short(images_a, images_b)
    if cells.size and not found.any():
        size_a, size_b, n = cpu_lists.sum_cells(cells)
        labels_a, labels_b = np.flatnonzero(size_a[1:]) + 1, np.flatnonzero(size_b[1:]) + 1
        ids_a, ids_b, count = cpu_lists.list_cells(cells, 1, n)
        return [OverlapCounts(ids_a, ids_b, count, labels_a, size_a[labels_a], labels_b, size_b[labels_b])]
    columns, begin, top = cpu_lists.list_pairs(pairs, n_chunks, found)
    if cells.size:  # and some labels beyond them
        cpu_lists.sum_cells(cells)
        columns = np.concatenate([columns, cpu_lists.list_cells(cells, 0, np.count_nonzero(cells[0]))], axis=1)
        begin[1], top = columns.shape[1], np.maximum(top, cells.shape[1:])
    return _join(columns, begin, top)


def _count_short(images_a: npt.NDArray[Any], images_b: npt.NDArray[Any]) -> list[OverlapCounts] | None:
    """As `_count`, of images whose runs are short: one table of all pairs for each thread, image after image."""
    n_images, n_pixels = images_a.shape
    parts: list[OverlapCounts | None] = [None] * n_images
    n_a, n_b = _n_labels(images_a), _n_labels(images_b)
    most = min(n_pixels, (n_a - 1) * (n_b - 1)) + 1
    at_once, n_threads = ROOM // (24 * most), numba.get_num_threads()
    if 0 < n_a * n_b <= CELLS * n_pixels and at_once >= n_threads:
        cells = np.empty((n_threads, n_a, n_b), np.uint32)
        for z in range(0, n_images, at_once):
            group = images_a[z : z + at_once], images_b[z : z + at_once]
            parts[z : z + at_once] = _list_images(*group, cells, most)
    for z, part in enumerate(parts):
        if part is None:  # room for its pairs as they are found
            alone = _count(images_a[z : z + 1], images_b[z : z + 1], short=True)
            if alone is None:
                return None
            parts[z] = alone[0]
    return [part for part in parts if part]


def _list_images(
    images_a: npt.NDArray[Any],
    images_b: npt.NDArray[Any],
    cells: npt.NDArray[np.uint32],
    most: int,
) -> list[OverlapCounts | None]:
    """The result of each pair of images by tables of all pairs (T, A, B), scratch; None where labels are beyond."""
    pairs, n = np.empty((len(images_a), 3, most), np.int64), np.empty(len(images_a), np.int64)
    size_a, size_b = (np.empty((len(images_a), width), np.int64) for width in cells.shape[1:])
    cpu.count_images(images_a, images_b, cells, pairs, size_a, size_b, n)
    (of_a, begin_a), (of_b, begin_b) = cpu_lists.list_sizes(size_a), cpu_lists.list_sizes(size_b)
    return [
        OverlapCounts(*pairs[k, :, : n[k]], *of_a[:, slice(*ends_a)], *of_b[:, slice(*ends_b)]) if n[k] >= 0 else None
        for k, (ends_a, ends_b) in enumerate(zip(itertools.pairwise(begin_a), itertools.pairwise(begin_b), strict=True))
    ]


def _cells(
    image_a: npt.NDArray[Any], image_b: npt.NDArray[Any], none: npt.NDArray[np.uint32]
) -> npt.NDArray[np.uint32]:
    """Tables (T, A, B) of all pairs of the labels that a sample of one pair of images shows; `none` if too large."""
    n_a, n_b = (_n_labels(image) for image in (image_a, image_b))
    if not 0 < n_a * n_b <= CELLS * image_a.size:
        return none
    # one for each thread, if that is not more than to be added up
    n_tables = max(1, min(numba.get_num_threads(), 2 * image_a.size // (n_a * n_b)))
    return np.empty((n_tables, n_a, n_b), np.uint32)


def _n_labels(images: npt.NDArray[Any]) -> int:
    """One more than the largest label of a sample."""
    return int(images.ravel()[:: max(1, images.size // SAMPLE)].max(initial=0)) + 1


def _join(columns: Ints, begin: Ints, top: Ints) -> list[OverlapCounts]:
    """The result of each pair of images from columns (3, N) a, b, count, in which a pair may occur again.

    begin : (P + 1,), where those of each image begin. top : (2,), the largest a and b, or more.
    """
    n_images = begin.size - 1
    names_a, names_b = (
        _renumber(labels) if n_images * last > SPARSE * labels.size else None
        for labels, last in zip(columns[:2], top, strict=True)
    )
    of_a, of_b, pairs = (np.empty((rows, columns.shape[1]), np.int64) for rows in (2, 2, 3))
    n = np.empty((n_images, 3), np.int64)
    cpu_lists.join_images(columns, begin, of_a, of_b, pairs, n)
    (ids_a, ids_b, count), (labels_a, size_a), (labels_b, size_b) = pairs, of_a, of_b
    if names_a is not None:  # "clip": what lies behind those of an image means nothing
        ids_a, labels_a = names_a.take(ids_a, mode="clip"), names_a.take(labels_a, mode="clip")
    if names_b is not None:
        ids_b, labels_b = names_b.take(ids_b, mode="clip"), names_b.take(labels_b, mode="clip")
    starts, ends = begin[:-1].tolist(), (begin[:-1, None] + n).T.tolist()
    at_a, at_b, at = (list(map(slice, starts, stops)) for stops in ends)
    cut = ((ids_a, at), (ids_b, at), (count, at), (labels_a, at_a), (size_a, at_a), (labels_b, at_b), (size_b, at_b))
    return list(map(OverlapCounts, *([column[place] for place in places] for column, places in cut)))


def _renumber(labels: Ints) -> Ints:
    """Number the labels (N,) from 0, in place, the background too; return their names."""
    names: Ints
    names, numbers = np.unique(np.append(labels, 0), return_inverse=True)
    labels[:] = numbers[:-1]
    return names


def _warmup() -> None:
    labels = np.ones((2, 2), np.int32)
    overlap_counts(labels, labels)
    noise = np.arange(3 * 200 * 200, dtype=np.int32).reshape(3, 200, 200) % 7
    overlap_counts(noise[0], noise[1])
    overlap_counts_stack(noise)
