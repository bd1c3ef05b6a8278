"""Travel time on the CPU: |grad T| = 1 / speed inside a masked or labelled volume, one connected piece after the other.

The domain is split into 6-connected components of equal label. No front passes between them, so each is copied into a
padded box of its own, small enough for the cache, and solved there; threads that are idle take the next, the largest
first. In a box:

1. Start. A plane is fitted to the contact faces around each contact face (least squares on their heights, as in the
   height-function method for free surfaces) and cut off where the source ends. Every voxel close by gets the distance
   to the nearest such patch that a straight line reaches, or to the centre of a source inside.
2. Order 1. The upwind differences of Rouy & Tourin (1992), solved by correcting labels in a two-level bucket queue
   (Dial 1969, Kim 2001): entries below a threshold are worked off until none is left, then the threshold moves on. They
   are worked off in rounds: list the neighbours whose time may fall, collect what lies around them, solve the equation
   for all at once without a branch (eight wide where the processor can), then write. It ends when nothing changes any
   more, at the fixed point that fast marching (Sethian 1996) finds.
3. Order 2. When a bucket is final, its voxels are taken in the order of their order-1 arrival, sorted by counting into
   parts narrower than a thousandth of a step. The stencil uses only neighbours that arrive earlier by such a part, with
   second differences where two arrive one after the other (Sethian 1999), so that neither the order of work nor a tie
   changes the answer. A voxel at a wall also tries straight lines from voxels in sight: the neighbour that it needs may
   be wall, and a corner is a new point source.

Cost: O(N), 2.3 solutions of the equation a voxel. Memory beside input and output: 6 bytes for each voxel of the boxes
in work, one a thread (4 more with a speed array; 4 more for order 2, unless the box nearly fills the volume), and about
100 bytes for each voxel of the front.

Reached on one thread (Zen 5, cracked balls in 160^3, 20 % domain; processor time a domain voxel): order 1 from
centres 92 ns, order 2 with the sub-voxel start 268 ns (scikit-fmm order 1: 800 to 900, order 2: 1050 to 1300). Of
these: components 20, box 10, march of order 1 49, order 2 on top 50 to 75, start from centres 12, sub-voxel start 105
(0.14 contact faces a domain voxel). Floor of the march, by its parts alone in cache with a trained branch predictor:
listing 7, collecting 3, solving 2.4, writing 9, together 22 ns. Did not pay: wider buckets (0.8 and 1.2 steps: 3 to 5
% slower), components run by run with inner loops (50 % slower). Not done: one component is one thread's work.

Not checked: shapes, types, C order, spacing > 0, speed > 0 inside the domain, fewer than 2^30 components, fewer than
2^32 voxels in a box.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._compile import jit

PAD = 4  # rim of a box: how far fits and straight lines reach, and one more
NUMBERED = -(1 << 31)  # the sign bit: marks the number of a component among times
INSIDE = 64  # mark: a source inside the domain; bits 0 to 5: a contact face towards -z, +z, -y, +y, -x, +x
OUTSIDE = 128  # mark: a source outside the domain; bits 0 to 5: neighbours neither in the component nor sources
INDEX = 0xFFFFFFFF  # lower half of a queue entry: the voxel; upper half: the bits of its time, which sort as the time

NOWHERE = 0x7FC00000  # the bits of nan, outside the domain
PLAIN, SOURCE, WITHIN = np.uint8(0), np.uint8(1), np.uint8(2)  # kinds: neither; a source outside; in the component

NEAR = 6  # squared radius of the window of a fit, in columns
REACH = 3  # how far up and down a column of that window the surface may be
STEEP = 2.0  # squared slope above which another axis sees the surface better
PATCH = 0.35  # half width of a fitted patch; at 0.5, corners would stick out of an oblique rim
BUCKET = 0.5  # width of a bucket, in the shortest steps
LISTED, WAITING, DONE = 4, 8, 16  # state, beside the kind: about to be solved; in a later bucket; in this one or before
BINS = 512  # parts of a bucket for order 2: each less than EARLIER wide
SMALL = 1 << 24  # bytes that may be spent where the volume is small
EARLIER = 1e-3  # by which part of a step a neighbour has to be earlier to be upwind in order 2
CAREFUL = 1.0 - 1e-12  # a lower bound of a distance, made safe from rounding
KEEP = 0.07  # straight-line times stay unless order 1 finds a way that is shorter by this part of a step


@jit
def grown(array: Any) -> Any:
    """A copy of a list with twice the room."""
    bigger = np.empty(2 * array.size, array.dtype)
    bigger[: array.size] = array
    return bigger


# ---- components ---------------------------------------------------------------------------------------------------


@jit
def root_of(parent: Any, i: int) -> int:
    """The first provisional number of a component."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@jit
def joined(parent: Any, mine: int, other: int) -> int:
    """Join two provisional numbers; 0 is none yet."""
    if mine == 0 or mine == other:
        return other
    mine, other = root_of(parent, mine), root_of(parent, other)
    mine, other = min(mine, other), max(mine, other)
    parent[other] = mine
    return mine


