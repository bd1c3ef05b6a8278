"""Where the kernels of a run work: on the processors, or on a GPU.

Stages are functions on NumPy arrays. They call the kernels by this module, which has the names of `voxkernels`: inside
`on(gpu)` a call sends its arrays, computes on the GPU and fetches the result; elsewhere it is the kernel's own.
So the line between host and device runs around the kernels: what stages do beside them (distances, sorting, NumPy's
arithmetic) takes some 0.1 us for each voxel, the 10 to 30 bytes of a voxel's transfers a hundredth of that.

Transfers are overlapped. `worked` has two slabs in hand at once, each in a thread of its own, and every thread has a
stream of its own: one slab is read, sent, fetched and written while the other is computed. CuPy sends through pinned
memory, and no thread waits for its arrays to arrive. CuPy is imported when a GPU is asked for, and never before.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

import voxkernels as vk
from cbdetach.errors import InputError, ResumableError

Array = npt.NDArray[Any]
Function = TypeVar("Function", bound=Callable[..., Any])
Item = TypeVar("Item")
Result = TypeVar("Result")

DEVICES = ("cpu", "cuda")
"""What `--device` takes."""

AT_ONCE = 2
"""Slabs that are in hand at once where a GPU computes."""


def checked_threads(n: int | None) -> int:
    """`n`, as many as there may be for None; an InputError where there cannot be so many."""
    import numba

    most = int(getattr(numba.config, "NUMBA_NUM_THREADS"))  # noqa: B009
    if n is not None and not 1 <= n <= most:
        raise InputError(f"--threads: must be 1 to {most} on this machine; got {n}.")
    return n or most


@contextmanager
def threads(n: int | None, *, at_most: bool = False) -> Iterator[None]:
    """Let the kernels of the processors use `n` threads (None: all); if `at_most`, as many of these as there may be."""
    import numba

    before = numba.get_num_threads()
    numba.set_num_threads(checked_threads(min(n, checked_threads(None)) if at_most and n is not None else n))
    try:
        yield
    finally:
        numba.set_num_threads(before)


def compiled() -> bool:
    """Whether the kernels' compiled code is on the disk, as that of the one which takes the longest tells."""
    from voxkernels._compile import kept
    from voxkernels.eikonal.cpu import solve

    return kept(solve)


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
        """What a kernel returns for NumPy arrays, computed on the device; its result as NumPy arrays.

        Raises ResumableError where the device's memory does not do.
        """
        with self.stream():
            try:
                return self.fetch(function(*self.send(arguments), **self.send(options)))
            except MemoryError as error:  # as the kernels say it, or as CuPy does
                said = str(error).partition(". ")[0]
                raise ResumableError(
                    f"--device: cuda has too little memory ({said}); free some and continue with --resume, or start "
                    "again with --overwrite and thinner slabs (--slab) or --device cpu."
                ) from None

    def copy(self, source: Any, target: Any) -> None:
        """Copy one array of the device to another of its shape and type, on the current stream."""
        self._cupy.copyto(target, source)

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


# ---- where kernels work ----------------------------------------------------------------------------------------------

_current: ContextVar[Gpu | None] = ContextVar("_current", default=None)


@contextmanager
def on(gpu: Gpu | None) -> Iterator[None]:
    """Inside this, the kernels below compute on a GPU; with None, on the processors."""
    before = _current.set(gpu)
    try:
        yield
    finally:
        _current.reset(before)


def _placed(kernel: Function) -> Function:
    """A kernel that computes where `on` says."""

    @functools.wraps(kernel)
    def call(*arguments: Any, **options: Any) -> Any:
        gpu = _current.get()
        return kernel(*arguments, **options) if gpu is None else gpu.call(kernel, *arguments, **options)

    return cast(Function, call)


contact_areas = _placed(vk.contact_areas)
label = _placed(vk.label)
overlap_counts = _placed(vk.overlap_counts)
overlap_counts_stack = _placed(vk.overlap_counts_stack)
paste_masks = _placed(vk.paste_masks)
region_properties = _placed(vk.region_properties)
trace_paths = _placed(vk.trace_paths)
travel_time = _placed(vk.travel_time)


KERNELS = (
    *("contact_areas", "label", "label_slabs", "overlap_counts", "overlap_counts_stack"),
    *("paste_masks", "region_properties", "trace_paths", "travel_time"),
)
"""The kernels that stages call by this module."""


def label_slabs(slabs: Iterable[Array], *, connectivity: int = 26) -> tuple[Iterator[Array], int]:
    """`voxkernels.label_slabs`, on the GPU slab by slab."""
    gpu = _current.get()
    if gpu is None:
        return vk.label_slabs(slabs, connectivity=connectivity)
    with gpu.stream():
        labels, n = vk.label_slabs(_Sent(gpu, slabs), connectivity=connectivity)
    return _fetched(gpu, labels), n


class _Sent:
    """Slabs that are sent whenever somebody goes through them."""

    def __init__(self, gpu: Gpu, slabs: Iterable[Array]) -> None:
        self.gpu, self.slabs = gpu, slabs

    def __iter__(self) -> Iterator[Any]:
        return map(self.gpu.send, self.slabs)


def _fetched(gpu: Gpu, slabs: Iterator[Any]) -> Iterator[Array]:
    while True:
        with gpu.stream():  # computed, too, when it is asked for
            slab = next(slabs, None)
        if slab is None:
            return
        yield gpu.fetch(slab)


def worked(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The results of `work`, in order. On a GPU the next item is in hand while one is computed."""
    if _current.get() is None:
        yield from map(work, items)
        return
    import numba

    n_threads = numba.get_num_threads()

    def beside(item: Item) -> Result:
        numba.set_num_threads(n_threads)  # each thread has a number of its own
        return work(item)

    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for item in items:
                pending.append(pool.submit(copy_context().run, beside, item))
                if len(pending) == AT_ONCE:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


# ---- helpers ---------------------------------------------------------------------------------------------------------


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
