"""One label for each particle of a run, through all its windows or slices."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import voxkernels as vk
from cbdetach import detachment, device, link, segment
from cbdetach.errors import InputError
from cbdetach.job import Job
from cbdetach.pipeline.segment import finished, link_options
from cbdetach.store import Slab, pack

Array = npt.NDArray[Any]


def link_stage(job: Job) -> dict[str, Any]:
    """One label for each particle through all slices, and its position and extent."""
    ids, report = _links(job)

    def work(index: int) -> dict[str, Array]:
        z0, z1 = job.slab(index)
        labels: Array
        if job.labels is not None:
            given = job.labels[z0:z1]
            labels = given.astype(np.int32 if np.can_cast(given.dtype, np.int32) else np.int64)  # one for all slabs
        elif _by_slice(job):
            labels = _linked_slices(job, ids, index)
        else:
            labels = ids[index][_window_labels(job, index, (z0, z1))[0]]
        active = detachment.is_active(job.codes(z0, z1))
        regions = device.region_properties(labels, spacing=job.voxel_size, origin=(z0, 0, 0))
        return {
            **_scored(job, ids, index),
            "particles": labels,
            "table/labelled": np.array(np.count_nonzero(labels)),
            "table/labelled_active": np.array(np.count_nonzero(active & (labels > 0))),
            "table/active": np.array(np.count_nonzero(active)),
            **pack("table/regions", regions),
        }

    job.each_slab("link", work)
    n = job.regions.labels.size
    if n == 0:
        least = segment.smallest_diameter(job.voxel_size, job.settings.segment.min_diameter_um)
        size = ", ".join(f"{edge:g}" for edge in job.voxel_size)
        raise InputError(
            f"no particle found: nothing is as large as [segment] min_diameter_um, {least:g} um; check --voxel-size "
            f"({size} um), or choose a smaller diameter."
        )
    return {"particles": int(n), "links": report, "warnings": []}


def _scored(job: Job, ids: list[Array], index: int) -> dict[str, Array]:
    """Sum and count of the scores of each particle's sections in a slab; nothing where the segmenter gives none."""
    if job.labels is not None:
        return {}
    score = job.folder.read_table("segment", index).get("score")
    if score is None:
        return {}
    z0, z1 = job.slab(index)
    owner = np.concatenate([i[1:] for i in (ids[z0:z1] if _by_slice(job) else ids[index : index + 1])])
    known = np.isfinite(score) & (owner > 0)
    scored, row = np.unique(owner[known], return_inverse=True)
    return {
        "table/scored/labels": scored,
        "table/scored/sum": np.bincount(row, weights=score[known], minlength=scored.size),
        "table/scored/count": np.bincount(row, minlength=scored.size),
    }


def _by_slice(job: Job) -> bool:
    """Whether slices are linked along the volume; else windows are."""
    wanted = job.settings.segment
    return wanted.segmenter != "watershed" and wanted.views == "z"


def _window_labels(job: Job, index: int, wanted: Slab | None = None) -> tuple[Array, int]:
    """Labels that the segment stage has written for one slab, and the slice that they begin at; or of slices wanted."""
    import h5py

    path = job.folder.require_slab("segment", index)
    with h5py.File(path, "r") as file:
        z0 = int(file["table/z0"][()])
        low, high = (z0, z0 + len(file["labels"])) if wanted is None else wanted
        return file["labels"][low - z0 : high - z0], low


def _linked_slices(job: Job, ids: list[Array], index: int) -> Array:
    """Labels of one slab, linked from slices."""
    halo = segment.FINISH + segment.bridge_halo(job.settings.segment.bridge_um, job.voxel_size)
    (z0, z1), (w0, w1) = job.slab(index), job.slab(index, halo)
    images = []
    for other, (o0, o1) in enumerate(job.folder.slabs):
        lo, hi = max(o0, w0), min(o1, w1)
        if lo < hi:
            local, _ = _window_labels(job, other, (lo, hi))
            images += [ids[z][image] for z, image in zip(range(lo, hi), local, strict=True)]
    return finished(job, np.stack(images), (w0, w1))[z0 - w0 : z1 - w0]


def _links(job: Job) -> tuple[list[Array], dict[str, Any]]:
    """For every level (window or slice) the particle of each local label, and the report of what linking decided."""
    if job.labels is not None:
        return [], {}
    options = link_options(job)
    if _by_slice(job):
        sizes, overlaps = _slices(job)
    else:
        sizes, overlaps = _windows(job)
        options |= {"max_gap": 0, "fragments": "contained", "neck_depth": None}
    links = link.link(sizes, overlaps[0], overlaps[1], overlaps[2:], **options)
    ids = [np.concatenate(([0], g)).astype(np.int32) for g in links.global_id]
    total = np.zeros(links.n + 1, dtype=np.int64)
    for level, size in zip(ids, sizes, strict=True):
        np.add.at(total, level[1:], size)
    keep = total >= max(1, segment.smallest_voxels(job.voxel_size, job.settings.segment.min_diameter_um))
    keep[0] = False
    renumbered = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return [renumbered[level] for level in ids], links.report() | {"too_small": int((~keep[1:]).sum())}


Levels = tuple[list[Array], list[list[vk.OverlapCounts]]]
"""Sizes of the local labels 1.. of each level, and their overlaps with those of the level 1, 2, ... further on."""


def _windows(job: Job) -> Levels:
    """The slabs' windows, compared on the slices that neighbours both segmented."""
    sizes: list[Array] = []
    overlaps: list[list[vk.OverlapCounts]] = [[], []]
    previous: tuple[Array, int] | None = None
    for index, (z0, z1) in enumerate(job.folder.slabs):
        local, s0 = _window_labels(job, index)
        core = local[z0 - s0 : z1 - s0]
        sizes.append(np.bincount(core.ravel(), minlength=int(local.max(initial=0)) + 1)[1:])
        if previous is not None:
            before, b0 = previous
            end = b0 + len(before)
            overlaps[0].append(device.overlap_counts(before[s0 - b0 :], local[: end - s0]))
        previous = local, s0
    return sizes, overlaps


def _slices(job: Job) -> Levels:
    """All slices of the volume."""
    sizes: list[Array] = []
    overlaps: list[list[vk.OverlapCounts]] = [[] for _ in range(link.REACH)]
    stack: Array | None = None  # the last slices of the slabs before, and the slab
    for index in range(len(job.folder.slabs)):
        images = _window_labels(job, index)[0]
        sizes += [np.bincount(image.ravel())[1:] for image in images]
        stack = images if stack is None else np.concatenate([stack[-link.REACH :], images])
        for step in range(1, link.REACH + 1):
            overlaps[step - 1] += device.overlap_counts_stack(stack[-len(images) - step :], step=step)
    return sizes, overlaps
