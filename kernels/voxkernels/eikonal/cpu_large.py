"""Travel time on the CPU: a component too large for one thread and its cache, tile by tile.

The component's cells (blocks of 4 x 4 x 4 voxels) are numbered tile by tile, TILE cells a side. Each stage is one pass
over the tiles; where a tile touches what lies in the next one, the tiles are taken in eight turns, so that no two of
one turn are neighbours: threads never meet, and the answer does not depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .._compile import jit
from .cpu_blocks import unpack
from .cpu_boxes import fill_box, mark_box, write_times
from .cpu_lines import find_lines
from .cpu_march import EDGE, ZERO, begin_second, find_upwind, make_medium, settle, settle_second, store_block
from .cpu_start import start_box

TILE = 16  # cells along an edge of a tile
RIM = 2  # cells around a tile: how far fits and straight lines reach from where straight lines may begin

Run = Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]


def solve_large(run: Run, number: int, low: Any, shape: Any, lines: Any, task: Any) -> None:
    """Solve one component. run : maps a function over items in threads; low, shape : its box; the rest as `solve`."""
    source, speed, h, interfaces, fit, band, order, max_time, scale, volume, times, ids = task
    sides = np.asarray(shape) // EDGE
    grid, cells, tiles, first = number_cells(sides)
    steps = np.array([sides[1] * sides[2], sides[2], 1])
    n = cells.size
    T, starts = np.empty(64 * n, np.float32), np.empty(64 * n if order == 2 else 64, np.float32)
    T[:64] = np.inf
    pace = np.ones(64 * n if speed.size else 64, np.float32)
    inside, queued, started = np.zeros(n, np.uint64), np.zeros(n, np.uint8), np.zeros(n, np.uint8)
    medium = make_medium(pace, speed.size > 0, h, scale, order, max_time)
    everything = range(len(tiles))
    turns = [[t for t in everything if tuple(tiles[t, 0] // TILE % 2) == turn] for turn in np.ndindex(2, 2, 2)]
    place = (grid, steps, low)
    given = (ids, source, speed, volume, interfaces, number)

    def settled(one_tile: Callable[[int], None]) -> None:
        while queued.any():
            for turn in turns:
                run(one_tile, [t for t in turn if queued[first[t] : first[t + 1]].any()])

    def begin(t: int) -> None:
        start_tile(tiles[t], place, given, h, fit, band, lines, scale, order, T, starts, pace, inside, queued, started)

    def march(t: int) -> None:
        room = np.empty(first[t + 1] - first[t] + 1, np.int32)
        settle(T, inside, cells, grid, steps, first[t], first[t + 1], queued, room, medium)

    run(begin, everything)
    grid[inside[grid] == ZERO] = 0
    settled(march)
    if order == 2:
        upwind, free, kept = np.empty(12 * n, np.uint64), np.zeros(n, np.uint64), np.zeros(n, np.uint64)
        cap, lined, feeding = np.empty(64 * n, np.float32), np.zeros(n, np.uint8), np.zeros(n, np.uint64)
        cap[:64] = np.inf
        upwind[:12] = 0
        found: dict[int, Any] = {}

        def look(t: int) -> None:
            blocks = first[t], first[t + 1]
            find_upwind(T, starts, started, inside, cells, grid, steps, *blocks, medium, upwind, free, kept)

        def draw(t: int) -> None:
            found[t] = tile_lines(
                tiles[t],
                place,
                given,
                h,
                lines,
                scale,
                T,
                inside,
                free,
                cells,
                first[t],
                first[t + 1],
                cap,
                lined,
                feeding,
            )

        def follow(t: int) -> None:
            room = np.empty(first[t + 1] - first[t] + 1, np.int32)
            blocks = first[t], first[t + 1]
            ways = (*found[t], cap, lined, feeding)
            settle_second(T, inside, cells, grid, steps, *blocks, queued, room, medium, upwind, free, ways)

        run(look, everything)
        for turn in turns:
            run(draw, turn)
        run(lambda t: begin_second(T, starts, inside, first[t], first[t + 1], medium[4], kept), everything)
        queued[free != ZERO] = 1
        settled(follow)
    run(lambda t: write_tile(tiles[t], place, scale, T, inside, volume, max_time, times), everything)


def number_cells(sides: Any) -> tuple[Any, Any, Any, Any]:
    """Number the cells of a grid tile by tile, from 1.

    Returns the numbers by cell, the cells by number, the tiles (n, 2, 3): first cell and the one behind the last, and
    the first number of each tile.
    """
    grid = np.empty(sides, np.int32)
    tiles, first = [], [1]
    for corner in np.ndindex(*(-(-sides // TILE))):
        begin = TILE * np.array(corner)
        end = np.minimum(begin + TILE, sides)
        part = tuple(slice(a, b) for a, b in zip(begin, end, strict=True))
        size = int(np.prod(end - begin))
        grid[part] = np.arange(first[-1], first[-1] + size).reshape(end - begin)
        tiles.append((begin, end))
        first.append(first[-1] + size)
    flat = grid.reshape(-1)
    cells = np.zeros(first[-1], np.int32)
    cells[flat] = np.arange(flat.size)
    return flat, cells, np.array(tiles), first


@jit
def fill_window(tile: Any, low: Any, given: Any, box: Any, kind: Any, mark: Any, slow: Any) -> Any:
    """Fill the box around a tile. Returns whether a source is in it, its first voxel, its first cell, and its shape."""
    ids, source, speed, volume, interfaces, number = given
    corner = tile[0] - RIM
    begin, shape = low + EDGE * corner, EDGE * (tile[1] - tile[0] + 2 * RIM)
    fill_box(ids, source, speed, volume, interfaces, number, begin, shape, box, slow)
    return mark_box(shape, box, kind, mark), corner, shape


@jit
def start_tile(
    tile: Any,
    place: Any,
    given: Any,
    h: Any,
    fit: bool,
    band: float,
    lines: Any,
    scale: float,
    order: int,
    T: Any,
    starts: Any,
    pace: Any,
    inside: Any,
    queued: Any,
    started: Any,
) -> None:
    """The starting times of one tile, in its blocks."""
    grid, steps, low = place
    size = np.prod(EDGE * (tile[1] - tile[0] + 2 * RIM))
    box, kind, mark = np.empty(size, np.float32), np.empty(size, np.uint8), np.empty(size, np.uint8)
    slow = np.empty(size if given[2].size else 1, np.float32)
    some, corner, shape = fill_window(tile, low, given, box, kind, mark, slow)
    if some:
        start_box(box, mark, slow, shape, h, fit, band, lines)
    sz, sy = shape[1] * shape[2], shape[2]
    for i in range(tile[0, 0], tile[1, 0]):
        for j in range(tile[0, 1], tile[1, 1]):
            for k in range(tile[0, 2], tile[1, 2]):
                b = np.int64(grid[i * steps[0] + j * steps[1] + k])
                v = EDGE * ((i - corner[0]) * sz + (j - corner[1]) * sy + k - corner[2])
                store_block(box, v, shape, slow, scale, b, T, pace, inside, queued)
                if order == 2 and queued[b]:
                    started[b] = 1
                    starts[64 * b : 64 * b + 64] = T[64 * b : 64 * b + 64]


@jit
def tile_lines(
    tile: Any,
    place: Any,
    given: Any,
    h: Any,
    lines: Any,
    scale: float,
    T: Any,
    inside: Any,
    free: Any,
    cells: Any,
    begin: int,
    end: int,
    cap: Any,
    lined: Any,
    feeding: Any,
) -> Any:
    """The straight lines to the voxels at walls of one tile: first lines of its blocks, lanes, origins, lengths."""
    grid, steps, low = place
    size = np.prod(EDGE * (tile[1] - tile[0] + 2 * RIM))
    box, kind, mark = np.empty(size, np.float32), np.empty(size, np.uint8), np.empty(size, np.uint8)
    slow = np.empty(size if given[2].size else 1, np.float32)
    _, corner, shape = fill_window(tile, low, given, box, kind, mark, slow)
    sz, sy = shape[1] * shape[2], shape[2]
    sides = np.array([cells.size // steps[0], steps[0] // steps[1], steps[1]])
    for i in range(max(corner[0], 0), min(tile[1, 0] + RIM, sides[0])):
        for j in range(max(corner[1], 0), min(tile[1, 1] + RIM, sides[1])):
            for k in range(max(corner[2], 0), min(tile[1, 2] + RIM, sides[2])):
                b = np.int64(grid[i * steps[0] + j * steps[1] + k])
                if b:
                    v = EDGE * ((i - corner[0]) * sz + (j - corner[1]) * sy + k - corner[2])
                    back = np.float32(1.0 / scale)
                    unpack(T, np.uint64(64 * b), inside[b], back, box, np.uint64(v), np.uint64(sz), np.uint64(sy))
    first = np.zeros(end - begin + 1, np.int64)
    window = (box, mark, slow, shape, corner)
    lane, origin, length = find_lines(
        window, inside, free, cells, grid, steps, begin, end, h, scale, lines, cap, lined, feeding, first
    )
    return first, lane, origin, length


@jit
def write_tile(
    tile: Any, place: Any, scale: float, T: Any, inside: Any, volume: Any, max_time: float, times: Any
) -> None:
    """Copy the times of one tile to the volume."""
    grid, steps, low = place
    corner, shape = tile[0] - 1, EDGE * (tile[1] - tile[0] + 2)
    box = np.full(shape[0] * shape[1] * shape[2], np.nan, np.float32)
    sz, sy = shape[1] * shape[2], shape[2]
    for i in range(tile[0, 0], tile[1, 0]):
        for j in range(tile[0, 1], tile[1, 1]):
            for k in range(tile[0, 2], tile[1, 2]):
                b = np.int64(grid[i * steps[0] + j * steps[1] + k])
                if b:
                    v = EDGE * ((i - corner[0]) * sz + (j - corner[1]) * sy + k - corner[2])
                    back = np.float32(1.0 / scale)
                    unpack(T, np.uint64(64 * b), inside[b], back, box, np.uint64(v), np.uint64(sz), np.uint64(sy))
    write_times(box, volume, low + EDGE * corner, shape, max_time, times)
