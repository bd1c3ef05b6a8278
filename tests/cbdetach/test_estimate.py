"""What a run will need: it grows with the slabs and not with the height, and what cannot fit is refused by name."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from cbdetach import pipeline
from cbdetach.errors import InputError
from cbdetach.estimate import (
    BASE_BYTES,
    COMPILER_BYTES,
    NETWORK_BYTES,
    REPORT_BYTES,
    REPORT_MEMORY,
    Estimate,
    available_memory,
    estimate,
    refuse_what_cannot_fit,
)

HALOS = {"phases": 4, "segment": 32, "detachment": 6, "diffusion": 32, "damage": 20}


def need(height: int = 1000, slab: int = 64, *, plane: int = 500, grey: bool = True) -> Estimate:
    return estimate((height, plane, plane), slab, HALOS, grey=grey)


def test_memory_does_not_grow_with_the_height() -> None:
    assert need(1000).memory == need(2000).memory == need(10_000).memory


def test_memory_of_a_volume_thinner_than_a_window_is_that_of_the_volume() -> None:
    assert need(50, 64).memory == need(50, 1000).memory < need(1000, 64).memory


def test_memory_grows_with_slab_halo_and_plane() -> None:
    assert need(slab=32).memory < need(slab=64).memory < need(slab=128).memory
    assert need(plane=250).memory < need(plane=500).memory
    shape = (1000, 500, 500)
    thin, thick = (estimate(shape, 64, {"segment": halo}, grey=True) for halo in (8, 64))
    assert thin.memory < thick.memory
    window = (64 + 2 * 64) * 500 * 500
    assert thick.memory - BASE_BYTES == pytest.approx(window * (50 + 10))


def test_the_stage_that_needs_the_memory_is_named() -> None:
    for name in ("segment", "damage"):
        assert estimate((999, 200, 200), 64, {name: 300}, grey=True).stage == name


def test_a_classifier_and_missing_grey_need_memory_of_their_own() -> None:
    shape, slab, plane = (1000, 500, 500), 40, 500**2
    plain, flat, deep = (estimate(shape, slab, {}, grey=True, classifier=d) for d in (0, 2, 3))
    assert plain.memory < flat.memory < deep.memory
    assert deep.stage == "phases"
    assert deep.memory - flat.memory == pytest.approx(450 * plane)
    counted, corrected = (estimate(shape, slab, {"damage": 40}, grey=grey) for grey in (False, True))
    assert corrected.memory - counted.memory == pytest.approx(5 * 120 * plane)


def test_small_volumes_need_what_the_report_does() -> None:
    """One after the other, not both: the report's figures are made when no window is held any more."""
    small, smaller = need(50, plane=50), need(40, plane=40)
    assert small.stage == smaller.stage == "report"
    assert small.memory - BASE_BYTES == pytest.approx(REPORT_MEMORY + 10 * 50**3)
    assert smaller.memory < small.memory < need(plane=500).memory


def test_the_network_keeps_its_memory_and_takes_some_for_each_pixel_of_a_slice() -> None:
    shape = (40, 900, 900)
    without, having = (estimate(shape, 40, {}, grey=True, views=1, network=n) for n in (False, True))
    assert having.memory - without.memory == pytest.approx(NETWORK_BYTES)
    assert without.stage == "detachment"
    large = estimate((1, 9000, 9000), 1, {}, grey=True, views=1, network=True)
    assert large.stage == "segment"
    assert large.memory - BASE_BYTES - NETWORK_BYTES == pytest.approx(9000**2 * (10 + 20 + 250))


def test_kernels_that_are_not_compiled_yet_need_memory_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (100, 50, 50)
    warm, cold = (estimate(shape, 64, HALOS, grey=True, compiles=c) for c in (False, True))
    assert cold.memory - warm.memory == COMPILER_BYTES
    phases, how = np.zeros((9, 9, 9), np.uint8), {"phase_values": {"void": 0, "active": 1}, "voxel_size": 1.0}
    asked = []
    for known in (True, False):
        monkeypatch.setattr(sys.modules["cbdetach.pipeline.needs"], "compiled", lambda known=known: known)
        asked.append(pipeline.plan(phases=phases, out="none", **how).memory)
    assert asked[1] - asked[0] == COMPILER_BYTES


