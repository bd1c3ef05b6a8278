"""Pasting masks on a GPU: one launch of the kernel of `masks.cu`.

Boxes and order are lists of a few numbers for each detection and come from the host; masks and label image stay on the
device. Memory on the device: the image and 40 bytes for each detection. Waits for the device: never.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._compile import Cuda

SOURCE = Path(__file__).with_name("masks.cu")
TILE_Y, TILE_X = 8, 32
THREADS = TILE_X * TILE_Y
INDEX_LIMIT = 2**31 - 1
"""Images of at most so many pixels are indexed in 32 bits, larger ones in 64."""

MOST_BLOCKS_Y = 65535


def paint_masks(
    device: Cuda,
    masks: Any,
    boxes: npt.NDArray[np.int64],
    best_first: npt.NDArray[np.int64],
    threshold: float,
    shape: tuple[int, int],
) -> Any:
    """The label image (Y, X) int32 of masks (N, H, W) float32 or float64, which lie on the device.

    boxes : (N, 4) first pixel x, y and number of pixels along x, y; best_first (N,): both on the host.
    """
    n_y, n_x = shape
    device.reserve("paste_masks", 4 * n_y * n_x + 40 * len(boxes))
    if not len(boxes):
        return device.zeros(shape, np.int32)
    labels = device.empty(shape, np.int32)
    traits = {
        "MASK": "float" if masks.dtype == np.float32 else "double",
        "INDEX": "int" if n_y * n_x <= INDEX_LIMIT else "Long",
    }
    kernel = device.kernel(SOURCE, "paint_masks", traits)
    blocks = -(-n_x // TILE_X), min(-(-n_y // TILE_Y), MOST_BLOCKS_Y)
    _, height, width = masks.shape
    detections = (device.send(boxes), device.send(best_first), np.int32(len(boxes)))
    sides = (np.int32(height), np.int32(width))
    image = (labels, np.int64(n_y), np.int64(n_x))
    device.launch(kernel, blocks, THREADS, (masks, *sides, *detections, np.float64(threshold), *image))
    return labels
