"""Streamlines of one particle (Suppl. Fig. 3): a slice and the whole surface in the colour of the diffusion length, and
the shortest ways to the contact in white.

A path is traced in three dimensions. On the slice it is drawn full where it runs in it and faint where it has left it;
on the surface paths start at points that the camera sees, spread evenly, and are seen through the particle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cbdetach import codes
from cbdetach.report import render, style
from cbdetach.report.drawing import Drawing, colour_map, colourbar, new_figure, round_length

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Spacing = tuple[float, float, float]

MARGIN = 3
PIXELS = 520
IN_PLANE = 70  # paths that start on the slice
ON_SURFACE = 60  # and on the surface that the camera sees
OBLIQUE = np.array([0.48, -0.72, -0.5])


def streamlines(
    particles: Any, phases: Any, lengths: Any, label: int, box: Array, spacing: Spacing, *, seed: int = 0
) -> Drawing | str:
    """The two pictures of the particle `label`, which lies in `box` (z0, y0, x0, z1, y1, x1, half-open).

    particles, phases, lengths : (Z, Y, X) volumes, read in the box alone; lengths as `/diffusion_length` has them.
    """
    import pandas as pd
    from matplotlib.colors import Normalize

    low = np.maximum(np.asarray(box[:3]) - MARGIN, 0)
    high = np.minimum(np.asarray(box[3:]) + MARGIN, particles.shape)
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    window = z, y, x
    mine = np.asarray(particles[window]) == label
    field = np.where(mine, np.asarray(lengths[window], dtype=np.float32), np.nan)
    if not np.isfinite(field).any():
        return f"Particle {label} has no diffusion length, so there are no ways to draw."
    top = float(np.nanmax(np.where(np.isfinite(field), field, np.nan)))
    colours, norm = colour_map(style.LENGTH_MAP), Normalize(0, top)

    def paint(values: Floats) -> Floats:
        return np.asarray(colours(norm(values)))[..., :3]

    figure = new_figure((11.4, 5.0))
    flat, solid = figure.subplots(1, 2)
    rng = np.random.default_rng(seed)

    farthest = np.array(np.unravel_index(np.argmax(np.where(np.isfinite(field), field, -1)), field.shape))
    beside, beneath = (np.asarray(v[window])[farthest[0]] for v in (particles, phases))
    filled = _filled(field, mine)
    on_slice = _draw_slice(flat, field, filled, beside, beneath, label, farthest, spacing, paint, rng)
    bar: dict[str, Any] = {"shrink": 0.6, "aspect": 28, "pad": 0.01}
    colourbar(figure, colours, norm, "electron diffusion length (µm)", ax=flat, **bar)
    on_surface, most = _draw_surface(solid, particles, phases, field, filled, label, box, low, spacing, colours, rng)
    colourbar(figure, colours, Normalize(0, most), "at the surface (µm)", ax=solid, **bar)
    rows = [
        (label, panel, number, *point)
        for panel, paths in (("slice", on_slice), ("surface", on_surface))
        for number, path in enumerate(paths)
        for point in (path + low).round(3).tolist()
    ]
    depth = (farthest[0] + low[0]) * spacing[0]
    return Drawing(
        "streamlines",
        f"Shortest ways of particle {label}",
        f"Left: slice at z = {style.number(float(depth))} µm through the voxel farthest from the contact, "
        f"{style.number(top)} µm (dot). Around it carbon/binder (amber), void (white), other particles (grey). White: "
        "ways to the contact, faint where they have left the slice. Right: the particle's surface in the same colours, "
        "and the ways from points on it, seen through the particle.",
        figure,
        pd.DataFrame(rows, columns=["label", "panel", "path", "z_index", "y_index", "x_index"]),
        vector=False,
        place="wide",
    )


def _filled(field: Array, mine: Array) -> npt.NDArray[np.float32]:
    """The lengths, and around the particle those of its nearest voxel, so that they can be sampled on its surface."""
    from scipy.ndimage import distance_transform_edt

    at = distance_transform_edt(~(mine & ~np.isnan(field)), return_distances=False, return_indices=True)
    return np.asarray(field[tuple(np.asarray(at))], dtype=np.float32)


def _draw_slice(
    ax: Axes,
    field: Array,
    filled: Array,
    particles: Array,
    phases: Array,
    label: int,
    farthest: Array,
    spacing: Spacing,
    paint: Callable[[Floats], Floats],
    rng: np.random.Generator,
) -> list[Floats]:
    """The slice of the farthest voxel; returns its paths, in index coordinates of the window."""
    from matplotlib.collections import LineCollection
    from matplotlib.patheffects import Normal, Stroke

    z = int(farthest[0])
    times = max(1, PIXELS // max(particles.shape))
    rows, columns = ((np.arange(n * times) + 0.5) / times - 0.5 for n in particles.shape)
    nearest = np.ix_(np.rint(rows).astype(int), np.rint(columns).astype(int))
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
    length = render.sample(filled, np.zeros(3), np.insert(grid, 0, z, axis=-1))
    labels, kinds, reached = particles[nearest], phases[nearest], np.isfinite(field[z])[nearest] & np.isfinite(length)
    picture = np.ones((*labels.shape, 3))
    active = np.isin(kinds, (codes.ACTIVE, codes.ACTIVE_HIGH))
    picture[(labels > 0) | active] = style.rgb("#d3d8dc")
    picture[(kinds == codes.CBD) & (labels == 0)] = style.rgb(style.CBD)
    picture[kinds == codes.COLLECTOR] = style.rgb(style.COLLECTOR)
    picture[(labels == label) & ~active] = style.rgb("#eceff1")
    picture[(labels == label) & active] = style.rgb(style.NO_VALUE)
    picture[reached] = paint(length[reached])
    dy, dx = spacing[1:]
    height, width = (n * s for n, s in zip(particles.shape, (dy, dx), strict=True))
    ax.set_axis_off()
    ax.imshow(picture, extent=(-dx / 2, width - dx / 2, height - dy / 2, -dy / 2), interpolation="antialiased")
    paths = _paths(field, _spread(np.argwhere(np.isfinite(field[z])), spacing[1:], IN_PLANE, rng, plane=z), spacing)
    for path in paths:
        points = path[:, 1:][:, ::-1] * (dx, dy)
        away = np.abs(path[:-1, 0] + np.diff(path[:, 0]) / 2 - z) * spacing[0]
        alpha = np.clip(1.0 - 0.45 * (away / (1.5 * max(spacing))), 0.3, 1.0)
        segments = np.stack([points[:-1], points[1:]], axis=1).tolist()
        ax.add_collection(LineCollection(segments, colors=[(1, 1, 1, float(a)) for a in alpha], linewidths=1.0))
    (main,) = _paths(field, farthest[None].astype(np.float64), spacing)
    outline = [Stroke(linewidth=4.0, foreground="#00000066"), Normal()]
    ax.plot(main[:, 2] * dx, main[:, 1] * dy, color="white", lw=2.4, path_effects=outline)
    ax.plot(farthest[2] * dx, farthest[1] * dy, "o", color="white", mec=style.INK, ms=6, mew=1)
    _scale_bar(ax, width, height, 1.0)
    return [*paths, main]


def _draw_surface(
    ax: Axes,
    particles: Any,
    phases: Any,
    field: Array,
    filled: Array,
    label: int,
    box: Array,
    low: Array,
    spacing: Spacing,
    colours: Colormap,
    rng: np.random.Generator,
) -> tuple[list[Floats], float]:
    """The lit surface, seen from the side that is farthest from the contact; the paths from it, and its longest."""
    from matplotlib.colors import Normalize
    from matplotlib.patheffects import Normal, Stroke

    shape = render.read_shape(particles, phases, label, box, spacing)
    edge = np.argwhere(_outermost(field))
    weight = field[tuple(edge.T)].astype(np.float64)
    middle = (np.argwhere(np.isfinite(field)) * spacing).mean(axis=0)
    towards = (edge * spacing * weight[:, None]).sum(axis=0) / max(float(weight.sum()), 1e-9) - middle
    direction = OBLIQUE / np.linalg.norm(OBLIQUE) - 2.5 * towards / max(float(np.linalg.norm(towards)), 1e-9)
    camera, hits = render.look(shape, direction / np.linalg.norm(direction), pixels=PIXELS)
    window = np.concatenate([low, low + field.shape])
    length = render.sample(filled, window, hits.position)
    seen = (hits.alpha > 0.99) & np.isfinite(length)
    most = float(np.quantile(length[seen], 0.999)) if seen.any() else 1.0
    surface = np.asarray(colours(Normalize(0, most)(np.nan_to_num(length))))[..., :3]
    base = np.where(np.isfinite(length)[..., None], surface, np.array(style.rgb(style.NO_VALUE)))
    lit = np.clip(base * (0.55 + 0.5 * hits.light[..., None]) + 0.12 * hits.gloss[..., None], 0, 1)
    ax.set_axis_off()
    ax.imshow(np.concatenate([lit, hits.alpha[..., None]], axis=-1), interpolation="bilinear")

    at = _spread(np.argwhere(seen), (1.0, 1.0), ON_SURFACE, rng).astype(int)
    paths = _paths(field, _into_solid(hits.position[tuple(at.T)] - low, field), spacing)
    outline = [Stroke(linewidth=1.9, foreground="#00000066"), Normal()]
    for path in paths:
        projected = camera.project(path + low, spacing)
        ax.plot(projected[:, 2], projected[:, 1], color="white", lw=1.1, alpha=0.95, path_effects=outline)
        ax.plot(*projected[0, [2, 1]], "o", color="white", mec="#00000088", ms=2.6, mew=0.5)
    _scale_bar(ax, *camera.size[::-1], 1 / camera.pixel)
    return paths, most


def _into_solid(points: Floats, field: Array) -> Floats:
    """The points, those outside the voxels that have a length moved to the nearest one's centre."""
    from scipy.ndimage import distance_transform_edt

    finite = np.isfinite(field)
    at = distance_transform_edt(~finite, return_distances=False, return_indices=True)
    own = tuple(np.clip(np.rint(points).astype(np.int64), 0, np.array(field.shape) - 1).T)
    nearest = np.asarray(at)[(slice(None), *own)].T
    return np.where(finite[own][:, None], points, nearest).astype(np.float64)


