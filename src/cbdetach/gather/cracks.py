"""Damage of each particle, by depth in the electrode, and by distance to the surface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cbdetach import damage, damage_layers
from cbdetach.job import Job
from cbdetach.store import unpack

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]


def damage_columns(job: Job) -> dict[str, Array]:
    """Crack and pore columns; cracks corrected by the grey that is missing."""
    columns = damage.damage_columns(_damage_share(job), job.regions.labels, job.regions.count)
    columns["crack_fraction"] *= _crack_correction(job)
    return columns


def depth_profile(job: Job, frame: pd.DataFrame) -> pd.DataFrame:
    """Damage and detachment by depth, each value with its count of particles."""
    import pandas as pd

    window_um = job.settings.damage.profile_window_um
    boxes = job.regions.bbox
    found = damage.depth_profile(
        _damage_share(job),
        boxes[:, 0],
        boxes[:, 3],
        spacing=job.voxel_size,
        profile_window_um=window_um,
        correction=(job.regions.labels, _crack_correction(job)),
    )
    low, high = found["z_from_um"], found["z_to_um"]
    profile = pd.DataFrame(
        {
            "z_um": (low + high) / 2,
            "window_um": high - low + job.voxel_size[0],
            "n_particles": found["particles"],
            "particle_volume_um3": found["particle_volume_um3"],
            "crack_fraction": found["crack_fraction"],
            "pore_fraction": found["pore_fraction"],
            "crack_area_per_volume_um": found["crack_area_per_volume_1_um"],
        }
    )
    # Detachment by the window that holds the particle's centroid, over whole particles.
    used = frame[~frame["touches_border"].astype(bool) & frame["detachment_fraction"].notna()]
    window = np.searchsorted(low, used["z_um"].to_numpy(), side="right") - 1
    grouped = used["detachment_fraction"].astype(float).groupby(window)
    profile["n_detachment"] = grouped.size().reindex(profile.index, fill_value=0)
    for name, q in (("q1", 0.25), ("median", 0.5), ("q3", 0.75)):
        profile[f"detachment_{name}"] = grouped.quantile(q).reindex(profile.index)
    # Cracks likewise: a ratio of sums over the particles of a window, with its interval.
    place = np.searchsorted(low, frame["z_um"].to_numpy(), side="right") - 1
    volume = frame["volume_um3"].to_numpy(float)
    crack = frame["crack_fraction"].to_numpy(float) * volume
    rows = [damage_layers.ratio_interval(crack[place == k], volume[place == k]) for k in range(len(profile))]
    for name, column in zip(("of_particles", "low", "high"), np.reshape(rows, (-1, 3)).T, strict=True):
        profile[f"crack_fraction_{name}"] = column
    return profile


def radial_profile(job: Job) -> pd.DataFrame:
    """Damage of the whole particles by distance to their outer surface, each value with its interval."""
    import pandas as pd

    sums, labels = (np.concatenate([t[name] for t in job.tables("damage")]) for name in ("radial", "radial_labels"))
    sums[..., 1] *= _crack_correction(job)[np.searchsorted(job.regions.labels, labels), None]
    layer_um = job.result("damage")["layer_um"]
    return pd.DataFrame(damage_layers.radial_profile(sums, spacing=job.voxel_size, layer_um=layer_um))


def _damage_share(job: Job) -> damage.DamageShare:
    return damage.merge_damage([unpack(damage.DamageShare, t) for t in job.tables("damage", "table/share")])


def _crack_correction(job: Job) -> Array:
    """What each particle's crack voxels are multiplied with to give its crack volume, by the grey that is missing."""
    shares = [t for t in job.tables("damage") if "deficit" in t]
    if not shares:
        return np.ones(job.regions.labels.size)
    held, sums = (np.concatenate([t[name] for t in shares]) for name in ("deficit_labels", "deficit"))
    return damage_layers.deficit_ratio(job.regions.labels, held, sums)
