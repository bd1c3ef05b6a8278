"""Runs with `--scheduler`: the bytes of a run without; one sentence for whatever is wrong; nothing left that works on.

One cluster of two processes serves the whole file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import gaussian_filter
from tests.cbdetach.interrupts import stopped
from tests.cbdetach.plain_report import reports_without_figures
from tests.cbdetach.test_cli import command
from tests.cbdetach.tiny_onnx import blobs
from tests.host_cuda import COMPILER
from tests.host_cuda.pretend_cupy import pretended

import cbdetach
from cbdetach import files, pipeline, scheduler, store
from cbdetach.codes import ACTIVE, CBD
from cbdetach.errors import InputError, Interrupted, ResumableError
from cbdetach.estimate import estimate
from cbdetach.job import Job, open_job, resolved_settings
from cbdetach.prepare import look_up, prepared

distributed = pytest.importorskip(
    "distributed", reason="dask.distributed is not here: pip install 'cbdetach[distributed]'"
)

Arrays = Mapping[str, npt.NDArray[Any]]
VALUES: dict[str, Any] = {"phase_values": {"void": 0, "cbd": 1, "active": 2}, "voxel_size": 0.5, "slab": 8}
LINE = "run --phases phases.npy --phase-values void=0,cbd=1,active=2 --voxel-size 0.5 --slab 8"
GREY: dict[str, Any] = {"voxel_size": 0.5, "slab": 8, "anchor": "z0", "config": {"segment": {"halo": 8}}}
NOWHERE = "tcp://127.0.0.1:1"


def electrode() -> npt.NDArray[np.uint8]:
    """Phases: four balls, three of them coated below the middle."""
    z, y, x = np.indices((20, 26, 26))
    phases = np.zeros(z.shape, np.uint8)
    for n, (cy, cx) in enumerate(((7, 7), (7, 19), (19, 7), (19, 19))):
        r = np.sqrt((z - 9.5) ** 2 + (y - cy) ** 2 + (x - cx) ** 2)
        phases[(r <= 8) & (z < 10) & (n < 3)] = CBD
        phases[r <= 5.6] = ACTIVE
    return phases


def contents(folder: Path) -> dict[str, Any]:
    """Hash of every slab, table and figure; what stages have found; and the record without its timings."""
    wanted = [p for pattern in ("*/slab_*.h5", "*/result.json", "figures/*", "*.csv") for p in folder.glob(pattern)]
    found: dict[str, Any] = {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in wanted}
    record = json.loads((folder / "run.json").read_text())
    return found | {"run.json": {k: v for k, v in record.items() if k != "timings"}}


@pytest.fixture(scope="module", autouse=True)
def plain_report() -> Iterator[None]:
    """Reports without figures, which take the longest, and which the driver makes."""
    with reports_without_figures():
        yield


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two processes of one thread; where they work is not where the tests do."""
    options = {"dashboard_address": ":0", "memory_limit": 0, "silence_logs": logging.CRITICAL}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, **options) as made:
        yield made


@pytest.fixture(scope="module")
def address(cluster: Any) -> str:
    return str(cluster.scheduler_address)


@contextmanager
def everywhere(address: str, function: Callable[..., Any], *arguments: Any) -> Iterator[dict[str, Any]]:
    """What every worker says to a function."""
    with distributed.Client(address, set_as_default=False) as client:
        yield client.run(function, *arguments)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with phases and grey values."""
    folder, phases = tmp_path_factory.mktemp("inputs"), electrode()
    np.save(folder / "phases.npy", phases)
    grey = gaussian_filter(np.array([40.0, 110.0, 200.0])[phases], 0.7)
    np.save(folder / "grey.npy", (100 * (grey + np.random.default_rng(0).normal(0, 4, grey.shape))).astype(np.uint16))
    return folder


@pytest.fixture
def here(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the inputs, in which the command is given: paths are relative to it."""
    monkeypatch.chdir(inputs)
    return inputs


