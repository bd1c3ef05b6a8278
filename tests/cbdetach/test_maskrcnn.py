"""Inference: coordinates, the segmenter, one slice by the network, reading ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.cbdetach.tiny_onnx import METADATA, SIDE, blobs

import voxkernels as vk
from cbdetach.errors import InputError
from cbdetach.segment import maskrcnn, runtime, segment_slice
from cbdetach.segment.ahead import ahead
from cbdetach.segment.instances import Detections, to_labels
from cbdetach.segment.maskrcnn import Segmenter, estimated_diameter

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
