"""What a benchmark is: one call of ours on one input, beside peers that answer the same question.

Each `bench_<operation>.py` lists its cases. Under pytest they run at toy size (`run`); `python -m benchmarks` measures
the same cases at full size (`benchmarks.measure`). Either way every answer is compared with each peer's before the
clock starts.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.cases import SIZE, Array

OPERATIONS = ("components", "contacts", "regions", "overlaps", "assignment", "masks", "eikonal")
"""In the order of the table; each is a module `benchmarks.bench_<operation>` with a list `CASES`."""

Arrays = tuple[Array, ...]


def given(*arrays: Array) -> Arrays:
    """The arrays as they are."""
    return arrays


def mirrored(arrays: Arrays, repeat: int) -> Arrays:
    """New copies of arrays of one grid, mirrored along other axes each time: the same work on fresh input."""
    axes = tuple(axis for axis in range(arrays[0].ndim) if repeat >> axis & 1)
    return tuple(np.flip(array, axes).copy() for array in arrays)


@dataclass(frozen=True)
class Peer:
    """A library that answers the same question.

    module    : what has to be installed.
    call      : takes what `prepare` gives.
    prepare   : the case's arrays as the peer wants them, outside the clock.
    agrees    : raises AssertionError where two answers differ: (the case's arrays, our answer, the peer's answer).
    threads   : how many the peer uses.
    largest   : the largest edge at which it is run; some take minutes.
    baseline  : whether it counts as a peer in the table, or answers a lesser question, for comparison.
    """

    module: str
    call: Callable[..., Any]
    agrees: Callable[[Arrays, Any, Any], None]
    prepare: Callable[..., Arrays] = given
    threads: int = 1
    largest: int = 10_000
    baseline: bool = False

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.module.split(".")[0]) is not None


@dataclass(frozen=True)
class Case:
    """One call on one input.

    inputs : the arrays at one edge length in voxels, or of a measured volume, whatever the size.
    ours   : takes the arrays.
    size   : an edge for a case that exists at one only (measured volumes: 0).
    shown  : whether README's table has it, at the edges `edges` that were measured.
    units  : how many voxels (pixels, objects) the arrays count for.
    fresh  : (arrays, repeat) -> other arrays of the same work.
    growth : the arrays of the same call on `cases.lattice`, for the cost of growth.
    """

    name: str
    inputs: Callable[[int], Arrays]
    ours: Callable[..., Any]
    peers: Mapping[str, Peer] = field(default_factory=dict)
    checks: Callable[[Arrays, Any], None] | None = None
    size: int | None = None
    shown: bool = True
    edges: tuple[int, ...] = (256,)
    units: Callable[..., int] = lambda *arrays: int(arrays[0].size)
    fresh: Callable[[Arrays, int], Arrays] = mirrored
    growth: Callable[[int], Arrays] | None = None

    def __str__(self) -> str:
        return self.name

    def peers_at(self, edge: int) -> dict[str, Peer]:
        """The peers that are installed and not too slow at this edge."""
        return {name: peer for name, peer in self.peers.items() if peer.installed and edge <= peer.largest}


def check(case: Case, arrays: Arrays, edge: int) -> None:
    """Compare our answer with the case's own check and with every peer's."""
    answer = case.ours(*arrays)
    if case.checks:
        case.checks(arrays, answer)
    for peer in case.peers_at(edge).values():
        peer.agrees(arrays, answer, peer.call(*peer.prepare(*arrays)))


def toys(cases: Sequence[Case]) -> list[Case]:
    """The cases that exist at every size."""
    return [case for case in cases if case.size is None]


def toy_peers(cases: Sequence[Case]) -> list[tuple[Case, str]]:
    """Every pair of a case and one of its peers."""
    return [(case, name) for case in toys(cases) for name in case.peers]


def run(benchmark: BenchmarkFixture, case: Case) -> None:
    """Check one case at the size of the tests, then time it."""
    arrays = case.inputs(SIZE)
    check(case, arrays, SIZE)
    benchmark.extra_info["voxels"] = case.units(*arrays)
    benchmark(case.ours, *arrays)


def run_peer(benchmark: BenchmarkFixture, case: Case, name: str) -> None:
    """Time one peer at the size of the tests."""
    import pytest

    peer = case.peers[name]
    pytest.importorskip(peer.module.split(".")[0])
    arrays = case.inputs(SIZE)
    benchmark.extra_info["voxels"] = case.units(*arrays)
    benchmark.pedantic(peer.call, args=peer.prepare(*arrays), rounds=3)


def cases_of(operation: str) -> list[Case]:
    """The cases of one operation."""
    found: list[Case] = importlib.import_module(f"benchmarks.bench_{operation}").CASES
    return found
