"""How kernels are compiled: one policy, in one place.

`jit` is `numba.njit` with the policy of this toolkit:

- the GIL is released, so that kernels run beside one another in threads;
- IEEE arithmetic: no fast-math, so that nan and inf mean what they say and results do not depend on vector width;
- division by zero gives inf instead of an exception branch in the inner loop (`error_model="numpy"`);
- lazy: importing compiles nothing. The first call with a type compiles, `voxkernels.warmup()` compiles everything;
- compiled code is kept on disk unless `VOXKERNELS_CACHE=0`, beside the sources or where Numba finds a place
  (`NUMBA_CACHE_DIR`). Several processes may compile at once, see `_SafeCache`;
- a kernel with `parallel=True` may be called from several threads at once, see `ParallelKernel`.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

CACHE: bool = os.environ.get("VOXKERNELS_CACHE", "1") != "0"
"""Whether compiled kernels are kept on disk (environment variable VOXKERNELS_CACHE, read at import)."""


def jit(function: Callable[..., Any] | None = None, *, parallel: bool = False, inline: bool = False) -> Any:
    """Compile a kernel lazily under the toolkit's policy.

    With `parallel`, `numba.prange` loops use all threads and the kernel is for Python to call, not for other kernels.
    With `inline`, the function's code is put in place of its calls before types are inferred.
    """

    def decorate(kernel: Callable[..., Any]) -> Any:
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
        return ParallelKernel(dispatcher) if parallel else dispatcher

    return decorate if function is None else decorate(function)


class ParallelKernel:
    """A kernel that runs in Numba's threads. Callers in different threads take turns where those threads demand it.

    Of Numba's threading layers, `workqueue` ends the process when two threads call at once; `tbb` and `omp` do not.
    `dispatcher` is the function as Numba compiled it.
    """

    def __init__(self, dispatcher: Any) -> None:
        self.dispatcher = dispatcher
        functools.update_wrapper(self, dispatcher)

    def __call__(self, *args: Any) -> Any:
        with _one_caller if _threading_layer() == "workqueue" else contextlib.nullcontext():
            return self.dispatcher(*args)


_one_caller = threading.RLock()


@functools.cache
def _threading_layer() -> str:
    numba.get_num_threads()  # starts the threads: only then is the layer known
    return str(numba.threading_layer())  # type: ignore[attr-defined]


class _SafeCache(FunctionCache):
    """Numba's disk cache, made safe for processes that compile at the same moment, and never in the way.

    Numba (to 0.68) names data files 1, 2, 3 and writes the index before the data, without a lock. Two processes that
    save two signatures together can both take the number 1; the index is then wrong, and stays so, for every process
    to come. Saving here happens under a file lock, data before index, and the name of a data file says what is in it,
    so that an index can only be behind, never wrong. What cannot be read is compiled again; what cannot be saved (a
    full disk) is not. Numba compiles again when the kernel's own file changes; here, when any file beside it does,
    since kernels call one another across the files of their folder.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        folder = os.path.dirname(function.__code__.co_filename)
        self._cache_file = _LockedFiles(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=(self._impl.locator.get_source_stamp(), _sources(folder)),
        )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever unpickling a damaged file raises
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)


@functools.cache
def _sources(folder: str) -> str:
    """What tells one state of the Python files of a folder from another."""
    digest = hashlib.sha256()
    with contextlib.suppress(OSError):  # inside a zip file, which does not change
        for name in sorted(os.listdir(folder)):
            if name.endswith(".py"):
                with open(os.path.join(folder, name), "rb") as file:
                    digest.update(hashlib.sha256(file.read()).digest())
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
