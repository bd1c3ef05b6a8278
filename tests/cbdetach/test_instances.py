"""From detections to the label image of a slice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cbdetach.tiny_onnx import draw

import voxkernels as vk
from cbdetach.segment.instances import Detections, on_whole_pixels, to_labels

Array = npt.NDArray[Any]


def interpolated(found: Detections, k: int) -> Array:
    """One mask at every pixel of the slice, without any rounding."""
    box = found.boxes[k]
    sides = []
    for axis, n in ((1, found.shape[0]), (0, found.shape[1])):
        centre = np.arange(n) + 0.5
        position = (centre - box[axis]) / (box[axis + 2] - box[axis]) * 28 - 0.5
        weight = np.maximum(1 - np.abs(np.clip(position, 0, 27)[:, None] - np.arange(28)), 0)
        sides.append(weight * ((centre > box[axis]) & (centre < box[axis + 2]))[:, None])
    result: Array = sides[0] @ found.masks[k].astype(float) @ sides[1].T
    return result


def test_masks_are_pasted_where_they_lie_without_rounding() -> None:
    rng = np.random.default_rng(0)
    wrong, outline = 0, 0.0
    for _ in range(40):
        low, size = rng.uniform(-30, 150, 2), rng.uniform(5, 120, 2)
        found = draw(np.concatenate([low, low + size])[None], (160, 170))
        masks, boxes = on_whole_pixels(found)
        pasted = vk.paste_masks(masks, boxes, found.scores, found.shape) > 0
        wrong += np.count_nonzero(pasted != (interpolated(found, 0) >= 0.5))
        outline += 2 * float(size.sum())
    assert wrong <= 0.07 * outline


def greedy(found: Detections, min_pixels: float, min_share: float) -> tuple[list[int], list[float]]:
    """Which detections stay, one by one from the best; and how near each was to the limits."""
    taken, kept, near = np.zeros(found.shape, bool), [], []
    for k in range(len(found.scores)):
        one = Detections(found.boxes[[k]], found.scores[[k]], found.masks[[k]], found.shape)
        masks, boxes = on_whole_pixels(one)
        mask = vk.paste_masks(masks, boxes, one.scores, found.shape) > 0
        parts, _ = vk.label((mask & ~taken)[None], connectivity=6)
        sizes = np.bincount(parts.ravel(), minlength=2)[1:]
        largest, area = int(sizes.max()), np.count_nonzero(mask)
        frame = np.ones(found.shape, bool)
        frame[1:-1, 1:-1] = False
        at_edge = (mask & ~taken & frame).any()
        near.append(abs(largest / max(area, 1) - min_share))
        if largest > 0 and largest >= min_share * area and (largest >= min_pixels or at_edge):
            taken |= mask
            kept.append(k)
    return kept, near


@given(st.integers(0, 10_000), st.integers(0, 25), st.sampled_from([0.3, 0.5, 0.8]))
def test_overlaps_are_decided_by_score(seed: int, n: int, min_share: float) -> None:
    rng = np.random.default_rng(seed)
    shape = (60, 80)
    low, size = rng.uniform(-5, 60, (n, 2)), rng.uniform(4, 30, (n, 2))
    scores = np.sort(rng.choice(np.linspace(0.1, 0.9, 12), n))[::-1].copy()  # with ties
    found = draw(np.concatenate([low, low + size], axis=1), shape, scores=scores)
    labels, what = to_labels(found, min_pixels=20, min_share=min_share)
    counts = what.counts
    assert labels.dtype == np.int32
    assert counts["particles"] == labels.max() == len(what.scores)
    assert counts["detections"] == n
    assert counts["duplicates"] + counts["small"] + counts["enclosed"] + counts["particles"] == n
    first = np.unique(labels, return_index=True)[1][np.unique(labels) > 0]
    assert (np.diff(first) > 0).all()
    from scipy.ndimage import binary_fill_holes

    for k in range(1, labels.max() + 1):
        assert vk.label((labels == k)[None], connectivity=6)[1] == 1
        assert (binary_fill_holes(labels == k) == (labels == k)).all()
    kept, near = greedy(found, 20, min_share)
    if min(near, default=1) > 0.06:  # areas of masks are estimated on their grid
        assert counts["particles"] + counts["enclosed"] == len(kept)
        if counts["enclosed"] == 0:
            assert sorted(what.scores.tolist()) == sorted(scores[kept].astype(np.float32).tolist())
        one_by_one = [to_labels(Detections(found.boxes[[k]], scores[[k]], found.masks[[k]], shape))[0] for k in kept]
        covered = np.sum([image > 0 for image in one_by_one], axis=0, dtype=int) if kept else np.zeros(shape, int)
        assert counts["contested_pixels"] == np.count_nonzero(covered > 1)


def test_a_duplicate_gives_way_and_what_it_hid_is_seen() -> None:
    best, copy, beside = [10, 10, 40, 40], [12, 10, 44, 40], [30, 10, 60, 40]
    found = draw([best, copy, beside], (50, 70))
    labels, what = to_labels(found)
    assert what.counts["duplicates"] == 1
    np.testing.assert_allclose(what.scores, found.scores[[0, 2]])
    without, _ = to_labels(draw([best, beside], (50, 70)))
    np.testing.assert_array_equal(labels, without)
    assert to_labels(found, min_share=0.0)[1].counts["duplicates"] == 0


def test_scraps_go_away() -> None:
    found = draw([[30, 0, 40, 60], [0, 20, 60, 40]], (60, 60))  # a bar across an ellipse
    found.masks[0] = 1.0
    labels, what = to_labels(found, min_share=0.2)
    assert what.counts["particles"] == 2
    assert what.counts["scrap_pixels"] > 100
    assert not labels[:, 42:].any()


def test_what_a_particle_encloses_is_its_own() -> None:
    ring = draw([[5, 5, 45, 45], [20, 20, 30, 30]], (50, 50), scores=np.array([0.6, 0.9]))
    labels, what = to_labels(ring)
    assert (what.counts["particles"], what.counts["enclosed"]) == (1, 1)
    assert what.scores.tolist() == pytest.approx([0.6])
    assert (labels[20:30, 20:30] == 1).all()
    hollow = draw([[5, 5, 45, 45]], (50, 50))
    hollow.masks[0, 10:18, 10:18] = 0
    labels, what = to_labels(hollow)
    assert what.counts["filled_pixels"] > 50
    assert (labels[20:30, 20:30] == 1).all()


def test_small_particles_are_dropped_unless_the_edge_cuts_them() -> None:
    found = draw([[10, 10, 16, 16], [-3, 20, 3, 26]], (40, 40))
    assert to_labels(found, min_pixels=20)[1].counts["particles"] == 2
    _, what = to_labels(found, min_pixels=40)
    assert (what.counts["particles"], what.counts["small"]) == (1, 1)
    outside = draw([[50, 50, 60, 60]], (40, 40))
    assert to_labels(outside)[1].counts["small"] == 1


def test_no_detection_is_an_empty_label_image() -> None:
    labels, what = to_labels(draw(np.zeros((0, 4)), (5, 6)))
    assert labels.shape == (5, 6)
    assert not labels.any()
    assert what.scores.shape == (0,)
    assert set(what.counts.values()) == {0}


def test_above_keeps_the_best_and_their_pieces() -> None:
    found = draw([[0, 0, 9, 9], [0, 0, 5, 5]], (9, 9), pieces=np.array([False, True]))
    assert to_labels(found, min_share=0)[1].counts["pieces"] == 1
    best = found.above(0.8)
    assert best.scores.tolist() == pytest.approx([0.9])
    assert to_labels(best)[1].counts["pieces"] == 0
    assert replace(found, pieces=None).above(0.8).pieces is None
