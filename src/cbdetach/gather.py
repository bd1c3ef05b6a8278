"""What the stages' shares add up to: the table, the profile, the balances, and what the report draws."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import voxkernels as vk
from cbdetach import (
    connected,
    damage,
    damage_layers,
    density,
    detachment,
    diffusion,
    features,
    packing,
    report,
    statistics,
    table,
)
from cbdetach.codes import ACTIVE, ACTIVE_HIGH, CBD, COLLECTOR, N_PHASES, VOID
from cbdetach.errors import InputError
from cbdetach.job import Job
from cbdetach.results import Run
from cbdetach.store import RunFolder, unpack, whole_file
from cbdetach.thresholds import Thresholds
from cbdetach.volume import open_volume

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]

Contacts = dict[str, vk.ContactAreas]
"""Areas of the whole volume by variant: as measured, with tolerances, with moved thresholds."""

TOLERANCES = (1, 2)
"""Contact tolerances that the report shows beside 0, in voxels."""

AREA_TOLERANCE = 0.02
"""How far the summed areas of the particles may differ from the area of all of them as one body."""

PEAKS = {"cbd": (CBD,), "active": (ACTIVE, ACTIVE_HIGH), "collector": (COLLECTOR,)}
"""Regions whose grey peaks are measured, and the phase codes that belong to each."""

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

CONNECTED_COLUMNS = {6: "detachment_fraction_connected", 26: "detachment_fraction_connected26"}
"""Columns by how carbon/binder voxels are connected."""


def particle_columns(job: Job, contacts: Contacts) -> tuple[dict[str, Array], dict[str, str]]:
    """Every column that this run can fill, aligned with the particles, and why the others are empty."""
    regions = job.regions
    wanted = job.settings.detachment
    columns = table.geometry_columns(regions, job.shape, job.voxel_size)
    surface = {
        name: detachment.detachment_columns(share, regions.labels, particle_contact=wanted.particle_contact)
        for name, share in contacts.items()
    }
    measured = surface.pop("measured")
    columns |= {name: column for name, column in measured.items() if name in table.COLUMNS}
    columns["sphericity"] = table.sphericity(
        columns["volume_um3"], measured["surface_area_um2"], columns["touches_border"]
    )
    scores = _scores(job)
    if scores is not None:
        columns["score"] = scores
    empty = {} if scores is not None else {"score": "the segmenter gives no scores"}
    if is_connected(job):
        columns |= _connected_columns(job, measured["area_particle_um2"])
    else:
        empty |= dict.fromkeys(
            CONNECTED_COLUMNS.values(), "no collector was found, and [connected] anchor names no side"
        )
    moved = [columns["detachment_fraction"]] + [
        s["detachment_fraction"] for n, s in surface.items() if "tolerance" not in n
    ]
    if len(moved) > 1:
        columns["detachment_fraction_low"] = np.min(moved, axis=0)
        columns["detachment_fraction_high"] = np.max(moved, axis=0)
    else:
        empty |= dict.fromkeys(
            ("detachment_fraction_low", "detachment_fraction_high"),
            "phases were given: there are no thresholds to move",
        )
    columns |= _diffusion_columns(job)
    columns |= _damage_columns(job)
    if job.grey is None:
        empty |= dict.fromkeys(("density_mean", "density_std"), "no grey volume was given")
    else:
        columns |= _density_columns(job)
    if not (columns["area_cbd_um2"] > 0).any():
        names = [
            n for n in table.COLUMNS if n.startswith(("detachment", "diffusion_length", "contact_ratio", "crack_ratio"))
        ]
        for name in names:
            columns.pop(name, None)
            empty[name] = "no carbon/binder was found"
    return columns, {name: empty[name] for name in table.COLUMNS if name in empty}


def merged_contacts(job: Job) -> Contacts:
    """Areas of the whole volume, as measured and for every variant."""
    names = ["measured", *(f"tolerance_{n}" for n in TOLERANCES), *threshold_variants(job)]
    return {
        name: vk.merge_contacts([unpack(vk.ContactAreas, t) for t in job.tables("detachment", f"table/{name}")])
        for name in names
    }


def is_connected(job: Job) -> bool:
    """Whether carbon/binder was followed to an anchor."""
    return "volume_shares" in job.result("connected")


def _classes_of_areas(job: Job, connectivity: int) -> dict[str, Array]:
    shares = [unpack(vk.ContactAreas, t) for t in job.tables("detachment", "table/connected")]
    return connected.areas_by_class(vk.merge_contacts(shares), job.regions.labels, connectivity)


def _connected_columns(job: Job, area_particle: Array) -> dict[str, Array]:
    attached = job.settings.detachment.particle_contact == "attached"
    return {
        name: connected.connected_fraction(
            _classes_of_areas(job, connectivity),
            area_particle if attached else 0.0,
            undetermined=job.settings.connected.undetermined,
        )
        for connectivity, name in CONNECTED_COLUMNS.items()
    }


def connected_record(job: Job) -> dict[str, Any]:
    """The anchor, and the shares of carbon/binder by its class: of its volume, and of the surface it covers."""
    found = {k: v for k, v in job.result("connected").items() if k != "warnings"}
    if is_connected(job):
        found["undetermined"] = job.settings.connected.undetermined
        found["surface_shares"] = {}
        for connectivity in connected.CONNECTIVITIES:
            areas = _classes_of_areas(job, connectivity)
            total = {name: float(areas[name].sum()) for name in connected.CLASSES.values()}
            whole = sum(total.values())
            found["surface_shares"][str(connectivity)] = {k: v / whole if whole else None for k, v in total.items()}
    return found


def _aligned(labels: Array, shares: list[dict[str, Array]], names: Iterable[str]) -> dict[str, Array]:
    """Rows of shares that each hold some of the labels, in the order of `labels`; nan for labels that none holds."""
    held = np.concatenate([s["labels"] for s in shares])
    row = np.searchsorted(labels, held)
    found = {}
    for name in names:
        column = np.full(labels.size, np.nan)
        column[row] = np.concatenate([s[name] for s in shares])
        found[name] = column
    return found


def _diffusion_columns(job: Job) -> dict[str, Array]:
    shares = job.tables("diffusion")
    names = [n for n in table.COLUMNS if n.startswith("diffusion_length")]
    columns = _aligned(
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


def _damage_share(job: Job) -> damage.DamageShare:
    return damage.merge_damage([unpack(damage.DamageShare, t) for t in job.tables("damage", "table/share")])


def _crack_correction(job: Job) -> Array:
    """What each particle's crack voxels are multiplied with to give its crack volume, by the grey that is missing."""
    shares = [t for t in job.tables("damage") if "deficit" in t]
    if not shares:
        return np.ones(job.regions.labels.size)
    held, sums = (np.concatenate([t[name] for t in shares]) for name in ("deficit_labels", "deficit"))
    return damage_layers.deficit_ratio(job.regions.labels, held, sums)


