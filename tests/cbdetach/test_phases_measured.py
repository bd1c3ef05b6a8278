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


@pytest.mark.real_data
@pytest.mark.slow
def test_trained_classifier(real_data: Path) -> None:
    """The mean is what must be reached; 0.90 for the active phase is not: docs/phases.md says what limits it."""
    table, best = bench.classifier_table(real_data)
    active, cbd, void = bench.mean(table)
    assert active >= 0.875
    assert (active + cbd + void) / 3 >= 0.60
    assert cbd >= bench.mean(bench.thresholds_table(real_data, "auto"))[1] + 0.09
    assert all(best[name] >= row[0] - 0.002 for name, row in table.items())
