"""Options written as text: a crop, a direction, a range."""

from __future__ import annotations

import math
import re

from cbdetach.errors import InputError

Box = tuple[slice, slice, slice]


def parse_crop(text: str) -> Box:
    """Read `z0:z1,y0:y1,x0:x1`; an empty end means the volume's end."""
    parts = [re.fullmatch(r"\s*(-?\d*)\s*:\s*(-?\d*)\s*", part) for part in text.split(",")]
    ends = [[int(end) if end else None for end in part.groups()] for part in parts if part and "-" not in part.groups()]
    if len(parts) != 3 or len(ends) != 3:
        raise InputError(
            f"--crop: must be z0:z1,y0:y1,x0:x1 in voxels, where any end may be empty; got {text!r}. "
            "Write for example 0:100,:,50:-50."
        )
    return slice(*ends[0]), slice(*ends[1]), slice(*ends[2])


def parse_direction(text: str) -> tuple[float, float, float]:
    """Read a direction: `z`, `y` or `x`, or three numbers `z,y,x`, finite and not all 0."""
    known = {"z": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "x": (0.0, 0.0, 1.0)}
    if text in known:
        return known[text]
    try:
        z, y, x = (float(part) for part in text.split(","))
    except ValueError:
        z = y = x = 0.0
    if not (math.isfinite(z + y + x) and (z, y, x) != (0, 0, 0)):
        raise InputError(f"--direction: must be z, y, x or three numbers z,y,x, not all 0; got {text!r}.")
    return z, y, x


def parse_range(text: str, option: str) -> tuple[float, float]:
    """Read `LOW,HIGH`: two finite numbers, the first not above the second."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low, high = 1.0, 0.0
    if not (math.isfinite(low + high) and low <= high):
        raise InputError(f"{option}: must be LOW,HIGH, two numbers, LOW not above HIGH; got {text!r}.")
    return low, high
