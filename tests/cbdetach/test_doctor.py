"""What the doctor says of this installation, and of one that lacks something."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import cbdetach
import voxkernels as vk
from cbdetach import doctor


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
    ("providers", "best"),
    [
        (["AzureExecutionProvider", "CPUExecutionProvider"], "CPUExecutionProvider; no GPU provider in this wheel"),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], "CUDAExecutionProvider"),
        (["CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"], "TensorrtExecutionProvider"),
        (["AzureExecutionProvider"], "none of TensorrtExecutionProvider, CUDAExecutionProvider, CPUExecutionProvider"),
    ],
)
def test_the_fastest_provider_is_named(monkeypatch: pytest.MonkeyPatch, providers: list[str], best: str) -> None:
    module = SimpleNamespace(get_available_providers=lambda: providers)
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    assert doctor._providers().startswith(best)
    assert ("pip install" in doctor._providers()) == best.startswith("CPU")


def test_without_onnxruntime_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert doctor._providers() == "onnxruntime is missing: pip install 'cbdetach[cpu]'"


def test_gpu_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert doctor._gpu() == "none (CuPy is not installed: pip install 'cbdetach[gpu]')"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(name=name))
    assert doctor._gpu().startswith("CuPy ")


# ---- the kernel's answer ---------------------------------------------------------------------------------------------


def test_the_kernel_is_right_here(said: dict[str, str]) -> None:
    assert said["kernels"] == "a plane wave arrives in time"


def test_a_wrong_kernel_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vk, "travel_time", lambda domain, sources: np.full(domain.shape, 2.0))
    assert doctor._kernel().startswith("WRONG: a plane wave arrives at [2. 2.")
