"""Travel time on the CPU: |grad T| = 1 / speed inside a masked or labelled volume, one connected piece after the other.

The domain is split into 6-connected components of equal label. No front passes between them, so each is copied into a
padded box of its own, small enough for the cache, and solved there; threads that are idle take the next, the largest
first. In a box:

1. Start. A plane is fitted to the contact faces around each contact face (least squares on their heights, as in the
   height-function method for free surfaces) and cut off where the source ends. Every voxel close by gets the distance
   to the nearest such patch that a straight line reaches, or to the centre of a source inside.
2. Order 1. The upwind differences of Rouy & Tourin (1992), solved by correcting labels in a two-level bucket queue
   (Dial 1969, Kim 2001): entries below a threshold are worked off until none is left, then the threshold moves on. They
   are worked off in rounds: list the neighbours whose time may fall, collect what lies around them, solve the equation
   for all at once without a branch (eight wide where the processor can), then write. It ends when nothing changes any
   more, at the fixed point that fast marching (Sethian 1996) finds.
3. Order 2. When a bucket is final, its voxels are taken in the order of their order-1 arrival, sorted by counting into
   parts narrower than a thousandth of a step. The stencil uses only neighbours that arrive earlier by such a part, with
   second differences where two arrive one after the other (Sethian 1999), so that neither the order of work nor a tie
   changes the answer. A voxel at a wall also tries the straight lines from voxels in
   sight that are shorter than what order 1 found: the neighbour that it needs may be wall, and a corner is a new point
   source.

Cost: O(N), 2.3 solutions of the equation a voxel. Memory beside input and output: 6 bytes for each voxel of the boxes
in work, one a thread (4 more with a speed array; 4 more for order 2, unless the box nearly fills the volume), and about
100 bytes for each voxel of the front.

Reached on one thread (Zen 5, cracked balls in 160^3, 20 % domain; processor time a domain voxel): order 1 from
centres 92 ns, order 2 with the sub-voxel start 268 ns (scikit-fmm order 1: 800 to 900, order 2: 1050 to 1300). Of
these: components 20, box 10, march of order 1 49, order 2 on top 50 to 75, start from centres 12, sub-voxel start 105
(0.14 contact faces a domain voxel). Floor of the march, by its parts alone in cache with a trained branch predictor:
listing 7, collecting 3, solving 2.4, writing 9, together 22 ns. Did not pay: wider buckets (0.8 and 1.2 steps: 3 to 5
% slower), components run by run with inner loops (50 % slower). Not done: one component is one thread's work.

Not checked: shapes, types, C order, spacing > 0, speed > 0 inside the domain, fewer than 2^30 components, fewer than
2^32 voxels in a box.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._compile import jit
from .cpu_boxes import PAD, fill_box, mark_box, write_times
from .cpu_march import march
from .cpu_start import start_box

BUCKET = 0.5  # width of a bucket, in the shortest steps
SMALL = 1 << 24  # bytes that may be spent where the volume is small


@jit
def solve(boxes: Any, largest_first: Any, lines: Any, task: Any, begin: int, end: int) -> None:
    """Solve some of the components, one padded box after the other. Calls run beside one another in threads.

    task: source, speed (empty if 1), h, interfaces, fit, band, order, max_time, width of a bucket, shape of the
    volume, times and their bits; source, speed and times flat.
    """
    source, speed, h, interfaces, fit, band, order, max_time, width, volume, times, ids = task
    room = 0
    for n in range(begin, end):
        b = boxes[largest_first[n]]
        room = max(room, (b[1] - b[0] + 2 * PAD) * (b[3] - b[2] + 2 * PAD) * (b[5] - b[4] + 2 * PAD))
    limit = 1.75 * max_time if order == 2 else max_time  # order 1 is at most sqrt(3) times order 2, step by step
    roomy = 10 * room <= 8 * times.size + SMALL
    T_room, kind_room, mark_room = np.empty(room, np.float32), np.empty(room, np.uint8), np.empty(room, np.uint8)
    pace_room = np.empty(room if speed.size else 1, np.float32)
    own_room = np.empty(room if order == 2 and roomy else 1, np.float32)
    for n in range(begin, end):
        c = largest_first[n]
        low = boxes[c, 0:6:2] - PAD
        shape = boxes[c, 1:6:2] + PAD - low
        size = shape[0] * shape[1] * shape[2]
        T, kind, mark, pace = T_room[:size], kind_room[:size], mark_room[:size], pace_room[: size if speed.size else 1]
        fill_box(ids, source, speed, volume, interfaces, c + 1, low, shape, T, pace)
        if not mark_box(shape, T, kind, mark):
            write_times(T, volume, low, shape, np.inf, times)
            continue
        start_box(T, mark, pace, shape, h, fit, band, lines)
        if order == 1:
            march(T, kind, mark, pace, shape, low, h, 1, limit, max_time, width, lines, times, volume)
            write_times(T, volume, low, shape, max_time, times)
        elif roomy:
            own = own_room[:size]
            own[:] = T
            strides = np.array([shape[1] * shape[2], shape[2]])
            march(T, kind, mark, pace, shape, 0 * low, h, 2, limit, max_time, width, lines, own, strides)
            write_times(own, volume, low, shape, max_time, times)
        else:
            write_times(T, volume, low, shape, limit, times)
            strides = np.array([volume[1] * volume[2], volume[2]])
            march(T, kind, mark, pace, shape, low, h, 2, limit, max_time, width, lines, times, strides)
