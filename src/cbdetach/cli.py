"""The command line: parse, call, print. No logic."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

import cbdetach
from cbdetach.errors import InputError

app = typer.Typer(
    name="cbdetach",
    help="Measure, particle by particle, the detachment from the carbon/binder domain in an electrode's tomogram.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
)

FinishedRun = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")]
FigureOut = Annotated[Path, typer.Option("--out", "-o", help="Folder for the figure.")]
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


def start() -> None:
    """Run the command that was typed. What was typed wrongly is one line and exit code 2, as other bad input is."""
    try:
        code = app(prog_name="cbdetach", standalone_mode=False)
    except Exception as error:
        if not hasattr(error, "format_message"):  # only Typer's own errors have it; it names no class of theirs
            raise
        text = error.format_message().rstrip(".?")
        command = getattr(getattr(error, "ctx", None), "command_path", "cbdetach")
        print(text if "\n" in text else f"cbdetach: {text}; see {command} --help.", file=sys.stderr)
        code = 2
    raise SystemExit(code)


@contextmanager
def one_line_errors(quiet: bool, verbose: bool, interrupted: str = "interrupted.") -> Iterator[None]:
    """Messages to stderr as asked; bad input as one line and exit code 2; what to do after Ctrl-C."""
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
    except KeyboardInterrupt:
        print(f"cbdetach: {interrupted}", file=sys.stderr)
        raise typer.Exit(130) from None
    finally:
        logger.removeHandler(handler)


def _require(*modules: str, extra: str) -> None:
    """A missing optional library is bad input: one sentence that says which extra to install."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise InputError(f"{' and '.join(missing)} missing: pip install 'cbdetach[{extra}]'.")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"cbdetach {cbdetach.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Measure, particle by particle, the detachment from the carbon/binder domain in an electrode's tomogram."""


@app.command()
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
        }
        need = pipeline.plan(out=out, **arguments)
        if not quiet:
            print(f"This run {need}.")
        if dry_run:
            return
        found = pipeline.run(
            out=out, threads=threads, resume=resume, overwrite=overwrite, progress=not quiet, **arguments
        )
        if not quiet:
            print(gather.summary(found))


