"""Voxel sizes in micrometres: from the names of units that files use, and from what people write."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cbdetach.errors import InputError

VoxelSize = tuple[float, float, float]

UNIT_UM: dict[str, float] = {
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1e6),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 1e4),
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1e3),
    **dict.fromkeys(("um", "micron", "microns", "micrometer", "micrometers", "micrometre", "micrometres"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres"), 1e-3),
    **dict.fromkeys(("a", "å", "angstrom", "angstroms", "ångström"), 1e-4),
    **dict.fromkeys(("pm", "picometer", "picometers", "picometre", "picometres"), 1e-6),
    **dict.fromkeys(("in", "inch", "inches"), 25400.0),
}
"""Micrometres per unit of length, by the names that files use. Anything else, such as `pixel`, is no length."""


def parse_voxel_size(value: float | str | Sequence[float]) -> VoxelSize:
    """Read a voxel size in micrometres: one number, or three (z, y, x), also as text `0.4` or `0.5,0.4,0.4`."""
    try:
        parts: list[Any] = value.split(",") if isinstance(value, str) else list(np.atleast_1d(np.asarray(value)))
        numbers = [float(part) for part in parts]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) not in (1, 3) or not all(math.isfinite(n) and n > 0 for n in numbers):
        raise InputError(
            "--voxel-size: must be one positive number or three (z,y,x), in micrometres; "
            f"got {value!r}. Write for example 0.4 or 0.5,0.4,0.4."
        )
    dz, dy, dx = numbers if len(numbers) == 3 else numbers * 3
    return dz, dy, dx


def voxel_size_um(sizes: Sequence[Any], units: Sequence[Any]) -> VoxelSize | None:
    """Three lengths with their units in micrometres; None unless all are positive lengths."""
    values = []
    for size, unit in zip(sizes, units, strict=True):
        try:
            values.append(float(size) * UNIT_UM[_plain_unit(unit)])
        except (KeyError, TypeError, ValueError):
            return None
    if len(values) != 3 or not all(math.isfinite(v) and v > 0 for v in values):
        return None
    return values[0], values[1], values[2]


def _plain_unit(unit: Any) -> str:
    """A unit's name in lower case, the micro sign (in any of the ways files spell it) as u."""
    text = unit.decode("utf-8", "replace") if isinstance(unit, bytes) else str(unit)
    for micro in ("\\u00b5", "\\u00B5", "\\u03bc", "Âµ", "µ", "μ"):
        text = text.replace(micro, "u")
    return text.strip().lower()
