"""From the sums of chunks to the results of every label: chunks added in their order, sums shifted to the region's box.

All of it is one pass over the rows: for a small volume the same in NumPy's functions takes as long as the volume.
"""

import numpy as np

from .._compile import jit
from .cpu_grey import merge_grey
from .cpu_tables import tables_of


@jit
def merge_chunks(memory, n_rows, grey):
    """Add all chunks to chunk 0, in their order. grey may have no rows."""
    _, sums, box, _, _ = tables_of(memory[0], n_rows)
    for chunk in range(1, memory.shape[0]):
        _, more, more_box, _, _ = tables_of(memory[chunk], n_rows)
        for row in range(n_rows):
            count = more[row, 0]
            if count == 0:
                continue
            if sums[row, 0] == 0:
                for k in range(6):
                    box[row, k] = more_box[row, k]
                if grey.size:
                    grey[0, row] = grey[chunk, row]
            else:
                for k in range(3):
                    box[row, k] = min(box[row, k], more_box[row, k])
                    box[row, k + 3] = max(box[row, k + 3], more_box[row, k + 3])
                if grey.size:
                    merge_grey(grey[0, row], grey[chunk, row], count)
            for k in range(sums.shape[1]):
                sums[row, k] += more[row, k]


@jit
def list_regions(memory, n_rows, first, grey, corner, spacing):
    """Merge the chunks of `memory` and `grey`; derive the results (N, ...) of RegionProperties for the rows in use.

    first   : the lowest row that counts.
    corner  : (3,) int64, where the volume begins: bbox counts from there.
    spacing : (3,) float64.

    Returns which rows these are, count, bbox, centroid, inertia and moments.
    """
    merge_chunks(memory, n_rows, grey)
    _, sums, box, _, _ = tables_of(memory[0], n_rows)
    n = 0
    for row in range(first, n_rows):
        n += sums[row, 0] != 0
    rows, count = np.empty(n, np.int64), np.empty(n, np.int64)
    bbox, moments = np.empty((n, 6), np.int64), np.empty((n, 9), np.int64)
    centroid, inertia = np.empty((n, 3)), np.empty((n, 3, 3))
    n = 0
    for row in range(first, n_rows):
        if sums[row, 0] == 0:
            continue
        rows[n], count[n] = row, sums[row, 0]
        for k in range(3):
            bbox[n, k], bbox[n, k + 3] = box[row, k] + corner[k], box[row, k + 3] + corner[k]
        shift(sums[row, 1:], sums[row, 0], box[row], moments[n])
        n += 1
    derive(count, bbox, moments, spacing, centroid, inertia)
    return rows, count, bbox, centroid, inertia, moments


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
