"""`cbdetach demo`: the main job on a synthetic electrode, and what was found beside what is true."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import voxkernels as vk
from cbdetach.errors import InputError
from cbdetach.files import require_writable, told, whole_hdf5
from cbdetach.phantom import Phantom, PhantomSettings, check_edge
from cbdetach.results import Run
from cbdetach.store import RunFolder

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]

STEP = 32
"""Slices of the phantom that are made at a time."""

SMALLEST = 64
"""Edge of the electrode, voxels, that has a few particles which the border does not cut."""

SMALLEST_IOU = 0.5
"""Overlap above which a found and a true particle are one."""


@dataclass(frozen=True)
class Agreement:
    """What a run has found beside what is true. A found and a true particle are one where their IoU is above 0.5.

    Everything but the counts is over the `n_compared` particles that are uncut in both. Errors are found minus true.
    Diameters in micrometres.
    """

    n_found: int  # uncut as found
    n_true: int  # truly uncut
    n_matched: int  # of these, found: some as cut by the border, where their outline grew to it
    n_compared: int  # of these, found uncut
    diameter_found: float
    diameter_true: float
    diameter_bias: float  # mean of the relative error
    detachment_found: float
    detachment_true: float
    detachment_mae: float
    detachment_bias: float
    detachment_r: float
    crack_found: float
    crack_true: float
    pore_found: float
    pore_true: float

    def __str__(self) -> str:
        rows = [
            ("", "found", "true", ""),
            ("uncut particles", f"{self.n_found}", f"{self.n_true}", self._matches()),
            (
                "equivalent diameter, median (um)",
                f"{self.diameter_found:.2f}",
                f"{self.diameter_true:.2f}",
                f"mean error {100 * self.diameter_bias:+.1f} %",
            ),
            (
                "degree of detachment, mean",
                f"{self.detachment_found:.3f}",
                f"{self.detachment_true:.3f}",
                f"mean absolute error {self.detachment_mae:.3f}, r {self.detachment_r:.3f}",
            ),
            ("crack fraction, mean", f"{self.crack_found:.4f}", f"{self.crack_true:.4f}", ""),
            ("pore fraction, mean", f"{self.pore_found:.4f}", f"{self.pore_true:.4f}", ""),
        ]
        return "\n".join(f"{name:<34}{found:>9}{true:>9}  {note}".rstrip() for name, found, true, note in rows)

    def _matches(self) -> str:
        """What became of the true particles, and what the rows below are taken over."""
        cut = self.n_matched - self.n_compared
        found = f"{self.n_matched} of {self.n_true} found one to one"
        return f"{found}, {cut} of them as cut by the border; below: {self.n_compared}" if cut else found


def write_phantom(phantom: Phantom, path: Path) -> None:
    """Write a phantom as NeXus HDF5: the grey volume, with its voxel size, and the truth beside it."""
    settings = phantom.settings
    with whole_hdf5(path) as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs.update(NX_class="NXentry", default="data")
        data = entry.create_group("data")
        data.attrs.update(NX_class="NXdata", signal="data", axes=["z", "y", "x"])
        for axis, n, size in zip("zyx", settings.shape, settings.voxel_size_um, strict=True):
            data.create_dataset(axis, data=np.arange(n) * size).attrs["units"] = "um"
        for z0 in range(0, settings.shape[0], STEP):
            slab = phantom.slab(z0, min(z0 + STEP, settings.shape[0]))
            for where, array in (
                ("entry/data/data", slab.grey),
                ("truth/labels", slab.labels),
                ("truth/phases", slab.phases),
                ("truth/damage", slab.damage),
            ):
                if z0 == 0:
                    file.create_dataset(
                        where, settings.shape, array.dtype, chunks=(1, *settings.shape[1:]), compression="gzip",
                        compression_opts=1,
                    )  # fmt: skip
                file[where][slab.z0 : slab.z1] = array


def agreement(found: Run, truth: pd.DataFrame, true_labels: Any) -> Agreement:
    """Compare a run's table with a phantom's truth; `true_labels` (Z, Y, X) is read slab by slab."""
    ids, own = match(found.volumes["particles"], true_labels)
    left = found.table.set_index("label").loc[ids].reset_index()
    right = truth.set_index("label").loc[own].reset_index()
    whole = ~right["touches_border"].to_numpy(bool)
    matched = int(whole.sum())
    whole &= ~left["touches_border"].to_numpy(bool)
    left, right = left[whole], right[whole]
    a = left["detachment_fraction"].to_numpy(float)
    b = right["detachment_fraction"].to_numpy(float)
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    ratio = left["equivalent_diameter_um"].to_numpy(float) / right["equivalent_diameter_um"].to_numpy(float)
    varied = a.size > 0 and np.ptp(a) > 0 and np.ptp(b) > 0
    return Agreement(
        n_found=int((~found.table["touches_border"].astype(bool)).sum()),
        n_true=int((~truth["touches_border"].astype(bool)).sum()),
        n_matched=matched,
        n_compared=len(left),
        diameter_found=float(left["equivalent_diameter_um"].median()),
        diameter_true=float(right["equivalent_diameter_um"].median()),
        diameter_bias=_mean(ratio - 1),
        detachment_found=_mean(a),
        detachment_true=_mean(b),
        detachment_mae=_mean(np.abs(a - b)),
        detachment_bias=_mean(a - b),
        detachment_r=float(np.corrcoef(a, b)[0, 1]) if varied else float("nan"),
        crack_found=float(left["crack_fraction"].mean()),
        crack_true=float(right["crack_fraction"].mean()),
        pore_found=float(left["pore_fraction"].mean()),
        pore_true=float(right["pore_fraction"].mean()),
    )


def _mean(values: Array) -> float:
    """Mean, nan of nothing."""
    return float(np.mean(values)) if values.size else float("nan")


def match(found: Any, true: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Labels of two volumes that are the same particle: IoU above 0.5, which makes the match one to one."""
    shares = [
        vk.overlap_counts(np.asarray(found[z : z + STEP]), np.asarray(true[z : z + STEP]))
        for z in range(0, found.shape[0], STEP)
    ]
    pairs, row = np.unique(
        np.concatenate([np.stack([s.ids_a, s.ids_b], axis=1) for s in shares]), axis=0, return_inverse=True
    )
    common = np.bincount(row.ravel(), weights=np.concatenate([s.count for s in shares]), minlength=len(pairs))
    size_a = _summed([s.labels_a for s in shares], [s.size_a for s in shares], pairs[:, 0])
    size_b = _summed([s.labels_b for s in shares], [s.size_b for s in shares], pairs[:, 1])
    same = common > SMALLEST_IOU * (size_a + size_b - common)
    return pairs[same, 0], pairs[same, 1]


