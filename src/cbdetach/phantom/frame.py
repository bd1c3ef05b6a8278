"""The box of voxels that a phantom fills, in micrometres; the first voxel's centre is at 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbdetach.phantom.settings import PhantomSettings

Array = NDArray[Any]


@dataclass(frozen=True)
class Frame:
    """Where the volume begins and ends, and what lies at its two ends in z."""

    size: Array
    """(3,): edges of a voxel (dz, dy, dx)."""
    low: Array
    high: Array
    """(3,): corners of the volume, half a voxel beyond the outermost centres."""
    foil: float
    """Height of the collector's surface; `low[0]` without one."""
    top: float
    """Height at which the separator begins; `high[0]` without one."""

    @classmethod
    def of(cls, settings: PhantomSettings) -> Frame:
        """The frame of these settings."""
        size = np.array(settings.voxel_size_um)
        low, high = -0.5 * size, (np.array(settings.shape) - 0.5) * size
        return cls(size, low, high, float(low[0] + settings.collector_um), float(high[0] - settings.separator_um))

    @property
    def contact_gap(self) -> float:
        """Surfaces nearer than this touch: no volume could tell."""
        return 0.5 * float(self.size.max())

    def distance(self, points: Array) -> Array:
        """Distance of the points (N, 3) to the volume, 0 inside."""
        result: Array = np.sqrt(((points - np.clip(points, self.low, self.high)) ** 2).sum(axis=1))
        return result

    def cut(self, origin: Array, u: Array) -> tuple[Array, Array]:
        """Distances at which the rays from `origin` along u (3, N) enter and leave the volume; both 0 if they miss."""
        with np.errstate(divide="ignore"):
            a = (self.low - origin)[:, None] / u
            b = (self.high - origin)[:, None] / u
        enter = np.maximum(np.minimum(a, b).max(axis=0), 0)
        leave = np.maximum(a, b).min(axis=0)
        hit = leave > enter
        return np.where(hit, enter, 0), np.where(hit, leave, 0)
