"""Sums over every label of a volume, in one pass over its runs.

A line of the volume along x falls into runs of equal labels. 64 voxels are compared with the next ones in vector
instructions, which leave a word whose bits are the ends of runs. A run of n voxels adds to its label the count, the
sums of y, x and of their three products in closed form, and its ends to the bounding box; what concerns z is added once
for each label and slice. Where many of 64 voxels are runs of their own (noise), they are added one by one instead: what
a voxel adds is a vector of eight numbers, which changes from voxel to voxel by a vector, and so is a label's row; what
its grey value adds is a vector of four.

Position sums are integers modulo 2^64. Addition and shifts of the origin are then exact whatever overflows on the way,
as long as the final sums about a region's own bounding box stay below 2^63, that is count * extent^2 < 9e18. Exact
sums do not depend on order, threads or origin, and the moments derived from them lose nothing to cancellation.

Grey values are summed in floating point as deviations, and squared deviations, from the first value of the region
(shifted data: Chan, Golub and LeVeque, "Algorithms for computing the sample variance", Am. Stat. 37 (1983) 242). That
value is one of the region's own, so its distance from the mean is part of the spread, and a grey offset common to all
drops out before it can do harm.

The lines are cut into chunks whose number depends on the data alone, each with sums of its own, added in the order of
the chunks: results do not depend on the number of threads. Which row a label has: `cpu_rows`. The label of every run is
compared with how many there are, and where one is beyond, all is summed once more with enough.

Cost: one read of the volume. Memory: 256 bytes for each label and chunk.
Floor: the read, 2.5 ms for 256^3 int32 on one core, with nothing in it but one label. Reached on a quiet machine (Zen
5), one core and two: 3.8 and 2.1 ms (balls; cc3d.statistics 65), 2.5 and 1.5 (one label), 23 and 12 (300 labels at
random); with grey values 10.2 and 5.7, 15 and 8, 41 and 21. 64^3, one core: 60 us, of which 9 are the call itself.
What paid: no pass before this one for the largest label, and results derived in one compiled pass over the rows, not by
NumPy's functions, on 64^3 205 and 165 -> 92 and 64 us, on 256^3 6.1 and 3.8 -> 3.8 and 2.1 ms; one piece of zeros for
all tables of a chunk and one function for all results, 64^3 95 -> 83; words of a line by a plain loop, not a range with
a step, and whether there is a hash table asked once, 83 -> 78, 256^3 4.2 -> 3.4 ms; memory asked for ahead, background
left out in words, and one chunk for each thread where all sums are exact, 64^3 85 -> 78 us, 128^3 690 -> 570, 512^3 33
-> 29 ms; the vectors of noise made where there is noise, not before every line, where LLVM puts them, one call for
sums and results, and no index that may be negative, 64^3 71 -> 60 us; voxels of noise added as vectors, 59 and 33 -> 21
and 12, and their grey values, 79 and 41 -> 41 and 21; runs found by words, balls 11.3 and 7.8 -> 5.6 and 3.4. Calls for
each run that are not inlined cost noise 60 ms more with grey values, signed rows 8. With AVX2
alone words that are put in order once: balls 6.2 -> 5.75 (Zen 3 at 2.4 GHz). Did not pay: a slice as one long
line of words (64^3 and 128^3 no change), a mark in every row of grey values that it has none yet (a page of memory for
each; a cathode 15.8 -> 20 ms); the tables zeroed in compiled code (with gaps of 500 between labels 6 -> 21 ms).
Not checked here: the image has the shape of the labels; with a hash table, labels >= 0 and every label has a row.
"""

import numpy as np
from numba import prange

from .._compile import jit
from .cpu_grey import add_grey_run
from .cpu_results import list_regions
from .cpu_rows import find_slot
from .cpu_tables import tables_of
from .cpu_words import (
    N_PART,
    add_grey_voxels,
    add_voxels,
    all_below,
    count_bits,
    equal_bits,
    lowest_bit,
    prefetch,
    run_ends,
)

MANY = 20  # runs among 64 voxels from which these are added one by one
AHEAD = 2048  # how many voxels ahead memory is asked for: further than the hardware does here
ALL, ONE = np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(1)


