"""Slices with hand-drawn or known particles: the common type of training and evaluation, its readers, the split.

Three ways to hand in labels: JSON of the VGG Image Annotator (1.x and 2.x, project or export), COCO JSON (polygons, run
lengths plain or compressed), and label images beside their images. What is in the files is checked as a whole, and what
is wrong is told at once: a file with five faults gives one sentence that lists the five.

Outlines are in image coordinates: pixel (row i, column j) covers j <= x < j + 1 and i <= y < i + 1, as on the canvas of
the annotation tools and in COCO. A pixel belongs to an outline if its centre (j + 0.5, i + 0.5) is inside or on it.
Where two particles overlap, the smaller one keeps the pixels, and a warning in the log counts them.

A COCO annotation with `iscrowd`, one of a category `ignore`, and a VGG region with an attribute value `ignore` are no
particles but ignore areas. Images without any region are not slices without particles: they are left out.

Slices of one volume must not land on both sides of a split. Which volume a slice is from is read from the file
attribute (VGG) or image entry (COCO) `volume`; without it, from the image's folder and name without the number at its
end: `cell_A/slice_0012.png` is from `cell_A/slice`.

No torch here.

Formats: VGG Image Annotator, Dutta & Zisserman (2019), https://www.robots.ox.ac.uk/~vgg/software/via; COCO, Lin et al.
(2014), https://cocodataset.org/#format-data; run lengths as in its maskApi.c.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cbdetach.errors import InputError
from cbdetach.volume import open_volume

_log = logging.getLogger(__name__)

PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
"""Suffixes of images that are not volumes; others are opened by `cbdetach.volume`."""
IMAGES = (".tif", ".tiff", ".npy", *PICTURES)
"""Suffixes that a folder of pairs is searched for, the first that exists."""
SLACK = 0.5
"""Pixels by which an outline may leave the image without being called clipped: a click on the image's last line."""
NAMED = 5
"""Missing files are named up to this many, and counted beyond."""
KNOWN_FORMATS = "VGG Image Annotator 1.x or 2.x (project or JSON export) or COCO (images and annotations)"


@dataclass(frozen=True, eq=False)
class LabelledSlice:
    """A grey slice and its particles.

    Attributes:
        name: for people: the file or the scene.
        volume: what slices are split by: slices of one volume never land on both sides of a split.
        image: (Y, X), any real dtype: grey levels as stored.
        labels: (Y, X) int32: 0 outside, 1..n inside the particles, every label present.
        ignore: (Y, X) bool, or None: where a missing or an extra particle is neither right nor wrong.
    """

    name: str
    volume: str
    image: npt.NDArray[Any]
    labels: npt.NDArray[np.int32]
    ignore: npt.NDArray[np.bool_] | None = None


