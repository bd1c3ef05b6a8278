"""Statistics of dependent particles: coverage on correlated fields, permutations by brute force, closed forms."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from tests.cbdetach.fake_electrodes import covariance, fake_sample, field, places, sizes

from cbdetach import statistics
from cbdetach.statistics import (
    correlation,
    correlation_interval,
    correlogram,
    effective_pairs,
    holm,
    patch_null,
    peak_of,
    permutation_test,
    quantile_interval,
    spatial_blocks,
)

N = 216
FIELDS = {"none": (0.0, 8.0), "short": (0.8, 6.0), "measured": (0.8, 12.0)}
"""Nugget and length (um) of the correlation; neighbours correlate at 0, 0.2 and 0.42."""


# ---- blocks ----------------------------------------------------------------------------------------------------------


def test_blocks_are_boxes_of_space() -> None:
    rng = np.random.default_rng(0)
    at = rng.uniform(0, 90, (2000, 3))
    block = spatial_blocks(at)
    assert block.min() == 0
    assert block.max() + 1 == 27
    for k in range(27):
        assert np.ptp(at[block == k], axis=0).max() <= 30.1  # a cube cut 3 x 3 x 3
    flat = spatial_blocks(at * (0.05, 1, 1))
    assert (flat.max() + 1) in (16, 20, 25)  # a thin volume is cut in y and x alone
    for k in np.unique(flat):
        assert np.ptp(at[flat == k, 0]) > 60


@pytest.mark.parametrize(("n", "most"), [(0, 0), (1, 1), (7, 1), (16, 2), (100, 12), (216, 27)])
def test_blocks_hold_enough_particles(n: int, most: int) -> None:
    blocks = spatial_blocks(np.random.default_rng(n).uniform(0, 50, (n, 3)))
    assert blocks.size == n
    assert np.unique(blocks).size <= most


# ---- intervals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FIELDS)
def test_intervals_of_the_median_cover_the_truth(kind: str) -> None:
    """150 correlated fields: the interval holds the true median, 0, in 95 % of them (91 to 99 % is what 150 can tell).

    Intervals as if particles were independent hold it in half of them where neighbours correlate at 0.42.
    """
    rng = np.random.default_rng(5)
    nugget, length = FIELDS[kind]
    blocks = spatial_blocks(places(N))
    held, naive = [], []
    for x in field(rng, N, nugget=nugget, length=length, draws=150).T:
        effective = correlogram(x, places(N), np.full(N, 8.0)).effective_n
        found = quantile_interval(x, blocks, effective_n=effective)
        held.append(found.low <= 0 <= found.high)
        plain = quantile_interval(x, np.arange(N))
        naive.append(plain.low <= 0 <= plain.high)
    assert 0.91 <= np.mean(held) <= 0.99
    if kind == "measured":
        assert np.mean(naive) < 0.7


def test_intervals_of_a_correlation_cover_the_truth() -> None:
    rng = np.random.default_rng(2)
    blocks, at = spatial_blocks(places(N)), places(N)
    held, naive = [], []
    a, b = field(rng, N, draws=60), field(rng, N, draws=60)
    for x, y in zip(a.T, (0.4 * a + np.sqrt(1 - 0.16) * b).T, strict=True):
        both = (correlogram(v, at, np.full(N, 8.0)) for v in (x, y))
        effective = effective_pairs(*both, at)
        found = correlation_interval(x, y, blocks, effective_n=effective)
        held.append(found.low <= 0.4 <= found.high)
        z, reach = np.arctanh(correlation(x, y)), 1.96 / np.sqrt(N - 3)
        naive.append(np.tanh(z - reach) <= 0.4 <= np.tanh(z + reach))
    assert np.mean(held) >= 0.93
    assert np.mean(naive) < 0.85


@pytest.mark.parametrize("kind", FIELDS)
def test_effective_n_is_that_of_the_field(kind: str) -> None:
    rng = np.random.default_rng(3)
    nugget, length = FIELDS[kind]
    true = N**2 / covariance(N, nugget, length).sum()
    found = [
        correlogram(x, places(N), np.full(N, 8.0)).effective_n
        for x in field(rng, N, nugget=nugget, length=length, draws=60).T
    ]
    assert 0.7 * true <= np.median(found) <= 1.4 * true


def test_neighbours_are_those_that_touch() -> None:
    at = np.array([[0.0, 0, 0], [0, 0, 1.1], [0, 0, 5], [0, 5, 0], [0, 5, 1.2]])
    value = np.array([1.0, 1.0, -2.0, 0.0, 0.0])
    r, pairs = statistics.neighbour_correlation(value, at, np.ones(5))
    assert pairs == 2
    assert r == pytest.approx(1.0 / 1.2 / 2)  # (1 * 1 + 0 * 0) / variance / 2 pairs


def test_an_interval_of_independent_values_is_the_binomial_one() -> None:
    """Every particle its own block: the limits are the order statistics that the binomial interval names."""
    x = np.random.default_rng(1).normal(size=2001)
    found = quantile_interval(x, np.arange(2001), 0.25)
    low, high = (np.sort(x)[int(k)] for k in scipy.stats.binom.interval(0.95, 2001, 0.25))
    assert found.value == np.quantile(x, 0.25)
    assert found.low == pytest.approx(low, abs=0.01)
    assert found.high == pytest.approx(high, abs=0.01)


def test_an_interval_widens_with_level_and_dependence() -> None:
    x = np.random.default_rng(4).normal(size=300)
    blocks = np.arange(300) // 20
    plain = quantile_interval(x, blocks)
    wide = quantile_interval(x, blocks, level=0.99)
    few = quantile_interval(x, blocks, effective_n=10)
    assert wide.low < plain.low < plain.value < plain.high < wide.high
    assert few.low < plain.low
    assert np.isnan(quantile_interval(x, np.zeros(300, np.int64)).low)
    assert np.isnan(quantile_interval(x[:0], blocks[:0]).value)


# ---- correlation -----------------------------------------------------------------------------------------------------


def test_correlations_are_scipys() -> None:
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(2, 80))
    y = x + z + rng.normal(size=80)
    assert correlation(x, y) == pytest.approx(scipy.stats.pearsonr(x, y).statistic)
    assert correlation(x, y, ranks=True) == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    r = np.corrcoef([x, y, z])
    partial = (r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2))
    assert correlation(x, y, given=z) == pytest.approx(partial)
    assert np.isnan(correlation(x, np.ones(80)))
    assert np.isnan(correlation(x[:3], y[:3]))


def test_size_alone_makes_no_partial_correlation() -> None:
    rng = np.random.default_rng(1)
    size = rng.normal(size=400)
    x, y = size + 0.5 * rng.normal(size=400), -size + 0.5 * rng.normal(size=400)
    assert correlation(x, y) < -0.7
    found = correlation_interval(x, y, np.arange(400) // 20, given=size)
    assert found.low < 0 < found.high


# ---- electrodes ------------------------------------------------------------------------------------------------------


def test_permutations_are_gone_through_as_by_hand() -> None:
    values = np.array([0.31, 0.42, 0.36, 0.55, 0.47, 0.61, 0.40])
    groups = [1, 1, 5, 5, 1, 5, 5]
    found = permutation_test(values, groups)
    observed = abs(values[[2, 3, 5, 6]].mean() - values[[0, 1, 4]].mean())
    ways = {tuple(sorted(order[:3])) for order in permutations(range(7))}
    gaps = [abs(values[list(w)].mean() - np.delete(values, w).mean()) for w in ways]
    assert found.permutations == len(ways) == 35
    assert found.p == pytest.approx(np.mean(np.array(gaps) >= observed - 1e-12))
    assert found.difference == pytest.approx(values[[2, 3, 5, 6]].mean() - values[[0, 1, 4]].mean())
    library = scipy.stats.permutation_test(
        (values[[0, 1, 4]], values[[2, 3, 5, 6]]), lambda a, b: abs(a.mean() - b.mean()), alternative="greater"
    )
    assert found.p == pytest.approx(library.pvalue)


@pytest.mark.parametrize(("sizes", "smallest"), [((2, 2), 1 / 3), ((3, 3), 0.1), ((4, 4), 2 / 70), ((3, 4), 1 / 35)])
def test_the_smallest_p_is_reached_and_no_smaller(sizes: tuple[int, int], smallest: float) -> None:
    values = np.append(np.arange(sizes[0]) * 0.01, 1 + np.arange(sizes[1]) * 0.01)
    found = permutation_test(values, [0] * sizes[0] + [1] * sizes[1])
    assert found.p == pytest.approx(smallest)
    assert found.smallest_p == pytest.approx(smallest)
    assert statistics.smallest_p(*sizes) == pytest.approx(smallest)


def test_one_electrode_on_a_side_gives_no_p() -> None:
    found = permutation_test(np.array([0.1, 0.9, 0.8]), ["a", "b", "b"])
    assert np.isnan(found.p)
    assert found.difference == pytest.approx(0.75)


def test_many_electrodes_are_permuted_at_random_with_the_same_p() -> None:
    values = np.random.default_rng(0).normal(size=24) + np.repeat([0, 0.8], 12)
    found = permutation_test(values, [0] * 12 + [1] * 12, seed=1)
    assert found.permutations == statistics.MAX_PERMUTATIONS
    assert found.p == permutation_test(values, [0] * 12 + [1] * 12, seed=1).p
    assert found.p != permutation_test(values, [0] * 12 + [1] * 12, seed=2).p
    assert found.p == pytest.approx(scipy.stats.ttest_ind(values[:12], values[12:]).pvalue, rel=0.3)


def test_more_than_two_groups() -> None:
    values = np.array([0.1, 0.12, 0.5, 0.52, 0.9, 0.92])
    found = permutation_test(values, [1, 1, 2, 2, 3, 3])
    assert found.permutations == 90
    assert np.isnan(found.difference)
    assert found.p == pytest.approx(6 / 90)


def test_the_curve_has_the_moments_of_all_ways() -> None:
    """Against the beta distribution of scipy on moments counted by hand, and Box and Andersen's closed form of them."""
    values = np.array([0.31, 0.42, 0.36, 0.55, 0.47, 0.61, 0.40, 0.52])
    groups = [0, 1, 0, 1, 0, 1, 0, 1]
    found = permutation_test(values, groups)
    rest = values - values.mean()
    total = float((rest**2).sum())
    shares = [8 * rest[list(w)].mean() ** 2 / total for w in combinations(range(8), 4)]  # 4 m^2 in both groups
    mean, variance = float(np.mean(shares)), float(np.var(shares))
    assert mean == pytest.approx(1 / 7)
    size = mean * (1 - mean) / variance - 1
    observed = 8 * rest[1::2].mean() ** 2 / total
    assert found.p_fitted == pytest.approx(scipy.stats.beta.sf(observed, mean * size, (1 - mean) * size))
    assert 0.001 < found.p_fitted < found.p
    # E[(sum over a group)^4] of n = 4 out of N = 8 from the power sums of the values
    s2, s4 = total, float((rest**4).sum())
    pairs, quads = (s2**2 - s4) / 2, (3 * s2**2 - 6 * s4) / 24  # sums over sets of two and of four different values
    fourth = s4 / 2 + 6 * (12 / 56) * pairs + 4 * (12 / 56) * -s4 + 12 * (24 / 336) * (2 * s4 - s2**2) / 2
    fourth += 24 * (24 / 1680) * quads
    assert (8 / 16 / total) ** 2 * fourth == pytest.approx(np.mean(np.square(shares)))


