"""The settings of a run: defaults, a TOML file, then the command line; resolved once, written into the run record.

Each section is one stage. Lengths are micrometres, areas square micrometres, unless a name says otherwise; None means
"found on the volume itself". An unknown name or a value out of range is an `InputError` that says which.
"""

from __future__ import annotations

import itertools
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cbdetach.errors import InputError


class Section(BaseModel):
    """A group of settings: unknown names are errors, values are fixed once resolved."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Checked = TypeVar("Checked", bound=Section)


class Input(Section):
    """What is measured."""

    volume: str | None = None
    labels: str | None = None
    phases: str | None = None
    phase_values: dict[str, int] | None = None
    voxel_size: tuple[float, float, float] | None = None
    crop: str | None = None
    bin: int = Field(default=1, ge=1)

    @field_validator("voxel_size", mode="before")
    @classmethod
    def _of_cubes(cls, size: Any) -> Any:
        """One number is the edge of a cube, as on the command line."""
        return (size,) * 3 if isinstance(size, int | float) and not isinstance(size, bool) else size

    @field_validator("voxel_size")
    @classmethod
    def _positive(cls, size: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if size is not None and not all(math.isfinite(s) and s > 0 for s in size):
            raise ValueError(f"must be positive, in micrometres; got {', '.join(f'{s:g}' for s in size)}")
        return size


class Phases(Section):
    """Grey value to phase (DEFINITIONS: Phases).

    `method`: the mixture ("gmm"), multi-Otsu, or a choice between them by how steep the edges are at their thresholds.
    `active_levels`: densities of active material; None is found where the method is chosen, else 1. `void_cbd`,
    `cbd_active`, `active_high`: thresholds in grey units that are taken as they are. `classifier`: a trained pixel
    classifier (`cbdetach train-phases`), which decides instead of the thresholds. `collector`: the side of the volume
    on which the current collector's foil lies, to be found from its grey; auto: the one side that holds one; None: no
    collector is looked for.
    """

    method: Literal["auto", "gmm", "otsu"] = "auto"
    active_levels: Literal[1, 2] | None = None
    void_cbd: float | None = None
    cbd_active: float | None = None
    active_high: float | None = None
    classifier: str | None = None
    collector: Literal["auto", "z0", "z1", "y0", "y1", "x0", "x1"] | None = None
    edge_width_um: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        """Thresholds that are given go up from void to dense active material."""
        given = [t for t in (self.void_cbd, self.cbd_active, self.active_high) if t is not None]
        if any(low >= high for low, high in itertools.pairwise(given)):
            raise ValueError(
                f"void_cbd, cbd_active and active_high must go up; got {', '.join(f'{t:g}' for t in given)}"
            )
        return self


class Segment(Section):
    """Active phase to particles (DEFINITIONS: Particles).

    `segmenter`: None is the network where its model, ONNX Runtime and a grey volume are there, else the watershed.
    `model`, `diameter_um` (typical diameter of a section), `score` (least of a detection) and `add_missed` (active
    material that the network has left becomes particles) are the network's; None is the model that comes with cbdetach,
    measured on the volume, and as the model says. `views`: slices along z, or along z, y and x, fused. `close_um`:
    widest crack that is bridged before particles are split; `bridge_um`: after that, in each particle on its own, where
    cracks gape (docs/damage.md).
    """

    segmenter: Literal["watershed", "watershed2d", "maskrcnn"] | None = None
    model: str | None = None
    diameter_um: float | None = Field(default=None, gt=0)
    score: float | None = Field(default=None, ge=0, le=1)
    add_missed: bool = True
    views: Literal["z", "zyx"] = "z"
    min_diameter_um: float | None = Field(default=None, gt=0)
    close_um: float | None = Field(default=None, ge=0)
    bridge_um: float = Field(default=0.0, ge=0)
    halo: int = Field(default=32, ge=1)


class Link(Section):
    """Slices (or slabs) to particles: Hungarian matching of overlaps."""

    min_iou: float = Field(default=0.25, ge=0, le=1)
    min_containment: float = Field(default=0.6, ge=0, le=1)
    max_gap: int = Field(default=1, ge=0, le=1)
    neck_depth: float | None = Field(default=0.25, ge=0, le=1)


class Detachment(Section):
    """Surface of each particle by what it faces (DEFINITIONS: Surface and contact)."""

    estimator: Literal["weighted", "crofton", "faces"] = "weighted"
    tolerance_um: float = Field(default=0.0, ge=0)
    particle_contact: Literal["ignored", "attached"] = "ignored"


class Connected(Section):
    """Carbon/binder with a path to the anchor (DEFINITIONS: Connected CBD).

    `anchor`: the side of the volume that carbon/binder is followed to where no collector is among the phases; None:
    none, and the columns are empty. `undetermined`: how carbon/binder that leaves the volume counts.
    """

    anchor: Literal["z0", "z1", "y0", "y1", "x0", "x1"] | None = None
    undetermined: Literal["apart", "attached", "detached"] = "apart"


class Diffusion(Section):
    """Electron diffusion lengths (DEFINITIONS: Electron diffusion length).

    `min_contact_um2`: patches of contact that are smaller do not count; None: the square of one blur width.
    `min_piece_um3`: neither do pieces of carbon/binder that are smaller; None: four blur widths cubed, 0 where phases
    were given.
    """

    order: Literal[1, 2] = 2
    start: Literal["surface", "faces", "centres"] = "surface"
    min_contact_um2: float | None = Field(default=None, ge=0)
    min_piece_um3: float | None = Field(default=None, ge=0)


class Damage(Section):
    """Cracks, pores and the depth profile (DEFINITIONS: Damage).

    `skin_um`: dark spots no deeper under the surface are notches of the outline, not damage; None: one blur width.
    """

    max_crack_width_um: float | None = Field(default=None, gt=0)
    skin_um: float | None = Field(default=None, ge=0)
    window_um: float | None = Field(default=None, gt=0)
    profile_window_um: float = Field(default=10.0, gt=0)
    layer_um: float | None = Field(default=None, gt=0)


class Density(Section):
    """Grey value of the eroded solid (DEFINITIONS: Electron density)."""

    erosion_um: float | None = Field(default=None, ge=0)
    calibration: tuple[float, float] | None = None


class Features(Section):
    """The features of each particle (`features.csv`).

    `neighbourhood_um`: side of the cube that the packing is measured in. `smoothing_um`: of surfaces, to tell how rough
    they are; None is 0.5 um, and at least one and a half voxels. `min_contact_um2`: least area on which particles
    touch; None is the square of one blur width.
    """

    neighbourhood_um: float = Field(default=20.0, gt=0)
    smoothing_um: float | None = Field(default=None, gt=0)
    min_contact_um2: float | None = Field(default=None, ge=0)


class Report(Section):
    """What the report shows."""

    seed: int = 0
    gallery: int = Field(default=20, ge=0, le=100)


class Metadata(Section):
    """What the volume is of, for `cbdetach compare`: decides no result of this run.

    `rate`: "C/10", "5C" or a number, charges per hour. Runs with the same `electrode` are one electrode.
    """

    electrode: str | None = None
    rate: str | float | None = None
    cycles: int | None = Field(default=None, ge=0)
    state_of_charge: float | None = Field(default=None, ge=0, le=1)


class Settings(Section):
    """Everything that decides a result, and what the volume is of. Threads and memory decide none and are not here."""

    slab: int | None = Field(default=None, ge=1)
    input: Input = Input()
    phases: Phases = Phases()
    segment: Segment = Segment()
    link: Link = Link()
    detachment: Detachment = Detachment()
    connected: Connected = Connected()
    diffusion: Diffusion = Diffusion()
    damage: Damage = Damage()
    density: Density = Density()
    features: Features = Features()
    report: Report = Report()
    metadata: Metadata = Metadata()

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionary, as in the run record."""
        return self.model_dump(mode="json")

    def to_toml(self) -> str:
        """The settings as TOML that `from_toml` reads back to the same; unset values are left out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def resolve(
    file: str | Path | None = None, overrides: Mapping[str, Any] | None = None, base: Mapping[str, Any] | None = None
) -> Settings:
    """Settings from a TOML file or the mapping `base`, overridden by `overrides`: nested, None means "not given".

    Raises
    ------
    InputError
        The file is missing or not TOML, a name is unknown, or a value is out of range.
    """
    content = dict(base or {}) if file is None else read_toml(file)
    with as_typed(overrides or {}):
        return validate(_merged(content, overrides or {}))


@contextmanager
def as_typed(overrides: Mapping[str, Any]) -> Iterator[None]:
    """What is wrong with a setting that was given by an option, not by a file, is said of the option."""
    try:
        yield
    except InputError as error:
        name, _, rest = str(error).partition(":")
        first, *more = name.split(".")
        section, option = (overrides.get(first), more[0]) if more else (overrides, first)
        if not isinstance(section, Mapping) or section.get(option) is None:
            raise
        raise InputError(f"--{option.replace('_', '-')}:{rest}") from None


def read_toml(file: str | Path) -> dict[str, Any]:
    """A file of settings as a nested dictionary; `InputError` where it is missing or not TOML."""
    try:
        return tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"--config: there is no file {file}; give the path of a TOML file.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"--config: {file} cannot be read as TOML: {why}; give the path of a TOML file.") from None


def validate(content: Mapping[str, Any]) -> Settings:
    """Settings from a nested dictionary; the first thing that is wrong becomes one sentence."""
    return checked(Settings, content)


def checked(kind: type[Checked], content: Mapping[str, Any]) -> Checked:
    """A section of settings from a nested dictionary; the first thing that is wrong becomes one sentence."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            section = kind.model_fields.get(str(first["loc"][0]))
            inner = section.annotation if section is not None and len(first["loc"]) > 1 else kind
            known = ", ".join(sorted(getattr(inner, "model_fields", {})))
            raise InputError(f"{name}: unknown setting; the settings there are {known}.") from None
        if first["type"] == "value_error":
            raise InputError(f"{name}: {first['ctx']['error']}.") from None
        rule = re.sub("^input should", "must", f"{first['msg'][0].lower()}{first['msg'][1:]}")
        raise InputError(f"{name}: {rule}; got {first.get('input')!r}.") from None


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the settings in which two resolved settings differ."""
    names: list[str] = []
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            names += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            names.append(f"{prefix}{key}")
    return names


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping) and key != "phase_values":
            merged[key] = _merged(merged[key], value)
        elif isinstance(value, Mapping) and key != "phase_values":
            nested = _merged({}, value)
            if nested:
                merged[key] = nested
        elif value is not None:
            merged[key] = value
    return merged
