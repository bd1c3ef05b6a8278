"""The report of a run: figures, each with its data, and one self-contained HTML page.

`write_report` takes plain values and lazy volumes, knows nothing of the pipeline, and reads of the volumes only three
slices and the boxes of the particles that it shows. Equal input gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cbdetach.report.summary import Summary, summarise

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["ReportInput", "Summary", "summarise", "write_report"]


@dataclass(frozen=True)
class ReportInput:
    """What a report is made of. Lengths in micrometres. Volumes (Z, Y, X) are anything with `.shape` that is read by
    `[z0:z1, y0:y1, x0:x1]`; what does not exist is None or empty, and the report says so."""

    out: Path  # the run's folder: figures/ and report.html go there
    title: str  # name of the input
    voxel_size: tuple[float, float, float]
    shape: tuple[int, int, int]
    table: DataFrame  # the columns of particles.csv, N rows
    boxes: npt.NDArray[np.int64]  # (N, 6), row by row: z0, y0, x0, z1, y1, x1, half-open
    profiles: DataFrame  # the columns of profiles.csv
    particles: Any  # labels
    phases: Any  # codes of cbdetach.codes
    grey: Any | None = None
    diffusion_length: Any | None = None  # inf where no contact is reached, nan outside the solid
    damage: Any | None = None  # degree of damage, 1/um; nan outside particles
    connected: Mapping[str, Any] | None = None  # anchor, undetermined, volume_shares by connectivity and class
    cbd_connected: Any | None = None  # classes of carbon/binder by faces, codes of cbdetach.connected
    cbd_connected26: Any | None = None  # by faces, edges and corners
    survey: dict[str, Any] | None = None  # counts, edges, edge_width_um, edge_rays, edge_profile {distance_um, grey}
    thresholds: dict[str, Any] | None = None  # phases.Thresholds.to_dict()
    sensitivity: DataFrame | None = None  # kind ("tolerance" or a threshold), value, detachment_median, q1, q3, n
    cbd_thickness: DataFrame | None = None  # thickness_um (middle of the class), share
    radial: DataFrame | None = None  # the columns of damage_layers.radial_profile
    paths: Sequence[npt.NDArray[np.float64]] = ()  # (n, 3) index coordinates, from the farthest voxel of a particle
    path_labels: Sequence[int] = ()
    densities: DataFrame | None = None  # the columns of densities.csv
    erosion_um: float | None = None  # the depth that the table's densities are measured below
    peaks: DataFrame | None = None  # phase (cbd, active, collector), grey (middle of the class), voxels
    features: DataFrame | None = None  # the columns of features.csv
    balances: Sequence[Mapping[str, Any]] = ()  # one row each; a value `ok` (bool) becomes a mark
    warnings: Sequence[str] = ()
    settings: str = ""  # TOML
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0  # of the gallery's draw
    gallery: int = 20  # how many particles it draws


def write_report(run: ReportInput) -> Path:
    """Write `figures/<name>.png`, `.svg` and `.csv`, then `report.html`, and return the page's path.

    Every file is written under a temporary name and renamed. Memory: three slices, and one particle's box at a time.
    """
    from cbdetach.files import whole_file
    from cbdetach.report import html

    with plain_style():
        page = html.build(run, summarise(run.table))
    path = run.out / "report.html"
    with whole_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


@contextmanager
def plain_style() -> Iterator[None]:
    """Our look whatever the user's matplotlibrc says; restored afterwards."""
    import matplotlib

    from cbdetach.report import style

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style.RC)
        yield
