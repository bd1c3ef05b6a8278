"""What a chunk sums, one row for each label, in one piece of memory: one array is made and handed over, not six."""

import numpy as np

from .._compile import jit
from .cpu_words import N_GREY, N_PART

N_SUMS = 10  # count; z, y, x; zz, zy, zx, yy, yx, xx
N_BOX = 6  # z0, y0, x0, z1, y1, x1 (half-open)
N_SLICE = N_PART + 3  # of the slice in hand, with y0, y1 and its place in the list
N_ROW = N_SLICE + N_SUMS + N_BOX + N_GREY
LINE = 8  # numbers of a line of the cache


@jit
def tables_of(memory):
    """The tables of a chunk in its part of the memory, (N_ROW * N + LINE,) int64 for N rows.

    They are part (N, 8), sums (N, 10), box (N, 6), plane (N, 2), touched (N,), all int64, and grey (N, 5) float64. They
    begin with a line of the cache: the part is there for vectors of eight.
    """
    n_rows = (memory.size - LINE) // N_ROW
    memory = memory[-(memory.ctypes.data // 8) % LINE :]
    a = N_PART * n_rows
    b = a + N_SUMS * n_rows
    c = b + N_BOX * n_rows
    d = c + 2 * n_rows
    e = d + n_rows
    return (
        memory[:a].reshape((n_rows, N_PART)),
        memory[a:b].reshape((n_rows, N_SUMS)),
        memory[b:c].reshape((n_rows, N_BOX)),
        memory[c:d].reshape((n_rows, 2)),
        memory[d:e],
        memory[e : e + N_GREY * n_rows].view(np.float64).reshape((n_rows, N_GREY)),
    )
