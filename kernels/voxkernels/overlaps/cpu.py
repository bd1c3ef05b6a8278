"""How many pixels each pair of labels of two images shares.

Both images are read side by side, as runs over which neither label changes: a line follows the one before it. 64 pixels
are compared with the next ones in vector instructions, which leave one word of 64 bits: each bit that is set is the end
of a run, and a word of 0 is skipped. A run adds its length to the counter of its pair, found in a hash table (open
addressing, linear probing), two backgrounds among them. Work is a fraction of a comparison for each pixel and one hash
for each run, and only pairs that occur take memory. Pairs with one background are counted too: with them, the sums over
all partners of a label are its size.

Where runs are so short that few pixels share a look-up, a table of all pairs (`cells`) takes its place, and a word in
which most pixels are runs of their own is counted pixel by pixel: no hash, no sorting. Labels beyond the cells, which
are as many as a sample of the pixels suggests, still go to the hash table.

Many pairs of images can be counted in one call. Each is cut into chunks, each counted in a table of the thread's and
listed. Counts are integers, so the sum over the chunks is exact, and the same for any number of threads. A stack of
noise has tables of all pairs, too: one for each thread, emptied into the result after every image.

Cost: one read of both images. Memory: 24 bytes for each pair of a chunk; 24 for each slot, at least two slots for each
pair, once for each thread, which empties it by the list of the pairs that it has met. Not checked here: equal shapes,
slots that are a power of two.

Measured on a quiet machine (Zen 5), one core and two: 2.8 and 4.5 Gpix/s on two slices of an electrode at 2048^2 (1984
pairs), 4.3 and 7 on constant images, 1.35 and 2.1 on 300 labels at random (90,000 pairs; a compiled loop into a dense
table 0.8), 1.1 and 1.9 on a cathode (6840 pairs), 0.95 and 1.5 to 1.7 on a stack of grains; 1000 labels at random, a
million pairs, two cores: 4.9 ms at 2048^2 (the loop, which lists nothing, 8.7), 3.0 at 1024^2 (3.2). The floor is one
read of both images, 0.2 ns a pixel on one core, and 5 ns for each run; of noise one access to the L2 or L3 a pixel, and
each pair's 24 bytes of result, whose memory is new.
What paid, on noise, two cores: cells at the first sign of noise in place of a hash table that overflows, 7.5 -> 3.8 ms,
and pixel by pixel, -> 2.5; the result from the cells at once, not from columns sorted and joined, 2.9 -> 2.0, and of
1000 labels 22 -> 4.9; for a stack, cells image by image, -> 166 ms at 256^3, and a table for each thread, whose pairs
go to one block of memory, -> 35 (the loop, which lists nothing: 92). In pages of 4 KiB that memory alone takes 90. The
pairs of one image right behind those of the one before, 403 -> 299 MB, of which the result is 284, and 28 -> 23.5 ms.
Did not pay there: threads that write images next to one another, since both clear a large page where they meet (37 ms).
What paid elsewhere, on a cathode: sizes summed in tables and one sort, not three, 1.1 -> 0.7 ms after counting; the
runs of two backgrounds in the hash table, as a branch for them is not foreseen, 1.23 -> 1.02 ms of counting on grains.
Two slices of grains, two cores, 2.1 -> 1.06 ms, and where memory was new 4.7: a table of the thread's in place of one
for each chunk, and lists joined by ranks. Memory of zeros that is read before it is written is mapped twice, and with
two threads at work the second time stops both: 700 pages took 3 ms. So what threads share comes empty, and each clears
what it uses. A stack of 64^3, one core and two: 201 and 144 us -> 118 and 78, of 128^3 1.13 and 0.74 ms -> 0.95 and
0.55, by a result of a few arrays for all slices, a table that is emptied slot by slot, and two calls of compiled code
instead of three that find their memory given. Slots that cannot be negative, and images by their place in flat arrays:
a stack of 64^3, one core, 124 -> 114 us, of 256^3 6.7 -> 6.1 ms.
Did not pay: one byte instead of one bit for each pixel, written and read again (0.6 times the speed); an
index of 4 bytes a slot into the list of pairs, in place of the table (runs of 7 ns become 12).
"""

import numpy as np
from numba import prange

from .._compile import jit
from .cpu_lists import chunks_of, list_pairs
from .cpu_words import all_below, count_bits, lowest_bit, prefetch, run_ends

