"""What the stages' shares add up to: the tables, the profiles, the balances, and what the report draws."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cbdetach import report, table
from cbdetach.errors import InputError
from cbdetach.files import write_json, write_table
from cbdetach.gather.areas import Contacts, balances, connected_record, merged_contacts, sensitivity, thickness_edges
from cbdetach.gather.columns import counts, particle_columns
from cbdetach.gather.cracks import depth_profile, radial_profile
from cbdetach.gather.features import feature_frame, write_features
from cbdetach.gather.grey import densities, peaks
from cbdetach.job import Job
from cbdetach.results import Run
from cbdetach.store import RunFolder
from cbdetach.volume import open_volume

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]

VOLUMES = {
    "particles": ("link", "particles"),
    "phases": ("phases", "phases"),
    "diffusion_length": ("diffusion", "diffusion_length"),
    "damage": ("damage", "damage"),
}
"""Volumes of `volumes.h5`: the stage that writes each, and its name in the slabs."""

CONNECTED_VOLUMES = {
    "cbd_connected": ("connected", "connected"),
    "cbd_connected26": ("connected", "connected26"),
}
"""And where carbon/binder is followed to an anchor: the codes of `cbdetach.connected`."""


@dataclass(frozen=True, eq=False)
class Tables:
    """What the slabs' shares add up to."""

    particles: pd.DataFrame
    features: pd.DataFrame
    profile: pd.DataFrame
    densities: pd.DataFrame | None  # None without a grey volume
    peaks: pd.DataFrame | None
    contacts: Contacts


def report_stage(job: Job) -> dict[str, Any]:
    """The table, the profiles, the volumes' file, the balances, the figures and the report."""
    import h5py

    contacts = merged_contacts(job)
    columns, empty = particle_columns(job, contacts)
    frame = table.assemble(columns)
    by_grey, peak_record = peaks(job)
    features = feature_frame(job, frame, contacts["measured"])
    tables = Tables(frame, features, depth_profile(job, frame), densities(job), by_grey, contacts)
    out = job.folder.path
    for name in ("particles.csv", "particles.parquet"):
        write_table(out / name, frame)
    write_json(out / "columns.json", table.data_dictionary(empty))
    write_table(out / "profiles.csv", tables.profile)
    write_features(job, features, empty)
    if tables.densities is not None:
        write_table(out / "densities.csv", tables.densities)
    named = VOLUMES | (CONNECTED_VOLUMES if job.is_connected else {})
    job.folder.write_volumes(named, job.shape, job.voxel_size)
    record = {
        "counts": counts(frame),
        "balances": balances(job, frame, contacts["measured"]),
        "empty_columns": empty,
        "volumes": named,
        "sha256": job.result("survey")["sha256"],
        "edge_width_um": job.edge_width_um,
        "thresholds": None if job.thresholds is None else job.thresholds.to_dict(),
        "phases": job.result("phases")["voxels"],
        "film_height": job.result("detachment")["film_height"],
        "segment": {k: v for k, v in job.result("segment").items() if k != "warnings"},
        "links": job.result("link")["links"],
        "connected": connected_record(job),
        **{name: job.result("diffusion")[name] for name in ("min_contact_um2", "min_piece_um3")},
        "peaks": peak_record,
    }
    with h5py.File(out / "volumes.h5", "r") as volumes:
        report.write_report(report_input(job, tables, record, volumes))
    return {"record": record, "warnings": [b["sentence"] for b in record["balances"] if not b["holds"]]}


