"""The driver: from a tomogram to every particle's detachment, slab by slab. Read this file first.

::

    survey -> phases -> segment -> link -> detachment -> diffusion -> damage -> density -> report

A stage is a function of a `Job`. It reads what earlier stages have written, calls a function on plain arrays for every
slab that is not there yet, and writes one file per slab; what it returns, for the whole volume, is written last and ends
it. So a run that was killed continues where it was, and no stage holds more than a window: a slab and its halo. Whatever
is summed over slabs is summed in their order, from what is on the disk, so that a resumed run equals an undisturbed one.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import voxkernels as vk

from cbdetach import __version__, damage, density, detachment, diffusion, link, phases, segment, table
from cbdetach.codes import ACTIVE, CBD, N_PHASES, PHASE_CODES, VOID
from cbdetach.config import Settings, differences, resolve
from cbdetach.errors import InputError
from cbdetach.estimate import Estimate, estimate, refuse_what_cannot_fit
from cbdetach.results import Run
from cbdetach.store import RunFolder, Slab, pack, partition, unpack, whole_file
from cbdetach.survey import Survey, SurveyAccumulator
from cbdetach.volume import Volume, check_finite, open_volume, require_voxel_size

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]
log = logging.getLogger("cbdetach")

SHARED = 8
"""Slices on each side of a slab's end that two neighbouring windows both segment, and are matched by."""

TOLERANCES = (1, 2)
"""Contact tolerances that the report shows beside 0, in voxels."""

SLAB_VOXELS = 2**23
"""Slabs hold about this many voxels,"""

SLAB_SLICES = (32, 64)
"""in no fewer and no more slices than these."""


# ---- what a run is made of ------------------------------------------------------------------------------------------


@dataclass
class Job:
    """One run while it works: its settings, its inputs and its folder."""

    settings: Settings
    folder: RunFolder
    grey: Volume | None
    labels: Volume | None
    phases: Volume | None
    voxel_size: tuple[float, float, float]
    shape: tuple[int, int, int]
    progress: bool = True

    def slab(self, index: int, halo: int = 0) -> Slab:
        """Slices of slab `index`, widened by a halo that ends at the volume's border."""
        z0, z1 = self.folder.slabs[index]
        return max(0, z0 - halo), min(self.shape[0], z1 + halo)

    def each_slab(self, stage: str, work: Callable[[int], dict[str, Array]]) -> None:
        """Call `work` for every slab of a stage that is not there yet, and write what it returns."""
        from tqdm import tqdm

        missing = [i for i in range(len(self.folder.slabs)) if not self.folder.has_slab(stage, i)]
        for index in tqdm(missing, desc=f"{stage:<10}", unit="slab", leave=False, disable=None if self.progress else True):
            self.folder.write_slab(stage, index, work(index))

    def tables(self, stage: str, group: str = "table") -> list[dict[str, Array]]:
        """Every slab's share of a stage's tables, in the slabs' order."""
        return [self.folder.read_table(stage, i, group) for i in range(len(self.folder.slabs))]

    def particles(self, z0: int, z1: int) -> Array:
        """Particle labels, slices z0 to z1."""
        return self.folder.read_volume("link", "particles", z0, z1)

    def codes(self, z0: int, z1: int) -> Array:
        """Phase codes, slices z0 to z1."""
        return self.folder.read_volume("phases", "phases", z0, z1)

    @cached_property
    def survey(self) -> Survey | None:
        """The grey volume's survey; None where only phases were given."""
        found = (self.folder.read_result("survey") or {}).get("grey")
        return None if found is None else Survey.from_dict(found)

    @cached_property
    def thresholds(self) -> phases.Thresholds | None:
        """The grey thresholds in use; None where phases were given."""
        found = (self.folder.read_result("survey") or {}).get("thresholds")
        return None if found is None else phases.Thresholds.from_dict(found)

    @cached_property
    def edge_width_um(self) -> float:
        """FWHM of the blur: set, else measured, else 0 (phases were given and nothing is known)."""
        return self.settings.phases.edge_width_um or (self.survey.edge_width_um if self.survey else 0.0)

    @cached_property
    def regions(self) -> vk.RegionProperties:
        """Position and extent of every particle, merged from the slabs."""
        return vk.merge_regions([unpack(vk.RegionProperties, t) for t in self.tables("link", "table/regions")])


# ---- stages ---------------------------------------------------------------------------------------------------------


