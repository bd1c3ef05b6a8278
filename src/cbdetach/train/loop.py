"""Training: crops in, a checkpoint after every epoch, a log that a person and a program can read.

An interrupted training continues from its last whole epoch with `resume`, on the same stream of crops.
"""

from __future__ import annotations

import csv
import logging
import math
import multiprocessing
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from torchvision.models.detection import MaskRCNN

from cbdetach.annotations import LabelledSlice, read_given, split
from cbdetach.device import checked_threads
from cbdetach.errors import InputError, called
from cbdetach.files import only_one, require_writable, told, whole_file
from cbdetach.progress import bar
from cbdetach.train.checkpoint import FORMAT, resumable, save
from cbdetach.train.network import build
from cbdetach.train.precision import mixed, multiply_in_bfloat16
from cbdetach.train.samples import VALIDATION_SEEDS, Order, Sample, Samples, Scenes, check_seed
from cbdetach.train.settings import Optimiser, TrainSettings
from cbdetach.train.validation import validation

log = logging.getLogger("cbdetach")

LAST, BEST, LOG = "last.pt", "best.pt", "log.csv"


def train(
    settings: TrainSettings,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    progress: bool = True,
) -> Path:
    """Train a network, and return the path of the best checkpoint.

    Parameters
    ----------
    settings : what to learn from, and how (`TrainSettings`).
    out : folder for `last.pt`, `best.pt` (largest F1 at IoU 0.5 on the validation slices), `log.csv`, `train.toml`.
    resume : continue from `last.pt`, or start where there is none; the settings must be the same but for `MAY_DIFFER`.
    overwrite : replace a training that the folder holds.
    device : "cpu" or "cuda".

    Raises
    ------
    InputError : a folder with another training in it; settings that differ; labels that cannot be read; no such device;
        a loss that is no number any more.
    """
    check_seed(settings.seed)
    target = _device(device)
    if threads is not None:
        torch.set_num_threads(checked_threads(threads))
    only_one(resume=resume, overwrite=overwrite)
    require_writable(out)
    last = out / LAST
    state = None
    if last.exists():
        if not (resume or overwrite):
            raise InputError(
                f"-o/--out: {out} holds a training; continue it with --resume, or replace it with --overwrite."
            )
        if resume:
            state = resumable(last, settings)
    labelled, held_out = _labelled(settings)
    with told(out), whole_file(out / "train.toml") as path:
        path.write_text(settings.to_toml(), encoding="utf-8")

    samples, held_out = _sources(settings, out, labelled, held_out, progress)
    _seed_everything(settings.seed, 0)
    model = build(settings.network).to(target, memory_format=torch.channels_last)
    if mixed(settings.amp, target):
        multiply_in_bfloat16(model, target)
    optimiser = _optimiser(model, settings.optimiser)
    steps = samples.per_epoch // settings.batch
    schedule = LambdaLR(optimiser, _rate(settings.optimiser, steps * settings.epochs))
    history: list[dict[str, float]] = []
    first, seconds = 0, 0.0
    if state is not None:
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        first, seconds, history = state["epoch"], state["seconds"], state["history"]
        schedule.load_state_dict(state["schedule"])
        log.info("continues after epoch %d of %d", first, settings.epochs)
    best = max((row.get("f1", 0.0) for row in history), default=0.0)

    loader = DataLoader(
        samples,
        batch_size=settings.batch,
        sampler=Order(samples, first, settings.epochs),
        num_workers=settings.workers,
        multiprocessing_context="spawn" if settings.workers else None,
        collate_fn=list,
        worker_init_fn=_keep_quiet,
    )
    writer = _writer(out) if settings.tensorboard else None
    with _no_worker_waited_for():
        with _deaf_to_ctrl_c():
            batches = iter(loader)
        for epoch in range(first, settings.epochs):
            began = time.perf_counter()
            _seed_everything(settings.seed, epoch)
            row = _epoch(model, batches, steps, optimiser, schedule, settings, target, epoch, progress)
            done = epoch + 1
            if done % settings.validate_every == 0 or done == settings.epochs:
                row |= validation(model, held_out, target, progress=progress)
            seconds += time.perf_counter() - began
            row |= {"seconds": seconds}
            history.append({"epoch": float(done), **row})
            state = {
                "format": FORMAT,
                "settings": settings.to_dict(),
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
                "epoch": done,
                "seconds": seconds,
                "history": history,
            }
            if row.get("f1", 0.0) >= best and "f1" in row:
                best = row["f1"]
                save(state, out / BEST)
            save(state, last)
            _write_log(out / LOG, history)
            log.info("%s", _said(row, done, settings.epochs))
            if writer is not None:
                for name, value in row.items():
                    writer.add_scalar(name, value, done)
    if writer is not None:
        writer.close()
    return out / BEST if (out / BEST).exists() else last


