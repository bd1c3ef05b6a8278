"""The GPU side without a GPU: what the loader asks of CuPy, what is said when there is none, what the harness finds."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from benchmarks.nvcc import ARCHITECTURES, NVCC, REPORT, SOURCES, TRAITS, digest, resources
from tests.contract.backends import ON_GPU, load
from tests.host_cuda import COMPILER, ORDERS, HostDevice, nvrtc, sanitized

import voxkernels as vk
from voxkernels import _arrays, _compile

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="g++ is not here")
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="nvcc is not here")
needs_nvrtc = pytest.mark.skipif(nvrtc.library() is None, reason="NVRTC is not here; PyTorch brings it")


class FakeDevice:
    """What `array.device` is in CuPy."""

    current = 0

    def __init__(self, number: int | None = None) -> None:
        self.id = FakeDevice.current if number is None else number

    def __enter__(self) -> None:
        self.before, FakeDevice.current = FakeDevice.current, self.id

    def __exit__(self, *_: object) -> None:
        FakeDevice.current = self.before


class FakeArray:
    """A CuPy array: a NumPy array that says where it lies and is none."""

    def __init__(self, array: np.ndarray, number: int = 0) -> None:
        self.array, self.device = array, FakeDevice(number)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.array, name)

    def get(self) -> np.ndarray:
        return self.array.copy()


FakeArray.__module__, FakeArray.__name__ = "cupy", "ndarray"


class FakeError(Exception):
    """CUDARuntimeError."""


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module `cupy` with two GPUs of 2 GiB that records what it compiles and launches."""

    def put(array: np.ndarray) -> FakeArray:
        return FakeArray(array, FakeDevice.current)

    def raw_module(**arguments: Any) -> Any:
        fake.compiled.append({**arguments, "device": FakeDevice.current})
        return SimpleNamespace(get_function=lambda name: lambda *a, **k: fake.launched.append((name, a, k)))

    fake: Any = ModuleType("cupy")
    fake.ndarray, fake.compiled, fake.launched = FakeArray, [], []
    fake.empty = fake.zeros = lambda shape, dtype: put(np.zeros(shape, dtype))
    fake.asarray = lambda array: put(np.array(array))
    fake.RawModule = raw_module
    fake.get_default_memory_pool = lambda: SimpleNamespace(free_bytes=lambda: 2**30)
    runtime = SimpleNamespace(
        memGetInfo=lambda: (2**30, 2**32),
        driverGetVersion=lambda: 13000,
        getDeviceCount=lambda: 2,
        CUDARuntimeError=FakeError,
    )
    fake.cuda = SimpleNamespace(Device=FakeDevice, runtime=runtime)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    _compile._cuda_module.cache_clear()
    yield fake
    _compile._cuda_module.cache_clear()


# The loader


def test_a_file_is_compiled_once_for_each_device_and_trait(cupy: Any, tmp_path: Path) -> None:
    source = tmp_path / "sums.cu"
    source.write_text("code")
    one, other = _compile.cuda_device(0), _compile.cuda_device(1)
    for device, traits in ((one, {}), (one, {}), (one, {"LABEL": "int"}), (other, {}), (other, {})):
        device.kernel(source, "add", traits)
    assert [(c["device"], c["options"]) for c in cupy.compiled] == [
        (0, ("-std=c++17",)),
        (0, ("-std=c++17", "-DLABEL=int")),
        (1, ("-std=c++17",)),
    ]
    assert all(c["code"] == "code" for c in cupy.compiled)


def test_arrays_and_launches_are_on_the_device_asked_for(cupy: Any, tmp_path: Path) -> None:
    source = tmp_path / "sums.cu"
    source.write_text("code")
    device = _compile.cuda_device(1)
    sent = device.send(np.arange(3))
    assert [array.device.id for array in (device.empty(2, int), device.zeros((2, 3), int), sent)] == [1, 1, 1]
    assert device.fetch(sent).tolist() == [0, 1, 2]
    kernel = device.kernel(source, "add")
    device.launch(kernel, 7, (32, 8), (sent, np.int64(3)), shared=64)
    assert cupy.launched == [("add", ((7,), (32, 8), (sent, np.int64(3))), {"shared_mem": 64})]
    assert _compile.cuda_device().number == FakeDevice.current == 0


