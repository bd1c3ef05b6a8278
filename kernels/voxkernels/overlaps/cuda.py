"""Shared pixels of pairs of labels on a GPU: which kernel of `overlaps.cu` runs when.

Where a table is too full, which the kernels report, all is counted again with tables four times the size; what is found
does not depend on their size. The pairs, a few numbers for each and none for each pixel, are sorted on the device, and
the results made of them there: those of all image pairs lie one after another, in arrays that have room for more.

Memory on the device: 16 bytes for each slot, at least one for each pair; for each pair up to two entries of 44 bytes,
and the results; for 64-bit labels also 4 bytes for each pixel of both images, 8 for each slot of the tables of labels.
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
"""Blocks of the launches that go through a list in strides, at most."""

STRETCH = 4096
"""Pixels of one warp, side by side: enough that emptying the table of a block costs little."""

PIECE = 128
FIRST_SLOTS = 1 << 17
FEWEST_SLOTS = 1 << 12
"""Slots at first: one for 512 pixels, but no more than the first number and no fewer than the second."""

FIRST_ENTRIES = 1 << 16
FEWEST_ENTRIES = 1 << 10
"""Room for entries, and for results, at first: for one in 256 pixels, but no more than the first number and no fewer
than the second."""

BATCH = 128
"""Pairs of images at a time."""

FULL, NEGATIVE = 1, 2
FIELDS = ("ids_a", "ids_b", "count", "labels_a", "labels_b", "size_a", "size_b")

Ints = npt.NDArray[np.int64]


def count_overlaps(
    device: Cuda, images_a: Any, images_b: Any, what: str
) -> tuple[dict[str, Any], tuple[list[int], list[int], list[int]]] | None:
    """The result of each pair of images; None where a label is negative.

    images_a, images_b : (P, L, X) on the device, both int32 or both int64; `what` is the name for messages.

    Returns the arrays of `OverlapCounts`, by name, on the device, of one pair of images after the other, and where each
    begins in those of pairs and of labels of a and b, with the end of the last.
    """
    n_images, pixels = images_a.shape[0], int(np.prod(images_a.shape[1:]))
    if images_a.size == 0:
        nothing = [0] * (n_images + 1)
        return {name: device.empty(0, np.int64) for name in FIELDS}, (nothing, nothing, nothing)
    names: Any = [device.empty(1, np.int64)] * 2
    ranks: Any = [device.empty(1, np.int32)] * 2
    named = images_a.dtype == np.int64
    if named:
        numbered = [_number(device, images, what) for images in (images_a, images_b)]
        if any(found is None for found in numbered):
            return None
        (images_a, images_b), names, ranks = zip(*(found for found in numbered if found), strict=True)
    count = device.kernel(SOURCE, "count_pairs")
    stretch = PIECE * -(-min(STRETCH, -(-pixels // (THREADS // 32))) // PIECE)
    grid = -(-pixels // (stretch * (THREADS // 32))), n_images
    slots = min(FIRST_SLOTS, 1 << (max(FEWEST_SLOTS, pixels // 512) - 1).bit_length())
    while True:
        device.reserve(what, 16 * n_images * slots)
        memory = device.zeros(2 * n_images * slots + 3, np.uint64)
        keys, counts, state = memory[: n_images * slots], memory[n_images * slots : -3], memory[-3:]
        arguments: Any = (images_a, images_b, np.int64(pixels), np.int64(stretch), keys, counts, np.int64(slots), state)
        device.launch(count, grid, THREADS, arguments)
        room = min(FIRST_ENTRIES, max(FEWEST_ENTRIES, n_images * pixels // 256))
        tables = (keys, np.int64(slots), np.int64(keys.size), *ranks, np.int32(named))
        entries = _list_entries(device, tables, room, state[2:], what)  # the host has time for it: pixels are counted
        found, lengths = _arrays(device, room, n_images, what)
        trouble, n, _ = (int(number) for number in device.fetch(state))
        if trouble & NEGATIVE:
            return None
        if not trouble & FULL:
            break
        slots *= 4
    if n > room:
        entries = _list_entries(device, tables, n, device.zeros(1, np.uint64), what)
        found, lengths = _arrays(device, n, n_images, what)

    several, blocks = np.int32(n_images > 1), max(-(-n // THREADS), 1)
    order = again = device.argsort(entries[0][:n])
    if n_images > 1:  # by tag, keys in order among equal ones
        ordered = device.empty(n, np.int32)
        device.launch(device.kernel(SOURCE, "order_tags"), blocks, THREADS, (entries[1], order, np.int64(n), ordered))
        again = device.argsort(ordered)
    listed = (*entries, order, again, several, np.int64(n))
    begun = device.empty((blocks, 3), np.int32)
    device.launch(device.kernel(SOURCE, "count_begun"), blocks, THREADS, (*listed, begun, lengths))
    arguments = (*listed, begun, counts, *names, np.int32(named), *found)
    device.launch(device.kernel(SOURCE, "assemble"), blocks, THREADS, arguments)
    found[5:] = [size.view(np.int64) for size in found[5:]]
    ends = np.zeros((3, n_images + 1), np.int64)
    np.cumsum(device.fetch(lengths)[: 3 * n_images].reshape(n_images, 3).T, axis=1, out=ends[:, 1:])
    at, at_a, at_b = ends.tolist()
    stops = at[-1], at[-1], at[-1], at_a[-1], at_b[-1], at_a[-1], at_b[-1]
    rows = {name: array[:stop] for name, array, stop in zip(FIELDS, found, stops, strict=True)}
    return rows, (at, at_a, at_b)


def _list_entries(device: Cuda, tables: tuple[Any, ...], room: int, written: Any, what: str) -> tuple[Any, Any, Any]:
    """What the results are made of, in no order: keys, tags and slots."""
    device.reserve(what, 44 * room)
    entries = device.empty(room, np.uint64), device.empty(room, np.int32), device.empty(room, np.int64)
    blocks = min(-(-tables[0].size // THREADS), BLOCKS)
    arguments = (*tables, *entries, np.int64(room), written)
    device.launch(device.kernel(SOURCE, "list_entries"), blocks, THREADS, arguments)
    return entries


def _arrays(device: Cuda, room: int, n_images: int, what: str) -> tuple[list[Any], Any]:
    """The arrays of FIELDS with room for so many numbers, and how many there are of each image, zero."""
    device.reserve(what, 56 * room + 12 * n_images)
    zeros = device.zeros(2 * room + 2 * n_images, np.uint64)
    found = [device.empty(room, np.int64) for _ in range(5)]
    return [*found, zeros[:room], zeros[room : 2 * room]], zeros[2 * room :].view(np.int32)


def _number(device: Cuda, images: Any, what: str) -> tuple[Any, Any, Any] | None:
    """Numbers from 1 in place of the labels, int32; the labels, ascending; the place among them of each number.

    All on the device. None where a label is negative.
    """
    kernel = device.kernel(SOURCE, "number_labels", {"LABEL": "Long"})
    slots = FIRST_SLOTS
    while True:
        device.reserve(what, 4 * images.size + 8 * slots)
        names, trouble = device.zeros(slots, np.uint64), device.zeros(1, np.int32)
        numbers = device.empty(images.shape, np.int32)
        arguments = (images, np.int64(images.size), names, np.int64(slots), numbers, trouble)
        device.launch(kernel, min(-(-images.size // THREADS), BLOCKS), THREADS, arguments)
        problem = int(device.fetch(trouble)[0])
        if problem & NEGATIVE:
            return None
        if not problem & FULL:
            break
        slots *= 4
    held = device.fetch(names).view(np.int64)
    ascending = np.sort(held[held > 0])
    ranks = np.searchsorted(ascending, held).astype(np.int32)
    return numbers, device.send(np.append(ascending, 0)), device.send(ranks)
