"""`cbdetach bench`: how fast the kernels and the pipeline are on this machine, and how near to what its memory allows.

Every kernel computes on one synthetic electrode. Its answer is checked before it is timed (`cases`). Times: the first
call (which compiles, or loads what was compiled), the median of further calls on arrays that lie where the kernel
computes, and, on a GPU, of calls from NumPy arrays to NumPy arrays. A kernel has to move its arguments and its result
once at least: those bytes by the median time, over the bandwidth of a plain copy on the same device in the same run,
are its `share_of_copy`. At 1 no program can be much faster (small volumes that stay in a cache can go beyond); what
computes more than it moves stays far below.
"""

from __future__ import annotations

import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach import __version__, device
from cbdetach.bench import machine
from cbdetach.bench.cases import KERNELS, Case, every_case
from cbdetach.device import Gpu
from cbdetach.errors import InputError
from cbdetach.files import told, whole_file
from cbdetach.progress import bar

log = logging.getLogger("cbdetach")
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Row:
    """One kernel on one device. Seconds; `error` says why the rest is missing, or what is wrong with the answer."""

    kernel: str
    case: str
    device: str
    size: int
    first_s: float | None = None
    median_s: float | None = None
    least_s: float | None = None
    end_to_end_s: float | None = None
    bytes: int | None = None
    per_s: float | None = None
    """Voxels (`paste_masks`: pixels) in a second."""
    share_of_copy: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Bench:
    """What was measured. `copy` : bytes read and written in a second, by device; `stages` : seconds, by device."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    copy: dict[str, float]
    rows: list[Row]
    stages: dict[str, dict[str, float]]

    @property
    def errors(self) -> list[str]:
        """Every row that has none of the times that it should have."""
        return [f"{row.case} on {row.device}: {row.error}" for row in self.rows if row.error]

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {"cbdetach": __version__, **asdict(self)}


def bench(
    *,
    size: int = 128,
    kernels: Sequence[str] = KERNELS,
    on: str | None = None,
    pipeline: bool = True,
    repeats: int = 5,
    threads: int | None = None,
    progress: bool = False,
    copy_bytes: int = machine.COPY_BYTES,
) -> Bench:
    """Measure the kernels and the stages of the pipeline.

    Parameters
    ----------
    size : edge of the synthetic electrode, voxels.
    kernels : which of `KERNELS`.
    on : "cpu", "cuda", or None: the processors, and the GPU if there is one.
    pipeline : whether a whole run on the electrode is timed, too.
    repeats : calls that a median is taken of.
    threads : of the processors' kernels; None: all.
    copy_bytes : how much is copied to measure the bandwidth.

    Raises
    ------
    InputError : an option is out of range, or `on` names a device that is not there.
    """
    from cbdetach.phantom import Phantom, check_edge

    check_edge(size)
    if repeats < 1:
        raise InputError(f"--repeats: must be 1 or more; got {repeats}.")
    unknown = [name for name in kernels if name not in KERNELS]
    if unknown:
        raise InputError(f"--kernels: must be among {', '.join(KERNELS)}; got {unknown[0]!r}.")
    gpu, why = _gpu(on)
    places = [name for name in device.DEVICES if on in (None, name) and (name == "cpu" or gpu is not None)]
    with device.threads(threads):
        copy = {
            "cpu, 1 thread": machine.copy_bandwidth(1, copy_bytes),
            "cpu": machine.copy_bandwidth(machine.n_threads(), copy_bytes),
        }
        if gpu is not None:
            copy["cuda"] = machine.copy_bandwidth_of(gpu, copy_bytes)
        phantom = Phantom(shape=(size, size, size))
        truth = phantom.volume()
        chosen = bar(every_case(truth.labels, truth.phases, truth.grey, kernels), "bench", unit="case", show=progress)
        rows = [row for case in chosen for row in measure(case, places, gpu, copy, repeats)]
        stages = stage_seconds(truth.grey, phantom.settings.voxel_size_um, places, threads) if pipeline else {}
        known = machine.about(gpu) | {"why_no_gpu": why}
    settings = {"size": size, "kernels": list(kernels), "repeats": repeats, "on": places}
    return Bench(known, settings, copy, rows, stages)


def write_json(found: Bench, path: Path) -> None:
    """Write everything that was measured; an `InputError` where the file cannot be written."""
    with told(path, "--json", what="file"), whole_file(path) as temporary:
        temporary.write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")


def measure(case: Case, places: Sequence[str], gpu: Gpu | None, copy: dict[str, float], repeats: int) -> list[Row]:
    """One case on the devices named, whose bandwidths are `copy`. The processor computes in any case, to compare."""
    expected, first_s, error = _first(case)
    error = error or case.wrong(expected)
    rows = []
    if "cpu" in places:
        times = [] if error else [_seconds(case) for _ in range(repeats)]
        rows.append(_row(case, "cpu", expected, first_s, times, copy["cpu"], error))
    if "cuda" in places and gpu is not None:
        if error:
            rows.append(_failed(case, "cuda", f"no answer to compare with: {error}"))
        else:
            rows.append(_measure_on(gpu, case, expected, copy["cuda"], repeats))
    return rows


def _first(case: Case) -> tuple[Any, float, str]:
    began = time.perf_counter()
    try:
        return case(), time.perf_counter() - began, ""
    except (MemoryError, RuntimeError, TypeError, ValueError) as error:
        return None, time.perf_counter() - began, str(error)


def _measure_on(gpu: Gpu, case: Case, expected: Any, copy: float, repeats: int) -> Row:
    """One case on a GPU: its first call, its answer beside the processor's, its times."""
    try:
        with gpu.stream():
            arguments, options = gpu.send(case.arguments), gpu.send(case.options)
            began = time.perf_counter()
            answer = gpu.fetch(case.function(*arguments, **options))
            first_s = time.perf_counter() - began
            error = case.wrong_beside(answer, expected)
            if error:
                return _failed(case, "cuda", error)
            times = [gpu.seconds(partial(case.function, *arguments, **options)) for _ in range(repeats)]
            del arguments, options  # their memory is the next calls'
        whole = [_seconds(partial(gpu.call, case.function, *case.arguments, **case.options)) for _ in range(repeats)]
    except (MemoryError, RuntimeError, TypeError, ValueError) as error:
        return _failed(case, "cuda", str(error))
    return _row(case, "cuda", expected, first_s, times, copy, "", statistics.median(whole))


