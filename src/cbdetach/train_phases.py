"""Training of the pixel classifier: from grey volumes and labels, slice by slice, to one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach.classifier import Classifier, train
from cbdetach.codes import PHASE_CODES
from cbdetach.errors import InputError, called
from cbdetach.files import require_new, require_writable, told
from cbdetach.given_phases import check_phase_values
from cbdetach.pixel_features import grey_scale, halo, slice_features
from cbdetach.volume import Volume, check_finite, open_volume

Array = npt.NDArray[Any]

SLICES = 16
"""Slices of a volume, spread over those that hold labels, that voxels are drawn from."""

UNLABELLED = 255

MOST_SAMPLES = 1_000_000
MOST_TREES = 1000
"""A forest gains nothing from more; time grows with the product of both, and with the number of volumes."""


def train_phases(
    pairs: Sequence[tuple[str | Path | Array, str | Path | Array]],
    phase_values: Mapping[str, int],
    out: str | Path | None = None,
    *,
    dimensions: int = 2,
    samples: int = 20_000,
    trees: int = 40,
    min_leaf: int = 10,
    seed: int = 0,
    overwrite: bool = False,
) -> Classifier:
    """Train a classifier on pairs of grey volume and labels, (Z, Y, X) each, and write it to `out`.

    phase_values : value of each phase in the labels, as in ``{"void": 2, "cbd": 1, "active": 0}``; voxels of any other
        value are unlabelled, so a few strokes are enough.
    dimensions : 2: features of each slice alone; 3: with its neighbours'.
    samples : labelled voxels that are drawn from each volume, at most; 1 to MOST_SAMPLES.
    trees : of the forest, 1 to MOST_TREES.
    overwrite : whether `out` may be a file that exists.

    Raises InputError where a pair does not fit together or holds no labels.
    """
    if not pairs:
        raise InputError("train-phases: must get at least one pair of grey volume and labels; got none.")
    if dimensions not in (2, 3):
        raise InputError(f"--dimensions: must be 2 or 3; got {dimensions}.")
    for name, value, most in (("samples", samples, MOST_SAMPLES), ("trees", trees, MOST_TREES)):
        if not 1 <= value <= most:
            raise InputError(f"--{name}: must be 1 to {most}; got {value}.")
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed: must be 0 to {2**32 - 1}; got {seed}.")
    check_phase_values(phase_values)
    if out is not None:
        require_writable(Path(out), what="file")
        require_new(Path(out), overwrite=overwrite)
    drawn, names, sizes = [], [], set()
    for number, (grey_source, label_source) in enumerate(pairs):
        with _opened(grey_source, "grey") as grey, _opened(label_source, "labels") as labels:
            if grey.shape != labels.shape:
                raise InputError(
                    f"--labels: must have the shape of the grey volume, {grey.shape}; got {labels.shape}. "
                    "Give the labels that were drawn on it."
                )
            drawn.append(_draw(grey, labels, phase_values, dimensions, samples, (seed, number)))
            names.append(grey.name)
            sizes.add(grey.voxel_size)
    forest, codes = train(drawn, trees=trees, min_leaf=min_leaf, seed=seed)
    size = sizes.pop() if len(sizes) == 1 else None
    classifier = Classifier(forest, codes, dimensions, size, tuple(names))
    if out is not None:
        with told(Path(out), what="file"):
            classifier.save(Path(out))
    return classifier


def _opened(source: Any, kind: Any) -> Volume:
    with called(f"--{kind}"):
        return open_volume(source, kind=kind, allow_2d=True)


def _draw(
    grey: Any, labels: Any, phase_values: Mapping[str, int], dimensions: int, samples: int, seed: tuple[int, int]
) -> tuple[Array, Array]:
    """Features and phase codes of voxels drawn evenly from the labelled slices of one volume."""
    held = []
    for z in range(grey.shape[0]):
        with called("--grey"):
            check_finite(grey[z : z + 1], z)
        held.append(np.count_nonzero(_codes(labels[z : z + 1], phase_values) != UNLABELLED))
    scale = grey_scale(grey)
    labelled = np.flatnonzero(held)
    if not labelled.size:
        raise InputError("--labels: must hold voxels of the phases in --phase-values; got none. Check the values.")
    chosen = labelled[np.unique(np.linspace(0, labelled.size - 1, min(SLICES, labelled.size)).round().astype(int))]
    rng = np.random.default_rng(seed)
    reach = halo(dimensions)
    x, y = [], []
    for z in chosen.tolist():
        w0, w1 = max(0, z - reach), min(grey.shape[0], z + reach + 1)
        codes = _codes(labels[z : z + 1], phase_values)[0].ravel()
        features = slice_features(grey[w0:w1], z - w0, scale, dimensions).reshape(codes.size, -1)
        at = np.flatnonzero(codes != UNLABELLED)
        at = rng.choice(at, min(at.size, -(-samples // chosen.size)), replace=False)
        x.append(features[at])
        y.append(codes[at])
    return np.concatenate(x), np.concatenate(y)


def _codes(labels: Array, phase_values: Mapping[str, int]) -> npt.NDArray[np.uint8]:
    codes = np.full(labels.shape, UNLABELLED, np.uint8)
    for name, value in phase_values.items():
        codes[labels == value] = PHASE_CODES[name]
    return codes
