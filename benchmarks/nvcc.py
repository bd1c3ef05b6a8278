"""What the CUDA compiler says of every kernel: registers, spilled bytes, shared memory.

`python -m benchmarks.nvcc` compiles every `.cu` file of the toolkit, with its default traits and with those listed
here, and writes the table `benchmarks/results/nvcc.md`. No GPU is needed, and nothing in it is a speed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
SOURCES = sorted((PROJECT / "kernels" / "voxkernels").glob("*/*.cu"))
REPORT = PROJECT / "benchmarks" / "results" / "nvcc.md"
NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
ARCHITECTURES = ("sm_80", "sm_90")
TRAITS: dict[str, tuple[dict[str, str], ...]] = {
    "components": (
        {},
        {"VALUE": "int", "CONNECTIVITY": "6"},
        {"VALUE": "int", "CONNECTIVITY": "18"},
        {"VALUE": "Long", "INDEX": "Long", "NAME": "Long"},
    ),
    "contacts": ({}, {"WEIGHTED": "0"}, {"PHASE": "int", "INDEX": "Long"}),
    "eikonal": ({}, {"LABEL": "Long", "INDEX": "Long"}),
    "masks": ({}, {"MASK": "double", "BOX": "double", "SCORE": "double", "INDEX": "Long"}),
    "overlaps": ({}, {"LABEL": "Long"}),
    "regions": ({}, {"IMAGE": "unsigned short"}, {"LABEL": "Long", "IMAGE": "double", "INDEX": "Long"}),
}
"""The sets of traits with which an operation's kernels are compiled here; by default the file's own alone."""


@dataclass(frozen=True)
class Resources:
    """What one kernel takes on one architecture, by thread (registers, spilled bytes) and by block (shared bytes)."""

    name: str
    traits: str
    architecture: str
    registers: int
    spilled: int
    shared: int


def digest(source: Path) -> str:
    """What tells one state of a file from another."""
    return hashlib.sha256(source.read_bytes()).hexdigest()[:12]


def resources(source: Path) -> list[Resources]:
    """Compile one file; a warning or an error of the compiler raises RuntimeError."""
    assert NVCC
    rows = []
    for architecture in ARCHITECTURES:
        for traits in TRAITS.get(source.stem, ({},)):
            options = [f"-D{name}={value}" for name, value in traits.items()]
            command = [
                NVCC,
                f"-arch={architecture}",
                "-Xptxas",
                "-v",
                "-cubin",
                "-o",
                os.devnull,
                *options,
                str(source),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode or "warning" in done.stderr:
                raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
            for entry in done.stderr.split("Compiling entry function ")[1:]:
                numbers = [
                    int(found.group(1)) if (found := re.search(pattern, entry)) else 0
                    for pattern in (r"Used (\d+) registers", r"(\d+) bytes spill stores", r"(\d+) bytes smem")
                ]
                rows.append(Resources(entry.split("'")[1], " ".join(options), architecture, *numbers))
    return sorted(rows, key=lambda row: (row.name, row.traits, row.architecture))


def main() -> None:
    """Write the table."""
    assert NVCC, "nvcc is not here"
    version = subprocess.run([NVCC, "--version"], capture_output=True, text=True, check=True).stdout
    release = version.split("release ")[1].split(",")[0]
    lines = [
        "# What the CUDA compiler says of every kernel",
        "",
        f"nvcc {release}, `-arch` only, no other option. Written by `python -m benchmarks.nvcc`; no GPU took part.",
        "",
        "| file | kernel | traits | architecture | registers | spilled bytes | shared bytes |",
        "|---|---|---|---|---|---|---|",
    ]
    for source in SOURCES:
        for row in resources(source):
            cells = (row.name, row.traits, row.architecture, row.registers, row.spilled, row.shared)
            lines.append("| " + " | ".join(str(cell) for cell in (source.name, *cells)) + " |")
    lines += ["", "Of these files (SHA-256):", "", *(f"- {source.name} {digest(source)}" for source in SOURCES)]
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
