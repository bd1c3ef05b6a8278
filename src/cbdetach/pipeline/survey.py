"""The survey of a run: one pass over every input, and what follows from it for the whole volume."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach import given_phases, pixel_features, segment
from cbdetach.collector import Plate, find_plate, find_side
from cbdetach.errors import InputError
from cbdetach.job import Job
from cbdetach.survey import Survey, SurveyAccumulator
from cbdetach.thresholds import Thresholds, find_thresholds
from cbdetach.volume import Volume

Array = npt.NDArray[Any]

LONG_VOXEL_UM = 10.0
"""A voxel longer than that holds whole particles of most electrodes: its size may have been given in nanometres."""


def survey_stage(job: Job) -> dict[str, Any]:
    """One pass over every input: histogram, hash and edge width of the grey volume; values of what else was given."""
    digests = {}
    if job.labels is not None:
        digests["labels"], values = _pass_over(job, job.labels, segment.check_labels)
        if not (values > 0).any():
            raise InputError(f"--labels: {job.labels.name} holds no particle (every voxel is 0); give a label volume.")
    if job.phases is not None:
        mapping = job.settings.input.phase_values or {}
        digests["phases"], values = _pass_over(job, job.phases, lambda slab: given_phases.map_phases(slab, mapping))
        _require_active(job.phases, mapping, values)
    warnings = []
    if max(job.voxel_size) > LONG_VOXEL_UM:
        edges = ", ".join(f"{edge:g}" for edge in job.voxel_size)
        warnings.append(f"The voxels measure {edges} um: check that their size was given in micrometres.")
    if job.grey is None:
        return {"sha256": digests, "warnings": warnings}
    survey = _survey(job, job.grey)
    result: dict[str, Any] = {"sha256": digests | {"volume": survey.sha256}, "grey": survey.to_dict()}
    if job.phases is None:
        thresholds = _thresholds(job, survey)
        result["thresholds"] = thresholds.to_dict()
        if job.classifier is not None:
            result["pixel_scale"] = pixel_features.grey_scale(job.grey)
        if job.settings.phases.collector is not None:
            result["collector"] = _collector(job, survey.edge_width_um, thresholds.void_cbd).to_dict()
        if survey.edge_rays == 0 and job.settings.phases.edge_width_um is None:
            warnings.append("The blur could not be measured on this volume: it is taken for one voxel.")
    return result | {"warnings": warnings}


def _pass_over(job: Job, given: Volume, check: Callable[[Array], object]) -> tuple[str, Array]:
    """Hash and values of a volume of integers, every slab of which is checked."""
    digest, values = hashlib.sha256(), np.zeros(0, dtype=np.int64)
    for z0, z1 in job.in_order("survey"):
        slab = given[z0:z1]
        check(slab)
        digest.update(np.ascontiguousarray(slab).data)
        values = np.union1d(values, np.unique(slab)).astype(np.int64)
    return digest.hexdigest(), values


def _survey(job: Job, grey: Volume) -> Survey:
    accumulator = SurveyAccumulator(job.voxel_size)
    for z0, z1 in job.in_order("survey"):
        accumulator.add(grey[z0:z1])
    return accumulator.finish()


def _thresholds(job: Job, survey: Survey) -> Thresholds:
    wanted = job.settings.phases
    return find_thresholds(
        survey.counts,
        survey.edges,
        method=wanted.method,
        active_levels=wanted.active_levels,
        strength=(survey.strength_grey, survey.strength),
        void_cbd=wanted.void_cbd,
        cbd_active=wanted.cbd_active,
        active_high=wanted.active_high,
    )


def _collector(job: Job, edge_width_um: float, void_cbd: float) -> Plate:
    """The foil on the side that the settings name, or on the one side that holds one."""
    wanted = job.settings.phases
    z, y, x = ((wanted.edge_width_um or edge_width_um) / size for size in job.voxel_size)
    if wanted.collector == "auto":
        return find_side(job.grey, blur=(z, y, x), void_cbd=void_cbd)
    assert wanted.collector is not None
    return find_plate(job.grey, wanted.collector, blur=(z, y, x)["zyx".index(wanted.collector[0])], void_cbd=void_cbd)


def _require_active(given: Volume, mapping: Mapping[str, int], values: Array) -> None:
    active = {value for phase, value in mapping.items() if phase in given_phases.OF_PARTICLES}
    if not active & set(values.tolist()):
        raise InputError(
            f"--phases: no particle found: no voxel of {given.name} has the value of active material "
            f"({', '.join(map(str, sorted(active)))}); check --phase-values."
        )