@jit
def split_components(domain: Any, out: Any, ids: Any) -> Any:
    """Number the components: `out` becomes nan outside, and its bits `ids` NUMBERED + the number inside.

    Returns boxes (n, 7): z0, z1, y0, y1, x0, x1 (half-open) and the count of voxels.
    """
    parent = np.zeros(1024, np.int32)
    n = 0
    for z in range(domain.shape[0]):
        for y in range(domain.shape[1]):
            out[z, y] = np.nan
            row, numbers = domain[z, y], ids[z, y]
            behind, behind_numbers = domain[max(z - 1, 0), y], ids[max(z - 1, 0), y]
            above, above_numbers = domain[z, max(y - 1, 0)], ids[z, max(y - 1, 0)]
            run = row[0]
            mine = seen_behind = seen_above = 0
            for x in range(row.size):
                value = row[x]
                if value != run:
                    run = value
                    mine = seen_behind = seen_above = 0
                if value == 0:
                    continue
                if z > 0 and behind[x] == value and behind_numbers[x] != seen_behind:
                    seen_behind = behind_numbers[x]
                    mine = joined(parent, mine, seen_behind - NUMBERED)
                if y > 0 and above[x] == value and above_numbers[x] != seen_above:
                    seen_above = above_numbers[x]
                    mine = joined(parent, mine, seen_above - NUMBERED)
                if mine == 0:
                    n += 1
                    if n == parent.size:
                        parent = grown(parent)
                    parent[n] = n
                    mine = n
                numbers[x] = NUMBERED + mine
    count = 0
    for i in range(1, n + 1):
        if parent[i] == i:
            count += 1
            parent[i] = count
        else:
            parent[i] = parent[parent[i]]  # parents come first, and hold their final number by now
    boxes = np.empty((count, 7), np.int64)
    boxes[:, 0::2] = 1 << 62
    boxes[:, 1::2] = 0
    boxes[:, 6] = 0
    for z in range(domain.shape[0]):
        for y in range(domain.shape[1]):
            numbers = ids[z, y]
            x = 0
            while x < numbers.size:
                provisional = numbers[x]
                if provisional >= 0:
                    x += 1
                    continue
                begin = x
                mine = parent[provisional - NUMBERED]
                while x < numbers.size and numbers[x] == provisional:
                    numbers[x] = NUMBERED + mine
                    x += 1
                box = boxes[mine - 1]
                box[0], box[1] = min(box[0], z), max(box[1], z + 1)
                box[2], box[3] = min(box[2], y), max(box[3], y + 1)
                box[4], box[5] = min(box[4], begin), max(box[5], x)
                box[6] += x - begin
    return boxes


# ---- one box: input and output --------------------------------------------------------------------------------------


@jit
def fill_box(
    ids: Any, source: Any, speed: Any, volume: Any, interfaces: bool, me: int, low: Any, shape: Any, T: Any, pace: Any
) -> None:
    """Copy one component: T = inf inside, nan outside, -1 and -2 at the sources outside and inside; speeds.

    `ids` (the bits of the times), `source` and `speed` are flat. With `interfaces`, the voxels of other components are
    sources outside, too.
    """
    mine = np.int32(NUMBERED + me)
    for i in range(shape[0]):
        for j in range(shape[1]):
            z, y = low[0] + i, low[1] + j
            row = T[(i * shape[1] + j) * shape[2] : (i * shape[1] + j + 1) * shape[2]]
            if not (0 <= z < volume[0] and 0 <= y < volume[1]):
                row[:] = np.nan
                continue
            left, right = max(-low[2], 0), min(volume[2] - low[2], shape[2])
            row[:left] = np.nan
            row[right:] = np.nan
            row = row[left:right]
            begin = (z * volume[1] + y) * volume[2] + low[2] + left
            numbers, from_here = ids[begin : begin + row.size], source[begin : begin + row.size]
            for k in range(row.size):
                lit = from_here[k] != 0
                inside = np.float32(-2.0) if lit else np.float32(np.inf)
                other = lit if numbers[k] == NOWHERE else interfaces
                outside = np.float32(-1.0) if other else np.float32(np.nan)
                row[k] = inside if numbers[k] == mine else outside
            if pace.size > 1:
                first = (i * shape[1] + j) * shape[2] + left
                pace[first : first + row.size] = speed[begin : begin + row.size]


