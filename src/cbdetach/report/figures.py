"""The report's figures: each function takes the run and returns one drawing with its data, or one sentence why not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cbdetach.report import render, style, views
from cbdetach.report.summary import (
    BINS_PER_OCTAVE,
    MIN_PER_BIN,
    Summary,
    numbers,
    size_classes,
    used_rows,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from cbdetach.report import ReportInput

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

HALF, WIDE = (5.6, 3.5), (11.4, 3.4)  # inches: half and the whole of the page's width
TILE = 240  # pixels of one particle's picture
OBLIQUE = np.array([0.48, 0.72, -0.5])  # camera of the gallery: from above, in front, to the right
NO_CBD = "No carbon/binder contact was found on any particle, so there is no detachment to show."


@dataclass(frozen=True)
class Drawing:
    """One figure: its file name, what it says, and the data behind it."""

    name: str
    title: str
    caption: str
    figure: Figure
    table: DataFrame
    vector: bool = True  # on the page as SVG; else as PNG


# ---------------------------------------------------------------------------------------------------------------- counts


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
        ("face neither void nor CBD", summary.undefined),
        ("no contact", summary.no_contact + summary.no_length),
    ]
    if summary.no_length:
        losses[2] = ("no contact, or no length", summary.no_contact + summary.no_length)
    figure = _figure((11.4, 3.0))
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
            end = k + 0.56
            drop = min(1 - kept - lost / top, -0.02) - 0.10
            _band(ax, (k + width, end), (1 - kept, 1 - kept - lost / top), (drop, drop - lost / top), style.FAINT, 0.45)
            ax.text(end + 0.02, drop - lost / top / 2, f"{style.count(lost)} {label}", va="center", fontsize=9,
                    color=style.MUTED)  # fmt: skip
    ax.set_xlim(-0.12, len(stages) - 1 + 0.25)
    ax.set_ylim(-0.62, 1.28)
    rows = [("found", summary.found), ("cut", summary.cut), ("whole", summary.found - summary.cut),
            ("undefined", summary.undefined), ("used", summary.used), ("no_contact", summary.no_contact),
            ("no_length", summary.no_length), ("reached", summary.reached)]  # fmt: skip
    return Drawing(
        "flow",
        "From found to used",
        "Every particle found, and where it leaves the statistics. Cut: it touches the border of the volume. "
        "No contact: no way out to carbon/binder, so it has no diffusion length; its detachment counts.",
        figure,
        pd.DataFrame(rows, columns=["step", "particles"]),
    )


def detachment_distribution(run: ReportInput, summary: Summary) -> Drawing | str:
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
    figure = _figure(HALF)
    ax = figure.subplots()
    ax.bar(edges[:-1], share, width=np.diff(edges) * 0.9, align="edge", color=style.ACCENT, alpha=0.85,
           label="particles as counted", lw=0)  # fmt: skip
    ax.stairs(weighted, edges, color=style.SECOND, lw=1.6, label="weighted for the border")
    ax.axvline(summary.detachment.median, color=style.INK, lw=1.2, ls=(0, (4, 2)))
    ax.text(summary.detachment.median, 1.02, f"median {style.fraction(summary.detachment.median)}", ha="center",
            transform=ax.get_xaxis_transform(), fontsize=8.5, color=style.INK)  # fmt: skip
    ax.set(xlabel="detachment fraction", ylabel="share of particles", xlim=(0, 1))
    ax.legend(loc="upper right")
    data = pd.DataFrame({"from": edges[:-1], "to": edges[1:], "particles": np.histogram(value, edges)[0],
                         "share": share, "weighted_share": weighted})  # fmt: skip
    return Drawing(
        "detachment_distribution",
        "Detachment of all particles used",
        f"n = {style.count(summary.used)}. Large particles are cut by the border more often; the line weights each "
        "particle by the inverse of its chance to lie whole inside the volume.",
        figure,
        data,
    )


# ---------------------------------------------------------------------------------------------------------------- volume


def slices(run: ReportInput) -> list[Drawing]:
    """The three orthogonal slices, coloured four ways (two, where nothing is known about carbon/binder)."""
    from matplotlib.colors import Normalize
    from matplotlib.patches import Patch

    table = run.table
    planes = views.middle_planes(run.particles, run.phases, run.grey, run.diffusion_length, run.voxel_size)
    plan = views.layout(run.shape, run.voxel_size)
    labels = table["label"].to_numpy(dtype=np.int64)
    order = np.argsort(labels)
    cut = labels[table["touches_border"].to_numpy(dtype=bool)]
    grey = views.grey_range(planes) if run.grey is not None else None
    where = ", ".join(f"{p.name} at {style.number(p.position_um)} µm" for p in planes)

    picture = views.canvas(planes, plan, lambda plane, fit: views.outlined(plane, fit, grey, cut))
    figure, _ = _slice_figure(picture, plan, run)
    handles = [Patch(fc="none", ec="#e09b00", label="particle"), Patch(fc="none", ec="#5aa9e6", label="cut by the border")]
    _legend(figure, handles)
    ground = "Grey values" if run.grey is not None else "Phases as greys"
    drawings = [
        Drawing("slices_particles", "Particles", f"{ground} with the outlines of the particles; {where}.", figure,
                views.plane_table(planes, table, "equivalent_diameter_um"), vector=False)  # fmt: skip
    ]

    figure, _ = _slice_figure(views.canvas(planes, plan, views.phase_colours), plan, run)
    present = sorted({int(code) for plane in planes for code in np.unique(plane.phases)} & set(style.PHASES))
    _legend(figure, [Patch(fc=style.PHASES[code][1], label=style.PHASES[code][0]) for code in present])
    drawings.append(
        Drawing("slices_phases", "Phases", "What each voxel is; the colours stay the same throughout.", figure,
                views.phase_table(planes), vector=False)  # fmt: skip
    )

    value = numbers(table, "detachment_fraction")[order]
    if np.isfinite(value).any():
        colours, norm = _map(style.DETACHMENT_MAP), Normalize(0, 1)
        picture = views.canvas(
            planes, plan,
            lambda plane, fit: views.by_particle(plane, fit, labels[order], value, lambda v: colours(norm(v))[..., :3]),
        )  # fmt: skip
        figure, _ = _slice_figure(picture, plan, run)
        _colourbar(figure, colours, norm, "detachment fraction")
        drawings.append(
            Drawing("slices_detachment", "Detachment", "Each particle in the colour of its detachment; grey: none known.",
                    figure, views.plane_table(planes, table, "detachment_fraction"), vector=False)  # fmt: skip
        )

    finite = [p.length[np.isfinite(p.length)] for p in planes if p.length is not None]
    if sum(f.size for f in finite):
        top = float(np.quantile(np.concatenate(finite), 0.998)) or 1.0
        colours, norm = _map(style.LENGTH_MAP), Normalize(0, top)
        picture = views.canvas(
            planes, plan, lambda plane, fit: views.by_length(plane, fit, lambda v: colours(norm(v))[..., :3])
        )
        figure, _ = _slice_figure(picture, plan, run)
        _colourbar(figure, colours, norm, "diffusion length (µm)")
        drawings.append(
            Drawing("slices_diffusion", "Electron diffusion length",
                    "Shortest way through the solid to the contact; grey: no contact is reached.",
                    figure, views.length_table(planes), vector=False)  # fmt: skip
        )
    return drawings


# ------------------------------------------------------------------------------------------------------- grey and blur


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
    figure = _figure(HALF)
    ax = figure.subplots()
    ax.fill_between(middle, density, step="mid", color="#d5dbe0", lw=0, label="all voxels")
    data = {"from": edges[:-1], "to": edges[1:], "voxels": counts}
    caption = ""
    if thresholds:
        fitted = _class_fits(thresholds, middle)
        colours = {name: colour for name, colour in style.PHASES.values()}
        for name, curve in fitted.items():
            ax.plot(middle, curve, color=colours[name], label=name)
            data[f"fit_{name}"] = curve * width * counts.sum()
        caption = _draw_thresholds(ax, thresholds)
    ax.set(xlabel="grey value", ylabel="share per grey unit", xlim=(edges[0], edges[-1]), ylim=(0, None))
    ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    ax.yaxis.get_offset_text().set(color=style.MUTED, fontsize=8)
    ax.legend(loc="best")
    return Drawing("histogram", "Grey histogram and thresholds",
                   "One global scale for the whole volume. " + caption, figure, pd.DataFrame(data))  # fmt: skip


def edge_profile(run: ReportInput) -> Drawing | str:
    """The measured particle/void edge: how wide the instrument's blur is."""
    import pandas as pd

    profile = (run.survey or {}).get("edge_profile")
    if not profile:
        return "The phases were given, so no edge was measured." if run.grey is None else "No free edge could be measured."
    distance, grey = np.asarray(profile["distance_um"], dtype=np.float64), np.asarray(profile["grey"], dtype=np.float64)
    figure = _figure(HALF)
    ax = figure.subplots()
    width = _edge_width(run)
    if width is not None:
        ax.axvspan(-width / 2, width / 2, color=style.ACCENT, alpha=0.12, lw=0, label=f"edge width {style.number(width)} µm")
    ax.plot(distance, grey, color=style.ACCENT, marker="o", ms=3)
    for level in (0, 1):
        ax.axhline(level, color=style.FAINT, lw=0.8)
    ax.set(xlabel="distance from the surface (µm), void to particle", ylabel="grey value, void 0, particle 1")
    if width is not None:
        ax.legend(loc="upper left")
    caption = "The grey value across free surfaces of particles, measured on this volume"
    caption += "; its width is the full width at half maximum of the blur." if width is not None else "."
    return Drawing("edge_profile", "Measured edge", caption, figure,
                   pd.DataFrame({"distance_um": distance, "grey": grey}))  # fmt: skip


