"""Commands on this machine: benchmarks, and what is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cbdetach.cli.common import OverwriteFile, Quiet, Threads, Verbose, one_line_errors


def bench(
    size: Annotated[int, typer.Option("--size", help="Edge of the synthetic electrode, voxels.")] = 128,
    kernels: Annotated[str | None, typer.Option("--kernels", help="Which kernels: label,... (default: all).")] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu or cuda (default: both, where there is a GPU).")
    ] = None,
    pipeline: Annotated[bool, typer.Option("--pipeline/--no-pipeline", help="Time a whole run, too.")] = True,
    repeats: Annotated[int, typer.Option("--repeats", help="Calls that a median is taken of.")] = 5,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="JSON file to write; one that exists is kept, but for --overwrite.")
    ] = None,
    threads: Threads = None,
    overwrite: OverwriteFile = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Time the kernels and the pipeline on this machine.

    Beside its memory's bandwidth; every answer is checked first.
    """
    with one_line_errors(quiet, verbose):
        from cbdetach import bench as _bench
        from cbdetach.bench import cases, table
        from cbdetach.files import require_new, require_writable

        if json_file is not None:
            require_writable(json_file, "--json", what="file")
            require_new(json_file, "--json", overwrite=overwrite)
        found = _bench.bench(
            size=size,
            kernels=cases.KERNELS if kernels is None else kernels.split(","),
            on=device,
            pipeline=pipeline,
            repeats=repeats,
            threads=threads,
            progress=not quiet,
        )
        if json_file is not None:
            _bench.write_json(found, json_file)
        if not quiet:
            print(table.describe(found))
        if found.errors:
            raise typer.Exit(1)


def doctor() -> None:
    """Say what this installation can do, and what not."""
    with one_line_errors(quiet=False, verbose=False):
        from cbdetach import doctor as _doctor

        print(_doctor.examine())
