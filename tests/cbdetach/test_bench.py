"""`cbdetach bench`: what it measures, that no wrong answer passes its checks, and what it says."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.cbdetach.test_cli import command
from tests.contract.backends import ON_GPU
from tests.host_cuda import COMPILER
from tests.host_cuda.pretend_cupy import pretended

import voxkernels as vk
from cbdetach import bench, device, pipeline
from cbdetach.bench import cases, machine, table
from cbdetach.errors import InputError
from cbdetach.phantom import Phantom

HAVE_GPU_VERSION = {name for names in ON_GPU.values() for name in names}
NAMES = [
    *("travel_time, order 2", "travel_time, order 1", "trace_paths", "label, 6", "label, 18", "label, 26"),
    *("label, 26, phases", "contact_areas, faces", "contact_areas, crofton", "contact_areas, weighted"),
    *("region_properties", "region_properties, grey", "overlap_counts", "overlap_counts_stack", "paste_masks"),
]


@pytest.fixture(scope="module")
def measured() -> bench.Bench:
    """Every kernel on the processors, and on kernels of the GPU that are built for the host, where they can be."""
    if COMPILER is None:
        return bench.bench(size=32, repeats=2, pipeline=False, copy_bytes=2**20)
    with pretended():
        return bench.bench(size=32, repeats=2, pipeline=False, copy_bytes=2**20)


@pytest.fixture(scope="module")
def scene() -> dict[str, cases.Case]:
    """The cases of a small electrode."""
    truth = Phantom(shape=(32, 32, 32)).volume()
    return {case.name: case for case in cases.every_case(truth.labels, truth.phases, truth.grey)}


def test_every_kernel_is_measured(measured: bench.Bench) -> None:
    rows = [row for row in measured.rows if row.device == "cpu"]
    assert [row.case for row in rows] == NAMES
    assert {row.kernel for row in rows} == set(cases.KERNELS)
    for row in rows:
        assert row.error == ""
        assert row.first_s is not None
        assert row.median_s is not None
        assert row.least_s is not None
        assert 0 < row.least_s <= row.median_s
        assert row.per_s == pytest.approx(row.size / row.median_s)
        assert row.bytes is not None
        assert row.share_of_copy == pytest.approx(row.bytes / row.median_s / measured.copy["cpu"])
        assert row.end_to_end_s is None
    sizes = {row.case: (row.size, row.bytes) for row in rows}
    n = 32**3
    assert sizes["label, 6"] == (n, n * (1 + 4))
    assert sizes["travel_time, order 2"] == (n, n * (4 + 1 + 4))
    assert sizes["paste_masks"][0] == 32**2


@pytest.mark.skipif(COMPILER is None, reason="g++ is not here")
def test_every_kernel_is_measured_on_the_gpu(measured: bench.Bench) -> None:
    rows = [row for row in measured.rows if row.device == "cuda"]
    assert [row.case for row in rows] == NAMES
    for row in rows:
        if row.kernel not in HAVE_GPU_VERSION:
            assert "must be a NumPy array" in row.error
            continue
        assert row.error == "", row.case
        assert row.median_s is not None
        assert row.end_to_end_s is not None
        assert row.bytes is not None
        assert row.share_of_copy == pytest.approx(row.bytes / row.median_s / measured.copy["cuda"])
    assert measured.machine["gpu"]["cuda"] == "13.0"


# ---- right answers pass ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [48, 64])
def test_fronts_that_meet_are_no_wrong_answer(size: int) -> None:
    """By order 2 a step there may take more than one voxel: on larger electrodes than the tests' there are some."""
    made = Phantom(shape=(size, size, size)).volume()
    for case in cases.every_case(made.labels, made.phases, made.grey, ("travel_time",)):
        assert case.wrong(case()) == ""


# ---- no wrong answer passes ------------------------------------------------------------------------------------------


def changed(answer: Any, name: str, **values: Any) -> Any:
    """A record with one entry of a field changed."""
    array = getattr(answer, name).copy()
    array.flat[0] += 1
    return dataclasses.replace(answer, **{name: array, **values})


def at_one_voxel(times: np.ndarray, where: np.ndarray, value: float) -> np.ndarray:
    wrong = times.copy()
    wrong[tuple(np.argwhere(where)[0])] = value
    return wrong


