"""Pasting 100 masks into one label image; the answer is checked before the clock.

At CBDETACH_BENCH_SIZE=256 the image has 1024 x 1024 pixels.
"""

from __future__ import annotations

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

import voxkernels as vk
from benchmarks import cases


def test_paste_masks(benchmark: BenchmarkFixture) -> None:
    n, side = 100, 4 * cases.SIZE
    generator = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    masks = np.repeat(1 / (1 + np.exp(20 * (x**2 + y**2 - 0.8)))[None], n, axis=0).astype(np.float32)
    middle = generator.uniform(0, side, (n, 2))
    half = generator.uniform(side / 40, side / 15, (n, 2))
    boxes = np.concatenate([middle - half, middle + half], axis=1).astype(np.float32)
    scores = generator.random(n).astype(np.float32)

    labels = vk.paste_masks(masks, boxes, scores, (side, side))
    alone = vk.paste_masks(masks[:1], boxes[:1], scores[:1], (side, side)) == 1
    np.testing.assert_array_equal(scores[labels[alone] - 1] >= scores[0], True)
    best = int(scores.argmax())
    area = np.pi * 0.8 * half[best].prod()
    if np.all((middle[best] > half[best]) & (middle[best] < side - half[best])):
        assert abs((labels == best + 1).sum() / area - 1) < 0.2
    benchmark.extra_info["voxels"] = labels.size
    benchmark(vk.paste_masks, masks, boxes, scores, (side, side))
