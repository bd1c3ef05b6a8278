"""The CUDA kernels without a GPU: `.cu` files built as host C++, behind the interface that `cuda.py` files get.

`HostDevice` stands in for `voxkernels._compile.Cuda`: its arrays are NumPy's, its kernels are functions of a shared
object that g++ has built from the `.cu` file and `host_cuda.h`. Types of arguments are compared with the kernel's, and
new arrays hold rubbish, so that what a GPU would answer with nonsense is an error or another answer here. Blocks and
threads run in one of three orders. With HOST_CUDA_SANITIZE=1 the kernels are built with the address and
undefined-behaviour sanitizers; the process must then have been started with libasan preloaded, see `sanitized`.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

HEADER = Path(__file__).with_name("host_cuda.h")
ORDERS = ("forward", "reverse", "shuffled")
SANITIZE = os.environ.get("HOST_CUDA_SANITIZE") == "1"
COMPILER = shutil.which("g++")
FLAGS = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-ffp-contract=off"]
FLAGS += ["-fcf-protection=none", "-fPIC", "-shared"]
FAST = ["-O2"]
SANITIZED = [
    *["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "-fsanitize-sections=cuda_shared",
]
KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(")


class HostDevice:
    """What `voxkernels._compile.Cuda` is on a GPU: arrays, kernels, launches. `free` is how much memory it has."""

    def __init__(self, order: str = "forward", free: int = 2**40) -> None:
        self.order = ORDERS.index(order)
        self.free = free
        self.array_type = np.ndarray

    def reserve(self, what: str, n_bytes: int) -> None:
        """Refuse what does not fit."""
        from voxkernels._compile import out_of_memory

        if n_bytes > self.free:
            raise out_of_memory(what, n_bytes, self.free)

    def empty(self, shape: Any, dtype: Any) -> np.ndarray:
        """An array of rubbish."""
        array = np.empty(shape, dtype)
        array.reshape(-1).view(np.uint8)[:] = 0xA5
        return array

    def zeros(self, shape: Any, dtype: Any) -> np.ndarray:
        """An array of zeros."""
        return np.zeros(shape, dtype)

    def send(self, array: np.ndarray) -> np.ndarray:
        """A copy "on the device"."""
        return np.array(array)

    def fetch(self, array: np.ndarray) -> np.ndarray:
        """A copy "on the host"."""
        return np.array(array)

    def argsort(self, keys: np.ndarray) -> np.ndarray:
        """What would put them in ascending order."""
        return np.argsort(keys, kind="stable")

    def kernel(self, source: Path, name: str, traits: Mapping[str, Any] | None = None) -> Any:
        """One kernel of a `.cu` file."""
        return name, _library(Path(source), tuple(sorted((traits or {}).items())))

    def launch(self, kernel: Any, blocks: Any, threads: Any, arguments: tuple[Any, ...], shared: int = 0) -> None:
        """Run all blocks, one after another."""
        name, library = kernel
        text = ctypes.create_string_buffer(400)
        getattr(library, f"types_{name}")(text)
        wanted, given = text.value.decode().split(), [_type_of(value) for value in arguments]
        assert given == wanted, f"{name}: takes {wanted}, got {given}"
        if 0 in _three(blocks):
            raise ValueError(f"{name}: no blocks, which a GPU refuses")
        assert math.prod(_three(threads)) <= 1024
        boxes = [_boxed(value) for value in arguments]
        pointers = (ctypes.c_void_p * len(boxes))(*[ctypes.addressof(box) for box in boxes])
        grid, block = ((ctypes.c_uint * 3)(*_three(sides)) for sides in (blocks, threads))
        trouble = ctypes.create_string_buffer(200)
        getattr(library, f"launch_{name}")(grid, block, ctypes.c_size_t(shared), self.order, pointers, trouble)
        if trouble.value:
            raise RuntimeError(f"{name}, {trouble.value.decode()}")


def _three(sides: Any) -> tuple[int, int, int]:
    listed = [sides] if isinstance(sides, int | np.integer) else list(sides)
    x, y, z = [int(side) for side in listed] + [1] * (3 - len(listed))
    return x, y, z


def _type_of(value: Any) -> str:
    if isinstance(value, np.ndarray):
        assert value.flags.c_contiguous
        return f"*{value.dtype.kind}{value.dtype.itemsize}".replace("*b1", "*u1")
    return f"{value.dtype.kind}{value.dtype.itemsize}"


def _boxed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    return np.ctypeslib.as_ctypes_type(value.dtype)(value.item())


@functools.cache
def _library(source: Path, traits: tuple[tuple[str, Any], ...]) -> ctypes.CDLL:
    """The shared object of one `.cu` file and set of traits, built once and kept by what went into it."""
    code = source.read_text()
    defines = "".join(f"#define {name} {value}\n" for name, value in traits)
    kernels = "".join(f"HOST_KERNEL({name})\n" for name in KERNEL.findall(code))
    flags = [*FLAGS, *(SANITIZED if SANITIZE else FAST)]
    text = f'#include "{HEADER.name}"\n{defines}#line 1 "{source.name}"\n{code}\n#line 1 "launchers"\n{kernels}'
    stamp = hashlib.sha256("\n".join([HEADER.read_text(), text, *flags]).encode()).hexdigest()[:20]
    folder = Path(tempfile.gettempdir()) / f"voxkernels_host_cuda_{os.getuid()}"
    folder.mkdir(exist_ok=True)
    built = folder / f"{source.stem}_{stamp}.so"
    if not built.exists():
        assert COMPILER, "g++ is needed to run the CUDA kernels without a GPU"
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            (Path(scratch) / "kernels.cpp").write_text(text)
            command = [COMPILER, *flags, f"-I{HEADER.parent}", "kernels.cpp", "-o", "kernels.so"]
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{source.name} with {dict(traits)}:\n{done.stderr}"
            (Path(scratch) / "kernels.so").rename(built)
    return ctypes.CDLL(str(built))


def sanitized(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Python anew with libasan preloaded and the kernels built with sanitizers."""
    assert COMPILER
    asan = subprocess.run([COMPILER, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(Path(asan.stdout.strip()).resolve()),
        "ASAN_OPTIONS": "detect_leaks=0,abort_on_error=0,exitcode=99",
        "HOST_CUDA_SANITIZE": "1",
    }
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False, **options
    )
