"""The table of features, and its files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

import voxkernels as vk
from cbdetach import features, packing
from cbdetach.files import write_json, write_table
from cbdetach.gather.columns import aligned
from cbdetach.job import Job

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]


def feature_frame(job: Job, frame: pd.DataFrame, measured: vk.ContactAreas) -> pd.DataFrame:
    """The table of features, row by row as that of the particles."""
    import pandas as pd

    result, wanted = job.result("features"), job.settings.features
    shares = job.tables("features", "table/surfaces")
    surfaces = aligned(job.regions.labels, shares, [name for name in shares[0] if name != "labels"])
    cell = tuple(result["packing_cell"])
    cells = packing.join_cells(
        [(int(t["first"]), t["counts"]) for t in job.tables("features", "table/cells")], -(-job.shape[0] // cell[0])
    )
    packed = packing.packing(
        cells,
        (cell[0], cell[1], cell[2]),
        job.regions.centroid,
        side_um=wanted.neighbourhood_um,
        shape=job.shape,
        spacing=job.voxel_size,
    )
    found = features.feature_columns(
        job.regions,
        {str(name): frame[name].to_numpy() for name in frame},
        measured,
        surfaces,
        packed,
        shape=job.shape,
        spacing=job.voxel_size,
        min_contact_um2=result["min_contact_um2"],
    )
    return pd.DataFrame(found)


def write_features(job: Job, found: pd.DataFrame, reasons: Mapping[str, str]) -> None:
    """`features.csv` and `.parquet`, and `features.json`: units, meanings, and the settings that they depend on."""
    out = job.folder.path
    content = {
        "columns": features.feature_dictionary({str(n): found[n].to_numpy() for n in found}, reasons),
        "settings": job.result("features") | {"neighbourhood_um": job.settings.features.neighbourhood_um},
    }
    content["settings"].pop("warnings")
    for name in ("features.csv", "features.parquet"):
        write_table(out / name, found)
    write_json(out / "features.json", content)
