"""Commands that measure: a run, and the demo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cbdetach.cli.common import (
    Device,
    Model,
    Out,
    Overwrite,
    Quiet,
    Resume,
    Segmenter,
    Threads,
    Verbose,
    Views,
    one_line_errors,
)

if TYPE_CHECKING:
    from cbdetach.estimate import Estimate


def run(
    volume: Annotated[
        str | None, typer.Argument(metavar="VOLUME", help="TIFF file or folder, file.h5:/dataset, OME-Zarr, .npy.")
    ] = None,
    out: Out = Path("cbdetach_run"),
    voxel_size: Annotated[
        str | None, typer.Option("--voxel-size", help="Micrometres: one number or z,y,x (default: from the file).")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file with settings.")] = None,
    labels: Annotated[str | None, typer.Option("--labels", help="Filled particles, given.")] = None,
    phases: Annotated[str | None, typer.Option("--phases", help="Phase of every voxel, given.")] = None,
    phase_values: Annotated[
        str | None, typer.Option("--phase-values", help="Value of each phase: void=0,active=1,cbd=2.")
    ] = None,
    segmenter: Segmenter = None,
    model: Model = None,
    views: Views = None,
    anchor: Annotated[
        str | None,
        typer.Option(
            "--anchor", help="Side z0, z1, y0, y1, x0 or x1 that carbon/binder leads to, without a collector."
        ),
    ] = None,
    crop: Annotated[str | None, typer.Option("--crop", help="z0:z1,y0:y1,x0:x1 in voxels.")] = None,
    bin: Annotated[int | None, typer.Option("--bin", help="Average blocks of N^3 voxels.")] = None,
    slab: Annotated[int | None, typer.Option("--slab", help="Slices of the slabs that work is cut into.")] = None,
    device: Device = "cpu",
    threads: Threads = None,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", help="Address of a dask scheduler, tcp://HOST:PORT, whose workers compute slabs."),
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what the run would need.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure every particle of a volume."""
    with one_line_errors(quiet, verbose, "interrupted; continue with --resume."):
        from cbdetach import gather, job, pipeline

        arguments: dict[str, Any] = {
            "volume": volume,
            "labels": labels,
            "phases": phases,
            "phase_values": job.parse_phase_values(phase_values),
            "voxel_size": voxel_size,
            "crop": crop,
            "bin": bin,
            "segmenter": segmenter,
            "model": model,
            "views": views,
            "anchor": anchor,
            "slab": slab,
            "config": config,
            "device": device,
            "threads": threads,
            "scheduler": scheduler,
            "resume": resume,
            "overwrite": overwrite,
        }

        def tell(need: Estimate) -> None:
            if not quiet:
                print(f"This run {need}.", flush=True)

        if dry_run:
            tell(pipeline.plan(out=out, **arguments))
            return
        found = pipeline.run(out=out, progress=not quiet, tell=tell, **arguments)
        if not quiet:
            print(gather.summary(found))


def demo(
    out: Out = Path("cbdetach_demo"),
    size: Annotated[int, typer.Option("--size", help="Edge of the synthetic electrode, voxels.")] = 160,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the synthetic electrode.")] = 0,
    segmenter: Segmenter = None,
    model: Model = None,
    views: Views = None,
    device: Device = "cpu",
    threads: Threads = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure a synthetic electrode, beside its known truth."""
    with one_line_errors(quiet, verbose, "interrupted; start again with --overwrite."):
        from cbdetach import demo as _demo

        text = _demo.demo(
            out,
            size=size,
            seed=seed,
            threads=threads,
            overwrite=overwrite,
            progress=not quiet,
            segmenter=segmenter,
            model=model,
            views=views,
            device=device,
        )
        if not quiet:
            print(text)
