"""How kernels are compiled, on the CPU and on the GPU: one policy each, in one place.

`jit` is `numba.njit` with the policy of this toolkit:

- the GIL is released, so that kernels run beside one another in threads;
- IEEE arithmetic: no fast-math, so that nan and inf mean what they say and results do not depend on vector width;
- division by zero gives inf instead of an exception branch in the inner loop (`error_model="numpy"`);
- lazy: importing compiles nothing. The first call with a type compiles, `voxkernels.warmup()` compiles everything;
- compiled code is kept on disk unless `VOXKERNELS_CACHE=0`, beside the sources or where Numba finds a place
  (`NUMBA_CACHE_DIR`). Several processes may compile at once, see `_SafeCache`;
- a kernel with `parallel=True` may be called from several threads at once, see `ParallelKernel`;
- nothing runs uncompiled (NUMBA_DISABLE_JIT): kernels are made of machine words and intrinsics.

`Cuda` is a GPU as the `cuda.py` files see it: arrays, kernels compiled from the `.cu` file beside them, launches. CuPy
implements it and is imported only by who asks for a device or has made a CuPy array; `import voxkernels` never does.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba.core.caching import FunctionCache, IndexDataCacheFile

CACHE: bool = os.environ.get("VOXKERNELS_CACHE", "1") != "0"
"""Whether compiled kernels are kept on disk (environment variable VOXKERNELS_CACHE, read at import)."""


def jit(
    function: Callable[..., Any] | None = None, *, parallel: bool = False, around: bool = False, inline: bool = False
) -> Any:
    """Compile a kernel lazily under the toolkit's policy.

    With `parallel`, `numba.prange` loops use all threads and the kernel is for Python to call, not for other kernels.
    With `around`, the kernel calls the `dispatcher` of a parallel one, and is for Python to call, too.
    With `inline`, the function's code is put in place of its calls before types are inferred.
    """

    def decorate(kernel: Callable[..., Any]) -> Any:
        if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
            return _uncompiled(kernel)
        dispatcher: Any = numba.njit(
            nogil=True,
            parallel=parallel,
            error_model="numpy",
            fastmath=False,
            inline="always" if inline else "never",
        )(kernel)
        if CACHE:
            with contextlib.suppress(RuntimeError):  # no folder can be written to: compile in every process
                dispatcher._cache = _SafeCache(kernel)
        return ParallelKernel(dispatcher) if parallel or around else dispatcher

    return decorate if function is None else decorate(function)


def _uncompiled(kernel: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(kernel)
    def refuse(*_: Any) -> None:
        raise RuntimeError(
            "NUMBA_DISABLE_JIT: must not be set where kernels run; got 1. Step through the operation's reference.py."
        )

    refuse.dispatcher = refuse  # type: ignore[attr-defined]
    return refuse


class ParallelKernel:
    """A kernel that runs in Numba's threads. Callers in different threads take turns where those threads demand it.

    Of Numba's threading layers, `workqueue` ends the process when two threads call at once; `tbb` and `omp` do not.
    `omp` ends a process that was forked after its threads started: such a call is refused.
    `dispatcher` is the function as Numba compiled it.
    """

    def __init__(self, dispatcher: Any) -> None:
        self.dispatcher = dispatcher
        functools.update_wrapper(self, dispatcher)

    def __call__(self, *args: Any) -> Any:
        layer, process = _threading_layer()
        if layer == "workqueue":
            with _one_caller:
                return self.dispatcher(*args)
        if layer == "omp" and process != os.getpid():
            raise RuntimeError(
                "process: must be spawned, not forked, after a kernel has run; got a fork, which GNU OpenMP would end. "
                "Use multiprocessing.get_context('spawn'), or set NUMBA_THREADING_LAYER=workqueue."
            )
        return self.dispatcher(*args)


_one_caller = threading.RLock()


@functools.cache
def _threading_layer() -> tuple[str, int]:
    """Numba's threading layer, and the process that started its threads."""
    numba.get_num_threads()  # starts the threads: only then is the layer known
    return str(numba.threading_layer()), os.getpid()  # type: ignore[attr-defined]


_ir: Any = numba.core.cgutils.ir  # type: ignore[attr-defined]  # LLVM, as Numba itself writes it


def has_avx2_alone(context: Any) -> bool:
    """Whether the processor that Numba compiles for (its `context`) has AVX2, but not the masks of AVX-512."""
    features = context.codegen().magic_tuple()[2].split(",")
    return "+avx2" in features and "+avx512bw" not in features


