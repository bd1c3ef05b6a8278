"""Pictures of docs/: few bytes, and the colours that were drawn."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

COLOURS = 256


def save_small(source: Path, folder: Path, *, width: int | None = None) -> None:
    """A copy of a picture in a folder with `COLOURS` colours, scaled to a width where one is given.

    Colours are chosen to cover the whole range that is there: by their counts, as is usual, rare ones would go, and
    with them an end of a colour bar.
    """
    with Image.open(source) as drawn:
        picture = drawn.convert("RGB")
    if width is not None:
        picture = picture.resize((width, round(width * picture.height / picture.width)), Image.Resampling.LANCZOS)
    few = picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=4, dither=Image.Dither.NONE)
    few.save(folder / source.name, optimize=True)
