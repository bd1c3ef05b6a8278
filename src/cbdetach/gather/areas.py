"""What the slabs' areas add up to: by variant, by class of carbon/binder, and whether they balance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import voxkernels as vk
from cbdetach import connected, detachment
from cbdetach.codes import CBD, N_PHASES, VOID
from cbdetach.job import Job
from cbdetach.store import unpack

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]

Contacts = dict[str, vk.ContactAreas]
"""Areas of the whole volume by variant: as measured, with tolerances, with moved thresholds."""

TOLERANCES = (1, 2)
"""Contact tolerances that the report shows beside 0, in voxels."""

AREA_TOLERANCE = 0.02
"""How far the summed areas of the particles may differ from the area of all of them as one body."""


def merged_contacts(job: Job) -> Contacts:
    """Areas of the whole volume, as measured and for every variant."""
    names = ["measured", *(f"tolerance_{n}" for n in TOLERANCES), *job.variants]
    return {
        name: vk.merge_contacts([unpack(vk.ContactAreas, t) for t in job.tables("detachment", f"table/{name}")])
        for name in names
    }


def areas_by_class(job: Job, connectivity: int) -> dict[str, Array]:
    """Each particle's area under carbon/binder, by the class of `cbdetach.connected` that this belongs to."""
    shares = [unpack(vk.ContactAreas, t) for t in job.tables("detachment", "table/connected")]
    return connected.areas_by_class(vk.merge_contacts(shares), job.regions.labels, connectivity)


def connected_record(job: Job) -> dict[str, Any]:
    """The anchor, and the shares of carbon/binder by its class: of its volume, and of the surface it covers."""
    found = {k: v for k, v in job.result("connected").items() if k != "warnings"}
    if job.is_connected:
        found["undetermined"] = job.settings.connected.undetermined
        found["surface_shares"] = {}
        for connectivity in connected.CONNECTIVITIES:
            areas = areas_by_class(job, connectivity)
            total = {name: float(areas[name].sum()) for name in connected.CLASSES.values()}
            whole = sum(total.values())
            found["surface_shares"][str(connectivity)] = {k: v / whole if whole else None for k, v in total.items()}
    return found


def balances(job: Job, frame: pd.DataFrame, measured: vk.ContactAreas) -> list[dict[str, Any]]:
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
    by_phase = measured.faces.sum(axis=(0, 1))
    by_phase = np.pad(by_phase, (0, 2 * N_PHASES - by_phase.size)).reshape(2, N_PHASES).sum(axis=0)
    # All particles as one body: its normals differ from theirs where particles touch.
    electrode = vk.merge_contacts([unpack(vk.ContactAreas, t) for t in job.tables("detachment", "table/electrode")])
    for name, code in (("area_void_um2", VOID), ("area_cbd_um2", CBD)):
        both = [share.area[:, code::N_PHASES].sum() for share in (measured, electrode)]
        balance(name, float(both[0]), float(both[1]), AREA_TOLERANCE)
    if job.settings.detachment.tolerance_um == 0:
        for name, code in (("faces_void", VOID), ("faces_cbd", CBD)):
            balance(name, float(by_phase[code]), float(faces[code]), 0.0)
    return found


def sensitivity(job: Job, frame: pd.DataFrame, contacts: Contacts) -> pd.DataFrame:
    """Quartiles of detachment over the used particles: by contact tolerance (um), and by shift of each threshold."""
    import pandas as pd

    used = (~frame["touches_border"].astype(bool) & frame["detachment_fraction"].notna()).to_numpy()
    now = job.thresholds
    rows = []
    for name, share in contacts.items():
        fraction = detachment.detachment_columns(
            share, job.regions.labels, particle_contact=job.settings.detachment.particle_contact
        )["detachment_fraction"][used]
        fraction = fraction[np.isfinite(fraction)]
        if not fraction.size:
            continue
        if name == "measured":
            places = [("tolerance", job.settings.detachment.tolerance_um)]
            places += [("void_cbd", 0.0), ("cbd_active", 0.0)] if now is not None else []
        elif name.startswith("tolerance"):
            places = [("tolerance", int(name.split("_")[1]) * min(job.voxel_size))]
        else:
            moved = job.variants[name]
            assert now is not None
            kind = name.rpartition("_")[0]
            places = [(kind, getattr(moved, kind) - getattr(now, kind))]
        q1, median, q3 = np.quantile(fraction, (0.25, 0.5, 0.75))
        rows += [(kind, value, median, q1, q3, fraction.size) for kind, value in places]
    return pd.DataFrame(rows, columns=["kind", "value", "detachment_median", "q1", "q3", "n"])


def thickness_edges(job: Job) -> Array:
    """Bins of the carbon/binder thickness histogram, one voxel wide around 1 to 40 voxels, as films have whole ones."""
    return (np.arange(41) + 0.5) * min(job.voxel_size)
