"""Figures of damage: where cracks are on three slices, by depth, and by distance to the outer surface."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cbdetach import codes
from cbdetach.report import slices, style, views
from cbdetach.report.drawing import Drawing, colour_map, new_figure, note_above
from cbdetach.report.summary import numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame, Series

    from cbdetach.report import ReportInput

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


def damage_slices(run: ReportInput) -> Drawing | str:
    """The degree of damage on the three middle slices; cracks and pores in dark."""
    from matplotlib.colors import Normalize
    from matplotlib.patches import Patch

    if run.damage is None:
        return "The run has no damage map."
    planes = views.middle_planes(run.particles, run.phases, None, run.damage, run.voxel_size)
    known = np.concatenate([p.length[np.isfinite(p.length)] for p in planes if p.length is not None])
    if not known.size:
        return "No particle lies on the middle slices, so there is no damage map to show."
    colours, norm = colour_map(style.DAMAGE_MAP), Normalize(0, float(np.quantile(known, 0.998)) or 1.0)
    plan = views.layout(run.shape, run.voxel_size)
    picture = views.canvas(planes, plan, lambda plane, fit: _by_damage(plane, fit, lambda v: colours(norm(v))[..., :3]))
    figure, at = slices.slice_figure(picture, plan)
    slices.place_scale(figure, at, colours, norm, "crack surface per volume (1/µm)")
    if plan.extent[0] >= slices.KEY_PIXELS:  # else there is room for the scale alone
        slices.place_key(figure, (at[0], at[1] + 0.5), [Patch(fc=style.INK, label="crack, pore or notch")])
    return Drawing(
        "damage_slices",
        "Degree of damage",
        "Crack surface per volume of particle in the window around each voxel, on the three middle slices; "
        "black: cracks, pores and notches.",
        figure,
        _table(planes),
        vector=False,
    )


def _by_damage(plane: views.Plane, fit: Callable[[Array], Array], colours: Callable[[Floats], Floats]) -> Floats:
    assert plane.length is not None
    shown, value = fit(plane.particles), fit(plane.length).astype(np.float64)
    picture = np.empty((*shown.shape, 3))
    picture[:] = style.rgb(style.BACKGROUND)
    finite = np.isfinite(value)
    picture[finite] = colours(value[finite])
    picture[(shown > 0) & ~np.isin(fit(plane.phases), (codes.ACTIVE, codes.ACTIVE_HIGH))] = style.rgb(style.INK)
    picture[views.edges(shown)] = 1.0
    return picture


def _table(planes: list[views.Plane]) -> DataFrame:
    """Distribution of the degree of damage on each slice."""
    import pandas as pd

    rows = []
    for plane in planes:
        assert plane.length is not None
        finite = plane.length[np.isfinite(plane.length)].astype(np.float64)
        quartiles = np.quantile(finite, (0.25, 0.5, 0.75, 1.0)) if finite.size else np.full(4, np.nan)
        rows.append((plane.name, plane.position_um, finite.size, *quartiles))
    names = ("q1", "median", "q3", "max")
    return pd.DataFrame(rows, columns=["plane", "position_um", "pixels", *(f"damage_{n}_1_um" for n in names)])


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


def radial_profile(run: ReportInput) -> Drawing | str:
    """Cracks, pores and crack surface by distance to the outer surface, with intervals over particles."""
    frame = run.radial
    if frame is None or not len(frame):
        return "No particle lies whole inside the volume, so there is no radial profile."
    low, high = numbers(frame, "depth_from_um"), numbers(frame, "depth_to_um")
    middle = np.where(np.isfinite(high), (low + high) / 2, low)
    wanted = (
        ("crack_fraction", "crack\nfraction", style.MOUTH),
        ("pore_fraction", "pore\nfraction", style.COLLECTOR),
        ("crack_area_per_volume_1_um", "crack area per\nvolume (1/µm)", style.SECOND),
    )
    figure = new_figure((7.4, 4.6))
    axes = figure.subplots(len(wanted), 1, sharex=True)
    for ax, (column, label, colour) in zip(axes, wanted, strict=True):
        ax.fill_between(
            middle, numbers(frame, f"{column}_low"), numbers(frame, f"{column}_high"), color=colour, alpha=0.15, lw=0
        )
        ax.plot(middle, numbers(frame, column), color=colour, marker="o", ms=4)
        ax.set_ylabel(label, fontsize=8)
        highest = np.concatenate([numbers(frame, column), numbers(frame, f"{column}_high")])
        ax.set_ylim(0, max(1.15 * float(np.nanmax(highest)), 1e-6))
    for x, n in list(zip(middle, frame["particles"], strict=True))[:: -(-len(frame) // 20)]:
        place = (axes[0].get_xaxis_transform(), "offset points")
        axes[0].annotate(style.count(int(n)), (x, 1), (0, 3), *place, ha="center", fontsize=7.5, color=style.INK)
    axes[-1].set(xlabel="distance to the outer surface (µm); above: particles that reach so deep", xlim=(0, None))
    figure.align_ylabels(list(axes))
    return Drawing(
        "radial_profile",
        "Radial profile",
        "Damage of whole particles by layers of the distance to their own outer surface; bands are 95 % intervals with "
        "the particle as the unit.",
        figure,
        frame,
        place="aside",
    )


def _counts_above(ax: Axes, at: Floats, counts: Series[int]) -> None:
    """The number of particles of each window above the plot; of every k-th, where they would not fit."""
    ax.annotate("n", (0, 1), (-32, 3), "axes fraction", "offset points", ha="right", fontsize=7.5, color=style.MUTED)
    for x, n in list(zip(at, counts, strict=True))[:: -(-at.size // 20)]:
        note_above(ax, float(x), style.count(int(n)))
