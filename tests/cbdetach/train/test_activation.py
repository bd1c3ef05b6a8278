"""The activation map: regions, the choice of the channel, what is measured, and the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from cbdetach import evaluate  # noqa: E402
from cbdetach.annotations import LabelledSlice  # noqa: E402
from cbdetach.errors import InputError  # noqa: E402
from cbdetach.segment.scaling import NOMINAL_DIAMETER, grey_levels, normalise  # noqa: E402
from cbdetach.train import activation, checkpoint  # noqa: E402
from cbdetach.train.network import NetworkSettings, build  # noqa: E402

Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return build(NetworkSettings(stages=2, fpn_channels=16, anchor_sizes=((16,), (32,), (64,)))).eval()


def cracked(seed: int = 0) -> LabelledSlice:
    """Four discs of 32 pixels, a wide crack in each, one on ignore."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((96, 96))
    labels = np.zeros((96, 96), np.int32)
    image = rng.normal(50, 2, labels.shape)
    for n, (row, column) in enumerate(((24, 24), (24, 70), (70, 24), (70, 70)), 1):
        disc = np.hypot(y - row, x - column) <= 16
        labels[disc] = n
        image[disc & ~((abs(y - row) <= 2) & (abs(x - column) <= 9))] += 100
    ignore = np.zeros(labels.shape, np.bool_)
    ignore[48:, 48:] = True
    return LabelledSlice(f"slice{seed}", "v", image, labels, ignore)


def test_regions_lie_where_they_should() -> None:
    s = cracked()
    masks = activation.regions(s)
    assert tuple(masks) == activation.REGIONS
    assert sum(mask.astype(int) for mask in masks.values()).max() == 1
    assert s.ignore is not None
    assert not any((mask & s.ignore).any() for mask in masks.values())
    distance = np.hypot(*(np.indices((96, 96)) - 24))
    assert masks["outer boundary"][24, 24 + 16]
    assert not masks["outer boundary"][(distance < 12)].any()
    assert masks["cracks and pores"][24, 18:31].all()
    assert masks["interior"][16:19, 24].all()
    assert not masks["interior"][22:27, 18:31].any()
    assert masks["background"][48, 0:40].all()


def test_the_map_is_the_finest_level_on_the_slice(model: Any) -> None:
    image = cracked().image
    maps = activation.activation_map(model, image, NOMINAL_DIAMETER)
    assert (maps.shape, maps.dtype) == ((16, 24, 24), np.float32)
    ready = torch.from_numpy(normalise(image, grey_levels(image)))[None, None]
    with torch.inference_mode():
        expected = model.backbone(ready)["0"][0].numpy()
    np.testing.assert_array_equal(maps, expected)
    assert activation.activation_map(model, image[:50, :70], NOMINAL_DIAMETER).shape == (16, 12, 18)
    assert activation.activation_map(model, image, 2 * NOMINAL_DIAMETER).shape == (16, 12, 12)
    assert not model.backbone._forward_hooks


def test_the_channel_in_which_the_boundary_alone_stands_out_is_chosen() -> None:
    s = cracked()
    masks = activation.regions(s)
    rng = np.random.default_rng(0)
    maps = rng.normal(0, 1, (5, 96, 96)).astype(np.float32)
    maps[1] += 9 * (masks["outer boundary"] | masks["cracks and pores"])  # every edge, as a watershed sees it
    maps[2] -= 4 * masks["outer boundary"]
    maps[3] += 9 * (masks["outer boundary"] | masks["interior"])
    chosen = activation.choose([maps], [masks])
    assert (chosen.index, chosen.sign) == (2, -1)
    assert chosen.contrast > 2
    assert activation.choose([-maps], [masks]).sign == 1
    nowhere = {name: np.zeros_like(mask) for name, mask in masks.items()}
    assert activation.choose([-maps, maps], [nowhere, masks]) == chosen
    with pytest.raises(ValueError, match="where: must hold a slice with a boundary, cracks"):
        activation.choose([maps], [nowhere])


def test_measures_by_hand() -> None:
    s = LabelledSlice("s", "v", np.zeros((1, 8)), np.zeros((1, 8), np.int32))
    where = np.array([[0, 0, 1, 1, 2, 2, 2, 2]])
    masks = {name: where == k for k, name in enumerate(activation.REGIONS)}
    rows = activation.measure(s, np.array([[3.0, 1.0, 2.0, 0.0, 1.0, 1.0, 1.0, 3.0]]), masks)
    assert [row["pixels"] for row in rows] == [2, 2, 4, 0]
    assert [row["mean"] for row in rows[:3]] == [2, 1, 1.5]
    assert [row["sd"] for row in rows[:2]] == [1, 1]
    assert np.isnan([rows[0]["auc"], rows[3]["auc"], rows[3]["mean"]]).all()
    assert rows[1]["auc"] == 3 / 4
    assert rows[2]["auc"] == (3.5 + 1.5) / 8


def test_files_and_words(model: Any, tmp_path: Path) -> None:
    said = activation.write_activation(model, [cracked(), cracked(1)], [cracked(2)], tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(activation.FILES)
    table = pd.read_csv(tmp_path / "out" / "activation.csv")
    assert len(table) == 2 * len(activation.REGIONS)
    assert "over 2 slices" in said
    for name in activation.REGIONS:
        assert name in said


def test_the_option(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def phantoms(count: int, first_seed: int = evaluate.TEST_SEED, *, progress: bool = False) -> list[LabelledSlice]:
        asked.append((count, first_seed))
        return [cracked()]

    monkeypatch.setattr(evaluate, "phantom_slices", phantoms)
    monkeypatch.setattr(checkpoint, "load", lambda path: checkpoint.Checkpoint(model, None, 1, 0.0, []))  # type: ignore[arg-type]
    said = evaluate.activation(Path("x.pt"), out=tmp_path, phantom=1)
    assert "channel" in said
    assert asked == [(1, evaluate.TEST_SEED), (evaluate.TUNING_SLICES, evaluate.TUNING_SEED)]
    with pytest.raises(InputError, match="ANNOTATIONS: must be given"):
        evaluate.activation(Path("x.pt"), out=tmp_path)


def test_a_missing_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.pt"):
        evaluate.activation(tmp_path / "none.pt", phantom=1)
