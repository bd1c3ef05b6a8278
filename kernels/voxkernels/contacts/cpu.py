"""Count what the surface of every label faces, on the CPU.

One pass over the voxels. A voxel whose neighbours all carry its own label is skipped: a row is marked first, in a loop
that the compiler vectorises. Every other labelled voxel looks at its six faces. A face towards label 0 counts for the
phase value of that neighbour, a face towards another label for the pair of labels, a face at the end of the array for
the border. The sums are held in one open-addressing hash table per block of slices, under the key (label, target), so
that memory follows the number of contacts and not the largest label.

The area of a surface is not the area of its voxel faces: a plane with unit normal n has |n|_1 = |n_z| + |n_y| + |n_x|
times too much of it. So each face is weighted by 1 / |n|_1, with n the normal of its own label's indicator in a window
of 4 x 5 x 5 voxels centred on the face (`face_normal`), and takes the class of the one voxel behind it: nothing steps
over a film. The taps of the window are small integers, found by a search over planes in all directions: the weighted
faces give the true area of a plane with a mean error below 0.1 % and a standard deviation of 0.2 % over directions.
With voxels that are not cubes n is taken in physical units, and a face counts with its own area.

A window that spans an edge would round it. On a plane, if the two layers outside the face are empty, the deeper of the
two layers inside is full (and the other way round, by the plane's point symmetry). Where this is clearly violated, the
face lies on a facet of its own axis beside an edge, and its weight is 1. Planes are not affected by this rule.

For the Crofton estimator (Lang, Ohser and Hilfer, J. Microsc. 203, 2001) the ten diagonal rays to the 26-neighbours are
counted too; the weights of the directions are applied by the caller.

Weights are added as integers (fixed point, 2**-30 of a face), so sums are exact: they depend neither on the number of
threads nor on how a volume is cut into slabs. Cost: one read per voxel, about 100 reads per face of a label. Memory:
one row per block and the tables. Not checked here: shapes, negative labels, a core outside the array.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from .._compile import jit

FACES, CROFTON, WEIGHTED = 0, 1, 2
ONE = 1 << 30  # the fixed-point weight of a whole face: 2**33 faces fit into a sum

# The window: two voxels on either side of the face (from the inside out), five along it
ACROSS = (2, 2, -2, -2)  # difference across the face
ALONG = (1, 2, 3, 2, 1)  # smoothing along the face
SLOPE = (3, 1, 0, -1, -3)  # difference along the face, inside minus outside
DEPTH = (1, 2, 2, 1)  # smoothing across the face
BESIDE_EDGE = 9  # taps of 25 missing in the deep layer that show an edge; a curved surface cuts off fewer, at corners

# Sums over a row of five voxels, whose bits say which of them are inside
ROW_ALONG = np.array([sum(ALONG[k] for k in range(5) if bits >> k & 1) for bits in range(32)])
ROW_SLOPE = np.array([sum(SLOPE[k] for k in range(5) if bits >> k & 1) for bits in range(32)])
ROW_COUNT = np.array([bits.bit_count() for bits in range(32)])

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


@jit
def clamp(i, n):
    """Index i of an axis of n voxels; beyond its ends, the last voxel continues."""
    return min(max(i, 0), n - 1)


@jit
def mark_surface(labels, z, y, corners, mask):
    """Set mask[x] where voxel (z, y, x) is labelled and a neighbour differs, or is missing."""
    n_z, n_y, n_x = labels.shape
    own = labels[z, y]
    mask[0] = mask[n_x - 1] = 1
    for x in range(1, n_x - 1):
        mask[x] = (own[x] != own[x - 1]) | (own[x] != own[x + 1])
    for dz in range(-1, 2):
        for dy in range(-1, 2):
            steps = abs(dz) + abs(dy)
            if steps == 0 or (steps == 2 and not corners):
                continue
            if z + dz < 0 or z + dz >= n_z or y + dy < 0 or y + dy >= n_y:
                for x in range(n_x):
                    mask[x] = 1
                continue
            other = labels[z + dz, y + dy]
            for x in range(n_x):
                mask[x] |= own[x] != other[x]
            if corners:
                for x in range(1, n_x - 1):
                    mask[x] |= (own[x] != other[x - 1]) | (own[x] != other[x + 1])
    for x in range(n_x):
        mask[x] &= own[x] != 0


@jit
def beside_edge(deep, inner, outer, far):
    """Whether the voxels inside in the four layers of a window (of 25 each) show a facet that ends at an edge.

    Only one side is looked at; the caller asks again with inside and outside exchanged.
    """
    return outer == 0 and far == 0 and (deep == inner or deep <= 25 - BESIDE_EDGE)


@jit
def face_normal(labels, z, y, x, axis, sign, offset, layer, normal):
    """Write the outward normal, of any length, of the label of (z, y, x) at its face towards `sign` on `axis`.

    It is the difference of the label's indicator in index space. `offset` (3, 5) and `layer` (4,) are scratch: the flat
    offsets of the window's taps on each axis, and the voxels inside in each layer.
    """
    n_z, n_y, n_x = labels.shape
    flat = labels.reshape(-1)
    for i in range(5):
        dz, dy, dx = i - 2, i - 2, i - 2
        if axis == 0:
            dz = sign * (i - 1)
        elif axis == 1:
            dy = sign * (i - 1)
        else:
            dx = sign * (i - 1)
        offset[0, i] = clamp(z + dz, n_z) * n_y * n_x
        offset[1, i] = clamp(y + dy, n_y) * n_x
        offset[2, i] = clamp(x + dx, n_x)
    b, c = (1 if axis == 0 else 0), (1 if axis == 2 else 2)
    own = labels[z, y, x]
    g_a, g_b, g_c = 0, 0, 0
    for i in range(4):
        s, s_b, s_c, count = 0, 0, 0, 0
        for j in range(5):
            base = offset[axis, i] + offset[b, j]
            bits = 0
            for k in range(5):
                bits |= np.int64(flat[base + offset[c, k]] == own) << k
            s += ALONG[j] * ROW_ALONG[bits]
            s_b += SLOPE[j] * ROW_ALONG[bits]
            s_c += ALONG[j] * ROW_SLOPE[bits]
            count += ROW_COUNT[bits]
        g_a += ACROSS[i] * s
        g_b += DEPTH[i] * s_b
        g_c += DEPTH[i] * s_c
        layer[i] = count
    deep, inner, outer, far = layer[0], layer[1], layer[2], layer[3]
    if beside_edge(deep, inner, outer, far) or beside_edge(25 - far, 25 - outer, 25 - inner, 25 - deep):
        g_b, g_c = 0, 0
    normal[axis] = g_a
    normal[b] = g_b
    normal[c] = g_c


@jit
def face_weight(normal, spacing):
    """1 / |n|_1 of the unit normal in physical units, in fixed point; 1 where there is no normal."""
    n_z, n_y, n_x = abs(normal[0]) / spacing[0], abs(normal[1]) / spacing[1], abs(normal[2]) / spacing[2]
    total = n_z + n_y + n_x
    if total == 0.0:
        return ONE
    return np.int64(round(ONE * math.sqrt(n_z * n_z + n_y * n_y + n_x * n_x) / total))


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
        return -1
    used[0] += 1
    keys[slot, 0] = label
    keys[slot, 1] = target
    return slot


@jit
def count_block(labels, phases, n_phases, solid, start, stop, estimator, spacing, keys, counts, used):
    """Count the faces of the voxels in slices start..stop-1 into one table; used[0] = -1 if the table is too small."""
    n_z, n_y, n_x = labels.shape
    mouth, border = n_phases, n_phases + 1  # classes beyond the phase values
    masked = solid.size > 0
    mask = np.empty(n_x, np.uint8)
    offset = np.empty((3, 5), np.uintp)  # unsigned: no check for negative indices in the window
    layer = np.empty(4, np.int64)
    normal = np.empty(3, np.int64)
    for z in range(start, stop):
        for y in range(n_y):
            mark_surface(labels, z, y, estimator == CROFTON, mask)
            for x in range(n_x):
                if mask[x] == 0:
                    continue
                own = np.int64(labels[z, y, x])
                for ray in range(13 if estimator == CROFTON else 3):
                    dz, dy, dx = DIRECTIONS[ray]
                    for sign in (-1, 1):
                        u, v, w = z + sign * dz, y + sign * dy, x + sign * dx
                        outside = u < 0 or u >= n_z or v < 0 or v >= n_y or w < 0 or w >= n_x
                        if outside and ray >= 3:
                            u, v, w = clamp(u, n_z), clamp(v, n_y), clamp(w, n_x)
                            outside = False
                        label, target, facing = own, np.int64(-1 - border), np.int64(0)
                        if not outside:
                            facing = np.int64(labels[u, v, w])
                            if facing == own:
                                continue
                            if facing != 0:
                                label, target = min(own, facing), max(own, facing)
                            elif masked and not solid[z, y, x]:
                                target = np.int64(-1 - mouth)
                            else:
                                target = np.int64(-1) - phases[u, v, w]
                        slot = slot_of(keys, used, label, target)
                        if slot < 0:
                            used[0] = -1
                            return
                        if facing == 0 or sign > 0 or ray >= 3:
                            counts[slot, ray] += 1
                        if estimator == WEIGHTED and not outside:
                            face_normal(labels, z, y, x, ray, sign, offset, layer, normal)
                            counts[slot, 3 + ray] += face_weight(normal, spacing)


@jit(parallel=True)
def count_contacts(labels, phases, n_phases, solid, bounds, estimator, spacing, keys, counts, used):
    """Count the contacts of the labels, each block of slices into its own table.

    Legend: Z,Y,X volume; B blocks; C rows of a table, a power of two; M counts per row.

    labels   (Z, Y, X) int32 or int64, C order, 0 is background
    phases   (Z, Y, X) uint8 or int32, the classes of the background, below n_phases
    solid    (Z, Y, X) bool, or of size 0: no mask
    bounds   (B + 1,) int64, block b is slices bounds[b]..bounds[b+1]-1
    spacing  (3,) float64
    keys     (B, C, 2) int64, zeros on entry; written: label and target. A target above 0 is the other label of a pair
             (the label is the lower one); -1 - p is phase p, then come the crack mouth and the border
    counts   (B, C, M) int64, zeros on entry; written: faces per axis (of a pair once, from its lower voxel), then for
             the estimator "crofton" (M = 13) the rays of the diagonal directions, for "weighted" (M = 6) the summed
             weights per axis; of a pair both from either side
    used     (B, 1) int64, zeros on entry; written: rows in use, or -1 where the table was too small
    """
    for b in numba.prange(bounds.size - 1):
        count_block(
            labels, phases, n_phases, solid, bounds[b], bounds[b + 1], estimator, spacing, keys[b], counts[b], used[b]
        )
