"""A slice with its particles, and the split of many into those to learn from and those held out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach.errors import InputError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LabelledSlice:
    """A grey slice and its particles.

    Attributes:
        name: for people: the file or the scene.
        volume: what slices are split by: slices of one volume never land on both sides of a split.
        image: (Y, X), any real dtype: grey levels as stored.
        labels: (Y, X) int32: 0 outside, 1..n inside the particles, every label present.
        ignore: (Y, X) bool, or None: where a missing or an extra particle is neither right nor wrong.
    """

    name: str
    volume: str
    image: npt.NDArray[Any]
    labels: npt.NDArray[np.int32]
    ignore: npt.NDArray[np.bool_] | None = None


def split(
    slices: Sequence[LabelledSlice], *, validation: int = 66, training: int = 155, seed: int = 0
) -> tuple[list[LabelledSlice], list[LabelledSlice]]:
    """Slices to learn from and slices held out, in the proportion `training` to `validation` (Suppl. Note 1).

    Of several volumes, whole volumes are held out: those whose number of slices comes closest to the proportion. Of one
    volume, slices are. Both lists are in the order given; the same arguments give the same split.

    Raises
    ------
    InputError : `training` below 1, `validation` below 0, or fewer than two slices where some are to be held out.
    """
    for name, value, least in (("training", training, 1), ("validation", validation, 0)):
        if value < least:
            raise InputError(f"{name}: must be {least} or more; got {value}.")
    n = len(slices)
    if n < 1 + (validation > 0):
        raise InputError(
            f"annotations: {n} labelled slice{'' if n == 1 else 's'} cannot be split {training} to {validation}; "
            "label at least two, or hold none out (validation = 0)."
        )
    if validation == 0:
        return list(slices), []
    wanted = min(max(round(n * validation / (training + validation)), 1), n - 1)
    volumes: dict[str, list[int]] = {}
    for i, piece in enumerate(slices):
        volumes.setdefault(piece.volume, []).append(i)
    rng = np.random.default_rng(seed)
    if len(volumes) == 1:
        held = set(rng.permutation(n)[:wanted].tolist())
    else:
        held = _whole([volumes[name] for name in rng.permutation(sorted(volumes))], wanted)
        if abs(len(held) - wanted) > max(1, 0.25 * wanted):
            _log.warning("whole volumes are held out: %d of %d slices instead of %d", len(held), n, wanted)
    return [s for i, s in enumerate(slices) if i not in held], [s for i, s in enumerate(slices) if i in held]


def _whole(groups: list[list[int]], wanted: int) -> set[int]:
    """The members of some of the groups, not all, as close to `wanted` in number as can be."""
    way: dict[int, tuple[int, int]] = {0: (0, -1)}  # number that can be reached: from which number, by which group
    for g, group in enumerate(groups):
        for number in list(way):
            way.setdefault(number + len(group), (number, g))
    total = sum(map(len, groups))
    number = min((m for m in way if 0 < m < total), key=lambda m: (abs(m - wanted), m))
    held: set[int] = set()
    while number:
        number, g = way[number]
        held.update(groups[g])
    return held
