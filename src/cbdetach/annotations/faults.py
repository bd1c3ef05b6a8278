"""What can be wrong with an annotation file: gathered while it is read, and told at once."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

_log = logging.getLogger(__name__)
NAMED = 5
"""Missing files are named up to this many, and counted beyond."""

FAULTS = {
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


class Fault(ValueError):
    """Why a shape cannot be used: one of the keys of `FAULTS`."""


@dataclass
class Findings:
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
        """All of `wrong`, in the order of `FAULTS`."""
        parts = []
        for kind, (what, remedy) in FAULTS.items():
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
