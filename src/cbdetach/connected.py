"""Connected carbon/binder: only what has a path to the anchor carries electrons (DEFINITIONS: Surface and contact).

The anchor is the current collector, or a side of the volume that the user names. Every component of carbon/binder is
*connected* (it touches the anchor), *undetermined* (it does not, but leaves the volume, so that nobody can tell), or
*isolated*. Voxels that touch by edges or corners alone may or may not conduct: with 6-connected voxels they do not,
which counts too little carbon/binder, with 26-connected ones they do, which counts too much. The truth lies between.

Slabs go in and slabs come out, through `voxkernels.label_slabs`: memory is that of one slab and a few bytes for each
component, and the classes are those of the whole volume in one piece. Carbon/binder inside a filled particle is none:
after blur, cracks have its grey value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

import voxkernels as vk
from cbdetach import device
from cbdetach.arrays import expanded
from cbdetach.codes import CBD, N_PHASES, VOID

Array = npt.NDArray[Any]

NONE, CONNECTED, UNDETERMINED, ISOLATED = range(4)
"""Codes of the `/cbd_connected` volumes; `NONE` is everything that is not carbon/binder."""

CLASSES = {CONNECTED: "connected", UNDETERMINED: "undetermined", ISOLATED: "isolated"}

SIDES = ("z0", "z1", "y0", "y1", "x0", "x1")
"""Sides of the volume by their axis, 0 the first and 1 the last layer of voxels."""

CONNECTIVITIES = (6, 26)
HALO = 1
"""Slices that `anchored` needs beyond the slices it is for, on each side."""


def free_cbd(labels: Array, phases: Array) -> npt.NDArray[np.bool_]:
    """Carbon/binder outside every filled particle. labels, phases: (Z, Y, X)."""
    return np.asarray((phases == CBD) & (labels == 0))


def anchored(cbd: Array, collector: Array, *, connectivity: int) -> npt.NDArray[np.bool_]:
    """Carbon/binder voxels that touch the collector, by faces (6) or also by edges and corners (26).

    cbd, collector : (Z, Y, X) bool, a slab with a halo of `HALO` slices.
    """
    from scipy.ndimage import binary_dilation, generate_binary_structure

    if not (cbd.any() and collector.any()):
        return np.zeros(cbd.shape, np.bool_)
    structure = generate_binary_structure(3, 1 if connectivity == 6 else 3)
    return np.asarray(cbd & binary_dilation(collector, structure))


def on_side(cbd: Array, side: str, *, first: bool, last: bool) -> npt.NDArray[np.bool_]:
    """Carbon/binder voxels of a slab in the layer of voxels on one side of the volume.

    cbd : (Z, Y, X) bool, a slab without halo; first, last : whether it is the volume's first and its last.
    """
    axis, end = "zyx".index(side[0]), int(side[1])
    found = np.zeros(cbd.shape, np.bool_)
    if axis > 0 or (last if end else first):
        layer: list[Any] = [slice(None)] * 3
        layer[axis] = -1 if end else 0
        found[tuple(layer)] = cbd[tuple(layer)]
    return found


def classify(cbd: Iterable[Array], anchor: Iterable[Array], *, connectivity: int) -> Iterator[npt.NDArray[np.uint8]]:
    """The class of every carbon/binder voxel, slab by slab.

    Parameters
    ----------
    cbd : (Z_k, Y, X) bool, the volume's carbon/binder in slabs, in order. Gone through four times: a list, or an object
        that reads them anew whenever it is iterated over.
    anchor : (Z_k, Y, X) bool, the same slabs: the voxels of `cbd` that touch the anchor. Gone through once.
    connectivity : 6 or 26.

    Yields
    ------
    (Z_k, Y, X) uint8: `NONE`, `CONNECTED`, `UNDETERMINED` or `ISOLATED`.
    """
    labels, n = device.label_slabs(cbd, connectivity=connectivity)
    kind = np.full(n + 1, ISOLATED, np.uint8)
    reached = np.zeros(n + 1, np.bool_)
    last: Array | None = None
    for components, touches in zip(labels, anchor, strict=True):
        for layer in (components[:, 0], components[:, -1], components[:, :, 0], components[:, :, -1]):
            kind[layer] = UNDETERMINED
        if last is None:
            kind[components[0]] = UNDETERMINED
        last = components[-1].copy()
        reached[components[touches]] = True
    if last is not None:
        kind[last] = UNDETERMINED
    kind[reached] = CONNECTED
    kind[0] = NONE
    again, _ = device.label_slabs(cbd, connectivity=connectivity)
    for components in again:
        yield kind[components]


def attach_classes(
    labels: Array, phases: Array, classes: Array, tolerance_um: float, spacing: tuple[float, float, float]
) -> npt.NDArray[np.uint8]:
    """Classes, with void within `tolerance_um` of carbon/binder in the class of the nearest (the contact tolerance)."""
    if tolerance_um <= 0 or not classes.any():
        return classes
    grown = expanded(classes, reach=tolerance_um * (1 + 1e-6), spacing=spacing)
    return np.where((phases == VOID) & (labels == 0), grown, classes).astype(np.uint8)


def surface_kinds(phases: Array, by_faces: Array, by_corners: Array) -> npt.NDArray[np.uint8]:
    """Phases in which carbon/binder is told apart by its class, for one measurement of all of them.

    phases : (Z, Y, X) phase codes; by_faces, by_corners : classes with 6- and 26-connected voxels. A voxel that has
    classes a and b gets `N_PHASES + 3 (a - 1) + (b - 1)`.
    """
    code = N_PHASES + 3 * (by_faces.astype(np.int16) - 1) + (by_corners.astype(np.int16) - 1)
    return np.where((by_faces > 0) & (by_corners > 0), code, phases).astype(np.uint8)


def areas_by_class(contacts: vk.ContactAreas, labels: Array, connectivity: int) -> dict[str, npt.NDArray[np.float64]]:
    """Surface of every particle that faces void and each class of carbon/binder, aligned with `labels` (N,)."""
    area = np.zeros((labels.size, N_PHASES + 9))
    if labels.size and contacts.labels.size:
        row = np.minimum(np.searchsorted(contacts.labels, labels), contacts.labels.size - 1)
        there = (contacts.labels[row] == labels)[:, None]
        area[:, : contacts.area.shape[1]] = np.where(there, contacts.area[row], 0.0)
    axis = 2 if connectivity == 6 else 1  # sum over the other connectivity's class
    by_class = area[:, N_PHASES:].reshape(-1, 3, 3).sum(axis=axis)
    return {"void": area[:, VOID]} | {name: by_class[:, code - 1] for code, name in CLASSES.items()}


def connected_fraction(
    area: dict[str, Array], particle_area: Array | float = 0.0, *, undetermined: str = "apart"
) -> npt.NDArray[np.float64]:
    """Degree of detachment that counts only connected carbon/binder: detached / (detached + attached), nan for 0 / 0.

    area : as `areas_by_class` gives it; particle_area : (N,) contact with particles, where that counts as attached.
    undetermined : carbon/binder that leaves the volume is left out ("apart"), or counts as "attached" or "detached".

    For every choice the fraction with 6-connected voxels is at least that with 26-connected ones, and that is at least
    `detachment_fraction`.
    """
    detached = area["void"] + area["isolated"]
    attached = area["connected"] + particle_area
    if undetermined == "attached":
        attached = attached + area["undetermined"]
    elif undetermined == "detached":
        detached = detached + area["undetermined"]
    whole = np.asarray(detached + attached, dtype=np.float64)
    return np.asarray(np.divide(detached, whole, out=np.full(whole.shape, np.nan), where=whole > 0))
