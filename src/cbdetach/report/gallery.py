"""Pictures of particles drawn at random: lit surfaces, coloured by what they face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cbdetach.report import render, style
from cbdetach.report.drawing import Drawing, new_figure, round_length
from cbdetach.report.summary import numbers, used_rows

if TYPE_CHECKING:
    from cbdetach.report import ReportInput


TILE = 240  # pixels of one particle's picture
OBLIQUE = np.array([0.48, -0.72, -0.5])  # camera of the gallery: z down, x to the right, seen a little from above


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
