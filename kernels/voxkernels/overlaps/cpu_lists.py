"""The lists of many chunks and images joined: each pair of labels once, ascending, and the size of every label.

What the chunks of an image have listed is set out in columns. Every label of an image is a bit of its number; how many
bits are set before it is its rank. By ranks counts go to the sizes of both labels, and the pairs are sorted, by the
second label and then by the first (a counting sort); equal pairs then follow one another and are added up. A few images
are joined at once: with the bits of one after those of another, ranks and sorted pairs are in the order of the images.
Counts are integers: any order gives the same sums. Images are joined in parallel, and what the threads have written is
moved together: the arrays of the result.

Cost: a few passes over the pairs of all chunks. Memory: 100 bytes for each pair, 2 bits for each number up to the
largest label of an image.
Measured, 10,500 pairs of two slices of grains: 0.10 ms; tables of sizes, a row for each image, and NumPy's sort took
0.35, half of it for pages that the system had to map. 63 images of 12 pairs each, one core: 10 us, 22 where each image
was joined alone, 100 where Python made the arrays of each.
Not checked here: labels and images from 0.
"""

import numpy as np
from numba import prange

from .._compile import jit
from .cpu_words import count_bits, lowest_bit

ZERO, ONE = np.uint64(0), np.uint64(1)
GROUP = 4096  # columns, or words of bits, of images that are joined together: they stay in the L2


@jit
def chunks_of(part, n_parts, n_chunks):
    """The first chunk of a part of them, and the end."""
    return n_chunks * part // n_parts, n_chunks * (part + 1) // n_parts


