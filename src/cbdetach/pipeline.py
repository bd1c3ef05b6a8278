"""The driver: from a tomogram to every particle's detachment, slab by slab. Read this file first.

::

    survey -> phases -> segment -> link -> connected -> detachment -> diffusion -> damage -> density -> features
    -> report

A stage is a function of a `Job`. It reads what earlier stages have written, calls a function on plain arrays for every
slab that is not there yet, and writes one file per slab; what it returns, for the whole volume, is written last and
ends it. So a run that was killed continues where it was, and no stage holds more than a window: a slab and its halo.
Whatever is summed over slabs is summed in their order, from what is on the disk, so that a resumed run equals an
undisturbed one. What the slabs' shares add up to is in `gather.py`, the folder and its record in `prepare.py`.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import voxkernels as vk
from cbdetach import (
    connected,
    damage,
    damage_layers,
    damage_map,
    density,
    detachment,
    device,
    diffusion,
    features,
    films,
    gather,
    given_phases,
    link,
    packing,
    phases,
    pixel_features,
    segment,
)
from cbdetach.codes import ACTIVE, ACTIVE_HIGH, CBD, COLLECTOR, N_PHASES, PHASE_CODES
from cbdetach.collector import Plate, find_plate, find_side, mark, rim
from cbdetach.device import AT_ONCE, find, on
from cbdetach.device import threads as _threads
from cbdetach.errors import InputError
from cbdetach.estimate import Estimate, estimate, refuse_what_cannot_fit
from cbdetach.job import Job, open_job, resolved_settings
from cbdetach.prepare import prepared
from cbdetach.results import Run
from cbdetach.store import pack
from cbdetach.survey import SurveyAccumulator
from cbdetach.thresholds import find_thresholds
from cbdetach.volume import Volume, check_finite

Array = npt.NDArray[Any]
log = logging.getLogger("cbdetach")

SAMPLED = 5
"""Slices on which the typical diameter is measured."""

SHARED = 8
"""Slices on each side of a slab's end that two neighbouring windows both segment, and are matched by."""


# ---- stages ---------------------------------------------------------------------------------------------------------


def survey_stage(job: Job) -> dict[str, Any]:
    """One pass over every input: histogram, hash and edge width of the grey volume; values of what else was given."""
    result: dict[str, Any] = {"sha256": {}}
    warnings: list[str] = []
    for name, given in (("labels", job.labels), ("phases", job.phases)):
        if given is not None:
            digest, values = hashlib.sha256(), np.zeros(0, dtype=np.int64)
            for z0, z1 in job.in_order("survey"):
                slab = given[z0:z1]
                if name == "labels":
                    segment.check_labels(slab)
                else:
                    given_phases.map_phases(slab, job.settings.input.phase_values or {})
                digest.update(np.ascontiguousarray(slab).data)
                values = np.union1d(values, np.unique(slab)).astype(np.int64)
            result["sha256"][name] = digest.hexdigest()
            if name == "labels" and not (values > 0).any():
                raise InputError(f"--labels: {given.name} holds no particle (every voxel is 0); give a label volume.")
            if name == "phases":
                _require_active(given, job.settings.input.phase_values or {}, values)
    if job.grey is not None:
        accumulator = SurveyAccumulator(job.voxel_size)
        for z0, z1 in job.in_order("survey"):
            slab = job.grey[z0:z1]
            check_finite(slab, z0)
            accumulator.add(slab)
        survey = accumulator.finish()
        result["grey"] = survey.to_dict()
        result["sha256"]["volume"] = survey.sha256
        if survey.edge_rays == 0 and job.settings.phases.edge_width_um is None and job.phases is None:
            warnings.append("The blur could not be measured on this volume: it is taken for one voxel.")
        if job.phases is None:
            wanted = job.settings.phases
            thresholds = find_thresholds(
                survey.counts,
                survey.edges,
                method=wanted.method,
                active_levels=wanted.active_levels,
                strength=(survey.strength_grey, survey.strength),
                void_cbd=wanted.void_cbd,
                cbd_active=wanted.cbd_active,
                active_high=wanted.active_high,
            )
            result["thresholds"] = thresholds.to_dict()
            if job.classifier is not None:
                result["pixel_scale"] = pixel_features.grey_scale(job.grey)
            if wanted.collector is not None:
                result["collector"] = _collector(job, survey.edge_width_um, thresholds.void_cbd).to_dict()
    result["warnings"] = warnings
    return result


