"""What a run will need, before its first voxel is read."""

from __future__ import annotations

from dataclasses import replace

from cbdetach import damage_map, phases, segment
from cbdetach.device import AT_ONCE, compiled
from cbdetach.estimate import Estimate, estimate
from cbdetach.job import Job
from cbdetach.pipeline.detachment import detachment_halo


def needs(job: Job, on_worker: int | None = None) -> Estimate:
    """Memory, disk and time; the blur is not measured yet, and taken for two and a half voxels.

    on_worker : memory is that of a worker with so many slabs in hand; None: of the busiest, if there are workers.
    """
    if job.workers is not None and on_worker is None:
        on_worker = max((worker.threads for worker in job.workers.found.values()), default=1)
    blur = job.settings.phases.edge_width_um or 2.5 * max(job.voxel_size)
    rim = phases.halo(job.voxel_size, blur) if job.phases is None else 0
    halos = {
        "phases": rim,
        "segment": job.settings.segment.halo,
        "detachment": detachment_halo(job),
        "diffusion": job.settings.segment.halo,
        "damage": max(damage_map.halo(job.voxel_size), job.settings.segment.halo),
    }
    slab = max(z1 - z0 for z0, z1 in job.folder.slabs)
    wanted = job.settings.segment
    by_slice = job.labels is None and wanted.segmenter != "watershed"
    zoom = 1.0 if wanted.diameter_um is None else segment.NOMINAL_DIAMETER * min(job.voxel_size) / wanted.diameter_um
    need = estimate(
        job.shape,
        slab,
        halos,
        grey=job.grey is not None and job.phases is None,
        views=len(wanted.views) if by_slice else 0,
        network=job.model is not None,
        zoom=zoom,
        at_once=on_worker or (1 if job.gpu is None else AT_ONCE),
        networks=on_worker or 1,
        report=job.workers is None,
        on_gpu=job.gpu is not None,
        classifier=0 if job.classifier is None else job.classifier.dimensions,
        compiles=job.gpu is None and not compiled(),
    )
    voxels, edges = (" x ".join(f"{n:.6g}" for n in numbers) for numbers in (job.shape, job.voxel_size))
    return replace(need, volume=f"{voxels} voxels of {edges} um", where=_where(job))


def _where(job: Job) -> str:
    """On whose memory slabs are computed; nothing is said where it is here."""
    if job.workers is None:
        return ""
    threads = [worker.threads for worker in job.workers.found.values()]
    if not threads:
        return f" on each worker of one thread, none of which has come to {job.workers.address} yet"
    most = "one thread" if max(threads) == 1 else f"{max(threads)} threads"
    there = "the worker" if len(threads) == 1 else f"each of {len(threads)} workers"
    return f" on {there} of {most} at {job.workers.address}"
