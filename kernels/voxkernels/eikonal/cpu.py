"""Travel time on the CPU: the eikonal equation |grad T| = 1/speed inside a masked or labelled volume.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from voxkernels._compile import jit

INDEX = 0xFFFFFFFF  # lower half of a queue entry: flat index in the box; the upper half holds the bits of the time
INSIDE = 64  # mark: a source inside the domain; bits 0 to 5: a contact face towards -z, +z, -y, +y, -x, +x
OUTSIDE = 128  # mark: a source outside the domain
EARLIER = 1e-3  # by how many voxel steps a neighbour must arrive earlier to be upwind in order 2
KEEP = 0.1


@jit
def grown(array: Any) -> Any:
    """A copy of a list of entries with twice the room."""
    bigger = np.empty(2 * array.size, array.dtype)
    bigger[: array.size] = array
    return bigger


@jit
def find(parent: Any, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@jit
def join(parent: Any, i: int, j: int) -> int:
    i, j = find(parent, i), find(parent, j)
    if i < j:
        parent[j] = i
        return i
    parent[i] = j
    return j


@jit
def split_components(domain: Any, out: Any, ids: Any) -> Any:
    """Number the 6-connected components of equal labels: `out` becomes nan outside, and `ids` minus the number inside."""
    parent = np.zeros(1024, np.int32)
    n = 0
    for z in range(domain.shape[0]):
        for y in range(domain.shape[1]):
            for x in range(domain.shape[2]):
                value = domain[z, y, x]
                if value == 0:
                    out[z, y, x] = np.nan
                    continue
                root = 0
                if x > 0 and domain[z, y, x - 1] == value:
                    root = -ids[z, y, x - 1]
                if y > 0 and domain[z, y - 1, x] == value and -ids[z, y - 1, x] != root:
                    other = -ids[z, y - 1, x]
                    root = other if root == 0 else join(parent, root, other)
                if z > 0 and domain[z - 1, y, x] == value and -ids[z - 1, y, x] != root:
                    other = -ids[z - 1, y, x]
                    root = other if root == 0 else join(parent, root, other)
                if root == 0:
                    n += 1
                    if n == parent.size:
                        parent = grown(parent)
                    parent[n] = n
                    root = n
                ids[z, y, x] = -root
    number = np.zeros(n + 1, np.int32)
    count = 0
    for i in range(1, n + 1):
        root = find(parent, i)
        if root == i:
            count += 1
            number[i] = count
        else:
            number[i] = number[root]
    boxes = np.empty((count, 7), np.int64)
    for c in range(count):
        boxes[c] = (domain.shape[0], 0, domain.shape[1], 0, domain.shape[2], 0, 0)
    for z in range(domain.shape[0]):
        for y in range(domain.shape[1]):
            for x in range(domain.shape[2]):
                if domain[z, y, x] != 0:
                    c = number[-ids[z, y, x]]
                    ids[z, y, x] = -c
                    box = boxes[c - 1]
                    box[0], box[1] = min(box[0], z), max(box[1], z + 1)
                    box[2], box[3] = min(box[2], y), max(box[3], y + 1)
                    box[4], box[5] = min(box[4], x), max(box[5], x + 1)
                    box[6] += 1
    return boxes


@jit
def deal(boxes: Any, largest_first: Any, owner: Any, workers: int) -> None:
    """Deal the components to workers: the largest first, each to the worker that has the least to do."""
    load = np.zeros(workers, np.int64)
    for c in largest_first:
        owner[c] = np.argmin(load)
        load[owner[c]] += boxes[c, 6]


@jit
def fill_box(out: Any, ids: Any, source: Any, speed: Any, me: int, low: Any, shape: Any, T: Any, mark: Any, v2: Any) -> int:
    """Copy one component into its padded box: T = inf inside, nan outside, and the marks. Returns how many voxels start."""
    sz, sy = shape[1] * shape[2], shape[2]
    for i in range(shape[0]):
        for j in range(shape[1]):
            for k in range(shape[2]):
                v = i * sz + j * sy + k
                z, y, x = low[0] + i, low[1] + j, low[2] + k
                T[v] = np.nan
                mark[v] = 0
                if 0 <= z < out.shape[0] and 0 <= y < out.shape[1] and 0 <= x < out.shape[2]:
                    if ids[z, y, x] == -me:
                        T[v] = np.inf
                        mark[v] = INSIDE if source[z, y, x] else 0
                        out[z, y, x] = np.inf
                        if v2.size > 1:
                            v2[v] = speed[z, y, x]
                    elif source[z, y, x] and math.isnan(out[z, y, x]):
                        mark[v] = OUTSIDE
    started = 0
    for i in range(1, shape[0] - 1):
        for j in range(1, shape[1] - 1):
            for k in range(1, shape[2] - 1):
                v = i * sz + j * sy + k
                if T[v] == np.inf:
                    mark[v] |= (
                        (mark[v - sz] >> 7)
                        | (mark[v + sz] >> 7) << 1
                        | (mark[v - sy] >> 7) << 2
                        | (mark[v + sy] >> 7) << 3
                        | (mark[v - 1] >> 7) << 4
                        | (mark[v + 1] >> 7) << 5
                    )
                    started += mark[v] != 0
    return started


@jit
def fit_plane(mark: Any, shape: Any, i: int, j: int, k: int, face: int) -> tuple[float, float, float]:
    """Height of the plane through the contact faces around one face, and its two slopes (voxels, along the two other axes)."""
    axis, sign = face // 2, 2 * (face % 2) - 1
    s0 = s1 = s2 = s11 = s12 = s22 = h0 = h1 = h2 = 0.0
    for p in range(-RADIUS, RADIUS + 1):
        for q in range(-RADIUS, RADIUS + 1):
            r2 = p * p + q * q
            if r2 > RADIUS2:
                continue
            found = False
            height = 0
            for m in range(2 * REACH + 1):
                height = (m + 1) // 2 if m % 2 else -(m // 2)
                step = sign * height
                if axis == 0:
                    z, y, x = i + step, j + p, k + q
                elif axis == 1:
                    z, y, x = i + p, j + step, k + q
                else:
                    z, y, x = i + p, j + q, k + step
                if 0 <= z < shape[0] and 0 <= y < shape[1] and 0 <= x < shape[2]:
                    if mark[(z * shape[1] + y) * shape[2] + x] & (1 << face):
                        found = True
                        break
            if found:
                w = math.exp(-r2 / WIDTH2)
                s0 += w
                s1 += w * p
                s2 += w * q
                s11 += w * p * p
                s12 += w * p * q
                s22 += w * q * q
                h0 += w * height
                h1 += w * height * p
                h2 += w * height * q
    s11 += 1e-6
    s22 += 1e-6
    # normal equations of height = c + a p + b q
    d11, d12, d22 = s0 * s11 - s1 * s1, s0 * s12 - s1 * s2, s0 * s22 - s2 * s2
    e1, e2 = s0 * h1 - s1 * h0, s0 * h2 - s2 * h0
    det = d11 * d22 - d12 * d12
    a = (e1 * d22 - e2 * d12) / det
    b = (e2 * d11 - e1 * d12) / det
    c = (h0 - a * s1 - b * s2) / s0
    return min(max(c, -0.5), 0.5), a, b


RADIUS = 2
RADIUS2 = 6
REACH = 3
WIDTH2 = 1e9
STEEP = 2.0


HALF = 0.25
FOOT = 1.0


@jit
def patch_distance(
    k: float, a: float, b: float, p: float, q: float, h: float, hp: float, hq: float, mu: float, mv: float, half: float
) -> float:
    """Distance from the point (0, p, q) to the patch height = k + a u + b v, |u-mu| <= half, |v-mv| <= half, in units of the spacing."""
    fa, fb = h * a / hp, h * b / hq
    d = 1.0 + fa * fa + fb * fb
    e = (k + a * p + b * q) * h / d
    u, v = p - e * fa / hp, q - e * fb / hq
    if abs(u - mu) <= half and abs(v - mv) <= half:
        return abs(e) * math.sqrt(d)
    best = np.inf
    if abs(u - mu) > half:
        uu = mu + math.copysign(half, u - mu)
        vv = (hq * hq * q - h * h * b * (k + a * uu)) / (hq * hq + h * h * b * b)
        vv = min(max(vv, mv - half), mv + half)
        best = (h * (k + a * uu + b * vv)) ** 2 + (hp * (uu - p)) ** 2 + (hq * (vv - q)) ** 2
    if abs(v - mv) > half:
        vv = mv + math.copysign(half, v - mv)
        uu = (hp * hp * p - h * h * a * (k + b * vv)) / (hp * hp + h * h * a * a)
        uu = min(max(uu, mu - half), mu + half)
        best = min(best, (h * (k + a * uu + b * vv)) ** 2 + (hp * (uu - p)) ** 2 + (hq * (vv - q)) ** 2)
    return math.sqrt(best)


@jit
def visible(T: Any, mark: Any, v2: Any, v: int, x: int, gates: Any) -> bool:
    for g in range(gates.shape[0]):
        free = False
        for side in range(2):
            w = v + gates[g, side]
            if mark[w] & OUTSIDE or (T[w] == T[w] and (v2.size == 1 or v2[w] == v2[x])):
                free = True
        if not free:
            return False
    return v2.size == 1 or v2[v] == v2[x]


@jit
def start_box(T: Any, mark: Any, v2: Any, shape: Any, h: Any, fit: bool, offsets: Any, gates: Any, first_gate: Any, band: float) -> None:
    """Give every voxel near a source its distance from the source's surface, as far as a straight line reaches."""
    sz, sy = shape[1] * shape[2], shape[2]
    reach = np.empty(offsets.shape[0], np.int64)
    length = np.empty(offsets.shape[0], np.float64)
    for o in range(offsets.shape[0]):
        reach[o] = offsets[o, 0] * sz + offsets[o, 1] * sy + offsets[o, 2]
        length[o] = math.sqrt((offsets[o, 0] * h[0]) ** 2 + (offsets[o, 1] * h[1]) ** 2 + (offsets[o, 2] * h[2]) ** 2)
    gate = np.empty((gates.shape[0], 2), np.int64)
    for g in range(gates.shape[0]):
        for side in range(2):
            gate[g, side] = gates[g, side, 0] * sz + gates[g, side, 1] * sy + gates[g, side, 2]
    for i in range(1, shape[0] - 1):
        for j in range(1, shape[1] - 1):
            for k in range(1, shape[2] - 1):
                v = i * sz + j * sy + k
                if T[v] != T[v] or mark[v] == 0:
                    continue
                for face in range(7):
                    if not mark[v] & (1 << face):
                        continue
                    c = a = b = mu = mv = 0.0
                    half = 0.5
                    axis, sign = face // 2, 2 * (face % 2) - 1
                    ax_p = 1 if axis == 0 else 0
                    ax_q = 1 if axis == 2 else 2
                    if face < 6:
                        if fit:
                            c, a, b = fit_plane(mark, shape, i, j, k, face)
                            ga, gb = a * h[axis] / h[ax_p], b * h[axis] / h[ax_q]
                            if ga ** 2 + gb ** 2 > STEEP:
                                continue
                            mu = FOOT * (0.5 - c) / (1 + ga * ga + gb * gb) * ga * h[axis] / h[ax_p]
                            mv = FOOT * (0.5 - c) / (1 + ga * ga + gb * gb) * gb * h[axis] / h[ax_q]
                            half = HALF
                    for o in range(offsets.shape[0]):
                        z, y, x = i + offsets[o, 0], j + offsets[o, 1], k + offsets[o, 2]
                        if z < 0 or y < 0 or x < 0 or z >= shape[0] or y >= shape[1] or x >= shape[2]:
                            continue
                        w = v + reach[o]
                        if T[w] != T[w]:
                            continue
                        d = length[o]
                        if face < 6:
                            d = patch_distance(
                                0.5 + c - sign * offsets[o, axis], a, b, offsets[o, ax_p], offsets[o, ax_q],
                                h[axis], h[ax_p], h[ax_q], mu, mv, half,
                            )
                        if o > 0 and d > band:
                            continue
                        if v2.size > 1:
                            d /= v2[w]
                        if np.float32(d) < T[w] and visible(T, mark, v2, v, w, gate[first_gate[o] : first_gate[o + 1]]):
                            T[w] = d
    if fit:
        for v in range(T.size):
            if T[v] == np.inf and mark[v]:
                d = np.inf
                for face in range(6):
                    if mark[v] & (1 << face):
                        d = min(d, 0.5 * h[face // 2])
                T[v] = d / v2[v] if v2.size > 1 else d


@jit
def upwind_root(a1: float, b1: float, a2: float, b2: float, a3: float, b3: float, rhs: float) -> float:
    """The only t with a1 (t-b1)+^2 + a2 (t-b2)+^2 + a3 (t-b3)+^2 = rhs, where (.)+ is the positive part; inf if all b are."""
    if b2 < b1:
        a1, b1, a2, b2 = a2, b2, a1, b1
    if b3 < b2:
        a2, b2, a3, b3 = a3, b3, a2, b2
        if b2 < b1:
            a1, b1, a2, b2 = a2, b2, a1, b1
    t = b1 + math.sqrt(rhs / a1)
    if t <= b2:
        return t
    d2 = b2 - b1
    s, m, r = a1 + a2, a2 * d2, a2 * d2 * d2 - rhs
    t = b1 + (m + math.sqrt(m * m - s * r)) / s
    if t <= b3:
        return t
    d3 = b3 - b1
    s, m, r = s + a3, m + a3 * d3, r + a3 * d3 * d3
    return b1 + (m + math.sqrt(m * m - s * r)) / s


@jit
def lower(a: float, b: float) -> float:
    """The smaller of two times; inf for nan."""
    m = np.float32(np.inf)
    if a < m:
        m = a
    if b < m:
        m = b
    return m


@jit
def second_order_axis(T: Any, times: Any, v: int, g: int, step: int, stride: int, alpha: float, margin: float) -> tuple[float, float, bool]:
    """Weight and base of one axis' upwind difference, of second order where two neighbours arrive one after the other."""
    base, weight, any_upwind = np.inf, alpha, False
    best = np.inf
    for side in range(-1, 2, 2):
        i, j = v + side * step, v + 2 * side * step
        if T[i] < T[v] - margin:
            any_upwind = True
            near = float(times[g + side * stride])
            if near < best:
                best = near
                base, weight = near, alpha
                if T[j] < T[i] - margin:
                    far = float(times[g + 2 * side * stride])
                    if far < near:
                        base, weight = near + (near - far) / 3.0, 2.25 * alpha
    return weight, base, any_upwind


@jit
def march(
    T: Any, bits: Any, v2: Any, shape: Any, low: Any, times: Any, volume: Any, h: Any, order: int, limit: float, max_time: float, delta: float
) -> None:
    """Solve one box: order 1 in T; order 2 in `times` (the flat output), bucket by bucket as order 1 becomes final."""
    sz, sy = shape[1] * shape[2], shape[2]
    gz, gy = volume[1] * volume[2], volume[2]
    steps = np.array([-sz, sz, -sy, sy, -1, 1])
    az, ay, ax = 1.0 / h[0] ** 2, 1.0 / h[1] ** 2, 1.0 / h[2] ** 2
    waiting = np.empty(1024, np.int64)
    now = np.empty(1024, np.int64)
    done = np.empty(1024, np.int64)
    n_waiting = 0
    earliest = np.float32(np.inf)
    rhs = 1.0
    for v in range(T.size):
        if T[v] < np.inf and T[v] <= limit:
            if n_waiting == waiting.size:
                waiting = grown(waiting)
            waiting[n_waiting] = np.int64(bits[v]) << 32 | v
            n_waiting += 1
            earliest = min(earliest, T[v])
    while n_waiting:
        threshold = np.float32(max(earliest + delta, earliest * 1.000001))
        earliest = np.float32(np.inf)
        n_now = n_done = kept = 0
        for e in range(n_waiting):
            v = waiting[e] & INDEX
            if waiting[e] >> 32 != bits[v]:
                continue
            if T[v] < threshold:
                if n_now == now.size:
                    now = grown(now)
                now[n_now] = waiting[e]
                n_now += 1
            else:
                earliest = min(earliest, T[v])
                waiting[kept] = waiting[e]
                kept += 1
        n_waiting = kept
        head = 0
        while head < n_now:
            entry = now[head]
            head += 1
            v = entry & INDEX
            if entry >> 32 != bits[v]:
                continue
            if order == 2:
                if n_done == done.size:
                    done = grown(done)
                done[n_done] = entry
                n_done += 1
            for step in steps:
                w = v + step
                if T[w] > T[v]:
                    if v2.size > 1:
                        rhs = 1.0 / (float(v2[w]) * v2[w])
                    t = np.float32(upwind_root(
                        az, lower(T[w - sz], T[w + sz]), ay, lower(T[w - sy], T[w + sy]), ax, lower(T[w - 1], T[w + 1]), rhs
                    ))
                    if t < T[w]:
                        T[w] = t
                        if t < threshold:
                            if n_now == now.size:
                                now = grown(now)
                            now[n_now] = np.int64(bits[w]) << 32 | w
                            n_now += 1
                        elif t <= limit:
                            if n_waiting == waiting.size:
                                waiting = grown(waiting)
                            waiting[n_waiting] = np.int64(bits[w]) << 32 | w
                            n_waiting += 1
                            earliest = min(earliest, t)
        if order == 2:
            kept = 0
            for e in range(n_done):
                if done[e] >> 32 == bits[done[e] & INDEX]:
                    done[kept] = done[e]
                    kept += 1
            for entry in np.sort(done[:kept]):
                v = entry & INDEX
                i = v // sz
                j = (v - i * sz) // sy
                g = (low[0] + i) * gz + (low[1] + j) * gy + low[2] + v - i * sz - j * sy
                slow = 1.0
                if v2.size > 1:
                    slow = 1.0 / v2[v]
                if T[v] >= times[g] - KEEP * delta * slow:
                    t = times[g]
                else:
                    bz, tz, z_in = second_order_axis(T, times, v, g, sz, gz, az, EARLIER * h[0] * slow)
                    by, ty, y_in = second_order_axis(T, times, v, g, sy, gy, ay, EARLIER * h[1] * slow)
                    bx, tx, x_in = second_order_axis(T, times, v, g, 1, 1, ax, EARLIER * h[2] * slow)
                    t = T[v]
                    if z_in or y_in or x_in:
                        t = np.float32(upwind_root(bz, tz, by, ty, bx, tx, slow * slow))
                times[g] = t if t <= max_time else np.float32(np.inf)


@jit(parallel=True)
def solve(
    boxes: Any, largest_first: Any, owner: Any, workers: int, source: Any, speed: Any, h: Any, fit: bool, offsets: Any, gates: Any,
    first_gate: Any, band: float, order: int, max_time: float, delta: float, out: Any, ids: Any, times: Any,
) -> None:
    """Solve every component: one padded box after the other, each worker its own components."""
    for worker in numba.prange(workers):
        room = 0
        for c in range(boxes.shape[0]):
            if owner[c] == worker:
                b = boxes[c]
                room = max(room, (b[1] - b[0] + 2) * (b[3] - b[2] + 2) * (b[5] - b[4] + 2))
        T_all = np.empty(room, np.float32)
        mark_all = np.empty(room, np.uint8)
        v2_all = np.empty(room if speed.size else 1, np.float32)
        volume = np.array([out.shape[0], out.shape[1], out.shape[2]])
        for c in largest_first:
            if owner[c] != worker:
                continue
            b = boxes[c]
            low = np.array([b[0] - 1, b[2] - 1, b[4] - 1])
            shape = np.array([b[1] - b[0] + 2, b[3] - b[2] + 2, b[5] - b[4] + 2])
            size = shape[0] * shape[1] * shape[2]
            T, mark = T_all[:size], mark_all[:size]
            v2 = v2_all[: size if speed.size else 1]
            if fill_box(out, ids, source, speed, c + 1, low, shape, T, mark, v2) == 0:
                continue
            start_box(T, mark, v2, shape, h, fit, offsets, gates, first_gate, band)
            if order == 2:
                for i in range(1, shape[0] - 1):
                    for j in range(1, shape[1] - 1):
                        for k in range(1, shape[2] - 1):
                            t = T[(i * shape[1] + j) * shape[2] + k]
                            if t < np.inf:
                                out[low[0] + i, low[1] + j, low[2] + k] = t if t <= max_time else np.inf
            march(T, T.view(np.int32), v2, shape, low, times, volume, h, order, 1.5 * max_time if order == 2 else max_time, max_time, delta)
            if order == 1:
                for i in range(1, shape[0] - 1):
                    for j in range(1, shape[1] - 1):
                        for k in range(1, shape[2] - 1):
                            t = T[(i * shape[1] + j) * shape[2] + k]
                            if t == t:
                                out[low[0] + i, low[1] + j, low[2] + k] = t if t <= max_time else np.inf
