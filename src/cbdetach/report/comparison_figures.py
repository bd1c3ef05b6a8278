"""The figures of a comparison of electrodes, each with its data or one sentence why it is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cbdetach.report import relation_figures, style
from cbdetach.report.comparison import PALETTE, WORDS, Comparison
from cbdetach.report.drawing import HALF, Drawing, legend_above, new_figure, note_above, size_axis, volume_axis
from cbdetach.report.summary import MIN_PER_BIN, numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

Floats = npt.NDArray[np.float64]


def detachment_groups(found: Comparison) -> Drawing:
    """Every electrode's particles as a violin, its median with interval, its whole; n and effective n below."""
    rows = found.electrodes.to_dict("records")
    at, group_of = _places(found)
    figure = new_figure((max(5.6, min(11.4, 2.2 + 0.95 * len(rows))), 4.2))
    ax = figure.subplots()
    for x, row, part in zip(at, rows, found.samples, strict=True):
        colour = found.colour(str(row["group"]))
        _violin(ax, part.detachment, x, colour, 0.8)
        ax.vlines(x, row["q1"], row["q3"], color=colour, lw=5, alpha=0.45)
        ax.errorbar(
            x,
            row["median"],
            yerr=[[row["median"] - row["median_low"]], [row["median_high"] - row["median"]]],
            color=style.INK,
            marker="o",
            ms=5,
            lw=1.3,
            capsize=3,
        )
        ax.plot(x + 0.27, row["total_area_weighted"], marker="D", ms=5, color=style.PAPER, mec=style.INK, mew=1.1)
        note_above(ax, x, f"n {row['n']:,}", lift=13)
        note_above(ax, x, f"≈ {style.number(row['n_effective'], 2)}", colour=style.MUTED)
    ax.set_xticks(at, [str(row["electrode"]) for row in rows], rotation=20 if len(rows) > 6 else 0)
    for name, places in group_of.items():
        ax.annotate(
            name,
            (float(np.mean(places)), 0),
            (0, -34 if len(rows) <= 6 else -52),
            ax.get_xaxis_transform(),
            "offset points",
            ha="center",
            fontsize=10,
            color=found.colour(name),
            fontweight="bold",
        )
    ax.plot([], [], color=style.INK, marker="o", ms=5, lw=1.3, label="median, 95 %")
    ax.plot([], [], color=style.PAPER, marker="D", ms=5, mec=style.INK, mew=1.1, lw=0, label="whole electrode, by area")
    ax.set(ylabel="detachment fraction", ylim=(-0.02, 1.02), xlim=(at[0] - 0.6, at[-1] + 0.6))
    ax.grid(axis="x", visible=False)
    ax.legend(loc="upper right", ncols=2)
    return Drawing(
        "detachment_groups",
        f"Detachment by {WORDS[found.by]}",
        "One violin per electrode (bar: quartiles). Above each its particles n, and the number of independent ones "
        "that they are worth, as neighbours resemble each other; intervals are from spatial blocks. Diamonds weigh "
        "surfaces, not particles.",
        figure,
        found.electrodes,
        place="wide",
    )


