"""The model that ships: small, whole, described, and as good as its card says on slices that it has never seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from skimage.draw import disk

from cbdetach.annotations import read_annotations
from cbdetach.evaluate import TEST_SEED
from cbdetach.metrics import Comparison, Counts, Prediction, average_precision, compare
from cbdetach.segment import segment_slice
from cbdetach.segment.maskrcnn import Segmenter, shipped_model
from cbdetach.segment.model_file import model_digest

MODELS = shipped_model().parent


@pytest.fixture(scope="module")
def network() -> Segmenter:
    return Segmenter()


def test_the_file_is_small_and_whole(network: Segmenter) -> None:
    metadata = network.model.metadata
    assert shipped_model().stat().st_size <= 30e6
    assert metadata["sha256"] == model_digest(shipped_model())
    assert metadata["precision"] == "fp32"
    record = json.loads(metadata["training"])
    assert record["settings"]["network"]["fpn_channels"] <= 128
    assert record["settings"]["network"]["box_features"] <= 256


def test_its_card_names_this_very_file() -> None:
    card = (MODELS / "particles.md").read_text(encoding="utf-8")
    assert model_digest(shipped_model()) in card
    assert "cbdetach train --config" in card


def test_the_recipe_beside_it_is_the_one_that_it_records(network: Segmenter) -> None:
    pytest.importorskip("torch", reason="training needs the extra 'train'")
    from cbdetach.train.settings import read_settings

    recorded = json.loads(network.model.metadata["training"])["settings"]
    assert read_settings(MODELS / "particles.toml").to_dict() == recorded


def test_unseen_synthetic_slices(network: Segmenter) -> None:
    from cbdetach.train.scenes import slices_of_scene

    total = Counts(0, 0, 0)
    ious: list[np.ndarray] = []
    for k in range(2):
        for piece in slices_of_scene(TEST_SEED + 500 + k, count=2, side=320):
            labels, found = network.label(piece.image)
            counts, _, iou = compare(Prediction(labels, found.scores), piece).objects()
            total += counts
            ious.append(iou)
    assert total.metrics()["precision"] >= 0.93
    assert total.metrics()["sensitivity"] >= 0.85
    assert np.concatenate(ious).mean() >= 0.86


def test_a_particle_cut_in_two_by_a_crack_stays_one() -> None:
    rng = np.random.default_rng(0)
    image = np.full((160, 160), 80.0)
    for centre in ((45, 45), (45, 115), (115, 45), (115, 115)):
        image[disk(centre, 24)] = 170
    image[45 - 26 : 45 + 27, 44:47] = 80  # right through
    image[114:116, 115 - 26 : 115 + 27] = 80
    image = image + 8 * rng.standard_normal(image.shape)
    labels = segment_slice(image, segmenter="maskrcnn")
    assert labels.max() == 4
    assert labels[45, 30] == labels[45, 60] > 0
    assert labels[100, 115] == labels[130, 115] > 0


@pytest.mark.real_data
def test_the_hand_labelled_slice_which_it_was_not_trained_on(network: Segmenter, real_data: Path) -> None:
    (truth,) = read_annotations(real_data / "nmc_slice_labelled.tif")
    labels, found = network.label(truth.image)
    compared: Comparison = compare(Prediction(labels, found.scores), truth)
    counts, _, iou = compared.objects()
    assert counts.metrics()["f_measure"] >= 0.96
    assert iou.mean() >= 0.88
    labels, found = network.label(truth.image, threshold=0.05)
    precision = average_precision([compare(Prediction(labels, found.scores), truth)])
    assert precision[0] >= 0.94
    assert precision.mean() >= 0.72
