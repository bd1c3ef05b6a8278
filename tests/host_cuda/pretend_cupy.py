"""A module `cupy` without a GPU: its arrays lie on the host, its kernels are built for the host.

It has what the toolkit and the pipeline use of CuPy, no more, and is as strict: an array of the device is no NumPy
array, does not become one by itself, and does not mix with one. So code that is right here passes CuPy arrays where
CuPy arrays are due. Times and free memory are made up.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from tests.host_cuda import HostDevice

import voxkernels

_one_launch = threading.Lock()  # the harness has one set of fibres

launched: set[tuple[str, str]] = set()
"""Every kernel that has run, with its operation."""

SOURCES = {path.read_text(): path for path in Path(voxkernels.__file__).parent.glob("*/*.cu")}


class ndarray(NDArrayOperatorsMixin):
    """An array of the device."""

    def __init__(self, host: np.ndarray) -> None:
        self._host = np.asarray(host)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_host":
            raise AttributeError(name)
        value = getattr(self._host, name)
        return _method(value) if callable(value) else _wrapped(value)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if any(isinstance(x, np.ndarray) and x.ndim for x in inputs):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        return _wrapped(getattr(ufunc, method)(*map(_host, inputs), **{k: _host(v) for k, v in options.items()}))

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        if function is not np.may_share_memory:  # the one that the toolkit leaves to CuPy
            return NotImplemented
        if not all(isinstance(array, ndarray) for array in arguments):
            raise TypeError("Argument 'b' has incorrect type (expected cupy.ndarray, got numpy.ndarray)")
        return function(*map(_host, arguments), **options)

    def __getitem__(self, index: Any) -> Any:
        return _wrapped(self._host[_host(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self._host[_host(index)] = _host(value)

    def __len__(self) -> int:
        return len(self._host)

    def __bool__(self) -> bool:
        return bool(self._host)

    def __int__(self) -> int:
        return int(self._host)

    def __float__(self) -> float:
        return float(self._host)

    @property
    def device(self) -> Any:
        """Where it lies."""
        return _Device(0)

    def get(self) -> np.ndarray:
        """A copy on the host."""
        return self._host.copy()


ndarray.__module__ = "cupy"


def _wrapped(value: Any) -> Any:
    return ndarray(value) if isinstance(value, np.ndarray | np.generic) else value


def _host(value: Any) -> Any:
    if isinstance(value, ndarray):
        return value._host
    return tuple(map(_host, value)) if isinstance(value, tuple) else value


def _method(function: Any) -> Any:
    return lambda *a, **k: _wrapped(function(*map(_host, a), **{name: _host(v) for name, v in k.items()}))


class _Device:
    def __init__(self, number: int | None = None) -> None:
        self.id = number or 0

    def __enter__(self) -> _Device:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _Stream:
    made = 0

    def __init__(self, non_blocking: bool = False) -> None:
        assert non_blocking
        _Stream.made += 1

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def synchronize(self) -> None:
        """Nothing is ever pending."""


class _Event:
    def record(self, stream: Any) -> None:
        """Now."""
        self.time = time.perf_counter()

    def synchronize(self) -> None:
        """It has passed."""


class CUDARuntimeError(RuntimeError):
    """What CUDA says."""


class _RawModule:
    def __init__(self, code: str, options: tuple[str, ...]) -> None:
        self.source = SOURCES[code]
        self.traits = dict(option[2:].split("=") for option in options if option.startswith("-D"))

    def get_function(self, name: str) -> Any:
        """One kernel, to be called as CuPy's are."""

        def launch(grid: Any, block: Any, arguments: Any, shared_mem: int = 0) -> None:
            launched.add((self.source.stem, name))
            assert not any(isinstance(a, np.ndarray) for a in arguments), f"{name} is given an array of the host"
            with _one_launch:
                host.launch(kernel, grid, block, tuple(map(_host, arguments)), shared_mem)

        host = HostDevice()
        kernel = host.kernel(self.source, name, self.traits)
        launch.name = name  # type: ignore[attr-defined]
        return launch


def module(free: int = 2**34) -> Any:
    """The module, of a machine with one GPU that has `free` bytes to give."""

    def made(function: Any) -> Any:
        return lambda shape, dtype=float: ndarray(function(shape, dtype))

    def asnumpy(array: Any) -> np.ndarray:
        assert isinstance(array, ndarray)
        return array.get()

    cupy: Any = ModuleType("cupy")
    cupy.__version__ = "0.0 (pretended)"
    cupy.ndarray, cupy.asnumpy, cupy.RawModule = ndarray, asnumpy, _RawModule
    cupy.asarray = lambda array: array if isinstance(array, ndarray) else ndarray(np.array(array))
    cupy.empty, cupy.zeros = made(HostDevice().empty), made(np.zeros)
    cupy.argsort = lambda array: ndarray(np.argsort(_host(array), kind="stable"))
    cupy.copyto = lambda to, array: np.copyto(_host(to), _host(array))
    cupy.get_default_memory_pool = lambda: SimpleNamespace(free_bytes=lambda: 0, free_all_blocks=lambda: None)
    cupy.cuda = SimpleNamespace(
        Device=_Device,
        Stream=_Stream,
        Event=_Event,
        get_elapsed_time=lambda start, end: 1000 * (end.time - start.time),
        runtime=SimpleNamespace(
            memGetInfo=lambda: (free, 2 * free),
            driverGetVersion=lambda: 13000,
            runtimeGetVersion=lambda: 13000,
            getDeviceCount=lambda: 1,
            getDeviceProperties=lambda number: {"name": b"no GPU (kernels built for the host)"},
            CUDARuntimeError=CUDARuntimeError,
        ),
    )
    return cupy


@contextmanager
def pretended(free: int = 2**34) -> Iterator[Any]:
    """Inside this, `import cupy` gives the module."""
    from voxkernels import _compile

    cupy, before = module(free), sys.modules.get("cupy")
    compiled = functools.cache(_compile._cuda_module.__wrapped__)
    sys.modules["cupy"] = cupy
    try:
        with mock.patch.object(_compile, "_cuda_module", compiled):
            yield cupy
    finally:
        del sys.modules["cupy"]
        if before is not None:
            sys.modules["cupy"] = before
