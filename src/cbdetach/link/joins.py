"""Chains that are one particle: around slices in which it was cut or merged, and pieces that were cut off."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cbdetach.link.shared import Ints, Mask, Overlap, Shared, ends_of

SAME = 0.5
"""IoU from which sections some slices apart are of one particle: no two disjoint ones can exceed it with a third."""


def detours_of(
    chain: Ints,
    level: Ints,
    covered_before: Mask,
    covered_after: Mask,
    tables: Sequence[Sequence[Overlap]],
    start: Ints,
) -> Ints:
    """Pairs of objects, of two chains that are one particle, on both sides of slices in which it was cut or merged.

    Sections of the two, from before the second began and after the first ended, overlap by `SAME` or more. If the two
    never coexist, other objects must cover the end of the first and the start of the second: what ends in void ends.
    """
    first, last = ends_of(chain, level)
    _, of = np.unique(chain, return_inverse=True)
    born, dies = level[first][of], level[last][of]
    splits_off, merges = covered_before[first][of], covered_after[last][of]
    found = [np.zeros((0, 2), np.int64)]
    for step, overlaps in enumerate(tables, start=2):
        far = Shared.of(overlaps, start, step)
        around = (level[far.a] < born[far.b]) & (level[far.b] > dies[far.a])
        covered = merges[far.a] & splits_off[far.b] | (born[far.b] <= dies[far.a])
        relay = around & covered & (far.iou >= SAME)
        found.append(far.pairs(np.flatnonzero(relay)))
    pairs: Ints = np.concatenate(found)
    once = np.unique(chain[pairs], axis=0, return_index=True)[1]
    joined: Ints = pairs[once]
    return joined


def sandwiched(chain: Ints, level: Ints, near: Shared, before: Ints, after: Ints) -> Ints:
    """Rows that join to its host a chain that begins and ends inside one and the same other chain."""
    first, last = ends_of(chain, level)
    above, below = np.full(chain.size, -1), np.full(chain.size, -1)
    above[near.b[before]] = before
    below[near.a[after]] = after
    above, below = above[first], below[last]
    both = (above >= 0) & (below >= 0)
    above, below, own = above[both], below[both], chain[first[both]]
    host = chain[near.a[above]]
    joins = (host == chain[near.b[below]]) & (host != own)
    rows: Ints = above[joins]
    return rows
