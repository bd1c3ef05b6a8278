"""The methods that are compared: the network, and two watersheds with parameters to tune."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach.annotations import LabelledSlice
from cbdetach.errors import InputError, called
from cbdetach.metrics import Prediction

Labels = npt.NDArray[np.int32]
Image = npt.NDArray[Any]
Predict = Callable[[Image], tuple[Prediction, Prediction]]
"""Particles at the method's own threshold, and those to be ranked for AP."""

LEAST_SCORE = 0.05
METHODS = {
    "network": "Mask R-CNN",
    "watershed": "watershed, distance markers",
    "intensity": "watershed, intensity markers",
}


def network_predictions(model: Path | None) -> Predict:
    """The network of a model, loaded."""
    from cbdetach.segment.instances import to_labels
    from cbdetach.segment.maskrcnn import Segmenter

    with called("--model", was="model"):
        segmenter = Segmenter(model)

    def predict(image: Image) -> tuple[Prediction, Prediction]:
        [detections] = segmenter.detect([image])
        used, ranked = (to_labels(detections.above(score)) for score in (segmenter.threshold, LEAST_SCORE))
        return Prediction(used[0], used[1].scores), Prediction(ranked[0], ranked[1].scores)

    return predict


def distance_watershed(
    image: Image, typical: float, *, share: float, depth: float, close: float, smallest: float
) -> Labels:
    """The slice watershed with distance markers.

    Parameters
    ----------
    image : (Y, X), any real type.
    typical : diameter of the particles' sections, pixels (`cbdetach.segment.maskrcnn.estimated_diameter`).
    share : of the contrast between matrix and particles, above which a pixel is active material.
    depth : `marker_depth` of `cbdetach.segment.segment_slice`.
    close, smallest : widest crack that is bridged and smallest diameter, as shares of the typical diameter.
    """
    from cbdetach.segment import segment_slice
    from cbdetach.segment.scaling import grey_levels

    dark, bright = grey_levels(image)
    return segment_slice(
        image,
        segmenter="watershed2d",
        threshold=dark + share * (bright - dark),
        marker_depth=depth,
        close_um=close * typical,
        min_diameter_um=smallest * typical,
    )


def intensity_watershed(
    image: Image, typical: float, *, share: float, radius: float, height: float, smallest: float
) -> Labels:
    """The marker-controlled watershed of textbooks, with markers from the grey level.

    Parameters
    ----------
    image : (Y, X), any real type.
    typical : diameter of the particles' sections, pixels (`cbdetach.segment.maskrcnn.estimated_diameter`).
    share : of the contrast between matrix and particles, above which a pixel is active material.
    radius : of the opening and closing by reconstruction, as a share of the typical diameter.
    height : by which a regional maximum rises above its surroundings, as a share of the contrast.
    smallest : smallest equivalent diameter that is kept, as a share of the typical one.
    """
    from scipy.ndimage import gaussian_filter, label, maximum_filter, minimum_filter
    from skimage.filters import sobel
    from skimage.morphology import local_maxima, reconstruction
    from skimage.segmentation import watershed

    from cbdetach.segment.scaling import grey_levels, normalise
    from cbdetach.segment.watershed import ball, fill_holes, number_by_first_voxel

    smooth = gaussian_filter(normalise(image, grey_levels(image)), 1.0)
    active = smooth > share
    size = 2 * max(round(radius * typical), 1) + 1
    opened = reconstruction(minimum_filter(smooth, size), smooth)  # type: ignore[no-untyped-call]
    even = -reconstruction(-maximum_filter(opened, size), -opened)  # type: ignore[no-untyped-call]
    if height > 0:
        even = reconstruction(even - height, even)  # type: ignore[no-untyped-call]
    markers, _ = label(local_maxima(even) & active, np.ones((3, 3)))  # type: ignore[no-untyped-call]
    found: Labels = watershed(sobel(smooth), markers, mask=active).astype(np.int32)  # type: ignore[no-untyped-call]
    area = np.bincount(found.ravel())
    found[area[found] < ball(smallest * typical, 2)] = 0
    fill_holes(found)
    return number_by_first_voxel(found)


@dataclass(frozen=True)
class Tunable:
    """A method with parameters: where the search starts, and the values that are tried, ascending."""

    segment: Callable[..., Labels]
    start: dict[str, float]
    grid: Mapping[str, tuple[float, ...]]


def on_slice(compute: Callable[..., Any], s: LabelledSlice, *values: float, **parameters: float) -> Any:
    """What `compute` finds on the slice; what it cannot take is bad input, said with the slice's name."""
    try:
        return compute(s.image, *values, **parameters)
    except ValueError as error:
        raise InputError(f"{s.name}: {error}") from None


TUNABLE = {
    "watershed": Tunable(
        distance_watershed,
        {"share": 0.5, "depth": 0.25, "close": 0.08, "smallest": 0.4},
        {
            "share": (0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7),
            "depth": (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5),
            "close": (0.0, 0.05, 0.08, 0.12, 0.16, 0.2),
            "smallest": (0.1, 0.25, 0.4, 0.5, 0.6),
        },
    ),
    "intensity": Tunable(
        intensity_watershed,
        {"share": 0.5, "radius": 0.15, "height": 0.02, "smallest": 0.4},
        {
            "share": (0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7),
            "radius": (0.05, 0.1, 0.15, 0.2, 0.25, 0.3),
            "height": (0.0, 0.01, 0.02, 0.05, 0.1),
            "smallest": (0.1, 0.25, 0.4, 0.5, 0.6),
        },
    ),
}
