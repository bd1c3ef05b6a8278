"""Slices with hand-drawn or known particles: the common type of training and evaluation. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


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
