"""The volume in three orthogonal slices: what lies on them, and the same slices coloured by four quantities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cbdetach import codes
from cbdetach.report import style
from cbdetach.report.summary import numbers

if TYPE_CHECKING:
    from pandas import DataFrame

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

CANVAS = 1040  # pixels along the longer side of the three slices together
GAP = 10
BAND = 32
PLANES = ("xy", "xz", "yz")


@dataclass(frozen=True)
class Plane:
    """One slice through the middle: native arrays (rows, columns), or None where there is no such volume."""

    name: str  # "xy": rows y, columns x; "xz": rows z, columns x; "yz": rows y, columns z
    index: int  # along the axis that is missing from the name
    position_um: float
    particles: Array
    phases: Array
    grey: Array | None
    length: Array | None


@dataclass(frozen=True)
class Layout:
    """How three slices share one canvas: xy upper left, yz to its right, xz below; one pixel size for all."""

    pixel_um: float
    extent: tuple[int, int, int]  # pixels along z, y, x

    @property
    def shape(self) -> tuple[int, int]:
        z, y, x = self.extent
        return y + GAP + z, x + GAP + z

    def corner(self, name: str) -> tuple[int, int]:
        _, y, x = self.extent
        return {"xy": (0, 0), "yz": (0, x + GAP), "xz": (y + GAP, 0)}[name]


def middle_planes(
    particles: Any, phases: Any, grey: Any | None, length: Any | None, voxel_size: tuple[float, float, float]
) -> list[Plane]:
    """The three slices through the middle of the volume, read in bands of `BAND` slices."""
    planes = []
    for axis, name in zip((0, 1, 2), PLANES, strict=True):
        index = int(particles.shape[axis]) // 2
        found = [None if v is None else cut(v, name, index) for v in (particles, phases, grey, length)]
        assert found[0] is not None
        assert found[1] is not None
        planes.append(Plane(name, index, index * voxel_size[axis], found[0], found[1], found[2], found[3]))
    return planes


def layout(shape: tuple[int, int, int], voxel_size: tuple[float, float, float]) -> Layout:
    """Where the three planes lie on one picture: xy upper left, yz to its right, xz below."""
    size = np.multiply(shape, voxel_size)
    pixel = float((size[0] + max(size[1], size[2])) / (CANVAS - GAP))
    z, y, x = (max(1, round(s / pixel)) for s in size)
    return Layout(pixel, (z, y, x))


def canvas(planes: list[Plane], plan: Layout, paint: Callable[[Plane, Callable[[Array], Array]], Floats]) -> Floats:
    """RGB (rows, columns, 3): every slice painted at the canvas's pixel size. `paint` gets a slice and the
    function that brings any array of that slice to the canvas (nearest voxel), and returns RGB in 0..1."""
    picture = np.ones((*plan.shape, 3))
    z, y, x = plan.extent
    for plane in planes:
        rows, columns = {"xy": (y, x), "yz": (y, z), "xz": (z, x)}[plane.name]

        def fit(values: Array, rows: int = rows, columns: int = columns) -> Array:
            at = [
                ((np.arange(n) + 0.5) * m / n).astype(np.int64)
                for n, m in zip((rows, columns), values.shape, strict=True)
            ]
            return values[np.ix_(at[0], at[1])]

        top, left = plan.corner(plane.name)
        picture[top : top + rows, left : left + columns] = paint(plane, fit)
    return picture


def grey_range(planes: list[Plane]) -> tuple[float, float]:
    """Grey values shown as black and white: the 0.5 and 99.5 percentiles of the three slices together."""
    values = np.concatenate([plane.grey.ravel() for plane in planes if plane.grey is not None])
    low, high = np.quantile(values[np.isfinite(values)], (0.005, 0.995))
    return float(low), float(max(high, low + 1e-12))


def outlined(plane: Plane, fit: Callable[[Array], Array], grey: tuple[float, float] | None, cut: Array) -> Floats:
    """Grey values (without them, phases as greys) with the outline of every particle; `cut`: labels at the border."""
    if plane.grey is not None and grey is not None:
        base = np.clip((fit(_averaged(plane.grey, fit)) - grey[0]) / (grey[1] - grey[0]), 0, 1)
    else:
        base = np.array([0.13, 0.42, 0.72, 0.86, 1.0])[np.minimum(fit(plane.phases), 4)]
    picture = np.repeat(0.88 * base[..., None].astype(np.float64), 3, axis=2)
    labels = fit(plane.particles)
    edge = edges(labels, thick=True)
    at_border = np.isin(labels, cut) & edge
    picture[edge & ~at_border] = style.rgb(style.OUTLINE)
    picture[at_border] = style.rgb(style.OUTLINE_CUT)
    return picture


def phase_colours(plane: Plane, fit: Callable[[Array], Array]) -> Floats:
    """A plane with every voxel in the colour of its phase."""
    palette = np.array([style.rgb(colour) for _, colour in style.PHASES.values()])
    return palette[np.minimum(fit(plane.phases), len(palette) - 1)]


def by_particle(
    plane: Plane, fit: Callable[[Array], Array], labels: Array, values: Floats, colours: Callable[[Floats], Floats]
) -> Floats:
    """Each particle in the colour of its value, thin gaps between particles; grey where it has none."""
    shown = fit(plane.particles)
    at = np.minimum(np.searchsorted(labels, shown), max(labels.size - 1, 0))
    known = np.zeros(shown.shape, dtype=bool) if labels.size == 0 else (labels[at] == shown) & (shown > 0)
    value = np.where(known, values[at], np.nan) if labels.size else np.full(shown.shape, np.nan)
    picture = _ground(plane, fit)
    picture[known] = style.rgb(style.NO_VALUE)
    finite = np.isfinite(value)
    picture[finite] = colours(value[finite])
    picture[edges(shown)] = 1.0
    return picture


def by_length(plane: Plane, fit: Callable[[Array], Array], colours: Callable[[Floats], Floats]) -> Floats:
    """Diffusion length of each voxel of the solid; grey where no contact is reached."""
    assert plane.length is not None
    shown = fit(plane.particles)
    value = fit(plane.length).astype(np.float64)
    active = np.isin(fit(plane.phases), (codes.ACTIVE, codes.ACTIVE_HIGH))
    picture = _ground(plane, fit)
    picture[(shown > 0) & active] = style.rgb(style.NO_VALUE)
    finite = np.isfinite(value)
    picture[finite] = colours(value[finite])
    picture[edges(shown)] = 1.0
    return picture


def plane_table(planes: list[Plane], table: DataFrame, column: str) -> DataFrame:
    """What each slice shows of a column: one row per particle and slice (plane, position_um, label, pixels, value)."""
    import pandas as pd

    labels, values = table["label"].to_numpy(dtype=np.int64), numbers(table, column)
    parts = []
    for plane in planes:
        label, pixels = np.unique(plane.particles[plane.particles > 0], return_counts=True)
        part = pd.DataFrame({"plane": plane.name, "position_um": plane.position_um, "label": label, "pixels": pixels})
        parts.append(part.merge(pd.DataFrame({"label": labels, column: values}), on="label", how="left"))
    return pd.concat(parts, ignore_index=True)


def phase_table(planes: list[Plane]) -> DataFrame:
    """Share of each slice that is each phase (plane, position_um, phase, pixels, share)."""
    import pandas as pd

    rows = []
    for plane in planes:
        counts = np.bincount(plane.phases.ravel(), minlength=codes.N_PHASES)
        for code, (name, _) in style.PHASES.items():
            rows.append((plane.name, plane.position_um, name, counts[code], counts[code] / plane.phases.size))
    return pd.DataFrame(rows, columns=["plane", "position_um", "phase", "pixels", "share"])


def length_table(planes: list[Plane]) -> DataFrame:
    """Distribution of the diffusion length on each slice (plane, position_um, pixels, quartiles, largest)."""
    import pandas as pd

    rows = []
    for plane in planes:
        assert plane.length is not None
        finite = plane.length[np.isfinite(plane.length)].astype(np.float64)
        quartiles = np.quantile(finite, (0.25, 0.5, 0.75, 1.0)) if finite.size else np.full(4, np.nan)
        rows.append((plane.name, plane.position_um, finite.size, *quartiles))
    columns = ["plane", "position_um", "pixels", "length_q1_um", "length_median_um", "length_q3_um", "length_max_um"]
    return pd.DataFrame(rows, columns=columns)


def cut(volume: Any, plane: str, index: int) -> Array:
    """One slice of a volume, "xy", "xz" or "yz", in the rows and columns of `Plane`; read in bands."""
    axis = PLANES.index(plane)
    depth, height, width = (int(n) for n in volume.shape)
    if axis == 0:
        whole: Array = np.asarray(volume[index : index + 1, 0:height, 0:width])
        return whole.squeeze(0)
    y = slice(index, index + 1) if axis == 1 else slice(0, height)
    x = slice(index, index + 1) if axis == 2 else slice(0, width)
    bands = [np.asarray(volume[z : min(z + BAND, depth), y, x]).squeeze(axis) for z in range(0, depth, BAND)]
    joined: Array = np.concatenate(bands)
    return joined if axis == 1 else joined.T


def _averaged(values: Array, fit: Callable[[Array], Array]) -> Array:
    """Mean over the voxels that share a canvas pixel, so that noise does not alias when the canvas is coarser."""
    from scipy.ndimage import uniform_filter

    shown = fit(np.empty(values.shape, dtype=np.bool_)).shape
    sizes = [max(1, round(m / n)) for m, n in zip(values.shape, shown, strict=True)]
    return values if max(sizes) == 1 else np.asarray(uniform_filter(values.astype(np.float32), sizes))


def edges(labels: Array, *, thick: bool = False) -> npt.NDArray[np.bool_]:
    """Pixels of a particle beside another label: a line one pixel wide inside each particle, or three."""
    from scipy.ndimage import binary_dilation

    edge = np.zeros(labels.shape, dtype=bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return (binary_dilation(edge, np.ones((3, 3), dtype=bool)) if thick else edge) & (labels > 0)


def _ground(plane: Plane, fit: Callable[[Array], Array]) -> Floats:
    palette = np.array([style.rgb(c) for c in (style.BACKGROUND, "#dfe2e0", style.NO_VALUE, style.NO_VALUE, "#c3b7cf")])
    return palette[np.minimum(fit(plane.phases), len(palette) - 1)]
