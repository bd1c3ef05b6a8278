"""Statistics of particles that are not independent, and of electrodes, which are the unit of every test.

Neighbouring particles resemble each other, so that n particles tell less than n independent ones would. Intervals of
one volume therefore come from spatial blocks: the volume is cut into a few large boxes, every box counts as one
observation, and the quantiles are Student's with one degree of freedom less than there are boxes (Bester, Conley and
Hansen, J. Econometrics 165, 137 (2011)). Boxes resemble each other, too, where the correlation reaches far; so the
standard error is never less than that of the effective n, which a variogram gives. Between electrodes the electrode is
the unit: its particles give one number, and the labels of electrodes are permuted. Every function works on plain
arrays; N particles, E electrodes, K classes. Measured coverage: docs/statistics.md.
"""

from cbdetach.statistics.groups import FITTED_FROM, MAX_PERMUTATIONS, Permuted, holm, permutation_test, smallest_p
from cbdetach.statistics.patches import PatchNull, patch_null
from cbdetach.statistics.peaks import FWHM, Peak, peak_of
from cbdetach.statistics.space import (
    BLOCKS,
    LEVEL,
    PAIRED,
    PER_BLOCK,
    Correlogram,
    Interval,
    correlation,
    correlation_interval,
    correlogram,
    effective_pairs,
    effective_part,
    mean_correlation,
    neighbour_correlation,
    quantile_interval,
    spatial_blocks,
)

__all__ = [
    "BLOCKS",
    "FITTED_FROM",
    "FWHM",
    "LEVEL",
    "MAX_PERMUTATIONS",
    "PAIRED",
    "PER_BLOCK",
    "Correlogram",
    "Interval",
    "PatchNull",
    "Peak",
    "Permuted",
    "correlation",
    "correlation_interval",
    "correlogram",
    "effective_pairs",
    "effective_part",
    "holm",
    "mean_correlation",
    "neighbour_correlation",
    "patch_null",
    "peak_of",
    "permutation_test",
    "quantile_interval",
    "smallest_p",
    "spatial_blocks",
]