def read_annotations(path: str | Path, images: str | Path | None = None) -> list[LabelledSlice]:
    """Every labelled slice of an annotation file, a label image, or a folder of label images.

    Parameters
    ----------
    path : a JSON file (its format is found by its content); a label image `NAME_labels.tif` or its image `NAME.tif`;
        or a folder of these. `NAME_ignore.tif` marks the ignore area, where there is one. TIFF, PNG, JPEG, BMP, NPY.
    images : folder of the images that a JSON file names; without it, the JSON file's own and its subfolder `images`.

    Raises
    ------
    InputError : there is nothing at `path`; it is not JSON, or JSON of no known format; images are missing or of
        another size; outlines have fewer than three points, cross themselves or lie outside the image; run lengths do
        not fit the image; label images are not of whole numbers; there is no particle at all. All that is wrong in one
        sentence.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise InputError(f"annotations: there is nothing at {path}; give a JSON file, a label image, or a folder.")
    if path.suffix.lower() in IMAGES:
        return _pair_of(path)
    return _json(path, None if images is None else Path(images))


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
    image, labels = _stack(Path(image_file)), _stack(Path(labels_file))
    ignore = None if ignore_file is None else _stack(Path(ignore_file)) != 0
    for other, file in ((labels, labels_file), (ignore, ignore_file)):
        if other is not None and other.shape != image.shape:
            raise InputError(
                f"{file}: must have the shape of {image_file}, {_shape(image)}; got {_shape(other)}. "
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
    stem, volume = Path(image_file).name, _volume_of(Path(image_file), whole=len(image) > 1)
    result = [
        LabelledSlice(
            stem if len(image) == 1 else f"{stem} z={z}",
            volume,
            image[z],
            _consecutive(labels[z]),
            ignore[z] if ignore is not None and ignore[z].any() else None,
        )
        for z in range(len(image))
        if labels[z].any()
    ]
    if not result:
        raise InputError(f"{labels_file}: must hold at least one labelled particle; every pixel is 0.")
    return result


def split(
    slices: Sequence[LabelledSlice], *, validation: int = 66, training: int = 155, seed: int = 0
) -> tuple[list[LabelledSlice], list[LabelledSlice]]:
    """Slices to learn from and slices held out, in the proportion `training` to `validation` (Suppl. Note 1).

    Of several volumes, whole volumes are held out: those whose number of slices comes closest to the proportion. Of one
    volume, slices are. Both lists are in the order given; the same arguments give the same split.

    Raises
    ------
    InputError : `training` below 1, `validation` below 0, or fewer than two slices where some are to be held out.
    """
    for name, value, least in (("training", training, 1), ("validation", validation, 0)):
        if value < least:
            raise InputError(f"{name}: must be {least} or more; got {value}.")
    n = len(slices)
    if n < 1 + (validation > 0):
        raise InputError(
            f"annotations: {n} labelled slice{'' if n == 1 else 's'} cannot be split {training} to {validation}; "
            "label at least two, or hold none out (validation = 0)."
        )
    if validation == 0:
        return list(slices), []
    wanted = min(max(round(n * validation / (training + validation)), 1), n - 1)
    volumes: dict[str, list[int]] = {}
    for i, piece in enumerate(slices):
        volumes.setdefault(piece.volume, []).append(i)
    rng = np.random.default_rng(seed)
    if len(volumes) == 1:
        held = set(rng.permutation(n)[:wanted].tolist())
    else:
        held = _whole([volumes[name] for name in rng.permutation(sorted(volumes))], wanted)
        if abs(len(held) - wanted) > max(1, 0.25 * wanted):
            _log.warning("whole volumes are held out: %d of %d slices instead of %d", len(held), n, wanted)
    return [s for i, s in enumerate(slices) if i not in held], [s for i, s in enumerate(slices) if i in held]


def _whole(groups: list[list[int]], wanted: int) -> set[int]:
    """The members of some of the groups, not all, as close to `wanted` in number as can be."""
    way: dict[int, tuple[int, int]] = {0: (0, -1)}  # number that can be reached: from which number, by which group
    for g, group in enumerate(groups):
        for number in list(way):
            way.setdefault(number + len(group), (number, g))
    total = sum(map(len, groups))
    number = min((m for m in way if 0 < m < total), key=lambda m: (abs(m - wanted), m))
    held: set[int] = set()
    while number:
        number, g = way[number]
        held.update(groups[g])
    return held


# Label images


def _folder(folder: Path) -> list[LabelledSlice]:
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
            result += _pair_of(file)
        except InputError as error:
            wrong.append(str(error))
    if wrong:
        raise InputError(wrong[0] if len(wrong) == 1 else "; ".join(text.rstrip(".") for text in wrong) + ".")
    return result


def _pair_of(file: Path) -> list[LabelledSlice]:
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


def _stack(file: Path) -> npt.NDArray[Any]:
    """(Z, Y, X), finite; a single image is a stack of one."""
    if file.suffix.lower() in PICTURES:
        pixels = _picture(file)[None]
    else:
        with open_volume(file, allow_2d=True) as volume:
            pixels = np.array(volume[:])
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise InputError(f"{file}: must hold finite numbers; some are infinite or not a number.")
    return pixels


def _picture(file: Path) -> npt.NDArray[Any]:
    """(Y, X) of a PNG, JPEG or BMP; colours are averaged, which leaves a grey picture stored as colour what it is."""
    from PIL import Image

    if not file.is_file():
        raise InputError(f"volume: there is nothing at {file}; check the path.")
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
        raise InputError(f"{file}: must be a two-dimensional image; got shape {_shape(pixels)}.")
    return pixels


def _consecutive(labels: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
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


def _volume_of(file: Path, *, whole: bool = False) -> str:
    """Folder and name without the number at its end (a stack is a volume of its own: with it)."""
    file = file.absolute()
    stem = file.stem if whole else re.sub(r"[\s_.\-]*(?:[zZ]=?)?\d+$", "", file.stem)
    return f"{file.parent.name}/{stem}"


def _shape(pixels: npt.NDArray[Any]) -> str:
    shape = pixels.shape[1:] if pixels.ndim == 3 and len(pixels) == 1 else pixels.shape
    return " x ".join(map(str, shape))


# JSON


class _Region(NamedTuple):
    """One object of an annotation file: how people find it, what describes its shape, whether it is to be ignored."""

    name: str
    shape: Any
    ignored: bool


class _Picture(NamedTuple):
    """One image of an annotation file; `size` is (Y, X) as the file states it, or None."""

    file: str
    volume: str | None
    size: tuple[int, int] | None
    regions: list[_Region]


class _Fault(ValueError):
    """Why a shape cannot be used: one of the keys of `_FAULTS`."""


_FAULTS = {
    "missing": ("missing images", "put them beside the annotation file"),
    "unreadable": ("images that cannot be read", "save them as two-dimensional TIFF or PNG"),
    "constant": ("images of a single grey value", "save them again from the tomogram"),
    "size": ("images of another size than annotated", "give the images that were annotated"),
    "unknown": ("annotations of images that the file does not list", "export the annotations again"),
    "malformed": ("regions without a usable outline", "draw them as polygon, circle, ellipse or rectangle"),
    "few": ("outlines of fewer than three points", "delete or redraw them"),
    "crossing": ("outlines that cross themselves", "move the points at the crossing, or redraw them"),
    "outside": ("outlines that lie outside the image", "delete them, or annotate the right image"),
    "runs": ("run lengths that do not fill the image", "export the annotations again"),
}
"""What can be wrong, and what to do."""


@dataclass
class _Findings:
    """What is wrong, by kind and image; and what was set right, as counts for the log."""

    wrong: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    clipped: int = 0
    empty: int = 0
    hidden: int = 0
    overlapping: int = 0
    unlabelled: int = 0

    def add(self, kind: str, file: str, region: str = "") -> None:
        self.wrong.setdefault(kind, {}).setdefault(file, []).extend([region] if region else [])

    def sentence(self) -> str:
        """All of `wrong`, in the order of `_FAULTS`."""
        parts = []
        for kind, (what, remedy) in _FAULTS.items():
            files = self.wrong.get(kind, {})
            shown = [f"{file} ({', '.join(r)})" if r else file for file, r in files.items()]
            if kind == "missing" and len(shown) > NAMED:
                shown = [*shown[:NAMED], f"and {len(shown) - NAMED} more"]
            if shown:
                parts.append(f"{what}: {', '.join(shown)} ({remedy})")
        return "; ".join(parts)

    def tell(self, path: Path) -> None:
        """Log what was set right."""
        for count, text in (
            (self.clipped, "outlines reach out of the image and were clipped"),
            (self.empty, "outlines hold no pixel's centre and were left out"),
            (self.hidden, "outlines lie wholly below smaller ones and were left out"),
            (self.overlapping, "pixels lie in several outlines and went to the smallest"),
        ):
            if count:
                _log.warning("%s: %d %s", path, count, text)
        if self.unlabelled:
            _log.info("%s: %d images without regions were left out", path, self.unlabelled)


def _json(path: Path, images: Path | None) -> list[LabelledSlice]:
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
    found = _Findings()
    result = []
    for picture in _pictures(content, path, found):
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


def _pictures(content: Any, path: Path, found: _Findings) -> Iterator[_Picture]:
    if isinstance(content, dict):
        if isinstance(content.get("images"), list) and isinstance(content.get("annotations"), list):
            return _coco(content, found)
        entries = content.get("_via_img_metadata", content)
        if isinstance(entries, dict) and entries is not content and not entries:
            return iter(())
        if _is_via(entries):
            return _via(entries)
        if isinstance(content.get("project"), dict) and "metadata" in content and "view" in content:
            raise InputError(
                f"{path}: is a project of the VGG Image Annotator 3, which is not read; draw with version 2, or export "
                "it as COCO."
            )
    raise InputError(f"{path}: is JSON of no known format; give a file of {KNOWN_FORMATS}.")


def _find_image(name: str, folder: Path) -> Path | None:
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    places = (folder / name, folder / base, folder / "images" / base)
    return next((file for file in places if base and file.is_file()), None)


def _is_via(entries: Any) -> bool:
    return (
        isinstance(entries, dict)
        and bool(entries)
        and all(
            isinstance(e, dict) and isinstance(e.get("filename"), str) and isinstance(e.get("regions"), dict | list)
            for e in entries.values()
        )
    )


def _via(entries: Mapping[str, Any]) -> Iterator[_Picture]:
    """Regions count from 1, as the tool shows them."""
    for entry in entries.values():
        regions = entry["regions"]
        listed = list(regions.values()) if isinstance(regions, dict) else regions
        attributes = entry.get("file_attributes")
        volume = attributes.get("volume") if isinstance(attributes, dict) else None
        yield _Picture(
            entry["filename"],
            str(volume) if volume else None,
            None,
            [
                _Region(
                    f"region {i}",
                    region.get("shape_attributes") if isinstance(region, dict) else None,
                    isinstance(region, dict) and _says_ignore(region.get("region_attributes")),
                )
                for i, region in enumerate(listed, 1)
            ],
        )


def _says_ignore(attributes: Any) -> bool:
    """A value `ignore`, or a ticked box of that name."""
    if isinstance(attributes, dict):
        return any(_says_ignore(value) or (value is True and key == "ignore") for key, value in attributes.items())
    return isinstance(attributes, str) and attributes.strip().lower() == "ignore"


def _coco(content: Mapping[str, Any], found: _Findings) -> Iterator[_Picture]:
    categories = content.get("categories")
    ignored = {
        str(category.get("id"))
        for category in (categories if isinstance(categories, list) else ())
        if isinstance(category, dict) and _says_ignore(category.get("name"))
    }
    regions: dict[Any, list[_Region]] = {
        str(entry.get("id")): [] for entry in content["images"] if isinstance(entry, dict)
    }
    for i, annotation in enumerate(content["annotations"]):
        entry = annotation if isinstance(annotation, dict) else {}
        name, image = f"annotation {entry.get('id', i)}", str(entry.get("image_id"))
        if image not in regions:
            found.add("unknown", name)
            continue
        is_ignored = bool(entry.get("iscrowd")) or str(entry.get("category_id")) in ignored
        regions[image].append(_Region(name, entry.get("segmentation"), is_ignored))
    for entry in content["images"]:
        if isinstance(entry, dict):
            height, width = entry.get("height"), entry.get("width")
            stated = isinstance(height, int) and isinstance(width, int)
            yield _Picture(
                str(entry.get("file_name", "")),
                str(entry["volume"]) if entry.get("volume") else None,
                (int(entry["height"]), int(entry["width"])) if stated else None,
                regions[str(entry.get("id"))],
            )


# Shapes to pixels


Patch = tuple[int, int, npt.NDArray[np.bool_]]
"""Row and column of the upper left pixel, and the pixels."""
_NOTHING: Patch = (0, 0, np.zeros((1, 1), np.bool_))


def _labelled(picture: _Picture, file: Path | None, found: _Findings) -> LabelledSlice | None:
    """One image's regions as labels; None where something is wrong with it or it holds no particle."""
    image, shape, sound = None, picture.size, True
    if file is not None:
        try:
            stack = _stack(file)
            image = stack[0] if len(stack) == 1 else None
        except InputError:
            image = None
        if image is None:
            found.add("unreadable", picture.file)
        else:
            if shape is not None and shape != image.shape:
                stated = " x ".join(map(str, shape))
                found.add("size", picture.file, f"{_shape(image)} instead of {stated}")
            if image.min() == image.max():
                found.add("constant", picture.file)
                sound = False
            shape = image.shape[0], image.shape[1]
    patches: list[tuple[_Region, Patch]] = []
    for region in picture.regions:
        try:
            patch, clipped = _patch(region.shape, shape)
        except _Fault as fault:
            found.add(str(fault), picture.file, region.name)
            sound = False
            continue
        found.clipped += clipped
        if patch[2].any():
            patches.append((region, patch))
        else:
            found.empty += 1
    if image is None or file is None or not sound:
        return None
    labels = np.zeros(image.shape, np.int32)
    ignore = np.zeros(image.shape, np.bool_)
    drawn = [patch for region, patch in patches if not region.ignored]
    for region, (y, x, inside) in patches:
        if region.ignored:
            ignore[y : y + inside.shape[0], x : x + inside.shape[1]] |= inside
    for number in sorted(range(len(drawn)), key=lambda i: -int(drawn[i][2].sum())):
        y, x, inside = drawn[number]
        window = labels[y : y + inside.shape[0], x : x + inside.shape[1]]
        found.overlapping += int(np.count_nonzero(window[inside]))
        window[inside] = number + 1
    ignore &= labels == 0
    if not labels.any():
        found.unlabelled += 1
        return None
    labels = _consecutive(labels)
    found.hidden += len(drawn) - int(labels.max())
    return LabelledSlice(
        picture.file, picture.volume or _volume_of(file), image, labels, ignore if ignore.any() else None
    )


