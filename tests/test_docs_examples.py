"""The README and the pages of docs/: examples run, links and pictures are there, the index knows all of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cbdetach import report
from cbdetach.demo import demo
from cbdetach.phantom import Phantom
from cbdetach.results import Run

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
README = DOCS.parent / "README.md"
LARGEST_PICTURE = 100_000  # bytes


@pytest.fixture(scope="module")
def after_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where `cbdetach demo` has been run, on a small electrode of many small particles."""
    folder = tmp_path_factory.mktemp("docs")
    demo(folder / "cbdetach_demo", size=72, seed=3, progress=False, segmenter="watershed")
    return folder


def examples(page: Path) -> list[str]:
    """The blocks of a page marked as Python, below as many empty lines as it has there: errors name the line."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```$", text, flags=re.M | re.S)
    return ["\n" * text.count("\n", 0, block.start(1)) + block.group(1) for block in found]


@pytest.mark.parametrize("page", [p for p in PAGES if examples(p)], ids=lambda p: p.name)
def test_examples_run(page: Path, after_demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an example is a whole run, without the figures of its report, of which it does not speak."""
    monkeypatch.chdir(after_demo)
    if page.name == "scheduler.md":
        pytest.importorskip("distributed", reason="not here: pip install 'cbdetach[distributed]'")
        monkeypatch.setattr(report, "write_report", lambda given: given.out / "report.html")
    names: dict[str, object] = {"__name__": "__main__"}
    for code in examples(page):
        exec(compile(code, str(page), "exec"), names)


@pytest.mark.slow
def test_the_readme_s_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a scan that is as small as they allow: they show slice 100. `image` is a slice of it.

    The figures of the run's report, of which no example speaks, are left out: they take the longest.
    """
    scan = Phantom(shape=(104, 56, 56), seed=3).slab(0, 104).grey
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["exchange/data"] = scan
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "write_report", lambda given: given.out / "report.html")
    names: dict[str, Any] = {"__name__": "__main__", "image": scan[52]}
    blocks = examples(README)
    assert len(blocks) == 3
    for code in blocks:
        exec(compile(code, str(README), "exec"), names)
    with names["run"] as run:
        assert isinstance(run, Run)
        assert {run.path.name, "particles.tif"} <= {path.name for path in tmp_path.iterdir()}
    assert names["labels"].shape == scan[52].shape
    assert names["labels"].max() > 0
    length = names["length"]
    assert length.dtype == np.float32
    assert length.max() > 0.5 * 63  # the far side lies 63.5 voxels of 0.5 from the contact


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda p: p.name)
def test_links_and_pictures_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), target


def test_the_index_knows_every_page() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in PAGES if p.name != "README.md" and p.name not in index] == []


def test_pictures_are_small_and_shown() -> None:
    shown = "".join(p.read_text(encoding="utf-8") for p in PAGES)
    for picture in (DOCS / "figures").glob("*"):
        assert picture.stat().st_size < LARGEST_PICTURE, picture.name
        assert f"figures/{picture.name}" in shown, picture.name