def _damage_columns(job: Job) -> dict[str, Array]:
    columns = damage.damage_columns(_damage_share(job), job.regions.labels, job.regions.count)
    columns["crack_fraction"] *= _crack_correction(job)
    return columns


def radial_profile(job: Job) -> pd.DataFrame:
    """Damage of the whole particles by distance to their outer surface, each value with its interval."""
    import pandas as pd

    sums, labels = (np.concatenate([t[name] for t in job.tables("damage")]) for name in ("radial", "radial_labels"))
    sums[..., 1] *= _crack_correction(job)[np.searchsorted(job.regions.labels, labels), None]
    layer_um = job.result("damage")["layer_um"]
    return pd.DataFrame(damage_layers.radial_profile(sums, spacing=job.voxel_size, layer_um=layer_um))


def _eroded_grey(job: Job) -> density.ErodedGrey:
    shares = [unpack(vk.RegionProperties, t) for t in job.tables("density", "table/shells")]
    depths = job.result("density")["depths_um"]
    return density.eroded_grey(vk.merge_regions(shares), job.regions.labels, len(depths))


def _density_columns(job: Job) -> dict[str, Array]:
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


def feature_table(job: Job, columns: Mapping[str, Array], measured: vk.ContactAreas) -> dict[str, Array]:
    """Every column of `features.csv`, aligned with the particles."""
    result, wanted = job.result("features"), job.settings.features
    shares = job.tables("features", "table/surfaces")
    surfaces = _aligned(job.regions.labels, shares, [name for name in shares[0] if name != "labels"])
    cell = tuple(result["packing_cell"])
    cells = packing.join_cells(
        [(int(t["first"]), t["counts"]) for t in job.tables("features", "table/cells")], -(-job.shape[0] // cell[0])
    )
    packed = packing.packing(
        cells,
        (cell[0], cell[1], cell[2]),
        job.regions.centroid,
        side_um=wanted.neighbourhood_um,
        shape=job.shape,
        spacing=job.voxel_size,
    )
    return features.feature_columns(
        job.regions,
        columns,
        measured,
        surfaces,
        packed,
        shape=job.shape,
        spacing=job.voxel_size,
        min_contact_um2=result["min_contact_um2"],
    )


def feature_frame(job: Job, frame: pd.DataFrame, measured: vk.ContactAreas) -> pd.DataFrame:
    """The table of features, row by row as that of the particles."""
    import pandas as pd

    return pd.DataFrame(feature_table(job, {str(name): frame[name].to_numpy() for name in frame}, measured))


def write_features(job: Job, found: pd.DataFrame, reasons: Mapping[str, str]) -> None:
    """`features.csv` and `.parquet`, and `features.json`: units, meanings, and the settings that they depend on."""
    out = job.folder.path
    content = {
        "columns": features.feature_dictionary({str(n): found[n].to_numpy() for n in found}, reasons),
        "settings": job.result("features") | {"neighbourhood_um": job.settings.features.neighbourhood_um},
    }
    content["settings"].pop("warnings")
    with whole_file(out / "features.csv") as temporary:
        found.to_csv(temporary, index=False, float_format="%.9g", lineterminator="\n")
    with whole_file(out / "features.parquet") as temporary:
        found.to_parquet(temporary, index=False)
    with whole_file(out / "features.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def peak_edges(job: Job) -> Array:
    """Bins of the peaks' histograms: those of the survey, so many together that about a thousand are left."""
    assert job.survey is not None
    edges = job.survey.edges
    step = -(-(edges.size - 1) // 1024)
    return np.append(edges[:-1:step], edges[0] + (edges[1] - edges[0]) * step * (-(-(edges.size - 1) // step)))


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
            moved = threshold_variants(job)[name]
            assert now is not None
            kind = name.rpartition("_")[0]
            places = [(kind, getattr(moved, kind) - getattr(now, kind))]
        q1, median, q3 = np.quantile(fraction, (0.25, 0.5, 0.75))
        rows += [(kind, value, median, q1, q3, fraction.size) for kind, value in places]
    return pd.DataFrame(rows, columns=["kind", "value", "detachment_median", "q1", "q3", "n"])


def report_input(
    job: Job,
    frame: pd.DataFrame,
    profile: pd.DataFrame,
    contacts: Contacts,
    record: Mapping[str, Any],
    volumes: Mapping[str, Any],
) -> report.ReportInput:
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
        table=frame,
        boxes=job.regions.bbox,
        profiles=profile,
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
        sensitivity=sensitivity(job, frame, contacts),
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
        features=feature_frame(job, frame, contacts["measured"]),
        densities=densities(job),
        erosion_um=job.result("density").get("erosion_um"),
        peaks=peaks(job)[0],
        settings=job.settings.to_toml(),
        versions=run_record.get("versions", {}),
        seed=job.settings.report.seed,
        gallery=job.settings.report.gallery,
    )


def summary(found: Run) -> str:
    """A few lines for people: how many particles, how detached, where the report lies."""
    n = found.record["counts"]
    detached = (
        found.table.loc[~found.table["touches_border"].astype(bool), "detachment_fraction"].dropna().astype(float)
    )
    lines = [
        f"{n['found']} particles; {n['cut']} cut by the border, {n['no_contact']} without contact, {n['used']} used",
        f"degree of detachment: median {detached.median():.2f} (quartiles {detached.quantile(0.25):.2f}, "
        f"{detached.quantile(0.75):.2f})"
        if len(detached)
        else "degree of detachment: not known, as no carbon/binder was found",
        f"report: {found.path / 'report.html'}",
    ]
    return "\n".join(lines)


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


def threshold_variants(job: Job) -> dict[str, Thresholds]:
    """The thresholds moved to the ends of their bands, one at a time; none where phases were given."""
    return {} if job.thresholds is None else job.thresholds.variants()


def thickness_edges(job: Job) -> Array:
    """Bins of the carbon/binder thickness histogram, one voxel wide around 1 to 40 voxels, as films have whole ones."""
    return (np.arange(41) + 0.5) * min(job.voxel_size)


def report_stage(job: Job) -> dict[str, Any]:
    """The table, the profiles, the volumes' file, the balances, the figures and the report."""
    import h5py

    contacts = merged_contacts(job)
    columns, empty = particle_columns(job, contacts)
    frame = table.assemble(columns)
    profile = depth_profile(job, frame)
    out = job.folder.path
    with whole_file(out / "particles.csv") as temporary:
        frame.to_csv(temporary, index=False, float_format="%.9g", lineterminator="\n")
    with whole_file(out / "particles.parquet") as temporary:
        frame.to_parquet(temporary, index=False)
    with whole_file(out / "columns.json") as temporary:
        temporary.write_text(json.dumps(table.data_dictionary(empty), indent=1, ensure_ascii=False) + "\n", "utf-8")
    with whole_file(out / "profiles.csv") as temporary:
        profile.to_csv(temporary, index=False, float_format="%.9g", lineterminator="\n")
    write_features(job, feature_frame(job, frame, contacts["measured"]), empty)
    by_depth = densities(job)
    if by_depth is not None:
        with whole_file(out / "densities.csv") as temporary:
            by_depth.to_csv(temporary, index=False, float_format="%.9g", lineterminator="\n")
    named = VOLUMES | (CONNECTED_VOLUMES if is_connected(job) else {})
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
        "min_contact_um2": job.result("diffusion")["min_contact_um2"],
        "peaks": peaks(job)[1],
    }
    with h5py.File(out / "volumes.h5", "r") as volumes:
        report.write_report(report_input(job, frame, profile, contacts, record, volumes))
    return {"record": record, "warnings": [b["sentence"] for b in record["balances"] if not b["holds"]]}


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
        frame = found.table
        return report.write_report(
            report_input(job, frame, depth_profile(job, frame), merged_contacts(job), record, found.volumes)
        )
