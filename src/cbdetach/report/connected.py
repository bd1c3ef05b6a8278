"""Carbon/binder by whether it leads to the anchor: where it lies, how much of it, and what that does to detachment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cbdetach import codes
from cbdetach.report import style, views
from cbdetach.report.drawing import Drawing, new_figure
from cbdetach.report.slices import place_key, slice_figure
from cbdetach.report.summary import numbers, used_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from pandas import DataFrame

    from cbdetach.report import ReportInput

Array = npt.NDArray[Any]

NO_ANCHOR = (
    "Carbon/binder was not followed to a collector: the phases hold none, and [connected] anchor names no side of the "
    "volume."
)

KINDS = {  # name -> colour; a voxel has the class of the better connectivity, corners told apart
    "connected by faces": style.CBD,
    "by edges or corners alone": "#f7dc9b",
    "leaves the volume": style.COLLECTOR,
    "isolated": "#b3193f",
}


def kind_of(by_faces: Array, by_corners: Array) -> npt.NDArray[np.int8]:
    """Index into `KINDS` of every carbon/binder voxel, -1 elsewhere; from the classes of `cbdetach.connected`."""
    kind = np.where(by_corners == 1, 1, np.where(by_corners == 2, 2, 3))
    kind = np.where(by_faces == 1, 0, kind)
    return np.where(by_corners == 0, -1, kind).astype(np.int8)


def connected_slices(run: ReportInput) -> Drawing | str:
    """Three slices with carbon/binder in the colour of its class, on pale particles."""
    from matplotlib.patches import Patch

    if run.cbd_connected is None or run.cbd_connected26 is None:
        return NO_ANCHOR
    planes = views.middle_planes(run.particles, run.phases, None, None, run.voxel_size)
    kinds = {
        plane.name: kind_of(*(views.cut(v, plane.name, plane.index) for v in (run.cbd_connected, run.cbd_connected26)))
        for plane in planes
    }
    palette = np.array([style.rgb(colour) for colour in KINDS.values()])

    def paint(plane: views.Plane, fit: Callable[[Array], Array]) -> npt.NDArray[np.float64]:
        kind, phases, labels = fit(kinds[plane.name]), fit(plane.phases), fit(plane.particles)
        picture = np.ones((*kind.shape, 3)) * style.rgb(style.BACKGROUND)
        picture[(labels > 0) | np.isin(phases, (codes.ACTIVE, codes.ACTIVE_HIGH))] = style.rgb("#d3d8dc")
        picture[views.edges(labels)] = style.rgb(style.FAINT)
        picture[phases == codes.COLLECTOR] = style.rgb(style.INK)
        picture[kind >= 0] = palette[kind[kind >= 0]]
        return picture

    plan = views.layout(run.shape, run.voxel_size)
    figure, at = slice_figure(views.canvas(planes, plan, paint), plan)
    handles = [Patch(fc=colour, label=name) for name, colour in KINDS.items()]
    if any((plane.phases == codes.COLLECTOR).any() for plane in planes):
        handles.append(Patch(fc=style.INK, label="collector"))
    place_key(figure, at, handles)
    return Drawing(
        "connected_slices",
        "Carbon/binder with a path to the anchor",
        f"Anchor: {_anchor(run)}. Only connected carbon/binder carries electrons. What touches by edges or corners "
        "alone may or may not conduct; what leaves the volume may or may not come back: it is undetermined.",
        figure,
        _slice_table(planes, kinds),
        vector=False,
    )


def connected_detachment(run: ReportInput) -> Drawing | str:
    """Shares of carbon/binder by class for both connectivities, and the detachment that follows from each."""
    import pandas as pd

    shares = (run.connected or {}).get("volume_shares")
    if not shares:
        return NO_ANCHOR
    figure = new_figure((5.6, 4.6))
    bars, ax = figure.subplots(2, 1, gridspec_kw={"height_ratios": [1, 2.6]})
    colours = {"connected": style.CBD, "undetermined": style.COLLECTOR, "isolated": "#b3193f"}
    rows: list[tuple[Any, ...]] = []
    for y, neighbours in enumerate(("26", "6")):
        left = 0.0
        for name, share in shares.get(neighbours, {}).items():
            bars.barh(y, share, left=left, height=0.62, color=colours[name], lw=0, label=name if y == 0 else None)
            if share > 0.07:
                bars.text(left + share / 2, y, f"{share:.0%}", ha="center", va="center", fontsize=8, color="white")
            rows.append((f"volume_share_{name}", int(neighbours), share, np.nan))
            left += share
    bars.set_yticks([0, 1], ["faces, edges,\ncorners (26)", "faces (6)"], fontsize=8)
    bars.set(xlim=(0, 1), xlabel="share of the carbon/binder's volume")
    bars.grid(False)
    bars.spines["left"].set_visible(False)
    bars.tick_params(length=0)
    bars.legend(loc="lower right", bbox_to_anchor=(1.01, 1.0), ncols=3, columnspacing=1.2, handlelength=1.0)

    used = used_rows(run.table)
    curves = {
        "all carbon/binder counts": ("detachment_fraction", style.FAINT, 0),
        "connected (26)": ("detachment_fraction_connected26", style.SECOND, 26),
        "connected (6)": ("detachment_fraction_connected", style.ACCENT, 6),
    }
    medians = []
    for label, (column, colour, connectivity) in curves.items():
        value = np.sort(numbers(run.table, column)[used])
        value = value[np.isfinite(value)]
        if not value.size:
            continue
        share = np.arange(1, value.size + 1) / value.size
        median = float(np.median(value))
        medians.append(median)
        ax.step(
            np.r_[0, value, 1], np.r_[0, share, 1], where="post", color=colour, label=f"{label}: {median:.2f}", lw=2
        )
        ax.plot(median, 0.5, "o", color=colour, mec="white", mew=1.2, ms=7, zorder=5)
        rows += [("detachment", connectivity, v, s) for v, s in zip(value, share, strict=True)]
    ax.set(xlabel="detachment fraction", ylabel="share of particles below", xlim=(0, 1), ylim=(0, 1))
    if medians:
        legend = ax.legend(loc="upper left" if medians[0] > 0.5 else "lower right", title="median")
        legend.get_title().set(fontsize=8.5, color=style.MUTED)
    return Drawing(
        "connected_detachment",
        "Detachment from connected carbon/binder",
        "Counting only carbon/binder that leads to the anchor by faces gives an upper bound of the detachment, by "
        f"faces, edges or corners a lower one. Undetermined contact counts "
        f"{_TREATMENT[(run.connected or {})['undetermined']]}.",
        figure,
        pd.DataFrame(rows, columns=["quantity", "connectivity", "value", "cumulative_share"]),
    )


_TREATMENT = {"apart": "in no fraction", "attached": "as attached", "detached": "as detached"}


def _anchor(run: ReportInput) -> str:
    anchor = str((run.connected or {})["anchor"])
    if anchor == "collector":
        return "the collector"
    return f"the {'first' if anchor[1] == '0' else 'last'} layer of voxels along {anchor[0]}"


def _slice_table(planes: list[views.Plane], kinds: dict[str, Array]) -> DataFrame:
    """Pixels of each kind on each slice (plane, position_um, kind, pixels, share)."""
    import pandas as pd

    rows = []
    for plane in planes:
        counts = np.bincount(kinds[plane.name].ravel() + 1, minlength=len(KINDS) + 1)[1:]
        for name, count in zip(KINDS, counts.tolist(), strict=True):
            rows.append((plane.name, plane.position_um, name, count, count / max(counts.sum(), 1)))
    return pd.DataFrame(rows, columns=["plane", "position_um", "kind", "pixels", "share"])
