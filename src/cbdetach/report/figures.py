"""The report's charts: each function takes the run and returns one drawing with its data, or one sentence why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cbdetach.report import style
from cbdetach.report.drawing import HALF, NO_CBD, WIDE, Drawing, legend_above, new_figure, note_above, size_axis
from cbdetach.report.summary import BINS_PER_OCTAVE, MIN_PER_BIN, Summary, numbers, size_classes, used_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame, Series

    from cbdetach.report import ReportInput

Floats = npt.NDArray[np.float64]


def flow(summary: Summary) -> Drawing:
    """Found, then what leaves at each step, as bands whose height is the number of particles."""
    import pandas as pd

    stages = [
        ("found", summary.found),
        ("whole", summary.found - summary.cut),
        ("used: detachment", summary.used),
        ("used: diffusion length", summary.reached),
    ]
    losses = [
        ("cut by the border", summary.cut),
        ("with unknown detachment", summary.unknown),
        ("without a diffusion length", summary.used - summary.reached),
    ]
    figure = new_figure((11.4, 2.9))
    ax = figure.subplots()
    ax.set_axis_off()
    top = max(summary.found, 1)
    width, step = 0.05, 1.0
    blues = ("#0b5c86", "#2a7aa3", "#4f9cbf", "#7dbcd6")
    for k, (name, n) in enumerate(stages):
        height = n / top
        ax.fill([k, k + width, k + width, k], [1, 1, 1 - height, 1 - height], color=blues[k], lw=0)
        ax.text(k + width / 2, 1.16, style.count(n), ha="center", fontsize=15, color=style.INK)
        ax.text(k + width / 2, 1.06, name, ha="center", fontsize=9, color=style.MUTED)
        if k == len(losses):
            break
        kept = stages[k + 1][1] / top
        _band(ax, (k + width, k + step), (1, 1 - kept), (1, 1 - kept), blues[k + 1], 0.30)
        label, lost = losses[k]
        if lost:
            end, drop = k + 0.5, 1 - kept - 0.18
            _band(ax, (k + width, end), (1 - kept, 1 - kept - lost / top), (drop, drop - lost / top), style.FAINT, 0.45)
            ax.text(
                end + 0.02,
                drop - lost / top / 2,
                f"{style.count(lost)} {label}",
                va="center",
                fontsize=9,
                color=style.MUTED,
            )
    ax.set_xlim(-0.12, len(stages) - 1 + 0.25)
    ax.set_ylim(-0.22, 1.28)
    rows = [
        ("found", summary.found),
        ("cut", summary.cut),
        ("whole", summary.found - summary.cut),
        ("whole_without_contact", summary.no_contact),
        ("unknown", summary.unknown),
        ("used", summary.used),
        ("without_length", summary.used - summary.reached),
        ("reached", summary.reached),
    ]
    return Drawing(
        "flow",
        "From found to used",
        "Every particle found, and where it leaves the statistics. Cut: it touches the border of the volume. A "
        "particle without contact to carbon/binder has no diffusion length; its detachment counts.",
        figure,
        pd.DataFrame(rows, columns=["step", "particles"]),
        place="wide",
    )


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


def histogram(run: ReportInput) -> Drawing | str:
    """The global histogram, its thresholds with their bands, and the fitted classes."""
    import pandas as pd

    survey, thresholds = run.survey, run.thresholds
    if run.grey is None and not survey:
        return "The phases were given, so there is no grey histogram."
    if not survey or "counts" not in survey:
        return "The run record holds no grey histogram."
    counts, edges = np.asarray(survey["counts"], dtype=np.float64), np.asarray(survey["edges"], dtype=np.float64)
    counts, edges = _rebin(counts, edges)
    middle, width = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
    density = counts / max(counts.sum(), 1) / width
    figure = new_figure(WIDE)
    ax = figure.subplots()
    ax.fill_between(middle, density, step="mid", color="#d5dbe0", lw=0, label="all voxels")
    data = {"from": edges[:-1], "to": edges[1:], "voxels": counts}
    caption = ""
    if thresholds:
        fitted = _class_fits(thresholds, middle)
        colours = dict(style.PHASES.values())
        for name, curve in fitted.items():
            ax.plot(middle, curve, color=colours[name], label=name)
            data[f"fit_{name}"] = curve * width * counts.sum()
        caption = _draw_thresholds(ax, thresholds)
    ax.set(xlabel="grey value", ylabel="share per grey unit", xlim=(edges[0], edges[-1]), ylim=(0, None))
    ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    ax.yaxis.get_offset_text().set(color=style.MUTED, fontsize=8)
    legend_above(ax, offset=0.06)
    return Drawing(
        "histogram",
        "Grey histogram and thresholds",
        "One global scale for the whole volume. Lines: the fitted classes; what they leave over are voxels that two "
        "phases share. " + caption,
        figure,
        pd.DataFrame(data),
        place="wide",
    )


def edge_profile(run: ReportInput) -> Drawing | str:
    """The measured edge between particle and void: how wide the instrument's blur is."""
    import pandas as pd

    if run.grey is None and not run.survey:
        return "The phases were given, so no edge was measured."
    profile, width = (run.survey or {}).get("edge_profile"), _edge_width(run)
    if not profile or width is None:
        return "No free edge could be measured."
    distance, grey = np.asarray(profile["distance_um"], dtype=np.float64), np.asarray(profile["grey"], dtype=np.float64)
    figure = new_figure(HALF)
    ax = figure.subplots()
    ax.axvspan(
        -width / 2, width / 2, color=style.ACCENT, alpha=0.12, lw=0, label=f"edge width {style.number(width)} µm"
    )
    ax.plot(distance, grey, color=style.ACCENT, marker="o", ms=3)
    for level in (0, 1):
        ax.axhline(level, color=style.FAINT, lw=0.8)
    ax.set(xlabel="distance from the surface (µm), positive outside", ylabel="grey value, void 0, particle 1")
    legend_above(ax)
    rays = (run.survey or {}).get("edge_rays")
    return Drawing(
        "edge_profile",
        "Measured edge",
        "The grey value across free surfaces of particles, measured on this volume"
        + (f" along {style.count(rays)} rays" if rays else "")
        + "; its width is the full width at half maximum of the blur.",
        figure,
        pd.DataFrame({"distance_um": distance, "grey": grey}),
    )


