"""The compile policy: what is kept on disk, what happens when processes and threads compile and run at once."""

from __future__ import annotations

import json
import os
import pickle
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import llvmlite.binding as llvm
import pytest

import voxkernels

KERNELS = Path(voxkernels.__file__).parent

TOY = """
import numba
from numba import prange
from ._compile import jit

@jit
def double(x):
    return x + x

@jit(parallel=True)
def fill(out, value):
    for i in prange(out.size):
        out[i] = value + i

compiled_fill = fill.dispatcher

@jit(around=True)
def around(out, value):
    compiled_fill(out, value)
"""

PLAIN_TOY = TOY.replace("from ._compile import jit", "jit = numba.njit(cache=True)").split("@jit(parallel")[0]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package `toy` with the compile policy and two small kernels."""
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "__init__.py").touch()
    shutil.copy(KERNELS / "_compile.py", folder)
    (folder / "kernels.py").write_text(TOY)
    (folder / "plain.py").write_text(PLAIN_TOY)
    return folder


def start(package: Path, program: str, **environment: str) -> subprocess.Popen[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("VOXKERNELS_", "NUMBA_"))}
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=package.parent,
        env={**inherited, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(package: Path, program: str, **environment: str) -> str:
    process = start(package, program, **environment)
    out, err = process.communicate(timeout=900)  # everything compiled cold, on a slow machine that is shared
    assert process.returncode == 0, err[-2000:]
    return out.strip()


def cached(package: Path, kernel: str) -> list[Path]:
    return sorted((package / "__pycache__").glob(f"*{kernel}*.nbc"))


USE = """
import json, numba, sys
from toy.{module} import double
values = [double(v) for v in (3, 1.5, 2j)[:{n}]]
hits = sum(double.stats.cache_hits.values())
print(json.dumps([str(values), hits]))
"""


def use(package: Path, n: int = 3, module: str = "kernels", **environment: str) -> tuple[str, int]:
    values, hits = json.loads(run(package, USE.format(n=n, module=module), **environment))
    return values, hits


# Words of comparisons

WORDS = """
import sys
import numpy as np
from numba import core, extending, types
from toy._compile import has_avx2_alone, jit, where_equal
from voxkernels.contacts.cpu_words import any_negative

SEEN = []

@extending.intrinsic
def equal_word(context, array, other):
    def generate(context, builder, signature, arguments):
        SEEN.append(has_avx2_alone(context))
        vectors = []
        for array in arguments:
            data = context.make_array(signature.args[0])(context, builder, array).data
            kind = core.cgutils.ir.VectorType(data.type.pointee, 64).as_pointer()
            vectors.append(builder.load(builder.bitcast(data, kind), align=1))
        return where_equal(context, builder, *vectors)
    return types.uint64(array, other), generate

@jit
def word(a, b):
    return equal_word(a, b)

@jit
def negative(a):
    return any_negative(a, np.uint64(0))

rng = np.random.default_rng(0)
for dtype in (np.uint8, np.int32, np.int64):
    for share in (0.0, 0.1, 0.5, 1.0):
        a, b = rng.integers(0, 100, (2, 64)).astype(dtype)
        b = np.where(rng.random(64) < share, a, b)
        assert word(a, b) == sum(int(same) << k for k, same in enumerate(a == b)), (dtype, share)
for dtype in (np.int32, np.int64):
    a = rng.integers(0, 100, 64).astype(dtype)
    assert not negative(a)
    for k in range(64):
        below = a.copy()
        below[k] = -1
        assert negative(below), k
