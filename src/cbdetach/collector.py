"""The current collector from grey values: a plate of one grey on a side of the volume that the user names, or on any.

The foil's grey may lie anywhere beside the other phases (aluminium between carbon/binder and active material, copper
above both), so no threshold finds it. What tells it is that it is a plate: the outermost layers of its side hold one
grey, and every line of voxels that starts there leaves that grey at about the same depth.

`find_plate` goes along each such line, on grey smoothed across it. The line leaves the foil where it differs from the
foil's grey by more than four times the spread of that grey; the surface lies where it is half-way to the grey that it
has two blur widths further, to a part of a voxel. Where a particle touches the foil no grey may lie between them and
the line goes on to where the particle ends: so the height of the plate is, about a plane, the lower quartile of each
tile of the face, the median of three by three tiles, and linear between them, as foils bend.

`mark` makes the voxels below that height collector, whatever they were. Just above, blur takes the grey from foil to
void through that of carbon/binder: such a rim is void where void lies one blur width further.

Not seen: a particle pressed into the foil that covers less than a tile; a foil that the volume cuts away within a
part of the side. Cost: one look at the slices that hold the foil (all, for a side along y or x). `find_side` looks at
all six sides, and so reads the volume about five times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach.codes import CBD, COLLECTOR, VOID
from cbdetach.errors import InputError

Array = npt.NDArray[Any]

SIDES = ("z0", "z1", "y0", "y1", "x0", "x1")
TILE = 16
"""Side of a tile of the face, in voxels."""
UNIFORM = 0.9
"""Least share of the outermost layer that has the foil's grey,"""
SPREADS = 4.0
"""within so many standard deviations."""
MAD = 1.4826  # from median absolute deviation to standard deviation of a normal distribution


@dataclass(frozen=True)
class Plate:
    """A collector: on which side, of which grey, and how thick."""

    side: str
    grey: float
    height: tuple[tuple[float, ...], ...]
    """Thickness in voxels at the middles of the tiles: rows along the face's first axis, columns along its second."""

    @property
    def axis(self) -> int:
        return "zyx".index(self.side[0])

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Plate:
        return Plate(values["side"], values["grey"], tuple(tuple(row) for row in values["height"]))

    def heights(self, rows: Array, columns: Array) -> npt.NDArray[np.float64]:
        """Thickness in voxels at voxels `rows` x `columns` of the face, linear between the middles of the tiles."""
        grid = np.array(self.height)
        for axis, places in enumerate((rows, columns)):
            at = np.clip((np.asarray(places) - (TILE - 1) / 2) / TILE, -0.5, grid.shape[axis] - 0.5)
            low = np.clip(np.floor(at).astype(int), 0, max(0, grid.shape[axis] - 2))
            high = np.minimum(low + 1, grid.shape[axis] - 1)
            part = np.expand_dims(at - low, 1 - axis)
            grid = grid.take(low, axis) * (1 - part) + grid.take(high, axis) * part
        return np.asarray(grid)


def find_plate(grey: Any, side: str, *, blur: float, void_cbd: float) -> Plate:
    """The collector on one side of a grey volume (Z, Y, X), which is read slice by slice.

    side : z0, z1, y0, y1, x0 or x1; blur : full width at half maximum, in voxels along that axis; void_cbd : the grey
    that parts void from carbon/binder. InputError where no plate lies there.
    """
    axis, end = "zyx".index(side[0]), int(side[1])
    if axis == 0:
        depth, level = _along_z(grey, end, side, blur, void_cbd)
    else:
        outer = np.stack([_layers(np.asarray(grey[z : z + 1]), axis, end)[:2, 0] for z in _even(grey.shape[0])], 1)
        level, spread = _level(_smooth(outer), side, void_cbd)
        chunks = (_layers(np.asarray(grey[z : z + TILE]), axis, end) for z in range(0, grey.shape[0], TILE))
        depth = np.concatenate([_depth(_smooth(chunk), level, spread, blur) for chunk in chunks])
    if np.isfinite(depth).mean() < 0.5:
        raise _none(side, "one grey fills the volume")
    height = _heights(depth)
    if np.median(height) < max(2.0, 2 * blur):
        raise _none(side, f"what lies there is {np.median(height):.1f} voxels thick, less than two widths of the blur")
    return Plate(side, level, tuple(tuple(row) for row in height.tolist()))


