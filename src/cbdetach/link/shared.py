"""What objects of two levels share: pairs, their overlap, and the best assignment among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cbdetach.assignment import assign

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class Overlap(Protocol):
    """Shared pixels of the objects of two levels, as `voxkernels.overlap_counts` returns them."""

    @property
    def ids_a(self) -> Ints: ...
    @property
    def ids_b(self) -> Ints: ...
    @property
    def count(self) -> Ints: ...
    @property
    def labels_a(self) -> Ints: ...
    @property
    def size_a(self) -> Ints: ...
    @property
    def labels_b(self) -> Ints: ...
    @property
    def size_b(self) -> Ints: ...


@dataclass(frozen=True)
class Shared:
    """Pairs of objects that share pixels, of all levels at once; a, b number objects through all levels."""

    a: Ints
    b: Ints
    count: Ints
    inside_a: Floats
    inside_b: Floats
    iou: Floats

    @classmethod
    def of(cls, overlaps: Sequence[Overlap], start: Ints, step: int) -> Shared:
        none, nowhere = np.zeros(0, np.int64), np.zeros(0)
        parts = [(none, none, none, nowhere, nowhere, nowhere)]
        for k, o in enumerate(overlaps):
            size_a = o.size_a[np.searchsorted(o.labels_a, o.ids_a)]
            size_b = o.size_b[np.searchsorted(o.labels_b, o.ids_b)]
            a, b = o.ids_a - 1 + start[k], o.ids_b - 1 + start[k + step]
            parts.append((a, b, o.count, o.count / size_a, o.count / size_b, o.count / (size_a + size_b - o.count)))
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    @property
    def containment(self) -> Floats:
        """Share of the smaller object that lies in the larger one."""
        return np.maximum(self.inside_a, self.inside_b)

    def rows(self, keep: Mask) -> Shared:
        return Shared(*(getattr(self, f.name)[keep] for f in fields(self)))

    def pairs(self, rows: Ints) -> Ints:
        return np.stack([self.a[rows], self.b[rows]], axis=1)

    def hosts(self, guest: Ints, inside: Mask) -> Ints:
        """For each object that lies inside others, the row of the one that it shares most with; ascending by guest."""
        rows = np.flatnonzero(inside)
        rows = rows[np.lexsort((rows, -self.count[rows], guest[rows]))]
        return rows[np.unique(guest[rows], return_index=True)[1]]

    def assign(self, min_iou: float, min_containment: float) -> Ints:
        """Rows of the one-to-one assignment with the largest sum of IoU, among the rows that reach a threshold."""
        rows = np.flatnonzero((self.iou >= min_iou) | (self.containment >= min_containment))
        return rows[assign(self.a[rows], self.b[rows], self.iou[rows])]


def ends_of(chain: Ints, level: Ints) -> tuple[Ints, Ints]:
    """First and last node of each chain (of several at one level, the first and the last by number)."""
    order = np.lexsort((level, chain))
    begin = np.flatnonzero(np.diff(chain[order], prepend=-1))
    return order[begin], order[np.append(begin[1:], chain.size) - 1] if chain.size else order