print(*sorted(set(SEEN)))
"""


@pytest.mark.parametrize(
    ("processor", "features", "avx2_alone"),
    [("x86-64", "+sse2", "False"), ("haswell", "+avx,+avx2", "True"), (None, None, "True or False")],
)
def test_comparisons_are_the_same_words_on_every_processor(
    package: Path, processor: str | None, features: str | None, avx2_alone: str
) -> None:
    if processor and platform.machine() != "x86_64":
        pytest.skip("not an x86-64 processor")
    if processor == "haswell" and not llvm.get_host_cpu_features()["avx2"]:
        pytest.skip("a processor without AVX2")
    chosen = {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features} if processor and features else {}
    assert run(package, WORDS, VOXKERNELS_CACHE="0", **chosen) in avx2_alone.split(" or ")


# The cache


def test_second_process_compiles_nothing(package: Path) -> None:
    assert use(package) == ("[6, 3.0, 4j]", 0)
    assert len(cached(package, "double")) == 3
    assert use(package) == ("[6, 3.0, 4j]", 3)


def test_what_is_kept_is_known_without_compiling(package: Path) -> None:
    ask = "from toy import _compile, kernels; print(*map(_compile.kept, (kernels.double, kernels.fill)))"
    assert run(package, ask) == "False False"
    run(package, "import numpy; from toy import kernels; kernels.double(1); kernels.fill(numpy.zeros(3), 1.0)")
    assert run(package, ask) == "True True"
    assert run(package, ask, VOXKERNELS_CACHE="0") == "False False"
    (package / "plain.py").write_text("# changed, so that all of the folder is compiled again\n")
    assert run(package, ask) == "False False"


def test_cache_switched_off_by_environment(package: Path) -> None:
    for _ in range(2):
        assert use(package, VOXKERNELS_CACHE="0") == ("[6, 3.0, 4j]", 0)
    assert not cached(package, "double")


def test_numba_chooses_the_place(package: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    use(package, NUMBA_CACHE_DIR=str(elsewhere))
    assert len(list(elsewhere.rglob("*double*.nbc"))) == 3
    assert not cached(package, "double")


def test_no_place_to_write_is_no_error(package: Path) -> None:
    # No locator fits: Numba raises RuntimeError where it would decorate.
    program = """
from numba.core.caching import CacheImpl
CacheImpl._locator_classes = []
from toy.kernels import double
print(double(4))
"""
    assert run(package, program) == "8"


def test_full_disk_is_no_error(package: Path) -> None:
    program = """
from numba.core.caching import IndexDataCacheFile
def save(self, name, data):
    raise OSError(28, "No space left on device")
IndexDataCacheFile._save_data = save
from toy.kernels import double
print(double(4))
"""
    assert run(package, program) == "8"
    assert use(package, 1) == ("[6]", 0)


@pytest.mark.parametrize(("kind", "share"), [("nbi", 0.5), ("nbc", 0.5), ("nbc", 0.0)])
def test_damaged_files_are_compiled_again(package: Path, kind: str, share: float) -> None:
    use(package, 1)
    (file,) = (package / "__pycache__").glob(f"*double*.{kind}")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    assert use(package, 1) == ("[6]", 0)
    assert use(package, 1) == ("[6]", 1)


def test_new_source_new_code(package: Path) -> None:
    assert use(package, 2) == ("[6, 3.0]", 0)
    source = package / "kernels.py"
    source.write_text(TOY.replace("return x + x", "return x + x + x"))
    assert use(package, 2) == ("[9, 4.5]", 0)
    assert use(package, 2) == ("[9, 4.5]", 2)


def test_new_source_in_a_file_beside_it_new_code(package: Path) -> None:
    (package / "beside.py").write_text("from ._compile import jit\n\n@jit\ndef twice(x):\n    return x + x\n")
    (package / "kernels.py").write_text(
        "from ._compile import jit\nfrom .beside import twice\n\n@jit\ndef double(x):\n    return twice(x)\n"
    )
    assert use(package, 2) == ("[6, 3.0]", 0)
    (package / "beside.py").write_text("from ._compile import jit\n\n@jit\ndef twice(x):\n    return x + x + x\n")
    assert use(package, 2) == ("[9, 4.5]", 0)
    assert use(package, 2) == ("[9, 4.5]", 2)


def test_new_policy_new_code(package: Path) -> None:
    use(package, 2)
    with (package / "_compile.py").open("a") as file:
        file.write("# an intrinsic of all kernels may have changed here\n")
    assert use(package, 2) == ("[6, 3.0]", 0)
    assert use(package, 2) == ("[6, 3.0]", 2)


def test_the_same_source_installed_again_compiles_nothing(package: Path) -> None:
    use(package, 2)
    for source in package.glob("*.py"):
        os.utime(source, (0, source.stat().st_mtime + 100))
    assert use(package, 2) == ("[6, 3.0]", 2)


def test_in_a_zip_file_code_is_kept_as_long_as_the_file_is_the_same(package: Path, tmp_path: Path) -> None:
    archive, kept_in = tmp_path / "toys.zip", {"NUMBA_CACHE_DIR": str(tmp_path / "kept")}
    moved = package.rename(tmp_path / "folder")

    def use_zip() -> tuple[str, int]:
        with zipfile.ZipFile(archive, "w") as file:
            for source in moved.glob("*.py"):
                file.writestr(zipfile.ZipInfo(f"toy/{source.name}"), source.read_text())
        os.utime(archive, (0, 100 + len(archive.read_bytes())))
        return use(package, 2, PYTHONPATH=str(archive), **kept_in)

    assert use_zip() == ("[6, 3.0]", 0)
    assert use_zip() == ("[6, 3.0]", 2)
    (moved / "kernels.py").write_text(TOY.replace("return x + x", "return x + x + x"))
    assert use_zip() == ("[9, 4.5]", 0)


def test_index_names_only_files_of_its_own_content(package: Path) -> None:
    use(package, 2)
    (index,) = (package / "__pycache__").glob("*double*.nbi")
    with index.open("rb") as file:
        pickle.load(file)
        _, overloads = pickle.load(file)
    assert sorted(overloads.values()) == [path.name for path in cached(package, "double")]


# Two processes that save at the same moment. Each stops where the other could get in between: after it has read the
# index, and, for the first process, before it writes the data, so that its data would come last. `patience` is how
# long it waits for the other, who cannot come where saving is locked.
RACE = """
import sys, time
from pathlib import Path
from numba.core.caching import IndexDataCacheFile as Files

