"""Connected components of equal voxels, by runs and bits, on the CPU.

Every row (a line along x) is cut into runs of equal positive values. What decides is kept as one bit for each voxel, 64
to a word: `some` (not background), `starts` (a run begins), `left` and `up` (equal to the voxel of row y - 1, and of
slice z - 1). A run is known by how many start before it, so that runs are counted but never listed.

Runs that touch are united in a forest whose roots are always the run that comes first in memory. Which runs touch is
found 64 voxels at a time. Where a run lies along a run of another row, one union is enough; and none where it follows
from others: if the four voxels of a square in y and z are equal anywhere along the two runs, the way round the square
has joined them. An addition carries that knowledge from anywhere in a stretch of bits to its end. What is left are a
few unions where the shape changes. Corners are looked at only where both rows change at the same x; values are compared
only there, and only where volumes hold several.

Rows are dealt out to the threads in contiguous parts: each part unites its own runs, which touches no other part's; the
rows at the seams are united afterwards, one part after the other. Since a root is the first run of its component,
numbering the roots in order numbers components by their first voxel in C order, whatever the number of parts.

Source: run-based labelling, He, Chao and Suzuki, IEEE Trans. Image Process. 17, 749 (2008); union by smallest root with
splicing after Rem, see Patwary, Blair and Manne, SEA 2010. Memory: the result, half a byte for each voxel, and 4 bytes
for each run (8 past 2**31 voxels). Not checked here: shapes, negative values.

Floor: one read and one write of the volume, 5.5 ms for 256^3 bool to int32 on one core (as much again where the system
has to map the result's memory). Reached on a quiet machine (Zen 5) on one core and on two: 12 and 7.2 ms (balls, 26
neighbours; cc3d 24), 26 and 15 (three phases), 17 and 11 (one label everywhere, int32), 160 and 89 (300 labels at
random); 64^3 of balls 0.14 and 0.10, of which 0.015 are the call. Half of it unites; the bits take 2 ms of bool and 6.8
of int32, which is reading it.
What it needs: rows united by the function that goes through them, since a call for each row with its tuples of arrays
took as long as two words (uniting 64^3 0.21 ms instead of 0.10, 256^3 8.5 instead of 6.6); the numbers of a word with
few runs put together in registers, not looked up voxel by voxel (balls 17.8 -> 12.8, a network 25.5 -> 19); no call of
`unite_at` without a bit, and with the four arrays that it reads alone (noise 93 -> 86 ms of uniting); one block of
memory for all bits, in large pages (5 ms less than four arrays); no pass of its own for the sign (2 ms). A byte for
each flag, packed eight at a time, took 7 and 18 ms for the bits. One list of runs for each row and a comparison of
lists took 30 and 64 ms in all for balls and a network. Inlined by Numba, a function for each row costs the count of
references of every array that it is given.
"""

from __future__ import annotations

import numba
import numpy as np

from .._compile import jit
from .cpu_runs import ALL, HIGH_BYTE, ONE, ZERO, behind, count_bits
from .cpu_write import write_labels

TOP = np.uint64(1 << 63)
GATHER = np.uint64(0x0102040810204080)  # eight bytes, 0 or 1, times this: their bits are the highest byte


@jit
def packed(eights, at):
    """Sixty-four flags, 0 or 1, as the bits of one word; `eights` holds them eight to a word, from `at` on."""
    word = ZERO
    for k in range(8):
        word |= ((eights[at + k] * GATHER) >> HIGH_BYTE) << np.uint64(8 * k)
    return word


@jit
def unite(parent, a, b):
    """Join the trees of runs a and b; the smaller root stays root."""
    one, two = np.uint64(a), np.uint64(b)  # unsigned: an index that may be negative costs more
    while parent[one] != parent[two]:
        if parent[one] < parent[two]:
            one, two = two, one
        above = np.uint64(parent[one])
        parent[one] = parent[two]
        if one == above:
            break
        one = above


@jit
def unite_at(bits, from_a, from_b, w, r, q, starts, first, before, parent):
    """Unite, for every bit, the runs of rows r and q at the bit's voxel (from ALL) or the one before (from ZERO)."""
    while bits != ZERO:
        bit = bits & (~bits + ONE)
        bits ^= bit
        a = first[r] + before[r, w - ONE] + count_bits(starts[r, w] & ((bit - ONE) | (bit & from_a))) - 1
        b = first[q] + before[q, w - ONE] + count_bits(starts[q, w] & ((bit - ONE) | (bit & from_b))) - 1
        unite(parent, a, b)


