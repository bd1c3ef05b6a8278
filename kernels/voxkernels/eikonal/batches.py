"""The components of a domain some at a time, so that what is known of them takes little memory, however many there are.

The boxes of the next components are found by looking through the runs again: a small part of the time that it takes to
solve those before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from . import cpu, cpu_components
from .cpu_boxes import PAD

LEAST = 2**16  # components of a batch: at least so many, and
VOXELS = 64  # one for so many voxels of the volume: a component takes 60 bytes

Batch = tuple[int, Any, npt.NDArray[np.int64], npt.NDArray[np.bool_]]


class Batches:
    """Components by number. Each batch: how many come before, their boxes, the work on each, whether it is large."""

    def __init__(self, shape: tuple[int, ...], runs: Any, count: int) -> None:
        self.shape, self.runs, self.count = np.array(shape), runs, count
        self.size = max(LEAST, int(self.shape.prod()) // VOXELS)
        self.only: list[Batch] = []  # kept if there is but one

    def __iter__(self) -> Iterator[Batch]:
        if self.only:
            yield from self.only
            return
        row = 0
        for before in range(0, max(self.count, 1), self.size):
            n = min(self.size, self.count - before)
            boxes, row = cpu_components.find_boxes(self.shape, self.runs, before, n, row)
            batch = before, boxes, *cpu_components.weigh(boxes, PAD, cpu.LARGE)
            if n == self.count:
                self.only = [batch]
            yield batch

    def large(self) -> list[tuple[int, Any]]:
        """Numbers and boxes of the large components, the dearest first."""
        found = [
            (work[c], before + int(c) + 1, boxes[c])
            for before, boxes, work, large in self
            for c in np.flatnonzero(large)
        ]
        return [(number, box) for _, number, box in sorted(found, key=lambda each: -each[0])]
