"""Checkpoints of a training: plain dictionaries of tensors, numbers and text.

They are read with `weights_only=True`: nothing in them is executed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torchvision.models.detection import MaskRCNN

from cbdetach.config import differences
from cbdetach.errors import InputError
from cbdetach.files import whole_file
from cbdetach.train.network import build
from cbdetach.train.settings import TrainSettings, validate

FORMAT = "cbdetach-checkpoint-1"
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


def resumable(path: Path, settings: TrainSettings) -> dict[str, Any]:
    """The state to continue from; InputError where the settings are others, but for `MAY_DIFFER`."""
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
    except Exception:  # a foreign file fails in many ways, and PyTorch says nothing of use about it
        state = None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InputError(f"{path}: is not a checkpoint of cbdetach train ({FORMAT}); give last.pt or best.pt of one.")
    return state


def save(state: dict[str, Any], path: Path) -> None:
    """Write a state, whole or not at all."""
    with whole_file(path) as temporary:
        torch.save(state, temporary)