def _failed(case: Case, where: str, error: str) -> Row:
    return Row(case.kernel, case.name, where, case.size, error=error)


def _row(
    case: Case, where: str, answer: Any, first_s: float, times: list[float], copy: float, error: str,
    end_to_end_s: float | None = None,
) -> Row:  # fmt: skip
    if error:
        return _failed(case, where, error)
    median, moved = statistics.median(times), _bytes((case.arguments, case.options, answer))
    return Row(
        *(case.kernel, case.name, where, case.size, first_s, median, min(times), end_to_end_s, moved),
        per_s=case.size / median,
        share_of_copy=moved / median / copy,
    )


def _seconds(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def _bytes(value: Any) -> int:
    """Bytes of all arrays in a value."""
    if hasattr(value, "nbytes"):
        return int(value.nbytes)
    if is_dataclass(value):
        return sum(_bytes(getattr(value, field.name)) for field in fields(value))
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(_bytes, parts))


def _gpu(on: str | None) -> tuple[Gpu | None, str]:
    """The GPU, or why there is none; an error only where one was asked for."""
    if on is not None:
        return device.find(on), "not asked for"
    try:
        return Gpu(), ""
    except InputError as error:
        return None, str(error).removeprefix("--device: ")


# ---- the pipeline ---------------------------------------------------------------------------------------------------


def stage_seconds(
    grey: Array, voxel_size: tuple[float, float, float], places: Sequence[str], threads: int | None
) -> dict[str, dict[str, float]]:
    """Seconds of every stage of a whole run on a grey volume, with everything compiled, by device."""
    import voxkernels as vk
    from cbdetach import pipeline

    vk.warmup()
    stages = {}
    with tempfile.TemporaryDirectory() as folder:
        volume = Path(folder, "volume.npy")
        np.save(volume, grey)
        for name in places:
            try:
                run = pipeline.run(volume, Path(folder, name), voxel_size=voxel_size, device=name, threads=threads)
            except InputError as error:
                log.warning("no times of the pipeline on %s: %s", name, error)
            else:
                stages[name] = {stage: float(run.record["timings"][stage]) for stage in pipeline.STAGES}
                run.close()
    return stages