@jit
def ends_unless(same, begins, known):
    """The last bit of every stretch of `same` that has no bit `known`. A stretch ends before a bit of `begins`, too."""
    inner = same & ~begins
    known = known & same
    total = inner + ((known | ((known & begins) << ONE)) & inner)
    done = (total & ~inner) >> ONE
    if total < inner:
        done |= TOP
    return same & ~(inner >> ONE) & ~done & ~(known & begins)


@jit
def equal_bits(r, x, q, x_q, grid, scratch):
    """Where 64 voxels of row r from x on equal those of row q from x_q on; garbage past the ends of the rows."""
    volume, _, n_x, _ = grid
    flags, eights = scratch
    skip = 1 if min(x, x_q) < 0 else 0
    n = min(64, n_x - max(x, x_q)) - skip
    a, b = np.uint64(np.int64(r) * n_x + x + skip), np.uint64(np.int64(q) * n_x + x_q + skip)
    for k in range(np.uint64(max(n, 0))):  # unsigned: an index that may be negative is not vectorised
        flags[k] = volume[a + k] == volume[b + k]
    return packed(eights, 0) << np.uint64(skip)


@jit
def unite_corners(one, two, w, r, q, starts, first, before, parent, grid, scratch):
    """Unite where voxels `one` of row r equal the one before them in row q, and `two` of row q the one before in r."""
    _, _, _, binary = grid
    x = 64 * (np.int64(w) - 1)
    if one != ZERO and not binary:
        one &= equal_bits(r, x, q, x - 1, grid, scratch)
    if two != ZERO and not binary:
        two &= equal_bits(r, x - 1, q, x, grid, scratch)
    if one != ZERO:
        unite_at(one, ALL, ZERO, w, r, q, starts, first, before, parent)
    if two != ZERO:
        unite_at(two, ZERO, ALL, w, r, q, starts, first, before, parent)


@jit
def unite_part(start, stop, low, high, connectivity, runs, grid):
    """Unite the runs of rows start..stop-1 with those of the rows around them, of which low..high-1 are there.

    Around row r lie p at y - 1; u at z - 1; d at both; e at z - 1, y + 1; and f at y + 1, which is not united, but
    tells what will be. A row that is not there is the last of `some`, which is empty.
    """
    some, starts, left, up, first, before, parent = runs
    _, n_y, _, binary = grid
    nothing, n_words = np.uint64(some.shape[0] - 1), np.uint64(some.shape[1] - 2)
    eights = np.zeros(8, np.uint64)  # flags of 0 or 1, whatever has not been compared
    scratch = eights.view(np.uint8), eights
    for row in range(start, stop):
        y, above = row % n_y, row - n_y
        r = np.uint64(row)  # unsigned, as all that are indices here: one that may be negative costs more
        p = np.uint64(row - 1) if y > 0 and low <= row - 1 < high else nothing
        u = np.uint64(above) if low <= above < high else nothing
        d = np.uint64(above - 1) if y > 0 and low <= above - 1 < high else nothing
        e = np.uint64(above + 1) if y < n_y - 1 and low <= above + 1 < high else nothing
        f = np.uint64(row + 1) if y < n_y - 1 and low <= row + 1 < high else nothing
        has_p = ZERO if p == nothing else ALL
        has_u = ZERO if u == nothing else ALL
        has_d = ZERO if d == nothing else ALL
        has_f = ZERO if f == nothing else ALL
        for w in range(ONE, n_words + ONE):
            a, a_1 = some[r, w], behind(some, r, w)
            if a | a_1 == ZERO:
                continue
            change = starts[r, w] | (a_1 & ~a)
            b_p, b_p1 = some[p, w], behind(some, p, w)
            b_u, b_u1 = some[u, w], behind(some, u, w)
            change_p = starts[p, w] | (b_p1 & ~b_p)
            change_u = starts[u, w] | (b_u1 & ~b_u)
            same_p, same_u = left[r, w] & has_p, up[r, w] & has_u
            up_p = up[p, w] & has_p & has_d

            bits = same_p & (change | change_p)
            if bits != ZERO:
                unite_at(bits, ALL, ALL, w, r, p, starts, first, before, parent)
            bits = ends_unless(same_u, change | change_u, same_p & up_p)
            if bits != ZERO:
                unite_at(bits, ALL, ALL, w, r, u, starts, first, before, parent)
            if connectivity == 6:
                continue

            same_p1, same_u1 = behind(left, r, w) & has_p, behind(up, r, w) & has_u
            both = change & change_p & ~(same_p | same_p1)
            one, two = both & a & b_p1, both & a_1 & b_p
            if one | two != ZERO:
                unite_corners(one, two, w, r, p, starts, first, before, parent, grid, scratch)
            both = change & change_u & ~(same_u | same_u1)
            one, two = both & a & b_u1, both & a_1 & b_u
            if one | two != ZERO:
                unite_corners(one, two, w, r, u, starts, first, before, parent, grid, scratch)

            for side in range(2):
                # The row q at z - 1 that lies beyond the row v at y - 1 or y + 1.
                q, v, has_v = (d, p, has_p) if side == 0 else (e, f, has_f)
                if q == nothing:
                    continue
                b, b_1 = some[q, w], behind(some, q, w)
                change_q = starts[q, w] | (b_1 & ~b)
                lower, upper = (r, u) if side == 0 else (f, e)  # whose `left` joins r and v, u and q
                known = same_u | (left[lower, w] & has_v)
                if a & b & ~known != ZERO:
                    same = a & b
                    if not binary:
                        x = 64 * (np.int64(w) - 1)
                        same &= equal_bits(r, x, q, x, grid, scratch)
                    bits = ends_unless(same, change | change_q, known)
                    if bits != ZERO:
                        unite_at(bits, ALL, ALL, w, r, q, starts, first, before, parent)
                both = change & change_q
                if connectivity == 18 or both == ZERO:
                    continue
                known_1 = same_u1 | (behind(left, lower, w) & has_v)
                beyond = (up[v, w] & has_v) | (left[upper, w] & has_u)
                beyond_1 = (behind(up, v, w) & has_v) | (behind(left, upper, w) & has_u)
                one, two = both & a & b_1 & ~(known | beyond_1), both & a_1 & b & ~(known_1 | beyond)
                if one | two != ZERO:
                    unite_corners(one, two, w, r, q, starts, first, before, parent, grid, scratch)


