"""The degree of morphological damage: where crack surface is concentrated (DEFINITIONS: Damage)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach.arrays import along
from cbdetach.damage import CRACK, SOUND

Array = npt.NDArray[Any]
Spacing = tuple[float, float, float]

_SMOOTHING = 1.0  # voxels: sigma over which `crack_density` finds a face's orientation
_REACH = 4  # slices: one to the neighbour across a face, three for the smoothing


def default_window_um(spacing: Spacing) -> float:
    """Window of the damage map, where none is set: 2 um, and at least nine voxels."""
    return max(2.0, 9 * max(spacing))


def halo(spacing: Spacing, window_um: float | None = None) -> int:
    """Slices that `damage_map` needs beyond the slices that it is read for, on each side."""
    return _window_voxels(spacing, window_um)[0] // 2 + _REACH


def damage_map(
    labels: Array, codes: Array, *, spacing: Spacing, window_um: float | None = None, density: Array | None = None
) -> npt.NDArray[np.float32]:
    """Degree of morphological damage: crack surface per volume of particle around each voxel, in 1/um.

    Both are summed over a box of `window_um` (rounded to an odd number of voxels along each axis) around the voxel; at
    the volume's border over the part of it that is inside. nan outside particles. Exact where the window holds
    `halo(spacing, window_um)` slices more on either side (fewer only at the volume's ends).

    labels, codes (Z, Y, X); density: of `crack_density` there, where it is known already.
    """
    from scipy.ndimage import uniform_filter

    inside = labels > 0
    result = np.where(inside, np.float32(0), np.float32(np.nan))
    if not (codes == CRACK).any():
        return result
    density = crack_density(labels, codes, spacing=spacing) if density is None else density
    size = _window_voxels(spacing, window_um)
    area = uniform_filter(density, size, mode="constant")
    share = uniform_filter(inside.astype(np.float32), size, mode="constant")
    result[inside] = np.maximum(area[inside] / share[inside], 0)
    return result


def crack_density(labels: Array, codes: Array, *, spacing: Spacing) -> npt.NDArray[np.float32]:
    """Crack surface of each crack voxel, per volume (1/um), (Z, Y, X): its faces towards the particle's own solid.

    Voxel faces have too much area, by |n|_1 for a plane of unit normal n. The mean face areas along the three axes
    around a voxel, of both walls of a crack alike, are proportional to |n_z|, |n_y|, |n_x|, and give that factor.
    """
    from scipy.ndimage import gaussian_filter

    crack, solid = codes == CRACK, (labels > 0) & (codes == SOUND)
    total = np.zeros(labels.shape, dtype=np.float32)
    if not crack.any():
        return total
    smooth, square = np.zeros_like(total), np.zeros_like(total)
    for axis in range(3):
        faces = np.zeros_like(total)
        lower, upper = along(axis, None, -1), along(axis, 1, None)
        same = labels[lower] == labels[upper]
        faces[lower] += crack[lower] & solid[upper] & same
        faces[upper] += crack[upper] & solid[lower] & same
        faces /= spacing[axis]  # area of a face / volume of a voxel
        total += faces
        mean = gaussian_filter(faces, _SMOOTHING, mode="constant", radius=_REACH - 1)
        smooth += mean
        square += mean * mean
    return np.asarray(np.divide(total * np.sqrt(square), smooth, out=total, where=total > 0))


def _window_voxels(spacing: Spacing, window_um: float | None) -> tuple[int, int, int]:
    """The map's box in voxels: odd, nearest to the window."""
    window = default_window_um(spacing) if window_um is None else window_um
    n = [2 * round((window / size - 1) / 2) + 1 for size in spacing]
    return max(1, n[0]), max(1, n[1]), max(1, n[2])
