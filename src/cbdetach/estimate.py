"""What a run will need, said before it starts: memory, disk and time; and a refusal of what cannot fit.

Memory is what Python and the libraries take, and beside it the more of two, which come one after the other: the largest
window (a slab and its halo) times the bytes that its hungriest stage holds for each voxel, and the report's figures.
What is here was measured stage by stage, on two cores; time is a guide, memory a bound.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from cbdetach.errors import InputError

BASE_BYTES = 340e6
"""Python, the libraries, compiled kernels,"""

LEFT_BYTES = 10.0
"""and for each voxel of the largest window what stages leave behind: memory that is free, but not given back."""

COMPILER_BYTES = 550e6
"""What compiling the kernels leaves behind, in the one process that does."""

REPORT_MEMORY = 420e6
"""What the report takes, in the end: its libraries, and its figures one by one."""

WINDOW_BYTES = {"phases": 50.0, "segment": 50.0, "detachment": 60.0, "diffusion": 50.0, "damage": 45.0}
"""Bytes that each stage holds for each voxel of its window."""

DEFICIT_BYTES = 50.0
"""The damage stage's, where the grey volume tells how wide cracks are,"""

FEATURE_BYTES = 450.0
"""and, for each pixel of a slice and each dimension beyond the first, a pixel classifier's features."""

SLICES_BYTES = 20.0
"""The segment stage's, where it works slice by slice on a slab,"""

NETWORK_BYTES = 80e6
"""and what the network takes beside that: weights, ONNX Runtime and one tile, and keeps to the end,"""

SLICE_BYTES = 250.0
"""and for each pixel of the slices that it works on, the next ones, enlarged, among them."""

DISK_BYTES = 6.0
"""Bytes on the disk for each voxel of the volume: labels, phases, lengths and damage, compressed,"""

REPORT_BYTES = 25e6
"""and for figures, report and tables."""

DEVICE_BYTES = {"detachment": 8.0, "diffusion": 30.0, "damage": 16.0}
"""Bytes on a GPU for each voxel of a stage's window: what its hungriest kernel is given, returns and works in."""

DEVICE_BASE_BYTES = 0.5e9
"""And what CUDA and the compiled kernels take there,"""

DEVICE_NETWORK_BYTES = 2.0e9
"""and the network, with its slices."""

SECONDS = {"grey": 7e-6, "phases": 4e-6}
"""Seconds for each voxel of the volume, by what is given."""

NETWORK_SECONDS = 3e-6
"""Seconds for each voxel that goes through the network, where particles are as large as it wants them."""


@dataclass(frozen=True)
class Estimate:
    """Needs of one run: bytes of memory and of disk, seconds, the stage that needs the memory, bytes on a GPU.

    And, in words, what it is that needs them, and where the memory is to be had if not here.
    """

    memory: float
    disk: float
    seconds: float
    stage: str
    device: float = 0.0
    volume: str = ""
    where: str = ""

    def __str__(self) -> str:
        measured = f"measures {self.volume} and " if self.volume else ""
        gpu = f"{self.device / 1e9:.1f} GB on the GPU, " if self.device else ""
        return (
            f"{measured}needs about {self.memory / 1e9:.1f} GB of memory{self.where} (most in {self.stage}), {gpu}"
            f"{_size(self.disk)} of disk and {_duration(self.seconds)} on two cores"
        )


