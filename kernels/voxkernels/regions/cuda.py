"""Sums over every label of a volume on a GPU: which kernel of `regions.cu` runs when.

The table of sums begins with a row for each label up to FIRST_ROWS. Where the largest label has no row, which the
kernel reports, all is summed again with as many rows as it takes, or, where labels are sparse, with one for each label
that is there. The results are derived from the sums on the device.

Memory on the device: 136 bytes for each row, 176 with an image, and the results, 240 bytes for each label; these have
room for as many labels as there are rows, up to FIRST_RESULTS, from the start. For sparse labels also 12 bytes for each
slot of a hash table with at least one slot for each label. Waits for the device: once, for how many labels there are;
once more where the table was too small; with sparse labels, for each size of theirs.

Against the CPU: counts, boxes, moments, centroids and inertia are equal; minimum and maximum too, where no value is
nan; mean and standard deviation of images of 8 and 16 bits while their sums stay below 2^53; of others to a few units
in the last place (summed in another order).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._compile import Cuda

SOURCE = Path(__file__).with_name("regions.cu")
TILE = (8, 16, 128)
THREADS = 256
BLOCKS = 1024
INDEX_LIMIT = 2**31 - 1
"""Volumes of at most so many voxels are indexed in 32 bits, larger ones in 64."""

FIRST_ROWS = 1 << 16
FEWEST_ROWS = 1 << 10
"""Rows at first: one for 64 voxels, but no more than the first number and no fewer than the second."""

FIRST_RESULTS = 1 << 14
"""Results have room for so many labels before it is known how many there are."""

FIRST_SLOTS = 1 << 14
WIDTH, GREY_WIDTH = 17, 22
DENSE_BYTES = 1 << 24
"""A label is its own row while the sums take no more than this, or than the labels do."""

TYPES: dict[Any, str] = {np.int32: "int", np.int64: "Long"}
TYPES |= {np.uint8: "unsigned char", np.uint16: "unsigned short", np.float32: "float", np.float64: "double"}
WHAT = "region_properties"


def measure_regions(
    device: Cuda,
    labels: Any,
    image: Any,
    size: tuple[float, float, float],
    origin: npt.NDArray[np.int64],
) -> dict[str, Any] | None:
    """The arrays of `RegionProperties`, by name, on the device; None where a label is negative.

    labels : (Z, Y, X) int32 or int64 on the device.
    image  : of its shape, uint8, uint16, float32 or float64; or None.
    """
    whole = image is not None and image.dtype.itemsize < 4
    grey = 0 if image is None else 1 if whole else 2
    width = GREY_WIDTH if grey else WIDTH
    wide = labels.size > INDEX_LIMIT
    traits = {"LABEL": TYPES[labels.dtype.type], "INDEX": "Long" if wide else "int"}
    sides = tuple((np.int64 if wide else np.int32)(side) for side in labels.shape)
    n_tiles = math.prod(-(-side // of_tile) for side, of_tile in zip(labels.shape, TILE, strict=True))
    if image is not None:
        traits["IMAGE"] = TYPES[image.dtype.type]
    n, names = min(FIRST_ROWS, max(FEWEST_ROWS, labels.size // 64)), None
    slots = no_slots = (device.empty(1, np.uint64), device.empty(1, np.int32), np.int64(0))
    while n_tiles:
        device.reserve(WHAT, 8 * (width * n + 2) + 4 * -(-n // THREADS))
        memory = device.zeros(width * n + 2, np.uint64)  # the rows, then the state
        rows, state = memory[: width * n], memory[width * n :]
        table = (rows, np.int64(n), np.int32(width))
        device.launch(
            device.kernel(SOURCE, "sum_positions", traits), n_tiles, THREADS, (labels, *sides, *slots, *table, state)
        )
        blocks = -(-n // THREADS)
        in_use = device.empty(blocks, np.int32)
        device.launch(device.kernel(SOURCE, "count_rows", traits), blocks, THREADS, (*table, in_use, state))
        if grey:
            device.launch(device.kernel(SOURCE, "look_up_first", traits), blocks, THREADS, (image, *table))
            add = device.kernel(SOURCE, "sum_integers" if whole else "sum_reals", traits)
            device.launch(add, n_tiles, THREADS, (labels, image, *sides, *slots, *table, state))
        room = min(n, FIRST_RESULTS)
        held = device.empty(1, np.int64) if names is None else device.send(names)
        options: Any = (held, np.int32(names is not None), np.int32(grey))
        options += (*(np.float64(s) for s in size), *(np.int64(o) for o in origin))
        found = _arrays(device, room, grey)  # the host has time for it while the kernels run
        derive, arguments = device.kernel(SOURCE, "derive", traits), _filled(device, found)
        device.launch(derive, blocks, THREADS, (*table, in_use, np.int64(room), *options, *arguments))
        largest, n_labels = (int(number) for number in device.fetch(state))
        if largest >= 2**63:
            return None
        if not largest:
            if n_labels <= room:
                return {name: array if array is None else array[:n_labels] for name, array in found.items()}
            found = _arrays(device, n_labels, grey)
            arguments = _filled(device, found)
            device.launch(derive, blocks, THREADS, (*table, in_use, np.int64(n_labels), *options, *arguments))
            return found
        n, names, slots = largest + 1, None, no_slots
        if n * 8 * width > max(labels.nbytes, DENSE_BYTES):
            names, slots = _rows_of_labels(device, labels)
            n = names.size
    return _arrays(device, 0, grey)


def _arrays(device: Cuda, n_labels: int, grey: int) -> dict[str, Any]:
    """The arrays of a result, in the order in which `derive` takes them."""
    device.reserve(WHAT, 8 * n_labels * (30 if grey else 26))
    shapes: dict[str, tuple[Any, Any]] = {
        "labels": (n_labels, np.int64),
        "count": (n_labels, np.int64),
        "bbox": ((n_labels, 6), np.int64),
        "moments": ((n_labels, 9), np.int64),
        "centroid": ((n_labels, 3), np.float64),
        "inertia": ((n_labels, 3, 3), np.float64),
    }
    found: dict[str, Any] = {name: device.empty(*each) for name, each in shapes.items()}
    return found | {
        name: device.empty(n_labels, np.float64) if grey else None for name in ("mean", "std", "min", "max")
    }


def _filled(device: Cuda, found: dict[str, Any]) -> tuple[Any, ...]:
    """The arrays as the kernel takes them: one in the place of each that is not there."""
    unused = device.empty(1, np.float64) if found["mean"] is None else None
    return tuple(unused if array is None else array for array in found.values())


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
