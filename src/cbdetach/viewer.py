"""A finished run in napari: the grey volume it was measured on, and everything that was found there.

`layers` makes the tuples (data, options, kind) that napari calls LayerDataTuple, without napari; `view` opens a window
with them, and `get_reader` is the plugin's reader (`napari.yaml`), for a run's folder that is dropped on napari.

Nothing is read before it is drawn. A volume stays in its file, as a `Lazy` array: what napari asks for is noted, and
read where NumPy needs the values, `BAND` slices of the file at a time. A volume of more than `WHOLE` voxels comes with
a coarse copy, whose voxels are picked as they are read: napari draws slices from the volume itself, and its 3D view
from the copy, so that what does not fit in memory can be turned around as well.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cbdetach.connected import CONNECTED, ISOLATED, UNDETERMINED
from cbdetach.errors import InputError
from cbdetach.prepare import fingerprint
from cbdetach.report import style
from cbdetach.report.connected import KINDS
from cbdetach.report.drawing import colour_map
from cbdetach.report.summary import numbers
from cbdetach.results import Run
from cbdetach.store import RUN_RECORD, RunFolder
from cbdetach.volume import Volume, open_volume

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]
Layer = tuple[Any, dict[str, Any], str]
"""Data, options and kind of a layer: napari's LayerDataTuple."""

log = logging.getLogger("cbdetach")

WHOLE = 2**25
"""Voxels of a volume that may be in memory whole, for napari's 3D view."""

BAND = 8
"""Slices of a file that are read at a time: the chunks of a run's volumes are so deep."""

KEPT = 2**25
"""Voxels of the largest band that is kept: of slices of 2048 x 2048."""

SEGMENTS = 200_000
"""The longest paths are drawn with at most about so many segments, all together."""

FIRST = (
    "detachment_fraction",
    "diffusion_length_mean_um",
    "contact_ratio",
    "crack_fraction",
    "equivalent_diameter_um",
    "touches_border",
)
"""What is told first of the particle under the pointer; the other columns follow in the table's order."""

CBD_CLASSES = {
    CONNECTED: ("connected", KINDS["connected by faces"]),
    UNDETERMINED: ("undetermined", KINDS["leaves the volume"]),
    ISOLATED: ("isolated", KINDS["isolated"]),
}
"""Code of the `/cbd_connected` volumes -> name and colour."""

BINDINGS = ("PySide6", "PyQt6", "PyQt5")
"""Of Qt, which napari needs for its window; it brings none by itself."""