def survey_stage(job: Job) -> dict[str, Any]:
    """One pass over every input: histogram, hash and edge width of the grey volume; values of given labels and phases."""
    result: dict[str, Any] = {"sha256": {}}
    warnings: list[str] = []
    if job.grey is not None:
        accumulator = SurveyAccumulator(job.voxel_size)
        for z0, z1 in _progress(job, "survey"):
            slab = job.grey[z0:z1]
            check_finite(slab, z0)
            accumulator.add(slab)
        survey = accumulator.finish()
        result["grey"] = survey.to_dict()
        result["sha256"]["volume"] = survey.sha256
        if job.phases is None:
            wanted = job.settings.phases
            thresholds = phases.find_thresholds(
                survey.counts,
                survey.edges,
                method=wanted.method,
                void_cbd=wanted.void_cbd,
                cbd_active=wanted.cbd_active,
            )
            result["thresholds"] = thresholds.to_dict()
    for name, given in (("labels", job.labels), ("phases", job.phases)):
        if given is not None:
            digest, values = hashlib.sha256(), np.zeros(0, dtype=np.int64)
            for z0, z1 in _progress(job, "survey"):
                slab = given[z0:z1]
                if name == "labels":
                    segment.check_labels(slab)
                else:
                    phases.map_phases(slab, job.settings.input.phase_values or {})
                digest.update(np.ascontiguousarray(slab).data)
                values = np.union1d(values, np.unique(slab)).astype(np.int64)
            result["sha256"][name] = digest.hexdigest()
            if name == "labels" and not (values > 0).any():
                raise InputError(f"--labels: {given.name} holds no particle (every voxel is 0); give a label volume.")
            if name == "phases":
                _require_active(given, job.settings.input.phase_values or {}, values)
    result["warnings"] = warnings
    return result


def _require_active(given: Volume, mapping: Mapping[str, int], values: Array) -> None:
    active = {value for phase, value in mapping.items() if PHASE_CODES.get(phase) in (ACTIVE, ACTIVE + 1)}
    if not active & set(values.tolist()):
        raise InputError(
            f"--phases: no particle found: no voxel of {given.name} has the value of active material "
            f"({', '.join(map(str, sorted(active)))}); check --phase-values."
        )


def phases_stage(job: Job) -> dict[str, Any]:
    """Phase of every voxel: as given, or from the grey values with the partial-volume rim resolved."""
    halo = phases.halo(job.voxel_size, job.edge_width_um) if job.phases is None else 0

    def work(index: int) -> dict[str, Array]:
        z0, z1 = job.slab(index)
        if job.phases is not None:
            codes = phases.map_phases(job.phases[z0:z1], job.settings.input.phase_values or {})
            unresolved = np.zeros(codes.shape, dtype=np.bool_)
        else:
            assert job.grey is not None and job.thresholds is not None
            w0, w1 = job.slab(index, halo)
            codes, unresolved = phases.resolve_phases(
                job.grey[w0:w1], job.thresholds, spacing=job.voxel_size, edge_width_um=job.edge_width_um
            )
            codes, unresolved = codes[z0 - w0 : z1 - w0], unresolved[z0 - w0 : z1 - w0]
        count = np.bincount(codes.ravel(), minlength=N_PHASES)
        return {"phases": codes, "unresolved": unresolved, "table/count": count, "table/unresolved": unresolved.sum()}

    job.each_slab("phases", work)
    shares = job.tables("phases")
    counts = np.sum([t["count"] for t in shares], axis=0)
    warnings = []
    if counts[CBD] == 0:
        warnings.append("No carbon/binder was found: detachment and diffusion lengths are empty.")
    if counts[ACTIVE] + counts[ACTIVE + 1] == 0:
        raise InputError("no particle found: no voxel is active material; check the thresholds in [phases].")
    return {
        "voxels": dict(zip(("void", "cbd", "active_low", "active_high", "collector"), counts.tolist(), strict=True)),
        "unresolved": int(sum(int(t["unresolved"]) for t in shares)),
        "warnings": warnings,
    }


def segment_stage(job: Job) -> dict[str, Any]:
    """Particles of each window on its own: 3D windows (watershed), or single slices; given labels need none."""
    wanted = job.settings.segment
    if job.labels is not None:
        return {"segmenter": "given", "warnings": []}
    options = {"min_diameter_um": wanted.min_diameter_um, "close_um": wanted.close_um}

    def window(index: int) -> dict[str, Array]:
        z0, z1 = job.slab(index)
        w0, w1 = job.slab(index, wanted.halo)
        s0, s1 = job.slab(index, min(SHARED, wanted.halo))
        active = detachment.is_active(job.codes(w0, w1))
        labels = segment.segment_volume(active, spacing=job.voxel_size, **options)[s0 - w0 : s1 - w0]
        return {"labels": labels, "table/z0": np.int64(s0), "table/n": np.int64(labels.max(initial=0))}

    def slices(index: int) -> dict[str, Array]:
        z0, z1 = job.slab(index)
        active = detachment.is_active(job.codes(z0, z1))
        labels = np.stack(
            [segment.segment_slice(image, spacing=job.voxel_size[1:], **options) for image in active]
        )
        return {"labels": labels, "table/z0": np.int64(z0), "table/n": labels.max(axis=(1, 2)).astype(np.int64)}

    job.each_slab("segment", window if wanted.segmenter == "watershed" else slices)
    return {"segmenter": wanted.segmenter, "warnings": []}


