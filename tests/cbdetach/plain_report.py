"""Runs whose report is an empty page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from cbdetach import report


@contextmanager
def reports_without_figures() -> Iterator[None]:
    """Inside this, reports have no figures, which take the longest."""

    def write(given: report.ReportInput) -> Path:
        page: Path = given.out / "report.html"
        page.write_text("")
        return page

    with mock.patch.object(report, "write_report", write):
        yield
