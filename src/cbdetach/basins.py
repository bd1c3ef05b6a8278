"""Basins of a landscape merged over shallow saddles: the one rule by which touching things are told from uneven ones.

A summit and what drains to it is a basin. In the order of falling saddles, the lower of the two basins that meet at a
saddle dies into the other if its summit rises above the saddle by no more than a share `depth` of its own height;
otherwise both live. (Grimaud, "A new measure of contrast: the dynamics", 1992; here relative to the height.)

Instead of one saddle after the other, whole rounds are taken on arrays: in each, every basin looks at its own highest
saddle alone, and dies if it is the lower one there and the saddle is shallow. That gives the same result: what lies
behind a basin's highest saddle at its turn can only have grown, and a basin that outlives its highest saddle outlives
every lower one. A handful of rounds is enough for any number of basins.

Used for the distance map of touching particles (space) and for the size of a particle from slice to slice (linking).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]


def highest(key: Ints, value: Floats) -> tuple[Ints, Floats]:
    """Each key once, with the largest of its values."""
    order = np.lexsort((-value, key))
    key, first = np.unique(key[order], return_index=True)
    return key, value[order][first]


def merge_basins(
    pairs: Ints, saddle: Floats, peak: Floats, depth: float, *, size: Floats | None = None, smallest: float = 0.0
) -> Ints:
    """The basin that each basin ends up in.

    Parameters
    ----------
    pairs, saddle : (K, 2) adjacent basins, (K,) the highest point of the border between them.
    peak : (N,) summit of each basin.
    depth : 0 to 1, share of its own height by which a summit must rise above its saddle to stay its own.
    size, smallest : (N,) size of each basin; after the merge, any that is smaller than `smallest` joins the neighbour
        behind its highest saddle.

    Returns
    -------
    (N,) int64. Ties: the higher peak (larger size), then the lower number, lives.
    """
    n = len(peak)
    owner = np.arange(n)
    size = np.zeros(n) if size is None else size
    for rank_is_peak in (True, False):
        while True:
            first, second = owner[pairs[:, 0]], owner[pairs[:, 1]]
            apart = first != second
            key, saddle = highest((np.minimum(first, second) * n + np.maximum(first, second))[apart], saddle[apart])
            pairs = np.stack([key // n, key % n], axis=1)
            basin, other, level = _highest_saddles(pairs, saddle, peak)
            rank = peak if rank_is_peak else size
            lower = (rank[basin] < rank[other]) | ((rank[basin] == rank[other]) & (basin > other))
            dies = lower & (level >= (1 - depth) * peak[basin] if rank_is_peak else size[basin] < smallest)
            if not dies.any():
                break
            parent = np.arange(n)
            parent[basin[dies]] = other[dies]
            while (parent[parent] != parent).any():
                parent = parent[parent]
            owner = parent[owner]
            peak = _gather(np.maximum, peak, parent)
            size = _gather(np.add, size, parent)
    return owner


def _gather(combine: np.ufunc, values: Floats, parent: Ints) -> Floats:
    result = np.zeros_like(values)
    combine.at(result, parent, values)
    return result


def _highest_saddles(pairs: Ints, saddle: Floats, peak: Floats) -> tuple[Ints, Ints, Floats]:
    """Basins that have neighbours, the one behind the highest saddle (ties: highest peak, lowest number), its level."""
    basin, other = np.concatenate([pairs, pairs[:, ::-1]]).T
    level = np.concatenate([saddle, saddle])
    order = np.lexsort((other, -peak[other], -level, basin))
    basin, first = np.unique(basin[order], return_index=True)
    return basin, other[order][first], level[order][first]
