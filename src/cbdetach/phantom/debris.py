"""Fragments between the particles: small ellipsoids of active material in clusters, without a label."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log, pi
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbdetach.phantom.bodies import Bodies, ellipsoids
from cbdetach.phantom.frame import Frame
from cbdetach.phantom.settings import PhantomSettings
from cbdetach.phantom.vectors import directions, rotations

Array = NDArray[Any]


@dataclass(frozen=True)
class Debris:
    """The fragments, anywhere in and just around the volume; where a particle lies, the particle wins."""

    centre: Array
    """(n, 3) micrometres."""
    bodies: Bodies
    level: Array
    """(n,): grey levels."""

    @property
    def reach(self) -> Array:
        """(n,): no point of a fragment is further from its centre."""
        return 1.8 * self.bodies.radius

    def __len__(self) -> int:
        return len(self.level)


def draw_debris(settings: PhantomSettings, frame: Frame) -> Debris:
    """Fragments that take `settings.debris` of the space between collector and separator."""
    s, rng = settings, settings.rng("debris")
    low, high = frame.low.copy(), frame.high.copy()
    low[0], high[0] = frame.foil, frame.top
    typical = 0.5 * s.diameter_median_um
    space = s.debris * float(np.prod(high - low))
    radius = typical * np.exp(rng.uniform(log(0.1), log(0.33), ceil(space / (4 / 3 * pi * (0.1 * typical) ** 3))))
    radius = radius[: int(np.searchsorted(np.cumsum(4 / 3 * pi * radius**3), space))]
    n = len(radius)
    cluster = rng.integers(0, max(1, n // 5), n)
    centre = (low + rng.random((n, 3)) * (high - low))[cluster] if n else np.zeros((0, 3))
    centre = centre + typical * 0.35 * rng.standard_normal((n, 3))
    level = s.grey_active - 0.25 * s.contrast * rng.random(n)
    quadric = ellipsoids(rotations(rng, n), np.exp(0.7 * rng.uniform(-1, 1, (n, 3))))
    wave, phase = directions(rng, (n, 3)) * rng.uniform(2, 5, (n, 3, 1)), rng.uniform(0, 2 * pi, (n, 3))
    no_lumps = np.zeros((n, 0, 3)), np.zeros((n, 0)), np.zeros(n)
    return Debris(centre, Bodies(radius, quadric, wave, phase, np.full(n, 0.12), *no_lumps), level)
