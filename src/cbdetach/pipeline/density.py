"""The grey values deep inside a run's particles and phases, slab by slab."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from cbdetach import density, detachment
from cbdetach.gather.grey import PEAKS, peak_edges
from cbdetach.job import Job
from cbdetach.store import pack

Array = npt.NDArray[Any]


def density_stage(job: Job) -> dict[str, Any]:
    """Mean and spread of the grey value over the eroded solid; nothing where no grey volume was given."""
    grey = job.grey
    if grey is None:
        return {"erosion_um": None, "warnings": []}
    wanted = job.settings.density.erosion_um
    erosion = density.default_erosion_um(job.voxel_size, job.edge_width_um) if wanted is None else wanted
    depths = density.erosion_depths(erosion, job.voxel_size)
    blur = max(job.edge_width_um, max(job.voxel_size))
    below = {"cbd": blur, "active": max(erosion, blur), "collector": 2 * blur}
    halo = density.halo(job.voxel_size, max(depths[-1], *below.values())) + 1
    edges = peak_edges(job)

    def work(index: int) -> dict[str, Array]:
        z0, z1 = job.slab(index)
        w0, w1 = job.slab(index, halo)
        labels, codes, image = job.particles(w0, w1), job.codes(w0, w1), grey[w0:w1]
        core = (z0 - w0, z1 - w0)
        depth = density.solid_depth(
            labels, detachment.is_active(codes), spacing=job.voxel_size, reach_um=float(depths[-1])
        )
        shells = density.grey_of_shells(labels, image, depth, depths, spacing=job.voxel_size, core=core, z0=w0)
        deep = density.deep_regions(labels, codes, PEAKS, spacing=job.voxel_size, depths_um=below)
        found = density.grey_histograms(image, deep, edges, core=core)
        return pack("table/shells", shells) | {f"table/peaks/{name}": counts for name, counts in found.items()}

    job.each_slab("density", work)
    return {"erosion_um": erosion, "depths_um": depths.tolist(), "peaks_below_um": below, "warnings": []}
