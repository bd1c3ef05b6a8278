"""Size, place, shape and grey values of every label of a volume, and the same for volumes that come in slabs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from .._arrays import (
    UNIT,
    Spacing,
    as_image,
    as_labels,
    as_spacing,
    describe,
    device_of,
    narrow_labels,
    same_shape,
    where,
)
from . import cpu, cpu_results, cpu_rows, cpu_tables, cuda

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CHUNKS = 16
CHUNK_BYTES = 1 << 24
"""The volume is summed in up to CHUNKS parts, fewer where their sums would pass this size or the labels' own. Without
grey values all sums are exact: then one for each thread."""

CHUNK_VOXELS = 1 << 16
"""Parts are not smaller than this."""
SAMPLE = 4096
"""So many voxels are looked at for the largest label before all are."""

ROW_BYTES = 8 * cpu_tables.N_ROW

_NONE = np.empty(0, np.int64)
_NO_IMAGE = np.empty((0, 0), np.uint8)


PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
"""The axes of each product in the last six columns of `RegionProperties.moments`."""


_START = (0, 0, 0)
_CORNER = np.zeros(3, np.int64)


@dataclass(frozen=True)
class RegionProperties:
    """One row for every label present, ascending, 0 left out. N labels.

    labels   : (N,) int64.
    count    : (N,) int64, voxels.
    bbox     : (N, 6) int64, z0, y0, x0, z1, y1, x1: indices in the whole volume, half-open.
    centroid : (N, 3) float64, z, y, x in the unit of `spacing`; the centre of voxel [0, 0, 0] of the volume is at 0.
    inertia  : (N, 3, 3) float64, covariance of the positions of the voxel centres (sum of squares / count), unit of
               `spacing` squared. A voxel's own extent is not in it: add spacing**2 / 12 to the diagonal for that.
    mean, std, min, max : (N,) float64, of the grey values; None without an image. `std` divides by the count.
    moments  : (N, 9) int64, exact sums of z, y, x, zz, zy, zx, yy, yx, xx of the voxel indices counted from the corner
               of `bbox`: what `merge_regions` adds.
    spacing  : (dz, dy, dx), as given.
    """

    labels: Ints
    count: Ints
    bbox: Ints
    centroid: Floats
    inertia: Floats
    mean: Floats | None
    std: Floats | None
    min: Floats | None
    max: Floats | None
    moments: Ints
    spacing: Spacing


def region_properties(
    labels: npt.NDArray[Any],
    image: npt.NDArray[Any] | None = None,
    *,
    spacing: Any = UNIT,
    origin: Any = _START,
) -> RegionProperties:
    """Measure every label of a volume in one pass: count, bounding box, centroid, second moments, grey statistics.

    Parameters
    ----------
    labels  : (Z, Y, X), any integer type, not negative. 0 is background. Labels need not be consecutive: memory goes by
              how many there are.
    image   : (Z, Y, X) grey values, integer or floating point, or None. Other types than uint8, uint16, float32 and
              float64 are converted to float64. A nan makes its label's mean and std nan, its min and max void.
    spacing : (dz, dy, dx), voxel size.
    origin  : (z, y, x) integers, index of voxel [0, 0, 0] in the whole volume, where `labels` is a part of it.

    Returns
    -------
    RegionProperties, of CuPy arrays if the labels are (the image must be then, too). Position sums are exact integers,
    and grey values are summed as deviations from one value of their region (shifted data: Chan, Golub and LeVeque
    1983), so neither a far origin nor a large grey offset costs precision. Independent of the number of threads, to the
    bit; on a GPU, mean and std of floating-point images are so up to rounding.

    Raises
    ------
    TypeError, ValueError : labels not integer, negative or not three-dimensional; image of another shape or type;
    spacing not positive; origin not three integers.
    """
    device = device_of(labels=labels, image=image)
    grid = narrow_labels(as_labels("labels", labels, look=False, device=device))  # the kernels see negative ones
    size = as_spacing(spacing)
    corner = _as_origin(origin)
    values = None
    if image is not None:
        values = as_image("image", image, device=device)
        same_shape("image", values, "labels", grid)
        if values.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
            with where(values):
                values = values.astype(np.float64)
    if device is not None:
        found = cuda.measure_regions(device, grid, values, size, corner)
        if found is None:
            as_labels("labels", labels, device=device)
            raise AssertionError("a negative label was met, then none found")
        return RegionProperties(**found, spacing=size)
    rows, names, (count, bbox, centroid, inertia, moments, grey) = _measure(grid, values, corner, size)
    mean = std = low = high = None
    if values is not None:
        first, deviations, squares, low, high = grey.T
        about_first = deviations / count
        mean, std = first + about_first, np.sqrt(np.maximum(squares / count - about_first**2, 0))
    present = rows if names is None else names[rows]
    return RegionProperties(present, count, bbox, centroid, inertia, mean, std, low, high, moments, size)


def _measure(
    grid: npt.NDArray[Any], image: npt.NDArray[Any] | None, corner: Ints, size: Spacing
) -> tuple[Ints, Ints | None, Any]:
    """The rows in use, the rows' labels (None: they are the rows), and what `cpu_results.list_regions` has of them.

    Labels are their own rows where they are dense: no more bytes of sums than of labels.
    """
    n_z, n_y, n_x = grid.shape
    lines = grid.reshape(n_z * n_y, n_x)
    grey = _NO_IMAGE if image is None else image.reshape(n_z * n_y, n_x)
    most, parts = max(grid.nbytes, CHUNK_BYTES), min(CHUNKS, numba.get_num_threads()) if image is None else CHUNKS
    most_rows = most // ROW_BYTES
    names, keys, rows_of, n_rows = None, _NONE, _NONE, cpu_rows.guess_rows(grid.reshape(-1), SAMPLE, most_rows)
    while True:
        if n_rows > most_rows:
            names, keys, rows_of = _rows_of_labels(lines)
            n_rows = names.size
        chunks = max(1, min(most // max(ROW_BYTES * n_rows, 1), grid.size // CHUNK_VOXELS, parts))
        memory = np.zeros((chunks, cpu_tables.N_ROW * n_rows + cpu_tables.LINE), np.int64)
        top, (rows, *found) = cpu.measure(
            lines, grey, max(n_y, 1), keys, rows_of, _squares(n_x), memory, corner, _array_of(size)
        )
        if top == 0:
            return rows, names, found
        if top < 0:
            as_labels("labels", lines, 2)
        n_rows = top + 1


@functools.lru_cache(maxsize=4)
def _squares(n_x: int) -> Ints:
    """(n_x + 1,) the sum of the squares of all integers below each."""
    squares = np.zeros(n_x + 1, np.int64)
    np.cumsum(np.arange(n_x) ** 2, out=squares[1:])
    return squares


@functools.lru_cache(maxsize=16)
def _array_of(size: Spacing) -> Floats:
    return np.array(size)


def _moved(regions: RegionProperties, move: Callable[[Any], Any]) -> RegionProperties:
    """The same with every array on the other side: a few numbers for each label."""
    kept = {field.name: getattr(regions, field.name) for field in fields(regions)}
    return RegionProperties(**{k: v if v is None or k == "spacing" else move(v) for k, v in kept.items()})


def merge_regions(parts: Iterable[RegionProperties]) -> RegionProperties:
    """Join the properties of disjoint parts of one volume, such as its slabs. CuPy arrays are joined on the host.

    The parts must come from `region_properties` with the `origin` of each part. Counts, boxes, centroids and second
    moments equal those of the whole volume to the bit; mean and std do up to the rounding of the parts' means (pairwise
    update of Chan, Golub and LeVeque 1983, in the order of the parts).

    Raises
    ------
    ValueError : no parts; parts of different spacing; some parts with grey values and some without.
    """
    listed = list(parts)
    if not listed:
        raise ValueError("parts: must hold at least one result of region_properties; got none.")
    wrong = [part for part in listed if not isinstance(part, RegionProperties)]
    if wrong:
        raise TypeError(f"parts: must hold results of region_properties; got {describe(wrong[0])} among them.")
    device = device_of(**{f"parts[{k}]": part.labels for k, part in enumerate(listed)})
    if device is not None:
        return _moved(_merge([_moved(part, device.fetch) for part in listed]), device.send)
    return _merge(listed)


def _merge(listed: list[RegionProperties]) -> RegionProperties:
    spacing = listed[0].spacing
    with_grey = listed[0].mean is not None
    for part in listed:
        if part.spacing != spacing:
            raise ValueError(
                f"parts: must have one spacing; got {spacing} and {part.spacing}. Measure all parts with the same one."
            )
        if (part.mean is not None) != with_grey:
            raise ValueError("parts: must all have grey statistics or none; got both. Give the image for every part.")

    labels, row = np.unique(np.concatenate([part.labels for part in listed]), return_inverse=True)
    rows = np.split(row, np.cumsum([part.labels.size for part in listed])[:-1])
    n = labels.size
    bbox = np.empty((n, 6), np.int64)
    bbox[:, :3], bbox[:, 3:] = np.iinfo(np.int64).max, np.iinfo(np.int64).min
    for part, at in zip(listed, rows, strict=True):
        bbox[at, :3] = np.minimum(bbox[at, :3], part.bbox[:, :3])
        bbox[at, 3:] = np.maximum(bbox[at, 3:], part.bbox[:, 3:])
    count = np.zeros(n, np.int64)
    moments = np.zeros((n, 9), np.int64)
    mean, squares = np.zeros(n), np.zeros(n)
    low, high = np.full(n, np.inf), np.full(n, -np.inf)
    for part, at in zip(listed, rows, strict=True):
        cpu_results.add_shifted(part.moments, part.count, bbox[at, :3] - part.bbox[:, :3], at, moments)
        if part.mean is not None and part.std is not None and part.min is not None and part.max is not None:
            share = part.count / (count[at] + part.count)
            delta = part.mean - mean[at]
            mean[at] += delta * share
            squares[at] += part.std**2 * part.count + delta**2 * count[at] * share
            low[at] = np.fmin(low[at], part.min)
            high[at] = np.fmax(high[at], part.max)
        count[at] += part.count
    centroid, inertia = np.empty((n, 3)), np.empty((n, 3, 3))
    cpu_results.derive(count, bbox, moments, np.array(spacing), centroid, inertia)
    if with_grey:
        std = np.sqrt(squares / count)
        return RegionProperties(labels, count, bbox, centroid, inertia, mean, std, low, high, moments, spacing)
    return RegionProperties(labels, count, bbox, centroid, inertia, None, None, None, None, moments, spacing)


def _as_origin(origin: Any) -> Ints:
    if origin is _START:
        return _CORNER
    corner = np.asarray(origin)
    if corner.shape != (3,) or corner.dtype.kind not in "iu":
        raise ValueError(f"origin: must be three integers (z, y, x); got {describe(origin)}.")
    return corner.astype(np.int64)


def _rows_of_labels(lines: npt.NDArray[Any]) -> tuple[Ints, Ints, Ints]:
    """The labels that are there, ascending, and the hash table (keys, rows) that gives a label's row."""
    keys = np.zeros(1 << 12, np.int64)
    while (found := cpu_rows.collect_labels(lines, keys)) < 0:
        if found == -2:
            as_labels("labels", lines, 2)
        keys = np.zeros(4 * keys.size, np.int64)
    names = np.sort(keys[keys > 0])
    return names, keys, np.searchsorted(names, keys)


def _warmup() -> None:
    labels = np.ones((2, 2, 2), np.int32)
    for dtype in (np.uint8, np.uint16, np.float32):
        merge_regions([region_properties(labels, labels.astype(dtype))])
    labels[0] = 2**31 - 1
    region_properties(labels)
