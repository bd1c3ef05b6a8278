"""The files of an evaluation: its tables, its record, and the bars of its six metrics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cbdetach.evaluate.methods import METHODS
from cbdetach.evaluate.results import Evaluation
from cbdetach.metrics import SIX

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

FILES = ("evaluation.csv", "evaluation.png", "evaluation.svg", "evaluation_bars.csv", "evaluation.json")
"""What is written; the record last."""


def write(evaluation: Evaluation, out: Path) -> None:
    """Write `FILES`: each whole or absent, the record last."""
    from cbdetach.files import to_json, told, whole_file
    from cbdetach.report import plain_style
    from cbdetach.report.drawing import encoded

    bars = _bar_values(evaluation)
    content: dict[str, bytes] = {
        "evaluation.csv": evaluation.table().to_csv(index=False, lineterminator="\n").encode(),
        "evaluation_bars.csv": bars.to_csv(index=False, lineterminator="\n").encode(),
        "evaluation.json": to_json(evaluation.record()).encode(),
    }
    with plain_style():
        content |= {f"evaluation.{kind}": picture for kind, picture in encoded(bar_figure(bars), 200).items()}
    with told(out):
        (out / FILES[-1]).unlink(missing_ok=True)
        for name in FILES:
            with whole_file(out / name) as temporary:
                temporary.write_bytes(content[name])


def bar_figure(bars: DataFrame) -> Figure:
    """Six metrics on pixels and on objects, one bar for each method, with the standard deviation over images.

    bars : columns level, metric, method, mean, sd, images.
    """
    from cbdetach.report import style
    from cbdetach.report.drawing import new_figure

    colours = {"network": style.ACCENT, "watershed": style.SECOND, "intensity": style.FAINT}
    shown = [m for m in METHODS if m in set(bars["method"])]
    figure = new_figure((11.4, 3.6))
    width = 0.8 / len(shown)
    for ax, level in zip(figure.subplots(1, 2, sharey=True), ("pixels", "objects"), strict=True):
        for k, method in enumerate(shown):
            rows = bars[(bars["level"] == level) & (bars["method"] == method)]
            x = np.arange(len(SIX)) + (k - (len(shown) - 1) / 2) * width
            mean, sd = rows["mean"].to_numpy(), rows["sd"].to_numpy()
            ax.bar(x, mean, 0.92 * width, color=colours[method], label=METHODS[method], lw=0)
            known = np.isfinite(mean) & np.isfinite(sd)
            ax.errorbar(x[known], mean[known], sd[known], fmt="none", ecolor=style.INK, elinewidth=0.9, capsize=2)
        ax.set_title(level)
        ax.set_xticks(range(len(SIX)), ["precision", "sensitivity", "Jaccard", "Dice", "F measure", "MCC"])
        ax.tick_params(length=0)
        ax.grid(axis="x", visible=False)
        ax.set_ylim(0, 1.05)
    figure.axes[0].set_ylabel("mean ± standard deviation")
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(shown))
    return figure


def _bar_values(evaluation: Evaluation) -> DataFrame:
    import pandas as pd

    methods = evaluation.record()["methods"]
    return pd.DataFrame(
        [
            {"level": level, "metric": metric, "method": name, **methods[name][level][metric]}
            for level in ("pixels", "objects")
            for metric in SIX
            for name in methods
        ]
    )
