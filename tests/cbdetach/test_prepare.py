"""What is left of a run that was stopped: nothing by bad input, everything by what can be put right and resumed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import cbdetach
from cbdetach import report
from cbdetach.errors import InputError, ResumableError
from cbdetach.store import RunFolder


@pytest.fixture
def given() -> dict[str, Any]:
    """Phases of a coated ball, in two slabs."""
    r = np.sqrt(((np.indices((20, 20, 20)) - 9.5) ** 2).sum(axis=0))
    phases: npt.NDArray[Any] = np.where(r <= 7, 2, r <= 8.5).astype(np.uint8)
    return {"phases": phases, "phase_values": {"void": 0, "cbd": 1, "active": 2}, "voxel_size": 0.5, "slab": 10}


@pytest.fixture(autouse=True)
def plain_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "write_report", lambda given: given.out / "report.html")


@pytest.mark.parametrize("writes", [0, 1, 5, 12])
def test_a_full_disk_leaves_a_run_that_resumes(
    given: dict[str, Any], writes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real, room = tmp_path / "out", os.fsync, iter(range(writes))

    def full(handle: int) -> None:
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ResumableError, match=r"the disk is full; what was whole before still is\. .* --resume"):
            cbdetach.run(out=out, **given)
    assert out.is_dir()
    assert any(out.glob("*/slab_*.h5")) == (writes >= 5)
    assert not list(out.rglob("*.part*"))
    with cbdetach.run(out=out, resume=True, **given) as run:
        assert len(run.table) == 1


def test_a_slab_that_vanishes_leaves_a_run_that_resumes(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "out", RunFolder.write_result

    def lose_a_slab(folder: RunFolder, stage: str, result: Any) -> None:
        real(folder, stage, result)
        if stage == "link":
            folder.slab_path("phases", 1).unlink()

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_result", lose_a_slab)
        with pytest.raises(ResumableError, match=r"slab_00001\.h5: this slab is missing or damaged"):
            cbdetach.run(out=out, **given)
    with cbdetach.run(out=out, resume=True, **given) as run:
        assert len(run.table) == 1


@pytest.mark.parametrize("existed", [True, False])
def test_bad_input_that_is_found_late_leaves_nothing(given: dict[str, Any], existed: bool, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if existed:
        out.mkdir()
    with pytest.raises(InputError, match="no particle found") as caught:
        cbdetach.run(out=out, **given, config={"segment": {"min_diameter_um": 99}})
    assert not isinstance(caught.value, ResumableError)
    assert out.exists() == existed
    assert not existed or not list(out.iterdir())