def _window_labels(job: Job, index: int) -> tuple[Array, int]:
    """Labels that the segment stage has written for one slab, and the slice that they begin at."""
    path = job.folder.require_slab("segment", index)
    import h5py

    with h5py.File(path, "r") as file:
        return file["labels"][()], int(file["table/z0"][()])


def link_stage(job: Job) -> dict[str, Any]:
    """One label for each particle through all slices, and its position and extent."""
    ids, report = _links(job)

    def work(index: int) -> dict[str, Array]:
        z0, z1 = job.slab(index)
        if job.labels is not None:
            labels = job.labels[z0:z1]
            labels = labels.astype(np.int32 if labels.max(initial=0) < 2**31 else np.int64)
        else:
            local, s0 = _window_labels(job, index)
            local = local[z0 - s0 : z1 - s0]
            if job.settings.segment.segmenter == "watershed":
                labels = ids[index][local]
            else:
                labels = np.stack([ids[z][image] for z, image in zip(range(z0, z1), local, strict=True)])
        regions = vk.region_properties(labels, spacing=job.voxel_size, origin=(z0, 0, 0))
        active = detachment.is_active(job.codes(z0, z1))
        return {
            "particles": labels,
            "table/labelled": np.int64(np.count_nonzero(labels)),
            "table/labelled_active": np.int64(np.count_nonzero(active & (labels > 0))),
            "table/active": np.int64(np.count_nonzero(active)),
            **pack("table/regions", regions),
        }

    job.each_slab("link", work)
    n = job.regions.labels.size
    if n == 0:
        raise InputError("no particle found: nothing is as large as [segment] min_diameter_um; choose a smaller one.")
    return {"particles": int(n), "links": report, "warnings": []}


def _links(job: Job) -> tuple[list[Array], dict[str, Any]]:
    """For every level (window or slice) the particle of each local label, and the report of what linking decided."""
    if job.labels is not None:
        return [], {}
    wanted = job.settings
    sizes: list[Array] = []
    overlaps: list[vk.OverlapCounts] = []
    skips: list[vk.OverlapCounts] = []
    if wanted.segment.segmenter == "watershed":
        previous: tuple[Array, int] | None = None
        for index, (z0, z1) in enumerate(job.folder.slabs):
            local, s0 = _window_labels(job, index)
            core = local[z0 - s0 : z1 - s0]
            sizes.append(np.bincount(core.ravel(), minlength=int(local.max(initial=0)) + 1)[1:])
            if previous is not None:
                before, b0 = previous
                end = b0 + len(before)
                overlaps.append(vk.overlap_counts(before[s0 - b0 :], local[: end - s0]))
            previous = local, s0
        max_gap = 0
    else:
        window: list[Array] = []
        for index in range(len(job.folder.slabs)):
            for image in _window_labels(job, index)[0]:
                sizes.append(np.bincount(image.ravel())[1:])
                window = [*window[-2:], image]
                if len(window) > 1:
                    overlaps.append(vk.overlap_counts(window[-2], image))
                if len(window) > 2:
                    skips.append(vk.overlap_counts(window[-3], image))
        max_gap = wanted.link.max_gap
    links = link.link(
        sizes, overlaps, skips, min_iou=wanted.link.min_iou, min_containment=wanted.link.min_containment, max_gap=max_gap
    )
    ids = [np.concatenate(([0], g)).astype(np.int32) for g in links.global_id]
    total = np.zeros(links.n + 1, dtype=np.int64)
    for level, size in zip(ids, sizes, strict=True):
        np.add.at(total, level[1:], size)
    smallest = segment.smallest_voxels(job.voxel_size, wanted.segment.min_diameter_um)
    keep = total >= max(1, smallest)
    keep[0] = False
    renumbered = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return [renumbered[level] for level in ids], links.report() | {"too_small": int((~keep[1:]).sum())}


