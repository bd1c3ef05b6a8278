"""Travel time on the CPU: what a large component keeps of its starting times for order 2.

They lie one after the other, only those of voxels that have one, until it is known where order 2 begins with them
though order 1 has another time: at few voxels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._compile import jit
from .cpu_blocks import finite, lowest_bit
from .cpu_components import count_bits, with_room
from .cpu_march import ONE, ZERO


@jit
def count_starts(T: Any, queued: Any, begin: int, end: int, words: Any) -> int:
    """How many voxels of the blocks from `begin` to `end` - 1 have a starting time, and their words."""
    n = 0
    for b in range(begin, end):
        words[b] = finite(T, np.uint64(64 * b)) if queued[b] else ZERO
        n += count_bits(words[b])
    return n


@jit
def keep_starts(T: Any, words: Any, begin: int, end: int, starts: Any) -> None:
    """List the times of the voxels that `words` says, of the blocks from `begin` to `end` - 1."""
    n = 0
    for b in range(begin, end):
        left = words[b]
        while left != ZERO:
            starts[n] = T[np.uint64(64 * b) + lowest_bit(left)]
            left &= left - ONE
            n += 1


@jit
def unpack_starts(starts: Any, words: Any, begin: int, end: int, started: Any) -> Any:
    """The same times as blocks, inf elsewhere, `started` their numbers; 0 is a block of inf."""
    count = 0
    for b in range(begin, end):
        count += words[b] != ZERO
        started[b] = count if words[b] != ZERO else 0
    blocks = np.full(64 * (count + 1), np.inf, np.float32)
    n = 0
    for b in range(begin, end):
        left = words[b]
        while left != ZERO:
            blocks[np.uint64(64 * started[b]) + lowest_bit(left)] = starts[n]
            left &= left - ONE
            n += 1
    return blocks


@jit
def pass_on_starts(T: Any, starts: Any, started: Any, kept: Any, begin: int, end: int) -> Any:
    """Where order 2 begins with another time than order 1 has, and these times. `kept` becomes 0."""
    where, times, n = np.empty(0, np.uint32), np.empty(0, np.float32), 0
    for b in range(begin, end):
        left, own = kept[b], np.uint64(64 * started[b])
        where, times = with_room(where, n + 64), with_room(times, n + 64)
        while left != ZERO:
            lane = lowest_bit(left)
            left &= left - ONE
            where[n], times[n] = np.uint64(64 * b) + lane, starts[own + lane]
            n += T[np.uint64(64 * b) + lane] != times[n]
        kept[b] = ZERO
    return where[:n].copy(), times[:n].copy()


@jit
def begin_tile(T: Any, begin: int, end: int, limit: float, where: Any, times: Any) -> None:
    """Give some blocks the times that order 2 begins with: those of order 1 by `limit`, but some by others."""
    if limit < np.inf:
        for v in range(64 * begin, 64 * end):
            T[v] = T[v] if T[v] <= limit else np.float32(np.inf)
    for n in range(where.size):
        T[np.int64(where[n])] = times[n]