def cbd_thickness(run: ReportInput) -> Drawing | str:
    """The thickness of carbon/binder, beside the width that the instrument can resolve."""
    frame = run.cbd_thickness
    if frame is None or len(frame) == 0 or not np.nansum(frame["share"]) > 0:
        return "The volume holds no carbon/binder, so it has no thickness."
    thickness, share = numbers(frame, "thickness_um"), numbers(frame, "share")
    filled = np.flatnonzero(share > 0)
    keep = slice(0, min(filled[-1] + 2, share.size))
    step = float(np.median(np.diff(thickness))) if thickness.size > 1 else max(float(thickness[0]), 1e-6)
    figure = new_figure(HALF)
    ax = figure.subplots()
    ax.bar(thickness[keep], share[keep], width=0.9 * step, color=style.CBD, lw=0)
    width, caption = _edge_width(run), "Local thickness of the carbon/binder along its middle."
    if width is not None:
        ax.axvline(width, color=style.ACCENT, lw=1.4)
        ax.text(
            width,
            1.02,
            f"edge width {style.number(width)} µm",
            transform=ax.get_xaxis_transform(),
            ha="center",
            fontsize=8.5,
            color=style.ACCENT,
        )
        below = float(share[thickness < width].sum() / share.sum())
        caption += f" {below:.0%} of it is thinner than the edge is wide: there the contact is uncertain."
    ax.axvline(min(run.voxel_size), color=style.FAINT, lw=1.2, ls=(0, (2, 2)))
    ax.set(xlabel="thickness of carbon/binder (µm); dotted: one voxel", ylabel="share", xlim=(0, None))
    return Drawing("cbd_thickness", "Carbon/binder thickness", caption, figure, frame)


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


def depth_profile(run: ReportInput) -> Drawing | str:
    """What the profile holds, along z; above each group of values the number of particles behind them."""
    frame = run.profiles
    wanted = {
        "detachment_median": ("detachment,\nmedian", style.ACCENT, "n_detachment"),
        "crack_fraction": ("crack\nfraction", style.MOUTH, "n_particles"),
        "pore_fraction": ("pore\nfraction", style.COLLECTOR, "n_particles"),
        "crack_area_per_volume_um": ("crack area per\nvolume (1/µm)", style.SECOND, "n_particles"),
    }
    present = [c for c in wanted if c in frame.columns and np.isfinite(numbers(frame, c)).any()]
    if not present:
        return "No window along the depth holds a particle, so there is no depth profile."
    depth, window = numbers(frame, "z_um"), numbers(frame, "window_um")
    figure = new_figure((7.4, 1.35 * len(present) + 0.7))
    axes = np.atleast_1d(figure.subplots(len(present), 1, sharex=True))
    counted = ""
    for ax, column in zip(axes, present, strict=True):
        label, colour, count = wanted[column]
        value = numbers(frame, column)
        ax.plot(depth, value, color=colour, marker="o", ms=4)
        if column == "detachment_median":
            ax.fill_between(
                depth, numbers(frame, "detachment_q1"), numbers(frame, "detachment_q3"), color=colour, alpha=0.15, lw=0
            )
        highest = value
        if column == "crack_fraction" and "crack_fraction_high" in frame.columns:
            low, high = (numbers(frame, f"crack_fraction_{end}") for end in ("low", "high"))
            ax.fill_between(depth, low, high, color=colour, alpha=0.15, lw=0)
            highest = np.append(value, high)
        ax.set_ylabel(label, fontsize=8)
        ax.set_ylim(0, 1 if column == "detachment_median" else max(1.15 * float(np.nanmax(highest)), 1e-6))
        if count != counted:
            _counts_above(ax, depth, frame[count])
        counted = count
    edges = depth[0] - window[0] / 2, depth[-1] + window[-1] / 2
    axes[-1].set(xlabel="depth z (µm)", xlim=edges)
    figure.align_ylabels(list(axes))
    return Drawing(
        "depth_profile",
        "Depth profile",
        f"Values by depth, in windows of {np.median(window):.3g} µm. The numbers above count the particles behind each "
        "value: for detachment those used, for damage all. Bands: quartiles of detachment; 95 % interval of the crack "
        "fraction over the particles whose middle lies in the window.",
        figure,
        frame,
        place="aside",
    )


