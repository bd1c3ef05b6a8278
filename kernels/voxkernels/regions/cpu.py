"""Sums over every label of a volume, in one pass over its runs.

A line of the volume along x falls into runs of equal labels. The ends of its runs are listed first, without a branch
(one that cannot be predicted costs more than all the rest). Then a run of n voxels adds to its label the count, the
sums of y, x and of their three products in closed form, and its ends to the bounding box; what concerns z is added once
for each label and slice. The work is one comparison for each voxel and a few integer operations for each run.

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

Cost: one read of the volume. Memory: 256 bytes for each label and chunk.
Floor: the read, 3 ms for 256^3 int32 on one core. Reached there, in CPU time on a busy machine: 12 ms (balls), 10 ms
(one label), 63 ms (noise, a run for each voxel); with grey values 19, 22 and 87 ms. Moments in full for each run took
155 ms on noise. Calls for each run that are not inlined cost it 60 ms more with grey values, signed rows 8 ms.
Not checked here: labels >= 0, every label has a row, the image has the shape of the labels.
"""

import numpy as np
from numba import prange

from .._compile import jit

N_SUMS = 10  # count; z, y, x; zz, zy, zx, yy, yx, xx
N_BOX = 6  # z0, y0, x0, z1, y1, x1 (half-open)
N_SLICE = 11  # of the slice in hand: count, sums of y, x, yy, yx, xx; y0, x0, y1, x1; its place in the list
N_GREY = 5  # first value, sum of deviations from it, sum of their squares, minimum, maximum

ONE, TWO, THREE, FOUR = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)

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