def _keep_quiet(_: int) -> None:
    """In a process that makes slices: that the training was stopped while it fetched one is no news."""
    usual = sys.excepthook

    def told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not isinstance(error, EOFError | ConnectionError):
            usual(kind, error, trace)

    sys.excepthook = told


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes started in this hear no Ctrl-C, which a terminal sends to them, too: the training ends them."""
    resource_tracker.ensure_running()  # it hears again what is blocked when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _no_worker_waited_for() -> Iterator[None]:
    """What ends a training early ends the processes that make slices: else the loader waits five seconds for each."""
    before = multiprocessing.active_children()
    try:
        yield
    except BaseException:
        _end([worker for worker in multiprocessing.active_children() if worker not in before])
        raise


def _end(workers: list[multiprocessing.process.BaseProcess]) -> None:
    """End processes; PyTorch, which takes the end of one that is just starting for an error, does not hear of it."""
    heard = threading.current_thread() is threading.main_thread()  # else it listens to none
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if heard else None
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join()
    if heard:
        signal.signal(signal.SIGCHLD, handler)


def _said(row: dict[str, float], done: int, epochs: int) -> str:
    """What a person wants to know of an epoch."""
    f1 = f", F1 {row['f1']:.3f} on the validation slices" if "f1" in row else ""
    return f"epoch {done} of {epochs}: loss {row['loss']:.4g}{f1}; {row['seconds']:.0f} s since the start"


def _epoch(
    model: MaskRCNN,
    batches: Iterator[list[Sample]],
    steps: int,
    optimiser: Optimizer,
    schedule: LambdaLR,
    settings: TrainSettings,
    device: torch.device,
    epoch: int,
    progress: bool,
) -> dict[str, float]:
    """One epoch: the mean of each loss, and the learning rate at its end."""
    totals: dict[str, float] = {}
    model.train()
    names = ("boxes", "labels", "masks", *(("ignore",) if settings.data.ignore else ()))
    title = f"epoch {epoch + 1}/{settings.epochs}"
    for _ in bar(range(steps), title, unit="step", show=progress):
        batch = next(batches)
        images = [image.to(device) for image, _ in batch]
        targets = [taught({name: t[name].to(device) for name in names}, settings.network.box_margin) for _, t in batch]
        losses: dict[str, Tensor] = model(images, targets)
        loss = torch.stack(list(losses.values())).sum()
        if not math.isfinite(float(loss.detach())):
            raise InputError(
                f"the loss is {float(loss.detach())} in epoch {epoch + 1}: the training has diverged. "
                "Give a smaller optimiser.rate; --resume continues from the last whole epoch."
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.optimiser.clip)
        optimiser.step()
        schedule.step()
        for name, value in losses.items():
            totals[name] = totals.get(name, 0.0) + float(value.detach())
    means = {name: value / steps for name, value in totals.items()}
    return {"loss": sum(means.values()), **means, "rate": float(schedule.get_last_lr()[0])}


def taught(target: dict[str, Tensor], margin: float) -> dict[str, Tensor]:
    """A target as torchvision's losses have to be given it.

    Boxes get a margin: where a predicted box is a little too small it would otherwise cut the mask, which makes masks
    small on average. Masks are moved by half a pixel, as means of four: the loss samples them as if the centre of pixel
    i were at i, boxes and inference have it at i + 1/2.
    """
    height, width = target["masks"].shape[-2:]
    grown = target["boxes"] + target["boxes"].new_tensor([-margin, -margin, margin, margin])
    limits = grown.new_tensor([width, height, width, height])
    padded = torch.nn.functional.pad(target["masks"].float(), (1, 0, 1, 0))
    masks = torch.nn.functional.avg_pool2d(padded[:, None], 2, stride=1)[:, 0] if len(padded) else target["masks"]
    return {**target, "boxes": torch.minimum(grown.clamp(min=0), limits), "masks": masks}


def _labelled(settings: TrainSettings) -> tuple[list[LabelledSlice], list[LabelledSlice]]:
    """The labelled slices to learn from, and those that are held out; none where only synthetic ones are wanted."""
    data = settings.data
    if data.annotations:
        every = [piece for path in data.annotations for piece in read_given(path, "--annotations")]
        with called("--annotations", was="annotations"):
            return split(every, training=data.training, validation=data.validation, seed=settings.seed)
    if not data.synthetic:
        raise InputError("data.annotations: must name labelled slices where data.synthetic is false; got none.")
    return [], []


def _sources(
    settings: TrainSettings, out: Path, labelled: list[LabelledSlice], held_out: list[LabelledSlice], progress: bool
) -> tuple[Samples, list[LabelledSlice]]:
    """The stream of crops, and the slices that are held out: synthetic ones where no labelled ones are."""
    data = settings.data
    scenes = Scenes(out, count=data.slices_per_scene, side=data.side) if data.synthetic else None
    if scenes is not None and not held_out:
        needed = math.ceil(data.validation / data.slices_per_scene)
        made = bar(range(needed), "validation slices", unit="scene", show=progress)
        held_out = [piece for k in made for piece in scenes(VALIDATION_SEEDS + k)][: data.validation]
    return Samples(settings, labelled, scenes), held_out


def _optimiser(model: MaskRCNN, wanted: Optimiser) -> Optimizer:
    """Weights decay, scales and offsets do not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": wanted.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if wanted.name == "adamw":
        return AdamW(groups, lr=wanted.rate, betas=(wanted.momentum, 0.999))
    return SGD(groups, lr=wanted.rate, momentum=wanted.momentum)


