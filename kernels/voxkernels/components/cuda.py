"""Connected components on a GPU: which kernel of `components.cu` runs when.

Memory on the device: the result, and 8 bytes for each 4096 voxels. Waits for the device: once, for the number of
components.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._compile import Cuda

SOURCE = Path(__file__).with_name("components.cu")
TILE = (8, 8, 32)
THREADS = 256
STRETCH = 4096
BLOCKS = 1 << 16
"""Blocks of the launches that go through a volume in strides, at most."""

TYPES = {np.dtype(np.uint8): "unsigned char", np.dtype(np.int32): "int", np.dtype(np.int64): "Long"}


def label(device: Cuda, volume: Any, connectivity: int, dtype: Any) -> tuple[Any, int]:
    """The labels of a volume (Z, Y, X) on the device, uint8, int32 or int64, not empty; as `dtype`, and how many."""
    n_stretches = -(-volume.size // STRETCH)
    device.reserve("label", volume.size * np.dtype(dtype).itemsize + 8 * n_stretches)
    labels = device.empty(volume.shape, dtype)
    counts, total = device.empty(n_stretches, np.int64), device.empty(1, np.int64)
    traits = {"VALUE": TYPES[volume.dtype], "INDEX": TYPES[labels.dtype], "CONNECTIVITY": connectivity}
    index = labels.dtype.type
    sides = tuple(index(n) for n in volume.shape)
    n_tiles = int(np.prod([-(-n // side) for n, side in zip(volume.shape, TILE, strict=True)]))
    strides = min(-(-volume.size // THREADS), BLOCKS)

    def run(name: str, blocks: int, *arguments: Any) -> None:
        device.launch(device.kernel(SOURCE, name, traits), blocks, THREADS, arguments)

    run("label_tiles", n_tiles, volume, *sides, labels)
    run("join_tiles", n_tiles, volume, *sides, labels)
    run("flatten", n_stretches, labels, index(labels.size), counts)
    run("scan_counts", 1, counts, np.int64(n_stretches), total)
    run("number_roots", n_stretches, labels, index(labels.size), counts)
    run("write_labels", strides, labels, index(labels.size))
    return labels, int(device.fetch(total)[0])


def renamed(device: Cuda, labels: Any, names: npt.NDArray[Any]) -> Any:
    """names[labels], for `labels` on the device and `names` on the host."""
    device.reserve("label_slabs", labels.size * names.itemsize + names.nbytes)
    result = device.empty(labels.shape, names.dtype)
    if labels.size:
        kernel = device.kernel(SOURCE, "rename_labels", {"INDEX": TYPES[labels.dtype], "NAME": TYPES[names.dtype]})
        blocks = min(-(-labels.size // THREADS), BLOCKS)
        device.launch(kernel, blocks, THREADS, (labels, np.int64(labels.size), device.send(names), result))
    return result