def _collector(job: Job, edge_width_um: float, void_cbd: float) -> Plate:
    """The foil on the side that the settings name, or on the one side that holds one."""
    wanted = job.settings.phases
    z, y, x = ((wanted.edge_width_um or edge_width_um) / size for size in job.voxel_size)
    if wanted.collector == "auto":
        return find_side(job.grey, blur=(z, y, x), void_cbd=void_cbd)
    assert wanted.collector is not None
    return find_plate(job.grey, wanted.collector, blur=(z, y, x)["zyx".index(wanted.collector[0])], void_cbd=void_cbd)


def _require_active(given: Volume, mapping: Mapping[str, int], values: Array) -> None:
    active = {value for phase, value in mapping.items() if PHASE_CODES.get(phase) in (ACTIVE, ACTIVE_HIGH)}
    if not active & set(values.tolist()):
        raise InputError(
            f"--phases: no particle found: no voxel of {given.name} has the value of active material "
            f"({', '.join(map(str, sorted(active)))}); check --phase-values."
        )


def phases_stage(job: Job) -> dict[str, Any]:
    """Phase of every voxel: as given, by a classifier, or by thresholds with the partial-volume rim resolved."""
    classifier = job.classifier
    halo = phases_halo(job)

    def work(index: int) -> dict[str, Array]:
        z0, z1 = job.slab(index)
        if job.phases is not None:
            codes = given_phases.map_phases(job.phases[z0:z1], job.settings.input.phase_values or {})
            unresolved = np.zeros(codes.shape, dtype=np.bool_)
        else:
            assert job.grey is not None
            assert job.thresholds is not None
            w0, w1 = job.slab(index, halo)
            grey = job.grey[w0:w1]
            if classifier is not None:
                codes = classifier.decide(classifier.shares(grey, grey_scale(job), (z0 - w0, z1 - w0)))
                unresolved = np.zeros(codes.shape, dtype=np.bool_)
            else:
                codes, unresolved = phases.resolve_phases(
                    grey, job.thresholds, spacing=job.voxel_size, edge_width_um=job.edge_width_um
                )
                codes, unresolved = codes[z0 - w0 : z1 - w0], unresolved[z0 - w0 : z1 - w0]
            codes = with_collector(job, codes, grey, z0, w0)
            unresolved &= codes != COLLECTOR
        count = np.bincount(codes.ravel(), minlength=N_PHASES)
        return {"phases": codes, "unresolved": unresolved, "table/count": count, "table/unresolved": unresolved.sum()}

    job.each_slab("phases", work)
    shares = job.tables("phases")
    counts = np.sum([t["count"] for t in shares], axis=0)
    warnings = []
    if counts[CBD] == 0:
        warnings.append("No carbon/binder was found: detachment and diffusion lengths are empty.")
    if counts[ACTIVE] + counts[ACTIVE_HIGH] == 0:
        raise InputError("no particle found: no voxel is active material; check the thresholds in [phases].")
    return {
        "voxels": dict(zip(("void", "cbd", "active_low", "active_high", "collector"), counts.tolist(), strict=True)),
        "unresolved": int(sum(int(t["unresolved"]) for t in shares)),
        "warnings": warnings,
    }


def phases_halo(job: Job) -> int:
    """Slices around a slab that its phases depend on."""
    if job.phases is not None:
        return 0
    own = phases.halo(job.voxel_size, job.edge_width_um) if job.classifier is None else job.classifier.halo
    return own if job.plate is None else max(own, rim(job.edge_width_um / job.voxel_size[0]))


def with_collector(job: Job, codes: npt.NDArray[np.uint8], grey: Array, z0: int, w0: int) -> npt.NDArray[np.uint8]:
    """Phases of slices from z0 on, with the foil that was found; grey is the window from w0 on that they come from."""
    if job.plate is None or job.thresholds is None:
        return codes
    blur = job.edge_width_um / job.voxel_size[job.plate.axis]
    void_cbd = job.thresholds.void_cbd
    return mark(codes, grey, job.plate, z0=z0, w0=w0, depth=job.shape[0], blur=blur, void_cbd=void_cbd)