@jit(parallel=True)
def find_largest(labels, largest):
    """Write the largest label of each of C chunks of `labels` (L, X) to `largest` (C,)."""
    n_lines, n_chunks = labels.shape[0], largest.size
    for chunk in prange(n_chunks):
        top = labels.dtype.type(0)
        for line in range(n_lines * chunk // n_chunks, n_lines * (chunk + 1) // n_chunks):
            for x in range(labels.shape[1]):
                top = max(top, labels[line, x])
        largest[chunk] = top


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


@jit(inline=True)
def add_run(part, plane, row, y, start, stop, sum_xx):
    """Add the voxels (y, start:stop) to one row of a slice's `part` (N, 6) and `plane` (N, 4), not its first."""
    n = stop - start
    sum_x = (n * (start + stop - 1)) >> 1
    if start < plane[row, 1]:
        plane[row, 1] = start
    if stop > plane[row, 3]:
        plane[row, 3] = stop
    plane[row, 2] = y + 1  # lines come in order: y0 stays
    part[row, 0] += n
    part[row, 1] += n * y
    part[row, 2] += sum_x
    part[row, 3] += n * y * y
    part[row, 4] += y * sum_x
    part[row, 5] += sum_xx


@jit
def add_slice(sums, box, part, plane, touched, z):
    """Add what slice z has summed for the rows `touched` to `sums` (N, 10) and `box` (N, 6), and clear it."""
    for row in touched:
        n, sum_y, sum_x = part[row, 0], part[row, 1], part[row, 2]
        if sums[row, 0] == 0:
            box[row, 0], box[row, 1], box[row, 2] = z, plane[row, 0], plane[row, 1]
            box[row, 3], box[row, 4], box[row, 5] = z + 1, plane[row, 2], plane[row, 3]
        else:  # slices come in order: z0 stays
            box[row, 1], box[row, 2] = min(box[row, 1], plane[row, 0]), min(box[row, 2], plane[row, 1])
            box[row, 3] = z + 1
            box[row, 4], box[row, 5] = max(box[row, 4], plane[row, 2]), max(box[row, 5], plane[row, 3])
        sums[row, 0] += n
        sums[row, 1] += n * z
        sums[row, 2] += sum_y
        sums[row, 3] += sum_x
        sums[row, 4] += n * z * z
        sums[row, 5] += z * sum_y
        sums[row, 6] += z * sum_x
        for k in range(3):
            sums[row, 7 + k] += part[row, 3 + k]
        for k in range(6):
            part[row, k] = 0


@jit(inline=True)
def add_grey_run(grey, row, image, line, start, stop):
    """Add the grey values `image[line, start:stop]` to one row of `grey` (N, 5), which has had its first value."""
    first, low, high = grey[row, 0], grey[row, 3], grey[row, 4]
    total = 0.0
    squares = 0.0
    x, end = np.uint64(start), np.uint64(stop)  # unsigned: an index that may be negative costs more
    if stop - start >= 8:  # four sums side by side: one alone would wait for every addition
        total_1 = total_2 = total_3 = 0.0
        squares_1 = squares_2 = squares_3 = 0.0
        low_1 = low_2 = low_3 = low
        high_1 = high_2 = high_3 = high
        while x + FOUR <= end:
            value, value_1 = np.float64(image[line, x]), np.float64(image[line, x + ONE])
            value_2, value_3 = np.float64(image[line, x + TWO]), np.float64(image[line, x + THREE])
            total += value - first
            total_1 += value_1 - first
            total_2 += value_2 - first
            total_3 += value_3 - first
            squares += (value - first) * (value - first)
            squares_1 += (value_1 - first) * (value_1 - first)
            squares_2 += (value_2 - first) * (value_2 - first)
            squares_3 += (value_3 - first) * (value_3 - first)
            low = value if value < low else low
            low_1 = value_1 if value_1 < low_1 else low_1
            low_2 = value_2 if value_2 < low_2 else low_2
            low_3 = value_3 if value_3 < low_3 else low_3
            high = value if value > high else high
            high_1 = value_1 if value_1 > high_1 else high_1
            high_2 = value_2 if value_2 > high_2 else high_2
            high_3 = value_3 if value_3 > high_3 else high_3
            x += FOUR
        total = (total + total_1) + (total_2 + total_3)
        squares = (squares + squares_1) + (squares_2 + squares_3)
        low = min(min(low, low_1), min(low_2, low_3))
        high = max(max(high, high_1), max(high_2, high_3))
    while x < end:
        value = np.float64(image[line, x])
        total += value - first
        squares += (value - first) * (value - first)
        low = value if value < low else low
        high = value if value > high else high
        x += ONE
    grey[row, 1] += total
    grey[row, 2] += squares
    if low < grey[row, 3]:
        grey[row, 3] = low
    if high > grey[row, 4]:
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
def sum_runs(labels, image, lines_per_slice, keys, rows, squares, stops, touched, part, plane, sums, box, grey):
    """Sum every label of `labels` (L, X) chunk by chunk.

    keys, rows : hash table of labels and their rows; empty if a label is its own row.
    image      : (L, X), or empty for no grey statistics.
    squares    : (X + 1,) int64, sum of the squares of all integers below each.
    stops, touched, part, plane : (C, X + 1), (C, N), (C, N, 6), (C, N, 4) int64, scratch; part zero on entry.
    sums, box, grey : (C, N, 10), (C, N, 6) int64 and (C, N, 5) float64, zero on entry.
    """
    n_lines = labels.shape[0]
    n_chunks = sums.shape[0]
    for chunk in prange(n_chunks):
        # One view for each chunk: a view for each run would cost more than the sums (Numba counts its references).
        chunk_stops, chunk_sums, chunk_box, chunk_grey = stops[chunk], sums[chunk], box[chunk], grey[chunk]
        chunk_touched, chunk_part, chunk_plane = touched[chunk], part[chunk], plane[chunk]
        first_line, end_line = n_lines * chunk // n_chunks, n_lines * (chunk + 1) // n_chunks
        n_touched = 0
        z = first_line // lines_per_slice
        for line in range(first_line, end_line):
            if line >= (z + 1) * lines_per_slice:
                add_slice(chunk_sums, chunk_box, chunk_part, chunk_plane, chunk_touched[:n_touched], z)
                n_touched = 0
                z += 1
            y = line - z * lines_per_slice
            start = np.int64(0)
            for run in range(list_runs(labels[line], chunk_stops)):
                stop = chunk_stops[run]
                label = labels[line, start]
                if label != 0:
                    row = np.uint64(rows[find_slot(label, keys)] if keys.size else np.int64(label))
                    if chunk_part[row, 0] == 0:
                        chunk_touched[n_touched] = row
                        n_touched += 1
                        chunk_plane[row, 0], chunk_plane[row, 1] = y, start
                        chunk_plane[row, 3] = stop
                        if image.size and chunk_sums[row, 0] == 0:
                            value = np.float64(image[line, start])
                            chunk_grey[row, 0] = chunk_grey[row, 3] = chunk_grey[row, 4] = value
                    add_run(chunk_part, chunk_plane, row, y, start, stop, squares[stop] - squares[start])
                    if image.size:
                        add_grey_run(chunk_grey, row, image, line, start, stop)
                start = stop
        add_slice(chunk_sums, chunk_box, chunk_part, chunk_plane, chunk_touched[:n_touched], z)


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