def test_disk_and_time_grow_with_the_volume_alone() -> None:
    one, two = need(1000), need(2000)
    assert two.disk - REPORT_BYTES == 2 * (one.disk - REPORT_BYTES)
    assert estimate((9, 9, 9), 9, {}, grey=True).disk == pytest.approx(REPORT_BYTES, rel=1e-3)  # figures are not small
    assert two.seconds > 1.8 * one.seconds
    assert need(slab=32).disk == one.disk
    assert need(grey=False).seconds < one.seconds
    assert need(grey=False).disk == one.disk


def test_slice_by_slice_needs_no_windows_and_the_network_has_its_own_needs() -> None:
    shape, halos = (1000, 200, 200), {"segment": 200}
    windows = estimate(shape, 64, halos, grey=True)
    slices = estimate(shape, 64, halos, grey=True, views=1)
    network = estimate(shape, 64, halos, grey=True, views=1, network=True)
    assert (windows.stage, slices.stage, network.stage) == ("segment", "report", "report")
    assert slices.memory < windows.memory
    assert slices.seconds == windows.seconds < network.seconds
    fused = estimate(shape, 64, {"segment": 32}, grey=True, views=3, network=True)
    assert fused.seconds - windows.seconds == pytest.approx(3 * (64 + 2 * 32) / 64 * (network.seconds - slices.seconds))
    assert fused.memory > network.memory
    large = estimate(shape, 64, halos, grey=True, views=1, network=True, zoom=0.5)
    assert large.seconds - slices.seconds == pytest.approx((network.seconds - slices.seconds) / 4)


@pytest.mark.parametrize(
    ("seconds", "words"), [(59.6, "60 s"), (119, "119 s"), (121, "2 min"), (3600, "60 min"), (9000, "2.5 h")]
)
def test_in_words(seconds: float, words: str) -> None:
    assert str(Estimate(1.26e9, 5.4e7, seconds, "segment")) == (
        f"needs about 1.3 GB of memory (most in segment), 54 MB of disk and {words} on two cores"
    )
    assert "1.2 GB of disk" in str(Estimate(1.26e9, 1.24e9, seconds, "segment"))
    measured = str(Estimate(1.26e9, 5.4e7, seconds, "segment", volume="9 x 8 x 7 voxels of 1 x 1 x 1 um"))
    assert measured.startswith("measures 9 x 8 x 7 voxels of 1 x 1 x 1 um and needs about 1.3 GB of memory")


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_what_fits_is_not_refused(tmp_path: Path) -> None:
    refuse_what_cannot_fit(Estimate(2e9, 1e9, 60, "segment"), tmp_path / "out", memory=2e9, disk=1e9)
    refuse_what_cannot_fit(Estimate(1.0, 1.0, 60, "segment"), tmp_path / "a" / "b" / "out")
    assert not (tmp_path / "a").exists()


def test_too_little_memory_names_the_options(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"memory: this run needs about 2\.0 GB, 1\.5 GB are free; ") as caught:
        refuse_what_cannot_fit(Estimate(2e9, 1e9, 60, "segment"), tmp_path, memory=1.5e9, disk=1e12)
    assert all(option in str(caught.value) for option in ("--crop", "--bin 2", "--slab"))


def test_too_little_disk_names_the_options(tmp_path: Path) -> None:
    out = tmp_path / "not" / "yet"
    with pytest.raises(InputError, match=r"this run needs about 1\.0 GB of disk, 500 MB are free") as caught:
        refuse_what_cannot_fit(Estimate(2e9, 1e9, 60, "segment"), out, memory=1e12, disk=5e8)
    assert str(caught.value).startswith("-o/--out: ")
    assert f" at {tmp_path};" in str(caught.value)
    assert all(option in str(caught.value) for option in ("another folder", "--crop", "--bin 2"))


