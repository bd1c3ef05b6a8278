"""One run while it works: its settings, its inputs, its folder, and what earlier stages have left there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

import voxkernels as vk
from cbdetach import given_phases
from cbdetach.classifier import Classifier
from cbdetach.classifier import load as load_classifier
from cbdetach.collector import Plate
from cbdetach.config import Input, Settings, resolve
from cbdetach.device import Gpu, worked
from cbdetach.errors import InputError, called
from cbdetach.estimate import Estimate
from cbdetach.progress import bar
from cbdetach.segment import check_label_type, maskrcnn, runtime
from cbdetach.store import RunFolder, Slab, partition, unpack
from cbdetach.survey import Survey
from cbdetach.thresholds import Thresholds
from cbdetach.volume import Volume, VoxelSize, open_volume, parse_voxel_size, require_voxel_size

Array = npt.NDArray[Any]

SLAB_VOXELS = 2**23
"""Slabs hold about this many voxels,"""

SLAB_SLICES = (32, 64)
"""in no fewer and no more slices than these."""

VOXEL_UM = (0.001, 100.0)
"""Voxel sizes, in micrometres, beyond which the unit is another one: a nanometre, and more than a whole particle."""


@dataclass(frozen=True)
class Worker:
    """A worker of a scheduler: how many slabs it has in hand at once, and the bytes that it may take."""

    threads: int
    memory: float | None


class Workers(Protocol):
    """Those who compute slabs in place of this process: `scheduler.Workers`."""

    address: str
    found: dict[str, Worker]

    def each(
        self, job: Job, stage: str, work: Callable[[int], Mapping[str, Array]], missing: Sequence[int]
    ) -> None: ...
    def refuse_what_cannot_fit(self, needs: Callable[[int], Estimate]) -> None: ...


@dataclass
class Job:
    """One run while it works: its settings, its inputs and its folder.

    `in_memory` : names of the inputs that were not given as a path. `workers` : of a scheduler, if there is one.
    """

    settings: Settings
    folder: RunFolder
    grey: Volume | None
    labels: Volume | None
    phases: Volume | None
    voxel_size: tuple[float, float, float]
    shape: tuple[int, int, int]
    progress: bool = True
    gpu: Gpu | None = None
    in_memory: tuple[str, ...] = ()
    workers: Workers | None = None

    def slab(self, index: int, halo: int = 0) -> Slab:
        """Slices of slab `index`, widened by a halo that ends at the volume's border."""
        z0, z1 = self.folder.slabs[index]
        return max(0, z0 - halo), min(self.shape[0], z1 + halo)

    def in_order(self, stage: str) -> Iterator[Slab]:
        """The slabs, first to last, with a progress bar."""
        return iter(bar(self.folder.slabs, stage, unit="slab", show=self.progress))

    def each_slab(
        self, stage: str, work: Callable[[int], dict[str, Array]], *, ahead: bool = True, in_turn: bool = False
    ) -> None:
        """Call `work` for every slab of a stage that is not there yet, and write what it returns.

        Where a scheduler is given, its workers do; not where a slab goes on from the one before, and they come
        `in_turn`. Where a GPU computes here, the next slab is in hand meanwhile; not where `work` must not be called
        `ahead`.
        """
        missing = [i for i in range(len(self.folder.slabs)) if not self.folder.has_slab(stage, i)]
        if self.workers is not None and not in_turn:
            self.workers.each(self, stage, work, missing)
            return
        results = worked(work, missing) if ahead and not in_turn else map(work, missing)
        for index in bar(missing, stage, unit="slab", show=self.progress):
            self.folder.write_slab(stage, index, next(results))  # no name: gone before the next is made

    def forget(self) -> None:
        """What earlier stages have found is read anew."""
        for name in [name for name, kind in vars(Job).items() if isinstance(kind, cached_property)]:
            vars(self).pop(name, None)

    def tables(self, stage: str, group: str = "table") -> list[dict[str, Array]]:
        """Every slab's share of a stage's tables, in the slabs' order."""
        return [self.folder.read_table(stage, i, group) for i in range(len(self.folder.slabs))]

    def particles(self, z0: int, z1: int) -> Array:
        """Particle labels, slices z0 to z1."""
        return self.folder.read_volume("link", "particles", z0, z1)

    def codes(self, z0: int, z1: int) -> Array:
        """Phase codes, slices z0 to z1."""
        return self.folder.read_volume("phases", "phases", z0, z1)

    def whole(self, z0: int, z1: int) -> tuple[Slab, Array]:
        """The slices that hold every particle of slices z0 to z1 whole, and one more; which particles these are."""
        here = (self.regions.bbox[:, 0] < z1) & (self.regions.bbox[:, 3] > z0)
        low = int(self.regions.bbox[here, 0].min(initial=z0))
        high = int(self.regions.bbox[here, 3].max(initial=z1))
        return (max(0, low - 1), min(self.shape[0], high + 1)), here

    def result(self, stage: str) -> dict[str, Any]:
        """What an earlier stage has found for the whole volume."""
        found = self.folder.read_result(stage)
        if found is None:
            raise RuntimeError(f"{stage}: this stage has not ended yet")
        return found

    @cached_property
    def survey(self) -> Survey | None:
        """The grey volume's survey; None where only phases were given. To be asked once the survey has ended."""
        found = self.result("survey").get("grey")
        return None if found is None else Survey.from_dict(found)

    @cached_property
    def thresholds(self) -> Thresholds | None:
        """The grey thresholds in use; None where phases were given."""
        found = self.result("survey").get("thresholds")
        return None if found is None else Thresholds.from_dict(found)

    @property
    def variants(self) -> dict[str, Thresholds]:
        """The thresholds moved to the ends of their bands, one at a time; none where phases were given."""
        return {} if self.thresholds is None else self.thresholds.variants()

    @property
    def is_connected(self) -> bool:
        """Whether carbon/binder was followed to an anchor."""
        return "volume_shares" in self.result("connected")

    @cached_property
    def plate(self) -> Plate | None:
        """The collector's foil; None where none was looked for, or phases were given."""
        found = self.result("survey").get("collector")
        return None if found is None else Plate.from_dict(found)

    @cached_property
    def edge_width_um(self) -> float:
        """FWHM of the blur: set, else measured, else 0 (phases were given and nothing is known)."""
        return self.settings.phases.edge_width_um or (self.survey.edge_width_um if self.survey else 0.0)

    @cached_property
    def classifier(self) -> Classifier | None:
        """The pixel classifier that decides about phases; None where thresholds do."""
        path = self.settings.phases.classifier
        return None if path is None or self.phases is not None else load_classifier(path)

    @cached_property
    def model(self) -> Path | None:
        """The file of the network; None where none is used."""
        wanted = self.settings.segment
        return model_file(wanted.model) if wanted.segmenter == "maskrcnn" and self.labels is None else None

    @cached_property
    def network(self) -> maskrcnn.Segmenter:
        """The network, loaded: on the kernels' threads; or on the GPU, if it starts there."""
        with called("--model", was="model"):
            return maskrcnn.Segmenter(self.model, provider="cpu" if self.gpu is None else None)

    @cached_property
    def regions(self) -> vk.RegionProperties:
        """Position and extent of every particle, merged from the slabs."""
        return vk.merge_regions([unpack(vk.RegionProperties, t) for t in self.tables("link", "table/regions")])


