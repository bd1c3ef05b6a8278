"""`cbdetach evaluate`: the network and the marker-controlled watershed on labelled slices, by the same measures.

Slices come from a person's labels or from phantom scenes that no training has seen. Three methods are compared:

- *network*: the ONNX model as `run` uses it, at its own score threshold; AP ranks what it finds down to `LEAST_SCORE`.
- *watershed*: distance markers, `cbdetach.segment`'s slice watershed, whose saddles, cracks and holes are treated with
  care: as strong as a watershed gets here.
- *intensity*: the textbook's marker-controlled watershed, as the paper's comparison: opening and closing by
  reconstruction, regional maxima of the grey level as markers, flooding of the gradient's magnitude.

The parameters of both watersheds are tuned for the object F measure: each in turn, until none improves.
Thresholds are shares of the contrast and lengths are shares of the typical particle's diameter, so that they carry from
one image to the next. Tuned on other slices where there are any (`tune`, phantoms), else on the evaluated ones
themselves, which favours the watersheds; the record says which. Metrics: `cbdetach.metrics`.

Source: Jiang et al. (2020), Suppl. Note 1 and Suppl. Fig. 9b; Meyer and Beucher, Morphological segmentation (1990).
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from cbdetach import __version__
from cbdetach.annotations import LabelledSlice
from cbdetach.errors import InputError
from cbdetach.metrics import COCO_IOU, SIX, Comparison, Counts, Prediction, average_precision, compare, summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

Labels = npt.NDArray[np.int32]
Image = npt.NDArray[Any]
Item = TypeVar("Item")

log = logging.getLogger("cbdetach")

TEST_SEED, TUNING_SEED = 1_000_000, 2_000_000
"""First scene that is tested on, and first that is tuned (and validated) on: training uses those below both."""
PER_SCENE = 2
"""Slices of one phantom scene: few, so that many electrodes are seen."""
TUNING_SLICES = 16
LEAST_SCORE = 0.05
METHODS = {
    "network": "Mask R-CNN",
    "watershed": "watershed, distance markers",
    "intensity": "watershed, intensity markers",
}
FILES = ("evaluation.csv", "evaluation.png", "evaluation.svg", "evaluation_bars.csv", "evaluation.json")
"""What is written; the record last."""


# ---- methods ---------------------------------------------------------------------------------------------------------


def distance_watershed(
    image: Image, typical: float, *, share: float, depth: float, close: float, smallest: float
) -> Labels:
    """The slice watershed with distance markers.

    Parameters
    ----------
    image : (Y, X), any real type.
    typical : diameter of the particles' sections, pixels (`cbdetach.segment.maskrcnn.estimated_diameter`).
    share : of the contrast between matrix and particles, above which a pixel is active material.
    depth : `marker_depth` of `cbdetach.segment.segment_slice`.
    close, smallest : widest crack that is bridged and smallest diameter, as shares of the typical diameter.
    """
    from cbdetach.segment import segment_slice
    from cbdetach.segment.scaling import grey_levels

    dark, bright = grey_levels(image)
    return segment_slice(
        image,
        segmenter="watershed2d",
        threshold=dark + share * (bright - dark),
        marker_depth=depth,
        close_um=close * typical,
        min_diameter_um=smallest * typical,
    )


def intensity_watershed(
    image: Image, typical: float, *, share: float, radius: float, height: float, smallest: float
) -> Labels:
    """The marker-controlled watershed of textbooks, with markers from the grey level.

    Parameters
    ----------
    image : (Y, X), any real type.
    typical : diameter of the particles' sections, pixels (`cbdetach.segment.maskrcnn.estimated_diameter`).
    share : of the contrast between matrix and particles, above which a pixel is active material.
    radius : of the opening and closing by reconstruction, as a share of the typical diameter.
    height : by which a regional maximum rises above its surroundings, as a share of the contrast.
    smallest : smallest equivalent diameter that is kept, as a share of the typical one.
    """
    from scipy.ndimage import gaussian_filter, label, maximum_filter, minimum_filter
    from skimage.filters import sobel
    from skimage.morphology import local_maxima, reconstruction
    from skimage.segmentation import watershed

    from cbdetach.segment.scaling import grey_levels, normalise
    from cbdetach.segment.watershed import ball, fill_holes, number_by_first_voxel

    smooth = gaussian_filter(normalise(image, grey_levels(image)), 1.0)
    active = smooth > share
    size = 2 * max(round(radius * typical), 1) + 1
    opened = reconstruction(minimum_filter(smooth, size), smooth)  # type: ignore[no-untyped-call]
    even = -reconstruction(-maximum_filter(opened, size), -opened)  # type: ignore[no-untyped-call]
    if height > 0:
        even = reconstruction(even - height, even)  # type: ignore[no-untyped-call]
    markers, _ = label(local_maxima(even) & active, np.ones((3, 3)))  # type: ignore[no-untyped-call]
    found: Labels = watershed(sobel(smooth), markers, mask=active).astype(np.int32)  # type: ignore[no-untyped-call]
    area = np.bincount(found.ravel())
    found[area[found] < ball(smallest * typical, 2)] = 0
    fill_holes(found)
    return number_by_first_voxel(found)


@dataclass(frozen=True)
class Tunable:
    """A method with parameters: where the search starts, and the values that are tried, ascending."""

    segment: Callable[..., Labels]
    start: dict[str, float]
    grid: Mapping[str, tuple[float, ...]]


TUNABLE = {
    "watershed": Tunable(
        distance_watershed,
        {"share": 0.5, "depth": 0.25, "close": 0.08, "smallest": 0.4},
        {
            "share": (0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7),
            "depth": (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5),
            "close": (0.0, 0.05, 0.08, 0.12, 0.16, 0.2),
            "smallest": (0.1, 0.25, 0.4, 0.5, 0.6),
        },
    ),
    "intensity": Tunable(
        intensity_watershed,
        {"share": 0.5, "radius": 0.15, "height": 0.02, "smallest": 0.4},
        {
            "share": (0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7),
            "radius": (0.05, 0.1, 0.15, 0.2, 0.25, 0.3),
            "height": (0.0, 0.01, 0.02, 0.05, 0.1),
            "smallest": (0.1, 0.25, 0.4, 0.5, 0.6),
        },
    ),
}


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

    diameters = [_checked(estimated_diameter, s) for s in slices]
    tried: dict[tuple[float, ...], tuple[float, float]] = {}

    def worth(parameters: dict[str, float]) -> tuple[float, float]:
        key = tuple(parameters.values())
        if key not in tried:
            total, ious = Counts(0, 0, 0), []
            for s, typical in zip(slices, diameters, strict=True):
                labels = _checked(method.segment, s, typical, **parameters)
                found, _, matched = compare(Prediction(labels), s).objects(iou)
                total += found
                ious.append(matched)
            every = np.concatenate(ious)
            tried[key] = total.metrics()["f_measure"], float(every.mean()) if every.size else 0.0
            bar.update()
        return tried[key]

    best = dict(method.start)
    with _bar(None, "tuning", progress, unit="setting") as bar:
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


def _network(model: Path | None) -> Callable[[Image], tuple[Prediction, Prediction]]:
    """What gives the particles at the model's own threshold, and those to be ranked for AP."""
    from cbdetach.segment.instances import to_labels
    from cbdetach.segment.maskrcnn import Segmenter

    segmenter = Segmenter(model)

    def predict(image: Image) -> tuple[Prediction, Prediction]:
        [detections] = segmenter.detect([image])
        used, ranked = (to_labels(detections.above(score)) for score in (segmenter.threshold, LEAST_SCORE))
        return Prediction(used[0], used[1].scores), Prediction(ranked[0], ranked[1].scores)

    return predict


