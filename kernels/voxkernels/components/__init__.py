"""Connected components of a volume.

Legend: Z,Y,X volume shape; n components.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from .._arrays import as_labels, choice, narrow_labels
from . import cpu

INT32_LIMIT = 2**31 - 1
"""Volumes of at most so many voxels get int32 labels, larger ones int64."""


def label(volume: npt.NDArray[Any], *, connectivity: int = 26) -> tuple[npt.NDArray[Any], int]:
    """Number the connected components of a volume.

    Parameters
    ----------
    volume       : (Z, Y, X) bool or any integer type, any strides and byte order. 0 is background; voxels are connected
                   where they are neighbours and have equal values. Types other than bool, uint8, int32 and uint32 are
                   copied to int32 if the values fit, else to int64.
    connectivity : 6 (faces), 18 (faces and edges) or 26 (faces, edges and corners).

    Returns
    -------
    labels : (Z, Y, X) int32 (int64 past 2**31 voxels): 0 on the background, else 1..n, numbered by the first voxel of
             each component in C order.
    n      : how many.

    Raises TypeError or ValueError for another type, number of axes, negative values or another connectivity.

    Source: see `voxkernels.components.cpu`. The result does not depend on the number of threads.
    """
    volume = as_labels("volume", volume)
    choice("connectivity", connectivity, (6, 18, 26))
    dtype = np.int32 if volume.size <= INT32_LIMIT else np.int64
    if volume.size == 0:
        return np.zeros(volume.shape, dtype), 0
    if volume.dtype != np.uint8:
        volume = narrow_labels(volume, "volume")
    n_y = volume.shape[1]
    rows = volume.reshape(-1, volume.shape[2])

    first = np.zeros(len(rows) + 1, np.int64)
    cpu.count_runs(rows, first)
    np.cumsum(first, out=first)
    n_runs = int(first[-1])
    begin, end, parent = np.empty(n_runs, dtype), np.empty(n_runs, dtype), np.empty(n_runs, dtype)
    cpu.find_runs(rows, first, begin, end, parent)

    parts = min(len(rows), numba.get_num_threads())
    bounds = len(rows) * np.arange(parts + 1) // parts
    cpu.unite_parts(rows, n_y, first, begin, end, connectivity, parent, bounds)
    cpu.unite_seams(rows, n_y, first, begin, end, connectivity, parent, bounds)
    n = int(cpu.number_roots(parent))
    labels = np.empty(volume.shape, dtype)
    cpu.write_labels(first, begin, end, parent, labels.reshape(rows.shape))
    return labels, n


def _warmup() -> None:
    """Compile what the pipeline calls: bool volumes and int32 labels."""
    volume = np.ones((2, 2, 2), np.int32)
    label(volume > 0)
    label(volume)
