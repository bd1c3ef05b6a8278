"""Colours, type and numbers as text, shared by every figure and the page. Safe for the common colour blindnesses."""

from __future__ import annotations

import math
from typing import Any

from cbdetach import codes

INK, MUTED, FAINT, GRID, PAPER = "#1f2933", "#64707d", "#aab4be", "#e7ebee", "#ffffff"
ACCENT, SECOND = "#0b5c86", "#d9822b"

# A phase keeps its colour in maps, on surfaces and in charts: void blue, carbon/binder amber, active material slate.
VOID, CBD, ACTIVE, ACTIVE_HIGH, COLLECTOR, MOUTH = "#8fc7e8", "#e59a2c", "#66727d", "#38434d", "#8d6bb0", "#8a1846"
PHASES = {
    codes.VOID: ("void", VOID),
    codes.CBD: ("carbon/binder", CBD),
    codes.ACTIVE: ("active", ACTIVE),
    codes.ACTIVE_HIGH: ("active, high density", ACTIVE_HIGH),
    codes.COLLECTOR: ("collector", COLLECTOR),
}
SURFACE = {  # what an element of a particle's surface faces
    "void": VOID,
    "carbon/binder": CBD,
    "particle": ACTIVE,
    "crack mouth": MOUTH,
    "collector, border": COLLECTOR,
}

BACKGROUND = "#f4f5f3"  # void and carbon/binder behind a map of values
OUTLINE, OUTLINE_CUT = "#ffa600", "#3fa9f5"  # of a particle, of one that the border cuts
NO_VALUE = "#c9ced3"  # a particle without the value
DETACHMENT_MAP = "viridis_r"  # 0 attached: light; 1 detached: dark; even steps of lightness
LENGTH_MAP = "magma"
DAMAGE_MAP = "YlOrRd"

RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 9,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.labelcolor": MUTED,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "savefig.facecolor": PAPER,
    "svg.hashsalt": "cbdetach",
    "svg.fonttype": "path",
}


def number(value: float, digits: int = 3) -> str:
    """A number for people: `digits` figures, an exponent only below 1e-4 and from 1e7, a dash where there is none."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -4 or size >= 7:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(digits - 1 - size, 0)}f}"


def fraction(value: float) -> str:
    """A fraction 0..1 with two decimals, a dash where there is none."""
    return f"{value:.2f}" if math.isfinite(value) else "–"


def count(value: int) -> str:
    """A whole number, with commas between thousands."""
    return f"{value:,}"


def rgb(colour: str) -> tuple[float, float, float]:
    """ "#rrggbb" as three numbers 0..1."""
    red, green, blue = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
    return red, green, blue
