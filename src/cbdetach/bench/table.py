"""What was measured, as a text for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cbdetach.bench import Bench, Row


def describe(found: Bench) -> str:
    """The machine, a table of the kernels and one of the stages."""
    parts = ["\n".join(_about(found)), _table(found.rows), _stage_table(found.stages)]
    return "\n\n".join(part for part in parts if part)


def _about(found: Bench) -> Iterator[str]:
    n, copy = found.machine["threads"], {name: f"{value / 1e9:.3g} GB/s" for name, value in found.copy.items()}
    speed = f"copy {copy['cpu, 1 thread']} on one thread, {copy['cpu']} on {n}"
    yield f"processor: {found.machine['processor']}; {speed}"
    if gpu := found.machine["gpu"]:
        said = f"driver for CUDA {gpu['driver']}, CUDA {gpu['cuda']}, CuPy {gpu['cupy']}"
        yield f"GPU: {gpu['name']}, {said}; copy {copy['cuda']}"
    else:
        yield f"GPU: none ({found.machine['why_no_gpu']})"
    size, repeats = found.settings["size"], found.settings["repeats"]
    yield f"volume: a synthetic electrode of {size}^3 voxels; medians of {repeats} calls, answers checked before"


def _table(rows: Sequence[Row]) -> str:
    """The kernels, one line for each on each device; those without an answer last, with the reason."""
    if not rows:
        return ""
    head = ("kernel", "on", "first, s", "ms", "M/s", "of copy", "with transfers, ms")
    lines = [head, *(_cells(row) for row in rows if not row.error)]
    wrong = [f"{row.case} on {row.device}: {row.error}" for row in rows if row.error]
    return "\n".join([*_aligned(lines), *wrong])


def _cells(row: Row) -> tuple[str, ...]:
    assert row.first_s is not None
    assert row.median_s is not None
    assert row.per_s is not None
    assert row.share_of_copy is not None
    whole = "" if row.end_to_end_s is None else f"{1e3 * row.end_to_end_s:.3g}"
    share = f"{100 * row.share_of_copy:.2g} %"
    return (row.case, row.device, f"{row.first_s:.2f}", f"{1e3 * row.median_s:.3g}", _plain(row.per_s), share, whole)


def _plain(per_s: float) -> str:
    """Millions in a second, to three digits, without an exponent."""
    return np.format_float_positional(per_s / 1e6, precision=3, unique=False, fractional=False, trim="-")


def _stage_table(stages: dict[str, dict[str, float]]) -> str:
    if not stages:
        return ""
    names = list(next(iter(stages.values())))
    total = {where: sum(seconds.values()) for where, seconds in stages.items()}
    lines = [("stage", *(f"{where}, s" for where in stages))]
    lines += [(name, *(f"{stages[where][name]:.2f}" for where in stages)) for name in names]
    return "\n".join(_aligned([*lines, ("all", *(f"{total[where]:.2f}" for where in stages))]))


def _aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: tuple[str, ...]) -> str:
        padded = [cells[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(cells[1:], widths[1:], strict=True))]
        return "  ".join(padded).rstrip()

    return [line(cells) for cells in lines]
