"""Export: the graph is torchvision's inference for whole batches, and the file says what it is."""

from __future__ import annotations

import io
import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import tifffile

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("torchvision")
ort = pytest.importorskip("onnxruntime")

from torchvision.ops import box_iou  # noqa: E402

import cbdetach  # noqa: E402
from cbdetach import __main__, cli  # noqa: E402
from cbdetach.errors import InputError  # noqa: E402
from cbdetach.segment.model_file import FORMAT, model_digest, with_digest  # noqa: E402
from cbdetach.segment.scaling import NOMINAL_DIAMETER  # noqa: E402
from cbdetach.train import export, samples  # noqa: E402
from cbdetach.train.checkpoint import FORMAT as CHECKPOINT_FORMAT  # noqa: E402
from cbdetach.train.detector import Detector, SmallMasks  # noqa: E402
from cbdetach.train.network import NetworkSettings, build  # noqa: E402
from cbdetach.train.settings import Data, TrainSettings  # noqa: E402

SMALL = NetworkSettings(
    stages=2,
    fpn_channels=16,
    box_features=32,
    mask_channels=16,
    mask_layers=1,
    anchor_sizes=((12, 20), (30, 44), (64, 90)),
    proposals=80,
    detections=30,
)
SHAPES = [(2, 96, 160), (1, 64, 224), (3, 96, 96)]


def network(settings: NetworkSettings = SMALL, seed: int = 0) -> Any:
    """A network whose layers all matter: random weights, random statistics, scores from 0 to 1."""
    torch.manual_seed(seed)
    model = build(settings).eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
    with torch.no_grad():
        model.rpn.head.cls_logits.weight *= 30
        model.rpn.head.bbox_pred.weight *= 10
        model.roi_heads.box_predictor.cls_score.weight *= 5
        model.roi_heads.mask_predictor.mask_fcn_logits.weight *= 3
    return model


def pictures(n: int, height: int, width: int, seed: int = 0) -> Any:
    """(n, 1, height, width): smooth random images, each with another contrast."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(0.5, 1, (n, 1, height // 8, width // 8)).astype(np.float32))
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    return (fine * torch.linspace(0.6, 1.4, n)[:, None, None, None]).clamp(-1, 2)


def same(wanted: dict[str, Any], boxes: Any, scores: Any, masks: Any, *, tolerance: float = 1e-3) -> None:
    """Equal detections in any order."""
    assert len(boxes) == len(wanted["boxes"])
    overlap, mate = box_iou(boxes, wanted["boxes"]).max(1)
    assert sorted(mate.tolist()) == list(range(len(boxes)))
    assert overlap.min() > 0.999
    assert (boxes - wanted["boxes"][mate]).abs().max() < 20 * tolerance
    assert (scores - wanted["scores"][mate]).abs().max() < tolerance
    assert (masks - wanted["masks"][mate, 0]).abs().max() < tolerance


def compare(model: Any, batch: Any, found: Iterable[Any]) -> int:
    """Compare a batch with torchvision's model; the number of detections."""
    boxes, scores, masks, index = (torch.as_tensor(part) for part in found)
    assert masks.shape[1:] == (28, 28)
    assert index.dtype == torch.int64
    with torch.inference_mode():
        expected = model(list(batch))
    for number, wanted in enumerate(expected):
        mine = index == number
        same(wanted, boxes[mine], scores[mine], masks[mine])
        assert (scores[mine].diff() <= 0).all()
    assert len(boxes) == sum(len(wanted["boxes"]) for wanted in expected)
    return len(boxes)


