"""The columns of `particles.csv`, aligned with the particles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cbdetach import connected, detachment, diffusion, table
from cbdetach.gather.areas import Contacts, areas_by_class
from cbdetach.gather.cracks import damage_columns
from cbdetach.gather.grey import density_columns
from cbdetach.job import Job

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]

CONNECTED_COLUMNS = {6: "detachment_fraction_connected", 26: "detachment_fraction_connected26"}
"""Columns by how carbon/binder voxels are connected."""


def particle_columns(job: Job, contacts: Contacts) -> tuple[dict[str, Array], dict[str, str]]:
    """Every column that this run can fill, aligned with the particles, and why the others are empty."""
    regions = job.regions
    particle_contact = job.settings.detachment.particle_contact
    columns = table.geometry_columns(regions, job.shape, job.voxel_size)
    surface = {
        name: detachment.detachment_columns(share, regions.labels, particle_contact=particle_contact)
        for name, share in contacts.items()
    }
    measured = surface.pop("measured")
    columns |= {name: column for name, column in measured.items() if name in table.COLUMNS}
    columns["sphericity"] = table.sphericity(
        columns["volume_um3"], measured["surface_area_um2"], columns["touches_border"]
    )
    columns |= _diffusion_columns(job)
    columns |= damage_columns(job)
    empty: dict[str, str] = {}

    scores = _scores(job)
    if scores is None:
        empty["score"] = "the segmenter gives no scores"
    else:
        columns["score"] = scores
    if job.is_connected:
        columns |= _connected_columns(job, measured["area_particle_um2"])
    else:
        empty |= dict.fromkeys(
            CONNECTED_COLUMNS.values(), "no collector was found, and [connected] anchor names no side"
        )
    moved = [share["detachment_fraction"] for name, share in surface.items() if "tolerance" not in name]
    if moved:
        every = [columns["detachment_fraction"], *moved]
        columns |= {"detachment_fraction_low": np.min(every, axis=0), "detachment_fraction_high": np.max(every, axis=0)}
    else:
        empty |= dict.fromkeys(
            ("detachment_fraction_low", "detachment_fraction_high"),
            "phases were given: there are no thresholds to move",
        )
    if job.grey is None:
        empty |= dict.fromkeys(("density_mean", "density_std"), "no grey volume was given")
    else:
        columns |= density_columns(job)
    if not (columns["area_cbd_um2"] > 0).any():
        needs_cbd = ("detachment", "diffusion_length", "contact_ratio", "crack_ratio")
        empty |= dict.fromkeys((n for n in table.COLUMNS if n.startswith(needs_cbd)), "no carbon/binder was found")
    columns = {name: column for name, column in columns.items() if name not in empty}
    return columns, {name: empty[name] for name in table.COLUMNS if name in empty}


def _connected_columns(job: Job, area_particle: Array) -> dict[str, Array]:
    attached = job.settings.detachment.particle_contact == "attached"
    return {
        name: connected.connected_fraction(
            areas_by_class(job, connectivity),
            area_particle if attached else 0.0,
            undetermined=job.settings.connected.undetermined,
        )
        for connectivity, name in CONNECTED_COLUMNS.items()
    }


def _diffusion_columns(job: Job) -> dict[str, Array]:
    shares = job.tables("diffusion")
    names = [n for n in table.COLUMNS if n.startswith("diffusion_length")]
    columns = aligned(
        job.regions.labels, shares, [*names, "contact_ratio", "crack_ratio", "unreached_fraction", "status"]
    )
    columns["diffusion_status"] = np.array(diffusion.STATUS)[columns.pop("status").astype(np.int64)]
    return columns


def _scores(job: Job) -> Array | None:
    """Mean score of each particle's sections, nan for one that the network has not found; None without a network."""
    shares = [share for share in job.tables("link", "table/scored") if share]
    if not shares or not any(share["labels"].size for share in shares):
        return None
    held = np.concatenate([share["labels"] for share in shares])
    there = np.isin(held, job.regions.labels)  # one whose every voxel went to its neighbours is no particle
    row = np.searchsorted(job.regions.labels, held[there])
    total, count = (
        np.bincount(
            row, weights=np.concatenate([share[name] for share in shares])[there], minlength=job.regions.labels.size
        )
        for name in ("sum", "count")
    )
    return np.asarray(np.divide(total, count, out=np.full(total.size, np.nan), where=count > 0))


def aligned(labels: Array, shares: list[dict[str, Array]], names: Iterable[str]) -> dict[str, Array]:
    """Rows of shares that each hold some of the labels, in the order of `labels`; nan for labels that none holds."""
    held = np.concatenate([s["labels"] for s in shares])
    row = np.searchsorted(labels, held)
    found = {}
    for name in names:
        column = np.full(labels.size, np.nan)
        column[row] = np.concatenate([s[name] for s in shares])
        found[name] = column
    return found


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
