"""The command line: what it prints and returns, one line for whatever is wrong, and every option on its way."""

from __future__ import annotations

import ast
import errno
import fcntl
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import tifffile
from tests.cbdetach.plain_report import reports_without_figures

import cbdetach
from cbdetach import __main__, cli, pipeline, report
from cbdetach.errors import InputError

SOURCE = Path(cbdetach.__file__).parent
VALUES = "--phase-values void=0,cbd=1,active=2 --voxel-size 0.5"


def command(line: str) -> tuple[int, str, str]:
    """Run `cbdetach LINE` in this process: exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    typed = patch.object(sys, "argv", ["cbdetach", *shlex.split(line)])
    with typed, redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        __main__.main()
    code = ended.value.code
    return (code if isinstance(code, int) else 0), out.getvalue(), err.getvalue()


@pytest.fixture(scope="module", autouse=True)
def compiled() -> Iterator[None]:
    """Kernels count as compiled: what a run is said to need does not depend on which tests came before."""
    with patch.object(sys.modules["cbdetach.pipeline.needs"], "compiled", lambda: True):
        yield


@pytest.fixture(scope="module")
def phases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two balls, one of them half coated, as phases on disk."""
    z, y, x = np.indices((20, 24, 40))
    made = np.zeros(z.shape, np.uint8)
    for centre, coated in ((11, True), (29, False)):
        r = np.sqrt((z - 9.5) ** 2 + (y - 11.5) ** 2 + (x - centre) ** 2)
        made[(r <= 9.5) & (z < 10) & coated] = 1
        made[r <= 8] = 2
    path = tmp_path_factory.mktemp("input") / "two balls.npy"
    np.save(path, made)
    return path


@pytest.fixture(scope="module")
def finished(phases: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[int, str, str]]:
    """A whole run, and what it said."""
    out = tmp_path_factory.mktemp("run") / "out"
    return out, command(f"run --phases '{phases}' {VALUES} --slab 10 -o {out}")


@pytest.fixture
def plain_report() -> Iterator[None]:
    """A report without figures, which take the longest."""
    with reports_without_figures():
        yield


# ---- a run -----------------------------------------------------------------------------------------------------------


def test_a_run_says_what_it_needs_and_what_it_found(finished: tuple[Path, tuple[int, str, str]]) -> None:
    out, (code, said, complained) = finished
    assert (code, complained) == (0, "")
    lines = said.splitlines()
    start = "This run measures 20 x 24 x 40 voxels of 0.5 x 0.5 x 0.5 um and needs about 0.8 GB of memory (most in "
    assert lines[0].startswith(start)
    assert lines[1] == "2 particles; 0 cut by the border, 1 without contact, 2 used"
    assert lines[2].startswith("degree of detachment: median 0.7")
    assert lines[3] == f"report: {out / 'report.html'}"
    assert len(lines) == 4
    assert len(pd.read_csv(out / "particles.csv")) == 2
    assert (out / "report.html").stat().st_size > 10_000


def test_resume_on_a_finished_run_changes_nothing(finished: tuple[Path, tuple[int, str, str]], phases: Path) -> None:
    out, (_, said, _) = finished
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.*") if p.name not in ("run.log", "run.lock")}
    assert command(f"run --phases '{phases}' {VALUES} --slab 10 -o {out} --resume") == (0, said, "")
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_finished_run_is_not_replaced_unasked(finished: tuple[Path, tuple[int, str, str]], phases: Path) -> None:
    out, _ = finished
    code, _, complained = command(f"run --phases '{phases}' {VALUES} -o {out}")
    assert code == 2
    assert complained == (
        f"cbdetach: -o/--out: {out} holds a finished run; choose another folder, or replace it with --overwrite.\n"
    )


@pytest.mark.usefixtures("plain_report")
def test_quiet_prints_nothing_not_even_warnings(phases: Path, tmp_path: Path) -> None:
    bare = np.load(phases)
    np.save(tmp_path / "bare.npy", np.where(bare == 1, 0, bare))
    assert command(f"run --phases {tmp_path}/bare.npy {VALUES} -o {tmp_path}/quiet --quiet") == (0, "", "")
    code, said, complained = command(f"run --phases {tmp_path}/bare.npy {VALUES} -o {tmp_path}/loud")
    assert code == 0
    assert complained == "No carbon/binder was found: detachment and diffusion lengths are empty.\n"
    assert "degree of detachment: not known, as no carbon/binder was found" in said
    code, said, _ = command(f"run --phases '{phases}' {VALUES} -o {tmp_path}/cut --crop :,8:16,8:32")
    assert code == 0
    assert "2 particles; 2 cut by the border" in said
    assert "degree of detachment: not known, as the border cuts every particle" in said


