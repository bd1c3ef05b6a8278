"""One stored image, whatever its format: all that the rest of the package knows about a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cbdetach.errors import InputError
from cbdetach.volume.parse import Box
from cbdetach.volume.units import VoxelSize

NEW_AXIS = -1


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Stored:
    """An image in its file: what a format must tell. `read` takes one slice per axis and returns that block."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[Any], Any]
    voxel_size: VoxelSize | None = None
    close: Callable[[], None] = _nothing
    dataset: str = ""
    axes: str = ""  # one letter per axis where the format names them (Z, Y, X, C, T, S ...)


def as_zyx(stored: Stored, where: str, allow_2d: bool) -> Stored:
    """The same image with exactly the axes z, y, x, in a type that the pipeline can use; or an `InputError`."""
    shape, dtype = stored.shape, stored.dtype
    axes = stored.axes or "ZYX"[-len(shape) :].rjust(len(shape), "?")
    # Drop axes of length 1, first those that are not spatial, until three are left.
    kept = list(range(len(shape)))
    for droppable in ("Z", ""):
        for axis in [a for a in kept if shape[a] == 1 and axes[a] not in "YX" + droppable]:
            if len(kept) > 3:
                kept.remove(axis)
    letters = "".join(axes[a] for a in kept)
    if len(kept) == 2 and allow_2d:
        kept.insert(0, NEW_AXIS)
    elif len(kept) != 3 or letters.startswith("YX"):
        hint = "Give the whole stack of slices." if len(kept) == 2 else "Extract one channel or time step first."
        wanted = "two axes (y, x) or three (z, y, x)" if allow_2d else "three axes (z, y, x)"
        raise InputError(f"volume: must have {wanted}; got shape {shape} in {where}. {hint}")
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise InputError(f"volume: must hold real numbers of up to 64 bits; got dtype {dtype} in {where}.")
    zyx = tuple(1 if a == NEW_AXIS else shape[a] for a in kept)
    if 0 in zyx:
        raise InputError(f"volume: must hold at least one voxel; got shape {shape} in {where}.")
    native = np.dtype(np.uint8) if dtype == np.bool_ else dtype.newbyteorder("=")
    read_all = stored.read

    def read_zyx(box: Box) -> Any:
        index: list[Any] = [0] * len(shape)
        for axis, part in zip(kept, box, strict=True):
            if axis != NEW_AXIS:
                index[axis] = part
        block = read_all(tuple(index))
        return np.asarray(block)[None][box[0]] if NEW_AXIS in kept else block

    return Stored(zyx, native, read_zyx, stored.voxel_size, stored.close, stored.dataset)


def one_line(error: BaseException) -> str:
    """What an error says, on one line and not too long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
