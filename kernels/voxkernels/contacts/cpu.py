"""Count what the surface of every label faces, on the CPU.

One pass over the voxels, 64 of a row at a time. They are compared with those one voxel, one row and one slice further
in vector instructions, which leave one word of 64 bits per axis: a word of 0 is skipped, and every bit that is set is a
face, met once for both of its voxels. A face towards label 0 counts for the phase value of that neighbour, a
face between two labels for the pair of labels; the ends of the array, which count for the border, are counted on their
own. The sums are held in one open-addressing hash table per block of slices, under the key (label, target), so that
memory follows the number of contacts and not the largest label.

The area of a surface is not the area of its voxel faces: a plane with unit normal n has |n|_1 = |n_z| + |n_y| + |n_x|
times too much of it. So each face is weighted by 1 / |n|_1, with n the normal of its own label's indicator in a window
of 4 x 5 x 5 voxels centred on the face, and takes the class of the one voxel behind it: nothing steps over a film. The
taps of the window are small integers, found by a search over planes in all directions: the weighted faces give the true
area of a plane with a mean error below 0.1 % and a standard deviation of 0.2 % over directions. With voxels that are
not cubes n is taken in physical units, and a face counts with its own area.

The window is read as 25 rows of 5 voxels. A row is compared with the label in one vector instruction; the five bits are
looked up in a table (`WINDOW`) that holds what the row adds to the three components of n and to the number of voxels
inside in each of the four layers, packed into one integer: 25 look-ups and additions make the whole window.

A window that spans an edge would round it. On a plane, if the two layers outside the face are empty, the deeper of the
two layers inside is full (and the other way round, by the plane's point symmetry). Where this is clearly violated, the
face lies on a facet of its own axis beside an edge, and its weight is 1. Planes are not affected by this rule.

For the Crofton estimator (Lang, Ohser and Hilfer, J. Microsc. 203, 2001) the rays to all 26-neighbours are counted,
voxel by voxel; the weights of the directions are applied by the caller.

Weights are added as integers (fixed point, 2**-30 of a face), so sums are exact: they depend neither on the number of
threads nor on how a volume is cut into slabs. Cost: one read per voxel, about 25 reads per face of a label. Memory:
the tables. Not checked here: shapes, a core outside the array.

Measured at 256^3 on an electrode of 150 cracked balls (28 % of the volume, cc3d.contacts 290 ms), a quiet machine (Zen
5), one core and two: faces 20.3 and 11.3 ms (21 and 12.2 on fresh input), weighted 68 and 39, one label everywhere 8.0
and 4.8. The floor is one read of the labels, 5.5 ms. Beyond that a face costs some 12 ns, and its window and weight 50
more. What paid: the classes of rows ahead asked for where there is a face (faces 22.3 -> 20.0 ms), and the table's row
kept from face to face (-> 18.9; weighted 76 -> 67). Did not pay: one byte per voxel instead of one bit (15 % slower).
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numba import core, extending, types

from .._compile import jit

ir = core.cgutils.ir  # type: ignore[attr-defined]  # LLVM, as Numba itself writes it

FACES, CROFTON, WEIGHTED = 0, 1, 2
ONE = 1 << 30  # the fixed-point weight of a whole face: 2**33 faces fit into a sum

# The window: two voxels on either side of the face (from the inside out, or back: only signs change), five along it
ACROSS = (2, 2, -2, -2)  # difference across the face
ALONG = (1, 2, 3, 2, 1)  # smoothing along the face
SLOPE = (3, 1, 0, -1, -3)  # difference along the face, inside minus outside
DEPTH = (1, 2, 2, 1)  # smoothing across the face
BESIDE_EDGE = 9  # taps of 25 missing in the deep layer that show an edge; a curved surface cuts off fewer, at corners
FIELD, LAYER = 12, 6  # bits of a component of the normal (+-324 at most) and of the count of a layer (25)
HALF = 1 << (FIELD - 1)
AHEAD = (
    2  # rows ahead of a face whose classes are asked for: they are read near faces only, which no hardware foretells
)
ZERO = HALF + (HALF << FIELD) + (HALF << 2 * FIELD)  # components of 0, made positive so that none borrows


def _window() -> np.ndarray:
    """(3, 25, 32) for the face towards +z, +y or +x of a voxel: what row (dz, dy) of five voxels adds, for its bits."""
    steps = range(-2, 3)
    taps = np.zeros((3, 25, 5), np.int64)
    for row, (dz, dy) in enumerate((dz, dy) for dz in steps for dy in steps):
        for k, dx in enumerate(steps):
            for axis, (i, b, c) in enumerate(((dz, dy, dx), (dy, dz, dx), (dx, dz, dy))):
                if i >= -1:  # the voxel itself is in layer 1
                    components = (
                        ACROSS[i + 1] * ALONG[b + 2] * ALONG[c + 2],
                        DEPTH[i + 1] * SLOPE[b + 2] * ALONG[c + 2],
                        DEPTH[i + 1] * ALONG[b + 2] * SLOPE[c + 2],
                    )
                    packed = sum(g << FIELD * n for n, g in enumerate(components))
                    taps[axis, row, k] = packed + (1 << 3 * FIELD + LAYER * (i + 1))
    inside = np.arange(32)[:, None] >> np.arange(5) & 1
    return taps @ inside.T


WINDOW = _window()

# One of each pair of opposite directions to the 26-neighbours; the first three are the axes
DIRECTIONS = (
    (1, 0, 0),
    (0, 1, 0),
    (0, 0, 1),
    (0, 1, 1),
    (0, 1, -1),
    (1, 0, 1),
    (1, 0, -1),
    (1, 1, 0),
    (1, -1, 0),
    (1, 1, 1),
    (1, 1, -1),
    (1, -1, 1),
    (1, -1, -1),
)


def load(context, builder, kind, array, start, n):
    """LLVM for elements start to start + n - 1 of a flat array, as a vector."""
    lane = ir.IntType(kind.dtype.bitwidth)
    first = builder.gep(context.make_array(kind)(context, builder, array).data, [start])
    return builder.load(builder.bitcast(first, ir.VectorType(lane, n).as_pointer()), align=lane.width // 8)


def as_word(builder, bits):
    """LLVM for a vector of bits as one word, the first one lowest."""
    word = ir.IntType(64)
    bits = builder.bitcast(bits, ir.IntType(bits.type.count))
    return bits if bits.type == word else builder.zext(bits, word)


@extending.intrinsic
def unequal_bits(context, array, start, other):
    """Bit k of the result: whether elements start + k and other + k of a flat array differ, for k < 64. Unchecked."""

    def generate(context, builder, signature, arguments):
        one = load(context, builder, signature.args[0], arguments[0], arguments[1], 64)
        two = load(context, builder, signature.args[0], arguments[0], arguments[2], 64)
        return as_word(builder, builder.icmp_signed("!=", one, two))

    return types.uint64(array, types.uint64, types.uint64), generate


@extending.intrinsic
def negative_bits(context, array, start):
    """Bit k of the result: whether element start + k of a flat array is negative, for k < 64. Unchecked."""

    def generate(context, builder, signature, arguments):
        one = load(context, builder, signature.args[0], arguments[0], arguments[1], 64)
        return as_word(builder, builder.icmp_signed("<", one, ir.Constant(one.type, None)))

    return types.uint64(array, types.uint64), generate


@extending.intrinsic
def equal_bits(context, array, start, value):
    """Bit k of the result: whether element start + k of a flat array is `value`, for k < 8. Unchecked."""

    def generate(context, builder, signature, arguments):
        one = load(context, builder, signature.args[0], arguments[0], arguments[1], 8)
        blank, first = ir.Constant(one.type, ir.Undefined), ir.Constant(ir.IntType(32), 0)
        every = ir.Constant(ir.VectorType(ir.IntType(32), 8), None)
        wanted = builder.shuffle_vector(builder.insert_element(blank, arguments[2], first), blank, every)
        return as_word(builder, builder.icmp_signed("==", one, wanted))

    return types.uint64(array, types.uint64, array.dtype), generate


@extending.intrinsic
def lowest_bit(context, bits):
    """The number of the lowest bit that is set in a word that is not 0."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