me, patience = sys.argv[1], float(sys.argv[2])
other = "b" if me == "a" else "a"
spot = Path("race")

def reach(place, wait_for=None):
    (spot / f"{place}.{me}").touch()
    until = time.monotonic() + patience
    while wait_for and not (spot / wait_for).exists() and time.monotonic() < until:
        time.sleep(0.005)

load_index, save_index, save_data = Files._load_index, Files._save_index, Files._save_data

def aligned_load_index(self):
    overloads = load_index(self)
    if saving:
        reach("read", f"read.{other}")
    return overloads

def aligned_save_index(self, overloads):
    if me == "b":
        reach("before_index", "index.a")
    save_index(self, overloads)
    reach("index")

def aligned_save_data(self, name, data):
    if me == "a":
        reach("before_data", "data.b")
    save_data(self, name, data)
    reach("data")

from toy.MODULE import double
cache_type = type(double._cache)
saving = False
save_overload = cache_type.save_overload

def aligned_save_overload(self, sig, data):
    global saving
    saving = True
    save_overload(self, sig, data)
    saving = False

Files._load_index, Files._save_index, Files._save_data = aligned_load_index, aligned_save_index, aligned_save_data
cache_type.save_overload = aligned_save_overload
print(double(3 if me == "a" else 1.5))
"""


def race(package: Path, module: str, patience: float) -> None:
    (package.parent / "race").mkdir()
    program = RACE.replace("MODULE", module)
    both = [start(package, f"import sys; sys.argv[1:] = ['{me}', '{patience}']\n{program}") for me in "ab"]
    ends = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert [out.strip() for out, _ in ends] == ["6", "3.0"]


def test_two_processes_that_save_at_once(package: Path) -> None:
    race(package, "kernels", patience=2)
    assert use(package, 2) == ("[6, 3.0]", 2)


def test_the_race_is_real_without_the_lock(package: Path) -> None:
    """Numba's own cache fails in this test's race. Once it no longer does, `_SafeCache` can go."""
    race(package, "plain", patience=20)
    process = start(package, USE.format(n=2, module="plain"))
    out, _ = process.communicate(timeout=120)
    assert process.returncode != 0 or not out.startswith('["[6, 3.0]"')


# Threads

CROWD = """
import sys, threading
import numba, numpy as np
from toy.kernels import around, fill
call = {"kernel": fill, "around": around, "dispatcher": fill.dispatcher}[sys.argv[1]]
out = np.empty((4, 1000))
fill(out[0], 0.0)
def work(row):
    for turn in range(3000):
        call(row, float(turn))
