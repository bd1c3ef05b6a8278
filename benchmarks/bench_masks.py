"""Pasting 100 masks into one label image, beside torchvision. At an edge of 256 the image has 1024 x 1024 pixels."""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import voxkernels as vk
from benchmarks import harness
from benchmarks.cases import Array
from benchmarks.harness import Arrays, Case, Peer

N = 100


def detections(size: int) -> Arrays:
    """Masks (N, 28, 28) of discs, boxes (N, 4), scores (N,), and the image's shape."""
    side = 4 * size
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    masks = np.repeat(1 / (1 + np.exp(20 * (x**2 + y**2 - 0.8)))[None], N, axis=0).astype(np.float32)
    middle = rng.uniform(0, side, (N, 2))
    half = rng.uniform(side / 40, side / 15, (N, 2))
    boxes = np.concatenate([middle - half, middle + half], axis=1).astype(np.float32)
    return masks, boxes, rng.random(N).astype(np.float32), np.array([side, side])


def paste(masks: Array, boxes: Array, scores: Array, shape: Array) -> Array:
    return np.asarray(vk.paste_masks(masks, boxes, scores, (int(shape[0]), int(shape[1]))))


def shuffled(arrays: Arrays, repeat: int) -> Arrays:
    """The same detections in another order."""
    order = np.random.default_rng(repeat).permutation(len(arrays[0]))
    return (*(array[order] for array in arrays[:3]), arrays[3])


def with_torchvision(masks: Array, boxes: Array, scores: Array, shape: Array) -> Array:
    """One image for each mask; they are not put into one, which would take longer."""
    import torch
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    pasted = paste_masks_in_image(torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), tuple(shape.tolist()))
    return np.asarray(pasted[:, 0].numpy())


def same_pixels(arrays: Arrays, ours: Array, theirs: Array) -> None:
    """All but single pixels, at which float32 and float64 round to either side of the threshold."""
    painted = np.zeros(ours.shape, np.int32)
    for k in np.argsort(arrays[2], kind="stable"):
        painted[theirs[k] >= 0.5] = k + 1
    assert (painted != ours).mean() < 1e-5


def discs(arrays: Arrays, ours: Array) -> None:
    """The best detection lies on top and has the area of its disc."""
    _, boxes, scores, shape = arrays
    best = int(scores.argmax())
    low, high = boxes[best, :2], boxes[best, 2:]
    if (low > 0).all() and (high < shape[::-1]).all():
        assert abs((ours == best + 1).sum() / (np.pi / 4 * 0.8 * (high - low).prod()) - 1) < 0.2


CASES = [
    Case(
        "100 masks",
        detections,
        paste,
        {"torchvision": Peer("torchvision", with_torchvision, same_pixels)},
        discs,
        units=lambda masks, boxes, scores, shape: int(shape.prod()),
        fresh=shuffled,
    )
]


@pytest.mark.parametrize("case", harness.toys(CASES), ids=str)
def test_paste_masks(benchmark: BenchmarkFixture, case: Case) -> None:
    harness.run(benchmark, case)


@pytest.mark.parametrize(("case", "peer"), harness.toy_peers(CASES), ids=str)
def test_peer(benchmark: BenchmarkFixture, case: Case, peer: str) -> None:
    harness.run_peer(benchmark, case, peer)
