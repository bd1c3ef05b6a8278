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
def add_equal_rows(rows, order):
    """The distinct keys (label, target) of rows (R, 2 + M), given in an order that joins equal ones, and their sums."""
    keys, sums = np.empty((order.size, COUNTS), np.int64), np.zeros((order.size, rows.shape[1] - COUNTS), np.int64)
    n = 0
    for r in order:
        if n == 0 or keys[n - 1, 0] != rows[r, 0] or keys[n - 1, 1] != rows[r, 1]:
            keys[n, 0], keys[n, 1] = rows[r, 0], rows[r, 1]
            n += 1
        for c in range(rows.shape[1] - COUNTS):
            sums[n - 1, c] += rows[r, COUNTS + c]
    return keys[:n].copy(), sums[:n].copy()


@jit
def split_rows(keys, counts, others, n_targets):
    """Sort counts (K, M) under keys that ascend: of pairs of labels, and of labels by what else they face.

    others : (Q,), the higher labels of the Q pairs, ascending

    Returns the labels (N,), ascending; counts (N, n_targets, M) towards target -1 - p; pairs (Q, 2), and theirs (Q, M)
    """
    labels, n, q = np.empty(len(keys) + others.size, np.int64), 0, 0
    for k in range(len(keys) + 1):
        while q < others.size and (k == len(keys) or others[q] < keys[k, 0]):
            if n == 0 or labels[n - 1] != others[q]:
                labels[n] = others[q]
                n += 1
            q += 1
        if k < len(keys) and (n == 0 or labels[n - 1] != keys[k, 0]):
            labels[n] = keys[k, 0]
            n += 1
    outer = np.zeros((n, n_targets, counts.shape[1]), np.int64)
    pairs, shared = np.empty((others.size, 2), np.int64), np.empty((others.size, counts.shape[1]), np.int64)
    row = q = 0
    for k in range(len(keys)):
        label, target = keys[k, 0], keys[k, 1]
        while labels[row] < label:
            row += 1
        for c in range(counts.shape[1]):
            if target > 0:
                shared[q, c] = counts[k, c]
            else:
                outer[row, -1 - target, c] = counts[k, c]
        if target > 0:
            pairs[q, 0], pairs[q, 1] = label, target
            q += 1
    return labels[:n].copy(), outer, pairs, shared


@jit
def sum_areas(outer, shared, factors, face_areas, area, mouth, border, faces, pair_area, pair_faces):
    """The areas behind counts of labels (N, P + 2, M) and pairs (Q, M), as `split_rows` gives them, and voxel faces.

    factors    : (M,) the area that one count stands for. Except of voxel faces, pairs have the counts of both sides.
    face_areas : (3,) the areas of voxel faces.
    area, mouth, border, faces : (N, P), (N,), (N,), (3, N, P), written. pair_area, pair_faces : (Q,), (3, Q), written.
    """
    n_phases = area.shape[1]
    for n in range(area.shape[0]):
        for p in range(n_phases + 1):
            total = outer[n, p, 0] * factors[0]
            for m in range(1, factors.size):
                total += outer[n, p, m] * factors[m]
            if p == n_phases:
                mouth[n] = total
                continue
            area[n, p] = total
            for axis in range(3):
                faces[axis, n, p] = outer[n, p, axis]
        last = outer[n, n_phases + 1]
        border[n] = last[0] * face_areas[0] + last[1] * face_areas[1] + last[2] * face_areas[2]
    for q in range(pair_area.size):
        total = shared[q, 0] * factors[0]
        for m in range(1, factors.size):
            total += shared[q, m] * (factors[m] * (1.0 if m < 3 else 0.5))
        pair_area[q] = total
        for axis in range(3):
            pair_faces[axis, q] = shared[q, axis]


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