def detachment_stage(job: Job) -> dict[str, Any]:
    """Areas of every particle by what it faces: as measured, with contact tolerances, and with moved thresholds."""
    voxel = min(job.voxel_size)
    wanted = job.settings.detachment
    variants = _threshold_variants(job)
    rim = phases.halo(job.voxel_size, job.edge_width_um) if variants else 0
    reach = int(np.ceil((max(TOLERANCES) * voxel + wanted.tolerance_um) / job.voxel_size[0]))
    halo = detachment.HALO + reach
    edges = thickness_edges(job)

    def work(index: int) -> dict[str, Array]:
        z0, z1 = job.slab(index)
        w0, w1 = job.slab(index, halo)
        core = (z0 - w0, z1 - w0)
        labels, codes = job.particles(w0, w1), job.codes(w0, w1)
        unresolved = job.folder.read_volume("phases", "unresolved", w0, w1)

        def areas(kinds: Array, tolerance_um: float, hidden: Array | None = None) -> vk.ContactAreas:
            attached = detachment.attach_within(labels, kinds, tolerance_um, job.voxel_size)
            return detachment.surface_classes(
                labels, attached, hidden, spacing=job.voxel_size, estimator=wanted.estimator, core=core
            )

        shares = {"measured": areas(codes, wanted.tolerance_um, unresolved)}
        for n in TOLERANCES:
            shares[f"tolerance_{n}"] = areas(codes, n * voxel)
        if variants:
            r0, r1 = job.slab(index, halo + rim)
            assert job.grey is not None
            grey = job.grey[r0:r1]
            for name, thresholds in variants.items():
                moved, _ = phases.resolve_phases(
                    grey, thresholds, spacing=job.voxel_size, edge_width_um=job.edge_width_um
                )
                shares[name] = areas(moved[w0 - r0 : w1 - r0], wanted.tolerance_um)
        arrays: dict[str, Array] = {}
        for name, share in shares.items():
            arrays |= pack(f"table/{name}", share)
        arrays["table/faces"] = detachment.electrode_faces(labels, codes, core=core)
        arrays["table/thickness"] = detachment.cbd_thickness(codes, spacing=job.voxel_size, edges_um=edges, core=core)
        return arrays

    job.each_slab("detachment", work)
    return {"variants": list(variants), "halo": halo, "warnings": []}


def _threshold_variants(job: Job) -> dict[str, phases.Thresholds]:
    """The thresholds moved to the ends of their bands, one at a time; none where phases were given."""
    now = job.thresholds
    if now is None:
        return {}
    ends = {
        f"{name}_{end}": replace(now, **{name: value})
        for name, band in (("void_cbd", now.void_cbd_band), ("cbd_active", now.cbd_active_band))
        for end, value in zip(("low", "high"), band, strict=True)
    }
    return {name: moved for name, moved in ends.items() if moved.void_cbd < moved.cbd_active}


def thickness_edges(job: Job) -> Array:
    """Bins of the carbon/binder thickness histogram: one voxel wide, up to 40 voxels."""
    return np.arange(41) * min(job.voxel_size)


