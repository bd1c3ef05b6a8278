"""The best parameters of a method, by a walk over the values of its grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product

import numpy as np

from cbdetach.annotations import LabelledSlice
from cbdetach.evaluate.methods import Tunable, on_slice
from cbdetach.metrics import Counts, Prediction, compare
from cbdetach.progress import bar


def tune(
    method: Tunable, slices: Sequence[LabelledSlice], *, iou: float = 0.5, progress: bool = False
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """The parameters of the largest object F measure (all slices' counts together; then of the largest mean IoU).

    Each parameter in turn takes the best of its values; where none improves, two at once move one step each; until that
    does not improve either.

    Returns
    -------
    the parameters, and one row for each combination that was tried: its parameters, `f_measure` and `mean_iou`.
    """
    from cbdetach.segment.maskrcnn import estimated_diameter

    diameters = [on_slice(estimated_diameter, s) for s in slices]
    tried: dict[tuple[float, ...], tuple[float, float]] = {}

    def worth(parameters: dict[str, float]) -> tuple[float, float]:
        key = tuple(parameters.values())
        if key not in tried:
            total, ious = Counts(0, 0, 0), []
            for s, typical in zip(slices, diameters, strict=True):
                labels = on_slice(method.segment, s, typical, **parameters)
                found, _, matched = compare(Prediction(labels), s).objects(iou)
                total += found
                ious.append(matched)
            every = np.concatenate(ious)
            tried[key] = total.metrics()["f_measure"], float(every.mean()) if every.size else 0.0
            shown.update()
        return tried[key]

    best = dict(method.start)
    with bar(None, "tuning", unit="setting", show=progress) as shown:
        while True:
            before = best
            for name, values in method.grid.items():
                best = max([best, *({**best, name: v} for v in values)], key=worth)
            if best == before:
                best = max([best, *_diagonal(best, method.grid)], key=worth)
            if best == before:
                break
    rows = [
        {**dict(zip(method.grid, key, strict=True)), "f_measure": f, "mean_iou": m} for key, (f, m) in tried.items()
    ]
    return best, rows


def _diagonal(at: dict[str, float], grid: Mapping[str, tuple[float, ...]]) -> Iterator[dict[str, float]]:
    """Where two parameters differ by one step."""
    for pair in combinations(grid, 2):
        for steps in product((-1, 1), repeat=2):
            places = [grid[name].index(at[name]) + step for name, step in zip(pair, steps, strict=True)]
            if all(0 <= k < len(grid[name]) for name, k in zip(pair, places, strict=True)):
                yield {**at, **{name: grid[name][k] for name, k in zip(pair, places, strict=True)}}
