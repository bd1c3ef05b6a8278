"""From the sums of chunks to the results of every label: chunks added in their order, sums shifted to the region's box.

All of it is one pass over the rows: for a small volume the same in NumPy's functions takes as long as the volume.
"""

import numpy as np

from .._compile import jit
from .cpu_grey import merge_grey
from .cpu_tables import tables_of
from .cpu_words import N_GREY


@jit
def merge_chunks(memory, with_grey):
    """Add all chunks to chunk 0, in their order."""
    _, sums, box, _, _, grey = tables_of(memory[0])
    for chunk in range(1, memory.shape[0]):
        _, more, more_box, _, _, more_grey = tables_of(memory[chunk])
        for row in range(len(sums)):
            count = more[row, 0]
            if count == 0:
                continue
            if sums[row, 0] == 0:
                for k in range(6):
                    box[row, k] = more_box[row, k]
                if with_grey:
                    grey[row] = more_grey[row]
            else:
                for k in range(3):
                    box[row, k] = min(box[row, k], more_box[row, k])
                    box[row, k + 3] = max(box[row, k + 3], more_box[row, k + 3])
                if with_grey:
                    merge_grey(grey[row], more_grey[row], count)
            for k in range(sums.shape[1]):
                sums[row, k] += more[row, k]


@jit
def list_regions(memory, first, with_grey, corner, spacing):
    """Merge the chunks of `memory`; derive the results (N, ...) of RegionProperties for the rows in use.

    first   : the lowest row that counts.
    corner  : (3,) int64, where the volume begins: bbox counts from there.
    spacing : (3,) float64.

    Returns which rows these are, count, bbox, centroid, inertia, moments and grey sums (N, 5), (0, 5) without them.
    """
    merge_chunks(memory, with_grey)
    _, sums, box, _, _, grey = tables_of(memory[0])
    n_rows, n = len(sums), 0
    for row in range(first, n_rows):
        n += sums[row, 0] != 0
    rows, count = np.empty(n, np.int64), np.empty(n, np.int64)
    bbox, moments = np.empty((n, 6), np.int64), np.empty((n, 9), np.int64)
    centroid, inertia = np.empty((n, 3)), np.empty((n, 3, 3))
    values = np.empty((n if with_grey else 0, N_GREY))
    n = 0
    for row in range(first, n_rows):
        if sums[row, 0] == 0:
            continue
        rows[n], count[n] = row, sums[row, 0]
        for k in range(3):
            bbox[n, k], bbox[n, k + 3] = box[row, k] + corner[k], box[row, k + 3] + corner[k]
        if with_grey:
            values[n] = grey[row]
        shift(sums[row, 1:], sums[row, 0], box[row], moments[n])
        n += 1
    derive(count, bbox, moments, spacing, centroid, inertia)
    return rows, count, bbox, centroid, inertia, moments, values


@jit
def shift(moments, count, by, shifted):
    """Position sums (9,) counted from an origin that lies `by` (3,) farther along each axis. Exact modulo 2^64."""
    column = 3
    for a in range(3):
        shifted[a] = moments[a] - count * by[a]
        for b in range(a, 3):
            crossed = by[a] * moments[b] + by[b] * moments[a]
            shifted[column] = moments[column] - crossed + count * by[a] * by[b]
            column += 1


@jit
def derive(count, bbox, moments, spacing, centroid, inertia):
    """Centroid (N, 3) and inertia (N, 3, 3) from the position sums (N, 9) about the corners of the boxes (N, 6)."""
    middle, about_middle = np.empty(3, np.int64), np.empty(9, np.int64)
    for n in range(count.size):
        for a in range(3):
            middle[a] = (2 * moments[n, a] + count[n]) // (2 * count[n])
        shift(moments[n], count[n], middle, about_middle)
        column = 3
        for a in range(3):
            rest_a = about_middle[a] / count[n]
            centroid[n, a] = (bbox[n, a] + middle[a] + rest_a) * spacing[a]
            for b in range(a, 3):
                covariance = about_middle[column] / count[n] - rest_a * (about_middle[b] / count[n])
                inertia[n, a, b] = inertia[n, b, a] = covariance * (spacing[a] * spacing[b])
                column += 1


@jit
def add_shifted(moments, count, by, rows, total):
    """Add position sums (N, 9) of count (N,) voxels, counted from origins `by` (N, 3) farther, to `rows` of `total`."""
    shifted = np.empty(9, np.int64)
    for n in range(count.size):
        shift(moments[n], count[n], by[n], shifted)
        total[rows[n]] += shifted