# What is said


def test_no_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match=r"device: 'cuda' must find CuPy; got .*\. Install cupy-cuda13x"):
        _compile.cuda_device()
    assert vk.overlap_counts(np.ones((2, 2), int), np.ones((2, 2), int)).count.tolist() == [4]


def test_no_gpu(cupy: Any) -> None:
    def refuse() -> int:
        raise FakeError("cudaErrorNoDevice: no CUDA-capable device is detected")

    cupy.cuda.runtime.getDeviceCount = refuse
    with pytest.raises(RuntimeError, match=r"device: 'cuda' must find a GPU; got cudaErrorNoDevice.*Use the CPU here"):
        _compile.cuda_device()
    cupy.cuda.runtime.getDeviceCount = lambda: 2
    with pytest.raises(RuntimeError, match=r"device: must be one of the 2 GPUs here, from 0; got 2\."):
        _compile.cuda_device(2)


@pytest.mark.parametrize(("version", "have"), [(11080, "one for CUDA 11.8"), (0, "none")])
def test_old_driver(cupy: Any, version: int, have: str) -> None:
    cupy.cuda.runtime.driverGetVersion = lambda: version
    with pytest.raises(RuntimeError, match=rf"must find an NVIDIA driver for CUDA 12 or later; got {have}\. Update"):
        _compile.cuda_device()


def test_mixed_arrays(cupy: Any) -> None:
    here, there = np.ones((2, 2), np.int32), FakeArray(np.ones((2, 2), np.int32))
    message = (
        r"b: must be a CuPy array, as a is; got an array of shape \(2, 2\) .* of type numpy\.ndarray\. Copy it with"
    )
    with pytest.raises(TypeError, match=message):
        vk.overlap_counts(there, here)
    with pytest.raises(TypeError, match=r"a: must be a CuPy array, as b is; got \[1\] of type builtins\.list"):
        vk.overlap_counts([1], there)
    with pytest.raises(ValueError, match=r"b: must lie on GPU 0, as a does; got GPU 1\. Copy one\."):
        vk.overlap_counts(there, FakeArray(there.array, 1))
    assert _arrays.device_of(a=here, b=None) is None
    device = _arrays.device_of(a=there, b=None)
    assert device is not None
    assert device.number == 0


BLOCK, POINTS = np.ones((2, 2, 2), np.int32), np.ones((1, 3))
MASKS = np.ones((2, 5, 5)), np.array([[1.0, 2, 30, 20], [8, 8, 70, 90]]), np.ones(2)


@pytest.mark.parametrize(
    ("name", "given", "odd"),
    [
        ("contact_areas", {"labels": BLOCK}, {"phases": BLOCK}),
        ("contact_areas", {"labels": BLOCK, "phases": BLOCK}, {"solid": BLOCK}),
        ("travel_time", {"domain": BLOCK}, {"sources": BLOCK}),
        ("travel_time", {"domain": BLOCK, "sources": BLOCK}, {"speed": np.ones((2, 2, 2))}),
        ("travel_time", {"domain": BLOCK, "sources": BLOCK}, {"out": np.ones((2, 2, 2), np.float32)}),
        ("trace_paths", {"T": BLOCK}, {"starts": POINTS}),
        ("trace_paths", {"T": BLOCK, "starts": POINTS}, {"domain": BLOCK}),
        ("region_properties", {"labels": BLOCK}, {"image": BLOCK}),
        ("overlap_cost", {"a": BLOCK}, {"b": BLOCK}),
        (
            "paste_masks",
            {"masks": np.ones((1, 2, 2)), "boxes": np.ones((1, 4)), "shape": (9, 9)},
            {"scores": np.ones(1)},
        ),
    ],
)
def test_every_function_refuses_a_mixture(cupy: Any, name: str, given: dict[str, Any], odd: dict[str, Any]) -> None:
    moved = {key: FakeArray(value) if isinstance(value, np.ndarray) else value for key, value in given.items()}
    message = rf"{next(iter(odd))}: must be a CuPy array, as {next(iter(given))} is; got .* of type numpy\.ndarray\."
    with pytest.raises(TypeError, match=message):
        getattr(vk, name)(**moved, **odd)


