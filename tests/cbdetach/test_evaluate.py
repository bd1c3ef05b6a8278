"""`cbdetach evaluate`: methods compared on labelled slices, tuning, files, and one sentence for whatever is wrong."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import tifffile
from scipy.ndimage import gaussian_filter
from tests.cbdetach import pretend

from cbdetach import evaluate
from cbdetach.annotations import LabelledSlice
from cbdetach.errors import InputError
from cbdetach.metrics import SIX, Prediction, compare
from cbdetach.segment import maskrcnn
from cbdetach.segment.instances import Detections
from cbdetach.segment.maskrcnn import estimated_diameter

Array = npt.NDArray[Any]

SMALL_GRID = {
    "watershed": {"share": (0.5,), "depth": (0.2, 0.3), "close": (0.0, 0.12), "smallest": (0.3,)},
    "intensity": {"share": (0.5,), "radius": (0.1, 0.2), "height": (0.05,), "smallest": (0.3,)},
}


def drawn(seed: int, side: int = 112) -> LabelledSlice:
    """Discs that touch, some cracked, in a noisy grey slice."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((side, side))
    labels = np.zeros((side, side), np.int32)
    solid = np.zeros((side, side), np.bool_)
    n = 0
    for row in range(14, side, 28):
        for column in range(14, side, 28):
            r = rng.uniform(9, 14)
            disc = np.hypot(y - row, x - column) <= r
            n += 1
            labels[disc] = n
            solid |= disc & ~((abs(y - row) < 1) & (abs(x - column) < 0.7 * r) & (n % 3 == 0))
    image = 60 + 120 * solid + rng.normal(0, 6, (side, side))
    return LabelledSlice(f"slice{seed}", "v", image.astype(np.uint8), labels)


def hard(seed: int) -> Array:
    """The same with necks between some particles, cracks of all widths, mottled, and a fragment."""
    rng = np.random.default_rng(seed)
    s = drawn(seed)
    image = s.image.astype(np.float64)
    for k, row in enumerate(range(14, 112, 28)):
        image[row - 3 - 2 * k : row + 4 + 2 * k] = np.maximum(image[row - 3 - 2 * k : row + 4 + 2 * k], 175)
        image[row, 20:90] = image[row + 1 : row + 2 + k, 60:80] = 60
    image[:, 54:] = 60
    image[50:55, 70:75] = 180
    return image + 12 * gaussian_filter(rng.normal(0, 1, image.shape), 3) / 0.09


class Network:
    """In place of the network: true sections, a false one, and a faint one that only AP sees."""

    threshold = 0.5
    known: ClassVar[dict[bytes, LabelledSlice]] = {}

    def __init__(self, model: Path | None) -> None:
        self.asked = model

    def detect(self, images: Iterable[Array]) -> Iterator[Detections]:
        for image in images:
            truth = self.known[np.ascontiguousarray(image).tobytes()].labels
            boxes, scores, masks = pretend.detections(truth, np.random.default_rng(0), miss=0)
            scores[-1] = 0.2
            false = np.array([[21, 21, 34, 34]], np.float32)
            yield Detections(
                np.concatenate([boxes, false]).astype(np.float64),
                np.append(scores, 0.6).astype(np.float32),
                np.concatenate([masks, np.ones((1, 28, 28), np.float32)]),
                (truth.shape[0], truth.shape[1]),
            )


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(4):
        s = drawn(seed)
        Network.known[s.image.tobytes()] = s
    monkeypatch.setattr(maskrcnn, "Segmenter", Network)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid of few values."""
    for name, grid in SMALL_GRID.items():
        method = evaluate.Tunable(evaluate.TUNABLE[name].segment, {n: v[0] for n, v in grid.items()}, grid)
        monkeypatch.setitem(evaluate.TUNABLE, name, method)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two labelled slices on disk."""
    path = tmp_path_factory.mktemp("labelled")
    for seed in range(2):
        s = drawn(seed)
        tifffile.imwrite(path / f"{s.name}.tif", s.image)
        tifffile.imwrite(path / f"{s.name}_labels.tif", s.labels.astype(np.uint16))
    return path