def detachment_size_groups(found: Comparison) -> Drawing:
    """Size class by size class: the particles of each group as a violin, the electrodes' medians, n of both."""
    classes = found.size_classes
    width = found.edges.size - 1
    filled = [k for k in range(width) if (classes[classes["from_um"] == found.edges[k]]["n"] > 0).any()]
    figure = new_figure((11.4, 4.0))
    ax = figure.subplots()
    groups = found.groups
    step = 0.8 / len(groups)
    member = np.array(found.electrodes["group"])
    for place, k in enumerate(filled):
        for g, name in enumerate(groups):
            x, colour = place - 0.4 + step * (g + 0.5), found.colour(name)
            inside = [
                part.detachment[part.classes(found.edges) == k]
                for part, own in zip(found.samples, member, strict=True)
                if own == name
            ]
            together = np.concatenate(inside)
            if together.size >= MIN_PER_BIN:
                _violin(ax, together, x, colour, 0.9 * step)
            part = classes[(classes["group"] == name) & (classes["from_um"] == found.edges[k])]
            known = part[np.isfinite(numbers(part, "median"))]
            spread = np.linspace(-0.22, 0.22, len(known)) * step if len(known) > 1 else np.zeros(len(known))
            for dx, row in zip(spread, known.to_dict("records"), strict=True):
                ax.vlines(x + dx, row["median_low"], row["median_high"], color=colour, lw=1)
                ax.plot(x + dx, row["median"], marker="o", ms=4.5, color=colour, mec=style.PAPER, mew=0.6)
            note_above(
                ax,
                x,
                f"{together.size:,}",
                colour=colour if together.size >= MIN_PER_BIN else style.FAINT,
                lift=3 + 10 * (g % 2),
            )
    for name in groups:
        ax.plot([], [], color=found.colour(name), marker="o", lw=0, label=name)
    labels = [f"{style.number(found.edges[k], 2)} – {style.number(found.edges[k + 1], 2)}" for k in filled]
    ax.set_xticks(range(len(filled)), labels)
    ax.set(xlabel="equivalent diameter (µm)", ylabel="detachment fraction", ylim=(-0.02, 1.02))
    ax.set_xlim(-0.6, len(filled) - 0.4)
    ax.grid(axis="x", visible=False)
    legend_above(ax, offset=0.09)
    tested = found.tests[found.tests["kind"] == "size class"]
    small = tested[numbers(tested, "p_holm") <= 0.05] if len(tested) else tested
    words = (
        f"{len(small)} of {int(np.isfinite(numbers(tested, 'p')).sum())} comparisons stay below 0.05 after Holm."
        if len(tested) and np.isfinite(numbers(tested, "p")).any()
        else "With one electrode on a side there is no p."
    )
    return Drawing(
        "detachment_size_groups",
        f"Detachment by size class and {WORDS[found.by]}",
        "Violins: all particles of a group (n above). Dots: the median of one electrode with its interval; these are "
        f"what is tested. Edges are fixed beforehand; a class of an electrode with fewer than {MIN_PER_BIN} particles "
        f"has no median. {words}",
        figure,
        classes,
        place="wide",
    )


def spread_size(found: Comparison) -> Drawing:
    """Spread of each electrode's particles by size class, as a multiple of what random patches give."""
    frame = found.spread
    figure = new_figure(HALF)
    ax = figure.subplots()
    middle = np.sqrt(numbers(frame, "from_um") * numbers(frame, "to_um"))
    expected = numbers(frame, "sd_null")
    ratio = numbers(frame, "sd") / expected
    low, high = numbers(frame, "null_low") / expected, numbers(frame, "null_high") / expected
    centres = np.unique(middle)
    bands = [
        (np.nanmedian(low[middle == m]), np.nanmedian(high[middle == m]))
        if np.isfinite(low[middle == m]).any()
        else (np.nan, np.nan)
        for m in centres
    ]
    ax.fill_between(centres, *np.transpose(bands), color=style.FAINT, alpha=0.3, lw=0, label="random patches, 95 %")
    ax.axhline(1, color=style.MUTED, lw=1.2, ls=(0, (4, 2)))
    for electrode, part in frame.groupby("electrode", sort=False):
        rows = part.index.to_numpy()
        colour = found.colour(str(part["group"].iloc[0]))
        ax.plot(middle[rows], ratio[rows], color=colour, lw=0.9, alpha=0.6, marker="o", ms=3.5, gid=str(electrode))
        clear = rows[(numbers(part, "p_holm") <= 0.05)]
        ax.plot(middle[clear], ratio[clear], color=colour, lw=0, marker="o", ms=7)
    for name in found.groups:
        ax.plot([], [], color=found.colour(name), marker="o", ms=3.5, label=name)
    size_axis(ax, found.edges)
    ax.set(ylabel="sd of detachment / random patches")
    legend_above(ax)
    return Drawing(
        "spread_size",
        "Spread against size",
        "Standard deviation in a size class, divided by that of contact patches of one area shuffled over all surfaces "
        "(which makes small particles scatter more with no physics). Large dots leave the null (Holm within an "
        "electrode); only they are a finding.",
        figure,
        frame,
    )


