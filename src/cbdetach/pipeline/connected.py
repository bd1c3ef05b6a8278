"""Carbon/binder of a run with a path to the anchor: from slab to slab, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach import connected
from cbdetach.codes import COLLECTOR
from cbdetach.job import Job

Array = npt.NDArray[Any]


def connected_stage(job: Job) -> dict[str, Any]:
    """Carbon/binder with a path to the collector, or to the side that the settings name; nothing without an anchor."""
    voxels, side = job.result("phases")["voxels"], job.settings.connected.anchor
    anchor = "collector" if voxels["collector"] else side
    warnings = []
    if anchor == "collector" and side is not None:
        warnings.append(f"The volume holds a collector: carbon/binder is followed to it, not to the side {side}.")
    if anchor is None or not voxels["cbd"]:
        return {"anchor": anchor, "warnings": warnings}
    n = len(job.folder.slabs)

    def cbd(index: int, halo: int = 0) -> Array:
        w0, w1 = job.slab(index, halo)
        return connected.free_cbd(job.particles(w0, w1), job.codes(w0, w1))

    def touching(index: int, connectivity: int) -> Array:
        if side is not None and anchor == side:
            return connected.on_side(cbd(index), side, first=index == 0, last=index == n - 1)
        (z0, z1), (w0, w1) = job.slab(index), job.slab(index, connected.HALO)
        found = connected.anchored(
            cbd(index, connected.HALO), job.codes(w0, w1) == COLLECTOR, connectivity=connectivity
        )
        return found[z0 - w0 : z1 - w0]

    def classes(connectivity: int) -> Iterator[Array]:
        anchors = _EverySlab(n, lambda index: touching(index, connectivity))
        return connected.classify(_EverySlab(n, cbd), anchors, connectivity=connectivity)

    found = enumerate(zip(*map(classes, connected.CONNECTIVITIES), strict=True))

    def work(index: int) -> dict[str, Array]:
        by_faces, by_corners = next(both for i, both in found if i == index)
        voxels = [np.bincount(c.ravel(), minlength=4) for c in (by_faces, by_corners)]
        return {"connected": by_faces, "connected26": by_corners, "table/voxels": np.array(voxels)}

    job.each_slab("connected", work, in_turn=True)  # what is found goes on from slab to slab
    total = np.sum([t["voxels"] for t in job.tables("connected")], axis=0)[:, 1:]
    if not total[1, connected.CONNECTED - 1]:
        warnings.append(f"No carbon/binder touches the anchor ({anchor}): every contact counts as detached.")
    shares = {
        str(c): dict(zip(connected.CLASSES.values(), (row / row.sum()).tolist(), strict=True))
        for c, row in zip(connected.CONNECTIVITIES, total, strict=True)
        if row.sum()
    }
    return {"anchor": anchor, "volume_shares": shares, "warnings": warnings}


class _EverySlab:
    """An array for each slab, read anew whenever it is gone through."""

    def __init__(self, n: int, read: Callable[[int], Array]) -> None:
        self.n, self.read = n, read

    def __iter__(self) -> Iterator[Array]:
        return map(self.read, range(self.n))