def cbd_thickness(run: ReportInput) -> Drawing | str:
    """The thickness of carbon/binder, beside the width that the instrument can resolve."""
    frame = run.cbd_thickness
    if frame is None or len(frame) == 0 or not np.nansum(frame["share"]) > 0:
        return "The volume holds no carbon/binder, so it has no thickness."
    thickness, share = numbers(frame, "thickness_um"), numbers(frame, "share")
    filled = np.flatnonzero(share > 0)
    keep = slice(0, min(filled[-1] + 2, share.size))
    step = float(np.median(np.diff(thickness))) if thickness.size > 1 else max(float(thickness[0]), 1e-6)
    figure = _figure(HALF)
    ax = figure.subplots()
    ax.bar(thickness[keep], share[keep], width=0.9 * step, color=style.CBD, lw=0)
    width, caption = _edge_width(run), "Local thickness of the carbon/binder along its middle."
    if width is not None:
        ax.axvline(width, color=style.ACCENT, lw=1.4)
        ax.text(width, 1.02, f"edge width {style.number(width)} µm", transform=ax.get_xaxis_transform(), ha="center",
                fontsize=8.5, color=style.ACCENT)  # fmt: skip
        below = float(share[thickness < width].sum() / share.sum())
        caption += f" {below:.0%} of it is thinner than the edge is wide: there the contact is uncertain."
    ax.axvline(min(run.voxel_size), color=style.FAINT, lw=1.2, ls=(0, (2, 2)))
    ax.set(xlabel="thickness of carbon/binder (µm); dotted: one voxel", ylabel="share", xlim=(0, None))
    return Drawing("cbd_thickness", "Carbon/binder thickness", caption, figure, frame)


