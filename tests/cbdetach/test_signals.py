"""Ctrl-C and SIGTERM: one sentence, the shell's exit code, nothing half-written, and the run goes on."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cbdetach.interrupts import hears, stopped

from cbdetach.codes import ACTIVE, CBD


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_says_so_and_goes_on(tmp_path: Path, sent: signal.Signals) -> None:
    z, y, x = np.indices((24, 24, 24)) - 12
    r = np.sqrt(z**2 + y**2 + x**2)
    np.save(tmp_path / "phases.npy", np.where(r < 8, ACTIVE, np.where((r < 10) & (z > 0), CBD, 0)).astype(np.uint8))
    words = "run --phases phases.npy --phase-values void=0,cbd=1,active=2 --voxel-size 0.5 -o out --quiet"
    survey = tmp_path / "out" / "survey" / "result.json"
    ended = stopped(shlex.split(words), tmp_path, survey, sent, patience=60)
    assert ended == (128 + sent, "cbdetach: interrupted; continue with --resume.\n")
    assert list((tmp_path / "out").rglob(".*part*")) == []
    assert not (tmp_path / "out" / "report.html").exists()
    line = [sys.executable, "-m", "cbdetach", *shlex.split(words), "--resume"]
    again = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr) == (0, "")
    assert (tmp_path / "out" / "report.html").exists()


def report(folder: Path, program: str, handler: Any = signal.default_int_handler) -> subprocess.CompletedProcess[str]:
    """`cbdetach report` in a process of its own, where the work is what the program defines as `work(run)`."""
    (folder / "stopped.py").write_text(
        "import os, signal, sys, time\n"
        "from cbdetach import cli, gather\n"
        f"{program}"
        "gather.rewrite_report = work\n"
        "sys.argv = ['cbdetach', 'report', '.']\n"
        "cli.start()\n"
    )
    line = [sys.executable, "-m", "stopped"]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False, **hears(handler))


@pytest.mark.parametrize(
    ("handler", "ends"),
    [(signal.default_int_handler, (130, "cbdetach: interrupted.\n")), (signal.SIG_IGN, (0, ""))],
    ids=["heard", "ignored"],
)
def test_an_interrupt_while_text_is_executed(tmp_path: Path, handler: Any, ends: tuple[int, str]) -> None:
    """As when a dataclass is made: from there Python's own KeyboardInterrupt, caught or not, ends by the signal.

    Who asks that it be ignored, as `nohup` and shells in the background do, is heard.
    """
    ended = report(
        tmp_path,
        "text = 'os.kill(os.getpid(), signal.SIGINT); time.sleep(0.2)'\ndef work(run):\n    exec(text)\n",
        handler,
    )
    assert (ended.returncode, ended.stderr) == ends


@pytest.mark.parametrize(("sent", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_interrupt_where_nothing_can_be_raised(tmp_path: Path, sent: str, code: int) -> None:
    """As when an object is freed: Python writes such an exception down and goes on. Others it writes down as ever."""
    ended = report(
        tmp_path,
        "class Freed:\n"
        "    def __del__(self):\n"
        f"        os.kill(os.getpid(), signal.{sent}); time.sleep(0.2)\n"
        "class Wrong:\n"
        "    def __del__(self):\n"
        "        raise ValueError('wrong')\n"
        "def work(run):\n"
        "    Wrong(), Freed()\n"
        "    time.sleep(5)\n",
    )
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (code, "cbdetach: interrupted.")
    assert "ValueError: wrong" in ended.stderr
    assert ended.stderr.count("Exception ignored") == 1
