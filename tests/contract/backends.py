"""The backends that every contract suite runs on: one name each, one namespace of public functions each."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType

import pytest

BACKENDS = ("reference", "cpu")


def load(operation: str, backend: str) -> ModuleType:
    """The module that holds an operation's public functions on a backend."""
    if backend == "reference":
        return importlib.import_module(f"voxkernels.{operation}.reference")
    return importlib.import_module(f"voxkernels.{operation}")


def backend_fixture(operation: str) -> Callable[..., ModuleType]:
    """A fixture for one contract suite: its functions, once for each backend."""

    @pytest.fixture(params=BACKENDS, scope="module")
    def backend(request: pytest.FixtureRequest) -> ModuleType:
        return load(operation, request.param)

    return backend
