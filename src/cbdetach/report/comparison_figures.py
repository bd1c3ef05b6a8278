"""The figures of a comparison of electrodes: detachment by group, size class and volume, its spread, and capacity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cbdetach.report import style
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
