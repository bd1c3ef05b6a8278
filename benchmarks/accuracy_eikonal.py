"""Accuracy of the arrival times on capped balls: `python -m benchmarks.accuracy_eikonal`.

Digitised balls that touch carbon/binder over a cap, whose smooth geometry gives the true distances. Errors in voxels.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import numpy as np
from tests.contract.test_eikonal import capped_balls

import voxkernels as vk
from benchmarks.bench_eikonal import scikit_fmm
from benchmarks.cases import Array


def accuracy(solver: Callable[[Array, Array], Array]) -> dict[str, float]:
    """Error against the smooth geometry, in voxels."""
    errors = [(solver(domain, sources)[domain] - truth) for domain, sources, truth in capped_balls()]
    worst = np.array([np.abs(e).max() for e in errors])
    return {
        "rms": float(np.sqrt(np.mean([np.mean(e**2) for e in errors]))),
        "bias": float(np.mean([e.mean() for e in errors])),
        "worst": float(worst.max()),
        "balls with an error above 1": float((worst > 1).mean()),
    }


def main() -> None:
    """Write the table."""
    solvers: dict[str, Callable[[Array, Array], Array]] = {
        f"scikit-fmm, order {order}": partial(scikit_fmm, order=order) for order in (1, 2)
    }
    for start in ("surface", "faces", "centres"):
        for order in (1, 2):
            solvers[f"{start}, order {order}"] = partial(vk.travel_time, order=order, start=start)
    for name, solver in solvers.items():
        found = accuracy(solver)
        sys.stdout.write(f"{name:22}" + "".join(f"  {what} {value:+.3f}" for what, value in found.items()) + "\n")


if __name__ == "__main__":
    main()
