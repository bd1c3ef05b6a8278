"""Contact areas on a GPU: which kernel of `contacts.cu` runs when.

The tables begin small. Where one is too full, which the kernels report, all is counted again with tables four times the
size; what is found does not depend on their size. The list of contacts, a few numbers for each and none for each voxel,
is sorted on the host, where areas are made of counts.

Memory on the device: 8 bytes for each slot and 8 for each of its counters (3 for faces, 6 weighted, 13 crofton), with
at least one slot for each contact; then 16 bytes, and 8 for each counter, for each contact; for 64-bit labels also 4
bytes for each voxel and 8 for each slot of a table of labels. Waits for the device: for the largest phase, the counts
and the list, and once more whenever a table grows; for 64-bit labels also for their range and their table.

Against the CPU: all counts are integers and equal, so all results are, to the bit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._compile import Cuda

SOURCE = Path(__file__).with_name("contacts.cu")
TILE = (8, 8, 32)
THREADS = 256
BLOCKS = 1024
"""Blocks of the launches that go through a list in strides, at most."""

FIRST_SLOTS = 1 << 14
INDEX_LIMIT = 2**31 - 1
"""Volumes of at most so many voxels are indexed in 32 bits, larger ones in 64."""

FULL, NEGATIVE = 1, 2
TYPES = {np.dtype(np.uint8): "unsigned char", np.dtype(np.int32): "int", np.dtype(np.int64): "Long"}
WHAT = "contact_areas"

Ints = npt.NDArray[np.int64]


def count_contacts(
    device: Cuda,
    labels: Any,
    phases: Any,
    n_phases: int,
    solid: Any,
    core: tuple[int, int],
    columns: int,
    size: tuple[float, float, float],
) -> tuple[Ints, Ints] | None:
    """Keys (N, 2), ascending, and counts (N, columns) of all contacts, on the host; None where a label is negative.

    The volumes (Z, Y, X) are on the device: labels int32 or int64, phases uint8 or int32, solid bool or of size 0.
    columns : 3 for faces, 6 for faces and weights, 13 for rays; they and the keys are those of `cpu.count_contacts`.
    """
    lo, hi = core
    if labels.size == 0 or lo == hi:
        return np.zeros((0, 2), np.int64), np.zeros((0, columns), np.int64)
    wide = labels.size > INDEX_LIMIT
    index = np.int64 if wide else np.int32
    traits = {"PHASE": TYPES[phases.dtype], "INDEX": "Long" if wide else "int", "WEIGHTED": int(columns == 6)}
    names = np.empty(0, np.int64)
    if labels.dtype == np.int64:
        labels, names = _number(device, labels)
    mask = (solid, np.int32(1)) if solid.size else (device.zeros(1, np.bool_), np.int32(0))
    grid = (labels, phases, *mask, *(index(side) for side in (*labels.shape, lo, hi)), np.int32(n_phases))
    first = lo
    if columns != 13:
        grid += tuple(np.float64(1 / length) for length in size)
        first = max(lo - 1, 0)
    sides = (hi - first, *labels.shape[1:])
    n_tiles = int(np.prod([-(-side // of_tile) for side, of_tile in zip(sides, TILE, strict=True)]))
    count = device.kernel(SOURCE, "count_rays" if columns == 13 else "count_faces", traits)
    slots = FIRST_SLOTS
    while True:
        device.reserve(WHAT, 8 * slots * (1 + columns))
        keys, counts = device.zeros(slots, np.uint64), device.zeros((slots, columns), np.uint64)
        state = device.zeros(2, np.uint64)
        device.launch(count, n_tiles, THREADS, (*grid, keys, counts, np.int64(slots), state))
        trouble, n_rows = (int(number) for number in device.fetch(state))
        if trouble & NEGATIVE:
            return None
        if not trouble & FULL:
            break
        slots *= 4
    device.reserve(WHAT, 8 * n_rows * (2 + columns))
    rows = device.empty((n_rows, 2 + columns), np.int64)
    arguments = (keys, counts, np.int64(slots), np.int32(columns), rows, device.zeros(1, np.uint64))
    device.launch(device.kernel(SOURCE, "list_contacts", traits), min(-(-slots // THREADS), BLOCKS), THREADS, arguments)
    table = device.fetch(rows)
    if names.size:
        _rename(table, names)
    table = table[np.lexsort((table[:, 1], table[:, 0]))]
    return table[:, :2].copy(), table[:, 2:].copy()


def _number(device: Cuda, labels: Any) -> tuple[Any, Ints]:
    """Numbers from 1 in place of the labels, int32, and the label of each number."""
    kernel = device.kernel(SOURCE, "number_labels", {"LABEL": TYPES[labels.dtype]})
    slots = FIRST_SLOTS
    while True:
        device.reserve(WHAT, 4 * labels.size + 8 * slots)
        names, trouble = device.zeros(slots, np.uint64), device.zeros(1, np.int32)
        numbers = device.empty(labels.shape, np.int32)
        arguments = (labels, np.int64(labels.size), names, np.int64(slots), numbers, trouble)
        device.launch(kernel, min(-(-labels.size // THREADS), BLOCKS), THREADS, arguments)
        if not int(device.fetch(trouble)[0]):
            return numbers, device.fetch(names).view(np.int64)
        slots *= 4


def _rename(table: Ints, names: Ints) -> None:
    """Put labels in place of their numbers, in the first two columns; of a pair the lower one first."""
    pair = table[:, 1] > 0
    table[:, 0] = names[table[:, 0] - 1]
    table[pair, 1] = names[table[pair, 1] - 1]
    table[pair, :2] = np.sort(table[pair, :2], axis=1)
