"""Model files, what is refused of them, and the providers that run them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.cbdetach import tiny_onnx
from tests.cbdetach.tiny_onnx import METADATA, OUTPUTS, SIDE, blobs, node

from cbdetach.errors import InputError
from cbdetach.segment import runtime
from cbdetach.segment.maskrcnn import Segmenter

Array = npt.NDArray[Any]
UNIT = {"levels": (0.0, 1.0), "diameter_px": SIDE}


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "blobs.onnx"
    path.write_bytes(blobs())
    return path


# ---- model files -----------------------------------------------------------------------------------------------------


def constant_answer(**shapes: tuple[int, ...]) -> bytes:
    """A network that answers with constants of these shapes."""
    usual = {"boxes": (1, 4), "scores": (1,), "masks": (1, 28, 28), "index": (1,)} | shapes
    constants = {
        f"c_{name}": np.zeros(shape, np.int64 if name == "index" else np.float32) for name, shape in usual.items()
    }
    nodes = [node("Identity", f"c_{name}", name) for name in OUTPUTS]
    return tiny_onnx.file([*nodes, node("Shape", "image", "unused")], constants)


def nan_answer() -> bytes:
    constants = {"c_boxes": np.zeros((1, 4), np.float32), "c_masks": np.zeros((1, 28, 28), np.float32)}
    constants |= {"c_index": np.zeros(1, np.int64), "zero": np.zeros(1, np.float32)}
    nodes = [node("Identity", f"c_{name}", name) for name in ("boxes", "masks", "index")]
    return tiny_onnx.file([*nodes, node("Div", "zero zero", "scores")], constants)


BAD_FILES = {
    "text": (b"not a model" * 50, "is damaged, or no ONNX file that ONNX Runtime can run"),
    "empty": (b"", "is damaged, or no ONNX file that ONNX Runtime can run"),
    "truncated": (blobs()[:900], "is damaged, or no ONNX file that ONNX Runtime can run"),
    "own operators": (
        tiny_onnx.file([node("Evil", "image", "boxes", domain="evil")], {}, outputs=["boxes"], domains=("", "evil")),
        "can run: .*evil:Evil",
    ),
    "no metadata": (blobs(metadata=None), "must have metadata of format 'cbdetach-maskrcnn-1'; got none"),
    "another format": (blobs(metadata={**METADATA, "format": "x-2"}), "'cbdetach-maskrcnn-1'; got format 'x-2'"),
    "altered": (blobs().replace(b"fp32", b"fp16"), "is damaged or was altered: its check sum is not the one"),
    "no check sum": (blobs().replace(b"\x06sha256", b"\x06sha257"), "is damaged or was altered"),
    "other names": (blobs(outputs=OUTPUTS[:3]), "must take `image` and give boxes, scores, masks, index; it takes"),
    "no diameter": (
        blobs(metadata={"format": METADATA["format"]}),
        "must have metadata 'nominal_diameter_px' between 1 and 1000; got none",
    ),
    "bad score": (
        blobs(metadata={**METADATA, "score_threshold": "high"}),
        "'score_threshold' between 0 and 1; got high",
    ),
}
for _case, _shape in {"colour": ("N", 3, "H", "W"), "fixed size": ("N", 1, 64, 64), "flat": ("N", 1)}.items():
    BAD_FILES[_case] = (
        tiny_onnx.file(
            [node("Identity", f"c_{name}", name) for name in OUTPUTS],
            {f"c_{name}": np.zeros(1, np.int64 if name == "index" else np.float32) for name in OUTPUTS},
            inputs={"image": (tiny_onnx.FLOAT, _shape)},
        ),
        r"must take float32 images of one channel and any size, \(N, 1, H, W\); it takes tensor\(float\)",
    )


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_model_files_are_refused(case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content, message = BAD_FILES[case]
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        Segmenter(path)
    assert str(caught.value).startswith("model: model.onnx ")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")  # ONNX Runtime's own log says nothing


def test_weights_outside_the_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(np.zeros(4, np.float32).tobytes())
    field = tiny_onnx._field
    place = field(13, field(1, "location") + field(2, "weights.bin"))
    outside = field(1, 4) + field(2, 1) + field(8, "w") + place + field(14, 1)
    graph = field(1, node("Add", "w w", "boxes")) + field(2, "g") + field(5, outside)
    graph += field(12, tiny_onnx._value("boxes", 1, None))
    (tmp_path / "model.onnx").write_bytes(field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 15)))
    with pytest.raises(InputError, match="is damaged, or no ONNX file"):
        Segmenter(tmp_path / "model.onnx")


def test_a_missing_model_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"model: there is no file .*none.onnx. Give the path of an ONNX file."):
        Segmenter(tmp_path / "none.onnx")
    with pytest.raises(InputError, match=r"model: .* cannot be read: Is a directory"):
        Segmenter(tmp_path)
    monkeypatch.setattr(runtime, "shipped_model", lambda: tmp_path / "particles.onnx")
    with pytest.raises(InputError, match="This copy of cbdetach came without one"):
        Segmenter()


def test_the_shipped_model_lies_beside_the_code() -> None:
    assert runtime.shipped_model() == Path(runtime.__file__).parent / "models" / "particles.onnx"


def test_without_onnxruntime_the_extra_is_named(detector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"onnxruntime is missing: pip install 'cbdetach\[cpu\]'"):
        Segmenter(detector)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (constant_answer(boxes=(1, 3)), "gives boxes, scores, masks, index of other shapes than a Mask R-CNN's"),
        (constant_answer(masks=(1, 1, 28, 28)), "of other shapes"),
        (constant_answer(index=(2,)), "of other shapes"),
        (nan_answer(), "gives nan or inf. Use the fp32 model."),
        (
            tiny_onnx.file(
                [
                    node("Reshape", "image impossible", "scores"),
                    *(node("Identity", f"c_{name}", name) for name in ("boxes", "masks", "index")),
                ],
                {
                    "impossible": np.array([7, 11, 13]),
                    "c_boxes": np.zeros((1, 4), np.float32),
                    "c_masks": np.zeros((1, 2, 2), np.float32),
                    "c_index": np.zeros(1, np.int64),
                },
            ),
            "fails on tiles of 32 x 64 pixels, 1 at a time: .* If memory is short, use smaller tiles.",
        ),
    ],
)
def test_a_model_that_fails_is_one_sentence(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(InputError, match=message):
        Segmenter(tmp_path / "model.onnx").label(np.zeros((20, 40)), **UNIT)


# ---- providers -------------------------------------------------------------------------------------------------------


def test_the_processor_is_used_where_nothing_else_is(detector: Path) -> None:
    model = Segmenter(detector).model
    assert (model.provider, model.device) == ("cpu", "cpu")
    assert "CUDAExecutionProvider" in model.why
    assert Segmenter(detector, provider="cpu").model.why == ""


def test_a_provider_that_cannot_be_had_is_refused(detector: Path) -> None:
    with pytest.raises(InputError, match="provider: must be one of 'tensorrt', 'cuda', 'cpu'; got 'abacus'"):
        Segmenter(detector, provider="abacus")
    for name in ("cuda", "tensorrt"):
        if runtime.why_not(name):
            with pytest.raises(InputError, match=f"provider: {name} cannot be used: .*ExecutionProvider"):
                Segmenter(detector, provider=name)


def test_a_gpu_that_does_not_start_is_said(detector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(runtime.PROVIDERS.values()))
    monkeypatch.setattr(runtime, "why_not", lambda name: "")
    monkeypatch.setattr(runtime, "_preload", lambda ort: None)
    sessions = onnxruntime.InferenceSession
    asked: list[Any] = []

    def refuses(content: bytes, options: Any, *, providers: list[Any], **more: Any) -> Any:
        asked.append(providers)
        if len(providers) > 1:
            assert more == {"enable_fallback": 0}
            raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : CUDA failure 35: driver is too old.\nmore")
        return sessions(content, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuses)
    model = Segmenter(detector).model
    assert model.provider == "cpu"
    assert model.why == "CUDAExecutionProvider does not start: CUDA failure 35: driver is too old."
    with pytest.raises(InputError, match=r"provider: tensorrt cannot be used: Tens.* does not start: CUDA failure 35"):
        Segmenter(detector, provider="tensorrt")
    assert [p if isinstance(p, str) else p[0] for p in asked[-1]] == list(runtime.PROVIDERS.values())

    def leaves_it_out(content: bytes, options: Any, *, providers: list[Any], **more: Any) -> Any:
        return sessions(content, options, providers=providers[-1:])

    monkeypatch.setattr(onnxruntime, "InferenceSession", leaves_it_out)
    with pytest.raises(
        InputError, match=r"cuda cannot be used: CUDA.* does not start: is there a GPU, and is its driver"
    ):
        Segmenter(detector, provider="cuda")
    monkeypatch.setattr(runtime, "why_not", lambda name: "libcudnn.so.9 is missing.")
    assert Segmenter(detector).model.why == "libcudnn.so.9 is missing."


def test_a_gpu_session_is_used_with_its_device(detector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as that goes without one: a session that says it runs on CUDA gets tensors there, eight at a time."""
    import onnxruntime

    monkeypatch.setattr(runtime, "_on_gpu", lambda ort, content, provider, otherwise: (otherwise, ""))
    network = Segmenter(detector)
    assert (network.model.provider, network.model.device, network.batch) == ("cuda", "cuda", 8)
    real = onnxruntime.OrtValue.ortvalue_from_numpy
    places = []

    def on_host(array: Array, device: str, number: int) -> Any:
        places.append((array.shape, device, number))
        return real(array, "cpu", 0)

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", staticmethod(on_host))
    monkeypatch.setattr(onnxruntime.IOBinding, "bind_output", _bound_on_host(places, onnxruntime.IOBinding.bind_output))
    assert len(list(network.detect([np.zeros((20, 20))] * 9, **UNIT))) == 9
    assert [p for p in places if len(p) == 3] == [((n, 1, 32, 32), "cuda", 0) for n in (8, 1)]
    assert [p for p in places if len(p) == 2] == [(name, "cuda") for name in OUTPUTS] * 2


