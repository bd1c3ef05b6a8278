"""Pictures of one particle: rays through a smoothed copy of its shape, first hit, shaded by its normals.

The particle's box is read in bands of slices and coarsened to at most `MAX_SIDE` voxels a side, with two kinds of
fields: the share of each coarse voxel that belongs to the (filled) particle, and, for every class of surface, how many
voxel faces of that class lie there. The class is decided at full resolution, by the 6-neighbour across each face, so a
film one voxel thick is seen whatever the coarsening. An orthographic camera looks along an oblique direction: the
shape, blurred by one voxel, is resampled into the camera's frame, the surface is the first crossing of one half along
each ray (linear between samples), its normal the gradient there, its colour the mixture of the class fields there. A
half space may be cut away; what lies on the cut is then reported as such.

Cost: one trilinear sample per pixel and depth step (about 0.2 s for 240 x 240 pixels). Memory: the coarse box, and one
band of slices at full resolution. Not checked: that the particle is one piece.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach import codes
from cbdetach.report import style

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Spacing = tuple[float, float, float]

MAX_SIDE = 88
BAND_VOXELS = 4_000_000
VOID_FACE, CBD_FACE, PARTICLE_FACE, MOUTH_FACE, OTHER_FACE = range(len(style.SURFACE))


@dataclass(frozen=True)
class Shape:
    """One particle on a coarse grid (z, y, x), with two voxels of nothing around it."""

    inside: npt.NDArray[np.float32]  # (Z, Y, X): share of each coarse voxel that is particle
    classes: npt.NDArray[np.float32]  # (5, Z, Y, X): faces of each class of surface (order of style.SURFACE)
    faces: npt.NDArray[np.int64]  # (5,): faces of each class, whole particle
    step: int  # voxels per coarse voxel, along each axis
    first: Floats  # (3,): index coordinates, in the volume, of the centre of coarse voxel [0, 0, 0]
    spacing: Spacing  # of the volume


@dataclass(frozen=True)
class Camera:
    """Orthographic: `axes` rows are the depth, down and right directions in physical (z, y, x)."""

    axes: Floats  # (3, 3)
    centre: Floats  # (3,): physical position at the middle of the picture
    pixel: float  # physical size of a pixel
    size: tuple[int, int]  # height, width in pixels
    depth: tuple[float, float]  # along axes[0], from the centre

    def project(self, points: Array, spacing: Spacing) -> Floats:
        """Index coordinates (n, 3) to (n, 3): depth in physical units, row and column in pixels."""
        moved = (np.asarray(points, dtype=np.float64) * spacing - self.centre) @ self.axes.T
        half = (np.asarray(self.size) - 1) / 2
        moved[:, 1:] = moved[:, 1:] / self.pixel + half
        return np.asarray(moved)


@dataclass(frozen=True)
class Hits:
    """What each ray meets; arrays (H, W), positions in index coordinates of the volume."""

    alpha: Floats  # 0..1, soft at the outline
    position: Floats  # (H, W, 3)
    on_cut: npt.NDArray[np.bool_]
    light: Floats  # 0..1 diffuse
    gloss: Floats  # 0..1 specular
    weights: Floats  # (H, W, 5): share of each class of surface


def read_shape(particles: Any, phases: Any, label: int, box: Array, spacing: Spacing) -> Shape:
    """The particle `label` inside `box` (z0, y0, x0, z1, y1, x1), read in bands of slices."""
    low, high = np.asarray(box[:3], dtype=np.int64), np.asarray(box[3:], dtype=np.int64)
    size = high - low
    step = max(1, -(-int(size.max()) // MAX_SIDE))
    coarse = -(-size // step) + 4
    inside = np.zeros(coarse, dtype=np.float32)
    classes = np.zeros((len(style.SURFACE), *coarse), dtype=np.float32)
    rows = max(1, BAND_VOXELS // int(step * (size[1] + 2) * (size[2] + 2))) * step
    for z in range(int(low[0]), int(high[0]), rows):
        start, stop = np.array([z, low[1], low[2]]), np.array([min(z + rows, high[0]), high[1], high[2]])
        label_window, outside = _window(particles, start - 1, stop + 1, fill=0)
        phase_window, _ = _window(phases, start - 1, stop + 1, fill=codes.VOID)
        mask, votes = _surface(label_window, phase_window, outside, label)
        at = 2 + (z - int(low[0])) // step
        band = slice(at, at + -(-int(stop[0] - z) // step))
        inside[band, 2:-2, 2:-2] += _block_sum(mask, step) / step**3
        classes[:, band, 2:-2, 2:-2] += np.stack([_block_sum(vote, step) for vote in votes])
    first = (low + (step - 1) / 2 - 2 * step).astype(np.float64)
    return Shape(inside, classes, np.rint(classes.sum(axis=(1, 2, 3))).astype(np.int64), step, first, spacing)


def look(
    shape: Shape, direction: Floats, *, pixels: int, cut: tuple[Floats, Floats] | None = None
) -> tuple[Camera, Hits]:
    """Look along `direction` (physical z, y, x). `cut`: a point (index coordinates) and the normal, towards the camera
    and physical, of a plane; everything on the camera's side of it is taken away."""
    from scipy.ndimage import affine_transform, gaussian_filter, map_coordinates

    solid = gaussian_filter(shape.inside, 1.0)
    soft = gaussian_filter(shape.inside, 1.4)
    coarse_spacing = np.asarray(shape.spacing) * shape.step
    origin = shape.first * shape.spacing
    camera = _camera(shape, direction, pixels)

    pace = float(coarse_spacing.min())
    near, far = camera.depth
    depths = near + pace * np.arange(int(np.ceil((far - near) / pace)) + 1)
    height, width = camera.size
    # Sample [k, i, j] lies at corner + k columns[0] + i columns[1] + j columns[2].
    columns = camera.axes * np.array([pace, camera.pixel, camera.pixel])[:, None]
    corner = camera.centre + near * camera.axes[0] - columns[1] * (height - 1) / 2 - columns[2] * (width - 1) / 2
    samples = affine_transform(
        solid,
        (columns / coarse_spacing).T,
        (corner - origin) / coarse_spacing,
        output_shape=(depths.size, height, width),
        order=1,
        output=np.float32,
    )
    base = corner + np.arange(height)[:, None, None] * columns[1] + np.arange(width)[None, :, None] * columns[2]

    on_cut = np.zeros((height, width), dtype=bool)
    if cut is not None:
        point, normal = cut
        along = float(normal @ camera.axes[0])
        plane = ((np.asarray(point) * shape.spacing - base) @ normal) / along  # depth from `base`, per ray
        at_plane = (base + plane[..., None] * camera.axes[0] - origin) / coarse_spacing
        on_cut = map_coordinates(solid, np.moveaxis(at_plane, -1, 0), order=1) > 0.5
        samples[(depths - near)[:, None, None] < plane] = 0
    above = samples > 0.5
    hit = np.argmax(above, axis=0)
    found = above.any(axis=0)
    now = np.take_along_axis(samples, hit[None], axis=0)[0].astype(np.float64)
    before = np.take_along_axis(samples, np.maximum(hit - 1, 0)[None], axis=0)[0].astype(np.float64)
    back = np.where(found, (now - 0.5) / np.maximum(now - before, 1e-6), 0.0)
    distance = (hit - np.clip(back, 0, 1)) * pace
    if cut is not None:
        distance = np.where(on_cut, plane, distance)
    position = base + distance[..., None] * camera.axes[0]

    grid = np.moveaxis((position - origin) / coarse_spacing, -1, 0)
    gradient: list[Array] = list(np.gradient(soft, *coarse_spacing))
    slope = [map_coordinates(g, grid, order=1, output=np.float64) for g in gradient]
    normal_field = -np.stack(slope, axis=-1)
    normal_field /= np.maximum(np.linalg.norm(normal_field, axis=-1, keepdims=True), 1e-12)
    lamp = -camera.axes[0] - 0.75 * camera.axes[1] - 0.55 * camera.axes[2]
    lamp /= np.linalg.norm(lamp)
    between = lamp - camera.axes[0]
    between /= np.linalg.norm(between)
    light = (0.5 + 0.5 * np.clip(normal_field @ lamp, -1, 1)) ** 1.5  # half Lambert: soft into the shade
    gloss = np.clip(normal_field @ between, 0, 1) ** 24
    classes = np.stack(
        [map_coordinates(gaussian_filter(c, 0.9), grid, order=1, output=np.float64) for c in shape.classes], axis=-1
    )
    sharp = np.maximum(classes, 0) ** 4
    weights = sharp / np.maximum(sharp.sum(axis=-1, keepdims=True), 1e-12)
    alpha = np.where(on_cut, 1.0, np.clip((samples.max(axis=0) - 0.42) / 0.16, 0, 1))
    return camera, Hits(alpha, np.moveaxis(grid, 0, -1) * shape.step + shape.first, on_cut, light, gloss, weights)


def shade(hits: Hits, *, strength: float = 1.0) -> Floats:
    """RGBA (H, W, 4) in 0..1: surface classes in their colours, lit from the upper left; `strength` 0 is grey."""
    colours = np.array([style.rgb(colour) for colour in style.SURFACE.values()])
    base = hits.weights @ colours
    none = hits.weights.sum(axis=-1, keepdims=True) < 0.5
    base = np.where(none, style.rgb("#b9c0c6"), base)
    base = strength * base + (1 - strength) * np.array(style.rgb("#b9c0c6"))
    lit = base * (0.42 + 0.66 * hits.light[..., None]) + 0.14 * hits.gloss[..., None]
    return np.concatenate([np.clip(lit, 0, 1), hits.alpha[..., None]], axis=-1)


def sample(field: Array, box: Array, position: Array) -> Floats:
    """Values of `field` (the voxels of `box`) at index coordinates (..., 3), linear between finite voxels; nan where
    little of the surroundings (0.35) is finite."""
    from scipy.ndimage import map_coordinates

    grid = np.moveaxis(np.asarray(position) - np.asarray(box[:3]), -1, 0)
    finite = np.isfinite(field)
    value = map_coordinates(np.where(finite, field, 0).astype(np.float32), grid, order=1, output=np.float64)
    share = map_coordinates(finite.astype(np.float32), grid, order=1, output=np.float64)
    return np.where(share >= 0.35, value / np.maximum(share, 1e-9), np.nan)