def _patch(shape: Any, size: tuple[int, int] | None) -> tuple[Patch, bool]:
    """Pixels of a region, and whether it was clipped. Without an image's size only what needs none is checked."""
    if isinstance(shape, dict) and "counts" in shape:
        if size is not None and shape.get("size") != list(size):
            raise _Fault("runs")
        return _trimmed(decode_runs(shape)), False
    if isinstance(shape, dict) and shape.get("name") in ("circle", "ellipse"):
        return _ellipse(shape, size)
    rings = _rings(shape)
    if size is None:
        return _NOTHING, False
    x, y = np.concatenate(rings).T
    (row, column, height, width), clipped = _window((x.min(), x.max(), y.min(), y.max()), size)
    parts = [rasterise(ring - (column, row), (height, width)) for ring in rings]
    return (row, column, np.logical_or.reduce(parts)), clipped


def _trimmed(inside: npt.NDArray[np.bool_]) -> Patch:
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not rows.size:
        return _NOTHING
    y, x = int(rows[0]), int(columns[0])
    return y, x, inside[y : rows[-1] + 1, x : columns[-1] + 1].copy()


def _rings(shape: Any) -> list[npt.NDArray[np.float64]]:
    """The outlines (n, 2) of a polygon, rectangle or list of COCO polygons: sound, or a `_Fault`."""
    if isinstance(shape, dict) and shape.get("name") in ("polygon", "polyline"):
        x, y = _numbers(shape.get("all_points_x")), _numbers(shape.get("all_points_y"))
        if len(x) != len(y):
            raise _Fault("malformed")
        points = [np.column_stack((x, y))]
    elif isinstance(shape, dict) and shape.get("name") == "rect":
        x0, y0, width, height = (_numbers([shape.get(key)])[0] for key in ("x", "y", "width", "height"))
        x1, y1 = x0 + width, y0 + height
        points = [np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])]
    elif isinstance(shape, list) and shape:
        flat = [shape] if not isinstance(shape[0], list) else shape
        numbers = [_numbers(part) for part in flat]
        if any(len(part) % 2 for part in numbers):
            raise _Fault("malformed")
        points = [part.reshape(-1, 2) for part in numbers]
    else:
        raise _Fault("malformed")
    rings = []
    for ring in points:
        distinct = ring[np.any(ring != np.roll(ring, 1, axis=0), axis=1)]
        if len(distinct) < 3:
            raise _Fault("few")
        if crosses_itself(distinct):
            raise _Fault("crossing")
        rings.append(distinct)
    return rings


