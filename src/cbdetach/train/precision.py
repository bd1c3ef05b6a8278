"""Training in two precisions: convolutions and products in bfloat16, boxes in float32."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN


def mixed(wanted: bool | None, device: torch.device) -> bool:
    """Whether to; None: where the device computes in bfloat16 by itself."""
    if wanted is None:
        return device.type == "cuda" or bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
    return wanted


def multiply_in_bfloat16(model: MaskRCNN, device: torch.device) -> None:
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
