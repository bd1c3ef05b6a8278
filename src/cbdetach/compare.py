"""Electrodes beside one another: detachment by rate, cycles or state of charge (DEFINITIONS: Statistics).

`compare` reads finished runs and what they are of (`electrodes.py`), and writes tables, figures and one page. The
electrode is the unit of every test: however many particles it holds, it gives one number to each, and electrodes are
what is permuted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cbdetach import statistics
from cbdetach.electrodes import GROUPINGS, Electrode, read_cycling, read_electrodes, read_metadata, warnings_of
from cbdetach.errors import InputError
from cbdetach.files import require_writable, told, write_json, write_table
from cbdetach.report import comparison, relations
from cbdetach.report.summary import MIN_PER_BIN

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]


# ---- statistics -----------------------------------------------------------------------------------------------------


def class_medians(samples: Sequence[relations.Sample], edges: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Median detachment of every electrode in every size class, and n: (E, K) each; nan below `MIN_PER_BIN`."""
    medians = np.full((len(samples), edges.size - 1), np.nan)
    counts = np.zeros(medians.shape, dtype=np.int64)
    for e, found in enumerate(samples):
        classes = found.classes(edges)
        for k in range(edges.size - 1):
            inside = found.detachment[classes == k]
            counts[e, k] = inside.size
            if inside.size >= MIN_PER_BIN:
                medians[e, k] = np.median(inside)
    return medians, counts


def same_size_values(medians: Floats, counts: npt.NDArray[np.int64], plain: Floats) -> tuple[Floats, bool]:
    """One number for each electrode: the mean of its class medians, every electrode with the same mix of sizes.

    Classes count that every electrode fills, weighted by their share of all particles. Where there is none it is the
    electrode's own median, and the second value is False.
    """
    shared = np.isfinite(medians).all(axis=0)
    if not shared.any():
        return plain, False
    weight = counts[:, shared].sum(axis=0) / counts[:, shared].sum()
    return np.asarray(medians[:, shared] @ weight), True


def group_tests(
    values: Floats, medians: Floats, groups: Sequence[float], edges: Floats, *, by: str = "rate", seed: int = 0
) -> pd.DataFrame:
    """Every test between groups of electrodes: all sizes together, then size class by size class.

    Two families, each adjusted for its number by Holm's method: the pairs of groups, on `values` (E,), which is the
    result; and the pairs times the size classes, on `medians` (E, K). A pair with one electrode on a side has no p.
    With four electrodes and more on each side `p` is read from the curve (`statistics.permutation_test`), with fewer it
    is `p_counted`. `smallest_p` is the smallest that can be counted, `smallest_p_holm` what is left of it after Holm.
    """
    import pandas as pd

    names = sorted(set(groups))
    group = np.asarray(groups, dtype=np.float64)
    rows: list[dict[str, Any]] = []

    def test(kind: str, column: Floats, a: float, b: float, low: float, high: float) -> None:
        chosen = ((group == a) | (group == b)) & np.isfinite(column)
        n = [int(np.sum(chosen & (group == g))) for g in (a, b)]
        if min(n) == 0:
            return
        found = statistics.permutation_test(column[chosen], group[chosen].tolist(), seed=seed)
        rows.append(
            {"kind": kind, "first": comparison.shown(by, a), "second": comparison.shown(by, b), "from_um": low}
            | {"to_um": high, "n_first": n[0], "n_second": n[1], "difference": found.difference}
            | {"p": found.p if np.isnan(found.p_fitted) else found.p_fitted, "p_counted": found.p}
            | {"smallest_p": found.smallest_p if min(n) > 1 else np.nan}
        )

    for a, b in combinations(names, 2):
        test("all sizes", values, a, b, np.nan, np.nan)
    for k in range(edges.size - 1):
        for a, b in combinations(names, 2):
            test("size class", medians[:, k], a, b, edges[k], edges[k + 1])
    columns = ["kind", "first", "second", "from_um", "to_um", "n_first", "n_second", "difference"]
    frame = pd.DataFrame(rows, columns=[*columns, "p", "p_counted", "smallest_p"])
    for name in ("p", "smallest_p"):
        frame[f"{name}_holm"] = np.nan
        for _, part in frame.groupby("kind"):
            frame.loc[part.index, f"{name}_holm"] = statistics.holm(part[name].to_numpy(np.float64).tolist())
    return frame


