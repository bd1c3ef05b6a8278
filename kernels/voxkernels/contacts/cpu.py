"""Count what the surface of every label faces, on the CPU.

One pass over the voxels, 64 of a row at a time (`cpu_faces`). They are compared with those one voxel, one row and one
slice further in vector instructions, which leave words of 64 bits. Where the words are 0 nothing more is done. A face
towards label 0 counts for the phase value of that neighbour, a face between two labels for the pair of labels; the ends
of the array, which count for the border, are counted on their own. The sums are held in one open-addressing hash table
for each block of slices, under the key (label, target), so that memory follows the number of contacts and not the
largest label.

For voxel faces alone no face is looked at by itself: a run of voxels of one label is a word, the faces in a direction
are a word, the neighbours of a class are a word, and how many bits the three share is what is added, for six directions
in one vector.

The area of a surface is not the area of its voxel faces: a plane with unit normal n has |n|_1 = |n_z| + |n_y| + |n_x|
times too much of it. So each face is weighted by 1 / |n|_1, with n the normal of its own label's indicator in a window
of 4 x 5 x 5 voxels centred on the face (`cpu_weights`), and takes the class of the one voxel behind it: nothing steps
over a film.

For the Crofton estimator (Lang, Ohser and Hilfer, J. Microsc. 203, 2001) the rays to all 26-neighbours are counted,
voxel by voxel (`cpu_rays`); the weights of the directions are applied by the caller.

Weights are added as integers (fixed point, 2**-30 of a face), so sums are exact: they depend neither on the number of
threads nor on how a volume is cut into slabs. Cost: one read per voxel. Memory: the tables, and the void of three
slices, one bit a voxel. Not checked here: shapes, a core outside the array.

Slices of more than 65,536 voxels are counted in parts, some rows of all slices and then the next rows: what of a slice
is read again with the next one is still in the L2.

Measured on a quiet machine (Zen 5), one core and two, fresh input, ms. 256^3, an electrode of 150 cracked balls, 28 %
of the volume (cc3d.contacts 297): faces 5.7 and 3.3, weighted 34 and 18.0; 12 %: 5.2 and 3.2, 20 and 11; one label
everywhere: 4.9 and 2.8. The floor is one read of the labels, as the last. An NMC cathode of 251 x 301 x 301 (cc3d 231):
13.4 and 7.5, 111 and 61. Its floor is 7; but 98 % of its words have a face where the electrode has 78, in two runs each
(1.3), 5 ns for each run; and it has 360,000 faces between two labels, which are looked up one by one. With weights a
face costs some 15 ns for its window, and a run 20 for its masks.

What paid, faces at 28 % and weights of the cathode, one core: words in place of faces, 20 -> 13 and 190 -> 180; memory
asked for 1024 voxels ahead, 13 -> 7.5, and the masks' rows, 149 -> 139; one list of a run's faces in place of six loops
that no branch predictor foresees, and weights many at a time, 180 -> 162; masks kept for the next row, 162 -> 152; the
upper bits of the hash in place of the lower, 134 -> 115. Faces of the cathode, two cores: what follows the kernel
compiled, 10.8 -> 10.1; slices in parts, faces between labels in lists, and vectors that begin with a line of the cache,
each some 4 to 8 %, -> 9.4. 64^3, two cores: memory that comes empty and is cleared by the thread that uses it, and sums
of a label when it comes, 146 -> 121 us. Weights of 300 labels at random, 256^3, one core (cc3d 2.5 s): masks of one
voxel where runs are of one, and rows of a large table asked for before the windows are summed, 2.97 -> 2.12 s. 1024
pairs of labels kept beside the table, which is larger than the L2, two cores, the cathode: 8.5 -> 7.4; not where most
pairs are new, 300 labels at random, one core: 1170 -> 290. The ends along x
counted with their row, not by a pass that touches every line of the cache, and those along y and z in words: 128 x 64 x
64 of one label 195 -> 175 us. 64^3 on one core: results in one compiled function and arguments that are right looked at
once, 148 -> 109 us. Of these 17 are the call: 3 the table, 3 NumPy's sort, 3 the results, 8 Python and the start.
Labels beside a block marked in words: 64^3 on two cores 90 -> 80 us. Weights of 256 faces at a time, which fit the L1
with the masks and the table of windows: 640^3 815 -> 751 ms. "faces" compiled without the weights, which leaves it more
registers (64^3 on one core 120 -> 114 us, and 3 s less to compile); and numbers of which LLVM knows nothing where a row
and a word begin, or else it carries a dozen sums of them from row to row, through memory (-> 110 us; 28 % 6.0 -> 5.6
ms, the cathode 14.6 -> 14.0, weights as they were).

With AVX2 alone (Zen 3 at 2.4 GHz, a noisy machine, in turns on one core): 28 % faces 12.3 -> 11.0 ms and the cathode
28.7 -> 26.0, by words that are put in order once and one look for negative labels; 28 % weighted 70 -> 61, by numbers
of 32 bits between integers and floating point, without which LLVM weighs one face at a time there.

Did not pay: the classes of void marked in words, as void is, in place of comparing those of six neighbours (AVX2: half
of what is gained above is lost); rows of smaller tables asked for (the cathode takes 8 % longer); a table that grows
where it is (pages touched for the first time cost more than they save: 20 -> 22 ms on the cathode), the last pair kept,
2048 pairs kept; rows marked, listed and counted in functions of their own (a call counts references, 100 ns, and
marking no longer hides the rest: 20 -> 21); rows marked 16 words at once (64 x 128 x 256 of one label: 410 -> 510 us),
or 8 words of several rows (64^3 126 -> 136 us), or each word just before it is counted (126 -> 130); one look for two
labels in place of two words (no change); no comparisons in words without a label (128^3 of the lattice 880 -> 790 us,
12 % of balls 4.9 -> 4.0 ms, but the cathode 13.5 -> 14.5); memory asked for 2048 voxels ahead (640^3 with weights 751
-> 713 ms, 256^3 33.5 -> 34.5); one look for negative labels in all 64 at once (one label everywhere 4.53 -> 4.60);
weights of parts half as large; runs in a list; a larger table.
"""

