"""Pairs of images and label images, stacks and folders of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage.io import imsave
from tests.cbdetach.grey_files import RAMP, SHAPE

from cbdetach.annotations import pairs, read_annotations
from cbdetach.errors import InputError

Write = Callable[[str, np.ndarray], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def save(name: str, pixels: np.ndarray) -> Path:
        if name.endswith(".npy"):
            np.save(tmp_path / name, pixels)
        elif name.endswith(".tif"):
            tifffile.imwrite(tmp_path / name, pixels, photometric="minisblack")
        else:
            imsave(tmp_path / name, pixels, check_contrast=False)
        return tmp_path / name

    return save


def labels_of(*squares: int) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint16)
    for i, number in enumerate(squares):
        labels[3:9, 8 * i + 1 : 8 * i + 7] = number
    return labels


@pytest.mark.parametrize("suffix", ["tif", "png", "npy"])
def test_a_pair(tmp_path: Path, write: Write, suffix: str) -> None:
    write(f"a_01.{suffix}", RAMP)
    labels = write(f"a_01_labels.{suffix}", labels_of(9, 4, 70))
    (one,) = read_annotations(labels)
    np.testing.assert_array_equal(one.labels, labels_of(2, 1, 3))
    assert one.labels.dtype == np.int32
    assert one.image.dtype == np.uint16
    assert one.ignore is None
    assert (one.name, one.volume) == (f"a_01.{suffix}", f"{tmp_path.name}/a")
    write(f"a_01_ignore.{suffix}", (labels_of(0, 0, 1) * 255).astype(np.uint8))
    for path in (labels, tmp_path / f"a_01.{suffix}", tmp_path):
        (one,) = read_annotations(path)
        assert one.ignore is not None
        assert np.count_nonzero(one.ignore) == 36


def test_a_stack_is_one_volume(write: Write) -> None:
    labels = np.stack([labels_of(5), labels_of(), labels_of(0, 7)])
    image = write("a2.tif", np.stack([RAMP] * 3).astype(np.float32))
    found = pairs(image, write("b.tif", labels), write("c.tif", (labels == 7).astype(np.uint8)))
    assert [piece.name for piece in found] == ["a2.tif z=0", "a2.tif z=2"]
    assert {piece.volume for piece in found} == {f"{image.parent.name}/a2"}
    assert [int(piece.labels.max()) for piece in found] == [1, 1]
    assert found[0].ignore is None
    assert found[1].ignore is not None


def test_whole_numbers_in_floats_are_labels(write: Write) -> None:
    image = write("a.tif", RAMP)
    (one,) = pairs(image, write("b.tif", labels_of(1, 2).astype(np.float32)))
    assert one.labels.max() == 2


def test_a_mask_is_suspected(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    image = write("a.tif", RAMP)
    pairs(image, write("b.tif", labels_of(255, 255).astype(np.uint8)))
    assert "one label in 2 pieces" in caplog.text


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (labels_of(1)[1:], "must have the shape of"),
        (labels_of(1) * 0.5, "whole numbers"),
        (labels_of(1).astype(np.int16) - 1, "must be 0 or more; got -1"),
        (labels_of(), "at least one labelled particle"),
        (labels_of(1) + np.inf, "finite"),
    ],
)
def test_label_images_that_cannot_be_used(write: Write, labels: np.ndarray, text: str) -> None:
    image = write("a.npy", RAMP)
    file = write("b.npy", labels)
    with pytest.raises(InputError, match=text) as caught:
        pairs(image, file)
    assert str(file) in str(caught.value)


def test_images_of_a_single_grey_value(write: Write) -> None:
    flat_image = write("a_01.tif", np.full(SHAPE, 7, np.uint8))
    with pytest.raises(InputError, match=r"a_01\.tif: must hold more than one grey value; got one\. Save"):
        pairs(flat_image, write("b.tif", labels_of(1)))
    stack = np.stack([RAMP, 0 * RAMP, 0 * RAMP])
    labels = np.stack([labels_of(1), labels_of(2), labels_of()])
    with pytest.raises(InputError, match="in labelled slice 1"):
        pairs(write("c.tif", stack), write("d.tif", labels))


def test_ignore_area_of_another_shape(write: Write) -> None:
    image, labels = write("a.tif", RAMP), write("b.tif", labels_of(1))
    with pytest.raises(InputError, match=r"c\.tif: must have the shape of .*a\.tif, 20 x 30; got 19 x 30"):
        pairs(image, labels, write("c.tif", labels_of(1)[1:]))


def test_pictures_that_are_none(tmp_path: Path, write: Write) -> None:
    with pytest.raises(InputError, match=r"a\.png: there is nothing; check the path"):
        pairs(tmp_path / "a.png", tmp_path / "b.png")
    animated = tmp_path / "a.npy"
    np.save(animated, np.zeros((2, 3, 4, 5)))
    with pytest.raises(InputError):
        pairs(animated, animated)


def test_half_a_pair(tmp_path: Path, write: Write) -> None:
    labels = write("a_labels.tif", labels_of(1))
    with pytest.raises(InputError, match=r"its image a\.tif is missing"):
        read_annotations(labels)
    other = write("b.tif", labels_of(1))
    with pytest.raises(InputError, match=r"its label image b_labels\.tif is missing"):
        read_annotations(other)


def test_a_folder_tells_everything_that_is_wrong(tmp_path: Path, write: Write) -> None:
    with pytest.raises(InputError, match="found none"):
        read_annotations(tmp_path)
    for name in "abc":
        write(f"{name}_labels.tif", labels_of(1))
    write("b.tif", labels_of(1))
    write("c.tif", labels_of(1)[1:])
    with pytest.raises(InputError) as caught:
        read_annotations(tmp_path)
    message = str(caught.value)
    assert "a_labels.tif: its image a.tif is missing" in message
    assert "; " in message
    assert "c_labels.tif: must have the shape of" in message
    (tmp_path / "a_labels.tif").unlink()
    (tmp_path / "c_labels.tif").unlink()
    assert [piece.name for piece in read_annotations(tmp_path)] == ["b.tif"]


def test_the_measured_slice(real_data: Path) -> None:
    (one,) = read_annotations(real_data / "nmc_slice_labelled.tif")
    assert one.labels.max() == 90
    assert one.image.shape == (812, 406)
    assert one.ignore is not None
