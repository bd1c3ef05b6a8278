"""The result files of `benchmarks.gpu`: everything as JSON, and a Markdown page for people."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Found = dict[str, Any]

MUST: tuple[tuple[str, str, float, str], ...] = (
    # case, figure, at least (a time: at most), in words
    ("travel_time, order 1", "per_s", 2e9, ">= 2 Gvox/s of volume"),
    ("travel_time, order 2", "per_s", 1e9, ">= 1 Gvox/s of volume"),
    ("label, 6", "per_s", 10e9, ">= 10 Gvox/s"),
    ("label, 18", "per_s", 10e9, ">= 10 Gvox/s"),
    ("label, 26", "per_s", 10e9, ">= 10 Gvox/s"),
    ("contact_areas, faces", "per_s", 50e9, ">= 50 Gvox/s"),
    ("contact_areas, weighted", "per_s", 20e9, ">= 20 Gvox/s"),
    ("region_properties", "share_of_copy", 1 / 3, "a third of the bandwidth"),
    ("overlap_counts", "share_of_copy", 1 / 3, "a third of the bandwidth"),
    ("paste_masks", "median_s", 0.3e-3, "<= 0.3 ms for 100 masks on 1024^2"),
)
"""What an H200 must reach on the electrode of 512^3 voxels, arrays on the device."""

PUBLISHED_LABEL = (
    "Published: cupyx on a Quadro GV100 (CuPy pull request 3210), 200^3 at random: 2.49 to 2.72 ms, that is 2900 to "
    "3200 Mvox/s."
)
PUBLISHED_EIKONAL = (
    "Published without a time that could be compared: eiko 0.9 (block FIM, order 1; up to 100 times other libraries on "
    "batches of 32 x 64^3), SCI StructuredEikonal (defaults 256^3), Hong and Jeong 2016 (6.17 times on 8 GPUs)."
)


def written(sections: dict[str, Any], sizes: Sequence[int], host: bool, seconds: float, out: Path) -> list[Path]:
    """Write both files, named after the device; their paths."""
    machine = next((found["machine"] for found in _found(sections, "about") if "machine" in found), {})
    gpu = machine.get("gpu") or {}
    name = "host" if host else re.sub(r"\W+", "_", gpu.get("name", "unknown").lower()).strip("_")
    out.mkdir(parents=True, exist_ok=True)
    json_file, page = out / f"gpu_{name}.json", out / f"gpu_{name}.md"
    everything = {"host": host, "sizes": sizes, "seconds": round(seconds, 1), "must": must(sections, sizes)}
    json_file.write_text(json.dumps(everything | {"sections": sections}, indent=1) + "\n")
    page.write_text("\n".join(_page(sections, sizes, host, seconds, machine)) + "\n")
    return [json_file, page]


def must(sections: dict[str, Any], sizes: Sequence[int]) -> list[Found]:
    """Each figure that must be reached, what was measured at the largest size, and "yes", "no" or "not measured"."""
    rows = []
    for case, figure, bound, words in MUST:
        measured = [
            row[figure] for row in _kernels(sections)
            if (row["case"], row["device"], row["regime"], row["edge"]) == (case, "cuda", "electrode", max(sizes))
            and row.get(figure) is not None
        ]  # fmt: skip
        value = measured[-1] if measured else None
        enough = value is not None and (value <= bound if figure == "median_s" else value >= bound)
        reached = "not measured" if value is None else "yes" if enough else "no"
        rows.append({"case": case, "must": words, "figure": figure, "measured": value, "reached": reached})
    return rows


def _page(sections: dict[str, Any], sizes: Sequence[int], host: bool, seconds: float, machine: Found) -> Iterator[str]:
    gpu = machine.get("gpu") or {}
    yield f"# Kernels on {gpu.get('name', 'a GPU that did not answer')}"
    yield ""
    yield f"Written by `python -m benchmarks.gpu{' --host' if host else ''}` in {seconds:.0f} s."
    if host:
        yield "**No GPU took part: kernels built for the host at toy size. The times mean nothing.**"
    known = {**gpu, "processor": machine.get("processor"), "threads": machine.get("threads")}
    yield ", ".join(f"{key} {value}" for key, value in (known | machine.get("versions", {})).items()) + "."
    yield ""
    copies = [found for found in _found(sections, "about") if "copy" in found]
    yield from _table(("copy", "GB/s"), [(found["copy"], _short(found["bytes_per_s"] / 1e9)) for found in copies])
    yield f"## What must be reached (H200), electrode of {max(sizes)}^3"
    yield ""
    rows = [(r["case"], r["must"], _measured(r["figure"], r["measured"]), r["reached"]) for r in must(sections, sizes)]
    yield from _table(("case", "must", "measured", "reached"), rows)
    yield "## Contract suites on the device"
    yield ""
    for found in _found(sections, "contract"):
        counts = ", ".join(
            f"{found[what]} {what}" for what in ("passed", "failed", "errors", "skipped") if what in found
        )
        yield f"{counts or 'no result'} in {found.get('seconds', 0):.0f} s."
        yield from (f"- {line}" for line in found.get("failures", []))
    yield ""
    yield "## Kernels, on the processors and on the device"
    yield ""
    yield "Medians. Answers of the device equal the processor's. M/s: millions of voxels (masks: pixels) in a second."
    yield ""
    head = (
        "case",
        "regime",
        "edge",
        "CPU, ms",
        "GPU, ms",
        "GPU, M/s",
        "of copy",
        "times",
        "with transfers, ms",
        "times",
    )
    yield from _table(head, list(_pairs(sections)))
    yield "## What a call is made of, on the device"
    yield ""
    yield "By events around every launch; the rest of the whole is what the host does, and waits for the device."
    yield ""
    rows = [
        (f["case"], f["edge"], _ms(f["whole_s"]), ", ".join(f"{n} {k} {_ms(t)}" for k, (n, t) in f["launches"].items()))
        for f in _found(sections, "launches") if "launches" in f
    ]  # fmt: skip
    yield from _table(("case", "edge", "whole, ms", "launches, ms"), rows)
    yield "## Connected components beside others, on the device"
    yield ""
    head = ("peer", "connectivity", "edge", "ms", "M/s", "same answer")
    rows = [
        (f["peer"], f["connectivity"], f["edge"], _ms(f["median_s"]), _short(f["per_s"] / 1e6), f.get("same", ""))
        for f in _found(sections, "peers_label") if "median_s" in f
    ]  # fmt: skip
    yield from _table(head, rows)
    yield PUBLISHED_LABEL
    yield ""
    yield "## Eikonal problems that others have published"
    yield ""
    head = ("problem", "order", "ms", "Mvox/s", "published, ms", "times", "source")
    rows = [
        (f["problem"], f["order"], _ms(f["median_s"]), _short(f["per_s"] / 1e6), _ms(f["published_s"]),
         _short(f["published_s"] / f["median_s"]), f["source"])
        for f in _found(sections, "published_eikonal") if "median_s" in f
    ]  # fmt: skip
    yield from _table(head, rows)
    yield PUBLISHED_EIKONAL
    yield ""
    yield "## The pipeline's stages, seconds"
    yield ""
    runs = [found for found in _found(sections, "pipeline") if found.get("stages")]
    if runs:
        stages = [(name, *(_short(run["stages"][name]) for run in runs)) for name in runs[0]["stages"]]
        yield from _table(("stage", *(f"{run['place']}, {run['edge']}^3" for run in runs)), stages)
    yield "## What failed or was left out"
    yield ""
    missing = list(_missing(sections))
    yield from (f"- {line}" for line in missing or ["nothing"])


def _pairs(sections: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """The processor's and the device's row of each case, in one."""
    rows = {(r["case"], r["regime"], r["edge"], r["device"]): r for r in _kernels(sections) if not r["error"]}
    for (case, regime, edge, device), there in rows.items():
        here = rows.get((case, regime, edge, "cpu"))
        if device == "cuda" and here is not None:
            warm, whole = there["median_s"], there["end_to_end_s"]
            yield (
                case, regime, edge, _ms(here["median_s"]), _ms(warm), _short(there["per_s"] / 1e6),
                _percent(there["share_of_copy"]), _short(here["median_s"] / warm), _ms(whole),
                _short(here["median_s"] / whole),
            )  # fmt: skip


def _missing(sections: dict[str, Any]) -> Iterator[str]:
    for name, section in sections.items():
        if section["stopped"]:
            yield f"{name}: {section['stopped']}"
        for found in section["found"]:
            if found.get("error"):
                places = (found.get(key) for key in ("left_out", "case", "peer", "regime", "edge", "device"))
                yield f"{name}: {', '.join(str(p) for p in places if p)}: {found['error'].splitlines()[-1]}"


def _found(sections: dict[str, Any], name: str) -> list[Found]:
    return list(sections.get(name, {}).get("found", []))


def _kernels(sections: dict[str, Any]) -> list[Found]:
    return [row for section in sections.values() for row in section["found"] if "share_of_copy" in row]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    if rows:
        yield "| " + " | ".join(head) + " |"
        yield "|" + "---|" * len(head)
        yield from ("| " + " | ".join(map(str, row)) + " |" for row in rows)
    else:
        yield "No results."
    yield ""


def _measured(figure: str, value: float | None) -> str:
    if value is None:
        return ""
    if figure == "per_s":
        return f"{_short(value / 1e9)} Gvox/s"
    return f"{100 * value:.3g} %" if figure == "share_of_copy" else f"{_ms(value)} ms"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2g} %"


def _ms(seconds: float) -> str:
    return _short(1e3 * seconds)


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
