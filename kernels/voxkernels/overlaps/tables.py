"""Shared pixels of pairs of images on the CPU: which kernel of `cpu` runs when, and with how large tables."""

from __future__ import annotations

import itertools

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


def count_overlaps(images_a: Images, images_b: Images) -> OverlapStack | None:
    """The result of each pair of images (P, N pixels); None where a label is negative."""
    parts = []
    for first in range(0, len(images_a), BATCH):
        part = _count(images_a[first : first + BATCH], images_b[first : first + BATCH])
        if part is None:
            return None
        parts.append(part)
    return OverlapStack.of(parts)


def _count(images_a: Images, images_b: Images, short: bool = False) -> OverlapStack | None:
    """As `count_overlaps`, of one batch. `short`: all runs are short."""
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
        rows = OverlapCounts(ids_a, ids_b, count, labels_a, size_a[labels_a], labels_b, size_b[labels_b])
        return OverlapStack.of([rows])
    columns, begin, top = cpu_lists.list_pairs(pairs, n_chunks, found)
    if cells.size:  # and some labels beyond them
        cpu_lists.sum_cells(cells)
        columns = np.concatenate([columns, cpu_lists.list_cells(cells, 0, np.count_nonzero(cells[0]))], axis=1)
        begin[1], top = columns.shape[1], np.maximum(top, cells.shape[1:])
    return _join(columns, begin, top)


def _count_short(images_a: Images, images_b: Images) -> OverlapStack | None:
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
            parts[z] = alone.rows
    return OverlapStack.of(part for part in parts if part)


def _list_images(
    images_a: Images,
    images_b: Images,
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


def _cells(image_a: Images, image_b: Images, none: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Tables (T, A, B) of all pairs of the labels that a sample of one pair of images shows; `none` if too large."""
    n_a, n_b = (_n_labels(image) for image in (image_a, image_b))
    if not 0 < n_a * n_b <= CELLS * image_a.size:
        return none
    # one for each thread, if that is not more than to be added up
    n_tables = max(1, min(numba.get_num_threads(), 2 * image_a.size // (n_a * n_b)))
    return np.empty((n_tables, n_a, n_b), np.uint32)


def _n_labels(images: Images) -> int:
    """One more than the largest label of a sample."""
    return int(images.ravel()[:: max(1, images.size // SAMPLE)].max(initial=0)) + 1


def _join(columns: Ints, begin: Ints, top: Ints) -> OverlapStack:
    """The result of each pair of images from columns (3, N) a, b, count, in which a pair may occur again.

    begin : (P + 1,), where those of each image begin. top : (2,), the largest a and b, or more.
    """
    n_images = begin.size - 1
    names_a, names_b = (
        _renumber(labels) if n_images * last > SPARSE * labels.size else None
        for labels, last in zip(columns[:2], top, strict=True)
    )
    of_a, of_b, pairs = (np.empty((rows, columns.shape[1]), np.int64) for rows in (2, 2, 3))
    starts = np.empty((3, n_images + 1), np.int64)
    cpu_lists.join_images(columns, begin, of_a, of_b, pairs, starts)
    at, at_a, at_b = starts.tolist()
    (ids_a, ids_b, count), (labels_a, size_a), (labels_b, size_b) = (
        table[:, : ends[-1]] for table, ends in ((pairs, at), (of_a, at_a), (of_b, at_b))
    )
    if names_a is not None:
        ids_a, labels_a = names_a[ids_a], names_a[labels_a]
    if names_b is not None:
        ids_b, labels_b = names_b[ids_b], names_b[labels_b]
    return OverlapStack(OverlapCounts(ids_a, ids_b, count, labels_a, size_a, labels_b, size_b), (at, at_a, at_b))


def _renumber(labels: Ints) -> Ints:
    """Number the labels (N,) from 0, in place, the background too; return their names."""
    names: Ints
    names, numbers = np.unique(np.append(labels, 0), return_inverse=True)
    labels[:] = numbers[:-1]
    return names
