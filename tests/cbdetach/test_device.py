"""Where kernels run: what is said where there is no GPU, and what goes to it and comes back, on a pretended one."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest
from tests.host_cuda.pretend_cupy import CUDARuntimeError, pretended

import voxkernels as vk
from cbdetach import device
from cbdetach.errors import InputError


@pytest.fixture
def cupy() -> Iterator[Any]:
    """A module `cupy` with one GPU."""
    with pretended(free=2**20) as module:
        yield module


def test_what_there_is(cupy: Any) -> None:
    assert device.find("cpu") is None
    gpu = device.find("cuda")
    assert gpu is not None
    assert gpu.number == 0
    assert gpu.free == 2**20
    assert gpu.about == {
        "name": "no GPU (kernels built for the host)",
        "driver": "13.0",
        "cuda": "13.0",
        "cupy": "0.0 (pretended)",
    }


def test_a_device_that_there_is_not(monkeypatch: pytest.MonkeyPatch, cupy: Any) -> None:
    with pytest.raises(InputError, match=r"--device: must be cpu or cuda; got 'gpu'\."):
        device.find("gpu")
    with pytest.raises(InputError, match=r"--device: must be one of the 1 GPUs here, from 0; got 1\."):
        device.Gpu(1)
    cupy.cuda.runtime.driverGetVersion = lambda: 11080
    with pytest.raises(InputError, match=r"--device: 'cuda' must find an NVIDIA driver for CUDA 12 or later; got one "):
        device.find("cuda")

    def refuse() -> int:
        raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")

    cupy.cuda.runtime.driverGetVersion = lambda: 13000
    cupy.cuda.runtime.getDeviceCount = refuse
    with pytest.raises(InputError, match=r"--device: 'cuda' must find a GPU; got cudaErrorNoDevice.* Use the CPU here"):
        device.find("cuda")
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(InputError, match=r"--device: 'cuda' must find CuPy; got .*\. Install cupy-cuda13x"):
        device.find("cuda")
    assert device.find("cpu") is None


@dataclass(frozen=True)
class Record:
    """A result of a kernel."""

    values: Any
    name: str


def test_every_array_is_sent_and_fetched(cupy: Any) -> None:
    gpu = device.Gpu()
    host = np.arange(3)
    seen = []

    def kernel(array: Any, number: int, *, more: Any, none: Any = None) -> Any:
        seen.append((type(array), number, type(more), none))
        return Record(array, "a"), [array, {"b": more}], 5

    record, (array, named), number = gpu.call(kernel, host, 7, more=host * 2)
    assert seen == [(cupy.ndarray, 7, cupy.ndarray, None)]
    assert (record.name, number) == ("a", 5)
    for value, expected in ((record.values, [0, 1, 2]), (array, [0, 1, 2]), (named["b"], [0, 2, 4])):
        assert type(value) is np.ndarray
        assert value.tolist() == expected
    sent = gpu.send((host, "text"))
    host[:] = 9
    assert gpu.fetch(sent)[0].tolist() == [0, 1, 2]


def test_every_thread_has_a_stream_of_its_own(cupy: Any) -> None:
    gpu = device.Gpu()

    def streams() -> list[int]:
        found = []
        for _ in range(2):
            with gpu.stream() as stream:
                found.append(id(stream))
        return found

    first = streams()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(streams).result()
    assert len(set(first)) == len(set(other)) == 1
    assert first[0] != other[0]


def test_seconds_are_those_of_the_events(cupy: Any) -> None:
    clock = iter([10.0, 10.5])
    said = []
    cupy.cuda.Event = lambda: SimpleNamespace(
        record=lambda stream: said.append(next(clock)), synchronize=lambda: said.append("waited")
    )
    cupy.cuda.get_elapsed_time = lambda start, end: 1000 * (said[2] - said[0])
    assert device.Gpu().seconds(lambda: said.append("computed")) == 0.5
    assert said == [10.0, "computed", 10.5, "waited"]


def test_threads() -> None:
    before = numba.get_num_threads()
    with device.threads(1):
        assert numba.get_num_threads() == 1
        with device.threads(None):
            assert numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS
        assert numba.get_num_threads() == 1
    assert numba.get_num_threads() == before
    with pytest.raises(InputError, match=r"--threads: must be 1 to \d+ on this machine; got 0\."), device.threads(0):
        pass


def test_the_pretended_module_is_as_strict_as_cupy(cupy: Any) -> None:
    array = cupy.asarray(np.arange(4))
    with pytest.raises(TypeError, match="Implicit conversion to a NumPy array is not allowed"):
        np.asarray(array)
    with pytest.raises(TypeError, match=r"Unsupported type <class 'numpy\.ndarray'>"):
        array + np.arange(4)
    with pytest.raises(TypeError, match="no implementation found"):
        np.where(array > 1, array, 0)
    assert isinstance(array[1:] * 2, cupy.ndarray)
    assert (array + np.int64(1)).get().tolist() == [1, 2, 3, 4]
    assert int(array.max()) == 3
    assert isinstance(array.max(), cupy.ndarray)


# ---- two slabs in hand ----------------------------------------------------------------------------------------------


def test_on_the_processors_items_are_worked_one_by_one_when_asked_for() -> None:
    done: list[int] = []
    results = device.worked(lambda n: done.append(n) or 2 * n, [1, 2, 3])
    assert done == []
    assert next(results) == 2
    assert done == [1]
    assert list(results) == [4, 6]


def test_on_a_gpu_two_items_are_in_hand(cupy: Any) -> None:
    together = threading.Barrier(2, timeout=10)
    gpu = device.Gpu()
    streams, seen = [], []

    def work(n: int) -> int:
        together.wait()  # the other one is in hand, too
        with gpu.stream() as stream:
            streams.append(id(stream))
        seen.append((numba.get_num_threads(), device._current.get() is gpu))
        return n * n

    with device.on(gpu), device.threads(1):
        assert list(device.worked(work, range(4))) == [0, 1, 4, 9]
    assert len(set(streams)) == 2
    assert seen == [(1, True)] * 4
    assert device._current.get() is None


def test_what_goes_wrong_with_an_item_ends_the_work(cupy: Any) -> None:
    started = []

    def work(n: int) -> int:
        started.append(n)
        if n == 1:
            raise InputError("one")
        return n

    with device.on(device.Gpu()):
        results = device.worked(work, range(100))
        assert next(results) == 0
        with pytest.raises(InputError, match="one"):
            list(results)
    assert max(started) <= 3


def test_kernels_compute_where_on_says(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    gpu = device.Gpu()
    monkeypatch.setattr(gpu, "call", lambda kernel, *arguments, **options: calls.append((kernel, arguments, options)))
    pixels = np.ones((2, 2), np.int32)
    assert device.overlap_counts(pixels, pixels).count.tolist() == [4]
    with device.on(gpu):
        device.overlap_counts(pixels, b=pixels)
        with device.on(None):
            assert device.label(pixels[None])[1] == 1
    assert calls == [(vk.overlap_counts, (pixels,), {"b": pixels})]
    assert device.travel_time.__doc__ == vk.travel_time.__doc__
