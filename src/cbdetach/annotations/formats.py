"""Images and regions in the JSON of the VGG Image Annotator and of COCO; shapes are left as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cbdetach.annotations.faults import Findings
from cbdetach.errors import InputError

KNOWN_FORMATS = "VGG Image Annotator 1.x or 2.x (project or JSON export) or COCO (images and annotations)"


class Region(NamedTuple):
    """One object of an annotation file: how people find it, what describes its shape, whether it is to be ignored."""

    name: str
    shape: Any
    ignored: bool


class Picture(NamedTuple):
    """One image of an annotation file; `size` is (Y, X) as the file states it, or None."""

    file: str
    volume: str | None
    size: tuple[int, int] | None
    regions: list[Region]


def pictures_of(content: Any, path: Path, found: Findings) -> Iterator[Picture]:
    """The images of an annotation file, in the format that its content shows."""
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


def _is_via(entries: Any) -> bool:
    return (
        isinstance(entries, dict)
        and bool(entries)
        and all(
            isinstance(e, dict) and isinstance(e.get("filename"), str) and isinstance(e.get("regions"), dict | list)
            for e in entries.values()
        )
    )


def _via(entries: Mapping[str, Any]) -> Iterator[Picture]:
    """Regions count from 1, as the tool shows them."""
    for entry in entries.values():
        regions = entry["regions"]
        listed = list(regions.values()) if isinstance(regions, dict) else regions
        attributes = entry.get("file_attributes")
        volume = attributes.get("volume") if isinstance(attributes, dict) else None
        yield Picture(
            entry["filename"],
            str(volume) if volume else None,
            None,
            [
                Region(
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


def _coco(content: Mapping[str, Any], found: Findings) -> Iterator[Picture]:
    categories = content.get("categories")
    ignored = {
        str(category.get("id"))
        for category in (categories if isinstance(categories, list) else ())
        if isinstance(category, dict) and _says_ignore(category.get("name"))
    }
    regions: dict[Any, list[Region]] = {
        str(entry.get("id")): [] for entry in content["images"] if isinstance(entry, dict)
    }
    for i, annotation in enumerate(content["annotations"]):
        entry = annotation if isinstance(annotation, dict) else {}
        name, image = f"annotation {entry.get('id', i)}", str(entry.get("image_id"))
        if image not in regions:
            found.add("unknown", name)
            continue
        is_ignored = bool(entry.get("iscrowd")) or str(entry.get("category_id")) in ignored
        regions[image].append(Region(name, entry.get("segmentation"), is_ignored))
    for entry in content["images"]:
        if isinstance(entry, dict):
            height, width = entry.get("height"), entry.get("width")
            stated = isinstance(height, int) and isinstance(width, int)
            yield Picture(
                str(entry.get("file_name", "")),
                str(entry["volume"]) if entry.get("volume") else None,
                (int(entry["height"]), int(entry["width"])) if stated else None,
                regions[str(entry.get("id"))],
            )