@jit
def mark_box(shape: Any, T: Any, kind: Any, mark: Any) -> bool:
    """Set the marks of a box from what `fill_box` wrote, and T = nan or inf. False if no source is there."""
    for v in range(T.size):
        t = T[v]
        kind[v] = (PLAIN if t != t else WITHIN) if not t < 0.0 else (SOURCE if t == -1.0 else WITHIN | INSIDE)
        mark[v] = 0
    for v in range(T.size):
        T[v] = np.float32(np.inf) if kind[v] & WITHIN else np.float32(np.nan)
    sz, sy = shape[1] * shape[2], shape[2]
    started = 0
    for i in range(1, shape[0] - 1):
        for j in range(1, shape[1] - 1):
            a = i * sz + j * sy + 1
            n = shape[2] - 2
            here, marks = kind[a : a + n], mark[a : a + n]
            z0, z1 = kind[a - sz : a - sz + n], kind[a + sz : a + sz + n]
            y0, y1 = kind[a - sy : a - sy + n], kind[a + sy : a + sy + n]
            x0, x1 = kind[a - 1 : a - 1 + n], kind[a + 1 : a + 1 + n]
            for k in range(n):
                sought = SOURCE if here[k] & WITHIN else PLAIN
                faces = np.uint8(0)
                faces |= np.uint8(1) if z0[k] == sought else np.uint8(0)
                faces |= np.uint8(2) if z1[k] == sought else np.uint8(0)
                faces |= np.uint8(4) if y0[k] == sought else np.uint8(0)
                faces |= np.uint8(8) if y1[k] == sought else np.uint8(0)
                faces |= np.uint8(16) if x0[k] == sought else np.uint8(0)
                faces |= np.uint8(32) if x1[k] == sought else np.uint8(0)
                own = np.uint8(OUTSIDE) if here[k] == SOURCE else here[k] & np.uint8(INSIDE)
                found = own | faces if here[k] != PLAIN else np.uint8(0)
                marks[k] = found
                started += 1 if np.uint8(0) < found < np.uint8(OUTSIDE) else 0
    return started > 0


@jit
def write_times(T: Any, volume: Any, low: Any, shape: Any, max_time: float, times: Any) -> None:
    """Copy the times of one component to the flat volume."""
    for i in range(PAD, shape[0] - PAD):
        for j in range(PAD, shape[1] - PAD):
            first, n = (i * shape[1] + j) * shape[2] + PAD, shape[2] - 2 * PAD
            row = ((low[0] + i) * volume[1] + low[1] + j) * volume[2] + low[2] + PAD
            arrival, there = T[first : first + n], times[row : row + n]
            for k in range(n):
                t = arrival[k]
                if t == t:
                    there[k] = t if t <= max_time else np.float32(np.inf)


# ---- start ----------------------------------------------------------------------------------------------------------


@jit
def fit_heights(mark: Any, v: int, up: int, one: int, two: int, bit: int) -> tuple[float, float, float]:
    """Plane through the heights of equal contact faces in the columns around one: height c, slopes a and b.

    Least squares in voxels, outwards from the face (index step `up`); a, b along the two other axes (index steps `one`
    and `two`). All 0 if the faces lie in one plane.
    """
    s0 = s1 = s2 = s11 = s12 = s22 = h0 = h1 = h2 = 0.0
    for p in range(-2, 3):
        for q in range(-2, 3):
            if p * p + q * q > NEAR:
                continue
            column = v + p * one + q * two
            for m in range(2 * REACH + 1):  # heights 0, 1, -1, 2, -2, ...: the nearest face of the column
                height = (m + 1) // 2 if m % 2 else -(m // 2)
                if mark[np.uint64(column + height * up)] & (OUTSIDE | bit) == bit:
                    s0 += 1.0
                    s1 += p
                    s2 += q
                    s11 += p * p
                    s12 += p * q
                    s22 += q * q
                    h0 += height
                    h1 += height * p
                    h2 += height * q
                    break
    s11 += 1e-6  # no slope across a single row of faces
    s22 += 1e-6
    d11, d12, d22 = s0 * s11 - s1 * s1, s0 * s12 - s1 * s2, s0 * s22 - s2 * s2
    e1, e2 = s0 * h1 - s1 * h0, s0 * h2 - s2 * h0
    det = d11 * d22 - d12 * d12
    a, b = (e1 * d22 - e2 * d12) / det, (e2 * d11 - e1 * d12) / det
    return min(max((h0 - a * s1 - b * s2) / s0, -0.5), 0.5), a, b


@jit
def fit_rim(mark: Any, sz: int, sy: int, v: int, axis: int, sign: int, rim: Any) -> bool:
    """Where the source around a contact face ends: the plane rim[:3] . (x - at) = rim[3]. False if nowhere.

    In voxels from the voxel v. Its normal is the sum of the faces of outside source voxels to other voxels; it passes
    their middle.
    """
    n0 = n1 = n2 = t0 = t1 = t2 = count = np.int64(0)  # normal, and twice the sum of the faces' middles
    for i in range(-2, 3):
        for j in range(-2, 3):
            for k in range(-2, 3):
                z, y, x = i + sign * (axis == 0), j + sign * (axis == 1), k + sign * (axis == 2)
                ends = np.int64(mark[np.uint64(v + z * sz + y * sy + x)])
                if ends <= OUTSIDE:
                    continue
                m0, m1 = (ends >> 1 & 1) - (ends & 1), (ends >> 3 & 1) - (ends >> 2 & 1)
                m2 = (ends >> 5 & 1) - (ends >> 4 & 1)
                faces = (ends & 1) + (ends >> 1 & 1) + (ends >> 2 & 1) + (ends >> 3 & 1)
                faces += (ends >> 4 & 1) + (ends >> 5 & 1)
                n0, n1, n2, count = n0 + m0, n1 + m1, n2 + m2, count + faces
                t0, t1, t2 = t0 + 2 * z * faces + m0, t1 + 2 * y * faces + m1, t2 + 2 * x * faces + m2
    rim[0], rim[1], rim[2], rim[3] = n0, n1, n2, 0.0
    if count:
        rim[3] = (n0 * t0 + n1 * t1 + n2 * t2) / (2.0 * count)
    return bool(count > 0)


