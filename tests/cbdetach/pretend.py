"""A stand-in for the network: true sections seen through jittered boxes and 28 x 28 masks, some of them missed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

import voxkernels as vk
from cbdetach.segment.instances import Detections, Found, to_labels

MASK = 28
FINER = 4


def detections(
    labels: npt.NDArray[Any], rng: np.random.Generator, *, jitter: float = 0.01, miss: float = 0.03
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Boxes (N, 4), scores (N,) and masks (N, 28, 28) of the sections of a slice that are not missed."""
    boxes, masks = [], []
    for number, where in enumerate(find_objects(labels), 1):
        if where is None:
            continue
        section = labels[where] == number
        if np.count_nonzero(section) < 12 or rng.random() < miss:
            continue
        y, x = where[0].start, where[1].start
        high, wide = section.shape
        box = np.array([x, y, x + wide, y + high], float)
        box += rng.normal(0, 1, 4) * (jitter * np.array([wide, high, wide, high]) + 0.3)
        fine = (np.arange(MASK * FINER) + 0.5) / (MASK * FINER)
        rows = np.round(box[1] + fine * (box[3] - box[1]) - 0.5).astype(int) - y
        columns = np.round(box[0] + fine * (box[2] - box[0]) - 0.5).astype(int) - x
        seen = np.pad(section, 1)[np.clip(rows, -1, high)[:, None] + 1, np.clip(columns, -1, wide)[None] + 1]
        boxes.append(box)
        masks.append(seen.reshape(MASK, FINER, MASK, FINER).mean(axis=(1, 3)))
    scores = 0.9 + 0.1 * rng.random(len(boxes))
    return (
        np.array(boxes, np.float32).reshape(-1, 4),
        scores.astype(np.float32),
        np.array(masks, np.float32).reshape(-1, MASK, MASK),
    )


def instances(labels: npt.NDArray[Any], rng: np.random.Generator, **options: float) -> npt.NDArray[np.int32]:
    """The label image that the network's detections make of a slice."""
    boxes, scores, masks = detections(labels, rng, **options)
    return vk.paste_masks(masks, boxes, scores, (labels.shape[0], labels.shape[1]))


class Pretender:
    """What `cbdetach.segment.maskrcnn.Segmenter` is to the driver; it recognises the slices of one volume, any way cut.

    Errors depend on the slice alone. `asked` holds the options of every call.
    """

    def __init__(self, grey: npt.NDArray[Any], truth: npt.NDArray[Any], **errors: float) -> None:
        self.model = SimpleNamespace(name="pretender.onnx", threshold=0.5, provider="cpu")
        self.grey, self.truth, self.errors = grey, truth, errors
        self.asked: list[dict[str, Any]] = []
        self._places: dict[bytes, tuple[int, int, int]] = {}
        for axis in range(3):
            turned = np.ascontiguousarray(np.moveaxis(grey, axis, 0))
            for n, image in enumerate(turned):
                for start in range(1 if axis == 0 else len(image) - 1):
                    self._places[image[start : start + 2].tobytes()] = (axis, n, start)

    def label_slices(
        self, images: Iterable[npt.NDArray[Any]], **options: Any
    ) -> Iterator[tuple[npt.NDArray[np.int32], Found]]:
        """Instances of each slice."""
        self.asked.append(options)
        for image in images:
            axis, n, start = self._places[image[:2].tobytes()]
            truth = np.take(self.truth, n, axis)[start : start + len(image)]
            rng = np.random.default_rng(crc32(image.tobytes()))
            boxes, scores, masks = detections(truth, rng, **self.errors)
            found = Detections(boxes, scores, masks, (image.shape[0], image.shape[1]))
            yield to_labels(found.above(self.model.threshold if options["threshold"] is None else options["threshold"]))
