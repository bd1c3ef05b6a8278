"""Training: what is learnt, logged, kept and resumed, and what is refused."""

from __future__ import annotations

import csv
import multiprocessing
import re
import signal
import sys
import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tifffile

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")
torch.set_num_threads(1)
pytest.importorskip("torchvision", reason="training needs the extra 'train'")

from skimage.draw import disk  # noqa: E402
from tests.cbdetach.interrupts import stopped  # noqa: E402

from cbdetach.annotations import LabelledSlice  # noqa: E402
from cbdetach.cli import app  # noqa: E402
from cbdetach.errors import InputError  # noqa: E402
from cbdetach.train import checkpoint, loop, network, precision, samples, settings, validation  # noqa: E402
from cbdetach.train.network import NetworkSettings, build  # noqa: E402

TINY: dict[str, Any] = {
    "epochs": 2,
    "batch": 2,
    "workers": 0,
    "validate_every": 1,
    "amp": False,
    "data": {"training": 4, "validation": 2, "slices_per_scene": 2, "side": 96, "scenes": 2},
    "augment": {"size": 64, "diameter_px": (18, 22)},
    "network": {
        "stages": 2,
        "fpn_channels": 16,
        "box_features": 32,
        "mask_channels": 16,
        "mask_layers": 1,
        "anchor_sizes": ((12, 16), (20, 28), (36, 48)),
        "proposals": 50,
        "detections": 20,
        "train_proposals": 60,
        "boxes_per_image": 32,
    },
    "optimiser": {"name": "adamw", "rate": 1e-3, "warmup": 0},
}


