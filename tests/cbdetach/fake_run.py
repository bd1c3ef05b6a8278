"""A made-up run: balls in a box, some coated, cracked or bare, with plausible numbers. Enough for a report, no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial import cKDTree

from cbdetach import codes
from cbdetach.damage_layers import LAYERS, radial_profile
from cbdetach.report import ReportInput
from cbdetach.table import COLUMNS

VOXEL = (0.3, 0.2, 0.2)


def fake_run(out: Path, *, n: int = 40, shape: tuple[int, int, int] = (56, 80, 84), seed: int = 1) -> ReportInput:
    """About `n` balls (fewer if they do not fit) with patches of carbon/binder."""
    rng = np.random.default_rng(seed)
    voxel = np.asarray(VOXEL)
    extent = np.asarray(shape) * voxel
    wanted = np.sort((0.55 * np.prod(extent) / n * 6 / np.pi) ** (1 / 3) * rng.lognormal(-0.12, 0.3, n) / 2)[::-1]
    centres, radii = _packed(rng, wanted, extent)
    particles, phases, mouth_share = _painted(rng, centres, radii, shape, voxel)
    table, boxes, length, paths = _measured(rng, particles, phases, extent, voxel)
    classes = [_classes((phases == codes.CBD) & (particles == 0), rank) for rank in (1, 3)]
    grey = np.array([9000, 21000, 43000, 47000, 31000])[phases] * 1.0
    grey = ndimage.gaussian_filter(grey, 0.8) + rng.normal(0, 1500, shape)
    counts, edges = np.histogram(grey, 400)
    distance = np.linspace(-1, 1, 21)
    used = table["detachment_fraction"][~table["touches_border"]].dropna()
    q1, median, q3 = used.quantile([0.25, 0.5, 0.75]) if len(used) else (np.nan,) * 3
    shifts = np.linspace(-3000, 3000, 7)
    steps = np.array([0, 0.2, 0.4])
    sensitivity = pd.DataFrame(
        [("void_cbd", v, median + v / 3e4, q1 + v / 3e4, q3 + v / 3e4, len(used)) for v in shifts]
        + [("cbd_active", v, median + v / 9e4, q1 + v / 9e4, q3 + v / 9e4, len(used)) for v in shifts]
        + [("tolerance", v, median * (1 - v), q1 * (1 - v), q3 * (1 - v), len(used)) for v in steps],
        columns=["kind", "value", "detachment_median", "q1", "q3", "n"],
    )
    thickness = (np.arange(20) + 0.5) * 0.1
    density = pd.concat(
        [
            pd.DataFrame({"label": table["label"], "erosion_um": d, "density_mean": rng.normal(43000, 500, len(table))})
            for d in (0.0, 0.4, 0.8)
        ],
        ignore_index=True,
    )
    table["density_mean"] = density["density_mean"].to_numpy()[: len(table)]
    peaks = pd.concat(
        [
            pd.DataFrame(
                {"phase": name, "grey": edges[:-1], "voxels": np.histogram(rng.normal(at, 1500, 4000), edges)[0]}
            )
            for name, at in (("cbd", 21000), ("active", 43000))
        ],
        ignore_index=True,
    )
    return ReportInput(
        out=out,
        title="made-up balls.h5:/grey",
        voxel_size=VOXEL,
        shape=shape,
        table=table,
        boxes=boxes,
        profiles=_profile(table, extent[0]),
        particles=particles,
        phases=phases,
        grey=grey.astype(np.float32),
        diffusion_length=length,
        damage=np.where(particles > 0, ndimage.gaussian_filter((grey < 30000).astype(np.float32), 3), np.nan),
        connected={
            "anchor": "z0",
            "undetermined": "apart",
            "volume_shares": {
                str(c): dict(zip(("connected", "undetermined", "isolated"), _shares(k), strict=True))
                for c, k in zip((6, 26), classes, strict=True)
            },
        },
        cbd_connected=classes[0],
        cbd_connected26=classes[1],
        survey={
            "counts": counts.tolist(),
            "edges": edges.tolist(),
            "edge_width_um": 0.42,
            "edge_rays": 1234,
            "region_edges": np.linspace(edges[0], edges[-1], 101).tolist(),
            "region_slices": [[0, 28], [28, shape[0]]],
            "region_counts": np.tile(counts.reshape(100, 4).sum(1) // 8, (2, 4, 1)).tolist(),
            "edge_profile": {"distance_um": distance.tolist(), "grey": (0.5 - 0.5 * np.tanh(4 * distance)).tolist()},
        },
        thresholds={
            "void_cbd": 15000.0,
            "cbd_active": 32000.0,
            "means": [9000.0, 21000.0, 43000.0],
            "sds": [1700.0, 2300.0, 2000.0],
            "weights": list(np.bincount(np.minimum(phases.ravel(), 2), minlength=3) / phases.size),
            "void_cbd_band": [14000.0, 16000.0],
            "cbd_active_band": [30500.0, 33500.0],
            "method": "mixture",
        },
        sensitivity=sensitivity,
        cbd_thickness=pd.DataFrame(
            {"thickness_um": thickness, "share": np.exp(-(((thickness - 0.6) / 0.25) ** 2)) / 4.4}
        ),
        densities=density,
        erosion_um=0.4,
        peaks=peaks,
        radial=_radial(),
        paths=paths[0],
        path_labels=paths[1],
        balances=[
            {"name": "volume of particles, um3", "left": 123.4, "right": 123.4, "difference": 0.0, "ok": True},
            {
                "name": "surface that faces carbon/binder, um2",
                "left": 50.0,
                "right": 51.0,
                "difference": 0.02,
                "ok": False,
            },
        ],
        warnings=[f"{mouth_share} particles are cracked open."],
        settings='[detachment]\nestimator = "weighted"\ntolerance_um = 0.0\n\n[report]\nseed = 3\ngallery = 20\n',
        versions={"cbdetach": "0.1.0", "numpy": "2.0"},
        seed=3,
    )


def without_cbd(run: ReportInput) -> ReportInput:
    """The same run, had its volume held no carbon/binder."""
    table = run.table.copy()
    for column in COLUMNS:
        if column.startswith(("detachment", "diffusion_length", "contact_ratio", "crack_ratio")):
            table[column] = np.nan
    table["diffusion_status"] = "no_contact"
    table["area_cbd_um2"] = 0.0
    profiles = run.profiles.assign(detachment_median=np.nan)
    phases = np.where(run.phases == codes.CBD, codes.VOID, run.phases).astype(np.uint8)
    return replace(
        run,
        table=table,
        profiles=profiles,
        phases=phases,
        diffusion_length=None,
        connected={"anchor": None},
        cbd_connected=None,
        cbd_connected26=None,
        sensitivity=None,
        cbd_thickness=None,
        paths=(),
        path_labels=(),
    )


def phases_only(run: ReportInput) -> ReportInput:
    """The same run from given phases."""
    kinds = run.sensitivity
    assert kinds is not None
    return replace(
        run,
        table=run.table.assign(density_mean=np.nan),
        densities=None,
        peaks=None,
        grey=None,
        survey=None,
        thresholds=None,
        sensitivity=kinds[kinds["kind"] == "tolerance"],
    )


def _classes(cbd: np.ndarray, rank: int) -> np.ndarray:
    """1 where carbon/binder leads to z0, 2 where it leaves by another side, 3 where it ends in the volume; else 0."""
    parts, n = ndimage.label(cbd, ndimage.generate_binary_structure(3, rank))
    kind = np.full(n + 1, 3, np.uint8)
    for layer in (parts[-1], parts[:, 0], parts[:, -1], parts[:, :, 0], parts[:, :, -1]):
        kind[layer] = 2
    kind[parts[0]] = 1
    kind[0] = 0
    return kind[parts]


def _shares(kind: np.ndarray) -> np.ndarray:
    return np.bincount(kind[kind > 0], minlength=4)[1:] / max(np.count_nonzero(kind), 1)


def _packed(rng: np.random.Generator, radii: np.ndarray, extent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Balls put down in turn, where they do not overlap those that lie already."""
    centres, placed = np.zeros((0, 3)), np.zeros(0)
    for radius in radii:
        tries = rng.uniform(0, extent, (300, 3))
        gap = np.linalg.norm(tries[:, None] - centres, axis=2) - placed - radius if len(centres) else np.ones((300, 1))
        good = np.flatnonzero(gap.min(axis=1) > -0.02 * radius)
        if good.size:
            centres, placed = np.vstack([centres, tries[good[0]]]), np.append(placed, radius)
    return centres, placed


