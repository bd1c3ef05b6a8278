"""Tiles of a slice, and how what is found on them is stitched."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from tests.cbdetach.tiny_onnx import disc

from cbdetach.segment.tiles import TOUCHING, Raw, pixels_of, stitch, tiles_of

Array = npt.NDArray[Any]


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
