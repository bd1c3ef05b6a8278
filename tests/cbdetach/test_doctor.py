"""What the doctor says of this installation, and of one that lacks something."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from tests.cbdetach.tiny_onnx import METADATA, blobs
from tests.host_cuda.pretend_cupy import pretended

import cbdetach
import voxkernels as vk
from cbdetach import doctor
from cbdetach.segment import runtime


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """What it says, by the part before the colon."""
    lines = doctor.examine().splitlines()
    return {"first": lines[0], "cache": lines[4]} | {line.partition(": ")[0]: line.partition(": ")[2] for line in lines}


def test_versions(said: dict[str, str]) -> None:
    assert said["first"].startswith(f"cbdetach {cbdetach.__version__}, Python {sys.version_info.major}.")
    assert f"numpy {np.__version__}" in said["libraries"]
    for name in ("numba", "scipy", "scikit-image", "h5py", "tifffile", "zarr", "pandas", "matplotlib", "pydantic"):
        assert f"{name} " in said["libraries"]
        assert f"{name} missing" not in said["libraries"]


def test_a_library_that_is_not_there_is_missing() -> None:
    assert doctor._version("a-library-that-nobody-has-written") == "missing"


def test_threads_and_memory(said: dict[str, str]) -> None:
    assert any(layer in said["processors"] for layer in ("omp", "tbb", "workqueue"))
    assert "kernels use" in said["processors"]
    assert float(said["memory free"].removesuffix(" GB")) > 0


def test_memory_may_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "available_memory", lambda: None)
    assert doctor._memory() == "unknown"


def test_the_cache(monkeypatch: pytest.MonkeyPatch, said: dict[str, str]) -> None:
    from voxkernels import _compile

    assert said["cache"].startswith("compiled kernels are ")
    monkeypatch.setattr(_compile, "CACHE", True)
    assert doctor._cache() == "kept on disk"
    monkeypatch.setattr(_compile, "CACHE", False)
    assert doctor._cache() == "not kept (VOXKERNELS_CACHE=0): every process compiles them again"


# ---- inference and GPU -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("why", "said"),
    [
        (
            {"cuda": "no wheel.", "tensorrt": "none."},
            "CPUExecutionProvider; not cuda: no wheel; TensorRT: none",
        ),
        ({"tensorrt": "libnvinfer is missing."}, "CUDAExecutionProvider; TensorRT: libnvinfer is missing"),
        ({}, "CUDAExecutionProvider; TensorRT: can be asked for, but is not faster for this network"),
        ({"cuda": "no wheel.", "cpu": "no processor."}, "no processor."),
    ],
)
def test_the_provider_is_named_and_why_none_is_faster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, why: dict[str, str], said: str
) -> None:
    monkeypatch.setattr(runtime, "why_not", lambda name: why.get(name, ""))
    monkeypatch.setattr(runtime, "shipped_model", lambda: tmp_path / "none.onnx")
    assert doctor._providers() == said


def test_a_gpu_that_does_not_start_with_the_model_is_not_promised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "particles.onnx"
    path.write_bytes(blobs())
    monkeypatch.setattr(runtime, "shipped_model", lambda: path)
    monkeypatch.setattr(runtime, "why_not", lambda name: "")
    monkeypatch.setattr(runtime, "_on_gpu", lambda *args: (args[-1], "there is no device."))
    assert doctor._providers().startswith("CPUExecutionProvider; not cuda: there is no device; TensorRT: ")


def test_this_installation_says_why_not_cuda(said: dict[str, str]) -> None:
    assert said["inference"].startswith(("CUDAExecutionProvider; ", "CPUExecutionProvider; not cuda: "))
    assert "TensorRT: " in said["inference"]


def test_without_onnxruntime_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert doctor._providers() == "onnxruntime is missing: pip install 'cbdetach[cpu]'"


def test_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "particles.onnx"
    monkeypatch.setattr(runtime, "shipped_model", lambda: path)
    assert doctor._model() == "none in this copy of cbdetach; give one with --model"
    path.write_bytes(blobs(metadata={**METADATA, "version": "1.2.3", "precision": "int8"}))
    assert doctor._model() == "particles.onnx of version 1.2.3, int8, 0.0 MB; its check sum is right"
    path.write_bytes(blobs().replace(b"fp32", b"fp16"))
    assert doctor._model().startswith("WRONG: model: particles.onnx is damaged or was altered")


def test_gpu(monkeypatch: pytest.MonkeyPatch, said: dict[str, str]) -> None:
    assert "GPU" in said
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert doctor._gpu().startswith("none for --device cuda ('cuda' must find CuPy; got ")
    assert doctor._gpu().endswith("or use the CPU)")
    with pretended(free=3 * 10**9) as cupy:
        assert doctor._gpu() == (
            "no GPU (kernels built for the host), 3.0 GB free (CUDA 13.0, driver for CUDA 13.0, CuPy 0.0 (pretended)); "
            "--device cuda runs all kernels there"
        )
        cupy.cuda.runtime.driverGetVersion = lambda: 11080
        assert "must find an NVIDIA driver for CUDA 12 or later; got one for CUDA 11.8" in doctor._gpu()


# ---- the kernel's answer ---------------------------------------------------------------------------------------------


def test_the_kernel_is_right_here(said: dict[str, str]) -> None:
    assert said["kernels"] == "a plane wave arrives in time"


def test_a_wrong_kernel_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vk, "travel_time", lambda domain, sources: np.full(domain.shape, 2.0))
    assert doctor._kernel().startswith("WRONG: a plane wave arrives at [2. 2.")
