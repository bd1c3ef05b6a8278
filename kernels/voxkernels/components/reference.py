"""The oracle of `label` and `label_slabs`: a flood fill from every voxel that has no number yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import as_labels, choice, describe, narrow_labels


def label(volume: npt.NDArray[Any], *, connectivity: int = 26) -> tuple[npt.NDArray[Any], int]:
    """Number the connected components of a volume; see `voxkernels.label`."""
    volume = narrow_labels(as_labels("volume", volume), "volume")
    connectivity = choice("connectivity", connectivity, (6, 18, 26))
    axes = {6: 1, 18: 2, 26: 3}[connectivity]
    steps = [step for step in product((-1, 0, 1), repeat=3) if 1 <= sum(map(abs, step)) <= axes]
    labels = np.zeros(volume.shape, np.int32)
    n = 0
    for seed in np.ndindex(volume.shape):
        if volume[seed] == 0 or labels[seed] > 0:
            continue
        n += 1
        labels[seed] = n
        front = [seed]
        while front:
            voxel = front.pop()
            for step in steps:
                near = tuple(v + s for v, s in zip(voxel, step, strict=True))
                if any(not 0 <= i < size for i, size in zip(near, volume.shape, strict=True)):
                    continue
                if volume[near] == volume[voxel] and labels[near] == 0:
                    labels[near] = n
                    front.append(near)
    return labels, n


def label_slabs(slabs: Iterable[npt.NDArray[Any]], *, connectivity: int = 26) -> tuple[Iterator[npt.NDArray[Any]], int]:
    """Number the components of a volume that comes in slabs: joins the slabs; see `voxkernels.label_slabs`."""
    connectivity = choice("connectivity", connectivity, (6, 18, 26))
    if getattr(slabs, "ndim", 4) < 4:
        raise ValueError(f"slabs: must be several arrays (Z_k, Y, X); got {describe(slabs)}.")
    if not (hasattr(slabs, "__iter__") or hasattr(slabs, "__getitem__")):
        raise TypeError(f"slabs: must be several arrays (Z_k, Y, X); got {describe(slabs)}.")
    if isinstance(slabs, Iterator):
        raise TypeError(f"slabs: must be readable twice; got a {type(slabs).__name__}.")
    listed = [narrow_labels(as_labels(f"slabs[{k}]", slab), f"slabs[{k}]") for k, slab in enumerate(slabs)]
    if len({slab.shape[1:] for slab in listed}) > 1:
        raise ValueError(f"slabs: must all have the (Y, X) of the first, {listed[0].shape[1:]}.")
    if not listed:
        return iter(()), 0
    labels, n = label(np.concatenate(listed), connectivity=connectivity)
    bounds = np.cumsum([0, *map(len, listed)])
    return (labels[a:b] for a, b in pairwise(bounds)), n
