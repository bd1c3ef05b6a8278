"""One slice through Mask R-CNN: PyTorch, and the exported file in ONNX Runtime; the answer is checked before the clock.

Both have the same weights (random ones), proposals and detections, and one thread. At CBDETACH_BENCH_SIZE=256 the slice
has 512 x 1024 pixels and up to 400 detections.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import cases

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'cbdetach[train]'")
pytest.importorskip("onnx", reason="onnx is not installed: pip install 'cbdetach[train]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'cbdetach[cpu]'")

from cbdetach.train import export  # noqa: E402
from cbdetach.train.detector import Detector  # noqa: E402
from cbdetach.train.network import NetworkSettings, build  # noqa: E402

TOY = cases.SIZE < 128
SIDE = 64 if TOY else 2 * cases.SIZE


@cache
def model() -> Any:
    """The shipped model's shape; random weights give every candidate a score near 0.5, so the limits are reached."""
    torch.manual_seed(0)
    return build(NetworkSettings(proposals=60, detections=20) if TOY else NetworkSettings()).eval()


def picture() -> Any:
    return np.random.default_rng(0).random((SIDE, 2 * SIDE)).astype(np.float32)


def in_torch() -> Callable[[], int]:
    image = torch.from_numpy(picture())[None]

    def run() -> int:
        with torch.inference_mode():
            return len(model()([image])[0]["boxes"])

    return run


def in_onnx_runtime(path: Path, precision: str) -> Callable[[], int]:
    detector = Detector(model(), half=precision == "fp16")
    graph = export.trace(detector)
    if precision == "int8":
        graph = export.quantised(graph, [picture()])
    path.write_bytes(export.stamped(graph, {"precision": precision}))
    images = [picture()]
    found = export.parity(model(), path, images, score_threshold=0.0, threads=1)
    least = {"fp32": 0.98, "fp16": 0.9, "int8": 0.5}[precision]
    assert found["matched"] >= least * found["torch"] > 0
    assert found["mask_mean"] < {"fp32": 1e-4, "fp16": 5e-3, "int8": 0.1}[precision]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    batch = images[0][None, None]
    return lambda: len(session.run(["boxes", "masks"], {"image": batch})[0])


@pytest.mark.parametrize("way", ["torch", "fp32", "int8"])
def test_one_slice(benchmark: BenchmarkFixture, tmp_path: Path, way: str) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run = in_torch() if way == "torch" else in_onnx_runtime(tmp_path / "a.onnx", way)
        benchmark.extra_info |= {"voxels": picture().size, "detections": run()}
        assert benchmark(run) > 0
    finally:
        torch.set_num_threads(threads)
