"""What the network learns from: a stream of augmented crops, the same for a seed wherever and however it is made.

Crop `i` of epoch `e` is drawn by a generator seeded with (seed, e, i) from a slice that (seed, e) chooses. So a resumed
training continues the same stream, and worker processes can make its parts. Synthetic slices come in scenes (several
slices of one electrode), each made once and kept in a folder named after the code that makes them.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from cbdetach import evaluate, phantom
from cbdetach.annotations import LabelledSlice
from cbdetach.errors import InputError
from cbdetach.files import whole_file
from cbdetach.train import scenes
from cbdetach.train.augment import Augment
from cbdetach.train.settings import TrainSettings

TRAINING_SEEDS, VALIDATION_SEEDS = evaluate.TEST_SEED, evaluate.TUNING_SEED
"""Scenes below the first are learnt from, those from the second on are validated on; between them lie those that
`cbdetach evaluate` tests on."""
SCENES_PER_SEED = 10_000

Sample = tuple[Tensor, dict[str, Tensor]]


class Scenes:
    """Slices of synthetic electrodes by the number of the scene, kept in `folder`."""

    def __init__(self, folder: Path, *, count: int, side: int) -> None:
        source = "".join(inspect.getsource(module) for module in (phantom, scenes))
        digest = hashlib.sha256(source.encode()).hexdigest()[:8]
        self.folder = folder / f"scenes-{digest}-{count}x{side}"
        self.count, self.side = count, side

    def __call__(self, scene: int) -> list[LabelledSlice]:
        """The slices of a scene, made if they are not there yet."""
        path = self.folder / f"{scene:07d}.npz"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            made = scenes.slices_of_scene(scene, count=self.count, side=self.side)
            none = np.zeros_like(made[0].labels, np.bool_)
            with whole_file(path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(
                    file,
                    images=np.stack([s.image for s in made]),
                    labels=np.stack([s.labels for s in made]).astype(np.uint16),
                    ignore=np.stack([none if s.ignore is None else s.ignore for s in made]),
                )
        with np.load(path) as arrays:
            images, labels, ignore = arrays["images"], arrays["labels"].astype(np.int32), arrays["ignore"]
        return [
            LabelledSlice(f"scene {scene}, slice {k}", f"scene {scene}", images[k], labels[k], ignore[k])
            for k in range(len(images))
        ]


class Samples(Dataset[Sample]):
    """Augmented crops of a training; the key of one is (epoch, number)."""

    def __init__(self, settings: TrainSettings, labelled: list[LabelledSlice], scenes: Scenes | None) -> None:
        self.settings, self.labelled, self.scenes = settings, labelled, scenes
        self.augment = Augment(settings.augment)
        self.slices = settings.data.training if scenes is not None else len(labelled)

    @property
    def per_epoch(self) -> int:
        """Crops in an epoch, whole batches of them."""
        wanted = self.slices * self.settings.crops
        return max(wanted // self.settings.batch, 1) * self.settings.batch

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, number = key
        rng = np.random.default_rng([self.settings.seed, epoch, number])
        return self.augment(self.slice_of(epoch, number), rng)

    def slice_of(self, epoch: int, number: int) -> LabelledSlice:
        """The slice that a crop is cut from: every slice of the epoch once, then all again in another order."""
        lap, place = divmod(number, self.slices)
        order = np.random.default_rng([self.settings.seed, epoch, lap, 1]).permutation(self.slices)
        chosen = int(order[place])
        if chosen < len(self.labelled) or self.scenes is None:
            return self.labelled[chosen % len(self.labelled)]
        data = self.settings.data
        slot = epoch * self.slices + chosen
        scene, part = divmod(slot, data.slices_per_scene)
        if data.scenes is not None:
            scene %= data.scenes
        return _scene(self.scenes, self.settings.seed * SCENES_PER_SEED + scene)[part]


@lru_cache(maxsize=256)
def _scene(scenes: Scenes, number: int) -> list[LabelledSlice]:
    return scenes(number)


class Order(Sampler[tuple[int, int]]):
    """The keys of all crops from one epoch to the last."""

    def __init__(self, samples: Samples, first: int, last: int) -> None:
        self.samples, self.first, self.last = samples, first, last

    def __len__(self) -> int:
        return (self.last - self.first) * self.samples.per_epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for epoch in range(self.first, self.last):
            for number in range(self.samples.per_epoch):
                yield epoch, number


def check_seed(seed: int) -> None:
    """A seed whose scenes would be those of the tests is refused."""
    if (seed + 1) * SCENES_PER_SEED > TRAINING_SEEDS:
        raise InputError(
            f"seed: must be below {TRAINING_SEEDS // SCENES_PER_SEED}; got {seed}. Scenes beyond are tests."
        )
