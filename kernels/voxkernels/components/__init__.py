"""Connected components of a volume.

Legend: Z,Y,X volume shape; n components.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from .._arrays import as_labels, choice, describe, device_of, narrow_labels
from .._compile import Cuda
from . import cpu, cpu_runs, cuda

INT32_LIMIT = 2**31 - 1
"""Volumes of at most so many voxels get int32 labels, larger ones int64."""


PART_VOXELS = 1 << 15
"""A thread gets about so many voxels or more."""


def label(volume: npt.NDArray[Any], *, connectivity: int = 26) -> tuple[npt.NDArray[Any], int]:
    """Number the connected components of a volume.

    Parameters
    ----------
    volume       : (Z, Y, X) bool or any integer type, any strides and byte order. 0 is background; voxels are connected
                   where they are neighbours and have equal values. Types other than bool, uint8, int32 and uint32 are
                   copied to int32 if the values fit, else to int64. NumPy or CuPy.
    connectivity : 6 (faces), 18 (faces and edges) or 26 (faces, edges and corners).

    Returns
    -------
    labels : (Z, Y, X) int32 (int64 past 2**31 voxels), where the volume lies: 0 on the background, else 1..n, numbered
             by the first voxel of each component in C order.
    n      : how many.

    Raises TypeError or ValueError for another type, number of axes, negative values or another connectivity.

    Source: see `voxkernels.components.cpu` and `components.cu`. The result depends neither on the number of threads nor
    on the device.
    """
    device = device_of(volume=volume)
    binary = getattr(volume, "dtype", None) == np.bool_
    given = volume
    volume = as_labels("volume", volume, look=device is not None, device=device)
    connectivity = choice("connectivity", connectivity, (6, 18, 26))
    dtype = np.int32 if volume.size <= INT32_LIMIT else np.int64
    if volume.size == 0:
        return (np.zeros if device is None else device.zeros)(volume.shape, dtype), 0
    if volume.dtype != np.uint8:
        volume = narrow_labels(volume, "volume")
    if device is not None:
        return cuda.label(device, volume, connectivity, dtype)
    _, n_y, n_x = volume.shape
    rows = volume.reshape(-1, n_x)
    flat = volume.reshape(-1)
    n_words = -(-n_x // 64)

    parts = min(len(rows), numba.get_num_threads(), volume.size // PART_VOXELS + 1)
    bounds = np.array([len(rows) * p // parts for p in range(parts + 1)])
    # one block, which the system maps in large pages: four would take longer to map than to fill
    some, starts, left, up = np.zeros((4, len(rows) + 1, n_words + 2), np.uint64)
    before, first = np.empty((len(rows) + 1, n_words), np.int32), np.empty(len(rows) + 1, np.int64)
    n_runs = cpu_runs.mark_runs(flat, n_y, n_x, binary, some, starts, left, up, before, first, bounds)
    if n_runs < 0:
        as_labels("volume", given)
        raise AssertionError("a negative value was met, then none found")
    labels = np.empty(volume.shape, dtype)
    runs = (some, starts, left, up, first, before, np.empty(n_runs, dtype))
    n = cpu.label_runs(connectivity, runs, (flat, n_y, n_x, binary), labels.reshape(rows.shape), bounds)
    return labels, n


def label_slabs(slabs: Iterable[npt.NDArray[Any]], *, connectivity: int = 26) -> tuple[Iterator[npt.NDArray[Any]], int]:
    """Number the connected components of a volume that comes in slabs: `label` for volumes that do not fit in memory.

    Parameters
    ----------
    slabs        : the volume, cut across z: arrays (Z_k, Y, X) as `label` takes them, in order, each as thick as it
                   likes. They are gone through twice, so a list or an object that reads them anew whenever it is
                   iterated over; not a generator.
    connectivity : 6 (faces), 18 (faces and edges) or 26 (faces, edges and corners).

    Returns
    -------
    labels : iterator over the labelled slabs, each computed when it is asked for. Joined, they are what `label` gives
             for the whole volume, to the bit.
    n      : how many components the volume has.

    Raises TypeError or ValueError as `label`, for slabs of different (Y, X), and for slabs that can be read only once
    or change between the passes.

    The first pass labels every slab and unites components across the layers where slabs meet; the second labels every
    slab again and renames. Memory: a slab, its labels, one more layer, and 16 bytes for each component of each slab.
    """
    connectivity = choice("connectivity", connectivity, (6, 18, 26))
    if getattr(slabs, "ndim", 4) < 4:
        raise ValueError(
            f"slabs: must be several arrays (Z_k, Y, X); got {describe(slabs)}. Give a list; one array is for label."
        )
    if not (hasattr(slabs, "__iter__") or hasattr(slabs, "__getitem__")):
        raise TypeError(f"slabs: must be several arrays (Z_k, Y, X); got {describe(slabs)}. Give a list of them.")
    if isinstance(slabs, Iterator):
        raise TypeError(
            f"slabs: must be readable twice; got a {type(slabs).__name__}, which ends after one pass. Give a list, or "
            "an object whose __iter__ starts anew."
        )
    counts: list[int] = []
    parent = np.empty(0, np.int64)
    size = 0
    layer, layer_runs = None, None
    for slab in slabs:
        device = device_of(slabs=slab)
        try:
            labels, n = label(slab, connectivity=connectivity)
        except (TypeError, ValueError) as error:
            raise type(error)(f"slabs[{len(counts)}]{str(error).removeprefix('volume')}") from error.__cause__
        if layer is not None and slab.shape[1:] != layer.shape[1:]:
            raise ValueError(f"slabs: must all have the (Y, X) of the first, {layer.shape[1:]}; got {slab.shape[1:]}.")
        start = parent.size
        parent = np.concatenate([parent, np.arange(start, start + n)])
        counts.append(n)
        size += slab.size
        if not slab.size:
            continue
        if layer is not None and layer_runs is not None:
            touching = np.concatenate([layer, _layer(slab[:1], device)])
            joint, m = label(touching, connectivity=connectivity)
            runs = np.concatenate([layer_runs, _on_host(labels[:1], device) + np.int64(start - 1)])
            cpu.unite_layers(joint.ravel(), runs.ravel(), np.full(m + 1, -1), parent)
        layer, layer_runs = _layer(slab[-1:], device), _on_host(labels[-1:], device) + np.int64(start - 1)

    numbers = np.zeros(parent.size, np.int32 if size <= INT32_LIMIT else np.int64)
    n_whole = int(cpu.number_trees(parent, numbers))
    return _renamed(slabs, connectivity, counts, numbers), n_whole


def _on_host(layer: npt.NDArray[Any], device: Cuda | None) -> npt.NDArray[Any]:
    """A layer where layers are compared."""
    return layer if device is None else device.fetch(layer)


def _layer(layer: npt.NDArray[Any], device: Cuda | None) -> npt.NDArray[Any]:
    """A copy of one layer, of a type in which layers can be compared, on the host."""
    layer = _on_host(layer, device)
    return layer.copy() if layer.dtype == np.bool_ else narrow_labels(as_labels("slabs", layer), "slabs").copy()


def _renamed(
    slabs: Iterable[npt.NDArray[Any]], connectivity: int, counts: list[int], numbers: npt.NDArray[Any]
) -> Iterator[npt.NDArray[Any]]:
    """Label every slab again and give its components their numbers in the whole volume."""
    start = 0
    for slab, expected in zip(slabs, counts, strict=True):
        labels, n = label(slab, connectivity=connectivity)
        if n != expected:
            raise ValueError(f"slabs: must be the same in both passes; got {n} components where there were {expected}.")
        names = np.zeros(n + 1, numbers.dtype)
        names[1:] = numbers[start : start + n]
        start += n
        device = device_of(slabs=slab)
        yield names[labels] if device is None else cuda.renamed(device, labels, names)


def _warmup() -> None:
    """Compile what the pipeline calls: bool volumes and int32 labels."""
    volume = np.ones((2, 2, 2), np.int32)
    label(volume > 0)
    label(volume)
    label_slabs([volume, volume])
