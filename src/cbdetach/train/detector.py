"""The inference half of torchvision's Mask R-CNN, written for whole batches, as ONNX can express it.

torchvision runs proposals, boxes and masks image by image, which an exporter unrolls. `Detector` computes the same
with a fixed number of operations for any number of images of any size:

1. backbone, feature pyramid and proposal head once; on each level the `proposals` best anchors. Anchors are computed
   from their indices, so no table of them exists, and short levels are filled up with anchors of probability 0;
2. one non-maximum suppression in which levels are the classes, as torchvision suppresses within a level; of what is
   left the best `proposals` of each image;
3. boxes in the order of the pyramid level that they are read from, so that RoIAlign of the levels is only concatenated
   and nothing is scattered back; box head;
4. one non-maximum suppression in which the *images* are the classes: it also applies the score threshold and the
   limit of detections to each image;
5. mask head for what is left (`SmallMasks`).

Nothing is pasted, resized or normalised in the graph. Batch normalisation is folded into the convolutions.

Source: He et al., Mask R-CNN (2017); torchvision `models.detection` (rpn.py, roi_heads.py) for the arithmetic.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.onnx.operators import shape_as_tensor
from torchvision.models.detection import MaskRCNN
from torchvision.ops import nms, roi_align


class Detector(nn.Module):
    """Mask R-CNN for inference on a batch, exportable with dynamic batch, height and width.

    Parameters
    ----------
    model : torchvision's model with one class of objects, in evaluation mode; copied, not changed.
    half : weights and convolutions in float16. Anchors, boxes, scores and RoIAlign's sampling stay in float32: box
        coordinates of some thousand pixels do not fit float16.
    """

    of_level: Tensor
    """(L, L K): which of the candidates (the best K of each level, one level after the other) a level has."""

    def __init__(self, model: MaskRCNN, *, half: bool = False) -> None:
        super().__init__()
        model = copy.deepcopy(model).eval()
        self.dtype = torch.float16 if half else torch.float32
        heads = model.roi_heads
        self.backbone = model.backbone.to(self.dtype)
        self.rpn_head = model.rpn.head.to(self.dtype)
        self.box_head = heads.box_head.to(self.dtype)
        self.box_predictor = heads.box_predictor.to(self.dtype)
        self.mask_head = heads.mask_head.to(self.dtype)
        self.mask_predictor = SmallMasks(heads.mask_predictor).to(self.dtype)

        self.proposals = model.rpn._pre_nms_top_n["testing"], model.rpn._post_nms_top_n["testing"]
        self.rpn_nms = model.rpn.nms_thresh
        self.rpn_coder, self.box_coder = model.rpn.box_coder, heads.box_coder
        self.smallest = model.rpn.min_size, 1e-2
        self.cells = [cell.float() for cell in model.rpn.anchor_generator.cell_anchors]
        self.detections, self.box_nms, self.threshold = heads.detections_per_img, heads.nms_thresh, heads.score_thresh
        self.box_pool, self.mask_pool = heads.box_roi_pool, heads.mask_roi_pool
        with torch.no_grad():  # levels' scales are set up at a pool's first use
            features = self.backbone(torch.zeros(1, 1, 64, 64, dtype=self.dtype))
            for pool in (self.box_pool, self.mask_pool):
                pool({k: v.float() for k, v in features.items()}, [torch.tensor([[0.0, 0, 9, 9]])], [(64, 64)])
        self.register_buffer("of_level", torch.eye(len(self.cells)).repeat_interleave(self.proposals[0], 1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Boxes (M, 4), scores (M,), masks (M, 28, 28) and index (M,) of the image, for (N, 1, H, W) float32."""
        features = self.backbone(image.to(self.dtype))
        proposals, owner = self._propose(image, list(features.values()))
        pooled, order = self._pool(self.box_pool, features, proposals, owner)
        boxes, scores, owner = self._detect(image, pooled, proposals[order], owner[order])
        pooled, order = self._pool(self.mask_pool, features, boxes, owner)
        masks = self.mask_predictor(self.mask_head(pooled)).float().sigmoid()[:, 0]
        back = torch.zeros_like(order).scatter(0, order, torch.arange(order.shape[0]))
        return boxes, scores, masks[back], owner

    def _propose(self, image: Tensor, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Proposals (R, 4) and the image (R,) of each."""
        keep, limit = self.proposals
        boxes, probabilities = [], []
        for feature, cell, logits, deltas in zip(features, self.cells, *self.rpn_head(features), strict=True):
            n, (height, width) = logits.shape[0], feature.shape[2:]
            # as many candidates on every level, so that shapes are fixed; those without an anchor have probability 0
            filler = torch.full((n, keep), -torch.inf)
            best, index = torch.cat([logits.float().reshape(n, -1), filler], 1).topk(keep, dim=1)
            anchors, codes = _anchors_and_codes(index, cell, deltas, height, width, image.shape[2:])
            boxes.append(_decode(codes, anchors, self.rpn_coder))
            probabilities.append(best.sigmoid())
        box = _clip(torch.cat(boxes, 1), image)
        probability = _without_small(torch.cat(probabilities, 1), box, self.smallest[0])

        per_level = probability[:, None] * self.of_level
        kept = Suppress.apply(box, per_level, min(limit, keep), self.rpn_nms, 0.0)
        n, candidates = probability.shape[0], len(boxes) * keep
        place = kept[:, 0] * candidates + kept[:, 2]
        left = torch.zeros_like(probability).reshape(-1)
        left = left.scatter(0, place, probability.reshape(-1)[place]).reshape(n, -1)
        best, index = left.topk(min(limit, candidates), dim=1)
        filled = torch.nonzero(best.reshape(-1) > 0)[:, 0]
        owner = filled // best.shape[1]
        return box.reshape(-1, 4)[owner * candidates + index.reshape(-1)[filled]], owner

    def _pool(self, pool: Any, features: dict[str, Tensor], boxes: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        """What RoIAlign reads for boxes (R, 4), in the order (R,) of the levels that they are read from."""
        level = pool.map_levels([boxes])
        rois = torch.cat([owner[:, None].float(), boxes], 1)
        orders, parts = [], []
        for i, (name, scale) in enumerate(zip(pool.featmap_names, pool.scales, strict=True)):
            orders.append(torch.nonzero(level == i)[:, 0])
            feature = features[name].float()
            parts.append(roi_align(feature, rois[orders[-1]], pool.output_size, scale, pool.sampling_ratio))
        return torch.cat(parts).to(self.dtype), torch.cat(orders)

    def _detect(self, image: Tensor, pooled: Tensor, proposals: Tensor, owner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and images of what is found, best first within each image."""
        logits, codes = self.box_predictor(self.box_head(pooled))
        boxes = _clip(_decode(codes.float()[:, 4:], proposals, self.box_coder), image)
        scores = _without_small(logits.float().softmax(1)[:, 1], boxes, self.smallest[1])
        own = owner[None] == torch.arange(image.shape[0])[:, None]  # (N, R)
        kept = Suppress.apply(boxes[None], (scores * own)[None], self.detections, self.box_nms, self.threshold)
        return boxes[kept[:, 2]], scores[kept[:, 2]], kept[:, 1]


class SmallMasks(nn.Module):
    """The mask predictor (transposed convolution 2 x 2 of stride 2, ReLU, convolution 1 x 1) at half the resolution.

    The four pixels that come of one are channels until the end: two convolutions 1 x 1 and a shuffle, which ONNX
    Runtime computes twice as fast. Of the last layer only the particle's channel is left.
    """

    def __init__(self, predictor: Any) -> None:
        super().__init__()
        first, last = predictor.conv5_mask, predictor.mask_fcn_logits
        if first.kernel_size != (2, 2) or first.stride != (2, 2) or last.kernel_size != (1, 1):
            raise ValueError("predictor: must be torchvision's MaskRCNNPredictor; got other layers.")
        width = first.out_channels
        self.up = nn.Conv2d(first.in_channels, 4 * width, 1)
        self.logits = nn.Conv2d(4 * width, 4, 1)
        with torch.no_grad():
            self.up.weight[:] = first.weight.permute(2, 3, 1, 0).reshape(4 * width, -1, 1, 1)
            self.logits.weight[:] = torch.kron(torch.eye(4), last.weight[1].flatten())[:, :, None, None]
            for layer, bias in ((self.up, first.bias.repeat(4)), (self.logits, last.bias[1].expand(4))):
                layer.bias = nn.Parameter(bias.clone())

    def forward(self, features: Tensor) -> Tensor:
        """Logits (R, 1, 2 S, 2 S) from features (R, C, S, S)."""
        return nn.functional.pixel_shuffle(self.logits(self.up(features).relu()), 2)


class Suppress(torch.autograd.Function):
    """ONNX's NonMaxSuppression: boxes (B, S, 4), scores (B, C, S) -> (n, 3) int64 of batch, class and box.

    Of each class in each batch the best `limit`, with scores above `threshold`; those come in falling order.
    """

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, limit: int, overlap: float, threshold: float) -> Tensor:
        rows = []
        for batch, of_batch in enumerate(scores):
            for number, score in enumerate(of_batch):
                candidates = torch.nonzero(score > threshold)[:, 0]
                kept = candidates[nms(boxes[batch][candidates], score[candidates], overlap)[:limit]]
                rows.append(torch.stack([torch.full_like(kept, batch), torch.full_like(kept, number), kept], 1))
        return torch.cat(rows)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, limit: int, overlap: float, threshold: float) -> Any:
        def constant(value: float, dtype: torch.dtype) -> Any:
            return g.op("Constant", value_t=torch.tensor([value], dtype=dtype))

        return g.op(
            "NonMaxSuppression",
            boxes,
            scores,
            constant(limit, torch.int64),
            constant(overlap, torch.float32),
            constant(threshold, torch.float32),
        )


