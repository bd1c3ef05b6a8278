"""ONNX files of a few nodes, written without the onnx package: a network whose answer is known.

`blobs()` is a detector: every pixel above 1 that is the largest of the 21 x 21 around it becomes a box of `SIDE` pixels
about the pixel's centre, its score a quarter of the pixel's value, its mask an ellipse that touches the box.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cbdetach.segment.instances import Detections
from cbdetach.segment.model_file import FORMAT, PLACEHOLDER, with_digest

Array = npt.NDArray[Any]
SIDE = 20.0
FLOAT, INT64 = 1, 7
METADATA = {
    "format": FORMAT,
    "nominal_diameter_px": "20",
    "score_threshold": "0.3",
    "precision": "fp32",
    "version": "0",
}

Input = tuple[int, tuple[int | str, ...]]
GREY: dict[str, Input] = {"image": (FLOAT, ("N", 1, "H", "W"))}
OUTPUTS = ("boxes", "scores", "masks", "index")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, value: int | float | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value % 2**64)
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def tensor(name: str, array: npt.NDArray[Any]) -> bytes:
    """A TensorProto of float32 or int64."""
    kind = FLOAT if array.dtype == np.float32 else INT64
    return b"".join(_field(1, n) for n in array.shape) + _field(2, kind) + _field(8, name) + _field(9, array.tobytes())


def node(op: str, inputs: str, outputs: str, domain: str = "", **attributes: int | Sequence[int]) -> bytes:
    """A NodeProto; names are separated by blanks."""
    content = b"".join(_field(1, n) for n in inputs.split()) + b"".join(_field(2, n) for n in outputs.split())
    content += _field(4, op) + (_field(7, domain) if domain else b"")
    for name, value in attributes.items():
        if isinstance(value, int):
            content += _field(5, _field(1, name) + _field(3, value) + _field(20, 2))
        else:
            content += _field(5, _field(1, name) + b"".join(_field(8, i) for i in value) + _field(20, 7))
    return content


def _value(name: str, kind: int, shape: Sequence[int | str] | None) -> bytes:
    sides = b"".join(_field(1, _field(1 if isinstance(n, int) else 2, n)) for n in shape or ())
    described = _field(1, kind) + (b"" if shape is None else _field(2, sides))
    return _field(1, name) + _field(2, _field(1, described))


def file(
    nodes: Sequence[bytes],
    constants: Mapping[str, npt.NDArray[Any]],
    *,
    inputs: Mapping[str, Input] = GREY,
    outputs: Sequence[str] = OUTPUTS,
    metadata: Mapping[str, str] | None = METADATA,
    domains: Sequence[str] = ("",),
) -> bytes:
    """The bytes of an ONNX file, with its check sum where it has metadata."""
    graph = b"".join(_field(1, n) for n in nodes) + _field(2, "tiny")
    graph += b"".join(_field(5, tensor(name, array)) for name, array in constants.items())
    graph += b"".join(_field(11, _value(name, *about)) for name, about in inputs.items())
    graph += b"".join(_field(12, _value(name, INT64 if name == "index" else FLOAT, None)) for name in outputs)
    content = _field(1, 8) + _field(7, graph)
    content += b"".join(_field(8, _field(1, domain) + _field(2, 15 if not domain else 1)) for domain in domains)
    if metadata is None:
        return content
    for key, value in {**metadata, "sha256": PLACEHOLDER}.items():
        content += _field(14, _field(1, key) + _field(2, value))
    return with_digest(content)


def disc() -> npt.NDArray[np.float32]:
    """28 x 28 probabilities that are 0.5 on the circle that touches the box."""
    centre = (np.arange(28) + 0.5) / 14 - 1
    radius = np.hypot(*np.meshgrid(centre, centre))
    return (1 / (1 + np.exp(20 * (radius - 1)))).astype(np.float32)


def draw(boxes: Array, shape: tuple[int, int], *, scores: Array | None = None, **options: Any) -> Detections:
    """Discs that fill boxes."""
    n = len(boxes)
    falling = np.linspace(0.9, 0.5, n) if scores is None else scores
    masks = np.repeat(disc()[None], n, axis=0)
    return Detections(np.asarray(boxes, float).reshape(n, 4), falling.astype(np.float32), masks, shape, **options)


def blobs(**options: Any) -> bytes:
    """The detector."""
    nodes = [
        node("MaxPool", "image", "top", kernel_shape=[21, 21], pads=[10, 10, 10, 10]),
        node("Equal", "image top", "is_top"),
        node("Greater", "image one", "is_bright"),
        node("And", "is_top is_bright", "is_peak"),
        node("NonZero", "is_peak", "peaks_4m"),
        node("Transpose", "peaks_4m", "peaks", perm=[1, 0]),
        node("GatherND", "image peaks", "values"),
        node("Mul", "values quarter", "scores"),
        node("Gather", "peaks i_index", "index", axis=1),
        node("Gather", "peaks i_box", "places", axis=1),
        node("Cast", "places", "corners", to=FLOAT),
        node("Add", "corners reach", "boxes"),
        node("Mul", "scores zero", "zeros"),
        node("Reshape", "zeros column", "zeros3"),
        node("Add", "zeros3 mask", "masks"),
    ]
    half = SIDE / 2
    constants = {
        "one": np.float32([1]),
        "quarter": np.float32([0.25]),
        "zero": np.float32([0]),
        "i_index": np.array(0),
        "i_box": np.array([3, 2, 3, 2]),
        "reach": np.float32([0.5 - half, 0.5 - half, 0.5 + half, 0.5 + half]),
        "column": np.array([-1, 1, 1]),
        "mask": disc()[None],
    }
    return file(nodes, constants, **options)
