"""Contract of `paste_masks`, the same for every backend."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from tests.contract.backends import backend_fixture

ops = backend_fixture("masks")


def discs(n: int, shape: tuple[int, int], seed: int = 0, side: int = 28) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Soft discs of any place and size, some across the border: masks, boxes, scores."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    sharpness = generator.uniform(3, 20, (n, 1, 1))
    masks = 1 / (1 + np.exp(sharpness * (x**2 + y**2 - generator.uniform(0.4, 1, (n, 1, 1)))))
    middle = generator.uniform(0, 1, (n, 2)) * shape[::-1]
    half = generator.uniform(1, max(shape) / 4, (n, 2))
    boxes = np.concatenate([middle - half, middle + half], axis=1)
    return masks.astype(np.float32), boxes.astype(np.float32), generator.random(n).astype(np.float32)


def paste_one(ops: ModuleType, mask, box, shape=(20, 30), **options) -> np.ndarray:
    return ops.paste_masks(
        np.asarray(mask, np.float32)[None], np.array([box], np.float32), np.ones(1, np.float32), shape, **options
    )


# Closed forms


def test_full_mask_fills_its_box(ops: ModuleType) -> None:
    labels = paste_one(ops, np.ones((28, 28)), (4, 3, 24, 17))
    expected = np.zeros((20, 30), np.int32)
    expected[3:17, 4:24] = 1  # the zero frame falls below one half at the outer half of the rim pixels
    np.testing.assert_array_equal(labels, expected)


def test_half_mask_fills_half_its_box(ops: ModuleType) -> None:
    mask = np.zeros((28, 28))
    mask[:, 14:] = 1
    labels = paste_one(ops, mask, (0, 0, 27, 19))
    expected = np.zeros((20, 30), np.int32)
    expected[1:19, 14:27] = 1
    np.testing.assert_array_equal(labels, expected)


def test_area_of_a_disc(ops: ModuleType) -> None:
    y, x = np.mgrid[-13.5:13.5:28j, -13.5:13.5:28j]
    mask = np.clip(0.5 + 12.6 - np.hypot(x, y), 0, 1)
    labels = paste_one(ops, mask, (10, 20, 110, 100), (120, 130))
    # The grown box covers the pixels 6..113 and 17..102 with 30 samples each way.
    assert labels.sum() == pytest.approx(np.pi * 12.6**2 * (108 / 30) * (86 / 30), rel=2e-3)
    y, x = np.nonzero(labels)
    assert x.mean() == pytest.approx((6 + 113) / 2, abs=0.1)
    assert y.mean() == pytest.approx((17 + 102) / 2, abs=0.1)


def test_threshold(ops: ModuleType) -> None:
    ramp = np.tile(np.linspace(0, 1, 28), (28, 1))
    areas = [int(paste_one(ops, ramp, (2, 2, 26, 16), threshold=t).sum()) for t in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert areas == sorted(set(areas), reverse=True)
    assert paste_one(ops, np.full((28, 28), 0.5), (2, 2, 26, 16))[10, 15] == 1, "equal to the threshold belongs"
    assert paste_one(ops, np.ones((28, 28)), (2, 2, 26, 16), threshold=np.int64(1))[10, 15] == 1


# Who wins


def test_higher_score_wins(ops: ModuleType) -> None:
    masks = np.ones((2, 28, 28), np.float32)
    boxes = np.array([[0, 0, 15, 15], [8, 8, 19, 19]], np.float64)
    for scores, winner in (((0.9, 0.8), 1), ((0.8, 0.9), 2), ((0.5, 0.5), 1)):
        labels = ops.paste_masks(masks, boxes, np.array(scores), (20, 20))
        assert labels[12, 12] == winner
        assert labels[2, 2] == 1
        assert labels[18, 18] == 2


def test_many_ties_go_to_the_lowest_index(ops: ModuleType) -> None:
    n = 40
    labels = ops.paste_masks(np.ones((n, 28, 28)), np.tile([0.0, 0, 9, 9], (n, 1)), np.zeros(n), (10, 10))
    np.testing.assert_array_equal(labels, 1)


def test_order_of_detections_only_renames(ops: ModuleType) -> None:
    masks, boxes, scores = discs(12, (50, 60))
    order = np.random.default_rng(3).permutation(12)
    plain = ops.paste_masks(masks, boxes, scores, (50, 60))
    mixed = ops.paste_masks(masks[order], boxes[order], scores[order], (50, 60))
    np.testing.assert_array_equal(np.concatenate([[0], order + 1])[mixed], plain)


# Another library


def test_against_scipy_interpolation(ops: ModuleType) -> None:
    shape = (40, 50)
    masks, boxes, scores = discs(8, shape, seed=4)
    labels = ops.paste_masks(masks, boxes, scores, shape)
    best = np.full(shape, -1.0)
    expected = np.zeros(shape, int)
    unclear = np.zeros(shape, bool)
    for i, (mask, box) in enumerate(zip(masks, boxes.astype(float), strict=True)):
        middle, half = (box[2:] + box[:2]) / 2, (box[2:] - box[:2]) / 2 * 30 / 28
        (x0, y0), (x1, y1) = np.trunc(middle - half), np.trunc(middle + half)
        y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
        inside = (x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)
        where = [(y - y0 + 0.5) * 30 / (y1 - y0 + 1) - 0.5, (x - x0 + 0.5) * 30 / (x1 - x0 + 1) - 0.5]
        value = ndimage.map_coordinates(np.pad(mask.astype(float), 1), where, order=1, mode="nearest") * inside
        unclear |= np.abs(value - 0.5) < 1e-6
        better = (value >= 0.5) & (scores[i] > best)
        expected[better], best[better] = i + 1, scores[i]
    assert unclear.mean() < 0.01
    assert len(np.unique(expected)) > 6
    np.testing.assert_array_equal(labels[~unclear], expected[~unclear])


def test_against_torchvision(ops: ModuleType) -> None:
    """Every pixel as torchvision 0.29.2 pastes these 14 masks with `paste_masks_in_image`, best score on top."""
    case = np.load(Path(__file__).parent / "torchvision_paste.npz")
    masks = case["masks"].astype(np.float32) / np.float32(255)
    labels = ops.paste_masks(masks, case["boxes"], case["scores"], case["labels"].shape)
    assert len(np.unique(labels)) > 12
    np.testing.assert_array_equal(labels, case["labels"])


@given(
    n=st.integers(0, 6), side=st.integers(1, 9), y=st.integers(1, 40), x=st.integers(1, 40), seed=st.integers(0, 999)
)
def test_backends_agree(ops: ModuleType, n, side, y, x, seed) -> None:
    from voxkernels.masks import reference

    generator = np.random.default_rng(seed)
    masks = generator.random((n, side, side + 2)).astype(generator.choice([np.float32, np.float64]))
    boxes = generator.uniform(-10, 45, (n, 4)).round(generator.integers(0, 3))
    scores = generator.integers(0, 3, n) / 2
    one = ops.paste_masks(masks, boxes, scores, (y, x), threshold=0.4)
    np.testing.assert_array_equal(one, reference.paste_masks(masks, boxes, scores, (y, x), threshold=0.4))


# What must not matter


def test_transpose(ops: ModuleType) -> None:
    masks, boxes, scores = discs(10, (40, 50), seed=5)
    plain = ops.paste_masks(masks, boxes, scores, (40, 50))
    turned = ops.paste_masks(masks.transpose(0, 2, 1), boxes[:, [1, 0, 3, 2]], scores, (50, 40))
    assert (plain != turned.T).mean() < 1e-3


def test_whole_pixel_shift(ops: ModuleType) -> None:
    masks, boxes, scores = discs(10, (40, 50), seed=6)
    boxes = np.round(boxes * 8) / 8 + 64
    plain = ops.paste_masks(masks, boxes, scores, (150, 160))
    moved = ops.paste_masks(masks, boxes + np.float32([8, 16, 8, 16]), scores, (150, 160))
    np.testing.assert_array_equal(moved[16:, 8:], plain[:-16, :-8])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_types_and_layouts(ops: ModuleType, dtype: type) -> None:
    masks, boxes, scores = discs(4, (30, 30), seed=7)
    masks = np.round(masks * 256) / 256
    boxes, scores = np.round(boxes), np.round(scores * 256) / 256
    expected = ops.paste_masks(masks, boxes, scores, (30, 30))
    again = ops.paste_masks(np.asfortranarray(masks.astype(dtype)), boxes.astype(">f4"), scores.astype(dtype), (30, 30))
    np.testing.assert_array_equal(again, expected)


@pytest.mark.usefixtures("threads")
def test_same_bits_on_any_number_of_threads_and_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    from voxkernels import masks as operation

    masks, boxes, scores = discs(20, (64, 65), seed=8)
    expected = operation.paste_masks(masks, boxes, scores, (64, 65))
    numba.set_num_threads(1)
    np.testing.assert_array_equal(operation.paste_masks(masks, boxes, scores, (64, 65)), expected)
    monkeypatch.setattr(operation, "BANDS", 3)
    np.testing.assert_array_equal(operation.paste_masks(masks, boxes, scores, (64, 65)), expected)


# Extremes


def test_no_detection(ops: ModuleType) -> None:
    labels = ops.paste_masks(np.empty((0, 28, 28)), np.empty((0, 4)), np.empty(0), (3, 4))
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, np.zeros((3, 4)))


@pytest.mark.parametrize(
    "box",
    [(-50, -50, -10, -10), (40, 5, 60, 9), (5, 5, 5, 5), (9, 9, 2, 2), (-1e9, 0, -1e9, 5), (-1e9, -1e9, 1e9, 1e9)],
)
def test_strange_boxes(ops: ModuleType, box: tuple[float, ...]) -> None:
    labels = paste_one(ops, np.ones((28, 28)), box, (20, 30))
    assert set(np.unique(labels)) <= {0, 1}
    assert labels.all() == (box[2] == 1e9)


def test_one_pixel_image_and_mask(ops: ModuleType) -> None:
    assert paste_one(ops, [[1.0]], (0, 0, 0, 0), (1, 1)).tolist() == [[1]]


def test_inputs_are_not_written(ops: ModuleType) -> None:
    arrays = discs(2, (9, 9))
    for array in arrays:
        array.flags.writeable = False
    ops.paste_masks(*arrays, (9, 9))


# Messages


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"masks": np.ones((2, 28, 28), int)}, TypeError, r"masks: must be of a floating-point type; got .*int64"),
        ({"masks": np.ones((28, 28))}, ValueError, r"masks: must be \(N, H, W\); got .*\(28, 28\)"),
        ({"boxes": np.ones(4)}, ValueError, r"boxes: must be \(N, 4\); got an array of shape \(4,\)"),
        ({"masks": np.ones((2, 0, 28))}, ValueError, r"masks: must have at least one pixel; got .*\(2, 0, 28\)"),
        ({"boxes": np.ones((3, 4))}, ValueError, r"boxes: must be \(2, 4\), one row for each mask; got .*\(3, 4\)"),
        ({"boxes": np.ones((2, 4), int)}, TypeError, r"boxes: must be of a floating-point type; got .*int64"),
        ({"boxes": np.full((2, 4), np.nan)}, ValueError, r"boxes: must be finite and below 2\*\*31 pixels"),
        ({"boxes": np.full((2, 4), 3e9)}, ValueError, r"boxes: must be finite and below 2\*\*31 pixels"),
        ({"scores": np.ones(3)}, ValueError, r"scores: must be \(2,\), one for each mask; got .*\(3,\)"),
        ({"scores": np.array([1, np.inf])}, ValueError, r"scores: must be finite; got nan or inf"),
        ({"scores": np.ones(2, int)}, TypeError, r"scores: must be of a floating-point type; got .*int64"),
        ({"shape": (3,)}, ValueError, r"shape: must be two positive integers \(Y, X\); got \(3,\)"),
        ({"shape": (0, 3)}, ValueError, r"shape: must be two positive integers \(Y, X\); got \(0, 3\)"),
        ({"shape": (2.5, 3)}, ValueError, r"shape: must be two positive integers \(Y, X\); got \(2\.5, 3\)"),
        ({"threshold": 0}, ValueError, r"threshold: must be a number above 0 and at most 1; got 0"),
        ({"threshold": True}, ValueError, r"threshold: must be a number above 0 and at most 1; got True"),
        ({"threshold": 1.5}, ValueError, r"threshold: must be a number above 0 and at most 1; got 1\.5"),
    ],
)
def test_messages(ops: ModuleType, change: dict, error: type[Exception], message: str) -> None:
    given = {"masks": np.ones((2, 28, 28)), "boxes": np.ones((2, 4)), "scores": np.ones(2), "shape": (5, 5), **change}
    with pytest.raises(error, match=message):
        ops.paste_masks(**given)
