"""Slices to learn from and slices held out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbdetach.annotations import LabelledSlice, split
from cbdetach.errors import InputError


def of_volume(volume: str, n: int) -> list[LabelledSlice]:
    pixels = np.zeros((1, 1), np.int32)
    return [LabelledSlice(f"{volume} {i}", volume, pixels, pixels) for i in range(n)]


def test_the_published_split() -> None:
    slices = of_volume("a", 221)
    training, validation = split(slices)
    assert (len(training), len(validation)) == (155, 66)
    assert {s.name for s in training} | {s.name for s in validation} == {s.name for s in slices}
    assert [s.name for s in training] == [s.name for s in slices if s in set(training)], "in the order given"


@pytest.mark.parametrize(("n", "held"), [(2, 1), (3, 1), (10, 3), (100, 30), (500, 149)])
def test_the_proportion_is_kept(n: int, held: int) -> None:
    assert len(split(of_volume("a", n))[1]) == held


def test_options_of_the_split() -> None:
    slices = of_volume("a", 40)
    assert len(split(slices, validation=10, training=30)[1]) == 10
    assert len(split(slices, validation=0)[1]) == 0
    assert split(slices, seed=1) == split(slices, seed=1)
    assert split(slices, seed=1) != split(slices, seed=2)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=8), st.integers(0, 99))
def test_no_volume_on_both_sides(sizes: list[int], seed: int) -> None:
    slices = [s for i, size in enumerate(sizes) for s in of_volume(str(i), size)]
    training, validation = split(slices, seed=seed)
    assert training
    assert validation
    assert len(training) + len(validation) == sum(sizes)
    assert not {s.volume for s in training} & {s.volume for s in validation}
    wanted = sum(sizes) * 66 / 221
    best = min(
        abs(sum(size for i, size in enumerate(sizes) if chosen >> i & 1) - wanted)
        for chosen in range(1, 2 ** len(sizes) - 1)
    )
    assert abs(len(validation) - wanted) <= best + 1, "as close as whole volumes can come, but for rounding"


def test_a_lopsided_split_is_told(caplog: pytest.LogCaptureFixture) -> None:
    _, validation = split([*of_volume("a", 30), *of_volume("b", 2)])
    assert len(validation) == 2
    assert "2 of 32 slices instead of 10" in caplog.text


@pytest.mark.parametrize(
    ("n", "options", "text"),
    [
        (0, {}, "0 labelled slices cannot be split 155 to 66"),
        (1, {}, "1 labelled slice cannot be split"),
        (0, {"validation": 0}, "cannot be split"),
        (5, {"training": 0}, "training: must be 1 or more; got 0"),
        (5, {"validation": -1}, "validation: must be 0 or more; got -1"),
    ],
)
def test_impossible_splits(n: int, options: dict[str, int], text: str) -> None:
    with pytest.raises(InputError, match=text):
        split(of_volume("a", n), **options)