# -------------------------------------------------------------------------------------------------------------- results


def detachment_size(run: ReportInput) -> Drawing | str:
    """Every particle used, and the median and quartiles by size class, n written in each."""
    used = used_rows(run.table)
    if not used.any():
        return NO_CBD
    diameter = numbers(run.table, "equivalent_diameter_um")[used]
    value = numbers(run.table, "detachment_fraction")[used]
    classes = size_classes(diameter, value)
    figure = _figure((7.4, 4.2))
    ax = figure.subplots()
    ax.scatter(diameter, value, s=9, color=style.ACCENT, alpha=0.28, lw=0, rasterized=value.size > 4000)
    ax.set_xscale("log", base=2)
    shown = classes[classes["n"] >= MIN_PER_BIN]
    middle = np.sqrt(numbers(shown, "from_um") * numbers(shown, "to_um"))
    median, q1, q3 = (numbers(shown, c) for c in ("median", "q1", "q3"))
    ax.errorbar(middle, median, yerr=(median - q1, q3 - median), color=style.SECOND, marker="o", ms=6, capsize=0, lw=2.2,
                elinewidth=2.2, label="median and quartiles")  # fmt: skip
    for low, high, n in zip(classes["from_um"], classes["to_um"], classes["n"], strict=True):
        ax.text(np.sqrt(low * high), 1.055, f"{n:,}", ha="center", fontsize=8,
                color=style.INK if n >= MIN_PER_BIN else style.FAINT)  # fmt: skip
    ax.text(0, 1.10, "n in each class", transform=ax.transAxes, fontsize=8, color=style.MUTED)
    ax.set_xticks(sorted({*classes["from_um"], *classes["to_um"]}))
    ax.xaxis.set_major_formatter(lambda tick, _: style.number(tick, 2))
    ax.minorticks_off()
    ax.set(xlabel="equivalent diameter (µm)", ylabel="detachment fraction", ylim=(-0.03, 1.1))
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.legend(loc="best")
    return Drawing(
        "detachment_size",
        "Detachment against size",
        f"One dot per particle used. Size classes have fixed edges, {BINS_PER_OCTAVE} to a doubling; a class with fewer "
        f"than {MIN_PER_BIN} particles shows its n alone. The dots are in particles.csv. A wider scatter of small "
        "particles alone is no finding: it follows from their smaller surface.",
        figure,
        classes,
    )


