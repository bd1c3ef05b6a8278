"""A small grey image, and files of it, for the tests of annotations and label images."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import tifffile
from skimage.io import imsave

SHAPE = (20, 30)
RAMP = np.arange(600, dtype=np.uint16).reshape(SHAPE)


def grey(folder: Path, name: str = "a_01.tif", shape: tuple[int, ...] = SHAPE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(math.prod(shape), dtype=np.uint16).reshape(shape)
    if name.endswith(".tif"):
        tifffile.imwrite(folder / name, pixels, photometric="minisblack")
    else:
        imsave(folder / name, pixels.astype(np.uint8), check_contrast=False)
    return folder / name