def test_the_system_is_asked_where_nothing_is_given(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"memory: this run needs about 1000000000\.0 GB"):
        refuse_what_cannot_fit(Estimate(1e18, 1.0, 60, "segment"), tmp_path)
    with pytest.raises(InputError, match="of disk"):
        refuse_what_cannot_fit(Estimate(1.0, 1e21, 60, "segment"), tmp_path, memory=1e12)


# ---- memory of this machine ------------------------------------------------------------------------------------------


def test_there_is_memory() -> None:
    free = available_memory()
    if not Path("/proc/meminfo").exists():
        assert free is None
    else:
        assert free is not None
        assert free > 1e6


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    (tmp_path / "meminfo").write_text("MemTotal:       65536000 kB\nMemAvailable:    8000000 kB\nHugePages_Total:  0\n")
    return tmp_path


def limited(folder: Path, limit: str, used: float, cached: float) -> Path:
    """Write the files of a control group, a quarter of whose cached files are inactive."""
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used:.0f}\n")
    (folder / "memory.stat").write_text(
        f"anon {used - cached:.0f}\ninactive_file {cached / 4:.0f}\nactive_file {3 * cached / 4:.0f}\n"
    )
    return folder


def test_without_a_control_group_it_is_the_machine_s(machine: Path) -> None:
    assert available_memory(machine, machine / "none") == 8_000_000 * 1024


@pytest.mark.parametrize(
    ("limit", "free"), [("4000000000", 3e9), ("90000000000", 8_192_000_000), ("max", 8_192_000_000)]
)
def test_a_control_group_can_lower_it(machine: Path, limit: str, free: float) -> None:
    assert available_memory(machine, limited(machine, limit, used=1e9, cached=0)) == free


def test_cached_files_are_not_in_the_way(machine: Path) -> None:
    """A container that has read a large file has used up its limit, yet nothing is held."""
    assert available_memory(machine, limited(machine, "4000000000", used=3.9e9, cached=3.6e9)) == pytest.approx(3.7e9)


def test_it_is_unknown_where_the_system_does_not_say(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None
    (tmp_path / "meminfo").write_text("MemTotal: 1 kB\n")
    assert available_memory(tmp_path) is None


def test_a_gpu_needs_its_own_memory_and_two_slabs_of_the_hosts() -> None:
    shape = (1000, 500, 500)
    here = estimate(shape, 64, HALOS, grey=True)
    there = estimate(shape, 64, HALOS, grey=True, at_once=2, on_gpu=True)
    assert here.device == 0
    assert "GPU" not in str(here)
    assert there.memory - BASE_BYTES == pytest.approx(2 * (here.memory - BASE_BYTES))  # what the windows hold
    assert there.device == pytest.approx(0.5e9 + 2 * 30 * 128 * 500**2)
    assert f", {there.device / 1e9:.1f} GB on the GPU, " in str(there)
    assert estimate((10**4, 500, 500), 64, HALOS, grey=True, at_once=2, on_gpu=True).device == there.device
    network = estimate(shape, 64, HALOS, grey=True, views=1, network=True, at_once=2, on_gpu=True)
    assert network.device == pytest.approx(there.device + 2e9)


def test_a_gpu_that_is_too_small_is_named(tmp_path: Path) -> None:
    there = estimate((100, 50, 50), 64, HALOS, grey=True, at_once=2, on_gpu=True)
    refuse_what_cannot_fit(there, tmp_path, memory=1e12, disk=1e12, device=1e12)
    refuse_what_cannot_fit(there, tmp_path, memory=1e12, disk=1e12)
    with pytest.raises(
        InputError, match=r"--device: this run needs about 0\.5 GB on the GPU, 0\.1 GB are free; choose"
    ):
        refuse_what_cannot_fit(there, tmp_path, memory=1e12, disk=1e12, device=1e8)
