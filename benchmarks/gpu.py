"""Everything that needs a real GPU, in one call: `python -m benchmarks.gpu`, within eight minutes.

The contract suites on the device, in several processes where pytest-xdist is there, while the volumes are made; every
kernel on electrodes of 256^3 and 512^3, and at 256^3 in two other regimes, beside the processors and beside a copy of
the device's memory; what each launch of a call takes; cupyx, bkeccl and the published eikonal solvers; the pipeline's
stages. Results go to `benchmarks/results/gpu_<device>.json` and `.md`. Each section is a process of its own with a
limit of its own, and writes each figure when it has it: one that fails, hangs or breaks the device costs itself only.

`--host` does the same without a GPU: the kernels built for the host, toy sizes. It shows that the script runs; its
times mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

PROJECT = Path(__file__).resolve().parents[1]
RESULTS = PROJECT / "benchmarks" / "results"
REGIMES = ("electrode", "noise", "constant")
REPEATS = 5
WORKERS = 8
"""Processes of the contract suites."""

Array = npt.NDArray[Any]


@dataclasses.dataclass
class Task:
    """What a section is told, and where it keeps what it finds."""

    sizes: tuple[int, ...]
    host: bool
    folder: Path
    """Of volumes that sections share."""
    into: Path
    deadline: float
    """On the clock of `time.time`."""
    found: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def keep(self, **figures: Any) -> None:
        """Add a result, on the disk at once."""
        self.found.append(figures)
        self.into.write_text(json.dumps(self.found))

    def late(self, what: str, seconds: float = 0.0) -> bool:
        """Whether there are not so many seconds left; then it is kept that `what` was left out."""
        if time.time() + seconds < self.deadline:
            return False
        self.keep(left_out=what, error="no time was left")
        return True


# ---- the volumes -----------------------------------------------------------------------------------------------------


def scene(regime: str, size: int, folder: Path) -> tuple[Array, Array, Array]:
    """Labels, phases and grey values of a regime; made once, then read.

    "electrode": balls with planar cracks, carbon/binder in 45 % of the outside. "noise": every voxel at random one of
    300 labels, carbon/binder or void, so nothing can be skipped. "constant": one particle, one corner of which is
    carbon/binder: a front crosses all of it.
    """
    paths = [folder / f"{regime}_{size}_{what}.npy" for what in ("labels", "phases", "grey")]
    if not all(path.exists() for path in paths):
        for path, array in zip(paths, _made(regime, size), strict=True):
            np.save(path, array)
    labels, phases, grey = (np.load(path) for path in paths)
    return labels, phases, grey


def scenes_of(sizes: tuple[int, ...]) -> list[tuple[str, int]]:
    """Regime and edge of the volumes that kernels are measured on: electrodes of every size, others of the first."""
    return [(REGIMES[0], size) for size in sizes] + [(regime, sizes[0]) for regime in REGIMES[1:]]


def _made(regime: str, size: int) -> tuple[Array, Array, Array]:
    from scipy.ndimage import gaussian_filter

    from benchmarks import cases
    from cbdetach.codes import ACTIVE, CBD

    made = {"electrode": lambda: cases.electrode(size).labels, "noise": lambda: cases.noise(size)}
    labels = np.array(made.get(regime, lambda: cases.constant(size))())
    random = np.random.default_rng(1)
    grey = random.integers(20000, 40000, (size,) * 3).astype(np.uint16)
    if regime == "constant":
        labels[:2, :2, :2] = 0
        return labels, np.where(labels > 0, ACTIVE, CBD).astype(np.uint8), grey
    if regime == "noise":
        outside = random.random(labels.shape, np.float32) < 0.45
    else:
        tile = gaussian_filter(random.normal(size=(min(size, 128),) * 3).astype(np.float32), 3, mode="wrap")
        copies = -(-size // len(tile))
        outside = np.tile(tile > np.quantile(tile, 0.55), (copies,) * 3)[:size, :size, :size]
    phases = np.where(labels > 0, ACTIVE, np.where(outside, CBD, 0)).astype(np.uint8)
    if regime == "electrode":
        _crack(labels, phases)
    return labels, phases, grey


def _crack(labels: Array, phases: Array) -> None:
    """Half a plane, two voxels thick, through the middle of every particle."""
    import voxkernels as vk

    regions = vk.region_properties(labels)
    normal, inward = np.random.default_rng(2).normal(size=(2, int(labels.max()) + 1, 3)).astype(np.float32)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    middle = np.zeros_like(normal)
    middle[regions.labels] = regions.centroid
    y, x = np.ogrid[: labels.shape[1], : labels.shape[2]]
    for z, image in enumerate(labels):
        offset = (z - middle[image, 0], y - middle[image, 1], x - middle[image, 2])
        across, along = (sum(a * vector[image, axis] for axis, a in enumerate(offset)) for vector in (normal, inward))
        phases[z][(np.abs(across) < 1) & (along > 0) & (image > 0)] = 0


# ---- sections --------------------------------------------------------------------------------------------------------


def about(task: Task) -> None:
    """The machine, and how fast memory is copied: on the host, on the device, and between the two."""
    from cbdetach.bench import machine
    from cbdetach.device import Gpu

    gpu, n_bytes = Gpu(), 2**20 if task.host else 2**30
    task.keep(machine=machine.about(gpu))
    task.keep(copy="device", bytes_per_s=machine.copy_bandwidth_of(gpu, n_bytes))
    task.keep(copy="host, 1 thread", bytes_per_s=machine.copy_bandwidth(1, n_bytes // 4))
    task.keep(copy="host", bytes_per_s=machine.copy_bandwidth(machine.n_threads(), n_bytes // 4))
    array = np.ones(n_bytes // 4, np.uint8)
    sent = gpu.send(array)
    task.keep(
        copy="to the device", bytes_per_s=array.size / min(_timed(lambda: _arrived(gpu, array)) for _ in range(3))
    )
    task.keep(copy="from the device", bytes_per_s=array.size / min(_timed(lambda: gpu.fetch(sent)) for _ in range(3)))


def _arrived(gpu: Any, array: Array) -> None:
    with gpu.stream() as stream:
        gpu.send(array)
        stream.synchronize()  # to time the whole way


def contract(task: Task) -> None:
    """The contract suites of all kernels on the device."""
    which = ["-k", "host-forward", "tests/contract/test_masks.py"] if task.host else ["-k", "cuda", "tests/contract"]
    report = task.folder / "contract.xml"
    several = ["-n", str(WORKERS), "--dist", "worksteal"] if find_spec("xdist") and not task.host else []
    command = [sys.executable, "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider", *several, *which]
    began = time.time()
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            [*command, f"--junitxml={report}"], cwd=PROJECT, capture_output=True, text=True, check=False,
            timeout=max(1.0, task.deadline - 2 - began),
        )  # fmt: skip
        counts = re.findall(r"(\d+) (passed|failed|error|errors|skipped)", done.stdout)
        failed = re.findall(r"^(?:FAILED|ERROR) (.*)", done.stdout, re.MULTILINE)
        task.keep(
            seconds=time.time() - began, **{what: int(n) for n, what in counts}, failures=failed,
            error="" if done.returncode == 0 else (done.stdout + done.stderr)[-1500:],
        )  # fmt: skip
        return
    task.keep(seconds=time.time() - began, error="it did not end within its time")


def kernel(name: str, task: Task) -> None:
    """One kernel on the processors and on the device: electrodes of every size, other regimes at the least."""
    from cbdetach.bench import cases, machine, measure
    from cbdetach.device import Gpu

    gpu, n_bytes = Gpu(), 2**20 if task.host else 2**29
    copy = {
        "cuda": machine.copy_bandwidth_of(gpu, n_bytes),
        "cpu": machine.copy_bandwidth(machine.n_threads(), n_bytes),
    }
    pasted = name == "paste_masks"  # on one image, whatever the volumes are
    for regime, size in [(REGIMES[0], task.sizes[-1])] if pasted else scenes_of(task.sizes):
        if pasted:
            chosen: Any = [cases.paste_case((4 * size, 4 * size) if size < 512 else (2 * size, 2 * size))]
        else:
            labels, phases, grey = scene(regime, size, task.folder)
            chosen = cases.every_case(labels, phases, grey, [name])
        for case in chosen:
            if task.late(f"{case.name}, {regime}, {size}", 2.0):
                return
            if case.kernel not in ("trace_paths", "paste_masks"):  # their checks take no time
                case = dataclasses.replace(case, check=_nothing_wrong, block=None)
            for row in measure(case, ["cpu", "cuda"], gpu, copy, 1 if task.host else REPEATS):
                task.keep(regime=regime, edge=size, copy_bytes_per_s=copy[row.device], **dataclasses.asdict(row))


def _nothing_wrong(_: Any) -> str:
    """The processor's answer is right: the device's is compared with it."""
    return ""


def launches(task: Task) -> None:
    """What every launch of a call takes on the device, by events around each, on electrodes of every size."""
    from cbdetach.bench import cases
    from cbdetach.device import Gpu

    gpu = Gpu()
    for size in task.sizes:
        for case in cases.every_case(*scene(REGIMES[0], size, task.folder)):
            if task.late(f"{case.name}, {size}", 2.0):
                return
            call = partial(case.function, *gpu.send(case.arguments), **gpu.send(case.options))
            with gpu.stream():
                call()
            whole = gpu.seconds(call)
            task.keep(case=case.name, edge=size, whole_s=whole, launches=_launches_of(gpu, call))


def _launches_of(gpu: Any, call: Callable[[], Any]) -> dict[str, tuple[int, float]]:
    """How often each kernel is launched in a call, and how long all its launches take, seconds."""
    from voxkernels._compile import Cuda

    events = gpu._cupy.cuda.Event
    recorded: list[tuple[str, Any, Any]] = []
    launch = Cuda.launch

    with gpu.stream() as stream:

        def between_events(self: Any, kernel: Any, *arguments: Any, **options: Any) -> None:
            begin, end = events(), events()
            begin.record(stream)
            launch(self, kernel, *arguments, **options)
            end.record(stream)
            recorded.append((kernel.name, begin, end))

        with mock.patch.object(Cuda, "launch", between_events):
            call()
        stream.synchronize()  # the times are known once they have passed
    found: dict[str, tuple[int, float]] = {}
    for name, begin, end in recorded:
        n, seconds = found.get(name, (0, 0.0))
        found[name] = n + 1, seconds + float(gpu._cupy.cuda.get_elapsed_time(begin, end)) / 1000
    return found


def peers_label(task: Task) -> None:
    """`cupyx.scipy.ndimage.label` and `bkeccl.ccl` beside `label`, on the same arrays of the device."""
    import cupy

    import voxkernels as vk
    from cbdetach.codes import CBD
    from cbdetach.device import Gpu

    gpu = Gpu()
    at_random = 16 if task.host else 200  # edge of the volume whose figures are in print
    for size in (*task.sizes, at_random):
        volume = np.random.default_rng(0).random((size,) * 3) < 0.5
        if size != at_random:
            volume = scene("electrode", size, task.folder)[1] == CBD
        sent = gpu.send(volume)
        for connectivity in (6, 18, 26):
            if task.late(f"label, {connectivity}, {size}", 5.0):
                return
            ours: Callable[[], Any] = partial(vk.label, sent, connectivity=connectivity)
            with gpu.stream():
                labels, n = ours()
            task.keep(peer="cbdetach", connectivity=connectivity, edge=size, n=int(n), **_times(gpu, ours, volume.size))
            for peer, function in _label_peers(sent, connectivity):
                try:
                    with gpu.stream():
                        other, m = function()
                        pairs = cupy.unique(labels.astype(cupy.int64) * (int(n) + 2) + other).size
                    same = int(m) == int(n) and pairs == int(n) + (not volume.all())
                    figures = _times(gpu, function, volume.size)
                    task.keep(peer=peer, connectivity=connectivity, edge=size, n=int(m), same=bool(same), **figures)
                except Exception as error:  # a peer that cannot do it costs itself only
                    task.keep(peer=peer, connectivity=connectivity, edge=size, error=_said(error))


def _label_peers(sent: Any, connectivity: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    def cupyx_label() -> Any:
        from cupyx.scipy import ndimage

        structure = ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])
        return ndimage.label(sent, structure)

    def bkeccl_label() -> Any:
        import bkeccl

        labels, n = bkeccl.ccl(sent, dimensionality="3D", output_mode="dense")
        return labels, int(n.max()) if hasattr(n, "max") else int(n)

    yield "cupyx.scipy.ndimage", cupyx_label
    if connectivity == 26:
        yield "bkeccl", bkeccl_label


PUBLISHED_EIKONAL = (
    # edge, cost, seconds, source: what a notebook of Mirebeau's AdaptiveGridDiscretizations has printed
    (201, "constant", 0.156, "agd, notebook Isotropic_GPU (GPU not named; CuPy, blocks of 4^3, float32, order 1)"),
    (301, "variable", 0.768, "agd, notebook Isotropic_GPU (GPU not named; CuPy, blocks of 4^3, float32, order 1)"),
)
"""Eikonal figures in print with their times: a point source in the middle of an open box."""


def published_eikonal(task: Task) -> None:
    """The problems that others have published, solved here."""
    import voxkernels as vk
    from cbdetach.device import Gpu

    gpu = Gpu()
    for edge, cost, seconds, source in PUBLISHED_EIKONAL:
        n = 21 if task.host else edge
        domain, sources = np.ones((n, n, n), np.bool_), np.zeros((n, n, n), np.bool_)
        sources[n // 2, n // 2, n // 2] = True
        wave = np.cos(np.arange(n) * (4 * np.pi / n)).astype(np.float32)
        speed = None if cost == "constant" else 1 + 0.5 * wave[:, None, None] * wave[:, None] * wave
        for order in (1, 2):
            if task.late(f"{n}^3, {cost} cost, order {order}", 5.0):
                return
            options = gpu.send({"speed": speed, "order": order, "start": "centres"})
            solve = partial(vk.travel_time, *gpu.send((domain, sources)), **options)
            with gpu.stream():
                times = gpu.fetch(solve())
            straight = np.sqrt(sum((a - n // 2) ** 2.0 for a in np.ogrid[:n, :n, :n]))
            off = np.abs(times / straight - 1)[straight > n / 4].max() if speed is None else None
            task.keep(
                problem=f"{n}^3, {cost} cost", order=order, edge=n, published_s=seconds, source=source,
                largest_relative_error=None if off is None else float(off), **_times(gpu, solve, n**3),
            )  # fmt: skip


def pipeline(task: Task) -> None:
    """The stages of a run on a synthetic electrode, on the processors and on the device."""
    from cbdetach.bench import stage_seconds
    from cbdetach.phantom import Phantom

    size = 32 if task.host else 192
    phantom = Phantom(shape=(size, size, size))
    grey = phantom.volume().grey
    for place in ("cuda", "cpu"):
        if task.late(f"pipeline on {place}", 5.0):
            return
        stages = stage_seconds(grey, phantom.settings.voxel_size_um, [place], None)
        task.keep(place=place, edge=size, stages=stages.get(place, {}), error="" if stages else "it was refused")


def _timed(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def _times(gpu: Any, function: Callable[[], Any], voxels: int) -> dict[str, float]:
    """Seconds by the device's events, after a call that has compiled; median and least."""
    found = [gpu.seconds(function) for _ in range(REPEATS)]
    return {"median_s": float(np.median(found)), "least_s": min(found), "per_s": voxels / float(np.median(found))}


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


