"""Travel time on the CPU: contact faces by lots of LANES, and rows of bytes as words.

What is known of the faces of a lot lies in rows of LANES numbers, one row for each quantity, so that arithmetic is in
vector instructions. Around a face, rows of eight bytes are words, and sums over them products of words: the top byte of
such a product is the sum of the bytes, each times a weight.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._compile import jit

LANES = 64  # faces of a lot
MIDDLE = 6  # among the faces of a voxel: a source inside, of which no surface is made

# The rows: spacing along the face's axis and the two others, the side (-1, 1), the height and the slopes of the plane
# through the surface, the rim (nan: none). Then those of its disc: centre, normal, direction ahead (0: whole), end.
UP_H, ONE_H, TWO_H, SIDE, HEIGHT, SLOPE_1, SLOPE_2, RIM, RIM_1, RIM_2, RIM_END, RIM_SUM = (n * LANES for n in range(12))
KNOWN = 12 * LANES
CENTRE, CENTRE_1, CENTRE_2, NORMAL, NORMAL_1, NORMAL_2 = (n * LANES for n in range(6))
AHEAD, AHEAD_1, AHEAD_2, END, RADIUS = (n * LANES for n in range(6, 11))
DISCS = 11 * LANES

ZERO, ONE, TWO, EIGHT, TOP = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(8), np.uint64(56)


def weights(*numbers: int) -> Any:
    """Weights of the bytes of a word, first byte first, as the factor that brings their sum to the top byte."""
    return np.uint64(sum(number << (56 - 8 * k) for k, number in enumerate(numbers)))


ONES = weights(1, 1, 1, 1, 1, 1, 1, 1)


@jit
def row_of(bytes_: Any, at: int) -> Any:
    """Eight bytes in a row as one word, the first in its lowest byte. It compiles to one load."""
    word = np.uint64(0)
    for k in range(8):
        word |= np.uint64(bytes_[np.uint64(at + k)]) << np.uint64(8 * k)
    return word


@jit
def dot(bytes_: Any, factor: Any) -> Any:
    """Sum of the bytes of a word, each times its weight; below 256."""
    return np.int64(bytes_ * factor >> TOP)


@jit
def steps_of(axis: int, sz: int, sy: int) -> tuple[int, int, int]:
    """Index steps along an axis and along the two others."""
    return (sz, sy, 1) if axis == 0 else (sy, sz, 1) if axis == 1 else (1, sz, sy)
