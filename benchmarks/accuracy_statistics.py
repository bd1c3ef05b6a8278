"""What the statistics promise, by simulation: `python -m benchmarks.accuracy_statistics [TRIALS]`.

Made-up electrodes (particles on a jittered lattice, detachments correlated in space) whose truth is known: how often
the intervals hold it, the effective n beside the true one, false positives and power of tests between electrodes, and
the random-patch null. TRIALS, 300 by default, is the number of draws for each row.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from tests.cbdetach.fake_electrodes import covariance, electrode_values, fake_sample, field, places
from tests.cbdetach.test_statistics import patches

from cbdetach import compare, statistics
from cbdetach.report import relations

SD = 0.11
"""Standard deviation of the detachments of an electrode's particles."""

FIELDS = {"0": (0.0, 8.0), "0.2": (0.8, 6.0), "0.42": (0.8, 12.0), "0.6": (1.0, 16.0)}
"""Correlation of neighbours -> nugget and length (um) of the field; particles are 8 um apart."""


def coverage(n: int, trials: int, say: Callable[[str], None]) -> None:
    """Share of 95 % intervals that hold the truth: median and correlation, beside intervals as if independent."""
    at, blocks = places(n), statistics.spatial_blocks(places(n))
    diameter = np.full(n, 8.0)
    for name, (nugget, length) in FIELDS.items():
        rng = np.random.default_rng(0)
        true_n = n**2 / covariance(n, nugget, length).sum()
        a = field(rng, n, nugget=nugget, length=length, draws=trials)
        b = 0.4 * a + np.sqrt(1 - 0.16) * field(rng, n, nugget=nugget, length=length, draws=trials)
        held, alone, r_held, r_alone, worth = [], [], [], [], []
        for x, y in zip(a.T, b.T, strict=True):
            cx, cy = (statistics.correlogram(v, at, diameter) for v in (x, y))
            worth.append(cx.effective_n)
            for found, into in (
                (statistics.quantile_interval(x, blocks, effective_n=cx.effective_n), held),
                (statistics.quantile_interval(x, np.arange(n)), alone),
            ):
                into.append(found.low <= 0 <= found.high)
            effective = statistics.effective_pairs(cx, cy, at)
            both = statistics.correlation_interval(x, y, blocks, effective_n=effective)
            r_held.append(both.low <= 0.4 <= both.high)
            z, reach = np.arctanh(both.value), 1.96 / np.sqrt(n - 3)
            r_alone.append(np.tanh(z - reach) <= 0.4 <= np.tanh(z + reach))
        low, middle, high = np.quantile(worth, (0.1, 0.5, 0.9))
        say(
            f"| {n} | {name} | {np.mean(held):.3f} | {np.mean(alone):.3f} | {np.mean(r_held):.3f} | "
            f"{np.mean(r_alone):.3f} | {true_n:.0f} | {middle:.0f} ({low:.0f} to {high:.0f}) |"
        )


def called(trials: int, *, icc: float, shift: float) -> tuple[float, float, float]:
    """Shares of comparisons of 4 with 4 electrodes with p < 0.05: as compared, as counted, and by the z-test that knows
    every variance, which no test of the electrodes' means can beat."""
    rng = np.random.default_rng([int(1000 * icc), int(100 * shift)])
    hits = np.zeros(3)
    rates = [0.1] * 4 + [5.0] * 4
    mean = 0.38 + shift * np.repeat([0, 1], 4)
    # of an electrode's mean: its own effect, and its particles, which correlate as `electrode_values` makes them
    variance = SD**2 * (icc + (1 - icc) * covariance(125, 0.8, 6.0).mean())
    for _ in range(trials):
        values = electrode_values(rng, 8, 125, mean=mean, sd=SD, icc=icc)
        samples = [fake_sample(v, seed=k) for k, v in enumerate(values)]
        edges = relations.size_edges(np.concatenate([s.diameter for s in samples]))
        medians, counts = compare.class_medians(samples, edges)
        value, _ = compare.same_size_values(medians, counts, np.median(values, axis=1))
        tests = compare.group_tests(value, medians, rates, edges)
        first = tests[tests["kind"] == "all sizes"].iloc[0]
        z = (values[4:].mean() - values[:4].mean()) / np.sqrt(variance / 2)
        hits += [first["p"] < 0.05, first["p_counted"] < 0.05, abs(z) > 1.96]
    found, counted, bound = (hits / trials).tolist()
    return found, counted, bound


