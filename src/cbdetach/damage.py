"""Damage: cracks and as-made pores inside the filled particles, and where the crack surface is (DEFINITIONS: Damage).

Dark voxels inside a closed particle are `PORE` (compact, as made) or `CRACK` (thin); only cracks are damage. They are
told apart piece by piece (`classify_damage`):

1. The *thick* part of the dark voxels is their opening by a ball wider than the widest crack. The voxels beside it, its
   rough skin, belong to it. What remains is *thin*. So a pore that cracks radiate from is split.
2. A piece is a 26-connected component of the thick or of the thin part of one particle. It is compact if its ellipsoid
   of inertia is not elongated and the piece fills it (a planar crack is elongated; a curved, forked or shell-shaped one
   leaves its ellipsoid empty). Compact pieces are pores, others cracks; a compact thin piece that touches a crack piece
   is a part of it (the branch of a crack, cut off by a wide spot).
3. A thick piece is a *gaping* crack, compact or not, if it holds more than a few of the largest balls that fit into it
   (it is wider than `max_crack_width_um`, up to twice, but extends much farther than it is wide), and if the dark
   voxels that it belongs to come as near to the outer surface as that width: as-made pores are closed in.

Where a filled particle's outline bridges a hollow of its surface, dark voxels lie inside it that are no damage: pieces
that reach no deeper than `skin_um`, by the driver one width of the blur, are *notches* and count as sound.

A crack wider than twice `max_crack_width_um`, or that gapes over a short way only, counts as pore where it is compact;
a crack narrower than `smallest_crack_um` is not dark enough to be seen at all.

Every function takes a window: slices of a slab with a halo. `classify_damage` needs every particle that it decides
about whole in the window; `measure_damage` needs `HALO` slices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

import voxkernels as vk
from cbdetach import device
from cbdetach.arrays import along, capped_distance, reaching_deeper, surface_depth

Array = npt.NDArray[Any]
Spacing = tuple[float, float, float]

SOUND, CRACK, PORE = 0, 1, 2
"""Codes of the damage volume; outside particles it is SOUND."""

PART = 1 << 40  # above any label

HALO = vk.CONTACT_HALO
"""Slices that `measure_damage` needs beyond the core, on each side."""

MAX_ELONGATION = 3.0
"""Longest by shortest half axis of the inertia ellipsoid up to which a piece is compact."""

MIN_FILL = 0.45
"""Least share of its inertia ellipsoid that a compact piece fills (an ellipsoid: 1, a box: 0.89).

Both were chosen on synthetic particles with forked and bent slits and clusters of balls, 2 to 4 and 0.3 to 0.5 tried:
95 % of the dark voxels get the right code where cracks are clearly thinner than pores, 90 % where they are not.
"""

MAX_BALLS = 3.0
"""Volume of a pore at most, in balls of its own thickness (its largest inscribed ball, grown as the thick part is).

