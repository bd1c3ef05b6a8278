"""Argument checks and array conversions, in one place, with one form of message.

Every public function of the toolkit passes its arguments through these once; kernels check nothing.
A message reads ``name: must <rule>; got <what came>. <what to do>``. Arrays of any strides and byte order are accepted
and converted at most once to what the kernels read (C order, native bytes); an array that already is so is not copied.

NumPy arrays are computed on the CPU. An operation that has a GPU version asks `device_of` where its arrays lie, and
passes the answer on to the checks, which then take CuPy arrays and leave them on their device.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ._compile import Cuda

Spacing = tuple[float, float, float]

UNIT: Spacing = (1.0, 1.0, 1.0)
"""The default spacing everywhere: lengths in voxels."""

_INT32 = np.dtype(np.int32)


def device_of(**arguments: Any) -> Cuda | None:
    """The GPU on which the arrays among the arguments lie; None for NumPy's. They must all lie in one place."""
    cupy = sys.modules.get("cupy")  # who has a CuPy array has imported it
    if cupy is None:
        return None
    arrays = {name: value for name, value in arguments.items() if isinstance(value, cupy.ndarray)}
    if not arrays:
        return None
    first = next(iter(arrays))
    number = arrays[first].device.id
    for name, value in arguments.items():
        if value is not None and name not in arrays:
            raise TypeError(
                f"{name}: must be a CuPy array, as {first} is; got {describe(value)} of type {type(value).__module__}."
                f"{type(value).__name__}. Copy it with cupy.asarray, or {first} with cupy.asnumpy."
            )
        if value is not None and value.device.id != number:
            raise ValueError(f"{name}: must lie on GPU {number}, as {first} does; got GPU {value.device.id}. Copy one.")
    return Cuda(number)


def where(array: Any) -> contextlib.AbstractContextManager[Any]:
    """Inside this, what is computed of a CuPy array is computed on its device. Nothing to do for NumPy's."""
    device = getattr(array, "device", None)  # "cpu" from NumPy 2.0 on
    return contextlib.nullcontext() if device is None or isinstance(device, str) else device


def describe(value: Any) -> str:
    """What came, for a message: shape and dtype of an array, the value itself of anything short."""
    if hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "ndim") and value.ndim:
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"


def as_spacing(spacing: Any) -> Spacing:
    """Check a voxel size (dz, dy, dx): three positive, finite numbers."""
    if spacing is UNIT:
        return 1.0, 1.0, 1.0
    try:
        values = () if isinstance(spacing, str) else tuple(float(s) for s in spacing)
    except (TypeError, ValueError):
        values = ()
    if len(values) != 3 or not all(math.isfinite(v) and v > 0 for v in values):
        raise ValueError(
            f"spacing: must be three positive, finite numbers (dz, dy, dx); got {describe(spacing)}. "
            "Give the voxel size along each axis, in one unit."
        )
    return values[0], values[1], values[2]


def as_array(name: str, value: Any, ndim: int, axes: str = "", *, device: Cuda | None = None) -> npt.NDArray[Any]:
    """Check that `value` is a NumPy array, or one of `device`, of `ndim` axes; return it in native bytes and C order.

    `axes` names them in the message, by default those of a volume, an image or a list.
    """
    plain = type(value) is np.ndarray and device is None and value.ndim == ndim
    if plain and value.flags.carray and value.dtype.isnative:  # at once: all that follows takes longer than it seems
        ready: npt.NDArray[Any] = value
        return ready
    wanted_type: Any = np.ndarray if device is None else device.array_type
    if not isinstance(value, wanted_type):
        module = type(value).__module__.split(".")[0]
        hint = "Copy it to the host first." if module in {"cupy", "torch"} else "Convert it with numpy.asarray."
        raise TypeError(f"{name}: must be a NumPy array; got {describe(value)} of type {type(value).__name__}. {hint}")
    if np.any(getattr(value, "mask", False)):
        raise TypeError(f"{name}: must have no masked elements; got some. Give them a value, for example .filled(0).")
    if value.ndim != ndim:
        wanted = axes or {1: "(N,)", 2: "(Y, X)", 3: "(Z, Y, X)"}.get(ndim, f"{ndim}-dimensional")
        one_slice = wanted == "(Z, Y, X)" and value.ndim == 2
        hint = "Add a first axis with array[None] for a single slice." if one_slice else ""
        raise ValueError(f"{name}: must be {wanted}; got {describe(value)}. {hint}".rstrip())
    if not isinstance(value, np.ndarray):  # CuPy knows native bytes only
        with where(value):
            moved: npt.NDArray[Any] = value if value.flags.c_contiguous else value.copy(order="C")
        return moved
    array = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("="))
    return array if array.flags.writeable else np.asarray(_SameMemory(array))


