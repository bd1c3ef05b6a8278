"""Argument checks: what is accepted, what is converted, what is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from voxkernels import _arrays

VOLUME = np.arange(24, dtype=np.int32).reshape(2, 3, 4)


def test_what_fits_is_not_copied() -> None:
    assert np.shares_memory(_arrays.as_array("labels", VOLUME, 3), VOLUME)
    assert np.shares_memory(_arrays.as_labels("labels", VOLUME), VOLUME)
    mask = VOLUME > 3
    assert np.shares_memory(_arrays.as_mask("domain", mask), mask)
    assert np.shares_memory(_arrays.as_labels("labels", mask), mask)


@pytest.mark.parametrize("strange", [VOLUME[::-1, :, ::2], VOLUME.T, VOLUME.astype(">i4"), np.asfortranarray(VOLUME)])
def test_layout_and_byte_order_are_converted(strange: np.ndarray) -> None:
    array = _arrays.as_array("labels", strange, 3)
    assert array.flags.c_contiguous
    assert array.dtype == np.int32
    assert array.dtype.isnative
    np.testing.assert_array_equal(array, strange)


def test_read_only_memory_becomes_writable_without_a_copy() -> None:
    fixed = VOLUME.copy()
    fixed.flags.writeable = False
    array = _arrays.as_array("labels", fixed, 3)
    assert array.flags.writeable
    assert np.shares_memory(array, fixed)
    del fixed
    np.testing.assert_array_equal(array, VOLUME)  # the memory lives on


def test_masks() -> None:
    np.testing.assert_array_equal(_arrays.as_mask("domain", VOLUME % 2), VOLUME % 2 == 1)
    with pytest.raises(TypeError, match=r"domain: must be bool \(or integers 0 and 1\); got .*int32.*domain > 0"):
        _arrays.as_mask("domain", VOLUME)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.uint8([0, 255]), np.int32),
        (np.int32([0, 2**31 - 1]), np.int32),
        (np.uint32([0, 2**31 - 1]), np.int32),
        (np.uint32([0, 2**31]), np.int64),
        (np.int64([0, 2**31 - 1]), np.int32),
        (np.int64([0, 2**31]), np.int64),
        (np.uint64([0, 2**63 - 1]), np.int64),
        (np.uint64([]), np.int32),
    ],
)
def test_labels_come_in_two_types(values: np.ndarray, dtype: type) -> None:
    narrow = _arrays.narrow_labels(values)
    assert narrow.dtype == dtype
    np.testing.assert_array_equal(narrow, values)


def test_what_is_masked_is_not_overlooked() -> None:
    np.testing.assert_array_equal(_arrays.as_array("labels", np.ma.masked_array(VOLUME), 3), VOLUME)
    with pytest.raises(TypeError, match=r"labels: must have no masked elements; got some\. Give them a value"):
        _arrays.as_array("labels", np.ma.masked_array(VOLUME, VOLUME > 20), 3)


def test_label_messages() -> None:
    with pytest.raises(ValueError, match=r"labels: must be below 2\*\*63; got 9223372036854775808\. Renumber"):
        _arrays.narrow_labels(np.uint64([2**63]))
    with pytest.raises(ValueError, match=r"labels: must not hold negative values; got a minimum of -3"):
        _arrays.as_labels("labels", VOLUME - 3)
    with pytest.raises(TypeError, match=r"labels: must be of an integer type; got .*float32.*astype\(numpy\.int32\)"):
        _arrays.as_labels("labels", VOLUME.astype(np.float32))


def test_array_messages() -> None:
    class ndarray:
        pass

    ndarray.__module__ = "cupy"
    with pytest.raises(
        TypeError, match=r"T: must be a NumPy array; got .* of type ndarray\. Copy it to the host first"
    ):
        _arrays.as_array("T", ndarray(), 3)
    with pytest.raises(TypeError, match=r"T: must be a NumPy array; got \[1, 2\] of type list\. Convert it with numpy"):
        _arrays.as_array("T", [1, 2], 1)
    with pytest.raises(ValueError, match=r"T: must be \(Z, Y, X\); got an array of shape \(3, 4\).*array\[None\]"):
        _arrays.as_array("T", VOLUME[0], 3)
    with pytest.raises(ValueError, match=r"a: must be \(Y, X\); got an array of shape \(2, 3, 4\) and dtype int32\.$"):
        _arrays.as_array("a", VOLUME, 2)
    with pytest.raises(ValueError, match=r"speed: must be 4-dimensional; got"):
        _arrays.as_array("speed", VOLUME, 4)
    with pytest.raises(ValueError, match=r"boxes: must be \(N, 4\); got an array of shape \(4,\)"):
        _arrays.as_array("boxes", VOLUME[0, 0], 2, "(N, 4)")
    with pytest.raises(TypeError, match=r"image: must be of an integer or floating-point type; got .*complex128"):
        _arrays.as_image("image", VOLUME * 1j)
    with pytest.raises(ValueError, match=r"phases: must have the shape of labels, \(2, 3, 4\); got .*\(3, 4\)"):
        _arrays.same_shape("phases", VOLUME[0], "labels", VOLUME)


@pytest.mark.parametrize(
    "spacing", [(1, 2), 1.0, (1, -1, 1), (1, 0, 1), (1, np.nan, 1), (1, np.inf, 1), "abc", "123", None]
)
def test_bad_spacing(spacing: Any) -> None:
    with pytest.raises(ValueError, match=r"spacing: must be three positive, finite numbers \(dz, dy, dx\); got "):
        _arrays.as_spacing(spacing)


def test_good_spacing() -> None:
    assert _arrays.as_spacing(np.float32([1, 2, 0.5])) == (1.0, 2.0, 0.5)


def test_choice() -> None:
    assert _arrays.choice("order", 2, (1, 2)) == 2
    assert type(_arrays.choice("order", np.float64(2), (1, 2))) is int  # kernels are compiled for one type
    for wrong in (3, "2", True, np.array([1, 2]), [2]):
        with pytest.raises(ValueError, match=r"order: must be one of 1, 2; got "):
            _arrays.choice("order", wrong, (1, 2))


def test_messages_dump_no_arrays() -> None:
    assert _arrays.describe(VOLUME) == "an array of shape (2, 3, 4) and dtype int32"
    assert _arrays.describe("x" * 100) == "a str"
    assert _arrays.describe((1, 2)) == "(1, 2)"