def compare_electrodes(
    electrodes: Sequence[Electrode], *, by: str = "rate", edges: Floats | None = None, seed: int = 0
) -> comparison.Comparison:
    """All numbers of a comparison, from the tables of its electrodes."""
    import pandas as pd

    electrodes = sorted(electrodes, key=lambda e: (e.about[by], e.name))
    samples = [
        relations.joined([relations.sample(t, k) for k, t in enumerate(electrode.tables)]) for electrode in electrodes
    ]
    for electrode, found in zip(electrodes, samples, strict=True):
        if found.label.size == 0:
            raise InputError(
                f"{electrode.name}: no particle has a degree of detachment, so nothing to compare; leave it out."
            )
    if edges is None:
        edges = relations.size_edges(np.concatenate([found.diameter for found in samples]))
    medians, counts = class_medians(samples, edges)
    own = [found.median() for found in samples]
    values, same_size = same_size_values(medians, counts, np.array([m.value for m in own]))
    rows, classes, spread, correlations, erosion, peaks = [], [], [], [], [], []
    for electrode, found, median, value in zip(electrodes, samples, own, values, strict=True):
        who = {"electrode": electrode.name, "group": comparison.shown(by, electrode.about[by])}
        q1, q3 = np.quantile(found.detachment, (0.25, 0.75))
        rows.append(
            who
            | dict(electrode.about)
            | {
                "volumes": len(electrode.tables),
                "n": found.label.size,
                "n_effective": found.correlogram.effective_n,
                "neighbour_correlation": found.correlogram.neighbours,
                "median": median.value,
                "median_low": median.low,
                "median_high": median.high,
                "q1": q1,
                "q3": q3,
                "median_same_sizes": value,
                "total_area_weighted": relations.area_weighted_total(pd.concat(list(electrode.tables))),
            }
        )
        classes.append(relations.size_table(found, edges).assign(**who))
        spread.append(relations.spread_table(found, edges, seed=seed).assign(**who))
        correlations.append(relations.correlation_table(found).assign(**who))
        if len(electrode.densities) == len(electrode.tables):
            erosion.append(relations.erosion_table(found, electrode.densities).assign(**who))
        peaks += [who | {"phase": phase} | dict(peak) for phase, peak in electrode.peaks.items()]
    groups = [electrode.about[by] for electrode in electrodes]
    tests = group_tests(values, medians, groups, edges, by=by, seed=seed)
    return comparison.Comparison(
        by=by,
        edges=edges,
        samples=samples,
        electrodes=pd.DataFrame(rows),
        size_classes=_stacked(classes),
        tests=tests,
        spread=_stacked(spread),
        correlations=_stacked(correlations),
        erosion=_stacked(erosion),
        peaks=pd.DataFrame(peaks),
        same_size=same_size,
        sentences=sentences(pd.DataFrame(rows), tests, groups, by=by, same_size=same_size),
    )