def _checked(compute: Callable[..., Any], s: LabelledSlice, *values: float, **parameters: float) -> Any:
    """What `compute` finds on the slice; what it cannot take is bad input, said with the slice's name."""
    try:
        return compute(s.image, *values, **parameters)
    except ValueError as error:
        raise InputError(f"{s.name}: {error}") from None


# ---- evaluation ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Result:
    """One method on all slices."""

    method: str
    comparisons: list[Comparison]
    ranked: list[Comparison]  # for AP: weaker predictions too
    parameters: dict[str, Any] = field(default_factory=dict)
    tried: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0  # for one slice, on average


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All methods on the same slices."""

    names: list[str]  # of the slices
    source: str
    tuned_on: str
    iou: float
    results: list[Result]

    def table(self) -> DataFrame:
        """One row for each method, level ("pixels", "objects") and image, then their mean, standard deviation and n."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for r in self.results:
            for level in ("pixels", "objects"):
                own = [self._row(c, level) for c in r.comparisons]
                head = {"method": r.method, "level": level}
                rows += [{**head, "image": n, **row} for n, row in zip(self.names, own, strict=True)]
                for k, statistic in enumerate(("mean", "sd", "n")):
                    found = summary(own, SIX if level == "pixels" else [*SIX, "mean_iou"])
                    rows.append({**head, "image": f"({statistic})", **{m: v[k] for m, v in found.items()}})
                if level == "objects":
                    ap = average_precision(r.ranked)
                    rows[-3] |= {"ap50": ap[0], "ap": ap.mean()}
        columns = ["method", "level", "image", *SIX, "mean_iou", "ap50", "ap", "tp", "fp", "fn", "tn", "left_out"]
        table = pd.DataFrame(rows).reindex(columns=columns)
        return table.astype(dict.fromkeys(columns[-5:], "Int64"))

    def _row(self, c: Comparison, level: str) -> dict[str, Any]:
        if level == "pixels":
            counts, extra = c.pixels, {}
        else:
            counts, left_out, iou = c.objects(self.iou)
            extra = {"mean_iou": float(iou.mean()) if iou.size else np.nan, "left_out": left_out}
        return counts.metrics() | vars(counts) | extra

    def record(self) -> dict[str, Any]:
        """Everything but the rows of single images, for JSON."""
        methods = {}
        for r in self.results:
            pixels, total, iou = Counts(0, 0, 0, 0), Counts(0, 0, 0), []
            for c in r.comparisons:
                found, _, matched = c.objects(self.iou)
                pixels, total = pixels + c.pixels, total + found
                iou.append(matched)
            over = {
                level: summary([self._row(c, level) for c in r.comparisons], names)
                for level, names in (("pixels", SIX), ("objects", (*SIX, "mean_iou")))
            }
            every = np.concatenate(iou)
            methods[r.method] = {
                "parameters": r.parameters,
                **{
                    level: {m: {"mean": v[0], "sd": v[1], "images": v[2]} for m, v in found.items()}
                    for level, found in over.items()
                },
                "all_images_together": {
                    "pixels": pixels.metrics() | vars(pixels),
                    "objects": total.metrics() | vars(total),
                    "mean_iou": float(every.mean()) if every.size else None,
                },
                "ap": dict(zip(map(str, COCO_IOU), average_precision(r.ranked).tolist(), strict=True)),
                "seconds_per_slice": r.seconds,
                "tried": r.tried,
            }
        return {
            "version": __version__,
            "slices": self.source,
            "images": len(self.names),
            "particles": sum(c.iou.shape[1] for c in self.results[0].comparisons),
            "iou": self.iou,
            "tuned_on": self.tuned_on,
            "methods": methods,
        }

    def __str__(self) -> str:
        """The table for people."""
        record = self.record()
        heads = ("precision", "sensitivity", "Jaccard", "Dice", "F", "MCC")
        lines = [
            f"{record['images']} slices ({self.source}), {record['particles']} particles; mean ± standard deviation "
            f"over slices; objects matched at IoU {self.iou:g}",
            " " * 37 + "".join(f"{name:>15}" for name in heads),
        ]
        for name, found in record["methods"].items():
            for level in ("pixels", "objects"):
                cells = "".join(f"{_pair(**found[level][m]):>15}" for m in SIX)
                lines.append(f"{METHODS[name] if level == 'pixels' else '':<29}{level:<8}{cells}")
            ap = np.array(list(found["ap"].values()))
            lines.append(
                f"{'':<29}mean IoU of matches {_pair(**found['objects']['mean_iou'])}, AP50 {ap[0]:.3f}, AP[.50:.95] "
                f"{ap.mean():.3f}; {found['seconds_per_slice']:.2f} s a slice"
            )
        if any(r.tried for r in self.results):
            lines.append(f"Watersheds tuned on {self.tuned_on}.")
        return "\n".join(lines)


