"""A run's slabs on the workers of a dask scheduler: a LocalCluster, a SLURM cluster by dask-jobqueue, any other.

Slabs are independent tasks. A stage stays as it is: its `work`, a local function, is pickled as it stands, by
cloudpickle, but for the job and what belongs to the job (volumes, the network). Each worker puts its own in their
place: the same run, opened there once and kept until another run comes. The worker writes the slab itself, and only
its own address travels back. All of a stage's slabs are handed to the scheduler at once, each a few bytes that refer to
the one pickled `work`; the scheduler gives every worker what its threads can do, also to workers that come later.

Results must not depend on who computed them: a worker must have the versions that the driver has, and see the same
input and the run's folder under the same paths; else one sentence says which worker has not. dask is imported when a
scheduler is given, and never before.
"""

from __future__ import annotations

import io
import logging
import pickle
import threading
import time
import uuid
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from cbdetach import device as devices
from cbdetach.config import Settings, differences
from cbdetach.errors import InputError, ResumableError
from cbdetach.estimate import Estimate
from cbdetach.files import require_writable
from cbdetach.job import Job, Worker, open_job
from cbdetach.prepare import fresh_record, versions
from cbdetach.progress import bar
from cbdetach.volume.formats import split_dataset

Work = Callable[[int], Mapping[str, npt.NDArray[Any]]]
log = logging.getLogger("cbdetach")

PATIENCE = 5.0
"""Seconds in which a scheduler must answer,"""

VISIBLE = 60.0
"""and in which a slab that a worker has written must be seen here; file systems of several machines take their time."""

COMPARED = ("device", "input", "shape", "slabs")
"""Parts of the run record that a worker must find as the driver does,"""

BY_PATH = ("name", "source")
"""but for what of its input depends on how the path was given,"""

WRITTEN = ("settings", "input")
"""and parts that tell whether the run in a folder is still the one that a slab was computed for."""


@contextmanager
def at_work(job: Job, address: str | None, *, device: str = "cpu", threads: int | None = None) -> Iterator[None]:
    """Inside this, a job's slabs are computed by the workers of the scheduler at an address; by None, as ever, here.

    threads : of the kernels, for each slab; None is one, since a worker has as many threads as it is to use cores.

    Raises
    ------
    InputError : dask.distributed is missing, nothing answers, the input is no file, or a worker cannot do its part.
    """
    if address is None:
        yield
        return
    settings = _with_whole_paths(job)
    with _client(address) as client:
        job.workers = Workers(client, address, job, settings, device, threads or 1)
        try:
            yield
        finally:
            job.workers = None


def _client(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise InputError("--scheduler: dask.distributed is missing: pip install 'cbdetach[distributed]'.") from None
    try:
        return Client(address, timeout=PATIENCE, set_as_default=False, name="cbdetach")
    except Exception as error:  # of many kinds, as what answers there is not a scheduler
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"--scheduler: must be the address of a dask scheduler, such as tcp://10.0.0.1:8786; none answers at "
            f"{address!r} ({why})."
        ) from None


def _with_whole_paths(job: Job) -> Settings:
    """The settings with absolute paths: a worker has a working directory of its own."""
    if job.in_memory:
        name = job.in_memory[0]
        raise InputError(
            f"{name if name == 'volume' else f'--{name}'}: must be a path where a scheduler is given; got an array, "
            "which its workers cannot read. Save it where all of them see it."
        )
    settings = job.settings
    whole: dict[str, dict[str, str]] = {"input": {}, "segment": {}, "phases": {}}
    for name in ("volume", "labels", "phases"):
        if (given := getattr(settings.input, name)) is not None:
            path, dataset = split_dataset(given)
            whole["input"][name] = f"{path.absolute()}:{dataset}" if dataset else str(path.absolute())
    for section, name in (("segment", "model"), ("phases", "classifier")):
        if (given := getattr(getattr(settings, section), name)) is not None:
            whole[section][name] = str(Path(given).absolute())
    return settings.model_copy(update={s: getattr(settings, s).model_copy(update=w) for s, w in whole.items()})


@dataclass(frozen=True)
class _Opening:
    """What a run is opened from on a worker.

    `run` is a name for this start of it, `found` what the worker must find, too, and `written` what the record says.
    """

    run: str
    settings: Settings
    folder: Path
    device: str
    threads: int
    found: dict[str, Any]
    written: dict[str, Any]


