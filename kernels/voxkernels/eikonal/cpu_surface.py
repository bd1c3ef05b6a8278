"""Travel time on the CPU: the smooth surface behind the voxel faces at which a front starts.

Behind each contact face lies a disc: of the plane through the faces around it (least squares on their heights in a
window of columns, as in the height-function method for free surfaces) what is close by, cut off where the source ends.

A volume of bytes makes all windows cheap: `columns`, how high above a voxel the nearest face is. Rows of eight bytes are words, and sums over them products of words: the top byte of such a
product is the sum of the bytes, each times a weight. Faces are taken LANES at once, each number of theirs in a row of
LANES, so that arithmetic is in vector instructions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from .._compile import jit
from .cpu_boxes import OUTSIDE
from .cpu_lanes import Emit, emitted, intrinsic, ir

LANES = 64  # faces that are worked on at once
MIDDLE = 6  # among the faces of a voxel: a source inside, of which no surface is made
REACH = 3  # how far up and down a column the surface may be; and how far a rim is looked for
STEEP = 2.0  # squared slope above which another axis sees the surface better
STIFF = 4.0  # weight of the sum of a rim's faces against their scatter, in squared voxels
DISC = 0.4  # radius of a disc, in voxels along the face
SHIFT, WIDEN = 0.2, 0.15  # how far a disc moves towards a rim that its source does not touch, and how much it grows
FILM = 1e-9  # a rim as flat on the disc as this is no rim: the source is a film

WORD, ZERO = types.uint64, np.uint64(0)
EIGHT, TOP = np.uint64(8), np.uint64(56)


def weights(*numbers: int) -> Any:
    """Weights of the bytes of a word, first byte first, as the factor that brings their sum to the top byte."""
    return np.uint64(sum(number << (56 - 8 * k) for k, number in enumerate(numbers)))


EACH = np.uint64(0x0001010101010101)  # 1 in the first seven bytes of a word
ONES, FIRST = weights(1, 1, 1, 1, 1, 1, 1, 1), weights(0, 1, 2, 3, 4, 5, 6)
FROM_MIDDLE = weights(9, 4, 1, 0, 1, 4, 9)  # squared

# A fit's window is the columns (p, q) with p^2 + q^2 <= 6, those with less than 5 counted by 5 - p^2 - q^2 for the
# height: five rows, the columns q = -2 to 2 of a row in the first bytes of a word.
FIVE, THREE, FIVE_ONES = np.uint64(0x0707070707), np.uint64(0x0007070700), np.uint64(0x0101010101)
Q, Q_SQUARED = weights(0, 1, 2, 3, 4), weights(4, 1, 0, 1, 4)  # q + 2; q^2
NEAR_0, NEAR_1, NEAR_2 = weights(1, 4, 5, 4, 1), weights(0, 3, 4, 3, 0), weights(0, 0, 1, 0, 0)  # for |p| = 0, 1, 2
NEAR_Q_0, NEAR_Q_1, NEAR_Q_2 = weights(0, 4, 10, 12, 4), weights(0, 3, 8, 9, 0), weights(0, 0, 2, 0, 0)  # times q + 2

SEVEN = 2 * REACH + 1  # voxels along a side of a window around a rim
SOME = 24  # rows of that window that are added up at once, and how many mostly hold something
SEVEN_BYTES, SIXTY_THREE = np.uint64((1 << 56) - 1), np.uint64(63)

# What is known of each face, in rows of LANES: spacing along the face's axis and the two others, the side (-1, 1), the
# plane's height and slopes, the rim (nan: none). Then its disc: centre, normal, direction ahead (0: whole), end.
UP_H, ONE_H, TWO_H, SIDE, HEIGHT, SLOPE_1, SLOPE_2, RIM, RIM_1, RIM_2, RIM_END, RIM_SUM = (n * LANES for n in range(12))
KNOWN = 12 * LANES
CENTRE, CENTRE_1, CENTRE_2, NORMAL, NORMAL_1, NORMAL_2, AHEAD, AHEAD_1, AHEAD_2, END, RADIUS = (
    n * LANES for n in range(11)
)
DISCS = 11 * LANES


@jit
def mark_surface(T: Any, shape: Any, surface: Any) -> None:
    """The faces of the component's surface, towards sources or not; the bits are those of marks."""
    sz, sy, n = shape[1] * shape[2], shape[2], T.size - 2 * shape[1] * shape[2]
    surface[:sz] = 0
    surface[sz + n :] = 0
    here, to = T[sz : sz + n], surface[sz : sz + n]
    z0, z1, y0, y1 = T[:n], T[2 * sz : 2 * sz + n], T[sz - sy : sz - sy + n], T[sz + sy : sz + sy + n]
    x0, x1 = T[sz - 1 : sz - 1 + n], T[sz + 1 : sz + 1 + n]
    for k in range(n):  # across the ends of rows, too: the rim of a box is not looked at
        faces = np.uint8(1) if z0[k] != z0[k] else np.uint8(0)
        faces |= np.uint8(2) if z1[k] != z1[k] else np.uint8(0)
        faces |= np.uint8(4) if y0[k] != y0[k] else np.uint8(0)
        faces |= np.uint8(8) if y1[k] != y1[k] else np.uint8(0)
        faces |= np.uint8(16) if x0[k] != x0[k] else np.uint8(0)
        faces |= np.uint8(32) if x1[k] != x1[k] else np.uint8(0)
        to[k] = faces if here[k] == here[k] else np.uint8(0)


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
            nearest_heights(
                surface, np.uint64(v), np.uint64(up), np.uint64(axis), columns, np.uint64(axis * size + v)
            )


