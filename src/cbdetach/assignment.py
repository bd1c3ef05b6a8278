"""Which objects of one level match which of the next: the optimal assignment of a sparse table of pairs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
ROUNDS = 2
"""How often pairs that are surely in an optimum are chosen first: nine tenths of a table, then a third of the rest."""


def assign(a: Ints, b: Ints, gain: Floats) -> Ints:
    """The one-to-one assignment with the largest sum of gains, from the pairs that are possible.

    Parameters
    ----------
    a, b : (K,) the two objects of each pair, any numbers; no pair twice.
    gain : (K,) what each pair is worth, not negative. Objects may stay alone.

    Returns
    -------
    The chosen pairs, ascending, as indices below K.

    A pair that is worth at least as much as the best other ones of its two objects together is in an optimum: it is
    chosen, its objects leave, and so once more. What is left falls into connected components, each solved on its own,
    so that ties are decided by the component alone. The result is the optimum of the whole table.
    """
    from scipy.optimize import linear_sum_assignment

    rows, left, right = np.arange(a.size), _numbers_from_0(a), _numbers_from_0(b)
    chosen = [rows[:0]]
    for _ in range(ROUNDS):
        if rows.size == 0:
            break
        sure = _sure(left, right, gain)
        chosen.append(rows[sure])
        stay = np.flatnonzero(_still_free(left, sure) & _still_free(right, sure))
        rows, left, right, gain = rows[stay], left[stay], right[stay], gain[stay]
    if rows.size == 0:
        return np.sort(np.concatenate(chosen))
    left, right = _numbers_without_gaps(left), _numbers_without_gaps(right)
    n_left = int(left.max()) + 1
    of_node = components(n_left + int(right.max()) + 1, np.stack([left, right + n_left], axis=1))
    y, height = _numbers_within(of_node[:n_left])
    x, width = _numbers_within(of_node[n_left:])
    # the table of every component, one after the other
    stop = np.cumsum(height * width)
    start = stop - height * width
    pair, cost = np.full(stop[-1], -1), np.zeros(stop[-1])
    of_pair = of_node[left]
    place = start[of_pair] + y[left] * width[of_pair] + x[right]
    pair[place], cost[place] = rows, -gain
    solved = [
        linear_sum_assignment(cost[i:j].reshape(h, w))
        for i, j, h, w in zip(start.tolist(), stop.tolist(), height.tolist(), width.tolist(), strict=True)
    ]
    at_y, at_x = (np.concatenate(side) for side in zip(*solved, strict=True))
    matches = np.minimum(height, width)
    matched = pair[np.repeat(start, matches) + at_y * np.repeat(width, matches) + at_x]
    return np.sort(np.concatenate([*chosen, matched[matched >= 0]]))


def components(n: int, pairs: Ints) -> Ints:
    """The connected component of each of n nodes, joined by pairs (K, 2)."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    first, second = pairs[np.argsort(pairs[:, 0])].T
    ends = np.cumsum(np.bincount(first + 1, minlength=n + 1))
    as_scipy_keeps_it = np.ones(len(pairs)), second.astype(np.int32), ends.astype(np.int32)
    graph = csr_array(as_scipy_keeps_it, shape=(n, n))
    component: Ints = np.asarray(connected_components(graph, directed=False)[1]).astype(np.int64)
    return component


def _sure(left: Ints, right: Ints, gain: Floats) -> Ints:
    """Pairs that are the only best of both their objects, and worth as much as the best others of both together."""
    best_left, best_right = _best(left, gain), _best(right, gain)
    best = np.flatnonzero((gain == best_left[left]) & (gain == best_right[right]))
    others = gain.copy()
    others[best] = 0.0
    best_left, best_right = _best(left, others), _best(right, others)
    left, right = left[best], right[best]
    alone = (np.bincount(left)[left] == 1) & (np.bincount(right)[right] == 1)
    sure: Ints = best[alone & (best_left[left] + best_right[right] <= gain[best])]
    return sure


def _best(node: Ints, gain: Floats) -> Floats:
    """The largest gain of each object's pairs."""
    best = np.zeros(node.max() + 1)
    np.maximum.at(best, node, gain)
    return best


def _still_free(node: Ints, chosen: Ints) -> Mask:
    """For each pair, whether its object is in none of the chosen ones."""
    free = np.ones(node.max() + 1, np.bool_)
    free[node[chosen]] = False
    still: Mask = free[node]
    return still


def _numbers_within(component: Ints) -> tuple[Ints, Ints]:
    """The number of each object among those of its component, from 0, and how many every component has."""
    size = np.bincount(component)
    order = np.argsort(component, kind="stable")
    number = np.empty(component.size, np.int64)
    number[order] = np.arange(component.size) - np.repeat(np.cumsum(size) - size, size)
    return number, size


def _numbers_from_0(ids: Ints) -> Ints:
    """The same objects with other numbers, of which the largest is not much larger than how many there are."""
    near = ids.size > 0 and int(ids.max()) - int(ids.min()) < 8 * ids.size
    numbers: Ints = ids - ids.min() if near else np.unique(ids, return_inverse=True)[1]
    return numbers


def _numbers_without_gaps(ids: Ints) -> Ints:
    """The same objects, numbered from 0 in the same order."""
    there = np.zeros(ids.max() + 1, np.bool_)
    there[ids] = True
    numbers: Ints = (np.cumsum(there) - 1)[ids]
    return numbers