Ellipsoids of half axes 3 : 3 : 1 hold 9, of 3 : 1 : 1 three. Chosen on two phantoms (seeds 0 and 1) with cracks of 1 to
2.5 widths of the blur, and on one with clusters of balls instead; `benchmarks/accuracy_damage.py` judges it on others.
"""


def default_max_crack_width_um(spacing: Spacing, edge_width_um: float = 0.0) -> float:
    """Widest crack, where none is set: three voxels, or 1.5 full widths of the blur if that is more."""
    return max(3 * max(spacing), 1.5 * edge_width_um)


def smallest_crack_um(spacing: Spacing, edge_width_um: float = 0.0) -> float:
    """Narrowest crack that counts: one voxel, or the width at which a long blurred slit is half as dark as void.

    The middle of a slit of width w, blurred by a Gaussian of full width f, has lost erf(0.833 w / f) of the contrast;
    that is one half at w = 0.573 f.
    """
    return max(min(spacing), 0.573 * edge_width_um)


def classify_damage(
    labels: Array, active: Array, *, spacing: Spacing, max_crack_width_um: float | None = None, skin_um: float = 0.0
) -> npt.NDArray[np.uint8]:
    """Tell cracks from pores among the dark voxels of filled particles.

    Parameters
    ----------
    labels : (Z, Y, X) integer, filled particles; 0 is outside. Each particle that counts must be whole.
    active : (Z, Y, X) bool, voxels of active material.
    spacing : voxel size (dz, dy, dx), micrometres.
    max_crack_width_um : dark spots that a ball wider than this fits into are thick. None: `default_max_crack_width_um`.
    skin_um : dark spots that reach no deeper under the particle's outer surface than this are notches of its outline.

    Returns
    -------
    (Z, Y, X) uint8: SOUND, CRACK or PORE. Every dark voxel of a particle is CRACK or PORE, unless it is of a notch.
    """
    dark = (labels > 0) & ~active
    codes = np.zeros(labels.shape, dtype=np.uint8)
    if not dark.any():
        return codes
    width = default_max_crack_width_um(spacing) if max_crack_width_um is None else max_crack_width_um
    depth = surface_depth(labels, spacing=spacing, reach=max(width, skin_um))
    if skin_um > 0:
        dark = reaching_deeper(labels, dark, depth, skin_um)
        if not dark.any():
            return codes
    box = _box_of(dark)
    owner = np.where(dark[box], labels[box], 0)
    opened, radius = _opened(owner, width, spacing)
    thick = _grown(opened, owner)

    # Equal values connect: one value for the thick and one for the thin part of every particle.
    key = owner.astype(np.int32 if owner.max() < 2**30 else np.int64) * 2 + thick
    pieces, n = device.label(key, connectivity=26)
    at = np.flatnonzero(pieces)
    number = pieces.ravel()[at]
    crack, thin = np.zeros(n + 1, dtype=np.bool_), np.zeros(n + 1, dtype=np.bool_)
    regions = device.region_properties(pieces, spacing=spacing)
    thin[number] = ~thick.ravel()[at]
    crack[1:] = ~_compact(regions, spacing)
    crack[1:] |= _gaping(regions, number, radius.ravel()[at], width, spacing) & _near(owner, pieces, depth[box], width)
    crack |= _beside(crack, pieces, owner) & thin
    codes[box][pieces > 0] = np.where(crack[number], CRACK, PORE)
    return codes


def _box_of(mask: Array) -> tuple[slice, slice, slice]:
    """The smallest box that holds a mask, and one voxel around it where there is room."""
    box = []
    for axis in range(3):
        held = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append(slice(max(0, int(held[0]) - 1), int(held[-1]) + 2))
    return box[0], box[1], box[2]


def _opened(owner: Array, width: float, spacing: Spacing) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Opening of each particle's dark voxels by a ball wider than `width`: all of such balls that fit in.

    And the radius of the ball that fits in around each voxel, inf where it is larger than `width`.

    The distance to the nearest bright centre is half a voxel more than that to the surface. A slit of an even number of
    voxels has no voxel in its middle and passes for one voxel narrower. Dark voxels that share a face with another
    particle's are taken for bright, so that no ball reaches into two particles.
    """
    inner = owner > 0
    for axis in range(3):
        lower, upper = along(axis, None, -1), along(axis, 1, None)
        apart = (owner[lower] != owner[upper]) & (owner[lower] > 0) & (owner[upper] > 0)
        inner[lower] &= ~apart
        inner[upper] &= ~apart
    half = min(spacing) / 2
    radius = (width / 2 + half) * (1 + 1e-6)
    away = capped_distance(np.pad(inner, 1), spacing=spacing, reach=width + half)[1:-1, 1:-1, 1:-1]
    return capped_distance(away <= radius, spacing=spacing, reach=radius) <= radius, away - np.float32(half)


def _grown(mask: Array, owner: Array) -> npt.NDArray[np.bool_]:
    """A mask and its face neighbours of the same owner."""
    grown = mask.copy()
    for axis in range(3):
        lower, upper = along(axis, None, -1), along(axis, 1, None)
        same = owner[lower] == owner[upper]
        grown[lower] |= mask[upper] & same
        grown[upper] |= mask[lower] & same
    return grown


def _compact(pieces: vk.RegionProperties, spacing: Spacing) -> npt.NDArray[np.bool_]:
    """Whether each piece is compact. The voxels' own extent is added, so that a single voxel is a cube."""
    moments = np.linalg.eigvalsh(pieces.inertia + np.diag(np.square(spacing) / 12))
    half_axes = np.sqrt(5 * moments)  # of the solid ellipsoid with these second moments
    fill = pieces.count * math.prod(spacing) / (4 / 3 * np.pi * half_axes.prod(axis=1))
    return np.asarray((half_axes[:, 2] <= MAX_ELONGATION * half_axes[:, 0]) & (fill >= MIN_FILL))


def _gaping(
    pieces: vk.RegionProperties, number: Array, radius: Array, width: float, spacing: Spacing
) -> npt.NDArray[np.bool_]:
    """Whether each piece is between one and two `width` thick and holds more than `MAX_BALLS` of its largest ball.

    number, radius : of every voxel, its piece and the radius of the ball around it.
    """
    largest = np.zeros(pieces.labels.size + 1, dtype=np.float64)
    np.maximum.at(largest, number, radius)
    grown = np.where(np.isfinite(largest[1:]), largest[1:], 0) + math.prod(spacing) ** (1 / 3)
    balls = pieces.count * math.prod(spacing) / (4 / 3 * np.pi * grown**3)
    thick = (largest[1:] > width / 2) & np.isfinite(largest[1:])
    return np.asarray(thick & (balls > MAX_BALLS))