def session(content: Any) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    data = content if isinstance(content, bytes) else content.SerializeToString()
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def graph() -> Any:
    return export.trace(Detector(network()))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("training") / "best.pt"
    settings = TrainSettings(network=SMALL, seed=3, data=Data(annotations=("somewhere/private/mine.json",)))
    torch.save(
        {
            "format": CHECKPOINT_FORMAT,
            "settings": settings.to_dict(),
            "model": network().state_dict(),
            "optimiser": {},
            "schedule": {},
            "epoch": 7,
            "seconds": 5400.0,
            "history": [{"epoch": 7.0, "f1": 0.9}],
        },
        path,
    )
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random pictures instead of synthetic slices, which take a second each."""
    monkeypatch.setattr(export, "_synthetic", lambda seeds: iter(pictures(2, 96, 128, min(seeds))[:, 0].numpy()))


# ---- the graph ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_detector_is_torchvision(shape: tuple[int, int, int]) -> None:
    model, batch = network(), pictures(*shape)
    with torch.inference_mode():
        assert compare(model, batch, Detector(model)(batch)) > 5 * shape[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"detections": 10},
        {"proposals": 20},
        {"nms": 0.2},
        {"score_threshold": 0.5},
        {"anchor_ratios": (1.0,)},
        {"mask_layers": 2},
        {"backbone": "resnet50", "stages": 4, "anchor_sizes": ((8,), (16,), (32,), (64,), (96,))},
    ],
)
def test_detector_follows_the_settings(changes: dict[str, Any]) -> None:
    model, batch = network(NetworkSettings(**{**SMALL.model_dump(), **changes})), pictures(2, 96, 128)
    with torch.inference_mode():
        n = compare(model, batch, Detector(model)(batch))
    assert 0 < n <= 2 * changes.get("detections", SMALL.detections)


def test_the_model_itself_is_left_alone() -> None:
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Detector(model, half=True)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_masks_at_half_resolution_are_the_same() -> None:
    predictor, features = network().roi_heads.mask_predictor, torch.randn(3, 16, 14, 14)
    with torch.inference_mode():
        torch.testing.assert_close(SmallMasks(predictor)(features), predictor(features)[:, 1:])
    predictor.conv5_mask = torch.nn.ConvTranspose2d(16, 16, 3)
    with pytest.raises(ValueError, match="must be torchvision's MaskRCNNPredictor"):
        SmallMasks(predictor)


@pytest.mark.parametrize("shape", SHAPES)
def test_any_batch_and_size_in_onnx_runtime(graph: Any, shape: tuple[int, int, int]) -> None:
    batch = pictures(*shape)
    assert compare(network(), batch, session(graph).run(None, {"image": batch.numpy()})) > 5 * shape[0]


def test_no_detection() -> None:
    model = network()
    model.roi_heads.box_predictor.cls_score.bias.data[0] += 100
    boxes, scores, masks, index = session(export.trace(Detector(model))).run(
        None, {"image": pictures(2, 64, 64).numpy()}
    )
    assert [part.shape for part in (boxes, scores, masks, index)] == [(0, 4), (0,), (0, 28, 28), (0,)]
    assert [str(part.dtype) for part in (boxes, scores, masks, index)] == ["float32", "float32", "float32", "int64"]


def test_the_graph_is_small_and_unrolls_nothing(graph: Any) -> None:
    counts = Counter(node.op_type for node in graph.graph.node)
    assert counts["NonMaxSuppression"] == 2
    assert counts["RoiAlign"] == 2 * SMALL.stages
    assert not counts.keys() & {"BatchNormalization", "Loop", "If", "ScatterND", "ConvTranspose", "Identity"}
    assert [put.name for put in graph.graph.input] == ["image"]
    assert [put.name for put in graph.graph.output] == ["boxes", "scores", "masks", "index"]
    dims = graph.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 1, "height", "width"]


# ---- the file -------------------------------------------------------------------------------------------------------


def test_metadata_and_check_sum(checkpoint: Path, tmp_path: Path, quick: None) -> None:
    path = tmp_path / "a.onnx"
    found = export.export(checkpoint, path, score_threshold=0.6, threads=1)
    assert found["matched"] == found["torch"] == found["onnx"] > 20
    assert max(found["box_px"], found["score"], found["mask"]) < 0.01
    assert found["mask_iou"] > 0.999

    entries = session(path.read_bytes()).get_modelmeta().custom_metadata_map
    assert set(entries) == {
        "format", "nominal_diameter_px", "score_threshold", "training", "version", "precision", "created", "sha256"
    }  # fmt: skip
    assert entries["format"] == FORMAT == "cbdetach-maskrcnn-1"
    assert float(entries["nominal_diameter_px"]) == NOMINAL_DIAMETER
    assert float(entries["score_threshold"]) == 0.6
    assert entries["version"] == cbdetach.__version__
    assert entries["precision"] == "fp32"
    assert entries["created"].endswith("+00:00")
    record = json.loads(entries["training"])
    assert record["settings"] == TrainSettings(network=SMALL, seed=3, data=Data(annotations=("mine.json",))).to_dict()
    assert record["data"]["annotations"] == ["mine.json"]
    assert (record["epochs"], record["seed"], record["hours"]) == (7, 3, 1.5)
    assert record["last_epoch"] == {"epoch": 7.0, "f1": 0.9}

    content = path.read_bytes()
    assert model_digest(path) == model_digest(content) == entries["sha256"]
    digits = content.find(entries["sha256"].encode())
    for place in (100, len(content) // 2, content.rfind(b"fp32"), digits - 1, digits, digits + 63):
        flipped = bytearray(content)
        flipped[place] ^= 1
        stated = flipped[digits : digits + 64].decode()
        assert model_digest(bytes(flipped)) != stated
    assert model_digest(content[: digits + 20]) != entries["sha256"]
    assert model_digest(content + b"more") != entries["sha256"]


def test_a_file_without_check_sum() -> None:
    import hashlib

    assert model_digest(b"something else") == hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(ValueError, match="must hold the metadata entry sha256; got none"):
        with_digest(b"something else")


@pytest.mark.parametrize(("precision", "share", "mask_iou"), [("fp16", 0.9, 0.99), ("int8", 0.6, 0.8)])
def test_small_precisions(
    checkpoint: Path, tmp_path: Path, quick: None, precision: str, share: float, mask_iou: float
) -> None:
    """The bounds are those of random weights, which leave many scores close together."""
    sizes = {}
    for kind in ("fp32", precision):
        path = tmp_path / f"{kind}.onnx"
        found = export.export(checkpoint, path, precision=kind, threads=1)
        sizes[kind] = path.stat().st_size
    assert found["matched"] >= share * found["torch"]
    assert 0 < found["score_mean"] < 0.02
    assert found["box_px_mean"] < 1
    assert mask_iou < found["mask_iou"]
    assert sizes[precision] < 0.6 * sizes["fp32"]
    assert session(path.read_bytes()).get_modelmeta().custom_metadata_map["precision"] == precision
    assert model_digest(path) == session(path.read_bytes()).get_modelmeta().custom_metadata_map["sha256"]


def test_int8_keeps_the_first_convolution_and_the_predictors(graph: Any) -> None:
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    small = export.quantised(copy, [pictures(1, 96, 96)[0, 0].numpy()])
    made_by = {name: node for node in small.graph.node for name in node.output}
    plain = [
        node.name
        for node in small.graph.node
        if node.op_type == "Conv" and made_by.get(node.input[0], node).op_type != "DequantizeLinear"
    ]
    n_levels = len(SMALL.anchor_sizes)
    assert len(plain) == 1 + 2 * n_levels + 1
    assert "/backbone/body/conv1/Conv" in plain
    assert sum(node.op_type == "Conv" for node in small.graph.node) > 2 * len(plain)


def test_int8_weights_keep_to_seven_bits(graph: Any) -> None:
    """Else sums of two products with 8 bits of grey overflow 16 bits, on processors that have no VNNI."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    small = export.quantised(copy, [pictures(1, 96, 96)[0, 0].numpy()])
    kept = [onnx.numpy_helper.to_array(one) for one in small.graph.initializer]
    weights = [one for one in kept if one.dtype == np.int8 and one.ndim == 4]
    assert weights
    assert max(np.abs(one.astype(int)).max() for one in weights) == 64