def discs(seed: int, *, count: int = 2, side: int = 96) -> list[LabelledSlice]:
    """Bright discs on a dark, noisy ground: what a tiny network can learn."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(count):
        labels = np.zeros((side, side), np.int32)
        for i, (y, x) in enumerate((y, x) for y in range(14, side - 12, 24) for x in range(14, side - 12, 24)):
            rows, columns = disk((y + rng.integers(-2, 3), x + rng.integers(-2, 3)), 10, shape=labels.shape)
            labels[rows, columns] = i + 1
        image = (1000 * (labels > 0) + 100 * rng.standard_normal(labels.shape) + 500).astype(np.float32)
        made.append(LabelledSlice(f"{seed}/{k}", str(seed), image, labels))
    return made


@pytest.fixture(autouse=True)
def _quick_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples.scenes, "slices_of_scene", discs)
    samples._scene.cache_clear()


def tiny(**changes: Any) -> settings.TrainSettings:
    return settings.validate({**TINY, **changes})


def weights(path: Path) -> dict[str, Any]:
    return {name: value.numpy() for name, value in checkpoint.load(path).model.state_dict().items()}


@cache
def unchanged() -> dict[str, Any]:
    """Weights after the same training with every setting as it was."""
    with TemporaryDirectory() as folder:
        loop.train(tiny(epochs=2, validate_every=2), Path(folder), progress=False)
        return weights(Path(folder) / "last.pt")


def test_a_training_writes_checkpoints_a_log_and_its_settings(tmp_path: Path) -> None:
    best = loop.train(tiny(), tmp_path / "t", progress=False)
    assert best == tmp_path / "t" / "best.pt"
    found = checkpoint.load(tmp_path / "t" / "last.pt")
    assert found.epoch == 2
    assert found.settings == tiny()
    assert not found.model.training
    rows = list(csv.DictReader((tmp_path / "t" / "log.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert set(rows[0]) >= {"loss", "loss_mask", "rate", "precision", "sensitivity", "f1", "iou", "seconds"}
    assert settings.read_settings(tmp_path / "t" / "train.toml") == tiny()


def test_a_resumed_training_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop.train(tiny(), tmp_path / "whole", progress=False)
    epoch = loop._epoch

    def stops(*arguments: Any) -> Any:
        if arguments[7] == 1:
            raise KeyboardInterrupt
        return epoch(*arguments)

    monkeypatch.setattr(loop, "_epoch", stops)
    with pytest.raises(KeyboardInterrupt):
        loop.train(tiny(), tmp_path / "parts", progress=False)
    assert checkpoint.load(tmp_path / "parts" / "last.pt").epoch == 1
    monkeypatch.setattr(loop, "_epoch", epoch)
    loop.train(tiny(), tmp_path / "parts", resume=True, progress=False)
    whole, parts = weights(tmp_path / "whole" / "last.pt"), weights(tmp_path / "parts" / "last.pt")
    for name, value in whole.items():
        np.testing.assert_array_equal(value, parts[name], err_msg=name)


def test_it_learns(tmp_path: Path) -> None:
    data = {**TINY["data"], "training": 24, "scenes": 12}
    wanted = tiny(epochs=8, data=data, validate_every=8, optimiser={"name": "adamw", "rate": 3e-3, "warmup": 4})
    loop.train(wanted, tmp_path, progress=False)
    rows = checkpoint.load(tmp_path / "last.pt").history
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"crops": 2},
        {"batch": 4},
        {"amp": True},
        {"augment": {**TINY["augment"], "flip": False}},
        {"data": {**TINY["data"], "scenes": None}},
        {"network": {**TINY["network"], "nms": 0.1, "mask_layers": 2}},
        {"optimiser": {"name": "sgd", "rate": 1e-3, "warmup": 0}},
        {"optimiser": {**TINY["optimiser"], "rate": 2e-3}},
        {"optimiser": {**TINY["optimiser"], "final_rate": 1e-5}},
        {"optimiser": {**TINY["optimiser"], "decay": "cosine"}},
        {"optimiser": {**TINY["optimiser"], "warmup": 3}},
        {"optimiser": {**TINY["optimiser"], "momentum": 0.5}},
        {"optimiser": {**TINY["optimiser"], "weight_decay": 0.5}},
        {"optimiser": {**TINY["optimiser"], "clip": 1e-3, "name": "sgd"}},
    ],
    ids=lambda change: "-".join(f"{k}" for k in change),
)
def test_each_setting_changes_the_weights(tmp_path: Path, change: dict[str, Any]) -> None:
    loop.train(tiny(epochs=2, validate_every=2, **change), tmp_path, progress=False)
    a, b = unchanged(), weights(tmp_path / "last.pt")
    assert a.keys() != b.keys() or any(a[k].shape != b[k].shape or (a[k] != b[k]).any() for k in a)


def test_ignored_areas_teach_nothing() -> None:
    ignore = torch.zeros(64, 64, dtype=torch.bool)
    ignore[:, :32] = True
    boxes = torch.tensor(
        [[0.0, 0.0, 20.0, 20.0], [25.0, 0.0, 45.0, 20.0], [40.0, 0.0, 60.0, 20.0], [-9.0, 3.0, 1.0, 9.0]]
    )
    found = network._ignored(boxes, {"ignore": ignore})
    assert found.tolist() == [True, True, False, True]
    assert not network._ignored(boxes, {}).any()
    model = build(tiny().network)
    target = {"boxes": boxes[2:3], "labels": torch.ones(1, dtype=torch.int64), "ignore": ignore}
    labels, _ = model.rpn.assign_targets_to_anchors([boxes], [target])
    assert labels[0].tolist() == [-1.0, -1.0, 1.0, -1.0]
    model.roi_heads.targets = [target]
    _, labels = model.roi_heads.assign_targets_to_proposals([boxes], [target["boxes"]], [target["labels"]])
    assert labels[0].tolist() == [-1, -1, 1, -1]


def test_own_labels_are_learnt_from_and_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "read_given", lambda path, option: discs(5, count=6))
    own = {**TINY["data"], "annotations": ("labels.json",), "synthetic": False, "training": 4, "validation": 2}
    settings = tiny(data=own)
    taken, held_out = loop._sources(settings, tmp_path, *loop._labelled(settings), progress=False)
    assert taken.scenes is None
    assert len(held_out) >= 1
    assert {id(s) for s in taken.labelled}.isdisjoint(id(s) for s in held_out)
    loop.train(tiny(epochs=1, data=own), tmp_path / "own", progress=False)
    assert (tmp_path / "own" / "best.pt").exists()


def test_the_rate_falls_from_the_first_to_the_last() -> None:
    for decay in ("exponential", "cosine"):
        factor = loop._rate(settings.Optimiser(rate=1e-3, final_rate=1e-4, warmup=10, decay=decay), 100)
        assert factor(0) == pytest.approx(1 / 11)
        assert factor(10) > factor(50) > factor(99)
        assert 1e-3 * factor(100) == pytest.approx(1e-4)


def test_the_paper_s_recipe_is_the_default() -> None:
    default = settings.TrainSettings()
    assert default.epochs == 150
    assert (default.optimiser.name, default.optimiser.momentum) == ("sgd", 0.9)
    assert (default.optimiser.rate, default.optimiser.final_rate) == (1e-3, 1e-4)
    assert (default.data.training, default.data.validation) == (155, 66)


def test_boxes_are_float32_in_mixed_precision() -> None:
    model = build(tiny().network)
    precision.multiply_in_bfloat16(model, torch.device("cpu"))
    features = model.backbone(torch.zeros(1, 1, 64, 64))
    assert {value.dtype for value in features.values()} == {torch.float32}
    scores, deltas = model.rpn.head(list(features.values()))
    assert {value.dtype for value in [*scores, *deltas]} == {torch.float32}


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_backbones(backbone: Any) -> None:
    model = build(NetworkSettings(backbone=backbone, fpn_channels=16, box_features=32, mask_channels=16)).eval()
    with torch.inference_mode():
        found = model([torch.zeros(1, 64, 96), torch.ones(1, 64, 96)])
    assert len(found) == 2
    assert found[0]["masks"].shape[1:] == (1, 28, 28)


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"seed: must be below 100; got 100\."):
        loop.train(tiny(seed=100), tmp_path / "t")
    with pytest.raises(InputError, match=r"--device: must be cpu or cuda; got tpu\."):
        loop.train(tiny(), tmp_path / "t", device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"--device: must be cpu: torch finds no CUDA device here; got cuda\."):
            loop.train(tiny(), tmp_path / "t", device="cuda")
    assert not (tmp_path / "t").exists()
    with pytest.raises(InputError, match=r"data\.annotations: must name labelled slices"):
        loop.train(tiny(data={**TINY["data"], "synthetic": False}), tmp_path / "t")
    with pytest.raises(InputError, match=r"annotations: there is nothing at none\.json"):
        loop.train(tiny(data={**TINY["data"], "annotations": ("none.json",)}), tmp_path / "t")
    with pytest.raises(InputError, match=r"--resume, --overwrite: only one of them can be meant"):
        loop.train(tiny(), tmp_path / "t", resume=True, overwrite=True)
    with pytest.raises(InputError, match=r"--threads: must be 1 to \d+ on this machine; got 0\."):
        loop.train(tiny(), tmp_path / "t", threads=0)
    assert not (tmp_path / "t").exists()
    (tmp_path / "file").touch()
    with pytest.raises(
        InputError, match=r"-o/--out: .*file cannot be written \(it is a file\); choose another folder\."
    ):
        loop.train(tiny(), tmp_path / "file")
    with pytest.raises(ValueError, match=r"anchor_sizes: must be 4 groups.*got 1"):
        build(NetworkSettings(anchor_sizes=((8,),)))
    with pytest.raises(ValueError, match="anchor_sizes: must be groups of one length"):
        build(NetworkSettings(anchor_sizes=((8,), (16,), (32,), (64, 128))))


def test_an_existing_training_is_kept(tmp_path: Path) -> None:
    loop.train(tiny(epochs=1), tmp_path, progress=False)
    with pytest.raises(InputError, match=r"--out: .* holds a training; continue it with --resume"):
        loop.train(tiny(epochs=1), tmp_path, progress=False)
    other = tiny(seed=3, optimiser={**TINY["optimiser"], "rate": 5e-3})
    with pytest.raises(InputError, match=r"--resume: .* has other settings: optimiser\.rate, seed\."):
        loop.train(other, tmp_path, resume=True, progress=False)
    before = (tmp_path / "last.pt").read_bytes()
    loop.train(tiny(epochs=1), tmp_path, resume=True, progress=False)
    assert (tmp_path / "last.pt").read_bytes() == before
    loop.train(tiny(epochs=1, seed=2), tmp_path, overwrite=True, progress=False)
    assert checkpoint.load(tmp_path / "last.pt").settings.seed == 2


def test_a_diverging_training_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: None)
    wild = {**TINY["optimiser"], "name": "sgd", "rate": 1e12, "final_rate": 1e12}
    with pytest.raises(InputError, match=r"the training has diverged\. Give a smaller optimiser\.rate"):
        loop.train(tiny(epochs=8, optimiser=wild), tmp_path, progress=False)


@pytest.mark.parametrize("where", ["_epoch", "validation"])
def test_no_worker_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Wherever a training is stopped, its own processes are ended at once, and no other of the caller's."""
    mine = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(120,), daemon=True)
    mine.start()
    started: list[Any] = []
    deaf: list[int] = []

    def stopped(*_: Any, **__: Any) -> None:
        started.extend(child for child in multiprocessing.active_children() if child is not mine)
        status = Path(f"/proc/{started[0].pid}/status").read_text()
        deaf.append(int(re.findall(r"SigBlk:\s*([0-9a-f]+)", status)[0], 16) >> (signal.SIGINT - 1) & 1)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_epoch", lambda *_: {"loss": 1.0})
    monkeypatch.setattr(loop, where, stopped)
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.train(tiny(workers=1), tmp_path, progress=False)
        assert len(started) == 1
        assert deaf == [1], "it hears a Ctrl-C on the terminal"
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
        started[0].join(60)
        assert started[0].exitcode == -signal.SIGTERM
        assert mine.is_alive()
    finally:
        mine.kill()
        mine.join()


