"""The command line: parse, call, print. No logic."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from typing import Annotated

import typer

import cbdetach
from cbdetach.cli import learn, machine, measure, particles, results
from cbdetach.errors import Interrupted, Terminated

app = typer.Typer(
    name="cbdetach",
    help="Measure, particle by particle, the detachment from the carbon/binder domain in an electrode's tomogram.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"cbdetach {cbdetach.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Measure, particle by particle, the detachment from the carbon/binder domain in an electrode's tomogram."""


COMMANDS: dict[str, Callable[..., None]] = {
    "run": measure.run,
    "demo": measure.demo,
    "train": learn.train,
    "train-phases": learn.train_phases,
    "export": learn.export,
    "evaluate": learn.evaluate,
    "streamlines": particles.streamlines,
    "sweep": particles.sweep,
    "correlate": particles.correlate,
    "report": results.report,
    "view": results.view,
    "compare": results.compare,
    "export-labels": results.export_labels,
    "bench": machine.bench,
    "doctor": machine.doctor,
}
"""In the order of `--help`."""

for name, command in COMMANDS.items():
    app.command(name)(command)


def _interrupt(*_: object) -> None:
    raise Interrupted


def _terminate(*_: object) -> None:
    raise Terminated


def _interrupt_again(lost: sys.UnraisableHookArgs) -> None:
    """An interrupt that came where nothing can be raised, as when an object is freed, comes again a moment later."""
    if not issubclass(lost.exc_type, Interrupted | Terminated):
        sys.__unraisablehook__(lost)
        return
    sent = signal.SIGTERM if issubclass(lost.exc_type, Terminated) else signal.SIGINT
    later = threading.Timer(0.01, os.kill, (os.getpid(), sent))
    later.daemon = True
    later.start()


def start() -> None:
    """Run the command that was typed. What was typed wrongly is one line and exit code 2, as other bad input is."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is to be ignored, as by nohup
        signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _interrupt_again
    try:
        code = app(prog_name="cbdetach", standalone_mode=False)
    except Exception as error:
        if not hasattr(error, "format_message"):  # only Typer's own errors have it; it names no class of theirs
            raise
        text = re.sub("^Invalid value for '([^']+)': Input should", r"\1: must", error.format_message())
        command = getattr(getattr(error, "ctx", None), "command_path", "cbdetach")
        more = f" See {command} --help." if text.endswith("?") else f"; see {command} --help."
        print(text if "\n" in text else f"cbdetach: {text.rstrip('.')}{more}", file=sys.stderr)
        code = 2
    raise SystemExit(code)
