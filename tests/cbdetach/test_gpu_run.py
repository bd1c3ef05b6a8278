"""Runs with `--device cuda`, on kernels built for the host: the same results; one sentence for whatever is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from tests.cbdetach.plain_report import reports_without_figures
from tests.cbdetach.test_cli import command
from tests.host_cuda import COMPILER
from tests.host_cuda.pretend_cupy import launched, pretended

import cbdetach
import voxkernels as vk
from cbdetach import connected, device, pipeline
from cbdetach.codes import ACTIVE, CBD
from cbdetach.errors import InputError, ResumableError
from cbdetach.pipeline import segment
from cbdetach.results import Run

pytestmark = pytest.mark.skipif(COMPILER is None, reason="the kernels of the GPU are built with g++, which is not here")

VOXEL = 0.5
OPTIONS: dict[str, Any] = {
    "phase_values": {"void": 0, "cbd": 1, "active": 2},
    "voxel_size": VOXEL,
    "slab": 8,
    "segmenter": "maskrcnn",
    "anchor": "z0",
    "config": {"segment": {"halo": 8}, "diffusion": {"min_contact_um2": 1.0}},
}


def electrode() -> np.ndarray:
    """Phases: four balls, three of them coated below the middle, two of them cracked."""
    z, y, x = np.indices((20, 26, 26))
    phases = np.zeros(z.shape, np.uint8)
    for n, (cy, cx) in enumerate(((7, 7), (7, 19), (19, 7), (19, 19))):
        r = np.sqrt((z - 9.5) ** 2 + (y - cy) ** 2 + (x - cx) ** 2)
        phases[(r <= 7) & (z < 10) & (n < 3)] = CBD
        phases[r <= 5.6] = ACTIVE
        phases[(r <= 4) & (x == cx) & (y >= cy) & (n % 2 == 0)] = 0
    return phases


@pytest.fixture(scope="module", autouse=True)
def plain_report() -> Iterator[None]:
    """Reports without figures, which take the longest."""
    with reports_without_figures():
        yield


def measure(out: Path, place: str, **options: Any) -> Run:
    phases = electrode()
    grey = (phases * 1000.0 + np.arange(phases.size).reshape(phases.shape) % 50).astype(np.uint16)
    return cbdetach.run(grey, out, phases=phases, device=place, **{**OPTIONS, **options})


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run, set[tuple[str, str]]]:
    """The run on the processors, the one on the "GPU", and the kernels that have worked there."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("runs")
    here = measure(folder / "cpu", "cpu")
    launched.clear()
    with pretended():
        there = measure(folder / "cuda", "cuda")
    return here, there, set(launched)


def test_results_are_the_same(both: tuple[Run, Run, set[tuple[str, str]]]) -> None:
    here, there, _ = both
    assert len(here.table) == 4
    assert here.table["crack_fraction"].max() > 0
    assert here.table["diffusion_length_mean_um"].notna().all()
    assert list(there.table.columns) == list(here.table.columns)
    for name in here.table.columns:
        one, other = here.table[name], there.table[name]
        if not pd.api.types.is_float_dtype(one):
            assert one.equals(other), name
            continue
        length = name.startswith(("diffusion_length", "contact_ratio", "crack_ratio"))
        loose = {"rtol": 1e-5, "atol": 1e-3 * VOXEL} if length else {"rtol": 1e-9, "atol": 1e-12}
        np.testing.assert_allclose(other.to_numpy(float), one.to_numpy(float), err_msg=name, **loose)
    for name in here.volumes:
        one, other = (np.asarray(run.volumes[name]) for run in (here, there))
        assert one.dtype == other.dtype
        if name == "diffusion_length":
            np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-3 * VOXEL)
        else:
            np.testing.assert_array_equal(other, one, err_msg=name)


def test_every_kernel_of_the_stages_has_worked_there(both: tuple[Run, Run, set[tuple[str, str]]]) -> None:
    _, _, kernels = both
    expected = {"components", "eikonal", "masks", "overlaps", "regions"} | (
        {"contacts"} if hasattr(vk.contacts, "cuda") else set()
    )
    assert {operation for operation, _ in kernels} == expected


def test_the_record_names_the_device(both: tuple[Run, Run, set[tuple[str, str]]]) -> None:
    here, there, _ = both
    assert set(here.record["device"]) == {"kind", "machine"}
    assert here.record["device"]["kind"] == "cpu"
    assert there.record["device"]["kind"] == "cuda"
    assert there.record["device"]["name"] == "no GPU (kernels built for the host)"
    assert there.record["device"]["driver"] == "13.0"
    behind = "The network runs on the processors: "
    assert [any(w.startswith(behind) for w in run.record["warnings"]) for run in (here, there)] == [False, True]


def test_a_run_resumes_on_its_own_device_only(both: tuple[Run, Run, set[tuple[str, str]]], tmp_path: Path) -> None:
    here, there, _ = both
    for run, other, said in (
        (here, "cuda", "cuda, cupy, driver, kind, name"),
        (there, "cpu", "cuda, cupy, driver, kind"),
    ):
        with pretended(), pytest.raises(InputError, match=rf"holds a run on another device \({said}"):
            measure(run.path, other, resume=True)
    with pretended():
        assert len(measure(there.path, "cuda", resume=True).table) == 4


