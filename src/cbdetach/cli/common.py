"""What commands share: options of one name and meaning, and how errors are told."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Annotated

import typer

from cbdetach.errors import InputError, Terminated

FinishedRun = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")]
FigureOut = Annotated[Path, typer.Option("--out", "-o", help="Folder for the figure, which is drawn again.")]
Particle = Annotated[int | None, typer.Option("--particle", help="Label (default: the one with the longest way).")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Print what each stage does.")]
Device = Annotated[str, typer.Option("--device", help="cpu, or cuda: kernels and network on a GPU.")]
Threads = Annotated[int | None, typer.Option("--threads", help="Threads of the kernels (default: all).")]
Segmenter = Annotated[
    str | None,
    typer.Option("--segmenter", help="maskrcnn (the network), watershed (3D) or watershed2d (default: what can be)."),
]
Model = Annotated[str | None, typer.Option("--model", help="ONNX file of the network (default: cbdetach's own).")]
Views = Annotated[str | None, typer.Option("--views", help="Slices along z, or along zyx and fused (default: z).")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue a run that was interrupted.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run that the folder holds.")]
OverwriteFile = Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")]


@contextmanager
def one_line_errors(quiet: bool, verbose: bool, interrupted: str = "interrupted.") -> Iterator[None]:
    """Messages to stderr as asked; bad input as one line and exit code 2; what to do after Ctrl-C and SIGTERM."""
    logger = logging.getLogger("cbdetach")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.setLevel(logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    except InputError as error:
        print(f"cbdetach: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    except KeyboardInterrupt as stop:
        print(f"cbdetach: {interrupted}", file=sys.stderr)
        raise typer.Exit(128 + (SIGTERM if isinstance(stop, Terminated) else SIGINT)) from None
    finally:
        logger.removeHandler(handler)


def require(*modules: str, extra: str) -> None:
    """A missing optional library is bad input: one sentence that says which extra to install."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise InputError(f"{' and '.join(missing)} missing: pip install 'cbdetach[{extra}]'.")
