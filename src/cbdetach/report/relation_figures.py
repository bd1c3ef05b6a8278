"""Charts of one run that set detachment beside size and density, and the widths of the phases' grey peaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cbdetach import statistics
from cbdetach.report import relations, style
from cbdetach.report.drawing import (
    HALF,
    NO_CBD,
    Drawing,
    legend_above,
    new_figure,
    note_above,
    size_axis,
    volume_axis,
)
from cbdetach.report.summary import MIN_PER_BIN, numbers

if TYPE_CHECKING:
    from cbdetach.report import ReportInput

NO_GREY = "No grey volume was given, so there is no density."
PEAKS = {"void": style.VOID, "cbd": style.CBD, "active": style.ACTIVE, "collector": style.COLLECTOR}
NAMES = {"void": "void", "cbd": "carbon/binder", "active": "active", "collector": "collector"}


def detachment_volume(run: ReportInput) -> Drawing | str:
    """Detachment of every particle used against its volume, with the median of each size class and its interval."""
    found = relations.sample(run.table)
    if not found.label.size:
        return NO_CBD
    edges = relations.size_edges(found.diameter)
    classes = relations.size_table(found, edges)
    volume = np.pi / 6 * found.diameter**3
    figure = new_figure(HALF)
    ax = figure.subplots()
    ax.scatter(volume, found.detachment, s=9, color=style.ACCENT, alpha=0.28, lw=0, rasterized=volume.size > 4000)
    shown = classes[classes["n"] >= MIN_PER_BIN]
    middle = np.pi / 6 * np.sqrt(numbers(shown, "from_um") * numbers(shown, "to_um")) ** 3
    median = numbers(shown, "median")
    low, high = numbers(shown, "median_low"), numbers(shown, "median_high")
    ax.errorbar(
        middle,
        median,
        yerr=(median - low, high - median),
        color=style.SECOND,
        marker="o",
        ms=5.5,
        lw=1.6,
        elinewidth=1.6,
        capsize=3,
        label="median of a size class, 95 %",
    )
    volume_axis(ax)
    ax.set(ylabel="detachment fraction", ylim=(-0.03, 1.03))
    legend_above(ax)
    words = ""
    table = relations.correlation_table(found)
    for row in table[(table["with"] == "log volume") & (table["kind"] == "spearman")].to_dict("records"):
        words = (
            f" Spearman's r is {row['r']:.2f} (95 % interval {row['r_low']:.2f} to {row['r_high']:.2f}); "
            f"n = {row['n']:,}, worth {style.number(row['n_effective'])} independent particles."
        )
    return Drawing(
        "detachment_volume",
        "Detachment against volume",
        "One dot per particle used. Intervals are from spatial blocks, as neighbours resemble each other." + words,
        figure,
        classes,
    )


def detachment_spread(run: ReportInput) -> Drawing | str:
    """Spread of detachment by size class, beside what contact patches put down at random would give."""
    found = relations.sample(run.table)
    if not found.label.size:
        return NO_CBD
    edges = relations.size_edges(found.diameter)
    frame = relations.spread_table(found, edges, seed=run.seed)
    shown = frame[np.isfinite(numbers(frame, "sd"))]
    if not len(shown):
        return f"No size class holds {MIN_PER_BIN} particles, so their spread cannot be told."
    figure = new_figure(HALF)
    ax = figure.subplots()
    middle = np.sqrt(numbers(shown, "from_um") * numbers(shown, "to_um"))
    low, high = numbers(shown, "null_low"), numbers(shown, "null_high")
    ax.fill_between(middle, low, high, color=style.FAINT, alpha=0.3, lw=0, label="random patches, 95 %")
    if middle.size == 1:
        ax.vlines(middle, low, high, color=style.FAINT, lw=6, alpha=0.5)
    ax.plot(middle, numbers(shown, "sd_null"), color=style.MUTED, lw=1.2, ls=(0, (4, 2)))
    ax.plot(middle, numbers(shown, "sd"), color=style.ACCENT, marker="o", ms=5.5, label="found")
    for x, row in zip(middle, shown.to_dict("records"), strict=True):
        note_above(ax, x, f"{row['n']:,}")
    size_axis(ax, edges)
    ax.set(ylabel="sd of the detachment fraction", ylim=(0, 1.15 * float(np.nanmax([high.max(), shown["sd"].max()]))))
    ax.legend(loc="upper right")
    return Drawing(
        "detachment_spread",
        "Spread against size",
        "Standard deviation of detachment by size class (n above). Contact patches of one area, here "
        f"{style.number(float(frame['patch_um2'].iloc[0]))} µm², shuffled over all surfaces scatter more on small "
        "particles with no physics at all; only what leaves the band is a finding.",
        figure,
        frame,
    )


def density_detachment(run: ReportInput) -> Drawing | str:
    """Density of every particle used against its detachment, with the correlations and their intervals."""
    import pandas as pd

    if run.grey is None and not np.isfinite(numbers(run.table, "density_mean")).any():
        return NO_GREY
    found = relations.sample(run.table)
    found = found.take(np.isfinite(found.density))
    if not found.label.size:
        return "No particle used is thick enough for its density to be told from its edges."
    table = relations.correlation_table(found)
    table = table[table["with"] == "density"]
    figure = new_figure(HALF)
    ax = figure.subplots()
    ax.scatter(
        found.detachment,
        found.density,
        s=4 + 3 * found.diameter / np.median(found.diameter),
        color=style.ACCENT,
        alpha=0.4,
        lw=0,
        rasterized=found.label.size > 4000,
    )
    if found.label.size >= MIN_PER_BIN and np.ptp(found.detachment) > 0:
        slope, level = np.polyfit(found.detachment, found.density, 1)
        ends = np.array([found.detachment.min(), found.detachment.max()])
        ax.plot(ends, slope * ends + level, color=style.SECOND, lw=1.6)
    ax.set(xlabel="detachment fraction", ylabel="density (mean of the eroded solid)", xlim=(-0.03, 1.03))
    words = "; ".join(
        f"{r['kind']} {r['r']:.2f} ({r['r_low']:.2f} to {r['r_high']:.2f})" for r in table.to_dict("records")
    )
    if words:
        words = f"Correlation over n = {found.label.size:,} particles (95 % intervals, spatial blocks): {words}. "
    return Drawing(
        "density_detachment",
        "Density against detachment",
        words + "Look at its dependence on the erosion before you believe it.",
        figure,
        pd.DataFrame(
            {
                "label": found.label,
                "detachment_fraction": found.detachment,
                "density_mean": found.density,
                "equivalent_diameter_um": found.diameter,
            }
        ),
    )


def density_erosion(run: ReportInput) -> Drawing | str:
    """The correlation of density with detachment against the depth from which the grey value counts."""
    if run.densities is None or not len(run.densities):
        return NO_GREY
    frame = relations.erosion_table(relations.sample(run.table), [run.densities])
    if not len(frame):
        return f"Fewer than {MIN_PER_BIN} particles have a density at every erosion depth."
    figure = new_figure(HALF)
    ax = figure.subplots()
    depth, r = numbers(frame, "erosion_um"), numbers(frame, "r")
    ax.axhline(0, color=style.FAINT, lw=1)
    ax.fill_between(
        depth, numbers(frame, "r_low"), numbers(frame, "r_high"), color=style.ACCENT, alpha=0.15, lw=0, label="95 %"
    )
    ax.plot(depth, r, color=style.ACCENT, marker="o", ms=4.5, label="Pearson's r")
    ax.plot(depth, numbers(frame, "r_same_size"), color=style.SECOND, lw=1.4, ls=(0, (4, 2)), label="same size")
    if run.erosion_um is not None:
        ax.axvline(run.erosion_um, color=style.INK, lw=1)
        note_above(ax, run.erosion_um, "used", lift=2)
    ax.set(xlabel="erosion depth (µm)", ylabel="r of density with detachment", ylim=(-1, 1))
    ax.legend(loc="lower right", ncols=3)
    return Drawing(
        "density_erosion",
        "Density and detachment, by erosion depth",
        f"The same {int(frame['n'].iloc[0]):,} particles at every depth. Blur and fringes near surfaces make a "
        "correlation of their own; one that is real does not change from the depth used on.",
        figure,
        frame,
    )


def peaks(run: ReportInput) -> Drawing | str:
    """Grey values deep inside the collector, the carbon/binder and the particles, with the widths of their peaks."""
    frame = run.peaks
    if frame is None or not len(frame):
        return NO_GREY
    figure = new_figure(HALF)
    ax = figure.subplots()
    shown, limits = [], []
    for phase, part in frame.groupby("phase", sort=False):
        grey, count = numbers(part, "grey"), numbers(part, "voxels")
        peak = statistics.peak_of(grey, count)
        if peak is None:
            continue
        colour = PEAKS[str(phase)]
        step = max(1, round(peak.width / 12 / (grey[1] - grey[0])))  # bars a twelfth of the peak wide, for the eye
        starts = np.arange(0, count.size, step)
        bars = np.add.reduceat(count, starts) / step / peak.height
        ax.fill_between(grey[starts] + (step - 1) / 2 * (grey[1] - grey[0]), bars, color=colour, alpha=0.35, lw=0)
        ax.plot([peak.low, peak.high], [0.5, 0.5], color=colour, lw=2.2)
        ax.annotate(
            f"{NAMES[str(phase)]}\nFWHM {style.number(peak.high - peak.low)}",
            (peak.position, 1.12),
            (0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=colour,
        )
        shown.append(f"{NAMES[str(phase)]} {style.number(peak.high - peak.low)}")
        limits += [
            peak.position - 2 * (peak.position - peak.low) * 1.6,
            peak.position + 3.2 * (peak.high - peak.position),
        ]
    if not shown:
        return "No phase has a region thicker than the blur, so no peak can be told from the edges."
    ax.set(xlabel="grey value", ylabel="share of the peak", xlim=(min(limits), max(limits)), ylim=(0, 1.45))
    ax.set_yticks([0, 0.5, 1])
    return Drawing(
        "peaks",
        "Widths of the grey peaks",
        "Grey values of regions chosen by geometry (deeper than the blur below any surface), so that no threshold cuts "
        f"a tail. Full widths at half maximum: {', '.join(shown)}. Collector and carbon/binder are the noise floor; "
        "what the active peak has beyond it differs between and within particles.",
        figure,
        frame,
    )
