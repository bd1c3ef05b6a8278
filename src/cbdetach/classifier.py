"""A trained pixel classifier: where grey values alone do not separate carbon/binder from pore.

A random forest (Breiman, Machine Learning 45, 5, 2001) on features of several scales (`pixel_features`), as in ilastik
(Berg et al., Nature Methods 16, 1226, 2019) and Trainable Weka Segmentation. Grey values are put on a scale of the
volume's own first, so that a forest may be used on another scan.

A voxel is active where the active phases together have a share of at least one half; else it is what has the largest
share of the rest. `decide` moves either decision, for the band of results that a run reports.

A classifier is a file of arrays with a version and a check sum (`save`, `load`); reading one runs no code.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbdetach.codes import ACTIVE, ACTIVE_HIGH, CBD, PHASE_CODES, VOID
from cbdetach.errors import InputError
from cbdetach.forest import Forest
from cbdetach.pixel_features import RADII, SIGMAS, feature_count, halo, slice_features

Array = NDArray[Any]
Codes = NDArray[np.uint8]

VERSION = 2
MAX_BYTES = 1 << 30
"""Largest file, and largest array in it, that `load` reads."""
ARRAYS = ("roots", "feature", "threshold", "right", "shares")
BAND = {"cbd_active_low": (0.25, 0.5), "cbd_active_high": (0.75, 0.5), "void_cbd_low": (0.5, 0.25),
        "void_cbd_high": (0.5, 0.75)}  # fmt: skip
"""Least share of active, and of CBD beside void, that decide, by the name of the threshold that they stand for."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """Features to phases. `codes` (C,): the phase code of each class, ascending."""

    forest: Forest
    codes: tuple[int, ...]
    dimensions: int
    voxel_size_um: tuple[float, float, float] | None
    trained_on: tuple[str, ...] = ()

    @property
    def halo(self) -> int:
        """Slices on both sides of a slab that its features depend on."""
        return halo(self.dimensions)

    def shares(self, grey: Array, scale: tuple[float, float], core: tuple[int, int] | None = None) -> Array:
        """Share of every class (n, Y, X, C) float32 for the slices `core` of a window (Z, Y, X) with `halo` around.

        scale : grey values that are 0 and 1 (`grey_scale` of the whole volume).
        """
        z0, z1 = (0, len(grey)) if core is None else core
        found = np.empty((z1 - z0, *grey.shape[1:], len(self.codes)), np.float32)
        for z in range(z0, z1):
            x = slice_features(grey, z, scale, self.dimensions)
            found[z - z0] = self.forest.shares_of(x.reshape(-1, x.shape[-1])).reshape(found.shape[1:])
        return found

    def decide(self, shares: Array, variant: str | None = None) -> Codes:
        """Phase codes (...,) from shares (..., C); `variant`: a name in BAND that moves one of the decisions."""
        least_active, least_cbd = (0.5, 0.5) if variant is None else BAND[variant]
        codes = np.array(self.codes, np.uint8)
        bright = (codes == ACTIVE) | (codes == ACTIVE_HIGH)
        active = shares[..., bright].sum(-1) >= least_active
        rest = shares[..., ~bright]
        if CBD in self.codes and VOID in self.codes:
            rest = rest * np.where(codes[~bright] == CBD, (1 - least_cbd) / least_cbd, 1).astype(np.float32)
        dark = codes[~bright][rest.argmax(-1)]
        decided: Codes = np.where(active, codes[bright][shares[..., bright].argmax(-1)], dark)
        return decided

    @property
    def digest(self) -> str:
        """Check sum (SHA-256) of everything that decides a phase."""
        return _digest(self._header(), {name: getattr(self.forest, name) for name in ARRAYS})

    def _header(self) -> str:
        return json.dumps(
            {
                "format": "cbdetach phase classifier",
                "version": VERSION,
                "codes": self.codes,
                "dimensions": self.dimensions,
                "sigmas": SIGMAS,
                "radii": RADII,
                "voxel_size_um": self.voxel_size_um,
                "trained_on": self.trained_on,
            },
            sort_keys=True,
        )

    def save(self, path: Path) -> None:
        """Write the classifier as arrays."""
        from cbdetach.files import whole_file

        arrays = {name: getattr(self.forest, name) for name in ARRAYS}
        with whole_file(path) as temporary, temporary.open("wb") as file:
            texts = {"header": np.array(self._header()), "sha256": np.array(self.digest)}
            np.savez_compressed(file, allow_pickle=False, **arrays, **texts)


def load(path: str | Path) -> Classifier:
    """Read a classifier. InputError where the file is not one, was changed, or comes from another version."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"classifier: there is no file {path}; train one with cbdetach train-phases.")
    try:
        with zipfile.ZipFile(path) as archive:
            if max(member.file_size for member in archive.infolist()) > MAX_BYTES:
                raise InputError(f"classifier: must be smaller than {MAX_BYTES >> 20} MB; {path} is larger.")
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in (*ARRAYS, "header", "sha256")}
        text = str(content.pop("header"))
        header: dict[str, Any] = json.loads(text)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"classifier: {path} is not a file of cbdetach train-phases ({error}).") from None
    scales = (tuple(header.get(name, ())) for name in ("sigmas", "radii"))
    if header.get("version") != VERSION or tuple(scales) != (SIGMAS, RADII):
        raise InputError(f"classifier: {path} comes from another version of cbdetach; train it again.")
    if str(content.pop("sha256")) != _digest(text, content):
        raise InputError(f"classifier: {path} was changed or damaged (its check sum does not fit); train it again.")
    kinds = {"roots": np.int64, "feature": np.int32, "threshold": np.float64, "right": np.int64, "shares": np.float32}
    if any(content[name].dtype != kind for name, kind in kinds.items()):
        raise InputError(f"classifier: {path} holds arrays of other types than cbdetach writes; train it again.")
    forest = Forest(**content)
    codes, dimensions = tuple(header["codes"]), header["dimensions"]
    if dimensions not in (2, 3) or list(codes) != sorted(set(codes) & set(PHASE_CODES.values())):
        raise InputError(f"classifier: {path} holds no known phases; train it again.")
    forest.check(feature_count(dimensions), len(codes))
    size = header["voxel_size_um"]
    return Classifier(forest, codes, dimensions, None if size is None else tuple(size), tuple(header["trained_on"]))


def _digest(header: str, arrays: dict[str, Array]) -> str:
    digest = hashlib.sha256(header.encode())
    for name in ARRAYS:
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def train(
    samples: list[tuple[Array, Array]], *, trees: int = 40, min_leaf: int = 10, seed: int = 0
) -> tuple[Forest, tuple[int, ...]]:
    """A forest from features (n, F) and phase codes (n,) of labelled voxels, one pair per volume."""
    from sklearn.ensemble import RandomForestClassifier

    x, y = np.concatenate([s[0] for s in samples]), np.concatenate([s[1] for s in samples])
    codes = tuple(int(c) for c in np.unique(y))
    if len(codes) < 2 or not set(codes) & {ACTIVE, ACTIVE_HIGH} or not set(codes) - {ACTIVE, ACTIVE_HIGH}:
        raise InputError(
            "--labels: must hold voxels of the active phase and of another one; name both in --phase-values."
        )
    fitted = RandomForestClassifier(trees, min_samples_leaf=min_leaf, random_state=seed).fit(x, y)
    return Forest.from_sklearn(fitted), codes