@jit
def list_pairs(pairs, n_chunks, found, n_parts):
    """The pairs (T * K, 3) that `count_pairs` of `cpu` has listed for T chunks, as columns (3, N): a, b, count.

    Also where the columns of each image begin, with the end of the last (P + 1,), and the largest a and b (2,). Nothing
    if a chunk has failed.
    """
    n = 0 if found.min() < 0 else found.sum()
    columns, begin, top = (
        np.empty((3, n), np.int64),
        np.zeros(found.size // n_chunks + 1, np.int64),
        np.zeros(2, np.int64),
    )
    if n == 0:
        return columns, begin, top
    k = ZERO
    for part in range(n_parts):
        first, end = chunks_of(part, n_parts, found.size)
        row = np.uint64(first * (len(pairs) // found.size))
        for task in range(first, end):
            for _ in range(found[task]):
                a, b = pairs[row, 0], pairs[row, 1]
                columns[0, k], columns[1, k], columns[2, k] = a, b, pairs[row, 2]
                top[0], top[1] = max(top[0], a), max(top[1], b)
                row += ONE
                k += ONE
            begin[task // n_chunks + 1] = k
    return columns, begin, top


@jit
def rank_labels(labels, counts, begin, n_words, listed, sizes, n, bits, before):
    """Put in place of the labels (N,) of P images their ranks: 0 for the lowest of the first image, -1 for background.

    begin         : (P + 1,), where those of each image begin, counted from the first.
    n_words       : in so many words of 64 the largest label is a bit.
    listed, sizes : (N,), written: the label of each rank, and the sum of its counts.
    n             : (P,), written: how many labels above 0 each image has.
    bits, before  : (P * n_words,), scratch.
    """
    bits[: n.size * n_words] = ZERO
    for image in range(n.size):
        for k in range(begin[image] - begin[0], begin[image + 1] - begin[0]):
            if labels[k] > 0:
                labels[k] += 64 * n_words * image
                bits[np.uint64(labels[k] >> 6)] |= ONE << np.uint64(labels[k] & 63)
            else:
                labels[k] = -1
    rank = 0
    for image in range(n.size):
        first = rank
        for w in range(n_words):
            at = n_words * image + w
            before[at] = rank
            word = bits[at]
            while word != ZERO:
                listed[rank], sizes[rank] = 64 * w + np.int64(lowest_bit(word)), 0
                word &= word - ONE
                rank += 1
        n[image] = rank - first
    for k in range(labels.size):
        if labels[k] >= 0:
            w, bit = np.uint64(labels[k] >> 6), ONE << np.uint64(labels[k] & 63)
            rank = labels[k] = before[w] + count_bits(bits[w] & (bit - ONE))
            sizes[rank] += counts[k]


@jit
def sort_by(ranks, order, lower, sorted_):
    """Put the columns `order` (N,) in the order of their `ranks`, equal ones as they were. `lower` is scratch."""
    lower[:] = 0
    for k in order:
        lower[ranks[k] + 1] += 1
    for rank in range(lower.size - 1):
        lower[rank + 1] += lower[rank]
    for k in order:
        rank = ranks[k]
        sorted_[lower[rank]] = k
        lower[rank] += 1


@jit
def join_group(columns, begin, n_words, of_a, of_b, found, n, work, bits, before):
    """Join the columns (3, N) a, b, count of a few images, which begin at begin[p] - begin[0]. See `join_images`.

    Written to the first columns of `of_a`, `of_b` and `found`. work : (3, N + 1), bits and before : scratch.
    """
    a, b, count = columns[0], columns[1], columns[2]
    rank_labels(a, count, begin, n_words[0], of_a[0], of_a[1], n[1], bits, before)
    rank_labels(b, count, begin, n_words[1], of_b[0], of_b[1], n[2], bits, before)
    m = 0
    for k in range(count.size):
        work[0, m] = k
        m += (a[k] >= 0) & (b[k] >= 0)
    order, by_b = work[0, :m], work[1, :m]
    sort_by(b, order, work[2, : n[2].sum() + 1], by_b)
    sort_by(a, by_b, work[2, : n[1].sum() + 1], order)
    n[0] = 0
    k, last_a, last_b, image, end = -1, -1, -1, 0, n[1, 0]
    for column in order:
        one, two = a[column], b[column]
        if (one != last_a) | (two != last_b):
            while one >= end:
                image += 1
                end += n[1, image]
            n[0, image] += 1
            k, last_a, last_b = k + 1, one, two
            found[0, k], found[1, k], found[2, k] = of_a[0, one], of_b[0, two], 0
        found[2, k] += count[column]


@jit
def close_up(table, begin, n, starts, n_parts):
    """Move what the parts have written to `table` together, and write where each image begins, with the last one's end.

    begin : (P + 1,), n : (P,), starts : (P + 1,).
    """
    starts[0] = 0
    for image in range(n.size):
        starts[image + 1] = starts[image] + n[image]
    for part in range(1, n_parts):
        first, end = chunks_of(part, n_parts, n.size)
        for row in range(table.shape[0]):
            for k in range(starts[end] - starts[first]):
                table[row, starts[first] + k] = table[row, begin[first] + k]
    return table[:, : starts[-1]]


@jit(parallel=True)
def join_images(columns, begin, top, n_parts):
    """Join the columns (3, N) a, b, count of each of P images: begin[p]..begin[p + 1] - 1. Overwritten by ranks.

    top : (2,), the largest a and b, or more. n_parts : into how many parts the images are dealt, at most P.

    Returns the distinct pairs of each image without background, ascending, and their counts, (3, K); the labels of each
    and their sizes, (2, A) and (2, B); and where each image begins in these, with the last one's end, (3, P + 1).
    """
    n_images, size = begin.size - 1, columns.shape[1]
    found, of_a, of_b = np.empty((3, size), np.int64), np.empty((2, size), np.int64), np.empty((2, size), np.int64)
    n, starts, n_words = np.empty((3, n_images), np.int64), np.empty((3, n_images + 1), np.int64), (top >> 6) + 1
    most, words = GROUP, n_words.max()
    for image in range(n_images):
        most = max(most, begin[image + 1] - begin[image])
    for part in prange(n_parts):
        work, bits = np.empty((3, most + 1), np.int64), np.empty(max(GROUP, words), np.uint64)
        before = np.empty(bits.size, np.int64)
        image, end = chunks_of(part, n_parts, n_images)
        at = at_a = at_b = begin[image]
        while image < end:
            last = image + 1
            while last < end and begin[last + 1] - begin[image] <= GROUP and (last + 1 - image) * words <= GROUP:
                last += 1
            mine, those = columns[:, begin[image] : begin[last]], n[:, image:last]
            places = of_a[:, at_a:], of_b[:, at_b:], found[:, at:]
            join_group(mine, begin[image : last + 1], n_words, *places, those, work, bits, before)
            at, at_a, at_b = at + those[0].sum(), at_a + those[1].sum(), at_b + those[2].sum()
            image = last
    found = close_up(found, begin, n[0], starts[0], n_parts)
    of_a = close_up(of_a, begin, n[1], starts[1], n_parts)
    of_b = close_up(of_b, begin, n[2], starts[2], n_parts)
    return found, of_a, of_b, starts


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
