"""How near the training slices are to real ones: the same statistics of both, side by side.

    python -m benchmarks.realism FOLDER [--scenes N]

FOLDER holds real slices as TIFF: `NAME.tif`, and beside it, where there are any, `NAME_labels.tif` (particles 1..n) and
`NAME_ignore.tif`, or `NAME_phases.tif` (0 is active material). Slices with neither are outlined by the watershed of
`cbdetach.segment`, so that their particle statistics are the watershed's as much as theirs. Every slice is first put on
the scale on which the network works: particles 32 pixels across, grey 0 and 1 at the means of the two Otsu classes.

The table has one row per statistic: the median and the 5th to 95th percentile over the slices of N scenes, then each
real slice, marked where it lies outside that range. A row in which most real slices are marked is a difference to
close.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

NOMINAL = 32.0


def otsu(image: Array) -> tuple[float, float, float]:
    """Threshold, and the means below and above it."""
    low, high = np.quantile(image, [0.001, 0.999])
    count, edges = np.histogram(np.clip(image, low, high), 256)
    middle = 0.5 * (edges[1:] + edges[:-1])
    weight = np.cumsum(count)
    total = np.cumsum(count * middle)
    first, second = weight[:-1], weight[-1] - weight[:-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = total[:-1] / first - (total[-1] - total[:-1]) / second
        k = int(np.nanargmax(first * second * apart**2))
    dark, bright = total[k] / first[k], (total[-1] - total[k]) / second[k]
    return float(edges[k + 1]), float(dark), float(bright)


def section_diameter(labels: Array) -> float:
    """Area-weighted median of the sections' equivalent diameters, pixels."""
    area = np.sort(np.bincount(labels.ravel())[1:])
    area = area[area > 20]
    return float(np.sqrt(4 / np.pi * area[np.searchsorted(np.cumsum(area), 0.5 * area.sum())]))


def outlines(image: Array, active: Array | None = None) -> Array:
    """Particles by watershed of the active phase, here of everything brighter than Otsu's threshold after smoothing."""
    from scipy import ndimage

    from cbdetach.segment import segment_slice

    if active is None:
        smooth = ndimage.gaussian_filter(image.astype(np.float32), 2)
        active = smooth > otsu(smooth)[0]
    return segment_slice(active, spacing=(1.0, 1.0), min_diameter_um=8.0, close_um=3.0)


def scaled(image: Array, labels: Array, ignore: Array | None) -> tuple[Array, Array, Array]:
    """On the network's grid and grey scale."""
    from scipy import ndimage

    zoom = NOMINAL / section_diameter(labels)
    image = image.astype(np.float32)
    if zoom < 1:
        image = ndimage.gaussian_filter(image, 0.4 * np.sqrt(1 / zoom**2 - 1))
    image = ndimage.zoom(image, zoom, order=1)
    ignore = np.zeros(labels.shape, bool) if ignore is None else ignore > 0
    labels, ignore = (ndimage.zoom(a, zoom, order=0) for a in (labels, ignore))
    _, dark, bright = otsu(image)
    return (image - dark) / (bright - dark), labels, ignore


