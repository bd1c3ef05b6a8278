"""Figures of damage: where cracks are on three slices, and by distance to the outer surface."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cbdetach import codes
from cbdetach.report import pictures, style, views
from cbdetach.report.drawing import Drawing, colour_map, new_figure
from cbdetach.report.summary import numbers

if TYPE_CHECKING:
    from pandas import DataFrame

    from cbdetach.report import ReportInput

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


def damage_slices(run: ReportInput) -> Drawing | str:
    """The degree of damage on the three middle slices; cracks and pores in dark."""
    from matplotlib.colors import Normalize

    if run.damage is None:
        return "The run has no damage map."
    planes = views.middle_planes(run.particles, run.phases, None, run.damage, run.voxel_size)
    known = np.concatenate([p.length[np.isfinite(p.length)] for p in planes if p.length is not None])
    if not known.size:
        return "No particle lies on the middle slices, so there is no damage map to show."
    colours, norm = colour_map(style.DAMAGE_MAP), Normalize(0, float(np.quantile(known, 0.998)) or 1.0)
    plan = views.layout(run.shape, run.voxel_size)
    picture = views.canvas(planes, plan, lambda plane, fit: _by_damage(plane, fit, lambda v: colours(norm(v))[..., :3]))
    figure, at = pictures.slice_figure(picture, plan)
    pictures.place_scale(figure, at, colours, norm, "crack surface per volume (1/µm)")
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
