"""Accuracy of the phases on hand-labelled slices of NMC electrodes: Jaccard index by slice and phase.

``python -m benchmarks.accuracy_phases [FOLDER]`` prints the table of every method. FOLDER holds ``nmc_phases/K.tif``
and ``K_phases.tif`` (default: variable CBDETACH_REAL_DATA, else ../shared/data beside the project). Every slice is a
volume of its own and is treated by the same procedure; no number below was set for one of them. On slice 1501 the
labels of carbon/binder and void are in doubt: means are given with and without it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

from cbdetach.classifier import Classifier, grey_scale, slice_features, train
from cbdetach.codes import ACTIVE, CBD, VOID
from cbdetach.survey import Survey, SurveyAccumulator
from cbdetach.thresholds import find_thresholds

CODE_OF_LABEL = np.array([ACTIVE, CBD, VOID], np.uint8)
"""The labels 0, 1 and 2 of the slices as phase codes."""

DOUBTFUL = "1501"
Codes = npt.NDArray[np.uint8]


def slices(folder: Path) -> dict[str, tuple[npt.NDArray[np.uint16], Codes]]:
    """Grey values and phase codes of every slice, (1, Y, X) each."""
    found = {}
    for path in sorted((folder / "nmc_phases").glob("*_phases.tif")):
        name = path.stem.removesuffix("_phases")
        grey = tifffile.imread(path.with_name(f"{name}.tif"))
        found[name] = grey[None], CODE_OF_LABEL[tifffile.imread(path)][None]
    return found


def survey(grey: npt.NDArray[np.uint16]) -> Survey:
    """What one pass over a slice tells."""
    accumulator = SurveyAccumulator((1.0, 1.0, 1.0))
    accumulator.add(grey)
    return accumulator.finish()


def cut(grey: npt.NDArray[np.uint16], method: str) -> Codes:
    """Phases by plain thresholds."""
    found = survey(grey)
    t = find_thresholds(found.counts, found.edges, method=method, strength=(found.strength_grey, found.strength))
    return np.where(grey < t.void_cbd, VOID, np.where(grey < t.cbd_active, CBD, ACTIVE)).astype(np.uint8)


def jaccard(found: Codes, true: Codes) -> npt.NDArray[np.float64]:
    """Jaccard indices of active, CBD and void."""
    pairs = [(found == code, true == code) for code in (ACTIVE, CBD, VOID)]
    return np.array([(a & b).sum() / max(1, (a | b).sum()) for a, b in pairs])


def thresholds_table(folder: Path, method: str) -> dict[str, npt.NDArray[np.float64]]:
    """Jaccard indices of every slice, cut by automatic thresholds."""
    return {name: jaccard(cut(grey, method), true) for name, (grey, true) in slices(folder).items()}


def classifier_table(folder: Path, samples: int = 4000, trees: int = 30) -> dict[str, npt.NDArray[np.float64]]:
    """Jaccard indices of every slice by a classifier that was trained on the eleven others."""
    scenes = slices(folder)
    features, drawn = {}, {}
    for number, (name, (grey, true)) in enumerate(scenes.items()):
        found = survey(grey)
        features[name] = slice_features(grey, 0, grey_scale(found.counts, found.edges), 2)
        at = np.random.default_rng((0, number)).choice(true.size, samples, replace=False)
        drawn[name] = features[name].reshape(true.size, -1)[at], true.ravel()[at]
    table = {}
    for name, (_, true) in scenes.items():
        forest, codes = train([d for other, d in drawn.items() if other != name], trees=trees)
        shares = forest.shares_of(features[name].reshape(true.size, -1)).reshape(*true.shape, len(codes))
        table[name] = jaccard(Classifier(forest, codes, 2, None).decide(shares), true)
    return table


def mean(table: dict[str, npt.NDArray[np.float64]], leave_out: str | None = None) -> npt.NDArray[np.float64]:
    """Means over the slices: active, CBD, void."""
    return np.asarray(np.mean([row for name, row in table.items() if name != leave_out], axis=0))


def main() -> None:
    """Print the table."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("CBDETACH_REAL_DATA", beside))
    if not (folder / "nmc_phases").is_dir():
        raise SystemExit(f"the hand-labelled slices are not at {folder / 'nmc_phases'}; set CBDETACH_REAL_DATA")
    sys.stdout.write("| method | slices | active | CBD | void | mean |\n|---|---|---|---|---|---|\n")
    for name, method in (
        ("multi-Otsu, three classes", "otsu"),
        ("mixture", "gmm"),
        ("chosen (default)", "auto"),
        ("classifier, trained on the other slices", ""),
    ):
        table = thresholds_table(folder, method) if method else classifier_table(folder)
        for which, left in ((f"{len(table)}", None), (f"without {DOUBTFUL}", DOUBTFUL)):
            row = mean(table, left)
            sys.stdout.write(f"| {name} | {which} | {row[0]:.3f} | {row[1]:.3f} | {row[2]:.3f} | {row.mean():.3f} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
