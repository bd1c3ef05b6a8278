"""Labels that the user gives: checked, never altered."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError


def check_labels(labels: npt.NDArray[Any], shape: tuple[int, ...] | None = None) -> bool:
    """Check a label volume, or one slab of it, and say whether it holds any particle.

    Parameters
    ----------
    labels : (Z, Y, X) of any integer type, 0 is background.
    shape : the shape that it must have, where another volume sets one.

    Raises
    ------
    InputError : not integer, negative, not three-dimensional, or of another shape.
    """
    if labels.dtype.kind not in "iu":
        raise InputError(
            f"labels: must be of an integer type; got {labels.dtype}. Convert them with .astype(numpy.int32)."
        )
    if labels.ndim != 3:
        raise InputError(f"labels: must be three-dimensional (Z, Y, X); got shape {labels.shape}.")
    if shape is not None and labels.shape != tuple(shape):
        raise InputError(
            f"labels: must have the shape of the volume, {tuple(shape)}; got {labels.shape}. "
            "Both must be cut from the same scan."
        )
    lowest = int(labels.min(initial=0))
    if lowest < 0:
        raise InputError(f"labels: must not hold negative values; got a minimum of {lowest}. 0 is the background.")
    return bool(np.any(labels))


def require_particles(found: bool) -> None:
    """Refuse labels of which no slab held a particle."""
    if not found:
        raise InputError("labels: no particle found, every voxel is 0. Give labels that number the particles from 1.")
