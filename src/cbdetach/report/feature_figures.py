"""One chart of the features: which of them go with detachment, each with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cbdetach import statistics
from cbdetach.report import relations, style
from cbdetach.report.drawing import Drawing, new_figure
from cbdetach.report.summary import MIN_PER_BIN, numbers, used_rows

if TYPE_CHECKING:
    from pandas import DataFrame

    from cbdetach.report import ReportInput

GROUPS = {
    "size and shape": ("volume_um3", "volume_surface_ratio", "sphericity", "elongation", "pitch_deg"),
    "surfaces and damage": (
        "surface_inner_um2",
        "smoothed_area_ratio_outer",
        "smoothed_area_ratio_inner",
        "crack_fraction",
    ),
    "density": ("density_mean", "density_std"),
    "contacts": ("coordination_number", "particle_contact_fraction"),
    "neighbourhood": (
        "packing_fraction",
        "nearest_distance_um",
        "nearest6_distance_um",
        "nearest6_volume_std_um3",
        "nearest6_elongation_std",
        "nearest6_sphericity_std",
        "nearest6_orientation_isotropy",
    ),
    "place": ("z_um", "y_um", "x_um"),
}
"""Features that are drawn. Left out: the surface that faces carbon/binder, of which the detachment is made itself."""


def feature_correlations(run: ReportInput) -> DataFrame:
    """Spearman's correlation of each feature with detachment over the particles used, with intervals.

    A feature known of fewer than `MIN_PER_BIN` particles, or one that does not vary, has n alone.
    """
    import pandas as pd

    found = relations.sample(run.table)
    assert run.features is not None
    used = run.features[used_rows(run.table)]
    rows = []
    for group, names in GROUPS.items():
        for name in names:
            value = numbers(used, name)
            known = np.isfinite(value)
            part, x = found.take(known), value[known]
            r = statistics.Interval(np.nan, np.nan, np.nan, 0)
            effective = float(x.size)
            if x.size >= MIN_PER_BIN and np.ptp(x) > 0:
                effective = part.effective_pairs(x, part.detachment)
                r = statistics.correlation_interval(x, part.detachment, part.blocks, ranks=True, effective_n=effective)
            rows.append((group, name, x.size, effective, r.value, r.low, r.high))
    return pd.DataFrame(rows, columns=["group", "feature", "n", "n_effective", "r", "r_low", "r_high"])


def features(run: ReportInput) -> Drawing | str:
    """Which features go with detachment: Spearman's correlation of each, with its interval."""
    if run.features is None:
        return "The run has no features."
    if int(used_rows(run.table).sum()) < MIN_PER_BIN:
        return f"Fewer than {MIN_PER_BIN} particles are used, so their features are not correlated."
    frame = feature_correlations(run)
    figure = new_figure((7.4, 5.6))
    ax = figure.subplots()
    y, ticks = 0.0, []
    for group, part in frame.groupby("group", sort=False):
        top = y
        for row in part.to_dict("records"):
            clear = row["r_low"] > 0 or row["r_high"] < 0
            colour = style.ACCENT if clear else style.FAINT
            if np.isfinite(row["r"]):
                ax.plot([row["r_low"], row["r_high"]], [y, y], color=colour, lw=1.6)
                ax.plot(row["r"], y, marker="o", ms=5, color=colour, mec=style.PAPER, mew=0.6)
            ticks.append((y, row["feature"]))
            y += 1
        ax.text(1.02, (top + y - 1) / 2, str(group), va="center", fontsize=8.5, color=style.MUTED, clip_on=False)
        ax.axhspan(top - 0.5, y - 0.5, color=style.GRID, alpha=0.25, lw=0)
        y += 0.6
    ax.axvline(0, color=style.MUTED, lw=1)
    ax.set_yticks([t for t, _ in ticks], [name for _, name in ticks], fontsize=7.5)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set(xlabel="Spearman's correlation with the detachment fraction", xlim=(-1, 1))
    known = int(np.isfinite(numbers(frame, "r")).sum())
    return Drawing(
        "features",
        "Features and detachment",
        f"Over the {int(used_rows(run.table).sum()):,} particles used; 95 % intervals from spatial blocks. Blue leaves "
        f"0 out. Of {known} features one or so does by chance. A feature with carbon/binder in it is not here, as "
        "detachment is made of it.",
        figure,
        frame,
        place="aside",
    )
