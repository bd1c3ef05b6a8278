"""Travel time on a GPU: which kernel of `eikonal.cu` runs when.

The rounds of a march are launched in batches, each twice as large as the one before, and after each batch the host asks
whether the last round had anything to do.

Memory on the device: the result, 1 byte for each voxel and 12 for each tile of 8^3 voxels; for order 2 also 4 bytes for
each voxel. Waits for the device: once for each batch, about twice the logarithm (to base 2) of the number of rounds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .._compile import Cuda

SOURCE = Path(__file__).with_name("eikonal.cu")
SIDE = 8
THREADS = 256
BLOCKS = 1 << 16
"""Blocks of the launches that go through a volume in strides, at most."""

ROUND_BLOCKS = 2048
"""Blocks of a round, at most: about twice as many as a large GPU holds at once."""

FIRST_ROUNDS = 8
INDEX_LIMIT = 2**31 - 1
"""Volumes of at most so many voxels are indexed in 32 bits, larger ones in 64."""

KEEP = 0.07
"""Straight-line times stay unless order 1 finds a way that is shorter by this part of a step."""

TYPES = {np.dtype(np.uint8): "unsigned char", np.dtype(np.int32): "int", np.dtype(np.int64): "Long"}
WHAT = "travel_time"


def travel_time(
    device: Cuda,
    labels: Any,
    source: Any,
    speed: Any,
    h: tuple[float, float, float],
    order: int,
    start: str,
    interfaces: bool,
    max_time: float,
    times: Any,
) -> None:
    """Fill `times` (Z, Y, X) float32 on the device, not empty; all arrays of the same shape.

    labels : uint8, int32 or int64; source : bool; speed : float32, empty where it is 1; h : the steps along z, y, x.
    """
    size = times.size
    wide = size > INDEX_LIMIT
    index = np.int64 if wide else np.int32
    sides = tuple(index(n) for n in times.shape)
    n_tiles = int(np.prod([-(-n // SIDE) for n in times.shape]))
    device.reserve(WHAT, size + 16 * n_tiles + (4 * size if order == 2 else 0))
    links = device.empty(times.shape, np.uint8)
    first = device.empty(times.shape, np.float32) if order == 2 else times
    pace = (speed, np.int32(1)) if speed.size else (times, np.int32(0))
    steps = tuple(np.float64(d) for d in h)
    weights = tuple(np.float64(d**-2.0) for d in h)
    limit = np.float64(1.75 * max_time if order == 2 else max_time)  # order 1 is at most sqrt(3) times order 2
    traits = {"LABEL": TYPES[labels.dtype], "INDEX": "Long" if wide else "int"}
    strides = min(-(-size // THREADS), BLOCKS)
    rounds = Rounds(device, n_tiles)

    def run(name: str, blocks: int, *arguments: Any) -> None:
        device.launch(device.kernel(SOURCE, name, traits), blocks, THREADS, arguments)

    flags = (np.int32(interfaces), np.int32(start == "centres"))
    run("prepare", strides, labels, source, *pace, *sides, *steps, *flags, times, links)
    run("list_tiles", n_tiles, times, *sides, first, np.int32(order), *rounds.first())
    march = device.kernel(SOURCE, "march", traits)
    rounds.run(march, first, links, *pace, *sides, *weights, limit)
    if order == 2:
        left = device.empty(n_tiles, np.int32)
        keep = np.float64(KEEP * min(h))
        run("wait_for_second", n_tiles, times, first, *pace, *sides, keep, left, *rounds.first())
        second = device.kernel(SOURCE, "second", traits)
        rounds.run(second, times, first, links, *pace, *sides, *steps, left)
    if max_time < np.inf:
        run("cut", strides, times, np.int64(size), np.float64(max_time))


class Rounds:
    """Lists of tiles, one for every other round, and how long they are: a round reads one and writes the next."""

    def __init__(self, device: Cuda, n_tiles: int) -> None:
        self.device, self.blocks = device, min(n_tiles, ROUND_BLOCKS)
        self.lists = device.empty(n_tiles, np.int32), device.empty(n_tiles, np.int32)
        self.listed, self.counts = device.zeros(n_tiles, np.int32), device.zeros(3, np.int32)
        self.number = 1

    def first(self) -> tuple[Any, ...]:
        """What a kernel needs that lists the tiles for the next round."""
        return np.int32(self.number), self.counts, self.lists[self.number % 2], self.listed

    def run(self, kernel: Any, *arguments: Any) -> None:
        """Run rounds until one has nothing to do."""
        batch = FIRST_ROUNDS
        while True:
            for number in range(self.number, self.number + batch):
                lists = self.lists[number % 2], self.lists[1 - number % 2]
                work = np.int32(number), self.counts, *lists, self.listed
                self.device.launch(kernel, self.blocks, THREADS, (*arguments, *work))
            self.number += batch
            if not self.device.fetch(self.counts)[self.number % 3]:
                return
            batch *= 2
