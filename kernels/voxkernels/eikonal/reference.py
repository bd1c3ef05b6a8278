"""Travel time and paths, slowly and obviously: the oracle of the tests, with Python loops over voxels.

Order 1 is fast marching with a heap (Sethian 1996) instead of corrected labels, the nearest point of a surface is
constructed in space instead of a closed form for the distance, and a path goes from voxel to voxel in sight, not down a
gradient.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._arrays import UNIT
from .arguments import Paths, Times, check_trace_paths, check_travel_time, too_long
from .lines import BAND, TUBE

Voxel = tuple[int, int, int]
Floats = npt.NDArray[np.float64]
Face = tuple[Voxel, int, int]  # a voxel inside, the axis and the side of its contact face
Polygon = list[Floats]

STEPS: list[Voxel] = [(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)]
STEEP, STIFF, DISC, SHIFT, WIDEN, EVEN = 2.0, 4.0, 0.4, 0.2, 0.15, 1e-6
EARLIER, KEEP, TIE, SLACK = 1e-3, 0.07, 1e-4, 5e-5


class Disc(NamedTuple):
    """A disc in space, the part of it where ahead . (x - centre) <= end."""

    centre: Floats
    normal: Floats
    radius: float
    ahead: Floats | None = None
    end: float = math.inf


def grid(shape: tuple[int, ...]) -> Iterator[Voxel]:
    """Every voxel, in C order."""
    return product(range(shape[0]), range(shape[1]), range(shape[2]))


def nearest(p: Floats) -> Voxel:
    """The voxel around a point."""
    z, y, x = (int(c) for c in np.floor(p + 0.5))
    return z, y, x


def plus(v: Voxel, d: Sequence[int], times: int = 1) -> Voxel:
    """The voxel `times` steps d away from v."""
    return v[0] + times * d[0], v[1] + times * d[1], v[2] + times * d[2]


class Scene:
    """One problem: labels, sources, spacing and speed, with questions about single voxels."""

    def __init__(
        self, labels: npt.NDArray[Any], source: npt.NDArray[np.bool_], h: Floats, speed: npt.NDArray[Any]
    ) -> None:
        self.shape = labels.shape
        self.label = {v: int(labels[v]) for v in grid(self.shape) if labels[v]}
        self.inside = {v for v in self.label if source[v]}
        self.outside = {v for v in grid(self.shape) if source[v] and v not in self.label}
        self.h = h
        self.varies = bool(speed.size)
        self.speed = {v: float(speed[v]) if self.varies else 1.0 for v in self.label}

    def faces(self) -> list[Face]:
        """Every contact face with a source outside."""
        steps = ((axis, side) for axis in range(3) for side in (-1, 1))
        return [(v, a, s) for a, s in steps for v in self.label if plus(v, unit(a), s) in self.outside]

    def in_sight(self, v: Voxel, w: Voxel) -> bool:
        """Whether a shortest 6-connected way close to the line from v to w is free."""
        line = np.subtract(w, v)

        def reaches(u: Voxel) -> bool:
            if u == w:
                return True
            if u != v:
                off = np.linalg.norm(np.cross(np.subtract(u, v), line)) / np.linalg.norm(line)
                same = self.label.get(u) == self.label[v] and self.speed.get(u) == self.speed[w]
                if off > TUBE or not (same or u in self.outside):
                    return False
            ahead = [d for d in STEPS if np.dot(d, np.subtract(w, u)) > 0]
            return any(reaches(plus(u, d)) for d in ahead)

        return self.label.get(w) == self.label[v] and self.speed[v] == self.speed[w] and reaches(v)


def unit(axis: int) -> Voxel:
    """One step up an axis."""
    return int(axis == 0), int(axis == 1), int(axis == 2)


def piece_labels(labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Number the 6-connected pieces of equal label."""
    pieces = np.zeros(labels.shape, np.int64)
    n = 0
    for v in grid(labels.shape):
        if labels[v] and not pieces[v]:
            n += 1
            pieces[v] = n
            todo = [v]
            while todo:
                u = todo.pop()
                for w in (plus(u, d) for d in STEPS):
                    within = all(0 <= a < b for a, b in zip(w, labels.shape, strict=True))
                    if within and labels[w] == labels[v] and not pieces[w]:
                        pieces[w] = n
                        todo.append(w)
    return pieces


