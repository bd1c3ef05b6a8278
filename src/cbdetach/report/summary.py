"""The few numbers that stand for a whole run: who was counted, and the quartiles of those who were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from pandas import DataFrame

BINS_PER_OCTAVE = 2
"""Size classes: edges at 2**(k / 2) micrometres, k integer. Fixed beforehand, so all runs share them."""

MIN_PER_BIN = 10
"""A size class with fewer particles shows its count and no median."""


@dataclass(frozen=True)
class Quartiles:
    """Lower quartile, median, upper quartile of `n` values; all nan where n is 0."""

    q1: float
    median: float
    q3: float
    n: int


@dataclass(frozen=True)
class Summary:
    """Counts of particles, and quartiles over those used. found = cut + unknown + used.

    cut: touch the volume's border. no_contact: whole, without contact to carbon/binder. unknown: whole, without a
    detachment. used: whole, with a detachment. reached: used, with a diffusion length.
    """

    found: int
    cut: int
    no_contact: int
    unknown: int
    used: int
    reached: int
    detachment: Quartiles
    detachment_weighted: Quartiles
    diameter_um: Quartiles
    length_um: Quartiles


def used_rows(table: DataFrame) -> NDArray[np.bool_]:
    """Rows that enter the statistics: not cut by the border, with a detachment."""
    return ~_cut(table) & np.isfinite(numbers(table, "detachment_fraction"))


def summarise(table: DataFrame) -> Summary:
    """The headline of a table of particles (columns of `particles.csv`)."""
    cut, used = _cut(table), used_rows(table)
    length = numbers(table, "diffusion_length_mean_um")
    reached = used & np.isfinite(length)
    no_contact = (table["diffusion_status"].astype("string").fillna("") == "no_contact").to_numpy(dtype=bool)
    detachment = numbers(table, "detachment_fraction")[used]
    return Summary(
        found=len(table),
        cut=int(cut.sum()),
        no_contact=int((~cut & no_contact).sum()),
        unknown=int((~cut & ~used).sum()),
        used=int(used.sum()),
        reached=int(reached.sum()),
        detachment=quartiles(detachment),
        detachment_weighted=quartiles(detachment, numbers(table, "inclusion_weight")[used]),
        diameter_um=quartiles(numbers(table, "equivalent_diameter_um")[~cut]),
        length_um=quartiles(length[reached]),
    )


def numbers(table: DataFrame, column: str) -> NDArray[np.float64]:
    """A column as float64, nan where empty."""
    return table[column].to_numpy(dtype=np.float64, na_value=np.nan)


def quartiles(values: ArrayLike, weights: ArrayLike | None = None) -> Quartiles:
    """Quartiles of the finite values; those with a weight that is not positive and finite are left out."""
    values = np.asarray(values, dtype=np.float64)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, dtype=np.float64)
    keep = np.isfinite(values) & np.isfinite(weights) & (weights > 0)
    q1, median, q3 = weighted_quantile(values[keep], weights[keep], (0.25, 0.5, 0.75))
    return Quartiles(float(q1), float(median), float(q3), int(keep.sum()))


def weighted_quantile(values: NDArray[np.float64], weights: NDArray[np.float64], q: ArrayLike) -> NDArray[np.float64]:
    """Quantiles of values with positive weights; with equal weights those of `numpy.quantile`. Empty input gives nan.

    Akinshin, Weighted quantile estimators, arXiv:2304.07265 (2023), type 7: the mean of the values over a window of the
    cumulative weight that is one effective sample wide; effective number: (sum w)^2 / sum w^2 (Kish).
    """
    q = np.asarray(q, dtype=np.float64)
    if values.size == 0:
        return np.full(q.shape, np.nan)
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    effective = weights.sum() ** 2 / (weights**2).sum()
    start = (effective - 1) * q
    cumulative = np.concatenate([[0.0], np.cumsum(weights) / weights.sum()])
    covered = np.clip(cumulative * effective - start[..., None], 0, 1)
    return np.asarray(np.diff(covered, axis=-1) @ values)


def size_classes(diameter_um: NDArray[np.float64], values: NDArray[np.float64]) -> DataFrame:
    """Median and quartiles of `values` by size class (columns from_um, to_um, n, q1, median, q3).

    Classes lie between the fixed edges 2**(k / 2) um; quartiles are nan where fewer than `MIN_PER_BIN` particles fall.
    """
    import pandas as pd

    keep = np.isfinite(diameter_um) & np.isfinite(values) & (diameter_um > 0)
    k = np.floor(BINS_PER_OCTAVE * np.log2(diameter_um[keep])).astype(np.int64)
    rows = []
    for edge in range(k.min(), k.max() + 1) if k.size else ():
        inside = values[keep][k == edge]
        enough = inside if inside.size >= MIN_PER_BIN else inside[:0]
        q1, median, q3 = weighted_quantile(enough, np.ones_like(enough), (0.25, 0.5, 0.75))
        rows.append((2 ** (edge / BINS_PER_OCTAVE), 2 ** ((edge + 1) / BINS_PER_OCTAVE), inside.size, q1, median, q3))
    return pd.DataFrame(rows, columns=["from_um", "to_um", "n", "q1", "median", "q3"])


def _cut(table: DataFrame) -> NDArray[np.bool_]:
    return table["touches_border"].to_numpy(dtype=bool)