def evaluate(
    annotations: Path | str | None = None,
    out: Path | None = None,
    *,
    model: Path | None = None,
    phantom: int | None = None,
    tuning: Path | str | None = None,
    methods: Sequence[str] | None = None,
    iou: float = 0.5,
    progress: bool = False,
) -> Evaluation:
    """Compare the methods on labelled slices.

    Parameters
    ----------
    annotations : labelled slices, as `cbdetach.annotations.read_annotations` takes them.
    out : folder for `FILES`; None writes nothing.
    model : ONNX model of the network; None: the shipped one.
    phantom : so many slices of held-out phantom scenes, in place of `annotations`.
    tuning : labelled slices to tune the watersheds on. Default: with `phantom` other held-out scenes, else the
        evaluated slices themselves.
    methods : of `METHODS`; None: all.
    iou : above 0, at most 1: of a match of objects.

    Raises
    ------
    InputError : neither or both of `annotations` and `phantom`; an option out of range; no labelled particle; a slice
        that a method cannot take; whatever reading the labels or the model says.
    """
    from cbdetach.segment.maskrcnn import estimated_diameter

    chosen = _check(annotations, phantom, methods, iou)
    network = _network(model) if "network" in chosen else None
    slices = _read(str(annotations)) if phantom is None else phantom_slices(phantom, progress=progress)
    if not any(s.labels.any() for s in slices):
        raise InputError(f"{annotations}: must hold at least one labelled particle; got none.")
    source = f"{annotations}" if phantom is None else "held-out phantom scenes"
    examples, tuned_on = slices, "these slices themselves, which favours them"
    if TUNABLE.keys() & set(chosen):
        if tuning is not None:
            examples, tuned_on = _read(tuning), f"{tuning}"
        elif phantom is not None:
            examples, tuned_on = phantom_slices(TUNING_SLICES, TUNING_SEED, progress=progress), "other phantom scenes"

    results = []
    for name in chosen:
        parameters: dict[str, Any] = {}
        tried: list[dict[str, float]] = []
        if name in TUNABLE:
            parameters, tried = tune(TUNABLE[name], examples, iou=iou, progress=progress)
        start = time.perf_counter()
        comparisons, ranked = [], []
        for s in _each(slices, name, progress):
            if name in TUNABLE:
                typical = _checked(estimated_diameter, s)
                comparisons.append(compare(Prediction(_checked(TUNABLE[name].segment, s, typical, **parameters)), s))
                ranked.append(comparisons[-1])
            else:
                assert network is not None
                for kept, found in zip((comparisons, ranked), _checked(network, s), strict=True):
                    kept.append(compare(found, s))
        seconds = (time.perf_counter() - start) / len(slices)
        results.append(Result(name, comparisons, ranked, parameters, tried, seconds))
    evaluation = Evaluation([s.name for s in slices], source, tuned_on, iou, results)
    if out is not None:
        write(evaluation, out)
    return evaluation