def _summed(labels: list[Array], sizes: list[Array], wanted: Array) -> npt.NDArray[np.float64]:
    """Sizes summed over the shares, for the wanted labels."""
    names, row = np.unique(np.concatenate(labels), return_inverse=True)
    total = np.bincount(row, weights=np.concatenate(sizes), minlength=names.size)
    return np.asarray(total[np.searchsorted(names, wanted)], dtype=np.float64)


def demo(
    out: Path,
    *,
    size: int = 160,
    seed: int = 0,
    threads: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
    **how: Any,
) -> str:
    """Make the electrode, measure it, and say what was found, what is true, and where the report lies.

    `how` : `segmenter`, `model`, `views` and `device`, as for `cbdetach.run`. What is wrong with them is said before
    the electrode is made.
    """
    from cbdetach.pipeline import run

    check_edge(size, SMALLEST)
    settings = PhantomSettings(shape=(size, size, size), seed=seed)
    _refuse_what_a_run_would(settings, out / "run", threads, **how)
    if not overwrite and RunFolder(out / "run").read_record() is not None:
        raise InputError(
            f"-o/--out: {out} holds a demo already; choose another folder, or replace it with --overwrite."
        )
    require_writable(out)
    volume = out / "phantom.h5"
    phantom = Phantom(settings)
    with told(out):
        out.mkdir(parents=True, exist_ok=True)
        write_phantom(phantom, volume)
    with run(volume, out / "run", threads=threads, overwrite=overwrite, progress=progress, **how) as found:
        import h5py

        with h5py.File(volume, "r") as file:
            text = str(agreement(found, phantom.truth, file["truth/labels"]))
        return f"{text}\n\nreport: {found.path / 'report.html'}"


def _refuse_what_a_run_would(
    settings: PhantomSettings, out: Path, threads: int | None, *, device: str = "cpu", **how: Any
) -> None:
    """InputError for whatever is wrong with a run on the electrode, without the electrode."""
    from cbdetach import device as devices
    from cbdetach.estimate import refuse_what_cannot_fit
    from cbdetach.job import open_job, resolved_settings
    from cbdetach.pipeline.needs import needs

    given = {"volume": np.broadcast_to(np.zeros((), np.uint16), settings.shape)}  # as large, and no memory
    wanted = resolved_settings(given, voxel_size=settings.voxel_size_um, **how)
    with devices.threads(threads), open_job(wanted, out, given, progress=False, gpu=devices.find(device)) as job:
        refuse_what_cannot_fit(needs(job), out, device=None if job.gpu is None else job.gpu.free)
