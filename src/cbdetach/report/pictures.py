"""The report's pictures: slices of the volume, particles at random, and the longest path; each with its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cbdetach.report import render, style, views
from cbdetach.report.drawing import Drawing, colour_map, colourbar, new_figure, round_length
from cbdetach.report.summary import numbers, used_rows

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from cbdetach.report import ReportInput

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

KEY_PIXELS = 260  # the empty quarter of the slices holds their key if it is at least so wide
TILE = 240  # pixels of one particle's picture
OBLIQUE = np.array([0.48, -0.72, -0.5])  # camera of the gallery: z down, x to the right, seen a little from above


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
    drawings = [
        Drawing(
            "slices_particles",
            "Particles",
            f"{ground} with the outlines of the particles; {where}.",
            figure,
            views.plane_table(planes, table, "equivalent_diameter_um"),
            vector=False,
        )
    ]

    figure, at = slice_figure(views.canvas(planes, plan, views.phase_colours), plan)
    present = sorted({int(code) for plane in planes for code in np.unique(plane.phases)} & set(style.PHASES))
    place_key(figure, at, [Patch(fc=style.PHASES[code][1], label=style.PHASES[code][0]) for code in present])
    drawings.append(
        Drawing(
            "slices_phases",
            "Phases",
            "What each voxel is; the colours stay the same throughout.",
            figure,
            views.phase_table(planes),
            vector=False,
        )
    )

    value = numbers(table, "detachment_fraction")[order]
    if np.isfinite(value).any():
        colours, norm = colour_map(style.DETACHMENT_MAP), Normalize(0, 1)
        picture = views.canvas(
            planes,
            plan,
            lambda plane, fit: views.by_particle(plane, fit, labels[order], value, lambda v: colours(norm(v))[..., :3]),
        )
        figure, at = slice_figure(picture, plan)
        place_scale(figure, at, colours, norm, "detachment fraction")
        drawings.append(
            Drawing(
                "slices_detachment",
                "Detachment",
                "Each particle in the colour of its detachment; grey: none known.",
                figure,
                views.plane_table(planes, table, "detachment_fraction"),
                vector=False,
            )
        )

    finite = [p.length[np.isfinite(p.length)] for p in planes if p.length is not None]
    if sum(f.size for f in finite):
        top = float(np.quantile(np.concatenate(finite), 0.998)) or 1.0
        colours, norm = colour_map(style.LENGTH_MAP), Normalize(0, top)
        picture = views.canvas(
            planes, plan, lambda plane, fit: views.by_length(plane, fit, lambda v: colours(norm(v))[..., :3])
        )
        figure, at = slice_figure(picture, plan)
        place_scale(figure, at, colours, norm, "diffusion length (µm)")
        drawings.append(
            Drawing(
                "slices_diffusion",
                "Electron diffusion length",
                "Shortest way through the solid to the contact; grey: no contact is reached.",
                figure,
                views.length_table(planes),
                vector=False,
            )
        )
    return drawings


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
        bar = round_length(0.3 * camera.pixel * TILE)
        tiles.append(
            Tile(label, picture, float(diameter[row]), float(detachment[row]), bar, bar / (camera.pixel * TILE))
        )
        rows.append((label, diameter[row], detachment[row], *shape.faces))
    columns = 5
    lines = -(-len(tiles) // columns)
    figure = new_figure((11.4, 2.45 * lines + 0.5), layout=None)
    axes = figure.subplots(
        lines,
        columns,
        squeeze=False,
        gridspec_kw={
            "left": 0.01,
            "right": 0.99,
            "top": 1 - 0.04 / lines,
            "bottom": 0.5 / (2.45 * lines + 0.5),
            "hspace": 0.16,
            "wspace": 0.04,
        },
    )
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, tile in zip(axes.flat, tiles, strict=False):
        ax.imshow(tile.picture, interpolation="bilinear")
        x = TILE * 0.06
        ax.plot([x, x + tile.scale_share * TILE], [TILE * 0.97] * 2, color=style.INK, lw=2, solid_capstyle="butt")
        ax.text(x, TILE * 0.94, f"{tile.scale_um:g} µm", fontsize=7.5, color=style.MUTED)
        ax.set_title(
            f"{tile.label}   ⌀ {style.number(tile.diameter_um)} µm   {style.fraction(tile.detachment)}",
            loc="center",
            fontsize=8.5,
            pad=2,
        )
    figure.legend(
        handles=[Patch(fc=c, label=n) for n, c in style.SURFACE.items()], loc="lower center", ncols=len(style.SURFACE)
    )
    drawing = Drawing(
        "gallery",
        f"{len(tiles)} particles, drawn at random",
        f"Drawn (seed {run.seed}) from {pool}, not picked; in the order of their detachment. Each is shown at its own "
        "scale, seen from above at an angle, its surface coloured by what it faces.",
        figure,
        pd.DataFrame(
            rows,
            columns=[
                "label",
                "equivalent_diameter_um",
                "detachment_fraction",
                *(f"faces_{n.replace(', ', '_').replace(' ', '_').replace('/', '_')}" for n in style.SURFACE),
            ],
        ),
        vector=False,
    )
    return drawing, tiles


NO_PATH = "No particle has a diffusion length, so there is no path to draw."


def longest(run: ReportInput) -> int | None:
    """Row of the particle with the longest way to its contact, whole if any is; None where no particle has one."""
    length = numbers(run.table, "diffusion_length_max_um")
    length = np.where(run.table["touches_border"].to_numpy(dtype=bool) & _any_whole(run, length), np.nan, length)
    return int(np.nanargmax(length)) if run.diffusion_length is not None and np.isfinite(length).any() else None


def longest_path(run: ReportInput) -> Drawing | str:
    """The particle with the longest way out, cut open along that way: the length in colour, the paths in white."""
    import pandas as pd
    from matplotlib.colors import Normalize
    from matplotlib.patheffects import Normal, Stroke

    row = longest(run)
    if row is None:
        return NO_PATH
    label, box = int(run.table["label"].iloc[row]), run.boxes[row]
    shape = render.read_shape(run.particles, run.phases, label, box, run.voxel_size)
    z0, y0, x0, z1, y1, x1 = (int(b) for b in box)
    mine = np.asarray(run.particles[z0:z1, y0:y1, x0:x1]) == label
    assert run.diffusion_length is not None
    field = np.where(mine, np.asarray(run.diffusion_length[z0:z1, y0:y1, x0:x1], dtype=np.float32), np.nan)
    given = [
        np.asarray(p, dtype=np.float64) for p, owner in zip(run.paths, run.path_labels, strict=True) if owner == label
    ]
    given = [p for p in given if len(p) > 1]
    farthest = np.array(np.unravel_index(np.nanargmax(np.where(np.isfinite(field), field, -1)), field.shape)) + box[:3]
    point, normal, direction = _opening(shape, farthest, given, run.voxel_size)
    camera, hits = render.look(shape, direction, pixels=620, cut=(point, normal))
    traced = _face_paths(field, box, hits, run.voxel_size)

    top = float(numbers(run.table, "diffusion_length_max_um")[row])
    colours, norm = colour_map(style.LENGTH_MAP), Normalize(0, top)
    picture = render.shade(hits, strength=0.9)
    length = render.sample(field, box, hits.position)
    face = np.where(np.isfinite(length)[..., None], colours(norm(length))[..., :3], np.array(style.rgb("#eceff1")))
    picture[..., :3] = np.where(hits.on_cut[..., None], face, picture[..., :3])

    figure = new_figure((7.6, 6.0))
    ax = figure.subplots()
    ax.set_axis_off()
    ax.imshow(picture, interpolation="bilinear")
    rows = []
    for number, path in enumerate([*traced, *given]):
        main = number >= len(traced)
        projected = camera.project(path, run.voxel_size)
        wide = 2.4 if main else 0.9
        outline = [Stroke(linewidth=wide + (1.6 if main else 0.5), foreground="#00000066"), Normal()]
        ax.plot(
            projected[:, 2], projected[:, 1], color="white", lw=wide, path_effects=outline, alpha=1.0 if main else 0.85
        )
        if main:
            ax.plot(*projected[0, [2, 1]], "o", color="white", mec=style.INK, ms=6, mew=1)
        for z, y, x in path:
            rows.append((label, number, "farthest" if main else "face", z, y, x))
    bar = round_length(0.25 * camera.pixel * camera.size[1])
    at = 0.95 * camera.size[0]
    ax.plot([20, 20 + bar / camera.pixel], [at, at], color=style.INK, lw=2.5, solid_capstyle="butt")
    ax.text(20, at - 10, f"{bar:g} µm", fontsize=8.5, color=style.MUTED)
    colourbar(figure, colours, norm, "electron diffusion length (µm)", ax=ax, shrink=0.6, aspect=28, pad=0.02)
    said = ""
    if given:
        steps = np.diff(given[0], axis=0) * run.voxel_size
        walked = float(np.sqrt((steps**2).sum(axis=1)).sum())
        said = f" The thick line starts at the farthest voxel; it is {style.number(walked)} µm long."
    return Drawing(
        "longest_path",
        f"Particle {label}",
        f"Particle {label}, cut open through its farthest voxel, {style.number(top)} µm from the contact "
        f"(diameter {style.number(float(numbers(run.table, 'equivalent_diameter_um')[row]))} µm, detachment "
        f"{style.fraction(float(numbers(run.table, 'detachment_fraction')[row]))}). On the cut, colour is the length "
        "of the shortest way to carbon/binder; white lines are such ways, drawn on top where they leave the cut."
        + said,
        figure,
        pd.DataFrame(rows, columns=["label", "path", "start", "z_index", "y_index", "x_index"]),
        vector=False,
        place="aside",
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
    """Where to cut: a plane through the farthest voxel, the end of its path and (nearly) the particle's centre; the
    side with less of the particle is taken away, and the camera looks at the cut a little from above and the side."""
    at = np.argwhere(shape.inside > 0.5) * shape.step + shape.first
    physical = at * spacing
    centre = physical.mean(axis=0)
    start = farthest * np.asarray(spacing)
    end = paths[0][-1] * spacing if paths else 2 * centre - start
    along, across = end - start, centre - start
    normal = np.cross(along, across)
    if np.linalg.norm(normal) < 0.05 * np.linalg.norm(along) * np.linalg.norm(across) + 1e-9:
        # The path runs through the centre: cut across the particle's flattest direction that the path does not take.
        axes = np.linalg.svd(physical - centre, full_matrices=False)[2][::-1]
        axes = axes - np.outer(axes @ along, along) / max(float(along @ along), 1e-12)
        normal = axes[np.argmax(np.linalg.norm(axes, axis=1) > 0.5)]
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
