"""Faces of voxels, a word of a row at a time: the work of `cpu` for the estimators "faces" and "weighted".

A face belongs to the labelled voxel that has it. Directions are in the order of DIRECTIONS here: down, up (z), back,
front (y), left, right (x). Slice by slice the void (label 0) is marked in words, kept for three slices; so the faces of
a word of voxels towards void are six words, by shifts and by the words beside, above and below. The voxels of one
label follow one another in runs, which end where a voxel differs from the next.

Numba counts references to arrays where it calls a function or inlines one, which costs as much as a face: what is done
for each face stands in one function or is an intrinsic.
"""

import numpy as np

from .._compile import jit
from .cpu_marks import (
    ALL,
    AT_ONCE,
    NONE,
    ONE,
    SUMS,
    add_pairs,
    count_rest,
    empty_lines,
    flush,
    flush_pairs,
    highest,
    mark_last_class,
    mark_pairs,
    mark_void,
    zero_lines,
)
from .cpu_table import COUNTS, MOUTH, count_end, first_slot, slot_of
from .cpu_weights import SIDE, SPAN, add_weights, list_last_masks, list_rows, sum_window
from .cpu_words import (
    above_bits,
    add_counts,
    any_negative,
    count_bits,
    equal_bits,
    equal_word,
    in_place,
    list_bits,
    list_equal_bits,
    list_near_bits,
    list_next_bits,
    lowest_bit,
    prefetch,
    store_six,
    unequal_bits,
    unequal_word,
)

AHEAD = 1024  # how many voxels ahead memory is asked for: further than the hardware does here
LABELS = 512  # whose sums are kept outside the table at a time, by the last bits of the label
PAIRS = 256  # words of faces between two labels that are listed before they are counted
KEPT = 1024  # pairs of labels that are counted outside the table at a time, at most
ALONE = 64  # lists of pairs that are counted in the table at once after one in which most pairs were new
BATCH = 256  # faces whose weights are computed together: their list, the masks of a row and WINDOW fill the L1
BESIDE = 4  # labels about each word of a row whose masks are kept for the next row, by their last bits
MASKS = 64  # words for the masks of one
LARGE = 1 << 16  # rows of a table far beyond the L2
MANY = 20  # runs of a word from which masks are made for a run of one voxel alone
LOW = np.uint64((1 << SIDE) - 1)


