"""Travel time on the CPU: the straight-line times of the voxels close to a source."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._compile import jit
from .cpu_boxes import OUTSIDE, PAD

NEAR = 6  # squared radius of the window of a fit, in columns
REACH = 3  # how far up and down a column of that window the surface may be
STEEP = 2.0  # squared slope above which another axis sees the surface better
PATCH = 0.35  # half width of a fitted patch; at 0.5, corners would stick out of an oblique rim
CAREFUL = 1.0 - 1e-12  # a lower bound of a distance, made safe from rounding


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