from __future__ import annotations

import numba

from .._compile import jit
from .cpu_faces import count_faces
from .cpu_rays import DIRECTIONS, count_rays
from .cpu_table import COUNTS, MOUTH, count_border, move_to_front, sum_areas
from .cpu_weights import WEIGHT

__all__ = [
    "COUNTS",
    "CROFTON",
    "DIRECTIONS",
    "FACES",
    "MOUTH",
    "WEIGHT",
    "WEIGHTED",
    "count_contacts",
    "sum_areas",
]

FACES, CROFTON, WEIGHTED = 0, 1, 2
TILE = 1 << 16  # about how many voxels of a slice are counted before those of the next: two slices stay in the L2


@jit(parallel=True)
def count_contacts(labels, phases, solid, lo, hi, estimator, scale, tables, used):
    """Count the contacts of the labels, each block of slices into its own table.

    Legend: Z,Y,X volume; B blocks; C rows of a table, a power of two; M counts per row.

    labels   (Z, Y, X) int32 or int64, C order, 0 is background
    phases   (Z, Y, X) uint8 or int32, the classes of the background, below MOUTH
    solid    (Z, Y, X) bool, or of size 0: no mask
    lo, hi   slices lo..hi-1 are counted, shared out among the blocks
    scale    (3,) float64, 1 / spacing, for "weighted"; else None
    tables   (B, C, 2 + M) int64, written, in as many rows as are in use: label and target, where a target above 0 is
             the other label of a pair (the label is the lower one), and -1 - p is phase p, MOUTH or the border,
             MOUTH + 1; then faces per axis (of a pair once, from its lower voxel), then for the estimator "crofton"
             (M = 13) the rays of the diagonal directions, for "weighted" (M = 6) the summed weights per axis; of a
             pair both from either side
    used     (B, 2) int64, written: rows in use, or -1 where the table was too small, or -2 where a label is
             negative; the largest phase of the slices and those beside them (neither with "crofton")
    """
    core, n_blocks = (lo, hi), len(tables)
    for b in numba.prange(n_blocks):
        start, stop = lo + (hi - lo) * b // n_blocks, lo + (hi - lo) * (b + 1) // n_blocks
        tables[b], used[b] = 0, 0  # by the thread that uses them
        if count_border(labels, start, stop, estimator == CROFTON, tables[b], used[b]):
            if estimator == CROFTON:
                count_rays(labels, phases, MOUTH, solid, start, stop, tables[b], used[b])
            else:
                n_y, n_x = labels.shape[1], labels.shape[2]
                n_tiles = min((n_y * n_x - 1) // TILE + 1, n_y)
                for tile in range(n_tiles):
                    rows = n_y * tile // n_tiles, n_y * (tile + 1) // n_tiles
                    count_faces(labels, phases, solid, start, stop, rows, core, scale, tables[b], used[b])
            move_to_front(tables[b])
