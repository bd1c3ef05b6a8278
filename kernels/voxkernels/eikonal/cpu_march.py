"""Travel time on the CPU: the difference equation solved on the blocks of one component, by active lists.

A component is a list of blocks, and a `grid` of cells that says which block is where (0: none, no domain there). Each
is queued when a voxel beside it has become earlier than it allows for; it gets a few passes, and goes to the end of the
queue if it has not settled by then, so that what arrives early is worked off early (Jeong & Whitaker 2008). It ends
when nothing changes any more.

Blocks are numbered tile by tile (16 x 16 x 16 cells). A tile settles alone; what concerns another tile's block is left
there as its flag in `queued`. So tiles that do not touch can settle in different threads, and in what order they do is
the same for any number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._compile import jit
from .cpu_blocks import (
    arrived,
    begin_again,
    first_arrival,
    follow,
    lowest_bit,
    overtakes,
    pack,
    relax,
    unpack,
    upwind_of,
    wait,
)
from .cpu_boxes import EDGE

PASSES, PASSES_SECOND = 3, 2  # over a block, before it goes to the end of the queue, by order
QUEUED, STARTED = np.uint8(1), np.uint8(2)  # flags of a block in the queue: anew; for the first time
TIMES = 256  # steps of time by which blocks are sorted
LATE = np.float32(TIMES)  # what arrives later waits in order 2 for what it depends on, instead of following it down
KEEP = 0.07  # straight-line times stay unless order 1 finds a way that is shorter by this part of a step

ZERO, ONE, ALL = np.uint64(0), np.uint64(1), np.uint64(0xFFFFFFFFFFFFFFFF)
SIXTY_FOUR, TWELVE = np.uint64(64), np.uint64(12)
LINES = np.uint64(128)  # places for the lines to one voxel, see `line_lanes`

# Towards -z, +z, -y, +y, -x, +x: the voxels at that face, one deep and two deep; how far their bits move to the voxels
# of the block beyond that have them as neighbour, one and two steps off
FACE = np.array(
    [0xFFFF, 0xFFFF << 48, 0x000F000F000F000F, 0xF000F000F000F000, 0x1111111111111111, 0x8888888888888888], np.uint64
)
FACES = np.array(
    [0xFFFFFFFF, 0xFFFFFFFF << 32, 0x00FF00FF00FF00FF, 0xFF00FF00FF00FF00, 0x3333333333333333, 0xCCCCCCCCCCCCCCCC],
    np.uint64,
)
NEAR, FAR = np.array([48, 12, 3], np.uint64), np.array([32, 8, 2], np.uint64)
STEP = np.array([16, 4, 1], np.uint64)  # how far bits move to those of the neighbours in the block
# The voxels at most two from each of the 27 blocks around one, itself among them: a row of x after the other
CLOSE = np.array(
    [z & y & x for z in (FACES[0], ALL, FACES[1]) for y in (FACES[2], ALL, FACES[3]) for x in (FACES[4], ALL, FACES[5])]
)


@jit
def moved(word: Any, direction: int, by: Any) -> Any:
    """The bits of voxels at a face, as those of the block beyond it."""
    return word >> by[direction // 2] if direction % 2 else word << by[direction // 2]


@jit
def from_beside(own: Any, other: Any, direction: int) -> Any:
    """The voxels whose neighbour in a direction has a bit, in the word of their block or of the other one there."""
    by = STEP[direction // 2]
    in_block = (own >> by if direction % 2 else own << by) & ~FACE[direction]
    return in_block | moved(other & FACE[direction ^ 1], direction ^ 1, NEAR)


@jit
def beside(cell: int, direction: int, steps: Any) -> Any:
    """The next cell in a direction; steps (3,): index steps of the grid along z, y, x."""
    return cell + steps[direction // 2] if direction % 2 else cell - steps[direction // 2]


@jit
def look_around(b: int, cells: Any, grid: Any, steps: Any, at: Any) -> None:
    """Set `at`, the offsets of a block and of the six beside it."""
    cell = np.int64(cells[b])
    at[0] = np.uint64(b) * SIXTY_FOUR
    for direction in range(6):
        at[1 + direction] = np.uint64(grid[beside(cell, direction, steps)]) * SIXTY_FOUR


@jit
def make_medium(pace: Any, paced: bool, h: Any, scale: float, order: int, max_time: float) -> Any:
    """The medium for `settle`: slownesses, whether of each block, spacing, whether it is even, latest time."""
    limit = 1.75 * max_time if order == 2 else max_time  # order 1 is at most sqrt(3) times order 2, step by step
    even = bool(h[0] == h[1] and h[1] == h[2])
    return pace, np.uint64(1 if paced else 0), (h * scale).astype(np.float32), even, np.float32(limit * scale)


@jit
def first_voxel(cell: int, steps: Any, shape: Any) -> Any:
    """Where the first voxel of a cell is in the box of its grid."""
    i, j, k = cell // steps[0], cell % steps[0] // steps[1], cell % steps[1]
    return np.int64(EDGE * ((i * shape[1] + j) * shape[2] + k))


@jit
def store_block(
    box: Any, v: int, shape: Any, slow: Any, scale: float, b: int, T: Any, pace: Any, inside: Any, queued: Any
) -> Any:
    """Copy a block out of a box with starting times, and queue it if it has any. Returns its voxels inside."""
    at, sz, sy = np.uint64(v), np.uint64(shape[1] * shape[2]), np.uint64(shape[2])
    inside[b], known = pack(box, at, sz, sy, np.float32(scale), T, np.uint64(64 * b))
    queued[b] = STARTED if known != ZERO else 0
    if slow.size > 1:
        pack(slow, at, sz, sy, np.float32(1.0), pace, np.uint64(64 * b))
        for lane in range(64 * b, 64 * b + 64):
            pace[lane] = np.float32(1.0) / pace[lane]
    return inside[b]


@jit
def unpack_blocks(
    T: Any, inside: Any, cells: Any, steps: Any, begin: int, end: int, scale: float, box: Any, shape: Any
) -> None:
    """Copy some blocks into the box of their grid."""
    back, sz, sy = np.float32(1.0 / scale), np.uint64(shape[1] * shape[2]), np.uint64(shape[2])
    for b in range(begin, end):
        v = np.uint64(first_voxel(np.int64(cells[b]), steps, shape))
        unpack(T, np.uint64(64 * b), inside[b], back, box, v, sz, sy)


@jit
def stand_in_line(queued: Any, begin: int, end: int, queue: Any) -> int:
    """Put the queued blocks from `begin` to `end` - 1 into a ring. Returns the place behind the last."""
    last = 0
    for b in range(begin, end):
        queue[last] = b
        last += queued[b] != 0
    return last


@jit
def stand_by_arrival(T: Any, free: Any, queued: Any, begin: int, end: int, queue: Any) -> int:
    """The same, the earliest first: blocks of one step of time as they come."""
    first = np.zeros(TIMES + 1, np.int64)
    for b in range(begin, end):
        if queued[b]:
            first[step_of_time(T, b, free[b]) + 1] += 1
    for n in range(TIMES):
        first[n + 1] += first[n]
    for b in range(begin, end):
        if queued[b]:
            n = step_of_time(T, b, free[b])
            queue[first[n]] = b
            first[n] += 1
    return int(first[TIMES])


@jit
def step_of_time(T: Any, b: int, voxels: Any) -> int:
    """In which step of time the first of some voxels of a block arrives."""
    return int(min(first_arrival(T, np.uint64(64 * b), voxels), np.float32(TIMES - 1)))


@jit(inline=True)
def behind(place: int, queue: Any) -> int:
    """The next place of a ring, which has one more than there are blocks: a line whose ends meet is empty."""
    return place + 1 if place + 1 < queue.size else 0


@jit(inline=True)
def ask_for(b: int, wanted: bool, begin: int, end: int, queued: Any, queue: Any, last: int) -> int:
    """Queue a block if it is wanted, unless it is, and put it into the line if it is of this tile: without a branch."""
    flag = queued[b]
    queued[b] = flag | np.uint8(wanted)
    queue[last] = b
    joins = wanted & (flag == 0) & (begin <= b) & (b < end)
    return behind(last, queue) if joins else last


@jit
def settle(
    T: Any, inside: Any, cells: Any, grid: Any, steps: Any, begin: int, end: int, queued: Any, queue: Any, medium: Any
) -> None:
    """Order 1: work off the queued blocks from `begin` to `end` - 1, and what follows from them.

    medium: slownesses, 64 a block or 64 for all; 0 or 1, which; spacing; whether it is even; latest time.
    """
    pace, paced, h, even, limit = medium
    at = np.zeros(7, np.uint64)
    place, last = 0, stand_in_line(queued, begin, end, queue)
    while place != last:
        b, place = int(queue[place]), behind(place, queue)
        changed = ALL if queued[b] & STARTED else ZERO
        queued[b] = 0
        look_around(b, cells, grid, steps, at)
        fell = ZERO
        for _ in range(PASSES):
            fell = relax(T, at, inside[b], pace, at[0] * paced, h, even)
            changed |= fell
            if fell == ZERO:
                break
        changed &= inside[b]
        if changed != ZERO and not (limit < np.inf and first_arrival(T, np.uint64(64 * b), changed) > limit):
            ahead = overtakes(T, at)
            for direction in range(6):
                word = changed & FACE[direction] & ahead[direction]
                other = np.int64(at[1 + direction] // SIXTY_FOUR)
                wanted = moved(word, direction, NEAR) & inside[other] != ZERO
                last = ask_for(other, wanted, begin, end, queued, queue, last)
        last = ask_for(b, fell != ZERO, begin, end, queued, queue, last)


@jit
def find_upwind(
    T: Any,
    starts: Any,
    started: Any,
    inside: Any,
    cells: Any,
    grid: Any,
    steps: Any,
    begin: int,
    end: int,
    medium: Any,
    upwind: Any,
    free: Any,
    kept: Any,
) -> None:
    """What order 2 takes from order 1, for some blocks: which neighbours are upwind, which voxels to compute.

    starts : starting times by blocks; started : which is a block's, 0 (inf) if it has none.
    """
    pace, paced, h, _, limit = medium
    at = np.zeros(7, np.uint64)
    keep = np.float32(KEEP * min(h[0], h[1], h[2]))
    for b in range(begin, end):
        if inside[b] == ZERO:
            continue
        look_around(b, cells, grid, steps, at)
        words = upwind_of(T, at, pace, at[0] * paced, h)
        has = ZERO
        for n in range(12):
            upwind[12 * b + n] = words[n]
            has |= words[n] if n % 4 < 2 else ZERO
        own = SIXTY_FOUR * np.uint64(started[b])
        known, stay = arrived(T, at[0], starts, own, pace, at[0] * paced, keep, limit)
        kept[b] = stay & known
        free[b] = inside[b] & known & has & ~stay  # the others keep their time: rounding hides who is earlier


@jit
def begin_second(T: Any, starts: Any, started: Any, inside: Any, begin: int, end: int, limit: float, kept: Any) -> None:
    """Give some blocks the times that order 2 begins with: straight lines where they are kept, else order 1."""
    for b in range(begin, end):
        if inside[b] != ZERO and (kept[b] != ZERO or limit < np.inf):
            begin_again(T, np.uint64(64 * b), starts, np.uint64(64 * started[b]), kept[b], limit)


@jit
def wait_for_others(T: Any, free: Any, begin: int, end: int) -> None:
    """Let what arrives late in some blocks begin with inf.

    Times of order 1 are a good beginning for what is near. Along a way of many blocks they would be worked out anew
    each time that one before has changed: a time that grows with the square of its length.
    """
    for b in range(begin, end):
        if free[b] != ZERO:
            wait(T, np.uint64(64 * b), free[b], LATE)


@jit
def settle_second(
    T: Any,
    cells: Any,
    grid: Any,
    steps: Any,
    begin: int,
    end: int,
    queued: Any,
    queue: Any,
    medium: Any,
    upwind: Any,
    free: Any,
    lines: Any,
) -> None:
    """Order 2: work off the queued blocks from `begin` to `end` - 1, and what follows from them.

    lines: where the lines of each block of the tile begin (counted from `begin`) in the list, the list, where each of
    them may end, how long each is (all as in `find_lines`, lengths as times of blocks); the blocks around to which
    lines from a block lead; the words of voxels where lines begin.
    """
    pace, paced, h, _, _ = medium
    first, line, far_end, length, led_to, feeding = lines
    at, cap = np.zeros(7, np.uint64), np.full(64, np.inf, np.float32)  # the times that the lines to a block allow
    around, blocks_around = np.zeros(27, np.int64), np.zeros(27, np.uint64)  # cells, where their blocks are in T
    for n in range(27):
        around[n] = (n // 9 - 1) * steps[0] + (n // 3 % 3 - 1) * steps[1] + (n % 3 - 1) * steps[2]
    place, last = 0, stand_by_arrival(T, free, queued, begin, end, queue)
    while place != last:
        b, place = int(queue[place]), behind(place, queue)
        queued[b] = 0
        look_around(b, cells, grid, steps, at)
        first_line, last_line = first[b - begin], first[b - begin + 1]
        changed, new, drawn = ZERO, ZERO, first_line == last_line
        if not drawn:
            for n in range(27):
                blocks_around[n] = SIXTY_FOUR * np.uint64(grid[cells[b] + around[n]])
        for _ in range(PASSES_SECOND):
            if not drawn:
                draw(T, line, first_line, last_line, blocks_around, far_end, length, pace, at[0] * paced, cap)
            new = follow(T, at, free[b], upwind, TWELVE * np.uint64(b), pace, at[0] * paced, cap, h)
            changed |= new
            if new == ZERO:
                break
            drawn = first_line == last_line or new & feeding[b] == ZERO
        if first_line < last_line:
            cap[:] = np.inf
        if changed == ZERO:
            continue
        for direction in range(6):
            other = np.int64(at[1 + direction] // SIXTY_FOUR)
            side = 12 * other + 4 * (direction // 2) + 1 - direction % 2  # it looks back
            next_to = moved(changed & FACE[direction], direction, NEAR) & upwind[side]
            next_but_one = moved(changed & FACES[direction], direction, FAR) & upwind[side] & upwind[side + 2]
            wanted = (next_to | next_but_one) & free[other] != ZERO
            last = ask_for(other, wanted, begin, end, queued, queue, last)
        begun = changed & feeding[b]
        blocks = np.uint64(led_to[b]) if begun != ZERO else ZERO
        while blocks != ZERO:
            bit = int(lowest_bit(blocks))
            blocks &= blocks - ONE
            other = np.int64(grid[cells[b] + around[bit]])
            last = ask_for(other, begun & CLOSE[bit] != ZERO, begin, end, queued, queue, last)
        last = ask_for(b, new != ZERO, begin, end, queued, queue, last)


@jit(inline=True)
def draw(
    T: Any, line: Any, first: int, last: int, around: Any, far_end: Any, length: Any, pace: Any, p: Any, cap: Any
) -> None:
    """The earliest times by the lines to a block, those to one voxel one after the other.

    around : where the 27 blocks around it are; p : where its paces are.
    """
    before, earliest, late = ALL, np.float32(np.inf), np.float32(np.inf)
    for e in range(np.uint64(first), np.uint64(last)):
        which = np.uint64(line[e])
        here, there = which // LINES, np.uint64(far_end[which])
        t = T[around[there // SIXTY_FOUR] + there % SIXTY_FOUR] + length[which % LINES] * pace[p + here]
        rest = earliest if here == before else late
        earliest = t if t < rest else rest
        before = here
        cap[here] = earliest
