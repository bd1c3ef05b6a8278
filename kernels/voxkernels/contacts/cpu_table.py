"""The table of contacts, with open addressing, and what the ends of the volume add to it.

A row is label, target, and counts; a free row has label 0.
"""

import numpy as np

from .._compile import jit
from .cpu_words import lowest_bit, unequal_bits, unequal_word

COUNTS = 2  # where the counts of a row begin
MOUTH = 1 << 16  # in place of a phase value; the border is the next one
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
def split_rows(keys, counts, others, n_phases):
    """Sort counts (K, M) under keys that ascend: of pairs of labels, and of labels by what else they face.

    others : the second column of the keys, ascending, in which equal ones may follow one another

    Returns the labels (N,), ascending; counts (N, n_phases + 2, M) towards each phase, MOUTH and the border; pairs
    (Q, 2), and theirs (Q, M)
    """
    at, n_pairs = 0, 0
    while at < others.size and others[at] <= 0:
        at += 1
    labels, n = np.empty(len(keys) + others.size - at, np.int64), 0
    for k in range(len(keys) + 1):
        while at < others.size and (k == len(keys) or others[at] < keys[k, 0]):
            if n == 0 or labels[n - 1] != others[at]:
                labels[n] = others[at]
                n += 1
            at += 1
        if k < len(keys):
            if n == 0 or labels[n - 1] != keys[k, 0]:
                labels[n] = keys[k, 0]
                n += 1
            n_pairs += keys[k, 1] > 0
    outer = np.zeros((n, n_phases + 2, counts.shape[1]), np.int64)
    pairs, shared = np.empty((n_pairs, 2), np.int64), np.empty((n_pairs, counts.shape[1]), np.int64)
    row = q = 0
    for k in range(len(keys)):
        label, target = keys[k, 0], keys[k, 1]
        while labels[row] < label:
            row += 1
        column = -1 - target
        if column >= MOUTH:
            column += n_phases - MOUTH
        for c in range(counts.shape[1]):
            if target > 0:
                shared[q, c] = counts[k, c]
            else:
                outer[row, column, c] = counts[k, c]
        if target > 0:
            pairs[q, 0], pairs[q, 1] = label, target
            q += 1
    return labels[:n].copy(), outer, pairs, shared


@jit
def sum_areas(rows, order, others, n_phases, factors, face_areas):
    """The labels and pairs of rows (R, 2 + M), the areas behind their counts, and voxel faces.

    order, others : what `add_equal_rows` and `split_rows` want
    factors       : (M,) the area that one count stands for. Except of voxel faces, pairs have the counts of both sides.
    face_areas    : (3,) the areas of voxel faces.

    Returns labels (N,), area (N, P), pairs (Q, 2), pair_area (Q,), border and mouth (N,), faces (3, N, P) and
    pair_faces (3, Q). All in one function: a call for each step would take as long as a small volume.
    """
    keys, counts = add_equal_rows(rows, order)
    labels, outer, pairs, shared = split_rows(keys, counts, others, n_phases)
    n_labels, n_pairs = labels.size, len(pairs)
    area, border, mouth = np.empty((n_labels, n_phases)), np.empty(n_labels), np.empty(n_labels)
    pair_area = np.empty(n_pairs)
    faces, pair_faces = np.empty((3, n_labels, n_phases), np.int64), np.empty((3, n_pairs), np.int64)
    for n in range(n_labels):
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
    for q in range(n_pairs):
        total = shared[q, 0] * factors[0]
        for m in range(1, factors.size):
            total += shared[q, m] * (factors[m] * (1.0 if m < 3 else 0.5))
        pair_area[q] = total
        for axis in range(3):
            pair_faces[axis, q] = shared[q, axis]
    return labels, area, pairs, pair_area, border, mouth, faces, pair_faces


@jit
def count_end(label, n, axis, table, used):
    """Count n ends of the array, all behind voxels of one label, along an axis; False if the table is too small."""
    if label != 0 and n > 0:
        slot = slot_of(table, used, np.int64(label), np.int64(-2 - MOUTH))
        if slot < 0:
            return False
        table[slot, COUNTS + axis] += n
    return True


@jit
def count_border(labels, start, stop, sides, table, used):
    """Count the ends of the array behind slices start..stop-1, those along x if `sides`; False if the table is small.

    Voxels of one label are counted together as long as no other one comes, be it in the next row or slice.
    """
    n_z, n_y, n_x = labels.shape
    flat, plane = labels.reshape(-1), n_y * n_x
    for axis in range(3 if sides else 2):
        step, length = (0, plane) if axis == 0 else (plane - n_x, n_x) if axis == 1 else (n_x - 1, 1)
        label, n = flat[start * plane], 0
        for first in range(start * plane, stop * plane, n_x if axis == 2 else plane):
            for end in range(2):
                if axis == 0 and first != end * (n_z - 1) * plane:
                    continue
                last = first + end * step + length
                for place in range(first + end * step, last, 64):
                    if place + 65 <= flat.size:
                        change = unequal_bits(flat, np.uint64(place), np.uint64(place + 1))
                    else:
                        change = unequal_word(flat, place, place + 1)
                    begin, word_end = place, min(place + 64, last)
                    while begin < word_end:
                        if flat[begin] != label:
                            if not count_end(label, n, axis, table, used):
                                return False
                            label, n = flat[begin], 0
                        following = min(place + lowest_bit(change) + 1, word_end)
                        change &= change - np.uint64(1)
                        n += following - begin
                        begin = following
        if not count_end(label, n, axis, table, used):
            return False
    return True
