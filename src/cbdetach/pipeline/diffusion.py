"""The diffusion lengths of a run: each slab on a window that holds its particles whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach import diffusion
from cbdetach.job import Job

Array = npt.NDArray[Any]


def diffusion_stage(job: Job) -> dict[str, Any]:
    """Diffusion lengths, solved on windows that hold every particle of the slab whole."""
    wanted = job.settings.diffusion
    least, piece = wanted.min_contact_um2, wanted.min_piece_um3
    if least is None:
        least = diffusion.default_min_contact_um2(job.edge_width_um)
    if piece is None:
        piece = diffusion.default_min_piece_um3(job.edge_width_um, phases_given=job.phases is not None)
    halo = diffusion.halo(job.voxel_size[0], piece)
    regions = job.regions

    def work(index: int) -> dict[str, Array]:
        z0, z1 = job.slab(index)
        (w0, w1), here = job.whole(z0, z1)
        w0, w1 = max(0, w0 - halo), min(job.shape[0], w1 + halo)
        starts_here = here & (regions.bbox[:, 0] >= z0)
        found = diffusion.diffusion_lengths(
            job.particles(w0, w1),
            job.codes(w0, w1),
            regions.labels[here],
            regions.labels[starts_here],
            spacing=job.voxel_size,
            order=wanted.order,
            start=wanted.start,
            min_contact_um2=least,
            min_piece_um3=piece,
        )
        paths, path_labels = diffusion.longest_paths(found, spacing=job.voxel_size)
        offset = np.array([w0, 0, 0])
        return {
            "diffusion_length": found.lengths[z0 - w0 : z1 - w0],
            "table/labels": found.labels,
            **{f"table/{name}": column for name, column in found.columns.items()},
            "table/path_points": np.concatenate([p + offset for p in paths]) if paths else np.zeros((0, 3)),
            "table/path_count": np.array([len(p) for p in paths], dtype=np.int64),
            "table/path_labels": path_labels,
        }

    job.each_slab("diffusion", work)
    return {"min_contact_um2": least, "min_piece_um3": piece, "warnings": []}
