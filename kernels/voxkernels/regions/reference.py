"""Region properties, slowly and obviously: a loop over labels, positions in full, exact arithmetic."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from statistics import mean, pstdev
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import UNIT, Spacing, as_image, as_labels, as_spacing, describe, same_shape
from . import PAIRS, RegionProperties


def region_properties(
    labels: npt.NDArray[Any],
    image: npt.NDArray[Any] | None = None,
    *,
    spacing: Any = UNIT,
    origin: Any = (0, 0, 0),
) -> RegionProperties:
    """As `voxkernels.region_properties`."""
    grid = as_labels("labels", labels)
    size = as_spacing(spacing)
    corner = np.asarray(origin)
    if corner.shape != (3,) or corner.dtype.kind not in "iu":
        raise ValueError(f"origin: must be three integers (z, y, x); got {describe(origin)}.")
    grey = None
    if image is not None:
        grey = as_image("image", image)
        same_shape("image", grey, "labels", grid)
    names = [int(name) for name in np.unique(grid) if name != 0]
    if names and names[-1] >= 2**63:
        raise ValueError(f"labels: must be below 2**63; got {names[-1]}. Renumber them from 1.")
    rows = []
    grey_rows = []
    for name in names:
        positions = [[int(i) + int(o) for i, o in zip(p, corner, strict=True)] for p in np.argwhere(grid == name)]
        rows.append(_sums(positions))
        if grey is not None:
            values = [float(value) for value in grey[grid == name]]
            known = not any(np.isnan(values))
            grey_rows.append([mean(values), pstdev(values), min(values), max(values)] if known else [np.nan] * 4)
    return _result(names, rows, None if grey is None else grey_rows, size)


def merge_regions(parts: Iterable[RegionProperties]) -> RegionProperties:
    """As `voxkernels.merge_regions`."""
    listed = list(parts)
    if not listed:
        raise ValueError("parts: must hold at least one result of region_properties; got none.")
    for part in listed:
        if not isinstance(part, RegionProperties):
            raise TypeError(f"parts: must hold results of region_properties; got {describe(part)} among them.")
    spacing = listed[0].spacing
    with_grey = listed[0].mean is not None
    for part in listed:
        if part.spacing != spacing:
            raise ValueError(
                f"parts: must have one spacing; got {spacing} and {part.spacing}. Measure all parts with the same one."
            )
        if (part.mean is not None) != with_grey:
            raise ValueError("parts: must all have grey statistics or none; got both. Give the image for every part.")
    names = sorted({int(name) for part in listed for name in part.labels})
    rows = []
    grey_rows = []
    for name in names:
        pieces = [(part, int(k)) for part in listed for k in np.flatnonzero(part.labels == name)]
        rows.append(_join([_sums_of(part, k) for part, k in pieces]))
        if with_grey:
            grey_rows.append(_join_grey(pieces))
    return _result(names, rows, grey_rows if with_grey else None, spacing)


Sums = tuple[int, list[int], list[int], list[int]]
"""Count, box (z0, y0, x0, z1, y1, x1), sums of z, y, x and sums of their products, counted from index 0."""


def _sums(positions: list[list[int]]) -> Sums:
    low = [min(p[k] for p in positions) for k in range(3)]
    high = [max(p[k] for p in positions) + 1 for k in range(3)]
    first = [sum(p[k] for p in positions) for k in range(3)]
    second = [sum(p[a] * p[b] for p in positions) for a, b in PAIRS]
    return len(positions), low + high, first, second


def _sums_of(part: RegionProperties, k: int) -> Sums:
    count = int(part.count[k])
    box = [int(i) for i in part.bbox[k]]
    moments = [int(m) for m in part.moments[k]]
    first = [moments[a] + count * box[a] for a in range(3)]
    second = [
        moments[3 + j] + box[a] * moments[b] + box[b] * moments[a] + count * box[a] * box[b]
        for j, (a, b) in enumerate(PAIRS)
    ]
    return count, box, first, second


def _join(pieces: list[Sums]) -> Sums:
    low = [min(box[k] for _, box, _, _ in pieces) for k in range(3)]
    high = [max(box[k] for _, box, _, _ in pieces) for k in range(3, 6)]
    first = [sum(f[k] for _, _, f, _ in pieces) for k in range(3)]
    second = [sum(s[k] for _, _, _, s in pieces) for k in range(6)]
    return sum(count for count, _, _, _ in pieces), low + high, first, second


def _join_grey(pieces: list[tuple[RegionProperties, int]]) -> list[float]:
    count = 0
    middle = squares = 0.0
    lows, highs = [], []
    for part, k in pieces:
        assert part.mean is not None
        assert part.std is not None
        assert part.min is not None
        assert part.max is not None
        n = int(part.count[k])
        delta = float(part.mean[k]) - middle
        squares += float(part.std[k]) ** 2 * n + delta**2 * count * n / (count + n)
        middle += delta * n / (count + n)
        count += n
        lows.append(float(part.min[k]))
        highs.append(float(part.max[k]))
    return [middle, (squares / count) ** 0.5, min(lows), max(highs)]


def _result(names: list[int], rows: list[Sums], grey: list[list[float]] | None, spacing: Spacing) -> RegionProperties:
    centroid = np.empty((len(names), 3))
    inertia = np.empty((len(names), 3, 3))
    moments = np.empty((len(names), 9), np.int64)
    for k, (count, box, first, second) in enumerate(rows):
        moments[k, :3] = [first[a] - count * box[a] for a in range(3)]
        centroid[k] = [float(Fraction(first[a], count)) * spacing[a] for a in range(3)]
        for j, (a, b) in enumerate(PAIRS):
            moments[k, 3 + j] = second[j] - box[a] * first[b] - box[b] * first[a] + count * box[a] * box[b]
            covariance = Fraction(second[j], count) - Fraction(first[a], count) * Fraction(first[b], count)
            inertia[k, a, b] = inertia[k, b, a] = float(covariance) * spacing[a] * spacing[b]
    columns = [None] * 4 if grey is None else [*np.array(grey, np.float64).reshape(-1, 4).T]
    return RegionProperties(
        labels=np.array(names, np.int64),
        count=np.array([row[0] for row in rows], np.int64),
        bbox=np.array([row[1] for row in rows], np.int64).reshape(-1, 6),
        centroid=centroid,
        inertia=inertia,
        mean=columns[0],
        std=columns[1],
        min=columns[2],
        max=columns[3],
        moments=moments,
        spacing=spacing,
    )
