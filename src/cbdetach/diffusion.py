"""Electron diffusion lengths: how far electrons travel inside a particle to its contact with carbon/binder.

A geometric shortest path (DEFINITIONS: Electron diffusion length; Jiang et al. 2020, Suppl. Fig. 3): `|grad L| = 1` in
the solid of one particle, `L = 0` on the surface that it shares with carbon/binder outside the filled particle. Not a
resistance, and not sqrt(D tau). A window that holds whole particles goes in; lengths and one row per particle come out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach import device
from cbdetach.arrays import along
from cbdetach.codes import ACTIVE, ACTIVE_HIGH, CBD
from cbdetach.outline import REACH, smooth_outline

Array = npt.NDArray[Any]
Spacing = tuple[float, float, float]

STATUS = ("reached", "partly_reached", "no_contact")
"""Values of `diffusion_status`: every voxel, some voxels, or no voxel of the solid reaches the contact."""

LEAST_PIECE = 4.0
"""Least volume, in cubed widths (FWHM) of the blur, of a piece of carbon/binder that makes contact, where none is set.

Noise and cusps leave specks of false carbon/binder on particles that face void, and one speck shortens many ways. On
phantoms 119 of 136 false patches of contact are on pieces of less than this, and 16 of 735 true ones
(docs/diffusion.md).
"""

SMOOTH_SURFACE_FACES = 1.5
"""Voxel faces of a smooth surface cover 1.5 times its area, averaged over orientations (Cauchy-Crofton)."""


@dataclass(frozen=True)
class Lengths:
    """Legend: N particles, sorted by label. Lengths in micrometres; nan where there is no contact."""

    lengths: npt.NDArray[np.float32]  # (Z, Y, X): L in the solid, inf where not reached, nan elsewhere
    solid: Array  # (Z, Y, X): label of the solid that was solved, 0 elsewhere
    labels: npt.NDArray[np.int64]  # (N,)
    columns: dict[str, Array]  # name -> (N,)
    farthest: npt.NDArray[np.int64]  # (N, 3): index of the voxel with the largest finite L; -1 where there is none


def default_min_contact_um2(edge_width_um: float) -> float:
    """Least contact that counts where none is set: a square of one width of the blur; 0 where it is unknown."""
    return edge_width_um**2


def default_min_piece_um3(edge_width_um: float, *, phases_given: bool) -> float:
    """Least piece of carbon/binder that makes contact where none is set; phases that were given have no specks."""
    return 0.0 if phases_given else LEAST_PIECE * edge_width_um**3


def halo(dz: float, min_piece_um3: float) -> int:
    """Slices beside whole particles that a window needs: for smooth outlines, and to see how large pieces are.

    A piece that leaves the window counts, however small; no speck is longer than two sides of a cube of its volume.
    """
    return max(REACH, math.ceil(2 * math.cbrt(min_piece_um3) / dz))


def contact_sources(
    labels: Array, phases: Array, *, spacing: Spacing, min_contact_um2: float = 0.0, min_piece_um3: float = 0.0
) -> npt.NDArray[np.bool_]:
    """Carbon/binder voxels outside every filled particle that electrons may leave through.

    With `min_piece_um3`, 26-connected pieces of carbon/binder whose volume is smaller are specks and are taken out,
    unless they reach the ends of the arrays. With `min_contact_um2`, connected patches of contact (26-connected voxels
    of one particle that share a face with what is left) whose area is smaller are too small to be real and are taken
    out, too. The patch's area is that of its voxel faces, divided by 1.5 for a smooth surface. A voxel between two
    particles serves both if it serves one.
    """
    sources = (phases == CBD) & (labels == 0)
    if min_piece_um3 > 0:
        sources &= ~_specks(sources, min_piece_um3 / math.prod(spacing))
    if min_contact_um2 <= 0 or not sources.any():
        return np.asarray(sources)
    dz, dy, dx = spacing
    face = (dy * dx, dz * dx, dz * dy)
    solid = (labels > 0) & ((phases == ACTIVE) | (phases == ACTIVE_HIGH))
    area = np.zeros(labels.shape, dtype=np.float32)
    for axis in range(3):
        lower, upper = along(axis, None, -1), along(axis, 1, None)
        area[lower] += np.float32(face[axis]) * (solid[lower] & sources[upper])
        area[upper] += np.float32(face[axis]) * (solid[upper] & sources[lower])
    patches, n_patches = device.label(np.where(area > 0, labels, 0), connectivity=26)
    touching = np.flatnonzero(patches)
    patch_area = np.bincount(patches.ravel()[touching], weights=area.ravel()[touching], minlength=n_patches + 1)
    real = (patch_area / SMOOTH_SURFACE_FACES >= min_contact_um2)[patches] & (patches > 0)
    kept = np.zeros(labels.shape, dtype=np.bool_)
    for axis in range(3):
        lower, upper = along(axis, None, -1), along(axis, 1, None)
        kept[upper] |= real[lower]
        kept[lower] |= real[upper]
    return np.asarray(sources & kept)


def _specks(mask: Array, voxels: float) -> npt.NDArray[np.bool_]:
    """Pieces of a mask (26-connected) of fewer voxels that do not reach the ends of the array."""
    pieces, n = device.label(mask, connectivity=26)
    small = np.bincount(pieces.ravel(), minlength=n + 1) < voxels * (1 - 1e-9)
    small[0] = False
    for axis in range(3):
        for end in (0, -1):
            small[np.take(pieces, end, axis)] = False
    return np.asarray(small[pieces])


def diffusion_lengths(
    labels: Array,
    phases: Array,
    whole: Array,
    owned: Array,
    *,
    spacing: Spacing,
    order: int = 2,
    start: str = "surface",
    min_contact_um2: float = 0.0,
    min_piece_um3: float = 0.0,
) -> Lengths:
    """Diffusion lengths of the particles that are whole in a window, and the statistics of those that it owns.

    Parameters
    ----------
    labels : (Z, Y, X) integer, filled particles; 0 is outside. Particles may be cut by the window.
    phases : (Z, Y, X) uint8 phase codes.
    whole : (M,) labels, ascending, that are whole in the window: their lengths are solved.
    owned : (N,) labels, ascending, among `whole`: the rows of the table.
    spacing : voxel size (dz, dy, dx), micrometres.
    order, start : as in `voxkernels.travel_time`.
    min_contact_um2, min_piece_um3 : smallest patch of contact, and smallest piece of carbon/binder, that counts
        (`contact_sources`).

    Three solves separate the causes: L00 filled and attached all round, L10 filled with the real contact, L11 the solid
    with the real contact (the lengths that are returned). `contact_ratio` = mean L10 / mean L00, `crack_ratio` =
    mean L11 / mean L10, means over reached voxels. For `contact_ratio` both are solved again in the particle with its
    outline smoothed (`outline.py`): L00 ends at every dent of the surface, L10 only at those in the contact.
    """
    sources = contact_sources(
        labels, phases, spacing=spacing, min_contact_um2=min_contact_um2, min_piece_um3=min_piece_um3
    )
    options: dict[str, Any] = {"spacing": spacing, "order": order, "start": start}
    active = (phases == ACTIVE) | (phases == ACTIVE_HIGH)
    solid = np.where(active & np.isin(labels, whole), labels, 0)
    lengths = device.travel_time(solid, sources, **options)
    real = _statistics(solid, lengths, owned)

    filled = np.where(np.isin(labels, owned), labels, 0)
    contact = _means(filled, device.travel_time(filled, sources, **options), owned)
    reached, count = real["reached"], real["count"]
    columns: dict[str, Array] = {
        "diffusion_length_mean_um": real["mean"],
        "diffusion_length_median_um": real["median"],
        "diffusion_length_p95_um": real["p95"],
        "diffusion_length_max_um": real["max"],
        "contact_ratio": _contact_ratios(labels, filled, sources, owned, options),
        "crack_ratio": real["mean"] / contact,
        "unreached_fraction": np.where(count > 0, 1 - reached / np.maximum(count, 1), np.nan),
        "status": np.where(reached == 0, 2, np.where(reached < count, 1, 0)).astype(np.int8),
    }
    return Lengths(lengths, solid, owned.astype(np.int64), columns, real["farthest"])


def _contact_ratios(
    labels: Array, filled: Array, sources: Array, owned: Array, options: dict[str, Any]
) -> npt.NDArray[np.float64]:
    """`contact_ratio` of each owned particle, its outline smoothed; nan without contact. `filled` : these alone."""
    from scipy.ndimage import find_objects

    ratio = np.full(owned.size, np.nan)
    numbered = np.searchsorted(np.append(0, owned), filled)
    for row, part in enumerate(find_objects(numbered)):
        box = tuple(slice(max(0, s.start - REACH), s.stop + REACH) for s in part)
        smooth = smooth_outline(labels[box], owned[row], sources[box], spacing=options["spacing"])
        for filled, contact in (smooth, (labels[box] == owned[row], sources[box])):
            length, attached = (device.travel_time(filled, source, **options)[filled] for source in (contact, ~filled))
            reached = np.isfinite(length)
            if reached.any():  # else a speck of contact that the smooth outline has not, or none at all
                ratio[row] = length[reached].mean(dtype=np.float64) / attached.mean(dtype=np.float64)
                break
    return ratio


def _statistics(domain: Array, lengths: Array, owned: Array) -> dict[str, Array]:
    """Statistics of the finite lengths of each owned label, in one sort of (label, length)."""
    n = owned.size
    voxels = np.flatnonzero(domain)
    row = np.searchsorted(owned, domain.ravel()[voxels])
    mine = (row < n) & (owned[np.minimum(row, n - 1)] == domain.ravel()[voxels]) if n else np.zeros(0, np.bool_)
    voxels, row = (voxels[mine], row[mine]) if n else (voxels[:0], row[:0])
    length = lengths.ravel()[voxels]
    count = np.bincount(row, minlength=n)
    finite = np.isfinite(length)
    voxels, row, length = voxels[finite], row[finite], length[finite]
    reached = np.bincount(row, minlength=n)
    # Lengths are not negative, so their bits sort as they do: one integer key for (label, length).
    key = (row.astype(np.int64) << 32) | length.view(np.int32).astype(np.int64)
    order = np.argsort(key, kind="stable")
    ordered = length[order].astype(np.float64)
    first = np.concatenate(([0], np.cumsum(reached)))[:-1]
    has = reached > 0
    mean, maximum = np.full(n, np.nan), np.full(n, np.nan)
    farthest = np.full((n, 3), -1, dtype=np.int64)
    if has.any():
        mean[has] = np.add.reduceat(ordered, first[has]) / reached[has]
        last = first[has] + reached[has] - 1
        maximum[has] = ordered[last]
        farthest[has] = np.stack(np.unravel_index(voxels[order[last]], domain.shape), axis=1)
    return {
        "count": count,
        "reached": reached,
        "mean": mean,
        "median": _quantile(ordered, first, reached, 0.5),
        "p95": _quantile(ordered, first, reached, 0.95),
        "max": maximum,
        "farthest": farthest,
    }


def _quantile(ordered: Array, first: Array, count: Array, q: float) -> npt.NDArray[np.float64]:
    """Quantile of each run of an array sorted within runs, linear between ranks (as numpy.quantile)."""
    result = np.full(first.size, np.nan)
    has = count > 0
    rank = q * (count[has] - 1)
    low = np.floor(rank).astype(np.int64)
    high = np.minimum(low + 1, count[has] - 1)
    a, b = ordered[first[has] + low], ordered[first[has] + high]
    result[has] = a + (rank - low) * (b - a)
    return result


def _means(domain: Array, lengths: Array, owned: Array) -> npt.NDArray[np.float64]:
    """Mean of the finite lengths of each owned label; nan where there is none."""
    finite = np.flatnonzero((domain > 0) & np.isfinite(lengths))
    row = np.searchsorted(owned, domain.ravel()[finite])
    count = np.bincount(row, minlength=owned.size)
    total = np.bincount(row, weights=lengths.ravel()[finite], minlength=owned.size)
    return np.asarray(np.divide(total, count, out=np.full(owned.size, np.nan), where=count > 0))


def longest_paths(found: Lengths, *, spacing: Spacing) -> tuple[list[npt.NDArray[np.float64]], npt.NDArray[np.int64]]:
    """The optimal path of each particle from its farthest voxel to the contact, by steepest descent on the lengths.

    Returns
    -------
    paths : list of (n, 3) float64, index coordinates of the window, the farthest voxel first.
    labels : (len(paths),) the particle of each path; particles without contact have none.
    """
    there = found.farthest[:, 0] >= 0
    if not there.any():
        return [], np.zeros(0, dtype=np.int64)
    paths = device.trace_paths(found.lengths, found.farthest[there], spacing=spacing, domain=found.solid)
    return paths, found.labels[there]
