"""How right a segmentation is: predicted particles of slices against labelled ones, on pixels and on objects.

*Ignore areas* (`LabelledSlice.ignore`): a prediction with at least 30 % of its pixels there that matches no labelled
particle is left out: neither right nor wrong, as a crowd region of COCO. On pixels, the area itself is left out, and so
is what such a prediction covers beside labelled particles.

*Objects* are matched one-to-one (Hungarian): as many pairs as can have an IoU of at least the threshold, and among
these the largest sum of IoUs. Precision TP/(TP+FP), sensitivity TP/(TP+FN), Jaccard TP/(TP+FP+FN), Dice
2TP/(2TP+FP+FN); the F measure (beta 1) is the same number as Dice, and is named because the paper shows both. MCC needs
true negatives. Pixels have them; of objects that are rightly not there any number can be imagined, and for many MCC
tends to sqrt(precision x sensitivity) (Crall, arXiv:2305.00594, 2023), which is what is given. A metric whose
denominator is 0 is nan and left out of means: precision without predictions, sensitivity without particles.

*AP* as COCO: in each image the predictions, best score first, take the free particle of the largest IoU, if that is at
least the threshold; all images' predictions in one ranking; precision made monotonic and read at the recalls 0, 0.01
... 1. No limit on detections. Predictions of equal score enter together, so their order is of no matter. Predictions
without scores are ranked by area, largest first.

Source: Lin et al., Microsoft COCO (2014), and the evaluation of its tools (maxDets without limit, one area range).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import voxkernels as vk
from cbdetach.annotations import LabelledSlice

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SIX = ("precision", "sensitivity", "jaccard", "dice", "f_measure", "mcc")
COCO_IOU = tuple(k / 100 for k in range(50, 100, 5))
IGNORED_PERCENT = 30


@dataclass(frozen=True, eq=False)
class Prediction:
    """Particles that a method finds on a slice.

    Attributes:
        labels: (Y, X) integer: 0 outside, 1..n inside the particles; a number may be absent.
        scores: (n,) of the particles 1..n, or None: ranked by area.
    """

    labels: npt.NDArray[Any]
    scores: npt.NDArray[Any] | None = None


@dataclass(frozen=True)
class Counts:
    """Right, wrong, missed, and rightly absent (None: not countable, as with objects)."""

    tp: int
    fp: int
    fn: int
    tn: int | None = None

    def __add__(self, other: Counts) -> Counts:
        tn = None if self.tn is None or other.tn is None else self.tn + other.tn
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, tn)

    def metrics(self) -> dict[str, float]:
        """The six metrics `SIX`; nan where the denominator is 0."""
        tp, fp, fn = self.tp, self.fp, self.fn
        precision, sensitivity = _ratio(tp, tp + fp), _ratio(tp, tp + fn)
        dice = _ratio(2 * tp, 2 * tp + fp + fn)
        if self.tn is None:
            mcc = math.sqrt(precision * sensitivity)
        else:
            tn = self.tn
            mcc = _ratio(tp * tn - fp * fn, math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))
        return dict(zip(SIX, (precision, sensitivity, _ratio(tp, tp + fp + fn), dice, dice, mcc), strict=True))


@dataclass(frozen=True, eq=False)
class Comparison:
    """One slice: how its P predictions and T labelled particles overlap. Numbers ascending in both."""

    iou: Floats  # (P, T)
    scores: Floats  # (P,)
    ignorable: Mask  # (P,): enough of it lies on ignore areas
    pixels: Counts

    def objects(self, iou: float = 0.5) -> tuple[Counts, int, Floats]:
        """Counts of objects matched at `iou`, predictions left out, and the IoUs of the matches (TP,)."""
        row, column = match(self.iou, iou)
        left_out = int(np.count_nonzero(np.delete(self.ignorable, row)))
        tp = len(row)
        counts = Counts(tp, self.iou.shape[0] - tp - left_out, self.iou.shape[1] - tp)
        return counts, left_out, self.iou[row, column]


def compare(predicted: Prediction, truth: LabelledSlice) -> Comparison:
    """Overlaps of the predicted and the labelled particles of one slice.

    Raises
    ------
    TypeError, ValueError : labels that are not integer, negative, or of another shape than the truth; fewer scores than
        labels, or one that is nan.
    """
    overlap = vk.overlap_counts(predicted.labels, truth.labels)
    ignore = np.zeros(truth.labels.shape, np.bool_) if truth.ignore is None else truth.ignore & (truth.labels == 0)
    labels, size = overlap.labels_a, overlap.size_a
    if predicted.scores is None:
        scores = size.astype(np.float64)
    elif len(predicted.scores) < labels.max(initial=0) or np.isnan(predicted.scores).any():
        raise ValueError(
            f"scores: must be one number for each of the labels 1 to {labels.max(initial=0)}; got "
            f"{len(predicted.scores)}, {np.count_nonzero(np.isnan(predicted.scores))} of them nan."
        )
    else:
        scores = np.asarray(predicted.scores, np.float64)[labels - 1]
    within = vk.overlap_counts(predicted.labels, ignore.astype(np.uint8))
    on_ignore = np.zeros(len(labels), np.int64)
    on_ignore[np.searchsorted(labels, within.ids_a)] = within.count
    ignorable = 100 * on_ignore >= IGNORED_PERCENT * size

    beside = np.zeros(int(labels.max(initial=0)) + 1, np.bool_)
    beside[labels[ignorable]] = True
    particle, found = truth.labels > 0, predicted.labels > 0
    seen = particle | ~(ignore | beside[predicted.labels])
    pixels = Counts(
        tp=int(np.count_nonzero(found & particle)),
        fp=int(np.count_nonzero(found & ~particle & seen)),
        fn=int(np.count_nonzero(particle & ~found)),
        tn=int(np.count_nonzero(~particle & ~found & seen)),
    )
    return Comparison(1 - vk.overlap_cost(overlap), scores, ignorable, pixels)


def match(iou: Floats, threshold: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """One-to-one pairs (rows, columns) of `iou` (P, T): as many as can be of at least `threshold` (above 0), and of all
    ways to have so many the one of the largest sum."""
    from scipy.optimize import linear_sum_assignment

    allowed = iou >= threshold
    worth = np.where(allowed, iou + min(iou.shape) + 1, 0)  # one more pair is worth more than any sum of IoUs
    row, column = linear_sum_assignment(worth, maximize=True)
    pair = allowed[row, column]
    return row[pair], column[pair]


def average_precision(slices: Sequence[Comparison], thresholds: Sequence[float] = COCO_IOU) -> Floats:
    """AP over the slices at each IoU threshold: (K,) float64 in 0..1; nan without a labelled particle."""
    particles = sum(s.iou.shape[1] for s in slices)
    scores = np.concatenate([s.scores for s in slices]) if slices else np.zeros(0)
    result = np.full(len(thresholds), np.nan)
    for k, threshold in enumerate(thresholds):
        if particles:
            right, left_out = (np.concatenate(x) for x in zip(*(_take(s, threshold) for s in slices), strict=True))
            result[k] = _area(scores[~left_out], right[~left_out], particles)
    return result


def summary(rows: Sequence[Mapping[str, float]], names: Sequence[str] = SIX) -> dict[str, tuple[float, float, int]]:
    """Of each metric the mean over images, their standard deviation (n - 1), and n: the images where it is a number."""
    result = {}
    for name in names:
        values = np.array([row[name] for row in rows], np.float64)
        values = values[~np.isnan(values)]
        mean = float(values.mean()) if values.size else math.nan
        result[name] = mean, float(values.std(ddof=1)) if values.size > 1 else math.nan, int(values.size)
    return result


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _take(s: Comparison, threshold: float) -> tuple[Mask, Mask]:
    """Which predictions find a particle when the best takes first, and which of the others are left out."""
    right = np.zeros(len(s.scores), np.bool_)
    free = s.iou.copy()
    for p in np.argsort(-s.scores, kind="stable"):
        if free.shape[1] and free[p].max() >= threshold:
            free[:, free[p].argmax()] = -1
            right[p] = True
    return right, s.ignorable & ~right


def _area(scores: Floats, right: Mask, particles: int) -> float:
    """Mean over 101 recalls of the best precision at that recall or a higher one."""
    order = np.argsort(-scores, kind="stable")
    tp, fp = np.cumsum(right[order]), np.cumsum(~right[order])
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # of those that score the same
    recall, precision = tp[last] / particles, tp[last] / (tp[last] + fp[last])
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(best[np.searchsorted(recall, np.arange(101) / 100)].mean())