def test_the_curve_changes_with_nothing_but_the_order() -> None:
    values = np.random.default_rng(3).normal(size=9)
    groups = [1] * 4 + [5] * 5
    found = permutation_test(values, groups).p_fitted
    assert permutation_test(3 - 7 * values, groups).p_fitted == pytest.approx(found)
    assert permutation_test(values[::-1], groups[::-1]).p_fitted == pytest.approx(found)
    assert permutation_test(values, [9 - g for g in groups]).p_fitted == pytest.approx(found)
    assert permutation_test(np.append(values[:8], 90.0), groups).p_fitted > 0.3  # one outlier is no difference
    assert permutation_test(np.ones(9), groups).p_fitted == 1
    assert permutation_test(np.eye(8)[0], [0] * 4 + [1] * 4).p_fitted == 1  # every way is like every other
    assert np.isnan(permutation_test(values[:7], groups[1:8]).p_fitted)  # 3 against 4: counted alone


@pytest.mark.parametrize("law", ["normal", "exponential", "standard_cauchy", "laplace"])
def test_the_curve_keeps_the_level(law: str) -> None:
    """4 against 4 values of one distribution: 5 % of 2,000 below 0.05 and 1 % below 0.01, within sampling; and for
    normal values the p of Student's t in the mean."""
    draw = getattr(np.random.default_rng(5), law)
    tests = [permutation_test(draw(size=8), [0] * 4 + [1] * 4).p_fitted for _ in range(2000)]
    assert np.mean(np.array(tests) < 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)
    assert np.mean(np.array(tests) < 0.01) < 0.01 + 3 * np.sqrt(0.01 * 0.99 / 2000)
    assert np.mean(np.array(tests) < 0.05) > 0.03