def activation(
    checkpoint: Path,
    annotations: Path | str | None = None,
    out: Path = Path("cbdetach_evaluation"),
    *,
    phantom: int | None = None,
    progress: bool = False,
) -> str:
    """Write the activation map of a checkpoint's network on labelled slices, and say what it shows.

    annotations, phantom : as for `evaluate`. Needs the extra `train`; see `cbdetach.train.activation`.

    Raises
    ------
    InputError : as `evaluate`; no checkpoint of `cbdetach train`; no slice to choose a channel on.
    """
    from cbdetach.train import activation as _activation
    from cbdetach.train import loop

    _check(annotations, phantom, None, 0.5)
    model = loop.load(checkpoint).model
    shown = _read(str(annotations)) if phantom is None else phantom_slices(phantom, progress=progress)
    examples = phantom_slices(TUNING_SLICES, TUNING_SEED, progress=progress)
    return _activation.write_activation(model, shown, examples, out)


def phantom_slices(count: int, first_seed: int = TEST_SEED, *, progress: bool = False) -> list[LabelledSlice]:
    """`count` labelled slices of the scenes from `first_seed` on, `PER_SCENE` of each: the same every time."""
    from cbdetach.train.scenes import slices_of_scene

    scenes = range(first_seed, first_seed - (-count // PER_SCENE))
    return [s for n in _each(scenes, "phantoms", progress) for s in slices_of_scene(n, count=PER_SCENE)][:count]


def write(evaluation: Evaluation, out: Path) -> None:
    """Write `FILES`: each whole or absent, the record last."""
    from cbdetach.report import plain_style
    from cbdetach.store import to_json, whole_file

    bars = _bar_values(evaluation)
    content: dict[str, bytes] = {
        "evaluation.csv": evaluation.table().to_csv(index=False, lineterminator="\n").encode(),
        "evaluation_bars.csv": bars.to_csv(index=False, lineterminator="\n").encode(),
        "evaluation.json": to_json(evaluation.record()).encode(),
    }
    with plain_style():
        figure = bar_figure(bars)
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
            figure.set_layout_engine("none")  # the same places in both files
            content[f"evaluation.{kind}"] = buffer.getvalue()
    try:
        (out / FILES[-1]).unlink(missing_ok=True)
        for name in FILES:
            with whole_file(out / name) as temporary:
                temporary.write_bytes(content[name])
    except OSError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"-o/--out: cannot write to {out}: {error.strerror}; choose another folder.") from None


def bar_figure(bars: DataFrame) -> Figure:
    """Six metrics on pixels and on objects, one bar for each method, with the standard deviation over images.

    bars : columns level, metric, method, mean, sd, images.
    """
    from cbdetach.report import style
    from cbdetach.report.drawing import new_figure

    colours = {"network": style.ACCENT, "watershed": style.SECOND, "intensity": style.FAINT}
    shown = [m for m in METHODS if m in set(bars["method"])]
    figure = new_figure((11.4, 3.6))
    width = 0.8 / len(shown)
    for ax, level in zip(figure.subplots(1, 2, sharey=True), ("pixels", "objects"), strict=True):
        for k, method in enumerate(shown):
            rows = bars[(bars["level"] == level) & (bars["method"] == method)]
            x = np.arange(len(SIX)) + (k - (len(shown) - 1) / 2) * width
            mean, sd = rows["mean"].to_numpy(), rows["sd"].to_numpy()
            ax.bar(x, mean, 0.92 * width, color=colours[method], label=METHODS[method], lw=0)
            known = np.isfinite(mean) & np.isfinite(sd)
            ax.errorbar(x[known], mean[known], sd[known], fmt="none", ecolor=style.INK, elinewidth=0.9, capsize=2)
        ax.set_title(level)
        ax.set_xticks(range(len(SIX)), ["precision", "sensitivity", "Jaccard", "Dice", "F measure", "MCC"])
        ax.tick_params(length=0)
        ax.grid(axis="x", visible=False)
        ax.set_ylim(0, 1.05)
    figure.axes[0].set_ylabel("mean ± standard deviation")
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(shown))
    return figure


