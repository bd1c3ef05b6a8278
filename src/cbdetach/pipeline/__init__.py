"""The driver: from a tomogram to every particle's detachment, slab by slab. Read this file first.

::

    survey -> phases -> segment -> link -> connected -> detachment -> diffusion -> damage -> density -> features
    -> report

A stage is a function of a `Job`. It reads what earlier stages have written, calls a function on plain arrays for every
slab that is not there yet, and writes one file per slab; what it returns, for the whole volume, is written last and
ends it. So a run that was killed continues where it was, and no stage holds more than a window: a slab and its halo.
Whatever is summed over slabs is summed in their order, from what is on the disk, so that a resumed run equals an
undisturbed one.

Each stage has a file of its own beside this one. What the slabs' shares add up to is in `gather`, a run while it works
in `job.py`, its folder and its record in `prepare.py`; who computes slabs in place of this process, in `scheduler.py`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt

from cbdetach import device as devices
from cbdetach.estimate import Estimate, refuse_what_cannot_fit
from cbdetach.gather import report_stage
from cbdetach.job import Job, open_job, resolved_settings
from cbdetach.pipeline.connected import connected_stage
from cbdetach.pipeline.damage import damage_stage
from cbdetach.pipeline.density import density_stage
from cbdetach.pipeline.detachment import detachment_stage
from cbdetach.pipeline.diffusion import diffusion_stage
from cbdetach.pipeline.features import features_stage
from cbdetach.pipeline.link import link_stage
from cbdetach.pipeline.needs import needs
from cbdetach.pipeline.phases import phases_stage
from cbdetach.pipeline.segment import segment_stage
from cbdetach.pipeline.survey import survey_stage
from cbdetach.prepare import Start, look_up, prepared
from cbdetach.results import Run
from cbdetach.scheduler import at_work

Array = npt.NDArray[Any]
log = logging.getLogger("cbdetach")

STAGES: dict[str, Callable[[Job], dict[str, Any]]] = {
    "survey": survey_stage,
    "phases": phases_stage,
    "segment": segment_stage,
    "link": link_stage,
    "connected": connected_stage,
    "detachment": detachment_stage,
    "diffusion": diffusion_stage,
    "damage": damage_stage,
    "density": density_stage,
    "features": features_stage,
    "report": report_stage,
}


def run(
    volume: str | Path | Array | None = None,
    out: str | Path = "cbdetach_run",
    *,
    labels: str | Path | Array | None = None,
    phases: str | Path | Array | None = None,
    phase_values: Mapping[str, int] | None = None,
    voxel_size: float | tuple[float, float, float] | None = None,
    crop: str | None = None,
    bin: int | None = None,
    segmenter: str | None = None,
    model: str | Path | None = None,
    views: str | None = None,
    anchor: str | None = None,
    slab: int | None = None,
    config: str | Path | Mapping[str, Any] | None = None,
    device: str = "cpu",
    threads: int | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    tell: Callable[[Estimate], object] | None = None,
) -> Run:
    """Measure every particle of a volume; the results lie in the folder `out`.

    Parameters
    ----------
    volume : path (TIFF file or folder, `file.h5:/dataset`, OME-Zarr, .npy) or (Z, Y, X) array of grey values. May be
        left out where phases are given.
    out : the run's folder. It must be empty or new, unless `resume` or `overwrite`.
    labels : filled particles, path or (Z, Y, X) integer array; then nothing is segmented.
    phases, phase_values : phase of every voxel, and the value of each phase by name: void, cbd, active, active_low,
        active_high, collector; then no grey value is thresholded.
    voxel_size : micrometres, one number or (dz, dy, dx). None: from the file's metadata.
    crop : "z0:z1,y0:y1,x0:x1"; bin : edge of the blocks of voxels that are averaged to one.
    segmenter : "watershed" (3D), or slice by slice, then linked: "maskrcnn" (the network) or "watershed2d". None: the
        network where its model, ONNX Runtime and a grey volume are there, else the watershed.
    model : ONNX file of the network; None: the one that comes with cbdetach.
    views : "z", or "zyx": slices along three axes, fused into one labelling; takes three to six times as long.
    anchor : side of the volume ("z0", "z1", "y0", ...) that carbon/binder is followed to, where the phases hold no
        collector; None: it is followed to the collector alone.
    slab : slices of the slabs that the work is cut into.
    config : TOML file or nested mapping with every other setting (`cbdetach.config.Settings`).
    device : "cpu", or "cuda": kernels and network on a GPU; results are the same within the kernels' tolerances.
    threads : of the kernels; None: all. Results do not depend on it.
    scheduler : address of a dask scheduler ("tcp://10.0.0.1:8786"): slabs are computed by its workers, with the same
        bytes; `threads` are then those of each slab (None: one), and a worker has as many slabs in hand as it has
        threads. Inputs must be paths; they and `out` must be what every worker sees.
    resume : continue a run that was interrupted; overwrite : delete what a run has left in `out`, and start again.
    progress : draw progress bars on a terminal.
    tell : is called with what the run will need, before its first voxel.

    Raises
    ------
    InputError
        Bad input, in one sentence; nothing is left behind.
    """
    given = {"volume": volume, "labels": labels, "phases": phases}
    settings = resolved_settings(
        given,
        config,
        phase_values=phase_values,
        voxel_size=voxel_size,
        crop=crop,
        bin=bin,
        segmenter=segmenter,
        model=model,
        views=views,
        anchor=anchor,
        slab=slab,
    )
    with (
        devices.threads(threads, at_most=scheduler is not None),
        open_job(settings, Path(out), given, progress=progress, gpu=devices.find(device)) as job,
        at_work(job, scheduler, device=device, threads=threads),
    ):
        need, start = admitted(job, resume=resume, overwrite=overwrite)
        if tell is not None:
            tell(need)
        with prepared(job, start) as record:
            if not record["finished"] or not _all_slabs_whole(job):
                if job.model is not None:
                    log.info("%s on %s", job.model.name, job.network.model.provider)
                log.info("the run %s", need)
                work_through(job, record)
    return Run(out)


def plan(
    volume: str | Path | Array | None = None,
    out: str | Path = "cbdetach_run",
    *,
    labels: str | Path | Array | None = None,
    phases: str | Path | Array | None = None,
    config: str | Path | Mapping[str, Any] | None = None,
    device: str = "cpu",
    threads: int | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    **settings: Any,
) -> Estimate:
    """What `run` with the same arguments would need: memory, disk and time. Reads metadata only, writes nothing.

    Raises
    ------
    InputError
        Whatever `run` would refuse before its first voxel.
    """
    given = {"volume": volume, "labels": labels, "phases": phases}
    resolved = resolved_settings(given, config, **settings)
    with (
        devices.threads(threads, at_most=scheduler is not None),
        open_job(resolved, Path(out), given, progress=False, gpu=devices.find(device)) as job,
        at_work(job, scheduler, device=device, threads=threads),
    ):
        return admitted(job, resume=resume, overwrite=overwrite)[0]


def admitted(job: Job, *, resume: bool, overwrite: bool) -> tuple[Estimate, Start]:
    """What a run needs and how it begins, once all has been refused that is known to be wrong before it begins."""
    start = look_up(job, resume=resume, overwrite=overwrite)
    need = needs(job)
    if not start.finished:
        memory = None
        if job.workers is not None:
            job.workers.refuse_what_cannot_fit(partial(needs, job))
            memory = math.inf  # theirs is needed, not this process's
        refuse_what_cannot_fit(need, job.folder.path, memory, device=None if job.gpu is None else job.gpu.free)
        if job.model is not None:
            assert job.network is not None  # loaded here: it may be unfit
    return need, start


def work_through(job: Job, record: dict[str, Any]) -> None:
    """Every stage in order; those that have ended, with every slab whole, are not done again."""
    for name, stage in STAGES.items():
        result = job.folder.read_result(name)
        if result is None or not _slabs_whole(job, name):
            began = time.perf_counter()
            with devices.on(job.gpu):
                result = stage(job)
            job.folder.write_result(name, result)
            seconds = round(time.perf_counter() - began, 3)
            record["timings"][name] = round(record["timings"].get(name, 0.0) + seconds, 3)
            log.info("%s: %.1f s", name, seconds)
        for warning in result.get("warnings", []):
            if warning not in record["warnings"]:
                record["warnings"].append(warning)
                log.warning(warning)
        record["stages"][name] = "done"
        record["finished"] = name == "report"
        if record["finished"]:
            record |= result["record"]
        job.folder.write_record(record)


def _all_slabs_whole(job: Job) -> bool:
    return all(_slabs_whole(job, stage) for stage in STAGES)


def _slabs_whole(job: Job, stage: str) -> bool:
    written = (job.folder.path / stage).glob("slab_*.h5")
    return not any(written) or all(job.folder.has_slab(stage, i) for i in range(len(job.folder.slabs)))
