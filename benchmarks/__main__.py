"""Measure every kernel beside its peers: `python -m benchmarks`.

For each operation, case and size: the inputs are made; our answer is compared with every peer's; then, in a process of
its own, ours and the peers are timed in turn on fresh input; then, each in a process of its own, the peak of memory.
The first call is timed once for each operation, with no compiled code on disk (cold) and with it (warm). `--growth`
measures the time per voxel from 64^3 to 640^3.

Results go to `benchmarks/results/<operation>.json`, where rows that were not measured again stay as they are (those of
another machine do not), and the table of README.md is written anew from all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import cases, harness, measure, table
from benchmarks.harness import Case, cases_of

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "numpy",
    "numba",
    "scipy",
    "scikit-image",
    "scikit-fmm",
    "connected-components-3d",
    "dijkstra3d",
    "edt",
    "lapx",
    "torch",
    "torchvision",
)
SIZES = (128, 256, 512)
GROWTH = (64, 128, 256, 512, 640)
FIRST_CALL_EDGE = 32


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": fields.get("model name", platform.machine()),
        "family": fields.get("cpu family", ""),
        "model": fields.get("model", ""),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / 1e9),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """The installed libraries that take part."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


class Bench:
    """What one invocation measures, and where it keeps its files."""

    def __init__(self, scratch: Path, threads: list[int], prefix: list[str]) -> None:
        self.inputs = scratch / "inputs"
        self.code = scratch / "code"
        self.threads = threads
        self.prefix = prefix

    def child(self, what: str, operation: str, case: Case, edge: int, *more: str, **environment: str) -> Any:
        """Run one measurement in a new process."""
        command = [sys.executable, "-m", "benchmarks.measure", what, operation, case.name, str(edge), str(self.inputs)]
        environment = {**os.environ, "NUMBA_NUM_THREADS": str(max(self.threads)), **environment}
        prefix = self.prefix if what in ("time", "stream", "first") else []
        done = subprocess.run(
            [*prefix, *command, *more], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{what} of {operation}, {case.name}, {edge}:\n{done.stderr[-3000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def row(self, operation: str, case: Case, edge: int) -> dict[str, Any]:
        """Everything about one case at one size."""
        measure.save(self.inputs, case.inputs(edge))
        checked = self.child("check", operation, case, edge)["checked"]
        timed = self.child("time", operation, case, edge, *(str(n) for n in self.threads))
        seconds = {name: statistics.median(runs) for name, runs in timed["seconds"].items()}
        ours = {n: timed["seconds"][f"ours {n}"] for n in self.threads}
        ratios = {
            name: {
                str(n): statistics.median(p / o for p, o in zip(timed["seconds"][name], ours[n], strict=False))
                for n in self.threads
            }
            for name in checked
        }
        return {
            "case": case.name,
            "size": edge,
            "shape": timed["shape"],
            "units": timed["units"],
            "date": datetime.date.today().isoformat(),
            "repeats": {name: len(runs) for name, runs in timed["seconds"].items()},
            "seconds": seconds,
            "million_per_s": {name: timed["units"] / 1e6 / s for name, s in seconds.items()},
            "times_the_peer": ratios,
            "peak_mb": {name: self.child("peak", operation, case, edge, name) for name in ("ours", *checked)},
        }

    def first_call(self, operation: str, case: Case) -> dict[str, float]:
        """Seconds of the first call in a new process, without and with compiled code on disk."""
        measure.save(self.inputs, case.inputs(FIRST_CALL_EDGE))
        with tempfile.TemporaryDirectory() as empty:
            cold, warm = (
                self.child("first", operation, case, FIRST_CALL_EDGE, NUMBA_CACHE_DIR=empty, VOXKERNELS_CACHE="1")
                for _ in range(2)
            )
        return {"case": case.name, "cold_s": cold, "warm_s": warm}

    def growth(self, operation: str, case: Case, sizes: tuple[int, ...]) -> dict[str, Any]:
        """Nanoseconds per voxel of `cases.lattice` at each size, by number of threads."""
        assert case.growth
        rows: dict[str, dict[str, float]] = {str(n): {} for n in self.threads}
        for edge in sizes:
            measure.save(self.inputs, case.growth(edge))
            seconds = self.child("stream", operation, case, edge, *(str(n) for n in self.threads))
            for n, runs in seconds.items():
                rows[n][str(edge)] = 1e9 * statistics.median(runs) / edge**3
        return {"case": case.name, "date": datetime.date.today().isoformat(), "ns_per_voxel": rows}


def wanted(operation: str, arguments: argparse.Namespace) -> Iterator[tuple[Case, int]]:
    """The cases and sizes that were asked for; measured volumes once, where they are."""
    for size in arguments.sizes:
        for case in cases_of(operation):
            if case.size is None and (arguments.cases is None or any(part in case.name for part in arguments.cases)):
                yield case, size
    for case in cases_of(operation):
        asked = arguments.cases is None or any(part in case.name for part in arguments.cases)
        if case.size is not None and asked and not arguments.no_real and cases.real_folder():
            yield case, case.size


def main(argv: list[str] | None = None) -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--operations", nargs="+", choices=harness.OPERATIONS, default=harness.OPERATIONS)
    parser.add_argument("--cases", nargs="+", help="only cases whose name contains one of these")
    parser.add_argument("--sizes", nargs="*", type=int, default=SIZES)
    parser.add_argument("--threads", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--quick", action="store_true", help="toy sizes: shows that everything runs; writes no file")
    parser.add_argument("--growth", action="store_true", help="the time per voxel from 64^3 to 640^3, and nothing else")
    parser.add_argument("--no-real", action="store_true", help="without the measured volumes")
    parser.add_argument("--table", action="store_true", help="measure nothing: write README's table from the results")
    parser.add_argument(
        "--prefix", default="", help="a command before each measuring process, such as 'taskset -c 0,1'"
    )
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.sizes, arguments.no_real = (40,), True
    for operation in () if arguments.table else arguments.operations:
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
            bench = Bench(Path(scratch), sorted(arguments.threads), arguments.prefix.split())
            results = table.Results.of(operation, machine(), versions())
            if arguments.growth:
                for case in cases_of(operation):
                    if case.growth and (arguments.cases is None or any(part in case.name for part in arguments.cases)):
                        sizes = (64, 128) if arguments.quick else GROWTH
                        results.add_growth(bench.growth(operation, case, sizes))
                        sys.stdout.write(results.last_growth())
            else:
                for case, edge in wanted(operation, arguments):
                    results.add_row(bench.row(operation, case, edge))
                    sys.stdout.write(results.last_row())
                    sys.stdout.flush()
                    if not arguments.quick:
                        results.write()
                if arguments.cases is None:
                    results.first_call = bench.first_call(operation, cases_of(operation)[0])
            if not arguments.quick:
                results.write()
    if not arguments.quick:
        table.write_readme()


if __name__ == "__main__":
    main()
