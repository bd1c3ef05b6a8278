"""From outlines, circles, ellipses and run lengths to pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach.annotations.faults import Fault

SLACK = 0.5
"""Pixels by which an outline may leave the image without being called clipped: a click on the image's last line."""

Patch = tuple[int, int, npt.NDArray[np.bool_]]
"""Row and column of the upper left pixel, and the pixels."""

NOTHING: Patch = (0, 0, np.zeros((1, 1), np.bool_))


def patch(shape: Any, size: tuple[int, int] | None) -> tuple[Patch, bool]:
    """Pixels of a region, and whether it was clipped. Without an image's size only what needs none is checked."""
    if isinstance(shape, dict) and "counts" in shape:
        if size is not None and shape.get("size") != list(size):
            raise Fault("runs")
        return _trimmed(decode_runs(shape)), False
    if isinstance(shape, dict) and shape.get("name") in ("circle", "ellipse"):
        return _ellipse(shape, size)
    rings = _rings(shape)
    if size is None:
        return NOTHING, False
    x, y = np.concatenate(rings).T
    (row, column, height, width), clipped = _window((x.min(), x.max(), y.min(), y.max()), size)
    parts = [rasterise(ring - (column, row), (height, width)) for ring in rings]
    return (row, column, np.logical_or.reduce(parts)), clipped


def _trimmed(inside: npt.NDArray[np.bool_]) -> Patch:
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not rows.size:
        return NOTHING
    y, x = int(rows[0]), int(columns[0])
    return y, x, inside[y : rows[-1] + 1, x : columns[-1] + 1].copy()


def _rings(shape: Any) -> list[npt.NDArray[np.float64]]:
    """The outlines (n, 2) of a polygon, rectangle or list of COCO polygons: sound, or a `Fault`."""
    if isinstance(shape, dict) and shape.get("name") in ("polygon", "polyline"):
        x, y = _numbers(shape.get("all_points_x")), _numbers(shape.get("all_points_y"))
        if len(x) != len(y):
            raise Fault("malformed")
        points = [np.column_stack((x, y))]
    elif isinstance(shape, dict) and shape.get("name") == "rect":
        x0, y0, width, height = (_numbers([shape.get(key)])[0] for key in ("x", "y", "width", "height"))
        x1, y1 = x0 + width, y0 + height
        points = [np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])]
    elif isinstance(shape, list) and shape:
        flat = [shape] if not isinstance(shape[0], list) else shape
        numbers = [_numbers(part) for part in flat]
        if any(len(part) % 2 for part in numbers):
            raise Fault("malformed")
        points = [part.reshape(-1, 2) for part in numbers]
    else:
        raise Fault("malformed")
    rings = []
    for ring in points:
        distinct = ring[np.any(ring != np.roll(ring, 1, axis=0), axis=1)]
        if len(distinct) < 3:
            raise Fault("few")
        if crosses_itself(distinct):
            raise Fault("crossing")
        rings.append(distinct)
    return rings


def _numbers(values: Any) -> npt.NDArray[np.float64]:
    if not isinstance(values, list) or not all(
        isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9 for v in values
    ):
        raise Fault("malformed")
    return np.array(values, np.float64)


def _window(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[tuple[int, int, int, int], bool]:
    """Row, column, height and width of the image's part of a box x0, x1, y0, y1, and whether it reaches out of it.

    A box outside altogether is a `Fault`.
    """
    (x0, x1, y0, y1), (height, width) = box, size
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise Fault("outside")
    clipped = x0 < -SLACK or y0 < -SLACK or x1 > width + SLACK or y1 > height + SLACK
    row, column = max(0, math.floor(y0)), max(0, math.floor(x0))
    return (row, column, min(height, math.ceil(y1)) - row, min(width, math.ceil(x1)) - column), bool(clipped)


def rasterise(points: npt.NDArray[np.float64], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """(Y, X) bool: pixels whose centre (column + 0.5, row + 0.5) is in or on the polygon `points`, (n, 2) of x, y."""
    from skimage.draw import polygon

    inside = np.zeros(shape, np.bool_)
    inside[polygon(points[:, 1] - 0.5, points[:, 0] - 0.5, shape)] = True  # type: ignore[no-untyped-call]
    return inside


def _ellipse(shape: Mapping[str, Any], size: tuple[int, int] | None) -> tuple[Patch, bool]:
    """Circle cx, cy, r or ellipse cx, cy, rx, ry, theta (radians, from x to y), as the annotator stores them."""
    radii = ("r", "r") if shape["name"] == "circle" else ("rx", "ry")
    cx, cy, rx, ry = (float(_numbers([shape.get(key)])[0]) for key in ("cx", "cy", *radii))
    theta = float(_numbers([shape.get("theta", 0.0)])[0])
    if rx <= 0 or ry <= 0:
        raise Fault("malformed")
    if size is None:
        return NOTHING, False
    c, s = math.cos(theta), math.sin(theta)
    half_x, half_y = math.hypot(rx * c, ry * s), math.hypot(rx * s, ry * c)
    (row, column, height, width), clipped = _window((cx - half_x, cx + half_x, cy - half_y, cy + half_y), size)
    x, y = column + np.arange(width) + 0.5 - cx, row + np.arange(height)[:, None] + 0.5 - cy
    return (row, column, ((x * c + y * s) / rx) ** 2 + ((y * c - x * s) / ry) ** 2 <= 1), clipped


def crosses_itself(points: npt.NDArray[np.float64]) -> bool:
    """Whether two edges of the closed polygon `points`, (n, 2), cross; edges that only touch do not."""
    start, end = points, np.roll(points, -1, axis=0)
    rows = max(1, 2**18 // len(points))  # edges that are compared with all others at once
    for i in range(0, len(points), rows):
        a, b = start[i : i + rows, None], end[i : i + rows, None]
        crossing = (_side(a, b, start) * _side(a, b, end) < 0) & (_side(start, end, a) * _side(start, end, b) < 0)
        if crossing.any():
            return True
    return False


def _side(a: Any, b: Any, point: Any) -> Any:
    """Sign of the side of the line a to b on which a point lies; arrays of (..., 2)."""
    along, to = b - a, point - a
    return np.sign(along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0])


def decode_runs(runs: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """(Y, X) bool from COCO run lengths: `size` (Y, X), `counts` of 0s and 1s in turn, down the columns.

    Counts are numbers or text. In text, a count is a little-endian sequence of characters from "0" on: five bits each,
    the sixth says that more follow, the fifth of the last one is the sign. From the fourth count on it is the
    difference to the last but one.

    Raises
    ------
    ValueError : the runs do not fill the size exactly.
    """
    size, counts = runs.get("size"), runs.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) and 0 < n < 2**16 for n in size)):
        raise Fault("runs")
    if isinstance(counts, str):
        counts = _counts_of(counts)
    if not isinstance(counts, list) or not all(isinstance(n, int) and n >= 0 for n in counts):
        raise Fault("runs")
    if sum(counts) != size[0] * size[1]:
        raise Fault("runs")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(size[1], size[0]).T


def _counts_of(text: str) -> list[int]:
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise Fault("runs")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value, shift = 0, 0
    if shift:
        raise Fault("runs")
    return counts