def surface_height(scene: Scene, face: Face, p: int, q: int) -> int | None:
    """How far out the surface of the component is in a column beside a face: the nearest one, within three voxels."""
    v, axis, side = face
    one, two = (d for d in range(3) if d != axis)
    column = plus(plus(v, unit(one), p), unit(two), q)
    for height in (0, 1, -1, 2, -2, 3, -3):
        w = plus(column, unit(axis), side * height)
        if scene.label.get(w) == scene.label[v] != scene.label.get(plus(w, unit(axis), side)):
            return height
    return None


def fitted_disc(scene: Scene, face: Face) -> Disc | None:
    """The disc behind a contact face, seen from the voxel's centre; None if another face serves better."""
    v, axis, side = face
    one, two = (d for d in range(3) if d != axis)
    rows, heights, near = [], [], []
    for p, q in product(range(-2, 3), repeat=2):
        height = surface_height(scene, face, p, q) if p * p + q * q <= 6 else None
        if height is not None:
            rows.append((1.0, float(p), float(q)))
            heights.append(float(height))
            near.append(5.0 - p * p - q * q)
    fit = np.array(rows)
    _, a, b = np.linalg.solve(fit.T @ fit + np.diag([0.0, 1e-6, 1e-6]), fit.T @ np.array(heights))
    flat = not any(heights)
    a, b = (0.0, 0.0) if flat else (float(a), float(b))
    if a * a + b * b > STEEP:
        return None
    c = float(np.clip(np.average(np.array(heights) - fit[:, 1:] @ (a, b), weights=near), -0.5, 0.5))
    normal, source = np.zeros(3), np.zeros(3)
    normal[axis], normal[one], normal[two] = side, -a, -b
    source[axis] = side * scene.h[axis]
    normal = normal / scene.h
    offset = (0.5 + c) / float(np.linalg.norm(normal))
    normal /= np.linalg.norm(normal)
    centre = source + (offset - float(normal @ source)) * normal
    size = math.sqrt(scene.h[one] * scene.h[two])
    whole = Disc(centre, normal, DISC * size)
    plane = rim(scene, face)
    if plane is None:
        return whole
    across, far, total = plane
    along = across / scene.h - float(across / scene.h @ normal) * normal
    slope = float(np.linalg.norm(along))
    if slope <= 1e-9 * float(np.linalg.norm(across / scene.h)):
        return whole
    along /= slope
    towards = one if abs(along[one]) >= abs(along[two]) - EVEN else two
    p, q = (int(math.copysign(1, along[d])) if d == towards else 0 for d in (one, two))
    height = surface_height(scene, face, p, q)
    end = (far - float(across @ (centre / scene.h))) / slope
    if height is not None:
        next_to_it = plus(plus(plus(v, unit(one), p), unit(two), q), unit(axis), side * (height + 1))
        past = float(across @ np.subtract(next_to_it, v)) - far
        if next_to_it not in scene.outside and past > EVEN * float(np.abs(across).sum()):
            return Disc(centre + SHIFT * size * along, normal, (DISC + WIDEN) * size, along, end - SHIFT * size)
    if flat and total[axis] * side >= 0:
        return whole
    return Disc(centre, normal, DISC * size, along, end)


def rim(scene: Scene, face: Face) -> tuple[Floats, float, Floats] | None:
    """The plane where the source around a contact face ends: normal, offset, and the sum of its faces to other voxels.

    In voxels from the voxel. The offset is at least that of the source voxel's centre.
    """
    v, axis, side = face
    here = plus((0, 0, 0), unit(axis), side)
    ends = [
        (np.array(d, float), np.array(o) + np.array(d) / 2)
        for o in product(range(-3, 4), repeat=3)
        if plus(v, o) in scene.outside
        for d in STEPS
        if plus(plus(v, o), d) not in scene.outside and scene.label.get(plus(plus(v, o), d)) != scene.label[v]
    ]
    if not ends:
        return None
    total = np.sum([d for d, _ in ends], axis=0)
    middles = np.array([m for _, m in ends])
    middle = middles.mean(axis=0)
    scatter = (middles - middle).T @ (middles - middle)
    normal = np.linalg.solve(scatter + STIFF * np.eye(3), total)
    return normal, max(float(normal @ middle), float(normal @ here)), total


