"""How kernels are compiled: one policy, in one place.

`jit` is `numba.njit` with the policy of this toolkit:

- the GIL is released, so that kernels run beside one another in threads;
- IEEE arithmetic: no fast-math, so that nan and inf mean what they say and results do not depend on vector width;
- division by zero gives inf instead of an exception branch in the inner loop (`error_model="numpy"`);
- lazy: importing compiles nothing. The first call with a type compiles, `voxkernels.warmup()` compiles everything;
- compiled code is kept on disk unless `VOXKERNELS_CACHE=0`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numba

CACHE: bool = os.environ.get("VOXKERNELS_CACHE", "1") != "0"
"""Whether compiled kernels are kept on disk (environment variable VOXKERNELS_CACHE, read at import)."""


def jit(function: Callable[..., Any] | None = None, *, parallel: bool = False, inline: bool = False) -> Any:
    """Compile a kernel lazily under the toolkit's policy; with `parallel`, `numba.prange` loops use all threads."""

    def decorate(kernel: Callable[..., Any]) -> Any:
        return numba.njit(
            nogil=True,
            parallel=parallel,
            cache=CACHE,
            error_model="numpy",
            fastmath=False,
            inline="always" if inline else "never",
        )(kernel)

    return decorate if function is None else decorate(function)
