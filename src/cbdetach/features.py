"""Features of every particle: shape, orientation, surfaces, damage, neighbourhood, under names that say what they are.

They are the 24 of Li et al., Science 376, 517 (2022), whose names stand beside ours in `FEATURES`, with definitions
that hold at any voxel size: areas in square micrometres from an unbiased estimator (not counts of voxels), neighbours
that are exactly the six nearest without the particle itself, densities of the sound solid alone, a neighbourhood of a
stated size. Contact with other particles and contact with carbon/binder are two features, not one. What a feature needs
of voxels is measured particle by particle on its own box; the rest comes from the tables of earlier stages.

Legend: N particles, K pairs of particles that share a face; Z, Y, X the shape of a window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

import voxkernels as vk

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Spacing = tuple[float, float, float]

NEIGHBOURS = 6
"""Neighbours of a particle are so many nearest ones, by their centroids."""

MIN_WHOLE = 3
"""Spreads over neighbours need so many of them whole."""

MIN_AXIS_RATIO = 1.02
"""Angles are empty where the two axes that define them are not told apart by this ratio."""

FEATURES: dict[str, tuple[str, str, str]] = {
    "label": ("", "value of the particle in the /particles volume", ""),
    "z_um": ("um", "centroid; the centre of the first voxel is at 0", "Z"),
    "y_um": ("um", "centroid", "Y"),
    "x_um": ("um", "centroid", "X"),
    "yaw_deg": ("degree", "direction of the longest axis in the slice, from x towards y, 0 to 180", "Yaw"),
    "pitch_deg": ("degree", "angle of the longest axis to the slice, -90 to 90, positive towards z", "Pitch"),
    "roll_deg": ("degree", "turn of the middle axis around the longest, from the slice, 0 to 180", "Roll"),
    "elongation": ("1", "longest / shortest principal axis of the inertia ellipsoid", "Elongation"),
    "volume_um3": ("um^3", "volume of the filled particle", "Volume"),
    "surface_outer_um2": ("um^2", "outer surface of the filled particle", "SurfaceOuter"),
    "surface_inner_um2": ("um^2", "surface of the solid towards its own cracks and pores", "SurfaceInner"),
    "sphericity": ("1", "surface of the ball of the same volume / outer surface", "Sphericity"),
    "volume_surface_ratio": ("1", "volume^(1/3) / outer surface^(1/2); a ball has 0.455", "VSratio"),
    "smoothed_area_ratio_outer": (
        "1",
        "outer surface after smoothing at equal volume / before; 1 is smooth",
        "RoughOuter",
    ),
    "smoothed_area_ratio_inner": ("1", "the same of the surface of cracks and pores", "RoughInner"),
    "crack_fraction": ("1", "crack volume / particle volume", "Damage"),
    "density_mean": ("grey", "mean density of the eroded solid, without cracks and pores", "EDensity"),
    "density_std": ("grey", "its standard deviation: large is inhomogeneous", "Homogeneity"),
    "particle_contact_fraction": ("1", "share of the outer surface that faces other particles", "Contact"),
    "cbd_contact_fraction": ("1", "share of the outer surface that faces carbon/binder", ""),
    "coordination_number": ("1", "particles that share at least the least contact area with it", ""),
    "packing_fraction": ("1", "share of particles in a cube around the centroid, inside the volume", "PDensity"),
    "packing_known_fraction": ("1", "share of that cube that lies inside the volume", ""),
    "nearest_distance_um": ("um", "from its centroid to the nearest one", ""),
    "nearest6_distance_um": ("um", "mean distance to the six nearest centroids", "DistNearest"),
    "nearest6_inside": ("", "whether the six nearest are nearer than the volume's border, so that none is missing", ""),
    "nearest6_volume_std_um3": ("um^3", "standard deviation of the volumes of the six nearest", "VolumeStd"),
    "nearest6_elongation_std": ("1", "standard deviation of the elongations of the six nearest", "ElongStd"),
    "nearest6_sphericity_std": ("1", "standard deviation of the sphericities of the six nearest", "SphericityStd"),
    "nearest6_orientation_isotropy": (
        "1",
        "3 x smallest eigenvalue of the longest axes' tensor; 0 in a plane",
        "OrienIso",
    ),
    "touches_border": ("", "whether the volume's border cuts the particle: what needs all of it is empty", ""),
    "inclusion_weight": ("1", "as in particles.csv", ""),
}
"""Name -> (unit, meaning, name in Li et al. where it is one of the 24), in the order of `features.csv`."""


def default_smoothing_um(spacing: Spacing) -> float:
    """Standard deviation of the smoothing of surfaces, where none is set: 0.5 um, and at least 1.5 voxels."""
    return max(0.5, 1.5 * max(spacing))


# ---- surfaces, particle by particle ---------------------------------------------------------------------------------


def surface_features(
    labels: Array, dark: Array, wanted: Array, boxes: Array, *, spacing: Spacing, smoothing_um: float
) -> dict[str, Floats]:
    """Inner surface and smoothed surfaces of the particles `wanted` (N,), which lie whole in the window.

    Parameters
    ----------
    labels : (Z, Y, X) filled particles; dark : (Z, Y, X) bool, their cracks and pores.
    boxes : (N, 6) z0, y0, x0, z1, y1, x1 of each, half-open, in the window.

    Returns
    -------
    surface_inner_um2 (0 without cracks and pores), smoothed_area_ratio_outer, smoothed_area_ratio_inner (nan without).
    """
    names = ("surface_inner_um2", "smoothed_area_ratio_outer", "smoothed_area_ratio_inner")
    found = {name: np.full(wanted.size, np.nan) for name in names}
    for k, (label, box) in enumerate(zip(wanted.tolist(), boxes.tolist(), strict=True)):
        part = (slice(box[0], box[3]), slice(box[1], box[4]), slice(box[2], box[5]))
        own = labels[part] == label
        holes = own & dark[part]
        found["smoothed_area_ratio_outer"][k] = smoothed_area_ratio(own, spacing=spacing, smoothing_um=smoothing_um)
        found["surface_inner_um2"][k] = 0.0
        if holes.any():
            found["surface_inner_um2"][k] = _area_between(own & ~holes, holes, spacing)
            found["smoothed_area_ratio_inner"][k] = smoothed_area_ratio(
                holes, spacing=spacing, smoothing_um=smoothing_um
            )
    return found


def smoothed_area_ratio(mask: Array, *, spacing: Spacing, smoothing_um: float) -> float:
    """Surface of a body after smoothing / before: 1 for what is smooth already, less for what is rough.

    mask : (Z, Y, X) bool, the whole body. It is blurred by a Gaussian and cut at the level that keeps its volume, so
    that a ball stays the same ball; a threshold of one half would shrink small bodies more.
    """
    from scipy.ndimage import gaussian_filter

    count = int(np.count_nonzero(mask))
    if count == 0:
        return math.nan
    sigma = [smoothing_um / size for size in spacing]
    padded = np.pad(mask, [(math.ceil(3 * s) + 3,) * 2 for s in sigma])
    blurred = gaussian_filter(padded.astype(np.float32), sigma, truncate=3.0)
    level = np.partition(blurred.ravel(), -count)[-count]
    return _surface(blurred >= level, spacing) / _surface(padded, spacing)


def _surface(mask: Array, spacing: Spacing) -> float:
    """Area of a body's surface, none of which is at the end of the array."""
    found = vk.contact_areas(mask.astype(np.int32), np.zeros(mask.shape, np.uint8), spacing=spacing)
    return float(found.area.sum())


