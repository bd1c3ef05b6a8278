"""How good a network is on slices that it has not learnt from, run by PyTorch as it trains."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torchvision.models.detection import MaskRCNN

import voxkernels as vk
from cbdetach.annotations import LabelledSlice
from cbdetach.progress import bar
from cbdetach.segment.instances import Detections, to_labels
from cbdetach.segment.scaling import NOMINAL_DIAMETER, grey_levels, normalise, section_diameter, zoomed
from cbdetach.train.network import STRIDE


def validation(
    model: MaskRCNN, slices: list[LabelledSlice], device: torch.device, *, progress: bool = False
) -> dict[str, float]:
    """F1, precision, sensitivity at IoU 0.5 and the mean IoU of the matches, over all particles of some slices."""
    found = true = matched = 0
    ious: list[float] = []
    model.eval()
    for piece in bar(slices, "validation", unit="slice", show=progress):
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
