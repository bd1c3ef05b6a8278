"""Crop, bin and window: which voxels of a stored image are asked for, and blocks of them as one."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach.errors import InputError
from cbdetach.volume.parse import Box, parse_crop

Array = npt.NDArray[Any]


def resolve_crop(crop: str | Sequence[slice] | None, shape: tuple[int, ...]) -> Box:
    """The crop as three slices with both ends, inside the shape."""
    parts = [slice(None)] * 3 if crop is None else list(parse_crop(crop) if isinstance(crop, str) else crop)
    if len(parts) != 3 or not all(isinstance(part, slice) and part.step in (None, 1) for part in parts):
        raise InputError(f"--crop: must be three slices (z, y, x) without steps; got {crop!r}.")
    box = []
    for axis, part, n in zip("zyx", parts, shape, strict=True):
        start, stop = (
            (end + n if end < 0 else end)
            for end in (0 if part.start is None else part.start, n if part.stop is None else part.stop)
        )
        if not 0 <= start < stop <= n:
            asked = f"{'' if part.start is None else part.start}:{'' if part.stop is None else part.stop}"
            raise InputError(f"--crop: must lie inside the volume of shape {shape}; got {axis} = {asked} of 0:{n}.")
        box.append(slice(start, stop))
    return box[0], box[1], box[2]


def check_bin(bin: int, box: Box) -> None:
    """InputError unless `bin` is a whole number that leaves a voxel of the box."""
    extent = tuple(part.stop - part.start for part in box)
    if isinstance(bin, bool) or not isinstance(bin, int | np.integer) or not 1 <= bin <= min(extent):
        raise InputError(f"--bin: must be a whole number from 1 to {min(extent)}, for the shape {extent}; got {bin!r}.")


def window_of(key: Any, shape: tuple[int, int, int]) -> tuple[Box, list[bool]]:
    """A NumPy-like key as three slices with both ends, and which axes a single index drops."""
    keys = key if isinstance(key, tuple) else (key,)
    if len(keys) > 3:
        raise IndexError(f"a volume has 3 axes; got {len(keys)} indices")
    window, dropped = [], []
    for part, n in zip(keys + (slice(None),) * (3 - len(keys)), shape, strict=True):
        if isinstance(part, slice):
            start, stop, step = part.indices(n)
            if step != 1:
                raise IndexError("a volume is read without steps; read the block, then take every nth voxel")
            window.append(slice(start, max(start, stop)))
        else:
            index = operator.index(part)
            if not -n <= index < n:
                raise IndexError(f"index {index} is out of range for an axis of {n} voxels")
            window.append(slice(index % n, index % n + 1))
        dropped.append(not isinstance(part, slice))
    return (window[0], window[1], window[2]), dropped


def bin_grey(block: Array, n: int) -> Array:
    """Means of n^3 blocks, in the block's own type."""
    total = np.zeros(tuple(s // n for s in block.shape), dtype=np.float64)
    for i, j, k in np.ndindex(n, n, n):
        total += block[i::n, j::n, k::n]
    total /= n**3
    return (np.rint(total) if block.dtype.kind in "iu" else total).astype(block.dtype)


def bin_labels(block: Array, n: int) -> Array:
    """The most frequent value of each n^3 block, the smallest of equals: the longest run in the sorted block."""
    z, y, x = (s // n for s in block.shape)
    out = np.empty((z, y, x), dtype=block.dtype)
    for index in range(z):
        layer = block[index * n : (index + 1) * n].reshape(n, y, n, x, n)
        values = np.sort(layer.transpose(0, 2, 4, 1, 3).reshape(n**3, y, x), axis=0)
        best, longest, run = values[0], np.ones((y, x), dtype=np.int64), np.ones((y, x), dtype=np.int64)
        for previous, current in itertools.pairwise(values):
            run = np.where(current == previous, run + 1, 1)
            best = np.where(run > longest, current, best)
            longest = np.maximum(longest, run)
        out[index] = best
    return out