def _bar_values(evaluation: Evaluation) -> DataFrame:
    import pandas as pd

    methods = evaluation.record()["methods"]
    return pd.DataFrame(
        [
            {"level": level, "metric": metric, "method": name, **methods[name][level][metric]}
            for level in ("pixels", "objects")
            for metric in SIX
            for name in methods
        ]
    )


def _check(
    annotations: Path | str | None, phantom: int | None, methods: Sequence[str] | None, iou: float
) -> Sequence[str]:
    """The methods to compare, in the order of `METHODS`."""
    if (annotations is None) == (phantom is None):
        raise InputError(f"ANNOTATIONS: must be given, or --phantom N, and not both; got {annotations} and {phantom}.")
    if phantom is not None and phantom < 1:
        raise InputError(f"--phantom: must be at least 1; got {phantom}.")
    if not 0 < iou <= 1:
        raise InputError(f"--iou: must be above 0 and at most 1; got {iou}.")
    wanted = set(METHODS if methods is None else methods)
    if unknown := wanted - METHODS.keys():
        raise InputError(f"--method: must be one of {', '.join(METHODS)}; got {sorted(unknown)[0]}.")
    return [m for m in METHODS if m in wanted]


def _read(path: Path | str) -> list[LabelledSlice]:
    from cbdetach.annotations import read_annotations

    slices = list(read_annotations(path))
    if not slices:
        raise InputError(f"{path}: must hold at least one labelled slice; got none.")
    return slices


def _pair(mean: float, sd: float, images: int) -> str:
    if images == 0:
        return "–"
    return f"{mean:.3f}" if images == 1 else f"{mean:.3f} ± {sd:.3f}"


def _each(items: Iterable[Item], name: str, progress: bool) -> Iterator[Item]:
    return iter(_bar(items, name, progress, unit="slice"))


def _bar(items: Iterable[Any] | None, name: str, progress: bool, unit: str) -> Any:
    from tqdm import tqdm

    return tqdm(items, desc=f"{name:<10}", unit=unit, leave=False, disable=None if progress else True)