threads = [threading.Thread(target=work, args=(row,)) for row in out]
[t.start() for t in threads]
[t.join() for t in threads]
assert (out == 2999.0 + np.arange(1000)).all()
print(numba.threading_layer())
"""


@pytest.mark.parametrize("which", ["kernel", "around"])
@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_threads_may_call_at_once(package: Path, layer: str, which: str) -> None:
    program = f"import sys; sys.argv[1:] = [{which!r}]\n{CROWD}"
    assert run(package, program, NUMBA_THREADING_LAYER=layer) == layer


def test_workqueue_does_need_turns(package: Path) -> None:
    process = start(package, f"import sys; sys.argv[1:] = ['dispatcher']\n{CROWD}", NUMBA_THREADING_LAYER="workqueue")
    process.communicate(timeout=120)
    assert process.returncode != 0


def test_processes_that_warm_up_at_once(package: Path) -> None:
    both = [start(package, USE.format(n=3, module="kernels")) for _ in range(3)]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert out.startswith('["[6, 3.0, 4j]"'), err
    assert use(package) == ("[6, 3.0, 4j]", 3)


def test_a_parallel_kernel_keeps_its_name_and_docstring() -> None:
    from voxkernels.masks import cpu

    assert cpu.paint_masks.__name__ == "paint_masks"
    assert cpu.paint_masks.__doc__.startswith("Paint detection")


def test_uncompiled_kernels_are_refused(package: Path) -> None:
    """Numba would say that an intrinsic is not usable, or count a negative word in Python's integers."""
    program = """
from toy.kernels import around, double, fill
for kernel in (double, fill, around):
    try:
        kernel(4)
    except RuntimeError as error:
        print(kernel.__name__, error)
"""
    message = "NUMBA_DISABLE_JIT: must not be set where kernels run; got 1. Step through the operation's reference.py"
    lines = run(package, program, NUMBA_DISABLE_JIT="1").splitlines()
    assert [line.split(maxsplit=1)[0] for line in lines] == ["double", "fill", "around"]
    assert all(message in line for line in lines)


FORK = """
import os, numpy as np
from toy.kernels import fill
out = np.empty(1000)
fill(out, 0.0)
child = os.fork()
try:
    fill(out, 1.0)
except RuntimeError as error:
    print(error, flush=True)
if not child:
    os._exit(0)
_, status = os.waitpid(child, 0)
print(status, out[1])
"""


@pytest.mark.parametrize(("layer", "said"), [("workqueue", []), ("omp", ["process: must be spawned, not forked"])])
def test_a_forked_child_is_told_what_to_do(package: Path, layer: str, said: list[str]) -> None:
    """Else it dies without an exception, and its pool waits or breaks."""
    *lines, last = run(package, FORK, NUMBA_THREADING_LAYER=layer).splitlines()
    assert last == "0 2.0"
    assert len(lines) == len(said)
    assert all(line.startswith(start) for line, start in zip(lines, said, strict=True))


# Importing and warming up


def in_fresh_process(program: str, **environment: str) -> str:
    return run(KERNELS, program, **environment)


@pytest.mark.parametrize("package", ["voxkernels", "cbdetach"])
def test_import_is_light_and_compiles_nothing(package: str) -> None:
    program = f"""
import sys, numba.core.event as event
with event.install_recorder("numba:compile") as recorder:
    import {package}
heavy = "pandas zarr matplotlib skimage h5py tifffile pyarrow torch cupy napari pydantic typer jinja2".split()
heavy += ["dask", "distributed"]
heavy += ["scipy.ndimage", "scipy.optimize", "scipy.sparse", "scipy.spatial"]  # Numba itself imports the bare scipy
print(len(recorder.buffer), [name for name in heavy if name in sys.modules])
"""
    assert in_fresh_process(program) == "0 []"


WARMUP = """
import numba.core.event as event
import voxkernels as vk
with event.install_recorder("numba:compile") as recorder:
    assert vk.warmup() is None
print(len(recorder.buffer))
"""


def test_warmup_compiles_everything_once() -> None:
    in_fresh_process(WARMUP)
    assert in_fresh_process(WARMUP) == "0"


def test_after_warmup_the_usual_types_compile_nothing() -> None:
    program = """
import numpy as np, numba.core.event as event
import voxkernels as vk
vk.warmup()
labels = np.arange(60).reshape(3, 4, 5) % 7
with event.install_recorder("numba:compile") as recorder:
    for dtype in (np.uint8, np.uint16, np.int32, np.uint32, np.int64):
        for image in (None, *(np.ones(labels.shape, d) for d in (np.uint8, np.uint16, np.float32))):
            vk.region_properties(labels.astype(dtype), image)
        vk.overlap_counts(labels.astype(dtype), labels[::-1].astype(dtype))
    vk.region_properties(labels * 300_000_000 % 2**31)
    for estimator in ("weighted", "faces", "crofton"):
        vk.contact_areas(labels.astype(np.int32), np.zeros(labels.shape, np.uint8), estimator=estimator)
    for boxes in (np.ones((2, 4), np.float32), np.ones((2, 4))):
        vk.paste_masks(np.ones((2, 28, 28), np.float32), boxes, np.ones(2), (9, 9))
print(len(recorder.buffer))
"""
    assert in_fresh_process(program) == "0"
