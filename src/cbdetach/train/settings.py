"""Settings of a training: defaults (the paper's recipe, Suppl. Note 1), then a TOML file, then the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import Field

from cbdetach.config import Section, as_typed, checked, read_toml
from cbdetach.train.augment import AugmentSettings
from cbdetach.train.network import NetworkSettings


class Data(Section):
    """What is learnt from: synthetic slices, or a person's own labels, or both."""

    annotations: tuple[str, ...] = ()
    """VGG Image Annotator JSON, COCO JSON, or image + label-image pairs (`cbdetach.annotations`)."""
    training: int = Field(default=155, ge=1)
    validation: int = Field(default=66, ge=1)
    """Labelled slices are split in this proportion; of synthetic ones, so many are seen an epoch and validated on."""
    scenes: int | None = Field(default=None, ge=1)
    """Synthetic electrodes that are drawn before they are used again; None: new ones for ever."""
    slices_per_scene: int = Field(default=8, ge=1)
    side: int = Field(default=448, ge=64)
    """Pixels of a synthetic slice's edge."""
    ignore: bool = True
    """Areas that the labels mark as `ignore` teach neither particle nor background; else they are background."""
    synthetic: bool = True
    """False: only the labels that are given."""


class Optimiser(Section):
    """Descent. The defaults are the paper's."""

    name: Literal["sgd", "adamw"] = "sgd"
    rate: float = Field(default=1e-3, gt=0)
    final_rate: float = Field(default=1e-4, gt=0)
    decay: Literal["exponential", "cosine"] = "exponential"
    """How the rate goes from the first to the final one, step by step."""
    warmup: int = Field(default=100, ge=0)
    """Steps in which the rate rises from nothing."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    clip: float = Field(default=10.0, gt=0)
    """Largest norm of the gradient."""


class TrainSettings(Section):
    """A training. 150 epochs of SGD, as published; what the shipped model was given stands in its model card."""

    epochs: int = Field(default=150, ge=1)
    crops: int = Field(default=1, ge=1)
    """Random crops of each slice in an epoch."""
    batch: int = Field(default=4, ge=1)
    seed: int = Field(default=0, ge=0)
    validate_every: int = Field(default=5, ge=1)
    """Epochs from one validation to the next."""
    amp: bool | None = None
    """Mixed precision; None: on a GPU, yes, and on a processor that multiplies bfloat16."""
    workers: int = Field(default=1, ge=0)
    """Processes that make the slices."""
    tensorboard: bool = False
    data: Data = Data()
    augment: AugmentSettings = AugmentSettings()
    network: NetworkSettings = NetworkSettings()
    optimiser: Optimiser = Optimiser()

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionary, as in checkpoints and in the ONNX file's record."""
        return self.model_dump(mode="json")

    def to_toml(self) -> str:
        """The settings as TOML that `read_settings` reads back to the same."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def read_settings(
    file: Path | None = None, overrides: Mapping[str, Any] | None = None, *, annotations: Sequence[str] = ()
) -> TrainSettings:
    """Settings from a TOML file, overridden by `overrides` (None: not given) and by the names of annotation files.

    Annotations that are given so replace synthetic slices, unless the file asks for both.

    Raises
    ------
    InputError : the file is missing or not TOML, a name is unknown, or a value is out of range.
    """
    content = {} if file is None else read_toml(file)
    content |= {name: value for name, value in (overrides or {}).items() if value is not None}
    if annotations:
        content["data"] = {"synthetic": False, **content.get("data", {}), "annotations": tuple(annotations)}
    with as_typed(overrides or {}):
        return validate(content)


def validate(content: Mapping[str, Any]) -> TrainSettings:
    """Settings from a nested dictionary; the first thing that is wrong becomes one sentence."""
    return checked(TrainSettings, content)