@pytest.fixture(scope="module")
def undisturbed(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run on the phases leaves, without a scheduler."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(inputs)
        cbdetach.run(out=out, phases="phases.npy", **VALUES).close()
    return contents(out)


# ---- the same bytes --------------------------------------------------------------------------------------------------


def test_workers_give_the_bytes_of_this_process(
    here: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From grey values, by a network: every stage but the survey and the anchor's is theirs."""
    pytest.importorskip("onnxruntime")
    (here / "model.onnx").write_bytes(blobs())
    options = GREY | {"segmenter": "maskrcnn", "model": "model.onnx"}
    cbdetach.run("grey.npy", tmp_path / "alone", **options).close()
    mine: set[str] = set()
    write = store.RunFolder.write_slab

    def watched(self: store.RunFolder, stage: str, index: int, arrays: Arrays) -> None:
        mine.add(stage)
        write(self, stage, index, arrays)

    monkeypatch.setattr(store.RunFolder, "write_slab", watched)
    said: list[str] = []
    options["tell"] = lambda need: said.append(str(need))
    with cbdetach.run("grey.npy", tmp_path / "shared", scheduler=address, **options) as run:
        assert len(run.table) > 1
    assert mine == {"connected"}
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")
    assert f" GB of memory on each of 2 workers of one thread at {address} (most in " in said[0]


def test_the_command_line_and_relative_paths(here: Path, address: str, undisturbed: Any, tmp_path: Path) -> None:
    code, out, err = command(f"{LINE} -o {tmp_path}/out --scheduler {address}")
    assert (code, err) == (0, "")
    assert f"on each of 2 workers of one thread at {address}" in out
    assert contents(tmp_path / "out") == undisturbed
    assert "scheduler" not in (tmp_path / "out" / "run.json").read_text()


def test_any_mix_resumes(here: Path, address: str, undisturbed: Any, tmp_path: Path) -> None:
    """Stopped by Ctrl-C among the workers' slabs, killed among its own, ended by the workers."""
    out, require, slabs = tmp_path / "out", scheduler.Workers._require, []

    def interrupted(self: scheduler.Workers, *what: Any) -> None:
        slabs.append(what)
        if len(slabs) == 5:
            raise Interrupted
        require(self, *what)

    with mock.patch.object(scheduler.Workers, "_require", interrupted), pytest.raises(Interrupted):
        cbdetach.run(out=out, phases="phases.npy", scheduler=address, **VALUES)
    with distributed.Client(address, set_as_default=False) as client:
        until = time.monotonic() + 20
        while (left := client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))) and (
            time.monotonic() < until
        ):
            time.sleep(0.05)
        assert left == 0
    with pytest.raises(InputError, match="holds a run that was interrupted; continue it with --resume"):
        cbdetach.run(out=out, phases="phases.npy", scheduler=address, **VALUES)
    written = 0

    def killed(self: store.RunFolder, stage: str, index: int, arrays: Arrays) -> None:
        nonlocal written
        if (written := written + 1) == 6:
            raise KeyboardInterrupt
        real(self, stage, index, arrays)

    real = store.RunFolder.write_slab
    with mock.patch.object(store.RunFolder, "write_slab", killed), pytest.raises(KeyboardInterrupt):
        cbdetach.run(out=out, phases="phases.npy", resume=True, **VALUES)
    cbdetach.run(out=out, phases="phases.npy", resume=True, scheduler=address, **VALUES).close()
    assert contents(out) == undisturbed
    code, _, _ = command(f"{LINE} -o {out} --resume --scheduler {address}")  # finished
    assert code == 0


