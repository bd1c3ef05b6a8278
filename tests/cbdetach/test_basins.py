"""Merging of basins: against the rule taken one saddle after the other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from cbdetach.basins import merge_basins


def one_by_one(
    pairs: npt.NDArray[np.int64], saddle: npt.NDArray[np.float64], peak: npt.NDArray[np.float64], depth: float
) -> list[int]:
    """The definition: saddles in falling order; the lower summit dies if it rises too little above the saddle."""
    owner = list(range(len(peak)))
    for k in np.argsort(-saddle):
        a, b = owner[pairs[k, 0]], owner[pairs[k, 1]]
        low, high = (a, b) if peak[a] < peak[b] else (b, a)
        if a != b and saddle[k] >= (1 - depth) * peak[low]:
            owner = [high if o == low else o for o in owner]
    return owner


@given(st.integers(0, 2**32 - 1), st.integers(2, 25), st.floats(0.05, 0.9))
def test_same_as_one_saddle_after_the_other(seed: int, n: int, depth: float) -> None:
    rng = np.random.default_rng(seed)
    peak = rng.permutation(n) / n + 1.0  # all different: the definition says nothing about ties
    a, b = np.triu_indices(n, 1)
    there = rng.random(len(a)) < 3 / n
    pairs = np.stack([a[there], b[there]], axis=1)
    saddle = rng.uniform(0.2, 1, len(pairs)) * peak[pairs].min(axis=1)
    assert merge_basins(pairs, saddle, peak, depth).tolist() == one_by_one(pairs, saddle, peak, depth)


def test_depth_is_relative_and_decides() -> None:
    pairs, saddle, peak = np.array([[0, 1]]), np.array([3.0]), np.array([4.0, 5.0])
    assert merge_basins(pairs, saddle, peak, 0.26).tolist() == [1, 1]
    assert merge_basins(pairs, saddle, peak, 0.24).tolist() == [0, 1]
    assert merge_basins(pairs, 100 * saddle, 100 * peak, 0.24).tolist() == [0, 1]


def test_small_basins_join_behind_their_highest_saddle() -> None:
    pairs, saddle = np.array([[0, 1], [1, 2]]), np.array([1.0, 1.5])
    peak, size = np.array([9.0, 2.0, 8.0]), np.array([90.0, 3.0, 80.0])
    assert merge_basins(pairs, saddle, peak, 0.1, size=size, smallest=5).tolist() == [0, 2, 2]
    assert merge_basins(pairs, saddle, peak, 0.1, size=size, smallest=2).tolist() == [0, 1, 2]


def test_ties_fall_to_the_lower_number_and_no_pairs_change_nothing() -> None:
    assert merge_basins(np.array([[0, 1], [1, 2]]), np.ones(2), np.ones(3), 0.0).tolist() == [0, 0, 0]
    assert merge_basins(np.zeros((0, 2), np.int64), np.zeros(0), np.ones(3), 0.5).tolist() == [0, 1, 2]