HASH_FACTOR = -7046029254386353131  # 2^64 / golden ratio, odd, as a signed number
AHEAD = 1024  # how many pixels ahead memory is asked for: further than the hardware does here
ENOUGH, SHORT = 2048, 4  # so many pixels, or runs, are enough to see that runs are shorter than this: no table then
MANY = 32  # runs among 64 pixels from which pixels are counted one by one
HASH_FACTOR_B = -4658895280553007687  # another odd number with bits everywhere


@jit
def last_run_ends(a, b, start, stop):
    """As `run_ends`, pixel by pixel, for at most 64 pixels at the end of a chunk: with `stop` a run ends."""
    bits = np.uint64(1) << np.uint64(stop - 1 - start)
    for x in range(start, stop - 1):
        bits |= np.uint64((a[x] != a[x + 1]) | (b[x] != b[x + 1])) << np.uint64(x - start)
    return bits


@jit
def find_pair(a, b, table):
    """The row of `table` (S, 3) that counts the pair (a, b), or the free one where it belongs. It is never full."""
    mask = np.uint64(table.shape[0] - 1)  # unsigned: an index that may be negative costs more
    product = np.int64(a) * HASH_FACTOR + np.int64(b) * HASH_FACTOR_B
    slot = np.uint64(product ^ (product >> 32)) & mask
    while table[slot, 2] != 0 and (table[slot, 0] != a or table[slot, 1] != b):
        slot = (slot + np.uint64(1)) & mask
    return slot


@jit
def add_run(a, b, n, table, n_pairs):
    """Add a run of n pixels to a table that holds `n_pairs`; return how many it holds then, or -1 if half full."""
    slot = find_pair(a, b, table)
    if table[slot, 2] == 0:
        if 2 * n_pairs >= table.shape[0]:
            return -1
        n_pairs += 1
        table[slot, 0] = a
        table[slot, 1] = b
    table[slot, 2] += n
    return n_pairs


@jit
def empty_table(table, pairs, n_pairs):
    """Put the counts of the listed pairs in place of their slots, and zero in these."""
    for k in range(n_pairs):
        slot = pairs[k, 2]
        pairs[k, 2] = table[slot, 2]
        table[slot, 2] = 0


