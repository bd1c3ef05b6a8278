"""Contact areas on a GPU: which kernel of `contacts.cu` runs when.

Where the table is too full, which the kernels report, all is counted again with one four times the size; what is found
does not depend on its size. The contacts, a few numbers for each and none for each voxel, are sorted on the device, and
the results made of them there.

Memory on the device: 8 bytes for each slot and 8 for each of its counters (3 for faces, 6 weighted, 13 crofton), with
at least one slot for each contact; 28 bytes for each contact, and the results; for 64-bit labels also 4 bytes for each
voxel and 8 for each slot of a table of labels. Waits for the device: for the counts, for how many labels there are, and
once more whenever the table grows; for 64-bit labels also for their range and their table.

Against the CPU: all counts are integers and equal, areas are made of them by the same operations: the same bits.
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

FIRST_SLOTS = 1 << 16
FEWEST_SLOTS = 1 << 12
"""Slots at first: one for 512 voxels, but no more than the first number and no fewer than the second."""

N_STATE = 6
INDEX_LIMIT = 2**31 - 1
"""Volumes of at most so many voxels are indexed in 32 bits, larger ones in 64."""

FULL, NEGATIVE = 1, 2
TYPES = {np.dtype(np.uint8): "unsigned char", np.dtype(np.int32): "int", np.dtype(np.int64): "Long"}
WHAT = "contact_areas"

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def measure_contacts(
    device: Cuda,
    labels: Any,
    phases: Any,
    n_phases: int,
    solid: Any,
    core: tuple[int, int],
    size: tuple[float, float, float],
    factors: Floats,
    face_areas: Floats,
) -> dict[str, Any] | None:
    """The arrays of `ContactAreas`, by name, on the device; None where a label is negative.

    The volumes (Z, Y, X) are on the device: labels int32 or int64, phases uint8 or int32, solid bool or of size 0.
    n_phases : P is at least this; the largest of uint8 phases is found here.
    factors  : the area of one count, of 3 columns for faces, 6 for faces and weights, 13 for rays, as in `cpu.py`.
    """
    lo, hi = core
    columns = factors.size
    if labels.size == 0 or lo == hi:
        return _arrays(device, 0, n_phases, 0)
    wide = labels.size > INDEX_LIMIT
    index = np.int64 if wide else np.int32
    traits = {"PHASE": TYPES[phases.dtype], "INDEX": "Long" if wide else "int", "WEIGHTED": int(columns == 6)}
    names = ranks = None
    if labels.dtype == np.int64:
        labels, names, ranks = _number(device, labels)
    mask = (solid, np.int32(1)) if solid.size else (device.empty(1, np.bool_), np.int32(0))
    grid = (labels, phases, *mask, *(index(side) for side in (*labels.shape, lo, hi)))
    first = lo
    if columns != 13:
        grid += tuple(np.float64(1 / length) for length in size)
        first = max(lo - 1, 0)
    sides = (hi - first, *labels.shape[1:])
    n_tiles = int(np.prod([-(-side // of_tile) for side, of_tile in zip(sides, TILE, strict=True)]))
    count = device.kernel(SOURCE, "count_rays" if columns == 13 else "count_faces", traits)
    slots = min(FIRST_SLOTS, 1 << (max(FEWEST_SLOTS, labels.size // 512) - 1).bit_length())
    while True:
        device.reserve(WHAT, 8 * slots * (1 + columns))
        memory = device.zeros(slots * (1 + columns) + N_STATE, np.uint64)  # keys, state, counts
        keys, state, counts = memory[:slots], memory[slots : slots + N_STATE], memory[slots + N_STATE :]
        device.launch(count, n_tiles, THREADS, (*grid, keys, counts, np.int64(slots), state))
        if phases.dtype == np.uint8:
            blocks = min(-(-phases.size // (8 * THREADS)), BLOCKS)
            arguments: Any = (phases, np.int64(phases.size), state)
            device.launch(device.kernel(SOURCE, "find_largest", traits), blocks, THREADS, arguments)
        halves = np.where(np.arange(columns) < 3, 1.0, 0.5)  # either side of a pair gives half, but not of its faces
        sent = device.send(np.concatenate([factors, factors * halves, face_areas]))  # while the kernels run
        trouble, n_rows, n_pairs, largest, _, _ = (int(number) for number in device.fetch(state))
        if trouble & NEGATIVE:
            return None
        if not trouble & FULL:
            break
        slots *= 4

    n_phases, n = max(n_phases, largest + 1), n_rows + n_pairs
    device.reserve(WHAT, 28 * n)
    named = np.int32(names is not None)
    ordered, slot_of = device.empty(n, np.uint64), device.empty(n, np.int32)
    held = device.empty(1, np.int32) if ranks is None else device.send(ranks)
    arguments = (keys, np.int64(slots), held, named, ordered, slot_of, state[N_STATE - 1 :])
    device.launch(device.kernel(SOURCE, "list_contacts", traits), min(-(-slots // THREADS), BLOCKS), THREADS, arguments)
    entries = (ordered, slot_of, device.argsort(ordered), np.int64(n))
    blocks = max(-(-n // THREADS), 1)
    begun = device.empty((blocks, 2), np.int32)
    device.launch(device.kernel(SOURCE, "count_begun", traits), blocks, THREADS, (*entries, begun, state))
    n_labels = int(device.fetch(state)[4])  # how long the results are
    device.reserve(WHAT, 8 * (n_labels * (3 + 4 * n_phases) + 6 * n_pairs))
    found = _arrays(device, n_labels, n_phases, n_pairs)
    held = device.empty(1, np.int64) if names is None else device.send(names)
    arguments = (*entries, begun, counts, np.int32(columns), held, named, sent)
    arguments += (np.int64(n_labels), np.int32(n_phases), np.int64(n_pairs), *found.values())
    device.launch(device.kernel(SOURCE, "assemble", traits), blocks, THREADS, arguments)
    return found


def _arrays(device: Cuda, n_labels: int, n_phases: int, n_pairs: int) -> dict[str, Any]:
    """The arrays of a result, in the order in which `assemble` takes them."""
    shapes: dict[str, tuple[Any, Any]] = {
        "labels": (n_labels, np.int64),
        "area": ((n_labels, n_phases), np.float64),
        "border": (n_labels, np.float64),
        "mouth": (n_labels, np.float64),
        "faces": ((3, n_labels, n_phases), np.int64),
        "pairs": ((n_pairs, 2), np.int64),
        "pair_area": (n_pairs, np.float64),
        "pair_faces": ((3, n_pairs), np.int64),
    }
    return {name: device.empty(*each) for name, each in shapes.items()}


def _number(device: Cuda, labels: Any) -> tuple[Any, Ints, npt.NDArray[np.int32]]:
    """Numbers from 1 in place of the labels, int32; the labels, ascending; the place among them of each number."""
    kernel = device.kernel(SOURCE, "number_labels", {"LABEL": TYPES[labels.dtype]})
    slots = FIRST_SLOTS
    while True:
        device.reserve(WHAT, 4 * labels.size + 8 * slots)
        names, trouble = device.zeros(slots, np.uint64), device.zeros(1, np.int32)
        numbers = device.empty(labels.shape, np.int32)
        arguments = (labels, np.int64(labels.size), names, np.int64(slots), numbers, trouble)
        device.launch(kernel, min(-(-labels.size // THREADS), BLOCKS), THREADS, arguments)
        if not int(device.fetch(trouble)[0]):
            break
        slots *= 4
    held = device.fetch(names).view(np.int64)
    ascending = np.sort(held[held > 0])
    return numbers, ascending, np.searchsorted(ascending, held).astype(np.int32)
