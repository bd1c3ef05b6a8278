"""Augmentation: image and targets stay together, every option matters, the generator decides everything."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

from pydantic import ValidationError  # noqa: E402

from cbdetach.annotations import LabelledSlice  # noqa: E402
from cbdetach.segment.scaling import section_diameter  # noqa: E402
from cbdetach.train.augment import Augment, AugmentSettings  # noqa: E402

STILL = {"probability": 0.0, "size": 96}
GREY: dict[str, Any] = {
    "gain": 0.0,
    "offset": 0.0,
    "gamma": 0.0,
    "blur_px": 0.0,
    "sharpen": 0.0,
    "shading": 0.0,
    "stripes": 0.0,
    "streaks": 0.0,
    "noise": 0.0,
    "correlated": 0.0,
}


def discs(height: int = 240, width: int = 260, pitch: int = 32, radius: int = 13, noise: float = 0.0) -> LabelledSlice:
    """A square grid of discs, grey 100 on 40."""
    y, x = np.mgrid[:height, :width]
    labels = np.zeros((height, width), np.int32)
    n = 0
    for cy in range(pitch // 2, height, pitch):
        for cx in range(pitch // 2, width, pitch):
            n += 1
            labels[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = n
    image = 40 + 60 * (labels > 0) + noise * np.random.default_rng(0).standard_normal(labels.shape)
    return LabelledSlice("discs", "discs", image.astype(np.float32), labels)


def sample(labelled: LabelledSlice, seed: int = 0, **settings: Any) -> tuple[Any, dict[str, Any]]:
    return Augment(AugmentSettings(**{**STILL, **settings}))(labelled, np.random.default_rng(seed))


def test_what_comes_out() -> None:
    image, target = sample(discs(), size=96, probability=1)
    n = len(target["boxes"])
    assert n > 2
    assert (image.dtype, tuple(image.shape)) == (torch.float32, (1, 96, 96))
    assert (target["boxes"].dtype, tuple(target["boxes"].shape)) == (torch.float32, (n, 4))
    assert (target["masks"].dtype, tuple(target["masks"].shape)) == (torch.uint8, (n, 96, 96))
    assert (target["ignore"].dtype, tuple(target["ignore"].shape)) == (torch.bool, (96, 96))
    assert target["labels"].dtype == torch.int64
    assert target["labels"].tolist() == [1] * n
    assert image.is_contiguous()
    assert float(image.min()) >= -1
    assert float(image.max()) <= 2


@given(st.integers(0, 2**32 - 1))
def test_image_and_masks_stay_together(seed: int) -> None:
    """The image is its own label pattern: after all of the geometry it still is, but for pixels cut by an outline."""
    image, target = sample(discs(), seed)
    found = target["masks"].sum(0).numpy() + target["ignore"].numpy()
    assert found.max() <= 1
    wrong = (image[0].numpy() > 0.5) != (found > 0)
    assert wrong.mean() < 0.03
    y, x = np.nonzero(wrong)
    assert np.all(np.abs(image[0].numpy()[y, x] - 0.5) < 0.5), "only mixed pixels of the outline differ"


@given(st.integers(0, 2**32 - 1))
def test_boxes_are_tight(seed: int) -> None:
    _, target = sample(discs(), seed)
    for box, mask in zip(target["boxes"].numpy(), target["masks"].numpy(), strict=True):
        y, x = np.nonzero(mask)
        assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


@given(st.integers(0, 2**32 - 1), st.floats(20, 52))
def test_scaled_to_the_drawn_diameter(seed: int, diameter: float) -> None:
    _, target = sample(discs(480, 480), seed, diameter_px=(diameter, diameter), size=192)
    inner = (target["boxes"].min(1).values > 0) & (target["boxes"].max(1).values < 192)
    masks = target["masks"][inner].numpy()
    drawn = section_diameter(np.einsum("nyx,n->yx", masks.astype(np.int32), np.arange(1, len(masks) + 1)))
    assert drawn == pytest.approx(diameter, rel=0.05)


def test_diameters_are_log_uniform() -> None:
    rng = np.random.default_rng(0)
    labelled = discs(480, 480)
    augment = Augment(AugmentSettings(**STILL, rotate=False))
    found = []
    for _ in range(200):
        _, target = augment(labelled, rng)
        boxes = target["boxes"].numpy()
        boxes = boxes[(boxes.min(1) > 0) & (boxes.max(1) < 96)]
        found += [np.log(np.median(boxes[:, 2:] - boxes[:, :2]))] if len(boxes) else []
    low, middle, high = np.quantile(found, [0.02, 0.5, 0.98])
    assert low == pytest.approx(np.log(20), abs=0.12)
    assert middle == pytest.approx(np.log(np.sqrt(20 * 52)), abs=0.12)
    assert high == pytest.approx(np.log(52), abs=0.12)


def test_no_false_corner() -> None:
    """Nothing darker than the slice's darkest pixel appears at any angle or scale."""
    labelled = LabelledSlice("", "", np.where(np.indices((150, 150)).sum(0) // 9 % 2, 90, 110), discs(150, 150).labels)
    for seed in range(40):
        image, _ = sample(labelled, seed)
        assert float(image.min()) > -0.3


def test_the_same_generator_gives_the_same_sample() -> None:
    labelled = discs(noise=3)
    one, again, other = (sample(labelled, seed, probability=1) for seed in (4, 4, 5))
    assert torch.equal(one[0], again[0])
    assert all(torch.equal(one[1][key], again[1][key]) for key in one[1])
    assert not torch.equal(one[0], other[0])


def test_torch_own_generator_is_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    sample(discs(), probability=1)
    assert torch.equal(before, torch.random.get_rng_state())


def test_it_can_be_sent_to_a_worker() -> None:
    augment = Augment(AugmentSettings(**STILL))
    labelled = discs()
    first = augment(labelled, np.random.default_rng(0))
    second = pickle.loads(pickle.dumps(augment))(labelled, np.random.default_rng(0))
    assert torch.equal(first[0], second[0])


@pytest.mark.parametrize(
    "option",
    [
        {"size": 64},
        {"diameter_px": (30, 31)},
        {"rotate": False},
        {"flip": False},
        {"probability": 0.0},
        {"gain": 0.5},
        {"offset": 0.3},
        {"gamma": 0.9},
        {"blur_px": 3.0},
        {"sharpen": 3.0},
        {"shading": 0.4},
        {"stripes": 0.2},
        {"streaks": 0.6},
        {"noise": 0.3},
        {"correlated": 0.3},
        {"correlation_px": (3, 4)},
        {"min_fraction": 0.9},
        {"min_area_px": 400},
    ],
    ids=lambda option: next(iter(option)),
)
def test_every_option_changes_the_sample(option: dict[str, Any]) -> None:
    labelled = discs(noise=3)
    changed = False
    for seed in range(4):
        image, target = sample(labelled, seed, probability=1)
        other, new = sample(labelled, seed, **{"probability": 1, **option})
        changed |= image.shape != other.shape or not torch.equal(image, other)
        changed |= len(target["boxes"]) != len(new["boxes"])
    assert changed


@pytest.mark.parametrize("option", [{name: 0.4} for name in GREY], ids=lambda option: next(iter(option)))
def test_grey_changes_alone(option: dict[str, float]) -> None:
    """With all grey-level changes at 0 the image is as the geometry made it; one alone changes it and no target."""
    labelled = discs(noise=3)
    for seed in range(8):
        plain, target = sample(labelled, seed)
        none, _ = sample(labelled, seed, probability=1, **GREY)
        assert torch.allclose(plain, none, atol=1e-5)
        image, same = sample(labelled, seed, probability=1, **{**GREY, **option})
        assert torch.equal(target["masks"], same["masks"])
        inside = target["masks"].sum(0).bool()
        if len(target["boxes"]):
            assert image[0][inside].mean() > image[0][~inside].mean(), "contrast is never inverted"
        if not torch.allclose(plain, image, atol=1e-5):
            return
    raise AssertionError(f"{option} changes nothing")


def test_ignored_sections_are_no_targets() -> None:
    labelled = discs()
    ignore = np.zeros(labelled.labels.shape, np.bool_)
    ignore[:, :130] = True
    some = LabelledSlice("", "", labelled.image, labelled.labels, ignore)
    settings = {"size": 224, "diameter_px": (26, 26), "rotate": False, "flip": False}
    image, target = sample(some, **settings)
    whole, full = sample(labelled, **settings)
    assert torch.equal(image, whole), "the image is left as it is"
    assert 0 < len(target["boxes"]) < len(full["boxes"])
    assert (
        not (target["masks"].sum(0).bool() & target["ignore"]).any()
        or ((target["masks"] * target["ignore"]).sum((1, 2)) * 2 <= target["masks"].sum((1, 2))).all()
    )
    assert target["ignore"].any()


def test_slivers_are_dropped_into_the_ignore_area() -> None:
    """One disc, cut anywhere: below the fraction it is no target but ignored; above it is a target."""
    labels = discs(260, 260, 300, 60).labels
    labelled = LabelledSlice("", "", 1.0 * labels, labels)
    augment = Augment(AugmentSettings(size=32, probability=0, diameter_px=(51, 51), rotate=False))
    whole = np.pi / 4 * 51**2
    seen = {0: 0, 1: 0}
    for seed in range(300):
        image, target = augment(labelled, np.random.default_rng(seed))
        area = int((image[0] > 0.5).sum())
        if area < 12 or abs(area / whole - 0.15) < 0.02:
            continue
        n = len(target["boxes"])
        seen[n] += 1
        assert n == (area > 0.15 * whole)
        assert bool(target["ignore"].any()) == (n == 0)
    assert min(seen.values()) > 10


def test_a_slice_without_particles() -> None:
    image = np.random.default_rng(0).uniform(0, 9, (128, 128))
    _, target = sample(LabelledSlice("", "", image, np.zeros((128, 128), np.int32)))
    assert tuple(target["boxes"].shape) == (0, 4)
    assert tuple(target["masks"].shape) == (0, 96, 96)


def test_a_small_slice_is_continued_by_its_edge() -> None:
    labelled = discs(40, 40, 20, 8)
    _, target = sample(labelled, size=192, diameter_px=(20, 20))
    assert len(target["boxes"]) == 4
    assert target["masks"].sum() < 0.3 * 192**2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
def test_any_grey_type(dtype: Any) -> None:
    labelled = discs()
    image, _ = sample(LabelledSlice("", "", labelled.image.astype(dtype), labelled.labels))
    assert torch.allclose(image, sample(labelled)[0], atol=1e-5)


@pytest.mark.parametrize("name", ["diameter_px", "correlation_px"])
@pytest.mark.parametrize("value", [(3, 2), (0, 2), (-1, 2), (1, np.inf)])
def test_ranges_are_checked(name: str, value: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match="two positive numbers, the smaller first"):
        AugmentSettings(**{name: value})


def test_unknown_names_are_errors() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        AugmentSettings(colour=1)  # type: ignore[call-arg]