def with_a_point(paths: list[np.ndarray], k: int, point: int, value: Any) -> list[np.ndarray]:
    wrong = [path.copy() for path in paths]
    wrong[k][point] = value
    return wrong


def longest(paths: list[np.ndarray]) -> int:
    return int(np.argmax([len(path) for path in paths]))


WRONG: list[tuple[str, Any, str]] = [
    ("travel_time, order 2", lambda t, _: np.nan_to_num(t, nan=0.0), "numbers where there is none"),
    ("travel_time, order 2", lambda t, _: np.where(np.isfinite(t), np.inf, t), "touches a source is not reached"),
    ("travel_time, order 2", lambda t, _: at_one_voxel(t, t > 3, np.inf), "neighbour of a reached voxel"),
    ("travel_time, order 1", lambda t, _: at_one_voxel(t, np.isfinite(t), 9.0), "takes longer than one voxel"),
    ("travel_time, order 2", lambda t, _: at_one_voxel(t, np.isfinite(t), 9.0), "takes longer than one voxel"),
    ("travel_time, order 1", lambda t, _: t * 1.01, "a step of one voxel takes longer"),
    ("travel_time, order 2", lambda t, _: t * 1.01, "a step of one voxel takes longer"),
    ("travel_time, order 1", lambda t, _: np.where(np.isfinite(t), t * 0.1, t), "shorter than the straight one"),
    ("trace_paths", lambda paths, _: paths[1:], "paths from"),
    ("trace_paths", lambda paths, _: with_a_point(paths, 0, 0, 0), "begins elsewhere"),
    ("trace_paths", lambda paths, _: with_a_point(paths, longest(paths), -2, -1), "leaves its label"),
    ("trace_paths", lambda paths, _: [p[:1] for p in paths], "far from any contact"),
    ("trace_paths", lambda paths, _: [np.concatenate([p, p[-2::-1], p[1:]]) for p in paths], "have a wrong length"),
    ("label, 6", lambda a, _: (np.where(a[0] == 1, np.arange(32), a[0]), a[1]), "have several labels"),
    ("label, 6", lambda a, _: (np.minimum(a[0], 1), a[1]), "is that of several components"),
    ("label, 18", lambda a, _: (np.maximum(a[0], 1), a[1]), "or of the background"),
    ("label, 26", lambda a, _: (a[0], a[1] + 1), "components, SciPy has"),
    ("label, 26, phases", lambda a, _: (np.where(a[0] == 1, 2, a[0]), a[1]), "is that of several components"),
    ("contact_areas, faces", lambda a, _: changed(a, "faces"), "the faces across axis 0"),
    ("region_properties", lambda a, _: changed(a, "count"), "the counts are not"),
    ("region_properties", lambda a, _: changed(a, "centroid"), "the centroids along axis 0"),
    ("region_properties, grey", lambda a, _: changed(a, "mean"), "the mean grey values"),
    ("overlap_counts", lambda a, _: changed(a, "count"), "the pairs are not"),
    ("overlap_counts_stack", lambda a, _: a[1:], "30 pairs of 32 slices"),
    ("overlap_counts_stack", lambda a, _: [changed(a[0], "ids_a"), *a[1:]], "the pairs are not"),
    ("paste_masks", lambda a, _: np.roll(a, 16, axis=0), "outside its mask's box"),
    ("paste_masks", lambda a, c: np.where(a == c.arguments[2].argmax() + 1, 0, a), "best disc's area"),
]


@pytest.mark.parametrize(("name", "change", "said"), WRONG, ids=[f"{name}: {said}" for name, _, said in WRONG])
def test_a_wrong_answer_is_found_out(scene: dict[str, cases.Case], name: str, change: Any, said: str) -> None:
    case = scene[name]
    right = case()
    assert case.check(right) == ""
    assert said in case.check(change(right, case))
    assert said in case.wrong(change(right, case))
    assert said in case.wrong_beside(change(right, case), right)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "trace_paths"])
