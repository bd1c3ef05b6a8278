"""Shortest paths on the CPU: steepest descent on a travel time, many starts in one call.

The gradient is known at voxel centres by differences of those neighbours that the front reached (central, or one-sided
beside an obstacle), and between centres by trilinear weights over the corners that can be used. A path takes midpoint
steps of fixed length against it (second-order Runge-Kutta), along a wall where it meets one. A step counts only if it
stays in voxels that can be used and lowers the time by a good part of what the gradient promises. Otherwise the path
goes to the centre of the neighbour of steepest descent, and on by centres until it is below the time of the failure;
so it ends. Where less time is left than one step takes, it goes the rest straight on, up to the surface.

A voxel can be used if its time is finite and, where labels are given, its label is that of the start.

Cost: about 100 reads of T a step. Memory: none beside the paths; each is traced twice, first to count its points.
Not checked: C order, spacing > 0, starts inside the volume on voxels that can be used.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._compile import jit

LAST = 1.0  # how many voxels before the end a path goes straight on where it cannot step
SHORTEST = 0.3  # the least part of a step that counts as one, along a wall
GAIN = 0.3  # by which part of the promise of the gradient a step has to lower the time


@jit
def usable(T: Any, labels: Any, mine: int, z: int, y: int, x: int) -> bool:
    """Whether a path may enter a voxel."""
    if not (0 <= z < T.shape[0] and 0 <= y < T.shape[1] and 0 <= x < T.shape[2]):
        return False
    return bool(T[z, y, x] < np.inf and (labels.size == 0 or labels[z, y, x] == mine))


@jit
def at_point(T: Any, labels: Any, mine: int, p: Any) -> bool:
    """Whether a point lies in a voxel that can be used."""
    return bool(usable(T, labels, mine, math.floor(p[0] + 0.5), math.floor(p[1] + 0.5), math.floor(p[2] + 0.5)))


@jit
def free_way(T: Any, labels: Any, mine: int, p: Any, q: Any) -> bool:
    """Whether the straight line between two points less than two voxels apart stays in voxels that can be used."""
    r = np.empty(3)
    for i in range(1, 9):
        for d in range(3):
            r[d] = p[d] + (q[d] - p[d]) * i / 8.0
        if not at_point(T, labels, mine, r):
            return False
    return True


@jit
def slope(T: Any, labels: Any, mine: int, c: Any, axis: int, h: float) -> float:
    """Derivative of T at a voxel centre along one axis. Where two fronts have met, the way goes to the steeper side."""
    v = T[c[0], c[1], c[2]]
    total, steepest = 0.0, 0.0
    count, lower = 0, 0
    for side in range(-1, 2, 2):
        z, y, x = c[0] + side * (axis == 0), c[1] + side * (axis == 1), c[2] + side * (axis == 2)
        if usable(T, labels, mine, z, y, x):
            rate = side * (T[z, y, x] - v) / h
            total += rate
            count += 1
            if T[z, y, x] < v:
                lower += 1
                if abs(rate) > abs(steepest):
                    steepest = rate
    if lower == 2:
        return steepest
    return total / count if count else 0.0


@jit
def sample(T: Any, labels: Any, mine: int, p: Any, h: Any, gradient: Any) -> float:
    """Time at a point, and its gradient (written): linear from each corner that can be used, trilinear weights."""
    c = np.empty(3, np.int64)
    g = np.empty(3)
    gradient[:] = 0.0
    total = value = 0.0
    for corner in range(8):
        weight = 1.0
        for d in range(3):
            low = math.floor(p[d])
            up = (corner >> d) & 1
            c[d] = low + up
            weight *= p[d] - low if up else 1.0 - p[d] + low
        if weight <= 0.0 or not usable(T, labels, mine, c[0], c[1], c[2]):
            continue
        here = float(T[c[0], c[1], c[2]])
        for d in range(3):
            g[d] = slope(T, labels, mine, c, d, h[d])
            here += g[d] * (p[d] - c[d]) * h[d]
            gradient[d] += weight * g[d]
        value += weight * here
        total += weight
    gradient /= total
    return max(value / total, 0.0)


@jit
def length_of(g: Any) -> float:
    """Euclidean length."""
    return math.sqrt(g[0] * g[0] + g[1] * g[1] + g[2] * g[2])


@jit
def best_neighbour(T: Any, labels: Any, mine: int, p: Any, h: Any, q: Any) -> bool:
    """The next voxel centre downhill, in q: of the neighbours of the voxel around p the one of steepest descent.

    If the straight way there is not free from p, q is the centre of the voxel itself. False if no neighbour is earlier.
    """
    c, r = np.empty(3), np.empty(3)
    for d in range(3):
        c[d] = math.floor(p[d] + 0.5)
    z, y, x = int(c[0]), int(c[1]), int(c[2])
    here = T[z, y, x]
    steepest = 0.0
    for n in range(27):
        i, j, k = n // 9 - 1, n // 3 % 3 - 1, n % 3 - 1
        if usable(T, labels, mine, z + i, y + j, x + k) and T[z + i, y + j, x + k] < here:
            rate = (here - T[z + i, y + j, x + k]) / math.sqrt((i * h[0]) ** 2 + (j * h[1]) ** 2 + (k * h[2]) ** 2)
            r[0], r[1], r[2] = z + i, y + j, x + k
            if rate > steepest and free_way(T, labels, mine, c, r):
                steepest = rate
                q[:] = r
    if steepest > 0.0 and not free_way(T, labels, mine, p, q):
        q[:] = c
    return steepest > 0.0


@jit
def midpoint_step(T: Any, labels: Any, mine: int, p: Any, value: float, h: Any, stride: float, g: Any, q: Any) -> bool:
    """One step of second order against the gradient g at p, to q, or along the wall that it meets.

    False if it does not lower the time by enough.
    """
    rate = length_of(g)
    if rate == 0.0:
        return False
    r, turned = np.empty(3), g.copy()
    for d in range(3):
        r[d] = p[d] - 0.5 * stride * g[d] / rate / h[d]
    if at_point(T, labels, mine, r):
        sample(T, labels, mine, r, h, turned)
    turn = length_of(turned)
    if turn == 0.0:
        return False
    lowest = np.inf
    for dropped in range(7):  # axes left out: none, one, two
        moved = 0.0
        for d in range(3):
            r[d] = p[d]
            if not (dropped >> d) & 1:
                r[d] -= stride * turned[d] / turn / h[d]
                moved += (stride * turned[d] / turn) ** 2
        if moved > (SHORTEST * stride) ** 2 and free_way(T, labels, mine, p, r):
            there = sample(T, labels, mine, r, h, g)
            if there < min(lowest, value - GAIN * math.sqrt(moved) * rate):
                lowest = there
                q[:] = r
                if dropped == 0:
                    break
    return lowest < np.inf


@jit
def trace(T: Any, labels: Any, start: Any, h: Any, stride: float, max_steps: int, path: Any) -> int:
    """Trace one path into `path`, as far as it has room. Returns the number of points, or -1 after max_steps."""
    p, q, g, g_there = start.copy(), np.empty(3), np.empty(3), np.empty(3)
    mine = 0
    if labels.size:
        mine = labels[math.floor(p[0] + 0.5), math.floor(p[1] + 0.5), math.floor(p[2] + 0.5)]
    level = np.inf  # the time at which a step failed last: below it the path may leave the voxel centres again
    for n in range(max_steps):
        if n < path.shape[0]:
            path[n] = p
        value = sample(T, labels, mine, p, h, g)
        rate = length_of(g)
        if value == 0.0:
            return n + 1
        moved = False
        if value > stride * rate:
            g_there[:] = g
            moved = value < level and midpoint_step(T, labels, mine, p, value, h, stride, g_there, q)
            if not moved and value > LAST * h.max() * rate:
                level = min(level, value)
                moved = best_neighbour(T, labels, mine, p, h, q)
        if not moved:
            for tenth in range(10, 0, -1):  # the rest of the way, as far as the last voxel goes
                for d in range(3):
                    q[d] = p[d] - 0.0999999 * tenth * value * g[d] / max(rate * rate, 1e-300) / h[d]
                if rate > 0.0 and free_way(T, labels, mine, p, q):
                    if n + 1 < path.shape[0]:
                        path[n + 1] = q
                    return n + 2
            return n + 1
        p[:] = q
    return -1


@jit
def trace_all(
    T: Any, labels: Any, starts: Any, h: Any, stride: float, max_steps: int, first: Any, points: Any, count: Any
) -> None:
    """Trace every start into its part of `points`, from first[n] on; count[n] is its number of points."""
    for n in range(starts.shape[0]):
        count[n] = trace(T, labels, starts[n], h, stride, max_steps, points[first[n] : first[n + 1]])
