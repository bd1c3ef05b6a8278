"""Travel time on the CPU: |grad T| = 1 / speed inside a masked or labelled volume, one connected piece after the other.

The domain is split into 6-connected components of equal label. No front passes between them, so each is copied into a
padded box of its own, small enough for the cache, and solved there; the boxes are dealt over the threads, the largest
first. In a box:

1. Start. A plane is fitted to the contact faces around each contact face (least squares on their heights, as in the
   height-function method for free surfaces) and cut off where the source ends. Every voxel close by gets the distance
   to the nearest such patch that a straight line reaches, or to the centre of a source inside.
2. Order 1. The upwind differences of Rouy & Tourin (1992), solved by correcting labels in a two-level bucket queue
   (Dial 1969, Kim 2001): entries below a threshold are worked off until none is left, then the threshold moves on.
   It ends when nothing changes any more, at the fixed point that fast marching (Sethian 1996) finds.
3. Order 2. When a bucket is final, its voxels are taken in the order of their order-1 arrival. The stencil uses only
   neighbours that arrive earlier by a thousandth of a step, with second differences where two arrive one after the
   other (Sethian 1999), so that neither the order of work nor a tie changes the answer. A voxel at a wall also tries
   straight lines from voxels in sight: the neighbour that it needs may be wall, and a corner is a new point source.

Cost: O(N), about four updates a voxel, and the sorting of the buckets. Memory beside input and output: 5 bytes for each
voxel of the boxes in work, one a thread (9 with a speed array), and 8 bytes for each entry of the queue, about the
front. The numbers of the components live in `out` until the times replace them, as tiny negative floats, unlike any
time, inf or nan.

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

NEAR = 6  # squared radius of the window of a fit, in columns
REACH = 3  # how far up and down a column of that window the surface may be
STEEP = 2.0  # squared slope above which another axis sees the surface better
PATCH = 0.35  # half width of a fitted patch; at 0.5, corners would stick out of an oblique rim
BUCKET = 0.5  # width of a bucket, in the shortest steps
EARLIER = 1e-3  # by which part of a step a neighbour has to be earlier to be upwind in order 2
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
def split_components(domain: Any, out: Any, ids: Any) -> Any:
    """Number the components: `out` becomes nan outside, and its bits `ids` NUMBERED + the number inside.

    Returns boxes (n, 7): z0, z1, y0, y1, x0, x1 (half-open) and the count of voxels.
    """
    parent = np.zeros(1024, np.int32)
    n = 0
    for z in range(domain.shape[0]):
        for y in range(domain.shape[1]):
            for x in range(domain.shape[2]):
                value = domain[z, y, x]
                if value == 0:
                    out[z, y, x] = np.nan
                    continue
                mine = 0
                if x > 0 and domain[z, y, x - 1] == value:
                    mine = ids[z, y, x - 1] - NUMBERED
                for axis in range(2):
                    behind, above = z - 1 + axis, y - axis
                    if behind >= 0 and above >= 0 and domain[behind, above, x] == value:
                        other = ids[behind, above, x] - NUMBERED
                        if mine == 0:
                            mine = other
                        elif mine != other:
                            mine, other = root_of(parent, mine), root_of(parent, other)
                            mine, other = min(mine, other), max(mine, other)
                            parent[other] = mine
                if mine == 0:
                    n += 1
                    if n == parent.size:
                        parent = grown(parent)
                    parent[n] = n
                    mine = n
                ids[z, y, x] = NUMBERED + mine
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
            for x in range(domain.shape[2]):
                if domain[z, y, x] != 0:
                    mine = parent[ids[z, y, x] - NUMBERED]
                    ids[z, y, x] = NUMBERED + mine
                    box = boxes[mine - 1]
                    box[0], box[1] = min(box[0], z), max(box[1], z + 1)
                    box[2], box[3] = min(box[2], y), max(box[3], y + 1)
                    box[4], box[5] = min(box[4], x), max(box[5], x + 1)
                    box[6] += 1
    return boxes


@jit
def deal(boxes: Any, largest_first: Any, workers: int, owner: Any) -> None:
    """Deal the components: the largest first, each to the worker that has the least to do."""
    load = np.zeros(workers, np.int64)
    for c in largest_first:
        owner[c] = np.argmin(load)
        load[owner[c]] += boxes[c, 6]


# ---- one box: input and output --------------------------------------------------------------------------------------


@jit
def fill_box(
    times: Any,
    ids: Any,
    source: Any,
    speed: Any,
    volume: Any,
    interfaces: bool,
    me: int,
    low: Any,
    shape: Any,
    T: Any,
    mark: Any,
    pace: Any,
) -> bool:
    """Copy one component: T = inf inside, nan outside; marks; speeds; `times` = inf. False if no source is there.

    `times`, `ids` (its bits), `source` and `speed` are flat. With `interfaces`, the voxels of other components are
    sources outside, too.
    """
    sz, sy = shape[1] * shape[2], shape[2]
    started = False
    T[:] = np.nan
    mark[:] = 0
    for i in range(max(-low[0], 0), min(volume[0] - low[0], shape[0])):
        for j in range(max(-low[1], 0), min(volume[1] - low[1], shape[1])):
            row = ((low[0] + i) * volume[1] + low[1] + j) * volume[2] + low[2]
            for k in range(max(-low[2], 0), min(volume[2] - low[2], shape[2])):
                v, g = i * sz + j * sy + k, row + k
                if ids[g] == NUMBERED + me:
                    T[v] = np.inf
                    times[g] = np.inf
                    if source[g]:
                        mark[v] = INSIDE
                        started = True
                    if pace.size > 1:
                        pace[v] = speed[g]
                elif source[g] if math.isnan(times[g]) else interfaces:
                    mark[v] = OUTSIDE
    for i in range(1, shape[0] - 1):
        for j in range(1, shape[1] - 1):
            for v in range(i * sz + j * sy + 1, i * sz + j * sy + shape[2] - 1):
                if not mark[v] & OUTSIDE:
                    continue
                for face in range(6):
                    w = v + (2 * (face % 2) - 1) * (sz if face < 2 else sy if face < 4 else 1)
                    if T[w] == np.inf:
                        mark[w] |= 1 << (face ^ 1)
                        started = True
                    elif mark[w] == 0:
                        mark[v] |= 1 << face
    return started


@jit
def write_times(T: Any, volume: Any, low: Any, shape: Any, max_time: float, times: Any) -> None:
    """Copy the times of one component to the flat volume."""
    for i in range(PAD, shape[0] - PAD):
        for j in range(PAD, shape[1] - PAD):
            row = ((low[0] + i) * volume[1] + low[1] + j) * volume[2] + low[2]
            for k in range(PAD, shape[2] - PAD):
                t = T[(i * shape[1] + j) * shape[2] + k]
                if not math.isnan(t):
                    times[row + k] = t if t <= max_time else np.inf


# ---- start ----------------------------------------------------------------------------------------------------------


@jit
def fit_heights(mark: Any, shape: Any, at: Any, face: int) -> tuple[float, float, float]:
    """Plane through the heights of equal contact faces in the columns around one: height c, slopes a and b.

    Least squares in voxels, outwards from the face; a, b along the two other axes. All 0 if the faces lie in one plane.
    """
    axis, sign = face // 2, 2 * (face % 2) - 1
    one, two = 1 if axis == 0 else 0, 1 if axis == 2 else 2
    stride = np.array([shape[1] * shape[2], shape[2], 1])
    s0 = s1 = s2 = s11 = s12 = s22 = h0 = h1 = h2 = 0.0
    for p in range(-2, 3):
        for q in range(-2, 3):
            if p * p + q * q > NEAR:
                continue
            column = at[0] * stride[0] + at[1] * stride[1] + at[2] + p * stride[one] + q * stride[two]
            for m in range(2 * REACH + 1):  # heights 0, 1, -1, 2, -2, ...: the nearest face of the column
                height = (m + 1) // 2 if m % 2 else -(m // 2)
                if mark[column + sign * height * stride[axis]] & (OUTSIDE | 1 << face) == 1 << face:
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
def fit_rim(mark: Any, shape: Any, at: Any, face: int, rim: Any) -> bool:
    """Where the source around a contact face ends: the plane rim[:3] . (x - at) = rim[3]. False if nowhere.

    In voxels. Its normal is the sum of the faces of outside source voxels to other voxels; it passes their middle.
    """
    axis, sign = face // 2, 2 * (face % 2) - 1
    middle = np.array([at[0], at[1], at[2]])
    middle[axis] += sign
    total = np.zeros(3)
    count = 0
    rim[:] = 0.0
    for z in range(middle[0] - 2, middle[0] + 3):
        for y in range(middle[1] - 2, middle[1] + 3):
            for x in range(middle[2] - 2, middle[2] + 3):
                ends = mark[(z * shape[1] + y) * shape[2] + x]
                if ends <= OUTSIDE:
                    continue
                for other in range(6):
                    if ends & (1 << other):
                        side = 2 * (other % 2) - 1
                        rim[other // 2] += side
                        total[0] += z - at[0]
                        total[1] += y - at[1]
                        total[2] += x - at[2]
                        total[other // 2] += 0.5 * side
                        count += 1
    if count:
        rim[3] = (rim[0] * total[0] + rim[1] * total[1] + rim[2] * total[2]) / count
    return count > 0


@jit
def make_patch(mark: Any, shape: Any, at: Any, face: int, h: Any, fit: bool, rim: Any, patch: Any) -> bool:
    """The piece of surface behind one contact face. False if another face represents it better.

    patch: height = [0] + [1] u + [2] v over the square of half width [5] around (u, v) = ([3], [4]), in voxels from the
    voxel's centre; of it the part where [6] + [7] u + [8] v <= 0, which ends on the line from [9:11] to [11:13].
    """
    patch[:] = 0.0
    patch[0] = patch[5] = 0.5
    if not fit:
        return True
    axis, sign = face // 2, 2 * (face % 2) - 1
    one, two = 1 if axis == 0 else 0, 1 if axis == 2 else 2
    c, a, b = fit_heights(mark, shape, at, face)
    patch[0] += c
    patch[5] = PATCH
    if a == 0.0 and b == 0.0:
        return True
    if a * a + b * b > STEEP:
        return False
    ra, rb = (h[axis] / h[one]) ** 2, (h[axis] / h[two]) ** 2
    foot = (0.5 - c) / (1.0 + ra * a * a + rb * b * b)  # the source voxel's centre, projected on the plane
    patch[1], patch[2], patch[3], patch[4] = a, b, foot * a * ra, foot * b * rb
    if not fit_rim(mark, shape, at, face, rim):
        return True
    patch[6] = rim[axis] * sign * patch[0] - rim[3]
    patch[7] = rim[axis] * sign * a + rim[one]
    patch[8] = rim[axis] * sign * b + rim[two]
    return bool(clip_square(patch))


@jit
def clip_square(patch: Any) -> bool:
    """Find where the rim crosses the square of a patch. False if nothing of it remains."""
    u, v = np.empty(4), np.empty(4)
    beyond = np.empty(4)
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
def in_sight(T: Any, mark: Any, pace: Any, v: int, w: int, way: Any, first_way: Any) -> bool:
    """Whether one of the ways from v to w is free: all in the component, or in a source, and of one speed."""
    if pace.size > 1 and pace[v] != pace[w]:
        return False
    for n in range(first_way.size - 1):
        free = True
        for m in range(first_way[n], first_way[n + 1]):
            x = v + way[m]
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
    rim, patch = np.empty(4), np.empty(13)
    tilt = extent = 0.0
    at = np.empty(3, np.int64)
    for at[0] in range(PAD, shape[0] - PAD):
        for at[1] in range(PAD, shape[1] - PAD):
            for at[2] in range(PAD, shape[2] - PAD):
                v = (at[0] * shape[1] + at[1]) * shape[2] + at[2]
                if math.isnan(T[v]) or mark[v] == 0:
                    continue
                for face in range(7):  # the seventh is the centre of a source inside
                    if not mark[v] & (1 << face):
                        continue
                    if face < 6 and not make_patch(mark, shape, at, face, h, fit, rim, patch):
                        continue
                    axis, sign = face // 2, 2 * (face % 2) - 1
                    one, two = 1 if axis == 0 else 0, 1 if axis == 2 else 2
                    if face < 6:
                        tilt = 1.0 + (patch[1] * h[axis] / h[one]) ** 2 + (patch[2] * h[axis] / h[two]) ** 2
                        tilt = h[axis] / math.sqrt(tilt)
                        extent = math.sqrt(
                            (h[axis] * (abs(patch[0]) + abs(patch[1]) + abs(patch[2]))) ** 2
                            + (h[one] * (abs(patch[3]) + patch[5])) ** 2
                            + (h[two] * (abs(patch[4]) + patch[5])) ** 2
                        )
                    for o in range(offsets.shape[0]):
                        w = v + step[o]
                        known = T[w] * pace[w] if pace.size > 1 else T[w]
                        if not length[o] - extent < known:
                            continue
                        t = length[o]
                        if face < 6:
                            height, p, q = sign * offsets[o, axis], offsets[o, one], offsets[o, two]
                            t = tilt * abs(patch[0] - height + patch[1] * p + patch[2] * q)  # to the whole plane
                            if t < known:
                                t = patch_distance(patch, height, p, q, h[axis], h[one], h[two])
                        if o > 0 and t > band:
                            continue
                        if pace.size > 1:
                            t /= pace[w]
                        if t < T[w] and in_sight(
                            T, mark, pace, v, w, way, first_way[first_line[o] : first_line[o + 1] + 1]
                        ):
                            T[w] = t
    for v in range(T.size):
        if T[v] == np.inf and mark[v]:  # touches, but no patch is in sight
            for face in range(6):
                if mark[v] & (1 << face):
                    T[v] = min(T[v], np.float32(0.5 * h[face // 2] / (pace[v] if pace.size > 1 else 1.0)))


# ---- the difference equation ----------------------------------------------------------------------------------------


@jit
def upwind_root(a1: float, b1: float, a2: float, b2: float, a3: float, b3: float, rhs: float) -> float:
    """The t with a1 (t-b1)+^2 + a2 (t-b2)+^2 + a3 (t-b3)+^2 = rhs, (.)+ the positive part; inf if all b are inf."""
    if b2 < b1:
        a1, b1, a2, b2 = a2, b2, a1, b1
    if b3 < b2:
        a2, b2, a3, b3 = a3, b3, a2, b2
        if b2 < b1:
            a1, b1, a2, b2 = a2, b2, a1, b1
    if b1 == np.inf:
        return np.inf
    d2, d3 = b2 - b1, b3 - b1
    if a1 * d2 * d2 >= rhs:
        return b1 + math.sqrt(rhs / a1)
    s, m, r = a1 + a2, a2 * d2, a2 * d2 * d2 - rhs
    if s * d3 * d3 - 2.0 * m * d3 + r < 0.0:
        s, m, r = s + a3, m + a3 * d3, r + a3 * d3 * d3
    return b1 + (m + math.sqrt(max(m * m - s * r, 0.0))) / s


@jit
def earlier(T: Any, v: int, step: int) -> Any:
    """The earlier of two opposite neighbours; inf where neither is in the component (nan)."""
    first = np.float32(np.inf)
    if T[v - step] < first:
        first = T[v - step]
    if T[v + step] < first:
        first = T[v + step]
    return first


@jit
def second_difference(
    T: Any, times: Any, v: int, g: int, step: int, stride: int, weight: float, margin: float
) -> tuple[float, float]:
    """Weight and base of the upwind difference along one axis; base inf if no neighbour is upwind."""
    base, nearest, alpha = np.inf, np.inf, weight
    for side in range(-1, 2, 2):
        near, far = v + side * step, v + 2 * side * step
        if T[near] < T[v] - margin and times[g + side * stride] < nearest:
            nearest = float(times[g + side * stride])
            base, alpha = nearest, weight
            if T[far] < T[near] - margin and times[g + 2 * side * stride] < nearest:
                base += (nearest - times[g + 2 * side * stride]) / 3.0
                alpha = 2.25 * weight
    return alpha, base


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
    entries: Any,
    times: Any,
    volume: Any,
) -> None:
    """Set `times`, which hold the straight-line times or inf, at the voxels of one bucket, in the order of arrival."""
    offsets, first_line, first_way, _ = lines
    step, length, way = table
    sz, sy = shape[1] * shape[2], shape[2]
    gz, gy = volume[1] * volume[2], volume[2]
    for entry in np.sort(entries):
        v = entry & INDEX
        i, j, k = v // sz, v % sz // sy, v % sy
        g = (low[0] + i) * gz + (low[1] + j) * gy + low[2] + k
        slowness = 1.0 / pace[v] if pace.size > 1 else 1.0
        if T[v] >= times[g] - KEEP * min(h[0], h[1], h[2]) * slowness:
            if times[g] > max_time:
                times[g] = np.inf
            continue
        az, bz = second_difference(T, times, v, g, sz, gz, h[0] ** -2, EARLIER * h[0] * slowness)
        ay, by = second_difference(T, times, v, g, sy, gy, h[1] ** -2, EARLIER * h[1] * slowness)
        ax, bx = second_difference(T, times, v, g, 1, 1, h[2] ** -2, EARLIER * h[2] * slowness)
        t = float(T[v])  # where rounding hides who is earlier
        if min(bz, by, bx) < np.inf:
            t = upwind_root(az, bz, ay, by, ax, bx, slowness * slowness)
        if math.isnan(T[v - sz] + T[v + sz] + T[v - sy] + T[v + sy] + T[v - 1] + T[v + 1]):
            for o in range(1, offsets.shape[0]):
                w = v + step[o]
                if T[w] < T[v] - EARLIER * length[o] * slowness:
                    straight = times[g + offsets[o, 0] * gz + offsets[o, 1] * gy + offsets[o, 2]] + length[o] * slowness
                    if straight < t and in_sight(
                        T, mark, pace, v, w, way, first_way[first_line[o] : first_line[o + 1] + 1]
                    ):
                        t = straight
        times[g] = t if t <= max_time else np.inf


@jit
def march(
    T: Any,
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
    volume: Any,
) -> None:
    """Solve one box from its starting times: order 1 in T and, if asked for, order 2 in `times`."""
    bits = T.view(np.int32)
    table = lines_in_box(lines[0], lines[3], shape, h)
    sz, sy = shape[1] * shape[2], shape[2]
    steps = np.array([-sz, sz, -sy, sy, -1, 1])
    az, ay, ax = h[0] ** -2, h[1] ** -2, h[2] ** -2
    now, later, done = np.empty(1024, np.int64), np.empty(1024, np.int64), np.empty(1024, np.int64)
    n_later = 0
    first = np.float32(np.inf)
    rhs = 1.0
    for v in range(T.size):
        if T[v] < np.inf and T[v] <= limit:
            if n_later == later.size:
                later = grown(later)
            later[n_later] = np.int64(bits[v]) << 32 | v
            n_later += 1
            first = min(first, T[v])
    while n_later:
        threshold = np.float32(max(first + width, first * (1.0 + 1e-6)))
        first = np.float32(np.inf)
        n_now = n_done = kept = 0
        for e in range(n_later):
            t = T[later[e] & INDEX]
            if later[e] >> 32 != bits[later[e] & INDEX]:
                continue  # a better time was entered since
            if t < threshold:
                if n_now == now.size:
                    now = grown(now)
                now[n_now] = later[e]
                n_now += 1
            else:
                first = min(first, t)
                later[kept] = later[e]
                kept += 1
        n_later = kept
        head = 0
        while head < n_now:
            entry = now[head]
            v = entry & INDEX
            head += 1
            if entry >> 32 != bits[v]:
                continue
            if order == 2:
                if n_done == done.size:
                    done = grown(done)
                done[n_done] = entry
                n_done += 1
            for step in steps:
                w = v + step
                if not T[w] > T[v]:
                    continue
                if pace.size > 1:
                    rhs = 1.0 / (float(pace[w]) * pace[w])
                t = np.float32(upwind_root(az, earlier(T, w, sz), ay, earlier(T, w, sy), ax, earlier(T, w, 1), rhs))
                if t < T[w]:
                    T[w] = t
                    entry = np.int64(bits[w]) << 32 | w
                    if t < threshold:
                        if n_now == now.size:
                            now = grown(now)
                        now[n_now] = entry
                        n_now += 1
                    elif t <= limit:
                        if n_later == later.size:
                            later = grown(later)
                        later[n_later] = entry
                        n_later += 1
                        first = min(first, t)
        if order == 2:
            kept = 0
            for e in range(n_done):
                if done[e] >> 32 == bits[done[e] & INDEX]:
                    done[kept] = done[e]
                    kept += 1
            second_order(T, mark, pace, shape, low, h, max_time, lines, table, done[:kept], times, volume)


@jit
def solve(boxes: Any, largest_first: Any, owner: Any, lines: Any, task: Any, worker: int) -> None:
    """Solve the components of one worker, one padded box after the other. Workers run beside one another in threads.

    task: source, speed (empty if 1), h, interfaces, fit, band, order, max_time, width of a bucket, shape of the
    volume, times and their bits; source, speed and times flat.
    """
    source, speed, h, interfaces, fit, band, order, max_time, width, volume, times, ids = task
    room = 0
    for c in range(boxes.shape[0]):
        if owner[c] == worker:
            b = boxes[c]
            room = max(room, (b[1] - b[0] + 2 * PAD) * (b[3] - b[2] + 2 * PAD) * (b[5] - b[4] + 2 * PAD))
    limit = 1.75 * max_time if order == 2 else max_time  # order 1 is at most sqrt(3) times order 2, step by step
    T_room, mark_room = np.empty(room, np.float32), np.empty(room, np.uint8)
    pace_room = np.empty(room if speed.size else 1, np.float32)
    for c in largest_first:
        if owner[c] != worker:
            continue
        low = boxes[c, 0:6:2] - PAD
        shape = boxes[c, 1:6:2] + PAD - low
        size = shape[0] * shape[1] * shape[2]
        T, mark, pace = T_room[:size], mark_room[:size], pace_room[: size if speed.size else 1]
        if not fill_box(times, ids, source, speed, volume, interfaces, c + 1, low, shape, T, mark, pace):
            continue
        start_box(T, mark, pace, shape, h, fit, band, lines)
        if order == 2:
            write_times(T, volume, low, shape, limit, times)
        march(T, mark, pace, shape, low, h, order, limit, max_time, width, lines, times, volume)
        if order == 1:
            write_times(T, volume, low, shape, max_time, times)