def square(scene: Scene, face: Face) -> Polygon:
    """A contact face, seen from the voxel's centre."""
    _, axis, side = face
    one, two = (d for d in range(3) if d != axis)
    corners = []
    for p, q in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        x = np.zeros(3)
        x[axis], x[one], x[two] = side / 2, p / 2, q / 2
        corners.append(x * scene.h)
    return corners


def distance_to_disc(x: Floats, disc: Disc) -> float:
    """Distance from a point to a disc in space, of which a straight cut may have taken a part."""
    height = float(disc.normal @ (x - disc.centre))
    foot = x - disc.centre - height * disc.normal
    off = float(np.linalg.norm(foot))
    closest = foot if off <= disc.radius else foot * (disc.radius / off)
    if disc.ahead is not None and float(disc.ahead @ closest) > disc.end:  # it is on the cut
        sideways = np.cross(disc.normal, disc.ahead)
        chord = math.sqrt(disc.radius**2 - disc.end**2)
        closest = disc.end * disc.ahead + min(max(float(sideways @ foot), -chord), chord) * sideways
    return math.hypot(height, float(np.linalg.norm(foot - closest)))


def distance_to_polygon(x: Floats, polygon: Polygon) -> float:
    """Distance from a point to a convex polygon in space."""
    edges = list(zip(polygon, polygon[1:] + polygon[:1], strict=True))
    around = [np.cross(p - polygon[0], q - polygon[0]) for p, q in edges]
    normal = np.sum(around, axis=0)
    size = float(np.linalg.norm(normal))
    if size > 1e-14:
        normal /= size
        if all(float(normal @ np.cross(q - p, x - p)) >= 0 for p, q in edges):
            return abs(float(normal @ (x - polygon[0])))
    best = math.inf
    for p, q in edges:
        d = q - p
        t = min(max(float((x - p) @ d) / max(float(d @ d), 1e-300), 0.0), 1.0)
        best = min(best, float(np.linalg.norm(x - p - t * d)))
    return best


def starting_times(scene: Scene, start: str) -> dict[Voxel, float]:
    """The straight-line times of all voxels close to a source."""
    faces = scene.faces()
    band = 0.0 if start == "centres" else BAND * float(scene.h.min())
    radius = band + 0.5 * float(scene.h.min()) if band else 0.0
    offsets = [o for o in product(range(-3, 4), repeat=3) if sum((np.array(o) * scene.h) ** 2) <= radius**2]
    pieces: list[tuple[Voxel, Polygon | Disc]] = [(v, [np.zeros(3)]) for v in scene.inside]
    for face in faces:
        piece = fitted_disc(scene, face) if start == "surface" else square(scene, face)
        if piece is not None and not (isinstance(piece, Disc) and piece.end <= -piece.radius):
            pieces.append((face[0], piece))
    times: dict[Voxel, float] = {}
    for v, piece in pieces:
        for o in offsets:
            w, x = plus(v, o), np.array(o) * scene.h
            distance = distance_to_disc(x, piece) if isinstance(piece, Disc) else distance_to_polygon(x, piece)
            if w in scene.label and (distance <= band or w == v):
                t = distance / scene.speed[w]
                if t < times.get(w, math.inf) and scene.in_sight(v, w):
                    times[w] = t
    for v, _, _ in faces:  # touches, but no disc is in sight
        if start == "surface" and v not in times:
            times[v] = min(0.5 * scene.h[a] / scene.speed[v] for u, a, _ in faces if u == v)
    return {v: float(np.float32(t)) for v, t in times.items()}


def root(terms: list[tuple[float, float]], rhs: float) -> float:
    """The t with sum of weight * max(t - base, 0)^2 = rhs, over (base, weight)."""
    terms = sorted(terms)
    t = math.inf
    for n in range(1, len(terms) + 1):
        first = terms[0][0]
        s = sum(w for _, w in terms[:n])
        m = sum(w * (b - first) for b, w in terms[:n])
        r = sum(w * (b - first) ** 2 for b, w in terms[:n]) - rhs
        t = first + (m + math.sqrt(max(m * m - s * r, 0.0))) / s
        if n == len(terms) or t <= terms[n][0]:
            break
    return t


