"""Every picture of docs/figures that benchmarks make, by one command: `python -m benchmarks.docs_figures [WORK]`.

Those of docs/phases.md, damage.md, connected.md, diffusion.md and correlative.md are of one synthetic electrode
(`science_figures`), those of statistics.md and features.md of eight (`compare_electrodes`), whose runs stay in WORK
(cbdetach_electrodes) and are not made again. About 15 minutes on two cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import compare_electrodes, science_figures

FIGURES = Path(__file__).resolve().parents[1] / "docs" / "figures"


def main(work: Path) -> None:
    """Make, measure, draw."""
    compare_electrodes.main(work, 96)
    compare_electrodes.write_pictures(work, FIGURES)
    science_figures.main(FIGURES)  # last: it draws everything after it small


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "cbdetach_electrodes"))
