"""Damage by distance to the outer surface, and crack volume from the grey that is missing.

*Radial profile.* The depth of a voxel is its distance to the outer surface of its own filled particle. Voxels, crack,
pore and crack surface of every whole particle are summed by layers of depth (`radial_sums`); `radial_profile` adds up
the particles. A layer's fraction is a ratio of sums, its interval that of a ratio estimator with the particle as the
unit (Cochran, Sampling Techniques, 1977, ch. 6): 1.96 times the linearised standard error.

*Crack volume.* A crack as narrow as the blur is counted too wide: its dark voxels are those in which half the contrast
is lost, and the blur sets their width. Blur moves grey but loses none, so the deficit ``(a - grey) / (a - v)``, summed
over a crack and its blurred sides, is the crack's volume, whatever its width; ``a`` is the particle's own grey level,
``v`` that of void. `grey_deficit` sums it where nothing else is within reach: every voxel belongs to its nearest crack
voxel, and crack voxels nearer than two reaches to the outer surface or to a pore take no part. The quotient of deficit
and counted voxels there corrects the count of the whole particle (`deficit_ratio`). A crack that does not reach half
the contrast anywhere is in neither.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach.arrays import blocks, capped_distance
from cbdetach.damage import CRACK, PORE
from cbdetach.damage_map import crack_density

Array = npt.NDArray[Any]
Spacing = tuple[float, float, float]

LAYERS = 32
"""Layers of a radial profile; the last one holds everything deeper."""

REACH = 1.25
"""How far a blurred crack darkens its sides, in full widths of the blur (2.9 of its sigmas)."""

ENOUGH = 50
"""Crack voxels from which a particle has a quotient of its own; with fewer it takes that of all particles."""


def default_layer_um(spacing: Spacing) -> float:
    """Thickness of the layers, where none is set: half a micrometre, and at least two voxels."""
    return max(0.5, 2 * max(spacing))


def outer_depth(particle: Array, spacing: Spacing) -> npt.NDArray[np.float64]:
    """Distance of each voxel of one filled particle to its outer surface, 0 outside.

    particle (Z, Y, X) bool. The surface lies half a voxel before the first voxel outside; the array's border is none.
    """
    from scipy.ndimage import distance_transform_edt

    padded = np.pad(particle, 1, mode="edge")
    inner = distance_transform_edt(padded, sampling=spacing)[1:-1, 1:-1, 1:-1]
    return np.where(particle, np.maximum(inner - min(spacing) / 2, 0), 0.0)


def radial_sums(
    labels: Array,
    codes: Array,
    ids: Array,
    boxes: Array,
    *,
    spacing: Spacing,
    layer_um: float,
    density: Array | None = None,
) -> npt.NDArray[np.float64]:
    """Voxels, crack voxels, pore voxels and crack surface (um^2) by layer, (N, LAYERS, 4).

    labels, codes (Z, Y, X): a window that holds every particle of `ids` (N,) whole; boxes (N, 6) in its voxels.
    density: of `crack_density` there, where it is known already.
    """
    density = crack_density(labels, codes, spacing=spacing) if density is None else density
    voxel = math.prod(spacing)
    sums = np.zeros((len(ids), LAYERS, 4))
    for row, label, box in zip(sums, ids, boxes, strict=True):
        part = tuple(slice(max(0, int(a) - 1), int(b) + 1) for a, b in zip(box[:3], box[3:], strict=True))
        mine = labels[part] == label
        layer = np.minimum(outer_depth(mine, spacing)[mine] / layer_um, LAYERS - 1).astype(np.intp)
        code = codes[part][mine]
        weights = (None, code == CRACK, code == PORE, density[part][mine] * voxel)
        for column, weight in enumerate(weights):
            row[:, column] = np.bincount(layer, weights=weight, minlength=LAYERS)
    return sums


def ratio_interval(part: Array, whole: Array) -> tuple[float, float, float]:
    """sum(part) / sum(whole) over n particles, and the ends of its 95 % interval (nan for n < 2)."""
    total = whole.sum()
    if not total > 0:
        return math.nan, math.nan, math.nan
    ratio, n = float(part.sum() / total), len(part)
    if n < 2:
        return ratio, math.nan, math.nan
    error = 1.96 * math.sqrt(n / (n - 1) * float(np.square(part - ratio * whole).sum())) / float(total)
    return ratio, max(ratio - error, 0.0), ratio + error


def radial_profile(sums: Array, *, spacing: Spacing, layer_um: float) -> dict[str, Array]:
    """Columns of the radial profile, one row per layer that any particle reaches.

    sums (N, LAYERS, 4) of `radial_sums`. Columns: `depth_from_um`, `depth_to_um` (inf in the last layer), `particles`,
    `volume_um3`, and for `crack_fraction`, `pore_fraction`, `crack_area_per_volume_1_um` the value and `_low`, `_high`.
    """
    voxel = math.prod(spacing)
    reached = np.flatnonzero(sums[:, :, 0].sum(axis=0) > 0) if len(sums) else np.zeros(0, np.intp)
    columns: dict[str, list[float]] = {}
    for layer in reached.tolist():
        here = sums[sums[:, layer, 0] > 0, layer]
        row = {
            "depth_from_um": layer * layer_um,
            "depth_to_um": math.inf if layer == LAYERS - 1 else (layer + 1) * layer_um,
            "particles": len(here),
            "volume_um3": here[:, 0].sum() * voxel,
        }
        for name, column, unit in (
            ("crack_fraction", 1, 1.0),
            ("pore_fraction", 2, 1.0),
            ("crack_area_per_volume_1_um", 3, voxel),
        ):
            value, low, high = ratio_interval(here[:, column], here[:, 0] * unit)
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in columns.items()}


def grey_deficit(
    labels: Array, codes: Array, grey: Array, *, void: float, spacing: Spacing, edge_width_um: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Crack volume by missing grey beside that by counting, where nothing else is near: labels (N,), sums (N, 2).

    labels, codes, grey (Z, Y, X): a window that holds its particles whole; void: grey of void; edge_width_um: full
    width of the blur. The sums are the deficit in voxels, and the crack voxels that it belongs to.
    """
    from scipy.ndimage import maximum_filter, minimum_filter

    crack = codes == CRACK
    if not crack.any():
        return np.zeros(0, np.int64), np.zeros((0, 2))
    reach = max(REACH * edge_width_um, min(spacing))
    edge = (maximum_filter(labels, 3, mode="nearest") != labels) | (minimum_filter(labels, 3, mode="nearest") != labels)
    apart = capped_distance(~(edge | (codes == PORE)), spacing=spacing, reach=2 * reach)
    near, clear = _sides(labels, crack, crack & np.isinf(apart), spacing=spacing, reach=reach)
    calm = (labels > 0) & (codes == 0) & ~near & (apart > reach)
    size = int(labels.max()) + 1

    def total(where: Array, weight: Array | None = None) -> npt.NDArray[np.float64]:
        weights = None if weight is None else weight[where].astype(np.float64)
        return np.asarray(np.bincount(labels[where], weights=weights, minlength=size), np.float64)

    n = total(calm)
    level = np.divide(total(calm, grey), n, out=np.full(size, np.nan), where=n > 0)
    counted = total(clear & crack)
    deficit = (total(clear) * level - total(clear, grey)) / (level - void)
    found = np.flatnonzero((counted > 0) & np.isfinite(deficit))
    return found.astype(np.int64), np.stack([deficit[found], counted[found]], axis=1)