def detachment_threshold(run: ReportInput) -> Drawing | str:
    rows = _sensitivity(run, lambda kind: kind != "tolerance")
    if rows is None:
        return "The phases were given, so there is no threshold to move." if run.thresholds is None else NO_CBD
    figure = _figure(HALF)
    ax = figure.subplots()
    for colour, (kind, part) in zip((style.ACCENT, style.SECOND, style.MOUTH), rows.groupby("kind"), strict=False):
        _median_band(ax, part, colour, {"threshold": "both thresholds", "void_cbd": "void / CBD",
                                        "cbd_active": "CBD / active"}.get(str(kind), str(kind)))  # fmt: skip
    ax.axvline(0, color=style.FAINT, lw=1)
    ax.set(xlabel="shift of the threshold (grey units)", ylabel="detachment fraction", ylim=(0, 1))
    ax.legend(loc="best")
    return Drawing("detachment_threshold", "Detachment against threshold",
                   "Median (line) and quartiles (band) of the particles used, while the thresholds move.",
                   figure, rows)  # fmt: skip


def detachment_tolerance(run: ReportInput) -> Drawing | str:
    rows = _sensitivity(run, lambda kind: kind == "tolerance")
    if rows is None:
        return NO_CBD if not used_rows(run.table).any() else "The run record holds no other contact tolerance."
    figure = _figure(HALF)
    ax = figure.subplots()
    _median_band(ax, rows, style.ACCENT, "median and quartiles")
    for value, median in zip(rows["value"], rows["detachment_median"], strict=True):
        ax.annotate(style.fraction(median), (value, median), xytext=(0, 7), textcoords="offset points", ha="center",
                    fontsize=8.5, color=style.INK)  # fmt: skip
    ax.set(xlabel="contact tolerance (µm)", ylabel="detachment fraction", ylim=(0, 1))
    return Drawing("detachment_tolerance", "Detachment against contact tolerance",
                   "Void within the tolerance of carbon/binder counts as contact. The result of this run uses the first "
                   "value unless the settings say otherwise.", figure, rows)  # fmt: skip