def grey_scale(job: Job) -> tuple[float, float]:
    """The grey values that are 0 and 1 to a classifier."""
    low, high = job.result("survey")["pixel_scale"]
    return low, high


def moved_phases(job: Job, z0: int, z1: int) -> tuple[list[Array], Array | None]:
    """Phases of slices z0 to z1 for every variant of the thresholds, or of the classifier's decision.

    And the height of films there, where thresholds tell the phases.
    """
    assert job.grey is not None
    assert job.thresholds is not None
    variants = gather.threshold_variants(job)
    halo = phases_halo(job)
    w0, w1 = max(0, z0 - halo), min(job.shape[0], z1 + halo)
    grey = job.grey[w0:w1]
    if job.classifier is not None:
        shares = job.classifier.shares(grey, grey_scale(job), (z0 - w0, z1 - w0))
        ways = [job.classifier.decide(shares, name) for name in variants]
        return [with_collector(job, way, grey, z0, w0) for way in ways], None
    ways, height = phases.resolve_moved(
        grey, job.thresholds, list(variants.values()), spacing=job.voxel_size, edge_width_um=job.edge_width_um
    )
    inner = slice(z0 - w0, z1 - w0)
    return [with_collector(job, way[inner], grey, z0, w0) for way in ways], height[inner]


def segment_stage(job: Job) -> dict[str, Any]:
    """Particles of each 3D window, or of each slice, on its own; given labels need none.

    The watershed splits windows. The network, and the watershed in 2D, work slice by slice: along z, slab by slab; or
    along z, y and x of every window, each linked to particles of the window, and the three fused.
    """
    wanted = job.settings.segment
    if job.labels is not None:
        return {"segmenter": "given", "warnings": []}
    sections, used = slice_segmenter(job)

    def window(index: int) -> dict[str, Array]:
        w0, w1 = job.slab(index, wanted.halo)
        s0, s1 = job.slab(index, min(SHARED, wanted.halo))
        active = detachment.is_active(job.codes(w0, w1))
        labels = segment.segment_volume(
            active, spacing=job.voxel_size, min_diameter_um=wanted.min_diameter_um, close_um=wanted.close_um
        )
        return {"labels": labels[s0 - w0 : s1 - w0], "table/z0": np.array(s0)}

    def slices(index: int) -> dict[str, Array]:
        z0, z1 = job.slab(index)
        found = list(sections(z0, z1, 0))
        return {
            "labels": np.stack([f.labels for f in found]),
            "table/z0": np.array(z0),
            "table/score": np.concatenate([f.scores for f in found]),
            **{f"table/counts/{name}": np.array(n) for name, n in segment.summed(f.counts for f in found).items()},
        }

    def views(index: int) -> dict[str, Array]:
        w0, w1 = job.slab(index, wanted.halo)
        s0, s1 = job.slab(index, min(SHARED, wanted.halo))
        volumes, scores, counts = [], [], []
        for axis in range(3):
            found = list(sections(w0, w1, axis))
            labels, links = link.link_slices(np.stack([f.labels for f in found]), **_link_options(job))
            volumes.append(np.moveaxis(labels, 0, axis))
            scores.append(segment.mean_scores(links.global_id, [f.scores for f in found]))
            counts.append(segment.summed(f.counts for f in found))
        labels = _finished(job, segment.fuse_views(*volumes), (w0, w1))[s0 - w0 : s1 - w0]
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


def _network_warnings(job: Job) -> list[str]:
    """That the network has not run where the kernels do, and why."""
    if job.gpu is None or job.model is None or job.network.model.provider != "cpu":
        return []
    return [f"The network runs on the processors: {job.network.model.why}"]


def slice_segmenter(job: Job) -> tuple[Callable[[int, int, int], Iterator[segment.Sections]], dict[str, Any]]:
    """How the slices of z0 to z1 along an axis are segmented, and what the record is to say about it."""
    wanted = job.settings.segment

    def across(volume: Array, axis: int) -> Array:
        return np.ascontiguousarray(np.moveaxis(volume, axis, 0))

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
        active = across(detachment.is_active(job.codes(z0, z1)), axis)
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
            across(grey[z0:z1], axis),
            across(detachment.is_active(job.codes(z0, z1)), axis),
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