def fast_marching(scene: Scene, starts: dict[Voxel, float]) -> dict[Voxel, float]:
    """Order 1: accept the earliest voxel, update its neighbours, repeat."""
    times = dict(starts)
    heap = [(t, v) for v, t in times.items()]
    heapq.heapify(heap)
    accepted: set[Voxel] = set()
    while heap:
        _, v = heapq.heappop(heap)
        if v in accepted:
            continue
        accepted.add(v)
        for w in (plus(v, d) for d in STEPS):
            if scene.label.get(w) != scene.label[v] or w in accepted:
                continue
            terms = []
            for axis in range(3):
                around = [plus(w, unit(axis), side) for side in (-1, 1)]
                known = [times[u] for u in around if u in accepted and scene.label[u] == scene.label[w]]
                if known:
                    terms.append((min(known), scene.h[axis] ** -2))
            t = float(np.float32(root(terms, scene.speed[w] ** -2)))
            if t < times.get(w, math.inf):
                times[w] = t
                heapq.heappush(heap, (t, w))
    return times


def second_order(
    scene: Scene, starts: dict[Voxel, float], first: dict[Voxel, float], lines: bool
) -> dict[Voxel, float]:
    """Order 2 in the order of the order-1 arrival, and then no step too long."""
    times: dict[Voxel, float] = {}
    own_steps: set[tuple[Voxel, Voxel]] = set()  # to a voxel that is computed, from an earlier one beside it
    radius = (BAND + 0.5) * float(scene.h.min())
    offsets = [o for o in product(range(-3, 4), repeat=3) if 0 < sum((np.array(o) * scene.h) ** 2) <= radius**2]

    def before(u: Voxel, w: Voxel, margin: float) -> bool:
        return u in first and scene.label[u] == scene.label[w] and first[u] < float(np.float32(first[w])) - margin

    for v in sorted(first, key=first.__getitem__):
        slowness = 1.0 / scene.speed[v]
        if first[v] >= starts.get(v, math.inf) - KEEP * float(scene.h.min()) * slowness:
            times[v] = starts[v]
            continue
        terms = []
        for axis in range(3):
            margin = EARLIER * scene.h[axis] * slowness
            weight = scene.h[axis] ** -2
            sides = [s for s in (-1, 1) if before(plus(v, unit(axis), s), v, margin)]
            own_steps.update((v, plus(v, unit(axis), s)) for s in sides)
            if not sides:
                continue
            side = sides[0]
            if len(sides) == 2:
                below, above = (times[plus(v, unit(axis), s)] for s in sides)
                side = 1 if above < below - TIE * scene.h[axis] * slowness else -1
            near, far = plus(v, unit(axis), side), plus(v, unit(axis), 2 * side)
            if before(far, near, margin) and times[far] < times[near] - TIE * scene.h[axis] * slowness:
                terms.append((times[near] + (times[near] - times[far]) / 3, 2.25 * weight))
            else:
                terms.append((times[near], weight))
        t = root(terms, slowness**2) if terms else first[v]
        if lines and any(scene.label.get(plus(v, d)) != scene.label[v] for d in STEPS):
            latest = first[v] - EARLIER * float(scene.h.min()) * slowness
            for o in offsets:
                w, line = plus(v, o), math.sqrt(sum((np.array(o) * scene.h) ** 2)) * slowness
                if scene.label.get(w) == scene.label[v] and first.get(w, math.inf) + line < latest:
                    straight = times[w] + line
                    if straight < t and scene.in_sight(v, w):
                        t = straight
        times[v] = float(np.float32(t))
    return no_step_too_long(scene, times, own_steps)


def no_step_too_long(
    scene: Scene, times: dict[Voxel, float], own_steps: set[tuple[Voxel, Voxel]]
) -> dict[Voxel, float]:
    """Make voxels earlier until none is later than a neighbour by more than a step.

    Where the speed varies, own steps may be longer, until one of both voxels has become earlier.
    """
    times, hurried = dict(times), set()
    todo = set(times)
    while todo:
        n = todo.pop()
        for d in STEPS:
            v = plus(n, d)
            if scene.label.get(v) != scene.label[n]:
                continue
            if scene.varies and (v, n) in own_steps and v not in hurried and n not in hurried:
                continue
            step = abs(float(np.dot(d, scene.h))) / min(scene.speed[v], scene.speed[n])
            t = float(np.float32(times[n] + (1 + SLACK) * step))
            if t < times[v]:
                times[v] = t
                hurried.add(v)
                todo.update([v, *(plus(v, e) for e in STEPS if plus(v, e) in times)])
    return times


