"""Settings: defaults, a file, the command line; every mistake is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from cbdetach.config import Settings, differences, resolve, validate
from cbdetach.errors import InputError
from cbdetach.job import parse_phase_values


def test_a_file_is_overridden_by_what_is_given(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("slab = 16\n[detachment]\nestimator = 'faces'\n[input]\nbin = 2\n")
    settings = resolve(file, {"slab": None, "input": {"bin": 3, "crop": None}})
    assert (settings.slab, settings.detachment.estimator, settings.input.bin) == (16, "faces", 3)


def test_one_voxel_size_is_that_of_cubes() -> None:
    assert validate({"input": {"voxel_size": 0.5}}).input.voxel_size == (0.5, 0.5, 0.5)
    with pytest.raises(InputError, match=r"^input.voxel_size: must be a valid tuple; got True"):
        validate({"input": {"voxel_size": True}})


def test_settings_survive_toml(tmp_path: Path) -> None:
    settings = validate(
        {"input": {"voxel_size": [0.1, 0.2, 0.3], "phase_values": {"void": 0}}, "phases": {"void_cbd": 1.5}}
    )
    file = tmp_path / "run.toml"
    file.write_text(settings.to_toml())
    assert resolve(file) == settings


def test_defaults_are_valid() -> None:
    assert validate({}) == Settings()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"detachmnt": {}}, r"^detachmnt: unknown setting; the settings there are connected, damage, density,"),
        (
            {"link": {"min_iuo": 0.5}},
            r"^link.min_iuo: unknown setting; the settings there are max_gap, min_containment",
        ),
        ({"link": {"min_iou": 1.5}}, r"^link.min_iou: must be less than or equal to 1; got 1.5.$"),
        ({"input": {"bin": 0}}, r"^input.bin: must be greater than or equal to 1; got 0.$"),
        (
            {"segment": {"segmenter": "magic"}},
            r"^segment.segmenter: must be 'watershed', 'watershed2d' or 'maskrcnn'; got",
        ),
    ],
)
def test_mistakes(content: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        validate(content)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--config: there is no file .*run.toml; give the path of a TOML file"):
        resolve(tmp_path / "run.toml")


def test_a_file_that_is_not_toml(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("slab = = 3")
    with pytest.raises(InputError, match="cannot be read as TOML"):
        resolve(file)


def test_differences_are_named() -> None:
    old, new = validate({}).to_dict(), validate({"slab": 8, "link": {"max_gap": 0}}).to_dict()
    assert differences(old, new) == ["link.max_gap", "slab"]
    assert differences(old, old) == []


def test_phase_values_are_read() -> None:
    assert parse_phase_values("void=0, active=1,cbd=2") == {"void": 0, "active": 1, "cbd": 2}
    assert parse_phase_values(None) is None


@pytest.mark.parametrize("text", ["void", "void=", "void=0;active=1", "void=x"])
def test_phase_values_that_cannot_be_read(text: str) -> None:
    with pytest.raises(InputError, match=r"--phase-values: must read like void=0,active=1,cbd=2; got"):
        parse_phase_values(text)


def test_a_phase_is_named_once() -> None:
    with pytest.raises(InputError, match=r"--phase-values: must name each phase once; got void twice"):
        parse_phase_values("void=0,void=1")