def test_an_interrupted_run_goes_on(
    both: tuple[Run, Run, set[tuple[str, str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, there, _ = both

    def stop(_: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pretended():
        with monkeypatch.context() as patch:
            patch.setitem(pipeline.STAGES, "damage", stop)
            with pytest.raises(KeyboardInterrupt):
                measure(tmp_path / "run", "cuda")
        assert measure(tmp_path / "run", "cuda", resume=True).table.equals(there.table)


# ---- what is said ----------------------------------------------------------------------------------------------------


@pytest.fixture
def line(tmp_path: Path) -> str:
    """A command line that would run, but for the device."""
    np.save(tmp_path / "phases.npy", electrode())
    values = "--phase-values void=0,cbd=1,active=2 --voxel-size 0.5"
    return f"run --phases {tmp_path}/phases.npy {values} -o {tmp_path}/out --device cuda"


def test_no_cupy(line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    code, said, complained = command(line)
    assert (code, said) == (2, "")
    assert complained.startswith("cbdetach: --device: 'cuda' must find CuPy; got ")
    assert complained.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert command(line.replace("cuda", "cpu") + " --dry-run")[0] == 0


def test_no_gpu_and_an_old_driver(line: str) -> None:
    with pretended() as cupy:
        cupy.cuda.runtime.driverGetVersion = lambda: 11080
        code, _, complained = command(line)
        assert code == 2
        assert complained.startswith("cbdetach: --device: 'cuda' must find an NVIDIA driver for CUDA 12 or later; got ")
        cupy.cuda.runtime.driverGetVersion = lambda: 13000
        cupy.cuda.runtime.getDeviceCount = mock.Mock(side_effect=cupy.cuda.runtime.CUDARuntimeError("none is detected"))
        code, _, complained = command(line)
        assert code == 2
        assert complained == "cbdetach: --device: 'cuda' must find a GPU; got none is detected. Use the CPU here.\n"


def test_another_device(line: str) -> None:
    code, _, complained = command(line.replace("cuda", "tpu"))
    assert (code, complained) == (2, "cbdetach: --device: must be cpu or cuda; got 'tpu'.\n")


def test_what_cannot_fit_is_refused(line: str) -> None:
    refused = (
        "cbdetach: --device: this run needs about 0.5 GB on the GPU, 0.1 GB are free; choose thinner slabs with "
        "--slab, measure a part with --crop, or use --device cpu.\n"
    )
    with pretended(free=10**8):
        for each in (line, f"{line} --dry-run"):
            code, _, complained = command(each)
            assert (code, complained) == (2, refused)
    with pretended(free=10**9):
        code, said, complained = command(f"{line} --dry-run")
        assert (code, complained) == (0, "")
        assert " GB on the GPU, " in said
    assert "on the GPU" not in command(line.replace("cuda", "cpu") + " --dry-run")[1]


def test_memory_that_others_take_meanwhile(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended(free=10**3):
        monkeypatch.setattr(device.Gpu, "free", 10**12)
        code, _, complained = command(line)
    assert code == 2
    assert "cbdetach: --device: cuda has too little memory (" in complained
    assert complained.endswith(
        "GiB are free); free some and continue with --resume, or start again with --overwrite and thinner slabs "
        "(--slab) or --device cpu.\n"
    )
    assert json.loads((tmp_path / "out" / "run.json").read_text())["stages"]["phases"] == "done"
    monkeypatch.undo()
    with pretended():
        assert command(f"{line} --resume --quiet")[0] == 0


def test_memory_as_cupy_says_it() -> None:
    def kernel(_: Any) -> None:
        raise MemoryError("Out of memory allocating 9 bytes (allocated so far: 1 bytes).")

    with pretended(), pytest.raises(ResumableError, match=r"too little memory \(Out of memory allocating 9 bytes"):
        device.Gpu().call(kernel, np.ones(1))


# ---- the network -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gpu", "provider"), [(None, "cpu"), (SimpleNamespace(), None)])
def test_the_network_goes_with_the_kernels(gpu: Any, provider: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from cbdetach import job as job_module

    asked: dict[str, Any] = {}
    monkeypatch.setattr(job_module.maskrcnn, "Segmenter", lambda model, **options: asked.update(options))
    monkeypatch.setattr(job_module.Job, "model", "a file")
    job_module.Job(*[None] * 7, gpu=gpu).network  # type: ignore[arg-type]  # noqa: B018
    assert asked == {"provider": provider}


def test_a_network_that_stays_behind_is_reported() -> None:
    def job(gpu: Any, model: Any, provider: str) -> Any:
        found = SimpleNamespace(model=SimpleNamespace(provider=provider, why="no wheel."))
        return SimpleNamespace(gpu=gpu, model=model, network=found)

    assert segment._network_warnings(job("a GPU", "m", "cpu")) == ["The network runs on the processors: no wheel."]
    for there in (job(None, "m", "cpu"), job("a GPU", None, "cpu"), job("a GPU", "m", "cuda")):
        assert segment._network_warnings(there) == []


# ---- slabs -----------------------------------------------------------------------------------------------------------


def test_slabs_are_labelled_there_one_by_one() -> None:
    free = [slab == CBD for slab in np.array_split(electrode(), 3)]
    anchor = [np.zeros_like(slab) for slab in free]
    anchor[0][0] = free[0][0]
    expected = np.concatenate(list(connected.classify(free, anchor, connectivity=6)))
    launched.clear()
    with pretended(), device.on(device.Gpu()):
        found = np.concatenate(list(connected.classify(free, anchor, connectivity=6)))
    np.testing.assert_array_equal(found, expected)
    assert ("components", "rename_labels") in launched
