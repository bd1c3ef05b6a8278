"""Phases that a person has segmented: values of a volume to phase codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cbdetach.codes import ACTIVE, ACTIVE_HIGH, PHASE_CODES
from cbdetach.errors import InputError

OF_PARTICLES = {name for name, code in PHASE_CODES.items() if code in (ACTIVE, ACTIVE_HIGH)}
"""Names of active material."""


def check_phase_values(mapping: Mapping[str, int]) -> None:
    """InputError unless every name is that of a phase, active material is among them, and no value has two names."""
    check_phase_names(mapping)
    if not OF_PARTICLES & set(mapping):
        raise InputError(
            f"--phase-values: must name the active phase; got {', '.join(mapping) or 'none'}. Add active=VALUE."
        )
    if len(set(mapping.values())) < len(mapping):
        raise InputError(f"--phase-values: must give each value one name; got {_spell(mapping)}.")


def check_phase_names(mapping: Mapping[str, int]) -> None:
    """InputError unless every name is that of a phase."""
    unknown = [name for name in mapping if name not in PHASE_CODES]
    if unknown:
        raise InputError(f"--phase-values: names must be of {', '.join(PHASE_CODES)}; got {', '.join(unknown)}.")


def check_phase_type(dtype: np.dtype[Any]) -> None:
    """InputError unless values of this type can be phases."""
    if dtype.kind not in "uib":
        raise InputError(f"--phases: must be a volume of integers; got {dtype}. Convert it, or give it as VOLUME.")


def map_phases(volume: ArrayLike, mapping: Mapping[str, int]) -> NDArray[np.uint8]:
    """Phase codes of a volume that a person has segmented: ``{"void": 0, "active": 1, "cbd": 2}`` names its values.

    volume (Z, Y, X) integer or bool; names as in codes.PHASE_CODES; every value in the volume must be named.
    """
    image = np.asarray(volume)
    check_phase_type(image.dtype)
    check_phase_values(mapping)
    if image.dtype.kind == "b":
        image = image.view(np.uint8)
    if image.size == 0:
        return np.zeros(image.shape, np.uint8)
    low, high = int(image.min()), int(image.max())
    if high - low < 65536:
        table = np.full(high - low + 1, 255, np.uint8)
        for name, value in mapping.items():
            if low <= value <= high:
                table[value - low] = PHASE_CODES[name]
        result = table[image.astype(np.int64) - low] if low else table[image]
    else:
        result = np.full(image.shape, 255, np.uint8)
        for name, value in mapping.items():
            result[image == value] = PHASE_CODES[name]
    if (result == 255).any():
        values = np.unique(image[result == 255])
        shown = ", ".join(str(x) for x in values[:8]) + (", ..." if values.size > 8 else "")
        raise InputError(
            f"--phase-values: must name every value in the volume; got {_spell(mapping)}, but it also holds {shown}."
        )
    return result


def _spell(mapping: Mapping[str, int]) -> str:
    return ",".join(f"{name}={value}" for name, value in mapping.items())
