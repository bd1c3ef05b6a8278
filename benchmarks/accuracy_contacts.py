"""Accuracy of the contact areas on digitised bodies whose surface is known: `python -m benchmarks.accuracy_contacts`.

Every row is a body, digitised at random positions (and directions); every column an estimator. Areas: error in percent
of the true area, mean and standard deviation over the placements. Fractions: error of the attached fraction in points.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

import voxkernels as vk

ESTIMATORS = ("faces", "crofton", "weighted")
VOID, CBD = 0, 1
Vector = npt.NDArray[np.float64]


def direction(rng: np.random.Generator) -> Vector:
    """A random direction, uniform over the sphere."""
    v = rng.normal(size=3)
    return np.asarray(v / np.linalg.norm(v))


def grid(rng: np.random.Generator, reach: float, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Vector:
    """(3, Z, Y, X) positions of voxel centres about a random sub-voxel origin, `reach` far on every side."""
    axes = []
    for size in spacing:
        half = int(np.ceil(reach / size)) + 3
        axes.append((np.arange(-half, half + 1) + rng.uniform(-0.5, 0.5)) * size)
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def along(n: Vector, x: Vector) -> Vector:
    """The coordinate of positions x along direction n."""
    return np.asarray(np.tensordot(n, x, axes=1))


def capped_ball(
    rng: np.random.Generator, radius: float, cosine: float, shell: float, n: Vector
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8], float]:
    """A ball under a shell of CBD within a cone about n; labels, phases and the true attached fraction."""
    x = grid(rng, radius + shell)
    distance = np.sqrt((x**2).sum(axis=0))
    inside = distance < radius
    cap = ~inside & (distance < radius + shell) & (along(n, x) > cosine * distance)
    return inside.astype(np.int32), cap.astype(np.uint8), (1 - cosine) / 2


def cut_ball(
    rng: np.random.Generator, radius: float, height: float, n: Vector
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8], float, float]:
    """A ball cut flat at `height` (of its radius) along n, CBD beyond; labels, phases, areas of facet and rest."""
    x = grid(rng, radius)
    inside = ((x**2).sum(axis=0) < radius**2) & (along(n, x) < height * radius)
    cbd = along(n, x) >= height * radius
    return (
        inside.astype(np.int32),
        cbd.astype(np.uint8),
        np.pi * radius**2 * (1 - height**2),
        2 * np.pi * radius**2 * (1 + height),
    )


def cuboid(rng: np.random.Generator, edge: float, frame: Vector) -> npt.NDArray[np.int32]:
    """A cube with its edges along the rows of `frame`."""
    x = grid(rng, edge * np.sqrt(3) / 2)
    return (abs(np.tensordot(frame, x, axes=1)).max(axis=0) < edge / 2).astype(np.int32)


def plane(rng: np.random.Generator, side: int, n: Vector) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8], float]:
    """A half-space; the column of CBD in the middle of the rest, `side` wide, touches a known area of its plane."""
    axis = int(abs(n).argmax())
    x = grid(rng, side)
    across = np.delete(x, axis, axis=0)
    column = (abs(across) < side / 2).all(axis=0)
    return (along(n, x) < 0).astype(np.int32), column.astype(np.uint8), side**2 / abs(n[axis])


def rotation(rng: np.random.Generator) -> Vector:
    """A random orthonormal frame."""
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return np.asarray(q)


def areas(labels: npt.NDArray[Any], phases: npt.NDArray[Any] | None = None, **options: Any) -> Vector:
    """The areas of the one label, for phases 0 and 1."""
    phases = np.zeros(labels.shape, np.uint8) if phases is None else phases
    area = vk.contact_areas(labels, phases, **options).area[0]
    return np.append(area, 0.0)[:2]


def rows(repeats: int, seed: int = 0) -> Iterator[tuple[str, str, dict[str, Vector]]]:
    """Name of the body, unit of the error, and for each estimator the errors at the placements."""
    rng = np.random.default_rng(seed)

    def table(cases: list[tuple[tuple[Any, ...], dict[str, Any], Any]]) -> dict[str, Vector]:
        return {
            estimator: np.array([error(areas(*args, estimator=estimator, **options)) for args, options, error in cases])
            for estimator in ESTIMATORS
        }

    def relative(truth: float) -> Any:
        return lambda area: 100 * (area.sum() / truth - 1)

    def points(truth: float) -> Any:
        return lambda area: 100 * (area[CBD] / area.sum() - truth)

    def facet(truth: float) -> Any:
        return lambda area: 100 * (area[CBD] / truth - 1)

    bodies = [plane(rng, 40, direction(rng)) for _ in range(repeats)]
    yield "plane, any direction", "%", table([((half, column), {}, facet(area)) for half, column, area in bodies])
    for radius in (5, 8, 10, 14, 20, 28):
        cases: list[Any] = []
        for _ in range(repeats):
            ball = (grid(rng, radius) ** 2).sum(axis=0) < radius**2
            cases.append(((ball.astype(np.int32),), {}, relative(4 * np.pi * radius**2)))
        yield f"ball, r = {radius}", "%", table(cases)
    for spacing in ((2.0, 1.0, 1.0), (1.0, 0.5, 2.0), (3.0, 1.0, 1.0)):
        for voxels in (10, 20):
            radius = voxels * float(np.prod(spacing)) ** (1 / 3)
            cases = []
            for _ in range(repeats):
                ball = (grid(rng, radius, spacing) ** 2).sum(axis=0) < radius**2
                cases.append(((ball.astype(np.int32),), {"spacing": spacing}, relative(4 * np.pi * radius**2)))
            yield f"ball, r = {voxels} mean voxels, spacing {spacing}", "%", table(cases)
    for radius in (10, 14, 24):
        for shell in (1, 2, 3):
            cases = []
            for _ in range(repeats):
                labels, phases, truth = capped_ball(rng, radius, rng.uniform(-0.7, 0.7), shell, direction(rng))
                cases.append(((labels, phases), {}, points(truth)))
            yield f"capped ball, r = {radius}, shell {shell}, any direction", "points", table(cases)
        cases = []
        for axis in np.eye(3):
            for _ in range(max(repeats // 3, 1)):
                labels, phases, truth = capped_ball(rng, radius, rng.uniform(-0.7, 0.7), 1, axis)
                cases.append(((labels, phases), {}, points(truth)))
        yield f"capped ball, r = {radius}, shell 1, along the axes", "points", table(cases)
    for radius in (14, 24):
        for name in ("axes", "any"):
            bodies = []
            for i in range(repeats):
                n = np.eye(3)[i % 3] if name == "axes" else direction(rng)
                bodies.append(cut_ball(rng, radius, rng.uniform(0, 0.7), n))
            yield (
                f"flat facet, r = {radius}, {name}: area",
                "%",
                table([((labels, phases), {}, facet(flat)) for labels, phases, flat, _ in bodies]),
            )
            yield (
                f"flat facet, r = {radius}, {name}: fraction",
                "points",
                table([((labels, phases), {}, points(flat / (flat + rest))) for labels, phases, flat, rest in bodies]),
            )
    for edge in (20, 40):
        for name in ("axes", "any"):
            cases = []
            for _ in range(repeats):
                frame = np.eye(3) if name == "axes" else rotation(rng)
                cases.append(((cuboid(rng, edge, frame),), {}, relative(6 * edge**2)))
            yield f"cube, edge {edge}, {name}", "%", table(cases)


def main() -> None:
    """Print the table; an optional argument is the number of placements of each body (20)."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    sys.stdout.write(f"| body | error in | {' | '.join(ESTIMATORS)} |\n|---|---|{'---|' * len(ESTIMATORS)}\n")
    for name, unit, errors in rows(repeats):
        cells = " | ".join(f"{errors[e].mean():+.2f} ± {errors[e].std():.2f}" for e in ESTIMATORS)
        sys.stdout.write(f"| {name} | {unit} | {cells} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
