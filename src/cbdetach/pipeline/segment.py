"""The particles of a run, window by window or slice by slice; one label for each through the volume comes later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach import detachment, link, segment
from cbdetach.codes import VOID
from cbdetach.job import Job

Array = npt.NDArray[Any]

SAMPLED = 5
"""Slices on which the typical diameter is measured."""

SHARED = 8
"""Slices on each side of a slab's end that two neighbouring windows both segment, and are matched by."""


def segment_stage(job: Job) -> dict[str, Any]:
    """Particles of each 3D window, or of each slice, on its own; given labels need none.

    The watershed splits windows. The network, and the watershed in 2D, work slice by slice: along z, slab by slab; or
    along z, y and x of every window, each linked to particles of the window, and the three fused.
    """
    wanted = job.settings.segment
    if job.labels is not None:
        return {"segmenter": "given", "warnings": []}
    sections, used = _slice_segmenter(job)

    def window(index: int) -> dict[str, Array]:
        w0, w1 = job.slab(index, wanted.halo)
        s0, s1 = job.slab(index, min(SHARED, wanted.halo))
        codes = job.codes(w0, w1)
        labels = segment.segment_volume(
            detachment.is_active(codes),
            spacing=job.voxel_size,
            min_diameter_um=wanted.min_diameter_um,
            close_um=wanted.close_um,
        )
        segment.bridge_cracks(labels, codes == VOID, spacing=job.voxel_size, width_um=wanted.bridge_um)
        return {"labels": labels[s0 - w0 : s1 - w0], "table/z0": np.array(s0)}

    def slices(index: int) -> dict[str, Array]:
        z0, z1 = job.slab(index)
        labels, scores, counts = _collected(sections(z0, z1, 0), z1 - z0)
        return {
            "labels": labels,
            "table/z0": np.array(z0),
            "table/score": np.concatenate(scores),
            **{f"table/counts/{name}": np.array(n) for name, n in counts.items()},
        }

    def views(index: int) -> dict[str, Array]:
        w0, w1 = job.slab(index, wanted.halo)
        s0, s1 = job.slab(index, min(SHARED, wanted.halo))
        volumes, scores, counts = [], [], []
        for axis in range(3):
            own, own_scores, own_counts = _collected(sections(w0, w1, axis), (w1 - w0, *job.shape[1:])[axis])
            labels, links = link.link_slices(own, **link_options(job))
            volumes.append(np.moveaxis(labels, 0, axis))
            scores.append(segment.mean_scores(links.global_id, own_scores))
            counts.append(own_counts)
        labels = finished(job, segment.fuse_views(*volumes), (w0, w1))[s0 - w0 : s1 - w0]
        return {
            "labels": labels,
            "table/z0": np.array(s0),
            "table/score": segment.fused_scores(labels, [v[s0 - w0 : s1 - w0] for v in volumes], scores),
            **{f"table/counts/{name}": np.array(n) for name, n in segment.summed(counts).items()},
        }

    work = window if wanted.segmenter == "watershed" else slices if wanted.views == "z" else views
    job.each_slab("segment", work, ahead=job.model is None)
    warnings = _network_warnings(job)
    vars(job).pop("network", None)  # its memory is needed no longer
    shares = job.tables("segment", "table/counts")
    counts = {name: sum(int(share[name]) for share in shares) for name in shares[0]}
    return {"segmenter": wanted.segmenter, "views": wanted.views, **used, "counts": counts, "warnings": warnings}


def _collected(sections: Iterator[segment.Sections], n: int) -> tuple[Array, list[Array], dict[str, int]]:
    """The labels of n slices in one array, the scores of each slice, and all counts together."""
    labels, scores, counts = np.zeros((0, 0, 0), np.int32), [], []
    for k, one in enumerate(sections):
        if k == 0:
            labels = np.empty((n, *one.labels.shape), np.int32)
        labels[k] = one.labels
        scores.append(one.scores)
        counts.append(one.counts)
    return labels, scores, segment.summed(counts)