def _painted(
    rng: np.random.Generator, centres: np.ndarray, radii: np.ndarray, shape: tuple[int, int, int], voxel: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    at = np.stack(np.indices(shape), axis=-1) * voxel
    _, near = cKDTree(centres).query(at.reshape(-1, 3), k=min(6, len(centres)))
    near = near.reshape(*shape, -1)
    depth = np.stack(
        [np.linalg.norm(at - centres[near[..., k]], axis=-1) - radii[near[..., k]] for k in range(near.shape[-1])],
        axis=-1,
    )
    best = depth.argmin(axis=-1)[..., None]
    owner, depth = np.take_along_axis(near, best, -1)[..., 0], np.take_along_axis(depth, best, -1)[..., 0]
    inside = depth <= 0
    particles = np.where(inside, owner + 1, 0).astype(np.int32)
    towards = at - centres[owner]
    unit = towards / np.maximum(np.linalg.norm(towards, axis=-1, keepdims=True), 1e-9)
    axes = rng.normal(size=(2, len(radii), 3))
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    reach = rng.uniform(-0.5, 0.9, len(radii))
    reach[rng.random(len(radii)) < 0.08] = 2.0
    coated = ((unit * axes[0][owner]).sum(-1) > reach[owner]) | (
        (unit * axes[1][owner]).sum(-1) > 0.6 + 0.4 * reach[owner]
    )
    phases = np.where(inside, codes.ACTIVE, np.where(coated & (depth < 0.6), codes.CBD, codes.VOID)).astype(np.uint8)
    cracked = rng.random(len(radii)) < 0.35
    plane = rng.normal(size=(len(radii), 3))
    plane /= np.linalg.norm(plane, axis=-1, keepdims=True)
    slit = np.abs((towards * plane[owner]).sum(-1)) < 0.22
    open_side = (towards * np.roll(plane, 1, axis=1)[owner]).sum(-1) > -0.2 * radii[owner]
    phases[inside & slit & open_side & cracked[owner]] = codes.VOID
    return particles, phases, int(cracked.sum())


def _measured(
    rng: np.random.Generator, particles: np.ndarray, phases: np.ndarray, extent: np.ndarray, voxel: np.ndarray
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, tuple[list[np.ndarray], list[int]]]:
    labels = np.unique(particles[particles > 0])
    found = ndimage.find_objects(particles)
    boxes = np.array([[s.start for s in found[k - 1]] + [s.stop for s in found[k - 1]] for k in labels])
    count = np.bincount(particles.ravel())[labels]
    volume = count * voxel.prod()
    diameter = np.cbrt(6 * volume / np.pi)
    centre = np.array(ndimage.center_of_mass(particles > 0, particles, labels)) * voxel
    cut = (boxes[:, :3] == 0).any(1) | (boxes[:, 3:] == particles.shape).any(1)
    area = np.zeros((labels[-1] + 1, 3))
    for axis in range(3):
        for step in (1, -1):
            face = (particles > 0) & (np.roll(particles, step, axis) == 0)
            np.add.at(area, (particles[face], np.roll(phases, step, axis)[face]), voxel.prod() / voxel[axis] / 1.5)
    area = area[labels]
    solid = (particles > 0) & (phases == codes.ACTIVE)
    if (phases == codes.CBD).any():
        distance, nearest = ndimage.distance_transform_edt(phases != codes.CBD, sampling=voxel, return_indices=True)
    else:
        distance, nearest = np.full(phases.shape, np.inf), np.zeros((3, *phases.shape), dtype=int)
    length = np.where(solid, distance, np.nan).astype(np.float32)
    bare = labels[area[:, 1] == 0]
    length[np.isin(particles, bare) & solid] = np.inf
    finite = np.where(np.isfinite(length), length, 0)
    mean, largest = ndimage.mean(finite, particles, labels), ndimage.maximum(finite, particles, labels)
    touched = ~np.isin(labels, bare)
    paths, owners = [], []
    for label, where in zip(labels, ndimage.maximum_position(finite, particles, labels), strict=True):
        if label not in bare:
            end = nearest[(slice(None), *where)]
            paths.append(np.linspace(where, end, 30))
            owners.append(int(label))
    room = np.prod(1 - np.minimum((boxes[:, 3:] - boxes[:, :3]) * voxel / extent, 0.999), axis=1)
    cracks = 1 - np.bincount(particles[solid], minlength=labels[-1] + 1)[labels] / count
    detachment = area[:, 0] / np.maximum(area[:, :2].sum(1), 1e-9)
    detachment[area[:, :2].sum(1) == 0] = np.nan
    columns = {
        "label": labels.astype(np.int64),
        "z_um": centre[:, 0],
        "y_um": centre[:, 1],
        "x_um": centre[:, 2],
        "volume_um3": volume,
        "equivalent_diameter_um": diameter,
        "surface_area_um2": area.sum(1),
        "sphericity": rng.uniform(0.9, 1, labels.size),
        "elongation": rng.uniform(1, 1.3, labels.size),
        "touches_border": cut,
        "inclusion_weight": np.where(cut, 0.0, 1 / room),
        "area_cbd_um2": area[:, 1],
        "area_void_um2": area[:, 0],
        "area_particle_um2": area[:, 2] * 0,
        "contact_known_fraction": 0.9,
        "unresolved_fraction": 0.02,
        "detachment_fraction": detachment,
        "detachment_fraction_low": detachment * 0.9,
        "detachment_fraction_high": np.minimum(detachment * 1.1, 1),
        "detachment_fraction_connected": np.minimum(detachment * 1.3, 1),
        "detachment_fraction_connected26": np.minimum(detachment * 1.05, 1),
        "diffusion_length_mean_um": np.where(touched, mean, np.nan),
        "diffusion_length_max_um": np.where(touched, largest, np.nan),
        "contact_ratio": np.where(touched, rng.uniform(1, 3, labels.size), np.nan),
        "crack_ratio": 1.05,
        "unreached_fraction": np.where(touched, 0.0, 1.0),
        "diffusion_status": np.where(touched, "reached", "no_contact"),
        "crack_fraction": cracks,
        "pore_fraction": 0.0,
        "crack_area_um2": cracks * 10,
    }
    table = pd.DataFrame({name: columns.get(name, np.full(labels.size, np.nan)) for name in COLUMNS})
    return table, boxes, length, (paths, owners)


def _profile(table: pd.DataFrame, depth: float, window: float = 3.0) -> pd.DataFrame:
    at = (table["z_um"] // window).astype(int)
    rows = table.groupby(at).agg(n_particles=("label", "size"), crack_fraction=("crack_fraction", "mean"))
    used = table[~table["touches_border"] & table["detachment_fraction"].notna()].groupby(at)["detachment_fraction"]
    rows = rows.reindex(range(int(depth // window) + 1))
    rows["n_particles"] = rows["n_particles"].fillna(0).astype(int)
    rows["n_detachment"] = used.size().reindex(rows.index, fill_value=0)
    for name, q in (("q1", 0.25), ("median", 0.5), ("q3", 0.75)):
        rows[f"detachment_{name}"] = used.quantile(q).reindex(rows.index)
    rows.insert(0, "z_um", (rows.index + 0.5) * window)
    rows.insert(1, "window_um", window)
    return rows.reset_index(drop=True)


def _radial() -> pd.DataFrame:
    """Cracks that grow towards the surface, pores in the middle."""
    sums = np.zeros((9, LAYERS, 4))
    for layer, voxels in enumerate((4000, 2500, 1200, 400, 60)):
        sums[:, layer, 0] = voxels
        sums[:, layer, 1] = voxels * (0.05 - 0.01 * layer) * np.linspace(0.5, 1.5, 9)
        sums[:, layer, 2] = voxels * 0.02 * layer
        sums[:, layer, 3] = sums[:, layer, 1] * 0.04
    return pd.DataFrame(radial_profile(sums, spacing=VOXEL, layer_um=0.6))
