"""Particle instances: from the active phase to one label per particle, in a slice or in a 3-D window.

Labels are numbered 1..n within the slice or window in the order of their first voxel; `cbdetach.link` joins slices and
windows. A particle is the filled object: its cracks and pores belong to it, what lies between particles does not.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from voxkernels._arrays import as_image, as_mask, as_spacing, choice

from .bridge import bridge_cracks, bridge_halo
from .fit import CLOSE_UM_INSTANCE, fit_to_phase
from .given import check_label_type, check_labels
from .scaling import NOMINAL_DIAMETER, histogram_levels
from .slices import Sections, mean_scores, network_sections, summed, typical_diameter, watershed_sections
from .views import fuse_views, fused_scores
from .watershed import FINISH, Labels, ball, finish, smallest_diameter, split_particles

if TYPE_CHECKING:
    from .maskrcnn import Segmenter

__all__ = [
    "CLOSE_UM_INSTANCE",
    "FINISH",
    "MARKER_DEPTH_LINKED",
    "NOMINAL_DIAMETER",
    "Sections",
    "bridge_cracks",
    "bridge_halo",
    "check_label_type",
    "check_labels",
    "finish",
    "fit_to_phase",
    "fuse_views",
    "fused_scores",
    "histogram_levels",
    "mean_scores",
    "network_sections",
    "notch_depth_um",
    "segment_slice",
    "segment_volume",
    "smallest_diameter",
    "smallest_voxels",
    "summed",
    "typical_diameter",
    "watershed_sections",
]

CLOSE_UM = 0.5
CLOSE_UM_SLICE = 0.3
"""Less than in 3-D: a slice shows many gaps between particles that are as narrow as a crack."""
MARKER_DEPTH = 0.25
MARKER_DEPTH_LINKED = 0.15
"""For slices that will be linked: linking mends a particle that was cut, but cannot cut two that were merged."""


def segment_volume(
    active: npt.NDArray[Any],
    *,
    spacing: tuple[float, float, float],
    min_diameter_um: float | None = None,
    marker_depth: float = MARKER_DEPTH,
    close_um: float | None = None,
) -> Labels:
    """Split the active phase of a window into filled particles: 3-D distance watershed.

    Parameters
    ----------
    active : (Z, Y, X) bool, active material. Particles cut by the window's end are kept.
    spacing : voxel size (dz, dy, dx), um.
    min_diameter_um : smallest equivalent diameter of a particle. Smaller pieces join the particle that they touch;
        those that touch none are no particle. Default: 2 um, but no less than 5 voxels.
    marker_depth : 0 to 1. Two summits of the distance map are two particles if the lower rises above the saddle between
        them by more than this share of its own height. 0.25: a neck of 3/4 of the smaller particle's radius splits.
    close_um : widest crack that is bridged. Default: 0.5 um.

    Returns
    -------
    (Z, Y, X) int32: 0, and the particles 1..n.

    Raises
    ------
    TypeError, ValueError : not a 3-D mask; a spacing or an option out of range.
    """
    mask = as_mask("active", active)
    sizes = as_spacing(spacing)
    return split_particles(mask, **_options(sizes, min_diameter_um, marker_depth, close_um, CLOSE_UM))


def segment_slice(
    image: npt.NDArray[Any],
    *,
    segmenter: str = "watershed2d",
    spacing: tuple[float, float] = (1.0, 1.0),
    threshold: float | None = None,
    min_diameter_um: float | None = None,
    marker_depth: float = MARKER_DEPTH,
    close_um: float | None = None,
    model: Path | str | Segmenter | None = None,
    diameter_um: float | None = None,
) -> Labels:
    """Particles of one slice.

    Parameters
    ----------
    image : (Y, X), a bool mask of active material, or grey values (active material bright).
    segmenter : "watershed2d", or "maskrcnn", the trained network.
    spacing : pixel size (dy, dx), um.
    threshold : grey value above which the slightly smoothed image is active material. Default: Otsu's.
        No use for a mask.
    min_diameter_um : smallest diameter of a particle, default as for `segment_volume`. Sections, which
        may pass near its pole, are kept down to half of it.
    marker_depth, close_um : as for `segment_volume`; default of the width: 0.3 um. For slices that will be linked, give
        `MARKER_DEPTH_LINKED`. No use for the network, nor is a threshold.
    model : for the network: its file, default the shipped one; or a `maskrcnn.Segmenter`.
    diameter_um : for the network: typical diameter of the sections (area-weighted median). Default: from the image.

    Returns
    -------
    (Y, X) int32: 0, and the particles 1..n.

    Raises
    ------
    TypeError, ValueError : not a 2-D image; NaN or inf; an unknown segmenter; a spacing or an option out of range; a
        model that cannot be used.
    """
    choice("segmenter", segmenter, ("watershed2d", "maskrcnn"))
    grey = as_image("image", image, 2)
    sizes = as_spacing((1.0, *spacing))[1:]
    if segmenter == "maskrcnn":
        return _by_network(grey, sizes, min_diameter_um, model, diameter_um)
    mask = image if image.dtype == np.bool_ else active_pixels(grey, threshold)
    options = _options(sizes, min_diameter_um, marker_depth, close_um, CLOSE_UM_SLICE)
    options["min_diameter_um"] /= 2
    return split_particles(mask, **options)


def _by_network(
    grey: npt.NDArray[Any],
    spacing: tuple[float, float],
    min_diameter_um: float | None,
    model: Path | str | Segmenter | None,
    diameter_um: float | None,
) -> Labels:
    from .maskrcnn import Segmenter, estimated_diameter, loaded

    if diameter_um is not None and not (math.isfinite(diameter_um) and diameter_um > 0):
        raise ValueError(f"diameter_um: must be a positive, finite length; got {diameter_um}.")
    pixel = math.prod(spacing)
    diameter = estimated_diameter(grey) * math.sqrt(pixel) if diameter_um is None else diameter_um
    network = model if isinstance(model, Segmenter) else loaded(model)
    least = ball(smallest_diameter(spacing, min_diameter_um) / 2, 2) / pixel
    labels, _ = network.label(grey, diameter_px=(diameter / spacing[0], diameter / spacing[1]), min_pixels=least)
    return labels


def active_pixels(grey: npt.NDArray[Any], threshold: float | None = None) -> npt.NDArray[np.bool_]:
    """Active material of one grey slice: brighter than a threshold after a Gaussian of one pixel, which noise needs."""
    from scipy.ndimage import gaussian_filter
    from skimage.filters import threshold_otsu

    if not np.isfinite(grey).all():
        raise ValueError("image: must be finite; got NaN or inf. Replace them, for example by numpy.nan_to_num.")
    smooth = gaussian_filter(grey, 1.0, output=np.float32)
    if threshold is None:
        if smooth.min() == smooth.max():
            raise ValueError("image: must hold more than one grey value; got a constant image. Give another slice.")
        threshold = float(threshold_otsu(smooth))  # type: ignore[no-untyped-call]
    return smooth > threshold


def notch_depth_um(segmenter: str, spacing: tuple[float, float, float], close_um: float | None = None) -> float:
    """How deep hollows are that a slice-wise segmenter's closing bridges: its radius (None: its own default)."""
    default = CLOSE_UM_INSTANCE if segmenter == "maskrcnn" else CLOSE_UM_SLICE
    close = default if close_um is None else close_um
    return close / 2 + min(spacing) / 2 if close > 0 else 0.0


def smallest_voxels(spacing: tuple[float, ...], min_diameter_um: float | None = None) -> int:
    """Voxels of the smallest particle: those of the ball (disc) of its diameter."""
    return math.ceil(ball(smallest_diameter(spacing, min_diameter_um), len(spacing)) / math.prod(spacing))


def _options(
    spacing: tuple[float, ...],
    min_diameter_um: float | None,
    marker_depth: float,
    close_um: float | None,
    default_close_um: float,
) -> dict[str, Any]:
    if not 0 <= marker_depth <= 1:
        raise ValueError(f"marker_depth: must be between 0 and 1; got {marker_depth}. It is a share of a height.")
    close = default_close_um if close_um is None else close_um
    if not (math.isfinite(close) and close >= 0):
        raise ValueError(f"close_um: must be a finite length of at least 0; got {close}. 0 bridges no crack.")
    return {
        "spacing": spacing,
        "min_diameter_um": smallest_diameter(spacing, min_diameter_um),
        "marker_depth": marker_depth,
        "close_um": close,
    }
