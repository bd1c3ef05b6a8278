"""The results of `python -m benchmarks` as files, and as the table of README.md between its two markers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import harness

PROJECT = Path(__file__).resolve().parents[1]
RESULTS = PROJECT / "benchmarks" / "results"
README = PROJECT / "README.md"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
FUNCTIONS = {
    "components": "label",
    "contacts": "contact_areas",
    "regions": "region_properties",
    "overlaps": "overlap_counts",
    "assignment": "assignment.assign",
    "masks": "paste_masks",
    "eikonal": "travel_time",
}
FLAT = 1.2
"""The largest time per voxel that still counts as flat, relative to the smallest."""


@dataclass
class Results:
    """The file of one operation."""

    operation: str
    machine: dict[str, Any]
    versions: dict[str, str]
    first_call: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    growth: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, operation: str, machine: dict[str, Any], versions: dict[str, str]) -> Results:
        """The rows so far, if they were measured on this machine; else none."""
        new = cls(operation, machine, versions)
        if new.path.exists():
            old = json.loads(new.path.read_text())
            if old["machine"] == machine:
                names = {case.name for case in harness.cases_of(operation)}
                new.first_call = old["first_call"]
                new.rows = [row for row in old["rows"] if row["case"] in names]
                new.growth = [row for row in old["growth"] if row["case"] in names]
        return new

    @property
    def path(self) -> Path:
        return RESULTS / f"{self.operation}.json"

    def add_row(self, row: dict[str, Any]) -> None:
        """Put a row in place of the one of its case and size."""
        place = (row["case"], row["size"])
        self.rows = [other for other in self.rows if (other["case"], other["size"]) != place] + [row]

    def add_growth(self, growth: dict[str, Any]) -> None:
        self.growth = [other for other in self.growth if other["case"] != growth["case"]] + [growth]

    def write(self) -> None:
        """Write the file, rows in the order of the cases."""
        order = {case.name: k for k, case in enumerate(harness.cases_of(self.operation))}
        self.rows.sort(key=lambda row: (order[row["case"]], row["size"]))
        RESULTS.mkdir(exist_ok=True)
        content = {name: getattr(self, name) for name in ("machine", "versions", "first_call", "rows", "growth")}
        self.path.write_text(json.dumps(rounded(content), indent=1) + "\n")

    def last_row(self) -> str:
        """One line about the row that was added last."""
        row = self.rows[-1]
        speeds = ", ".join(f"{name} {value:.4g}" for name, value in row["million_per_s"].items())
        ratios = ", ".join(f"{name} x{max(by.values()):.2f}" for name, by in row["times_the_peer"].items())
        peaks = ", ".join(f"{name} {value:.0f}" for name, value in row["peak_mb"].items())
        return f"{self.operation}, {row['case']}, {row['size']}: M/s {speeds}; {ratios}; MB {peaks}\n"

    def last_growth(self) -> str:
        growth = self.growth[-1]
        lines = [f"{self.operation}, {growth['case']}"]
        for threads, by_size in growth["ns_per_voxel"].items():
            lines.append(
                f"  {threads} thread(s), ns per voxel: " + ", ".join(f"{s} {t:.3f}" for s, t in by_size.items())
            )
        return "\n".join(lines) + "\n"


def rounded(value: Any) -> Any:
    """The same with four significant digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def plain(value: float) -> str:
    """Three digits or so, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def extent(shape: list[int]) -> str:
    """The shape of a case's first array: 256³, 2048²."""
    if len(set(shape)) == 1 and 1 < len(shape) < 4:
        return f"{shape[0]}{'²³'[len(shape) - 2]}"
    return " x ".join(str(n) for n in shape)


def best_peer(row: dict[str, Any], case: harness.Case) -> str | None:
    """The fastest of the peers that answer the same question."""
    rivals = [name for name in row["times_the_peer"] if not case.peers[name].baseline]
    return min(rivals, key=lambda name: row["seconds"][name]) if rivals else None


