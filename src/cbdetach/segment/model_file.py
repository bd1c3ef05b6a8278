"""A model file's own check sum: it lies in the file's metadata and is checked from the bytes, without the onnx package.

An ONNX file is a protobuf message, and its metadata entry `sha256` is stored as the bytes `0a 06 "sha256" 12 40`,
followed by 64 hexadecimal digits. The digest is that of the whole file with 64 zeros in place of those digits, so it
covers graph, weights and all other metadata. The entry comes behind the graph: the last one in the file counts.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

FORMAT = "cbdetach-maskrcnn-1"
"""Metadata entry `format` of the files that `cbdetach export` writes and `cbdetach.segment` reads."""
PLACEHOLDER = "0" * 64
"""What the metadata entry `sha256` holds while the digest is computed."""

_ENTRY = b"\n\x06sha256\x12\x40"


def model_digest(model: Path | bytes) -> str:
    """The digest that the metadata entry `sha256` of a model file must hold.

    Parameters
    ----------
    model : the file, or its bytes.

    Returns
    -------
    64 hexadecimal digits. Of a file without the entry: the digest of its bytes as they are.
    """
    content = model if isinstance(model, bytes) else model.read_bytes()
    start, stop = _digits(content)
    digest = hashlib.sha256(content[:start])
    digest.update(PLACEHOLDER.encode()[: stop - start])
    digest.update(memoryview(content)[stop:])
    return digest.hexdigest()


def with_digest(content: bytes) -> bytes:
    """The bytes of a model file, its digest put in place of the placeholder."""
    start, stop = _digits(content)
    if start == stop:
        raise ValueError("content: must hold the metadata entry sha256; got none. Add it with the placeholder.")
    return content[:start] + model_digest(content).encode() + content[stop:]


def _digits(content: bytes) -> tuple[int, int]:
    """Where the digits lie; an empty range at the end where there is no entry."""
    found = content.rfind(_ENTRY)
    start = len(content) if found < 0 else found + len(_ENTRY)
    return start, min(start + len(PLACEHOLDER), len(content))
