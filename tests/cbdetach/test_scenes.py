"""Training slices: the same for the same seed, labels that fit the image, sizes as promised, nothing hidden ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from benchmarks import realism
from scipy import ndimage

from cbdetach.errors import InputError
from cbdetach.segment.scaling import section_diameter
from cbdetach.train import scenes
from cbdetach.train.scenes import SMALLEST_DIAMETER, slices_of_scene

SIDE = 96
SEEDS = (0, 1, 2, 3, 4, 5)


@pytest.fixture(scope="module")
def drawn() -> list[Any]:
    return [slices_of_scene(seed, count=2, side=SIDE) for seed in SEEDS]


def test_slices_are_what_they_say(drawn: list[Any]) -> None:
    for seed, pair in zip(SEEDS, drawn, strict=True):
        assert [s.name for s in pair] == [f"scene-{seed}-0", f"scene-{seed}-1"]
        for s in pair:
            assert s.volume == f"scene-{seed}"
            assert s.image.shape == s.labels.shape == s.ignore.shape == (SIDE, SIDE)
            assert (s.image.dtype, s.labels.dtype, s.ignore.dtype) == (np.uint16, np.int32, np.bool_)
            assert np.unique(s.labels).tolist() == list(range(s.labels.max() + 1))
            assert not (s.ignore & (s.labels > 0)).any()
        assert (pair[0].labels != pair[1].labels).any()
    assert sum(s.labels.max() for pair in drawn for s in pair) > 50


def test_same_seed_same_slices(drawn: list[Any]) -> None:
    again = slices_of_scene(3, count=2, side=SIDE)
    for a, b in zip(again, drawn[3], strict=True):
        for name in ("image", "labels", "ignore"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert (drawn[0][0].image != drawn[1][0].image).any()


def test_particles_are_whole_bright_and_not_too_small(drawn: list[Any]) -> None:
    least = np.pi / 4 * SMALLEST_DIAMETER**2
    for pair in drawn:
        for s in pair:
            inside, outside = s.labels > 0, (s.labels == 0) & ~s.ignore
            if not inside.any():
                continue
            assert np.median(s.image[inside]) > np.median(s.image[outside])
            for k in range(1, s.labels.max() + 1):
                mask = s.labels == k
                assert mask.sum() >= least
                assert ndimage.label(mask)[1] == 1


def test_sections_have_the_sizes_of_the_range() -> None:
    sizes = [section_diameter(slices_of_scene(seed, count=1, side=128)[0].labels) for seed in range(6)]
    assert 20 < np.median(sizes) < 52
    assert min(sizes) > 12
    assert max(sizes) < 90


def test_debris_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    made = scenes._electrode

    def strewn(share: float) -> Any:
        def electrode(*arguments: Any) -> Any:
            axis, step, settings = made(*arguments)
            return axis, step, {**settings, "debris": share}

        monkeypatch.setattr(scenes, "_electrode", electrode)
        return slices_of_scene(7, count=2, side=SIDE)

    with_debris, without = strewn(0.1), strewn(0.0)
    for a, b in zip(with_debris, without, strict=True):
        np.testing.assert_array_equal(a.labels, b.labels)
    assert sum(s.ignore.sum() for s in with_debris) > sum(s.ignore.sum() for s in without) + 20


def test_a_section_that_nothing_tells_from_its_surroundings_is_no_particle(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.zeros((40, 60), np.int32)
    labels[10:30, 5:25], labels[10:30, 35:55] = 1, 2
    plain = np.where(labels > 0, 1.0, 0.0).astype(np.float32)
    plain[:, 30:] = np.maximum(plain[:, 30:], 0.75)
    boxes = (slice(10, 30), slice(5, 25)), (slice(10, 30), slice(35, 55))
    assert scenes._stands_out(plain, labels, 1, boxes[0])
    assert not scenes._stands_out(plain, labels, 2, boxes[1])
    plain[12:28, 7:23] = 0  # hollow: its rim is seen
    plain[10:30, 5:25][::3] = 1
    assert scenes._stands_out(plain, labels, 1, boxes[0])
    assert scenes._stands_out(plain, np.ones_like(labels), 1, (slice(0, 40), slice(0, 60)))
    few = scenes.slices_of_scene(3, count=1, side=128)[0]
    monkeypatch.setattr(scenes, "LEAST_CONTRAST", 0.9)
    fewer = scenes.slices_of_scene(3, count=1, side=128)[0]
    assert fewer.labels.max() < few.labels.max()
    assert fewer.ignore.sum() > few.ignore.sum()
    np.testing.assert_array_equal(fewer.image, few.image)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_part_of_the_look_shows(seed: int) -> None:
    """Each strength of the imaging, switched off, changes the picture and not the labels of what is seen."""
    from dataclasses import fields, replace

    rng = np.random.default_rng(seed)
    _, _, settings = scenes._electrode(rng, True, 1, SIDE)
    phantom = scenes.Phantom(
        samples=200,
        seed=seed,
        **{**settings, "shape": (8, SIDE, SIDE), "pore_share": 1.0} | {"collector_um": 0.0, "separator_um": 0.0},
    )
    section = phantom.section(0, 4, through_um=2.0)
    look = replace(
        scenes._look(rng, True, phantom),
        fringe=0.3,
        streaks=0.05,
        rings=0.05,
        shading=0.1,
        field=0.35,
        hole=0.9,
        hole_blur=0.6,
        noise_wide=0.5,
        levels=65536,
        low=0.3,
        contrast=0.3,
        noise_length=1.0,
    )
    image = scenes._imaged(section, phantom, look, np.random.default_rng(0))[0]
    for f in fields(look):
        if f.name == "through":
            assert (phantom.section(0, 4, through_um=6.0).particle != section.particle).any()
            continue
        value = 256 if f.name == "levels" else 0.5 * getattr(look, f.name)
        changed = scenes._imaged(section, phantom, replace(look, **{f.name: value}), np.random.default_rng(0))[0]
        assert (changed != image).any(), f.name


def test_realism_compares_slices_with_real_ones(tmp_path: Path) -> None:
    real = slices_of_scene(11, count=1, side=160)[0]
    tifffile.imwrite(tmp_path / "one.tif", real.image)
    tifffile.imwrite(tmp_path / "one_labels.tif", real.labels.astype(np.uint16))
    tifffile.imwrite(tmp_path / "two.tif", real.image)
    columns = {name: realism.statistics(*realism.scaled(*parts)) for name, parts in realism.real(tmp_path).items()}
    assert list(columns) == ["one", "two"]
    assert columns["one"]["step at the edge"] == pytest.approx(1, abs=0.4)
    text = realism.table(columns, [columns["one"]])
    assert len(text.splitlines()) == 1 + len(columns["one"])
    assert "edge 10 to 90 %, px" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed: must be an integer of at least 0; got -1"),
        ({"seed": 0, "count": 0}, "count: must be an integer of at least 1; got 0"),
        ({"seed": 0, "side": 32}, "side: must be an integer of at least 64; got 32"),
        ({"seed": 0, "side": 100.5}, r"side: must be an integer of at least 64; got 100\.5"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        slices_of_scene(**arguments)
