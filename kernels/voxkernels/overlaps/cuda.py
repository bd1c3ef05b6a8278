"""Shared pixels of pairs of labels on a GPU: which kernel of `overlaps.cu` runs when.

The tables begin small. Where one is too full, which the kernels report, all is counted again with tables four times the
size; what is found does not depend on their size. The list of pairs, a few numbers for each pair and none for each
pixel, is sorted on the host.

Memory on the device: 16 bytes for each slot, at least one for each pair, and 32 bytes for each pair; for 64-bit labels
also 4 bytes for each pixel of both images and 8 for each slot of the tables of labels.
Waits for the device: twice, and once more whenever tables grow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._compile import Cuda

SOURCE = Path(__file__).with_name("overlaps.cu")
THREADS = 256
BLOCKS = 1024
"""Blocks of one launch at most: enough to fill a GPU, few enough that emptying their tables costs little."""

FIRST_SLOTS = 1 << 14
FULL, NEGATIVE = 1, 2
WHAT = "overlap_counts"


def count_pairs(device: Cuda, images_a: Any, images_b: Any) -> npt.NDArray[np.int64] | None:
    """Rows (image, a, b, count) of every pair that occurs, ascending, also with one background; on the host.

    images_a, images_b : (P, L, X) on the device, both int32 or both int64. None where a label is negative.
    """
    n_images, pixels = images_a.shape[0], int(np.prod(images_a.shape[1:]))
    if images_a.size == 0:
        return np.empty((0, 4), np.int64)
    names: list[npt.NDArray[np.uint64]] = []
    if images_a.dtype == np.int64:
        numbered = [_number(device, images) for images in (images_a, images_b)]
        if any(found is None for found in numbered):
            return None
        (images_a, names_a), (images_b, names_b) = (found for found in numbered if found is not None)
        names = [names_a, names_b]
    count, list_pairs = device.kernel(SOURCE, "count_pairs"), device.kernel(SOURCE, "list_pairs")
    slots = FIRST_SLOTS
    while True:
        device.reserve(WHAT, 16 * n_images * slots)
        keys, counts = (device.zeros((n_images, slots), np.uint64) for _ in range(2))
        trouble = device.zeros(1, np.int32)
        tables = (keys, counts, np.int64(slots))
        device.launch(
            count, (_blocks(pixels), n_images), THREADS, (images_a, images_b, np.int64(pixels), *tables, trouble)
        )
        problem = int(device.fetch(trouble)[0])
        if problem & NEGATIVE:
            return None
        if not problem & FULL:
            break
        slots *= 4
    rows = device.empty((0, 4), np.int64)
    for _ in range(2):  # how many, then which
        found = device.zeros(1, np.uint64)
        sizes = (np.int64(slots), np.int64(keys.size))
        arguments = (keys, counts, *sizes, rows, np.int64(rows.shape[0]), found)
        device.launch(list_pairs, _blocks(keys.size), THREADS, arguments)
        if rows.shape[0] == 0:
            n_rows = int(device.fetch(found)[0])
            device.reserve(WHAT, 32 * n_rows)
            rows = device.empty((n_rows, 4), np.int64)
        if n_rows == 0:
            break
    table = device.fetch(rows)
    for column, known in enumerate(names, start=1):
        table[:, column] = np.concatenate([np.zeros(1, np.uint64), known])[table[:, column]].view(np.int64)
    return table[np.lexsort((table[:, 2], table[:, 1], table[:, 0]))]


def _number(device: Cuda, images: Any) -> tuple[Any, npt.NDArray[np.uint64]] | None:
    """Numbers from 1 in place of the labels, int32, and the label of each number; None where a label is negative."""
    kernel = device.kernel(SOURCE, "number_labels", {"LABEL": "Long"})
    slots = FIRST_SLOTS
    while True:
        device.reserve(WHAT, 4 * images.size + 8 * slots)
        names, trouble = device.zeros(slots, np.uint64), device.zeros(1, np.int32)
        numbers = device.empty(images.shape, np.int32)
        arguments = (images, np.int64(images.size), names, np.int64(slots), numbers, trouble)
        device.launch(kernel, _blocks(images.size), THREADS, arguments)
        problem = int(device.fetch(trouble)[0])
        if problem & NEGATIVE:
            return None
        if not problem & FULL:
            return numbers, device.fetch(names)
        slots *= 4


def _blocks(items: int) -> int:
    return min(-(-items // THREADS), BLOCKS)