def depth_profile(run: ReportInput) -> Drawing | str:
    """What the profile holds, along z; each value with its count below."""
    frame = run.profiles
    wanted = {
        "detachment_median": ("detachment,\nmedian", style.ACCENT),
        "crack_fraction": ("crack\nfraction", style.MOUTH),
        "pore_fraction": ("pore\nfraction", style.COLLECTOR),
        "crack_area_per_volume_um": ("crack area per\nvolume (1/µm)", style.SECOND),
    }
    present = [c for c in wanted if c in frame.columns and np.isfinite(numbers(frame, c)).any()]
    if len(frame) == 0 or not present:
        return "No window along the depth holds a particle, so there is no depth profile."
    depth = numbers(frame, "z_um")
    window = numbers(frame, "window_um") if "window_um" in frame.columns else np.full(depth.shape, np.nan)
    figure = _figure((7.4, 1.05 * (len(present) + 1) + 0.8))
    axes = np.atleast_1d(figure.subplots(len(present) + 1, 1, sharex=True))
    for ax, column in zip(axes, present, strict=False):
        label, colour = wanted[column]
        value = numbers(frame, column)
        ax.plot(depth, value, color=colour, marker="o", ms=4)
        low, high = column.replace("median", "q1"), column.replace("median", "q3")
        if column == "detachment_median" and {low, high} <= set(frame.columns):
            ax.fill_between(depth, numbers(frame, low), numbers(frame, high), color=colour, alpha=0.15, lw=0)
        ax.set_ylabel(label, fontsize=8)
        ax.set_ylim(0, 1 if column == "detachment_median" else max(1.15 * float(np.nanmax(value)), 1e-6))
    n = numbers(frame, "n_particles")
    bar = float(np.nanmedian(window)) if np.isfinite(window).any() else float(np.median(np.diff(depth))) if n.size > 1 else 1.0
    axes[-1].bar(depth, n, width=0.9 * bar, color="#cfd6dc", lw=0)
    for at, value in zip(depth, n, strict=True):
        axes[-1].text(at, value, f" {style.count(int(value))}" if np.isfinite(value) else "", ha="center", va="bottom",
                      fontsize=7.5 if n.size <= 24 else 5, color=style.INK)  # fmt: skip
    axes[-1].set_ylabel("particles", fontsize=8)
    axes[-1].set_ylim(0, 1.35 * max(float(np.nanmax(n)), 1))
    axes[-1].set_xlabel("depth z (µm)")
    figure.align_ylabels(list(axes))
    said = f" Windows of {style.number(bar)} µm." if np.isfinite(window).any() else ""
    return Drawing("depth_profile", "Depth profile", "Values by depth, each with the number of particles behind it." + said,
                   figure, frame)  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ particles


@dataclass(frozen=True)
class Tile:
    """One particle of the gallery: its picture (RGBA bytes, H x W x 4) and what is written beside it."""

    label: int
    picture: npt.NDArray[np.uint8]
    diameter_um: float
    detachment: float
    scale_um: float  # length of the scale bar
    scale_share: float  # of the picture's width


