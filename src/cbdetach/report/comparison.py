"""The comparison of electrodes: what was found, and one self-contained page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cbdetach.report import plain_style, relations, style
from cbdetach.report.drawing import Drawing

if TYPE_CHECKING:
    from pandas import DataFrame

Floats = npt.NDArray[np.float64]

PALETTE = (style.ACCENT, style.SECOND, style.MOUTH, "#2f8f6b", style.COLLECTOR, style.ACTIVE)
WORDS = {"rate": "rate", "cycles": "number of cycles", "state_of_charge": "state of charge"}


def shown(by: str, value: float) -> str:
    """A group's name for people: C/10, 5C; 1 cycle, 50 cycles; 80 %."""
    if by == "rate":
        return f"{value:g}C" if value >= 1 else f"C/{1 / value:g}"
    return f"{value:g} cycle{'s' * (value != 1)}" if by == "cycles" else f"{100 * value:g} %"


@dataclass(frozen=True)
class Comparison:
    """What `cbdetach compare` has found. Electrodes in the order of their groups; `samples` are their particles.

    electrodes : one row each: median with interval, n, effective n, total. size_classes, spread, correlations, erosion,
    peaks : of each electrode. tests : between groups. sentences : what the tests say.
    """

    by: str
    edges: Floats
    samples: Sequence[relations.Sample]
    electrodes: DataFrame
    size_classes: DataFrame
    tests: DataFrame
    spread: DataFrame
    correlations: DataFrame
    erosion: DataFrame
    peaks: DataFrame
    same_size: bool
    sentences: Sequence[str]

    @property
    def groups(self) -> list[str]:
        """Names of the groups, in order."""
        return list(dict.fromkeys(self.electrodes["group"]))

    def colour(self, group: str) -> str:
        """A group keeps its colour in every figure."""
        return PALETTE[self.groups.index(group) % len(PALETTE)]

    def __str__(self) -> str:
        lines = [
            f"{row['group']:>12}  {row['electrode']:<20} median {row['median']:.3f} "
            f"({interval(row['median_low'], row['median_high'])}), n = {row['n']} (worth {row['n_effective']:.0f}), "
            f"whole electrode {row['total_area_weighted']:.3f}"
            for row in self.electrodes.to_dict("records")
        ]
        return "\n".join([*lines, "", *self.sentences])


def interval(low: float, high: float, sign: str = "", name: str = "") -> str:
    """An interval in words, behind its name; that there is none, where particles are too few for one."""
    known = math.isfinite(low) and math.isfinite(high)
    return f"{name}{low:{sign}.3f} to {high:{sign}.3f}" if known else "no interval: too few particles"


# ---- the page -------------------------------------------------------------------------------------------------------


def write_page(
    found: Comparison, out: Path, *, warnings: Sequence[str] = (), capacity: DataFrame | None = None
) -> Path:
    """Write every figure (PNG, SVG, CSV) and `compare.html`, and return the page's path."""
    from jinja2 import Environment, StrictUndefined

    from cbdetach.files import whole_file
    from cbdetach.report import comparison_densities as densities
    from cbdetach.report import comparison_figures as figures
    from cbdetach.report import html

    shown: list[tuple[str, list[Callable[[Comparison], Drawing | str]]]] = [
        ("Detachment", [figures.detachment_groups, figures.detachment_size_groups]),
        ("Size", [figures.detachment_volume, figures.spread_size]),
        ("Density", [densities.density_correlations, densities.density_erosion, densities.peak_widths]),
        ("Cycling", [lambda f: figures.cycling(f, capacity)]),
    ]
    sections = []
    with plain_style():
        for title, functions in shown:
            pictures, missing = [], []
            for function in functions:
                drawing = function(found)
                if isinstance(drawing, Drawing):
                    pictures.append(html.saved(out, drawing))
                else:
                    missing.append(drawing)
            sections.append({"title": title, "pictures": pictures, "missing": missing})
    folder = files("cbdetach.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(folder.joinpath("comparison.html").read_text(encoding="utf-8"))
    page = template.render(
        found=found,
        what=WORDS[found.by],
        sections=sections,
        warnings=warnings,
        electrodes=_table(found.electrodes, ELECTRODE_HEADINGS),
        tests=_table(found.tests, TEST_HEADINGS),
        css=folder.joinpath("style.css").read_text(encoding="utf-8"),
        script=folder.joinpath("page.js").read_text(encoding="utf-8"),
    )
    path = out / "compare.html"
    with whole_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


ELECTRODE_HEADINGS = {
    "electrode": "electrode",
    "group": "group",
    "volumes": "volumes",
    "n": "n",
    "n_effective": "effective n",
    "neighbour_correlation": "neighbours' r",
    "median": "median",
    "median_low": "low",
    "median_high": "high",
    "median_same_sizes": "same sizes",
    "total_area_weighted": "whole electrode",
}
TEST_HEADINGS = {
    "kind": "test",
    "first": "first",
    "second": "second",
    "from_um": "from µm",
    "to_um": "to µm",
    "n_first": "electrodes",
    "n_second": "electrodes",
    "difference": "difference",
    "p": "p",
    "p_counted": "p, counted",
    "p_holm": "p (Holm)",
    "smallest_p": "smallest p",
    "smallest_p_holm": "smallest (Holm)",
}


def _table(frame: DataFrame, headings: Mapping[str, str]) -> dict[str, Any]:
    """Header and rows as text."""

    def text(value: Any) -> str:
        if isinstance(value, (float, np.floating)):
            return style.number(float(value)) if np.isfinite(value) else ""
        return str(value)

    kept = [name for name in headings if name in frame]
    rows = [[text(row[name]) for name in kept] for row in frame.to_dict("records")]
    return {"header": [headings[name] for name in kept], "rows": rows}