@jit
def row_of(bytes_: Any, at: int) -> Any:
    """Eight bytes in a row as one word, the first in its lowest byte. It compiles to one load."""
    word = np.uint64(0)
    for k in range(8):
        word |= np.uint64(bytes_[np.uint64(at + k)]) << np.uint64(8 * k)
    return word


@jit
def steps_of(axis: int, sz: int, sy: int) -> tuple[int, int, int]:
    """Index steps along an axis and along the two others."""
    return (sz, sy, 1) if axis == 0 else (sy, sz, 1) if axis == 1 else (1, sz, sy)


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
def dot(bytes_: Any, factor: Any) -> Any:
    """Sum of the bytes of a word, each times its weight; below 256."""
    return np.int64(bytes_ * factor >> TOP)


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


@jit
def mark_ends(mark: Any, ends: Any) -> None:
    """The faces of outside source voxels to voxels that are neither in the component nor sources."""
    for v in range(mark.size):
        ends[v] = mark[v] & np.uint8(63) if mark[v] >= np.uint8(OUTSIDE) else np.uint8(0)


@jit
def find_rims(all_ends: Any, sz: int, sy: int, voxel: Any, side: Any, count: int, h: Any, known: Any) -> None:
    """What is known of some faces before their planes are fitted: spacing, side, and where their source ends."""
    words, rim = np.empty(3 * SOME, np.uint64), np.empty(7)
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


@jit
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
    words[held:] = ZERO
    for r in range(SOME if held <= SOME else 3 * SOME):  # without a branch: eight rows at once in vector instructions
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


@jit
def make_discs(known: Any, count: int, disc: Any) -> None:
    """The discs behind some faces, as lengths from the voxels' centres, and along the face's own axes.

    Of a disc the part counts where AHEAD . (x - centre) <= END, AHEAD a unit vector along it (0, and END = inf, if all
    of it does). END = -inf if another face represents this piece of surface better.
    """
    for i in range(count):
        h, h1, h2, side = known[UP_H + i], known[ONE_H + i], known[TWO_H + i], known[SIDE + i]
        a, b = known[SLOPE_1 + i], known[SLOPE_2 + i]
        g, g1, g2 = side / h, -a / h1, -b / h2  # the plane: side x - a x1 - b x2 = 1/2 + height, in voxels
        steep = math.sqrt(g * g + g1 * g1 + g2 * g2)
        n, n1, n2 = g / steep, g1 / steep, g2 / steep
        off = (0.5 - known[HEIGHT + i]) / steep  # the disc is where the source voxel's centre projects to
        c, c1, c2 = side * h - off * n, -off * n1, -off * n2
        rim, rim1, rim2, limit = known[RIM + i], known[RIM_1 + i], known[RIM_2 + i], known[RIM_END + i]
        r, r1, r2 = rim / h, rim1 / h1, rim2 / h2
        out = r * n + r1 * n1 + r2 * n2
        a0, a1, a2 = r - out * n, r1 - out * n1, r2 - out * n2
        slope = math.sqrt(a0 * a0 + a1 * a1 + a2 * a2)
        cut = slope > FILM * abs(out)  # not where there is no rim: nan
        slope = slope if cut else 1.0
        end = (limit - r * c - r1 * c1 - r2 * c2) / slope if cut else np.inf
        disc[CENTRE + i], disc[CENTRE_1 + i], disc[CENTRE_2 + i] = c, c1, c2
        disc[NORMAL + i], disc[NORMAL_1 + i], disc[NORMAL_2 + i] = n, n1, n2
        disc[AHEAD + i] = a0 / slope if cut else 0.0
        disc[AHEAD_1 + i] = a1 / slope if cut else 0.0
        disc[AHEAD_2 + i] = a2 / slope if cut else 0.0
        disc[END + i] = end if a * a + b * b <= STEEP else -np.inf
        disc[RADIUS + i] = DISC * math.sqrt(h1 * h2)


@jit
def end_discs(
    columns: Any, mark: Any, sz: int, sy: int, voxel: Any, side: Any, count: int, known: Any, disc: Any
) -> None:
    """Move discs whose source does not fill the space up to its rim; do not cut those that end with their last voxel."""
    for i in range(count):
        if not -np.inf < disc[END + i] < np.inf:
            continue
        axis, high = side[i] // 2, side[i] % 2
        sign = 2 * high - 1
        up, along, across = steps_of(axis, sz, sy)
        first = abs(disc[AHEAD_1 + i]) >= abs(disc[AHEAD_2 + i])
        p = np.int64(math.copysign(1.0, disc[AHEAD_1 + i])) if first else 0
        q = 0 if first else np.int64(math.copysign(1.0, disc[AHEAD_2 + i]))
        beside = voxel[i] + p * along + q * across
        code = np.int64(columns[np.uint64(axis * (columns.size // 3) + beside)]) >> (3 * high) & 7
        ahead = known[RIM + i] * sign * (code - 3) + known[RIM_1 + i] * p + known[RIM_2 + i] * q
        if code and ahead > known[RIM_END + i] and mark[np.uint64(beside + (code - 3) * sign * up)] < OUTSIDE:
            size = disc[RADIUS + i] / DISC  # no source voxel fits between the rim and the surface
            disc[CENTRE + i] += SHIFT * size * disc[AHEAD + i]
            disc[CENTRE_1 + i] += SHIFT * size * disc[AHEAD_1 + i]
            disc[CENTRE_2 + i] += SHIFT * size * disc[AHEAD_2 + i]
            disc[END + i] -= SHIFT * size
            disc[RADIUS + i] += WIDEN * size
        elif known[SLOPE_1 + i] == 0.0 and known[SLOPE_2 + i] == 0.0 and known[RIM_SUM + i] * sign >= 0.0:
            disc[END + i] = np.inf  # a flat face ends with its last voxel, unless overhung
