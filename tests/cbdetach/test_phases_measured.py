"""Phases of hand-labelled slices of NMC electrodes: what must be reached, by the benchmark that prints the table."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import accuracy_phases as bench


@pytest.mark.real_data
def test_automatic_thresholds(real_data: Path) -> None:
    table = bench.thresholds_table(real_data, "auto")
    assert len(table) == 12
    active, cbd, void = bench.mean(table)
    assert active >= 0.83
    assert (active + cbd + void) / 3 >= 0.45
    plain = bench.mean(bench.thresholds_table(real_data, "otsu"))
    assert plain[0] == pytest.approx(0.545, abs=0.005)
    assert plain.mean() == pytest.approx(0.343, abs=0.005)