def _link_options(job: Job) -> dict[str, Any]:
    """How slices are linked."""
    wanted = job.settings.link
    return {
        "min_iou": wanted.min_iou,
        "min_containment": wanted.min_containment,
        "max_gap": wanted.max_gap,
        "fragments": "sandwiched",
        "neck_depth": wanted.neck_depth,
    }


def _by_slice(job: Job) -> bool:
    """Whether slices are linked along the volume; else windows are."""
    wanted = job.settings.segment
    return wanted.segmenter != "watershed" and wanted.views == "z"


def _window_labels(job: Job, index: int) -> tuple[Array, int]:
    """Labels that the segment stage has written for one slab, and the slice that they begin at."""
    path = job.folder.require_slab("segment", index)
    import h5py

    with h5py.File(path, "r") as file:
        return file["labels"][()], int(file["table/z0"][()])


def link_stage(job: Job) -> dict[str, Any]:
    """One label for each particle through all slices, and its position and extent."""
    ids, report = _links(job)
    by_slice = _by_slice(job)

    def work(index: int) -> dict[str, Array]:
        z0, z1 = job.slab(index)
        shares: dict[str, Array] = {}
        if job.labels is not None:
            labels = job.labels[z0:z1]
            labels = labels.astype(
                np.int32 if np.can_cast(labels.dtype, np.int32) else np.int64
            )  # one type for all slabs
        else:
            local, s0 = _window_labels(job, index)
            local = local[z0 - s0 : z1 - s0]
            labels = _linked_slices(job, ids, index) if by_slice else ids[index][local]
            score = job.folder.read_table("segment", index).get("score")
            if score is not None:
                owner = np.concatenate([i[1:] for i in (ids[z0:z1] if by_slice else ids[index : index + 1])])
                known = np.isfinite(score) & (owner > 0)
                scored, row = np.unique(owner[known], return_inverse=True)
                shares = {
                    "table/scored/labels": scored,
                    "table/scored/sum": np.bincount(row, weights=score[known], minlength=scored.size),
                    "table/scored/count": np.bincount(row, minlength=scored.size),
                }
        regions = device.region_properties(labels, spacing=job.voxel_size, origin=(z0, 0, 0))
        active = detachment.is_active(job.codes(z0, z1))
        return shares | {
            "particles": labels,
            "table/labelled": np.array(np.count_nonzero(labels)),
            "table/labelled_active": np.array(np.count_nonzero(active & (labels > 0))),
            "table/active": np.array(np.count_nonzero(active)),
            **pack("table/regions", regions),
        }

    job.each_slab("link", work)
    n = job.regions.labels.size
    if n == 0:
        raise InputError("no particle found: nothing is as large as [segment] min_diameter_um; choose a smaller one.")
    return {"particles": int(n), "links": report, "warnings": []}


def _finished(job: Job, labels: Array, window: tuple[int, int]) -> Array:
    """Labels of a window that were found slice by slice: hollows of the surface given back, contacts straightened."""
    wanted = job.settings.segment
    assert wanted.segmenter is not None
    depth = segment.notch_depth_um(wanted.segmenter, job.voxel_size, wanted.close_um)
    segment.finish(labels, detachment.is_active(job.codes(*window)), spacing=job.voxel_size, depth_um=depth)
    return labels


def _linked_slices(job: Job, ids: list[Array], index: int) -> Array:
    """Labels of one slab, linked from slices."""
    (z0, z1), (w0, w1) = job.slab(index), job.slab(index, segment.FINISH)
    images = []
    for other, (o0, o1) in enumerate(job.folder.slabs):
        lo, hi = max(o0, w0), min(o1, w1)
        if lo < hi:
            local, s0 = _window_labels(job, other)
            images += [ids[z][local[z - s0]] for z in range(lo, hi)]
    return _finished(job, np.stack(images), (w0, w1))[z0 - w0 : z1 - w0]


