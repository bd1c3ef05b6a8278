"""Chains that are two particles: one above the other, touching at a narrow neck."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cbdetach.basins import merge_basins
from cbdetach.link.shared import Floats, Ints, Shared

NECK_REACH = 3
"""Levels over which sections are compared to find a neck: where two particles touch obliquely, no single section is
narrow, but what sections on both sides of the contact share is."""


def cut_necks(chain: Ints, level: Ints, size: Floats, tables: Sequence[Shared], depth: float) -> tuple[Ints, Ints]:
    """Chains cut where the radius of their sections, or of what distant ones share, has a deep minimum.

    tables : what objects 1, 2, ... levels apart share. Returns the chains, and the nodes before and after each cut.
    """
    order = np.lexsort((level, chain))
    new = (np.diff(chain[order], prepend=-1) != 0) | (np.diff(level[order], prepend=-1) != 0)
    section = np.empty(chain.size, np.int64)
    section[order] = np.cumsum(new) - 1
    node = order[new]
    radius = np.sqrt(np.bincount(section, weights=size, minlength=node.size))
    radius = _median_along(radius, chain[node])
    step = np.flatnonzero(chain[node[:-1]] == chain[node[1:]])
    pairs = np.stack([step, step + 1], axis=1)
    saddle = np.minimum(radius[step], radius[step + 1])
    saddle = np.minimum(saddle, _shared_radius(chain, level, section, node, tables)[step])
    one = np.ones(node.size)
    piece = merge_basins(pairs, saddle, radius, depth, size=one, smallest=NECK_REACH)
    cut = pairs[piece[step] != piece[step + 1]]
    return piece[section], node[cut]


def _shared_radius(chain: Ints, level: Ints, section: Ints, node: Ints, tables: Sequence[Shared]) -> Floats:
    """For each section: the radius of what sections before and after its end share, at most `NECK_REACH` levels apart.

    The best of all such pairs: one that was segmented badly belongs to one of them only. In a chain of few levels the
    pairs are nearer, as the sections of one small particle change as quickly; neighbours are no pair, since both of a
    bad section's would be bad. Infinite where there is no pair.
    """
    levels = int(level.max(initial=0)) + 1 + len(tables)
    _, number, length = np.unique(chain[node], return_inverse=True, return_counts=True)
    reach = np.minimum(length // 4, len(tables))[number]
    key = number * levels + level[node]
    here = np.arange(node.size)
    best = np.full(node.size, -np.inf)
    for apart, table in enumerate(tables[1:], 2):
        same = chain[table.a] == chain[table.b]
        shared = np.bincount(section[table.a[same]], weights=table.count[same], minlength=node.size)
        follows = np.isin(key + apart, key)
        for back in range(apart):
            before = np.searchsorted(key, key - back)
            there = (key[np.minimum(before, here)] == key - back) & (level[node] >= back)
            straddles = there & follows[np.minimum(before, here)] & (reach == apart)
            np.maximum(best, np.sqrt(shared[np.minimum(before, here)]), out=best, where=straddles)
    return np.where(best < 0, np.inf, best)


def _median_along(values: Floats, chain: Ints) -> Floats:
    """Median over five levels of each chain, fewer at its ends: one slice that was segmented badly is no neck."""
    here = np.arange(values.size)
    begin = np.flatnonzero(np.diff(chain, prepend=-1))
    length = np.diff(np.append(begin, values.size))
    low, high = np.repeat(begin, length), np.repeat(begin + length - 1, length)
    around = [values[np.clip(here + shift, low, high)] for shift in range(-2, 3)]
    median: Floats = np.median(around, axis=0)
    return median
