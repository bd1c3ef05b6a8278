"""Inference: tiles and stitching, the label image, coordinates, model files, providers, reading ahead."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cbdetach import tiny_onnx
from tests.cbdetach.tiny_onnx import METADATA, OUTPUTS, SIDE, blobs, disc, node

import voxkernels as vk
from cbdetach.errors import InputError
from cbdetach.segment import maskrcnn, runtime, segment_slice
from cbdetach.segment.ahead import ahead
from cbdetach.segment.instances import Detections, on_whole_pixels, to_labels
from cbdetach.segment.maskrcnn import Segmenter, estimated_diameter
from cbdetach.segment.tiles import TOUCHING, Raw, pixels_of, stitch, tiles_of

Array = npt.NDArray[Any]
UNIT = {"levels": (0.0, 1.0), "diameter_px": SIDE}


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "blobs.onnx"
    path.write_bytes(blobs())
    return path


def peaks(rng: np.random.Generator, shape: tuple[int, int], n: int, apart: float = 24.0) -> tuple[Array, Array]:
    """An image with peaks of different height, and where they are (y, x)."""
    image, at = np.zeros(shape, np.float32), np.zeros((0, 2), int)
    for value in np.linspace(1.5, 1.99, n):
        place = rng.integers(0, shape)
        if (np.abs(at - place).max(1, initial=0) >= apart).all() if len(at) else True:
            at = np.vstack([at, place])
            image[tuple(place)] = value
    return image, at


def draw(boxes: Array, shape: tuple[int, int], *, scores: Array | None = None, **options: Any) -> Detections:
    """Discs that fill boxes."""
    n = len(boxes)
    falling = np.linspace(0.9, 0.5, n) if scores is None else scores
    masks = np.repeat(disc()[None], n, axis=0)
    return Detections(np.asarray(boxes, float).reshape(n, 4), falling.astype(np.float32), masks, shape, **options)


# ---- tiles -----------------------------------------------------------------------------------------------------------


@given(st.tuples(st.integers(1, 700), st.integers(1, 700)), st.integers(2, 8), st.floats(0, 0.9))
def test_tiles_cover_a_slice_and_overlap(shape: tuple[int, int], size: int, share: float) -> None:
    tile = 32 * size
    overlap = int(share * (tile - 2))
    tiles = tiles_of(shape, tile=tile, overlap=overlap)
    assert len({t.size for t in tiles}) == 1
    for axis, length in enumerate(shape):
        parts = sorted({(t.start[axis], t.size[axis], t.first[axis], t.last[axis], t.core[axis]) for t in tiles})
        assert parts[0][0] == 0
        assert parts[-1][0] + parts[-1][1] >= length
        assert all(n % 32 == 0 and n <= tile for _, n, *_ in parts)
        assert [p[2] for p in parts] == [i == 0 for i in range(len(parts))]
        assert [p[3] for p in parts] == [i == len(parts) - 1 for i in range(len(parts))]
        assert (parts[0][4][0], parts[-1][4][1]) == (-np.inf, np.inf)
        for (start, n, _, _, core), (next_start, _, _, _, next_core) in pairwise(parts):
            assert start + n - next_start >= overlap
            assert start + n <= length  # only a slice smaller than a tile is padded
            assert core[1] == next_core[0]
            assert next_start <= core[1] <= start + n
            assert min(start + n - core[1], core[1] - next_start) >= overlap / 2
    assert len(tiles) == len({t.start for t in tiles})


def test_a_tile_beyond_the_slice_continues_its_edge() -> None:
    image = np.arange(12, dtype=np.float32).reshape(3, 4)
    (tile,) = tiles_of(image.shape, tile=64, overlap=8)
    pixels = pixels_of(image, tile)
    assert pixels.shape == (32, 32)
    np.testing.assert_array_equal(pixels[:3, :4], image)
    assert (pixels[:, 3:] == pixels[:, 3:4]).all()
    assert (pixels[2:] == pixels[2]).all()


def seen(boxes: Array, scores: Array, start: tuple[int, int], size: tuple[int, int], noise: Array) -> Raw:
    """What a perfect network finds on a tile: ellipses, those that its border cuts as pieces."""
    origin = np.array([start[1], start[0]] * 2, float)
    limits = np.array([[0, 0], [size[1], size[0]]], float)
    inside = boxes - origin
    clipped = np.concatenate([np.maximum(inside[:, :2], limits[0]), np.minimum(inside[:, 2:], limits[1])], axis=1)
    there = (clipped[:, 2:] - clipped[:, :2] > 1).all(1)
    cells = (np.arange(28) + 0.5) / 28
    masks = []
    for full, part in zip(inside[there], clipped[there], strict=True):
        x, y = (part[a] + cells * (part[a + 2] - part[a]) for a in (0, 1))
        x, y = ((c - (full[a] + full[a + 2]) / 2) / (full[a + 2] - full[a]) * 2 for a, c in ((0, x), (1, y)))
        masks.append(np.where(np.hypot(y[:, None], x[None]) <= 1, 0.9, 0.1))
    whole = (clipped == inside).all(1)
    lower = np.where(whole, scores, noise * scores)[there]
    return Raw(clipped[there], lower, np.array(masks, np.float32).reshape(-1, 28, 28))


@given(st.integers(0, 10_000), st.integers(0, 60))
def test_tiled_is_untiled(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    shape, tile, overlap = (int(rng.integers(60, 400)), int(rng.integers(60, 400))), 128, 48
    sides = rng.uniform(6, overlap - 2 * TOUCHING - 1, (n, 2))
    low = rng.uniform(0, 1, (n, 2)) * (np.array(shape[::-1]) - sides)
    boxes = np.concatenate([low, low + sides], axis=1)
    apart = np.ones(n, bool)  # no two of them are much the same
    for i in range(n):
        common = np.minimum(boxes[i, 2:], boxes[:i, 2:]) - np.maximum(boxes[i, :2], boxes[:i, :2])
        area = np.prod(np.maximum(common, 0), axis=1)
        smaller = np.minimum(np.prod(sides[i]), np.prod(sides[:i], axis=1))
        apart[i] = (area < 0.3 * smaller)[apart[:i]].all()
    boxes = boxes[apart]
    scores = rng.permutation(np.linspace(0.3, 0.99, len(boxes)))
    tiles = tiles_of(shape, tile=tile, overlap=overlap)
    parts = [seen(boxes, scores, t.start, t.size, rng.uniform(0.5, 1.2, len(boxes))) for t in tiles]
    found, pieces = stitch(parts, tiles, shape)
    order = np.argsort(-scores)
    np.testing.assert_allclose(found.boxes, boxes[order], atol=1e-9)
    np.testing.assert_array_equal(found.scores, scores[order])
    assert not pieces.any()


def test_a_particle_larger_than_the_overlap_is_counted_as_cut() -> None:
    box = np.array([[100.0, 20.0, 180.0, 60.0]])
    tiles = tiles_of((96, 240), tile=128, overlap=16)
    parts = [seen(box, np.ones(1), t.start, t.size, np.ones(1)) for t in tiles]
    found, pieces = stitch(parts, tiles, (96, 240))
    assert pieces.any()
    assert len(pieces) == len(found.scores)


def test_the_same_particle_seen_a_little_differently_comes_once() -> None:
    tiles = tiles_of((96, 240), tile=160, overlap=64)
    assert len(tiles) == 2
    end, start = tiles[0].start[1] + tiles[0].size[1], tiles[1].start[1]
    middle = (start + end) / 2
    for shift in (-1.0, 1.0):  # each tile thinks that the centre lies in its own core, or each in the other's
        parts = [
            Raw(np.array([[x - 12, 30, x + 12, 54.0]]), np.array([score]), disc()[None])
            for x, score in ((middle - shift, 0.8), (middle + shift - start, 0.9))
        ]
        found, _ = stitch(parts, tiles, (96, 240))
        assert found.scores.tolist() == [0.9]


def test_detections_in_the_padding_are_none() -> None:
    tiles = tiles_of((20, 20), tile=64, overlap=8)
    part = Raw(np.array([[1.0, 1, 9, 9], [21, 2, 31, 12]]), np.array([0.5, 0.9]), np.repeat(disc()[None], 2, 0))
    found, _ = stitch([part], tiles, (20, 20))
    assert found.scores.tolist() == [0.5]


# ---- the label image -------------------------------------------------------------------------------------------------


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


# ---- coordinates -----------------------------------------------------------------------------------------------------


def test_boxes_come_back_to_the_pixels_of_the_slice(detector: Path) -> None:
    small, at = peaks(np.random.default_rng(0), (60, 96), 12)
    y, x = at[np.argsort(-small[tuple(at.T)])].T + 0.5
    network = Segmenter(detector)
    for grow_y, grow_x in ((1, 1), (2, 2), (3, 2)):
        image = np.kron(small, np.ones((grow_y, grow_x), np.float32))
        wide = np.stack([x - SIDE / 2, y - SIDE / 2, x + SIDE / 2, y + SIDE / 2], axis=1)
        wide *= [grow_x, grow_y, grow_x, grow_y]
        options = {"levels": (0.0, 0.5 if grow_y > 1 else 1.0), "diameter_px": (SIDE * grow_y, SIDE * grow_x)}
        (found,) = network.detect([image], **options)  # type: ignore[arg-type]
        assert found.shape == image.shape
        assert len(found.boxes) == len(wide)
        distance = np.abs(found.boxes[:, None] - wide[None]).max(2)
        assert distance.min(1).max() <= (1e-4 if grow_y == 1 else grow_y)  # the zoomed peak may move by one pixel


def test_a_peak_that_the_zoom_hits_exactly_comes_back_exactly(detector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a pixel anywhere would show: a plain block average stands for the zoom."""

    def blocks(image: Array, shape: tuple[int, int]) -> Array:
        y, x = (n // m for n, m in zip(image.shape, shape, strict=True))
        return image.reshape(shape[0], y, shape[1], x).mean((1, 3), dtype=np.float32)

    monkeypatch.setattr(maskrcnn, "zoomed", blocks)
    image = np.zeros((120, 200), np.float32)
    image[44:46, 84:88] = 1.7  # the network's pixel (22, 21)
    (found,) = Segmenter(detector).detect([image], levels=(0, 1), diameter_px=(2 * SIDE, 4 * SIDE))
    np.testing.assert_array_equal(found.boxes, [[86 - 40, 45 - 20, 86 + 40, 45 + 20]])


def test_a_slice_is_not_zoomed_more_than_threefold(detector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    monkeypatch.setattr(maskrcnn, "zoomed", lambda image, shape: shapes.append(shape) or np.zeros(shape, np.float32))
    list(Segmenter(detector).detect([np.zeros((10, 7))], levels=(0, 1), diameter_px=0.5))
    list(Segmenter(detector).detect([np.zeros((10, 7))], levels=(0, 1), diameter_px=1e6))
    assert shapes == [(30, 21), (1, 1)]


def test_what_the_network_is_taught_is_what_is_pasted() -> None:
    """Boxes and masks of perfect answers, pasted, come to lie where the particles were."""
    torch = pytest.importorskip("torch")
    from torchvision.models.detection.roi_heads import project_masks_on_boxes

    from cbdetach.train.loop import taught

    y, x = np.indices((64, 64)) + 0.5
    rng = np.random.default_rng(0)
    away, iou = [], []
    for _ in range(20):
        truth = np.hypot(y - rng.uniform(20, 40), x - rng.uniform(20, 40)) <= rng.uniform(8, 18)
        rows, columns = (np.flatnonzero(truth.any(axis)) for axis in (1, 0))
        box = torch.tensor([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], dtype=torch.float32)
        target = taught({"boxes": box, "masks": torch.from_numpy(truth[None].astype(np.uint8))}, 1.5)
        mask = project_masks_on_boxes(target["masks"], target["boxes"], torch.tensor([0]), 28)
        found = Detections(target["boxes"].numpy(), np.ones(1, np.float32), mask.numpy(), truth.shape)
        labels, _ = to_labels(found)
        away.append(np.argwhere(labels).mean(0) - np.argwhere(truth).mean(0))
        iou.append(np.count_nonzero((labels > 0) & truth) / np.count_nonzero((labels > 0) | truth))
    np.testing.assert_allclose(np.mean(away, axis=0), 0, atol=0.05)
    assert np.mean(iou) > 0.98


# ---- the segmenter ---------------------------------------------------------------------------------------------------


def test_tiles_give_what_one_pass_gives(detector: Path) -> None:
    image, at = peaks(np.random.default_rng(1), (210, 330), 60)
    (whole,) = Segmenter(detector, tile=352).detect([image], **UNIT)
    assert len(whole.scores) == len(at)
    for tile, overlap, batch in ((96, 48, 1), (128, 40, 3), (160, 64, 2)):
        (tiled,) = Segmenter(detector, tile=tile, overlap=overlap, batch=batch).detect([image], **UNIT)
        for name in ("boxes", "scores", "masks"):
            np.testing.assert_array_equal(getattr(tiled, name), getattr(whole, name))
        assert not tiled.pieces.any()


def test_results_do_not_depend_on_the_batch(detector: Path) -> None:
    rng = np.random.default_rng(2)
    images = [peaks(rng, shape, 10)[0] for shape in ((60, 70), (60, 70), (100, 40), (60, 70), (200, 200), (60, 70))]
    alone = [to_labels(d)[0] for image in images for d in Segmenter(detector).detect([image], **UNIT)]
    for batch in (1, 2, 5):
        network = Segmenter(detector, batch=batch, tile=96, overlap=48)
        together = [labels for labels, _ in network.label_slices(images, threshold=0.0, **UNIT)]
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_array_equal(a, b)


def test_batches_are_of_the_size_asked_for(detector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    network = Segmenter(detector, batch=3)
    run = runtime.Model.__call__
    monkeypatch.setattr(runtime.Model, "__call__", lambda self, batch: sizes.append(len(batch)) or run(self, batch))
    list(network.detect([np.zeros((40, 40), np.float32)] * 8, **UNIT))
    assert sizes == [3, 3, 2]


def test_label_counts_from_the_threshold_on(detector: Path) -> None:
    image = np.zeros((80, 120), np.float32)
    image[20, 20], image[50, 60], image[30, 100] = 1.1, 1.3, 1.9  # scores 0.275, 0.325, 0.475
    network = Segmenter(detector)
    assert network.threshold == 0.3
    labels, what = network.label(image, **UNIT)
    np.testing.assert_allclose(what.scores, [0.475, 0.325])
    assert labels[31, 101] == 1
    assert labels[51, 61] == 2
    assert network.label(image, threshold=0.2, **UNIT)[1].counts["particles"] == 3
    assert network.label(image, threshold=0.4, **UNIT)[1].counts["particles"] == 1
    assert network.label(image, min_pixels=1000, **UNIT)[1].counts["particles"] == 0


def test_levels_and_diameter_come_from_the_image(detector: Path) -> None:
    y, x = np.indices((200, 260))
    noise = np.random.default_rng(0).normal(0, 5, y.shape)
    centres = [(a, b) for a in (35, 100, 165) for b in (35, 100, 165, 230)]
    mask = np.any([np.hypot(y - a, x - b) <= 25 for a, b in centres], axis=0)
    image = np.where(mask, 160.0, 60.0) + noise
    assert estimated_diameter(image) == pytest.approx(50, rel=0.1)
    assert estimated_diameter(np.kron(image, np.ones((5, 5)))) == pytest.approx(250, rel=0.1)
    network = Segmenter(detector)
    prepared = network._prepare(image, None, None)
    assert prepared.image.shape == pytest.approx((200 * SIDE / 50, 260 * SIDE / 50), rel=0.1)
    assert np.percentile(prepared.image, (10, 90)) == pytest.approx((0, 1), abs=0.2)
    other = network._prepare(image, (60.0, 110.0), np.array([100.0, 50.0]))
    assert other.image.shape == (40, 104)
    assert np.percentile(other.image, 90) == pytest.approx(2, abs=0.2)


def test_tiny_slices_and_slices_without_particles(detector: Path) -> None:
    network = Segmenter(detector)
    for shape in ((1, 1), (3, 50), (31, 33)):
        labels, what = network.label(np.zeros(shape, np.uint8), **UNIT)
        assert labels.shape == shape
        assert not labels.any()
        assert what.counts["particles"] == 0
    spot = np.zeros((12, 12), np.float32)
    spot[6, 6] = 2
    assert network.label(spot, **UNIT)[0].max() == 1
    assert list(network.detect([])) == []
    assert estimated_diameter(np.eye(20)) > 0


def test_bad_slices_are_refused(detector: Path) -> None:
    network = Segmenter(detector)
    with pytest.raises(ValueError, match="image: must be finite; got NaN or inf"):
        network.label(np.full((9, 9), np.nan))
    with pytest.raises(ValueError, match=r"image: must be \(Y, X\)"):
        network.label(np.zeros((2, 9, 9)))
    with pytest.raises(TypeError, match="image: must be of an integer or floating-point type"):
        network.label(np.full((2, 9), "a"))
    with pytest.raises(ValueError, match="image: must hold at least one pixel"):
        network.label(np.zeros((0, 9)))
    with pytest.raises(ValueError, match="image: must hold more than one grey value"):
        network.label(np.ones((9, 9)))


def test_bad_options_are_refused(detector: Path) -> None:
    network = Segmenter(detector)
    image = np.zeros((9, 9))
    for levels in ((1.0, 1.0), (0.0, np.nan)):
        with pytest.raises(InputError, match="levels: must be two finite, different grey values"):
            network.detect([image], levels=levels)
    for diameter in (0, -2.0, np.inf, (3.0, np.nan)):
        with pytest.raises(InputError, match="diameter_px: must be positive, in pixels"):
            network.detect([image], diameter_px=diameter)
    with pytest.raises(InputError, match="threshold: must be between 0 and 1; got 2"):
        network.label(image, threshold=2)
    for options, message in (
        ({"batch": 0}, "batch: must be at least 1; got 0"),
        ({"threads": 0}, "threads: must be at least 1; got 0"),
        ({"tile": 100}, "tile: must be a positive multiple of 32; got 100"),
        ({"tile": 0}, "tile: must be a positive multiple of 32; got 0"),
        ({"tile": 128, "overlap": 128}, "overlap: must be at least 0 and less than the tile, 128; got 128"),
        ({"overlap": -1}, "overlap: must be at least 0"),
    ):
        with pytest.raises(InputError, match=message):
            Segmenter(detector, **options)  # type: ignore[arg-type]


def test_threads_reach_the_session(detector: Path) -> None:
    assert Segmenter(detector, threads=1).model.session.get_session_options().intra_op_num_threads == 1
    default = Segmenter(detector).model.session.get_session_options().intra_op_num_threads
    import numba

    assert default == numba.get_num_threads()


@pytest.mark.real_data
def test_tiles_of_the_shipped_model_leave_no_seams(real_data: Path) -> None:
    import tifffile

    if not runtime.shipped_model().is_file():
        pytest.skip("this copy has no model")
    image = tifffile.imread(real_data / "nmc_slice_labelled.tif")
    network = Segmenter(tile=544)
    ((whole, _),) = network.label_slices([image], diameter_px=50.0)
    for tile, overlap in ((320, 96), (192, 96)):
        tiled, what = Segmenter(tile=tile, overlap=overlap).label(image, diameter_px=50.0)
        common = vk.overlap_counts(whole, tiled)
        sizes = np.bincount(whole.ravel())[common.ids_a] + np.bincount(tiled.ravel())[common.ids_b]
        same = np.count_nonzero(common.count / (sizes - common.count) > 0.6)
        assert same >= 0.95 * whole.max()
        assert same >= 0.9 * tiled.max()  # small tiles may find more
        assert what.counts["pieces"] <= 1


# ---- segment_slice ---------------------------------------------------------------------------------------------------


def test_segment_slice_by_the_network(detector: Path) -> None:
    image = np.zeros((90, 130), np.float32)
    image[[25, 60], [30, 90]] = 2.0, 1.8
    of = {"segmenter": "maskrcnn", "model": detector}
    labels = segment_slice(image, diameter_um=SIDE, **of)
    assert labels.max() == 2
    np.testing.assert_array_equal(labels, segment_slice(image, diameter_um=SIDE / 5, spacing=(0.2, 0.2), **of))
    np.testing.assert_array_equal(
        labels, segment_slice(image, diameter_um=SIDE, segmenter="maskrcnn", model=Segmenter(detector))
    )
    assert segment_slice(image, diameter_um=SIDE, min_diameter_um=60.0, **of).max() == 0
    assert segment_slice(image, diameter_um=2 * SIDE, spacing=(2.0, 1.0), **of).shape == image.shape
    assert segment_slice(image, **of).shape == image.shape  # diameter from the image
    with pytest.raises(ValueError, match="diameter_um: must be a positive, finite length; got 0"):
        segment_slice(image, diameter_um=0.0, **of)


def test_a_model_is_loaded_once_until_its_file_changes(detector: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(detector.read_bytes())
    first = maskrcnn.loaded(path)
    assert maskrcnn.loaded(path) is first
    path.write_bytes(blobs(metadata={**METADATA, "score_threshold": "0.6"}))
    import os

    os.utime(path, ns=(1, 1))
    assert maskrcnn.loaded(path).threshold == 0.6


# ---- model files -----------------------------------------------------------------------------------------------------


def constant_answer(**shapes: tuple[int, ...]) -> bytes:
    """A network that answers with constants of these shapes."""
    usual = {"boxes": (1, 4), "scores": (1,), "masks": (1, 28, 28), "index": (1,)} | shapes
    constants = {
        f"c_{name}": np.zeros(shape, np.int64 if name == "index" else np.float32) for name, shape in usual.items()
    }
    nodes = [node("Identity", f"c_{name}", name) for name in OUTPUTS]
    return tiny_onnx.file([*nodes, node("Shape", "image", "unused")], constants)


def nan_answer() -> bytes:
    constants = {"c_boxes": np.zeros((1, 4), np.float32), "c_masks": np.zeros((1, 28, 28), np.float32)}
    constants |= {"c_index": np.zeros(1, np.int64), "zero": np.zeros(1, np.float32)}
    nodes = [node("Identity", f"c_{name}", name) for name in ("boxes", "masks", "index")]
    return tiny_onnx.file([*nodes, node("Div", "zero zero", "scores")], constants)


BAD_FILES = {
    "text": (b"not a model" * 50, "is damaged, or no ONNX file that ONNX Runtime can run"),
    "empty": (b"", "is damaged, or no ONNX file that ONNX Runtime can run"),
    "truncated": (blobs()[:900], "is damaged, or no ONNX file that ONNX Runtime can run"),
    "own operators": (
        tiny_onnx.file([node("Evil", "image", "boxes", domain="evil")], {}, outputs=["boxes"], domains=("", "evil")),
        "can run: .*evil:Evil",
    ),
    "no metadata": (blobs(metadata=None), "must have metadata of format 'cbdetach-maskrcnn-1'; got none"),
    "another format": (blobs(metadata={**METADATA, "format": "x-2"}), "'cbdetach-maskrcnn-1'; got format 'x-2'"),
    "altered": (blobs().replace(b"fp32", b"fp16"), "is damaged or was altered: its check sum is not the one"),
    "no check sum": (blobs().replace(b"\x06sha256", b"\x06sha257"), "is damaged or was altered"),
    "other names": (blobs(outputs=OUTPUTS[:3]), "must take `image` and give boxes, scores, masks, index; it takes"),
    "no diameter": (
        blobs(metadata={"format": METADATA["format"]}),
        "must have metadata 'nominal_diameter_px' between 1 and 1000; got none",
    ),
    "bad score": (
        blobs(metadata={**METADATA, "score_threshold": "high"}),
        "'score_threshold' between 0 and 1; got high",
    ),
}
for _case, _shape in {"colour": ("N", 3, "H", "W"), "fixed size": ("N", 1, 64, 64), "flat": ("N", 1)}.items():
    BAD_FILES[_case] = (
        tiny_onnx.file(
            [node("Identity", f"c_{name}", name) for name in OUTPUTS],
            {f"c_{name}": np.zeros(1, np.int64 if name == "index" else np.float32) for name in OUTPUTS},
            inputs={"image": (tiny_onnx.FLOAT, _shape)},
        ),
        r"must take float32 images of one channel and any size, \(N, 1, H, W\); it takes tensor\(float\)",
    )


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_model_files_are_refused(case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content, message = BAD_FILES[case]
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        Segmenter(path)
    assert str(caught.value).startswith("model: model.onnx ")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")  # ONNX Runtime's own log says nothing


def test_weights_outside_the_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(np.zeros(4, np.float32).tobytes())
    field = tiny_onnx._field
    place = field(13, field(1, "location") + field(2, "weights.bin"))
    outside = field(1, 4) + field(2, 1) + field(8, "w") + place + field(14, 1)
    graph = field(1, node("Add", "w w", "boxes")) + field(2, "g") + field(5, outside)
    graph += field(12, tiny_onnx._value("boxes", 1, None))
    (tmp_path / "model.onnx").write_bytes(field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 15)))
    with pytest.raises(InputError, match="is damaged, or no ONNX file"):
        Segmenter(tmp_path / "model.onnx")


def test_a_missing_model_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"model: there is no file .*none.onnx. Give the path of an ONNX file."):
        Segmenter(tmp_path / "none.onnx")
    with pytest.raises(InputError, match=r"model: .* cannot be read: Is a directory"):
        Segmenter(tmp_path)
    monkeypatch.setattr(runtime, "shipped_model", lambda: tmp_path / "particles.onnx")
    with pytest.raises(InputError, match="This copy of cbdetach came without one"):
        Segmenter()


def test_the_shipped_model_lies_beside_the_code() -> None:
    assert runtime.shipped_model() == Path(runtime.__file__).parent / "models" / "particles.onnx"


def test_without_onnxruntime_the_extra_is_named(detector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"onnxruntime is missing: pip install 'cbdetach\[cpu\]'"):
        Segmenter(detector)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (constant_answer(boxes=(1, 3)), "gives boxes, scores, masks, index of other shapes than a Mask R-CNN's"),
        (constant_answer(masks=(1, 1, 28, 28)), "of other shapes"),
        (constant_answer(index=(2,)), "of other shapes"),
        (nan_answer(), "gives nan or inf. Use the fp32 model."),
        (
            tiny_onnx.file(
                [
                    node("Reshape", "image impossible", "scores"),
                    *(node("Identity", f"c_{name}", name) for name in ("boxes", "masks", "index")),
                ],
                {
                    "impossible": np.array([7, 11, 13]),
                    "c_boxes": np.zeros((1, 4), np.float32),
                    "c_masks": np.zeros((1, 2, 2), np.float32),
                    "c_index": np.zeros(1, np.int64),
                },
            ),
            "fails on tiles of 32 x 64 pixels, 1 at a time: .* If memory is short, use smaller tiles.",
        ),
    ],
)
def test_a_model_that_fails_is_one_sentence(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(InputError, match=message):
        Segmenter(tmp_path / "model.onnx").label(np.zeros((20, 40)), **UNIT)


# ---- providers -------------------------------------------------------------------------------------------------------


def test_the_processor_is_used_where_nothing_else_is(detector: Path) -> None:
    model = Segmenter(detector).model
    assert (model.provider, model.device) == ("cpu", "cpu")
    assert "CUDAExecutionProvider" in model.why
    assert Segmenter(detector, provider="cpu").model.why == ""


def test_a_provider_that_cannot_be_had_is_refused(detector: Path) -> None:
    with pytest.raises(InputError, match="provider: must be one of 'tensorrt', 'cuda', 'cpu'; got 'abacus'"):
        Segmenter(detector, provider="abacus")
    for name in ("cuda", "tensorrt"):
        if runtime.why_not(name):
            with pytest.raises(InputError, match=f"provider: {name} cannot be used: .*ExecutionProvider"):
                Segmenter(detector, provider=name)


def test_a_gpu_that_does_not_start_is_said(detector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(runtime.PROVIDERS.values()))
    monkeypatch.setattr(runtime, "why_not", lambda name: "")
    monkeypatch.setattr(runtime, "_preload", lambda ort: None)
    sessions = onnxruntime.InferenceSession
    asked: list[Any] = []

    def refuses(content: bytes, options: Any, *, providers: list[Any], **more: Any) -> Any:
        asked.append(providers)
        if len(providers) > 1:
            assert more == {"enable_fallback": 0}
            raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : CUDA failure 35: driver is too old.\nmore")
        return sessions(content, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuses)
    model = Segmenter(detector).model
    assert model.provider == "cpu"
    assert model.why == "CUDAExecutionProvider does not start: CUDA failure 35: driver is too old."
    with pytest.raises(InputError, match=r"provider: tensorrt cannot be used: Tens.* does not start: CUDA failure 35"):
        Segmenter(detector, provider="tensorrt")
    assert [p if isinstance(p, str) else p[0] for p in asked[-1]] == list(runtime.PROVIDERS.values())

    def leaves_it_out(content: bytes, options: Any, *, providers: list[Any], **more: Any) -> Any:
        return sessions(content, options, providers=providers[-1:])

    monkeypatch.setattr(onnxruntime, "InferenceSession", leaves_it_out)
    with pytest.raises(
        InputError, match=r"cuda cannot be used: CUDA.* does not start: is there a GPU, and is its driver"
    ):
        Segmenter(detector, provider="cuda")
    monkeypatch.setattr(runtime, "why_not", lambda name: "libcudnn.so.9 is missing.")
    assert Segmenter(detector).model.why == "libcudnn.so.9 is missing."


def test_a_gpu_session_is_used_with_its_device(detector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as that goes without one: a session that says it runs on CUDA gets tensors there, eight at a time."""
    import onnxruntime

    monkeypatch.setattr(runtime, "_on_gpu", lambda ort, content, provider, otherwise: (otherwise, ""))
    network = Segmenter(detector)
    assert (network.model.provider, network.model.device, network.batch) == ("cuda", "cuda", 8)
    real = onnxruntime.OrtValue.ortvalue_from_numpy
    places = []

    def on_host(array: Array, device: str, number: int) -> Any:
        places.append((array.shape, device, number))
        return real(array, "cpu", 0)

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", staticmethod(on_host))
    monkeypatch.setattr(onnxruntime.IOBinding, "bind_output", _bound_on_host(places, onnxruntime.IOBinding.bind_output))
    assert len(list(network.detect([np.zeros((20, 20))] * 9, **UNIT))) == 9
    assert [p for p in places if len(p) == 3] == [((n, 1, 32, 32), "cuda", 0) for n in (8, 1)]
    assert [p for p in places if len(p) == 2] == [(name, "cuda") for name in OUTPUTS] * 2


def _bound_on_host(places: list[Any], bind: Any) -> Any:
    def bind_output(self: Any, name: str, device: str) -> None:
        places.append((name, device))
        bind(self, name, "cpu")

    return bind_output


def fake_runtime(names: list[str], library: Path) -> SimpleNamespace:
    return SimpleNamespace(get_available_providers=lambda: names, __file__=str(library / "__init__.py"))


def test_why_not_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = list(runtime.PROVIDERS.values())
    monkeypatch.setitem(sys.modules, "onnxruntime", fake_runtime(names, tmp_path))
    assert runtime.why_not("cpu") == ""

    def no_driver(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(runtime.ctypes, "CDLL", no_driver)
    assert runtime.why_not("cuda") == "there is no NVIDIA driver (libcuda.so.1)."

    def no_cudnn(name: str) -> None:
        if "providers" in name:
            assert name == str(tmp_path / "capi" / f"libonnxruntime_providers_{provider}.so")
            raise OSError("libcudnn.so.9: cannot open shared object file")

    monkeypatch.setattr(runtime.ctypes, "CDLL", no_cudnn)
    for provider in ("cuda", "tensorrt"):
        assert runtime.why_not(provider) == (
            f"{runtime.PROVIDERS[provider]} cannot be loaded: libcudnn.so.9: cannot open shared object file."
        )

    def all_there(name: str) -> None:
        if "providers" in name:
            raise OSError(f"{name}: undefined symbol: Provider_GetHost")

    monkeypatch.setattr(runtime.ctypes, "CDLL", all_there)
    assert runtime.why_not("cuda") == ""
    monkeypatch.setitem(sys.modules, "onnxruntime", fake_runtime(["AzureExecutionProvider"], tmp_path))
    assert runtime.why_not("cpu") == "this wheel of onnxruntime has no CPUExecutionProvider."
    assert "pip install 'cbdetach[gpu]'" in runtime.why_not("cuda")


# ---- reading ahead ---------------------------------------------------------------------------------------------------


def test_items_come_in_order_and_not_too_far_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for k in range(20):
            made.append(k)
            yield k

    got = []
    for k in ahead(items(), 3):
        time.sleep(0.002)
        got.append(k)
        assert len(made) <= len(got) + 4
    assert got == list(range(20))


def test_an_exception_in_reading_arrives_after_what_was_read() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    slices = ahead(items(), 2)
    assert next(slices) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(slices)


def test_closing_stops_the_reader(detector: Path) -> None:
    def images() -> Iterator[Array]:
        while True:
            yield np.zeros((40, 40), np.float32)

    def readers() -> int:
        return sum(t.name == "cbdetach-reader" for t in threading.enumerate())

    found = Segmenter(detector).label_slices(images(), **UNIT)
    next(found)
    assert readers() == 1
    found.close()
    assert readers() == 0
    unstarted = ahead(images(), 1)
    unstarted.close()
    broken = Segmenter(detector).detect([np.zeros((40, 40)), np.full((3, 3), np.nan)], **UNIT)
    next(broken)
    with pytest.raises(ValueError, match="must be finite"):
        next(broken)
    assert readers() == 0
