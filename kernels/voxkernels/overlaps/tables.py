"""Shared pixels of pairs of images on the CPU: which kernel of `cpu` runs when, and with how large tables."""

from __future__ import annotations

import math

import numba
import numpy as np
import numpy.typing as npt

from . import cpu, cpu_lists
from .results import OverlapCounts, OverlapStack

Ints = npt.NDArray[np.int64]
Images = npt.NDArray[np.int32] | npt.NDArray[np.int64]

CHUNKS = 16
"""Into how many chunks the images of a call are cut together, at least; each has a table of its own."""
BATCH = 256
"""How many pairs of images are counted together."""
SAMPLE, GOLDEN = 4096, (math.sqrt(5.0) - 1.0) / 2.0
CELLS = 16
"""Up to how many cells for each pixel a table of all pairs of labels may have."""
FIRST_SLOTS, FEWEST_SLOTS = 1 << 12, 1 << 8
"""Slots for the pairs of a chunk at first: one for 16 pixels, but no more than the first number and no fewer than the
second."""
SPARSE = 1 << 10
"""From how many numbers for each pair that was counted labels are renumbered."""


def count_overlaps(images_a: Images, images_b: Images) -> OverlapStack | None:
    """The result of each pair of images (P, N pixels); None where a label is negative."""
    parts = []
    for first in range(0, len(images_a), BATCH):
        part, short = _count(images_a[first : first + BATCH], images_b[first : first + BATCH])
        if short:  # so the rest is taken to be, and all of it goes to one block of memory
            part = _count_short(images_a[first:], images_b[first:])
        if part is None:
            return None
        parts.append(part)
        if short:
            break
    return OverlapStack.of(parts)


