"""From the sums of chunks to the results of every label: chunks added in their order, sums shifted to the region's box.

All of it is one pass over the rows: for a small volume the same in NumPy's functions takes as long as the volume.
"""

import numpy as np

from .._compile import jit
from .cpu_grey import merge_grey


@jit
def merge_chunks(sums, box, grey):
    """Add all chunks to chunk 0, in their order; return how many rows are in use. grey may have no rows."""
    n = 0
    for row in range(sums.shape[1]):
        for chunk in range(1, sums.shape[0]):
            count = sums[chunk, row, 0]
            if count == 0:
                continue
            if sums[0, row, 0] == 0:
                box[0, row] = box[chunk, row]
                if grey.size:
                    grey[0, row] = grey[chunk, row]
            else:
                for k in range(3):
                    box[0, row, k] = min(box[0, row, k], box[chunk, row, k])
                    box[0, row, k + 3] = max(box[0, row, k + 3], box[chunk, row, k + 3])
                if grey.size:
                    merge_grey(grey[0, row], grey[chunk, row], count)
            for k in range(sums.shape[2]):
                sums[0, row, k] += sums[chunk, row, k]
        n += sums[0, row, 0] > 0
    return n


@jit
def list_regions(sums, box, corner, spacing, rows, count, bbox, moments, centroid, inertia):
    """Derive the results (N, ...) of RegionProperties from the sums (R, 10) and boxes (R, 6) of the rows in use.

    corner  : (3,) int64, where the volume begins: bbox counts from there.
    spacing : (3,) float64.
    rows    : (N,) int64, written: which rows these are.
    """
    n = 0
    for row in range(sums.shape[0]):
        if sums[row, 0] == 0:
            continue
        rows[n], count[n] = row, sums[row, 0]
        for k in range(3):
            bbox[n, k], bbox[n, k + 3] = box[row, k] + corner[k], box[row, k + 3] + corner[k]
        shift(sums[row, 1:], sums[row, 0], box[row], moments[n])
        n += 1
    derive(count, bbox, moments, spacing, centroid, inertia)


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