KERNELS = ("label", "travel_time", "contact_areas", "region_properties", "overlap_counts", "paste_masks", "trace_paths")

SECTIONS: dict[str, tuple[float, Callable[[Task], None]]] = {
    "about": (30, about),
    "contract": (150, contract),  # volumes are made meanwhile
    **{name: (60.0 if name == "travel_time" else 45.0, partial(kernel, name)) for name in KERNELS},
    "launches": (40, launches),
    "peers_label": (40, peers_label),
    "published_eikonal": (30, published_eikonal),
    "pipeline": (90, pipeline),
}
"""Each section, and the most seconds that it may take."""


# ---- the script ------------------------------------------------------------------------------------------------------


def run_section(name: str, task: Task) -> None:
    """One section in this process; what stops it is one of its results."""
    pretend = contextlib.nullcontext()
    if task.host:
        from tests.host_cuda.pretend_cupy import pretended

        pretend = pretended()  # type: ignore[assignment]
    with pretend:
        try:
            SECTIONS[name][1](task)
        except Exception as error:
            task.keep(error=_said(error), trace=traceback.format_exc()[-1500:])


def make_scenes(sizes: tuple[int, ...], folder: Path) -> None:
    """The volumes that the sections read, each by a process of its own."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for regime, size in scenes_of(sizes):
            pool.submit(scene, regime, size, folder)


def run_all(sizes: tuple[int, ...], host: bool, seconds: float, names: list[str]) -> dict[str, Any]:
    """Every section in a process of its own, within its time and the whole's."""
    end = time.time() + seconds
    sections: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(1) as beside:
        made = None if host else beside.submit(make_scenes, sizes, Path(scratch))
        for name in names:
            if made is not None and name not in ("about", "contract"):
                made.result()
            into = Path(scratch, f"{name}.json")
            began = time.time()
            limit = min(SECTIONS[name][0], end - began)
            stopped = "" if limit > 1 else "no time was left"
            if not stopped:
                options = ["--sizes", ",".join(map(str, sizes)), *(["--host"] if host else [])]
                inner = [name, scratch, str(into), str(began + limit - 3)]
                command = [sys.executable, "-m", "benchmarks.gpu", *options, "--inner", *inner]
                try:
                    done = subprocess.run(
                        command, cwd=PROJECT, timeout=limit, capture_output=True, text=True, check=False
                    )
                    stopped = (
                        "" if done.returncode == 0 else f"it ended with code {done.returncode}: {done.stderr[-800:]}"
                    )
                except subprocess.TimeoutExpired:
                    stopped = f"stopped after {limit:.0f} s"
            found = json.loads(into.read_text()) if into.exists() else []
            sections[name] = {"seconds": round(time.time() - began, 1), "stopped": stopped, "found": found}
            sys.stderr.write(f"{name}: {time.time() - began:.0f} s, {len(found)} results {stopped[:200]}\n")
    return sections


def main(arguments: list[str] | None = None) -> int:
    """Run the script; 0 where every section has ended."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--host", action="store_true", help="without a GPU, at toy size")
    parser.add_argument("--sizes", default="", help="edges of the volumes (default: 256,512; with --host 20)")
    parser.add_argument("--seconds", type=float, default=480.0, help="the most that all of it may take")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="which sections")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result files")
    parser.add_argument("--inner", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    sizes = tuple(map(int, (given.sizes or ("20" if given.host else "256,512")).split(",")))
    if given.inner:
        name, folder, into, deadline = given.inner
        run_section(name, Task(sizes, given.host, Path(folder), Path(into), float(deadline)))
        return 0
    from benchmarks.gpu_table import written

    began = time.time()
    sections = run_all(sizes, given.host, given.seconds, given.sections.split(","))
    for path in written(sections, sizes, given.host, time.time() - began, given.out):
        sys.stderr.write(f"{path}\n")
    return int(any(section["stopped"] for section in sections.values()))


if __name__ == "__main__":
    raise SystemExit(main())
