"""The page: sections in order, each with its figures, its numbers, or one sentence why there is nothing to show."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cbdetach.report import (
    connected,
    damage_figures,
    detachment_figures,
    feature_figures,
    flow,
    gallery,
    longest_path,
    phase_figures,
    relation_figures,
    slices,
    streamlines,
    style,
)
from cbdetach.report.drawing import NO_CBD, Drawing, save
from cbdetach.report.summary import Quartiles, Summary, numbers

if TYPE_CHECKING:
    from pandas import DataFrame

    from cbdetach.report import ReportInput

ROWS = 2000
"""The page's table holds at most so many particles; the CSV holds all."""

SHOWN = {  # column -> heading on the page
    "label": "label",
    "equivalent_diameter_um": "diameter µm",
    "detachment_fraction": "detachment",
    "detachment_fraction_low": "low",
    "detachment_fraction_high": "high",
    "area_cbd_um2": "CBD µm²",
    "area_void_um2": "void µm²",
    "contact_known_fraction": "contact known",
    "diffusion_length_mean_um": "length mean µm",
    "diffusion_length_max_um": "length max µm",
    "contact_ratio": "contact ratio",
    "crack_ratio": "crack ratio",
    "crack_fraction": "crack fraction",
    "sphericity": "sphericity",
    "touches_border": "cut",
    "diffusion_status": "status",
    "z_um": "z µm",
    "y_um": "y µm",
    "x_um": "x µm",
}


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it."""

    name: str
    title: str
    caption: str
    source: str  # data URI
    place: str


@dataclass(frozen=True)
class Section:
    """One part of the page: what it holds, or `missing`, one sentence for each thing that does not exist."""

    id: str
    title: str
    lead: str = ""
    pictures: list[Picture] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


def build(run: ReportInput, summary: Summary) -> str:
    """Draw and save every figure, and return the page."""
    from jinja2 import Environment, StrictUndefined

    sections = [
        _section(run, "flow", "Counts", [flow.flow(summary)]),
        _section(
            run,
            "volume",
            "Volume",
            slices.slices(run),
            lead="Three slices through the middle: xy upper left, yz to its right, xz below.",
            absent=_absent_slices(run, summary),
        ),
        _section(
            run,
            "size",
            "Detachment",
            [
                detachment_figures.detachment_distribution(run, summary),
                detachment_figures.detachment_size(run),
                relation_figures.detachment_volume(run),
                relation_figures.detachment_spread(run),
            ],
        ),
        _section(
            run,
            "sensitivity",
            "How sure",
            [detachment_figures.detachment_threshold(run), detachment_figures.detachment_tolerance(run)],
            lead="The same particles, measured with other thresholds, and with a gap allowed between particle and "
            "carbon/binder.",
        ),
        _section(
            run,
            "connected",
            "Connected carbon/binder",
            [connected.connected_slices(run), connected.connected_detachment(run)],
        ),
        _gallery(run),
        _section(run, "paths", "Longest path", [longest_path.longest_path(run), _streamlines(run)]),
        _section(
            run,
            "depth",
            "Damage and depth",
            [damage_figures.damage_slices(run), damage_figures.depth_profile(run), damage_figures.radial_profile(run)],
        ),
        _section(run, "features", "Features", [feature_figures.features(run)]),
        _section(
            run,
            "density",
            "Density",
            [
                relation_figures.density_detachment(run),
                relation_figures.density_erosion(run),
                relation_figures.peaks(run),
            ],
        ),
        _section(
            run,
            "resolution",
            "Resolution",
            [
                phase_figures.histogram(run),
                phase_figures.regional_histograms(run),
                phase_figures.edge_profile(run),
                phase_figures.cbd_thickness(run),
            ],
            lead="What the volume can tell: how well its grey values separate, and how thick the carbon/binder is "
            "beside the width of an edge.",
        ),
    ]
    folder = files("cbdetach.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=style.number, fraction=style.fraction, count=style.count)
    template = environment.from_string(folder.joinpath("template.html").read_text(encoding="utf-8"))
    return template.render(
        run=run,
        summary=summary,
        keys=_keys(summary),
        medians=_medians(summary),
        facts=_facts(run),
        sections=sections,
        header=list(SHOWN.values()),
        rows=_table_rows(run.table),
        balances=_balances(run),
        most=ROWS,
        css=folder.joinpath("style.css").read_text(encoding="utf-8"),
        script=folder.joinpath("page.js").read_text(encoding="utf-8"),
        surface=style.SURFACE,
    )


def _section(
    run: ReportInput,
    id: str,
    title: str,
    drawings: Iterable[Drawing | str],
    *,
    lead: str = "",
    absent: list[str] | None = None,
    extra: dict[str, Any] | None = None,
) -> Section:
    missing = list(absent or [])
    pictures = []
    for drawing in drawings:
        if isinstance(drawing, Drawing):
            pictures.append(saved(run.out, drawing))
        elif drawing not in missing:
            missing.append(drawing)
    return Section(id, title, lead if pictures else "", pictures, missing, extra or {})


def _gallery(run: ReportInput) -> Section:
    drawn = gallery.gallery(run)
    if isinstance(drawn, str):
        return _section(run, "gallery", "Particles", [drawn])
    drawing, tiles = drawn
    extra = {"tiles": [(tile, _png(tile.picture)) for tile in tiles]}
    return _section(run, "gallery", "Particles", [drawing], extra=extra)


def _streamlines(run: ReportInput) -> Drawing | str:
    """Of the particle whose longest path is shown."""
    row = longest_path.longest(run)
    if row is None:
        return longest_path.NO_PATH
    label = int(run.table["label"].iloc[row])
    volumes = run.particles, run.phases, run.diffusion_length
    return streamlines.streamlines(*volumes, label, run.boxes[row], run.voxel_size, seed=run.seed)


def _absent_slices(run: ReportInput, summary: Summary) -> list[str]:
    sentences = []
    if run.grey is None:
        sentences.append("The phases were given without grey values: the outlines lie on the phases.")
    if summary.found and not np.isfinite(numbers(run.table, "detachment_fraction")).any():
        sentences.append(NO_CBD)
    if run.diffusion_length is None or not np.isfinite(numbers(run.table, "diffusion_length_max_um")).any():
        sentences.append("No particle has a diffusion length, so there is no map of it.")
    return sentences


def saved(out: Path, drawing: Drawing) -> Picture:
    """Write the figure's three files; the page gets the SVG of a chart, the PNG of a picture."""
    encoded = save(out / "figures", drawing)
    shown, mime = ("svg", "image/svg+xml") if drawing.vector else ("png", "image/png")
    source = f"data:{mime};base64,{base64.b64encode(encoded[shown]).decode()}"
    return Picture(drawing.name, drawing.title, drawing.caption, source, drawing.place)


