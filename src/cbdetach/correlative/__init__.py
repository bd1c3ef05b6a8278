"""Correlative imaging: a particle's tomogram beside a map from spectro-microscopy (DEFINITIONS; Suppl. Figs. 6 and 7).

The particle is projected along a direction: thickness, and density divided by thickness (`projection.py`). The
projection is turned, scaled and shifted until it tells most about the map (`registration.py`), and the two are
correlated pixel by pixel in their common mask. Neighbouring pixels are no independent samples: the interval of the
correlation comes from blocks of pixels (`correlation.py`).

Images are (rows, columns), nan outside the particle; lengths are micrometres, angles degrees.
"""

from cbdetach.correlative.correlation import Correlation, common_pairs, correlate, pearson
from cbdetach.correlative.projection import Projection, project, view_axes
from cbdetach.correlative.registration import Registration, agreement, register, resample

__all__ = [
    "Correlation",
    "Projection",
    "Registration",
    "agreement",
    "common_pairs",
    "correlate",
    "pearson",
    "project",
    "register",
    "resample",
    "view_axes",
]
