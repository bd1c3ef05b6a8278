"""cbdetach: particle by particle detachment from the carbon/binder domain, measured from X-ray nano-tomograms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["InputError", "Run", "__version__", "open_run", "run"]

if TYPE_CHECKING:
    from cbdetach.errors import InputError
    from cbdetach.pipeline import run
    from cbdetach.results import Run, open_run

_HOME = {"run": "pipeline", "open_run": "results", "Run": "results", "InputError": "errors"}


def __getattr__(name: str) -> Any:
    """Load what is asked for, when it is asked for: importing the package itself loads nothing heavy."""
    if name not in _HOME:
        raise AttributeError(f"module 'cbdetach' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"cbdetach.{_HOME[name]}"), name)
