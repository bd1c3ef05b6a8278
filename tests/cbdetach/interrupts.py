"""Commands that are stopped from outside while they work."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def hears(handler: Any = signal.default_int_handler) -> dict[str, Any]:
    """For `subprocess`: a command begins with this handler of Ctrl-C, however the tests were started."""
    return {"preexec_fn": lambda: signal.signal(signal.SIGINT, handler)}


def stopped(words: Sequence[str], folder: Path, until: Path, sent: signal.Signals, patience: float) -> tuple[int, str]:
    """Start `cbdetach`, send a signal when a file is there, or after `patience` seconds; exit code and what it says."""
    line = [sys.executable, "-m", "cbdetach", *words]
    process = subprocess.Popen(line, cwd=folder, stderr=subprocess.PIPE, text=True, **hears())
    deadline = time.monotonic() + patience
    while not until.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(sent)
    _, said = process.communicate(timeout=60)
    return process.returncode, said