def diffusion_stage(job: Job) -> dict[str, Any]:
    """Diffusion lengths, solved on windows that hold every particle of the slab whole."""
    wanted = job.settings.diffusion
    smallest = job.edge_width_um**2 if wanted.min_contact_um2 is None else wanted.min_contact_um2
    regions = job.regions

    def work(index: int) -> dict[str, Array]:
        z0, z1 = job.slab(index)
        here = (regions.bbox[:, 0] < z1) & (regions.bbox[:, 3] > z0)
        starts_here = here & (regions.bbox[:, 0] >= z0)
        w0 = max(0, min(z0, int(regions.bbox[here, 0].min(initial=z0))) - 1)
        w1 = min(job.shape[0], max(z1, int(regions.bbox[here, 3].max(initial=z1))) + 1)
        found = diffusion.diffusion_lengths(
            job.particles(w0, w1),
            job.codes(w0, w1),
            regions.labels[here],
            regions.labels[starts_here],
            spacing=job.voxel_size,
            order=wanted.order,
            start=wanted.start,
            min_contact_um2=smallest,
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
    return {"min_contact_um2": smallest, "warnings": []}


def damage_stage(job: Job) -> dict[str, Any]:
    """Cracks and pores of every particle, the damage map, and the depth profile's shares."""
    raise NotImplementedError


def density_stage(job: Job) -> dict[str, Any]:
    """Mean and spread of the grey value over the eroded solid."""
    raise NotImplementedError


def report_stage(job: Job) -> dict[str, Any]:
    """The table, the profiles, the volumes' file, the balances, the figures and the report."""
    import json

    columns, empty = particle_columns(job)
    frame = table.assemble(columns)
    out = job.folder.path
    with whole_file(out / "particles.csv") as temporary:
        frame.to_csv(temporary, index=False, float_format="%.9g", lineterminator="\n")
    with whole_file(out / "particles.parquet") as temporary:
        frame.to_parquet(temporary, index=False)
    with whole_file(out / "columns.json") as temporary:
        temporary.write_text(json.dumps(table.data_dictionary(empty), indent=1, ensure_ascii=False) + "\n", "utf-8")
    with whole_file(out / "profiles.csv") as temporary:
        depth_profile(job, frame).to_csv(temporary, index=False, float_format="%.9g", lineterminator="\n")
    job.folder.write_volumes(VOLUMES, job.shape, job.voxel_size)
    record = {
        "counts": counts(frame),
        "balances": balances(job, frame),
        "empty_columns": empty,
        "volumes": VOLUMES,
        "sha256": (job.folder.read_result("survey") or {})["sha256"],
        "edge_width_um": job.edge_width_um,
        "thresholds": None if job.thresholds is None else job.thresholds.to_dict(),
        "phases": (job.folder.read_result("phases") or {})["voxels"],
        "links": (job.folder.read_result("link") or {})["links"],
        "min_contact_um2": (job.folder.read_result("diffusion") or {})["min_contact_um2"],
    }
    report.write_report(report_input(job, frame, record))
    return {"record": record, "warnings": [b["sentence"] for b in record["balances"] if not b["holds"]]}


STAGES: dict[str, Callable[[Job], dict[str, Any]]] = {
    "survey": survey_stage,
    "phases": phases_stage,
    "segment": segment_stage,
    "link": link_stage,
    "detachment": detachment_stage,
    "diffusion": diffusion_stage,
    "damage": damage_stage,
    "density": density_stage,
    "report": report_stage,
}


# ---- a run ----------------------------------------------------------------------------------------------------------


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
    slab: int | None = None,
    config: str | Path | Mapping[str, Any] | None = None,
    device: str = "cpu",
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
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
    segmenter : "watershed" (3D) or "watershed2d" (slice by slice, then linked).
    slab : slices of the slabs that the work is cut into.
    config : TOML file or nested mapping with every other setting (`cbdetach.config.Settings`).
    threads : of the kernels; None: all. Results do not depend on it.
    resume : continue a run that was interrupted; overwrite : delete what a run has left in `out`, and start again.
    progress : draw progress bars on a terminal.

    Raises
    ------
    InputError
        Bad input, in one sentence; nothing is left behind.
    """
    given = {"volume": volume, "labels": labels, "phases": phases}
    settings = _settings(
        given, config, phase_values=phase_values, voxel_size=voxel_size, crop=crop, bin=bin, segmenter=segmenter, slab=slab
    )
    _require_cpu(device)
    with open_job(settings, Path(out), given, progress=progress) as job:
        need = needs(job)
        refuse_what_cannot_fit(need, job.folder.path)
        with prepared(job, resume=resume, overwrite=overwrite) as record, _threads(threads):
            if not record["finished"] or not _all_slabs_whole(job):
                log.info("%s voxels of %s um; the run %s", job.shape, job.voxel_size, need)
                work_through(job, record)
    return Run(out)


def plan(out: str | Path = "cbdetach_run", *, device: str = "cpu", **arguments: Any) -> Estimate:
    """What `run` with the same arguments would need: memory, disk and time. Reads metadata only, writes nothing."""
    given = {name: arguments.pop(name, None) for name in ("volume", "labels", "phases")}
    settings = _settings(given, arguments.pop("config", None), **arguments)
    _require_cpu(device)
    with open_job(settings, Path(out), given, progress=False) as job:
        return needs(job)


def _require_cpu(device: str) -> None:
    if device != "cpu":
        raise InputError(f"--device: must be cpu, the only device that this version computes on; got {device!r}.")


def work_through(job: Job, record: dict[str, Any]) -> None:
    """Every stage in order; those that have ended, with every slab whole, are not done again."""
    for name, stage in STAGES.items():
        result = job.folder.read_result(name)
        if result is None or not _slabs_whole(job, name):
            began = time.perf_counter()
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


# ---- what the stages' shares add up to --------------------------------------------------------------------------------


VOLUMES = {
    "particles": ("link", "particles"),
    "phases": ("phases", "phases"),
    "diffusion_length": ("diffusion", "diffusion_length"),
    "damage": ("damage", "damage"),
}
"""Volumes of `volumes.h5`: the stage that writes each, and its name in the slabs."""


def particle_columns(job: Job) -> tuple[dict[str, Array], dict[str, str]]:
    """Every column that this run can fill, aligned with the particles, and why the others are empty."""
    regions = job.regions
    wanted = job.settings.detachment
    columns = table.geometry_columns(regions, job.shape, job.voxel_size)
    surface = {
        name: detachment.detachment_columns(share, regions.labels, particle_contact=wanted.particle_contact)
        for name, share in merged_contacts(job).items()
    }
    measured = surface.pop("measured")
    columns |= {name: column for name, column in measured.items() if name in table.COLUMNS}
    columns["sphericity"] = table.sphericity(
        columns["volume_um3"], measured["surface_area_um2"], columns["touches_border"]
    )
    empty = {
        "score": "the segmenter gives no scores",
        "detachment_fraction_connected": "this version does not follow carbon/binder to an anchor",
        "detachment_fraction_connected26": "this version does not follow carbon/binder to an anchor",
    }
    moved = [columns["detachment_fraction"]] + [s["detachment_fraction"] for n, s in surface.items() if "tolerance" not in n]
    if len(moved) > 1:
        columns["detachment_fraction_low"] = np.min(moved, axis=0)
        columns["detachment_fraction_high"] = np.max(moved, axis=0)
    else:
        empty |= dict.fromkeys(
            ("detachment_fraction_low", "detachment_fraction_high"), "phases were given: there are no thresholds to move"
        )
    columns |= _diffusion_columns(job)
    columns |= _damage_columns(job)
    if job.grey is None:
        empty |= dict.fromkeys(("density_mean", "density_std"), "no grey volume was given")
    else:
        columns |= _density_columns(job)
    if not (columns["area_cbd_um2"] > 0).any():
        names = [n for n in table.COLUMNS if n.startswith(("detachment", "diffusion_length", "contact_ratio", "crack_ratio"))]
        for name in names:
            columns.pop(name, None)
            empty[name] = "no carbon/binder was found"
    return columns, {name: empty[name] for name in table.COLUMNS if name in empty}


def merged_contacts(job: Job) -> dict[str, vk.ContactAreas]:
    """Areas of the whole volume, as measured and for every variant."""
    names = ["measured", *(f"tolerance_{n}" for n in TOLERANCES), *_threshold_variants(job)]
    return {
        name: vk.merge_contacts([unpack(vk.ContactAreas, t) for t in job.tables("detachment", f"table/{name}")])
        for name in names
    }


def _aligned(labels: Array, shares: list[dict[str, Array]], names: Iterable[str]) -> dict[str, Array]:
    """Rows of shares that each hold some of the labels, in the order of `labels`; nan for labels that none holds."""
    held = np.concatenate([s["labels"] for s in shares])
    row = np.searchsorted(labels, held)
    found = {}
    for name in names:
        column = np.full(labels.size, np.nan)
        column[row] = np.concatenate([s[name] for s in shares])
        found[name] = column
    return found


def _diffusion_columns(job: Job) -> dict[str, Array]:
    shares = job.tables("diffusion")
    names = [n for n in table.COLUMNS if n.startswith("diffusion_length")]
    columns = _aligned(
        job.regions.labels, shares, [*names, "contact_ratio", "crack_ratio", "unreached_fraction", "status"]
    )
    columns["diffusion_status"] = np.array(diffusion.STATUS)[columns.pop("status").astype(np.int64)]
    return columns


def counts(frame: pd.DataFrame) -> dict[str, int]:
    """The flow of particles: found, cut by the border, without contact, used in the statistics."""
    cut = frame["touches_border"].to_numpy(bool)
    none = (frame["diffusion_status"] == "no_contact").to_numpy(bool)
    known = np.isfinite(frame["detachment_fraction"].to_numpy(float))
    return {
        "found": len(frame),
        "cut": int(cut.sum()),
        "no_contact": int((~cut & none).sum()),
        "used": int((~cut & known).sum()),
    }


def balances(job: Job, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Sums that must agree, each counted in two ways: by the particles, and by the voxels."""
    voxel = float(np.prod(job.voxel_size))
    links = job.tables("link")
    labelled = sum(int(t["labelled"]) for t in links) * voxel
    found = []

    def balance(name: str, particles: float, electrode: float, tolerance: float) -> None:
        difference = abs(particles - electrode) / electrode if electrode else abs(particles)
        found.append(
            {
                "name": name,
                "particles": particles,
                "electrode": electrode,
                "relative_difference": difference,
                "tolerance": tolerance,
                "holds": bool(difference <= tolerance),
                "sentence": f"Balance: {name} is {particles:.6g} by the particles and {electrode:.6g} by the voxels.",
            }
        )

    balance("volume_um3", float(frame["volume_um3"].sum()), labelled, 1e-9)
    faces = np.sum([t["faces"] for t in job.tables("detachment")], axis=0)
    measured = merged_contacts(job)["measured"]
    by_phase = measured.faces.sum(axis=(0, 1))
    by_phase = np.pad(by_phase, (0, 2 * N_PHASES - by_phase.size)).reshape(2, N_PHASES).sum(axis=0)
    if job.settings.detachment.tolerance_um == 0:
        for name, code in (("faces_void", VOID), ("faces_cbd", CBD)):
            balance(name, float(by_phase[code]), float(faces[code]), 0.0)
    return found


PIPELINE_LIBRARIES = ("numpy", "numba", "scipy", "scikit-image", "h5py", "pandas", "matplotlib", "tifffile", "zarr")


def needs(job: Job) -> Estimate:
    """What the run will need."""
    rim = phases.halo(job.voxel_size, job.edge_width_um) if job.grey is not None and job.phases is None else 0
    halos = {
        "phases": rim,
        "segment": job.settings.segment.halo,
        "detachment": detachment.HALO + max(TOLERANCES) + rim,
        "diffusion": job.settings.segment.halo,
        "damage": damage.halo(job.voxel_size),
    }
    slab = max(z1 - z0 for z0, z1 in job.folder.slabs)
    return estimate(job.shape, slab, halos, grey=job.grey is not None and job.phases is None)


@contextmanager
def open_job(settings: Settings, out: Path, given: Mapping[str, Any], *, progress: bool) -> Iterator[Job]:
    """Open the inputs, check that they fit together, and cut the slabs. Writes nothing."""
    wanted = settings.input
    options: dict[str, Any] = {"voxel_size": wanted.voxel_size, "crop": wanted.crop, "bin": wanted.bin}
    with ExitStack() as stack:

        def opened(name: str, kind: Any) -> Volume | None:
            source = given.get(name)
            return None if source is None else stack.enter_context(open_volume(source, kind=kind, **options))

        grey, labels, codes = opened("volume", "grey"), opened("labels", "labels"), opened("phases", "labels")
        first = grey or codes
        if first is None:
            raise InputError("VOLUME: give a grey volume, or phases with --phases and --phase-values.")
        if codes is not None and not wanted.phase_values:
            raise InputError("--phase-values: must name the value of each phase, for example void=0,active=1,cbd=2.")
        if codes is None and wanted.phase_values:
            raise InputError("--phase-values: only goes with --phases FILE; give the file, or leave it out.")
        for name, other in (("--labels", labels), ("--phases", codes)):
            if other is not None and other.shape != first.shape:
                raise InputError(
                    f"{name}: must have the shape of the volume, {first.shape}; got {other.shape}. "
                    "Give both from the same reconstruction."
                )
        slab = settings.slab or int(np.clip(SLAB_VOXELS // (first.shape[1] * first.shape[2]), *SLAB_SLICES))
        folder = RunFolder(out, partition(first.shape[0], slab))
        yield Job(settings, folder, grey, labels, codes, require_voxel_size(first), first.shape, progress)


@contextmanager
def prepared(job: Job, *, resume: bool, overwrite: bool) -> Iterator[dict[str, Any]]:
    """Make or take up the run's folder, hold its lock and its log, and yield the run record.

    Bad input that is found only while working takes the new folder away again; anything else leaves a run that resumes.
    """
    folder = job.folder
    fresh = _fresh_record(job)
    existing = _take_up(folder, fresh, resume=resume, overwrite=overwrite)
    made = not folder.path.exists()
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        lock = (folder.path / "run.lock").open("a")
    except OSError as error:
        raise InputError(f"-o/--out: {folder.path} cannot be written ({error.strerror}); choose another folder.") from None
    with lock, _logged(folder.path / "run.log"):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"-o/--out: another process is working in {folder.path}; wait for it to end.") from None
        if overwrite:
            folder.clear(keep=("run.lock", "run.log"))
            existing = None
        folder.sweep()
        record = existing or fresh
        if existing is None:
            folder.write_record(record)
        try:
            yield record
        except InputError:
            if existing is None:
                folder.clear()
                if made:
                    folder.path.rmdir()
            raise


def _take_up(folder: RunFolder, fresh: dict[str, Any], *, resume: bool, overwrite: bool) -> dict[str, Any] | None:
    """The record of the run to continue, None for a new one; an `InputError` where the folder is not ours to write."""
    path = folder.path
    if path.exists() and not path.is_dir():
        raise InputError(f"-o/--out: {path} is a file; give a folder.")
    if folder.is_empty():
        return None
    existing = folder.read_record()
    if existing is None:
        if set(p.name for p in path.iterdir()) <= {"run.lock", "run.log"}:
            return None
        raise InputError(f"-o/--out: {path} is not empty and holds no run; choose a new or empty folder.")
    if overwrite:
        return None
    if not resume:
        raise InputError(
            f"-o/--out: {path} holds a finished run; choose another folder, or replace it with --overwrite."
            if existing.get("finished")
            else f"-o/--out: {path} holds a run that was interrupted; continue it with --resume, or start again with "
            "--overwrite."
        )
    for part, what in (("settings", "settings"), ("input", "input"), ("versions", "versions")):
        changed = differences(existing.get(part, {}), fresh[part])
        if changed and not (part == "versions" and existing.get("finished")):
            raise InputError(
                f"--resume: {path} holds a run with other {what} ({', '.join(changed)}); "
                "give the same ones, choose another folder, or start again with --overwrite."
            )
    return existing


def _fresh_record(job: Job) -> dict[str, Any]:
    """The record of a run that begins: everything that is known before the first voxel is read."""
    from cbdetach.store import to_json

    inputs = {name: _fingerprint(v) for name, v in (("volume", job.grey), ("labels", job.labels), ("phases", job.phases)) if v}
    record = {
        "cbdetach": __version__,
        "settings": job.settings.to_dict(),
        "input": inputs,
        "shape": job.shape,
        "voxel_size_um": job.voxel_size,
        "slabs": job.folder.slabs,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PIPELINE_LIBRARIES},
        "device": {"kind": "cpu", "machine": platform.machine()},
        "seeds": {"report": job.settings.report.seed},
        "stages": {},
        "warnings": [],
        "timings": {},
        "finished": False,
    }
    import json

    plain: dict[str, Any] = json.loads(to_json(record))
    return plain


def _fingerprint(volume: Volume) -> dict[str, Any]:
    """What an input looks like without reading it: enough to refuse to resume on another one."""
    known: dict[str, Any] = {"source": str(volume), "shape": volume.shape, "dtype": str(volume.dtype)}
    if volume.path is None:
        return known | {"sha256": hashlib.sha256(np.ascontiguousarray(volume[:]).data).hexdigest()}
    files = [p for p in volume.path.rglob("*") if p.is_file()] if volume.path.is_dir() else [volume.path]
    stats = [p.stat() for p in files]
    return known | {"bytes": sum(s.st_size for s in stats), "changed": max(s.st_mtime_ns for s in stats)}


def parse_phase_values(text: str | None) -> dict[str, int] | None:
    """`void=0,active=1,cbd=2` as a mapping."""
    if text is None:
        return None
    try:
        pairs = [part.split("=") for part in text.split(",")]
        return {name.strip(): int(value) for name, value in pairs}
    except ValueError:
        raise InputError(
            f"--phase-values: must read like void=0,active=1,cbd=2; got {text!r}."
        ) from None


def _settings(given: Mapping[str, Any], config: str | Path | Mapping[str, Any] | None, **flags: Any) -> Settings:
    """Settings from a file or mapping and the call's own arguments, which win."""
    from cbdetach.volume import parse_voxel_size

    source = {name: str(value) if isinstance(value, str | Path) else "array" for name, value in given.items() if value is not None}
    size = flags.get("voxel_size")
    overrides = {
        "slab": flags.get("slab"),
        "input": source
        | {
            "phase_values": dict(flags["phase_values"]) if flags.get("phase_values") else None,
            "voxel_size": None if size is None else parse_voxel_size(size),
            "crop": flags.get("crop"),
            "bin": flags.get("bin"),
        },
        "segment": {"segmenter": flags.get("segmenter")},
    }
    if isinstance(config, Mapping):
        return resolve(None, overrides, base=config)
    return resolve(config, overrides)


def _progress(job: Job, what: str) -> Iterable[Slab]:
    """The slabs in order, with a progress bar."""
    from tqdm import tqdm

    bar: Iterable[Slab] = tqdm(
        job.folder.slabs, desc=f"{what:<10}", unit="slab", leave=False, disable=None if job.progress else True
    )
    return bar


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Write the driver's messages to the run's log as well."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.close()


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    """Let the kernels use `n` threads (None: all)."""
    import numba

    most = numba.config.NUMBA_NUM_THREADS
    if n is not None and not 1 <= n <= most:
        raise InputError(f"--threads: must be 1 to {most} on this machine; got {n}.")
    before = numba.get_num_threads()
    numba.set_num_threads(n or most)
    try:
        yield
    finally:
        numba.set_num_threads(before)
