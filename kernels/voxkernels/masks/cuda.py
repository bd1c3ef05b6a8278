"""Pasting masks on a GPU: which kernel of `masks.cu` runs when.

Everything stays on the device. Memory there: the image and 40 bytes for each detection. Waits for the device: once, for
whether all boxes and scores are finite.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .._compile import Cuda

SOURCE = Path(__file__).with_name("masks.cu")
TILE_Y, TILE_X = 8, 32
THREADS = TILE_X * TILE_Y
INDEX_LIMIT = 2**31 - 1
"""Images of at most so many pixels are indexed in 32 bits, larger ones in 64."""

MOST_BLOCKS_Y = 65535

BAD_BOX, BAD_SCORE = 1, 2
TYPES: dict[Any, str] = {np.float32: "float", np.float64: "double"}


def paint_masks(
    device: Cuda,
    masks: Any,
    corners: Any,
    scores: Any,
    threshold: float,
    shape: tuple[int, int],
) -> tuple[Any, int]:
    """The label image (Y, X) int32, and what of its boxes (BAD_BOX) and scores (BAD_SCORE) is not finite or too far.

    masks (N, H, W), corners (N, 4) x0, y0, x1, y1 and scores (N,), each float32 or float64, lie on the device.
    """
    n_y, n_x = shape
    n, height, width = masks.shape
    device.reserve("paste_masks", 4 * n_y * n_x + 40 * n)
    if not n:
        return device.zeros(shape, np.int32), 0
    labels = device.empty(shape, np.int32)
    given = {"MASK": masks, "BOX": corners, "SCORE": scores}
    traits = {name: TYPES[array.dtype.type] for name, array in given.items()}
    traits["INDEX"] = "int" if n_y * n_x <= INDEX_LIMIT else "Long"
    boxes, order, trouble = device.empty((n, 4), np.int64), device.empty(n, np.int64), device.zeros(1, np.int32)
    grown = np.float64((width + 2) / width), np.float64((height + 2) / height)
    arguments: Any = (corners, scores, np.int32(n), *grown, boxes, order, trouble)
    device.launch(device.kernel(SOURCE, "prepare", traits), -(-n // THREADS), THREADS, arguments)
    blocks = -(-n_x // TILE_X), min(-(-n_y // TILE_Y), MOST_BLOCKS_Y)
    arguments = (masks, np.int32(height), np.int32(width), boxes, order, np.int32(n))
    arguments += (np.float64(threshold), labels, np.int64(n_y), np.int64(n_x))
    device.launch(device.kernel(SOURCE, "paint_masks", traits), blocks, THREADS, arguments)
    return labels, int(device.fetch(trouble)[0])  # the one wait