def test_parity_notices_another_network(checkpoint: Path, tmp_path: Path, quick: None) -> None:
    path = tmp_path / "a.onnx"
    export.export(checkpoint, path, threads=1)
    images = [pictures(1, 96, 96)[0, 0].numpy()]
    other = network()
    other.roi_heads.mask_predictor.mask_fcn_logits.bias.data += 0.5
    assert 0.05 < export.parity(other, path, images, threads=1)["mask"] < 0.2
    found = export.parity(network(seed=1), path, images, threads=1)
    assert found["matched"] < 0.8 * found["torch"]
    other.roi_heads.box_predictor.cls_score.bias.data[0] += 100
    assert export.parity(other, path, images, threads=1)["matched"] == 0


def test_threads_reach_onnx_runtime(checkpoint: Path, tmp_path: Path, quick: None) -> None:
    asked = []

    def opened(content: bytes, options: Any, **rest: Any) -> Any:
        asked.append(options.intra_op_num_threads)
        return real(content, options, **rest)

    real = ort.InferenceSession
    with patch.object(ort, "InferenceSession", opened):
        export.export(checkpoint, tmp_path / "a.onnx", threads=1)
    assert asked == [1]


# ---- what can go wrong ----------------------------------------------------------------------------------------------


def command(line: str) -> tuple[int, str, str]:
    """Run `cbdetach LINE` in this process: exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    typed = patch.object(sys, "argv", ["cbdetach", *shlex.split(line)])
    with typed, redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        __main__.main()
    code = ended.value.code
    return (code if isinstance(code, int) else 0), out.getvalue(), err.getvalue()


def test_the_command_says_how_well_it_agrees(checkpoint: Path, tmp_path: Path) -> None:
    image, path = tmp_path / "slice.tif", tmp_path / "a.onnx"
    y, x = np.indices((90, 120))
    rings = sum(np.hypot(y - 40, x - at) < 18 for at in (30, 80)) * 100
    tifffile.imwrite(image, (rings + np.random.default_rng(0).normal(50, 8, rings.shape)).astype(np.uint8))
    code, said, complaint = command(f"export {checkpoint} -o {path} --check {image} --threads 1 --score-threshold 0.7")
    assert (code, complaint) == (0, "")
    assert said.startswith(f"{path}: ")
    assert "largest (mean) difference: box" in said
    assert "ONNX Runtime" in said
    assert session(path.read_bytes()).get_modelmeta().custom_metadata_map["score_threshold"] == "0.7"
    assert command(f"export {checkpoint} -o {path} --check {image} --threads 1 --quiet --overwrite") == (0, "", "")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("export {good} -o {out} --precision fp8", "--precision: must be one of fp32, fp16, int8; got fp8."),
        ("export {good} -o {out} --score-threshold 2", "--score-threshold: must be between 0 and 1; got 2.0."),
        ("export {good} -o {tmp}", "-o/--out: {tmp} cannot be written (it is a folder); choose another file."),
        ("export {good} -o {out} --threads 0", "--threads: must be 1 to "),
        ("export {good} -o {out} --check none.tif", "--check: must be an existing file or folder; got 'none.tif'"),
        ("export {good} -o {good}/a.onnx", "-o/--out: {good}/a.onnx cannot be written ({good}: it is a file); choose"),
        ("export {tmp}/none.pt -o {out}", "there is no such checkpoint"),
        ("export {corrupt} -o {out}", "is not a checkpoint of cbdetach train"),
        ("export {foreign} -o {out}", "is not a checkpoint of cbdetach train"),
        ("export {good} -o {out} --check {constant}", "must hold more than one grey value"),
        ("export {good} -o {out} --check {tmp}/none.tif", "none.tif"),
    ],
)
def test_bad_input_is_one_sentence(checkpoint: Path, tmp_path: Path, line: str, complaint: str) -> None:
    names = {name: tmp_path / name for name in ("corrupt", "foreign", "constant.tif", "a.onnx")}
    names["corrupt"].write_bytes(checkpoint.read_bytes()[:5000])
    torch.save({"weights": torch.zeros(3)}, names["foreign"])
    tifffile.imwrite(names["constant.tif"], np.full((64, 64), 7, np.uint8))
    places = {
        "good": checkpoint, "tmp": tmp_path, "out": names["a.onnx"], "corrupt": names["corrupt"],
        "foreign": names["foreign"], "constant": names["constant.tif"],
    }  # fmt: skip
    code, said, told = command(line.format(**places))
    assert (code, said) == (2, "")
    assert complaint.format(**places) in told
    assert told.count("\n") == 1
    assert not names["a.onnx"].exists()


@pytest.mark.parametrize(("module", "extra"), [("torch", "train"), ("onnx", "train"), ("onnxruntime", "cpu")])
def test_a_missing_extra_is_named(checkpoint: Path, tmp_path: Path, module: str, extra: str) -> None:
    with patch.object(cli.common, "find_spec", lambda name: None if name == module else object()):
        code, _, told = command(f"export {checkpoint} -o {tmp_path / 'a.onnx'}")
    assert code == 2
    assert told == f"cbdetach: {module} missing: pip install 'cbdetach[{extra}]'.\n"


def test_the_file_is_whole_or_absent(checkpoint: Path, tmp_path: Path, quick: None) -> None:
    def half(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:100])
        raise KeyboardInterrupt

    with patch.object(Path, "write_bytes", half), pytest.raises(KeyboardInterrupt):
        export.export(checkpoint, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments_from_python(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--precision"):
        export.export(checkpoint, tmp_path / "a.onnx", precision="int4")


def test_synthetic_slices_are_as_the_network_takes_them() -> None:
    image = next(export._synthetic(export.CHECK_SEEDS[:1]))
    assert image.dtype == np.float32
    assert all(n % 32 == 0 for n in image.shape)
    assert -1 <= image.min() < 0.3 < 0.7 < image.max() <= 2
    for seed in (*export.CALIBRATION_SEEDS, *export.CHECK_SEEDS):
        assert samples.TRAINING_SEEDS < seed < samples.VALIDATION_SEEDS
