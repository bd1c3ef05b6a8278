"""Travel time on the CPU: |grad T| = 1 / speed inside a masked or labelled volume, one connected piece after the other.

The domain is split into 6-connected components of equal label (`cpu_components.py`). No front passes between them, so
each is copied into a padded box of its own, small enough for the cache, and solved there; threads that are idle take
the next, the largest first. All threads work together on a component too large for that (`cpu_large.py`). In a box:

1. Start (`cpu_start.py`). A plane is fitted to the contact faces around each contact face (`cpu_surface.py`), and cut
   off where the source ends (`cpu_rims.py`). Every voxel close by gets the distance to the nearest such patch
   (`cpu_discs.py`) that a straight line reaches, or to the centre of a source inside.
2. Order 1 (`cpu_march.py`). The upwind differences of Rouy & Tourin (1992), solved on blocks of 4 x 4 x 4 voxels by the
   fast iterative method (Jeong & Whitaker 2008): a queue of blocks whose neighbours have become earlier, three passes
   over a block in vector instructions of 16 lanes (`cpu_lanes.py`, `cpu_blocks.py`), until nothing changes any more.
   That is the fixed point that fast marching (Sethian 1996) finds.
3. Order 2. What depends on what follows from order 1: the stencil uses only neighbours that arrive earlier there by a
   thousandth of a step, with second differences where two arrive one after the other (Sethian 1999). So no voxel
   depends on itself, and passes over the blocks end at the one solution, whatever their order. A voxel at a wall also
   tries the straight lines from voxels in sight that are shorter than what order 1 found (`cpu_lines.py`): the
   neighbour that it needs may be wall, and a corner is a new point source. At the end no voxel is later than one beside
   it by more than a step (`cpu_steps.py`).

Arithmetic is of 32 bits, and times in blocks are scaled by a power of 2 so that steps are close to 1.

Cost: O(N). Memory beside input and output: for small components about 20 bytes for each voxel of the boxes in work, one
a thread, each below a million voxels; for a large one see `cpu_large.py`; 8 bytes for each run of the domain in x, 12
if the volume is wider than 65535; and one byte a voxel at most for the components in hand (`batches.py`). In bytes for
each voxel of a volume of 256^3, two threads: 4 on the cathode, 5 for a full block, 6 for a checkerboard (a component a
voxel), 7 to 8 for a domain of half or 70 % of the voxels at random. Volumes of one or two slices take 24 and 9: blocks
are four voxels thick.

Reached (Zen 5, cracked balls in 256^3, 28 % domain; processor time a domain voxel): order 1 from centres 27 ns
(components 6, boxes 6, blocks 1, march 12); the start from the surface 20 more (180 a contact face, a third of it the
rims, nearly half the search for what is in sight); order 2 another 39 (lines 9, march 29); scikit-fmm 950 and 1700. The
march's floor, a pass over each block without waiting, is 0.6 ns; it takes 12 to 15 passes at 20 to 60 ns for 64 voxels,
and 5 visits of a block, each as dear as a pass, since what follows is decided there. Did not pay: layers of a block one
after the other instead of all at once (3 passes fewer, each 1.5 times as long), settling each block before the next (22
passes instead of 12), or at its first visit (order 2: 5 to 20 % slower), blocks sorted by arrival for order 2 (2 passes
fewer, as dear as the sorting), two blocks at once (a pass half as dear alone, but processors look that far ahead
themselves), walls as bits for lines (15 % slower: most lines are free), rows of boxes asked for before they are read,
fused multiply-add (1 %).

Not checked: shapes, types, C order, spacing > 0, speed > 0 inside the domain, fewer than 2^30 components, fewer than
2^32 voxels in the blocks of a component.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._compile import jit
from .cpu_boxes import EDGE, fill_box, mark_box, may_start, write_nothing, write_times
from .cpu_lines import find_lines, scaled_lengths
from .cpu_march import (
    STARTED,
    ZERO,
    begin_second,
    find_upwind,
    first_voxel,
    make_medium,
    settle,
    settle_second,
    store_block,
    unpack_blocks,
    wait_for_others,
)
from .cpu_start import start_box
from .cpu_steps import settle_steps

LARGE = 96**3  # voxels of a bounding box above which threads share the work on a component


@jit
def solve(before: int, boxes: Any, chosen: Any, lines: Any, task: Any, first: int, last: int) -> None:
    """Solve some of the components, one padded box after the other. Calls run beside one another in threads.

    before, boxes : of the components numbered from before + 1. chosen[first:last] : which of them.
    task : source, speed (empty if 1), h, interfaces, fit, band, order, max_time, scale (a power of 2: in blocks, times
    are multiplied by it), shape of the volume, runs, times; source, speed and times flat.
    """
    source, speed, h, interfaces, fit, band, order, max_time, scale, volume, runs, times = task
    most = 0
    for n in range(first, last):
        _, shape = window_of(boxes[chosen[n]])
        most = max(most, shape[0] * shape[1] * shape[2])
    box_room, kind_room, mark_room = np.empty(most, np.float32), np.empty(most, np.uint8), np.empty(most, np.uint8)
    slow_room = np.empty(most if speed.size else 1, np.float32)
    room = most // 64 + 1  # blocks are numbered from 1: number 0 is where there is none
    T, pace = in_lines(64 * room), np.ones(64 * room if speed.size else 64, np.float32)
    inside, grid, cells = np.zeros(room, np.uint64), np.zeros(room, np.int32), np.zeros(room, np.int32)
    queued, queue = np.zeros(room, np.uint8), np.empty(room + 1, np.int32)
    second = room if order == 2 else 1
    starts = in_lines(64 * second)
    T[:64] = starts[:64] = np.inf
    started, led_to, feeding = np.zeros(second, np.int32), np.zeros(second, np.uint32), np.zeros(second, np.uint64)
    upwind, free, kept = np.zeros(12 * second, np.uint64), np.zeros(second, np.uint64), np.zeros(second, np.uint64)
    first_lines, here = np.zeros(second + 1, np.int32), np.zeros(3, np.int64)
    lengths = scaled_lengths(lines[6], scale)
    medium = make_medium(pace, speed.size > 0, h, scale, order, max_time)
    for n in range(first, last):
        box_of_me, me = boxes[chosen[n]], before + chosen[n] + 1
        if not (interfaces or may_start(runs, source, volume, me, box_of_me)):
            write_nothing(times, runs, volume, me, box_of_me)
            continue
        low, shape = window_of(box_of_me)
        size = shape[0] * shape[1] * shape[2]
        box, kind, mark = box_room[:size], kind_room[:size], mark_room[:size]
        slow = slow_room[: size if speed.size else 1]
        held = grid[: size // 64]
        fill_box(runs, source, speed, volume, interfaces, me, low, shape, kind, slow, held)
        if not mark_box(shape, kind, box, mark):
            write_nothing(times, runs, volume, me, box_of_me)
            continue
        start_box(box, kind, mark, slow, shape, h, scale, fit, band, lines, EDGE)
        sides = shape // EDGE
        steps = np.array([sides[1] * sides[2], sides[2], 1])
        end = 1
        for cell in range(held.size):
            if held[cell]:
                store_block(box, first_voxel(cell, steps, shape), shape, slow, scale, end, T, pace, inside, queued)
                grid[cell], cells[end] = end, cell
                end += 1
        if order == 2:
            for v in range(64, 64 * end):
                starts[v] = T[v]
            for b in range(end):
                started[b] = b if queued[b] == STARTED else 0
                led_to[b], feeding[b] = 0, ZERO
        settle(T, inside, cells, grid, steps, 1, end, queued, queue, medium)
        if order == 2:
            unpack_blocks(T, inside, cells, steps, 1, end, scale, box, shape)
            find_upwind(T, starts, started, inside, cells, grid, steps, 1, end, medium, upwind, free, kept)
            window = (box, kind, slow, shape, here)
            drawn = find_lines(window, inside, free, cells, grid, steps, 1, end, h, lines, led_to, feeding, first_lines)
            begin_second(T, starts, started, inside, 1, end, medium[4], kept)
            wait_for_others(T, free, 1, end)
            for b in range(1, end):
                queued[b] = free[b] != ZERO
            ways = (first_lines, drawn, lines[8], lengths, led_to, feeding)
            settle_second(T, cells, grid, steps, 1, end, queued, queue, medium, upwind, free, ways)
            queued[1:end], kept[:end] = 1, ZERO
            settle_steps(T, inside, cells, grid, steps, 1, end, queued, queue, medium, upwind, free, kept)
        unpack_blocks(T, inside, cells, steps, 1, end, scale, box, shape)
        write_times(box, volume, low, shape, max_time, times)


@jit
def in_lines(n: int) -> Any:
    """Room for n numbers that begins with a line of the cache, so that no vector of 16 lies in two."""
    room = np.empty(n + 15, np.float32)
    skip = -(room.ctypes.data // 4) % 16
    return room[skip : skip + n]


@jit
def window_of(box: Any) -> tuple[Any, Any]:
    """The first voxel and the shape of a component's box: a rim of a block around it, sides of whole blocks."""
    low = box[0:6:2] - EDGE
    return low, (box[1:6:2] - low + 2 * EDGE - 1) // EDGE * EDGE
