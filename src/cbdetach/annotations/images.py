"""Images and label images: a pair of files, a stack of such, a folder of them."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach.annotations.slices import LabelledSlice
from cbdetach.errors import InputError, called
from cbdetach.volume import open_volume

_log = logging.getLogger(__name__)

PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
"""Suffixes of images that are not volumes; others are opened by `cbdetach.volume`."""

IMAGES = (".tif", ".tiff", ".npy", *PICTURES)
"""Suffixes that a folder of pairs is searched for, the first that exists."""


def pairs_in(folder: Path) -> list[LabelledSlice]:
    """Every pair in a folder; what is wrong with any is told together."""
    files = [f for f in folder.iterdir() if f.stem.endswith("_labels") and f.suffix.lower() in IMAGES]
    if not files:
        raise InputError(
            f"{folder}: must hold label images NAME_labels.tif beside their images NAME.tif; found none. "
            "Give a JSON file by its own path."
        )
    result, wrong = [], []
    for file in sorted(files):
        try:
            result += pair_of(file)
        except InputError as error:
            wrong.append(str(error))
    if wrong:
        raise InputError(wrong[0] if len(wrong) == 1 else "; ".join(text.rstrip(".") for text in wrong) + ".")
    return result


def pair_of(file: Path) -> list[LabelledSlice]:
    """The pair that an image or a label image is part of."""
    stem = file.stem.removesuffix("_labels")
    image = _beside(file.parent, stem) if stem != file.stem else file
    labels = _beside(file.parent, f"{stem}_labels") if stem == file.stem else file
    if image is None:
        raise InputError(f"{file}: its image {stem}{file.suffix} is missing; put it beside the label image.")
    if labels is None:
        raise InputError(
            f"{file}: its label image {stem}_labels{file.suffix} is missing; put it beside the image, "
            "or give an annotation file."
        )
    return pairs(image, labels, _beside(file.parent, f"{stem}_ignore"))


def _beside(folder: Path, stem: str) -> Path | None:
    return next((file for suffix in IMAGES if (file := folder / f"{stem}{suffix}").is_file()), None)


def pairs(
    image_file: str | Path, labels_file: str | Path, ignore_file: str | Path | None = None
) -> list[LabelledSlice]:
    """The slices of an image and its label image; of a stack, those that hold labels, all of one volume.

    Parameters
    ----------
    image_file : (Y, X) or (Z, Y, X), any format of `cbdetach.volume.open_volume`, or PNG, JPEG, BMP.
    labels_file : of the same shape, whole numbers: 0 outside, anything above inside a particle.
    ignore_file : of the same shape, or None: what is not 0 is ignored.

    Raises
    ------
    InputError : a file cannot be read, a slice holds a single grey value, shapes differ, labels are negative or not
        whole, or there are none.
    """
    image, labels = stack(Path(image_file)), stack(Path(labels_file))
    ignore = None if ignore_file is None else stack(Path(ignore_file)) != 0
    for other, file in ((labels, labels_file), (ignore, ignore_file)):
        if other is not None and other.shape != image.shape:
            raise InputError(
                f"{file}: must have the shape of {image_file}, {shape_text(image)}; got {shape_text(other)}. "
                "Give the label image that was drawn on this image."
            )
    if labels.dtype.kind == "f" and not np.array_equal(labels, np.floor(labels)):
        raise InputError(
            f"{labels_file}: labels must be whole numbers, one for each particle; some have fractions. "
            "Save the label image, not a probability."
        )
    if labels.min() < 0:
        raise InputError(f"{labels_file}: labels must be 0 or more; got {labels.min()}. Set what is outside to 0.")
    _warn_of_mask(labels, Path(labels_file))
    empty = [z for z in range(len(image)) if labels[z].any() and image[z].min() == image[z].max()]
    if empty:
        where = "" if len(image) == 1 else f" in labelled slice{'s' * (len(empty) > 1)} {', '.join(map(str, empty))}"
        raise InputError(f"{image_file}: must hold more than one grey value; got one{where}. Save it again.")
    stem, volume = Path(image_file).name, volume_of(Path(image_file), whole=len(image) > 1)
    result = [
        LabelledSlice(
            stem if len(image) == 1 else f"{stem} z={z}",
            volume,
            image[z],
            consecutive(labels[z]),
            ignore[z] if ignore is not None and ignore[z].any() else None,
        )
        for z in range(len(image))
        if labels[z].any()
    ]
    if not result:
        raise InputError(f"{labels_file}: must hold at least one labelled particle; every pixel is 0.")
    return result


def consecutive(labels: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """The same regions, numbered 1..n in the order of their numbers."""
    present, number = np.unique(labels, return_inverse=True)
    first = 0 if present[0] == 0 else 1
    return (number.reshape(labels.shape) + first).astype(np.int32)


def _warn_of_mask(labels: npt.NDArray[Any], file: Path) -> None:
    from skimage.measure import label

    if labels.any() and labels.min() == 0 and (labels[labels > 0] == labels.max()).all():
        pieces = int(label(labels > 0).max())  # type: ignore[no-untyped-call]
        if pieces > 1:
            _log.warning("%s: one label in %d pieces is one particle; is it a mask, not a label image?", file, pieces)


def volume_of(file: Path, *, whole: bool = False) -> str:
    """Folder and name without the number at its end (a stack is a volume of its own: with it)."""
    file = file.absolute()
    stem = file.stem if whole else re.sub(r"[\s_.\-]*(?:[zZ]=?)?\d+$", "", file.stem)
    return f"{file.parent.name}/{stem}"


def stack(file: Path) -> npt.NDArray[Any]:
    """(Z, Y, X), finite; a single image is a stack of one."""
    if file.suffix.lower() in PICTURES:
        pixels = _picture(file)[None]
    else:
        with called(str(file)), open_volume(file, allow_2d=True) as volume:
            pixels = np.array(volume[:])
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise InputError(f"{file}: must hold finite numbers; some are infinite or not a number.")
    return pixels


def _picture(file: Path) -> npt.NDArray[Any]:
    """(Y, X) of a PNG, JPEG or BMP; colours are averaged, which leaves a grey picture stored as colour what it is."""
    from PIL import Image

    if not file.is_file():
        raise InputError(f"{file}: there is nothing; check the path.")
    try:
        with Image.open(file) as picture:
            pixels: npt.NDArray[Any] = np.asarray(picture.convert("RGB") if picture.mode == "P" else picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{file}: cannot be read as an image ({str(error).splitlines()[0]}).") from None
    if pixels.ndim == 3 and pixels.shape[2] in (2, 3, 4):
        colours = pixels[..., : 1 if pixels.shape[2] == 2 else 3]
        grey = bool((colours == colours[..., :1]).all())
        pixels = colours[..., 0] if grey else colours.mean(axis=2, dtype=np.float32)
    if pixels.ndim != 2:
        raise InputError(f"{file}: must be a two-dimensional image; got shape {shape_text(pixels)}.")
    return pixels


def shape_text(pixels: npt.NDArray[Any]) -> str:
    """Y x X, as people write it; of a stack of more than one, Z x Y x X."""
    shape = pixels.shape[1:] if pixels.ndim == 3 and len(pixels) == 1 else pixels.shape
    return " x ".join(map(str, shape))