def _stacked(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Frames one under the other, who they are of in front."""
    import pandas as pd

    filled = [frame for frame in frames if len(frame)]
    if not filled:
        return pd.DataFrame()
    frame = pd.concat(filled, ignore_index=True)
    return frame[["electrode", "group", *(c for c in frame.columns if c not in ("electrode", "group"))]]


def sentences(
    rows: pd.DataFrame, tests: pd.DataFrame, groups: Sequence[float], *, by: str, same_size: bool
) -> list[str]:
    """What the tests say, and what they cannot, in words."""
    names = np.unique(groups)
    what = comparison.WORDS[by]
    if names.size < 2:
        return [f"All electrodes have one {what}: there is nothing to test."]
    said = []
    for row in tests[tests["kind"] == "all sizes"].to_dict("records"):
        pair = f"{row['second']} against {row['first']}"
        if min(row["n_first"], row["n_second"]) == 1:
            a, b = (rows[rows["group"] == row[side]] for side in ("first", "second"))
            if len(a) == len(b) == 1:
                reach = [float(g["median_high"].iloc[0] - g["median_low"].iloc[0]) / 2 for g in (a, b)]
                gap = float(b["median"].iloc[0] - a["median"].iloc[0])
                ends = gap - math.hypot(*reach), gap + math.hypot(*reach)
                said.append(
                    f"{pair}: one electrode each. These two differ by {gap:+.3f} in their median "
                    f"({comparison.interval(*ends, '+', '95 % interval ')}); whether it is the {what}, one electrode "
                    "on each side cannot tell, so there is no p."
                )
            else:
                said.append(
                    f"{pair}: one electrode on a side cannot tell the {what} from the electrode; there is no p."
                )
            continue
        words = f"{pair}: {row['difference']:+.3f}, p = {row['p']:.3g}"
        if names.size > 2:
            words += f", {row['p_holm']:.3g} with the other pairs counted (Holm)"
        words += f" ({row['n_first']} and {row['n_second']} electrodes permuted"
        if row["p"] != row["p_counted"]:
            words += f"; counted, p = {row['p_counted']:.3g}"
        if min(row["n_first"], row["n_second"]) < statistics.FITTED_FROM:
            words += f"; with so few the smallest p that can be reached is {row['smallest_p']:.3g}"
        said.append(words + ").")
    if not same_size:
        said.append(f"No size class holds {MIN_PER_BIN} particles in every electrode: sizes are not made equal.")
    return said


# ---- the command ----------------------------------------------------------------------------------------------------


OWN_NAMES = (
    *(f"{name}.csv" for name in ("electrodes", "size_classes", "tests", "spread", "correlations", "erosion", "peaks")),
    "compare.json",
    "compare.html",
)


def parse_edges(text: str) -> Floats:
    """Edges of size classes in micrometres: "2,4,8"."""
    try:
        edges = np.array([float(part) for part in text.split(",")])
    except ValueError:
        raise InputError(f"--size-classes: must read like 2,4,8 (micrometres); got {text!r}.") from None
    if edges.size < 2 or not (np.isfinite(edges).all() and (np.diff(edges) > 0).all() and edges[0] >= 0):
        raise InputError(f"--size-classes: must be two or more ascending edges; got {text!r}.")
    return edges


def compare(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    metadata: str | Path | None = None,
    cycling: str | Path | None = None,
    by: str = "rate",
    size_classes: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> tuple[comparison.Comparison, list[str]]:
    """Compare finished runs; tables, figures and `compare.html` lie in the folder `out`. Returns warnings, too.

    Parameters
    ----------
    paths : folders of finished runs.
    metadata : CSV with the columns run (a folder or its name), electrode, rate ("C/10", "5C"), cycles,
        state_of_charge (0 to 1). None: from the runs' own settings, [metadata].
    cycling : CSV with the columns cycle, capacity, and electrode or rate; drawn beside.
    by : what electrodes are grouped by: "rate", "cycles" or "state_of_charge".
    size_classes : edges in micrometres, "2,4,8"; None: 2**(k/2).
    seed : of the draws, where there are too many ways to go through all, and of the random-patch null.

    Raises
    ------
    InputError
        Bad input, in one sentence; nothing is left behind.
    """
    if by not in GROUPINGS:
        raise InputError(f"--by: must be rate, cycles or state_of_charge; got {by!r}.")
    if not paths:
        raise InputError("RUN: must be at least one folder of a finished run; got none.")
    edges = None if size_classes is None else parse_edges(size_classes)
    target = Path(out)
    if not overwrite and (target / "compare.json").exists():
        raise InputError(f"-o/--out: {out} holds a comparison; choose another folder, or replace it with --overwrite.")
    require_writable(target)
    about = None if metadata is None else read_metadata(metadata)
    capacity = None if cycling is None else read_cycling(cycling)
    electrodes, runs = read_electrodes(paths, about)
    for electrode in electrodes:
        if math.isnan(electrode.about[by]):
            raise InputError(
                f"{electrode.runs[0]}: must have a {comparison.WORDS[by]} to be compared by it; give a table with "
                f"--metadata, or {by} under [metadata] in the run's settings."
            )
    found = compare_electrodes(electrodes, by=by, edges=edges, seed=seed)
    said = warnings_of(runs)
    with told(target):
        target.mkdir(parents=True, exist_ok=True)
        for name in ("electrodes", "size_classes", "tests", "spread", "correlations", "erosion", "peaks"):
            frame = getattr(found, name)
            if len(frame):
                write_table(target / f"{name}.csv", frame)
            else:
                (target / f"{name}.csv").unlink(missing_ok=True)
        comparison.write_page(found, target, warnings=said, capacity=capacity)
        content = {"by": by, "size_classes_um": found.edges, "seed": seed, "runs": runs, "sentences": found.sentences}
        write_json(target / "compare.json", content | {"warnings": said})
    return found, said
