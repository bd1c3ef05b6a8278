"""The figures of a comparison's grey values: density against detachment, and the widths of the peaks."""

from __future__ import annotations

import numpy as np

from cbdetach.report import relation_figures, style
from cbdetach.report.comparison import Comparison
from cbdetach.report.drawing import HALF, Drawing, legend_above, new_figure
from cbdetach.report.summary import MIN_PER_BIN, numbers


def density_correlations(found: Comparison) -> Drawing | str:
    """The correlation of density with detachment in every electrode, four ways, with intervals."""
    frame = found.correlations
    frame = frame[frame["with"] == "density"] if len(frame) else frame
    if not len(frame):
        return f"No electrode has {MIN_PER_BIN} particles with a density."
    figure = new_figure((5.6, max(2.6, 0.9 + 0.2 * len(frame))))
    ax = figure.subplots()
    marks = {"pearson": "o", "spearman": "s", "pearson, same size": "D", "spearman, same size": "^"}
    y, ticks = 0.0, []
    for electrode, part in frame.groupby("electrode", sort=False):
        first, colour = y, found.colour(str(part["group"].iloc[0]))
        for row in part.to_dict("records"):
            ax.plot([row["r_low"], row["r_high"]], [y, y], color=colour, lw=1.2)
            ax.plot(row["r"], y, marker=marks[row["kind"]], ms=5, color=colour, mec=style.PAPER, mew=0.5)
            y += 1
        ticks.append(((first + y - 1) / 2, f"{electrode} ({part['group'].iloc[0]})\nn {part['n'].iloc[0]:,}"))
        y += 0.8
    for kind, mark in marks.items():
        ax.plot([], [], marker=mark, lw=0, color=style.MUTED, label=kind)
    ax.axvline(0, color=style.FAINT, lw=1)
    ax.set_yticks([t for t, _ in ticks], [name for _, name in ticks])
    ax.invert_yaxis()
    ax.set(xlabel="correlation of density with detachment", xlim=(-1, 1))
    ax.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=2, fontsize=7.5)
    return Drawing(
        "density_correlations",
        "Density and detachment",
        "Pearson's and Spearman's correlation over the particles of one electrode, plain and at the same size (partial "
        "on the logarithm of the diameter); 95 % intervals from spatial blocks.",
        figure,
        frame,
    )


def density_erosion(found: Comparison) -> Drawing | str:
    """The correlation of density with detachment against the erosion depth, electrode by electrode."""
    frame = found.erosion
    if not len(frame):
        return f"No electrode has {MIN_PER_BIN} particles with a density at every erosion depth."
    figure = new_figure(HALF)
    ax = figure.subplots()
    ax.axhline(0, color=style.FAINT, lw=1)
    for electrode, part in frame.groupby("electrode", sort=False):
        colour = found.colour(str(part["group"].iloc[0]))
        depth = numbers(part, "erosion_um")
        ax.fill_between(depth, numbers(part, "r_low"), numbers(part, "r_high"), color=colour, alpha=0.05, lw=0)
        ax.plot(depth, numbers(part, "r"), color=colour, marker="o", ms=3.5, lw=1.3, gid=str(electrode))
    for name in found.groups:
        ax.plot([], [], color=found.colour(name), marker="o", ms=3.5, label=name)
    ax.set(xlabel="erosion depth (µm)", ylabel="r of density with detachment", ylim=(-1, 1))
    legend_above(ax)
    return Drawing(
        "density_erosion",
        "Density and detachment, by erosion depth",
        "Where a line is not flat at its right end, the edge's blur and fringes still make the correlation.",
        figure,
        frame,
    )


def peak_widths(found: Comparison) -> Drawing | str:
    """Full widths at half maximum of the grey peaks of collector, carbon/binder and active material."""
    frame = found.peaks
    frame = frame[np.isfinite(numbers(frame, "fwhm"))] if len(frame) else frame
    if not len(frame):
        return "No run has the width of a grey peak: they need a grey volume."
    figure = new_figure(HALF)
    ax = figure.subplots()
    names = list(dict.fromkeys(found.electrodes["electrode"]))
    phases = [p for p in ("collector", "cbd", "active") if (frame["phase"] == p).any()]
    for k, phase in enumerate(phases):
        part = frame[frame["phase"] == phase]
        x = np.array([names.index(e) for e in part["electrode"]]) + 0.8 * ((k + 0.5) / len(phases) - 0.5)
        ax.bar(
            x,
            numbers(part, "fwhm"),
            width=0.74 / len(phases),
            color=relation_figures.PEAKS[phase],
            lw=0,
            label=relation_figures.NAMES[phase],
        )
    ax.set_xticks(range(len(names)), names, rotation=20 if len(names) > 4 else 0)
    ax.set(ylabel="FWHM of the grey peak")
    ax.grid(axis="x", visible=False)
    legend_above(ax)
    return Drawing(
        "peak_widths",
        "Widths of the grey peaks",
        "Of regions chosen by geometry, in the units of each run's densities. Collector and carbon/binder are the "
        f"noise floor of a measurement. The smallest region has {int(numbers(frame, 'voxels').min()):,} voxels.",
        figure,
        frame,
    )
