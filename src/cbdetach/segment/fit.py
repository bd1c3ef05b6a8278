"""A network's instances fitted to the phases: the network knows which particle, the phases know where its surface is.

A mask of 28 x 28 pixels, pasted onto a section a hundred pixels across, has its outline wrong by a pixel or two. Left
as it is, shells of active material without a label would face the particles all round, and labels would reach over the
void and the carbon/binder whose areas are to be measured. So an instance decides only what belongs together:

1. *Seeds*: the active pixels of each instance. A scrap of one that lies on another particle (it is not connected to the
   rest of its own instance but touches another instance) is no seed.
2. *Flood* (watershed on the distance to the seeds) through the active phase as far as `reach` of the instance's
   diameter: the shell that the mask has left out. What two instances could have goes to the nearer.
3. *Cracks and pores*: dark pixels inside the instance, unless they are open to the outside wider than `close_um`: a
   dark region that a disc of that width can walk out of is void or carbon/binder that the mask has covered. What the
   closing of the phase itself bridges belongs to the particle as well, except between two particles. Holes whose wall
   is (to 90 %) one particle's are filled. So a particle that a crack cuts in two stays one.
4. *Left-overs*: active pixels far from every instance. Where the disc of the smallest section fits in, the network has
   missed a particle: the watershed (`watershed.py`) splits them, and they are added. Less than that stays unlabelled.

Cost: five distance transforms and a flood, about 1 us per pixel.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from voxkernels._arrays import as_mask, as_spacing

from .watershed import (
    Floats,
    Labels,
    Mask,
    at_the_edge,
    ball,
    close,
    contacts,
    distance_to,
    fill_holes,
    neighbours,
    open_at_the_edge,
    smallest_diameter,
    split_particles,
)

REACH = 0.1
"""Share of an instance's diameter that its mask may fall short of the surface: two or three of its 28 pixels,"""
REACH_PIXELS = 2.0
"""and at least this."""
CLOSE_UM_INSTANCE = 0.8
"""Wider than the watershed's, which splits by what it closes: a crack that is cut obliquely looks wide in a slice."""
SHARE = 0.9
"""Of a dark region that one instance must cover for it to be that particle's."""


def fit_to_phase(
    labels: npt.NDArray[Any],
    active: npt.NDArray[Any],
    *,
    spacing: tuple[float, float] = (1.0, 1.0),
    reach: float = REACH,
    close_um: float = CLOSE_UM_INSTANCE,
    min_diameter_um: float | None = None,
    marker_depth: float = 0.15,
    add: bool = True,
) -> Labels:
    """Instances of one slice with the outlines of the active phase.

    Parameters
    ----------
    labels : (Y, X) of any integer type: 0, and the network's instances. Not altered.
    active : (Y, X) bool, active material.
    spacing : pixel size (dy, dx), um.
    reach : 0 to 1; how far, as a share of its diameter, an instance is extended through the active phase.
    close_um : widest crack that is open to the outside and still belongs to its particle.
    min_diameter_um : smallest diameter of a particle. Sections are kept and added down to half of it. Default: 2 um,
        but no less than 5 pixels.
    marker_depth : for the watershed of what is added, as for `segment_slice`.
    add : whether active material that no instance reaches becomes particles of its own.

    Returns
    -------
    (Y, X) int32: instances keep their numbers (one without active material is gone); particles that were added have the
    numbers after the highest.

    Raises
    ------
    TypeError, ValueError : not a label image and a mask of one shape; a spacing or an option out of range.
    """
    mask = as_mask("active", active, ndim=2)
    sizes = as_spacing((1.0, *spacing))[1:]
    _check(labels, mask, reach, close_um, marker_depth)
    n = int(labels.max(initial=0))
    smallest = smallest_diameter(sizes, min_diameter_um) / 2
    radius = close_um / 2 + min(sizes) / 2 if close_um > 0 else 0.0
    instances = labels.astype(np.int32)
    fitted = _solid(instances, mask, sizes, reach)
    if fitted.any():
        _fill(fitted, instances, mask, sizes, radius)
    _drop_small(fitted, sizes, smallest)
    if add:
        left = mask & (fitted == 0)
        more = split_particles(
            left, spacing=sizes, min_diameter_um=smallest, marker_depth=marker_depth, close_um=close_um
        )
        more[fitted > 0] = 0
        deepest = np.zeros(int(more.max(initial=0)) + 1, np.float32)
        np.maximum.at(deepest, more.ravel(), distance_to(~left, sizes).ravel())
        wide = deepest >= smallest / 2
        wide[0] = False
        fitted += np.where(wide, n + np.cumsum(wide), 0).astype(np.int32)[more]
    return fitted


