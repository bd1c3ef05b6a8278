"""Figures of the phases: grey histograms, whole and by region, the measured edge, the thickness of carbon/binder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cbdetach.report import style
from cbdetach.report.drawing import HALF, WIDE, Drawing, colour_map, colourbar, legend_above, new_figure
from cbdetach.report.summary import numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cbdetach.report import ReportInput

Floats = npt.NDArray[np.float64]

QUARTERS = ("low y, low x", "low y, high x", "high y, low x", "high y, high x")


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


def regional_histograms(run: ReportInput) -> Drawing | str:
    """The grey histogram of every layer and quarter of the volume, coloured by depth, with the global thresholds."""
    import pandas as pd
    from matplotlib.colors import Normalize

    survey = run.survey or {}
    if run.grey is None and not survey:
        return "The phases were given, so there is no grey histogram."
    if "region_counts" not in survey:
        return "The run record holds no grey histogram."
    counts, edges = np.asarray(survey["region_counts"], float), np.asarray(survey["region_edges"], float)
    depth = np.asarray(survey["region_slices"], float).reshape(-1, 2) * run.voxel_size[0]
    total = counts.sum(axis=2, keepdims=True)
    share = counts / np.maximum(total, 1) / np.diff(edges)
    middle = (edges[:-1] + edges[1:]) / 2
    colours, norm = colour_map("viridis"), Normalize(0, max(float(depth.max()), 1e-9))
    figure = new_figure((11.4, 3.4))
    ax = figure.subplots()
    for layer, (low, high) in enumerate(depth):
        for quarter in range(4):
            if total[layer, quarter, 0]:
                ax.plot(middle, share[layer, quarter], color=colours(norm((low + high) / 2)), lw=0.9, alpha=0.8)
    thresholds = run.thresholds or {}
    for key, name in (
        ("void_cbd", "void / CBD"),
        ("cbd_active", "CBD / active"),
        ("active_high", "low / high density"),
    ):
        if thresholds.get(key) is not None:
            ax.axvline(thresholds[key], color=style.INK, lw=1.1)
            where: dict[str, Any] = {
                "transform": ax.get_xaxis_transform(),
                "ha": "center",
                "fontsize": 8,
                "color": style.INK,
            }
            ax.text(thresholds[key], 1.02, name, **where)
    ax.set(xlabel="grey value", ylabel="share per grey unit", xlim=(edges[0], edges[-1]), ylim=(0, None))
    ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    ax.yaxis.get_offset_text().set(color=style.MUTED, fontsize=8)
    colourbar(figure, colours, norm, "depth z (µm)", ax=ax, pad=0.01, aspect=30)
    rows = pd.DataFrame(
        {
            "z_from_um": np.repeat(depth[:, 0], 4 * middle.size),
            "z_to_um": np.repeat(depth[:, 1], 4 * middle.size),
            "quarter": np.tile(np.repeat(QUARTERS, middle.size), len(depth)),
            "from": np.tile(edges[:-1], 4 * len(depth)),
            "to": np.tile(edges[1:], 4 * len(depth)),
            "voxels": counts.ravel().astype(np.int64),
        }
    )
    choice = f" Choice: {thresholds['why']}." if thresholds.get("why") else ""
    return Drawing(
        "regional_histograms",
        "Regional histograms",
        "One line for each quarter of the plane in each layer of depth. Where peaks wander from line to line, one grey "
        f"scale does not hold for the whole volume.{choice}",
        figure,
        rows,
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
