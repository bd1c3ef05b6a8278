"""The backends that every contract suite runs on: one name each, one namespace of public functions each.

`reference` is the oracle, `cpu` what users call with NumPy arrays, `cuda` the same functions on CuPy arrays, skipped
where there is no GPU. `host-*` are the GPU kernels built for the CPU (see `tests.host_cuda`), in each of three orders
of blocks and threads: the public functions again, told that their NumPy arrays lie on such a device.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from tests.host_cuda import COMPILER, ORDERS, HostDevice

ON_GPU = {
    "components": ("label", "label_slabs"),
    "contacts": ("contact_areas", "merge_contacts"),
    "eikonal": ("travel_time", "trace_paths"),
    "masks": ("paste_masks",),
    "overlaps": ("overlap_counts", "overlap_counts_stack", "overlap_cost"),
    "regions": ("region_properties", "merge_regions"),
}
"""The operations, and their functions, that have a GPU version. The tests of others skip the GPU's backends."""

BACKENDS = ("reference", "cpu")
GPU_BACKENDS = (*(f"host-{order}" for order in ORDERS), "cuda")
LARGEST_ON_HOST = 32**3
"""The largest array that the host-built kernels are given."""


def load(operation: str, backend: str) -> Any:
    """The public functions of an operation on a backend."""
    if backend == "reference":
        return importlib.import_module(f"voxkernels.{operation}.reference")
    module = importlib.import_module(f"voxkernels.{operation}")
    if backend == "cpu":
        return module
    wrap = _on_cuda if backend == "cuda" else _on_host
    return SimpleNamespace(**{name: wrap(module, name, backend) for name in ON_GPU[operation]})


def backend_fixture(operation: str) -> Callable[..., ModuleType]:
    """A fixture for one contract suite: its functions, once for each backend."""

    @pytest.fixture(params=BACKENDS + (GPU_BACKENDS if operation in ON_GPU else ()), scope="module")
    def backend(request: pytest.FixtureRequest) -> ModuleType:
        if request.param == "cuda":
            skip_without_gpu()
        elif request.param.startswith("host") and not COMPILER:
            pytest.skip("the kernels of the GPU are built for the CPU with g++, which is not here")
        return load(operation, request.param)

    return backend


def skip_without_gpu() -> None:
    """Skip the test where there is no GPU that CuPy can use, saying what is missing."""
    from voxkernels._compile import cuda_device

    try:
        cuda_device()
    except RuntimeError as error:
        pytest.skip(f"no GPU: {error}")


def _on_host(module: ModuleType, name: str, backend: str) -> Callable[..., Any]:
    device = HostDevice(backend.removeprefix("host-"))

    def function(*arguments: Any, **options: Any) -> Any:
        for value in arguments:
            if isinstance(value, np.ndarray) and value.size > LARGEST_ON_HOST:
                pytest.skip(f"host-built kernels are given arrays of up to {LARGEST_ON_HOST} elements")
        with mock.patch.object(module, "device_of", return_value=device):
            result = getattr(module, name)(*arguments, **options)
            if isinstance(result, tuple) and isinstance(result[0], Iterator):
                result = iter(list(result[0])), *result[1:]  # computed now, on the device
            return result

    return function


def _on_cuda(module: ModuleType, name: str, backend: str) -> Callable[..., Any]:
    import cupy

    def function(*arguments: Any, **options: Any) -> Any:
        sent: dict[int, Any] = {}

        def send(array: np.ndarray) -> Any:
            """What is one array here is one there."""
            if id(array) not in sent:
                sent[id(array)] = cupy.asarray(array.astype(array.dtype.newbyteorder("="), copy=False))
            return sent[id(array)]

        def fetch(array: Any) -> np.ndarray:
            assert isinstance(array, cupy.ndarray), "CuPy in, CuPy out"
            return cupy.asnumpy(array)

        given = options.get("out")
        moved = [_each_array(value, np.ndarray, send) for value in arguments]
        options = {key: _each_array(value, np.ndarray, send) for key, value in options.items()}
        result = getattr(module, name)(*moved, **options)
        if given is not None and result is options["out"]:  # filled and returned
            given[...] = fetch(result)
            return given
        return _each_array(result, (np.ndarray, cupy.ndarray), fetch)

    return function


def _each_array(value: Any, kind: Any, change: Callable[[Any], Any]) -> Any:
    """The same value with every array in it changed."""
    if isinstance(value, kind):
        return change(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _each_array(getattr(value, f.name), kind, change) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    if isinstance(value, Iterator):
        return (_each_array(item, kind, change) for item in value)
    if isinstance(value, list | tuple):
        return type(value)(_each_array(item, kind, change) for item in value)
    return value
