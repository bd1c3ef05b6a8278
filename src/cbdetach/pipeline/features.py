"""What the features of a run's particles need of voxels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach import features, packing
from cbdetach.job import Job

Array = npt.NDArray[Any]


def features_stage(job: Job) -> dict[str, Any]:
    """What the features need of voxels: surfaces of every particle on its own box, and how full space is of them."""
    wanted = job.settings.features
    smoothing = features.default_smoothing_um(job.voxel_size) if wanted.smoothing_um is None else wanted.smoothing_um
    least = job.edge_width_um**2 if wanted.min_contact_um2 is None else wanted.min_contact_um2
    cell = packing.packing_cell(wanted.neighbourhood_um, job.voxel_size)
    boxes = job.regions.bbox

    def work(index: int) -> dict[str, Array]:
        z0, z1 = job.slab(index)
        begins = (boxes[:, 0] >= z0) & (boxes[:, 0] < z1)
        w1 = int(boxes[begins, 3].max(initial=z1))
        labels = job.particles(z0, w1)
        found = features.surface_features(
            labels,
            job.folder.read_volume("damage", "damage_class", z0, w1) > 0,
            job.regions.labels[begins],
            boxes[begins] - np.array([z0, 0, 0, z0, 0, 0]),
            spacing=job.voxel_size,
            smoothing_um=smoothing,
        )
        first, counts = packing.count_cells(labels[: z1 - z0] > 0, cell, z0)
        return {
            "table/surfaces/labels": job.regions.labels[begins],
            **{f"table/surfaces/{name}": column for name, column in found.items()},
            "table/cells/first": np.array(first),
            "table/cells/counts": counts,
        }

    job.each_slab("features", work)
    return {"smoothing_um": smoothing, "min_contact_um2": least, "packing_cell": list(cell), "warnings": []}