def _numbers(values: Any) -> npt.NDArray[np.float64]:
    if not isinstance(values, list) or not all(
        isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9 for v in values
    ):
        raise _Fault("malformed")
    return np.array(values, np.float64)


def _window(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[tuple[int, int, int, int], bool]:
    """Row, column, height and width of the image's part of a box x0, x1, y0, y1, and whether it reaches out of it.

    A box outside altogether is a `_Fault`.
    """
    (x0, x1, y0, y1), (height, width) = box, size
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise _Fault("outside")
    clipped = x0 < -SLACK or y0 < -SLACK or x1 > width + SLACK or y1 > height + SLACK
    row, column = max(0, math.floor(y0)), max(0, math.floor(x0))
    return (row, column, min(height, math.ceil(y1)) - row, min(width, math.ceil(x1)) - column), bool(clipped)


def rasterise(points: npt.NDArray[np.float64], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """(Y, X) bool: pixels whose centre (column + 0.5, row + 0.5) is in or on the polygon `points`, (n, 2) of x, y."""
    from skimage.draw import polygon

    inside = np.zeros(shape, np.bool_)
    inside[polygon(points[:, 1] - 0.5, points[:, 0] - 0.5, shape)] = True  # type: ignore[no-untyped-call]
    return inside


def _ellipse(shape: Mapping[str, Any], size: tuple[int, int] | None) -> tuple[Patch, bool]:
    """Circle cx, cy, r or ellipse cx, cy, rx, ry, theta (radians, from x to y), as the annotator stores them."""
    radii = ("r", "r") if shape["name"] == "circle" else ("rx", "ry")
    cx, cy, rx, ry = (float(_numbers([shape.get(key)])[0]) for key in ("cx", "cy", *radii))
    theta = float(_numbers([shape.get("theta", 0.0)])[0])
    if rx <= 0 or ry <= 0:
        raise _Fault("malformed")
    if size is None:
        return _NOTHING, False
    c, s = math.cos(theta), math.sin(theta)
    half_x, half_y = math.hypot(rx * c, ry * s), math.hypot(rx * s, ry * c)
    (row, column, height, width), clipped = _window((cx - half_x, cx + half_x, cy - half_y, cy + half_y), size)
    x, y = column + np.arange(width) + 0.5 - cx, row + np.arange(height)[:, None] + 0.5 - cy
    return (row, column, ((x * c + y * s) / rx) ** 2 + ((y * c - x * s) / ry) ** 2 <= 1), clipped


def crosses_itself(points: npt.NDArray[np.float64]) -> bool:
    """Whether two edges of the closed polygon `points`, (n, 2), cross; edges that only touch do not."""
    start, end = points, np.roll(points, -1, axis=0)
    rows = max(1, 2**18 // len(points))  # edges that are compared with all others at once
    for i in range(0, len(points), rows):
        a, b = start[i : i + rows, None], end[i : i + rows, None]
        crossing = (_side(a, b, start) * _side(a, b, end) < 0) & (_side(start, end, a) * _side(start, end, b) < 0)
        if crossing.any():
            return True
    return False


def _side(a: Any, b: Any, point: Any) -> Any:
    """Sign of the side of the line a to b on which a point lies; arrays of (..., 2)."""
    along, to = b - a, point - a
    return np.sign(along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0])


def decode_runs(runs: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """(Y, X) bool from COCO run lengths: `size` (Y, X), `counts` of 0s and 1s in turn, down the columns.

    Counts are numbers or text. In text, a count is a little-endian sequence of characters from "0" on: five bits each,
    the sixth says that more follow, the fifth of the last one is the sign. From the fourth count on it is the
    difference to the last but one.

    Raises
    ------
    ValueError : the runs do not fill the size exactly.
    """
    size, counts = runs.get("size"), runs.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) and 0 < n < 2**16 for n in size)):
        raise _Fault("runs")
    if isinstance(counts, str):
        counts = _counts_of(counts)
    if not isinstance(counts, list) or not all(isinstance(n, int) and n >= 0 for n in counts):
        raise _Fault("runs")
    if sum(counts) != size[0] * size[1]:
        raise _Fault("runs")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(size[1], size[0]).T


def _counts_of(text: str) -> list[int]:
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise _Fault("runs")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value, shift = 0, 0
    if shift:
        raise _Fault("runs")
    return counts
