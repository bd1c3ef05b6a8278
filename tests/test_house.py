"""Rules of the house that no other tool checks: who imports what, docstrings, no print, one shape for every kernel."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cbdetach
import voxkernels
from cbdetach import device

PROJECT = Path(__file__).resolve().parents[1]
KERNELS = PROJECT / "kernels" / "voxkernels"
PIPELINE = PROJECT / "src" / "cbdetach"
OPERATIONS = sorted(path.parent for path in KERNELS.glob("*/__init__.py"))
SOURCES = sorted([*KERNELS.rglob("*.py"), *PIPELINE.rglob("*.py")])
MAY_PRINT = {*(PIPELINE / "cli").glob("*.py"), PIPELINE / "__main__.py"}


def name_of(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def imports_of(path: Path) -> set[str]:
    """Absolute names of the modules that a file imports; relative ones keep their dots."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
    return names


def test_there_is_a_house() -> None:
    assert len(OPERATIONS) >= 6
    assert len(SOURCES) > 20


@pytest.mark.parametrize("folder", OPERATIONS, ids=lambda path: path.name)
def test_every_operation_has_one_shape(folder: Path) -> None:
    files = {path.name for path in folder.glob("*.py")}
    assert {"__init__.py", "cpu.py", "reference.py"} <= files
    assert (PROJECT / "tests" / "contract" / f"test_{folder.name}.py").exists()
    assert (PROJECT / "benchmarks" / f"bench_{folder.name}.py").exists()
    assert "def _warmup() -> None:" in (folder / "__init__.py").read_text()


@pytest.mark.parametrize("folder", OPERATIONS, ids=lambda path: path.name)
def test_a_kernel_file_can_be_taken_away(folder: Path) -> None:
    """Kernels import math, numpy, numba, `jit` and one another; hosts and oracles nothing outside their own folder."""
    beside = {f".{path.stem}" for path in folder.glob("cpu_*.py")}
    shared = {f".{path.stem}" for path in folder.glob("*.py")} - beside - {".cpu", ".cuda", ".reference"}
    for path in folder.glob("cuda.py"):
        allowed = {"__future__", "math", "pathlib", "typing", "numpy", "numpy.typing", ".._compile"}
        assert imports_of(path) <= allowed, f"{name_of(path)} imports {imports_of(path) - allowed}"
    for path in folder.glob("cpu*.py"):
        allowed = {"__future__", "collections.abc", "math", "typing", "numpy", "numba", ".._compile"} | beside
        assert imports_of(path) <= allowed, f"{name_of(path)} imports {imports_of(path) - allowed}"
    for path in folder.glob("*.py"):
        ours = {name for name in imports_of(path) if name.startswith((".", "voxkernels", "cbdetach"))}
        assert ours <= {".", "..", ".._arrays", ".._compile"} | beside | shared, f"{name_of(path)} imports {ours}"


@pytest.mark.parametrize("folder", OPERATIONS, ids=lambda path: path.name)
def test_kernels_and_oracles_stay_apart(folder: Path) -> None:
    assert "reference" not in (folder / "__init__.py").read_text().split('"""', 2)[2]
    assert "numba" not in imports_of(folder / "reference.py")
    assert len((folder / "cpu.py").read_text().split('"""')[1].splitlines()) >= 10, "a kernel file opens with prose"


@pytest.mark.parametrize("path", sorted(KERNELS.rglob("*.cu")), ids=name_of)
def test_cuda_code_stands_alone(path: Path) -> None:
    """One file for each operation, with its host beside it; no header, every trait with a default, prose at the top."""
    lines = path.read_text().splitlines()
    assert path == path.parent / f"{path.parent.name}.cu"
    assert (path.parent / "cuda.py").exists()
    assert not [line for line in lines if line.lstrip().startswith("#include")]
    assert all(line.startswith("//") for line in lines[:10]), "a kernel file opens with prose"
    for name in re.findall(r'"([A-Z_]+)": ', (path.parent / "cuda.py").read_text()):
        assert f"#ifndef {name}" in lines, f"{name_of(path)} has no default for {name}"
    for number, line in enumerate(lines):
        if re.search(r"__sync(threads|warp)\w*\(", line):
            assert "//" in line or lines[number - 1].lstrip().startswith("//"), f"{path.name}:{number + 1} says not why"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_print(path: Path) -> None:
    if path in MAY_PRINT:
        return
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_public_names_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text())
    public = [n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef) and not n.name.startswith("_")]
    assert ast.get_docstring(tree)
    assert [node.name for node in public if not ast.get_docstring(node)] == []


def test_public_names_exist_and_are_sorted() -> None:
    assert sorted(voxkernels.__all__) == list(voxkernels.__all__)
    for name in voxkernels.__all__:
        assert getattr(voxkernels, name).__doc__


def test_all_operations_are_warmed_up() -> None:
    text = (KERNELS / "__init__.py").read_text().split("def warmup")[1]
    assert [folder.name for folder in OPERATIONS if folder.name not in text] == []


def test_one_version_everywhere() -> None:
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert cbdetach.__version__ == version
    assert f"\nversion: {version}\n" in (PROJECT / "CITATION.cff").read_text()


ONLY_IN = {
    "torch": "train",
    "torchvision": "train",
    "onnx": "train",
    "onnxruntime": "segment/runtime.py",
    "napari": "viewer.py",
    "dask": "scheduler.py",
    "distributed": "scheduler.py",
    "cloudpickle": "scheduler.py",
}
"""Heavy or optional libraries, and the one place of the pipeline that may import them."""


@pytest.mark.parametrize("library", ONLY_IN)
def test_optional_libraries_stay_in_their_place(library: str) -> None:
    users = {
        path.relative_to(PIPELINE).as_posix()
        for path in SOURCES
        if PIPELINE in path.parents and any(name.split(".")[0] == library for name in imports_of(path))
    }
    allowed = {"doctor.py", "train/export.py"} if library == "onnxruntime" else set()
    assert users
    assert {name for name in users if not name.startswith(ONLY_IN[library])} <= allowed


BESIDE_THE_STAGES = {
    "demo.py",
    "doctor.py",
    "metrics.py",
    "device.py",
    "features.py",
    "sweep.py",
    "bench",
    "report",
    "train",
}
"""What calls kernels of `voxkernels` by itself: after a run, or (`features`) on boxes of one particle."""


@pytest.mark.parametrize("path", sorted(PIPELINE.rglob("*.py")), ids=name_of)
def test_stages_call_kernels_by_the_device_module(path: Path) -> None:
    """Or `--device cuda` would leave them on the processors."""
    if path.relative_to(PIPELINE).parts[0] in BESIDE_THE_STAGES:
        return
    placed = set(device.KERNELS)
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    called = {
        f.attr for f in calls if isinstance(f, ast.Attribute) and isinstance(f.value, ast.Name) and f.value.id == "vk"
    }
    assert called & placed == set()
    assert called <= {"merge_contacts", "merge_regions", *placed}


def test_import_contracts_hold() -> None:
    tool = shutil.which("lint-imports", path=str(Path(sys.executable).parent)) or shutil.which("lint-imports")
    assert tool, "install the [test] extra"
    done = subprocess.run([tool, "--no-cache"], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
