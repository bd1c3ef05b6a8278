"""How many pixels each pair of labels of two images shares.

Both images are read side by side, line by line, as runs over which neither label changes. The ends of a line's runs are
listed first, without a branch: the list grows by the outcome of the comparison (a branch that cannot be predicted at
every end costs five times as much). A run then adds its length to the counter of its pair, found in a hash table (open
addressing, linear probing); the run of two backgrounds is skipped. Work is one comparison for each pixel and one hash
for each run, and only pairs that occur take memory. Pairs with one background are counted too: with them, the sums over
all partners of a label are its size.

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


@jit
def list_runs(line_a, line_b, stops):
    """Write where each run of two lines (X,) ends to `stops` (X + 1,); return how many runs there are."""
    n_runs = 0
    for x in range(1, line_a.size):
        stops[n_runs] = x
        n_runs += (line_a[x] != line_a[x - 1]) | (line_b[x] != line_b[x - 1])
    stops[n_runs] = line_a.size
    return n_runs + 1 if line_a.size else 0


@jit(parallel=True)
def count_pairs(labels_a, labels_b, stops, tables, found):
    """Count the pairs of labels of two images (L, X), chunk by chunk.

    stops  : (C, X + 1) int64, scratch.
    tables : (C, S, 3) int64, zero on entry; rows a, b, count in no particular order.
    found  : (C,) int64, number of pairs of each chunk, or -1 where the table became half full and counting stopped.
    """
    n_lines = labels_a.shape[0]
    n_chunks, n_slots = tables.shape[:2]
    for chunk in prange(n_chunks):
        table = tables[chunk]
        chunk_stops = stops[chunk]
        n_pairs = 0
        for line in range(n_lines * chunk // n_chunks, n_lines * (chunk + 1) // n_chunks):
            start = 0
            for run in range(list_runs(labels_a[line], labels_b[line], chunk_stops)):
                stop = chunk_stops[run]
                a = labels_a[line, start]
                b = labels_b[line, start]
                if (a != 0 or b != 0) and n_pairs >= 0:
                    slot = find_pair(a, b, table)
                    if table[slot, 2] == 0:
                        table[slot, 0] = a
                        table[slot, 1] = b
                        n_pairs = n_pairs + 1 if 2 * n_pairs < n_slots else -1
                    table[slot, 2] += stop - start
                start = stop
        found[chunk] = n_pairs
