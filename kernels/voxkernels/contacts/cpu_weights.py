"""The weight of a face: 1 / |n|_1 of its label's normal, from a window of 4 x 5 x 5 voxels centred on the face.

The taps of the window are small integers, found by a search over planes in all directions: the weighted faces give the
true area of a plane with a mean error below 0.1 % and a standard deviation of 0.2 % over directions. With voxels that
are not cubes n is taken in physical units, and a face counts with its own area.

Where the voxels about 60 of a row are of a label is marked in 25 words, its masks, one bit a voxel, which all faces of
the label there share; 20 of them are those of the row before. Five bits of each, looked up in a table (`WINDOW`), give
what a row adds to the three components of n and to the number of voxels inside in each of the four layers, packed into
one integer: 25 look-ups and additions make a whole window. Normals are made of the sums of many faces at a time, in
vector instructions. A face on the near side of its voxel is one on the far side, seen in a mirror in all three axes:
so the masks are there in reverse as well.

A window that spans an edge would round it. On a plane, if the two layers outside the face are empty, the deeper of the
two layers inside is full (and the other way round, by the plane's point symmetry). Where this is clearly violated, the
face lies on a facet of its own axis beside an edge, and its weight is 1. Planes are not affected by this rule.
"""

import math

import numpy as np

from .._compile import jit
from .cpu_words import equal_word

WEIGHT = 1 << 30  # the fixed-point weight of a whole face: 2**33 faces fit into a sum
SIDE = 2  # how far a window reaches beside a voxel
SPAN = 64 - 2 * SIDE  # voxels of a row whose windows lie in words of 64

# The window: two voxels on either side of the face (from the inside out, or back: only signs change), five along it
ACROSS = (2, 2, -2, -2)  # difference across the face
ALONG = (1, 2, 3, 2, 1)  # smoothing along the face
SLOPE = (3, 1, 0, -1, -3)  # difference along the face, inside minus outside
DEPTH = (1, 2, 2, 1)  # smoothing across the face
BESIDE_EDGE = 9  # taps of 25 missing in the deep layer that show an edge; a curved surface cuts off fewer, at corners
FIELD, LAYER = 12, 6  # bits of a component of the normal (+-324 at most) and of the count of a layer (25)
HALF = 1 << (FIELD - 1)
ZERO = HALF + (HALF << FIELD) + (HALF << 2 * FIELD)  # components of 0, made positive so that none borrows


def _window() -> np.ndarray:
    """(4, 25, 32): what row (dy, dz) of five voxels adds, for its bits, to the face towards +z, +y, +x of a voxel.

    The last is for the face towards -x, of the rows in reverse.
    """
    steps = range(-2, 3)
    taps = np.zeros((3, 25, 5), np.int64)
    for row, (dy, dz) in enumerate((dy, dz) for dy in steps for dz in steps):
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
    forward = taps @ inside.T
    return np.concatenate([forward, forward[2:, :, inside @ (16 >> np.arange(5))]])


WINDOW = _window()


@jit
def clamp(i, n):
    """Index i of an axis of n voxels; beyond its ends, the last voxel continues."""
    return min(max(i, 0), n - 1)


@jit
def list_rows(z, y, n_z, n_y, n_x, rows):
    """Write where the 25 rows (dy, dz) about row (z, y) begin, from its beginning; beyond the ends, the last again."""
    for dz in range(-2, 3):
        for dy in range(-2, 3):
            rows[5 * dy + dz + 12] = ((clamp(z + dz, n_z) - z) * n_y + clamp(y + dy, n_y) - y) * n_x


@jit
def list_last_masks(flat, start, rows, own, masks, begin):
    """As `list_equal_bits`, voxel by voxel: near the ends of the volume, where there are no 64."""
    for r in range(25):
        masks[begin + r] = masks[begin + 49 - r] = equal_word(flat, start + rows[r], own)


@jit(inline=True)
def beside_edge(deep, inner, outer, far):
    """Whether the voxels inside in the four layers of a window (of 25 each) show a facet that ends at an edge.

    Only one side is looked at; the caller asks again with inside and outside exchanged.
    """
    return (outer == 0) & (far == 0) & ((deep == inner) | (deep <= 25 - BESIDE_EDGE))


@jit(inline=True)
def sum_window(masks, begin, k, axis, forward):
    """What the masks of a label from `begin` add up to about its face behind (forward is 1) or before (0) voxel k."""
    table = np.uint64(axis + ((axis == 2) & (forward == 0)))
    start = np.uint64(begin + 25 - 25 * forward)
    window = np.int64(ZERO)
    for r in range(25):
        window += WINDOW[table, np.uint64(r), masks[start + np.uint64(r)] >> np.uint64(k) & np.uint64(31)]
    return window


@jit
def add_weights(windows, axes, places, n, scale, counts):
    """Add 1 / |n|_1 of the physical unit normal, in fixed point, to counts[places]; 1 where there is no normal.

    windows, axes, places : int64, of n faces: the sums of their windows, which then are overwritten
    scale                 : (3,) 1 / spacing
    """
    field, layer = (1 << FIELD) - 1, (1 << LAYER) - 1
    z, y, x = scale[0], scale[1], scale[2]
    for i in range(n):
        window, axis = windows[i], axes[i]
        # by way of 32 bits, from and to which AVX2 can convert floating-point numbers
        g_a = abs(np.float64(np.int32(window & field)) - HALF)
        g_b = abs(np.float64(np.int32(window >> FIELD & field)) - HALF)
        g_c = abs(np.float64(np.int32(window >> 2 * FIELD & field)) - HALF)
        layers = window >> 3 * FIELD
        deep, inner = layers & layer, layers >> LAYER & layer
        outer, far = layers >> 2 * LAYER & layer, layers >> 3 * LAYER & layer
        edge = beside_edge(deep, inner, outer, far) | beside_edge(25 - far, 25 - outer, 25 - inner, 25 - deep)
        n_a = g_a * (z if axis == 0 else y if axis == 1 else x)
        n_b = (0.0 if edge else g_b) * (y if axis == 0 else z)
        n_c = (0.0 if edge else g_c) * (y if axis == 2 else x)
        total = n_a + n_b + n_c
        weight = WEIGHT * math.sqrt(n_a * n_a + n_b * n_b + n_c * n_c) / (total if total > 0.0 else 1.0)
        windows[i] = np.int64(np.int32(weight + 0.5)) if total > 0.0 else np.int64(WEIGHT)
    for i in range(n):
        counts[np.uint64(places[i])] += windows[i]
