"""The areas of a run, slab by slab: as measured, and with everything that may be moved moved."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import voxkernels as vk
from cbdetach import connected, detachment, films
from cbdetach.arrays import expanded
from cbdetach.gather.areas import TOLERANCES, thickness_edges
from cbdetach.job import Job
from cbdetach.store import pack

Array = npt.NDArray[Any]


def detachment_stage(job: Job) -> dict[str, Any]:
    """Areas of every particle by what it faces: as measured, with contact tolerances, and with moved thresholds."""
    voxel = min(job.voxel_size)
    wanted = job.settings.detachment
    variants = job.variants
    reach, halo = tolerances_reach(job), detachment_halo(job)
    edges = thickness_edges(job)

    def work(index: int) -> dict[str, Array]:
        z0, z1 = job.slab(index)
        w0, w1 = job.slab(index, halo)
        core = (z0 - w0, z1 - w0)
        labels, codes = job.particles(w0, w1), job.codes(w0, w1)
        unresolved = job.folder.read_volume("phases", "unresolved", w0, w1)

        def areas(particles: Array, kinds: Array, hidden: Array | None = None) -> vk.ContactAreas:
            return detachment.surface_classes(
                particles, kinds, hidden, spacing=job.voxel_size, estimator=wanted.estimator, core=core
            )

        distance = detachment.cbd_distance(codes, spacing=job.voxel_size, reach_um=reach)
        attached = detachment.attach_within(labels, codes, wanted.tolerance_um, distance)
        shares = {"measured": areas(labels, attached, unresolved)}
        shares["electrode"] = areas((labels > 0).astype(np.int32), attached, unresolved)
        for n in TOLERANCES:
            shares[f"tolerance_{n}"] = areas(labels, detachment.attach_within(labels, codes, n * voxel, distance))
        del distance, attached
        if job.is_connected:
            kinds = [
                connected.attach_classes(
                    labels,
                    codes,
                    job.folder.read_volume("connected", name, w0, w1),
                    wanted.tolerance_um,
                    job.voxel_size,
                )
                for name in ("connected", "connected26")
            ]
            shares["connected"] = areas(labels, connected.surface_kinds(codes, *kinds))
        arrays: dict[str, Array] = {}
        if variants and job.classifier is None:
            classes = job.folder.read_volume("phases", "film_class", w0, w1)
            arrays["table/film_heights"] = films.film_heights(labels, classes, core)
        if variants:
            near = expanded(labels, reach=2 * job.edge_width_um, spacing=job.voxel_size)
        for name in variants:
            moved = job.folder.read_volume("phases", f"moved/{name}", w0, w1)
            particles = detachment.moved_particles(labels, codes, moved, near)
            distance = detachment.cbd_distance(moved, spacing=job.voxel_size, reach_um=wanted.tolerance_um)
            shares[name] = areas(particles, detachment.attach_within(particles, moved, wanted.tolerance_um, distance))
        for name, share in shares.items():
            arrays |= pack(f"table/{name}", share)
        arrays["table/faces"] = detachment.electrode_faces(labels, codes, core=core)
        arrays["table/thickness"] = detachment.cbd_thickness(codes, spacing=job.voxel_size, edges_um=edges, core=core)
        return arrays

    job.each_slab("detachment", work)
    height, warnings = _film_height(job)
    return {"variants": list(variants), "halo": halo, "film_height": height, "warnings": warnings}


def _film_height(job: Job) -> tuple[float | None, list[str]]:
    """How much of its own grey value the carbon/binder reaches where particles touch it, and whether that is enough."""
    shares = [table["film_heights"] for table in job.tables("detachment") if "film_heights" in table]
    height = films.low_height(np.sum(shares, axis=0)) if shares else None
    if height is None or height >= films.THIN:
        return height, []
    return height, [
        "The carbon/binder is too thin for this resolution: a quarter of what particles touch of it reaches "
        f"{height:.2f} of its own grey value or less ({films.THIN} is what a film of half the blur's width keeps). "
        "Thinner films read as void, so detachment is too high: by 0.3 to 0.4 on synthetic electrodes with such films."
    ]


def detachment_halo(job: Job) -> int:
    """Slices beyond a slab that its areas depend on: the estimator's, and how far a contact tolerance reaches."""
    return detachment.HALO + int(np.ceil(tolerances_reach(job) / job.voxel_size[0]))


def tolerances_reach(job: Job) -> float:
    """The largest contact tolerance that areas are measured with, um."""
    return max(job.settings.detachment.tolerance_um, max(TOLERANCES) * min(job.voxel_size))