def _counts_above(ax: Axes, at: Floats, counts: Series[int]) -> None:
    """The number of particles of each window above the plot; of every k-th, where they would not fit."""
    ax.annotate("n", (0, 1), (-32, 3), "axes fraction", "offset points", ha="right", fontsize=7.5, color=style.MUTED)
    for x, n in list(zip(at, counts, strict=True))[:: -(-at.size // 20)]:
        note_above(ax, float(x), style.count(int(n)))


def _band(
    ax: Axes, x: tuple[float, float], start: tuple[float, float], end: tuple[float, float], colour: str, alpha: float
) -> None:
    """A band that leaves between two heights and arrives between two others, with level ends."""
    t = np.linspace(0, 1, 40)
    s = t * t * (3 - 2 * t)
    at = x[0] + (x[1] - x[0]) * t
    upper, lower = start[0] + (end[0] - start[0]) * s, start[1] + (end[1] - start[1]) * s
    ax.fill_between(at, lower, upper, color=colour, alpha=alpha, lw=0)


def _rebin(counts: Floats, edges: Floats, most: int = 256) -> tuple[Floats, Floats]:
    """Neighbouring classes together, until at most `most` lie between the first and last that matter (tails 1e-5)."""
    share = np.cumsum(counts) / max(counts.sum(), 1)
    first = max(int(np.searchsorted(share, 1e-5)) - 1, 0)
    last = min(int(np.searchsorted(share, 1 - 1e-5)) + 2, counts.size)
    counts, edges = counts[first:last], edges[first : last + 1]
    step = -(-counts.size // most)
    starts = np.arange(0, counts.size, step)
    return np.add.reduceat(counts, starts), np.append(edges[starts], edges[-1])


def _class_fits(thresholds: dict[str, Any], grey: Floats) -> dict[str, Floats]:
    """Gaussian of each class, scaled by its share of the voxels."""
    classes = zip(
        ("void", "carbon/binder", "active"), thresholds["means"], thresholds["sds"], thresholds["weights"], strict=True
    )
    return {
        name: weight / (sd * np.sqrt(2 * np.pi)) * np.exp(-0.5 * ((grey - mean) / sd) ** 2)
        for name, mean, sd, weight in classes
        if sd > 0 and weight > 0
    }


def _draw_thresholds(ax: Axes, thresholds: dict[str, Any]) -> str:
    """Vertical lines with their bands; returns what they say in words."""
    said = []
    for key, name in (("void_cbd", "void / CBD"), ("cbd_active", "CBD / active")):
        value = thresholds.get(key)
        if value is None:
            continue
        words = f"{name} {style.number(value, 4)}"
        band = thresholds.get(f"{key}_band")
        if band is not None:
            ax.axvspan(band[0], band[1], color=style.INK, alpha=0.07, lw=0)
            words += f" (band {style.number(band[0], 4)} to {style.number(band[1], 4)})"
        ax.axvline(value, color=style.INK, lw=1.1)
        ax.text(value, 1.02, name, transform=ax.get_xaxis_transform(), ha="center", fontsize=8, color=style.INK)
        said.append(words)
    return "Thresholds: " + ", ".join(said) + ", in grey units." if said else ""


def _edge_width(run: ReportInput) -> float | None:
    """The measured width in micrometres; None where no edge was measured."""
    survey = run.survey or {}
    if survey.get("edge_width_um") is None or survey.get("edge_rays") == 0:
        return None
    return float(survey["edge_width_um"])


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