def _rate(wanted: Optimiser, steps: int) -> Any:
    """Factor of the learning rate at a step: warm-up, then from 1 to the final one."""
    end = wanted.final_rate / wanted.rate

    def factor(step: int) -> float:
        rise = min((step + 1) / (wanted.warmup + 1), 1.0)
        share = min(step / max(steps, 1), 1.0)
        if wanted.decay == "cosine":
            return rise * (end + (1 - end) * 0.5 * (1 + math.cos(math.pi * share)))
        return float(rise * end**share)

    return factor


def _seed_everything(seed: int, epoch: int) -> None:
    """torchvision samples candidates from torch's own generator: an epoch starts from the same state when resumed."""
    torch.manual_seed(seed * 1_000_003 + epoch)
    random.seed(seed)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device: must be cpu: torch finds no CUDA device here; got cuda.")
    if name not in ("cpu", "cuda"):
        raise InputError(f"--device: must be cpu or cuda; got {name}.")
    return torch.device(name)


def _write_log(path: Path, history: list[dict[str, float]]) -> None:
    columns = list(dict.fromkeys(name for row in history for name in row))
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in history)


def _writer(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("tensorboard: the package is missing: pip install tensorboard, or leave it off.") from None
    return SummaryWriter(str(out / "tensorboard"))