def test_what_a_worker_says_of_a_training_that_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: said.append(error))
    loop._keep_quiet(0)
    for error in (EOFError(), ConnectionResetError(), mistake := ZeroDivisionError()):
        sys.excepthook(type(error), error, None)
    assert said == [mistake]


@pytest.mark.slow
def test_an_interrupted_training_keeps_whole_checkpoints(tmp_path: Path) -> None:
    for k, piece in enumerate(discs(1, count=3)):
        tifffile.imwrite(tmp_path / f"{k}.tif", piece.image)
        tifffile.imwrite(tmp_path / f"{k}_labels.tif", piece.labels.astype(np.uint16))
    changes = {"epochs": 500, "validate_every": 200, "workers": 1, "data": {"training": 2, "validation": 1}}
    (tmp_path / "tiny.toml").write_text(tiny(**changes).to_toml())
    words = ["train", "--config", "tiny.toml", "--annotations", ".", "-o", "t"]
    ended = stopped(words, tmp_path, tmp_path / "t" / "log.csv", signal.SIGINT, patience=120)
    assert ended == (130, "cbdetach: interrupted; continue with --resume.\n")
    assert list((tmp_path / "t").rglob(".*part*")) == []
    assert checkpoint.load(tmp_path / "t" / "last.pt").epoch >= 1