def estimate(
    shape: tuple[int, int, int],
    slab: int,
    halos: dict[str, int],
    *,
    grey: bool,
    views: int = 0,
    network: bool = False,
    zoom: float = 1.0,
    at_once: int = 1,
    on_gpu: bool = False,
    classifier: int = 0,
    compiles: bool = False,
    networks: int = 1,
    report: bool = True,
) -> Estimate:
    """Needs of a run on a volume of `shape`, in slabs of `slab` slices, with each stage's halo in slices.

    `views` : slicings that are segmented slice by slice, 0 where windows are; one works on slabs, three on windows.
    `network` : whether by the network, on `networks` slabs at once; `zoom` : by how much it enlarges the slices.
    `at_once` : slabs in hand at once; `on_gpu` : whether kernels compute on a GPU. `classifier` : dimensions of a pixel
    classifier's features. `compiles` : whether the processors' kernels are still to be compiled. `report` : whether the
    report is made by the same process. The time is that of two cores in any case.
    """
    plane = float(shape[1] * shape[2])
    voxels = plane * shape[0]
    halos = halos | {"segment": 0} if views == 1 else halos
    thickness = {stage: min(shape[0], slab + 2 * halos.get(stage, 0)) for stage in WINDOW_BYTES}
    held = WINDOW_BYTES | ({"damage": DEFICIT_BYTES} if grey else {})
    window = {stage: at_once * thickness[stage] * plane * b for stage, b in held.items()}
    window["phases"] += at_once * plane * FEATURE_BYTES * max(0, classifier - 1)
    if views == 1:
        window["segment"] = at_once * thickness["segment"] * plane * SLICES_BYTES
    window["segment"] += network * networks * plane * SLICE_BYTES
    window |= {"report": REPORT_MEMORY} if report else {}
    stage = max(window, key=lambda name: window[name])
    most = max(thickness[name] * b for name, b in DEVICE_BYTES.items())
    left = LEFT_BYTES * at_once * plane * max(thickness.values())
    seen = voxels * views * thickness["segment"] / min(shape[0], slab)
    return Estimate(
        memory=BASE_BYTES + left + compiles * COMPILER_BYTES + network * NETWORK_BYTES + window[stage],
        disk=REPORT_BYTES + voxels * DISK_BYTES,
        seconds=15 + voxels * SECONDS["grey" if grey else "phases"] + network * seen * zoom**2 * NETWORK_SECONDS,
        stage=stage,
        device=(DEVICE_BASE_BYTES + network * DEVICE_NETWORK_BYTES + at_once * plane * most) if on_gpu else 0.0,
    )


def refuse_what_cannot_fit(
    need: Estimate,
    out: Path,
    memory: float | None = None,
    disk: float | None = None,
    device: float | None = None,
) -> None:
    """Raise an `InputError` that names the option to change, where memory or disk will not do.

    `memory` and `disk` are what there is, in bytes; None asks the system. `device` : the same of the GPU, where one is
    used.
    """
    if device is not None and need.device > device:
        raise InputError(
            f"--device: this run needs about {need.device / 1e9:.1f} GB on the GPU, {device / 1e9:.1f} GB are free; "
            "choose thinner slabs with --slab, measure a part with --crop, or use --device cpu."
        )
    memory = available_memory() if memory is None else memory
    if memory is not None and need.memory > memory:
        raise InputError(
            f"memory: this run needs about {need.memory / 1e9:.1f} GB, {memory / 1e9:.1f} GB are free; "
            "measure a part with --crop, a coarser volume with --bin 2, or choose thinner slabs with --slab."
        )
    parent = next(p for p in [out, *out.absolute().parents] if p.exists())
    disk = float(shutil.disk_usage(parent).free) if disk is None else disk
    if need.disk > disk:
        raise InputError(
            f"-o/--out: this run needs about {_size(need.disk)} of disk, {_size(disk)} are free at "
            f"{parent}; choose another folder, a part with --crop, or a coarser volume with --bin 2."
        )


def available_memory(proc: Path = Path("/proc"), group: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Bytes of memory that can still be used, within this process's control group; None where it cannot be known."""
    try:
        free = 1024 * _fields(proc / "meminfo")["MemAvailable:"]
    except (OSError, KeyError, ValueError):
        return None
    try:
        limit, used = (float((group / name).read_text()) for name in ("memory.max", "memory.current"))
        held = _fields(group / "memory.stat")
        # Cached files count as used, but are given up when memory is asked for.
        free = min(free, limit - used + held["active_file"] + held["inactive_file"])
    except (OSError, KeyError, ValueError):  # no such group, or no limit ("max")
        pass
    return free


def _fields(path: Path) -> dict[str, float]:
    """The lines `name number ...` of a file of the kernel."""
    return {name: float(number) for name, number, *_ in map(str.split, path.read_text().splitlines())}


def _size(bytes: float) -> str:
    return f"{bytes / 1e6:.0f} MB" if bytes < 1e9 else f"{bytes / 1e9:.1f} GB"


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