def test_the_curve_is_students_for_normal_values() -> None:
    rng = np.random.default_rng(6)
    gap = []
    for _ in range(300):
        values = rng.normal(size=10) + np.repeat([0, 1.5], 5)
        found = permutation_test(values, [0] * 5 + [1] * 5).p_fitted
        gap.append(found - scipy.stats.ttest_ind(values[:5], values[5:]).pvalue)
    assert abs(np.mean(gap)) < 0.005
    assert np.std(gap) < 0.03


def test_permutation_wants_groups() -> None:
    with pytest.raises(ValueError, match=r"groups: must be at least two; got 1\."):
        permutation_test(np.ones(3), [1, 1, 1])
    with pytest.raises(ValueError, match=r"values: must be one for each electrode, 2; got 3\."):
        permutation_test(np.ones(3), [1, 2])


def test_holm_is_the_step_down_of_the_paper() -> None:
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, np.nan, 0.01]), [0.5, np.nan, 0.02])
    assert holm([]).size == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_orders_and_bounds(p: list[float]) -> None:
    adjusted = holm(p)
    assert (adjusted >= np.array(p) - 1e-12).all()
    assert (adjusted <= np.minimum(np.array(p) * len(p), 1) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= -1e-12).all()


# ---- spread ----------------------------------------------------------------------------------------------------------


