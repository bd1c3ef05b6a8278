"""Training: crops in, a checkpoint after every epoch, a log that a person and a program can read.

An interrupted training continues from its last whole epoch with `resume`, on the same stream of crops. A checkpoint is
a plain dictionary of tensors, numbers and text, read with `weights_only=True`: nothing in it is executed.
"""

from __future__ import annotations

import csv
import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from torchvision.models.detection import MaskRCNN
from tqdm import tqdm

import voxkernels as vk
from cbdetach.annotations import LabelledSlice, read_annotations, split
from cbdetach.config import differences
from cbdetach.errors import InputError
from cbdetach.segment.instances import Detections, to_labels
from cbdetach.segment.scaling import NOMINAL_DIAMETER, grey_levels, normalise, section_diameter, zoomed
from cbdetach.store import whole_file
from cbdetach.train.network import STRIDE, build
from cbdetach.train.samples import VALIDATION_SEEDS, Order, Sample, Samples, Scenes, check_seed
from cbdetach.train.settings import Optimiser, TrainSettings, validate

log = logging.getLogger("cbdetach")

FORMAT = "cbdetach-checkpoint-1"
LAST, BEST, LOG = "last.pt", "best.pt", "log.csv"
MAY_DIFFER = {"epochs", "workers", "amp", "tensorboard", "validate_every"}
"""Settings that a resumed training may change. The learning rate follows the number of epochs."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and how it came about."""

    model: MaskRCNN
    settings: TrainSettings
    epoch: int
    seconds: float
    history: list[dict[str, float]]


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
        torch.set_num_threads(threads)
    last = out / LAST
    state = None
    if last.exists():
        if not (resume or overwrite):
            raise InputError(
                f"--out: {out} holds a training; continue it with --resume, or replace it with --overwrite."
            )
        if resume:
            state = _resumable(last, settings)
    out.mkdir(parents=True, exist_ok=True)
    with whole_file(out / "train.toml") as path:
        path.write_text(settings.to_toml(), encoding="utf-8")

    samples, held_out = _sources(settings, out)
    _seed_everything(settings.seed, 0)
    model = build(settings.network).to(target, memory_format=torch.channels_last)
    if _mixed(settings.amp, target):
        _multiply_in_bfloat16(model, target)
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
    )
    batches = iter(loader)
    writer = _writer(out) if settings.tensorboard else None
    for epoch in range(first, settings.epochs):
        began = time.perf_counter()
        _seed_everything(settings.seed, epoch)
        row = _epoch(model, batches, steps, optimiser, schedule, settings, target, epoch, progress)
        done = epoch + 1
        if done % settings.validate_every == 0 or done == settings.epochs:
            row |= validation(model, held_out, target)
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
            _save(state, out / BEST)
        _save(state, last)
        _write_log(out / LOG, history)
        if writer is not None:
            for name, value in row.items():
                writer.add_scalar(name, value, done)
    if writer is not None:
        writer.close()
    return out / BEST if (out / BEST).exists() else last


def load(path: Path) -> Checkpoint:
    """A checkpoint's network, in evaluation mode on the CPU.

    Raises
    ------
    InputError : no such file; not a checkpoint of `cbdetach train`.
    """
    state = _read(path)
    settings = validate(state["settings"])
    model = build(settings.network)
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise InputError(f"{path}: its weights do not fit its own settings: {str(error).splitlines()[0]}.") from None
    return Checkpoint(model.eval(), settings, int(state["epoch"]), float(state["seconds"]), list(state["history"]))


def validation(model: MaskRCNN, slices: list[LabelledSlice], device: torch.device) -> dict[str, float]:
    """F1, precision, sensitivity at IoU 0.5 and the mean IoU of the matches, over all particles of some slices."""
    found = true = matched = 0
    ious: list[float] = []
    model.eval()
    for piece in slices:
        labels = predict(model, piece.image, section_diameter(piece.labels), device)
        shared = vk.overlap_counts(labels, piece.labels)
        size_a = dict(zip(shared.labels_a.tolist(), shared.size_a.tolist(), strict=True))
        size_b = dict(zip(shared.labels_b.tolist(), shared.size_b.tolist(), strict=True))
        for a, b, n in zip(shared.ids_a.tolist(), shared.ids_b.tolist(), shared.count.tolist(), strict=True):
            iou = n / (size_a[a] + size_b[b] - n)
            if iou > 0.5:  # no object has two such partners
                matched += 1
                ious.append(iou)
        found += len(size_a)
        true += len(size_b)
    model.train()
    precision, sensitivity = matched / max(found, 1), matched / max(true, 1)
    return {
        "precision": precision,
        "sensitivity": sensitivity,
        "f1": 2 * matched / max(found + true, 1),
        "iou": float(np.mean(ious)) if ious else 0.0,
    }


