"""Commands around what is learnt: training, export and evaluation of the network, the pixel classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cbdetach.cli.common import Out, OverwriteFile, Quiet, Verbose, one_line_errors, require
from cbdetach.errors import InputError


def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for checkpoints and the log.")] = Path("training"),
    config: Annotated[Path | None, typer.Option("--config", help="TOML file with settings of the training.")] = None,
    annotations: Annotated[
        list[str] | None, typer.Option("--annotations", help="Your labels: VIA or COCO JSON, or a folder of pairs.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the slices (default: 150).")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the weights and of the slices.")] = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option("--threads", help="Threads of PyTorch (default: all).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a training that was interrupted.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the training in the folder.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train the network that finds particles on slices.

    On synthetic slices, or on your own labels (--annotations).
    """
    with one_line_errors(quiet, verbose, "interrupted; continue with --resume."):
        require("torch", "torchvision", extra="train")
        from cbdetach.train import loop, settings

        given: dict[str, Any] = {"epochs": epochs, "seed": seed}
        wanted = settings.read_settings(config, given, annotations=annotations or ())
        path = loop.train(
            wanted, out, resume=resume, overwrite=overwrite, device=device, threads=threads, progress=not quiet
        )
        if not quiet:
            print(path)


def train_phases(
    grey: Annotated[list[str], typer.Option("--grey", help="Grey volume or slice; repeat it.")],
    labels: Annotated[list[str], typer.Option("--labels", help="Its labels, in the same order; repeat it.")],
    phase_values: Annotated[
        str, typer.Option("--phase-values", help="Value of each phase: void=2,cbd=1,active=0; others are unlabelled.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File to write; one that exists is kept, but for --overwrite.")
    ] = Path("phases.npz"),
    dimensions: Annotated[int, typer.Option("--dimensions", help="2: each slice alone; 3: with its neighbours.")] = 2,
    samples: Annotated[
        int, typer.Option("--samples", help="Labelled voxels drawn from each volume, 1 to 1000000.")
    ] = 20_000,
    trees: Annotated[int, typer.Option("--trees", help="Trees of the forest, 1 to 1000.")] = 40,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draw and of the forest.")] = 0,
    overwrite: OverwriteFile = False,
    quiet: Quiet = False,
) -> None:
    """Train a pixel classifier for the phases.

    On slices or volumes that you have labelled; a few strokes are enough.
    """
    with one_line_errors(quiet, verbose=False, interrupted="interrupted; nothing is written."):
        from cbdetach import job
        from cbdetach import train_phases as _train

        if len(grey) != len(labels):
            raise InputError(f"--labels: must be given once for each --grey; got {len(labels)} for {len(grey)}.")
        pairs = list(zip(grey, labels, strict=True))
        values = job.parse_phase_values(phase_values) or {}
        _train.train_phases(
            pairs,
            values,
            out,
            dimensions=dimensions,
            samples=samples,
            trees=trees,
            seed=seed,
            overwrite=overwrite,
        )
        if not quiet:
            print(out)


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="best.pt or last.pt of a training.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="ONNX file to write; one that exists is kept, but for --overwrite.")
    ] = Path("particles.onnx"),
    precision: Annotated[str, typer.Option("--precision", help="fp32, fp16 or int8.")] = "fp32",
    score_threshold: Annotated[
        float, typer.Option("--score-threshold", help="Score that the file recommends to its readers.")
    ] = 0.5,
    check: Annotated[
        list[str] | None, typer.Option("--check", help="Slice to compare with PyTorch on (default: synthetic ones).")
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", help="Threads of ONNX Runtime (default: all).")] = None,
    overwrite: OverwriteFile = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a trained network as an ONNX file.

    And say how well it agrees with PyTorch.
    """
    with one_line_errors(quiet, verbose, "interrupted; nothing is written."):
        require("torch", "torchvision", "onnx", extra="train")
        require("onnxruntime", extra="cpu")
        from cbdetach.train import export as _export

        found = _export.export(
            checkpoint,
            out,
            precision=precision,
            score_threshold=score_threshold,
            check=check or (),
            threads=threads,
            overwrite=overwrite,
        )
        if not quiet:
            print(_export.describe(out, found))


def evaluate(
    annotations: Annotated[
        str | None,
        typer.Argument(metavar="ANNOTATIONS", help="Labelled slices: VGG or COCO JSON, or label images."),
    ] = None,
    model: Annotated[Path | None, typer.Option("--model", help="ONNX model (default: the shipped one).")] = None,
    phantom: Annotated[int | None, typer.Option("--phantom", help="Or so many held-out synthetic slices.")] = None,
    tune: Annotated[
        str | None, typer.Option("--tune", help="Labelled slices to tune the watersheds on (default: ANNOTATIONS).")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option("--method", help="network, watershed or intensity; repeat it (default: all).")
    ] = None,
    iou: Annotated[float, typer.Option("--iou", help="Least IoU of a predicted particle with a labelled one.")] = 0.5,
    activation: Annotated[
        Path | None, typer.Option("--activation", help="Checkpoint: only the activation map of it (extra train).")
    ] = None,
    out: Out = Path("cbdetach_evaluation"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the evaluation in the folder.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare network and watershed on labelled slices."""
    with one_line_errors(quiet, verbose):
        from cbdetach import evaluate as _evaluate

        if activation is not None:
            require("torch", "torchvision", extra="train")
            said: object = _evaluate.activation(
                activation, annotations, out, phantom=phantom, overwrite=overwrite, progress=not quiet
            )
        else:
            said = _evaluate.evaluate(
                annotations,
                out,
                model=model,
                phantom=phantom,
                tuning=tune,
                methods=method,
                iou=iou,
                overwrite=overwrite,
                progress=not quiet,
            )
        if not quiet:
            print(said)
