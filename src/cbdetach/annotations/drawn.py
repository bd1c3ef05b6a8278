"""An annotation file as labelled slices: its images are found, its regions drawn, its faults told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach.annotations.faults import Fault, Findings
from cbdetach.annotations.formats import KNOWN_FORMATS, Picture, Region, pictures_of
from cbdetach.annotations.images import consecutive, shape_text, stack, volume_of
from cbdetach.annotations.shapes import Patch, patch
from cbdetach.annotations.slices import LabelledSlice
from cbdetach.errors import InputError


def read_json(path: Path, images: Path | None) -> list[LabelledSlice]:
    """Every labelled slice of a JSON file; `images` is the folder of its images, or None: its own."""
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: is not JSON (line {error.lineno}, column {error.colno}: {error.msg}); give a file of "
            f"{KNOWN_FORMATS}, or a label image."
        ) from None
    except (UnicodeDecodeError, RecursionError):
        raise InputError(f"{path}: is not JSON; give a file of {KNOWN_FORMATS}, or a label image.") from None
    found = Findings()
    result = []
    for picture in pictures_of(content, path, found):
        if not picture.regions:
            found.unlabelled += 1
            continue
        file = _find_image(picture.file, path.parent if images is None else images)
        if file is None:
            found.add("missing", picture.file)
        labelled = _labelled(picture, file, found)
        if labelled is not None:
            result.append(labelled)
    if found.wrong:
        raise InputError(f"{path}: {found.sentence()}.")
    if not result:
        raise InputError(f"{path}: must hold at least one annotated particle; found none. Draw some, or leave it out.")
    found.tell(path)
    return result


def _find_image(name: str, folder: Path) -> Path | None:
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    places = (folder / name, folder / base, folder / "images" / base)
    return next((file for file in places if base and file.is_file()), None)


def _labelled(picture: Picture, file: Path | None, found: Findings) -> LabelledSlice | None:
    """One image's regions as labels; None where something is wrong with it or it holds no particle."""
    image = None if file is None else _image(picture, file, found)
    patches = _patches(picture, picture.size if image is None else (image.shape[0], image.shape[1]), found)
    if image is None or file is None or patches is None or image.min() == image.max():
        return None
    labels = np.zeros(image.shape, np.int32)
    ignore = np.zeros(image.shape, np.bool_)
    for region, (y, x, inside) in patches:
        if region.ignored:
            ignore[y : y + inside.shape[0], x : x + inside.shape[1]] |= inside
    drawn = [pixels for region, pixels in patches if not region.ignored]
    for number in sorted(range(len(drawn)), key=lambda i: -int(drawn[i][2].sum())):
        y, x, inside = drawn[number]
        window = labels[y : y + inside.shape[0], x : x + inside.shape[1]]
        found.overlapping += int(np.count_nonzero(window[inside]))
        window[inside] = number + 1
    ignore &= labels == 0
    if not labels.any():
        found.unlabelled += 1
        return None
    labels = consecutive(labels)
    found.hidden += len(drawn) - int(labels.max())
    volume = picture.volume or volume_of(file)
    return LabelledSlice(picture.file, volume, image, labels, ignore if ignore.any() else None)


def _image(picture: Picture, file: Path, found: Findings) -> npt.NDArray[Any] | None:
    """The image itself, None if it cannot be read; what is wrong with it is noted."""
    try:
        images = stack(file)
    except InputError:
        images = np.zeros(0)
    if len(images) != 1:
        found.add("unreadable", picture.file)
        return None
    image: npt.NDArray[Any] = images[0]
    if picture.size is not None and picture.size != image.shape:
        found.add("size", picture.file, f"{shape_text(image)} instead of {' x '.join(map(str, picture.size))}")
    if image.min() == image.max():
        found.add("constant", picture.file)
    return image


def _patches(picture: Picture, size: tuple[int, int] | None, found: Findings) -> list[tuple[Region, Patch]] | None:
    """The pixels of each region that has some; None where the shape of one cannot be used, which is noted."""
    patches: list[tuple[Region, Patch]] | None = []
    for region in picture.regions:
        try:
            pixels, clipped = patch(region.shape, size)
        except Fault as fault:
            found.add(str(fault), picture.file, region.name)
            patches = None
            continue
        found.clipped += clipped
        if not pixels[2].any():
            found.empty += 1
        elif patches is not None:
            patches.append((region, pixels))
    return patches