def _area_between(solid: Array, holes: Array, spacing: Spacing) -> float:
    """Area that a solid shares with the holes in it."""
    padded = np.pad(solid, 2).astype(np.int32)
    found = vk.contact_areas(padded, np.pad(holes, 2).astype(np.uint8), spacing=spacing)
    return float(found.area[0, 1]) if found.area.shape[1] > 1 else 0.0


# ---- orientation ----------------------------------------------------------------------------------------------------


def principal_axes(inertia: Floats, spacing: Spacing) -> tuple[Floats, Floats]:
    """Half axes (N, 3), ascending, up to a factor, and their directions (N, 3, 3): column k belongs to half axis k.

    The voxels' own extent (variance s^2 / 12) is added, as in `particles.csv`.
    """
    if not len(inertia):
        return np.zeros((0, 3)), np.zeros((0, 3, 3))
    values, vectors = np.linalg.eigh(inertia + np.diag(np.square(spacing) / 12))
    return np.sqrt(values), vectors


def orientation(half_axes: Floats, directions: Floats) -> dict[str, Floats]:
    """Yaw, pitch and roll of ellipsoids, degrees, nan where axes of nearly one length leave them open.

    An axis has no sign: it is turned so that yaw is in 0..180. Roll is counted around the longest axis, from the
    horizontal direction beside it (z cross axis) towards the axis cross that, 0..180. Upright, yaw and roll are open.
    """
    longest, middle = directions[:, :, 2], directions[:, :, 1]
    z, y, x = longest.T
    flip = (y < 0) | ((y == 0) & (x < 0))
    longest = np.where(flip[:, None], -longest, longest)
    z, y, x = longest.T
    yaw = np.degrees(np.arctan2(y, x)) % 180
    pitch = np.degrees(np.arcsin(np.clip(z, -1, 1)))
    flat = np.hypot(y, x)
    beside = (
        np.stack([np.zeros_like(z), x, -y], axis=1) / np.maximum(flat, 1e-12)[:, None]
    )  # z cross axis, as (z, y, x)
    # In (z, y, x) components the vector product changes its sign.
    above = -np.cross(longest, beside)
    roll = np.degrees(np.arctan2((middle * above).sum(1), (middle * beside).sum(1))) % 180
    open_long = half_axes[:, 2] < MIN_AXIS_RATIO * half_axes[:, 1]
    open_middle = half_axes[:, 1] < MIN_AXIS_RATIO * half_axes[:, 0]
    upright = flat < 1e-6
    return {
        "yaw_deg": np.where(open_long | upright, np.nan, yaw),
        "pitch_deg": np.where(open_long, np.nan, pitch),
        "roll_deg": np.where(open_long | open_middle | upright, np.nan, roll),
    }


