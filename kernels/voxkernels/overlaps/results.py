"""What counting overlaps returns: the shared pixels of two images, and those of every pair of slices of a stack."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import overload

import numpy as np
import numpy.typing as npt

from .._arrays import describe, where

Ints = npt.NDArray[np.int64]
Starts = tuple[list[int], list[int], list[int]]


@dataclass(slots=True)  # frozen, it would take three times as long to make
class OverlapCounts:
    """Shared pixels of two label images. K overlapping pairs, A and B labels; background 0 is in none of them.

    ids_a, ids_b, count : (K,) int64, every pair that shares a pixel, ascending by (ids_a, ids_b).
    labels_a, size_a    : (A,) int64, every label of the first image, ascending, and its pixels.
    labels_b, size_b    : (B,) int64, the same for the second.
    """

    ids_a: Ints
    ids_b: Ints
    count: Ints
    labels_a: Ints
    size_a: Ints
    labels_b: Ints
    size_b: Ints


@dataclass(slots=True, eq=False)
class OverlapStack(Sequence[OverlapCounts]):
    """The overlaps of P pairs of slices: P `OverlapCounts`, each made when it is asked for from the arrays of all.

    rows   : these arrays, by the names of `OverlapCounts`: the elements of one pair of slices after those of another.
    starts : where each pair of slices begins in the arrays of K, of A and of B elements, and where the last one ends:
             three lists of P + 1.

    An index gives one `OverlapCounts`, whose arrays are views; a slice gives a list of them.
    """

    rows: OverlapCounts
    starts: Starts

    @classmethod
    def of(cls, parts: Iterable[OverlapCounts | OverlapStack]) -> OverlapStack:
        """One stack of all these pairs of slices. Nothing is copied of a single part, or of a stack itself."""
        if isinstance(parts, cls):
            return parts
        stacks = [cls._alone(part) if isinstance(part, OverlapCounts) else part for part in parts]
        if len(stacks) == 1:
            return stacks[0]
        if not stacks:
            return cls(OverlapCounts(*(np.empty(0, np.int64) for _ in range(7))), ([0], [0], [0]))
        with where(stacks[0].rows.ids_a):
            rows = (np.concatenate([getattr(s.rows, field.name) for s in stacks]) for field in fields(OverlapCounts))
            pairs, of_a, of_b = (_one_after_another(lists) for lists in zip(*(s.starts for s in stacks), strict=True))
            return cls(OverlapCounts(*rows), (pairs, of_a, of_b))

    @classmethod
    def _alone(cls, rows: OverlapCounts) -> OverlapStack:
        return cls(rows, ([0, rows.ids_a.size], [0, rows.labels_a.size], [0, rows.labels_b.size]))

    def __len__(self) -> int:
        return len(self.starts[0]) - 1

    @overload
    def __getitem__(self, index: int) -> OverlapCounts: ...
    @overload
    def __getitem__(self, index: slice) -> list[OverlapCounts]: ...
    def __getitem__(self, index: int | slice) -> OverlapCounts | list[OverlapCounts]:
        try:
            place = range(len(self))[index]
        except IndexError:
            n = len(self)
            raise IndexError(f"index: must be at least {-n} and below {n}; got {index}.") from None
        except TypeError:
            raise TypeError(f"index: must be an integer or a slice; got {describe(index)}.") from None
        return self._item(place) if isinstance(place, int) else [self._item(z) for z in place]

    def __iter__(self) -> Iterator[OverlapCounts]:
        return map(self._item, range(len(self)))

    def _item(self, z: int) -> OverlapCounts:
        pair, of_a, of_b = (slice(starts[z], starts[z + 1]) for starts in self.starts)
        rows = self.rows
        return OverlapCounts(
            rows.ids_a[pair],
            rows.ids_b[pair],
            rows.count[pair],
            rows.labels_a[of_a],
            rows.size_a[of_a],
            rows.labels_b[of_b],
            rows.size_b[of_b],
        )


def _one_after_another(lists: Iterable[list[int]]) -> list[int]:
    """The starts of several stacks as those of one."""
    joined = [0]
    for starts in lists:
        joined += [joined[-1] + start for start in starts[1:]]
    return joined
