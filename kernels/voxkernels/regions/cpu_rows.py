"""Which row of the tables a label has: the label itself or, where labels are sparse, a row found in a hash table.

The table is an open-addressing one with linear probing. How many rows there are for labels that are their own rows is
guessed from a sample of the voxels.
"""

import numpy as np

from .._compile import jit

GOLDEN = -7046029254386353131  # 2^64 / golden ratio, odd, as a signed number
SAMPLE_STEP, MORE_ROWS = 1024, 64


@jit
def find_slot(label, keys):
    """The slot that holds `label` in a hash table, or the free one (0) where it belongs. `keys` is never full."""
    mask = keys.size - 1
    product = np.int64(label) * GOLDEN
    slot = (product ^ (product >> 32)) & mask
    while keys[slot] != label and keys[slot] != 0:
        slot = (slot + 1) & mask
    return slot


@jit
def collect_labels(labels, keys):
    """Put every label of `labels` (L, X) into the hash table `keys`.

    Return how many there are, or -1 if it is half full, -2 if a label is negative.
    """
    found = 0
    for line in range(labels.shape[0]):
        last = labels.dtype.type(0)
        for label in labels[line]:
            if label == last:
                continue
            last = label
            if label == 0:
                continue
            if label < 0:
                return -2
            slot = find_slot(label, keys)
            if keys[slot] == 0:
                keys[slot] = label
                found += 1
                if 2 * found > keys.size:
                    return -1
    return found


@jit
def sample_place(k, size):
    """The place of voxel k of a sample: by the golden ratio, in step with nothing that a volume repeats."""
    share = np.float64(np.uint64(k) * np.uint64(GOLDEN)) * 2.0**-64
    return np.int64(share * np.float64(size - 1) + 0.5)


@jit
def guess_rows(flat, n, most):
    """How many rows there are for labels that are their own rows: no more than `most`, or more for too many.

    As many as the largest of n labels (fewer where there would be more than one in SAMPLE_STEP), a quarter more and
    MORE_ROWS.
    """
    top = np.int64(0)
    for k in range(min(n, (flat.size + SAMPLE_STEP - 1) // SAMPLE_STEP)):
        top = max(top, np.int64(flat[np.uint64(sample_place(k, flat.size))]))
    return min(top + top // 4 + MORE_ROWS, most) if top < most else most + 1