@jit
def add_runs(a, b, first, stop, table, pairs, cells, may_give_up):
    """Add the runs of pixels first..stop-1 of two flat images to `cells` (A, B), and list what is beyond in `pairs`.

    table : (2 * K, 3), no counts in it, before and after.
    Returns the number of pairs (K, 3) that are listed, or -1 where there are more than K, a power of two, -2 where a
    label is negative, -3 where runs are so short that cells would be better.
    """
    n_pairs, run, n_runs = 0, first, 0
    if may_give_up:
        look = min(ENOUGH, (stop - first) // 8 // 64 * 64)
        for start in range(first, first + look, 64):
            n_runs += count_bits(run_ends(a, b, np.uint64(start)))
        if SHORT * n_runs > look:
            return -3
        n_runs = 0
    n_a, n_b = np.uint64(cells.shape[0]), np.uint64(cells.shape[1])
    cells_a, cells_b = a.dtype.type(cells.shape[0]), b.dtype.type(cells.shape[1])
    for start in range(first, stop, 64):
        if start + 64 < stop:
            for line in range(4):
                prefetch(a, np.uint64(start + AHEAD + 16 * line))
                prefetch(b, np.uint64(start + AHEAD + 16 * line))
            bits = run_ends(a, b, np.uint64(start))
        else:
            bits = last_run_ends(a, b, start, stop)
        if count_bits(bits) >= MANY and start + 64 < stop and run == start:
            x = np.uint64(start)
            if all_below(a, x, cells_a) and all_below(b, x, cells_b):
                for k in range(64):
                    cells[np.uint64(a[x + np.uint64(k)]), np.uint64(b[x + np.uint64(k)])] += np.uint32(1)
                run = start + 64
                continue
        if may_give_up:
            n_runs += count_bits(bits)
            if n_runs > max(ENOUGH, (start - first) // SHORT):
                empty_table(table, pairs, n_pairs)
                return -3
        while bits != 0:
            end = start + np.int64(lowest_bit(bits))
            bits &= bits - np.uint64(1)
            one, two = a[np.uint64(end)], b[np.uint64(end)]
            if (np.uint64(one) < n_a) & (np.uint64(two) < n_b):
                cells[np.uint64(one), np.uint64(two)] += np.uint32(end + 1 - run)
            elif one | two < 0:
                empty_table(table, pairs, n_pairs)
                return -2
            else:
                n = add_run(one, two, end + 1 - run, table, n_pairs)
                if n < 0:
                    empty_table(table, pairs, n_pairs)
                    return -1
                if n > n_pairs:
                    pairs[n_pairs, 0], pairs[n_pairs, 1], pairs[n_pairs, 2] = one, two, find_pair(one, two, table)
                    n_pairs = n
            run = end + 1
    empty_table(table, pairs, n_pairs)
    return n_pairs


@jit
def empty_cells(cells, pairs, size_a, size_b):
    """Write the cells (A, B) that are not 0, of labels above 0, to pairs (3, K) a, b, count; return how many.

    Their sums are added to size_a (A,) and size_b (B,), and all cells set to 0.
    """
    n = np.uint64(0)
    for one in range(cells.shape[0]):
        for two in range(cells.shape[1]):
            size_a[one] += cells[one, two]
            size_b[two] += cells[one, two]
        for two in range(1, cells.shape[1] if one > 0 else 1):
            pairs[0, n], pairs[1, n], pairs[2, n] = one, two, cells[one, two]
            n += np.uint64(cells[one, two] > 0)
        cells[one] = 0
    return n


@jit(parallel=True)
def count_pairs(images_a, images_b, n_chunks, slots, cells, may_give_up, n_parts):
    """Count the pairs of labels of P pairs of images (P, N pixels), each in chunks: T = P * n_chunks lists.

    slots : in each chunk's table, a power of two.
    cells : (T, A, B) uint32, written: the pixels of every pair of labels below A and B, which then are not in the
            lists. A and B may be 0.

    Returns how many pairs each chunk has, (T,) int64, or -1 where there are more than half the slots, -2 where a label
    is negative, -3 where runs are short (if it `may_give_up`): counting stopped there. If none is negative, also the
    lists, see `list_pairs`.
    """
    n_pixels, room, n_tasks = images_a.shape[1], slots // 2, len(cells)
    a, b = images_a.reshape(-1), images_b.reshape(-1)
    pairs, found = np.empty((n_tasks * room, 3), np.int64), np.empty(n_tasks, np.int64)
    for part in prange(n_parts):
        table = np.empty((slots, 3), np.int64)
        table[:] = 0
        begin, end = chunks_of(part, n_parts, n_tasks)
        row = begin * room
        for task in range(begin, end):
            image, chunk = task // n_chunks, task % n_chunks
            first = n_pixels * image + n_pixels * chunk // n_chunks
            stop = n_pixels * image + n_pixels * (chunk + 1) // n_chunks
            listed = pairs[row : row + room]
            cells[task] = 0  # by the thread that uses it
            n = add_runs(a, b, first, stop, table, listed, cells[task], may_give_up)
            found[task] = n
            row += max(n, 0)  # the lists of a thread lie one after another
    columns, begin_of, top = list_pairs(pairs, n_chunks, found, n_parts)
    return found, columns, begin_of, top


@jit(parallel=True)
def count_images(images_a, images_b, most, cells, pairs, size_a, size_b, n):
    """Count the pairs of labels of P pairs of images (P, N pixels) in tables of all pairs, one for each of T tasks.

    most   : that many pairs an image may have.
    cells  : (T, A, B) uint32, scratch.
    pairs  : (3, P * most + T) int64, a, b, count of every pair of an image, ascending, of labels above 0. Those of all
             images of a task follow one another, from `most` times its first image on, and one for each task before.
    size_a, size_b : (P, A), (P, B) int64, the pixels of every label.
    n      : (P,) int64, how many pairs; -1 where there are labels beyond the cells, or negative ones.
    """
    n_images, n_tasks = images_a.shape[0], cells.shape[0]
    for task in prange(n_tasks):
        cells[task] = 0
        table, beyond = np.zeros((2, 3), np.int64), np.empty((1, 3), np.int64)
        first, end = chunks_of(task, n_tasks, n_images)
        at = first * most + task
        for image in range(first, end):
            size_a[image], size_b[image] = 0, 0
            some = add_runs(images_a[image], images_b[image], 0, images_a.shape[1], table, beyond, cells[task], False)
            n[image] = empty_cells(cells[task], pairs[:, at:], size_a[image], size_b[image])
            if some != 0:
                n[image] = -1
                size_a[image], size_b[image] = 0, 0
            at += max(n[image], 0)