def _network_warnings(job: Job) -> list[str]:
    """That the network has not run where the kernels do, and why."""
    if job.gpu is None or job.model is None or job.network.model.provider != "cpu":
        return []
    return [f"The network runs on the processors: {job.network.model.why}"]


def _slice_segmenter(job: Job) -> tuple[Callable[[int, int, int], Iterator[segment.Sections]], dict[str, Any]]:
    """How the slices of z0 to z1 along an axis are segmented, and what the record is to say about it."""
    wanted = job.settings.segment

    def pixel(axis: int) -> tuple[float, float]:
        a, b = (size for n, size in enumerate(job.voxel_size) if n != axis)
        return a, b

    def split(active: Array, axis: int) -> Array:
        return segment.segment_slice(
            active,
            spacing=pixel(axis),
            marker_depth=segment.MARKER_DEPTH_LINKED,
            min_diameter_um=wanted.min_diameter_um,
            close_um=wanted.close_um,
        )

    def watershed(z0: int, z1: int, axis: int) -> Iterator[segment.Sections]:
        active = _across(detachment.is_active(job.codes(z0, z1)), axis)
        return segment.watershed_sections(active, lambda image: split(image, axis))

    if wanted.segmenter != "maskrcnn":
        return watershed, {}
    grey, survey, network = job.grey, job.survey, job.network
    assert grey is not None
    assert survey is not None
    levels = segment.histogram_levels(survey.counts, survey.edges)
    diameter = wanted.diameter_um
    if diameter is None:
        places = np.unique(np.linspace(0, job.shape[0] - 1, SAMPLED + 2).round().astype(int)[1:-1])
        sampled = (split(detachment.is_active(job.codes(z, z + 1))[0], 0) for z in places.tolist())
        diameter = segment.typical_diameter(sampled) * float(np.sqrt(np.prod(pixel(0))))
    diameter = max(diameter, segment.smallest_diameter(job.voxel_size, wanted.min_diameter_um))
    score = network.model.threshold if wanted.score is None else wanted.score
    close_um = segment.CLOSE_UM_INSTANCE if wanted.close_um is None else wanted.close_um

    def instances(z0: int, z1: int, axis: int) -> Iterator[segment.Sections]:
        return segment.network_sections(
            network,
            _across(grey[z0:z1], axis),
            _across(detachment.is_active(job.codes(z0, z1)), axis),
            spacing=pixel(axis),
            levels=levels,
            diameter_um=diameter,
            score=score,
            close_um=close_um,
            min_diameter_um=wanted.min_diameter_um,
            marker_depth=segment.MARKER_DEPTH_LINKED,
            add=wanted.add_missed,
        )

    return instances, {"grey_levels": levels, "diameter_um": diameter, "score": score}


def _across(volume: Array, axis: int) -> Array:
    """The volume as slices along an axis."""
    return np.ascontiguousarray(np.moveaxis(volume, axis, 0))


def finished(job: Job, labels: Array, window: tuple[int, int]) -> Array:
    """Labels of a window that were found slice by slice: hollows given back, contacts straightened, cracks bridged."""
    wanted = job.settings.segment
    assert wanted.segmenter is not None
    depth = segment.notch_depth_um(wanted.segmenter, job.voxel_size, wanted.close_um)
    codes = job.codes(*window)
    segment.finish(labels, detachment.is_active(codes), spacing=job.voxel_size, depth_um=depth)
    segment.bridge_cracks(labels, codes == VOID, spacing=job.voxel_size, width_um=wanted.bridge_um)
    return labels


def link_options(job: Job) -> dict[str, Any]:
    """How slices are linked."""
    wanted = job.settings.link
    return {
        "min_iou": wanted.min_iou,
        "min_containment": wanted.min_containment,
        "max_gap": wanted.max_gap,
        "fragments": "sandwiched",
        "neck_depth": wanted.neck_depth,
    }