# ---- neighbours -----------------------------------------------------------------------------------------------------


def neighbour_features(
    centroids: Floats, columns: Mapping[str, Array], axes: Floats, *, shape: tuple[int, int, int], spacing: Spacing
) -> dict[str, Array]:
    """Distances to the six nearest centroids, and how much these six differ among themselves.

    Parameters
    ----------
    centroids : (N, 3) micrometres; every particle found counts as a neighbour, cut ones too.
    columns : volume_um3, elongation, sphericity, touches_border, (N,) each. Spreads are over the whole ones among the
        six, nan where fewer than `MIN_WHOLE` are.
    axes : (N, 3) unit vectors of the longest axes; their sign is of no meaning.
    """
    from scipy.spatial import cKDTree

    n = len(centroids)
    names = [name for name in FEATURES if name.startswith("nearest")]
    found: dict[str, Array] = {name: np.full(n, np.nan) for name in names}
    found["nearest6_inside"] = np.zeros(n, dtype=bool)
    if n < 2:
        return found
    k = min(NEIGHBOURS, n - 1)
    distance, index = cKDTree(centroids).query(centroids, k=k + 1)
    # The particle itself is among them, first or, where another has the very same centroid, elsewhere.
    own = index == np.arange(n)[:, None]
    own[~own.any(axis=1), -1] = True
    others = np.asarray(distance)[~own].reshape(n, k), np.asarray(index)[~own].reshape(n, k)
    distance, index = others
    found["nearest_distance_um"] = distance[:, 0]
    if k < NEIGHBOURS:
        return found
    found["nearest6_distance_um"] = distance.mean(axis=1)
    low, high = -0.5 * np.array(spacing), (np.array(shape) - 0.5) * spacing
    room = np.minimum(centroids - low, high - centroids).min(axis=1)
    found["nearest6_inside"] = distance[:, -1] <= room
    whole = ~np.asarray(columns["touches_border"], dtype=bool)[index]
    for name, source in (
        ("volume_std_um3", "volume_um3"),
        ("elongation_std", "elongation"),
        ("sphericity_std", "sphericity"),
    ):
        found[f"nearest6_{name}"] = _spread(np.asarray(columns[source], dtype=np.float64)[index], whole)
    enough = whole.sum(axis=1) >= MIN_WHOLE
    weight = whole / np.maximum(whole.sum(axis=1), 1)[:, None]
    tensor = np.einsum("nk,nki,nkj->nij", weight, axes[index], axes[index])
    found["nearest6_orientation_isotropy"] = np.where(enough, 3 * np.linalg.eigvalsh(tensor)[:, 0], np.nan)
    return found


