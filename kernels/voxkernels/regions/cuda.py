"""Sums over every label of a volume on a GPU: which kernel of `regions.cu` runs when.

The sums, some 150 bytes for each label, are copied to the host, where centroids and moments are derived from them.
Memory on the device: 176 bytes for each row of the sums; for sparse labels also 12 bytes for each slot of a hash table
with at least one slot for each label. Waits for the device: for the largest label, for the sums, for the grey sums;
with sparse labels once more for each size of their table.

Against the CPU: counts, boxes and moments are equal; minimum and maximum too, where no value is nan; mean and standard
deviation to a few units in the last place (equal integer sums for integer images, rounded in another order for others).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._compile import Cuda

SOURCE = Path(__file__).with_name("regions.cu")
TILE = (8, 8, 32)
THREADS = 256
BLOCKS = 1024
INDEX_LIMIT = 2**31 - 1
"""Volumes of at most so many voxels are indexed in 32 bits, larger ones in 64."""

FIRST_SLOTS = 1 << 14
ROW_BYTES = 8 * (10 + 6 + 1 + 2 + 2 + 1)
DENSE_BYTES = 1 << 24
"""A label is its own row while the sums take no more than this, or than the labels do."""

FAR = 1 << 62
TYPES: dict[Any, str] = {np.int32: "int", np.int64: "Long"}
TYPES |= {np.uint8: "unsigned char", np.uint16: "unsigned short", np.float32: "float", np.float64: "double"}
WHAT = "region_properties"


def sum_regions(
    device: Cuda, labels: Any, image: Any, largest: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Names (N,), sums (N, 10), boxes (N, 6) and, with an image, grey sums (N, 5) of the labels present; on the host.

    labels  : (Z, Y, X) int32 or int64 on the device; `largest` is the largest of them.
    image   : of its shape, uint8, uint16, float32 or float64; or None.
    Columns as in `cpu.py`: count, sums of positions and products; half-open boxes; first value, sum of deviations from
    it, sum of their squares, minimum, maximum.
    """
    if (largest + 1) * ROW_BYTES <= max(labels.nbytes, DENSE_BYTES):
        names, table = np.arange(largest + 1), (device.zeros(1, np.uint64), device.zeros(1, np.int32), np.int64(0))
    else:
        names, table = _rows_of_labels(device, labels)
    n = names.size
    device.reserve(WHAT, ROW_BYTES * n)
    sums, box, first = device.zeros((n, 10), np.uint64), device.zeros((n, 6), np.int64), device.zeros(n, np.int64)
    wide = labels.size > INDEX_LIMIT
    traits = {"LABEL": TYPES[labels.dtype.type], "INDEX": "Long" if wide else "int"}
    sides = tuple((np.int64 if wide else np.int32)(side) for side in labels.shape)
    n_tiles = int(np.prod([-(-side // of_tile) for side, of_tile in zip(labels.shape, TILE, strict=True)]))
    if n_tiles:
        kernel = device.kernel(SOURCE, "sum_positions", traits)
        device.launch(kernel, n_tiles, THREADS, (labels, *sides, *table, sums, box, first))
    totals = device.fetch(sums).view(np.int64)
    present = np.flatnonzero(totals[:, 0] * (names > 0))
    boxes = device.fetch(box)[present]
    boxes[:, :3] = FAR - boxes[:, :3]
    if image is None:
        return names[present], totals[present], boxes, None

    deviations, extremes = device.zeros((n, 2), np.float64), device.zeros((n, 2), np.uint64)
    reference = device.zeros(n, np.float64)
    if n_tiles:
        kernel = device.kernel(SOURCE, "sum_grey", {**traits, "IMAGE": TYPES[image.dtype.type]})
        arguments = (labels, image, *sides, *table, first, deviations, extremes, reference)
        device.launch(kernel, n_tiles, THREADS, arguments)
    ordered = device.fetch(extremes)[present]
    high, low = _numbers(ordered[:, 0]), _numbers(~ordered[:, 1])
    about_first = device.fetch(deviations)[present]
    grey = np.column_stack([device.fetch(reference)[present], about_first, low, high])
    return names[present], totals[present], boxes, grey


def _numbers(ordered: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """The numbers behind integers that are in their order."""
    top = np.uint64(1 << 63)
    return np.where(ordered & top, ordered ^ top, ~ordered).view(np.float64)


def _rows_of_labels(device: Cuda, labels: Any) -> tuple[npt.NDArray[np.int64], tuple[Any, Any, np.int64]]:
    """The labels present, ascending, and the hash table (keys, rows, slots) on the device that gives their places."""
    kernel = device.kernel(SOURCE, "collect_labels", {"LABEL": TYPES[labels.dtype.type]})
    slots = FIRST_SLOTS
    while True:
        device.reserve(WHAT, 12 * slots)
        keys, trouble = device.zeros(slots, np.uint64), device.zeros(1, np.int32)
        blocks = min(-(-labels.size // THREADS), BLOCKS)
        device.launch(kernel, blocks, THREADS, (labels, np.int64(labels.size), keys, np.int64(slots), trouble))
        if not int(device.fetch(trouble)[0]):
            break
        slots *= 4
    held = device.fetch(keys).view(np.int64)
    names = np.sort(held[held > 0])
    rows = device.send(np.searchsorted(names, held).astype(np.int32))
    return names, (keys, rows, np.int64(slots))