class _SameMemory:
    """A read-only array, passed on as writable: kernels write to no input, and Numba compiles twice for two types."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.array = array
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}


def as_mask(name: str, value: Any, ndim: int = 3, *, device: Cuda | None = None) -> npt.NDArray[np.bool_]:
    """Check a mask: bool, or integer with only 0 and 1."""
    array = as_array(name, value, ndim, device=device)
    if array.dtype == np.bool_:
        return array
    with where(array):
        if array.dtype.kind in "iu" and (array.size == 0 or (array.min() >= 0 and array.max() <= 1)):
            return array.astype(np.bool_)
    raise TypeError(
        f"{name}: must be bool (or integers 0 and 1); got {describe(array)}. Compare first, for example {name} > 0."
    )


def as_labels(
    name: str, value: Any, ndim: int = 3, *, look: bool = True, device: Cuda | None = None
) -> npt.NDArray[Any]:
    """Check a label or phase image: bool or any integer type, no negative value. Bool comes back as uint8 (a view).

    With `look=False` the values of types of up to 32 bits are not looked at: for a kernel that sees to it as it reads
    them (one more read of an image costs as much as a fast kernel).
    """
    array = as_array(name, value, ndim, device=device)
    kind, item_bytes = array.dtype.kind, array.dtype.itemsize
    if kind == "b":
        return array.view(np.uint8)
    if kind not in "iu":
        raise TypeError(
            f"{name}: must be of an integer type; got {describe(array)}. Convert it with .astype(numpy.int32)."
        )
    if kind == "i" and (look or item_bytes > 4) and array.size:
        with where(array):
            lowest = int(array.min())
        if lowest < 0:
            raise ValueError(f"{name}: must not hold negative values; got a minimum of {lowest}. 0 is the background.")
    return array


def narrow_labels(labels: npt.NDArray[Any], name: str = "labels") -> npt.NDArray[np.int32] | npt.NDArray[np.int64]:
    """Checked labels as int32 if every value fits (without a copy from int32 and uint32), else as int64.

    Kernels then meet two label types only, and mostly one. A value past 2^63 - 1 raises ValueError.
    """
    if labels.dtype == _INT32:
        return labels
    with where(labels):
        if labels.dtype.itemsize < 4:
            return labels.astype(np.int32)
        top = int(labels.max()) if labels.size else 0
        if top < 2**31:
            return labels.view(np.int32) if labels.dtype == np.uint32 else labels.astype(np.int32)
        if top >= 2**63:
            raise ValueError(f"{name}: must be below 2**63; got {top}. Renumber them from 1.")
        return labels.astype(np.int64, copy=False)


def as_image(name: str, value: Any, ndim: int = 3, *, device: Cuda | None = None) -> npt.NDArray[Any]:
    """Check a grey-value image: integer or floating point, converted to native bytes but not in precision."""
    array = as_array(name, value, ndim, device=device)
    if array.dtype.kind not in "iufb":
        raise TypeError(f"{name}: must be of an integer or floating-point type; got {describe(array)}.")
    return array.view(np.uint8) if array.dtype == np.bool_ else array


def same_shape(name: str, array: npt.NDArray[Any], other_name: str, other: npt.NDArray[Any]) -> None:
    """Check that two arrays cover the same grid."""
    if array.shape != other.shape:
        raise ValueError(
            f"{name}: must have the shape of {other_name}, {other.shape}; got {describe(array)}. "
            "Both must be cut from the same volume."
        )


def choice(name: str, value: Any, allowed: Sequence[Any]) -> Any:
    """Check an option that takes one of a few values; return the one that it equals (6 for `numpy.int64(6)`)."""
    for one in allowed:
        if type(value) is type(one) and value == one:
            return one
    if not np.ndim(value) and isinstance(value, bool) == any(isinstance(a, bool) for a in allowed):
        for one in allowed:
            if value == one:
                return one
    listed = ", ".join(repr(a) for a in allowed)
    raise ValueError(f"{name}: must be one of {listed}; got {describe(value)}.")
