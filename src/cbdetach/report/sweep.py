"""The detachment sweep of one particle: its diffusion length while contact is lost, and a schematic model beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cbdetach.report import style
from cbdetach.report.drawing import Drawing, new_figure

if TYPE_CHECKING:
    from cbdetach.sweep import Sweep

Floats = npt.NDArray[np.float64]

NAMES = {"side": "from one side", "patches": "patches at random", "scattered": "scattered pieces"}
COLOURS = {"side": style.MOUTH, "patches": style.SECOND, "scattered": style.ACCENT}


def sweep_drawing(
    sweeps: Sequence[Sweep],
    curves: Mapping[str, Sequence[Floats]],
    formulas: Mapping[str, str],
    *,
    label: int,
    own: tuple[float, float],
    measured_start: bool,
) -> Drawing:
    """Left the mean length of every order, right the accessibilities.

    curves : "electronic" and "ionic", for each sweep the values at its detachments. formulas : what they are, in words.
    own : the particle's own degree of detachment and mean length as measured (nan where it has none).
    """
    import pandas as pd

    figure = new_figure((11.4, 4.0))
    left, right = figure.subplots(1, 2)
    parts = []
    both = np.linspace(0, 1, 201)
    lesser = []
    for number, sweep in enumerate(sweeps):
        colour = COLOURS[sweep.order]
        known = np.isfinite(sweep.mean_um)
        left.plot(
            sweep.detachment[known], sweep.mean_um[known], color=colour, marker="o", ms=3.2, label=NAMES[sweep.order]
        )
        electronic, ionic = curves["electronic"][number], curves["ionic"][number]
        right.plot(sweep.detachment, electronic, color=colour, lw=1.8)
        lesser.append(np.interp(both, sweep.detachment, np.minimum(electronic, ionic), left=np.nan, right=np.nan))
        parts.append(
            pd.DataFrame(
                {
                    "order": sweep.order,
                    "detachment_fraction": sweep.detachment,
                    "diffusion_length_mean_um": sweep.mean_um,
                    "diffusion_length_max_um": sweep.max_um,
                    "unreached_fraction": sweep.unreached,
                    "length_ratio": sweep.mean_um / sweep.mean_um[0],
                    "electronic": electronic,
                    "ionic": ionic,
                }
            )
        )
    detachment, mean = own
    if np.isfinite(mean):
        left.plot(detachment, mean, "D", color=style.INK, ms=6, mec="white", mew=1, label="as measured", zorder=5)
    left.set(xlabel="detachment fraction", ylabel="mean diffusion length (µm)", xlim=(-0.02, 1.02), ylim=(0, None))
    left.legend(loc="upper left")
    left.set_title("solved on the particle")

    order = np.argsort(np.concatenate([s.detachment for s in sweeps]), kind="stable")
    right.plot(
        np.concatenate([s.detachment for s in sweeps])[order],
        np.concatenate(list(curves["ionic"]))[order],
        color=style.INK,
        ls=(0, (4, 2)),
        lw=1.8,
    )
    low, high = np.fmin.reduce(lesser), np.fmax.reduce(lesser)
    right.fill_between(both, low, high, color=style.SECOND, alpha=0.12, lw=0)
    right.plot([], [], color=style.MUTED, lw=1.8, label=f"electronic: {formulas['electronic']}")
    right.plot([], [], color=style.INK, ls=(0, (4, 2)), lw=1.8, label=f"ionic: {formulas['ionic']}")
    right.fill_between([], [], color=style.SECOND, alpha=0.25, lw=0, label="lesser of the two")
    right.set(xlabel="detachment fraction", ylabel="effective accessibility", xlim=(-0.02, 1.02), ylim=(0, None))
    right.set_title("schematic model")
    right.legend(loc="lower right", bbox_to_anchor=(1.01, 1.0), ncols=3, columnspacing=1.0, handlelength=1.6)
    start = "as measured" if measured_start else "all round"
    return Drawing(
        "sweep",
        f"Detachment sweep of particle {label}",
        f"Particle {label}, attached {start} at first, loses contact step by step: from one side, in patches and in "
        "scattered pieces. Left: what that does to the mean diffusion length. Right: a schematic model, not a "
        "measurement: the accessibilities are the curves that were given (d: detachment, r: mean length over that at "
        "the start).",
        figure,
        pd.concat(parts, ignore_index=True),
        place="wide",
    )
