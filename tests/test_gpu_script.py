"""`python -m benchmarks.gpu`, tried without a GPU: it runs, and a section that fails costs itself only."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import gpu, gpu_table
from tests.host_cuda import COMPILER

from cbdetach.bench.cases import KERNELS
from cbdetach.codes import ACTIVE, CBD


@pytest.fixture
def task(tmp_path: Path) -> gpu.Task:
    """A section's task, with time left."""
    return gpu.Task((16,), True, tmp_path, tmp_path / "found.json", time.time() + 100)


@pytest.mark.skipif(COMPILER is None, reason="g++ is not here")
def test_the_script_runs_without_a_gpu(tmp_path: Path) -> None:
    sections = "about,contract,paste_masks,overlap_counts,launches,peers_label,published_eikonal"
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu",
        "--host",
        "--sizes",
        "12",
        "--sections",
        sections,
        "--out",
        tmp_path,
    ]
    done = subprocess.run(command, cwd=gpu.PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu_host.json").read_text())
    assert found["host"] is True
    assert list(found["sections"]) == sections.split(",")
    assert found["sections"]["contract"]["found"][0]["passed"] > 5
    rows = found["sections"]["overlap_counts"]["found"]
    assert {(r["case"], r["device"], r["regime"]) for r in rows} == {
        ("overlap_counts", device, regime) for device in ("cpu", "cuda") for regime in gpu.REGIMES
    }
    assert all(r["error"] == "" and r["median_s"] > 0 for r in rows)
    of_call = {f["case"]: f["launches"] for f in found["sections"]["launches"]["found"]}
    assert of_call["travel_time, order 2"]["second"][0] >= 8
    assert of_call["travel_time, order 2"]["start_lines"][0] == 1
    assert "second" not in of_call["travel_time, order 1"]
    assert all(s > 0 for launches in of_call.values() for _, s in launches.values())
    peers = found["sections"]["peers_label"]["found"]
    assert "No module named 'cupyx'" in next(p for p in peers if p["peer"].startswith("cupyx"))["error"]
    assert len([p for p in peers if p["peer"] == "cbdetach" and p["median_s"] > 0]) == 6
    problems = found["sections"]["published_eikonal"]["found"]
    assert [(p["order"], p["published_s"]) for p in problems] == [(1, 0.156), (2, 0.156), (1, 0.768), (2, 0.768)]
    assert problems[1]["largest_relative_error"] < problems[0]["largest_relative_error"] < 0.2
    page = (tmp_path / "gpu_host.md").read_text()
    assert "No GPU took part" in page
    assert "| overlap_counts | electrode | 12 | " in page
    assert "| overlap_counts | a third of the bandwidth | " in page
    assert "peers_label: bkeccl, 12: ModuleNotFoundError: No module named 'bkeccl'" in page


def test_every_kernel_and_every_must_is_there() -> None:
    assert set(gpu.KERNELS) == set(KERNELS) - {"overlap_counts_stack"}
    assert {case.split(",")[0] for case, *_ in gpu_table.MUST} <= set(gpu.KERNELS)
    assert sum(limit for limit, _ in gpu.SECTIONS.values()) > 480  # no section waits for time that another leaves


def test_regimes(tmp_path: Path) -> None:
    labels, phases, grey = gpu.scene("electrode", 40, tmp_path)
    again = gpu.scene("electrode", 40, tmp_path)
    for a, b in zip((labels, phases, grey), again, strict=True):
        np.testing.assert_array_equal(a, b)
    dark = (labels > 0) & (phases != ACTIVE)
    assert 0.02 < dark.sum() / (labels > 0).sum() < 0.4  # cracks
    assert 0.35 < (phases[labels == 0] == CBD).mean() < 0.55
    labels, phases, _ = gpu.scene("constant", 16, tmp_path)
    assert (labels == 1).sum() == 16**3 - 8
    assert (phases == CBD).sum() == 8
    labels, phases, _ = gpu.scene("noise", 16, tmp_path)
    assert len(np.unique(labels)) > 250


def test_what_stops_a_section_is_one_of_its_results(task: gpu.Task, monkeypatch: pytest.MonkeyPatch) -> None:
    def section(given: gpu.Task) -> None:
        given.keep(figure=1)
        raise ValueError("the device\nbroke")

    monkeypatch.setitem(gpu.SECTIONS, "about", (1, section))
    gpu.run_section("about", task)
    one, other = json.loads(task.into.read_text())
    assert one == {"figure": 1}
    assert other["error"] == "ValueError: the device"
    assert "raise ValueError" in other["trace"]


def test_time(task: gpu.Task, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not task.late("something", 50)
    assert task.late("something", 200)
    assert task.found == [{"left_out": "something", "error": "no time was left"}]
    limits = []

    def run(command: list[str], timeout: float, **_: Any) -> Any:
        limits.append(timeout)
        if "label" in command:
            Path(command[-2]).write_text('[{"figure": 1}]')
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, 3, "", "Segmentation fault")

    monkeypatch.setattr(gpu.subprocess, "run", run)
    found = gpu.run_all((16,), True, 40.0, ["label", "about"])
    assert limits[0] == pytest.approx(40, abs=1)
    assert limits[1] == pytest.approx(30, abs=1)
    assert found["label"]["stopped"] == "stopped after 40 s"
    assert found["label"]["found"] == [{"figure": 1}]
    assert found["about"]["stopped"] == "it ended with code 3: Segmentation fault"
    assert gpu.run_all((16,), True, 0.5, ["label"])["label"]["stopped"] == "no time was left"


def test_reached_or_not(tmp_path: Path) -> None:
    def row(case: str, **figures: Any) -> dict[str, Any]:
        base = {"case": case, "regime": "electrode", "edge": 512, "device": "cuda", "error": "", "share_of_copy": 0.1}
        return {**base, "median_s": 1.0, "end_to_end_s": 2.0, "per_s": 1.0, **figures}

    rows = [
        row("label, 6", per_s=11e9),
        row("label, 18", per_s=9e9),
        row("label, 26", per_s=11e9, edge=256),
        row("region_properties", share_of_copy=0.34),
        row("overlap_counts", share_of_copy=0.33),
        row("paste_masks", median_s=0.29e-3),
        row("contact_areas, faces", per_s=60e9, regime="noise"),
        row("label, 6", device="cpu", median_s=3.0, end_to_end_s=None),
    ]
    sections = {
        "about": {"stopped": "", "found": [{"machine": {"gpu": {"name": "NVIDIA H200"}}}]},
        "kernels": {"stopped": "it hung", "found": rows},
    }
    reached = {r["case"]: r["reached"] for r in gpu_table.must(sections, (256, 512))}
    assert {case for case, said in reached.items() if said == "yes"} == {"label, 6", "region_properties", "paste_masks"}
    assert {case for case, said in reached.items() if said == "no"} == {"label, 18", "overlap_counts"}
    assert reached["label, 26"] == reached["contact_areas, faces"] == "not measured"
    files = gpu_table.written(sections, (256, 512), False, 9.0, tmp_path)
    assert [path.name for path in files] == ["gpu_nvidia_h200.json", "gpu_nvidia_h200.md"]
    page = files[1].read_text()
    assert "| label, 6 | >= 10 Gvox/s | 11 Gvox/s | yes |" in page
    assert "| label, 6 | electrode | 512 | 3000 | 1000 | 11000 | 10 % | 3 | 2000 | 1.5 |" in page
    assert "- kernels: it hung" in page
