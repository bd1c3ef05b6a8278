"""Taking one kernel away: an operation's folder and the two underscore files run inside any other package."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import voxkernels

KERNELS = Path(voxkernels.__file__).parent
OPERATIONS = sorted(path.parent.name for path in KERNELS.glob("*/cpu.py"))


def test_there_are_operations() -> None:
    assert {"masks", "overlaps", "regions"} <= set(OPERATIONS)


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation_runs_inside_another_package(operation: str, tmp_path: Path) -> None:
    package = tmp_path / "elsewhere"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in ("_arrays.py", "_compile.py"):
        shutil.copy(KERNELS / name, package)
    ignored = shutil.ignore_patterns("__pycache__", "reference.py")
    shutil.copytree(KERNELS / operation, package / operation, ignore=ignored)
    program = f"""
import sys
from elsewhere import {operation}
{operation}._warmup()
assert not any(name.split(".")[0] in ("voxkernels", "cbdetach") for name in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
