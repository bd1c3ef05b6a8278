"""The README and the pages of docs/: figures that are there and small, commands and modules that exist."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

from cbdetach import table
from cbdetach.cli import app
from cbdetach.features import FEATURES

PROJECT = Path(__file__).resolve().parents[1]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
FIGURE_BYTES = 100_000


def test_there_are_pages() -> None:
    assert {"connected.md", "diffusion.md", "correlative.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_figures_are_there_and_small(page: Path) -> None:
    for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).is_file(), link
        assert (page.parent / link).stat().st_size < FIGURE_BYTES, link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.S | re.M)
    blocks = [block for language, block in fenced if not language]
    blocks += re.findall(r"^ {4}(cbdetach .*)$", text, flags=re.M) + re.findall(r"`(cbdetach [^`]+)`", text)
    lines = "\n".join(blocks).replace("&&", "\n").splitlines()
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[:1] != ["cbdetach"] or len(words) < 2 or words[1].startswith("-"):
            continue
        assert words[1] in COMMANDS, line
        known = {name for option in COMMANDS[words[1]].params for name in option.opts}
        assert {word for word in words if re.match(r"--?[a-z]", word)} <= known, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_exist(page: Path) -> None:
    for module in re.findall(r"python -m ([a-z_.]+)", page.read_text(encoding="utf-8")):
        assert find_spec(module) is not None, module
    for path in re.findall(r"`pytest (tests/[a-z_/.]+)`", page.read_text(encoding="utf-8")):
        assert (PROJECT / path).is_file(), path


@pytest.mark.parametrize("name", [*table.COLUMNS, *FEATURES])
def test_every_column_has_a_measured_error(name: str) -> None:
    """Or it is named there as one that has none."""
    assert f"`{name}`" in (PROJECT / "docs" / "accuracy.md").read_text(encoding="utf-8")