class Lazy:
    """Voxels of a stored volume: along each axis the indices that are shown, or the one index that is chosen.

    Slicing gives another `Lazy` array and reads nothing; `numpy.asarray` reads.
    """

    def __init__(self, source: Any, at: Sequence[Array]) -> None:
        self.source, self.at = source, tuple(at)
        self.dtype = np.dtype(source.dtype)
        self.shape: tuple[int, ...] = tuple(indices.size for indices in self.at if indices.ndim)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Lazy:
        keys = list(key) if isinstance(key, tuple) else [key]
        rest = [slice(None)] * (self.ndim - sum(part is not Ellipsis for part in keys))
        cut = next((k for k, part in enumerate(keys) if part is Ellipsis), len(keys))
        keys[cut : cut + 1] = rest
        if len(keys) != self.ndim:
            raise IndexError(f"there are {self.ndim} axes; got {len(keys)} indices")
        parts = iter(keys)
        return Lazy(self.source, [np.asarray(i[next(parts)]) if i.ndim else i for i in self.at])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """The values, read in bands of slices."""
        z, y, x = (np.atleast_1d(indices) for indices in self.at)
        values = np.empty((z.size, y.size, x.size), dtype=self.dtype)
        if values.size:
            rows, columns = (slice(int(i.min()), int(i.max()) + 1) for i in (y, x))
            for band in np.unique(z // BAND):
                here = np.flatnonzero(z // BAND == band)
                low, high = int(z[here].min()), int(z[here].max()) + 1
                block = np.asarray(self.source[low:high, rows, columns])
                values[here] = block[np.ix_(z[here] - low, y - rows.start, x - columns.start)]
        return values.reshape(self.shape).astype(self.dtype if dtype is None else dtype, copy=False)


class Bands:
    """A volume of a run, of which the two bands of slices that were read last are kept.

    Its chunks are a band deep: without this, every step from slice to slice would unpack all of them again.
    """

    def __init__(self, source: Any) -> None:
        self.source, self.shape, self.dtype = source, source.shape, source.dtype
        self._kept: list[tuple[tuple[slice, slice, slice], Array]] = []

    def __getitem__(self, window: tuple[slice, slice, slice]) -> Array:
        """Voxels of one band; each slice has both ends."""
        low = window[0].start // BAND * BAND
        band = (slice(low, min(low + BAND, self.shape[0])), *window[1:])
        size = [part.stop - part.start for part in band]
        if min(size[1:]) == 1 or math.prod(size) > KEPT:  # a cut across the slices, or too much to keep
            return np.asarray(self.source[window])
        for held, block in self._kept:
            if all(h.start <= w.start and w.stop <= h.stop for h, w in zip(held, window, strict=True)):
                return _part(block, held, window)
        self._kept = [(band, np.asarray(self.source[band])), *self._kept[:1]]
        return _part(self._kept[0][1], band, window)


def _part(block: Array, held: tuple[slice, ...], window: tuple[slice, ...]) -> Array:
    """A window of a block that holds it; both in the volume's indices."""
    return block[tuple(slice(w.start - h.start, w.stop - h.start) for h, w in zip(held, window, strict=True))]


def scales(source: Any) -> Lazy | list[Lazy]:
    """A (Z, Y, X) volume as napari draws it: itself, and where it is larger than `WHOLE` a coarse copy as well."""
    exact = Lazy(source, [np.arange(n) for n in source.shape])
    step = math.ceil(math.cbrt(exact.size / WHOLE))
    if step <= 1:
        return exact
    fewer = [max(1, n // step) for n in source.shape]
    middles = [((np.arange(k) + 0.5) * n / k).astype(np.int64) for n, k in zip(source.shape, fewer, strict=True)]
    return [exact, Lazy(source, middles)]


def layers(run: Run) -> list[Layer]:
    """The layers of a finished run, the lowest first, in micrometres. Reads tables, and three slices of a volume."""
    volumes = {name: Bands(volume) for name, volume in run.volumes.items()}
    table = run.table
    detachment = numbers(table, "detachment_fraction")
    grey, is_known = open_grey(run), bool(np.isfinite(detachment).any())
    made: list[Layer] = []

    def add(kind: str, name: str, data: Any, *, unit: str = "", visible: bool = False, **options: Any) -> None:
        about = {"run": str(run.path), "unit": unit}
        placed = {"scale": run.voxel_size, "units": ("um",) * 3, "axis_labels": ("z", "y", "x")}
        made.append((data, {"name": name, "visible": visible, "metadata": about, **placed, **options}, kind))

    if grey is not None:
        limits = spread(grey, 0.005, 0.995)
        add("image", "grey values", scales(grey), visible=True, colormap="gray", contrast_limits=limits)
    add("labels", "phases", scales(volumes["phases"]), visible=grey is None, **classes(style.PHASES, "phase"))
    for name in ("cbd_connected", "cbd_connected26"):
        if name in volumes:
            add("labels", name, scales(volumes[name]), **classes(CBD_CLASSES, "carbon_binder"))
    for name, title, unit, colours in (
        ("damage", "damage (1/um)", "1/um", style.DAMAGE_MAP),
        ("diffusion_length", "diffusion length (um)", "um", style.LENGTH_MAP),
    ):
        limits = (0.0, spread(run.volumes[name], 0.0, 0.998)[1])
        add("image", title, scales(volumes[name]), unit=unit, colormap=colours, contrast_limits=limits)
    told: dict[str, Any] = {"features": features(table)}
    add("labels", "particles", scales(volumes["particles"]), visible=not is_known, **told)
    if is_known:
        colours_of = by_value(table["label"].to_numpy(), detachment)
        coloured = scales(volumes["particles"])
        add("labels", "detachment (0 light, 1 dark)", coloured, unit="1", visible=True, colormap=colours_of, **told)
    segments, owner = longest_paths(run)
    if len(segments):
        of = {"label": owner}
        add("vectors", "longest paths", segments, features=of, edge_color=style.SECOND, vector_style="line")
    return made


def open_grey(run: Run) -> Volume | None:
    """The grey volume that a run has measured, lazily, cropped and binned as there; None where it is not there."""
    wanted, known = run.settings.input, run.record["input"].get("volume")
    if known is None or wanted.volume is None:
        return None
    why = "it was given as an array"
    if "bytes" in known:
        try:
            grey = open_volume(wanted.volume, crop=wanted.crop, bin=wanted.bin)
        except InputError as error:
            why = str(error).removeprefix("volume: ").rstrip(".")
        else:
            now = fingerprint(grey)
            if ([*now["shape"]], now["dtype"]) == (known["shape"], known["dtype"]):
                if now["bytes"] != known["bytes"]:
                    log.warning("The grey volume has changed since it was measured: %s.", known["source"])
                return grey
            grey.close()
            why = f"{known['source']} had the shape {tuple(known['shape'])} of {known['dtype']} when it was measured"
    log.warning("The grey volume is not shown: %s.", why)
    return None


def spread(volume: Any, low: float, high: float) -> tuple[float, float]:
    """Two quantiles of the finite values on three slices of a volume: what is drawn darkest and lightest."""
    values = np.concatenate([np.ravel(volume[volume.shape[0] * k // 4]) for k in (1, 2, 3)])
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    first, last = (float(value) for value in np.quantile(values, (low, high)))
    return first, last if last > first else first + 1.0


def features(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `particles.csv` as napari wants them: `index` is the label that a row is about; empty for 0."""
    order = [*FIRST, *(name for name in table.columns if name not in FIRST)]
    rows = table[order].set_index("label").reindex([0, *table["label"]])
    return rows.rename_axis("index").reset_index()


def classes(named: dict[int, tuple[str, str]], what: str) -> dict[str, Any]:
    """Options of a volume of codes: their colours, and their names under the pointer; `named`: code -> name, colour."""
    colours = {code: colour for code, (_, colour) in named.items()}
    names = {"index": [*named], what: [name for name, _ in named.values()]}
    return {"colormap": {None: "transparent", 0: "transparent", **colours}, "features": names}


def by_value(labels: Array, values: Array) -> dict[int | None, str]:
    """Colour of each label by its value from 0 to 1, as in the report's figures; grey where there is none."""
    colours = np.rint(255 * colour_map(style.DETACHMENT_MAP)(np.clip(values, 0, 1))[:, :3]).astype(np.int64)
    names = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colours.tolist()]  # napari knows again what it has read once
    shown = [name if known else style.NO_VALUE for name, known in zip(names, np.isfinite(values), strict=True)]
    return {None: "transparent", 0: "transparent", **dict(zip(labels.tolist(), shown, strict=True))}


def longest_paths(run: Run) -> tuple[Array, Array]:
    """The longest diffusion path of every particle, as (n, 2, 3) starts and steps in voxels; the particle of each."""
    folder = RunFolder(run.path, [tuple(slab) for slab in run.record["slabs"]])
    shares = [folder.read_table("diffusion", index) for index in range(len(folder.slabs))]
    points = np.concatenate([share["path_points"] for share in shares])
    owner = np.concatenate([np.repeat(share["path_labels"], share["path_count"]) for share in shares])
    is_end = np.diff(owner, prepend=-1) != 0
    is_end |= np.diff(owner, append=-1) != 0
    every = max(2, -(-len(points) // SEGMENTS))  # points lie half a voxel apart
    kept = is_end | (np.arange(owner.size) % every == 0)
    points, owner = points[kept], owner[kept]
    same = owner[1:] == owner[:-1]
    return np.stack([points[:-1], np.diff(points, axis=0)], axis=1)[same], owner[:-1][same]


def view(path: str | Path) -> None:
    """Open napari on a finished run's folder, and come back when its window is closed.

    Raises
    ------
    InputError
        It is no folder of a finished run; napari is missing; or there is no display to open a window on.
    """
    with Run(path) as run:
        require_window()
        import napari

        shown = layers(run)
        viewer = napari.Viewer(title=f"cbdetach: {run.path.resolve().name}")
        fill(viewer, shown)
        napari.run()


def fill(viewer: Any, shown: list[Layer]) -> None:
    """Put layers into a viewer; the uppermost that tells of particles is the active one, whose values it tells."""
    from napari.layers import Layer as AnyLayer

    for data, options, kind in shown:
        viewer.add_layer(AnyLayer.create(data, options, kind)).editable = False
    telling = [options["name"] for _, options, kind in shown if kind == "labels" and options["visible"]]
    viewer.layers.selection.active = viewer.layers[telling[-1]]
    overlays = getattr(getattr(viewer, "canvas", None), "overlays", viewer)  # of the viewer itself before napari 0.9
    overlays.scale_bar.visible = True


def require_window() -> None:
    """InputError unless a window can be opened: without a display, Qt itself would abort the process."""
    missing = [] if find_spec("napari") else ["napari"]
    if not any(find_spec(name) for name in BINDINGS):
        missing.append("Qt for Python")
    if missing:
        raise InputError(f"{' and '.join(missing)} missing: pip install 'cbdetach[napari]'.")
    named = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"))
    if sys.platform == "linux" and not named:
        raise InputError(
            "napari needs a display for its window, but DISPLAY and WAYLAND_DISPLAY are not set; start it on a "
            "desktop, or log in with ssh -X."
        )


def get_reader(path: str | list[str]) -> Callable[[str], list[Layer]] | None:
    """For napari: the reader of a run's folder, or of its `run.json`; None for anything else."""
    if not isinstance(path, str) or not (_folder(path) / RUN_RECORD).is_file():
        return None
    return read_run


def read_run(path: str) -> list[Layer]:
    """The layers of a run's folder, or of its `run.json`."""
    return layers(Run(_folder(path)))


def _folder(path: str) -> Path:
    return Path(path).parent if Path(path).name == RUN_RECORD else Path(path)
