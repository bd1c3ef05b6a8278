"""Slices of a volume, one by one: instances from the network or the watershed, with what is to be counted about them.

Any slicing will do, along z, y or x; pixels need not be square.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .fit import fit_to_phase
from .scaling import section_diameter
from .watershed import Labels, Mask

Array = npt.NDArray[Any]


class Instances(Protocol):
    """Score of each of a slice's instances 1..n, and counts."""

    @property
    def scores(self) -> npt.NDArray[np.floating[Any]]: ...
    @property
    def counts(self) -> dict[str, int]: ...


class Network(Protocol):
    """A loaded model: `cbdetach.segment.maskrcnn.Segmenter`, or what stands in for it."""

    def label_slices(
        self,
        images: Iterable[Array],
        *,
        levels: tuple[float, float] | None,
        diameter_px: tuple[float, float],
        threshold: float | None,
    ) -> Iterator[tuple[Labels, Instances]]: ...


@dataclass(frozen=True, eq=False)
class Sections:
    """One slice: (Y, X) int32 labels, the score of each number 1..n (nan: it has none), and counts for the record."""

    labels: Labels
    scores: npt.NDArray[np.float64]
    counts: dict[str, int] = field(default_factory=dict)


def network_sections(
    network: Network,
    images: Array,
    active: Mask,
    *,
    spacing: tuple[float, float],
    levels: tuple[float, float],
    diameter_um: float,
    score: float | None = None,
    **fit: Any,
) -> Iterator[Sections]:
    """Instances of the network, fitted to the active phase.

    Parameters
    ----------
    images, active : (Z, Y, X) the slices, of any real type, and their active material, bool.
    spacing : pixel size (dy, dx), um.
    levels : grey of matrix and of particles, one scale for the whole volume.
    diameter_um : typical diameter of a section.
    score : least score of a detection; None as the model says.
    fit : options of `fit_to_phase`.
    """
    diameter_px = (diameter_um / spacing[0], diameter_um / spacing[1])
    found = network.label_slices(images, levels=levels, diameter_px=diameter_px, threshold=score)
    for (labels, instances), mask in zip(found, active, strict=True):
        fitted = fit_to_phase(labels, mask, spacing=spacing, **fit)
        known = len(instances.scores)
        scores = np.full(max(int(fitted.max(initial=0)), known), np.nan)
        scores[:known] = instances.scores
        added = scores.size - known
        yield Sections(fitted, scores[: int(fitted.max(initial=0))], instances.counts | {"added": added})


def watershed_sections(active: Mask, split: Callable[[Mask], Labels]) -> Iterator[Sections]:
    """Sections of the watershed, which `split` does on each slice of `active` (Z, Y, X) bool; they have no score."""
    for image in active:
        labels = split(image)
        yield Sections(labels, np.full(int(labels.max(initial=0)), np.nan))


def summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The counts of several slices together."""
    total: dict[str, int] = {}
    for share in counts:
        for name, n in share.items():
            total[name] = total.get(name, 0) + n
    return total


def mean_scores(
    particles: Sequence[npt.NDArray[Any]], scores: Sequence[npt.NDArray[np.float64]]
) -> npt.NDArray[np.float64]:
    """(N + 1,) mean score of the sections of particles 0..N; nan where none has one.

    `particles` and `scores` hold, for every slice, the particle and the score of its sections 1..n.
    """
    ids = np.concatenate([np.zeros(1, np.int64), *particles]).astype(np.int64)
    values = np.concatenate([np.full(1, np.nan), *scores])
    known = np.isfinite(values)
    n = int(ids.max()) + 1
    count = np.bincount(ids[known], minlength=n)
    total = np.bincount(ids[known], weights=values[known], minlength=n)
    return np.asarray(np.divide(total, count, out=np.full(n, np.nan), where=count > 0))


def typical_diameter(slices: Iterable[Labels]) -> float:
    """Area-weighted median of the diameters of all sections of some labelled slices, pixels; 0 without any."""
    numbered, highest = [np.zeros(1, np.int64)], 0
    for labels in slices:
        numbered.append(np.where(labels > 0, labels.astype(np.int64) + highest, 0).ravel())
        highest = max(highest, int(numbered[-1].max(initial=0)))
    return section_diameter(np.concatenate(numbered))