def command(line: str) -> tuple[int, str, str]:
    """Run `cbdetach evaluate LINE` in another process: exit code, stdout, stderr."""
    made = [sys.executable, "-m", "cbdetach", "evaluate", *shlex.split(line)]
    done = subprocess.run(made, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


# ---- the watersheds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["watershed", "intensity"])
def test_a_watershed_finds_touching_discs(name: str) -> None:
    s = drawn(0)
    method = evaluate.TUNABLE[name]
    labels = method.segment(s.image, estimated_diameter(s.image), **method.start)
    found, _, iou = compare(Prediction(labels), s).objects()
    assert labels.dtype == np.int32
    assert found.metrics()["f_measure"] > 0.85
    assert iou.mean() > 0.8


@pytest.mark.parametrize("name", ["watershed", "intensity"])
def test_every_parameter_of_a_watershed_matters(name: str) -> None:
    method = evaluate.TUNABLE[name]
    slices = [hard(seed) for seed in range(3)]
    for parameter, values in method.grid.items():
        ends = [
            [method.segment(image[:96], 25.0, **{**method.start, parameter: value}) for image in slices]
            for value in (values[0], values[-1])
        ]
        assert any((a != b).any() for a, b in zip(*ends, strict=True)), parameter


@pytest.mark.parametrize("name", ["watershed", "intensity"])
def test_a_watershed_follows_grey_scale_and_size(name: str) -> None:
    """Thresholds are shares of the contrast, lengths of the diameter."""
    s = drawn(1)
    method = evaluate.TUNABLE[name]
    plain = method.segment(s.image, 25.0, **method.start)
    other = method.segment(s.image.astype(np.float64) * 37 - 1e3, 25.0, **method.start)
    assert np.mean(plain != other) < 0.01
    larger = method.segment(np.kron(s.image, np.ones((2, 2))), 50.0, **method.start)
    assert abs(int(larger.max()) - int(plain.max())) <= 2


def test_starts_lie_on_ascending_grids() -> None:
    for method in evaluate.TUNABLE.values():
        assert method.start.keys() == method.grid.keys()
        for name, values in method.grid.items():
            assert list(values) == sorted(set(values))
            assert method.start[name] in values


# ---- tuning ----------------------------------------------------------------------------------------------------------


def landscape(best: dict[str, int]) -> evaluate.Tunable:
    """A method on `drawn(0)` that drops the more particles the farther its parameters are from the best ones."""
    truth = drawn(0).labels

    def segment(image: Array, typical: float, **at: float) -> Array:
        a, b = (at[n] - best[n] for n in ("a", "b"))
        missed = abs(a - b) * 3 + abs(a + b)  # a narrow ridge along the diagonal
        return np.where(truth > missed, truth, 0).astype(np.int32)

    return evaluate.Tunable(segment, {"a": 0, "b": 0}, dict.fromkeys("ab", tuple(range(6))))


@pytest.mark.parametrize("best", [{"a": 3, "b": 3}, {"a": 0, "b": 0}, {"a": 5, "b": 2}])
def test_tuning_climbs_along_ridges_and_records_what_it_tried(best: dict[str, int]) -> None:
    parameters, tried = evaluate.tune(landscape(best), [drawn(0)])
    assert parameters == best
    assert max(row["f_measure"] for row in tried) == 1
    assert {"a": 0, "b": 0}.items() <= tried[0].items()
    places = [(row["a"], row["b"]) for row in tried]
    assert len(set(places)) == len(places) <= 36


def test_tuning_prefers_larger_overlap_where_as_many_are_found() -> None:
    truth = drawn(0).labels

    def segment(image: Array, typical: float, *, cut: float) -> Array:
        return np.where(np.indices(truth.shape)[1] % 28 > cut, truth, 0).astype(np.int32)

    best, tried = evaluate.tune(evaluate.Tunable(segment, {"cut": 6.0}, {"cut": (2.0, 6.0)}), [drawn(0)])
    assert best == {"cut": 2.0}
    assert tried[0]["f_measure"] == tried[1]["f_measure"] == 1


# ---- the whole -------------------------------------------------------------------------------------------------------


def test_all_methods_on_a_folder_of_slices(network: None, quick: None, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    found = evaluate.evaluate(folder, out)
    assert [r.method for r in found.results] == list(evaluate.METHODS)
    assert sorted(p.name for p in out.iterdir()) == sorted(evaluate.FILES)

    table = pd.read_csv(out / "evaluation.csv")
    assert list(table["image"][:5]) == ["slice0.tif", "slice1.tif", "(mean)", "(sd)", "(n)"]
    assert len(table) == 3 * 2 * 5
    rows = table[(table["method"] == "network") & (table["level"] == "objects")]
    assert rows["tp"].tolist()[:2] == [15, 15]  # of 16, one is too faint
    assert rows["fp"].tolist()[:2] == [1, 1]
    assert rows["precision"].tolist()[:2] == [15 / 16] * 2
    assert rows["mean_iou"].iloc[2] > 0.85
    images = table[~table["image"].str.startswith("(")]
    for (method, level), own in images.groupby(["method", "level"]):
        summary = table[(table["method"] == method) & (table["level"] == level)].set_index("image")
        for name in SIX:
            assert summary.loc["(mean)", name] == pytest.approx(own[name].mean())
            assert summary.loc["(sd)", name] == pytest.approx(own[name].std())
            assert summary.loc["(n)", name] == 2

    record = json.loads((out / "evaluation.json").read_text())
    assert (record["images"], record["particles"], record["iou"]) == (2, 32, 0.5)
    assert "these slices themselves" in record["tuned_on"]
    assert record["methods"]["watershed"]["parameters"].keys() == {"share", "depth", "close", "smallest"}
    assert len(record["methods"]["watershed"]["tried"]) == 4
    assert record["methods"]["network"]["tried"] == []
    together = record["methods"]["network"]["all_images_together"]
    assert (together["objects"]["tp"], together["objects"]["tn"]) == (30, None)
    assert together["pixels"]["tn"] > 0
    # the faint ones are right: they count for AP, and the false ones stand before them
    assert record["methods"]["network"]["ap"]["0.5"] == pytest.approx((94 + 7 * 32 / 34) / 101)

    bars = pd.read_csv(out / "evaluation_bars.csv")
    assert len(bars) == 2 * 6 * 3
    assert (bars["images"] == 2).all()
    text = str(found)
    assert "2 slices" in text
    assert "32 particles" in text
    for label in evaluate.METHODS.values():
        assert label in text
    assert "tuned on these slices themselves, which favours them" in text


def test_equal_input_gives_equal_files(network: None, quick: None, folder: Path, tmp_path: Path) -> None:
    for out in ("a", "b"):
        evaluate.evaluate(folder, tmp_path / out, methods=["network", "watershed"])
    for name in set(evaluate.FILES) - {"evaluation.json"}:  # which holds the seconds
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_methods_are_chosen_and_the_network_is_loaded_only_if_asked(quick: None, folder: Path, tmp_path: Path) -> None:
    found = evaluate.evaluate(folder, methods=["intensity"])
    assert [r.method for r in found.results] == ["intensity"]
    with pytest.raises(InputError, match="there is no file"):
        evaluate.evaluate(folder, model=tmp_path / "none.onnx")


def test_a_higher_iou_finds_fewer(network: None, folder: Path) -> None:
    loose, tight = (evaluate.evaluate(folder, methods=["network"], iou=iou).record() for iou in (0.5, 0.97))
    one, other = (r["methods"]["network"]["objects"]["f_measure"]["mean"] for r in (loose, tight))
    assert other < one


def test_tuning_on_other_slices(quick: None, folder: Path, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", drawn(3).image)
    tifffile.imwrite(tmp_path / "x_labels.tif", drawn(3).labels.astype(np.uint16))
    record = evaluate.evaluate(folder, tuning=tmp_path / "x_labels.tif", methods=["watershed"]).record()
    assert record["tuned_on"] == str(tmp_path / "x_labels.tif")


def test_phantoms_are_held_out_and_tuned_on_others(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from cbdetach.train import scenes

    asked: list[int] = []

    def slices_of_scene(seed: int, *, count: int) -> list[LabelledSlice]:
        asked.append(seed)
        return [drawn(seed + k) for k in range(count)]

    monkeypatch.setattr(scenes, "slices_of_scene", slices_of_scene)
    monkeypatch.setattr(evaluate, "TUNING_SLICES", 2)
    record = evaluate.evaluate(phantom=3, methods=["watershed"]).record()
    assert record["images"] == 3
    assert asked == [1_000_000, 1_000_001, 2_000_000]
    assert record["tuned_on"] == "other phantom scenes"


def test_seeds_are_those_that_training_leaves() -> None:
    pytest.importorskip("torch")
    from cbdetach.train import samples

    assert (evaluate.TEST_SEED, evaluate.TUNING_SEED) == (samples.TRAINING_SEEDS, samples.VALIDATION_SEEDS)


def test_files_are_whole_or_absent(
    network: None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate.evaluate(folder, tmp_path, methods=["network"])
    before = (tmp_path / "evaluation.csv").read_bytes()

    def fail(self: Path, content: bytes) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate(folder, tmp_path, methods=["network"], iou=0.9, overwrite=True)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == sorted(set(evaluate.FILES) - {"evaluation.json"})  # no record of what is not there
    assert (tmp_path / "evaluation.csv").read_bytes() == before


def test_a_single_slice_has_no_spread(network: None, folder: Path) -> None:
    found = evaluate.evaluate(folder / "slice0.tif", methods=["network"])
    assert str(found).startswith("1 slice (")
    assert "±" not in str(found).split("\n", 1)[1]
    assert "nan" not in str(found)


def test_slices_on_which_nothing_is_found(network: None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(self: Network, images: Iterable[Array]) -> Iterator[Detections]:
        for image in images:
            none = np.zeros((0, 4)), np.zeros(0, np.float32), np.zeros((0, 28, 28), np.float32)
            yield Detections(*none, (image.shape[0], image.shape[1]))

    monkeypatch.setattr(Network, "detect", nothing)
    found = evaluate.evaluate(folder, methods=["network"])
    objects = found.record()["methods"]["network"]["objects"]
    assert objects["sensitivity"]["mean"] == objects["f_measure"]["mean"] == 0
    assert objects["precision"]["images"] == 0
    assert "–" in str(found)


# ---- what can be wrong -----------------------------------------------------------------------------------------------


def test_bad_input_is_one_sentence(quick: None, folder: Path, tmp_path: Path) -> None:
    for arguments, said in (
        ({}, "ANNOTATIONS: must be given, or --phantom N, and not both; got None and None."),
        ({"annotations": folder, "phantom": 3}, "and not both; got "),
        ({"phantom": 0}, "--phantom: must be at least 1; got 0."),
        ({"annotations": folder, "iou": 0.0}, "--iou: must be above 0 and at most 1; got 0.0."),
        ({"annotations": folder, "iou": float("nan")}, "--iou: must be above 0 and at most 1; got nan."),
        (
            {"annotations": folder, "methods": ["sam"]},
            "--method: must be one of network, watershed, intensity; got sam.",
        ),
        ({"annotations": tmp_path / "none.json", "methods": ["watershed"]}, "none.json"),
    ):
        with pytest.raises(InputError) as caught:
            evaluate.evaluate(**arguments)  # type: ignore[arg-type]
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_slice_that_a_method_cannot_take_is_named() -> None:
    def refuse(image: Array, typical: float) -> Array:
        raise ValueError("image: must be larger.")

    with pytest.raises(InputError, match=r"^slice0: image: must be larger\.$"):
        evaluate.tune(evaluate.Tunable(refuse, {}, {}), [drawn(0)])


def test_a_folder_that_cannot_be_written(network: None, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"-o/--out: .* cannot be written .*; choose another folder"):
        evaluate.evaluate(folder, tmp_path / "file", methods=["network"])


def test_the_command(folder: Path, tmp_path: Path) -> None:
    image = folder / "slice0.tif"
    code, said, complained = command(f"{image} --method intensity --tune {image} --iou 0.6 -o {tmp_path}")
    assert (code, complained) == (0, "")
    assert "matched at IoU 0.6" in said
    assert f"Watersheds tuned on {image}." in said
    assert (tmp_path / "evaluation.svg").exists()
    code, said, complained = command(f"{folder} --model {tmp_path / 'no.onnx'} --quiet --overwrite -o {tmp_path}")
    assert (code, said) == (2, "")
    assert complained.count("\n") == 1
    assert "no.onnx" in complained


def test_torch_is_not_imported() -> None:
    program = "import sys, cbdetach.evaluate, cbdetach.metrics, cbdetach.train.scenes; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