def _near(owner: Array, pieces: Array, depth: Array, width: float) -> npt.NDArray[np.bool_]:
    """Whether the dark voxels that each piece is connected with come nearer to the outer surface than `width`."""
    whole, n = device.label(owner, connectivity=26)
    reaches = np.zeros(n + 1, dtype=np.bool_)
    reaches[whole[(owner > 0) & (depth <= width * (1 + 1e-6))]] = True
    found = np.zeros(int(pieces.max(initial=0)) + 1, dtype=np.bool_)
    found[pieces[reaches[whole] & (owner > 0)]] = True
    return found[1:]


def _beside(chosen: Array, pieces: Array, owner: Array) -> npt.NDArray[np.bool_]:
    """Which pieces (by number) share a face with a chosen piece of their own particle."""
    found = np.zeros(chosen.size, dtype=np.bool_)
    for axis in range(3):
        lower, upper = along(axis, None, -1), along(axis, 1, None)
        meeting = (pieces[lower] != pieces[upper]) & (owner[lower] == owner[upper])
        a, b = pieces[lower][meeting], pieces[upper][meeting]
        found[a[chosen[b]]] = True
        found[b[chosen[a]]] = True
    return found


# ---- sums over particles and depth ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class DamageShare:
    """A slab's share of every sum; `merge_damage` adds them up. N particles with dark voxels, W depth windows.

    labels (N,) ascending; crack, pore (N,) voxels; crack_area_um2 (N,) surface between crack and solid.
    windows (W,) ascending numbers of depth windows; window_voxels, window_crack, window_pore (W,) voxels of all
    particles, of cracks and of pores; window_area_um2 (W,) crack surface. parts (P,) ascending, a window's number times
    2^40 and a label; part_crack (P,) crack voxels of that particle in that window.
    """

    labels: npt.NDArray[np.int64]
    crack: npt.NDArray[np.int64]
    pore: npt.NDArray[np.int64]
    crack_area_um2: npt.NDArray[np.float64]
    windows: npt.NDArray[np.int64]
    window_voxels: npt.NDArray[np.int64]
    window_crack: npt.NDArray[np.int64]
    window_pore: npt.NDArray[np.int64]
    window_area_um2: npt.NDArray[np.float64]
    parts: npt.NDArray[np.int64]
    part_crack: npt.NDArray[np.int64]


def crack_surface(
    labels: Array, codes: Array, *, spacing: Spacing, core: tuple[int, int] | None = None
) -> vk.ContactAreas:
    """Surface between each particle's cracks and its solid, for the slices of `core`.

    Rows are particles, `area[:, 1]` is the surface in square micrometres (one column where there is none). Crack mouths
    and faces between crack and pore do not count.
    """
    own = np.where(codes == CRACK, labels, 0)
    solid = ((labels > 0) & (codes == SOUND)).view(np.uint8)
    return device.contact_areas(own, solid, spacing=spacing, core=core)


def measure_damage(
    labels: Array,
    codes: Array,
    *,
    spacing: Spacing,
    core: tuple[int, int] | None = None,
    z0: int = 0,
    profile_window_um: float = 10.0,
) -> DamageShare:
    """Count cracks, pores and crack surface of the slices of `core`, by particle and by depth.

    Parameters
    ----------
    labels, codes : (Z, Y, X), filled particles and their damage codes, with `HALO` slices around the core.
    core : slices that count; None: all.
    z0 : number of the window's first slice in the volume.
    profile_window_um : thickness of the depth windows, rounded to whole slices.
    """
    lo, hi = (0, len(labels)) if core is None else core
    thickness = _profile_slices(spacing, profile_window_um)
    shares = []
    while lo < hi:
        window = (z0 + lo) // thickness
        end = min(hi, (window + 1) * thickness - z0)
        inside, here = labels[lo:end], codes[lo:end]
        dark = here > 0
        near = slice(max(0, lo - HALO), end + HALO)
        surface = crack_surface(labels[near], codes[near], spacing=spacing, core=(lo - near.start, end - near.start))
        ids = np.union1d(inside[dark], surface.labels)  # a face at the core's end may be all of a crack that it shows
        row = np.searchsorted(ids, inside[dark])
        crack = np.bincount(row, weights=here[dark] == CRACK, minlength=ids.size).astype(np.int64)
        pore = np.bincount(row, weights=here[dark] == PORE, minlength=ids.size).astype(np.int64)
        area = np.zeros(ids.size)
        if surface.area.shape[1] > 1:
            area[np.searchsorted(ids, surface.labels)] = surface.area[:, 1]
        shares.append(
            DamageShare(
                labels=ids.astype(np.int64),
                crack=crack,
                pore=pore,
                crack_area_um2=area,
                windows=np.array([window], dtype=np.int64),
                window_voxels=np.array([np.count_nonzero(inside)], dtype=np.int64),
                window_crack=np.array([crack.sum()], dtype=np.int64),
                window_pore=np.array([pore.sum()], dtype=np.int64),
                window_area_um2=np.array([area.sum()]),
                parts=window * PART + ids.astype(np.int64),
                part_crack=crack,
            )
        )
        lo = end
    return merge_damage(shares)