@extending.intrinsic
def prefetch(context, array, index):
    """Ask for the memory of one element of a flat array, which need not exist."""

    def generate(context, builder, signature, arguments):
        kind = signature.args[0]
        pointer = builder.gep(context.make_array(kind)(context, builder, arguments[0]).data, [arguments[1]])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        shape = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = core.cgutils.get_or_insert_function(builder.module, shape, "llvm.prefetch.p0i8")
        builder.call(function, [builder.bitcast(pointer, byte), *(ir.Constant(number, k) for k in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(array, types.uint64), generate


@jit
def clamp(i, n):
    """Index i of an axis of n voxels; beyond its ends, the last voxel continues."""
    return min(max(i, 0), n - 1)


@jit
def mark_last_faces(flat, start, n, steps, further, words):
    """As `mark_faces`, voxel by voxel, near the end of the labels: into words (3,). True if a label is negative."""
    negative = False
    words[:] = 0
    for k in range(n):
        own = flat[start + k]
        negative |= own < 0
        for axis in range(3):
            if (further[axis] or (axis == 2 and k + 1 < n)) and own != flat[start + k + steps[axis]]:
                words[axis] |= np.uint64(1) << np.uint64(k)
    return negative


@jit
def mark_faces(flat, start, n, step_z, step_y, goes_on):
    """Three words whose bits k are set where voxel start + k, k < n <= 64, differs from the next one along z, y, x.

    A step is 0 where there is no next voxel; `goes_on`, whether there is one along x after the last of the n. Reads 64
    voxels whatever n is, and as many from the next ones. The fourth word is not 0 if a label is negative.
    """
    kept = np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - n)
    negative = kept & negative_bits(flat, np.uint64(start))
    z = kept & unequal_bits(flat, np.uint64(start), np.uint64(start + step_z))
    y = kept & unequal_bits(flat, np.uint64(start), np.uint64(start + step_y))
    x = kept >> np.uint64(not goes_on) & unequal_bits(flat, np.uint64(start), np.uint64(start + 1))
    return z, y, x, negative


@jit
def list_rows(z, y, n_z, n_y, n_x, rows):
    """Write where the 25 rows about row (z, y) begin, from its own beginning; beyond the ends, the last one again."""
    for dz in range(-2, 3):
        for dy in range(-2, 3):
            rows[5 * dz + dy + 12] = ((clamp(z + dz, n_z) - z) * n_y + clamp(y + dy, n_y) - y) * n_x


@jit
def sum_window(flat, row, x, n_x, rows, own, axis):
    """What the voxels of label `own` add up to in the window of the face between voxel x of a row and the next."""
    total = np.int64(ZERO)
    if x < 2 or x + 6 > n_x:
        for r in range(25):
            bits = np.uint64(0)
            for k in range(5):
                bits |= np.uint64(flat[np.uint64(row + rows[r] + clamp(x + k - 2, n_x))] == own) << np.uint64(k)
            total += WINDOW[axis, r, bits]
    elif axis == 0:  # the window has no rows two slices back
        for r in range(5, 25):
            total += WINDOW[0, r, equal_bits(flat, np.uint64(row + rows[r] + x - 2), own) & np.uint64(31)]
    else:
        for r in range(25):
            total += WINDOW[axis, r, equal_bits(flat, np.uint64(row + rows[r] + x - 2), own) & np.uint64(31)]
    return total


@jit
def beside_edge(deep, inner, outer, far):
    """Whether the voxels inside in the four layers of a window (of 25 each) show a facet that ends at an edge.

    Only one side is looked at; the caller asks again with inside and outside exchanged.
    """
    return (outer == 0) & (far == 0) & ((deep == inner) | (deep <= 25 - BESIDE_EDGE))


@jit
def face_weight(window, forward, scale, axis):
    """1 / |n|_1 of the unit normal in physical units, in fixed point; 1 where there is no normal.

    window : what `sum_window` returned; `forward`, whether its label lies before the face, or behind.
    scale  : (3, 3) 1 / spacing: row a begins with axis a, then the other two in order.
    """
    field, layer = (1 << FIELD) - 1, (1 << LAYER) - 1
    g_a = (window & field) - HALF
    g_b = (window >> FIELD & field) - HALF
    g_c = (window >> 2 * FIELD & field) - HALF
    layers = window >> 3 * FIELD
    one, two, three, four = layers & layer, layers >> LAYER & layer, layers >> 2 * LAYER & layer, layers >> 3 * LAYER
    deep, inner = (one, two) if forward else (four, three)
    outer, far = (three, four) if forward else (two, one)
    if beside_edge(deep, inner, outer, far) | beside_edge(25 - far, 25 - outer, 25 - inner, 25 - deep):
        g_b, g_c = 0, 0
    n_a, n_b, n_c = abs(g_a) * scale[axis, 0], abs(g_b) * scale[axis, 1], abs(g_c) * scale[axis, 2]
    total = n_a + n_b + n_c
    if total == 0.0:
        return np.int64(ONE)
    return np.int64(ONE * math.sqrt(n_a * n_a + n_b * n_b + n_c * n_c) / total + 0.5)


@jit
def slot_of(keys, used, label, target):
    """The row of (label, target) in an open-addressing table whose free rows have label 0; -1 if it is half full."""
    last = keys.shape[0] - 1
    slot = (label * 0x9E3779B1 + target * 0x85EBCA77) & last
    while keys[slot, 0] != 0:
        if keys[slot, 0] == label and keys[slot, 1] == target:
            return slot
        slot = (slot + 1) & last
    if 2 * used[0] > last:
        used[0] = -1
        return -1
    used[0] += 1
    keys[slot, 0] = label
    keys[slot, 1] = target
    return slot


@jit
def count_line(flat, start, n, step, axis, target, keys, counts, used):
    """Count the ends of the array behind n voxels, a step apart; False if the table is too small."""
    slot, last = 0, np.int64(0)
    for i in range(n):
        label = np.int64(flat[start + i * step])
        if label != 0:
            if label != last:
                slot = slot_of(keys, used, label, target)
                if slot < 0:
                    return False
                last = label
            counts[slot, axis] += 1
    return True


@jit
def count_border(labels, target, start, stop, keys, counts, used):
    """Count the ends of the array behind the voxels in slices start..stop-1; False if the table is too small."""
    n_z, n_y, n_x = labels.shape
    flat = labels.reshape(-1)
    for z in range(start, stop):
        first = z * n_y * n_x
        for i in (0, n_x - 1):
            if not count_line(flat, first + i, n_y, n_x, 2, target, keys, counts, used):
                return False
        for i in (0, n_y - 1):
            if not count_line(flat, first + i * n_x, n_x, 1, 1, target, keys, counts, used):
                return False
        for i in (0, n_z - 1):
            if z == i and not count_line(flat, first, n_y * n_x, 1, 0, target, keys, counts, used):
                return False
    return True


@jit
def count_faces(labels, phases, mouth, solid, start, stop, core, weighted, scale, keys, counts, used):
    """Count the faces of the voxels in slices start..stop-1 into one table.

    Both sides of a face count with its lower voxel, except at the ends of slices core[0]..core[1]-1. used[0] = -1 if
    the table is too small, -2 if a label is negative.
    """
    n_z, n_y, n_x = labels.shape
    flat, classes, solids = labels.reshape(-1), phases.reshape(-1), solid.reshape(-1)
    steps = (n_y * n_x, n_x, 1)
    words = np.zeros(3, np.uint64)
    rows = np.empty(25, np.int64)
    slot, last_own, last_target = 0, flat.dtype.type(0), np.int64(0)  # of the face before: most often the same
    like_others = False  # whether `rows` are those of a row that is not near an end
    for z in range(start - 1 if start == core[0] and start > 0 else start, stop):
        n_axes = 1 if z < start else 3
        for y in range(n_y):
            row = (z * n_y + y) * n_x
            listed = not weighted
            for first in range(0, n_x, 64):
                n = min(64, n_x - first)
                further = z + 1 < n_z, y + 1 < n_y, first + n < n_x
                step_z, step_y = steps[0] * further[0], steps[1] * further[1]
                if row + first + 64 + max(step_z, step_y, 1) <= flat.size:
                    along_z, along_y, along_x, negative = mark_faces(flat, row + first, n, step_z, step_y, further[2])
                    if along_z | along_y | along_x | negative == 0:
                        continue
                    words[0], words[1], words[2] = along_z, along_y, along_x
                    wrong = negative != 0
                    prefetch(classes, np.uint64(row + first + step_z + AHEAD * n_x))
                else:
                    wrong = mark_last_faces(flat, row + first, n, steps, further, words)
                if wrong:
                    used[0] = -2
                    return
                if not listed:
                    listed = True
                    inside = z >= 2 and z + 2 < n_z and y >= 2 and y + 2 < n_y
                    if not (inside and like_others):
                        list_rows(z, y, n_z, n_y, n_x, rows)
                        like_others = inside
                for axis in range(n_axes):
                    bits = words[axis]
                    lower_counts, upper_counts = z >= start, z + (axis == 0) < core[1]
                    while bits != 0:
                        x = first + np.int64(lowest_bit(bits))
                        bits &= bits - np.uint64(1)
                        v = row + x
                        lower, upper = flat[np.uint64(v)], flat[np.uint64(v + steps[axis])]
                        if (lower != 0) & (upper != 0):
                            pair = slot_of(keys, used, np.int64(min(lower, upper)), np.int64(max(lower, upper)))
                            if pair < 0:
                                return
                            counts[pair, axis] += lower_counts
                            if weighted and lower_counts:
                                window = sum_window(flat, row, x, n_x, rows, lower, axis)
                                counts[pair, 3 + axis] += face_weight(window, True, scale, axis)
                            if weighted and upper_counts:
                                window = sum_window(flat, row, x, n_x, rows, upper, axis)
                                counts[pair, 3 + axis] += face_weight(window, False, scale, axis)
                            continue
                        # arithmetic: no branch can be foretold on which side the label is
                        own = lower | upper
                        behind = np.int64(lower == 0)
                        if not (lower_counts & upper_counts) and not (upper_counts if behind else lower_counts):
                            continue
                        target = np.int64(-1) - np.int64(classes[np.uint64(v + (1 - behind) * steps[axis])])
                        if solids.size > 0 and not solids[v + behind * steps[axis]]:
                            target = np.int64(-1 - mouth)
                        if (own != last_own) | (target != last_target):
                            slot = slot_of(keys, used, np.int64(own), target)
                            if slot < 0:
                                return
                            last_own, last_target = own, target
                        counts[np.uint64(slot), axis] += 1
                        if weighted:
                            window = sum_window(flat, row, x, n_x, rows, own, axis)
                            counts[np.uint64(slot), 3 + axis] += face_weight(window, behind == 0, scale, axis)


@jit
def mark_surface(labels, z, y, mask):
    """Set mask[x] where voxel (z, y, x) is labelled and one of its 26 neighbours differs, or is missing."""
    n_z, n_y, n_x = labels.shape
    own = labels[z, y]
    mask[0] = mask[n_x - 1] = 1
    for x in range(1, n_x - 1):
        mask[x] = (own[x] != own[x - 1]) | (own[x] != own[x + 1])
    for dz in range(-1, 2):
        for dy in range(-1, 2):
            if dz == 0 and dy == 0:
                continue
            if z + dz < 0 or z + dz >= n_z or y + dy < 0 or y + dy >= n_y:
                for x in range(n_x):
                    mask[x] = 1
                continue
            other = labels[z + dz, y + dy]
            for x in range(n_x):
                mask[x] |= own[x] != other[x]
            for x in range(1, n_x - 1):
                mask[x] |= (own[x] != other[x - 1]) | (own[x] != other[x + 1])
    for x in range(n_x):
        mask[x] &= own[x] != 0


@jit
def count_rays(labels, phases, mouth, solid, start, stop, keys, counts, used):
    """Count the rays from the voxels in slices start..stop-1 to all 26-neighbours, but those along the axes that leave.

    used[0] = -1 if the table is too small.
    """
    n_z, n_y, n_x = labels.shape
    masked = solid.size > 0
    mask = np.empty(n_x, np.uint8)
    for z in range(start, stop):
        for y in range(n_y):
            mark_surface(labels, z, y, mask)
            for x in range(n_x):
                if mask[x] == 0:
                    continue
                own = np.int64(labels[z, y, x])
                for ray in range(13):
                    dz, dy, dx = DIRECTIONS[ray]
                    for sign in (-1, 1):
                        u, v, w = z + sign * dz, y + sign * dy, x + sign * dx
                        if u < 0 or u >= n_z or v < 0 or v >= n_y or w < 0 or w >= n_x:
                            if ray < 3:
                                continue
                            u, v, w = clamp(u, n_z), clamp(v, n_y), clamp(w, n_x)
                        facing = np.int64(labels[u, v, w])
                        if facing == own:
                            continue
                        label, target = own, np.int64(-1) - np.int64(phases[u, v, w])
                        if facing != 0:
                            label, target = min(own, facing), max(own, facing)
                        elif masked and not solid[z, y, x]:
                            target = np.int64(-1 - mouth)
                        slot = slot_of(keys, used, label, target)
                        if slot < 0:
                            return
                        if facing == 0 or sign > 0 or ray >= 3:
                            counts[slot, ray] += 1


@jit(parallel=True)
def count_contacts(labels, phases, n_phases, solid, bounds, estimator, scale, keys, counts, used):
    """Count the contacts of the labels, each block of slices into its own table.

    Legend: Z,Y,X volume; B blocks; C rows of a table, a power of two; M counts per row.

    labels   (Z, Y, X) int32 or int64, C order, 0 is background
    phases   (Z, Y, X) uint8 or int32, the classes of the background, below n_phases
    solid    (Z, Y, X) bool, or of size 0: no mask
    bounds   (B + 1,) int64, block b is slices bounds[b]..bounds[b+1]-1
    scale    (3, 3) float64, 1 / spacing: row a begins with axis a, then the other two in order
    keys     (B, C, 2) int64, zeros on entry; written: label and target. A target above 0 is the other label of a pair
             (the label is the lower one); -1 - p is phase p, then come the crack mouth and the border
    counts   (B, C, M) int64, zeros on entry; written: faces per axis (of a pair once, from its lower voxel), then for
             the estimator "crofton" (M = 13) the rays of the diagonal directions, for "weighted" (M = 6) the summed
             weights per axis; of a pair both from either side
    used     (B, 1) int64, zeros on entry; written: rows in use, or -1 where the table was too small, or -2 where a
             label is negative (looked for but with the estimator "crofton")
    """
    core = bounds[0], bounds[-1]
    for b in numba.prange(bounds.size - 1):
        start, stop = bounds[b], bounds[b + 1]
        if count_border(labels, -2 - n_phases, start, stop, keys[b], counts[b], used[b]):
            if estimator == CROFTON:
                count_rays(labels, phases, n_phases, solid, start, stop, keys[b], counts[b], used[b])
            else:
                count_faces(
                    labels,
                    phases,
                    n_phases,
                    solid,
                    start,
                    stop,
                    core,
                    estimator == WEIGHTED,
                    scale,
                    keys[b],
                    counts[b],
                    used[b],
                )
