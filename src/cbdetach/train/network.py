"""The network: torchvision's Mask R-CNN on one-channel slices with hundreds of particles of about one size.

Slices come normalised and scaled (`cbdetach.segment.scaling`), so the network needs neither input transform nor a wide
range of scales: the backbone can stop at stride 16, three feature levels and anchors of 8 to 112 pixels cover sections
from a tenth to three times the nominal diameter. Normalisation layers are trained, everywhere: there are no
pretrained weights, and from random ones Mask R-CNN does not converge without them.

Source: He et al., Mask R-CNN (2017); Lin et al., Feature pyramid networks (2017); Jiang et al. (2020), Suppl. Note 1.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from cbdetach.config import Section

CLASSES = 2
"""Background and particle."""
IGNORED = 0.3
"""Share of a box on ignored area from which it is neither right nor wrong, as in the evaluation."""
MASK = 28
"""Pixels of a mask's edge."""
STRIDE = 32
"""Images are padded to multiples of this."""


class NetworkSettings(Section):
    """Shape of the network. The defaults are those of the shipped model: about 5 million parameters."""

    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet18"
    stages: int = Field(default=3, ge=2, le=4)
    """Residual stages that are kept: 3 ends at stride 16, 4 at stride 32."""
    fpn_channels: int = Field(default=96, ge=16, le=256)
    box_features: int = Field(default=256, ge=32, le=1024)
    mask_channels: int = Field(default=64, ge=16, le=256)
    mask_layers: int = Field(default=3, ge=1, le=8)
    anchor_sizes: tuple[tuple[int, ...], ...] = ((8, 12), (18, 27), (40, 56), (80, 112))
    """Edges of the anchors, pixels; one group per level of strides 4, 8, ... and one for the pooled level above."""
    anchor_ratios: tuple[float, ...] = (0.7, 1.0, 1.4)
    proposals: int = Field(default=600, ge=10)
    """Candidate boxes that a slice (or tile) keeps."""
    detections: int = Field(default=400, ge=10)
    """Particles that a slice (or tile) can hold."""
    train_proposals: int = Field(default=800, ge=10)
    boxes_per_image: int = Field(default=192, ge=8)
    """Candidates that the box head learns from, per image; a quarter are particles, from which the mask head learns."""
    box_margin: float = Field(default=1.5, ge=0)
    """Pixels by which boxes are larger than their particles on each side, so that they cut no mask."""
    nms: float = Field(default=0.4, gt=0, lt=1)
    """IoU of boxes above which the lower score is dropped: touching round particles overlap by less."""
    score_threshold: float = Field(default=0.05, ge=0, lt=1)


class Prepared(nn.Module):
    """Stands where torchvision resizes and normalises: the images are ready, the batch only has to be stacked."""

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[ImageList, list[dict[str, Tensor]] | None]:
        batch = torch.stack(images)
        height, width = int(batch.shape[-2]), int(batch.shape[-1])
        return ImageList(batch, [(height, width)] * len(images)), targets

    def postprocess(
        self, result: list[dict[str, Tensor]], image_shapes: Any, original_image_sizes: Any
    ) -> list[dict[str, Tensor]]:
        """Masks stay 28 x 28: pasting is `voxkernels.paste_masks`."""
        return result