def _count(images_a: Images, images_b: Images, short: bool = False) -> tuple[OverlapStack | None, bool]:
    """As `count_overlaps`, of one batch; or that most images have short runs. `short`: it is known that they have."""
    n_tables = len(images_a) * -(-CHUNKS // len(images_a))
    cells, may_give_up = np.empty((n_tables, 0, 0), np.uint32), images_a.shape[1] < 2**32
    if short:
        cells, may_give_up = _cells(images_a, images_b, cells), False
    pixels = images_a.shape[1] * len(images_a) // n_tables
    slots = min(FIRST_SLOTS, max(FEWEST_SLOTS, 1 << (pixels // 16).bit_length()))
    while True:
        n_tables = len(cells)
        n_chunks = n_tables // len(images_a)
        n_parts = min(numba.get_num_threads(), n_tables)
        found, columns, begin, top = cpu.count_pairs(images_a, images_b, n_chunks, slots, cells, may_give_up, n_parts)
        lowest = min(found.tolist())
        if lowest >= 0:
            break
        if lowest == -2:
            return None, False
        if lowest == -1:
            slots *= 4
            continue
        may_give_up = False
        if len(images_a) == 1:
            cells = _cells(images_a, images_b, cells)
        elif 2 * np.count_nonzero(found == -3) > n_tables:
            return None, True
    if cells.size and not found.any():
        size_a, size_b, n = cpu_lists.sum_cells(cells)
        labels_a, labels_b = np.flatnonzero(size_a[1:]) + 1, np.flatnonzero(size_b[1:]) + 1
        ids_a, ids_b, count = cpu_lists.list_cells(cells, 1, n)
        rows = OverlapCounts(ids_a, ids_b, count, labels_a, size_a[labels_a], labels_b, size_b[labels_b])
        return OverlapStack.of([rows]), False
    if cells.size:  # and some labels beyond them
        cpu_lists.sum_cells(cells)
        columns = np.concatenate([columns, cpu_lists.list_cells(cells, 0, np.count_nonzero(cells[0]))], axis=1)
        begin[1], top = columns.shape[1], np.maximum(top, cells.shape[1:])
    return _join(columns, begin, top), False


def _count_short(images_a: Images, images_b: Images) -> OverlapStack | None:
    """As `count_overlaps`, of images whose runs are short: a table of all pairs for each thread, image after image."""
    n_images, n_pixels = images_a.shape
    n_a, n_b = _n_labels(images_a), _n_labels(images_b)
    n, found = np.full(n_images, -1), OverlapStack.of([])
    if 0 < n_a * n_b <= CELLS * n_pixels:
        n_tasks, most = min(numba.get_num_threads(), n_images), min(n_pixels, (n_a - 1) * (n_b - 1))
        cells = np.empty((n_tasks, n_a, n_b), np.uint32)
        pairs = np.empty((3, n_images * most + n_tasks), np.int64)  # what is not written takes no memory
        size_a, size_b = np.empty((n_images, n_a), np.int64), np.empty((n_images, n_b), np.int64)
        cpu.count_images(images_a, images_b, most, cells, pairs, size_a, size_b, n)
        found = OverlapStack.of(_of_task(task, n_tasks, most, pairs, size_a, size_b, n) for task in range(n_tasks))
    if n.min() >= 0:
        return found
    parts: list[OverlapCounts] = []
    for z in range(n_images):
        if n[z] >= 0:
            parts.append(found[z])
            continue
        alone, _ = _count(images_a[z : z + 1], images_b[z : z + 1], short=True)
        if alone is None:
            return None
        parts.append(alone.rows)
    return OverlapStack.of(parts)


def _of_task(task: int, n_tasks: int, most: int, pairs: Ints, size_a: Ints, size_b: Ints, n: Ints) -> OverlapStack:
    """What one task of `cpu.count_images` has found."""
    first, end = cpu_lists.chunks_of(task, n_tasks, n.size)
    (of_a, begin_a), (of_b, begin_b) = cpu_lists.list_sizes(size_a[first:end]), cpu_lists.list_sizes(size_b[first:end])
    begin = np.concatenate([[0], np.maximum(n[first:end], 0).cumsum()])
    at = first * most + task
    rows = OverlapCounts(*pairs[:, at : at + begin[-1]], *of_a, *of_b)
    return OverlapStack([(rows, (begin.tolist(), begin_a.tolist(), begin_b.tolist()))])


def _cells(image_a: Images, image_b: Images, none: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Tables (T, A, B) of all pairs of the labels that a sample of one pair of images shows; `none` if too large."""
    n_a, n_b = (_n_labels(image) for image in (image_a, image_b))
    if not 0 < n_a * n_b <= CELLS * image_a.size:
        return none
    # one for each thread, if that is not more than to be added up
    n_tables = max(1, min(numba.get_num_threads(), 2 * image_a.size // (n_a * n_b)))
    return np.empty((n_tables, n_a, n_b), np.uint32)


def _n_labels(images: Images) -> int:
    """One more than the largest label of a sample: by the golden ratio, in step with no row and no image."""
    places = np.arange(min(SAMPLE, images.size)) * GOLDEN % 1.0 * images.size
    return int(images.reshape(-1)[places.astype(np.int64)].max(initial=0)) + 1


def _join(columns: Ints, begin: Ints, top: Ints) -> OverlapStack:
    """The result of each pair of images from columns (3, N) a, b, count, in which a pair may occur again.

    begin : (P + 1,), where those of each image begin. top : (2,), the largest a and b, or more.
    """
    n_images = begin.size - 1
    names_a, names_b = (
        _renumber(columns, row, top) if n_images * last > SPARSE * columns.shape[1] else None
        for row, last in enumerate(top.tolist())
    )
    n_parts = min(numba.get_num_threads(), n_images)
    found, of_a, of_b, starts = cpu_lists.join_images(columns, begin, top, n_parts)
    (ids_a, ids_b, count), (labels_a, size_a), (labels_b, size_b) = found, of_a, of_b
    if names_a is not None:
        ids_a, labels_a = names_a[ids_a], names_a[labels_a]
    if names_b is not None:
        ids_b, labels_b = names_b[ids_b], names_b[labels_b]
    rows = OverlapCounts(ids_a, ids_b, count, labels_a, size_a, labels_b, size_b)
    return OverlapStack([(rows, tuple(starts.tolist()))])


def _renumber(columns: Ints, row: int, top: Ints) -> Ints:
    """Number the labels of one row from 0, in place, the background too; return their names."""
    names: Ints
    names, numbers = np.unique(np.append(columns[row], 0), return_inverse=True)
    columns[row], top[row] = numbers[:-1], names.size - 1
    return names
