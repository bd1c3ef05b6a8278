"""Figures of detachment: its distribution, against size, and what moves it: thresholds and the contact tolerance."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from cbdetach.report import style
from cbdetach.report.drawing import HALF, NO_CBD, Drawing, legend_above, new_figure, size_axis
from cbdetach.report.summary import BINS_PER_OCTAVE, MIN_PER_BIN, Summary, numbers, size_classes, used_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from cbdetach.report import ReportInput


def detachment_distribution(run: ReportInput, summary: Summary) -> Drawing | str:
    """Histogram of the degree of detachment of the particles used, as counted and weighted for the border."""
    import pandas as pd

    used = used_rows(run.table)
    if not used.any():
        return NO_CBD
    value = numbers(run.table, "detachment_fraction")[used]
    weight = numbers(run.table, "inclusion_weight")[used]
    weight = np.where(np.isfinite(weight), weight, 0.0)
    edges = np.linspace(0, 1, 26)
    share = np.histogram(value, edges)[0] / value.size
    weighted = np.histogram(value, edges, weights=weight)[0] / max(weight.sum(), 1e-300)
    figure = new_figure(HALF)
    ax = figure.subplots()
    ax.bar(
        edges[:-1],
        share,
        width=np.diff(edges) * 0.9,
        align="edge",
        color=style.ACCENT,
        alpha=0.85,
        label="as counted",
        lw=0,
    )
    ax.stairs(weighted, edges, color=style.SECOND, lw=1.6, label="weighted for the border")
    ax.axvline(
        summary.detachment.median,
        color=style.INK,
        lw=1.2,
        ls=(0, (4, 2)),
        label=f"median {style.fraction(summary.detachment.median)}",
    )
    ax.set(xlabel="detachment fraction", ylabel="share of particles", xlim=(0, 1))
    legend_above(ax)
    data = pd.DataFrame(
        {
            "from": edges[:-1],
            "to": edges[1:],
            "particles": np.histogram(value, edges)[0],
            "share": share,
            "weighted_share": weighted,
        }
    )
    return Drawing(
        "detachment_distribution",
        "Detachment of all particles used",
        f"n = {style.count(summary.used)}. Large particles are cut by the border more often; the line weights each "
        "particle by the inverse of its chance to lie whole inside the volume.",
        figure,
        data,
    )


def detachment_size(run: ReportInput) -> Drawing | str:
    """Every particle used, and the median and quartiles by size class, n written in each."""
    used = used_rows(run.table)
    if not used.any():
        return NO_CBD
    diameter = numbers(run.table, "equivalent_diameter_um")[used]
    value = numbers(run.table, "detachment_fraction")[used]
    classes = size_classes(diameter, value)
    figure = new_figure(HALF)
    ax = figure.subplots()
    ax.scatter(diameter, value, s=9, color=style.ACCENT, alpha=0.28, lw=0, rasterized=value.size > 4000)
    shown = classes[classes["n"] >= MIN_PER_BIN]
    middle = np.sqrt(numbers(shown, "from_um") * numbers(shown, "to_um"))
    median, q1, q3 = (numbers(shown, c) for c in ("median", "q1", "q3"))
    ax.errorbar(
        middle,
        median,
        yerr=(median - q1, q3 - median),
        color=style.SECOND,
        marker="o",
        ms=6,
        capsize=0,
        lw=2.2,
        elinewidth=2.2,
        label="median and quartiles",
    )
    for low, high, n in zip(classes["from_um"], classes["to_um"], classes["n"], strict=True):
        ax.text(
            np.sqrt(low * high),
            1.055,
            f"{n:,}",
            ha="center",
            fontsize=8,
            color=style.INK if n >= MIN_PER_BIN else style.FAINT,
        )
    ax.annotate(
        "n",
        (0, 1.055),
        xycoords=("axes fraction", "data"),
        xytext=(-8, 0),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color=style.MUTED,
    )
    size_axis(ax, sorted({*classes["from_um"], *classes["to_um"]}))
    ax.set(ylabel="detachment fraction", ylim=(-0.03, 1.12))
    ax.set_yticks(np.linspace(0, 1, 6))
    legend_above(ax)
    return Drawing(
        "detachment_size",
        "Detachment against size",
        f"One dot per particle used. Size classes have fixed edges, {BINS_PER_OCTAVE} to a doubling; a class with "
        f"fewer than {MIN_PER_BIN} particles shows its n alone. The dots are in particles.csv. A wider scatter of "
        "small particles alone is no finding: it follows from their smaller surface.",
        figure,
        classes,
    )


def detachment_threshold(run: ReportInput) -> Drawing | str:
    """Quartiles of detachment while each threshold moves over its band."""
    rows = _sensitivity(run, lambda kind: kind != "tolerance")
    if rows is None:
        return "The phases were given, so there is no threshold to move." if run.thresholds is None else NO_CBD
    figure = new_figure(HALF)
    ax = figure.subplots()
    for colour, (kind, part) in zip((style.ACCENT, style.SECOND, style.MOUTH), rows.groupby("kind"), strict=False):
        _median_band(
            ax,
            part,
            colour,
            {"threshold": "both thresholds", "void_cbd": "void / CBD", "cbd_active": "CBD / active"}.get(
                str(kind), str(kind)
            ),
        )
    ax.axvline(0, color=style.FAINT, lw=1)
    ax.set(xlabel="shift of the threshold (grey units)", ylabel="detachment fraction", ylim=(0, 1))
    legend_above(ax)
    return Drawing(
        "detachment_threshold",
        "Detachment against threshold",
        "Median (line) and quartiles (band) of the particles used, while the thresholds move.",
        figure,
        rows,
    )


def detachment_tolerance(run: ReportInput) -> Drawing | str:
    """Quartiles of detachment while void within a distance of carbon/binder counts as contact."""
    rows = _sensitivity(run, lambda kind: kind == "tolerance")
    if rows is None:
        return NO_CBD if not used_rows(run.table).any() else "The run record holds no other contact tolerance."
    figure = new_figure(HALF)
    ax = figure.subplots()
    _median_band(ax, rows, style.ACCENT, "median and quartiles")
    for value, median in zip(rows["value"], rows["detachment_median"], strict=True):
        ax.annotate(
            style.fraction(median),
            (value, median),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            color=style.INK,
        )
    ax.set(xlabel="contact tolerance (µm)", ylabel="detachment fraction", ylim=(0, 1))
    return Drawing(
        "detachment_tolerance",
        "Detachment against contact tolerance",
        "Void within the tolerance of carbon/binder counts as contact.",
        figure,
        rows,
    )


def _sensitivity(run: ReportInput, wanted: Callable[[str], bool]) -> DataFrame | None:
    frame = run.sensitivity
    if frame is None or len(frame) == 0:
        return None
    kept = frame[[wanted(str(kind)) for kind in frame["kind"]]]
    kept = kept[np.isfinite(numbers(kept, "detachment_median"))]
    return kept.sort_values(["kind", "value"]) if len(kept) else None


def _median_band(ax: Axes, rows: DataFrame, colour: str, label: str) -> None:
    value = numbers(rows, "value")
    ax.fill_between(value, numbers(rows, "q1"), numbers(rows, "q3"), color=colour, alpha=0.15, lw=0)
    ax.plot(value, numbers(rows, "detachment_median"), color=colour, marker="o", ms=4.5, label=label)