def gallery(run: ReportInput) -> tuple[Drawing, list[Tile]] | str:
    """Particles drawn at random (seeded) from those used, as lit surfaces coloured by what they face."""
    import pandas as pd
    from matplotlib.patches import Patch

    table = run.table
    chosen, pool = _drawn(run)
    if chosen.size == 0:
        return "No particle was found, so there is no gallery." if run.gallery else "The settings ask for no gallery."
    detachment, diameter = numbers(table, "detachment_fraction"), numbers(table, "equivalent_diameter_um")
    chosen = chosen[np.lexsort((table["label"].to_numpy()[chosen], detachment[chosen]))]
    tiles, rows = [], []
    for row in chosen:
        label = int(table["label"].iloc[row])
        shape = render.read_shape(run.particles, run.phases, label, run.boxes[row], run.voxel_size)
        camera, hits = render.look(shape, OBLIQUE, pixels=TILE)
        picture = np.rint(render.shade(hits) * 255).astype(np.uint8)
        bar = _round_length(0.3 * camera.pixel * TILE)
        tiles.append(Tile(label, picture, float(diameter[row]), float(detachment[row]), bar, bar / (camera.pixel * TILE)))
        rows.append((label, diameter[row], detachment[row], *shape.faces))
    columns = 5
    lines = -(-len(tiles) // columns)
    figure = _figure((11.4, 2.45 * lines + 0.5), layout=None)
    axes = figure.subplots(
        lines, columns, squeeze=False,
        gridspec_kw={"left": 0.01, "right": 0.99, "top": 1 - 0.04 / lines, "bottom": 0.5 / (2.45 * lines + 0.5),
                     "hspace": 0.16, "wspace": 0.04},
    )  # fmt: skip
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, tile in zip(axes.flat, tiles, strict=False):
        ax.imshow(tile.picture, interpolation="bilinear")
        x = TILE * 0.06
        ax.plot([x, x + tile.scale_share * TILE], [TILE * 0.97] * 2, color=style.INK, lw=2, solid_capstyle="butt")
        ax.text(x, TILE * 0.94, f"{style.number(tile.scale_um)} µm", fontsize=7.5, color=style.MUTED)
        ax.set_title(f"{tile.label}   ⌀ {style.number(tile.diameter_um)} µm   {style.fraction(tile.detachment)}",
                     loc="center", fontsize=8.5, pad=2)  # fmt: skip
    figure.legend(handles=[Patch(fc=c, label=n) for n, c in style.SURFACE.items()], loc="lower center",
                  ncols=len(style.SURFACE))  # fmt: skip
    drawing = Drawing(
        "gallery",
        f"{len(tiles)} particles, drawn at random",
        f"Drawn (seed {run.seed}) from {pool}, not picked; in the order of their detachment. Each is shown at its own "
        "scale, seen from above at an angle, its surface coloured by what it faces.",
        figure,
        pd.DataFrame(rows, columns=["label", "equivalent_diameter_um", "detachment_fraction",
                                    *(f"faces_{n.replace(', ', '_').replace(' ', '_').replace('/', '_')}"
                                      for n in style.SURFACE)]),
        vector=False,
    )  # fmt: skip
    return drawing, tiles


def longest_path(run: ReportInput) -> Drawing | str:
    """The particle with the longest way out, cut open along that way: the length in colour, the paths in white."""
    import pandas as pd
    from matplotlib.colors import Normalize
    from matplotlib.patheffects import Normal, Stroke

    longest = numbers(run.table, "diffusion_length_max_um")
    longest = np.where(run.table["touches_border"].to_numpy(dtype=bool) & _any_whole(run, longest), np.nan, longest)
    if run.diffusion_length is None or not np.isfinite(longest).any():
        return "No particle has a diffusion length, so there is no path to draw."
    row = int(np.nanargmax(longest))
    label, box = int(run.table["label"].iloc[row]), run.boxes[row]
    shape = render.read_shape(run.particles, run.phases, label, box, run.voxel_size)
    z0, y0, x0, z1, y1, x1 = (int(b) for b in box)
    mine = np.asarray(run.particles[z0:z1, y0:y1, x0:x1]) == label
    field = np.where(mine, np.asarray(run.diffusion_length[z0:z1, y0:y1, x0:x1], dtype=np.float32), np.nan)
    given = [np.asarray(p, dtype=np.float64) for p, owner in zip(run.paths, run.path_labels, strict=True) if owner == label]
    given = [p for p in given if len(p) > 1]
    farthest = np.array(np.unravel_index(np.nanargmax(np.where(np.isfinite(field), field, -1)), field.shape)) + box[:3]
    point, normal, direction = _opening(shape, farthest, given, run.voxel_size)
    camera, hits = render.look(shape, direction, pixels=620, cut=(point, normal))
    traced = _face_paths(field, box, hits, run.voxel_size)

    top = float(longest[row])
    colours, norm = _map(style.LENGTH_MAP), Normalize(0, top)
    picture = render.shade(hits, strength=0.9)
    length = render.sample(shape, field, box, hits.position)
    face = np.where(np.isfinite(length)[..., None], colours(norm(length))[..., :3], np.array(style.rgb("#eceff1")))
    picture[..., :3] = np.where(hits.on_cut[..., None], face, picture[..., :3])

    figure = _figure((7.6, 6.0))
    ax = figure.subplots()
    ax.set_axis_off()
    ax.imshow(picture, interpolation="bilinear")
    rows = []
    for number, path in enumerate([*traced, *given]):
        main = number >= len(traced)
        projected = camera.project(path, run.voxel_size)
        wide = 2.4 if main else 0.9
        outline = [Stroke(linewidth=wide + (1.6 if main else 0.5), foreground="#00000066"), Normal()]
        ax.plot(projected[:, 2], projected[:, 1], color="white", lw=wide, path_effects=outline, alpha=1.0 if main else 0.85)
        if main:
            ax.plot(*projected[0, [2, 1]], "o", color="white", mec=style.INK, ms=6, mew=1)
        for z, y, x in path:
            rows.append((label, number, "farthest" if main else "face", z, y, x))
    bar = _round_length(0.25 * camera.pixel * camera.size[1])
    at = 0.95 * camera.size[0]
    ax.plot([20, 20 + bar / camera.pixel], [at, at], color=style.INK, lw=2.5, solid_capstyle="butt")
    ax.text(20, at - 10, f"{style.number(bar)} µm", fontsize=8.5, color=style.MUTED)
    _colourbar(figure, colours, norm, "electron diffusion length (µm)", axes=ax)
    said = ""
    if given:
        steps = np.diff(given[0], axis=0) * run.voxel_size
        walked = float(np.sqrt((steps**2).sum(axis=1)).sum())
        said = f" The thick line starts at the farthest voxel; it is {style.number(walked)} µm long."
    return Drawing(
        "longest_path",
        f"The longest way out: particle {label}",
        f"Cut open through its farthest voxel, {style.number(top)} µm from the contact "
        f"(diameter {style.number(float(numbers(run.table, 'equivalent_diameter_um')[row]))} µm, detachment "
        f"{style.fraction(float(numbers(run.table, 'detachment_fraction')[row]))}). On the cut, colour is the length of "
        "the shortest way to carbon/binder; white lines are such ways, drawn on top where they leave the cut." + said,
        figure,
        pd.DataFrame(rows, columns=["label", "path", "start", "z_index", "y_index", "x_index"]),
        vector=False,
    )


# ---------------------------------------------------------------------------------------------------------------- parts


def _figure(size: tuple[float, float], layout: Any = "constrained") -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout=layout)