def _links(job: Job) -> tuple[list[Array], dict[str, Any]]:
    """For every level (window or slice) the particle of each local label, and the report of what linking decided."""
    if job.labels is not None:
        return [], {}
    wanted = job.settings
    sizes: list[Array] = []
    overlaps: list[list[vk.OverlapCounts]] = [[] for _ in range(link.REACH)]  # with the level 1, 2, ... further on
    by_slice = _by_slice(job)
    if not by_slice:
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
        options = _link_options(job) | {"max_gap": 0, "fragments": "contained", "neck_depth": None}
    else:
        stack: Array | None = None  # the last slices of the slabs before, and the slab
        for index in range(len(job.folder.slabs)):
            images = _window_labels(job, index)[0]
            sizes += [np.bincount(image.ravel())[1:] for image in images]
            stack = images if stack is None else np.concatenate([stack[-link.REACH :], images])
            for step in range(1, link.REACH + 1):
                overlaps[step - 1] += device.overlap_counts_stack(stack[-len(images) - step :], step=step)
        options = _link_options(job)
    links = link.link(sizes, overlaps[0], overlaps[1] if by_slice else (), overlaps[2:] if by_slice else (), **options)
    ids = [np.concatenate(([0], g)).astype(np.int32) for g in links.global_id]
    total = np.zeros(links.n + 1, dtype=np.int64)
    for level, size in zip(ids, sizes, strict=True):
        np.add.at(total, level[1:], size)
    smallest = segment.smallest_voxels(job.voxel_size, wanted.segment.min_diameter_um)
    keep = total >= max(1, smallest)
    keep[0] = False
    renumbered = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return [renumbered[level] for level in ids], links.report() | {"too_small": int((~keep[1:]).sum())}


class _EverySlab:
    """An array for each slab, read anew whenever it is gone through."""

    def __init__(self, n: int, read: Callable[[int], Array]) -> None:
        self.n, self.read = n, read

    def __iter__(self) -> Iterator[Array]:
        return map(self.read, range(self.n))


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

    job.each_slab("connected", work, ahead=False)  # what is found goes on from slab to slab
    total = np.sum([t["voxels"] for t in job.tables("connected")], axis=0)[:, 1:]
    if not total[1, connected.CONNECTED - 1]:
        warnings.append(f"No carbon/binder touches the anchor ({anchor}): every contact counts as detached.")
    shares = {
        str(c): dict(zip(connected.CLASSES.values(), (row / row.sum()).tolist(), strict=True))
        for c, row in zip(connected.CONNECTIVITIES, total, strict=True)
        if row.sum()
    }
    return {"anchor": anchor, "volume_shares": shares, "warnings": warnings}


def detachment_stage(job: Job) -> dict[str, Any]:
    """Areas of every particle by what it faces: as measured, with contact tolerances, and with moved thresholds."""
    voxel = min(job.voxel_size)
    wanted = job.settings.detachment
    variants = gather.threshold_variants(job)
    halo = detachment_halo(job)
    edges = gather.thickness_edges(job)

    def work(index: int) -> dict[str, Array]:
        z0, z1 = job.slab(index)
        w0, w1 = job.slab(index, halo)
        core = (z0 - w0, z1 - w0)
        labels, codes = job.particles(w0, w1), job.codes(w0, w1)
        unresolved = job.folder.read_volume("phases", "unresolved", w0, w1)

        def areas(particles: Array, kinds: Array, tolerance_um: float, hidden: Array | None = None) -> vk.ContactAreas:
            attached = detachment.attach_within(particles, kinds, tolerance_um, job.voxel_size)
            return detachment.surface_classes(
                particles, attached, hidden, spacing=job.voxel_size, estimator=wanted.estimator, core=core
            )

        shares = {"measured": areas(labels, codes, wanted.tolerance_um, unresolved)}
        shares["electrode"] = areas((labels > 0).astype(np.int32), codes, wanted.tolerance_um, unresolved)
        for n in gather.TOLERANCES:
            shares[f"tolerance_{n}"] = areas(labels, codes, n * voxel)
        if gather.is_connected(job):
            classes = [
                connected.attach_classes(
                    labels,
                    codes,
                    job.folder.read_volume("connected", name, w0, w1),
                    wanted.tolerance_um,
                    job.voxel_size,
                )
                for name in ("connected", "connected26")
            ]
            shares["connected"] = areas(labels, connected.surface_kinds(codes, *classes), 0.0)
        arrays: dict[str, Array] = {}
        if variants:
            ways, height = moved_phases(job, w0, w1)
            if height is not None:
                arrays["table/film_heights"] = films.film_heights(labels, codes, height, core)
            for name, moved in zip(variants, ways, strict=True):
                grown = detachment.moved_particles(
                    labels, codes, moved, reach_um=2 * job.edge_width_um, spacing=job.voxel_size
                )
                shares[name] = areas(grown, moved, wanted.tolerance_um)
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
    reach = max(job.settings.detachment.tolerance_um, max(gather.TOLERANCES) * min(job.voxel_size))
    return detachment.HALO + int(np.ceil(reach / job.voxel_size[0]))


