"""How many pixels each pair of labels of two images shares.

Both images are read side by side, line by line, as runs over which neither label changes. A run adds its length to the
counter of its pair, found in a hash table (open addressing, linear probing); the run of two backgrounds is skipped.
Work is one comparison for each pixel and one look-up for each run, and only pairs that occur take memory. Pairs with
one background are counted too: with them, the sums over all partners of a label are its size.

The lines are cut into chunks with a table each. Counts are integers, so the sum over the chunks is exact, and the same
whatever the number of threads.

Cost: one read of both images. Memory: 24 bytes for each slot, at least two slots for each pair of a chunk.
Not checked here: labels >= 0, equal shapes, a table size that is a power of two.
"""

import numpy as np
from numba import prange

from .._compile import jit

HASH_FACTOR = -7046029254386353131  # 2^64 / golden ratio, odd, as a signed number
HASH_FACTOR_B = -4658895280553007687  # another odd number with bits everywhere


@jit
def find_pair(a, b, table):
    """The row of `table` (S, 3) that counts the pair (a, b), or the free one where it belongs. It is never full."""
    mask = table.shape[0] - 1
    product = np.int64(a) * HASH_FACTOR + np.int64(b) * HASH_FACTOR_B
    slot = (product ^ (product >> 32)) & mask
    while table[slot, 2] != 0 and (table[slot, 0] != a or table[slot, 1] != b):
        slot = (slot + 1) & mask
    return slot


@jit(parallel=True)
def count_pairs(labels_a, labels_b, tables, found):
    """Count the pairs of labels of two images (L, X), chunk by chunk.

    tables : (C, S, 3) int64, zero on entry; rows a, b, count in no particular order.
    found  : (C,) int64, number of pairs of each chunk, or -1 where the table became half full and counting stopped.
    """
    n_lines, n_x = labels_a.shape
    n_chunks, n_slots = tables.shape[:2]
    for chunk in prange(n_chunks):
        table = tables[chunk]
        n_pairs = 0
        for line in range(n_lines * chunk // n_chunks, n_lines * (chunk + 1) // n_chunks):
            line_a = labels_a[line]
            line_b = labels_b[line]
            stop = 0
            while stop < n_x and n_pairs >= 0:
                start = stop
                a = line_a[start]
                b = line_b[start]
                stop += 1
                while stop < n_x and line_a[stop] == a and line_b[stop] == b:
                    stop += 1
                if a == 0 and b == 0:
                    continue
                slot = find_pair(a, b, table)
                if table[slot, 2] == 0:
                    table[slot, 0] = a
                    table[slot, 1] = b
                    n_pairs = n_pairs + 1 if 2 * n_pairs < n_slots else -1
                table[slot, 2] += stop - start
        found[chunk] = n_pairs