def predict(
    model: MaskRCNN, image: np.ndarray[Any, Any], diameter: float, device: torch.device, *, score: float = 0.5
) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Label image (Y, X) of one slice by the network in PyTorch; `cbdetach.segment` does it with ONNX Runtime."""
    zoom = NOMINAL_DIAMETER / max(diameter, 1.0)
    shape = tuple(max(round(n * zoom), 1) for n in image.shape)
    small = zoomed(normalise(image, grey_levels(image)), (shape[0], shape[1]))
    padded = np.pad(small, [(0, -n % STRIDE) for n in small.shape], mode="edge")
    with torch.inference_mode():
        found = model([torch.from_numpy(padded)[None].to(device)])[0]
    scale = np.array([n / m for n, m in zip(image.shape, shape, strict=True)])[[1, 0, 1, 0]]
    boxes, scores, masks = (found[name].cpu().numpy() for name in ("boxes", "scores", "masks"))
    detections = Detections(boxes * scale, scores, masks[:, 0], (image.shape[0], image.shape[1]))
    return to_labels(detections.above(score))[0]


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
    for _ in tqdm(range(steps), desc=title, disable=not progress, leave=False, mininterval=2):
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


def _sources(settings: TrainSettings, out: Path) -> tuple[Samples, list[LabelledSlice]]:
    """The stream of crops, and the slices that are held out."""
    data = settings.data
    labelled: list[LabelledSlice] = []
    held_out: list[LabelledSlice] = []
    if data.annotations:
        every = [piece for path in data.annotations for piece in read_annotations(Path(path))]
        labelled, held_out = split(every, training=data.training, validation=data.validation, seed=settings.seed)
    elif not data.synthetic:
        raise InputError("data.annotations: must name labelled slices where data.synthetic is false; got none.")
    scenes = Scenes(out, count=data.slices_per_scene, side=data.side) if data.synthetic else None
    if scenes is not None and not held_out:
        needed = math.ceil(data.validation / data.slices_per_scene)
        held_out = [piece for k in range(needed) for piece in scenes(VALIDATION_SEEDS + k)][: data.validation]
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


def _mixed(wanted: bool | None, device: torch.device) -> bool:
    if wanted is None:
        return device.type == "cuda" or bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
    return wanted


def _multiply_in_bfloat16(model: MaskRCNN, device: torch.device) -> None:
    """Convolutions and matrix products in bfloat16; boxes, which eight bits would move by pixels, stay float32."""
    for part in (model.backbone, model.rpn.head, model.roi_heads.box_head, model.roi_heads.mask_head):
        part.forward = partial(_in_bfloat16, part.forward, device.type)


def _in_bfloat16(forward: Callable[..., Any], device: str, *inputs: Any) -> Any:
    with torch.autocast(device, torch.bfloat16):
        return _as_float32(forward(*inputs))


def _as_float32(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float()
    if isinstance(value, dict):
        return type(value)((name, _as_float32(one)) for name, one in value.items())
    return type(value)(_as_float32(one) for one in value)


def _resumable(path: Path, settings: TrainSettings) -> dict[str, Any]:
    state = _read(path)
    changed = [
        name for name in differences(state["settings"], settings.to_dict()) if name.split(".")[0] not in MAY_DIFFER
    ]
    if changed:
        raise InputError(f"--resume: the training in {path.parent} has other settings: {', '.join(changed)}.")
    return state


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise InputError(f"{path}: there is no such checkpoint; give last.pt or best.pt of a training.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file fails in many ways
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be read as a checkpoint ({reason[:120]}); give last.pt or best.pt.") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InputError(f"{path}: is not a checkpoint of cbdetach train ({FORMAT}); give last.pt or best.pt of one.")
    return state


def _save(state: dict[str, Any], path: Path) -> None:
    with whole_file(path) as temporary:
        torch.save(state, temporary)


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