@jit
def make_patch(mark: Any, sz: int, sy: int, v: int, face: int, h: Any, fit: bool, rim: Any, patch: Any) -> bool:
    """The piece of surface behind one contact face. False if another face represents it better.

    patch: height = [0] + [1] u + [2] v over the square of half width [5] around (u, v) = ([3], [4]), in voxels from the
    voxel's centre; of it the part where [6] + [7] u + [8] v <= 0, which ends on the line from [9:11] to [11:13].
    The rest is room to clip it.
    """
    patch[:] = 0.0
    patch[0] = patch[5] = 0.5
    if not fit:
        return True
    axis, sign = face // 2, 2 * (face % 2) - 1
    one, two = 1 if axis == 0 else 0, 1 if axis == 2 else 2
    up, along, across = sz if axis == 0 else sy if axis == 1 else 1, sy if axis == 0 else sz, sy if axis == 2 else 1
    c, a, b = fit_heights(mark, v, sign * up, along, across, 1 << face)
    patch[0] += c
    patch[5] = PATCH
    if a == 0.0 and b == 0.0:
        return True
    if a * a + b * b > STEEP:
        return False
    ra, rb = (h[axis] / h[one]) ** 2, (h[axis] / h[two]) ** 2
    foot = (0.5 - c) / (1.0 + ra * a * a + rb * b * b)  # the source voxel's centre, projected on the plane
    patch[1], patch[2], patch[3], patch[4] = a, b, foot * a * ra, foot * b * rb
    if not fit_rim(mark, sz, sy, v, axis, sign, rim):
        return True
    patch[6] = rim[axis] * sign * patch[0] - rim[3]
    patch[7] = rim[axis] * sign * a + rim[one]
    patch[8] = rim[axis] * sign * b + rim[two]
    return bool(clip_square(patch, patch[13:17], patch[17:21], patch[21:25]))


@jit
def clip_square(patch: Any, u: Any, v: Any, beyond: Any) -> bool:
    """Find where the rim crosses the square of a patch. False if nothing of it remains."""
    for i in range(4):
        u[i] = patch[3] + (patch[5] if i == 1 or i == 2 else -patch[5])
        v[i] = patch[4] + (patch[5] if i >= 2 else -patch[5])
        beyond[i] = patch[6] + patch[7] * u[i] + patch[8] * v[i]
    found = 9
    remains = False
    for i in range(4):
        n = (i + 1) % 4
        remains |= beyond[i] <= 0.0
        if (beyond[i] <= 0.0) != (beyond[n] <= 0.0):
            t = beyond[i] / (beyond[i] - beyond[n])
            patch[found], patch[found + 1] = u[i] + t * (u[n] - u[i]), v[i] + t * (v[n] - v[i])
            found += 2
    return remains


@jit
def patch_distance(patch: Any, height: float, p: float, q: float, h: float, h1: float, h2: float) -> float:
    """Distance from a point to a patch; the point in voxels, the spacing h outwards and h1, h2 along the patch."""
    k, a, b = patch[0] - height, patch[1], patch[2]
    f1, f2 = h * a / h1, h * b / h2
    e = h * (k + a * p + b * q) / (1.0 + f1 * f1 + f2 * f2)
    u, v = p - e * f1 / h1, q - e * f2 / h2  # the foot of the point on the plane
    off_u, off_v = abs(u - patch[3]) > patch[5], abs(v - patch[4]) > patch[5]
    if off_u or off_v:  # the nearest point is on one of the edges that the foot lies beyond
        best = np.inf
        foot_u, foot_v = u, v
        if off_u:
            s = patch[3] + math.copysign(patch[5], foot_u - patch[3])
            t = (h2 * h2 * q - h * h * b * (k + a * s)) / (h2 * h2 + h * h * b * b)
            t = min(max(t, patch[4] - patch[5]), patch[4] + patch[5])
            best = (h * (k + a * s + b * t)) ** 2 + (h1 * (s - p)) ** 2 + (h2 * (t - q)) ** 2
            u, v = s, t
        if off_v:
            t = patch[4] + math.copysign(patch[5], foot_v - patch[4])
            s = (h1 * h1 * p - h * h * a * (k + b * t)) / (h1 * h1 + h * h * a * a)
            s = min(max(s, patch[3] - patch[5]), patch[3] + patch[5])
            if (h * (k + a * s + b * t)) ** 2 + (h1 * (s - p)) ** 2 + (h2 * (t - q)) ** 2 < best:
                u, v = s, t
    if patch[6] + patch[7] * u + patch[8] * v > 0.0:  # beyond the rim: the nearest point is on the rim
        s, t = patch[11] - patch[9], patch[12] - patch[10]
        d0, d1, d2 = h * (a * s + b * t), h1 * s, h2 * t
        r0, r1, r2 = h * (k + a * patch[9] + b * patch[10]), h1 * (patch[9] - p), h2 * (patch[10] - q)
        along = -(r0 * d0 + r1 * d1 + r2 * d2) / max(d0 * d0 + d1 * d1 + d2 * d2, 1e-300)
        along = min(max(along, 0.0), 1.0)
        u, v = patch[9] + along * s, patch[10] + along * t
    return math.sqrt((h * (k + a * u + b * v)) ** 2 + (h1 * (u - p)) ** 2 + (h2 * (v - q)) ** 2)