def statistics(image: Array, labels: Array, ignore: Array) -> dict[str, float]:
    """Everything that is compared; the image, labels and ignored parts as `scaled` gives them."""
    from scipy import ndimage

    row: dict[str, float] = {}
    for share in (1, 10, 25, 50, 75, 90, 99):
        row[f"grey {share} %"] = float(np.quantile(image, share / 100))
    row["area of particles"] = float((labels > 0).mean())

    inner = ndimage.distance_transform_edt(labels > 0)
    outer = ndimage.distance_transform_edt((labels == 0) & ~ignore)
    inside, outside = inner > 4, outer > 4
    smooth = [image, *(ndimage.gaussian_filter(image, s) for s in (1, 2, 4, 8))]
    for k, name in enumerate(("below 1", "1 to 2", "2 to 4", "4 to 8")):
        band = smooth[k] - smooth[k + 1]
        row[f"grain {name} px, particles"] = float(band[inside].std())
        row[f"grain {name} px, between"] = float(band[outside].std()) if outside.any() else np.nan

    # anisotropy of the finest grain: power along the strongest of four directions by the mean
    band = np.where(outside | inside, smooth[0] - smooth[1], 0)
    power = [
        float((band * np.roll(band, shift, (0, 1))).mean() / (band**2).mean())
        for shift in ((0, 2), (2, 0), (2, 2), (2, -2))
    ]
    row["streakiness"] = max(power) - float(np.median(power))

    # the edge of the particles where nothing else is near: distance between 10 and 90 % of the step
    boundaries = _others(labels)
    alone = ~ndimage.binary_dilation(boundaries | ignore, iterations=6)
    signed = np.where(labels > 0, 0.5 - inner, outer - 0.5)
    steps = np.arange(-7, 8)
    rings = [image[alone & (np.abs(signed - d) <= 0.5)] for d in steps]
    profile = np.array([ring.mean() if len(ring) else np.nan for ring in rings])
    top, bottom = profile[2:4].mean(), profile[-3:-1].mean()
    fine = np.linspace(-6, 6, 1201)
    step = (np.interp(fine, steps, profile) - bottom) / (top - bottom)
    low, high = (fine[np.argmax(step < level)] for level in (0.1, 0.9))
    row["edge 10 to 90 %, px"] = float(low - high)
    row["edge lies outside outline by, px"] = float(fine[np.argmax(step < 0.5)])
    row["step at the edge"] = float(top - bottom)

    # what is dark inside
    numbers = np.unique(labels[labels > 0])
    area = np.bincount(labels.ravel(), minlength=labels.max() + 1)[numbers].astype(float)
    diameter = np.sqrt(4 / np.pi * area)
    cut = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    keep = ~np.isin(numbers, cut) & (diameter > 12)
    hole = (smooth[1] < 0.55) & (inner > 3)
    pieces = ndimage.label(hole)[0]
    size = np.bincount(pieces.ravel())[1:]
    share = np.bincount(labels[hole], minlength=labels.max() + 1)[numbers] / area
    row["dark area inside"] = float(hole.sum() / (inner > 3).sum())
    row["particles with 3 % or more dark"] = float((share[keep] > 0.03).mean())
    row["particles with 10 % or more dark"] = float((share[keep] > 0.1).mean())
    row["dark pieces per particle"] = float((size > 2).sum() / max(len(numbers), 1))
    row["area of the dark pieces, px"] = float(np.median(size[size > 2])) if (size > 2).any() else np.nan
    row["dark share of the centres"] = float(hole[inner > 10].mean()) if (inner > 10).any() else np.nan

    # outlines
    rim = (labels > 0) & (inner <= 1.0)
    near = ndimage.binary_dilation(boundaries, iterations=2)
    row["outline next to another"] = float((rim & near).sum() / rim.sum())
    whole = numbers[keep]
    solid, stretch = [], []
    boxes: list[Any] = ndimage.find_objects(labels)
    for k in whole:
        y, x = (labels[boxes[k - 1]] == k).nonzero()
        covariance = np.cov(np.stack([y, x]))
        minor, major = np.linalg.eigvalsh(covariance)
        stretch.append(np.sqrt(major / minor))
        solid.append(len(y) / (4 * np.pi * np.sqrt(major * minor)))
    row["axis ratio, median"] = float(np.median(stretch))
    row["axis ratio, 90 %"] = float(np.quantile(stretch, 0.9))
    row["area by that of its ellipse, 10 %"] = float(np.quantile(solid, 0.1))
    row["diameter, 10 % by median"] = float(np.quantile(diameter, 0.1) / np.median(diameter))
    row["diameter, 90 % by median"] = float(np.quantile(diameter, 0.9) / np.median(diameter))

    # brightness of the sections
    bright = np.where(smooth[1] > 0.55, smooth[1], np.nan)
    level = np.array([np.nanmean(np.append(bright[boxes[k - 1]][labels[boxes[k - 1]] == k], 0.55)) for k in whole])
    row["brightness of sections, sd"] = float(level.std())
    row["brightness of sections, 10 %"] = float(np.quantile(level, 0.1))
    row["uneven light, sd"] = float(ndimage.gaussian_filter(np.where(inside, image, 1.0), 64).std())
    return row


def _others(labels: Array) -> Array:
    """Pixels within 2 of two particles."""
    from scipy import ndimage

    high = ndimage.maximum_filter(labels, 5)
    low = ndimage.minimum_filter(np.where(labels > 0, labels, labels.max() + 1), 5)
    result: Array = (high > 0) & (low < high)
    return result


def real(folder: Path) -> dict[str, tuple[Array, Array, Array | None]]:
    """Image, labels and what to ignore of each slice in the folder, by name."""
    import tifffile

    slices = {}
    for path in sorted(folder.glob("*.tif")):
        if path.stem.endswith(("_labels", "_ignore", "_phases")):
            continue
        image = tifffile.imread(path)
        if image.ndim != 2:
            continue
        extra = {part: path.with_name(f"{path.stem}_{part}.tif") for part in ("labels", "ignore", "phases")}
        ignore = tifffile.imread(extra["ignore"]) if extra["ignore"].exists() else None
        if extra["labels"].exists():
            labels = tifffile.imread(extra["labels"]).astype(np.int32)
        elif extra["phases"].exists():
            labels = outlines(image, tifffile.imread(extra["phases"]) == 0)
        else:
            labels = outlines(image)
        slices[path.stem] = image, labels, ignore
    return slices


def table(columns: dict[str, dict[str, float]], scenes: list[dict[str, float]]) -> str:
    """Text: one row per statistic."""
    lines = [f"{'':36}{'phantom (5 to 95 %)':28}" + "".join(f"{name[-14:]:>16}" for name in columns)]
    for name in scenes[0]:
        values = np.array([row[name] for row in scenes])
        low, middle, high = np.nanquantile(values, [0.05, 0.5, 0.95])
        line = f"{name:36}{middle:8.3f} ({low:7.3f} {high:7.3f})  "
        for row in columns.values():
            mark = "<" if row[name] < low else ">" if row[name] > high else " "
            line += f"{row[name]:15.3f}{mark}"
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    from cbdetach.train.scenes import slices_of_scene

    parser = argparse.ArgumentParser(description="Statistics of training slices and of real ones, side by side.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=24)
    options = parser.parse_args()
    columns = {name: statistics(*scaled(*parts)) for name, parts in real(options.folder).items()}
    scenes = []
    for seed in range(options.scenes):
        drawn = slices_of_scene(10_000 + seed, count=1)[0]
        scenes.append(statistics(*scaled(drawn.image, drawn.labels, drawn.ignore)))
    sys.stdout.write(table(columns, scenes) + "\n")


if __name__ == "__main__":
    main()
