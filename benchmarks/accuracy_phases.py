"""Accuracy of the phases on hand-labelled slices of NMC electrodes: Jaccard index by slice and phase.

``python -m benchmarks.accuracy_phases [FOLDER]`` prints the table of every method. FOLDER holds ``nmc_phases/K.tif``
and ``K_phases.tif`` (default: variable CBDETACH_REAL_DATA, else ../shared/data beside the project). Every slice is a
volume of its own and is treated by the same procedure; no number below was set for one of them. On slice 1501 the
labels of carbon/binder and void are in doubt: nothing is trained on it, and means are given with and without it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

from cbdetach.classifier import Classifier, train
from cbdetach.codes import ACTIVE, CBD, VOID
from cbdetach.pixel_features import grey_scale, slice_features
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


@dataclass(frozen=True)
class Scene:
    """One slice: features (N, F), phase codes (N,), and the voxels that are drawn from it for training."""

    features: npt.NDArray[np.float32]
    true: Codes
    drawn: npt.NDArray[np.int64]
    left: npt.NDArray[np.bool_]
    """Voxels of its left half."""


def scenes(folder: Path, samples: int) -> dict[str, Scene]:
    """Every slice, seen by the classifier."""
    found = {}
    for number, (name, (grey, true)) in enumerate(slices(folder).items()):
        features = slice_features(grey, 0, grey_scale(grey), 2).reshape(true.size, -1)
        drawn = np.random.default_rng((0, number)).choice(true.size, samples, replace=False)
        left = np.broadcast_to(np.arange(true.shape[2]) < true.shape[2] // 2, true.shape)
        found[name] = Scene(features, true.ravel(), drawn, left.ravel())
    return found


def classifier_table(
    folder: Path, samples: int = 4000, trees: int = 30
) -> tuple[dict[str, npt.NDArray[np.float64]], dict[str, float]]:
    """Jaccard indices of every slice by a classifier that was trained on the others, the doubtful one left out.

    And, for the active phase, those of the same shares of active, cut where the judged slice's own labels like it best.
    """
    seen, table, best = scenes(folder, samples), {}, {}
    for name, scene in seen.items():
        others = [(s.features[s.drawn], s.true[s.drawn]) for n, s in seen.items() if n not in (name, DOUBTFUL)]
        forest, codes = train(others, trees=trees)
        shares = forest.shares_of(scene.features)
        table[name] = jaccard(Classifier(forest, codes, 2, None).decide(shares), scene.true)
        active, true = shares[:, codes.index(ACTIVE)], scene.true == ACTIVE
        cuts = [active >= cut for cut in np.linspace(0.025, 0.975, 39)]
        best[name] = max(float((a & true).sum() / (a | true).sum()) for a in cuts)
    return table, best


def within_table(folder: Path, samples: int = 16_000, trees: int = 30) -> dict[str, npt.NDArray[np.float64]]:
    """Jaccard indices of every slice, each half by a classifier that was trained on the other: what labels allow."""
    table = {}
    for name, scene in scenes(folder, samples).items():
        found = np.empty_like(scene.true)
        for half in (scene.left, ~scene.left):
            drawn = scene.drawn[half[scene.drawn]]
            forest, codes = train([(scene.features[drawn], scene.true[drawn])], trees=trees)
            found[~half] = Classifier(forest, codes, 2, None).decide(forest.shares_of(scene.features[~half]))
        table[name] = jaccard(found, scene.true)
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
    for name, method in (("multi-Otsu, three classes", "otsu"), ("mixture", "gmm"), ("chosen (default)", "auto")):
        _print(name, thresholds_table(folder, method))
    table, best = classifier_table(folder)
    _print("classifier, trained on the other slices", table)
    _print("classifier, trained on the other half of the slice", within_table(folder))
    active = np.mean(list(best.values()))
    sys.stdout.write(
        f"| the first classifier, cut where each slice's labels like it best | 12 | {active:.3f} | | | |\n"
    )


def _print(name: str, table: dict[str, npt.NDArray[np.float64]]) -> None:
    for which, left in ((f"{len(table)}", None), (f"without {DOUBTFUL}", DOUBTFUL)):
        row = mean(table, left)
        sys.stdout.write(f"| {name} | {which} | {row[0]:.3f} | {row[1]:.3f} | {row[2]:.3f} | {row.mean():.3f} |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
