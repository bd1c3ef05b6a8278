"""Travel time on the CPU: planes through the voxel faces around a contact face.

They are fitted by least squares to the heights of the faces above a grid of columns, as in the height-function method
for free surfaces. A volume of bytes makes the columns cheap: how high above each voxel the nearest face is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from .._compile import jit
from .cpu_boxes import WITHIN
from .cpu_lanes import Emit, emitted, intrinsic, ir
from .cpu_lots import EIGHT, HEIGHT, LANES, MIDDLE, ONES, SLOPE_1, SLOPE_2, ZERO, dot, row_of, steps_of, weights

WORD = types.uint64
REACH = 3  # how far up and down a column the surface may be

# The window of a fit is the columns (p, q) with p^2 + q^2 <= 6, those with less than 5 counted by 5 - p^2 - q^2 for the
# height: five rows, the columns q = -2 to 2 of a row in the first bytes of a word.
FIVE, THREE, FIVE_ONES = np.uint64(0x0707070707), np.uint64(0x0007070700), np.uint64(0x0101010101)
Q, Q_SQUARED = weights(0, 1, 2, 3, 4), weights(4, 1, 0, 1, 4)  # q + 2; q^2
NEAR_0, NEAR_1, NEAR_2 = weights(1, 4, 5, 4, 1), weights(0, 3, 4, 3, 0), weights(0, 0, 1, 0, 0)  # for |p| = 0, 1, 2
NEAR_Q_0, NEAR_Q_1, NEAR_Q_2 = weights(0, 4, 10, 12, 4), weights(0, 3, 8, 9, 0), weights(0, 0, 2, 0, 0)  # times q + 2


@jit
def mark_surface(kind: Any, shape: Any, surface: Any) -> None:
    """The faces of the component's surface, towards sources or not; the bits are those of marks."""
    sz, sy, n = shape[1] * shape[2], shape[2], kind.size - 2 * shape[1] * shape[2]
    surface[:sz] = 0
    surface[sz + n :] = 0
    here, to = kind[sz : sz + n], surface[sz : sz + n]
    z0, z1, y0, y1 = kind[:n], kind[2 * sz : 2 * sz + n], kind[sz - sy : sz - sy + n], kind[sz + sy : sz + sy + n]
    x0, x1 = kind[sz - 1 : sz - 1 + n], kind[sz + 1 : sz + 1 + n]
    for k in range(n):  # across the ends of rows, too: the rim of a box is not looked at
        faces = np.uint8(0) if z0[k] & WITHIN else np.uint8(1)
        faces |= np.uint8(0) if z1[k] & WITHIN else np.uint8(2)
        faces |= np.uint8(0) if y0[k] & WITHIN else np.uint8(4)
        faces |= np.uint8(0) if y1[k] & WITHIN else np.uint8(8)
        faces |= np.uint8(0) if x0[k] & WITHIN else np.uint8(16)
        faces |= np.uint8(0) if x1[k] & WITHIN else np.uint8(32)
        to[k] = faces if here[k] & WITHIN else np.uint8(0)


@intrinsic
def nearest_heights(context: Any, surface: Any, v: Any, up: Any, axis: Any, columns: Any, to: Any) -> Any:
    """The codes of `mark_columns` for 64 voxels from v on, at columns[to:]; up : index step along the axis."""

    def write(e: Emit) -> None:
        surface, v, up, axis, columns, to = e.data
        b = e.b

        def every(number: int) -> Any:
            return e.integers(number, 8, LANES)

        shift = e.spread_integer(b.mul(axis, ir.IntType(64)(2)), 8, LANES)
        around = []
        for m in range(-REACH, REACH + 1):
            row = e.load_integers(surface, b.add(v, b.mul(up, ir.IntType(64)(m))), 8, LANES)
            around.append(b.and_(b.lshr(row, shift), every(3)))
        found, codes = every(0), [every(0)] * 3
        for m in (0, 1, -1, 2, -2, 3, -3):  # bit 0 counts heights downwards, bit 1 upwards
            here = b.or_(b.and_(around[REACH + m], every(2)), b.and_(around[REACH - m], every(1)))
            first = b.and_(here, b.not_(found))
            found = b.or_(found, here)
            codes = [b.or_(code, first) if m + 4 >> n & 1 else code for n, code in enumerate(codes)]
        code = every(0)
        for n in range(3):
            code = b.or_(code, b.shl(b.and_(codes[n], every(1)), every(n)))
            code = b.or_(code, b.shl(b.and_(codes[n], every(2)), every(n + 2)))
        e.store_integers(code, columns, to)

    return types.void(surface, WORD, WORD, WORD, columns, WORD), emitted(write)