def diffusion_stage(job: Job) -> dict[str, Any]:
    """Diffusion lengths, solved on windows that hold every particle of the slab whole."""
    wanted = job.settings.diffusion
    smallest = wanted.min_contact_um2
    if smallest is None:
        smallest = diffusion.default_min_contact_um2(job.edge_width_um, phases_given=job.phases is not None)
    regions = job.regions

    def work(index: int) -> dict[str, Array]:
        z0, z1 = job.slab(index)
        (w0, w1), here = job.whole(z0, z1)
        w0, w1 = max(0, w0 - diffusion.HALO), min(job.shape[0], w1 + diffusion.HALO)
        starts_here = here & (regions.bbox[:, 0] >= z0)
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
    wanted = job.settings.damage
    size = job.voxel_size
    width = wanted.max_crack_width_um or damage.default_max_crack_width_um(size, job.edge_width_um)
    skin = job.edge_width_um if wanted.skin_um is None else wanted.skin_um
    window = wanted.window_um or damage_map.default_window_um(size)
    halo = max(damage_map.halo(size, window), damage.HALO)
    layer = wanted.layer_um or damage_layers.default_layer_um(size)
    void = None if job.thresholds is None else job.thresholds.means[0]

    def work(index: int) -> dict[str, Array]:
        z0, z1 = job.slab(index)
        h0, h1 = job.slab(index, halo)
        (w0, w1), _ = job.whole(h0, h1)
        active = detachment.is_active(job.codes(w0, w1))
        labels = job.particles(w0, w1)
        codes = damage.classify_damage(labels, active, spacing=size, max_crack_width_um=width, skin_um=skin)
        layers = _damage_layers(job, index, labels, codes, w0, layer, void)
        labels, codes = labels[h0 - w0 : h1 - w0], codes[h0 - w0 : h1 - w0]
        core = (z0 - h0, z1 - h0)
        share = damage.measure_damage(
            labels, codes, spacing=size, core=core, z0=h0, profile_window_um=wanted.profile_window_um
        )
        degree = damage_map.damage_map(labels, codes, spacing=size, window_um=window)
        return {
            "damage": degree[slice(*core)],
            "damage_class": codes[slice(*core)],
            **pack("table/share", share),
            **layers,
        }

    job.each_slab("damage", work)
    smallest = damage.smallest_crack_um(size, job.edge_width_um)
    return {
        "max_crack_width_um": width,
        "skin_um": skin,
        "smallest_crack_um": smallest,
        "window_um": window,
        "layer_um": layer,
        "warnings": [],
    }