LAWS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "normal": lambda rng: rng.normal(size=8),
    "uniform": lambda rng: rng.uniform(size=8),
    "exponential": lambda rng: rng.exponential(size=8),
    "log-normal": lambda rng: rng.lognormal(size=8),
    "Cauchy": lambda rng: rng.standard_cauchy(8),
    "Student's t, 3": lambda rng: rng.standard_t(3, 8),
    "one in ten five times as far": lambda rng: rng.normal(size=8) * np.where(rng.random(8) < 0.1, 5, 1),
    "two points": lambda rng: np.sign(rng.normal(size=8)) + 0.05 * rng.normal(size=8),
    "one group three times as wide": lambda rng: rng.normal(size=8) * np.repeat([3, 1], 4),
}
"""Values of 4 and 4 electrodes without a difference."""


def levels(draws: int, say: Callable[[str], None]) -> None:
    """Share of nulls of every law with p < 0.05: from the curve, and counted."""
    for name, law in LAWS.items():
        rng = np.random.default_rng(3)
        found = [statistics.permutation_test(law(rng), [0] * 4 + [1] * 4) for _ in range(draws)]
        fitted, counted = (
            100 * np.mean([p < 0.05 for p in ps]) for ps in zip(*((f.p_fitted, f.p) for f in found), strict=True)
        )
        say(f"| {name} | {fitted:.1f} % | {counted:.1f} % |")


def null_of_patches(trials: int, draws: int = 299) -> tuple[float, float, float]:
    """Share of pure patch models that leave the null; area found / true; share of planted excesses found."""
    left, area, found_excess = [], [], []
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        fraction, surface, diameter = patches(rng)
        classes = np.floor(2 * np.log2(diameter)).astype(int) - 4
        null = statistics.patch_null(fraction, surface, classes, 6, draws=draws, seed=seed)
        left.append(np.nanmin(null.p) < 0.05)
        area.append(null.patch_um2 / 6)
        more = np.clip(fraction + rng.normal(0, 0.2, fraction.size) * (diameter < 6), 0, 1)
        found_excess.append(statistics.patch_null(more, surface, classes, 6, draws=draws, seed=seed).p[0] < 0.05)
    return float(np.mean(left)), float(np.mean(area)), float(np.mean(found_excess))


def main(trials: int, say: Callable[[str], None]) -> None:
    """Print every table."""
    say("| n | neighbours | median | as if independent | r | as if independent | true effective n | found |")
    say("|---|---|---|---|---|---|---|---|")
    for n in (216, 512):
        coverage(n, trials, say)
    say("\n| 4 against 4 electrodes, p < 0.05 | intraclass 0 | 0.05 | 0.1 |\n|---|---|---|---|")
    for shift in (0.0, 0.1):
        shares = [called(trials, icc=icc, shift=shift) for icc in (0.0, 0.05, 0.1)]
        for name, row in zip(("", ", p counted", ", every variance known"), zip(*shares, strict=True), strict=True):
            say(f"| shift {shift}{name} | {' | '.join(f'{100 * share:.1f} %' for share in row)} |")
    say("\n| 4 against 4 values, nulls with p < 0.05 | curve | counted |\n|---|---|---|")
    levels(10 * trials, say)
    left, area, excess = null_of_patches(trials)
    say(f"\npatches alone leave the null in {100 * left:.1f} %, area found / true {area:.2f}")
    say(f"a planted excess is found in {100 * excess:.0f} %")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300, print)