@jit
def lines_in_box(offsets: Any, via: Any, shape: Any, h: Any) -> tuple[Any, Any, Any]:
    """The table of straight lines for one box: index offsets, lengths, index offsets of the voxels on the way."""
    sz, sy = shape[1] * shape[2], shape[2]
    step = offsets[:, 0] * sz + offsets[:, 1] * sy + offsets[:, 2]
    length = np.sqrt((offsets[:, 0] * h[0]) ** 2 + (offsets[:, 1] * h[1]) ** 2 + (offsets[:, 2] * h[2]) ** 2)
    return step, length, via[:, 0] * sz + via[:, 1] * sy + via[:, 2]


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
    step, length, way = lines_in_box(offsets, via, shape, h)
    rim, patch, bound = np.empty(4), np.empty(25), np.empty(length.size)
    beside = np.empty((3, length.size))
    for o in range(length.size):
        for axis in range(3):
            beside[axis, o] = offsets[o, axis]
    sz, sy = shape[1] * shape[2], shape[2]
    for v in range(PAD * sz, T.size - PAD * sz):
        if mark[v] == 0 or mark[v] >= OUTSIDE:
            continue
        for face in range(7):  # the seventh is the centre of a source inside
            if not mark[v] & (1 << face):
                continue
            if face < 6 and not make_patch(mark, sz, sy, v, face, h, fit, rim, patch):
                continue
            axis, sign = face // 2, 2.0 * (face % 2) - 1.0
            one, two = 1 if axis == 0 else 0, 1 if axis == 2 else 2
            if face < 6:
                k, a, b = patch[0], patch[1], patch[2]
                middle_p, middle_q, half = patch[3], patch[4], patch[5]
                f1, f2 = h[axis] * a / h[one], h[axis] * b / h[two]
                tilt = h[axis] / (1.0 + f1 * f1 + f2 * f2)
                to_plane = h[axis] * tilt
                f1, f2, h1, h2 = tilt * f1 / h[one], tilt * f2 / h[two], h[one], h[two]
                heights, along, across = beside[axis], beside[one], beside[two]
                for o in range(bound.size):  # at least to the plane, and from its foot to the square around the patch
                    p, q = along[o], across[o]
                    e = k - sign * heights[o] + a * p + b * q
                    off_p, off_q = abs(p - e * f1 - middle_p) - half, abs(q - e * f2 - middle_q) - half
                    off_p, off_q = h1 * (off_p if off_p > 0.0 else 0.0), h2 * (off_q if off_q > 0.0 else 0.0)
                    bound[o] = CAREFUL * math.sqrt(to_plane * e * e + off_p * off_p + off_q * off_q)
            else:
                bound[:] = length
            for o in range(bound.size):
                if o > 0 and bound[o] > band:
                    continue
                w = v + step[o]
                known = T[np.uint64(w)] * pace[w] if pace.size > 1 else T[np.uint64(w)]
                if not bound[o] < known:
                    continue
                t = length[o]
                if face < 6:
                    height, p, q = sign * beside[axis, o], beside[one, o], beside[two, o]
                    t = patch_distance(patch, height, p, q, h[axis], h[one], h[two])
                    if o > 0 and t > band:
                        continue
                if pace.size > 1:
                    t /= pace[w]
                if t < T[w] and in_sight(T, mark, pace, v, w, way, first_way, first_line[o], first_line[o + 1]):
                    T[w] = t
    for v in range(PAD * sz, T.size - PAD * sz if fit else 0):
        if mark[v] and T[v] == np.inf:  # touches, but no patch is in sight
            for face in range(6):
                if mark[v] & (1 << face):
                    T[v] = min(T[v], np.float32(0.5 * h[face // 2] / (pace[v] if pace.size > 1 else 1.0)))


# ---- the difference equation ----------------------------------------------------------------------------------------


@jit
def upwind_root(a1: float, b1: float, a2: float, b2: float, a3: float, b3: float, rhs: float) -> float:
    """The t with a1 (t-b1)+^2 + a2 (t-b2)+^2 + a3 (t-b3)+^2 = rhs, (.)+ the positive part; inf if all b are inf.

    Without a branch: what is not used may be nan on the way.
    """
    swap = b2 < b1
    a1, b1, a2, b2 = (a2 if swap else a1), (b2 if swap else b1), (a1 if swap else a2), (b1 if swap else b2)
    swap = b3 < b2
    a2, b2, a3, b3 = (a3 if swap else a2), (b3 if swap else b2), (a2 if swap else a3), (b2 if swap else b3)
    swap = b2 < b1
    a1, b1, a2, b2 = (a2 if swap else a1), (b2 if swap else b1), (a1 if swap else a2), (b1 if swap else b2)
    d2, d3 = b2 - b1, b3 - b1
    two = a1 * d2 * d2 < rhs
    s, m, r = (a1 + a2 if two else a1), (a2 * d2 if two else 0.0), (a2 * d2 * d2 - rhs if two else -rhs)
    three = two & (s * d3 * d3 - 2.0 * m * d3 + r < 0.0)
    s, m, r = (s + a3 if three else s), (m + a3 * d3 if three else m), (r + a3 * d3 * d3 if three else r)
    rest = m * m - s * r
    return b1 + (m + math.sqrt(rest if rest > 0.0 else 0.0)) / s


@jit
def earlier(T: Any, v: Any, step: Any) -> Any:
    """The earlier of two opposite neighbours; inf where neither is in the component (nan)."""
    first, below, above = np.float32(np.inf), T[v - step], T[v + step]
    first = below if below < first else first
    return above if above < first else first


@jit
def solve_all(around: Any, rhs: Any, weights: Any, n: int, found: Any) -> None:
    """Solve the difference equation for n voxels, whose earlier neighbours along each axis are given."""
    az, ay, ax = weights[0], weights[1], weights[2]
    z, y, x = around[0, :n], around[1, :n], around[2, :n]
    for e in range(n):
        found[e] = upwind_root(az, np.float64(z[e]), ay, np.float64(y[e]), ax, np.float64(x[e]), rhs[e])


@jit
def with_room(array: Any, needed: int) -> Any:
    """A list, or a copy of it with room for more."""
    size = np.int64(needed)
    if size <= array.size:
        return array
    bigger = np.empty(size + size // 2, array.dtype)
    bigger[: array.size] = array
    return bigger


@jit
def list_slower(T: Any, state: Any, arrival: Any, v: Any, candidates: Any, n: Any) -> Any:
    """Put a voxel in the list of candidates if its time may still fall by a neighbour's."""
    fresh = (T[v] > arrival) & (state[v] & LISTED == 0)
    candidates[n] = v
    state[v] |= np.uint8(LISTED) if fresh else np.uint8(0)
    return n + (np.uint64(1) if fresh else np.uint64(0))


# ---- second order ---------------------------------------------------------------------------------------------------


@jit
def by_arrival(T: Any, entries: Any, base: float, scale: float, count: Any, ordered: Any) -> None:
    """Sort the voxels of one bucket by their time, as finely as one depends on another."""
    count[:] = 0
    for e in range(entries.size):
        count[np.uint64(min(max(int((T[np.uint64(entries[e])] - base) * scale), 0), BINS - 1))] += 1
    total = 0
    for b in range(BINS):
        total, count[b] = total + count[b], total
    for e in range(entries.size):
        part = np.uint64(min(max(int((T[np.uint64(entries[e])] - base) * scale), 0), BINS - 1))
        ordered[np.uint64(count[part])] = entries[e]
        count[part] += 1


@jit
def second_difference(
    T: Any, times: Any, v: Any, g: Any, step: Any, stride: Any, weight: float, margin: float
) -> tuple[float, float]:
    """Weight and base of the upwind difference along one axis; base inf if no neighbour is upwind."""
    below, above = T[v - step], T[v + step]
    has_below, has_above = below < T[v] - margin, above < T[v] - margin
    low, high = times[g - stride if has_below else g], times[g + stride if has_above else g]
    low, high = low if has_below else np.float32(np.inf), high if has_above else np.float32(np.inf)
    up = high < low
    near, first = np.float64(high if up else low), above if up else below
    far = T[v + step + step if up else v - step - step]
    reaches = far < first - margin
    beyond = g + stride + stride if up else g - stride - stride
    before = times[beyond if reaches & (near < np.inf) else g]
    second = reaches & (before < near)
    return (2.25 * weight if second else weight), (near + (near - before) / 3.0 if second else near)


@jit
def second_order(
    T: Any,
    mark: Any,
    pace: Any,
    shape: Any,
    low: Any,
    h: Any,
    max_time: float,
    lines: Any,
    table: Any,
    ordered: Any,
    times: Any,
    strides: Any,
) -> None:
    """Set `times`, which hold the straight-line times or inf, at the voxels of one bucket, in the order of arrival.

    `times` are those of the box, or of the whole volume: `strides` are its index steps.
    """
    offsets, first_line, first_way, _ = lines
    step, length, way = table
    sz, sy, one = np.uint64(shape[1] * shape[2]), np.uint64(shape[2]), np.uint64(1)
    gz, gy = np.uint64(strides[0]), np.uint64(strides[1])
    local = sz == gz and sy == gy and low[0] == 0 and low[1] == 0 and low[2] == 0
    wz, wy, wx = h[0] ** -2, h[1] ** -2, h[2] ** -2
    keep = KEEP * min(h[0], h[1], h[2])
    slowness = 1.0
    for e in range(ordered.size):
        v = np.uint64(ordered[e])
        g = v
        if not local:
            i, j, k = np.int64(v // sz), np.int64(v % sz // sy), np.int64(v % sy)
            g = np.uint64((low[0] + i) * strides[0] + (low[1] + j) * strides[1] + low[2] + k)
        if pace.size > 1:
            slowness = 1.0 / pace[v]
        arrival = T[v]
        if arrival >= times[g] - keep * slowness:
            if times[g] > max_time:
                times[g] = np.inf
            continue
        margin = EARLIER * slowness
        az, bz = second_difference(T, times, v, g, sz, gz, wz, margin * h[0])
        ay, by = second_difference(T, times, v, g, sy, gy, wy, margin * h[1])
        ax, bx = second_difference(T, times, v, g, one, one, wx, margin * h[2])
        t = np.float64(arrival)  # where rounding hides who is earlier
        if min(bz, by, bx) < np.inf:
            t = upwind_root(az, bz, ay, by, ax, bx, slowness * slowness)
        if math.isnan(T[v - sz] + T[v + sz] + T[v - sy] + T[v + sy] + T[v - one] + T[v + one]):
            here, there = np.int64(v), np.int64(g)
            for o in range(1, offsets.shape[0]):
                w = here + step[o]
                if T[np.uint64(w)] < arrival - margin * length[o]:
                    x = there + offsets[o, 0] * strides[0] + offsets[o, 1] * strides[1] + offsets[o, 2]
                    straight = times[np.uint64(x)] + length[o] * slowness
                    if straight < t and in_sight(
                        T, mark, pace, here, w, way, first_way, first_line[o], first_line[o + 1]
                    ):
                        t = straight
        times[g] = t if t <= max_time else np.inf


# ---- marching -------------------------------------------------------------------------------------------------------


@jit
def march(
    T: Any,
    state: Any,
    mark: Any,
    pace: Any,
    shape: Any,
    low: Any,
    h: Any,
    order: int,
    limit: float,
    max_time: float,
    width: float,
    lines: Any,
    times: Any,
    strides: Any,
) -> None:
    """Solve one box from its starting times: order 1 in T and, if asked for, order 2 in `times`."""
    table = lines_in_box(lines[0], lines[3], shape, h)
    sz, sy, one = np.uint64(shape[1] * shape[2]), np.uint64(shape[2]), np.uint64(1)
    weights = h**-2.0
    front, later, done = np.empty(4096, np.uint32), np.empty(4096, np.uint32), np.empty(4096, np.uint32)
    candidates, ordered = np.empty(8192, np.uint32), np.empty(4096, np.uint32)
    around, rhs, found = np.empty((3, 8192), np.float32), np.ones(8192), np.empty(8192, np.float32)
    count = np.empty(BINS, np.int64)
    none = np.uint64(0)
    n_later = none
    first, worked_off = np.float32(np.inf), np.float32(-1.0)
    for begin in range(0, T.size, 64):
        block = T[begin : begin + 64]
        started = 0
        for t in block:
            started += 1 if t < np.float32(np.inf) else 0
        if started:
            later = with_room(later, n_later + np.uint64(64))
            for k in range(block.size):
                t = block[k]
                if t < np.inf and t <= limit:
                    later[n_later] = begin + k
                    n_later += one
                    state[begin + k] = WAITING
                    first = min(first, t)
    while n_later:
        threshold = np.float32(max(first + width, first * (1.0 + 1e-6)))
        base, first = np.float64(first), np.float32(np.inf)
        front, done = with_room(front, n_later), with_room(done, n_later)
        n_front = n_done = kept = none
        for e in range(n_later):
            w = np.uint64(later[e])
            t = T[w]
            keep, now = t >= threshold, (t >= worked_off) & (t < threshold)
            later[kept] = w
            kept += one if keep else none
            first = t if keep & (t < first) else first
            front[n_front] = w
            done[n_front] = w
            n_front += one if now else none
            state[w] = np.uint8(WAITING) if keep else np.uint8(DONE)
        n_later, n_done = kept, n_front
        worked_off = threshold
        while n_front:
            candidates = with_room(candidates, np.uint64(6) * n_front + one)
            n = none
            for e in range(n_front):
                v = np.uint64(front[e])
                t = T[v]
                n = list_slower(T, state, t, v - sz, candidates, n)
                n = list_slower(T, state, t, v + sz, candidates, n)
                n = list_slower(T, state, t, v - sy, candidates, n)
                n = list_slower(T, state, t, v + sy, candidates, n)
                n = list_slower(T, state, t, v - one, candidates, n)
                n = list_slower(T, state, t, v + one, candidates, n)
            if np.int64(n) > found.size:
                size = 2 * np.int64(n)
                around, rhs, found = np.empty((3, size), np.float32), np.ones(size), np.empty(size, np.float32)
            front, later = with_room(front, n + one), with_room(later, n_later + n + one)
            done = with_room(done, n_done + n + one)
            for e in range(n):
                w = np.uint64(candidates[e])
                around[0, e], around[1, e], around[2, e] = earlier(T, w, sz), earlier(T, w, sy), earlier(T, w, one)
            if pace.size > 1:
                for e in range(n):
                    rhs[e] = 1.0 / (np.float64(pace[candidates[e]]) * pace[candidates[e]])
            solve_all(around, rhs, weights, np.int64(n), found)
            n_front = none
            for e in range(n):
                w = np.uint64(candidates[e])
                t, old, mine = found[e], T[w], state[w]
                better = t < old
                soon, late = better & (t < threshold), better & (t >= threshold) & (t <= limit)
                T[w] = t if better else old
                front[n_front] = w
                n_front += one if soon else none
                done[n_done] = w
                n_done += one if soon & (mine & DONE == 0) else none
                later[n_later] = w
                n_later += one if late & (mine & WAITING == 0) else none
                first = t if late & (t < first) else first
                mine &= np.uint8(DONE | WAITING)
                mine |= np.uint8(DONE) if soon else np.uint8(0)
                mine |= np.uint8(WAITING) if late else np.uint8(0)
                state[w] = mine
        if order == 2:
            ordered = with_room(ordered, n_done)
            size = np.int64(n_done)
            by_arrival(T, done[:size], base, BINS / (threshold - base), count, ordered)
            second_order(T, mark, pace, shape, low, h, max_time, lines, table, ordered[:size], times, strides)


@jit
def solve(boxes: Any, largest_first: Any, lines: Any, task: Any, begin: int, end: int) -> None:
    """Solve some of the components, one padded box after the other. Calls run beside one another in threads.

    task: source, speed (empty if 1), h, interfaces, fit, band, order, max_time, width of a bucket, shape of the
    volume, times and their bits; source, speed and times flat.
    """
    source, speed, h, interfaces, fit, band, order, max_time, width, volume, times, ids = task
    room = 0
    for n in range(begin, end):
        b = boxes[largest_first[n]]
        room = max(room, (b[1] - b[0] + 2 * PAD) * (b[3] - b[2] + 2 * PAD) * (b[5] - b[4] + 2 * PAD))
    limit = 1.75 * max_time if order == 2 else max_time  # order 1 is at most sqrt(3) times order 2, step by step
    roomy = 10 * room <= 8 * times.size + SMALL
    T_room, kind_room, mark_room = np.empty(room, np.float32), np.empty(room, np.uint8), np.empty(room, np.uint8)
    pace_room = np.empty(room if speed.size else 1, np.float32)
    own_room = np.empty(room if order == 2 and roomy else 1, np.float32)
    for n in range(begin, end):
        c = largest_first[n]
        low = boxes[c, 0:6:2] - PAD
        shape = boxes[c, 1:6:2] + PAD - low
        size = shape[0] * shape[1] * shape[2]
        T, kind, mark, pace = T_room[:size], kind_room[:size], mark_room[:size], pace_room[: size if speed.size else 1]
        fill_box(ids, source, speed, volume, interfaces, c + 1, low, shape, T, pace)
        if not mark_box(shape, T, kind, mark):
            write_times(T, volume, low, shape, np.inf, times)
            continue
        start_box(T, mark, pace, shape, h, fit, band, lines)
        if order == 1:
            march(T, kind, mark, pace, shape, low, h, 1, limit, max_time, width, lines, times, volume)
            write_times(T, volume, low, shape, max_time, times)
        elif roomy:
            own = own_room[:size]
            own[:] = T
            strides = np.array([shape[1] * shape[2], shape[2]])
            march(T, kind, mark, pace, shape, 0 * low, h, 2, limit, max_time, width, lines, own, strides)
            write_times(own, volume, low, shape, max_time, times)
        else:
            write_times(T, volume, low, shape, limit, times)
            strides = np.array([volume[1] * volume[2], volume[2]])
            march(T, kind, mark, pace, shape, low, h, 2, limit, max_time, width, lines, times, strides)
