"""Labels that the user gives: checked, never altered."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach.errors import InputError


def check_label_type(dtype: np.dtype[Any]) -> None:
    """InputError unless values of this type can be labels."""
    if dtype.kind not in "iu":
        raise InputError(f"--labels: must be of an integer type; got {dtype}. Convert them with .astype(numpy.int32).")


def check_labels(labels: npt.NDArray[Any]) -> None:
    """InputError unless a label volume, or a part of it, is of integers and none is negative; 0 is background."""
    check_label_type(labels.dtype)
    lowest = int(labels.min(initial=0))
    if lowest < 0:
        raise InputError(f"--labels: must not hold negative values; got a minimum of {lowest}. 0 is the background.")