class Workers:
    """The workers of a scheduler, for one job. `found` : those that are there when it begins, by address."""

    def __init__(self, client: Any, address: str, job: Job, settings: Settings, device: str, threads: int) -> None:
        self.address = address
        self._client = client
        self._run = uuid.uuid4().hex
        folder, record = job.folder.path.absolute(), fresh_record(job)
        written = {name: record[name] for name in WRITTEN}
        opening = _Opening(self._run, settings, folder, device, threads, _comparable(record), written)
        self._needed, self._opening = versions(), pickle.dumps(opening)
        answers = client.run(_begun, self._needed, self._opening, on_error="return")
        for where, answer in answers.items():
            if isinstance(answer, BaseException):
                raise _as_said(answer, f"the worker {where}")
        self.found: dict[str, Worker] = answers

    def refuse_what_cannot_fit(self, needs: Callable[[int], Estimate]) -> None:
        """InputError where a worker may not take as much memory as its share (`needs` of so many slabs) will need."""
        for where, worker in self.found.items():
            need = needs(worker.threads).memory
            if worker.memory and need > worker.memory:
                raise InputError(
                    f"--scheduler: this run needs about {need / 1e9:.1f} GB on a worker of {worker.threads} threads, "
                    f"and {where} may take {worker.memory / 1e9:.1f} GB; give workers more memory or fewer threads, or "
                    "choose thinner slabs with --slab."
                )

    def each(self, job: Job, stage: str, work: Work, missing: Sequence[int]) -> None:
        """Have slabs of a stage computed and written.

        Raises
        ------
        InputError : as `work` has raised it, once no worker writes any more.
        ResumableError : a worker is unfit or has died too often, or the scheduler is gone.
        """
        import dask
        from distributed import as_completed

        if not missing:
            return
        if not self._client.nthreads():
            log.warning("No worker has come to %s yet: this run waits for them.", self.address)
        name, content = f"cbdetach-{stage}-{self._run[:8]}", _pickled(work, job)
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": 2 * len(content) + 10**7}):
            shared = self._client.submit(bytes, content, key=f"{name}-work")  # a task: made again if its worker dies
        futures = {
            self._client.submit(_slab, self._needed, self._opening, shared, stage, i, key=(name, i)): i for i in missing
        }
        ended = as_completed(futures, loop=self._client.loop)
        try:
            for _ in bar(missing, stage, unit="slab", show=job.progress):
                future = next(ended)
                self._require(future, job, stage, futures[future])
        except BaseException as error:
            with suppress(Exception):  # the scheduler may be what has gone wrong
                self._client.cancel([*futures, shared])
                if isinstance(error, InputError) and not isinstance(error, ResumableError):
                    self._client.run(_left, self._run)  # the folder will be taken away
            raise

    def _require(self, future: Any, job: Job, stage: str, index: int) -> None:
        """A slab that is done: here, too. Else what went wrong."""
        from distributed import KilledWorker

        what = f"slab {index} of {stage}"
        if future.status == "error":
            error = future.exception()
            if isinstance(error, KilledWorker):
                raise ResumableError(
                    f"--scheduler: workers have died over {what} again and again, the last at "
                    f"{error.last_worker.address}; most often their memory is too small. Give them more, or fewer "
                    "threads, and continue with --resume."
                ) from None
            raise _as_said(error, "a worker")
        if future.status != "finished":
            raise ResumableError(
                f"--scheduler: {self.address} is gone, before {what} was there; start a scheduler again and continue "
                "with --resume, there or without."
            )
        until = time.monotonic() + VISIBLE
        while not job.folder.has_slab(stage, index):
            if time.monotonic() > until:
                raise ResumableError(
                    f"--scheduler: the worker {future.result()} has written {what}, and nothing has come to "
                    f"{job.folder.slab_path(stage, index)}; give a folder that every worker sees with -o/--out."
                )
            time.sleep(0.1)


def _as_said(error: BaseException, who: str) -> BaseException:
    """What a worker has raised; a sentence where it lacks what the driver has, or cannot even load its part of this."""
    if isinstance(error, ModuleNotFoundError) or type(error) is Exception:
        return _unfit(who, f"it lacks what the driver has ({error}); install the same there.")
    return error


def _unfit(who: str, why: object) -> ResumableError:
    return ResumableError(f"--scheduler: {who} cannot work on this run: {why}")