@contextmanager
def open_job(
    settings: Settings, out: Path, given: Mapping[str, Any], *, progress: bool, gpu: Gpu | None = None
) -> Iterator[Job]:
    """Open the inputs, check that they fit together, and cut the slabs. Writes nothing."""
    wanted = settings.input
    options: dict[str, Any] = {"voxel_size": wanted.voxel_size, "crop": wanted.crop, "bin": wanted.bin}
    in_memory: list[str] = []
    with ExitStack() as stack:

        def opened(name: str, kind: Any) -> Volume | None:
            source = getattr(wanted, name) if given.get(name) is None else given[name]
            if source is None:
                return None
            if not isinstance(source, str | Path):
                in_memory.append(name)
            with called(name if name == "volume" else f"--{name}"):
                return stack.enter_context(open_volume(source, kind=kind, **options))

        grey, labels, codes = opened("volume", "grey"), opened("labels", "labels"), opened("phases", "labels")
        first = grey or codes
        if first is None:
            raise InputError("VOLUME: give a grey volume, or phases with --phases and --phase-values.")
        if codes is not None and not wanted.phase_values:
            raise InputError("--phase-values: must name the value of each phase, for example void=0,active=1,cbd=2.")
        if codes is None and wanted.phase_values:
            raise InputError("--phase-values: only goes with --phases FILE; give the file, or leave it out.")
        if codes is not None:
            given_phases.check_phase_type(codes.dtype)
            given_phases.check_phase_values(wanted.phase_values or {})
        if labels is not None:
            check_label_type(labels.dtype)
        for name, other in (("--labels", labels), ("--phases", codes)):
            if other is not None and grey is not None and _same_file(other, grey):
                raise InputError(
                    f"VOLUME: must hold grey values; got {grey}, the file of {name}. Leave it out or give the grey one."
                )
            if other is not None and other.shape != first.shape:
                raise InputError(
                    f"{name}: must have the shape of the volume, {first.shape}; got {other.shape}. "
                    "Give both from the same reconstruction."
                )
        if wanted.bin > 1 and min(first.shape) < 2:
            raise InputError(
                f"--bin: must leave at least two voxels along each axis; {wanted.bin} leaves {first.shape}. "
                "Give a smaller one."
            )
        size = _plausible(require_voxel_size(first), first, wanted)
        settings = with_segmenter(settings, grey=grey is not None, labels=labels is not None)
        slab = settings.slab or int(np.clip(SLAB_VOXELS // (first.shape[1] * first.shape[2]), *SLAB_SLICES))
        folder = RunFolder(out, partition(first.shape[0], slab))
        yield Job(settings, folder, grey, labels, codes, size, first.shape, progress, gpu, tuple(in_memory))


def _plausible(size: VoxelSize, volume: Volume, wanted: Input) -> VoxelSize:
    """The voxel size, unless it can only be a mistake."""
    low, high = VOXEL_UM
    stored = tuple(edge / wanted.bin for edge in size)
    if all(low <= edge <= high for edge in stored):
        return size
    which = "" if wanted.voxel_size else f" from {volume}"
    raise InputError(
        f"--voxel-size: must be {low:g} to {high:g} micrometres along each axis; got "
        f"{', '.join(f'{edge:g}' for edge in stored)}{which}. Give it in micrometres: 70 nanometres are 0.07."
    )


def _same_file(one: Volume, other: Volume) -> bool:
    if one.path is None or other.path is None or one.dataset != other.dataset:
        return False
    return one.path.resolve() == other.path.resolve()


def default_segmenter(*, grey: bool) -> str:
    """The network where there is what it needs: a grey volume, its model and ONNX Runtime. Else the watershed."""
    ready = grey and runtime.shipped_model().is_file() and find_spec("onnxruntime") is not None
    return "maskrcnn" if ready else "watershed"


def model_file(given: str | None) -> Path:
    """The model that is given, or the one that comes with cbdetach."""
    path = runtime.shipped_model() if given is None else Path(given)
    if not path.is_file():
        hint = "this copy of cbdetach came without one; give one with --model" if given is None else "give an ONNX file"
        raise InputError(f"--model: there is no file {path}; {hint}, or use --segmenter watershed.")
    return path


def with_segmenter(settings: Settings, *, grey: bool, labels: bool) -> Settings:
    """The settings with the segmenter that will work, checked against what else is asked for."""
    wanted = settings.segment
    chosen = wanted.segmenter or ("maskrcnn" if wanted.model else default_segmenter(grey=grey))
    if labels:
        return settings
    if wanted.model is not None and chosen != "maskrcnn":
        raise InputError(f"--model: only goes with --segmenter maskrcnn; got {chosen}. Leave one of them out.")
    if wanted.views != "z" and chosen == "watershed":
        raise InputError(
            f"--views: {wanted.views} only goes with a segmenter that works slice by slice; got watershed. "
            "Give --segmenter maskrcnn or watershed2d."
        )
    if chosen == "maskrcnn":
        if not grey:
            raise InputError("--segmenter: maskrcnn needs the grey VOLUME; give it, or use --segmenter watershed.")
        model_file(wanted.model)
    return settings.model_copy(update={"segment": wanted.model_copy(update={"segmenter": chosen})})


def parse_phase_values(text: str | None) -> dict[str, int] | None:
    """`void=0,active=1,cbd=2` as a mapping."""
    if text is None:
        return None
    try:
        pairs = [(name.strip(), int(value)) for name, value in (part.split("=") for part in text.split(","))]
    except ValueError:
        raise InputError(f"--phase-values: must read like void=0,active=1,cbd=2; got {text!r}.") from None
    twice = [name for name, _ in pairs if [n for n, _ in pairs].count(name) > 1]
    if twice:
        raise InputError(f"--phase-values: must name each phase once; got {twice[0]} twice in {text!r}.")
    return dict(pairs)


def resolved_settings(
    given: Mapping[str, Any],
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    phase_values: Mapping[str, int] | None = None,
    voxel_size: Any = None,
    crop: str | None = None,
    bin: int | None = None,
    anchor: str | None = None,
    slab: int | None = None,
    segmenter: str | None = None,
    model: str | Path | None = None,
    views: str | None = None,
) -> Settings:
    """Settings from a file or mapping and the call's own arguments, which win."""
    source = {
        name: str(value) if isinstance(value, str | Path) else "array"
        for name, value in given.items()
        if value is not None
    }
    overrides = {
        "slab": slab,
        "input": source
        | {
            "phase_values": dict(phase_values) if phase_values else None,
            "voxel_size": None if voxel_size is None else parse_voxel_size(voxel_size),
            "crop": crop,
            "bin": bin,
        },
        "connected": {"anchor": anchor},
        "segment": {"segmenter": segmenter, "model": None if model is None else str(model), "views": views},
    }
    if isinstance(config, Mapping):
        return resolve(None, overrides, base=config)
    return resolve(config, overrides)