def _anchors_and_codes(
    index: Tensor, cell: Tensor, deltas: Tensor, height: Any, width: Any, size: Any
) -> tuple[Tensor, Tensor]:
    """Anchors and regression codes (N, K, 4) of candidates (N, K), which count anchor, row, column of a level."""
    n, pixels = index.shape[0], height * width
    index = index.clamp(max=len(cell) * pixels - 1)  # those that fill up
    kind, pixel = index // pixels, index % pixels
    x = (pixel % width * (size[1] // width)).float()
    y = (pixel // width * (size[0] // height)).float()
    anchors = torch.stack([x, y, x, y], 2) + cell[kind]
    place = (4 * kind * pixels + pixel)[:, :, None] + torch.arange(4) * pixels
    codes = deltas.reshape(n, -1).gather(1, place.reshape(n, -1))
    return anchors, codes.reshape(n, -1, 4).float()


def _decode(codes: Tensor, boxes: Tensor, coder: Any) -> Tensor:
    """Boxes (..., 4) moved and scaled by regression codes."""
    size = boxes[..., 2:] - boxes[..., :2]
    centre = boxes[..., :2] + 0.5 * size
    weights = torch.tensor(coder.weights)
    centre = codes[..., :2] / weights[:2] * size + centre
    half = 0.5 * torch.exp((codes[..., 2:] / weights[2:]).clamp(max=coder.bbox_xform_clip)) * size
    return torch.cat([centre - half, centre + half], -1)


def _clip(boxes: Tensor, image: Tensor) -> Tensor:
    """Boxes inside the image."""
    size = shape_as_tensor(image)[2:].flip(0).to(boxes.dtype)
    return torch.minimum(boxes.clamp(min=0), torch.cat([size, size]))


def _without_small(scores: Tensor, boxes: Tensor, smallest: float) -> Tensor:
    """Scores, 0 where a box is thinner than `smallest`."""
    return scores * ((boxes[..., 2:] - boxes[..., :2]) >= smallest).all(-1)
