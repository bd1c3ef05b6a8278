"""Grey values of a region: sums of deviations from its first value, of their squares, minimum and maximum.

Shifted data (Chan, Golub and LeVeque 1983), see `cpu.py`. A row is: first value, sum of deviations from it, sum of
their squares, minimum, maximum.
"""

import numpy as np

from .._compile import jit

ONE, TWO, THREE, FOUR = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)


@jit(inline=True)
def add_grey_run(grey, row, values, start, stop):
    """Add the grey values `values[start:stop]` to one row of `grey` (N, 5), which has had its first value."""
    first, low, high = grey[row, 0], grey[row, 3], grey[row, 4]
    total = 0.0
    squares = 0.0
    x, end = np.uint64(start), np.uint64(stop)  # unsigned: an index that may be negative costs more
    if stop - start >= 8:  # four sums side by side: one alone would wait for every addition
        total_1 = total_2 = total_3 = 0.0
        squares_1 = squares_2 = squares_3 = 0.0
        low_1 = low_2 = low_3 = low
        high_1 = high_2 = high_3 = high
        while x + FOUR <= end:
            value, value_1 = np.float64(values[x]), np.float64(values[x + ONE])
            value_2, value_3 = np.float64(values[x + TWO]), np.float64(values[x + THREE])
            total += value - first
            total_1 += value_1 - first
            total_2 += value_2 - first
            total_3 += value_3 - first
            squares += (value - first) * (value - first)
            squares_1 += (value_1 - first) * (value_1 - first)
            squares_2 += (value_2 - first) * (value_2 - first)
            squares_3 += (value_3 - first) * (value_3 - first)
            low = value if value < low else low
            low_1 = value_1 if value_1 < low_1 else low_1
            low_2 = value_2 if value_2 < low_2 else low_2
            low_3 = value_3 if value_3 < low_3 else low_3
            high = value if value > high else high
            high_1 = value_1 if value_1 > high_1 else high_1
            high_2 = value_2 if value_2 > high_2 else high_2
            high_3 = value_3 if value_3 > high_3 else high_3
            x += FOUR
        total = (total + total_1) + (total_2 + total_3)
        squares = (squares + squares_1) + (squares_2 + squares_3)
        low = min(min(low, low_1), min(low_2, low_3))
        high = max(max(high, high_1), max(high_2, high_3))
    while x < end:
        value = np.float64(values[x])
        total += value - first
        squares += (value - first) * (value - first)
        low = value if value < low else low
        high = value if value > high else high
        x += ONE
    grey[row, 1] += total
    grey[row, 2] += squares
    if low < grey[row, 3]:
        grey[row, 3] = low
    if high > grey[row, 4]:
        grey[row, 4] = high


@jit
def merge_grey(grey, other, count):
    """Add the sums of `count` values, `other` (5,), to one label's `grey`."""
    offset = other[0] - grey[0]
    grey[1] += other[1] + count * offset
    grey[2] += other[2] + 2.0 * offset * other[1] + count * offset * offset
    grey[3] = min(grey[3], other[3])
    grey[4] = max(grey[4], other[4])