def patches(rng: np.random.Generator, n: int = 800, patch: float = 6.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Surfaces tiled with patches of one area, each detached with probability 0.4: fraction, area, diameter."""
    diameter = rng.lognormal(np.log(8), 0.35, n)
    area = np.pi * diameter**2
    tiles = np.round(area / patch).astype(int)
    return rng.binomial(tiles, 0.4) / tiles, tiles * patch, diameter


def test_random_patches_are_no_finding() -> None:
    """Tiles drawn by the binomial, which the null does not use: sd ~ 1/d, their area is found, few leave the band."""
    left = 0
    for seed in range(40):
        fraction, area, diameter = patches(np.random.default_rng(seed))
        classes = np.floor(2 * np.log2(diameter)).astype(int) - 4
        found = patch_null(fraction, area, classes, 6, draws=199, seed=seed)
        assert found.patch_um2 == pytest.approx(6.0, rel=0.2)
        left += bool(np.nanmin(found.p) < 0.05)
    assert left <= 5
    middle = np.array([2 ** ((k + 4.5) / 2) for k in range(6)])
    slope = np.polyfit(np.log(middle[:5]), np.log(found.expected[:5]), 1)[0]
    assert slope == pytest.approx(-1, abs=0.1)


def test_an_excess_of_small_particles_is_found() -> None:
    hits = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        fraction, area, diameter = patches(rng)
        fraction = np.clip(fraction + rng.normal(0, 0.2, fraction.size) * (diameter < 6), 0, 1)
        classes = np.floor(2 * np.log2(diameter)).astype(int) - 4
        found = patch_null(fraction, area, classes, 6, draws=499, seed=seed)
        hits += bool(found.p[0] < 0.05 and found.observed[0] > found.high[0])
    assert hits >= 8


def test_the_null_knows_its_limits() -> None:
    rng = np.random.default_rng(0)
    fraction, area, diameter = patches(rng, 200)
    classes = np.floor(2 * np.log2(diameter)).astype(int) - 4
    found = patch_null(fraction, area, classes, 6, draws=99)
    inside = (classes >= 0) & (classes < 6)
    assert (found.n == np.bincount(classes[inside], minlength=6)).all()
    assert np.isnan(found.observed[found.n < 10]).all()
    wide = patch_null(fraction, area, classes, 6, draws=99, shared=0.1)
    shown = found.n >= 10
    assert (wide.high[shown] > found.high[shown]).all()
    few = patch_null(fraction, area, classes, 6, draws=99, least=40)
    assert np.isnan(few.observed).sum() > np.isnan(found.observed).sum()
    none = patch_null(fraction, area, classes, 6, draws=99, least=150)  # enough together, too few in every class
    assert none.patch_um2 == found.patch_um2
    assert np.isnan(none.observed).all()
    assert np.isnan(patch_null(np.ones(50), np.ones(50), np.zeros(50, int), 1).patch_um2)
    again = patch_null(fraction, area, classes, 6, draws=99)
    np.testing.assert_array_equal(found.low, again.low)
    assert (patch_null(fraction, area, classes, 6, draws=99, seed=1).low[shown] != found.low[shown]).any()


# ---- peaks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [3.0, 12.0, 60.0])
@pytest.mark.parametrize("n", [2000, 200_000])
def test_the_width_of_a_gaussian_peak(sigma: float, n: int) -> None:
    rng = np.random.default_rng(int(sigma))
    edges = np.arange(-400, 400.5) - 0.5
    counts = np.histogram(rng.normal(7, sigma, n), edges)[0]
    peak = peak_of((edges[:-1] + edges[1:]) / 2, counts)
    assert peak is not None
    assert peak.width == pytest.approx(2.3548 * sigma, rel=0.08 if n == 2000 else 0.015)
    assert peak.position == pytest.approx(7, abs=0.3 * sigma)


def test_a_peak_of_two_is_the_higher_one() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(100, 5, 90_000), rng.normal(200, 5, 30_000)])
    edges = np.arange(0, 300.5)
    peak = peak_of((edges[:-1] + edges[1:]) / 2, np.histogram(values, edges)[0])
    assert peak is not None
    assert peak.position == pytest.approx(100, abs=1.5)
    assert peak.width == pytest.approx(11.77, rel=0.05)
    assert peak_of(np.arange(3.0), np.array([5.0, 5, 5])) is None


def test_the_lattice_of_the_tests_is_what_it_says() -> None:
    """Neighbours of the made-up electrodes correlate as measured ones do."""
    rng = np.random.default_rng(0)
    r = [statistics.neighbour_correlation(x, places(N), np.full(N, 8.0))[0] for x in field(rng, N, draws=40).T]
    assert np.mean(r) == pytest.approx(0.34, abs=0.06)  # of values whose mean is taken off: less than the true 0.42
    assert fake_sample(field(rng, N)[:, 0]).diameter.size == sizes(N).size == N