def report_input(job: Job, tables: Tables, record: Mapping[str, Any], volumes: Mapping[str, Any]) -> report.ReportInput:
    """Everything that the report draws; `volumes` are those of `volumes.h5`."""
    import pandas as pd

    survey = job.survey
    shares = job.tables("diffusion")
    points = np.concatenate([t["path_points"] for t in shares])
    ends = np.cumsum(np.concatenate([t["path_count"] for t in shares]))
    thickness = np.sum([t["thickness"] for t in job.tables("detachment")], axis=0)
    edges = thickness_edges(job)
    run_record = job.folder.read_record() or {}
    inputs = run_record.get("input", {})
    return report.ReportInput(
        out=job.folder.path,
        title=(inputs.get("volume") or inputs["phases"])["name"],
        voxel_size=job.voxel_size,
        shape=job.shape,
        table=tables.particles,
        boxes=job.regions.bbox,
        profiles=tables.profile,
        radial=radial_profile(job),
        particles=volumes["particles"],
        phases=volumes["phases"],
        grey=job.grey,
        diffusion_length=volumes["diffusion_length"],
        damage=volumes["damage"],
        connected=record.get("connected"),
        cbd_connected=volumes.get("cbd_connected"),
        cbd_connected26=volumes.get("cbd_connected26"),
        survey=None
        if survey is None
        else survey.to_dict() | {"edge_profile": {"distance_um": survey.edge_distance_um, "grey": survey.edge_profile}},
        thresholds=None if job.thresholds is None else job.thresholds.to_dict(),
        sensitivity=sensitivity(job, tables.particles, tables.contacts),
        cbd_thickness=None
        if not thickness.any()
        else pd.DataFrame({"thickness_um": (edges[:-1] + edges[1:]) / 2, "share": thickness / thickness.sum()}),
        paths=np.split(points, ends[:-1]) if ends.size else [],
        path_labels=np.concatenate([t["path_labels"] for t in shares]).tolist(),
        balances=[
            {k: v for k, v in b.items() if k not in ("holds", "sentence")} | {"ok": b["holds"]}
            for b in record["balances"]
        ],
        warnings=run_record.get("warnings", []),
        features=tables.features,
        densities=tables.densities,
        erosion_um=job.result("density").get("erosion_um"),
        peaks=tables.peaks,
        settings=job.settings.to_toml(),
        versions=run_record.get("versions", {}),
        seed=job.settings.report.seed,
        gallery=job.settings.report.gallery,
    )


def rewrite_report(path: str | Path) -> Path:
    """Write the figures and the report of a finished run again, from what lies in its folder; the path of the page.

    The grey volume is drawn where its file is still there.
    """
    with ExitStack() as stack:
        found = stack.enter_context(Run(path))
        wanted = found.settings.input
        grey = None
        if wanted.volume is not None:
            with suppress(InputError):
                grey = stack.enter_context(open_volume(wanted.volume, crop=wanted.crop, bin=wanted.bin))
        record = found.record
        folder = RunFolder(found.path, [(z0, z1) for z0, z1 in record["slabs"]])
        z, y, x = record["shape"]
        job = Job(found.settings, folder, grey, None, None, found.voxel_size, (z, y, x))
        frame, contacts = found.table, merged_contacts(job)
        features = feature_frame(job, frame, contacts["measured"])
        tables = Tables(frame, features, depth_profile(job, frame), densities(job), peaks(job)[0], contacts)
        try:
            return report.write_report(report_input(job, tables, record, found.volumes))
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror or error}); copy the run to another place."
            ) from None


def summary(found: Run) -> str:
    """A few lines for people: how many particles, how detached, where the report lies."""
    n = found.record["counts"]
    detached = (
        found.table.loc[~found.table["touches_border"].astype(bool), "detachment_fraction"].dropna().astype(float)
    )
    low, middle, high = (detached.quantile(q) for q in (0.25, 0.5, 0.75))
    if len(detached):
        degree = f"median {middle:.2f} (quartiles {low:.2f}, {high:.2f})"
    elif n["cut"] == n["found"]:
        degree = "not known, as the border cuts every particle"
    else:
        degree = "not known, as no carbon/binder was found"
    return "\n".join(
        (
            f"{n['found']} particles; {n['cut']} cut by the border, {n['no_contact']} without contact, "
            f"{n['used']} used",
            f"degree of detachment: {degree}",
            f"report: {found.path / 'report.html'}",
        )
    )