def merge_damage(shares: Sequence[DamageShare]) -> DamageShare:
    """Add up the shares of slabs with disjoint cores."""
    keys = {"window_": "windows", "part_": "parts", "": "labels"}
    found = {name: np.unique(_joined(shares, name), return_inverse=True) for name in keys.values()}
    sums: dict[str, Array] = {name: ids.astype(np.int64) for name, (ids, _) in found.items()}
    for name in (field.name for field in fields(DamageShare) if field.name not in found):
        ids, row = found[next(key for start, key in keys.items() if name.startswith(start))]
        values = _joined(shares, name)
        sums[name] = np.zeros(ids.size, dtype=values.dtype)
        np.add.at(sums[name], row, values)
    return DamageShare(**sums)


def _joined(shares: Sequence[DamageShare], name: str) -> Array:
    dtype = np.float64 if name.endswith("_um2") else np.int64
    return np.concatenate([np.zeros(0, dtype), *(getattr(share, name) for share in shares)])


def damage_columns(share: DamageShare, labels: Array, voxels: Array) -> dict[str, npt.NDArray[np.float64]]:
    """Columns of the table, aligned with `labels` (N,), whose filled particles have `voxels` (N,) voxels."""
    row = np.searchsorted(labels, share.labels)
    sums = {name: np.zeros(labels.size) for name in ("crack", "pore", "crack_area_um2")}
    for name, values in sums.items():
        values[row] = getattr(share, name)
    return {
        "crack_fraction": sums["crack"] / voxels,
        "pore_fraction": sums["pore"] / voxels,
        "crack_area_um2": sums["crack_area_um2"],
    }


def depth_profile(
    share: DamageShare,
    first: Array,
    stop: Array,
    *,
    spacing: Spacing,
    profile_window_um: float = 10.0,
    correction: tuple[Array, Array] | None = None,
) -> dict[str, Array]:
    """Damage by depth: one row for each depth window.

    Parameters
    ----------
    share : of the whole volume, measured with the same `profile_window_um`.
    first, stop : (N,) first slice and end (exclusive) of every particle, for the count in each window.
    correction : labels (M,) ascending, and what the crack voxels of each are multiplied with (M,); None: nothing.

    Returns
    -------
    Columns `z_from_um`, `z_to_um` (centres of the first and the last slice), `particles` (that reach into the window),
    `particle_volume_um3`, `crack_fraction`, `pore_fraction`, `crack_area_per_volume_1_um` (nan without particles).
    """
    thickness = _profile_slices(spacing, profile_window_um)
    low = share.windows * thickness
    high = low + thickness
    voxels = share.window_voxels
    if share.windows.size:
        high[-1] = max(low[-1] + 1, min(high[-1], int(np.max(stop, initial=0))))
    # Particles that begin before the window's end, less those that end before its beginning.
    count = np.searchsorted(np.sort(first), high, side="left") - np.searchsorted(np.sort(stop), low, side="right")
    volume = voxels * math.prod(spacing)
    crack: Array = share.window_crack
    if correction is not None:
        factor = correction[1][np.searchsorted(correction[0], share.parts % PART)]
        at = np.searchsorted(share.windows, share.parts // PART)
        crack = np.bincount(at, weights=share.part_crack * factor, minlength=share.windows.size)
    return {
        "z_from_um": low * spacing[0],
        "z_to_um": (high - 1) * spacing[0],
        "particles": count,
        "particle_volume_um3": volume,
        "crack_fraction": _ratio(crack, voxels),
        "pore_fraction": _ratio(share.window_pore, voxels),
        "crack_area_per_volume_1_um": _ratio(share.window_area_um2, volume),
    }


def _profile_slices(spacing: Spacing, profile_window_um: float) -> int:
    return max(1, round(profile_window_um / spacing[0]))


def _ratio(part: Array, whole: Array) -> npt.NDArray[np.float64]:
    ratio: npt.NDArray[np.float64] = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio
