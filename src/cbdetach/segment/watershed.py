"""Touching particles split by a watershed on the distance map, the same way in a slice (2-D) and in a window (3-D).

The active phase is one connected sponge: particles touch. A particle is thick in the middle and thin where it touches
its neighbour, so the distance to the surface has one summit per particle and a saddle at every contact.

1. *Close.* Cracks up to `close_um` wide are bridged and pores filled, so that a cracked or hollow particle has one
   summit and not one per fragment. This mask only decides how particles are split.
2. *Flood* (scikit-image) from every local maximum of the distance. That gives far too many basins, one for every bump
   of the surface.
3. *Merge* basins by the depth of the saddle between them (`cbdetach.basins`), relative to the height of the lower
   summit: a neck of 3/4 of the smaller particle's radius is an uneven particle for a large and for a small one alike.
   Basins smaller than `min_diameter_um` then join the neighbour behind their highest saddle; one without neighbour is
   no particle. Those that the window's edge cuts may be parts of larger ones: they do not join, and are kept.
4. *Fill* particle by particle: what the closing added stays, unless it is as near to another particle as the closing
   reaches, and so do the holes whose wall is (to 90 %) one particle's. Carbon, binder and void in the cusps between
   neighbours stay outside, though the closing of the whole mask in step 1 did cover them. In 3-D *notches* are given
   back, too: dark pieces that reach no deeper under the surface than the closing does, further out in the cusps. They
   would be a tenth of the surface, made of neither active material nor what the particle faces.
5. *Straighten* the surfaces between particles, in 3-D: the flood leaves them ragged and twice too large. Each voxel
   goes to the particle whose blurred indicator is largest there, a few times over, inside the mask; that moves every
   dividing surface towards the smallest one across its neck.

In 3-D the space between particles is connected, so that an enclosed void is a pore. In a slice it may lie between
three particles; so a first, coarser split without any filling tells to whom a void belongs.

Cost: three or four distance transforms and one flood (a slice: two), about 1 us per voxel; memory 40 bytes per voxel.
Cut objects at the window's edge are kept: what lies outside the window is unknown, not background.
Method: Beucher and Lantuejoul (1979) for the flood; Grimaud (1992), "dynamics", for the merge; Merriman, Bence and
Osher (1994), "threshold dynamics", for the straightening.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach.arrays import reaching_deeper, surface_depth
from cbdetach.basins import highest, merge_basins
from voxkernels._arrays import as_spacing

Labels = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

MIN_DIAMETER_UM = 2.0
MIN_DIAMETER_VOXELS = 5.0

FINISH = 24
"""Slices around a slab that `finish` needs: 15 to straighten, the rest for notches."""

STRAIGHT, ROUNDS = 1.5, 3
"""Sigma of `straighten` in voxels, and how often: particles of 5 voxels are not eaten by larger ones."""


def distance_to(mask: Mask, spacing: tuple[float, ...]) -> Floats:
    """Euclidean distance from each voxel centre to the nearest voxel centre of `mask`; inf where the mask is empty."""
    from scipy.ndimage import distance_transform_edt

    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    nearest = distance_transform_edt(~mask, sampling=spacing, return_distances=False, return_indices=True)
    square = np.zeros(mask.shape, np.float32)
    for axis, step in enumerate(spacing):
        index = np.arange(mask.shape[axis], dtype=np.int32)
        index = index.reshape([-1 if a == axis else 1 for a in range(mask.ndim)])
        offset = (nearest[axis] - index).astype(np.float32)
        offset *= np.float32(step)
        offset *= offset
        square += offset
    return np.sqrt(square, out=square)


def split_particles(
    active: Mask,
    *,
    spacing: tuple[float, ...],
    min_diameter_um: float = 2.0,
    marker_depth: float = 0.25,
    close_um: float = 0.5,
) -> Labels:
    """Split the active phase into particles.

    Parameters
    ----------
    active : (Z, Y, X) or (Y, X) bool
        Voxels of active material.
    spacing : one length per axis, um
    min_diameter_um : float
        Smallest equivalent diameter of a particle (of the ball, or in a slice of the disc, of equal volume).
    marker_depth : float, 0 to 1
        Two summits of the distance map are two particles if the lower one rises above the saddle between them by more
        than this share of its height.
    close_um : float
        Widest crack that is bridged; 0 bridges none.

    Returns
    -------
    int32 array of the same shape: 0, and the filled particles 1..n in the order of their first voxel.
    """
    if not active.any():
        return np.zeros(active.shape, np.int32)
    radius = close_um / 2 + min(spacing) / 2 if close_um > 0 else 0.0
    outside, closed = close(active, spacing, radius)

    def split(body: Mask, depth: float) -> Labels:
        height = distance_to(~body, spacing) - np.float32(min(spacing) / 2)  # to the face, not the next voxel's centre
        basins, peak = flood(height, body, outside, radius)
        size = np.bincount(basins[active], minlength=len(peak)) * math.prod(spacing)
        smallest = ball(min_diameter_um, active.ndim)
        size[at_the_edge(basins, len(peak))] += smallest  # the rest of it is outside: it may be large enough
        owner = merge_basins(*saddles(basins, height, body), peak, depth, size=size, smallest=smallest)
        total = np.bincount(owner, weights=size)[owner]
        return np.where(total < smallest, 0, owner).astype(np.int32)[basins]

    if active.ndim == 3:
        body = closed | (enclosed(~closed)[0] > 0)
    else:
        body = closed | pores(split(closed, 1.5 * marker_depth), closed)
    labels = split(body, marker_depth)
    touching = contacts(labels)
    if radius >= 2 * min(spacing):
        touching = distance_to(touching, spacing) <= radius - min(spacing)
    if radius > 0:
        open_at_the_edge(closed, active, spacing, radius)
    labels[~active & (touching | ~closed)] = 0
    fill_holes(labels)
    if labels.ndim == 3:
        finish(labels, active, spacing=spacing, depth_um=radius)
    return number_by_first_voxel(labels)


def at_the_edge(labels: npt.NDArray[np.integer[Any]], n: int) -> Mask:
    """Which of the labels 0..n-1 reach the window's edge."""
    edge = np.zeros(n, bool)
    for axis in range(labels.ndim):
        for end in (0, -1):
            edge[np.take(labels, end, axis)] = True
    return edge


def smallest_diameter(spacing: tuple[float, ...], wanted: float | None) -> float:
    """Smallest diameter of a particle, um: as wanted; None is 2 um, but no less than 5 voxels."""
    if wanted is None:
        return max(MIN_DIAMETER_UM, MIN_DIAMETER_VOXELS * math.prod(spacing) ** (1 / len(spacing)))
    if not (math.isfinite(wanted) and wanted >= 0):
        raise ValueError(f"min_diameter_um: must be a finite number of at least 0; got {wanted}.")
    return wanted


def ball(diameter: float, ndim: int) -> float:
    """Volume of the ball, area of the disc."""
    return math.pi / 6 * diameter**3 if ndim == 3 else math.pi / 4 * diameter**2


def close(active: Mask, spacing: tuple[float, ...], radius: float) -> tuple[Floats, Mask]:
    """Distance outside the mask, and its closing by a ball; nothing beyond the window is background."""
    if radius == 0:
        return np.where(active, np.float32(0), np.float32(np.inf)), active
    outside = distance_to(active, spacing)
    return outside, active | (distance_to(outside > radius, spacing) > radius)


def open_at_the_edge(closed: Mask, active: Mask, spacing: tuple[float, ...], radius: float) -> None:
    """Take back what the closing has added between a particle and the window's edge, where no background stopped it."""
    for axis, step in enumerate(spacing):
        n = int(radius / step)
        for end in (slice(0, n), slice(max(n, active.shape[axis] - n), None)):
            at = tuple(end if a == axis else slice(None) for a in range(active.ndim))
            closed[at] &= active[at]


def enclosed(background: Mask) -> tuple[Labels, int]:
    """Components of the background (face neighbours) that do not reach the window's edge."""
    from scipy.ndimage import label

    holes, n = label(background)
    edge = at_the_edge(holes, n + 1)
    edge[0] = True
    number = np.where(edge, 0, np.cumsum(~edge)).astype(np.int32)
    return number[holes], int(number.max())


def pores(labels: Labels, closed: Mask) -> Mask:
    """Holes of the closed mask that lie in one particle."""
    labels[~closed] = 0
    fill_holes(labels)
    return (labels > 0) & ~closed


def flood(height: Floats, body: Mask, outside: Floats, radius: float) -> tuple[Labels, Floats]:
    """One basin per local maximum; the basins also cover what lies within `radius` of the active phase."""
    from scipy.ndimage import label, maximum_filter
    from skimage.segmentation import watershed

    summit = body & (height == maximum_filter(height, size=3))
    markers, n = label(summit, np.ones((3,) * height.ndim))
    peak = np.zeros(n + 1, np.float32)
    peak[markers[summit]] = height[summit]
    surface = np.where(body, -height, outside)
    flooded: Labels = watershed(surface, markers, mask=body | (outside <= radius))  # type: ignore[no-untyped-call]
    return flooded.astype(np.int32, copy=False), peak


