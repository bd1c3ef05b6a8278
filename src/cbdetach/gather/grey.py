"""Grey values deep inside particles and phases: densities, and the peaks of the phases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import voxkernels as vk
from cbdetach import density, statistics
from cbdetach.codes import ACTIVE, ACTIVE_HIGH, CBD, COLLECTOR
from cbdetach.job import Job
from cbdetach.store import unpack

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]

PEAKS = {"cbd": (CBD,), "active": (ACTIVE, ACTIVE_HIGH), "collector": (COLLECTOR,)}
"""Regions whose grey peaks are measured, and the phase codes that belong to each."""


def density_columns(job: Job) -> dict[str, Array]:
    """Density columns at the depth of erosion that the settings ask for."""
    result = job.result("density")
    at = result["depths_um"].index(result["erosion_um"])
    return density.density_columns(_eroded_grey(job), at, calibration=job.settings.density.calibration)


def densities(job: Job) -> pd.DataFrame | None:
    """Density of every particle by the depth from which the grey value counts; None without a grey volume."""
    import pandas as pd

    depths = job.result("density").get("depths_um")
    if depths is None:
        return None
    eroded = _eroded_grey(job)
    frames = []
    for k, depth in enumerate(depths):
        columns = density.density_columns(eroded, k, calibration=job.settings.density.calibration)
        frames.append(
            pd.DataFrame({"label": job.regions.labels, "erosion_um": depth, **columns, "voxels": eroded.count[:, k]})
        )
    return pd.concat(frames, ignore_index=True)


def _eroded_grey(job: Job) -> density.ErodedGrey:
    shares = [unpack(vk.RegionProperties, t) for t in job.tables("density", "table/shells")]
    depths = job.result("density")["depths_um"]
    return density.eroded_grey(vk.merge_regions(shares), job.regions.labels, len(depths))


def peaks(job: Job) -> tuple[pd.DataFrame | None, dict[str, Any]]:
    """Histograms deep inside each phase (phase, grey, voxels), and where their peaks are and how wide."""
    import pandas as pd

    if job.grey is None and job.result("density").get("depths_um") is None:
        return None, {}
    shares = job.tables("density", "table/peaks")
    edges = peak_edges(job)
    middle, _ = density.to_density((edges[:-1] + edges[1:]) / 2, np.zeros(1), job.settings.density.calibration)
    frames, found = [], {}
    for name in PEAKS:
        counts = np.sum([share[name] for share in shares], axis=0)
        peak = statistics.peak_of(*((middle, counts) if middle[-1] > middle[0] else (middle[::-1], counts[::-1])))
        found[name] = {
            "voxels": int(counts.sum()),
            "position": None if peak is None else peak.position,
            "fwhm": None if peak is None else peak.width,
        }
        held = np.flatnonzero(counts)
        if held.size:
            part = slice(held[0], held[-1] + 1)
            frames.append(pd.DataFrame({"phase": name, "grey": middle[part], "voxels": counts[part]}))
    return pd.concat(frames, ignore_index=True) if frames else None, found


def peak_edges(job: Job) -> Array:
    """Bins of the peaks' histograms: those of the survey, so many together that about a thousand are left."""
    assert job.survey is not None
    edges = job.survey.edges
    step = -(-(edges.size - 1) // 1024)
    return np.append(edges[:-1:step], edges[0] + (edges[1] - edges[0]) * step * (-(-(edges.size - 1) // step)))