def _png(picture: Any) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _keys(summary: Summary) -> list[tuple[str, int, str]]:
    return [
        ("found", summary.found, "particles found"),
        ("cut", summary.cut, "cut by the border"),
        ("no_contact", summary.no_contact, "whole, without contact"),
        ("used", summary.used, "used"),
    ]


def _medians(summary: Summary) -> list[tuple[str, Quartiles, str, str]]:
    return [
        ("detachment", summary.detachment, "median detachment", ""),
        ("detachment_weighted", summary.detachment_weighted, "weighted for the border", ""),
        ("length", summary.length_um, "median diffusion length", "µm"),
        ("diameter", summary.diameter_um, "median diameter, whole", "µm"),
    ]


def _facts(run: ReportInput) -> list[tuple[str, str]]:
    size = " × ".join(f"{s:.4g}" for s in (run.voxel_size if len(set(run.voxel_size)) > 1 else run.voxel_size[:1]))
    voxels = " × ".join(str(n) for n in run.shape)
    extent = " × ".join(f"{n * s:.4g}" for n, s in zip(run.shape, run.voxel_size, strict=True))
    return [
        ("voxel size (z, y, x)" if "×" in size else "voxel size", f"{size} µm"),
        ("voxels", voxels),
        ("extent", f"{extent} µm"),
    ]


def _table_rows(table: DataFrame) -> list[list[str]]:
    columns = [_cells(table.iloc[:ROWS], column) for column in SHOWN]
    return [list(row) for row in zip(*columns, strict=True)]


def _cells(table: DataFrame, column: str) -> list[str]:
    if column == "label":
        return [str(int(v)) for v in table[column]]
    if column == "touches_border":
        return ["yes" if v else "" for v in table[column]]
    if column == "diffusion_status":
        return ["" if v != v or v is None else str(v).replace("_", " ") for v in table[column]]
    return [style.number(v) if np.isfinite(v) else "" for v in numbers(table, column)]


def _balances(run: ReportInput) -> dict[str, list[Any]]:
    """Union of the balances' keys as header, and their values as text; `ok` comes last."""
    header: list[str] = []
    for balance in run.balances:
        header += [key for key in balance if key not in header and key != "ok"]

    def text(value: Any) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        return (
            style.number(float(value), 6)
            if isinstance(value, (int, float, np.number))
            else ""
            if value is None
            else str(value)
        )

    rows = [([text(b.get(key)) for key in header], b.get("ok")) for b in run.balances]
    return {"header": header, "rows": rows}