@pytest.mark.usefixtures("plain_report")
def test_verbose_names_the_stages_and_overwrite_replaces(phases: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("[report]\nseed = 7\n[diffusion]\norder = 1\n")
    line = f"run --phases '{phases}' {VALUES} -o {tmp_path}/out"
    assert command(f"{line} --quiet")[0] == 0
    code, _, complained = command(f"{line} --overwrite --config {tmp_path}/run.toml --verbose")
    assert code == 0
    assert [text.partition(":")[0] for text in complained.splitlines()[1:]] == list(pipeline.STAGES)
    settings = cbdetach.open_run(tmp_path / "out").settings
    assert (settings.report.seed, settings.diffusion.order) == (7, 1)


def test_the_input_may_be_named_in_the_settings(phases: Path, tmp_path: Path) -> None:
    """The settings that a report shows are enough to do the same run again."""
    (tmp_path / "run.toml").write_text(
        f"[input]\nphases = {str(phases)!r}\nvoxel_size = [0.5, 0.5, 0.5]\nphase_values = {{void=0, cbd=1, active=2}}\n"
    )
    code, said, complained = command(f"run --config {tmp_path}/run.toml --dry-run")
    assert (code, complained) == (0, "")
    assert (code, said, complained) == command(f"run --phases '{phases}' {VALUES} --dry-run")
    assert command(f"run --config {tmp_path}/run.toml --phases none.npy --dry-run")[0] == 2


def test_a_dry_run_prints_the_needs_and_writes_nothing(
    phases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said, complained = command(f"run --phases '{phases}' {VALUES} --dry-run")
    assert (code, complained) == (0, "")
    assert said == (
        f"This run {pipeline.plan(phases=phases, phase_values={'void': 0, 'cbd': 1, 'active': 2}, voxel_size=0.5)}.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_refuses_what_a_run_would_refuse_at_once(phases: Path, tmp_path: Path) -> None:
    """Each by the same sentence as the run, and neither leaves anything behind."""
    grey = tmp_path / "grey.npy"
    np.save(grey, np.arange(8000, dtype=np.uint16).reshape(20, 20, 20))
    np.save(tmp_path / "float.npy", np.ones((20, 24, 40)))
    (tmp_path / "no.onnx").write_text("not a model")
    held = tmp_path / "held"
    held.mkdir()
    (held / "thesis.tex").touch()
    given = f"--phases '{phases}' --voxel-size 0.5"
    for line, message in (
        (f"{given} --phase-values void=0,cbd=1,active=2 --threads 999", "--threads: must be 1 to "),
        (f"{given} --phase-values vod=0,cbd=1,active=2", "--phase-values: names must be of void, cbd, "),
        (f"{given} --phase-values void=0,cbd=1", "--phase-values: must name the active phase; got void, cbd."),
        (f"{given} --phase-values void=0,cbd=1,active=1", "--phase-values: must give each value one name; got void=0,"),
        (f"--phases {tmp_path}/float.npy {VALUES}", "--phases: must be a volume of integers; got float64."),
        (f"{given} {VALUES} --labels {tmp_path}/float.npy", "--labels: must be of an integer type; got float64."),
        (f"{grey} --voxel-size 0.5 --model {tmp_path}/no.onnx", "--model: no.onnx is damaged, or no ONNX file"),
        (f"{given} {VALUES} --resume --overwrite", "--resume, --overwrite: only one of them can be meant"),
        (f"{given} {VALUES} -o {held}", f"-o/--out: {held} is not empty and holds no run"),
        (f"{given} {VALUES} -o {grey}/out", f"-o/--out: {grey}/out cannot be written ({grey}: it is a file)"),
    ):
        out = "" if "-o " in line else f" -o {tmp_path}/out"
        before = sorted(tmp_path.rglob("*"))
        code, said, complained = command(f"run {line}{out} --dry-run")
        assert (code, said) == (2, ""), line
        assert complained.startswith(f"cbdetach: {message}"), complained
        assert complained.count("\n") == 1
        assert command(f"run {line}{out}") == (code, said, complained)
        assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_refuses_what_cannot_fit_and_who_is_in_the_way(
    finished: tuple[Path, tuple[int, str, str]], phases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"run --phases '{phases}' {VALUES} --dry-run -o"
    out = finished[0]
    assert command(f"{line} {out}")[2].startswith(f"cbdetach: -o/--out: {out} holds a finished run; ")
    assert command(f"{line} {out} --slab 10 --resume")[0] == 0
    assert "--resume: " in command(f"{line} {out} --slab 9 --resume")[2]
    with (out / "run.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert command(f"{line} {out} --overwrite")[2] == (
            f"cbdetach: -o/--out: another process is working in {out}; wait for it to end.\n"
        )
    assert command(f"{line} {out} --overwrite")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda path, mode: False)
        assert f"cannot be written ({tmp_path}: it may not be written); choose" in command(f"{line} {tmp_path}/new")[2]
    monkeypatch.setattr("cbdetach.estimate.available_memory", lambda: 1e6)
    assert command(f"{line} {tmp_path}/new")[2].startswith("cbdetach: memory: this run needs about ")
    assert list(tmp_path.iterdir()) == []


def test_every_option_reaches_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    planned: dict[str, Any] = {}
    ran: dict[str, Any] = {}

    def plan(**arguments: Any) -> str:
        planned.update(arguments)
        return "needs little"

    def run(*, tell: Callable[[str], None], **arguments: Any) -> Any:
        ran.update(arguments)
        tell("needs more")
        raise InputError("that will do")

    monkeypatch.setattr(pipeline, "plan", plan)
    monkeypatch.setattr(pipeline, "run", run)
    line = (
        "run v.tif --out o --voxel-size 0.5,0.4,0.4 --config c.toml --labels l.tif --phases p.tif --phase-values void=0"
        " --segmenter watershed2d --model m.onnx --views zyx --anchor y1 --crop 0:9,:,: --bin 2 --slab 16 --device cpu"
        " --threads 1 --scheduler tcp://a:1 --resume --overwrite"
    )
    assert command(line) == (2, "This run needs more.\n", "cbdetach: that will do\n")
    assert planned == {}  # a run looks at its input once
    assert command(f"{line} --dry-run") == (0, "This run needs little.\n", "")
    same = {
        "volume": "v.tif",
        "out": Path("o"),
        "voxel_size": "0.5,0.4,0.4",
        "config": Path("c.toml"),
        "labels": "l.tif",
        "phases": "p.tif",
        "phase_values": {"void": 0},
        "segmenter": "watershed2d",
        "model": "m.onnx",
        "views": "zyx",
        "anchor": "y1",
        "crop": "0:9,:,:",
        "bin": 2,
        "slab": 16,
        "device": "cpu",
        "threads": 1,
        "scheduler": "tcp://a:1",
        "resume": True,
        "overwrite": True,
    }
    assert planned == same
    assert ran == same | {"progress": True}
    command("run v.tif --quiet")
    assert ran["progress"] is False
    assert ran["threads"] is None
    assert (ran["resume"], ran["overwrite"]) == (False, False)


# ---- a finished run --------------------------------------------------------------------------------------------------


def test_report_of_a_run_that_cannot_be_written(
    finished: tuple[Path, tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(given: report.ReportInput) -> Path:
        raise OSError(errno.EROFS, "Read-only file system")

    out, _ = finished
    monkeypatch.setattr(report, "write_report", denied)
    said = f"cbdetach: {out}: cannot be written (Read-only file system); copy the run to another place.\n"
    assert command(f"report {out}") == (2, "", said)


def test_report_writes_the_page_and_the_figures_again(finished: tuple[Path, tuple[int, str, str]]) -> None:
    out, _ = finished
    written = [out / "report.html", *sorted((out / "figures").iterdir())]
    before = [p.read_bytes() for p in written]
    for path in written:
        path.unlink()
    assert command(f"report {out}") == (0, f"{out / 'report.html'}\n", "")
    assert [p.name for p in written if not p.exists()] == []
    assert [p.name for p, was in zip(written, before, strict=True) if p.read_bytes() != was] == []


def test_export_labels(finished: tuple[Path, tuple[int, str, str]], tmp_path: Path) -> None:
    out, _ = finished
    assert command(f"export-labels {out} {tmp_path}/l.tif") == (0, f"{tmp_path}/l.tif\n", "")
    labels = tifffile.imread(tmp_path / "l.tif")
    assert labels.shape == (20, 24, 40)
    assert np.unique(labels).tolist() == [0, 1, 2]
    assert command(f"export-labels {out} {tmp_path}/l.tif --quiet --overwrite") == (0, "", "")
    code, said, complained = command(f"export-labels {out} {tmp_path}/l.png")
    assert (code, said) == (2, "")
    assert re.fullmatch(r"cbdetach: TIFF: must end in \.tif or \.tiff; got .*l\.png\. Give .* name\.\n", complained)


@pytest.mark.parametrize(
    ("line", "file", "then"),
    [
        ("export-labels {run} kept", "kept", ""),
        ("train-phases --grey g.npy --labels g.npy --phase-values void=0,active=1 --trees 1 -o kept", "kept", ""),
        ("export none.pt -o kept", "kept", "none.pt: there is no such checkpoint"),
        ("bench --json kept --kernels label --no-pipeline --threads 0", "kept", "--threads: must be 1 to"),
        ("evaluate --phantom 1 --model no -o out", "out/evaluation.json", "--model: there is no file no"),
        ("evaluate --phantom 1 --activation no -o out", "out/activation.png", "no: there is no such checkpoint"),
    ],
)
def test_what_exists_is_replaced_when_asked_for_alone(
    line: str, file: str, then: str, finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One rule for whatever a person names. `then` : what is said where it may be replaced, "" where it is."""
    if line.startswith(("export ", "evaluate --phantom 1 --activation")):
        pytest.importorskip("torch")
        pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    np.save("g.npy", np.arange(64).reshape(1, 8, 8) // 32)
    Path(file).parent.mkdir(exist_ok=True)
    Path(file).write_text("mine")
    line = line.format(run=finished[0])
    code, said, complained = command(line)
    assert (code, said) == (2, "")
    assert complained.endswith(", or replace it with --overwrite.\n")
    assert Path(file).read_text() == "mine"
    code, _, complained = command(f"{line} --overwrite")
    if then:
        assert (code, complained.startswith(f"cbdetach: {then}")) == (2, True), complained
    else:
        assert (code, complained) == (0, "")
        assert Path(file).read_bytes() != b"mine"


@pytest.mark.parametrize("name", ["train-phases", "export", "export-labels", "bench"])
def test_help_says_that_files_are_kept(name: str) -> None:
    said = " ".join(command(f"{name} --help")[1].split())
    assert "one that exists is kept, but for --overwrite." in said
    assert "--overwrite Replace a file that exists." in said


# ---- the other commands ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [["-m", "cbdetach"], ["-c", "from cbdetach.__main__ import main; main()"]])
def test_version(start: list[str]) -> None:
    done = subprocess.run([sys.executable, *start, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"cbdetach {cbdetach.__version__}\n", "")


def test_help_says_whose_threads_they_are() -> None:
    for name, whose in (("run", "the kernels"), ("train", "PyTorch"), ("export", "ONNX Runtime")):
        assert f"Threads of {whose} (default: all)." in " ".join(command(f"{name} --help")[1].split())
    assert command("compare --help")[1].startswith("Usage: cbdetach compare [OPTIONS] {RUN}...\n")


def test_help_names_every_command() -> None:
    code, said, complained = command("--help")
    assert (code, complained) == (0, "")
    for name in ("run", "demo", "report", "view", "export-labels", "doctor", "--version"):
        assert f"\n  {name} " in said
    code, said, complained = command("")
    assert (code, said) == (2, "")
    assert complained.startswith("Usage: cbdetach [OPTIONS] COMMAND")


def test_view_opens_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    monkeypatch.setattr("cbdetach.viewer.view", opened.append)
    assert command("view my_run") == (0, "", "")
    assert opened == [Path("my_run")]


def test_doctor() -> None:
    code, said, complained = command("doctor")
    assert (code, complained) == (0, "")
    assert said.splitlines()[-1] == "kernels: a plane wave arrives in time"


def test_demo_passes_its_options_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from cbdetach import demo

    given: list[Any] = []

    def measured(out: Path, **options: Any) -> str:
        given.append({"out": out} | options)
        return "found beside true"

    monkeypatch.setattr(demo, "demo", measured)
    how = "--segmenter maskrcnn --model m.onnx --views zyx --device cuda"
    said = command(f"demo -o {tmp_path} --size 64 --seed 3 --threads 2 --overwrite {how}")
    assert said == (0, "found beside true\n", "")
    assert command("demo --quiet") == (0, "", "")
    default = {"out": Path("cbdetach_demo"), "size": 160, "seed": 0, "threads": None, "overwrite": False}
    asked = {"out": tmp_path, "size": 64, "seed": 3, "threads": 2, "overwrite": True}
    default |= {"segmenter": None, "model": None, "views": None, "device": "cpu"}
    asked |= {"segmenter": "maskrcnn", "model": "m.onnx", "views": "zyx", "device": "cuda"}
    assert given == [asked | {"progress": True}, default | {"progress": False}]


# ---- what is wrong ---------------------------------------------------------------------------------------------------

LEARN = "train-phases --grey p.npy --labels p.npy --phase-values void=0,active=1"
NAN = "train-phases --grey nan.npy --labels one.npy --phase-values void=0,active=1"
WRONG = {
    "--nonsense": r"No such option: --nonsense; see cbdetach --help\.",
    "rum": "No such command 'rum'",
    "run --nonsense": "No such option: --nonsense",
    "rnu": r"No such command .rnu.\. Did you mean .run.\? See cbdetach --help\.",
    "run --bin two": "--bin: must be a valid integer.*; see cbdetach run --help",
    "run a.tif b.tif": r"Got unexpected extra argument.*; see cbdetach run --help\.",
    "run --voxel-size": "Option '--voxel-size' requires an argument",
    "report": "Missing argument 'RUN'",
    "run": "VOLUME: give a grey volume, or phases with --phases and --phase-values",
    "run none.tif": "volume: must be an existing file or folder; got 'none.tif'",
    "run p.npy": "--voxel-size",
    "run p.npy --voxel-size -1": "--voxel-size: must be one positive number or three",
    "run p.npy --voxel-size 1 --crop 3": "--crop: must be z0:z1,y0:y1,x0:x1",
    "run p.npy --voxel-size 1 --bin 0": "--bin: must be greater than or equal to 1; got 0",
    "run p.npy --voxel-size 1 --slab 0": "--slab: must be greater than or equal to 1; got 0",
    "run p.npy --voxel-size 1 --segmenter magic": "--segmenter: .*; got 'magic'",
    "run p.npy --voxel-size 1 --device tpu": "--device: must be cpu or cuda; got 'tpu'",
    "run p.npy --voxel-size 1 --threads 0": "--threads: must be 1 to",
    "run p.npy --voxel-size 1 --config none.toml": "--config: there is no file none.toml",
    "run p.npy --voxel-size 1 --config bad.toml": "--config: bad.toml cannot be read as TOML",
    "run p.npy --voxel-size 1 --config unknown.toml": "segment.colour: unknown setting; the settings there are",
    "run p.npy --voxel-size 1 --out p.npy": "-o/--out: p.npy is a file; give a folder",
    "run --phases p.npy --voxel-size 1": "--phase-values: must name the value of each phase",
    "run --phases p.npy --voxel-size 1 --phase-values void": "--phase-values: must read like void=0,active=1,cbd=2",
    "run --phases p.npy --voxel-size 1 --phase-values void=0,activ=1": "activ",
    "run p.npy --voxel-size 1 --phase-values void=0": "--phase-values: only goes with --phases FILE",
    "report none": "none: this is not the folder of a run",
    "view none": "none: this is not the folder of a run",
    "export-labels none l.tif": "none: this is not the folder of a run",
    "demo --size 0": "--size: must be 64 to 1024 voxels; got 0",
    "demo --out p.npy": "-o/--out: p.npy cannot be written",
    "demo --seed -1": "--seed: must be greater than or equal to 0; see cbdetach demo --help",
    "demo --size 5": "--size: must be 64 to 1024 voxels; got 5",
    "demo --size 100000": "--size: must be 64 to 1024 voxels; got 100000",
    "run p.npy --voxel-size 1 --views xy": "--views: must be 'z' or 'zyx'; got 'xy'",
    "run p.npy --voxel-size 1 --anchor w3": "--anchor: must be 'z0', 'z1'.*; got 'w3'",
    "run p.npy --voxel-size 1 --crop 0:9,:,:": r"--crop: must lie inside the volume .*; got z = 0:9 of 0:3",
    "run p.npy --voxel-size 1 --bin 9": "--bin: must be a whole number from 1 to 3",
    "run p.npy --config size.toml": r"input\.voxel_size: must be positive, in micrometres; got 1, 0, 1",
    "run p.npy --voxel-size 1 --config .": r"--config: \. cannot be read as TOML: Is a directory; give the path",
    "run p.npy --voxel-size 1 --config bin.toml": r"input\.bin: must be greater than or equal to 1; got 0",
    "run p.npy --voxel-size 1 --model p.npy": "--model: p.npy is damaged, or no ONNX file",
    "evaluate rgb": r"ANNOTATIONS: .*a\.tif: must have two axes \(y, x\) or three \(z, y, x\); got shape \(8, 8, 3\)",
    "evaluate none": "ANNOTATIONS: there is nothing at none; give a JSON file, a label image, or a folder",
    "evaluate --phantom 1 --tune none --method watershed": "--tune: there is nothing at none",
    "evaluate --phantom 1 --model none --method network": "--model: there is no file none",
    "evaluate --phantom 1 --model none --method watershed": "--model: only goes with the network; got none for",
    NAN: r"--grey: must hold finite values.* = \(0, 0, 1\)\. Replace",
    f"{LEARN.replace('void=0,active=1', 'void=0')}": "--phase-values: must name the active phase; got void",
    f"{LEARN.replace('void=0,active=1', 'void=1,active=1')}": "--phase-values: must give each value one name",
    "correlate none --map rgb/a.tif": r"--map: must have two axes \(y, x\) or three",
    "compare none --metadata .": r"--metadata: \. cannot be read as CSV \(Is a directory\); give a CSV file",
    "compare none --cycling rates.csv": r"--cycling: rates\.csv: rate: must read like C/10, 1C or 0\.1; got 'fast'",
    "streamlines none --seed -1": "--seed: must be greater than or equal to 0",
    "sweep none --out p.npy": r"-o/--out: p.npy cannot be written \(it is a file\); choose another folder",
    "correlate none --map p.npy --min-thickness -1": "--min-thickness: must be 0 or more, in micrometres; got -1",
    "correlate none --map p.npy --scale 0,1": "--scale: must be LOW,HIGH .*, both above 0; got 0,1",
    "correlate none --map no.npy": "--map: must be an existing file or folder; got 'no.npy'",
    "compare none --out p.npy": r"-o/--out: p.npy cannot be written \(it is a file\)",
    "evaluate --phantom 1 --method network --tune none": "--tune: only goes with watershed or intensity; got none",
    "evaluate --phantom 1 --method watershed --out p.npy": r"-o/--out: p.npy cannot be written \(it is a file\)",
    "bench --json p.npy/b.json": r"--json: p.npy/b.json cannot be written \(.*p.npy: it is a file\); choose",
    f"{LEARN} --trees 0": "--trees: must be 1 to 1000; got 0",
    f"{LEARN} --trees 10000000": "--trees: must be 1 to 1000; got 10000000",
    f"{LEARN} --samples 0": "--samples: must be 1 to 1000000; got 0",
    f"{LEARN} --samples 1000001": "--samples: must be 1 to 1000000; got 1000001",
    f"{LEARN} --seed -1": "--seed: must be 0 to 4294967295; got -1",
    f"{LEARN} --seed 4294967296": "--seed: must be 0 to 4294967295; got 4294967296",
    f"{LEARN} --dimensions 4": "--dimensions: must be 2 or 3; got 4",
    f"{LEARN} --out .": r"-o/--out: . cannot be written \(it is a folder\); choose another file",
    f"{LEARN.replace('--grey p.npy', '--grey no.npy')}": "--grey: must be an existing file or folder; got 'no.npy'",
    f"{LEARN.replace('--labels p.npy', '--labels no.npy')}": "--labels: must be an existing file or folder; got 'no",
}


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_one_line(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("p.npy", np.arange(60, dtype=np.uint8).reshape(3, 4, 5))
    Path("bad.toml").write_text("slab = = 3")
    Path("unknown.toml").write_text("[segment]\ncolour = 3")
    Path("size.toml").write_text("[input]\nvoxel_size = [1, 0, 1]")
    Path("bin.toml").write_text("[input]\nbin = 0")
    Path("rates.csv").write_text("cycle,capacity,rate\n1,2,fast\n")
    np.save("nan.npy", np.array([[[1.0, np.nan]]]))
    np.save("one.npy", np.array([[[0, 1]]]))
    Path("rgb").mkdir()
    tifffile.imwrite("rgb/a.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    tifffile.imwrite("rgb/a_labels.tif", np.ones((8, 8), np.uint8))
    before = {p.name for p in tmp_path.iterdir()}
    code, said, complained = command(line)
    assert code == 2
    assert said.startswith("This run measures") or not said
    assert complained.startswith("cbdetach: ")
    assert complained.count("\n") == 1
    assert complained.endswith(".\n")
    with pytest.raises(InputError, match=WRONG[line]):
        raise InputError(complained)
    assert {p.name for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("line", "what", "then"),
    [
        ("run x.tif", "cbdetach.pipeline.run", "continue with --resume."),
        ("run x.tif --dry-run", "cbdetach.pipeline.plan", "continue with --resume."),
        ("demo", "cbdetach.demo.demo", "start again with --overwrite."),
        ("report x", "cbdetach.gather.rewrite_report", ""),
        ("view x", "cbdetach.viewer.view", ""),
        ("doctor", "cbdetach.doctor.examine", ""),
    ],
)
def test_ctrl_c(line: str, what: str, then: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(what, interrupt)
    assert command(line) == (130, "", f"cbdetach: interrupted{'; ' + then if then else '.'}\n")


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(pipeline, "run", broken)
    monkeypatch.setattr(sys, "argv", ["cbdetach", "run", "x.tif"])
    with pytest.raises(ZeroDivisionError):
        __main__.main()


# ---- what is not installed -------------------------------------------------------------------------------------------


def test_with_the_kernels_alone_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    for name in [name for name in sys.modules if name.startswith("cbdetach.cli")]:
        monkeypatch.delitem(sys.modules, name)
    assert command("run x.tif") == (
        2,
        "",
        "cbdetach: the pipeline is not installed (typer is missing): pip install 'cbdetach[cpu]'\n",
    )


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the import of one module fail while a command works."""

    def fail(name: str) -> None:
        def start() -> None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        monkeypatch.setattr(cli, "start", start)

    return fail


def test_a_library_that_is_missed_later_is_named_too(failing: Callable[[str], None]) -> None:
    failing("h5py")
    code, _, complained = command("run x.tif")
    assert code == 2
    assert "(h5py is missing): pip install 'cbdetach[cpu]'" in complained


@pytest.mark.parametrize("name", ["cbdetach.nowhere", "voxkernels"])
def test_a_missing_part_of_ours_is_a_mistake_of_ours(failing: Callable[[str], None], name: str) -> None:
    failing(name)
    with pytest.raises(ModuleNotFoundError, match=name):
        __main__.main()


def test_click_is_typer_s_affair() -> None:
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] == "click"], path


def test_train_phases(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((12, 12)) > 0.5).astype(np.uint8)
    tifffile.imwrite(tmp_path / "grey.tif", (labels * 9000.0 + 500 * rng.random((12, 12))).astype(np.uint16))
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    line = f"train-phases --grey {tmp_path}/grey.tif --labels {tmp_path}/labels.tif --phase-values void=0,active=1 "
    line += f"-o {tmp_path}/phases.npz --trees 3"
    assert command(line) == (0, f"{tmp_path}/phases.npz\n", "")
    assert (tmp_path / "phases.npz").exists()
    code, _, said = command(f"{line} --grey another.tif")
    assert (code, said) == (2, "cbdetach: --labels: must be given once for each --grey; got 1 for 2.\n")