def test_what_a_person_sees_of_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bar while slices are made, learnt from and validated on; a line for each epoch where it is asked for."""
    bars: list[tuple[str, bool]] = []

    def watched(items: Any, name: str, *, unit: str, show: bool) -> Any:
        bars.append((name, show))
        return items

    monkeypatch.setattr(loop, "bar", watched)
    monkeypatch.setattr(validation, "bar", watched)
    with caplog.at_level("INFO", "cbdetach"):
        loop.train(tiny(validate_every=2), tmp_path, progress=True)
    names = ("validation slices", "epoch 1/2", "epoch 2/2", "validation")
    assert bars == [(name, True) for name in names]
    first, second = (record.getMessage() for record in caplog.records if record.name == "cbdetach")
    assert re.fullmatch(r"epoch 1 of 2: loss [0-9.e+]+; \d+ s since the start", first)
    assert re.fullmatch(r"epoch 2 of 2: loss .*, F1 [01]\.\d{3} on the validation slices; .*", second)


def test_tensorboard_is_written_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path / "a" / "tensorboard")

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def close(self) -> None:
            written.append(("closed", 0.0, 0))

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    loop.train(tiny(epochs=1, tensorboard=True), tmp_path / "a", progress=False)
    assert {name for name, _, _ in written} >= {"loss", "rate", "f1", "closed"}
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        InputError, match="tensorboard: the package is missing: pip install tensorboard, or leave it off"
    ):
        loop.train(tiny(epochs=1, tensorboard=True), tmp_path / "b", progress=False)


def test_foreign_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.pt: there is no such checkpoint; give last\.pt or best\.pt"):
        checkpoint.load(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(
        InputError, match=r"text\.pt: is not a checkpoint of cbdetach train .*; give last\.pt or best\.pt"
    ):
        checkpoint.load(tmp_path / "text.pt")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"other\.pt: is not a checkpoint of cbdetach train"):
        checkpoint.load(tmp_path / "other.pt")

    class Bad:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"format": checkpoint.FORMAT, "settings": Bad()}, tmp_path / "bad.pt")
    with pytest.raises(InputError, match="is not a checkpoint of cbdetach train"):
        checkpoint.load(tmp_path / "bad.pt")
    assert not (tmp_path / "executed").exists()
    state = {"format": checkpoint.FORMAT, "settings": tiny().to_dict(), "model": {"x": torch.zeros(1)}, "epoch": 1}
    torch.save(state, tmp_path / "misfit.pt")
    with pytest.raises(InputError, match=r"misfit\.pt: its weights do not fit its own settings"):
        checkpoint.load(tmp_path / "misfit.pt")


def test_settings_files(tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_text("epochs = 7\n[optimiser]\nname = 'adamw'\n")
    found = settings.read_settings(path, {"epochs": 9, "seed": None})
    assert (found.epochs, found.optimiser.name, found.seed) == (9, "adamw", 0)
    own = settings.read_settings(path, annotations=["a.json"])
    assert own.data.annotations == ("a.json",)
    assert not own.data.synthetic
    path.write_text("epoch = 7\n")
    with pytest.raises(InputError, match=r"epoch: unknown setting; the settings there are amp, "):
        settings.read_settings(path)
    path.write_text("epochs = 0\n")
    with pytest.raises(InputError, match=r"epochs: must be greater than or equal to 1; got 0\."):
        settings.read_settings(path)
    path.write_text("epochs 0\n")
    with pytest.raises(InputError, match=r"--config: .*train\.toml cannot be read as TOML"):
        settings.read_settings(path)
    with pytest.raises(InputError, match=r"--config: there is no file .*none\.toml; give the path of a TOML file\."):
        settings.read_settings(tmp_path / "none.toml")


def test_the_command(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    config = tmp_path / "tiny.toml"
    config.write_text(tiny(epochs=1).to_toml())
    done = CliRunner().invoke(app, ["train", "--config", str(config), "-o", str(tmp_path / "t"), "--quiet"])
    assert done.exit_code == 0, done.output
    again = CliRunner().invoke(app, ["train", "--config", str(config), "-o", str(tmp_path / "t"), "--quiet"])
    assert again.exit_code == 2
    assert "holds a training" in again.output