@jit
def last_words(flat, start, n):
    """As `run_ends` and `equal_bits` of 0, voxel by voxel, for n voxels at the end of the labels."""
    ends = void = np.uint64(0)
    for k in range(n):
        void |= np.uint64(flat[start + k] == 0) << np.uint64(k)
        if k + 1 < n:
            ends |= np.uint64(flat[start + k] != flat[start + k + 1]) << np.uint64(k)
    return ends, void


@jit(inline=True)
def add_run(part, plane, row, y, start, stop, sum_xx, n_x):
    """Add the voxels (y, start:stop) to one row of a slice's `part` (N, 8) and `plane` (N, 2). Lines of n_x voxels."""
    n = stop - start
    sum_x = (n * (start + stop - 1)) >> 1
    plane[row, 1] = y + 1  # lines come in order: y0 stays
    part[row, 0] += n
    part[row, 1] += n * y
    part[row, 2] += sum_x
    part[row, 3] += n * y * y
    part[row, 4] += y * sum_x
    part[row, 5] += sum_xx
    part[row, 6] = max(part[row, 6], n_x - start)
    part[row, 7] = max(part[row, 7], stop)


@jit
def add_slice(sums, box, part, plane, touched, z, n_x):
    """Add what slice z has summed for the rows `touched` to `sums` (N, 10) and `box` (N, 6), and clear it."""
    for row in touched:
        n, sum_y, sum_x, first_x = part[row, 0], part[row, 1], part[row, 2], n_x - part[row, 6]
        if sums[row, 0] == 0:
            box[row, 0], box[row, 1], box[row, 2] = z, plane[row, 0], first_x
            box[row, 3], box[row, 4], box[row, 5] = z + 1, plane[row, 1], part[row, 7]
        else:  # slices come in order: z0 stays
            box[row, 1], box[row, 2] = min(box[row, 1], plane[row, 0]), min(box[row, 2], first_x)
            box[row, 3] = z + 1
            box[row, 4], box[row, 5] = max(box[row, 4], plane[row, 1]), max(box[row, 5], part[row, 7])
        sums[row, 0] += n
        sums[row, 1] += n * z
        sums[row, 2] += sum_y
        sums[row, 3] += sum_x
        sums[row, 4] += n * z * z
        sums[row, 5] += z * sum_y
        sums[row, 6] += z * sum_x
        for k in range(3):
            sums[row, 7 + k] += part[row, 3 + k]
        for k in range(N_PART):
            part[row, k] = 0


