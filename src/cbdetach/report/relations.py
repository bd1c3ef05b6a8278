"""What one table of particles says about detachment beside size and density: numbers for the report and `compare`.

A `Sample` is the particles used of one volume, or of several volumes of one electrode. Its spatial blocks and its
effective n go into every interval (`cbdetach.statistics`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cbdetach import statistics
from cbdetach.report.summary import BINS_PER_OCTAVE, MIN_PER_BIN, numbers, used_rows

if TYPE_CHECKING:
    from pandas import DataFrame

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """Particles that enter the statistics: not cut by the border, with a detachment. (N,) each, micrometres."""

    label: Ints
    volume: Ints  # number of the volume that the particle lies in
    position: Floats  # (N, 3)
    diameter: Floats
    detachment: Floats
    area: Floats  # the surface that the detachment is a share of
    density: Floats  # nan where unknown
    weight: Floats  # for the border

    @cached_property
    def blocks(self) -> Ints:
        """Spatial block of every particle, numbered through all volumes."""
        found, first = np.zeros(self.label.size, np.int64), 0
        for k in np.unique(self.volume):
            inside = self.volume == k
            found[inside] = first + statistics.spatial_blocks(self.position[inside])
            first = int(found[inside].max()) + 1
        return found

    @cached_property
    def correlogram(self) -> statistics.Correlogram:
        """Spatial correlation of the detachment, over all volumes."""
        return self.correlogram_of(self.detachment)

    @property
    def shared(self) -> float:
        """Mean correlation of two particles' detachment."""
        return statistics.mean_correlation(self.label.size, self.correlogram.effective_n)

    def correlogram_of(self, values: Floats) -> statistics.Correlogram:
        """Spatial correlation of a quantity: effective n added up over the volumes, the rest of the largest one."""
        found = []
        for k in np.unique(self.volume):
            i = self.volume == k
            found.append((i.sum(), statistics.correlogram(values[i], self.position[i], self.diameter[i])))
        if not found:
            return statistics.Correlogram(0.0, np.nan, np.nan, 0.0)
        largest = max(found, key=lambda pair: pair[0])[1]
        total = float(sum(c.effective_n for _, c in found))
        return statistics.Correlogram(largest.nugget, largest.length_um, largest.neighbours, total)

    def effective_pairs(self, x: Floats, y: Floats) -> float:
        """Independent pairs that a correlation of two quantities is worth."""
        total = 0.0
        for k in np.unique(self.volume):
            i = self.volume == k
            first, second = (statistics.correlogram(v[i], self.position[i], self.diameter[i]) for v in (x, y))
            total += statistics.effective_pairs(first, second, self.position[i])
        return total

    def take(self, rows: npt.NDArray[np.bool_]) -> Sample:
        """The particles of some rows."""
        return Sample(*(getattr(self, field.name)[rows] for field in fields(Sample)))

    def classes(self, edges: Floats) -> Ints:
        """Size class of every particle, 0 to K - 1; -1 below the first and K above the last edge."""
        return np.searchsorted(edges, self.diameter, side="right").astype(np.int64) - 1

    def median(self) -> statistics.Interval:
        """Median detachment with its interval."""
        return statistics.quantile_interval(self.detachment, self.blocks, effective_n=self.correlogram.effective_n)


def sample(table: DataFrame, volume: int = 0) -> Sample:
    """The particles used of one table (columns of `particles.csv`)."""
    rows = table[used_rows(table)]
    return Sample(
        label=rows["label"].to_numpy(np.int64),
        volume=np.full(len(rows), volume, np.int64),
        position=np.stack([numbers(rows, name) for name in ("z_um", "y_um", "x_um")], axis=1),
        diameter=numbers(rows, "equivalent_diameter_um"),
        detachment=numbers(rows, "detachment_fraction"),
        area=numbers(rows, "area_void_um2") + numbers(rows, "area_cbd_um2"),
        density=numbers(rows, "density_mean"),
        weight=numbers(rows, "inclusion_weight"),
    )


def joined(samples: Sequence[Sample]) -> Sample:
    """Several volumes of one electrode as one sample."""
    return Sample(*(np.concatenate([getattr(s, field.name) for s in samples]) for field in fields(Sample)))


def size_edges(diameter: Floats) -> Floats:
    """The fixed edges 2**(k / 2) micrometres that hold these diameters."""
    k = BINS_PER_OCTAVE * np.log2(diameter[diameter > 0])
    if not k.size:
        return np.array([1.0, 2.0])
    return np.asarray(2.0 ** (np.arange(np.floor(k.min()), np.floor(k.max()) + 2) / BINS_PER_OCTAVE))


