"""Travel time on a GPU: which kernel of `eikonal.cu` runs when.

The rounds of a march are launched in batches, each twice as large as the one before, and after each batch the host asks
whether the last round had anything to do.

Memory on the device: the result, 1 byte for each voxel and 16 for each tile of 8^3 voxels; for order 2 also 4 bytes for
each voxel, 12 for each at a wall and 12 for each tile; for starts other than "centres" also 4 for each voxel, or 8
where indices need 64 bits. Waits for the device: once for each batch, that is twice the logarithm (to base 2) of the
number of rounds, or less; for order 2 also for how many voxels lie at walls.

Paths are traced twice, first to count their points, all of which are equal to the CPU's, to the bit. Starts and counts,
a few numbers for each path, are on the host, too. Memory: 24 bytes for each point, 40 for each start. Waits for the
device: for the times at the starts, which are checked, and for the counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._compile import Cuda

SOURCE = Path(__file__).with_name("eikonal.cu")
SIDE = 8
TILE = SIDE**3
THREADS, PATH_THREADS = 256, 64
BLOCKS = 1 << 16
"""Blocks of the launches that go through a volume in strides, at most."""

ROUND_BLOCKS = 2048
"""Blocks of a round, at most: about twice as many as a large GPU holds at once."""

FIRST_ROUNDS = 8
INDEX_LIMIT = 2**31 - 1
"""Volumes of at most so many voxels are indexed in 32 bits, larger ones in 64."""

LINE_BYTES = 12
"""For each voxel that looks along lines, a bit for each of them."""

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
    lines: tuple[Any, Any, Any, Any],
    band: float,
    times: Any,
    *,
    order: Any,
    start: Any,
    interfaces: Any,
    max_time: Any,
) -> None:
    """Fill `times` (Z, Y, X) float32 on the device, not empty; all arrays of the same shape.

    labels : uint8, int32 or int64; source : bool; speed : float32, empty where it is 1; h : the steps along z, y, x;
    lines, band : straight lines from a voxel, as `straight_lines` makes them, and up to which distance they are used.
    """
    size = times.size
    index = np.int64 if size > INDEX_LIMIT else np.int32
    n_tiles = int(np.prod([-(-n // SIDE) for n in times.shape]))
    straight = start != "centres"
    n_bytes = size * (1 + 4 * (order == 2) + np.dtype(index).itemsize * straight)
    device.reserve(WHAT, n_bytes + (16 + 12 * (order == 2)) * n_tiles)
    links = device.empty(times.shape, np.uint8)
    first = device.empty(times.shape, np.float32) if order == 2 else times
    pieces = device.empty(times.shape if straight else 1, index)
    pace = (speed, np.int32(1)) if speed.size else (times, np.int32(0))
    sides = tuple(index(n) for n in times.shape)
    steps = tuple(np.float64(d) for d in h)
    scene = (labels, source, *pace, *sides, *steps, np.int32(interfaces))
    traits = {"LABEL": TYPES[labels.dtype], "INDEX": TYPES[np.dtype(index)]}
    strides = min(-(-size // THREADS), BLOCKS)

    def run(name: str, blocks: int, *arguments: Any, threads: int = THREADS) -> None:
        device.launch(device.kernel(SOURCE, name, traits), blocks, threads, arguments)

    run("prepare", strides, *scene, np.int32(not straight), times, links, pieces)
    table, n_offsets = device.send(line_table(lines)), np.int32(len(lines[0]))
    if straight:
        run("flatten", strides, pieces, index(size))
        run("join_pieces", strides, links, *sides, pieces)
        run("flatten", strides, pieces, index(size))
        fit = np.int32(start == "surface"), np.float64(band)
        run("start_lines", n_tiles, *scene[1:], links, pieces, table, n_offsets, *fit, times.view(np.int32))
    rounds = Rounds(device, n_tiles)
    touch = np.int32(start == "surface")
    run("list_tiles", n_tiles, *scene, touch, links, times, first, np.int32(order), *rounds.first())
    limit = np.float64(1.75 * max_time if order == 2 else max_time)  # order 1 is at most sqrt(3) times order 2
    weights = tuple(np.float64(d**-2.0) for d in h)
    march = device.kernel(SOURCE, "march", traits)
    rounds.run(march, THREADS, first, links, *pace, *sides, *weights, limit)
    if order == 2:
        left, row, n_rows = device.empty(n_tiles, np.int32), device.empty(n_tiles, np.int64), device.zeros(1, np.uint64)
        keep, look = np.float64(KEEP * min(h)), np.int32(n_offsets > 1)
        waiting = (times, first, *pace, *sides, keep, look, links, left, row, n_rows)
        run("wait_for_second", n_tiles, *waiting, *rounds.first(), threads=TILE)
        drawn = device.zeros(1, np.uint32)
        n_drawn = int(device.fetch(n_rows)[0]) if look else 0
        if n_drawn:
            device.reserve(WHAT, LINE_BYTES * n_drawn)
            drawn = device.empty(LINE_BYTES // 4 * n_drawn, np.uint32)
            run("draw_lines", n_tiles, first, links, *scene[2:], pieces, table, n_offsets, row, drawn)
        second = device.kernel(SOURCE, "second", traits)
        in_single = [np.float32(number) for number in (*h, *weights)]
        along = (*in_single[:3], table, n_offsets, row, drawn, *in_single[3:], left)
        rounds.run(second, TILE, times, first, links, *pace, *sides, *along)
        hurry = (times, first, links, *pace, *sides, *in_single[:3])
        run("hurry", n_tiles, *hurry, np.int32(1), *rounds.work(rounds.number - 1), threads=TILE)
        rounds.run(device.kernel(SOURCE, "hurry", traits), TILE, *hurry, np.int32(0))
    if max_time < np.inf:
        run("cut", strides, times, np.int64(size), np.float64(max_time))


def line_table(lines: tuple[Any, Any, Any, Any]) -> npt.NDArray[np.int32]:
    """Straight lines for the kernels: offsets (K, 3); first_way (K + 1,); over (W, 4), the voxels on each way.

    Those are the bits of four words: voxel (z, y, x) of a box of 5^3 about the start is bit
    25 (z + 2) + 5 (y + 2) + x + 2.
    """
    offsets, first_way, first_via, via = lines
    over = np.zeros((len(first_via) - 1, 4), np.uint32)
    way = np.repeat(np.arange(len(over)), np.diff(first_via))
    bit = (via + 2) @ np.array([25, 5, 1])
    np.bitwise_or.at(over, (way, bit // 32), (1 << bit % 32).astype(np.uint32))
    return np.concatenate([offsets.ravel().astype(np.int32), first_way.astype(np.int32), over.view(np.int32).ravel()])


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

    def work(self, number: int) -> tuple[Any, ...]:
        """What a kernel needs that works off the tiles of a round, and lists those of the next."""
        return np.int32(number), self.counts, self.lists[number % 2], self.lists[1 - number % 2], self.listed

    def run(self, kernel: Any, threads: int, *arguments: Any) -> None:
        """Run rounds until one has nothing to do."""
        batch = FIRST_ROUNDS
        while True:
            for number in range(self.number, self.number + batch):
                self.device.launch(kernel, self.blocks, threads, (*arguments, *self.work(number)))
            self.number += batch
            if not self.device.fetch(self.counts)[self.number % 3]:
                return
            batch *= 2


# ---- paths ----------------------------------------------------------------------------------------------------------


def times_at(device: Cuda, times: Any, at: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """The times (float32, on the device) at flat indices (N,), N > 0; both on the host."""
    device.reserve("trace_paths", 12 * at.size)
    found = device.empty(at.size, np.float32)
    kernel = device.kernel(SOURCE, "read_times")
    device.launch(kernel, -(-at.size // PATH_THREADS), PATH_THREADS, (times, device.send(at), np.int64(at.size), found))
    return device.fetch(found)


def trace_paths(
    device: Cuda,
    times: Any,
    labels: Any,
    starts: npt.NDArray[np.float64],
    h: tuple[float, float, float],
    stride: float,
    max_steps: int,
) -> tuple[Any, npt.NDArray[np.int64]]:
    """The points (n, 3) of all paths one after another, on the device, and how many each has (N,), on the host.

    times  : (Z, Y, X) float32 on the device; labels: of its shape, int32 or int64, or None.
    starts : (N, 3) on the host, N > 0. Where a path has more than `max_steps` points its count is -1, and no points
             are returned.
    """
    n = len(starts)
    device.reserve("trace_paths", 40 * n)
    wide = times.size > INDEX_LIMIT
    labelled = labels is not None
    traits = {"INDEX": "Long" if wide else "int", "LABEL": TYPES[labels.dtype] if labelled else "int"}
    kernel = device.kernel(SOURCE, "trace_paths", traits)
    sides = tuple((np.int64 if wide else np.int32)(side) for side in times.shape)
    grid = (times, labels if labelled else device.zeros(1, np.int32), np.int32(labelled), *sides)
    settings = (np.int64(n), *(np.float64(number) for number in (*h, stride)), np.int64(max_steps))
    sent, count = device.send(starts), device.empty(n, np.int64)
    points, first = device.empty((0, 3), np.float64), device.zeros(n + 1, np.int64)
    for again in (True, False):  # count, then write
        arguments = (*grid, sent, *settings, first, points, count)
        device.launch(kernel, -(-n // PATH_THREADS), PATH_THREADS, arguments)
        if again:
            counts = device.fetch(count)
            if counts.min() < 0:
                break
            ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
            device.reserve("trace_paths", 24 * int(ends[-1]))
            points, first = device.empty((int(ends[-1]), 3), np.float64), device.send(ends)
    return points, counts