@jit
def count_faces(labels, phases, solid, start, stop, rows, core, scale, table, used):
    """Count the faces of the voxels in some rows (from, to) of slices start..stop-1 into one table.

    See `cpu.count_contacts` for `used`; nothing is done if it shows that the table was too small. For "faces" there is
    no scale (None): Numba then compiles what follows without the weights, which takes fewer registers.
    """
    if used[0] < 0:
        return
    weighted = scale is not None
    first_row, last_row = rows
    n_z, n_y, n_x = labels.shape
    flat, classes, solids = labels.reshape(-1), phases.reshape(-1), solid.reshape(-1).view(np.uint8)
    zero, masked, plane = flat.dtype.type(0), solids.size > 0, n_y * n_x
    steps = np.array([-plane, plane, -n_x, n_x, -1, 1])
    span = SPAN if weighted else 64
    last, n_words = np.uint64(span - 1), (n_x + span - 1) // span
    n_rows = last_row - first_row
    # where a word has voxels, as a word: all but the last of a row, and the last
    full, rest = ALL >> np.uint64(64 - span), ALL >> np.uint64(64 - (n_x - (n_words - 1) * span))
    # the void of three slices, with a row before and behind and a word of 0 at either end of each
    wide = np.uint64(n_words + 2)
    voids, words = np.zeros(3 * (n_rows + 2) * (n_words + 2), np.uint64), np.uint64(n_words)
    ups, fronts, changes = np.empty(n_words, np.uint64), np.empty(n_words, np.uint64), np.empty(n_words, np.uint64)
    pairs_up, pairs_front = np.zeros(n_rows * n_words, np.uint64), np.zeros(n_words, np.uint64)
    # the rows of which void is marked, from one before the first to one behind the last
    lowest, n_marked = max(first_row - 1, 0), min(last_row + 1, n_y) - max(first_row - 1, 0)
    faces, mouths = zero_lines(8), zero_lines(8)
    queue = np.empty(6 * 64 + 4, np.int64)
    # for "faces": where the neighbours have a class, and the sums of labels, 8 for each class
    of_class = zero_lines(8 * AT_ONCE)
    of_class[:8] = ALL
    owners, sums = np.zeros(LABELS, np.int64), empty_lines(LABELS * SUMS)
    # for "weighted": the masks of labels, whose they are and of which row, and the windows of faces not yet weighed
    offsets, masks = np.empty(25, np.int64), np.empty(MASKS * BESIDE * n_words, np.uint64)
    masked_labels, masked_rows = np.zeros(BESIDE * n_words, np.int64), np.zeros(BESIDE * n_words, np.int64)
    windows, axes, places = np.empty(BATCH, np.int64), np.empty(BATCH, np.int64), np.empty(BATCH, np.int64)
    n_windows, all_rows, large = 0, table.reshape(-1), len(table) >= LARGE
    # words of faces between two labels, which are counted many at a time
    pair_words, pair_places = np.empty(PAIRS + 4 * n_words + 2, np.uint64), np.empty(PAIRS + 4 * n_words + 2, np.int64)
    n_pairs, alone, kept_pairs = NONE, 0, zero_lines(8 * min(max(len(table) // 16, 16), KEPT)).view(np.int64)

    left_end = right_end = zero  # labels at the ends of the rows before, and of how many
    n_left = n_right = 0
    top = np.int64(0)  # the highest class so far
    begin = start * plane + lowest * n_x
    # where the voids of three slices begin: of the row before the first, after its word of 0
    before, here, after = ONE, np.uint64(n_rows + 2) * wide + ONE, np.uint64(2 * n_rows + 4) * wide + ONE
    offset = np.uint64(lowest - first_row + 1) * wide
    if start > 0:
        top = mark_void(flat, classes, begin - plane, n_marked, n_x, span, top, voids, before + offset)
        mark_pairs(flat, start * plane + first_row * n_x, plane, n_x, span, pairs_up)
    if top >= 0:
        top = mark_void(flat, classes, begin, n_marked, n_x, span, top, voids, here + offset)
    for z in range(start, stop):
        look_back = weighted | (z == core[0])
        step_z, begin = plane if z + 1 < n_z else 0, (z + 1) * plane
        to_up, to_down = np.uint64(step_z), np.uint64(plane if z > 0 else 0)
        last_inside = flat.size - (n_words - 1) * span - 64 - max(step_z, n_x)
        for y, place in (
            (first_row - 1, after),
            (last_row, after + np.uint64(n_rows + 1) * wide),
        ):  # beside those marked with all else
            if step_z > 0 and 0 <= y < n_y and top >= 0:
                top = mark_void(flat, classes, begin + y * n_x, 1, n_x, span, top, voids, place)
            else:
                for w in range(words):
                    voids[place + w] = NONE
        for w in range(words):
            pairs_front[w] = NONE
        if weighted and first_row > 0:
            mark_pairs(flat, (z * n_y + first_row) * n_x, n_x, n_x, span, pairs_front)
        if top < 0:
            used[0] = -2
            return
        for y in range(first_row, last_row):
            # where the row and its void begin, the latter in its slice: LLVM would carry a dozen sums of them along
            row, nth = np.int64(in_place(np.uint64((z * n_y + y) * n_x))), in_place(np.uint64(y - first_row))
            in_row = in_place((nth + ONE) * wide)
            to_front, to_back = np.uint64(n_x if y + 1 < n_y else 0), np.uint64(n_x if y > 0 else 0)
            inside = row <= last_inside
            wrong, higher = False, NONE
            for w in range(words):
                a = in_place(np.uint64(row) + w * np.uint64(span))
                kept = full if w + ONE < words else rest
                a_up, a_front = a + to_up, a + to_front
                if inside:
                    for line in range(4):
                        prefetch(flat, a_up + np.uint64(AHEAD + 16 * line))
                    up, front = unequal_bits(flat, a, a_up), unequal_bits(flat, a, a_front)
                    change, void_up = unequal_bits(flat, a, a + ONE), equal_bits(flat, a_up, zero)
                    wrong |= any_negative(flat, a_up)  # of the next row, too, which has its turn
                    higher |= above_bits(classes, a_up, classes.dtype.type(top))
                else:
                    at, n = row + np.int64(w) * span, min(span, n_x - np.int64(w) * span)
                    up, front = unequal_word(flat, at, np.int64(a_up)), unequal_word(flat, at, np.int64(a_front))
                    change, void_up = unequal_word(flat, at, at + 1), equal_word(flat, at + step_z, zero)
                    higher = ALL
                    for k in range(at + step_z, at + step_z + n):
                        wrong |= flat[k] < 0
                ups[w], fronts[w], changes[w] = up, front, change
                voids[after + in_row + w] = void_up & kept if step_z > 0 else NONE
            if wrong or higher != 0:
                if wrong:
                    used[0] = -2
                    return
                top = highest(classes, row + step_z, n_x, top)
            if flat[np.uint64(row)] != left_end:
                if not count_end(left_end, n_left, 2, table, used):
                    return
                left_end, n_left = flat[np.uint64(row)], 0
            if flat[np.uint64(row + n_x - 1)] != right_end:
                if not count_end(right_end, n_right, 2, table, used):
                    return
                right_end, n_right = flat[np.uint64(row + n_x - 1)], 0
            n_left, n_right = n_left + 1, n_right + 1
            if n_pairs > np.uint64(PAIRS):
                most_new = add_pairs(flat, steps, pair_words, pair_places, n_pairs, kept_pairs, alone > 0, table, used)
                if most_new < 0:
                    return
                alone, n_pairs = ALONE * most_new if alone == 0 else alone - 1, NONE
            listed, last_right = False, NONE
            for w in range(words):
                a, in_slice = in_place(np.uint64(row) + w * np.uint64(span)), in_place(in_row + w)
                kept = full if w + ONE < words else rest
                inner = ALL if w + ONE < words else rest >> ONE
                # the faces between two labels, where the voxel of the word is the lower one
                v = here + in_slice
                void, void_up, void_front = voids[v], voids[after + in_slice], voids[v + wide]
                own = kept & ~void
                void_right = void >> ONE | voids[v + ONE] << last
                change = changes[w]
                up, front, right = (
                    ups[w] & own & ~void_up,
                    fronts[w] & own & ~void_front,
                    change & own & inner & ~void_right,
                )
                void_down, void_back = voids[before + in_slice], voids[v - wide]
                void_left = void << ONE | voids[v - ONE] >> last
                todo = own & (void_down | void_up | void_back | void_front | void_left | void_right)
                down = back = left = hollow = NONE
                if look_back:
                    down = pairs_up[nth * words + w]
                if weighted:  # which sees such faces from either side
                    back, left = pairs_front[w], (right << ONE | last_right >> last) & kept
                    pairs_up[nth * words + w], pairs_front[w], last_right = up, front, right
                    todo |= up | front | right | down | back | left
                elif up | front | right | down != 0:
                    for bits, d in ((down, 0), (up, 1), (front, 3), (right, 5)):
                        pair_words[n_pairs], pair_places[n_pairs] = bits, np.int64(a << np.uint64(3)) + d
                        n_pairs += np.uint64(bits != 0)
                    up = front = right = down = NONE
                if todo == 0:
                    continue
                at, first = np.int64(a), np.int64(w) * span
                prefetch(classes, a + to_up + np.uint64(AHEAD))
                if masked and not weighted:
                    hollow = equal_bits(solids, a, np.uint8(0)) if inside else equal_word(solids, at, np.uint8(0))
                    hollow &= own
                    own &= ~hollow
                    store_six(
                        mouths,
                        NONE,
                        void_down & hollow,
                        void_up & hollow,
                        void_back & hollow,
                        void_front & hollow,
                        void_left & hollow,
                        void_right & hollow,
                    )
                store_six(
                    faces,
                    NONE,
                    void_down & own | down,
                    void_up & own | up,
                    void_back & own | back,
                    void_front & own | front,
                    void_left & own | left,
                    void_right & own | right,
                )
                if weighted:
                    for line in range(4):
                        prefetch(flat, np.uint64(at + 2 * plane + 4 * n_x + 16 * line))  # for the masks
                    if not listed:
                        listed = True
                        list_rows(z, y, n_z, n_y, n_x, offsets)
                else:
                    for p in range(1, min(top + 1, AT_ONCE)):
                        phase, place = classes.dtype.type(p), np.uint64(8 * p)
                        if not inside:
                            mark_last_class(classes, at, steps, phase, of_class, place)
                            continue
                        middle = equal_bits(classes, a, phase)
                        store_six(
                            of_class,
                            place,
                            equal_bits(classes, a - to_down, phase),
                            equal_bits(classes, a + to_up, phase),
                            equal_bits(classes, a - to_back, phase),
                            equal_bits(classes, a + to_front, phase),
                            middle << ONE | np.uint64(w > 0 and classes[a - ONE] == phase),
                            equal_bits(classes, a + ONE, phase),
                        )
                    if top >= AT_ONCE and not count_rest(flat, classes, at, steps, faces, table, used):
                        return
                noise = weighted and count_bits(change) >= MANY
                while todo != 0:
                    k = np.uint64(lowest_bit(todo))
                    run = change >> k
                    run = (run ^ (run - ONE)) << k  # as far as the first change
                    todo &= ~run
                    label = np.int64(flat[a + k])
                    if not weighted:
                        kept_at = np.uint64(label & (LABELS - 1))
                        if owners[kept_at] != label:
                            if not flush(sums, kept_at, owners[kept_at], table, used):
                                return
                            owners[kept_at] = label
                        place = np.uint64(SUMS) * kept_at
                        for p in range(min(top + 1, AT_ONCE)):
                            add_counts(sums, place + np.uint64(8 * p), faces, run, of_class, np.uint64(8 * p))
                        if masked:
                            add_counts(sums, place + np.uint64(8 * AT_ONCE), mouths, run, of_class, NONE)
                        continue
                    entry = np.uint64(BESIDE) * w + np.uint64(label & (BESIDE - 1))
                    mask = MASKS * np.int64(entry)
                    if masked_labels[entry] != label or masked_rows[entry] != row:
                        begin, new, n_new = at - SIDE, mask, 50
                        row_of_masks = row
                        if (begin + offsets[0] < 0) | (begin + offsets[24] + 72 > flat.size):
                            list_last_masks(flat, begin, offsets, flat[a + k], masks, mask)
                        elif masked_labels[entry] == label and masked_rows[entry] == row - n_x and y > 0:
                            list_next_bits(flat, begin, offsets, flat[a + k], masks, mask)
                            new, n_new = mask + 20, 10
                        elif noise and run & (run - ONE) == 0:
                            list_near_bits(flat, begin, offsets, flat[a + k], masks, mask, np.int64(k))
                            row_of_masks = -1  # for this voxel alone
                        else:
                            list_equal_bits(flat, begin, offsets, flat[a + k], masks, mask)
                        masked_labels[entry], masked_rows[entry] = label, row_of_masks
                        if first == 0:  # beyond the ends of rows the last voxel goes on
                            for r in range(new, new + n_new):
                                masks[r] = masks[r] & ~LOW | LOW * (masks[r] >> np.uint64(SIDE) & ONE)
                        if first + SPAN + SIDE > n_x:
                            end = np.uint64(n_x - 1 - first + SIDE)
                            beyond = (ALL ^ ONE) << end
                            for r in range(new, new + n_new):
                                masks[r] = masks[r] & ~beyond | beyond * (masks[r] >> end & ONE)
                    n_faces = list_bits(faces, run, queue)
                    if n_windows + n_faces > BATCH:
                        add_weights(windows, axes, places, n_windows, scale, all_rows)
                        n_windows = 0
                    if large:
                        for q in range(n_faces):
                            other = np.int64(flat[np.uint64(at + (queue[q] & 63) + steps[queue[q] >> 6])])
                            slot = first_slot(table, min(label, other), max(label, other))
                            prefetch(all_rows, slot * np.uint64(table.shape[1]))
                    for q in range(n_faces):
                        k, d = queue[q] & 63, queue[q] >> 6
                        axis, forward = d >> 1, d & 1
                        facing = np.uint64(at + k + steps[d])
                        other = np.int64(flat[facing])
                        low, high, counted = min(label, other), max(label, other), forward
                        if other == 0:
                            low, high, counted = label, np.int64(-1) - np.int64(classes[facing]), 1
                            if masked and solids[np.uint64(at + k)] == 0:
                                high = np.int64(-1 - MOUTH)
                        slot = first_slot(table, low, high)
                        if (table[slot, 0] != low) | (table[slot, 1] != high):
                            found = slot_of(table, used, low, high)
                            if found < 0:
                                return
                            slot = np.uint64(found)
                        table[slot, COUNTS + axis] += counted
                        windows[n_windows] = sum_window(masks, mask, k, axis, forward)
                        axes[n_windows], places[n_windows] = axis, np.int64(slot) * table.shape[1] + COUNTS + 3 + axis
                        n_windows += 1
        before, here, after = here, after, before
    if add_pairs(flat, steps, pair_words, pair_places, n_pairs, kept_pairs, alone > 0, table, used) < 0:
        return
    if not flush_pairs(kept_pairs, table, used):
        return
    if not count_end(left_end, n_left, 2, table, used) or not count_end(right_end, n_right, 2, table, used):
        return
    for kept_at in range(np.uint64(LABELS)):
        if owners[kept_at] != 0 and not flush(sums, kept_at, owners[kept_at], table, used):
            return
    if weighted:
        add_weights(windows, axes, places, n_windows, scale, all_rows)
    used[1] = max(used[1], top)
