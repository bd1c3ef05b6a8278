"""One figure with its words and its data, and the few parts that all figures share."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True)
class Drawing:
    """One figure: its file name, what it says, and the data behind it."""

    name: str
    title: str
    caption: str
    figure: Figure
    table: DataFrame
    vector: bool = True  # on the page as SVG; else as PNG
    place: str = "half"  # of the page's width; or "wide": the whole; or "aside": two thirds, the caption beside


DPI = 190

HALF, WIDE = (5.6, 3.5), (11.4, 3.4)
"""Inches: half and the whole of the page's width."""

NO_CBD = "No carbon/binder contact was found on any particle, so there is no detachment to show."


def save(folder: Path, drawing: Drawing) -> dict[str, bytes]:
    """Write the figure as `folder/name.png`, `.svg` and `.csv`, equal bytes for equal input; the pictures' bytes."""
    from cbdetach.files import whole_file

    pictures = encoded(drawing.figure, DPI)
    for kind, content in pictures.items():
        with whole_file(folder / f"{drawing.name}.{kind}") as temporary:
            temporary.write_bytes(content)
    with whole_file(folder / f"{drawing.name}.csv") as temporary:
        drawing.table.to_csv(temporary, index=False, lineterminator="\n")
    return pictures


def encoded(figure: Figure, dpi: int) -> dict[str, bytes]:
    """A figure as the bytes of a PNG and an SVG, by these names: equal bytes for equal figures."""
    pictures = {}
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
        figure.set_layout_engine("none")  # the same places in both files
        pictures[kind] = buffer.getvalue()
    return pictures


def new_figure(size: tuple[float, float], layout: Any = "constrained") -> Figure:
    """An empty figure of `size` inches, drawn without a window."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout=layout)


def colour_map(name: str) -> Colormap:
    """A colour map of matplotlib by name."""
    import matplotlib

    return matplotlib.colormaps[name]


def colourbar(figure: Figure, colours: Colormap, norm: Any, label: str, **place: Any) -> None:
    """A thin colour bar for `norm`, with its label, at a place of the figure."""
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(ScalarMappable(norm, colours), **place)
    bar.outline.set_visible(False)
    bar.ax.grid(False)
    bar.ax.tick_params(length=0, labelsize=8)
    bar.set_label(label, fontsize=8.5, labelpad=3)


def round_length(most: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above `most`."""
    power = 10.0 ** np.floor(np.log10(most))
    return float(power * max(k for k in (1, 2, 5) if k * power <= most * (1 + 1e-9)))


def legend_above(ax: Axes, offset: float = 0.0) -> None:
    """The legend above the plot, where it hides nothing."""
    handles, _ = ax.get_legend_handles_labels()
    ax.legend(
        loc="lower right",
        bbox_to_anchor=(1.01, 0.99 + offset),
        ncols=max(len(handles), 1),
        columnspacing=1.2,
        handlelength=1.4,
        borderaxespad=0.2,
    )


def note_above(ax: Axes, x: float, text: str, *, colour: str | None = None, lift: float = 3) -> None:
    """Small text above the plot, over the value `x`."""
    from cbdetach.report import style

    ax.annotate(
        text,
        (x, 1),
        (0, lift),
        ax.get_xaxis_transform(),
        "offset points",
        ha="center",
        fontsize=7.5,
        color=colour or style.INK,
    )


def size_axis(ax: Axes, edges: Any) -> None:
    """Diameters on a logarithmic axis with ticks at the edges of the size classes."""
    from cbdetach.report import style

    ax.set_xscale("log", base=2)
    ax.set_xticks(list(edges))
    ax.xaxis.set_major_formatter(lambda tick, _: style.number(tick, 2))
    ax.minorticks_off()
    ax.set(xlabel="equivalent diameter (µm)", xlim=(edges[0], edges[-1]))


def volume_axis(ax: Axes) -> None:
    """Volumes on a logarithmic axis with plain numbers at 1, 2 and 5 times powers of ten."""
    from matplotlib.ticker import LogLocator

    from cbdetach.report import style

    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(lambda tick, _: style.number(tick, 2))
    ax.minorticks_off()
    ax.set_xlabel("volume (µm³)")
