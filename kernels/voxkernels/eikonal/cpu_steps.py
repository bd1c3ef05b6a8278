"""Travel time on the CPU: at the end of order 2, no step from a voxel to the next is too long.

Order 2 takes its voxels in the order of their order-1 arrival. Where a straight line, or the second difference, is much
shorter than the way that order 1 found, a voxel may come out earlier than a neighbour that was to be earlier: that one
had no say, and may be later by more than a step. No solution of |grad T| = 1 / speed is. So a voxel becomes at most a
step later than each neighbour, until that holds everywhere. What the times are then does not depend on the order of
work: they are the latest that are nowhere later than before, nor than a step allows.

Where the speed varies, a step takes as long as the slower voxel of both says. The second difference takes longer behind
a change from slow to fast, and is right to: it makes up for a step before, which was too short. So a voxel that order 2
has computed may be later than a neighbour by what it likes if that had a say, and neither has become earlier here.

Nearly always there is nothing to do but to look: of 1.2 million pairs in an electrode of 96^3 voxels 20 were too far
apart, by up to 2.5 steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._compile import jit
from .cpu_blocks import hurry
from .cpu_march import (
    FACE,
    NEAR,
    PASSES,
    SIXTY_FOUR,
    ZERO,
    ask_for,
    behind,
    from_beside,
    look_around,
    moved,
    stand_in_line,
)


@jit
def settle_steps(
    T: Any,
    inside: Any,
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
    hurried: Any,
) -> None:
    """Work off the queued blocks from `begin` to `end` - 1, and what follows from them.

    hurried : the words of voxels that have become earlier here, 0 before the first call.
    """
    pace, h = medium[0], medium[2]
    paced = np.uint64(medium[1])
    at, own_steps = np.zeros(7, np.uint64), np.zeros(6, np.uint64)
    place, last = 0, stand_in_line(queued, begin, end, queue)
    while place != last:
        b, place = int(queue[place]), behind(place, queue)
        queued[b] = 0
        look_around(b, cells, grid, steps, at)
        changed = fell = ZERO
        for _ in range(PASSES):
            if paced:
                find_own_steps(b, at, upwind, free, hurried, own_steps)
            fell = hurry(T, at, pace, at * paced, paced != ZERO, own_steps, h)
            if fell == ZERO:
                break
            changed |= fell
            if paced:
                hurried[b] |= fell
        if changed == ZERO:
            continue
        for direction in range(6):
            other = np.int64(at[1 + direction] // SIXTY_FOUR)
            wanted = moved(changed & FACE[direction], direction, NEAR) & inside[other] != ZERO
            last = ask_for(other, wanted, begin, end, queued, queue, last)
        last = ask_for(b, fell != ZERO, begin, end, queued, queue, last)


@jit
def find_own_steps(b: int, at: Any, upwind: Any, free: Any, hurried: Any, own_steps: Any) -> None:
    """Set the words of voxels that order 2 has computed with the neighbour in each direction, as both still are."""
    for direction in range(6):
        other = np.int64(at[1 + direction] // SIXTY_FOUR)
        word = upwind[12 * b + 4 * (direction // 2) + direction % 2] & free[b] & ~hurried[b]
        own_steps[direction] = word & ~from_beside(hurried[b], hurried[other], direction)
