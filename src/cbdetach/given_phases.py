"""Phases that a person has segmented: values of a volume to phase codes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cbdetach.codes import PHASE_CODES
from cbdetach.errors import InputError


def map_phases(volume: ArrayLike, mapping: Mapping[str, int]) -> NDArray[np.uint8]:
    """Phase codes of a volume that a person has segmented: ``{"void": 0, "active": 1, "cbd": 2}`` names its values.

    volume (Z, Y, X) integer or bool; names as in codes.PHASE_CODES; every value in the volume must be named.
    """
    image = np.asarray(volume)
    if image.dtype.kind not in "uib":
        raise InputError(
            f"phases: must be a volume of integers; got {image.dtype}. Convert it, or give it as the grey VOLUME."
        )
    unknown = [name for name in mapping if name not in PHASE_CODES]
    if unknown:
        raise InputError(f"phase values: names must be of {', '.join(PHASE_CODES)}; got {', '.join(unknown)}.")
    if not any(PHASE_CODES[name] in (PHASE_CODES["active"], PHASE_CODES["active_high"]) for name in mapping):
        raise InputError(
            f"phase values: must name the active phase; got {', '.join(mapping) or 'none'}. Add active=VALUE."
        )
    if len(set(mapping.values())) < len(mapping):
        raise InputError(f"phase values: must give each value one name; got {_spell(mapping)}.")
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
            f"phase values: must name every value in the volume; got {_spell(mapping)}, but it also holds {shown}."
        )
    return result


def _spell(mapping: Mapping[str, int]) -> str:
    return ",".join(f"{name}={value}" for name, value in mapping.items())