def _outermost(field: Array) -> npt.NDArray[np.bool_]:
    """Voxels with a length that touch one without."""
    from scipy.ndimage import binary_erosion

    finite = np.isfinite(field)
    return np.asarray(finite & ~binary_erosion(finite))


def _paths(field: Array, starts: Floats, spacing: Spacing) -> list[Floats]:
    import voxkernels as vk

    return [path for path in vk.trace_paths(field, starts, spacing=spacing) if len(path) > 1] if len(starts) else []


def _spread(
    points: Array, spacing: tuple[float, float], n: int, rng: np.random.Generator, *, plane: int | None = None
) -> Floats:
    """About `n` of the points (N, 2), evenly spread: each as far from the others as it can be."""
    if len(points) <= n:
        chosen = points.astype(np.float64)
    else:
        candidates = points[rng.choice(len(points), min(len(points), 40 * n), replace=False)].astype(np.float64)
        at = candidates * spacing
        order = [0]
        gap = np.linalg.norm(at - at[0], axis=1)
        for _ in range(n - 1):
            order.append(int(np.argmax(gap)))
            gap = np.minimum(gap, np.linalg.norm(at - at[order[-1]], axis=1))
        chosen = candidates[order]
    return chosen if plane is None else np.insert(chosen, 0, plane, axis=1)


def _scale_bar(ax: Axes, width: float, height: float, unit: float) -> None:
    """A bar at the lower left of an image of that size, `unit` of which are one micrometre."""
    bar = round_length(0.25 * width / unit)
    x, y = 0.03 * width, 0.985 * height
    ax.plot([x, x + bar * unit], [y, y], color=style.INK, lw=2.5, solid_capstyle="butt")
    ax.text(x, y - 0.015 * height, f"{bar:g} µm", fontsize=8.5, color=style.INK)