def build(settings: NetworkSettings | None = None) -> MaskRCNN:
    """A Mask R-CNN with random weights for normalised (1, H, W) float32 images, H and W multiples of `STRIDE`.

    In training mode it takes images and targets (boxes (n, 4), labels (n,) of 1, masks (n, H, W)) and returns losses;
    in evaluation mode boxes (n, 4), scores (n,) and masks (n, 1, 28, 28) of each image.
    """
    s = settings or NetworkSettings()
    norm = partial(nn.BatchNorm2d, momentum=0.05)
    trunk = getattr(resnet, s.backbone)(weights=None, norm_layer=norm)
    trunk.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    width = {"layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512}
    grow = 1 if s.backbone in ("resnet18", "resnet34") else 4
    kept = [f"layer{i + 1}" for i in range(s.stages)]
    for name in set(width) - set(kept):
        delattr(trunk, name)
    backbone = BackboneWithFPN(
        trunk,
        return_layers={name: str(i) for i, name in enumerate(kept)},
        in_channels_list=[grow * width[name] for name in kept],
        out_channels=s.fpn_channels,
        extra_blocks=LastLevelMaxPool(),
        norm_layer=norm,
    )
    levels = [str(i) for i in range(s.stages)]
    if len(s.anchor_sizes) != s.stages + 1:
        raise ValueError(
            f"anchor_sizes: must be {s.stages + 1} groups, one for each of the {s.stages} stages and one for the level "
            f"above; got {len(s.anchor_sizes)}."
        )
    if len({len(group) for group in s.anchor_sizes}) > 1:
        raise ValueError(
            f"anchor_sizes: must be groups of one length, as all levels share a head; got {s.anchor_sizes}."
        )
    model = MaskRCNN(
        backbone,
        num_classes=None,
        rpn_anchor_generator=AnchorGenerator(s.anchor_sizes, (s.anchor_ratios,) * len(s.anchor_sizes)),
        rpn_pre_nms_top_n_train=s.train_proposals,
        rpn_pre_nms_top_n_test=s.proposals,
        rpn_post_nms_top_n_train=s.train_proposals,
        rpn_post_nms_top_n_test=s.proposals,
        rpn_fg_iou_thresh=0.6,
        rpn_bg_iou_thresh=0.3,
        box_roi_pool=_pool(levels, 7),
        box_head=TwoMLPHead(s.fpn_channels * 7**2, s.box_features),
        box_predictor=FastRCNNPredictor(s.box_features, CLASSES),
        box_nms_thresh=s.nms,
        box_score_thresh=s.score_threshold,
        box_detections_per_img=s.detections,
        box_batch_size_per_image=s.boxes_per_image,
        box_positive_fraction=0.25,
        mask_roi_pool=_pool(levels, MASK // 2),
        mask_head=MaskRCNNHeads(s.fpn_channels, [s.mask_channels] * s.mask_layers, 1, norm_layer=norm),
        mask_predictor=MaskRCNNPredictor(s.mask_channels, s.mask_channels, CLASSES),
    )
    model.transform = Prepared()
    # torchvision builds these two itself: they only learn to leave out what a target marks as `ignore`
    model.rpn.__class__ = _Proposals
    model.roi_heads.__class__ = _Heads
    return model


class _Proposals(RegionProposalNetwork):  # type: ignore[misc]
    """Anchors on ignored areas are neither particle nor background."""

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        for label, anchor, target in zip(labels, anchors, targets, strict=True):
            label[(label == 0) & _ignored(anchor, target)] = -1
        return labels, boxes


class _Heads(RoIHeads):  # type: ignore[misc]
    """Candidates on ignored areas are neither particle nor background."""

    def select_training_samples(self, proposals: list[Tensor], targets: list[dict[str, Tensor]]) -> Any:
        self.targets = targets
        return super().select_training_samples(proposals, targets)

    def assign_targets_to_proposals(
        self, proposals: list[Tensor], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        matched, labels = super().assign_targets_to_proposals(proposals, gt_boxes, gt_labels)
        for label, boxes, target in zip(labels, proposals, self.targets, strict=True):
            label[(label == 0) & _ignored(boxes, target)] = -1
        return matched, labels


def _ignored(boxes: Tensor, target: dict[str, Tensor]) -> Tensor:
    """Which boxes (n, 4) have at least `IGNORED` of their area on the target's `ignore` (H, W), if it has one."""
    if "ignore" not in target:
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    height, width = target["ignore"].shape
    sums = torch.zeros(height + 1, width + 1, device=boxes.device)
    sums[1:, 1:] = target["ignore"].float().cumsum(0).cumsum(1)
    x0, x1 = boxes[:, [0, 2]].round().long().clamp(0, width).unbind(1)
    y0, y1 = boxes[:, [1, 3]].round().long().clamp(0, height).unbind(1)
    inside = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    return inside >= IGNORED * ((x1 - x0) * (y1 - y0)).clamp(min=1)


def _pool(levels: list[str], size: int) -> MultiScaleRoIAlign:
    """Boxes below 56 pixels are read at stride 4, below 112 at stride 8."""
    return MultiScaleRoIAlign(levels, size, sampling_ratio=2, canonical_scale=112, canonical_level=4)