def test_the_reference_is_asked(scene: dict[str, cases.Case], name: str) -> None:
    """A kernel that errs on the block alone, by ever so little, is found out."""
    case = scene[name]

    def off(*arguments: Any, **options: Any) -> Any:
        answer = case.function(*arguments, **options)
        if isinstance(answer, vk.OverlapStack | list):
            return answer[:-1]
        if dataclasses.is_dataclass(answer):
            last = {"contact_areas": "area", "region_properties": "inertia"}.get(case.kernel, "count")
            return dataclasses.replace(answer, **{last: getattr(answer, last) + 2})
        if isinstance(answer, np.ndarray):
            return answer + answer.dtype.type(2)
        return answer[0], answer[1] + 1

    off.__name__, off.__module__ = case.kernel, case.function.__module__
    assert "beside the reference" in dataclasses.replace(case, function=off).wrong(case())


def test_a_gpu_that_differs_is_found_out(scene: dict[str, cases.Case]) -> None:
    case = scene["contact_areas, weighted"]
    right = case()
    assert case.wrong_beside(right, right) == ""
    off = dataclasses.replace(right, pair_area=right.pair_area * (1 + 3e-6))
    assert "values differ pair_area beside the processor, by up to" in case.wrong_beside(off, right)


def test_differences() -> None:
    ones = np.ones(3, np.float32)
    assert cases.difference(ones + np.float32(0.0009), ones, "here") == ""
    assert cases.difference(ones + np.float32(0.0011), ones, "here") == "3 values differ here, by up to 0.0011"
    assert cases.difference(1e4 * ones + np.float32(0.09), 1e4 * ones, "here") == ""
    assert cases.difference(np.ones(2), np.ones(3), "here") == "shape (2,) here, not (3,)"
    assert cases.difference([1, 2], [1], "here") == "2 here, not 1"
    assert cases.difference((1, 2), (1, 3), "here") == "1 values differ here"
    assert cases.difference(np.array([np.nan, np.inf, 1]), np.array([np.nan, np.inf, 1]), "here") == ""
    assert "1 values differ" in cases.difference(np.array([np.nan, 1]), np.array([2.0, 1]), "here")


def test_a_row_with_a_wrong_answer_has_no_time(scene: dict[str, cases.Case], monkeypatch: pytest.MonkeyPatch) -> None:
    case = dataclasses.replace(scene["label, 6"], check=lambda _: "nothing is right")
    rows = bench.measure(case, ["cpu", "cuda"], SimpleNamespace(), {"cpu": 1.0, "cuda": 1.0}, 1)  # type: ignore[arg-type]
    assert [row.error for row in rows] == ["nothing is right", "no answer to compare with: nothing is right"]
    assert all(row.median_s is None for row in rows)

    def broken(*_: Any, **__: Any) -> None:
        raise MemoryError("label: needs 9 GiB")

    broken.__name__ = "label"
    (row,) = bench.measure(dataclasses.replace(case, function=broken), ["cpu"], None, {"cpu": 1.0}, 1)
    assert row.error == "label: needs 9 GiB"


@pytest.mark.skipif(COMPILER is None, reason="g++ is not here")
def test_little_memory_on_the_gpu_is_a_row_of_its_own(scene: dict[str, cases.Case]) -> None:
    with pretended(free=2**10):
        rows = bench.measure(scene["label, 6"], ["cuda"], device.Gpu(), {"cpu": 1.0, "cuda": 1.0}, 1)
    assert len(rows) == 1
    assert rows[0].error.startswith("label: needs ")


@pytest.mark.skipif(COMPILER is None, reason="g++ is not here")
def test_a_wrong_answer_of_the_gpu_has_no_time(scene: dict[str, cases.Case], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases.Case, "wrong_beside", lambda *_: "not the processor's")
    with pretended():
        (row,) = bench.measure(scene["label, 6"], ["cuda"], device.Gpu(), {"cpu": 1.0, "cuda": 1.0}, 1)
    assert (row.error, row.median_s) == ("not the processor's", None)


# ---- the machine -----------------------------------------------------------------------------------------------------


def test_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    copied = []
    monkeypatch.setattr(np, "copyto", lambda to, _: copied.append(to.size))
    ticks: Iterator[float] = iter(np.arange(0, 100, 0.5))
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(ticks))
    assert machine.copy_bandwidth(3, 1000) == 2 * 1000 / 0.5
    assert sorted(copied[:3]) == [333, 333, 334]
    assert sum(copied) == 5 * 1000


def test_the_machine_is_named(measured: bench.Bench) -> None:
    assert measured.machine["processor"]
    assert measured.machine["versions"]["numpy"] == np.__version__
    assert "onnxruntime-gpu" not in measured.machine["versions"]
    assert all(value > 0 for value in measured.copy.values())


