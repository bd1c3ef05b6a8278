"""Contact areas beside cc3d.contacts: voxel faces against voxel faces, and what the unbiased areas cost on top."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import voxkernels as vk
from benchmarks import cases, harness
from benchmarks.cases import Array
from benchmarks.harness import Arrays, Case, Peer


def one_volume(labels: Array, phases: Array) -> Arrays:
    """Labels, and after them the phases of the background as labels: cc3d leaves out what touches 0."""
    joined = np.where(labels > 0, labels, labels.max() + 1 + np.minimum(phases, 1)).astype(np.uint32)
    return (joined,)


def with_cc3d(joined: Array) -> dict[tuple[int, int], float]:
    import cc3d

    found: dict[tuple[int, int], float] = cc3d.contacts(joined, connectivity=6, surface_area=True)
    return found


def same_faces(arrays: Arrays, ours: vk.ContactAreas, theirs: dict[tuple[int, int], float]) -> None:
    last = int(arrays[0].max())
    faces = ours.faces.sum(axis=0)
    expected = {(a, b): n for (a, b), n in theirs.items() if min(a, b) <= last}
    shared = zip(ours.pairs, ours.pair_faces.sum(axis=0), strict=True)
    found = {(int(a), int(b)): int(n) for (a, b), n in shared if n}  # diagonal rays join labels that share no face
    for row, phase in np.argwhere(faces):
        found[int(ours.labels[row]), last + 1 + int(phase)] = int(faces[row, phase])
    assert found == expected


def fair_areas(arrays: Arrays, ours: vk.ContactAreas) -> None:
    """The balls of an electrode have the surface of balls; cut and cracked ones are filled or flat at the border."""
    inside = np.flatnonzero(ours.border == 0)
    volume = np.bincount(arrays[0].ravel())[ours.labels[inside]]
    sphere = np.pi ** (1 / 3) * (6 * volume) ** (2 / 3)
    large = volume > 200
    if large.any():
        assert abs(ours.area[inside].sum(axis=1)[large].sum() / sphere[large].sum() - 1) < 0.02


def two_phases(electrode: cases.Electrode) -> Arrays:
    """Labels, and the phases outside of them: void and carbon/binder."""
    return electrode.labels, (electrode.phases == 1).astype(np.uint8)


def random(size: int) -> Arrays:
    """Every voxel its own class and one of 300 labels: nothing to skip."""
    return cases.noise(size), np.random.default_rng(1).integers(0, 2, (size,) * 3, np.uint8)


def constant(size: int) -> Arrays:
    return cases.constant(size), np.zeros((size,) * 3, np.uint8)


INPUTS: dict[str, Callable[[int], Arrays]] = {
    "electrode 28 %": lambda size: two_phases(cases.electrode(size)),
    "electrode 12 %": lambda size: two_phases(cases.electrode(size, 12)),
    "300 labels at random": random,
    "constant": constant,
}
MEASURED: dict[str, Callable[[int], Arrays]] = {
    "nmc": lambda _: two_phases(cases.measured_electrode("nmc_cathode_3phase.tif")),
    "grains": lambda _: two_phases(cases.measured_electrode("grains_binary.tif")),
}
CC3D = Peer("cc3d", with_cc3d, same_faces, prepare=one_volume, largest=256)


def case(name: str, make: Callable[[int], Arrays], estimator: str, size: int | None = None) -> Case:
    unbiased = estimator != "faces" and name.startswith("electrode")
    grown = estimator != "crofton" and name == "electrode 28 %"
    return Case(
        f"{name}, {estimator}",
        make,
        partial(vk.contact_areas, estimator=estimator),
        {"cc3d": CC3D},
        fair_areas if unbiased else None,
        size=size,
        shown=estimator != "crofton" or name == "electrode 28 %",
        edges=(256, 512) if grown else (256,),
        growth=(lambda edge: two_phases(cases.lattice(edge))) if grown else None,
    )


CASES = [case(name, make, e) for name, make in INPUTS.items() for e in ("faces", "weighted", "crofton")]
CASES += [case(name, make, e, 0) for name, make in MEASURED.items() for e in ("faces", "weighted")]


@pytest.mark.parametrize("case", harness.toys(CASES), ids=str)
def test_contact_areas(benchmark: BenchmarkFixture, case: Case) -> None:
    harness.run(benchmark, case)


@pytest.mark.parametrize(("case", "peer"), [p for p in harness.toy_peers(CASES) if "faces" in str(p[0])], ids=str)
def test_peer(benchmark: BenchmarkFixture, case: Case, peer: str) -> None:
    harness.run_peer(benchmark, case, peer)
