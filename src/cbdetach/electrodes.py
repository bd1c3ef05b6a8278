"""The electrodes that a comparison is of: finished runs, what they are of, and whether they can be compared.

Rates, cycles and states of charge come from a table or from the runs' own settings. Runs that name the same electrode
are several volumes of one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cbdetach.errors import InputError, called
from cbdetach.files import read_csv
from cbdetach.report import comparison
from cbdetach.results import Run

if TYPE_CHECKING:
    import pandas as pd

GROUPINGS = ("rate", "cycles", "state_of_charge")
"""What electrodes can be told apart by."""

VOXEL_SIZE_MARGIN, BLUR_MARGIN = 1.01, 1.2
"""Ratios of the largest to the smallest from which a warning is due."""


@dataclass(frozen=True)
class Electrode:
    """One electrode: what it is, and the particles of its volumes."""

    name: str
    about: Mapping[str, float]  # rate (1/h), cycles, state_of_charge; nan where unknown
    tables: Sequence[pd.DataFrame]  # particles.csv of each volume
    densities: Sequence[pd.DataFrame] = ()  # densities.csv of each volume that has one
    peaks: Mapping[str, Any] = field(default_factory=dict)  # run.json's peaks, of the first volume
    runs: Sequence[str] = ()


def parse_rate(text: str | float) -> float:
    """Charges per hour: "C/10" is 0.1, "5C" is 5, "1" is 1."""
    if isinstance(text, (int, float)):
        value = float(text)
    else:
        plain = text.strip().upper().replace(" ", "")
        try:
            if plain.startswith("C/"):
                value = 1 / float(plain[2:])
            else:
                value = 1.0 if plain == "C" else float(plain.removesuffix("C"))
        except (ValueError, ZeroDivisionError):
            raise InputError(f"rate: must read like C/10, 1C or 0.1; got {text!r}.") from None
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"rate: must be a positive number of charges per hour; got {text!r}.")
    return value


def read_metadata(path: str | Path) -> dict[str, dict[str, Any]]:
    """A table of what runs are of, by the run's folder or its name: columns run, electrode, rate, cycles,
    state_of_charge; all but `run` may be left out, and cells may be empty."""
    frame = read_csv(path, "--metadata", as_text=True)
    known = {"run", "electrode", *GROUPINGS}
    if "run" not in frame or set(frame.columns) - known:
        raise InputError(
            f"--metadata: {path} must have a column run, and may have electrode, rate, cycles and state_of_charge; "
            f"got {', '.join(map(str, frame.columns))}."
        )
    twice = frame["run"][frame["run"].duplicated()]
    if len(twice):
        raise InputError(f"--metadata: {path} must name each run once; got {twice.iloc[0]} twice.")
    rows: dict[str, dict[str, Any]] = {}
    for row in frame.to_dict("records"):
        rows[str(row["run"]).strip()] = {
            str(k): str(v).strip() for k, v in row.items() if k != "run" and isinstance(v, str) and v.strip()
        }
    return rows


def read_cycling(path: str | Path) -> pd.DataFrame:
    """Capacity against cycle (Suppl. Fig. 5): columns cycle and capacity (any unit), and one of electrode or rate."""
    frame = read_csv(path, "--cycling")
    who = [name for name in ("electrode", "rate") if name in frame]
    if not {"cycle", "capacity"} <= set(frame.columns) or len(who) != 1:
        raise InputError(
            f"--cycling: {path} must have the columns cycle, capacity and one of electrode or rate; "
            f"got {', '.join(map(str, frame.columns))}."
        )
    for name in ("cycle", "capacity"):
        if frame[name].dtype.kind not in "iuf" or frame[name].isna().any():
            raise InputError(f"--cycling: {path}: {name} must be a number in every row; check the column.")
    series = frame[who[0]]
    with called(f"--cycling: {path}: rate", was="rate"):
        frame["series"] = (
            series.astype(str) if who[0] == "electrode" else [comparison.shown("rate", parse_rate(v)) for v in series]
        )
    return frame[["series", "cycle", "capacity"]]


def _about(given: Mapping[str, Any], where: str) -> dict[str, float]:
    """rate, cycles and state of charge as numbers, nan where not given."""
    found = {"rate": math.nan, "cycles": math.nan, "state_of_charge": math.nan}
    for name in GROUPINGS:
        value = given.get(name)
        if value is None:
            continue
        try:
            found[name] = parse_rate(value) if name == "rate" else float(value)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        except ValueError:
            raise InputError(f"{where}: {name} must be a number; got {value!r}.") from None
    if found["cycles"] < 0:
        raise InputError(f"{where}: cycles must be 0 or more; got {found['cycles']:g}.")
    if not (math.isnan(found["state_of_charge"]) or 0 <= found["state_of_charge"] <= 1):
        raise InputError(f"{where}: state_of_charge must be 0 to 1; got {found['state_of_charge']:g}.")
    return found


def read_electrodes(
    paths: Sequence[str | Path], metadata: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[list[Electrode], list[dict[str, Any]]]:
    """The electrodes that the runs are of, and a few words on each run: name, voxel size, blur, how it was measured."""
    import pandas as pd

    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise InputError("RUN: must be different folders; one of them is given twice.")
    found: dict[str, dict[str, Any]] = {}
    runs: list[dict[str, Any]] = []
    for path in paths:
        with Run(path) as run:
            own = run.record["settings"].get("metadata", {})
            name = _short_name(run.path, [Path(p) for p in paths])
            given: dict[str, Any] = {k: v for k, v in own.items() if v is not None}
            if metadata is not None:
                row = next((metadata[k] for k in (str(path), name, run.path.name) if k in metadata), None)
                if row is None:
                    raise InputError(f"--metadata: must have a row for every run; there is none for {name}.")
                given |= row
            where = f"{path}: [metadata]" if metadata is None else f"--metadata: {name}"
            about = _about(given, where)
            electrode = str(given.get("electrode", name))
            entry = found.setdefault(
                electrode, {"about": about, "tables": [], "densities": [], "runs": [], "peaks": {}}
            )
            if not all(_same(entry["about"][k], about[k]) for k in GROUPINGS):
                raise InputError(
                    f"{where}: electrode {electrode} must have one rate, cycles and state of charge; "
                    f"{', '.join(entry['runs'])} says otherwise. Name the electrodes apart."
                )
            entry["tables"].append(run.table)
            entry["runs"].append(name)
            if (run.path / "densities.csv").is_file():
                entry["densities"].append(pd.read_csv(run.path / "densities.csv"))
            entry["peaks"] = entry["peaks"] or run.record.get("peaks") or {}
            settings = run.record["settings"]
            runs.append(
                {
                    "run": name,
                    "electrode": electrode,
                    "voxel_size_um": list(run.voxel_size),
                    "edge_width_um": run.record.get("edge_width_um"),
                    "sha256": run.record.get("sha256", {}),
                    "measured": {
                        "detachment": settings.get("detachment"),
                        "segmenter": settings.get("segment", {}).get("segmenter"),
                        "phases given": settings.get("input", {}).get("phases") is not None,
                    },
                }
            )
    return [Electrode(name, **entry) for name, entry in found.items()], runs


def _short_name(path: Path, all_paths: Sequence[Path]) -> str:
    """The folder's own name, with its parent's where that alone is not enough."""
    same = [p for p in all_paths if p.resolve().name == path.resolve().name]
    return path.resolve().name if len(same) == 1 else "/".join(path.resolve().parts[-2:])


def _same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def warnings_of(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What makes the runs hard to compare: another voxel size, blur, or way of measuring; one volume taken twice."""
    said = []
    sizes = np.array([run["voxel_size_um"] for run in runs], dtype=np.float64)
    if (sizes.max(axis=0) > VOXEL_SIZE_MARGIN * sizes.min(axis=0)).any():
        said.append(
            f"The voxel sizes differ ({sizes.min():.3g} to {sizes.max():.3g} um): twice coarser voxels alone have "
            "raised the detachment by 0.10. Bin the finer ones (--bin) before you compare."
        )
    blur = np.array([run["edge_width_um"] or np.nan for run in runs], dtype=np.float64)
    known = blur[np.isfinite(blur)]
    if known.size and known.max() > BLUR_MARGIN * known.min():
        said.append(
            f"The blur differs ({known.min():.3g} to {known.max():.3g} um full width): thin carbon/binder is seen in "
            "the sharper volumes alone, so their detachment reads lower."
        )
    for name in ("detachment", "segmenter", "phases given"):
        if len({json.dumps(run["measured"][name], sort_keys=True) for run in runs}) > 1:
            said.append(f"The runs were measured differently: {name} is not the same in all. Run them alike.")
    for k, run in enumerate(runs):
        for other in runs[:k]:
            if run["electrode"] != other["electrode"] and run["sha256"].items() & other["sha256"].items():
                said.append(
                    f"{other['run']} and {run['run']} are runs on the same voxels, and count as two electrodes: leave "
                    "one out, or give both one name in the column electrode of --metadata."
                )
    return said
