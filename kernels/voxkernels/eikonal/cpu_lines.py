"""Travel time on the CPU: the straight lines that order 2 tries at walls."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._compile import jit
from .cpu_blocks import EARLIER, lowest_bit, shorter
from .cpu_components import with_room
from .cpu_march import LINES, SIXTY_FOUR, ZERO, from_beside, look_around
from .cpu_sight import in_sight, lanes_in_box, ways_in_box

ONE = np.uint64(1)


@jit
def at_walls(inside: Any, b: int, at: Any) -> Any:
    """The voxels of a block that miss one of their six neighbours."""
    own = inside[b]
    open_ways = ~ZERO
    for direction in range(6):
        other = np.int64(at[1 + direction] // SIXTY_FOUR)
        open_ways &= from_beside(own, inside[other], direction)
    return own & ~open_ways


@jit
def find_lines(
    window: Any,
    inside: Any,
    free: Any,
    cells: Any,
    grid: Any,
    steps: Any,
    begin: int,
    end: int,
    h: Any,
    table: Any,
    led_to: Any,
    feeding: Any,
    first: Any,
) -> Any:
    """List the straight lines to the voxels at walls of some blocks that are shorter than what order 1 found.

    window : a box of the component with its order-1 times, its kinds, slownesses and shape, and the cell where it
    begins. table : the lines, as from `straight_lines` and `line_lanes`. first (end - begin + 1,) : set to where each
    block's lines begin in the list. led_to : set to the blocks around to which lines from a block lead, 27 bits, itself
    not. feeding : set to the words of voxels where lines begin. Returns the list, with room behind its end: LINES times
    the voxel that a line leads to, plus its number among the lanes of `line_lanes`.
    """
    box, kind, pace, shape, corner = window
    offsets, first_line, first_way, via, rows, which, length, _, far_end = table
    line = np.empty(0, np.uint16)
    first[: end - begin + 1] = 0
    if offsets.shape[0] == 1:
        return line
    sz, sy = shape[1] * shape[2], shape[2]
    step, way = lanes_in_box(rows, shape), ways_in_box(via, shape)
    nearer = EARLIER * min(h[0], h[1], h[2])
    at = np.zeros(7, np.uint64)
    n = 0
    for b in range(begin, end):
        first[b - begin] = n
        if free[b] == ZERO:
            continue
        look_around(b, cells, grid, steps, at)
        left = at_walls(inside, b, at) & free[b]
        if left == ZERO:
            continue
        cell = np.int64(cells[b])
        ci, cj, ck = cell // steps[0], cell % steps[0] // steps[1], cell % steps[1]
        corner_voxel = 4 * ((ci - corner[0]) * sz + (cj - corner[1]) * sy + ck - corner[2])
        line = with_room(line, n + 64 * offsets.shape[0])
        while left != ZERO:
            bit = np.int64(lowest_bit(left))
            left &= left - ONE
            v = corner_voxel + bit // 16 * sz + bit // 4 % 4 * sy + bit % 4
            slowness = 1.0 / pace[v] if pace.size > 1 else 1.0
            latest = np.float32(box[v] - nearer * slowness)
            for group in range(0, step.size, 64):
                bits = ZERO
                for o in range(group, min(group + 64, step.size), 16):
                    one, two, three = np.uint64(v + step[o]), np.uint64(v + step[o + 5]), np.uint64(v + step[o + 10])
                    bits |= shorter(
                        box, one, two, three, length, np.uint64(o), np.float32(slowness), latest
                    ) << np.uint64(o - group)
                while bits != ZERO:
                    place = group + np.int64(lowest_bit(bits))
                    bits &= bits - ONE
                    number, w = which[place], v + step[place]
                    if not in_sight(kind, pace, v, w, way, first_way, first_line[number], first_line[number + 1]):
                        continue
                    which_line = LINES * np.uint64(bit) + np.uint64(place)
                    from_there = np.int64(far_end[which_line])
                    side, voxel = from_there // 64, np.uint64(from_there % 64)
                    block = grid[cell + (side // 9 - 1) * steps[0] + (side // 3 % 3 - 1) * steps[1] + side % 3 - 1]
                    feeding[block] |= ONE << voxel
                    led_to[block] |= np.uint32(1 << (26 - side) & ~(1 << 13))
                    line[n] = which_line
                    n += 1
    first[end - begin] = n
    return line


@jit
def scaled_lengths(length: Any, scale: float) -> Any:
    """The lengths of `line_lanes` as times of blocks at speed 1, in LINES places."""
    lengths = np.full(LINES, np.inf, np.float32)
    lengths[: length.size] = length * np.float32(scale)
    return lengths
