"""What this installation can do, and what is missing: versions, threads, memory, providers, a kernel's answer."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import numpy.typing as npt

from cbdetach import __version__, device
from cbdetach.errors import InputError
from cbdetach.estimate import available_memory

LIBRARIES = (
    "numpy",
    "numba",
    "scipy",
    "scikit-image",
    "h5py",
    "hdf5plugin",
    "tifffile",
    "zarr",
    "pandas",
    "pyarrow",
    "matplotlib",
    "pydantic",
    "typer",
    "onnxruntime",
)


def examine() -> str:
    """A few lines for people; the last says whether a kernel gives the right answer here."""
    lines = [
        f"cbdetach {__version__}, Python {platform.python_version()} on {platform.platform()}",
        "libraries: " + ", ".join(f"{name} {_version(name)}" for name in LIBRARIES),
        f"processors: {os.cpu_count()}; kernels use {_threads()} threads ({_layer()} layer)",
        f"memory free: {_memory()}",
        f"compiled kernels are {_cache()}",
        f"inference: {_providers()}",
        f"model: {_model()}",
        f"GPU: {_gpu()}",
        f"kernels: {_kernel()}",
    ]
    return "\n".join(lines)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _threads() -> int:
    import numba

    return int(numba.get_num_threads())


def _layer() -> str:
    import numba

    import voxkernels as vk

    vk.label(np.ones((2, 2, 2), dtype=np.bool_))
    try:
        return str(getattr(numba, "threading_layer")())  # noqa: B009
    except ValueError:
        return "no threading"


def _memory() -> str:
    free = available_memory()
    return "unknown" if free is None else f"{free / 1e9:.1f} GB"


def _cache() -> str:
    from voxkernels import _compile

    return "kept on disk" if _compile.CACHE else "not kept (VOXKERNELS_CACHE=0): every process compiles them again"


def _providers() -> str:
    """Which provider will run the network, and why not a faster one."""
    from cbdetach.segment import runtime

    try:
        why = {name: runtime.why_not(name) for name in runtime.PROVIDERS}
        if runtime.shipped_model().is_file() and not why["cuda"]:
            why["cuda"] = runtime.load_model().why  # only a session tells whether it starts
    except InputError as error:
        return str(error)
    best = next((name for name in runtime.AUTOMATIC if not why[name]), None)
    if best is None:
        return why["cpu"]
    faster = runtime.AUTOMATIC[: runtime.AUTOMATIC.index(best)]
    tensorrt = why["tensorrt"] or "can be asked for, but is not faster for this network."
    lines = [f"{runtime.PROVIDERS[best]}", *(f"not {name}: {why[name]}" for name in faster), f"TensorRT: {tensorrt}"]
    return "; ".join(line.rstrip(".") for line in lines)


def _model() -> str:
    """Which model ships, and whether it is whole."""
    from cbdetach.segment import runtime

    path = runtime.shipped_model()
    if not path.is_file():
        return "none in this copy of cbdetach; give one with --model"
    try:
        about = runtime.load_model(provider="cpu").metadata
    except InputError as error:
        return f"WRONG: {error}"
    version, precision = (about.get(name, "unknown") for name in ("version", "precision"))
    megabytes = path.stat().st_size / 1e6
    return f"{path.name} of version {version}, {precision}, {megabytes:.1f} MB; its check sum is right"


def _gpu() -> str:
    """What `--device cuda` would run on, and why on nothing."""
    try:
        gpu = device.Gpu()
        about, free = gpu.about, gpu.free
    except InputError as error:
        return f"none for --device cuda ({str(error).removeprefix('--device: ').rstrip('.')})"
    versions = f"CUDA {about['cuda']}, driver for CUDA {about['driver']}, CuPy {about['cupy']}"
    return f"{about['name']}, {free / 1e9:.1f} GB free ({versions}); --device cuda runs all kernels there"


def _kernel() -> str:
    import voxkernels as vk

    solid: npt.NDArray[np.bool_] = np.ones((9, 9, 9), dtype=np.bool_)
    plane = np.zeros_like(solid)
    plane[0] = True
    length = vk.travel_time(solid, plane)
    right = bool(np.allclose(length[:, 4, 4], np.arange(9), atol=1e-4))
    return (
        "a plane wave arrives in time"
        if right
        else f"WRONG: a plane wave arrives at {length[:, 4, 4]}; {sys.executable}"
    )
