"""The lists of many chunks and images joined: each pair of labels once, ascending, and the size of every label.

What the chunks of an image have listed is set out in columns. Every label of an image is a bit of its number; how many
bits are set before it is its rank. By ranks counts go to the sizes of both labels, and the pairs are sorted, by the
second label and then by the first (a counting sort); equal pairs then follow one another and are added up. Counts are
integers: any order gives the same sums. Images are joined in parallel.

Cost: a few passes over the pairs of all chunks. Memory: 100 bytes for each pair, 3 bits for each number up to the
largest label of an image.
Measured, 10,500 pairs of two slices of grains: 0.10 ms; tables of sizes, a row for each image, and NumPy's sort took
0.35, half of it for pages that the system had to map.
Not checked here: labels and images from 0.
"""

import numpy as np
from numba import prange

from .._compile import jit
from .cpu_words import count_bits, lowest_bit

ZERO, ONE = np.uint64(0), np.uint64(1)


@jit
def list_pairs(pairs, n_chunks, found):
    """The first `found` (T,) rows of lists (T, K, 3) as columns (3, N): a, b, count.

    The lists are of chunks, `n_chunks` of each image. Also where the columns of each image begin, with the end of the
    last (P + 1,), and the largest a and b (2,).
    """
    columns, begin, k = np.empty((3, found.sum()), np.int64), np.zeros(found.size // n_chunks + 1, np.int64), ZERO
    top = np.zeros(2, np.int64)
    for task in range(found.size):
        for row in range(found[task]):
            a, b = pairs[task, row, 0], pairs[task, row, 1]
            columns[0, k], columns[1, k], columns[2, k] = a, b, pairs[task, row, 2]
            top[0], top[1] = max(top[0], a), max(top[1], b)
            k += ONE
        begin[task // n_chunks + 1] = k
    return columns, begin, top


@jit
def rank_labels(labels, counts, listed, sizes):
    """Put in place of N labels their ranks: 0 for the background, be it there or not, and 1 for the lowest label.

    listed, sizes : (N,), written: each label above 0, ascending, and the sum of its counts.
    Returns how many these are, and how many of N have lower ranks than each.
    """
    n_words = (labels.max() >> 6) + 1
    bits, before = np.zeros(n_words, np.uint64), np.empty(n_words, np.int64)
    bits[0] = ONE
    for label in labels:
        bits[np.uint64(label >> 6)] |= ONE << np.uint64(label & 63)
    n = 0
    for w in range(n_words):
        before[w] = n
        word = bits[w]
        while word != ZERO:
            if n > 0:
                listed[n - 1], sizes[n - 1] = 64 * w + np.int64(lowest_bit(word)), 0
            word &= word - ONE
            n += 1
    lower = np.zeros(n + 1, np.int64)
    for k in range(labels.size):
        w, bit = np.uint64(labels[k] >> 6), ONE << np.uint64(labels[k] & 63)
        rank = labels[k] = before[w] + count_bits(bits[w] & (bit - ONE))
        lower[rank + 1] += 1
        if rank > 0:
            sizes[rank - 1] += counts[k]
    for rank in range(n):
        lower[rank + 1] += lower[rank]
    return n - 1, lower


@jit
def sort_by(ranks, lower, order, sorted_):
    """Put the columns `order` (N,) in the order of their `ranks`, equal ones as they were; `lower` is used up."""
    for k in order:
        rank = ranks[k]
        sorted_[lower[rank]] = k
        lower[rank] += 1


@jit
def join_image(columns, first, stop, of_a, of_b, found, n):
    """Join the columns first..stop-1 of columns (3, N) a, b, count: those of one image. See `join_images`."""
    a, b, count = columns[0][first:stop], columns[1][first:stop], columns[2][first:stop]
    labels_a, labels_b = of_a[0][first:stop], of_b[0][first:stop]
    ids_a, ids_b, sums = found[0][first:stop], found[1][first:stop], found[2][first:stop]
    n[0] = n[1] = n[2] = 0
    if stop == first:
        return
    n[1], lower_a = rank_labels(a, count, labels_a, of_a[1][first:stop])
    n[2], lower_b = rank_labels(b, count, labels_b, of_b[1][first:stop])
    order, by_b = np.arange(stop - first), np.empty(stop - first, np.int64)
    sort_by(b, lower_b, order, by_b)
    sort_by(a, lower_a, by_b, order)
    k, last_a, last_b = -1, 0, 0
    for column in order:
        one, two = a[column], b[column]
        if (one == 0) | (two == 0):
            continue
        if (one != last_a) | (two != last_b):
            k, last_a, last_b = k + 1, one, two
            ids_a[k], ids_b[k], sums[k] = labels_a[one - 1], labels_b[two - 1], 0
        sums[k] += count[column]
    n[0] = k + 1


@jit
def close_up(table, begin, n, starts):
    """Move the n[p] columns of `table` from begin[p] on to where those of the image before end; write these places.

    begin : (P + 1,), n : (P,), starts : (P + 1,).
    """
    starts[0] = 0
    for image in range(n.size):
        starts[image + 1] = starts[image] + n[image]
        for row in range(table.shape[0]):
            for k in range(n[image]):
                table[row, starts[image] + k] = table[row, begin[image] + k]


@jit(parallel=True)
def join_images(columns, begin, of_a, of_b, found, starts):
    """Join the columns (3, N) a, b, count of each of P images: begin[p]..begin[p + 1] - 1. Overwritten by ranks.

    of_a, of_b : (2, N), written: the labels of each image, ascending, and their sizes.
    found      : (3, N), written: the distinct pairs of each image without background, ascending, and their counts.
    starts     : (3, P + 1), written: where each image begins in `found`, `of_a` and `of_b`, and where the last ends.
    """
    n = np.empty((3, begin.size - 1), np.int64)
    for image in prange(n.shape[1]):
        join_image(columns, begin[image], begin[image + 1], of_a, of_b, found, n[:, image])
    close_up(found, begin, n[0], starts[0])
    close_up(of_a, begin, n[1], starts[1])
    close_up(of_b, begin, n[2], starts[2])


@jit
def list_sizes(sizes):
    """The labels above 0 of which sizes (P, A) are not 0, and these: (2, N); and where those of each image begin."""
    begin, n = np.zeros(sizes.shape[0] + 1, np.int64), np.uint64(0)
    for image in range(sizes.shape[0]):
        begin[image + 1] = begin[image] + np.count_nonzero(sizes[image, 1:])
    found = np.empty((2, begin[-1] + 1), np.int64)
    for image in range(sizes.shape[0]):
        for label in range(1, sizes.shape[1]):
            found[0, n], found[1, n] = label, sizes[image, label]
            n += np.uint64(sizes[image, label] > 0)
    return found[:, :n], begin


@jit
def sum_cells(cells):
    """Add the tables `cells` (T, A, B) up into the first; return the sums of its rows and columns, and how many pairs.

    A pair is a cell that is not 0, of two labels above 0.
    """
    n_tables, n_a, n_b = cells.shape
    sizes_a, sizes_b, n = np.zeros(n_a, np.int64), np.zeros(n_b, np.int64), 0
    for one in range(n_a):
        for task in range(1, n_tables):
            for two in range(n_b):
                cells[0, one, two] += cells[task, one, two]
        for two in range(n_b):
            sizes_a[one] += cells[0, one, two]
            sizes_b[two] += cells[0, one, two]
            n += (one > 0) & (two > 0) & (cells[0, one, two] > 0)
    return sizes_a, sizes_b, n


@jit
def list_cells(cells, first, n):
    """The n cells of the first table in `cells` (T, A, B) that are not 0, of labels from `first`: a, b, count."""
    a, b, count, k = np.empty(n + 1, np.int64), np.empty(n + 1, np.int64), np.empty(n + 1, np.int64), np.uint64(0)
    for one in range(first, cells.shape[1]):
        for two in range(first, cells.shape[2]):
            a[k], b[k], count[k] = one, two, cells[0, one, two]
            k += np.uint64(cells[0, one, two] > 0)
    return a[:n], b[:n], count[:n]