@jit
def mark_columns(surface: Any, shape: Any, columns: Any) -> None:
    """How high above each voxel the nearest face of the surface is, for the six directions of faces; columns (3 N,).

    Those along axis a are at a N, faces downwards in bits 0 to 2, upwards in bits 3 to 5: the height, outwards, of the
    nearest within REACH (of two, the one outwards), plus 4; 0 if there is none. Not for the rim of the box.
    """
    sz, sy, size = shape[1] * shape[2], shape[2], surface.size
    for axis in range(3):
        up, rim = steps_of(axis, sz, sy)[0], (REACH + 1 if axis == 0 else 2) * sz
        for v in range(rim, size - rim, LANES):
            nearest_heights(surface, np.uint64(v), np.uint64(up), np.uint64(axis), columns, np.uint64(axis * size + v))


@jit
def find_windows(columns: Any, sz: int, sy: int, voxel: Any, side: Any, count: int, words: Any) -> None:
    """The rows of each fit's window as words: the codes of `mark_columns` for its face."""
    size = columns.size // 3
    for i in range(count):
        if side[i] == MIDDLE:
            continue
        axis, shift = side[i] // 2, np.uint64(3 * (side[i] % 2))
        _, along, across = steps_of(axis, sz, sy)
        middle = axis * size + voxel[i] - 2 * across
        for p in range(5):
            row = middle + (p - 2) * along
            if across == 1:
                word = row_of(columns, row)
            else:
                word = ZERO
                for q in range(5):
                    word |= np.uint64(columns[np.uint64(row + q * across)]) << (EIGHT * np.uint64(q))
            words[LANES * p + i] = word >> shift & (FIVE if 0 < p < 4 else THREE)


@jit
def row_sums(heights: Any, near: Any, near_q: Any) -> Any:
    """Over a row of a window the sums of 1, q, q^2, w, w q, and of the heights times 1, q and w."""
    there = heights + FIVE >> np.uint64(3) & FIVE_ONES
    n, w = dot(there, ONES), dot(there, near)
    q, wq, h, qh = dot(there, Q) - 2 * n, dot(there, near_q) - 2 * w, dot(heights, ONES) - 4 * n, dot(heights, Q)
    qh -= 2 * (h + 4 * n) + 4 * q
    return n, q, dot(there, Q_SQUARED), w, wq, h, qh, dot(heights, near) - 4 * w


@jit
def fit_planes(words: Any, count: int, known: Any) -> None:
    """Planes through the surface in the columns around contact faces: HEIGHT there, slopes SLOPE_1 and SLOPE_2.

    In voxels, outwards, along the two other axes, by least squares. The height is the mean over the nearer columns, at
    which a curved surface is less far off its plane. All 0 if the faces lie in one plane.
    """
    for i in range(count):
        an, aq, aqq, aw, awq, ah, aqh, awh = row_sums(words[i], NEAR_2, NEAR_Q_2)
        bn, bq, bqq, bw, bwq, bh, bqh, bwh = row_sums(words[LANES + i], NEAR_1, NEAR_Q_1)
        cn, cq, cqq, cw, cwq, ch, cqh, cwh = row_sums(words[2 * LANES + i], NEAR_0, NEAR_Q_0)
        dn, dq, dqq, dw, dwq, dh, dqh, dwh = row_sums(words[3 * LANES + i], NEAR_1, NEAR_Q_1)
        en, eq, eqq, ew, ewq, eh, eqh, ewh = row_sums(words[4 * LANES + i], NEAR_2, NEAR_Q_2)
        n, n1, n2 = an + bn + cn + dn + en, 2 * (en - an) + dn - bn, aq + bq + cq + dq + eq
        n11, n12, n22 = 4 * (an + en) + bn + dn, 2 * (eq - aq) + dq - bq, aqq + bqq + cqq + dqq + eqq
        h0, h1, h2 = ah + bh + ch + dh + eh, 2 * (eh - ah) + dh - bh, aqh + bqh + cqh + dqh + eqh
        near, near1, near2 = aw + bw + cw + dw + ew, 2 * (ew - aw) + dw - bw, awq + bwq + cwq + dwq + ewq
        near_h = awh + bwh + cwh + dwh + ewh
        s11, s22 = n11 + 1e-6, n22 + 1e-6  # no slope across a single row of faces
        d11, d12, d22 = n * s11 - n1 * n1, n * n12 - n1 * n2, n * s22 - n2 * n2
        e1, e2 = n * h1 - n1 * h0, n * h2 - n2 * h0
        det = d11 * d22 - d12 * d12
        a, b = (e1 * d22 - e2 * d12) / det, (e2 * d11 - e1 * d12) / det
        c = (near_h - a * near1 - b * near2) / near
        c = c if c > -0.5 else -0.5
        known[HEIGHT + i] = c if c < 0.5 else 0.5
        known[SLOPE_1 + i], known[SLOPE_2 + i] = a, b