def travel_time(
    domain: npt.NDArray[Any],
    sources: npt.NDArray[Any],
    *,
    spacing: Sequence[float] = UNIT,
    order: int = 2,
    start: str = "surface",
    interfaces: bool = False,
    speed: float | npt.NDArray[Any] | None = None,
    max_time: float = math.inf,
    out: Times | None = None,
) -> Times:
    """As `voxkernels.travel_time`."""
    task = check_travel_time(domain, sources, spacing, order, start, speed, max_time, out)
    if interfaces:  # one piece after the other, with all others as sources outside
        task.times[...] = np.nan
        pieces = piece_labels(task.labels)
        for number in np.unique(pieces[pieces > 0]):
            own = pieces == number
            seen = np.where(own | (pieces == 0), task.source, True)
            options: dict[str, Any] = {"spacing": spacing, "order": order, "start": start, "max_time": max_time}
            task.times[own] = travel_time(own, seen, speed=speed, **options)[own]
        return task.times
    scene = Scene(piece_labels(task.labels), task.source, np.array(task.steps), task.speed)
    starts = starting_times(scene, start)
    times = fast_marching(scene, starts)
    if order == 2:
        times = second_order(scene, starts, times, start != "centres")
    task.times[...] = np.where(task.labels > 0, np.inf, np.nan)
    for v, t in times.items():
        task.times[v] = t if t <= task.max_time else np.inf
    return task.times


def trace_paths(
    T: npt.NDArray[Any],
    starts: npt.NDArray[Any] | Sequence[Sequence[float]],
    *,
    spacing: Sequence[float] = UNIT,
    domain: npt.NDArray[Any] | None = None,
    step: float = 0.5,
    max_steps: int = 100_000,
) -> list[Floats]:
    """As `voxkernels.trace_paths`, but from voxel centre to voxel centre; `step` changes nothing."""
    task = check_trace_paths(T, starts, spacing, domain, step, max_steps)
    apart = [
        np.abs(np.diff(np.where(task.times < np.inf, task.times, np.nan), axis=a)).ravel() / task.h[a] for a in range(3)
    ]
    slopes = [d[np.isfinite(d)] for d in apart]
    pace = math.sqrt(sum(float(np.mean(d**2)) for d in slopes if d.size))  # time for a unit of way; exact for one speed
    return [one_path(task, p, pace) for p in task.starts]


def one_path(task: Paths, start: Floats, pace: float) -> Floats:
    """Go to the voxel in sight where time and way add up to least, until none is earlier; then to the surface."""
    h = np.array(task.h)
    v = nearest(start)
    mine = task.labels[v] if task.labels.size else 0

    def usable(w: Any) -> bool:
        within = all(0 <= a < b for a, b in zip(w, task.times.shape, strict=True))
        return within and bool(task.times[w] < np.inf) and (not task.labels.size or bool(task.labels[w] == mine))

    def time(w: Any) -> float:
        return float(task.times[w])

    def free(a: Floats, b: Floats) -> bool:
        return all(usable(nearest(a + (b - a) * i / 24)) for i in range(25))

    path = [np.array(start)]
    for _ in range(task.max_steps):
        p = path[-1]
        v = nearest(p)
        around = [plus(v, o) for o in product(range(-3, 4), repeat=3) if sum(np.square(o)) <= 9]
        lower = [w for w in around if usable(w) and time(w) < time(v) and free(p, np.array(w, float))]
        close = time(v) <= pace * max(h) and bool((p == v).all())
        if not lower or close:
            if not close and (p != v).any() and any(usable(plus(v, d)) and time(plus(v, d)) < time(v) for d in STEPS):
                path.append(np.array(v, float))
                continue
            gradient = np.zeros(3)
            for axis in range(3):
                beside = [s for s in (-1, 1) if usable(plus(v, unit(axis), s))]
                slopes = [s * (time(plus(v, unit(axis), s)) - time(v)) / h[axis] for s in beside]
                gradient[axis] = np.mean(slopes) if slopes else 0.0
            size = float(np.linalg.norm(gradient))
            for part in (0.999, 0.75, 0.5, 0.25) if size and time(v) else ():
                end = p - part * time(v) * gradient / size**2 / h
                if free(p, end):
                    path.append(end)
                    break
            return np.array(path)
        path.append(
            np.array(min(lower, key=lambda w: time(w) + pace * float(np.linalg.norm((np.array(w) - p) * h))), float)
        )
    raise ValueError(too_long(task.max_steps, start))
