"""Made-up electrodes: particles on a jittered lattice, sizes, and detachments that are correlated in space."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd

from cbdetach.electrodes import Electrode
from cbdetach.report.relations import Sample
from cbdetach.table import COLUMNS

SPACING = 8.0


@lru_cache(maxsize=8)
def places(n: int, seed: int = 0) -> np.ndarray:
    """(n, 3) centroids, micrometres: a cubic lattice of 8 um with jitter."""
    rng = np.random.default_rng(seed)
    edge = int(np.ceil(n ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(edge)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    grid = grid[np.sort(rng.permutation(len(grid))[:n])]
    return (grid + rng.uniform(-0.3, 0.3, grid.shape)) * SPACING


@lru_cache(maxsize=8)
def covariance(n: int, nugget: float, length: float) -> np.ndarray:
    """(n, n) correlation of particles at the distance d: nugget * exp(-d / length), 1 on the diagonal."""
    at = places(n)
    distance = np.linalg.norm(at[:, None] - at[None], axis=-1)
    found = nugget * np.exp(-distance / length)
    np.fill_diagonal(found, 1)
    return found


@lru_cache(maxsize=8)
def _root(n: int, nugget: float, length: float) -> np.ndarray:
    return np.linalg.cholesky(covariance(n, nugget, length) + 1e-9 * np.eye(n))


def field(rng: np.random.Generator, n: int, *, nugget: float = 0.8, length: float = 12.0, draws: int = 1) -> np.ndarray:
    """(n, draws) standard normal fields; the default makes neighbours correlate at 0.42, as measured."""
    return _root(n, nugget, length) @ rng.normal(size=(n, draws))


def sizes(n: int, seed: int = 0) -> np.ndarray:
    """(n,) diameters, micrometres, median 7.5."""
    return np.random.default_rng([seed, 1]).lognormal(np.log(7.5), 0.3, n)


def fake_sample(detachment: np.ndarray, *, seed: int = 0) -> Sample:
    """A sample with these detachments, on the lattice."""
    n = detachment.size
    diameter = sizes(n, seed)
    return Sample(
        label=np.arange(1, n + 1),
        volume=np.zeros(n, np.int64),
        position=places(n),
        diameter=diameter,
        detachment=detachment,
        area=0.8 * np.pi * diameter**2,
        density=np.full(n, np.nan),
        weight=np.ones(n),
    )


def fake_table(detachment: np.ndarray, *, density: np.ndarray | None = None, seed: int = 0) -> pd.DataFrame:
    """A table of particles with these detachments; a tenth more are cut by the border, with other values."""
    n, cut = detachment.size, detachment.size // 10
    diameter = np.append(sizes(n, seed), np.full(cut, 6.0))
    area = 0.8 * np.pi * diameter**2
    value = np.append(detachment, np.full(cut, 0.9))
    columns = {
        "label": np.arange(1, n + cut + 1),
        "equivalent_diameter_um": diameter,
        "volume_um3": np.pi / 6 * diameter**3,
        "touches_border": np.arange(n + cut) >= n,
        "inclusion_weight": np.where(np.arange(n + cut) >= n, 0.0, 1.1),
        "detachment_fraction": value,
        "area_void_um2": area * value,
        "area_cbd_um2": area * (1 - value),
        "diffusion_status": "reached",
    }
    for k, name in enumerate(("z_um", "y_um", "x_um")):
        columns[name] = np.append(places(n)[:, k], np.zeros(cut))
    if density is not None:
        columns["density_mean"] = np.append(density, np.full(cut, np.nan))
    return pd.DataFrame({name: columns.get(name, np.full(n + cut, np.nan)) for name in COLUMNS})


def electrode_values(
    rng: np.random.Generator, electrodes: int, n: int, *, mean: np.ndarray, sd: float, icc: float
) -> np.ndarray:
    """(electrodes, n) detachments: mean + electrode effect + correlated particles; `icc`: the effect's share."""
    effect = rng.normal(0, sd * np.sqrt(icc), electrodes)
    within = field(rng, n, length=6.0, draws=electrodes).T * sd * np.sqrt(1 - icc)
    return np.clip(mean[:, None] + effect[:, None] + within, 0, 1)


def fake_electrodes(
    rng: np.random.Generator,
    groups: list[float],
    *,
    n: int = 216,
    shift: float = 0.1,
    icc: float = 0.05,
    sd: float = 0.11,
) -> list[Electrode]:
    """One electrode for each rate in `groups`; those of the largest rate are more detached by `shift`."""
    mean = 0.38 + shift * (np.array(groups) == max(groups))
    values = electrode_values(rng, len(groups), n, mean=mean, sd=sd, icc=icc)
    return [
        Electrode(
            name=f"electrode {k + 1}",
            about={"rate": rate, "cycles": 10.0, "state_of_charge": float("nan")},
            tables=[fake_table(value, density=1 + 0.05 * rng.normal(size=n), seed=k)],
        )
        for k, (rate, value) in enumerate(zip(groups, values, strict=True))
    ]