def detachment_volume(found: Comparison) -> Drawing:
    """Detachment against volume for every particle, and the medians of the size classes of each group."""
    import pandas as pd

    figure = new_figure(HALF)
    ax = figure.subplots()
    data = []
    for row, part in zip(found.electrodes.to_dict("records"), found.samples, strict=True):
        volume = np.pi / 6 * part.diameter**3
        ax.scatter(
            volume, part.detachment, s=5, lw=0, alpha=0.16, color=found.colour(str(row["group"])), rasterized=True
        )
        data.append(
            pd.DataFrame(
                {
                    "electrode": row["electrode"],
                    "group": row["group"],
                    "label": part.label,
                    "volume_um3": volume,
                    "detachment_fraction": part.detachment,
                }
            )
        )
    for name in found.groups:
        classes = found.size_classes[found.size_classes["group"] == name]
        mean = classes.groupby(["from_um", "to_um"], as_index=False)["median"].mean()
        middle = np.pi / 6 * np.sqrt(mean["from_um"] * mean["to_um"]) ** 3
        ax.plot(middle, mean["median"], color=found.colour(name), marker="o", ms=5, mec=style.PAPER, label=name)
    volume_axis(ax)
    ax.set(ylabel="detachment fraction", ylim=(-0.02, 1.02))
    legend_above(ax)
    return Drawing(
        "detachment_volume",
        "Detachment against volume",
        "One dot per particle; lines: mean over the electrodes of a group of the medians of each size class.",
        figure,
        pd.concat(data, ignore_index=True),
    )


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


def cycling(found: Comparison, capacity: DataFrame | None) -> Drawing | str:
    """Capacity against cycle as given, beside the electrodes' median detachment."""
    if capacity is None:
        return "No table of capacities was given (--cycling)."
    figure = new_figure((11.4, 3.4))
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
    spare = iter(c for c in (*PALETTE, *PALETTE) if c not in [found.colour(g) for g in found.groups])
    of_electrode = dict(zip(found.electrodes["electrode"].astype(str), found.electrodes["group"], strict=True))
    for name, part in capacity.groupby("series", sort=False):
        group = of_electrode.get(str(name), str(name))
        colour = found.colour(group) if group in found.groups else next(spare, style.MUTED)
        ordered = part.sort_values("cycle")
        left.plot(ordered["cycle"], ordered["capacity"], color=colour, marker="o", ms=2.5, lw=1.2, label=str(name))
    left.set(xlabel="cycle", ylabel="capacity (as given)", ylim=(0, None))
    left.legend(loc="lower left", ncols=2)
    for x, name in enumerate(found.groups):
        part = found.electrodes[found.electrodes["group"] == name]
        place = x + (np.linspace(-0.2, 0.2, len(part)) if len(part) > 1 else np.zeros(1))
        right.vlines(place, part["median_low"], part["median_high"], color=found.colour(name), lw=1.2)
        right.plot(place, part["median"], color=found.colour(name), marker="o", lw=0)
    right.set_xticks(range(len(found.groups)), found.groups)
    right.set(ylabel="median detachment", ylim=(0, 1), xlim=(-0.6, len(found.groups) - 0.4))
    right.grid(axis="x", visible=False)
    return Drawing(
        "cycling",
        "Capacity and detachment",
        "Left: capacity as given. Right: the median detachment of every electrode, with its interval.",
        figure,
        capacity,
        place="wide",
    )


def _places(found: Comparison) -> tuple[Floats, dict[str, list[float]]]:
    """A place on the axis for every electrode, with room between groups; and the places of each group."""
    places: list[float] = []
    by_group: dict[str, list[float]] = {}
    for name in found.electrodes["group"]:
        x = places[-1] + (1.0 if name in by_group else 1.6) if places else 0.0
        places.append(x)
        by_group.setdefault(str(name), []).append(x)
    return np.array(places), by_group


def _violin(ax: Axes, values: Floats, x: float, colour: str, width: float) -> None:
    """The density of values between 0 and 1, mirrored at both ends so that none leaks out."""
    from scipy.stats import gaussian_kde

    if values.size < MIN_PER_BIN or np.ptp(values) == 0:
        ax.plot(np.full(values.size, x), values, marker="o", ms=2.5, lw=0, color=colour, alpha=0.4)
        return
    y = np.linspace(max(values.min() - 0.05, 0), min(values.max() + 0.05, 1), 120)
    kde = gaussian_kde(values)
    share = kde(y) + kde(-y) + kde(2 - y)
    half = share / share.max() * width / 2
    ax.fill_betweenx(y, x - half, x + half, color=colour, alpha=0.22, lw=0)
