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

import time
from collections.abc import Sequence
from pathlib import Path

from cbdetach.annotations import LabelledSlice
from cbdetach.errors import InputError
from cbdetach.evaluate.files import FILES, bar_figure, write
from cbdetach.evaluate.methods import METHODS, TUNABLE, Predict, Tunable, network_predictions, on_slice
from cbdetach.evaluate.results import Evaluation, Result
from cbdetach.evaluate.tuning import tune
from cbdetach.files import require_writable
from cbdetach.metrics import Prediction, compare
from cbdetach.progress import bar

__all__ = [
    "FILES",
    "METHODS",
    "TEST_SEED",
    "TUNABLE",
    "TUNING_SEED",
    "Evaluation",
    "Result",
    "Tunable",
    "activation",
    "bar_figure",
    "evaluate",
    "phantom_slices",
    "tune",
    "write",
]

TEST_SEED, TUNING_SEED = 1_000_000, 2_000_000
"""First scene that is tested on, and first that is tuned (and validated) on: training uses those below both."""
PER_SCENE = 2
"""Slices of one phantom scene: few, so that many electrodes are seen."""
TUNING_SLICES = 16


def evaluate(
    annotations: Path | str | None = None,
    out: Path | None = None,
    *,
    model: Path | None = None,
    phantom: int | None = None,
    tuning: Path | str | None = None,
    methods: Sequence[str] | None = None,
    iou: float = 0.5,
    overwrite: bool = False,
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
    overwrite : replace an evaluation that the folder holds.

    Raises
    ------
    InputError : neither or both of `annotations` and `phantom`; an option out of range; no labelled particle; a slice
        that a method cannot take; whatever reading the labels or the model says.
    """
    chosen = _check(annotations, phantom, methods, iou)
    if tuning is not None and not TUNABLE.keys() & set(chosen):
        raise InputError(f"--tune: only goes with {' or '.join(TUNABLE)}; got {tuning} for the network. Leave it out.")
    if model is not None and "network" not in chosen:
        raise InputError(f"--model: only goes with the network; got {model} for {' and '.join(chosen)}. Leave it out.")
    if out is not None:
        _require_free(out, FILES, overwrite=overwrite)
    network = network_predictions(model) if "network" in chosen else None
    slices = _read(str(annotations)) if phantom is None else phantom_slices(phantom, progress=progress)
    if not any(s.labels.any() for s in slices):
        raise InputError(f"{annotations}: must hold at least one labelled particle; got none.")
    source = f"{annotations}" if phantom is None else "held-out phantom scenes"
    examples, tuned_on = slices, "these slices themselves, which favours them"
    if TUNABLE.keys() & set(chosen):
        if tuning is not None:
            examples, tuned_on = _read(tuning, "--tune"), f"{tuning}"
        elif phantom is not None:
            examples, tuned_on = phantom_slices(TUNING_SLICES, TUNING_SEED, progress=progress), "other phantom scenes"

    results = []
    for name in chosen:
        tuned = tune(TUNABLE[name], examples, iou=iou, progress=progress) if name in TUNABLE else ({}, [])
        results.append(_judged(name, slices, network, *tuned, progress=progress))
    evaluation = Evaluation([s.name for s in slices], source, tuned_on, iou, results)
    if out is not None:
        write(evaluation, out)
    return evaluation


def _judged(
    name: str,
    slices: Sequence[LabelledSlice],
    network: Predict | None,
    parameters: dict[str, float],
    tried: list[dict[str, float]],
    *,
    progress: bool,
) -> Result:
    """One method, with the parameters that it was tuned to, on every slice."""
    from cbdetach.segment.maskrcnn import estimated_diameter

    start = time.perf_counter()
    comparisons, ranked = [], []
    for s in bar(slices, name, unit="slice", show=progress):
        if name in TUNABLE:
            found = on_slice(TUNABLE[name].segment, s, on_slice(estimated_diameter, s), **parameters)
            comparisons.append(compare(Prediction(found), s))
            ranked.append(comparisons[-1])
        else:
            assert network is not None
            for kept, predicted in zip((comparisons, ranked), on_slice(network, s), strict=True):
                kept.append(compare(predicted, s))
    return Result(name, comparisons, ranked, parameters, tried, (time.perf_counter() - start) / len(slices))


def activation(
    checkpoint: Path,
    annotations: Path | str | None = None,
    out: Path = Path("cbdetach_evaluation"),
    *,
    phantom: int | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> str:
    """Write the activation map of a checkpoint's network on labelled slices, and say what it shows.

    annotations, phantom, overwrite : as for `evaluate`. Needs the extra `train`; see `cbdetach.train.activation`.

    Raises
    ------
    InputError : as `evaluate`; no checkpoint of `cbdetach train`; no slice to choose a channel on.
    """
    from cbdetach.train import activation as _activation
    from cbdetach.train import checkpoint as checkpoints

    _check(annotations, phantom, None, 0.5)
    _require_free(out, _activation.FILES, overwrite=overwrite)
    model = checkpoints.load(checkpoint).model
    shown = _read(str(annotations)) if phantom is None else phantom_slices(phantom, progress=progress)
    examples = phantom_slices(TUNING_SLICES, TUNING_SEED, progress=progress)
    return _activation.write_activation(model, shown, examples, out)


def phantom_slices(count: int, first_seed: int = TEST_SEED, *, progress: bool = False) -> list[LabelledSlice]:
    """`count` labelled slices of the scenes from `first_seed` on, `PER_SCENE` of each: the same every time."""
    from cbdetach.train.scenes import slices_of_scene

    scenes = range(first_seed, first_seed - (-count // PER_SCENE))
    return [
        s for n in bar(scenes, "phantoms", unit="slice", show=progress) for s in slices_of_scene(n, count=PER_SCENE)
    ][:count]


def _require_free(out: Path, files: Sequence[str], *, overwrite: bool) -> None:
    require_writable(out)
    if not overwrite and any((out / name).exists() for name in files):
        raise InputError(f"-o/--out: {out} holds an evaluation; choose another folder, or replace it with --overwrite.")


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


def _read(path: Path | str, option: str = "ANNOTATIONS") -> list[LabelledSlice]:
    from cbdetach.annotations import read_given

    slices = read_given(path, option)
    if not slices:
        raise InputError(f"{option}: {path} must hold at least one labelled slice; got none.")
    return slices
