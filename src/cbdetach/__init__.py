"""cbdetach: particle by particle detachment from the carbon/binder domain, measured from X-ray nano-tomograms."""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = ["__version__"]
