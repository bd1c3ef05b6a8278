"""The particle with the longest way to its contact, cut open along that way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cbdetach.report import render, style
from cbdetach.report.drawing import Drawing, colour_map, colourbar, new_figure, round_length
from cbdetach.report.summary import numbers

if TYPE_CHECKING:
    from cbdetach.report import ReportInput

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

NO_PATH = "No particle has a diffusion length, so there is no path to draw."


def longest(run: ReportInput) -> int | None:
    """Row of the particle with the longest way to its contact, whole if any is; None where no particle has one."""
    length = numbers(run.table, "diffusion_length_max_um")
    cut = run.table["touches_border"].to_numpy(dtype=bool)
    if np.isfinite(length[~cut]).any():
        length = np.where(cut, np.nan, length)
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