def find_side(grey: Any, *, blur: tuple[float, float, float], void_cbd: float) -> Plate:
    """The collector on whichever side of a grey volume (Z, Y, X) holds one; every side is tried as in `find_plate`.

    blur : full width at half maximum in voxels along (z, y, x). InputError where no side holds a plate, or several do.
    """
    found, refused = [], []
    for side in SIDES:
        try:
            found.append(find_plate(grey, side, blur=blur["zyx".index(side[0])], void_cbd=void_cbd))
        except InputError as error:
            refused.append(str(error).partition("; ")[2].partition(". ")[0])
    if len(found) == 1:
        return found[0]
    if found:
        sides = " and ".join(plate.side for plate in found)
        raise InputError(
            f"collector: must be on one side for auto; a plate lies at {sides}. Name the side of the foil."
        )
    raise InputError(f"collector: must be on one side for auto; {'; '.join(refused)}. Name a side, or none.")


def rim(blur: float) -> int:
    """Slices beyond a slab that `mark` looks at, for a blur of so many voxels (full width at half maximum)."""
    return math.ceil(blur) + 1


def mark(
    codes: npt.NDArray[np.uint8],
    grey: Array,
    plate: Plate,
    *,
    z0: int,
    w0: int,
    depth: int,
    blur: float,
    void_cbd: float,
) -> npt.NDArray[np.uint8]:
    """Phase codes (Z, Y, X) of a slab that begins at slice z0 of a volume of `depth` slices, the collector among them.

    grey : the window around it that begins at slice w0, with `rim(blur)` slices more on both sides, fewer only at the
    volume's ends. blur, void_cbd : as for `find_plate`.
    """
    axis, end = plate.axis, int(plate.side[1])
    places = [np.arange(n) for n in codes.shape]
    places[0] = places[0] + z0
    size = depth if axis == 0 else codes.shape[axis]
    below = size - 1 - places[axis] if end else places[axis]  # voxels between the side and this one
    face = [places[a] for a in range(3) if a != axis]
    height = np.expand_dims(plate.heights(face[0], face[1]), axis)
    centre = below.reshape([-1 if a == axis else 1 for a in range(3)]) + 0.5
    foil = centre < height
    beyond = places[axis] + (-rim(blur) if end else rim(blur))
    there = np.clip(beyond, 0, size - 1) - (w0 if axis == 0 else 0)
    window = grey if axis == 0 else grey[z0 - w0 : z0 - w0 + len(codes)]
    edge = (codes == CBD) & ~foil & (centre < height + max(1.0, blur)) & (np.take(window, there, axis) < void_cbd)
    return np.where(foil, COLLECTOR, np.where(edge, VOID, codes)).astype(np.uint8)


def _heights(depth: Array) -> npt.NDArray[np.float64]:
    """Height of the plate in every tile, from the depths of all lines: quartiles about a plane, as foils lie aslant."""
    from scipy.ndimage import median_filter

    rows, columns = ([_tile(n, i) for i in range(max(1, round(n / TILE)))] for n in depth.shape)
    middle = np.array([[(TILE * i + (TILE - 1) / 2, TILE * j + (TILE - 1) / 2) for j in range(len(columns))]
                       for i in range(len(rows))])  # fmt: skip
    plane = np.zeros(3)
    known = depth
    for turn in range(3):
        whole = _low(known, 0.0)
        low = np.array([[_low(known[row, column], whole) for column in columns] for row in rows])
        low = median_filter(low, 3, mode="mirror")
        if turn < 2:
            design = np.concatenate([np.ones((low.size, 1)), middle.reshape(-1, 2)], 1)
            plane += np.linalg.lstsq(design, low.ravel(), rcond=None)[0]
            y, x = np.ogrid[: depth.shape[0], : depth.shape[1]]
            known = depth - (plane[0] + plane[1] * y + plane[2] * x)
    return np.asarray(low + plane[0] + middle @ plane[1:])