# ---- the pipeline ----------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `pipeline.run` was called with; it takes a second for each stage."""
    calls: list[Any] = []

    def run(volume: Path, out: Path, **options: Any) -> Any:
        calls.append((np.load(volume).shape, options))
        if options["device"] == "cuda":
            raise InputError("--device: no.")
        return SimpleNamespace(record={"timings": dict.fromkeys(pipeline.STAGES, 1.0)}, close=lambda: None)

    monkeypatch.setattr(pipeline, "run", run)
    monkeypatch.setattr("voxkernels.warmup", lambda: None)
    return calls


def test_stages(runs: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    found = bench.stage_seconds(np.zeros((2, 3, 4)), (0.1, 0.2, 0.3), ["cpu", "cuda"], 1)
    assert found == {"cpu": dict.fromkeys(pipeline.STAGES, 1.0)}
    assert runs[0] == ((2, 3, 4), {"voxel_size": (0.1, 0.2, 0.3), "device": "cpu", "threads": 1})
    assert caplog.messages == ["no times of the pipeline on cuda: --device: no."]


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_table(measured: bench.Bench) -> None:
    lines = table.describe(measured).splitlines()
    assert lines[0].startswith("processor: ")
    assert "GB/s on one thread" in lines[0]
    assert lines[2] == "volume: a synthetic electrode of 32^3 voxels; medians of 2 calls, answers checked before"
    assert lines[4].split("  ")[0] == "kernel"
    assert lines[5].startswith("travel_time, order 2")
    assert lines[5].split()[3] == "cpu"


def test_the_command_prints_and_writes(runs: list[Any], tmp_path: Path) -> None:
    line = f"bench --size 32 --kernels label,paste_masks --repeats 1 --threads 1 --device cpu --json {tmp_path}/b.json"
    code, said, complained = command(line)
    assert (code, complained) == (0, "")
    assert said.splitlines()[1] == "GPU: none (not asked for)"
    assert "stage       cpu, s\n" in said
    assert said.split()[-2:] == ["all", f"{len(pipeline.STAGES):.2f}"]
    written = json.loads((tmp_path / "b.json").read_text())
    assert {row["kernel"] for row in written["rows"]} == {"label", "paste_masks"}
    assert written["settings"] == {"size": 32, "kernels": ["label", "paste_masks"], "repeats": 1, "on": ["cpu"]}
    assert written["machine"]["threads"] == 1
    assert written["stages"]["cpu"]["report"] == 1.0
    runs.clear()
    assert command(f"{line} --no-pipeline --quiet --kernels paste_masks --overwrite") == (0, "", "")
    assert runs == []
    assert json.loads((tmp_path / "b.json").read_text())["stages"] == {}


def test_a_wrong_answer_ends_with_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases.Case, "wrong", lambda *_: "nothing is right")
    code, said, _ = command("bench --size 32 --kernels paste_masks --no-pipeline --device cpu")
    assert code == 1
    assert said.endswith("paste_masks on cpu: nothing is right\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--size 31", "--size: must be 32 to 1024 voxels; got 31."),
        ("--size 1025", "--size: must be 32 to 1024 voxels; got 1025."),
        ("--repeats 0", "--repeats: must be 1 or more; got 0."),
        ("--kernels label,lable", "--kernels: must be among travel_time, "),
        ("--device gpu", "--device: must be cpu or cuda; got 'gpu'."),
        ("--threads 0", "--threads: must be 1 to "),
        ("--size 32 --kernels paste_masks --no-pipeline --device cpu --json /", "--json: / cannot be written ("),
    ],
)
def test_bad_input(options: str, said: str) -> None:
    code, _, complained = command(f"bench {options}")
    assert code == 2
    assert complained.startswith(f"cbdetach: {said}")
    assert complained.count("\n") == 1


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    code, _, complained = command("bench --device cuda")
    assert code == 2
    assert complained.startswith("cbdetach: --device: 'cuda' must find CuPy; got ")
    code, said, complained = command("bench --size 32 --kernels paste_masks --no-pipeline --repeats 1")
    assert (code, complained) == (0, "")
    assert said.splitlines()[1].startswith("GPU: none ('cuda' must find CuPy; got ")
