"""The oracle of `label`: a flood fill from every voxel that has no number yet."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import as_labels, choice, narrow_labels


def label(volume: npt.NDArray[Any], *, connectivity: int = 26) -> tuple[npt.NDArray[Any], int]:
    """Number the connected components of a volume; see `voxkernels.label`."""
    volume = narrow_labels(as_labels("volume", volume), "volume")
    choice("connectivity", connectivity, (6, 18, 26))
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
