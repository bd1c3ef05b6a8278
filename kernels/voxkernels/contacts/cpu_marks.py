"""What `cpu_faces` marks in words before it counts a row, and what it adds to the table many at a time.

Marked are the void (label 0), faces between two labels, and classes near the ends of the volume, where vectors would
read beyond it. Added are the sums of a label, faces towards classes from AT_ONCE on, and faces between two labels.
Not checked here: as `cpu`.
"""

import numpy as np

from .._compile import jit
from .cpu_table import COUNTS, FACTOR, MOUTH, OTHER_FACTOR, first_slot, slot_of
from .cpu_words import (
    above_bits,
    any_negative,
    equal_bits,
    equal_word,
    lowest_bit,
    store_six,
    unequal_bits,
    unequal_word,
)

AT_ONCE = 4  # phase values below this are counted a word at a time
SUMS = 8 * (AT_ONCE + 1)  # numbers for a label: for each class, and for mouths, one for each direction, and two of 0
ALL, NONE, ONE = np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(0), np.uint64(1)


@jit
def empty_lines(n):
    """n words that begin with a line of the cache: vectors across two cost 5 % of all time."""
    words = np.empty(n + 8, np.uint64)
    first = -(words.ctypes.data // 8) % 8
    return words[first : first + n]


@jit
def zero_lines(n):
    """As `empty_lines`, words of 0."""
    words = empty_lines(n)
    words[:] = 0
    return words


@jit
def highest(classes, first, n, top):
    """The highest of `top` and n classes."""
    for k in range(first, first + n):
        top = max(top, np.int64(classes[k]))
    return top


@jit
def mark_void(flat, classes, begin, n_rows, n_x, span, top, voids, place):
    """Write where the labels of the rows from voxel `begin` are 0 into voids[place:], words + 2 for each row.

    Returns the highest of `top` and the rows' classes; -1 if a label is negative.
    """
    negative, n_words = False, (n_x + span - 1) // span
    for y in range(n_rows):
        for w in range(n_words):
            at, n = begin + y * n_x + w * span, min(span, n_x - w * span)
            kept = ALL >> np.uint64(64 - n)
            if at + 64 <= flat.size:
                void = equal_bits(flat, np.uint64(at), flat.dtype.type(0))
                negative |= any_negative(flat, np.uint64(at))
                if kept & above_bits(classes, np.uint64(at), classes.dtype.type(top)) != 0:
                    top = highest(classes, at, n, top)
            else:
                void = equal_word(flat, at, flat.dtype.type(0))
                for k in range(at, at + n):
                    negative |= flat[k] < 0
                top = highest(classes, at, n, top)
            voids[place + np.uint64(y * (n_words + 2) + w)] = void & kept
    return -1 if negative else top


@jit
def mark_pairs(flat, begin, plane, n_x, span, pairs):
    """Write where the rows from voxel `begin` and those a plane before have two labels into pairs, row after row."""
    zero, n_words = flat.dtype.type(0), (n_x + span - 1) // span
    for i in range(pairs.size):
        first = i % n_words * span
        k = begin + i // n_words * n_x + first
        kept = ALL >> np.uint64(64 - min(span, n_x - first))
        if k + 64 <= flat.size:
            a, b = np.uint64(k - plane), np.uint64(k)
            two = unequal_bits(flat, a, b) & ~equal_bits(flat, a, zero) & ~equal_bits(flat, b, zero)
        else:
            two = unequal_word(flat, k - plane, k) & ~equal_word(flat, k - plane, zero) & ~equal_word(flat, k, zero)
        pairs[i] = two & kept


@jit
def mark_last_class(classes, at, steps, phase, of_class, place):
    """Write where six neighbours of the voxels from `at` have a class into of_class[place:]: near the volume's ends."""
    store_six(
        of_class,
        place,
        equal_word(classes, at + steps[0], phase),
        equal_word(classes, at + steps[1], phase),
        equal_word(classes, at + steps[2], phase),
        equal_word(classes, at + steps[3], phase),
        equal_word(classes, at + steps[4], phase),
        equal_word(classes, at + steps[5], phase),
    )


@jit
def flush(sums, kept_at, label, table, used):
    """Add the sums of one label, number `kept_at` of those kept, to the table; False if it is too small.

    Its SUMS words, those of its mouth last, are 0 then; label 0 has none to add.
    """
    place = np.int64(kept_at) * SUMS
    for row in range(AT_ONCE + 1):
        for axis in range(3):
            n = np.int64(0)
            for d in (2 * axis, 2 * axis + 1):
                n += np.int64(sums[place + 8 * row + d])
                if row == 0:  # has the other classes in it
                    for other in range(1, AT_ONCE):
                        n -= np.int64(sums[place + 8 * other + d])
            if n > 0 and label > 0:
                slot = slot_of(table, used, label, np.int64(-1 - (row if row < AT_ONCE else MOUTH)))
                if slot < 0:
                    return False
                table[slot, COUNTS + axis] += n
    sums[place : place + SUMS] = 0
    return True


@jit
def count_rest(flat, classes, at, steps, faces, table, used):
    """Count the faces of a word towards classes from AT_ONCE on, one by one, and take them out; False as `flush`."""
    for d in range(6):
        bits = faces[d]
        while bits != 0:
            v = at + lowest_bit(bits)
            bits &= bits - ONE
            phase = np.int64(classes[v + steps[d]])
            if phase >= AT_ONCE:
                slot = slot_of(table, used, np.int64(flat[v]), -1 - phase)
                if slot < 0:
                    return False
                table[slot, COUNTS + d // 2] += 1
                faces[d] ^= ONE << np.uint64(v - at)
    return True


@jit
def flush_pair(kept, line, table, used):
    """Add what one line of `kept` (see `add_pairs`) holds to the table; False if the table is too small."""
    if kept[line] != 0:
        slot = slot_of(table, used, kept[line], kept[line + 1])
        if slot < 0:
            return False
        for axis in range(3):
            table[slot, COUNTS + axis] += kept[line + 2 + axis]
            kept[line + 2 + axis] = 0
    return True


@jit
def add_pairs(flat, steps, words, places, n, kept, alone, table, used):
    """Count n words of faces between two labels.

    words, places : (N + 2,), where there is a face; 8 times the word's first voxel, plus the direction. A face towards
                    a higher voxel adds 1; one towards a lower voxel shows that the pair is there.
    kept          : (8 * K,) int64, on a border of 64 bytes, K a power of two: the pairs met last, each with its counts
                    along the axes, until another one takes its line. The table itself may be larger than the L2.
    alone         : whether they go to the table past `kept`

    Returns -1 if the table is too small, 1 if most pairs were not found in `kept`, else 0.
    """
    mask = np.uint64(kept.size - 8)
    i, bits, following = NONE, words[0], words[1]
    seen = new = 0
    while i < n:
        place = places[i]
        k, d = np.uint64((place >> 3) + lowest_bit(bits)), np.uint64(place & 7)
        bits &= bits - ONE
        i += np.uint64(bits == 0)
        bits = bits if bits != 0 else following
        following = words[i + ONE]
        one, two = np.int64(flat[k]), np.int64(flat[k + np.uint64(steps[d])])
        low, high = min(one, two), max(one, two)
        if alone:
            slot = first_slot(table, low, high)
            if (table[slot, 0] != low) | (table[slot, 1] != high):
                found = slot_of(table, used, low, high)
                if found < 0:
                    return -1
                slot = np.uint64(found)
            table[slot, COUNTS + (d >> ONE)] += np.int64(d & ONE)
            continue
        seen += 1
        line = (np.uint64(low) * FACTOR + np.uint64(high) * OTHER_FACTOR) >> np.uint64(32) & mask
        if (kept[line] != low) | (kept[line + ONE] != high):
            if not flush_pair(kept, line, table, used):
                return -1
            kept[line], kept[line + ONE] = low, high
            new += 1
        kept[line + np.uint64(2) + (d >> ONE)] += np.int64(d & ONE)
    return 1 if 2 * new > seen else 0


@jit
def flush_pairs(kept, table, used):
    """Add all that `kept` holds to the table; False if it is too small."""
    for line in range(0, kept.size, 8):
        if not flush_pair(kept, line, table, used):
            return False
        kept[line] = 0
    return True
