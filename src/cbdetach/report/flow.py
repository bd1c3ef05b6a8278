"""How many particles were found, and how many are left at each step of the statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cbdetach.report import style
from cbdetach.report.drawing import Drawing, new_figure
from cbdetach.report.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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


def _band(
    ax: Axes, x: tuple[float, float], start: tuple[float, float], end: tuple[float, float], colour: str, alpha: float
) -> None:
    """A band that leaves between two heights and arrives between two others, with level ends."""
    t = np.linspace(0, 1, 40)
    s = t * t * (3 - 2 * t)
    at = x[0] + (x[1] - x[0]) * t
    upper, lower = start[0] + (end[0] - start[0]) * s, start[1] + (end[1] - start[1]) * s
    ax.fill_between(at, lower, upper, color=colour, alpha=alpha, lw=0)