def _damage_layers(
    job: Job, index: int, labels: Array, codes: Array, w0: int, layer_um: float, void: float | None
) -> dict[str, Array]:
    """Damage by depth under the surface, and missing grey, of the particles that begin in a slab."""
    z0, z1 = job.slab(index)
    boxes = job.regions.bbox
    begin = (boxes[:, 0] >= z0) & (boxes[:, 0] < z1)
    inside = begin & (boxes[:, :3] > 0).all(axis=1) & (boxes[:, 3:] < job.shape).all(axis=1)
    whole = job.regions.labels[inside]
    shifted = boxes[inside] - np.array([w0, 0, 0, w0, 0, 0])
    found: dict[str, Array] = {
        "table/radial_labels": whole,
        "table/radial": damage_layers.radial_sums(
            labels, codes, whole, shifted, spacing=job.voxel_size, layer_um=layer_um
        ),
    }
    if job.grey is not None and void is not None:
        held, sums = damage_layers.grey_deficit(
            labels, codes, job.grey[w0 : w0 + len(labels)], void=void, spacing=job.voxel_size,
            edge_width_um=job.edge_width_um,
        )  # fmt: skip
        mine = np.isin(held, job.regions.labels[begin])
        found |= {"table/deficit_labels": held[mine], "table/deficit": sums[mine]}
    return found


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
    edges = gather.peak_edges(job)

    def work(index: int) -> dict[str, Array]:
        z0, z1 = job.slab(index)
        w0, w1 = job.slab(index, halo)
        labels, codes, image = job.particles(w0, w1), job.codes(w0, w1), grey[w0:w1]
        core = (z0 - w0, z1 - w0)
        depth = density.solid_depth(
            labels, detachment.is_active(codes), spacing=job.voxel_size, reach_um=float(depths[-1])
        )
        shells = density.grey_of_shells(labels, image, depth, depths, spacing=job.voxel_size, core=core, z0=w0)
        deep = density.deep_regions(labels, codes, gather.PEAKS, spacing=job.voxel_size, depths_um=below)
        found = density.grey_histograms(image, deep, edges, core=core)
        return pack("table/shells", shells) | {f"table/peaks/{name}": counts for name, counts in found.items()}

    job.each_slab("density", work)
    return {"erosion_um": erosion, "depths_um": depths.tolist(), "peaks_below_um": below, "warnings": []}


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
    "report": gather.report_stage,
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
    model: str | Path | None = None,
    views: str | None = None,
    anchor: str | None = None,
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
    resume : continue a run that was interrupted; overwrite : delete what a run has left in `out`, and start again.
    progress : draw progress bars on a terminal.

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
    gpu = find(device)
    with open_job(settings, Path(out), given, progress=progress, gpu=gpu) as job:
        need = needs(job)
        refuse_what_cannot_fit(need, job.folder.path, device=None if gpu is None else gpu.free)
        with prepared(job, resume=resume, overwrite=overwrite) as record, _threads(threads):
            if not record["finished"] or not _all_slabs_whole(job):
                if job.model is not None:
                    log.info("%s on %s", job.model.name, job.network.model.provider)  # loaded first: it may be unfit
                log.info("the run %s", need)
                work_through(job, record)
    return Run(out)


def plan(out: str | Path = "cbdetach_run", *, device: str = "cpu", **arguments: Any) -> Estimate:
    """What `run` with the same arguments would need: memory, disk and time. Reads metadata only, writes nothing."""
    given = {name: arguments.pop(name, None) for name in ("volume", "labels", "phases")}
    settings = resolved_settings(given, arguments.pop("config", None), **arguments)
    with open_job(settings, Path(out), given, progress=False, gpu=find(device)) as job:
        return needs(job)


def work_through(job: Job, record: dict[str, Any]) -> None:
    """Every stage in order; those that have ended, with every slab whole, are not done again."""
    for name, stage in STAGES.items():
        result = job.folder.read_result(name)
        if result is None or not _slabs_whole(job, name):
            began = time.perf_counter()
            with on(job.gpu):
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


def needs(job: Job) -> Estimate:
    """What the run will need; the blur is not measured yet, and taken for two and a half voxels."""
    blur = job.settings.phases.edge_width_um or 2.5 * max(job.voxel_size)
    rim = phases.halo(job.voxel_size, blur) if job.phases is None else 0
    halos = {
        "phases": rim,
        "segment": job.settings.segment.halo,
        "detachment": detachment_halo(job) + rim,
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
        at_once=1 if job.gpu is None else AT_ONCE,
        on_gpu=job.gpu is not None,
        classifier=0 if job.classifier is None else job.classifier.dimensions,
    )
    voxels, edges = (" x ".join(f"{n:.6g}" for n in numbers) for numbers in (job.shape, job.voxel_size))
    return replace(need, volume=f"{voxels} voxels of {edges} um")