def _sides(
    labels: Array, crack: Array, alone: Array, *, spacing: Spacing, reach: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Voxels within reach of a crack, and those of them whose nearest crack voxel is of their particle, and `alone`."""
    from scipy.ndimage import distance_transform_edt

    near, clear = np.zeros(labels.shape, np.bool_), np.zeros(labels.shape, np.bool_)
    for window, core, here in blocks(len(labels), spacing[0], reach):
        if not crack[window].any():
            continue
        away, nearest = distance_transform_edt(~crack[window], sampling=spacing, return_indices=True)
        near[here] = away[core] <= reach
        at = np.nonzero(near[here] & (labels[here] > 0))
        to = tuple(index[core][at] for index in nearest)
        clear[here][at] = alone[window][to] & (labels[window][to] == labels[here][at])
    return near, clear


def deficit_ratio(labels: Array, held: Array, sums: Array) -> npt.NDArray[np.float64]:
    """What the count of crack voxels is to be multiplied with, for each of `labels` (N,); 1 where nothing was measured.

    held (M,) labels in any order, sums (M, 2) of `grey_deficit`.
    """
    pooled = float(sums[:, 0].sum() / sums[:, 1].sum()) if len(sums) else 1.0
    ratio = np.full(len(labels), pooled)
    own = sums[:, 1] >= ENOUGH if len(sums) else np.zeros(0, bool)
    ratio[np.searchsorted(labels, held[own])] = sums[own, 0] / sums[own, 1]
    return np.asarray(np.clip(ratio, 0.0, 4.0))