def _spread(values: Floats, chosen: Array) -> Floats:
    """Standard deviation (n - 1) along the rows over the chosen finite values, nan for fewer than `MIN_WHOLE`."""
    chosen = chosen & np.isfinite(values)
    count = chosen.sum(axis=1)
    held = np.where(chosen, values, 0.0)
    mean = held.sum(axis=1) / np.maximum(count, 1)
    square = (np.where(chosen, values - mean[:, None], 0.0) ** 2).sum(axis=1)
    return np.where(count >= MIN_WHOLE, np.sqrt(square / np.maximum(count - 1, 1)), np.nan)


def coordination_number(
    labels: Array, pairs: Array, pair_area: Floats, *, min_contact_um2: float
) -> npt.NDArray[np.int64]:
    """Number of particles that each of `labels` (N,) touches on at least `min_contact_um2`.

    pairs (K, 2) and pair_area (K,) as in `voxkernels.ContactAreas`.
    """
    touching = pairs[pair_area >= min_contact_um2]
    ends = np.searchsorted(labels, touching.ravel())
    return np.bincount(ends, minlength=labels.size)[: labels.size].astype(np.int64)


# ---- the table ------------------------------------------------------------------------------------------------------

NEED_ALL = (
    "yaw_deg",
    "pitch_deg",
    "roll_deg",
    "elongation",
    "sphericity",
    "volume_surface_ratio",
    "smoothed_area_ratio_outer",
    "smoothed_area_ratio_inner",
)
"""Features that the border falsifies: empty for particles that it cuts."""


def feature_columns(
    regions: vk.RegionProperties,
    columns: Mapping[str, Array],
    contacts: vk.ContactAreas,
    surfaces: Mapping[str, Floats],
    packed: Mapping[str, Floats],
    *,
    shape: tuple[int, int, int],
    spacing: Spacing,
    min_contact_um2: float,
) -> dict[str, Array]:
    """Every column of `features.csv`, aligned with the particles.

    Parameters
    ----------
    regions : of the filled particles, micrometres; columns : those of `particles.csv`; contacts : as measured.
    surfaces, packed : what `surface_features` and `packing` give, aligned with the particles.
    """
    half_axes, directions = principal_axes(regions.inertia, spacing)
    outer = np.asarray(columns["surface_area_um2"], dtype=np.float64)
    volume = np.asarray(columns["volume_um3"], dtype=np.float64)
    known = outer > 0

    def share(part: str) -> Floats:
        values = np.asarray(columns[part], np.float64)
        return np.asarray(np.divide(values, outer, out=np.full(outer.size, np.nan), where=known))

    found: dict[str, Array] = {name: np.asarray(columns[name]) for name in FEATURES if name in columns}
    found |= orientation(half_axes, directions) | dict(surfaces) | dict(packed)
    found |= {
        "surface_outer_um2": outer,
        "volume_surface_ratio": np.divide(
            np.cbrt(volume), np.sqrt(outer), out=np.full(outer.size, np.nan), where=known
        ),
        "particle_contact_fraction": share("area_particle_um2"),
        "cbd_contact_fraction": share("area_cbd_um2"),
        "coordination_number": coordination_number(
            regions.labels, contacts.pairs, contacts.pair_area, min_contact_um2=min_contact_um2
        ),
    }
    longest = directions[:, :, 2] if len(directions) else np.zeros((0, 3))
    found |= neighbour_features(regions.centroid, columns, longest, shape=shape, spacing=spacing)
    cut = np.asarray(columns["touches_border"], dtype=bool)
    for name in NEED_ALL:
        found[name] = np.where(cut, np.nan, np.asarray(found[name], dtype=np.float64))
    nothing = np.full(regions.labels.size, np.nan)
    return {name: found.get(name, nothing) for name in FEATURES}


def feature_dictionary(columns: Mapping[str, Array], reasons: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Unit and meaning of every feature, its name in Li et al. 2022, and why it is empty where it is."""
    found = {}
    for name, (unit, meaning, theirs) in FEATURES.items():
        found[name] = {"unit": unit, "meaning": meaning}
        if theirs:
            found[name]["li_2022"] = theirs
        values = np.asarray(columns[name])
        if values.dtype.kind == "f" and values.size and not np.isfinite(values).any():
            found[name]["empty_because"] = reasons.get(name, "no particle has what it needs")
    return found
