"""Does the band of detachment hold the truth, and is what is called unresolved too thin to be seen?

    python -m benchmarks.accuracy_bands [SIZE [SEED ...]]          (128, seeds 0 1 2: about seven minutes on two cores)

Whole runs on phantoms that differ in the thickness of the carbon/binder, in widths (FWHM) of the blur; nothing is given
but the grey values. Whole particles that are found one to one count. Columns:

- `error`: mean absolute error of `detachment_fraction`;
- `band`: mean of `detachment_fraction_high` - `_low`; `held`: share of the particles whose truth lies in the band;
  `beyond`: how far the truth lies outside it on the mean, where it does; `least`: the half width that a band about
  `detachment_fraction` needs to hold nine tenths;
- `unresolved`: mean `unresolved_fraction`, beside the true share of the surface (in voxels of half the edge) behind
  which, 1.25 blur widths along the normal, lies another phase than beside it; their mean absolute difference.

The second table, least and greatest of the electrodes: `film_height` of `run.json`, in how many of them the run warns
that the carbon/binder is too thin, and the mean of found - true `detachment_fraction`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

import cbdetach
from cbdetach.arrays import along
from cbdetach.codes import ACTIVE
from cbdetach.demo import match, write_phantom
from cbdetach.films import THIN
from cbdetach.phantom import Phantom, PhantomSettings
from cbdetach.phases import MARGIN

Array = npt.NDArray[Any]

WIDTHS = (3.0, 2.0, 1.0, 0.7, 0.5)
"""Thickness of the carbon/binder, in widths of the blur."""


def thin_share(labels: Array, phases: Array, *, spacing: tuple[float, float, float], delta_um: float) -> Array:
    """Share of each particle's faces towards void or carbon/binder behind which, `delta_um` along the normal, lies
    another phase: (N + 1,) by label, nan where there is no such face. Only particles' own truth goes in.
    """
    from scipy.ndimage import gaussian_filter

    solid = gaussian_filter((phases >= ACTIVE).astype(np.float32), 2.0)
    n = int(labels.max()) + 1
    total, thin = np.zeros(n), np.zeros(n)
    for axis in range(3):
        lower, upper = along(axis, None, -1), along(axis, 1, None)
        for own, other, shift in ((lower, upper, 1), (upper, lower, 0)):
            faces = (labels[own] > 0) & (labels[other] == 0) & (phases[other] < ACTIVE)
            where = np.argwhere(faces)
            whose = labels[own][faces]
            where[:, axis] += shift  # of the voxel outside
            slope = np.stack([_difference(solid, where, a) / spacing[a] for a in range(3)], axis=1)
            slope /= np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-12)
            there = np.rint(where - delta_um * slope / np.array(spacing)).astype(int)
            there = np.clip(there, 0, np.array(labels.shape) - 1)
            here = phases[tuple(where.T)]
            beyond = np.minimum(phases[tuple(there.T)], ACTIVE)
            total += np.bincount(whose, minlength=n)
            thin += np.bincount(whose, weights=beyond != here, minlength=n)
    return np.divide(thin, total, out=np.full(n, np.nan), where=total > 0)


def _difference(field: Array, where: Array, axis: int) -> Array:
    up, down = where.copy(), where.copy()
    up[:, axis] = np.minimum(up[:, axis] + 1, field.shape[axis] - 1)
    down[:, axis] = np.maximum(down[:, axis] - 1, 0)
    return np.asarray(field[tuple(up.T)] - field[tuple(down.T)])


def measure(size: int, width: float, seed: int, folder: Path) -> pd.DataFrame:
    """One run; whole particles with what was found and what is true, and in every row the run's `film_height`."""
    blur = PhantomSettings().blur_fwhm_um
    phantom = Phantom(PhantomSettings(shape=(size, size, size), coating_thickness_um=width * blur, seed=seed))
    volume = folder / f"phantom_{width:g}_{seed}.h5"
    write_phantom(phantom, volume)
    with (
        cbdetach.run(volume, volume.with_suffix(""), segmenter="watershed", config={"report": {"gallery": 0}}) as run,
        h5py.File(volume, "r") as file,
    ):
        ids, own = match(run.volumes["particles"], file["truth/labels"])
        found, delta = run.table.set_index("label").loc[ids], MARGIN * run.record["edge_width_um"]
        height = run.record["film_height"]
    fine = phantom.finer(2)
    labels, phases, _ = fine.codes(0, fine.settings.shape[0])
    spacing = fine.settings.voxel_size_um
    true = phantom.truth.set_index("label").loc[own]
    table = pd.DataFrame(
        {
            "true": true["detachment_fraction"].to_numpy(),
            "found": found["detachment_fraction"].to_numpy(float),
            "low": found["detachment_fraction_low"].to_numpy(float),
            "high": found["detachment_fraction_high"].to_numpy(float),
            "unresolved": found["unresolved_fraction"].to_numpy(float),
            "thin": thin_share(labels, phases, spacing=spacing, delta_um=delta)[own],
            "height": height,
        }
    )
    whole = ~found["touches_border"].to_numpy(bool) & ~true["touches_border"].to_numpy(bool)
    return table[whole].dropna()


def line(width: float, t: pd.DataFrame) -> str:
    """One row of the table."""
    held = (t["low"] <= t["true"]) & (t["true"] <= t["high"])
    beyond = np.maximum(t["low"] - t["true"], t["true"] - t["high"])[~held]
    error = (t["found"] - t["true"]).abs()
    cells = [
        f"{width:g}", f"{len(t)}", f"{error.mean():.3f}", f"{(t['high'] - t['low']).mean():.3f}", f"{held.mean():.2f}",
        f"{beyond.mean() if len(beyond) else 0:.3f}", f"{error.quantile(0.9):.3f}", f"{t['unresolved'].mean():.3f}",
        f"{t['thin'].mean():.3f}", f"{(t['unresolved'] - t['thin']).abs().mean():.3f}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |\n"


def film_line(width: float, electrodes: list[pd.DataFrame]) -> str:
    """One row of the second table."""
    heights = [t["height"].iloc[0] for t in electrodes]
    errors = [(t["found"] - t["true"]).mean() for t in electrodes]
    warned = sum(height < THIN for height in heights)
    cells = [
        f"{width:g}", f"{min(heights):.2f} to {max(heights):.2f}", f"{warned} of {len(electrodes)}",
        f"{min(errors):+.3f} to {max(errors):+.3f}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |\n"


def main() -> None:
    """Print the tables; arguments as above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", type=int, nargs="?", default=128)
    parser.add_argument("seeds", type=int, nargs="*", default=[0, 1, 2])
    wanted = parser.parse_args()
    sys.stdout.write(
        "| carbon/binder, blur widths | n | error | band | held | beyond | least | unresolved | true | difference |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n"
    )
    films = []
    for width in WIDTHS:
        with tempfile.TemporaryDirectory() as name:
            tables = [measure(wanted.size, width, seed, Path(name)) for seed in wanted.seeds or [0, 1, 2]]
        sys.stdout.write(line(width, pd.concat(tables)))
        sys.stdout.flush()
        films.append(film_line(width, tables))
    sys.stdout.write(
        "\n| carbon/binder, blur widths | `film_height` | warns | detachment, found - true |\n|---|---|---|---|\n"
    )
    sys.stdout.writelines(films)


if __name__ == "__main__":
    main()
