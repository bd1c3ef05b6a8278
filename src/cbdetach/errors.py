"""What a person can do wrong: one sentence each, printed without a traceback by the command line (exit code 2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Bad input: which argument, what it must be, what came, what to do. One sentence, for people."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C (SIGINT). Of a class of its own: where Python's passes through an `exec` of text, as when a dataclass is
    made in that moment, Python ends by the signal and not by the exit code, whoever has caught it.
    """


class Terminated(KeyboardInterrupt):
    """The system has asked the process to end (SIGTERM): what is done is the same as after Ctrl-C."""


class ResumableError(InputError):
    """Nothing wrong with the input: the run was stopped from outside, keeps what it has written, and can be resumed."""


@contextmanager
def called(option: str, *, was: str = "volume") -> Iterator[None]:
    """What is wrong with the argument `was` is said of the option, or the file, that it was given by."""
    try:
        yield
    except InputError as error:
        name, colon, rest = str(error).partition(":")
        raise (type(error)(f"{option}:{rest}") if colon and name == was else error) from error.__cause__
