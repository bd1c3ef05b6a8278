"""Metrics of slices: by hand, against slow and obvious code, and under changes that must not matter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from cbdetach.annotations import LabelledSlice
from cbdetach.metrics import COCO_IOU, SIX, Counts, Prediction, average_precision, compare, match, summary
from cbdetach.segment import segment_slice

Array = npt.NDArray[Any]


def line(*runs: tuple[int, int]) -> Array:
    """A one-row label image from (label, length)."""
    return np.repeat([r[0] for r in runs], [r[1] for r in runs])[None].astype(np.int32)


def truth(labels: Array, ignore: Array | None = None) -> LabelledSlice:
    mask = None if ignore is None else ignore.astype(np.bool_)
    return LabelledSlice("slice", "volume", labels.astype(np.float32), labels.astype(np.int32), mask)


def scene(seed: int, side: int = 40) -> tuple[Prediction, LabelledSlice]:
    """Squares, and squares moved, dropped, cut or invented as a poor method does it; scores of one decimal tie."""
    rng = np.random.default_rng(seed)
    true, found = np.zeros((2, side, side), np.int32)
    for n in range(1, 10):
        y, x, size = (int(rng.integers(a, b)) for a, b in ((0, side - 8), (0, side - 8), (4, 11)))
        true[y : y + size, x : x + size] = n
        if rng.random() < 0.85:
            dy, dx = rng.integers(0, 3, 2) // 2
            found[y + dy : y + dy + size, x : x + size + dx] = n if rng.random() < 0.8 else rng.integers(1, 15)
    ignore = np.zeros((side, side), np.bool_)
    ignore[: int(rng.integers(0, 20)), : side // 2] = True
    return Prediction(found, rng.random(14).round(1)), truth(true, ignore)


# ---- slow and obvious ------------------------------------------------------------------------------------------------


def pixels_of(labels: Array) -> dict[int, set[tuple[int, ...]]]:
    return {int(n): set(zip(*np.nonzero(labels == n), strict=True)) for n in np.unique(labels) if n}


def slow_iou(a: set[tuple[int, ...]], b: set[tuple[int, ...]]) -> float:
    return len(a & b) / len(a | b)


def slow_left_out(p: Prediction, t: LabelledSlice) -> set[int]:
    assert t.ignore is not None
    ignore = set(zip(*np.nonzero(t.ignore & (t.labels == 0)), strict=True))
    return {n for n, at in pixels_of(p.labels).items() if 10 * len(at & ignore) >= 3 * len(at)}


def slow_objects(p: Prediction, t: LabelledSlice, threshold: float) -> tuple[int, int, int, float]:
    """TP, FP, FN and the sum of IoUs: the best of all ways to give particles to predictions."""
    found, true = pixels_of(p.labels), pixels_of(t.labels)
    best: tuple[int, float, list[int]] = (0, 0.0, [])
    names = list(found)
    for chosen in permutations([*true, *[0] * len(names)][: len(names) + len(true)], len(names)):
        iou = [slow_iou(found[n], true[m]) if m else 0 for n, m in zip(names, chosen, strict=True)]
        good = [v >= threshold for v in iou]
        matched = [n for n, g in zip(names, good, strict=True) if g]
        best = max(best, (sum(good), sum(v for v, g in zip(iou, good, strict=True) if g), matched))
    tp, total, matched = best
    fp = len(set(found) - set(matched) - slow_left_out(p, t))
    return tp, fp, len(true) - tp, total


def slow_ap(cases: Sequence[tuple[Prediction, LabelledSlice]], threshold: float) -> float:
    rows: list[tuple[float, bool]] = []
    particles = 0
    for p, t in cases:
        assert p.scores is not None
        found, free = pixels_of(p.labels), pixels_of(t.labels)
        particles += len(free)
        for n in sorted(found, key=lambda n: (-p.scores[n - 1], n)):  # type: ignore[index]
            iou = {m: slow_iou(found[n], at) for m, at in free.items()}
            m = max(iou, key=lambda m: iou[m], default=0)
            if m and iou[m] >= threshold:
                del free[m]
                rows.append((p.scores[n - 1], True))
            elif n not in slow_left_out(p, t):
                rows.append((p.scores[n - 1], False))
    curve = []
    for score in {s for s, _ in rows}:
        taken = [right for s, right in rows if s >= score]
        curve.append((sum(taken) / particles, sum(taken) / len(taken)))
    return float(np.mean([max([p for r, p in curve if r >= k / 100], default=0) for k in range(101)]))


# ---- by hand ---------------------------------------------------------------------------------------------------------


def test_six_metrics_by_hand() -> None:
    pixels = Counts(6, 2, 3, 9).metrics()
    assert tuple(pixels) == SIX
    expected = (6 / 8, 6 / 9, 6 / 11, 12 / 17, 12 / 17, (54 - 6) / math.sqrt(8 * 9 * 11 * 12))
    assert list(pixels.values()) == pytest.approx(expected)
    objects = Counts(6, 2, 3).metrics()
    assert objects["mcc"] == pytest.approx(math.sqrt(6 / 8 * 6 / 9))
    assert {n: objects[n] for n in SIX[:5]} == {n: pixels[n] for n in SIX[:5]}


def test_mcc_of_objects_is_that_of_pixels_with_endless_background() -> None:
    assert Counts(60, 7, 12).metrics()["mcc"] == pytest.approx(Counts(60, 7, 12, 10**12).metrics()["mcc"], abs=1e-6)


def test_metrics_without_a_denominator_are_nan() -> None:
    nothing = Counts(0, 0, 4).metrics()
    assert math.isnan(nothing["precision"])
    assert nothing["sensitivity"] == nothing["f_measure"] == 0
    assert all(math.isnan(v) for v in Counts(0, 0, 0, 10).metrics().values())


def test_a_line_by_hand() -> None:
    true = line((0, 2), (1, 4), (0, 4), (2, 4), (3, 6), (0, 4))
    found = line((0, 2), (5, 4), (0, 2), (7, 2), (2, 3), (0, 1), (3, 4), (0, 4), (1, 2))
    c = compare(Prediction(found, np.ones(7)), truth(true))  # labels 1, 2, 3, 5, 7
    assert c.iou.tolist() == [[0, 0, 0], [0, 3 / 4, 0], [0, 0, 4 / 6], [1, 0, 0], [0, 0, 0]]
    objects, left_out, iou = c.objects(0.5)
    assert (objects, left_out) == (Counts(3, 2, 0), 0)
    assert sorted(iou) == [4 / 6, 3 / 4, 1]
    assert c.objects(0.7)[0] == Counts(2, 3, 1)
    assert c.objects(1.0)[0] == Counts(1, 4, 2)
    assert c.pixels == Counts(11, 4, 3, 6)


def test_an_iou_of_exactly_the_threshold_counts() -> None:
    c = compare(Prediction(line((1, 11), (0, 9))), truth(line((1, 20))))
    assert c.iou[0, 0] == 0.55
    assert c.objects(0.55)[0] == Counts(1, 0, 0)
    assert average_precision([c]).tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]


def test_matching_is_of_the_most_pairs_then_of_the_largest_overlap() -> None:
    row, column = match(np.array([[0.9, 0.4], [0.6, 0.0]]), 0.3)  # greedy would take 0.9 and leave one over
    assert list(zip(row, column, strict=True)) == [(0, 1), (1, 0)]
    row, column = match(np.array([[0.9, 0.4], [0.6, 0.0]]), 0.5)
    assert list(zip(row, column, strict=True)) == [(0, 0)]
    assert [len(x) for x in match(np.zeros((0, 3)), 0.5)] == [0, 0]


@pytest.mark.parametrize(("on_ignore", "counts"), [(3, (0, 0, 1)), (2, (0, 1, 1))])
def test_a_prediction_with_30_percent_on_ignore_is_neither_right_nor_wrong(on_ignore: int, counts: Any) -> None:
    true, found = line((1, 5), (0, 20)), line((0, 10), (1, 10), (0, 5))
    ignore = line((0, 20 - on_ignore), (1, on_ignore), (0, 5))
    c = compare(Prediction(found), truth(true, ignore))
    objects, left_out, _ = c.objects()
    assert objects == Counts(*counts)
    assert left_out == (on_ignore == 3)
    assert c.pixels.fp == (0 if on_ignore == 3 else 8)
    assert c.pixels.tn == 10
    assert average_precision([c])[0] == 0


def test_a_prediction_on_ignore_that_finds_a_particle_is_right() -> None:
    true, ignore = line((1, 6), (0, 10)), line((0, 6), (1, 4), (0, 6))
    c = compare(Prediction(line((1, 10), (0, 6))), truth(true, ignore))
    assert c.objects(0.5)[:2] == (Counts(1, 0, 0), 0)
    assert c.objects(0.7)[:2] == (Counts(0, 0, 1), 1)
    assert c.pixels == Counts(6, 0, 0, 6)


def test_ignore_under_a_labelled_particle_is_not_ignored() -> None:
    everything = compare(Prediction(line((0, 6), (1, 4))), truth(line((1, 6), (0, 4)), line((1, 6), (0, 4))))
    assert everything.objects()[0] == Counts(0, 1, 1)
    assert everything.pixels == Counts(0, 4, 6, 0)


def test_average_precision_by_hand() -> None:
    """Ranked right, wrong, right of 4 particles: precision 1 up to recall 1/4, 2/3 up to 1/2, then 0."""
    true = line((1, 2), (2, 2), (3, 2), (4, 2), (0, 4))
    found = line((1, 2), (2, 2), (0, 4), (3, 4))
    expected = (26 * 1 + 25 * 2 / 3) / 101
    assert average_precision([compare(Prediction(found, np.array([0.9, 0.5, 0.7])), truth(true))])[0] == pytest.approx(
        expected
    )
    tied = (51 * 2 / 3) / 101  # one step of three predictions
    assert average_precision([compare(Prediction(found, np.ones(3)), truth(true))])[0] == pytest.approx(tied)
    by_area = (51 * 2 / 3) / 101  # the wrong one is the largest, the others tie
    assert average_precision([compare(Prediction(found), truth(true))])[0] == pytest.approx(by_area)


def test_average_precision_ranks_all_images_together() -> None:
    right, wrong = truth(line((1, 3), (0, 3))), truth(line((0, 3), (1, 3)))
    found = line((1, 3), (0, 3))
    first = [compare(Prediction(found, np.array([0.9])), right), compare(Prediction(found, np.array([0.4])), wrong)]
    last = [compare(Prediction(found, np.array([0.4])), right), compare(Prediction(found, np.array([0.9])), wrong)]
    assert average_precision(first)[0] == pytest.approx(51 / 101)
    assert average_precision(last)[0] == pytest.approx(51 / 2 / 101)
    assert math.isnan(average_precision([])[0])
    assert math.isnan(average_precision([compare(Prediction(found), truth(np.zeros((1, 6))))])[0])
    assert average_precision([compare(Prediction(np.zeros((1, 6), int)), right)])[0] == 0


def test_scores_must_be_one_for_each_label() -> None:
    true = truth(line((1, 4)))
    with pytest.raises(ValueError, match="scores: must be one number for each of the labels 1 to 2; got 1, 0 of them"):
        compare(Prediction(line((2, 4)), np.ones(1)), true)
    with pytest.raises(ValueError, match="got 2, 1 of them nan"):
        compare(Prediction(line((2, 4)), np.array([1, np.nan])), true)
    with pytest.raises(ValueError, match="shape"):
        compare(Prediction(line((2, 5))), true)


def test_summary_over_images() -> None:
    rows = [{"dice": 0.5}, {"dice": math.nan}, {"dice": 0.9}]
    assert summary(rows, ["dice"])["dice"] == pytest.approx((0.7, 0.2 * math.sqrt(2), 2))
    mean, spread, n = summary(rows[:1], ["dice"])["dice"]
    assert (mean, n) == (0.5, 1)
    assert math.isnan(spread)
    assert math.isnan(summary([], ["dice"])["dice"][0])


# ---- against slow code -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.75])
def test_objects_as_by_trying_all_matchings(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    true, found = (np.kron(rng.integers(0, 5, (3, 4)), np.ones((4, 4), int)) for _ in range(2))
    found = np.where(rng.random(found.shape) < 0.6, true, found)
    p, t = Prediction(found), truth(true, rng.random(true.shape) < 0.2)
    objects, _, iou = compare(p, t).objects(threshold)
    tp, fp, fn, total = slow_objects(p, t, threshold)
    assert (objects, iou.sum()) == (Counts(tp, fp, fn), pytest.approx(total))


def test_average_precision_as_by_loops() -> None:
    cases = [scene(seed) for seed in range(12)]
    fast = average_precision([compare(*case) for case in cases])
    assert fast == pytest.approx([slow_ap(cases, t) for t in COCO_IOU])
    assert 0.02 < fast[-1] < fast[0] < 0.95


@pytest.mark.parametrize("seed", range(8))
def test_pixels_as_by_masks(seed: int) -> None:
    p, t = scene(seed)
    assert t.ignore is not None
    kept = p.labels > 0
    out = (t.labels == 0) & (t.ignore | (kept & np.isin(p.labels, list(slow_left_out(p, t)))))
    a, b = kept[~out], t.labels[~out] > 0
    assert compare(p, t).pixels == Counts(*(int(x.sum()) for x in (a & b, a & ~b, ~a & b, ~a & ~b)))


# ---- what must not matter --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_numbering_and_flips_do_not_matter(seed: int) -> None:
    p, t = scene(seed)
    assert p.scores is not None
    assert t.ignore is not None
    rng = np.random.default_rng(seed)
    c = compare(p, t)
    new, back = np.append(0, 1 + rng.permutation(14)), np.append(0, 3 + rng.permutation(9))
    scores = np.zeros(14)
    scores[new[1:] - 1] = p.scores
    renumbered = compare(Prediction(new[p.labels], scores), truth(back[t.labels], t.ignore))
    flipped = compare(Prediction(p.labels[::-1].T, p.scores), truth(t.labels[::-1].T, t.ignore[::-1].T))
    for other in (renumbered, flipped):
        assert other.pixels == c.pixels
        assert other.objects()[:2] == c.objects()[:2]
        assert sorted(other.objects()[2]) == sorted(c.objects()[2])
        assert average_precision([other]) == pytest.approx(average_precision([c]))


def test_swapping_prediction_and_truth_swaps_precision_and_sensitivity() -> None:
    p, t = scene(3)
    one = compare(Prediction(p.labels), truth(t.labels))
    other = compare(Prediction(t.labels), truth(p.labels))
    for a, b in ((one.pixels, other.pixels), (one.objects()[0], other.objects()[0])):
        assert (a.tp, a.fp, a.fn, a.tn) == (b.tp, b.fn, b.fp, b.tn)
        assert a.metrics()["precision"] == b.metrics()["sensitivity"]
        assert a.metrics()["mcc"] == pytest.approx(b.metrics()["mcc"])


def test_truth_against_itself_is_perfect_and_ignored_extras_change_nothing() -> None:
    _, t = scene(5)
    assert t.ignore is not None
    same = compare(Prediction(t.labels), t)
    extra = t.labels.copy()
    extra[t.ignore & (t.labels == 0)] = 50
    for c in (same, compare(Prediction(extra), t)):
        assert set(c.objects()[0].metrics().values()) == {1}
        assert set(c.pixels.metrics().values()) == {1}
        assert average_precision([c]).tolist() == [1] * 10


def test_any_strictly_rising_change_of_scores_keeps_the_ranking() -> None:
    cases = [scene(seed) for seed in range(5)]
    changed = [(Prediction(p.labels, np.exp(3 * np.asarray(p.scores))), t) for p, t in cases]
    one, other = (average_precision([compare(*c) for c in x]) for x in (cases, changed))
    assert one.tolist() == other.tolist()


@pytest.mark.real_data
def test_measured_slice(real_data: Path) -> None:
    """The slice watershed as it comes on 90 hand-drawn particles: known figures of a known method."""
    image, labels, ignore = (
        tifffile.imread(real_data / f"nmc_slice_labelled{s}.tif") for s in ("", "_labels", "_ignore")
    )
    t = LabelledSlice("measured", "measured", image, labels.astype(np.int32), ignore > 0)
    c = compare(Prediction(segment_slice(image, spacing=(0.1, 0.1))), t)
    objects, left_out, iou = c.objects()
    assert objects.tp + objects.fn == 90
    assert left_out > 5
    assert objects.metrics()["f_measure"] == pytest.approx(0.86, abs=0.03)
    assert iou.mean() == pytest.approx(0.89, abs=0.02)