def test_parts_of_a_mixture_are_not_merged(cupy: Any) -> None:
    areas, regions = vk.contact_areas(BLOCK, BLOCK), vk.region_properties(BLOCK)
    for merge, part in ((vk.merge_contacts, areas), (vk.merge_regions, regions)):
        moved = dataclasses.replace(part, labels=FakeArray(part.labels))
        with pytest.raises(TypeError, match=r"parts\[1\]: must be a CuPy array, as parts\[0\] is; got"):
            merge([moved, part])


def test_arrays_that_nobody_looked_for_are_refused(cupy: Any) -> None:
    with pytest.raises(TypeError, match=r"labels: must be a NumPy array; got .* of type ndarray\. Copy it to the host"):
        _arrays.as_labels("labels", FakeArray(BLOCK))


def test_bad_arrays_on_a_device(cupy: Any) -> None:
    flat, floats = FakeArray(np.ones(3, np.int32)), FakeArray(np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"a: must be \(Z, Y, X\); got an array of shape \(3,\) and dtype int32"):
        vk.overlap_counts(flat, flat)
    with pytest.raises(
        TypeError, match=r"a: must be of an integer type; got an array of shape \(2, 2\) and dtype float64"
    ):
        vk.overlap_counts(floats, floats)


def test_out_of_memory_is_seen_before_the_launch(cupy: Any) -> None:
    _compile.cuda_device().reserve("label", 2**31)
    with pytest.raises(
        MemoryError, match=r"label: needs 2\.5 GiB on the device; 2 GiB are free\. Give it smaller parts"
    ):
        _compile.cuda_device().reserve("label", 5 * 2**29)


def test_arrays_are_checked_where_they_lie(cupy: Any) -> None:
    seen = []

    class Watched(FakeArray):
        def max(self) -> Any:
            seen.append(FakeDevice.current)
            return self.array.max()

    _arrays.narrow_labels(Watched(np.ones(3, np.uint32), 1))
    assert seen == [1]


# What every operation states and chooses, on the harness

PIXELS = np.random.default_rng(0).integers(0, 5, (9, 50, 60)).astype(np.int32)
TIMES = np.linalg.norm(np.indices((7, 8, 9)), axis=0).astype(np.float32)
SEVERAL = np.random.default_rng(1).integers(0, 400, (9, 20, 40)).astype(np.int32)


class Call(NamedTuple):
    """A call of one public function of an operation."""

    operation: str
    name: str
    arguments: tuple[Any, ...]
    options: dict[str, Any] = {}  # noqa: RUF012  # nobody writes to it

    def on(self, backend: str) -> Any:
        """What it returns on a backend."""
        return getattr(load(self.operation, backend), self.name)(*self.arguments, **self.options)


CALLS = [
    Call("components", "label", (PIXELS[:, :40],)),
    Call("contacts", "contact_areas", (SEVERAL, PIXELS[:, :20, :40])),
    Call("contacts", "contact_areas", (SEVERAL, PIXELS[:, :20, :40] * 99), {"estimator": "faces"}),
    Call("contacts", "contact_areas", (SEVERAL.astype(np.int64) << 40, PIXELS[:, :20, :40]), {"estimator": "crofton"}),
    Call("eikonal", "travel_time", (PIXELS, PIXELS == 0)),
    Call("eikonal", "trace_paths", (TIMES, [(6, 7, 8), (6, 0, 8), (1, 2, 3)])),
    Call(
        "masks", "paste_masks", (np.ones((2, 5, 5)), np.array([[1.0, 2, 30, 20], [8, 8, 70, 90]]), np.ones(2), (99, 98))
    ),
    Call("overlaps", "overlap_counts", (PIXELS, PIXELS[::-1])),
    Call("overlaps", "overlap_counts_stack", (SEVERAL,), {"step": 2}),
    Call("regions", "region_properties", (PIXELS * 1_000_003, PIXELS[::-1].astype(np.uint8))),
    Call("regions", "region_properties", (SEVERAL, PIXELS[:, :20, :40].astype(np.uint16)), {"spacing": (0.3, 1, 2)}),
]
each_call = pytest.mark.parametrize("call", CALLS, ids=lambda call: "-".join(map(str, [call.name, *call[3].values()])))


