"""The table of contacts, with open addressing, and what the ends of the volume add to it.

A row is label, target, and counts; a free row has label 0.
"""

import numpy as np

from .._compile import jit

COUNTS = 2  # where the counts of a row begin
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd
OTHER_FACTOR = np.uint64(0xBF58476D1CE4E5B9)  # another odd number with bits everywhere


@jit(inline=True)
def first_slot(table, label, target):
    """The row of a table (C, 2 + M), C a power of two, where (label, target) is looked for first."""
    mixed = np.uint64(label) * FACTOR + np.uint64(target) * OTHER_FACTOR
    return mixed >> np.uint64(32) & np.uint64(table.shape[0] - 1)


@jit
def slot_of(table, used, label, target):
    """The row of (label, target); -1 if the table is half full, and used[0] too."""
    slot, one = first_slot(table, label, target), np.uint64(1)
    while table[slot, 0] != 0 and (table[slot, 0] != label or table[slot, 1] != target):
        slot = (slot + one) & np.uint64(table.shape[0] - 1)
    if table[slot, 0] == 0:
        if 2 * used[0] >= table.shape[0]:
            used[0] = -1
            return np.int64(-1)
        used[0] += 1
        table[slot, 0] = label
        table[slot, 1] = target
    return np.int64(slot)


@jit
def move_to_front(table):
    """Move the rows in use to the beginning of a table."""
    n = 0
    for slot in range(table.shape[0]):
        if table[slot, 0] != 0:
            for c in range(table.shape[1]):  # row by row would compile for a second longer
                table[n, c] = table[slot, c]
            n += 1


@jit
def count_line(flat, start, n, step, axis, target, table, used):
    """Count the ends of the array behind n voxels, a step apart; False if the table is too small."""
    slot, last = 0, np.int64(0)
    for i in range(n):
        label = np.int64(flat[start + i * step])
        if label != 0:
            if label != last:
                slot = slot_of(table, used, label, target)
                if slot < 0:
                    return False
                last = label
            table[slot, COUNTS + axis] += 1
    return True


@jit
def count_border(labels, target, start, stop, table, used):
    """Count the ends of the array behind the voxels in slices start..stop-1; False if the table is too small."""
    n_z, n_y, n_x = labels.shape
    flat = labels.reshape(-1)
    for z in range(start, stop):
        first = z * n_y * n_x
        for i in (0, n_x - 1):
            if not count_line(flat, first + i, n_y, n_x, 2, target, table, used):
                return False
        for i in (0, n_y - 1):
            if not count_line(flat, first + i * n_x, n_x, 1, 1, target, table, used):
                return False
        for i in (0, n_z - 1):
            if z == i and not count_line(flat, first, n_y * n_x, 1, 0, target, table, used):
                return False
    return True
