"""Travel time on the CPU: the straight-line times of the voxels close to a source."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._compile import jit
from .cpu_blocks import closer, lowest_bit
from .cpu_boxes import OUTSIDE, PAD

ZERO, ONE, ALL = np.uint64(0), np.uint64(1), np.uint64(255)
NEAR = 6  # squared radius of the window of a fit, in columns
REACH = 3  # how far up and down a column of that window the surface may be; and how far a rim is looked for
STEEP = 2.0  # squared slope above which another axis sees the surface better
STIFF = 4.0  # weight of the sum of a rim's faces against their scatter, in squared voxels
DISC = 0.4  # radius of a disc, in voxels along the face
EACH = np.uint64(0x0001010101010101)  # 1 in the first seven bytes of a word
ONES = np.uint64(0x0101010101010101)  # weights of bytes, the first byte's last: 1, 1, 1, ...
FIRST = np.uint64(0x0001020304050600)  # 0, 1, 2, ...
SECOND = np.uint64(0x0904010001040900)  # (k - 3)^2
FIELD = 9  # bits of a sum among those packed into one number, with its sign


def _window() -> np.ndarray:
    """(columns, 4): where a column (p, q) of a fit is found, and what it adds to sums, several packed in a number."""

    def packed(*sums: int) -> int:
        return sum(s << FIELD * k for k, s in enumerate(sums))

    steps = range(-2, 3)
    columns = [(p, q, NEAR - 1 - p * p - q * q) for p in steps for q in steps if p * p + q * q <= NEAR]
    return np.array(
        [
            (5 * p + q + 12, packed(1, p, q, p * p, p * q, q * q), packed(w, w * p, w * q), packed(0, 0, 0, 1, p, q, w))
            for p, q, w in columns
        ]
    )


WINDOW = _window()
NEAREST = np.array(  # of the heights -3 to 3, lowest in bit 0; of two, the one outwards; 0 of none
    [min((m - REACH for m in range(7) if bits >> m & 1), key=lambda h: (abs(h), -h), default=0) for bits in range(128)]
)
ROWS = (2 * REACH + 1) ** 2  # of a window around a rim
ROW_Z = np.array([z for z in range(-REACH, REACH + 1) for _ in range(-REACH, REACH + 1)])
ROW_Y = np.array([y for _ in range(-REACH, REACH + 1) for y in range(-REACH, REACH + 1)])
SHIFT, WIDEN = 0.2, 0.15  # how far a disc moves towards a rim that its source does not touch, and how much it grows


@jit
def mark_surface(T: Any, mark: Any, shape: Any, seen: Any) -> None:
    """The marks, but inside the component of all faces of its surface, towards sources or not."""
    sz, sy = shape[1] * shape[2], shape[2]
    seen[:] = 0
    for a in range(sz, T.size - sz, sy):
        here, marks, row = T[a : a + sy], mark[a : a + sy], seen[a : a + sy]
        z0, z1, y0, y1 = T[a - sz : a - sz + sy], T[a + sz : a + sz + sy], T[a - sy : a], T[a + sy : a + 2 * sy]
        x0, x1 = T[a - 1 : a - 1 + sy], T[a + 1 : a + 1 + sy]
        for k in range(sy):
            faces = np.uint8(1) if z0[k] != z0[k] else np.uint8(0)
            faces |= np.uint8(2) if z1[k] != z1[k] else np.uint8(0)
            faces |= np.uint8(4) if y0[k] != y0[k] else np.uint8(0)
            faces |= np.uint8(8) if y1[k] != y1[k] else np.uint8(0)
            faces |= np.uint8(16) if x0[k] != x0[k] else np.uint8(0)
            faces |= np.uint8(32) if x1[k] != x1[k] else np.uint8(0)
            row[k] = marks[k] if here[k] != here[k] else faces


@jit
def height_of(seen: Any, v: int, up: int, bit: int) -> int:
    """How far up (or down) a column the nearest face of the surface is; REACH + 1 if it is further than REACH."""
    for m in range(2 * REACH + 1):
        height = (m + 1) // 2 if m % 2 else -(m // 2)  # 0, 1, -1, 2, -2, ...
        if seen[np.uint64(v + height * up)] & (OUTSIDE | bit) == bit:
            return height
    return REACH + 1


@jit
def row_of(seen: Any, at: int) -> Any:
    """Eight marks in a row as one word, the first in its lowest byte. It compiles to one load."""
    word = np.uint64(0)
    for k in range(8):
        word |= np.uint64(seen[np.uint64(at + k)]) << np.uint64(8 * k)
    return word


@jit
def faces_of(word: Any, face: int) -> Any:
    """1 in each byte of a row of marks where the component has this face."""
    return word >> np.uint64(face) & ~(word >> np.uint64(7)) & EACH


@jit
def find_heights(seen: Any, v: int, up: int, one: int, two: int, face: int, found: Any) -> None:
    """At which of seven heights the columns (p, q) around a face have a face: found[5 p + q + 12], the lowest in bit 0.

    A word holds eight columns at one height or, where the columns lie along the rows, one column.
    """
    for p in range(-2, 3):
        if face < 4:
            row = v + p * one - 2
            columns = np.uint64(0)
            for height in range(-REACH, REACH + 1):
                columns |= faces_of(row_of(seen, row + height * up), face) << np.uint64(height + REACH)
            for q in range(5):
                found[5 * p + q + 10] = columns >> np.uint64(8 * q) & np.uint64(127)
        else:
            gather = np.uint64(0x0102040810204080) if up > 0 else np.uint64(0x4020100804020100)
            for q in range(-2, 3):
                column = faces_of(row_of(seen, v + p * one + q * two - REACH), face)
                found[5 * p + q + 12] = column * gather >> np.uint64(56) & np.uint64(127)


@jit
def next_sum(packed: Any) -> Any:
    """The first of several sums that are packed into a number, and the others."""
    half = np.int64(1 << (FIELD - 1))
    low = (packed + half & (2 * half - 1)) - half
    return low, (packed - low) >> FIELD


@jit
def fit_heights(seen: Any, v: int, up: int, one: int, two: int, face: int, found: Any) -> tuple[float, float, float]:
    """Plane through the surface in the columns around a contact face: height c there, slopes a and b.

    In voxels, outwards from the face (index step `up`); a, b along the two other axes (index steps `one` and `two`), by
    least squares. The height is the mean over the nearer columns, at which a curved surface is less far off its plane.
    All 0 if the faces lie in one plane.
    """
    find_heights(seen, v, up, one, two, face, found)
    counts = moments = np.int64(0)
    for e in range(WINDOW.shape[0]):
        heights = found[WINDOW[e, 0]]
        there, height = np.int64(heights != 0), NEAREST[heights]
        counts += there * WINDOW[e, 1]
        moments += there * WINDOW[e, 2] + height * WINDOW[e, 3]
    n, counts = next_sum(counts)
    n1, counts = next_sum(counts)
    n2, counts = next_sum(counts)
    n11, counts = next_sum(counts)
    n12, n22 = next_sum(counts)
    near, moments = next_sum(moments)
    near1, moments = next_sum(moments)
    near2, moments = next_sum(moments)
    h0, moments = next_sum(moments)
    h1, moments = next_sum(moments)
    h2, near_h = next_sum(moments)
    s11, s22 = n11 + 1e-6, n22 + 1e-6  # no slope across a single row of faces
    d11, d12, d22 = n * s11 - n1 * n1, n * n12 - n1 * n2, n * s22 - n2 * n2
    e1, e2 = n * h1 - n1 * h0, n * h2 - n2 * h0
    det = d11 * d22 - d12 * d12
    a, b = (e1 * d22 - e2 * d12) / det, (e2 * d11 - e1 * d12) / det
    return min(max((near_h - a * near1 - b * near2) / near, -0.5), 0.5), a, b


@jit
def dot(bytes_: Any, weights: Any) -> Any:
    """Sum of the products of the bytes of a word and weights, which are given from the last byte to the first."""
    return np.int64(bytes_ * weights >> np.uint64(56))


@jit
def fit_rim(seen: Any, sz: int, sy: int, v: int, words: Any, rim: Any) -> bool:
    """Where the source around a voxel ends: the plane rim[:3] . x = rim[3]. False if nowhere.

    In voxels from the voxel v. The plane passes the middle of the faces of outside source voxels to other voxels. Its
    normal n is the sum of these faces, turned to where they are: it minimises the sum of (n . (face - middle))^2 plus
    STIFF |n - sum|^2. rim[4:] is the sum. words : room for the rows around v.
    """
    some = np.uint64(0)
    for r in range(ROWS):
        word = row_of(seen, v + ROW_Z[r] * sz + ROW_Y[r] * sy - REACH)
        word &= (word >> np.uint64(7) & EACH) * np.uint64(63)
        words[r] = word
        some |= word
    if some == 0:
        return False
    n0 = n1 = n2 = t0 = t1 = t2 = count = np.int64(0)  # normal, and twice the sum of the faces' middles
    s00 = s01 = s02 = s11 = s12 = s22 = np.int64(0)  # four times the sum of their products
    for r in range(ROWS):  # without a branch: several rows at once in vector instructions
        ends, z, y = words[r], ROW_Z[r], ROW_Y[r]
        low0, high0, low1 = ends & EACH, ends >> np.uint64(1) & EACH, ends >> np.uint64(2) & EACH
        high1, low2, high2 = ends >> np.uint64(3) & EACH, ends >> np.uint64(4) & EACH, ends >> np.uint64(5) & EACH
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
        s22 += 4 * (dot(each, SECOND) + x2) + both2
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
def make_disc(
    seen: Any, mark: Any, sz: int, sy: int, v: int, face: int, h: Any, found: Any, ends: bool, rim: Any, disc: Any
) -> bool:
    """The piece of surface behind one contact face. False if another face represents it better, or none of it is left.

    disc, as lengths from the voxel's centre: its centre [0:3], unit normal [3:6] and radius [6]; of it the part where
    [7:10] . (x - centre) <= [10], [7:10] a unit vector along the disc.
    """
    axis, sign = face // 2, 2 * (face % 2) - 1
    one, two = 1 if axis == 0 else 0, 1 if axis == 2 else 2
    up, along, across = sz if axis == 0 else sy if axis == 1 else 1, sy if axis == 0 else sz, sy if axis == 2 else 1
    up *= sign
    c, a, b = fit_heights(seen, v, up, along, across, face, found)
    if a * a + b * b > STEEP:
        return False
    centre, normal, ahead = disc[0:3], disc[3:6], disc[7:10]
    g, g1, g2 = sign / h[axis], -a / h[one], -b / h[two]  # the plane: sign x - a x1 - b x2 = 1/2 + c, in voxels
    steep = math.sqrt(g * g + g1 * g1 + g2 * g2)
    normal[axis], normal[one], normal[two] = g / steep, g1 / steep, g2 / steep
    off = (0.5 - c) / steep  # the disc is where the source voxel's centre projects to
    centre[axis], centre[one], centre[two] = sign * h[axis] - off * normal[axis], -off * normal[one], -off * normal[two]
    size = math.sqrt(h[one] * h[two])
    disc[6] = DISC * size
    ahead[:] = 0.0
    disc[10] = np.inf
    if not ends:
        return True
    beyond = max(rim[3], rim[axis] * sign)  # the source voxel is not beyond
    r0, r1, r2 = rim[0] / h[0], rim[1] / h[1], rim[2] / h[2]
    out = r0 * normal[0] + r1 * normal[1] + r2 * normal[2]
    ahead[0], ahead[1], ahead[2] = r0 - out * normal[0], r1 - out * normal[1], r2 - out * normal[2]
    slope = math.sqrt(ahead[0] * ahead[0] + ahead[1] * ahead[1] + ahead[2] * ahead[2])
    if slope <= 1e-9 * abs(out):  # the source is a film
        ahead[:] = 0.0
        return True
    ahead /= slope
    disc[10] = (beyond - r0 * centre[0] - r1 * centre[1] - r2 * centre[2]) / slope
    first = abs(ahead[one]) >= abs(ahead[two])
    p = np.int64(math.copysign(1.0, ahead[one])) if first else 0
    q = 0 if first else np.int64(math.copysign(1.0, ahead[two]))
    beside = v + p * along + q * across
    height = height_of(seen, beside, up, 1 << face)
    stops = height <= REACH and mark[np.uint64(beside + (height + 1) * up)] < OUTSIDE
    if stops and rim[axis] * sign * (height + 1) + rim[one] * p + rim[two] * q > beyond:
        centre += SHIFT * size * ahead  # no source voxel fits between the rim and the surface
        disc[10] -= SHIFT * size
        disc[6] += WIDEN * size
    elif a == 0.0 and b == 0.0 and rim[4 + axis] * sign >= 0.0:  # a flat face ends with its last voxel, unless overhung
        disc[10] = np.inf
    return bool(disc[10] > -disc[6])


@jit
def disc_distances(disc: Any, beside: Any, distance: Any) -> None:
    """Distances from the voxels beside one (3, K lengths) to the disc of one of its faces."""
    c0, c1, c2, n0, n1, n2, radius = disc[0], disc[1], disc[2], disc[3], disc[4], disc[5], disc[6]
    g0, g1, g2, end = disc[7], disc[8], disc[9], disc[10]
    z, y, x = beside[0], beside[1], beside[2]
    if end >= radius:
        for o in range(distance.size):
            d0, d1, d2 = z[o] - c0, y[o] - c1, x[o] - c2
            e = n0 * d0 + n1 * d1 + n2 * d2
            flat = d0 * d0 + d1 * d1 + d2 * d2 - e * e
            off = math.sqrt(flat if flat > 0.0 else 0.0) - radius
            off = off if off > 0.0 else 0.0
            distance[o] = math.sqrt(e * e + off * off)
        return
    chord = math.sqrt(radius * radius - end * end)
    for o in range(distance.size):
        d0, d1, d2 = z[o] - c0, y[o] - c1, x[o] - c2
        e = n0 * d0 + n1 * d1 + n2 * d2
        flat = d0 * d0 + d1 * d1 + d2 * d2 - e * e
        flat = flat if flat > 0.0 else 0.0
        far = math.sqrt(flat)
        ahead = g0 * d0 + g1 * d1 + g2 * d2
        beyond = ahead * radius > end * (far if far > radius else radius)  # so is the nearest point of the whole disc
        side = flat - ahead * ahead
        off = math.sqrt(side if side > 0.0 else 0.0) - chord if beyond else far - radius
        off = off if off > 0.0 else 0.0
        past = ahead - end if beyond else 0.0
        distance[o] = math.sqrt(e * e + off * off + past * past)


@jit
def square_distances(face: int, h: Any, beside: Any, distance: Any) -> None:
    """Distances from the voxels beside one (3, K lengths) to one of its faces."""
    axis, sign = face // 2, 2.0 * (face % 2) - 1.0
    one, two = 1 if axis == 0 else 0, 1 if axis == 2 else 2
    up, along, across = beside[axis], beside[one], beside[two]
    for o in range(distance.size):
        e = up[o] - 0.5 * sign * h[axis]
        off1, off2 = abs(along[o]) - 0.5 * h[one], abs(across[o]) - 0.5 * h[two]
        off1, off2 = off1 if off1 > 0.0 else 0.0, off2 if off2 > 0.0 else 0.0
        distance[o] = math.sqrt(e * e + off1 * off1 + off2 * off2)


@jit
def lines_in_box(offsets: Any, via: Any, shape: Any, h: Any) -> tuple[Any, Any, Any]:
    """The table of straight lines for one box: index offsets, lengths, index offsets of the voxels on the way."""
    sz, sy = shape[1] * shape[2], shape[2]
    step = offsets[:, 0] * sz + offsets[:, 1] * sy + offsets[:, 2]
    length = np.sqrt((offsets[:, 0] * h[0]) ** 2 + (offsets[:, 1] * h[1]) ** 2 + (offsets[:, 2] * h[2]) ** 2)
    return step, length, via[:, 0] * sz + via[:, 1] * sy + via[:, 2]


@jit
def rows_of(offsets: Any, length: Any, sz: int, sy: int) -> tuple[Any, Any, Any]:
    """The offsets of straight lines by rows of eight in x.

    Returns rows (R,): index steps to their first voxel; lengths (R, 8), inf where no line is; which (R, 8), the offset.
    """
    rows = np.empty(offsets.shape[0], np.int64)
    lengths = np.full((offsets.shape[0], 8), np.inf, np.float32)
    which = np.zeros((offsets.shape[0], 8), np.int64)
    n = 0
    left = 0
    for o in range(offsets.shape[0]):
        left = min(left, offsets[o, 2])
    for o in range(offsets.shape[0]):
        row = offsets[o, 0] * sz + offsets[o, 1] * sy + left
        r = 0
        while r < n and rows[r] != row:
            r += 1
        if r == n:
            rows[n] = row
            n += 1
        lengths[r, offsets[o, 2] - left] = length[o]
        which[r, offsets[o, 2] - left] = o
    return rows[:n], lengths[:n], which[:n]


@jit
def in_sight(
    T: Any, mark: Any, pace: Any, v: int, w: int, way: Any, first_way: Any, first_line: int, last_line: int
) -> bool:
    """Whether one of the ways from v to w is free: all in the component, or in a source, and of one speed."""
    if pace.size > 1 and pace[v] != pace[w]:
        return False
    for n in range(first_line, last_line):
        free = True
        for m in range(first_way[n], first_way[n + 1]):
            x = np.uint64(v + way[m])
            if not mark[x] & OUTSIDE and (math.isnan(T[x]) or (pace.size > 1 and pace[x] != pace[w])):
                free = False
                break
        if free:
            return True
    return False


@jit
def start_box(T: Any, mark: Any, pace: Any, shape: Any, h: Any, fit: bool, band: float, lines: Any) -> None:
    """Give the voxels within `band` of a source, and every voxel that touches one, their straight-line time."""
    offsets, first_line, first_way, via = lines
    _, length, way = lines_in_box(offsets, via, shape, h)
    found, words = np.empty(25, np.uint8), np.empty(ROWS, np.uint64)
    rim, disc, distance = np.empty(7), np.empty(11), np.empty(length.size)
    beside = np.empty((3, length.size))
    for o in range(length.size):
        for axis in range(3):
            beside[axis, o] = offsets[o, axis] * h[axis]
    sz, sy = shape[1] * shape[2], shape[2]
    rows, lengths, which = rows_of(offsets, length, sz, sy)
    near, place = lengths.reshape(-1), np.zeros(length.size, np.int64)
    for lane in range(near.size):
        if near[lane] < np.inf:
            place[which[lane // 8, lane % 8]] = lane
    near[place[0]] = np.inf
    seen = np.empty(T.size if fit else 0, np.uint8)
    if fit:
        mark_surface(T, mark, shape, seen)
    v = PAD * sz - 1
    while v < T.size - PAD * sz - 1:
        v += 1
        if row_of(mark, v) == ZERO:
            v += 7
            continue
        if mark[v] == 0 or mark[v] >= OUTSIDE:
            continue
        ends = fit and mark[v] & 63 != 0 and fit_rim(seen, sz, sy, v, words, rim)
        for face in range(7):  # the seventh is the centre of a source inside
            if not mark[v] & (1 << face):
                continue
            if face == 6:
                distance[:] = length
            elif not fit:
                square_distances(face, h, beside, distance)
            elif make_disc(seen, mark, sz, sy, v, face, h, found, ends, rim, disc):
                disc_distances(disc, beside, distance)
            else:
                continue
            t = distance[0] / pace[v] if pace.size > 1 else distance[0]
            if t < T[v]:
                T[v] = t
            for o in range(1, distance.size):
                near[place[o]] = distance[o]
            for r in range(rows.size):
                w = v + rows[r]
                bits = closer(T, np.uint64(w), near, np.uint64(r), np.float32(band)) if pace.size == 1 else ALL
                while bits != ZERO:
                    lane = int(lowest_bit(bits))
                    bits &= bits - ONE
                    o, x = which[r, lane], w + lane
                    t = near[8 * r + lane]
                    if pace.size > 1:
                        t = t / pace[x] if t <= band else np.inf
                    if t < T[x] and in_sight(T, mark, pace, v, x, way, first_way, first_line[o], first_line[o + 1]):
                        T[x] = t
    for v in range(PAD * sz, T.size - PAD * sz if fit else 0):
        if mark[v] and T[v] == np.inf:  # touches, but no disc is in sight
            for face in range(6):
                if mark[v] & (1 << face):
                    T[v] = min(T[v], np.float32(0.5 * h[face // 2] / (pace[v] if pace.size > 1 else 1.0)))
