"""What was found: every method on the same slices, as a table, as a record, and for people."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cbdetach import __version__
from cbdetach.evaluate.methods import METHODS
from cbdetach.metrics import COCO_IOU, SIX, Comparison, Counts, average_precision, summary

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class Result:
    """One method on all slices."""

    method: str
    comparisons: list[Comparison]
    ranked: list[Comparison]  # for AP: weaker predictions too
    parameters: dict[str, Any] = field(default_factory=dict)
    tried: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0  # for one slice, on average


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All methods on the same slices."""

    names: list[str]  # of the slices
    source: str
    tuned_on: str
    iou: float
    results: list[Result]

    def table(self) -> DataFrame:
        """One row for each method, level ("pixels", "objects") and image, then their mean, standard deviation and n."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for r in self.results:
            for level in ("pixels", "objects"):
                own = [self._row(c, level) for c in r.comparisons]
                head = {"method": r.method, "level": level}
                rows += [{**head, "image": n, **row} for n, row in zip(self.names, own, strict=True)]
                for k, statistic in enumerate(("mean", "sd", "n")):
                    found = summary(own, SIX if level == "pixels" else [*SIX, "mean_iou"])
                    rows.append({**head, "image": f"({statistic})", **{m: v[k] for m, v in found.items()}})
                if level == "objects":
                    ap = average_precision(r.ranked)
                    rows[-3] |= {"ap50": ap[0], "ap": ap.mean()}
        columns = ["method", "level", "image", *SIX, "mean_iou", "ap50", "ap", "tp", "fp", "fn", "tn", "left_out"]
        table = pd.DataFrame(rows).reindex(columns=columns)
        return table.astype(dict.fromkeys(columns[-5:], "Int64"))

    def _row(self, c: Comparison, level: str) -> dict[str, Any]:
        if level == "pixels":
            counts, extra = c.pixels, {}
        else:
            counts, left_out, iou = c.objects(self.iou)
            extra = {"mean_iou": float(iou.mean()) if iou.size else np.nan, "left_out": left_out}
        return counts.metrics() | vars(counts) | extra

    def record(self) -> dict[str, Any]:
        """Everything but the rows of single images, for JSON."""
        methods = {}
        for r in self.results:
            pixels, total, iou = Counts(0, 0, 0, 0), Counts(0, 0, 0), []
            for c in r.comparisons:
                found, _, matched = c.objects(self.iou)
                pixels, total = pixels + c.pixels, total + found
                iou.append(matched)
            over = {
                level: summary([self._row(c, level) for c in r.comparisons], names)
                for level, names in (("pixels", SIX), ("objects", (*SIX, "mean_iou")))
            }
            every = np.concatenate(iou)
            methods[r.method] = {
                "parameters": r.parameters,
                **{
                    level: {m: {"mean": v[0], "sd": v[1], "images": v[2]} for m, v in found.items()}
                    for level, found in over.items()
                },
                "all_images_together": {
                    "pixels": pixels.metrics() | vars(pixels),
                    "objects": total.metrics() | vars(total),
                    "mean_iou": float(every.mean()) if every.size else None,
                },
                "ap": dict(zip(map(str, COCO_IOU), average_precision(r.ranked).tolist(), strict=True)),
                "seconds_per_slice": r.seconds,
                "tried": r.tried,
            }
        return {
            "version": __version__,
            "slices": self.source,
            "images": len(self.names),
            "particles": sum(c.iou.shape[1] for c in self.results[0].comparisons),
            "iou": self.iou,
            "tuned_on": self.tuned_on,
            "methods": methods,
        }

    def __str__(self) -> str:
        """The table for people."""
        record = self.record()
        slices = "1 slice" if record["images"] == 1 else f"{record['images']} slices"
        heads = ("precision", "sensitivity", "Jaccard", "Dice", "F", "MCC")
        lines = [
            f"{slices} ({self.source}), {record['particles']} particles; mean ± standard deviation over slices; "
            f"objects matched at IoU {self.iou:g}",
            " " * 37 + "".join(f"{name:>15}" for name in heads),
        ]
        for name, found in record["methods"].items():
            for level in ("pixels", "objects"):
                cells = "".join(f"{_pair(**found[level][m]):>15}" for m in SIX)
                lines.append(f"{METHODS[name] if level == 'pixels' else '':<29}{level:<8}{cells}")
            ap = np.array(list(found["ap"].values()))
            lines.append(
                f"{'':<29}mean IoU of matches {_pair(**found['objects']['mean_iou'])}, AP50 {ap[0]:.3f}, AP[.50:.95] "
                f"{ap.mean():.3f}; {found['seconds_per_slice']:.2f} s a slice"
            )
        if any(r.tried for r in self.results):
            lines.append(f"Watersheds tuned on {self.tuned_on}.")
        return "\n".join(lines)


def _pair(mean: float, sd: float, images: int) -> str:
    if images == 0:
        return "–"
    return f"{mean:.3f}" if images == 1 else f"{mean:.3f} ± {sd:.3f}"
