"""A trained network as one ONNX file that says where it comes from, and how well it agrees with PyTorch.

The graph is `detector.Detector`, traced; the file's metadata hold what a reader must know. Three precisions:

- fp32;
- fp16: weights, convolutions and matrix products in half precision, all that computes with coordinates in single;
- int8: convolutions in 8 bits (QDQ, one scale for each channel), but for the first one and the predictors. The ranges
  of the activations are those on synthetic slices.
"""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torchvision.models.detection import MaskRCNN
from torchvision.ops import box_iou

import cbdetach
from cbdetach.device import checked_threads
from cbdetach.errors import InputError, called
from cbdetach.files import require_new, require_writable, told, whole_file
from cbdetach.segment.model_file import FORMAT, PLACEHOLDER, with_digest
from cbdetach.segment.scaling import NOMINAL_DIAMETER, grey_levels, normalise, section_diameter, zoomed
from cbdetach.train.checkpoint import Checkpoint, load
from cbdetach.train.detector import Detector
from cbdetach.train.network import STRIDE

Image = npt.NDArray[np.float32]
Parity = dict[str, float]

PRECISIONS = ("fp32", "fp16", "int8")
OPSET = 15
"""The last one whose RoiAlign every GPU build of ONNX Runtime has a kernel for; nothing newer is needed."""
OUTPUTS = ("boxes", "scores", "masks", "index")
CALIBRATION_SEEDS, CHECK_SEEDS = range(1_900_000, 1_900_003), range(1_900_003, 1_900_005)
"""Scenes that neither training nor validation nor the tests see."""


def export(
    checkpoint: Path,
    out: Path,
    *,
    precision: str = "fp32",
    score_threshold: float = 0.5,
    check: Sequence[str | Path] = (),
    threads: int | None = None,
    overwrite: bool = False,
) -> Parity:
    """Write the network of a checkpoint as an ONNX file, and compare it with PyTorch.

    Parameters
    ----------
    checkpoint : `best.pt` or `last.pt` of a training.
    out : the file, written whole or not at all.
    precision : "fp32", "fp16" or "int8".
    score_threshold : 0 to 1: recommended to the reader; the graph itself gives all above the network's own threshold.
    check : slices to compare on: files that `cbdetach run` reads; of a volume the middle one. Default: synthetic ones.
    threads : of ONNX Runtime. Default: all.
    overwrite : whether `out` may be a file that exists.

    Returns
    -------
    What `parity` finds.

    Raises
    ------
    InputError : no checkpoint, or a foreign one; a file that exists; no such precision or slice; a threshold out of
        range.
    """
    if precision not in PRECISIONS:
        raise InputError(f"--precision: must be one of {', '.join(PRECISIONS)}; got {precision}.")
    if not 0 <= score_threshold <= 1:
        raise InputError(f"--score-threshold: must be between 0 and 1; got {score_threshold}.")
    require_writable(out, what="file")
    require_new(out, overwrite=overwrite)
    checked_threads(threads)
    found = load(checkpoint)
    images = [_slice(path) for path in check] or list(_synthetic(CHECK_SEEDS))
    graph = trace(Detector(found.model, half=precision == "fp16"))
    if precision == "int8":
        graph = quantised(graph, list(_synthetic(CALIBRATION_SEEDS)))
    content = stamped(graph, _metadata(found, precision, score_threshold))
    with told(out, what="file"), whole_file(out) as temporary:
        temporary.write_bytes(content)
    return parity(found.model, out, images, score_threshold=score_threshold, threads=threads)


def trace(detector: Detector, side: int = 64) -> onnx.ModelProto:
    """The graph of a detector; traced on two images of `side` pixels, a multiple of 32, but good for any."""
    axes = {"image": {0: "batch", 2: "height", 3: "width"}} | {name: {0: "detections"} for name in OUTPUTS}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        # the exporter that traces: the newer one cannot follow sizes that depend on the data
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        path = Path(folder) / "traced.onnx"
        torch.onnx.export(
            detector.eval(),
            (torch.rand(2, 1, side, side),),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=list(OUTPUTS),
            dynamic_axes=axes,
        )
        return _without_identities(onnx.load(path))