def size_table(found: Sample, edges: Floats) -> DataFrame:
    """By size class: n, effective n, quartiles of detachment, interval of the median; from `MIN_PER_BIN` particles."""
    import pandas as pd

    rows = []
    shared = found.shared
    classes = found.classes(edges)
    for k in range(edges.size - 1):
        inside = classes == k
        n, values = int(inside.sum()), found.detachment[inside]
        effective = float(statistics.effective_part(n, shared))
        if n < MIN_PER_BIN:
            rows.append((edges[k], edges[k + 1], n, effective, *[np.nan] * 5))
            continue
        median = statistics.quantile_interval(values, found.blocks[inside], effective_n=effective)
        q1, q3 = np.quantile(values, (0.25, 0.75))
        rows.append((edges[k], edges[k + 1], n, effective, q1, median.value, q3, median.low, median.high))
    return pd.DataFrame(
        rows, columns=["from_um", "to_um", "n", "n_effective", "q1", "median", "q3", "median_low", "median_high"]
    )


def spread_table(found: Sample, edges: Floats, *, seed: int = 0) -> DataFrame:
    """By size class: standard deviation of detachment, beside what the random-patch null expects (with its limits)."""
    import pandas as pd

    null = statistics.patch_null(
        found.detachment,
        found.area,
        found.classes(edges),
        edges.size - 1,
        least=MIN_PER_BIN,
        shared=found.shared,
        seed=seed,
    )
    return pd.DataFrame(
        {
            "from_um": edges[:-1],
            "to_um": edges[1:],
            "n": null.n,
            "sd": null.observed,
            "sd_null": null.expected,
            "null_low": null.low,
            "null_high": null.high,
            "p_holm": null.p,
            "patch_um2": null.patch_um2,
        }
    )


CORRELATIONS = (
    ("pearson", False, False),
    ("spearman", True, False),
    ("pearson, same size", False, True),
    ("spearman, same size", True, True),
)
"""Name, whether of ranks, whether partial on the logarithm of the diameter."""


def correlation_table(found: Sample) -> DataFrame:
    """Correlations of detachment with volume and with density over the particles, with intervals."""
    import pandas as pd

    rows = []
    log_size = np.log(np.maximum(found.diameter, 1e-12))
    known = np.isfinite(found.density)
    pairs = [("log volume", found, log_size), ("density", found.take(known), found.density[known])]
    for name, part, x in pairs:
        n = part.label.size
        effective = part.effective_pairs(x, part.detachment) if n >= MIN_PER_BIN else float(n)
        for kind, ranks, partial in CORRELATIONS if name == "density" else CORRELATIONS[:2]:
            given = np.log(np.maximum(part.diameter, 1e-12)) if partial else None
            if n < MIN_PER_BIN:
                continue
            r = statistics.correlation_interval(
                x, part.detachment, part.blocks, given=given, ranks=ranks, effective_n=effective
            )
            rows.append((name, kind, n, effective, r.value, r.low, r.high))
    return pd.DataFrame(rows, columns=["with", "kind", "n", "n_effective", "r", "r_low", "r_high"])


def erosion_table(found: Sample, densities: Sequence[DataFrame]) -> DataFrame:
    """Correlation of density with detachment by erosion depth, over the same particles at every depth.

    `densities` : for each volume the columns label, erosion_um, density_mean. Depths that all volumes have count.
    Particles enter that have a density at the deepest, so that only the depth changes; depths at which fewer than half
    of the particles have one are left out, but three stay.
    """
    import pandas as pd

    columns = ["erosion_um", "n", "r", "r_low", "r_high", "r_same_size"]
    depths = [set(np.round(numbers(frame, "erosion_um"), 9)) for frame in densities]
    shared = sorted(set.intersection(*depths)) if depths else []
    means = np.full((len(shared), found.label.size), np.nan)
    for volume, frame in zip(np.unique(found.volume), densities, strict=False):
        rows = np.flatnonzero(found.volume == volume)
        depth = np.round(numbers(frame, "erosion_um"), 9)
        for k, wanted in enumerate(shared):
            part = frame[depth == wanted]
            value = dict(zip(part["label"].tolist(), numbers(part, "density_mean").tolist(), strict=True))
            means[k, rows] = [value.get(int(label), np.nan) for label in found.label[rows]]
    known = np.isfinite(means).all(axis=0) if shared else np.zeros(found.label.size, bool)
    while len(shared) > 3 and known.sum() < max(MIN_PER_BIN, 0.5 * np.isfinite(means[0]).sum()):
        shared, means = shared[:-1], means[:-1]
        known = np.isfinite(means).all(axis=0)
    part = found.take(known)
    if part.label.size < MIN_PER_BIN:
        return pd.DataFrame([], columns=columns)
    log_size = np.log(np.maximum(part.diameter, 1e-12))
    rows_out = []
    for k, depth_um in enumerate(shared):
        x = means[k, known]
        effective = part.effective_pairs(x, part.detachment)
        r = statistics.correlation_interval(x, part.detachment, part.blocks, effective_n=effective)
        same = statistics.correlation(x, part.detachment, given=log_size)
        rows_out.append((depth_um, part.label.size, r.value, r.low, r.high, same))
    return pd.DataFrame(rows_out, columns=columns)


def area_weighted_total(table: DataFrame) -> float:
    """Detachment of the electrode as a whole: all void area by all void and carbon/binder area, cut particles too."""
    void, cbd = numbers(table, "area_void_um2"), numbers(table, "area_cbd_um2")
    whole = np.nansum(void) + np.nansum(cbd)
    return float(np.nansum(void) / whole) if whole > 0 else np.nan
