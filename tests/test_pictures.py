"""Pictures of docs/ keep the colours that few pixels have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from benchmarks.pictures import COLOURS, save_small
from PIL import Image


def test_both_ends_of_a_colour_bar_are_kept(tmp_path: Path) -> None:
    """A picture of two colours by far, with a thin bar of a thousand others."""
    drawn = np.zeros((400, 500, 3), np.uint8)
    drawn[:200] = 250, 240, 230
    ramp = np.linspace(0, 1, 500)[:, None]
    drawn[390:394] = (255 * np.concatenate([ramp, 1 - ramp, np.abs(2 * ramp - 1)], axis=1)).astype(np.uint8)
    (tmp_path / "out").mkdir()
    Image.fromarray(drawn).save(tmp_path / "a.png")
    save_small(tmp_path / "a.png", tmp_path / "out")
    with Image.open(tmp_path / "out" / "a.png") as picture:
        found = np.asarray(picture.convert("RGB")).astype(int)
    assert np.abs(found - drawn).max() <= 8
    assert len(np.unique(found.reshape(-1, 3), axis=0)) <= COLOURS
    save_small(tmp_path / "a.png", tmp_path / "out", width=250)
    with Image.open(tmp_path / "out" / "a.png") as picture:
        assert picture.size == (250, 200)