def quantised(graph: onnx.ModelProto, images: Sequence[Image]) -> onnx.ModelProto:
    """The graph with its convolutions in 8 bits, but for the first one and the predictors."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Slices(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.left, None)
            return None if image is None else {"image": image[None, None]}

    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
    predictors = ("cls_logits", "bbox_pred", "mask_predictor/logits")
    kept = [node.name for node in convolutions if any(part in node.name for part in predictors)]
    # the exporter has folded and named what pre-processing would; without this entry a warning recommends it
    entry = graph.metadata_props.add()
    entry.key, entry.value = "onnx.quant.pre_process", "onnxruntime.quant"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_static(
            graph,
            path,
            Slices(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,  # weights of 7 bits: sums of products of 8 do not fit where a processor has no VNNI
            nodes_to_exclude=[convolutions[0].name, *kept],
        )
        return onnx.load(path)


def stamped(graph: onnx.ModelProto, metadata: Mapping[str, str]) -> bytes:
    """The file of a graph with these metadata and its own check sum (`segment.model_file`)."""
    del graph.metadata_props[:]
    for key, value in {**metadata, "sha256": PLACEHOLDER}.items():
        entry = graph.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(graph)
    return with_digest(graph.SerializeToString())


def parity(
    model: MaskRCNN,
    path: Path,
    images: Sequence[Image],
    *,
    score_threshold: float = 0.5,
    threads: int | None = None,
) -> Parity:
    """How a model file differs from torchvision's model on normalised images.

    Detections are matched by the IoU of their boxes, not by their order: equal scores may swap.

    Parameters
    ----------
    images : (H, W) float32, sizes multiples of 32.

    Returns
    -------
    torch, onnx : detections of each; matched : pairs of them with IoU above 0.5.
    certain_torch, certain_onnx, certain_matched : the same for detections with scores of at least `score_threshold`.
    box_px, score, mask : the largest difference in a matched pair; box_px_mean, score_mean, mask_mean : the mean one.
    mask_iou : mean IoU of the masks at 0.5, on the 28 x 28 grid, of certain pairs.
    torch_s, onnx_s : seconds per image, the first image's first run not counted.
    """
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    total = dict.fromkeys(("torch", "onnx", "matched", "certain_torch", "certain_onnx", "certain_matched"), 0.0)
    pairs: dict[str, list[npt.NDArray[Any]]] = {"box_px": [], "score": [], "mask": [], "mask_iou": []}
    torch_s = onnx_s = 0.0
    for number, image in enumerate(images):
        batch = torch.from_numpy(image)[None, None]
        for again in range(1 if number else 2):
            began = time.perf_counter()
            with torch.inference_mode():
                wanted = model(list(batch))[0]
            between = time.perf_counter()
            boxes, scores, masks, _ = (torch.from_numpy(array) for array in session.run(None, {"image": batch.numpy()}))
            if number or again:
                torch_s, onnx_s = torch_s + between - began, onnx_s + time.perf_counter() - between
        iou = box_iou(wanted["boxes"], boxes)
        a = torch.arange(len(iou)) if boxes.numel() else torch.arange(0)
        b = iou.argmax(1) if boxes.numel() else a
        if len(a):  # each is the other's best
            mutual = (iou.argmax(0)[b] == a) & (iou[a, b] > 0.5)
            a, b = a[mutual], b[mutual]
        sure = (wanted["scores"][a] >= score_threshold) & (scores[b] >= score_threshold)
        counts = (
            len(iou),
            len(boxes),
            len(a),
            _sure(wanted["scores"], score_threshold),
            _sure(scores, score_threshold),
        )
        for name, n in zip(total, (*counts, int(sure.sum())), strict=True):
            total[name] += n
        ours, theirs = masks[b], wanted["masks"][a, 0]
        pairs["box_px"].append((boxes[b] - wanted["boxes"][a]).abs().amax(1).numpy())
        pairs["score"].append((scores[b] - wanted["scores"][a]).abs().numpy())
        pairs["mask"].append((ours - theirs).abs().numpy())
        union = ((ours >= 0.5) | (theirs >= 0.5)).sum((1, 2))[sure]
        both = ((ours >= 0.5) & (theirs >= 0.5)).sum((1, 2))[sure]
        pairs["mask_iou"].append(((both + 1e-9) / (union + 1e-9)).numpy())
    result = dict(total)
    for name in ("box_px", "score", "mask"):
        values = np.concatenate([part.ravel() for part in pairs[name]])
        result[name] = float(values.max(initial=0))
        result[f"{name}_mean"] = float(values.mean()) if values.size else 0.0
    overlaps = np.concatenate(pairs["mask_iou"])
    result["mask_iou"] = float(overlaps.mean()) if overlaps.size else 1.0
    return result | {"torch_s": torch_s / len(images), "onnx_s": onnx_s / len(images)}


def describe(out: Path, found: Parity) -> str:
    """What the command prints: the file, and how it agrees with PyTorch."""
    return (
        f"{out}: {out.stat().st_size / 1e6:.1f} MB\n"
        f"against PyTorch: {found['matched']:.0f} of {found['torch']:.0f} detections matched "
        f"({found['onnx']:.0f} found); of those above the recommended score {found['certain_matched']:.0f} of "
        f"{found['certain_torch']:.0f} ({found['certain_onnx']:.0f} found)\n"
        f"largest (mean) difference: box {found['box_px']:.2g} ({found['box_px_mean']:.2g}) px, "
        f"score {found['score']:.2g} ({found['score_mean']:.2g}), mask {found['mask']:.2g} ({found['mask_mean']:.2g}); "
        f"mean IoU of masks {found['mask_iou']:.4f}\n"
        f"one slice: PyTorch {found['torch_s']:.2f} s, ONNX Runtime {found['onnx_s']:.2f} s"
    )


def prepared(image: npt.NDArray[Any], diameter_px: float) -> Image:
    """A grey slice as the network takes it: normalised, at the nominal diameter, padded to multiples of 32."""
    zoom = NOMINAL_DIAMETER / diameter_px
    height, width = (max(round(n * zoom), 1) for n in image.shape)
    small = zoomed(normalise(image, grey_levels(image)), (height, width))
    return np.pad(small, [(0, -n % STRIDE) for n in small.shape], mode="edge")


def _without_identities(model: onnx.ModelProto) -> onnx.ModelProto:
    """Equal constants, which the exporter stores once and passes on through Identity, read directly."""
    ends = {output.name for output in model.graph.output}
    passed_on = [node for node in model.graph.node if node.op_type == "Identity" and node.output[0] not in ends]
    source = {node.output[0]: node.input[0] for node in passed_on}
    kept = [node for node in model.graph.node if node.output[0] not in source]
    for node in kept:
        for place, name in enumerate(node.input):
            while name in source:
                name = source[name]
            node.input[place] = name
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def _metadata(found: Checkpoint, precision: str, score_threshold: float) -> dict[str, str]:
    settings = found.settings.to_dict()
    # the file is passed on: names of what was learnt from, not where it lay
    settings["data"]["annotations"] = [Path(name).name for name in settings["data"]["annotations"]]
    record = {
        "settings": settings,
        "epochs": found.epoch,
        "seed": found.settings.seed,
        "hours": round(found.seconds / 3600, 2),
        "data": settings["data"],
        "last_epoch": found.history[-1] if found.history else {},
    }
    return {
        "format": FORMAT,
        "nominal_diameter_px": f"{NOMINAL_DIAMETER:g}",
        "score_threshold": f"{score_threshold:g}",
        "training": json.dumps(record, ensure_ascii=False),
        "version": cbdetach.__version__,
        "precision": precision,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _synthetic(seeds: Sequence[int]) -> Iterator[Image]:
    from cbdetach.train.scenes import slices_of_scene

    for seed in seeds:
        for piece in slices_of_scene(seed, count=2, side=320):
            yield prepared(piece.image, section_diameter(piece.labels) or NOMINAL_DIAMETER)


def _slice(path: str | Path) -> Image:
    from cbdetach.segment import segment_slice
    from cbdetach.volume import open_volume

    with called("--check"), open_volume(path, allow_2d=True) as volume:
        image = np.asarray(volume[volume.shape[0] // 2])
    try:
        return prepared(image, section_diameter(segment_slice(image)) or NOMINAL_DIAMETER)
    except ValueError as error:
        raise InputError(f"--check: {path}: {error}") from None


def _sure(scores: torch.Tensor, threshold: float) -> int:
    return int((scores >= threshold).sum())