def test_every_operation_is_called() -> None:
    assert {call.operation for call in CALLS} == set(ON_GPU)


@needs_compiler
@each_call
def test_little_memory(monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    module = importlib.import_module(f"voxkernels.{call.operation}")
    monkeypatch.setattr(module, "device_of", lambda **_: HostDevice(free=2**10))
    with pytest.raises(MemoryError, match=rf"{call.name}: needs .* GiB on the device; .* are free"):
        getattr(module, call.name)(*call.arguments, **call.options)


@needs_compiler
@pytest.mark.parametrize("order", ORDERS)
@each_call
def test_limits_and_first_sizes_change_nothing(monkeypatch: pytest.MonkeyPatch, call: Call, order: str) -> None:
    """Indices of 64 bits instead of 32, few blocks instead of many, tables that have to grow."""
    same_bits = f"host-{order}" if call.name == "travel_time" else "cpu"  # the CPU's times are computed in 32 bits
    expected = call.on(same_bits)
    modules = [importlib.import_module(f"voxkernels.{call.operation}{part}") for part in ("", ".cuda")]
    changed = {"INT32_LIMIT": 1, "INDEX_LIMIT": 1, "BLOCKS": 2, "FIRST_SLOTS": 2, "MOST_BLOCKS_Y": 1}
    changed |= {"FIRST_ROWS": 2, "DENSE_BYTES": 0, "FIRST_RESULTS": 3, "FIRST_ENTRIES": 3}
    changed |= {"ROUND_BLOCKS": 2, "FIRST_ROUNDS": 1}
    used = [(module, key) for key in changed for module in modules if hasattr(module, key)]
    assert used
    for module, key in used:
        monkeypatch.setattr(module, key, changed[key])
        assert_equal(call.on(f"host-{order}"), expected)


@needs_compiler
def test_little_memory_for_renaming(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slab can be labelled, but there is no room for its final labels beside them."""
    slab = PIXELS[:1]
    device = HostDevice(free=4 * slab.size + 8 * -(-slab.size // 4096))
    monkeypatch.setattr(importlib.import_module("voxkernels.components"), "device_of", lambda **_: device)
    labels, _ = vk.label_slabs([slab])
    with pytest.raises(MemoryError, match=r"label_slabs: needs .* GiB on the device; .* are free"):
        list(labels)


class OldDevice(HostDevice):
    """A GPU before sm_80, which has no instruction that adds over the lanes of a warp."""

    def kernel(self, source: Path, name: str, traits: Any = None) -> Any:
        return super().kernel(source, name, {**traits, "LANES_ADD": 0})


@needs_compiler
@pytest.mark.parametrize("order", ORDERS)
def test_lanes_that_add_by_shuffles(monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    calls = [Call("contacts", "contact_areas", (SEVERAL, SEVERAL % 3))]
    for kind in (np.uint16, np.float32):
        calls.append(Call("regions", "region_properties", (SEVERAL // 40, (SEVERAL * 7).astype(kind))))
    for call in calls:
        expected = call.on("cpu")
        module = importlib.import_module(f"voxkernels.{call.operation}")
        with monkeypatch.context() as patch:
            patch.setattr(module, "device_of", lambda **_: OldDevice(order))
            assert_equal(call.on("cpu"), expected)


def assert_equal(one: Any, other: Any) -> None:
    """Two results, field by field, to the bit."""
    if dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            assert_equal(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, tuple | list):
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    else:
        np.testing.assert_array_equal(one, other)


# The CUDA compiler


@needs_nvcc
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_nvcc_compiles_every_kernel_without_spills(source: Path) -> None:
    """Without any option but the architecture, for every set of traits that the tests can name."""
    for row in resources(source):
        assert row.spilled == 0, row


@needs_nvcc
def test_the_report_of_resources_is_of_these_sources() -> None:
    assert [row.name for row in resources(SOURCES[0])]
    written = REPORT.read_text()
    for source in SOURCES:
        assert f"{source.name} {digest(source)}" in written, f"run python -m benchmarks.nvcc: {source.name} has changed"


@needs_nvrtc
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_nvrtc_compiles_every_kernel(source: Path) -> None:
    """As CuPy does on a user's machine, where neither nvcc nor any header is."""
    for traits in TRAITS.get(source.stem, ({},)):
        for architecture in ARCHITECTURES:
            assert nvrtc.complaints(source, traits, architecture) == ""


@needs_nvrtc
def test_nvrtc_knows_less_than_nvcc(tmp_path: Path) -> None:
    source = tmp_path / "infinite.cu"
    source.write_text('extern "C" __global__ void infinite(float* out) { out[0] = INFINITY; }')
    assert 'identifier "INFINITY" is undefined' in nvrtc.complaints(source, {}, "sm_90")


# The harness

SCENES = {
    "half a block": ("if (threadIdx.x < 40) __syncthreads();", "40 of 64 threads wait at the barrier of line 2, which"),
    "two barriers": (
        "if (threadIdx.x < 40) { __syncthreads(); }\nelse __syncthreads();",
        "threads wait at different barriers, of lines 2 and 3",
    ),
    "half a warp": (
        "if (threadIdx.x % 32 < 5) out[0] = __ballot_sync(~0u, 1);",
        "wait at the warp operation of line 2",
    ),
}


def compiled(tmp_path: Path, body: str, head: str = "int* out") -> Path:
    source = tmp_path / "scene.cu"
    source.write_text(f'extern "C" __global__ void scene({head}) {{\n{body}\n(void)out; }}\n')
    return source


@needs_compiler
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("scene", SCENES)
def test_barriers_that_some_never_reach(tmp_path: Path, scene: str, order: str) -> None:
    body, message = SCENES[scene]
    device = HostDevice(order)
    kernel = device.kernel(compiled(tmp_path, body), "scene")
    with pytest.raises(RuntimeError, match=rf"scene, block \(\d, 0, 0\): .*{message}"):
        device.launch(kernel, 2, 64, (device.zeros(64, np.int32),))


@needs_compiler
def test_a_missing_barrier_shows_in_another_order(tmp_path: Path) -> None:
    body = """__shared__ int values[64];
    values[threadIdx.x] = threadIdx.x;
    BARRIER
    out[threadIdx.x] = values[threadIdx.x ^ 1];"""
    source = compiled(tmp_path, body)
    for barrier, same in (("__syncthreads();", True), ("", False)):
        answers = []
        for order in ORDERS:
            device = HostDevice(order)
            out = device.zeros(64, np.int32)
            device.launch(device.kernel(source, "scene", {"BARRIER": barrier}), 1, 64, (out,))
            answers.append((out == np.arange(64) ^ 1).all())
        assert all(answers) == same


@needs_compiler
@pytest.mark.parametrize("order", ORDERS)
def test_warp_operations_votes_and_atomics(tmp_path: Path, order: str) -> None:
    body = """int t = threadIdx.x, l = t % 32;
    out[0 * 64 + t] = __shfl_sync(~0u, t, 3);
    out[1 * 64 + t] = __shfl_up_sync(~0u, t, 1);
    out[2 * 64 + t] = __shfl_down_sync(~0u, t, 2);
    out[3 * 64 + t] = __shfl_xor_sync(~0u, t, 5);
    out[4 * 64 + t] = __ballot_sync(~0u, l % 3 == 0);
    out[5 * 64 + t] = __match_any_sync(~0u, l / 4);
    out[6 * 64 + t] = __syncthreads_count(t < 7) + 100 * __syncthreads_or(t == 63) + 1000 * __syncthreads_and(t < 63);
    if (l < 8) { __syncwarp(0xFF); out[7 * 64 + t] = __any_sync(0xFF, l == 9) + 2 * __all_sync(0xFF, l < 8); }
    if (t < 8) out[8 * 64 + t] = 10;
    __syncthreads();
    atomicAdd(&out[512], 1); atomicSub(&out[513], 1); atomicMin(&out[514], t); atomicMax(&out[515], t);
    atomicOr(&out[516], t); atomicAnd(&out[517], t | 64); atomicXor(&out[518], t); atomicCAS(&out[519], 10, t);"""
    device = HostDevice(order)
    out = device.zeros(9 * 64, np.int32)
    device.launch(device.kernel(compiled(tmp_path, body), "scene"), 1, 64, (out,))
    t, lane = np.arange(64), np.arange(64) % 32
    rows = out.reshape(9, 64)
    expected = [
        t - lane + 3,
        np.where(lane == 0, t, t - 1),
        np.where(lane >= 30, t, t + 2),
        t ^ 5,
        np.full(64, sum(1 << k for k in range(0, 32, 3)), np.uint32).view(np.int32),
        (np.uint32(15) << (lane // 4 * 4).astype(np.uint32)).view(np.int32),
        np.full(64, 107),
        np.where(lane < 8, 2, 0),
    ]
    for row, (found, wanted) in enumerate(zip(rows, expected, strict=False)):
        np.testing.assert_array_equal(found, wanted, err_msg=str(row))
    assert rows[8, :7].tolist() == [74, -54, 0, 63, 63, 0, 10]
    assert rows[8, 7] != 10


@needs_compiler
def test_arguments_of_another_type_are_refused(tmp_path: Path) -> None:
    device = HostDevice()
    kernel = device.kernel(compiled(tmp_path, "out[0] = n;", "int* out, long long n"), "scene")
    for wrong in ((np.zeros(1), np.int64(1)), (np.zeros(1, np.int32), np.int32(1)), (np.zeros(1, np.int32),)):
        with pytest.raises(AssertionError, match=r"scene: takes \['\*i4', 'i8'\], got"):
            device.launch(kernel, 1, 1, wrong)


@needs_compiler
def test_dynamic_shared_memory_and_grids_of_three_axes(tmp_path: Path) -> None:
    body = """DYNAMIC_SHARED(int, values);
    int t = threadIdx.x + 2 * (threadIdx.y + 3 * threadIdx.z);
    values[t] = blockIdx.x + 4 * (blockIdx.y + 5 * blockIdx.z);
    __syncthreads();
    atomicAdd(&out[values[11 - t]], 1);"""
    for order in ORDERS:
        device = HostDevice(order)
        out = device.zeros(40, np.int32)
        device.launch(device.kernel(compiled(tmp_path, body), "scene"), (4, 5, 2), (2, 3, 2), (out,), shared=48)
        assert (out == 12).all()


@needs_compiler
@pytest.mark.parametrize(
    ("body", "shared", "message"),
    [
        ("out[threadIdx.x + 1] = 1;", 0, "heap-buffer-overflow"),
        (
            "__shared__ int v[64]; int* volatile p = v; out[0] = p[threadIdx.x + 1];",
            0,
            "global-buffer-overflow",
        ),
        ("DYNAMIC_SHARED(int, v); v[threadIdx.x + 1] = 1; out[0] = v[0];", 256, "heap-buffer-overflow"),
        ("out[0] = 1 << (threadIdx.x + 1);", 0, "shift exponent"),
    ],
)
def test_sanitizers_see_what_kernels_do_wrong(tmp_path: Path, body: str, shared: int, message: str) -> None:
    source = compiled(tmp_path, body)
    program = f"""
import numpy as np
from pathlib import Path
from tests.host_cuda import HostDevice
device = HostDevice()
device.launch(device.kernel(Path({str(source)!r}), "scene"), 1, 64, (np.zeros(64, np.int32),), {shared})
"""
    done = sanitized(["-c", program], cwd=Path(__file__).parents[2])
    assert done.returncode != 0
    assert message in done.stderr


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("operation", ON_GPU)
def test_kernels_are_clean_under_sanitizers(operation: str) -> None:
    """The contract suite of every operation, its kernels built with address and undefined-behaviour sanitizers."""
    suite = [
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "host-shuffled",
        f"tests/contract/test_{operation}.py",
    ]
    done = sanitized(suite, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout
