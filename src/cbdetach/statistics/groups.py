"""Between electrodes: permutations, the smallest p that can be reached, Holm's adjustment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb, factorial, prod
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MAX_PERMUTATIONS = 20_000
"""More ways to share out the electrodes than this are drawn at random, and not all gone through."""

FITTED_FROM = 4
"""Electrodes in the smallest group from which p is also read from a curve."""


@dataclass(frozen=True)
class Permuted:
    """A test by permutation: the difference found, its p, the smallest p that so many electrodes can give."""

    difference: float  # of the groups' means, second minus first; nan for more than two groups
    p: float  # counted; nan where any group has one electrode alone
    p_fitted: float  # from the curve; nan where any group has fewer than `FITTED_FROM`
    smallest_p: float  # that can be counted
    permutations: int


def permutation_test(values: Floats, groups: Sequence[Any], *, seed: int = 0) -> Permuted:
    """Whether groups of electrodes differ, by sharing the electrodes out anew in every way.

    Parameters
    ----------
    values : (E,) one number for each electrode.
    groups : (E,) what the electrode belongs to. The two groups are taken in the order of their names (numbers by size).

    Two groups: the difference of their means, two-sided. More: the sum of squares between groups. All ways are gone
    through up to `MAX_PERMUTATIONS`; beyond, so many are drawn at random, the observed one among them. p is nan where
    any group holds one electrode alone: then nothing can be said about the group.

    A p that is counted moves in steps: with 4 against 4 it is 0.029 or 0.057, so that a test at 0.05 is one at 0.029.
    `p_fitted` is the tail beyond the observed value of the beta distribution that has the mean and the variance which
    the share of the variance between groups has over all ways (Box and Andersen, J. R. Stat. Soc. B 17, 1 (1955)).
    It is near Student's for normal values and follows the permutations for others.
    """
    names = sorted(set(groups))
    if len(names) < 2:
        raise ValueError(f"groups: must be at least two; got {len(names)}. Give electrodes of another group.")
    if len(values) != len(groups):
        raise ValueError(f"values: must be one for each electrode, {len(groups)}; got {len(values)}.")
    member = np.array([[g == name for g in groups] for name in names], dtype=np.float64)
    sizes = member.sum(axis=1).astype(np.int64)
    centred = values - values.mean()
    observed = _between(member[None], centred, sizes)[0]
    total = factorial(len(groups)) // prod(factorial(int(s)) for s in sizes)
    ways = _all_ways(len(groups), tuple(sizes.tolist())) if total <= MAX_PERMUTATIONS else _some_ways(member, seed)
    found = _between(ways, centred, sizes)
    p = float(np.mean(found >= observed - 1e-9 * max(observed, 1e-300)))
    # A way and the one with equally large groups exchanged are equally extreme.
    smallest = max(prod(factorial(int(np.sum(sizes == s))) for s in set(sizes.tolist())) / total, 1 / len(ways))
    difference = float(values @ member[1] / sizes[1] - values @ member[0] / sizes[0]) if len(names) == 2 else np.nan
    fitted = np.nan if sizes.min() < FITTED_FROM else _fitted_p(found, float(observed), float(centred @ centred))
    return Permuted(difference, np.nan if sizes.min() < 2 else p, fitted, float(smallest), len(ways))


def _fitted_p(found: Floats, observed: float, total: float) -> float:
    """Tail beyond `observed` of the beta distribution with the moments of `found`, both in shares of `total`."""
    from scipy.special import betaincc

    share = found / max(total, 1e-300)
    mean, variance = share.mean(), share.var()
    if variance < 1e-12:  # every way is like every other
        return 1.0
    size = mean * (1 - mean) / variance - 1
    return float(betaincc(mean * size, (1 - mean) * size, min(observed / total, 1.0)))


def _between(ways: Floats, centred: Floats, sizes: Ints) -> Floats:
    """Sum of squares between groups for (P, G, E) memberships; for two groups it grows with the mean difference."""
    return np.asarray((np.square(ways @ centred) / sizes).sum(axis=1))


@lru_cache(maxsize=8)
def _all_ways(n: int, sizes: tuple[int, ...]) -> Floats:
    """Every way to share `n` electrodes out to groups of these sizes: (P, G, E) of 0 and 1."""
    ways: list[tuple[tuple[int, ...], ...]] = [()]
    for size in sizes:
        ways = [
            (*way, chosen)
            for way in ways
            for chosen in combinations(sorted(set(range(n)) - {e for part in way for e in part}), size)
        ]
    member = np.zeros((len(ways), len(sizes), n))
    for k, way in enumerate(ways):
        for g, part in enumerate(way):
            member[k, g, list(part)] = 1
    return member


def _some_ways(member: Floats, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(member.shape[1]), (MAX_PERMUTATIONS - 1, 1)), axis=1)
    return np.concatenate([member[None], member[:, order].transpose(1, 0, 2)])


def smallest_p(n_first: int, n_second: int) -> float:
    """The smallest two-sided p that two groups of so many electrodes can give."""
    return (2 if n_first == n_second else 1) / comb(n_first + n_second, n_first)


def holm(p: Sequence[float]) -> Floats:
    """p values adjusted for their number (Holm, Scand. J. Statist. 6, 65 (1979)); nan stays nan and is not counted."""
    values = np.asarray(p, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(values[known], kind="stable")]
    steps = values[order] * np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if order.size else steps
    return adjusted
