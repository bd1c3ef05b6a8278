"""Items made by a thread, a few ahead of who takes them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Any, TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T], depth: int) -> Generator[T]:
    """The same items, made by a thread that is at most `depth` of them ahead.

    An exception in making them arrives in its turn. Closing the generator ends the thread, after the item in work.
    """
    room, made = Semaphore(depth), SimpleQueue[tuple[str, Any]]()
    closed = False

    def work() -> None:
        try:
            for item in items:
                made.put(("item", item))
                room.acquire()
                if closed:
                    return
            made.put(("end", None))
        except BaseException as error:
            made.put(("error", error))

    thread = Thread(target=work, name="cbdetach-reader", daemon=True)
    thread.start()
    try:
        while True:
            kind, item = made.get()
            if kind == "end":
                return
            if kind == "error":
                raise item
            room.release()
            yield item
    finally:
        closed = True
        room.release()
        thread.join()