def _bound_on_host(places: list[Any], bind: Any) -> Any:
    def bind_output(self: Any, name: str, device: str) -> None:
        places.append((name, device))
        bind(self, name, "cpu")

    return bind_output


def fake_runtime(names: list[str], library: Path) -> SimpleNamespace:
    return SimpleNamespace(get_available_providers=lambda: names, __file__=str(library / "__init__.py"))


def test_why_not_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = list(runtime.PROVIDERS.values())
    monkeypatch.setitem(sys.modules, "onnxruntime", fake_runtime(names, tmp_path))
    assert runtime.why_not("cpu") == ""

    def no_driver(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(runtime.ctypes, "CDLL", no_driver)
    assert runtime.why_not("cuda") == "there is no NVIDIA driver (libcuda.so.1)."

    def no_cudnn(name: str) -> None:
        if "providers" in name:
            assert name == str(tmp_path / "capi" / f"libonnxruntime_providers_{provider}.so")
            raise OSError("libcudnn.so.9: cannot open shared object file")

    monkeypatch.setattr(runtime.ctypes, "CDLL", no_cudnn)
    for provider in ("cuda", "tensorrt"):
        assert runtime.why_not(provider) == (
            f"{runtime.PROVIDERS[provider]} cannot be loaded: libcudnn.so.9: cannot open shared object file."
        )

    def all_there(name: str) -> None:
        if "providers" in name:
            raise OSError(f"{name}: undefined symbol: Provider_GetHost")

    monkeypatch.setattr(runtime.ctypes, "CDLL", all_there)
    assert runtime.why_not("cuda") == ""
    monkeypatch.setitem(sys.modules, "onnxruntime", fake_runtime(["AzureExecutionProvider"], tmp_path))
    assert runtime.why_not("cpu") == "this wheel of onnxruntime has no CPUExecutionProvider."
    assert "pip install 'cbdetach[gpu]'" in runtime.why_not("cuda")