def _comparable(record: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run record must be the same on every worker."""
    found = {name: record[name] for name in COMPARED}
    found["input"] = {
        name: {k: v for k, v in about.items() if k not in BY_PATH} for name, about in record["input"].items()
    }
    return found


# ---- the work of a stage, there and back -----------------------------------------------------------------------------


def _own(job: Job) -> dict[str, Any]:
    """What a worker has of its own."""
    own = {
        "job": job,
        "grey": job.grey,
        "labels": job.labels,
        "phases": job.phases,
        "network": vars(job).get("network"),
    }
    return {name: value for name, value in own.items() if value is not None}


def _pickled(work: Work, job: Job) -> bytes:
    """A function with all that it refers to, but for what a worker has of its own."""
    import cloudpickle

    names = {id(value): name for name, value in _own(job).items()}

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def persistent_id(self, value: Any) -> str | None:
            return names.get(id(value))

    content = io.BytesIO()
    Pickler(content).dump(work)
    return content.getvalue()


class _Unpickler(pickle.Unpickler):
    """Gives back what `_pickled` has taken, with what belongs to a worker's own job."""

    def __init__(self, content: bytes, job: Job) -> None:
        super().__init__(io.BytesIO(content))
        self._job = job

    def persistent_load(self, name: Any) -> Any:
        return self._job if name == "job" else getattr(self._job, name)


# ---- on a worker -----------------------------------------------------------------------------------------------------


@dataclass
class _Open:
    """The run that is open in this process, and the stage that it is at."""

    opening: bytes
    wanted: _Opening
    job: Job
    stage: str = ""


_open: _Open | None = None
_lock = threading.RLock()
_in_work: Counter[str] = Counter()
_ended: set[str] = set()


def _begun(needed: dict[str, str], opening: bytes, dask_worker: Any) -> Worker:
    """Open a run on a worker, before the first stage."""
    _opened(needed, opening, dask_worker.address)
    return Worker(dask_worker.state.nthreads, dask_worker.memory_manager.memory_limit)


def _slab(needed: dict[str, str], opening: bytes, work: bytes, stage: str, index: int) -> str:
    """Compute and write one slab of a stage; the address of the worker that has done it."""
    from distributed import get_worker

    here = str(get_worker().address)
    run = _opened(needed, opening, here)
    with _lock:
        if run.wanted.run in _ended:
            return here
        _in_work[run.wanted.run] += 1
        if run.stage != stage:
            run.stage = stage
            run.job.forget()  # earlier stages have found more since
    try:
        _require_run(run, here)
        with devices.on(run.job.gpu), devices.threads(run.wanted.threads):
            arrays = _Unpickler(work, run.job).load()(index)
        _require_run(run, here)  # it may have been left, and another begun there
        run.job.folder.write_slab(stage, index, arrays)
    finally:
        with _lock:
            _in_work[run.wanted.run] -= 1
    return here


def _require_run(run: _Open, here: str) -> None:
    """The run of a task must be the one in its folder."""
    record = run.job.folder.read_record() or {}
    if any(record.get(name) != value for name, value in run.wanted.written.items()):
        raise _unfit(
            f"the worker {here}",
            f"it finds no such run in {run.wanted.folder}; give a folder that every worker sees with -o/--out.",
        )


async def _left(run: str) -> None:
    """No slab of a run is begun any more, and those that were have ended."""
    import asyncio  # 30 ms that a run without a scheduler need not take

    with _lock:
        _ended.add(run)
    while _in_work[run]:
        await asyncio.sleep(0.05)


def _opened(needed: dict[str, str], opening: bytes, here: str) -> _Open:
    """The run as it is open in this process; opened, if it is not. Its files are closed when nobody uses it longer."""
    global _open
    with _lock:
        if _open is not None and _open.opening == opening:
            return _open
        have, who = versions(), f"the worker {here}"
        if other := [f"{k} {have.get(k)}, not {v}" for k, v in needed.items() if have.get(k) != v]:
            raise _unfit(
                who, f"it has {'; '.join(other)}. Results must not depend on who computes them: install the same there."
            )
        wanted: _Opening = pickle.loads(opening)
        try:
            with ExitStack() as stack:
                gpu = devices.find(wanted.device)
                devices.checked_threads(wanted.threads)
                job = stack.enter_context(open_job(wanted.settings, wanted.folder, {}, progress=False, gpu=gpu))
                require_writable(wanted.folder)
                if other := differences(wanted.found, _comparable(fresh_record(job))):
                    raise InputError(f"it finds other than the driver does ({', '.join(other)}); give all the same.")
                weakref.finalize(job, stack.pop_all().close)
        except InputError as error:
            raise _unfit(who, error) from None
        _open = _Open(opening, wanted, job)
        return _open
