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

from pathlib import Path

from cbdetach.annotations.drawn import read_json
from cbdetach.annotations.images import IMAGES, pair_of, pairs, pairs_in
from cbdetach.annotations.shapes import crosses_itself, decode_runs, rasterise
from cbdetach.annotations.slices import LabelledSlice, split
from cbdetach.errors import InputError

__all__ = [
    "LabelledSlice",
    "crosses_itself",
    "decode_runs",
    "pairs",
    "rasterise",
    "read_annotations",
    "read_given",
    "split",
]


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
        return pairs_in(path)
    if not path.is_file():
        raise InputError(f"annotations: there is nothing at {path}; give a JSON file, a label image, or a folder.")
    if path.suffix.lower() in IMAGES:
        return pair_of(path)
    return read_json(path, None if images is None else Path(images))


def read_given(path: str | Path, option: str) -> list[LabelledSlice]:
    """`read_annotations`; what is wrong is said of the option, or the argument, that the path was given by."""
    try:
        return read_annotations(path)
    except InputError as error:
        raise InputError(f"{option}: {str(error).removeprefix('annotations: ')}") from None
