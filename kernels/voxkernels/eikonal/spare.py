"""Room for what a large component needs meanwhile: the output, which is free until the first times are written."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

LINE = 64  # bytes of a line of the cache


class Spare:
    """Room in an array that is not used yet."""

    def __init__(self, array: Any) -> None:
        self.rest = array.reshape(-1).view(np.uint8)[-array.ctypes.data % LINE :]
        self.lock = threading.Lock()

    def take(self, n: int, kind: Any) -> Any:
        """Room for n numbers, their values as chance has it: there, or elsewhere if there is too little left."""
        size = n * np.dtype(kind).itemsize
        with self.lock:
            if size > self.rest.size:
                return np.empty(n, kind)
            taken, self.rest = self.rest[:size], self.rest[-(-size // LINE) * LINE :]
        return taken.view(kind)
