"""Progress bars on a terminal, all of one look."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def bar(items: Iterable[Any] | None, name: str, *, unit: str, show: bool) -> Any:
    """The items, with a bar while they are gone through; of None, a bar to be updated by hand.

    Nothing is drawn where it is not to be shown, or there is no terminal.
    """
    from tqdm import tqdm

    return tqdm(items, desc=f"{name:<10}", unit=unit, leave=False, disable=None if show else True)
