"""Travel time on the CPU: a component too large for one thread and its cache, tile by tile.

The component's cells (blocks of 4 x 4 x 4 voxels) are numbered tile by tile, TILE cells a side. Each stage is one pass
over the tiles; where a tile touches what lies in the next one, the tiles are taken in eight turns, so that no two of
one turn are neighbours: threads never meet, and the answer does not depend on how many there are. (The last bits of
order 1 depend on the order of work, and so on TILE, and on LARGE in `cpu.py`.)

Memory: for each voxel of the cells 4 bytes and a third. Order 2 needs 2 more, 4 for each voxel that has a starting
time, and 2 a straight line to a voxel at a wall, of which the first component has 4 for each voxel of the volume in the
output (`spare.py`). Threads need 5 MB each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._compile import jit
from .cpu_blocks import unpack
from .cpu_boxes import EDGE, fill_box, mark_box, write_times
from .cpu_components import runs_from
from .cpu_keep import begin_tile, count_starts, keep_starts, pass_on_starts, unpack_starts
from .cpu_lines import find_lines, scaled_lengths
from .cpu_march import ZERO, find_upwind, make_medium, settle, settle_second, store_block, wait_for_others
from .cpu_start import start_box
from .cpu_steps import settle_steps

TILE = 12  # cells along an edge of a tile
BEYOND = 2  # how far beyond a tile straight lines to it may begin, in voxels
RIM = 2  # cells around a tile: how far fits and straight lines reach from where straight lines may begin
NEAR = 1  # cells around a tile: how far straight lines to it reach

Run = Callable[..., list[Any]]  # `in_threads`
Take = Callable[[int, Any], Any]  # `Spare.take`


def solve_large(run: Run, number: int, low: Any, shape: Any, lines: Any, task: Any, take: Take) -> None:
    """Solve one component.

    run : maps a function over items in threads; low, shape : its box; take : gives room for so many numbers of a type,
    which may lie in the output and is good until the first times are written; the rest as `solve`.
    """
    source, speed, h, interfaces, fit, band, order, max_time, scale, volume, runs, times = task
    sides = np.asarray(shape) // EDGE
    grid = np.zeros(sides, np.int32)
    steps = np.array([sides[1] * sides[2], sides[2], 1])
    run(lambda z: find_cells(runs, number, low, volume, steps, z, grid.reshape(-1)), range(sides[0]))
    cells, tiles, first = number_cells(grid)
    grid = grid.reshape(-1)
    n = cells.size
    T = np.empty(64 * n, np.float32)
    T[:64] = np.inf
    pace = take(64 * n if speed.size else 64, np.float32)
    pace[:64] = 1.0
    inside, queued = np.zeros(n, np.uint64), np.zeros(n, np.uint8)
    medium = make_medium(pace, speed.size > 0, h, scale, order, max_time)
    everything = range(len(tiles))
    turns = [[t for t in everything if tuple(tiles[t, 0] // TILE % 2) == turn] for turn in np.ndindex(2, 2, 2)]
    place = (grid, steps, low)
    given = (runs, source, speed, volume, interfaces, number)

    def settled(one_tile: Callable[[int], None]) -> None:
        while queued.any():
            for turn in turns:
                run(one_tile, [t for t in turn if queued[first[t] : first[t + 1]].any()])

    def begin(t: int) -> Any:
        start_tile(tiles[t], place, given, h, fit, band, lines, scale, T, pace, inside, queued)
        if order == 1:
            return None
        starts = take(count_starts(T, queued, first[t], first[t + 1], words), np.float32)
        keep_starts(T, words, first[t], first[t + 1], starts)
        return starts

    def march(t: int) -> None:
        room = np.empty(first[t + 1] - first[t] + 1, np.int32)
        settle(T, inside, cells, grid, steps, first[t], first[t + 1], queued, room, medium)

    second = n if order == 2 else 1  # the largest first: starts fill up what is left of the spare room
    upwind, free, led_to = (take(k * second, t) for k, t in ((12, np.uint64), (1, np.uint64), (1, np.uint32)))
    words = np.zeros(second, np.uint64)  # of voxels that have a start, later where lines begin
    started = take(second, np.int32)
    starts = run(begin, everything)
    settled(march)
    if order == 2:
        upwind[:12] = free[:] = led_to[:] = 0
        found: dict[int, Any] = {}
        lengths = scaled_lengths(lines[6], scale)

        def look(t: int) -> Any:
            blocks = first[t], first[t + 1]
            own = unpack_starts(starts[t], words, *blocks, started)
            starts[t] = None
            find_upwind(T, own, started, inside, cells, grid, steps, *blocks, medium, upwind, free, words)
            return pass_on_starts(T, own, started, words, *blocks)

        def draw(t: int) -> None:
            window = (tiles[t], place, given, h, lines, scale)
            each, listed = tile_lines(window, T, inside, free, cells, first[t], first[t + 1], led_to, words)
            kept = take(each[-1], np.uint16)
            kept[:] = listed[: each[-1]]
            found[t] = each, kept

        def follow(t: int) -> None:
            room = np.empty(first[t + 1] - first[t] + 1, np.int32)
            blocks = first[t], first[t + 1]
            ways = (*found[t], lines[8], lengths, led_to, words)
            settle_second(T, cells, grid, steps, *blocks, queued, room, medium, upwind, free, ways)

        def hurry(t: int) -> None:
            room = np.empty(first[t + 1] - first[t] + 1, np.int32)
            blocks = first[t], first[t + 1]
            settle_steps(T, inside, cells, grid, steps, *blocks, queued, room, medium, upwind, free, words)

        again = run(look, everything)
        for turn in turns:
            run(draw, turn)
        run(lambda t: begin_tile(T, first[t], first[t + 1], medium[4], *again[t]), everything)
        run(lambda t: wait_for_others(T, free, first[t], first[t + 1]), everything)
        queued[free != ZERO] = 1
        settled(follow)
        queued[1:], words[:] = 1, 0
        settled(hurry)
    run(lambda t: write_tile(tiles[t], place, scale, T, inside, volume, max_time, times), everything)


@jit
def find_cells(runs: Any, number: int, low: Any, volume: Any, steps: Any, layer: int, grid: Any) -> None:
    """Set the cells of one layer of the grid that hold voxels of the component to 1."""
    first, left, right, component = runs
    for z in range(max(low[0] + EDGE * layer, 0), min(low[0] + EDGE * (layer + 1), volume[0])):
        for y in range(max(low[1], 0), min(low[1] + EDGE * (steps[0] // steps[1]), volume[1])):
            row = z * volume[1] + y
            cell = layer * steps[0] + (y - low[1]) // EDGE * steps[1]
            for n in range(runs_from(right, first[row], first[row + 1], low[2]), first[row + 1]):
                if component[n] == number:
                    for k in range((left[n] - low[2]) // EDGE, (right[n] - 1 - low[2]) // EDGE + 1):
                        grid[cell + k] = 1


def number_cells(grid: Any) -> tuple[Any, Any, Any]:
    """Number the cells of a grid that are 1, tile by tile, from 1.

    Returns the cells by number, the tiles (n, 2, 3): first cell and the one behind the last, and the first number of
    each tile.
    """
    tiles, first = [], [1]
    for corner in np.ndindex(*(-(-np.array(grid.shape) // TILE))):
        begin = TILE * np.array(corner)
        end = np.minimum(begin + TILE, grid.shape)
        part = tuple(slice(a, b) for a, b in zip(begin, end, strict=True))
        held = grid[part] > 0
        grid[part][held] = np.arange(first[-1], first[-1] + np.count_nonzero(held))
        tiles.append((begin, end))
        first.append(first[-1] + int(np.count_nonzero(held)))
    taken = np.flatnonzero(grid)
    cells = np.zeros(first[-1], np.int32)
    cells[grid.reshape(-1)[taken]] = taken
    return cells, np.array(tiles), first


@jit
def fill_window(tile: Any, rim: int, low: Any, given: Any, box: Any, kind: Any, mark: Any, slow: Any) -> Any:
    """Fill the box around a tile, `rim` cells more on every side.

    Returns whether a source is in it, its first cell, and its shape.
    """
    runs, source, speed, volume, interfaces, number = given
    corner = tile[0] - rim
    begin, shape = low + EDGE * corner, EDGE * (tile[1] - tile[0] + 2 * rim)
    held = np.empty(box.size // EDGE**3, np.int32)
    fill_box(runs, source, speed, volume, interfaces, number, begin, shape, kind, slow, held)
    return mark_box(shape, kind, box, mark), corner, shape


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
    T: Any,
    pace: Any,
    inside: Any,
    queued: Any,
) -> None:
    """The starting times of one tile, in its blocks."""
    grid, steps, low = place
    size = np.prod(EDGE * (tile[1] - tile[0] + 2 * RIM))
    box, kind, mark = np.empty(size, np.float32), np.empty(size, np.uint8), np.empty(size, np.uint8)
    slow = np.empty(size if given[2].size else 1, np.float32)
    some, corner, shape = fill_window(tile, RIM, low, given, box, kind, mark, slow)
    if some:
        start_box(box, kind, mark, slow, shape, h, scale, fit, band, lines, EDGE * RIM - BEYOND)
    for i in range(tile[0, 0], tile[1, 0]):
        for j in range(tile[0, 1], tile[1, 1]):
            for k in range(tile[0, 2], tile[1, 2]):
                b = np.int64(grid[i * steps[0] + j * steps[1] + k])
                if b == 0:
                    continue
                v = EDGE * (((i - corner[0]) * shape[1] + j - corner[1]) * shape[2] + k - corner[2])
                store_block(box, v, shape, slow, scale, b, T, pace, inside, queued)


@jit
def unpack_cells(
    T: Any, inside: Any, grid: Any, steps: Any, low: Any, high: Any, corner: Any, shape: Any, scale: float, box: Any
) -> None:
    """Copy the blocks of some cells, low to high - 1, into a box that begins at the cell `corner`."""
    back, sz, sy = np.float32(1.0 / scale), np.uint64(shape[1] * shape[2]), np.uint64(shape[2])
    for i in range(low[0], high[0]):
        for j in range(low[1], high[1]):
            for k in range(low[2], high[2]):
                b = np.int64(grid[i * steps[0] + j * steps[1] + k])
                if b:
                    v = EDGE * (((i - corner[0]) * shape[1] + j - corner[1]) * shape[2] + k - corner[2])
                    unpack(T, np.uint64(64 * b), inside[b], back, box, np.uint64(v), sz, sy)


@jit
def tile_lines(
    window: Any, T: Any, inside: Any, free: Any, cells: Any, begin: int, end: int, led_to: Any, feeding: Any
) -> Any:
    """The lines to the voxels at walls of one tile: where each block's begin in the list, and the list with room."""
    tile, place, given, h, lines, scale = window
    grid, steps, low = place
    size = np.prod(EDGE * (tile[1] - tile[0] + 2 * NEAR))
    box, kind, mark = np.empty(size, np.float32), np.empty(size, np.uint8), np.empty(size, np.uint8)
    slow = np.empty(size if given[2].size else 1, np.float32)
    _, corner, shape = fill_window(tile, NEAR, low, given, box, kind, mark, slow)
    sides = np.array([grid.size // steps[0], steps[0] // steps[1], steps[1]])
    around = np.maximum(corner, 0), np.minimum(tile[1] + NEAR, sides)
    unpack_cells(T, inside, grid, steps, around[0], around[1], corner, shape, scale, box)
    first = np.zeros(end - begin + 1, np.int32)
    here = (box, kind, slow, shape, corner)
    return first, find_lines(here, inside, free, cells, grid, steps, begin, end, h, lines, led_to, feeding, first)


@jit
def write_tile(
    tile: Any, place: Any, scale: float, T: Any, inside: Any, volume: Any, max_time: float, times: Any
) -> None:
    """Copy the times of one tile to the volume."""
    grid, steps, low = place
    corner, shape = tile[0] - 1, EDGE * (tile[1] - tile[0] + 2)
    box = np.full(shape[0] * shape[1] * shape[2], np.nan, np.float32)
    unpack_cells(T, inside, grid, steps, tile[0], tile[1], corner, shape, scale, box)
    write_times(box, volume, low + EDGE * corner, shape, max_time, times)