def neighbours(ndim: int) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """For each axis the two views of an array whose voxels face each other."""
    for axis in range(ndim):
        before, after = [slice(None)] * ndim, [slice(None)] * ndim
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        yield tuple(before), tuple(after)


def saddles(basins: Labels, height: Floats, body: Mask) -> tuple[Ints, Floats]:
    """Adjacent basins (K, 2) and the height of the pass between them (K,)."""
    n = int(basins.max()) + 1
    keys, values = [], []
    for here, there in neighbours(basins.ndim):
        a, b = basins[here], basins[there]
        face = (a != b) & body[here] & body[there]
        a, b = a[face].astype(np.int64), b[face]
        passes = np.minimum(height[here][face], height[there][face])
        key, value = highest(np.minimum(a, b) * n + np.maximum(a, b), passes)
        keys.append(key)
        values.append(value)
    key, value = highest(np.concatenate(keys), np.concatenate(values))
    return np.stack([key // n, key % n], axis=1), value


def finish(labels: Labels, active: Mask, *, spacing: tuple[float, ...], depth_um: float) -> None:
    """Particles of a (Z, Y, X) window, in place: notches up to `depth_um` deep are given back, contacts straightened.

    Right up to `FINISH` slices from an inner end of the window, but for notches that are cut by it.
    """
    if depth_um > 0:
        dark = (labels > 0) & ~active
        depth = surface_depth(labels, spacing=as_spacing(spacing), reach=depth_um)
        labels[dark & ~reaching_deeper(labels, dark, depth, depth_um)] = 0
    straighten(labels)


def straighten(labels: Labels) -> None:
    """Give each voxel of a particle to the one whose blurred indicator is largest there, `ROUNDS` times; in place."""
    from scipy.ndimage import find_objects, gaussian_filter

    reach = math.ceil(3 * STRAIGHT)
    boxes = [  # a voxel can go to a particle within reach: one round moves less
        (label, tuple(slice(max(0, s.start - reach), s.stop + reach) for s in box))
        for label, box in enumerate(find_objects(labels), 1)
        if box is not None
    ]
    for _ in range(ROUNDS):
        best = np.zeros(labels.shape, np.float32)
        nearest = labels.copy()
        for label, box in boxes:
            share = gaussian_filter((labels[box] == label).astype(np.float32), STRAIGHT, truncate=3)
            more = share > best[box]
            best[box][more] = share[more]
            nearest[box][more] = label
        np.copyto(labels, nearest, where=labels > 0)


def contacts(labels: Labels) -> Mask:
    """Voxels that face another particle."""
    mask = np.zeros(labels.shape, bool)
    for here, there in neighbours(labels.ndim):
        a, b = labels[here], labels[there]
        face = (a != b) & (a > 0) & (b > 0)
        mask[here] |= face
        mask[there] |= face
    return mask


def fill_holes(labels: Labels, share: float = 0.9) -> None:
    """Give a hole to the particle that makes up at least `share` of its wall; in place."""
    holes, n = enclosed(labels == 0)
    if n == 0:
        return
    m = int(labels.max()) + 1
    keys = []
    for here, there in neighbours(labels.ndim):
        for one, other in ((here, there), (there, here)):
            face = (holes[one] > 0) & (labels[other] > 0)
            keys.append(holes[one][face].astype(np.int64) * m + labels[other][face])
    key, count = np.unique(np.concatenate(keys), return_counts=True)
    hole, particle = key // m, key % m
    total = np.bincount(hole, weights=count, minlength=n + 1)
    whole = count >= share * total[hole]
    filler = np.zeros(n + 1, np.int32)
    filler[hole[whole]] = particle[whole]
    inside = holes > 0
    labels[inside] = filler[holes[inside]]


def number_by_first_voxel(labels: Labels) -> Labels:
    """The same particles numbered 1..n in the order of their first voxel."""
    flat = labels.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=0))
    values, first = np.unique(flat[starts], return_index=True)
    values = values[np.argsort(first)]
    values = values[values > 0]
    number = np.zeros(int(flat.max(initial=0)) + 1, np.int32)
    number[values] = np.arange(1, len(values) + 1)
    return number[labels]
