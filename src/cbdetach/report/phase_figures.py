"""Figures of the phases: regional histograms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cbdetach.report import style
from cbdetach.report.drawing import Drawing, colour_map, colourbar, new_figure

if TYPE_CHECKING:
    from cbdetach.report import ReportInput

QUARTERS = ("low y, low x", "low y, high x", "high y, low x", "high y, high x")


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
