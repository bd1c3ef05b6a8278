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
    """The overlaps of P pairs of slices: P `OverlapCounts`, each made when it is asked for from the arrays of many.

    parts  : arrays by the names of `OverlapCounts`, those of one pair of slices after those of another, and where each
             begins in them (`starts`), of the first pairs of slices, of the next, ...: mostly there is one part.
    rows   : the arrays of all pairs of slices. Where there are several parts they are joined now, which copies them.
    starts : where each pair of slices begins in the arrays of K, of A and of B elements, and where the last one ends:
             three lists of P + 1.

    An index gives one `OverlapCounts`, whose arrays are views; a slice gives a list of them.
    """

    parts: list[tuple[OverlapCounts, Starts]]

    @classmethod
    def of(cls, parts: Iterable[OverlapCounts | OverlapStack]) -> OverlapStack:
        """One stack of all these pairs of slices. Nothing is copied."""
        found = cls([])
        for part in [parts] if isinstance(parts, cls) else parts:
            if isinstance(part, OverlapCounts):
                sizes = part.ids_a.size, part.labels_a.size, part.labels_b.size
                found.parts.append((part, ([0, sizes[0]], [0, sizes[1]], [0, sizes[2]])))
            else:
                found.parts += part.parts
        return found

    @property
    def rows(self) -> OverlapCounts:
        return self._whole()[0]

    @property
    def starts(self) -> Starts:
        return self._whole()[1]

    def __len__(self) -> int:
        return sum(len(pairs) - 1 for _, (pairs, _, _) in self.parts)

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
        for part in self.parts:
            for z in range(len(part[1][0]) - 1):
                yield _cut(*part, z)

    def _item(self, z: int) -> OverlapCounts:
        for part in self.parts:
            n = len(part[1][0]) - 1
            if z < n:
                return _cut(*part, z)
            z -= n
        raise AssertionError("the index has been checked")

    def _whole(self) -> tuple[OverlapCounts, Starts]:
        if not self.parts:
            return OverlapCounts(*(np.empty(0, np.int64) for _ in range(7))), ([0], [0], [0])
        if len(self.parts) > 1:
            with where(self.parts[0][0].ids_a):
                names = [field.name for field in fields(OverlapCounts)]
                rows = [np.concatenate([getattr(part, name) for part, _ in self.parts]) for name in names]
            pairs, of_a, of_b = (_one_after_another(lists) for lists in zip(*(s for _, s in self.parts), strict=True))
            self.parts = [(OverlapCounts(*rows), (pairs, of_a, of_b))]
        return self.parts[0]


def _cut(rows: OverlapCounts, starts: Starts, z: int) -> OverlapCounts:
    """What pair of slices z of a part has of its arrays."""
    pair, of_a, of_b = (slice(places[z], places[z + 1]) for places in starts)
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
    """The starts of several parts as those of one."""
    joined = [0]
    for starts in lists:
        joined += [joined[-1] + start for start in starts[1:]]
    return joined
