"""The phases of a run, slab by slab: as given, by a classifier, or by thresholds; and how they move with those."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach import films, given_phases, phases
from cbdetach.codes import ACTIVE, ACTIVE_HIGH, CBD, COLLECTOR, N_PHASES
from cbdetach.collector import mark, rim
from cbdetach.errors import InputError
from cbdetach.job import Job
from cbdetach.store import Slab

Array = npt.NDArray[Any]


def phases_stage(job: Job) -> dict[str, Any]:
    """Phase of every voxel: as given, by a classifier, or by thresholds with the partial-volume rim resolved.

    And what it would be with every threshold moved (`job.variants`), by the same look at the grey values: `moved/NAME`.
    """
    halo = phases_halo(job)

    def work(index: int) -> dict[str, Array]:
        if job.phases is not None:
            codes = given_phases.map_phases(job.phases[slice(*job.slab(index))], job.settings.input.phase_values or {})
            found: dict[str, Array] = {"phases": codes, "unresolved": np.zeros(codes.shape, dtype=np.bool_)}
        else:
            found = _decided(job, job.slab(index), job.slab(index, halo))
        count = np.bincount(found["phases"].ravel(), minlength=N_PHASES)
        return found | {"table/count": count, "table/unresolved": found["unresolved"].sum()}

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


def _decided(job: Job, core: Slab, window: Slab) -> dict[str, Array]:
    """Phases of the slices of a core from the grey values of a window around it, where they are unresolved, and moved.

    And the classes of the height of films, where thresholds tell the phases.
    """
    assert job.grey is not None
    assert job.thresholds is not None
    w0, w1 = window
    inner = slice(core[0] - w0, core[1] - w0)
    grey = job.grey[w0:w1]
    if job.classifier is not None:
        shares = job.classifier.shares(grey, _grey_scale(job), (inner.start, inner.stop))
        codes, ways = job.classifier.decide(shares), [job.classifier.decide(shares, name) for name in job.variants]
        unresolved = np.zeros(codes.shape, dtype=np.bool_)
    else:
        found = phases.resolve(
            grey,
            job.thresholds,
            list(job.variants.values()),
            spacing=job.voxel_size,
            edge_width_um=job.edge_width_um,
        )
        codes, unresolved, ways = found.phases[inner], found.unresolved[inner], [way[inner] for way in found.moved]
    codes, *ways = (_with_collector(job, way, grey, core[0], w0) for way in (codes, *ways))
    films_there = {} if job.classifier is not None else {"film_class": films.height_classes(found.height[inner], codes)}
    moved = {f"moved/{name}": way for name, way in zip(job.variants, ways, strict=True)}
    return {"phases": codes, "unresolved": unresolved & (codes != COLLECTOR)} | films_there | moved


def phases_halo(job: Job) -> int:
    """Slices around a slab that its phases depend on."""
    if job.phases is not None:
        return 0
    own = phases.halo(job.voxel_size, job.edge_width_um) if job.classifier is None else job.classifier.halo
    return own if job.plate is None else max(own, rim(job.edge_width_um / job.voxel_size[0]))


def _with_collector(job: Job, codes: npt.NDArray[np.uint8], grey: Array, z0: int, w0: int) -> npt.NDArray[np.uint8]:
    """Phases of slices from z0 on, with the foil that was found; grey is the window from w0 on that they come from."""
    if job.plate is None or job.thresholds is None:
        return codes
    blur = job.edge_width_um / job.voxel_size[job.plate.axis]
    void_cbd = job.thresholds.void_cbd
    return mark(codes, grey, job.plate, z0=z0, w0=w0, depth=job.shape[0], blur=blur, void_cbd=void_cbd)


def _grey_scale(job: Job) -> tuple[float, float]:
    """The grey values that are 0 and 1 to a classifier."""
    low, high = job.result("survey")["pixel_scale"]
    return low, high
