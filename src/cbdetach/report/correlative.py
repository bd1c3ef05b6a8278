"""A particle's projected density beside its map, in four panels (Suppl. Figs. 6 and 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cbdetach.report import style
from cbdetach.report.drawing import Drawing, colour_map, new_figure, round_length

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cbdetach.correlative import Correlation, Projection, Registration

Floats = npt.NDArray[np.float64]

DENSITY_MAP, MAP_MAP = "viridis", "plasma"


def correlative_drawing(
    projection: Projection,
    target: Floats,
    map_pixel_um: float,
    moved: Floats,
    thickness: Floats,
    outline: npt.NDArray[np.bool_],
    registration: Registration,
    correlation: Correlation,
    *,
    label: int,
    density_name: str,
    map_name: str,
) -> Drawing:
    """Thickness-normalised density as projected; the map; the density on the map's pixels with both outlines; and
    pixel against pixel. `moved`, `thickness` and `outline` are the projection on the map's pixels."""
    import pandas as pd
    from matplotlib.patches import Patch

    common = np.isfinite(moved) & np.isfinite(target)
    figure = new_figure((11.4, 9.4))
    axes = figure.subplots(2, 2)
    density = _limits(projection.density)
    values = _limits(target)
    _image(figure, axes[0, 0], projection.density, projection.pixel_um, DENSITY_MAP, density, density_name)
    _zoom(axes[0, 0], projection.outline, projection.pixel_um)
    axes[0, 0].set_title("projection below the rim, density / thickness\nlines: thickness (µm)")
    _thickness_lines(axes[0, 0], projection)
    _image(figure, axes[0, 1], target, map_pixel_um, MAP_MAP, values, map_name)
    axes[0, 1].set_title("map")
    _zoom(axes[0, 1], np.isfinite(target), map_pixel_um)
    _image(figure, axes[1, 0], moved, map_pixel_um, DENSITY_MAP, density, density_name)
    axes[1, 0].set_title("projection, registered; outlines of both")
    for mask, colour in ((outline, style.ACCENT), (np.isfinite(target), style.SECOND)):
        extent = np.indices(mask.shape) * map_pixel_um
        axes[1, 0].contour(extent[1], extent[0], mask.astype(float), [0.5], colors=[colour], linewidths=1.6)
    _zoom(axes[1, 0], outline | np.isfinite(target), map_pixel_um)
    axes[1, 0].legend(
        handles=[
            Patch(fc="none", ec=style.ACCENT, lw=1.6, label="projection"),
            Patch(fc="none", ec=style.SECOND, lw=1.6, label="map"),
        ],
        loc="lower right",
        ncols=2,
        bbox_to_anchor=(1.0, -0.09),
    )
    x, y = moved[common], target[common]
    ax = axes[1, 1]
    grid = int(np.clip(np.sqrt(x.size), 12, 42))
    dots = ax.hexbin(x, y, gridsize=grid, cmap="Blues", mincnt=1, extent=(*density, *values), linewidths=0.2)
    bar = figure.colorbar(dots, ax=ax, shrink=0.72, aspect=26, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8)
    bar.set_label("pixels", fontsize=8.5)
    slope, level = np.polyfit(x, y, 1)
    ends = np.array(density)
    ax.plot(ends, slope * ends + level, color=style.SECOND, lw=2)
    ax.set(xlabel=density_name, ylabel=map_name, xlim=density, ylim=values)
    ax.set_title(
        f"r = {correlation.r:.2f}   {correlation.level:.0%} interval {correlation.low:.2f} to {correlation.high:.2f}"
    )
    row, column = np.nonzero(common)
    table = pd.DataFrame(
        {
            "y_um": row * map_pixel_um,
            "x_um": column * map_pixel_um,
            "thickness_um": thickness[common],
            "density": x,
            "map": y,
        }
    )
    down, right = registration.shift_um
    return Drawing(
        "correlate",
        f"Particle {label}: density and map",
        f"The projection was turned by {registration.rotation_deg:.1f}°, scaled by {registration.scale:.3f}, moved by "
        f"{down:.3g} µm down and {right:.3g} µm to the right; the masks share {registration.overlap:.0%} of their "
        f"union. Pearson's r over {style.count(correlation.pixels)} common pixels, worth "
        f"{style.number(correlation.effective, 2)} independent ones; interval from blocks of {correlation.block_px} "
        "pixels.",
        figure,
        table,
        vector=False,
        place="wide",
    )


def _thickness_lines(ax: Axes, projection: Projection) -> None:
    """Lines of equal thickness, four or five of them at round values."""
    down, right = np.indices(projection.thickness_um.shape) * projection.pixel_um
    step = round_length(float(projection.thickness_um.max()) / 3)
    levels = np.arange(step, projection.thickness_um.max(), step)
    if levels.size:
        lines = ax.contour(right, down, projection.thickness_um, levels, colors="white", linewidths=0.9, alpha=0.9)
        ax.clabel(lines, fmt=lambda value: f"{value:g}", fontsize=7.5)


def _limits(image: Floats) -> tuple[float, float]:
    known = image[np.isfinite(image)]
    low, high = np.quantile(known, (0.005, 0.995)) if known.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-9 * max(abs(low), 1.0)))


def _image(
    figure: Figure, ax: Axes, image: Floats, pixel: float, name: str, limits: tuple[float, float], label: str
) -> None:
    """An image with its colour bar, nothing beside the particle."""
    height, width = (n * pixel for n in image.shape)
    options: dict[str, Any] = {"vmin": limits[0], "vmax": limits[1], "cmap": colour_map(name)}
    half = pixel / 2
    shown = ax.imshow(
        image, extent=(-half, width - half, height - half, -half), interpolation="nearest", aspect="equal", **options
    )
    ax.set_axis_off()
    bar = figure.colorbar(shown, ax=ax, shrink=0.72, aspect=26, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8)
    bar.set_label(label, fontsize=8.5)


def _zoom(ax: Axes, mask: npt.NDArray[np.bool_], pixel: float) -> None:
    """Show no more than the mask and a little around it, with a scale bar below."""
    (top, bottom), (left, right) = (
        ((at.min() - 0.5) * pixel, (at.max() + 0.5) * pixel) if at.size else (0.0, n * pixel)
        for at, n in zip(np.nonzero(mask), mask.shape, strict=True)
    )
    margin = 0.05 * max(bottom - top, right - left)
    ax.set(xlim=(left - margin, right + margin), ylim=(bottom + margin, top - margin))
    length, below = round_length(0.25 * (right - left)), bottom + 1.6 * margin
    ax.plot([left, left + length], [below] * 2, color=style.INK, lw=2.5, solid_capstyle="butt", clip_on=False)
    ax.text(left, below - 0.3 * margin, f"{length:g} µm", fontsize=8.5, color=style.INK)
