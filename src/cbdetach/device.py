"""Where the kernels of a run work: on the processors, or on a GPU.

`Gpu` is one device by CuPy, which is imported when one is asked for and never before. It takes and returns NumPy
arrays: `call` sends what a kernel is given, computes, and fetches what it returns. Every thread that calls has a stream
of its own, so that one thread's transfers go on beside another's kernels; CuPy sends through pinned memory, and no
thread waits for its arrays to arrive.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from cbdetach.errors import InputError

DEVICES = ("cpu", "cuda")
"""What `--device` takes."""


@contextmanager
def threads(n: int | None) -> Iterator[None]:
    """Let the kernels of the processors use `n` threads (None: all)."""
    import numba

    most = int(getattr(numba.config, "NUMBA_NUM_THREADS"))  # noqa: B009
    if n is not None and not 1 <= n <= most:
        raise InputError(f"--threads: must be 1 to {most} on this machine; got {n}.")
    before = numba.get_num_threads()
    numba.set_num_threads(n or most)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def find(name: str) -> Gpu | None:
    """The GPU for "cuda", None for "cpu"; an `InputError`, in one sentence, where there is no GPU to be had."""
    if name not in DEVICES:
        raise InputError(f"--device: must be {' or '.join(DEVICES)}; got {name!r}.")
    return None if name == "cpu" else Gpu()


class Gpu:
    """One GPU: its arrays, its streams, and what it is called. `number` None: the one that CuPy has chosen.

    Raises
    ------
    InputError : no CuPy, no GPU, or a driver that is too old.
    """

    def __init__(self, number: int | None = None) -> None:
        from voxkernels._compile import cuda_device

        try:
            self.number = cuda_device(number).number
        except RuntimeError as error:
            raise InputError(f"--{error}") from None
        self._cupy = sys.modules["cupy"]
        self._mine = threading.local()

    @property
    def about(self) -> dict[str, str]:
        """The name of the device, and the versions of its driver, of CUDA and of CuPy."""
        runtime = self._cupy.cuda.runtime
        name = runtime.getDeviceProperties(self.number)["name"]
        return {
            "name": name.decode() if isinstance(name, bytes) else str(name),
            "driver": _cuda_version(runtime.driverGetVersion()),
            "cuda": _cuda_version(runtime.runtimeGetVersion()),
            "cupy": str(self._cupy.__version__),
        }

    @property
    def free(self) -> int:
        """Bytes of its memory that can still be used."""
        with self._cupy.cuda.Device(self.number):
            free, _ = self._cupy.cuda.runtime.memGetInfo()
            return int(free) + int(self._cupy.get_default_memory_pool().free_bytes())

    @contextmanager
    def stream(self) -> Iterator[Any]:
        """Inside this, the calling thread's own stream."""
        with self._cupy.cuda.Device(self.number):
            if not hasattr(self._mine, "stream"):
                self._mine.stream = self._cupy.cuda.Stream(non_blocking=True)
            with self._mine.stream as stream:
                yield stream

    def send(self, value: Any) -> Any:
        """A value with every NumPy array in it copied to the device; the copies need not have arrived yet."""
        with self.stream():
            return _each_array(value, np.ndarray, self._cupy.asarray)

    def fetch(self, value: Any) -> Any:
        """A value with every array of the device in it copied to the host, once the stream's kernels are done."""
        with self.stream():
            return _each_array(value, self._cupy.ndarray, self._cupy.asnumpy)

    def call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What a kernel returns for NumPy arrays, computed on the device; its result as NumPy arrays."""
        with self.stream():
            return self.fetch(function(*self.send(arguments), **self.send(options)))

    def seconds(self, function: Callable[[], Any]) -> float:
        """How long the device takes from the start to the end of what a function asks of it, by events."""
        with self.stream() as stream:
            start, end = (self._cupy.cuda.Event() for _ in range(2))
            stream.synchronize()  # nothing else in the way
            start.record(stream)
            function()
            end.record(stream)
            end.synchronize()  # the time is known once it has passed
            return float(self._cupy.cuda.get_elapsed_time(start, end)) / 1000


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _each_array(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """The same value with every array in it changed: alone, in a record, or in a list, tuple or mapping."""
    if isinstance(value, kind):
        return change(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _each_array(getattr(value, f.name), kind, change) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    if isinstance(value, dict):
        return {key: _each_array(item, kind, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_each_array(item, kind, change) for item in value)
    return value