@jit(parallel=True)
def sum_runs(labels, image, lines_per_slice, keys, rows, squares, memory, beyond):
    """Sum every label of `labels` (L, X) chunk by chunk, in N rows.

    keys, rows : hash table of labels and their rows; empty if a label is its own row. Then row 0 may hold anything.
    beyond     : (C,) int64: the largest label that has no row, or 0; -1 if a label is negative. Then the sums are void.
    image      : (L, X), or empty for no grey statistics.
    squares    : (X + 1,) int64, sum of the squares of all integers below each.
    memory     : (C, N_ROW * N + LINE) int64, zero on entry; see `tables_of`.
    """
    n_lines, n_x = labels.shape
    flat, values = labels.reshape(-1), image.reshape(-1)
    n_chunks, dense, zero = memory.shape[0], keys.size == 0, labels.dtype.type(0)
    for chunk in prange(n_chunks):
        # One view for each table: a view for each run would cost more than the sums (Numba counts its references).
        chunk_part, chunk_sums, chunk_box, chunk_plane, chunk_touched, chunk_grey = tables_of(memory[chunk])
        all_rows = np.uint64(chunk_touched.size)
        flat_part, flat_plane, flat_grey = chunk_part.reshape(-1), chunk_plane.reshape(-1), chunk_grey.reshape(-1)
        first_line, end_line = n_lines * chunk // n_chunks, n_lines * (chunk + 1) // n_chunks
        n_touched, largest = 0, 0
        z, y, begin = first_line // lines_per_slice, first_line % lines_per_slice, first_line * n_x
        for _ in range(first_line, end_line):
            start = first = np.int64(0)
            begins = ONE  # whether a run begins with the word
            n = np.int64(0)
            while first + n < n_x:
                first += n
                n = min(64, n_x - first)
                at = begin + first
                kept = ALL >> np.uint64(64 - n)
                if at + 65 <= flat.size:
                    for step in range(4):
                        prefetch(flat, np.uint64(at + AHEAD + 16 * step))
                    ends = run_ends(flat, np.uint64(at)) & kept
                    if ends == 0 and flat[np.uint64(at)] == 0:
                        begins = np.uint64(0)
                        continue
                    void = equal_bits(flat, np.uint64(at), zero)
                else:
                    ends, void = last_words(flat, at, n)
                goes_on = (begins | (void & ONE)) == 0  # a run with a label, from the word before
                alone = count_bits(ends) >= MANY and dense and at + 64 <= flat.size
                alone = alone and all_below(flat, np.uint64(at), labels.dtype.type(all_rows))
                if alone and not goes_on:
                    n_before = n_touched
                    n_touched = add_voxels(
                        flat, at, n, flat_part, flat_plane, chunk_touched, n_touched, np.int64(first), np.int64(y), n_x
                    )
                    if image.size:
                        for row in chunk_touched[n_before:n_touched]:
                            if chunk_sums[row, 0] == 0:  # no value so far
                                chunk_grey[row, 3], chunk_grey[row, 4] = np.inf, -np.inf
                        add_grey_voxels(flat, at, n, values, flat_grey)
                    begins = ONE
                    continue
                if first + n == n_x or alone:  # the run ends here, or is cut before voxels that are added one by one
                    ends |= ONE << np.uint64(n - 1)
                # where runs with a label begin and end, in the same order
                starts = (ends << ONE | begins) & kept & ~void
                begins = ends >> np.uint64(63)
                ends &= ~void
                if not goes_on:
                    start = first + np.int64(lowest_bit(starts))
                    starts &= starts - ONE
                while ends != 0:
                    stop = first + np.int64(lowest_bit(ends)) + 1
                    ends &= ends - ONE
                    label = flat[np.uint64(begin + start)]
                    row = np.uint64(rows[find_slot(label, keys)] if keys.size else np.int64(label))
                    if row >= all_rows:
                        largest = -1 if label < 0 or largest < 0 else max(largest, label)
                        row = np.uint64(0)
                    if chunk_part[row, 0] == 0:
                        chunk_touched[n_touched] = row
                        n_touched += 1
                        chunk_plane[row, 0] = y
                        if image.size and chunk_sums[row, 0] == 0:
                            value = np.float64(values[np.uint64(begin + start)])
                            chunk_grey[row, 0] = chunk_grey[row, 3] = chunk_grey[row, 4] = value
                    add_run(chunk_part, chunk_plane, row, y, start, stop, squares[stop] - squares[start], n_x)
                    if image.size:
                        add_grey_run(chunk_grey, row, values, begin + start, begin + stop)
                    start = first + np.int64(lowest_bit(starts))
                    starts &= starts - ONE
            y, begin = y + 1, begin + n_x
            if y == lines_per_slice:
                add_slice(chunk_sums, chunk_box, chunk_part, chunk_plane, chunk_touched[:n_touched], z, n_x)
                z, y, n_touched = z + 1, 0, 0
        add_slice(chunk_sums, chunk_box, chunk_part, chunk_plane, chunk_touched[:n_touched], z, n_x)
        beyond[chunk] = largest


_sum_runs = sum_runs.dispatcher  # to be called by a kernel


@jit(around=True)
def measure(labels, image, lines_per_slice, keys, rows, squares, memory, corner, spacing):
    """Sum every label of `labels` (L, X), see `sum_runs`; derive the results, see `list_regions`.

    Returns the largest label that has no row, or 0, or -1 if a label is negative; and the results, void if it is not 0.
    """
    beyond = np.empty(memory.shape[0], np.int64)
    _sum_runs(labels, image, lines_per_slice, keys, rows, squares, memory, beyond)
    found = list_regions(memory, 0 if keys.size else 1, image.size > 0, corner, spacing)
    return beyond.max() if beyond.min() >= 0 else np.int64(-1), found