@app.command()
def demo(
    out: Out = Path("cbdetach_demo"),
    size: Annotated[int, typer.Option("--size", help="Edge of the synthetic electrode, voxels.")] = 160,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the synthetic electrode.")] = 0,
    segmenter: Segmenter = None,
    model: Model = None,
    views: Views = None,
    device: Device = "cpu",
    threads: Threads = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure a synthetic electrode, and print what was found beside what is true."""
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


@app.command()
def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for checkpoints and the log.")] = Path("training"),
    config: Annotated[Path | None, typer.Option("--config", help="TOML file with settings of the training.")] = None,
    annotations: Annotated[
        list[str] | None, typer.Option("--annotations", help="Your labels: VIA or COCO JSON, or a folder of pairs.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the slices (default: 150).")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the weights and of the slices.")] = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    threads: Threads = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a training that was interrupted.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the training in the folder.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train the network that finds particles on slices, on synthetic slices or on your own labels."""
    with one_line_errors(quiet, verbose, "interrupted; continue with --resume."):
        _require("torch", "torchvision", extra="train")
        from cbdetach.train import loop, settings

        given: dict[str, Any] = {"epochs": epochs, "seed": seed}
        wanted = settings.read_settings(config, given, annotations=annotations or ())
        path = loop.train(
            wanted, out, resume=resume, overwrite=overwrite, device=device, threads=threads, progress=not quiet
        )
        if not quiet:
            print(path)


@app.command("train-phases")
def train_phases(
    grey: Annotated[list[str], typer.Option("--grey", help="Grey volume or slice; repeat it.")],
    labels: Annotated[list[str], typer.Option("--labels", help="Its labels, in the same order; repeat it.")],
    phase_values: Annotated[
        str, typer.Option("--phase-values", help="Value of each phase: void=2,cbd=1,active=0; others are unlabelled.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")] = Path("phases.npz"),
    dimensions: Annotated[int, typer.Option("--dimensions", help="2: each slice alone; 3: with its neighbours.")] = 2,
    samples: Annotated[int, typer.Option("--samples", help="Labelled voxels drawn from each volume.")] = 20_000,
    trees: Annotated[int, typer.Option("--trees", help="Trees of the forest.")] = 40,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draw and of the forest.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Train a pixel classifier for the phases, on slices or volumes that you have labelled."""
    with one_line_errors(quiet, verbose=False, interrupted="interrupted; nothing is written."):
        from cbdetach import job
        from cbdetach import train_phases as _train

        if len(grey) != len(labels):
            raise InputError(f"--labels: must be given once for each --grey; got {len(labels)} for {len(grey)}.")
        pairs = list(zip(grey, labels, strict=True))
        values = job.parse_phase_values(phase_values) or {}
        _train.train_phases(pairs, values, out, dimensions=dimensions, samples=samples, trees=trees, seed=seed)
        if not quiet:
            print(out)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="best.pt or last.pt of a training.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="ONNX file to write.")] = Path("particles.onnx"),
    precision: Annotated[str, typer.Option("--precision", help="fp32, fp16 or int8.")] = "fp32",
    score_threshold: Annotated[
        float, typer.Option("--score-threshold", help="Score that the file recommends to its readers.")
    ] = 0.5,
    check: Annotated[
        list[str] | None, typer.Option("--check", help="Slice to compare with PyTorch on (default: synthetic ones).")
    ] = None,
    threads: Threads = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a trained network as an ONNX file, and say how well it agrees with PyTorch."""
    with one_line_errors(quiet, verbose, "interrupted; nothing is written."):
        _require("torch", "torchvision", "onnx", extra="train")
        _require("onnxruntime", extra="cpu")
        from cbdetach.train import export as _export

        found = _export.export(
            checkpoint, out, precision=precision, score_threshold=score_threshold, check=check or (), threads=threads
        )
        if not quiet:
            print(_export.describe(out, found))


@app.command()
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
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare the network and the watershed on labelled slices."""
    with one_line_errors(quiet, verbose):
        from cbdetach import evaluate as _evaluate

        if activation is not None:
            _require("torch", "torchvision", extra="train")
            said: object = _evaluate.activation(activation, annotations, out, phantom=phantom, progress=not quiet)
        else:
            said = _evaluate.evaluate(
                annotations,
                out,
                model=model,
                phantom=phantom,
                tuning=tune,
                methods=method,
                iou=iou,
                progress=not quiet,
            )
        if not quiet:
            print(said)


@app.command()
def streamlines(
    run: FinishedRun,
    out: FigureOut = Path("cbdetach_particle"),
    particle: Particle = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the points that ways start from.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Draw the shortest ways of one particle to its contact, on a slice and on its surface."""
    with one_line_errors(quiet, verbose=False):
        from cbdetach import particle as _particle

        for path in _particle.streamlines(run, out, particle=particle, seed=seed):
            if not quiet:
                print(path)


@app.command()
def sweep(
    run: FinishedRun,
    out: FigureOut = Path("cbdetach_particle"),
    particle: Particle = None,
    steps: Annotated[int, typer.Option("--steps", help="Steps of equal area.")] = 20,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the patches.")] = 0,
    measured: Annotated[bool, typer.Option("--measured", help="Start from the particle's own contact.")] = False,
    direction: Annotated[str, typer.Option("--direction", help="Side that is lost first: z,y,x.")] = "1,0,0",
    electronic: Annotated[
        str | None, typer.Option("--electronic", help="Formula of d, detachment, and r, length ratio (default: 1 / r).")
    ] = None,
    ionic: Annotated[str | None, typer.Option("--ionic", help="Formula, as --electronic (default: d).")] = None,
    curves: Annotated[Path | None, typer.Option("--curves", help="CSV instead: detachment, electronic, ionic.")] = None,
    quiet: Quiet = False,
) -> None:
    """Take contact from one particle step by step: its diffusion length, and a schematic model of accessibility."""
    with one_line_errors(quiet, verbose=False):
        from cbdetach import particle as _particle
        from cbdetach.volume import parse_direction

        written = _particle.detachment_sweep(
            run,
            out,
            particle=particle,
            steps=steps,
            seed=seed,
            measured=measured,
            direction=parse_direction(direction),
            electronic=electronic,
            ionic=ionic,
            curves=curves,
        )
        for path in written:
            if not quiet:
                print(path)


@app.command()
def correlate(
    run: FinishedRun,
    map: Annotated[str, typer.Option("--map", help="One image: TIFF, file.h5:/dataset, .npy; 0 or nan is outside.")],
    out: FigureOut = Path("cbdetach_particle"),
    particle: Particle = None,
    pixel_size: Annotated[
        float | None, typer.Option("--pixel-size", help="Of the map, micrometres (default: from the file).")
    ] = None,
    map_range: Annotated[
        str | None, typer.Option("--map-range", help="LOW,HIGH: only such values are the particle.")
    ] = None,
    map_name: Annotated[str, typer.Option("--map-name", help="What the map shows, with its unit.")] = "map",
    direction: Annotated[str, typer.Option("--direction", help="Of the view: z, y, x or z,y,x.")] = "z",
    min_thickness: Annotated[
        float | None, typer.Option("--min-thickness", help="Thinner rays are left out, um (default: 2 or 4 voxels).")
    ] = None,
    erosion: Annotated[
        float | None, typer.Option("--erosion", help="Rim left out of r, um (default: as for the run's densities).")
    ] = None,
    rotation: Annotated[str, typer.Option("--rotation", help="LOW,HIGH: degrees to look in.")] = "-180,180",
    scale: Annotated[str, typer.Option("--scale", help="LOW,HIGH: scales to look in.")] = "0.9,1.1",
    negative: Annotated[bool, typer.Option("--negative", help="High density goes with low values.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Register one particle's projected density to a map of it, and correlate the two."""
    with one_line_errors(quiet, verbose=False):
        from cbdetach import particle_map
        from cbdetach.volume import parse_direction, parse_range

        where, found = particle_map.correlate(
            run,
            map,
            out,
            particle=particle,
            pixel_um=pixel_size,
            map_range=None if map_range is None else parse_range(map_range, "--map-range"),
            map_name=map_name,
            direction=parse_direction(direction),
            min_thickness_um=min_thickness,
            erosion_um=erosion,
            rotation_deg=parse_range(rotation, "--rotation"),
            scale=parse_range(scale, "--scale"),
            negative=negative,
            seed=seed,
        )
        if not quiet:
            print(f"rotation {where.rotation_deg:.2f} degrees, scale {where.scale:.4f}, overlap {where.overlap:.2f}")
            print(f"r {found.r:.3f}, {found.level:.0%} interval {found.low:.3f} to {found.high:.3f}")


@app.command()
def report(run: FinishedRun, quiet: Quiet = False) -> None:
    """Write the figures and the report of a finished run again."""
    with one_line_errors(quiet, verbose=False):
        from cbdetach import gather

        path = gather.rewrite_report(run)
        if not quiet:
            print(path)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
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
    seed: Annotated[int, typer.Option("--seed", help="Seed of what is drawn at random.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the comparison in the folder.")] = False,
    quiet: Quiet = False,
) -> None:
    """Compare electrodes: detachment by rate, cycles or state of charge, the electrode as the unit of every test."""
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


@app.command("export-labels")
def export_labels(
    run: FinishedRun,
    tiff: Annotated[Path, typer.Argument(metavar="TIFF", help="TIFF file to write.")],
    quiet: Quiet = False,
) -> None:
    """Write the particle labels as a TIFF that Fiji opens with its scale."""
    with one_line_errors(quiet, verbose=False), cbdetach.open_run(run) as found:
        path = found.export_labels(tiff)
        if not quiet:
            print(path)


@app.command()
def bench(
    size: Annotated[int, typer.Option("--size", help="Edge of the synthetic electrode, voxels.")] = 128,
    kernels: Annotated[str | None, typer.Option("--kernels", help="Which kernels: label,... (default: all).")] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu or cuda (default: both, where there is a GPU).")
    ] = None,
    pipeline: Annotated[bool, typer.Option("--pipeline/--no-pipeline", help="Time a whole run, too.")] = True,
    repeats: Annotated[int, typer.Option("--repeats", help="Calls that a median is taken of.")] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON file to write.")] = None,
    threads: Threads = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure the kernels and the pipeline on this machine, beside its memory's bandwidth; check every answer first."""
    with one_line_errors(quiet, verbose):
        from cbdetach import bench as _bench
        from cbdetach.bench import cases, table

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


@app.command()
def doctor() -> None:
    """Say what this installation can do, and what is missing."""
    from cbdetach import doctor as _doctor

    print(_doctor.examine())