@jit(parallel=True)
def unite_parts(connectivity, runs, grid, bounds):
    """Unite each part of the rows (bounds[p]..bounds[p+1]-1) within itself."""
    first, parent = runs[4], runs[6]
    for p in numba.prange(bounds.size - 1):
        lo, hi = bounds[p], bounds[p + 1]
        for run in range(first[lo], first[hi]):
            parent[run] = run
        unite_part(lo, hi, lo, hi, connectivity, runs, grid)


@jit
def unite_seams(connectivity, runs, grid, bounds):
    """Unite the first rows of each part with the rows of the parts before it."""
    n_y = grid[1]
    for p in range(1, bounds.size - 1):
        lo = bounds[p]
        hi = min(lo + n_y + 1, bounds[p + 1])
        unite_part(lo, hi, 0, lo, connectivity, runs, grid)


@jit(parallel=True)
def number_roots(first, bounds, parent):
    """Replace the parent of every root by minus its number, in order of the runs; return how many there are."""
    parts = bounds.size - 1
    counts = np.empty(parts + 1, np.int64)
    for p in numba.prange(parts):
        n = 0
        for run in range(first[bounds[p]], first[bounds[p + 1]]):
            n += parent[run] == run
        counts[p + 1] = n
    counts[0] = 0
    for p in range(parts):
        counts[p + 1] += counts[p]
    for p in numba.prange(parts):
        n = counts[p]
        for run in range(first[bounds[p]], first[bounds[p + 1]]):
            if parent[run] == run:
                n += 1
                parent[run] = -n
    return counts[parts]


_unite_parts, _number_roots, _write_labels = (  # to be called by a kernel
    kernel.dispatcher for kernel in (unite_parts, number_roots, write_labels)
)


@jit(around=True)
def label_runs(connectivity, runs, grid, labels, bounds):
    """Unite the runs that `cpu_runs.mark_runs` has found and write their numbers to `labels` (R, X); return how many.

    runs : some, starts, left, up, first, before, as there, and parent, written: one for each run, of the labels' type.
    grid : the volume, flat; its n_y and n_x; whether it is of bools.
    """
    some, starts, _, _, first, before, parent = runs
    _unite_parts(connectivity, runs, grid, bounds)
    unite_seams(connectivity, runs, grid, bounds)
    n = _number_roots(first, bounds, parent)
    _write_labels(some, starts, first, before, parent, labels, bounds)
    return n


@jit
def unite_layers(joint, runs, first, parent):
    """Unite the components `runs` (M,) that lie in one component of the layers they share, `joint` (M,), 0 nowhere.

    first : scratch, as long as there are numbers in `joint`, filled with -1.
    """
    for i in range(joint.size):
        if joint[i] == 0:
            continue
        if first[joint[i]] < 0:
            first[joint[i]] = runs[i]
        else:
            unite(parent, first[joint[i]], runs[i])


@jit
def number_trees(parent, numbers):
    """Write the number of every tree of `parent` to `numbers`, counting the roots in order; return how many."""
    n = 0
    for run in range(parent.size):
        if parent[run] == run:
            n += 1
            numbers[run] = n
        else:
            numbers[run] = numbers[parent[run]]
    return n