def _solid(instances: Labels, active: Mask, spacing: tuple[float, ...], reach: float) -> Labels:
    """Active pixels of each instance, and those around it that it reaches through the active phase."""
    from skimage.segmentation import watershed

    seeds = np.where(active, instances, 0).astype(np.int32)
    _drop_scraps(seeds)
    if not seeds.any():
        return seeds
    distance, nearest = _nearest(seeds, spacing)
    area = np.bincount(instances.ravel()) * math.prod(spacing)
    limit = np.maximum(reach * np.sqrt(4 / math.pi * area), REACH_PIXELS * min(spacing)).astype(np.float32)
    within = active & (distance <= limit[nearest])
    solid: Labels = watershed(distance, seeds, mask=within)  # type: ignore[no-untyped-call]
    return solid.astype(np.int32, copy=False)


def _nearest(labels: Labels, spacing: tuple[float, ...]) -> tuple[Floats, Labels]:
    """Distance to the nearest labelled pixel, and its label."""
    from scipy.ndimage import distance_transform_edt

    distance, index = distance_transform_edt(labels == 0, sampling=spacing, return_indices=True)
    return distance.astype(np.float32), labels[tuple(index)]


def _drop_scraps(seeds: Labels) -> None:
    """Take away pieces of an instance, but for its largest, that touch another instance; in place."""
    from cbdetach import device

    pieces, n = device.label(seeds[None], connectivity=6)
    pieces = pieces[0]
    size = np.bincount(pieces.ravel(), minlength=n + 1)
    owner = np.zeros(n + 1, np.int32)
    owner[pieces.ravel()] = seeds.ravel()
    order = np.lexsort((-size[1:], owner[1:])) + 1
    main = np.zeros(n + 1, bool)
    main[order[np.flatnonzero(np.diff(owner[order], prepend=-1))]] = True
    touches = np.zeros(n + 1, bool)
    for here, there in neighbours(2):
        face = (seeds[here] != seeds[there]) & (seeds[here] > 0) & (seeds[there] > 0)
        touches[pieces[here][face]] = True
        touches[pieces[there][face]] = True
    seeds[(touches & ~main)[pieces]] = 0


def _fill(fitted: Labels, instances: Labels, active: Mask, spacing: tuple[float, ...], radius: float) -> None:
    """Give each particle its cracks and pores; in place."""
    from scipy.ndimage import label

    _, closed = close(active, spacing, radius)
    if radius > 0:
        closed = closed.copy()
        open_at_the_edge(closed, active, spacing, radius)
    _, nearest = _nearest(fitted, spacing)
    rooms, n = label(~closed)
    total = np.bincount(rooms.ravel(), minlength=n + 1)
    own = np.bincount(rooms.ravel(), weights=(instances == nearest).ravel(), minlength=n + 1)
    inner = own >= SHARE * total  # a pore: its mouth, if any, is narrower than a crack
    inner[0] = False
    others = (instances > 0) & (instances != nearest)
    dark = ~active & (closed & ~others | inner[rooms])
    fitted[dark] = nearest[dark]
    touching = contacts(fitted)
    if radius >= 2 * min(spacing):
        touching = distance_to(touching, spacing) <= radius - min(spacing)
    fitted[~active & touching] = 0
    fill_holes(fitted)


def _drop_small(fitted: Labels, spacing: tuple[float, ...], smallest: float) -> None:
    """Take away particles below the smallest size, unless the rest of them may be outside the window; in place."""
    area = np.bincount(fitted.ravel()) * math.prod(spacing)
    small = (area < ball(smallest, 2)) & ~at_the_edge(fitted, area.size)
    fitted[small[fitted]] = 0


def _check(
    labels: npt.NDArray[Any],
    active: Mask,
    reach: float,
    close_um: float,
    marker_depth: float,
) -> None:
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels: must be of an integer type; got {labels.dtype}. Give a label image.")
    if labels.shape != active.shape:
        raise ValueError(f"labels: must have the shape of active, {active.shape}; got {labels.shape}.")
    if labels.size and int(labels.min()) < 0:
        raise ValueError(f"labels: must not be negative; got {int(labels.min())}. 0 is the background.")
    for name, share in (("reach", reach), ("marker_depth", marker_depth)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name}: must be between 0 and 1; got {share}.")
    if not (math.isfinite(close_um) and close_um >= 0):
        raise ValueError(f"close_um: must be a finite length of at least 0; got {close_um}. 0 bridges no crack.")