def test_ctrl_c(here: Path, address: str, undisturbed: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [*LINE.split(), "-o", str(out), "--scheduler", address, "--quiet"]
    code, said = stopped(words, here, out / "phases" / "slab_00000.h5", signal.SIGINT, 60)
    assert (code, said) == (130, "cbdetach: interrupted; continue with --resume.\n")
    cbdetach.run(out=out, phases="phases.npy", resume=True, **VALUES).close()
    assert contents(out) == undisturbed


def test_a_worker_of_several_threads(here: Path, undisturbed: Any, tmp_path: Path) -> None:
    """Several slabs at once in one process: Numba's threads, HDF5 and the job are shared."""
    said: list[str] = []
    one = {"n_workers": 1, "threads_per_worker": 3, "processes": False, "dashboard_address": ":0"}
    with distributed.LocalCluster(**one) as threads:
        address = threads.scheduler_address
        options = VALUES | {"scheduler": address, "tell": lambda need: said.append(str(need))}
        cbdetach.run(out=tmp_path / "out", phases="phases.npy", **options).close()
    assert contents(tmp_path / "out") == undisturbed
    assert f"GB of memory on the worker of 3 threads at {address} (most in" in said[0]


def test_files_of_several_machines_have_names_of_their_own(tmp_path: Path) -> None:
    with files.whole_file(tmp_path / "a") as one, files.whole_file(tmp_path / "a") as other:
        assert one != other
        one.touch()
        other.touch()


# ---- tasks -----------------------------------------------------------------------------------------------------------


@contextmanager
def begun(inputs: Path, out: Path, address: str, threads: int | None = None) -> Iterator[Job]:
    """A run that has begun, for work of the tests' own."""
    given = {"volume": None, "labels": None, "phases": inputs / "phases.npy"}
    with open_job(resolved_settings(given, None, **VALUES), out, given, progress=False) as job:
        with scheduler.at_work(job, address, threads=threads):
            with prepared(job, look_up(job, resume=True, overwrite=False)):
                yield job


@pytest.mark.parametrize(("threads", "used"), [(None, 1), (2, 2)])
def test_threads_are_those_of_each_slab(
    threads: int | None, used: int, inputs: Path, address: str, tmp_path: Path
) -> None:
    def work(index: int) -> dict[str, npt.NDArray[Any]]:
        import numba

        return {"table/n": np.array([numba.get_num_threads(), numba.config.NUMBA_NUM_THREADS])}

    with begun(inputs, tmp_path / "out", address, 1) as job:
        job.each_slab("phases", work)
        most = job.tables("phases")[0]["n"][1]
    if most < used:
        pytest.skip("one processor")
    with begun(inputs, tmp_path / "out", address, threads) as job:
        job.each_slab("damage", work)
        assert [int(table["n"][0]) for table in job.tables("damage")] == [used] * 3


def test_a_worker_knows_what_stages_have_found_since(inputs: Path, address: str, tmp_path: Path) -> None:
    def work(index: int) -> dict[str, npt.NDArray[Any]]:
        kept = "edge_width_um" in vars(job)
        return {"table/found": np.array([kept, job.edge_width_um == 0, job.phases is not None])}

    with begun(inputs, tmp_path / "out", address) as job:
        job.folder.write_result("survey", {})
        for stage in ("phases", "damage"):
            job.each_slab(stage, work)
            found = np.array([table["found"] for table in job.tables(stage)])
            assert (~found[:, 0]).any()
            assert found[:, 1:].all()


def test_what_is_done_in_turn_is_done_here(inputs: Path, address: str, tmp_path: Path) -> None:
    order: list[int] = []

    def work(index: int) -> dict[str, npt.NDArray[Any]]:
        order.append(index)
        return {"table/n": np.array(index)}

    with begun(inputs, tmp_path / "out", address) as job:
        job.each_slab("connected", work, in_turn=True)
    assert order == [0, 1, 2]


def test_input_that_a_worker_finds_bad_is_the_same_sentence(inputs: Path, address: str, tmp_path: Path) -> None:
    """And the folder is taken away, once nobody writes to it any more."""
    begins = tmp_path / "begins"

    def work(index: int) -> dict[str, npt.NDArray[Any]]:
        from cbdetach.errors import InputError

        if index == 1:
            while not begins.exists():
                time.sleep(0.01)
            raise InputError("--phases: slab 1 holds 7.")
        begins.touch()
        time.sleep(0.5)
        return {"table/n": np.array(index)}

    with pytest.raises(InputError, match=r"^--phases: slab 1 holds 7\.$"):
        with begun(inputs, tmp_path / "out", address) as job:
            job.each_slab("phases", work)
    assert not (tmp_path / "out").exists()
    time.sleep(0.7)
    assert not (tmp_path / "out").exists()


def test_no_slab_begins_once_a_run_was_left(inputs: Path, address: str, tmp_path: Path) -> None:
    with begun(inputs, tmp_path / "out", address) as job:
        assert job.workers is not None
        job.workers._client.run(scheduler._left, job.workers._run)
        job.workers._require = lambda *_: None  # type: ignore[method-assign]
        job.each_slab("phases", lambda index: {"table/n": np.array(index)})
        assert not (job.folder.path / "phases").exists()


def test_a_library_that_a_worker_lacks(inputs: Path, address: str, tmp_path: Path) -> None:
    def work(index: int) -> dict[str, npt.NDArray[Any]]:
        import no_such_library  # type: ignore[import-not-found]

        return {"table/n": np.array(no_such_library.n)}

    message = r"^--scheduler: a worker cannot work on this run: it lacks what the driver has \(No module named 'no_"
    with begun(inputs, tmp_path / "out", address) as job, pytest.raises(ResumableError, match=message):
        job.each_slab("phases", work)


@pytest.mark.parametrize("changed", ["settings", "input"])
def test_a_slab_of_a_run_that_was_left_does_not_come_into_another(
    changed: str, inputs: Path, address: str, tmp_path: Path
) -> None:
    """A worker is still at it, after Ctrl-C, when another run is begun in the folder, with --overwrite."""

    def work(index: int) -> dict[str, npt.NDArray[Any]]:
        record = job.folder.read_record()
        assert record is not None
        job.folder.write_record(record | {changed: {}})
        return {"table/n": np.array(index)}

    with (
        begun(inputs, tmp_path / "out", address) as job,
        pytest.raises(ResumableError, match="it finds no such run in"),
    ):
        job.each_slab("phases", work)
    time.sleep(0.2)
    assert not list((tmp_path / "out").glob("phases/*"))


def test_nothing_is_sent_where_nothing_is_missing(inputs: Path, address: str, tmp_path: Path) -> None:
    with begun(inputs, tmp_path / "out", address) as job:
        for index in range(3):
            job.folder.write_slab("phases", index, {"table/n": np.array(index)})
        with mock.patch.object(scheduler, "_pickled", side_effect=AssertionError):
            job.each_slab("phases", lambda index: {})


def test_other_errors_are_theirs(inputs: Path, address: str, tmp_path: Path) -> None:
    with begun(inputs, tmp_path / "out", address) as job, pytest.raises(ZeroDivisionError):
        job.each_slab("phases", lambda index: {"table/n": np.array(1 // index)})


def test_a_worker_that_dies_is_replaced_and_one_that_dies_again_ends_the_run(
    inputs: Path, cluster: Any, address: str, tmp_path: Path
) -> None:
    marks = tmp_path / "died"

    def once(index: int) -> dict[str, npt.NDArray[Any]]:
        if index == 1 and not marks.exists():
            marks.touch()
            os._exit(1)
        return {"table/n": np.array(index)}

    def always(index: int) -> dict[str, npt.NDArray[Any]]:
        os._exit(1)

    with begun(inputs, tmp_path / "out", address) as job:
        job.each_slab("phases", once)
        assert [int(table["n"]) for table in job.tables("phases")] == [0, 1, 2]
        wanted = r"^--scheduler: workers have died over slab \d of damage again and again, the last at tcp://.*; most "
        with mock.patch.object(cluster.scheduler, "allowed_failures", 0), pytest.raises(ResumableError, match=wanted):
            job.each_slab("damage", always)
    assert (tmp_path / "out" / "run.json").exists()
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)


def test_a_scheduler_that_goes(inputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And one to which no worker has come yet."""
    empty = distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0")
    address = empty.scheduler_address
    try:
        with begun(inputs, tmp_path / "out", address) as job:
            assert f"on each worker of one thread, none of which has come to {address} yet" in str(pipeline.needs(job))
            closing = threading.Timer(0.3, empty.close)
            closing.start()
            with pytest.raises(ResumableError, match=f"^--scheduler: {address} is gone, before slab . of phases was "):
                job.each_slab("phases", lambda index: {})
            closing.join()
    finally:
        empty.close()
    assert f"No worker has come to {address} yet: this run waits for them." in caplog.text
    assert (tmp_path / "out" / "run.json").exists()


# ---- what is refused before it begins --------------------------------------------------------------------------------


def test_nothing_heavy_is_imported_before_a_scheduler_is_given() -> None:
    program = (
        "import cbdetach.pipeline, sys; print([m for m in ('dask', 'distributed', 'cloudpickle') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("wrong", [NOWHERE, "nonsense", "ftp://a:1"])
@pytest.mark.parametrize("more", ["", "--dry-run"])
def test_no_scheduler_there(wrong: str, more: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "PATIENCE", 0.3)
    code, out, err = command(f"{LINE} -o {tmp_path}/out --scheduler {wrong} {more}")
    assert (code, out, err.count("\n")) == (2, "", 1)
    start = (
        "cbdetach: --scheduler: must be the address of a dask scheduler, such as tcp://10.0.0.1:8786; none answers at "
    )
    assert err.startswith(f"{start}{wrong!r} (")
    assert not (tmp_path / "out").exists()


def test_something_else_there(here: Path, tmp_path: Path) -> None:
    with mock.patch.object(distributed, "Client", side_effect=AssertionError):
        with pytest.raises(InputError, match=r"none answers at 'tcp://a:1' \(AssertionError\)\.$"):
            cbdetach.run(out=tmp_path / "out", phases="phases.npy", scheduler="tcp://a:1", **VALUES)


def test_dask_is_an_extra(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, _, err = command(f"{LINE} -o {tmp_path}/out --scheduler {NOWHERE}")
    missing = "cbdetach: --scheduler: dask.distributed is missing: pip install 'cbdetach[distributed]'.\n"
    assert (code, err) == (2, missing)


def test_a_dry_run_asks_the_workers(here: Path, address: str, tmp_path: Path) -> None:
    code, out, err = command(f"{LINE} -o {tmp_path}/out --scheduler {address} --dry-run")
    assert (code, err) == (0, "")
    assert out.startswith("This run measures 20 x 26 x 26 voxels of 0.5 x 0.5 x 0.5 um and needs about 0.")
    assert f"on each of 2 workers of one thread at {address}" in out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["volume", "labels", "phases"])
def test_arrays_stay_here(name: str, inputs: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"phases": inputs / "phases.npy"} | {name: electrode()}
    said = "volume" if name == "volume" else f"--{name}"
    with pytest.raises(InputError, match=f"^{said}: must be a path where a scheduler is given; got an array, "):
        cbdetach.run(out=tmp_path / "out", scheduler=NOWHERE, **given, **VALUES)
    assert not (tmp_path / "out").exists()


def refused(out: Path, address: str, **options: Any) -> str:
    """What is said of a worker, before anything is written."""
    with pytest.raises(InputError) as caught:
        cbdetach.run(out=out, scheduler=address, **VALUES | {"phases": "phases.npy"} | options)
    assert not out.exists()
    start, _, why = str(caught.value).partition(" cannot work on this run: ")
    assert start.startswith("--scheduler: the worker tcp://127.0.0.1:")
    assert "\n" not in why
    return why


def test_workers_of_other_versions(here: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = scheduler.versions()
    monkeypatch.setattr(scheduler, "versions", lambda: mine | {"cbdetach": "0.0.9", "python": "3.10.1"})
    assert refused(tmp_path / "out", address) == (
        f"it has cbdetach {mine['cbdetach']}, not 0.0.9; python {mine['python']}, not 3.10.1. Results must not depend "
        "on who computes them: install the same there."
    )


def test_workers_without_cbdetach(here: Path, cluster: Any, address: str, tmp_path: Path) -> None:
    def hide() -> None:
        sys.modules["cbdetach.scheduler"] = None  # type: ignore[assignment]

    def show() -> None:
        del sys.modules["cbdetach.scheduler"]

    with everywhere(address, hide):
        try:
            why = refused(tmp_path / "out", address)
        finally:
            with everywhere(address, show):
                pass
    assert why.startswith("it lacks what the driver has (")
    assert why.endswith("); install the same there.")


def test_more_threads_than_a_worker_has(here: Path, address: str, tmp_path: Path) -> None:
    assert refused(tmp_path / "out", address, threads=1000).startswith("--threads: must be 1 to ")


@pytest.mark.skipif(COMPILER is None, reason="the GPU that is pretended needs g++, which is not here")
def test_workers_without_a_gpu(here: Path, address: str, tmp_path: Path) -> None:
    with pretended():
        assert refused(tmp_path / "out", address, device="cuda").startswith("--device: 'cuda' must find ")


@contextmanager
def working_in(folder: Path, address: str) -> Iterator[None]:
    """Meanwhile the workers' folder is another: `/proc/self/cwd` is what only some processes see."""
    with everywhere(address, os.getcwd) as before, everywhere(address, os.chdir, str(folder)):
        try:
            yield
        finally:
            with everywhere(address, os.chdir, next(iter(before.values()))):
                pass


def test_input_that_workers_do_not_see(here: Path, address: str, tmp_path: Path) -> None:
    given = Path("/proc/self/cwd/phases.npy")
    with working_in(tmp_path, address):
        missing = refused(tmp_path / "out", address, phases=given)
        np.save(tmp_path / "phases.npy", electrode())
        other = refused(tmp_path / "out", address, phases=given)
    assert missing.startswith("--phases: must be an existing file or folder; got '/proc/self/cwd/phases.npy'")
    assert other == "it finds other than the driver does (input.phases.changed); give all the same."


def test_a_folder_that_workers_do_not_see(
    here: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run stays, to be resumed; also where they write to another folder of this name."""
    out, given = Path("/proc/self/cwd/unseen"), here / "phases.npy"
    with working_in(tmp_path, address):
        message = (
            r"^--scheduler: the worker tcp://\S+ cannot work on this run: it finds no such run in /proc/self/cwd/u"
        )
        with pytest.raises(ResumableError, match=message):
            cbdetach.run(out=out, phases=given, scheduler=address, **VALUES)
        assert (here / "unseen" / "run.json").exists()
        (tmp_path / "unseen").mkdir()
        (tmp_path / "unseen" / "run.json").write_text((here / "unseen" / "run.json").read_text())
        monkeypatch.setattr(scheduler, "VISIBLE", 0.2)
        message = r"^--scheduler: the worker tcp://\S+ has written slab \d of phases, and nothing has come to /proc/sel"
        with pytest.raises(ResumableError, match=message):
            cbdetach.run(out=out, phases=given, scheduler=address, resume=True, **VALUES)


def test_memory_that_a_worker_may_not_take(here: Path, tmp_path: Path) -> None:
    workers = object.__new__(scheduler.Workers)
    small, large = scheduler.Worker(2, 1.0e9), scheduler.Worker(8, None)
    need = estimate((99, 99, 99), 9, {}, grey=True)
    workers.found = {"tcp://a:1": small, "tcp://b:2": large}
    asked: list[int] = []

    def needs(threads: int) -> Any:
        asked.append(threads)
        return replace(need, memory=0.6e9 * threads)

    message = r"^--scheduler: this run needs about 1\.2 GB on a worker of 2 threads, and tcp://a:1 may take 1\.0 GB; "
    with pytest.raises(InputError, match=message):
        workers.refuse_what_cannot_fit(needs)
    workers.found["tcp://a:1"] = scheduler.Worker(1, 1.0e9)
    workers.refuse_what_cannot_fit(needs)
    assert asked == [2, 1, 8]


def test_memory_is_that_of_the_workers(here: Path, address: str, tmp_path: Path) -> None:
    """They are asked with a run of their own number of slabs; what is free here does not matter."""
    found: list[float] = []

    def refuse(self: scheduler.Workers, needs: Callable[[int], Any]) -> None:
        found.extend(needs(n).memory for n in (1, 4))

    with mock.patch.object(scheduler.Workers, "refuse_what_cannot_fit", refuse):
        with mock.patch("cbdetach.estimate.available_memory", return_value=1.0):
            need = pipeline.plan(out=tmp_path / "out", phases="phases.npy", scheduler=address, **VALUES)
    assert need.memory == found[0] < found[1]


def test_slabs_of_the_network_at_once_take_memory_each() -> None:
    shape = (100, 2000, 2000)
    some, more = (estimate(shape, 32, {}, grey=True, views=1, network=True, networks=n) for n in (60, 64))
    assert more.memory - some.memory == pytest.approx(4 * 2000**2 * 250.0)
    assert estimate((9, 9, 9), 9, {}, grey=True, report=False).stage != "report"


def test_a_job_is_not_sent(inputs: Path, tmp_path: Path) -> None:
    """Nor are its volumes and its network: each worker has its own."""
    given = {"volume": inputs / "grey.npy", "labels": None, "phases": None}
    settings = resolved_settings(given, voxel_size=0.5, slab=8)
    with open_job(settings, tmp_path / "out", given, progress=False) as job:
        vars(job)["network"] = network = threading.Lock()  # which cannot be pickled
        grey = job.grey

        def work(index: int) -> Any:
            return job, grey, network, index

        sent = scheduler._pickled(work, job)
        assert len(sent) < 2000
        assert scheduler._Unpickler(sent, job).load()(3) == (job, grey, network, 3)
        with pytest.raises(pickle.UnpicklingError):
            pickle.loads(sent)
