"""The per-particle table: its columns, their units and meaning, and how the stages' shares become its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]

COLUMNS: dict[str, tuple[str, str]] = {
    "label": ("", "value of the particle in the /particles volume"),
    "z_um": ("um", "centroid; the centre of the first voxel is at 0"),
    "y_um": ("um", "centroid"),
    "x_um": ("um", "centroid"),
    "volume_um3": ("um^3", "volume of the filled particle, cracks and pores included"),
    "equivalent_diameter_um": ("um", "diameter of the ball of the same volume"),
    "surface_area_um2": ("um^2", "outer surface: void, carbon/binder, other particles, collector and crack mouths"),
    "sphericity": (
        "1",
        "surface of the ball of the same volume / outer surface; empty for particles cut by the border",
    ),
    "elongation": ("1", "longest / shortest principal axis of the inertia ellipsoid"),
    "touches_border": ("", "whether the volume's border cuts the particle"),
    "inclusion_weight": ("1", "1 / prod(1 - extent / volume's extent), Miles-Lantuejoul; 0 for cut particles"),
    "area_cbd_um2": ("um^2", "surface that faces carbon/binder"),
    "area_void_um2": ("um^2", "surface that faces void"),
    "area_particle_um2": ("um^2", "surface that faces another particle, or active material without a label"),
    "contact_known_fraction": ("1", "(area_void + area_cbd) / outer surface"),
    "unresolved_fraction": ("1", "share of area_void + area_cbd whose neighbour is too thin for the instrument"),
    "detachment_fraction": ("1", "degree of detachment: area_void / (area_void + area_cbd)"),
    "detachment_fraction_low": ("1", "least degree of detachment while the thresholds move over their bands"),
    "detachment_fraction_high": ("1", "greatest degree of detachment while the thresholds move over their bands"),
    "detachment_fraction_connected": (
        "1",
        "detachment counting only 6-connected carbon/binder with a path to the anchor",
    ),
    "detachment_fraction_connected26": ("1", "the same with 26-connected carbon/binder"),
    "diffusion_length_mean_um": ("um", "mean electron diffusion length over the reached solid"),
    "diffusion_length_median_um": ("um", "median over the reached solid"),
    "diffusion_length_p95_um": ("um", "95th percentile over the reached solid"),
    "diffusion_length_max_um": ("um", "largest over the reached solid"),
    "contact_ratio": ("1", "mean length, filled with the real contact / attached all round; smoothed outline"),
    "crack_ratio": ("1", "mean length, solid with the real contact / filled with the real contact"),
    "unreached_fraction": ("1", "share of the solid that no contact reaches"),
    "diffusion_status": ("", "reached, partly_reached or no_contact"),
    "crack_fraction": ("1", "crack volume / particle volume"),
    "pore_fraction": ("1", "volume of as-made pores / particle volume"),
    "crack_area_um2": ("um^2", "surface of the cracks"),
    "density_mean": ("grey", "mean grey value over the eroded solid"),
    "density_std": ("grey", "standard deviation over the eroded solid"),
    "slices": ("1", "number of slices that the particle extends over"),
    "score": ("1", "mean score of the particle's sections; empty where the segmenter gives none"),
}
"""Name -> (unit, meaning), in the order of `particles.csv`."""


def geometry_columns(
    regions: Any, shape: tuple[int, int, int], voxel_size: tuple[float, float, float]
) -> dict[str, Array]:
    """Columns that need only the particles' voxels: position, volume, extent, border and inclusion weight.

    `regions` is a `voxkernels.RegionProperties` in micrometres. Inclusion weight: Miles-Lantuejoul, see DEFINITIONS.
    """
    count = regions.count.astype(np.float64)
    volume = count * float(np.prod(voxel_size))
    extent = (regions.bbox[:, 3:] - regions.bbox[:, :3]).astype(np.float64)
    size = np.array(shape, dtype=np.float64)
    cut = ((regions.bbox[:, :3] == 0) | (regions.bbox[:, 3:] == size)).any(axis=1)
    room = np.prod(1 - np.minimum(extent / size, 1), axis=1)
    # The voxels' own extent (variance s^2 / 12 along each axis) keeps one-voxel-thin particles finite.
    own = np.diag(np.square(voxel_size) / 12)
    axes = np.sqrt(np.linalg.eigvalsh(regions.inertia + own)) if count.size else np.zeros((0, 3))
    return {
        "label": regions.labels,
        "z_um": regions.centroid[:, 0],
        "y_um": regions.centroid[:, 1],
        "x_um": regions.centroid[:, 2],
        "volume_um3": volume,
        "equivalent_diameter_um": np.cbrt(6 * volume / np.pi),
        "elongation": axes[:, 2] / axes[:, 0],
        "touches_border": cut,
        "inclusion_weight": np.where(cut | (room <= 0), 0.0, 1 / np.where(room > 0, room, 1.0)),
        "slices": (regions.bbox[:, 3] - regions.bbox[:, 0]),
    }


def sphericity(volume: Array, surface: Array, cut: Array) -> npt.NDArray[np.float64]:
    """pi^(1/3) (6 V)^(2/3) / S (Wadell 1935); nan for cut particles and where there is no surface."""
    known = ~cut & (surface > 0)
    ball = np.cbrt(np.pi) * np.cbrt(6 * volume) ** 2
    return np.asarray(np.divide(ball, surface, out=np.full(volume.shape, np.nan), where=known))


def assemble(columns: dict[str, Array]) -> pd.DataFrame:
    """The table in its contract's order; a column that nothing has filled is there, and empty."""
    import pandas as pd

    n = len(columns["label"])
    unknown = set(columns) - set(COLUMNS)
    if unknown:
        raise KeyError(f"columns that the table does not have: {sorted(unknown)}")
    return pd.DataFrame({name: columns.get(name, np.full(n, np.nan)) for name in COLUMNS})


def data_dictionary(empty: dict[str, str]) -> dict[str, dict[str, str]]:
    """Unit and meaning of every column, and why it is empty where it is."""
    return {
        name: {"unit": unit, "meaning": meaning} | ({"empty_because": empty[name]} if name in empty else {})
        for name, (unit, meaning) in COLUMNS.items()
    }
