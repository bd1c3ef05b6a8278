"""Cracks and pores of a run, slab by slab, and what of them needs whole particles."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach import damage, damage_layers, damage_map, detachment
from cbdetach.job import Job
from cbdetach.store import pack

Array = npt.NDArray[Any]


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
        surface = damage_map.crack_density(labels, codes, spacing=size)
        layers = _damage_layers(job, index, labels, codes, surface, w0, layer, void)
        near = slice(h0 - w0, h1 - w0)
        labels, codes = labels[near], codes[near]
        core = (z0 - h0, z1 - h0)
        share = damage.measure_damage(
            labels, codes, spacing=size, core=core, z0=h0, profile_window_um=wanted.profile_window_um
        )
        degree = damage_map.damage_map(labels, codes, spacing=size, window_um=window, density=surface[near])
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
    job: Job, index: int, labels: Array, codes: Array, surface: Array, w0: int, layer_um: float, void: float | None
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
            labels, codes, whole, shifted, spacing=job.voxel_size, layer_um=layer_um, density=surface
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