def times_the_best(row: dict[str, Any], case: harness.Case) -> str:
    """How many times as fast as the fastest peer, on two threads."""
    peer = best_peer(row, case)
    return f"{row['times_the_peer'][peer]['2']:.3g}" if peer else ""


def lines_of(results: dict[str, Any], operation: str) -> Iterator[str]:
    """The table's lines about one operation."""
    listed = {case.name: case for case in harness.cases_of(operation)}
    first = results["first_call"]
    cold, warm = (f"{first[name]:.2g}" if name in first else "" for name in ("cold_s", "warm_s"))
    at_size = {(row["case"], row["size"]): row for row in results["rows"]}
    for row in results["rows"]:
        case = listed.get(row["case"])
        if case is None or not case.shown or row["size"] not in (*case.edges, 0):
            continue
        speed = row["million_per_s"]
        peer = best_peer(row, case)
        against = ["", "", "", f"{row['peak_mb']['ours']:.0f}"]
        others = [at_size.get((case.name, size)) for size in (row["size"] // 2, row["size"] * 2) if row["size"]]
        if peer:
            ratio = row["times_the_peer"][peer]
            against = [
                peer,
                f"{ratio['1']:.3g} / {ratio['2']:.3g}",
                " / ".join(times_the_best(other, case) if other else "" for other in others) if any(others) else "",
                f"{row['peak_mb']['ours']:.0f} / {row['peak_mb'][peer]:.0f}",
            ]
        cells = [
            FUNCTIONS[operation],
            row["case"],
            extent(row["shape"]),
            plain(speed["ours 1"]),
            plain(speed["ours 2"]),
            *against,
            cold,
            warm,
        ]
        yield "| " + " | ".join(cells) + " |"


def growth_lines(files: dict[str, dict[str, Any]]) -> Iterator[str]:
    """How the time per voxel grows, on one thread and on two: the extremes, their ratio, and how far off the mean."""
    for operation, results in files.items():
        for growth in results["growth"]:
            parts = []
            for threads, by_size in growth["ns_per_voxel"].items():
                low, high = min(by_size, key=lambda s: by_size[s]), max(by_size, key=lambda s: by_size[s])
                mean = sum(by_size.values()) / len(by_size)
                parts.append(
                    f"{by_size[low]:.3g} at {low}³ to {by_size[high]:.3g} at {high}³ "
                    f"({threads} thread{'s' if threads != '1' else ''}, x{by_size[high] / by_size[low]:.2f}; "
                    f"{by_size[low] / mean - 1:+.0%} to {by_size[high] / mean - 1:+.0%} of the mean)"
                )
            yield f"| {FUNCTIONS[operation]} | {growth['case']} | " + " | ".join(parts) + " |"


def markdown(files: dict[str, dict[str, Any]]) -> str:
    """Everything between the markers."""
    machine = next(iter(files.values()))["machine"]
    dates = sorted({row["date"] for results in files.values() for row in results["rows"]})
    lines = [
        f"{machine['processor']} (family {machine['family']}), {machine['cores']} cores, {machine['memory_gb']} GB; "
        f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}.",
        "",
        "| function | case | shape | M/s, 1 thread | 2 threads | fastest peer | times the peer, 1 / 2 threads "
        "| at half / twice the edge, 2 threads | peak MB, ours / peer | cold s | warm s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for operation, results in files.items():
        lines += lines_of(results, operation)
    grown = list(growth_lines(files))
    if grown:
        lines += [
            "",
            "| function | case | ns per voxel, 64³ to 640³, one thread | two threads |",
            "|---|---|---|---|",
            *grown,
        ]
    return "\n".join(lines)


def write_readme() -> None:
    """Write the table anew from the files of all operations."""
    paths = {operation: RESULTS / f"{operation}.json" for operation in harness.OPERATIONS}
    files = {operation: json.loads(path.read_text()) for operation, path in paths.items() if path.exists()}
    text = README.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    README.write_text(f"{before}{BEGIN}\n{markdown(files)}\n{END}{after}")
