"""Pictures of the volume: three orthogonal slices, coloured by particle, phase, detachment and diffusion length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cbdetach.report import style, views
from cbdetach.report.drawing import Drawing, colour_map, colourbar, new_figure, round_length
from cbdetach.report.summary import numbers

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from cbdetach.report import ReportInput

Floats = npt.NDArray[np.float64]
KEY_PIXELS = 260  # the empty quarter of the slices holds their key if it is at least so wide


def slices(run: ReportInput) -> list[Drawing]:
    """The three orthogonal slices, coloured four ways (two, where nothing is known about carbon/binder)."""
    planes = views.middle_planes(run.particles, run.phases, run.grey, run.diffusion_length, run.voxel_size)
    plan = views.layout(run.shape, run.voxel_size)
    every = (
        _particles(run, planes, plan),
        _phases(planes, plan),
        _detachment(run, planes, plan),
        _lengths(planes, plan),
    )
    return [drawing for drawing in every if drawing is not None]


def _particles(run: ReportInput, planes: list[views.Plane], plan: views.Layout) -> Drawing:
    from matplotlib.patches import Patch

    cut = run.table["label"].to_numpy(dtype=np.int64)[run.table["touches_border"].to_numpy(dtype=bool)]
    grey = views.grey_range(planes) if run.grey is not None else None
    picture = views.canvas(planes, plan, lambda plane, fit: views.outlined(plane, fit, grey, cut))
    figure, at = slice_figure(picture, plan)
    place_key(
        figure,
        at,
        [
            Patch(fc="none", ec=style.OUTLINE, lw=2, label="particle"),
            Patch(fc="none", ec=style.OUTLINE_CUT, lw=2, label="cut by the border"),
        ],
    )
    ground = "Grey values" if run.grey is not None else "Phases as greys"
    where = ", ".join(f"{p.name} at {style.number(p.position_um)} µm" for p in planes)
    return Drawing(
        "slices_particles",
        "Particles",
        f"{ground} with the outlines of the particles; {where}.",
        figure,
        views.plane_table(planes, run.table, "equivalent_diameter_um"),
        vector=False,
    )


def _phases(planes: list[views.Plane], plan: views.Layout) -> Drawing:
    from matplotlib.patches import Patch

    figure, at = slice_figure(views.canvas(planes, plan, views.phase_colours), plan)
    present = sorted({int(code) for plane in planes for code in np.unique(plane.phases)} & set(style.PHASES))
    place_key(figure, at, [Patch(fc=style.PHASES[code][1], label=style.PHASES[code][0]) for code in present])
    return Drawing(
        "slices_phases",
        "Phases",
        "What each voxel is; the colours stay the same throughout.",
        figure,
        views.phase_table(planes),
        vector=False,
    )


def _detachment(run: ReportInput, planes: list[views.Plane], plan: views.Layout) -> Drawing | None:
    from matplotlib.colors import Normalize

    labels = run.table["label"].to_numpy(dtype=np.int64)
    order = np.argsort(labels)
    value = numbers(run.table, "detachment_fraction")[order]
    if not np.isfinite(value).any():
        return None
    colours, norm = colour_map(style.DETACHMENT_MAP), Normalize(0, 1)
    picture = views.canvas(
        planes,
        plan,
        lambda plane, fit: views.by_particle(plane, fit, labels[order], value, lambda v: colours(norm(v))[..., :3]),
    )
    figure, at = slice_figure(picture, plan)
    place_scale(figure, at, colours, norm, "detachment fraction")
    return Drawing(
        "slices_detachment",
        "Detachment",
        "Each particle in the colour of its detachment; grey: none known.",
        figure,
        views.plane_table(planes, run.table, "detachment_fraction"),
        vector=False,
    )


def _lengths(planes: list[views.Plane], plan: views.Layout) -> Drawing | None:
    from matplotlib.colors import Normalize

    finite = [p.length[np.isfinite(p.length)] for p in planes if p.length is not None]
    if not sum(f.size for f in finite):
        return None
    top = float(np.quantile(np.concatenate(finite), 0.998)) or 1.0
    colours, norm = colour_map(style.LENGTH_MAP), Normalize(0, top)
    picture = views.canvas(
        planes, plan, lambda plane, fit: views.by_length(plane, fit, lambda v: colours(norm(v))[..., :3])
    )
    figure, at = slice_figure(picture, plan)
    place_scale(figure, at, colours, norm, "diffusion length (µm)")
    return Drawing(
        "slices_diffusion",
        "Electron diffusion length",
        "Shortest way through the solid to the contact; grey: no contact is reached.",
        figure,
        views.length_table(planes),
        vector=False,
    )


def slice_figure(picture: Floats, plan: views.Layout) -> tuple[Figure, tuple[float, float]]:
    """The canvas of three slices with their names and a scale bar; and where its key belongs (middle, in inches from
    the lower left): the empty quarter, or, where that is too small, a strip below."""
    rows, columns = plan.shape
    z, y, x = plan.extent
    width = 5.6
    strip = 0.0 if z >= KEY_PIXELS else 0.62
    height = width * rows / columns
    figure = new_figure((width, height + strip), layout=None)
    ax = figure.add_axes((0, strip / (height + strip), 1, height / (height + strip)))
    ax.set_axis_off()
    ax.imshow(np.rint(picture * 255).astype(np.uint8), interpolation="antialiased")
    dark = {"fc": style.INK, "ec": "none", "alpha": 0.66}
    for name in views.PLANES:
        top, left = plan.corner(name)
        ax.text(left + 9, top + 9, name, va="top", fontsize=8, color="white", bbox={**dark, "pad": 2.2})
    length = round_length(0.3 * plan.pixel_um * x)
    bar, box = length / plan.pixel_um, max(length / plan.pixel_um, 90) + 24
    ax.add_patch(_box(8, y - 56, box, 48))
    ax.plot([8 + (box - bar) / 2, 8 + (box + bar) / 2], [y - 18] * 2, color="white", lw=2.4, solid_capstyle="butt")
    ax.text(8 + box / 2, y - 25, f"{length:g} µm", fontsize=8, color="white", ha="center")
    if strip:
        return figure, (width / 2, strip / 2)
    scale = width / columns
    return figure, (width - z * scale / 2, z * scale / 2)


def _box(x: float, y: float, width: float, height: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, fc=style.INK, ec="none", alpha=0.66)


def place_key(figure: Figure, at: tuple[float, float], handles: Sequence[Any]) -> None:
    """A legend whose middle lies at `at`, in one row where it lies in the strip below the slices."""
    width, height = figure.get_size_inches()
    figure.legend(
        handles=handles,
        loc="center",
        bbox_to_anchor=(at[0] / width, at[1] / height),
        fontsize=9,
        ncols=len(handles) if at[1] < 0.5 else 1,
        handlelength=1.2,
        labelspacing=0.8,
    )


def place_scale(figure: Figure, at: tuple[float, float], colours: Colormap, norm: Any, label: str) -> None:
    """A level colour bar whose middle lies at `at`."""
    width, height = figure.get_size_inches()
    long = min(3.2, 1.5 * (width - at[0]))
    place = ((at[0] - long / 2) / width, (at[1] + 0.06) / height, long / width, 0.11 / height)
    colourbar(figure, colours, norm, label, cax=figure.add_axes(place), orientation="horizontal")