def where_equal(context: Any, builder: Any, one: Any, two: Any) -> Any:
    """LLVM for a word whose bits are where two vectors of 64 integers are equal; for use in an intrinsic of a kernel.

    With AVX2 alone LLVM would put 32-bit elements back in order each time it halves their width, by six permutations.
    Here each half of them is put in order once, at the end.
    """
    lane, word = _ir.IntType(32), _ir.IntType(64)
    equal = builder.icmp_signed("==", one, two)
    if one.type.element != lane or not has_avx2_alone(context):
        return builder.bitcast(equal, word)
    numbers, shorts, chars = (_ir.VectorType(_ir.IntType(256 // n), n) for n in (8, 16, 32))

    def chosen(vector: Any, places: Any) -> Any:
        listed = list(places)
        return builder.shuffle_vector(vector, vector, _ir.Constant(_ir.VectorType(lane, len(listed)), listed))

    def packed(instruction: str, kind: Any, parts: Any) -> Any:
        shape, name = _ir.FunctionType(kind, [part.type for part in parts]), f"llvm.x86.avx2.{instruction}"
        return builder.call(numba.core.cgutils.get_or_insert_function(builder.module, shape, name), parts)

    every, halves = builder.sext(equal, _ir.VectorType(lane, 64)), []
    for first in (0, 32):
        parts = [chosen(every, range(k, k + 8)) for k in range(first, first + 32, 8)]
        pairs = [packed("packssdw", shorts, parts[k : k + 2]) for k in (0, 2)]
        mixed = builder.bitcast(packed("packsswb", chars, pairs), numbers)  # fours of the parts: 0 2 4 6 1 3 5 7
        bits = builder.icmp_signed("<", builder.bitcast(chosen(mixed, (0, 4, 1, 5, 2, 6, 3, 7)), chars), chars(None))
        halves.append(builder.zext(builder.bitcast(bits, lane), word))
    return builder.or_(halves[0], builder.shl(halves[1], word(32)))


class _SafeCache(FunctionCache):
    """Numba's disk cache, made safe for processes that compile at the same moment, and never in the way.

    Numba (to 0.68) names data files 1, 2, 3 and writes the index before the data, without a lock. Two processes that
    save two signatures together can both take the number 1; the index is then wrong, and stays so, for every process
    to come. Saving here happens under a file lock, data before index, and the name of a data file says what is in it,
    so that an index can only be behind, never wrong. What cannot be read is compiled again; what cannot be saved (a
    full disk) is not. Numba compiles again when the kernel's own file is newer or of another size; here, when the
    content of any file beside it changes, or of this one, since kernels call one another across the files of their
    folder. So the same version installed again compiles nothing.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file: _LockedFiles
        folder = os.path.dirname(function.__code__.co_filename)
        self._cache_file = _LockedFiles(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=_sources(folder) or self._impl.locator.get_source_stamp(),
        )

    @property
    def holds_something(self) -> bool:
        """Whether there is code of the files as they are."""
        return bool(self._cache_file._readable_index())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever unpickling a damaged file raises
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)


def kept(kernel: Any) -> bool:
    """Whether compiled code of a kernel, from its files as they are, is on the disk already."""
    cache = getattr(getattr(kernel, "dispatcher", kernel), "_cache", None)
    return isinstance(cache, _SafeCache) and cache.holds_something


@functools.cache
def _sources(folder: str) -> str:
    """What tells one content of the Python files of a folder, and of this file, from another; "" in a zip file."""
    digest = hashlib.sha256()
    try:
        beside = sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".py"))
        for path in (__file__, *beside):
            with open(path, "rb") as file:
                digest.update(hashlib.sha256(file.read()).digest())
    except OSError:  # a zip file, of which Numba tells one state from another
        return ""
    return digest.hexdigest()


class _LockedFiles(IndexDataCacheFile):
    """The index and data files of one kernel."""

    def save(self, key: Any, data: Any) -> None:
        content = hashlib.sha256(repr((self._source_stamp, key)).encode()).hexdigest()
        data_name = self._data_name(int(content[:15], 16))
        with _locked(self._index_path + ".lock"):
            overloads = self._readable_index()
            self._save_data(data_name, data)
            self._save_index({**overloads, key: data_name})

    def _readable_index(self) -> dict[Any, str]:
        try:
            return dict(self._load_index())
        except Exception:  # damaged: begin anew
            return {}


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold a file lock; the system releases it when the file is closed or the process dies."""
    with open(path, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


MIN_CUDA = 12000
"""The oldest CUDA version (major * 1000 + minor * 10) that the driver must know."""


class Cuda:
    """One GPU, by CuPy: the small interface on which all `cuda.py` files are written.

    Arrays have the attributes that NumPy's and CuPy's share (shape, size, dtype, nbytes, reshape, view); all else about
    them goes through a kernel or through `fetch`. Launches follow one another on the current stream, in order; only
    `fetch` waits for the device. In the tests another class with these methods runs the same files on NumPy arrays.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._cupy = sys.modules["cupy"]
        self.array_type: type = self._cupy.ndarray

    def reserve(self, what: str, n_bytes: int) -> None:
        """Raise MemoryError, in the name of `what`, where the device has not so many bytes to give."""
        with self._cupy.cuda.Device(self.number):
            free = self._cupy.get_default_memory_pool().free_bytes()
            if n_bytes > free:  # the driver takes long to say what else there is
                free += self._cupy.cuda.runtime.memGetInfo()[0]
        if n_bytes > free:
            raise out_of_memory(what, n_bytes, free)

    def empty(self, shape: Any, dtype: Any) -> Any:
        """A new array in C order, of any content."""
        with self._cupy.cuda.Device(self.number):
            return self._cupy.empty(shape, dtype)

    def zeros(self, shape: Any, dtype: Any) -> Any:
        """A new array in C order, of zeros."""
        with self._cupy.cuda.Device(self.number):
            return self._cupy.zeros(shape, dtype)

    def send(self, array: npt.NDArray[Any]) -> Any:
        """A copy of a host array on the device."""
        with self._cupy.cuda.Device(self.number):
            return self._cupy.asarray(array)

    def fetch(self, array: Any) -> npt.NDArray[Any]:
        """A copy of a device array on the host, once all launches so far are done."""
        with self._cupy.cuda.Device(self.number):
            return np.asarray(array.get())

    def argsort(self, keys: Any) -> Any:
        """What indices put a list (N,) of the device in ascending order, equal ones as they were: (N,) int64 on it."""
        with self._cupy.cuda.Device(self.number):
            return self._cupy.argsort(keys)

    def kernel(self, source: Path, name: str, traits: Mapping[str, Any] | None = None) -> Any:
        """The kernel `name` of a `.cu` file, compiled with `traits` as #defines; compiled once."""
        return _cuda_kernel(self._cupy, source, name, tuple(sorted((traits or {}).items())), self.number)

    def launch(self, kernel: Any, blocks: Any, threads: Any, arguments: tuple[Any, ...], shared: int = 0) -> None:
        """Start `blocks` of `threads` threads, each one number or up to three (x, y, z).

        Arguments are arrays and NumPy scalars of the types that the kernel declares; `shared`: bytes of dynamic memory.
        """
        grid, block = ((n,) if isinstance(n, int) else tuple(n) for n in (blocks, threads))
        with self._cupy.cuda.Device(self.number):
            kernel(grid, block, arguments, shared_mem=shared)


@functools.cache
def _cuda_kernel(cupy: Any, source: Path, name: str, traits: tuple[tuple[str, Any], ...], number: int) -> Any:
    """A kernel of a module: looked up once, since CuPy looks for the compiled code again each time."""
    return _cuda_module(cupy, source, traits, number).get_function(name)


@functools.cache
def _cuda_module(cupy: Any, source: Path, traits: tuple[tuple[str, Any], ...], number: int) -> Any:
    """A `.cu` file compiled by NVRTC for one device. CuPy keeps what it compiles on disk, by code, options and GPU."""
    defines = tuple(f"-D{name}={value}" for name, value in traits)
    with cupy.cuda.Device(number):
        return cupy.RawModule(code=source.read_text(), options=("-std=c++17", *defines))


def cuda_device(number: int | None = None) -> Cuda:
    """The GPU `number`, by default CuPy's current one; RuntimeError, in one sentence, where there is none to be had."""
    try:
        import cupy
    except ImportError as error:
        raise RuntimeError(
            f"device: 'cuda' must find CuPy; got {error}. Install cupy-cuda13x (or cupy-cuda12x), or use the CPU."
        ) from error
    try:
        known, count = cupy.cuda.runtime.driverGetVersion(), 0
        if known >= MIN_CUDA:
            count = cupy.cuda.runtime.getDeviceCount()
            number = cupy.cuda.Device().id if number is None else number
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise RuntimeError(f"device: 'cuda' must find a GPU; got {error}. Use the CPU here.") from error
    if known < MIN_CUDA:
        have = f"one for CUDA {known // 1000}.{known % 1000 // 10}" if known else "none"
        raise RuntimeError(
            f"device: 'cuda' must find an NVIDIA driver for CUDA {MIN_CUDA // 1000} or later; got {have}. "
            "Update the driver, or use the CPU."
        )
    if number is None or not 0 <= number < count:
        raise RuntimeError(
            f"device: must be one of the {count} GPUs here, from 0; got {number}. Use the CPU otherwise."
        )
    return Cuda(number)


def out_of_memory(what: str, n_bytes: int, free: int) -> MemoryError:
    """What to raise where a kernel would need more memory than the device has to give."""
    return MemoryError(
        f"{what}: needs {n_bytes / 2**30:.3g} GiB on the device; {free / 2**30:.3g} GiB are free. "
        "Give it smaller parts, such as slabs, or NumPy arrays."
    )
