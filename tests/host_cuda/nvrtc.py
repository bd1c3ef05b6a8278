"""What CuPy does with a `.cu` file, without CuPy and without a GPU: NVRTC, the compiler inside CUDA's run time library.

It knows less than nvcc (no header, no INFINITY), so a file that nvcc takes may fail on a user's machine. The library is
the one that a CUDA toolkit or PyTorch's wheels have brought.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Mapping
from ctypes import util
from pathlib import Path
from typing import Any


@functools.cache
def library() -> ctypes.CDLL | None:
    """NVRTC, or None where it is not installed."""
    spec = importlib.util.find_spec("nvidia")
    wheels = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    for folder in [each.parent for root in wheels for each in sorted(root.glob("*/lib/libnvrtc.so.*"))]:
        for builtins in sorted(folder.glob("libnvrtc-builtins.so.*")):
            ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)  # NVRTC looks for it by name alone
        return ctypes.CDLL(str(next(folder.glob("libnvrtc.so.*"))))
    found = util.find_library("nvrtc")
    return ctypes.CDLL(found) if found else None


def complaints(source: Path, traits: Mapping[str, Any], architecture: str) -> str:
    """What NVRTC says of a file, "" where it compiles, with the options that `voxkernels._compile` gives it."""
    nvrtc = library()
    assert nvrtc
    options = [b"-std=c++17", *(f"-D{name}={value}".encode() for name, value in traits.items())]
    options.append(f"--gpu-architecture={architecture}".encode())
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.read_bytes(), source.name.encode(), 0, None, None)
    nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return log.value.decode()