def _along_z(grey: Any, end: int, side: str, blur: float, void_cbd: float) -> tuple[npt.NDArray[np.float64], float]:
    """Depths of the lines along z, read deeper until nearly every line has left the foil, and the foil's grey."""
    thickness = 0
    while True:
        thickness = min(grey.shape[0], max(TILE, 2 * thickness))
        z0 = grey.shape[0] - thickness if end else 0
        lines = _smooth(_layers(np.asarray(grey[z0 : z0 + thickness]), 0, end))
        level, spread = _level(lines, side, void_cbd)
        depth = _depth(lines, level, spread, blur)
        reach = thickness - math.ceil(3 * blur) - 1
        if thickness == grey.shape[0] or (depth < reach).mean() > 0.995:
            return depth, level


def _layers(part: Array, axis: int, end: int) -> Array:
    """A few slices as layers along `axis`, from the side inwards: (depth, face...)."""
    layers = np.moveaxis(part, axis, 0)
    return layers[::-1] if end else layers


def _even(n: int) -> list[int]:
    chosen: list[int] = np.unique(np.linspace(0, n - 1, TILE).round().astype(int)).tolist()
    return chosen


def _smooth(lines: Array) -> npt.NDArray[np.float32]:
    """Averaged across the lines, which run along the first axis; not along them."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(lines.astype(np.float32), (0.0, 1.5, 1.5), mode="nearest"))


def _level(lines: Array, side: str, void_cbd: float) -> tuple[float, float]:
    """Grey of the outermost layers, and its standard deviation."""
    outer = lines[:2]
    level = float(np.median(outer))
    spread = max(MAD * float(np.median(np.abs(outer - level))), 1e-6 * max(1.0, abs(level)))
    if level < void_cbd:
        raise _none(side, f"lies void (grey {level:g})")
    if level - SPREADS * spread < void_cbd or (np.abs(outer - level) < SPREADS * spread).mean() < UNIFORM:
        raise _none(side, "the outermost layers hold more than one grey")
    return level, spread


def _depth(lines: Array, level: float, spread: float, blur: float) -> npt.NDArray[np.float64]:
    """Where each line of (depth, face...) leaves the foil, in voxels from the side; inf where it does not."""
    n = len(lines)
    outside = np.abs(lines - level) > SPREADS * spread
    leaves = np.where(outside.any(0), outside.argmax(0), n)
    far = np.minimum(leaves + math.ceil(2 * blur), n - 1)
    beyond = np.take_along_axis(lines, far[None], 0)[0]
    half = (level + beyond) / 2
    crossed = (lines - half) * np.sign(beyond - level) > 0
    crossed &= np.arange(n)[:, None, None] >= np.maximum(leaves, 1) - math.ceil(blur)
    first = np.where(crossed.any(0), crossed.argmax(0), n - 1)
    before = np.maximum(first - 1, 0)
    a, b = (np.take_along_axis(lines, at[None], 0)[0] for at in (before, first))
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.clip((half - a) / (b - a), 0, 1)
    found = np.where(first > 0, before + part, 0.0) + 0.5  # the first voxel's centre lies half a voxel deep
    return np.where((leaves < n) & crossed.any(0), found, np.inf)


def _tile(size: int, index: int) -> slice:
    """Voxels of a tile; the last takes what is left over."""
    last = index == max(1, round(size / TILE)) - 1
    return slice(index * TILE, size if last else (index + 1) * TILE)


def _low(depths: Array, unknown: float) -> float:
    """The lower quartile of the depths that are known."""
    known = depths[np.isfinite(depths)]
    return float(np.quantile(known, 0.25)) if known.size else unknown


def _none(side: str, why: str) -> InputError:
    return InputError(
        f"collector: must name a side of the volume on which a foil lies; at {side} {why}. Name another, or none."
    )