def _map(name: str) -> Colormap:
    import matplotlib

    return matplotlib.colormaps[name]


def _band(
    ax: Axes, x: tuple[float, float], start: tuple[float, float], end: tuple[float, float], colour: str, alpha: float
) -> None:
    """A band that leaves between two heights and arrives between two others, with level ends."""
    t = np.linspace(0, 1, 40)
    s = t * t * (3 - 2 * t)
    at = x[0] + (x[1] - x[0]) * t
    upper, lower = start[0] + (end[0] - start[0]) * s, start[1] + (end[1] - start[1]) * s
    ax.fill_between(at, lower, upper, color=colour, alpha=alpha, lw=0)


def _slice_figure(picture: Floats, plan: views.Layout, run: ReportInput) -> tuple[Figure, Axes]:
    """The canvas of three slices with axis names and a scale bar, and a strip below it for legend or colours."""
    rows, columns = plan.shape
    width = 5.6
    strip = 0.62
    height = width * rows / columns
    figure = _figure((width, height + strip), layout=None)
    ax = figure.add_axes((0, strip / (height + strip), 1, height / (height + strip)))
    ax.set_axis_off()
    ax.imshow(np.rint(picture * 255).astype(np.uint8), interpolation="antialiased")
    z, y, x = plan.extent
    note = {"fontsize": 8, "color": "white", "bbox": {"fc": "#1f2933", "ec": "none", "alpha": 0.62, "pad": 2.2}}
    for name in views.PLANES:
        top, left = plan.corner(name)
        ax.text(left + 9, top + 9, name, va="top", **note)
    bar = _round_length(0.22 * plan.pixel_um * x)
    bottom, left = y - 22, 22
    ax.add_patch(_box(left - 10, bottom - 32, max(bar / plan.pixel_um, 70) + 20, 44))
    ax.plot([left, left + bar / plan.pixel_um], [bottom, bottom], color="white", lw=2.2, solid_capstyle="butt")
    ax.text(left, bottom - 8, f"{style.number(bar)} µm", fontsize=8, color="white")
    return figure, ax


def _box(x: float, y: float, width: float, height: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, fc="#1f2933", ec="none", alpha=0.62)


def _legend(figure: Figure, handles: Sequence[Any]) -> None:
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), fontsize=8.5, handlelength=1.2,
                  columnspacing=1.4)  # fmt: skip


def _colourbar(figure: Figure, colours: Colormap, norm: Any, label: str, axes: Axes | None = None) -> None:
    from matplotlib.cm import ScalarMappable

    mappable = ScalarMappable(norm, colours)
    if axes is not None:
        bar = figure.colorbar(mappable, ax=axes, shrink=0.6, aspect=28, pad=0.02)
    else:
        height = figure.get_size_inches()[1]
        bar = figure.colorbar(mappable, cax=figure.add_axes((0.2, 0.40 / height, 0.6, 0.10 / height)),
                              orientation="horizontal")  # fmt: skip
    bar.outline.set_visible(False)
    bar.ax.grid(False)
    bar.ax.tick_params(length=0, labelsize=8)
    bar.set_label(label, fontsize=8.5, labelpad=1 if axes is None else 4)


