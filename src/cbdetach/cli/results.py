"""Commands on finished runs: the report, the comparison, napari, the labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import cbdetach
from cbdetach.cli.common import FinishedRun, Out, OverwriteFile, Quiet, one_line_errors


def report(run: FinishedRun, quiet: Quiet = False) -> None:
    """Write figures and report of a finished run again."""
    with one_line_errors(quiet, verbose=False):
        from cbdetach import gather

        path = gather.rewrite_report(run)
        if not quiet:
            print(path)


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of finished runs.")],
    out: Out = Path("cbdetach_comparison"),
    metadata: Annotated[
        Path | None, typer.Option("--metadata", help="CSV: run, electrode, rate, cycles, state_of_charge.")
    ] = None,
    by: Annotated[str, typer.Option("--by", help="rate, cycles or state_of_charge.")] = "rate",
    size_classes: Annotated[
        str | None, typer.Option("--size-classes", help="Edges in micrometres: 2,4,8 (default: 2^(k/2)).")
    ] = None,
    cycling: Annotated[
        Path | None, typer.Option("--cycling", help="CSV to draw beside: cycle, capacity, electrode or rate.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of what is drawn at random.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the comparison in the folder.")] = False,
    quiet: Quiet = False,
) -> None:
    """Compare electrodes by rate, cycles or charge.

    Detachment by rate, cycles or state of charge; the electrode is the unit of every test.
    """
    with one_line_errors(quiet, verbose=False):
        from cbdetach import compare as _compare

        found, warnings = _compare.compare(
            runs,
            out,
            metadata=metadata,
            cycling=cycling,
            by=by,
            size_classes=size_classes,
            seed=seed,
            overwrite=overwrite,
        )
        if not quiet:
            print("\n".join([str(found), *warnings, "", f"page: {out / 'compare.html'}"]))


def view(run: FinishedRun, quiet: Quiet = False) -> None:
    """Look at a finished run in napari.

    The grey volume, if its file is still there, phases, particles with their rows of the table, particles in the colour
    of their detachment, diffusion lengths and damage. Needs pip install 'cbdetach[napari]'.
    """
    with one_line_errors(quiet, verbose=False):
        from cbdetach import viewer

        viewer.view(run)


def export_labels(
    run: FinishedRun,
    tiff: Annotated[
        Path, typer.Argument(metavar="TIFF", help="TIFF file to write; one that exists is kept, but for --overwrite.")
    ],
    overwrite: OverwriteFile = False,
    quiet: Quiet = False,
) -> None:
    """Write the particle labels as a TIFF for Fiji.

    Fiji opens it with its scale.
    """
    with one_line_errors(quiet, verbose=False), cbdetach.open_run(run) as found:
        path = found.export_labels(tiff, overwrite=overwrite)
        if not quiet:
            print(path)