def _window(volume: Any, start: Array, stop: Array, *, fill: int) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Voxels start..stop of a lazy volume, `fill` beyond its ends, and where that is."""
    shape = np.asarray(volume.shape)
    inner_start, inner_stop = np.clip(start, 0, shape), np.clip(stop, 0, shape)
    part = np.asarray(volume[tuple(slice(int(a), int(b)) for a, b in zip(inner_start, inner_stop, strict=True))])
    before, after = inner_start - start, stop - inner_stop
    pad = [(int(a), int(b)) for a, b in zip(before, after, strict=True)]
    return np.pad(part, pad, constant_values=fill), np.pad(np.zeros(part.shape, dtype=bool), pad, constant_values=True)


def _surface(labels: Array, phases: Array, outside: Array, label: int) -> tuple[Array, list[Array]]:
    """The mask, and the number of faces of each class at each of its voxels; windows with one voxel around."""
    inner = (slice(1, -1),) * 3
    mask = labels[inner] == label
    solid = mask & np.isin(phases[inner], (codes.ACTIVE, codes.ACTIVE_HIGH))
    votes = [np.zeros(mask.shape, dtype=np.float32) for _ in style.SURFACE]
    for axis in range(3):
        for shift in (0, 2):
            there = list(inner)
            there[axis] = slice(shift, shift + mask.shape[axis])
            beyond, phase, edge = labels[tuple(there)], phases[tuple(there)], outside[tuple(there)]
            face = mask & (beyond != label)
            active = (beyond > 0) | (phase == codes.ACTIVE) | (phase == codes.ACTIVE_HIGH)
            facing = (
                ~active & (phase == codes.VOID) & ~edge,
                ~active & (phase == codes.CBD) & ~edge,
                active & ~edge,
                None,
                ~active & (phase == codes.COLLECTOR) | edge,
            )
            for vote, faced in zip(votes, facing, strict=True):
                if faced is not None:
                    vote += face & solid & faced
            votes[MOUTH_FACE] += face & ~solid & ~edge
            votes[OTHER_FACE] += face & ~solid & edge
    return mask, votes


def _block_sum(values: Array, step: int) -> npt.NDArray[np.float32]:
    values = values.astype(np.float32)
    for axis in range(3):
        values = np.add.reduceat(values, np.arange(0, values.shape[axis], step), axis=axis)
    return values


def _camera(shape: Shape, direction: Floats, pixels: int) -> Camera:
    """Fit the particle into the picture, at its middle, with a small margin; the picture's up is the volume's -z."""
    forward = np.asarray(direction, dtype=np.float64) / np.linalg.norm(direction)
    down = np.array([1.0, 0.0, 0.0]) - forward[0] * forward
    if np.linalg.norm(down) < 1e-6:
        down = np.array([0.0, 1.0, 0.0])
    down /= np.linalg.norm(down)
    # right = such that (right, down, forward) is right-handed in (x, y, z)
    right = np.cross(down[::-1], forward[::-1])[::-1]
    axes = np.stack([forward, down, right])
    at = np.argwhere(shape.inside > 0.25) * shape.step + shape.first
    local = (at * shape.spacing) @ axes.T
    low, high = local.min(axis=0), local.max(axis=0)
    margin = 2.5 * shape.step * max(shape.spacing)
    middle = (low + high) / 2
    extent = (high - low) + 2 * margin
    depth = float(extent[0]) / 2
    pixel = float(extent[1:].max()) / pixels
    return Camera(axes, axes.T @ middle, pixel, (pixels, pixels), (-depth, depth))
