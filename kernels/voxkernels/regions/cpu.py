"""Sums over every label of a volume, in one pass over its runs.

A line of the volume along x falls into runs of equal labels. The ends of its runs are listed first, without a branch
(one that cannot be predicted costs more than all the rest). Then a run of n voxels adds to its label the count, the
sums of z, y, x and of their six products in closed form, and its ends to the bounding box: the work is one comparison
for each voxel and a few integer operations for each run.

Position sums are integers modulo 2^64. Addition and shifts of the origin are then exact whatever overflows on the way,
as long as the final sums about a region's own bounding box stay below 2^63, that is count * extent^2 < 9e18. Exact
sums do not depend on order, threads or origin, and the moments derived from them lose nothing to cancellation.

Grey values are summed in floating point as deviations, and squared deviations, from the first value of the region
(shifted data: Chan, Golub and LeVeque, "Algorithms for computing the sample variance", Am. Stat. 37 (1983) 242). That
value is one of the region's own, so its distance from the mean is part of the spread, and a grey offset common to all
drops out before it can do harm.

The lines are cut into chunks whose number depends on the data alone, each with sums of its own, added in the order of
the chunks: results do not depend on the number of threads. A label's row is the label itself or, where labels are
sparse, found in a hash table (open addressing, linear probing).

Cost: one read of the volume. Memory: 168 bytes for each label and chunk.
Not checked here: labels >= 0, every label has a row, the image has the shape of the labels.
"""

import numpy as np
from numba import prange

from .._compile import jit

N_SUMS = 10  # count; z, y, x; zz, zy, zx, yy, yx, xx
N_BOX = 6  # z0, y0, x0, z1, y1, x1 (half-open)
N_GREY = 5  # first value, sum of deviations from it, sum of their squares, minimum, maximum

HASH_FACTOR = -7046029254386353131  # 2^64 / golden ratio, odd, as a signed number


@jit
def find_slot(label, keys):
    """The slot that holds `label` in a hash table, or the free one (0) where it belongs. `keys` is never full."""
    mask = keys.size - 1
    product = np.int64(label) * HASH_FACTOR
    slot = (product ^ (product >> 32)) & mask
    while keys[slot] != label and keys[slot] != 0:
        slot = (slot + 1) & mask
    return slot


@jit
def collect_labels(labels, keys):
    """Put every label of `labels` (L, X) into the hash table `keys`; return how many, or -1 if it is half full."""
    found = 0
    for line in range(labels.shape[0]):
        last = labels.dtype.type(0)
        for label in labels[line]:
            if label == last:
                continue
            last = label
            if label == 0:
                continue
            slot = find_slot(label, keys)
            if keys[slot] == 0:
                keys[slot] = label
                found += 1
                if 2 * found > keys.size:
                    return -1
    return found


@jit
def add_run(sums, box, row, z, y, start, stop):
    """Add the voxels (z, y, start:stop) to one row of `sums` (N, 10) and `box` (N, 6)."""
    n = stop - start
    sum_x = n * start + n * (n - 1) // 2
    sum_xx = n * start * start + start * n * (n - 1) + n * (n - 1) * (2 * n - 1) // 6
    if sums[row, 0] == 0:
        box[row, 0], box[row, 1], box[row, 2] = z, y, start
        box[row, 3], box[row, 4], box[row, 5] = z + 1, y + 1, stop
    else:  # lines come in order: z0 stays
        box[row, 1], box[row, 2] = min(box[row, 1], y), min(box[row, 2], start)
        box[row, 3], box[row, 4], box[row, 5] = z + 1, max(box[row, 4], y + 1), max(box[row, 5], stop)
    sums[row, 0] += n
    sums[row, 1] += n * z
    sums[row, 2] += n * y
    sums[row, 3] += sum_x
    sums[row, 4] += n * z * z
    sums[row, 5] += n * z * y
    sums[row, 6] += z * sum_x
    sums[row, 7] += n * y * y
    sums[row, 8] += y * sum_x
    sums[row, 9] += sum_xx


@jit
def add_grey_run(grey, row, is_new, image, line, start, stop):
    """Add the grey values `image[line, start:stop]` to one row of `grey` (N, 5)."""
    if is_new:
        grey[row, 0] = grey[row, 3] = grey[row, 4] = image[line, start]
    first, low, high = grey[row, 0], grey[row, 3], grey[row, 4]
    total = 0.0
    squares = 0.0
    for x in range(start, stop):
        value = np.float64(image[line, x])
        deviation = value - first
        total += deviation
        squares += deviation * deviation
        low = min(low, value)
        high = max(high, value)
    grey[row, 1] += total
    grey[row, 2] += squares
    grey[row, 3] = low
    grey[row, 4] = high


@jit
def merge_grey(grey, other, count):
    """Add the sums of `count` values, `other` (5,), to one label's `grey`."""
    offset = other[0] - grey[0]
    grey[1] += other[1] + count * offset
    grey[2] += other[2] + 2.0 * offset * other[1] + count * offset * offset
    grey[3] = min(grey[3], other[3])
    grey[4] = max(grey[4], other[4])


@jit
def list_runs(line, stops):
    """Write where each run of a line (X,) ends to `stops` (X + 1,); return how many runs there are."""
    n_runs = 0
    for x in range(1, line.size):
        stops[n_runs] = x
        n_runs += line[x] != line[x - 1]
    stops[n_runs] = line.size
    return n_runs + 1 if line.size else 0


@jit(parallel=True)
def sum_runs(labels, image, lines_per_slice, keys, rows, stops, sums, box, grey):
    """Sum every label of `labels` (L, X) chunk by chunk.

    keys, rows : hash table of labels and their rows; empty if a label is its own row.
    image      : (L, X), or empty for no grey statistics.
    stops      : (C, X + 1) int64, scratch.
    sums, box, grey : (C, N, 10), (C, N, 6) int64 and (C, N, 5) float64, zero on entry.
    """
    n_lines = labels.shape[0]
    n_chunks = sums.shape[0]
    for chunk in prange(n_chunks):
        # One view for each chunk: a view for each run would cost more than the sums (Numba counts its references).
        chunk_stops, chunk_sums, chunk_box, chunk_grey = stops[chunk], sums[chunk], box[chunk], grey[chunk]
        for line in range(n_lines * chunk // n_chunks, n_lines * (chunk + 1) // n_chunks):
            z = line // lines_per_slice
            y = line - z * lines_per_slice
            start = 0
            for run in range(list_runs(labels[line], chunk_stops)):
                stop = chunk_stops[run]
                label = labels[line, start]
                if label != 0:
                    row = rows[find_slot(label, keys)] if keys.size else np.int64(label)
                    if image.size:
                        add_grey_run(chunk_grey, row, chunk_sums[row, 0] == 0, image, line, start, stop)
                    add_run(chunk_sums, chunk_box, row, z, y, start, stop)
                start = stop


@jit
def merge_chunks(sums, box, grey):
    """Add all chunks to chunk 0, in their order."""
    for row in range(sums.shape[1]):
        for chunk in range(1, sums.shape[0]):
            count = sums[chunk, row, 0]
            if count == 0:
                continue
            if sums[0, row, 0] == 0:
                box[0, row] = box[chunk, row]
                grey[0, row] = grey[chunk, row]
            else:
                for k in range(3):
                    box[0, row, k] = min(box[0, row, k], box[chunk, row, k])
                    box[0, row, k + 3] = max(box[0, row, k + 3], box[chunk, row, k + 3])
                merge_grey(grey[0, row], grey[chunk, row], count)
            for k in range(N_SUMS):
                sums[0, row, k] += sums[chunk, row, k]