def _round_length(most: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above `most`."""
    power = 10.0 ** np.floor(np.log10(most))
    return float(power * max(k for k in (1, 2, 5) if k * power <= most * (1 + 1e-9)))


def _rebin(counts: Floats, edges: Floats, most: int = 256) -> tuple[Floats, Floats]:
    """Neighbouring classes together until at most `most` lie between the first and the last that matter (1e-5 tails)."""
    share = np.cumsum(counts) / max(counts.sum(), 1)
    first = max(int(np.searchsorted(share, 1e-5)) - 1, 0)
    last = min(int(np.searchsorted(share, 1 - 1e-5)) + 2, counts.size)
    counts, edges = counts[first:last], edges[first : last + 1]
    step = -(-counts.size // most)
    starts = np.arange(0, counts.size, step)
    return np.add.reduceat(counts, starts), np.append(edges[starts], edges[-1])


def _class_fits(thresholds: dict[str, Any], grey: Floats) -> dict[str, Floats]:
    """Gaussian of each class, scaled by its share of the voxels."""
    classes = zip(("void", "carbon/binder", "active"), thresholds["means"], thresholds["sds"], thresholds["weights"], strict=True)
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
    width = (run.survey or {}).get("edge_width_um")
    return float(width) if width is not None and np.isfinite(width) else None


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


def _drawn(run: ReportInput) -> tuple[npt.NDArray[np.int64], str]:
    """Rows of the gallery's particles and, in words, what they were drawn from: the used, else the whole, else all."""
    whole = ~run.table["touches_border"].to_numpy(dtype=bool)
    pools = (
        (used_rows(run.table), "the particles used"),
        (whole, "the whole particles"),
        (np.ones(len(run.table), dtype=bool), "all particles"),
    )
    mask, name = next(((mask, name) for mask, name in pools if mask.any()), pools[-1])
    rows = np.flatnonzero(mask)
    generator = np.random.default_rng(run.seed)
    return generator.permutation(rows)[: run.gallery], f"{name} ({style.count(rows.size)})"


def _any_whole(run: ReportInput, values: Floats) -> bool:
    whole = ~run.table["touches_border"].to_numpy(dtype=bool)
    return bool((whole & np.isfinite(values)).any())


def _opening(
    shape: render.Shape, farthest: Array, paths: list[Floats], spacing: tuple[float, float, float]
) -> tuple[Floats, Floats, Floats]:
    """Where to cut: a plane through the farthest voxel, the end of its path and (nearly) the particle's centre; the side
    with less of the particle is taken away, and the camera looks at the cut a little from above and from the side."""
    at = np.argwhere(shape.inside > 0.5) * shape.step + shape.first
    physical = at * spacing
    centre = physical.mean(axis=0)
    start = farthest * np.asarray(spacing)
    end = paths[0][-1] * spacing if paths else 2 * centre - start
    along, across = end - start, centre - start
    normal = np.cross(along, across)
    if np.linalg.norm(normal) < 0.05 * np.linalg.norm(along) * np.linalg.norm(across) + 1e-9:
        normal = np.linalg.svd(physical - centre, full_matrices=False)[2][2]  # the particle's flattest direction
        normal = normal - along * (normal @ along) / max(float(along @ along), 1e-12)
    normal /= np.linalg.norm(normal)
    if ((physical - start) @ normal > 0).mean() > 0.5:
        normal = -normal
    helper = np.array([1.0, 0.0, 0.0]) if abs(normal[0]) < 0.8 else np.array([0.0, 1.0, 0.0])
    side = np.cross(normal, helper)
    side /= np.linalg.norm(side)
    up = np.cross(side, normal)
    direction = -(normal + 0.30 * side + 0.22 * up)
    return farthest.astype(np.float64), normal, direction / np.linalg.norm(direction)


def _face_paths(field: Array, box: Array, hits: render.Hits, spacing: tuple[float, float, float]) -> list[Floats]:
    """Optimal paths from about 40 points spread over the cut."""
    import voxkernels as vk

    inside = hits.on_cut.nonzero()
    if inside[0].size == 0:
        return []
    pace = max(int(np.sqrt(inside[0].size / 40)), 1)
    rows, columns = (np.arange(pace // 2, n, pace) for n in hits.on_cut.shape)
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    grid = grid[hits.on_cut[grid[:, 0], grid[:, 1]]]
    starts = hits.position[grid[:, 0], grid[:, 1]] - box[:3]
    nearest = np.clip(np.rint(starts).astype(np.int64), 0, np.array(field.shape) - 1)
    starts = starts[np.isfinite(field[tuple(nearest.T)])]
    if starts.size == 0:
        return []
    return [path + box[:3] for path in vk.trace_paths(field, starts, spacing=spacing) if len(path) > 1]
