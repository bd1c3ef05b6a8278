"""Travel time on the CPU: where the source behind a contact face ends."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._compile import jit
from .cpu_boxes import OUTSIDE
from .cpu_lots import (
    MIDDLE,
    ONE_H,
    ONES,
    RIM,
    RIM_1,
    RIM_2,
    RIM_END,
    RIM_SUM,
    SIDE,
    TOP,
    TWO_H,
    UP_H,
    ZERO,
    dot,
    row_of,
    weights,
)

REACH = 3  # how far a rim is looked for
STIFF = 4.0  # weight of the sum of a rim's faces against their scatter, in squared voxels

SEVEN = 2 * REACH + 1  # voxels along a side of the window
EACH, SEVEN_BYTES = np.uint64(0x0001010101010101), np.uint64((1 << 56) - 1)  # 1 in the first seven bytes; those bytes
FIRST, FROM_MIDDLE = weights(0, 1, 2, 3, 4, 5, 6), weights(9, 4, 1, 0, 1, 4, 9)  # x + 3; x^2


@jit
def mark_ends(mark: Any, ends: Any) -> None:
    """The faces of outside source voxels to voxels that are neither in the component nor sources."""
    for v in range(mark.size):
        ends[v] = mark[v] & np.uint8(63) if mark[v] >= np.uint8(OUTSIDE) else np.uint8(0)


@jit
def find_rims(all_ends: Any, sz: int, sy: int, voxel: Any, side: Any, count: int, h: Any, known: Any) -> None:
    """What is known of some faces before their planes are fitted: spacing, side, and where their source ends."""
    words, rim = np.empty(SEVEN * SEVEN + 7, np.uint64), np.empty(7)
    ends = False
    for i in range(count):
        if side[i] == MIDDLE:
            known[RIM + i] = np.nan
            continue
        if i == 0 or voxel[i] != voxel[i - 1]:
            ends = fit_rim(all_ends, sz, sy, voxel[i], words, rim)
        axis, sign = side[i] // 2, 2 * (side[i] % 2) - 1
        one, two = 1 if axis == 0 else 0, 1 if axis == 2 else 2
        known[UP_H + i], known[ONE_H + i], known[TWO_H + i], known[SIDE + i] = h[axis], h[one], h[two], sign
        if ends:
            known[RIM + i], known[RIM_1 + i], known[RIM_2 + i] = rim[axis], rim[one], rim[two]
            known[RIM_END + i] = max(rim[3], rim[axis] * sign)  # the source voxel is not beyond
            known[RIM_SUM + i] = rim[4 + axis]
        else:
            known[RIM + i] = np.nan


@jit(inline=True)
def fit_rim(ends: Any, sz: int, sy: int, v: int, words: Any, rim: Any) -> bool:
    """Where the source around a voxel ends: the plane rim[:3] . x = rim[3]. False if nowhere.

    In voxels from the voxel v. The plane passes the middle of the faces of outside source voxels to other voxels. Its
    normal n is the sum of these faces, turned to where they are: it minimises the sum of (n . (face - middle))^2 plus
    STIFF |n - sum|^2. rim[4:] is the sum. words : room for the rows of a window that hold any.
    """
    held = 0
    corner = v - REACH * (sz + sy + 1)
    for i in range(SEVEN):
        for j in range(SEVEN):
            word = row_of(ends, corner + i * sz + j * sy) & SEVEN_BYTES
            words[np.uint64(held)] = word | np.uint64(SEVEN * i + j) << TOP  # and which row it is
            held += word != ZERO
    if held == 0:
        return False
    n0 = n1 = n2 = t0 = t1 = t2 = count = np.int64(0)  # normal, and twice the sum of the faces' middles
    s00 = s01 = s02 = s11 = s12 = s22 = np.int64(0)  # four times the sum of their products
    for r in range(held, held + 7):
        words[np.uint64(r)] = ZERO
    for r in range((held + 7) // 8 * 8):  # without a branch: eight rows at once in vector instructions
        here, row = words[r], np.int64(words[r] >> TOP)
        z, y = row * 37 >> 8, row - (row * 37 >> 8) * SEVEN
        z, y = z - REACH, y - REACH
        low0, high0, low1 = here & EACH, here >> np.uint64(1) & EACH, here >> np.uint64(2) & EACH
        high1, low2, high2 = here >> np.uint64(3) & EACH, here >> np.uint64(4) & EACH, here >> np.uint64(5) & EACH
        both0, both1, both2 = dot(low0 + high0, ONES), dot(low1 + high1, ONES), dot(low2 + high2, ONES)
        apart0, apart1, apart2 = high0 + (EACH - low0), high1 + (EACH - low1), high2 + (EACH - low2)
        m0, m1, m2 = dot(apart0, ONES) - 7, dot(apart1, ONES) - 7, dot(apart2, ONES) - 7
        x0, x1 = dot(apart0, FIRST) - 21 - REACH * m0, dot(apart1, FIRST) - 21 - REACH * m1
        x2 = dot(apart2, FIRST) - 21 - REACH * m2
        each = low0 + high0 + low1 + high1 + low2 + high2
        faces = both0 + both1 + both2
        x = dot(each, FIRST) - REACH * faces
        n0, n1, n2, count = n0 + m0, n1 + m1, n2 + m2, count + faces
        t0, t1, t2 = t0 + 2 * z * faces + m0, t1 + 2 * y * faces + m1, t2 + 2 * x + m2
        s00 += 4 * z * (z * faces + m0) + both0
        s11 += 4 * y * (y * faces + m1) + both1
        s22 += 4 * (dot(each, FROM_MIDDLE) + x2) + both2
        s01 += 4 * z * y * faces + 2 * (z * m1 + y * m0)
        s02 += 4 * z * x + 2 * (z * m2 + x0)
        s12 += 4 * y * x + 2 * (y * m2 + x1)
    many = np.float64(count)
    r00, r01, r02 = 0.25 * (s00 - t0 * t0 / many) + STIFF, 0.25 * (s01 - t0 * t1 / many), 0.25 * (s02 - t0 * t2 / many)
    r11, r22 = 0.25 * (s11 - t1 * t1 / many) + STIFF, 0.25 * (s22 - t2 * t2 / many) + STIFF
    r12 = 0.25 * (s12 - t1 * t2 / many)
    a01, a02, a12 = r02 * r12 - r01 * r22, r01 * r12 - r02 * r11, r01 * r02 - r00 * r12  # of the adjugate
    rim[0] = (r11 * r22 - r12 * r12) * n0 + a01 * n1 + a02 * n2
    rim[1] = a01 * n0 + (r00 * r22 - r02 * r02) * n1 + a12 * n2
    rim[2] = a02 * n0 + a12 * n1 + (r00 * r11 - r01 * r01) * n2
    rim[3] = (rim[0] * t0 + rim[1] * t1 + rim[2] * t2) / (2.0 * many)
    rim[4], rim[5], rim[6] = n0, n1, n2
    return True
