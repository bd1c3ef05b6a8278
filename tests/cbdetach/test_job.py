"""One run while it works: what of a slab is held, and what of a slab's file is read."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach.config import Settings
from cbdetach.job import Job
from cbdetach.pipeline import link
from cbdetach.store import RunFolder, partition

SHAPE = (6, 4, 5)


def job_of(folder: Path) -> Job:
    """A run on nothing, in slabs of two slices."""
    return Job(Settings(), RunFolder(folder, partition(SHAPE[0], 2)), None, None, None, (1.0,) * 3, SHAPE, False)


def test_what_a_slab_gave_is_gone_before_the_next_is_worked_on(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    held: list[weakref.ref[npt.NDArray[Any]]] = []

    def work(index: int) -> dict[str, npt.NDArray[Any]]:
        assert [array() for array in held] == [None] * index
        array = np.full((2, *SHAPE[1:]), index)
        held.append(weakref.ref(array))
        return {"numbers": array[:1]}  # a view, as most are: it keeps all of the array

    job.each_slab("damage", work)
    assert len(held) == 3
    assert job.folder.read_volume("damage", "numbers", 4, 5).tolist() == np.full((1, *SHAPE[1:]), 2).tolist()


def test_of_a_slab_s_labels_only_the_slices_wanted_are_read(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    labels = np.arange(60, dtype=np.int32).reshape(3, 4, 5)
    job.folder.write_slab("segment", 1, {"labels": labels, "table/z0": np.array(2)})
    every, z0 = link._window_labels(job, 1)
    assert (every.tolist(), z0) == (labels.tolist(), 2)
    some, z0 = link._window_labels(job, 1, (3, 5))
    assert (some.tolist(), z0) == (labels[1:].tolist(), 3)
